"""Stall: has a peer that owes us something gone silent, or are we merely waiting?

Only arithmetic: time is an argument, in seconds of a clock that never goes back.  Who
pings, and what is done about a peer that does not answer, others know.

    asked --5 s of silence--> PING --0.5 s--> PROBE: a hello on another connection
      ^                                         |
      +------- any frame, or a welcome ---------+          neither within 30 s: given up

A wait for hours is legitimate, and an answered ping proves life.  Silence that was ended
by nothing but such answers is asked about less and less often, at last every 30 s.

Rule 1: whatever comes counts as life; it is read before anything is judged.
Rule 2: only watched time counts.  Who looks later than it was to (it was stopped, or the
        machine slept) has watched nothing: the silence counts from then.  So it does not
        matter whether the clock goes on while the machine sleeps.
Rule 3: where a ping may lie unread (the peer does not listen to who sends more than it
        takes) its silence proves nothing: another connection is tried at once.
"""

SILENCE_S = 5.0                # of somebody who owes an answer, before it is pinged ...
SILENCE_MAX_S = 30.0           # ... doubled up to this, while only pings are answered
PONG_PATIENCE_S = 0.5          # then another way is tried, which costs little
GIVE_UP_S = 30.0               # from the asking, or the last sign of life
LATE_S = 2.0                   # a look so late was no look

PING, PROBE = "ping", "probe"


class Stall:
    """One peer's silence.  `ask` begins it, `hear` ends it, `look` says what to do."""

    def __init__(self, now):
        self._since = now               # the asking, or the last sign of life
        self._silence_s = SILENCE_S
        self._pinged_at = None
        self._is_deaf_here = False      # alive, and does not listen to this connection

    def ask(self, now):
        """Something was asked: an answer is owed from now on."""
        self._since = now
        self._silence_s = SILENCE_S
        self._pinged_at = None

    def hear(self, now, is_here=True):
        """A sign of life; `is_here`: on this very connection."""
        if self._pinged_at is not None:
            self._silence_s = min(SILENCE_MAX_S, 2 * self._silence_s)
        else:
            self._silence_s = SILENCE_S
        self._since = now
        self._pinged_at = None
        self._is_deaf_here = not is_here

    def look(self, now, can_ping=True):
        """PING, PROBE, or None: nothing before `due_at`.

        After PROBE the caller says `hear` or gives up.
        """
        if now > self.due_at + LATE_S:
            self._since, self._pinged_at = now, None        # rule 2
        act = self._act(now, can_ping and not self._is_deaf_here)
        if act is not None:
            self._pinged_at = now if self._pinged_at is None else self._pinged_at
        return act

    def _act(self, now, can_ping):
        if self._pinged_at is None:
            if now < self._since + self._silence_s:
                return None
            return PING if can_ping else PROBE
        return PROBE if now >= self._pinged_at + PONG_PATIENCE_S else None

    @property
    def due_at(self):
        """When to look again."""
        if self._pinged_at is None:
            return self._since + self._silence_s
        return self._pinged_at + PONG_PATIENCE_S

    def probe_limit_s(self, now):
        """How long a probe that begins now may take.

        A silence that was asked about late has the same time from then on.
        """
        began = now if self._pinged_at is None else self._pinged_at
        return max(0.0, began + GIVE_UP_S - SILENCE_S - now)
