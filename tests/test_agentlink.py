"""A session's link to an SSH agent: whose agent it leads to, and how an agent's end is noticed.

First the rules, with listening sockets of this process for agents; then the system's answers;
then all of it, with real ssh-agents, each with a key of its own.
"""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading

import pytest
from hypothesis import given, settings, strategies as st

import ptyguard_posix as posix
from ptyguard_core.agentlink import BRIEF_S, RETURN_WAIT_S, AgentLinks, agent_path
from ptyguard_core.backend import LISTENER_GONE, SOCKET_PATH_MAX, Paths
from ptyguard_core.errors import UsageError
from ptyguard_core.loop import Loop
from world import MEMORY, World, is_alive, open_descriptors, wait_until

ID, OTHER = "k3f9k3f9k3f9", "m2m2m2m2m2m2"


class Agent:
    """What an ssh-agent is to us: somebody who listens at a path."""

    def __init__(self, directory, name):
        self.path = os.fsencode(os.path.join(str(directory), name + ".sock"))
        self.begin()

    def begin(self):
        self.connections = []
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.bind(self.path)
        self.sock.listen(100)
        self.sock.setblocking(False)

    def accept(self):
        """Take every connection that waits."""
        try:
            while True:
                self.connections.append(self.sock.accept()[0])
        except BlockingIOError:
            return self.connections

    def held(self):
        """How many connections the other side keeps open."""
        count = 0
        for connection in self.accept():
            connection.setblocking(False)
            try:
                assert connection.recv(1) == b""
            except BlockingIOError:
                count += 1
        return count

    def hang_up(self):
        """Close every connection and listen on."""
        for connection in self.accept():
            connection.close()
        self.connections = []

    def end(self):
        """As by kill -9: its socket stays behind in the directory."""
        self.sock.close()
        for connection in self.connections:
            connection.close()
        self.connections = []

    def restart(self):
        self.end()
        os.unlink(self.path)
        self.begin()


class Backend:
    """The system, but for who is taken to listen: by default a process that is gone."""

    def __init__(self):
        self.listener = LISTENER_GONE
        self.watched = 0
        self.attempts = []
        self.users = {}

    def __getattr__(self, name):
        return getattr(posix, name)

    def connect_now(self, path):
        self.attempts.append(path)
        return posix.connect_now(path)

    def watch_listener(self, sock):
        self.watched += 1
        return self.listener

    def user_id(self):
        return self.users.get("own", posix.user_id())

    def peer_user(self, sock):
        return self.users.get("peer", posix.peer_user(sock))


class Home:
    """A place with links, a clock that stands, and agents."""

    def __init__(self, directory):
        self.directory = str(directory)
        self.paths = Paths(self.directory, self.directory, self.directory)
        self.backend = Backend()
        self.now = 1000.0
        self.agents = []
        self.begin()

    def begin(self):
        """Another daemon."""
        self.loop = Loop(posix.make_poller(any_file=True), lambda: self.now)
        self.events = []
        self.links = AgentLinks(self.backend, self.loop, self.paths,
                                lambda event, **fields: self.events.append((event, fields)))

    def agent(self, name):
        self.agents.append(Agent(self.directory, name))
        return self.agents[-1]

    def turn(self):
        """One turn of the loop, which does not wait."""
        self.loop.soon(lambda: None)
        self.loop.turn()

    def end(self, agent):
        agent.end()
        self.turn()

    def pass_time(self, seconds):
        self.now += seconds
        self.turn()

    def target(self, id_=ID):
        try:
            return os.readlink(os.fsencode(self.paths.agent_link(id_)))
        except FileNotFoundError:
            return None

    def offer(self, client, agent, **options):
        self.links.offer(ID, client, agent.path if agent else b"", **options)

    def close(self):
        for id_ in (ID, OTHER):
            self.links.forget(id_)
        for agent in self.agents:
            agent.end()


@pytest.fixture
def home(own_directory):
    own_directory.mkdir()
    made = Home(own_directory)
    yield made
    made.close()


@pytest.fixture
def a(home):
    return home.agent("a")


@pytest.fixture
def b(home):
    return home.agent("b")


@pytest.fixture
def c(home):
    return home.agent("c")


# --- a link, or none --------------------------------------------------------------------

def test_a_new_session_has_the_agent_of_its_creator(home, a):
    link = home.links.adopt(ID, os.fsdecode(a.path))
    assert link == os.fsencode(home.directory) + b"/a-" + ID.encode()
    assert home.target() == a.path
    posix.connect(link, 1).close()


def test_without_an_agent_the_link_has_its_name_and_comes_with_the_first_client(home, a):
    link = home.links.adopt(ID, "")
    assert link is not None and home.target() is None
    assert home.links.describe(ID) == {"link": os.fsdecode(link), "target": None}
    home.offer("client", None)
    assert home.target() is None
    home.offer("another", a)
    assert home.target() == a.path
    assert home.links.describe(ID)["target"] == os.fsdecode(a.path)


def test_a_new_session_gives_the_loop_nothing_to_wake_for(home, a):
    asked = []
    home.loop.after = home.loop.at = lambda *when: asked.append(when)
    home.links.adopt(ID, "")
    home.links.adopt(OTHER, os.fsdecode(a.path))
    assert asked == [] and home.loop.ready_count == 0


@pytest.mark.parametrize("creator", [None, 7, ["/a"], {}, True])
def test_a_session_that_was_started_without_a_link_gets_none(home, a, creator):
    assert home.links.adopt(ID, creator) is None
    home.offer("client", a)
    home.links.withdraw(ID, "client")
    assert home.target() is None and home.links.describe(ID) is None
    assert home.backend.attempts == []


def test_there_is_no_link_whose_path_no_program_could_connect_to(home, a):
    room = SOCKET_PATH_MAX - len("/a-" + ID)
    for length, fits in ((room, True), (room + 1, False)):
        directory = home.directory + "/" + "p" * (length - len(home.directory) - 1)
        os.mkdir(directory)
        home.paths = Paths(home.directory, home.directory, directory)
        home.begin()
        link = home.links.adopt(ID, os.fsdecode(a.path))
        assert (link is not None) is fits
        assert os.listdir(directory) == (["a-" + ID] if fits else [])
        if fits:
            posix.connect(link, 1).close()


@pytest.mark.parametrize("text", ["relative/agent", "/tmp/a\0b", "/" + "x" * SOCKET_PATH_MAX])
def test_what_is_no_path_of_a_socket_is_refused_and_in_a_record_it_is_none(home, text):
    with pytest.raises(UsageError):
        agent_path(text)
    assert home.links.adopt(ID, text) is not None and home.target() is None


def test_a_path_is_bytes_whatever_they_are(home):
    agent = Agent(home.directory, os.fsdecode(b"\xe9\xff caf\xc3\xa9"))
    home.agents.append(agent)
    text = agent.path.decode("utf-8", "surrogateescape")
    assert agent_path(text) == agent.path and agent_path("") == b""
    home.links.adopt(ID, text)
    assert home.target() == agent.path and home.links.describe(ID)["target"] == text


# --- whose agent ----------------------------------------------------------------------------

def test_the_newest_client_wins(home, a, b, c):
    home.links.adopt(ID, os.fsdecode(a.path))
    home.offer("first", b)
    assert home.target() == b.path
    home.offer("second", c)
    assert home.target() == c.path
    home.offer("third", None)
    assert home.target() == c.path


def test_a_client_whose_agent_cannot_be_reached_takes_nothing(home, a, b):
    home.links.adopt(ID, os.fsdecode(a.path))
    b.end()
    home.offer("client", b)
    assert home.target() == a.path
    os.unlink(b.path)
    with open(b.path, "w"):             # nor is everything at such a path an agent
        pass
    home.offer("another", b)
    assert home.target() == a.path


def test_when_its_client_leaves_the_agent_of_one_that_is_there_takes_over(home, a, b, c):
    home.links.adopt(ID, os.fsdecode(a.path))
    home.offer("first", b)
    home.offer("second", c)
    home.links.withdraw(ID, "second")
    assert home.target() == b.path


def test_when_another_client_leaves_nothing_changes(home, a, b, c):
    home.links.adopt(ID, os.fsdecode(a.path))
    home.offer("first", b)
    home.offer("second", c)
    attempts = len(home.backend.attempts)
    home.links.withdraw(ID, "first")
    home.links.withdraw(ID, "who never was there")
    assert home.target() == c.path and len(home.backend.attempts) == attempts


def test_two_clients_with_one_agent_are_two(home, a, b):
    home.links.adopt(ID, os.fsdecode(a.path))
    home.offer("first", b)
    home.offer("second", b)
    home.links.withdraw(ID, "second")
    assert home.target() == b.path
    home.end(b)
    assert home.target() == a.path


def test_who_has_left_leaves_its_agent_until_that_goes_away(home, a, b):
    home.links.adopt(ID, os.fsdecode(a.path))
    home.offer("client", b)
    home.links.withdraw(ID, "client")
    assert home.target() == b.path
    home.end(b)
    assert home.target() == a.path


def test_an_agent_whose_end_could_not_be_noticed_is_not_left_behind(home, a, b):
    home.backend.listener = None        # its process lives, and there is no way to watch it
    home.links.adopt(ID, os.fsdecode(a.path))
    home.offer("client", b)
    assert home.target() == b.path
    home.links.withdraw(ID, "client")
    assert home.target() == a.path


def test_but_it_is_if_there_is_no_other(home, a, b):
    home.backend.listener = None
    home.links.adopt(ID, os.fsdecode(a.path))
    home.offer("client", b)
    home.end(a)
    home.links.withdraw(ID, "client")
    assert home.target() == b.path


def test_an_agent_of_another_user_is_none_but_for_root(home, a, b):
    home.links.adopt(ID, os.fsdecode(a.path))
    for own, peer, is_taken in ((1000, 1001, False), (1000, 1000, True), (1000, 0, True),
                                (0, 1001, True)):
        home.backend.users = {"own": own, "peer": peer}
        home.offer(peer, b)
        assert (home.target() == b.path) is is_taken, (own, peer)
        home.backend.users = {}
        home.links.withdraw(ID, peer)
        home.offer("again", a)
    refused = [fields["uid"] for event, fields in home.events if event == "agent_refused"]
    assert refused and set(refused) == {1001}


# --- an agent's end -------------------------------------------------------------------------

def test_when_an_agent_goes_away_the_next_of_those_that_are_there_takes_over(home, a, b, c):
    home.links.adopt(ID, os.fsdecode(a.path))
    home.offer("first", b)
    home.offer("second", c)
    home.end(c)
    assert home.target() == b.path
    home.end(b)
    assert home.target() == a.path


def test_of_those_that_are_there_the_newest_comes_first(home, a, b, c):
    d = home.agent("d")
    home.links.adopt(ID, os.fsdecode(d.path))
    for agent in (a, b, c):
        home.offer(agent, agent)
    home.end(c)
    assert home.target() == b.path


def test_one_that_died_unnoticed_is_passed_over(home, a, b, c):
    home.links.adopt(ID, os.fsdecode(a.path))
    home.offer("first", b)
    home.offer("second", c)
    b.end()
    home.end(c)
    assert home.target() == a.path


def test_when_none_is_left_the_link_stays_and_the_next_client_brings_it_to_life(home, a, b, c):
    home.links.adopt(ID, os.fsdecode(a.path))
    home.offer("client", b)
    a.end()
    home.end(b)
    assert home.target() == b.path
    home.turn()
    home.offer("another", c)
    assert home.target() == c.path


def test_an_agent_that_comes_again_at_its_path_is_found_by_the_next_event(home, a, b):
    home.links.adopt(ID, os.fsdecode(a.path))
    home.offer("client", b)
    a.end()
    home.end(b)
    a.restart()
    home.offer("another", None)
    assert home.target() == a.path


def test_an_agent_may_die_and_come_again_as_often_as_it_likes(home, a, b):
    home.links.adopt(ID, os.fsdecode(a.path))
    for n in range(10):
        home.offer(n, b)
        assert home.target() == b.path
        home.end(b)
        assert home.target() == a.path, n
        b.restart()


def test_the_same_when_there_is_no_other_alive_in_between(home, a, b):
    home.links.adopt(ID, os.fsdecode(a.path))
    for n in range(10):
        home.offer(n, b)
        a.end()
        home.end(b)
        assert home.target() == b.path
        a.restart(), b.restart()
    home.offer("last", b)
    home.end(b)
    assert home.target() == a.path


def test_several_sessions_with_one_agent_need_one_connection(home, a, b):
    for id_ in (ID, OTHER):
        home.links.adopt(id_, os.fsdecode(a.path))
        home.links.offer(id_, id_, b.path)
    assert b.held() == 1
    home.end(b)
    assert home.target(ID) == home.target(OTHER) == a.path


def test_what_an_agent_says_unasked_wakes_nobody(home, a, b):
    home.links.adopt(ID, os.fsdecode(a.path))
    home.offer("client", b)
    for connection in b.accept():
        try:
            connection.send(b"good morning")
        except BrokenPipeError:
            pass                        # that one was only to see who is there
    home.turn()
    assert home.loop.ready_count == 0 and home.target() == b.path


def test_an_agent_that_closes_idle_connections_stays_and_makes_nobody_spin(home, a, b):
    home.links.adopt(ID, os.fsdecode(a.path))
    home.offer("client", b)
    for _ in range(20):
        b.hang_up()
        home.turn()
    assert home.target() == b.path
    settled = len(home.backend.attempts)
    assert settled < 10
    for _ in range(20):
        b.hang_up()
        home.turn()
        assert home.loop.ready_count == 0
    assert len(home.backend.attempts) == settled
    b.end()
    home.offer("another", None)         # the next event finds out
    assert home.target() == a.path


def test_one_that_closes_them_after_a_while_is_held_on_to_again(home, a, b):
    home.links.adopt(ID, os.fsdecode(a.path))
    home.offer("client", b)
    for _ in range(10):
        home.pass_time(BRIEF_S + 1)
        b.hang_up()
        home.turn()
        assert home.target() == b.path
    home.end(b)
    assert home.target() == a.path


def test_nothing_is_held_or_watched_while_there_is_no_other_agent_to_take(home, a):
    home.links.adopt(ID, os.fsdecode(a.path))
    home.offer("client", a)
    home.offer("another", a)
    home.links.withdraw(ID, "client")
    home.links.withdraw(ID, "another")
    home.links.adopt(OTHER, "")
    home.links.offer(OTHER, "client", a.path)
    assert home.backend.watched == 0


def test_an_agent_is_let_go_of_when_another_takes_its_place(home, a, b, c):
    home.links.adopt(ID, os.fsdecode(a.path))
    home.offer("first", b)
    assert (b.held(), c.held()) == (1, 0)
    home.offer("second", c)
    assert (b.held(), c.held()) == (0, 1)


def test_and_when_there_is_no_other_any_more(home, a, b):
    home.links.adopt(ID, os.fsdecode(a.path))
    home.offer("first", b)
    home.offer("second", a)
    assert (a.held(), b.held()) == (1, 0)
    home.links.withdraw(ID, "first")
    assert (a.held(), b.held()) == (0, 0)


def test_no_descriptor_is_left(home, a, b, c):
    def descriptors():
        for agent in (a, b, c):
            agent.hang_up()             # those are our own
        return open_descriptors(os.getpid())

    before = descriptors()
    for id_ in (ID, OTHER):
        home.links.adopt(id_, os.fsdecode(a.path))
        for n, agent in enumerate((b, c, b)):
            home.links.offer(id_, n, agent.path)
        home.links.withdraw(id_, 2)
    home.end(c)
    home.turn()
    c.restart()
    for id_ in (ID, OTHER):
        home.links.forget(id_)
    assert descriptors() == before


@settings(max_examples=100)
@given(st.lists(st.tuples(st.sampled_from(["come", "come", "return", "leave", "die"]),
                          st.integers(0, 3), st.integers(0, 3)), max_size=25))
def test_as_long_as_an_agent_of_somebody_lives_the_link_leads_to_a_living_one(events):
    with tempfile.TemporaryDirectory(prefix="pg-", dir="/tmp") as directory:
        home = Home(directory)
        agents = [home.agent(str(n)) for n in range(4)]
        living, there = set(range(4)), {}
        home.links.adopt(ID, os.fsdecode(agents[0].path))
        for what, client, agent in events:
            has_come = what == "come" and client not in there
            if what in ("come", "return") and client not in there:
                if agent not in living:
                    agents[agent].restart()
                    living.add(agent)
                home.offer(client, agents[agent], is_return=what == "return")
                there[client] = agent
            elif what == "leave" and client in there:
                home.links.withdraw(ID, client)
                del there[client]
            elif what == "die":
                living.discard(agent)
                home.end(agents[agent])
            if living & ({0} | set(there.values())):
                assert home.target() in {agents[n].path for n in living}
            if has_come:
                assert home.target() == agents[agent].path
        home.close()


# --- another daemon ---------------------------------------------------------------------------

def test_the_next_daemon_takes_over_the_link_as_it_is(home, a, b):
    home.links.adopt(ID, os.fsdecode(a.path))
    home.offer("client", b)
    home.begin()
    home.backend.attempts.clear()
    home.links.adopt(ID, os.fsdecode(a.path))
    assert home.target() == b.path and home.backend.attempts == []


def test_clients_that_come_back_take_nothing_from_each_other(home, a, b, c):
    home.links.adopt(ID, os.fsdecode(a.path))
    home.offer("first", b)
    home.offer("second", c)
    home.begin()
    home.links.adopt(ID, os.fsdecode(a.path))
    home.offer("second", c, is_return=True)
    home.offer("first", b, is_return=True)
    assert home.target() == c.path
    home.pass_time(RETURN_WAIT_S)
    assert home.target() == c.path
    home.end(c)
    assert home.target() == b.path


def test_who_comes_back_replaces_an_agent_that_died_meanwhile(home, a, b, c):
    home.links.adopt(ID, os.fsdecode(a.path))
    home.offer("first", b)
    home.offer("second", c)
    home.begin()
    c.end()
    home.links.adopt(ID, os.fsdecode(a.path))
    home.offer("first", b, is_return=True)
    assert home.target() == b.path


def test_a_client_that_does_not_come_back_has_left(home, a, b, c):
    home.links.adopt(ID, os.fsdecode(a.path))
    home.offer("first", b)
    home.offer("second", c)
    home.begin()
    home.links.adopt(ID, os.fsdecode(a.path))
    home.offer("first", b, is_return=True)
    home.pass_time(RETURN_WAIT_S - 1)
    assert home.target() == c.path
    home.pass_time(1)
    assert home.target() == b.path


def test_the_agent_of_who_did_not_come_back_is_watched_again(home, a, b):
    home.links.adopt(ID, os.fsdecode(a.path))
    home.offer("client", b)
    home.begin()
    home.links.adopt(ID, os.fsdecode(a.path))
    home.pass_time(RETURN_WAIT_S)
    assert home.target() == b.path
    home.end(b)
    assert home.target() == a.path


def test_a_session_removed_before_that_is_not_looked_at(home, a, b):
    home.links.adopt(ID, os.fsdecode(a.path))
    home.offer("client", b)
    home.begin()
    home.links.adopt(ID, os.fsdecode(a.path))
    home.links.forget(ID)
    home.pass_time(RETURN_WAIT_S)
    assert home.target() is None


# --- links on disk ----------------------------------------------------------------------------

def test_a_link_that_a_cleaner_took_is_made_again_when_a_client_comes(home, a, b):
    link = home.links.adopt(ID, os.fsdecode(a.path))
    home.offer("first", b)
    os.unlink(link)
    home.offer("second", None)
    assert home.target() == b.path
    b.end(), home.end(a)
    os.unlink(link)
    home.offer("third", None)
    assert home.target() == b.path, "nobody lives: as it was"


def test_the_link_is_there_at_every_moment(home, a, b):
    link = home.links.adopt(ID, os.fsdecode(a.path))
    missed, is_over = [], threading.Event()

    def look():
        while not is_over.is_set():
            try:
                os.readlink(link)
            except OSError as error:
                missed.append(error)

    looker = threading.Thread(target=look)
    looker.start()
    try:
        for n in range(200):
            home.links.offer(ID, n, (b, a)[n % 2].path)
            a.hang_up(), b.hang_up()
    finally:
        is_over.set()
        looker.join()
    assert not missed
    assert sorted(name for name in os.listdir(home.directory) if name.startswith("a-")) == ["a-" + ID]


def test_a_link_that_cannot_be_made_stops_nobody(home, a, b):
    link = home.links.adopt(ID, os.fsdecode(a.path))
    os.unlink(link)
    os.mkdir(link)                      # in our own directory: only a madman does that
    home.offer("client", b)
    home.links.withdraw(ID, "client")
    assert [event for event, _ in home.events if event == "agent_link_not_made"]
    home.links.forget(ID)
    assert os.path.isdir(link), "what is no link is not ours to remove"
    os.rmdir(link)


def test_a_removed_session_leaves_no_link(home, a):
    home.links.adopt(ID, os.fsdecode(a.path))
    home.links.adopt(OTHER, os.fsdecode(a.path))
    home.links.forget(ID)
    assert home.target(ID) is None and home.target(OTHER) == a.path
    home.offer("client", a)
    assert home.target(ID) is None


def test_links_of_sessions_that_nobody_knows_are_swept_and_nothing_else(home, a):
    home.links.adopt(ID, os.fsdecode(a.path))
    kept = ["a-file", "b-link", "client.sock"]
    for name in ("a-" + OTHER, "a-" + ID + ".0123456789ab", "b-link"):
        os.symlink(a.path, os.path.join(os.fsencode(home.directory), name.encode()))
    for name in ("a-file", "client.sock"):
        with open(os.path.join(home.directory, name), "w"):
            pass
    home.links.sweep([ID])
    assert sorted(os.listdir(home.directory)) == sorted(kept + ["a-" + ID, "a.sock"])


# --- links to links ---------------------------------------------------------------------------

def test_from_within_a_session_comes_that_sessions_link(home, a, b):
    outer = home.links.adopt(ID, os.fsdecode(a.path))
    home.links.adopt(OTHER, "")
    home.links.offer(OTHER, "inside", outer)
    assert home.target(OTHER) == outer
    home.offer("client", b)             # the outer one goes on, and the inner one with it
    assert os.path.realpath(home.paths.agent_link(OTHER)) == os.fsdecode(b.path)


def test_no_link_leads_to_itself(home, a):
    link = home.links.adopt(ID, os.fsdecode(a.path))
    other = home.links.adopt(OTHER, "")
    home.links.offer(ID, "inside itself", link)
    assert home.target(ID) == a.path
    home.links.offer(OTHER, "inside", link)
    home.links.offer(ID, "inside that", other)
    assert home.target(ID) == a.path and home.target(OTHER) == link
    elsewhere = os.path.join(os.fsencode(home.directory), b"elsewhere")
    os.symlink(b"a-" + OTHER.encode(), elsewhere)
    home.links.offer(ID, "by another's link", elsewhere)
    assert home.target(ID) == a.path


def test_a_ring_of_other_links_is_no_agent(home, a):
    home.links.adopt(ID, os.fsdecode(a.path))
    ring = os.path.join(os.fsencode(home.directory), b"ring")
    os.symlink(ring, ring)
    home.links.offer(ID, "client", ring)
    assert home.target() == a.path


# --- what the system says ---------------------------------------------------------------------

LISTEN = """
import os, socket, sys
sock = socket.socket(socket.AF_UNIX)
sock.bind(sys.argv[1])
sock.listen(10)
if sys.argv[2] == "forks" and os.fork():
    os._exit(0)                             # as ssh-agent does: its child serves
print(os.getpid(), flush=True)
kept = []
while True:
    connection, _ = sock.accept()
    if connection.recv(1) == b"":
        print("let go", flush=True)
"""


@pytest.fixture
def listening(home):
    """`listening(how)` starts a process that listens: (path, pid, its output)."""
    started = []

    def start(how):
        path = os.path.join(home.directory, f"listening.{len(started)}")
        process = subprocess.Popen([sys.executable, "-I", "-S", "-c", LISTEN, path, how],
                                   stdout=subprocess.PIPE)
        pid = int(process.stdout.readline())
        started.append((process, pid))
        if how == "forks":
            process.wait(60)
        return os.fsencode(path), pid, process.stdout

    yield start
    for process, pid in started:
        if is_alive(pid):
            os.kill(pid, signal.SIGKILL)
        process.wait(60)
        process.stdout.close()


def kill(pid):
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not is_alive(pid), "its death")


def test_a_connection_comes_at_once_or_not_at_all(home):
    path = os.path.join(os.fsencode(home.directory), b"one")
    assert posix.connect_now(path) is None
    sock = socket.socket(socket.AF_UNIX)
    sock.bind(path)
    assert posix.connect_now(path) is None          # nobody listens yet
    sock.listen(0)
    kept = []
    try:
        while len(kept) < 100:
            connection = posix.connect_now(path)
            if connection is None:
                break                               # no room: it does not wait for any
            assert not connection.getblocking() and not connection.get_inheritable()
            kept.append(connection)
        assert 1 <= len(kept) < 100
    finally:
        for connection in kept + [sock]:
            connection.close()
    assert posix.connect_now(path) is None
    assert posix.connect_now(os.fsencode(home.directory)) is None
    assert posix.connect_now(b"/" + b"x" * 500) is None


@pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="this Python cannot watch a process")
def test_the_end_of_the_process_that_listens_can_be_seen(listening):
    path, pid, _ = listening("stays")
    with posix.connect_now(path) as sock:
        fd = posix.watch_listener(sock)
    poller = posix.make_poller()
    poller.register(fd, 1)
    try:
        assert poller.poll(0) == []
        kill(pid)
        assert poller.poll(60) == [(fd, 1)]
    finally:
        os.close(fd)


def test_of_a_living_listener_that_cannot_be_watched_nothing_is_known(listening, monkeypatch):
    monkeypatch.delattr(os, "pidfd_open", raising=False)
    path, _, _ = listening("stays")
    with posix.connect_now(path) as sock:
        assert posix.watch_listener(sock) is None


def test_a_listener_that_has_left_its_socket_to_a_child_is_gone(listening):
    path, _, _ = listening("forks")
    with posix.connect_now(path) as sock:
        assert posix.watch_listener(sock) == LISTENER_GONE


def test_through_a_login_no_connection_is_held(home, listening, a):
    """sshd listens itself; an open connection would keep the user's ssh from ending."""
    home.backend.watch_listener = posix.watch_listener
    path, pid, output = listening("stays")
    home.links.adopt(ID, os.fsdecode(a.path))
    home.links.offer(ID, "client", path)
    assert home.target() == path
    assert output.readline() == b"let go\n"
    home.links.withdraw(ID, "client")
    if home.target() == path:           # where a process can be watched
        assert output.readline() == b"let go\n"
        kill(pid)
        home.turn()
    assert home.target() == a.path


def test_to_an_agent_that_made_itself_a_daemon_one_is_held(home, listening, a):
    home.backend.watch_listener = posix.watch_listener
    path, pid, _ = listening("forks")
    home.links.adopt(ID, os.fsdecode(a.path))
    home.links.offer(ID, "client", path)
    home.links.withdraw(ID, "client")
    assert home.target() == path
    kill(pid)
    home.turn()
    assert home.target() == a.path


# --- with real agents -------------------------------------------------------------------------

class RealAgent:
    """An ssh-agent with one key, whose comment is the agent's name."""

    def __init__(self, directory, name):
        self.name = name
        self.path = os.path.join(directory, name + ".agent")
        key = os.path.join(directory, name)
        subprocess.run(["ssh-keygen", "-q", "-N", "", "-t", "ed25519", "-C", "key-of-" + name,
                        "-f", key], check=True, stdin=subprocess.DEVNULL)
        told = subprocess.run(["ssh-agent", "-s", "-a", self.path], check=True,
                              stdout=subprocess.PIPE, stdin=subprocess.DEVNULL).stdout
        self.pid = int(re.search(rb"SSH_AGENT_PID=(\d+)", told).group(1))
        subprocess.run(["ssh-add", "-q", key], check=True, stdin=subprocess.DEVNULL,
                       env=dict(os.environ, SSH_AUTH_SOCK=self.path))

    def end(self, signum=signal.SIGKILL):
        if is_alive(self.pid):
            os.kill(self.pid, signum)
            wait_until(lambda: not is_alive(self.pid), "the agent's end")


needs_ssh = pytest.mark.skipif(
    not all(map(shutil.which, ("ssh-agent", "ssh-add", "ssh-keygen"))),
    reason="the OpenSSH client (ssh-agent, ssh-add, ssh-keygen) is not installed")


@pytest.fixture(scope="module")
def shared():
    with World(under=MEMORY) as made:
        made.env.pop("SSH_AUTH_SOCK", None)
        yield made


@pytest.fixture
def world():
    with World(under=MEMORY) as made:
        made.env.pop("SSH_AUTH_SOCK", None)
        yield made


@pytest.fixture
def agents(shared):
    """`agents(name)` starts one."""
    started = []

    def start(name):
        directory = os.path.join(shared.directory, os.urandom(4).hex())
        os.mkdir(directory)
        started.append(RealAgent(directory, name))
        return started[-1]

    yield start
    for agent in started:
        agent.end()


@pytest.fixture
def shells(shared):
    """`shells(agent, option...)` starts a session from a login with that agent."""
    started = []

    def start(agent, *options):
        started.append(Shell(shared, agent, *options))
        return started[-1]

    yield start
    for shell in started:
        shell.close()


def with_agent(world, agent):
    return dict(world.env, SSH_AUTH_SOCK=agent.path) if agent else world.env


class Shell:
    """A session with a shell, in which programs ask for the agent's keys."""

    def __init__(self, world, agent, *options):
        name = world.run("start", *options, "--", "sh", check=0,
                         env=with_agent(world, agent)).stdout.decode().strip()
        self.world = world
        self.name = name
        self.terminals = []

    def close(self):
        """Its clients go away."""
        for terminal in self.terminals:
            terminal.process.kill()
            terminal.process.wait(60)
            terminal.close()

    def ask(self, line):
        """(last line of output, status) of a command in the session."""
        with self.world.connect() as pg:
            session = pg.session(self.name)
            since = session.send(line.encode() + b' 2>&1; echo "<$?>"', enter=True)
            match = session.wait_for(rb"\n([^\n]*)\n<(\d+)>", 60, since=since)
        return match.group(1).decode(), int(match.group(2))

    def keys(self):
        """The names of agents whose keys its programs see."""
        with self.world.connect() as pg:
            session = pg.session(self.name)
            since = session.send(b'ssh-add -l 2>&1; echo "<$?>"', enter=True)
            session.wait_for(rb"<\d+>", 60, since=since)
            _, data = session.read(since)
        return re.findall(r"key-of-(\w+)", data.decode("utf-8", "replace"))

    def comes_to_see(self, agent):
        wait_until(lambda: self.keys() == [agent.name], f"the key of {agent.name}")

    def info(self):
        return self.world.json("info", self.name)

    def attach(self, agent, *words):
        """A terminal with that session in it, from a login with that agent."""
        terminal = self.world.terminal("attach", self.name, *words, env=with_agent(self.world, agent))
        self.terminals.append(terminal)
        wait_until(lambda: terminal.process.pid in [each["pid"] for each in self.info()["viewers"]],
                   "the client")
        return terminal


def detach(terminal):
    terminal.send(b"\x1c")
    assert terminal.wait() == 0


@needs_ssh
def test_the_agent_is_that_of_the_newest_client_and_goes_back_when_it_is_killed(shared, agents, shells):
    a, b = agents("a"), agents("b")
    shell = shells(a)
    assert shell.keys() == ["a"]
    of_a = shell.attach(a)
    of_b = shell.attach(b)
    assert shell.keys() == ["b"]
    assert shell.info()["agent"] == {"link": shared.paths.agent_link(shell.info()["id"]),
                                     "target": b.path}
    b.end()
    shell.comes_to_see(a)
    detach(of_b), detach(of_a)
    assert shell.keys() == ["a"]


@needs_ssh
def test_an_agent_that_ends_politely_is_missed_as_well(agents, shells):
    a, b = agents("a"), agents("b")
    shell = shells(None)
    shell.attach(a)
    shell.attach(b)
    assert shell.keys() == ["b"]
    b.end(signal.SIGTERM)
    shell.comes_to_see(a)


@needs_ssh
def test_detached_and_attached_again_from_elsewhere(agents, shells):
    a, b = agents("a"), agents("b")
    shell = shells(a)
    of_b = shell.attach(b)
    assert shell.keys() == ["b"]
    detach(of_b)
    assert shell.keys() == ["b"], "it lives, and nobody else has come"
    of_a = shell.attach(a)
    assert shell.keys() == ["a"]
    of_b = shell.attach(b)
    of_a.process.kill()
    assert shell.keys() == ["b"]
    detach(of_b)
    b.end()
    shell.comes_to_see(a)


@needs_ssh
def test_when_a_client_is_killed_the_one_that_stays_has_its_agent_again(agents, shells):
    a, b = agents("a"), agents("b")
    shell = shells(None)
    shell.attach(a)
    of_b = shell.attach(b)
    assert shell.keys() == ["b"]
    of_b.process.kill()
    shell.comes_to_see(a)


@needs_ssh
def test_a_session_started_without_an_agent_gets_that_of_the_first_to_attach(agents, shells):
    a = agents("a")
    shell = shells(None)
    assert shell.keys() == [] and shell.ask("ssh-add -l")[1] == 2
    assert shell.info()["agent"]["target"] is None
    shell.attach(a)
    assert shell.keys() == ["a"]


@needs_ssh
def test_who_only_reads_brings_no_agent(agents, shells):
    a, b = agents("a"), agents("b")
    shell = shells(a)
    shell.attach(b, "--read-only")
    assert shell.keys() == ["a"]


@needs_ssh
def test_a_killed_daemon_changes_nothing_and_the_next_one_goes_on(shared, agents, shells):
    a, b = agents("a"), agents("b")
    shell = shells(a)
    clients = [shell.attach(a), shell.attach(b)]
    before = shared.kill_daemon()
    assert shell.keys() == ["b"]
    shared.new_daemon_pid(before)
    wait_until(lambda: len(shell.info()["viewers"]) == 2, "both clients")
    assert shell.keys() == ["b"]
    b.end()
    shell.comes_to_see(a)
    b = agents("bb")
    shell.attach(b)
    assert shell.keys() == ["bb"]
    assert [client.process.poll() for client in clients] == [None, None]


@needs_ssh
def test_an_agent_and_the_daemon_killed_together(shared, agents, shells):
    a, b = agents("a"), agents("b")
    shell = shells(a)
    of_b = shell.attach(b)
    daemon = shared.daemon_pid()
    os.kill(daemon, signal.SIGSTOP)     # so that it is not told of either
    of_b.process.kill()
    b.end()
    os.kill(daemon, signal.SIGKILL)
    shared.new_daemon_pid(daemon)
    shell.comes_to_see(a)


@needs_ssh
def test_the_link_is_the_same_after_restarts_of_daemon_and_session(shared, agents, shells):
    a = agents("a")
    shell = shells(a)
    link = shell.info()["agent"]["link"]
    assert shell.ask("echo $SSH_AUTH_SOCK")[0] == link
    shared.run("daemon", "restart", check=0)
    assert shell.keys() == ["a"] and shell.info()["agent"] == {"link": link, "target": a.path}
    with shared.connect() as pg:
        pg.request("restart", target=shell.name)
    assert shell.keys() == ["a"] and shell.ask("echo $SSH_AUTH_SOCK")[0] == link


@needs_ssh
@pytest.mark.parametrize("options", [["--clean-env"], ["--unset", "SSH_AUTH_SOCK"]])
def test_an_environment_that_is_to_have_no_agent_has_no_link(shared, agents, shells, options):
    a = agents("a")
    shell = shells(a, *options)
    assert shell.ask('echo "${SSH_AUTH_SOCK-none}"')[0] == "none"
    shell.attach(a)
    assert shell.info()["agent"] is None
    assert "a-" + shell.info()["id"] not in links(shared)


@needs_ssh
def test_an_agent_that_was_named_stays_the_one(agents, shells):
    a, b = agents("a"), agents("b")
    shell = shells(a, "--env", "SSH_AUTH_SOCK=" + b.path)
    assert shell.ask("echo $SSH_AUTH_SOCK")[0] == b.path
    shell.attach(a)
    assert shell.keys() == ["b"] and shell.info()["agent"] is None


def links(world):
    return [name for name in os.listdir(world.place) if name.startswith("a-")]


def test_a_link_goes_with_its_session_and_what_a_crash_left_with_the_next_daemon(world):
    world.run("start", "-n", "s", "--", "cat", check=0)
    id_ = world.json("info", "s")["id"]
    with socket.socket(socket.AF_UNIX) as agent:
        path = os.path.join(world.directory, "agent")
        agent.bind(path)
        agent.listen(5)
        world.run("start", "-n", "t", "--", "cat", check=0, env=dict(world.env, SSH_AUTH_SOCK=path))
        assert links(world) == ["a-" + world.json("info", "t")["id"]]
        for name in ("a-" + id_, "a-nobody", "a-nobody.123456789abc"):
            os.symlink(path, os.path.join(world.place, name))
        before = world.kill_daemon()
        world.new_daemon_pid(before)
        world.run("ls", check=0)
        assert sorted(links(world)) == sorted("a-" + world.json("info", n)["id"] for n in "st")
        world.run("rm", "s", "t", check=0)
    assert links(world) == []


def test_a_start_that_fails_leaves_no_link(shared):
    before = links(shared)
    with socket.socket(socket.AF_UNIX) as agent:
        path = os.path.join(shared.directory, "agent of a start")
        agent.bind(path)
        agent.listen(5)
        shared.run("start", "--", "no-such-command", check=127,
                   env=dict(shared.env, SSH_AUTH_SOCK=path))
    assert links(shared) == before


def target_of_a_start(world, value, **options):
    """What the link of a session leads to that was started with that SSH_AUTH_SOCK."""
    name = world.run("start", "--", "cat", check=0, env=dict(world.env, SSH_AUTH_SOCK=value),
                     **options).stdout.decode().strip()
    return world.json("info", name)["agent"]["target"]


def test_a_relative_path_is_from_where_the_client_is(shared):
    assert target_of_a_start(shared, "some/agent", cwd=shared.directory) \
        == os.path.join(shared.directory, "some/agent")


@pytest.mark.parametrize("value, target", [
    ("", None), ("x" * 300, None), ("/nowhere/agent", "/nowhere/agent")])
def test_a_useless_variable_hinders_no_start(shared, value, target):
    assert target_of_a_start(shared, value) == target


def test_info_shows_no_control_sequence_of_an_agents_path(shared):
    shared.run("start", "-n", "colourful", "--", "cat", check=0,
               env=dict(shared.env, SSH_AUTH_SOCK="/nowhere/agent\x1b[31m"))
    told = shared.run("info", "colourful", check=0).stdout
    assert b"agent\\x1b[31m" in told and b"\x1b" not in told


def test_the_python_api_links_an_inherited_environment_only(shared, monkeypatch):
    monkeypatch.setenv("SSH_AUTH_SOCK", "/nowhere/agent")
    with shared.connect() as pg:
        assert pg.start(["cat"]).info()["agent"]["target"] == "/nowhere/agent"
        assert pg.start(["cat"], env={"PATH": os.defpath}).info()["agent"] is None
        named = pg.start(["cat"], env={"PATH": os.defpath}, agent="/elsewhere")
        assert named.info()["agent"]["target"] == "/elsewhere"


def test_a_request_with_a_path_that_can_be_none_is_refused_and_nothing_is_done(shared):
    from ptyguard_core.starting import start_fields
    with shared.connect() as pg:
        before = len(pg.sessions())
        fields = start_fields(posix, ["cat"], env={})
        for path in ("relative", "/x" * 100, "/nul\0", 7, ["/a"]):
            with pytest.raises(UsageError):
                pg.request("start", **dict(fields, agent=path))
        assert len(pg.sessions()) == before
        session = pg.start(["cat"])
        with pytest.raises(UsageError):
            pg.request("attach", target=session.name, interactive=True, agent="relative")
        assert session.info()["viewers"] == []
