"""Names, labels, keeping, titles, sizes and ways to attach: what one asks of sessions."""

import json
import subprocess

import pytest
from hypothesis import given, strategies as st

from ptyguard_core.painting import tail_painted
from ptyguard_core.errors import PtyguardError, SessionExists
from ptyguard_core.terminal import TITLE_LEAST_BYTES, LookBudget, Newlines, TitleFinder
from world import LIMIT_S, MEMORY, World, wait_until

DETACH = b"\x1c"
# Tells the size that it is given, whenever that changes.
SIZES = "stty -echo; trap 'stty size' WINCH; echo ready; while :; do read x && echo got $x; done"


def start(pg, name, line="echo ready; exec sleep 1000", **options):
    session = pg.start(["sh", "-c", line], name, **options)
    session.wait_for(b"ready", LIMIT_S)
    return session


def size_is(session, cols, rows):
    wait_until(lambda: session.info()["size"] == {"cols": cols, "rows": rows}, f"{cols}x{rows}")


def attach(world, session, *words, size=(80, 24)):
    terminal = world.terminal("attach", session.name, *words, size=size)
    wait_until(lambda: any(v["pid"] == terminal.process.pid for v in session.info()["viewers"])
               or terminal.process.poll() is not None, "the client")
    assert terminal.process.poll() is None, terminal.output
    return terminal


def leave(terminal):
    terminal.send(DETACH)
    assert terminal.wait() == 0


# -- rename ------------------------------------------------------------------------------------


def test_a_renamed_session_answers_to_the_new_name_only(world, pg, name):
    session = start(pg, name)
    new = name[-50:] + ".new"
    told = json.loads(world.run("rename", name, new, "--json", check=0).stdout)
    assert told["name"] == new and told["id"] == session.id
    world.run("has", new, check=0)
    world.run("has", name, check=1)
    world.kill_daemon()
    assert pg.session(new).facts["id"] == session.id


def test_inside_a_renamed_session_its_id_still_finds_it(world, pg, name):
    session = start(pg, name, f"echo ready; read x; {_program(world)} info --json; read x")
    world.run("rename", name, name[-50:] + ".new", check=0)
    session.send(b"", enter=True)
    told = session.wait_for(rb'"name": "([^"]+)"', LIMIT_S)
    assert told.group(1).endswith(b".new")
    session.kill()


def _program(world):
    import shlex
    return " ".join(map(shlex.quote, world.program))


def test_an_attached_client_learns_the_new_name(world, pg, name):
    session = start(pg, name)
    terminal = attach(world, session)
    world.run("rename", name, name[-50:] + ".new", check=0)
    leave(terminal)
    assert f"[detached (from session {name[-50:]}.new)]".encode() in terminal.output


def test_a_name_that_is_kept_by_another_is_refused_living_or_ended(world, pg, name):
    session, other = start(pg, name), start(pg, name[-50:] + ".other")
    assert b"session exists" in world.run("rename", name, other.name, check=4).stderr
    other.kill()
    assert b"session exists" in world.run("rename", name, other.name, check=4).stderr
    world.run("rm", "--no-tombstone", other.name, check=0)
    world.run("rename", name, other.name, check=0)
    assert pg.session(other.name).id == session.id
    world.run("rename", other.name, other.name, check=0)


@pytest.mark.parametrize("bad", ["", ".x", "-x", "a b", "a/b", "x" * 65])
def test_a_name_that_is_none_is_refused_and_the_old_one_stays(world, pg, name, bad):
    start(pg, name)
    world.run("rename", name, "--", bad, check=2)
    world.run("has", name, check=0)


# -- labels, ttl, prune ------------------------------------------------------------------------


def test_labels_are_told_and_outlive_the_daemon(world, pg, name):
    world.run("start", "-n", name, "--label", "job=42", "--label", "why=a=b", "--", "sleep", "1000",
              check=0)
    world.kill_daemon()
    assert world.json("info", name)["labels"] == {"job": "42", "why": "a=b"}
    assert b"job=42 why=a=b" in world.run("info", name, check=0).stdout


@pytest.mark.parametrize("bad", ["nothing", "=v", "k" * 257 + "=v", "k=" + "v" * 257])
def test_a_label_that_is_none_is_a_usage_error(world, name, bad):
    world.run("start", "-n", name, "--label", bad, "--", "true", check=2)
    world.run("info", name, check=3)


def test_a_session_is_forgotten_when_its_time_after_the_end_is_over(world, pg, name):
    world.run("start", "-n", name, "--ttl", "500ms", "--", "true", check=0)
    assert world.json("info", name)["ttl"] == 0.5
    wait_until(lambda: world.run("info", name).returncode == 3, "its being forgotten")
    # ... and not before its end.
    living = name[-50:] + ".on"
    world.run("start", "-n", living, "--ttl", "0", "--", "sleep", "1000", check=0)
    world.run("prune", check=0)
    world.run("has", living, check=0)


def test_prune_says_what_goes_and_what_would():
    with World(under=MEMORY, PTYGUARD_KEEP_COUNT="2", PTYGUARD_MAX_SESSIONS="50") as world:
        for n in range(2):
            world.run("run", "-n", f"s{n}", "--", "true", check=0)
        assert world.run("prune", "--dry-run", check=0).stdout == b""
        world.run("start", "-n", "last", "--", "true", check=0)
        wait_until(lambda: len(world.json("ls", "-a")["sessions"]) == 2, "the oldest to go")
        assert [s["name"] for s in world.json("ls", "-a")["sessions"]] == ["s1", "last"]
        assert json.loads(world.run("prune", "--json", check=0).stdout)["sessions"] == []


def test_of_much_kept_output_the_oldest_goes_first_and_the_statuses_stay():
    with World(under=MEMORY, PTYGUARD_KEEP_OUTPUT="300000") as world:
        for n in range(3):
            world.run("run", "-n", f"s{n}", "--", "sh", "-c", f"head -c 140000 /dev/zero; exit {n}", check=n)
        kept = wait_until(lambda: _kept(world), "the oldest output to go")
        assert kept == {"s0": None, "s1": 140000, "s2": 140000}
        world.run("wait", "s0", check=0)
        world.run("wait", "s2", check=2)
        assert b"not kept any more" in world.run("log", "s0", check=1).stderr


def _kept(world):
    ends = {s["name"]: s["offsets"] and s["offsets"]["end"] for s in world.json("ls", "-a")["sessions"]}
    return ends if None in ends.values() else None


def test_a_setting_that_is_no_number_starts_nothing():
    with World(under=MEMORY, PTYGUARD_KEEP_COUNT="many") as world:
        assert b"PTYGUARD_KEEP_COUNT" in world.run("start", "--", "true", check=2).stderr
        assert world.json("status")["state"] == "stopped"


# -- titles ------------------------------------------------------------------------------------


class Output:
    """Output of a session, its titles looked for; counts how much of it is looked at."""

    def __init__(self, kept=1 << 30):
        self.data = bytearray()
        self.looked = 0
        self._kept = kept
        self._titles = TitleFinder()

    def _read(self, offset, count):
        assert max(0, len(self.data) - self._kept) <= offset and offset + count <= len(self.data)
        self.looked += count
        return bytes(self.data[offset:offset + count])

    def title(self, budget=1 << 30):
        start = max(0, len(self.data) - self._kept)
        return self._titles.look(self._read, start, len(self.data), LookBudget(budget))


def test_the_last_title_is_found_whatever_was_looked_at_before():
    output = Output()
    assert output.title() is None
    output.data += b"x\x1b]0;one\x07y\x1b]2;two\x1b\\z\x1b]1;icon\x07"
    assert output.title() == b"two"
    output.data += b"\x1b]0;thr"
    assert output.title() == b"two"
    output.data += b"ee\x07" + b"." * 2000
    assert output.title() == b"three"
    output.data += b"." * 200000
    assert output.title() == b"three"
    output.data += b"\x1bc"
    assert output.title() == b"three"       # RIS leaves it alone, as xterm does, and screen.py


def test_a_title_is_found_however_much_output_follows_it():
    output = Output()
    output.data += b"." * 100000 + b"\x1b]2;old\x1b\\" + b"." * 1000000
    assert output.title() == b"old"


@given(st.lists(st.tuples(st.sampled_from([b"\x1b]0;a\x07", b"\x1b]2;bb\x1b\\", b"\x1b]2;" + b"c" * 900 + b"\x07",
                                           b"\x1b]0;cut", b"\x1b", b"text \x1b[m", b"." * 70000, b"." * 20000]),
                          st.sampled_from([None, 0, 1, 50000, 1 << 30]), st.integers(1, 5))))
def test_titles_split_anywhere_and_looked_for_in_any_steps_are_those_of_the_whole(pieces):
    output = Output()
    for piece, budget, part in pieces:
        cut = len(piece) // part
        for half in (piece[:cut], piece[cut:]):
            output.data += half
            if budget is not None:
                output.title(budget)
    whole = Output()
    whole.data += output.data
    for _ in range(2 + len(output.data) // TITLE_LEAST_BYTES):
        found = output.title(0)         # however little there is for it, it gets there
    assert found == whole.title()


def test_what_was_looked_at_is_not_looked_at_again():
    output = Output()
    for _ in range(20):
        output.data += b"some text without a title\r\n" * 2000
        output.title()
    assert output.looked < len(output.data) + 20 * 3000
    looked = output.looked
    output.title()
    assert output.looked == looked


def test_what_is_asked_for_many_is_bounded_and_the_newest_of_each_is_looked_at():
    budget = LookBudget(100000)
    outputs = [Output() for _ in range(20)]
    for number, output in enumerate(outputs):
        output.data += b"." * 500000 + b"\x1b]2;%d\x07" % number + b"." * 10000
        assert output._titles.look(output._read, 0, len(output.data), budget) == b"%d" % number
    assert sum(output.looked for output in outputs) < 100000 + 20 * (TITLE_LEAST_BYTES + 70000)
    assert all(output.looked < 100000 for output in outputs)


def test_what_has_left_the_ring_is_not_asked_for():
    output = Output(kept=50000)
    for number in range(50):
        output.data += b"." * 40000
        assert output.title(0) is None
    output.data += b"\x1b]2;last\x07"
    assert output.title(0) == b"last" and len(output._titles._unseen) == 0


def test_a_title_of_another_incarnation_is_not_told_of_this_one():
    output = Output()
    output.data += b"." * 100 + b"\x1b]2;before\x07"
    assert output.title() == b"before"
    output.data[:] = b"anew"
    assert output.title() is None


def test_a_title_that_much_output_followed_shows(world, pg, name):
    start(pg, name, r"printf '\033]2;far back\033\\'; head -c 300000 /dev/zero | tr '\0' x; echo ready; sleep 1000")
    assert world.json("info", name)["title"] == "far back"
    shown = next(s for s in world.json("ls")["sessions"] if s["name"] == name)
    assert shown["title"] == "far back"


def test_a_title_shows_and_cannot_act_on_the_users_terminal(world, pg, name):
    start(pg, name, r"printf '\033]0;bad\001\302\233mood \033]2;the \377 title\a'; echo ready; sleep 1000")
    assert world.json("info", name)["title"] == "the \udcff title"
    for verb in (["ls"], ["info", name]):
        shown = world.run(*verb, check=0).stdout
        assert b"the \\udcff title" in shown and b"\x1b" not in shown


# -- sizes -------------------------------------------------------------------------------------


def test_latest_is_the_size_of_who_came_or_typed_last(world, pg, name):
    session = start(pg, name, SIZES)
    one = attach(world, session, size=(100, 30))
    size_is(session, 100, 30)
    two = attach(world, session, size=(60, 20))
    size_is(session, 60, 20)
    one.send(b"x\r")
    size_is(session, 100, 30)
    leave(one)
    size_is(session, 60, 20)
    leave(two)


@pytest.mark.parametrize("policy, both", [("largest", (50, 60)), ("smallest", (100, 20))])
def test_largest_and_smallest_are_one_clients_size_never_a_mix(world, pg, name, policy, both):
    session = start(pg, name, SIZES, size_policy=policy)
    one = attach(world, session, size=(100, 20))
    size_is(session, 100, 20)
    two = attach(world, session, size=(50, 60))
    size_is(session, *both)
    one.send(b"x\r")
    session.wait_for(b"got x", LIMIT_S)
    size_is(session, *both)
    one.resize(30, 10)              # the terminal's window is another one now
    size_is(session, *{"largest": (50, 60), "smallest": (30, 10)}[policy])
    leave(two)
    size_is(session, 30, 10)
    leave(one)


def test_fixed_is_changed_by_resize_only(world, pg, name):
    session = start(pg, name, SIZES, size_policy="fixed", size=(90, 33))
    terminal = attach(world, session, size=(100, 30))
    terminal.send(b"x\r")
    session.wait_for(b"got x", LIMIT_S)
    assert session.info()["size"] == {"cols": 90, "rows": 33}
    world.run("resize", name, "70x22", check=0)
    session.wait_for(b"22 70", LIMIT_S)
    leave(terminal)
    assert session.info()["size"] == {"cols": 70, "rows": 22}


def test_who_only_reads_never_sets_the_size(world, pg, name):
    session = start(pg, name, SIZES, size_policy="largest", size=(80, 24))
    reader = attach(world, session, "-r", size=(200, 60))
    assert session.info()["size"] == {"cols": 80, "rows": 24}
    leave(reader)


def test_an_unknown_policy_is_a_usage_error(world, name):
    world.run("start", "-n", name, "--size-policy", "biggest", "--", "true", check=2)


# -- ways to attach ----------------------------------------------------------------------------


def test_steal_sends_the_others_away(world, pg, name):
    session = start(pg, name)
    first = attach(world, session)
    reader = attach(world, session, "-r")
    thief = attach(world, session, "--steal")
    assert first.wait() == 0 and reader.wait() == 0
    assert b"[detached (from session" in first.output
    wait_until(lambda: len(session.info()["viewers"]) == 1, "the thief alone")
    leave(thief)


def test_restore_none_shows_nothing_old_and_tail_the_last_lines(world, pg, name):
    session = start(pg, name, "for i in 1 2 3 4 5 6; do echo line $i; done; echo ready; "
                              "while read x; do echo got $x; done")
    nothing = attach(world, session, "--restore", "none")
    nothing.send(b"a\r")
    nothing.expect(b"got a")
    assert b"line" not in nothing.output and b"ready" not in nothing.output
    leave(nothing)
    tail = attach(world, session, "--restore", "tail:3")
    tail.send(b"b\r")
    tail.expect(b"got b")
    assert b"line" not in tail.output and b"ready" in tail.output and b"got a" in tail.output
    leave(tail)
    whole = attach(world, session, "--restore", "screen")
    whole.expect(b"line 1.*line 6.*ready.*got b")
    leave(whole)


@pytest.mark.parametrize("bad", ["all", "tail", "tail:", "tail:x", "tail:-1", ""])
def test_no_other_way_to_restore_is_known(world, name, bad):
    assert world.run("attach", name, f"--restore={bad}").returncode == 2


HISTORY = b"\x1b[?2004hone\r\n\x1b[31mtwo\r\nthree \x1b[6nfour\r\nfive"


@pytest.mark.parametrize("lines, shown", [
    (0, b""), (1, b"five"), (2, b"three four\r\nfive"), (3, b"\x1b[31mtwo\r\nthree four\r\nfive")])
def test_some_lines_are_painted_in_the_modes_that_hold_there(lines, shown):
    painted = tail_painted({}, HISTORY, len(HISTORY), lines)
    assert painted.endswith(shown) and painted[:len(painted) - len(shown)].count(b"\n") == 0
    assert b"\x1b[?2004h" in painted and b"\x1b[6n" not in painted


def test_more_lines_than_there_are_is_all_of_them():
    assert tail_painted({}, b"a\r\nb\r\n", 6, 99) == b"a\r\nb\r\n"


def test_newlines_split_anywhere_are_the_same():
    data = b"a\r\nb\rc\r\r\n\n\r"
    for at in range(len(data) + 1):
        newlines = Newlines()
        assert newlines.feed(data[:at]) + newlines.feed(data[at:]) + newlines.flush() == b"a\nb\rc\r\n\n\r"


# -- new, as in tmux ---------------------------------------------------------------------------


def test_new_starts_and_attaches_and_refuses_a_name_that_lives(world, pg, name):
    terminal = world.terminal("new", "-s", name, "sh", "-c", "echo ready; read x; exit 5")
    terminal.expect(b"ready")
    refused = world.terminal("new", "-s", name, "true")
    assert refused.wait() == 4
    second = world.terminal("new", "-A", "-s", name)
    second.expect(b"ready")
    leave(second)
    terminal.send(b"x\r")
    assert terminal.wait() == 5


def test_new_without_a_terminal_starts_nothing_unless_detached(world, name):
    assert b"new -d" in world.run("new", "-s", name, "--", "true", check=125).stderr
    world.run("info", name, check=3)
    assert world.run("new-session", "-d", "-s", name, "--", "sleep", "1000", check=0).stdout == \
        name.encode() + b"\n"


# -- wait for several --------------------------------------------------------------------------


def test_wait_of_several_is_the_first_status_that_is_not_0_in_the_order_of_arguments(world, pg, name):
    names = [f"{name[-50:]}.{n}" for n in range(3)]
    for one, code in zip(names, (0, 7, 3)):
        pg.start(["sh", "-c", f"exit {code}"], one)
    assert world.run("wait", *names).returncode == 7
    assert world.run("wait", *reversed(names)).returncode == 3
    told = json.loads(world.run("wait", *names, "--json", check=7).stdout)
    assert [each["exit"]["code"] for each in told["results"]] == [0, 7, 3]


def test_wait_for_a_text_in_several_sessions_wants_it_in_each(world, pg, name):
    names = [f"{name[-50:]}.{n}" for n in range(2)]
    sessions = [start(pg, one, "echo ready; read x; echo up $x; sleep 1000") for one in names]
    waiting = world.popen("wait", *names, "--for", r"up \w", "--json", stdout=subprocess.PIPE)
    sessions[1].send(b"b", enter=True)
    sessions[1].wait_for(b"up b", LIMIT_S)
    assert waiting.poll() is None
    sessions[0].send(b"a", enter=True)
    out, _ = waiting.communicate(timeout=LIMIT_S)
    assert [each["matched"] for each in json.loads(out)["results"]] == ["up a", "up b"]


def test_wait_for_a_text_and_then_silence(world, pg, name):
    session = start(pg, name, "echo ready; read x; i=0; while [ $i -lt 20 ]; do echo busy; sleep 0.05; "
                              "i=$((i+1)); done; echo over; sleep 1000")
    waiting = world.popen("wait", name, "--for", "busy", "--idle", "1s")
    session.send(b"", enter=True)
    assert waiting.wait(LIMIT_S) == 0
    assert b"over" in session.read()[1]


def test_a_wait_whose_time_is_over_names_the_session_and_kills_nobody(world, pg, name):
    session = start(pg, name)
    done = world.run("wait", name, "--for", "never", "--timeout", "100ms", check=124)
    assert name.encode() in done.stderr
    assert session.info()["state"] == "running"


# -- joining a start ---------------------------------------------------------------------------


def test_the_python_api_has_these_too(pg, name):
    session = pg.start(["cat"], name, labels={"a": "b"}, ttl=60.0, size_policy="fixed")
    assert session.info()["labels"] == {"a": "b"} and session.facts["ttl"] == 60.0
    with pytest.raises(SessionExists):
        pg.start(["cat"], name)
    with pytest.raises(PtyguardError):
        pg.start(["cat"], None, labels={"": "x"})
    session.kill()

