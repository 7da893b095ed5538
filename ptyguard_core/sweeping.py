"""Sweeping: what killed processes left behind, removed by whoever it surely belonged to.

    where                       what                                     once it is
    state, sessions,            drafts (NAME.tmp-HEX, place.HEX)         an hour old
    tombstones, launches, bin
    sessions, tombstones,       files set aside (ID.json.corrupt-...)    30 days old
    launches
    bin                         private copies                           a day old, run by nobody, not
                                                                         among the newest 3
    state                       sockets: probes, and ours if they have   an hour old, nobody listens
                                another place now

Records and tombstones past their keeping go with registry.py and tombstones.py, links to agents
with agentlink.py; the sockets that are in use are replaced by whoever holds their lock.

Rule 1: only what is ours (lstat), of the right kind and no symbolic link, and whose name we give
        to such things.  What cannot be looked at stays.
Rule 2: a copy is removed by whoever holds its lock alone: everything that runs from one shares
        that lock.
Rule 3: a few files a turn, some time after the start, and an error ends nothing.
"""

import os
import stat

from .registry import LEFTOVER_AGE_S
from .terminal import Pattern

DELAY_S = 0.5                  # after the start: whoever caused that is served first
FILES_A_TURN = 20
CORRUPT_AGE_S = 30 * 86400     # whoever wanted to look has done so
COPY_AGE_S = 86400
CONNECT_S = 0.05
COPIES_KEPT = 3                # the newest: what worked until today, for an upgrade that fails

# Flags that an OS lacks are 0.
_READ = (os.O_RDONLY | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NOFOLLOW", 0)
         | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))

DRAFT, CORRUPT, COPY, SOCKET = "draft", "corrupt", "copy", "socket"

# What our names look like; the first that fits counts.
_NAMES = (
    (DRAFT, Pattern(r"[A-Za-z0-9._-]+\.tmp-[0-9a-f]+|place\.[0-9a-f]+")),
    (CORRUPT, Pattern(r"[a-z0-9]{4,32}\.json\.corrupt-[0-9]+-[0-9a-f]+")),
    (COPY, Pattern(r"ptyguard-[A-Za-z0-9.+-]+-[0-9a-f]{16}\.pyz")),
    (SOCKET, Pattern(r"probe\.[0-9a-f]+|(?:client|guard)\.sock")),
)
_AGES = {DRAFT: LEFTOVER_AGE_S, CORRUPT: CORRUPT_AGE_S, COPY: COPY_AGE_S, SOCKET: LEFTOVER_AGE_S}


def kind_of(name, info, user):
    """What kind of leftover that file may be, by its name and lstat; None: none of ours."""
    if info.st_uid != user:
        return None
    kind = next((kind for kind, pattern in _NAMES if pattern.fullmatch(name)), None)
    is_right = stat.S_ISSOCK(info.st_mode) if kind == SOCKET else stat.S_ISREG(info.st_mode)
    return kind if is_right else None


def leftovers(files, user, now, used=(), kept=COPIES_KEPT):
    """(path, kind) of what may go of one directory.  Pure.

    `files`: (path, lstat of it) each; `used`: paths that stay.  So do the newest copies, however old
    they are, and what is dated in the future.
    """
    ours = [(path, kind_of(os.path.basename(path), info, user), info) for path, info in files]
    copies = sorted((info.st_mtime, path) for path, kind, info in ours if kind == COPY)
    stay = {path for _, path in copies[max(0, len(copies) - kept):]} | set(used)
    return sorted((path, kind) for path, kind, info in ours
                  if kind is not None and path not in stay and now - info.st_mtime > _AGES[kind])


class Sweep:
    """One sweep of `paths`, in `loop`'s idle turns; `own_copy` is what this process runs from."""

    def __init__(self, backend, loop, paths, wall_clock, log, own_copy):
        self._backend = backend
        self._loop = loop
        self._wall_clock = wall_clock
        self._log = log
        self._used = (own_copy, paths.client_socket, paths.guard_socket)
        self._directories = list(dict.fromkeys(
            [paths.state, paths.copies]
            + [os.path.join(paths.state, name) for name in ("sessions", "tombstones", "launches")]))
        self._names = []                # [path]: of the present directory, still to be looked at
        self._files = []                # [(path, lstat)]: looked at
        self._leftovers = []            # [(path, kind)]: to be removed

    def begin(self):
        """Start a while from now."""
        self._loop.after(DELAY_S, self._turn)

    def _turn(self):
        """A few files of one directory: listed, looked at, removed."""
        if self._leftovers:
            batch, self._leftovers = self._leftovers[:FILES_A_TURN], self._leftovers[FILES_A_TURN:]
            for path, kind in batch:
                self._remove(path, kind)
        elif self._names:
            batch, self._names = self._names[:FILES_A_TURN], self._names[FILES_A_TURN:]
            self._files += [(path, info) for path, info in map(_look, batch) if info is not None]
            if not self._names:
                self._leftovers = leftovers(self._files, self._backend.user_id(), self._wall_clock(),
                                            self._used)
                self._files = []
        elif self._directories:
            self._list(self._directories.pop(0))
        else:
            return
        self._loop.soon(self._turn)

    def _list(self, directory):
        try:
            if not stat.S_ISDIR(os.lstat(directory).st_mode):
                return
            self._names = [os.path.join(directory, name) for name in os.listdir(directory)]
        except OSError:
            self._names = []            # not there, or not to be read

    def _remove(self, path, kind):
        try:
            if kind == COPY:
                is_gone = self._remove_copy(path)
            else:
                is_gone = kind != SOCKET or self._is_dead(path)
                if is_gone:
                    os.unlink(path)
        except OSError as error:
            self._log("leftover_stays", path=path, error=str(error))
            return
        if is_gone:
            self._log("leftover_swept", path=path, kind=kind)

    def _remove_copy(self, path):
        """Whether nobody runs from it and it is gone (rule 2)."""
        fd = os.open(path, _READ)
        try:
            if self._backend.lock_open_file(fd) is not True:
                return False
            if not os.path.samestat(os.fstat(fd), os.lstat(path)):
                return False            # it was written anew a moment ago
            os.unlink(path)
            return True
        finally:
            os.close(fd)

    def _is_dead(self, path):
        """Whether nobody listens at that socket."""
        try:
            self._backend.connect(path, CONNECT_S).close()
        except ConnectionRefusedError:
            return True
        return False


def _look(path):
    try:
        return path, os.lstat(path)
    except OSError:
        return path, None
