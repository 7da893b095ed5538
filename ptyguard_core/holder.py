"""Holder: a connection that keeps the daemon, for the life of a command or of this process.

The daemon counts it from hello on (ownership.py); nothing is said on it afterwards.  Its
end needs no care: closing, a crash and SIGKILL all let the kernel close the socket.

Rule 1: a daemon that died is followed by another, and the link goes over to that one:
        after 200 ms, then doubling to 2 s.  It is not started from here; its guard does.
Rule 2: a daemon that was stopped on purpose is left alone.  It says so itself; of one that
        could not, the guard knows.  Where both are gone there is nothing to come back to.
Rule 3: the command is not disturbed.  It has our standard streams and our process group,
        and runs to its end whatever becomes of the link.
"""

import os
import time

from . import frames, guardwire as wire
from .backend import READABLE
from .channel import Channel
from .errors import CannotExecute, CommandNotFound, PtyguardError, Unreachable
from .liveness import pauses
from .loop import Loop
from .supervise import START_LIMIT_S, ask_guard

GUARD_PATIENCE_S = 2.0
RETURN_PATIENCE_S = 2.0        # of one try to come back
# The guard's words for a daemon that is not to come back.
ON_PURPOSE = ("stopped", "leaving", "stopping")
# Ctrl-C and Ctrl-\ reach the command by themselves: a terminal signals the whole group.
_FORWARDED = ("SIGTERM", "SIGHUP")


class _Interrupted(Exception):
    """A signal came while we were waiting for a daemon."""


class Holder:
    """One link.  `run` holds it; `close` lets go."""

    def __init__(self, backend, paths, terms, may_start=True, note=None, scope=None):
        """`terms` as in liveness.py; `note(text)` tells the user; `scope` as a Channel's."""
        self._backend = backend
        self._paths = paths
        self._hello = {"link": True, "grace": terms.grace_s, "on_orphan": terms.on_orphan}
        self._may_start = may_start
        self._note = note or (lambda text: None)
        self._scope = scope
        self._loop = Loop(backend.make_poller(any_file=True), time.monotonic)
        self._channel = None
        self._pauses = None
        self._timer = None              # of the next try to come back
        self._is_told = False           # that the daemon stops on purpose
        self._is_connecting = False
        self._child = None              # the command's pid
        self._status = None             # ours, once it is known

    @property
    def is_linked(self):
        """Whether a daemon counts us now, as far as we know."""
        return self._channel is not None

    def run(self, argv=None):
        """Hold for the life of `argv`, else until a signal or the daemon's end; our status.

        Raises CommandNotFound and CannotExecute where `argv` cannot run, and whatever a
        connection may meet.
        """
        if argv:
            check_command(argv[0])      # a typing error is to arm nothing
        self.open()
        try:
            if argv:
                self._begin(argv)
            while self._status is None:
                self._loop.turn()
        finally:
            self.close()
        return self._status

    def open(self):
        """Link, starting a daemon if there is none and that is allowed."""
        self._connect(self._may_start, START_LIMIT_S)
        welcome = self._channel.welcome
        if not welcome.get("link"):
            why = f"is {welcome['owner']}" if "link" in welcome else "is too old to know of links"
            self._note(f"the daemon {why}: it will outlive this one")
        # Not before: starting a guard forks, and that child's end is nobody's business here.
        signals, self._read_signals = self._backend.watch_signals(
            ("SIGCHLD", "SIGTERM", "SIGHUP", "SIGINT", "SIGQUIT"), self._on_handler)
        self._loop.watch(signals, self._on_signal, READABLE)

    def close(self):
        """Let go.  Idempotent."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._channel is not None:
            self._loop.forget(self._channel.fileno())
            self._channel.close()
            self._channel = None

    # -- the daemon ----------------------------------------------------------------------

    def _connect(self, may_start, timeout_s):
        self._channel = Channel(self._backend, self._paths, "link", may_start, timeout_s,
                                hello=self._hello, scope=self._scope)
        self._pauses = pauses()
        self._loop.watch(self._channel.fileno(), self._on_daemon, READABLE)
        if self._channel.has_kept:
            self._loop.soon(lambda: self._on_daemon(READABLE))

    def _on_daemon(self, _bits):
        if self._channel is None:
            return
        try:
            for type_, _, payload in self._channel.receive():
                if type_ == frames.EVENT and payload.get("event") == "stopping":
                    self._is_told = True
        except (EOFError, OSError, PtyguardError):
            self.close()
            self._come_back()

    def _come_back(self):
        if self._is_told:
            self._give_up("the daemon was stopped")
        else:
            self._timer = self._loop.after(next(self._pauses), self._try)

    def _try(self):
        self._timer = None
        state = None
        self._is_connecting = True
        try:
            state = self._daemon_state()
            if state in ON_PURPOSE:
                self._give_up("the daemon was stopped")
                return
            self._connect(False, RETURN_PATIENCE_S)
        except _Interrupted:
            self._come_back()           # the signal's byte tells which it was
        except PtyguardError as error:
            if isinstance(error, Unreachable) and state is None:
                self._give_up("guard and daemon are gone")
            else:
                self._come_back()
        finally:
            self._is_connecting = False

    def _daemon_state(self):
        """The guard's word, None when there is no guard, "" when it does not answer."""
        try:
            guard = ask_guard(self._backend, self._paths, wire.STATE, GUARD_PATIENCE_S)
        except Unreachable:
            return ""
        return None if guard is None else guard.text("daemon_state")

    def _give_up(self, why):
        if self._child is None:
            self._note(f"{why}: the link is over")
            self._status = 0
        else:
            self._note(f"{why}: the command goes on without the link")

    # -- the command and signals ---------------------------------------------------------

    def _begin(self, argv):
        try:
            self._child = self._backend.begin_command(argv)
        except OSError as error:
            raise cannot_run(argv[0], error) from None

    def _on_handler(self):
        if self._is_connecting:
            self._is_connecting = False
            raise _Interrupted

    def _on_signal(self, _bits):
        for name in self._read_signals():
            if name == "SIGCHLD":
                self._reap()
            elif self._child is None:
                self._status = 0
            elif name in _FORWARDED:
                self._backend.signal_process(self._child,
                                             self._backend.process_start(self._child),
                                             self._backend.signal_number(name))

    def _reap(self):
        for pid, raw in self._backend.reap_children():
            if pid == self._child:
                code, number = self._backend.decode_status(raw)
                self._status = code if number is None else 128 + number


def check_command(word):
    """Raise unless there is something to execute by that name."""
    places = [""] if "/" in word else os.environ.get("PATH", os.defpath).split(os.pathsep)
    found = [path for path in (os.path.join(place, word) for place in places)
             if os.path.isfile(path)]
    if not found:
        raise cannot_run(word, FileNotFoundError(2, "No such file or directory"))
    if not any(os.access(path, os.X_OK) for path in found):
        raise cannot_run(word, PermissionError(13, "Permission denied"))


def cannot_run(word, error):
    """The typed error for a command of ours that did not start."""
    if isinstance(error, (FileNotFoundError, NotADirectoryError)):
        return CommandNotFound(f"command not found: {word}", errno=error.errno,
                               hint="check the name and your PATH")
    return CannotExecute(f"cannot execute {word}: {error.strerror}", errno=error.errno,
                         hint="is it an executable file for this machine?")
