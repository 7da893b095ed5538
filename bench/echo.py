"""Echo: how long a key takes to show, alone and beside 50 sessions that stream at full speed.

A key is typed into the outer terminal, and the clock stops when it comes back there. Before the next one
everybody has had a millisecond to fall asleep, as beside a person who types.

Program echo: a program in raw mode writes each byte back. Kernel echo: the terminal does it, the program only
takes the bytes away. ptyguard is measured both ways, with the terminal handed over to the daemon where that can
be done, and "(socket)", with the client in between.

p50 and p99 are those of a round's keys; the table has the medians of the rounds. Beside the streams: "MB/s" is
what 50 programs together could write while nobody typed, "fairness" is Jain's index of their shares, 1 being
equal shares and 0.02 one having all.
"""

import mmap
import sys
import time
from functools import partial

from contenders import Place, with_sockets
from outer import Terminal
from rounds import Failure, fairness, quantile, take_turns
from tables import Figure, Table

ROUNDS = 5
STREAM_ROUNDS = 3
KEYS = 400
STREAM_KEYS = 200
STREAMS = 50
PAUSE_S = 0.001
STREAMED_S = 1.5
KEY_LIMIT_S = 20.0
READY = b"<<ready>>"
LETTERS = (b"#", b"&")                  # in no escape sequence and no status line

# Argument: whether the kernel echoes.
PROGRAM = f"""
import os, sys, termios
settings = termios.tcgetattr(0)
settings[0] &= ~(termios.ICRNL | termios.IXON)
settings[1] &= ~termios.OPOST
settings[3] &= ~(termios.ECHO | termios.ICANON | termios.ISIG | termios.IEXTEN)
is_kernels = sys.argv[1] == "kernel"
if is_kernels:
    settings[3] |= termios.ECHO
settings[6][termios.VMIN], settings[6][termios.VTIME] = 64 if is_kernels else 1, 0
termios.tcsetattr(0, termios.TCSANOW, settings)
os.write(1, {READY!r})
while True:
    data = os.read(0, 1024)
    if not data:
        break
    if not is_kernels:
        os.write(1, data)
"""

# Arguments: a file of counters, and which of them counts the bytes that were written.  The first is not 0
# once all may begin: those that stream already would make it long until the last is there.
STREAM = """
import mmap, os, sys, time
at = int(sys.argv[2])
file = os.open(sys.argv[1], os.O_RDWR)
counters = memoryview(mmap.mmap(file, 0)).cast("Q")
block = (b"x" * 69 + b"\\n") * 58
counters[at] = 1
while not counters[0]:
    time.sleep(0.01)
while True:
    counters[at] += os.write(1, block)
"""


def program(echo):
    """The argv of what is typed at; `echo` is "program" or "kernel"."""
    return [sys.executable, "-I", "-S", "-c", PROGRAM, echo]


def keys(place, echo, count, session="echo"):
    """The seconds that each of `count` keys took, in a new session with a client."""
    with Terminal(place.command(place.contender.attached, program(echo), session), place.environment) as terminal:
        terminal.to(READY)
        for number in range(20):        # the first ones load what is loaded late
            _key(terminal, LETTERS[number % 2])
        return [_key(terminal, LETTERS[number % 2]) for number in range(count)]


def _key(terminal, letter):
    while terminal.some(PAUSE_S):       # what tmux paints beside it; and all fall asleep
        pass
    began = time.perf_counter()
    terminal.type(letter)
    while True:
        data = terminal.some(KEY_LIMIT_S)
        if data and letter in data:
            return time.perf_counter() - began
        if not data:
            raise Failure(f"no echo within {KEY_LIMIT_S:g} s" if data == b"" else "it ended")


class Streams:
    """Sessions that stream, nobody attached; counts what their programs could write."""

    def __init__(self, place, count):
        path = place.write("counters", bytes(8 * (1 + count)))
        with open(path, "r+b") as file:
            self._counters = memoryview(mmap.mmap(file.fileno(), 0)).cast("Q")
        script = place.write("stream.py", STREAM.encode())
        place.start_many({f"s{i}": [sys.executable, "-I", "-S", script, path, str(i)]
                          for i in range(1, 1 + count)})
        self._wait_for(1)
        self._counters[0] = 1
        self._wait_for(2)

    def _wait_for(self, least):
        while min(self._counters[1:]) < least:
            time.sleep(0.005)

    def amounts(self, seconds):
        """(the seconds that it really was, bytes of each)."""
        before, began = list(self._counters[1:]), time.perf_counter()
        time.sleep(seconds)
        return time.perf_counter() - began, [now - then for now, then in zip(self._counters[1:], before)]


def latencies(seconds):
    """p50 and p99 in microseconds."""
    return {"p50": 1e6 * quantile(seconds, 0.5), "p99": 1e6 * quantile(seconds, 0.99)}


def run_alone(contender, echo, count):
    with Place(contender) as place:
        return latencies(keys(place, echo, count))


def run_streams(contender, count, streams, streamed_s):
    """All figures beside streams; those of a kind of echo have its name in front."""
    with Place(contender) as place:
        going = Streams(place, streams)
        seconds, amounts = going.amounts(streamed_s)
        figures = {"mb_s": sum(amounts) / 1e6 / seconds, "fairness": fairness(amounts)}
        for echo in ("program", "kernel"):
            found = latencies(keys(place, echo, count, echo))
            figures.update({f"{echo}_{key}": value for key, value in found.items()})
        return figures


def measure(chosen, options):
    """The tables, one by one."""
    count = 20 if options.quick else KEYS
    for echo, title in (("program", "A program that echoes"), ("kernel", "The kernel echoes")):
        cases = [(one.name, partial(run_alone, one, echo, count)) for one in with_sockets(chosen)]
        yield Table(echo, f"{title}: {count} keys a round", _latency_figures(""), ["p50"],
                    *take_turns(cases, options.rounds or ROUNDS, echo))

    streams = 3 if options.quick else STREAMS
    count = min(count, STREAM_KEYS)
    streamed_s = 0.1 if options.quick else STREAMED_S
    cases = [(one.name, partial(run_streams, one, count, streams, streamed_s))
             for one in with_sockets(chosen) if one.kind != "bare"]
    runs, failures = take_turns(cases, options.rounds or STREAM_ROUNDS, "streams")
    for echo, title in (("program", "A program that echoes"), ("kernel", "The kernel echoes")):
        yield Table(f"streams-{echo}", f"{title}, beside {streams} streams: {count} keys a round",
                    _latency_figures(f"{echo}_"), [f"{echo}_p50"], runs, failures)
    yield Table("streams-total", f"{streams} streams in all", [Figure("mb_s", "MB/s", "{:.0f}"),
                                                               Figure("fairness", "fairness", "{:.3f}")],
                ["mb_s"], runs, failures)


def _latency_figures(prefix):
    return [Figure(prefix + "p50", "p50 \u00b5s", "{:.0f}"), Figure(prefix + "p99", "p99 \u00b5s", "{:.0f}")]
