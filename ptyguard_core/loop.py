"""Loop: readiness and deadlines, one thread, no ticks.

A descriptor is watched by one callable that gets the readiness bits; a deadline
is an absolute time on the clock that was given.  The loop sleeps until the next
fact: with nothing to do it does not wake.

Rule 1: interest 0 means "not in the poller at all", since a poller reports
        hang-ups unasked and would spin.
Rule 2: a callable that raises leaves the loop; who can answer for an error
        catches it below.  Run again, the loop has forgotten nothing but that call.
"""

import heapq
from collections import deque

SLEEP_MAX_S = 86400.0           # pollers count milliseconds in an int: 24 days


class Timer:
    """One deadline; `cancel` makes it nothing."""

    __slots__ = ("deadline", "act")

    def __init__(self, deadline, act):
        self.deadline = deadline
        self.act = act

    def cancel(self):
        """Idempotent; also fine after it has fired."""
        self.act = None

    def __lt__(self, other):
        return self.deadline < other.deadline


class Loop:
    """Readiness of `poller`, deadlines by `clock` (seconds, never going back)."""

    def __init__(self, poller, clock):
        self.clock = clock
        self.is_stopped = False
        self.ready_count = 0            # descriptors ready in this turn
        self._poller = poller
        self._interest = {}             # fd -> bits
        self._handlers = {}             # fd -> callable(bits)
        self._timers = []
        self._soon = []

    def watch(self, fd, handler, bits):
        """Call `handler(bits)` whenever `fd` is ready for what is asked."""
        self._handlers[fd] = handler
        self._interest[fd] = 0
        self.change(fd, bits)

    def change(self, fd, bits):
        """Ask for other readiness of a watched `fd`; cheap when nothing changes."""
        before = self._interest[fd]
        if bits == before:
            return
        if not before:
            self._poller.register(fd, bits)
        elif not bits:
            self._poller.unregister(fd)
        else:
            self._poller.modify(fd, bits)
        self._interest[fd] = bits

    def forget(self, fd):
        """Stop watching `fd`, before it is closed; idempotent."""
        if self._interest.pop(fd, 0):
            self._poller.unregister(fd)
        self._handlers.pop(fd, None)

    def at(self, deadline, act):
        """Call `act()` once the clock has reached `deadline`; returns the Timer."""
        timer = Timer(deadline, act)
        heapq.heappush(self._timers, timer)
        return timer

    def after(self, delay_s, act):
        """Call `act()` in `delay_s` seconds."""
        return self.at(self.clock() + delay_s, act)

    def soon(self, act):
        """Call `act()` at the end of this turn; asked for by such a call, the next."""
        self._soon.append(act)

    @property
    def has_soon(self):
        """Whether something is still to be called at the end of this turn."""
        return bool(self._soon)

    def stop(self):
        """Leave `run` after this turn."""
        self.is_stopped = True

    def run(self):
        """Turn until stopped."""
        while not self.is_stopped:
            self.turn()

    def turn_until_ready(self, fd, bits, timeout_s, check):
        """Turn until `fd` is ready, or the time is over (None: never); whether it is.

        `check()` is called after each turn and may raise.  `fd` is watched by nobody else.
        """
        told = []
        timer = None if timeout_s is None else self.after(timeout_s, lambda: told.append(0))
        self.watch(fd, told.append, bits)
        try:
            while not told:
                self.turn()
                check()
        finally:
            self.forget(fd)
            if timer is not None:
                timer.cancel()
        return bool(told[0])

    def turn(self):
        """Wait for facts and act on them, once."""
        ready = self._poller.poll(self._sleep_s())
        self.ready_count = len(ready)
        for fd, bits in ready:
            handler = self._handlers.get(fd)
            if handler is not None:     # an earlier handler may have closed it
                handler(bits)
        if self._timers:
            self._fire()
        acts, self._soon = deque(self._soon), []
        try:
            while acts:                 # what these ask for comes next turn: no one starves
                acts.popleft()()
        finally:
            self._soon[:0] = acts       # one has failed: the others keep their turn

    def _sleep_s(self):
        if self._soon:
            return 0
        while self._timers and self._timers[0].act is None:
            heapq.heappop(self._timers)
        if not self._timers:
            return -1                   # for ever
        return min(SLEEP_MAX_S, max(0.0, self._timers[0].deadline - self.clock()))

    def _fire(self):
        now = self.clock()
        while self._timers and self._timers[0].deadline <= now:
            act = heapq.heappop(self._timers).act
            if act is not None:
                act()
