"""Reconcile: what an authority's list of living sessions means for those that are here.

Somebody else knows which sessions are wanted (an editor its tabs, a scheduler its jobs) and
says so.  `reconcile` decides and touches nothing; `Pass` does what was decided.

    in the list    here               action
    no             idle               drop: ended, forgotten, a tombstone put up
    no             in use             keep: who is attached, what runs, since when it is quiet
    no             over               keep: its output and status are kept as those of others
    yes            a session          keep
    yes            a tombstone        lift: the name is free again

Rule 1: a failed probe is not a death.  A pass in which many look dead at once tells more of
        the authority than of them, and nothing is done (`is_conclusive`).
Rule 2: what is not known of a session speaks for it.
Rule 3: a pass takes as long as its kills.  Each session is judged again when its turn comes.
Rule 4: what fails is told of that one, and the others have their turn.
"""

from collections import namedtuple

from .errors import PtyguardError
from .registry import LIVING_STATES

IDLE_S = 60.0
DEAD_LEAST = 5                 # so many look dead at once, and more than half of them all:
DEAD_SHARE = 0.5               # then the list is not believed

DROP, KEEP, LIFT, FAILED = "drop", "keep", "lift", "failed"

Item = namedtuple("Item", "name id action reason")
Plan = namedtuple("Plan", "items is_conclusive")


def reconcile(records, held, tombstones, live, now, idle_s=IDLE_S):
    """The Plan: an Item for each session, the oldest first, then one for each tombstone to lift.

    `records` and `tombstones` are dicts by id; `live` holds names and `@ID`s; `held` tells of
    each living session, by id: `clients` (how many are there), `leader` (its pid),
    `foreground` (a process group, None: not known), `active_at` (of the last output or input,
    on the clock of `now`).
    """
    ordered = sorted(records.values(), key=lambda record: (record["created_at"], record["id"]))
    living = [record for record in ordered if record["state"] in LIVING_STATES]
    dead = [record for record in living if not is_listed(record, live)]
    if len(dead) >= DEAD_LEAST and len(dead) > DEAD_SHARE * len(living):
        why = f"{len(dead)} of {len(living)} look dead at once: nothing is done"
        return Plan([_item(record, KEEP, "is in the list" if is_listed(record, live) else why)
                     for record in ordered], False)
    items = [_judge(record, held.get(record["id"]), live, now, idle_s) for record in ordered]
    items += [Item(tombstone["name"], id_, LIFT, "is in the list")
              for id_, tombstone in sorted(tombstones.items()) if is_listed(tombstone, live)]
    return Plan(items, True)


def is_listed(record, live):
    """Whether the authority knows it, by name or by id."""
    return record.get("name") in live or "@" + record["id"] in live


def _judge(record, facts, live, now, idle_s):
    if is_listed(record, live):
        return _item(record, KEEP, "is in the list")
    why = protection(record, facts, now, idle_s)
    return _item(record, KEEP, why) if why else _item(record, DROP, "is not in the list")


def _item(record, action, reason):
    return Item(record["name"], record["id"], action, reason)


def protection(record, facts, now, idle_s=IDLE_S):
    """Why this session, which is not in the list, stays; "" when nothing speaks for it."""
    return next((reason(record, facts, now, idle_s) for speaks, reason in _PROTECTIONS
                 if speaks(record, facts, now, idle_s)), "")


# The first that holds is told.
_PROTECTIONS = (
    (lambda record, facts, now, idle_s: record["state"] not in LIVING_STATES,
     lambda record, facts, now, idle_s: "has ended: it is kept as others are"),
    (lambda record, facts, now, idle_s: record["state"] != "running" or facts is None,
     lambda record, facts, now, idle_s: f"is {record['state']}: nothing is known of it"),
    (lambda record, facts, now, idle_s: facts["clients"],
     lambda record, facts, now, idle_s: f"{facts['clients']} attached"),
    (lambda record, facts, now, idle_s: facts["foreground"] is None,
     lambda record, facts, now, idle_s: "its foreground program is not known"),
    (lambda record, facts, now, idle_s: facts["foreground"] != facts["leader"],
     lambda record, facts, now, idle_s: f"process group {facts['foreground']} is in the foreground"),
    (lambda record, facts, now, idle_s: now - facts["active_at"] < idle_s,
     lambda record, facts, now, idle_s: f"active {max(0.0, now - facts['active_at']):.0f} s ago"),
)


class Pass:
    """One pass over `daemon`'s sessions; `act(plan)` at its end, with what was done."""

    def __init__(self, daemon, live, idle_s, act):
        self._daemon = daemon
        self._live = frozenset(live)
        self._idle_s = idle_s
        self._act = act
        self._done = []
        self._left = []

    def plan(self):
        """What would be done now."""
        sessions = self._daemon.sessions.values()
        return reconcile({session.id: session.record for session in sessions},
                         {session.id: self._look(session) for session in sessions
                          if session.is_living},
                         self._daemon.tombstones.all(), self._live, self._daemon.loop.clock(),
                         self._idle_s)

    def _look(self, session):
        is_open = session.master >= 0
        return {"clients": sum(not cursor.is_log for cursor in session.cursors)
                + session.awaited_holders,
                "leader": session.record["pid"],
                "foreground": self._daemon.backend.foreground_group(session.master)
                if is_open else None,
                "active_at": self._daemon.loop.clock() if session.input else session.active_at}

    def begin(self):
        """Do it, one after the other."""
        plan = self.plan()
        self._left = plan.items[::-1]
        self._go_on(plan.is_conclusive)

    def _go_on(self, is_conclusive=True):
        while self._left:
            item = self._left.pop()
            if item.action == DROP:
                if self._drop(item):
                    return              # _on_dropped comes back here
            elif item.action == LIFT:
                self._lift(item)
            else:
                self._done.append(item)
        self._act(Plan(self._done, is_conclusive))

    def _drop(self, item):
        """Whether its end is under way."""
        session = self._daemon.sessions.get(item.id)
        why = "is gone already" if session is None else protection(
            session.record, self._look(session), self._daemon.loop.clock(), self._idle_s)
        if why:
            self._done.append(item._replace(action=KEEP, reason=why))
            return False
        try:
            self._daemon.endings.destroy(session, lambda error: self._on_dropped(item, error))
        except (PtyguardError, OSError) as error:
            self._done.append(item._replace(action=FAILED, reason=str(error)))
            return False
        return True

    def _on_dropped(self, item, error):
        self._done.append(item if error is None
                          else item._replace(action=FAILED, reason=error.message))
        self._daemon.loop.soon(self._go_on)

    def _lift(self, item):
        try:
            self._daemon.tombstones.remove(item.id)
        except PtyguardError as error:
            item = item._replace(action=FAILED, reason=error.message)
        self._done.append(item)
