"""Real programs in real terminals: attached, detached, attached again, the daemon killed between.

Each is skipped, with the reason, where it is not installed.
"""

import os
import re
import shutil
import signal
import sys

import pytest

from world import LIMIT_S, is_alive, wait_until

DETACH = b"\x1c"
PROMPT = "p$((6 * 7))> "           # not to be found in what was only typed


def needs(*programs):
    """The first of these that is installed, or a skip."""
    for program in programs:
        if shutil.which(program):
            return shutil.which(program)
    pytest.skip(f"{' or '.join(programs)} is not installed")


def attach(world, session, size=(80, 24), *words):
    """A terminal with that session in it, which has come that far that keys are its."""
    terminal = world.terminal("attach", session.name, *words, size=size)
    wait_until(lambda: any(each["pid"] == terminal.process.pid
                           for each in session.info()["viewers"])
               or terminal.process.poll() is not None, "the client")
    import termios
    wait_until(lambda: not termios.tcgetattr(terminal.slave)[3] & termios.ICANON, "raw mode")
    return terminal


def detach(terminal):
    terminal.send(DETACH)
    assert terminal.wait() == 0


def comes_back(world, session, terminal, old):
    """The daemon is killed under an attached terminal, which is there again with the next one."""
    os.kill(old, signal.SIGKILL)
    new = world.new_daemon_pid(old)
    wait_until(lambda: any(each["pid"] == terminal.process.pid
                           for each in session.info()["viewers"]),
               "the client, come back")
    return new


def environment(**variables):
    kept = {key: value for key,
            value in os.environ.items() if not key.startswith(("PTYGUARD", "PYTEST"))}
    return dict(kept, TERM="xterm-256color", LC_ALL="C.UTF-8", **variables)


# -- bash ------------------------------------------------------------------------------------------


@pytest.fixture
def bash(pg, request):
    needs("bash")
    name = "bash-" + os.urandom(3).hex()
    return pg.start(["bash", "--norc", "--noprofile", "-i"], name,
                    env=environment(PS1=PROMPT, INPUTRC="/dev/null"))


def test_bash_keeps_its_jobs_through_detach_attach_and_a_killed_daemon(world, bash):
    terminal = attach(world, bash)
    terminal.expect(b"p42>")
    terminal.send(b"sleep 1000\n")
    wait_until(lambda: bash.info()["foreground"]["command"] == "sleep", "sleep in the foreground")
    sleeper = bash.facts["foreground"]["pid"]
    terminal.send(b"\x1a")                          # Ctrl-Z is the program's
    terminal.expect(rb"Stopped\s+sleep 1000")
    terminal.expect(b"p42>")
    detach(terminal)
    world.kill_daemon()
    terminal = attach(world, bash)
    terminal.send(b"jobs\n")
    terminal.expect(rb"\[1\]\+\s+Stopped\s+sleep 1000")
    terminal.send(b"bg\n")
    terminal.expect(rb"sleep 1000 &")
    terminal.send(b"fg\n")
    wait_until(lambda: bash.info()["foreground"]["pid"] == sleeper, "it in the foreground again")
    comes_back(world, bash, terminal, world.daemon_pid())
    assert is_alive(sleeper)
    terminal.send(b"\x03")
    wait_until(lambda: not is_alive(sleeper), "the interrupt")
    terminal.send(b"echo status $?\n")
    terminal.expect(rb"\rstatus 130\r\n")
    terminal.send(b"exit 9\n")
    assert terminal.wait() == 9


def test_bash_sees_every_new_size_also_that_of_another_terminal(world, bash):
    terminal = attach(world, bash, (100, 30))
    terminal.expect(b"p42>")
    terminal.send(b"stty size\n")
    terminal.expect(rb"\r30 100\r\n")
    terminal.resize(90, 20)
    wait_until(lambda: bash.info()["size"] == {"cols": 90, "rows": 20}, "the new size")
    terminal.send(b"stty size; echo $COLUMNS\n")
    terminal.expect(rb"\r20 90\r\n90\r\n")
    detach(terminal)
    terminal = attach(world, bash, (70, 25))
    terminal.send(b"stty size\n")
    terminal.expect(rb"\r25 70\r\n")
    comes_back(world, bash, terminal, world.daemon_pid())
    terminal.resize(71, 26)
    wait_until(lambda: bash.info()["size"] == {"cols": 71, "rows": 26}, "the new size")
    terminal.send(b"stty size\n")
    terminal.expect(rb"\r26 71\r\n")
    detach(terminal)


def test_bash_completes_edits_and_keeps_its_history_over_a_detach(world, bash, tmp_path):
    (tmp_path / "a-long-name-to-complete").write_text("")
    terminal = attach(world, bash)
    terminal.expect(b"p42>")
    terminal.send(f"cd {tmp_path}; echo one two\n".encode())
    terminal.expect(rb"\rone two\r\n")
    terminal.send(b"echo a-lo\t; echo done\n")
    terminal.expect(rb"\ra-long-name-to-complete\r\ndone\r\n")
    detach(terminal)
    terminal = attach(world, bash)
    terminal.send(b"\x1b[A\x1b[A\x01# \n")          # two lines up, to its beginning, comment it
    terminal.expect(rb"# cd ")
    terminal.send(b"echo $((40 + 4))\n")
    terminal.expect(rb"\r44\r\n")
    detach(terminal)


# -- editors and pagers ----------------------------------------------------------------------------


def test_vim_edits_over_a_detach_and_a_killed_daemon_and_saves(world, pg, tmp_path):
    vim = needs("vim", "vi")
    path = tmp_path / "file.txt"
    path.write_text("first line\n")
    session = pg.start([vim, "-u", "NONE", "-N", "-n", str(path)], "vim", env=environment())
    terminal = attach(world, session)
    terminal.expect(b"first line")
    terminal.send(b"Osecond line\x1b:w\r")
    wait_until(lambda: path.read_text() == "second line\nfirst line\n", "the saved file")
    terminal.send(b"Gothird ")                      # in the middle of an edit
    terminal.expect(b"third ")
    detach(terminal)
    assert b"\x1b[?1049l" in terminal.output        # the shell's screen is back
    world.kill_daemon()
    terminal = attach(world, session)
    terminal.expect(rb"\x1b\[\?1049h")              # vim's screen is, too
    terminal.expect(b"second line")
    terminal.expect(b"third")
    terminal.send(b"ending\x1b")
    # Who kills a daemon within the moment that an Escape is held for what may follow it loses that.
    def shown():
        return "\n".join(line.text for line in session.screen().lines)

    wait_until(lambda: "third ending" in (text := shown()) and "INSERT" not in text, "the end of the edit")
    comes_back(world, session, terminal, world.daemon_pid())
    terminal.send(b":wq\r")
    assert terminal.wait() == 0
    assert path.read_text() == "second line\nfirst line\nthird ending\n"
    assert b"[ended: exit 0]" in terminal.output


def test_vim_that_starts_with_nobody_attached_does_not_wait_for_answers(pg, tmp_path):
    vim = needs("vim", "vi")
    path = tmp_path / "file.txt"
    session = pg.start([vim, "-u", "NONE", "-N", "-n", str(path)], "vim-alone", env=environment())
    session.wait_for(rb"\x1b\[\?1049h", LIMIT_S, raw=True)
    session.send(b"ialone\x1b:wq\r")
    assert session.wait(LIMIT_S) == {"code": 0, "signal": None}
    assert path.read_text() == "alone\n"


def test_less_pages_searches_and_repaints_for_the_next_terminal(world, pg, tmp_path):
    less = needs("less")
    path = tmp_path / "lines"
    path.write_text("".join(f"line {n} of it\n" for n in range(1, 2001)))
    session = pg.start([less, str(path)], "less", env=environment(LESS="", LESSHISTFILE="-"))
    terminal = attach(world, session)
    terminal.expect(b"line 23 of it")
    terminal.send(b" ")
    terminal.expect(b"line 46 of it")
    terminal.send(b"/line 1500\r")
    terminal.expect(b"1500")
    detach(terminal)
    world.kill_daemon()
    terminal = attach(world, session, (60, 12))
    terminal.expect(b"line 1505 of it")
    comes_back(world, session, terminal, world.daemon_pid())
    terminal.send(b"G")
    terminal.expect(b"line 2000 of it")
    terminal.send(b"q")
    assert terminal.wait() == 0


def test_a_monitor_of_processes_paints_for_each_terminal(world, pg):
    program = needs("htop", "top")
    session = pg.start([program, "-d", "10"], "monitor", env=environment())
    terminal = attach(world, session, (100, 30))
    terminal.expect(rb"PID")
    detach(terminal)
    world.kill_daemon()
    terminal = attach(world, session, (100, 30))
    terminal.expect(rb"PID")
    comes_back(world, session, terminal, world.daemon_pid())
    since = session.info()["offsets"]["end"]
    wait_until(lambda: session.info()["offsets"]["end"] > since, "another picture")
    terminal.send(b"q")
    assert terminal.wait() == 0
    last = dict(re.findall(rb"\x1b\[\?(1049|25|1)([hl])", terminal.output))
    for mode, fresh in ((b"1049", b"l"), (b"25", b"h"), (b"1", b"l")):
        assert last.get(mode, fresh) == fresh, mode


# -- a REPL ----------------------------------------------------------------------------------------


def test_a_python_prompt_keeps_its_state_over_a_detach_and_a_killed_daemon(world, pg):
    session = pg.start([sys.executable, "-q"], "python", env=environment(PYTHON_BASIC_REPL="1"))
    terminal = attach(world, session)
    terminal.expect(b">>>")
    terminal.send(b"answer = 6 * 7\n")
    terminal.expect(b">>>")
    detach(terminal)
    world.kill_daemon()
    terminal = attach(world, session)
    terminal.send(b"answer * 1000 + 1\n")
    terminal.expect(rb"42001\r\n")
    comes_back(world, session, terminal, world.daemon_pid())
    terminal.send(b"while True: pass\n\n")
    terminal.expect(rb"pass\r\n.*\.\.\. .*\r\n")      # it runs: to readline an interrupt is another thing
    terminal.send(b"\x03")
    terminal.expect(rb"KeyboardInterrupt")
    terminal.send(b"raise SystemExit(answer)\n")
    assert terminal.wait() == 42
