"""Relaunching: programs that are started again without being asked for (`start --restart POLICY`).

What follows an end is decided by restartpolicy.py; here it is noted, waited for and done.  What
must outlive this process is in the record, as `relaunch`:

    attempts     made in a row, the one that is due included
    due_at       when the next one is due; null: none is
    started_at   when the present program was started; null: with the session
    judged       spawn number of the child whose end has been judged: none is judged twice
    off          somebody wanted it ended: it stays so until somebody starts it
    gave_up      its attempts are used up: it is failed once its output has been read

A session whose `due_at` is set is not over: names, clients and waiters stay.  One that the guard
holds gets another child in its ring, as `restart` does it.  One that is lost gets a new ring, and
is started from what is on disk for that:

    launches/ID.json     {"id": ID, "launch": what it was started with, environment included}

It is there only for sessions with a policy, from before their start until their record goes.

Rule 1: wanting it ended is on disk before the first signal: killed is killed, whoever dies.
Rule 2: adopt the living, reap the leaked, relaunch the asked, in this order.  Leaked are processes
        of a lost session that live on.  They are known by pid and start time, or by the session's
        id and directory in their environment; a number alone says nothing.
Rule 3: a notice stands ahead of the new program's output.  What it says and at which offset is
        with the guard before the program is, so that a kill -9 neither doubles it nor cuts it.
Rule 4: what is wrong on disk costs a relaunch, never the daemon.
"""

import os
import time

from . import jsontext
from .errors import Busy, PtyguardError, StateUnusable, UsageError
from .registry import REASON_REBOOT, NoRegistry, RecordFiles, is_valid_id, shape_fault
from .restartpolicy import (AGAIN, FAILED, LOSS, NEVER, cause_of, decide, policy_in)
from .ring import CAPACITY_MIN
from .session import ENDED, GAVE_UP, LOST, STARTING
from .tree import Killing, session_mark

GRACE_S = 5.0                  # for the leaked
WAIT_MAX_S = 60.0              # a clock that was set back makes nobody wait longer
RING_BYTES_MAX = 1 << 30
_GIVEN_UP = "given up after"

_FRESH = {"attempts": 0, "due_at": None, "started_at": None, "judged": None, "off": False,
          "gave_up": False}


# -- what a lost session is started from -----------------------------------------------------

def _is_text(value):
    return isinstance(value, str) and "\0" not in value


def _is_text_list(value):
    return isinstance(value, list) and all(map(_is_text, value))


def _within(low, high):
    return lambda value: type(value) is int and low <= value <= high


# The fields of a SPAWN that are kept, and what each must be.
LAUNCH_FIELDS = {
    "argv": lambda value: _is_text_list(value) and bool(value),
    "executable": _is_text,
    "cwd": _is_text,
    "env": _is_text_list,
    "limits": _is_text_list,
    "ring_bytes": _within(CAPACITY_MIN, RING_BYTES_MAX),
    "echo": _within(0, 1),
    "umask": _within(0, 0o777),
    "nice": _within(-40, 40),
}


def _is_launch(value):
    return isinstance(value, dict) and all(is_right(value.get(field))
                                           for field, is_right in LAUNCH_FIELDS.items())


class LaunchFiles(RecordFiles):
    """What sessions with a restart policy were started with, on disk: mode 0600, like records."""

    FOLDER = "launches"
    _SHAPES = {"id": is_valid_id, "launch": _is_launch}

    @classmethod
    def fault_of(cls, record):
        """As registry.shape_fault."""
        return shape_fault(record, cls._SHAPES, ("id", "launch"))


# -- what is said ------------------------------------------------------------------------------

def notice_text(record, attempt, attempts_max, has_output):
    """The line ahead of a relaunched program's output, bytes."""
    if record["state"] == LOST:
        lost_at = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(record.get("ended_at") or 0))
        why = "a reboot" if record.get("reason") == REASON_REBOOT else "its guard and daemon were gone"
        text = f"relaunched after {why}, which was noticed at {lost_at}"
    else:
        text = f"restarted after {_end_text(record.get('exit') or {})}"
    if record["state"] != LOST or attempt > 1:
        text += f", attempt {attempt} of {attempts_max}"
    return (("\r\n" if has_output else "") + f"[ptyguard: {text}]\r\n").encode("ascii", "replace")


def _end_text(exit_):
    if exit_.get("signal"):
        return exit_["signal"]
    code = exit_.get("code")
    return "an end of unknown status" if code is None else f"exit {code}"


def relaunch_of(record):
    """The record's `relaunch`, whole."""
    return dict(_FRESH, **(record.get("relaunch") or {}))


class Relaunches:
    """The sessions of `daemon` that have a restart policy."""

    def __init__(self, daemon):
        self._daemon = daemon
        self._files = NoRegistry(StateUnusable("the launches are not read yet"))
        self._kept = {}                 # session id -> launch; None: the guard has it in memory
        self._unheld = set()            # ids that only the disk knew
        self._unreaped = set()          # of those, the ones of which somebody may be left
        self._found = None              # pids of whoever may be left
        self._timers = {}               # session id -> when its next attempt is due
        self._trying = set()            # ids whose restart is an attempt of ours
        self._unwanted = set()          # ids that somebody killed while they were being started

    # -- what it was started with ----------------------------------------------------------

    def open(self, records):
        """Read what is on disk; `records` are the registry's, what the guard holds is adopted."""
        daemon = self._daemon
        self._unheld = {id_ for id_ in records if id_ not in daemon.sessions}
        self._unreaped = set(self._unheld)
        try:
            self._files = LaunchFiles(daemon.paths.state, daemon.wall_clock,
                                      lambda: os.urandom(6).hex(), daemon.log)
            found = self._files.load()
        except StateUnusable as error:
            daemon.log("launches_not_loaded", error=error.message)
            if not isinstance(self._files, LaunchFiles):
                self._files = NoRegistry(error)
            return
        for id_, file in found.items():
            if id_ in records or id_ in daemon.sessions:
                self._kept[id_] = file["launch"] if id_ in self._unheld else None
            else:
                self._remove(id_)       # a kill came between the removal of the two

    def keep(self, session):
        """Put on disk what it is started with, if its policy asks for that.

        Raises StateUnusable for a new session: it would not get what it was promised.
        """
        if _policy(session).kind == NEVER or session.id in self._kept:
            return
        try:
            launch = jsontext.read(session.launch.decode("ascii"))
            self._files.write({"id": session.id,
                               "launch": {field: launch.get(field) for field in LAUNCH_FIELDS}})
            self._kept[session.id] = None
        except (StateUnusable, UsageError, ValueError) as error:
            self._daemon.log("launch_not_kept", session=session.id, error=str(error))
            if session.state == STARTING and not session.is_restarting:
                raise StateUnusable(f"what it is to be started again with cannot be kept: {error}",
                                    hint="start it without --restart") from error

    def forget(self, id_):
        """It is not known any more."""
        self._unheld.discard(id_)
        self._unreaped.discard(id_)
        self._trying.discard(id_)
        self._unwanted.discard(id_)
        self._disarm(id_)
        if id_ in self._kept:
            self._remove(id_)

    def _remove(self, id_):
        self._kept.pop(id_, None)
        try:
            self._files.remove(id_)
        except StateUnusable as error:
            self._daemon.log("launch_not_removed", session=id_, error=error.message)

    # -- an end ----------------------------------------------------------------------------

    def on_exit(self, session):
        """Its program has ended, and how is known: what is to follow?"""
        record, relaunch = session.record, relaunch_of(session.record)
        if session.is_restarting or session.is_unopened or relaunch["off"] \
                or relaunch["judged"] == record.get("spawn", 1):
            return
        now = self._daemon.wall_clock()
        ended_at = min(now, record["ended_at"] or now)
        self._judge(session, cause_of(record["exit"]), ended_at, ended_at - _began(record, relaunch))

    def on_lost(self, session):
        """Guard and daemon have gone, and its program with them."""
        record, relaunch = session.record, relaunch_of(session.record)
        if relaunch["off"] or _policy(session).kind == NEVER:
            return
        if session.id not in self._kept:
            record["reason"] += "; not relaunched: what it was started with is not on disk"
            record["relaunch"] = dict(relaunch, due_at=None)
            return
        now = self._daemon.wall_clock()
        has_exit = record.get("exit") and record["exit"] != {"code": None, "signal": None}
        # Another boot is no fault of the program's.
        life_s = float("inf") if record["reason"] == REASON_REBOOT else \
            now - _began(record, relaunch)
        self._judge(session, cause_of(record["exit"]) if has_exit else LOSS, now, life_s)
        self._maybe_fail(session)

    def _judge(self, session, cause, ended_at, life_s):
        record, relaunch = session.record, relaunch_of(session.record)
        decision = decide(_policy(session), cause, relaunch["attempts"], life_s)
        if decision.follows == AGAIN:
            relaunch.update(attempts=decision.attempt, due_at=ended_at + decision.delay_s)
            self._daemon.log("relaunch_due", session=session.id, attempt=decision.attempt,
                             delay_s=decision.delay_s)
        else:
            relaunch.update(due_at=None, gave_up=decision.follows == FAILED)
        if _policy(session).kind != NEVER:
            record["relaunch"] = dict(relaunch, judged=record.get("spawn", 1))

    def on_drained(self, session):
        """Its output has been read to the end; to be called before it is saved."""
        self._maybe_fail(session)
        self._arm(session)

    def _maybe_fail(self, session, why="it ended soon after each start"):
        """Out of attempts: it has failed, and stays so."""
        record, relaunch = session.record, relaunch_of(session.record)
        if not relaunch["gave_up"] or session.state not in (ENDED, LOST):
            return
        session.happen(GAVE_UP)
        before = record.get("reason") or ""
        if _GIVEN_UP not in before:     # else the guard told so; see daemon.py, _blob
            record["reason"] = (before and before + "; ") + f"{_GIVEN_UP} {relaunch['attempts']} attempts: {why}"
            self._daemon.log("relaunch_given_up", session=session.id, name=session.name,
                             attempts=relaunch["attempts"], reason=why)
        record["relaunch"] = dict(relaunch, gave_up=False, due_at=None)

    def cancel(self, session):
        """Somebody wants it ended: then it stays so (rule 1)."""
        if _policy(session).kind == NEVER or session.is_over or relaunch_of(session.record)["off"]:
            return
        was_waiting = session.awaits_relaunch
        self._disarm(session.id)
        if session.is_restarting:
            self._unwanted.add(session.id)
        session.record["relaunch"] = dict(relaunch_of(session.record), off=True, due_at=None)
        self._daemon.save(session)
        # One whose output is still being read tells its end itself.
        if was_waiting and not (session.is_restarting or session.is_living):
            self._daemon.tell_started(session, Busy(f"session {session.name} was killed meanwhile"))
            self._daemon.tell_end(session)

    # -- another start -----------------------------------------------------------------------

    def adopt(self, session):
        """A daemon takes over: go on with what a predecessor had noted."""
        daemon = self._daemon
        if daemon.sessions.get(session.id) is not session:
            return
        launch = self._kept.get(session.id)
        if launch is not None:
            session.launch = jsontext.write(launch, jsontext.COMPACT).encode("ascii")
            self._kept[session.id] = None
        if session.is_living:
            # It was started, and nobody could note so; one that is being drained has its next due.
            if session.awaits_relaunch and not session.record.get("exit"):
                session.record["relaunch"] = dict(relaunch_of(session.record), due_at=None)
            if session.launch:
                self.keep(session)
        elif session.awaits_relaunch and not session.launch:
            session.record["relaunch"] = dict(relaunch_of(session.record), due_at=None)
            session.record["reason"] = (session.record.get("reason") or "its restart was due") \
                + "; not relaunched: what it was started with is not known any more"
            daemon.save(session)
        else:
            _mend(session.record)
            before = session.state
            self._maybe_fail(session)
            if session.state != before:
                daemon.save(session)
            self._arm(session)

    def _arm(self, session):
        if session.is_living or not session.awaits_relaunch:
            return
        self._disarm(session.id)
        due_at = session.record["relaunch"]["due_at"]
        delay_s = min(max(0.0, due_at - self._daemon.wall_clock()), WAIT_MAX_S)
        self._timers[session.id] = self._daemon.loop.after(delay_s, lambda: self._fire(session))

    def _disarm(self, id_):
        timer = self._timers.pop(id_, None)
        if timer is not None:
            timer.cancel()

    def _is_due(self, session):
        return (self._daemon.sessions.get(session.id) is session and session.awaits_relaunch
                and not (session.is_restarting or session.is_living or self._daemon.is_leaving))

    def _fire(self, session):
        self._timers.pop(session.id, None)
        if not self._is_due(session):
            return
        if any(other is not session and other.name == session.name and not other.is_over
               for other in self._daemon.sessions.values()):
            self._give_up(session, "another session has its name")
        else:
            self.reap(session, lambda error: self._on_reaped(session, error))

    def _on_reaped(self, session, error):
        if not self._is_due(session):
            return                      # cancelled meanwhile
        if error is None:
            self._launch(session)
        else:
            self._try_again(session, error.message)

    def _launch(self, session):
        record, ring = session.record, session.ring
        relaunch = record["relaunch"]
        session.notice = (ring.end_offset if ring else 0,
                          notice_text(record, relaunch["attempts"], _policy(session).attempts_max,
                                      bool(ring and ring.end_offset)))
        self._trying.add(session.id)
        try:
            self._daemon.restarts.restart(session, 0.0, lambda error: None)
        except PtyguardError as error:
            self.on_tried(session, error)

    def on_start(self, session, request):
        """A restart, ours or one that somebody asked for, is about to ask the guard for a child."""
        record = session.record
        record["boot_id"] = self._daemon.backend.boot_id()
        if session.id in self._unheld:  # the place of sockets, and of the link, may be another now
            link = self._daemon.agents.adopt(session.id, record.get("agent"))
            if link is not None:
                name = b"SSH_AUTH_SOCK="
                request["env"] = [item for item in request["env"] if not item.startswith(name)] \
                    + [name + link]
        if _policy(session).kind != NEVER:
            attempts = relaunch_of(record)["attempts"] if session.id in self._trying else 0
            record["relaunch"] = dict(_FRESH, attempts=attempts,
                                      started_at=self._daemon.wall_clock())

    def on_tried(self, session, error):
        """A restart has come to its end; with an error all is as it was before."""
        was_ours, is_unwanted = session.id in self._trying, session.id in self._unwanted
        self._trying.discard(session.id)
        self._unwanted.discard(session.id)
        if error is None:
            self._unheld.discard(session.id)
            self._disarm(session.id)
            return
        session.notice = None
        if is_unwanted:                 # what the attempt has put back is not what is wanted now
            session.record["relaunch"] = dict(relaunch_of(session.record), off=True, due_at=None)
            self._daemon.save(session)
        if not (was_ours and session.awaits_relaunch) or session.is_living:
            self._arm(session)
            return
        self._try_again(session, error.message)

    def _try_again(self, session, why):
        """This attempt has failed: is there to be another?"""
        record = session.record
        cause = LOSS if session.state == LOST else cause_of(record.get("exit"))
        decision = decide(_policy(session), cause, record["relaunch"]["attempts"], None)
        if decision.follows != AGAIN:
            self._give_up(session, why)
            return
        record["relaunch"] = dict(relaunch_of(record), attempts=decision.attempt,
                                  due_at=self._daemon.wall_clock() + decision.delay_s)
        self._daemon.log("relaunch_failed", session=session.id, error=why, next_in_s=decision.delay_s)
        self._daemon.save(session)
        self._arm(session)

    def _give_up(self, session, why):
        session.record["relaunch"] = dict(relaunch_of(session.record), due_at=None, gave_up=True)
        self._maybe_fail(session, why)
        self._daemon.save(session)
        self._daemon.tell_started(session, Busy(f"session {session.name} has failed: {why}"))
        self._daemon.tell_end(session)

    # -- what is left of a lost one -----------------------------------------------------------

    def may_live_on(self, session):
        """Whether programs of a lost session may be there yet, and nobody has looked."""
        return session.id in self._unreaped

    def reap(self, session, act):
        """End what lives on of it, before it is started anew (rule 2); `act(error or None)`."""
        try:
            killing = self._killing_of(session) if session.id in self._unreaped else None
        except OSError as error:        # no descriptor to look with
            act(PtyguardError(f"the processes cannot be looked at: {error.strerror}"))
            return
        if killing is None:
            self._unreaped.discard(session.id)
            act(None)
        else:
            self._step(session, killing, act)

    def _killing_of(self, session):
        """A Killing of its leaked processes, or None when there are none."""
        daemon, record = self._daemon, session.record
        then, now = record.get("boot_id"), daemon.backend.boot_id()
        if then and now and then != now:
            return None                 # they ended with their machine
        pid, start = record.get("pid"), record.get("pid_start")
        is_leader = bool(then and now and pid and start
                         and daemon.backend.signal_process(pid, start, 0))
        guard_pid = daemon.guard.facts.get("guard_pid", 0)
        # The table first: a number that changes hands between the two is not signalled.  A child of
        # the present guard is none of what is left.
        starts = {row.pid: row.start for row in daemon.backend.process_table()
                  if row.parent != guard_pid}
        marked = self._remnants()
        if marked:
            marked = marked & daemon.backend.marked_processes(session_mark(session.id))
        seen = {(one, starts[one]) for one in marked if one in starts}
        if not seen and not is_leader:
            return None
        daemon.log("leaked_found", session=session.id, pids=sorted(one for one, _ in seen))
        return Killing(daemon.processes, pid if is_leader else None, 0,
                       [os.getpid(), guard_pid], GRACE_S,
                       daemon.loop.clock(), start if is_leader else None, None, seen)

    def _remnants(self):
        """Pids of all processes of all sessions here, as of the first look.  Looking costs, and what
        comes later is their children, or none of theirs."""
        if self._found is None:
            self._found = self._daemon.backend.marked_processes(
                b"PTYGUARD_DIR=" + os.fsencode(self._daemon.paths.root))
        return self._found

    def _step(self, session, killing, act):
        loop = self._daemon.loop
        try:
            next_at = killing.step(loop.clock(), True)
        except OSError as error:
            self._daemon.log("kill_delayed", session=session.id, error=str(error))
            next_at = loop.clock() + 0.3
        if next_at is not None:
            loop.at(next_at, lambda: self._step(session, killing, act))
        elif killing.is_done:
            self._daemon.log("leaked_reaped", session=session.id)
            self._unreaped.discard(session.id)
            act(None)
        else:
            pids = ", ".join(str(pid) for pid, _ in sorted(killing.survivors))
            act(PtyguardError(f"processes {pids} of before live on"))


def _policy(session):
    return policy_in(session.record.get("restart"))


def _mend(record):
    """What a start counts on, where a record lacks it."""
    if type(record.get("incarnation")) is not int:
        record["incarnation"] = 1
    if not record.get("size"):
        record["size"] = {"cols": 80, "rows": 24}
    record["spawn"] = record.get("spawn") or 1


def _began(record, relaunch):
    """When the present program was started."""
    started_at = relaunch["started_at"]
    return record["created_at"] if started_at is None else started_at
