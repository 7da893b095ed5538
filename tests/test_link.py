"""Links in pairs: messages and descriptors both ways over a real socket, on a real loop."""

import errno
import os
import struct
import time

import pytest

import ptyguard_posix as backend
from ptyguard_core import guardwire as wire
from ptyguard_core.link import Link
from ptyguard_core.loop import Loop

LIMIT_S = 60
needs_proc = pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="counts /proc/self/fd")


def open_descriptors():
    return len(os.listdir("/proc/self/fd"))


class End:
    """One end: what came, and why it closed."""

    def __init__(self, world, sock, **options):
        self.messages = []
        self.closed = []
        self.descriptors = []
        self.link = Link(backend, world.loop, sock, self._on_message,
                         lambda link, reason: self.closed.append(reason), **options)

    def _on_message(self, _link, message):
        self.messages.append(message)
        self.descriptors += message.descriptors or []

    def names(self):
        return [message.name for message in self.messages]


class World:
    """A loop with two links that face each other."""

    def __init__(self):
        self.poller = backend.make_poller()
        self.loop = Loop(self.poller, time.monotonic)
        self.sockets = backend.socket_pair()
        self.guard, self.daemon = (End(self, sock) for sock in self.sockets)

    def until(self, fact):
        limit = self.loop.after(LIMIT_S, lambda: pytest.fail("this never became true"))
        while not fact():
            self.loop.turn()
        limit.cancel()

    def close(self):
        for end in (self.guard, self.daemon):
            end.link.close("the test is over")
            for fd in end.descriptors:
                os.close(fd)
        self.poller.close()


@pytest.fixture
def world():
    world = World()
    yield world
    world.close()


def content(fd):
    return os.pread(fd, 100, 0)


@pytest.fixture
def files(tmp_path):
    """Two descriptors that can be told apart."""
    found = []
    for name in ("one", "two"):
        (tmp_path / name).write_text(name)
        found.append(os.open(str(tmp_path / name), os.O_RDONLY))
    yield found
    for fd in found:
        os.close(fd)


# --- both ways ---------------------------------------------------------------------

def test_messages_and_descriptors_pass_both_ways(world, files):
    world.guard.link.send(wire.SESSION, descriptors=files, session="k3", rows=24)
    world.daemon.link.send(wire.BLOB, session="k3", blob=b"\xff\0", input=b"typed")
    world.daemon.link.send(wire.DEPOSIT, descriptors=files[1:])
    world.until(lambda: world.daemon.messages and len(world.guard.messages) == 2)
    session, = world.daemon.messages
    assert (session.name, session.fields) == ("SESSION", {"session": b"k3", "rows": 24})
    assert [content(fd) for fd in session.descriptors] == [b"one", b"two"]
    assert world.guard.names() == ["BLOB", "DEPOSIT"]
    assert world.guard.messages[0].fields["blob"] == b"\xff\0"
    assert [content(fd) for fd in world.guard.messages[1].descriptors] == [b"two"]
    assert not any(os.get_inheritable(fd) for fd in session.descriptors)


def test_a_sender_may_close_its_descriptor_as_soon_as_it_was_given(world, tmp_path):
    path = tmp_path / "own"
    path.write_text("own")
    filler = bytes(1 << 20)
    for _ in range(3):                  # more than a socket takes: the rest waits in the link
        world.guard.link.send(wire.BLOB, blob=filler)
    fd = os.open(str(path), os.O_RDONLY)
    world.guard.link.send(wire.SESSION, descriptors=[fd])
    os.close(fd)
    world.until(lambda: len(world.daemon.messages) == 4)
    assert content(world.daemon.descriptors[0]) == b"own"


def test_an_answer_finds_its_question_whatever_comes_first(world):
    answers = []
    for number in range(3):
        world.daemon.link.ask(wire.SPAWN, answers.append, rows=number)
    world.guard.link.send(wire.PING)
    world.until(lambda: len(world.guard.messages) == 3)
    for message in reversed(world.guard.messages):
        world.guard.link.send(wire.OK, message.serial, pid=message.number("rows"))
    world.until(lambda: len(answers) == 3)
    assert [answer.number("pid") for answer in answers] == [2, 1, 0]
    assert world.daemon.names() == ["PING"]


def test_an_answer_that_comes_twice_is_a_message_the_second_time(world):
    answers = []
    world.daemon.link.ask(wire.SPAWN, answers.append)
    world.until(lambda: world.guard.messages)
    for _ in range(2):
        world.guard.link.send(wire.OK, world.guard.messages[0].serial)
    world.until(lambda: world.daemon.messages)
    assert len(answers) == 1


@needs_proc
def test_a_table_of_three_hundred_sessions_arrives_whole_and_leaks_nothing(world, files):
    before = open_descriptors()
    came = []

    def look_and_close(_link, message):
        came.append((message.text("session"), [content(fd) for fd in message.descriptors]))
        for fd in message.descriptors:
            os.close(fd)
    world.daemon.link.on_message = look_and_close
    for number in range(300):
        world.guard.link.send(wire.SESSION, descriptors=files, session=f"s{number}",
                              blob=bytes([number % 256]) * 3000)
    world.guard.link.send(wire.TABLE_END)
    world.until(lambda: len(came) == 301)
    assert came == [(f"s{number}", [b"one", b"two"]) for number in range(300)] + [("", [])]
    assert open_descriptors() == before


def test_the_most_descriptors_that_the_wire_allows_pass_at_once(world, files):
    world.guard.link.send(wire.SESSION, descriptors=files * (wire.DESCRIPTORS_MAX // 2))
    world.until(lambda: world.daemon.messages)
    assert len(world.daemon.messages[0].descriptors) == wire.DESCRIPTORS_MAX


def test_a_message_of_megabytes_passes(world):
    blob = os.urandom(5 << 20)
    world.guard.link.send(wire.BLOB, blob=blob)
    world.until(lambda: world.daemon.messages)
    assert world.daemon.messages[0].fields["blob"] == blob


def test_messages_arrive_in_the_order_in_which_they_were_sent(world):
    for number in range(200):
        world.guard.link.send(wire.BLOB, rows=number, blob=bytes(number * 50))
    world.until(lambda: len(world.daemon.messages) == 200)
    assert [m.number("rows") for m in world.daemon.messages] == list(range(200))


# --- ends -----------------------------------------------------------------------------

def test_when_the_peer_closes_whoever_awaits_an_answer_gets_none(world):
    answers = []
    world.daemon.link.ask(wire.SPAWN, answers.append)
    world.daemon.link.ask(wire.STATE, answers.append)
    world.guard.link.close("done")
    world.until(lambda: world.daemon.closed)
    assert answers == [None, None]
    assert len(world.daemon.closed) == 1 and world.guard.closed == ["done"]
    world.daemon.link.ask(wire.SPAWN, answers.append)
    assert answers == [None] * 3
    world.daemon.link.send(wire.PONG)                    # to nobody: not an error


def test_what_was_sent_before_a_close_still_arrives(world):
    world.guard.link.send(wire.QUIT)
    world.guard.link.close("done")
    world.until(lambda: world.daemon.closed)
    assert world.daemon.names() == ["QUIT"]


def test_closing_is_told_once_however_often_it_is_done(world):
    for _ in range(3):
        world.guard.link.close("done")
    assert world.guard.closed == ["done"]
    assert not world.guard.link.is_open


def test_a_link_that_is_closed_by_its_own_message_delivers_no_more(world):
    def close_now(link, message):
        world.daemon.messages.append(message)
        link.close("enough")
    world.daemon.link.on_message = close_now
    for _ in range(3):
        world.guard.link.send(wire.PING)
    world.until(lambda: world.daemon.closed)
    assert world.daemon.names() == ["PING"]


@needs_proc
def test_descriptors_on_their_way_when_a_link_closes_are_closed(files):
    before = open_descriptors()
    world = World()
    world.daemon.link.on_message = lambda link, message: (
        [os.close(fd) for fd in message.descriptors], link.close("enough"))
    world.guard.link.send(wire.SESSION, descriptors=files)
    world.guard.link.send(wire.SESSION, descriptors=files)
    for _ in range(3):
        world.guard.link.send(wire.BLOB, blob=bytes(1 << 20))
    world.guard.link.send(wire.SESSION, descriptors=files)          # waits in the link
    world.until(lambda: world.daemon.closed and world.guard.closed)
    world.close()
    assert open_descriptors() == before


@needs_proc
def test_a_link_without_a_free_descriptor_closes_and_keeps_none(world, files, monkeypatch):
    # The duplicates made before the one that failed used to stay open for ever,
    # and the error went to whoever was sending.
    before = open_descriptors()
    real, left = os.dup, [1]

    def dup(fd):
        if not left:
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        left.pop()
        return real(fd)
    monkeypatch.setattr(os, "dup", dup)
    world.guard.link.send(wire.SESSION, descriptors=files)
    assert len(world.guard.closed) == 1
    assert open_descriptors() == before - 1                         # the socket


# --- peers that break the rules -----------------------------------------------------------------

GARBAGE = [
    b"GET / HTTP/1.1\r\n\r\n",
    struct.pack(">HHII", wire.PING, 0, 0, 3) + b"abc",
    struct.pack(">HHII", wire.SESSION, 2, 0, 0),
    b"\xff" * 100,
]


@pytest.mark.parametrize("garbage", GARBAGE)
def test_garbage_closes_only_its_own_link(world, garbage):
    ours, theirs = backend.socket_pair()
    bad = End(world, ours)
    theirs.send(garbage)
    world.until(lambda: bad.closed)
    assert bad.messages == []
    world.guard.link.send(wire.PING)
    world.until(lambda: world.daemon.messages)
    assert not world.guard.closed and not world.daemon.closed
    theirs.close()


@needs_proc
def test_descriptors_that_do_not_fit_their_message_are_closed_and_the_link_lives_on(world, files):
    before = open_descriptors()
    sock = world.sockets[0]
    backend.send_descriptors(sock, wire.encode(wire.SESSION, descriptors=1, session="k3"), files)
    world.until(lambda: world.daemon.messages)
    assert world.daemon.messages[0].descriptors is None
    assert open_descriptors() == before
    world.guard.link.send(wire.PING)
    world.until(lambda: len(world.daemon.messages) == 2)


def test_a_peer_that_takes_nothing_is_given_up_at_a_bounded_queue(world):
    sent = 0
    while world.guard.link.is_open:
        world.guard.link.send(wire.BLOB, blob=bytes(8 * 1000 * 1000))
        sent += 1
        assert sent < 20
    assert len(world.guard.closed) == 1


def test_a_stranger_is_held_to_a_small_limit_until_it_is_raised(world):
    ours, theirs = backend.socket_pair()
    stranger = End(world, ours, message_max=100)
    peer = End(world, theirs)
    peer.link.send(wire.STATE, text="short")
    world.until(lambda: stranger.messages)
    stranger.link.raise_limit()
    peer.link.send(wire.DEPOSIT, blob=bytes(1000))
    world.until(lambda: len(stranger.messages) == 2)
    stranger.link.close("done")
    peer.link.close("done")

    ours, theirs = backend.socket_pair()
    stranger, peer = End(world, ours, message_max=100), End(world, theirs)
    peer.link.send(wire.DEPOSIT, blob=bytes(1000))
    world.until(lambda: stranger.closed and peer.closed)
    assert stranger.messages == []
