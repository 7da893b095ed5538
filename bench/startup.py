"""Start-up: the time of whole commands, warm and cold, from an archive, a bare archive and a checkout.

"archive" has byte-code beside each source, as `sh zipapp.sh` makes it; "sources" is the same archive without
byte-code; "checkout" is a copy of the tree, with the byte-code that Python keeps beside it. `python3 -c pass`
is what an interpreter costs by itself, `-I -S` one that looks for no packages. All run on the interpreter that
runs this suite.

Warm: guard and daemon run, with one session. Cold: none runs; "first" makes the private copy of the code too,
"again" finds it. A time is from before the process is made to its end, output thrown away; the medians of each
round's commands, then of the rounds.
"""

import contextlib
import os
import shutil
import sys
import tempfile
import time
import zipfile
from functools import partial

from contenders import BARE, Place, ptyguard, verbs
from rounds import Failure, quantile, take_turns
from tables import Figure, Table

ROUNDS = 3
SAMPLES = 10
WARM = (("ls",), ("ls", "--json"), ("info", "s0"), ("send", "s0", "x"), ("status",), ("version",), ("--help",))
PROGRAM = ("sh", "-c", "stty raw -echo; exec cat >/dev/null")       # takes what is sent
TREE = ("ptyguard.py", "ptyguard_posix.py", "ptyguard_win.py", "ptyguard_core")
BASE = "python3 -c pass"


def seconds_of(argv, environment, status=0):
    """How long that command takes from its start to its end, silent; Failure if its status is another."""
    actions = [(os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0)] + [
        (os.POSIX_SPAWN_OPEN, fd, os.devnull, os.O_WRONLY, 0) for fd in (1, 2)]
    began = time.perf_counter()
    pid = os.posix_spawnp(argv[0], argv, environment, file_actions=actions)
    ended = os.waitpid(pid, 0)[1]
    seconds = time.perf_counter() - began
    if status is not None and ended != status << 8:
        raise Failure(f"{' '.join(argv)[:200]}: wait status {ended}")
    return seconds


# -- the three forms --------------------------------------------------------------------------

def forms(options, scratch):
    """[(form, ptyguard)] of this checkout."""
    archive = options.build()
    sources = os.path.join(scratch, "sources.pyz")
    _without_byte_code(archive, sources)
    tree = os.path.join(scratch, "checkout")
    os.mkdir(tree)
    for name in TREE:
        path = os.path.join(options.root, name)
        if os.path.isdir(path):
            shutil.copytree(path, os.path.join(tree, name), ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(path, tree)
    return [("archive", ptyguard("archive", archive)), ("sources", ptyguard("sources", sources)),
            ("checkout", ptyguard("checkout", tree))]


def _without_byte_code(archive, path):
    with zipfile.ZipFile(archive) as old, open(path, "wb") as file:
        file.write(b"#!/usr/bin/env python3\n")
        with zipfile.ZipFile(file, "w") as new:
            for entry in old.infolist():
                if not entry.filename.endswith(".pyc"):
                    new.writestr(entry, old.read(entry))


class Commands(Place):
    """A place where commands are timed; Python may keep byte-code of a checkout."""

    def __init__(self, contender):
        super().__init__(contender)
        self.environment.pop("PYTHONDONTWRITEBYTECODE")
        self._has_session = False

    def times(self, words, count):
        """Figures of that command, run so often after one that is not counted, beside one session."""
        if not self._has_session and self.contender is not BARE:
            self.run(self.command(self.contender.detached, PROGRAM, "s0"))
            self._has_session = True
        argv = self.command(words)
        seconds = [seconds_of(argv, self.environment) for _ in range(count + 1)][1:]
        return {"p50": 1000 * quantile(seconds, 0.5), "worst": 1000 * max(seconds)}


def run_cold(contender, again, words):
    """The first command of a place where nothing runs."""
    with Commands(contender) as place:
        argv = place.command(words)
        if again:
            place.run(argv)
            place.run(place.command(verbs(contender, "daemon", "stop", "--sessions", "kill", "--force")))
        took = 1000 * seconds_of(argv, place.environment)
        return {"p50": took, "worst": took}


# -- the measure ------------------------------------------------------------------------------

FIGURES = [Figure("p50", "p50 ms", "{:.1f}"), Figure("worst", "worst ms", "{:.1f}", "max")]


def measure(chosen, options):
    """The tables, one by one."""
    count = 1 if options.quick else SAMPLES
    rounds = options.rounds or ROUNDS
    tmux = [one for one in chosen if one.kind == "tmux"]
    scratch = tempfile.mkdtemp(prefix="pg-bench-")
    try:
        ours = forms(options, scratch)
        if options.ptyguard:            # without, the one that was built is the same as "archive"
            ours += [(one.name, one) for one in chosen if one.kind == "ptyguard"]
        yield _warm(ours[:2] if options.quick else ours, tmux, count, rounds, WARM[:1] if options.quick else WARM)
        yield _cold(ours[:1] if options.quick else ours, tmux, rounds)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _warm(ours, tmux, count, rounds, commands):
    with contextlib.ExitStack() as places:
        bare = places.enter_context(Commands(BARE))
        cases = [(" ".join(["python3"] + words), partial(bare.times, [sys.executable] + words, count))
                 for words in (["-c", "pass"], ["-I", "-S", "-c", "pass"])]
        for form, contender in ours:
            place = places.enter_context(Commands(contender))
            cases += [(f"{form}: {' '.join(words)}", partial(place.times, verbs(contender, *words), count))
                      for words in commands]
        for contender in tmux:
            place = places.enter_context(Commands(contender))
            cases.append(("tmux ls", partial(place.times, contender.list, count)))
        return Table("warm", f"Warm: guard and daemon run, {count} of each a round", FIGURES, ["p50"],
                     *take_turns(cases, rounds, "warm"), bases=[BASE, "tmux ls"])


def _cold(ours, tmux, rounds):
    cases = []
    for form, contender in ours:
        words = [word.replace("{s}", "s0") for word in contender.detached] + ["sleep", "1000000"]
        cases += [(f"{form}: start, first", partial(run_cold, contender, False, words)),
                  (f"{form}: start, again", partial(run_cold, contender, True, words)),
                  (f"{form}: ls, again", partial(run_cold, contender, True, contender.list))]
    for contender in tmux:
        cases.append(("tmux new-session -d",
                      partial(run_cold, contender, False, contender.detached + ["sleep", "1000000"])))
    return Table("cold", "Cold: no guard runs, one of each a round", FIGURES, ["p50"],
                 *take_turns(cases, rounds, "cold"), bases=["tmux new-session -d"])
