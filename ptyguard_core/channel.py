"""Channel: one connection to the daemon, and one session's output followed on it.

A `Channel` has said hello.  Requests that are safe to ask twice are asked again when the
daemon went away in between; input never is.  A `Follower` reads one session's output by
offset and continues at its offset when the daemon is replaced, so that whoever reads it
never notices.

A daemon that does not answer is no reason to wait for ever: whoever waits for something
that it owes (`wait_answer`) pings, tells the guard, and gives up in the end (stall.py).

What starts, replaces or judges a daemon is loaded where that has to be done (a quick verb never
does), and by whoever stays for longer than STAY_S: by then our archive may be another one, and
nothing more can be loaded from it.

Everything blocks; times are seconds, None means without limit.  Errors are those of
errors.py.
"""

import os
import time

from . import frames
from .backend import READABLE, WRITABLE
from .errors import (Deferred, Incompatible, LimitReached, NoSuchSession, ProtocolError, TimedOut, Unreachable,
                     from_wire)
from .reaching import START_LIMIT_S, connect
from .stall import GIVE_UP_S, LATE_S, PING, PROBE, Stall
from .version import OURS

HELLO_PATIENCE_S = 1.5         # then the guard is told; slow is not deaf
HELLO_LIMIT_S = 30.0
RECEIVE_BYTES = 256 * 1024     # measured: what a turn of the daemon sends
RECONNECT_LIMIT_S = 30.0
STAY_S = 2.0
PROBE_PAUSE_S = 0.5            # between tries to be welcomed
SILENT_HINT = "ptyguard status and ptyguard doctor tell more; then: ptyguard daemon restart"
MAY_BE_DONE = "what was asked may or may not have been done"
AT_ONCE_S = 0.05               # a request that is hung up on in that time ...
HANG_UPS_MAX = 40              # ... so often in a row is not asked again
REPEAT_PAUSE_S = 0.5           # between those, after the first ten

# Asking these twice is asking them once: `start`, because the client chooses the id;
# `attach`, because it belongs to the connection.
REPEATABLE = frozenset(("ls", "watch", "info", "status", "resolve", "start", "attach", "read", "resize", "repaint",
                        "wait", "collect", "kill", "detach", "own", "reconcile", "log_at",
                        "log_error", "log_done", "recording"))


def is_repeatable(verb, target):
    """Whether asking this twice is asking it once; `rm` of an id, which is for life, is."""
    return verb in REPEATABLE or verb == "rm" and isinstance(target, str) and target[:1] == "@"


def silent(paths, silent_s):
    """The error for a daemon that has not answered for so long."""
    return Unreachable(f"the daemon at {paths.client_socket} cannot be reached: it did not answer in "
                       f"{silent_s:.0f} s", hint=SILENT_HINT)


class Channel:
    """One connection to the daemon, from hello on."""

    watches_for_stalls = True

    def __init__(self, backend, paths, role="call", may_start=True, timeout_s=START_LIMIT_S,
                 environ=None, hello=None, scope=None):
        """Connect and say hello; starts guard and daemon if need be and allowed.

        `hello`: more fields of it, said again to each daemon that follows.  `scope`: where a
        guard that has to be started is to be, see scope.py.
        """
        self.welcome = {}
        self._backend = backend
        self._paths = paths
        self._role = role
        self._hello = hello or {}
        self.may_start = may_start
        self._environ = dict(os.environ if environ is None else environ)
        self._scope = scope
        self._sock = None
        self._serial = 0
        self._buffer = bytearray(RECEIVE_BYTES)
        self._kept = []                 # frames that came while a reply was awaited
        self._stall = Stall(time.monotonic())
        self._stays_from = time.monotonic() + STAY_S    # None: all that it may need is loaded
        self.connect(timeout_s)

    # -- the connection ------------------------------------------------------------------

    def connect(self, timeout_s=START_LIMIT_S):
        """(Re)connect; the frames of the old connection are forgotten."""
        self.close()
        deadline = time.monotonic() + timeout_s
        odd_answers = 0
        while True:
            self._sock = self._reach(deadline)
            self._decoder = frames.Decoder(frames.FROM_DAEMON)
            self._decoder.control_max = frames.CONTROL_BYTES_MAX
            self._kept = []
            try:
                self._say_hello(deadline)
                return
            except (Incompatible, ProtocolError) as error:
                self.close()
                odd_answers += 1
                self._judge_odd_answer(error, odd_answers, deadline)
            except (ConnectionError, EOFError):
                # It died before it answered; the listener outlives it.
                self.close()
                if time.monotonic() > deadline:
                    raise Unreachable("the daemon went away before it answered, again and again",
                                      hint="ptyguard status") from None
            except BaseException:
                self.close()
                raise

    def _reach(self, deadline):
        sock = connect(self._backend, self._paths, deadline) if self.may_start else None
        if sock is not None:
            return sock
        from .supervise import reach    # which a command needs that finds no daemon
        return reach(self._backend, self._paths, self.may_start,
                     max(0.1, deadline - time.monotonic()), self._environ, self._scope)

    def _judge_odd_answer(self, error, count, deadline):
        """It answers, and cannot be talked to: is it to be replaced?  Once; else raises `error`."""
        from .copies import find_program
        from .supervise import replace
        from .verdict import GARBAGE, REPLACE, Hello, Ours, decide
        hello = GARBAGE
        protocol = frames.PROTOCOL_MIN, frames.PROTOCOL_MAX
        if isinstance(error, Incompatible):     # the first version did not say which it speaks
            hello = Hello("", tuple(error.details.get("protocol", (1, 1))), None, None)
        verdict = decide(None, hello, Ours(OURS, protocol, "never", None))
        if verdict.act != REPLACE or not self.may_start or count > 2:
            raise error
        if hello == GARBAGE and count == 1:
            return                      # perhaps somebody has replaced it already
        program = None if hello == GARBAGE else find_program(self._backend, self._paths)
        try:
            replace(self._backend, self._paths, program, verdict.reason,
                    mode="always", timeout_s=max(1.0, deadline - time.monotonic()))
        except Deferred:                # the guard will not now: what is wrong is still this
            error.hint = "ptyguard upgrade"
            raise error from None

    def _say_hello(self, deadline):
        self.send(frames.HELLO, version=OURS, pid=os.getpid(), role=self._role,
                  protocol=[frames.PROTOCOL_MIN, frames.PROTOCOL_MAX], **self._hello)
        began = time.monotonic()
        is_reported = False
        while True:
            now = time.monotonic()
            wait_s = min(began + HELLO_LIMIT_S, max(deadline, began + HELLO_PATIENCE_S)) - now
            if not is_reported:
                wait_s = min(wait_s, began + HELLO_PATIENCE_S - now)
            if self.wait_readable(max(0.0, wait_s)):
                for type_, _, fields in self.receive():
                    if type_ == frames.WELCOME:
                        self._check_welcome(fields)
                        return
                    self._raise_refusal(type_, fields)
            elif time.monotonic() > now + max(0.0, wait_s) + LATE_S:
                # We were stopped, or the machine slept: only what is watched counts.
                slept_s = time.monotonic() - now
                began, deadline = began + slept_s, deadline + slept_s
            elif not is_reported:
                is_reported = True
                from .supervise import report_deaf
                report_deaf(self._backend, self._paths)
            elif now >= min(began + HELLO_LIMIT_S, deadline):
                from .supervise import report_deaf
                report_deaf(self._backend, self._paths, now - began)
                raise silent(self._paths, now - began)

    def _check_welcome(self, fields):
        if not isinstance(fields.get("chosen"), int):
            raise Incompatible("the daemon's welcome names no protocol",
                               hint="ptyguard daemon restart")
        self.welcome = fields

    def _raise_refusal(self, type_, fields):
        if type_ == frames.EVENT and fields.get("event") == "refused":
            raise from_wire(fields.get("error", {}))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        """Idempotent."""
        if self._sock is not None:
            self._sock.close()
            self._sock = None

    @property
    def is_open(self):
        """Whether there is a connection; it may have been closed by the other side."""
        return self._sock is not None

    def fileno(self):
        """The socket's descriptor, for a poller."""
        return self._sock.fileno()

    def wait_readable(self, timeout_s):
        """Whether something can be received within the time."""
        if self._kept:
            return True
        poller = self._backend.make_poller(any_file=True)
        poller.register(self._sock.fileno(), READABLE)
        return bool(poller.poll(-1 if timeout_s is None else timeout_s))

    def wait_writable(self, timeout_s):
        """Whether something can be sent within the time (None: without limit)."""
        poller = self._backend.make_poller(any_file=True)
        poller.register(self._sock.fileno(), WRITABLE)
        return bool(poller.poll(-1 if timeout_s is None else timeout_s))

    def another(self, role, timeout_s=START_LIMIT_S):
        """A second connection to the same daemon."""
        return type(self)(self._backend, self._paths, role, self.may_start, timeout_s,
                          environ=self._environ, scope=self._scope)

    # -- a daemon that does not answer ---------------------------------------------------

    def wait_answer(self, timeout_s=None):
        """`wait_readable` for what the daemon owes us, or will in the end.

        Pings it while it is silent.  Raises Unreachable when it stays so.
        """
        return self._wait_watching(self.wait_readable, timeout_s, can_ping=True)

    def wait_room(self, timeout_s=None):
        """`wait_writable` with the same care: a daemon need not take what a program does not."""
        return self._wait_watching(self.wait_writable, timeout_s, can_ping=False)

    def _wait_watching(self, wait, timeout_s, can_ping):
        if not self.watches_for_stalls:
            return wait(timeout_s)
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        while True:
            now = time.monotonic()
            if self._stays_from is not None and now >= self._stays_from:
                self._load_all()
            left = max(0.0, self._stall.due_at - now)
            if self._stays_from is not None:
                left = min(left, self._stays_from - now)
            if deadline is not None:
                left = min(left, max(0.0, deadline - now))
            if wait(left):
                return True
            now = time.monotonic()
            if deadline is not None and now >= deadline:
                return wait(0)
            self._act_on_stall(self._stall.look(now, can_ping), deadline)

    def _load_all(self):
        self._stays_from = None
        try:
            from . import copies, supervise, verdict        # noqa: F401
        except ImportError:
            pass                        # our archive is another one already: perhaps it goes without

    def _act_on_stall(self, act, deadline):
        if act == PING:
            self.ping()
        elif act == PROBE:
            now = time.monotonic()
            limit_s = self._stall.probe_limit_s(now)
            left = limit_s if deadline is None else min(limit_s, max(0.0, deadline - now))
            if self._is_served_elsewhere(now + left):
                self._stall.hear(time.monotonic(), is_here=False)
            elif left == limit_s:
                self.close()            # whatever it answers yet, nobody waits for
                raise silent(self._paths, GIVE_UP_S)

    def ping(self):
        """Ask for a sign of life, without waiting."""
        try:
            self.send_now(frames.control(frames.PING, {}))
        except ConnectionError:
            pass                        # it has died just now: reading tells

    def _is_served_elsewhere(self, deadline):
        """Whether a daemon welcomes another connection, or something came on this one."""
        while True:
            try:
                self.another("probe", max(0.1, deadline - time.monotonic())).close()
                return True
            except LimitReached:
                return True             # somebody has counted us
            except Unreachable:
                if self.wait_readable(PROBE_PAUSE_S):
                    return True
                if time.monotonic() >= deadline:
                    return False

    # -- frames --------------------------------------------------------------------------

    def send(self, type_, **fields):
        """Send one control frame, whole."""
        self._send_all(frames.control(type_, fields))

    def send_input(self, data):
        """Send bytes as INPUT frames, whole."""
        self._send_all(frames.raw_frames(frames.INPUT, data))

    def _send_all(self, data):
        self._stall.ask(time.monotonic())
        rest = memoryview(data)[self.send_now(data):]
        while rest:
            self.wait_room()
            rest = rest[self.send_now(rest):]

    def send_now(self, data, descriptors=()):
        """Send what the socket takes without waiting; the count, perhaps 0.

        `descriptors` go with the first byte, and stay ours.
        """
        self._sock.settimeout(0)
        try:
            return self._backend.send_descriptors(self._sock, data, descriptors)
        except BlockingIOError:
            return 0

    @property
    def serial(self):
        """The id of the newest request."""
        return self._serial

    @property
    def has_kept(self):
        """Whether frames wait here that no poller can see."""
        return bool(self._kept)

    def receive(self):
        """Yield the frames of one receive: (type, offset, payload).

        Raw payload is a view that is good until the next call.  Raises EOFError when
        the daemon is gone, BlockingIOError never: use `wait_readable` first.
        """
        if self._kept:
            kept, self._kept = self._kept, []
            yield from kept
            return
        self._sock.settimeout(None)
        count = self._sock.recv_into(self._buffer)
        if not count:
            raise EOFError("the daemon closed the connection")
        self._stall.hear(time.monotonic())
        yield from self._decoder.frames(memoryview(self._buffer)[:count])

    def frame_request(self, verb, **fields):
        """The bytes of a request; whoever sends them sends them whole and in order."""
        self._serial += 1
        return frames.control(frames.REQUEST, dict(fields, id=self._serial, verb=verb))

    def ask(self, verb, **fields):
        """Send a request; its serial, for `await_reply`."""
        self._send_all(self.frame_request(verb, **fields))
        return self._serial

    def await_reply(self, serial, timeout_s=None):
        """The reply's `ok`; other frames stay for `receive`.  Raises its error."""
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        others = []
        found = None
        try:
            while found is None:
                left = None if deadline is None else deadline - time.monotonic()
                if left is not None and left <= 0 or not self.wait_answer(left):
                    raise TimedOut(f"no answer in {timeout_s:g} s")
                for type_, offset, payload in self.receive():
                    if found is None and type_ == frames.REPLY and payload.get("id") == serial:
                        found = payload
                        continue
                    self._raise_refusal(type_, payload)
                    if type_ in frames.RAW:
                        payload = bytes(payload)    # the view is of the receive buffer
                    others.append((type_, offset, payload))
        finally:
            self.keep(others)
        if "error" in found:
            raise from_wire(found["error"])
        return found.get("ok", {})

    def request(self, verb, timeout_s=None, **fields):
        """Ask and await; again on a new connection, where asking twice does no harm."""
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        is_safe = is_repeatable(verb, fields.get("target")) and fields.get("signal") is None
        hang_ups = 0                    # in a row, each at once
        while True:
            began = time.monotonic()
            try:
                left = None if deadline is None else max(0.0, deadline - time.monotonic())
                if not self.is_open:
                    self.connect()
                return self.await_reply(self.ask(verb, **fields), left)
            except Unreachable as error:
                if not self.is_open and not is_safe:    # we gave up, and it may go on yet
                    error.hint = MAY_BE_DONE
                raise
            except (EOFError, ConnectionError):
                if not is_safe:
                    self.close()
                    raise Unreachable(f"the daemon went away during `{verb}`",
                                      hint=MAY_BE_DONE) from None
                # Daemons may die, and often; one that hangs up on this very request is another thing.
                hang_ups = hang_ups + 1 if time.monotonic() - began < AT_ONCE_S else 0
                if hang_ups > HANG_UPS_MAX:
                    raise Unreachable(f"the daemon hangs up on `{verb}`, again and again",
                                      hint="ptyguard daemon log") from None
                if hang_ups > HANG_UPS_MAX // 4:
                    time.sleep(REPEAT_PAUSE_S)
                self.connect()

    def keep(self, others):
        """Put frames back, ahead of what is to be received."""
        self._kept = others + self._kept

    def read(self, timeout_s=None, **fields):
        """The reply of a `read` request and its bytes; asked again when it was cut."""
        while True:
            ok = self.request("read", timeout_s, **fields)
            try:
                return ok, self.take_data(ok["size"])
            except (EOFError, ConnectionError):
                self.connect()          # the daemon died in the middle of it

    def take_data(self, size):
        """The body of a reply that announced `size` bytes of DATA."""
        parts = []
        others = []
        while size:
            self.wait_answer()
            for type_, offset, payload in self.receive():
                if type_ == frames.DATA:
                    parts.append(bytes(payload))
                    size -= len(payload)
                else:
                    others.append((type_, offset,
                                   bytes(payload) if type_ in frames.RAW else payload))
        self.keep(others)
        return b"".join(parts)


class Follower:
    """One session's output from an offset on, over daemons' deaths.

    `hold` as in docs/PROTOCOL.md: "never", "always", or seconds.  `on_gap(from, to)`
    is told of output that was overwritten before it was read.
    """

    def __init__(self, channel, target, start, hold="never", on_gap=None, mode="follow"):
        self.channel = channel
        self.session = None             # as the daemon described it
        self.end = None                 # the exit event's session, once it came
        self.offset = 0
        self.sends = self.sent_at = None    # of before we came: how many, and up to where
        self._hold = hold
        self._on_gap = on_gap
        self._mode = mode
        self._attach(target, start)

    def _attach(self, target, start, **more):
        ok = self.channel.request("attach", target=target, hold=self._hold, mode=self._mode,
                                  **dict({"from": start}, **more))
        self.session = ok["session"]
        self.offset = ok["offset"]
        if self.sends is None:
            self.sends, self.sent_at = ok.get("sends"), ok.get("sent_at")
        return ok

    def pieces(self, timeout_s=None):
        """Yield (offset, view) until the session's end; the view is good until the next.

        `timeout_s` bounds the whole; TimedOut after that.
        """
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        while self.end is None:
            left = None if deadline is None else deadline - time.monotonic()
            if left is not None and left <= 0 or not self.channel.wait_answer(left):
                raise TimedOut(f"session {self.session['name']}: not within {timeout_s:g} s")
            yield from self.burst()

    def burst(self):
        """Yield (offset, view) of one receive; blocks for it.  Read it to its end."""
        try:
            yield from self._receive()
        except (EOFError, ConnectionError):
            self._resume()

    def _receive(self):
        for type_, offset, payload in self.channel.receive():
            self._take_frame(type_, offset, payload)
            if type_ == frames.OUTPUT:
                self.offset = offset + len(payload)
                yield offset, payload
            elif type_ == frames.EVENT:
                self._on_event(payload)

    def _take_frame(self, type_, offset, payload):
        """For who wants more of it than the output."""

    def _on_event(self, event):
        if event["event"] == "exit":
            self.end = event["session"]
        elif event["event"] == "gap":
            if self._on_gap is not None:
                self._on_gap(event["from"], event["to"])
        elif event["event"] == "removed":
            raise NoSuchSession(f"session {self.session['name']} was removed")

    def _resume(self):
        """The daemon is gone: go on where we were, with the next one."""
        self.channel.connect(RECONNECT_LIMIT_S)
        self._attach("@" + self.session["id"], self.offset,
                     incarnation=self.session["incarnation"])
