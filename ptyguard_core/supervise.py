"""Supervise: is there a daemon, is it ours; and the way to one when there is not.

What a client finds is probed first, then judged by one pure function, `decide`,
then acted on.  Starting is serialised by start.lock; whoever gets it probes again,
since the one before may have done the work.

Guard and daemon never run from the user's copy of the program: overwriting a
running archive breaks every later import from it.  They run from a private copy in
the state directory, named by version and content, never rewritten, with the
byte-code of the interpreter that runs it.
"""

import os
import sys
import time

from . import guardwire as wire
from .errors import Refused, StateUnusable, Unreachable, UsageError
from .journal import tail
from .version import OURS

START_LIMIT_S = 60.0           # cold start on a machine that swaps; shared by those who wait
LOCK_LIMIT_S = 10.0
GUARD_ANSWER_S = 10.0
SCOPE_LIMIT_S = 10.0           # for the service manager to make one
WAKE_LIMIT_S = 5.0             # for a guard to make its sockets again
LOOK_S = 0.01                  # between looks at a lock that somebody holds

SETTINGS = {                   # environment variable -> setting of guard and daemon
    "PTYGUARD_IDLE_EXIT": "idle-exit",
    "PTYGUARD_MAX_SESSIONS": "sessions-max",
    "PTYGUARD_MAX_CLIENTS": "clients-max",
    "PTYGUARD_KEEP_COUNT": "keep-count",
    "PTYGUARD_KEEP_DAYS": "keep-days",
    "PTYGUARD_KEEP_OUTPUT": "keep-output",
}
_FRACTIONS = ("PTYGUARD_IDLE_EXIT", "PTYGUARD_KEEP_DAYS")   # the others are whole numbers

# -- deciding: pure ----------------------------------------------------------------------

ADOPT = "adopt"                # connect and say hello
START_DAEMON = "start_daemon"  # ask the guard for one
START_GUARD = "start_guard"
WAKE_GUARD = "wake_guard"      # alive, its sockets are gone
WAIT = "wait"                  # somebody is on the way out or in
REFUSE = "refuse"


def decide(is_listening, guard_state, is_guard_locked, may_start):
    """(verdict, reason) for what was probed.

    `is_listening`: whether client.sock accepted a connection.  `guard_state`: the
    daemon's state as the guard told it ("serving", "dead", "stopped",
    "circuit-open", "stopping", ...), or None when guard.sock did not answer.
    `is_guard_locked`: whether somebody holds guard.lock.
    """
    if is_listening:
        return ADOPT, "a daemon or a guard listens"
    if guard_state == "circuit-open":
        return REFUSE, "the daemon keeps dying"
    if guard_state == "stopping":
        return WAIT, "the guard is on its way out"
    if not may_start:
        return REFUSE, "no daemon runs"
    if guard_state == "serving":
        return WAKE_GUARD, "a daemon serves, and its socket is gone"
    if guard_state is not None:
        return START_DAEMON, f"the guard says {guard_state}"
    if is_guard_locked:
        return WAKE_GUARD, "a guard lives without its sockets"
    return START_GUARD, "nobody is here"


# -- asking the guard --------------------------------------------------------------------

def ask_guard(backend, paths, type_, timeout_s=GUARD_ANSWER_S, **fields):
    """One request on guard.sock; the answering Message, or None when no guard is there.

    Raises Unreachable when it is there and does not answer in time.
    """
    try:
        sock = backend.connect(paths.guard_socket, timeout_s)
    except (FileNotFoundError, ConnectionRefusedError, NotADirectoryError):
        return None
    except OSError as error:
        raise _silent_guard(backend, paths, error.strerror or "no answer") from None
    try:
        check_peer(backend, sock, paths.guard_socket)
        sock.sendall(wire.encode(type_, 1, **fields))
        decoder = wire.Decoder()
        deadline = time.monotonic() + timeout_s
        while True:
            sock.settimeout(max(0.01, deadline - time.monotonic()))
            data = sock.recv(65536)
            if not data:
                return None             # it went away: as good as not there
            decoder.feed(data)
            for message in iter(decoder.next, None):
                if message.serial == 1:     # else it is nothing that was asked for
                    return message
    except TimeoutError:
        raise _silent_guard(backend, paths, f"no answer in {timeout_s:g} s") from None
    except ConnectionError:
        return None
    except OSError as error:            # socket.timeout is no TimeoutError before 3.10
        raise _silent_guard(backend, paths, str(error)) from None
    finally:
        sock.close()


def tell_guard(backend, paths, type_, timeout_s=GUARD_ANSWER_S, **fields):
    """`ask_guard` for an order: a guard whose socket somebody removed gets it back first."""
    answer = ask_guard(backend, paths, type_, timeout_s, **fields)
    if answer is None and _wake_guard(backend, paths):
        answer = ask_guard(backend, paths, type_, timeout_s, **fields)
    return answer


def _silent_guard(backend, paths, why):
    return Unreachable(f"the guard at {paths.guard_socket} does not answer: {why} "
                       f"({backend.lock_holder(paths.guard_lock) or 'holder unknown'})",
                       hint=f"look at that process and at {paths.guard_log}; "
                            "no second guard is started beside it")


def check_peer(backend, sock, path):
    """The server must be ours or root's (C-902)."""
    owner = backend.peer_user(sock)
    if owner not in (backend.user_id(), 0):
        sock.close()
        raise Refused(f"{path} is served by uid {owner}, not by us",
                      hint="set PTYGUARD_DIR to a directory of yours")


def report_deaf(backend, paths):
    """Our hello is unanswered: the guard decides, once for all, what that means."""
    try:
        ask_guard(backend, paths, wire.DEAF, timeout_s=1.0)
    except Unreachable:
        pass                            # the caller has its own limit


# -- reaching a daemon -------------------------------------------------------------------

def reach(backend, paths, may_start=True, timeout_s=START_LIMIT_S, environ=None, scope=None):
    """A socket connected to whoever listens at client.sock; starts what is missing.

    `scope`: where a guard that has to be started is to be (scope.py), None for where we are.
    Raises Unreachable with the cause.  Blocks for at most `timeout_s`.
    """
    deadline = time.monotonic() + timeout_s
    if not may_start:
        _refuse_unless_running(backend, paths)
    while True:
        sock = _connect(backend, paths, deadline)
        if sock is not None:
            return sock
        if not may_start:
            raise _not_running()
        _start_under_lock(backend, paths, deadline, environ or {}, scope)
        if time.monotonic() > deadline:
            raise Unreachable(f"nobody came to listen at {paths.client_socket}",
                              hint=f"ptyguard status; look at {paths.guard_log}")


def _refuse_unless_running(backend, paths):
    """Connecting would make a resting guard start a daemon: ask it first.  One whose daemon
    has died starts the next by itself."""
    state = ask_guard(backend, paths, wire.STATE)
    if state is not None and state.text("daemon_state") == "stopped":
        raise _not_running()


def _not_running():
    return Unreachable("no daemon runs", hint="without --no-start it would be started")


def _connect(backend, paths, deadline):
    """A checked connection, or None when nobody listens."""
    while True:
        try:
            sock = backend.connect(paths.client_socket, 1.5)
        except (FileNotFoundError, ConnectionRefusedError):
            return None
        except (BlockingIOError, TimeoutError):     # the backlog is full: slow is not deaf
            if time.monotonic() > deadline:
                raise Unreachable(f"{paths.client_socket} accepts no connection",
                                  hint="ptyguard status") from None
            time.sleep(LOOK_S)
            continue
        except OSError as error:
            raise Unreachable(f"cannot connect to {paths.client_socket}: {error.strerror}",
                              hint="ptyguard status") from None
        check_peer(backend, sock, paths.client_socket)
        return sock


def _start_under_lock(backend, paths, deadline, environ, scope):
    lock = take_lock(backend, paths.start_lock, "client, starting", deadline)
    try:
        sock = _connect(backend, paths, deadline)
        if sock is not None:            # whoever held the lock before did the work
            sock.close()
            return
        _start(backend, paths, deadline, environ, scope)
    finally:
        os.close(lock)


def _start(backend, paths, deadline, environ, scope):
    while True:
        state = ask_guard(backend, paths, wire.STATE)
        lock = None if state else backend.try_lock(paths.guard_lock, "client, looking for a guard")
        is_locked = state is None and lock is None
        if lock is not None:
            os.close(lock)
        verdict, reason = decide(False, state and state.text("daemon_state"), is_locked, True)
        if verdict == REFUSE:
            raise _refused_by_circuit(backend, paths, state)
        if verdict == START_DAEMON:
            _ask_for_daemon(backend, paths, deadline)
            return
        if verdict == START_GUARD:
            _start_guard(backend, paths, deadline, environ, scope)
            return
        if verdict == WAKE_GUARD and _wake_guard(backend, paths):
            return
        if time.monotonic() > deadline:
            raise Unreachable(f"no daemon came up: {reason}", hint=f"look at {paths.guard_log}")
        time.sleep(LOOK_S)


def _refused_by_circuit(backend, paths, state):
    answer = ask_guard(backend, paths, wire.START_DAEMON)
    text = answer.text("text") if answer is not None else state.text("reason")
    return Unreachable(f"the daemon cannot be used: {text}",
                       hint="mend the cause, then: ptyguard daemon restart")


def _ask_for_daemon(backend, paths, deadline):
    answer = ask_guard(backend, paths, wire.START_DAEMON,
                       timeout_s=max(1.0, deadline - time.monotonic()))
    if answer is not None and answer.type != wire.OK:
        raise Unreachable(answer.text("text"), hint=f"look at {paths.daemon_log}")


def _wake_guard(backend, paths):
    """True once a guard that lives listens at its sockets (again); False when none lives.

    Whoever holds guard.lock has written there who it is and what for: others than a
    guard try that lock for a moment, and a signal would end them.
    """
    words = backend.lock_holder(paths.guard_lock).replace(",", " ").split()
    try:
        pid, start, purpose = int(words[1]), int(words[3]), words[4]
    except (IndexError, ValueError):
        return False
    if purpose != "guard" or backend.process_start(pid) != start:
        return False
    if not (os.path.exists(paths.guard_socket) and os.path.exists(paths.client_socket)):
        backend.signal_process(pid, start, backend.signal_number("USR1"))
    deadline = time.monotonic() + WAKE_LIMIT_S
    while time.monotonic() < deadline:
        state = ask_guard(backend, paths, wire.STATE)
        if state is not None and (state.text("daemon_state") != "serving"
                                  or os.path.exists(paths.client_socket)):
            return True
        if backend.process_start(pid) != start:
            return False
        time.sleep(LOOK_S)
    raise Unreachable(f"a guard (pid {pid}) holds {paths.guard_lock} and does not answer",
                      hint=f"look at that process and at {paths.guard_log}")


def take_lock(backend, path, purpose, deadline):
    """The kernel lock of `path`; Unreachable, naming the holder, after `deadline`."""
    while True:
        lock = backend.try_lock(path, purpose)
        if lock is not None:
            return lock
        if time.monotonic() > deadline:
            raise Unreachable(f"{path} is held by {backend.lock_holder(path) or 'somebody'}",
                              hint="wait for it, or look at that process")
        time.sleep(LOOK_S)


# -- starting a guard --------------------------------------------------------------------

def check_settings(environ):
    """Raise UsageError for a setting that no daemon could use."""
    for variable in SETTINGS:
        value = environ.get(variable) or "0"        # empty is not set
        digits = value.replace(".", "", 1) if variable in _FRACTIONS else value
        if not (digits.isascii() and digits.isdigit() and len(digits) <= 18):
            kind = "a number" if variable in _FRACTIONS else "a whole number"
            raise UsageError(f"{variable} is {value[:40]!r}", hint=f"it takes {kind}")


def _start_guard(backend, paths, deadline, environ, scope):
    program = find_program(backend, paths)
    settings = {setting: environ[variable] for variable, setting in SETTINGS.items()
                if environ.get(variable)}
    check_settings(environ)
    said = _start_in_scope(backend, paths, program, settings, deadline, scope) if scope else b""
    if not said:
        try:
            report = launch_guard(backend, paths, program, settings)
        except OSError as error:
            raise Unreachable(f"the guard cannot be started: {program[0]}: {error.strerror}",
                              hint="is that interpreter usable?", errno=error.errno) from None
        said = _read_report(backend, report, deadline)
    if said.startswith(b"ready") or said.startswith(b"taken"):
        return                          # taken: another guard was quicker; ask that one
    text = said[7:].decode("utf-8", "replace") if said.startswith(b"failed ") else (
        f"the guard ended before it was ready; log {paths.guard_log} ends:\n"
        + tail(paths.guard_log, 2000))
    raise Unreachable(text, hint=f"look at {paths.guard_log} and {paths.daemon_log}")


def _start_in_scope(backend, paths, program, settings, deadline, scope):
    """What a guard in a scope of its own reports; b"" when there is none, and `scope` told why."""
    wrapped = scope.wrap(*_guard_command(backend, paths, program, settings))
    if wrapped is None:
        return b""
    log_bytes = _size(paths.guard_log)
    try:
        report, pid = _launch(backend, paths, *wrapped)
    except OSError as error:
        scope.failed(f"{wrapped[0][0]} cannot be run: {error.strerror}")
        return b""
    if not _await_exec(backend, pid, scope):
        os.close(report)
        scope.failed(f"{wrapped[0][0]} did not come to an end in {SCOPE_LIMIT_S:g} s")
        return b""
    said = _read_report(backend, report, deadline)
    if said:
        scope.worked()
    else:
        scope.failed(f"{wrapped[0][0]} failed: {_last_word(paths.guard_log, log_bytes)}")
    return said


def _await_exec(backend, pid, scope):
    """Wait until that process has become the guard, or ended; if it takes too long, end it: False."""
    deadline = time.monotonic() + SCOPE_LIMIT_S
    start = backend.process_start(pid)
    while start is not None and backend.process_start(pid) == start and scope.is_on_its_way(pid):
        if time.monotonic() > deadline:
            backend.signal_process(pid, start, backend.signal_number("KILL"))
            return False
        time.sleep(LOOK_S)
    return True


def _size(path):
    try:
        return os.path.getsize(path)
    except OSError:
        return 0


def _last_word(path, since):
    """The last line that was written to that log from there on."""
    try:
        with open(path, "rb") as file:
            file.seek(since)
            lines = file.read().decode("utf-8", "replace").split("\n")
    except OSError:
        lines = []
    return next((line.strip() for line in reversed(lines) if line.strip()), "it did not say why")


def _read_report(backend, report, deadline):
    poller = backend.make_poller(any_file=True)
    poller.register(report, 1)
    said = b""
    try:
        while True:
            left = deadline - time.monotonic()
            if left <= 0 or not poller.poll(left):
                raise Unreachable("the guard was not ready in time", hint="ptyguard status")
            data = os.read(report, 8192)
            said += data
            if not data:
                return said
    finally:
        os.close(report)


def launch_guard(backend, paths, program, settings, home=None):
    """Start a guard that is nobody's child; a descriptor on which it reports.

    `home`: the user's, for whom a directory service would be too slow to ask.
    """
    return _launch(backend, paths, *_guard_command(backend, paths, program, settings, home))[0]


def _guard_command(backend, paths, program, settings, home=None):
    """(argv, environment) of a guard."""
    interpreter, binary = program
    environment = {name: os.environ[name] for name in ("PATH", "LANG") if name in os.environ}
    environment["HOME"] = home or backend.user_home() or "/"
    environment.setdefault("PATH", os.defpath)
    argv = [interpreter, "-I", "-S", binary, "__guard", paths.root]
    argv += [f"{name}={value}" for name, value in sorted(settings.items())]
    return argv, environment


def _launch(backend, paths, argv, environment):
    """(a descriptor on which what was started reports, its pid)."""
    report, theirs = os.pipe()
    try:
        pid = backend.launch(argv, environment, (theirs,), paths.guard_log, detach=True)
    except OSError:
        os.close(report)
        raise
    finally:
        os.close(theirs)
    return report, pid


# -- the private copy --------------------------------------------------------------------

_ROOT_MODULES = ("ptyguard.py", "ptyguard_posix.py", "ptyguard_win.py")
_MAIN = b"import sys\nfrom ptyguard import main\nsys.exit(main(sys.argv[1:]))\n"


def find_program(backend, paths):
    """(interpreter, private copy) that work together; each is tried before use."""
    binary = make_copy(backend, paths)
    tried = []
    for interpreter in _interpreters():
        if interpreter in tried:
            continue
        tried.append(interpreter)
        if backend.try_program([interpreter, "-I", "-S", binary, "--version"], 20.0):
            return interpreter, binary
    raise Unreachable("no usable python3: tried " + ", ".join(tried),
                      hint="install python3, 3.8 or newer")


def _interpreters():
    # The base executable: a virtual environment may be gone tomorrow.
    yield getattr(sys, "_base_executable", None) or sys.executable
    yield sys.executable
    yield "/usr/bin/python3"
    for directory in os.environ.get("PATH", os.defpath).split(os.pathsep):
        candidate = os.path.join(directory or ".", "python3")
        if os.access(candidate, os.X_OK):
            yield os.path.abspath(candidate)


def own_command():
    """The words that run this very program, as absolute paths: interpreter and file."""
    root = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    is_archive = not os.path.isdir(root)
    return [next(_interpreters()), root if is_archive else os.path.join(root, _ROOT_MODULES[0])]


def read_sources():
    """Our own modules' sources by archive name, from a directory or an archive."""
    package = os.path.dirname(os.path.abspath(__file__))
    root = os.path.dirname(package)
    if os.path.isdir(package):
        names = list(_ROOT_MODULES) + ["ptyguard_core/" + name for name in os.listdir(package)
                                       if name.endswith(".py")]
        sources = {}
        for name in names:
            with open(os.path.join(root, name), "rb") as file:
                sources[name] = file.read()
        return sources
    import zipfile
    with zipfile.ZipFile(root) as archive:
        return {name: archive.read(name) for name in archive.namelist()
                if name.endswith(".py") and name != "__main__.py"}


def make_copy(backend, paths):
    """The path of the private copy of this very code; made once, never rewritten."""
    import importlib.util
    copy, sources = name_copy(paths)
    os.makedirs(paths.copies, mode=0o700, exist_ok=True)
    backend.check_private(paths.copies)
    if not _is_whole(copy, sources):
        _write_copy(copy, dict(sources, **{"__main__.py": _MAIN}), importlib.util.MAGIC_NUMBER)
    return copy


def name_copy(paths):
    """(the path that the private copy of this very code has or would have, its sources)."""
    import hashlib
    import importlib.util
    try:
        sources = read_sources()
    except (OSError, KeyError) as error:
        raise StateUnusable(f"our own source cannot be read: {error}",
                            hint="was the archive moved while it ran? run it again") from None
    digest = hashlib.sha256(importlib.util.MAGIC_NUMBER)
    for name in sorted(sources):
        digest.update(name.encode() + b"\0" + sources[name])
    return os.path.join(paths.copies, f"ptyguard-{OURS}-{digest.hexdigest()[:16]}.pyz"), sources


def _is_whole(copy, sources):
    """Whether the copy is there and as it was written: a disk that was full, a careless
    hand.  Replaced by rename, it hurts nobody who runs from it."""
    import zipfile
    try:
        with zipfile.ZipFile(copy) as archive:
            return archive.testzip() is None and set(sources) <= set(archive.namelist())
    except (OSError, zipfile.BadZipFile, ValueError):
        return False


def _write_copy(copy, sources, magic):
    import importlib.util
    import marshal
    import zipfile
    draft = f"{copy}.tmp-{os.urandom(6).hex()}"
    try:
        fd = os.open(draft, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        with open(fd, "wb") as file:
            with zipfile.ZipFile(file, "w") as archive:
                for name in sorted(sources):
                    source = sources[name]
                    archive.writestr(name, source)
                    # PEP 552: an unchecked hash-based pyc; zipimport takes it without
                    # asking for the source's time.
                    # Without docstrings: half the size, in every guard and daemon.
                    code = compile(source, f"{os.path.basename(copy)}/{name}", "exec",
                                   dont_inherit=True, optimize=2)
                    archive.writestr(name + "c", magic + b"\1\0\0\0"
                                     + importlib.util.source_hash(source) + marshal.dumps(code))
            file.flush()
            os.fsync(file.fileno())
        os.rename(draft, copy)
    except OSError as error:
        try:
            os.unlink(draft)
        except OSError:
            pass
        raise StateUnusable(f"cannot write {copy}: {error.strerror}",
                            hint="free some space, or set PTYGUARD_DIR elsewhere",
                            errno=error.errno) from None


# -- stopping and restarting -------------------------------------------------------------

def stop(backend, paths, mode, force=False, timeout_s=5.0):
    """Stop the daemon ("keep") or everything ("all"); False when nothing ran.

    Returns once it is gone.  Raises Unreachable or Busy with the guard's words.
    """
    answer = tell_guard(backend, paths, wire.STOP, timeout_s=timeout_s + 10.0, mode=mode.encode(),
                        force=int(force), timeout_ms=int(timeout_s * 1000))
    if answer is None:
        return False
    if answer.type != wire.OK:
        raise Unreachable(f"not stopped: {answer.text('text')}",
                          hint="ptyguard daemon stop --force" if not force else "ptyguard status")
    if mode == "all":
        lock = take_lock(backend, paths.guard_lock, "client, waiting for the guard's end",
                         time.monotonic() + LOCK_LIMIT_S)
        os.close(lock)
    return True


def restart(backend, paths, timeout_s=START_LIMIT_S):
    """Replace the daemon by one of our own code; None, or the reason why it was not."""
    interpreter, binary = find_program(backend, paths)
    answer = tell_guard(backend, paths, wire.RESTART, timeout_s=timeout_s,
                        interpreter=os.fsencode(interpreter), binary=os.fsencode(binary))
    if answer is None:
        return "no guard runs"
    if answer.type != wire.OK:
        raise Unreachable(answer.text("text"), hint=f"look at {paths.daemon_log}")
    return None
