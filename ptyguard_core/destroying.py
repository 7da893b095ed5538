"""Destroying: ends that were asked for, and are seen to whoever dies meanwhile.

    kill     all of its processes are to be gone; the session stays listed
    destroy  kill, then a tombstone (if one is wanted), then the session is forgotten

What is asked for is noted with the guard before the first signal (`session.ending`), so that
the next daemon goes on with it.  A kill that could not be confirmed is noted in the record
(`kill_pending`), with who lived on, and tried again every 5 minutes until it is.

Rule 1: a tombstone is put up once the teardown has succeeded, and before the session is
        forgotten.  The other order would leave a moment with neither, and a daemon killed in
        that moment would leave a session that its user believes destroyed.  A session that is
        found with a tombstone of its own id is forgotten then.
Rule 2: a teardown that failed changes nothing but `kill_pending`: the session can be used.
Rule 3: between its end and its tombstone a name is destroyed already: nobody who only refers
        to it may start it anew.
"""

from .errors import Busy, PtyguardError
from .session import LOST, STARTING
from .tombstones import destroyed

KILL_AGAIN_S = 300.0
GRACE_S = 5.0
_LAZY = ("use", "rejoin")      # ways to start that only refer to a name
_SURVIVORS_NOTED = 1000        # of a fork bomb the rest is found by its session
_REMEMBERED = ("destroy", "tombstone", "orphans")   # of what was wanted, with who lived on


class _Destruction:
    """One that is under way."""

    def __init__(self):
        self.leaves_tombstone = False
        self.acts = []


class Endings:
    """The sessions of `daemon` that are being ended."""

    def __init__(self, daemon):
        self._daemon = daemon
        self._going = {}                # session id -> _Destruction
        self._timers = {}               # session id -> when its kill is tried again

    # -- killing -------------------------------------------------------------------------

    def kill(self, session, grace_s, act, takes_orphans=False):
        """End its tree; `act(error or None)`.  Remembered until that is confirmed."""
        if session.state == LOST:       # nobody holds it, and some of it may live on
            self._drop_intent(session)
            self._daemon.relaunches.reap(session, act)
            return
        if not (session.is_living or takes_orphans or session.record.get("kill_pending")
                or self._daemon.is_killing(session)):
            if session.id not in self._going:   # of those the rest is still to be done
                self._drop_intent(session)
            act(None)
            return
        self._intend(session, grace_s, kill=True, orphans=takes_orphans)
        pending = session.record.get("kill_pending") or {}
        seen = [tuple(pair) for pair in pending.get("survivors", ())]
        try:
            self._daemon.kill(session, grace_s, lambda error: self._on_killed(session, error, act),
                              takes_orphans, seen)
        except (OSError, PtyguardError):
            self._drop_intent(session)
            raise

    def _intend(self, session, grace_s, **more):
        intent = dict(session.ending or {"grace": grace_s})     # who comes later hurries nobody
        intent.update((key, True) for key, value in more.items() if value)
        if session.ending != intent:
            session.ending = intent
            self._daemon.note_ending(session)

    def _drop_intent(self, session):
        """Nothing is to become of it: nor by the next daemon."""
        if session.ending is not None:
            session.ending = None
            self._daemon.note_ending(session)

    def _on_killed(self, session, error, act):
        if error is None:
            self._settle(session)
        else:
            self._remember(session)
        act(error)

    def _settle(self, session):
        """It is gone, and confirmed to be."""
        timer = self._timers.pop(session.id, None)
        if timer is not None:
            timer.cancel()
        was_pending = session.record.get("kill_pending")
        session.record["kill_pending"] = None
        if session.id not in self._going:       # of those the rest is still to be done
            session.ending = None
        if was_pending:
            self._daemon.log("kill_confirmed", session=session.id, name=session.name)
            self._daemon.save(session)
        elif session.ending is None:
            self._daemon.note_ending(session)

    def _remember(self, session):
        now = self._daemon.wall_clock()
        pending = dict(session.record.get("kill_pending") or {"since": now})
        pending.update((key, True) for key in _REMEMBERED if (session.ending or {}).get(key))
        pending.update(tried_at=now,
                       survivors=[list(one) for one in session.survivors[:_SURVIVORS_NOTED]])
        session.ending = None
        session.record["kill_pending"] = pending
        self._daemon.save(session)
        self._arm(session)

    def _arm(self, session):
        timer = self._timers.pop(session.id, None)
        if timer is not None:
            timer.cancel()
        due = session.record["kill_pending"]["tried_at"] + KILL_AGAIN_S - self._daemon.wall_clock()
        self._timers[session.id] = self._daemon.loop.after(
            min(max(0.0, due), KILL_AGAIN_S), lambda: self._try_again(session))

    def _try_again(self, session):
        self._timers.pop(session.id, None)
        pending = session.record.get("kill_pending")
        if not pending or self._daemon.sessions.get(session.id) is not session:
            return
        self._daemon.log("kill_again", session=session.id, name=session.name)
        self._go_on_with(session, pending, GRACE_S)

    def _go_on_with(self, session, intent, grace_s):
        if self._is_of_another_boot(session):   # none of its processes can be there
            self._settle(session)
        if intent.get("destroy"):
            self.destroy(session, lambda error: None, bool(intent.get("tombstone")))
        else:
            self.kill(session, grace_s, lambda error: None, bool(intent.get("orphans")))

    def _is_of_another_boot(self, session):
        then, now = session.record.get("boot_id"), self._daemon.backend.boot_id()
        return not session.is_living and bool(then and now and then != now)

    def is_pending(self):
        """Whether a kill is still to be confirmed."""
        return bool(self._timers)

    def forget(self, session):
        """It is not known any more."""
        timer = self._timers.pop(session.id, None)
        if timer is not None:
            timer.cancel()

    # -- destroying ----------------------------------------------------------------------

    def destroy(self, session, act, leaves_tombstone=True):
        """Kill it if it lives, put up its tombstone, forget it; `act(error or None)`."""
        going = self._going.get(session.id)
        is_first = going is None
        if is_first:
            going = self._going[session.id] = _Destruction()
        going.acts.append(act)
        going.leaves_tombstone |= leaves_tombstone
        self._intend(session, GRACE_S, destroy=True, tombstone=leaves_tombstone)
        if is_first:
            self._daemon.restarts.cancel(session)
            try:
                self.kill(session, GRACE_S, lambda error: self._on_torn_down(session, error))
            except (OSError, PtyguardError):
                del self._going[session.id]
                self._drop_intent(session)
                raise

    def _on_torn_down(self, session, error):
        if error is not None:
            self._finish(session, error)
        else:
            self._daemon.logs.when_written(session, lambda: self._bury(session))

    def _bury(self, session):
        going = self._going[session.id]
        if not session.is_over:
            self._drop_intent(session)
            self._finish(session, Busy(f"session {session.name} was restarted meanwhile"))
            return
        if going.leaves_tombstone:
            try:
                self.mark(session.id, session.name)
            except PtyguardError as error:
                self._drop_intent(session)
                self._finish(session, error)
                return
        self._daemon.log("session_destroyed", session=session.id, name=session.name,
                         tombstone=int(going.leaves_tombstone))
        self._daemon.forget(session)
        self._finish(session, None)

    def _finish(self, session, error):
        for act in self._going.pop(session.id).acts:
            act(error)

    def mark(self, id_, name, is_made_up=False):
        """Put up a tombstone; of the id alone where somebody else has the name by now.

        Raises StateUnusable.
        """
        is_taken = any(other.name == name and other.id != id_ and not other.is_over
                       and other.state != STARTING      # that lifts it once it has worked
                       for other in self._daemon.sessions.values())
        self._daemon.tombstones.add(id_, None if is_taken else name, is_made_up)

    # -- who may refer to what is destroyed ----------------------------------------------

    def is_destroyed(self, target):
        """Whether that name or `@ID`, which no living session has, was destroyed."""
        if self._daemon.tombstones.find(target) is not None:
            return True
        return bool(self._going_ids(target)) or target.startswith("@") and target[1:] in self._going

    def _going_ids(self, name):
        sessions = self._daemon.sessions
        return {id_ for id_ in self._going if id_ in sessions and sessions[id_].name == name}

    def to_lift(self, name):
        """Ids of the tombstones that a start of `name`, asked for now, lifts when it works."""
        return self._daemon.tombstones.ids_of(name) | self._going_ids(name)

    def check_start(self, id_, name, policy):
        """Whether a start may go ahead that finds no living session of `name`.

        Raises SessionDestroyed: a start that wants an id that was destroyed, or that only
        refers to a name that was.
        """
        if id_ is not None and self._daemon.tombstones.find("@" + id_) is not None:
            raise destroyed(name or "@" + id_)
        if name is not None and policy in _LAZY and self.is_destroyed(name):
            raise destroyed(name)

    # -- a daemon takes over ---------------------------------------------------------------

    def adopt(self, session):
        """Go on with what a predecessor had begun; lift what it had no time to lift."""
        tombstones = self._daemon.tombstones
        if tombstones.find("@" + session.id) is not None:
            if session.is_living:               # its start was under way
                self.destroy(session, lambda error: None)
            else:
                self._daemon.forget(session)
            return
        tombstones.lift(id_ for id_ in tombstones.ids_of(session.name)
                        if tombstones.all()[id_]["at"] <= session.record["created_at"])
        if session.ending:
            self._go_on_with(session, session.ending, _grace_of(session.ending))
        elif session.record.get("kill_pending"):
            self._arm(session)


def _grace_of(intent):
    """Its grace; a daemon of before did not say."""
    grace_s = intent.get("grace")
    return grace_s if type(grace_s) in (int, float) and grace_s >= 0 else GRACE_S
