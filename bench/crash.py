"""Crash: a storm of kill -9 of the daemon under a full stream; what is lost, and for how long nothing comes.

A session writes numbered lines as fast as they are taken, and a reader reads them: `ptyguard run` into a pipe,
or an attached terminal. Every 200 to 300 ms the daemon is killed with SIGKILL. (More than 50 deaths in ten
seconds make the guard pause before it starts another; the storm stays below that.)

Recovery is the time from the kill to the end of the longest silence at the reader before 64 KiB have come from
the next daemon: bytes that were under way when it died do not end it. Every byte is compared with the one that
had to come: "lost" and "doubled" count those that did not come, and those that came again.

An attached terminal that was handed over to the daemon is painted afresh after such a death, since nobody can
know what reached the glass; so there nothing is compared on the way, and for all terminals the log is in the
end ("lost of log").

No peer has a line here: kill -9 of the process that keeps a session of dtach, abduco, tmux or screen ends the
session.
"""

import os
import random
import signal
import time
from functools import partial

from contenders import Place, by_socket, verbs
from outer import Pipe, Terminal
from rounds import Failure, take_turns
from sequence import READY, Checker, Writer, pieces
from tables import Figure, Table

KILLS = 300
KILLS_A_ROUND = 100
PAUSE_S = (0.2, 0.3)
RECOVERED_BYTES = 64 * 1024


class Unchecked:
    """In a Checker's place where bytes cannot be compared."""

    is_over = False

    def feed(self, data):
        """Take the next bytes."""


class Storm:
    """Kills, and the reader that they are seen from."""

    def __init__(self, place, drain, checker):
        self._place, self._drain = place, drain
        self.checker = checker
        self.recoveries_ms, self.total_bytes = [], 0
        self._pieces = pieces(drain, checker, limit_s=float("inf"))
        self._killed = None

    def _next(self):
        when, count = next(self._pieces)
        self.total_bytes += count
        return when, count

    def stream_for(self, seconds):
        """Let it stream."""
        until = time.perf_counter() + seconds
        while self._next()[0] < until:
            pass

    def kill(self):
        """Kill the daemon, and read until the next one's bytes come."""
        self._killed = self._place.daemon_pid()
        if self._killed is None:
            raise Failure("no daemon holds daemon.lock")
        os.kill(self._killed, signal.SIGKILL)
        began = last = time.perf_counter()
        silence = (0.0, began)          # its length, its end
        received = 0
        while received < RECOVERED_BYTES:
            when, count = self._next()
            if count:
                silence = max(silence, (when - last, when))
                last = when
                received = received + count if self._is_replaced() else 0
        self._killed = None
        self.recoveries_ms.append(round(1000 * (silence[1] - began), 2))

    def _is_replaced(self):
        return self._place.daemon_pid() not in (None, self._killed)


def run_storm(contender, through, kills):
    """One storm; `through`: "pipe" or "terminal"."""
    pauses = random.Random(kills)
    is_exact = through == "pipe" or contender.name.endswith("(socket)")
    with Place(contender) as place:
        writer = Writer(place)
        argv = verbs(contender, "run", "-n", "bench", "--") if through == "pipe" else contender.attached
        reader = {"pipe": Pipe, "terminal": Terminal}[through]
        with reader(place.command(argv, writer.argv), place.environment) as drain:
            drain.to(READY)
            writer.go()
            storm = Storm(place, drain, Checker() if is_exact else Unchecked())
            for _ in range(kills):
                storm.stream_for(pauses.uniform(*PAUSE_S))
                storm.kill()
            writer.stop()
            figures = {"recovery": storm.recoveries_ms, "kills": kills}
            if is_exact:
                for _ in pieces(drain, storm.checker):
                    pass
                figures.update(lost=storm.checker.lost, doubled=storm.checker.doubled)
            figures.update(mb=storm.total_bytes / 1e6, log_lost=_lost_of_log(place, drain))
            return figures


def _lost_of_log(place, drain):
    """Bytes that are lost or doubled in what is kept of the output, once its end is there."""
    deadline = time.monotonic() + 60.0
    while time.monotonic() < deadline:
        while drain.some(0.01):         # its reader may still hold the program
            pass
        log = place.run(place.command(verbs(place.contender, "log", "--raw", "bench")))
        checker = Checker()
        checker.feed(checker.start_anywhere(log))
        if checker.is_over:
            return checker.lost + checker.doubled
    raise Failure("the log does not come to its end")


def measure(chosen, options):
    """The tables, one by one."""
    readers = [(f"{one.name}, {how}", one, through) for found in chosen if found.kind == "ptyguard"
               for one, how, through in ((found, "pipe", "pipe"), (found, "attached", "terminal"),
                                         (by_socket(found), "attached", "terminal"))]
    if not readers:
        return
    each = -(-(3 if options.quick else options.kills or KILLS) // len(readers))
    rounds = options.rounds or -(-each // KILLS_A_ROUND)
    kills = -(-each // rounds)
    cases = [(name, partial(run_storm, one, through, kills)) for name, one, through in readers]
    yield Table("storm", f"kill -9 of the daemon, {kills * rounds} times each, under a full stream", [
        Figure("recovery", "recovery p50 ms", "{:.0f}", "p50"), Figure("recovery", "p99 ms", "{:.0f}", "p99"),
        Figure("recovery", "max ms", "{:.0f}", "max"), Figure("kills", "kills", "{:.0f}", "sum"),
        Figure("mb", "MB read", "{:.0f}", "sum"), Figure("lost", "lost bytes", "{:.0f}", "sum"),
        Figure("doubled", "doubled bytes", "{:.0f}", "sum"), Figure("log_lost", "lost of log", "{:.0f}", "sum")],
        [], *take_turns(cases, rounds, "crash"))
