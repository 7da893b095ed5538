"""Programs that ask their terminal while nobody is attached, or more than one, or one that comes back.

A program here asks and waits for the answer without a limit, so that a test which ends has seen
each of them answered.
"""

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys

import pytest

from conftest import LIMIT_S
from ptyguard_core.terminal import has_query
from world import MEMORY, World, wait_until

DETACH = b"\x1c"

# Raw mode.  Each line typed is a piece of output (with \x1b and the like), which ends in a query
# unless it ends in "|"; the answer is told in hexadecimal, once there is a whole one.
ASKER = r"""
import os, re, tty
tty.setraw(0)
def line():
    read = b""
    while not read.endswith(b"\r"):
        read += os.read(0, 1)
    return read[:-1].decode().encode().decode("unicode_escape").encode("latin-1")
os.write(1, b"ready\r\n")
while True:
    out = line()
    os.write(1, out.rstrip(b"|"))
    if out.endswith(b"|"):
        continue
    answer = b""
    while not re.fullmatch(rb"[a-z]*\x1b(?:\[[0-?]*\$?[a-zR]|[]P][^\x1b\x07]*(?:\x07|\x1b\\))", answer):
        answer += os.read(0, 1)
    os.write(1, b"answer " + answer.hex().encode() + b";\r\n")
"""


def start_asker(pg, name, **options):
    session = pg.start([sys.executable, "-I", "-S", "-c", ASKER], name, **options)
    session.wait_for(rb"ready\r\n", LIMIT_S, raw=True)
    return session


def ask(session, output):
    """What the program is answered, after `output` (as text with escapes) of its."""
    begin = session.info()["offsets"]["end"]
    session.send(output.encode() + b"\r")
    found = session.wait_for(rb"answer ([0-9a-f]+);", LIMIT_S, begin, raw=True)
    return bytes.fromhex(found.group(1).decode())


def attach(world, session, *words, size=(80, 24)):
    terminal = world.terminal("attach", session.name, *words, size=size)
    wait_until(lambda: any(each["pid"] == terminal.process.pid for each in session.info()["viewers"])
               or terminal.process.poll() is not None, "the client")
    return terminal


def detach(terminal):
    terminal.send(DETACH)
    assert terminal.wait() == 0


@pytest.mark.parametrize("output, answer", [
    (r"\x1b[c", b"\x1b[?62;22c"), (r"\x1b[=c", b"\x1bP!|00000000\x1b\\"),
    (r"\x1b[2J\x1b[7;9Hx\x1b[6n", b"\x1b[7;10R"),
    (r"\x1b[?2026$p", b"\x1b[?2026;2$y"), (r"\x1b[?2004h\x1b[?2004$p", b"\x1b[?2004;1$y"),
    (r"\x1b[>1u\x1b[?u", b"\x1b[?1u"),
    (r"\x1b]11;?\x07", b"\x1b]11;rgb:0000/0000/0000\x07"),
    (r"\x1b]11;#123456\x1b\\\x1b]11;?\x1b\\", b"\x1b]11;rgb:1212/3434/5656\x1b\\"),
    (r"\x1b]4;3;?\x07", b"\x1b]4;3;rgb:cdcd/cdcd/0000\x07"),
])
def test_with_nobody_attached_a_program_is_told_what_is_so(pg, name, output, answer):
    assert ask(start_asker(pg, name), output) == answer


def test_the_place_of_the_cursor_is_true_after_megabytes_and_after_kill_9(world, pg, name):
    lines = """
import os
os.write(1, b"\\x1b[?1049h\\x1b[3;20r\\x1b[?6h")
for n in range(40000):
    left = b"\\x1b[1;32m%06d\\x1b[m a line of some \\xe2\\x98\\x83 snow, forty columns\\r\\n" % n
    while left:
        left = left[os.write(1, left):]
"""
    session = pg.start([sys.executable, "-I", "-S", "-c", lines + ASKER], name)
    session.wait_for(rb"ready\r\n", LIMIT_S, session.info()["offsets"]["start"], raw=True)
    assert session.info()["offsets"]["end"] > 2 << 20 and session.info()["offsets"]["start"] > 1 << 20
    assert ask(session, r"\x1b[6n") == b"\x1b[18;1R"              # counted from the margin
    world.kill_daemon()
    assert ask(session, r"\x1b[4;5Hx\x1b[6n") == b"\x1b[4;6R"
    assert ask(session, r"\x1b[?1049$p") == b"\x1b[?1049;1$y"


def test_queries_from_before_a_killed_daemon_see_the_same_screen(world, pg, name):
    session = start_asker(pg, name)
    assert ask(session, r"\x1b[2J\x1b[3;20r\x1b[?6h\x1b[4;5H\x1b[6n") == b"\x1b[4;5R"
    assert ask(session, r"\x1b[?2004h\x1b[?2004$p") == b"\x1b[?2004;1$y"
    world.kill_daemon()
    assert ask(session, r"\x1b[?6$p") == b"\x1b[?6;1$y"
    assert ask(session, r"\x1b[?2004$p") == b"\x1b[?2004;1$y"
    assert ask(session, r"\x1b[5;6Hab\x1b[6n") == b"\x1b[5;8R"
    world.run("daemon", "restart", check=0)
    assert ask(session, r"\x1b[5;6Habc\x1b[6n") == b"\x1b[5;9R"


@pytest.mark.parametrize("is_held", [False, True], ids=["nobody", "a run that comes back"])
def test_a_query_that_waits_for_its_screen_when_the_daemon_is_replaced_is_answered_by_the_next(
        world, pg, name, is_held):
    # Inserting and deleting lines is dear: that screen takes seconds.
    argv = [sys.executable, "-I", "-S", "-c", ASKER.replace(
        'os.write(1, b"ready', """
dear = b"\\x1b[L\\x1b[M\\x1b[@" * 30000
while dear:
    dear = dear[os.write(1, dear):]
os.write(1, b"\\x1b[2J\\x1b[7;7Hx\\x1b[6n\\x1b[5n")
answers = b""
while not answers.endswith(b"n"):
    answers += os.read(0, 1)
os.write(1, b"told " + answers.hex().encode() + b";ready""")]
    if is_held:
        run = world.popen("run", "-n", name, "--", *argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
        world.sink(run.stdout)
        wait_until(lambda: any(each.name == name and each.facts["offsets"] for each in pg.sessions()), "the session")
        session = pg.session(name)
    else:
        session = pg.start(argv, name)
    wait_until(lambda: session.info()["offsets"]["end"] >= 270000 + 18, "all of its output")
    world.run("daemon", "restart", check=0)
    found = session.wait_for(rb"told ([0-9a-f]+);ready", LIMIT_S, raw=True)
    assert bytes.fromhex(found.group(1).decode()) == b"\x1b[7;8R\x1b[0n"
    assert ask(session, r"\x1b[c") == b"\x1b[?62;22c"


def test_a_session_that_is_resized_knows_its_size(world, pg, name):
    session = start_asker(pg, name)
    assert ask(session, r"\x1b[999;999H\x1b[6n") == b"\x1b[24;80R"
    world.run("resize", name, "100x30", check=0)
    assert ask(session, r"\x1b[999;999H\x1b[6n") == b"\x1b[30;100R"


def test_colours_are_those_that_were_chosen(tmp_path):
    with World(under=MEMORY, PTYGUARD_BACKGROUND="#fdf6e3", PTYGUARD_FOREGROUND="#657b83",
               PTYGUARD_CURSOR_COLOUR="#d33682") as world:
        world.run("start", "-n", "first", "--", "true", check=0)
        with world.connect() as pg:
            session = start_asker(pg, "asker")
            assert ask(session, r"\x1b]11;?\x1b\\") == b"\x1b]11;rgb:fdfd/f6f6/e3e3\x1b\\"
            assert ask(session, r"\x1b]12;?\x07") == b"\x1b]12;rgb:d3d3/3636/8282\x07"
            world.kill_daemon()
            assert ask(session, r"\x1b]10;?\x07") == b"\x1b]10;rgb:6565/7b7b/8383\x07"


@pytest.mark.parametrize("value", ["red", "#fff", "#12345g", "123456"])
def test_a_colour_that_is_none_is_a_usage_error(value):
    with World(under=MEMORY, PTYGUARD_BACKGROUND=value) as world:
        done = world.run("start", "--", "true")
        assert done.returncode == 2
        assert b"PTYGUARD_BACKGROUND" in done.stderr and b"#rrggbb" in done.stderr


# -- terminals ------------------------------------------------------------------------------------


# Tells in hexadecimal all that has been typed so far; with "ask" it asks all the time from then on.
LISTENER = r"""
import os, select, sys, tty
tty.setraw(0)
typed = b""
os.write(1, b"ready\r\n")
while True:
    if select.select([0], [], [], 0.1)[0]:
        typed += os.read(0, 1000)
        os.write(1, b"typed " + typed.hex().encode() + b";\r\n")
    elif typed and sys.argv[1:]:
        os.write(1, b"\x1b[6n")
"""


def two_terminals(world, pg, name, *words):
    """(session, first terminal, second terminal); the second one is the leader."""
    session = pg.start([sys.executable, "-I", "-S", "-c", LISTENER, *words], name)
    session.wait_for(b"ready", LIMIT_S)
    first = attach(world, session, size=(81, 24))
    second = attach(world, session, size=(82, 24))
    has_size(session, 82)
    return session, first, second


def has_size(session, cols):
    wait_until(lambda: session.info()["size"]["cols"] == cols, "the leader's size")


def expect_typed(terminal, data):
    terminal.expect(b"typed " + data.hex().encode() + b";")


def test_of_two_terminals_that_answer_a_program_hears_the_leader(world, pg, name):
    session, first, second = two_terminals(world, pg, name, "ask")
    second.send(b"a")
    for terminal in (first, second):
        terminal.expect(rb"typed 61;.*\x1b\[6n")
    first.send(b"\x1b[11;11R\x1b[?64c")
    first.send(b"b")                                # now it is the leader
    has_size(session, 81)
    expect_typed(first, b"ab")
    second.send(b"\x1b[22;22R")
    first.send(b"\x1b[33;33R")
    expect_typed(first, b"ab\x1b[33;33R")
    detach(second)
    first.send(b"\x1b[1;2R")
    expect_typed(first, b"ab\x1b[33;33R\x1b[1;2R")
    detach(first)


def test_without_a_query_what_looks_like_an_answer_is_a_key_and_makes_nobody_the_leader(world, pg, name):
    session, first, second = two_terminals(world, pg, name)
    first.send(b"\x1b[1;2R")                        # Shift-F3
    expect_typed(second, b"\x1b[1;2R")
    assert session.info()["size"]["cols"] == 82
    first.send(b"\x1b")
    expect_typed(first, b"\x1b[1;2R\x1b")
    has_size(session, 81)
    detach(first)
    detach(second)


def test_who_only_looks_on_does_not_keep_a_program_from_its_answer(world, pg, name):
    session = start_asker(pg, name)
    reader = attach(world, session, "-r")
    assert ask(session, r"before\x1b[cafter") == b"\x1b[?62;22c"
    reader.expect(b"beforeafter")                   # its terminal is not even asked
    detach(reader)


def test_what_a_successor_answered_is_not_asked_of_a_terminal_that_comes_back_late(world, pg, name, tmp_path):
    go = tmp_path / "go"
    os.mkfifo(go)
    session = pg.start([sys.executable, "-c", ASKER.replace(
        'os.write(1, b"ready', f'os.write(1, b"waiting"); open({str(go)!r}).read(); os.write(1, b"ready')], name)
    terminal = attach(world, session)
    terminal.expect(b"waiting")
    os.kill(terminal.process.pid, signal.SIGSTOP)
    old = world.kill_daemon()
    world.new_daemon_pid(old)
    with open(go, "w"):
        pass
    # That it is awaited for a while is in the log; then it is read without it.
    wait_until(lambda: "holders_missing" in world.log(), "the end of waiting")
    assert ask(session, r"before\x1b[cafter") == b"\x1b[?62;22c"
    os.kill(terminal.process.pid, signal.SIGCONT)
    terminal.expect(rb"ready(?:\r\n|\x1b\[2;1H)beforeafteranswer ")      # what it missed, or painted anew
    terminal.send(b"\\x1b[5n\r")                   # from here on it is the terminal that is asked
    terminal.expect(rb"\x1b\[5n")
    terminal.send(b"\x1b[3n")
    terminal.expect(b"answer " + b"\x1b[3n".hex().encode())
    detach(terminal)


def test_a_flood_of_queries_delays_nobody_else_for_ever(world, pg, name):
    flood = pg.start([sys.executable, "-c", """
import os, tty
tty.setraw(0)
while True:
    os.write(1, b"\\x1b[6n\\x1b[?2026$p\\xff\\x1b[999C\\x1b[L\\x1b[M" * 500)
"""], name + "-flood")
    session = start_asker(pg, name)
    assert ask(session, r"\x1b[2;2H\x1b[6n") == b"\x1b[2;2R"
    assert flood.id in world.run("ls", "--json", check=0).stdout.decode()
    world.run("kill", flood.name, "--grace", "0", check=0)


# -- programs ----------------------------------------------------------------------------------------


# What a library of full-screen programs asks before it shows anything; each answer is waited for.
LIBRARY = r"""
import os, re, sys, tty
tty.setraw(0)
QUERIES = [
    (b"\x1b[>c", rb"\x1b\[>[0-9;]+c"), (b"\x1b[c", rb"\x1b\[\?[0-9;]+c"), (b"\x1b[=c", rb"\x1bP!\|[0-9A-F]+\x1b\\"),
    (b"\x1b[>q", rb"\x1bP>\|[^\x1b]+\x1b\\"), (b"\x1b[?u", rb"\x1b\[\?[0-9]+u"),
    (b"\x1b[?2026$p", rb"\x1b\[\?2026;2\$y"), (b"\x1b[?2048$p", rb"\x1b\[\?2048;0\$y"),
    (b"\x1b]10;?\x1b\\", rb"\x1b\]10;rgb:[0-9a-f/]+\x1b\\"), (b"\x1b]11;?\x07", rb"\x1b\]11;rgb:[0-9a-f/]+\x07"),
    (b"\x1b[4;9H\x1b[6n", rb"\x1b\[4;9R"), (b"\x1bP+q544e\x1b\\", rb"\x1bP0\+r\x1b\\"),
    (b"\x1bP$q q\x1b\\", rb"\x1bP0\$r\x1b\\"), (b"\x1b[5n", rb"\x1b\[0n"),
]
for query, answer in QUERIES:
    os.write(1, query)
    read = b""
    while not re.fullmatch(answer, read):
        read += os.read(0, 1)
os.write(1, b"".join(query for query, _ in QUERIES))
read = b""
while not re.fullmatch(b"".join(answer for _, answer in QUERIES), read):
    read += os.read(0, 4096)
os.write(1, b"all answered\r\n")
"""


def run_in_a_pipe(world, *command, typed=b""):
    """`run ... </dev/null | cat`, or with that typed: what came out, and the status of `run`."""
    runner = world.popen("run", "--", *command, stdout=subprocess.PIPE,
                         stdin=subprocess.PIPE if typed else subprocess.DEVNULL)
    if typed:
        runner.stdin.write(typed)
        runner.stdin.close()
    cat = subprocess.run(["cat"], stdin=runner.stdout, stdout=subprocess.PIPE, timeout=LIMIT_S)
    return cat.stdout, runner.wait(LIMIT_S)


def test_a_library_that_waits_for_each_of_its_answers_starts_in_a_pipe(world):
    output, status = run_in_a_pipe(world, sys.executable, "-I", "-S", "-c", LIBRARY)
    assert b"all answered" in output and status == 0


@pytest.mark.parametrize("program, words, typed, shown", [
    ("fish", ["--no-config", "-i"], b"echo fish is (math 40 + 2); exit 7\r", b"fish is 42"),
    ("vim", ["-u", "NONE", "-N", "-n", "-c", "call writefile(['vim is here'], '/dev/tty')", "-c", "cquit 7"],
     b"", b"vim is here"),
])
def test_real_programs_start_and_end_in_a_pipe(world, program, words, typed, shown):
    if not shutil.which(program):
        pytest.skip(f"{program} is not installed")
    output, status = run_in_a_pipe(world, program, *words, typed=typed)
    assert shown in output and status == 7, output
    assert b"could not read response" not in output.lower()     # what fish 4 says when it was not answered


def test_a_curses_program_starts_in_a_pipe(world):
    pytest.importorskip("curses")
    output, status = run_in_a_pipe(world, sys.executable, "-c", r"""
import curses
def main(screen):
    screen.addstr(3, 4, "curses is here")
    screen.refresh()
curses.wrapper(main)
raise SystemExit(7)
""")
    assert b"curses is here" in re.sub(rb"\x1b\[[0-9;?]*[A-Za-z]", b"", output) and status == 7


def test_a_terminal_whose_answers_nobody_would_hear_is_not_asked(world):
    # With /dev/null as its input, `run` types nothing: the answers came to the shell's prompt.
    command = " ".join(map(shlex.quote, [*world.program, "run", "--", sys.executable, "-I", "-S", "-c", LIBRARY]))
    terminal = world.terminal("-c", command + " </dev/null", program=["/bin/sh"])
    terminal.expect(b"all answered")
    assert terminal.wait() == 0
    assert not has_query(terminal.output)
