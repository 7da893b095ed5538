"""Attach: a human's terminal, or a script's pipes, on a session until it ends.

It takes over stdin and stdout, keeps to the session through dead and replaced
daemons, and leaves the terminal as it was on every way out.  Three rules pay for
most of what stands here:

Rule 1: 0, 1 and 2 stay blocking (O_NONBLOCK belongs to the open file description,
        which is the shell's too).  A terminal is opened anew for writing where that
        can be; else a write follows a poll and is small.
Rule 2: output is written as it came, unseen.  What the session switched on in the
        terminal is found afterwards, from its history, and undone; nothing else is.
Rule 3: typed bytes are sent once.  What was sent to a daemon that then died may be
        lost; what was not sent yet goes to the next one.  While the terminal is lent to the
        daemon (lending.py) both ways pass us by, and these rules are direct.py's.
Rule 4: keys, signals and time-outs are served while a daemon is waited for, in turns of
        the loop within the waiting (`_LiveChannel`).  So nothing waits for a daemon from
        within a descriptor's handler: what else was ready in that turn would be stale.

Ways out: detached, ended, hung up (terminal or pipe gone, SIGHUP, SIGTERM), lost.
"""

import os
import time
from collections import deque

from . import frames
from .backend import FAILED, HANGUP, READABLE, WRITABLE
from .channel import HELLO_LIMIT_S, Channel, silent
from .errors import LimitReached, NoSuchSession, PtyguardError, Unreachable
from .keywatch import KeyWatch
from .lending import Lending
from .loop import Loop
from .mark import MARK_BYTES, read_mark
from .stall import GIVE_UP_S, PING, PROBE, Stall
from .starting import as_wire, own_agent
from .supervise import START_LIMIT_S
from .past import sequences_told
from .terminal import Modes, Newlines, QueryFilter, undo_anything

DETACHED, ENDED, HUNG_UP, LOST, KILLED = "detached", "ended", "hung_up", "lost", "killed"

PIPE_WRITE_BYTES = 4096        # PIPE_BUF: after POLLOUT a pipe takes that much (pipe(7)) ...
TERMINAL_WRITE_BYTES = 1024    # ... a terminal was seen to take 3584 of 4096
OUTPUT_PENDING_MAX = 256 * 1024     # then the daemon is not read: it judges who is slow
INPUT_PENDING_MAX = 64 * 1024
RECONNECT_PAUSE_S = 0.05       # doubled up to ...
RECONNECT_PAUSE_MAX_S = 1.0
RECONNECT_LIMIT_S = 60.0       # of a `run`; who attached waits for as long as it takes
REACH_S = 5.0                  # of one try to find somebody who listens: keys have to wait for that
WAITING_TOLD_S = 5.0           # after it was pinged, or was gone: the user is told
FLUSH_LIMIT_S = 5.0
GOODBYE_LIMIT_S = 5.0
TAKE_BACK_LIMIT_S = 2.0        # of a daemon that has our terminal
SHOWN_KEPT_BYTES = 256 * 1024       # in which modes are looked for when no daemon is left to ask


_TYPED_AS = {"SIGINT": b"\x03", "SIGQUIT": b"\x1c"}     # what a terminal makes them of


class Outcome:
    """How it ended: `kind`, the session's facts, `exit` when it ended, `error` when lost."""

    def __init__(self, kind, session, error=None):
        self.kind = kind
        self.session = session
        self.error = error
        self.reason = ""                # why it hung up, where that is not obvious


class _Interrupted(Exception):
    """A signal came while a write was blocked."""


class _Left(Exception):
    """What a daemon was waited for is no matter any more."""


class _LiveChannel(Channel):
    """A connection of an attachment, which is served while it waits (rule 4)."""

    def __init__(self, attachment, role, reach_s=REACH_S, timeout_s=START_LIMIT_S, hello=None):
        self._attachment = attachment
        self._reach_s = reach_s
        super().__init__(attachment._backend, attachment._paths, role, timeout_s=timeout_s,
                         hello=hello)

    def another(self, role, timeout_s=START_LIMIT_S):
        return _LiveChannel(self._attachment, role, self._reach_s, timeout_s)

    def wait_readable(self, timeout_s):
        return self.has_kept or self._attachment.serve_until(self.fileno(), READABLE, timeout_s)

    def wait_writable(self, timeout_s):
        return self._attachment.serve_until(self.fileno(), WRITABLE, timeout_s)

    def _reach(self, deadline):
        return super()._reach(min(deadline, time.monotonic() + self._reach_s))


class Attachment:
    """One client on one session.  `run` does it all and returns the Outcome."""

    def __init__(self, backend, paths, session, start, is_run=False, read_only=False,
                 detach_key=None, pass_input=True, timeout_s=None, note=None, steal=False,
                 restored_lines=None, kill_on_hangup=False, as_lf=False, is_new=False,
                 rm_on_hangup=False):
        """`session` as the daemon described it; `start` is "restore", "oldest", ...

        `is_run`: hold the program as a pipe would, when stdout is no terminal.
        `pass_input`: whether stdin is read at all.  `note(text)` tells the user.
        `steal`: send other people's clients away.  `restored_lines`: paint no more of
        history than that.  `kill_on_hangup`: our going without a word ends the session, and
        with `rm_on_hangup` has it forgotten.
        `is_new`: it was started for this; that it has ended by now is no refusal.
        `as_lf`: what is no terminal gets CR LF as LF.
        """
        self._backend = backend
        self._paths = paths
        self._session = session
        self._start = start
        self._is_run = is_run
        self._is_new = is_new
        self._read_only = read_only
        self._note = note or (lambda text: None)
        self._timeout_s = timeout_s
        self._steal = steal
        self._restored_lines = restored_lines
        self._kill_on_hangup = kill_on_hangup
        self._rm_on_hangup = kill_on_hangup and rm_on_hangup
        self._has_terminal_in = os.isatty(0)
        self._has_terminal_out = os.isatty(1)
        # In the background our terminal is somebody else's now: only show output.
        self._is_interactive = self._has_terminal_in and (not is_run or backend.is_foreground(0))
        self._reads_input = pass_input and (self._is_interactive or not self._has_terminal_in)
        self._agent = as_wire(own_agent()) if self._is_interactive and not read_only else None
        key = detach_key if self._is_interactive else None
        self._channel = None
        self._ticket = None             # by which the daemon knows this connection
        self._offset = None             # of the next byte of output; None before the first
        self._output = []               # views still to be written to stdout
        self._output_bytes = 0
        self._shown = deque()
        self._shown_bytes = 0
        self._input = bytearray()       # typed, not sent
        self._outgoing = b""            # frames on their way to this daemon
        self._held_back = b""           # the input in it, as long as none of it was sent
        self._is_passing = False        # the descriptors of our terminal and of its mark go with it
        self._mark = None               # where a daemon notes how far our terminal has come
        self._told = None               # by the daemon, of what it lets us paint from
        self._is_glass_unknown = False  # what the terminal shows: a daemon died while it had it
        self._history = bytearray()     # RESTORE bytes so far
        self._painting = self._load_painting() if self._has_terminal_out else None
        self._is_painted = False        # the terminal has shown this session
        self._ends_line = True          # the last byte was a newline
        self._answered = (0, 0)         # output between these offsets asks our terminal nothing
        self._queries = QueryFilter()
        self._newlines = Newlines() if as_lf and not self._has_terminal_out else None
        self._is_writing = False
        self._saved = None              # termios to put back
        self._is_stdout_gone = False    # nobody is there to read what we write
        self._outcome = None
        self._has_stdin = False         # open, and ours to read
        self._owes_end_of_input = False
        self._end_serial = None         # of the request for it that is not answered
        self._lost_at = 0.0
        self._pause_s = RECONNECT_PAUSE_S
        self._leave_by = key.text if key else "none"
        self._is_patient = self._is_interactive and not is_run      # never gives up by itself
        self._stdout_poller = backend.make_poller(any_file=True)
        self._own_stdout = backend.reopen_terminal(1) if self._has_terminal_out else None
        self._loop = Loop(backend.make_poller(any_file=True), time.monotonic)
        self._keys = KeyWatch(self._loop, key, self._pass_on, lambda: self._end(DETACHED))
        self._lending = Lending(self._loop, self._may_lend(), self._ask, self._has_keys)
        self._stall = Stall(self._loop.clock())
        self._stall_timer = None
        self._awaits_echo = False       # something was typed or asked, and nothing came since
        self._news = 0                  # counts what the daemon said, and its losses
        self._probed_at = None          # the count of news then, while it is being probed
        self._notice_timer = None
        self._is_told = False           # the user: that a daemon is waited for

    @staticmethod
    def _load_painting():
        """Two thirds of what is loaded for an attachment, which a `run` in a pipe does without;
        now, for later our archive may be another one."""
        from . import painting
        return painting

    # -- the whole -----------------------------------------------------------------------

    def run(self):
        """Attach, serve both ways, put everything back; the Outcome."""
        signals, self._read_signals = self._backend.watch_signals(
            ("SIGHUP", "SIGTERM", "SIGWINCH", "SIGTSTP", "SIGCONT", "SIGINT", "SIGQUIT"), self._on_handler)
        self._backend.ignore_signals(("SIGPIPE",))
        self._signals = signals
        self._loop.watch(signals, self._on_signal, READABLE)
        self._loop.watch(1, self._on_stdout, 0)
        self._stdout_poller.register(1, WRITABLE)
        if self._timeout_s is not None:
            self._loop.after(self._timeout_s, lambda: self._end(KILLED))
        try:
            # Before the terminal is touched: it may be refused.
            self._connect(self._start, START_LIMIT_S)
        except _Left:
            return self._outcome
        try:
            if self._is_interactive:
                self._saved = self._backend.enter_raw(0, keep_output=not self._has_terminal_out)
            if self._reads_input:
                self._has_stdin = True
                self._loop.watch(0, self._on_stdin, READABLE)
            while self._outcome is None:
                self._loop.turn()
            if self._input or not self._is_stdout_gone:
                self._take_back()
            self._finish_output()
            self._undo_modes()
            self._say_goodbye()
        finally:
            if self._saved is not None:
                self._backend.leave_raw(0, self._saved)
            if self._channel is not None:
                self._channel.close()
            for fd in (self._own_stdout, self._mark):
                if fd is not None:
                    os.close(fd)
        return self._outcome

    def _say_goodbye(self):
        """Who detaches on purpose does not hang up."""
        if self._kill_on_hangup and self._outcome.kind == DETACHED and self._channel is not None:
            try:
                # On another connection: while the program does not read, ours is not heard.
                with Channel(self._backend, self._paths, "goodbye",
                             timeout_s=GOODBYE_LIMIT_S) as other:
                    other.request("leave", GOODBYE_LIMIT_S, ticket=self._ticket)
            except (PtyguardError, OSError, EOFError):
                pass                    # then it is as if our terminal had gone

    def _end(self, kind, error=None):
        if self._outcome is None:
            self._outcome = Outcome(kind, self._session, error)

    # -- the daemon ----------------------------------------------------------------------

    def _connect(self, start, reach_s=REACH_S):
        # An app that owns the daemon shares it with whoever attaches; the daemon knows
        # whether one does, and decides in the same breath.
        channel = _LiveChannel(self, "attach", reach_s,
                               hello=None if self._is_run else {"link": "if_app"})
        size = self._size()
        is_again = self._ticket is not None
        try:
            ok = channel.request(
                "attach", target="@" + self._session["id"], **dict(
                    {"from": start}, again=is_again,
                    mode="run" if self._is_run or self._is_new or self._is_glass_unknown else "attach",
                    hold=self._hold(), read_only=self._read_only,
                    interactive=self._is_interactive, viewer=self._is_interactive,
                    may_type=self._reads_input and not self._read_only,
                    steal=self._steal and start in ("restore", "now") and not is_again,
                    nudge=start in ("restore", "now") and not is_again,
                    kill_on_hangup=self._kill_on_hangup,
                    rm_on_hangup=self._rm_on_hangup,
                    agent=self._agent,
                    incarnation=self._session["incarnation"], size=size))
        except BaseException:
            channel.close()
            raise
        self._channel = channel
        self._told = ok if start == "restore" else None
        self._session = ok["session"]
        self._ticket = ok.get("ticket")
        self._answered = ok.get("answered") or (0, 0)
        self._loop.watch(channel.fileno(), self._on_daemon, READABLE)
        self._loop.soon(self._drain_kept)
        self._loop.soon(self._send_input)       # typed while there was no daemon
        self._loop.soon(lambda: self._ask("size", size=self._size()) if self._size() != size else None)
        self._stall.ask(self._loop.clock())
        self._watch_for_stall()
        self._say_it_is_back()

    def _hold(self):
        if self._is_run and not (self._is_interactive and self._has_terminal_out):
            return "always"             # as a pipe would
        return "never" if self._read_only or not self._is_interactive else "leader"

    def _size(self):
        if self._read_only or not self._is_interactive:
            return None
        for fd in (1, 0):
            size = self._backend.terminal_size(fd)
            if size is not None:
                return list(size)
        return None

    def _drain_kept(self):
        """Frames that came in one piece with the reply."""
        if self._channel is not None and self._channel.has_kept:
            self._on_daemon(READABLE)

    def _on_daemon(self, bits):
        if bits & WRITABLE:
            self._send_input()
        if bits & ~WRITABLE and self._channel is not None:
            self._receive()
            self._offer_terminal()
            if self._lending.is_due or self._input:
                self._send_input()
        self._update()

    def _receive(self):
        self._news += 1
        try:
            for type_, offset, payload in self._channel.receive():
                if type_ == frames.OUTPUT:
                    self._offset = offset + len(payload)
                    self._write(self._unasked(offset, payload))
                elif type_ == frames.RESTORE:
                    self._history += payload
                elif type_ == frames.EVENT:
                    self._on_event(payload)
                elif type_ == frames.REPLY and payload.get("id") == self._end_serial:
                    self._hear_end_of_input(payload)
                elif type_ == frames.REPLY:
                    self._lending.hear_reply(payload)
            self._hear_life()
        except (EOFError, ConnectionError):
            self._lose_daemon()

    def _unasked(self, offset, payload):
        """Output for our terminal, less what it would answer, where that is not its to do.

        That is what the daemon has answered already, and everything if nobody would hear us.
        """
        if not self._has_terminal_out:
            return payload
        if self._read_only or not self._is_interactive:
            return self._queries.feed(payload)
        start, end = (max(0, min(at - offset, len(payload))) for at in self._answered)
        if start == end:
            return self._queries.flush() + payload if self._queries.is_holding else payload
        inside = self._queries.feed(payload[start:end])
        rest = self._queries.flush() + payload[end:] if end < len(payload) else b""
        return bytes(payload[:start]) + inside + rest

    def _hear_end_of_input(self, reply):
        """It was typed, or the daemon left before it could be: then the next one is asked."""
        self._end_serial = None
        self._owes_end_of_input = "error" in reply

    def _on_event(self, event):
        act = self._EVENTS.get(event.get("event"))
        if act is not None:
            act(self, event)

    def _hear_live(self, event):
        data, self._history = bytes(self._history), bytearray()
        told, self._told = self._told, None
        self._offset = event["offset"]
        if told is None or self._painting is None:
            return
        self._queries = QueryFilter()
        if self._restored_lines is not None and not self._is_painted:
            picture = self._painting.tail_painted(told, data, self._offset, self._restored_lines)
        else:
            picture, is_whole = self._painting.painted(
                told, data, self._offset, self._backend.terminal_size(1), not self._is_painted)
            # The first time our coming makes the program paint, unless we have no size.
            if not is_whole and (self._read_only or self._is_painted):
                self._ask("repaint", target="@" + self._session["id"])
        self._write(picture)
        self._is_painted = True
        self._is_glass_unknown = False

    def _hear_lagged(self, event):
        """What was not written yet is old: a screen comes instead."""
        self._told = {"past": event.get("past"), "session": self._session}
        self._output, self._output_bytes = [], 0

    def _hear_exit(self, event):
        self._session = event["session"]
        self._end(ENDED)

    def _hear_detached(self, _event):
        self._end(DETACHED)

    def _hear_removed(self, _event):
        self._end(LOST, NoSuchSession(f"session {self._session['name']} was removed"))

    def _hear_renamed(self, event):
        self._session["name"] = event["session"]

    def _hear_gap(self, event):
        self._queries = QueryFilter()
        self._note(f"output {event['from']} to {event['to']} was overwritten before it was read")

    def _hear_refused(self, event):
        self._end(LOST, Unreachable(event.get("error", {}).get("message", "refused")))

    def _hear_returned(self, event):
        """Our terminal is ours again."""
        self._lending.hear_returned(event)
        self._offset = event["offset"]
        if event.get("pasting"):
            self._keys.begin_paste()
        self._keys.feed(event.get("typed", "").encode("latin-1", "ignore"))
        if event.get("reason") == "detach":
            self._end(DETACHED)

    _EVENTS = {"live": _hear_live, "exit": _hear_exit, "detached": _hear_detached,
               "removed": _hear_removed, "gap": _hear_gap, "refused": _hear_refused,
               "renamed": _hear_renamed, "lagged": _hear_lagged, "returned": _hear_returned}

    def _lose_daemon(self):
        """It died or was replaced: go on at our offset with the next one."""
        self._loop.forget(self._channel.fileno())
        self._channel.close()
        self._channel = None
        self._history = bytearray()
        if self._outgoing and self._end_serial is not None:
            self._owes_end_of_input = True      # the last in the queue, so not sent whole
        self._end_serial = None
        if self._held_back:             # nothing of it was sent
            self._input[:0] = self._held_back
        self._outgoing = self._held_back = b""      # rule 3: the rest may have been typed
        self._is_passing = False
        if self._lending.is_unknown:
            reached = read_mark(self._mark)
            self._is_glass_unknown = reached is None
            self._offset = self._offset if reached is None else reached
        self._lending.forget()
        self._lost_at = self._loop.clock()
        self._pause_s = RECONNECT_PAUSE_S
        self._awaits_echo = False
        self._tell_later()
        if self._probed_at is None:
            self._loop.soon(self._reconnect)

    def _reconnect(self):
        if self._outcome is not None:
            return
        began = self._loop.clock()
        lost = None
        try:
            self._connect("restore" if self._is_glass_unknown else
                          self._start if self._offset is None else self._offset)
        except NoSuchSession as error:
            lost = error
        except Unreachable as error:
            if self._gives_up(began):
                self._end(LOST, error)
            else:
                self._loop.after(self._pause_s, self._reconnect)
                self._pause_s = min(2 * self._pause_s, RECONNECT_PAUSE_MAX_S)
        except PtyguardError as error:
            self._end(LOST, error)
        except _Left:
            pass
        if lost is not None:
            self._end_lost_session(lost)

    def _gives_up(self, began):
        """Whether a try that began then and found nobody was the last."""
        now = self._loop.clock()
        return not self._is_patient and (now - self._lost_at >= RECONNECT_LIMIT_S
                                         or now - began >= HELLO_LIMIT_S)

    def _end_lost_session(self, error):
        """It may have ended in between: then its status is there, and perhaps output."""
        try:
            with _LiveChannel(self, "call") as channel:
                facts = channel.request("resolve", target="@" + self._session["id"])["session"]
                self._session = facts
                if facts["state"] in ("ended", "failed"):
                    if self._offset is not None and facts["offsets"]:
                        self._catch_up(channel)
                    self._end(ENDED)
        except PtyguardError:
            pass
        except _Left:
            return
        self._end(LOST, error)

    def _catch_up(self, channel):
        try:
            self._write(channel.read(target="@" + self._session["id"], offset=self._offset)[1])
        except PtyguardError as error:
            self._note(error.message)

    # -- a daemon that does not answer ---------------------------------------------------

    def serve_until(self, fd, bits, timeout_s):
        """Turn the loop until `fd` is ready, or the time is over; whether it is.

        Raises _Left when the attachment has ended, or the answer has come another way.
        """
        def check():
            if self._outcome is not None or self._probed_at not in (None, self._news):
                raise _Left

        return self._loop.turn_until_ready(fd, bits, timeout_s, check)

    def _owe(self):
        """Something was typed or asked: from now on an answer is owed."""
        if not self._awaits_echo:
            self._awaits_echo = True
            self._stall.ask(self._loop.clock())
            self._watch_for_stall()

    def _hear_life(self):
        self._awaits_echo = False
        self._stall.hear(self._loop.clock())
        self._say_it_is_back()

    def _watch_for_stall(self):
        """A `run` waits for the end; who attached, for an answer to what was typed."""
        if self._stall_timer is None and (self._is_run or self._awaits_echo):
            self._stall_timer = self._loop.at(self._stall.due_at, self._on_silence)

    def _on_silence(self):
        self._stall_timer = None
        if self._channel is None or self._probed_at is not None:
            return                      # that is waited for already
        now = self._loop.clock()
        if self._output_bytes >= OUTPUT_PENDING_MAX:
            self._stall.hear(now)       # we do not listen: what it says lies unread
        if not (self._is_run or self._awaits_echo):
            return
        act = self._stall.look(now, can_ping=not self._outgoing)
        if act == PING:
            self._channel.ping()
            self._tell_later()
        elif act == PROBE:
            self._probe(self._stall.probe_limit_s(now))
        self._watch_for_stall()

    def _probe(self, limit_s):
        """Try it on another connection: it may merely not listen to this one."""
        self._probed_at = self._news
        self._tell_later()
        try:
            _LiveChannel(self, "probe", timeout_s=limit_s).close()
            self._stall.hear(self._loop.clock(), is_here=False)
            self._awaits_echo = False
            self._say_it_is_back()
        except _Left:
            pass                        # it has answered, or is gone
        except LimitReached:
            self._stall.hear(self._loop.clock(), is_here=False)
        except Unreachable:
            if not self._is_patient:    # else it is asked anew, and again
                self._end(LOST, silent(self._paths, GIVE_UP_S))
        except PtyguardError as error:
            self._end(LOST, error)
        finally:
            self._probed_at = None
            if self._channel is None:
                self._loop.soon(self._reconnect)

    def _tell_later(self):
        if self._notice_timer is None and self._is_patient and self._has_terminal_out:
            self._notice_timer = self._loop.after(WAITING_TOLD_S, self._say_we_wait)

    def _say_we_wait(self):
        self._is_told = True
        self._show_notice("waiting for the daemon, which does not answer" if self._channel is not None
                          else "waiting for a daemon: the one before is gone")

    def _say_it_is_back(self):
        if self._notice_timer is not None:
            self._notice_timer.cancel()
            self._notice_timer = None
        if self._is_told:
            self._is_told = False
            self._clear_notice()

    def _show_notice(self, text):
        """One line for the user: in the flow of a shell, at the bottom of a full screen."""
        if self._leave_by != "none":
            text += f"; {self._leave_by} detaches"
        cols = (self._size() or (80,))[0]
        line = f"[ptyguard: {text}]"[:max(1, cols - 1)].encode("ascii", "replace")
        if self._is_full_screen():
            self._write_own(b"\x1b7\x1b[999;1H\x1b[0;7m" + line + b"\x1b[m\x1b[K\x1b8")
        else:
            self._write_own((b"" if self._ends_line else b"\r\n") + line + b"\r\n")

    def _clear_notice(self):
        if self._is_full_screen():
            self._write_own(b"\x1b7\x1b[999;1H\x1b[m\x1b[2K\x1b8")
        else:
            self._write_own(b"[ptyguard: the daemon answers again]\r\n")
            if not self._lending.has_been:
                return                  # else it may be a full screen by now
        size = self._size()
        if size is not None and size[1] > 1:    # the program paints anew what stood there
            self._ask("size", size=[size[0], size[1] - 1])
            self._ask("size", size=size)

    def _is_full_screen(self):
        modes = Modes()
        modes.feed(b"".join(self._shown))
        return modes.is_alternate

    # -- stdout --------------------------------------------------------------------------

    def _write(self, data):
        """Write now what goes, keep the rest (a copy)."""
        view = memoryview(data if self._newlines is None else self._newlines.feed(data))
        if view and self._has_terminal_out:
            self._remember(bytes(view))
        if view:
            self._ends_line = view[-1] == 10
        self._put_out(view)

    def _write_own(self, data):
        """Write what is not the session's."""
        self._put_out(memoryview(data))
        self._update()

    def _put_out(self, view):
        if not self._output:
            view = self._write_some(view)
        if view:
            self._output.append(memoryview(bytes(view)))
            self._output_bytes += len(view)

    def _remember(self, data):
        """The newest of what is shown, for the modes in it when no daemon can be asked."""
        self._shown.append(data)
        self._shown_bytes += len(data)
        while self._shown_bytes - len(self._shown[0]) >= SHOWN_KEPT_BYTES:
            self._shown_bytes -= len(self._shown.popleft())

    def _write_some(self, view):
        """What is left of `view` once stdout takes no more."""
        try:
            if self._own_stdout is not None:
                return view[os.write(self._own_stdout, view):]
            size = TERMINAL_WRITE_BYTES if self._has_terminal_out else PIPE_WRITE_BYTES
            while view and self._stdout_poller.poll(0):
                self._is_writing = True
                sent = os.write(1, view[:size])
                self._is_writing = False
                view = view[sent:]
        except (BlockingIOError, _Interrupted):
            pass
        except OSError as error:        # EIO: the terminal is gone; EPIPE: the reader is
            self._is_stdout_gone = True
            self._end(HUNG_UP)
            if not self._has_terminal_out:
                self._outcome.reason = f"standard output: {error.strerror}"
            return view[len(view):]
        finally:
            self._is_writing = False
        return view

    def _on_stdout(self, _bits):
        while self._output:
            before = self._output[0]
            rest = self._write_some(before)
            self._output_bytes -= len(before) - len(rest)
            if rest:
                self._output[0] = rest
                break
            del self._output[0]
        if self._lending.is_due:
            self._send_input()
        self._update()

    def _update(self):
        """What is watched, by what waits: the one place that says so."""
        self._loop.change(1, WRITABLE if self._output else 0)
        if self._has_stdin and not self._lending.reads_keys:
            self._loop.change(0, READABLE if self._lending.watches_keys else HANGUP)
        elif self._has_stdin:
            self._loop.change(0, READABLE if len(self._input) < INPUT_PENDING_MAX else 0)
        if self._channel is not None:
            bits = READABLE if self._output_bytes < OUTPUT_PENDING_MAX else 0
            self._loop.change(self._channel.fileno(), bits | (WRITABLE if self._outgoing else 0))

    def _finish_output(self):
        """Everything that came is written, unless whoever reads it is gone or stuck."""
        if self._newlines is not None:
            rest, self._newlines = self._newlines.flush(), None
            self._write(rest)
        if self._outcome.kind != HUNG_UP:
            self._flush(None if self._outcome.kind == ENDED else FLUSH_LIMIT_S)

    def _flush(self, limit_s):
        deadline = None if limit_s is None else self._loop.clock() + limit_s
        poller = self._backend.make_poller(any_file=True)
        poller.register(1, WRITABLE)
        poller.register(self._signals, READABLE)    # a poll by itself goes on after a signal
        while self._output:
            left = -1 if deadline is None else max(0.0, deadline - self._loop.clock())
            if not poller.poll(left):
                break
            if {"SIGHUP", "SIGTERM", "SIGINT", "SIGQUIT"} & set(self._read_signals()):
                # Not all of it came out: whoever asks again is to get it all.
                self._outcome = Outcome(HUNG_UP, self._session)
                break
            rest = self._write_some(self._output.pop(0))
            if rest:
                self._output.insert(0, rest)

    def _undo_modes(self):
        """Undo in the terminal what the session had switched on, and nothing else."""
        if not self._has_terminal_out or self._is_stdout_gone \
                or self._offset is None and not self._lending.has_been:
            return
        try:
            if self._channel is None or self._is_told or self._outcome.kind == LOST \
                    or not self._lending.is_ours:
                raise Unreachable("it is being waited for")
            channel = Channel(self._backend, self._paths, may_start=False, timeout_s=2.0)
            ok, history = channel.read(2.0, target="@" + self._session["id"], past=True)
            channel.close()
            history = sequences_told(ok) + history[:max(0, self._offset - ok["offset"])]
            if self._lending.has_been:
                self._ends_line = not history or history.endswith(b"\n")
        except (PtyguardError, EOFError, OSError):
            if self._lending.has_been:
                self._output = []
                self._write(undo_anything() + b"\r\n")
                self._flush(FLUSH_LIMIT_S)
                return
            history = b"".join(self._shown)     # nobody knows more
        modes = Modes()
        modes.feed(history)
        self._output = []
        # What is said next begins a line of its own.
        self._write(modes.undo() + (b"" if self._ends_line or modes.is_alternate else b"\r\n"))
        self._flush(FLUSH_LIMIT_S)

    # -- stdin ---------------------------------------------------------------------------

    def _on_stdin(self, bits):
        if not self._lending.reads_keys and not bits & FAILED:
            self._lending.see_key(self._update)
            self._update()
            return
        try:
            data = os.read(0, INPUT_PENDING_MAX) if bits & (READABLE | FAILED) else b""
        except OSError:
            data = b""
        if data:
            self._keys.feed(data)
        else:
            self._on_stdin_end()
        self._send_input()

    def _has_keys(self):
        """Whether something typed lies in our terminal."""
        poller = self._backend.make_poller(any_file=True)
        poller.register(0, READABLE)
        return bool(poller.poll(0))

    def _pass_on(self, data):
        self._input += data
        self._send_input()

    def _on_stdin_end(self):
        self._loop.forget(0)
        self._has_stdin = False
        if self._is_interactive:
            self._is_stdout_gone = True     # the terminal is gone
            self._end(HUNG_UP)
        else:
            self._owes_end_of_input = True

    def _send_input(self):
        """Hand to the daemon what it takes now; the rest waits here, then in stdin."""
        if self._read_only:
            self._input.clear()
        if self._channel is not None:
            try:
                self._send_outgoing()
            except (EOFError, OSError):
                pass                    # the daemon is gone; reading tells so too
        self._update()

    def _send_outgoing(self):
        while True:
            # Of a daemon that has not answered, keys are kept for the next.
            if not self._outgoing and self._input and not self._lending.is_asking:
                self._outgoing = frames.raw_frames(frames.INPUT, self._input)
                self._held_back = bytes(self._input)
                self._input.clear()
                self._owe()
            elif not self._outgoing and self._owes_end_of_input:
                self._owes_end_of_input = False
                self._outgoing = self._channel.frame_request("end_input")
                self._end_serial = self._channel.serial
                self._owe()
            elif not self._outgoing and self._lending.is_due and not self._output:
                self._held_back = self._keys.release()
                self._outgoing = self._channel.frame_request(
                    "lend_go", typed=self._held_back.decode("latin-1"), pasting=self._keys.is_pasting)
                self._lending.go()
                self._is_painted = True
            if not self._outgoing:
                return
            sent = self._channel.send_now(self._outgoing, (0, self._mark) if self._is_passing else ())
            if not sent:
                return
            self._is_passing = False
            self._outgoing, self._held_back = self._outgoing[sent:], b""

    def _ask(self, verb, **fields):
        """A request whose reply nobody waits for; its serial."""
        if self._channel is None:
            return None
        self._outgoing += self._channel.frame_request(verb, **fields)
        serial = self._channel.serial
        self._owe()
        self._send_input()
        return serial

    # -- our terminal in the daemon's hand -----------------------------------------------

    def _may_lend(self):
        if not (self._is_interactive and self._has_terminal_out and self._reads_input
                and not self._read_only and self._backend.is_same_terminal(0, 1)
                and os.environ.get("PTYGUARD_DIRECT") != "0"):
            return False
        try:
            self._mark = self._backend.make_memory(MARK_BYTES)
        except OSError:
            return False
        return True

    def _offer_terminal(self):
        """Lend it, once nothing stands between: it is painted, and no answer is to be kept from it."""
        if self._lending.may_offer and self._has_stdin and self._channel is not None \
                and self._outcome is None and self._told is None and self._offset is not None \
                and self._offset >= self._answered[1] and not self._queries.is_holding:
            self._is_passing = True
            self._lending.offer(None if self._leave_by == "none" else self._leave_by)

    def _take_back(self):
        """Have it again before we write to it, and send the keys that waited for whose it would be;
        of a daemon that does not answer, without its word."""
        if self._lending.is_ours and not self._lending.is_asking:
            return
        self._lending.reclaim()
        deadline = self._loop.clock() + TAKE_BACK_LIMIT_S
        while self._channel is not None and not self._lending.is_ours:
            self._send_input()
            if not Channel.wait_readable(self._channel, max(0.0, deadline - self._loop.clock())):
                break
            self._receive()
        self._send_input()

    # -- signals -------------------------------------------------------------------------

    def _on_handler(self):
        if self._is_writing:
            raise _Interrupted          # leave the blocked write; the byte tells which it was

    def _on_signal(self, _bits):
        for name in self._read_signals():
            if name in ("SIGHUP", "SIGTERM"):
                self._end(HUNG_UP)
            elif name in _TYPED_AS and self._reads_input and self._is_interactive:
                # Typed before the terminal was raw; Ctrl-\ may well be the detach key.
                self._keys.feed(_TYPED_AS[name])
            elif name in _TYPED_AS:
                # Without raw mode Ctrl-C comes to us: the program is who was meant.
                self._ask("kill", target="@" + self._session["id"],
                          signal=self._backend.signal_number(name))
            elif name == "SIGWINCH" and self._size():
                self._ask("size", size=self._size())
            elif name == "SIGTSTP":
                self._suspend()
            elif name == "SIGCONT":
                self._resume()

    def _suspend(self):
        """Stopped from outside: the shell gets its terminal, we get ours back later."""
        self._take_back()
        if self._saved is not None:
            self._backend.leave_raw(0, self._saved)
        self._backend.stop_self()
        if self._saved is not None:
            self._saved = self._backend.enter_raw(0, keep_output=not self._has_terminal_out)

    def _resume(self):
        """Continued: who had the terminal meanwhile may have set it up otherwise."""
        if self._saved is not None:
            self._backend.enter_raw(0, keep_output=not self._has_terminal_out)
        if self._lending.is_lent:
            self._ask("lend_go")        # who is stopped has its terminal taken away
        self._offer_terminal()
        if self._size():
            self._ask("size", size=self._size())
