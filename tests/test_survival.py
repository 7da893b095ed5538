"""Survival: whatever is killed, whenever, every byte arrives once and every status is known.

Daemons and guards are killed at random while programs write, clients read and people
type.  The moments differ in each run; what must hold does not.  A failure tells its
seed, though no two runs meet the same moments.
"""

import os
import random
import re
import signal
import subprocess
import sys
import threading
import time

import ptyguard
from standin import pieces
from world import MEMORY, ROOT, Flood, World, is_alive, open_descriptors, wait_until

STANDIN = os.path.join(ROOT, "tests", "standin.py")


def joined(found):
    """The stream that (offset, bytes) pieces make; they may overlap and must then agree."""
    stream = bytearray()
    for offset, data in sorted(found, key=lambda piece: piece[0]):
        assert offset <= len(stream), f"nothing was noted of {len(stream)} to {offset}"
        known = stream[offset:offset + len(data)]
        assert known == data[:len(known)], f"two different outputs at {offset}"
        stream += data[len(known):]
    return bytes(stream)


def spin_until(fact, what, limit_s=60.0):
    """Like `wait_until`, without a pause: for a moment that is not to be rounded."""
    deadline = time.monotonic() + limit_s
    while not fact():
        assert time.monotonic() < deadline, f"{what} did not come to be in {limit_s:g} s"


def test_a_stand_in_killed_a_hundred_times_at_full_speed_loses_and_doubles_nothing():
    seed = random.randrange(1 << 32)
    chance = random.Random(seed)
    with World() as world:        # on a disk
        flood = Flood(world.directory)
        notes = os.path.join(world.directory, "notes")
        os.mkdir(notes)
        with open(os.path.join(notes, "argv"), "w") as file:
            file.write("\0".join(flood.argv))
        killed = set()

        def successor():
            """The reading stand-in that was not killed yet."""
            found = [name[5:] for name in os.listdir(notes) if name.startswith("read.")]
            return next((int(pid) for pid in found if int(pid) not in killed), None)

        with world.guard_with(STANDIN, "notes=" + notes) as guard:
            wait_until(successor, "the first stand-in")
            flood.go()
            for _ in range(100):
                pid = wait_until(successor, "a successor")
                path = os.path.join(notes, f"read.{pid}")
                wanted = os.path.getsize(path) + chance.randrange(200_000)
                spin_until(lambda: os.path.getsize(path) > wanted, "more output")
                os.kill(pid, signal.SIGKILL)
                killed.add(pid)
            flood.stop()
            expected = flood.output()
            last = wait_until(successor, "the last stand-in")
            end = os.path.join(notes, f"end.{last}")
            wait_until(lambda: os.path.exists(end), "the session's end")
            # The guard keeps the status: one more stand-in is told the same.
            os.kill(last, signal.SIGKILL)
            killed.add(last)
            again = os.path.join(notes, f"end.{wait_until(successor, 'one more stand-in')}")
            wait_until(lambda: os.path.exists(again), "the session's end again")
            for path in (end, again):
                with open(path) as file:
                    assert file.read() == f"{Flood.STATUS << 8} 1 {len(expected)}", seed
            assert is_alive(guard)
        found = [piece for pid in killed for piece in pieces(os.path.join(notes, f"read.{pid}"))]
        assert joined(found) == expected, seed


def test_a_daemon_killed_thirty_times_under_a_flood_costs_no_client_a_byte():
    seed = random.randrange(1 << 32)
    chance = random.Random(seed)
    with World(under=MEMORY) as world:
        fast, slow = Flood(world.directory, "fast"), Flood(world.directory, "slow")
        runs = [world.popen("run", "-n", name, "--", *flood.argv, stdout=subprocess.PIPE)
                for name, flood in (("fast", fast), ("slow", slow))]
        outputs = [world.sink(runs[0].stdout), world.sink(runs[1].stdout, slow=True)]
        wait_until(lambda: all(sink.size() for sink in outputs), "both programs")
        log = world.popen("log", "-f", "--raw", "fast", stdout=subprocess.PIPE)
        logged = world.sink(log.stdout)
        waiting = world.popen("wait", "fast", "--json", stdout=subprocess.PIPE)
        # One that is lent would be painted anew: test_direct.py.
        terminal = world.terminal("attach", "fast", env=dict(world.env, PTYGUARD_DIRECT="0"))
        shown = world.sink(terminal.master)
        wait_until(lambda: shown.size() and logged.size(), "all readers")
        fast.go()
        slow.go()
        for _ in range(30):
            pid = world.daemon_pid()
            if chance.random() < 0.7:           # else while its clients are coming back
                wanted = outputs[0].size() + chance.randrange(300_000)
                spin_until(lambda: outputs[0].size() > wanted, "more output")
            os.kill(pid, signal.SIGKILL)
            wait_until(lambda: not is_alive(pid), "the daemon's death")
        fast.stop()
        slow.stop()
        outputs[1].hurry()
        assert [run.wait(60) for run in runs] == [Flood.STATUS] * 2, seed
        for flood, sink in zip((fast, slow), outputs):
            assert sink.process.wait(60) == 0
            assert sink.data() == flood.output(), seed
        assert log.wait(60) == 0 and logged.process.wait(60) == 0
        assert logged.data() == fast.output(), seed
        assert waiting.wait(60) == Flood.STATUS, seed
        assert terminal.process.wait(60) == Flood.STATUS, seed
        wait_until(lambda: b"[ended: exit 7]" in shown.data(), "the last word")
        # A terminal that takes nothing for a second gets a fresh screen in place of all bytes.
        if "client_lagged" not in world.log():
            before, between, after = shown.data().partition(fast.output().partition(b"ready\r\n")[2])
            assert between and before.count(b"ready") == 1 and len(after) < 200, seed


def test_a_new_guard_is_given_everything_again_and_again_and_so_are_its_daemons():
    with World(under=MEMORY) as world:
        flood = Flood(world.directory)
        world.run("start", "-n", "done", "--", "sh", "-c", "exit 5", check=0)
        world.run("start", "-n", "flood", "--", *flood.argv, check=0)
        wait_until(lambda: facts_of(world, "done")["state"] == "ended", "an end before")
        pid = facts_of(world, "flood")["pid"]
        log = world.popen("log", "-f", "--raw", "flood", stdout=subprocess.PIPE)
        logged = world.sink(log.stdout)
        waiting = world.popen("wait", "flood", stderr=subprocess.PIPE)
        wait_until(logged.size, "the reader")
        flood.go()
        for number in range(1, 5):
            more_of(logged, 200_000)
            old = world.kill_guard()
            more_of(logged, 200_000)    # without a guard, too
            new = world.new_guard_pid(old)
            wait_until(lambda: world.log("guard").count("deposit_done") == number, "the deposit")
            if number % 2:              # the next guard gets it from the first's daemon
                world.new_daemon_pid(world.kill_daemon())
            assert facts_of(world, "flood")["pid"] == pid and is_alive(pid)
            assert world.guard_pid() == new
        flood.stop()
        assert log.wait(60) == 0 and logged.process.wait(60) == 0
        assert logged.data() == flood.output()
        # The parent that could have waited for it is dead: no status is made up.
        assert waiting.wait(60) == 125
        assert b"guard lost" in waiting.stderr.read()
        ended = facts_of(world, "flood")
        assert ended["state"] == "ended" and ended["pid"] == pid
        assert ended["exit"] == {"code": None, "signal": None}
        assert "guard lost" in ended["reason"]
        world.run("wait", "done", check=5)      # what was known before is known for ever


def facts_of(world, name):
    """What `ls --json` says of that session."""
    with world.connect() as pg:
        return pg.session(name).facts


def more_of(sink, count):
    """Wait until that much more has come."""
    wanted = sink.size() + count
    wait_until(lambda: sink.size() >= wanted, f"{count} bytes more")


def gate(world, name):
    """(a FIFO that a program can `read` from, a function that opens it)."""
    path = os.path.join(world.directory, name)
    os.mkfifo(path)

    def open_it():
        with open(path, "w") as file:   # waits for the reader, fifo(7)
            file.write("\n")

    return path, open_it


def test_output_written_while_no_daemon_runs_is_replayed_from_the_clients_offset():
    with World(under=MEMORY) as world:
        path, open_gate = gate(world, "gate")
        mark = os.path.join(world.directory, "mark")
        script = f"echo before; read x <{path}; echo meanwhile; : >{mark}; sleep 1000"
        with world.connect() as pg:
            session = pg.start(["sh", "-c", script], name="s")
            for offset, data in session.follow():
                offset += len(data)
                if offset == len(b"before\r\n"):
                    break
        guard = world.guard_pid()
        world.run("daemon", "stop", "--sessions", "keep", check=0)
        open_gate()
        wait_until(lambda: os.path.exists(mark), "output without a reader")
        assert world.json("status")["state"] == "stopped"
        assert world.run("log", "--raw", "--since", str(offset), "s").stdout == b"meanwhile\r\n"
        assert world.guard_pid() == guard


def test_an_exit_while_no_daemon_runs_is_known_to_the_next():
    with World(under=MEMORY) as world:
        path, open_gate = gate(world, "gate")
        pids = {}
        with world.connect() as pg:
            pids["exits"] = pg.start(["sh", "-c", f"read x <{path}; exit 9"], name="exits")
            pids["killed"] = pg.start(["sleep", "1000"], name="killed")
            pids = {name: session.facts["pid"] for name, session in pids.items()}
        world.run("daemon", "stop", "--sessions", "keep", check=0)
        open_gate()
        os.kill(pids["killed"], signal.SIGTERM)
        wait_until(lambda: not any(map(is_alive, pids.values())), "both ends")
        assert world.json("status")["state"] == "stopped"
        world.run("wait", "exits", check=9)
        world.run("wait", "killed", check=128 + signal.SIGTERM)


_TAKER = """
import os, sys, tty
tty.setraw(0)
print("ready", flush=True)
with open(sys.argv[1], "ab", buffering=0) as file:
    while True:
        data = os.read(0, 65536)
        if not data:
            break
        file.write(data)
"""


def numbers_in(path):
    """The numbers in "<000017>" words there, in order; cut words are not counted."""
    with open(path, "rb") as file:
        return [int(found) for found in re.findall(rb"<(\d{6})>", file.read())]


def test_input_around_a_dead_daemon_may_be_lost_and_is_never_doubled():
    seed = random.randrange(1 << 32)
    chance = random.Random(seed)
    with World(under=MEMORY) as world:
        paths = {name: os.path.join(world.directory, name) for name in ("typed", "sent")}
        for name, path in paths.items():
            world.run("start", "-n", name, "--", sys.executable, "-c", _TAKER, path, check=0)
        terminal = world.terminal("attach", "typed")
        terminal.expect(rb"ready")
        world.run("wait", "sent", "--for", "ready", check=0)
        confirmed, number = set(), 0
        with world.connect() as pg:
            sent = pg.session("sent")
            for _ in range(20):
                pid = world.daemon_pid()
                timer = threading.Timer(chance.random() * 0.02, os.kill, (pid, signal.SIGKILL))
                timer.start()
                while is_alive(pid):
                    number += 1
                    terminal.send(b"<%06d>" % number)
                    try:
                        sent.send(b"<%06d>" % number)
                        confirmed.add(number)
                    except ptyguard.PtyguardError:
                        pass            # it was said that this one may be lost
                timer.join()
            wait_until(lambda: facts_of(world, "typed")["clients"] == 1, "the terminal's return")
            last = range(number + 1, number + 21)
            for number in last:         # nothing is killed any more: all of these arrive
                terminal.send(b"<%06d>" % number)
                sent.send(b"<%06d>" % number)
        for path in paths.values():
            wait_until(lambda: numbers_in(path)[-20:] == list(last), "the last input")
            assert numbers_in(path) == sorted(set(numbers_in(path))), seed
        assert confirmed <= set(numbers_in(paths["sent"])), seed


def test_a_start_cut_by_the_daemons_death_happens_once_or_is_reported():
    seed = random.randrange(1 << 32)
    chance = random.Random(seed)
    with World(under=MEMORY) as world:
        world.run("ls", check=0)
        guard = world.guard_pid()
        before = open_descriptors(guard)
        mark = os.path.join(world.directory, "mark")

        def started(number):
            """The pids of all programs that were started under that number."""
            try:
                with open(f"{mark}.{number}") as file:
                    return list(map(int, file.read().split()))
            except FileNotFoundError:
                return []

        killed = set()
        with world.connect() as pg:
            for number in range(20):
                pid = pg.status()["pid"]
                timer = threading.Timer(chance.random() * 0.02, os.kill, (pid, signal.SIGKILL))
                timer.start()
                script = f"echo $$ >>{mark}.{number}; exec sleep 1000"
                try:
                    session = pg.start(["sh", "-c", script], name=f"s{number}")
                    if number % 2:
                        session.kill(0)
                        killed.add(number)
                except ptyguard.PtyguardError:
                    killed.add(number)
                timer.join()
                wait_until(lambda: not is_alive(pid), "the daemon's death")
            for number in range(20):
                if number in killed:
                    wait_until(lambda: not any(map(is_alive, started(number))), "its end")
                else:
                    wait_until(lambda: started(number), f"the start of {number}")
                    facts = pg.session(f"s{number}").facts
                    assert facts["state"] == "running", (seed, facts)
                    assert [facts["pid"]] == started(number), seed
                assert len(started(number)) <= 1, seed
            living = [s.name for s in pg.sessions() if s.facts["state"] == "running"]
            assert len(living) == 20 - len(killed), seed
            for session in pg.sessions():
                session.remove()
            assert not pg.sessions()
        wait_until(lambda: open_descriptors(guard) == before, "all descriptors closed")


def test_a_start_cut_by_the_guards_death_happens_or_is_reported_and_leaves_nothing():
    seed = random.randrange(1 << 32)
    chance = random.Random(seed)
    with World(under=MEMORY) as world, world.connect() as pg:
        mark = os.path.join(world.directory, "mark")
        started = {}
        for number in range(10):
            guard = world.guard_pid()
            pg.status()
            timer = threading.Timer(chance.random() * 0.02, os.kill, (guard, signal.SIGKILL))
            timer.start()
            script = f"echo $$ >>{mark}.{number}; exec sleep 1000"
            try:
                started[number] = pg.start(["sh", "-c", script]).facts["pid"]
            except ptyguard.PtyguardError:
                pass                    # the guard was its parent: the terminal hung up
            timer.join()
            world.new_guard_pid(guard)
            wait_until(lambda: world.log("guard").count("deposit_done") == number + 1, "the deposit")

        def living(number):
            try:
                with open(f"{mark}.{number}") as file:
                    return [int(pid) for pid in file.read().split() if is_alive(int(pid))]
            except FileNotFoundError:
                return []

        for number in range(10):
            wanted = [started[number]] if number in started else []
            wait_until(lambda: living(number) == wanted, f"what {number} was said to be, {seed}")
        assert sorted(s.facts["pid"] for s in pg.sessions()) == sorted(started.values()), seed


def test_a_read_cut_by_the_daemons_death_is_asked_again(monkeypatch):
    from ptyguard_core.channel import Channel
    with World(under=MEMORY) as world, world.connect() as pg:
        session = pg.start(["sh", "-c", "seq 500000; echo done"], scrollback=8 << 20)
        session.wait()
        whole = Channel.take_data

        def take_data(self, size):
            monkeypatch.setattr(Channel, "take_data", whole)
            world.kill_daemon()         # the socket holds less than that much
            return whole(self, size)

        monkeypatch.setattr(Channel, "take_data", take_data)
        offset, data = session.read()
        assert offset == 0 and data.endswith(b"\r\ndone\r\n")
        assert data.split()[:500000] == [b"%d" % n for n in range(1, 500001)]
