"""Playing: recorded output to a terminal, in its time.

Rule 1: every moment is reckoned from the beginning, so that being late once delays nothing.
Rule 2: nothing that is played makes the terminal answer, and the modes that were switched on
        are switched off again, however it ends.
Rule 3: who is stopped (Ctrl-Z) gives the terminal back as it was meanwhile, and goes on where it was.
"""

from .terminal import Modes, QueryFilter


class Stopped(Exception):
    """A signal ends it: its name."""


def play(output, write, clock, sleep):
    """`Player.play`, which nobody pauses."""
    Player(write, clock, sleep).play(output)


class Player:
    """`write(bytes)` is to take all of it; `clock` and `sleep` as those of `time`."""

    def __init__(self, write, clock, sleep):
        self._write = write
        self._clock = clock
        self._sleep = sleep
        self._modes = Modes()
        self._began = 0.0

    def play(self, output):
        """`output` gives (seconds, "o", text)."""
        shown = QueryFilter()
        self._began = self._clock()
        try:
            for time, _, text in output:
                self._wait_until(time)
                data = shown.feed(text.encode("utf-8", "replace"))
                self._modes.feed(data)
                self._write(data)
        finally:
            self._write(self._modes.undo())

    def _wait_until(self, time):
        while True:                     # a pause makes it later
            late = self._began + time - self._clock()
            if late <= 0:
                return
            self._sleep(late)

    def pause(self, stop):
        """Put the terminal back, `stop()`, and go on as if no time had passed."""
        self._write(self._modes.undo())
        began = self._clock()
        stop()
        self._began += self._clock() - began
        self._write(self._modes.redo())
