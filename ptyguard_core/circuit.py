"""Circuit: when a daemon that died may be started again.  Arithmetic; time is an argument.

A daemon that had said ready and was ended by SIGKILL did nothing wrong and is
started again at once; only a storm of such kills is slowed down.  Every other
unasked death counts, and too many of those open the circuit: then it is better
to tell clients why than to burn the machine.  One that becomes ready closes it.
"""

STORM_DEATHS, STORM_WINDOW_S, STORM_GAP_S = 50, 10.0, 0.1
COUNTED_DEATHS, COUNTED_WINDOW_S = 3, 60.0          # more than these open the circuit
RETRY_AFTER_S = (60.0, 120.0, 300.0, 600.0)         # the last one for ever


class Circuit:
    """The deaths so far, and what follows from them."""

    def __init__(self):
        self.is_open = False
        self.retry_at = None            # absolute, while open
        self.reason = ""
        self._kills = []
        self._counted = []
        self._retries = 0

    def died(self, now, was_killed_when_ready, reason):
        """Note a death; returns the absolute time of the next start."""
        if was_killed_when_ready:
            self._kills = [t for t in self._kills if now - t < STORM_WINDOW_S] + [now]
            return now + (STORM_GAP_S if len(self._kills) >= STORM_DEATHS else 0.0)
        self._counted = [t for t in self._counted if now - t < COUNTED_WINDOW_S] + [now]
        self.reason = reason
        if not self.is_open and len(self._counted) <= COUNTED_DEATHS:
            if len(self._counted) == 1:
                self._retries = 0       # a quiet minute lies behind it
            return now
        self.is_open = True
        delay = RETRY_AFTER_S[min(self._retries, len(RETRY_AFTER_S) - 1)]
        self._retries += 1
        self.retry_at = now + delay
        return self.retry_at

    @property
    def recent_deaths(self):
        """Counted deaths in the last window, as of the last death."""
        return len(self._counted)

    def became_ready(self):
        """A half-open try worked: the listener may open again.

        The counted deaths stay: one that is ready and then falls over, time
        after time, opens the circuit too.
        """
        self.is_open = False
        self.retry_at = None

    def reset(self):
        """An operator asked for a restart: all is forgotten."""
        self.__init__()
