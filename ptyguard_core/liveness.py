"""Liveness: is anybody left with whom a daemon shares its life?

Only arithmetic: time is an argument, in seconds of a clock that never goes back.  Who
holds a link, and what is done once nobody does, others know.

Rule 1: only a link arms the watchdog.  Nothing else that connects, asks or leaves does.
Rule 2: the grace counts from the latest drop, whichever holder that was.
Rule 3: it fires once for each arming, and looks again at that very moment: a deadline
        that was worked out earlier is a time to look, no order.
"""

from collections import namedtuple

GRACE_S = 5.0
GRACE_MAX_S = 30 * 86400.0
# Holders of a daemon that died have at least so long to find the next one: more than
# the longest pause between their tries.
RETURN_S = 5.0

KEEP, KILL = ON_ORPHAN = ("keep", "kill")

FIRST_PAUSE_S = 0.2            # before a holder tries to come back ...
LONGEST_PAUSE_S = 2.0          # ... doubled up to this

# What a holder wants: `grace_s`, and what becomes of sessions once it has passed.
Terms = namedtuple("Terms", "grace_s on_orphan")


def most_careful(wanted):
    """What holds for several: the longest grace, and sessions end only if all want that."""
    wanted = list(wanted)
    return Terms(max(terms.grace_s for terms in wanted),
                 KILL if all(terms.on_orphan == KILL for terms in wanted) else KEEP)


def pauses():
    """Yield the seconds before each try to come back."""
    pause_s = FIRST_PAUSE_S
    while True:
        yield pause_s
        pause_s = min(LONGEST_PAUSE_S, 2 * pause_s)


class Watchdog:
    """Who holds, and since when nobody does."""

    def __init__(self):
        self.is_armed = False
        self.terms = None               # of those who hold; of the last one when nobody does
        self._holders = {}              # holder -> Terms
        self._dropped_at = None         # the latest drop

    @property
    def holders(self):
        """How many hold."""
        return len(self._holders)

    def is_holder(self, holder):
        """Whether this one holds."""
        return holder in self._holders

    def link(self, holder, terms):
        """This one holds from now on; again is fine, and may have other terms."""
        self._holders[holder] = terms
        self.terms = most_careful(self._holders.values())
        self.is_armed = True

    def drop(self, holder, now):
        """This one is gone; whether it held."""
        if self._holders.pop(holder, None) is None:
            return False
        self._dropped_at = now
        if self._holders:
            self.terms = most_careful(self._holders.values())
        return True

    def resume(self, terms, now):
        """Be armed as a daemon was that died; its holders are on their way, or gone too."""
        self.terms = terms._replace(grace_s=max(terms.grace_s, RETURN_S))
        self._dropped_at = now
        self.is_armed = True

    def disarm(self):
        """Never fire, until the next link."""
        self.is_armed = False

    def rearm(self):
        """Whoever holds now counts again."""
        self.is_armed = bool(self._holders)

    @property
    def due_at(self):
        """When to look whether to fire; None: not unless something happens first."""
        if not self.is_armed or self._holders:
            return None
        return self._dropped_at + self.terms.grace_s

    def fire(self, now):
        """Whether it is time; True once."""
        due_at = self.due_at
        if due_at is None or now < due_at:
            return False
        self.is_armed = False
        return True
