"""Status: what an operator reads at three in the morning; each state, each trouble, and the next step."""

import contextlib
import fcntl
import os
import signal

import pytest

from ptyguard_core.report import NEXT_STEPS, status_sheet
from test_guard import _POISONED, program
from test_tombstones import Changed
from world import MEMORY, World, wait_until


def facts(state="running", **changes):
    """What `status --json` tells while a daemon runs."""
    is_running = state == "running"
    return dict({
        "state": state, "reason": None,
        "daemon": {"pid": 21 if is_running else None, "version": "1.2.0", "protocol": [1, 1],
                   "started_at": 1000.0 if is_running else None, "binary": "/s/bin/x.pyz", "owner": "headless",
                   "linked": 0},
        "guard": {"pid": 20, "version": "1.2.0", "started_at": 1000.0},
        "dir": "/s", "socket": "/s/client.sock", "log": "/s/daemon.log", "guard_log": "/s/guard.log",
        "sessions": {"running": 2, "ended": 1}, "disk_error": None, "log_error": None, "circuit": None,
        "last_death": None, "quarantined": [], "kills_pending": [], "tombstones": 0,
        "update": {"pending": False, "running": "1.2.0", "newest": "1.2.0", "deferred_reason": None,
                   "last_failure": None}}, **changes)


def sheet(*args, **changes):
    return "\n".join(status_sheet(facts(*args, **changes), 1060.0))


def test_every_state_but_running_tells_the_next_step():
    assert set(NEXT_STEPS) == {"running", "starting", "stopped", "stale", "unhealthy"}
    assert "->" not in sheet()
    for state in set(NEXT_STEPS) - {"running"}:
        assert sheet(state).split("\n")[0] == f"daemon:     {state}"
        assert f"            -> {NEXT_STEPS[state]}" in sheet(state)


def test_where_all_is_well_no_trouble_is_told():
    for word in ("held back", "not ended", "last death", "no log", "disk"):
        assert word + ":" not in sheet()


# (facts, what is told of them)
TROUBLES = [
    ({"circuit": {"reason": "exit status 3", "deaths": 4, "retry_at": 1112.0}, "state": "unhealthy"},
     ["daemons keep dying, the last one by: exit status 3; the next try is in 52s",
      "sessions live on with the guard; clients are refused meanwhile",
      "-> ptyguard daemon log says why; mend that, then: ptyguard daemon restart"]),
    ({"circuit": {"reason": "exit status 3", "deaths": 4, "retry_at": None}, "state": "unhealthy"},
     ["daemons keep dying, the last one by: exit status 3\n"]),
    ({"state": "stopped"}, ["sessions live on with the guard\n", "guard:      pid 20"]),
    ({"state": "unhealthy", "reason": "it does not answer\nat all", "guard": dict.fromkeys(("pid", "version"))},
     ["it does not answer\n            at all\n", "guard:      not known", "-> ptyguard doctor"]),
    ({"guard": dict.fromkeys(("pid", "version"))}, ["guard:      none: it has died; the daemon serves on"]),
    ({"quarantined": ["a", "b"]}, ["held back:  a, b: daemons died opening it", "ptyguard daemon restart"]),
    ({"kills_pending": list("abcdefg")}, ["not ended:  a, b, c, d, e and 2 more: ", "ptyguard info NAME"]),
    ({"last_death": {"at": "2026-11-30T01:52:02.000Z", "pid": 8, "cause": "killed by SIGSEGV"}},
     ["last death: daemon 8, 2026-11-30T01:52:02.000Z: killed by SIGSEGV"]),
    ({"disk_error": "no record of a: No space left"}, ["disk:       no record of a: No space left\n",
                                                       "-> sessions run on; free some space there"]),
    ({"log_error": "No space left"}, ["no log:     /s/daemon.log cannot be written: No space left"]),
]


@pytest.mark.parametrize("changes, texts", TROUBLES)
def test_a_trouble_is_told_with_what_it_is_about_and_what_to_do(changes, texts):
    told = sheet(**changes)
    assert all(text in told for text in texts), told


def test_no_control_sequence_comes_out():
    told = sheet("unhealthy", quarantined=["\x1b[2J"], kills_pending=["\x07"], log_error="\x1b", disk_error="\x1b",
                 circuit={"reason": "\x1b]0;", "deaths": 1, "retry_at": None},
                 last_death={"at": "\x1b", "pid": 1, "cause": "\x1b"})
    assert all(line.isprintable() for line in told.split("\n"))


# -- real ones -------------------------------------------------------------------------------

def test_an_open_circuit_is_told_with_the_next_try():
    with World(under=MEMORY) as world:
        bad = program(world, "bad.py", "import sys; sys.exit('the very reason')")
        with world.guard_with(bad):
            told = wait_until(lambda: world.json("status")["circuit"], "the circuit")
            assert told["reason"] == "exit status 1" and told["retry_at"] > 0
            text = world.run("status", check=1).stdout.decode()
            assert "the last one by: exit status 1; the next try is in " in text
            assert "-> ptyguard daemon log says why" in text
            assert b"the very reason" in world.run("daemon", "log", check=0).stdout
            world.run("daemon", "restart", check=0)
            assert world.json("status")["circuit"] is None


def test_a_killed_daemon_is_told_after_its_successor_came():
    with World(under=MEMORY) as world:
        world.run("ls", check=0)
        assert world.json("status")["last_death"] is None
        killed = world.kill_daemon()
        world.new_daemon_pid(killed)
        told = world.json("status")["last_death"]
        assert (told["pid"], told["cause"]) == (killed, "killed by SIGKILL")
        world.run("daemon", "restart", check=0)         # on purpose is no death
        assert world.json("status")["last_death"] == told


def test_a_session_that_is_held_back_is_named():
    with World(under=MEMORY) as world:
        with world.guard_with(program(world, "poisoned.py", _POISONED)), world.connect() as pg:
            pg.start(["sleep", "1000"], name="poison")
            world.kill_daemon()
            wait_until(lambda: "quarantined=1" in world.log("guard"), "the quarantine")
            assert pg.status()["quarantined"] == ["poison"]
            assert b"held back:  poison: " in world.run("status", check=0).stdout


def test_a_kill_that_was_not_confirmed_is_named():
    with World(under=MEMORY) as world:
        changed = Changed(world)
        with world.guard_with(changed.program), world.connect() as pg:
            session = pg.start(["sleep", "1000"], "x")
            changed.put("spared", str(session.facts["pid"]))
            world.run("kill", "x", "--grace", "0", check=1)
            assert world.json("status")["kills_pending"] == ["x"]
            assert b"not ended:  x: " in world.run("status", check=0).stdout
            changed.take("spared")
            world.run("kill", "x", check=0)
            assert world.json("status")["kills_pending"] == []


def test_tombstones_are_counted():
    with World(under=MEMORY) as world:
        world.run("rm", "a", check=0)
        assert world.json("status")["tombstones"] == 1


def test_a_stopped_guard_is_unhealthy_and_doctor_says_how_to_continue_it():
    with World(under=MEMORY) as world:
        world.run("ls", check=0)
        guard = world.guard_pid()
        os.kill(guard, signal.SIGSTOP)
        try:
            told = world.run("status", check=1).stdout.decode()
        finally:
            os.kill(guard, signal.SIGCONT)
        assert told.startswith("daemon:     unhealthy\n") and f"pid {guard} " in told
        assert "-> ptyguard doctor" in told


def test_somebody_else_who_holds_the_guards_lock_is_named_and_taken_for_no_guard():
    with World(under=MEMORY) as world:
        world.run("ls", check=0)
        world.run("daemon", "stop", check=0)
        with open(world.paths.guard_lock) as held:
            fcntl.flock(held, fcntl.LOCK_EX)
            told = world.json("status")
        assert told["state"] == "unhealthy" and "that is no guard" in told["reason"]
        assert world.paths.guard_lock in told["reason"]
        world.run("ls", check=0)


def test_a_guard_without_its_socket_is_named():
    with World(under=MEMORY) as world:
        world.run("ls", check=0)
        for path in (world.paths.guard_socket, world.paths.client_socket):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)
        told = world.run("status", check=1).stdout.decode()
        assert f"a guard lives (pid {world.guard_pid()} " in told and "without its socket" in told
        world.run("ls", check=0)
        world.run("status", check=0)
