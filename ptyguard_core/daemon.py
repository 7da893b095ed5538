"""Daemon: clients times sessions, one thread, one readiness loop.

It reads each terminal straight into its ring and sends each client what lies
between that client's cursor and the end.  It may die at any instruction: what must
not be lost is with the guard (terminals, rings, exit statuses, metadata as an
opaque blob) or on disk (the registry).

Rule 1: there is no way to start but to adopt.  The guard gives the table; until its
        GO everything is rehearsal, and nothing in a ring is touched.
Rule 2: a terminal is read only while daemon.lock is held.
Rule 3: what may be read, and for whom it waits, is `Session.room`; what a
        descriptor is watched for is `_update_terminal`; nobody else decides that.
Rule 4: nothing slow happens here: no subprocess, no name service, no file but the
        registry's small writes and the log.
Rule 5: whoever changes what is in a session's blob (`_blob`) sends it at once, or sets its
        `noted_end` to None: else a successor is not told, since nothing is told twice
        (`Session.is_noted`, `Rehearsed._changing`).

When the guard dies, this process still holds the terminals and serves on;
guardlink.py sees to it that a new guard comes up and is given everything.
"""

import os
import time
from collections import deque

from . import direct, frames, guardwire as wire, jsontext, past, requests
from .agentlink import AgentLinks
from .answering import Answering, load_screen
from .backend import FAILED, LET_GO, NOTHING_YET, READABLE, WRITABLE
from .connection import PENDING_MAX, Connection, is_hangup
from .destroying import Endings
from .errors import (LimitReached, ProtocolError, PtyguardError, RingCorrupt, StateUnusable,
                     Unreachable, UsageError)
from .guardlink import GuardLink
from .journal import Journal
from .link import close_all
from .logkeeper import LogKeeper
from .loop import Loop
from .overhearing import Overhearing
from .ownership import Ownership
from .relaunching import Relaunches, relaunch_of
from .registry import (KEEP_COUNT, KEEP_DAYS, NoRegistry, Registry, expired, lost, next_expiry,
                       shape_fault)
from .replies import is_only_replies
from .restarting import Restarts, encode_launch
from .ring import Ring
from .session import (CHILD_EXITED, DRAINED, DRAINING, ENDED, FAILED as GIVEN_UP, GUARD_LOST_IT,
                      HELD_UNOPENED, KEYS_BYTES_MAX, LEADER, NEVER, QUARANTINED, READS_ALONE, RUNNING, SPAWN_REFUSED,
                      SPAWNED, STARTING, Session)
from .tombstones import TombstoneFiles, Tombstones
from .tree import Killing, RecentProcesses, session_mark
from .version import OURS
from .watchers import Watchers

HOLDER_WAIT_S = 5.0            # for holders to come back after a daemon was replaced
READER_WAIT_S = 30.0           # for a new session's `run` to be there
FAREWELL_S = 1.0               # for clients to notice that we leave, and say no more
ACCEPT_PAUSE_S = 1.0           # without descriptors: others may free some (C-311)
ACCEPTS_A_TURN = 16
EXITS_A_TURN = 16              # of children, as the guard tells them
FORGOTTEN_A_TURN = 16          # of those that are past their keeping
RECORDS_A_TURN = 4             # synced writes; the guard has the rest of them meanwhile
SERIAL_MAX = 64                # characters of a request's id
RESUMED_A_TURN = 16            # of adopted sessions that nobody waits for
LOAD_AFTER_S = 0.25            # what is not needed to read on
LATE_OFFER_S = 10.0            # for a start that a predecessor had asked for
KILL_RETRY_S = 0.3
NUDGE_S = 0.05                 # between the two sizes, so that both are seen
IDLE_EXIT_S = 3600.0
SESSIONS_MAX = 1000            # below the machine's usual 4096 terminals
KEPT_OUTPUT_BYTES = 32 << 20
SAVE_RETRY_S = 10.0            # for a record that a full disk refused
EXPIRY_SLACK_S = 0.01          # two clocks: better a little late than a look in vain


class Daemon:
    """All of it: one object, one loop."""

    def __init__(self, backend, paths, settings, journal, program):
        self.backend = backend
        self.paths = paths
        self.settings = settings
        self.program = program              # (interpreter, binary), for a new guard
        self.log = journal
        self.loop = Loop(backend.make_poller(), time.monotonic, backend.make_inner_poller())
        self.wall_clock = time.time
        self.sessions = {}                  # id -> Session
        self._to_load = _load_for_later()
        self._unread = {}                   # id -> Session: adopted, and its terminal not watched yet
        self.clients = set()
        self.registry = None
        self.tombstones = None
        self.guard = GuardLink(backend, self.loop, paths, journal, program, settings, self)
        self.instance = os.urandom(8).hex()
        self.started_at = time.time()
        self.sessions_max = int(settings.get("sessions-max", SESSIONS_MAX))
        self.clients_max = int(settings.get("clients-max", frames.CLIENTS_MAX))
        self.idle_exit_s = float(settings.get("idle-exit", IDLE_EXIT_S))
        self._listener = None
        self._is_serving = False
        self._is_leaving = False
        self._has_let_go = False
        self._buffered = {}                 # client -> bytes, for the sum
        self._buffered_total = 0
        self._waiters = {}                  # (what, session id) -> callables
        self._sends = {}                    # session id -> Sends, the first has its turn
        self._killings = {}                 # session id -> (Killing, callables)
        self.processes = RecentProcesses(backend, self.loop.clock)
        self.restarts = Restarts(self)
        self.endings = Endings(self)
        self.relaunches = Relaunches(self)
        self.logs = LogKeeper(backend, self.loop, paths, journal, program, self)
        self.agents = AgentLinks(backend, self.loop, paths, journal)
        self.ownership = Ownership(self)
        self.watchers = Watchers(self.loop)
        self.answering = Answering(self.loop, settings, self._type_answer, self._type_input)
        self._progress_timers = {}
        self._left = []                     # (clients still to leave, callable)
        self._idle_timer = None
        self._keep_count = int(settings.get("keep-count", KEEP_COUNT))
        self._keep_days = float(settings.get("keep-days", KEEP_DAYS))
        self._keep_output_bytes = int(settings.get("keep-output", KEPT_OUTPUT_BYTES))
        self._expiry_timer = None
        self._exits = deque()               # messages of the guard that are not acted on yet
        self._is_prune_due = False
        self._await_prune = []              # callables
        self._unwritten = {}                # session ids whose record waits for its turn: as a set, in order
        self._writes_left = RECORDS_A_TURN  # in this turn
        self._are_writes_due = False
        self._unsaved = set()               # session ids whose record the disk refused
        self._save_timer = None
        # Looked up once: a daemon out of descriptors still has to say hello.
        self._own_start = backend.process_start(os.getpid())
        self._boot_id = backend.boot_id()

    # -- the guard -----------------------------------------------------------------------

    def open(self, link_descriptor):
        """Take the link that the guard gave us and rehearse."""
        self.backend.ignore_signals(("SIGHUP", "SIGINT", "SIGQUIT", "SIGPIPE", "SIGTSTP"))
        fd, self._read_signals = self.backend.watch_signals(("SIGTERM", "SIGCHLD"))
        self.loop.watch(fd, self._on_signal, READABLE)
        self._read_records_ahead()
        self.guard.open(link_descriptor)

    def _on_signal(self, _bits):
        names = self._read_signals()
        for pid, raw in self.backend.reap_children():   # logs' writers, a guard's launcher
            self.logs.on_child_end(pid, raw)
        if "SIGTERM" in names and not self._is_leaving:
            self.log("signal", name="SIGTERM")
            self.on_leave()

    def on_listener(self, sock):
        """The guard's listening socket, now or anew."""
        if self._listener is not None:
            self.loop.forget(self._listener.fileno())
            self._listener.close()
        self._listener = sock
        self.loop.watch(sock.fileno(), self._on_connection, READABLE if self._is_serving else 0, is_urgent=True)

    def on_go(self, offers):
        """The terminals are ours now: adopt, reconcile with the records, listen."""
        self._leave_breadcrumb(self.guard.inheritance)
        records = self._open_registry()
        self._open_tombstones()
        for id_, offer in offers.items():
            self._adopt(id_, offer)
            self.guard.confirm(id_)
        self._is_serving = True
        self.ownership.resume(self.guard.inheritance)   # before anybody links
        self.relaunches.open(records)
        self._take_over_records(records)
        self.agents.sweep([*self.sessions, *records])
        self.log("serving", sessions=len(self.sessions),
                 recovered=sum(s.ring.recovered_bytes for s in self.sessions.values() if s.ring))
        # Clients first: holders are to be back at their offsets before output moves.
        if self._listener is not None:
            self._on_connection(READABLE)
            self._listen()
        for session in list(self.sessions.values()):
            if session.is_plain() and not self.answering.has_inherited(session):
                session.active_at = self.loop.clock()   # as `resume` does: nobody sees a difference
                self._unread[session.id] = session
            else:
                self.resume(session)
        for session in list(self.sessions.values()):
            self.endings.adopt(session)
        for session in list(self.sessions.values()):
            self.relaunches.adopt(session)
        self.loop.soon(self._resume_some)
        self.loop.after(LOAD_AFTER_S, self._load_rest)  # once all has been read that waited
        self._watch_idleness()

    def _load_rest(self):
        """What is not needed to read on, a piece a turn."""
        for _ in self._to_load:
            self.loop.soon(self._load_rest)
            return
        from .sweeping import Sweep
        Sweep(self.backend, self.loop, self.paths, self.wall_clock, self.log, self.program[1]).begin()

    def _leave_breadcrumb(self, told):
        """One line a restart: after what, instead of which, on whose behalf."""
        if told.get("prev"):
            self.log("started", after=told.get("after", b"").decode("utf-8", "replace"),
                     prev=told["prev"].decode("utf-8", "replace"), now=OURS,
                     by=f"pid{told['by']}" if told.get("by") else "guard")

    def on_late_offer(self, id_, offer):
        """A session whose start was under way when our predecessor died."""
        if id_ in self.sessions and self.sessions[id_].ring is not None:
            offer.refuse()
            return
        self._adopt(id_, offer)
        self.guard.confirm(id_)
        session = self.sessions[id_]
        self.resume(session)
        self.endings.adopt(session)
        self.relaunches.adopt(session)
        self.tell_started(session, None)

    def _make_registry(self):
        return Registry(self.paths.state, self.wall_clock, lambda: os.urandom(6).hex(), self.log)

    def _read_records_ahead(self):
        """Most are the same still when the go comes, and then nothing is read meanwhile."""
        try:
            self.registry = self._make_registry()
            self.registry.read_ahead()
        except StateUnusable:
            pass                            # said when they are needed

    def _open_registry(self):
        """The records on disk; sessions matter more than records of ended ones."""
        try:
            self.registry = self.registry or self._make_registry()
            return self.registry.load()
        except StateUnusable as error:
            self.log("records_not_loaded", error=error.message)
            self.registry = NoRegistry(error)
            return {}

    def _open_tombstones(self):
        try:
            files = TombstoneFiles(self.paths.state, self.wall_clock,
                                   lambda: os.urandom(6).hex(), self.log)
        except StateUnusable as error:
            self.log("tombstones_not_loaded", error=error.message)
            files = NoRegistry(error)
        self.tombstones = Tombstones(files, self.wall_clock, self.log)
        try:
            self.tombstones.load()
        except StateUnusable as error:
            self.log("tombstones_not_loaded", error=error.message)

    def _take_over_records(self, records):
        """Sessions that only the disk knows: ended ones, and those that are lost."""
        gone = dict(lost(records, self.sessions, self.backend.boot_id()))
        for id_, record in records.items():
            if id_ in self.sessions:
                continue
            if record["state"] == STARTING and record.get("spawn", 1) == 1:
                # Never confirmed; one still under way comes late.
                self._remove_record(id_)
                continue
            session = self.sessions[id_] = Session(record)
            if id_ in gone:
                session.happen(GUARD_LOST_IT)
                record.update(ended_at=self.wall_clock(), reason=gone[id_])
                self.relaunches.on_lost(session)
                self.log("session_lost", session=id_, name=record["name"], reason=gone[id_])
                self._write_later(session)  # who comes after us finds the same

    # -- adopting a session --------------------------------------------------------------

    def rehearse(self, offers):
        """Make ready what changes nothing, while a predecessor may still serve."""
        if self.guard.facts.get("beside"):  # it does: nobody waits for us
            for _ in self._to_load:
                pass
        for id_, offer in offers.items():
            try:
                offer.rehearsed = Rehearsed(id_, offer.fields, self.wall_clock())
                offer.rehearsed.look_ahead(self.backend, offer.descriptors)
            except Exception as error:  # before the go nobody blames the session: it is opened without
                self.log("not_rehearsed", session=id_, error=repr(error))

    def _adopt(self, id_, offer):
        fields = offer.fields
        rehearsed, offer.rehearsed = offer.rehearsed, None
        if rehearsed is None or rehearsed.fields != fields:
            if rehearsed is not None:
                rehearsed.drop()        # something has become of it meanwhile
            rehearsed = Rehearsed(id_, fields, self.wall_clock())
        session, holders = rehearsed.session, rehearsed.holders
        self.sessions[id_] = session
        self.answering.adopt(session, rehearsed.asked_from)
        self.agents.adopt(id_, session.record.get("agent"))
        self._open_ring(session, offer)
        if session.ring is None:
            session.record["state"] = RUNNING if not fields.get("exited") else QUARANTINED
            session.happen(HELD_UNOPENED)
            session.is_unopened = True
            self.log("session_held_unopened", session=id_)
        else:
            if session.notice and not 0 <= session.notice[0] <= session.ring.end_offset:
                session.notice = None       # of another ring
            session.past.adopt(session.ring)
            if session.state in (STARTING, QUARANTINED):
                session.happen(SPAWNED)
            session.awaited_holders = holders if session.is_living else 0
            session.noted_holders = session.awaited_holders     # we may be killed in turn
            if fields.get("input") and session.master >= 0:
                session.enqueue(fields["input"])
        if fields.get("exited"):
            self._note_exit(session, fields)
        elif session.state == DRAINING:     # its exit was known to a guard that is gone
            session.record["state"] = RUNNING
        # A synced write for each of a thousand would keep them all unread for seconds.
        if not self.registry.has(session.record):
            self.save(session)
        elif not rehearsed.is_as_told() and _blob(session) != fields.get("blob"):
            self._send_blob(session)
        session.note_end()

    def _open_ring(self, session, offer):
        """Map and recover; on failure the descriptors are closed and `ring` stays None."""
        descriptors = offer.descriptors
        if not descriptors or offer.fields.get("quarantined"):
            offer.refuse()
            return
        try:
            if session.memory is None:
                session.memory = self.backend.map_memory(descriptors[0])
            session.ring = Ring.adopt(session.memory)
        except (OSError, ValueError, RingCorrupt) as error:
            self.log("ring_unusable", session=session.id, error=str(error))
            offer.refuse()
            return
        session.ring_fd = descriptors[0]
        if len(descriptors) > 1 and not offer.fields.get("has_terminal", 1):
            os.close(descriptors.pop())     # released while we rehearsed
        session.master = descriptors[1] if len(descriptors) > 1 else -1
        if session.ring.recovered_bytes:
            self.log("output_recovered", session=session.id, bytes=session.ring.recovered_bytes,
                     end=session.ring.end_offset)

    def _resume_some(self):
        """Whose output nobody awaits is read on in the turns after the go, some in each."""
        if not self._is_serving:
            return                      # our successor reads on
        for session in list(self._unread.values())[:RESUMED_A_TURN]:
            self.resume_unread(session)
        if self._unread:
            self.loop.soon(self._resume_some)
        else:
            self.prune()

    def resume_unread(self, session):
        """Before anything is done with a session: it is as any other then."""
        if self._unread.pop(session.id, None) is session and self._is_serving \
                and self.sessions.get(session.id) is session:
            self.resume(session)

    def resume(self, session):
        """Begin to read an adopted session, once its holders are back or had their time."""
        session.active_at = self.loop.clock()   # when it was before that is not known
        if session.master >= 0:
            self.loop.watch(session.master, lambda bits: self._on_terminal(session, bits), 0)
        self.logs.begin(session)
        if session.awaited_holders:
            self.loop.after(HOLDER_WAIT_S, lambda: self.stop_awaiting(session))
        else:
            self.answering.on_adopted(session)
        if session.state == DRAINING:
            self._drain_soon(session)
        else:
            self._update_terminal(session)
            self.write_input(session)

    def stop_awaiting(self, session):
        """Whoever was to read it had their time, or is gone."""
        if session.awaited_holders:
            self.log("holders_missing", session=session.id, n=session.awaited_holders)
            session.awaited_holders = 0
            self._note_holders(session)
            self.answering.on_adopted(session)
            self._wake(session)

    def _wake(self, session):
        """Reading may go on: by the loop, or to the end."""
        if session.state == DRAINING:
            self._drain_soon(session)
        else:
            self._update_terminal(session)

    def on_log_changed(self, session):
        """What is known of its log has to outlive us; and it may be waited for no more."""
        self._send_blob(session)
        self._wake(session)
        self.write_input(session)
        if not session.is_living:
            self.prune()

    # -- terminals -----------------------------------------------------------------------

    def _update_terminal(self, session):
        """What this terminal is watched for: the one place that says so."""
        if session.id in self._unread:
            self.resume_unread(session)
        if session.master < 0 or not self._is_serving:
            return
        bits = 0
        if session.notice is not None and session.state != DRAINING and session.may_read():
            self._pump(session, 0)          # our own words need no program that writes
        if session.state != DRAINING and session.may_read():
            bits = READABLE
        elif session.cursors and (session.is_held or not session.room()):
            self._watch_progress(session)
        if session.input and session.is_blocked and not session.awaits_hearing:
            bits |= WRITABLE
        self.loop.change(session.master, bits)

    def _on_terminal(self, session, bits):
        if not self._is_serving:        # we leave: to forget all of a thousand at once took 10 ms
            self.loop.forget(session.master)
            return
        if bits & WRITABLE:
            self.write_input(session)
        if bits & (READABLE | FAILED) and session.master >= 0:
            was_urgent = session.typed_at is not None
            # An answer is rarely more than one read; what is more comes in the next turn.
            self._pump(session, READS_ALONE if self.loop.ready_count == 1 and not was_urgent else 1)
            if was_urgent and not session.is_urgent(session.active_at):
                self.loop.set_urgent(session.master, False)
            self._update_terminal(session)

    def _pump(self, session, reads):
        """Terminal to ring to clients; the last answer of the read."""
        def before_commit(start):
            for cursor in session.cursors:
                if cursor.offset < start:
                    cursor.owner.before_overwrite(start)

        total, answer = session.pump(self.backend.read_terminal, before_commit, reads)
        if session.is_past_news:        # what it is about is still in the ring: see past.py
            session.is_past_news = False
            self._send_blob(session)
        if total:
            session.active_at = self.loop.clock()
            self.answering.on_output(session, total)
            for cursor in list(session.cursors):
                cursor.owner.flush()
        if answer == LET_GO and session.state == RUNNING:
            self.log("terminal_let_go", session=session.id)
        return answer

    def _type_answer(self, session, data):
        """What a terminal would say, from us (C-213)."""
        if session.master >= 0 and not session.is_full():
            session.enqueue(data)
            self.write_input(session)

    def write_input(self, session):
        """Type what the terminal takes, and watch for when it takes more."""
        if session.id in self._unread:
            self.resume_unread(session)
        if session.master < 0:
            session.drop_input()
        elif session.input and self._is_serving and not session.awaits_hearing:
            session.active_at = self.loop.clock()
            was_full, was_blocked = session.is_full(), session.is_blocked
            hearing = Overhearing(self.backend, session)
            session.is_blocked = not session.write_input(
                hearing.write, lambda: self.backend.end_of_input(session.master),
                lambda: self.backend.canonical_mode(session.master), hearing.tell)
            if session.is_blocked or was_blocked:
                self._update_terminal(session)
            if was_full and not session.is_full():
                self._listen_again(session)

    def _await_answer(self, session, data):
        """A client has typed that: if it was a little, what comes next goes before streams."""
        if len(data) <= KEYS_BYTES_MAX and self._is_serving and session.master >= 0:
            session.await_answer(self.loop.clock())
            self.loop.set_urgent(session.master, True)

    def _listen_again(self, session):
        for client in self.clients:
            if client.session is session or (client.sends and client.sends.session is session):
                client.update_interest()

    def _watch_progress(self, session):
        """Nobody may hold the program back for longer than it is allowed to."""
        timer = self._progress_timers.get(session.id)
        if timer is not None and timer.act is not None:
            return
        self._judge_progress(session)

    def _judge_progress(self, session):
        self._progress_timers.pop(session.id, None)
        if session.ring is None or session.master < 0 or session.may_read() \
                or session.room() and not session.is_held:
            return
        lagging, next_at = session.watch_progress(self.loop.clock())
        for cursor in lagging:
            self.log("client_lagged", session=session.id, offset=cursor.offset,
                     end=session.ring.end_offset, pid=cursor.owner.hello.get("pid"))
            if cursor.hold == LEADER:
                cursor.is_lagged = cursor.owner.has_fallen = True
            else:
                cursor.hold = NEVER
        if lagging:
            self._note_holders(session)
            self._wake(session)
        if next_at is not None:
            self._progress_timers[session.id] = self.loop.at(
                next_at, lambda: self._judge_progress(session))

    # -- the end of a session ------------------------------------------------------------

    def on_exited(self, message):
        """A child has ended; the guard knows how, and keeps that until the session is released."""
        self._exits.append(message)
        if len(self._exits) == 1:
            self.loop.soon(self._take_exits)

    def _take_exits(self):
        for _ in range(min(EXITS_A_TURN, len(self._exits))):
            self._take_exit(self._exits.popleft())
        if self._exits:
            self.loop.soon(self._take_exits)

    def _take_exit(self, message):
        session = self.sessions.get(message.bytes("session").decode("ascii"))
        # A late notice of an older spawn never touches the newer one (C-108).
        if session is None or message.number("spawn_number", 1) != session.record.get("spawn", 1):
            return
        if session.is_living and session.record["exit"] is None:
            self._note_exit(session, message.fields)
            if session.state != DRAINING:       # nothing of it can be read here
                self.relaunches.on_drained(session)
            self.save(session)
            if session.state == DRAINING:
                self._drain_soon(session)
            else:
                self._tell_ended(session)

    def _note_exit(self, session, fields):
        """The status is known, and at once visible; output may still be in the terminal."""
        code, signum = (None, None)
        session.raw_exit = (fields.get("status", 0), fields.get("status_known", 0),
                            fields.get("exited_at_ms", 0))
        if fields.get("status_known"):
            code, signum = self.backend.decode_status(fields.get("status", 0))
        else:
            session.record["reason"] = "unknown (guard lost)"
        session.record["exit"] = {
            "code": code, "signal": None if signum is None else self.backend.signal_name(signum)}
        session.record["ended_at"] = fields.get("exited_at_ms", 0) / 1000
        session.happen(CHILD_EXITED)
        self.relaunches.on_exit(session)
        session.drop_input()
        for send in list(self._sends.get(session.id, ())):
            send.failed()               # also one of which nothing was queued yet
        if session.state == DRAINING and session.master < 0:
            session.happen(DRAINED)
        self.log("session_exit", session=session.id, name=session.name, code=code, signal=signum)

    def _drain_soon(self, session):
        self._update_terminal(session)      # from now on it is read from here, not by readiness
        if not session.is_drain_due:
            session.is_drain_due = True
            self.loop.soon(lambda: self._drain(session))

    def _drain(self, session):
        """Read on until the terminal has nothing more, or for DRAIN_S of reading."""
        session.is_drain_due = False
        if session.state != DRAINING or session.master < 0 or not self._is_serving:
            return
        if session.is_awaiting:
            return                          # _wake comes back here
        if not session.room():
            self._tell_ended(session)       # the slow one holds itself up, nobody else
            self._watch_progress(session)
            return
        began = self.loop.clock()
        answer = self._pump(session, READS_ALONE)
        session.drain_left_s -= self.loop.clock() - began
        if answer in (NOTHING_YET, LET_GO) or session.drain_left_s <= 0:
            self._finish(session)
        else:
            self._drain_soon(session)

    def _finish(self, session):
        """Drained: let go of the terminal, tell everybody at their own place."""
        if session.id in self._killings:
            self._killings[session.id][0].forget_terminal()
        self.loop.forget(session.master)
        os.close(session.master)
        session.master = -1
        self.answering.on_end(session)
        session.happen(DRAINED)
        self.relaunches.on_drained(session)
        self.guard.send(wire.RELEASE_TERMINAL, session=session.id)
        self.save(session)
        if session.is_restarting:
            self._tell_killed(session)
            self.restarts.on_drained(session)
        else:
            self.tell_end(session)

    def tell_end(self, session):
        """It has ended for good: everybody is told, and it is kept like others."""
        self._tell_ended(session)
        for cursor in list(session.cursors):
            cursor.owner.flush()
        self._prune_soon()
        self._watch_idleness()

    def _tell_ended(self, session):
        self._tell_killed(session)
        if not session.is_to_run_again:
            for act in self._waiters.pop(("end", session.id), ()):
                act()

    def _tell_killed(self, session):
        for act in self._waiters.pop(("killed", session.id), ()):
            act()

    def on_caught_up(self, client):
        """A client has everything up to the end: perhaps that is the end of all."""
        session = client.session
        if session.state not in (ENDED, GIVEN_UP, QUARANTINED) or session.record["exit"] is None \
                or session.is_to_run_again:
            return
        client.is_exit_told = True
        client.give_back(direct.ENDED)
        client.send(frames.EVENT, event="exit", session=requests.describe(session),
                    spawn=session.record.get("spawn", 1), offset=client.cursor.offset)

    def past_keeping(self):
        """(sessions to forget, sessions whose output alone is to go), oldest first; never
        a living one, nor one that somebody reads or whose log is still being written.  Nor is
        the output of one to go whose record is not written yet: with it the guard forgets the
        exit status too."""
        records = self._records_to_keep()
        gone = [self.sessions[id_] for id_ in expired(
            records, self.wall_clock(), self._keep_count, self._keep_days)]
        kept = sorted((s for s in self.sessions.values()
                       if s.id in records and s.is_over and s.ring and s not in gone
                       and s.id not in self._unwritten),
                      key=lambda s: s.record.get("ended_at") or 0)
        total = sum(min(s.ring.end_offset, s.ring.capacity) for s in kept)
        emptied = []
        for session in kept:
            if total <= self._keep_output_bytes:
                break
            total -= min(session.ring.end_offset, session.ring.capacity)
            emptied.append(session)
        return gone, emptied

    def _records_to_keep(self):
        return {id_: session.record for id_, session in self.sessions.items()
                if session.is_living or not (session.cursors or session.is_to_run_again
                                             or self.logs.is_pending(session)
                                             or session.record.get("kill_pending"))}

    def _prune_soon(self):
        """Once a turn, however many have ended in it."""
        if not self._is_prune_due:
            self._is_prune_due = True
            self.loop.soon(self.prune)

    def prune(self, act=None):
        """Let go of what is past its keeping, some of it a turn, and look again when the next one
        is; `act()` when that is done."""
        self._is_prune_due = False
        if act is not None:
            self._await_prune.append(act)
        self.tombstones.sweep()
        gone, emptied = self.past_keeping()
        for session in gone[:FORGOTTEN_A_TURN]:
            self.log("session_expired", session=session.id, name=session.name)
            self.forget(session)
        if len(gone) > FORGOTTEN_A_TURN:
            self._prune_soon()
            return
        for session in emptied[:FORGOTTEN_A_TURN]:
            self.log("kept_output_dropped", session=session.id)
            self._release_ring(session)
        if len(emptied) > FORGOTTEN_A_TURN:
            self._prune_soon()
            return
        acts, self._await_prune = self._await_prune, []
        for act in acts:
            act()
        if self._expiry_timer is not None:
            self._expiry_timer.cancel()
            self._expiry_timer = None
        due = next_expiry(self._records_to_keep(), self._keep_days)
        if due is not None:
            self._expiry_timer = self.loop.after(
                max(0.0, due - self.wall_clock()) + EXPIRY_SLACK_S, self._expire)

    def _expire(self):
        self._expiry_timer = None
        self.prune()
        self._watch_idleness()

    def forget(self, session):
        """Drop an ended session: its output, its record, its clients."""
        self.logs.forget(session)
        self.endings.forget(session)
        for cursor in list(session.cursors):
            client = cursor.owner
            client.send(frames.EVENT, event="removed", session=session.name)
            self.unfollow(client)
        self._release_ring(session)
        self.sessions.pop(session.id, None)
        self.answering.forget(session)
        self.agents.forget(session.id)
        self._remove_record(session.id)

    def _remove_record(self, id_):
        self.watchers.note_change()
        self.relaunches.forget(id_)
        try:
            self.registry.remove(id_)
        except StateUnusable as error:
            self.log("record_not_removed", session=id_, error=error.message)

    def _release_ring(self, session):
        if session.master >= 0:
            self.loop.forget(session.master)
            os.close(session.master)
            session.master = -1
        if session.ring is not None:
            session.ring.release()
            try:
                session.memory.close()
            except BufferError:
                pass            # PyPy: a view that nobody uses any more awaits collection
            os.close(session.ring_fd)
            session.ring = session.memory = None
            session.ring_fd = -1
            self.guard.send(wire.RELEASE, session=session.id)
        elif session.is_unopened:
            session.is_unopened = False
            self.guard.send(wire.RELEASE, session=session.id)

    # -- starting ------------------------------------------------------------------------

    def new_id(self):
        """An id that no session of ours has or had: 60 random bits."""
        alphabet = "abcdefghijkmnpqrstuvwxyz23456789"
        while True:
            id_ = "".join(alphabet[byte % 32] for byte in os.urandom(12))
            if id_ not in self.sessions:
                return id_

    def spawn(self, session, wanted):
        """Ask the guard for the child; `when_started` tells how it went."""
        self.watchers.note_change()
        session.launch = encode_launch(wanted)
        self.relaunches.keep(session)
        self.ask_guard_to_spawn(wire.SPAWN, session, wanted,
                                lambda message: self._on_spawned(session, wanted, message))

    def ask_guard_to_spawn(self, type_, session, wanted, act):
        """SPAWN or RESPAWN; `act(message)` with the answer, None when the guard went away."""
        def answered(message):
            if not self._is_leaving:
                act(message)
            elif message is not None:       # the next daemon is offered it
                close_all(message.descriptors)

        self.guard.ask(
            type_, answered,
            lambda: self.start_failed(session, Unreachable(
                "the guard is gone and no new one came up", hint="ptyguard daemon log")),
            session=session.id, blob=_blob(session), launch=session.launch, **wanted)

    def _on_spawned(self, session, wanted, message):
        if message is None:
            self.start_failed(session, Unreachable(
                "the guard went away while it started the command",
                hint="ptyguard ls tells whether it runs"))
        elif message.bytes("kind") == b"in_use":
            # The same start, asked of a predecessor that died: it is under way and
            # will be offered.
            self.loop.after(LATE_OFFER_S, lambda: self._expect_offer(session))
        elif message.type == wire.SPAWNED and len(message.descriptors or ()) != 2:
            close_all(message.descriptors)
            self._spawned_unopened(session, message, "its descriptors did not arrive")
        elif message.type != wire.SPAWNED:
            close_all(message.descriptors)
            self.start_failed(session, self.spawn_refusal(wanted, message))
        else:
            self._take_spawned(session, message)

    @staticmethod
    def spawn_refusal(wanted, message):
        """The typed error that the guard's REFUSED means."""
        return requests.spawn_error(wanted, message.text("stage"), message.number("errno"),
                                    message.text("text"))

    def give_up_start(self, session, error):
        """Whoever waits for that start is told `error`; what comes of it late is ended."""
        if self.sessions.get(session.id) is session and session.state == STARTING \
                and not session.is_restarting:
            self.log("start_given_up", session=session.id, name=session.name, error=error.message)
            self.tell_started(session, error)
            session.awaited_holders = session.noted_holders = 0     # its end waits for no reader
            self.endings.destroy(session, lambda _error: None, leaves_tombstone=False)

    def _expect_offer(self, session):
        if self.sessions.get(session.id) is session and session.state == STARTING:
            self.start_failed(session, Unreachable("the command's start was not confirmed",
                                                    hint="ptyguard daemon log"))

    def _take_spawned(self, session, message):
        record = session.record
        record.update(pid=message.number("pid"), pid_start=message.number("pid_start"))
        try:
            session.memory = self.backend.map_memory(message.descriptors[0])
            session.ring = Ring.adopt(session.memory)
        except (OSError, ValueError, RingCorrupt) as error:
            close_all(message.descriptors)
            self._spawned_unopened(session, message, str(error))
            return
        session.ring_fd, session.master = message.descriptors
        session.happen(SPAWNED)
        session.active_at = self.loop.clock()
        self.loop.watch(session.master, lambda bits: self._on_terminal(session, bits), 0)
        try:
            self.registry.write(record)
        except (StateUnusable, UsageError) as error:
            if not session.is_restarting:
                self._undo_start(session, error)
                return
            self.log("record_not_written", session=session.id, error=error.message)
        self._send_blob(session)
        self.watchers.note_change()
        self._discard_older(session)
        self.logs.begin(session)
        if session.awaited_holders:
            self.loop.after(READER_WAIT_S, lambda: self.stop_awaiting(session))
        self._update_terminal(session)
        self._watch_idleness()
        self.tell_started(session, None)

    def _spawned_unopened(self, session, message, why):
        """It runs, the guard holds it, and we cannot read it: undo."""
        session.record.update(pid=message.number("pid"), pid_start=message.number("pid_start"))
        session.happen(HELD_UNOPENED)
        session.is_unopened = True
        self._undo_start(session, LimitReached(f"the session cannot be opened: {why}",
                                               hint="ptyguard daemon log"))

    def _undo_start(self, session, error):
        """The record could not be written: no session without one (C-505)."""
        self.log("start_undone", session=session.id, error=error.message)
        self.relaunches.cancel(session)
        session.awaited_holders = 0         # its end is not to wait for a reader
        self._update_terminal(session)
        is_new = session.record.get("spawn", 1) == 1    # else its past is worth keeping
        self.kill(session, 0.0, lambda failed: None if failed or not is_new else self.forget(session))
        self.tell_started(session, error)

    def _discard_older(self, session):
        """An ended session of the same name makes way for the new one (C-108)."""
        for other in list(self.sessions.values()):
            if other is not session and other.name == session.name and other.is_over:
                self.logs.when_written(other, lambda gone=other: self._forget_ended(gone))

    def _forget_ended(self, session):
        if session.is_over and session.id in self.sessions \
                and not session.record.get("kill_pending"):
            self.forget(session)

    def start_failed(self, session, error):
        """Nothing is left behind."""
        if session.is_restarting:
            self.restarts.failed(session, error)
            return
        session.happen(SPAWN_REFUSED)
        self.sessions.pop(session.id, None)
        self.agents.forget(session.id)
        self._remove_record(session.id)
        self.tell_started(session, error)

    def tell_started(self, session, error):
        """Answer those who wait for its start: it runs, or `error` says why not."""
        if session.is_restarting:
            self.restarts.succeeded(session) if error is None else \
                self.restarts.undone(session, error)
        for act in self._waiters.pop(("start", session.id), ()):
            act(error)

    def when_started(self, session, act):
        """Call `act(error or None)` once the session has started or failed to."""
        if session.state == STARTING or session.is_restarting \
                or session.awaits_relaunch and session.ring is None:
            self._waiters.setdefault(("start", session.id), []).append(act)
        else:
            act(None)

    def when_ended(self, session, act, client=None):
        """Call `act()` once the session's end is known and its output read, as far as
        nobody's slowness delays that; not if `client` is gone by then."""
        is_over = not session.is_living or session.state == DRAINING and not session.room()
        if client is None:
            # An end that a restart waits for is told to nobody else.
            act() if is_over else self._waiters.setdefault(("killed", session.id), []).append(act)
        elif is_over and not session.is_to_run_again:
            act()
        else:
            self._waiters.setdefault(("end", session.id), []).append(act)
            client.waits.append((session.id, act))

    # -- what verbs need -----------------------------------------------------------------

    def about(self):
        """Facts of this daemon, for hello and status."""
        return {"version": OURS, "protocol": [frames.PROTOCOL_MIN, frames.PROTOCOL_MAX],
                "pid": os.getpid(), "pid_start": self._own_start,
                "instance": self.instance, "started_at": self.started_at,
                "host": os.path.basename(self.paths.state), "boot_id": self._boot_id,
                "owner": self.ownership.owner, "linked": self.ownership.holders,
                "sessions": len(self.sessions),
                "living": sum(not session.is_over for session in self.sessions.values()),
                "guard_version": self.guard.facts.get("version", b"").decode("ascii", "replace"),
                "guard_pid": self.guard.facts.get("guard_pid") if self.guard.is_up else None,
                "binary": self.program[1], "interpreter": self.program[0],
                "update": self._update_facts()}

    def _update_facts(self):
        told = {key: value or None for key, value in self.guard.update.items()}
        return {"newest": told["newest"], "deferred_reason": told["deferred"],
                "last_failure": told["update_failure"]} if any(told.values()) else None

    def follow(self, client, session, cursor):
        """This client reads that session from its cursor on."""
        client.follow(session, cursor)
        was_awaiting = session.awaited_holders
        session.add(cursor)
        if was_awaiting and not session.awaited_holders:
            self.answering.on_adopted(session)
        if cursor.offset < session.ring.end_offset:
            self.answering.on_resume(session)
        self.logs.on_follow(session, cursor)
        self._note_client(cursor)
        self._note_holders(session)
        self._wake(session)
        self.loop.soon(client.flush)

    def unfollow(self, client):
        """It reads no more; the program may be faster now, and of another size."""
        session, cursor = client.session, client.cursor
        if session is None:
            return
        client.unfollow()
        session.remove(cursor)
        self._note_client(cursor)
        if not self._is_leaving:
            self.logs.on_unfollow(session, cursor)
            self.agents.withdraw(session.id, client)
            self._note_holders(session)
            self.apply_size(session)
            self._wake(session)
            if session.is_over:
                self._prune_soon()              # what somebody reads is kept meanwhile

    def _note_client(self, cursor):
        if cursor.is_interactive or cursor.is_viewer:       # who else reads is nobody's client
            self.watchers.note_change()

    def when_left(self, clients, act):
        """Call `act()` once all these connections have closed."""
        waiting = {client for client in clients if client.is_open}
        if waiting:
            self._left.append((waiting, act))
        else:
            act()

    def apply_size(self, session, nudge=False):
        """Give the terminal the size that the policy wants; `nudge` makes an unchanged
        one seen (C-202)."""
        wanted = session.wanted_size()
        if wanted is None or session.master < 0:
            return
        before = (session.record["size"]["cols"], session.record["size"]["rows"])
        if wanted != before:
            self.set_size(session, wanted)
        elif nudge:
            self.nudge(session)

    def nudge(self, session):
        """Have its program paint: one row less, and back, of which it is told twice."""
        size = session.record["size"]
        if session.master >= 0 and size["rows"] > 1:
            self.backend.resize_terminal(session.master, (size["cols"], size["rows"] - 1))
            self.loop.after(NUDGE_S, lambda: self._set_recorded_size(session))

    def _set_recorded_size(self, session):
        if session.master >= 0:
            size = session.record["size"]
            self.backend.resize_terminal(session.master, (size["cols"], size["rows"]))

    def set_size(self, session, wanted):
        """Set and note a session's size."""
        session.record["size"] = {"cols": wanted[0], "rows": wanted[1]}
        at = session.ring.end_offset if session.ring else 0
        session.sizes.note(at, wanted)
        self._set_recorded_size(session)
        self.answering.on_resized(session)
        self._send_blob(session)
        self.watchers.note_change()
        for cursor in session.cursors:
            cursor.owner.send(frames.EVENT, event="resized", size=list(wanted), offset=at)

    def collect(self, session):
        """Its status has been fetched (C-123)."""
        if not session.is_living and not session.record.get("collected"):
            session.record["collected"] = True
            self.save(session)

    def queue_send(self, send):
        """Sends to one session take turns."""
        turns = self._sends.setdefault(send.session.id, [])
        turns.append(send)
        if len(turns) == 1:
            send.begin(send.session.ring.end_offset)

    def note_send(self, send):
        """It is this one's turn: its client may send the body."""
        send.client.send(frames.EVENT, event="go", offset=send.offset, ticket=send.ticket,
                         sent_at=send.session.sent_at)

    def note_sent(self, session):
        """How many sends there were is to be known to our successor."""
        self._send_blob(session)

    def find_send(self, ticket):
        """The send of that ticket, or None when it is over."""
        return next((send for turns in self._sends.values() for send in turns
                     if send.ticket == ticket), None)

    def next_send(self, send):
        """That one is over."""
        turns = self._sends.get(send.session.id, [])
        if send not in turns:
            return
        was_first = turns[0] is send
        turns.remove(send)
        if not turns:
            del self._sends[send.session.id]
        elif was_first:
            if send.session.ring is None:
                turns[0].failed()
            else:
                turns[0].begin(send.session.ring.end_offset)

    def signal(self, session, signum):
        """One signal to the foreground group and to the leader's own."""
        pid, start = session.record["pid"], session.record["pid_start"]
        groups = {pid} if self.backend.signal_process(pid, start, 0) else set()
        if session.master >= 0:
            groups.add(self.backend.foreground_group(session.master))
        for group in groups - {None}:
            self.backend.signal_group(group, signum)

    def kill(self, session, grace_s, act, takes_orphans=False, seen=()):
        """End the whole tree; `act(error or None)` when that is confirmed or given up.

        `takes_orphans`: also programs that made themselves daemons, known by the session's
        id in their environment.  `seen`: (pid, start) of who outlived an earlier kill.
        """
        if session.id in self._killings:
            self._killings[session.id][1].append(act)
            return
        if session.state == STARTING:
            self.when_started(session, lambda error: act(None) if error else
                              self.kill(session, grace_s, act, takes_orphans, seen))
            return
        terminal = self.backend.terminal_device(session.master) if session.master >= 0 else 0
        spared = [os.getpid(), self.guard.facts.get("guard_pid", 0)]
        killing = Killing(self.processes, session.record["pid"], terminal, spared, grace_s,
                          self.loop.clock(), session.record.get("pid_start") or None,
                          session_mark(session.id) if takes_orphans else None, seen)
        self._killings[session.id] = (killing, [act])
        self.log("kill_begun", session=session.id, name=session.name, grace_s=grace_s)
        self._step_killing(session)

    def is_killing(self, session):
        """Whether processes of that session are being ended just now."""
        return session.id in self._killings

    def _step_killing(self, session):
        killing, acts = self._killings[session.id]
        is_gone = not session.is_living or session.record["exit"] is not None
        try:
            next_at = killing.step(self.loop.clock(), is_gone)
        except OSError as error:            # no descriptor to look with: look again later
            self.log("kill_delayed", session=session.id, error=str(error))
            next_at = self.loop.clock() + KILL_RETRY_S
        if next_at is not None:
            self.loop.at(next_at, lambda: self._step_killing(session))
            return
        del self._killings[session.id]
        if killing.is_done:
            self.log("kill_done", session=session.id)
            self.when_ended(session, lambda: [act(None) for act in acts])
            return
        session.survivors = sorted(killing.survivors)
        pids = [pid for pid, _ in session.survivors]
        self.log("kill_failed", session=session.id, survivors=pids)
        why, hint = (f"processes {', '.join(map(str, pids))} live on",
                     "look at them with ps; the session stays listed") if pids else \
            ("the guard has not confirmed its end", "ptyguard status tells whether it answers")
        error = PtyguardError(f"session {session.name} could not be ended: {why}", hint=hint,
                              survivors=pids)
        for act in acts:
            act(error)

    # -- clients -------------------------------------------------------------------------

    def _on_connection(self, _bits):
        for _ in range(ACCEPTS_A_TURN):
            try:
                sock = self.backend.accept(self._listener)
            except BlockingIOError:
                return
            except OSError as error:
                # EMFILE, ENFILE, ENOMEM: what waits would be reported ready for ever.
                self.log("accept_failed", error=str(error))
                self.loop.change(self._listener.fileno(), 0)
                self.loop.after(ACCEPT_PAUSE_S, self._listen)
                return
            self._admit(sock)

    def _listen(self):
        if self._is_serving and self._listener is not None:
            self.loop.change(self._listener.fileno(), READABLE)

    def _admit(self, sock):
        if self.backend.peer_user(sock) != self.backend.user_id():
            self.log("peer_refused", uid=self.backend.peer_user(sock))
            sock.close()
            return
        client = Connection(self, self.loop, sock, self.backend.peer_process(sock))
        self.clients.add(client)
        self._buffered[client] = 0
        if len(self.clients) > self.clients_max:
            self._refuse(client, LimitReached(f"{self.clients_max} clients are connected already",
                                              hint="PTYGUARD_MAX_CLIENTS sets the limit"))
            return
        client.hello_timer = self.loop.after(frames.HELLO_LIMIT_S, lambda: client.close("no hello in time"))

    def _refuse(self, client, error):
        client.send(frames.EVENT, event="refused", error=error.to_wire())
        client.close_after_flush(error.message)

    def on_protocol_error(self, client, error):
        """The peer's fault: it is told once, and only its connection ends."""
        self.log("protocol_error", pid=client.hello.get("pid"), error=error.message)
        self._refuse(client, error)

    def on_frame(self, client, type_, payload):
        """One frame (or a piece of a raw one) from a client."""
        if type_ == frames.HELLO:
            self._on_hello(client, payload)
        elif not client.has_said_hello:
            self._refuse(client, UsageError("hello comes first"))
        elif type_ == frames.INPUT:
            self._on_input(client, payload)
        elif type_ == frames.REQUEST:
            self._on_request(client, payload)
        elif type_ == frames.PING:
            client.send(frames.PONG)

    def _on_hello(self, client, fields):
        try:
            chosen = frames.negotiate((frames.PROTOCOL_MIN, frames.PROTOCOL_MAX),
                                      frames.protocol_range(fields))
            terms = self.ownership.wanted(fields)
        except PtyguardError as error:
            self._refuse(client, error)
            return
        if terms is not None and self.ownership.is_stopping:
            client.close("the daemon stops")        # the next one welcomes it
            return
        client.accept_hello(fields)
        counts = terms is not None and self.ownership.link(client, terms)
        client.send(frames.WELCOME, **dict(self.about(), chosen=chosen, link=counts))
        self._watch_idleness()

    def _on_request(self, client, fields):
        serial = fields.get("id")
        if not isinstance(serial, (int, str)) or len(str(serial)) > SERIAL_MAX:
            serial = None               # a late reply must not fail for want of room

        client.pending += 1

        def reply(error=None, **ok):
            client.pending -= 1
            if client.pending == PENDING_MAX - 1:
                self.loop.soon(client.update_interest)
            if error is None:
                client.send(frames.REPLY, id=serial, ok=ok)
            else:
                client.send(frames.REPLY, id=serial, error=error.to_wire())

        name = fields.get("verb")
        verb = requests.VERBS.get(name) if isinstance(name, str) else None
        try:
            if verb is None:
                raise UsageError(f"the daemon does not know {str(name)[:40]!r}",
                                 hint="is the client newer than the daemon?")
            verb(self, client, fields, reply)
        except PtyguardError as error:
            reply(error=error)
        except OSError as error:
            reply(error=PtyguardError(f"the system refused: {error.strerror or error}"))
        except (ValueError, OverflowError, RecursionError) as error:
            reply(error=UsageError(f"request not understood: {error}"))

    def _on_input(self, client, data):
        if client.sends is not None:
            session = client.sends.session
            client.sends.take(data)
            self._await_answer(session, data)
            self.write_input(session)
        else:
            self.on_typed(client, data)

    def on_typed(self, client, data):
        """Whoever follows a session has typed that."""
        session = client.session
        # Else nobody is to be typed at: a late piece of a send, a program that has ended.
        if session is not None and client.cursor.may_type and session.master >= 0 \
                and session.record["exit"] is None:
            data = self.answering.take_input(session, client.cursor, data)
            self._type_input(session, client.cursor, data)

    def _type_input(self, session, cursor, data):
        """A client has typed that; by answers of its terminal it does not become the leader."""
        if not data or session.master < 0:
            return
        session.enqueue(data)
        self.write_input(session)           # first: the program is at work meanwhile
        self._await_answer(session, data)
        if cursor in session.cursors and (data[:1] != b"\x1b" or not is_only_replies(data)):
            session.typed(cursor)
            self.apply_size(session)

    def is_input_full(self, client):
        """Whether this client has to wait before it types more."""
        session = client.sends.session if client.sends else client.session
        return session is not None and session.is_full()

    def on_buffered(self, client):
        """What clients cost together is bounded (C-904)."""
        before, now = self._buffered[client], client.buffered_bytes
        self._buffered_total += now - before
        self._buffered[client] = now
        if now > before and self._buffered_total > frames.BUFFERED_BYTES_MAX:
            client.close("the daemon's memory for clients is used up")

    def on_progress(self, client):
        """A cursor moved: the program may go on."""
        session = client.session
        if session.state != DRAINING:
            if not self.loop.interest(session.master) & READABLE:       # else it goes on already
                self._update_terminal(session)
        elif session.room():
            self._drain_soon(session)

    def on_gap(self, client):
        """Output was overwritten before this client had it: say so, with both ends."""
        session, cursor = client.session, client.cursor
        ring = session.ring
        start = ring.start_offset
        if cursor.is_viewer:
            # A human gets a fresh screen, not what is left of a megabyte.
            end = ring.end_offset
            self.answering.on_skipped(session, cursor, end - max(start, cursor.offset))
            client.send(frames.EVENT, event="lagged", past=session.restore_facts(),
                        **{"from": cursor.offset, "to": end})
            requests.send_restore(client, session)
            cursor.offset = end
            client.send(frames.EVENT, event="live", offset=end)
        else:
            client.send(frames.EVENT, event="gap", **{"from": cursor.offset, "to": start})
            cursor.offset = start

    def on_close(self, client, reason):
        """The connection is gone."""
        self.clients.discard(client)
        self.watchers.forget(client)
        self._buffered_total -= self._buffered.pop(client, 0)
        if client.hello.get("role") == "attach" or reason not in ("closed by the client",):
            self.log("client_left", pid=client.hello.get("pid"), reason=reason,
                     session=client.session.id if client.session else "-")
        if client.cursor is not None and client.cursor.kills_on_hangup and is_hangup(reason):
            self._kill_for_hangup(client.session, client.cursor.removes_on_hangup)
        if client.awaited_by is not None:
            self.stop_awaiting(client.awaited_by)
        if client.sends is not None:
            client.sends.cancel("its client went away")
        for sends in list(self._sends.values()):
            for send in list(sends):
                if send.client is client:
                    send.cancel("its client went away")
        if not self._is_leaving:
            self.ownership.unlink(client)
        self.unfollow(client)
        for id_, act in client.waits:
            waiters = self._waiters.get(("end", id_), [])
            if act in waiters:
                waiters.remove(act)
        for entry in list(self._left):
            entry[0].discard(client)
            if not entry[0]:
                self._left.remove(entry)
                entry[1]()
        if self._is_leaving:
            self.loop.soon(self._maybe_let_go)
        self._watch_idleness()

    def _kill_for_hangup(self, session, is_to_go):
        """`run --kill-on-hangup` went without a word: killed, or its terminal did."""
        if self._is_leaving or session.is_over:
            return
        def act(error):
            if error is None and is_to_go:
                self.logs.when_written(session, lambda: self._forget_ended(session))

        self.log("killed_for_hangup", session=session.id)
        self.restarts.cancel(session)
        self.endings.kill(session, requests.GRACE_S, act, takes_orphans=True)

    # -- what must outlive us ------------------------------------------------------------

    def save(self, session):
        """Record and blob; of very many at once the records are written in the turns that follow,
        but for those of which the guard has no blob."""
        self.watchers.note_change()
        self._send_blob(session)
        if self._writes_left > 0 or session.ring is None:
            self._write_record(session)
            self._write_soon()
        else:
            self._write_later(session)

    def _write_later(self, session):
        self._unwritten[session.id] = None
        self._write_soon()

    def _write_soon(self):
        if not self._are_writes_due:
            self._are_writes_due = True
            self.loop.soon(self._write_next)

    def _write_next(self):
        """Another turn: as many may be written again."""
        self._are_writes_due = False
        self._writes_left = RECORDS_A_TURN
        if self._unwritten:
            self._write_waiting(RECORDS_A_TURN)
            if not self._unwritten:
                self._prune_soon()          # their output may go now
        if self._writes_left < RECORDS_A_TURN:
            self._write_soon()

    def _write_waiting(self, count):
        for id_ in list(self._unwritten)[:count]:
            del self._unwritten[id_]
            if id_ in self.sessions:
                self._write_record(self.sessions[id_])

    def _write_record(self, session):
        """A full disk stops no session (C-503)."""
        self._writes_left -= 1
        self._unwritten.pop(session.id, None)
        try:
            self.registry.write(session.record)
            self._unsaved.discard(session.id)
        except (StateUnusable, UsageError) as error:
            self.log("record_not_written", session=session.id, error=error.message)
            self._unsaved.add(session.id)
            if self._save_timer is None:
                self._save_timer = self.loop.after(SAVE_RETRY_S, self._save_again)

    def _save_again(self):
        """What a full disk kept from being written is written once there is room."""
        self._save_timer = None
        for id_ in list(self._unsaved):
            if id_ not in self.sessions:
                self._unsaved.discard(id_)
            else:
                self._send_blob(self.sessions[id_])
                self._write_record(self.sessions[id_])
                if id_ in self._unsaved:
                    return                  # no room yet: the next try is due

    def note_ending(self, session):
        """What is to become of it has to outlive us."""
        self._send_blob(session)

    def _note_holders(self, session):
        if session.holders() != session.noted_holders:
            session.noted_holders = session.holders()
            self._send_blob(session)

    def _send_blob(self, session):
        if session.ring is not None or session.state == STARTING:
            self.guard.send(wire.BLOB, session=session.id, blob=_blob(session))
            session.note_end()

    # -- leaving -------------------------------------------------------------------------

    def on_quit(self):
        """We are stopped on purpose: those who would come back by themselves are told."""
        if not self._is_leaving:
            self.ownership.tell_stopping()
        self.on_leave()

    @property
    def is_leaving(self):
        """Whether it is too late for anything to be decided here."""
        return self._is_leaving

    def on_leave(self):
        """Stop reading, hand over what is not written yet, go.  The guard keeps the rest."""
        if self._is_leaving:
            return
        while self._exits:                  # perhaps nobody comes after us
            self._take_exit(self._exits.popleft())
        self._save_again()
        self._write_waiting(len(self._unwritten))
        self._is_leaving = True
        self._is_serving = False
        self.logs.stop()
        self.log("leaving", sessions=len(self.sessions), clients=len(self.clients))
        if self._listener is not None:
            self.loop.change(self._listener.fileno(), 0)
        for session in self.sessions.values():
            session.give_up_end_of_input()
        for turns in list(self._sends.values()):
            for send in list(turns):
                send.cancel("the daemon is being replaced")
        for client in list(self.clients):
            client.give_back(direct.LEAVING)
            if client.cursor is not None and client.cursor.may_type:
                client.say_farewell()       # what was typed so far is still to be heard
            else:
                client.close_after_flush("the daemon is leaving")
        self.loop.after(FAREWELL_S, self._let_go)
        self._maybe_let_go()

    def _maybe_let_go(self):
        if self._is_leaving and not self.clients:
            self._let_go()

    def _let_go(self):
        """Nobody says anything any more: hand over what is left, and be gone."""
        if self._has_let_go:
            return
        self._has_let_go = True
        self.answering.release_all(self.sessions.values())
        self._write_waiting(len(self._unwritten))
        for client in list(self.clients):
            client.close("the daemon is leaving")
        self.guard.send_joined(self._hand_over)
        self.guard.leave(self.loop.stop)

    def _hand_over(self):
        for session in self.sessions.values():
            if session.ring is not None:
                self._hand_over_input(session)

    def _hand_over_input(self, session):
        asked_from = self.answering.first_unanswered(session)
        if not session.input and asked_from == session.asked_from and session.is_noted():
            return                      # nothing happened since the guard was told last
        session.asked_from = asked_from
        try:
            self.guard.send(wire.BLOB, session=session.id, blob=_blob(session),
                            input=session.unwritten() or None)
        except ProtocolError as error:      # a hundred clients' full queues
            self.log("input_not_handed_over", session=session.id, error=error.message)

    def on_end(self):
        """The guard has gone while nothing was ours, or it lets us go."""
        self.loop.stop()

    def _watch_idleness(self):
        """Without a living session, kept output and clients for long enough: leave (C-304)."""
        is_idle = self._is_serving and self.idle_exit_s and not self.clients \
            and not self.endings.is_pending() and not any(
                session.is_living or session.awaits_relaunch or session.ring for session in self.sessions.values())
        if not is_idle and self._idle_timer is not None:
            self._idle_timer.cancel()
            self._idle_timer = None
        elif is_idle and self._idle_timer is None:
            self._idle_timer = self.loop.after(self.idle_exit_s, self._stop_idle)

    def _stop_idle(self):
        self.log("idle_exit", after_s=self.idle_exit_s)
        self.guard.send(wire.STOPPING)

    # -- when the guard dies -------------------------------------------------------------

    def listener_descriptor(self):
        """The listening socket, to be deposited."""
        return self._listener.fileno()

    def deposits(self):
        """(descriptors, fields) of each session that is held here."""
        for session in self.sessions.values():
            if session.ring is None:
                continue
            descriptors = (session.ring_fd,) + ((session.master,) if session.master >= 0 else ())
            exit_fields = {}
            if session.raw_exit is not None:
                raw, known, at_ms = session.raw_exit
                exit_fields = dict(exited=1, status=raw, status_known=known, exited_at_ms=at_ms)
            yield descriptors, dict(exit_fields, session=session.id, blob=_blob(session),
                                    pid=session.record["pid"],
                                    pid_start=session.record["pid_start"],
                                    launch=session.launch or None,
                                    spawn_number=session.record.get("spawn", 1))

    def on_deposited(self):
        """The new guard holds a slave of each terminal again: those can be read on."""
        self.ownership.tell_guard()
        for session in self.sessions.values():
            session.has_let_go = False
            self._wake(session)


def _load_for_later():
    """Load what is not needed to read on, a piece at each step.  Not when it is needed: our archive,
    or the interpreter's own modules, may be others by then."""
    import re               # noqa: F401
    yield
    import json             # noqa: F401
    yield
    import socket           # noqa: F401
    yield
    from . import supervise     # noqa: F401
    yield
    from . import sweeping      # noqa: F401
    yield
    load_screen()


class Rehearsed:
    """What is made of an offer before it is ours: a Session with nothing but what its blob tells.

    It holds for `fields`, those of the offer then.
    """

    def __init__(self, id_, fields, now):
        self.fields = fields
        record, self.holders, ending, notice, *looked_at = _read_blob(id_, fields.get("blob", b""), now)
        record.update(pid=fields.get("pid") or None, pid_start=fields.get("pid_start"))
        if fields.get("spawn_number", 0) > record.get("spawn", 1):
            # It was restarted, and whoever asked for that died before it could note so.
            record.update(spawn=fields["spawn_number"], state=RUNNING, exit=None, ended_at=None,
                          reason=None, collected=False)
        session = self.session = Session(record)
        session.launch = fields.get("launch", b"")
        session.ending = ending
        session.notice = notice
        session.past, session.sizes, self.asked_from = looked_at
        self._as_told = None            # of `_changing` while our blob would be what the guard has

    def look_ahead(self, backend, descriptors):
        """Map its memory, without a look at it, and see whether there is anything to tell the guard."""
        session = self.session
        if descriptors and not self.fields.get("quarantined"):
            session.memory = backend.map_memory(descriptors[0])
        session.noted_holders = self.holders if session.is_living else 0
        if not self.fields.get("exited") and _blob(session) == self.fields.get("blob"):
            self._as_told = self._changing()

    def _changing(self):
        session = self.session
        return session.state, session.noted_holders, session.notice, session.past.offset

    def is_as_told(self):
        """Whether adoption has changed nothing that would be in its blob."""
        return self._as_told is not None and self._as_told == self._changing()

    def drop(self):
        """It will not be adopted so."""
        if self.session.memory is not None:
            self.session.memory.close()
            self.session.memory = None


def _blob(session):
    record = session.record
    if record["state"] == GIVEN_UP:     # of one that is held the first version does not expect that
        record = dict(record, state=ENDED, relaunch=dict(relaunch_of(record), gave_up=True))
    return jsontext.write({"record": record, "holders": session.noted_holders,
                           "ending": session.ending, "notice": _as_text(session.notice),
                           "past": past.told_facts(session.past, session.sizes), "asked": session.asked_from},
                          jsontext.COMPACT).encode("ascii")


def _read_blob(id_, blob, now):
    """(record, number of holders, what is to become of it, the notice in its output, its Past,
    its Sizes, where a query waits for its answer); a blob that cannot be used costs the name,
    not the session."""
    try:
        fields = jsontext.read(blob.decode("utf-8"))
        record, holders = fields["record"], int(fields.get("holders", 0))
        if not shape_fault(record) and record["id"] == id_:
            ending = fields.get("ending")
            return (record, holders, ending if isinstance(ending, dict) else None,
                    _read_notice(fields.get("notice")), *past.read_facts(fields.get("past"),
                                                                        record["size"]),
                    _read_offset(fields.get("asked")))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        pass
    size = {"cols": 80, "rows": 24}
    return ({"id": id_, "name": "recovered-" + id_, "incarnation": 1, "spawn": 1, "state": RUNNING,
             "argv": [], "cwd": "/", "size": size, "created_at": now,
             "ended_at": None, "exit": None, "pid": None, "pid_start": None, "labels": {},
             "restart": "never", "collected": False}, 0, None, None, *past.read_facts(None, size), None)


def _read_offset(value):
    return value if type(value) is int and value >= 0 else None


def _as_text(notice):
    return notice and [notice[0], notice[1].decode("ascii")]


def _read_notice(value):
    """(offset, bytes) again, or None."""
    if isinstance(value, list) and len(value) == 2 and type(value[0]) is int \
            and isinstance(value[1], str):
        return value[0], value[1].encode("ascii", "replace")
    return None


def main(backend, argv, binary):
    """The daemon process: `argv` is [root, setting...]; descriptor 3 is the guard's link."""
    import sys
    root, settings = argv[0], dict(item.partition("=")[::2] for item in argv[1:])
    paths = backend.find_paths(root)
    journal = Journal(paths.daemon_log, "daemon", time.time)
    journal.redirect(2)
    backend.raise_descriptor_limit()
    copy_lock = backend.try_lock(binary, "daemon", shared=True)
    journal.banner(version=OURS, protocol=f"{frames.PROTOCOL_MIN}-{frames.PROTOCOL_MAX}",
                   pid=os.getpid(), python=sys.version.split()[0], platform=sys.platform,
                   poller=backend.poller_name(), binary=binary)
    daemon = Daemon(backend, paths, settings, journal, (sys.executable, binary))
    daemon.open(3)
    daemon.loop.run()
    journal("stopped")
    del copy_lock
    return 0
