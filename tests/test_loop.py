"""The loop, with a poller and a clock that do what they are told."""

import pytest
from hypothesis import given, strategies as st

from ptyguard_core.backend import FAILED, READABLE, WRITABLE
from ptyguard_core.loop import Loop


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
    assert loop.ready_count == 2


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
