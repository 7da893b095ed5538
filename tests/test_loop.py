"""The loop, with a poller and a clock that do what they are told."""

import pytest
from hypothesis import given, strategies as st

from ptyguard_core.backend import FAILED, READABLE, WRITABLE
from ptyguard_core.loop import URGENT_A_TURN, Loop


class Poller:
    """Remembers what is asked; `ready` is what it answers next, else the time passes."""

    def __init__(self):
        self.now = 100.0
        self.asked = {}
        self.calls = []
        self.ready = []
        self.slept = []

    def register(self, fd, bits):
        assert fd not in self.asked
        self.calls.append(("register", fd, bits))
        self.asked[fd] = bits

    def modify(self, fd, bits):
        assert fd in self.asked
        self.calls.append(("modify", fd, bits))
        self.asked[fd] = bits

    def unregister(self, fd):
        self.calls.append(("unregister", fd))
        del self.asked[fd]

    def poll(self, timeout_s):
        self.slept.append(timeout_s)
        if self.ready:
            return self.ready.pop(0)
        if timeout_s is not None:
            self.now += timeout_s
        return []


@pytest.fixture
def poller():
    return Poller()


@pytest.fixture
def loop(poller):
    return Loop(poller, lambda: poller.now)


# --- readiness ----------------------------------------------------------------------

def test_a_ready_descriptor_calls_its_handler_with_the_bits(loop, poller):
    seen = []
    loop.watch(5, lambda bits: seen.append((5, bits)), READABLE)
    loop.watch(6, lambda bits: seen.append((6, bits)), READABLE | WRITABLE)
    poller.ready = [[(6, WRITABLE), (5, READABLE | FAILED)]]
    loop.turn()
    assert seen == [(6, WRITABLE), (5, READABLE | FAILED)]


def test_of_those_that_are_ready_the_ones_that_only_take_more_are_not_counted(loop, poller):
    counts = []
    for fd in (5, 6, 7):
        loop.watch(fd, lambda bits: counts.append(loop.ready_count), READABLE | WRITABLE)
    poller.ready = [[(6, WRITABLE), (5, READABLE | FAILED)], [(5, READABLE), (7, READABLE | WRITABLE)]]
    loop.turn()
    assert counts == [1, 1]
    loop.turn()
    assert counts == [1, 1, 2, 2]


def test_interest_zero_is_not_in_the_poller_at_all(loop, poller):
    loop.watch(5, lambda bits: None, 0)
    assert poller.calls == []
    loop.change(5, READABLE)
    loop.change(5, READABLE)
    loop.change(5, READABLE | WRITABLE)
    loop.change(5, 0)
    loop.change(5, 0)
    assert poller.calls == [("register", 5, READABLE), ("modify", 5, READABLE | WRITABLE),
                            ("unregister", 5)]
    loop.forget(5)
    assert len(poller.calls) == 3


def test_a_forgotten_descriptor_is_out_of_the_poller_and_may_be_forgotten_again(loop, poller):
    loop.watch(5, lambda bits: None, READABLE)
    loop.forget(5)
    loop.forget(5)
    assert poller.asked == {}
    loop.watch(5, lambda bits: None, WRITABLE)          # the number is used again
    assert poller.asked == {5: WRITABLE}


def test_a_handler_may_forget_another_that_is_ready_in_the_same_turn(loop, poller):
    seen = []

    def first(_bits):
        loop.forget(6)
        seen.append(5)
    loop.watch(5, first, READABLE)
    loop.watch(6, lambda bits: seen.append(6), READABLE)
    poller.ready = [[(5, READABLE), (6, READABLE)]]
    loop.turn()
    assert seen == [5]


def test_a_handler_may_forget_itself(loop, poller):
    seen = []

    def once(_bits):
        loop.forget(5)
        seen.append(5)
    loop.watch(5, once, READABLE)
    poller.ready = [[(5, READABLE)], [(5, READABLE)]]
    loop.turn()
    loop.turn()
    assert seen == [5]


def test_an_error_in_a_handler_leaves_the_loop(loop, poller):
    def broken(_bits):
        raise ZeroDivisionError
    loop.watch(5, broken, READABLE)
    poller.ready = [[(5, READABLE)]]
    with pytest.raises(ZeroDivisionError):
        loop.run()


def test_a_descriptor_that_takes_the_number_of_one_that_was_ready_is_not_called_for_it(loop, poller):
    seen = []

    def reuse(_bits):
        loop.forget(6)
        loop.watch(6, lambda bits: seen.append("new"), READABLE)
    loop.watch(5, reuse, READABLE)
    loop.watch(6, lambda bits: seen.append("old"), READABLE)
    poller.ready = [[(5, READABLE), (6, READABLE | FAILED)]]
    loop.turn()
    assert seen == []


# --- what is urgent -----------------------------------------------------------------------

INNER = 99


class InnerPoller(Poller):
    """Of the urgent: `ready` has the descriptors that are, until a handler takes them out."""

    def fileno(self):
        return INNER

    def poll(self, timeout_s):
        assert timeout_s == 0, "the inner poller never sleeps"
        return [(fd, READABLE) for fd in self.ready if fd in self.asked]


@pytest.fixture
def inner():
    return InnerPoller()


@pytest.fixture
def nested(poller, inner):
    return Loop(poller, lambda: poller.now, inner)


def watch_bulk(loop, seen, count):
    for fd in range(count):
        loop.watch(fd, lambda bits, fd=fd: seen.append(fd), READABLE)
    return [(fd, READABLE) for fd in range(count)]


def test_an_urgent_descriptor_lies_in_the_inner_poller_and_that_in_the_outer_one(nested, poller, inner):
    nested.watch(5, lambda bits: None, READABLE, is_urgent=True)
    nested.watch(6, lambda bits: None, READABLE)
    assert inner.asked == {5: READABLE}
    assert poller.asked == {INNER: READABLE, 6: READABLE}


def test_an_urgent_descriptor_is_served_between_any_two_others(nested, poller, inner):
    seen = []
    poller.ready = [watch_bulk(nested, seen, 3)]
    nested.watch(50, lambda bits: seen.append(50), READABLE, is_urgent=True)
    inner.ready = [50]
    nested.turn()
    assert seen == [0, 50, 1, 50, 2]


def test_urgent_descriptors_that_are_ready_at_the_beginning_of_a_turn_come_first(nested, poller, inner):
    seen = []

    def answer(_bits):
        seen.append(50)
        inner.ready.clear()
    poller.ready = [watch_bulk(nested, seen, 2) + [(INNER, READABLE)]]
    nested.watch(50, answer, READABLE, is_urgent=True)
    inner.ready = [50]
    nested.turn()
    assert seen == [50, 0, 1]
    assert nested.ready_count == 2


def test_an_urgent_descriptor_is_served_between_what_soon_and_deadlines_ask_for(nested, poller, inner):
    seen = []
    nested.watch(50, lambda bits: seen.append(50), READABLE, is_urgent=True)
    nested.at(1, lambda: seen.append("timer"))
    nested.soon(lambda: seen.append("soon 1"))
    nested.soon(lambda: seen.append("soon 2"))
    inner.ready = [50]
    nested.turn()
    assert seen == ["timer", 50, "soon 1", 50, "soon 2"]


def test_one_that_is_always_urgent_is_called_a_number_of_times_in_a_turn(nested, poller, inner):
    seen = []
    everyone = watch_bulk(nested, seen, 3 * URGENT_A_TURN)
    poller.ready = [everyone, everyone]
    nested.watch(500, lambda bits: seen.append(500), READABLE, is_urgent=True)
    inner.ready = [500]
    nested.turn()
    assert seen.count(500) == URGENT_A_TURN
    assert len(seen) == 4 * URGENT_A_TURN
    nested.turn()
    assert seen.count(500) == 2 * URGENT_A_TURN


def test_an_urgent_handler_is_not_interrupted_by_another(nested, poller, inner):
    seen = []

    def pump(fd):
        seen.append(("in", fd))
        nested.soon(lambda: None)
        seen.append(("out", fd))
    for fd in (50, 51):
        nested.watch(fd, lambda bits, fd=fd: pump(fd), READABLE, is_urgent=True)
    inner.ready = [50, 51]
    poller.ready = [[(INNER, READABLE)]]
    nested.turn()
    assert seen == [("in", 50), ("out", 50), ("in", 51), ("out", 51)]


def test_what_an_urgent_handler_asks_for_soon_does_not_wait_for_the_end_of_the_turn(nested, poller, inner):
    seen = []

    def answer(_bits):
        inner.ready.clear()
        nested.soon(lambda: (seen.append("reply"), nested.soon(lambda: seen.append("rest"))))
    poller.ready = [watch_bulk(nested, seen, 2) + [(INNER, READABLE)]]
    nested.soon(lambda: seen.append("others"))
    nested.watch(50, answer, READABLE, is_urgent=True)
    inner.ready = [50]
    nested.turn()
    assert seen == ["reply", 0, 1, "others", "rest"]


def test_an_error_in_an_urgent_handler_leaves_the_loop_which_forgets_nothing_else(nested, poller, inner):
    seen = []

    def broken(_bits):
        nested.soon(lambda: seen.append("asked by it"))
        inner.ready.clear()
        raise ZeroDivisionError
    nested.watch(50, broken, READABLE, is_urgent=True)
    nested.soon(lambda: seen.append("asked before"))
    inner.ready = [50]
    poller.ready = [[(INNER, READABLE)]]
    with pytest.raises(ZeroDivisionError):
        nested.turn()
    nested.turn()
    assert seen == ["asked before", "asked by it"]


def test_an_urgent_handler_may_forget_others_and_itself(nested, poller, inner):
    seen = []

    def first(_bits):
        for fd in (0, 1, 50, 51):
            nested.forget(fd)
        seen.append(50)
    poller.ready = [watch_bulk(nested, seen, 3) + [(INNER, READABLE)]]
    nested.watch(50, first, READABLE, is_urgent=True)
    nested.watch(51, lambda bits: seen.append(51), READABLE, is_urgent=True)
    inner.ready = [50, 51]
    nested.turn()
    assert seen == [50, 2]
    assert inner.asked == {} and poller.asked == {INNER: READABLE, 2: READABLE}


def test_a_descriptor_becomes_urgent_and_ceases_to_be_with_the_interest_that_it_has(nested, poller, inner):
    nested.watch(5, lambda bits: None, READABLE | WRITABLE)
    nested.set_urgent(5, True)
    nested.set_urgent(5, True)
    assert inner.calls == [("register", 5, READABLE | WRITABLE)] and 5 not in poller.asked
    nested.change(5, READABLE)
    assert inner.asked == {5: READABLE}
    nested.change(5, 0)
    nested.set_urgent(5, False)
    assert inner.asked == {} and 5 not in poller.asked
    nested.change(5, READABLE)
    assert poller.asked[5] == READABLE


def test_one_that_is_forgotten_is_not_urgent_when_it_is_watched_again(nested, poller, inner):
    nested.watch(5, lambda bits: None, READABLE, is_urgent=True)
    nested.forget(5)
    nested.set_urgent(5, True)                          # nobody's
    nested.watch(5, lambda bits: None, READABLE)
    assert inner.asked == {} and poller.asked[5] == READABLE


def test_where_pollers_cannot_be_nested_all_are_alike(loop, poller):
    seen = []
    poller.ready = [watch_bulk(loop, seen, 2) + [(5, READABLE)]]
    loop.watch(5, lambda bits: seen.append(5), READABLE, is_urgent=True)
    loop.set_urgent(5, False)
    loop.set_urgent(5, True)
    loop.turn()
    assert seen == [0, 1, 5]
    assert loop.ready_count == 3


def test_a_wait_within_the_loop_serves_what_is_urgent(nested, poller, inner):
    seen = []
    nested.watch(50, lambda bits: (seen.append(50), inner.ready.clear()), READABLE, is_urgent=True)
    inner.ready = [50]
    poller.ready = [[(INNER, READABLE)], [(6, READABLE)]]
    assert nested.turn_until_ready(6, READABLE, None, lambda: seen.append("turn"))
    assert seen == [50, "turn", "turn"]
    assert 6 not in poller.asked


def test_with_nothing_to_do_a_nested_loop_sleeps_for_ever_too(nested, poller, inner):
    nested.watch(50, lambda bits: None, READABLE, is_urgent=True)
    nested.turn()
    assert poller.slept == [-1]


# --- deadlines ----------------------------------------------------------------------------

def test_with_nothing_to_do_it_sleeps_for_ever(loop, poller):
    loop.turn()
    assert poller.slept == [-1]


def test_it_sleeps_exactly_until_the_next_deadline(loop, poller):
    seen = []
    loop.after(5.0, lambda: seen.append(poller.now))
    loop.at(102.5, lambda: seen.append(poller.now))
    loop.turn()
    loop.turn()
    loop.turn()
    assert seen == [102.5, 105.0]
    assert poller.slept == [2.5, 2.5, -1]


@given(st.lists(st.integers(0, 1000), max_size=30))
def test_deadlines_fire_in_order_and_never_early(delays):
    poller = Poller()
    loop = Loop(poller, lambda: poller.now)
    seen = []
    for delay in delays:
        loop.after(delay, lambda wanted=poller.now + delay: seen.append((wanted, poller.now)))
    for _ in delays:
        loop.turn()
    assert [wanted for wanted, _ in seen] == sorted(100.0 + delay for delay in delays)
    assert all(fired >= wanted for wanted, fired in seen)


def test_a_deadline_that_has_passed_fires_at_once_and_never_sleeps_a_negative_time(loop, poller):
    seen = []
    loop.at(1.0, lambda: seen.append(1))
    loop.turn()
    assert seen == [1] and poller.slept == [0.0]


def test_readiness_before_the_deadline_does_not_fire_it(loop, poller):
    seen = []
    loop.after(5, lambda: seen.append("timer"))
    loop.watch(5, lambda bits: seen.append("ready"), READABLE)
    poller.ready = [[(5, READABLE)]]
    loop.turn()
    assert seen == ["ready"]
    loop.turn()
    assert seen == ["ready", "timer"]


def test_a_cancelled_timer_does_nothing_and_wakes_nobody(loop, poller):
    seen = []
    timer = loop.after(1, lambda: seen.append("cancelled"))
    loop.after(2, lambda: seen.append("kept"))
    timer.cancel()
    timer.cancel()
    loop.turn()
    assert seen == ["kept"] and poller.slept == [2.0]
    loop.turn()
    assert poller.slept[1] == -1


def test_a_timer_may_be_cancelled_by_one_that_fires_with_it(loop, poller):
    seen = []
    late = loop.after(1.5, lambda: seen.append("late"))
    loop.after(1, late.cancel)
    poller.now += 10
    loop.turn()
    assert seen == []


def test_a_timer_may_be_cancelled_after_it_has_fired(loop):
    timer = loop.after(1, lambda: None)
    loop.turn()
    timer.cancel()


def test_a_timer_may_ask_for_the_next(loop, poller):
    seen = []

    def tick():
        seen.append(poller.now)
        if len(seen) < 3:
            loop.after(1, tick)
    loop.after(1, tick)
    for _ in range(3):
        loop.turn()
    assert seen == [101.0, 102.0, 103.0]


# --- soon -------------------------------------------------------------------------------------

def test_soon_is_at_the_end_of_this_turn_after_handlers_and_timers(loop, poller):
    seen = []
    loop.watch(5, lambda bits: (loop.soon(lambda: seen.append("soon")), seen.append("ready")), READABLE)
    loop.at(1, lambda: seen.append("timer"))
    poller.ready = [[(5, READABLE)]]
    loop.turn()
    assert seen == ["ready", "timer", "soon"]


def test_soon_asked_for_by_soon_is_next_turn_which_does_not_sleep(loop, poller):
    seen = []
    loop.soon(lambda: (seen.append(1), loop.soon(lambda: seen.append(2))))
    loop.turn()
    assert seen == [1]
    loop.turn()
    assert seen == [1, 2] and poller.slept == [0, 0]


def test_soon_that_asks_for_itself_for_ever_does_not_starve_a_descriptor(loop, poller):
    seen = []

    def again():
        loop.soon(again)
    loop.soon(again)
    loop.watch(5, lambda bits: seen.append(5), READABLE)
    poller.ready = [[(5, READABLE)], [(5, READABLE)]]
    loop.turn()
    loop.turn()
    assert seen == [5, 5]


def test_run_ends_after_the_turn_in_which_it_was_stopped(loop, poller):
    seen = []
    loop.after(1, loop.stop)
    loop.after(1, lambda: loop.soon(lambda: seen.append("the turn is ended")))
    loop.run()
    assert seen == ["the turn is ended"] and loop.is_stopped
