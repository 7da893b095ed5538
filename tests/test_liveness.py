"""Liveness: when a daemon that nobody holds is to stop.  Time is a number here."""

import itertools

import pytest
from hypothesis import given, strategies as st

from ptyguard_core.liveness import (GRACE_S, KEEP, KILL, RETURN_S, Terms, Watchdog, most_careful,
                                    pauses)

FIVE = Terms(5.0, KEEP)


@pytest.fixture
def dog():
    return Watchdog()


# -- firing -----------------------------------------------------------------------------------


def test_without_a_link_it_never_fires_whatever_else_happens(dog):
    assert dog.due_at is None and not dog.fire(1e9)
    assert not dog.drop("somebody who never linked", 3.0)
    assert dog.due_at is None and not dog.fire(1e9)


def test_it_fires_when_the_grace_has_passed_and_once(dog):
    dog.link("a", FIVE)
    assert dog.due_at is None and not dog.fire(1e9)     # somebody holds
    assert dog.drop("a", 100.0)
    assert dog.due_at == 105.0
    assert not dog.fire(104.999)
    assert dog.fire(105.0)
    assert not dog.fire(105.0) and not dog.fire(1e9) and dog.due_at is None


def test_a_reconnect_within_the_grace_cancels(dog):
    dog.link("a", FIVE)
    dog.drop("a", 100.0)
    dog.link("a again", FIVE)
    assert dog.due_at is None and not dog.fire(105.0)


def test_the_grace_counts_from_the_latest_drop(dog):
    dog.link("a", FIVE)
    dog.drop("a", 100.0)
    dog.link("b", FIVE)
    dog.drop("b", 104.0)
    assert not dog.fire(105.0)          # the time that the first drop had set
    assert dog.due_at == 109.0 and dog.fire(109.0)


def test_with_two_holders_the_first_to_go_starts_nothing(dog):
    dog.link("a", FIVE)
    dog.link("b", FIVE)
    dog.drop("a", 100.0)
    assert dog.holders == 1 and dog.due_at is None and not dog.fire(1e9)
    dog.drop("b", 200.0)
    assert dog.due_at == 205.0


def test_a_holder_is_dropped_once(dog):
    dog.link("a", FIVE)
    assert dog.drop("a", 100.0)
    assert not dog.drop("a", 104.0)
    assert dog.due_at == 105.0


def test_one_that_links_twice_is_one_holder_with_its_latest_terms(dog):
    dog.link("a", FIVE)
    dog.link("a", Terms(1.0, KILL))
    dog.drop("a", 10.0)
    assert dog.holders == 0 and dog.due_at == 11.0 and dog.terms.on_orphan == KILL


def test_after_it_has_fired_the_next_link_arms_it_again(dog):
    dog.link("a", FIVE)
    dog.drop("a", 0.0)
    assert dog.fire(5.0)
    dog.link("b", FIVE)
    dog.drop("b", 10.0)
    assert dog.fire(15.0)


def test_a_disarmed_one_does_not_fire_until_it_is_armed_again(dog):
    dog.link("a", FIVE)
    dog.disarm()
    dog.drop("a", 0.0)
    assert dog.due_at is None and not dog.fire(1e9)
    dog.rearm()                         # nobody holds: there is nothing to arm it for
    assert dog.due_at is None
    dog.link("b", FIVE)
    dog.disarm()
    dog.rearm()
    dog.drop("b", 7.0)
    assert dog.due_at == 12.0


def test_what_a_predecessor_had_armed_waits_for_holders_to_come_back(dog):
    dog.resume(Terms(0.0, KILL), 100.0)
    assert dog.due_at == 100.0 + RETURN_S and dog.terms.on_orphan == KILL
    dog.link("back again", Terms(0.0, KILL))
    assert dog.due_at is None
    dog.drop("back again", 102.0)
    assert dog.due_at == 102.0          # its own terms count again


def test_a_long_grace_stays_long_after_a_daemons_death(dog):
    dog.resume(Terms(60.0, KEEP), 100.0)
    assert dog.due_at == 160.0


# -- terms ------------------------------------------------------------------------------------

WANTED = [
    ([Terms(5.0, KEEP)], Terms(5.0, KEEP)),
    ([Terms(5.0, KILL)], Terms(5.0, KILL)),
    ([Terms(1.0, KILL), Terms(9.0, KILL)], Terms(9.0, KILL)),
    ([Terms(9.0, KILL), Terms(1.0, KEEP)], Terms(9.0, KEEP)),
    ([Terms(0.0, KEEP), Terms(0.0, KEEP)], Terms(0.0, KEEP)),
]


@pytest.mark.parametrize("wanted, agreed", WANTED)
def test_of_several_the_most_careful_terms_hold(wanted, agreed):
    for order in itertools.permutations(wanted):
        assert most_careful(order) == agreed


def test_the_last_to_leave_leaves_its_own_terms(dog):
    dog.link("keeps", Terms(9.0, KEEP))
    dog.link("kills", Terms(1.0, KILL))
    dog.drop("keeps", 0.0)
    dog.drop("kills", 10.0)
    assert dog.terms == Terms(1.0, KILL) and dog.due_at == 11.0


def test_the_grace_is_five_seconds_unless_told_otherwise():
    assert GRACE_S == 5.0


# -- coming back ------------------------------------------------------------------------------


def test_pauses_double_from_a_fifth_of_a_second_to_two_seconds():
    assert list(itertools.islice(pauses(), 7)) == [0.2, 0.4, 0.8, 1.6, 2.0, 2.0, 2.0]


def test_a_holder_that_tries_to_come_back_does_so_in_time():
    assert max(itertools.islice(pauses(), 20)) < RETURN_S


# -- against a model --------------------------------------------------------------------------

EVENTS = st.lists(st.tuples(
    st.sampled_from(["link", "drop", "look", "stray"]), st.sampled_from("abc"),
    st.floats(0, 4, width=16)), max_size=40)


@given(EVENTS)
def test_it_fires_exactly_when_nobody_has_held_for_the_grace_since_the_latest_drop(events):
    dog, now = Watchdog(), 0.0
    holders, latest_drop, may_fire = set(), None, False
    for what, who, pause in events:
        now += pause
        if what == "link":
            dog.link(who, Terms(3.0, KEEP))
            holders.add(who)
            may_fire = True
        elif what == "drop" and who in holders:
            dog.drop(who, now)
            holders.remove(who)
            latest_drop = now
        elif what == "stray":
            dog.drop("stray", now)
        is_due = may_fire and not holders and now >= latest_drop + 3.0
        if what == "look":
            assert dog.fire(now) == is_due
            may_fire = may_fire and not is_due
        assert dog.holders == len(holders)
        assert (dog.due_at is not None) == (may_fire and not holders)
