"""Names: which are taken, which are refused, what is listed, and when a name is free again."""

import os
import signal

import pytest

from outside import is_alive, wait_until

REFUSED = ["", " ", "\t", "a b", "a\nb", "a/b", "../a", ".", ".hidden", "-a", "a" * 65, "@a", "a:b",
           "a\x1b[31m", "\u00e4", os.fsdecode(b"\xff")]


# -- which -----------------------------------------------------------------------------------------


def test_a_name_that_is_none_is_refused_and_nothing_is_made(fresh):
    for bad in REFUSED:
        done = fresh.run("start", "-n", bad, "--", "cat", code=2)
        assert done.stdout == b"" and done.stderr.startswith(b"ptyguard: "), bad
        assert b"\x1b" not in done.stderr
    for verb in (["run", "-n", "a/b"], ["ensure", "a/b"], ["ensure", " "]):
        fresh.run(*verb, "--", "cat", code=2)
    assert fresh.terminal("attach", ".hidden", "--create", "--", "cat").wait() == 2
    assert fresh.sessions("-a") == {}


def test_a_refusal_tells_the_rule(fresh):
    assert b"1 to 64 characters of A-Z a-z 0-9 . _ -" in fresh.run("start", "-n", "a/b", "--", "cat").stderr


def test_what_cannot_be_a_name_is_nobodys_name(pg, name):
    pg.run("start", "-n", name, "--", "cat", code=0)
    for verb, bad in (("attach", ""), ("info", " "), ("log", "a/b"), ("wait", "../" + name), ("kill", ""),
                      ("detach", name + "/"), ("kill", name + "\n")):
        pg.run(verb, bad, code=3)
    pg.run("rm", " ", code=2)               # it would leave a mark
    assert pg.sessions()[name]["state"] == "running"


def test_names_at_the_edge_of_the_rule_are_taken(pg):
    for good in ("a", "0", "_", "A-Z_a.z-0.9", "x" * 64, "a.", "a-", "con.nul"):
        assert pg.run("start", "-n", good, "--", "true", code=0).stdout == good.encode() + b"\n"
    assert {"a", "A-Z_a.z-0.9", "x" * 64} <= set(pg.sessions("-a"))


def test_only_the_whole_name_is_the_name(pg, name):
    pg.run("start", "-n", name, "--", "cat", code=0)
    for other in (name[:-1], name + "x", name.upper() + "X", name[0]):
        assert pg.run("kill", other, code=3).stdout == b""
    pg.run("has", name, code=0)


# -- listing ---------------------------------------------------------------------------------------


def test_none_one_and_two_are_listed(fresh):
    done = fresh.run("ls", code=0)
    assert done.stdout == b"" and fresh.run("ls", "-q", code=0).stdout == b""
    assert fresh.json("ls") == {"schema_version": 1, "sessions": []}
    fresh.run("start", "-n", "one", "--", "cat", code=0)
    assert fresh.run("ls", "-q", code=0).stdout == b"one\n"
    head, line = fresh.run("ls", code=0).stdout.decode().splitlines()
    assert head.split()[:2] == ["NAME", "STATE"] and line.split()[:2] == ["one", "running"]
    fresh.run("start", "-n", "two", "--", "cat", code=0)
    assert fresh.run("ls", "-q", code=0).stdout == b"one\ntwo\n"
    assert len(fresh.run("ls", code=0).stdout.splitlines()) == 3
    assert set(fresh.sessions()) == {"one", "two"}
    fresh.run("kill", "one", "two", code=0)
    assert {each["state"] for each in fresh.sessions().values()} == {"ended"}
    fresh.run("rm", "one", "two", code=0)
    assert fresh.sessions("-a") == {}


def test_a_session_knows_its_name(pg, name):
    line = 'echo "$PTYGUARD_SESSION"; ptyguard info --json | grep -c "\\"name\\": \\"$PTYGUARD_SESSION\\""'
    assert pg.run("run", "-n", name, "--", "sh", "-c", line, code=0).stdout == name.encode() + b"\r\n1\r\n"


# -- whose -----------------------------------------------------------------------------------------


def test_a_living_name_is_not_given_twice(pg, name):
    pg.run("start", "-n", name, "--", "cat", code=0)
    pid = pg.sessions()[name]["pid"]
    done = pg.run("start", "-n", name, "--", "cat", code=4)
    assert b"session exists: " + name.encode() in done.stderr
    pg.run("run", "-n", name, "--", "something", "else", code=4)
    pg.run("ensure", name, "--", "cat", code=0)
    assert pg.sessions()[name]["pid"] == pid


def test_a_killed_name_can_be_used_at_once_again_and_again(pg, name):
    pids = set()
    for _ in range(3):
        pg.sh('ptyguard start -n "$1" -- cat && ptyguard kill "$1" && ptyguard start -n "$1" -- sleep 1000',
              name, code=0)
        facts = pg.sessions()[name]
        assert facts["state"] == "running" and facts["argv"] == ["sleep", "1000"]
        pids.add(facts["pid"])
        pg.run("kill", name, code=0)
    assert len(pids) == 3


def test_kill_names_those_it_did_not_find_and_ends_the_others(pg, name):
    for each in ("a", "b"):
        pg.run("start", "-n", name + each, "--", "cat", code=0)
    done = pg.run("kill", name + "a", "nobody.has.it", name + "b", code=3)
    assert b"no such session: nobody.has.it" in done.stderr
    assert pg.sessions()[name + "a"]["state"] == pg.sessions()[name + "b"]["state"] == "ended"
    pg.run("kill", code=2)                          # never a default
    pg.run("rm", code=2)


@pytest.mark.parametrize("last", ["kill -9 $$", "exit 3"])
def test_a_session_whose_shell_is_dead_already_can_be_killed_and_killed_again(pg, name, last):
    pg.run("start", "-n", name, "--", "sh", "-c", last, code=0)
    code = pg.run("wait", name).returncode
    assert code in (137, 3)
    for _ in range(2):
        pg.run("kill", name, code=0)
    pg.run("wait", name, code=code)                 # its own end is what is kept
    pg.run("rm", name, code=0)
    assert name not in pg.sessions("-a")


def test_a_shell_that_is_killed_from_outside_leaves_a_session_that_can_be_killed(pg, name):
    # The shell is dead, what it started is not and has the terminal open.
    pg.start(name, "trap '' HUP; sleep 1000 & echo ready $!; wait")
    sleeper = int(pg.log(name).split()[1])
    os.kill(pg.sessions()[name]["pid"], signal.SIGKILL)
    pg.run("wait", name, code=137)
    pg.run("kill", name, code=0)
    pg.run("start", "-n", name, "--", "cat", code=0)
    assert pg.sessions()[name]["state"] == "running"
    if is_alive(sleeper):                           # it ignores hang-ups, and nobody asked for its end
        os.kill(sleeper, signal.SIGKILL)
    wait_until(lambda: not is_alive(sleeper), "the sleeper's end")


def test_kill_ends_the_whole_family_also_those_who_ignore_signals(pg, name):
    pg.start(name, "trap '' HUP TERM INT; sh -c 'trap \"\" HUP TERM; sleep 1000' & sleep 1000 & "
                   "echo ready; jobs -p; wait")
    pg.run("wait", name, "--for", r"ready\s+\d+\s+\d+\s", code=0)
    family = [int(word) for word in pg.log(name).split()[1:]] + [pg.sessions()[name]["pid"]]
    pg.run("kill", "--grace", "500ms", name, code=0)
    assert not any(map(is_alive, family))
