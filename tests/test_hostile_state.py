"""Files of ours that somebody else has had his hands in, and disks that take nothing.

Whatever lies where a file of ours should be: no command hangs or ends in a traceback, what
cannot be used is named in a sentence, sessions that run go on, and once it is put right all
is well.
"""

import contextlib
import errno
import json
import os
import re
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import time

import pytest
from hypothesis import HealthCheck, Phase, given, settings, strategies as st

from world import LIMIT_S, MEMORY, World, is_alive, wait_until

NOBODY = 65534
IS_ROOT = os.geteuid() == 0
RAW = re.compile(rb"[\0-\x09\x0b-\x1f\x7f]|\xc2[\x80-\x9f]")

ECHO = ["sh", "-c", "stty -echo; echo ready; while read x; do echo got $x; done; exit 5"]


# -- what is put into the place of a file --------------------------------------------------------------


def remove(path):
    """Whatever it is."""
    if os.path.isdir(path) and not os.path.islink(path):
        shutil.rmtree(path)
    elif os.path.lexists(path):
        os.unlink(path)


def put_directory(path):
    """A directory with something in it."""
    remove(path)
    os.makedirs(os.path.join(path, "x"), mode=0o700)


def put_fifo(path):
    """A FIFO that nobody opens at the other end."""
    remove(path)
    os.mkfifo(path, 0o600)


def put_dangling_link(path):
    """A symbolic link to nowhere."""
    remove(path)
    os.symlink("/no/such/place", path)


def put_link_away(path):
    """A symbolic link to a file that is not ours to change."""
    remove(path)
    os.symlink(outside_of(path), path)
    with open(outside_of(path), "w") as file:
        file.write("not yours\n")


def outside_of(path):
    """A file next to, and not in, the directory that all of ours is in."""
    return os.path.join(path[:path.index("/d/")], "outside")


def put_nothing(path):
    """An empty file."""
    remove(path)
    os.close(os.open(path, os.O_CREAT | os.O_WRONLY, 0o600))


def put_noise(path):
    """Bytes that mean nothing, with control characters and a NUL among them."""
    put_nothing(path)
    with open(path, "wb") as file:
        file.write(b"\0\x1b[31m\xff\n" + os.urandom(2000))


def put_gigabytes(path):
    """More than fits anywhere; it has holes."""
    put_nothing(path)
    os.truncate(path, 1 << 36)


def put_foreign(path):
    """A file like it that belongs to somebody else."""
    if not IS_ROOT:
        pytest.skip("only root can give files away")
    if not os.path.exists(path):
        put_nothing(path)
    os.lchown(path, 12345, 12345)


def put_nothing_there(path):
    """It is gone."""
    remove(path)


KINDS = [put_directory, put_fifo, put_dangling_link, put_link_away, put_nothing, put_noise, put_gigabytes,
         put_foreign, put_nothing_there]


# -- what has to hold ----------------------------------------------------------------------------------


def is_stuck_at_a_fifo(world):
    """Whether a process of that world waits for somebody to open the other end, fifo(7)."""
    return any(is_waiting_for_a_partner(pid) and os.fsencode(world.directory) in words_of(pid)
               for pid in filter(str.isdigit, os.listdir("/proc")))


def is_waiting_for_a_partner(pid):
    """Whether it is stopped in the middle of opening a FIFO, as far as the kernel tells."""
    with contextlib.suppress(OSError):
        with open(f"/proc/{pid}/wchan") as file:
            return "wait_for_partner" in file.read()
    return False


def words_of(pid):
    """Its arguments and environment, as they were."""
    with contextlib.suppress(OSError):
        with open(f"/proc/{pid}/cmdline", "rb") as argv, open(f"/proc/{pid}/environ", "rb") as environ:
            return argv.read() + environ.read()
    return b""


# Their codes may be the command's, and then they say nothing.
SILENT = ("run", "wait", "has")


def run(world, *words):
    """A command to its end, (code, out, err): no traceback, nothing raw, nobody stuck."""
    process = world.popen(*words, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(1)                 # it mostly takes less; only then is there a reason to look
    wait_until(lambda: process.poll() is not None or is_stuck_at_a_fifo(world), "the end of " + " ".join(words))
    assert process.poll() is not None, f"{words} waits at a FIFO"
    out, err = process.communicate()
    assert b"Traceback" not in out + err, err
    # What a program wrote, and what stands in a log that is not all ours, is shown as it is.
    assert not RAW.search(err if words[0] in ("run", "log", "daemon") else out + err), (out, err)
    assert not process.returncode or out or err or words[0] in SILENT, f"{words} failed without a word"
    return process.returncode, out, err


@contextlib.contextmanager
def spoiled(path, put):
    """Something else stands there for a while.  First of all, so that the end is never in its way."""
    kept = path + ".kept"
    is_there = os.path.lexists(path)
    if is_there and not os.path.isdir(path):
        shutil.copy2(path, kept) if os.path.isfile(path) else os.rename(path, kept)
    elif is_there:
        shutil.copytree(path, kept)
    try:
        put(path)
        yield
    finally:
        with contextlib.suppress(OSError):
            if stat.S_ISFIFO(os.lstat(path).st_mode):
                os.close(os.open(path, os.O_RDWR | os.O_NONBLOCK))      # whoever waits there goes on
        remove(path)
        if is_there:
            os.rename(kept, path)


def ended_world():
    """A world in which something ran and nothing runs any more."""
    world = World(under=MEMORY)
    world.run("run", "-n", "before", "--", "sh", "-c", "exit 3", check=3)
    world.run("daemon", "stop", check=0)
    return world


@pytest.fixture(scope="module")
def quiet():
    """One such world for many tests, each of which leaves it so."""
    with ended_world() as world:
        yield world


def in_state(world, name):
    """The path of that file; `bin/*` is the private copy."""
    if name == "bin/*":
        copies = os.path.join(world.state, "bin")
        return os.path.join(copies, next(each for each in os.listdir(copies) if each.endswith(".pyz")))
    return os.path.join(world.state, name)


LOGS = ("daemon.log", "guard.log")
WHERE = {
    put_directory: ("place", "start.lock", "daemon.lock", "daemon.log", "guard.log", "bin/*"),
    put_fifo: ("place", "guard.lock", "guard.sock", "daemon.log", "guard.log", "bin/*", "sessions"),
    put_dangling_link: ("guard.lock", "client.sock", "bin", "sessions"),
    put_link_away: ("daemon.log", "bin/*"),
    put_nothing: ("guard.lock", "bin"),
    put_noise: ("daemon.log", "bin/*"),
    put_gigabytes: ("place",),
    put_foreign: ("client.sock", "bin", "sessions"),
    put_nothing_there: ("place", "sessions"),
}


def cases():
    """Every kind of thing, and every file in whose place it is put."""
    for put in KINDS:
        for name in WHERE[put]:
            yield pytest.param(name, put, id=f"{name}-{put.__name__[4:]}")


@pytest.mark.parametrize("name, put", list(cases()))
def test_whatever_lies_in_the_place_of_a_file_is_used_replaced_or_named(quiet, name, put):
    path = in_state(quiet, name)
    code = None
    try:
        with spoiled(path, put):
            assert run(quiet, "status")[0] == 1
            code, _, err = run(quiet, "ls")
            if code:                    # then it says of what; a log stops nothing
                assert os.path.basename(path).encode() in err and err.startswith(b"ptyguard: "), err
                assert name not in LOGS, err
            elif name == "sessions":    # which new ones need, unless it could be made
                assert run(quiet, "run", "--", "sh", "-c", "exit 4")[0] in (4, 125)
            if name == "daemon.log":
                run(quiet, "daemon", "log", "-n", "3")
            if os.path.exists(outside_of(path)):
                with open(outside_of(path)) as file:
                    assert file.read() == "not yours\n"
    finally:
        stop(quiet)
    if code:                            # put right, it works
        assert run(quiet, "run", "--", "sh", "-c", "exit 6")[0] == 6
        quiet.run("daemon", "stop", check=0)


def stop(world):
    """Nothing runs there any more; what was started under spoiled locks is ended by force."""
    world.run("daemon", "stop", "--sessions", "kill", "--force")
    world._end_by_force()
    with contextlib.suppress(OSError):
        os.unlink(outside_of(world.state))


@pytest.mark.parametrize("text", [
    b"", b"..", b"relative/place", b"/", b"/etc/passwd", b"/proc/self", b"/no/such/parent/place",
    b"/" + b"x" * 3000, b"/tmp/\x1b[31m\xff/x", b"~",
    b"/tmp/\0x"],
    ids=lambda text: ascii(text[:16]))
def test_a_place_that_is_none_is_named_and_nothing_is_made_there(quiet, text):
    path = in_state(quiet, "place")

    def put(path):
        with open(path, "wb") as file:
            file.write(text)
    with spoiled(path, put):
        for verb in (["status"], ["run", "--", "true"]):
            code, out, err = run(quiet, *verb)
            assert code in (1, 125) and err.startswith(b"ptyguard: ") and out == b""
    run(quiet, "status")


def test_unreadable_files_and_directories_are_named_to_a_plain_user():
    with plain_users_world() as world:
        run(world, "run", "-n", "before", "--", "sh", "-c", "exit 3")
        run(world, "daemon", "stop")
        record, = [each for each in os.listdir(os.path.join(world.state, "sessions")) if each.endswith(".json")]
        state = world.state
        for name in ("place", f"sessions/{record}", "bin", "sessions", ""):
            path = os.path.join(state, name) if name else state
            mode = os.stat(path).st_mode & 0o777
            os.chmod(path, 0)
            try:
                run(world, "status")
                code, _, err = run(world, "ls")
                if code:
                    assert os.path.basename(path.rstrip("/")).encode() in err, (name, err)
            finally:
                with contextlib.suppress(FileNotFoundError):    # set aside: only a record is
                    os.chmod(path, mode)
                world.run("daemon", "stop", "--sessions", "kill", "--force")
            assert run(world, "run", "--", "sh", "-c", "exit 6")[0] == 6
            run(world, "daemon", "stop")


@pytest.mark.parametrize("name", ["start.lock", "daemon.lock", "daemon.log"])
def test_an_unreadable_lock_or_log_is_named_to_a_plain_user(name):
    with plain_users_world() as world:
        run(world, "run", "--", "true")
        run(world, "daemon", "stop")
        path = os.path.join(world.state, name)
        os.chmod(path, 0)
        try:
            run(world, "status")
            code, _, err = run(world, "ls")
            if name.endswith(".log"):
                assert code == 0, err
            else:
                assert code and name.encode() in err
            run(world, "daemon", "log")
        finally:
            os.chmod(path, 0o600)


@contextlib.contextmanager
def plain_users_world():
    """A world whose commands run as somebody for whom modes count."""
    with World(under=MEMORY) as world:
        if IS_ROOT:
            os.chmod(world.directory, 0o755)
            os.mkdir(world.env["PTYGUARD_DIR"], 0o700)
            os.chown(world.env["PTYGUARD_DIR"], NOBODY, NOBODY)
            world.env.update(HOME="/")
            world.program = program_of_nobody(world)
        yield world


def program_of_nobody(world):
    """The command, run by an interpreter that others than root may run."""
    drop = f"import os; os.setgroups([]); os.setgid({NOBODY}); os.setuid({NOBODY}); "
    for interpreter in (sys.executable, "/usr/bin/python3"):
        program = [interpreter, "-c", drop + world.program[2]]
        with contextlib.suppress(OSError):
            # The second time by nobody's own hand, as guard and daemon are run.
            again = [interpreter, "-c", drop + f"os.execv({interpreter!r}, [{interpreter!r}, '-c', '0'])"]
            if all(subprocess.run(argv, env=world.env, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                                  stderr=subprocess.DEVNULL).returncode == 0
                   for argv in (program + ["version"], again)):
                return program
    pytest.skip("the interpreters or this checkout are for root alone")


# -- records -------------------------------------------------------------------------------------------


def record_of(number, **fields):
    """A record as a daemon writes it."""
    now = time.time()
    return dict({
        "id": f"forged{number:04}", "name": f"forged-{number}", "state": "ended", "created_at": now - 9,
        "ended_at": now - 5, "exit": {"code": 3, "signal": None}, "argv": ["true"], "cwd": "/",
        "size": {"cols": 80, "rows": 24}, "pid": 77, "pid_start": 5, "incarnation": 1, "spawn": 1,
        "labels": {}, "restart": "never", "collected": False, "boot_id": "another"}, **fields)


def write_records(world, records):
    """Put them where a daemon finds them; nothing runs."""
    directory = os.path.join(world.paths.state, "sessions")
    os.makedirs(directory, mode=0o700, exist_ok=True)
    for record in records:
        with open(os.path.join(directory, record["id"] + ".json"), "w") as file:
            json.dump(record, file)


SHOWN = st.one_of(st.text(max_size=30), st.sampled_from(
    ["\x1b[31m", "\x9b31m", "\u202e", "\ud800", "\n\t\0", "x" * 3000]))
TOKENS = st.one_of(SHOWN, st.integers(0, 1 << 62), st.none())
ANYTHING = st.recursive(st.one_of(st.none(), st.booleans(), st.integers(-1 << 60, 1 << 60), SHOWN),
                        lambda inner: st.one_of(st.lists(inner, max_size=3),
                                                st.dictionaries(SHOWN, inner, max_size=3)), max_leaves=5)
RECORD_FIELDS = st.fixed_dictionaries({}, optional={
    "state": st.sampled_from(["starting", "running", "draining", "quarantined", "ended", "lost", "failed"]),
    "argv": st.one_of(st.none(), st.lists(SHOWN, max_size=4)), "cwd": st.one_of(st.none(), SHOWN),
    "exit": st.sampled_from([None, {}, {"code": 0xFFFFFFFF, "signal": None}, {"code": None, "signal": "SIGKILL"},
                             {"code": None, "signal": "SIG99"}, {"code": 3, "signal": "no signal"}]),
    "size": st.sampled_from([None, {"cols": 65535, "rows": 1}, {"cols": 1, "rows": 1, "x": []}]),
    "labels": st.one_of(st.none(), st.dictionaries(SHOWN, SHOWN, max_size=3)),
    "restart": st.one_of(st.none(), SHOWN), "reason": ANYTHING, "unknown": ANYTHING, "title": ANYTHING,
    "was_attached": ANYTHING, "pid_start": TOKENS, "incarnation": TOKENS,
    "created_at": st.one_of(st.floats(0, 9e10), st.integers(0, 10 ** 10)),
    "ended_at": st.one_of(st.none(), st.floats(0, 9e10)),
    "markers": st.one_of(st.none(), st.dictionaries(st.sampled_from(["TERM", "A", "PTYGUARD_DIR"]), ANYTHING,
                                                    max_size=3)),
    "name": st.sampled_from(["same", "x" * 64, "_", "0"])})


@settings(max_examples=3, deadline=None, suppress_health_check=list(HealthCheck),
          phases=(Phase.explicit, Phase.generate), database=None)
@given(st.lists(RECORD_FIELDS, min_size=12, max_size=20))
def test_records_that_nobody_wrote_are_listed_harmlessly_or_set_aside(all_fields):
    with World(under=MEMORY) as world:
        records = [record_of(number, **fields) for number, fields in enumerate(all_fields)]
        write_records(world, records)
        assert run(world, "ls", "-a")[0] == 0
        sessions = world.json("ls", "-a")["sessions"]
        assert {session["id"] for session in sessions} <= {record["id"] for record in records}
        for session in sessions[:2]:
            assert run(world, "info", "@" + session["id"])[0] == 0
            run(world, "wait", "@" + session["id"], "--timeout", "0")
        # The daemon that has read them runs sessions, and the next one reads them again.
        assert run(world, "run", "-n", "own", "--", "sh", "-c", "exit 4")[0] == 4
        assert "Traceback" not in world.log()
        world.run("daemon", "restart", check=0)
        assert run(world, "ls", "-a")[0] == 0
        assert run(world, "rm", "--ended")[0] == 0
        assert world.json("ls", "-a")["sessions"] == []


NOT_CHECKED = pytest.mark.xfail(strict=True, reason="it is used, and nobody has asked what it is")


@pytest.mark.parametrize("verb, code, fields", [
    pytest.param("ls", 0, {"exit": {"code": None, "signal": "\x1b[31m"}}),
    pytest.param("info", 0, {"markers": {"\x1b[31m": "x"}}),
    pytest.param("info", 0, {"markers": [1, 2]}),
    pytest.param("info", 0, {"markers": "text"}),
    pytest.param("ls", 0, {"reason": 10 ** 21}, marks=NOT_CHECKED),     # no reply may hold that
    pytest.param("wait", 125, {"exit": {"code": None, "signal": "9" * 5000}}, marks=NOT_CHECKED),
    pytest.param("wait", 3, {"exit": {"code": 3}}, marks=NOT_CHECKED)])
def test_a_field_of_a_record_that_is_not_what_it_should_be_is_shown_harmlessly(verb, code, fields):
    with World(under=MEMORY) as world:
        write_records(world, [record_of(1, **fields)])
        got = run(world, verb, *([] if verb == "ls" else ["forged-1"]))[0]
        assert got in (code, 3)         # or the whole of it was set aside


def test_records_of_the_greatest_length_are_all_listed():
    with World(under=MEMORY) as world:
        write_records(world, [record_of(number, cwd="/" + "x" * 900000) for number in range(6)])
        code, out, err = run(world, "ls", "-q", "-a")
        assert code == 0, err
        assert out.count(b"\n") == 6


# -- while sessions run --------------------------------------------------------------------------------


@contextlib.contextmanager
def living(world, pg, name="s"):
    """A session that echoes; it does so at the end, too."""
    session = pg.start(ECHO, name)
    session.wait_for(b"ready", LIMIT_S)
    pid = session.facts["pid"]
    yield session
    echoes(session)
    assert session.info()["pid"] == pid and is_alive(pid)


def echoes(session):
    """What is typed comes back, through whoever serves now."""
    word = os.urandom(4).hex().encode()
    session.send(word + b"\n")
    session.wait_for(b"got " + word, LIMIT_S)


@pytest.mark.parametrize("put", [put_directory, put_fifo, put_link_away, put_noise, put_foreign,
                                 put_nothing_there], ids=lambda kind: kind.__name__[4:])
def test_a_living_sessions_record_that_was_spoiled_costs_the_session_nothing(put):
    with World(under=MEMORY) as world, world.connect() as pg, living(world, pg) as session:
        path = os.path.join(world.state, "sessions", session.id + ".json")
        put(path)
        echoes(session)
        session.resize(99, 33)
        old = world.kill_daemon()
        assert world.new_daemon_pid(old)
        echoes(session)
        told = session.info()
        assert told["name"] == "s" and told["size"] == {"cols": 99, "rows": 33}
        # Others are started, and end, and are known.
        assert run(world, "run", "-n", "other", "--", "sh", "-c", "exit 4")[0] == 4
        # The record is whole again, unless something is in the way that a rename does not replace.
        if put is not put_directory:
            with open(path) as file:
                assert json.load(file)["name"] == "s"
        assert "Traceback" not in world.log()


def test_kept_exits_that_were_spoiled_are_set_aside_and_cost_only_themselves():
    spoils = [put for put in KINDS if put is not put_nothing_there and (IS_ROOT or put is not put_foreign)]
    with World(under=MEMORY) as world, world.connect() as pg:
        spoilt = [pg.start(["sh", "-c", "exit 7"], put.__name__) for put in spoils]
        for session in spoilt:
            session.wait(LIMIT_S)
        assert pg.start(["sh", "-c", "exit 8"], "whole").wait(LIMIT_S)["code"] == 8
        world.run("daemon", "stop", check=0)
        directory = os.path.join(world.state, "sessions")
        for put, session in zip(spoils, spoilt):
            put(os.path.join(directory, session.id + ".json"))
        assert [s["name"] for s in world.json("ls", "-a")["sessions"]] == ["whole"]
        assert run(world, "wait", "whole")[0] == 8
        assert run(world, "wait", "put_noise")[0] == 3
        aside = [name.partition(".")[0] for name in os.listdir(directory) if ".corrupt-" in name]
        assert sorted(aside) == sorted(session.id for session in spoilt)
        assert world.log().count("record_set_aside") == len(spoilt)
        # The next daemon does not stumble over what was set aside.
        world.kill_daemon()
        assert run(world, "wait", "whole")[0] == 8
        assert world.log().count("record_set_aside") == len(spoilt)


def open_to_all(path):
    """It is there, and for everybody."""
    os.chmod(path, 0o777)


@pytest.mark.parametrize("put", [put_fifo, put_dangling_link, put_foreign, open_to_all],
                         ids=lambda kind: kind.__name__.replace("put_", ""))
def test_a_sessions_directory_that_cannot_be_used_stops_no_session_and_is_told(put):
    with World(under=MEMORY) as world, world.connect() as pg, living(world, pg) as session:
        path = os.path.join(world.state, "sessions")
        with spoiled(path, put):
            old = world.kill_daemon()
            assert world.new_daemon_pid(old)
            echoes(session)
            code, _, err = run(world, "start", "--", "true")
            assert code == 1 and b"sessions" in err
            code, out, _ = run(world, "status")
            assert code == 0 and re.search(rb"disk:.*sessions", out)
            assert world.json("status")["disk_error"]
        world.run("daemon", "restart", check=0)
        echoes(session)
        assert run(world, "run", "--", "sh", "-c", "exit 4")[0] == 4
        assert world.json("status")["disk_error"] is None
        assert os.path.exists(os.path.join(path, session.id + ".json"))


@pytest.mark.parametrize("put", [put_directory, put_dangling_link, put_fifo, put_nothing_there, put_gigabytes],
                         ids=lambda kind: kind.__name__[4:])
def test_logs_that_were_spoiled_while_sessions_run_cost_them_nothing(put):
    with World(under=MEMORY) as world, world.connect() as pg, living(world, pg) as session:
        logs = [os.path.join(world.state, name) for name in ("daemon.log", "guard.log")]
        with contextlib.ExitStack() as stack:
            for path in logs:
                stack.enter_context(spoiled(path, put))
            echoes(session)
            old = world.kill_daemon()
            wait_until(lambda: has_new_daemon(world, old) or is_stuck_at_a_fifo(world)
                       or world.json("status")["state"] == "unhealthy", "a new daemon, or none")
            assert has_new_daemon(world, old)
            echoes(session)
            old = world.kill_guard()
            wait_until(lambda: world.json("status")["guard"]["pid"] not in (None, old), "a new guard")
            echoes(session)
            run(world, "daemon", "log", "-n", "5")


def has_new_daemon(world, old):
    """Whether one serves that is not `old`; looked up where it writes its pid."""
    pid = world._pid_in("daemon")
    return pid not in (None, old) and is_alive(pid)


def test_a_state_directory_of_others_files_is_left_as_it_was():
    with ended_world() as world:
        strange = {os.path.join(world.state, name): name.encode() for name in (
            "notes.txt", "sessions/README", "sessions/.hidden", "sessions/UPPER.json", "sessions/a b.json",
            "bin/readme", "daemon.log.4", "place.old")}
        for path, data in strange.items():
            with open(path, "wb") as file:
                file.write(data)
        os.mkfifo(os.path.join(world.state, "sessions", "pipe"))
        os.mkdir(os.path.join(world.state, "sessions", "folder"))
        assert run(world, "ls", "-a")[0] == 0
        world.run("rm", "--ended", check=0)
        world.run("daemon", "stop", check=0)
        for path, data in strange.items():
            with open(path, "rb") as file:
                assert file.read() == data
        assert os.listdir(os.path.join(world.state, "sessions", "folder")) == []


# -- a disk that is full -------------------------------------------------------------------------------


@contextlib.contextmanager
def small_disk(options):
    """The path of a tmpfs of that size, where the machine lets us mount one."""
    if not IS_ROOT or not sys.platform.startswith("linux"):
        pytest.skip("only root can mount a small file system")
    path = tempfile.mkdtemp(prefix="pg-disk-")
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", options + ",mode=0700", "tmpfs", path],
                          stderr=subprocess.PIPE)
    if done.returncode:
        os.rmdir(path)
        pytest.skip(f"no tmpfs can be mounted here: {done.stderr.decode().strip()}")
    try:
        yield path
    finally:
        subprocess.run(["umount", path], check=True)
        os.rmdir(path)


def fill_with_bytes(path):
    """Not one more byte can be written; returns what gives it free."""
    filler = os.path.join(path, "filler")
    fd = os.open(filler, os.O_CREAT | os.O_WRONLY)
    for size in (1 << 16, 1 << 12, 1):
        with contextlib.suppress(OSError):
            while True:
                os.write(fd, b"x" * size)
    os.close(fd)
    return lambda: os.unlink(filler)


def fill_with_files(path):
    """Not one more file can be made."""
    folder = os.path.join(path, "fillers")
    os.mkdir(folder)
    with pytest.raises(OSError) as caught:
        for number in range(100000):
            os.close(os.open(os.path.join(folder, str(number)), os.O_CREAT | os.O_WRONLY))
    assert caught.value.errno == errno.ENOSPC
    return lambda: shutil.rmtree(folder)


DISKS = pytest.mark.parametrize("options, fill", [("size=8m", fill_with_bytes),
                                                  ("size=32m,nr_inodes=80", fill_with_files)],
                                ids=["no bytes", "no files"])


def daemon_of(world):
    """Its pid by its own word: the lock's file may have had no room for it."""
    return world.json("status")["daemon"]["pid"]


@DISKS
def test_on_a_full_disk_sessions_go_on_it_is_told_and_with_space_all_is_well(options, fill):
    with small_disk(options) as disk, World(under=disk) as world, world.connect() as pg, \
            living(world, pg) as session:
        ending = pg.start(["sh", "-c", "read x; echo bye; exit 4"], "ending")
        free = fill(disk)
        try:
            code, out, err = run(world, "start", "-n", "new", "--", "true")
            assert code == 1 and out == b"" and b"No space left" in err and b"sessions keep running" in err
            assert run(world, "has", "new")[0] == 1
            echoes(session)
            session.resize(97, 31)
            ending.send(b"\n")
            assert ending.wait(LIMIT_S)["code"] == 4
            assert ending.read()[1].endswith(b"bye\r\n")
            is_logged = "No space left" in world.log()
            assert is_logged or fill is fill_with_bytes     # where it cannot be written down, it cannot
            code, out, _ = run(world, "status")
            assert code == 0 and re.search(rb"disk: .*No space left", out)
            # Whoever dies meanwhile is replaced, and nothing is forgotten.
            for which in ("daemon", "guard"):
                old = world.json("status")[which]["pid"]
                os.kill(old, signal.SIGKILL)
                wait_until(lambda: not is_alive(old), "its death")
                wait_until(lambda: world.json("status")[which]["pid"] not in (None, old), "another")
                echoes(session)
                assert session.info()["size"] == {"cols": 97, "rows": 31}
                assert run(world, "wait", "ending")[0] == 4
        finally:
            free()
        assert run(world, "run", "-n", "new", "--", "sh", "-c", "exit 6")[0] == 6
        echoes(session)
        assert world.json("status")["disk_error"] is None
        assert "No space left" in world.log()   # by now at the latest, or how many lines are missing


def test_how_a_session_ended_on_a_full_disk_is_on_disk_once_there_is_space():
    with small_disk("size=8m") as disk, World(under=disk) as world, world.connect() as pg:
        ending = pg.start(["sh", "-c", "read x; exit 4"], "ending")
        free = fill_with_bytes(disk)
        try:
            ending.send(b"\n")
            assert ending.wait(LIMIT_S)["code"] == 4
        finally:
            free()
        # Something else is written, so that there is no doubt that it can be.
        assert run(world, "run", "-n", "other", "--", "true")[0] == 0
        world.run("daemon", "stop", check=0)
        assert run(world, "wait", "ending")[0] == 4


def test_a_first_start_on_a_full_disk_says_so_and_works_when_there_is_space():
    with small_disk("size=8m") as disk, World(under=disk) as world:
        free = fill_with_bytes(disk)
        try:
            code, out, err = run(world, "run", "--", "true")
            assert code == 125 and out == b"" and b"No space left" in err
            run(world, "status")
        finally:
            free()
        assert run(world, "run", "--", "sh", "-c", "exit 6")[0] == 6
