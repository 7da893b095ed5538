"""Answering: sessions that nobody views, and several terminals on one session; no processes here."""

import pytest
from hypothesis import given, strategies as st

from ptyguard_core import answering
from ptyguard_core.answering import PIECE_BYTES, SCREENS_MAX, SLICE_BYTES, WAITING_MAX, Answering
from ptyguard_core.loop import Loop
from ptyguard_core.queries import QueryFinder, answer, default_colours
from ptyguard_core.replies import REST_S
from ptyguard_core.ring import Ring, memory_bytes
from ptyguard_core.screen import Screen
from ptyguard_core.session import Cursor, Session

CAPACITY = 256 * 1024
SIZE = (20, 6)


class NothingReady:
    """A poller; `Loop.turn` does what is due and returns."""

    def poll(self, _sleep_s):
        return []


class House:
    """An Answering, its loop and a clock."""

    def __init__(self, settings=None):
        self.now = 100.0
        self.tick_s = 0.0               # by so much the clock goes on whenever it is looked at
        self.loop = Loop(NothingReady(), self._clock)
        self.answers = {}               # session id -> bytes
        self.typed = []                 # (cursor, bytes)
        self.screens = 0
        self.answering = Answering(self.loop, settings or {}, self._take, self._type, self._make)

    def _clock(self):
        self.now += self.tick_s
        return self.now

    def _make(self, session):
        self.screens += 1
        return answering.replay_of(session)

    def _take(self, session, data):
        self.answers[session.id] = self.answers.get(session.id, b"") + data

    def _type(self, _session, cursor, data):
        self.typed.append((cursor, data))

    def session(self, id_="k3", capacity=CAPACITY):
        session = Session({"id": id_, "name": id_, "state": "running", "exit": None,
                           "size": {"cols": SIZE[0], "rows": SIZE[1]}})
        session.ring = Ring.format(bytearray(memory_bytes(capacity)))
        return session

    def write(self, session, data, at_once=4096):
        """The program's output, as the daemon's pump brings it."""
        data = memoryview(data)
        while data:
            done = 0
            for _ in range(16):
                view = session.ring.writable(min(at_once, len(data)))
                count = min(len(view), len(data))
                view[:count] = data[:count]
                session.ring.commit(count)
                data, done = data[count:], done + count
            self.answering.on_output(session, done)

    def settle(self):
        """Turn until nothing is due."""
        for _ in range(100000):
            if not self.loop.has_soon:
                return
            self.loop.turn()
        raise AssertionError("it does not come to an end")

    def view(self, session, may_type=True):
        cursor = Cursor(session.ring.end_offset, "never", is_interactive=may_type)
        cursor.is_viewer, cursor.may_type = True, may_type
        session.add(cursor)
        return cursor


@pytest.fixture
def house():
    return House()


def expected(data):
    """What is answered to `data` from its beginning on."""
    screen, given, shown = Screen(SIZE), [], 0
    for query in QueryFinder().find(data, len(data)):
        screen.feed(data[shown:query.end])
        shown = query.end
        given.append(answer(query, screen, default_colours({})))
    return b"".join(given)


fragments = st.sampled_from([
    b"\x1b[6n", b"\x1b[c", b"\x1b[?6n", b"\x1b]11;?\x07", b"\x1b]11;#102030\x07", b"\x1b[?2004$p", b"\x1b[?2004h",
    b"\x1b[?u", b"\x1b[>3u", b"words", b"\r\n", b"\x1b[3;4H", b"\x1b[2;4r", b"\x1b[?6h", b"\x1b[", b"5n", b"\x1b",
    b"x" * 700, b"\xe2\x98\x83"])


@given(st.lists(fragments, max_size=20).map(b"".join), st.lists(st.integers(1, 900), min_size=1, max_size=8),
       st.integers(0, 3))
def test_answers_come_in_order_and_each_is_true_where_its_query_stands(data, sizes, turns):
    house = House()
    session = house.session()
    begin = 0
    while begin < len(data):
        size = sizes[begin % len(sizes)]
        house.write(session, data[begin:begin + size])
        begin += size
        for _ in range(turns):
            house.loop.turn()
    house.settle()
    assert house.answers.get("k3", b"") == expected(data)


def test_what_needs_no_screen_is_answered_at_once_and_without_one(house):
    session = house.session()
    house.write(session, b"\x1b[c\x1b[5n\x1b[>q")
    assert house.answers["k3"].startswith(b"\x1b[?62;22c\x1b[0n\x1bP>|ptyguard(")
    assert house.screens == 0 and not house.loop.has_soon


def test_a_screen_is_fed_a_slice_a_turn_and_only_when_it_is_asked_and_what_is_new(house):
    session = house.session()
    house.write(session, b"line\r\n" * 20000)
    assert not house.loop.has_soon
    house.write(session, b"\x1b[6n")
    fed = []
    for _ in range(3):
        house.loop.turn()
        fed.append(house.answering._questions["k3"].replay.offset)
    assert [b - a for a, b in zip(fed, fed[1:])] == [SLICE_BYTES] * 2
    house.settle()
    assert house.answers["k3"] == b"\x1b[6;1R"
    house.write(session, b"more\x1b[6n")
    house.loop.turn()
    assert house.answers["k3"] == b"\x1b[6;1R\x1b[6;5R" and house.screens == 1


def test_a_slice_ends_also_after_its_time(house):
    session = house.session()
    house.write(session, b"x" * SLICE_BYTES + b"\x1b[6n")
    house.tick_s = answering.SLICE_S / 2        # bytes that are dear to show
    house.loop.turn()
    assert 0 < house.answering._questions["k3"].replay.offset <= 2 * PIECE_BYTES
    house.settle()
    assert house.answers["k3"] == expected(b"x" * SLICE_BYTES + b"\x1b[6n")


def test_sessions_take_turns(house):
    first, second = house.session("first"), house.session("second")
    house.write(first, b"x" * 100000 + b"\x1b[6n")
    house.write(second, b"x\x1b[6n")
    house.loop.turn()
    house.loop.turn()
    assert house.answers == {"second": b"\x1b[1;2R"}
    house.settle()
    assert set(house.answers) == {"first", "second"}


def test_an_answer_comes_also_when_what_is_before_the_query_is_overwritten_meanwhile(house):
    session = house.session(capacity=64 * 1024)
    flood = b"0123456789 abcdef\r\n" * 20000
    house.write(session, b"begin\x1b[6n" + flood[:1000])
    house.loop.turn()
    assert house.answers["k3"] == b"\x1b[1;6R"
    house.write(session, flood + b"\x1b[6n" + flood)
    house.settle()
    house.write(session, b"\x1b[2;3H\x1b[6n")
    house.settle()
    answers = house.answers["k3"]
    assert answers.count(b"R") == 3 and answers.endswith(b"\x1b[2;3R")


def test_a_program_that_asks_without_end_costs_a_bounded_amount(house):
    session = house.session()
    house.write(session, b"\x1b[6n" * 60000)
    questions = house.answering._questions["k3"]
    assert len(questions._waiting) == WAITING_MAX
    house.settle()
    assert house.answers["k3"] == b"".join(b"\x1b[1;1R" for _ in range(WAITING_MAX))
    house.write(session, (b"\x1b]4;" + b"1;?;" * 400 + b"\x07") * 200)
    assert questions._waiting_bytes <= answering.WAITING_BYTES + 2048
    house.settle()


def test_screens_of_those_who_have_not_asked_for_long_are_given_up(house):
    sessions = [house.session(f"s{n}", 64 * 1024) for n in range(SCREENS_MAX + 5)]
    for session in sessions:
        house.write(session, b"ab\x1b[6n")
        house.settle()
    assert len(house.answering._questions) == SCREENS_MAX
    house.write(sessions[0], b"cd\x1b[6n")
    house.settle()
    assert house.answers["s0"] == b"\x1b[1;3R\x1b[1;5R"


def test_few_large_screens_are_kept(house):
    sessions = [house.session(f"s{n}", 64 * 1024) for n in range(8)]
    for session in sessions:
        session.sizes.note(0, (256, 256))
        house.write(session, b"\x1b[999;999H\x1b[6n")
        house.settle()
        assert house.answers[session.id] == b"\x1b[256;256R"
        assert sum(each.cells for each in house.answering._questions.values()) <= answering.CELLS_MAX
    assert list(house.answering._questions) == ["s4", "s5", "s6", "s7"]


def test_of_a_gigantic_terminal_a_part_is_made(house):
    session = house.session("wide", 64 * 1024)
    session.sizes.note(0, (4000, 250))
    house.write(session, b"\x1b#8" * 40 + b"\x1b[3;2000H\x1b[6n")
    house.settle()
    assert house.answers["wide"] == b"\x1b[3;2000R"
    assert house.answering._questions["wide"].cells <= answering.SCREEN_CELLS_MAX


def test_of_very_many_who_ask_at_once_only_some_have_a_screen_at_a_time(house):
    sessions = [house.session(f"s{n}", 64 * 1024) for n in range(3 * SCREENS_MAX)]
    for session in sessions:
        house.write(session, b"x" * 40000 + b"\x1b[6n")
    while house.loop.has_soon:
        house.loop.turn()
        busy = [q for q in house.answering._questions.values() if not q.is_empty and q.replay is not None]
        assert len(busy) <= SCREENS_MAX
    assert len(house.answers) == len(sessions)


def test_while_a_terminal_is_there_nothing_is_answered_and_afterwards_again(house):
    session = house.session()
    house.write(session, b"\x1b[6n")
    house.settle()
    viewer = house.view(session)
    house.write(session, b"seen\x1b[6n\x1b[c")
    house.settle()
    assert house.answers["k3"] == b"\x1b[1;1R"
    assert not house.answering._questions and not house.answering._finders
    session.remove(viewer)
    house.write(session, b"on\x1b[6n")
    house.settle()
    assert house.answers["k3"] == b"\x1b[1;1R\x1b[1;7R"


def test_who_only_looks_on_has_no_terminal_that_answers(house):
    session = house.session()
    house.view(session, may_type=False)
    house.write(session, b"\x1b[c")
    assert house.answers["k3"] == b"\x1b[?62;22c"


def test_what_was_asked_before_a_terminal_came_is_still_answered_here(house):
    session = house.session()
    house.write(session, b"x" * 50000 + b"\x1b[6n")
    house.view(session)
    house.write(session, b"seen\x1b[c")
    house.settle()
    assert house.answers["k3"] == expected(b"x" * 50000 + b"\x1b[6n")
    assert not house.answering._questions


def test_a_query_that_a_terminal_got_half_of_before_it_went_is_answered_here(house):
    session = house.session()
    viewer = house.view(session)
    house.write(session, b"text\x1b[")
    session.remove(viewer)
    house.write(session, b"c")
    assert house.answers["k3"] == b"\x1b[?62;22c"
    assert house.answering.answered(session) == [4, 7]     # a terminal that comes back at 4 or 6


def test_it_is_known_which_output_was_read_unviewed(house):
    session = house.session()
    assert house.answering.answered(session) == [0, 0]
    house.write(session, b"12345")
    viewer = house.view(session)
    house.write(session, b"678")
    assert house.answering.answered(session) == [0, 5]
    session.remove(viewer)
    house.write(session, b"90")
    assert house.answering.answered(session) == [8, 10]


def test_an_end_leaves_nothing_behind_but_what_was_answered(house):
    session = house.session()
    house.write(session, b"\x1b[6n")
    house.settle()
    house.write(session, b"\x1b[6n")
    house.answering.on_end(session)
    house.settle()
    assert house.answers["k3"] == b"\x1b[1;1R"
    assert house.answering.answered(session) == [0, 8]
    house.answering.forget(session)
    assert house.answering.answered(session) == [0, 0]


def test_another_size_is_another_screen(house):
    session = house.session()
    house.write(session, b"\x1b[99;99H\x1b[6n")
    house.settle()
    session.sizes.note(session.ring.end_offset, (50, 10))
    house.answering.on_resized(session)
    house.write(session, b"\x1b[99;99H\x1b[6n")
    house.settle()
    assert house.answers["k3"] == b"\x1b[6;20R\x1b[10;50R"


def test_what_a_predecessor_had_not_answered_or_not_seen_is_answered_once(house):
    session = house.session()
    house.write(session, b"ab\x1b[c\x1b[6n\x1b[5n")
    assert house.answering.first_unanswered(session) == 5
    house.settle()
    assert house.answering.first_unanswered(session) is None
    successor = House()
    successor.answering.adopt(session, 5)
    for _ in range(2):
        successor.answering.on_adopted(session)
        successor.settle()
        assert successor.answers["k3"] == b"\x1b[1;3R\x1b[0n"
    another = House()
    session.ring.recovered_bytes = 3                        # the first of its four bytes was counted
    another.answering.on_adopted(session)
    another.settle()
    assert another.answers["k3"] == b"\x1b[0n"


def test_a_successor_answers_nothing_of_what_was_counted(house):
    session = house.session()
    house.write(session, b"\x1b[c")
    successor = House()
    successor.answering.on_adopted(session)
    assert successor.answers == {} and successor.answering.answered(session) == [0, 0]


def test_what_a_slow_client_is_not_shown_any_more_is_answered_here(house):
    session = house.session()
    first = house.view(session)
    house.write(session, b"\x1b[c" + b"x" * 1000)
    house.answering.on_skipped(session, first, 1003)
    assert house.answers["k3"] == b"\x1b[?62;22c"
    house.view(session)                                     # the leader now, and shown it
    house.answering.on_skipped(session, first, 1003)
    assert house.answers["k3"] == b"\x1b[?62;22c"


def test_what_the_leader_of_two_is_not_shown_is_answered_here_for_the_others_answer_does_not_count(house):
    session = house.session()
    house.view(session)
    leader = house.view(session)
    house.write(session, b"\x1b[c" + b"x" * 1000)
    house.answering.on_skipped(session, leader, 1003)
    assert house.answers["k3"] == b"\x1b[?62;22c"


# -- several terminals ---------------------------------------------------------------------------


def test_of_two_terminals_that_answer_the_leaders_answer_is_typed(house):
    session = house.session()
    first, second = house.view(session), house.view(session)
    house.write(session, b"\x1b[6n")
    assert session.leader is second
    assert house.answering.take_input(session, first, b"\x1b[1;1R") == b""
    assert house.answering.take_input(session, second, b"\x1b[1;1R") == b"\x1b[1;1R"
    assert house.answering.take_input(session, first, b"ls\x1b[1;1R") == b"ls"
    session.typed(first)
    assert house.answering.take_input(session, second, b"\x1b[1;1R") == b""


def test_with_one_terminal_or_without_a_query_nothing_is_taken_out(house):
    session = house.session()
    first = house.view(session)
    house.write(session, b"\x1b[6n")
    assert house.answering.take_input(session, first, b"\x1b[1;1R") == b"\x1b[1;1R"
    house.view(session)
    assert house.answering.take_input(session, first, b"\x1b[1;2R") == b"\x1b[1;2R"
    house.write(session, b"text")
    assert house.answering.take_input(session, first, b"\x1b[1;2R") == b"\x1b[1;2R"


def test_a_bare_escape_is_typed_a_moment_later(house):
    session = house.session()
    first, _ = house.view(session), house.view(session)
    house.write(session, b"\x1b[6n")
    assert house.answering.take_input(session, first, b"\x1b") == b""
    house.loop.turn()
    assert house.typed == []
    house.now += REST_S
    house.loop.turn()
    assert house.typed == [(first, b"\x1b")]


def test_an_answer_in_pieces_is_taken_out_and_its_pieces_are_not_typed_later(house):
    session = house.session()
    first, _ = house.view(session), house.view(session)
    house.write(session, b"\x1b[6n")
    for piece in (b"\x1b", b"[1;", b"1R"):
        assert house.answering.take_input(session, first, piece) == b""
    assert house.answering.take_input(session, first, b"\x1b") == b""
    house.now += REST_S
    house.loop.turn()
    assert house.typed == [(first, b"\x1b")]


def test_what_is_held_is_typed_when_the_other_goes_or_we_leave(house):
    session = house.session()
    first, second = house.view(session), house.view(session)
    house.write(session, b"\x1b[6n")
    house.answering.take_input(session, first, b"\x1b[")
    house.answering.release_all([session])
    assert house.typed == [(first, b"\x1b[")]
    house.write(session, b"\x1b[6n")
    house.answering.take_input(session, first, b"\x1b")
    session.remove(second)
    house.write(session, b"text")
    assert house.typed == [(first, b"\x1b["), (first, b"\x1b")]


def test_output_of_before_may_be_answered_by_several(house):
    session = house.session()
    house.write(session, b"\x1b[6n")
    first, _ = house.view(session), house.view(session)
    house.answering.on_resume(session)
    assert house.answering.take_input(session, first, b"\x1b[1;1R") == b""
