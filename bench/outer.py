"""The outer terminal: a process in a terminal whose master is ours, and the drain of that.

The drain must not be what is measured.  It reads into one buffer and looks for one token; no
byte is copied or kept.  `Share` tells how much of a run's time this process was busy at all,
and how much of that in Python: the rest is the kernel's part of a terminal's read, which
everybody who reads a terminal pays.  Near 100 % the drain would be what was measured.
"""

import fcntl
import os
import resource
import select
import struct
import subprocess
import termios
import time

from rounds import Failure

COLS, ROWS = 80, 24
BUFFER_BYTES = 64 * 1024
END_LIMIT_S = 10.0


class Drain:
    """Reads a descriptor at full speed and looks for tokens; does not own it."""

    def __init__(self, fd):
        self.fd = fd
        self._file = open(fd, "rb", buffering=0, closefd=False)
        self._buffer = bytearray(BUFFER_BYTES + 64)
        self._last = b""

    def to(self, token):
        """Read up to `token`; the number of bytes read, token included.  Blocks."""
        kept = len(token) - 1           # of the last read, in front: a read may cut the token
        buffer = self._buffer
        view = memoryview(buffer)[kept:]
        buffer[:kept] = bytes(kept)
        total = 0
        while True:
            count = self._read(view)
            if not count:
                raise Failure(f"it ended after {total} bytes of output; its last words: {self._last!r}")
            total += count
            found = buffer.find(token, 0, kept + count)
            if found >= 0:
                return total - (kept + count - found - len(token))
            self._last = bytes(view[:count][-200:])
            buffer[:kept] = buffer[count:count + kept]

    def _read(self, view):
        try:
            return self._file.readinto(view)
        except OSError:                 # EIO: everybody has let go
            return 0

    def some(self, limit_s, limit=BUFFER_BYTES):
        """What comes within that time, b"" if nothing did; None at the end."""
        if not select.select([self.fd], [], [], limit_s)[0]:
            return b""
        try:
            return os.read(self.fd, limit) or None
        except OSError:
            return None


class Terminal(Drain):
    """A process in a terminal of its own.  A context manager: the process ends with it."""

    def __init__(self, argv, environment):
        master, slave = os.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLS, 0, 0))

        def take_terminal():
            os.setsid()
            fcntl.ioctl(0, termios.TIOCSCTTY, 0)

        try:
            self.process = subprocess.Popen(argv, env=environment, stdin=slave, stdout=slave, stderr=slave,
                                            preexec_fn=take_terminal, close_fds=True)
        except BaseException:
            os.close(master)
            raise
        finally:
            os.close(slave)
        super().__init__(master)

    def type(self, data):
        """Type what the kernel takes at once."""
        os.write(self.fd, data)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        end(self.process)
        os.close(self.fd)


class Pipe(Drain):
    """A process whose output is a pipe to here, its input empty.  A context manager, as above."""

    def __init__(self, argv, environment):
        self.process = subprocess.Popen(argv, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                        stderr=subprocess.DEVNULL, start_new_session=True)
        super().__init__(self.process.stdout.fileno())

    def __enter__(self):
        return self

    def __exit__(self, *_):
        end(self.process)
        self.process.stdout.close()


def end(process):
    """End a child of ours; its terminal is no longer of interest."""
    if process.poll() is None:
        process.kill()
    process.wait(END_LIMIT_S)


class Share:
    """How busy this process is, from now to `figures()`."""

    def __init__(self):
        self._used, self._began = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()

    def figures(self):
        """Shares of the time since: in all, and in Python alone."""
        seconds, used = time.perf_counter() - self._began, resource.getrusage(resource.RUSAGE_SELF)
        python, kernel = used.ru_utime - self._used.ru_utime, used.ru_stime - self._used.ru_stime
        return {"drain": (python + kernel) / seconds, "python": python / seconds}
