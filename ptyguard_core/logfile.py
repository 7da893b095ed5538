"""Log file: the file that a session's output is appended to (`--log FILE`, `--record FILE`).

What a caller wrote is resolved once, where it was written: from then on the path is
absolute and leads through no link, so that whoever opens it later opens that file
(`/dev/stdout` means the caller's, not the later one's).

Only regular files: what a pipe or a terminal was given cannot be told afterwards, and
a writer that was killed has to be able to go on where it was.
"""

import errno
import os
import stat

from . import record

# Flags that an OS lacks are 0.  O_NONBLOCK means nothing to a file; should something else
# take its place meanwhile, opening it must not wait (open(2)).
_APPEND = (os.O_APPEND | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NOCTTY", 0)
           | getattr(os, "O_NOFOLLOW", 0)      # the path has been resolved by then
           | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))


class CannotWrite(Exception):
    """The file, or its disk, refuses; the message says what it is about."""


def locate(path):
    """The absolute path, as text, of the file that `path` (text or bytes) leads to.

    It need not exist.  OSError when `path` can be no file's.
    """
    text = os.fsdecode(path)
    if not text or "\0" in text:
        raise OSError(errno.EINVAL, "that is no file's name")
    if text.endswith("/"):
        raise OSError(errno.EISDIR, os.strerror(errno.EISDIR))
    return os.path.realpath(text)


def open_log(path, access=os.O_WRONLY):
    """A descriptor that appends to the regular file at `path`, as `locate` gave it.

    One that is missing is made, for its owner alone whatever the umask; the mode of one
    that is there stays.  With `access` O_RDWR it can be read too.  OSError says what cannot be.
    """
    try:
        _check_kind(os.stat(path))      # first: opening a device may do something
    except FileNotFoundError:
        pass
    fd, is_new = _open(path, access | _APPEND)
    try:
        _check_kind(os.fstat(fd))
        if is_new and hasattr(os, "fchmod"):
            os.fchmod(fd, 0o600)
    except BaseException:
        os.close(fd)
        raise
    return fd


def size_of(fd):
    """How many bytes the open file has; CannotWrite when that cannot be known."""
    try:
        return os.fstat(fd).st_size
    except OSError as error:
        raise CannotWrite(error.strerror) from None


def append(fd, data):
    """All of `data` to the open file; CannotWrite when it, or its disk, refuses."""
    try:
        view = memoryview(data)
        while view:
            view = view[os.write(fd, view):]
    except OSError as error:
        raise CannotWrite(error.strerror) from None


def find_end(fd):
    """`record.find_end` of an open file; CannotWrite for what is no recording to go on with."""
    def read(offset, count):
        os.lseek(fd, offset, os.SEEK_SET)       # Windows has no pread
        return os.read(fd, count)

    try:
        return record.find_end(read, size_of(fd))
    except record.BadRecording as error:
        raise CannotWrite(str(error)) from None
    except OSError as error:
        raise CannotWrite(error.strerror) from None


def _open(path, flags):
    try:
        return os.open(path, flags | os.O_CREAT | os.O_EXCL, 0o600), True
    except FileExistsError:
        return os.open(path, flags), False


def _check_kind(facts):
    if stat.S_ISDIR(facts.st_mode):
        raise OSError(errno.EISDIR, os.strerror(errno.EISDIR))
    if not stat.S_ISREG(facts.st_mode):
        raise OSError(errno.EINVAL, "it is no regular file")
