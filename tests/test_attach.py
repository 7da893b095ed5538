"""`attach`: a human's terminal on a session, and the terminal as it was afterwards.

Each test holds the outer ends of its terminals and types into them; what the programs
inside see is asked of the sessions.
"""

import fcntl
import json
import os
import re
import shlex
import signal
import termios

import pytest

from ptyguard_core.screen import Screen
from world import LIMIT_S, MEMORY, World, wait_until

pytestmark = pytest.mark.usefixtures("both_ways")

DETACH = b"\x1c"

# Tells the size at each change, echoes nothing, and answers lines.
SIZES = "stty -echo; trap 'stty size' WINCH; echo ready; while :; do read x && echo got $x; done"


def start(pg, name, line, **options):
    """A session that runs a shell line and has said "ready"."""
    session = pg.start(["sh", "-c", line], name, **options)
    session.wait_for(b"ready", LIMIT_S)
    return session


def attach(world, session, *words, **options):
    """A terminal with that session in it."""
    terminal = world.terminal("attach", session.name, *words, **options)
    has_come(session, terminal)
    wait_until(lambda: is_raw(terminal), "raw mode")
    if world.env.get("PTYGUARD_DIRECT") == "1" and "-r" not in words:
        # Read meanwhile: it is lent once it has taken the picture.
        wait_until(lambda: terminal.read_more(0.01) is None or (viewer(session, terminal) or {"direct": True})["direct"],
                   "its terminal lent")
    return terminal


def is_raw(terminal):
    return not termios.tcgetattr(terminal.slave)[3] & termios.ICANON


def viewer(session, terminal):
    return next((each for each in session.info()["viewers"] if each["pid"] == terminal.process.pid),
                None)


def has_come(session, terminal):
    wait_until(lambda: viewer(session, terminal) or terminal.process.poll() is not None,
               "the client")
    assert terminal.process.poll() is None, terminal.output


def has_left(session, terminal):
    wait_until(lambda: viewer(session, terminal) is None, "the client's leaving")


def detach(terminal, code=0):
    terminal.send(DETACH)
    assert terminal.wait() == code
    assert termios.tcgetattr(terminal.slave) == terminal.settings


def size_is(session, cols, rows):
    wait_until(lambda: session.info()["size"] == {"cols": cols, "rows": rows},
               f"size {cols}x{rows}")


# -- looking and typing ----------------------------------------------------------------------------


def test_a_shell_is_taken_over_with_its_prompt_its_echo_and_the_terminals_size(world, pg, name):
    session = pg.start(["bash", "--norc", "-i"], name, env=dict(os.environ, PS1="prompt> "))
    session.wait_for(b"prompt> ", LIMIT_S)
    terminal = attach(world, session, size=(101, 31))
    terminal.expect(b"prompt> ")
    terminal.send(b"stty size\n")
    terminal.expect(rb"stty size\r\n.*\r31 101\r\n")
    terminal.resize(90, 20)
    size_is(session, 90, 20)
    terminal.send(b"stty size\n")
    terminal.expect(rb"\r20 90\r\n")
    detach(terminal)
    assert session.info()["state"] == "running" and session.facts["viewers"] == []


def test_a_new_size_of_the_terminal_is_a_signal_to_the_program(world, pg, name):
    session = start(pg, name, SIZES)
    terminal = attach(world, session)
    terminal.resize(77, 22)
    terminal.expect(rb"22 77\r\n")
    detach(terminal)


def test_bytes_go_through_unchanged_in_both_directions(world, pg, name, tmp_path):
    out = tmp_path / "out"
    session = start(pg, name, f"stty raw -echo; echo ready; exec tee {out}")
    terminal = attach(world, session, "-e", "none")
    terminal.expect(b"ready")
    data = bytes(range(256)) * 20
    terminal.send(data)
    terminal.expect(re.escape(data))
    assert out.read_bytes() == data
    world.run("detach", name, check=0)
    assert terminal.wait() == 0


def test_what_the_program_ends_with_is_what_attach_ends_with(world, pg, name, gate):
    for line, code, words in (("exit 3", 3, b"[ended: exit 3]"),
                              ("kill -9 $$", 137, b"[ended: killed by SIGKILL]")):
        session = start(pg, name, f"echo ready; cat {gate}; echo last words; {line}")
        terminal = attach(world, session, "--json")
        gate.write_bytes(b"")
        assert terminal.wait() == code
        assert b"last words" in terminal.output and words in terminal.output
        told = json.loads(terminal.output.splitlines()[-1])
        assert told["name"] == name and told["exit"] == session.info()["exit"]
        assert termios.tcgetattr(terminal.slave) == terminal.settings


def test_the_only_session_needs_no_name():
    with World(under=MEMORY) as world, world.connect() as pg:
        session = start(pg, "only", SIZES)
        terminal = world.terminal("attach")
        has_come(session, terminal)
        detach(terminal)


# -- refusals --------------------------------------------------------------------------------------


def test_what_is_not_there_or_has_ended_is_3_and_the_terminal_is_not_touched(world, pg, name):
    terminal = world.terminal("attach", name)
    assert terminal.wait() == 3 and b"no such session: " + name.encode() in terminal.output
    pg.start(["true"], name).wait(LIMIT_S)
    terminal = world.terminal("attach", name)
    assert terminal.wait() == 3
    assert f"ptyguard log {name}".encode() in terminal.output
    assert termios.tcgetattr(terminal.slave) == terminal.settings


def test_a_name_is_looked_up_before_the_terminal_is_missed(world, pg, name):
    assert b"no such session" in world.run("attach", name, check=3).stderr
    start(pg, name, SIZES)
    done = world.run("attach", name, check=125)
    assert b"needs a terminal" in done.stderr and f"log -f {name}".encode() in done.stderr


def test_a_session_is_not_attached_to_itself(world, pg, name):
    session = pg.start(["bash", "--norc", "-i"], name, env=dict(os.environ, PS1="prompt> "))
    session.wait_for(b"prompt> ", LIMIT_S)
    for words in (["attach", name], ["attach"], ["attach", "@" + session.id],
                  ["attach", name, "--create"]):
        line = shlex.join(world.program + words) + "; echo status $?\n"
        since = session.info()["offsets"]["end"]
        session.send(line.encode())
        session.wait_for(rb"attaching it to itself(?s:.*)status 125", LIMIT_S, since)
    assert session.info()["viewers"] == []


def test_a_wrong_detach_key_is_a_usage_error_before_anything_is_done(world, name):
    terminal = world.terminal("attach", name, "--create", "-e", "C-i")
    assert terminal.wait() == 2 and b"not a detach key" in terminal.output
    terminal = world.terminal("attach", name, "--create",
                              env=dict(world.env, PTYGUARD_DETACH_KEY="hello"))
    assert terminal.wait() == 2
    world.run("info", name, check=3)


def test_ten_terminals_that_create_it_at_once_are_in_one_session():
    with World(under=MEMORY) as world, world.connect() as pg:
        terminals = [world.terminal("attach", "one", "--create", "--", "sh", "-c", SIZES)
                     for _ in range(10)]
        for terminal in terminals:
            terminal.expect(b"ready")
        assert [session.name for session in pg.sessions()] == ["one"]
        session = pg.session("one")
        for terminal in terminals:
            has_come(session, terminal)
        terminals[3].send(b"to all\n")
        for terminal in terminals:
            terminal.expect(b"got to all")


# -- leaving ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("words, keys", [
    ([], [b"\x1c"]),
    ([], [b"\x1b[92;5u"]),                      # kitty
    ([], [b"\x1b[27;5;92~"]),                   # modifyOtherKeys
    ([], [b"\x1b[9", b"2;5", b"u"]),
    (["-e", "C-x"], [b"\x18"]),
    (["-e", "C-b d"], [b"\x02", b"d"]),
    (["-e", "C-b d"], [b"\x02d"]),
    (["-e", "tmux"], [b"\x1b[98;5u", b"d"]),
    (["-e", "M-q"], [b"\x1bq"]),
])
def test_the_detach_key_leaves_in_every_spelling_and_however_it_is_cut(
        world, pg, name, words, keys):
    session = start(pg, name, SIZES)
    terminal = attach(world, session, *words)

    if len(keys) == 1:
        terminal.send(keys[0])

    def left():
        # Over and over: who is kept waiting between two pieces of a sequence types an Escape.
        for key in keys if len(keys) > 1 else ():
            if terminal.process.poll() is None:
                os.write(terminal.master, key)
        terminal.read_more(0.05)
        return terminal.process.poll() is not None
    wait_until(left, "the client's leaving")
    assert terminal.wait() == 0
    assert f"[detached (from session {name})]".encode() in terminal.output
    assert termios.tcgetattr(terminal.slave) == terminal.settings
    assert session.info()["state"] == "running"


def test_a_key_that_comes_before_the_terminal_is_raw_is_not_a_signal_for_the_program(
        world, pg, name):
    # What used to happen: the terminal made a SIGQUIT of it for the client, which passed it on.
    session = start(pg, name, SIZES)
    for _ in range(3):
        terminal = world.terminal("attach", name)
        has_come(session, terminal)
        terminal.process.send_signal(signal.SIGQUIT)
        assert terminal.wait() == 0
        assert session.info()["state"] == "running"


def test_the_detach_key_of_the_environment_counts_and_the_usual_one_is_the_programs(
        world, pg, name, tmp_path):
    out = tmp_path / "out"
    session = start(pg, name, f"stty raw -echo; echo ready; exec cat >{out}")
    terminal = attach(world, session, env=dict(world.env, PTYGUARD_DETACH_KEY="C-x"))
    terminal.send(b"a\x1cb")
    wait_until(lambda: out.read_bytes() == b"a\x1cb", "the bytes")
    terminal.send(b"\x18")
    assert terminal.wait() == 0
    assert out.read_bytes() == b"a\x1cb"


def test_a_chords_prefix_twice_is_the_prefix_once_and_with_another_key_both(
        world, pg, name, tmp_path):
    out = tmp_path / "out"
    session = start(pg, name, f"stty raw -echo; echo ready; exec cat >{out}")
    terminal = attach(world, session, "-e", "C-b d")
    terminal.send(b"1\x02\x022\x02x3")
    wait_until(lambda: out.read_bytes() == b"1\x022\x02x3", "the bytes")
    terminal.send(b"\x02d")
    assert terminal.wait() == 0


def test_without_a_detach_key_everything_is_the_programs(world, pg, name, tmp_path):
    out = tmp_path / "out"
    session = start(pg, name, f"stty raw -echo; echo ready; exec cat >{out}")
    terminal = attach(world, session, "-e", "none")
    terminal.send(b"\x1c\x1b[92;5u")
    wait_until(lambda: out.read_bytes() == b"\x1c\x1b[92;5u", "the bytes")
    terminal.process.send_signal(signal.SIGTERM)
    assert terminal.wait() == 0


def test_what_was_typed_before_the_key_arrives(world, pg, name, tmp_path):
    out = tmp_path / "out"
    session = start(pg, name, f"stty raw -echo; echo ready; exec cat >{out}")
    terminal = attach(world, session)
    terminal.send(b"the last words" + DETACH + b"not these")
    assert terminal.wait() == 0
    wait_until(lambda: out.read_bytes() == b"the last words", "the bytes")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_to_the_client_leaves_and_puts_the_terminal_back(world, pg, name, number):
    session = start(pg, name, r"printf '\033[?2004h'; " + SIZES)
    terminal = attach(world, session)
    terminal.expect(b"ready")
    assert termios.tcgetattr(terminal.slave) != terminal.settings
    terminal.process.send_signal(number)
    assert terminal.wait() == 0
    assert termios.tcgetattr(terminal.slave) == terminal.settings
    assert b"\x1b[?2004l" in terminal.output
    has_left(session, terminal)
    assert session.info()["state"] == "running"


def test_a_terminal_that_goes_away_takes_the_client_with_it_and_not_the_session(world, pg, name):
    session = start(pg, name, SIZES)
    terminal = attach(world, session)
    terminal.close()
    assert terminal.process.wait(LIMIT_S) == 0
    has_left(session, terminal)
    assert session.info()["state"] == "running"


def test_a_client_that_is_killed_is_gone_and_its_size_too(world, pg, name):
    session = start(pg, name, SIZES)
    first = attach(world, session, size=(80, 24))
    second = attach(world, session, size=(120, 40))
    size_is(session, 120, 40)
    second.process.kill()
    has_left(session, second)
    size_is(session, 80, 24)
    first.expect(rb"24 80\r\n")
    first.send(b"still here\n")
    first.expect(b"got still here")
    detach(first)


def test_a_daemon_that_stops_with_its_sessions_ends_the_clients_in_order():
    with World(under=MEMORY) as world, world.connect() as pg:
        session = start(pg, "one", SIZES)
        terminal = attach(world, session)
        world.run("daemon", "stop", "--sessions", "kill", check=0)
        assert terminal.wait() == 129
        assert termios.tcgetattr(terminal.slave) == terminal.settings


def test_detach_sends_all_clients_away_and_returns_when_they_have_left(world, pg, name):
    session = start(pg, name, SIZES)
    terminals = [attach(world, session) for _ in range(3)]
    world.run("detach", name, check=0)
    assert session.info()["viewers"] == []
    for terminal in terminals:
        assert terminal.wait() == 0 and b"[detached" in terminal.output
    world.run("detach", name, check=0)              # nobody is there: done already


def test_detach_does_not_wait_for_a_client_that_is_stopped(world, pg, name):
    # What used to happen: `detach` waited for ever for the stopped one to close.
    session = start(pg, name, SIZES)
    terminal = attach(world, session)
    terminal.process.send_signal(signal.SIGSTOP)
    world.run("detach", name, check=0)
    assert session.info()["viewers"] == []
    terminal.process.send_signal(signal.SIGCONT)
    assert terminal.wait() == 0 and b"[detached" in terminal.output
    assert session.info()["viewers"] == []


def test_detach_inside_a_session_is_about_that_one(world, pg, name):
    session = pg.start(["bash", "--norc", "-i"], name, env=dict(os.environ, PS1="prompt> "))
    terminal = attach(world, session)
    terminal.expect(b"prompt>")
    terminal.send(shlex.join(world.program + ["detach"]).encode() + b"\n")
    assert terminal.wait() == 0
    assert session.info()["state"] == "running"


# -- several at once -------------------------------------------------------------------------------


def test_two_clients_see_the_same_and_the_one_that_typed_last_has_the_size(world, pg, name):
    session = start(pg, name, SIZES)
    first = attach(world, session, size=(100, 30))
    size_is(session, 100, 30)
    second = attach(world, session, size=(70, 20))
    size_is(session, 70, 20)
    first.send(b"one\n")
    size_is(session, 100, 30)
    for terminal in (first, second):
        terminal.expect(b"got one")
    second.send(b"two\n")
    size_is(session, 70, 20)
    for terminal in (first, second):
        terminal.expect(b"got two")
    first.resize(99, 29)                            # of one that has not typed last: not now
    second.send(b"three\n")
    second.expect(b"got three")
    assert session.info()["size"] == {"cols": 70, "rows": 20}
    detach(second)
    size_is(session, 99, 29)                        # it left: the other's, as that is by now
    detach(first)
    assert session.info()["size"] == {"cols": 99, "rows": 29}


def test_a_read_only_client_sees_everything_types_nothing_and_has_no_size(world, pg, name):
    session = start(pg, name, SIZES)
    writer = attach(world, session, size=(100, 30))
    reader = attach(world, session, "-r", size=(60, 10))
    reader.send(b"nothing\n")
    reader.resize(50, 9)
    writer.send(b"something\n")
    for terminal in (writer, reader):
        terminal.expect(b"got something")
    assert b"got nothing" not in reader.output + writer.output
    detach(writer)
    assert session.info()["size"] == {"cols": 100, "rows": 30}
    assert session.info()["clients"] == 1
    detach(reader)
    assert b"nothing" not in session.read()[1]


@pytest.mark.parametrize("is_leader", [False, True])
def test_a_stopped_client_under_flood_delays_neither_another_clients_echo_nor_the_program(
        world, pg, name, is_leader):
    session = start(pg, name,
                    "stty -echo; echo ready; read x; seq 450000; echo end of flood; " + SIZES)
    stopped = attach(world, session)
    other = attach(world, session)
    (stopped if is_leader else other).send(b"\n")   # who typed last may hold it, for a moment
    if is_leader:
        stopped.expect(b"1\r\n2\r\n")
    stopped.process.send_signal(signal.SIGSTOP)
    other.expect(b"end of flood")
    other.send(b"hello\n")
    other.expect(b"got hello")
    stopped.process.send_signal(signal.SIGCONT)
    stopped.expect(b"got hello")                    # what is there now, not all it missed
    stopped.send(b"back again\n")
    other.expect(b"got back again")
    detach(stopped)
    detach(other)


def test_a_read_only_client_never_holds_the_program(world, pg, name):
    session = start(pg, name, "stty -echo; echo ready; read x; seq 450000; exit 4")
    reader = attach(world, session, "-r")
    reader.process.send_signal(signal.SIGSTOP)
    session.send(b"\n")
    assert session.wait(LIMIT_S) == {"code": 4, "signal": None}
    reader.process.send_signal(signal.SIGCONT)
    assert reader.wait() == 4
    shown = [line.text.strip() for line in screen_of(reader).lines]
    assert "450000" in shown and "ptyguard: [ended: exit 4]" in shown


def test_stopped_and_continued_by_the_shell_the_terminal_changes_hands(world, pg, name):
    session = start(pg, name, SIZES)
    shell = world.terminal(program=["bash", "--norc", "--noprofile", "-i"],
                           env=dict(world.env, PS1="prompt> "))
    shell.expect(b"prompt> ")
    shell.send(shlex.join(world.program + ["attach", name]).encode() + b"\n")
    client = wait_until(lambda: session.info()["viewers"], "the client")[0]["pid"]
    shell.send(b"one\n")
    shell.expect(b"got one")
    os.kill(client, signal.SIGTSTP)
    shell.expect(b"Stopped")
    shell.send(b"echo $((70 + 7)); stty -a | tr ' ' '\\n' | grep -x -e icanon -e isig\n")
    shell.expect(rb"77\r\n(?:icanon|isig)\r\n(?:icanon|isig)\r\n")
    shell.send(b"fg\n")
    wait_until(lambda: is_raw(shell), "raw mode again")
    shell.send(b"two\n")
    shell.expect(b"got two")
    shell.send(DETACH)
    shell.expect(rb"\[detached")
    shell.send(b"exit\n")
    shell.wait()


def test_a_client_killed_while_it_types_at_a_program_that_does_not_read_is_noticed(world, pg, name):
    # What used to happen: who is not listened to, since the input queue is full, was not
    # in the poller either, and stayed in `ls` for ever.
    session = start(pg, name, "stty raw -echo; echo ready; exec sleep 1000")
    terminal = attach(world, session)
    os.set_blocking(terminal.master, False)

    def is_full():
        try:
            while True:
                os.write(terminal.master, b"x" * 4096)
        except BlockingIOError:
            return session.info()["input_queued"] >= 1 << 20
    wait_until(is_full, "a full queue")
    assert session.facts["input_queued"] <= (1 << 20) + (1 << 18)
    terminal.process.kill()
    has_left(session, terminal)


def test_a_paste_of_ten_megabytes_nobody_reads_costs_bounded_memory_and_nobody_else(
        world, pg, name, tmp_path):
    (tmp_path / "paste").write_bytes(b"x" * 10000000)
    session = start(pg, name, "stty raw -echo; echo ready; exec sleep 1000")
    echo = start(pg, "E" + name[1:], SIZES)
    other = attach(world, echo)
    sender = world.popen("send", name, "-", stdin=open(tmp_path / "paste", "rb"))
    wait_until(lambda: session.info()["input_queued"] >= 1 << 20, "a full queue")
    other.send(b"meanwhile\n")
    other.expect(b"got meanwhile")
    assert session.info()["input_queued"] <= (1 << 20) + (1 << 17)
    with open(f"/proc/{world.daemon_pid()}/status") as status:
        assert int(re.search(r"VmRSS:\s+(\d+)", status.read()).group(1)) < 100 * 1024
    sender.kill()
    wait_until(lambda: session.info()["input_queued"] == 0, "the dropped rest")
    detach(other)


# -- what the terminal shows, and what it is asked -------------------------------------------------


def undone(terminal):
    """What was written between the program's last words, END, and ours."""
    return re.search(rb"END(.*?)ptyguard: \[(?:detached|ended)", terminal.output, re.S).group(1)


MODES = {
    "mouse": (rb"\033[?1000h\033[?1006h", {b"\x1b[?1000l", b"\x1b[?1006l"}),
    "bracketed paste": (rb"\033[?2004h", {b"\x1b[?2004l"}),
    "alternate screen": (rb"\033[?1049h", {b"\x1b[?1049l"}),
    "hidden cursor": (rb"\033[?25l", {b"\x1b[?25h"}),
    "application keys": (rb"\033[?1h\033=", {b"\x1b[?1l", b"\x1b>"}),
    "focus reports": (rb"\033[?1004h", {b"\x1b[?1004l"}),
    "kitty keyboard": (rb"\033[>1u", {b"\x1b[<1u"}),
    "switched off again": (rb"\033[?1002h\033[?2004h\033[?2004l\033[?1002l\033[?25l\033[?25h",
                           set()),
    "nothing": (b"", set()),
}


@pytest.mark.parametrize("what", MODES)
@pytest.mark.parametrize("way", ["detach", "end"])
def test_exactly_the_modes_that_the_session_switched_on_are_undone(
        world, pg, name, gate, what, way):
    on, off = MODES[what]
    session = start(pg, name,
                    f"stty -echo; echo ready; read x; printf '{on.decode()}END'; cat {gate}")
    terminal = attach(world, session)
    flags = fcntl.fcntl(terminal.slave, fcntl.F_GETFL)
    terminal.send(b"\n")
    terminal.expect(b"END")
    assert fcntl.fcntl(terminal.slave, fcntl.F_GETFL) == flags
    if way == "detach":
        terminal.send(DETACH)
    else:
        gate.write_bytes(b"")
    assert terminal.wait() == 0
    sequences = re.findall(rb"\x1b(?:\[[<-?]?[0-9;]*[a-z]|[=>])", undone(terminal))
    assert set(sequences) == off and len(sequences) == len(off)
    rest = re.sub(rb"\x1b(?:\[[<-?]?[0-9;]*[a-z]|[=>])", b"", undone(terminal))
    assert rest in (b"", b"\r\n")                   # our line begins a line
    assert fcntl.fcntl(terminal.slave, fcntl.F_GETFL) == flags
    assert termios.tcgetattr(terminal.slave) == terminal.settings


def test_an_attach_again_brings_back_screen_and_modes(world, pg, name):
    program = r"stty -echo; echo ready; printf '\033[?1049h\033[?2004h\033[31mred words'; cat"
    session = start(pg, name, program)
    first = attach(world, session)
    first.expect(b"red words")
    detach(first)
    second = attach(world, session)
    second.expect(b"red words")
    wait_until(lambda: screen_of(second).modes == {"alternate_screen": True, "bracketed_paste": True},
               "the modes")
    assert screen_of(second).attr.fg == 1
    detach(second)
    assert set(re.findall(rb"\x1b\[\?\d+l", undone_of(second))) == {b"\x1b[?1049l", b"\x1b[?2004l"}


def screen_of(terminal, size=(80, 24)):
    """What a terminal shows that got what this one got."""
    screen = Screen(size)
    screen.feed(terminal.output)
    return screen


def undone_of(terminal):
    return terminal.output.rpartition(b"red words")[2]


def test_modes_are_remembered_when_the_output_that_set_them_has_been_overwritten(
        world, pg, name, gate):
    session = start(pg, name,
                    f"stty -echo; printf '\\033[?2004h\\033[?1000h'; echo ready; cat {gate}; "
                    "seq 40000; "
                    "printf 'red words'; cat", scrollback=65536)
    first = attach(world, session)
    gate.write_bytes(b"")
    first.expect(b"red words")
    assert session.info()["offsets"]["start"] > 1000
    detach(first)
    assert set(re.findall(rb"\x1b\[\?\d+l", undone_of(first))) == {b"\x1b[?2004l", b"\x1b[?1000l"}
    second = attach(world, session)
    second.expect(b"red words")
    assert b"\x1b[?2004h" in second.output and b"\x1b[?1000h" in second.output
    detach(second)


def test_a_repaint_begins_at_a_line_and_in_the_middle_of_nothing(world, pg, name):
    line = r"\033[1;31mline %06d\033[0m \342\230\203\342\230\203\r\n"
    session = start(pg, name, f"stty -echo -opost; printf '{line}' $(seq 30000); "
                    "printf 'red words'; echo ready; cat")
    terminal = attach(world, session)
    terminal.expect(b"red words")
    screen = screen_of(terminal)
    text = "\n".join(line.text.rstrip() for line in [*screen.history, *screen.lines])
    lines = text.strip("\n").split("\n")
    assert lines.pop() == "red wordsready" and len(lines) > 1000
    assert lines == [f"line {i:06} \u2603\u2603" for i in range(30001 - len(lines), 30001)]
    detach(terminal)


def test_questions_in_the_history_are_not_asked_again(world, pg, name):
    asks = r"\033[c\033[>c\033[6n\033[5n\033]11;?\007\033[?u\033P+q544e\033\\"
    session = start(pg, name,
                    f"stty -echo -icanon; printf 'before{asks}after'; echo ready; cat >/dev/null")
    for _ in range(2):
        terminal = attach(world, session)
        terminal.expect(b"beforeafter")
        detach(terminal)
        for query in (b"\x1b[c", b"\x1b[>c", b"\x1b[6n", b"\x1b[5n", b"\x1b]11;?", b"\x1b[?u",
                      b"\x1bP+q"):
            assert query not in terminal.output


# Raw mode; asks, and tells the answer in hexadecimal.
ASKER = r"""
import os, sys, tty
tty.setraw(0)
print("ready\r")
for query in sys.argv[1:]:
    os.read(0, 1)
    os.write(1, b"asking " + query.encode().decode("unicode_escape").encode("latin-1"))
    answer = b""
    while answer[-1:] not in (b"c", b"n", b"R"):
        answer += os.read(0, 1)
    os.write(1, b"answer " + answer.hex().encode() + b"\r\n")
os.read(0, 1)
"""


@pytest.mark.parametrize("query, answer", [
    (r"\x1b[c", rb"\x1b\[\?[0-9;]+c"), (r"\x1b[>c", rb"\x1b\[>[0-9;]+c"),
    (r"\x1b[5n", rb"\x1b\[0n"),
    (r"\x1b[6n", rb"\x1b\[2;8R"), (r"\x1b[?6n", rb"\x1b\[\?2;8R"),     # behind "asking "
    (r"\x1b[0c", rb"\x1b\[\?[0-9;]+c"),
])
def test_with_nobody_attached_a_question_is_answered_as_a_terminal_would(pg, name, query, answer):
    import sys
    session = pg.start([sys.executable, "-c", ASKER, query], name)
    session.wait_for(b"ready", LIMIT_S)
    session.send(b".")
    found = session.wait_for(rb"answer ([0-9a-f]+)", LIMIT_S)
    assert re.fullmatch(answer, bytes.fromhex(found.group(1).decode()))


def test_with_a_terminal_attached_it_is_the_terminal_that_answers(world, pg, name):
    import sys
    session = pg.start([sys.executable, "-c", ASKER, r"\x1b[c"], name)
    session.wait_for(b"ready", LIMIT_S)
    terminal = attach(world, session)
    terminal.expect(b"ready")
    terminal.send(b".")
    terminal.expect(rb"asking \x1b\[c")
    terminal.send(b"\x1b[?64;9c")
    assert terminal.expect(rb"answer ([0-9a-f]+)").group(1) == b"\x1b[?64;9c".hex().encode()
    detach(terminal)


def test_an_attach_again_of_the_same_size_makes_the_program_paint(world, pg, name):
    session = start(pg, name, SIZES, size=(80, 24))
    terminal = attach(world, session, size=(80, 24))
    terminal.expect(b"ready")
    detach(terminal)
    before = session.info()["offsets"]["end"]
    terminal = attach(world, session, size=(80, 24))
    session.wait_for(rb"24 80\n", LIMIT_S, before)
    detach(terminal)
    assert session.info()["size"] == {"cols": 80, "rows": 24}


def test_a_read_only_client_does_not_make_the_program_paint(world, pg, name):
    session = start(pg, name, SIZES, size=(80, 24))
    terminal = attach(world, session, size=(80, 24))
    detach(terminal)
    before = session.info()["offsets"]["end"]
    terminal = attach(world, session, "-r", size=(80, 24))
    session.send(b"still\n")
    terminal.expect(b"got still")
    detach(terminal)
    assert session.read(before)[1] == b"got still\r\n"
