"""Lifecycle: daemons that stop, are restarted, idle and leave, while sessions live on."""

import contextlib
import os
import random
import select
import signal
import subprocess
import sys
import time

import pytest

import ptyguard_posix as backend
from ptyguard_core import guardwire as wire
from ptyguard_core.requests import START_WAIT_S
from ptyguard_core.supervise import ask_guard
from world import (MEMORY, Flood, World, is_alive, open_descriptors, sleeps_for_ever, voluntary_switches,
                   wait_until)


def pids_of(world):
    """{name: pid} of the sessions that run; somebody serves by then."""
    with world.connect() as pg:
        return {s.name: s.facts["pid"] for s in pg.sessions() if s.facts["state"] == "running"}


# -- stopping ---------------------------------------------------------------------------------


def test_stop_without_sessions_ends_both_and_leaves_neither_socket_nor_flag():
    with World(under=MEMORY) as world:
        world.run("run", "--", "sh", "-c", "exit 3", check=3)
        guard, daemon = world.guard_pid(), world.daemon_pid()
        said = world.run("daemon", "stop", check=0).stderr
        assert b"output of 1 ended" in said     # that is dropped, and it says so
        assert not is_alive(guard) and not is_alive(daemon)
        assert not os.path.exists(world.paths.client_socket)
        assert not os.path.exists(world.paths.guard_socket)
        assert world.json("status")["state"] == "stopped"
        world.run("status", check=1)
        # The status was kept on disk, and the next start counts nothing against the last.
        assert world.json("ls", "-a")["sessions"][0]["exit"] == {"code": 3, "signal": None}
        assert "daemon_ended" in world.log("guard") and "circuit" not in world.log("guard")


def test_stop_when_nothing_runs_is_done_already_and_starts_nothing():
    with World(under=MEMORY) as world:
        assert b"no daemon runs" in world.run("daemon", "stop", check=0).stderr
        assert world.json("status")["state"] == "stopped"


def test_stop_with_sessions_wants_to_be_told_what_becomes_of_them():
    with World(under=MEMORY) as world:
        world.run("start", "-n", "s", "--", "sleep", "1000", check=0)
        before = world.guard_pid(), world.daemon_pid(), pids_of(world)
        refused = world.run("daemon", "stop", check=4)
        assert b"--sessions keep" in refused.stderr and b"--sessions kill" in refused.stderr
        assert (world.guard_pid(), world.daemon_pid(), pids_of(world)) == before


def test_stop_that_keeps_sessions_ends_the_daemon_only_and_the_next_call_starts_one():
    with World(under=MEMORY) as world:
        world.run("start", "-n", "s", "--", "cat", check=0)
        guard, daemon, before = world.guard_pid(), world.daemon_pid(), pids_of(world)
        said = world.run("daemon", "stop", "--sessions", "keep", check=0).stderr
        assert b"20 KB" in said                 # programs pause then, and it says so
        assert not is_alive(daemon) and is_alive(guard) and is_alive(before["s"])
        assert world.json("status")["state"] == "stopped"
        assert is_alive(guard) and not is_alive(daemon)         # asking starts nothing
        world.run("daemon", "stop", "--sessions", "keep", check=0)      # twice is as good
        assert pids_of(world) == before
        assert world.guard_pid() == guard
        world.run("send", "s", "--enter", "hello", check=0)
        world.run("wait", "s", "--for", "hello", "--timeout", "60", check=0)


def test_stop_that_kills_sessions_ends_everything():
    with World(under=MEMORY) as world:
        for name, command in (("one", "sleep 1000"), ("two", "trap '' HUP; sleep 1000")):
            world.run("start", "-n", name, "--", "sh", "-c", command, check=0)
        alive = [world.guard_pid(), world.daemon_pid(), *pids_of(world).values()]
        assert len(alive) == 4
        world.run("daemon", "stop", "--sessions", "kill", check=0)
        assert not any(map(is_alive, alive))


def test_stop_of_a_daemon_that_does_not_answer_takes_force():
    with World(under=MEMORY) as world:
        world.run("start", "-n", "s", "--", "sleep", "1000", check=0)
        daemon, before = world.daemon_pid(), pids_of(world)
        os.kill(daemon, signal.SIGSTOP)
        stop = ["daemon", "stop", "--sessions", "keep", "--timeout", "0.3"]
        refused = world.run(*stop, check=6)
        assert b"--force" in refused.stderr and is_alive(daemon)
        world.run(*stop, "--force", check=0)
        assert not is_alive(daemon)
        assert pids_of(world) == before


def test_a_stopped_and_a_killed_daemon_leave_sessions_in_the_same_state():
    def told(world):
        """All that `ls` says."""
        return world.json("ls", "-a")["sessions"]

    with World(under=MEMORY) as world:
        world.run("start", "-n", "lives", "--size", "91x17", "--", "sh", "-c", "echo x; exec sleep 1000",
                  check=0)
        world.run("run", "-n", "ended", "--", "sh", "-c", "echo y; exit 4", check=4)
        world.run("wait", "lives", "--for", "x", check=0)
        before = told(world)
        world.kill_daemon()
        assert told(world) == before
        world.run("daemon", "stop", "--sessions", "keep", check=0)
        assert told(world) == before
        world.run("daemon", "restart", check=0)
        assert told(world) == before
        assert world.run("log", "--raw", "ended", check=0).stdout == b"y\r\n"


def test_a_command_that_meets_a_guard_on_its_way_out_is_served_by_the_next():
    with World(under=MEMORY) as world:
        for _ in range(8):
            with world.connect() as pg:
                pg.sessions()
            stopping = world.popen("daemon", "stop", stderr=subprocess.DEVNULL)
            pause = time.monotonic() + random.random() * 0.4
            while time.monotonic() < pause:
                pass
            with world.connect() as pg:
                pg.sessions()           # raises nothing, whatever it met
            stopping.wait(60)


def test_a_kill_spares_whoever_got_the_same_terminal_since():
    with World(under=MEMORY) as world, world.connect() as pg:
        mark = os.path.join(world.directory, "mark")
        # Its leader goes at once; what it leaves behind lets the terminal go, and stays.
        stays = f"trap '' HUP TERM; : >{mark}; exec sleep 1000"
        session = pg.start(["sh", "-c", f'setsid sh -c "{stays}" </dev/null >/dev/null 2>&1 & '
                                        "exec sleep 1000"])
        wait_until(lambda: os.path.exists(mark), "what is left behind")
        freed = os.readlink(f"/proc/{session.facts['pid']}/fd/0")
        with pg.open_channel("test") as channel:
            serial = channel.ask("kill", target="@" + session.id, grace=1.0)
            wait_until(lambda: session.info()["state"] == "ended", "the leader's end")
            others = []
            while not others or others[-1] != freed and len(others) < 20:
                other = pg.start(["sleep", "1000"])     # the lowest free number is given out
                others.append(os.readlink(f"/proc/{other.facts['pid']}/fd/0"))
            channel.await_reply(serial, 60)
        states = [s.facts["state"] for s in pg.sessions() if s.id != session.id]
        assert states == ["running"] * len(others), (freed, others)


# -- restarting -------------------------------------------------------------------------------


def test_restarts_under_a_flood_with_attached_clients_cost_nobody_a_byte():
    with World(under=MEMORY) as world:
        flood = Flood(world.directory)
        run = world.popen("run", "-n", "flood", "--", *flood.argv, stdout=subprocess.PIPE)
        output = world.sink(run.stdout)
        world.run("start", "-n", "quiet", "--", "cat", check=0)
        wait_until(output.size, "the program")
        terminal = world.terminal("attach", "flood")
        shown = world.sink(terminal.master)
        typing = world.terminal("attach", "quiet")
        wait_until(shown.size, "the terminal")
        guard, pids = world.guard_pid(), pids_of(world)
        flood.go()
        daemons = {world.daemon_pid()}
        for number in range(4):
            wanted = output.size() + 100_000
            wait_until(lambda: output.size() > wanted, "more output")
            world.run("daemon", "restart", check=0)
            if number % 2:              # twice in a row
                world.run("daemon", "restart", check=0)
            assert pids_of(world) == pids and world.guard_pid() == guard
            daemons.add(world.daemon_pid())     # of the one that has just answered
            with world.connect() as pg:
                wait_until(lambda: pg.session("quiet").facts["clients"] == 1, "its client's return")
            typing.send(b"line %d\r" % number)
            typing.expect(b"line %d\r\n" % number)      # the terminal's echo,
            typing.expect(b"line %d\r\n" % number)      # the program's answer
        assert len(daemons) == 5
        flood.stop()
        assert run.wait(60) == Flood.STATUS and output.process.wait(60) == 0
        assert output.data() == flood.output()
        assert terminal.process.wait(60) == Flood.STATUS
        wait_until(lambda: b"[ended: exit 7]" in shown.data(), "the last word")
        # A terminal that takes nothing for a second gets a fresh screen in place of all bytes.
        lines = flood.output().partition(b"ready\r\n")[2]       # "ready" has been painted
        assert "client_lagged" in world.log() or lines in shown.data()
        assert b"line 3" in world.run("log", "--raw", "quiet").stdout
        assert "circuit" not in world.log("guard")


def daemons_of(guard):
    """The pids of that guard's daemons, one that is only starting included."""
    found = []
    for row in backend.process_table():
        if row.parent == guard and not row.is_zombie:
            with contextlib.suppress(OSError), open(f"/proc/{row.pid}/cmdline", "rb") as file:
                if b"\0__daemon\0" in file.read():
                    found.append(row.pid)
    return found


def test_daemons_killed_in_the_middle_of_a_restart_cost_nobody_a_byte():
    seed = random.randrange(1 << 32)
    chance = random.Random(seed)
    with World(under=MEMORY) as world:
        flood = Flood(world.directory)
        run = world.popen("run", "-n", "flood", "--", *flood.argv, stdout=subprocess.PIPE)
        output = world.sink(run.stdout)
        wait_until(output.size, "the program")
        guard, pids = world.guard_pid(), pids_of(world)
        flood.go()
        for number in range(10):
            old = world.daemon_pid()
            restart = world.popen("daemon", "restart", stderr=subprocess.DEVNULL)
            new = wait_until(lambda: set(daemons_of(guard)) - {old}, "the successor").pop()
            if chance.random() < 0.5:           # the moment of the hand-over itself
                wait_until(lambda: world.log("daemon").count(f" pid={new} ") or not is_alive(new),
                           "the successor's first words")
            pause = time.monotonic() + chance.random() * 0.05
            while time.monotonic() < pause:
                pass
            with contextlib.suppress(ProcessLookupError):
                os.kill(new if number % 2 else old, signal.SIGKILL)
            assert restart.wait(60) in (0, 6), seed
            assert pids_of(world) == pids and world.guard_pid() == guard
        flood.stop()
        assert run.wait(60) == Flood.STATUS and output.process.wait(60) == 0
        assert output.data() == flood.output(), seed


def test_a_successor_killed_while_its_predecessor_hands_over_is_held_against_nobody():
    with World(under=MEMORY) as world:
        world.run("start", "-n", "s", "--", "sleep", "1000", check=0)
        guard, pids = world.guard_pid(), pids_of(world)
        for _ in range(5):              # more than a circuit bears
            old = world.daemon_pid()
            os.kill(old, signal.SIGSTOP)
            restart = world.popen("daemon", "restart", stderr=subprocess.DEVNULL)
            wait_until(lambda: state_of(world) == "quiescing", "the hand-over")
            (new,) = set(daemons_of(guard)) - {old}
            os.kill(new, signal.SIGKILL)
            assert restart.wait(60) == 6
            os.kill(old, signal.SIGCONT)
            world.new_daemon_pid(old)           # it has let go of everything by now
            assert pids_of(world) == pids
        assert "circuit_open" not in world.log("guard")


def state_of(world):
    """The guard's word for its daemon."""
    return ask_guard(backend, world.paths, wire.STATE).text("daemon_state")


def test_a_restart_to_a_daemon_that_cannot_start_leaves_the_old_one_serving():
    with World(under=MEMORY) as world, world.connect() as pg:
        session = pg.start(["cat"], name="s")
        daemon = world.daemon_pid()
        bad = os.path.join(world.directory, "bad.py")
        with open(bad, "w") as file:
            file.write("raise SystemExit('the very reason')")
        answer = ask_guard(backend, world.paths, wire.RESTART, timeout_s=60,
                           interpreter=os.fsencode(sys.executable), binary=os.fsencode(bad))
        assert answer.type == wire.REFUSED and "the very reason" in answer.text("text")
        assert world.daemon_pid() == daemon
        session.send(b"hello\r")
        session.wait_for(b"hello", 60)
        world.run("daemon", "restart", check=0)         # a good one is taken all the same
        world.new_daemon_pid(daemon)


_LATE_READER = """
import os, sys, tty
tty.setraw(0)
print("ready", flush=True)
open(sys.argv[1], "rb").read()
taken = b""
while not taken.endswith(b"."):
    taken += os.read(0, 65536)
with open(sys.argv[2] + ".draft", "wb") as file:
    file.write(taken)
os.rename(sys.argv[2] + ".draft", sys.argv[2])
"""


def test_input_that_no_program_has_read_yet_is_handed_over_by_a_restart():
    with World(under=MEMORY) as world, world.connect() as pg:
        gate, into = (os.path.join(world.directory, name) for name in ("gate", "into"))
        os.mkfifo(gate)
        session = pg.start([sys.executable, "-c", _LATE_READER, gate, into])
        session.wait_for(b"ready", 60)
        typed = b"".join(b"%d " % number for number in range(50_000)) + b"."
        with pg.open_channel("test") as channel:
            channel.request("attach", target="@" + session.id, may_type=True)
            channel.send_input(typed)
            channel.request("status")           # all of it has arrived before that
            assert session.info()["input_queued"] > 100_000
        world.run("daemon", "restart", check=0)
        world.run("daemon", "restart", check=0)
        with open(gate, "wb"):
            pass
        wait_until(lambda: os.path.exists(into), "the end of the input")
        with open(into, "rb") as file:
            assert file.read() == typed


def test_restart_when_nothing_runs_starts_one():
    with World(under=MEMORY) as world:
        world.run("daemon", "restart", check=0)
        world.run("status", check=0)


def test_many_restarts_leave_no_descriptor_behind():
    with World(under=MEMORY) as world, world.connect() as pg:
        for _ in range(5):
            pg.start(["sleep", "1000"])
        guard = world.guard_pid()

        def counts():
            """Of guard and daemon, with our one connection, and all of it adopted."""
            pg.status()
            return open_descriptors(guard), open_descriptors(world.daemon_pid())

        world.run("daemon", "restart", check=0)
        first = counts()
        for _ in range(4):
            world.run("daemon", "restart", check=0)
            # The command's own connection may be there for another moment.
            wait_until(lambda: counts() <= first, "all descriptors closed")
            first = counts()


# -- idling -----------------------------------------------------------------------------------


def test_with_a_hundred_idle_sessions_neither_process_wakes():
    with World(under=MEMORY) as world:
        with world.connect() as pg:
            for number in range(100):
                pg.start(["sleep", "1000"])
            assert len(pg.sessions()) == 100
        pids = world.guard_pid(), world.daemon_pid()

        def slept():
            """Whether two seconds went by in which nobody woke."""
            before = [voluntary_switches(pid) for pid in pids]
            # The one pause in the tests: that nothing happens can be seen in no other way.
            select.select([], [], [], 2.0)
            return [voluntary_switches(pid) for pid in pids] == before

        if sleeps_for_ever(pids[1]) is not None:
            # Each start and each hello had a deadline, which is to go with what it was for.
            wait_until(lambda: sleeps_for_ever(pids[1]), "a sleep without a timer", START_WAIT_S - 5)
        wait_until(slept, "two seconds without a wake-up")


def test_without_sessions_output_and_clients_both_leave_by_themselves():
    with World(under=MEMORY, PTYGUARD_IDLE_EXIT="1") as world:
        world.run("ls", check=0)
        guard, daemon = world.guard_pid(), world.daemon_pid()
        wait_until(lambda: not is_alive(guard) and not is_alive(daemon), "their leaving")
        assert "idle_exit" in world.log("guard")
        assert not os.path.exists(world.paths.client_socket)
        assert world.json("status")["state"] == "stopped"
        world.run("run", "--rm", "--", "true", check=0)         # and come back when needed
        again = world.guard_pid()
        wait_until(lambda: not is_alive(again), "its leaving, too")


@pytest.mark.parametrize("reason", ["a session", "its output", "a client"])
def test_as_long_as_somebody_needs_them_they_stay(reason, monkeypatch):
    monkeypatch.setenv("PTYGUARD_IDLE_EXIT", "0.3")     # for the client in this process
    with World(under=MEMORY, PTYGUARD_IDLE_EXIT="0.3") as world:
        if reason == "a session":
            world.run("start", "-n", "s", "--", "sleep", "1000", check=0)
            end = ["rm", "s"]
        elif reason == "its output":
            world.run("run", "-n", "s", "--", "true", check=0)
            end = ["rm", "s"]
        else:
            client = world.connect()
            end = None
        guard = world.guard_pid()
        # Long enough for many idle limits; it may be shorter on no machine.
        for _ in range(3):
            more = voluntary_switches(os.getpid()) + 30
            wait_until(lambda: voluntary_switches(os.getpid()) > more, "time to pass")
            assert is_alive(guard)
        if end:
            world.run(*end, check=0)
        else:
            client.close()
        wait_until(lambda: not is_alive(guard), "its leaving")


def test_idle_exit_zero_means_never():
    with World(under=MEMORY, PTYGUARD_IDLE_EXIT="0") as world:
        world.run("ls", check=0)
        world.run("status", check=0)
        assert "idle-exit=0" in " ".join(
            open(f"/proc/{world.daemon_pid()}/cmdline").read().split("\0"))
