"""Stall: when a silent peer is pinged, tried another way, and given up.  Time is a number here."""

import pytest
from hypothesis import given, strategies as st

from ptyguard_core.stall import (GIVE_UP_S, LATE_S, PING, PONG_PATIENCE_S, PROBE, SILENCE_MAX_S,
                                 SILENCE_S, Stall)


@pytest.fixture
def stall():
    return Stall(100.0)


def looks(stall, now, count):
    """The next `count` acts as (act, when), each looked for just when it is due; pings are answered."""
    acts = []
    while len(acts) < count:
        now = max(now, stall.due_at)
        act = stall.look(now)
        if act is not None:
            acts.append((act, now))
            stall.hear(now)
    return acts


def test_an_answer_in_time_is_never_pinged_for(stall):
    assert stall.look(100.0) is None and stall.due_at == 100.0 + SILENCE_S
    assert stall.look(104.9) is None
    stall.hear(104.95)
    assert stall.look(105.0) is None and stall.due_at == 104.95 + SILENCE_S


def test_silence_is_pinged_then_tried_another_way_and_has_30_seconds_in_all(stall):
    assert stall.look(105.0) == PING
    assert stall.due_at == 105.0 + PONG_PATIENCE_S
    assert stall.look(105.1) is None
    now = stall.due_at
    assert stall.look(now) == PROBE
    assert now + stall.probe_limit_s(now) == 100.0 + GIVE_UP_S


def test_a_wait_for_hours_is_pinged_less_and_less_often(stall):
    acts = looks(stall, 100.0, 7)
    assert {act for act, _ in acts} == {PING}
    times = [100.0] + [when for _, when in acts]
    pauses = [after - before for before, after in zip(times, times[1:])]
    assert pauses == [SILENCE_S, 10.0, 20.0] + 4 * [SILENCE_MAX_S]


def test_after_something_else_than_pongs_it_is_asked_about_as_soon_as_at_first(stall):
    acts = looks(stall, 100.0, 4)
    now = acts[-1][1] + 1.0
    stall.hear(now)                         # output: it is at work
    assert stall.due_at == now + SILENCE_S


def test_a_new_question_is_asked_about_as_soon_as_the_first(stall):
    looks(stall, 100.0, 4)
    stall.ask(1000.0)
    assert stall.due_at == 1000.0 + SILENCE_S and stall.look(stall.due_at) == PING


def test_output_that_flows_needs_no_ping(stall):
    now = 100.0
    for _ in range(1000):
        stall.hear(now)
        assert stall.look(now) is None
        now += 0.5
    assert stall.look(now - 0.5 + SILENCE_S) == PING


def test_who_does_not_listen_to_this_connection_is_tried_another_way_at_once(stall):
    assert stall.look(105.0, can_ping=False) == PROBE
    assert stall.probe_limit_s(105.0) == GIVE_UP_S - SILENCE_S
    stall.hear(106.0, is_here=False)
    assert stall.due_at == 106.0 + 2 * SILENCE_S
    assert stall.look(stall.due_at) == PROBE            # a ping would lie unread
    stall.hear(200.0)                                   # it listens again
    assert stall.look(stall.due_at) == PING


def test_a_sleep_between_two_looks_begins_the_silence_anew(stall):
    assert stall.look(105.0) == PING
    assert stall.look(105.0 + 7 * 3600) is None         # and what came meanwhile is read now
    now = stall.due_at
    assert now == 105.0 + 7 * 3600 + SILENCE_S
    assert stall.look(now) == PING
    assert stall.probe_limit_s(now) == GIVE_UP_S - SILENCE_S


def test_a_sleep_before_the_first_look_judges_nobody_either(stall):
    stall.look(100.0)
    assert stall.look(105.0 + LATE_S + 0.1) is None


def test_a_look_that_is_a_little_late_is_a_look(stall):
    stall.look(100.0)
    assert stall.look(105.0 + LATE_S) == PING


@given(st.lists(st.tuples(st.sampled_from(["look", "hear", "ask"]), st.floats(0.0, 100.0)), max_size=40))
def test_nobody_is_given_up_without_a_ping_or_a_probe_that_had_its_time(steps):
    stall, now = Stall(0.0), 0.0
    for what, pause in steps:
        now += pause
        if what == "look":
            act = stall.look(now)
            if act == PROBE:
                assert 0.0 < stall.probe_limit_s(now) <= GIVE_UP_S
                # The asking lies at least that far back.
                assert GIVE_UP_S - SILENCE_S - LATE_S - PONG_PATIENCE_S <= stall.probe_limit_s(now)
            assert stall.due_at >= now or act == PROBE
        else:
            getattr(stall, what)(now)
            assert stall.due_at > now
