"""Watching: the list of sessions on a terminal, kept as it is by small strokes.

The daemon tells when something has changed (`watch`, docs/PROTOCOL.md), and then the list is
asked for; besides that it is asked for every other second, for ages and for titles, which
the daemon does not look for by itself.

Rule 1: only lines that have become others are written, each at its place, and nothing when
        none has.  The whole is never cleared.
Rule 2: no daemon is started from here: who has stopped it meant it.  What was seen last stays,
        with a word that a daemon is waited for, and the list goes on with the next one.
Rule 3: keys and signals are served while a daemon is waited for, in turns of the loop within
        the waiting, as in attach.py.
Rule 4: the terminal is given back as it was on every way out: keys, signals, errors.
"""

import os
import time

from . import frames, guardwire as wire
from .backend import FAILED, READABLE, WRITABLE
from .channel import HELLO_LIMIT_S, Channel
from .errors import LimitReached, PtyguardError, Unreachable
from .holder import GUARD_PATIENCE_S, ON_PURPOSE
from .listing import chosen, cut, session_table
from .loop import Loop
from .report import LIVING
from .supervise import ask_guard

LOOK_S = 2.0                   # between looks at what nobody tells: ages, titles
PACE_S = 0.1                   # between looks at what is told: no eye follows more
ANSWER_LATE_S = 5.0            # then the user is told that a daemon is waited for, and another
                               # connection is tried: its hello is what the guard judges by
GONE_TOLD_S = 1.0              # a replaced daemon is back long before
RECONNECT_PAUSE_S = 0.05       # doubled up to ...
RECONNECT_PAUSE_MAX_S = 2.0
REACH_S = 2.0                  # of one try to find somebody who listens
FLUSH_LIMIT_S = 1.0            # for a terminal to take the last strokes
TERMINAL_WRITE_BYTES = 1024    # what a terminal takes that is said to be writable
READ_BYTES = 1024
DEFAULT_SIZE = (80, 24)

# The alternate screen, no cursor, no wrapping: a line that the terminal counts wider than we
# do spoils itself only.
_ENTER = b"\x1b[?1049h\x1b[?25l\x1b[?7l"
_LEAVE = b"\x1b[?2026l\x1b[m\x1b[?7h\x1b[?25h\x1b[?1049l"
_BOLD, _FAINT = "\x1b[1m", "\x1b[2m"

_LEFT_BY = {b"q": 0, b"Q": 0, b"\x03": 130, b"\x1c": 131}
_STOP_KEY, _REDRAW_KEY = b"\x1a", b"\x0c"
_ENDED_BY = {"SIGHUP": 129, "SIGINT": 130, "SIGQUIT": 131, "SIGTERM": 143}


class Picture:
    """What stands on a terminal, and the least that makes it another.  Pure."""

    def __init__(self):
        self._size = None
        self._rows = []

    def forget(self):
        """Nobody knows what stands there."""
        self._size = None

    def change(self, size, rows):
        """The text that makes the terminal show these rows (at most as many as it has); "" if it does."""
        is_new = size != self._size
        before = [] if is_new else self._rows
        strokes = []
        for y, row in enumerate(rows):
            if row != (before[y] if y < len(before) else None):
                # Erased first: behind a full line the cursor stands on its last character.
                strokes.append(f"\x1b[{y + 1};1H\x1b[m\x1b[K{row}")
        if len(rows) < (size[1] if is_new else len(before)):
            strokes.append(f"\x1b[{len(rows) + 1};1H\x1b[m\x1b[J")
        self._size, self._rows = size, list(rows)
        return f"\x1b[?2026h{''.join(strokes)}\x1b[?2026l" if strokes else ""


def page(lines, size, note=""):
    """`lines`, a heading and what it heads, as rows of a terminal of (cols, rows); below them a note."""
    cols, rows = size
    room = rows - (1 if note else 0)
    if len(lines) > room:
        hidden = len(lines) - max(1, room - 1)
        lines = lines[:max(1, room - 1)] + [f"... and {hidden} more"]
    shown = [cut(line, cols) for line in lines[:max(1, room)]]
    shown = [_BOLD + shown[0] + "\x1b[m"] + shown[1:]
    if note and rows > 1:
        shown.append(_FAINT + cut(note, cols) + "\x1b[m")
    return shown


class _Left(Exception):
    """What a daemon was waited for is no matter any more."""


class _ServedChannel(Channel):
    """A connection of a watch, which is served while it waits (rule 3)."""

    watches_for_stalls = False          # the watch sees to that

    def __init__(self, watch, backend, paths):
        self._watch = watch
        super().__init__(backend, paths, "watch", may_start=False, timeout_s=HELLO_LIMIT_S)

    def wait_readable(self, timeout_s):
        return self.has_kept or self._watch.serve_until(self.fileno(), READABLE, timeout_s)

    def wait_writable(self, timeout_s):
        return self._watch.serve_until(self.fileno(), WRITABLE, timeout_s)

    def _reach(self, deadline):
        return super()._reach(min(deadline, time.monotonic() + REACH_S))


class Watch:
    """One terminal with the list on it.  `run` does it all and returns the exit status."""

    def __init__(self, backend, paths, has_all=False, encoding="utf-8"):
        """`has_all`: also those that ended long ago.  `encoding`: the terminal's."""
        self._backend = backend
        self._paths = paths
        self._has_all = has_all
        self._encoding = encoding
        self._loop = Loop(backend.make_poller(any_file=True), time.monotonic)
        self._channel = None
        self._sessions = None           # as the daemon listed them last
        self._awaited = None            # the serial of the request for the list
        self._asked_at = 0.0
        self._look_timer = None
        self._late_timer = None
        self._pause_s = RECONNECT_PAUSE_S
        self._note = ""
        self._picture = Picture()
        self._saved = None              # termios to put back
        self._shares_terminal = False   # with a shell, which may put us into the background
        self._own_stdout = backend.reopen_terminal(1)
        self._stdout = 1 if self._own_stdout is None else self._own_stdout
        self._stdout_poller = backend.make_poller(any_file=True)
        self._unwritten = b""
        self._status = None
        self._error = None

    def run(self):
        """Show the list until somebody leaves; put everything back.  Raises what made it end."""
        signals, self._read_signals = self._backend.watch_signals(
            ("SIGHUP", "SIGTERM", "SIGINT", "SIGQUIT", "SIGWINCH", "SIGTSTP", "SIGCONT"))
        self._loop.watch(signals, lambda _bits: self._act_on_signals(self._read_signals()), READABLE)
        self._loop.watch(self._stdout, lambda _bits: self._on_stdout(), 0)
        self._stdout_poller.register(self._stdout, WRITABLE)
        try:
            self._reconnect()
            if self._status is None:    # else it was refused before the terminal was touched
                self._loop.watch(0, self._on_keys, READABLE)
                self._take_terminal()
            while self._status is None:
                self._loop.turn()
        finally:
            self._give_back_terminal()
            if self._channel is not None:
                self._channel.close()
            if self._own_stdout is not None:
                os.close(self._own_stdout)
        if self._error is not None:
            raise self._error
        return self._status

    def _end(self, status, error=None):
        if self._status is None:
            self._status, self._error = status, error

    # -- the daemon ----------------------------------------------------------------------

    def serve_until(self, fd, bits, timeout_s):
        """Turn the loop until `fd` is ready, or the time is over; whether it is.

        Raises _Left when the watch has ended.
        """
        def check():
            if self._status is not None:
                raise _Left

        return self._loop.turn_until_ready(fd, bits, timeout_s, check)

    def _reconnect(self):
        """Find a daemon; without one try again in a while."""
        if self._status is not None:
            return
        try:
            self._refuse_stopped()
            channel = _ServedChannel(self, self._backend, self._paths)
        except (Unreachable, LimitReached, OSError):
            self._loop.after(self._pause_s, self._reconnect)
            self._pause_s = min(2 * self._pause_s, RECONNECT_PAUSE_MAX_S)
            self._tell_later(GONE_TOLD_S)
        except PtyguardError as error:
            self._end(1, error)
        except _Left:
            pass
        else:
            self._begin(channel)

    def _refuse_stopped(self):
        """To connect while a daemon leaves for good would make the guard start another."""
        state = ask_guard(self._backend, self._paths, wire.STATE, GUARD_PATIENCE_S)
        if state is not None and state.text("daemon_state") in ON_PURPOSE:
            raise Unreachable("it was stopped")

    def _begin(self, channel):
        self._channel = channel
        self._pause_s = RECONNECT_PAUSE_S
        self._loop.watch(channel.fileno(), lambda _bits: self._receive(), READABLE)
        try:
            channel.ask("watch")        # one that does not know it is looked at all the same
        except (EOFError, OSError):
            self._lose()
        else:
            self._look()

    def _lose(self):
        """It died, was replaced or does not answer: go on with the next one."""
        self._loop.forget(self._channel.fileno())
        self._channel.close()
        self._channel = self._awaited = None
        self._tell_later(GONE_TOLD_S)
        self._loop.soon(self._reconnect)

    def _receive(self):
        try:
            for type_, _, payload in self._channel.receive():
                if type_ == frames.EVENT and payload.get("event") == "changed":
                    self._look_at(max(self._loop.clock(), self._asked_at + PACE_S))
                elif type_ == frames.REPLY and self._awaited is not None \
                        and payload.get("id") == self._awaited:
                    self._take_list(payload)
        except (EOFError, OSError):
            self._lose()

    def _take_list(self, reply):
        self._awaited = None
        self._tell_no_more()
        self._look_at(self._loop.clock() + LOOK_S)
        if "ok" in reply:
            self._sessions = reply["ok"]["sessions"]
            self._draw()

    def _look_at(self, deadline):
        """Ask for the list at that time, or sooner if that is meant already."""
        if self._look_timer is not None and self._look_timer.act is not None:
            if self._look_timer.deadline <= deadline:
                return
            self._look_timer.cancel()
        self._look_timer = self._loop.at(deadline, self._look)

    def _look(self):
        if self._look_timer is not None:
            self._look_timer.cancel()
            self._look_timer = None
        if self._channel is None:
            return
        now = self._loop.clock()
        if self._awaited is not None:
            if now - self._asked_at >= ANSWER_LATE_S:
                self._lose()
            else:
                self._look_at(now + LOOK_S)
        elif self._shares_terminal and not self._backend.is_foreground(0):
            self._look_at(now + LOOK_S)     # the terminal is somebody else's now
        else:
            self._ask()

    def _ask(self):
        self._asked_at = self._loop.clock()
        try:
            self._awaited = self._channel.ask("ls")
        except (EOFError, OSError):
            self._lose()
        else:
            self._tell_later(ANSWER_LATE_S)
            self._look_at(self._asked_at + LOOK_S)

    def _tell_later(self, delay_s):
        """Unless it is heard of before, say that a daemon is waited for."""
        if self._late_timer is None:
            self._late_timer = self._loop.after(delay_s, self._say_we_wait)

    def _say_we_wait(self):
        self._note = "waiting for a daemon; q leaves"
        self._draw()

    def _tell_no_more(self):
        if self._late_timer is not None:
            self._late_timer.cancel()
            self._late_timer = None
        self._note = ""

    # -- the terminal ----------------------------------------------------------------------

    def _take_terminal(self):
        """Make it ours, also again after it was somebody else's."""
        saved = self._backend.enter_raw(0, keep_output=False)
        if self._saved is None:
            self._saved = saved
        self._shares_terminal = self._backend.is_foreground(0)      # else it is not its controlling one
        self._picture.forget()
        self._write(_ENTER)
        self._draw()

    def _give_back_terminal(self):
        if self._saved is None:
            return
        self._unwritten += _LEAVE
        deadline = self._loop.clock() + FLUSH_LIMIT_S
        while self._flush():
            left = deadline - self._loop.clock()
            if left <= 0 or not self._stdout_poller.poll(left):
                break
        self._unwritten = b""
        self._backend.leave_raw(0, self._saved)
        self._saved = None

    def _suspend(self):
        """The shell gets its terminal; we get ours back when continued."""
        self._give_back_terminal()
        self._backend.stop_self()
        self._take_terminal()
        self._act_on_signals([name for name in self._read_signals() if name != "SIGCONT"])

    def _draw(self):
        """Show what is known; while the terminal is slow, later."""
        if self._saved is None or self._unwritten:
            return
        size = self._backend.terminal_size(1) or DEFAULT_SIZE
        self._write(self._picture.change(size, page(self._lines(size[0]), size, self._note)).encode(
            self._encoding, "replace"))

    def _lines(self, cols):
        if self._sessions is None:
            return [""]                 # a moment after the start, or there is no daemon
        now = time.time()
        sessions = chosen(self._sessions, now, self._has_all)
        # Where not all have room those that live are seen.
        sessions.sort(key=lambda session: session["state"] not in LIVING)
        lines = session_table(sessions, now, cols) if sessions else ["no sessions"]
        return [line.encode(self._encoding, "replace").decode(self._encoding) for line in lines]

    def _write(self, data):
        self._unwritten += data
        if self._flush():
            self._loop.change(self._stdout, WRITABLE)

    def _flush(self):
        """Write what the terminal takes now; what is left."""
        try:
            while self._unwritten and self._stdout_poller.poll(0):
                piece = self._unwritten if self._own_stdout is not None \
                    else self._unwritten[:TERMINAL_WRITE_BYTES]
                self._unwritten = self._unwritten[os.write(self._stdout, piece):]
        except BlockingIOError:
            pass
        except OSError:                 # the terminal is gone
            self._unwritten = b""
            self._end(_ENDED_BY["SIGHUP"])
        return self._unwritten

    def _on_stdout(self):
        if not self._flush():
            self._loop.change(self._stdout, 0)
            self._draw()                # what could not be shown meanwhile

    def _on_keys(self, bits):
        try:
            data = os.read(0, READ_BYTES) if bits & (READABLE | FAILED) else b""
        except OSError:
            data = b""
        if not data:
            self._loop.forget(0)
            self._end(_ENDED_BY["SIGHUP"])
        for key in map(bytes, zip(data.partition(b"\x1b")[0])):     # behind ESC: arrows and the like
            if key in _LEFT_BY:
                self._end(_LEFT_BY[key])
            elif key == _REDRAW_KEY:
                self._picture.forget()
                self._draw()
            elif key == _STOP_KEY:
                self._suspend()

    def _act_on_signals(self, names):
        for name in names:
            if name in _ENDED_BY:
                self._end(_ENDED_BY[name])
            elif name == "SIGWINCH":
                self._draw()
            elif name == "SIGTSTP":
                self._suspend()
            elif name == "SIGCONT" and self._saved is not None:
                self._take_terminal()   # stopped without a word: the shell has had it
