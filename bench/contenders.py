"""Contenders: who is measured, how each is started, and a place of its own for each run.

    bare          a program in a terminal (or pipe) of its own, nobody in between
    ptyguard      one or several, each an archive, a ptyguard.py or a checkout, with a label
    dtach, abduco, tmux, screen     those that are installed; the others are named as missing

Every run has a directory of its own, in its environment and its arguments, and whatever still
carries that name in the end is ended by pid.  {d} stands for that directory, {s} for the
session's name, in commands and variables.
"""

import collections
import glob
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile

import processes
from rounds import Failure, undisturbed

PEERS = ("dtach", "abduco", "tmux", "screen")
SESSIONS_MAX = 5000                     # ptyguard's own limit is 1000 unless it is told another
FOREIGN = ("PTYGUARD", "TMUX", "STY", "SCREEN", "DTACH", "ABDUCO", "PYTHON")

Contender = collections.namedtuple("Contender", [
    "name", "kind",         # "ptyguard (socket)" is of the kind "ptyguard"
    "attached",             # a new session with a client on this terminal
    "detached",             # a new session, nobody attached
    "attach", "list",
    "variables", "is_exact",        # whether it passes all bytes on, unchanged
    "library",              # ptyguard: what to put on sys.path
    "version"])

BARE = Contender("bare", "bare", [], None, None, None, {}, True, None, None)


def find(copies):
    """(those that are there, in their order; names of those that are missing)."""
    found = [BARE] + [ptyguard(label, path) for label, path in copies]
    peers = [peer(name) for name in PEERS if shutil.which(name)]
    return found + peers, [name for name in PEERS if not shutil.which(name)]


def ptyguard(label, path):
    """`path`: an archive, a ptyguard.py, or a checkout."""
    script = os.path.join(path, "ptyguard.py") if os.path.isdir(path) else path
    command = [sys.executable, script]
    library = script if script.endswith(".pyz") else os.path.dirname(script)
    return Contender(label, "ptyguard", command + ["new", "-n", "{s}", "--"], command + ["start", "-n", "{s}", "--"],
                     command + ["attach", "{s}"], command + ["ls"],
                     {"PTYGUARD_DIR": "{d}/state", "PTYGUARD_MAX_SESSIONS": str(SESSIONS_MAX)}, True, library,
                     _said(command + ["--version"]))


def by_socket(contender):
    """The same ptyguard, its clients on the framed socket even where the terminal could be passed."""
    return contender._replace(name=f"{contender.name} (socket)",
                              variables=dict(contender.variables, PTYGUARD_DIRECT="0"))


def with_sockets(chosen):
    """All of them, and after each ptyguard its other way of attaching."""
    for contender in chosen:
        yield contender
        if contender.kind == "ptyguard":
            yield by_socket(contender)


def verbs(contender, *words):
    """The argv of a ptyguard's verb."""
    return contender.list[:-1] + list(words)


def peer(name):
    """One of PEERS."""
    tmux = ["tmux", "-L", "private", "-f", "/dev/null"]
    screen = ["screen", "-c", "/dev/null"]
    commands = {
        "dtach": (["dtach", "-c", "{d}/{s}", "-r", "none"], ["dtach", "-n", "{d}/{s}", "-r", "none"],
                  ["dtach", "-a", "{d}/{s}", "-r", "none"], None, {}, True),
        "abduco": (["abduco", "-c", "{s}"], ["abduco", "-n", "{s}"], ["abduco", "-a", "{s}"], ["abduco"],
                   {"ABDUCO_SOCKET_DIR": "{d}"}, True),
        "tmux": (tmux + ["new-session", "-s", "{s}"], tmux + ["new-session", "-d", "-s", "{s}"],
                 tmux + ["attach", "-t", "{s}"], tmux + ["ls"], {"TMUX_TMPDIR": "{d}"}, False),
        "screen": (screen + ["-S", "{s}"], screen + ["-dmS", "{s}"], screen + ["-r", "{s}"], screen + ["-ls"],
                   {"SCREENDIR": "{d}/screens"}, False),
    }
    asked = {"dtach": ["--version"], "abduco": ["-v"], "tmux": ["-V"], "screen": ["--version"]}
    return Contender(name, name, *commands[name], None, _said([name] + asked[name]))


def _said(argv):
    """The version in what a program says of itself."""
    try:
        done = subprocess.run(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                              timeout=60, check=False)
    except (OSError, subprocess.SubprocessError):
        return "?"
    match = re.search(rb"\d+\.[\w.+-]+", done.stdout)
    return match.group().decode() if match else "?"


class Place:
    """One run's directory, with whatever lives in it.  A context manager."""

    def __init__(self, contender):
        self.contender = contender
        self.directory = tempfile.mkdtemp(prefix="pg-bench-")
        os.mkdir(self.path("screens"), 0o700)
        self.environment = {name: value for name, value in os.environ.items() if not name.startswith(FOREIGN)}
        self.environment.update(TERM="xterm-256color", PYTHONDONTWRITEBYTECODE="1",
                                BENCH_DIRECTORY=self.directory)
        for name, value in contender.variables.items():
            self.environment[name] = self._here(value)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        with undisturbed():
            processes.end_all(self.directory)
            for elsewhere in self._sockets():
                shutil.rmtree(elsewhere, ignore_errors=True)
            shutil.rmtree(self.directory, ignore_errors=True)

    def _here(self, text, session="bench"):
        return text.replace("{d}", self.directory).replace("{s}", session)

    def path(self, name):
        """A file of this run."""
        return os.path.join(self.directory, name)

    def write(self, name, data):
        """Make such a file; its path."""
        with open(self.path(name), "wb") as file:
            file.write(data)
        return self.path(name)

    def command(self, words, program=(), session="bench"):
        """The argv of a contender in this place."""
        return [self._here(word, session) for word in words] + list(program)

    def run(self, argv, input=None):
        """A command to its end; what it printed.  Failure unless its status is 0."""
        given = {"stdin": subprocess.DEVNULL} if input is None else {"input": input}
        done = subprocess.run(argv, env=self.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                              timeout=200, check=False, **given)
        if done.returncode:
            raise Failure(f"{' '.join(argv)[:200]}: exit code {done.returncode}: "
                          f"{(done.stderr or done.stdout)[-400:]!r}")
        return done.stdout

    def start_many(self, programs):
        """A session without a client for each of `programs` ({name: argv}), the quickest way it has."""
        kind = self.contender.kind
        many = {"ptyguard": self._start_by_api, "tmux": self._start_by_tmux}.get(kind)
        if many:
            return many(programs)
        for session, program in programs.items():
            self.run(self.command(self.contender.detached, program, session))

    def _start_by_api(self, programs):
        self.run([sys.executable, "-I", "-c", STARTER, self.contender.library, self.environment["PTYGUARD_DIR"]],
                 input=json.dumps(programs).encode())

    def _start_by_tmux(self, programs):
        """All in one file of commands, so that one client is started instead of one for each."""
        lines = [" ".join(["new-session", "-d", "-s", session] + [_quoted(word) for word in program])
                 for session, program in programs.items()]
        path = self.write("sessions.tmux", "\n".join(lines).encode() + b"\n")
        self.run(self.command(self.contender.list[:-1], ["start-server", ";", "source-file", path]))

    def daemon_pid(self):
        """The pid of a serving ptyguard daemon as its lock tells it, or None; asks nobody."""
        for directory in self._sockets():
            try:
                with open(os.path.join(directory, "daemon.lock")) as file:
                    words = file.read().replace(",", "").split()    # pid 812 start 4711 daemon since ...
            except FileNotFoundError:
                continue
            if words[4:5] == ["daemon"] and processes.is_alive(int(words[1])):
                return int(words[1])
        return None

    def _sockets(self):
        """Where a ptyguard has its sockets and locks: elsewhere, if this directory's name is long."""
        for path in glob.glob(self.path("state/*/place")):
            with open(path) as file:
                place = file.read().strip()
            yield os.path.dirname(path) if place == "." else place

    def keepers(self):
        """{role: pids} of the processes that keep this place's sessions."""
        if self.contender.kind == "ptyguard":
            told = json.loads(self.run(self.command(verbs(self.contender, "status", "--json"))))
            return {role: [told[role]["pid"]] for role in ("guard", "daemon")}
        return {"daemon": [pid for pid in processes.carrying(self.directory)
                           if processes.name_of(pid).lower().startswith(self.contender.kind)]}


def _quoted(word):
    """One word for tmux's own parser, which takes the blanks after a newline away: one line."""
    return "'" + word.replace("'", "'\\''") + "'"


STARTER = """
import json, os, sys
sys.path.insert(0, sys.argv[1])
import ptyguard
with ptyguard.connect(sys.argv[2]) as pg:
    for name, argv in json.load(sys.stdin).items():
        pg.start(argv, name=name)
"""
