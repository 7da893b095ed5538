"""One client's connection with a loop and an owner of its own: how much it does at a time."""

import socket
import time

import pytest

import ptyguard_posix as backend
from ptyguard_core import frames
from ptyguard_core.connection import ACTS_A_TURN, FRAMES_A_TURN, Connection
from ptyguard_core.loop import Loop
from ptyguard_core.ring import Ring, memory_bytes
from ptyguard_core.session import NEVER, RUNNING, Cursor, Session


class Owner:
    """What a connection tells; `acted` has the frames in their order."""

    def __init__(self):
        self.acted = []
        self.closed = []
        self.is_full = False

    def on_frame(self, client, type_, payload):
        self.acted.append((type_, bytes(payload) if type_ in frames.RAW else payload))

    def is_input_full(self, client):
        return self.is_full

    def on_buffered(self, client):
        pass

    def on_progress(self, client):
        pass

    def on_caught_up(self, client):
        pass

    def on_close(self, client, reason):
        self.closed.append(reason)

    def on_protocol_error(self, client, error):
        client.close(error.message)


class House:
    """A loop that is turned by hand, a connection, and the other end of its socket."""

    def __init__(self):
        self.pollers = [backend.make_poller(), backend.make_inner_poller()]
        self.loop = Loop(self.pollers[0], time.monotonic, self.pollers[1])
        self.owner = Owner()
        ours, self.peer = socket.socketpair()
        self.client = Connection(self.owner, self.loop, ours)
        self.client.accept_hello({})

    def turn(self):
        """One turn that does not sleep."""
        self.loop.soon(lambda: None)
        self.loop.turn()

    def is_urgent(self):
        """Whether its socket is in the inner poller; None where there is none."""
        return self.loop.is_urgent(self.client._sock.fileno())

    def close(self):
        self.client.close("the test is over")
        self.peer.close()
        for poller in filter(None, self.pollers):
            poller.close()


@pytest.fixture
def house():
    made = House()
    yield made
    made.close()


def pings(count):
    return frames.control(frames.PING, {}) * count


def test_of_what_a_client_asks_at_once_a_bounded_number_is_acted_on_at_a_time(house):
    house.peer.sendall(pings(8 * ACTS_A_TURN))
    seen = []
    while len(house.owner.acted) < 8 * ACTS_A_TURN:
        before = len(house.owner.acted)
        house.turn()
        seen.append(len(house.owner.acted) - before)
    # In the first turn when it is heard, right after, and at the end; then at the end.
    assert max(seen) <= 3 * ACTS_A_TURN and max(seen[1:]) == ACTS_A_TURN


def test_what_waits_of_a_client_is_acted_on_in_order_and_before_what_comes_later(house):
    words = [b"%d" % number for number in range(5 * ACTS_A_TURN)]
    for half in (words[:3 * ACTS_A_TURN], words[3 * ACTS_A_TURN:]):
        house.peer.sendall(b"".join(bytes(frames.raw_frames(frames.INPUT, word)) for word in half))
        house.turn()
    while len(house.owner.acted) < len(words):
        house.turn()
    assert [payload for _, payload in house.owner.acted] == words


def test_a_client_that_asks_much_and_hangs_up_is_heard_to_the_end(house):
    house.peer.sendall(pings(10 * ACTS_A_TURN))
    house.peer.close()
    for _ in range(100):
        house.turn()
    assert len(house.owner.acted) == 10 * ACTS_A_TURN
    assert house.owner.closed == ["closed by the client"]


def test_with_nothing_more_to_act_on_the_loop_sleeps(house):
    house.peer.sendall(pings(3 * ACTS_A_TURN))
    for _ in range(20):
        house.turn()
    assert len(house.owner.acted) == 3 * ACTS_A_TURN
    assert not house.loop.has_soon


def test_a_client_that_is_not_listened_to_keeps_what_waits_until_it_is(house):
    house.peer.sendall(pings(ACTS_A_TURN - 1))
    house.owner.is_full = True
    for _ in range(5):
        house.turn()
    assert len(house.owner.acted) == 1
    house.owner.is_full = False
    house.client.update_interest()
    house.turn()
    assert len(house.owner.acted) == ACTS_A_TURN - 1


def test_a_client_is_urgent_but_while_it_has_not_taken_what_is_there(house):
    if house.pollers[1] is None:
        pytest.skip("pollers cannot be nested here")
    assert house.is_urgent()
    house.client.send_raw(frames.RESTORE, b"x" * 10_000_000)
    house.turn()
    assert not house.is_urgent()
    house.peer.setblocking(False)
    taken = 0
    while taken < 10_000_000:
        try:
            taken += len(house.peer.recv(1 << 20))
        except BlockingIOError:
            house.turn()
    house.turn()
    assert house.is_urgent()


def test_one_turn_sends_a_bounded_amount_of_output(house):
    session = Session({"id": "k3f9", "name": "build", "size": {"cols": 80, "rows": 24}, "state": RUNNING})
    session.ring = Ring.format(bytearray(memory_bytes(4 << 20)))
    while session.ring.end_offset < 3 << 20:
        session.ring.commit(len(session.ring.writable(1 << 20)))
    house.client.follow(session, Cursor(0, NEVER))
    sent = []

    class Socket:
        """Takes everything."""

        def sendmsg(self, views):
            sent.append(sum(map(len, views)))
            return sent[-1]

        def __getattr__(self, name):
            return getattr(taken, name)

    taken, house.client._sock = house.client._sock, Socket()
    house.client.flush()
    house.client._sock = taken
    assert sum(sent) <= FRAMES_A_TURN * (frames.RAW_BYTES_MAX + 64)
    assert house.client.cursor.offset < session.ring.end_offset
