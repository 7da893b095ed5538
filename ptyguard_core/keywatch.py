"""Keywatch: what a human types on its way to the program, less the detach key.

The client does it, or the daemon for a terminal that was lent to it (direct.py): the same
object in the same loop of turns.

Rule 1: what may be the beginning of the key is held only as long as it can still become one:
        a lone ESC is a key of its own after a moment.
Rule 2: the end of a paste may have been lost; after a silence the key works again.
"""

from .detachkey import Matcher

ESCAPE_PATIENCE_S = 0.05       # rule 1
PASTE_PATIENCE_S = 1.0         # rule 2


class KeyWatch:
    """Calls `forward(data)` with what is the program's, and `detach()` when the key was pressed.

    Without a key (None) everything is forwarded at once.
    """

    def __init__(self, loop, key, forward, detach):
        self._loop = loop
        self._forward = forward
        self._detach = detach
        self._matcher = Matcher(key) if key else None
        self._timer = None

    def feed(self, data):
        """The next bytes from the terminal."""
        if self._matcher is None:
            self._forward(data)
            return
        data, is_detach, _ = self._matcher.feed(data)
        self._stop_waiting()
        if data:
            self._forward(data)
        if is_detach:
            self._detach()
        elif self._matcher.is_holding_escape:
            self._timer = self._loop.after(ESCAPE_PATIENCE_S, self._give_up_escape)
        elif self._matcher.is_pasting:
            self._timer = self._loop.after(PASTE_PATIENCE_S, self._matcher.end_paste)

    def release(self):
        """What is held, for whoever watches from now on; nothing is held any more."""
        self._stop_waiting()
        return self._matcher.flush() if self._matcher is not None else b""

    @property
    def is_pasting(self):
        """Whether a paste has begun and not ended: whoever watches from now on has to know."""
        return self._matcher is not None and self._matcher.is_pasting

    def begin_paste(self):
        """Who watched before has seen one begin."""
        if self._matcher is not None:
            self._stop_waiting()
            self._matcher.begin_paste()
            self._timer = self._loop.after(PASTE_PATIENCE_S, self._matcher.end_paste)

    def _stop_waiting(self):
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _give_up_escape(self):
        self._forward(self._matcher.flush())
