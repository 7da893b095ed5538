"""Rounds: the contenders take turns, so that whatever else the machine does hits them all.

Rule 1: a ratio is the median over the rounds of the ratio of two runs of the same round, which
        follow each other; it is never a quotient of medians.
Rule 2: who fails once is out, with the reason; the others go on.  Ctrl-C ends the run that it
        hits, like a failure; twice within two seconds it ends the suite.
Rule 3: every run is bounded, by an alarm that interrupts whatever blocks.
"""

import contextlib
import math
import signal
import statistics
import subprocess
import sys
import time

RUN_LIMIT_S = 300.0
TWICE_S = 2.0


class Failure(Exception):
    """A contender did not do its part."""


@contextlib.contextmanager
def bounded(limit_s):
    """The block raises Failure when it is not done by then; not to be nested."""
    def too_late(*_):
        raise Failure(f"not done after {limit_s:g} s")

    before = signal.signal(signal.SIGALRM, too_late)
    signal.setitimer(signal.ITIMER_REAL, limit_s)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@contextlib.contextmanager
def undisturbed():
    """Neither the alarm nor Ctrl-C interrupts the block."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGALRM, signal.SIGINT, signal.SIGTERM))
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def take_turns(cases, rounds, title):
    """({name: [figures of each round]}, {name: why it has none}).

    `cases` are (name, function); the function makes one run and returns a dict of numbers.
    """
    runs = {name: [] for name, _ in cases}
    failures = {}
    interrupted = 0.0
    for number in range(rounds):
        for name, measure in cases:
            if name not in runs:
                continue
            began = time.monotonic()
            try:
                with bounded(RUN_LIMIT_S):
                    runs[name].append(measure())
                said = f"{time.monotonic() - began:.1f} s"
            except (Failure, OSError, ValueError, KeyError, subprocess.SubprocessError) as error:
                said = _put_out(name, number, error, runs, failures)
            except KeyboardInterrupt:
                if time.monotonic() - interrupted < TWICE_S:
                    raise
                interrupted = time.monotonic()
                said = _put_out(name, number, Failure("interrupted (Ctrl-C once more, now, ends it all)"), runs, failures)
            sys.stderr.write(f"{title}: round {number + 1}/{rounds}, {name}: {said}\n")
    return runs, failures


def _put_out(name, number, error, runs, failures):
    del runs[name]
    what = str(error) if isinstance(error, Failure) else f"{type(error).__name__}: {error}"
    failures[name] = f"failed in round {number + 1}: {what}"
    return failures[name]


def ratio(runs, name, base, figure):
    """The median over the rounds of name's figure through base's, or None."""
    found = []
    for one, other in zip(runs.get(name, ()), runs.get(base, ())):
        mine, its = (_middle(run.get(figure)) for run in (one, other))
        if mine is not None and its:
            found.append(mine / its)
    return statistics.median(found) if found else None


def _middle(value):
    return statistics.median(value) if isinstance(value, list) else value


def quantile(values, share):
    """The smallest value that at least `share` of them do not exceed."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def fairness(amounts):
    """Jain's index: 1.0 if all got the same, 1/n if one got all."""
    squares = sum(amount * amount for amount in amounts)
    return sum(amounts) ** 2 / (len(amounts) * squares) if squares else None
