"""Foreign: programs that are not the guard's own children, watched for their end.

Their guard has died; whoever adopted them cannot wait for them.  That they end can be seen,
with what status cannot.
"""

import os

from .backend import READABLE

CHECK_S = 1.0                   # where the system cannot watch a foreign process


class Foreign:
    """Those of `guard`."""

    def __init__(self, guard):
        self._guard = guard
        self._timer = None

    def watch(self, held):
        """Not our child: its end can be seen, its status cannot be learnt."""
        try:
            held.watch = self._guard.backend.watch_process(held.pid, held.pid_start)
        except (OSError, OverflowError):
            held.watch = None
        if held.watch is not None:
            self._guard.loop.watch(held.watch, lambda _bits: self._guard.on_session_end(held, 0, False),
                            READABLE)
        elif self._timer is None:
            self._timer = self._guard.loop.after(0, self._check)

    def forget(self, held):
        """It has ended, or is not ours to watch any more.  Idempotent."""
        if held.watch is not None:
            self._guard.loop.forget(held.watch)
            os.close(held.watch)
            held.watch = None

    def _is_gone(self, held):
        try:
            start = self._guard.backend.process_start(held.pid)
        except OSError:
            return False                # no descriptor to look with is no proof
        # A start time of 0 was not known in time; a living pid is all we can ask for.
        return start is None or bool(held.pid_start) and start != held.pid_start

    def _check(self):
        self._timer = None
        unwatched = [held for held in self._guard.sessions.values()
                     if held.is_living and not held.is_child and held.watch is None]
        for held in unwatched:
            if self._is_gone(held):
                self._guard.on_session_end(held, 0, False)
        if any(held.is_living for held in unwatched):
            self._timer = self._guard.loop.after(CHECK_S, self._check)
