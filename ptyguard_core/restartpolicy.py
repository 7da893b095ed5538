"""Restart policy: when a program is started again without being asked, and when no more.

    policy           ended well   failed   lost (reboot; guard and daemon gone)
    never            -            -        -
    on-failure[:N]   -            again    again
    always[:N]       again        again    again
    on-reboot        -            -        again

"Failed" is an exit status other than 0, a signal, or a status that nobody knows any more.
N attempts in a row (5 unless said otherwise) may be made: 1 s after the end, then 2 s, and
so on up to 60 s; after a loss the first is made at once.  A program that has lived for 60 s,
and another boot, begin the count anew.  Who is out of attempts has failed for good.

Pure: time is an argument, and nothing here knows of processes.
"""

from collections import namedtuple

from .errors import UsageError

NEVER, ON_FAILURE, ALWAYS, ON_REBOOT = "never", "on-failure", "always", "on-reboot"
SUCCESS, FAILURE, LOSS = "success", "failure", "loss"      # how a program came to its end
OVER, AGAIN, FAILED = "over", "again", "failed"            # what follows

ATTEMPTS = 5
ATTEMPTS_MAX = 1_000_000
BACKOFF_S = 1.0                # before the first attempt, doubled with each ...
BACKOFF_MAX_S = 60.0           # ... up to this
LIFE_S = 60.0                  # that long, and what came before is forgotten

_FOLLOWS = {
    (NEVER, SUCCESS): OVER, (NEVER, FAILURE): OVER, (NEVER, LOSS): OVER,
    (ON_FAILURE, SUCCESS): OVER, (ON_FAILURE, FAILURE): AGAIN, (ON_FAILURE, LOSS): AGAIN,
    (ALWAYS, SUCCESS): AGAIN, (ALWAYS, FAILURE): AGAIN, (ALWAYS, LOSS): AGAIN,
    (ON_REBOOT, SUCCESS): OVER, (ON_REBOOT, FAILURE): OVER, (ON_REBOOT, LOSS): AGAIN,
}
_COUNTED = (ON_FAILURE, ALWAYS)

Policy = namedtuple("Policy", "kind attempts_max")
Decision = namedtuple("Decision", "follows attempt delay_s")


def parse_policy(text):
    """The Policy of `always:3`, or UsageError."""
    kind, colon, number = text.partition(":")
    if (kind, SUCCESS) in _FOLLOWS and (not colon or kind in _COUNTED):
        if not colon:
            return Policy(kind, ATTEMPTS)
        if number.isascii() and number.isdigit() and len(number) <= 7 \
                and 1 <= int(number) <= ATTEMPTS_MAX:
            return Policy(kind, int(number))
    raise UsageError(f"not a restart policy: {ascii(text[:40])}",
                     hint=f"never, on-failure[:N], always[:N] or on-reboot; N is 1 to {ATTEMPTS_MAX}")


def policy_in(text):
    """The same of a record's field: what cannot be understood restarts nothing."""
    try:
        return parse_policy(text)
    except (UsageError, AttributeError):
        return Policy(NEVER, ATTEMPTS)


def cause_of(exit_):
    """SUCCESS or FAILURE, by an exit as records have it."""
    return SUCCESS if exit_ and exit_.get("code") == 0 else FAILURE


def backoff_s(attempt):
    """Seconds between an end and the `attempt`-th attempt in a row (1, 2, ...)."""
    return min(BACKOFF_MAX_S, BACKOFF_S * 2 ** min(attempt - 1, 16))


def decide(policy, cause, attempts, life_s):
    """What follows an end: a Decision.

    `attempts`: those already made in a row; `life_s`: how long this program has lived (None: it
    did not come to live; infinite after a reboot).  `delay_s` is counted from the end.
    """
    if _FOLLOWS[policy.kind, cause] == OVER:
        return Decision(OVER, 0, 0.0)
    if life_s is not None and life_s >= LIFE_S:
        attempts = 0
    if attempts >= policy.attempts_max:
        return Decision(FAILED, attempts, 0.0)
    attempt = attempts + 1
    is_at_once = cause == LOSS and attempt == 1
    return Decision(AGAIN, attempt, 0.0 if is_at_once else backoff_s(attempt))
