"""Client: the way to the daemon, and the Python API on top of it.

    import ptyguard
    with ptyguard.connect() as pg:
        s = pg.start(["bash"])
        s.send(b"ls\\n")
        s.wait_for(rb"\\$ ")

A `Channel` is one connection that has said hello.  Requests that are safe to ask
twice are asked again when the daemon went away in between; input never is.  A
`Follower` reads one session's output by offset and continues at its offset when the
daemon is replaced, so that whoever reads it never notices.

Everything blocks; times are seconds, None means without limit.  Errors are those of
errors.py.
"""

import os
import re
import time

from . import frames
from .backend import READABLE, WRITABLE
from .errors import (Incompatible, NoSuchSession, OutputGap, PtyguardError, TimedOut,
                     Unreachable, from_wire)
from .supervise import START_LIMIT_S, reach, report_deaf
from .version import OURS

HELLO_PATIENCE_S = 1.5         # then the guard is told; slow is not deaf
HELLO_LIMIT_S = 30.0
RECEIVE_BYTES = 256 * 1024     # measured: what a turn of the daemon sends
RECONNECT_LIMIT_S = 30.0
MATCH_OVERLAP = 64 * 1024      # a match may span reads by this much
TEXT_KEPT = 1 << 20
CANCEL_LIMIT_S = 5.0

# Asking these twice is asking them once: `start`, because the client chooses the id;
# `attach`, because it belongs to the connection.
REPEATABLE = frozenset(("ls", "info", "status", "resolve", "start", "attach", "read", "resize",
                        "wait", "collect", "kill", "detach"))


class Channel:
    """One connection to the daemon, from hello on."""

    def __init__(self, backend, paths, role="call", may_start=True, timeout_s=START_LIMIT_S,
                 environ=None):
        """Connect and say hello; starts guard and daemon if need be and allowed."""
        self.welcome = {}
        self._backend = backend
        self._paths = paths
        self._role = role
        self._may_start = may_start
        self._environ = dict(os.environ if environ is None else environ)
        self._sock = None
        self._serial = 0
        self._buffer = bytearray(RECEIVE_BYTES)
        self._kept = []                 # frames that came while a reply was awaited
        self.connect(timeout_s)

    # -- the connection ------------------------------------------------------------------

    def connect(self, timeout_s=START_LIMIT_S):
        """(Re)connect; the frames of the old connection are forgotten."""
        self.close()
        deadline = time.monotonic() + timeout_s
        while True:
            sock = reach(self._backend, self._paths, self._may_start,
                         max(0.1, deadline - time.monotonic()), self._environ)
            self._sock = sock
            self._decoder = frames.Decoder(frames.FROM_DAEMON)
            self._decoder.control_max = frames.CONTROL_BYTES_MAX
            self._kept = []
            try:
                self._say_hello(deadline)
                return
            except (ConnectionError, EOFError):
                # It died before it answered; the listener outlives it.
                self.close()
                if time.monotonic() > deadline:
                    raise Unreachable("the daemon went away before it answered, again and again",
                                      hint="ptyguard status") from None

    def _say_hello(self, deadline):
        self.send(frames.HELLO, version=OURS, pid=os.getpid(), role=self._role,
                  protocol=[frames.PROTOCOL_MIN, frames.PROTOCOL_MAX])
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
            elif not is_reported:
                is_reported = True
                report_deaf(self._backend, self._paths)
            elif now >= min(began + HELLO_LIMIT_S, deadline):
                raise Unreachable(f"the daemon at {self._paths.client_socket} did not answer "
                                  f"in {now - began:.0f} s", hint="ptyguard status")

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

    def another(self, role):
        """A second connection to the same daemon."""
        return Channel(self._backend, self._paths, role, self._may_start, environ=self._environ)

    # -- frames --------------------------------------------------------------------------

    def send(self, type_, **fields):
        """Send one control frame, whole."""
        self._send_all(frames.control(type_, fields))

    def send_input(self, data):
        """Send bytes as INPUT frames, whole."""
        self._send_all(frames.raw_frames(frames.INPUT, data))

    def _send_all(self, data):
        self._sock.settimeout(None)
        self._sock.sendall(data)

    def send_now(self, data):
        """Send what the socket takes without waiting; the count, perhaps 0."""
        self._sock.settimeout(0)
        try:
            return self._sock.send(data)
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
                if left is not None and (left <= 0 or not self.wait_readable(left)):
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
        while True:
            try:
                left = None if deadline is None else max(0.0, deadline - time.monotonic())
                if not self.is_open:
                    self.connect()
                return self.await_reply(self.ask(verb, **fields), left)
            except (EOFError, ConnectionError):
                if verb not in REPEATABLE:
                    self.close()
                    raise Unreachable(f"the daemon went away during `{verb}`",
                                      hint="what was asked may or may not have been done") from None
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
        self._hold = hold
        self._on_gap = on_gap
        self._mode = mode
        self._attach(target, start)

    def _attach(self, target, start, **more):
        ok = self.channel.request("attach", target=target, hold=self._hold, mode=self._mode,
                                  **dict({"from": start}, **more))
        self.session = ok["session"]
        self.offset = ok["offset"]

    def pieces(self, timeout_s=None):
        """Yield (offset, view) until the session's end; the view is good until the next.

        `timeout_s` bounds the whole; TimedOut after that.
        """
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        while self.end is None:
            left = None if deadline is None else deadline - time.monotonic()
            if left is not None and (left <= 0 or not self.channel.wait_readable(left)):
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
            if type_ == frames.OUTPUT:
                self.offset = offset + len(payload)
                yield offset, payload
            elif type_ == frames.EVENT:
                self._on_event(payload)

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


# -- text out of terminal output ---------------------------------------------------------

_ESCAPES = re.compile(
    rb"\x1b(?:\[[0-?]*[ -/]*[@-~]|[\]PX^_][^\x07\x1b]*(?:\x07|\x1b\\)|[ -/]*[0-~])"
    rb"|[\x00-\x08\x0b-\x1a\x1c-\x1f\x7f]")
_CUT_ESCAPE = re.compile(rb"\x1b(?:\[[0-?]*[ -/]*|[\]PX^_][^\x07\x1b]*\x1b?|[ -/]*)?\Z")
_CUT_MAX = 4096                # a longer "sequence" is no sequence


class Plain:
    """Takes escapes and CR out of output that comes in pieces."""

    def __init__(self):
        self._rest = b""

    def feed(self, data):
        """The text of this piece, and of what was kept of the last."""
        data = self._rest + bytes(data)
        cut = _CUT_ESCAPE.search(data, max(0, len(data) - _CUT_MAX))
        self._rest = data[cut.start():] if cut else b""
        return _ESCAPES.sub(b"", data[:len(data) - len(self._rest)])


class Search:
    """Looks for a pattern in a stream; matches that span pieces are found.

    A match may reach back MATCH_OVERLAP bytes into what was searched before.
    """

    def __init__(self, pattern, is_raw=False):
        self._pattern = re.compile(pattern) if isinstance(pattern, (bytes, str)) else pattern
        self._plain = None if is_raw else Plain()
        self._text = b""
        self._searched = 0

    def feed(self, data):
        """The match object, or None."""
        self._text += bytes(data) if self._plain is None else self._plain.feed(data)
        match = self._pattern.search(self._text, max(0, self._searched - MATCH_OVERLAP))
        self._searched = len(self._text)
        if match is None and len(self._text) > TEXT_KEPT:
            self._text = self._text[-TEXT_KEPT // 2:]
            self._searched = len(self._text)
        return match


# -- the Python API ----------------------------------------------------------------------

def new_id():
    """An id for a session to be started."""
    alphabet = "abcdefghijkmnpqrstuvwxyz23456789"
    return "".join(alphabet[byte % 32] for byte in os.urandom(12))


def as_wire(value):
    """Text or bytes as they travel in JSON: UTF-8 with lone surrogates."""
    if not isinstance(value, bytes):
        value = os.fsencode(value)
    return value.decode("utf-8", "surrogateescape")


class Client:
    """A connection to the user's daemon; a context manager."""

    def __init__(self, backend, paths, may_start=True, timeout_s=START_LIMIT_S):
        self.backend = backend
        self.paths = paths
        self._may_start = may_start
        self._channel = Channel(backend, paths, "api", may_start, timeout_s)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        """Let go of the connection; sessions live on."""
        self._channel.close()

    def request(self, verb, timeout_s=None, **fields):
        """One request to the daemon, as docs/PROTOCOL.md lists them; the reply's dict."""
        return self._channel.request(verb, timeout_s, **fields)

    def open_channel(self, role):
        """A connection of its own, for following or sending."""
        return Channel(self.backend, self.paths, role, self._may_start)

    def start(self, argv=None, name=None, if_exists="refuse", **options):
        """Start `argv` (the login shell when None) in a new session; a `Session`.

        `options`: cwd, env (a dict, whole), size (cols, rows), scrollback (bytes), echo,
        executable.  Raises SessionExists, CommandNotFound, CannotExecute, ...
        """
        fields = start_fields(self.backend, argv, **options)
        if name is not None:
            fields["name"] = name
        ok = self.request("start", if_exists=if_exists, **fields)
        session = Session(self, ok["session"])
        session.was_created = ok["created"]
        return session

    def ensure(self, name, argv=None, **options):
        """The living session of that name, started if there is none."""
        return self.start(argv, name, "use", **options)

    def sessions(self):
        """All sessions, ended ones too, the oldest first."""
        return [Session(self, facts) for facts in self.request("ls")["sessions"]]

    def session(self, target):
        """The session of that name or `@ID`; NoSuchSession."""
        return Session(self, self.request("resolve", target=target)["session"])

    @property
    def welcome(self):
        """What the daemon said of itself when it was connected to."""
        return self._channel.welcome

    def status(self):
        """What the daemon says of itself."""
        return self.request("status")


def start_fields(backend, argv=None, cwd=None, env=None, size=None, scrollback=None, echo=True,
                 executable=None):
    """The request fields of `start`: what a new session inherits from its creator (C-125)."""
    if not argv:
        shell = backend.user_shell()
        argv, executable = ["-" + os.path.basename(shell)], shell
    fields = dict(backend.own_limits(), id_wanted=new_id(), argv=[as_wire(item) for item in argv],
                  cwd=as_wire(cwd or os.getcwd()), echo=echo,
                  env=[as_wire(k) + "=" + as_wire(v) for k, v in
                       (session_environment() if env is None else env).items()])
    if executable is not None:
        fields["executable"] = as_wire(executable)
    if size is not None:
        fields["size"] = list(size)
    if scrollback is not None:
        fields["ring_bytes"] = scrollback
    return fields


# Of other multiplexers and of ours: a session is not inside those (C-122).
_NOT_INHERITED = ("TMUX", "TMUX_PANE", "STY", "WINDOW", "ZELLIJ", "ZELLIJ_SESSION_NAME",
                  "ZELLIJ_PANE_ID", "SHPOOL_SESSION_NAME", "ABDUCO_SESSION", "DTACH_SESSION",
                  "ZMX_SESSION", "PTYGUARD_SESSION", "PTYGUARD_SESSION_ID", "PTYGUARD_DIR",
                  "PTYGUARD_DETACH_KEY", "PTYGUARD_IDLE_EXIT", "PTYGUARD_MAX_SESSIONS",
                  "PTYGUARD_MAX_CLIENTS", "PTYGUARD_TEST_VERSION", "PTYGUARD_DEV",
                  "PTYGUARD_ADOPT_IN_DEV", "PTYGUARD_AUTO_UPGRADE", "PTYGUARD_SCOPE",
                  "COLUMNS", "LINES")


def session_environment(base=None, has_terminal=False):
    """The environment for a new session: the creator's, less what is not its own.

    Without a terminal, or with a TERM that says nothing, TERM is xterm-256color.
    """
    environment = dict(os.environ if base is None else base)
    for name in _NOT_INHERITED:
        environment.pop(name, None)
    if not has_terminal or environment.get("TERM", "") in ("", "dumb", "unknown"):
        environment["TERM"] = "xterm-256color"
    return environment


class Session:
    """One session.  `facts` is its JSON object as of the last answer."""

    def __init__(self, client, facts):
        self._client = client
        self.facts = facts
        self.was_created = False

    def __repr__(self):
        return f"<ptyguard session {self.name} @{self.id} {self.facts['state']}>"

    @property
    def name(self):
        return self.facts["name"]

    @property
    def id(self):
        return self.facts["id"]

    @property
    def _target(self):
        return "@" + self.id

    def info(self):
        """Fresh facts, with foreground process and cwd."""
        self.facts = self._client.request("info", target=self._target)["session"]
        return self.facts

    def send(self, data, enter=False, timeout_s=None):
        """Type bytes; returns once the kernel took all of them: the end offset before.

        Never retried.  Raises PtyguardError with `details["written"]` when not all went.
        """
        return send_input(self._client.open_channel("send"), self._target, data, enter,
                          timeout_s)["offset"]

    def read(self, offset=None, limit=frames.CONTROL_BYTES_MAX):
        """(offset, bytes): history from `offset`, the oldest kept if None, the end less
        -N if negative.  Raises OutputGap(first_offset) when it is gone."""
        fields = {} if offset is None else {"offset": offset}
        channel = self._client.open_channel("read")
        try:
            ok, data = channel.read(target=self._target, limit=limit, **fields)
            return ok["offset"], data
        finally:
            channel.close()

    def follow(self, offset="oldest", hold="never", timeout_s=None):
        """Yield (offset, bytes) as output comes, to the session's end; over daemons' deaths.

        Raises OutputGap when output was overwritten before it could be read.
        """
        def gap(start, end):
            raise OutputGap(f"output {start} to {end} of {self.name} is gone", first_offset=end)

        channel = self._client.open_channel("follow")
        try:
            follower = Follower(channel, self._target, offset, hold, gap)
            for at, view in follower.pieces(timeout_s):
                yield at, bytes(view)
            self.facts = follower.end
        finally:
            channel.close()

    def wait_for(self, pattern, timeout_s=None, since="oldest", raw=False):
        """The match of a bytes pattern in the output, escapes and CR removed unless `raw`.

        Raises TimedOut; PtyguardError when the session ends first.
        """
        channel = self._client.open_channel("wait")
        try:
            return wait_for(channel, self._target, pattern, timeout_s, since, raw)
        finally:
            channel.close()

    def wait(self, timeout_s=None):
        """Until the end; its `exit` dict: code, or the signal's name.  Raises TimedOut."""
        self.facts = self._client.request("wait", timeout_s, target=self._target,
                                          collect=True)["session"]
        return self.facts["exit"]

    def resize(self, cols, rows):
        """Set the terminal's size."""
        self.facts = self._client.request("resize", target=self._target,
                                          size=[cols, rows])["session"]

    def kill(self, grace_s=5.0):
        """End its whole tree; returns when that is confirmed, PtyguardError when it is not."""
        self.facts = self._client.request("kill", target=self._target, grace=grace_s)["session"]

    def remove(self):
        """Kill if it lives, and forget it."""
        self._client.request("rm", target=self._target)


def send_input(channel, target, data, enter=False, timeout_s=None):
    """`Session.send` on a channel of its own, which is closed; the reply's dict."""
    deadline = None if timeout_s is None else time.monotonic() + timeout_s
    try:
        serial, ticket = _ask_to_send(channel, target, len(data), enter, deadline)
        if ticket is None:
            return channel.await_reply(serial)
        if _send_body(channel, data, deadline):
            left = None if deadline is None else max(0.0, deadline - time.monotonic())
            try:
                return channel.await_reply(serial, left)
            except TimedOut:
                pass
        return _give_up_send(channel, serial, ticket)
    except (EOFError, ConnectionError):
        raise Unreachable(f"the daemon went away while input was sent to {target}",
                          hint="how much of it was typed is not known; it is not sent again"
                          ) from None
    finally:
        channel.close()


def _ask_to_send(channel, target, size, enter, deadline):
    """(serial, ticket or None as below); asked again while nothing has been sent yet."""
    while True:
        try:
            serial = channel.ask("send", target=target, bytes=size, enter=enter)
            return serial, _await_go(channel, serial, deadline)
        except (EOFError, ConnectionError):
            channel.connect()


def _await_go(channel, serial, deadline):
    """The send's ticket when it is our turn, None when the reply came instead (an error)."""
    others = []
    ticket, is_answered = None, False
    try:
        while ticket is None and not is_answered:
            left = None if deadline is None else deadline - time.monotonic()
            if left is not None and (left <= 0 or not channel.wait_readable(left)):
                raise TimedOut("another send to that session did not end in time",
                               hint="nothing was typed", written=0)
            # To its end: the reply to an empty send comes in the same burst.
            for type_, offset, payload in channel.receive():
                if type_ == frames.EVENT and payload.get("event") == "go":
                    ticket = payload.get("ticket", "")
                else:
                    others.append((type_, offset, payload))
                    is_answered = type_ == frames.REPLY and payload.get("id") == serial
    finally:
        channel.keep(others)
    return ticket


def _send_body(channel, data, deadline):
    """Hand the bytes over as the daemon takes them; False when the time was over first.

    It takes no more while the program does not read: nothing here may block for longer.
    """
    for at in range(0, len(data), frames.RAW_BYTES_MAX):
        rest = memoryview(frames.raw_frames(frames.INPUT, data[at:at + frames.RAW_BYTES_MAX]))
        while rest:
            left = None if deadline is None else deadline - time.monotonic()
            if left is not None and left <= 0 or not channel.wait_writable(left):
                return False
            rest = rest[channel.send_now(rest):]
    return True


def _give_up_send(channel, serial, ticket):
    """The time is over: what is not typed yet is not to be.  TimedOut tells the count.

    It is asked on another connection: the daemon may not be listening to this one.
    """
    with channel.another("cancel") as other:
        other.request("cancel", ticket=ticket)
    try:
        return channel.await_reply(serial, CANCEL_LIMIT_S)      # all of it had been typed
    except TimedOut:
        raise
    except PtyguardError as error:
        raise TimedOut(error.message, error.hint, **error.details) from None


def wait_for(channel, target, pattern, timeout_s=None, since="oldest", raw=False):
    """`Session.wait_for` on a channel of its own."""
    search = Search(pattern, raw)
    follower = Follower(channel, target, since)
    for _, piece in follower.pieces(timeout_s):
        match = search.feed(piece)
        if match is not None:
            return match
    raise PtyguardError(f"session {follower.session['name']} ended before the text came",
                        hint=f"ptyguard log {follower.session['name']}", reason="ended")


def wait_idle(channel, target, idle_s, timeout_s=None):
    """Return once no output has come for `idle_s`, or the session ended (then its facts)."""
    deadline = None if timeout_s is None else time.monotonic() + timeout_s
    follower = Follower(channel, target, "now")
    while follower.end is None:
        left = idle_s if deadline is None else min(idle_s, deadline - time.monotonic())
        if channel.wait_readable(max(0.0, left)):
            for _ in follower.burst():
                pass
        elif left < idle_s:
            raise TimedOut(f"session {follower.session['name']} was not quiet for "
                           f"{idle_s:g} s within {timeout_s:g} s")
        else:
            return None
    return follower.end

