"""What sessions outlive: daemons, guards, replaced archives, removed directories, slow shells."""

import os
import shutil
import signal
import sys

import pytest

from outside import Ptyguard, is_alive, wait_until

ANSWERING = "stty -echo; echo ready; while read x; do echo \"got $x\"; done"


def answers(terminal, word):
    """The program behind this terminal does."""
    terminal.type(word.encode() + b"\n")
    terminal.expect(rb"got %s\r\n" % word.encode())


def kill_both(pg):
    """Guard and daemon at once, so that neither can save the other."""
    pids = pg.guard_pid(), pg.daemon_pid()
    for number in (signal.SIGSTOP, signal.SIGKILL):
        for pid in pids:
            os.kill(pid, number)


# -- beginning and stopping ------------------------------------------------------------------------


def test_asking_for_the_status_starts_nothing(fresh):
    assert b"stopped" in fresh.run("status", code=1).stdout
    fresh.run("--no-start", "ls")
    assert fresh.json("status")["daemon"] is None or fresh.json("status")["daemon"]["pid"] is None
    assert fresh.run("daemon", "stop", code=0)


def test_callers_at_once_make_one_guard_one_daemon_and_one_session(fresh):
    callers = [fresh.popen("ensure", "it", "--", "sleep", "1000", stdout=-1) for _ in range(10)]
    for caller in callers:
        assert caller.communicate()[0] == b"it\n" and caller.returncode == 0
    assert list(fresh.sessions("-a")) == ["it"]
    assert len(fresh.pids()) == 3                   # guard, daemon, sleep


def test_stop_wants_to_know_what_becomes_of_the_living(fresh):
    fresh.start("it", ANSWERING)
    guard, daemon, program = fresh.guard_pid(), fresh.daemon_pid(), fresh.sessions()["it"]["pid"]
    fresh.run("daemon", "stop", code=4)
    assert is_alive(guard) and is_alive(daemon) and is_alive(program)
    fresh.run("daemon", "stop", "--sessions", "keep", code=0)
    assert is_alive(guard) and not is_alive(daemon) and is_alive(program)
    terminal = fresh.attach("it")                   # who comes next starts one
    answers(terminal, "back")
    terminal.detach()
    fresh.run("daemon", "stop", "--sessions", "kill", code=0)
    assert not is_alive(guard) and not is_alive(program)
    assert fresh.pids() == []


@pytest.mark.parametrize("verb", ["attach", "run"])
def test_a_client_that_is_slow_to_hear_of_a_stop_starts_nothing_and_leaves_a_usable_terminal(fresh, verb):
    program = ["sh", "-c", "printf 'ready\\033[?1049h\\033[?1000h'; exec cat"]
    fresh.run("start", "-n", "it", "--", *program, code=0)
    terminal = fresh.terminal(verb, *(["it"] if verb == "attach" else ["-n", "it", "--"] + program))
    terminal.expect(rb"\x1b\[\?1000h")
    terminal.process.send_signal(signal.SIGSTOP)
    fresh.run("daemon", "stop", "--sessions", "kill", code=0)
    terminal.process.send_signal(signal.SIGCONT)
    assert terminal.wait() == 128 + 1
    assert fresh.pids() == []
    assert b"\x1b[?1000l" in terminal.output and b"\x1b[?1049l" in terminal.output


def test_a_terminal_is_left_usable_when_guard_and_daemon_are_gone(fresh):
    fresh.start("it", "printf 'ready\\033[?1049h\\033[?1000h'; exec cat")
    terminal = fresh.attach("it")
    terminal.expect(rb"\x1b\[\?1000h")
    kill_both(fresh)
    assert terminal.wait() == 125
    assert b"\x1b[?1000l" in terminal.output and b"\x1b[?1049l" in terminal.output


def test_the_readmes_first_minute(fresh):
    count = "for i in $(seq 12); do echo \"line $i\"; sleep 0.1; done; exit 3"
    assert fresh.run("start", "-n", "count", "--", "sh", "-c", count, code=0).stdout == b"count\n"
    terminal = fresh.attach("count")
    terminal.expect(rb"line 1.*line 2")
    terminal.detach()
    old = fresh.daemon_pid()
    os.kill(old, signal.SIGKILL)
    fresh.run("wait", "count", code=3)
    assert fresh.daemon_pid(other_than=old)
    assert fresh.run("status", code=0).stdout.startswith(b"daemon:     running, pid ")
    assert len(fresh.run("log", "count", code=0).stdout.splitlines()) == 12
    fresh.run("start", "-n", "calc", "--", sys.executable, "-q", code=0)
    fresh.run("send", "calc", "--enter", "6 * 7", code=0)
    fresh.run("wait", "calc", "--for", "(?m)^42", code=0)
    fresh.run("send", "calc", "--enter", "import os; os._exit(4)", code=0)
    fresh.run("wait", "calc", code=4)


# -- what survives what ----------------------------------------------------------------------------


def test_a_killed_daemon_costs_no_program_no_output_and_no_status(fresh):
    fresh.start("it", ANSWERING + "; exit 19")
    pid = fresh.sessions()["it"]["pid"]
    for count in range(3):
        os.kill(fresh.daemon_pid(), signal.SIGKILL)
        fresh.run("send", "it", "--enter", f"{count}", code=0)
    fresh.run("send", "it", "\x04", code=0)
    fresh.run("wait", "it", code=19)
    assert fresh.sessions()["it"]["pid"] == pid
    assert fresh.log("it") == b"ready\r\ngot 0\r\ngot 1\r\ngot 2\r\n"


def test_a_killed_guard_costs_no_program_and_no_output(fresh):
    fresh.start("it", ANSWERING)
    terminal = fresh.attach("it")
    old, daemon = fresh.guard_pid(), fresh.daemon_pid()
    os.kill(old, signal.SIGKILL)
    answers(terminal, "orphan")

    def other():
        guard = fresh.json("status")["guard"]
        return guard and guard["pid"] not in (None, old)
    wait_until(other, "another guard")
    answers(terminal, "adopted")
    os.kill(daemon, signal.SIGKILL)                 # and the new guard holds everything by now
    fresh.daemon_pid(other_than=daemon)
    answers(terminal, "again")
    terminal.detach()
    assert fresh.log("it") == b"ready\r\ngot orphan\r\ngot adopted\r\ngot again\r\n"


def test_with_both_killed_programs_are_hung_up_and_what_had_ended_is_still_known(fresh):
    fresh.start("it", ANSWERING)
    fresh.run("run", "-n", "over", "--", "sh", "-c", "exit 19", code=19)
    program = fresh.sessions()["it"]["pid"]
    kill_both(fresh)
    wait_until(lambda: not is_alive(program), "the hang-up")
    assert fresh.sessions()["it"]["state"] == "lost"
    fresh.run("wait", "over", code=19)
    fresh.run("start", "-n", "it", "--", "cat", code=0)
    assert fresh.sessions()["it"]["state"] == "running"


# -- slow shells -----------------------------------------------------------------------------------


def test_a_shell_that_is_slow_to_start_keeps_nobody_waiting(pg, name, tmp_path):
    # Its start-up file waits for us, however long that takes.
    os.mkfifo(tmp_path / "gate")
    (tmp_path / ".profile").write_text(f"echo begun; cat '{tmp_path}/gate'; PS1='prompt> '\n")
    pg.run("start", "-n", name, "--env", f"HOME={tmp_path}", "--unset", "ENV", "--", "sh", "-l", "-i", code=0)
    pg.run("wait", name, "--for", "begun", code=0)
    assert name in pg.run("ls", "-q", code=0).stdout.decode().split()
    pg.run("send", name, "--enter", "echo $((6 * 7))", code=0)
    pg.run("start", "-n", name + "2", "--", "cat", code=0)
    terminal = pg.attach(name)
    assert pg.sessions()[name]["clients"] == 1
    assert b"prompt>" not in pg.log(name)
    (tmp_path / "gate").write_bytes(b"")
    terminal.expect(rb"prompt> .*42\r\n")           # what was typed meanwhile has been kept
    terminal.detach()


# -- the archive is replaced -----------------------------------------------------------------------


def overwrite(path, data):
    """What cp does."""
    with open(path, "r+b") as file:
        file.truncate()
        file.write(data)


def rename_over(path, data):
    """What mv does."""
    with open(path + ".new", "wb") as file:
        file.write(data)
    os.chmod(path + ".new", 0o755)
    os.rename(path + ".new", path)


JUNK = os.urandom(1 << 20)


@pytest.fixture
def own_copy(archive):
    """A copy of the archive that may be spoilt, as `path`, and its bytes."""
    with open(archive, "rb") as file:
        data = file.read()
    with Ptyguard(archive) as pg:
        pg.path = os.path.join(pg.above, "copy.pyz")
        rename_over(pg.path, data)
        pg.good = data
        pg.copied = [sys.executable, pg.path]
        yield pg


@pytest.mark.parametrize("what", ["junk", "another build"])
def test_an_archive_that_is_renamed_over_is_nothing_to_guard_daemon_and_clients(own_copy, what):
    pg = own_copy
    pg.run("start", "-n", "it", "--", "sh", "-c", ANSWERING, argv=pg.copied, code=0)
    terminal = pg.attach("it", argv=pg.copied)
    piped = pg.popen("run", "-n", "other", "--", "sh", "-c", ANSWERING + "; exit 19", argv=pg.copied,
                     stdin=-1, stdout=-1)
    assert piped.stdout.readline() == b"ready\r\n"
    rename_over(pg.path, JUNK if what == "junk" else b"#!/bin/sh\n" + pg.good)
    answers(terminal, "one")
    old = pg.daemon_pid()
    os.kill(old, signal.SIGKILL)                    # the next one begins without that file
    pg.daemon_pid(other_than=old)
    answers(terminal, "two")
    terminal.resize(90, 20)
    wait_until(lambda: pg.sessions()["it"]["size"] == {"cols": 90, "rows": 20}, "the new size")
    terminal.detach()
    output, _ = piped.communicate(b"three\n")
    assert (output, piped.returncode) == (b"got three\r\n", 19)
    again = pg.attach("it")
    answers(again, "four")
    again.detach()


@pytest.mark.parametrize("what", ["junk", "another build", "nothing"])
def test_an_archive_that_is_written_over_or_removed_is_nothing_to_the_sessions(own_copy, what):
    pg = own_copy
    pg.run("start", "-n", "it", "--", "sh", "-c", ANSWERING, argv=pg.copied, code=0)
    program, guard = pg.sessions()["it"]["pid"], pg.guard_pid()
    terminal = pg.attach("it", argv=pg.copied)
    if what == "nothing":
        os.unlink(pg.path)
    else:
        overwrite(pg.path, JUNK if what == "junk" else b"#!/bin/sh\n" + pg.good)
    answers(terminal, "one")
    old = pg.daemon_pid()
    os.kill(old, signal.SIGKILL)
    pg.daemon_pid(other_than=old)
    answers(terminal, "two")
    terminal.detach()
    again = pg.attach("it")                         # with an archive as it should be
    answers(again, "three")
    pg.run("daemon", "restart", code=0)
    answers(again, "four")
    again.detach()
    assert (pg.sessions()["it"]["pid"], pg.guard_pid()) == (program, guard)


# -- the directory is removed ----------------------------------------------------------------------


def state_directory(pg):
    return pg.json("status")["dir"]


def test_sockets_that_somebody_removed_come_back_with_the_next_call(fresh):
    fresh.start("it", ANSWERING)
    terminal = fresh.attach("it")
    guard, program = fresh.guard_pid(), fresh.sessions()["it"]["pid"]
    state = state_directory(fresh)
    for file in ("client.sock", "guard.sock"):
        os.unlink(os.path.join(state, file))
    assert fresh.sessions()["it"]["pid"] == program
    answers(terminal, "here")
    fresh.run("start", "-n", "other", "--", "cat", code=0)
    assert set(fresh.sessions()) == {"it", "other"} and fresh.guard_pid() == guard
    terminal.detach()
    # Records and logs may go as well, and a daemon that dies then is nothing, either.
    shutil.rmtree(os.path.join(state, "sessions"))
    for file in ("client.sock", "guard.sock", "daemon.log", "guard.log"):
        os.unlink(os.path.join(state, file))
    os.kill(fresh.sessions() and fresh.daemon_pid(), signal.SIGKILL)
    assert set(fresh.sessions()) == {"it", "other"} and fresh.guard_pid() == guard
    fresh.run("kill", "it", "other", code=0)


def test_a_directory_that_is_removed_below_a_guard_costs_no_program_and_no_attached_terminal(fresh):
    fresh.start("it", ANSWERING)
    terminal = fresh.attach("it")
    guard, program = fresh.guard_pid(), fresh.sessions()["it"]["pid"]
    shutil.rmtree(fresh.directory)
    answers(terminal, "one")
    terminal.resize(90, 20)
    # As a user of dtach would: it makes its sockets again, and the directories for them.
    os.kill(guard, signal.SIGUSR1)
    wait_until(lambda: os.path.isdir(fresh.directory) and fresh.run("--no-start", "ls").returncode == 0,
               "the sockets")
    assert fresh.guard_pid() == guard and fresh.sessions()["it"]["pid"] == program
    again = fresh.attach("it")
    answers(again, "two")
    terminal.expect(rb"got two\r\n")
    again.detach()
    terminal.detach()


def test_a_second_guard_in_a_removed_directory_takes_nothing_from_the_first(fresh):
    fresh.start("it", ANSWERING)
    terminal = fresh.attach("it")
    guard, program = fresh.guard_pid(), fresh.sessions()["it"]["pid"]
    shutil.rmtree(fresh.directory)
    fresh.start("other", ANSWERING)                 # knows nothing of the first
    assert fresh.guard_pid() != guard
    answers(terminal, "one")
    os.kill(guard, signal.SIGUSR1)                  # nor does the first take anything back
    answers(terminal, "two")
    assert list(fresh.sessions("-a")) == ["other"]
    fresh.run("kill", "--all", code=0)
    assert is_alive(program) and is_alive(guard)
    terminal.detach()
