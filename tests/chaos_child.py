"""A program for chaos.py's sessions: it writes a stream that checks itself, and keeps books.

    python -I -S chaos_child.py NOTES TAG CONDUCT

CONDUCT is JSON: `seed`, `bytes` (how much it writes before it ends or rests), `chunk` (at
most in one write), `pause_s` (at most between writes), `end` (`exit:N`, `signal:N`, or `rest`:
write a line now and then until somebody types `quit N`), `stubborn` (ignores HUP and TERM),
`family` (leaves a process in its own process group behind).

Its books, in the directory NOTES, K being 1 for the first child of that TAG, 2 for the next:

    TAG.K          who it is, as soon as its terminal passes bytes unchanged
    TAG.K.out      every byte of output, noted before it is written
    TAG.K.count    how many of them the terminal has taken, noted afterwards
    TAG.K.in       every line that was typed, as it came
    TAG.K.end      how it means to end, noted just before; `hangup` if its terminal went away
    TAG.K.err      what Python had to say; nothing, one hopes

So its output is known to the byte, and to one write if it is killed.  No byte is 0xFF (the
one that a killed daemon may lose), asks the terminal who it is (0x05, which who only watches is
not shown) or begins a terminal sequence (a client may act on those).
"""

import json
import os
import random
import resource
import select
import signal
import sys
import termios
import time
import zlib

TEXT = bytes(range(0x20, 0x7f))
ANY = bytes(set(range(0x100)) - set(range(0x80, 0xa0)) - {0x05, 0x0a, 0x0e, 0x0f, 0x1b, 0xff})
REST_S = 0.7
HANGUP_STATUS = 9


class Books:
    """What this child intends, and what it has done."""

    def __init__(self, notes, tag):
        self._path = self._claim(os.path.join(notes, tag))
        self._out = os.open(self._path + ".out", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self._count = os.open(self._path + ".count", os.O_WRONLY | os.O_CREAT, 0o600)
        self._in = os.open(self._path + ".in", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self._written = 0
        self.label = os.path.basename(self._path).encode()

    @staticmethod
    def _claim(path):
        for number in range(1, 10000):
            try:
                os.close(os.open(f"{path}.{number}.claim", os.O_CREAT | os.O_EXCL, 0o600))
                return f"{path}.{number}"
            except FileExistsError:
                continue
        raise SystemExit("too many children of one tag")

    def note(self, what, text):
        """A whole file or none."""
        with open(self._path + ".draft", "w") as file:
            file.write(text)
        os.rename(self._path + ".draft", self._path + what)

    def keep_errors(self):
        fd = os.open(self._path + ".err", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        os.dup2(fd, 2)
        os.close(fd)

    def typed(self, line):
        os.write(self._in, line + b"\n")

    def write(self, data):
        """Write all of it to the terminal; OSError when that has gone."""
        os.write(self._out, data)
        while data:
            taken = os.write(1, data)
            data = data[taken:]
            self._written += taken
            os.pwrite(self._count, self._written.to_bytes(8, "little"), 0)


def make_plain():
    """The terminal passes bytes as they are; lines of input are still lines."""
    settings = termios.tcgetattr(0)
    settings[0] &= ~(termios.ICRNL | termios.INLCR | termios.IXON)
    settings[1] &= ~termios.OPOST
    settings[3] &= ~termios.ECHO
    settings[3] |= termios.ICANON | termios.NOFLSH      # else ^C would drop output
    termios.tcsetattr(0, termios.TCSANOW, settings)


class Child:
    def __init__(self, books, conduct):
        self._books = books
        self._conduct = conduct
        self._chance = random.Random("%s.%s" % (conduct["seed"], books.label))
        self._pools = [bytes(self._chance.choices(alphabet, k=20_000)) for alphabet in (TEXT, ANY)]
        self._lines = 0
        self._written = 0
        self._typed = b""
        self._silent_reads = 0

    def _line(self):
        """A line that no other child and no other moment writes; now and then no text at all."""
        pool = self._pools[self._chance.random() < 0.2]
        length = self._chance.choice((0, 20, 60, 60, 200, 3000))
        begin = self._chance.randrange(len(pool) - length)
        line = b"%s %06d " % (self._books.label, self._lines) + pool[begin:begin + length]
        self._lines += 1
        return line + b" %08x\n" % zlib.crc32(line)

    def _burst(self):
        """Up to a chunk, which need not end where a line does."""
        wanted = self._chance.randrange(1, self._conduct["chunk"] + 1)
        data = self._rest
        while len(data) < wanted:
            data += self._line()
        self._rest = data[wanted:]
        self._say(data[:wanted])

    def _say(self, data):
        self._books.write(data)
        self._written += len(data)

    def _hear(self, pause_s):
        """Lines that were typed within that time, each acknowledged once."""
        if not select.select([0], [], [], pause_s)[0]:
            return
        data = os.read(0, 4096)
        self._silent_reads = 0 if data else self._silent_reads + 1
        if self._silent_reads > 100:
            raise OSError("the terminal has gone")
        *lines, self._typed = (self._typed + data).split(b"\n")
        for line in lines:
            self._books.typed(line)
            self._say(b"\n%s heard %s\n" % (self._books.label, line.hex().encode()))
            if line.startswith(b"quit "):
                self._end("exit:%d" % int(line[5:]))

    def _end(self, how):
        self._books.note(".end", how)
        kind, _, number = how.partition(":")
        if kind == "signal":
            signal.signal(int(number), signal.SIG_DFL) if int(number) != signal.SIGKILL else None
            os.kill(os.getpid(), int(number))
            signal.pause()
        os._exit(int(number) if kind == "exit" else HANGUP_STATUS)

    def live(self):
        conduct = self._conduct
        self._rest = b"\x02%s begins %s\n" % (
            self._books.label, b"%016x" % self._chance.getrandbits(64) * 3)
        try:
            self._say(self._rest)
            self._rest = b""
            while self._written < conduct["bytes"]:
                self._burst()
                self._hear(self._chance.uniform(0, conduct["pause_s"]))
            self._say(self._rest)
            self._rest = b""
            if conduct["end"] != "rest":
                self._end(conduct["end"])
            while True:
                self._say(self._line())
                self._hear(REST_S)
        except OSError:
            self._end("hangup")


def main(notes, tag, conduct):
    conduct = json.loads(conduct)
    if conduct["stubborn"]:
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    books = Books(notes, tag)
    books.keep_errors()
    make_plain()
    if conduct["family"] and os.fork() == 0:
        signal.signal(signal.SIGHUP, signal.SIG_DFL)    # it goes when the terminal goes
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        os.execvp("sleep", ["sleep", "600"])
    books.note("", json.dumps({
        "id": os.environ["PTYGUARD_SESSION_ID"], "name": os.environ["PTYGUARD_SESSION"],
        "pid": os.getpid(), "at": time.monotonic()}))
    Child(books, conduct).live()


if __name__ == "__main__":
    main(*sys.argv[1:])
