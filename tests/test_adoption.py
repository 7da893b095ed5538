"""Adoption: what is put off, done ahead or said in one piece while one daemon follows another.

A daemon that dies in the midst of it, at whichever step, costs nothing; what is not resumed yet is
resumed before anybody does something with it.
"""

import contextlib
import os
import sys

import pytest

import ptyguard_posix as backend
from ptyguard_core import guardwire as wire
from ptyguard_core.daemon import RESUMED_A_TURN, Rehearsed
from ptyguard_core.guard import Guard
from ptyguard_core.holdings import Cause, DaemonProcess, Held
from ptyguard_core.link import JOINED_BYTES, Link
from ptyguard_core.supervise import ask_guard
from test_link import world as pair          # noqa: F401
from test_scheduling import house           # noqa: F401
from world import MEMORY, ROOT, World, wait_until

SESSIONS = 3 * RESUMED_A_TURN

# A real daemon that is killed at the step that the first line of a file names, which it takes out.
MORTAL = f"""
import os, signal, sys
sys.path.insert(0, {ROOT!r})
import ptyguard_posix
from ptyguard_core import daemon, guardlink
root, settings = sys.argv[2], dict(item.split("=", 1) for item in sys.argv[3:])
with open(settings["steps"]) as file:
    step, _, later = file.read().partition("\\n")
with open(settings["steps"] + ".draft", "w") as file:
    file.write(later)
os.rename(settings["steps"] + ".draft", settings["steps"])
name, _, count = step.partition(" ")

def die_after(kind, method):
    act, left = getattr(kind, method), [int(count)]
    def mortal(*args):
        done = act(*args)
        left[0] -= 1
        if not left[0]:
            os.kill(os.getpid(), signal.SIGKILL)
        return done
    setattr(kind, method, mortal)

STEPS = {{
    "rehearsed": (daemon.Daemon, "rehearse"), "ring": (daemon.Daemon, "_open_ring"),
    "adopted": (daemon.Daemon, "_adopt"), "told": (guardlink.GuardLink, "confirm"),
    "resumed": (daemon.Daemon, "resume"), "slice": (daemon.Daemon, "_resume_some"),
    "go": (daemon.Daemon, "on_go"), "loaded": (daemon.Daemon, "_load_rest"),
    "read": (daemon.Daemon, "_pump"),
    "given": (daemon.Daemon, "_hand_over_input"), "over": (daemon.Daemon, "_hand_over"),
}}
if name:
    die_after(*STEPS[name])
sys.exit(daemon.main(ptyguard_posix, sys.argv[2:], sys.argv[0]))
"""

# Each writes lines once a gate (a FIFO) is opened, one more at the second, and ends with a status of its own.
WRITER = """
import sys
number, go, end = int(sys.argv[1]), *sys.argv[2:]
print("begun", number, flush=True)
open(go).close()
sys.stdout.write("".join("%d %d\\n" % (number, line) for line in range(300)))
sys.stdout.flush()
open(end).close()
print("over", number, flush=True)
sys.exit(number)
"""


def expected_of(number):
    lines = [f"begun {number}"] + [f"{number} {line}" for line in range(300)] + [f"over {number}"]
    return "".join(line + "\r\n" for line in lines).encode()


class Mortals:
    """A world whose daemons are killed at these steps, one line for each, and whose sessions all write."""

    def __init__(self, lines):
        self._lines = lines
        self._opened = []

    def __enter__(self):
        with contextlib.ExitStack() as stack:
            self.world = world = stack.enter_context(World(under=MEMORY))
            program, self.plan, self.go, self.end = (
                os.path.join(world.directory, name) for name in ("mortal.py", "steps", "go", "end"))
            with open(program, "w") as file:
                file.write(MORTAL)
            with open(self.plan, "w") as file:
                file.write("\n".join(self._lines) + "\n\n")
            for gate in (self.go, self.end):
                os.mkfifo(gate)
            stack.enter_context(world.guard_with(program, "steps=" + self.plan))
            self.pg = stack.enter_context(world.connect())
            argv = [sys.executable, "-I", "-S", "-c", WRITER]
            self.sessions = [self.pg.start([*argv, str(number), self.go, self.end], name=f"s{number}")
                             for number in range(SESSIONS)]
            self._stack = stack.pop_all()       # what has failed on the way is ended here
        return self

    def __exit__(self, *error):
        for fd in self._opened:
            os.close(fd)
        return self._stack.__exit__(*error)

    def open(self, gate):
        """Let everybody pass, also who comes later: as long as somebody has it open nobody waits."""
        self._opened.append(os.open(gate, os.O_RDWR))

    def check(self):
        """Every status and every byte is what it had to be."""
        assert [session.wait()["code"] for session in self.sessions] == list(range(SESSIONS))
        for number, session in enumerate(self.sessions):
            assert session.read(0) == (0, expected_of(number))


@pytest.mark.parametrize("steps", [
    ["rehearsed 1", "ring 1", f"ring {SESSIONS // 2}", f"ring {SESSIONS}", "adopted 1", f"adopted {SESSIONS - 1}"],
    ["told 1", f"told {SESSIONS // 2}", f"told {SESSIONS}", "go 1", "resumed 1", "slice 1", "slice 2"],
    ["read 1", "read 5", f"resumed {RESUMED_A_TURN + 1}", "slice 3", f"resumed {SESSIONS}", "loaded 1"],
])
def test_a_daemon_that_is_killed_in_the_midst_of_an_adoption_costs_nothing(steps):
    with Mortals([""] + steps) as mortals:
        world = mortals.world
        pids = [session.facts["pid"] for session in mortals.sessions]
        mortals.open(mortals.go)        # some write while nobody is there
        world.kill_daemon()
        # Each of the steps kills one, without a client that would do anything.
        wait_until(lambda: os.path.getsize(mortals.plan) == 0, "all those deaths")
        survivor = wait_until(world.daemon_pid, "a daemon")
        told = mortals.pg.sessions()
        assert sorted((s.name, s.facts["pid"]) for s in told) == sorted(
            (f"s{number}", pid) for number, pid in enumerate(pids))
        mortals.open(mortals.end)
        mortals.check()
        assert wait_until(world.daemon_pid, "the same") == survivor
        assert "quarantined=1" not in world.log("guard") and "Traceback" not in world.log()


@pytest.mark.parametrize("steps", [["given 1", ""], [f"given {SESSIONS // 2}", ""], ["over 1", ""],
                                   ["", "ring 5"], ["", "slice 1"]])
def test_a_kill_in_the_midst_of_a_hand_over_costs_nothing(steps):
    with Mortals(steps + [""]) as mortals:
        world = mortals.world
        first = world.daemon_pid()
        mortals.open(mortals.go)
        # That one, or its successor, is killed meanwhile: it may be refused.
        ask_guard(backend, world.paths, wire.RESTART, 60)
        wait_until(lambda: world.daemon_pid() not in (None, first), "a successor")
        mortals.open(mortals.end)
        mortals.check()


# --- what is put off --------------------------------------------------------------------

def unread(house, count, data=b""):
    """Sessions as they are after the go: open, and not watched yet."""
    sessions = [house.add(data=data) for _ in range(count)]
    for session in sessions:
        house.daemon.loop.forget(session.master)
        house.daemon._unread[session.id] = session
    return sessions


def test_of_many_adopted_sessions_some_are_resumed_a_turn_and_then_all_are_read(house):
    sessions = unread(house, 2 * RESUMED_A_TURN + 1, b"x")
    house.daemon.loop.soon(house.daemon._resume_some)
    waiting = []
    while house.daemon._unread:
        house.turn()
        waiting.append(len(house.daemon._unread))
    assert waiting == [RESUMED_A_TURN + 1, 1, 0]
    house.turn()
    assert [session.ring.end_offset for session in sessions] == [1] * len(sessions)


def test_who_types_at_a_session_that_is_not_resumed_yet_has_it_resumed(house):
    session, other = unread(house, 2, b"answer")
    house.daemon.backend.write_terminal = lambda master, data: len(data)
    house.type(session, b"x")
    assert list(house.daemon._unread) == [other.id]
    assert house.turn() == [session.master]
    assert session.ring.read(0, 100) == b"answer"


def test_an_exit_of_a_session_that_is_not_resumed_yet_is_told_after_its_last_byte(house):
    session, = unread(house, 1, b"last words")
    writer = house._writers.pop(session.master)     # the terminal is let go of
    house.daemon.on_exited(wire.Message(wire.EXITED, 0, [], {
        "session": session.id.encode(), "exited": 1, "status": 0, "status_known": 1, "spawn_number": 1}))
    while session.state != "ended":
        house.turn()
    os.close(writer)
    assert session.ring.read(0, 100) == b"last words"
    assert not house.daemon._unread


def test_a_session_that_is_forgotten_is_not_resumed_any_more(house):
    session, = unread(house, 1)
    del house.daemon.sessions[session.id]
    house.daemon._resume_some()
    assert not house.daemon._unread and not house.daemon.loop.interest(session.master)


def test_a_daemon_that_leaves_resumes_nothing_more(house):
    sessions = unread(house, 3, b"x")
    house.daemon._is_serving = False
    house.daemon.loop.soon(house.daemon._resume_some)
    assert house.turn() == [] and not house.daemon.loop.has_soon
    assert [house.daemon.loop.interest(session.master) for session in sessions] == [0, 0, 0]


def test_a_daemon_that_leaves_reads_nothing_more(house):
    session = house.add(data=b"for the next one")
    house.daemon._is_serving = False
    assert house.turn() == [] and not house.daemon.loop.interest(session.master)


# --- what is done ahead -----------------------------------------------------------------

def test_what_was_rehearsed_is_as_told_until_something_changes_it(house):
    from ptyguard_core.daemon import _blob
    session = house.add()
    fields = {"blob": _blob(session), "pid": 17, "pid_start": 4, "spawn_number": 1}
    fields["blob"] = _blob(Rehearsed(session.id, fields, 0.0).session)
    for change in (lambda one: None, lambda one: one.record.update(state="draining"),
                   lambda one: setattr(one, "noted_holders", 1), lambda one: setattr(one.past, "offset", 5)):
        rehearsed = Rehearsed(session.id, fields, 0.0)
        rehearsed.look_ahead(backend, [])
        before = _blob(rehearsed.session)
        change(rehearsed.session)
        assert rehearsed.is_as_told() == (_blob(rehearsed.session) == before)


def test_of_one_that_has_ended_something_is_to_be_told(house):
    from ptyguard_core.daemon import _blob
    session = house.add()
    rehearsed = Rehearsed(session.id, {"blob": _blob(session), "exited": 1}, 0.0)
    rehearsed.look_ahead(backend, [])
    assert not rehearsed.is_as_told()


class Peer:
    """A link's place: what was fed."""

    def __init__(self):
        self.fed = []

    def feed(self, messages):
        self.fed += [(type_, fields.get("session"), fields.get("same", [])) for type_, _, fields in messages]


@pytest.fixture
def guard(own_directory):
    made = Guard(backend, backend.find_paths(str(own_directory)), ("python3", "none"), [], lambda *_, **__: None)
    for id_ in "one", "two", "three":
        held = made.sessions[id_] = Held(id_, -1, -1, -1, b"{}")
        held.pid = 17
    return made


def rehearsing(guard, keeps):
    daemon = DaemonProcess(18, 4, True, ("python3", "none"), Cause(""))
    daemon.link = Peer()
    daemon.link.feed(guard._table(daemon, wire.TABLE_END))
    daemon.keeps = keeps
    assert [session for _, session, _ in daemon.link.fed] == ["one", "two", "three", None]
    del daemon.link.fed[:]
    return daemon


CHANGES = {
    "nothing": lambda held: None,
    "its blob": lambda held: setattr(held, "blob", b"{ }"),
    "what was typed": lambda held: setattr(held, "input", b"x"),
    "its child": lambda held: setattr(held, "spawn_number", 2),
    "its end": lambda held: setattr(held, "exit", (0, 1, 5)),
    "its terminal": lambda held: setattr(held, "master", 99),
    "its deaths": lambda held: setattr(held, "deaths", 2),
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("keeps", [False, True])
def test_the_second_table_tells_again_what_has_changed_and_names_the_rest(guard, change, keeps):
    daemon = rehearsing(guard, keeps)
    CHANGES[change](guard.sessions["two"])
    daemon.link.feed(guard._last_table(daemon))
    anew = ["one", "two", "three"] if not keeps else [] if change == "nothing" else ["two"]
    same = [id_ for id_ in ("one", "two", "three") if id_ not in anew]
    assert daemon.link.fed == [(wire.SESSION, id_, []) for id_ in anew] + [
        (wire.TABLE_END, None, same), (wire.GO, None, [])]


@pytest.mark.parametrize("keeps", [False, True])
def test_what_was_typed_goes_to_one_successor_only(guard, keeps):
    guard.sessions["two"].input = b"x"
    daemon = rehearsing(guard, keeps)
    daemon.link.feed(guard._last_table(daemon))
    assert guard.sessions["two"].input == b""


@pytest.fixture
def gone(guard):
    """One that was ready, and is gone when it is told to go."""
    daemon = DaemonProcess(18, 4, True, ("python3", "none"), Cause(""))
    daemon.was_ready = True
    daemon.given.update(guard.sessions)
    for held in guard.sessions.values():
        held.input = b"typed"
    daemon.timer = guard.loop.after(60, lambda: None)
    ours, its = backend.socket_pair()
    daemon.link = Link(backend, guard.loop, ours, lambda *_: None, lambda *_: None)
    its.close()
    guard._go(daemon)
    return daemon


def test_what_waits_to_be_typed_is_kept_when_the_successor_is_gone_before_it_was_sent(guard, gone):
    """Messages that were joined ahead of the sending had emptied it for all of them."""
    assert [held.input for held in guard.sessions.values()] == [b"typed"] * 3 and not gone.has_gone


@pytest.mark.parametrize("status, counts", [(9 << 8, True), (9, False)], ids=["exit 9", "SIGKILL"])
def test_an_end_before_the_go_is_held_against_its_program_as_one_after_it(guard, gone, status, counts, monkeypatch):
    """It was not: instead of the program before, the same was started until the circuit opened."""
    told = []
    monkeypatch.setattr(guard.updates, "died", lambda *args: told.append(args))
    guard._on_daemon_end(gone, status)
    assert bool(told) == counts


def test_what_was_released_meanwhile_is_in_no_second_table(guard):
    daemon = rehearsing(guard, True)
    del guard.sessions["two"]
    daemon.link.feed(guard._last_table(daemon))
    assert daemon.link.fed[0] == (wire.TABLE_END, None, ["one", "three"])


# --- what is said in one piece ----------------------------------------------------------

def test_many_messages_of_a_feed_come_whole_and_in_order_between_those_with_descriptors(pair):
    def messages():
        for number in range(500):
            descriptors = (0,) if number % 100 == 50 else ()
            yield wire.BLOB, descriptors, {"session": str(number), "blob": b"x" * (number * 7 % 1000)}
        yield wire.BLOB, (), {"session": "large", "blob": b"y" * 3 * JOINED_BYTES}
        yield wire.GO, (), {}

    pair.guard.link.feed(messages())
    pair.until(lambda: pair.daemon.names()[-1:] == ["GO"])
    blobs = pair.daemon.messages[:-1]
    assert [message.text("session") for message in blobs] == [*map(str, range(500)), "large"]
    assert [len(message.bytes("blob")) for message in blobs] == [
        *(number * 7 % 1000 for number in range(500)), 3 * JOINED_BYTES]
    assert [number for number, message in enumerate(blobs) if message.descriptors] == [50, 150, 250, 350, 450]


def test_what_is_sent_together_goes_before_what_is_sent_after_it(pair):
    pair.daemon.link.send_joined(lambda: [
        pair.daemon.link.send(wire.BLOB, session=str(number)) for number in range(100)])
    pair.daemon.link.send(wire.QUIESCED)
    pair.until(lambda: pair.guard.names()[-1:] == ["QUIESCED"])
    assert [message.text("session") for message in pair.guard.messages[:-1]] == [*map(str, range(100))]


def test_a_link_at_rest_hears_nothing_then_everything_and_what_a_dead_peer_said_at_once(pair):
    pair.guard.link.rest(0.2)
    pair.daemon.link.send(wire.PONG)
    pair.loop.soon(lambda: None)
    pair.loop.turn()
    assert pair.guard.messages == []
    pair.guard.link.send(wire.PING)             # it speaks all the same
    pair.until(lambda: pair.daemon.names() == ["PING"])
    pair.until(lambda: pair.guard.names() == ["PONG"])
    pair.guard.link.rest(1000)
    pair.daemon.link.send(wire.READY)
    pair.daemon.link.close("it dies")
    pair.guard.link.hear_out()
    assert pair.guard.names() == ["PONG", "READY"] and pair.guard.closed
