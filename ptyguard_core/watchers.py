"""Watchers: who is told that the list of sessions has changed, and when.

A client that said `watch` gets the event `changed`, without any particulars: what there is it
asks by `ls`.  Until it has asked it gets no second one, so that however much happens, and
however slow it is, it costs one small frame.  Changes within a turn of the loop are one.

Titles are not among them: those are looked for when somebody asks, and never before.
"""

from . import frames


class Watchers:
    """The clients that watch the list."""

    def __init__(self, loop):
        self._loop = loop
        self._waiting = set()           # those who know all there was when they last asked
        self._told = set()              # those who have not asked since they were told
        self._is_due = False

    def add(self, client):
        """This client wants to be told of what happens from now on.  Idempotent."""
        if client not in self._told:
            self._waiting.add(client)

    def forget(self, client):
        """It is gone; or it has never been here."""
        self._waiting.discard(client)
        self._told.discard(client)

    def caught_up(self, client):
        """It asks for the list just now."""
        if client in self._told:
            self._told.discard(client)
            self._waiting.add(client)

    def note_change(self):
        """Something that `ls` tells is another now."""
        if self._waiting and not self._is_due:
            self._is_due = True
            self._loop.soon(self._tell)

    def _tell(self):
        self._is_due = False
        told, self._waiting = self._waiting, set()
        self._told |= told
        for client in told:
            client.send(frames.EVENT, event="changed")
