"""Who calls, from where and as what: scripts, cron, other users, places that are gone."""

import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile

import pytest

from outside import Ptyguard, wait_until

PROGRAM = "echo ready; while read x; do echo \"got $x\"; done"


# -- from a script's background --------------------------------------------------------------------


@pytest.mark.parametrize("line", [
    'ptyguard start -n it -- sh & wait $!',
    'nohup ptyguard start -n it -- sh >/dev/null 2>&1',
    'nohup ptyguard start -n it -- sh >/dev/null 2>&1 & wait $!',
    'trap "" INT QUIT HUP TERM PIPE TSTP TTIN TTOU; ptyguard start -n it -- sh',
])
def test_keys_and_hang_ups_work_in_what_a_script_has_started(fresh, line):
    # Such a script's programs are born ignoring the interrupt, or the hang-up; ours are not.
    fresh.sh(line, code=0)
    terminal = fresh.attach("it")
    terminal.type(b"grep SigIgn /proc/self/status\n")
    assert int(terminal.expect(rb"SigIgn:\s+([0-9a-f]+)\r\n").group(1), 16) == 0
    terminal.type(b"sleep 1000\n")
    wait_until(lambda: fresh.json("info", "it")["foreground"]["command"] == "sleep", "sleep in front")
    terminal.type(b"\x03")
    terminal.type(b"echo status $?\n")
    terminal.expect(rb"status 130\r\n")
    terminal.type(b"sh -c 'kill -HUP $$'; echo status $?\n")
    terminal.expect(rb"status 129\r\n")
    terminal.detach()


def test_run_in_a_scripts_background_stays_to_the_end(pg):
    line = "ptyguard run -- sh -c 'echo out; exit 19' & wait $!"
    done = pg.sh(line, code=19)
    assert done.stdout == b"out\r\n"
    done = pg.sh("nohup ptyguard run -- sh -c 'echo out; exit 19'", code=19)
    assert b"out\r\n" in done.stdout


def test_the_archive_alone_is_a_command(pg, tmp_path):
    # Whatever python3 there is: here, the one that runs the tests.
    (tmp_path / "python3").write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    (tmp_path / "python3").chmod(0o755)
    env = dict(pg.env, PATH=f"{tmp_path}{os.pathsep}{pg.env['PATH']}")
    done = pg.run("run", "--", "sh", "-c", "echo hello", argv=[pg.archive], env=env, code=0)
    assert done.stdout == b"hello\r\n"


# -- from an empty environment, and from anywhere --------------------------------------------------


def test_an_empty_environment_is_enough(fresh):
    bare = 'exec env -i PTYGUARD_DIR="$PTYGUARD_DIR" "$(command -v ptyguard)" "$@"'
    done = fresh.sh(bare, "run", "--", "/bin/sh", "-c", "echo $TERM; stty size", code=0)     # a cold start, too
    assert done.stdout == b"xterm-256color\r\n24 80\r\n"
    fresh.start("it", PROGRAM)                          # what one starts the other finds
    assert fresh.sh(bare, "ls", "-q", code=0).stdout.splitlines()[-1] == b"it"
    fresh.sh(bare, "send", "it", "--enter", "hello", code=0)
    fresh.sh(bare, "wait", "it", "--for", "got hello", code=0)
    nothing = {"PTYGUARD_DIR": fresh.directory}
    terminal = fresh.attach("it", env=nothing)
    terminal.type(b"typed\n")
    terminal.expect(rb"got typed\r\n")
    terminal.detach()


def test_a_session_begins_where_its_caller_is_and_is_found_from_everywhere(pg, name, tmp_path):
    here, there = tmp_path / "here", tmp_path / "there"
    here.mkdir()
    there.mkdir()
    done = pg.run("run", "-n", name, "--", "sh", "-c", "pwd", cwd=here, code=0)
    assert done.stdout.decode().rstrip() == str(here)
    pg.run("wait", name, cwd=there, code=0)
    pg.run("run", "--", "sh", "-c", "test -d ../there", cwd=here, code=0)
    done = pg.run("run", "--cwd", "../there", "--", "pwd", cwd=here, code=0)
    assert done.stdout.decode().rstrip() == str(there)


def test_the_guard_is_in_nobodys_way(fresh, tmp_path):
    place = tmp_path / "mounted"
    place.mkdir()
    fresh.run("start", "-n", "it", "--cwd", "/", "--", "cat", cwd=place, code=0)
    for pid in (fresh.guard_pid(), fresh.daemon_pid()):
        assert os.readlink(f"/proc/{pid}/cwd") == "/"
    place.rmdir()


def test_a_directory_that_is_gone_is_good_enough_to_look_and_attach_from(pg, name, tmp_path):
    pg.start(name, PROGRAM)
    gone = f'mkdir "{tmp_path}/gone" && cd "{tmp_path}/gone" && rmdir "{tmp_path}/gone" && '
    for words, code in (("ls", 0), (f"info {name}", 0), (f"send {name} --enter x", 0),
                        (f"wait {name} --for 'got x'", 0), (f"log {name}", 0), (f"has {name}", 0),
                        ("status", 0), ("start --cwd / -- true", 0), ("run --cwd / -- sh -c 'exit 3'", 3)):
        pg.sh(gone + f"ptyguard {words}", code=code)
    terminal = pg.terminal("-c", gone + f"exec ptyguard attach {name}", argv=["sh"])
    terminal.wait_until_raw()
    terminal.type(b"from nowhere\n")
    terminal.expect(rb"got from nowhere\r\n")
    terminal.detach()
    done = pg.sh(gone + "ptyguard start -- true", code=1)
    assert b"the current directory does not exist any more" in done.stderr and b"--cwd" in done.stderr


def test_a_relative_directory_is_the_same_one(pg, name):
    pg.run("start", "-n", name, "--", "cat", code=0)
    done = pg.run("ls", "-q", env=dict(pg.env, PTYGUARD_DIR="d/../d/"), cwd=pg.above, code=0)
    assert name.encode() in done.stdout
    done = pg.run("--dir", "d", "ls", "-q", env={"PATH": os.defpath}, cwd=pg.above, code=0)
    assert name.encode() in done.stdout


# -- with many files open --------------------------------------------------------------------------


# Opens what its program then inherits, and runs it.
WITH_MANY_OPEN = """
import os, resource, sys
hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (2048, hard))
null = os.open(os.devnull, os.O_RDONLY)
for fd in range(null + 1, 1200):
    os.dup2(null, fd)
os.execv(sys.argv[1], sys.argv[1:])
"""


@pytest.mark.skipif(0 < resource.getrlimit(resource.RLIMIT_NOFILE)[1] < 2048,
                    reason="fewer than 2048 descriptors are allowed here")
def test_a_caller_with_more_than_1024_open_descriptors_is_served_and_passes_none_on(fresh):
    loaded = [sys.executable, "-c", WITH_MANY_OPEN] + fresh.argv
    line = "ls /proc/self/fd | wc -l; ulimit -n"
    done = fresh.run("run", "--", "sh", "-c", line, argv=loaded, code=0)
    assert done.stdout.split() == [b"4", b"2048"]       # ls has one for the directory
    for pid in (fresh.guard_pid(), fresh.daemon_pid()):
        assert len(os.listdir(f"/proc/{pid}/fd")) < 64
    fresh.run("start", "-n", "it", "--", "sh", "-c", PROGRAM, argv=loaded, code=0)
    terminal = fresh.terminal("attach", "it", argv=loaded)
    terminal.wait_until_raw()
    assert len(os.listdir(f"/proc/{terminal.process.pid}/fd")) > 1024
    terminal.type(b"typed\n")
    terminal.expect(rb"got typed\r\n")
    terminal.resize(90, 20)
    wait_until(lambda: fresh.sessions()["it"]["size"] == {"cols": 90, "rows": 20}, "the new size")
    old = fresh.daemon_pid()
    os.kill(old, signal.SIGKILL)
    fresh.daemon_pid(other_than=old)
    terminal.type(b"again\n")
    terminal.expect(rb"got again\r\n")
    terminal.detach()


# -- as somebody else ------------------------------------------------------------------------------


def interpreter_for(become):
    """A Python that this user may run, or a skip."""
    said = b""
    for python in (sys.executable, "/usr/bin/python3", "/usr/local/bin/python3"):
        done = subprocess.run(become + [python, "-I", "-c", "import sys; sys.exit(sys.version_info < (3, 8))"],
                              stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, cwd="/")
        if done.returncode == 0:
            return python
        said = done.stderr
    pytest.skip(f"{become[0]}: no Python for that user, or no such change: {said.decode().strip()[-200:]}")


def become(how, uid):
    """Words that run a command as that user."""
    if os.getuid() != 0:
        pytest.skip("not root: all of this suite has run as an ordinary user already")
    if not shutil.which(how):
        pytest.skip(f"{how} is not installed")
    if how == "su":
        return ["su", "nobody", "-s", "/bin/sh", "-c", 'exec "$0" "$@"', "--"]
    return ["setpriv", f"--reuid={uid}", f"--regid={uid}", "--clear-groups", "--"]


def works_as_usual(pg):
    """Start, ls, attach, run."""
    pg.run("start", "-n", "it", "--", "sh", "-c", PROGRAM, cwd="/", code=0)
    assert pg.run("ls", "-q", cwd="/", code=0).stdout == b"it\n"
    terminal = pg.attach("it", cwd="/")
    terminal.type(b"typed\n")
    terminal.expect(rb"got typed\r\n")
    terminal.detach()
    done = pg.run("run", "--", "sh", "-c", "id -u; exit 19", cwd="/", code=19)
    return int(done.stdout)


@pytest.fixture
def of_nobody():
    """A directory that an ordinary user owns."""
    pwd = pytest.importorskip("pwd")
    try:
        uid = pwd.getpwnam("nobody").pw_uid
    except KeyError:
        pytest.skip("there is no user nobody")
    with tempfile.TemporaryDirectory(prefix="pgbb-home-", dir="/tmp") as above:
        if os.getuid() == 0:
            os.chown(above, uid, uid)
        yield above, uid


@pytest.mark.parametrize("how", ["setpriv", "su"])
def test_an_ordinary_user_has_sessions_of_its_own(archive, of_nobody, how):
    home, uid = of_nobody
    prefix = become(how, uid)
    argv = prefix + [interpreter_for(prefix), archive]
    with Ptyguard(archive, argv=argv, directory=os.path.join(home, ".ptyguard"), HOME=home) as pg:
        assert works_as_usual(pg) == uid
        assert os.stat(pg.directory).st_uid == uid and os.stat(pg.directory).st_mode & 0o777 == 0o700
        # Root is somebody else, too: it is refused, and touches nothing.
        done = pg.run("ls", argv=[sys.executable, archive])
        assert done.returncode != 0 and b"belongs to uid %d" % uid in done.stderr
        assert pg.run("ls", "-q", cwd="/", code=0).stdout.startswith(b"it\n")


def test_a_user_without_a_home_or_an_entry_has_them_in_tmp(archive):
    uid = 60000 + os.getpid() % 5000
    prefix = become("setpriv", uid)
    argv = prefix + [interpreter_for(prefix), archive]
    directory = f"/tmp/ptyguard-{uid}"
    if os.path.lexists(directory):
        pytest.skip(f"{directory} exists already")
    with Ptyguard(archive, argv=argv, directory=directory) as pg:
        del pg.env["PTYGUARD_DIR"]
        pg.env.pop("HOME", None)
        try:
            assert works_as_usual(pg) == uid
            assert os.stat(directory).st_uid == uid and os.stat(directory).st_mode & 0o777 == 0o700
        finally:
            pg.run("daemon", "stop", "--sessions", "kill", "--force", cwd="/")
            shutil.rmtree(directory, ignore_errors=True)
