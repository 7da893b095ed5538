"""`--log FILE`: the file has every byte once and in order, whatever is killed, and holds nobody
back who does not want it."""

import os
import random
import resource
import signal
import stat
import subprocess
import sys

import pytest

from world import MEMORY, Flood, World, is_alive, wait_until


def writers(world):
    """The pids of this world's living log writers."""
    found = []
    for name in os.listdir("/proc"):
        try:
            with open(f"/proc/{name}/cmdline", "rb") as file:
                words = file.read().split(b"\0")
        except OSError:                 # no process, or none any more
            continue
        if b"__logwriter" in words and world.paths.root.encode() in words and is_alive(int(name)):
            found.append(int(name))
    return found


def writer_of(world, *but):
    """The pid of the one living writer, which is none of `but`."""
    def other():
        found = writers(world)
        return found[0] if len(found) == 1 and found[0] not in but else None
    return wait_until(other, "the log's writer")


def kill_writer(world):
    """kill -9; returns once that process is gone."""
    pid = writer_of(world)
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not is_alive(pid), "the writer's death")
    return pid


def contents(path):
    with open(path, "rb") as file:
        return file.read()


def size_of(path):
    try:
        return os.path.getsize(path)
    except FileNotFoundError:
        return 0


def reach(path, size):
    """Wait until the file has so many bytes."""
    wait_until(lambda: size_of(path) >= size, f"{size} bytes in the log")


def grow(path, count):
    """Wait until the file has so many bytes more; for what is written on and on."""
    reach(path, size_of(path) + count)


def log_facts(world, name):
    """What `info` says of the session's log."""
    return world.json("info", name)["log"]


@pytest.fixture
def world():
    with World(under=MEMORY) as made:
        yield made


@pytest.fixture
def file(world):
    """The path of a log that is not there yet."""
    return os.path.join(world.directory, "out.log")


def gated(world, then):
    """(a shell's line that waits for a gate before `then`, the function that opens it)."""
    gate = os.path.join(world.directory, "gate")
    os.mkfifo(gate)

    def open_it():
        with open(gate, "w") as pipe:   # waits for its reader, fifo(7)
            pipe.write("\n")

    return f"read x <{gate}; {then}", open_it


# -- what is in the file ----------------------------------------------------------------------


def test_a_log_has_the_bytes_as_the_terminal_made_them_once_the_run_is_over(world, file):
    script = "printf '\\377\\376\\000\\033[1mbold\\nlast'; exit 3"
    done = world.run("run", "-n", "s", "--log", file, "--", "sh", "-c", script, check=3)
    assert contents(file) == done.stdout == b"\xff\xfe\x00\x1b[1mbold\r\nlast"
    assert world.run("log", "--raw", "s", check=0).stdout == contents(file)
    assert log_facts(world, "s") == {"path": file, "error": None, "missed": 0}


def test_a_log_is_whole_when_wait_kill_and_rm_return(world, file):
    big = "seq 200000; "
    expected = b"".join(b"%d\r\n" % n for n in range(1, 200001))
    world.run("start", "-n", "w", "--log", file, "--", "sh", "-c", big + "exit 4", check=0)
    world.run("wait", "w", check=4)
    assert contents(file) == expected
    for verb in ("kill", "rm"):
        path = f"{file}.{verb}"
        world.run("start", "-n", verb, "--log", path, "--", "sh", "-c", big + "exec sleep 1000",
                  check=0)
        world.run("wait", verb, "--for", "(?m)^200000$", check=0)
        world.run(verb, verb, check=0)
        assert contents(path) == expected


@pytest.mark.parametrize("verb", ["wait", "collect", "kill", "rm"])
def test_who_asks_about_the_end_is_answered_when_the_log_is_whole(world, file, verb):
    with world.connect() as pg, pg.open_channel("test") as channel:
        session = pg.start(["sh", "-c", "echo begun; read x; echo last"], log=file)
        reach(file, 7)
        os.kill(writer := writer_of(world), signal.SIGSTOP)
        session.send(b"", enter=True)
        wait_until(lambda: session.info()["state"] == "ended", "its end")
        serial = channel.ask(verb, target="@" + session.id)
        channel.request("ls")
        assert not channel.has_kept         # answers come in their order: that one is still due
        os.kill(writer, signal.SIGCONT)
        channel.await_reply(serial, 60)
        assert contents(file) == b"begun\r\n\r\nlast\r\n"


def test_a_log_is_appended_to_and_a_file_that_is_there_keeps_its_mode(world, file):
    with open(file, "w") as before:
        before.write("from before\n")
    os.chmod(file, 0o640)
    for number in (1, 2):
        world.run("run", "-n", "s", "--log", file, "--", "echo", str(number), check=0)
    assert contents(file) == b"from before\n1\r\n2\r\n"
    assert stat.S_IMODE(os.stat(file).st_mode) == 0o640


@pytest.mark.parametrize("umask", [0o000, 0o277])
def test_a_new_log_is_for_its_owner_alone_whatever_the_umask(world, file, umask):
    starting = world.popen("run", "--log", file, "--", "true", preexec_fn=lambda: os.umask(umask))
    assert starting.wait(60) == 0
    assert stat.S_IMODE(os.stat(file).st_mode) == 0o600


def test_a_logs_name_is_the_callers_relative_linked_and_in_any_encoding(world):
    here, there = (os.path.join(world.directory, name) for name in ("here", "there"))
    for directory in (here, there):
        os.mkdir(directory)
    os.symlink(os.path.join(there, "target"), os.path.join(here, "link"))
    world.run("run", "--cwd", there, "--log", "link", "--", "echo", "one", cwd=here, check=0)
    assert contents(os.path.join(there, "target")) == b"one\r\n"
    odd = os.fsencode(here) + b"/\xe9\xff"
    world.run("run", "-n", "odd", "--log", os.fsdecode(odd), "--", "echo", "two", check=0)
    assert contents(odd) == b"two\r\n"
    assert os.fsencode(log_facts(world, "odd")["path"]) == odd


def test_a_log_named_as_the_callers_output_is_what_the_caller_writes_to(world, file):
    with open(file, "wb") as output:
        world.run("run", "-n", "s", "--log", "/dev/stdout", "--", "true", stdout=output, check=0)
    assert log_facts(world, "s")["path"] == file


def test_the_python_interface_takes_a_log(world, file):
    with world.connect() as pg:
        session = pg.start(["echo", "hello"], log=os.fsencode(file))
        session.wait()
        assert session.info()["log"] == {"path": file, "error": None, "missed": 0}
    assert contents(file) == b"hello\r\n"


# -- what is refused --------------------------------------------------------------------------


def test_a_log_that_cannot_be_is_refused_before_anything_is_started(world):
    fifo = os.path.join(world.directory, "fifo")
    os.mkfifo(fifo)
    wrong = [world.directory, world.directory + "/new/", fifo, "/dev/null", "/dev/tty",
             os.path.join(world.directory, "missing", "file")]
    for path in wrong:
        refused = world.run("start", "--log", path, "--", "touch", world.directory + "/ran", check=1)
        assert refused.stderr.startswith(b"ptyguard: cannot append to ") and not refused.stdout
    assert world.run("run", "--log", fifo, "--", "true").returncode == 125
    assert world.json("status")["state"] == "stopped"
    assert not os.path.exists(world.directory + "/ran")


@pytest.mark.skipif(os.getuid() == 0, reason="root may write everywhere")
def test_a_log_that_is_not_ours_to_write_is_refused_before_anything_is_started(world, file):
    with open(file, "w"):
        os.chmod(file, 0o400)
    assert b"Permission denied" in world.run("start", "--log", file, "--", "true", check=1).stderr
    assert world.json("status")["state"] == "stopped"


def test_two_living_sessions_have_no_file_in_common(world, file):
    line, open_gate = gated(world, "echo first")
    world.run("start", "-n", "first", "--log", file, "--", "sh", "-c", line, check=0)
    refused = world.run("start", "-n", "second", "--log", file, "--", "echo", "second", check=4)
    assert b"is the log of session first" in refused.stderr
    writer_of(world)
    # Under its second name it is found out by its writer, and the session goes on without.
    other = file + ".link"
    os.link(file, other)
    world.run("run", "-n", "third", "--log", other, "--", "echo", "third", check=0)
    told = wait_until(lambda: log_facts(world, "third")["error"], "the refusal")
    assert "locked" in told and told in world.json("status")["disk_error"]
    assert b"locked" in world.run("info", "third", check=0).stdout
    open_gate()
    world.run("wait", "first", check=0)
    assert contents(file).startswith(b"first\r\n")
    # Once the first is done, the second has its turn.
    wait_until(lambda: contents(file) == b"first\r\nthird\r\n", "the second's output")
    wait_until(lambda: log_facts(world, "third")["error"] is None, "the end of the trouble")


def test_a_session_that_is_there_keeps_the_log_that_it_has(world, file):
    world.run("ensure", "s", "--", "cat", check=0)
    world.run("ensure", "s", "--log", file, "--", "cat", check=0)
    assert log_facts(world, "s") is None and not writers(world)


def test_the_writer_is_nobodys_client_and_no_process_of_the_session(world, file):
    world.run("start", "-n", "s", "--log", file, "--", "sh", "-c", "echo x; exec cat", check=0)
    reach(file, 3)
    told = world.json("info", "s")
    assert told["clients"] == 0 and told["viewers"] == []
    writer = writer_of(world)
    assert os.getsid(writer) == writer      # no hang-up, no Ctrl-C of anybody's reaches it
    world.run("detach", "s", check=0)
    world.run("send", "s", "--enter", "more", check=0)
    wait_until(lambda: contents(file) == b"x\r\n" + b"more\r\n" * 2, "more")
    assert writer_of(world) == writer
    world.run("kill", "s", check=0)
    assert contents(file) == world.run("log", "--raw", "s", check=0).stdout
    wait_until(lambda: not writers(world), "the writer's leave")


# -- whatever is killed -----------------------------------------------------------------------


def flooding(world, file, **options):
    """A Flood that a session writes into that log, and is about to begin."""
    flood = Flood(world.directory)
    world.run("start", "-n", "flood", "--log", file, "--", *flood.argv, check=0, **options)
    reach(file, 7)
    flood.go()
    return flood


def ended(world, flood, file, status=Flood.STATUS):
    """Let it end; whether its log is all of it."""
    flood.stop()
    world.run("wait", "flood", check=status)
    wait_until(lambda: not writers(world), "the writer's leave")
    assert log_facts(world, "flood") == {"path": file, "error": None, "missed": 0}
    return contents(file) == flood.output()


def test_a_writer_killed_thirty_times_under_a_flood_loses_and_doubles_nothing(world, file):
    chance = random.Random(seed := random.randrange(1 << 32))
    flood = flooding(world, file)
    for _ in range(30):
        if chance.random() < 0.7:           # else before it is there again
            grow(file, chance.randrange(300_000))
        kill_writer(world)
    assert ended(world, flood, file), seed


def test_a_daemon_killed_under_a_flood_costs_a_log_nothing_nor_do_both_at_once(world, file):
    chance = random.Random(seed := random.randrange(1 << 32))
    flood = flooding(world, file)
    for number in range(24):
        if chance.random() < 0.8:
            grow(file, chance.randrange(300_000))
        daemon = world.daemon_pid()
        victims = [daemon] if number % 3 == 0 else [daemon] + writers(world)
        if number % 3 == 2:
            victims.reverse()
        for pid in victims:
            os.kill(pid, signal.SIGKILL)
        wait_until(lambda: not any(map(is_alive, victims)), "their death")
    assert ended(world, flood, file), seed


def test_a_writer_lives_on_over_daemons_and_guards(world, file):
    flood = flooding(world, file)
    writer = writer_of(world)
    world.kill_daemon()
    grow(file, 200_000)
    old = world.kill_guard()
    grow(file, 200_000)
    world.new_guard_pid(old)
    wait_until(lambda: "deposit_done" in world.log("guard"), "the deposit")
    world.run("daemon", "restart", check=0)
    grow(file, 200_000)
    assert writers(world) == [writer]
    assert ended(world, flood, file, 125)   # the guard that knew the status is dead


def test_with_no_daemon_on_purpose_the_writer_leaves_and_the_next_daemon_has_another(world, file):
    flood = flooding(world, file)
    writer = writer_of(world)
    world.run("daemon", "stop", "--sessions", "keep", check=0)
    wait_until(lambda: not is_alive(writer), "the writer's leave")
    assert world.json("status")["state"] == "stopped"
    world.run("ls", check=0)
    writer_of(world, writer)
    assert ended(world, flood, file)


def test_a_writer_whose_session_ended_is_started_again_until_all_is_written(world, file):
    line, open_gate = gated(world, "seq 1000; exit 5")
    world.run("start", "-n", "s", "--log", file, "--", "sh", "-c", "echo begun; " + line, check=0)
    reach(file, 7)
    os.kill(stopped := writer_of(world), signal.SIGSTOP)
    open_gate()
    world.run("wait", "s", check=5)         # does not wait for it for ever
    assert contents(file) == b"begun\r\n"
    world.kill_daemon()
    assert world.json("info", "s")["state"] == "ended"
    os.kill(stopped, signal.SIGKILL)
    expected = b"begun\r\n" + b"".join(b"%d\r\n" % n for n in range(1, 1001))
    wait_until(lambda: contents(file) == expected, "the rest")
    wait_until(lambda: not writers(world), "the writer's leave")
    world.new_daemon_pid(world.kill_daemon())
    world.run("ls", check=0)
    assert not writers(world)               # it is known to be done
    assert contents(file) == expected


def test_output_is_kept_for_a_log_that_lacks_it(file):
    with World(under=MEMORY, PTYGUARD_KEEP_COUNT="0") as world:
        file = os.path.join(world.directory, "out.log")
        line, open_gate = gated(world, "echo last")
        world.run("start", "-n", "s", "--log", file, "--", "sh", "-c", "echo begun; " + line, check=0)
        reach(file, 7)
        os.kill(stopped := writer_of(world), signal.SIGSTOP)
        open_gate()
        wait_until(lambda: world.json("ls", "-a")["sessions"][0]["state"] == "ended", "its end")
        world.run("start", "-n", "other", "--", "true", check=0)
        wait_until(lambda: [s["name"] for s in world.json("ls", "-a")["sessions"]] == ["s"],
                   "the end of what is not kept")
        os.kill(stopped, signal.SIGCONT)
        wait_until(lambda: world.json("ls", "-a")["sessions"] == [], "its end, too")
        assert contents(file) == b"begun\r\nlast\r\n"


def test_a_new_session_takes_an_ended_ones_name_and_log_when_that_is_written(world, file):
    for number in range(1, 6):
        world.run("run", "-n", "again", "--log", file, "--", "sh", "-c", f"seq {number}00", check=0)
    lines = [b"%d\r\n" % n for count in range(1, 6) for n in range(1, count * 100 + 1)]
    assert contents(file) == b"".join(lines)
    assert len(world.json("ls", "-a")["sessions"]) == 1


def test_a_restarted_session_goes_on_in_its_log(world, file):
    world.run("start", "-n", "s", "--log", file, "--", "sh", "-c", "echo once more; exec cat", check=0)
    wait_until(lambda: contents(file).count(b"once more\r\n") == 1, "its first life")
    world.run("restart", "s", check=0)
    wait_until(lambda: contents(file).count(b"once more\r\n") == 2, "its second life")
    world.run("kill", "s", check=0)
    wait_until(lambda: not writers(world), "the writer's leave")
    world.run("restart", "s", check=0)      # after its end, too
    wait_until(lambda: contents(file).count(b"once more\r\n") == 3, "its third life")
    kill_writer(world)
    world.run("send", "s", "--enter", "end", check=0)
    wait_until(lambda: contents(file).count(b"end\r\n") == 2, "what was typed")
    world.run("kill", "s", check=0)
    assert contents(file) == world.run("log", "--raw", "s", check=0).stdout
    assert contents(file).count(b"once more\r\n") == 3


# -- files that others touch ------------------------------------------------------------------


def test_a_log_that_is_cut_while_it_is_written_goes_on_from_there(world, file):
    with world.connect() as pg:
        session = pg.start(["cat"], log=file)
        for number in range(1, 5):
            session.send(b"line %d" % number, enter=True)
            wait_until(lambda: b"line %d\r\nline %d\r\n" % (number, number) in contents(file), "it")
            if number == 2:
                os.truncate(file, 0)
        kill_writer(world)                  # whoever goes on knows where
        session.send(b"line 5", enter=True)
        last = b"line 5\r\nline 5\r\n"
        wait_until(lambda: contents(file).endswith(last), "the last line")
        session.kill()
        assert contents(file) == b"".join(b"line %d\r\n" % n * 2 for n in (3, 4, 5))
        assert session.info()["log"]["missed"] == 0


def test_what_others_write_into_a_log_displaces_nothing(world, file):
    with world.connect() as pg:
        session = pg.start(["cat"], log=file)
        for number in range(1, 5):
            session.send(b"%d" % number, enter=True)
            wait_until(lambda: b"%d\r\n%d\r\n" % (number, number) in contents(file), "it")
            with open(file, "ab") as other:
                other.write(b"note %d\n" % number)
        session.send(b"5", enter=True)
        wait_until(lambda: contents(file).endswith(b"5\r\n5\r\n"), "the last line")
        kill_writer(world)
        session.send(b"6", enter=True)
        wait_until(lambda: contents(file).endswith(b"6\r\n6\r\n"), "the very last")
        session.kill()
    expected = b"".join(b"%d\r\n" % n * 2 + b"note %d\n" % n for n in range(1, 5))
    assert contents(file) == expected + b"5\r\n5\r\n6\r\n6\r\n"


def test_a_log_that_was_cut_while_nobody_wrote_it_has_what_is_still_kept(world, file):
    with open(file, "wb") as before:
        before.write(b"from before\n")
    world.run("start", "-n", "s", "--log", file, "--", "sh", "-c", "echo one; exec cat", check=0)
    wait_until(lambda: contents(file).endswith(b"one\r\n"), "its output")
    world.run("daemon", "stop", "--sessions", "keep", check=0)
    wait_until(lambda: not writers(world), "the writer's leave")
    os.truncate(file, 3)
    world.run("send", "s", "--enter", "two", check=0)
    wait_until(lambda: contents(file) == b"froone\r\ntwo\r\ntwo\r\n", "what is kept")


def test_a_log_that_is_renamed_is_written_on_under_its_new_name(world, file):
    world.run("start", "-n", "s", "--log", file, "--", "sh", "-c", "echo one; exec cat", check=0)
    reach(file, 5)
    os.rename(file, file + ".1")
    world.run("send", "s", "--enter", "two", check=0)
    wait_until(lambda: contents(file + ".1") == b"one\r\ntwo\r\ntwo\r\n", "the rest")
    assert not os.path.exists(file)


# -- disks that are full ----------------------------------------------------------------------


def limit_files(pid, size):
    """From now on `pid` and whom it starts can make no file larger than `size`."""
    _, hard = resource.prlimit(pid, resource.RLIMIT_FSIZE)
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (size, hard))


@pytest.mark.skipif(not hasattr(resource, "prlimit"), reason="needs prlimit(2)")
def test_a_log_that_cannot_grow_holds_nobody_is_told_and_has_all_that_is_kept_in_the_end(world, file):
    with world.connect() as pg:
        with open(file, "wb") as before:
            before.write(b"x" * 1_000_000)
        session = pg.start(["sh", "-c", "echo begun; read x; seq 300000; read y; exit 6"],
                           log=file, scrollback=1 << 20)
        wait_until(lambda: contents(file).endswith(b"begun\r\n"), "the first line")
        daemon = world.daemon_pid()
        limit_files(daemon, 1_000_107)      # for the writers to come ...
        limit_files(writer_of(world), 1_000_107)    # ... and for this one
        session.send(b"", enter=True)
        session.wait_for(rb"(?m)^300000$", timeout_s=60)    # held back by nobody
        told = wait_until(lambda: session.info()["log"]["error"], "the trouble")
        assert told == os.strerror(27)      # EFBIG
        assert told in world.run("info", session.name, check=0).stdout.decode()
        assert told in world.run("status", check=0).stdout.decode()
        assert "log_failed" in world.log()
        assert contents(file)[1_000_000:] == b"begun\r\n\r\n" + contents(file)[1_000_009:]
        assert len(contents(file)) == 1_000_107     # to the last byte that fits
        session.send(b"", enter=True)
        assert session.wait() == {"code": 6, "signal": None}    # nor does anybody wait for it
        limit_files(daemon, resource.RLIM_INFINITY)
        wait_until(lambda: not session.info()["log"]["error"], "the next try")
        wait_until(lambda: not writers(world), "the writer's leave")
        facts = session.info()
        start, whole = session.read()
        assert facts["log"]["missed"] == start - 107 > 0
        assert contents(file)[1_000_107:] == whole
        assert "log_written_again" in world.log()


@pytest.fixture
def small_disk():
    """A directory on a file system of 256 KiB, where this machine lets us have one."""
    with World(under=MEMORY) as world:
        path = os.path.join(world.directory, "small")
        os.mkdir(path)
        mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "none", path],
                                 stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        if mounted.returncode:
            pytest.skip("no file system can be mounted here")
        try:
            yield world, path
        finally:
            world.run("daemon", "stop", "--sessions", "kill", "--force")
            subprocess.run(["umount", "-l", path], check=True)


def test_a_full_disk_stops_no_session_and_its_log_goes_on_when_there_is_space(small_disk):
    world, path = small_disk
    file, ballast = os.path.join(path, "out.log"), os.path.join(path, "ballast")
    with open(ballast, "wb") as other:
        other.write(b"x" * 200_000)
    with world.connect() as pg:
        session = pg.start(["sh", "-c", "seq 20000; read x; exit 6"], log=file)
        session.wait_for(rb"(?m)^20000$", timeout_s=60)
        told = wait_until(lambda: session.info()["log"]["error"], "the trouble")
        assert told == os.strerror(28)      # ENOSPC
        assert told in world.json("status")["disk_error"]
        session.send(b"", enter=True)
        assert session.wait() == {"code": 6, "signal": None}
        os.unlink(ballast)
        wait_until(lambda: session.info()["log"] == {"path": file, "error": None, "missed": 0},
                   "the next try")
        wait_until(lambda: not writers(world), "the writer's leave")
        assert contents(file) == session.read()[1]      # the ring had all that was missing
        assert world.json("status")["disk_error"] is None


def test_a_log_that_cannot_be_opened_again_is_told_of_and_holds_nobody(world, file):
    with world.connect() as pg:
        session = pg.start(["sh", "-c", "echo begun; exec cat"], log=file)
        reach(file, 7)
        os.unlink(file)
        os.mkdir(file)                      # the next one cannot open it
        kill_writer(world)
        session.send(b"more", enter=True)
        session.wait_for(rb"more", timeout_s=60)
        assert wait_until(lambda: session.info()["log"]["error"], "the trouble") == os.strerror(21)
        os.rmdir(file)
        wait_until(lambda: size_of(file) and contents(file) == session.read()[1], "another file")
        wait_until(lambda: session.info()["log"]["error"] is None, "the end of the trouble")


def test_a_log_beside_a_reader_that_holds_and_one_that_does_not_read(world, file):
    flood = Flood(world.directory)
    run = world.popen("run", "-n", "flood", "--log", file, "--", *flood.argv, stdout=subprocess.PIPE)
    sink = world.sink(run.stdout)
    wait_until(sink.size, "the reader")
    stalled = world.popen("log", "-f", "--raw", "--hold", "1s", "flood", stdout=subprocess.PIPE,
                          stderr=subprocess.DEVNULL)
    flood.go()
    grow(file, 3_000_000)
    kill_writer(world)
    world.kill_daemon()
    grow(file, 3_000_000)
    flood.stop()
    assert run.wait(60) == Flood.STATUS
    assert sink.process.wait(60) == 0
    assert contents(file) == sink.data() == flood.output()
    stalled.kill()


if __name__ == "__main__":
    sys.exit(pytest.main([__file__]))
