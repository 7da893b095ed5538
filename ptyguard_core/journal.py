"""Journal: the log of a guard or a daemon.

    2026-11-29T14:02:07.113Z daemon handover session=k3f9 offset=918244 ms=4

Rule 1: one line, one fact.  Whatever a value holds, it cannot end the line or
        reach a terminal as an escape sequence.
Rule 2: a log never stops what it describes.  A line that cannot be written is
        counted, and the next one that can says how many are missing.
Rule 3: the descriptor's number lasts.  A rotation puts the new file under the
        same number, and under those given to `redirect` (stderr), so that a
        traceback too ends up in the file that is read.
Rule 4: whoever finds the path to be another file than its own does not rotate
        but joins it.  A daemon and its successor share a log for a moment.

What is not handled: a file moved away by somebody else is noticed only when its
size calls for a rotation.
"""

import os
import stat
import time

MAX_BYTES = 5 * 1024 * 1024    # weeks of normal life; 20 MiB with those kept
KEPT = 3
VALUE_LENGTH_MAX = 4096        # one fact, not one file: a command line can have 2 MiB
TAIL_BYTES = 2000              # what a start-up failure shows: about one screen

# Flags that an OS lacks are 0.  O_NONBLOCK means nothing to a file; should a FIFO
# be here, opening it must not wait for its other end (open(2)).
_SAFELY = (getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NOFOLLOW", 0)
           | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
_APPEND = os.O_WRONLY | os.O_APPEND | os.O_CREAT | _SAFELY
_READ = os.O_RDONLY | _SAFELY


class Journal:
    """An open log; call it with an event and its fields to add a line.

    `lost` counts the lines that could not be written; `error` is why the last
    one could not, or None.
    """

    def __init__(self, path, who, clock, max_bytes=MAX_BYTES, kept=KEPT):
        """Append to `path`, in a directory of ours; `clock()` is Unix seconds.

        Never raises: a path that cannot be opened is tried again at each line.
        `kept` old files (at least 1) stay as `path`.1 (the newest) and so on.
        """
        self._path = path
        self._who = who
        self._clock = clock
        self._max_bytes = max_bytes
        self._kept = kept
        self._fd = -1
        self._redirected = []
        self._size = 0             # what we know of; others append too
        self._unreported = 0
        self._is_torn = False      # the last line ended in the middle
        self._is_closed = False
        self._banner = None
        self.lost = 0
        self.error = None
        self._open()

    def __call__(self, event, /, **fields):
        """Add a line.  Never raises for the disk's sake; see `lost`."""
        line = self._line(event, fields)
        if self._unreported:
            line = self._line("log_lines_lost", {"n": self._unreported}) + line
        if self._open_or_rotate(len(line)) and self._banner is not None:
            line = self._line("banner", self._banner) + line
        if self._append(line):
            self._unreported = 0
            self.error = None
        else:
            self._unreported += 1
            self.lost += 1

    def banner(self, **fields):
        """Add the line that says who writes here; repeated atop each new file."""
        self("banner", **fields)
        self._banner = fields

    def fileno(self):
        """The log's descriptor, ours to close; -1 when the log cannot be opened."""
        return self._fd

    def redirect(self, fd):
        """Make `fd` (stderr) another number of this log, also after a rotation.

        `fd` stays the caller's.  False when the log cannot be opened (yet): it
        is done as soon as it can.
        """
        self._redirected.append(fd)
        return self._fd >= 0 and self._point(fd)

    def close(self):
        """Close the descriptor, for good; later lines count as lost."""
        fd, self._fd = self._fd, -1
        self._is_closed, self.error = True, "closed"
        if fd >= 0:
            os.close(fd)

    def _line(self, event, fields):
        now_ms = round(self._clock() * 1000)
        clock = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now_ms // 1000))
        return format_line(f"{clock}.{now_ms % 1000:03d}Z {self._who}", event, fields)

    def _append(self, line):
        """Write all of `line`; False, with `error` set, if it could not be."""
        if self._fd < 0:
            return False
        rest = memoryview(b"\n" + line if self._is_torn else line)
        try:
            while rest:
                written = os.write(self._fd, rest)
                rest = rest[written:]
                self._size += written
                self._is_torn = len(rest) > 0
        except OSError as error:       # full or sick: rule 2
            self.error = str(error)
            return False
        return True

    def _open(self):
        """(Re)open the path under our descriptor's number; False if it cannot be."""
        if self._is_closed:
            return False
        try:
            fd = os.open(self._path, _APPEND, 0o600)
        except OSError as error:
            self.error = str(error)
            return False
        if self._fd < 0:
            self._fd = fd
        else:
            os.dup2(fd, self._fd, inheritable=False)
            os.close(fd)
        self._size = os.fstat(self._fd).st_size
        self._is_torn = False
        for other in self._redirected:
            self._point(other)
        return True

    def _point(self, fd):
        try:
            os.dup2(self._fd, fd)
        except OSError:
            return False               # a number that cannot be had: rule 2
        return True

    def _open_or_rotate(self, length):
        """Have a file with room for a line; whether it is a new, empty one."""
        if self._fd < 0:
            return self._open() and self._size == 0
        if not self._size or self._size + length <= self._max_bytes:
            return False
        if self._is_our_file() and not self._shift():
            self._size = 0             # asked again after another `max_bytes`
            return False
        return self._open() and self._size == 0

    def _is_our_file(self):
        try:
            return os.path.samestat(os.fstat(self._fd), os.lstat(self._path))
        except OSError:
            return False               # gone, or never opened: there is nothing to shift

    def _shift(self):
        """Rename path to path.1, that to path.2 and so on; the last one goes."""
        for number in range(self._kept - 1, 0, -1):
            _rename(f"{self._path}.{number}", f"{self._path}.{number + 1}")
        return _rename(self._path, f"{self._path}.1")


def _rename(old, new):
    try:
        os.replace(old, new)
    except OSError:
        return False
    return True


def format_line(lead, event, fields):
    """One line as bytes, with its newline; the session comes first."""
    words = [lead, _word(event)]
    if "session" in fields:
        words.append(f"session={_value(fields['session'])}")
    words += [f"{_word(key)}={_value(value)}"
              for key, value in fields.items() if key != "session"]
    return (" ".join(words) + "\n").encode("utf-8", "backslashreplace")


def _value(value):
    if isinstance(value, (bytes, bytearray, memoryview)):
        shown = repr(bytes(value[:VALUE_LENGTH_MAX]))
        missing = len(value) - VALUE_LENGTH_MAX
    else:
        text = str(value)
        shown = _word(text[:VALUE_LENGTH_MAX])
        missing = len(text) - VALUE_LENGTH_MAX
    return shown if missing <= 0 else f"{shown}...+{missing}"


def _word(text):
    """`text` as it is if it is one plain word, else quoted and escaped as by repr."""
    # repr escapes whatever is not printable: controls, ESC, lone surrogates,
    # line separators, the marks that reverse text (str.isprintable).
    is_plain = text and text.isprintable() and not any(c in " '\"=\\" for c in text)
    return text if is_plain else repr(text)


def tail(path, limit_bytes=TAIL_BYTES):
    """The last characters of the file at `path`, fit for a message; "" if there are none.

    What is not UTF-8 shows as U+FFFD, control characters as escapes: stderr ends
    up in a log too, and this goes to a user's terminal.  Never raises.
    """
    try:
        return _fit(_last_bytes(path, limit_bytes))
    except OSError:
        return ""


def _last_bytes(path, limit_bytes):
    fd = os.open(path, _READ)
    try:
        info = os.fstat(fd)
        if not stat.S_ISREG(info.st_mode):
            return b""
        start = max(0, info.st_size - limit_bytes)
        os.lseek(fd, start, os.SEEK_SET)
        data = os.read(fd, limit_bytes)
    finally:
        os.close(fd)
    return _from_whole_character(data) if start else data


def _from_whole_character(data):
    """`data` without the rest of a UTF-8 character that the cut split."""
    skipped = 0
    while skipped < min(3, len(data)) and data[skipped] & 0xC0 == 0x80:
        skipped += 1
    return data[skipped:]


def _fit(data):
    text = data.decode("utf-8", "replace")
    return "".join(c if c.isprintable() or c in "\n\t" else ascii(c)[1:-1] for c in text)
