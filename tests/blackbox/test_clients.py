"""Several terminals on one session: what each sees, who has the size, and how each ends."""

import os
import signal

import pytest

from outside import DETACH, is_alive, wait_until

SIZES = "stty -echo; trap 'stty size' WINCH; echo ready; stty size; while :; do read x && echo \"got $x\"; done"


def sees(*terminals, text):
    for terminal in terminals:
        terminal.expect(text)


# -- together --------------------------------------------------------------------------------------


def test_two_at_once_see_the_same_whoever_types(pg, name):
    pg.start(name, "stty -echo; echo ready; while read x; do echo \"got $x\"; done")
    one, two = pg.attach(name), pg.attach(name)
    sees(one, two, text=rb"ready")
    one.type(b"of one\n")
    sees(one, two, text=rb"got of one\r\n")
    two.type(b"of two\n")
    sees(one, two, text=rb"got of two\r\n")
    one.detach()
    two.type(b"alone\n")
    two.expect(rb"got alone\r\n")
    assert pg.sessions()[name]["clients"] == 1
    two.detach()
    assert pg.sessions()[name]["clients"] == 0


def test_a_watcher_sees_everything_and_types_nothing(pg, name):
    pg.start(name, SIZES, "--size", "80x24")
    typist, watcher = pg.attach(name), pg.attach(name, "-r", size=(50, 10))
    sees(typist, watcher, text=rb"ready")
    watcher.type(b"nothing\n")
    typist.type(b"something\n")
    sees(typist, watcher, text=rb"got something\r\n")
    assert b"nothing" not in pg.log(name) and b"10 50" not in pg.log(name)
    watcher.type(DETACH)
    assert watcher.wait() == 0
    typist.detach()


def test_detach_from_elsewhere_sends_all_away_and_the_session_stays(pg, name):
    pg.start(name, "echo ready; cat")
    terminals = [pg.attach(name) for _ in range(3)]
    sees(*terminals, text=rb"ready")
    pg.run("detach", name, code=0)
    for terminal in terminals:
        assert terminal.wait() == 0
        assert b"[detached (from session %s)]" % name.encode() in terminal.output
    assert pg.sessions()[name]["clients"] == 0
    pg.run("detach", name, code=0)                  # nobody is there: done already
    pg.run("detach", "nobody.has.it", code=3)


def test_a_shell_that_detaches_itself_is_left_and_goes_on(pg, name):
    pg.run("start", "-n", name, "--", "sh", code=0)
    terminal = pg.attach(name)
    terminal.type(b"ptyguard detach; echo still $((40 + 2)) here\n")
    assert terminal.wait() == 0
    pg.run("wait", name, "--for", "still 42 here", code=0)


# -- sizes -----------------------------------------------------------------------------------------


def test_a_program_has_its_size_from_the_start(pg):
    def size_in(*options):
        done = pg.run("run", *options, "--", "stty", "size", code=0)
        return done.stdout
    assert size_in("--size", "101x31") == b"31 101\r\n"
    assert size_in() == b"24 80\r\n"
    terminal = pg.terminal("run", "--", "stty", "size", size=(93, 33))
    assert terminal.wait() == 0
    assert b"33 93\r\n" in terminal.output


def test_a_program_is_told_each_new_size_of_its_terminal(pg, name):
    pg.start(name, SIZES, "--size", "80x24")
    terminal = pg.attach(name, size=(100, 30))
    terminal.expect(rb"30 100\r\n")                 # attached from another size
    terminal.resize(90, 20)
    terminal.expect(rb"20 90\r\n")
    terminal.resize(200, 50)
    terminal.expect(rb"50 200\r\n")
    terminal.detach()
    assert pg.sessions()[name]["size"] == {"cols": 200, "rows": 50}
    pg.run("resize", name, "70x15", code=0)
    pg.run("wait", name, "--for", "15 70", code=0)


def test_the_size_is_that_of_the_terminal_that_typed_last(pg, name):
    pg.start(name, SIZES, "--size", "80x24")
    large = pg.attach(name, size=(120, 40))
    large.expect(rb"40 120\r\n")
    small = pg.attach(name, size=(60, 12))
    large.expect(rb"12 60\r\n")                     # nobody has typed: who came last
    for terminal, word, size in ((large, b"large", b"40 120"), (small, b"small", b"12 60"),
                                 (large, b"again", b"40 120")):
        terminal.type(word + b"\n")
        large.expect(rb"got WORD\r\n.*SIZE\r\n|SIZE\r\n.*got WORD\r\n"
                     .replace(b"WORD", word).replace(b"SIZE", size))
    large.detach()
    wait_until(lambda: pg.sessions()[name]["size"] == {"cols": 60, "rows": 12}, "the size of who is left")
    small.detach()


def test_zero_by_zero_is_no_size(pg, name):
    terminal = pg.terminal("run", "-n", name, "--", "stty", "size", size=(0, 0))
    assert terminal.wait() == 0
    assert b"24 80\r\n" in terminal.output
    for wrong in ("0x0", "80", "80x", "x24", "80x24x2", "-1x24", "70000x24", "80 x 24", ""):
        pg.run("resize", name, wrong, code=2)


# -- ends ------------------------------------------------------------------------------------------


def test_exit_ends_the_shell_the_session_and_every_client(pg, name):
    pg.run("start", "-n", name, "--env", "PS1=prompt> ", "--unset", "ENV", "--", "sh", "-i", code=0)
    one, two = pg.attach(name), pg.attach(name)
    sees(one, two, text=rb"prompt>")
    one.type(b"exit\n")
    assert (one.wait(), two.wait()) == (0, 0)
    assert b"[ended: exit 0]" in one.output and b"[ended: exit 0]" in two.output
    assert pg.sessions()[name]["state"] == "ended"
    pg.run("has", name, code=1)
    pg.run("attach", name, code=3)


def test_a_shell_that_ends_with_19_ends_its_client_with_19(pg, name):
    pg.run("start", "-n", name, "--", "sh", code=0)
    terminal = pg.attach(name)
    terminal.type(b"exit 19\n")
    assert terminal.wait() == 19
    assert b"[ended: exit 19]" in terminal.output
    pg.run("wait", name, code=19)


def test_a_window_that_is_closed_ends_its_client_and_nothing_else(pg, name):
    pg.start(name, "echo ready; exec cat")
    terminal = pg.attach(name)
    terminal.close()
    wait_until(lambda: terminal.process.poll() is not None, "the client's end")
    assert pg.sessions()[name]["state"] == "running"
    assert pg.sessions()[name]["clients"] == 0


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGTERM, signal.SIGKILL])
def test_a_client_that_is_killed_takes_nothing_with_it(pg, name, number):
    pg.start(name, "echo ready; exec cat")
    terminal = pg.attach(name)
    terminal.process.send_signal(number)
    terminal.wait()
    wait_until(lambda: pg.sessions()[name]["clients"] == 0, "its leaving")
    again = pg.attach(name)
    again.expect(rb"ready")
    again.type(b"here\n")
    again.expect(rb"here\r\nhere\r\n")
    again.detach()


def test_a_killed_daemon_is_nothing_to_an_attached_terminal(fresh):
    fresh.start("it", "stty -echo; echo ready; while read x; do echo \"got $x\"; done")
    terminal = fresh.attach("it")
    for count in range(3):
        old = fresh.daemon_pid()
        os.kill(old, signal.SIGKILL)
        fresh.daemon_pid(other_than=old)
        wait_until(lambda: fresh.sessions()["it"]["clients"] == 1, "the client, again")
        terminal.type(b"after %d\n" % count)
        terminal.expect(rb"got after %d\r\n" % count)
    terminal.detach()


def test_a_client_ends_and_not_well_when_guard_and_daemon_are_gone_for_good(fresh):
    fresh.start("it", "echo ready; exec cat")
    terminal = fresh.attach("it")
    piped = fresh.popen("run", "-n", "other", "--", "sh", "-c", "echo ready; exec sleep 1000", stdout=-1)
    piped.stdout.readline()
    program = fresh.sessions()["it"]["pid"]
    pids = fresh.guard_pid(), fresh.daemon_pid()
    for number in (signal.SIGSTOP, signal.SIGKILL):     # so that neither can save the other
        for pid in pids:
            os.kill(pid, number)
    assert terminal.wait() == 125
    assert b"ptyguard: " in terminal.output
    assert not terminal.is_raw()
    wait_until(lambda: piped.poll() is not None, "the end of run")
    assert piped.returncode == 125
    wait_until(lambda: not is_alive(program), "the program's hang-up")
    assert fresh.sessions()["it"]["state"] == "lost"
    fresh.start("it", "echo ready; exec cat")       # and life goes on
