"""`reconcile`: an authority's list against what is here (C-703, C-704)."""

import json
import os
import subprocess

import pytest
from hypothesis import given, strategies as st

from ptyguard_core.reconcile import DEAD_LEAST, DROP, KEEP, LIFT, Item, reconcile
from ptyguard_core.registry import STATES
from test_tombstones import Changed, stones_of
from world import LIMIT_S, MEMORY, World, is_alive, wait_until

NOW = 1000.0


def a_record(name="x", **fields):
    return dict({"id": f"id-of-{name}", "name": name, "state": "running", "created_at": 1.0}, **fields)


def held(**fields):
    return dict({"clients": 0, "leader": 7, "foreground": 7, "active_at": 0.0}, **fields)


def by_id(*records):
    return {record["id"]: record for record in records}


# -- the plan ---------------------------------------------------------------------------------

ONE = [
    # fields of the record, of what is held, the list -> action, reason
    ({}, {}, (), DROP, "is not in the list"),
    ({}, {}, ("other",), DROP, "is not in the list"),
    ({}, {}, ("x",), KEEP, "is in the list"),
    ({}, {}, ("@id-of-x",), KEEP, "is in the list"),
    ({}, {}, ("id-of-x", "X", "xx"), DROP, "is not in the list"),
    ({}, {"clients": 2}, (), KEEP, "2 attached"),
    ({}, {"foreground": 8}, (), KEEP, "process group 8 is in the foreground"),
    ({}, {"foreground": None}, (), KEEP, "its foreground program is not known"),
    ({}, {"active_at": NOW - 59.9}, (), KEEP, "active 60 s ago"),
    ({}, {"active_at": NOW - 60}, (), DROP, "is not in the list"),
    ({}, {"active_at": NOW + 5}, (), KEEP, "active 0 s ago"),
    ({}, None, (), KEEP, "is running: nothing is known of it"),
    ({"state": "starting"}, {}, (), KEEP, "is starting: nothing is known of it"),
    ({"state": "draining"}, {}, (), KEEP, "is draining: nothing is known of it"),
    ({"state": "quarantined"}, {}, (), KEEP, "is quarantined: nothing is known of it"),
    ({"state": "ended"}, None, (), KEEP, "has ended: it is kept as others are"),
    ({"state": "lost"}, None, (), KEEP, "has ended: it is kept as others are"),
    ({"state": "failed"}, None, (), KEEP, "has ended: it is kept as others are"),
]


@pytest.mark.parametrize("fields, facts, live, action, reason", ONE)
def test_of_one_session(fields, facts, live, action, reason):
    records = by_id(a_record(**fields))
    facts = {} if facts is None else {"id-of-x": held(**facts)}
    plan = reconcile(records, facts, {}, frozenset(live), NOW)
    assert plan == ([Item("x", "id-of-x", action, reason)], True)


def test_the_table_has_every_state():
    assert {fields.get("state", "running") for fields, *_ in ONE} == set(STATES)


@pytest.mark.parametrize("idle_s, action", [(0.0, DROP), (10.0, DROP), (10.1, KEEP), (3600.0, KEEP)])
def test_how_long_quiet_is_idle_is_the_callers_word(idle_s, action):
    plan = reconcile(by_id(a_record()), {"id-of-x": held(active_at=NOW - 10)}, {}, frozenset(), NOW, idle_s)
    assert [item.action for item in plan.items] == [action]


def test_tombstones_of_names_in_the_list_are_lifted_and_no_others():
    stones = by_id({"id": "aaaa", "name": "x", "at": 1.0}, {"id": "bbbb", "name": "y", "at": 1.0},
                   {"id": "cccc", "name": None, "at": 1.0}, {"id": "dddd", "name": None, "at": 1.0})
    plan = reconcile({}, {}, stones, frozenset(["x", "@cccc", "new"]), NOW)
    assert plan.items == [Item("x", "aaaa", LIFT, "is in the list"),
                          Item(None, "cccc", LIFT, "is in the list")]


@pytest.mark.parametrize("dead, living, is_conclusive", [
    (0, 0, True), (4, 4, True), (5, 5, False), (5, 9, False), (5, 10, True), (6, 10, False),
    (4, 7, True), (50, 100, True), (51, 100, False)])
def test_many_that_look_dead_at_once_make_a_pass_inconclusive(dead, living, is_conclusive):
    names = [f"s{number}" for number in range(living)]
    records = by_id(*map(a_record, names), a_record("over", state="ended"))
    facts = {f"id-of-{name}": held() for name in names}
    stones = by_id({"id": "aaaa", "name": "y", "at": 1.0})
    plan = reconcile(records, facts, stones, frozenset(names[dead:] + ["y"]), NOW)
    assert plan.is_conclusive == is_conclusive
    actions = [item.action for item in plan.items]
    if is_conclusive:
        assert actions.count(DROP) == dead and actions.count(LIFT) == 1
    else:
        assert set(actions) == {KEEP}
        assert f"{dead} of {living} look dead at once" in plan.items[0].reason


def test_those_in_use_look_dead_as_well():
    # The list is what is doubted: that it lacks a session in use makes it no better.
    names = [f"s{number}" for number in range(6)]
    facts = {f"id-of-{name}": held(clients=1) for name in names[:4]}
    facts.update((f"id-of-{name}", held()) for name in names[4:])
    assert not reconcile(by_id(*map(a_record, names)), facts, {}, frozenset(), NOW).is_conclusive


_sessions = st.dictionaries(st.sampled_from([f"s{n}" for n in range(12)]), st.tuples(
    st.sampled_from(STATES), st.integers(0, 1), st.sampled_from([7, 7, 7, 8, None]),
    st.sampled_from([0.0, 0.0, 0.0, NOW - 1])))
_live = st.frozensets(st.sampled_from([f"s{n}" for n in range(14)] + ["@id-of-s1"]))


@given(_sessions, _live, st.sets(st.sampled_from([f"s{n}" for n in range(14)])))
def test_nothing_that_is_listed_or_used_or_over_is_ever_dropped(sessions, live, buried):
    records = by_id(*(a_record(name, state=facts[0]) for name, facts in sessions.items()))
    facts = {f"id-of-{name}": held(clients=clients, foreground=foreground, active_at=active_at)
             for name, (_, clients, foreground, active_at) in sessions.items()}
    stones = by_id(*({"id": f"t-{name}", "name": name, "at": 1.0} for name in buried))
    plan = reconcile(records, facts, stones, live, NOW)
    told = [item for item in plan.items if item.action != LIFT]
    assert sorted(item.id for item in told) == sorted(records)          # each is told once
    for item in told:
        state, clients, foreground, active_at = sessions[item.name]
        is_idle = state == "running" and not clients and foreground == 7 and active_at == 0.0
        is_listed = item.name in live or "@" + item.id in live
        assert (item.action == DROP) == (plan.is_conclusive and is_idle and not is_listed)
        assert item.reason
    dead = [name for name, facts in sessions.items()
            if facts[0] in ("starting", "running", "draining", "quarantined")
            and name not in live and f"@id-of-{name}" not in live]
    living = [name for name, facts in sessions.items()
              if facts[0] in ("starting", "running", "draining", "quarantined")]
    assert plan.is_conclusive == (len(dead) < DEAD_LEAST or 2 * len(dead) <= len(living))
    lifted = {item.name for item in plan.items if item.action == LIFT}
    assert lifted == (buried & live if plan.is_conclusive else set())


# -- with real sessions -----------------------------------------------------------------------


def actions(told):
    return {item["name"]: item["action"] for item in told["items"]}


def quiet(pg, name, argv=("sh", "-c", "echo ready; exec sleep 1000")):
    session = pg.start(list(argv), name)
    session.wait_for(b"ready", LIMIT_S)
    return session


def test_what_is_not_listed_goes_and_is_destroyed_and_what_is_listed_comes_back():
    with World(under=MEMORY) as world, world.connect() as pg:
        stays, goes = quiet(pg, "stays"), quiet(pg, "goes")
        over = pg.start(["true"], "over")
        over.wait(LIMIT_S)
        world.run("rm", "wanted", "other", check=0)
        rehearsed = world.json("reconcile", "--live", "stays", "wanted", "--idle", "0", "--dry-run")
        assert rehearsed["dry_run"] and goes.info()["state"] == "running"
        world.run("ensure", "wanted", check=5)
        told = world.json("reconcile", "--live", "stays", "wanted", "--idle", "0")
        assert not told["dry_run"] and not told["inconclusive"] and told["items"] == rehearsed["items"]
        assert actions(told) == {"stays": KEEP, "goes": DROP, "over": KEEP, "wanted": LIFT}
        assert [item["id"] for item in told["items"]][:2] == [stays.id, goes.id]
        assert not is_alive(goes.facts["pid"]) and is_alive(stays.facts["pid"])
        world.run("ensure", "goes", check=5)
        world.run("ensure", "other", check=5)
        world.run("wait", "over", check=0)
        world.run("ensure", "wanted", "--", "sleep", "1000", check=0)
        # The same again finds nothing more to do.
        again = actions(world.json("reconcile", "--live", "stays", "--live=wanted", "--idle", "0"))
        assert again == {"stays": KEEP, "over": KEEP, "wanted": KEEP}


def test_who_is_used_stays():
    with World(under=MEMORY) as world, world.connect() as pg:
        quiet(pg, "attached")
        terminal = world.terminal("attach", "attached")
        terminal.expect(b"ready")
        shell = pg.start(["sh", "-i"], "busy", env=dict(os.environ, PS1="ready$ "))
        shell.send(b"sleep 1000", enter=True)
        wait_until(lambda: shell.info()["foreground"]["busy"], "its foreground program")
        followed = quiet(pg, "followed")
        log = world.popen("log", "-f", "followed", stdout=subprocess.PIPE)
        wait_until(lambda: followed.info()["viewers"], "its reader")
        told = world.json("reconcile", "--live", "nobody", "--idle", "0")
        assert set(actions(told).values()) == {KEEP}
        reasons = {item["name"]: item["reason"] for item in told["items"]}
        assert "attached" in reasons["attached"] and "foreground" in reasons["busy"]
        log.kill()
        wait_until(lambda: not followed.info()["viewers"], "its leaving")
        assert actions(world.json("reconcile", "--live", "nobody", "--idle", "0")) == {
            "attached": KEEP, "busy": KEEP, "followed": DROP}


def test_output_and_input_are_activity_and_so_is_a_daemons_beginning():
    with World(under=MEMORY) as world, world.connect() as pg:
        session = quiet(pg, "x", ["sh", "-c", "stty -echo; echo ready; while read x; do :; done"])
        for reason in ("its start", "input", "a new daemon"):
            if reason == "input":
                session.send(b"something", enter=True)
            elif reason == "a new daemon":
                world.kill_daemon()
            told = world.json("reconcile", "--live", "y")["items"]
            assert [item["action"] for item in told] == [KEEP]
            assert told[0]["reason"].startswith("active ")
        world.run("reconcile", "--live", "y", "--idle", "1h", check=0)
        assert session.info()["state"] == "running"


def test_regression_27_an_authority_that_knows_nobody_ends_nobody():
    with World(under=MEMORY) as world, world.connect() as pg:
        sessions = [quiet(pg, f"s{number}") for number in range(6)]
        world.run("rm", "gone", check=0)
        assert b"names no session" in world.run("reconcile", "--live-file", os.devnull, "--idle", "0",
                                                check=1).stderr
        done = world.run("reconcile", "--live", "nobody.here", "--idle", "0", "--json", check=1)
        told = json.loads(done.stdout)
        assert told["inconclusive"] and set(actions(told).values()) == {KEEP}
        assert b"inconclusive" in done.stderr
        # It used to be that they were all ended by now.
        assert all(session.info()["state"] == "running" for session in sessions)
        world.run("reconcile", "--live", "gone", "--idle", "0", check=1)
        world.run("ensure", "gone", check=5)                # nor is anything lifted
        # With half of them listed it is believed.
        told = world.json("reconcile", "--live", "s0", "s1", "s2", "--idle", "0")
        assert sorted(actions(told).values()) == [DROP] * 3 + [KEEP] * 3
        assert [s.name for s in pg.sessions()] == ["s0", "s1", "s2"]


def test_one_that_cannot_be_ended_is_told_and_the_others_have_their_turn():
    with World(under=MEMORY) as world:
        changed = Changed(world)
        with world.guard_with(changed.program, "kill-again=0.2"), world.connect() as pg:
            sessions = [quiet(pg, name) for name in ("a", "b", "c")]
            changed.put("spared", str(sessions[1].facts["pid"]))
            done = world.run("reconcile", "--live", "z", "--idle", "0", "--json", check=1)
            told = json.loads(done.stdout)
            assert actions(told) == {"a": DROP, "b": "failed", "c": DROP}
            assert "could not be ended" in told["items"][1]["reason"]
            assert sorted(stone["name"] for stone in stones_of(world).values()) == ["a", "c"]
            assert sessions[1].info()["kill_pending"]["destroy"]
            changed.take("spared")
            wait_until(lambda: world.run("info", "b").returncode == 5, "its destruction")


def test_a_list_comes_from_a_file_or_from_standard_input(tmp_path):
    path = tmp_path / "list"
    path.write_bytes(b"# wanted\n\n  one \r\ntwo\n")
    with World(under=MEMORY) as world, world.connect() as pg:
        one, two, three = (quiet(pg, name) for name in ("one", "two", "three"))
        told = world.json("reconcile", "--live-file", str(path), "--idle", "0", "--dry-run")
        assert actions(told) == {"one": KEEP, "two": KEEP, "three": DROP}
        done = world.run("reconcile", "--live-file", "-", "--idle", "0",
                         input=f"@{two.id}\n@{three.id}\n".encode(), check=0)
        assert done.stdout.decode().split("\n")[0] == f"drop   one @{one.id}: is not in the list"
        assert sorted(s.name for s in pg.sessions()) == ["three", "two"]


@pytest.mark.parametrize("data", [b"<html>\n<body>503</body>\n", b"one\n\xff\n", b"one two\n", b"@x\n"])
def test_a_list_that_is_none_is_refused_whole(world, pg, name, tmp_path, data):
    session = pg.start(["sleep", "1000"], name)
    path = tmp_path / "list"
    path.write_bytes(data)
    world.run("reconcile", "--live-file", str(path), "--idle", "0", check=2)
    assert b"cannot read" in world.run("reconcile", "--live-file", str(path) + ".no", check=1).stderr
    assert session.info()["state"] == "running"


def test_a_daemon_killed_in_the_middle_of_a_pass_costs_its_caller_nothing():
    with World(under=MEMORY) as world:
        changed = Changed(world)
        with world.guard_with(changed.program), world.connect() as pg:
            for name in ("a", "b"):
                quiet(pg, name)
            changed.put("die.before-tombstone")
            world.run("reconcile", "--live", "z", "--idle", "0", check=0)
            assert not changed.has("die.before-tombstone")
            wait_until(lambda: not pg.sessions(), "their end")
            assert sorted(stone["name"] for stone in stones_of(world).values()) == ["a", "b"]


def test_the_api_does_the_same(tmp_path):
    with World(under=MEMORY) as other, other.connect() as client:
        quiet(client, "a")
        empty = tmp_path / "empty"
        empty.write_text("# nothing\n")
        done = other.run("reconcile", "--live-file", str(empty), "--idle", "0", check=1)
        assert b"names no session" in done.stderr       # of whoever asks by program it is taken
        told = client.reconcile([], idle_s=0)
        assert told["items"][0]["action"] == DROP and not told["inconclusive"]
