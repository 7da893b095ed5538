"""Loop: readiness and deadlines, one thread, no ticks.

A descriptor is watched by one callable that gets the readiness bits; a deadline
is an absolute time on the clock that was given.  The loop sleeps until the next
fact: with nothing to do it does not wake.

Some descriptors are urgent: somebody waits for an answer.  They lie in an inner poller,
which is itself in the outer one, and are served between any two pieces of other work: a
keystroke waits for one read of a terminal that streams, not for a turn of all of them.

Rule 1: interest 0 means "not in the poller at all", since a poller reports
        hang-ups unasked and would spin.
Rule 2: a callable that raises leaves the loop; who can answer for an error
        catches it below.  Run again, the loop has forgotten nothing but that call.
Rule 3: who is urgent starves nobody: between two pieces of other work each is called once,
        in a turn URGENT_A_TURN times, and what it asks for by `soon` is done there, but what
        that asks for at the end of the turn.
Rule 4: without an inner poller all are alike.
"""

import heapq
from collections import deque

from .backend import READABLE, WRITABLE

SLEEP_MAX_S = 86400.0           # pollers count milliseconds in an int: 24 days
URGENT_A_TURN = 16              # calls of one descriptor: then it waits like others


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
    """Readiness of `poller`, deadlines by `clock` (seconds, never going back).

    `inner` is the back-end's poller for what is urgent, or None.
    """

    def __init__(self, poller, clock, inner=None):
        self.clock = clock
        self.is_stopped = False
        self.ready_count = 0            # descriptors ready in this turn, but for the urgent and
                                        # those that only take more
        self._poller = poller
        self._inner = inner
        self._inner_fd = None           # as the outer poller knows it
        self._interest = {}             # fd -> bits
        self._handlers = {}             # fd -> callable(bits)
        self._urgent = set()
        self._calls = {}                # urgent fd -> how often it was called in this turn
        self._timers = []
        self._soon = []
        if inner is not None:
            self._inner_fd = inner.fileno()
            poller.register(self._inner_fd, READABLE)

    def watch(self, fd, handler, bits, is_urgent=False):
        """Call `handler(bits)` whenever `fd` is ready for what is asked."""
        self._handlers[fd] = handler
        self._interest[fd] = 0
        self.set_urgent(fd, is_urgent)
        self.change(fd, bits)

    def set_urgent(self, fd, is_urgent):
        """Whether `fd`, if it is watched, is served before others; cheap when nothing changes."""
        if self._inner is None or is_urgent == (fd in self._urgent) or fd not in self._interest:
            return
        bits = self._interest[fd]
        if bits:
            self._poller_of(fd).unregister(fd)
        self._urgent.add(fd) if is_urgent else self._urgent.discard(fd)
        if bits:
            self._poller_of(fd).register(fd, bits)

    def is_urgent(self, fd):
        """Whether it is served before others."""
        return fd in self._urgent

    def _poller_of(self, fd):
        return self._inner if fd in self._urgent else self._poller

    def interest(self, fd):
        """What `fd` is watched for; 0 also when it is not watched at all."""
        return self._interest.get(fd, 0)

    def change(self, fd, bits):
        """Ask for other readiness of a watched `fd`; cheap when nothing changes."""
        before = self._interest[fd]
        if bits == before:
            return
        poller = self._poller_of(fd)
        if not before:
            poller.register(fd, bits)
        elif not bits:
            poller.unregister(fd)
        else:
            poller.modify(fd, bits)
        self._interest[fd] = bits

    def forget(self, fd):
        """Stop watching `fd`, before it is closed; idempotent."""
        if self._interest.pop(fd, 0):
            self._poller_of(fd).unregister(fd)
        self._urgent.discard(fd)
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
        if self._calls:
            self._calls.clear()
        if len(ready) == 1:             # mostly: a key, or one stream
            fd, bits = ready[0]
            if fd == self._inner_fd:
                self.ready_count = 0
                self._serve_urgent()
            else:
                self.ready_count = int(bits != WRITABLE)
                handler = self._handlers.get(fd)
                if handler is not None:
                    handler(bits)
        else:
            self._act_on(ready)
        if self._timers:
            self._fire()
        if self._soon:
            acts, self._soon = deque(self._soon), []
            self._act_in_order(acts, self._serve_urgent)

    def _act_on(self, ready):
        # With its handler: one that is closed meanwhile is not called, nor another of that number.
        due = [(fd, bits, self._handlers.get(fd)) for fd, bits in ready if fd != self._inner_fd]
        self.ready_count = sum(bits != WRITABLE for _, bits, _ in due)
        if len(due) < len(ready):
            self._serve_urgent()
        for index, (fd, bits, handler) in enumerate(due):
            if index:
                self._serve_urgent()
            if handler is not None and self._handlers.get(fd) is handler:
                handler(bits)

    def _serve_urgent(self):
        """Call each urgent descriptor that is ready, once (rule 3)."""
        if not self._urgent:
            return
        ready = self._inner.poll(0)
        if not ready:
            return
        due = [(fd, bits, self._handlers.get(fd)) for fd, bits in ready]
        later, self._soon = self._soon, []
        try:
            for fd, bits, handler in due:
                calls = self._calls.get(fd, 0)
                if calls < URGENT_A_TURN and handler is not None and self._handlers.get(fd) is handler:
                    self._calls[fd] = calls + 1
                    handler(bits)
        except BaseException:
            self._soon[:0] = later      # rule 2
            raise
        acts, self._soon = self._soon, later
        if acts:
            self._act_in_order(deque(acts))

    def _act_in_order(self, acts, between=None):
        """Call what `soon` was given; what these ask for comes next turn: no one starves."""
        try:
            while acts:
                acts.popleft()()
                if acts and between is not None:
                    between()
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
                self._serve_urgent()
