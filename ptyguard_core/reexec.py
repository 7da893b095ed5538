"""Re-exec: the guard runs another program in place: same process, same children.

It is their parent for life, so it cannot be followed by another process without losing
their exit statuses; it can become another program (execve(2) keeps the pid, the children,
the descriptors that are let through, and the signals that are blocked).

    quiet     no child on its way, nobody waiting, nothing half said or half heard on the
              link to the daemon: then all that the guard is, is numbers and bytes
    freeze    those are written to memory, as messages of the guard's own wire
    rehearse  a child runs the new program on them and says whether it understands
    exec      freeze again, and become the new program, which thaws

Rule 1: before the exec nothing is changed; whatever fails is answered, and the guard goes on.
Rule 2: signals that the guard watches are blocked over the exec.  None is lost, and none
        meets a program that has no handler for it yet.  Children that ended meanwhile are
        zombies, and are asked for afterwards.
Rule 3: a program that cannot thaw becomes the old one again.
"""

import os

from . import guardwire as wire
from .backend import READABLE
from .errors import ProtocolError, PtyguardError
from .holdings import Cause, DaemonProcess, Held, exit_fields, session_id
from .link import Link

QUIET_LIMIT_S = 5.0
QUIET_LOOK_S = 0.02
REHEARSAL_LIMIT_S = 20.0
_TEXTS = ("newest", "deferred", "update_failure", "failed", "left")     # of Updates.texts
WATCHED = ("SIGCHLD", "SIGTERM", "SIGUSR1")
_MS = 1000


class Reexec:
    """One exchange of the guard's program, asked for over `link` as `serial`."""

    def __init__(self, guard, program, link, serial):
        self._guard = guard
        self._program = program         # (interpreter, binary)
        self._link = link
        self._serial = serial
        self._rehearsal = None          # (pid, start) of the child
        self._report = None             # descriptor on which the rehearsal tells
        self._said = b""
        self._timer = None

    def begin(self):
        """Go through it; the answer is given by whoever is the guard then."""
        self._when_quiet(self._rehearse)

    def _when_quiet(self, act):
        deadline = self._guard.loop.clock() + QUIET_LIMIT_S

        def look():
            why = self._guard.why_not_quiet()
            if not why:
                self._try(act)
            elif self._guard.loop.clock() > deadline:
                self._fail(why)
            else:
                self._guard.loop.after(QUIET_LOOK_S, look)

        look()

    def _try(self, act):
        """Whatever goes wrong before the exec, the guard is to be what it was."""
        try:
            act()
        except Exception as error:
            self._fail(f"it cannot be run: {error}")

    def _fail(self, why):
        if self._timer is not None:
            self._timer.cancel()
        self._guard.reexec = None
        self._guard.log("reexec_failed", binary=self._program[1], reason=why)
        self._link.send(wire.REFUSED, self._serial, text=why)

    def _argv(self, verb, *words):
        interpreter, binary = self._program
        return [interpreter, "-I", "-S", binary, verb, *map(str, words)]

    # -- rehearsal -----------------------------------------------------------------------

    def _rehearse(self):
        guard = self._guard
        report, theirs = os.pipe()
        try:
            memory = self._freeze()
            try:
                pid = guard.backend.launch(self._argv("__guard_rehearse"), guard.environment(),
                                           (memory, theirs), guard.paths.guard_log, detach=False)
                self._rehearsal = pid, guard.start_of(pid)
            finally:
                os.close(memory)
        except BaseException:
            os.close(report)
            raise
        finally:
            os.close(theirs)
        os.set_blocking(report, False)
        self._report = report
        guard.loop.watch(report, self._on_report, READABLE)
        self._timer = guard.loop.after(
            REHEARSAL_LIMIT_S, lambda: self._end_rehearsal("it did not answer in time"))

    def _on_report(self, _bits):
        try:
            data = os.read(self._report, 4096)
        except BlockingIOError:
            return
        self._said += data
        if data and len(self._said) < 4096:
            return
        if self._said == b"ok %d" % wire.WIRE_VERSION or self._is_newer_wire():
            self._end_rehearsal(None)
        else:
            self._end_rehearsal("it does not understand what this guard holds: "
                                + (self._said.decode("utf-8", "replace")[:200] or "it said nothing"))

    def _is_newer_wire(self):
        word, _, number = self._said.partition(b" ")
        return word == b"ok" and number.isdigit() and int(number) >= wire.WIRE_VERSION

    def _end_rehearsal(self, why):
        self._timer.cancel()
        self._guard.loop.forget(self._report)
        os.close(self._report)
        if why is not None:
            guard = self._guard
            guard.backend.signal_process(*self._rehearsal, guard.backend.signal_number("KILL"))
            self._fail(why)
        else:
            self._when_quiet(self._exec)

    # -- the exchange --------------------------------------------------------------------

    def _freeze(self):
        """Memory that holds all we are; a descriptor."""
        data = freeze(self._guard, self._link, self._serial)
        fd = self._guard.backend.make_memory(len(data))
        try:
            write_whole(fd, data)
        except OSError:
            os.close(fd)
            raise
        return fd

    def _exec(self):
        guard, backend = self._guard, self._guard.backend
        guard.maybe_restore(guard.own_binary)       # the way back has to be there
        memory = None
        backend.block_signals(WATCHED)
        try:
            guard.hear_signals()        # what was told before they were blocked
            if guard.why_not_quiet():
                guard.loop.soon(lambda: self._when_quiet(self._exec))
                return
            memory = self._freeze()
            guard.log("reexec", binary=self._program[1], sessions=len(guard.sessions))
            backend.run_in_place(
                self._argv("__guard_resume", memory, "", *guard.own_program, guard.paths.root,
                           *guard.settings),
                guard.environment(), [memory, *guard.descriptors(), self._link.fileno()])
        finally:                        # only reached when it was not run
            if memory is not None:
                os.close(memory)
            backend.unblock_signals(WATCHED)


def write_whole(fd, data):
    """All of `data`, from the beginning of a descriptor."""
    done = 0
    while done < len(data):
        done += os.pwrite(fd, data[done:done + (1 << 20)], done)


# -- freezing -------------------------------------------------------------------------------

def freeze(guard, caller, serial):
    """All that a quiet guard is, as bytes."""
    updates, interpreter_binary = guard.updates, [os.fsencode(word) for word in guard.program]
    parts = [wire.encode(
        wire.FROZEN_GUARD, listener_fd=guard.listener.fileno(),
        guard_listener_fd=guard.guard_listener.fileno(),
        locks=[b"%d" % fd for fd in guard.locks], caller_fd=caller.fileno(), caller_serial=serial,
        program=interpreter_binary,
        started_at_ms=int(guard.started_at * _MS), keep_stopped=int(guard.keep_stopped),
        daemon_version=guard.last_version, last_failure=guard.last_failure,
        good=[os.fsencode(word) for word in updates.good or ()],
        probation_ms=int(updates.probation_s(guard.loop.clock()) * _MS),
        **dict(zip(_TEXTS, updates.texts())), **guard.ownership)]
    if guard.daemon is not None:
        parts.append(_freeze_daemon(guard.daemon))
    parts += [_freeze_session(held) for held in guard.sessions.values()]
    parts.append(wire.encode(wire.FROZEN_END))
    return b"".join(parts)


def _freeze_daemon(daemon):
    return wire.encode(
        wire.FROZEN_DAEMON, link_fd=daemon.link.fileno(), received=daemon.link.received(),
        pid=daemon.pid, pid_start=daemon.start, is_child=int(daemon.is_child),
        program=[os.fsencode(word) for word in daemon.program], version=daemon.version,
        started_at_ms=int(daemon.started_at * _MS), given=[id_.encode() for id_ in daemon.given],
        unopened=[id_.encode() for id_ in daemon.unopened], has_gone=int(daemon.has_gone))


def _freeze_session(held):
    return wire.encode(
        wire.FROZEN_SESSION, session=held.id, ring_fd=held.ring, master_fd=held.master,
        slave_fd=held.slave, blob=held.blob, launch=held.launch, input=held.input,
        spawn_number=held.spawn_number, pid=held.pid, pid_start=held.pid_start,
        is_child=int(held.is_child), deaths=held.deaths, **exit_fields(held))


# -- thawing --------------------------------------------------------------------------------

_NEEDED = {
    wire.FROZEN_GUARD: ("listener_fd", "guard_listener_fd", "locks", "program", "started_at_ms",
                        "caller_fd", "caller_serial"),
    wire.FROZEN_DAEMON: ("link_fd", "pid", "program", "is_child"),
    wire.FROZEN_SESSION: ("session", "ring_fd", "master_fd", "slave_fd", "pid", "is_child"),
}


class Frozen:
    """What `freeze` wrote: `guard` and `daemon` (or None) are Messages, `sessions` a list."""

    def __init__(self, data):
        """Raises ProtocolError for what is not whole or lacks what is needed."""
        decoder = wire.Decoder()
        decoder.feed(data)
        self.guard = self.daemon = None
        self.sessions = []
        is_whole = False
        for message in iter(decoder.next, None):
            if any(name not in message.fields for name in _NEEDED.get(message.type, ())):
                raise ProtocolError(f"a frozen guard: {message.name} lacks something")
            if message.type == wire.FROZEN_GUARD:
                self.guard = message
            elif message.type == wire.FROZEN_DAEMON:
                self.daemon = message
            elif message.type == wire.FROZEN_SESSION:
                self.sessions.append(message)
            is_whole = message.type == wire.FROZEN_END
        if self.guard is None or not is_whole:
            raise ProtocolError("a frozen guard that is not whole")


def read_frozen(fd):
    """The Frozen that a descriptor holds; it stays as it is."""
    return Frozen(os.pread(fd, os.fstat(fd).st_size, 0))


def rehearse():
    """The rehearsing child: descriptor 3 holds a frozen guard, 4 is told whether we understand it."""
    try:
        read_frozen(3)
        said = b"ok %d" % wire.WIRE_VERSION
    except (OSError, PtyguardError) as error:
        said = str(error).encode("utf-8", "replace")
    os.write(4, said)
    return 0


def thaw(guard, frozen):
    """Make a new guard what another program was in its place."""
    facts = frozen.guard
    guard.locks = [int(fd) for fd in facts.fields["locks"]]
    for fd in guard.locks:
        os.set_inheritable(fd, False)
    guard.started_at = facts.number("started_at_ms") / _MS
    guard.keep_stopped = bool(facts.number("keep_stopped"))
    guard.last_version, guard.last_failure = facts.bytes("daemon_version"), facts.text("last_failure")
    guard.ownership = {name: facts.fields[name] for name in wire.OF_OWNERSHIP if name in facts.fields}
    guard.cause = Cause("stop" if guard.keep_stopped else "death")
    good = tuple(os.fsdecode(word) for word in facts.fields.get("good", ())) or None
    guard.updates.restore(_program(facts), good, guard.loop.clock() + facts.number("probation_ms") / _MS,
                          [facts.text(name) for name in _TEXTS])
    for message in frozen.sessions:
        _thaw_session(guard, message)
    guard.listener = guard.backend.adopt_socket(facts.number("listener_fd"))
    guard.guard_listener = guard.backend.adopt_socket(facts.number("guard_listener_fd"))
    guard.loop.watch(guard.guard_listener.fileno(), guard.on_guard_connection, READABLE)
    guard.loop.watch(guard.listener.fileno(), guard.on_client_waits,
                     READABLE if frozen.daemon is None else 0)
    if frozen.daemon is not None:
        _thaw_daemon(guard, frozen.daemon)


def _thaw_session(guard, message):
    ring, master, slave = (message.number(name) for name in ("ring_fd", "master_fd", "slave_fd"))
    for fd in (ring, master, slave):
        if fd >= 0:
            os.set_inheritable(fd, False)
    held = Held(session_id(message), ring, master, slave, message.bytes("blob"))
    held.launch, held.input = message.bytes("launch"), message.bytes("input")
    held.spawn_number, held.deaths = message.number("spawn_number", 1), message.number("deaths")
    held.pid, held.pid_start = message.number("pid"), message.number("pid_start")
    held.is_child = bool(message.number("is_child"))
    guard.sessions[held.id] = held
    if message.number("exited"):
        held.exit = (message.number("status"), message.number("status_known"),
                     message.number("exited_at_ms"))
    elif not held.is_child:
        guard.foreign.watch(held)


def _thaw_daemon(guard, message):
    daemon = DaemonProcess(message.number("pid"), message.fields.get("pid_start"),
                           bool(message.number("is_child")), _program(message), Cause(""))
    daemon.version, daemon.was_ready = message.bytes("version"), True
    daemon.state, daemon.has_gone = daemon.SERVING, bool(message.number("has_gone"))
    daemon.serving_since = guard.loop.clock()
    daemon.started_at = message.number("started_at_ms") / _MS
    daemon.given = {id_.decode() for id_ in message.fields.get("given", ())}
    daemon.unopened = [id_.decode() for id_ in message.fields.get("unopened", ())]
    sock = guard.backend.adopt_socket(message.number("link_fd"))
    daemon.link = Link(guard.backend, guard.loop, sock, guard.on_daemon_message,
                       guard.on_daemon_link_end, received=message.bytes("received"))
    guard.daemon = daemon


def _program(message):
    interpreter, binary = message.fields["program"]
    return os.fsdecode(interpreter), os.fsdecode(binary)


def descriptors_of(frozen):
    """All that a frozen guard had, whoever has wrapped them since."""
    fields = [message.fields for message in (frozen.guard, frozen.daemon, *frozen.sessions) if message]
    names = ("listener_fd", "guard_listener_fd", "caller_fd", "link_fd", "ring_fd", "master_fd",
             "slave_fd")
    found = [facts[name] for facts in fields for name in names if facts.get(name, -1) >= 0]
    return found + [int(fd) for fd in frozen.guard.fields["locks"]]


def adopt_caller(guard, frozen, on_message, on_close, message_max):
    """The Link to who asked for it, and the serial that is to be answered."""
    sock = guard.backend.adopt_socket(frozen.guard.number("caller_fd"))
    return Link(guard.backend, guard.loop, sock, on_message, on_close, message_max), \
        frozen.guard.number("caller_serial")
