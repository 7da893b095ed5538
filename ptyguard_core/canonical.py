"""Canonical lines: how long ones get through a terminal that would drop their end.

In canonical mode the system keeps an unfinished line until its end comes, up to a limit
(4095 bytes on Linux, 1023 on macOS); what is typed beyond it is dropped without a word
(n_tty.c).  But the end-of-file character in the middle of a line hands what stands there to
the reader at once, and is not part of it (termios(3), VEOF): typed in time, it makes room,
and the program reads the whole line, in more than one piece.

Rule 1: it is only typed right behind an ordinary character of a line that was counted from
        its beginning in canonical mode: at the beginning of a line it would mean end of file.
Rule 2: what cannot be counted (the mode was another one when the line began) is left alone.
Rule 3: a line of a few bytes fits whatever the mode is, and asking costs ten times what counting
        does: it is asked for once more was typed, and then taken for what it was all along.
        If it was not, that line is cut a few bytes earlier than it had to be, and as rule 1 has it.

What is not handled: a program that leaves canonical mode while such a line waits finds a NUL
in the place of each end-of-file character; the system puts it there (n_tty.c).
"""

_LOOK_BACK = 64                 # for an ordinary character to cut behind
_UNASKED_BYTES = 200            # rule 3; much less than any system's limit (255 at least: POSIX, MAX_CANON)


class LineFeeder:
    """Cuts what is to be typed into pieces that fit; fed with what was written of them."""

    def __init__(self, unasked_bytes=_UNASKED_BYTES):
        self._unasked_max = unasked_bytes
        self._unasked = b""             # written since the mode was asked for (rule 3)
        self._is_asked = False          # for the piece that is written now
        self._mode = None               # what was said then
        self._pending = 0               # bytes in the unfinished line, as counted here
        self._is_ordinary = False       # the last of them is a character

    def next_piece(self, data, canonical_mode):
        """(bytes to write next, whether they are of `data`); `canonical_mode()` tells a
        backend.CanonicalMode, or None while the terminal is in another mode."""
        self._is_asked = self._pending + len(self._unasked) + len(data) > self._unasked_max
        if not self._is_asked:
            return data, True
        mode = self._mode = canonical_mode()
        if self._unasked:
            self._count(self._unasked)
            self._unasked = b""
        if mode is None or not mode.end_of_file:
            return data, True
        room = max(0, mode.limit - self._pending)
        if len(data) <= room:
            return data, True
        # Whole lines first: what follows the last end is a line of its own.  For that end
        # itself there is a place kept.
        end = self._last_end(data[:room + 1], mode)
        if end >= 0:
            return data[:end + 1], True
        cut = self._cut(data, room - 1, mode)
        if cut > 0:
            return data[:cut], True
        if not self._is_ordinary:           # rule 1: the line may have been erased
            return data[:1], True
        return mode.end_of_file, False

    @staticmethod
    def _last_end(data, mode):
        return max(data.rfind(mode.ends[at:at + 1]) for at in range(len(mode.ends)))

    @staticmethod
    def _cut(data, room, mode):
        """How much of a line that is too long is typed before it is handed on."""
        for cut in range(room, max(0, room - _LOOK_BACK), -1):
            if data[cut - 1] >= 0x20 and data[cut - 1] != 0x7f:
                return cut
        return max(0, room)

    def wrote(self, data):
        """The terminal took these bytes, the piece that was given last or a beginning of it."""
        if self._is_asked:
            self._count(data)
        else:
            self._unasked += data

    def _count(self, data):
        mode = self._mode
        if mode is None:
            self._pending = 0           # rule 2: what stands there was not counted
            return
        self._is_ordinary = data[-1] >= 0x20 and data[-1] != 0x7f
        end = max(self._last_end(data, mode), data.rfind(mode.end_of_file or b"\n"))
        self._pending = len(data) - end - 1 if end >= 0 else self._pending + len(data)


def longest_line(data):
    """The bytes of the longest line in `data`, its end not counted."""
    return max(map(len, data.replace(b"\r", b"\n").split(b"\n")))
