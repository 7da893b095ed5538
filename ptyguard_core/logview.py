"""Logview: the logs of guard and daemon read as one, in order of time.

The daemon's log ends where the daemon does; why it ended stands in the guard's.  A line
begins with its time, in a form whose order as text is that of time.  What does not begin so
(a traceback) belongs to the line before it.

Rule 1: whatever stands in the place of a log, nobody waits for it, and no link is followed.
Rule 2: what was written by somebody else than a journal reaches no terminal as a control
        sequence.
"""

import heapq
import os
import re
import stat

from .journal import KEPT
from .report import printable

READ_MAX = 8 << 20              # bytes of one file; they are rotated long before
LOOKED_AT_BYTES = 256 * 1024   # for a death: what is further back is no news
ON_PURPOSE = "'exit status 0'"  # a daemon that was stopped or replaced
_DEATH = re.compile(rb"(\S+) guard daemon_ended pid=(\d+) cause=('[^']*'|\"[^\"]*\"|\S+)")
_STOP = re.compile(rb"\S+ guard (stopping|daemon_stop_asked) ")
_STAMP = re.compile(rb"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z ")

_READ = (os.O_RDONLY | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NOFOLLOW", 0)
         | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))


class LogTail:
    """What is and will be in one log, over its rotations."""

    def __init__(self, path):
        self._path = path
        self._file = _open(path)

    @property
    def exists(self):
        """Whether there is such a file yet."""
        return self._file is not None

    def read(self):
        """What has come since the last time."""
        data = self._file.read() if self._file else b""
        if _identity(self._path) not in (None, self._file and _identity(self._file.fileno())):
            self.close()
            self._file = _open(self._path)      # rotated, or new: from its beginning
            data += self._file.read() if self._file else b""
        return data

    def older(self, lines):
        """Of the rotated files, newest first, as many as `lines` more lines need; in order."""
        data = b""
        for number in range(1, KEPT + 1):
            if data.count(b"\n") >= lines:
                break
            file = _open(f"{self._path}.{number}")
            if file is None:
                break
            with file:
                data = file.read() + data
        return data

    def close(self):
        """Idempotent."""
        if self._file is not None:
            self._file.close()
            self._file = None


def _open(path):
    """The file at `path`, or None where there is none of our making."""
    try:
        fd = os.open(path, _READ)
    except (FileNotFoundError, NotADirectoryError):
        return None
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        return None
    size = os.fstat(fd).st_size
    if size > READ_MAX:                     # none of ours is: whatever it is, its end will do
        os.lseek(fd, size - READ_MAX, os.SEEK_SET)
    return open(fd, "rb")


def _identity(where):
    """(device, inode) of a path or descriptor; None when there is nothing."""
    try:
        facts = os.lstat(where) if isinstance(where, str) else os.fstat(where)
    except OSError:
        return None
    return (facts.st_dev, facts.st_ino) if stat.S_ISREG(facts.st_mode) else None


def merged(logs):
    """The lines of these logs (bytes each) in order of time, as text lines fit for a terminal."""
    entries = heapq.merge(*map(_entries, logs), key=lambda entry: entry[0])
    return [printable(line.decode("utf-8", "backslashreplace")) for _, lines in entries for line in lines]


def _entries(data):
    """[(time, lines)] of one log; a time that ran backwards counts as the latest before it."""
    found = []
    for line in data.splitlines():
        stamp = _STAMP.match(line)
        if stamp is None and found:
            found[-1][1].append(line)
        else:
            time = stamp.group() if stamp else b""
            found.append((max(time, found[-1][0]) if found else time, [line]))
    return found


def last_death(path):
    """The last end of a daemon, other than on purpose, that the guard's log tells.

    A dict of `at`, `pid`, `cause`, or None.  Never raises for the file's sake.
    """
    try:
        file = _open(path)
    except OSError:
        return None
    if file is None:
        return None
    with file:
        file.seek(max(0, os.fstat(file.fileno()).st_size - LOOKED_AT_BYTES))
        lines = file.read().splitlines()
    last, is_asked = None, False
    for line in lines:
        match = _DEATH.match(line)
        if match is None:
            is_asked = is_asked or _STOP.match(line) is not None
            continue
        at, pid, cause = (word.decode("utf-8", "replace") for word in match.groups())
        if cause != ON_PURPOSE and not is_asked:
            last = {"at": at, "pid": int(pid), "cause": printable(cause.strip("'\""))}
        is_asked = False
    return last
