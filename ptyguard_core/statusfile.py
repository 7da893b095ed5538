"""Status file: where `run --status-file` says how it ended, for whoever reads it later.

Rule 1: it is there whole or not at all.  A run that was killed leaves none, and what an
        earlier run left is removed before anything is started.
Rule 2: a place that cannot be written is found out before anything is started.

What is no regular file (a FIFO) is written to as it is, and so is a descriptor of ours
(/dev/stdout, /dev/fd/3), whose name is a link that nobody may replace.
"""

import os
import stat

from .errors import PtyguardError


def _descriptor_of(path):
    """The number of our own descriptor that `path` names, or None."""
    named = {"/dev/stdin": 0, "/dev/stdout": 1, "/dev/stderr": 2}.get(path)
    lead, _, number = path.rpartition("/")
    if named is None and lead in ("/dev/fd", "/proc/self/fd") and number.isdecimal() \
            and len(number) < 10:
        return int(number)
    return named


class StatusFile:
    """One file to be written once; `write` at the end, `discard` when there is nothing to say."""

    def __init__(self, path):
        """Prepare to write `path`; PtyguardError when that cannot be."""
        self._path = os.path.abspath(path)
        own = _descriptor_of(self._path)
        if own is None and os.path.islink(self._path):
            self._path = os.path.realpath(self._path)       # the file that it leads to
        self._draft = None
        self._fd = -1
        try:
            if own is not None:
                self._fd = os.dup(own)      # opened anew it would begin at its beginning
            elif self._is_plain():
                self._draft = f"{self._path}.{os.urandom(6).hex()}"
                self._fd = os.open(self._draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL
                                   | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0),
                                   0o666)
                self._remove_old()
            else:
                # A FIFO that nobody reads is an error now (ENXIO), not a wait for ever.
                self._fd = os.open(self._path, os.O_WRONLY | getattr(os, "O_NONBLOCK", 0)
                                   | getattr(os, "O_CLOEXEC", 0))
                os.set_blocking(self._fd, True)
        except OSError as error:
            self.discard()
            raise PtyguardError(f"cannot write the status file {path}: {error.strerror}",
                                hint="nothing was started") from None

    def _is_plain(self):
        try:
            mode = os.stat(self._path).st_mode
        except FileNotFoundError:
            return True
        if stat.S_ISDIR(mode):
            raise IsADirectoryError(0, "it is a directory")
        return stat.S_ISREG(mode)

    def _remove_old(self):
        try:
            os.unlink(self._path)
        except FileNotFoundError:
            pass

    def write(self, text):
        """Write `text` and a newline; PtyguardError when the disk refuses.  Once."""
        if self._fd < 0:
            return
        rest = memoryview((text + "\n").encode("utf-8", "backslashreplace"))
        try:
            while rest:
                rest = rest[os.write(self._fd, rest):]
            if self._draft is not None:
                os.rename(self._draft, self._path)
                self._draft = None
        except OSError as error:
            raise PtyguardError(f"cannot write the status file {self._path}: "
                                f"{error.strerror}") from None
        finally:
            self.discard()

    def discard(self):
        """Leave nothing behind.  Idempotent."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)
        draft, self._draft = self._draft, None
        if draft is not None and os.path.exists(draft):
            os.unlink(draft)
