"""Logview: two logs read as one, whatever is in them and whatever happens to them."""

import os
import re
import signal

from hypothesis import given, strategies as st

from ptyguard_core import journal
from ptyguard_core.logview import LogTail, last_death, merged
from world import MEMORY, World, wait_until


def stamped(second, text):
    return f"2026-11-30T01:52:{second:02}.000Z {text}\n".encode()


def test_lines_of_two_logs_come_in_order_of_time():
    daemon = stamped(1, "daemon one") + stamped(4, "daemon four")
    guard = stamped(2, "guard two") + stamped(3, "guard three") + stamped(5, "guard five")
    assert [line.split()[-1] for line in merged([daemon, guard])] == ["one", "two", "three", "four", "five"]


def test_a_traceback_stays_with_the_line_that_it_follows():
    daemon = stamped(1, "daemon one") + b"Traceback:\n  in x\n" + stamped(4, "daemon four")
    assert [line.split()[-1] for line in merged([daemon, stamped(2, "guard two")])] == [
        "one", "Traceback:", "x", "two", "four"]
    assert merged([b"no time\nat all\n", stamped(1, "a")])[:2] == ["no time", "at all"]


def test_a_clock_that_was_set_back_disorders_no_log_in_itself():
    guard = stamped(9, "nine") + stamped(1, "one") + stamped(2, "two")
    assert [line.split()[-1] for line in merged([guard, stamped(5, "five")])] == ["five", "nine", "one", "two"]


@given(st.lists(st.lists(st.tuples(st.integers(0, 59), st.text("ab\x1b\x07\r é", max_size=5)), max_size=6),
                min_size=1, max_size=3))
def test_no_line_is_lost_or_changes_its_place_in_its_own_log(logs):
    texts = [b"".join(stamped(second, f"{number} {index} {text!a}") for index, (second, text) in enumerate(log))
             for number, log in enumerate(logs)]
    lines = [line.split()[1:3] for line in merged(texts)]
    for number, log in enumerate(logs):
        assert [index for which, index in lines if which == str(number)] == [str(n) for n in range(len(log))]


@given(st.binary())
def test_whatever_a_log_holds_no_control_sequence_comes_out(data):
    assert all(line.isprintable() for line in merged([data, stamped(1, "x")]))


def write(path, data):
    with open(path, "ab") as file:
        file.write(data)


def test_what_comes_is_read_once_also_over_a_rotation(tmp_path):
    path = str(tmp_path / "x.log")
    log = LogTail(path)
    assert not log.exists and log.read() == b""
    write(path, b"one\n")
    assert log.read() == b"one\n" and log.exists
    write(path, b"two\n")
    os.rename(path, path + ".1")
    assert log.read() == b"two\n"
    write(path, b"three\n")
    assert (log.read(), log.read()) == (b"three\n", b"")
    log.close()


def test_older_files_give_what_is_missing_in_order(tmp_path):
    path = str(tmp_path / "x.log")
    for suffix, data in (("", b"5\n"), (".1", b"3\n4\n"), (".2", b"1\n2\n"), (".3", b"0\n")):
        write(path + suffix, data)
    log = LogTail(path)
    assert [log.older(count) for count in (0, 1, 3, 9)] == [b"", b"3\n4\n", b"1\n2\n3\n4\n", b"0\n1\n2\n3\n4\n"]
    assert LogTail(str(tmp_path / "none")).older(5) == b""
    log.close()


def test_what_is_no_file_is_not_waited_for(tmp_path):
    path = str(tmp_path / "x.log")
    os.mkfifo(path)
    log = LogTail(path)
    assert not log.exists and log.read() == b"" and last_death(path) is None


def death(second, cause, pid=7):
    return journal.format_line(f"2026-11-30T01:52:{second:02}.000Z guard", "daemon_ended",
                               {"pid": pid, "cause": cause, "was_ready": 1})


def test_the_last_death_is_the_last_that_nobody_asked_for(tmp_path):
    path = str(tmp_path / "guard.log")
    assert last_death(path) is None
    write(path, death(1, "killed by SIGKILL") + death(2, "killed by SIGSEGV", 8) + stamped(3, "guard x"))
    wanted = {"at": "2026-11-30T01:52:02.000Z", "pid": 8, "cause": "killed by SIGSEGV"}
    assert last_death(path) == wanted
    write(path, death(4, "exit status 0"))
    assert last_death(path) == wanted
    for asked in (b"stopping kept=0", b"daemon_stop_asked pid=7"):      # of a foreign one that is all we see
        write(path, stamped(4, "guard " + asked.decode()) + death(4, "killed by SIGKILL"))
    assert last_death(path) == wanted
    write(path, death(5, "no answer for 5 s: \"it's\" deaf"))
    assert last_death(path)["cause"].startswith("no answer for 5 s")


def test_a_log_that_cannot_be_read_tells_of_no_death(tmp_path):
    os.symlink("loop", str(tmp_path / "loop"))
    assert last_death(str(tmp_path / "loop")) is None
    assert last_death(str(tmp_path / "loop" / "x")) is None


# -- the verb -------------------------------------------------------------------------------

def test_daemon_log_tells_of_the_daemons_death_between_its_lives():
    with World(under=MEMORY) as world:
        world.run("start", "-n", "s", "--", "sleep", "1000", check=0)
        killed = world.kill_daemon()
        world.new_daemon_pid(killed)
        world.run("ls", check=0)
        lines = world.run("daemon", "log", check=0).stdout.decode().splitlines()
        found = [line.split()[1] + " " + line.split()[2] for line in lines]
        assert found.index("daemon serving") < found.index("guard daemon_ended")
        assert [number for number, words in enumerate(found) if words == "daemon banner"][1] > found.index(
            "guard daemon_ended")
        assert [line.split()[0] for line in lines] == sorted(line.split()[0] for line in lines)
        last, = world.run("daemon", "log", "-n", "1", check=0).stdout.decode().splitlines()
        assert last == lines[-1]
        assert world.run("daemon", "log", "-n", "0", check=0).stdout == b""


def test_daemon_log_follows_both():
    with World(under=MEMORY) as world:
        world.run("ls", check=0)
        path = os.path.join(world.directory, "out")
        with open(path, "wb") as out:
            following = world.popen("daemon", "log", "-f", stdout=out)

        def shows(pattern):
            with open(path, "rb") as file:
                return re.search(pattern, file.read())
        wait_until(lambda: shows(rb"daemon serving"), "what is there")
        killed = world.kill_daemon()
        wait_until(lambda: shows(rb"guard daemon_ended pid=%d" % killed), "the death")
        wait_until(lambda: shows(rb"(?s)daemon_ended.*daemon serving"), "the next one")
        following.send_signal(signal.SIGINT)
        following.wait(60)


def test_daemon_log_without_a_log_fails_and_says_where_there_is_none():
    with World(under=MEMORY) as world:
        done = world.run("daemon", "log", check=1)
        assert done.stdout == b"" and os.fsencode(world.env["PTYGUARD_DIR"]) in done.stderr
        assert not os.path.exists(world.env["PTYGUARD_DIR"])


def test_on_a_terminal_daemon_log_says_what_it_shows():
    with World(under=MEMORY) as world:
        world.run("ls", check=0)
        shown = world.terminal("daemon", "log")
        shown.expect(rb"daemon.log and guard.log, by time")
        shown.expect(rb"daemon serving")
