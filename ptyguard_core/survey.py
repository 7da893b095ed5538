"""Survey: the facts that doctor.py judges, gathered from everywhere at once.

It starts nothing, changes nothing and waits for nobody without limit: what does not
answer, cannot be read or is not there is a fact like any other.  Whatever the state of
things, no OSError leaves this file; StateUnusable becomes a fact too.

Rule: client.sock is connected to only while a daemon lives.  A resting guard would take
the connection for a client's and start one.
"""

import os
import stat
import sys
import time

from . import frames, guardwire as wire
from .doctor import is_stopped, managed_group, unit_of
from .errors import PtyguardError, StateUnusable
from .copies import name_copy
from .supervise import SETTINGS, ask_guard, check_peer
from .version import OURS

ANSWER_S = 10.0                # slow is not deaf; who is stopped is not even asked
PROGRAM_S = 20.0               # for an interpreter to load a few modules, on a machine that swaps
FILES_MAX = 5000               # looked at in one directory

# What guard, daemon and clients import; Debian's python3-minimal lacks some.
MODULES = ("fcntl", "hashlib", "json", "mmap", "pwd", "re", "resource", "select", "signal",
           "socket", "struct", "termios", "zipfile", "zlib")
# Set by what runs the jobs of a continuous integration, and hardly ever by hand.
JOB_VARIABLES = ("GITHUB_ACTIONS", "GITLAB_CI", "JENKINS_URL", "BUILDKITE", "TEAMCITY_VERSION",
                 "CIRCLECI", "TF_BUILD", "CI")
_KINDS = ((stat.S_ISDIR, "directory"), (stat.S_ISLNK, "link"), (stat.S_ISREG, "file"),
          (stat.S_ISSOCK, "socket"))


def gather(backend, directory, environ):
    """All facts, as doctor.examine wants them; `directory` is what PTYGUARD_DIR would name.

    Blocks for ANSWER_S at most for each of guard and daemon, PROGRAM_S for an interpreter.
    """
    facts = _blank(backend, environ)
    try:
        paths, is_decided = backend.look_for_paths(directory)
    except StateUnusable as error:
        facts["refusal"] = (error.message, error.hint)
    else:
        _look_at_directories(backend, paths, is_decided, facts)
    _look_at_memory(backend, facts)
    _look_at_manager(backend, facts)
    _name_groups(backend, facts)
    facts["unknown"] = _unknown(facts)
    return facts


def _look_at_directories(backend, paths, is_decided, facts):
    """What is in ours, and who is behind it; another's are not about us."""
    facts["directories"] = _directories(paths)
    facts["disk"] = _disk(backend, paths.state)
    facts["place"] = _place(backend, paths, is_decided)
    vital = [found for found in facts["directories"]
             if found["path"] in (paths.root, paths.state, paths.place)]
    if not all(found["kind"] == "missing" or found["kind"] == "directory"
               and found["uid"] == facts["uid"] for found in vital):
        return
    facts["files"] = _files(paths)
    facts["corrupt"] = [file["path"] for file in facts["files"] if ".corrupt-" in file["path"]]
    facts["copies"] = _copies(backend, paths)
    facts["is_reachable"] = not facts["place"]["is_unreadable"]
    if is_decided:                      # else nobody has started here yet
        _look_at_processes(backend, paths, facts)
    facts["strays"] = _strays(backend, paths.root, facts["guard"] and facts["guard"]["pid"])


def _blank(backend, environ):
    """What is known without any directory; the rest is as if nothing were there."""
    return {
        "uid": backend.user_id(), "version": OURS, "refusal": None, "directories": [], "files": [],
        "disk": None, "place": {"path": "", "file": "", "is_unreadable": False, "is_elsewhere": False,
                                "cleaning_age": "", "is_locked": False},
        "is_reachable": False,
        "guard": None, "strays": [], "daemon": None, "locks": [], "sockets": [], "copies": [], "corrupt": [],
        "settings": {name: environ[name] for name in (*SETTINGS, "PTYGUARD_SCOPE") if environ.get(name)},
        "job": next((name for name in JOB_VARIABLES if environ.get(name)), None),
        "confinement": backend.process_confinement(os.getpid()), "group_names": {},
        "terminals": backend.terminal_supply(), "memory": None, "shared_memory": None,
        "logout": {}, "python": _python(backend), "unknown": [],
    }


# -- directories and files -------------------------------------------------------------------

def _look(path):
    """(kind, uid, mode, error) of what is at `path` itself."""
    try:
        facts = os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return "missing", None, 0, ""
    except OSError as error:
        return "unknown", None, 0, error.strerror
    kind = next((name for is_kind, name in _KINDS if is_kind(facts.st_mode)), "other")
    return kind, facts.st_uid, stat.S_IMODE(facts.st_mode), ""


def _directories(paths):
    inner = [os.path.join(paths.state, name) for name in ("sessions", "tombstones", "launches")]
    found = []
    for path in dict.fromkeys((paths.root, paths.state, paths.place, paths.copies, *inner)):
        kind, uid, mode, error = _look(path)
        above = _existing(os.path.dirname(path))
        found.append({"path": path, "kind": kind, "uid": uid, "mode": mode, "error": error,
                      "is_root": path == paths.root, "is_writable": _may_write(path),
                      "above": above, "can_be_made": os.path.isdir(above) and _may_write(above)})
        if kind == "unknown" or path == paths.root and kind not in ("directory", "missing"):
            break                       # nothing can be below it, or be seen there
    return found


def _existing(path):
    """`path`, or the nearest of what is above it that is there."""
    while not os.path.lexists(path) and os.path.dirname(path) != path:
        path = os.path.dirname(path)
    return path


def _may_write(path):
    return os.access(path, os.W_OK | os.X_OK)


def _files(paths):
    """What lies in our directories, but for directories."""
    needed = {paths.client_socket, paths.guard_socket, paths.start_lock, paths.guard_lock,
              paths.daemon_lock, paths.daemon_log, paths.guard_log, os.path.join(paths.state, "place")}
    found = []
    for directory in dict.fromkeys((paths.state, paths.place, paths.copies,
                                    os.path.join(paths.state, "sessions"),
                                    os.path.join(paths.state, "tombstones"),
                                    os.path.join(paths.state, "launches"))):
        for path in _paths_in(directory):
            kind, uid, mode, _ = _look(path)
            if kind == "link" and path.startswith(paths.agent_link("")):
                kind, mode = "agent link", 0o600        # a link's own mode means nothing
            if kind not in ("missing", "directory") or path in needed and kind == "directory":
                found.append({"path": path, "kind": kind, "uid": uid, "mode": mode,
                              "is_needed": path in needed})
    return found


def _paths_in(directory):
    try:
        names = sorted(os.listdir(directory))[:FILES_MAX]
    except OSError:
        return []                       # `directory` tells of it, or it is not there yet
    return [os.path.join(directory, name) for name in names]


def _disk(backend, path):
    path = _existing(path)
    try:
        return dict(backend.file_system(path), path=path)
    except OSError:
        return None


def _place(backend, paths, is_decided):
    file = os.path.join(paths.state, "place")
    is_elsewhere = is_decided and paths.place != paths.state
    age = _cleaning_age(backend, paths.place)
    return {"path": paths.place, "file": file, "is_elsewhere": is_elsewhere, "cleaning_age": age,
            "is_unreadable": not is_decided and os.path.lexists(file),
            "is_locked": bool(is_elsewhere or age) and _is_held(backend, paths.place, shared=True)}


def _cleaning_age(backend, path):
    """After what time a cleaner removes what is at `path`: by the nearest directory that it cleans."""
    while os.path.dirname(path) != path:
        path = os.path.dirname(path)
        age = backend.cleaning_age(path)
        if age:
            return age
    return ""


def _is_held(backend, path, shared):
    """Whether that lock is held, or None when it could not be looked at."""
    try:
        return backend.look_at_lock(path, shared)[0]
    except OSError:
        return None


def _copies(backend, paths):
    try:
        ours = name_copy(paths)[0]
    except StateUnusable:
        ours = None
    found = []
    for path in _paths_in(paths.copies):
        try:
            facts = os.lstat(path)
        except OSError:
            continue
        if stat.S_ISREG(facts.st_mode):
            found.append({"path": path, "bytes": facts.st_size, "is_ours": path == ours,
                          "is_held": _is_held(backend, path, shared=True)})
    return found


# -- processes -------------------------------------------------------------------------------

def _look_at_processes(backend, paths, facts):
    """Locks, guard, daemon, sockets: each says what may be asked of the next."""
    locks = [_lock(backend, name, path) for name, path in (
        ("start.lock", paths.start_lock), ("guard.lock", paths.guard_lock),
        ("daemon.lock", paths.daemon_lock))]
    facts["locks"] = locks
    facts["guard"] = _guard(backend, paths, _holder(locks[1], "guard"))
    facts["daemon"] = _daemon(backend, paths, facts["guard"], _holder(locks[2], "daemon"))
    facts["sockets"] = [{"name": name, "path": path, "kind": _look(path)[0]} for name, path in (
        ("guard.sock", paths.guard_socket), ("client.sock", paths.client_socket))]


def _lock(backend, name, path):
    lock = {"name": name, "path": path, "is_held": None, "pids": [], "error": "",
            "words": backend.lock_holder(path), "pid": None, "purpose": "", "is_alive": False}
    try:
        lock["is_held"], lock["pids"] = backend.look_at_lock(path)
    except OSError as error:
        lock["error"] = error.strerror or str(error)
    words = lock["words"].replace(",", " ").split()
    try:                                # "pid 6837 start 391522, guard, since ..."
        lock["pid"], start, lock["purpose"] = int(words[1]), int(words[3]), words[4]
        lock["is_alive"] = backend.process_start(lock["pid"]) == start
    except (IndexError, ValueError, OSError):
        pass                            # it says nothing, which is a fact too
    return lock


def _holder(lock, purpose):
    """The pid of the guard or daemon that holds its lock, or None."""
    if not lock["is_held"] or lock["purpose"] != purpose or not lock["is_alive"]:
        return None
    return lock["pid"] if not lock["pids"] or lock["pid"] in lock["pids"] else None


def _strays(backend, root, guard_pid):
    """Guards of this root other than the one that is found here, with their daemons."""
    rows = [(row, backend.process_facts(row.pid).get("argv", [])[4:6]) for row in backend.process_table()]
    guards = [row.pid for row, words in rows if words == ["__guard", root] and row.pid != guard_pid]
    return [{"pid": pid, "daemons": [row.pid for row, words in rows
                                     if words == ["__daemon", root] and row.parent == pid]}
            for pid in guards]


def _guard(backend, paths, pid):
    """Facts about the guard, or None when there is none."""
    guard = {"pid": pid, "error": "", "is_silent": False, "log": paths.guard_log, "state": None}
    state, error = _ask_guard(backend, paths, pid)
    guard.update(error=error, is_silent=bool(error))
    if state is not None and state.type == wire.GUARD_STATE:
        guard.update(_told(state))
    elif pid is None and not guard["is_silent"]:
        return None
    elif not guard["error"]:
        guard["error"] = f"nobody listens at {paths.guard_socket}"
    guard["confinement"] = _confinement(backend, guard["pid"])
    files = guard["confinement"].get("files") or ()
    guard["holds_binary"] = "binary" in guard and any(
        file.startswith(guard["binary"]) for file in files)     # "... (deleted)"
    return guard


def _ask_guard(backend, paths, pid):
    """(its GUARD_STATE or None, why there is no answer)."""
    if is_stopped(_confinement(backend, pid)):
        return None, "it is stopped"
    try:
        return ask_guard(backend, paths, wire.STATE, ANSWER_S), ""
    except PtyguardError as error:
        return None, error.message


def _told(state):
    binary, interpreter = state.text("binary"), state.text("interpreter")
    return {"pid": state.number("guard_pid"), "version": state.text("version"),
            "state": state.text("daemon_state"), "reason": state.text("reason"),
            "last_failure": state.text("last_failure"), "daemon_pid": state.number("daemon_pid"),
            "binary": binary, "has_binary": os.path.exists(binary),
            "interpreter": interpreter, "has_interpreter": os.access(interpreter, os.X_OK)}


def _daemon(backend, paths, guard, pid):
    """Facts about the daemon that serves, or None when none does."""
    if guard is not None and guard["state"] is not None:
        pid = guard["daemon_pid"] if guard["state"] == "serving" else None
    if not pid:
        return None
    confinement = _confinement(backend, pid)
    welcome, error = ({}, "it is stopped") if is_stopped(confinement) else _ask_daemon(backend, paths)
    binary = str(welcome.get("binary", ""))
    return {"pid": welcome.get("pid", pid), "version": str(welcome.get("version", "")),
            "error": error, "confinement": confinement, "binary": binary,
            "is_ours": _is_our_code(paths, binary)}


def _is_our_code(paths, binary):
    """Whether that private copy has our very sources, whatever python it was made for; None: not known."""
    from zipfile import BadZipFile, ZipFile
    try:
        copy, sources = name_copy(paths)
        if copy == binary:
            return True
        with ZipFile(binary) as archive:
            names = {name for name in archive.namelist() if name.endswith(".py")} - {"__main__.py"}
            return names == set(sources) and all(archive.read(name) == sources[name] for name in names)
    except (OSError, StateUnusable, BadZipFile, KeyError, ValueError):
        return None


def _ask_daemon(backend, paths):
    """(its welcome, what went wrong).

    Not through client.py, which tells the guard of a daemon that is late: the guard
    may then replace it, and nothing is to be changed here.
    """
    try:
        sock = backend.connect(paths.client_socket, ANSWER_S)
    except OSError as error:
        return {}, error.strerror or str(error)
    try:
        check_peer(backend, sock, paths.client_socket)
        return _say_hello(sock), ""
    except (OSError, EOFError, PtyguardError) as error:
        # socket.timeout is an OSError without a number.
        late = isinstance(error, OSError) and error.errno is None
        return {}, f"no answer in {ANSWER_S:g} s" if late else str(error)
    finally:
        sock.close()


def _say_hello(sock):
    decoder = frames.Decoder(frames.FROM_DAEMON)
    decoder.control_max = frames.CONTROL_BYTES_MAX
    deadline = time.monotonic() + ANSWER_S
    sock.sendall(frames.control(frames.HELLO, {
        "version": OURS, "pid": os.getpid(), "role": "doctor",
        "protocol": [frames.PROTOCOL_MIN, frames.PROTOCOL_MAX]}))
    while True:
        sock.settimeout(max(0.01, deadline - time.monotonic()))
        data = sock.recv(65536)
        if not data:
            raise EOFError("it closed the connection")
        for type_, _, fields in decoder.frames(memoryview(data)):
            if type_ == frames.WELCOME:
                return fields
            raise EOFError(f"it refused: {fields}")


def _confinement(backend, pid):
    return backend.process_confinement(pid) if pid else {}


# -- the system --------------------------------------------------------------------------------

def _python(backend):
    """The interpreter that we run on, and the one that guard and daemon would."""
    from importlib.util import find_spec
    base = getattr(sys, "_base_executable", None) or sys.executable
    missing = [name for name in MODULES if find_spec(name) is None]
    argv = [base, "-I", "-S", "-c", "import " + ", ".join(MODULES)]
    return {"version": sys.version.split()[0], "executable": sys.executable, "base": base,
            "in_venv": sys.prefix != sys.base_prefix, "missing": missing,
            "is_usable": backend.try_program(argv, PROGRAM_S)}


def _look_at_memory(backend, facts):
    """What rings are made of: those of the guard, else those that it would make."""
    guard = facts["guard"]
    try:
        facts["memory"] = guard and backend.ring_memory(guard["pid"]) or backend.ring_memory()
        facts["shared_memory"] = backend.file_system("/dev/shm")
    except OSError:
        pass


def _look_at_manager(backend, facts):
    guard = facts["guard"]
    confinement = guard["confinement"] if guard else facts["confinement"]
    _, unit = unit_of(managed_group(confinement.get("cgroups") or {}))
    facts["logout"] = dict(backend.logout_facts(), logind=backend.manager_texts("logind.conf"),
                           unit=backend.manager_texts(unit) if unit else [])


def _name_groups(backend, facts):
    """Names of those groups that only one side has: a directory service may be slow."""
    guard = facts["guard"]
    if guard and guard["confinement"]:
        differ = set(guard["confinement"]["groups"]) ^ set(facts["confinement"].get("groups", ()))
        facts["group_names"] = {number: backend.group_name(number) for number in sorted(differ)}


def _unknown(facts):
    """What this system does not tell, in words."""
    processes = [process for process in (facts["guard"], facts["daemon"]) if process]
    missing = {"control groups, privileges and limits of processes": not facts["confinement"] or any(
        not process["confinement"] for process in processes),
               "the number of terminals": facts["terminals"]["limit"] is None,
               "the kind of file system": bool(facts["disk"]) and facts["disk"]["type"] is None}
    return [what for what, is_missing in missing.items() if is_missing]
