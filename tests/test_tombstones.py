"""`rm` and its tombstones, and kills that are not confirmed (C-701, C-702, C-706)."""

import json
import os
import signal
import subprocess
import types

import pytest
from hypothesis import given, strategies as st

from ptyguard_core import tombstones
from ptyguard_core.destroying import Endings
from ptyguard_core.errors import Busy, SessionDestroyed, StateUnusable
from ptyguard_core.registry import NoRegistry
from ptyguard_core.session import GUARD_LOST_IT, RESTARTED, Session
from ptyguard_core.starting import new_id, start_fields
from ptyguard_core.tombstones import KEEP_S, TombstoneFiles, Tombstones, overdue
from world import LIMIT_S, MEMORY, ROOT, World, is_alive, wait_until

NOW = 1_795_960_927.5


class Yard:
    """A state directory, a clock that stands still, and a log that remembers."""

    def __init__(self, directory):
        self.directory = str(directory)
        self.now = NOW
        self.lines = []

    def open(self):
        files = TombstoneFiles(self.directory, lambda: self.now, lambda: os.urandom(6).hex(), self._log)
        stones = Tombstones(files, lambda: self.now, self._log)
        stones.load()
        return stones

    def _log(self, event, **fields):
        self.lines.append((event, fields))

    def listing(self):
        return sorted(os.listdir(os.path.join(self.directory, "tombstones")))


@pytest.fixture
def yard(tmp_path):
    return Yard(tmp_path)


# -- the room ----------------------------------------------------------------------------------


def test_a_tombstone_is_found_by_name_and_by_id_also_by_the_next_daemon(yard):
    yard.open().add("k3f9", "web")
    for stones in (yard.open(), yard.open()):
        assert stones.find("web") == stones.find("@k3f9") == {"id": "k3f9", "name": "web", "at": NOW}
        assert stones.find("we") is stones.find("k3f9") is stones.find("@web") is None
    assert yard.listing() == ["k3f9.json"]


def test_lifting_frees_the_name_and_never_the_id(yard):
    stones = yard.open()
    stones.add("k3f9", "web")
    stones.lift(["k3f9"])
    for stones in (stones, yard.open()):
        assert stones.find("web") is None and stones.find("@k3f9")["name"] is None
        assert list(stones.names()) == []


def test_of_a_name_that_nobody_had_nothing_is_left_when_it_is_lifted(yard):
    stones = yard.open()
    stones.add("k3f9", "web", is_made_up=True)
    yard.open().lift(["k3f9"])
    assert yard.listing() == []


def test_a_tombstone_is_kept_for_thirty_days(yard):
    yard.open().add("k3f9", "web")
    yard.now += KEEP_S
    assert yard.open().find("web")
    yard.now += 1
    assert yard.open().find("web") is None
    assert yard.listing() == []


def test_one_that_is_past_its_keeping_is_not_found_though_no_daemon_starts(yard):
    stones = yard.open()
    stones.add("k3f9", "web")
    yard.now += KEEP_S + 1
    assert stones.find("web") is None and yard.listing() == []


def test_beyond_the_most_that_are_kept_the_oldest_goes(yard, monkeypatch):
    monkeypatch.setattr(tombstones, "KEEP_COUNT", 2)
    monkeypatch.setattr(overdue, "__defaults__", (KEEP_S, 2))
    stones = yard.open()
    for number in range(3):
        yard.now += 1
        stones.add(f"id{number}0", f"name{number}")
    assert yard.listing() == ["id10.json", "id20.json"]
    assert stones.find("name0") is None and stones.find("name2")


@pytest.mark.parametrize("data", [b"", b"[]", b'{"id": "bad1"}', b'{"id": "bad1", "at": "x"}',
                                  b'{"id": "bad1", "at": 1, "name": "-x"}', b'{"id": "other", "at": 1}'])
def test_a_bad_file_is_set_aside_and_costs_that_one_only(yard, data):
    yard.open().add("good", "web")
    path = os.path.join(yard.directory, "tombstones", "bad1.json")
    with open(path, "wb") as file:
        file.write(data)
    assert set(yard.open().all()) == {"good"}
    assert not os.path.exists(path)
    assert [name for name in yard.listing() if name.startswith("bad1.json.corrupt-")]
    assert "record_set_aside" in [event for event, _ in yard.lines]


def test_what_cannot_be_written_does_not_stand(yard):
    stones = Tombstones(NoRegistry(StateUnusable("full")), lambda: NOW, yard._log)
    stones.load()
    with pytest.raises(StateUnusable, match="full"):
        stones.add("k3f9", "web")
    assert stones.find("web") is None and stones.find("@k3f9") is None


_ids = st.sampled_from(["aaaa", "bbbb", "cccc"])
_names = st.sampled_from([None, "one", "two"])


@given(st.lists(st.one_of(st.tuples(st.just("add"), _ids, _names), st.tuples(st.just("lift"), _ids),
                          st.tuples(st.just("remove"), _ids), st.tuples(st.just("pass"), st.integers(1, 40)))))
def test_memory_and_disk_agree_whatever_happens(steps):
    import tempfile
    with tempfile.TemporaryDirectory(dir=MEMORY) as directory:
        yard = Yard(directory)
        stones, expected = yard.open(), {}
        for step, *words in steps:
            if step == "add":
                expected[words[0]] = (words[1], yard.now)
                stones.add(*words)
            elif step == "lift":
                stones.lift(words)
                if words[0] in expected:
                    expected[words[0]] = (None, expected[words[0]][1])
            elif step == "remove":
                stones.remove(words[0])
                expected.pop(words[0], None)
            else:
                yard.now += words[0] * 86400
                stones.sweep()
            expected = {id_: (name, at) for id_, (name, at) in expected.items()
                        if yard.now <= at + KEEP_S}
            for each in (stones, yard.open()):
                assert {id_: (stone["name"], stone["at"]) for id_, stone in each.all().items()} == expected
                assert set(each.names()) == {name for name, _ in expected.values() if name}
                for name in ("one", "two"):
                    assert each.ids_of(name) == {id_ for id_, (n, _) in expected.items() if n == name}


# -- what is destroyed ------------------------------------------------------------------------


def destroy(world, pg, name):
    """A session that was, and is destroyed; its id."""
    session = pg.start(["sleep", "1000"], name)
    assert world.run("rm", name, check=0).stderr == b""
    assert not is_alive(session.facts["pid"])
    return session.id


def stones_of(world):
    """The tombstones on disk, by id."""
    directory = os.path.join(world.state, "tombstones")
    found = {}
    for entry in os.listdir(directory):
        with open(os.path.join(directory, entry)) as file:
            found[entry[:-len(".json")]] = json.load(file)
    return found


REFERENCES = [
    ["attach"], ["log"], ["wait"], ["info"], ["detach"], ["restart"], ["kill"],
    ["send", "--enter"], ["ensure"],
]


@pytest.fixture(scope="module")
def gone(world, pg):
    """A name that is destroyed, and its id."""
    return "gone", destroy(world, pg, "gone")


@pytest.mark.parametrize("words", REFERENCES, ids=" ".join)
def test_what_only_refers_to_a_destroyed_name_is_refused_and_makes_nothing(world, pg, gone, words):
    done = world.run(*words, gone[0], check=5)
    assert done.stderr.startswith(b"ptyguard: session was destroyed: gone")
    assert not [s for s in pg.sessions() if s.name == "gone"]


def test_an_rm_that_is_asked_again_waits_for_the_first_and_the_name_is_marked(world, pg, tmp_path):
    """It was taken for one of an id that nobody has: the mark that it left had no name."""
    log = tmp_path / "log"
    session = pg.start(["sh", "-c", "trap '' HUP TERM; echo ready; while :; do sleep 0.1; done"], "twice",
                       log=str(log))
    session.wait_for(b"ready")
    several = [world.popen("rm", target, stdout=subprocess.DEVNULL)
               for target in ("@" + session.facts["id"], "twice", "@" + session.facts["id"])]
    assert [process.wait(LIMIT_S) for process in several] == [0, 0, 0]
    assert log.read_bytes() == b"ready\r\n"
    world.run("ensure", "twice", "--", "true", check=5)
    folder = os.path.join(world.state, "tombstones")
    with open(os.path.join(folder, session.facts["id"] + ".json"), encoding="utf-8") as file:
        assert json.load(file)["name"] == "twice"


def test_so_is_an_attach_that_would_create_it(world, gone):
    terminal = world.terminal("attach", "--create", gone[0])
    terminal.expect(rb"ptyguard: session was destroyed: gone")
    assert terminal.wait() == 5


@pytest.mark.parametrize("words", [
    ["run", "-n", "gone", "--", "true"], ["new", "-A", "-n", "gone"], ["key", "gone", "Enter"],
    ["resize", "gone", "80x24"], ["rename", "gone", "other"]], ids=lambda words: words[0])
def test_so_is_what_names_it_among_other_words(world, pg, gone, words):
    terminal = world.terminal(*words)
    terminal.expect(rb"session was destroyed: gone")
    assert terminal.wait() == 5
    assert not [s for s in pg.sessions() if s.name in ("gone", "other")]


def test_the_id_is_refused_too_and_json_tells_the_kind(world, gone):
    error = json.loads(world.run("info", "@" + gone[1], "--json", check=5).stderr)["error"]
    assert error["kind"] == "destroyed" and error["message"] == "session was destroyed: @" + gone[1]
    hint = json.loads(world.run("log", "gone", check=5).stderr
                      and world.run("info", "gone", "--json", check=5).stderr)["error"]["hint"]
    assert hint == "ptyguard start -n gone makes a new one"


def test_a_destroyed_session_does_not_live(world, gone):
    assert world.run("has", gone[0], check=1).stderr == b""


def test_the_api_says_destroyed_which_is_a_kind_of_not_there(pg, gone):
    with pytest.raises(SessionDestroyed):
        pg.session(gone[0])
    with pytest.raises(SessionDestroyed):
        pg.ensure(gone[0], ["true"])


def test_no_session_takes_a_destroyed_name_by_a_rename(world, pg, gone, name):
    session = pg.start(["sleep", "1000"], name)
    world.run("rename", name, gone[0], check=5)
    assert session.info()["name"] == name


def test_a_name_that_we_make_up_is_never_a_destroyed_one(world, pg):
    destroy(world, pg, "sleep")
    made = [world.run(*words, "--", "sleep", "1000", check=0).stdout.decode().strip()
            for words in (["start"], ["start", "--json"])]
    assert made[0] == "sleep-2" and json.loads(made[1])["name"] == "sleep-3"
    world.run("run", "--", "sleep", "0", check=0)
    world.run("info", "sleep", check=5)


@pytest.mark.parametrize("words", [["start"], ["new", "-d"], ["run", "-d"]], ids=" ".join)
def test_an_explicit_start_lifts_it_for_a_new_id(world, pg, name, words):
    old = destroy(world, pg, name)
    world.run(*words, "-n", name, "--", "sleep", "1000", check=0)
    new = world.json("info", name)["id"]
    assert new != old
    world.run("ensure", name, check=0)
    world.run("info", "@" + old, check=5)
    world.kill_daemon()
    assert world.json("info", name)["id"] == new
    pg.session(name).kill(0)
    world.run("log", name, check=0)             # ended, and not destroyed


def test_a_start_that_fails_lifts_nothing(world, pg, name):
    destroy(world, pg, name)
    world.run("start", "-n", name, "--", "/no/such/program", check=127)
    world.run("ensure", name, "--", "true", check=5)


def test_rm_again_and_again_is_fine(world, pg, name):
    id_ = destroy(world, pg, name)
    for target in (name, "@" + id_, name):
        assert world.run("rm", target, check=0).stderr == b""
    assert [stone["name"] for id_, stone in stones_of(world).items() if stone["name"] == name] == [name]


def test_what_nobody_knows_is_destroyed_with_a_warning(world, pg, name):
    pg.start(["sleep", "1000"], name)
    near = name[:-1]
    done = world.run("rm", near, check=0)
    assert f"no such session: {near} (did you mean {name}?)".encode() in done.stderr
    world.run("ensure", near, "--", "true", check=5)
    id_ = new_id()
    assert b"no such session: @" in world.run("rm", "@" + id_, check=0).stderr
    world.run("info", "@" + id_, check=5)
    assert pg.session(name).is_living


@pytest.mark.parametrize("bad", ["a/b", "", "@x", "@../../../x", ".x", "x" * 65])
def test_what_can_be_nobodys_name_is_a_usage_error_and_leaves_nothing(world, bad):
    world.run("status", check=None)
    before = stones_of(world)
    world.run("rm", "--", bad, check=2)
    assert stones_of(world) == before


def test_several_names_have_a_result_each(world, pg, name):
    pg.start(["sleep", "1000"], name)
    unknown = name[-50:] + ".no"
    done = world.run("rm", name, "a/b", unknown, "--json", check=2)
    results = json.loads(done.stdout)["results"]
    assert [(r["name"], r["error"] and r["error"]["kind"]) for r in results] == [
        (name, None), ("a/b", "usage"), (unknown, None)]
    assert results[0]["known"] and results[0]["exit"]["signal"] and not results[2]["known"]
    for each in (name, unknown):
        world.run("info", each, check=5)


def test_without_a_tombstone_the_name_is_free(world, pg, name):
    pg.start(["sleep", "1000"], name)
    world.run("rm", "--no-tombstone", name, check=0)
    world.run("info", name, check=3)
    assert b"no such session" in world.run("rm", "--no-tombstone", name, check=0).stderr
    world.run("ensure", name, "--", "sleep", "1000", check=0)


def test_what_goes_by_itself_leaves_no_tombstone():
    with World(under=MEMORY, PTYGUARD_KEEP_COUNT="2") as world:
        world.run("run", "--rm", "-n", "rm", "--", "true", check=0)
        world.run("start", "-n", "ttl", "--ttl", "0", "--", "true", check=0)
        for number in range(3):                             # the first expires
            world.run("run", "-n", f"s{number}", "--", "true", check=0)
        wait_until(lambda: len(world.json("ls", "-a")["sessions"]) == 2, "the expiry")
        world.run("prune", check=0)
        world.run("rm", "--ended", check=0)
        assert world.json("ls", "-a")["sessions"] == []
        assert stones_of(world) == {}
        for name in ("rm", "ttl", "s0", "s2"):
            world.run("info", name, check=3)


def test_tombstones_outlive_daemon_guard_and_a_stop():
    with World(under=MEMORY) as world:
        with world.connect() as pg:
            destroy(world, pg, "x")
        world.kill_daemon()
        world.run("info", "x", check=5)
        world.kill_guard()
        world.run("info", "x", check=5)
        world.run("daemon", "stop", check=0)
        world.run("ensure", "x", "--", "true", check=5)


def test_an_old_tombstone_is_swept_at_a_start():
    with World(under=MEMORY) as world:
        with world.connect() as pg:
            id_ = destroy(world, pg, "x")
        world.run("daemon", "stop", check=0)
        path = os.path.join(world.state, "tombstones", id_ + ".json")
        with open(path, "w") as file:
            json.dump({"id": id_, "name": "x", "at": NOW - 400 * 86400}, file)
        world.run("info", "x", check=3)
        assert not os.path.exists(path)


def test_without_a_place_for_its_tombstone_a_session_is_not_forgotten():
    with World(under=MEMORY) as world, world.connect() as pg:
        pg.start(["sleep", "1000"], "x")
        directory = os.path.join(world.state, "tombstones")
        os.rmdir(directory)
        open(directory, "w").close()
        assert b"tombstones" in world.run("rm", "x", check=1).stderr
        assert pg.session("x").facts["state"] == "ended"
        world.run("rm", "x", "--no-tombstone", check=0)
        world.run("info", "x", check=3)


# -- races and deaths -------------------------------------------------------------------------


def test_whoever_wins_a_race_of_rm_and_ensure_nothing_lives_after_rm():
    with World(under=MEMORY) as world, world.connect() as pg:
        for number in range(5):
            name = f"x{number}"
            pg.start(["sleep", "1000"], name)
            callers = [world.popen("ensure", name, "--", "sleep", "1000", stderr=subprocess.DEVNULL,
                                   stdout=subprocess.DEVNULL) for _ in range(4)]
            remover = world.popen("rm", name)
            assert remover.wait(LIMIT_S) == 0
            assert {caller.wait(LIMIT_S) for caller in callers} <= {0, 5}
            world.run("ensure", name, "--", "sleep", "1000", check=5)
        assert not pg.sessions()


def test_a_race_of_rm_and_start_leaves_one_of_both():
    with World(under=MEMORY) as world, world.connect() as pg:
        old = pg.start(["sleep", "1000"], "x")
        for _ in range(5):
            starters = [world.popen("start", "-n", "x", "--", "sleep", "1000", stderr=subprocess.DEVNULL,
                                    stdout=subprocess.DEVNULL) for _ in range(3)]
            remover = world.popen("rm", "x", stderr=subprocess.DEVNULL)
            assert remover.wait(LIMIT_S) == 0
            codes = [starter.wait(LIMIT_S) for starter in starters]
            assert set(codes) <= {0, 4}
            living = [s for s in pg.sessions() if s.is_living]
            assert len(living) <= 1 and old.id not in [s.id for s in living]
            world.run("info", "@" + old.id, check=5)
            # It lives, and is not destroyed; or it was destroyed, and nothing lives.
            world.run("info", "x", check=0 if living else 5)
            old = living[0] if living else pg.start(["sleep", "1000"], "x")


def test_regression_06_a_racing_start_does_not_bring_back_what_was_destroyed(world, pg, name):
    fields = dict(start_fields(__import__("ptyguard_posix"), ["sleep", "1000"]), name=name)
    with pg.open_channel("test") as channel:
        started = channel.ask("start", **fields)
        # It used to be that the start, once it had worked, lifted the tombstone of the very
        # session; and that the start asked again (its answer was lost) began it anew.
        removed = channel.ask("rm", target=name)
        channel.await_reply(started, LIMIT_S)
        assert channel.await_reply(removed, LIMIT_S)["known"]
        with pytest.raises(SessionDestroyed):
            channel.request("start", **fields)
    world.run("ensure", name, "--", "true", check=5)
    # An explicit start takes the name: for a new id, and for that only.
    new = pg.start(["sleep", "1000"], name)
    with pg.open_channel("test") as channel, pytest.raises(SessionDestroyed):
        channel.request("start", **dict(fields, name=name[-50:] + ".b"))
    pg.remove("@" + fields["id_wanted"])        # nor does rm of the old id touch the new one
    assert pg.session(name).id == new.id and new.info()["state"] == "running"


class Clerk:
    """As much of a daemon as the endings see; what it has noted with the guard is `noted`."""

    def __init__(self, **record):
        self.session = Session(dict({"id": "k3f9", "name": "web", "state": "running"}, **record))
        self.sessions = {"k3f9": self.session}
        self.logs = self.restarts = self.relaunches = self
        self.written, self.noted, self.kills = [], [], []
        self.backend = types.SimpleNamespace(boot_id=lambda: "boot-a")
        self.tombstones = types.SimpleNamespace(find=lambda _target: None, ids_of=lambda _name: [],
                                                lift=lambda ids: list(ids))
        self.endings = Endings(self)

    def note_ending(self, session):
        self.noted.append(session.ending)

    def when_written(self, _session, act):
        self.written.append(act)

    def cancel(self, _session):
        """Nothing is being restarted."""

    def reap(self, _session, act):
        """Nothing lives on of it."""
        act(None)

    def is_killing(self, _session):
        return False

    def kill(self, _session, grace_s, act, takes_orphans, _seen):
        self.kills.append((grace_s, takes_orphans, act))


def test_what_came_back_while_it_was_being_destroyed_is_left_alone_by_the_next_daemon_too():
    """It was told that it lives, and the next daemon destroyed it all the same."""
    clerk = Clerk(state="ended")
    told = []
    clerk.endings.destroy(clerk.session, told.append)
    assert clerk.noted[-1]["destroy"]
    clerk.session.happen(RESTARTED)
    clerk.written.pop()()
    assert isinstance(told[0], Busy)
    assert clerk.noted[-1] is None and not clerk.endings.is_destroyed("web")


@pytest.mark.parametrize("what", ["kill", "destroy"])
def test_of_an_ending_that_could_not_be_begun_nothing_is_left_for_the_next_daemon(what):
    clerk = Clerk()

    def fails(*_):
        raise OSError(24, "no descriptor")

    clerk.kill = fails
    with pytest.raises(OSError):
        clerk.endings.kill(clerk.session, 1.0, None) if what == "kill" else \
            clerk.endings.destroy(clerk.session, None)
    assert clerk.noted[0] and clerk.noted[-1] is None and not clerk.endings.is_destroyed("web")


def test_a_plain_kill_is_gone_on_with_by_the_next_daemon_with_its_grace():
    first = Clerk()
    first.endings.kill(first.session, 8.0, None)
    second = Clerk()
    second.session.ending = first.noted[-1]
    second.session.record["created_at"] = NOW
    second.endings.adopt(second.session)
    (grace_s, takes_orphans, done), = second.kills
    assert (grace_s, takes_orphans) == (8.0, False)
    done(None)
    assert second.noted[-1] is None


def test_one_that_has_ended_meanwhile_has_nothing_left_of_its_kill():
    clerk = Clerk(created_at=NOW)
    clerk.session.ending = {"kill": True, "grace": 8.0}
    clerk.session.happen(GUARD_LOST_IT)
    clerk.endings.adopt(clerk.session)
    assert not clerk.kills and clerk.noted == [None]


STUBBORN = ["sh", "-c", "trap '' HUP TERM; echo up; while :; do sleep 1000; done"]


def test_a_restart_that_comes_after_rm_is_refused_though_its_program_still_lives(world, pg, name):
    session = pg.start(STUBBORN, name)
    session.wait_for(rb"up", LIMIT_S)
    with pg.open_channel("test") as channel:
        removed = channel.ask("rm", target=name)
        with pytest.raises(SessionDestroyed):
            channel.request("restart", target=name)
        assert channel.await_reply(removed, LIMIT_S)["known"]
    world.run("info", name, check=5)


def test_a_kill_outlives_its_client_and_the_daemon():
    """The program lived on: only what `rm` wanted was noted."""
    with World(under=MEMORY) as world, world.connect() as pg:
        session = pg.start(STUBBORN, "x")
        session.wait_for(rb"up", LIMIT_S)
        killer = world.popen("kill", "x", "--grace", "8")
        begun = f"kill_begun session={session.id} name=x grace_s=8"
        wait_until(lambda: begun in world.log(), "the kill")
        killer.kill()
        world.kill_daemon()
        wait_until(lambda: not is_alive(session.facts["pid"]), "its end")
        wait_until(lambda: session.info()["state"] == "ended", "its end as it is told")
        assert world.log().count(begun) == 2
        session.restart(0)
        world.kill_daemon()
        assert session.info()["state"] == "running"         # that kill is over


# A real daemon, changed as its second argument says.
_CHANGED = f"""
import os, signal, sys
sys.path.insert(0, {ROOT!r})
import ptyguard_posix
from ptyguard_core import daemon, destroying, tree
root, settings = sys.argv[2], dict(word.partition("=")[::2] for word in sys.argv[3:])
destroying.KILL_AGAIN_S = float(settings.get("kill-again", 300))
destroying.GRACE_S = 0.0
tree.KILL_ROUNDS_S = (0.0, 0.5)

def kills_before(owner, name, flag):
    '''Die at the call of that function, once, when there is such a file.'''
    whole = getattr(owner, name)
    def changed(*args, **options):
        try:
            os.unlink(os.path.join(os.path.dirname(root), flag))
        except FileNotFoundError:
            return whole(*args, **options)
        os.kill(os.getpid(), signal.SIGKILL)
    setattr(owner, name, changed)

kills_before(destroying.Endings, "_on_torn_down", "die.at-confirmation")
kills_before(destroying.Endings, "mark", "die.before-tombstone")
kills_before(daemon.Daemon, "forget", "die.before-forget")
kills_before(destroying.Endings, "_finish", "die.before-reply")

signal_process = ptyguard_posix.signal_process
def spares(pid, start, number):
    '''Whose pid stands in the file `spared` cannot be signalled.'''
    try:
        with open(os.path.join(os.path.dirname(root), "spared")) as file:
            if number and str(pid) in file.read().split():
                return True
    except FileNotFoundError:
        pass
    return signal_process(pid, start, number)
ptyguard_posix.signal_process = spares
sys.exit(daemon.main(ptyguard_posix, sys.argv[2:], sys.argv[0]))
"""


class Changed:
    """A world whose daemons can be made to die, or to fail to kill."""

    def __init__(self, world):
        self.world = world
        self.program = os.path.join(world.directory, "changed.py")
        with open(self.program, "w") as file:
            file.write(_CHANGED)

    def put(self, name, text=""):
        with open(os.path.join(self.world.directory, name), "w") as file:
            file.write(text)

    def take(self, name):
        os.unlink(os.path.join(self.world.directory, name))

    def has(self, name):
        return os.path.exists(os.path.join(self.world.directory, name))


POINTS = ["at-confirmation", "before-tombstone", "before-forget", "before-reply"]


@pytest.mark.parametrize("point", POINTS)
def test_a_daemon_killed_in_the_middle_of_rm_costs_its_caller_nothing(point):
    with World(under=MEMORY) as world:
        changed = Changed(world)
        with world.guard_with(changed.program), world.connect() as pg:
            session = pg.start(["sleep", "1000"], "x")
            changed.put("die." + point)
            world.run("rm", "x", check=0)
            assert not changed.has("die." + point)
            world.run("ensure", "x", "--", "true", check=5)
            assert not pg.sessions() and not is_alive(session.facts["pid"])
            assert [stone["name"] for stone in stones_of(world).values()] == ["x"]
            assert not os.listdir(os.path.join(world.state, "sessions"))


@pytest.mark.parametrize("point", POINTS[:3])
def test_what_was_begun_is_finished_by_the_next_daemon_though_nobody_asks_again(point):
    with World(under=MEMORY) as world:
        changed = Changed(world)
        with world.guard_with(changed.program), world.connect() as pg:
            pg.start(["sleep", "1000"], "x")
            other = pg.start(["sleep", "1000"], "y")
            daemon = world.daemon_pid()
            changed.put("die." + point)
            channel = pg.open_channel("test")
            channel.ask("rm", target="x")
            wait_until(lambda: not is_alive(daemon), "the daemon's death")
            channel.close()
            wait_until(lambda: world.run("info", "x").returncode == 5, "its destruction")
            assert [s.id for s in pg.sessions()] == [other.id]
            assert not [entry for entry in os.listdir(os.path.join(world.state, "sessions"))
                        if not entry.startswith(other.id)]


def test_regression_05_a_teardown_that_fails_leaves_a_session_that_can_be_used():
    with World(under=MEMORY) as world:
        changed = Changed(world)
        with world.guard_with(changed.program), world.connect() as pg:
            session = pg.start(["cat"], "x")
            changed.put("spared", str(session.facts["pid"]))
            # It used to be that the tombstone stood by now.
            done = world.run("rm", "x", check=1)
            assert b"session x could not be ended" in done.stderr
            assert stones_of(world) == {}
            session.send(b"still here", enter=True)
            session.wait_for(rb"still here\n.*still here", LIMIT_S)
            pending = world.json("info", "x")["kill_pending"]
            assert pending["survivors"] == [session.facts["pid"]] and pending["destroy"]
            assert b"not confirmed" in world.run("info", "x", check=0).stdout
            # ... also by the next daemon, and with the ending remembered on disk.
            world.kill_daemon()
            assert world.json("info", "x")["kill_pending"]["destroy"]
            with open(os.path.join(world.state, "sessions", session.id + ".json")) as file:
                assert json.load(file)["kill_pending"]["destroy"]
            changed.take("spared")
            world.run("rm", "x", check=0)
            world.run("info", "x", check=5)


@pytest.mark.parametrize("verb", ["rm", "kill"])
@pytest.mark.parametrize("daemons", [1, 2])
def test_a_kill_that_was_not_confirmed_is_tried_again_until_it_is(verb, daemons):
    with World(under=MEMORY) as world:
        changed = Changed(world)
        with world.guard_with(changed.program, "kill-again=0.2"), world.connect() as pg:
            session = pg.start(["sleep", "1000"], "x")
            changed.put("spared", str(session.facts["pid"]))
            world.run(*([verb, "x"] if verb == "rm" else [verb, "x", "--grace", "0"]), check=1)
            if daemons == 2:
                world.kill_daemon()
            wait_until(lambda: world.log().count("kill_again") >= 2, "two attempts")
            assert session.info()["state"] == "running"
            changed.take("spared")
            wait_until(lambda: not is_alive(session.facts["pid"]), "its end")
            if verb == "rm":
                wait_until(lambda: world.run("info", "x").returncode == 5, "its destruction")
            else:
                wait_until(lambda: session.info()["kill_pending"] is None, "the confirmation")
                assert session.facts["state"] == "ended" and stones_of(world) == {}


def test_who_outlived_an_ended_sessions_kill_is_found_again():
    with World(under=MEMORY) as world:
        changed = Changed(world)
        with world.guard_with(changed.program, "kill-again=0.2"), world.connect() as pg:
            # A grandchild in a session of its own, which only its having been seen ties to us.
            session = pg.start(["sh", "-c", "setsid sleep 1000 & echo pid $!; wait"], "x")
            child = int(session.wait_for(rb"pid (\d+)", LIMIT_S).group(1))
            wait_until(lambda: os.getsid(child) == child, "its own session")
            changed.put("spared", str(child))
            world.run("kill", "x", "--grace", "0", check=1)
            assert session.info()["state"] == "ended"
            assert session.facts["kill_pending"]["survivors"] == [child]
            world.kill_daemon()
            assert session.info()["kill_pending"]["survivors"] == [child]
            world.run("prune", check=0)
            changed.take("spared")
            wait_until(lambda: not is_alive(child), "its end")
            wait_until(lambda: session.info()["kill_pending"] is None, "the confirmation")


def test_a_restart_that_works_has_nobody_killed_later():
    with World(under=MEMORY) as world:
        changed = Changed(world)
        with world.guard_with(changed.program, "kill-again=0.2"), world.connect() as pg:
            session = pg.start(["sleep", "1000"], "x")
            changed.put("spared", str(session.facts["pid"]))
            world.run("kill", "x", "--grace", "0", check=1)
            os.kill(session.facts["pid"], signal.SIGKILL)
            session.restart(0)
            changed.take("spared")
            facts = session.info()
            assert facts["kill_pending"] is None and facts["state"] == "running"
            tried = world.log().count("kill_again")
            world.run("start", "-n", "y", "--", "sleep", "1000", check=0)
            changed.put("spared", str(pg.session("y").facts["pid"]))
            world.run("kill", "y", "--grace", "0", check=1)
            wait_until(lambda: world.log().count("kill_again") >= tried + 3, "others' attempts")
            assert is_alive(facts["pid"])
