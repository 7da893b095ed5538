"""Registry: what is known of sessions on disk, and which session a word means.

What runs *now* is what the guard holds.  The records here are for what the
guard cannot tell any more: how an ended session ended, and what was running
when the machine went down.  One file per session, `sessions/ID.json`:

    sessions/k3f9.json                       the record
    sessions/k3f9.json.tmp-<random>          a record being written, or left by a kill
    sessions/k3f9.json.corrupt-<time>-<random>   set aside, for a person to look at

A record is a plain dict with the JSON fields of a session.  `FIELDS` lists what
this version relies on; whatever else a record holds is somebody else's and is
kept.

Rule 1: one writer.  Whoever loads and writes holds the daemon's lock; that is
        why what was loaded can be remembered and need not be read again.
Rule 2: a file is complete or absent.  It is written under a name that nobody
        can guess, synced, and renamed over the old one; until the rename the
        old one is valid.
Rule 3: a field is never dropped.  What the file has and the new record does not
        is kept, so that a newer version's fields survive an older one.  To
        clear a field, write null.
Rule 4: one bad file costs one record.  It is set aside, not deleted, and
        reported.  A read that fails for want of something (descriptors, memory,
        a sick disk) says nothing about the file, which then stays.
Rule 5: decisions (`find`, `expired`, `lost`) are pure; they take the records as
        `load` returns them, a dict by id, and touch no disk.

Tombstones (tombstones.py) lie in files of the same kind, in a directory of their own.

What is not handled: two hosts or two daemons writing one directory.  Each host
has its own directory and each directory one daemon.
"""

import errno
import os
import stat

from . import jsontext
from .errors import NoSuchSession, StateUnusable, UsageError

STATES = ("starting", "running", "draining", "quarantined", "ended", "lost", "failed")
LIVING_STATES = frozenset(("starting", "running", "draining", "quarantined"))
OVER_STATES = frozenset(STATES) - LIVING_STATES

NAME_LENGTH_MAX = 64           # fits a line of `ls`, a file name and a shell prompt
NAME_RULE = ("a name has 1 to 64 characters of A-Z a-z 0-9 . _ - "
             "and does not start with - or .")
ID_RULE = "an id has 4 to 32 characters of a-z 0-9"

RECORD_BYTES_MAX = 1 << 20     # as long as a command line may well be; a record is 1 KiB
KEEP_COUNT = 100               # ended sessions: what a person still scrolls through
KEEP_DAYS = 7                  # Friday's build is still there on Thursday
LEFTOVER_AGE_S = 3600          # no write takes an hour, however slow the disk
READ_AHEAD_AGE_S = 2.0         # the coarsest clock of a file system that is in use (FAT)

REASON_REBOOT = "reboot"
REASON_GONE = "guard and daemon gone"

_NAME_CHARACTERS = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
                             "0123456789._-")
_ID_CHARACTERS = frozenset("abcdefghijklmnopqrstuvwxyz0123456789")
_HEX = frozenset("0123456789abcdef")
_NEAR_MAX = 3
_SHOWN_MAX = 80
_DAY_S = 86400

# Flags that an OS lacks are 0.
_SAFELY = (getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NOFOLLOW", 0)
           | getattr(os, "O_BINARY", 0))
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | _SAFELY
# Opening a FIFO that somebody put here must not wait for its writer (open(2)).
_READ = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | _SAFELY

# What a failed open says of the file itself.  Any other errno speaks of us or of
# the machine (EMFILE, ENOMEM, EIO, ESTALE): then the file is left alone.
_OPEN_VERDICTS = {
    errno.ELOOP: "symbolic link",      # O_NOFOLLOW, open(2)
    errno.EMLINK: "symbolic link",     # the same on FreeBSD
    errno.ENXIO: "not a file",         # a socket, open(2)
    errno.EISDIR: "not a file",
    errno.EACCES: "unreadable",
    errno.EPERM: "unreadable",
}

_HINTS = {
    errno.ENOSPC: "the disk is full: free some space; sessions keep running",
    errno.EDQUOT: "your disk quota is used up: free some space; sessions keep running",
    errno.EROFS: "the file system is mounted read-only; sessions keep running",
    errno.EFBIG: "the command line is too long to keep; pass the data in a file",
    errno.EACCES: "check the owner and mode of the directory",
    errno.EPERM: "check the owner and mode of the directory",
}
_HINT_ELSE = "ptyguard daemon log"


# Shapes: what each field must be, so that nobody downstream has to ask.

def _is_whole(value, low, high):
    return type(value) is int and low <= value <= high     # bool is an int too


def _is_time(value):
    # The bound refuses integers too large for arithmetic with floats.
    return type(value) in (int, float) and 0 <= value < 1e11


def _is_count(value):
    return _is_whole(value, 0, (1 << 63) - 1)


def _is_token(value):
    return isinstance(value, str) or _is_time(value) or _is_count(value)


def _is_text(value):
    return isinstance(value, str)


def _is_text_list(value):
    return isinstance(value, list) and all(map(_is_text, value))


def _is_text_map(value):
    return isinstance(value, dict) and all(map(_is_text, value.values()))


def _is_size(value):
    # 16 bits each: struct winsize, ioctl_tty(2).
    return isinstance(value, dict) and all(
        _is_whole(value.get(side), 1, 0xFFFF) for side in ("cols", "rows"))


def _is_exit(value):
    if not isinstance(value, dict):
        return False
    code, signal = value.get("code"), value.get("signal")
    # 32 bits: what Windows calls an exit code.
    return ((code is None or _is_whole(code, 0, 0xFFFFFFFF))
            and (signal is None or _is_text(signal)))


def _is_log(value):
    # `base` is negative after the file was cut.
    return isinstance(value, dict) and _is_text(value.get("path")) and all(
        value.get(field) is None or type(value[field]) is int
        for field in ("base", "done", "missed", "missed_to", "pid"))


def _is_pending_kill(value):
    return (isinstance(value, dict) and _is_time(value.get("since"))
            and _is_time(value.get("tried_at")) and isinstance(value.get("survivors"), list)
            and all(isinstance(pair, list) and len(pair) == 2 and _is_whole(pair[0], 1, 0xFFFFFFFF)
                    and _is_token(pair[1]) for pair in value["survivors"])
            and all(value.get(flag) is None or type(value[flag]) is bool
                    for flag in ("destroy", "tombstone", "orphans")))


def _is_relaunch(value):
    return (isinstance(value, dict) and _is_count(value.get("attempts"))
            and all(value.get(field) is None or _is_time(value[field])
                    for field in ("due_at", "started_at"))
            and (value.get("judged") is None or _is_count(value["judged"]))
            and all(value.get(flag) is None or type(value[flag]) is bool
                    for flag in ("off", "gave_up")))


def is_valid_id(text):
    """Whether `text` can be a session's id; what is can never be a path."""
    return _is_text(text) and 4 <= len(text) <= 32 and _ID_CHARACTERS.issuperset(text)


def is_valid_name(name):
    """Whether `name` keeps `NAME_RULE`."""
    return (_is_text(name) and 1 <= len(name) <= NAME_LENGTH_MAX
            and name[0] not in "-." and _NAME_CHARACTERS.issuperset(name))


# The files that a session's output is appended to by a process of ours.
LOG, RECORDING = FILES = ("log", "recording")

FIELDS = {
    "id": is_valid_id,
    "name": is_valid_name,
    "state": lambda value: _is_text(value) and value in STATES,
    "created_at": _is_time,
    "ended_at": _is_time,
    "incarnation": _is_token,
    "spawn": _is_count,
    "boot_id": _is_text,
    "pid": lambda value: _is_whole(value, 1, 0xFFFFFFFF),
    "pid_start": _is_token,        # ticks, seconds or a text: each OS has its own
    "argv": _is_text_list,
    "cwd": _is_text,
    "size": _is_size,
    "exit": _is_exit,
    "labels": _is_text_map,
    "restart": _is_text,
    "collected": lambda value: type(value) is bool,
    "markers": _is_text_map,
    "ttl": _is_time,
    "size_policy": _is_text,
    "log": _is_log,
    "recording": _is_log,
    "kill_pending": _is_pending_kill,
    "relaunch": _is_relaunch,
}
REQUIRED = frozenset(("id", "name", "state", "created_at"))    # the rest may be null


def shape_fault(record, shapes=FIELDS, required=REQUIRED):
    """The first field of `record` that no reader could use, or "" if all is well."""
    if not isinstance(record, dict):
        return "not an object"
    for field, is_right in shapes.items():
        value = record.get(field)
        if value is None and field not in required:
            continue
        if not is_right(value):
            return f"field {field}"
    return ""


class _BadRecord(Exception):
    """A file that is no record of ours; the message is the reason."""


class RecordFiles:
    """The JSON files of one directory, one a record; made, loaded and written by one daemon.

    A subclass says what they are of: `FOLDER`, and `fault_of(record)` as `shape_fault`.
    `last_error` is the text of the last write if it failed, else None.
    """

    FOLDER = ""
    fault_of = None

    def __init__(self, directory, clock, random_name, log):
        """Use `FOLDER` in `directory`, made 0700 if missing.

        `clock()` is Unix seconds, `random_name()` unpredictable hexadecimal
        text, `log(event, **fields)` the journal.
        Raises StateUnusable when the directory is not ours alone.
        """
        self._directory = os.path.join(directory, self.FOLDER)
        self._clock = clock
        self._random_name = random_name
        self._log = log
        self._on_disk = {}
        self._read_ahead = {}           # entry -> (which file that was, its record)
        self.last_error = None
        _make_private(self._directory)

    # -- reading

    def read_ahead(self):
        """Read what can be read without changing anything; `load` then reads only what is
        another file by then."""
        try:
            entries = os.listdir(self._directory)
        except OSError:
            return                      # `load` says so
        for entry in entries:
            session_id, suffix = _split_entry(entry)
            if suffix != ".json":
                continue
            path = self._path(session_id)
            try:
                file = _which_file(path)
                # Times are of a clock that ticks: one as young could be replaced unseen.
                if self._clock() - max(file[-2:]) / 1e9 > READ_AHEAD_AGE_S:
                    self._read_ahead[session_id] = (file, _parse(_read_private(path), session_id, self.fault_of))
            except (OSError, _BadRecord):
                continue                # `load` deals with it

    def load(self):
        """Read all records, a dict by id, and sweep what a killed writer left.

        Bad files are set aside and logged, never raised.  Raises StateUnusable
        only when the directory itself cannot be read.
        """
        try:
            entries = sorted(os.listdir(self._directory))
        except OSError as error:
            raise _unusable("read", self._directory, error) from error
        records = {}
        for entry in entries:
            session_id, suffix = _split_entry(entry)
            if suffix == ".json":
                record = self._read_or_set_aside(session_id)
                if record is not None:
                    records[session_id] = record
            elif _is_temp_suffix(suffix):
                self._sweep_if_old(entry)
        self._on_disk = {session_id: dict(record) for session_id, record in records.items()}
        self._read_ahead = {}
        return records

    def _read_or_set_aside(self, session_id):
        path = self._path(session_id)
        try:
            file, record = self._read_ahead.get(session_id, (None, None))
            if file is not None and file == _which_file(path):
                return record
            return _parse(_read_private(path), session_id, self.fault_of)
        except FileNotFoundError:
            return None
        except _BadRecord as bad:
            self._set_aside(session_id, str(bad))
        except OSError as error:
            self._log("record_unreadable", session=session_id, path=path,
                      error=_reason(error))
        return None

    def _set_aside(self, session_id, reason):
        path = self._path(session_id)
        aside = f"{path}.corrupt-{int(self._clock())}-{self._random_name()}"
        try:
            os.rename(path, aside)
        except OSError:
            aside = path       # left in place: reported again at the next load
        self._log("record_set_aside", session=session_id, path=path, reason=reason,
                  kept_as=aside)

    def _sweep_if_old(self, entry):
        path = os.path.join(self._directory, entry)
        try:
            info = os.lstat(path)
            if not (stat.S_ISREG(info.st_mode) and _is_ours(info)
                    and self._clock() - info.st_mtime > LEFTOVER_AGE_S):
                return
            os.unlink(path)
        except OSError:
            return             # clean-up: the next start tries again
        self._log("leftover_swept", path=path)

    # -- writing

    def write(self, record, is_synced=True):
        """Put `record` on disk, atomically, under its id.

        Fields that the file has and `record` does not are kept (rule 3).
        Blocks for one small write; one that is not synced may be lost to a power cut.  Raises StateUnusable (with errno and
        path) when the disk refuses, UsageError when `record` could not be read
        back; the old file is valid then.
        """
        session_id = check_id(record.get("id"))
        merged = {**self._on_disk.get(session_id, {}), **record}
        fault = self.fault_of(merged)
        if fault:
            raise UsageError(f"session {session_id} cannot be recorded: {fault} "
                             "is missing or not of its kind", field=fault)
        path = self._path(session_id)
        try:
            if not os.path.isdir(self._directory):
                _make_private(self._directory)      # somebody removed it
            self._replace(path, _serialise(merged), is_synced)
        except OSError as error:
            raise self._failed("write", session_id, path, error) from error
        self._on_disk[session_id] = merged
        self.last_error = None

    def has(self, record):
        """Whether the file said all of this when it was loaded: then it need not be written."""
        found = self._on_disk.get(record["id"])
        return found is not None and {**found, **record} == found

    def remove(self, session_id):
        """Drop the record; one that is not there is dropped already.

        Raises StateUnusable when it is there and stays.
        """
        path = self._path(check_id(session_id))
        try:
            os.unlink(path)
        except FileNotFoundError:
            pass
        except OSError as error:
            raise self._failed("remove", session_id, path, error) from error
        else:
            self._sync_directory()
        self._on_disk.pop(session_id, None)
        self.last_error = None

    def _replace(self, path, data, is_synced):
        temp = f"{path}.tmp-{self._random_name()}"
        fd = os.open(temp, _CREATE, 0o600)
        replaced = False
        try:
            try:
                _write_all(fd, data)
                if is_synced:
                    os.fsync(fd)
            finally:
                os.close(fd)
            os.replace(temp, path)
            replaced = True
        finally:
            if not replaced:
                _unlink_quietly(temp)
        if is_synced:
            self._sync_directory()

    def _sync_directory(self):
        """Make a rename last through a power cut, where the OS can (fsync(2))."""
        try:
            fd = os.open(self._directory, _READ)
        except OSError:
            return             # best effort: Windows opens no directories
        try:
            os.fsync(fd)
        except OSError:
            pass               # best effort: some network file systems refuse
        finally:
            os.close(fd)

    def _failed(self, act, session_id, path, error):
        unusable = _unusable(act, path, error)
        self.last_error = unusable.message
        self._log("record_failed", session=session_id, act=act, path=path,
                  error=_reason(error))
        return unusable

    def _path(self, session_id):
        return os.path.join(self._directory, session_id + ".json")


class Registry(RecordFiles):
    """The records of sessions."""

    FOLDER = "sessions"
    fault_of = staticmethod(shape_fault)


class NoRegistry:
    """Stands in where the directory cannot be used: knows nothing, refuses every write.

    Living sessions go on with it; a new one is refused, with the reason.
    """

    def __init__(self, error):
        self.last_error = error.message
        self._error = error

    def load(self):
        """Nothing."""
        return {}

    def write(self, _record, is_synced=True):
        """Raises what was wrong with the directory."""
        raise StateUnusable(self._error.message, hint=self._error.hint)

    def has(self, _record):
        """Nothing."""
        return False

    def remove(self, session_id):
        """There is nothing to remove."""


# -- files

def _make_private(path):
    """Make `path` a directory of ours alone, or raise StateUnusable."""
    try:
        os.mkdir(path, 0o700)
    except FileExistsError:
        pass
    except OSError as error:
        raise _unusable("create", path, error) from error
    info = os.lstat(path)
    if not stat.S_ISDIR(info.st_mode):
        raise StateUnusable(f"{path} is not a directory",
                            hint=f"move it away: mv {path} {path}.old", path=path)
    if not _is_ours(info):
        raise StateUnusable(f"{path} belongs to uid {info.st_uid}, not to us",
                            hint="set PTYGUARD_DIR to a directory of yours", path=path)
    if _has_owners() and info.st_mode & 0o077:
        raise StateUnusable(f"{path} is open to others (mode {info.st_mode & 0o777:04o})",
                            hint=f"chmod 700 {path}", path=path)


def _has_owners():
    return hasattr(os, "geteuid")      # Windows: the directory's ACL does it


def _is_ours(info):
    return not _has_owners() or info.st_uid == os.geteuid()


def claims_to_live(directory):
    """Whether a record in `directory`/sessions tells of a living session; never raises."""
    directory = os.path.join(directory, "sessions")
    try:
        entries = os.listdir(directory)
    except OSError:
        return False
    for entry in entries:
        session_id, suffix = _split_entry(entry)
        try:
            if suffix == ".json" and _parse(_read_private(os.path.join(directory, entry)),
                                            session_id, shape_fault)["state"] in LIVING_STATES:
                return True
        except (OSError, _BadRecord):
            continue
    return False


def _which_file(path):
    """What tells a file, as it is, from any other and from what it was before."""
    info = os.lstat(path)
    return info.st_dev, info.st_ino, info.st_size, info.st_mtime_ns, info.st_ctime_ns


def _read_private(path):
    """The bytes of a file of ours; raises _BadRecord for anything else."""
    try:
        fd = os.open(path, _READ)
    except OSError as error:
        verdict = _OPEN_VERDICTS.get(error.errno)
        if verdict is None:
            raise
        raise _BadRecord(verdict) from error
    try:
        _check_private(os.fstat(fd))
        return _read_all(fd)
    finally:
        os.close(fd)


def _check_private(info):
    if not stat.S_ISREG(info.st_mode):
        raise _BadRecord("not a file")
    if not _is_ours(info):
        raise _BadRecord(f"belongs to uid {info.st_uid}")
    if info.st_size > RECORD_BYTES_MAX:
        raise _BadRecord(f"too large: {info.st_size} bytes")


def _read_all(fd):
    pieces = []
    room = RECORD_BYTES_MAX + 1
    while room:
        piece = os.read(fd, room)
        if not piece:
            return b"".join(pieces)
        pieces.append(piece)
        room -= len(piece)
    raise _BadRecord("too large: it grew while it was read")


def _write_all(fd, data):
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(fd, rest):]


def _unlink_quietly(path):
    try:
        os.unlink(path)
    except OSError:
        pass                   # clean-up: `load` sweeps it an hour later


def _split_entry(entry):
    """(id, suffix) of a file name, or ("", "") when it does not begin with an id."""
    session_id, dot, rest = entry.partition(".")
    return (session_id, dot + rest) if is_valid_id(session_id) else ("", "")


def _is_temp_suffix(suffix):
    lead = ".json.tmp-"
    random = suffix[len(lead):]
    return suffix.startswith(lead) and bool(random) and _HEX.issuperset(random)


# -- text

def _serialise(record):
    # ASCII only: argv may hold any bytes, as lone surrogates (PEP 383), which
    # JSON's \udcXX carries and UTF-8 does not.
    import json                 # loaded long before, mostly: there was something to write
    try:
        text = json.dumps(record, ensure_ascii=True, allow_nan=False, indent=1)
    except ValueError as error:
        raise UsageError(f"session {record['id']} cannot be recorded: {error}") from error
    data = text.encode("ascii")
    if len(data) >= RECORD_BYTES_MAX:
        raise OSError(errno.EFBIG, f"the record would have {len(data)} bytes")
    return data + b"\n"


def _parse(data, session_id, fault_of):
    if not data.strip():
        raise _BadRecord("empty")
    try:
        record = jsontext.read(data.decode("utf-8").strip(" \t\r\n"), parse_constant=_refuse_number,
                               parse_float=_finite)
    except ValueError as error:
        raise _BadRecord(f"no JSON: {error}") from error
    except RecursionError as error:
        raise _BadRecord("no JSON: nested too deeply") from error
    fault = fault_of(record)
    if fault:
        raise _BadRecord(f"wrong shape: {fault}")
    if record["id"] != session_id:
        raise _BadRecord("wrong shape: the id is another file's")
    return record


def _refuse_number(text):
    raise ValueError(f"{text} is not JSON")    # NaN and Infinity are Python's own idea


def _finite(text):
    number = float(text)
    if number - number != 0:                   # 1e999: it could never be written again
        raise ValueError("a number out of range")
    return number


def _reason(error):
    name = errno.errorcode.get(error.errno, "")
    text = error.strerror or str(error)
    return f"{text} ({name})" if name else text


def _unusable(act, path, error):
    return StateUnusable(f"cannot {act} {path}: {_reason(error)}",
                         hint=_HINTS.get(error.errno, _HINT_ELSE),
                         errno=error.errno, path=path)


def _shown(text):
    """A user's word, fit for a message: short, and no control character survives."""
    text = str(text)
    if len(text) > _SHOWN_MAX:
        text = text[:_SHOWN_MAX] + "..."
    return text if text and text.isprintable() else ascii(text)


# -- names

def check_id(session_id):
    """`session_id` itself, or UsageError with the rule."""
    if not is_valid_id(session_id):
        raise UsageError(f"not a session id: {_shown(session_id)}", hint=ID_RULE)
    return session_id


def check_name(name):
    """`name` itself, or UsageError with the rule."""
    if not is_valid_name(name):
        raise UsageError(f"not a valid session name: {_shown(name) or 'empty'}",
                         hint=NAME_RULE)
    return name


def suggest_name(argv, taken):
    """A valid name for a session that runs `argv`, none of `taken`.

    The command's base name; the second bash is `bash-2`.
    """
    taken = frozenset(taken)
    base = _name_from_command(argv[0] if argv else "")
    name, number = base, 1
    while name in taken:
        number += 1
        suffix = f"-{number}"
        name = base[:NAME_LENGTH_MAX - len(suffix)] + suffix
    return name


def _name_from_command(command):
    base = command.rsplit("/", 1)[-1]
    base = base.lstrip("-.")           # a login shell's argv[0] is `-bash`, login(1)
    base = "".join(c if c in _NAME_CHARACTERS else "_" for c in base[:NAME_LENGTH_MAX])
    return base if base.strip("_") else "session"


def near_names(name, names):
    """Up to three of `names` that whoever typed `name` may have meant, likeliest first."""
    from difflib import SequenceMatcher        # only an error needs it

    wanted = name[:NAME_LENGTH_MAX].casefold()

    def likeness(other):
        folded = other.casefold()
        if folded == wanted:
            return 2.0
        if wanted and folded.startswith(wanted):
            return 1.5
        return SequenceMatcher(None, wanted, folded).ratio()

    scored = sorted((-likeness(other), other) for other in set(names))
    # 0.6: difflib's own default for "close".
    return [other for score, other in scored if score <= -0.6][:_NEAR_MAX]


def find(records, target):
    """The record that `target` means: an exact name, or `@ID`.

    An ended session may share its name with a living one: the living one is
    meant, then the newest.  Never a prefix: that would be somebody else's
    session as soon as the right one has ended.
    Raises NoSuchSession with what may have been meant.
    """
    record = maybe_find(records, target)
    if record is None:
        raise _no_such_session(records, target)
    return record


def maybe_find(records, target):
    """The same, None when there is none."""
    if target.startswith("@"):
        return records.get(target[1:])
    return max((record for record in records.values() if record["name"] == target),
               key=_precedence, default=None)


def _precedence(record):
    return record["state"] in LIVING_STATES, record["created_at"], record["id"]


def _no_such_session(records, target):
    if target in records:
        near = ["@" + target]
    else:
        near = near_names(target, [record["name"] for record in records.values()])
    hint = f"did you mean {' or '.join(near)}?" if near else "`ptyguard ls` shows them"
    return NoSuchSession(f"no such session: {_shown(target)}", hint=hint, near=near)


# -- retention and loss

def expired(records, now, keep_count=KEEP_COUNT, keep_days=KEEP_DAYS):
    """Ids of the sessions past their keeping, oldest first; never a living one.

    A record's own `ttl` (seconds after its end) counts in place of `keep_days`.
    """
    over = sorted((_over_since(record), session_id)
                  for session_id, record in records.items()
                  if record["state"] in OVER_STATES)
    surplus = max(0, len(over) - keep_count)
    return [session_id for position, (since, session_id) in enumerate(over)
            if position < surplus or now > _kept_until(records[session_id], keep_days)]


def next_expiry(records, keep_days=KEEP_DAYS):
    """When the first of the sessions that are over is past its time; None without any."""
    return min((_kept_until(record, keep_days) for record in records.values()
                if record["state"] in OVER_STATES), default=None)


def _kept_until(record, keep_days):
    ttl = record.get("ttl")
    return _over_since(record) + (keep_days * _DAY_S if ttl is None else ttl)


def _over_since(record):
    ended_at = record.get("ended_at")
    return record["created_at"] if ended_at is None else ended_at


def lost(records, held_ids, boot_id):
    """(id, reason) of each record that claims to live and that the guard does not hold.

    Oldest first.  An unknown boot (None or "", on either side) is no proof of a
    reboot.
    """
    held_ids = frozenset(held_ids)
    gone = sorted((record["created_at"], session_id)
                  for session_id, record in records.items()
                  if record["state"] in LIVING_STATES and session_id not in held_ids)
    return [(session_id, _loss_reason(records[session_id].get("boot_id"), boot_id))
            for _, session_id in gone]


def _loss_reason(then, now):
    return REASON_REBOOT if then and now and then != now else REASON_GONE
