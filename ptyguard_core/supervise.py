"""Supervise: is there a daemon, is it ours; and the way to one when there is not.

What a client finds is probed first, then judged by one pure function (verdict.py), then
acted on.  Starting is serialised by start.lock; whoever gets it probes again,
since the one before may have done the work.

Guard and daemon run from a private copy of the program: see copies.py.
"""

import os
import time

from . import guardwire as wire
from .copies import find_program
from .errors import Deferred, Unreachable, UsageError
from .journal import tail
from .reaching import LOOK_S, START_LIMIT_S, check_peer, connect
from .verdict import REFUSE, START_DAEMON, START_GUARD, WAKE_GUARD, Found, decide, is_newer
from .version import OURS

LOCK_LIMIT_S = 10.0
GUARD_ANSWER_S = 10.0
SCOPE_LIMIT_S = 10.0           # for the service manager to make one
WAKE_LIMIT_S = 5.0             # for a guard to make its sockets again

SETTINGS = {                   # environment variable -> setting of guard and daemon
    "PTYGUARD_IDLE_EXIT": "idle-exit",
    "PTYGUARD_MAX_SESSIONS": "sessions-max",
    "PTYGUARD_MAX_CLIENTS": "clients-max",
    "PTYGUARD_KEEP_COUNT": "keep-count",
    "PTYGUARD_KEEP_DAYS": "keep-days",
    "PTYGUARD_KEEP_OUTPUT": "keep-output",
    "PTYGUARD_FOREGROUND": "foreground",
    "PTYGUARD_BACKGROUND": "background",
    "PTYGUARD_CURSOR_COLOUR": "cursor-colour",
}
_COLOURS = ("PTYGUARD_FOREGROUND", "PTYGUARD_BACKGROUND", "PTYGUARD_CURSOR_COLOUR")
_FRACTIONS = ("PTYGUARD_IDLE_EXIT", "PTYGUARD_KEEP_DAYS")   # the others are whole numbers

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


def report_deaf(backend, paths, waited_s=0.0):
    """Our hello is unanswered, for `waited_s` if we give up: the guard decides, once for all,
    what that means."""
    try:
        tell_guard(backend, paths, wire.DEAF, timeout_s=1.0, timeout_ms=int(waited_s * 1000))
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
        sock = connect(backend, paths, deadline)
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


def _start_under_lock(backend, paths, deadline, environ, scope):
    lock = take_lock(backend, paths.start_lock, "client, starting", deadline)
    try:
        sock = connect(backend, paths, deadline)
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
        verdict = decide(Found(False, state and state.text("daemon_state"), is_locked, True))
        if verdict.act == REFUSE:
            raise _refused_by_circuit(backend, paths, state)
        if verdict.how == START_DAEMON:
            _ask_for_daemon(backend, paths, deadline)
            return
        if verdict.how == START_GUARD:
            _start_guard(backend, paths, deadline, environ, scope)
            return
        if verdict.how == WAKE_GUARD and _wake_guard(backend, paths):
            return
        if time.monotonic() > deadline:
            raise Unreachable(f"no daemon came up: {verdict.reason}", hint=f"look at {paths.guard_log}")
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
    for variable in filter(environ.get, _COLOURS):
        from .queries import parse_colour       # whose patterns a client need not compile
        if parse_colour(environ[variable]) is None:
            raise UsageError(f"{variable} is {environ[variable][:40]!r}", hint="it takes a colour as #rrggbb")
    for variable in SETTINGS.keys() - set(_COLOURS):
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
    """Replace the daemon by one of our own code; by one of its own, if that is newer.

    None, or the reason why it was not.
    """
    state = tell_guard(backend, paths, wire.STATE)
    if state is None:
        return "no guard runs"
    program = None
    if not is_newer(state.text("daemon_version"), OURS):
        program = find_program(backend, paths)
    replace(backend, paths, program, "restart", "", timeout_s=timeout_s)
    return None


def replace(backend, paths, program, after, version=OURS, mode=None, timeout_s=START_LIMIT_S):
    """Have the guard replace the daemon; the version that serves then, "" from an old guard.

    `program`: (interpreter, binary); None for the one that it has.  `after`: why, for the
    log.  `mode`: nobody asked for it; then raises Deferred where it has to wait.
    Raises Unreachable with the cause: then what served before serves on.
    """
    fields = {} if program is None else {"interpreter": os.fsencode(program[0]),
                                         "binary": os.fsencode(program[1])}
    deadline = time.monotonic() + timeout_s
    while True:
        answer = tell_guard(backend, paths, wire.RESTART, max(1.0, deadline - time.monotonic()),
                            after=after, version=version, mode=mode, **fields)
        if answer is None:
            raise Unreachable("the guard went away", hint="ptyguard status")
        if answer.type != wire.OK:
            if answer.text("kind") == "deferred":
                raise Deferred(answer.text("text"))
            raise Unreachable(answer.text("text"), hint=f"look at {paths.daemon_log}")
        # Somebody else's exchange, for another program, may have been under way: then ours
        # was not begun.
        is_ours = not fields or answer.bytes("binary") in (b"", fields["binary"])
        if is_ours or mode is not None or time.monotonic() > deadline:
            return answer.text("daemon_version")
