"""Upgrade: for how long a reader sees nothing while the daemon is replaced, with 1, 100 and 1000 sessions.

One session writes a numbered line each millisecond, and `ptyguard run` passes them into a pipe; the others are
idle. `ptyguard daemon restart` then replaces the daemon, on the path that `ptyguard upgrade` takes: the
successor is started and gets everything from the guard, then the predecessor stops.

"pause" is the longest time between two arrivals at the reader, from the command's start until 1.5 s after its
end, less the usual one (the median of those before it). "noise" is the same for half a second in which nothing
is replaced: what the machine does by itself. "takes" is how long the command runs. Every byte is compared with
the one that had to come.

No peer has a line here: dtach, abduco, tmux and screen cannot be replaced while sessions live.
"""

import statistics
import subprocess
import time
from functools import partial

from contenders import Place, verbs
from outer import Pipe
from rounds import Failure, take_turns
from sequence import READY, Checker, Writer, pieces
from tables import Figure, Table

ROUNDS = 2
RESTARTS = 5
SESSIONS = (1, 100, 1000)
LINE_PAUSE_S = 0.001
GAPS_MIN = 20
BEFORE_S, AFTER_S = 0.5, 1.5


class Reader:
    """Arrivals at the reader, and their gaps."""

    def __init__(self, drain, checker):
        self._pieces = pieces(drain, checker, limit_s=float("inf"))
        self._last = time.perf_counter()

    def gaps_until(self, is_done):
        """The times between arrivals, until that is so."""
        found = []
        while not is_done():
            when, count = next(self._pieces)
            if count:
                found.append(when - self._last)
                self._last = when
        return found

    def gaps_for(self, seconds):
        """The same for so long, and until there are enough of them."""
        until = time.perf_counter() + seconds
        found = self.gaps_until(lambda: time.perf_counter() > until)
        return found + (self.gaps_for(seconds) if len(found) < GAPS_MIN else [])


def run_restarts(contender, sessions, restarts):
    """All figures of some restarts with so many sessions."""
    with Place(contender) as place:
        place.start_many({f"idle{i}": ["sleep", "1000000"] for i in range(sessions - 1)})
        writer, checker = Writer(place, LINE_PAUSE_S), Checker()
        with Pipe(place.command(verbs(contender, "run", "--"), writer.argv), place.environment) as pipe:
            pipe.to(READY)
            writer.go()
            reader = Reader(pipe, checker)
            reader.gaps_for(BEFORE_S)
            figures = {"pause": [], "noise": [], "takes": []}
            for _ in range(restarts):
                _restart(place, reader, figures)
            writer.stop()
            for _ in pieces(pipe, checker):
                pass
        return dict(figures, lost=checker.lost, doubled=checker.doubled)


def _restart(place, reader, figures):
    """One restart; its figures are added."""
    before, old = reader.gaps_for(BEFORE_S), place.daemon_pid()
    usual, began = statistics.median(before), time.perf_counter()
    command = subprocess.Popen(place.command(verbs(place.contender, "daemon", "restart")), env=place.environment,
                               stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    during = reader.gaps_until(lambda: command.poll() is not None)
    took = time.perf_counter() - began
    if command.returncode:
        raise Failure(f"daemon restart: exit code {command.returncode}")
    # It is told once the successor has been told to go; with many sessions that takes a while.
    during += reader.gaps_until(lambda: place.daemon_pid() not in (None, old))
    during += reader.gaps_for(AFTER_S)
    figures["pause"].append(round(1000 * (max(during) - usual), 2))
    figures["noise"].append(round(1000 * (max(before) - usual), 2))
    figures["takes"].append(round(1000 * took))


def measure(chosen, options):
    """The tables, one by one."""
    sizes = (2,) if options.quick else SESSIONS
    restarts = 1 if options.quick else RESTARTS
    cases = [(f"{one.name}, {count} session{'s' if count > 1 else ''}",
              partial(run_restarts, one, count, restarts))
             for count in sizes for one in chosen if one.kind == "ptyguard"]
    if cases:
        yield Table("pause", f"daemon restart, {restarts} times a round, under a reader", [
            Figure("pause", "pause p50 ms", "{:.0f}", "p50"), Figure("pause", "max ms", "{:.0f}", "max"),
            Figure("noise", "noise p50 ms", "{:.0f}", "p50"), Figure("noise", "noise max ms", "{:.0f}", "max"),
            Figure("takes", "takes p50 ms", "{:.0f}", "p50"), Figure("lost", "lost bytes", "{:.0f}", "sum"),
            Figure("doubled", "doubled bytes", "{:.0f}", "sum")],
            [], *take_turns(cases, options.rounds or ROUNDS, "upgrade"))
