"""Programs that do to their terminal, and to their guard, whatever a program can do.

While each is at it another session echoes.  Afterwards guard and daemon are the same
processes, with as many descriptors as before and about as much memory.
"""

import os
import select
import shlex
import signal
import subprocess
import sys
import termios

import pytest

from ptyguard_core import errors, frames
from test_client_wire import Wire
from test_hostile_wire import Bystander, own_kib
from world import LIMIT_S, is_alive, wait_until

# For good, per program: what the allocator keeps.  A ring's worth of output that was copied
# and not given back, or one small object for each of a hundred thousand acts, is more.
GROWTH_MAX_KIB = 8 * 1024

WRITE_ALL = """
import os
def write(data):
    while data:
        data = data[os.write(1, data):]
"""

HOSTILE = {
    "resizes its terminal a hundred thousand times": """
import fcntl, struct, termios
for n in range(100000):
    fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack("HHHH", n % 50 + 1, n % 70 + 1, 0, 0))
for size in ((0, 0), (65535, 65535)):
    fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack("HHHH", *size, 0, 0))
""",
    "closes its terminal and opens it again": """
import os
name = os.ttyname(0)
for n in range(5000):
    for fd in (0, 1, 2):
        os.close(fd)
    os.open(name, os.O_RDWR), os.dup(0), os.dup(0)
os.write(1, b"still here")
""",
    "opens its terminal a hundred times over": """
import os
held = [os.open("/dev/tty", os.O_RDWR) for n in range(100)]
for fd in held:
    os.write(fd, b".")
""",
    "writes forty megabytes without a newline": WRITE_ALL + """
for n in range(640):
    write(b"x" * 65536)
""",
    "writes what a ring is filled with": WRITE_ALL + """
for n in range(100):
    write(b"\\xff" * 65536)
""",
    "writes one byte at a time": """
import os
for n in range(50000):
    os.write(1, b"x")
""",
    "forks twice, three hundred times": """
import os
for n in range(300):
    if os.fork() == 0:
        if os.fork() == 0:
            os.write(1, b"orphan")
        os._exit(0)
    os.wait()
""",
    "changes the modes of its terminal all the time": """
import os, termios, tty
cooked = termios.tcgetattr(0)
for n in range(5000):
    tty.setraw(0)
    mode = termios.tcgetattr(0)
    mode[3] ^= termios.ECHO | termios.ICANON | termios.ISIG
    mode[6][termios.VMIN], mode[6][termios.VTIME] = n % 256, n % 3
    mode[6][termios.VEOF] = bytes([n % 256])
    termios.tcsetattr(0, termios.TCSANOW, mode)
    termios.tcsetattr(0, termios.TCSADRAIN if n % 100 == 0 else termios.TCSANOW, cooked)
""",
    "prints every control and every sequence": WRITE_ALL + """
parameters = [b"", b"0", b"1", b"9" * 20, b";;;;", b";".join([b"1"] * 40), b"?1", b"?1049", b"?2004",
              b">", b"=1", b"<", b"38:2::1:2:3", b"-1", b"!", b" ", b"$", b"'", b"?" + b"9" * 3000]
out = bytearray(range(0x20)) + bytearray(range(0x80, 0xa0)) + b"\\x7f"
for final in range(0x20, 0x7f):
    out += b"\\x1b" + bytes([final]) + b"x"
for final in range(0x40, 0x7f):
    for parameter in parameters:
        out += b"\\x1b[" + parameter + bytes([final]) + b"\\x9b" + parameter + bytes([final])
for opener in b"]PX^_":
    for string in (b"0;title\\x07", b"2;\\x1b[31m\\x9c", b"4;1;?\\x1b\\\\", b"52;c;?\\x07", b"\\x18", b"\\x1a",
                   b"+q544e\\x1b\\\\", b"10;?;11;?;12;?\\x07", b"8;;file:///x\\x1b\\\\"):
        out += b"\\x1b" + bytes([opener]) + string
write(bytes(out) * 10)
""",
    "begins strings of a megabyte and never ends them": WRITE_ALL + """
for opener in (b"\\x1b]0;", b"\\x1bP", b"\\x1bX", b"\\x1b^", b"\\x1b_", b"\\x1b[", b"\\x9d", b"\\x90",
               b"\\x1b]52;c;"):
    write(opener + b"1" * (1 << 20))
write(b"\\x1b" * (1 << 20))
write(b"\\x1b[" * (1 << 19))
""",
    "asks its terminal without end and reads no answer": WRITE_ALL + """
import tty
tty.setraw(0)
for n in range(40):
    write(b"\\x1b[6n\\x1b[c\\x1b[>c\\x1b[5n\\x1b]10;?\\x07\\x1b[?u\\x05\\x1b[>q" * 2000)
""",
    "stops its own output": """
import os, termios
os.write(1, b"before")
termios.tcflow(1, termios.TCOOFF)
termios.tcflow(0, termios.TCIOFF)
""",
    "wants its terminal for itself and lets go of it": """
import fcntl, os, signal, termios
signal.signal(signal.SIGHUP, signal.SIG_IGN)
fcntl.ioctl(0, termios.TIOCEXCL)
os.write(1, b"mine")
fcntl.ioctl(0, termios.TIOCNOTTY)
""",
    "leaves a grandchild that floods": """
import os, signal
signal.signal(signal.SIGHUP, signal.SIG_IGN)
if os.fork() == 0:
    os.setsid()
    try:
        while True:
            os.write(1, b"flood" * 1000)
    finally:
        os._exit(0)
""",
    "has a thousand children that end at once": """
import os
for n in range(1000):
    if os.fork() == 0:
        os._exit(n % 256)
""",
}
STATUS = 7


@pytest.fixture(scope="module")
def bystander(world, pg):
    made = Bystander(world, pg)
    yield made
    made.close()


@pytest.fixture
def unharmed(bystander):
    """Checks, when the test is over, that guard and daemon are what they were before it."""
    before = [own_kib(pid) for pid in bystander.pids]
    yield
    bystander.check()
    for pid, size in zip(bystander.pids, before):
        assert own_kib(pid) - size < GROWTH_MAX_KIB


def python(text):
    """The command that runs that program."""
    return [sys.executable, "-I", "-S", "-c", text + f"\nimport os\nos._exit({STATUS})"]


def echo_until(bystander, fact):
    """The bystander is served all the while."""
    def served():
        bystander.echo()
        return fact()
    wait_until(served, "the program's end")


@pytest.mark.parametrize("deed", sorted(HOSTILE))
def test_a_program_that_(deed, world, pg, bystander, unharmed):
    session = pg.start(python(HOSTILE[deed]), "hostile")
    echo_until(bystander, lambda: session.info()["state"] == "ended")
    assert session.facts["exit"] == {"code": STATUS, "signal": None}
    # What it has left can be looked at, by people too.
    for verb in (["log", "--tail", "5"], ["info"]):
        world.run(*verb, "hostile", check=0)
    world.run("wait", "hostile", "--for", "never to be seen", "--timeout", "60", check=1)


@pytest.mark.parametrize("deed", ["prints every control and every sequence",
                                  "begins strings of a megabyte and never ends them",
                                  "asks its terminal without end and reads no answer",
                                  "resizes its terminal a hundred thousand times",
                                  "changes the modes of its terminal all the time"])
def test_a_terminal_is_given_back_as_it_was_by_a_program_that_(deed, world, pg, bystander, unharmed):
    waits = "\nimport select, tty\ntty.setraw(0)\nos.write(1, b'the end')\nwhile os.read(0, 1) != b'q': pass"
    session = pg.start(python("import os\nwhile os.read(0, 1) != b'g': pass\n" + HOSTILE[deed] + waits),
                       "hostile")
    for is_again in (False, True):      # the second time it is painted from all that
        terminal = world.terminal("attach", "hostile")
        wait_until(lambda: not termios.tcgetattr(terminal.slave)[3] & termios.ICANON, "raw mode")
        if not is_again:
            terminal.send(b"g\n")
            echo_until(bystander, lambda: b"the end" in drained(terminal))
        else:
            wait_until(lambda: session.info()["viewers"], "the client")
        terminal.send(b"\x1c")
        assert terminal.wait() == 0
        assert b"detached" in terminal.output[-200:]
        assert termios.tcgetattr(terminal.slave) == terminal.settings
        terminal.close()
    session.send(b"q")
    assert session.wait(LIMIT_S)["code"] == STATUS


def drained(terminal):
    """The last of what has come so far; the rest is forgotten."""
    while select.select([terminal.master], [], [], 0)[0] and terminal.read_more(0):
        terminal.output = terminal.output[-1000:]
    return terminal.output


def test_a_program_that_stops_itself_again_and_again_goes_on_where_it_stopped(pg, bystander, unharmed):
    session = pg.start(python("""
import os, signal
for n in range(20):
    os.write(1, b"before %d\\r\\n" % n)
    os.kill(os.getpid(), signal.SIGSTOP if n % 2 else signal.SIGTSTP)
    os.write(1, b"after %d\\r\\n" % n)
"""), "hostile")
    pid = session.facts["pid"]
    for n in range(20):
        session.wait_for(b"before %d\n" % n, LIMIT_S)
        # A leader of an orphaned group cannot be stopped by SIGTSTP: it just goes on, kill(2).
        wait_until(lambda: is_stopped(pid) or b"after %d\r" % n in session.read()[1], "its stop")
        bystander.echo()
        if is_stopped(pid):
            os.kill(pid, signal.SIGCONT)
    assert session.wait(LIMIT_S)["code"] == STATUS


def is_stopped(pid):
    """Whether that process is stopped."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return file.read().rpartition(b") ")[2][:1] == b"T"
    except OSError:
        return False


def test_a_stopped_program_takes_what_is_typed_when_it_goes_on(pg, bystander, unharmed, tmp_path):
    got = tmp_path / "got"
    session = pg.start(["sh", "-c", f"stty raw -echo; echo ready; exec head -c 60000 >{got}"], "hostile")
    session.wait_for(b"ready", LIMIT_S)
    os.kill(session.facts["pid"], signal.SIGSTOP)
    sent = bytes(n * 7 % 251 for n in range(60000))
    with pg.open_channel("test") as channel:
        serial = channel.ask("send", target="@" + session.id, bytes=len(sent))
        channel.send_input(sent)
        wait_until(lambda: session.info()["input_queued"] > 10000, "a full terminal")
        bystander.echo()
        os.kill(session.facts["pid"], signal.SIGCONT)
        assert channel.await_reply(serial, LIMIT_S)["written"] == len(sent)
    session.wait(LIMIT_S)
    assert got.read_bytes() == sent


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may hang up its own terminal")
def test_a_program_that_hangs_its_terminal_up_and_opens_it_anew_is_heard_again(pg, unharmed):
    session = pg.start(python("""
import ctypes, os, signal, time
signal.signal(signal.SIGHUP, signal.SIG_IGN)
name = os.ttyname(0)
os.write(1, b"before")
os.read(0, 1)                           # what is not read by then is lost in a hang-up
if ctypes.CDLL(None, use_errno=True).vhangup():
    os.write(1, b"not allowed")
    os._exit(0)
fd = os.open(name, os.O_RDWR)
os.write(fd, b" and after" * 1000)
os.write(fd, b" the end")
"""), "hostile")
    session.wait_for(b"before", LIMIT_S)
    session.send(b"\n")
    if session.wait(LIMIT_S)["code"] == 0:
        pytest.skip("this kernel, or this container, has no vhangup for us")
    output = session.read()[1]
    assert output.startswith(b"before") and output.endswith(b" and after the end")


def test_a_program_that_ends_its_own_session_by_its_own_means_is_ended(world, pg, bystander, unharmed):
    words = " ".join(map(shlex.quote, world.program))
    for verb in ("kill", "rm"):
        session = pg.start(["sh", "-c", f"{words} {verb} hostile & wait; echo survived; sleep 1000"], "hostile",
                           env=dict(os.environ, PTYGUARD_DIR=world.env["PTYGUARD_DIR"]))
        pid = session.facts["pid"]
        echo_until(bystander, lambda: not is_alive(pid))
        wait_until(lambda: all(s.facts["state"] in ("ended", "failed") for s in pg.sessions() if s.id == session.id),
                   "its end")
    wait_until(lambda: [s.name for s in pg.sessions()] == ["bystander"], "its removal")


def test_programs_that_end_while_they_are_typed_at_end_for_everybody(pg, bystander, unharmed):
    for turn in range(30):
        session = pg.start(["sh", "-c", "head -c 20; exit 9"], f"short-{turn}")
        with pg.open_channel("test") as waiting, pg.open_channel("test") as sending:
            awaited = waiting.ask("wait", target="@" + session.id)
            sent = sending.ask("send", target="@" + session.id, bytes=11000)
            sending.send_input(b"0123456789\n" * 1000)
            try:
                sending.await_reply(sent, LIMIT_S)
            except errors.PtyguardError as error:       # it came too late, or not all of it was taken
                assert error.kind in ("failed", "no_such_session"), error
            assert waiting.await_reply(awaited, LIMIT_S)["session"]["exit"]["code"] == 9
        session.remove()
    bystander.echo()


def test_sends_to_a_program_that_ends_are_answered_though_the_first_does_not_go_on(world, pg, unharmed):
    session = pg.start(["sh", "-c", "read x; exit 9"], "hostile")
    with Wire(world.paths.client_socket) as first, Wire(world.paths.client_socket) as second:
        first.request("send", target="hostile", bytes=10)
        first.expect(frames.EVENT)      # its turn
        second.request("send", target="hostile", bytes=10)
        first.send(frames.raw_frames(frames.INPUT, b"one\n"))      # and six more, which never come
        assert session.wait(LIMIT_S)["code"] == 9
        for connection in (first, second):
            connection.sock.settimeout(10)
            assert connection.answer()["kind"] == "failed"


def test_a_hundred_floods_at_once_are_all_read_and_nobody_starves(pg, bystander, unharmed):
    flood = "stty -echo; read x; head -c 300000 /dev/zero | tr '\\0' x; exit 4"
    sessions = [pg.start(["sh", "-c", flood], f"flood-{n}", scrollback=65536) for n in range(100)]
    for session in sessions:
        session.send(b"\n")
    echo_until(bystander, lambda: all(s.facts["state"] == "ended" for s in pg.sessions()
                                      if s.name != "bystander"))
    for session in sessions:
        assert session.wait(LIMIT_S)["code"] == 4
        assert session.info()["offsets"]["end"] == 300000


def test_a_reader_of_a_flood_that_comes_and_goes_costs_nothing_for_good(world, pg, bystander, unharmed):
    session = pg.start(["sh", "-c", "exec yes"], "hostile")
    for _ in range(10):
        follower = world.popen("log", "-f", "hostile", stdout=subprocess.PIPE)
        assert os.read(follower.stdout.fileno(), 65536)
        follower.kill()
        follower.wait()
        bystander.echo()
    session.kill(0)
