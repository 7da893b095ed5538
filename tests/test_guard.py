"""Guard: the process that must not die, and what it does for one that may.

Real guards; their daemons are the real one or programs of a few lines that die when
they should.
"""

import contextlib
import os
import signal
import socket
import struct
import subprocess
import sys
import threading

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import ptyguard
import ptyguard_posix as backend
from ptyguard_core import guardwire as wire
from ptyguard_core.starting import new_id, start_fields
from ptyguard_core.copies import make_copy
from ptyguard_core.supervise import ask_guard
from world import MEMORY, ROOT, World, is_alive, open_descriptors, voluntary_switches, wait_until


def program(world, name, text):
    """The path of a program of that text."""
    path = os.path.join(world.directory, name)
    with open(path, "w") as file:
        file.write(text)
    return path


def state_of(world):
    """The guard's answer on guard.sock."""
    return ask_guard(backend, world.paths, wire.STATE)


def refused(call):
    """What that call is refused with."""
    with pytest.raises(ptyguard.PtyguardError) as caught:
        call()
    return caught.value


# -- the daemon's life ----------------------------------------------------------------------


def test_a_daemon_that_cannot_start_opens_the_circuit_and_a_restart_with_a_good_one_closes_it():
    with World(under=MEMORY) as world:
        bad = program(world, "bad.py", "import sys; sys.exit('the very reason')")
        with world.guard_with(bad) as guard:
            wait_until(lambda: state_of(world).text("daemon_state") == "circuit-open", "the circuit")
            assert not os.path.exists(world.paths.client_socket)
            failed = world.run("ls", check=6)
            assert b"exit status 1" in failed.stderr        # the cause,
            assert b"the very reason" in failed.stderr      # what its log says,
            assert b"daemon restart" in failed.stderr       # and what to do
            told = world.json("status")
            assert told["state"] == "unhealthy" and "exit status 1" in told["reason"]
            world.run("status", check=1)
            assert world.log("guard").count("circuit_open") == 1
            world.run("daemon", "restart", check=0)
            world.run("status", check=0)
            world.run("run", "--", "true", check=0)
            assert world.guard_pid() == guard


def test_a_client_that_waits_for_a_dying_daemon_is_told_why_when_the_circuit_opens():
    with World(under=MEMORY) as world:
        gate = os.path.join(world.directory, "gate")
        os.mkfifo(gate)
        bad = program(world, "bad.py", f"import sys; open({gate!r}).read(); sys.exit('gave up')")
        # Not `guard_with` at once: that waits for the first daemon to have failed.
        opener = subprocess.Popen(["sh", "-c", f"echo >{gate}"])
        with world.guard_with(bad):
            opener.wait()
            waiting = world.popen("ls", stderr=subprocess.PIPE)
            wait_until(lambda: is_connected(waiting.pid, world.paths.client_socket), "the client")
            while state_of(world).text("daemon_state") != "circuit-open":
                open_if_read(gate)
            assert waiting.wait(60) == 6
            assert b"gave up" in waiting.stderr.read()


def open_if_read(fifo):
    """Let whoever reads that FIFO go on, if anybody does."""
    with contextlib.suppress(OSError):
        os.close(os.open(fifo, os.O_WRONLY | os.O_NONBLOCK))


def is_connected(pid, path):
    """Whether that process has a connection to that unix socket, accepted or not."""
    with open("/proc/net/unix") as file:
        rows = [line.split() for line in file]
    # A connection that is not accepted yet has no row of its own with the path, but the
    # client's end is in state 03 (connected).
    connected = {f"socket:[{row[6]}]" for row in rows[1:] if row[5] == "03" and len(row) == 7}
    return any(target in connected for target in descriptors_of(pid)) and os.path.exists(path)


def descriptors_of(pid):
    """What the process's descriptors are."""
    targets = []
    for name in os.listdir(f"/proc/{pid}/fd"):
        with contextlib.suppress(OSError):
            targets.append(os.readlink(f"/proc/{pid}/fd/{name}"))
    return targets


# A real daemon that dies when it opens the session named "poison".
_POISONED = f"""
import os, sys
sys.path.insert(0, {ROOT!r})
import ptyguard_posix
from ptyguard_core import daemon
opening = daemon.Daemon._open_ring
def open_ring(self, session, offer):
    if session.name == "poison" and offer.descriptors:
        os._exit(3)
    opening(self, session, offer)
daemon.Daemon._open_ring = open_ring
sys.exit(daemon.main(ptyguard_posix, sys.argv[2:], sys.argv[0]))
"""


def test_a_session_that_ends_two_daemons_is_held_unopened_and_the_others_come_back():
    with World(under=MEMORY) as world:
        poisoned = program(world, "poisoned.py", _POISONED)
        with world.guard_with(poisoned) as guard, world.connect() as pg:
            pids = {name: pg.start(["sleep", "1000"], name=name).facts["pid"]
                    for name in ("one", "poison", "two")}
            world.kill_daemon()
            wait_until(lambda: "quarantined=1" in world.log("guard"), "the quarantine")
            states = {s.name: s.facts["state"] for s in pg.sessions()}
            assert states == {"one": "running", "two": "running", "poison": "quarantined"}
            assert all(map(is_alive, pids.values()))
            assert "quarantined" in world.run("ls", check=0).stdout.decode()
            assert "held" in refused(lambda: pg.session("poison").send(b"x")).message
            # It can still be ended, and its status is known.
            pg.session("poison").kill(0)
            assert pg.session("poison").facts["exit"]["signal"]
            assert not is_alive(pids["poison"])
            pg.session("poison").remove()
            assert sorted(s.name for s in pg.sessions()) == ["one", "two"]
            wait_until(lambda: state_of(world).number("sessions") == 2, "its release")
            assert world.guard_pid() == guard


# A real daemon whose successors wait for a gate, once they have been given everything.
_WAITS_AT_GATE = f"""
import os, sys
sys.path.insert(0, {ROOT!r})
import ptyguard_posix
from ptyguard_core import daemon, guardlink, guardwire as wire
heard = guardlink.GuardLink._VERBS[wire.TABLE_END]
def hear(self, message):
    gate = dict(word.split("=", 1) for word in sys.argv[2:] if "=" in word)["gate"]
    if not self._has_said_ready and os.path.exists(gate):
        os.rename(gate, gate + ".reached")
        open(gate + ".reached", "rb").read()
    heard(self, message)
guardlink.GuardLink._VERBS[wire.TABLE_END] = hear
sys.exit(daemon.main(ptyguard_posix, sys.argv[2:], sys.argv[0]))
"""


def test_a_session_restarted_beside_a_rehearsal_is_not_blamed_for_its_daemons_end():
    """It was given twice, confirmed once, and counted as what the next death was about."""
    with World(under=MEMORY) as world:
        waits = program(world, "waits.py", _WAITS_AT_GATE)
        gate = os.path.join(world.directory, "gate")
        with world.guard_with(waits, "gate=" + gate, patch="guard.READY_LIMIT_BESIDE_S = 60.0"), \
                world.connect() as pg:
            again = pg.start(["sleep", "1000"], name="again")
            os.mkfifo(gate)
            old, guard = world.daemon_pid(), world.guard_pid()
            answers = []            # not `daemon restart`, which brings a program of its own
            replacing = threading.Thread(
                target=lambda: answers.append(ask_guard(backend, world.paths, wire.RESTART, 60)))
            replacing.start()
            wait_until(lambda: os.path.exists(gate + ".reached"), "the rehearsal", 20)
            again.restart()
            assert world.daemon_pid() == old            # it was they who served until here
            with open(gate + ".reached", "wb"):
                pass
            replacing.join(60)
            assert [answer.type for answer in answers] == [wire.OK]
            new = world.new_daemon_pid(old)
            assert [(s.name, s.facts["state"]) for s in pg.sessions()] == [("again", "running")]
            os.kill(new, signal.SIGTERM)                # not SIGKILL, which blames nobody
            world.new_daemon_pid(old, new)
            assert pg.session("again").facts["state"] == "running"
            assert "daemon_died_opening" not in world.log("guard")
            assert world.guard_pid() == guard


def test_a_deaf_daemon_is_replaced_and_no_session_notices():
    with World(under=MEMORY) as world, world.connect() as pg:
        session = pg.start(["cat"])
        deaf, guard = world.daemon_pid(), world.guard_pid()
        os.kill(deaf, signal.SIGSTOP)
        world.run("ls", check=0)                # it waits, tells the guard, and is served
        assert not is_alive(deaf)
        assert world.guard_pid() == guard
        assert "reason=deaf" in world.log("guard")
        session.send(b"hello\r")
        session.wait_for(b"hello", 60)
        assert is_alive(session.facts["pid"])


def test_a_deaf_daemon_is_replaced_also_when_the_guards_socket_is_gone():
    """Clients could not tell the guard, and failed after 30 s, as long as the daemon was deaf."""
    with World(under=MEMORY) as world:
        world.run("start", "-n", "s", "--", "sleep", "1000", check=0)
        deaf = world.daemon_pid()
        os.kill(deaf, signal.SIGSTOP)
        os.unlink(os.path.join(world.place, "guard.sock"))
        assert world.json("ls")["sessions"][0]["name"] == "s"
        assert not is_alive(deaf)
        assert "reason=deaf" in world.log("guard")


def test_a_slow_daemon_is_not_taken_for_a_deaf_one():
    with World(under=MEMORY) as world:
        world.run("ls", check=0)
        slow = world.daemon_pid()
        os.kill(slow, signal.SIGSTOP)
        waiting = world.popen("ls")
        wait_until(lambda: "daemon_pinged" in world.log("guard"), "the guard's question")
        os.kill(slow, signal.SIGCONT)
        assert waiting.wait(60) == 0
        assert world.daemon_pid() == slow


# -- who else wants to be guard ---------------------------------------------------------------


def test_a_second_guard_refuses_and_touches_nothing_of_the_first():
    with World(under=MEMORY) as world:
        world.run("ls", check=0)
        paths, guard, daemon = world.paths, world.guard_pid(), world.daemon_pid()
        before = [os.stat(path).st_ino for path in (paths.client_socket, paths.guard_socket)]
        report, theirs = os.pipe()
        copy, = os.listdir(paths.copies)
        second = backend.launch([sys.executable, "-I", "-S", os.path.join(paths.copies, copy),
                                 "__guard", paths.root], {"PATH": os.defpath}, (theirs,),
                                os.devnull, detach=False)
        os.close(theirs)
        with open(report, "rb") as file:
            said = file.read()
        assert os.waitpid(second, 0)[1] == 0
        assert said.startswith(b"taken") and b"pid %d " % guard in said
        after = [os.stat(path).st_ino for path in (paths.client_socket, paths.guard_socket)]
        assert (after, world.guard_pid(), world.daemon_pid()) == (before, guard, daemon)
        world.run("ls", check=0)


@pytest.mark.parametrize("removed", [("client",), ("guard",), ("client", "guard")])
@pytest.mark.parametrize("is_resting", [False, True])
def test_sockets_that_somebody_removed_are_made_again_by_the_same_guard(removed, is_resting):
    with World(under=MEMORY) as world:
        name = world.run("start", "--", "sleep", "1000", check=0).stdout.strip()
        guard = world.guard_pid()
        if is_resting:
            world.run("daemon", "stop", "--sessions", "keep", check=0)
        for which in removed:
            os.unlink(os.path.join(world.place, which + ".sock"))
        assert world.run("ls", "-q", check=0).stdout.strip() == name
        assert world.guard_pid() == guard


def test_a_client_that_looks_at_the_guards_lock_is_not_taken_for_the_guard():
    with World(under=MEMORY) as world:
        holder = world.popen("status")          # only so that the directories are there
        holder.wait(60)
        code = ("import sys; sys.path.insert(0, sys.argv[1]); import ptyguard_posix as backend\n"
                "lock = backend.try_lock(sys.argv[2], 'client, asking for status')\n"
                "print('held', flush=True); sys.stdin.read()")
        holder = subprocess.Popen([sys.executable, "-c", code, ROOT, world.paths.guard_lock],
                                  stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        try:
            assert holder.stdout.readline() == b"held\n"
            starting = world.popen("ls")
            # What it would do to a guard it does with start.lock in hand; it then goes on
            # looking, which shows in the log of its system calls only: so look several times.
            wait_until(lambda: lock_words(world.paths.start_lock)[1:2] == [str(starting.pid)],
                       "the other command")
            turns = voluntary_switches(starting.pid)
            wait_until(lambda: voluntary_switches(starting.pid) > turns + 10, "its looking")
            assert holder.poll() is None
        finally:
            holder.stdin.close()
            assert holder.wait(60) == 0         # no signal has ended it
            holder.stdout.close()
        assert starting.wait(60) == 0


def lock_words(path):
    """What the holder of that lock wrote into it."""
    try:
        with open(path) as file:
            return file.read().replace(",", "").split()
    except FileNotFoundError:
        return []


# -- what is sent to it -----------------------------------------------------------------------


def test_signals_to_a_guard_with_sessions_do_no_harm():
    with World(under=MEMORY) as world, world.connect() as pg:
        session = pg.start(["cat"])
        guard, daemon = world.guard_pid(), world.daemon_pid()
        for name in ("SIGHUP", "SIGINT", "SIGQUIT", "SIGPIPE", "SIGTSTP", "SIGTERM"):
            os.kill(guard, getattr(signal, name))
        wait_until(lambda: "name=SIGTERM" in world.log("guard"), "the signal's arrival")
        assert state_of(world).number("guard_pid") == guard
        session.send(b"hello\r")
        session.wait_for(b"hello", 60)
        assert (world.guard_pid(), world.daemon_pid()) == (guard, daemon)
        assert is_alive(session.facts["pid"])


def test_sigterm_to_a_guard_without_sessions_ends_both():
    with World(under=MEMORY) as world:
        world.run("run", "--", "true", check=0)
        guard, daemon = world.guard_pid(), world.daemon_pid()
        os.kill(guard, signal.SIGTERM)
        wait_until(lambda: not is_alive(guard) and not is_alive(daemon), "both ends")
        assert not os.path.exists(world.paths.client_socket)
        assert not os.path.exists(world.paths.guard_socket)


def caller(world):
    """A raw connection to guard.sock."""
    sock = socket.socket(socket.AF_UNIX)
    sock.settimeout(60)
    sock.connect(world.paths.guard_socket)
    return sock


def talk(world, pieces):
    """Send those (bytes, number of descriptors) and hang up, whatever is answered."""
    with caller(world) as sock, open(os.devnull, "rb") as null:
        for data, count in pieces:
            rights = struct.pack(f"{count}i", *[null.fileno()] * count)
            control = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)] if count else []
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                sock.sendmsg([data], control)


def whole_messages():
    """Messages of any type with any fields, as bytes."""
    numbers = st.integers(0, 1 << 16)
    fields = st.fixed_dictionaries({}, optional={
        name: numbers if kind == "n" else st.binary(max_size=40) if kind == "b"
        else st.lists(st.binary(max_size=10), max_size=3)
        for name, (_, kind) in wire.FIELDS.items() if name not in ("mode", "force")})
    # The verbs that do what they say are left out: they are tested as what they are.
    quiet = [number for number in wire.NAMES
             if number not in (wire.STOP, wire.RESTART, wire.DEPOSIT)]
    return st.builds(lambda type_, serial, count, given: wire.encode(type_, serial, count, **given),
                     st.sampled_from(quiet) | numbers.filter(lambda n: n < 65536 and n not in wire.NAMES),
                     numbers, st.integers(0, 3), fields)


def test_garbage_and_descriptors_at_its_socket_neither_end_the_guard_nor_make_it_grow():
    pieces = st.lists(st.tuples(
        st.binary(max_size=300) | whole_messages() | whole_messages().map(lambda m: m[:-1])
        | st.just(b"\xff" * 12), st.sampled_from([0, 0, 1, 2, 3, 200])), min_size=1, max_size=4)
    with World(under=MEMORY) as world:
        world.run("start", "-n", "s", "--", "sleep", "1000", check=0)
        guard, daemon = world.guard_pid(), world.daemon_pid()
        before = open_descriptors(guard)

        @settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
        @given(pieces)
        def try_it(given):
            talk(world, [(data or b"\0", count) for data, count in given])

        try_it()
        wait_until(lambda: open_descriptors(guard) == before, "all descriptors closed")
        assert (world.guard_pid(), world.daemon_pid()) == (guard, daemon)
        assert state_of(world).number("living") == 1
        world.run("ls", check=0)


def test_a_flood_of_descriptors_and_of_connections_is_shed():
    with World(under=MEMORY) as world:
        world.run("ls", check=0)
        guard = world.guard_pid()
        before = open_descriptors(guard)
        held = []
        try:
            for _ in range(300):        # more than it keeps
                held.append(caller(world))
                with contextlib.suppress(BrokenPipeError):
                    held[-1].sendall(b"\0\0")       # and never more
            talk(world, [(b"\0" * 5, 200)] * 20)    # descriptors that belong to no message
            wait_until(lambda: open_descriptors(guard) <= before + 256, "a limit")
        finally:
            for sock in held:
                sock.close()
        wait_until(lambda: open_descriptors(guard) == before, "all closed")
        assert state_of(world).number("guard_pid") == guard


# -- spawning ---------------------------------------------------------------------------------


def test_starts_that_fail_leave_no_descriptor_and_no_child_behind():
    with World(under=MEMORY) as world, world.connect() as pg:
        pids = world.guard_pid(), world.daemon_pid()
        before = list(map(open_descriptors, pids))
        text = program(world, "text", "not a program")
        for _ in range(10):
            assert refused(lambda: pg.start(["/no/such/program"])).exit_code == 127
            assert refused(lambda: pg.start([text])).exit_code == 126
            assert refused(lambda: pg.start(["true"], cwd="/no/such/place")).exit_code == 126
            assert refused(lambda: pg.start(["true"], cwd=text)).exit_code == 126
            assert refused(lambda: pg.start(["a" * 70000 for _ in range(50)])).exit_code
        wait_until(lambda: list(map(open_descriptors, pids)) == before, "all descriptors closed")
        assert not pg.sessions()
        assert children_of(pids[0]) == [pids[1]]
        assert (world.guard_pid(), world.daemon_pid()) == pids


def children_of(pid):
    """The pids of its children, zombies too."""
    return [row.pid for row in backend.process_table() if row.parent == pid]


def test_five_hundred_starts_and_ends_leave_both_processes_as_they_were():
    with World(under=MEMORY) as world, world.connect() as pg, pg.open_channel("test") as channel:
        pids = world.guard_pid(), world.daemon_pid()
        before = list(map(open_descriptors, pids))
        fields = start_fields(backend, ["true"])

        def ask_all(verb, each):
            """One request with each of those fields, all under way at once; the replies."""
            serials = [channel.ask(verb, **fields) for fields in each]
            return [channel.await_reply(serial, 60)["session"] for serial in serials]

        for _ in range(25):
            started = ask_all("start", [dict(fields, id_wanted=new_id()) for _ in range(20)])
            targets = [{"target": "@" + session["id"]} for session in started]
            ended = ask_all("wait", targets)
            assert all(session["exit"]["code"] == 0 for session in ended)
            ask_all("rm", targets)
        wait_until(lambda: list(map(open_descriptors, pids)) == before, "all descriptors closed")
        assert not pg.sessions()
        assert children_of(pids[0]) == [pids[1]]
        assert (world.guard_pid(), world.daemon_pid()) == pids
        assert not os.listdir(os.path.join(world.state, "sessions"))


# A guard that fails at the first end of a session it hears of.
_STUMBLES = """
whole = guard.Guard.on_session_end
def stumble(self, held, raw, is_known):
    guard.Guard.on_session_end = whole
    raise RuntimeError("the first end")
guard.Guard.on_session_end = stumble
"""


def test_an_act_of_the_guard_that_fails_costs_no_other_act_its_turn():
    with World(under=MEMORY) as world:
        copy = make_copy(backend, world.paths)
        with world.guard_with(copy, patch=_STUMBLES) as guard, world.connect() as pg:
            names = ("one", "two", "three")
            pids = [pg.start(["sleep", "1000"], name=name).facts["pid"] for name in names]
            daemon = world.daemon_pid()
            os.kill(guard, signal.SIGSTOP)      # so that all ends come at once
            for pid in (*pids, daemon):
                os.kill(pid, signal.SIGKILL)
            wait_until(lambda: not any(map(is_alive, (*pids, daemon))), "all ends")
            os.kill(guard, signal.SIGCONT)
            ended = wait_until(lambda: [s for s in pg.sessions() if s.facts["state"] == "ended"][1:],
                               "the ends that it did not stumble over")
            assert ended and world.guard_pid() == guard and world.new_daemon_pid(daemon)
            assert world.log("guard").count("act_failed") == 1


# A daemon that says something, and is dead before the guard can hear it; its successor
# writes down what the guard then tells it.
_LAST_WORDS = f"""
import os, signal, socket, sys
sys.path.insert(0, {ROOT!r})
from ptyguard_core import guardwire as wire
import ptyguard_posix as backend
notes = sys.argv[3].partition("=")[2]
sock = socket.socket(fileno=3)
sock.setblocking(True)
decoder = wire.Decoder()
def hear(wanted):
    while True:
        message = decoder.next()
        if message is None:
            decoder.feed(*backend.receive_descriptors(sock, 65536))
        elif message.type == wanted:
            return message
        elif message.type == wire.SESSION:
            with open(notes + ".draft", "wb") as file:
                file.write(message.bytes("blob"))
            os.rename(notes + ".draft", notes + ".told")
hear(wire.TABLE_END)
sock.sendall(wire.encode(wire.READY))
hear(wire.GO)
if not os.path.exists(notes + ".told"):
    sock.sendall(wire.encode(wire.SPAWN, 1, session="first", argv=["sleep", "1000"],
        executable="sleep", cwd="/", cols=80, rows=24, ring_bytes=1 << 20, blob="first words",
        env=["PATH=" + os.defpath, "PTYGUARD_DIR=" + sys.argv[2]]))
    hear(wire.SPAWNED)
    guard = os.getppid()
    os.kill(guard, signal.SIGSTOP)
    while b") T " not in open("/proc/%d/stat" % guard, "rb").read():
        pass
    for serial in range(2, 5):          # refused: the answers find nobody
        sock.sendall(wire.encode(wire.SPAWN, serial, session="first"))
    sock.sendall(wire.encode(wire.BLOB, session="first", blob="last words"))
    open(notes + ".said", "w").close()
    os.kill(os.getpid(), signal.SIGKILL)
hear(None)
"""


def test_what_a_daemon_said_before_it_was_killed_is_heard():
    with World(under=MEMORY) as world:
        notes = os.path.join(world.directory, "notes")
        path = program(world, "last_words.py", _LAST_WORDS)
        with world.guard_with(path, "notes=" + notes) as guard:
            wait_until(lambda: os.path.exists(notes + ".said"), "the last words")
            wait_until(lambda: children_of(guard)[1:] and not all(map(is_alive, children_of(guard))),
                       "its death")
            os.kill(guard, signal.SIGCONT)
            wait_until(lambda: os.path.exists(notes + ".told"), "a successor")
            with open(notes + ".told", "rb") as file:
                assert file.read() == b"last words"
