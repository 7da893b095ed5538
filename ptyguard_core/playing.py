"""Playing: recorded output to a terminal, in its time.

Rule 1: every moment is reckoned from the beginning, so that being late once delays nothing.
Rule 2: nothing that is played makes the terminal answer, and the modes that were switched on
        are switched off again, however it ends.
"""

from .terminal import Modes, QueryFilter


def play(output, write, clock, sleep):
    """`output` gives (seconds, "o", text); `write(bytes)` is to take all of it."""
    modes, shown = Modes(), QueryFilter()
    began = clock()
    try:
        for time, _, text in output:
            late = began + time - clock()
            if late > 0:
                sleep(late)
            data = shown.feed(text.encode("utf-8", "replace"))
            modes.feed(data)
            write(data)
    finally:
        write(modes.undo())
