"""Past: what a session's output has set that a restore does not replay any more.

Who attaches is shown the newest output, at most RESTORE_BYTES of it.  The state that a
terminal is in before that (modes, margins, charsets, title, directory) is told by a few
sequences.  They are found while that output is still in the ring, in large pieces and by
the patterns of terminal.py: nothing is parsed byte by byte, and nothing as it arrives.

Rule 1: all below `offset` has been looked at, and `sequences` brings a fresh terminal into
        the state that holds there.
Rule 2: `offset` is no place inside a sequence or a character, nor inside a line if that can
        be: output can be replayed from it.
Rule 3: it keeps ahead of what is overwritten, so far that what it found is with the guard
        before the output is gone; after a kill -9 the next daemon goes on from there.

After such a death the output between the last change that was noted and the oldest kept byte
is known to have changed nothing.  What was set and put back within it is looked at in part;
only a pushed keyboard mode (kitty) could be popped once too often by that.

Not handled: titles that are pushed and popped; keyboard modes of the alternate screen once
that has been left.
"""

from .terminal import (NEWLINE_WINDOW, Modes, Pattern, has_only_colours, safe_start, unfinished_at,
                       unfinished_character)

RESTORE_BYTES = 1 << 20        # a thousand screens of text, half a second of replay
PIECE_PART = 16                # of the ring: what is looked at in one go
SEQUENCE_MAX = 4096            # a longer one is not waited for; screen.py ignores those of that length
SIZES_MAX = 64                 # changes of size that are remembered: a window being dragged

# Icon and title (OSC 0), icon (1), title (2), directory (7).
_STRING = Pattern(rb"\x1b\]0*([0127]);([^\x07\x18\x1a\x1b]{0,4096})(?:\x07|\x1b\\)")
_SETS = {b"0": (b"1", b"2"), b"1": (b"1",), b"2": (b"2",), b"7": (b"7",)}


class Past:
    """The state at `offset`, which moves on by `look`."""

    def __init__(self, offset=0, sequences=b""):
        self.offset = offset
        self._modes = Modes()
        self._strings = {}              # of _SETS: the body
        at = unfinished_at(sequences)
        # The beginning of a string that goes on at `offset`.
        self._inside = b"" if at is None else sequences[at:]
        self._note(sequences[:at])

    @property
    def sequences(self):
        """What brings a fresh terminal into the state that holds at `offset`.

        Where the cursor is nobody knows: at home, or where lines scroll.
        """
        bottom = self._modes.bottom_margin
        cursor = b"\x1b[%d;1H" % bottom if bottom else b""
        strings = [b"\x1b]%s;%s\x1b\\" % item for item in sorted(self._strings.items())]
        return self._modes.redo() + cursor + b"".join(strings) + self._inside

    @property
    def title(self):
        """The window's title, bytes, or None."""
        return self._strings.get(b"2")

    def due_at(self, ring):
        """Before the end of output gets beyond this, `look` is to be called."""
        return self.offset + _span(ring)

    def look(self, ring, end_offset):
        """Look at the next piece, for the output is to end at `end_offset`; whether the state
        has changed."""
        if self.offset < ring.start_offset:
            self.adopt(ring)
        before = self.sequences
        horizon = end_offset - _span(ring)
        end = min(ring.end_offset, horizon + min(ring.capacity, RESTORE_BYTES) // PIECE_PART)
        if self.offset < end:
            self._take(ring.read(self.offset, end - self.offset), horizon - self.offset)
        return self.sequences != before

    def adopt(self, ring):
        """Go on after a daemon that died: what is gone has set nothing that was not noted."""
        if self.offset > ring.end_offset:           # that was another ring
            self.__init__()
        # All before that had been looked at, but for what the daemon was killed at.
        looked_to = max(ring.start_offset, ring.end_offset - _span(ring) - ring.window_bytes)
        if self.offset < looked_to:
            self._inside = b""
            data = ring.read(looked_to, 2 * NEWLINE_WINDOW)
            skipped = safe_start(data)
            if data[skipped - 1:skipped] != b"\n":
                place = _PLACE.search(data, skipped)
                skipped = place.start() if place else skipped
            self.offset = looked_to + skipped

    def _take(self, data, least=0):
        """Note what `data` sets, up to where it may be replayed from; a line is cut only to
        get to `least`."""
        held = len(self._inside)
        data = self._inside + data
        cut, self._inside = _boundary(data, held + least)
        self.offset += cut - held
        self._note(data[:cut])

    def _note(self, data):
        if has_only_colours(data):
            self._modes.feed_colours(data)
            return
        self._modes.feed(data)
        for number, body in _STRING.findall(data):
            for which in _SETS[number]:
                self._strings[which] = body


def _span(ring):
    """How much output there may be that has not been looked at."""
    # Ahead by a read: a turn ends with what is news (rule 3).
    return min(ring.capacity - 2 * ring.window_bytes, RESTORE_BYTES)


def _boundary(data, least):
    """(where to cut, the beginning of the string that goes on there or nothing)."""
    line = data.rfind(b"\n", max(0, least - 1, len(data) - NEWLINE_WINDOW)) + 1
    if line and unfinished_at(data, line) is None:
        return line, b""
    at = unfinished_at(data)
    if at is None:
        return _place_at_the_end(data, least) or len(data) - unfinished_character(data), b""
    return (at, b"") if 0 < at >= len(data) - SEQUENCE_MAX else (len(data), data[at:at + 2])


def told_facts(past, sizes):
    """Both for the wire and the blob: a dict for JSON."""
    return {"offset": past.offset, "sequences": past.sequences.decode("latin-1"),
            "sizes": sizes.since(past.offset)}


def sequences_told(reply):
    """The state before the output that came with a reply (of an older daemon: nothing), bytes."""
    return (reply.get("past") or {}).get("sequences", "").encode("latin-1")


def read_facts(facts, size):
    """(Past, Sizes) as `told_facts` told them; what cannot be used is as if nothing
    had been told, and `size` {cols, rows} holds."""
    sizes = Sizes((0, size["cols"], size["rows"]))
    try:
        offset, sequences = int(facts["offset"]), facts["sequences"].encode("latin-1")
        told = [(int(at), int(cols), int(rows)) for at, cols, rows in facts["sizes"][-SIZES_MAX:]]
        return Past(max(0, offset), sequences), Sizes(*told[:1], told[1:]) if told else sizes
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError):
        return Past(), sizes


# Where a program that writes no lines goes on drawing: the cursor is placed.
_PLACE = Pattern(rb"\x1b\[[0-9]*(?:;[0-9]*)?H")


def _place_at_the_end(data, least):
    """Where the last sequence stands that places the cursor, if that is not far from the end; or 0."""
    places = [match.start() for match in _PLACE.finditer(data, max(1, least, len(data) - NEWLINE_WINDOW))]
    return places[-1] if places else 0


class Sizes:
    """Which sizes a session's terminal had: (offset, columns, rows), the oldest first."""

    def __init__(self, first, later=()):
        self._entries = [first, *later]

    def note(self, offset, size):
        """From `offset` on it has this size."""
        entry = (offset, *size)
        if self._entries[-1][0] == offset:
            self._entries.pop()
        if not self._entries or self._entries[-1][1:] != entry[1:]:
            self._entries.append(entry)
        if len(self._entries) > SIZES_MAX:
            del self._entries[0]

    def since(self, offset):
        """Those that hold from there on."""
        first = max((at for at, entry in enumerate(self._entries) if entry[0] <= offset), default=0)
        return self._entries[first:]
