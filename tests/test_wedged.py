"""A daemon that does not answer: calls end or heal, and an attached terminal waits.

First the client's half, against a server that only pretends, with short patience.  Then
real processes that are stopped (SIGSTOP) in the middle of everything, with the patience
that users have: these tests take as long as that.
"""

import contextlib
import os
import re
import select
import signal
import socket
import subprocess
import sys
import threading

import pytest

import ptyguard_posix as backend
from ptyguard_core import channel, copies, frames, sending, stall, supervise, waiting
from ptyguard_core.errors import (Deferred, Incompatible, NoSuchSession, PtyguardError, TimedOut,
                                  Unreachable)
from test_client_wire import Wire
from world import LIMIT_S, MEMORY, ROOT, Flood, World, is_alive, wait_until

# -- the client's half -----------------------------------------------------------------------


FACTS = {"name": "s", "id": "abcdefgh", "state": "running", "incarnation": 1, "offsets": None}


class Pretender:
    """A server at client.sock.  It welcomes, notes all frames, and answers as it is told."""

    def __init__(self, path):
        os.makedirs(os.path.dirname(path), 0o700, exist_ok=True)
        self.welcomes = self.pongs = self.answers = True
        self.knows_sessions = True      # to be attached to
        self.unanswered = set()         # verbs
        self.verbs = []                 # of all requests, in order
        self.typed = b""                # by those who are attached
        self.roles = []                 # of each connection, in order
        self.heard = []                 # frame types of each connection, in order
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(path)
        self._listener.listen(64)
        self._wake, self._woken = socket.socketpair()
        self._owed = []                 # (socket, frame) not answered yet
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def count(self, type_, role="call"):
        """How many such frames connections of that role have sent."""
        return sum(heard.count(type_) for heard, its in zip(self.heard, self.roles) if its == role)

    def answer_now(self):
        """What was asked and not answered is."""
        self.answers = True
        self._wake.send(b"a")

    def hang_up(self):
        """On everybody."""
        self._wake.send(b"h")

    def close(self):
        self._wake.send(b"q")
        self._thread.join(LIMIT_S)

    def _serve(self):
        connections = {}                # socket -> (index, decoder)
        while True:
            ready = select.select([self._listener, self._woken, *connections], [], [])[0]
            for sock in ready:
                if sock is self._listener:
                    new = sock.accept()[0]
                    connections[new] = len(self.roles), frames.Decoder(frames.FROM_CLIENT)
                    self.roles.append("")
                    self.heard.append([])
                elif sock is self._woken:
                    what = sock.recv(1)
                    if what == b"h":
                        while connections:
                            connections.popitem()[0].close()
                        break               # what was ready is closed
                    if what == b"q":
                        for each in [self._listener, self._wake, sock, *connections]:
                            each.close()
                        return
                    for asker, frame in self._owed:
                        asker.sendall(frame)
                    self._owed = []
                elif not self._hear(sock, *connections[sock]):
                    sock.close()
                    del connections[sock]

    def _hear(self, sock, index, decoder):
        try:
            data = sock.recv(65536)
        except ConnectionResetError:
            return False
        for type_, _, fields in decoder.frames(data):
            self.heard[index].append(type_)
            if type_ == frames.HELLO:
                decoder.control_max = frames.CONTROL_BYTES_MAX
                self.roles[index] = fields["role"]
                if self.welcomes:
                    sock.sendall(frames.control(frames.WELCOME, {"chosen": frames.PROTOCOL_MAX}))
            elif type_ == frames.PING and self.pongs:
                sock.sendall(frames.control(frames.PONG, {}))
            elif type_ == frames.INPUT:
                self.typed += fields
            elif type_ == frames.REQUEST:
                self.verbs.append(fields["verb"])
                reply = frames.control(frames.REPLY, {"id": fields["id"], "ok": {
                    "is": fields["verb"], "session": FACTS, "offset": 0, "size": 0}})
                if fields["verb"] == "attach" and not self.knows_sessions:
                    sock.sendall(frames.control(frames.REPLY, {
                        "id": fields["id"], "error": NoSuchSession("no such session: s").to_wire()}))
                    continue
                if fields["verb"] == "attach":
                    reply += frames.control(frames.EVENT, {"event": "live", "offset": 0})
                if self.answers and fields["verb"] not in self.unanswered:
                    sock.sendall(reply)
                else:
                    self._owed.append((sock, reply))
        return bool(data)


@pytest.fixture
def paths(own_directory):
    return backend.find_paths(str(own_directory))


@pytest.fixture
def server(paths):
    with contextlib.closing(Pretender(paths.client_socket)) as made:
        yield made


@pytest.fixture
def impatient(monkeypatch):
    """A fiftieth of the patience, for those who wait in this process."""
    for name in ("SILENCE_S", "SILENCE_MAX_S", "PONG_PATIENCE_S", "GIVE_UP_S"):
        monkeypatch.setattr(stall, name, getattr(stall, name) / 50)


@contextlib.contextmanager
def asking(act):
    """`act()` in a thread; gives a function for its result, or the error it raised."""
    done = []

    def run():
        try:
            done.append((act(), None))
        except PtyguardError as error:
            done.append((None, error))

    thread = threading.Thread(target=run, daemon=True)
    thread.start()

    def result():
        thread.join(LIMIT_S)
        assert done, "it hangs"
        return done[0]

    yield result
    result()


def test_a_request_that_takes_long_is_pinged_for_and_answered_in_the_end(paths, server, impatient):
    server.answers = False
    with channel.Channel(backend, paths) as call, asking(lambda: call.request("ls")) as result:
        wait_until(lambda: server.count(frames.PING) >= 4, "pings")
        server.answer_now()
        assert result()[0]["is"] == "ls"
    assert server.roles == ["call"]


def test_who_owes_us_nothing_is_never_pinged(paths, server, impatient):
    server.answers = False
    with channel.Channel(backend, paths, "idle") as idle:
        server.answers = True
        idle.request("ls")
        server.answers = False
        with channel.Channel(backend, paths) as call, asking(lambda: call.request("ls")) as result:
            wait_until(lambda: server.count(frames.PING) >= 4, "the other's pings")
            server.answer_now()
            result()
        assert idle.is_open
    assert server.heard[0] == [frames.HELLO, frames.REQUEST]


def test_a_daemon_that_listens_to_others_only_is_not_given_up(paths, server, impatient):
    server.answers = server.pongs = False
    with channel.Channel(backend, paths) as call, asking(lambda: call.request("ls")) as result:
        wait_until(lambda: server.roles.count("probe") >= 4, "tries on other connections")
        server.answer_now()
        assert result()[0]["is"] == "ls"
    assert server.count(frames.PING) == 1       # the others would lie unread


def test_a_daemon_that_answers_nobody_is_unreachable_and_a_later_request_is_a_new_one(
        paths, server, impatient):
    with channel.Channel(backend, paths) as call:
        server.answers = server.pongs = server.welcomes = False
        with pytest.raises(Unreachable, match="cannot be reached") as raised:
            call.request("ls")
        assert raised.value.exit_code == 6 and "doctor" in raised.value.hint
        assert not call.is_open
        server.answers = server.welcomes = True
        assert call.request("info")["is"] == "info"
    assert server.count(frames.REQUEST) == 2


def test_a_callers_own_limit_ends_the_wait_for_a_silent_daemon_too(paths, server, impatient):
    with channel.Channel(backend, paths) as call:
        server.answers = server.pongs = server.welcomes = False
        with pytest.raises(TimedOut):
            call.request("ls", stall.SILENCE_S + 2 * stall.PONG_PATIENCE_S)


def test_a_request_larger_than_a_socket_takes_does_not_hang_on_a_daemon_that_reads_nothing(
        paths, own_directory, impatient):
    os.makedirs(os.path.dirname(paths.client_socket), 0o700, exist_ok=True)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(paths.client_socket)
        listener.listen(64)

        def welcome():
            sock = listener.accept()[0]
            sock.recv(65536)
            sock.sendall(frames.control(frames.WELCOME, {"chosen": frames.PROTOCOL_MAX}))
            return sock

        with asking(lambda: channel.Channel(backend, paths)) as result:
            sock = welcome()
            call = result()[0]
        with sock, call:
            with pytest.raises(Unreachable, match="cannot be reached"):
                call.request("start", env=["A=" + "x" * 3000000])


class Clock:
    """`time`, as far as channel.py uses it; what is awaited comes while the machine sleeps."""

    def __init__(self, time):
        self._time = time
        self.skipped_s = 0.0

    def monotonic(self):
        return self._time.monotonic() + self.skipped_s

    def sleep(self, seconds):
        self._time.sleep(seconds)


def test_regression_33_a_request_whose_time_was_over_when_the_machine_woke_up(
        paths, server, monkeypatch):
    clock = Clock(channel.time)
    monkeypatch.setattr(channel, "time", clock)
    waiting = channel.Channel.wait_readable

    def wait_readable(connection, timeout_s):
        """The machine sleeps in each wait that is not over at once, until the daemon is told."""
        if timeout_s and not server.answers:
            clock.skipped_s += 7 * 3600
            if clock.skipped_s > 80 * 3600:
                server.answer_now()
            return False
        return waiting(connection, timeout_s)

    with channel.Channel(backend, paths) as call:
        server.answers = server.pongs = server.welcomes = False
        monkeypatch.setattr(channel.Channel, "wait_readable", wait_readable)
        assert call.request("ls")["is"] == "ls"
    assert clock.skipped_s > 80 * 3600


def test_regression_33_an_answer_that_came_all_night_long_is_read_before_anything_is_judged(
        paths, server, monkeypatch):
    """Every look is hours late, and the answer has been there each time."""
    clock = Clock(channel.time)
    monkeypatch.setattr(channel, "time", clock)
    waiting = channel.Channel.wait_readable
    answered = []

    def wait_readable(connection, timeout_s):
        if timeout_s and not answered:
            answered.append(True)
            assert waiting(connection, LIMIT_S)         # it is there ...
            clock.skipped_s += 7 * 3600                 # ... when we are stopped, and not told of it
            return False
        return waiting(connection, timeout_s)

    with channel.Channel(backend, paths) as call:
        server.pongs = server.welcomes = False
        monkeypatch.setattr(channel.Channel, "wait_readable", wait_readable)
        assert call.request("ls")["is"] == "ls"
    assert server.count(frames.PING) == 0


def test_an_attached_terminal_is_pinged_for_only_when_typing_gets_no_answer():
    code = ("import sys; sys.path[0] = {!r}\n"
            "from ptyguard_core import stall\nstall.SILENCE_S = 0.1\n"
            "from ptyguard import console; console()").format(ROOT)
    with World(program=[sys.executable, "-c", code], under=MEMORY) as world, \
            contextlib.closing(Pretender(world.paths.client_socket)) as server:
        world.env["PTYGUARD_DIRECT"] = "0"      # its keys are the daemon's to hear

        def attached():
            return [heard for heard, role in zip(server.heard, server.roles) if role == "attach"]

        world.terminal("attach", "s")
        wait_until(lambda: [frames.HELLO, frames.REQUEST] in attached(), "the idle one")
        typing = world.terminal("attach", "s")
        wait_until(lambda: attached()[1:] == [[frames.HELLO, frames.REQUEST]], "the other")
        for count in (1, 2, 3):
            typing.send(b"x")
            wait_until(lambda: attached()[1].count(frames.PING) == count, "a ping")
        assert attached() == [[frames.HELLO, frames.REQUEST],
                              [frames.HELLO, frames.REQUEST] + 3 * [frames.INPUT, frames.PING]]


# The first ping of a process goes out on a connection that has died in that very instant.
_DYING = """
import socket
from ptyguard_core import channel, frames
send_now, died = channel.Channel.send_now, []
def dying(connection, data, *passed):
    if data[0] == frames.PING and not died:
        died.append(connection._sock.shutdown(socket.SHUT_RDWR))
    return send_now(connection, data, *passed)
channel.Channel.send_now = dying
"""


@pytest.fixture
def dying(monkeypatch):
    monkeypatch.setattr(channel.Channel, "send_now", channel.Channel.send_now)      # put back at the end
    exec(_DYING, {})


def test_a_connection_that_dies_as_it_is_pinged_is_followed_by_another(paths, server, impatient, dying):
    with channel.Channel(backend, paths) as call:
        follower = channel.Follower(call, "s", 0)
        with pytest.raises(TimedOut):
            list(follower.pieces(1.0))
    assert server.roles.count("call") == 2 and server.count(frames.REQUEST) == 2


def test_so_is_one_that_dies_as_it_is_asked_whether_the_program_was_quiet(paths, server, dying):
    with channel.Channel(backend, paths) as call:
        assert waiting.wait_idle(call, "s", 0.05, LIMIT_S) is None
    assert server.roles.count("call") == 2 and server.count(frames.PING) == 1


def test_so_is_an_attached_terminals():
    code = (f"import sys; sys.path[0] = {ROOT!r}\n{_DYING}"
            "from ptyguard_core import stall\nstall.SILENCE_S = 0.1\n"
            "from ptyguard import console; console()")
    with World(program=[sys.executable, "-c", code], under=MEMORY) as world, \
            contextlib.closing(Pretender(world.paths.client_socket)) as server:
        world.env["PTYGUARD_DIRECT"] = "0"
        terminal = world.terminal("attach", "s")
        wait_until(lambda: server.count(frames.REQUEST, "attach"), "the attachment")
        # Again and again: the last word on the attachment may come behind the first key.
        wait_until(lambda: terminal.send(b"x") or server.count(frames.REQUEST, "attach") == 2, "another one")
        terminal.send(b"\x1c")
        assert (terminal.wait(), b"Traceback" in terminal.output) == (0, False), terminal.output


def test_the_detach_key_works_while_it_is_asked_what_became_of_the_session():
    with World(under=MEMORY) as world, contextlib.closing(Pretender(world.paths.client_socket)) as server:
        terminal = world.terminal("attach", "s")
        wait_until(lambda: server.count(frames.REQUEST, "attach"), "the attachment")
        server.knows_sessions = server.answers = False
        asked = server.count(frames.REQUEST)
        server.hang_up()
        wait_until(lambda: server.count(frames.REQUEST) > asked, "the question")
        terminal.send(b"\x1c")
        # It used to leave with a traceback.
        assert (terminal.wait(), b"Traceback" in terminal.output) == (0, False), terminal.output


def test_who_cannot_talk_to_a_daemon_that_stays_is_told_so(paths, server, monkeypatch):
    """They were told `failed_before`, and nothing else."""
    def stays(*_, **_options):
        raise Deferred("failed_before")

    def foreign(*_):
        raise Incompatible("no common protocol", protocol=[1, 1], hint="use the same version")

    monkeypatch.setattr(frames, "PROTOCOL_MIN", 98)
    monkeypatch.setattr(frames, "PROTOCOL_MAX", 99)
    monkeypatch.setattr(copies, "find_program", lambda *_: ("python3", "x"))
    monkeypatch.setattr(supervise, "replace", stays)
    monkeypatch.setattr(channel.Channel, "_say_hello", foreign)
    with pytest.raises(Incompatible, match="no common protocol") as caught:
        channel.Channel(backend, paths)
    assert caught.value.hint == "ptyguard upgrade"


# -- a program that does not read is no daemon that does not answer ------------------------------


def test_a_send_that_waits_for_room_is_not_given_up(world, pg, name, impatient, monkeypatch, tmp_path):
    go = tmp_path / "go"
    os.mkfifo(go)
    session = pg.start(["sh", "-c", f"stty raw -echo; echo ready; read x <{go}; wc -c; stty sane; sleep 1000"],
                       name)
    session.wait_for(b"ready", LIMIT_S)
    probes = []
    another = channel.Channel.another
    monkeypatch.setattr(channel.Channel, "another", lambda connection, role, *rest: (
        probes.append(role), another(connection, role, *rest))[1])
    data = b"x" * 3000000
    with asking(lambda: sending.send_input(
            channel.Channel(backend, world.paths, "send"), name, data)) as result:
        wait_until(lambda: probes.count("probe") >= 3, "tries on other connections")
        with open(go, "w") as opened:
            opened.write("go\n")
        assert result()[0]["written"] == len(data)
    session.kill(0)


def test_a_wait_for_silence_is_not_disturbed_by_its_own_pings(pg, name, impatient, monkeypatch):
    session = pg.start(["cat"], name)
    pings = []
    send_now = channel.Channel.send_now
    monkeypatch.setattr(channel.Channel, "send_now", lambda connection, data: (
        pings.append(bytes(data[:1])), send_now(connection, data))[1])
    with asking(lambda: session.wait_idle(5 * stall.SILENCE_S)) as result:
        assert result() == (None, None)
    assert pings.count(bytes([frames.PING])) >= 2
    session.kill(0)


# -- real processes, stopped -----------------------------------------------------------------------


@contextlib.contextmanager
def stopped(*pids):
    """Those processes are stopped meanwhile, as far as they live."""
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)


def names(world):
    return world.run("ls", "--short", check=0).stdout.decode().split()


def test_a_wedged_daemon_is_replaced_for_whoever_waits_and_no_byte_is_lost():
    with World(under=MEMORY) as world, world.connect() as pg:
        flood = Flood(world.directory)
        run = world.popen("run", "-n", "flood", "--", *flood.argv, stdout=subprocess.PIPE)
        sink = world.sink(run.stdout)
        wait_until(lambda: b"ready" in sink.data(), "the program")
        calm = pg.start(["sh", "-c", "stty -echo; echo ready; read x; echo got $x; exit 3"], "calm")
        calm.wait_for(b"ready", LIMIT_S)
        waiting = [world.popen("wait", "calm"), world.popen("log", "-f", "calm", stdout=subprocess.PIPE),
                   world.popen("wait", "calm", "--for", "got it", stdout=subprocess.PIPE)]
        wait_until(lambda: len(calm.info()["viewers"]) == 2, "those who follow")
        flood.go()
        wait_until(lambda: sink.size() > 1 << 20, "a flood")
        wedged = world.daemon_pid()
        with stopped(wedged):
            # Nobody asks anything anew: those who wait find out.
            world.new_daemon_pid(wedged)
        assert "reason=deaf" in world.log("guard")
        calm.send(b"it\n")
        assert [process.wait(LIMIT_S) for process in waiting] == [3, 0, 0]
        assert waiting[1].stdout.read() == b"ready\ngot it\n"
        flood.stop()
        assert run.wait(LIMIT_S) == Flood.STATUS
        assert sink.process.wait(LIMIT_S) == 0 and sink.data() == flood.output()


def test_silence_that_only_a_wedged_daemon_makes_is_no_silence():
    with World(under=MEMORY) as world, world.connect() as pg:
        ticking = "while :; do echo tick; sleep 0.2; done"
        session = pg.start(["sh", "-c", ticking], "s")
        waiting = world.popen("wait", "s", "--idle", "4")
        wait_until(lambda: len(session.info()["viewers"]) == 1, "its wait")
        wedged = world.daemon_pid()
        with stopped(wedged):
            world.new_daemon_pid(wedged)
        session.wait_for(b"tick", LIMIT_S)
        assert waiting.poll() is None
        session.kill(0)
        assert waiting.wait(LIMIT_S) == 0


@pytest.fixture(scope="module")
def both_wedged():
    """What calls said that were under way, or began, while guard and daemon were stopped:
    name -> (exit status, standard error); and the world, which goes on."""
    begun = {"wait": ["wait", "s"], "wait --for": ["wait", "s", "--for", "never"],
             "log -f": ["log", "-f", "s"], "run": ["run", "-n", "r", "--", "sleep", "1000"]}
    late = {"ls": ["ls"], "send": ["send", "s", "x"], "--no-start info": ["--no-start", "info", "s"],
            "wait, late": ["wait", "s"], "run, late": ["run", "-n", "late", "--", "sleep", "1000"]}
    with World(under=MEMORY) as world:
        world.run("start", "-n", "s", "--", "cat", check=0)
        calls = {what: world.popen(*words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
                 for what, words in begun.items()}
        wait_until(lambda: "r" in names(world), "the run")
        wait_until(lambda: len(world.json("info", "s")["viewers"]) == 2
                   and len(world.json("info", "r")["viewers"]) == 1, "those who follow")
        with stopped(world.daemon_pid(), world.guard_pid()):
            calls.update((what, world.popen(*words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE))
                         for what, words in late.items())
            said = {what: (call.wait(2 * LIMIT_S), call.stderr.read()) for what, call in calls.items()}
        yield said, world


@pytest.mark.parametrize("what, status", [
    ("wait", 125), ("wait --for", 125), ("log -f", 6), ("run", 125), ("ls", 6), ("send", 6),
    ("--no-start info", 6), ("wait, late", 125), ("run, late", 125)])
def test_with_guard_and_daemon_wedged_a_call_ends_and_says_so(both_wedged, what, status):
    code, words = both_wedged[0][what]
    assert code == status, words
    assert re.search(rb"^ptyguard: the (daemon|guard) at \S+ (cannot be reached|does not answer): .* \(.+\)\n$",
                     words), words


def test_and_when_they_go_on_everything_is_as_it_was(both_wedged):
    _, world = both_wedged
    assert {"s", "r"} <= set(names(world))
    world.run("send", "s", "--enter", "hello", check=0)
    world.run("wait", "s", "--for", "hello", check=0)


def test_a_wedged_daemon_that_is_killed_is_one_that_died():
    with World(under=MEMORY) as world:
        run = world.popen("run", "-n", "r", "--", "sh", "-c", "echo ready; read x; echo $x; exit 4",
                          stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert run.stdout.readline() == b"ready\r\n"
        wedged = world.daemon_pid()
        with stopped(wedged):
            os.kill(wedged, signal.SIGKILL)
            world.new_daemon_pid(wedged)
        run.stdin.write(b"on\n")
        run.stdin.close()
        assert run.wait(LIMIT_S) == 4


# -- a human's terminal ------------------------------------------------------------------------------

WAITING = rb"\[ptyguard: waiting for (the|a) daemon[^\r\n]*; C-\\ detaches\]"
BACK = rb"\[ptyguard: the daemon answers again\]"


def echoing(world, pg, name):
    """A terminal on a session that says `got WORD` for each line, and shows what is typed."""
    session = pg.start(["sh", "-c", "echo ready; while read x; do echo got $x; done"], name)
    terminal = world.terminal("attach", name)
    terminal.expect(b"ready")
    terminal.send(b"first\r")
    terminal.expect(b"got first")
    return session, terminal


def test_attach_says_what_it_waits_for_and_goes_on_when_the_daemon_does():
    with World(under=MEMORY) as world, world.connect() as pg:
        session, terminal = echoing(world, pg, "s")
        with stopped(world.daemon_pid(), world.guard_pid()):
            terminal.send(b"second\r")
            terminal.expect(WAITING)
        terminal.expect(BACK)
        terminal.send(b"third\r")
        terminal.expect(b"got third")
        assert session.read()[1].count(b"got second") == 1
        assert terminal.output.count(b"got second") == 1
        terminal.send(b"\x1c")
        assert terminal.wait() == 0


def test_attach_goes_on_with_the_next_daemon_and_loses_no_output():
    with World(under=MEMORY) as world, world.connect() as pg:
        world.env["PTYGUARD_DIRECT"] = "0"      # a terminal that was lent is painted anew
        session, terminal = echoing(world, pg, "s")
        wedged = world.daemon_pid()
        with stopped(wedged):
            terminal.send(b"\x15")              # deletes the line: it may be lost (rule 3 of attach)
            terminal.expect(WAITING)
            world.new_daemon_pid(wedged)
        terminal.expect(BACK)
        terminal.send(b"\x15again\r")
        terminal.expect(b"got again")
        shown = re.sub(WAITING + rb"\r\n|" + BACK + rb"\r\n", b"", terminal.output)
        assert [line for line in shown.split(b"\r\n") if line.startswith(b"got")] \
            == [b"got first", b"got again"]
        terminal.send(b"\x1c")
        assert terminal.wait() == 0


@pytest.mark.parametrize("is_daemon_killed", [False, True])
def test_the_detach_key_works_while_attach_waits_and_the_terminal_is_put_back(is_daemon_killed):
    with World(under=MEMORY) as world, world.connect() as pg:
        _, terminal = echoing(world, pg, "s")
        daemon, guard = world.daemon_pid(), world.guard_pid()
        with stopped(daemon, guard):
            if is_daemon_killed:
                os.kill(daemon, signal.SIGKILL)
            else:
                terminal.send(b"second\r")
            terminal.expect(WAITING)
            terminal.send(b"\x1c")
            assert terminal.wait() == 0
            assert b"[detached (from session s)]" in terminal.output
        assert names(world) == ["s"]


def test_attach_waits_for_a_daemon_that_keeps_dying_and_goes_on_when_one_stays():
    with World(under=MEMORY) as world, world.connect() as pg:
        session, terminal = echoing(world, pg, "s")
        guard, seen = world.guard_pid(), []
        while "circuit_open" not in world.log("guard"):         # deaths of a kind that counts
            pid = world.new_daemon_pid(*seen)
            seen.append(pid)
            os.kill(pid, signal.SIGSEGV)
            wait_until(lambda: not is_alive(pid), "its death")
        terminal.expect(rb"\[ptyguard: waiting for a daemon: [^\r\n]*\]")
        world.run("daemon", "restart", check=0)
        terminal.expect(BACK)
        terminal.send(b"again\r")
        terminal.expect(b"got again")
        assert world.guard_pid() == guard and is_alive(session.facts["pid"])


# -- a guard that does not answer ----------------------------------------------------------------------


def test_a_start_that_a_wedged_guard_does_not_answer_ends_and_what_comes_late_is_ended(tmp_path):
    mark = tmp_path / "ran"
    with World(under=MEMORY) as world, world.connect() as pg:
        pg.start(["cat"], "there")
        guard, daemon = world.guard_pid(), world.daemon_pid()
        with stopped(guard):
            late = ["sh", "-c", f"echo $$ >{mark}; exec sleep 1000"]
            done = world.run("run", "--timeout", "2", "-n", "late", "--", *late, check=124)
            assert b"not started in 2 s" in done.stderr
            done = world.run("run", "--timeout", "2", "-n", "wrong", "--", "/nonexistent", check=124)
            assert {s["name"]: s["state"] for s in world.json("ls")["sessions"]} \
                == {"there": "running", "late": "starting", "wrong": "starting"}
        wait_until(lambda: names(world) == ["there"], "their end")
        wait_until(lambda: world.log().count("session_destroyed") == 2, "both")
        assert not mark.exists() or not mark.read_text() or not is_alive(int(mark.read_text()))
        assert world.daemon_pid() == daemon and world.guard_pid() == guard
        # Their names are free, and nobody calls them destroyed.
        world.run("run", "-n", "late", "--", "true", check=0)


def test_a_start_without_a_limit_of_its_own_ends_too_when_the_guard_is_wedged():
    with World(under=MEMORY) as world:
        world.run("ls", check=0)
        with stopped(world.guard_pid()):
            done = world.run("start", "-n", "s", "--", "sleep", "1000", check=6, timeout=2 * LIMIT_S)
        assert b"the guard has not started session s in 30 s" in done.stderr
        wait_until(lambda: names(world) == [], "its end")


def test_a_start_that_nobody_waits_for_any_more_is_undone_only_if_it_had_a_limit():
    with World(under=MEMORY) as world, world.connect() as pg:
        pg.start(["cat"], "there")
        with stopped(world.guard_pid()):
            for name, more in (("limited", {"within": 1000}), ("plain", {})):
                with Wire(world.paths.client_socket) as wire:
                    wire.request("start", name=name, argv=["sleep", "1000"], env=["PATH=/bin:/usr/bin"], **more)
                    wait_until(lambda: name in names(world), "its record")
            wait_until(lambda: pg.status()["clients"] == 1, "their leaving")
        wait_until(lambda: sorted(names(world)) == ["plain", "there"], "the end of one")
        wait_until(lambda: pg.session("plain").facts["state"] == "running", "the other")


def test_a_late_start_that_was_given_up_is_ended_by_the_next_daemon_as_well(tmp_path):
    with World(under=MEMORY) as world:
        world.run("start", "-n", "there", "--", "cat", check=0)
        guard, daemon = world.guard_pid(), world.daemon_pid()
        with stopped(guard):
            world.run("run", "--timeout", "1", "-n", "late", "--", "sleep", "1000", check=124)
            os.kill(daemon, signal.SIGKILL)
            wait_until(lambda: not is_alive(daemon), "its death")
        world.new_daemon_pid(daemon)
        wait_until(lambda: "session_spawned" in world.log("guard").split("daemon_serving")[1], "its start")
        wait_until(lambda: names(world) == ["there"], "its end")
