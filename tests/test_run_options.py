"""`run`'s options: hang-ups, newlines, status files, time limits, and what is left behind."""

import json
import os
import signal
import subprocess

import pytest

from world import LIMIT_S, is_alive, wait_until


def begun(pg, name):
    """The session once its program runs."""
    def find():
        return next((s for s in pg.sessions() if s.name == name and s.facts["state"] == "running"), None)
    return wait_until(find, "session " + name)


def ended(session):
    return wait_until(lambda: session.info()["state"] == "ended" and session.facts, "its end")


# -- --kill-on-hangup --------------------------------------------------------------------------


@pytest.mark.parametrize("signum", [signal.SIGHUP, signal.SIGTERM])
def test_a_run_that_is_hung_up_ends_its_session_and_has_its_status(world, pg, name, signum):
    running = world.popen("run", "--kill-on-hangup", "-n", name, "--", "sleep", "1000",
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    session = begun(pg, name)
    wait_until(lambda: session.info()["viewers"], "its client")
    running.send_signal(signum)
    running.communicate(timeout=LIMIT_S)
    assert running.returncode == 128 + signal.SIGHUP
    assert session.info()["exit"] == {"code": None, "signal": "SIGHUP"}


def test_a_run_that_is_killed_cannot_say_a_word_and_its_session_ends_all_the_same(world, pg, name):
    running = world.popen("run", "--kill-on-hangup", "-n", name, "--", "sleep", "1000")
    session = begun(pg, name)
    wait_until(lambda: session.info()["viewers"], "its client")
    running.kill()
    assert ended(session)["exit"] == {"code": None, "signal": "SIGHUP"}


def test_whoever_detaches_on_purpose_hangs_nobody_up(world, pg, name):
    terminal = world.terminal("run", "--kill-on-hangup", "-n", name, "--",
                              "sh", "-c", "echo ready; read x; exit 3")
    terminal.expect(b"ready")
    terminal.send(b"\x1c")
    assert terminal.wait() == 75
    session = pg.session(name)
    assert session.facts["state"] == "running"
    session.send(b"x", enter=True)
    assert session.wait(LIMIT_S)["code"] == 3


def test_a_daemon_that_dies_is_no_hangup(world, pg, name):
    running = world.popen("run", "--kill-on-hangup", "-n", name, "--", "sh", "-c", "read x; exit 4",
                          stdin=subprocess.PIPE)
    session = begun(pg, name)
    wait_until(lambda: session.info()["viewers"], "its client")
    world.kill_daemon()
    wait_until(lambda: session.info()["viewers"], "its client again")
    assert session.facts["state"] == "running"
    session.send(b"x", enter=True)
    assert running.wait(LIMIT_S) == 4
    running.stdin.close()


def test_without_it_a_session_outlives_its_run(world, pg, name):
    running = world.popen("run", "-n", name, "--", "sh", "-c", "read x; exit 5", stdin=subprocess.PIPE)
    session = begun(pg, name)
    wait_until(lambda: session.info()["viewers"], "its client")
    running.kill()
    wait_until(lambda: not session.info()["viewers"], "its client's end")
    assert session.facts["state"] == "running"
    session.kill()
    running.stdin.close()


# -- --lf --------------------------------------------------------------------------------------


def test_lf_takes_the_terminals_newlines_apart_and_leaves_lone_returns(world, name):
    line = r"printf 'a\nb\rc\n'; stty raw; printf 'd\r'; printf '\ne\r'"
    assert world.run("run", "--", "sh", "-c", line, check=0).stdout == b"a\r\nb\rc\r\nd\r\ne\r"
    assert world.run("run", "--lf", "--", "sh", "-c", line, check=0).stdout == b"a\nb\rc\nd\ne\r"


def test_lf_holds_for_a_big_output_as_well(world):
    done = world.run("run", "--lf", "--", "seq", "100000", check=0)
    assert done.stdout == b"".join(b"%d\n" % n for n in range(1, 100001))


# -- --status-file -----------------------------------------------------------------------------


def told(path):
    return json.loads(path.read_text())


@pytest.mark.parametrize("program, code, exit_", [
    ("exit 0", 0, {"code": 0, "signal": None}), ("exit 75", 75, {"code": 75, "signal": None}),
    ("kill -9 $$", 137, {"code": None, "signal": "SIGKILL"}),
    ("exit 137", 137, {"code": 137, "signal": None}),
])
def test_the_status_file_tells_a_code_from_what_looks_like_it(world, tmp_path, name, program, code, exit_):
    path = tmp_path / "status"
    path.write_text("of an earlier run")
    world.run("run", "-n", name, "--status-file", str(path), "--", "sh", "-c", program, check=code)
    facts = told(path)
    assert facts["exit"] == exit_ and facts["name"] == name and facts["timed_out"] is False
    assert facts["schema_version"] == 1
    assert os.listdir(tmp_path) == ["status"]


def test_the_status_file_tells_our_failures_too(world, tmp_path, name):
    path = tmp_path / "status"
    world.run("run", "--status-file", str(path), "--", "/no/such/program", check=127)
    assert told(path)["error"]["kind"] == "command_not_found"
    world.run("run", "-n", name, "--timeout", "50ms", "--status-file", str(path), "--", "sleep", "99",
              check=124)
    assert told(path)["timed_out"] is True and told(path)["exit"] is None


def test_a_run_that_was_killed_leaves_no_status_not_even_an_old_one(world, pg, tmp_path, name):
    path = tmp_path / "status"
    path.write_text("old")
    running = world.popen("run", "-n", name, "--status-file", str(path), "--", "sleep", "1000")
    begun(pg, name)
    assert not path.exists()
    running.kill()
    running.wait(LIMIT_S)
    assert not path.exists()
    pg.session(name).kill()


@pytest.mark.parametrize("where", ["missing/status", "."])
def test_a_status_file_that_cannot_be_written_starts_nothing(world, tmp_path, name, where):
    done = world.run("run", "-n", name, "--status-file", str(tmp_path / where), "--", "true", check=125)
    assert b"status file" in done.stderr and b"nothing was started" in done.stderr
    world.run("info", name, check=3)


def test_a_status_file_may_be_a_descriptor(world, name):
    done = subprocess.run(["sh", "-c", '"$@" 3>&1 >/dev/null', "sh", *world.program, "run",
                           "--status-file", "/dev/fd/3", "--", "sh", "-c", "echo out; exit 6"],
                          env=world.env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, timeout=LIMIT_S)
    assert json.loads(done.stdout)["exit"] == {"code": 6, "signal": None}


# -- orphans -----------------------------------------------------------------------------------

# A program that makes itself a daemon: own session, child of init, no terminal, no descriptor.
DAEMONISE = ("import os, sys, time\n"
             "if os.fork(): os._exit(0)\n"
             "os.setsid()\n"
             "if os.fork(): os._exit(0)\n"
             "null = os.open('/dev/null', os.O_RDWR)\n"
             "for fd in (0, 1, 2): os.dup2(null, fd)\n"
             "open(sys.argv[1] + '.draft', 'w').write(str(os.getpid()))\n"
             "os.rename(sys.argv[1] + '.draft', sys.argv[1])\n"
             "time.sleep(1000)\n")


@pytest.fixture
def daemonising(tmp_path):
    """(argv of a session whose program leaves a daemon behind, function for its pid)."""
    import sys
    script, mark = tmp_path / "daemonise.py", tmp_path / "pid"
    script.write_text(DAEMONISE)
    argv = ["sh", "-c", f"{sys.executable} -I -S {script} {mark}; echo ready; exec sleep 1000"]

    def pid():
        return int(wait_until(lambda: mark.exists() and mark.read_text(), "the daemon"))

    yield argv, pid
    if mark.exists() and is_alive(int(mark.read_text())):
        os.kill(int(mark.read_text()), signal.SIGKILL)


def test_a_kill_leaves_daemons_alone_and_with_orphans_it_does_not(world, pg, name, daemonising):
    argv, pid = daemonising
    session = pg.start(argv, name)
    session.wait_for(b"ready", LIMIT_S)
    left = pid()
    with open(f"/proc/{left}/stat") as file:
        assert file.read().rpartition(") ")[2].split()[1] != str(session.facts["pid"])
    world.run("kill", name, check=0)
    assert is_alive(left)
    world.run("restart", name, check=0)
    os.kill(left, signal.SIGKILL)
    session.wait_for(b"(?s)ready.*ready", LIMIT_S)
    left = wait_until(lambda: pid() != left and pid(), "the second daemon")
    world.run("kill", "--orphans", name, check=0)
    wait_until(lambda: not is_alive(left), "the daemon's end")


def test_a_run_whose_time_is_over_leaves_nothing_behind(world, pg, name, daemonising):
    argv, pid = daemonising
    running = world.popen("run", "--timeout", "5s", "-n", name, "--", *argv, stderr=subprocess.PIPE)
    left = pid()
    assert running.wait(LIMIT_S) == 124
    wait_until(lambda: not is_alive(left), "the daemon's end")


def test_orphans_of_other_sessions_are_spared(world, pg, name, daemonising):
    argv, pid = daemonising
    session = pg.start(argv, name)
    left = pid()
    other = pg.start(["sleep", "1000"], name[-40:] + ".other")
    world.run("kill", "--orphans", other.name, check=0)
    assert is_alive(left) and session.info()["state"] == "running"
    session.kill()


# -- -N of dtach -------------------------------------------------------------------------------


def test_dtachs_n_stays_to_the_end_without_being_a_client(world, pg, name):
    staying = world.popen("-N", name, "sh", "-c", "echo out; read x; exit 9", stdout=subprocess.PIPE)
    session = begun(pg, name)
    session.wait_for(b"out", LIMIT_S)
    assert not [each for each in session.info()["viewers"] if each["interactive"]]
    session.send(b"x", enter=True)
    out, _ = staying.communicate(timeout=LIMIT_S)
    assert staying.returncode == 9 and out == b""


# -- what a hostile user found -----------------------------------------------------------------


def test_detaching_on_purpose_hangs_nobody_up_while_the_program_does_not_read(world, pg, name):
    terminal = world.terminal("run", "--kill-on-hangup", "-n", name, "--",
                              "sh", "-c", "stty raw -echo; echo ready; exec sleep 1000")
    terminal.expect(b"ready")
    session = pg.session(name)
    session.wait_for(b"ready", LIMIT_S)
    terminal.fill_queue(session)
    terminal.send(b"\x1c")
    assert terminal.wait() == 75
    assert session.info()["state"] == "running"
    assert "killed_for_hangup session=" + session.id not in world.log()
    session.kill()


def test_a_run_that_is_killed_leaves_nothing_when_it_was_to_remove_it(world, pg, name):
    running = world.popen("run", "--kill-on-hangup", "--rm", "-n", name, "--", "sleep", "1000")
    session = begun(pg, name)
    wait_until(lambda: session.info()["viewers"], "its client")
    running.kill()
    wait_until(lambda: world.run("info", name).returncode == 3, "its being forgotten")


def test_a_fifo_that_nobody_reads_is_no_place_for_a_status(world, tmp_path, name):
    os.mkfifo(tmp_path / "fifo")
    done = world.run("run", "-n", name, "--status-file", str(tmp_path / "fifo"), "--", "true", check=125)
    assert b"nothing was started" in done.stderr
    world.run("info", name, check=3)


def test_a_status_that_cannot_be_written_is_told_with_the_commands_own(world):
    if not os.path.exists("/dev/full"):
        pytest.skip("no /dev/full here")
    done = world.run("run", "--status-file", "/dev/full", "--", "sh", "-c", "exit 3", check=125)
    assert b"exit 3" in done.stderr and b"status file" in done.stderr
    done = world.run("run", "--status-file", "/dev/full", "--", "/no/such", check=127)
    assert done.stderr.startswith(b"ptyguard: command not found") and b"status file" in done.stderr


def test_standard_output_may_be_the_status_file_and_stays_what_it_is(world, tmp_path):
    """/dev/stdout is a link; with a file behind it, it used to be replaced by a file."""
    path = tmp_path / "out"
    with open(path, "wb") as output:
        world.run("run", "--status-file", "/dev/stdout", "--", "sh", "-c", "echo out; exit 5",
                  stdout=output, check=5)
    first, second = path.read_text().splitlines()
    assert first == "out" and json.loads(second)["exit"]["code"] == 5
    assert os.path.islink("/dev/stdout")


def test_a_status_file_that_is_a_link_stays_one(world, tmp_path):
    link, target = tmp_path / "link", tmp_path / "target"
    link.symlink_to(target)
    world.run("run", "--status-file", str(link), "--", "sh", "-c", "exit 4", check=4)
    assert link.is_symlink() and told(target)["exit"]["code"] == 4


def test_attach_create_without_a_terminal_starts_nothing(world, name):
    world.run("attach", name, "--create", "--", "sleep", "1000", check=125)
    world.run("info", name, check=3)


def test_run_detached_fails_as_start_does(world):
    assert world.run("run", "-d", "-n", "a/b", "--", "true").returncode == 2
    assert world.run("run", "-d", "--cwd", "/no/such", "--", "true").returncode == \
        world.run("start", "--cwd", "/no/such", "--", "true").returncode
