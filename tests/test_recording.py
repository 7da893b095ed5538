"""`record`, `--record`, `play` and `export`: the file has all output once and in order with sizes
and input in their places, whatever is killed, and no secret."""

import json
import os
import random
import resource
import shutil
import signal
import stat

import pytest

from ptyguard_core import render
from ptyguard_core.screen import Screen
from test_logwriter import contents, gated, grow, limit_files, writers
from world import MEMORY, Flood, World, is_alive, wait_until


@pytest.fixture
def world():
    with World(under=MEMORY) as made:
        yield made


@pytest.fixture
def file(world):
    """The path of a recording that is not there yet."""
    return os.path.join(world.directory, "x.cast")


def events(path):
    """[time, code, text] of each whole line, without the header."""
    try:
        lines = contents(path).split(b"\n")[1:-1]
    except FileNotFoundError:
        return []
    return [json.loads(line) for line in lines]


def text_of(path, code="o"):
    return "".join(text for _, which, text in events(path) if which == code)


def shows(path, text, code="o"):
    wait_until(lambda: text in text_of(path, code), f"{text!r} in the recording")


def codes(path):
    """Output and events in their order; neighbouring output as one."""
    found = []
    for _, code, text in events(path):
        if code == "o" and found and found[-1][0] == "o":
            found[-1] = ("o", found[-1][1] + text)
        elif code != "p":
            found.append((code, text))
    return found


def recorders(world):
    """The pids of this world's living helpers that record."""
    found = []
    for name in os.listdir("/proc"):
        try:
            with open(f"/proc/{name}/cmdline", "rb") as command:
                words = command.read().split(b"\0")
        except OSError:                 # no process, or none any more
            continue
        if b"__logwriter" in words and b"recording" in words and world.paths.root.encode() in words \
                and is_alive(int(name)):
            found.append(int(name))
    return found


def kill_recorder(world):
    """kill -9; returns once that process is gone."""
    pid = wait_until(lambda: (recorders(world) or [None])[0], "a recorder")
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not is_alive(pid), "the recorder's death")


def recording_facts(world, name):
    return world.json("info", name)["recording"]


def record(world, *args):
    """A `record` in the background that has begun."""
    recording = world.popen("record", *args)
    path = args[1]
    wait_until(lambda: os.path.exists(path) and os.path.getsize(path) or recording.poll() is not None, "its file")
    assert recording.poll() is None
    return recording


def follows(world, name):
    """Whether somebody follows that session who is not one of our helpers."""
    return world.json("info", name)["viewers"]


def stop(recording, number=signal.SIGINT):
    recording.send_signal(number)
    return recording.wait(60)


# -- start --record ------------------------------------------------------------------------------


def test_a_recording_has_all_output_as_text_and_is_private_once_the_run_is_over(world, file):
    script = "printf 'h\\303\\251\\377\\033[1mbold\\n\\303'; exit 3"
    done = world.run("run", "-n", "s", "--size", "90x20", "--record", file, "--", "sh", "-c", script, check=3)
    assert text_of(file) == done.stdout.decode("utf-8", "replace") == "hé\ufffd\x1b[1mbold\r\n\ufffd"
    header = json.loads(contents(file).split(b"\n")[0])
    assert (header["version"], header["width"], header["height"], header["title"]) == (2, 90, 20, "s")
    assert stat.S_IMODE(os.stat(file).st_mode) == 0o600
    assert recording_facts(world, "s") == {"path": file, "error": None, "missed": 0, "input": False}
    assert file in world.run("info", "s", check=0).stdout.decode()


def test_a_session_has_a_log_and_a_recording_at_once(world, file):
    log, flood = file + ".log", Flood(world.directory)
    world.run("start", "-n", "s", "--log", log, "--record", file, "--", *flood.argv, check=0)
    flood.go()
    wait_until(lambda: os.path.exists(log) and os.path.getsize(log) > 500_000, "some of it")
    flood.stop()
    world.run("wait", "s", check=Flood.STATUS)
    assert contents(log) == flood.output() and text_of(file) == flood.output().decode("ascii")


@pytest.mark.parametrize("victim", ["recorder", "daemon", "both"])
def test_killed_again_and_again_under_a_flood_it_has_everything_once_and_in_order(world, file, victim):
    flood, chance = Flood(world.directory), random.Random(victim)
    world.run("start", "-n", "s", "--record", file, "--", *flood.argv, check=0)
    flood.go()
    for _ in range(20 if victim != "both" else 8):
        size = os.path.getsize(file) if os.path.exists(file) else 0
        wait_until(lambda: os.path.getsize(file) > size + chance.randrange(100_000), "more of it")
        if victim != "daemon":
            kill_recorder(world)
        if victim != "recorder":
            world.new_daemon_pid(world.kill_daemon())
    flood.stop()
    world.run("wait", "s", check=Flood.STATUS)
    wait_until(lambda: not recorders(world), "the recorder's leave")
    assert text_of(file) == flood.output().decode("ascii")
    times = [time for time, _, _ in events(file)]
    assert times == sorted(times)
    assert recording_facts(world, "s")["missed"] == 0


@pytest.mark.parametrize("scrollback", ["64K", "1M"])
@pytest.mark.parametrize("option", ["--log", "--record"])
def test_a_writer_killed_while_it_was_behind_loses_nothing_that_it_was_sent(world, file, option, scrollback):
    """What had been sent to it, and not been written, used to be overwritten and so lost."""
    flood = Flood(world.directory)
    world.run("start", "-n", "s", "--scrollback", scrollback, option, file, "--", *flood.argv, check=0)
    wait_until(lambda: os.path.exists(file) and b"ready" in contents(file), "its beginning")
    for number in range(3):
        writer = wait_until(lambda: (writers(world) or [None])[0], "a writer")
        if number:
            grow(file, 1)
        os.kill(writer, signal.SIGSTOP)
        if not number:
            flood.go()
        stalled(world, "s")
        os.kill(writer, signal.SIGKILL)
        wait_until(lambda: not is_alive(writer), "its death")
    flood.stop()
    world.run("wait", "s", check=Flood.STATUS)
    wait_until(lambda: not writers(world), "the writer's leave")
    whole = contents(file) if option == "--log" else text_of(file).encode()
    assert whole == flood.output()


def stalled(world, name):
    """Wait until nothing of that session is read any more."""
    ends = []

    def stands():
        ends.append(world.json("info", name)["offsets"]["end"])
        return ends[-1] > 40_000 and ends[-3:] == [ends[-1]] * 3

    wait_until(stands, "the program being held")


def test_restart_daemon_restart_and_upgrade_go_on_in_the_same_file(world, file):
    world.run("start", "-n", "s", "--record", file, "--", "sh", "-c", "echo begun; exec cat", check=0)
    shows(file, "begun")
    world.run("daemon", "restart", check=0)
    world.run("send", "s", "--enter", "one", check=0)
    shows(file, "one\r\none\r\n")
    world.run("restart", "s", check=0)
    wait_until(lambda: text_of(file).count("begun") == 2, "the second program")
    world.run("send", "s", "--enter", "two", check=0)
    shows(file, "two\r\ntwo\r\n")
    world.run("kill", "s", check=0)
    assert text_of(file) == world.run("log", "--raw", "s", check=0).stdout.decode()


def test_what_was_left_of_a_line_is_cut_off_before_it_goes_on(world, file):
    world.run("start", "-n", "s", "--record", file, "--", "sh", "-c", "echo begun; exec cat", check=0)
    shows(file, "begun")
    world.run("daemon", "stop", "--sessions", "keep", check=0)
    wait_until(lambda: not recorders(world), "the recorder's leave")
    with open(file, "ab") as left:
        left.write(b'[0.5, "o", "half of a li')
    world.run("send", "s", "--enter", "two", check=0)
    shows(file, "two\r\ntwo\r\n")
    assert text_of(file) == "begun\r\ntwo\r\ntwo\r\n"


def test_a_recording_that_somebody_empties_becomes_a_recording_again(world, file):
    world.run("start", "-n", "s", "--record", file, "--", "sh", "-c", "echo begun; exec cat", check=0)
    shows(file, "begun")
    os.truncate(file, 0)
    world.run("send", "s", "--enter", "two", check=0)
    shows(file, "two\r\ntwo\r\n")
    kill_recorder(world)
    world.run("send", "s", "--enter", "three", check=0)
    shows(file, "three\r\nthree\r\n")
    assert text_of(file) == "two\r\ntwo\r\nthree\r\nthree\r\n"
    assert json.loads(contents(file).split(b"\n")[0])["version"] == 2


@pytest.mark.skipif(not hasattr(resource, "prlimit"), reason="needs prlimit(2)")
def test_a_recording_that_cannot_grow_holds_nobody_and_marks_what_it_missed(world, file):
    with world.connect() as pg:
        session = pg.start(["sh", "-c", "echo begun; read x; seq 300000; read y; exit 6"], record=file)
        shows(file, "begun")
        daemon = world.daemon_pid()
        for pid in [daemon] + recorders(world):
            limit_files(pid, 4096)
        session.send(b"", enter=True)
        session.wait_for(rb"(?m)^300000$", timeout_s=60)    # held back by nobody
        told = wait_until(lambda: session.info()["recording"]["error"], "the trouble")
        assert told in world.run("status", check=0).stdout.decode()
        limit_files(daemon, resource.RLIM_INFINITY)
        wait_until(lambda: not session.info()["recording"]["error"], "the next try")
        session.send(b"", enter=True)
        assert session.wait() == {"code": 6, "signal": None}
        shows(file, "300000\r\n\r\n")
        marker, = (text for code, text in codes(file) if code == "m")
        _, since, _, until, *_ = marker.split()
        assert session.info()["recording"]["missed"] == int(until) - int(since) > 0
        start, whole = session.read()
        assert int(until) <= start and text_of(file).endswith(whole.decode())


def test_the_python_interface_takes_a_recording(world, file):
    with world.connect() as pg:
        session = pg.start(["sh", "-c", "read x; echo $x"], record=os.fsencode(file), record_input=True)
        session.send(b"hello", enter=True)
        session.wait()
        assert session.info()["recording"] == {"path": file, "error": None, "missed": 0, "input": True}
    assert text_of(file, "i") == "hello\r" and "hello\r\nhello\r\n" == text_of(file)


def test_what_cannot_be_a_recording_is_refused_before_anything_is_started(world, file):
    fifo, text, foreign = (os.path.join(world.directory, name) for name in ("fifo", "text", "foreign"))
    os.mkfifo(fifo)
    with open(text, "w") as other:
        other.write("notes of mine\n")
    with open(foreign, "w") as other:
        other.write('{"version": 2, "width": 80, "height": 24}\n[0.1, "o", "x"]\n')
    for path in [world.directory, "/dev/null", fifo, text, foreign, os.path.join(world.directory, "no", "file")]:
        refused = world.run("start", "--record", path, "--", "touch", world.directory + "/ran", check=1)
        assert refused.stderr.startswith(b"ptyguard: cannot record to ") and not refused.stdout
    assert world.json("status")["state"] == "stopped" and not os.path.exists(world.directory + "/ran")
    assert contents(text) == b"notes of mine\n"
    world.run("start", "--record-input", "--", "true", check=2)


def test_a_file_that_is_another_sessions_is_refused_and_left_alone(world, file):
    world.run("start", "-n", "a", "--record", file, "--", "cat", check=0)
    for option in ("--record", "--log"):
        refused = world.run("start", "-n", "b", option, file, "--", "true", check=4)
        assert b"is the recording of session a" in refused.stderr
    world.run("start", "-n", "b", "--record", file + "2", "--log", file + "2", "--", "true", check=2)
    world.run("rm", "--no-tombstone", "a", check=0)
    before = contents(file)
    assert b"is a recording already" in world.run("start", "--record", file, "--", "true", check=4).stderr
    assert contents(file) == before


def test_a_run_that_rejoins_leaves_the_recording_to_who_writes_it(world, file):
    line, open_gate = gated(world, "echo done")
    first = world.popen("run", "-n", "s", "--record", file, "--", "sh", "-c", line)
    wait_until(lambda: os.path.exists(file) and os.path.getsize(file), "its file")
    second = world.popen("run", "-n", "s", "--record", file, "--", "sh", "-c", line)
    wait_until(lambda: len(world.json("info", "s")["viewers"]) == 2, "both")
    open_gate()
    assert first.wait(60) == second.wait(60) == 0
    assert text_of(file) == "done\r\n"


# -- sizes and input in their places -----------------------------------------------------------------


def test_sizes_stand_where_the_output_was(world, file):
    world.run("start", "-n", "s", "--record", file, "--", "sh", "-c", "stty -echo; echo begun; exec cat", check=0)
    expected = [("o", "begun\r\n")]
    for number in range(1, 6):
        shows(file, expected[-1][1])
        world.run("resize", "s", f"{80 + number}x{20 + number}", check=0)
        world.run("send", "s", "--enter", f"line {number}", check=0)
        expected += [("r", f"{80 + number}x{20 + number}"), ("o", f"line {number}\r\n")]
        shows(file, f"line {number}\r\n")
    assert codes(file) == expected


def test_a_size_of_while_no_recorder_or_daemon_was_there_is_not_forgotten(world, file):
    world.run("start", "-n", "s", "--record", file, "--", "sh", "-c", "stty -echo; echo begun; exec cat", check=0)
    shows(file, "begun")
    world.run("daemon", "stop", "--sessions", "keep", check=0)
    wait_until(lambda: not recorders(world), "the recorder's leave")
    world.run("resize", "s", "100x30", check=0)
    world.run("send", "s", "--enter", "after", check=0)
    shows(file, "after")
    assert codes(file) == [("o", "begun\r\n"), ("r", "100x30"), ("o", "after\r\n")]


def test_what_is_typed_is_recorded_only_if_that_was_asked_for(world, file):
    for name, more in (("without", ()), ("with", ("--record-input",))):
        world.run("start", "-n", name, "--record", file + name, *more, "--", "sh", "-c",
                  "stty -echo -icanon; echo begun; dd bs=1 count=6 2>/dev/null | tr a-z A-Z; echo ended", check=0)
        shows(file + name, "begun")
        world.run("send", name, "héllo", check=0)
        world.run("wait", name, check=0)
    assert text_of(file + "without", "i") == "" and text_of(file + "with", "i") == "héllo"
    assert "ended" in text_of(file + "without")


SECRET_PROMPTS = {
    "stty": "stty -echo; echo prompt; read x; stty echo; echo over; read y; echo $y",
    "read -s": "exec bash -c 'echo prompt; read -s x; echo over; read y; echo $y'",
    "getpass": "exec python3 -c 'import getpass; getpass.getpass(\"prompt\"); print(\"over\"); print(input())'",
}


@pytest.mark.parametrize("how", SECRET_PROMPTS)
def test_a_password_is_nowhere_in_a_recording_with_input(world, file, how):
    line, open_gate = gated(world, SECRET_PROMPTS[how])
    world.run("start", "-n", "s", "--record", file, "--record-input", "--", "sh", "-c", line, check=0)
    verb = record(world, "s", file + "2", "--input")
    wait_until(lambda: follows(world, "s"), "the verb")
    open_gate()
    for path in (file, file + "2"):
        shows(path, "prompt")
    terminal = world.json("info", "s")["pid"]
    wait_until(lambda: is_silent(terminal), "the echo being off")
    world.run("send", "s", "--enter", "hunter2", check=0)
    for path in (file, file + "2"):
        shows(path, "over")
    world.run("send", "s", "--enter", "in the open", check=0)
    world.run("wait", "s", check=0)
    assert verb.wait(60) == 0
    for path in (file, file + "2"):
        assert b"hunter2" not in contents(path)
        assert text_of(path, "i").count("in the open\r") == 1 and "\r\n" in text_of(path)
    for place, _, names in os.walk(world.state):
        for name in names:
            if os.path.isfile(os.path.join(place, name)):
                assert b"hunter2" not in contents(os.path.join(place, name))


def is_silent(pid):
    """Whether the terminal of that process does not echo."""
    import termios
    fd = os.open(f"/proc/{pid}/fd/0", os.O_RDONLY | os.O_NOCTTY)
    try:
        return not termios.tcgetattr(fd)[3] & termios.ECHO
    finally:
        os.close(fd)


# -- the verb ------------------------------------------------------------------------------------------


def test_record_follows_from_now_on_to_the_end_over_a_daemons_death(world, file):
    world.run("start", "-n", "s", "--", "sh", "-c", "echo before; exec cat", check=0)
    world.run("wait", "s", "--for", "before", check=0)
    recording = record(world, "s", file)
    world.run("send", "s", "--enter", "one", check=0)
    shows(file, "one\r\none\r\n")
    world.new_daemon_pid(world.kill_daemon())
    world.run("send", "s", "--enter", "two", check=0)
    shows(file, "two\r\ntwo\r\n")
    world.run("kill", "s", check=0)
    assert recording.wait(60) == 0
    assert text_of(file).endswith("one\r\none\r\ntwo\r\ntwo\r\n")
    assert stat.S_IMODE(os.stat(file).st_mode) == 0o600


def test_record_begins_with_the_screen_as_it_is_and_cuts_nothing(world, file):
    first = "\\033[?1049h\\033[5;5Hshown before\\033[1;3"
    line, open_gate = gated(world, "printf '1mred \\303'; exec cat")
    world.run("start", "-n", "s", "--size", "40x10", "--", "sh", "-c", f"stty -echo; printf '{first}'; {line}", check=0)
    world.run("wait", "s", "--for", "shown before", check=0)
    record(world, "s", file)
    open_gate()
    shows(file, "red")
    world.run("send", "s", "--enter", "\u00e9"[:1], check=0)
    shows(file, "\u00e9")
    whole = text_of(file)
    assert whole.index("shown before") < whole.index("\x1b[1;31mred ")
    screen = Screen((40, 10))
    screen.feed(whole.encode())
    shown = world.run("screen", "s", check=0).stdout.decode()
    assert render.render_text(screen) == shown and "shown before" in shown and screen.is_alternate


def test_sizes_of_before_a_recorder_came_back_stand_in_their_places(world, file):
    world.run("start", "-n", "s", "--", "sh", "-c", "stty -echo; exec cat", check=0)
    first = record(world, "s", file)
    expected = []
    assert stop(first) == 0
    for number in range(1, 4):
        world.run("resize", "s", f"{80 + number}x{20 + number}", check=0)
        world.run("send", "s", "--enter", f"line {number}", check=0)
        world.run("wait", "s", "--for", f"line {number}", check=0)
        expected += [("r", f"{80 + number}x{20 + number}"), ("o", f"line {number}\r\n")]
    record(world, "s", file)
    shows(file, "line 3")
    assert [event for event in codes(file) if event[0] == "r" or "line" in event[1]] == expected


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGKILL])
def test_a_record_that_was_stopped_goes_on_where_it_ended(world, file, number):
    world.run("start", "-n", "s", "--", "sh", "-c", "stty -echo; exec cat", check=0)
    first = record(world, "s", file)
    world.run("send", "s", "--enter", "one", check=0)
    shows(file, "one")
    assert stop(first, number) == (0 if number != signal.SIGKILL else -9)
    world.run("send", "s", "--enter", "while nobody recorded", check=0)
    world.run("wait", "s", "--for", "while nobody", check=0)
    second = record(world, "s", file)
    shows(file, "while nobody recorded")
    world.run("send", "s", "--enter", "two", check=0)
    shows(file, "two")
    assert stop(second) == 0
    assert text_of(file).endswith("one\r\nwhile nobody recorded\r\ntwo\r\n")


def test_record_refuses_what_is_not_its_own(world, file):
    world.run("start", "-n", "a", "--record", file, "--", "cat", check=0)
    world.run("start", "-n", "b", "--", "cat", check=0)
    wait_until(lambda: os.path.getsize(file), "its beginning")
    with open(file + ".txt", "w") as other:
        other.write("notes\n")
    os.symlink(file + ".txt", file + ".link")
    for name, path, why in [("b", file, b"locked"), ("a", file, b"locked"), ("b", file + ".txt", b"no header"),
                            ("b", file + ".link", b"no header"), ("b", world.directory, b"directory")]:
        refused = world.run("record", name, path, check=1)
        assert why in refused.stderr, refused.stderr
    world.run("kill", "a", check=0)
    before = contents(file)
    assert b"another session" in world.run("record", "b", file, check=1).stderr
    assert contents(file) == before and contents(file + ".txt") == b"notes\n"
    world.run("record", "nobody", file + "3", check=3)
    world.run("record", "a", file + "3", check=3)
    assert not os.path.exists(file + "3")


def test_record_that_cannot_keep_up_tells_what_it_missed_and_marks_it(world, file):
    flood = Flood(world.directory)
    world.run("start", "-n", "s", "--scrollback", "64K", "--", *flood.argv, check=0)
    recording = world.popen("record", "s", file, stderr=open(file + ".err", "wb"))
    wait_until(lambda: os.path.exists(file) and os.path.getsize(file), "its file")
    recording.send_signal(signal.SIGSTOP)
    flood.go()
    wait_until(lambda: world.json("info", "s")["offsets"]["start"] > 1_000_000, "much output")
    recording.send_signal(signal.SIGCONT)
    flood.stop()
    world.run("wait", "s", check=Flood.STATUS)
    assert recording.wait(60) == 1
    markers = [text.split() for code, text in codes(file) if code == "m"]
    missed = sum(int(words[3]) - int(words[1]) for words in markers)
    assert missed + len(text_of(file)) >= len(flood.output()) - len("ready\r\n") and missed > 0
    assert b"was overwritten before it could be recorded" in contents(file + ".err")


def test_record_with_hold_misses_nothing(world, file):
    flood = Flood(world.directory)
    world.run("start", "-n", "s", "--scrollback", "64K", "--", *flood.argv, check=0)
    world.run("wait", "s", "--for", "ready", check=0)
    recording = record(world, "s", file, "--hold", "60s")
    flood.go()
    wait_until(lambda: os.path.getsize(file) > 1_000_000, "much output")
    flood.stop()
    assert recording.wait(60) == 0
    assert text_of(file).endswith(flood.output().decode("ascii")[len("ready\r\n"):])


# -- play and export ----------------------------------------------------------------------------------


CAST = ('{"version": 2, "width": 80, "height": 24, "title": "demo"}\n[0.1, "o", "one \\u001b[31m\\u001b[6n"]\n'
        '[0.2, "i", "typed"]\n[3600.0, "o", "two\\r\\n\\u001b[?1049h"]\n')


def write(path, text):
    with open(path, "w", encoding="utf-8") as other:
        other.write(text)


def test_play_writes_the_output_without_questions_and_undoes_modes(world, file):
    write(file, CAST)
    expected = b"one \x1b[31mtwo\r\n\x1b[?1049h\x1b[?1049l\x1b[m"
    assert world.run("play", file, "--idle-limit", "100ms", check=0).stdout == expected
    assert world.run("play", "--speed", "100000", "-", input=CAST.encode(), check=0).stdout == expected
    assert not os.path.exists(world.env["PTYGUARD_DIR"])    # no daemon is asked


def test_play_on_a_terminal_ends_by_ctrl_c_with_its_modes_undone(world, file):
    write(file, '{"version": 2, "width": 200, "height": 24}\n[0, "o", "\\u001b[?1049hfull screen"]\n[9999, "o", "x"]\n')
    terminal = world.terminal("play", file)
    terminal.expect(rb"recorded in a terminal of 200x24, this one has 80x24")
    terminal.expect(rb"\x1b\[\?1049hfull screen")
    terminal.send(b"\x03")
    terminal.expect(rb"\x1b\[\?1049l")
    assert terminal.wait() == 130


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGHUP])
def test_play_that_is_ended_by_a_signal_leaves_a_usable_terminal(world, file, signum):
    write(file, '{"version": 2, "width": 80, "height": 24}\n[0, "o", "\\u001b[?1003h\\u001b[?25lx"]\n[9999, "o", "x"]\n')
    terminal = world.terminal("play", file)
    terminal.expect(rb"\x1b\[\?25lx")
    terminal.process.send_signal(signum)
    terminal.expect(rb"\x1b\[\?1003l.*\x1b\[\?25h")
    assert terminal.wait() == 128 + signum


def test_play_that_is_stopped_gives_the_terminal_back_and_goes_on(world, file):
    write(file, '{"version": 2, "width": 80, "height": 24}\n[0, "o", "\\u001b[?1049hx"]\n[1, "o", "on and on"]\n')
    terminal = world.terminal("play", file)
    terminal.expect(rb"\x1b\[\?1049hx")
    terminal.process.send_signal(signal.SIGTSTP)
    terminal.expect(rb"\x1b\[\?1049l")
    terminal.process.send_signal(signal.SIGCONT)
    terminal.expect(rb"\x1b\[\?1049h.*on and on.*\x1b\[\?1049l")
    assert terminal.wait() == 0


def test_a_recording_is_not_exported_over_itself(world, file):
    write(file, CAST)
    before = open(file, "rb").read()
    assert b"is the recording itself" in world.run("export", file, "--svg", "-o", file, check=1).stderr
    assert open(file, "rb").read() == before


def test_play_and_export_say_what_is_wrong_and_where(world, file):
    write(file, CAST + '[1, "o"]\n[2, "o", "x"]\n')
    for verb in (["play", "--speed", "100000"], ["export", "--html"], ["export", "--svg"]):
        refused = world.run(*verb, file, check=1)
        assert b"x.cast: line 5: it is no event" in refused.stderr and b"Traceback" not in refused.stderr
        assert b"No such file" in world.run(*verb, file + "2", check=1).stderr
    write(file, CAST + '[4000, "o", "cut o')
    done = world.run("play", file, "--speed", "100000", check=0)
    assert b"the last line is cut off" in done.stderr and b"two" in done.stdout
    world.run("export", file, check=2)
    world.run("play", file, "--speed", "0", check=2)
    world.run("play", check=2)


def test_play_to_a_reader_that_leaves_ends(world, file):
    write(file, '{"version": 2, "width": 80, "height": 24}\n' + '[0, "o", "%s"]\n' % ("x" * 10000) * 100)
    source, sink = os.pipe()
    playing = world.popen("play", file, stdout=sink)
    os.close(sink)
    os.read(source, 100)
    os.close(source)
    assert playing.wait(60) == 141


def test_export_makes_a_page_and_a_picture_of_what_was_recorded(world, file):
    world.run("run", "-n", "s", "--record", file, "--", "sh", "-c", "printf '\\033[32mgreen <b>\\033[m'", check=0)
    page = world.run("export", file, "--html", "--title", "A & B", check=0).stdout.decode()
    assert "<title>A &amp; B</title>" in page and "green \\u003cspan" not in page and "green &lt;b>" not in page
    assert "green &amp;lt;" not in page and "green &lt;b&gt;" in page
    picture = file + ".svg"
    assert world.run("export", "--svg", "-o", picture, "-", input=contents(file), check=0).stdout == b""
    assert "green &lt;b&gt;" in contents(picture).decode()
    os.chmod(picture, 0o644)
    world.run("export", "--svg", file, "-o", picture, "--idle-limit", "1", check=0)
    assert b"No such file" in world.run("export", "--svg", file, "-o", file + "/no/x", check=1).stderr \
        or b"Not a directory" in world.run("export", "--svg", file, "-o", file + "/no/x", check=1).stderr


@pytest.mark.skipif(shutil.which("asciinema") is None, reason="needs asciinema")
def test_asciinema_reads_what_was_recorded(world, file):
    world.run("start", "-n", "s", "--record", file, "--record-input", "--", "sh", "-c", "echo begun; read x; echo héllo",
              check=0)
    shows(file, "begun")
    world.run("resize", "s", "100x30", check=0)
    kill_recorder(world)
    world.run("send", "s", "--enter", "typed", check=0)
    world.run("wait", "s", check=0)
    terminal = world.terminal("cat", file, program=[shutil.which("asciinema")])
    terminal.expect("begun\r+\ntyped\r+\nhéllo\r+\n".encode())
    assert terminal.wait() == 0
    terminal = world.terminal("play", "-i", "0.1", file, program=[shutil.which("asciinema")])
    terminal.expect("héllo".encode())
    assert terminal.wait() == 0
