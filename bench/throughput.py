"""Throughput: floods of output, through an attached client, into a pipe, with nobody attached.

    this process <- outer PTY <- client <- keeper's process(es) <- inner PTY <- program
    this process <- outer PTY <- program                               ("bare")

The program does nothing but write one 64 KB block again and again. It says that it is there, and waits for a
word; the clock runs from that word to the token that follows the last line. With nobody attached, and under a
slow terminal, the program times its own writing.

Whoever passes bytes on unchanged must have passed on all of them ("lost"). tmux and screen draw screens: what
they show of a flood is theirs to choose ("shown").

The drain is not the bottleneck. It reads into one buffer and looks for one token. "drain" is the share of the
time that it was busy at all, "in Python" the share of its own code; the difference is the kernel's part of a
terminal's read, which any reader pays. And the last table has the same program on a bare terminal, drained by
this process and by `cat >/dev/null`, which share nothing.

Under the slow terminal the outer one takes one megabyte a second. "fresh after" is the time from the program's
end until what it wrote last is on the screen.

Not measured: starting, attaching, and how a terminal paints.
"""

import os
import shlex
import shutil
import subprocess
import sys
import time
from functools import partial

from contenders import BARE, Contender, Place, verbs, with_sockets
from outer import Pipe, Share, Terminal, end
from rounds import Failure, take_turns
from tables import Figure, Table

ROUNDS = 5
LINE_BYTES = 70
BLOCK_BYTES = 64 * 1024
SLOW_BYTES_PER_S = 1_000_000
SLOW_PIECE_BYTES = 4096
READY, END = b"<<ready>>", b"<<end>>"

# Arguments: block file, number of blocks, and three names: go and leave (FIFOs), report.
PROGRAM = f"""
import os, sys, time
path, count, go, leave, report = sys.argv[1:]
with open(path, "rb") as file:
    block = file.read()
os.write(1, {READY!r})
open(go).close()
began = time.perf_counter()
for _ in range(int(count)):
    rest = block
    while rest:
        rest = rest[os.write(1, rest):]
took = time.perf_counter() - began
os.write(1, {END!r})
with open(report + ".draft", "w") as file:
    file.write(repr(took))
os.rename(report + ".draft", report)
open(leave).close()
"""


# -- what is written --------------------------------------------------------------------------

def text_block():
    """About 64 KB of whole lines of 70 bytes."""
    letters = bytes(range(ord("a"), ord("z") + 1)) * 4
    return b"".join(letters[i % 26:i % 26 + LINE_BYTES - 1] + b"\n" for i in range(BLOCK_BYTES // LINE_BYTES))


def colour_block():
    """The same amount, with a colour and an attribute for every short word."""
    lines, total, i = [], 0, 0
    while total < BLOCK_BYTES - 200:
        words = [b"\x1b[%d;38;5;%dm%c%c%c\x1b[0m" % (1 + j % 2 * 3, (i * 7 + j) % 256, 97 + j,
                                                     97 + i % 26, 48 + j) for j in range(8)]
        lines.append(b" ".join(words) + b"\n")
        total += len(lines[-1])
        i += 1
    return b"".join(lines)


def short_block():
    """The same amount, of lines of 2 to 8 bytes, as `yes` writes them."""
    letters = b"yestern"
    lines, total = [], 0
    while total < BLOCK_BYTES - 8:
        lines.append(letters[:1 + len(lines) % 7] + b"\n")
        total += len(lines[-1])
    return b"".join(lines)


# -- one run of each kind ---------------------------------------------------------------------

class Writer:
    """The program, in a place: its argv, and what is said to it and by it."""

    def __init__(self, place, block, count):
        self._place = place
        self._path, self._count = place.write("block", block), count
        for name in ("go", "leave"):
            os.mkfifo(place.path(name))

    @property
    def argv(self):
        return [sys.executable, "-I", "-S", "-c", PROGRAM, self._path, str(self._count)] + [
            self._place.path(name) for name in ("go", "leave", "report")]

    def go(self):
        """Let it begin.  Blocks until it is there."""
        open(self._place.path("go"), "w").close()

    def took(self):
        """The seconds that it wrote, once it has; else None."""
        try:
            with open(self._place.path("report")) as file:
                return float(file.read())
        except FileNotFoundError:
            return None


def run_attached(contender, block, count):
    """With this process's terminal around the client."""
    with Place(contender) as place:
        writer = Writer(place, block, count)
        with Terminal(place.command(contender.attached, writer.argv), place.environment) as terminal:
            terminal.to(READY)
            return _flood(contender, writer, terminal, count * (len(block) + block.count(b"\n")))   # ONLCR


def run_piped(contender, block, count):
    """Into a pipe that is read here."""
    through = {"bare": lambda argv: argv,
               "script": lambda argv: ["script", "-qefc", " ".join(map(shlex.quote, argv)), "/dev/null"],
               "ptyguard": lambda argv: verbs(contender, "run", "--") + argv}[contender.kind]
    with Place(contender) as place:
        writer = Writer(place, block, count)
        with Pipe(through(writer.argv), place.environment) as pipe:
            pipe.to(READY)
            crs = 0 if contender is BARE else block.count(b"\n")
            return _flood(contender, writer, pipe, count * (len(block) + crs))


def _flood(contender, writer, drain, expected_bytes):
    """Figures of one flood, from `go` to END."""
    share, began = Share(), time.perf_counter()
    writer.go()
    output = drain.to(END) - len(END)
    seconds = time.perf_counter() - began
    return dict(share.figures(), seconds=seconds, mb_s=expected_bytes / 1e6 / seconds,
                lost=expected_bytes - output if contender.is_exact else None,
                shown=None if contender.is_exact else output / expected_bytes)


def run_detached(contender, block, count):
    """With nobody attached; a bare terminal has to have a drain."""
    if contender is BARE:
        return run_drained(block, count, by_cat=False)
    with Place(contender) as place:
        writer = Writer(place, block, count)
        place.run(place.command(contender.detached, writer.argv))
        writer.go()
        seconds = _wait_for(writer)
    return {"seconds": seconds, "mb_s": len(block) * count / 1e6 / seconds}


def _wait_for(writer):
    while writer.took() is None:
        time.sleep(0.005)               # the program's own clock counts, not this one
    return writer.took()


def run_drained(block, count, by_cat):
    """A bare terminal, drained here or by cat; the program's own clock."""
    with Place(BARE) as place:
        writer = Writer(place, block, count)
        with Terminal(writer.argv, place.environment) as terminal:
            terminal.to(READY)
            cat = by_cat and subprocess.Popen(["cat"], stdin=terminal.fd, stdout=subprocess.DEVNULL,
                                              env=place.environment)
            try:
                writer.go()
                if not cat:
                    terminal.to(END)
                seconds = _wait_for(writer)
            finally:
                if cat:
                    end(cat)
    return {"seconds": seconds, "mb_s": len(block) * count / 1e6 / seconds}


def run_slow(contender, block, count):
    """With an outer terminal that takes SLOW_BYTES_PER_S."""
    with Place(contender) as place:
        writer = Writer(place, block, count)
        with Terminal(place.command(contender.attached, writer.argv), place.environment) as terminal:
            terminal.to(READY)
            writer.go()
            return _drain_slowly(terminal, writer, count * (len(block) + block.count(b"\n")))


def _drain_slowly(terminal, writer, expected_bytes):
    """Take so much a second until the program has written all, and its last word shows."""
    began, total, kept = time.perf_counter(), 0, b""
    shown_at = ended_at = None
    while shown_at is None or ended_at is None:
        ahead_s = total / SLOW_BYTES_PER_S - (time.perf_counter() - began)
        if ahead_s > 0:
            time.sleep(ahead_s)
        data = terminal.some(0.005, SLOW_PIECE_BYTES)
        if data is None:
            raise Failure(f"it ended after {total} bytes of output")
        total += len(data)
        kept = kept[-len(END):] + data
        if shown_at is None and END in kept:
            shown_at = time.perf_counter()
        if ended_at is None and writer.took() is not None:
            ended_at = time.perf_counter()
    return {"seconds": writer.took(), "fresh": max(0.0, shown_at - ended_at),
            "shown": min(1.0, total / expected_bytes)}


# -- the measure ------------------------------------------------------------------------------

SECONDS = Figure("seconds", "s", "{:.2f}")
RATE = Figure("mb_s", "MB/s", "{:.0f}")
SHARES = [Figure("drain", "drain", "{:.0%}"), Figure("python", "in Python", "{:.0%}")]
OUTPUT = [Figure("lost", "lost bytes", "{:.0f}", "max"), Figure("shown", "shown", "{:.0%}", "min")]


FLOODS = (("text", "Attached, text in lines of 70 bytes", text_block, 30),
          ("colour", "Attached, a colour for every word", colour_block, 20),
          ("short", "Attached, lines of 2 to 8 bytes", short_block, 10))


def measure(chosen, options):
    """The tables, one by one."""
    rounds = options.rounds or ROUNDS
    for name, title, make, megabytes in FLOODS[:1] if options.quick else FLOODS:
        block, count = _amount(make(), megabytes, options)
        cases = [(one.name, partial(run_attached, one, block, count)) for one in with_sockets(chosen)]
        yield _table(name, f"{title}: {_megabytes(block, count)}", [SECONDS, RATE] + OUTPUT + SHARES,
                     take_turns(cases, rounds, name))

    block, count = _amount(text_block(), 30, options)
    cases = [(one.name, partial(run_detached, one, block, count)) for one in chosen]
    yield _table("detached", f"Nobody attached: the program's time for {_megabytes(block, count)} of text",
                 [SECONDS, RATE], take_turns(cases, rounds, "detached"))

    block, count = _amount(text_block(), 4, options)
    cases = [(one.name, partial(run_slow, one, block, count)) for one in chosen]
    slow_rounds = options.rounds or 2
    yield _table("slow", f"A slow terminal (1 MB/s): the program's time for {_megabytes(block, count)} of text",
                 [SECONDS, Figure("fresh", "fresh after s", "{:.2f}"), OUTPUT[1]],
                 take_turns(cases, slow_rounds, "slow"))

    block, count = _amount(text_block(), 30, options)
    cases = [(one.name, partial(run_piped, one, block, count)) for one in chosen + script()
             if one.kind in ("bare", "script", "ptyguard")]
    yield _table("pipe", f"Into a pipe: `ptyguard run`, script and no terminal at all, {_megabytes(block, count)} "
                         "of text", [SECONDS, RATE, OUTPUT[0]] + SHARES, take_turns(cases, rounds, "pipe"))

    cases = [(name, partial(run_drained, block, count, name == "cat")) for name in ("this process", "cat")]
    yield _table("drain", f"The drain itself: a bare terminal, {_megabytes(block, count)} of text",
                 [SECONDS, RATE], take_turns(cases, rounds, "drain"), bases=["cat"])


def script():
    """util-linux's script, which puts a terminal before a pipe; none where it is not installed."""
    return [Contender("script", "script", *[None] * 4, {}, True, None, None)] if shutil.which("script") else []


def _amount(block, megabytes, options):
    wanted = (options.megabytes or megabytes) * 1000 * 1000
    return block, 4 if options.quick else -(-wanted // len(block))


def _megabytes(block, count):
    return f"{len(block) * count / 1e6:.3g} MB"


def _table(name, title, figures, results, bases=None):
    return Table(name, title, figures, ["seconds"], *results, bases=bases)
