"""Viewing: a session's screen in a client.

It is made here, by whoever looks, from the bytes that the daemon keeps, and kept up to date
by feeding it what comes: the daemon's loop draws nothing and serves everybody.

A daemon of before the first screens does not tell what its older output has set: then the
screen is made from what there is, from a place where replay may start.
"""

import time
from collections import deque

from . import frames, skipping
from .channel import Follower
from .errors import NoSuchSession, PtyguardError
from .replay import Replay
from .terminal import safe_start

HISTORY_LINES = 1000           # what a Screen keeps of what leaves it at the top
STEP_BYTES = 32 * 1024         # of spite, half a second's worth ...
STEP_CELLS = 2048              # ... on a screen of that size; of larger ones it is less


def take(channel, target, history_max=HISTORY_LINES, timeout_s=None):
    """(facts of the session, its `Replay`) as of now."""
    ok, data = channel.read(timeout_s, target=target, past=True)
    return ok["session"], replayed(ok, data, ok["offset"] + len(data), history_max)


REPAINT_LIMIT_S = 2.0          # for a program to paint anew ...
REPAINT_QUIET_S = 0.2          # ... and to be through with it, or to have no mind to


def look(channel, target, history_max=HISTORY_LINES, timeout_s=None):
    """`take`, after the program has been asked to paint again if what it shows is not all known."""
    session, replay = take(channel, target, history_max, timeout_s)
    if replay.screen.is_whole or session["state"] != "running" or not ask_to_repaint(channel, target):
        return session, replay
    with channel.another("view") as other:
        viewing = Viewing(other, target, history_max)
        deadline = time.monotonic() + REPAINT_LIMIT_S
        while viewing.end is None and time.monotonic() < deadline:
            is_done = viewing.screen is not None and viewing.screen.is_whole
            if not other.wait_readable(REPAINT_QUIET_S if is_done else REPAINT_LIMIT_S / 2):
                break
            for _ in viewing.burst():
                pass
        return viewing.session, viewing.replay or replay


def ask_to_repaint(channel, target):
    """Whether the program was told to paint its screen."""
    try:
        channel.request("repaint", target=target)
    except PtyguardError:               # it has ended, or the daemon is an older one
        return False
    return True


def replayed(told, data, end_offset, history_max=HISTORY_LINES):
    """The `Replay` of `data`, which ends at `end_offset`; `told` by the daemon: `past`, `session`."""
    making = Making(told, data, end_offset, history_max)
    while not making.step():
        pass
    return making.replay


class Making:
    """A `Replay` being made from output that ends at `end_offset`, in steps."""

    def __init__(self, told, data, end_offset, history_max=HISTORY_LINES):
        past = told.get("past")
        if past is None:
            skipped = safe_start(data) if len(data) < end_offset else 0
            data = data[skipped:]
            size = told["session"]["size"]
            past = {"sequences": "", "sizes": [[0, size["cols"], size["rows"]]]}
        # Not past["offset"]: after a kill -9 of a daemon that can lie before the oldest byte.
        self._past = dict(past, offset=end_offset - len(data))
        self._history_max = history_max
        self._data = memoryview(data)
        self._begin(may_guess=True)

    def _begin(self, may_guess):
        self.replay = Replay(self._past, self._history_max)
        self._rest = self._data
        self._pieces = deque()          # of the beginning of that: (bytes, instead of them or None)
        self._may_guess, self._is_guess = may_guess, False

    def step(self):
        """Feed the next piece; whether that was the last."""
        if not self._pieces:
            self._plan()
        data, instead = self._pieces.popleft()
        cols, rows = self.replay.screen.size
        count = max(64, STEP_BYTES * STEP_CELLS // max(STEP_CELLS, cols * rows))
        if instead is None:
            self.replay.feed(data[:count])
            if count < len(data):
                self._pieces.appendleft((data[count:], None))
        else:
            self.replay.stand_in(instead[:count])
            if count < len(instead):
                self._pieces.appendleft((data, instead[count:]))
                return False
            self.replay.skip(len(data))
            if self._is_guess and len(self._pieces) == 1:
                self.replay.screen.doubt_cells()
        if self._pieces or self._rest:
            return False
        if self._is_guess and not self.replay.screen.is_certain:
            self._begin(may_guess=False)
            return False
        return True

    def _plan(self):
        """Find out what has to be fed of what comes before the size changes."""
        data = self._rest[:self.replay.steady(len(self._rest))]
        may_guess = self._may_guess and len(data) == len(self._rest)
        plan = skipping.plan(bytes(data), self.replay.screen, self._history_max, may_guess)
        self._is_guess = plan.is_guess
        self._pieces.extend((data[start:end], instead) for start, end, instead in plan.pieces)
        self._rest = self._rest[plan.pieces[-1][1]:]


class Viewing(Follower):
    """One session's screen, kept up to date over daemons' deaths and gaps.

    `screen` is None until the first `burst` that brings it.  After each burst it shows all that
    has come; `end` is then the session's end, if it came.
    """

    def __init__(self, channel, target, history_max=0):
        self._history_max = history_max
        self._told = None
        self._restored = bytearray()
        self._replay = None
        super().__init__(channel, target, "restore")

    def ask_to_repaint(self):
        """On a connection of its own: this one is for what comes then."""
        with self.channel.another("repaint") as other:
            ask_to_repaint(other, "@" + self.session["id"])

    @property
    def replay(self):
        """What makes the screen; None before that."""
        return self._replay

    @property
    def screen(self):
        return self._replay and self._replay.screen

    def _attach(self, target, start, **more):
        is_whole = self._replay is None
        self._restored.clear()
        self._told = super()._attach(target, "restore" if is_whole else start, **more)
        if not is_whole:                # it may have been resized while no daemon was there
            size = self.session["size"]
            self._replay.resize((size["cols"], size["rows"]))

    def _take_frame(self, type_, offset, payload):
        if type_ == frames.RESTORE:
            self._restored += payload
        elif type_ == frames.OUTPUT:
            self._replay.feed_at(offset, payload)

    def _on_event(self, event):
        super()._on_event(event)
        if event["event"] == "live" and self._replay is None:
            self.offset = event["offset"]
            self._replay = replayed(self._told, bytes(self._restored), self.offset, self._history_max)
            self._restored.clear()
        elif event["event"] == "resized" and self._replay is not None:
            self._replay.resize(event["size"], event.get("offset"))
        elif event["event"] == "gap":
            self._begin_anew()

    def _begin_anew(self):
        """What came in between is gone: as if one had only come now; older output that still
        comes is known then."""
        try:
            with self.channel.another("view") as other:
                self.session, self._replay = take(other, "@" + self.session["id"], self._history_max)
        except NoSuchSession:
            pass                        # that is told on this connection, too
