"""First version: a guard from long ago, a client that was never updated, a daemon that one went back to.

tests/frozen/first.pyz is that program, frozen as both wires were of version 1.
"""

import json
import os
import shutil
import subprocess
import sys

import pytest

from ptyguard_core import frames, guardwire as wire
from ptyguard_core.version import OURS
from world import LIMIT_S, MEMORY, ROOT, Flood, World, is_alive, wait_until

FIRST = os.path.join(ROOT, "tests", "frozen", "first.pyz")
FIRST_VERSION = "0.0.9"


class Mixed(World):
    """A world in which two programs are used: `run` is ours, `first` is the frozen one."""

    def first(self, *args, **options):
        before, self.program = self.program, [sys.executable, self.archive]
        try:
            return self.run(*args, **options)
        finally:
            self.program = before

    @property
    def archive(self):
        """A copy that only its owner can write, whatever the checkout's mode is."""
        path = os.path.join(self.directory, "first.pyz")
        if not os.path.exists(path):
            shutil.copyfile(FIRST, path)
            os.chmod(path, 0o600)
        return path


@pytest.fixture
def mixed():
    with Mixed(under=MEMORY) as world:
        yield world


def echoes(run, world, name, text):
    """Whether a session that copies its input still does."""
    run("send", "--enter", name, text, check=0)
    world.run("wait", name, "--for", f"{text}\\s+{text}", "--timeout", "60", check=0)
    return True


# -- a guard from long ago --------------------------------------------------------------------

def test_an_old_guard_gets_a_daemon_of_today_and_no_session_notices(mixed):
    flood = Flood(mixed.directory)
    with open(os.path.join(mixed.directory, "out"), "w+b") as out:
        mixed.first("start", "-n", "s", "--", "cat", check=0)
        mixed.first("run", "-n", "over", "--", "sh", "-c", "exit 9", check=9)
        guard = mixed.guard_pid()
        before = json.loads(mixed.first("ls", "-a", "--json", check=0).stdout)["sessions"]
        program, mixed.program = mixed.program, [sys.executable, mixed.archive]
        reader = mixed.popen("run", "-n", "flood", "--", *flood.argv, stdout=out)
        wait_until(lambda: not mixed.run("has", "flood").returncode, "the session")
        mixed.run("wait", "flood", "--for", "ready", "--timeout", "60", check=0)
        terminal = mixed.terminal("attach", "s")
        terminal.send(b"first\n")
        terminal.expect(rb"first\r\nfirst")
        mixed.program = program
        flood.go()

        mixed.run("upgrade", check=0)
        status = mixed.json("status")
        assert (status["daemon"]["version"], status["guard"]["version"]) == (OURS, FIRST_VERSION)
        terminal.send(b"second\n")              # the client of then goes on with the daemon of now
        terminal.expect(rb"second\r\nsecond")
        mixed.new_daemon_pid(mixed.kill_daemon())
        assert mixed.json("status")["daemon"]["version"] == OURS
        flood.stop()
        assert reader.wait(2 * LIMIT_S) == flood.STATUS
        out.seek(0)
        assert out.read() == flood.output()
    after = {session["name"]: session for session in mixed.json("ls", "-a")["sessions"]}
    for session in before:
        for key in ("id", "pid", "argv", "created_at", "size", "state", "exit"):
            assert after[session["name"]][key] == session[key], key
    mixed.run("wait", "over", check=9)
    mixed.run("start", "-n", "new", "--", "sh", "-c", "exit 5", check=0)
    mixed.run("wait", "new", check=5)
    assert mixed.guard_pid() == guard
    mixed.run("daemon", "stop", "--sessions", "kill", check=0)
    assert not is_alive(guard)


def test_what_an_old_guard_cannot_do_is_said_and_does_no_harm(mixed):
    mixed.first("start", "-n", "s", "--", "cat", check=0)
    mixed.run("upgrade", check=0)
    done = mixed.run("upgrade", "--guard", check=6)
    assert FIRST_VERSION.encode() in done.stderr and b"in place" in done.stderr
    mixed.run("start", "-n", "t", "--", "cat", check=0)
    assert b"guard" in mixed.run("restart", "t", check=6).stderr
    assert echoes(mixed.run, mixed, "t", "still")
    assert echoes(mixed.run, mixed, "s", "still")


def test_with_an_old_guard_a_newer_command_waits_while_a_session_lives(mixed):
    mixed.first("start", "-n", "s", "--", "cat", check=0)
    daemon = mixed.daemon_pid()
    assert echoes(mixed.run, mixed, "s", "hello")       # and works with the old daemon meanwhile
    assert mixed.daemon_pid() == daemon
    always = dict(mixed.env, PTYGUARD_AUTO_UPGRADE="always")
    mixed.run("ls", check=0, env=always)
    assert mixed.json("status")["daemon"]["version"] == OURS
    assert echoes(mixed.run, mixed, "s", "again")


# -- a client that was never updated ----------------------------------------------------------

def test_an_old_client_works_with_the_daemon_of_today(mixed):
    mixed.run("daemon", "start", check=0)
    daemon = mixed.daemon_pid()
    assert mixed.first("run", "--", "sh", "-c", "echo hi; exit 7", check=7).stdout == b"hi\r\n"
    assert mixed.first("start", "-n", "s", "--", "cat", check=0).stdout == b"s\n"
    assert echoes(mixed.first, mixed, "s", "hello")
    assert b"hello" in mixed.first("log", "s", check=0).stdout
    sessions = json.loads(mixed.first("ls", "--json", check=0).stdout)["sessions"]
    assert [session["name"] for session in sessions if session["state"] == "running"] == ["s"]
    program, mixed.program = mixed.program, [sys.executable, mixed.archive]
    terminal = mixed.terminal("attach", "s")
    terminal.send(b"typed\n")
    terminal.expect(rb"typed\r\ntyped")
    mixed.program = program
    mixed.new_daemon_pid(mixed.kill_daemon())
    terminal.send(b"again\n")
    terminal.expect(rb"again\r\nagain")
    mixed.first("detach", "s", check=0)
    assert terminal.wait() == 0
    mixed.first("wait", "s", "--timeout", "0", check=124)
    mixed.first("kill", "s", check=0)
    mixed.first("rm", "s", check=0)
    assert mixed.first("has", "s").returncode == 5     # it shows an error that it does not know
    assert mixed.json("status")["daemon"]["version"] == OURS and daemon
    assert mixed.first("status").returncode == 0


def test_an_old_client_never_takes_the_daemon_of_today_away(mixed):
    mixed.run("start", "-n", "s", "--", "cat", check=0)
    daemon = mixed.daemon_pid()
    many = [mixed.popen("ls", stdout=subprocess.DEVNULL) for _ in range(3)]
    for _ in range(3):
        mixed.first("ls", check=0)
    assert [process.wait(LIMIT_S) for process in many] == [0] * 3
    assert mixed.daemon_pid() == daemon


# -- a daemon that one goes back to -----------------------------------------------------------

def test_the_first_daemon_serves_under_the_guard_of_today_and_is_left_again(mixed):
    mixed.run("start", "-n", "s", "--label", "k=v", "--", "cat", check=0)
    mixed.run("run", "-n", "over", "--", "sh", "-c", "exit 6", check=6)
    mixed.run("upgrade", "--to", mixed.archive, check=0)
    assert mixed.json("status")["daemon"]["version"] == FIRST_VERSION
    assert echoes(mixed.run, mixed, "s", "back")
    mixed.new_daemon_pid(mixed.kill_daemon())
    mixed.first("wait", "over", check=6)
    mixed.run("upgrade", check=0)
    assert echoes(mixed.run, mixed, "s", "forth")
    session = mixed.json("info", "s")
    assert (session["labels"], session["restart"]) == ({"k": "v"}, "never")


def test_the_first_daemon_serves_also_with_a_session_that_was_given_up(mixed):
    """It died at once: that a session which is held has failed, it does not expect."""
    mixed.run("start", "-n", "s", "--", "cat", check=0)
    mixed.run("run", "-n", "f", "--restart", "always:1", "--", "sh", "-c", "exit 4", check=4)
    before = mixed.json("info", "f")
    assert before["state"] == "failed"
    mixed.run("start", "-n", "p", "--restart", "always:50", "--", "sh", "-c", "exit 5", check=0)
    attempts = wait_until(lambda: (now := mixed.json("info", "p")["relaunch"]["attempts"]) >= 3 and now, "a pause")
    mixed.run("upgrade", "--to", mixed.archive, check=0)
    assert mixed.json("status")["daemon"]["version"] == FIRST_VERSION
    mixed.first("wait", "f", check=4)
    assert echoes(mixed.run, mixed, "s", "back")
    mixed.run("upgrade", check=0)
    after = mixed.json("info", "f")
    assert (after["state"], after["reason"]) == ("failed", before["reason"])
    with open(os.path.join(mixed.state, "sessions", before["id"] + ".json")) as file:
        assert json.load(file)["state"] == "failed"
    wait_until(lambda: mixed.json("info", "p")["relaunch"]["attempts"] > attempts, "another attempt")
    assert echoes(mixed.run, mixed, "s", "forth")


# -- bytes ------------------------------------------------------------------------------------

def test_the_clients_wire_still_has_the_first_ones_bytes():
    assert frames.control(frames.HELLO, {"version": "0.0.9", "protocol": [1, 1]}) == bytes.fromhex(
        "0100000024 7b2276657273696f6e223a22302e302e39222c2270726f746f636f6c223a5b312c315d7d")
    assert frames.PROTOCOL_MIN == 1             # as long as the first version is to be understood
    assert [frames.HELLO, frames.WELCOME, frames.REQUEST, frames.REPLY, frames.EVENT, frames.OUTPUT,
            frames.INPUT, frames.RESTORE, frames.DATA, frames.PING, frames.PONG] == [
                1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11]


@pytest.mark.parametrize("type_, fields, data", [
    (wire.READY, {"version": "0.0.9", "pid": 7},
     "000a 0000 00000000 00000012 0032 00000005 302e302e39 000d 00000001 37"),
    (wire.GO, {}, "0021 0000 00000000 00000000"),
    (wire.STOP, {"mode": b"keep", "force": 0},
     "0034 0000 00000000 00000011 0046 00000004 6b656570 0047 00000001 30"),
])
def test_the_guards_wire_still_has_the_first_ones_bytes(type_, fields, data):
    assert wire.encode(type_, **fields) == bytes.fromhex(data)
