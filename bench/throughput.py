#!/usr/bin/env python3
"""Throughput: a flood of lines through an attached client, beside the peers.

    bench/throughput.py [--megabytes N] [--rounds N] [--colour] [--detached]
                        [--only NAME]... [--ptyguard [LABEL=]PATH]...

A program writes 100 MB of 70-byte lines into a terminal of its own; a client shows
them in an outer terminal, which this process holds and drains.  The contenders take
turns, round after round, so that whatever else the machine does hits all of them.

    this process <- outer PTY <- client <- keeper's process(es) <- inner PTY <- program
    this process <- outer PTY <- program                               ("bare")

The program says that it is ready and waits for Enter.  The clock runs from Enter, typed
once that token shows in the outer terminal, to the token that follows the last line.
With --detached nobody is attached: the program times its own writing (the bare terminal
is drained by this process then, too).

Seconds are medians; a ratio is the median of the rounds' ratios, each taken between runs
that follow each other.  Compare ratios, not seconds.

Rule 1: the program is not the bottleneck: it does nothing but write one 64 KB block again
        and again.
Rule 2: the drain is not the bottleneck: it reads into one buffer and looks for one token.
        The column "drain" shows how much of the time this process was busy at all, and how
        much of it in Python, the rest being the kernel's part of a terminal's read, which
        every terminal pays.  Near 100 % the drain is what was measured.
Rule 3: whoever passes bytes on unchanged must have passed on all of them ("output").
        tmux and screen draw screens; what they show of a flood is theirs to choose.
Rule 4: every run has a directory of its own, in its environment or its arguments, and
        every process that still carries that name at the end is ended by pid.

Not measured: starting, attaching, and how a terminal paints.
"""

import argparse
import collections
import fcntl
import os
import select
import shutil
import signal
import statistics
import struct
import subprocess
import sys
import tempfile
import termios
import time

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
LINE_BYTES = 70
BLOCK_BYTES = 64 * 1024
COLS, ROWS = 80, 24
RUN_LIMIT_S = 300.0
READY, END = b"<<ready>>", b"<<end>>"

# Arguments: block file, number of blocks, and with nobody attached two FIFOs.
PROGRAM = f"""
import os, sys, time
with open(sys.argv[1], "rb") as file:
    block = file.read()
count = int(sys.argv[2])
if sys.argv[3:]:
    open(sys.argv[3]).close()
else:
    os.write(1, {READY!r})
    os.read(0, 100)
began = time.perf_counter()
for _ in range(count):
    os.write(1, block)
took = time.perf_counter() - began
if sys.argv[3:]:
    with open(sys.argv[4], "w") as file:
        file.write(repr(took))
else:
    os.write(1, {END!r})
    os.read(0, 100)
"""

Contender = collections.namedtuple("Contender", "name attached detached end variables is_exact")
Run = collections.namedtuple("Run", "seconds drain_share python_share output_bytes")


class Failure(Exception):
    """A contender did not do its part."""


# -- what is written --------------------------------------------------------------------------

def plain_block():
    """About 64 KB of whole lines."""
    letters = bytes(range(ord("a"), ord("z") + 1)) * 4
    lines = [letters[i % 26:i % 26 + LINE_BYTES - 1] + b"\n"
             for i in range(BLOCK_BYTES // LINE_BYTES)]
    return b"".join(lines)


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


# -- contenders -------------------------------------------------------------------------------

def contenders(copies):
    """Those that are installed, in their order; {d} stands for the run's directory.

    `copies` are (label, path) of the ptyguards to measure.
    """
    found = [Contender("bare", [], None, None, {}, True)]
    for label, path in copies:
        command = [sys.executable, path]
        found.append(Contender(label, command + ["run", "--"], command + ["start", "--"],
                               command + ["daemon", "stop", "--sessions", "kill", "--force"],
                               {"PTYGUARD_DIR": "{d}/state"}, True))
    tmux = ["tmux", "-L", "private", "-f", "/dev/null"]
    peers = [
        Contender("dtach", ["dtach", "-c", "{d}/socket", "-r", "none"],
                  ["dtach", "-n", "{d}/socket", "-r", "none"], None, {}, True),
        Contender("abduco", ["abduco", "-c", "bench"], ["abduco", "-n", "bench"], None,
                  {"ABDUCO_SOCKET_DIR": "{d}"}, True),
        Contender("tmux", tmux + ["new-session"], tmux + ["new-session", "-d"],
                  tmux + ["kill-server"], {"TMUX_TMPDIR": "{d}"}, False),
        Contender("screen", ["screen", "-c", "/dev/null", "-S", "bench"],
                  ["screen", "-c", "/dev/null", "-dmS", "bench"], None,
                  {"SCREENDIR": "{d}/screens"}, False),
    ]
    return found + [peer for peer in peers if shutil.which(peer.name)]


class Place:
    """One run's directory, with whatever lives in it.  A context manager."""

    def __init__(self, contender, block):
        self.contender = contender
        self.directory = tempfile.mkdtemp(prefix="ptyguard-bench-")
        os.mkdir(os.path.join(self.directory, "screens"), 0o700)
        self.block_path = os.path.join(self.directory, "block")
        with open(self.block_path, "wb") as file:
            file.write(block)
        self.environment = {
            name: value for name, value in os.environ.items()
            if not name.startswith(("PTYGUARD", "TMUX", "STY", "SCREEN", "DTACH", "ABDUCO"))}
        self.environment.update(TERM="xterm-256color", BENCH_DIRECTORY=self.directory)
        for name, value in contender.variables.items():
            self.environment[name] = self._here(value)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.contender.end:
            subprocess.run(self.command(self.contender.end), env=self.environment, timeout=60,
                           stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                           stderr=subprocess.DEVNULL, check=False)
        for pid in self._leftovers():
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        shutil.rmtree(self.directory, ignore_errors=True)

    def _here(self, text):
        return text.replace("{d}", self.directory)

    def command(self, words, program=()):
        """The argv of a contender in this place."""
        return [self._here(word) for word in words] + list(program)

    def program(self, count, *fifos):
        """The argv of the program that writes `count` blocks."""
        return [sys.executable, "-I", "-S", "-c", PROGRAM, self.block_path, str(count), *fifos]

    def _leftovers(self):
        """Pids of the living that carry this directory's name (rule 4); Linux only."""
        mark = os.fsencode(self.directory)
        for name in os.listdir("/proc") if os.path.isdir("/proc") else ():
            if not name.isdigit() or int(name) == os.getpid():
                continue
            words = b""
            try:
                for part in ("cmdline", "environ"):
                    with open(f"/proc/{name}/{part}", "rb") as file:
                        words += file.read()
            except OSError:
                continue                # gone, or not ours to look at
            if mark in words:
                yield int(name)


# -- the outer terminal -----------------------------------------------------------------------

class Terminal:
    """A process in a terminal whose master is ours."""

    def __init__(self, argv, environment):
        self.master, slave = os.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLS, 0, 0))

        def take_terminal():
            os.setsid()
            fcntl.ioctl(0, termios.TIOCSCTTY, 0)

        self.process = subprocess.Popen(argv, env=environment, stdin=slave, stdout=slave,
                                        stderr=slave, preexec_fn=take_terminal, close_fds=True)
        os.close(slave)
        self._file = open(self.master, "rb", buffering=0)
        self._buffer = bytearray(BLOCK_BYTES + len(READY))

    def drain_to(self, token):
        """Read at full speed up to `token`; the number of bytes read, token included.

        Blocks; whoever calls sets the alarm.
        """
        kept = len(token) - 1           # of the last read, in front: a read may cut the token
        buffer, read = self._buffer, self._file.readinto
        view = memoryview(buffer)[kept:]
        buffer[:kept] = bytes(kept)
        total = last = 0
        while True:
            try:
                count = read(view)
            except OSError:             # EIO: everybody has let go
                count = 0
            if not count:
                raise Failure(f"it ended after {total} bytes of output, exit code "
                              f"{self._exit_code()}; its last words: "
                              f"{bytes(view[:last][-200:])!r}")
            total, last = total + count, count
            found = buffer.find(token, 0, kept + count)
            if found >= 0:
                return total - (kept + count - found - len(token))
            buffer[:kept] = buffer[count:count + kept]

    def _exit_code(self):
        try:
            return self.process.wait(5.0)
        except subprocess.TimeoutExpired:
            return "unknown, it still runs"

    def type(self, data):
        """Type what the kernel takes at once."""
        os.write(self.master, data)

    def close(self):
        """Read on until the process has ended, or a while; then hang up."""
        deadline = time.monotonic() + 10.0
        while self.process.poll() is None and time.monotonic() < deadline:
            if select.select([self.master], [], [], 0.02)[0]:
                try:
                    self._file.readinto(self._buffer)
                except OSError:
                    break
        self._file.close()
        if self.process.poll() is None:
            try:
                self.process.wait(5.0)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()


def measure_attached(contender, block, count):
    """One run with this process's terminal around the client."""
    with Place(contender, block) as place:
        terminal = Terminal(place.command(contender.attached, place.program(count)),
                            place.environment)
        try:
            terminal.drain_to(READY)
            cpu, began = os.times(), time.perf_counter()
            terminal.type(b"\r")
            output_bytes = terminal.drain_to(END)
            seconds, now = time.perf_counter() - began, os.times()
            terminal.type(b"\r")
        finally:
            terminal.close()
    python = now.user - cpu.user
    return Run(seconds, (python + now.system - cpu.system) / seconds, python / seconds,
               output_bytes)


def measure_detached(contender, block, count):
    """One run with nobody attached; the bare terminal has to have a drain."""
    if contender.detached is None:
        return measure_attached(contender, block, count)
    with Place(contender, block) as place:
        go, report = (os.path.join(place.directory, name) for name in ("go", "report"))
        os.mkfifo(go)
        os.mkfifo(report)
        done = subprocess.run(place.command(contender.detached, place.program(count, go, report)),
                              env=place.environment, stdin=subprocess.DEVNULL,
                              stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, check=False)
        if done.returncode:
            raise Failure(f"exit code {done.returncode}: {done.stderr!r}")
        open(go, "w").close()           # blocks until the program is there
        with open(report) as file:
            return Run(float(file.read()), None, None, None)


# -- rounds and report ------------------------------------------------------------------------

def _too_late(*_):
    raise Failure(f"not done after {RUN_LIMIT_S:g} s")


def run_rounds(chosen, measure, block, count, rounds):
    """({name: [Run of each round]}, {name: why it has none}); who fails once is out."""
    runs = {contender.name: [] for contender in chosen}
    failures = {}
    signal.signal(signal.SIGALRM, _too_late)
    for number in range(rounds):
        for contender in chosen:
            if contender.name not in runs:
                continue
            signal.setitimer(signal.ITIMER_REAL, RUN_LIMIT_S)
            try:
                run = measure(contender, block, count)
            except Failure as failure:
                del runs[contender.name]
                failures[contender.name] = f"failed in round {number + 1}: {failure}"
                sys.stderr.write(f"{contender.name} {failures[contender.name]}\n")
                continue
            finally:
                signal.setitimer(signal.ITIMER_REAL, 0)
            runs[contender.name].append(run)
            sys.stderr.write(f"round {number + 1}/{rounds} {contender.name} {run.seconds:.3f} s\n")
    return runs, failures


def ratio(runs, name, base):
    """The median over the rounds of name's seconds through base's, or None."""
    if name not in runs or base not in runs:
        return None
    return statistics.median(one.seconds / other.seconds
                             for one, other in zip(runs[name], runs[base]))


def table(chosen, runs, megabytes, expected_bytes):
    """The report's lines."""
    yield "| program | median s | min-max s | MB/s | x bare | x dtach | drain (Python) | output |"
    yield "|---|---|---|---|---|---|---|---|"
    for contender in chosen:
        mine = runs.get(contender.name)
        if mine is None:
            continue
        seconds = [run.seconds for run in mine]
        middle = statistics.median(seconds)
        ratios = (ratio(runs, contender.name, base) for base in ("bare", "dtach"))
        yield "| " + " | ".join([
            contender.name, f"{middle:.2f}", f"{min(seconds):.2f}-{max(seconds):.2f}",
            f"{megabytes / middle:.0f}", *("-" if r is None else f"{r:.2f}" for r in ratios),
            _drain_text(mine), _output_text(contender, mine, expected_bytes)]) + " |"


def _drain_text(runs):
    if runs[0].drain_share is None:
        return "-"
    return "{:.0%} ({:.0%})".format(statistics.median(run.drain_share for run in runs),
                                    statistics.median(run.python_share for run in runs))


def _output_text(contender, runs, expected_bytes):
    if runs[0].output_bytes is None:
        return "-"
    fewest = min(run.output_bytes for run in runs)
    if not contender.is_exact:
        return f"{fewest / expected_bytes:.0%} of the bytes"
    return "all" if fewest >= expected_bytes else f"{expected_bytes - fewest} BYTES LOST"


def verdict(runs, failures, names):
    """Who failed, then the bar, one line for each ptyguard; nothing is left unsaid."""
    for name, why in failures.items():
        yield f"{name} {why}"
    for name in names:
        found = ratio(runs, name, "dtach")
        if found is None:
            yield f"{name}: not compared with dtach, one of them was not measured"
        else:
            yield (f"{name}: {found:.2f} x dtach: "
                   + ("not slower" if found <= 1.0 else "SLOWER, the bar is 1.00"))


def parse_arguments():
    parser = argparse.ArgumentParser(description="Lines through an attached client, beside the "
                                                 "peers: medians and ratios.")
    parser.add_argument("--megabytes", type=int, default=100, metavar="N")
    parser.add_argument("--rounds", type=int, default=5, metavar="N")
    parser.add_argument("--only", action="append", metavar="NAME",
                        help="only this contender; can be repeated")
    parser.add_argument("--colour", action="store_true", help="a colour for every word")
    parser.add_argument("--detached", action="store_true",
                        help="nobody attached: how long the program takes to write")
    parser.add_argument("--ptyguard", action="append", metavar="[LABEL=]PATH",
                        help="the ptyguard.py or .pyz to measure; repeated, they are compared")
    arguments = parser.parse_args()
    if arguments.megabytes < 1 or arguments.rounds < 1:
        parser.error("at least one megabyte, one round")
    return parser, arguments


def main():
    parser, arguments = parse_arguments()
    copies = []
    for item in arguments.ptyguard or [os.path.join(ROOT, "ptyguard.py")]:
        label, equals, path = item.partition("=")
        copies.append((label, os.path.abspath(path)) if equals
                      else ("ptyguard", os.path.abspath(item)))
    chosen = contenders(copies)
    names = [contender.name for contender in chosen]
    if len(set(names)) < len(names):
        parser.error("each --ptyguard needs a LABEL= of its own")
    for name in arguments.only or ():
        if name not in names:
            parser.error(f"{name} is not installed; there are: {', '.join(names)}")
    if arguments.only:
        chosen = [contender for contender in chosen if contender.name in arguments.only]

    block = colour_block() if arguments.colour else plain_block()
    count = -(-arguments.megabytes * 1000 * 1000 // len(block))
    expected_bytes = count * (len(block) + block.count(b"\n"))      # ONLCR
    measure = measure_detached if arguments.detached else measure_attached
    runs, failures = run_rounds(chosen, measure, block, count, arguments.rounds)
    print(f"{count * len(block) / 1e6:.0f} MB of {'colour-heavy' if arguments.colour else 'plain'} "
          f"lines, {'detached' if arguments.detached else 'one attached client'}, "
          f"{arguments.rounds} rounds, {os.cpu_count()} processors, "
          f"{os.uname().sysname} {os.uname().release}, Python {sys.version.split()[0]}\n")
    print("\n".join(table(chosen, runs, count * len(block) / 1e6, expected_bytes)))
    print()
    measured = [label for label, _ in copies if label in runs or label in failures]
    for line in verdict(runs, failures, measured):
        print(line)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
