"""One session's life: states, who holds the program back, the input queue, who leads."""

import pytest
from hypothesis import given, strategies as st

from ptyguard_core import session as session_module
from ptyguard_core.backend import LET_GO, NOTHING_YET
from ptyguard_core.ring import CAPACITY_MIN, WINDOW_BYTES, Ring, memory_bytes
from ptyguard_core.session import (ALWAYS, CHILD_EXITED, DRAINED, DRAINING, ENDED, EVENTS, FAILED,
                                   GAVE_UP, GUARD_LOST_IT, HELD_UNOPENED, INPUT_QUEUE_MAX, LEADER,
                                   LEADER_ALLOWANCE, LOST, NEVER, PROGRESS_BYTES, PROGRESS_S,
                                   QUARANTINED, RESTART_FAILED, RESTARTED, RESUME_BYTES, RUNNING, SPAWN_REFUSED, SPAWNED,
                                   STARTING, STATES, TRANSITIONS, Cursor, Session)

MIB = 1 << 20
HISTORY = MIB - WINDOW_BYTES


def new_session(capacity=MIB, written=0):
    session = Session({"id": "k3f9", "name": "build", "size": {"cols": 80, "rows": 24}, "state": RUNNING})
    session.ring = Ring.format(bytearray(memory_bytes(capacity)))
    session.master = 7
    write(session, written)
    return session


def write(session, count):
    """The program's output, as far as memory goes: nobody is asked."""
    while count:
        view = session.ring.writable(count)
        view[:] = b"x" * len(view)
        session.ring.commit(len(view))
        count -= len(view)


def reader(session, hold, behind=0, **facts):
    cursor = Cursor(session.ring.end_offset - behind, hold, **facts)
    session.add(cursor)
    return cursor


def leading(session, behind=0):
    return reader(session, LEADER, behind, is_interactive=True)


# --- states -----------------------------------------------------------------------------

# What cannot happen.  If it does, the invariant is broken and the daemon stops loudly.
IMPOSSIBLE = {
    STARTING: {DRAINED, RESTARTED, GAVE_UP},                # nothing ran yet
    RUNNING: {DRAINED, SPAWN_REFUSED, RESTARTED, RESTART_FAILED, GAVE_UP},      # the exit comes first
    DRAINING: {SPAWNED, SPAWN_REFUSED, RESTARTED, RESTART_FAILED, GAVE_UP},
    QUARANTINED: {DRAINED, SPAWN_REFUSED, RESTARTED, RESTART_FAILED, GAVE_UP},  # nobody reads it
    ENDED: {SPAWNED, DRAINED, SPAWN_REFUSED, GUARD_LOST_IT, HELD_UNOPENED, RESTART_FAILED},
    LOST: set(EVENTS) - {RESTARTED, GAVE_UP},               # a relaunch is a new life
    FAILED: set(EVENTS) - {RESTARTED, CHILD_EXITED},        # for good, unless somebody restarts it
}


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("event", EVENTS)
def test_every_pair_of_state_and_event_is_decided(state, event):
    session = Session({"id": "k3f9", "name": "build", "size": {"cols": 80, "rows": 24}, "state": state})
    if event in IMPOSSIBLE[state]:
        assert (state, event) not in TRANSITIONS
        with pytest.raises(KeyError):
            session.happen(event)
        assert session.state == state
    else:
        session.happen(event)
        assert session.state in STATES


def test_the_table_has_no_names_of_its_own():
    assert set(TRANSITIONS) <= {(state, event) for state in STATES for event in EVENTS}
    assert set(TRANSITIONS.values()) <= set(STATES)


def test_an_ordinary_life():
    session = Session({"id": "k3f9", "name": "build", "size": {"cols": 80, "rows": 24}, "state": STARTING})
    lived = []
    for event in (SPAWNED, CHILD_EXITED, DRAINED, CHILD_EXITED):
        lived.append(session.is_living)
        session.happen(event)
    assert session.state == ENDED
    assert lived == [True, True, True, False] and not session.is_living


def test_the_states_are_the_registrys():
    from ptyguard_core import registry
    assert set(STATES) == set(registry.STATES)


# --- who holds the program back, and how far ------------------------------------------------

def test_with_nobody_attached_the_ring_always_drains_the_program():
    session = new_session(written=5 * MIB)
    assert session.room() == WINDOW_BYTES and session.may_read()


def test_a_program_that_was_held_goes_on_once_there_is_room_for_more_than_a_little():
    session = new_session(written=5 * MIB)
    cursor = leading(session, behind=LEADER_ALLOWANCE)
    assert not session.may_read()
    cursor.offset += RESUME_BYTES - 1
    assert session.room() and not session.may_read()
    cursor.offset += 1
    assert session.may_read()
    cursor.offset -= RESUME_BYTES - 1           # it was not held meanwhile: the last byte counts
    assert session.room() == 1 and session.may_read()


def test_who_takes_a_little_of_a_held_program_and_stops_is_judged():
    session = new_session(written=5 * MIB)
    cursor = leading(session, behind=LEADER_ALLOWANCE)
    assert not session.may_read() and session.watch_progress(0.0) == ([], PROGRESS_S)
    cursor.offset += RESUME_BYTES - 1
    assert not session.may_read() and session.watch_progress(PROGRESS_S) == ([cursor], None)


@pytest.mark.parametrize("hold, behind, room", [
    (LEADER, 0, WINDOW_BYTES),
    (LEADER, LEADER_ALLOWANCE - WINDOW_BYTES, WINDOW_BYTES),
    (LEADER, LEADER_ALLOWANCE - 100, 100),
    (LEADER, LEADER_ALLOWANCE, 0),
    (LEADER, LEADER_ALLOWANCE + 5000, 0),
    (ALWAYS, LEADER_ALLOWANCE + 5000, WINDOW_BYTES),
    (ALWAYS, HISTORY - 1, 1),
    (ALWAYS, HISTORY, 0),
    (60.0, HISTORY - 1, 1),
    (60.0, HISTORY, 0),
    (NEVER, 0, WINDOW_BYTES),
    (NEVER, HISTORY, WINDOW_BYTES),
])
def test_each_line_of_the_table_says_how_far_behind_it_may_be(hold, behind, room):
    session = new_session(written=3 * MIB)
    reader(session, hold, behind, is_interactive=hold == LEADER)
    assert session.room() == room
    assert session.may_read() == (room > 0)


def test_only_the_leading_one_of_the_interactive_holds():
    session = new_session(written=3 * MIB)
    first, second = leading(session, LEADER_ALLOWANCE), leading(session)
    assert session.leader is second and session.room() == WINDOW_BYTES
    session.typed(first)
    assert session.room() == 0


def test_a_lagged_one_holds_no_more():
    session = new_session(written=3 * MIB)
    cursor = leading(session, LEADER_ALLOWANCE)
    cursor.is_lagged = True
    assert session.room() == WINDOW_BYTES


def test_the_slowest_of_all_who_hold_decides():
    session = new_session(written=3 * MIB)
    reader(session, ALWAYS, HISTORY - 900)
    reader(session, 60.0, HISTORY - 300)
    reader(session, NEVER, HISTORY)
    leading(session, LEADER_ALLOWANCE - 500)
    assert session.room() == 300


def test_a_small_ring_holds_its_leader_within_the_ring():
    session = new_session(CAPACITY_MIN, written=MIB)
    leading(session, CAPACITY_MIN - WINDOW_BYTES - 10)
    assert session.room() == 10


def test_a_session_is_not_read_without_a_terminal_or_once_it_has_let_go():
    session = new_session()
    assert session.may_read()
    session.has_let_go = True
    assert not session.may_read()
    session.has_let_go, session.master = False, -1
    assert not session.may_read()


def test_after_a_replacement_nothing_is_read_until_the_holders_are_back():
    session = new_session(written=1000)
    session.awaited_holders = 2
    reader(session, NEVER)
    assert not session.may_read()
    reader(session, ALWAYS, 900)
    assert not session.may_read()
    leading(session)
    assert session.may_read() and session.awaited_holders == 0
    reader(session, ALWAYS)
    assert session.awaited_holders == 0


def test_holders_are_counted_for_the_successor():
    session = new_session()
    assert session.holders() == 0
    cursors = [reader(session, hold) for hold in (NEVER, LEADER, ALWAYS, 60.0)]
    assert session.holders() == 3
    session.remove(cursors[2])
    session.remove(cursors[2])
    session.remove(cursors[0])
    assert session.holders() == 2


# --- reading -------------------------------------------------------------------------------

class Terminal:
    """Answers reads with what it was given; counts stand for bytes."""

    def __init__(self, *answers):
        self.answers = list(answers)
        self.rooms = []

    def read(self, master, view):
        assert master == 7
        self.rooms.append(len(view))
        answer = self.answers.pop(0) if self.answers else NOTHING_YET
        if answer > 0:
            answer = min(answer, len(view))
            view[:answer] = b"y" * answer
        return answer


def test_pump_reads_until_there_is_nothing_more():
    session = new_session()
    terminal = Terminal(10, 20)
    assert session.pump(terminal.read, lambda start: None, 16) == (30, NOTHING_YET)
    assert session.ring.read(0, 100) == b"y" * 30
    assert not session.has_let_go


def test_pump_stops_at_the_number_of_reads_that_one_turn_has():
    session = new_session()
    terminal = Terminal(*[10] * 9)
    assert session.pump(terminal.read, lambda start: None, 4) == (40, 10)


def test_pump_never_reads_past_a_holder():
    session = new_session(written=3 * MIB)
    reader(session, ALWAYS, HISTORY - 100)
    terminal = Terminal(70, 5000, 5000)
    assert session.pump(terminal.read, lambda start: None, 16)[0] == 100
    assert terminal.rooms == [100, 30]
    assert session.pump(terminal.read, lambda start: None, 16)[0] == 0
    assert len(terminal.rooms) == 2


def test_pump_notes_that_the_terminal_was_let_go():
    session = new_session()
    assert session.pump(Terminal(5, LET_GO).read, lambda start: None, 16) == (5, LET_GO)
    assert session.has_let_go and not session.may_read()


def test_pump_tells_before_it_overwrites_and_what():
    session = new_session(CAPACITY_MIN, written=CAPACITY_MIN)
    session.add(Cursor(session.ring.start_offset, NEVER))
    told = []

    def before_commit(start):
        assert start > session.ring.start_offset        # still there
        told.append(start)
    session.pump(Terminal(100, 50).read, before_commit, 16)
    assert told == [WINDOW_BYTES + 100, WINDOW_BYTES + 150]
    assert session.ring.start_offset == told[-1]


# --- progress, on a clock of its own ------------------------------------------------------------

class Traffic:
    """A program that always has more, and readers that take what they take."""

    def __init__(self, capacity=MIB):
        self.session = new_session(capacity, written=3 * MIB)
        self.now = 1000.0
        self.due = None
        self.lagged = {}

    def fill(self):
        """The program writes until somebody holds it back."""
        session = self.session
        while session.room() and any(session.allowance(c) is not None for c in session.cursors):
            write(session, session.room())
        self.judge()

    def judge(self):
        if self.session.room():
            return
        lagging, self.due = self.session.watch_progress(self.now)
        for cursor in lagging:
            cursor.is_lagged = True
            self.lagged[cursor] = self.now

    def pass_until(self, then, takes=()):
        """Time passes; `takes` is (cursor, bytes, every seconds), and the program goes on."""
        events = sorted((self.now + n * every, i) for i, (_, _, every) in enumerate(takes)
                        for n in range(1, int((then - self.now) / every) + 1))
        for at, index in events + [(then, None)]:
            while self.due is not None and self.due <= at:
                self.now, self.due = self.due, None
                self.judge()
                self.fill()
            self.now = at
            if index is not None:
                cursor, count, _ = takes[index]
                cursor.offset = min(cursor.offset + count, self.session.ring.end_offset)
            self.fill()


def test_a_leader_that_takes_nothing_holds_for_one_second():
    traffic = Traffic()
    cursor = leading(traffic.session)
    traffic.fill()
    assert traffic.due == traffic.now + PROGRESS_S
    traffic.pass_until(traffic.now + 60)
    assert traffic.lagged == {cursor: 1001.0}


def test_a_leader_that_takes_one_byte_every_nine_tenths_of_a_second_is_not_making_progress():
    # Progress of any kind once was enough: such a client froze the program for ever.
    traffic = Traffic()
    cursor = leading(traffic.session)
    traffic.fill()
    traffic.pass_until(traffic.now + 60, [(cursor, 1, 0.9)])
    assert traffic.lagged[cursor] <= 1002.0


def test_a_leader_that_takes_64_kib_a_second_holds_for_ever():
    traffic = Traffic()
    cursor = leading(traffic.session)
    traffic.fill()
    traffic.pass_until(traffic.now + 300, [(cursor, PROGRESS_BYTES // 2, 0.4)])
    assert traffic.lagged == {}


def test_run_without_limit_holds_for_ever():
    traffic = Traffic()
    reader(traffic.session, ALWAYS)
    traffic.fill()
    assert traffic.session.room() == 0 and traffic.due is None
    traffic.pass_until(traffic.now + 86400)
    assert traffic.lagged == {}


def test_log_f_holds_until_its_time_without_any_progress_has_passed():
    traffic = Traffic()
    cursor = reader(traffic.session, 60.0)
    traffic.fill()
    traffic.pass_until(traffic.now + 500, [(cursor, 1, 50.0)])
    assert traffic.lagged == {}
    last = traffic.now
    traffic.pass_until(traffic.now + 500)
    assert last < traffic.lagged[cursor] <= last + 60


def test_a_recorder_that_has_been_sent_all_and_writes_nothing_holds_for_its_time_only():
    # What lay in its socket counted as taken, and it held for ever.
    traffic = Traffic()
    cursor = reader(traffic.session, 2.0)
    cursor.written = 0
    traffic.fill()
    cursor.offset = traffic.session.ring.end_offset
    before = traffic.now
    traffic.pass_until(traffic.now + 10)
    assert before < traffic.lagged[cursor] <= before + 4


def test_the_one_that_holds_is_judged_not_the_ones_that_do_not():
    traffic = Traffic()
    fast, slow = reader(traffic.session, 60.0), leading(traffic.session)
    reader(traffic.session, NEVER, HISTORY)
    traffic.fill()
    fast.offset = traffic.session.ring.end_offset
    traffic.pass_until(traffic.now + 5)
    assert set(traffic.lagged) == {slow}


def test_in_a_small_ring_whoever_is_caught_up_is_not_judged_for_anothers_stall():
    # A ring with less than 64 KiB to give took everybody in it for a holder.
    traffic = Traffic(CAPACITY_MIN)
    stuck, cursor = reader(traffic.session, ALWAYS), leading(traffic.session)
    traffic.fill()
    cursor.offset = traffic.session.ring.end_offset
    traffic.judge()
    traffic.pass_until(traffic.now + 60)
    assert traffic.lagged == {} and stuck.mark is None


def test_in_a_small_ring_a_leader_that_reads_on_is_not_lagged_for_an_old_stall():
    traffic = Traffic(CAPACITY_MIN)
    cursor = leading(traffic.session)
    traffic.fill()
    traffic.now += 0.9
    cursor.offset = traffic.session.ring.end_offset         # catches up just in time
    traffic.now += 3600
    traffic.fill()                                          # and meets the next burst
    assert traffic.lagged == {}


def test_a_leader_may_lose_the_lead_and_with_it_the_right_to_hold():
    traffic = Traffic()
    leading(traffic.session)
    traffic.fill()
    other = leading(traffic.session)
    assert traffic.session.room() == WINDOW_BYTES
    traffic.fill()
    assert traffic.session.ring.end_offset - other.offset == LEADER_ALLOWANCE


# --- leader and size ---------------------------------------------------------------------------

def test_the_size_is_that_of_whoever_typed_last():
    session = new_session()
    assert session.wanted_size() is None
    first = reader(session, LEADER, size=(80, 24), is_interactive=True)
    second = reader(session, LEADER, size=(132, 50), is_interactive=True)
    viewer = reader(session, NEVER, size=(40, 10))
    assert session.wanted_size() == (132, 50)
    session.typed(first)
    assert session.wanted_size() == (80, 24)
    session.typed(viewer)
    assert session.wanted_size() == (80, 24)
    session.remove(viewer)
    session.remove(first)
    assert session.leader is second and session.wanted_size() == (132, 50)
    session.remove(second)
    assert session.leader is None and session.wanted_size() is None


def test_the_lead_falls_to_the_interactive_one_that_came_last():
    session = new_session()
    cursors = [reader(session, LEADER, is_interactive=True) for _ in range(3)]
    reader(session, NEVER)
    session.remove(cursors[2])
    assert session.leader is cursors[1]
    session.remove(cursors[0])
    assert session.leader is cursors[1]


# --- input ---------------------------------------------------------------------------------------

class Typist:
    """A terminal's input side that takes what `takes` says, then everything."""

    def __init__(self, takes=(), end=b"\x04"):
        self.takes = list(takes)
        self.got = b""
        self.end = end

    def write(self, master, data):
        assert master == 7 and data
        take = self.takes.pop(0) if self.takes else len(data)
        if take > 0:
            take = min(take, len(data))
            self.got += data[:take]
        return take

    def work(self, session):
        return session.write_input(self.write, lambda: self.end)


class Ticket:
    def __init__(self):
        self.written = 0
        self.pieces = 0
        self.failures = 0

    def wrote(self, count):
        self.written += count

    def piece_done(self):
        self.pieces += 1

    def failed(self):
        self.failures += 1


def test_input_is_written_in_order_and_the_queue_is_empty_then():
    session, typist = new_session(), Typist()
    for piece in (b"one ", b"two ", b"", b"three"):
        session.enqueue(piece)
    assert typist.work(session) is True
    assert typist.got == b"one two three"
    assert session.input_bytes == 0 and not session.input


def test_partial_writes_are_kept_and_go_on_where_they_stopped():
    session, typist = new_session(), Typist([3, NOTHING_YET])
    session.enqueue(b"abcdef")
    session.enqueue(b"ghi")
    assert typist.work(session) is False
    assert typist.got == b"abc" and session.input_bytes == 6
    assert typist.work(session) is True
    assert typist.got == b"abcdefghi"


@given(st.lists(st.binary(max_size=30), max_size=10), st.lists(st.integers(0, 9), max_size=40))
def test_any_pieces_and_any_partial_writes_are_one_stream(pieces, takes):
    session, typist = new_session(CAPACITY_MIN), Typist(takes)
    tickets = []
    for piece in pieces:
        tickets.append(Ticket())
        session.enqueue(piece, tickets[-1])
    while not typist.work(session):
        assert session.input_bytes == sum(map(len, pieces)) - len(typist.got)
    assert typist.got == b"".join(pieces)
    assert session.input_bytes == 0
    assert [(t.written, t.pieces, t.failures) for t in tickets] == [(len(p), 1, 0) for p in pieces]


def test_queued_bytes_are_a_copy():
    session, typist = new_session(), Typist()
    data = bytearray(b"typed")
    session.enqueue(memoryview(data))
    data[:] = b"XXXXX"
    typist.work(session)
    assert typist.got == b"typed"


def test_a_ticket_knows_how_much_the_kernel_took():
    session, typist, ticket = new_session(), Typist([2, NOTHING_YET]), Ticket()
    session.enqueue(b"abcd", ticket)
    typist.work(session)
    assert (ticket.written, ticket.pieces) == (2, 0)
    typist.work(session)
    assert (ticket.written, ticket.pieces, ticket.failures) == (4, 1, 0)


def test_a_full_queue_makes_senders_wait():
    session = new_session()
    session.enqueue(bytes(INPUT_QUEUE_MAX - 1))
    assert not session.is_full()
    session.enqueue(b"x")
    assert session.is_full()
    Typist([1]).work(session)
    assert not session.is_full()


def test_a_terminal_that_nobody_reads_any_more_drops_all_input_and_says_so():
    session, ticket, other = new_session(), Ticket(), Ticket()
    session.enqueue(b"abcd", ticket)
    session.enqueue(b"ef")
    session.enqueue(b"gh", other)
    assert Typist([1, LET_GO]).work(session) is True
    assert session.input_bytes == 0 and not session.input
    assert (ticket.written, ticket.failures) == (1, 1)
    assert (other.written, other.failures) == (0, 1)


def test_dropped_input_is_told_once():
    session, ticket = new_session(), Ticket()
    session.enqueue(b"abcd", ticket)
    session.drop_input()
    session.drop_input()
    assert (ticket.failures, ticket.pieces, session.input_bytes) == (1, 0, 0)


@pytest.mark.parametrize("typed, expected", [
    (b"", b"\x04"), (b"line\n", b"line\n\x04"), (b"line\r", b"line\r\x04"),
    (b"half a line", b"half a line\x04\x04"), (b"a\x04", b"a\x04\x04")])
def test_end_of_input_is_typed_twice_in_the_middle_of_a_line(typed, expected):
    session, typist = new_session(), Typist()
    session.enqueue(typed)
    session.enqueue(b"", is_end=True)
    assert typist.work(session) is True
    assert typist.got == expected
    assert session.input_bytes == 0


def test_end_of_input_comes_after_what_was_queued_before_it_however_it_is_written():
    session, typist = new_session(), Typist([4, NOTHING_YET, 5, 1, NOTHING_YET])
    session.enqueue(b"half line")
    session.enqueue(b"", is_end=True)
    assert typist.work(session) is False
    assert typist.got == b"half"
    assert typist.work(session) is False
    assert typist.got == b"half line\x04"
    assert typist.work(session) is True
    assert typist.got == b"half line\x04\x04"


def test_end_of_input_is_nothing_in_raw_mode():
    session, typist = new_session(), Typist(end=None)
    session.enqueue(b"half")
    session.enqueue(b"", is_end=True)
    session.enqueue(b" more")
    assert typist.work(session) is True
    assert typist.got == b"half more"


def test_what_end_of_input_is_is_asked_when_its_turn_comes():
    session, typist = new_session(), Typist([4, NOTHING_YET])
    session.enqueue(b"line\n")
    session.enqueue(b"", is_end=True)
    typist.work(session)
    typist.end = b"\x1a"                # the program changed it meanwhile
    typist.work(session)
    assert typist.got == b"line\n\x1a"


def test_a_successor_gets_what_was_typed_and_is_unwritten_but_no_send():
    # A send is told instead: it must not be typed twice.
    session = new_session()
    session.enqueue(b"typed ")
    session.enqueue(b"sent ", Ticket())
    session.enqueue(b"here")
    Typist([2, NOTHING_YET]).work(session)
    assert session.unwritten() == b"ped here"


def test_the_numbers_are_those_of_the_design():
    assert (LEADER_ALLOWANCE, PROGRESS_BYTES, PROGRESS_S) == (256 * 1024, 64 * 1024, 1.0)
    assert (INPUT_QUEUE_MAX, session_module.DRAIN_S) == (1 << 20, 0.2)


# --- whose answer is awaited ---------------------------------------------------------------

def test_a_session_is_urgent_from_typing_until_it_has_written_more_than_an_answer():
    session = new_session()
    assert not session.is_urgent(5.0)
    session.await_answer(5.0)
    write(session, session_module.ANSWER_BYTES)
    assert session.is_urgent(5.0)
    write(session, 1)
    assert not session.is_urgent(5.0)


def test_a_session_is_urgent_for_a_while_after_typing():
    session = new_session()
    session.await_answer(5.0)
    assert session.is_urgent(5.0 + session_module.ANSWER_S)
    assert not session.is_urgent(5.1 + session_module.ANSWER_S)
    assert not session.is_urgent(5.0)                   # once is enough


def test_typing_again_makes_a_stream_urgent_again():
    session = new_session()
    session.await_answer(5.0)
    write(session, 3 * session_module.ANSWER_BYTES)
    session.await_answer(5.5)
    write(session, session_module.ANSWER_BYTES)
    assert session.is_urgent(5.5)
