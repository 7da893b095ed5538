"""What is typed is told to those who ask, at the moment when the terminal takes it, and no password."""

import types

from ptyguard_core.overhearing import Overhearing
from ptyguard_core.session import NEVER, Cursor


class Listener:
    def __init__(self, wants_input=True, buffered=0):
        self.cursor = Cursor(0, NEVER)
        self.cursor.wants_input, self.cursor.owner = wants_input, self
        self.buffered_bytes = buffered
        self.heard = []

    def send(self, _type, event, data, offset):
        assert event == "input"
        self.heard.append((data, offset))


class Backend:
    """A terminal that hides what is typed or not, as it was asked for: before and after a write."""

    def __init__(self, *hides):
        self.hides, self.asked, self.written = list(hides), 0, b""

    def hides_input(self, _master):
        self.asked += 1
        return self.hides.pop(0)

    def write_terminal(self, _master, data):
        self.written += data
        return len(data)


def type_into(backend, data, *listeners):
    session = types.SimpleNamespace(cursors=[listener.cursor for listener in listeners], master=7,
                                    ring=types.SimpleNamespace(end_offset=40))
    hearing = Overhearing(backend, session)
    count = hearing.write(7, data)
    if hearing.tell is not None:
        hearing.tell(data[:count])


def test_it_is_told_with_the_end_of_output_to_those_who_ask():
    backend, asks, does_not = Backend(False, False), Listener(), Listener(wants_input=False)
    type_into(backend, b"h\xc3\xa9\xff", asks, does_not)
    assert asks.heard == [("hé\udcff", 40)] and not does_not.heard and backend.written == b"h\xc3\xa9\xff"


def test_where_nobody_asks_the_terminal_is_not_asked_either():
    backend = Backend()
    type_into(backend, b"text", Listener(wants_input=False))
    assert backend.asked == 0 and backend.written == b"text"


def test_what_a_terminal_hides_before_or_after_the_write_is_told_to_nobody():
    for hides in ((True,), (False, True)):
        backend, listener = Backend(*hides), Listener()
        type_into(backend, b"hunter2\r", listener)
        assert not listener.heard and backend.written == b"hunter2\r"


def test_a_long_piece_is_told_in_several_and_who_does_not_read_costs_no_memory():
    listener, stuck = Listener(), Listener(buffered=2 << 20)
    type_into(Backend(False, False), b"x" * 100_000, listener, stuck)
    assert "".join(data for data, _ in listener.heard) == "x" * 100_000
    assert max(len(data) for data, _ in listener.heard) <= 16 * 1024 and not stuck.heard
