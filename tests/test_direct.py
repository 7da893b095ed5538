"""A terminal that is lent to the daemon: who lends, what comes back when, and what is refused.

What holds for lent and other terminals alike is in test_attach.py and test_restore.py, which run
for both.
"""

import contextlib
import os
import select
import signal
import socket
import tempfile
import termios
import time

import pytest

from ptyguard_core import frames
from ptyguard_core.direct import SEEN_S
from ptyguard_core.render import render_text
from ptyguard_core.screen import Screen
from test_wedged import Pretender
from world import LIMIT_S, MEMORY, World, wait_until

DETACH = b"\x1c"
ECHO = "stty -echo; echo ready; while read x; do echo got $x; done"


def start(pg, name, line, **options):
    session = pg.start(["sh", "-c", line], name, **options)
    session.wait_for(b"ready", LIMIT_S)
    return session


def viewers(session):
    return session.info()["viewers"]


def lent(world, session, *words, **options):
    """A terminal that the daemon has."""
    terminal = world.terminal("attach", session.name, *words, **options)
    wait_until(lambda: any(each["direct"] and each["pid"] == terminal.process.pid for each in viewers(session)),
               "its being lent")
    return terminal


def open_files(pid):
    found = []
    for fd in os.listdir(f"/proc/{pid}/fd"):
        try:
            found.append(os.readlink(f"/proc/{pid}/fd/{fd}"))
        except OSError:
            continue
    return found


def shown(terminal, size=(80, 24)):
    screen = Screen(size, 0)
    screen.feed(terminal.output)
    return render_text(screen)


# -- who lends -------------------------------------------------------------------------------------


def test_a_terminal_at_both_ends_is_the_daemons_and_then_no_more(world, pg, name):
    session = start(pg, name, ECHO)
    terminal = lent(world, session)
    device = os.ttyname(terminal.slave)
    assert open_files(world.daemon_pid()).count(device) == 1
    terminal.send(b"hello\r")
    terminal.expect(b"got hello")
    terminal.send(DETACH)
    assert terminal.wait() == 0 and b"[detached" in terminal.output
    assert termios.tcgetattr(terminal.slave) == terminal.settings
    assert device not in open_files(world.daemon_pid())


@pytest.mark.parametrize("words, env", [(("-r",), {}), ((), {"PTYGUARD_DIRECT": "0"})], ids=["read-only", "told so"])
def test_who_only_looks_or_is_told_so_lends_nothing(world, pg, name, words, env):
    session = start(pg, name, ECHO)
    terminal = world.terminal("attach", name, *words, env=dict(world.env, **env))
    terminal.expect(b"ready")
    session.send(b"hello\n")
    terminal.expect(b"got hello")
    assert [each["direct"] for each in viewers(session)] == [False]
    assert os.ttyname(terminal.slave) not in open_files(world.daemon_pid())
    terminal.send(DETACH)
    assert terminal.wait() == 0


def test_two_terminals_at_the_two_ends_are_not_lent(world, pg, name):
    session = start(pg, name, ECHO)
    other, slave = os.openpty()
    terminal = world.terminal(program=["sh", "-c", 'exec "$0" "$@" >"$OTHER"', *world.program, "attach", name],
                              env=dict(world.env, OTHER=os.ttyname(slave)))
    try:
        wait_until(lambda: viewers(session), "the client")
        terminal.send(b"hello\r")
        seen = b""
        while b"got hello" not in seen:
            assert select.select([other], [], [], LIMIT_S)[0]
            seen += os.read(other, 65536)
        assert [each["direct"] for each in viewers(session)] == [False]
        terminal.send(DETACH)
        assert terminal.wait() == 0
    finally:
        os.close(other)
        os.close(slave)


def test_coming_and_going_leaves_no_descriptor_behind(world, pg, name):
    session = start(pg, name, ECHO)
    counts = []
    for number in range(5):
        terminal = lent(world, session)
        if number % 2:
            terminal.send(DETACH)
            assert terminal.wait() == 0
        else:
            terminal.process.kill()
        wait_until(lambda: not viewers(session), "its going")
        counts.append(len(not_sockets(world)))          # connections come and go
    assert len(set(counts)) == 1, counts


# -- the daemon goes -------------------------------------------------------------------------------


def test_through_restarts_under_a_flood_output_goes_on_exactly(world, pg, name):
    session = start(pg, name, "stty -echo; echo ready; read x; seq 200000; echo end of flood; cat")
    terminal = lent(world, session)
    before = len(terminal.output)
    terminal.send(b"\r")
    terminal.expect(b"\r\n1000\r\n")
    for reached in (b"20000", b"90000"):
        world.run("daemon", "restart", check=0)
        terminal.expect(b"\r\n" + reached + b"\r\n")
    terminal.expect(b"end of flood")
    numbers = b"".join(b"%d\r\n" % n for n in range(1, 200001))
    assert numbers in terminal.output[before:]
    terminal.send(DETACH)
    assert terminal.wait() == 0


def test_after_a_kill_under_a_flood_the_terminal_shows_what_the_session_does(world, pg, name):
    session = start(pg, name, r"stty -echo; echo ready; read x; seq 300000; printf '\033[2J\033[3;3Hall done'; cat")
    terminal = lent(world, session)
    terminal.send(b"\r")
    terminal.expect(b"\r\n1000\r\n")
    for reached in (b"\r\n30000\r\n", b"\r\n200000\r\n"):
        world.kill_daemon()
        terminal.expect(reached)
    terminal.expect(b"all done")
    session.wait_for(b"all done", LIMIT_S)

    def is_the_same():
        terminal.read_more(0.05)
        return shown(terminal) == render_text(session.screen())

    wait_until(is_the_same, "the same screen")
    terminal.send(b"and on\r")
    terminal.expect(b"and on")
    wait_until(lambda: viewers(session)[0]["direct"], "its being lent again")
    terminal.send(DETACH)
    assert terminal.wait() == 0


def test_of_a_session_that_ended_while_no_daemon_was_there_the_status_is_told(world, pg, name, gate):
    session = start(pg, name, f"stty -echo; echo ready; read x <{gate}; echo last words; exit 7")
    terminal = lent(world, session)
    guard = world.guard_pid()
    os.kill(guard, signal.SIGSTOP)              # no successor for now
    try:
        world.kill_daemon()
        with open(gate, "w") as file:
            file.write("\n")
        wait_until(lambda: not os.path.exists(f"/proc/{session.facts['pid']}/exe") or
                   open(f"/proc/{session.facts['pid']}/stat").read().rpartition(")")[2].split()[0] == "Z", "its end")
    finally:
        os.kill(guard, signal.SIGCONT)
    assert terminal.wait() == 7
    assert b"last words" in terminal.output and b"[ended: exit 7]" in terminal.output


def test_whoever_leaves_while_no_daemon_is_there_gets_a_usable_terminal(world, pg, name):
    session = start(pg, name, r"stty -echo; printf '\033[?1049h\033[?1000h\033[?2004h\033[?25lready'; cat")
    terminal = lent(world, session)
    guard = world.guard_pid()
    os.kill(guard, signal.SIGSTOP)
    try:
        world.kill_daemon()
        # Typed until it is heard: the last of it may have gone with the daemon.
        wait_until(lambda: terminal.send(DETACH) or terminal.read_more(0.2) or terminal.process.poll() is not None,
                   "an answer")
        assert terminal.wait() == 0
    finally:
        os.kill(guard, signal.SIGCONT)
    for undone in (b"?1049l", b"?1000l", b"?2004l", b"?25h"):
        assert b"\x1b[" + undone in terminal.output
    assert termios.tcgetattr(terminal.slave) == terminal.settings


# -- the client is stopped, the terminal is stuck, the daemon is deaf ------------------------------


def test_of_a_stopped_client_the_daemon_neither_reads_nor_writes_the_terminal(world, pg, name):
    session = start(pg, name, ECHO)
    terminal = lent(world, session)
    terminal.send(b"one\r")
    terminal.expect(b"got one")
    os.kill(terminal.process.pid, signal.SIGSTOP)
    wait_until(lambda: open(f"/proc/{terminal.process.pid}/stat").read().rpartition(")")[2].split()[0] == "T", "its stop")
    stopped_at = time.monotonic()
    wait_until(lambda: time.monotonic() > stopped_at + 2 * SEEN_S, "the time for which a look holds")
    terminal.send(b"two\r")
    session.send(b"three\n")
    session.wait_for(b"got three", LIMIT_S)
    assert not terminal.read_more(0)
    assert b"got two" not in session.read()[1]
    os.kill(terminal.process.pid, signal.SIGCONT)
    terminal.expect(b"got three\r\n.*got two")
    terminal.send(DETACH)
    assert terminal.wait() == 0


def test_a_terminal_that_takes_nothing_delays_nobody_and_gets_a_fresh_screen(world, pg, name):
    session = start(pg, name, r"stty -echo; echo ready; read x; seq 500000; printf '\033[2J\033[3;3Hall done'; cat")
    stuck = lent(world, session)
    other = lent(world, session)
    other.send(b"\r")
    other.expect(b"all done")                   # `stuck` is not read meanwhile
    other.send(b"hello\r")
    other.expect(b"hello")
    wait_until(lambda: stuck.read_more(0.05) is False and shown(stuck) == render_text(session.screen()),
               "the same screen")
    stuck.send(b"and on\r")
    other.expect(b"and on")
    for terminal in (stuck, other):
        terminal.send(DETACH)
        assert terminal.wait() == 0


def test_a_deaf_daemon_does_not_keep_the_detach_key_from_working(world, pg, name):
    session = start(pg, name, ECHO)
    terminal = lent(world, session)
    daemon = world.daemon_pid()
    os.kill(daemon, signal.SIGSTOP)
    try:
        terminal.send(DETACH)
        assert terminal.wait() == 0
    finally:
        os.kill(daemon, signal.SIGCONT)
    assert termios.tcgetattr(terminal.slave) == terminal.settings
    assert session.info()["state"] == "running"


def test_keys_that_a_stopped_daemon_does_not_take_are_its_successors(world, pg, name):
    session = start(pg, name, ECHO)
    terminal = lent(world, session)
    daemon = world.daemon_pid()
    os.kill(daemon, signal.SIGSTOP)
    terminal.send(b"hello\r")
    wait_until(lambda: not select.select([terminal.slave], [], [], 0)[0], "the client's taking them")
    os.kill(daemon, signal.SIGKILL)
    terminal.expect(b"got hello")
    terminal.send(DETACH)
    assert terminal.wait() == 0
    assert session.read()[1].count(b"got hello") == 1


def test_the_detach_key_works_when_the_program_reads_nothing(world, pg, name):
    session = start(pg, name, "stty raw -echo; echo ready; exec sleep 1000")
    terminal = lent(world, session)
    terminal.fill_queue(session)
    terminal.send(DETACH)
    assert terminal.wait() == 0 and b"[detached" in terminal.output
    assert termios.tcgetattr(terminal.slave) == terminal.settings


def test_keys_that_met_the_offer_are_sent_before_their_client_leaves():
    """They waited for the daemon's answer, and were dropped with the detach key behind them."""
    with World(under=MEMORY) as world, contextlib.closing(Pretender(world.paths.client_socket)) as server:
        server.unanswered = {"lend"}
        terminal = world.terminal("attach", "s")
        wait_until(lambda: "lend" in server.verbs, "the offer")
        terminal.send(b"typed" + DETACH)
        assert terminal.wait() == 0
        wait_until(lambda: server.typed == b"typed", "what was typed")


def test_a_chord_that_was_begun_before_a_restart_is_completed_after_it(world, pg, name):
    session = start(pg, name, ECHO)
    terminal = lent(world, session, "-e", "C-b d")
    terminal.send(b"\x02")
    wait_until(lambda: not select.select([terminal.slave], [], [], 0)[0], "its being read")
    world.run("daemon", "restart", check=0)
    wait_until(lambda: viewers(session) and viewers(session)[0]["direct"], "its being lent again")
    terminal.send(b"d")
    assert terminal.wait() == 0 and b"[detached" in terminal.output


# -- what is refused -------------------------------------------------------------------------------


class Lender:
    """A client that passes what it likes."""

    def __init__(self, world, session):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(LIMIT_S)
        self.sock.connect(world.paths.client_socket)
        self._decoder = frames.Decoder(frames.FROM_DAEMON)
        self._decoder.control_max = frames.CONTROL_BYTES_MAX
        self._serial = 0
        self._told = []
        self.sock.sendall(frames.control(frames.HELLO, {"version": "0", "protocol": [1, 1], "pid": os.getpid()}))
        assert "error" not in self.ask("attach", target=session.name, interactive=True, may_type=True, hold="leader",
                                       size=[80, 24])

    def lend(self, terminal, **fields):
        """Ask for it to be taken, as a client of ours does."""
        with tempfile.TemporaryFile() as mark:
            return self.ask("lend", [terminal, mark.fileno()], **fields)

    def ask(self, verb, passed=(), **fields):
        self._serial += 1
        data = frames.control(frames.REQUEST, dict(fields, verb=verb, id=self._serial))
        if passed:
            socket.send_fds(self.sock, [data], passed) if hasattr(socket, "send_fds") else self.sock.sendmsg(
                [data], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, b"".join(fd.to_bytes(4, "little") for fd in passed))])
        else:
            self.sock.sendall(data)
        while True:
            for type_, offset, payload in self._decoder.frames(self.sock.recv(65536)):
                if type_ == frames.EVENT:
                    self._told.append(payload["event"])
                if type_ == frames.REPLY and payload["id"] == self._serial:
                    return payload

    def heard(self, event):
        return event in self._told


@pytest.fixture
def lender(world, pg, name):
    session = start(pg, name, ECHO)
    before = not_sockets(world)
    made = Lender(world, session)
    yield made
    assert made.ask("leave").get("ok") == {}
    made.sock.close()
    wait_until(lambda: not viewers(session), "its going")
    wait_until(lambda: not_sockets(world) == before, "no descriptor left behind")


def not_sockets(world):
    """What the daemon has open, but for connections, which come and go."""
    return sorted(each for each in open_files(world.daemon_pid()) if not each.startswith("socket:"))


def open_things():
    read_end, write_end = os.pipe()
    master, slave = os.openpty()
    plain = os.open("/dev/null", os.O_RDWR)
    return {"a pipe": read_end, "a master": master, "no terminal": plain}, (read_end, write_end, master, slave, plain)


@pytest.mark.parametrize("what", ["a pipe", "a master", "no terminal"])
def test_what_is_no_terminal_is_refused_and_closed(lender, what):
    things, opened = open_things()
    try:
        refusal = lender.lend(things[what])["error"]
        assert "terminal" in refusal["message"]
        assert "ok" in lender.ask("lend_go") and "ok" in lender.ask("reclaim")     # nothing was lent: no harm
    finally:
        for fd in opened:
            os.close(fd)


def test_nothing_passed_and_too_much_passed_are_no_harm(lender):
    assert lender.ask("lend")["error"]["kind"] == "usage"
    master, slave = os.openpty()
    try:
        assert "error" in lender.ask("lend", [master] * 20)
        assert "ok" in lender.ask("lend", [slave] * 20)
        assert lender.lend(slave)["error"]["kind"] == "usage"          # twice
        assert "ok" in lender.ask("lend_go")
        assert "ok" in lender.ask("reclaim") and lender.heard("returned")
    finally:
        os.close(master)
        os.close(slave)


@pytest.mark.skipif(os.getuid() != 0, reason="a terminal of another user can be made by root only")
def test_another_users_terminal_is_refused(lender):
    master, slave = os.openpty()
    try:
        os.fchown(slave, 12345, -1)
        assert "error" in lender.lend(slave)
    finally:
        os.close(master)
        os.close(slave)


def test_a_bad_key_is_refused(lender):
    master, slave = os.openpty()
    try:
        assert lender.lend(slave, key="C-i")["error"]["kind"] == "usage"
        assert "ok" in lender.lend(slave, key="tmux")
    finally:
        os.close(master)
        os.close(slave)


def test_a_terminal_that_hangs_up_is_given_back(lender):
    master, slave = os.openpty()
    assert "ok" in lender.lend(slave)
    assert "ok" in lender.ask("lend_go", typed="hello\n")
    os.close(slave)
    os.close(master)
    wait_until(lambda: "ok" in lender.ask("size", size=[80, 24]) and lender.heard("returned"), "the event")
