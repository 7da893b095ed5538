"""Guard: the process that must not die.

It owns three things per session: the terminal (master and one slave, so that the
terminal outlives its programs until it has been drained), the ring's memory, and
the exit status.  Besides, it holds the listening socket and keeps one daemon
alive.  It reads no output and knows nothing of clients, names or JSON, because
whatever it knew would be something that could make it fail.

Rule 1: every request is checked in full before anything is changed.
Rule 2: a descriptor received with a refused request is closed here.
Rule 3: its wire only grows; see guardwire.py and docs/GUARD.md.
Rule 4: there is one way in which a daemon comes to serve: it is started, is given
        the table to rehearse with, says ready; a predecessor, if there is one,
        stops reading; then `GO`, with what has changed of the table.  Start, crash,
        restart and upgrade differ only in whether there was a predecessor.
Rule 5: only the guard signals a daemon, and only one whose pid and start time fit.
"""

import errno
import os
import time

from . import guardwire as wire
from .backend import READABLE
from .circuit import Circuit
from .depositing import Deposit
from .errors import PtyguardError
from .foreign import Foreign
from .holdings import QUARANTINE_DEATHS, Cause, DaemonProcess, exit_fields, session_id
from .journal import Journal, tail
from .link import Link, close_all
from .loop import Loop
from .reexec import (WATCHED, Reexec, adopt_caller, descriptors_of, read_frozen, rehearse as _rehearse,
                     thaw)
from .spawning import Spawns
from .updates import PROBATION_S, Updates
from .version import OURS

READY_LIMIT_S = 60.0           # a daemon's start-up on a machine that swaps (C-301)
READY_LIMIT_BESIDE_S = 5.0     # while a predecessor serves: better to keep that one
QUIESCE_LIMIT_S = 5.0
PONG_LIMIT_S = 5.0             # slow is not deaf; this long without a turn of its loop is
HELLO_LIMIT_S = 30.0           # nor is one well that leaves a hello unanswered so long
QUIT_LIMIT_S = 5.0
LINK_GRACE_S = 1.0
FAILED_ACT_PAUSE_S = 0.1       # should it fail again and again: no storm
ACCEPT_PAUSE_S = 1.0           # without descriptors: others may free some
ADOPTED_REST_S = 0.005         # between two looks at which sessions a daemon has opened
CALLER_LIMIT_S = 120.0         # longer than any answer takes; silent ones make room
CALLERS_MAX = 256              # connections at guard.sock
CALLER_MESSAGE_MAX = 64 * 1024
CALLER_QUEUE_MAX = 256 * 1024  # of answers that it does not read
SUCCESSOR_GONE = "its successor is gone"
NOT_READY = "not ready in time"
LINK_CLOSED = "closed its link to the guard"
DEAF = "deaf"
_PROGRAM_FAULTS = (errno.ENOENT, errno.EACCES, errno.ENOEXEC)   # others may be better in a while
_MS = 1000


class Guard:
    """All of it.  One object, one loop; `run` returns when there is nothing to guard."""

    def __init__(self, backend, paths, program, settings, journal):
        self.backend = backend
        self.descriptor_limit = backend.raise_descriptor_limit()
        self.paths = paths
        self.updates = Updates(program)
        self.settings = settings        # "name=value" texts, passed on to daemons
        self.log = journal
        self.loop = Loop(backend.make_poller(), time.monotonic)
        self.sessions = {}              # id -> Held
        self.spawns = Spawns(self)
        self.foreign = Foreign(self)
        self.deposit = Deposit(self)
        self.daemon = None              # the one that serves, or is to
        self.successor = None           # the one that rehearses beside it
        self.circuit = Circuit()
        self.listener = None
        self.guard_listener = None
        self.waiters = []               # callables(error or None): until a daemon serves
        self.last_failure = ""
        self.own_program = program
        self.own_binary = program[1]
        self.locks = []                 # descriptors of those that we hold for life
        self.reexec = None              # one that is under way
        self.copy = None                # a descriptor of it, to write it again from
        self.started_at = time.time()
        self.own_start = backend.process_start(os.getpid())
        self.is_stopping = False
        self.keep_stopped = False       # `daemon stop --sessions keep`: wait for a client
        self.ownership = {}             # whose daemon it is, as it told; for the next one
        self.cause = Cause("")          # of the next start; the first one is after nothing
        self.last_version = b""         # of the daemon that served last
        self._good_copy = None          # a lock on what may be fallen back to
        self.callers = set()
        self._respawn = None

    @property
    def program(self):
        """(interpreter, binary) that daemons are started from."""
        return self.updates.program

    # -- start and end -------------------------------------------------------------------

    def open(self, await_deposit):
        """Bind the sockets, watch signals; with `await_deposit` a daemon lives already."""
        self._watch_signals()
        self._open_guard_listener()
        if await_deposit:
            self.deposit.await_one()
        else:
            self._open_listener()

    def _watch_signals(self):
        fd, self._read_signals = self.backend.watch_signals(WATCHED)
        self.backend.ignore_signals(("SIGHUP", "SIGINT", "SIGQUIT", "SIGPIPE", "SIGTSTP"))
        self.loop.watch(fd, self.hear_signals, READABLE)

    def _open_guard_listener(self):
        self.guard_listener = self.backend.listen(self.paths.guard_socket)
        self.loop.watch(self.guard_listener.fileno(), self.on_guard_connection, READABLE)

    def _open_listener(self):
        if self.listener is None:
            self.listener = self.backend.listen(self.paths.client_socket)
            self.loop.watch(self.listener.fileno(), self.on_client_waits, 0)

    def _close_listener(self):
        if self.listener is not None:
            self.loop.forget(self.listener.fileno())
            self.listener.close()
            self.listener = None
            _unlink(self.paths.client_socket)

    def run(self):
        """Serve until stopped.

        Whatever goes wrong in one act, the sessions are worth more than a clean end:
        it is logged and the loop goes on.  Readiness is level-triggered, so nothing is
        forgotten by that.
        """
        while not self.loop.is_stopped:
            try:
                self.loop.run()
            except Exception as error:      # the one place that may catch everything
                self.log("act_failed", error=repr(error))
                time.sleep(FAILED_ACT_PAUSE_S)

    def _finish(self):
        """Leave: only ever with no living session and no daemon."""
        self._close_listener()
        self.loop.forget(self.guard_listener.fileno())
        self.guard_listener.close()
        _unlink(self.paths.guard_socket)
        for held in list(self.sessions.values()):
            self.release(held)
        self.log("stopped")
        self.loop.stop()

    # -- signals and children ------------------------------------------------------------

    def hear_signals(self, _bits=0):
        for name in self._read_signals():
            if name == "SIGUSR1":
                self._make_sockets_again()
            elif name == "SIGTERM":
                self._on_term()
        self._reap()

    def _reap(self):
        for pid, raw in self.backend.reap_children():
            # The system tells each end once: an act of its own, so that no other's failure
            # costs it its turn.
            self.loop.soon(lambda pid=pid, raw=raw: self._on_child_end(pid, raw))

    def _on_term(self):
        living = self.living()
        self.log("signal", name="SIGTERM", living=living)
        # With sessions, SIGTERM is not an order that we take.
        if not living and self._daemon_state() != "depositing":
            self._stop(None, None)

    def _make_sockets_again(self):
        """A client found us alive and our sockets gone: somebody cleaned the directory."""
        self.log("sockets_remade")
        try:
            os.makedirs(self.paths.place, mode=0o700, exist_ok=True)
            if not os.path.exists(self.paths.guard_socket):
                self._replace_guard_listener()
            if self.listener is not None and not os.path.exists(self.paths.client_socket):
                self._replace_listener()
        except (OSError, PtyguardError) as error:
            self.log("sockets_not_remade", error=str(error))

    # The new one first: should it fail, the old one is better than none.

    def _replace_guard_listener(self):
        new = self.backend.listen(self.paths.guard_socket)
        self.loop.forget(self.guard_listener.fileno())
        self.guard_listener.close()
        self.guard_listener = new
        self.loop.watch(new.fileno(), self.on_guard_connection, READABLE)

    def _replace_listener(self):
        new = self.backend.listen(self.paths.client_socket)
        self.loop.forget(self.listener.fileno())
        self.listener.close()
        self.listener = new
        is_ours = self.daemon is None and self.keep_stopped     # it is us who wait there
        self.loop.watch(new.fileno(), self.on_client_waits, READABLE if is_ours else 0)
        for daemon in (self.daemon, self.successor):
            if daemon and daemon.link:
                self.welcome(daemon)

    def _on_child_end(self, pid, raw):
        for daemon in (self.daemon, self.successor):
            if daemon and daemon.is_child and daemon.pid == pid:
                self._hear_last_words(daemon)
                if daemon in (self.daemon, self.successor):
                    self._on_daemon_end(daemon, raw)
                return
        for held in self.sessions.values():
            if held.pid == pid and held.is_child and held.is_living:
                self.on_session_end(held, raw, True)
                return

    def _hear_last_words(self, daemon):
        """Its death may be known before all is read that it said: metadata, releases,
        which sessions it could open."""
        if daemon.link:
            daemon.link.hear_out()

    def on_session_end(self, held, raw, is_known):
        held.exit = (raw, int(is_known), int(time.time() * _MS))
        self.foreign.forget(held)
        if self.spawns.is_starting(held):
            return                      # the status pipe tells what became of it
        self.log("session_ended", session=held.id, pid=held.pid, status=raw, known=int(is_known))
        self.tell_exit(held)

    def tell_exit(self, held):
        for daemon in (self.daemon, self.successor):
            if daemon and daemon.link and (held.id in daemon.given or held.is_quarantined):
                daemon.link.send(wire.EXITED, session=held.id, pid=held.pid,
                                 spawn_number=held.spawn_number, **exit_fields(held))

    # -- the daemon's life ---------------------------------------------------------------

    def start_daemon(self, program=None, cause=None):
        """Start one, as the daemon or as the successor of the one that serves."""
        cause = cause or self.cause
        if self._respawn is not None:
            self._respawn.cancel()
            self._respawn = None
        self.keep_stopped = False
        interpreter, binary = program or self.program
        try:
            self._open_listener()
            self.loop.change(self.listener.fileno(), 0)
            self.maybe_restore(binary)
            pid, ours = self._launch_daemon(interpreter, binary)
        except (OSError, PtyguardError) as error:
            # No descriptors, no processes, a full disk: it may be better in a while.
            why = f"{interpreter} cannot be run: {error}"
            self.log("daemon_not_started", program=interpreter, error=str(error))
            if isinstance(error, OSError) and error.errno in _PROGRAM_FAULTS:
                self.updates.failed((interpreter, binary), cause.version, why)
            self._failed(why)
            if self.daemon is None:
                self._schedule(False, why)
            return
        daemon = DaemonProcess(pid, self.start_of(pid), True, (interpreter, binary), cause)
        daemon.link = Link(self.backend, self.loop, ours, self.on_daemon_message,
                           self.on_daemon_link_end)
        limit = READY_LIMIT_S
        if self.daemon is None:
            self.daemon = daemon
        else:
            self.successor = daemon
            limit = READY_LIMIT_BESIDE_S
        daemon.timer = self.loop.after(limit, lambda: self._end_daemon(daemon, NOT_READY))
        self.log("daemon_started", pid=pid, binary=binary, sessions=len(self.sessions))
        self.welcome(daemon)
        daemon.link.feed(self._table(daemon, wire.TABLE_END))

    def maybe_restore(self, binary):
        """Somebody removed the private copy that we run from ourselves: write it again."""
        if binary != self.own_binary or self.copy is None or os.path.exists(binary):
            return
        draft = f"{binary}.tmp-{os.urandom(6).hex()}"
        os.makedirs(os.path.dirname(binary), mode=0o700, exist_ok=True)
        fd = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with open(fd, "wb") as file:
            file.write(os.pread(self.copy, os.fstat(self.copy).st_size, 0))
        os.rename(draft, binary)
        self.log("copy_restored", binary=binary)

    def start_of(self, pid):
        try:
            return self.backend.process_start(pid)
        except OSError:
            return None                 # asked again when it matters

    def _launch_daemon(self, interpreter, binary):
        """(pid, our end of the link)."""
        ours, theirs = self.backend.socket_pair()
        argv = [interpreter, "-I", "-S", binary, "__daemon", self.paths.root, *self.settings]
        try:
            pid = self.backend.launch(argv, _plain_environment(), (theirs.fileno(),),
                                      self.paths.daemon_log, detach=False)
        except OSError:
            ours.close()
            raise
        finally:
            theirs.close()
        return pid, ours

    def welcome(self, daemon):
        daemon.link.send(wire.WELCOME, descriptors=(self.listener.fileno(),),
                         version=OURS, wire=wire.WIRE_VERSION, guard_pid=os.getpid(),
                         guard_start=self.own_start, has_listener=1, beside=int(daemon is self.successor),
                         started_at_ms=int(self.started_at * _MS))

    def _table(self, daemon, *then):
        """Everything we hold, as messages for a feed; descriptors only for what it does
        not have yet.  `then` are the messages' types that follow."""
        same = []
        for held in list(self.sessions.values()):
            if held.id not in self.sessions or self.spawns.is_starting(held):
                continue
            if daemon.keeps and daemon.told.get(held.id) == held.facts():
                same.append(held.id)
            else:
                yield self.session_message(daemon, held)
        for type_ in then:
            yield type_, (), {"same": same} if same else {}

    def session_message(self, daemon, held):
        descriptors = ()
        if held.id not in daemon.given and not held.is_quarantined:
            descriptors = (held.ring,) + ((held.master,) if held.master >= 0 else ())
            daemon.given.add(held.id)
            daemon.unopened.append(held.id)
        daemon.told[held.id] = held.facts()
        return wire.SESSION, descriptors, dict(
            exit_fields(held), session=held.id, blob=held.blob, pid=held.pid,
            pid_start=held.pid_start, spawn_number=held.spawn_number,
            has_terminal=int(held.master >= 0), input=held.input or None,
            launch=held.launch or None,
            quarantined=int(held.is_quarantined))

    def _last_table(self, daemon):
        """The table once more, and GO.  What was typed and not written goes with it: from
        then on it may be lost, not doubled."""
        for message in self._table(daemon, wire.TABLE_END):
            yield message
            for id_ in message[2].get("same") or [message[2].get("session")]:
                if id_ in self.sessions:
                    self.sessions[id_].input = b""
        daemon.told.clear()
        daemon.has_gone = True
        yield wire.GO, (), dict(self.ownership, prev=self.last_version or None,
                                after=daemon.cause.after or None, by=daemon.cause.by or None)

    def _go(self, daemon):
        """Rule 4's last step."""
        daemon.state = daemon.SERVING
        daemon.timer.cancel()
        self.daemon = daemon
        self.successor = None
        daemon.serving_since = self.loop.clock()
        self._take_over_program(daemon)
        daemon.link.feed(self._last_table(daemon), is_joined=False)      # what was not sent is not lost
        self.last_version = daemon.version
        self.cause = Cause("death")
        self.circuit.became_ready()
        self.log("daemon_serving", pid=daemon.pid, version=daemon.version)
        self._tell_update()
        self.wake_waiters(None)

    def _take_over_program(self, daemon):
        """What it runs from is what daemons run from; what was before, is kept for a while."""
        if self.updates.took_over(daemon.program, _version(daemon), self.loop.clock(),
                                  self.last_version.decode("ascii", "replace"), daemon.cause.is_asked):
            self.keep_good_copy()
            self.loop.after(PROBATION_S + 1.0, self._end_probation)

    def _end_probation(self):
        if self.updates.prove(self.loop.clock()):
            self.keep_good_copy()

    def keep_good_copy(self):
        """Whoever sweeps old copies leaves a locked one alone."""
        if self._good_copy is not None:
            os.close(self._good_copy)
            self._good_copy = None
        if self.updates.good is not None:
            try:
                self._good_copy = self.backend.try_lock(self.updates.good[1], "guard", shared=True)
            except OSError as error:
                self.log("copy_not_kept", binary=self.updates.good[1], error=str(error))

    def _tell_update(self):
        """What is known of newer versions, for the daemon's hello."""
        if self.daemon is not None and self.daemon.link:
            self.daemon.link.send(wire.UPDATE, **self._update_fields())

    def _update_fields(self):
        return {"newest": self.updates.newest, "deferred": self.updates.deferred,
                "update_failure": self.updates.failure}

    def _on_ready(self, daemon, message):
        daemon.was_ready = True
        daemon.version = message.bytes("version")
        daemon.keeps = bool(message.number("keeps"))
        daemon.timer.cancel()
        daemon.state = daemon.READY
        if daemon is self.daemon:
            self._go(daemon)
        elif self.daemon.state == DaemonProcess.SERVING:
            before = self.daemon
            before.state = before.QUIESCING
            _call_off(before.ping)
            before.link.send(wire.QUIESCE)
            before.timer = self.loop.after(
                QUIESCE_LIMIT_S, lambda: self._end_daemon(before, "did not stop reading in time"))

    def _on_quiesced(self, before):
        """The predecessor reads no more and its metadata is here; it leaves by itself."""
        before.timer.cancel()
        before.state = before.LEAVING
        if self._lost_successor():          # it died in the meantime: the old one is done too
            self._end_daemon(before, SUCCESSOR_GONE)
            return
        self.forget_daemon(before)
        self.loop.after(QUIT_LIMIT_S, lambda: self._see_off(before))
        self._go(self.successor)

    def _see_off(self, before):
        """It has let go of everything; should it not end by itself, it is ended."""
        if before.start is not None and self.start_of(before.pid) == before.start:
            self._end_daemon(before, "it has left and does not end")

    def _lost_successor(self):
        """Whether there is none (any more): the system may know of its death before we do."""
        if self.successor is not None and self.start_of(self.successor.pid) is None:
            self._reap()
            return True
        return self.successor is None

    def _end_daemon(self, daemon, why):
        """Kill one, verified; its end is then noticed as any other."""
        daemon.end_note = why
        self.log("daemon_killed", pid=daemon.pid, reason=why)
        if daemon.start is None and daemon.is_child:
            daemon.start = self.start_of(daemon.pid)   # not reaped, so the pid is still its own
        self.backend.signal_process(daemon.pid, daemon.start, self.backend.signal_number("KILL"))
        if not daemon.is_child and daemon.link:
            daemon.link.close(why)

    def on_daemon_link_end(self, link, reason):
        for daemon in (self.daemon, self.successor):
            if daemon and daemon.link is link:
                break
        else:
            return
        if not daemon.is_child and daemon.state == daemon.READY:
            self.deposit.abandon(daemon)
        elif not daemon.is_child:           # nobody reports its end to us
            self.backend.signal_process(daemon.pid, daemon.start,
                                        self.backend.signal_number("KILL"))
            self._on_daemon_end(daemon, None)
        else:
            # Mostly it is exiting just now, and its status says more than our
            # kill; but one that lives on and cannot be talked to serves nobody.
            self.loop.after(LINK_GRACE_S, lambda: self._end_if_current(daemon))

    def _end_if_current(self, daemon):
        if daemon in (self.daemon, self.successor):
            self._end_daemon(daemon, LINK_CLOSED)

    def forget_daemon(self, daemon):
        _call_off(daemon.timer)
        _call_off(daemon.ping)
        link, daemon.link = daemon.link, None
        if link:
            link.close("its daemon is gone")
        if self.daemon is daemon:
            self.daemon = None
        if self.successor is daemon:
            self.successor = None

    def _on_daemon_end(self, daemon, raw):
        is_successor = daemon is self.successor
        # Of one that is not our child only the end is seen; nothing is held against it.
        code, number = self.backend.decode_status(raw) if raw is not None else (None, 9)
        was_killed = daemon.was_ready and number == 9 and daemon.end_note in ("", SUCCESSOR_GONE)
        cause = daemon.end_note or ("its status cannot be known" if raw is None else
                                    f"exit status {code}" if number is None else
                                    f"killed by {self.backend.signal_name(number)}")
        self.log("daemon_ended", pid=daemon.pid, cause=cause, was_ready=int(daemon.was_ready))
        if number != 9 and daemon.unopened and daemon.has_gone:
            self._blame(daemon.unopened[0])
        state = daemon.state
        self.forget_daemon(daemon)
        if not is_successor and state == DaemonProcess.SERVING:
            self.cause = Cause(daemon.end_note or "death")
        if self.is_stopping:
            if self.daemon is None and self.successor is None:
                self._stopped()
        elif is_successor:
            if _is_to_blame(daemon, number):
                self.updates.failed(daemon.program, daemon.cause.version, cause)
            self._tell_update()
            self._failed(cause)
        elif self.keep_stopped and state == DaemonProcess.LEAVING:
            self._rest()
        elif self.successor is not None:
            if self.successor.state == DaemonProcess.READY:
                self._go(self.successor)
            else:
                self._promote_unready()
        else:
            if not daemon.was_ready:
                if _is_to_blame(daemon, number):
                    self.updates.failed(daemon.program, daemon.cause.version, cause)
                self._failed(cause)
            elif _is_to_blame(daemon, number):      # also one to which the go could not be sent any more
                self._maybe_fall_back(daemon, cause)
            self._schedule(was_killed, cause)

    def _maybe_fall_back(self, daemon, cause):
        """One that has just taken over and dies is followed by what worked before."""
        if self.updates.died(_version(daemon), f"it took over and then died: {cause}",
                             self.loop.clock()):
            self.cause = Cause("fall-back")
            self.log("fell_back", binary=self.program[1], cause=cause)
            self.keep_good_copy()

    def _promote_unready(self):
        """The predecessor died while its successor rehearses: now nobody else serves."""
        self.daemon, self.successor = self.successor, None
        self.daemon.timer.cancel()
        self.daemon.timer = self.loop.after(
            READY_LIMIT_S, lambda d=self.daemon: self._end_daemon(d, NOT_READY))

    def _blame(self, id_):
        held = self.sessions.get(id_)
        if held is not None:
            held.deaths += 1
            self.log("daemon_died_opening", session=id_, deaths=held.deaths,
                     quarantined=int(held.is_quarantined))

    def _schedule(self, was_killed, cause):
        """The one that served is gone: start another, now or when the circuit says."""
        start_at = self.circuit.died(self.loop.clock(), was_killed, cause)
        if self.circuit.is_open:
            self._close_listener()
            self.log("circuit_open", reason=cause, retry_in_s=int(start_at - self.loop.clock()))
        if not was_killed:
            self.last_failure = cause
        self._respawn = self.loop.at(start_at, self._restart_if_none)

    def _restart_if_none(self):
        if self.daemon is None and not self.is_stopping and not self.deposit.is_awaited:
            self.start_daemon()

    def _failed(self, cause):
        """A start did not work: tell whoever waits, with what the log says."""
        self.last_failure = cause
        text = f"the daemon did not start: {cause}; log {self.paths.daemon_log} ends:\n" \
               + tail(self.paths.daemon_log, 2000)
        self.wake_waiters(text)

    def wake_waiters(self, error):
        waiters, self.waiters = self.waiters, []
        for wake in waiters:
            wake(error)

    def _rest(self):
        """No daemon on purpose: a client at the listener wakes one.  Nobody holds that one."""
        self.wake_waiters("it was stopped")
        self.cause = Cause("stop")
        self.ownership = {"owner": self.ownership.get("owner", b"")}
        self.loop.change(self.listener.fileno(), READABLE)

    def on_client_waits(self, _bits):
        self._restart_if_none()

    # -- what the daemon says ------------------------------------------------------------

    def on_daemon_message(self, link, message):
        daemon = next((d for d in (self.daemon, self.successor) if d and d.link is link), None)
        act = self._DAEMON_VERBS.get(message.type)
        if daemon is None or act is None or message.descriptors:
            close_all(message.descriptors)
            if message.serial:
                link.send(wire.REFUSED, message.serial, text=f"{message.name} is not known here")
            return
        act(self, daemon, message)

    def _say_adopted(self, daemon, message):
        id_ = session_id(message)
        if id_ in daemon.unopened:
            daemon.unopened.remove(id_)
            if id_ in self.sessions and self.sessions[id_].deaths < QUARANTINE_DEATHS:
                self.sessions[id_].deaths = 0
            if daemon.unopened:         # a thousand of these: each would wake us, and stop the daemon for it
                daemon.link.rest(ADOPTED_REST_S)

    def _say_blob(self, daemon, message):
        held = self.sessions.get(session_id(message))
        if held is not None:
            held.blob = message.bytes("blob", held.blob)
            held.input = message.bytes("input", held.input)

    def _say_release_terminal(self, _daemon, message):
        held = self.sessions.get(session_id(message))
        if held is not None:
            self.release_terminal(held)

    def _say_release(self, daemon, message):
        held = self.sessions.get(session_id(message))
        if held is None or held.is_living or self.spawns.is_starting(held):
            link_text = "no such session" if held is None else "its program lives"
            daemon.link.send(wire.REFUSED, message.serial, text=link_text)
            return
        self.release(held)
        self.spawns.take_back(held)
        daemon.link.send(wire.OK, message.serial)

    def _say_quiesced(self, daemon, message):
        daemon.has_quiesced = True
        daemon.link.send(wire.OK, message.serial)
        if daemon.state == daemon.QUIESCING:
            self._on_quiesced(daemon)

    def _say_pong(self, daemon, _message):
        _call_off(daemon.ping)

    def _say_ownership(self, _daemon, message):
        self.ownership = {name: message.fields[name] for name in wire.OF_OWNERSHIP
                          if name in message.fields}

    def _say_stopping(self, daemon, message):
        """It has nothing to do any more: we neither, unless something lives."""
        keeps = message.bytes("mode") == b"keep"
        if self.is_stopping or daemon.state != daemon.SERVING or (self.living() and not keeps):
            daemon.link.send(wire.REFUSED, message.serial, kind="busy", text="not now")
            return
        self.log("orphaned" if keeps else "idle_exit", living=self.living())
        if self.living():
            self._stop_daemon_only(daemon.link, message, QUIT_LIMIT_S, True)
        else:
            self._stop(None, None)

    def release_terminal(self, held):
        for fd in (held.master, held.slave):
            if fd >= 0:
                os.close(fd)
        held.master = held.slave = -1

    def release(self, held):
        self.release_terminal(held)
        os.close(held.ring)
        del self.sessions[held.id]

    # -- guard.sock ----------------------------------------------------------------------

    def on_guard_connection(self, _bits):
        try:
            sock, _ = self.guard_listener.accept()
        except OSError as error:
            self.log("accept_failed", socket="guard", error=str(error))
            self.loop.change(self.guard_listener.fileno(), 0)
            self.loop.after(ACCEPT_PAUSE_S, lambda: self.loop.change(
                self.guard_listener.fileno(), READABLE))
            return
        sock.setblocking(False)
        if self.backend.peer_user(sock) != self.backend.user_id():
            self.log("peer_refused", socket="guard", uid=self.backend.peer_user(sock))
            sock.close()
            return
        if len(self.callers) >= CALLERS_MAX:
            sock.close()
            return
        link = Link(self.backend, self.loop, sock, self._on_caller_message,
                    self._on_caller_end, CALLER_MESSAGE_MAX)
        link.queue_max = CALLER_QUEUE_MAX
        link.peer_pid = self.backend.peer_process(sock)
        self.callers.add(link)
        self.loop.after(CALLER_LIMIT_S, lambda: self._dismiss(link))

    def _dismiss(self, link):
        if link in self.callers:
            link.close("nothing more to say")

    def _on_caller_message(self, link, message):
        act = self._CALLER_VERBS.get(message.type)
        if act is None or (message.descriptors != [] and message.type not in self._CARRIERS):
            close_all(message.descriptors)
            if message.serial:
                link.send(wire.REFUSED, message.serial, text=f"{message.name} is not known here")
            return
        act(self, link, message)

    def _on_caller_end(self, link, _reason):
        self.callers.discard(link)

    def _ask_state(self, link, message):
        link.send(wire.GUARD_STATE, message.serial, **self._state_fields())

    def _state_fields(self):
        daemon = self.daemon
        fields = {
            "version": OURS, "wire": wire.WIRE_VERSION, "guard_pid": os.getpid(),
            "guard_start": self.own_start,
            "started_at_ms": int(self.started_at * _MS),
            "daemon_state": self._daemon_state(), "sessions": len(self.sessions),
            "living": self.living(), "reason": self.circuit.reason if self.circuit.is_open else "",
            "deaths": self.circuit.recent_deaths, "last_failure": self.last_failure,
            "binary": (self.daemon or self).program[1], "interpreter": (self.daemon or self).program[0],
        }
        fields.update(self._update_fields(), guard_binary=self.own_binary)
        if self.circuit.is_open:
            left_s = max(0.0, self.circuit.retry_at - self.loop.clock())
            fields["retry_at_ms"] = int((time.time() + left_s) * _MS)
        if daemon is not None:
            fields.update(daemon_pid=daemon.pid, daemon_start=daemon.start,
                          daemon_version=daemon.version,
                          daemon_started_at_ms=int(daemon.started_at * _MS))
        return fields

    def _daemon_state(self):
        if self.circuit.is_open:
            return "circuit-open"
        if self.is_stopping:
            return "stopping"
        if self.deposit.is_awaited or self.daemon and not self.daemon.is_child \
                and self.daemon.state == DaemonProcess.READY:
            return "depositing"         # it serves, and we do not hold everything yet
        if self.daemon is not None:
            return self.daemon.state
        return "stopped" if self.keep_stopped else "dead"

    def living(self):
        return sum(held.is_living for held in self.sessions.values())

    def _ask_start(self, link, message):
        """OK once a daemon serves, REFUSED with the cause when the attempt failed."""
        if self.is_stopping:
            link.send(wire.REFUSED, message.serial, text="the guard is stopping")
            return
        if self.circuit.is_open:
            link.send(wire.REFUSED, message.serial, kind="circuit-open", text=self._circuit_text())
            return
        if self.daemon is not None and self.daemon.state == DaemonProcess.SERVING:
            link.send(wire.OK, message.serial)
            return
        self._await_daemon(link, message)
        if self.daemon is None:
            self._restart_if_none()

    def _circuit_text(self):
        wait = max(0, int(self.circuit.retry_at - self.loop.clock()))
        return (f"the daemon died {self.circuit.recent_deaths} times ({self.circuit.reason}); "
                f"the next try is in {wait} s; log {self.paths.daemon_log} ends:\n"
                + tail(self.paths.daemon_log, 2000))

    def _await_daemon(self, link, message):
        def wake(error):
            if error is None:
                self._answer_serving(link, message)
            else:
                link.send(wire.REFUSED, message.serial, text=error)
        self.waiters.append(wake)

    def _answer_serving(self, link, message):
        link.send(wire.OK, message.serial, binary=(self.daemon or self).program[1],
                  daemon_version=self.daemon.version if self.daemon else b"")

    def _ask_offer(self, link, message):
        """A newer version is here: may it come?"""
        is_news = self.updates.is_news(message.text("version"), message.text("mode"),
                                       self.last_version.decode("ascii", "replace"))
        if not is_news or not self._defer(link, message):
            link.send(wire.OK, message.serial)

    def _defer(self, link, message):
        """Whether that offer has to wait; then it is answered, and noted."""
        version, mode = message.text("version"), message.text("mode")
        running = self.last_version.decode("ascii", "replace")
        living = self.living() + len(self.spawns.going)
        why = self.updates.why_not(version, mode, running, living)
        if not why:
            return False
        if self.updates.defer(version, running, why):
            self.log("deferred", reason=why, running=running, newest=version, living=living,
                     by=link.peer_pid)
        self._tell_update()
        link.send(wire.REFUSED, message.serial, kind="deferred", text=why)
        return True

    def _is_done_already(self, message):
        """Whether what serves is what an offer was for, or later: somebody else was quicker."""
        if self.daemon is None or self.daemon.state != DaemonProcess.SERVING \
                or not message.bytes("binary"):
            return False
        return message.bytes("binary") == os.fsencode(self.daemon.program[1]) or not self.updates.is_news(
            message.text("version"), message.text("mode"), _version(self.daemon))

    def _ask_restart(self, link, message):
        """Replace the daemon; a circuit that is open is closed by it.

        With a MODE nobody asked for it: it may have to wait, and what one of many clients
        has brought about is enough for all.
        """
        if message.bytes("mode") and self.successor is None:
            if self._is_done_already(message):
                self._answer_serving(link, message)
                return
            if self._defer(link, message):
                return
        if self.is_stopping or self.successor is not None or self._daemon_state() == "depositing":
            self._await_daemon(link, message)
            return
        program = self.program
        if message.bytes("binary") and message.bytes("interpreter"):
            program = (os.fsdecode(message.bytes("interpreter")),
                       os.fsdecode(message.bytes("binary")))
        cause = Cause(message.text("after") or "restart", link.peer_pid or 0, message.text("version"),
                      not message.bytes("mode") and bool(message.text("version")))
        if not message.bytes("mode"):
            self.circuit.reset()
            self.last_failure = ""
            for held in self.sessions.values():
                held.deaths = 0             # an operator's word is worth another try
        self._await_daemon(link, message)
        if self.daemon is None or self.daemon.state == DaemonProcess.SERVING:
            self.start_daemon(program, cause)

    def _ask_stop(self, link, message):
        """MODE keep: only the daemon leaves.  MODE all: everything, if nothing lives."""
        if self._daemon_state() == "depositing":
            link.send(wire.REFUSED, message.serial, kind="busy",
                      text="a daemon is just giving its sessions to a new guard")
            return
        mode = message.bytes("mode")
        if mode == b"all" and self.living():
            link.send(wire.REFUSED, message.serial, kind="busy", living=self.living(),
                      text=f"{self.living()} sessions live")
            return
        timeout_s = message.number("timeout_ms", 5 * _MS) / _MS
        force = bool(message.number("force"))
        if mode == b"keep":
            self._stop_daemon_only(link, message, timeout_s, force)
        elif mode == b"all":
            self._stop(timeout_s, lambda text: _answer(link, message, text), force)
        else:
            link.send(wire.REFUSED, message.serial, text=f"mode {mode!r}")

    def _stop_daemon_only(self, link, message, timeout_s, force):
        if self.successor is not None:
            self._end_daemon(self.successor, "stopped while starting")
        daemon = self.daemon
        self.keep_stopped = True
        if daemon is not None and daemon.state == daemon.LEAVING:
            self._await_end(daemon, timeout_s, force, lambda text: _answer(link, message, text))
            return
        if daemon is None or daemon.state != daemon.SERVING:
            if self._respawn is not None:
                self._respawn.cancel()
            if daemon is not None:
                self._end_daemon(daemon, "stopped while starting")
                daemon.state = daemon.LEAVING
            else:
                try:
                    self._open_listener()
                except (OSError, PtyguardError) as error:
                    link.send(wire.REFUSED, message.serial, text=str(error))
                    return
                self._rest()
            link.send(wire.OK, message.serial)
            return
        daemon.link.send(wire.QUIT)
        daemon.state = daemon.LEAVING
        self.log("daemon_stop_asked", pid=daemon.pid)
        self._await_end(daemon, timeout_s, force, lambda text: _answer(link, message, text))

    def _await_end(self, daemon, timeout_s, force, answer):
        """Answer when that daemon has gone; after the time kill it, if that is allowed."""
        deadline = self.loop.clock() + timeout_s

        def look():
            if self.daemon is not daemon:
                answer(None)
            elif self.loop.clock() < deadline:
                self.loop.after(0.02, look)
            elif force:
                self._end_daemon(daemon, "did not leave in time")
                self.loop.after(0.02, lambda: wait_dead())
            else:
                daemon.state = daemon.SERVING
                self.keep_stopped = False
                self.wake_waiters("a stop came before, and was given up: try again")
                answer(f"daemon {daemon.pid} did not leave in {timeout_s:g} s")

        def wait_dead():
            if self.daemon is daemon:
                self.loop.after(0.02, wait_dead)
            else:
                answer(None)

        look()

    def _stop(self, timeout_s, answer, force=True):
        """Leave with everything: nothing lives any more."""
        self.log("stopping", kept=len(self.sessions))
        self.is_stopping = True
        self._stop_answer = answer
        self._close_listener()          # nobody new gets in; the lock keeps others out
        if self._respawn is not None:
            self._respawn.cancel()
        leaving = [d for d in (self.daemon, self.successor) if d]
        for daemon in leaving:
            if daemon.link and daemon.state == daemon.SERVING:
                daemon.link.send(wire.QUIT)
                self.loop.after(QUIT_LIMIT_S if timeout_s is None else timeout_s,
                                lambda d=daemon: self._give_up(d, force))
            else:
                self._end_daemon(daemon, "the guard stops")
        if not leaving:
            self._stopped()

    def _give_up(self, daemon, force):
        if self.daemon is not daemon:
            return
        if force:
            self._end_daemon(daemon, "did not leave in time")
            return
        self.is_stopping = False
        try:
            self._open_listener()
            self.welcome(daemon)
        except (OSError, PtyguardError) as error:
            self.log("listener_not_reopened", error=str(error))
        self.wake_waiters("a stop came before, and was given up: try again")
        if self._stop_answer:
            self._stop_answer(f"daemon {daemon.pid} did not leave in time")

    def _stopped(self):
        if self._stop_answer:
            self._stop_answer(None)
        self.loop.soon(self._finish)

    def _ask_deaf(self, link, message):
        """A client waits for its hello: ping, once for all who ask."""
        daemon = self.daemon
        link.send(wire.OK, message.serial)
        if daemon is None or daemon.state != daemon.SERVING or not daemon.link:
            return
        # What a client has waited says nothing of a daemon that serves for less.
        if message.number("timeout_ms") >= HELLO_LIMIT_S * _MS \
                and self.loop.clock() - daemon.serving_since >= HELLO_LIMIT_S:
            self._reject(daemon)
            return
        if daemon.ping and daemon.ping.act is not None:
            return                      # one is under way already
        daemon.link.send(wire.PING)
        self.log("daemon_pinged", pid=daemon.pid)
        daemon.ping = self.loop.after(PONG_LIMIT_S, lambda: self._reject(daemon))

    def _reject(self, daemon):
        """It is deaf.  Its sessions are here; the next one adopts them."""
        self.log("adopt_rejected", reason="version_probe_failed", pid=daemon.pid)
        self._end_daemon(daemon, DEAF)

    # -- another program for ourselves ---------------------------------------------------

    def _ask_reexec(self, link, message):
        """Become another program in place; it answers, if all goes well."""
        interpreter, binary = message.bytes("interpreter"), message.bytes("binary")
        if not (interpreter and binary):
            link.send(wire.REFUSED, message.serial, stage="request", text="no program is named")
        elif self.reexec is not None:
            link.send(wire.REFUSED, message.serial, kind="busy", text="it is being replaced already")
        else:
            self.reexec = Reexec(self, (os.fsdecode(interpreter), os.fsdecode(binary)), link,
                                 message.serial)
            self.reexec.begin()

    def why_not_quiet(self):
        """What keeps us from being frozen just now; "" when nothing does."""
        if self.is_stopping or self.listener is None:
            return "the guard is stopping"
        if self.loop.has_soon:
            return "a program has just ended"
        if self.spawns.going:
            return "a program is being started"
        if self._daemon_state() not in ("serving", "stopped") or self.successor or self.waiters:
            return f"the daemon is {self._daemon_state()}"
        if self.daemon is not None and not self.daemon.link.is_quiet:
            return "the daemon is being told something"
        return ""

    def environment(self):
        """What processes of ours are started with."""
        return _plain_environment()

    def descriptors(self):
        """Those that another program in our place goes on with."""
        found = [*self.locks, self.listener.fileno(), self.guard_listener.fileno()]
        if self.daemon is not None:
            found.append(self.daemon.link.fileno())
        for held in self.sessions.values():
            found += [fd for fd in (held.ring, held.master, held.slave) if fd >= 0]
        return found

    def go_on(self):
        """Thawed: say who we are, and hear what happened meanwhile."""
        self._watch_signals()
        self.keep_good_copy()
        if self.updates.good is not None:
            self.loop.after(self.updates.probation_s(self.loop.clock()) + 1.0, self._end_probation)
        if self.daemon is not None:
            self.welcome(self.daemon)
            self._tell_update()
        # Last: the system tells each end once, and there is no way back from here.
        self.backend.unblock_signals(WATCHED)
        self._reap()

    def answer_reexec(self, frozen, failure):
        """Tell who asked for us."""
        link, serial = adopt_caller(self, frozen, self._on_caller_message, self._on_caller_end,
                                    CALLER_MESSAGE_MAX)
        link.queue_max = CALLER_QUEUE_MAX
        self.callers.add(link)
        self.loop.after(CALLER_LIMIT_S, lambda: self._dismiss(link))
        if failure:
            link.send(wire.REFUSED, serial, text=failure)
        else:
            link.send(wire.OK, serial, version=OURS, binary=self.own_binary)

    # -- who says what -------------------------------------------------------------------

    _DAEMON_VERBS = {
        wire.READY: _on_ready, wire.BLOB: _say_blob,
        wire.SPAWN: lambda guard, *said: guard.spawns.say_spawn(*said),
        wire.RESPAWN: lambda guard, *said: guard.spawns.say_respawn(*said),
        wire.ADOPTED: _say_adopted, wire.RELEASE_TERMINAL: _say_release_terminal,
        wire.RELEASE: _say_release, wire.QUIESCED: _say_quiesced, wire.PONG: _say_pong,
        wire.STOPPING: _say_stopping, wire.OWNERSHIP: _say_ownership,
    }
    _CALLER_VERBS = {
        wire.STATE: _ask_state, wire.START_DAEMON: _ask_start, wire.STOP: _ask_stop,
        wire.RESTART: _ask_restart, wire.DEAF: _ask_deaf,
        wire.DEPOSIT: lambda guard, *said: guard.deposit.ask(*said),
        wire.OFFER: _ask_offer, wire.REEXEC: _ask_reexec,
    }
    _CARRIERS = (wire.DEPOSIT,)


def _answer(link, message, error):
    if error is None:
        link.send(wire.OK, message.serial)
    else:
        link.send(wire.REFUSED, message.serial, text=error)


def _is_to_blame(daemon, signal_number):
    """Whether that end speaks against its program: not a kill, nor an end that was asked for."""
    if daemon.end_note:
        return daemon.end_note in (NOT_READY, LINK_CLOSED, DEAF)
    return signal_number != 9 and not daemon.has_quiesced


def _call_off(timer):
    if timer is not None:
        timer.cancel()


def _version(daemon):
    return daemon.version.decode("ascii", "replace")


def _unlink(path):
    try:
        os.unlink(path)
    except OSError:
        pass


def _plain_environment():
    """HOME, PATH and LANG only: nothing of whoever started us lives on in here."""
    return {name: os.environ[name] for name in ("HOME", "PATH", "LANG") if name in os.environ}


def main(backend, argv, binary):
    """The guard process: `argv` is [root, setting...]; descriptor 3 tells the launcher.

    It writes there "ready" once a daemon serves (or a deposit is awaited), else
    "failed" and the reason, and closes it.
    """
    import sys
    report, root, settings = 3, argv[0], argv[1:]
    paths = backend.find_paths(root)
    journal = Journal(paths.guard_log, "guard", time.time)
    # Once the lock has our name, a client that finds no sockets may signal us.
    backend.ignore_signals(("SIGUSR1",))
    lock = backend.try_lock(paths.guard_lock, "guard")
    if lock is None:
        os.write(report, b"taken " + backend.lock_holder(paths.guard_lock).encode())
        return 0
    copy_lock = backend.try_lock(binary, "guard", shared=True)
    # Cleaners of /tmp leave a locked directory alone (systemd-tmpfiles(8), tmpfiles.d(5)).
    place_lock = backend.try_lock(paths.place, "guard", shared=True)
    journal.banner(version=OURS, wire=wire.WIRE_VERSION, pid=os.getpid(),
                   python=sys.version.split()[0], platform=sys.platform,
                   poller=backend.poller_name(), binary=binary)
    guard = Guard(backend, paths, (sys.executable, binary), settings, journal)
    guard.copy = copy_lock
    guard.locks = [fd for fd in (lock, place_lock) if fd is not None]
    try:
        daemon_lock = backend.try_lock(paths.daemon_lock, "guard, looking for a daemon")
        guard.open(await_deposit=daemon_lock is None)
    except (OSError, PtyguardError) as error:
        os.write(report, b"failed " + str(error).encode("utf-8", "replace"))
        return 1

    def tell(error):
        text = b"ready" if error is None else b"failed " + error.encode("utf-8", "replace")
        try:
            os.write(report, text)
        except BrokenPipeError:
            pass                        # whoever launched us has gone; we stay
        os.close(report)

    if daemon_lock is None:
        journal("deposit_awaited")
        tell(None)
    else:
        os.close(daemon_lock)
        guard.waiters.append(tell)
        guard.start_daemon()
    return _run(guard)


def _run(guard):
    try:
        guard.run()
    except BaseException as error:
        guard.log("guard_failed", error=repr(error))
        raise
    return 0


def rehearse():
    """A child of a guard that would be replaced by us: do we understand it?"""
    return _rehearse()


def resume(backend, argv, binary):
    """The guard process, after another program was it.

    `argv` is [descriptor of what that one was, why a newer one could not go on (mostly ""),
    interpreter and binary of that one, root, setting...].
    """
    import sys
    memory, failure, before, root, settings = int(argv[0]), argv[1], argv[2:4], argv[4], argv[5:]
    frozen = None
    try:
        paths = backend.find_paths(root)
        journal = Journal(paths.guard_log, "guard", time.time)
        journal.banner(version=OURS, wire=wire.WIRE_VERSION, pid=os.getpid(),
                       python=sys.version.split()[0], platform=sys.platform,
                       poller=backend.poller_name(), binary=binary)
        frozen = read_frozen(memory)
        guard = Guard(backend, paths, (sys.executable, binary), settings, journal)
        thaw(guard, frozen)
        guard.copy = _lock_copy(backend, binary, journal)
        guard.go_on()
    except Exception as error:          # the old program can: rather be that again
        if failure:
            raise
        back = [before[0], "-I", "-S", before[1], "__guard_resume", argv[0],
                f"the new program failed: {error!r}"[:200], *before, root, *settings]
        backend.run_in_place(back, _plain_environment(),
                             [memory, *(descriptors_of(frozen) if frozen else ())])
    os.close(memory)
    try:
        guard.answer_reexec(frozen, failure)
    except OSError as error:
        journal("caller_lost", error=str(error))
    journal("resumed", sessions=len(guard.sessions), failure=failure)
    return _run(guard)


def _lock_copy(backend, binary, journal):
    """A shared lock on what we run from; None if it is gone, which can be lived with."""
    try:
        return backend.try_lock(binary, "guard", shared=True)
    except OSError as error:
        journal("copy_not_locked", binary=binary, error=str(error))
        return None
