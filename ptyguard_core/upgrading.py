"""Upgrading: another program for the daemon, asked for or not.

Asked for: `upgrade` replaces what runs by our own program or that of a file, whatever
lives.  Unasked: each command's first look at the daemon, `consider`, replaces one that is
older where the policy (PTYGUARD_AUTO_UPGRADE) lets it, else notes that it waits.

The guard does it, for all who ask at once, and decides again at that moment whether an
unasked update has to wait.  What does not work leaves the daemon that serves untouched.
"""

import os
from collections import namedtuple

from . import frames, guardwire as wire
from .copies import adopt_file, find_program, is_checkout, name_copy
from .errors import Deferred, Incompatible, PtyguardError, Unreachable, UsageError
from .supervise import START_LIMIT_S, ask_guard, replace, tell_guard
from .verdict import (ADOPT, DEFER, IDLE, LIVE_SESSIONS, NO_LIST, POLICIES, SOURCE_CHANGED,
                      VERSION_MISMATCH, Hello, Ours, decide, is_newer)
from .version import OURS

ASK_LIMIT_S = 2.0              # a command has better to do than to wait for an update
REEXEC_LIMIT_S = 30.0
TOLD_MAX = 16 * 1024           # bytes of what users were told

WAITS, FAILED = "waits", "failed"

# What `consider` has to tell: WAITS or FAILED, the two versions, and why.
Notice = namedtuple("Notice", "kind running newest why")

# What `look` found out: versions, whether an `upgrade` would change anything, sessions
# that live; `state` is the guard's word, None without one.
Look = namedtuple("Look", "running running_binary guard_version guard_binary living state")


# -- unasked -----------------------------------------------------------------------------

def policy_of(environ):
    """PTYGUARD_AUTO_UPGRADE; raises UsageError for what is no policy."""
    policy = environ.get("PTYGUARD_AUTO_UPGRADE") or IDLE
    if policy not in POLICIES:
        raise UsageError(f"PTYGUARD_AUTO_UPGRADE is {policy[:40]!r}",
                         hint="it takes " + ", ".join(POLICIES))
    return policy


def consider(backend, paths, channel, environ):
    """The first look of a command at its daemon, over `channel`; a Notice or None.

    Where the daemon is replaced, `channel` is connected to the new one afterwards.  Never
    fails for the update's sake: what serves, serves.
    """
    welcome = channel.welcome
    protocol = frames.PROTOCOL_MIN, frames.PROTOCOL_MAX
    running = welcome.get("version", "")
    hello = Hello(running, welcome.get("protocol", protocol), welcome.get("living"),
                  welcome.get("binary"))
    policy = policy_of(environ)
    verdict = decide(None, hello, Ours(OURS, protocol, policy, _own_source(paths, environ)))
    if verdict.act == ADOPT:
        return None
    if verdict.reason == SOURCE_CHANGED:
        return _exchange(backend, paths, channel, running, "source", SOURCE_CHANGED)
    try:
        why = _ask_leave(backend, paths, welcome, policy, verdict)
    except PtyguardError:
        why = NO_LIST                   # the guard does not tell
    if why:
        return Notice(WAITS, running, OURS, why)
    return _exchange(backend, paths, channel, running, policy, VERSION_MISMATCH)


def _own_source(paths, environ):
    """In development, the copy that is made of our source as it is now; else None."""
    if environ.get("PTYGUARD_DEV") != "1" or environ.get("PTYGUARD_ADOPT_IN_DEV") == "1" \
            or not is_checkout():
        return None
    return name_copy(paths)[0]


def _ask_leave(backend, paths, welcome, policy, verdict):
    """Why the update waits, or ""; the guard notes it."""
    known = welcome.get("update") or {}
    if verdict.act == DEFER and verdict.reason == LIVE_SESSIONS and known.get("newest") == OURS:
        return known.get("deferred_reason") or verdict.reason
    state = ask_guard(backend, paths, wire.STATE, ASK_LIMIT_S)
    if state is None:
        return NO_LIST
    if state.number("wire") < wire.WIRE_WITH_UPDATES:
        return verdict.reason if verdict.act == DEFER else ""
    answer = ask_guard(backend, paths, wire.OFFER, ASK_LIMIT_S, version=OURS, mode=policy)
    if answer is None:
        return NO_LIST
    if answer.type != wire.OK:
        return answer.text("text")
    # The daemon knows of sessions in the pause before they are started again.
    return verdict.reason if verdict.act == DEFER else ""


def _exchange(backend, paths, channel, running, mode, after):
    try:
        replace(backend, paths, find_program(backend, paths), after, mode=mode)
    except Deferred as error:
        return Notice(WAITS, running, OURS, error.message)
    except PtyguardError as error:
        channel.connect()
        return Notice(FAILED, running, OURS, error.message)
    channel.connect()
    now = channel.welcome.get("version", "")
    if is_newer(OURS, now):             # one attempt: else this would go on for ever
        return Notice(FAILED, running, OURS, _suspect(now))
    return None


def _suspect(now):
    return (f"the daemon says it is {now} after it was replaced; is PTYGUARD_TEST_VERSION set, "
            "or another ptyguard first in PATH?")


def is_news(paths, notice):
    """Whether a user has not been told of that pair of versions yet; then it is noted so."""
    path = os.path.join(paths.state, "update-told")
    pair = f"{notice.kind} {notice.running} {notice.newest}\n".encode("utf-8", "replace")
    flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK
    try:
        with open(os.open(path, flags, 0o600), "r+b", buffering=0) as file:
            if pair in file.read(TOLD_MAX):
                return False
            if os.fstat(file.fileno()).st_size > TOLD_MAX - len(pair):
                file.truncate(0)
            file.write(pair)
    except OSError:
        pass                            # rather told twice than never
    return True


# -- asked for ---------------------------------------------------------------------------

def look(backend, paths):
    """What runs; a Look.  Starts nothing."""
    state = tell_guard(backend, paths, wire.STATE)
    if state is None:
        return Look("", "", "", "", 0, None)
    return Look(state.text("daemon_version"), state.text("binary"), state.text("version"),
                state.text("guard_binary"), state.number("living"), state.text("daemon_state"))


def choose_program(backend, paths, file):
    """(program, version): that of `file`, or our own for None."""
    if file is None:
        return find_program(backend, paths), OURS
    interpreter, binary, version = adopt_file(backend, paths, file)
    return (interpreter, binary), version


def upgrade(backend, paths, program, version, timeout_s=START_LIMIT_S):
    """Have the daemon replaced by `program`'s; the version that serves then.

    Raises Unreachable with the cause; what served before serves on.
    """
    try:
        now = replace(backend, paths, program, "upgrade", version, timeout_s=timeout_s)
    except Unreachable as error:
        raise Unreachable(f"not upgraded to {version}: {error.message}", hint=error.hint) from None
    if now and now != version:
        raise Unreachable(_suspect(now), hint="ptyguard status")
    return version


def replace_guard(backend, paths, program, timeout_s=REEXEC_LIMIT_S):
    """Have the guard run `program` instead, in place: same process, same children.

    Raises Incompatible for a guard that cannot, Unreachable with the reason for one that
    does not: then it is what it was.
    """
    state = tell_guard(backend, paths, wire.STATE)
    if state is None:
        raise Unreachable("no guard runs", hint="the next command starts one")
    if state.number("wire") < wire.WIRE_WITH_UPDATES:
        raise Incompatible(f"the guard (version {state.text('version')}) cannot be replaced in place",
                           hint="it can once its sessions have ended: ptyguard daemon stop")
    answer = ask_guard(backend, paths, wire.REEXEC, timeout_s,
                       interpreter=os.fsencode(program[0]), binary=os.fsencode(program[1]))
    if answer is None or answer.type != wire.OK:
        why = "it went away" if answer is None else answer.text("text")
        raise Unreachable(f"the guard was not replaced: {why}",
                          hint=f"it goes on as before; look at {paths.guard_log}")
    return answer.text("version")
