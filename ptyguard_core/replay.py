"""Replay: the screen that a session's output has made, from where a restore begins.

The facts to begin with are those of past.py, as they come over the wire:

    {"offset": 918244, "sequences": "\\x1b[?1049h", "sizes": [[0, 80, 24], [920000, 120, 40]]}
"""

from collections import deque

from .screen import Screen

COLUMNS_MAX = 4096
CELLS_MAX = 1 << 20            # a screen of 1024 x 1024; of a larger one a part is made
HISTORY_CELLS_MAX = 1 << 22    # 50,000 lines of 80: some 70 MB


def capped(size, cells_max=CELLS_MAX):
    """The part of so large a terminal that is made: (columns, rows)."""
    cols = max(1, min(size[0], COLUMNS_MAX))
    return cols, max(1, min(size[1], cells_max // cols))


class Replay:
    """`screen` after all output up to `offset`."""

    def __init__(self, past, history_max=1000, cells_max=CELLS_MAX):
        """`past` as above; `history_max`: lines that are kept of what leaves the screen."""
        self._cells_max = cells_max
        self.offset = past["offset"]
        sizes = [tuple(entry) for entry in past["sizes"]]
        size = capped(sizes[0][1:], cells_max)
        self.screen = Screen(size, min(history_max, HISTORY_CELLS_MAX // size[0]))
        self.screen.feed(past["sequences"].encode("latin-1"))
        if self.offset > 0:             # something was shown before
            self.screen.forget_cells()
        self._changes = deque()
        for offset, cols, rows in sizes[1:]:
            self.resize((cols, rows), offset)

    def feed(self, data):
        """Take the output from `offset` on."""
        view = memoryview(data)
        while self._changes and self._changes[0][0] <= self.offset + len(view):
            at, size = self._changes.popleft()
            if at > self.offset:
                view = self._feed(view, at - self.offset)
            self.screen.resize(size)
        self._feed(view, len(view))

    def skip(self, count):
        """Of the next `count` bytes all has been done by `stand_in` that is to be seen any more."""
        self.screen.marks.clear()       # nobody knows how far their lines have moved
        self.offset += count
        if self._changes:
            self.feed(b"")

    def stand_in(self, data):
        """Feed what does as much as output that is skipped next."""
        self.screen.feed(data)

    def steady(self, count):
        """How many of the next `count` bytes come before the size changes."""
        return min(count, max(0, self._changes[0][0] - self.offset)) if self._changes else count

    def feed_at(self, offset, data):
        """`feed` of output that may be known already, as a whole or in part."""
        known = self.offset - offset
        if known < len(data):
            self.feed(memoryview(data)[max(0, known):])

    def _feed(self, view, count):
        self.screen.feed(bytes(view[:count]))
        self.offset += count
        return view[count:]

    def resize(self, size, offset=None):
        """The terminal has this size from `offset` on, or from here."""
        if offset is None or offset <= self.offset and not self._changes:
            self._changes.clear()
            self.screen.resize(capped(size, self._cells_max))
        else:
            self._changes.append((offset, capped(size, self._cells_max)))
