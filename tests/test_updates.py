"""Updates: which program daemons are started from, and what is known of newer ones."""

import pytest

from ptyguard_core.updates import PROBATION_S, Updates

OLD, NEW, NEWER = ("python3", "/bin/old"), ("python3", "/bin/new"), ("python3", "/bin/newer")


@pytest.fixture
def updates():
    return Updates(OLD)


def test_what_has_taken_over_is_what_daemons_run_from(updates):
    assert updates.took_over(NEW, "0.2.0", 10.0)
    assert (updates.program, updates.good) == (NEW, OLD)
    assert not updates.took_over(NEW, "0.2.0", 11.0)        # it was killed, and came again


def test_an_early_death_brings_back_what_worked_before(updates):
    updates.took_over(NEW, "0.2.0", 10.0)
    assert updates.died("0.2.0", "exit status 1", 10.0 + PROBATION_S - 0.1)
    assert (updates.program, updates.good) == (OLD, None)
    assert "0.2.0" in updates.failure and "exit status 1" in updates.failure
    assert not updates.died("0.1.0", "exit status 1", 11.0)     # there is nothing before that


def test_after_a_minute_it_has_proven_itself(updates):
    updates.took_over(NEW, "0.2.0", 10.0)
    assert not updates.prove(10.0 + PROBATION_S - 0.1)
    assert updates.prove(10.0 + PROBATION_S)
    assert not updates.died("0.2.0", "exit status 1", 1000.0)
    assert updates.program == NEW


def test_a_death_after_the_minute_changes_nothing_though_nobody_looked_meanwhile(updates):
    updates.took_over(NEW, "0.2.0", 10.0)
    assert not updates.died("0.2.0", "exit status 1", 10.0 + PROBATION_S)
    assert (updates.program, updates.good) == (NEW, None)


def test_of_two_updates_in_a_row_the_last_proven_program_is_kept(updates):
    updates.took_over(NEW, "0.2.0", 10.0)
    updates.took_over(NEWER, "0.3.0", 20.0)
    assert updates.good == OLD
    updates.took_over(OLD, "0.1.0", 20.0 + PROBATION_S)
    assert updates.good == NEWER


def test_what_never_came_to_serve_is_noted_unless_it_is_what_runs_anyway(updates):
    updates.failed(OLD, "0.1.0", "not ready in time")
    assert not updates.failure
    updates.failed(NEW, "0.2.0", "not ready in time")
    assert updates.failure == "0.2.0: not ready in time"
    updates.took_over(NEWER, "0.3.0", 10.0)
    assert not updates.failure


# (version, mode, living) -> why not; 0.2.0 has failed, an operator went back from 0.4.0
WHY_NOT = [
    ("0.3.0", "idle", 0, "held_back"), ("0.5.0", "idle", 0, ""), ("0.5.0", "idle", 1, "live_sessions_present"),
    ("0.5.0", "always", 1, ""), ("0.4.0", "always", 0, "held_back"), ("0.2.0", "always", 0, "failed_before"),
    ("0.2.0", "source", 3, ""), ("mine", "always", 0, "held_back"), ("", "idle", 2, "held_back"),
]


@pytest.mark.parametrize("version, mode, living, why", WHY_NOT)
def test_an_unasked_update_waits_for_a_reason(updates, version, mode, living, why):
    updates.took_over(NEWER, "0.4.0", 1.0)
    updates.took_over(OLD, "0.1.0", 2.0, "0.4.0", is_asked=True)
    updates.failed(NEW, "0.2.0", "exit status 1")
    assert updates.why_not(version, mode, "0.1.0", living) == why


def test_going_forward_again_holds_nothing_back(updates):
    updates.took_over(NEWER, "0.4.0", 1.0)
    updates.took_over(OLD, "0.1.0", 2.0, "0.4.0", is_asked=True)
    updates.took_over(NEW, "0.2.0", 3.0, "0.1.0", is_asked=True)
    assert updates.why_not("0.3.0", "always", "0.2.0", 0) == "held_back"     # 0.4.0 was left, and still is
    updates.took_over(NEWER, "0.4.0", 4.0, "0.2.0", is_asked=True)
    assert updates.why_not("0.3.0", "always", "0.1.0", 0) == ""


def test_going_back_within_the_minute_leaves_nothing_to_fall_back_to(updates):
    updates.took_over(NEW, "0.2.0", 10.0)
    updates.took_over(OLD, "0.1.0", 20.0, "0.2.0", is_asked=True)
    assert not updates.died("0.1.0", "exit status 1", 21.0)
    assert updates.program == OLD and not updates.failure


def test_an_offer_for_a_daemon_that_was_exchanged_since_is_no_news(updates):
    assert updates.is_news("0.3.0", "idle", "0.2.0")
    assert not updates.is_news("0.2.0", "idle", "0.3.0")
    assert not updates.is_news("0.2.0", "always", "0.2.0")
    assert updates.is_news("0.2.0", "source", "0.2.0")


def test_what_failed_without_a_version_makes_no_version_a_failed_one(updates):
    updates.failed(NEW, "0.2.0", "exit status 1")
    updates.failed(NEW, "", "exit status 1")
    assert updates.why_not("0.2.0", "always", "0.1.0", 0) == "failed_before"


def test_another_guard_goes_on_with_what_was_known(updates):
    updates.took_over(NEW, "0.2.0", 10.0)
    updates.defer("0.3.0", "0.2.0", "live_sessions_present")
    other = Updates(("python3", "/bin/other"))
    other.restore(updates.program, updates.good, 1000.0 + updates.probation_s(30.0), updates.texts())
    assert (other.program, other.good, other.newest) == (NEW, OLD, "0.3.0")
    assert other.died("0.2.0", "exit status 1", 1039.0) and other.program == OLD


def test_a_deferral_is_news_once_for_each_pair_of_versions(updates):
    assert updates.defer("0.2.0", "0.1.0", "live_sessions_present")
    assert not updates.defer("0.2.0", "0.1.0", "live_sessions_present")
    assert updates.defer("0.3.0", "0.1.0", "live_sessions_present")
    assert not updates.defer("0.2.0", "0.1.0", "live_sessions_present")
    assert (updates.newest, updates.deferred) == ("0.3.0", "live_sessions_present")    # the newest stays
    assert updates.defer("0.3.0", "0.2.0", "held_back")


def test_what_waited_waits_no_more_once_it_serves(updates):
    updates.defer("0.3.0", "0.1.0", "live_sessions_present")
    updates.took_over(NEW, "0.2.0", 10.0)
    assert updates.newest == "0.3.0"
    updates.took_over(NEWER, "0.3.0", 20.0)
    assert (updates.newest, updates.deferred) == ("", "")


def test_however_many_versions_are_offered_little_is_kept():
    updates = Updates(OLD)
    for n in range(5000):
        updates.defer(f"1.{n}.0" + "9" * 1000, "0.1.0", "live_sessions_present")
    assert len(updates._told) <= 1000 and len(updates.newest) <= 100
