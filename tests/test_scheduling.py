"""What a turn of the daemon's loop may cost: reads, exits, records, removals, by their number.

A real daemon object with a real loop; terminals are pipes, and nobody but the test turns it.
"""

import os
import socket
import sys
import time

import pytest

import ptyguard_posix as backend
from ptyguard_core import requests
from ptyguard_core.connection import Connection
from ptyguard_core.daemon import EXITS_A_TURN, FORGOTTEN_A_TURN, RECORDS_A_TURN, Daemon
from ptyguard_core.requests import LISTED_A_TURN
from ptyguard_core.ring import Ring, memory_bytes
from ptyguard_core.session import ANSWER_BYTES, ENDED, KEYS_BYTES_MAX, READS_ALONE, RUNNING, Session

RING_BYTES = 1 << 18
STREAMS = 20


class CountingBackend:
    """The back-end, which notes which terminal is read."""

    def __init__(self):
        self.reads = []
        self.on_read = lambda: None

    def __getattr__(self, name):
        return getattr(backend, name)

    def read_terminal(self, master, view):
        self.reads.append(master)
        self.on_read()
        return backend.read_terminal(master, view[:1000])       # a terminal gives little at a time

    @staticmethod
    def canonical_mode(_master):
        return None

    @staticmethod
    def write_terminal(_master, data):
        return len(data)                # what is typed is of no interest here


class Records:
    """A registry that counts."""

    def __init__(self):
        self.written = []
        self.removed = []

    def write(self, record, is_synced=True):
        self.written.append(record["id"])

    def remove(self, id_):
        self.removed.append(id_)

    def has(self, _record):
        return False


class Nothing:
    """Tombstones, of which there are none."""

    def sweep(self):
        pass


class House:
    """A daemon that serves and is turned by hand."""

    def __init__(self, directory, **settings):
        self.backend = CountingBackend()
        self.daemon = Daemon(self.backend, backend.find_paths(directory), settings, lambda *_, **__: None,
                             (sys.executable, "none"))
        self.records = self.daemon.registry = Records()
        self.daemon.tombstones = Nothing()
        self.daemon._is_serving = True
        self._writers = {}

    def add(self, state=RUNNING, data=b""):
        """A session; one that runs has a terminal in which `data` waits."""
        id_ = "s%011d" % len(self.daemon.sessions)
        session = self.daemon.sessions[id_] = Session({
            "id": id_, "name": id_, "incarnation": 1, "spawn": 1, "state": state, "argv": [], "cwd": "/",
            "size": {"cols": 80, "rows": 24}, "created_at": 0.0, "ended_at": None if state == RUNNING else 1.0,
            "exit": None, "pid": None, "pid_start": None, "labels": {}, "restart": "never", "collected": False})
        if state == RUNNING:
            session.ring = Ring.format(bytearray(memory_bytes(RING_BYTES)))
            session.master, writer = os.pipe()
            self._writers[session.master] = writer
            for fd in (session.master, writer):
                os.set_blocking(fd, False)
            self.feed(session, data)
            self.daemon.loop.watch(session.master, lambda bits: self.daemon._on_terminal(session, bits), 0)
            self.daemon._update_terminal(session)
        return session

    def feed(self, session, data):
        """The program writes."""
        if data:
            os.write(self._writers[session.master], data)

    def turn(self):
        """One turn that does not sleep; which terminals were read."""
        self.backend.reads.clear()
        self.daemon.loop.soon(lambda: None)
        self.daemon.loop.turn()
        return list(self.backend.reads)

    def type(self, session, data):
        """A client types that at once."""
        self.daemon._type_input(session, None, data)

    def close(self):
        for master, writer in self._writers.items():
            os.close(master)
            os.close(writer)


@pytest.fixture
def house(own_directory):
    made = House(str(own_directory), **{"keep-count": "0"})
    yield made
    made.close()


needs_nesting = pytest.mark.skipif(backend.make_inner_poller() is None, reason="pollers cannot be nested here")


# --- reads ----------------------------------------------------------------------------------

def test_a_terminal_that_is_ready_alone_is_read_on(house):
    session = house.add(data=b"x" * 60000)
    assert house.turn() == [session.master] * READS_ALONE
    assert session.ring.end_offset == READS_ALONE * 1000


def test_of_several_terminals_that_are_ready_each_is_read_once_a_turn(house):
    sessions = [house.add(data=b"x" * 60000) for _ in range(STREAMS)]
    for _ in range(5):
        assert sorted(house.turn()) == sorted(session.master for session in sessions)
    assert {session.ring.end_offset for session in sessions} == {5000}


@needs_nesting
def test_what_comes_of_typing_is_read_before_what_streams(house):
    typed = house.add()
    streams = [house.add(data=b"x" * 60000) for _ in range(STREAMS)]
    house.type(typed, b"k")

    def answer():
        if len(house.backend.reads) == 3:
            house.feed(typed, b"k")
    house.backend.on_read = answer
    reads = house.turn()
    assert reads[3] == typed.master and typed.ring.end_offset == 1
    assert sorted(reads[:3] + reads[4:]) == sorted(stream.master for stream in streams)


@needs_nesting
def test_a_terminal_that_was_typed_at_and_streams_is_one_of_many_again(house):
    typed = house.add()
    for _ in range(3):
        house.add(data=b"x" * 60000)
    house.type(typed, b"k")
    while house.daemon.loop.is_urgent(typed.master):
        assert typed.ring.end_offset <= ANSWER_BYTES
        house.feed(typed, b"y" * 4000)
        house.turn()
    assert typed.ring.end_offset > ANSWER_BYTES
    house.feed(typed, b"y" * 4000)
    assert house.turn().count(typed.master) == 1


@needs_nesting
def test_a_paste_is_no_typing(house):
    session = house.add()
    house.type(session, b"k" * (KEYS_BYTES_MAX + 1))
    assert not house.daemon.loop.is_urgent(session.master)
    house.type(session, b"k" * KEYS_BYTES_MAX)
    assert house.daemon.loop.is_urgent(session.master)


@needs_nesting
def test_nothing_is_asked_for_when_a_terminal_that_was_typed_at_falls_silent(house):
    session = house.add()
    house.type(session, b"k")
    house.turn()
    assert not house.daemon.loop.has_soon and house.daemon.loop._sleep_s() == -1


# --- exits, records, removals ---------------------------------------------------------------

def test_of_a_thousand_exits_at_once_some_are_acted_on_a_turn(house):
    taken = []
    house.daemon._take_exit = taken.append
    for number in range(1000):
        house.daemon.on_exited(number)
    counts = []
    while len(taken) < 1000:
        before = len(taken)
        house.turn()
        counts.append(len(taken) - before)
    assert max(counts) == EXITS_A_TURN
    assert taken == list(range(1000))
    assert not house.daemon.loop.has_soon


def test_a_daemon_that_leaves_acts_on_all_exits_that_wait(house):
    taken = []
    house.daemon._take_exit = taken.append
    for number in range(100):
        house.daemon.on_exited(number)
    house.daemon.on_leave()
    assert taken == list(range(100))
    house.turn()
    assert len(taken) == 100


def test_of_many_records_that_change_at_once_some_are_written_a_turn_and_each_once(house):
    sessions = [house.add() for _ in range(50)]
    for session in sessions + sessions:
        house.daemon.save(session)
    assert len(house.records.written) == RECORDS_A_TURN
    counts = []
    while house.daemon.loop.has_soon:
        before = len(house.records.written)
        house.turn()
        counts.append(len(house.records.written) - before)
    assert max(counts) == RECORDS_A_TURN
    assert set(house.records.written) == {session.id for session in sessions}
    house.daemon.save(sessions[0])                      # a single one waits for nobody
    assert house.records.written[-1] == sessions[0].id


def test_of_who_is_known_to_the_guard_no_more_the_record_waits_for_no_turn(house):
    sessions = [house.add(ENDED) for _ in range(RECORDS_A_TURN + 1)]
    for session in sessions:
        house.daemon.save(session)
    assert house.records.written == [session.id for session in sessions]


def test_the_guard_is_told_to_forget_nobody_whose_record_is_not_written_yet(own_directory):
    house = House(str(own_directory), **{"keep-output": "0"})
    sessions, released = [house.add(data=b"x") for _ in range(3 * RECORDS_A_TURN)], {}

    def release(session):
        released[session.id] = session.id in house.records.written
        session.ring = None
    house.daemon._release_ring = release
    house.turn()
    for session in sessions:
        session.record.update(state=ENDED, ended_at=time.time(), exit={"code": 3, "signal": None})
        house.daemon.save(session)
        house.daemon.tell_end(session)
    while house.daemon.loop.has_soon:
        house.turn()
    house.close()
    assert released == {session.id: True for session in sessions}


def test_a_record_that_waits_for_its_turn_is_not_written_once_it_is_to_go(house):
    sessions = [house.add() for _ in range(RECORDS_A_TURN + 1)]
    house.daemon._release_ring = lambda _session: None
    for session in sessions:
        house.daemon.save(session)
    house.daemon.forget(sessions[-1])
    while house.daemon.loop.has_soon:
        house.turn()
    assert sessions[-1].id not in house.records.written


def test_a_daemon_that_leaves_writes_all_records_that_wait(house):
    sessions = [house.add() for _ in range(50)]
    for session in sessions:
        house.daemon.save(session)
    house.daemon.on_leave()
    assert set(house.records.written) == {session.id for session in sessions}


def test_of_many_sessions_past_their_keeping_some_are_forgotten_a_turn(house):
    for _ in range(100):
        house.add(ENDED)
    done = []
    house.daemon.prune(lambda: done.append(len(house.daemon.sessions)))
    counts = [len(house.records.removed)]
    while not done:
        before = len(house.records.removed)
        house.turn()
        counts.append(len(house.records.removed) - before)
    assert max(counts) == FORGOTTEN_A_TURN
    assert done == [0] and not house.daemon.sessions


def test_of_a_long_list_some_is_told_a_turn_and_all_in_one_answer(house, monkeypatch):
    sessions = [house.add(ENDED) for _ in range(5 * LISTED_A_TURN + 1)]
    described, answers = [], []
    monkeypatch.setattr(requests, "describe", lambda session, *_: described.append(session) or session.id)
    requests.ls(house.daemon, None, {}, lambda **ok: answers.append(ok["sessions"]))
    counts = [len(described)]
    while not answers:
        before = len(described)
        house.turn()
        counts.append(len(described) - before)
    assert counts == [LISTED_A_TURN] * 5 + [1]
    assert answers == [sorted(session.id for session in sessions)]


def test_a_short_list_is_told_at_once(house):
    answers = []
    house.add(ENDED)
    requests.ls(house.daemon, None, {}, lambda **ok: answers.append(ok["sessions"]))
    assert [facts["state"] for facts in answers[0]] == ["ended"]


def test_clients_and_what_they_ask_are_urgent(house):
    ours, theirs = socket.socketpair()
    client = Connection(house.daemon, house.daemon.loop, ours)
    house.daemon.clients.add(client)
    house.daemon._buffered[client] = 0
    assert house.daemon.loop.is_urgent(ours.fileno()) == (backend.make_inner_poller() is not None)
    theirs.close()
    client.close("the test is over")
