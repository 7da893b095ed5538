"""Snapshots: the screen that 256 KiB of output have made, of several kinds of output.

The recorded programs of tests/captures are repeated until they fill that much, plain lines, coloured ones,
other scripts and a `git log -p` of this checkout are made here; each piece begins somewhere else in them.
"p50", "p95" and "worst" are of the screen alone, as ptyguard's own code makes it of output with what is known
of the past, in a process that does nothing else; "1000 lines" of a screen with so many lines of scrollback, as
`attach` asks for it. "verb" is the whole command `ptyguard screen`, the
interpreter's start included, of a session that has written one such piece.

No peer has a line here: tmux and screen have their screens drawn already, for everybody, while output comes;
dtach and abduco have none.
"""

import json
import os
import re
import subprocess
import sys
import time
from functools import partial

from contenders import Place, verbs
from rounds import Failure, take_turns
from startup import seconds_of
from tables import Figure, Table
from throughput import colour_block, short_block, text_block

ROUNDS = 2
PIECES = 8
PIECE_BYTES = 256 * 1024
VERBS = 3

# Arguments: library, columns, rows, file, bytes of a piece, number of pieces.  Prints the seconds of each,
# without scrollback and with 1000 lines of it.
INSIDE = """
import json, sys, time
sys.path.insert(0, sys.argv[1])
from ptyguard_core.viewing import replayed
cols, rows, size, count = (int(sys.argv[i]) for i in (2, 3, 5, 6))
with open(sys.argv[4], "rb") as file:
    data = file.read()
told = {"past": {"sequences": "", "sizes": [[0, cols, rows]]}}
found = {0: [], 1000: []}
for number in range(-1, count):
    for history_max, seconds in found.items():
        start = max(0, number) * 7919
        piece = data[start:start + size]
        begun = time.perf_counter()
        replayed(told, piece, start + size, history_max)
        if number >= 0:             # before that, patterns are compiled
            seconds.append(time.perf_counter() - begun)
print(json.dumps(list(found.values())))
"""


def kinds(root):
    """{name: ((columns, rows), output)}."""
    found = {"plain": ((80, 24), text_block()), "coloured": ((80, 24), colour_block()),
             "short": ((80, 24), short_block()),
             "latin": _lines("Gr\u00fc\u00dfe, na\u00efve fa\u00e7ade: \u201call right\u201d."),
             "cjk": _lines("\u6f22\u5b57\u304b\u306a" * 10),
             "emoji": _lines("\u2764\ufe0f \U0001f469\u200d\U0001f469\u200d\U0001f467 \U0001f680")}
    log = _git_log(root)
    if log:
        found["git log"] = ((120, 40), log)
    found.update(_captures(os.path.join(root, "tests", "captures")))
    return {name: (size, data if b"\r\n" in data else data.replace(b"\n", b"\r\n"))
            for name, (size, data) in found.items()}


def _lines(text):
    return (80, 24), text.encode() + b"\n"


def _git_log(root):
    try:
        done = subprocess.run(["git", "-C", root, "log", "-p", "--color=always", "-n", "60"], check=False,
                              stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    except OSError:
        return b""
    return done.stdout[:2 * PIECE_BYTES]


def _captures(under):
    for name in sorted(os.listdir(under)) if os.path.isdir(under) else ():
        match = re.fullmatch(r"(.*)-(\d+)x(\d+)\.bytes", name)
        if match:
            with open(os.path.join(under, name), "rb") as file:
                yield match.group(1), ((int(match.group(2)), int(match.group(3))), file.read())


def run_kind(contender, size, data, piece_bytes, pieces):
    """Figures of one kind of output."""
    data = data * ((piece_bytes + pieces * 7919) // len(data) + 2)
    with Place(contender) as place:
        path = place.write("output", data)
        said = place.run([sys.executable, "-I", "-c", INSIDE, contender.library, *map(str, size), path,
                          str(piece_bytes), str(pieces)])
        inside, scrollback = ([round(1000 * seconds, 3) for seconds in found] for found in json.loads(said))
        return {"inside": inside, "scrollback": scrollback,
                "verb": _verb_times(place, size, place.write("piece", data[:piece_bytes]), piece_bytes)}


def _verb_times(place, size, path, piece_bytes):
    """Milliseconds of `ptyguard screen`, once its session has written all."""
    program = ["sh", "-c", 'stty -opost; cat "$0"; exec sleep 1000000', path]
    start = verbs(place.contender, "start", "-n", "s0", "--size", "{}x{}".format(*size), "--")
    place.run(place.command(start, program))
    deadline = time.monotonic() + 60.0
    while _written(place) < piece_bytes:
        if time.monotonic() > deadline:
            raise Failure("the session does not write its output")
    argv = place.command(verbs(place.contender, "screen", "s0"))
    return [round(1000 * seconds_of(argv, place.environment), 1) for _ in range(VERBS)]


def _written(place):
    return json.loads(place.run(place.command(verbs(place.contender, "info", "s0", "--json"))))["offsets"]["end"]


def measure(chosen, options):
    """The tables, one by one."""
    piece_bytes, pieces = (4096, 1) if options.quick else (PIECE_BYTES, PIECES)
    subjects = kinds(options.root)
    if options.quick:
        subjects = {name: subjects[name] for name in ("plain", "cjk")}
    for one in chosen:
        if one.kind != "ptyguard":
            continue
        cases = [(name, partial(run_kind, one, size, data, piece_bytes, pieces))
                 for name, (size, data) in subjects.items()]
        runs, failures = take_turns(cases, options.rounds or ROUNDS, "snapshots")
        runs["all of them"] = [{key: [value for run in runs.values() for one_run in run for value in one_run[key]]
                                for key in ("inside", "scrollback")}]
        yield Table(f"screen-{re.sub('[^a-z0-9]+', '-', one.name.lower())}",
                    f"{one.name}: the screen of {piece_bytes // 1024} KiB", [
            Figure("inside", "p50 ms", "{:.1f}", "p50"), Figure("inside", "p95 ms", "{:.1f}", "p95"),
            Figure("inside", "worst ms", "{:.1f}", "max"),
            Figure("scrollback", "1000 lines p50 ms", "{:.1f}", "p50"),
            Figure("scrollback", "1000 lines p95 ms", "{:.1f}", "p95"), Figure("verb", "verb p50 ms", "{:.0f}", "p50")],
            [], runs, failures)
