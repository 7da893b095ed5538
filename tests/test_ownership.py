"""Ownership: whose daemon it is, and that it leaves after them.  The daemon is made up, its clock too."""

import heapq
import types

import pytest
from hypothesis import given, strategies as st

from ptyguard_core import frames, guardwire as wire, usage
from ptyguard_core.errors import UsageError
from ptyguard_core.liveness import GRACE_MAX_S, KEEP, KILL, RETURN_S, Terms
from ptyguard_core.ownership import APP, HEADLESS, OWNERS, PERSISTENT, STOP_RETRY_S, Ownership


class Clock:
    """A loop of deadlines only."""

    def __init__(self):
        self.now = 1000.0
        self._timers = []
        self._count = 0

    def clock(self):
        return self.now

    def at(self, deadline, act):
        timer = types.SimpleNamespace(act=act)
        timer.cancel = lambda: setattr(timer, "act", None)
        self._count += 1
        heapq.heappush(self._timers, (deadline, self._count, timer))
        return timer

    def after(self, delay_s, act):
        return self.at(self.now + delay_s, act)

    def pass_time(self, seconds):
        """Let so much time pass, and everything happen that is due in it."""
        until = self.now + seconds
        while self._timers and self._timers[0][0] <= until:
            deadline, _, timer = heapq.heappop(self._timers)
            self.now = max(self.now, deadline)
            if timer.act is not None:
                timer.act()
        self.now = until


class Guard:
    """What was told to it; `answers` are those to come (a message's type, None: it dies)."""

    def __init__(self):
        self.is_up = True
        self.kept = {}
        self.asked = []
        self.answers = []

    def send(self, type_, **fields):
        assert type_ == wire.OWNERSHIP
        self.kept = {name: value.encode() if isinstance(value, str) else value
                     for name, value in fields.items()}

    def ask(self, type_, on_reply, give_up, **fields):
        assert (type_, fields, self.is_up) == (wire.STOPPING, {"mode": "keep"}, True)
        self.asked.append(on_reply)
        if self.answers:
            type_ = self.answers.pop(0)
            on_reply(type_ and wire.Message(type_, 1, [], {}))


class Client:
    def __init__(self):
        self.hello = {"pid": 1}
        self.events = []

    def send(self, type_, **fields):
        assert type_ == frames.EVENT
        self.events.append(fields["event"])


class Daemon:
    def __init__(self, kept=None):
        self.loop = Clock()
        self.guard = Guard()
        self.log = lambda *_args, **_fields: None
        self.is_leaving = False
        self.clients = set()
        self.sessions = {}
        self.killings = []
        self.unwanted = []
        self.restarts = types.SimpleNamespace(cancel=self.unwanted.append)
        self.ownership = Ownership(self)
        self.ownership.resume(kept or {})

    def kill(self, session, _grace_s, act):
        self.killings.append((session, act))

    def add_session(self, id_, is_living=True):
        self.sessions[id_] = types.SimpleNamespace(id=id_, is_living=is_living)

    def link(self, grace_s=5.0, on_orphan=KEEP):
        client = Client()
        self.clients.add(client)
        return client, self.ownership.link(client, Terms(grace_s, on_orphan))

    def unlink(self, client):
        self.clients.discard(client)
        self.ownership.unlink(client)

    @property
    def has_asked(self):
        return len(self.guard.asked)


@pytest.fixture
def daemon():
    return Daemon()


# -- the end of the last link -----------------------------------------------------------------


def test_a_daemon_that_nobody_ever_held_stays_for_ever(daemon):
    for _ in range(3):
        daemon.unlink(Client())         # any connection that closes
    daemon.loop.pass_time(1e7)
    assert not daemon.has_asked and "grace_ms" not in daemon.guard.kept


def test_when_the_last_holder_has_been_gone_for_the_grace_the_guard_is_asked_once(daemon):
    one, _ = daemon.link()
    other, _ = daemon.link()
    daemon.unlink(one)
    daemon.loop.pass_time(100)
    assert not daemon.has_asked
    daemon.unlink(other)
    daemon.loop.pass_time(4.9)
    assert not daemon.has_asked
    daemon.loop.pass_time(0.2)
    assert daemon.has_asked == 1 and daemon.ownership.is_stopping
    daemon.loop.pass_time(1e6)
    assert daemon.has_asked == 1


def test_sessions_that_are_to_end_have_ended_before_the_guard_is_asked(daemon):
    daemon.add_session("one")
    daemon.add_session("two")
    daemon.add_session("ended", is_living=False)
    client, _ = daemon.link(1.0, KILL)
    daemon.unlink(client)
    daemon.loop.pass_time(2)
    assert [session.id for session, _ in daemon.killings] == ["one", "two"]
    daemon.killings[0][1](None)
    assert not daemon.has_asked
    daemon.killings[1][1](OSError("it lives on"))       # then the guard keeps it
    assert daemon.has_asked == 1


def test_sessions_that_are_to_be_kept_are_left_alone(daemon):
    daemon.add_session("one")
    client, _ = daemon.link(1.0, KEEP)
    daemon.unlink(client)
    daemon.loop.pass_time(2)
    assert not daemon.killings and daemon.has_asked == 1


def test_whoever_links_while_sessions_end_keeps_the_daemon(daemon):
    daemon.add_session("one")
    client, _ = daemon.link(1.0, KILL)
    daemon.unlink(client)
    daemon.loop.pass_time(2)
    late, counts = daemon.link(1.0, KEEP)
    assert counts
    daemon.killings[0][1](None)
    daemon.loop.pass_time(100)
    assert not daemon.has_asked and not daemon.ownership.is_stopping
    daemon.unlink(late)                 # and its own end is one like any other
    daemon.loop.pass_time(1.1)
    assert daemon.has_asked == 1


def test_a_guard_that_cannot_now_or_is_gone_is_asked_again(daemon):
    client, _ = daemon.link(1.0)
    daemon.guard.answers = [wire.REFUSED, None]
    daemon.unlink(client)
    daemon.guard.is_up = False
    daemon.loop.pass_time(1)
    assert not daemon.has_asked
    daemon.guard.is_up = True
    daemon.loop.pass_time(STOP_RETRY_S)
    assert daemon.has_asked == 1 and not daemon.ownership.is_stopping
    daemon.loop.pass_time(STOP_RETRY_S)
    daemon.loop.pass_time(STOP_RETRY_S)
    assert daemon.has_asked == 3 and daemon.ownership.is_stopping


def test_a_daemon_on_its_way_out_asks_for_nothing(daemon):
    client, _ = daemon.link(1.0)
    daemon.unlink(client)
    daemon.is_leaving = True
    daemon.loop.pass_time(100)
    assert not daemon.has_asked


def test_holders_and_nobody_else_are_told_of_a_stop_on_purpose(daemon):
    holder, _ = daemon.link()
    other = Client()
    daemon.clients.add(other)
    daemon.ownership.tell_stopping()
    assert holder.events == ["stopping"] and other.events == []


# -- what a successor knows -------------------------------------------------------------------


def test_a_successor_is_armed_as_its_predecessor_was_and_gives_holders_time(daemon):
    daemon.link(0.5, KILL)
    successor = Daemon(daemon.guard.kept)
    successor.loop.pass_time(RETURN_S - 0.1)
    assert not successor.has_asked
    successor.loop.pass_time(0.2)
    assert successor.has_asked == 1


def test_a_successor_whose_holder_is_back_stays(daemon):
    daemon.link(7.0, KILL)
    successor = Daemon(daemon.guard.kept)
    successor.loop.pass_time(6.0)
    successor.link(7.0, KILL)
    successor.loop.pass_time(1000)
    assert not successor.has_asked


def test_one_that_dies_after_its_last_holder_went_leaves_that_to_its_successor(daemon):
    client, _ = daemon.link(60.0)
    daemon.unlink(client)
    successor = Daemon(daemon.guard.kept)
    successor.loop.pass_time(59)
    assert not successor.has_asked
    successor.loop.pass_time(2)
    assert successor.has_asked == 1


def test_one_that_dies_while_it_ends_sessions_leaves_the_rest_to_its_successor(daemon):
    daemon.add_session("one")
    client, _ = daemon.link(1.0, KILL)
    daemon.unlink(client)
    daemon.loop.pass_time(2)
    daemon.ownership.tell_guard()       # as after a new guard came up
    successor = Daemon(daemon.guard.kept)
    successor.add_session("one")
    successor.loop.pass_time(RETURN_S + 0.1)
    assert len(successor.killings) == 1


@given(st.dictionaries(st.sampled_from(["owner", "on_orphan"]), st.binary(max_size=12)),
       st.one_of(st.none(), st.integers(0, 10**9)))
def test_whatever_the_guard_kept_a_successor_can_begin_with_it(kept, grace_ms):
    if grace_ms is not None:
        kept["grace_ms"] = grace_ms
    assert Daemon(kept).ownership.owner in OWNERS


# -- whose it is ------------------------------------------------------------------------------

# owner that somebody set (None: nobody has) -> does a link stop the daemon, does attaching link
OWNED = [(None, True, False), (APP, True, True), (PERSISTENT, False, False), (HEADLESS, False, False)]


@pytest.mark.parametrize("owner, stops, links_on_attach", OWNED)
def test_the_owner_decides_what_a_link_means(owner, stops, links_on_attach):
    daemon = Daemon()
    if owner is not None:
        daemon.ownership.set_owner(owner)
    assert daemon.ownership.owner == (owner or HEADLESS)
    assert (daemon.ownership.wanted({"link": "if_app"}) is not None) == links_on_attach
    assert daemon.ownership.wanted({"link": True}) == Terms(5.0, KEEP)
    client, counts = daemon.link(1.0)
    assert counts == stops
    successor = Daemon(daemon.guard.kept)
    assert successor.ownership.owner == (owner or HEADLESS)
    daemon.unlink(client)
    for each in (daemon, successor):
        each.loop.pass_time(1000)
        assert bool(each.has_asked) == stops


def test_every_owner_mode_is_in_the_table():
    assert {owner for owner, *_ in OWNED} == {None, *OWNERS}


def test_another_owner_counts_from_then_on(daemon):
    client, _ = daemon.link(1.0)
    daemon.ownership.set_owner(PERSISTENT)
    daemon.unlink(client)
    daemon.loop.pass_time(100)
    assert not daemon.has_asked
    daemon.ownership.set_owner(APP)     # who went before that is not missed now
    daemon.loop.pass_time(100)
    assert not daemon.has_asked
    held, _ = daemon.link(1.0)
    daemon.ownership.set_owner(HEADLESS)
    daemon.ownership.set_owner(APP)     # who holds all the while counts again
    daemon.unlink(held)
    daemon.loop.pass_time(2)
    assert daemon.has_asked == 1


def test_the_same_owner_said_again_calls_nothing_off(daemon):
    daemon.ownership.set_owner(APP)
    client, _ = daemon.link(1.0)
    daemon.unlink(client)
    daemon.ownership.set_owner(APP)
    daemon.loop.pass_time(2)
    assert daemon.has_asked == 1


@pytest.mark.parametrize("owner", [None, "", "apps", 3, ["app"], "\x1b[31m"])
def test_what_is_no_owner_mode_is_refused(daemon, owner):
    with pytest.raises(UsageError):
        daemon.ownership.set_owner(owner)
    assert daemon.ownership.owner == HEADLESS


# -- the hello --------------------------------------------------------------------------------


@pytest.mark.parametrize("fields", [
    {}, {"link": None}, {"link": False}, {"link": 1}, {"link": "true"}, {"link": []}, {"link": {}},
    {"link": "if_app"}, {"grace": "nonsense"}, {"role": "link"}])
def test_what_does_not_say_so_is_no_link(daemon, fields):
    assert daemon.ownership.wanted(fields) is None


@pytest.mark.parametrize("grace", [-1, -0.001, True, "5", None, [], float("nan"), float("inf"),
                                   GRACE_MAX_S * 1.01, 10**400])
def test_a_grace_that_is_none_is_refused(daemon, grace):
    with pytest.raises(UsageError):
        daemon.ownership.wanted({"link": True, "grace": grace})


@pytest.mark.parametrize("on_orphan", ["", "keeps", None, True, ["keep"], {}])
def test_a_fate_of_sessions_that_is_none_is_refused(daemon, on_orphan):
    with pytest.raises(UsageError):
        daemon.ownership.wanted({"link": True, "on_orphan": on_orphan})


def test_a_hello_may_say_the_grace_and_the_fate_of_sessions(daemon):
    assert daemon.ownership.wanted({"link": True, "grace": 0, "on_orphan": "kill"}) == Terms(0.0, KILL)


def test_the_command_line_takes_every_grace_that_the_daemon_takes_and_no_other():
    assert usage.LONGEST_GRACE_S == GRACE_MAX_S
    assert usage.grace("720h") == GRACE_MAX_S
    with pytest.raises(UsageError):
        usage.grace("721h")
