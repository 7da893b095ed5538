"""The circuit: which deaths count, when it opens, and when a start is tried again."""

import pytest

from ptyguard_core.circuit import COUNTED_DEATHS, RETRY_AFTER_S, STORM_DEATHS, Circuit

KILLED = True           # by SIGKILL, after it had said ready
COUNTS = False


@pytest.fixture
def circuit():
    return Circuit()


def die(circuit, times, how=COUNTS):
    """Die at these times; returns the delays until the next starts."""
    return [circuit.died(now, how, f"died at {now}") - now for now in times]


def open_it(circuit, now):
    die(circuit, [now] * COUNTED_DEATHS)
    assert not circuit.is_open
    return circuit.died(now, COUNTS, "the last one")


# --- kills of one that was ready ----------------------------------------------------------

def test_a_ready_daemon_that_was_killed_is_started_at_once_and_never_counts(circuit):
    delays = die(circuit, [1000 + n for n in range(200)], KILLED)
    assert set(delays) == {0}
    assert not circuit.is_open and circuit.recent_deaths == 0


def test_from_the_fiftieth_kill_in_ten_seconds_on_starts_are_a_tenth_of_a_second_apart(circuit):
    delays = die(circuit, [1000 + n / 10 for n in range(60)], KILLED)
    assert delays[:STORM_DEATHS - 1] == [0] * 49
    assert delays[STORM_DEATHS - 1:] == pytest.approx([0.1] * 11)
    assert not circuit.is_open


def test_a_storm_that_is_over_slows_nothing_down(circuit):
    die(circuit, [1000.0] * 80, KILLED)
    assert die(circuit, [1009.9], KILLED) == pytest.approx([0.1])
    assert die(circuit, [1010.0], KILLED) == [0]


# --- deaths that count ------------------------------------------------------------------------

def test_three_deaths_in_a_minute_are_forgiven_the_fourth_opens_the_circuit(circuit):
    assert die(circuit, [0, 10, 20]) == [0, 0, 0]
    assert not circuit.is_open and circuit.recent_deaths == 3
    assert die(circuit, [30]) == [60]
    assert circuit.is_open
    assert circuit.retry_at == 90
    assert circuit.reason == "died at 30"


def test_deaths_spread_over_more_than_a_minute_never_open_it(circuit):
    assert set(die(circuit, range(0, 2000, 20))) == {0}
    assert not circuit.is_open


def test_kills_in_between_do_not_help_and_do_not_hurt(circuit):
    for now in (0, 1, 2):
        die(circuit, [now], COUNTS)
        assert die(circuit, [now] * 5, KILLED) == [0] * 5
    assert die(circuit, [3], COUNTS) == [60]


def test_retries_come_after_one_two_five_and_then_every_ten_minutes(circuit):
    due = open_it(circuit, 1000.0)
    delays = [due - 1000.0]
    for _ in range(6):
        after = circuit.died(due, COUNTS, "again")
        delays.append(after - due)
        assert circuit.is_open
        due = after
    assert delays == [60, 120, 300, 600, 600, 600, 600]
    assert list(RETRY_AFTER_S) == delays[:4]


def test_one_that_becomes_ready_closes_it(circuit):
    open_it(circuit, 1000.0)
    circuit.became_ready()
    assert not circuit.is_open and circuit.retry_at is None


def test_one_that_is_ready_and_falls_over_time_after_time_opens_it_too(circuit):
    for now in (0, 1, 2):
        circuit.became_ready()
        assert die(circuit, [now]) == [0]
    circuit.became_ready()
    assert die(circuit, [3]) == [60]


def test_after_a_quiet_minute_the_retries_begin_anew(circuit):
    due = open_it(circuit, 0.0)
    circuit.died(due, COUNTS, "again")
    circuit.became_ready()
    assert die(circuit, [5000]) == [0]
    assert die(circuit, [5001, 5002]) == [0, 0]
    assert die(circuit, [5003]) == [60]


def test_ready_right_after_opening_and_dead_again_waits_longer(circuit):
    open_it(circuit, 0.0)
    circuit.became_ready()
    assert die(circuit, [1]) == [120]
    assert circuit.is_open


def test_an_operators_restart_forgets_everything(circuit):
    open_it(circuit, 1000.0)
    die(circuit, [1000.0] * 60, KILLED)
    circuit.reset()
    assert not circuit.is_open and circuit.retry_at is None
    assert circuit.reason == "" and circuit.recent_deaths == 0
    assert die(circuit, [1001, 1001, 1001]) == [0, 0, 0]
    assert die(circuit, [1001], KILLED) == [0]
