"""What anybody has who was given the archive: processes, a shell, and terminals.

Nothing here knows how ptyguard works; it knows what the README says.  All waiting is for
facts, with a limit for the case that they never come.
"""

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

LIMIT_S = 60.0
DETACH = b"\x1c"                        # Ctrl-\

# Short paths, and records that need not reach a disk.
_ABOVE = "/dev/shm" if os.access("/dev/shm", os.W_OK | os.X_OK) else None


def wait_until(fact, what="the fact", limit_s=LIMIT_S):
    """The first true answer of `fact()`."""
    deadline = time.monotonic() + limit_s
    while True:
        answer = fact()
        if answer:
            return answer
        assert time.monotonic() < deadline, f"{what} did not come to be in {limit_s:g} s"
        select.select([], [], [], 0.01)     # the processor is for those who make it true


def is_alive(pid):
    """Whether that process runs; a zombie does not."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return file.read().rpartition(b") ")[2][:1] not in (b"Z", b"X")
    except OSError:
        return False


def cpu_ticks(pid):
    """Processor time that the process has used, in ticks of 10 ms."""
    with open(f"/proc/{pid}/stat", "rb") as file:
        fields = file.read().rpartition(b") ")[2].split()
    return int(fields[11]) + int(fields[12])        # utime and stime, proc(5)


def usual_signals():
    """In a child: the tests themselves may run in a script's background, or under nohup."""
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTSTP):
        signal.signal(number, signal.SIG_DFL)


class Ptyguard:
    """The archive with a PTYGUARD_DIR of its own.  A context manager; its end ends everything."""

    def __init__(self, archive, argv=None, directory=None, **variables):
        self.archive = archive
        self.argv = argv or [sys.executable, archive]
        self.above = tempfile.mkdtemp(prefix="pgbb-", dir=_ABOVE)
        self.directory = directory or os.path.join(self.above, "d")
        self.env = {key: value for key, value in os.environ.items()
                    if not key.startswith(("PTYGUARD", "PYTEST"))}
        self.env.update(TERM="xterm-256color", PTYGUARD_DIR=self.directory, **variables)
        # For shell lines: the command `ptyguard`.
        self.env["PATH"] = os.path.dirname(archive) + os.pathsep + self.env.get("PATH", os.defpath)
        self._processes = []
        self._terminals = []

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    # -- running -------------------------------------------------------------------------------

    def run(self, *args, code=None, argv=None, **options):
        """`ptyguard ARGS` to its end; `code` is the exit status that it must have."""
        return self._finished((argv or self.argv) + list(args), code, options)

    def sh(self, line, *args, code=None, **options):
        """A shell line to its end, with `ptyguard` on its PATH and ARGS as $1 and so on."""
        return self._finished(["sh", "-c", line, "sh"] + list(args), code, options)

    def _finished(self, argv, code, options):
        if "input" not in options:
            options.setdefault("stdin", subprocess.DEVNULL)
        options.setdefault("stdout", subprocess.PIPE)
        options.setdefault("stderr", subprocess.PIPE)
        options.setdefault("env", self.env)
        options.setdefault("preexec_fn", usual_signals)
        done = subprocess.run(argv, timeout=LIMIT_S, **options)
        assert code is None or done.returncode == code, (argv, done)
        assert b"Traceback" not in (done.stderr or b""), (argv, done)
        return done

    def popen(self, *args, argv=None, **options):
        """`ptyguard ARGS` beside us; ended with this."""
        options.setdefault("stdin", subprocess.DEVNULL)
        options.setdefault("env", self.env)
        options.setdefault("preexec_fn", usual_signals)
        process = subprocess.Popen((argv or self.argv) + list(args), **options)
        self._processes.append(process)
        return process

    def terminal(self, *args, argv=None, **options):
        """`ptyguard ARGS` in a terminal."""
        options.setdefault("env", self.env)
        terminal = Terminal((argv or self.argv) + list(args), **options)
        self._processes.append(terminal.process)
        self._terminals.append(terminal)
        return terminal

    def attach(self, name, *args, **options):
        """A terminal in which that session is shown, and which takes keys for it."""
        terminal = self.terminal("attach", name, *args, **options)
        terminal.wait_until_raw()
        return terminal

    def start(self, name, line, *options):
        """A session that runs a shell line and has printed "ready"."""
        self.run("start", "-n", name, *options, "--", "sh", "-c", line, code=0)
        self.run("wait", name, "--for", "ready", code=0)

    # -- asking --------------------------------------------------------------------------------

    def json(self, *args):
        """The object that a command prints with --json."""
        return json.loads(self.run(*args, "--json").stdout)

    def sessions(self, *options):
        """What `ls` tells, by name."""
        return {each["name"]: each for each in self.json("ls", *options)["sessions"]}

    def log(self, name):
        """All kept output of a session."""
        return self.run("log", name, "--raw", code=0).stdout

    def guard_pid(self):
        """The guard's pid; a guard has to run."""
        return self.json("status")["guard"]["pid"]

    def daemon_pid(self, other_than=None):
        """The pid of the daemon; of the next one, when one has been killed."""
        def serving():
            daemon = self.json("status")["daemon"]
            pid = daemon and daemon["pid"]
            return pid if pid != other_than else None
        return wait_until(serving, "a daemon")

    def pids(self):
        """All processes that belong to this directory: guard, daemon, programs, clients."""
        return sorted(_pids_with(self.directory.encode()))

    # -- the end -------------------------------------------------------------------------------

    def close(self):
        """End all that was started with this directory, by pid, and remove it."""
        for process in self._processes:
            if process.poll() is None:
                process.kill()
            process.wait(LIMIT_S)
            for stream in (process.stdin, process.stdout, process.stderr):
                if stream:
                    stream.close()
        for terminal in self._terminals:
            terminal.close()
        if os.path.isdir(self.directory):
            try:
                self.run("daemon", "stop", "--sessions", "kill", "--force")
            except subprocess.TimeoutExpired:
                pass                        # what is left is ended here
        for pid in self.pids():
            try:
                os.kill(pid, signal.SIGKILL)
            except OSError:
                pass                        # it was on its way out
        shutil.rmtree(self.above, ignore_errors=True)


def _pids_with(mark):
    """Processes that have `mark` as an argument, or as the value of a variable."""
    for name in os.listdir("/proc") if os.path.isdir("/proc") else ():
        if not name.isdigit() or int(name) == os.getpid():
            continue
        words = b""
        for what in ("cmdline", "environ"):
            try:
                with open(f"/proc/{name}/{what}", "rb") as file:
                    words += file.read() + b"\0"
            except OSError:
                pass                        # gone, or somebody else's
        if mark + b"\0" in words:
            yield int(name)


class Terminal:
    """A process in a terminal, of which this is the human's side."""

    def __init__(self, argv, env, size=(80, 24), cwd=None, preexec_fn=None):
        self.master, self.slave = os.openpty()      # the slave, so that its modes can be looked at
        self.resize(*size)
        self.settings = termios.tcgetattr(self.slave)
        self.output = b""
        self._seen = 0

        def take_terminal():
            usual_signals()
            os.setsid()
            fcntl.ioctl(0, termios.TIOCSCTTY, 0)
            if preexec_fn:
                preexec_fn()

        self.process = subprocess.Popen(argv, env=env, cwd=cwd, stdin=self.slave, stdout=self.slave,
                                        stderr=self.slave, preexec_fn=take_terminal,
                                        close_fds=preexec_fn is None)
        os.set_blocking(self.master, False)

    def resize(self, cols, rows):
        """Another window size."""
        fcntl.ioctl(self.slave, termios.TIOCSWINSZ, struct.pack("HHHH", rows, cols, 0, 0))

    def is_raw(self):
        """Whether whoever is in there takes each key as it comes."""
        return not termios.tcgetattr(self.slave)[3] & termios.ICANON

    def wait_until_raw(self):
        wait_until(lambda: self.is_raw() or self.process.poll() is not None, "raw mode")
        assert self.process.poll() is None, self.read_rest()

    def take(self, wait_s):
        """Read what comes within that time; whether something came."""
        if not select.select([self.master], [], [], wait_s)[0]:
            return False
        try:
            data = os.read(self.master, 65536)
        except OSError:                     # EIO: nobody has the other side open
            data = b""
        self.output += data
        return bool(data)

    def type(self, data):
        """Type bytes, reading what comes meanwhile."""
        view = memoryview(data)
        deadline = time.monotonic() + LIMIT_S
        while view:
            assert time.monotonic() < deadline, "the terminal takes nothing"
            taken = self.type_some(view)
            view = view[taken:]
            if not taken:
                self.take(0.01)

    def type_some(self, data):
        """Type as much as is taken without waiting; how many bytes that was."""
        try:
            return os.write(self.master, data[:1024])
        except BlockingIOError:
            return 0

    def expect(self, pattern, limit_s=LIMIT_S):
        """Wait until `pattern` shows, after what was expected before; the match."""
        pattern = re.compile(pattern, re.S)
        deadline = time.monotonic() + limit_s
        while True:
            match = pattern.search(self.output, self._seen)
            if match:
                self._seen = match.end()
                return match
            assert time.monotonic() < deadline and (
                self.take(0.1) or self.process.poll() is None or self.take(0)), \
                f"{pattern.pattern!r} did not show in {self.output[self._seen:][-4000:]!r}"

    def expect_bytes(self, data):
        """Wait until exactly these bytes show."""
        return self.expect(re.escape(data))

    def read_rest(self):
        """All output, when the process has ended."""
        while self.take(0):
            pass
        return self.output

    def wait(self):
        """Read to the end of the process; its exit status."""
        def ended():
            self.take(0.01)
            return self.process.poll() is not None
        wait_until(ended, f"the end of {self.process.args}")
        self.read_rest()
        return self.process.returncode

    def detach(self):
        """Leave by the usual key, and find the terminal as it was."""
        self.type(DETACH)
        assert self.wait() == 0, self.output
        assert b"[detached" in self.output
        assert termios.tcgetattr(self.slave) == self.settings

    def close(self):
        """The window goes away: a hang-up for whoever is in it."""
        for fd in (self.master, self.slave):
            if fd >= 0:
                os.close(fd)
        self.master = self.slave = -1
