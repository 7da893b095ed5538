"""Lending: whose an attached client's terminal is, its own or the daemon's (see direct.py).

    ours --offer--> offered --reply--> stopped --go--> lent --returned--> ours
                       |                                 |                  ^
                       +--refused--> ours, for good      +--reclaim--> reclaimed

Only this state is kept here; who sends and writes is attach.py.

Rule 1: from `go` to `returned` nobody but the daemon knows what the terminal shows.  When it dies
        then, its mark says how far that is; killed within a write it has left none, and the
        screen is painted afresh.
Rule 2: keys are read by one at a time, or they would change places.  They are the daemon's
        until it has given the terminal back.  If some lie unread UNREAD_S after others did, it
        is asked to: it may be stopped, or its program's queue full, and the detach key has to
        work.  If it has not for as long again, they are ours without its word.
"""

OURS, OFFERED, STOPPED, LENT, RECLAIMED = "ours", "offered", "stopped", "lent", "reclaimed"

UNREAD_S = 1.0


class Lending:
    """`ask(verb, **fields)` queues a request and gives its serial; `has_keys()` tells whether
    something typed lies unread in the terminal."""

    def __init__(self, loop, is_possible, ask, has_keys):
        self.has_been = False           # lent at least once: we have not seen all that was shown
        self._loop = loop
        self._is_possible = is_possible
        self._may_offer = is_possible
        self._ask = ask
        self._has_keys = has_keys
        self._state = OURS
        self._is_unknown = False
        self._serial = None             # of the request that is not answered
        self._timer = None
        self._is_returning = False      # reclaimed, and the keys are the daemon's still (rule 2)

    @property
    def may_offer(self):
        """Whether the terminal is ours, and the daemon may be asked to take it."""
        return self._may_offer and self._state == OURS

    @property
    def is_ours(self):
        """Whether the daemon does nothing with it, as it does not before `go` either."""
        return self._state in (OURS, OFFERED, STOPPED)

    @property
    def is_lent(self):
        """Whether output and keys are the daemon's."""
        return self._state == LENT

    @property
    def reads_keys(self):
        """Whether what is typed is ours to read (rule 2)."""
        return self._state != LENT and not self._is_returning

    @property
    def is_asking(self):
        """Whether the daemon was asked to take it or give it back, and has not answered."""
        return self._state in (OFFERED, RECLAIMED)

    @property
    def is_due(self):
        """Whether the daemon takes it once all that it has sent is written."""
        return self._state == STOPPED

    @property
    def is_unknown(self):
        """Whether the terminal may show more than we know of (rule 1)."""
        return self._is_unknown

    @property
    def watches_keys(self):
        """Whether it is still to be seen that keys are typed at all (rule 2)."""
        return self._timer is None

    def offer(self, key):
        """Ask the daemon to take it; `key` is the text of the detach key, or None."""
        self._state = OFFERED
        self._serial = self._ask("lend", key=key)

    def hear_reply(self, reply):
        """A reply to something, perhaps to what we have asked."""
        if reply.get("id") != self._serial:
            return
        if self._state == OFFERED:
            self._may_offer = "error" not in reply
            self._state = STOPPED if self._may_offer else OURS
        elif self._state == RECLAIMED:
            self._state = OURS

    def go(self):
        """It is the daemon's now."""
        self._state = LENT
        self.has_been = self._is_unknown = True

    def hear_returned(self, event):
        """The daemon has given it back."""
        self._stop_watching()
        self._is_unknown = False
        if self._state != RECLAIMED:    # else the reply says that no more is to come
            self._state = OURS
        if event.get("reason") == "hung_up":
            self._may_offer = False     # whatever it was: it is not tried again and again

    def reclaim(self):
        """Have it back."""
        self._stop_watching()
        if self._state in (OFFERED, STOPPED, LENT):
            self._state = RECLAIMED
            self._serial = self._ask("reclaim")

    def forget(self):
        """The daemon is gone; the next one may be asked."""
        self._stop_watching()
        self._state = OURS
        self._is_unknown = False
        self._may_offer = self._is_possible

    def see_key(self, act):
        """Something is typed: from now on it is looked whether the daemon takes it; `act()` when
        something else is to be watched for."""
        def look():
            self._timer = None
            if self._state == LENT and self._has_keys():
                self.reclaim()
                self._is_returning = True
                self._timer = self._loop.after(UNREAD_S, give_up)
            act()

        def give_up():
            self._stop_watching()
            act()

        self._timer = self._loop.after(UNREAD_S, look)

    def _stop_watching(self):
        self._is_returning = False
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
