"""A world of its own for each test: a directory, an environment, and an end.

`World` runs ptyguard as users do, as a process.  `Terminal` is a human's terminal
around such a process.  Both wait for facts with a generous limit and never sleep
for luck; closing a world ends every process that it started, by pid.
"""

import contextlib
import fcntl
import json
import os
import re
import select
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import termios
import time

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
LIMIT_S = 60.0
INPUT_QUEUE_MAX = 1 << 20       # as session.py has it


def wait_until(fact, what="the fact", limit_s=LIMIT_S):
    """The first true value of `fact()`; looks again and again, fails after the limit."""
    deadline = time.monotonic() + limit_s
    while True:
        value = fact()
        if value:
            return value
        assert time.monotonic() < deadline, f"{what} did not come to be in {limit_s:g} s"
        select.select([], [], [], 0.01)     # give the processors to those who make it true


def is_alive(pid):
    """Whether that process runs; a zombie does not."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return file.read().rpartition(b") ")[2][:1] not in (b"Z", b"X")
    except OSError:
        return False


def default_signals():
    """For a child: the tests may run under nohup or in the background of a script."""
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTSTP):
        signal.signal(number, signal.SIG_DFL)


# For worlds with many short sessions, whose records need not reach a disk.
MEMORY = "/dev/shm" if os.access("/dev/shm", os.W_OK | os.X_OK) else None


def open_descriptors(pid):
    """How many descriptors that process has."""
    return len(os.listdir(f"/proc/{pid}/fd"))


def voluntary_switches(pid):
    """How often that process has gone to sleep: it wakes once for each."""
    with open(f"/proc/{pid}/status") as file:
        return int(file.read().split("\nvoluntary_ctxt_switches:")[1].split()[0])


def sleeps_for_ever(pid):
    """Whether it waits in epoll with no timer to wake it; None where the kernel does not tell."""
    try:
        with open(f"/proc/{pid}/syscall") as file:
            call = file.read().split()
    except OSError:
        return None
    # epoll_wait's fourth argument, in milliseconds, an int: -1 is for ever.
    return len(call) > 4 and int(call[4], 16) & 0xffffffff == 0xffffffff


def _backend():
    if ROOT not in sys.path:
        sys.path.insert(0, ROOT)
    import ptyguard_posix
    return ptyguard_posix


class Flood:
    """A program that writes numbered lines as fast as it can, from `go` until `stop`.

    It then exits with status 7.  Each line has its number and a different piece of a
    text without repetition, so that nothing can be lost, doubled or moved unnoticed.
    """

    STATUS = 7
    _LINES = """
text = bytes(33 + (i * i * 7 + i // 91 + i % 13) % 90 for i in range(5000))
def line(n):
    at = n * 37 % 4000
    return b"%09d " % n + text[at:at + 500 + n % 97] + b"\\n"
"""
    _PROGRAM = _LINES + """
import os, sys
go, stop, told = sys.argv[1:]
print("ready", flush=True)
open(go, "rb").read()
n = 0
while not os.path.exists(stop):
    rest = line(n)
    while rest:
        rest = rest[os.write(1, rest):]
    n += 1
with open(told + ".draft", "w") as file:
    file.write(str(n))
os.rename(told + ".draft", told)
sys.exit(7)
"""

    def __init__(self, directory, name="flood"):
        self._go, self._stop, self._told = (
            os.path.join(directory, f"{name}.{what}") for what in ("go", "stop", "told"))
        os.mkfifo(self._go)
        self.argv = [sys.executable, "-I", "-S", "-c", self._PROGRAM,
                     self._go, self._stop, self._told]

    def go(self):
        """Let it begin; it has said "ready" by then."""
        def opened():
            try:
                return os.open(self._go, os.O_WRONLY | os.O_NONBLOCK) + 1
            except OSError:             # ENXIO: nobody reads there yet, fifo(7)
                return 0
        os.close(wait_until(opened, "the flood's start") - 1)

    def stop(self):
        """Let it come to its end; what its terminal holds has to be read for that."""
        with open(self._stop, "w"):
            pass

    def output(self):
        """All that it has written, as its terminal made it; once it has said how much."""
        wait_until(lambda: os.path.exists(self._told), "the flood's end")
        with open(self._told) as file:
            count = int(file.read())
        scope = {}
        exec(self._LINES, scope)        # the very text that the program runs
        lines = b"".join(map(scope["line"], range(count)))
        return b"ready\r\n" + lines.replace(b"\n", b"\r\n")


class Sink:
    """A reader that is always there: a process of its own copies to a file."""

    _SLOW = """
import os, select, sys
while True:
    if not os.path.exists(sys.argv[1]):
        select.select([], [], [], 0.001)
    data = os.read(0, 2048)
    if not data:
        break
    os.write(1, data)
"""

    def __init__(self, source, path, slow):
        self._path = path
        argv = [sys.executable, "-I", "-S", "-c", self._SLOW, path + ".hurry"] if slow else ["cat"]
        with open(path, "wb") as file:
            self.process = subprocess.Popen(argv, stdin=source, stdout=file,
                                            stderr=subprocess.DEVNULL)

    def size(self):
        """How much has come so far."""
        return os.path.getsize(self._path)

    def data(self):
        """What has come so far."""
        with open(self._path, "rb") as file:
            return file.read()

    def hurry(self):
        """A slow one is as fast as it can from now on."""
        with open(self._path + ".hurry", "w"):
            pass


class World:
    """One PTYGUARD_DIR with whatever lives in it.  A context manager."""

    def __init__(self, program=None, under=None, **variables):
        self.directory = tempfile.mkdtemp(prefix="pg-", dir=under)
        # Not the script itself: that is compiled anew at each start, a quarter of the whole.
        self.program = program or [
            sys.executable, "-c", f"import sys; sys.path[0] = {ROOT!r}; "
                                  "from ptyguard import console; console()"]
        self.env = {key: value for key, value in os.environ.items()
                    if not key.startswith(("PTYGUARD", "PYTEST"))}
        self.env.update(PTYGUARD_DIR=os.path.join(self.directory, "d"), TERM="xterm-256color",
                        **variables)
        self._started = []

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        if kind is not None:            # what they wrote down is half of an explanation
            for which in ("guard", "daemon"):
                sys.stderr.write(f"-- {which}.log of {self.directory}:\n{self.log(which)[-4000:]}")
        self.close()

    # -- running ---------------------------------------------------------------------------

    def run(self, *args, input=None, check=None, stdin=None, timeout=LIMIT_S, env=None, cwd=None,
            stdout=subprocess.PIPE):
        """One command to its end; CompletedProcess with bytes.  `check` is the code it must have."""
        given = {} if input is not None else {"stdin": subprocess.DEVNULL if stdin is None else stdin}
        done = subprocess.run(self.program + list(args), env=env or self.env, cwd=cwd, input=input,
                              stdout=stdout, stderr=subprocess.PIPE, timeout=timeout, **given)
        if check is not None:
            assert done.returncode == check, (args, done.returncode, done.stdout, done.stderr)
        return done

    def json(self, *args):
        """The JSON object that a command prints."""
        return json.loads(self.run(*args, "--json", check=None).stdout)

    def connect(self):
        """The Python API on this world, in this very process."""
        if ROOT not in sys.path:
            sys.path.insert(0, ROOT)
        import ptyguard
        return ptyguard.connect(self.env["PTYGUARD_DIR"])

    def popen(self, *args, **options):
        """A command in the background; ended with this world."""
        options.setdefault("env", self.env)
        options.setdefault("stdin", subprocess.DEVNULL)
        options.setdefault("preexec_fn", default_signals)
        process = subprocess.Popen(self.program + list(args), **options)
        self._started.append(process)
        return process

    def terminal(self, *args, size=(80, 24), program=None, env=None):
        """A command in a terminal of its own."""
        terminal = Terminal((program or self.program) + list(args), env or self.env, size)
        self._started.append(terminal.process)
        return terminal

    def sink(self, source, slow=False):
        """A process that reads `source` (a pipe, or a terminal's master) into a file."""
        sink = Sink(source, os.path.join(self.directory, f"sink.{len(self._started)}"), slow)
        self._started.append(sink.process)
        return sink

    # -- looking -----------------------------------------------------------------------------

    @property
    def state(self):
        """This host's directory."""
        parent = self.env["PTYGUARD_DIR"]
        return os.path.join(parent, os.listdir(parent)[0])

    @property
    def place(self):
        """Where sockets and locks are."""
        with open(os.path.join(self.state, "place")) as file:
            place = file.read().strip()
        return self.state if place == "." else place

    def _pid_in(self, purpose):
        """Who wrote there that it holds guard.lock as guard, or daemon.lock as daemon.

        Others try those locks for a moment, and write down that they do.
        """
        try:
            with open(os.path.join(self.place, purpose + ".lock")) as file:
                words = file.read().replace(",", "").split()
                return int(words[1]) if words[4] == purpose and words[5] == "since" else None
        except (OSError, IndexError, ValueError):
            return None

    def guard_pid(self):
        """The living guard's pid."""
        def living():
            pid = self._pid_in("guard")
            return pid if pid and is_alive(pid) else None
        return wait_until(living, "a guard")

    def daemon_pid(self):
        """The serving daemon's pid."""
        def living():
            pid = self._pid_in("daemon")
            return pid if pid and is_alive(pid) else None
        return wait_until(living, "a daemon")

    def kill_daemon(self):
        """kill -9; returns once that process is gone."""
        pid = self.daemon_pid()
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda: not is_alive(pid), "the daemon's death")
        return pid

    def kill_guard(self):
        """kill -9; returns once that process is gone."""
        pid = self.guard_pid()
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda: not is_alive(pid), "the guard's death")
        return pid

    @property
    def paths(self):
        """Where everything is, as the product itself finds it."""
        return _backend().find_paths(self.env["PTYGUARD_DIR"])

    def new_daemon_pid(self, *old):
        """The pid of a serving daemon that is none of `old`."""
        def other():
            pid = self.daemon_pid()
            return pid if pid not in old else None
        return wait_until(other, "another daemon")

    def new_guard_pid(self, *old):
        """The pid of a living guard that is none of `old`."""
        def other():
            pid = self.guard_pid()
            return pid if pid not in old else None
        return wait_until(other, "another guard")

    @contextlib.contextmanager
    def guard_with(self, daemon_program, *settings, patch=""):
        """A real guard, child of this process, whose daemons run `daemon_program`.

        Gives its pid.  `settings` ("name=value") are handed to the daemons.  Such a
        daemon need not understand clients: guard and daemon end with the block.
        `patch` is Python that has the module `guard` at hand before it begins.
        """
        backend = _backend()
        code = ("import sys; sys.path.insert(0, sys.argv[1]); import ptyguard_posix\n"
                f"from ptyguard_core import guard\n{patch}\n"
                "sys.exit(guard.main(ptyguard_posix, sys.argv[3:], sys.argv[2]))")
        report, theirs = os.pipe()
        try:
            pid = backend.launch(
                [sys.executable, "-I", "-S", "-c", code, ROOT, daemon_program,
                 self.paths.root, *settings], {"PATH": os.defpath, "HOME": "/"},
                (theirs,), self.paths.guard_log, detach=False)
        finally:
            os.close(theirs)
        try:
            with open(report, "rb") as file:
                file.read()             # until it has said how its first daemon did
            yield pid
        finally:
            # Stopped first: neither may replace the other.  A daemon that is only
            # starting leaves by itself when its link ends.
            os.kill(pid, signal.SIGSTOP)
            holder = self._pid_in("daemon")
            if holder is not None and self._is_ours(holder):
                os.kill(holder, signal.SIGKILL)
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)

    def _is_ours(self, pid):
        """Whether that process was started with this world's directory."""
        try:
            with open(f"/proc/{pid}/cmdline", "rb") as file:
                return self.paths.root.encode() + b"\0" in file.read()
        except OSError:
            return False

    def log(self, which="daemon"):
        """The whole log, as text."""
        try:
            with open(os.path.join(self.state, which + ".log"), encoding="utf-8", errors="replace") as f:
                return f.read()
        except OSError:
            return ""

    # -- the end ------------------------------------------------------------------------------

    def close(self):
        """End all that was started here, by pid."""
        for process in self._started:
            if process.poll() is None:
                process.kill()
            process.wait(LIMIT_S)
            for stream in (process.stdin, process.stdout, process.stderr):
                if stream:
                    stream.close()
        try:
            if os.path.isdir(self.env["PTYGUARD_DIR"]):
                self.run("daemon", "stop", "--sessions", "kill", "--force")
        except (subprocess.TimeoutExpired, AssertionError):
            pass
        self._end_by_force()
        shutil.rmtree(self.directory, ignore_errors=True)

    def _end_by_force(self):
        """Whatever still carries this world's directory in its arguments or environment."""
        mark = self.env["PTYGUARD_DIR"].encode()
        for name in os.listdir("/proc"):
            if not name.isdigit() or int(name) == os.getpid():
                continue
            try:
                with open(f"/proc/{name}/cmdline", "rb") as file:
                    words = file.read()
                with open(f"/proc/{name}/environ", "rb") as file:
                    words += file.read()
                if mark + b"\0" in words:
                    os.kill(int(name), signal.SIGKILL)
            except OSError:
                continue
        try:
            place = self.place
            if place != self.state:
                shutil.rmtree(place, ignore_errors=True)
        except (OSError, IndexError):
            pass                    # nothing of ours came to be there


class Terminal:
    """A process whose controlling terminal we hold the other end of."""

    def __init__(self, argv, env, size=(80, 24)):
        self.master, slave = os.openpty()
        self.resize(*size, fd=slave)
        self.settings = termios.tcgetattr(slave)
        self.output = b""
        self._seen = 0

        def take_terminal():
            default_signals()
            os.setsid()
            fcntl.ioctl(0, termios.TIOCSCTTY, 0)

        self.process = subprocess.Popen(argv, env=env, stdin=slave, stdout=slave, stderr=slave,
                                        preexec_fn=take_terminal, close_fds=True)
        self.slave = slave              # ours too, so that its modes can be looked at afterwards

    def resize(self, cols, rows, fd=None):
        """Another window size."""
        fcntl.ioctl(self.slave if fd is None else fd, termios.TIOCSWINSZ,
                    struct.pack("HHHH", rows, cols, 0, 0))

    def send(self, data):
        """Type bytes."""
        view = memoryview(data)
        while view:
            _, writable, _ = select.select([], [self.master], [], LIMIT_S)
            assert writable, "the terminal takes nothing"
            view = view[os.write(self.master, view[:1024]):]

    def fill_queue(self, session):
        """Type until the daemon takes no more for the session; the program has to read nothing.

        A terminal and a socket on the way hold differently much each time.
        """
        while session.info()["input_queued"] < INPUT_QUEUE_MAX:
            _, writable, _ = select.select([], [self.master], [], LIMIT_S)
            assert writable, "the terminal takes nothing"
            os.write(self.master, b"x" * 4096)

    def read_more(self, limit_s=LIMIT_S):
        """Take what comes; False at the end."""
        ready, _, _ = select.select([self.master], [], [], limit_s)
        if not ready:
            return False
        try:
            data = os.read(self.master, 65536)
        except OSError:
            return False
        self.output += data
        return bool(data)

    def expect(self, pattern, limit_s=LIMIT_S):
        """Wait until `pattern` (bytes) shows after what was expected before; the match."""
        deadline = time.monotonic() + limit_s
        begin = self._seen
        while True:
            match = re.compile(pattern, re.S).search(self.output, begin)
            if match:
                self._seen = match.end()
                return match
            begin = max(self._seen, len(self.output) - 65536)   # nothing expected is longer
            left = deadline - time.monotonic()
            assert left > 0 and (self.read_more(min(left, 1.0)) or self.process.poll() is None), \
                f"{pattern!r} did not show in {self.output[self._seen:][-4096:]!r}"

    def wait(self):
        """The exit code, all output read."""
        def ended():
            self.read_more(0.01)
            return self.process.poll() is not None
        wait_until(ended, "the end of " + repr(self.process.args))
        while select.select([self.master], [], [], 0)[0] and self.read_more(0):
            pass
        return self.process.returncode

    def close(self):
        """The terminal goes away: a hang-up for whoever is in it."""
        for fd in (self.slave, self.master):
            if fd >= 0:
                os.close(fd)
        self.slave = self.master = -1
