"""Verdict: what is to be done about what was found.  A row for every case."""

import itertools

import pytest

from ptyguard_core.verdict import (ADOPT, ALWAYS, BY_GUARD, BY_US, DEFER, GARBAGE, IDLE, LIVE_SESSIONS,
                                   NEVER, NO_LIST, PROBE_FAILED, REFUSE, REPLACE, SILENT,
                                   SOURCE_CHANGED, START, START_DAEMON, START_GUARD, VERSION_MISMATCH,
                                   WAIT, WAKE_GUARD, Found, Hello, Ours, decide, is_newer)

# -- the way to a daemon ----------------------------------------------------------------------

STATES = (None, "dead", "stopped", "starting", "ready", "serving", "quiescing", "leaving",
          "depositing", "stopping", "circuit-open")
ANY = object()

# (listening, the guard's word, guard.lock held, may start) -> verdict; the first that fits.
WAYS = [
    ((True, ANY, ANY, ANY), (ADOPT, None)),         # whoever it is; what is recorded does not count
    ((False, "circuit-open", ANY, ANY), (REFUSE, None)),    # half-open too: the guard tries by itself
    ((False, "stopping", ANY, ANY), (START, WAIT)),
    ((False, ANY, ANY, False), (REFUSE, None)),
    ((False, "serving", ANY, True), (START, WAKE_GUARD)),   # a daemon serves where nobody can come
    ((False, None, True, True), (START, WAKE_GUARD)),       # never a second guard beside a silent one
    ((False, None, False, True), (START, START_GUARD)),     # a pid in the lock's file is nobody
    ((False, ANY, ANY, True), (START, START_DAEMON)),       # dead, stopped, quarantined ones held
]


def fits(row, found):
    return all(want is ANY or want == have for want, have in zip(row, found))


FOUND = list(itertools.product((True, False), STATES, (True, False), (True, False)))


@pytest.mark.parametrize("found", FOUND, ids=str)
def test_what_is_found_on_the_way_decides_what_is_done(found):
    verdict = decide(Found(*found))
    assert (verdict.act, verdict.how) == next(wanted for row, wanted in WAYS if fits(row, found))
    assert verdict.reason


def test_every_row_of_the_ways_decides_something():
    for index, (row, _) in enumerate(WAYS):
        assert any(fits(row, found) and not any(fits(other, found) for other, _ in WAYS[:index])
                   for found in FOUND), row


# -- what said hello --------------------------------------------------------------------------

def hello(version="1.2.0", protocol=(1, 3), living=0, source="/copy"):
    return Hello(version, protocol, living, source)


def ours(version="1.2.0", protocol=(2, 3), policy=IDLE, source=None):
    return Ours(version, protocol, policy, source)


HELLOS = [
    # C-306, C-302: alive is who answers
    ("the same", hello(), ours(), ADOPT, None, None),
    ("silent: the guard decides", SILENT, ours(), REPLACE, PROBE_FAILED, BY_GUARD),
    ("garbage", GARBAGE, ours(), REPLACE, PROBE_FAILED, BY_US),
    ("garbage, whatever the policy", GARBAGE, ours(policy=NEVER), REPLACE, PROBE_FAILED, BY_US),
    # C-406: no common protocol
    ("it is too old to be talked to", hello(protocol=(1, 1)), ours(), REPLACE, PROBE_FAILED, BY_US),
    ("so even with live sessions", hello(protocol=(1, 1), living=3), ours(), REPLACE, PROBE_FAILED, BY_US),
    ("so even never", hello(protocol=(1, 1)), ours(policy=NEVER), REPLACE, PROBE_FAILED, BY_US),
    ("we are too old for it", hello("9.0.0", (4, 5)), ours(), REFUSE, None, None),
    ("protocols that just meet", hello(protocol=(3, 9)), ours(), ADOPT, None, None),
    ("protocols that just meet below", hello(protocol=(1, 2)), ours(), ADOPT, None, None),
    # C-405: a strictly newer client
    ("older, idle", hello("1.1.9"), ours(), REPLACE, VERSION_MISMATCH, BY_US),
    ("older, sessions live", hello("1.1.9", living=1), ours(), DEFER, LIVE_SESSIONS, None),
    ("older, does not tell", hello("1.1.9", living=None), ours(), DEFER, NO_LIST, None),
    ("older, always", hello("1.1.9", living=4), ours(policy=ALWAYS), REPLACE, VERSION_MISMATCH, BY_US),
    ("older, always, does not tell", hello("1.1.9", living=None), ours(policy=ALWAYS), REPLACE,
     VERSION_MISMATCH, BY_US),
    ("older, never", hello("1.1.9"), ours(policy=NEVER), ADOPT, None, None),
    ("a pre-release of ours", hello("1.2.0-rc.1"), ours(), REPLACE, VERSION_MISMATCH, BY_US),
    ("a build before ours", hello("1.2.0-3-gabcdef0"), ours("1.2.0-4-g1234567"), REPLACE,
     VERSION_MISMATCH, BY_US),
    # C-407: no ping-pong
    ("newer, idle", hello("1.3.0"), ours(policy=IDLE), ADOPT, None, None),
    ("newer, always", hello("1.3.0"), ours(policy=ALWAYS), ADOPT, None, None),
    ("another build at the same distance", hello("1.2.0-4-gabcdef0"), ours("1.2.0-4-g1234567"), ADOPT,
     None, None),
    ("no version at all", hello("mine"), ours(), ADOPT, None, None),
    ("nothing", hello(""), ours(), ADOPT, None, None),
    # C-410: development
    ("other source", hello(), ours(source="/other"), REPLACE, SOURCE_CHANGED, BY_US),
    ("other source, sessions live", hello(living=2), ours(source="/other"), REPLACE, SOURCE_CHANGED, BY_US),
    ("other source, newer", hello("9.0.0"), ours(source="/other"), REPLACE, SOURCE_CHANGED, BY_US),
    ("the same source", hello(), ours(source="/copy"), ADOPT, None, None),
]


@pytest.mark.parametrize("name, said, us, act, reason, how", HELLOS, ids=[row[0] for row in HELLOS])
def test_what_says_hello_is_judged(name, said, us, act, reason, how):
    verdict = decide(None, said, us)
    assert (verdict.act, verdict.how) == (act, how)
    assert verdict.reason and reason in (None, verdict.reason)


def test_two_versions_that_meet_never_both_replace_the_other():
    versions = ["0.1.0", "0.2.0-rc.1", "0.2.0", "0.2.0-1-gabcd", "0.2.0-1-gef01", "mine", ""]
    for one, other in itertools.product(versions, versions):
        acts = [decide(None, hello(theirs), ours(version, policy=ALWAYS)).act
                for theirs, version in ((one, other), (other, one))]
        assert acts.count(REPLACE) <= 1
        assert (REPLACE in acts) == (is_newer(one, other) or is_newer(other, one))
