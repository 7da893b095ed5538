"""Restarting: the same command again, under the same name and id.

`restart` ends the program that runs, if one does, and starts it anew in the same ring:
its history is kept, offsets go on, and whoever is attached stays.  What a program was
started with, its environment included, is kept as `launch` bytes: in memory only, by the
guard and by the daemon, so that either of them may die.

    running --kill--> draining --> ended, stragglers being killed
                                     |
                                   ended --RESTARTED--> starting --SPAWNED--> running
                                     ^                      |
                                     +---RESTART_FAILED-----+      its old end is its end again

Rule 1: an end that leads to a restart is nobody's exit: attached clients and those who
        wait are not told of it, and nobody takes the session for over (`Session.is_over`).
Rule 2: when the new one cannot be started, all is as it was after the end of the old.
Rule 3: of a ring that has been dropped there is nothing to go on from: the session gets
        a new one, and with it a new incarnation.
"""

import os

from . import guardwire as wire, jsontext
from .errors import (Busy, Incompatible, LimitReached, ProtocolError, PtyguardError,
                     Unreachable)
from .link import close_all
from .session import HELD_UNOPENED, RESTART_FAILED, RESTARTED, SPAWNED, STARTING

PATIENCE_S = 30.0               # beyond the grace: for stragglers, and for slow readers of the end

_OF_AN_END = ("state", "exit", "ended_at", "reason", "collected", "spawn", "incarnation", "relaunch")


def encode_launch(request):
    """The bytes to keep of a SPAWN's fields, so that it can be asked for again."""
    return jsontext.write(_as_text(request), jsontext.COMPACT).encode("ascii")


def decode_launch(launch):
    """The fields again, or None when nothing (or nothing usable) was kept."""
    try:
        return _as_bytes(jsontext.read(launch.decode("ascii")))
    except (ValueError, AttributeError, RecursionError):
        return None


def _as_text(value):
    if isinstance(value, bytes):
        return value.decode("utf-8", "surrogateescape")
    if isinstance(value, list):
        return [_as_text(item) for item in value]
    if isinstance(value, dict):
        return {key: _as_text(item) for key, item in value.items()}
    return value


def _as_bytes(value):
    if isinstance(value, str):
        return value.encode("utf-8", "surrogateescape")
    if isinstance(value, list):
        return [_as_bytes(item) for item in value]
    if isinstance(value, dict):
        return {key: _as_bytes(item) for key, item in value.items()}
    return value


class Restarts:
    """The sessions of `daemon` that are being restarted."""

    def __init__(self, daemon):
        self._daemon = daemon
        self._acts = {}                 # session id -> callables(error or None)
        self._before = {}               # session id -> fields of the end that it comes from
        self._killed = set()            # session ids: killed, and not drained yet

    def restart(self, session, grace_s, act):
        """Do it; `act(error or None)` once the new program runs, or why none does."""
        if session.is_restarting:
            acts = self._acts[session.id]
            acts.append(act)
            self._daemon.loop.after(grace_s + PATIENCE_S, lambda: self._give_up(session, acts))
            return
        if decode_launch(session.launch) is None:
            raise PtyguardError(
                f"what session {session.name} was started with is not known any more",
                hint="it was kept in memory only: start it anew")
        if session.state == STARTING or session.is_unopened:
            raise Busy(f"session {session.name} cannot be restarted: it is {session.state}",
                       hint="ptyguard info tells more")
        self._check_guard()
        session.is_restarting = True
        acts = self._acts[session.id] = [act]
        self._daemon.loop.after(grace_s + PATIENCE_S, lambda: self._give_up(session, acts))
        if session.is_living or session.record.get("kill_pending"):
            self._daemon.kill(session, grace_s, lambda error: self._on_killed(session, error))
        else:
            self._daemon.relaunches.reap(session, lambda error: self._on_reaped(session, acts, error))

    def _on_reaped(self, session, acts, error):
        """Nothing lives on of one that was lost."""
        if self._acts.get(session.id) is not acts:
            return                      # cancelled
        if error is None:
            self.go_on(session)
        else:
            self._finish(session, error)

    def _check_guard(self):
        """Before anything is killed: an older guard starts no second child in a ring."""
        facts = self._daemon.guard.facts
        if self._daemon.guard.is_up and facts.get("wire", 1) < wire.WIRE_WITH_RESPAWN:
            raise Incompatible(
                f"the guard, version {facts.get('version', b'?').decode('ascii', 'replace')}, is too "
                "old to restart a session", hint="it is replaced once no session lives and it is "
                                                 "stopped: ptyguard daemon stop")

    def _give_up(self, session, acts):
        """Waiting for it is bounded (C-505): mostly a reader takes none of its last output."""
        if self._acts.get(session.id) is not acts:
            return
        if session.state == STARTING:       # what comes of it yet is the session's, as ever
            told, acts[:] = list(acts), []
            for act in told:
                act(Unreachable(f"the guard has not started session {session.name} again yet",
                                hint="ptyguard ls tells when it runs; ptyguard doctor looks at the guard"))
        else:
            self._finish(session, Busy(
                f"session {session.name} was ended and not started again: its last output "
                "waits for a reader that does not take it", hint="ptyguard info names the readers"))

    def _on_killed(self, session, error):
        """All of its processes are gone; its last output may still wait for a slow reader."""
        if not session.is_restarting or session.id not in self._daemon.sessions:
            return                      # cancelled: it stays ended
        if error is not None:
            self._finish(session, error)
        elif not session.is_living:
            self.go_on(session)
        else:
            self._killed.add(session.id)

    def on_drained(self, session):
        """Its last output has been read."""
        if session.id in self._killed:
            self._killed.discard(session.id)
            self.go_on(session)

    def cancel(self, session):
        """Somebody wants it ended: then it stays so."""
        self._daemon.relaunches.cancel(session)
        if session.is_restarting and session.state != STARTING:
            self._finish(session, Busy(f"session {session.name} was killed meanwhile"))

    def go_on(self, session):
        """Its old program has ended and all is read: start the new one."""
        record = session.record
        request = decode_launch(session.launch)
        self._before[session.id] = {key: record.get(key) for key in _OF_AN_END}
        session.happen(RESTARTED)
        record.update(exit=None, ended_at=None, reason=None, collected=False, kill_pending=None,
                      spawn=record.get("spawn", 1) + 1)
        self._daemon.endings.forget(session)
        self._daemon.relaunches.on_start(session, request)
        request.update(spawn_number=record["spawn"], cols=record["size"]["cols"],
                       rows=record["size"]["rows"])
        self._daemon.log("session_restarting", session=session.id, name=session.name,
                         spawn=record["spawn"])
        try:
            if session.ring is None:
                record["incarnation"] += 1
                session.forget_past()
                self._daemon.answering.forget(session)
                self._daemon.spawn(session, request)
            else:
                self._daemon.ask_guard_to_spawn(
                    wire.RESPAWN, session, request,
                    lambda message: self._on_respawned(session, request, message))
        except ProtocolError as error:
            self.failed(session, error)

    def _on_respawned(self, session, request, message):
        descriptors = (message.descriptors or []) if message is not None else []
        if message is None:
            self.failed(session, Unreachable("the guard went away while it started the command",
                                             hint="try again"))
        elif message.type != wire.SPAWNED:
            self.failed(session, self._daemon.spawn_refusal(request, message))
        elif len(descriptors) != 2:
            # It runs, the guard holds it, and we cannot read it.
            session.record.update(pid=message.number("pid"), pid_start=message.number("pid_start"))
            session.happen(HELD_UNOPENED)
            self.undone(session, LimitReached("the session's terminal did not arrive",
                                              hint="ptyguard daemon restart"))
        else:
            os.close(descriptors.pop(0))        # the ring: it is mapped already
            session.master = descriptors.pop()
            session.begin_anew()
            session.record.update(pid=message.number("pid"),
                                  pid_start=message.number("pid_start"))
            session.happen(SPAWNED)
            for cursor in session.cursors:
                cursor.owner.is_exit_told = False
            self._daemon.resume(session)
            self.succeeded(session)
        close_all(descriptors)

    def succeeded(self, session):
        """It runs."""
        self._before.pop(session.id, None)
        self._daemon.save(session)
        self._finish(session, None)

    def undone(self, session, error):
        """It was started and cannot be used; what becomes of it is the daemon's business."""
        self._before.pop(session.id, None)
        self._finish(session, error)

    def failed(self, session, error):
        """Rule 2."""
        session.happen(RESTART_FAILED)
        session.record.update(self._before.pop(session.id))
        self._daemon.log("restart_failed", session=session.id, error=error.message)
        self._daemon.save(session)
        self._finish(session, error)

    def _finish(self, session, error):
        session.is_restarting = False
        self._killed.discard(session.id)
        self._daemon.relaunches.on_tried(session, error)
        for act in self._acts.pop(session.id, ()):
            act(error)
        self._daemon.tell_started(session, error)       # who asked for a start, and found this
        if not session.is_living:
            self._daemon.tell_end(session)
