"""Supervise: the way to a daemon, and what guard and daemon are started as."""

import fcntl
import importlib.util
import os
import signal
import subprocess
import sys
import zipfile

import pytest

import ptyguard
import ptyguard_posix as backend
from ptyguard_core import copies, packing, supervise
from ptyguard_core.copies import make_copy, read_sources
from world import MEMORY, ROOT, World, is_alive, voluntary_switches, wait_until

OWN_FOLDER = packing.folder_of(sys.implementation.cache_tag, importlib.util.MAGIC_NUMBER)

# -- the private copy -------------------------------------------------------------------------


def test_the_copy_is_named_by_its_content_made_once_and_private():
    with World(under=MEMORY) as world:
        paths = world.paths
        copy = make_copy(backend, paths)
        before = os.stat(copy)
        assert os.path.dirname(copy) == paths.copies
        assert before.st_mode & 0o777 == 0o600
        assert os.stat(paths.copies).st_mode & 0o777 == 0o700
        assert make_copy(backend, paths) == copy
        assert os.stat(copy).st_ino == before.st_ino        # not rewritten; its time is that of its use
        assert os.stat(copy).st_mtime_ns > before.st_mtime_ns
        assert os.listdir(paths.copies) == [os.path.basename(copy)]     # no draft is left
    with World(under=MEMORY) as world:
        assert os.path.basename(make_copy(backend, world.paths)) == os.path.basename(copy)


def test_the_copy_is_named_otherwise_when_one_byte_differs(monkeypatch):
    sources = read_sources()
    with World(under=MEMORY) as world:
        copy = make_copy(backend, world.paths)
        monkeypatch.setattr(copies, "read_sources", lambda: dict(
            sources, **{"ptyguard.py": sources["ptyguard.py"] + b"\n"}))
        assert make_copy(backend, world.paths) != copy


def test_the_copy_holds_our_modules_with_byte_code_and_runs():
    with World(under=MEMORY) as world:
        copy = make_copy(backend, world.paths)
        with zipfile.ZipFile(copy) as archive:
            names = set(archive.namelist())
            assert archive.read("ptyguard.py") == read_sources()["ptyguard.py"]
        assert {"__main__.py", "ptyguard.py", "ptyguard_core/guard.py"} <= names
        assert {"__main__.pyc", "ptyguard_core/__init__.pyc", f"{OWN_FOLDER}/code", f"{OWN_FOLDER}/index"} <= names
        said = subprocess.run([sys.executable, "-I", "-S", copy, "--version"], env={}, cwd="/",
                              stdout=subprocess.PIPE, check=True).stdout
        assert said.decode().split() == ["ptyguard", ptyguard.__version__]


def test_a_copy_of_an_archive_is_the_copy_of_its_sources(tmp_path):
    archive = tmp_path / "ptyguard.pyz"
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("__main__.py", "from ptyguard import main\nimport sys\nsys.exit(main(sys.argv[1:]))")
        for name, data in read_sources().items():
            file.writestr(name, data)
    with World(under=MEMORY, program=[sys.executable, str(archive)]) as world:
        world.run("ls", check=0)
        assert os.listdir(world.paths.copies) == [os.path.basename(make_copy(backend, world.paths))]


def test_overwriting_the_archive_that_started_it_breaks_nothing(tmp_path):
    archive = tmp_path / "ptyguard.pyz"
    subprocess.run(["sh", os.path.join(ROOT, "zipapp.sh"), str(archive)], check=True,
                   env=dict(os.environ, PYTHON=sys.executable, PYTHONS=""), stdout=subprocess.DEVNULL)
    with World(under=MEMORY) as world:
        started = subprocess.run([sys.executable, str(archive), "start", "--", "cat"],
                                 env=world.env, stdout=subprocess.PIPE, check=True)
        name = started.stdout.decode().strip()
        guard = world.guard_pid()
        with open(archive, "r+b") as file:          # in place, as `cp` does it
            file.write(b"\0" * os.path.getsize(archive))
        world.run("run", "--", "/no/such/program", check=127)
        world.new_daemon_pid(world.kill_daemon())   # its successor runs from the copy, too
        world.run("send", name, "--enter", "hello", check=0)
        world.run("wait", name, "--for", "hello", "--timeout", "60", check=0)
        assert world.guard_pid() == guard


# -- what they are started as -----------------------------------------------------------------


def read_of(pid, name):
    """That file of /proc/PID, as bytes."""
    with open(f"/proc/{pid}/{name}", "rb") as file:
        return file.read()


def descriptors_of(pid):
    """{number: what it is} of that process."""
    found = {}
    for name in os.listdir(f"/proc/{pid}/fd"):
        try:
            found[int(name)] = os.readlink(f"/proc/{pid}/fd/{name}")
        except FileNotFoundError:
            pass
    return found


def test_guard_and_daemon_are_detached_for_good_and_carry_nothing_of_their_starter():
    with World(under=MEMORY, SECRET="of the starter", LANG="C.UTF-8") as world:
        inherited = os.open(os.path.join(world.directory, "of the starter"), os.O_CREAT | os.O_RDWR)
        # A directory that is to be unmounted, an umask, a nice value, ignored signals.
        script = 'cd "$1"; shift; umask 0; trap "" INT QUIT HUP; exec nice -n 3 "$@"'
        subprocess.run(["sh", "-c", script, "sh", world.directory, *world.program, "start",
                        "-n", "s", "--", "sleep", "1000"], env=world.env, check=True,
                       pass_fds=[inherited], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        os.close(inherited)
        for pid, log in ((world.guard_pid(), "guard.log"), (world.daemon_pid(), "daemon.log")):
            environment = read_of(pid, "environ").split(b"\0")[:-1]
            assert {item.partition(b"=")[0] for item in environment} == {b"HOME", b"PATH", b"LANG"}
            assert os.readlink(f"/proc/{pid}/cwd") == "/"
            found = descriptors_of(pid)
            assert found[0] == "/dev/null"
            assert found[1] == found[2] == os.path.join(world.state, log)
            assert not any("of the starter" in target for target in found.values())
            row = backend._read_process(pid)
            assert row.terminal == 0
            assert row.session != os.getsid(0)
            status = dict(line.split(b":\t", 1) for line in read_of(pid, "status").splitlines()
                          if b":\t" in line)
            assert status[b"Umask"] == b"0077"
            assert int(status[b"SigBlk"], 16) == 0
            argv = read_of(pid, "cmdline").split(b"\0")
            assert argv[1:3] == [b"-I", b"-S"]
            assert argv[3].startswith(os.fsencode(world.paths.copies))
        assert backend._read_process(world.guard_pid()).session != world.guard_pid(), \
            "a session's leader could get a controlling terminal"
        session = world.json("info", "s")
        assert session["cwd"] == world.directory
        status = read_of(session["pid"], "status")
        assert b"Umask:\t0000" in status
        # What was ignored by who started it is the program's own again.
        assert int(status.split(b"SigIgn:\t")[1].split()[0], 16) == 0
        assert b"SECRET=of the starter" in read_of(session["pid"], "environ")


def test_a_command_substitution_and_a_lock_around_a_start_end_at_once():
    with World(under=MEMORY) as world:
        lock = os.path.join(world.directory, "lock")
        script = ('x=$("$@" start -n one -- sleep 1000) || exit; echo "$x"; '
                  'exec 9>"$0"; flock 9; "$@" start -n two -- sleep 1000')
        done = subprocess.run(["sh", "-c", script, lock, *world.program], env=world.env,
                              stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, check=True,
                              timeout=60)      # the pipe's end is not held by anybody
        assert done.stdout == b"one\ntwo\n"
        with open(lock) as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)    # neither is the lock
        assert all(is_alive(s["pid"]) for s in world.json("ls")["sessions"])


def test_ctrl_c_and_a_hang_up_of_the_launcher_do_not_reach_what_it_launched():
    with World(under=MEMORY) as world:
        terminal = world.terminal("run", "-n", "s", "--", "sleep", "1000")
        guard, daemon = world.guard_pid(), world.daemon_pid()
        wait_until(lambda: world.json("ls")["sessions"], "the session")
        os.killpg(terminal.process.pid, signal.SIGINT)
        terminal.close()
        assert terminal.process.wait(60) is not None
        assert (world.guard_pid(), world.daemon_pid()) == (guard, daemon)
        assert world.json("ls")["sessions"][0]["state"] in ("running", "ended")


# -- the way to one ---------------------------------------------------------------------------


def test_fifty_first_commands_at_once_from_an_empty_environment_make_one_of_each():
    with World(under=MEMORY) as world:
        empty = {"PTYGUARD_DIR": world.env["PTYGUARD_DIR"]}
        argv = ["ensure", "x", "--", "/bin/sleep", "1000"]
        crowd = [world.popen(*argv, env=empty, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
                 for _ in range(50)]
        for process in crowd:
            out, err = process.communicate(timeout=120)
            assert (process.returncode, out) == (0, b"x\n"), err
        assert world.log("guard").count(" banner ") == 1
        assert world.log("guard").count("daemon_started") == 1
        assert world.log("guard").count("session_spawned") == 1
        assert [s["name"] for s in world.json("ls")["sessions"]] == ["x"]


def test_a_command_waits_for_whoever_is_starting_and_is_then_served():
    with World(under=MEMORY) as world:
        world.run("status")                     # only so that the directories are there
        lock = backend.try_lock(world.paths.start_lock, "a test")
        waiting = world.popen("ls")
        # It opens the lock's file for moments only; that it looks again and again shows.
        wait_until(lambda: voluntary_switches(waiting.pid) > 100, "its waiting")
        assert waiting.poll() is None and not os.path.exists(world.paths.guard_lock)
        os.close(lock)
        assert waiting.wait(60) == 0
        assert world.guard_pid()


def test_a_lock_that_is_never_released_is_an_error_that_names_its_holder():
    with World(under=MEMORY) as world:
        paths = world.paths
        lock = backend.try_lock(paths.start_lock, "a test")
        with pytest.raises(ptyguard.Unreachable) as caught:
            supervise.reach(backend, paths, timeout_s=0.3)
        os.close(lock)
        assert f"pid {os.getpid()}" in caught.value.message and "a test" in caught.value.message


def test_a_guard_that_holds_its_lock_and_is_silent_is_named_and_not_replaced():
    with World(under=MEMORY) as world:
        world.run("ls", check=0)
        guard, daemon = world.guard_pid(), world.daemon_pid()
        os.kill(guard, signal.SIGSTOP)
        os.kill(daemon, signal.SIGKILL)
        wait_until(lambda: b") Z " in read_of(daemon, "stat"), "the daemon's death")
        with pytest.raises(ptyguard.Unreachable) as caught:
            supervise.ask_guard(backend, world.paths, supervise.wire.STATE, timeout_s=0.3)
        assert f"pid {guard}" in caught.value.message and caught.value.exit_code == 6
        waiting = world.popen("ls")             # it is not lost: the listener is the guard's
        os.kill(guard, signal.SIGCONT)
        assert waiting.wait(60) == 0
        assert world.guard_pid() == guard


def test_without_start_nothing_is_started():
    with World(under=MEMORY) as world:
        assert b"no daemon runs" in world.run("--no-start", "ls", check=6).stderr
        world.run("status", check=1)
        assert not os.path.exists(world.paths.guard_lock) or \
            not supervise.ask_guard(backend, world.paths, supervise.wire.STATE)
        name = world.run("start", "--", "sleep", "1000", check=0).stdout.decode().strip()
        world.run("daemon", "stop", "--sessions", "keep", check=0)
        assert b"no daemon runs" in world.run("--no-start", "ls", check=6).stderr
        assert world.json("status")["state"] == "stopped"
        assert world.run("ls", "-q", check=0).stdout.decode().split() == [name]


def test_sockets_of_dead_processes_are_replaced():
    with World(under=MEMORY) as world:
        world.run("ls", check=0)
        guard, daemon = world.guard_pid(), world.daemon_pid()
        for pid in (guard, daemon):             # neither may replace the other
            os.kill(pid, signal.SIGSTOP)
        for pid in (guard, daemon):
            os.kill(pid, signal.SIGKILL)
        wait_until(lambda: not is_alive(guard) and not is_alive(daemon), "both deaths")
        assert os.path.exists(world.paths.client_socket)
        assert world.json("status")["state"] == "stale"
        world.run("ls", check=0)
        world.run("status", check=0)
        assert world.guard_pid() != guard
