"""Verdict: what is to be done about the daemon that was found, or was not.  Pure.

Whoever wants a daemon looks first (at the socket, at what the guard says, at its lock),
then at what answers hello.  Each look ends here; what follows from it, supervise.py does.

Rule 1: alive is who answers.  What is written somewhere (a pid in a lock's file) only
        names somebody, and whoever has that pid now is never signalled for it.
Rule 2: slow is not deaf: that a daemon is deaf the guard decides, once for all callers.
Rule 3: only a strictly newer program replaces a daemon unasked, and each client tries
        that once.  So two installed versions never fight.
Rule 4: whatever is replaced is replaced through the guard, without harm to a session.
"""

from collections import namedtuple

from .version import is_newer

ADOPT, START, REPLACE, DEFER, REFUSE = "adopt", "start", "replace", "defer", "refuse"

# How: the second half of some verdicts.
START_DAEMON = "start_daemon"  # ask the guard for one
START_GUARD = "start_guard"
WAKE_GUARD = "wake_guard"      # alive, its sockets are gone
WAIT = "wait"                  # somebody is on the way out or in
BY_GUARD = "by_guard"          # tell it; it pings and decides
BY_US = "by_us"                # with our own program

IDLE, ALWAYS, NEVER = POLICIES = ("idle", "always", "never")    # PTYGUARD_AUTO_UPGRADE

# Why an update waits; `failed_before` and `held_back` the guard adds, who remembers.
LIVE_SESSIONS = "live_sessions_present"
NO_LIST = "session_list_unavailable"

PROBE_FAILED = "version_probe_failed"
VERSION_MISMATCH = "version-mismatch"
SOURCE_CHANGED = "source-changed"

Verdict = namedtuple("Verdict", "act reason how")
Verdict.__new__.__defaults__ = (None,)

# What was found on the way to a connection.  `is_listening`: client.sock accepted one.
# `guard_state`: the daemon's state as the guard told it, None when guard.sock did not
# answer.  `is_guard_locked`: somebody holds guard.lock.
Found = namedtuple("Found", "is_listening guard_state is_guard_locked may_start")

# What said hello.  `version` and `protocol` (min, max) are the daemon's; `living` counts
# its sessions, None when it does not tell; `source` is the program it runs from.
Hello = namedtuple("Hello", "version protocol living source")

# Instead of a Hello:
SILENT = "silent"              # unanswered for as long as a probe may take
GARBAGE = "garbage"            # what came is none of our protocol

# Us.  `source` is the program that we would start; None unless it is to be compared
# (C-410: in development a daemon of other source is outdated whatever its version).
Ours = namedtuple("Ours", "version protocol policy source")


def decide(found, hello=None, ours=None):
    """The Verdict on what was found; with `hello` (a Hello, SILENT or GARBAGE) on that."""
    return _decide_way(found) if hello is None else _decide_hello(hello, ours)


def _decide_way(found):
    is_listening, state, is_guard_locked, may_start = found
    if is_listening:
        return Verdict(ADOPT, "a daemon or a guard listens")
    if state == "circuit-open":
        return Verdict(REFUSE, "the daemon keeps dying")
    if state == "stopping":
        return Verdict(START, "the guard is on its way out", WAIT)
    if not may_start:
        return Verdict(REFUSE, "no daemon runs")
    if state == "serving":
        return Verdict(START, "a daemon serves, and its socket is gone", WAKE_GUARD)
    if state is not None:
        return Verdict(START, f"the guard says {state}", START_DAEMON)
    if is_guard_locked:
        return Verdict(START, "a guard lives without its sockets", WAKE_GUARD)
    return Verdict(START, "nobody is here", START_GUARD)


def _decide_hello(hello, ours):
    if hello == SILENT:
        return Verdict(REPLACE, PROBE_FAILED, BY_GUARD)
    if hello == GARBAGE:
        return Verdict(REPLACE, PROBE_FAILED, BY_US)
    if hello.protocol[0] > ours.protocol[1]:
        return Verdict(REFUSE, f"its oldest protocol is {hello.protocol[0]}, "
                               f"our newest is {ours.protocol[1]}")
    if hello.protocol[1] < ours.protocol[0]:
        return Verdict(REPLACE, PROBE_FAILED, BY_US)
    if ours.source is not None and hello.source != ours.source:
        return Verdict(REPLACE, SOURCE_CHANGED, BY_US)
    if ours.policy == NEVER or not is_newer(ours.version, hello.version):
        return Verdict(ADOPT, "it will do")
    if ours.policy == ALWAYS:
        return Verdict(REPLACE, VERSION_MISMATCH, BY_US)
    if hello.living is None:
        return Verdict(DEFER, NO_LIST)
    if hello.living:
        return Verdict(DEFER, LIVE_SESSIONS)
    return Verdict(REPLACE, VERSION_MISMATCH, BY_US)
