"""Sequence: a stream of numbered lines in which nothing is lost, doubled or moved unnoticed.

The program writes them as fast as it can, or one a millisecond, from `go` until `stop`, and then
tells how many.  `Checker` is fed what arrived, in pieces, and counts the bytes that are missing and
those that came again: at the first byte that is not the expected one it goes on at the next line that has a
number, and the distance to where that line belongs is what was lost or doubled.
"""

import os
import re
import sys
import time

from rounds import Failure

LINE_BYTES = 256                        # CR LF included
BATCH = 64
READY = b"<<ready>>"

LINES = """
text = bytes(33 + (i * i * 7 + i // 91 + i % 13) % 90 for i in range(1200))
def line(n):
    at = n * 37 % 900
    return b"%012d " % n + text[at:at + 241] + b"\\r\\n"
"""

# Arguments: the FIFO go, the file stop, and the pause after each line in seconds; without one, batches.
PROGRAM = LINES + f"""
import os, sys, termios, time
go, stop, pause = sys.argv[1], sys.argv[2], float(sys.argv[3])
settings = termios.tcgetattr(1)
settings[1] &= ~termios.OPOST
termios.tcsetattr(1, termios.TCSANOW, settings)
os.write(1, {READY!r})
open(go).close()
n, batch = 0, 1 if pause else {BATCH}
while not os.path.exists(stop):
    rest = b"".join(map(line, range(n, n + batch)))
    while rest:
        rest = rest[os.write(1, rest):]
    n += batch
    if pause:
        time.sleep(pause)
os.write(1, b"<<end %012d>>" % n)
while True:
    time.sleep(1000)
"""
PLACE = re.compile(rb"\n(\d{12}) |<<end (\d{12})>>")       # no line has a second blank


class Writer:
    """The program, in a place."""

    def __init__(self, place, pause_s=0.0):
        self._go, self._stop = place.path("sequence.go"), place.path("sequence.stop")
        os.mkfifo(self._go)
        self.argv = [sys.executable, "-I", "-S", place.write("sequence.py", PROGRAM.encode()), self._go, self._stop,
                     str(pause_s)]

    def go(self):
        """Let it begin.  Blocks until it is there."""
        open(self._go, "w").close()

    def stop(self):
        """Let it come to its end."""
        with open(self._stop, "w"):
            pass


class Checker:
    """Counts what is lost and doubled in what it is fed.  `is_over` after the program's last word."""

    def __init__(self):
        scope = {}
        exec(LINES, scope)              # the very text that the program runs
        self._line = scope["line"]
        self.lost = self.doubled = 0
        self.is_over = False
        self._number = 0                # of the first line in _expected ...
        self._expected = b""
        self._at = 0                    # ... of which this much has come
        self._rest = b""

    def feed(self, data):
        """Take the next bytes."""
        data = self._rest + data
        self._rest = b""
        while data and not self.is_over:
            if self._at == len(self._expected):
                self._expect(self._number + len(self._expected) // LINE_BYTES)
            count = min(len(data), len(self._expected) - self._at)
            if data[:count] == self._expected[self._at:self._at + count]:
                self._at += count
                data = data[count:]
            else:
                data = self._resume(data)

    def _expect(self, number, at=0):
        self._number, self._at = number, at
        self._expected = b"".join(map(self._line, range(number, number + 4 * BATCH)))

    @property
    def _offset(self):
        return self._number * LINE_BYTES + self._at

    def _resume(self, data):
        """What is left of `data` from the next place on that says where it is."""
        same = next(i for i, (one, other) in enumerate(zip(data, self._expected[self._at:])) if one != other)
        found = PLACE.search(data, same)
        if found is None:
            self._rest = data           # a later piece will tell
            return b""
        line, count = found.groups()
        start = found.start() + (1 if line else 0)          # behind the line feed
        number = int(line or count)
        self._count(number * LINE_BYTES - (self._offset + start))
        self._expect(number)
        self.is_over = count is not None
        return data[start:]

    def _count(self, missing):
        """More than was expected is missing, or less has come than was: the same has come again."""
        if missing > 0:
            self.lost += missing
        else:
            self.doubled -= missing

    def start_anywhere(self, data):
        """As if all before the first whole line in `data` had come; what follows has to be fed."""
        found = PLACE.search(data)
        self._expect(int(found.group(1)))
        return data[found.start() + 1:]


def pieces(drain, checker, limit_s=120.0):
    """Yield (when it came, how many bytes) of what comes, fed to `checker`; (now, 0) each idle millisecond."""
    deadline = time.perf_counter() + limit_s
    while not checker.is_over:
        data = drain.some(0.001)
        now = time.perf_counter()
        if data is None:
            raise Failure("it ended in the middle")
        if now > deadline:
            raise Failure(f"not over after {limit_s:g} s")
        checker.feed(data)
        yield now, len(data)
