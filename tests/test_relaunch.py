"""Programs that are started again by their policy, after an end and after a loss (C-705)."""

import json
import os
import random
import signal
import stat
import subprocess
import threading
import types

import pytest
from hypothesis import given, strategies as st

from ptyguard_core import restartpolicy
from ptyguard_core.daemon import Daemon
from ptyguard_core.errors import StateUnusable, UsageError
from ptyguard_core.registry import REASON_REBOOT, shape_fault
from ptyguard_core.relaunching import LAUNCH_FIELDS, LaunchFiles, Relaunches, notice_text
from ptyguard_core.restartpolicy import (AGAIN, ALWAYS, FAILED, FAILURE, LOSS, NEVER, ON_FAILURE,
                                         ON_REBOOT, OVER, SUCCESS, Decision, Policy, backoff_s,
                                         cause_of, decide, parse_policy, policy_in)
from ptyguard_core.ring import CAPACITY_MIN, WINDOW_BYTES, Ring, memory_bytes
from ptyguard_core.session import DRAINED, CHILD_EXITED, Session
from world import LIMIT_S, MEMORY, World, is_alive, wait_until

NOW = 1_795_960_927.5


# -- the arithmetic ------------------------------------------------------------------------------

@pytest.mark.parametrize("text, policy", [
    ("never", Policy(NEVER, 5)), ("on-failure", Policy(ON_FAILURE, 5)), ("always", Policy(ALWAYS, 5)),
    ("on-reboot", Policy(ON_REBOOT, 5)), ("on-failure:1", Policy(ON_FAILURE, 1)),
    ("always:1000000", Policy(ALWAYS, 1_000_000)), ("always:007", Policy(ALWAYS, 7))])
def test_a_policy_is_read(text, policy):
    assert parse_policy(text) == policy_in(text) == policy


@pytest.mark.parametrize("text", ["", "Always", "always:", "always:0", "always:-1", "always:1000001",
                                  "always:3:4", "never:1", "on-reboot:2", "unless-stopped", "always: 3", "always:\u0663"])
def test_what_is_no_policy_is_refused_and_in_a_record_restarts_nothing(text):
    with pytest.raises(UsageError, match="restart policy"):
        parse_policy(text)
    assert policy_in(text).kind == NEVER
    assert policy_in(None).kind == NEVER


@pytest.mark.parametrize("kind, again", [
    (NEVER, ()), (ON_FAILURE, (FAILURE, LOSS)), (ALWAYS, (SUCCESS, FAILURE, LOSS)), (ON_REBOOT, (LOSS,))])
def test_what_each_policy_wants(kind, again):
    for cause in (SUCCESS, FAILURE, LOSS):
        follows = decide(Policy(kind, 3), cause, 0, 1.0).follows
        assert follows == (AGAIN if cause in again else OVER), cause


@pytest.mark.parametrize("exit_, cause", [
    ({"code": 0, "signal": None}, SUCCESS), ({"code": 3, "signal": None}, FAILURE),
    ({"code": None, "signal": "SIGSEGV"}, FAILURE), ({"code": None, "signal": None}, FAILURE), (None, FAILURE)])
def test_a_status_that_nobody_knows_is_no_success(exit_, cause):
    assert cause_of(exit_) == cause


def test_the_backoff_doubles_from_one_second_to_a_minute():
    assert [backoff_s(n) for n in (1, 2, 3, 4, 5, 6, 7, 8, 1000)] == [1, 2, 4, 8, 16, 32, 60, 60, 60]


def test_attempts_in_a_row_are_counted_and_bounded():
    policy, attempts, delays = parse_policy("always:4"), 0, []
    while True:
        decision = decide(policy, FAILURE, attempts, 0.5)
        if decision.follows != AGAIN:
            break
        attempts = decision.attempt
        delays.append(decision.delay_s)
    assert decision == Decision(FAILED, 4, 0.0) and delays == [1, 2, 4, 8]


def test_a_minute_of_life_and_a_reboot_begin_the_count_anew():
    policy = parse_policy("on-failure")
    assert decide(policy, FAILURE, 5, 59.9).follows == FAILED
    assert decide(policy, FAILURE, 5, 60.0) == Decision(AGAIN, 1, 1.0)
    assert decide(policy, LOSS, 5, float("inf")) == Decision(AGAIN, 1, 0.0)
    assert decide(policy, FAILURE, 3, None) == Decision(AGAIN, 4, 8.0)      # it did not even start
    assert decide(policy, FAILURE, 3, -5.0) == Decision(AGAIN, 4, 8.0)      # a clock that was set back


@given(st.sampled_from([ON_FAILURE, ALWAYS, ON_REBOOT]), st.integers(1, 50), st.sampled_from([SUCCESS, FAILURE, LOSS]),
       st.integers(0, 60), st.one_of(st.none(), st.floats(-10, 200)))
def test_no_attempt_goes_beyond_the_bound_or_comes_later_than_a_minute(kind, most, cause, attempts, life_s):
    decision = decide(Policy(kind, most), cause, attempts, life_s)
    if decision.follows == AGAIN:
        assert 1 <= decision.attempt <= most and 0 <= decision.delay_s <= restartpolicy.BACKOFF_MAX_S


# -- the notice ----------------------------------------------------------------------------------

def a_record(**fields):
    return dict({"id": "k3f9", "name": "web", "state": "running", "created_at": NOW, "ended_at": None,
                 "exit": None, "reason": None, "spawn": 1, "incarnation": 1, "boot_id": "boot-a",
                 "restart": "always:3", "pid": 4711, "pid_start": 99}, **fields)


@pytest.mark.parametrize("fields, attempt, has_output, text", [
    (dict(state="ended", exit={"code": 3, "signal": None}), 2, True,
     b"\r\n[ptyguard: restarted after exit 3, attempt 2 of 5]\r\n"),
    (dict(state="ended", exit={"code": None, "signal": "SIGSEGV"}), 1, False,
     b"[ptyguard: restarted after SIGSEGV, attempt 1 of 5]\r\n"),
    (dict(state="ended", exit={"code": None, "signal": None}), 1, False,
     b"[ptyguard: restarted after an end of unknown status, attempt 1 of 5]\r\n"),
    (dict(state="lost", reason=REASON_REBOOT, ended_at=0), 1, False,
     b"[ptyguard: relaunched after a reboot, which was noticed at 1970-01-01 00:00:00 UTC]\r\n"),
    (dict(state="lost", reason="guard and daemon gone", ended_at=0), 3, False,
     b"[ptyguard: relaunched after its guard and daemon were gone, which was noticed at "
     b"1970-01-01 00:00:00 UTC, attempt 3 of 5]\r\n"),
])
def test_the_notice_says_why_and_how_often(fields, attempt, has_output, text):
    assert notice_text(a_record(**fields), attempt, 5, has_output) == text


class Terminal:
    """What a program writes, as the back-end reads it."""

    def __init__(self, data):
        self.data = data

    def __call__(self, _master, view):
        count = min(len(view), len(self.data))
        view[:count], self.data = self.data[:count], self.data[count:]
        return count


def a_session(memory, notice, history=b""):
    session = Session(a_record())
    session.ring, session.master, session.notice = Ring.adopt(memory), 5, notice
    return session


@pytest.mark.parametrize("history", [0, 1, CAPACITY_MIN - 10, CAPACITY_MIN * 3 - 7])
def test_a_notice_stands_whole_and_once_ahead_of_the_output_wherever_its_writer_was_killed(history):
    """Also across the ring's end; each successor has only the memory and the blob."""
    text = b"\r\n[ptyguard: restarted after exit 3, attempt 2 of 5]\r\n"
    for killed_after in range(len(text) + 1):
        memory = bytearray(memory_bytes(CAPACITY_MIN))
        ring = Ring.format(memory)
        left = history
        while left:
            left -= len(ring.writable(left))
            ring.commit(min(WINDOW_BYTES, ring.capacity - ring.end_offset % ring.capacity, history - ring.end_offset))
        view = ring.writable(WINDOW_BYTES)
        for index in range(min(killed_after, len(view))):
            view[index] = text[index]           # written and not counted
        view.release()
        ring.release()
        session = a_session(memory, (history, text))
        assert session.pump(Terminal(b"output"), lambda start: None, 2)[0] > 0
        while session.ring.end_offset < history + len(text) + 6:
            session.pump(Terminal(b"output"[session.ring.end_offset - history - len(text):]), lambda start: None, 2)
        assert session.ring.read(history, 1000) == text + b"output", killed_after
        assert session.notice is None
        again = a_session(memory, (history, text))      # of a blob from before
        again.pump(Terminal(b"!"), lambda start: None, 1)
        assert again.ring.read(history, 1000) == text + b"output!"


def test_a_notice_waits_for_who_holds_and_tells_of_what_it_overwrites():
    from ptyguard_core.session import ALWAYS as HOLDS, Cursor
    memory = bytearray(memory_bytes(CAPACITY_MIN))
    Ring.format(memory).release()
    session = a_session(memory, None)
    cursor = Cursor(0, HOLDS)
    session.add(cursor)
    session.pump(Terminal(b"x" * CAPACITY_MIN), lambda start: None, 100)
    end = session.ring.end_offset
    assert session.room() == 0
    session.notice = (end, b"notice\r\n")
    assert session.pump(Terminal(b"y"), lambda start: None, 1)[0] == 0 and session.notice
    cursor.offset += 3
    told = []
    assert session.pump(Terminal(b"y"), told.append, 1)[0] == 3
    assert told == [3] and session.ring.read(end, 99) == b"not"
    cursor.offset = end
    session.pump(Terminal(b"y"), told.append, 1)
    assert session.ring.read(end, 99) == b"notice\r\ny" and session.notice is None


# -- the room, with a clock that is wound by hand ------------------------------------------------

LAUNCH = {"argv": ["sh"], "executable": "sh", "cwd": "/", "env": ["A=\udcff"], "limits": [],
          "ring_bytes": 1 << 20, "echo": 1, "umask": 18, "nice": 0, "cols": 80, "rows": 24, "spawn_number": 1}


class Clockwork:
    """As much of a daemon as the relaunches see."""

    def __init__(self, directory):
        self.loop = self.guard = self.restarts = self
        self.paths = types.SimpleNamespace(state=str(directory), root="/root-of-it")
        self.backend = types.SimpleNamespace(boot_id=lambda: "boot-a", process_table=lambda: [],
                                             marked_processes=lambda mark: set(), signal_process=lambda *_: False)
        self.facts, self.is_leaving, self.sessions = {}, False, {}
        self.now, self.timers, self.lines, self.told, self.saved = NOW, [], [], [], []
        self.fails = None
        self.agents = types.SimpleNamespace(adopt=lambda _id, _creator: b"/new/place/a-k3f9")
        self.request = None
        self.relaunches = Relaunches(self)

    def wall_clock(self):
        return self.now

    def clock(self):
        return self.now

    def log(self, event, **fields):
        self.lines.append((event, fields))

    def after(self, delay_s, act):
        timer = types.SimpleNamespace(due_at=self.now + delay_s, act=act)
        timer.cancel = lambda: self.timers.remove(timer) if timer in self.timers else None
        self.timers.append(timer)
        return timer

    def pass_time(self, seconds):
        self.now += seconds
        for timer in [timer for timer in self.timers if timer.due_at <= self.now]:
            self.timers.remove(timer)
            timer.act()

    def save(self, session):
        self.saved.append(json.loads(json.dumps(session.record)))
        assert not shape_fault(session.record)

    def tell_end(self, session):
        self.told.append(("end", session.state))

    def tell_started(self, _session, error):
        self.told.append(("started", str(error)))

    # As restarting.py does it.
    def restart(self, session, _grace_s, _act):
        before = dict(session.record)
        session.happen("restarted")
        session.record.update(exit=None, ended_at=None, reason=None, spawn=session.record["spawn"] + 1)
        self.request = {"env": [b"SSH_AUTH_SOCK=/old/place/a-k3f9", b"A=B"]}
        self.relaunches.on_start(session, self.request)
        if self.fails:
            session.happen("restart_failed")
            session.record.clear()
            session.record.update(before)
            self.relaunches.on_tried(session, UsageError(self.fails))
        else:
            session.happen("spawned")
            self.relaunches.on_tried(session, None)

    def add(self, **fields):
        session = Session(a_record(**fields))
        session.launch = json.dumps(LAUNCH).encode()
        self.sessions[session.id] = session
        return session

    def end(self, session, code=3, lived_s=1.0):
        self.now += lived_s
        session.record.update(exit={"code": code, "signal": None}, ended_at=self.now)
        session.happen(CHILD_EXITED)
        self.relaunches.on_exit(session)
        session.happen(DRAINED)
        self.relaunches.on_drained(session)


@pytest.fixture
def house(tmp_path):
    made = Clockwork(tmp_path)
    made.relaunches.open({})
    return made


def test_attempts_follow_until_they_are_used_up_and_then_it_has_failed_for_good(house):
    session = house.add()
    for attempt, delay_s in ((1, 1.0), (2, 2.0), (3, 4.0)):
        house.end(session)
        assert session.awaits_relaunch and not session.is_over and session.state == "ended"
        house.pass_time(delay_s - 0.01)
        assert session.state == "ended"
        house.pass_time(0.02)
        assert session.state == "running" and session.record["relaunch"]["attempts"] == attempt
    house.end(session)
    assert session.state == "failed" and session.is_over and not house.timers
    assert session.record["reason"].startswith("given up after 3 attempts")
    assert session.record["exit"] == {"code": 3, "signal": None}


def test_a_minute_of_life_is_forgiveness(house):
    session = house.add(restart="always:1")
    for _ in range(5):
        house.end(session, lived_s=60.0)
        house.pass_time(1.0)
        assert session.state == "running"
    house.end(session, lived_s=59.0)
    assert session.state == "failed"


def test_an_end_that_is_told_again_is_judged_once(house):
    session = house.add()
    house.end(session)
    noted = dict(session.record["relaunch"])
    house.now += 0.5
    session.happen(CHILD_EXITED)            # as when a daemon is replaced
    house.relaunches.on_exit(session)
    house.relaunches.adopt(session)
    assert session.record["relaunch"] == noted and len(house.timers) == 1


def test_a_daemon_that_takes_over_while_the_last_output_is_read_forgets_no_attempt(house):
    """It took a session that is drained for one that runs, and left it ended for good."""
    session = house.add()
    session.record.update(exit={"code": 3, "signal": None}, ended_at=house.now)
    session.happen(CHILD_EXITED)
    house.relaunches.on_exit(session)
    house.relaunches.adopt(session)
    assert session.state == "draining" and session.awaits_relaunch
    session.happen(DRAINED)
    house.relaunches.on_drained(session)
    house.pass_time(1.0)
    assert session.state == "running"


def test_killed_while_its_last_output_is_read_tells_its_end_after_that(house):
    session = house.add()
    session.record.update(exit={"code": 3, "signal": None}, ended_at=house.now)
    session.happen(CHILD_EXITED)
    house.relaunches.on_exit(session)
    house.relaunches.cancel(session)
    assert house.told == [] and not session.awaits_relaunch
    session.happen(DRAINED)
    house.relaunches.on_drained(session)
    assert session.is_over and not house.timers


def test_one_that_was_started_unnoticed_is_not_started_twice(house):
    session = house.add(relaunch={"attempts": 1, "due_at": NOW})
    house.relaunches.adopt(session)
    assert not session.awaits_relaunch and not house.timers


def test_who_cannot_be_started_is_tried_again_and_then_has_failed(house):
    session = house.add(restart="on-failure:3")
    house.fails = "command not found: x"
    house.end(session)
    for delay_s in (1.0, 2.0, 4.0):
        assert session.state == "ended"
        house.pass_time(delay_s)
    assert session.state == "failed" and "command not found: x" in session.record["reason"]
    assert ("end", "failed") in house.told and not house.timers and session.notice is None


def test_killed_is_killed_in_the_pause_too_and_those_who_wait_are_told(house):
    session = house.add()
    house.end(session)
    house.relaunches.cancel(session)
    assert not house.timers and session.is_over and session.state == "ended"
    assert house.saved[-1]["relaunch"]["off"] and ("end", "ended") in house.told
    house.pass_time(1000)
    assert session.state == "ended"


def test_killed_while_it_is_being_started_stays_so_though_that_fails(house):
    session = house.add()
    house.end(session)
    session.is_restarting = True
    house.relaunches._trying.add(session.id)
    house.relaunches.cancel(session)
    session.record["relaunch"] = dict(session.record["relaunch"], off=False, due_at=house.now)    # put back
    session.is_restarting = False
    house.relaunches.on_tried(session, UsageError("no"))
    assert session.record["relaunch"]["off"] and not session.awaits_relaunch and not house.timers


def test_a_success_is_no_failure_and_resets_nothing_that_matters(house):
    session = house.add(restart="on-failure")
    house.end(session, code=0)
    assert session.state == "ended" and session.is_over and not house.timers


def test_a_clock_that_was_set_back_makes_nobody_wait_for_hours(house):
    session = house.add()
    house.end(session)
    house.now -= 86400
    house.relaunches.adopt(session)
    assert [timer.due_at - house.now for timer in house.timers] == [60.0]


def test_the_name_that_somebody_else_has_by_now_is_not_taken_twice(house):
    session = house.add()
    house.end(session)
    house.sessions["other"] = Session(a_record(id="other"))
    house.pass_time(1.0)
    assert session.state == "failed" and "another session" in session.record["reason"]


# -- what is on disk for it ----------------------------------------------------------------------

def test_what_it_was_started_with_comes_back_as_it_was(house):
    session = house.add()
    house.relaunches.keep(session)
    path = os.path.join(house.paths.state, "launches", "k3f9.json")
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
    later = Clockwork(house.paths.state)
    lost = later.add(state="lost", reason=REASON_REBOOT)
    later.sessions.clear()
    lost.launch = b""
    later.relaunches.open({"k3f9": lost.record})
    later.sessions["k3f9"] = lost
    later.relaunches.on_lost(lost)
    later.relaunches.adopt(lost)
    assert json.loads(lost.launch) == {field: LAUNCH[field] for field in LAUNCH_FIELDS}
    later.pass_time(0)
    assert lost.state == "running" and lost.record["boot_id"] == "boot-a"
    assert later.request["env"] == [b"A=B", b"SSH_AUTH_SOCK=/new/place/a-k3f9"]
    later.relaunches.forget("k3f9")
    assert not os.path.exists(path)


def test_a_launch_without_a_record_is_removed(house):
    house.relaunches.keep(house.add())
    Clockwork(house.paths.state).relaunches.open({})
    assert os.listdir(os.path.join(house.paths.state, "launches")) == []


def test_nothing_is_kept_for_who_is_never_started_again(house):
    house.relaunches.keep(house.add(restart="never"))
    assert os.listdir(os.path.join(house.paths.state, "launches")) == []


def test_a_new_session_whose_launch_cannot_be_kept_is_refused_and_an_old_one_lives_on(house):
    os.rmdir(os.path.join(house.paths.state, "launches"))
    with open(os.path.join(house.paths.state, "launches"), "w"):
        pass
    with pytest.raises(StateUnusable, match="started again"):
        house.relaunches.keep(house.add(state="starting"))
    house.relaunches.keep(house.add())
    assert house.lines[-1][0] == "launch_not_kept"


WRONG = {"argv": [], "executable": None, "cwd": "a\0b", "env": [1], "limits": "x", "ring_bytes": 5, "echo": True,
         "umask": -1, "nice": 1000}


@pytest.mark.parametrize("field", sorted(LAUNCH_FIELDS))
def test_a_launch_of_the_wrong_shape_is_set_aside(house, field):
    good = {"id": "k3f9", "launch": dict(LAUNCH)}
    assert LaunchFiles.fault_of(good) == ""
    good["launch"][field] = WRONG[field]
    assert LaunchFiles.fault_of(good) == "field launch"
    assert LaunchFiles.fault_of({"id": "k3f9"}) and LaunchFiles.fault_of([])


def test_without_a_launch_it_is_lost_and_says_why(house):
    lost = house.add(state="lost", reason=REASON_REBOOT)
    house.relaunches.on_lost(lost)
    assert lost.is_over and "not on disk" in lost.record["reason"] and not house.timers


# -- real processes: an end ----------------------------------------------------------------------

COUNTS = 'n=$(cat "$0" 2>/dev/null || echo 0); n=$((n+1)); echo $n >"$0"; echo run $n; '


def kill_both(world):
    """Guard and daemon at the same moment: none of them sees the other's end."""
    pids = world.guard_pid(), world.daemon_pid()
    for number in (signal.SIGSTOP, signal.SIGKILL):
        for pid in pids:
            os.kill(pid, number)
    wait_until(lambda: not any(map(is_alive, pids)), "the death of both")
    return pids


def record_path(world, session):
    return os.path.join(world.state, "sessions", session.id + ".json")


def edit_record(world, session, **fields):
    """What no daemon has written: `fields` of a record, while none runs."""
    path = record_path(world, session)
    with open(path) as file:
        record = json.load(file)
    record.update(fields)
    with open(path, "w") as file:
        json.dump(record, file)


def running(session):
    facts = session.info()
    return facts if facts["state"] == "running" else None


def test_run_goes_on_over_failures_and_has_all_output_and_the_last_status(world, pg, name, tmp_path):
    done = world.run("run", "-n", name, "--restart", "on-failure:3", "--", "sh", "-c",
                     COUNTS + "[ $n = 3 ] && exit 0; exit $n", str(tmp_path / "n"))
    assert done.returncode == 0, done
    text = done.stdout.replace(b"\r\n", b"\n")
    assert text == (b"run 1\n\n[ptyguard: restarted after exit 1, attempt 1 of 3]\nrun 2\n"
                    b"\n[ptyguard: restarted after exit 2, attempt 2 of 3]\nrun 3\n")
    facts = pg.session(name).info()
    assert facts["state"] == "ended" and facts["restart"] == "on-failure:3" and facts["incarnation"] == 1
    assert facts["offsets"] == {"start": 0, "end": len(text.replace(b"\n", b"\r\n"))}


def test_who_is_out_of_attempts_has_failed_with_the_last_status_and_stays_so(tmp_path):
    with World(under=MEMORY) as world, world.connect() as pg:
        session = pg.start(["sh", "-c", COUNTS + "exit 4$n", str(tmp_path / "n")], "s", restart="always:1")
        attached = world.terminal("attach", "s")
        assert session.wait(LIMIT_S) == {"code": 42, "signal": None}
        assert attached.wait() == 42 and b"attempt 1 of 1" in attached.output
        assert session.info()["state"] == "failed" and "given up" in session.info()["reason"]
        world.run("wait", "s", check=42)
        world.kill_daemon()
        assert session.info()["state"] == "failed" and b"run 2" in session.read()[1]
        kill_both(world)
        assert world.json("info", "s")["state"] == "failed"
        assert (tmp_path / "n").read_text() == "2\n"


def test_a_restart_by_hand_begins_the_count_anew(world, pg, name, tmp_path):
    session = pg.start(["sh", "-c", COUNTS + "[ $n = 2 ] && exit 5; exec sleep 1000", str(tmp_path / "n")], name,
                       restart="on-failure:1")
    session.wait_for(rb"run 1", LIMIT_S)
    os.kill(session.info()["pid"], signal.SIGKILL)
    assert session.wait(LIMIT_S) == {"code": 5, "signal": None}
    assert session.info()["state"] == "failed"
    world.run("restart", name, check=0)
    facts = session.info()
    assert facts["state"] == "running" and facts["reason"] is None and facts["relaunch"]["attempts"] == 0
    assert b"[ptyguard: restarted after SIGKILL, attempt 1 of 1]" in session.read()[1]
    session.kill()
    assert session.info()["state"] == "ended" and session.info()["relaunch"]["off"]


def test_between_two_attempts_it_is_starting_its_name_is_taken_and_a_kill_ends_it(world, pg, name):
    session = pg.start(["sh", "-c", "exit 9"], name, restart="always")
    facts = wait_until(lambda: (f := session.info())["relaunch"]["attempts"] >= 3 and f["relaunch"]["due_at"]
                       and f["state"] == "starting" and f, "a long pause")
    assert facts["relaunch"]["last_exit"] == {"code": 9, "signal": None}
    assert b"attempt 3 of 5 in" in world.run("info", name, check=0).stdout
    world.run("start", "-n", name, "--", "true", check=4)
    waiter = world.popen("wait", "@" + session.id)
    world.run("rename", name, name + "2", check=0)
    world.run("kill", name + "2", check=0)
    assert waiter.wait(LIMIT_S) == 9
    facts = session.info()
    assert facts["state"] == "ended" and facts["relaunch"]["due_at"] is None and facts["relaunch"]["off"]
    assert b"not again: it was killed" in world.run("info", name + "2", check=0).stdout
    spawns = session.read()[1].count(b"restarted")
    world.kill_daemon()
    assert session.info()["state"] == "ended" and session.read()[1].count(b"restarted") == spawns


def test_a_daemon_killed_in_the_pause_goes_on_where_it_was(tmp_path):
    with World(under=MEMORY) as world, world.connect() as pg:
        session = pg.start(["sh", "-c", COUNTS + "exit 7", str(tmp_path / "n")], "s", restart="always:3")
        for attempt in (1, 2, 3):
            wait_until(lambda: session.info()["relaunch"]["attempts"] == attempt, "the attempt to be due")
            world.kill_daemon()
        assert session.wait(LIMIT_S) == {"code": 7, "signal": None}
        assert session.info()["state"] == "failed"
        wanted = b"run 1\r\n" + b"".join(
            b"\r\n[ptyguard: restarted after exit 7, attempt %d of 3]\r\nrun %d\r\n" % (n, n + 1) for n in (1, 2, 3))
        assert session.read() == (0, wanted)


def test_daemons_killed_all_the_while_cost_no_attempt_and_no_byte(tmp_path):
    seed = random.randrange(1 << 32)
    chance = random.Random(seed)
    with World(under=MEMORY) as world, world.connect() as pg:
        session = pg.start(["sh", "-c", COUNTS + "seq 2000; exit 7", str(tmp_path / "n")], "s", restart="always:3")
        wait_until(lambda: session.info()["relaunch"]["attempts"] == 1, "the first pause")
        killed = 0
        while session.info()["state"] not in ("failed", "ended"):
            pid = world.daemon_pid()
            timer = threading.Timer(chance.random() * 0.3, os.kill, (pid, signal.SIGKILL))
            timer.start()
            timer.join()
            wait_until(lambda: not is_alive(pid), "its death")
            killed += 1
        lines = b"".join(b"%d\r\n" % n for n in range(1, 2001))
        wanted = b"run 1\r\n" + lines + b"".join(
            b"\r\n[ptyguard: restarted after exit 7, attempt %d of 3]\r\nrun %d\r\n" % (n, n + 1) + lines
            for n in (1, 2, 3))
        assert session.read() == (0, wanted), seed
        facts = session.info()
        assert facts["state"] == "failed" and facts["exit"] == {"code": 7, "signal": None}, seed
        assert killed >= 3


@pytest.mark.parametrize("how", ["kill", "term", "rm"])
def test_what_the_user_ended_is_not_started_again(world, pg, name, how):
    session = pg.start(["sh", "-c", "echo ready; exec sleep 1000"], name, restart="always")
    session.wait_for(rb"ready", LIMIT_S)
    world.run(*{"kill": ["kill"], "term": ["kill", "--signal", "TERM"], "rm": ["rm"]}[how], name, check=0)
    if how == "rm":
        world.run("info", name, check=5)
        assert not os.path.exists(os.path.join(world.state, "launches", session.id + ".json"))
    else:
        assert session.wait(LIMIT_S)["code"] is None
        assert session.info()["state"] == "ended" and session.info()["relaunch"]["off"]


def test_a_daemon_is_not_stopped_over_who_is_to_run_again():
    with World(under=MEMORY) as world, world.connect() as pg:
        session = pg.start(["sh", "-c", "exit 1"], "s", restart="always:50")
        wait_until(lambda: session.info()["relaunch"]["attempts"] >= 3, "a pause")
        world.run("daemon", "stop", check=4)
        world.run("daemon", "stop", "--sessions", "kill", check=0)
        assert world.json("info", "s")["state"] == "ended"


def test_who_hangs_up_between_two_attempts_ends_it_too(world, pg, name):
    """Its program did not run at that moment: it was started again with nobody there."""
    running = world.popen("run", "--kill-on-hangup", "-n", name, "--restart", "always", "--",
                          "sh", "-c", "exit 9", stdout=subprocess.DEVNULL)
    session = wait_until(lambda: next((s for s in pg.sessions() if s.name == name), None), "it")
    wait_until(lambda: (f := session.info())["relaunch"]["attempts"] >= 3 and f["relaunch"]["due_at"]
               and f["state"] == "starting", "a long pause")
    running.kill()
    wait_until(lambda: session.info()["state"] in ("ended", "failed"), "its end")
    facts = session.info()
    assert facts["state"] == "ended" and facts["relaunch"]["off"]


def test_how_an_end_was_judged_is_on_disk_with_the_end():
    order = []
    session = Session(a_record())

    def note_exit(session, _fields):
        session.record["state"] = "ended"       # its terminal was let go of before

    Daemon._take_exit(types.SimpleNamespace(
        sessions={"k3f9": session}, _note_exit=note_exit, _tell_ended=lambda _: order.append("told"),
        relaunches=types.SimpleNamespace(on_drained=lambda _: order.append("judged")),
        save=lambda _: order.append("saved")), types.SimpleNamespace(
            bytes=lambda _: b"k3f9", number=lambda *_: 1, fields={}))
    assert order == ["judged", "saved", "told"]


# -- real processes: a loss ----------------------------------------------------------------------

SHOWS = 'echo "in $PWD $COLOUR $PTYGUARD_SESSION $(umask) $(ulimit -n) $(stty size) [$0] [$1]"; trap exit HUP; read x'


def test_regression_31(tmp_path):
    """A session's options survive a restart: elsewhere a relaunched one had lost its directory,
    its environment and its size."""
    with World(under=MEMORY) as world:
        log = tmp_path / "log"
        world.run("start", "-n", "s", "--restart", "on-reboot", "--cwd", str(tmp_path),
                  "--env", "COLOUR=\udcff red", "--size", "100x30", "--label", "a=b", "--ttl", "1h",
                  "--size-policy", "largest", "--scrollback", "128K", "--log", str(log), "--", "sh", "-c", "ulimit -n 99; umask 027;" + SHOWS, "x y", "\udcfe", check=0)
        with world.connect() as pg:
            session = pg.session("s")
            session.wait_for(rb"in .*\n", LIMIT_S)
            before, first = session.info(), session.read()[1]
            wait_until(lambda: log.read_bytes() == first, "the log")
        kill_both(world)
        wait_until(lambda: not is_alive(before["pid"]), "its end")
        with world.connect() as pg:
            session = pg.session("s")
            after = wait_until(lambda: running(session), "its life")
            session.wait_for(rb"in .*\n", LIMIT_S)
            notice, line = session.read()[1].split(b"\r\n", 1)
            assert line == first
            assert notice.startswith(b"[ptyguard: relaunched after its guard and daemon were gone, which ")
            assert after["offsets"] == {"start": 0, "end": len(notice) + 2 + len(first)} or \
                session.info()["offsets"] == {"start": 0, "end": len(notice) + 2 + len(first)}
            for key in ("name", "id", "argv", "cwd", "size", "labels", "ttl", "size_policy", "created_at", "restart"):
                assert after[key] == before[key], key
            assert after["pid"] != before["pid"] and after["incarnation"] == before["incarnation"] + 1
            assert session.info()["ring"]["bytes"] == before["ring"]["bytes"] == 128 << 10
            wait_until(lambda: log.read_bytes() == first + notice + b"\r\n" + first, "the log to go on")


def test_after_a_reboot_it_comes_back_and_what_lives_under_an_old_number_is_left_alone():
    with World(under=MEMORY) as world:
        stranger = subprocess.Popen(["sleep", "1000"])
        try:
            with world.connect() as pg:
                session = pg.start(["sh", "-c", "echo up; exec sleep 1000"], "s", restart="on-failure")
                other = pg.start(["sleep", "1000"], "never")
                session.wait_for(rb"up", LIMIT_S)
                pid = session.info()["pid"]
            kill_both(world)
            wait_until(lambda: not is_alive(pid), "its end")
            import ptyguard_posix
            edit_record(world, session, boot_id="another", pid=stranger.pid,
                        pid_start=ptyguard_posix.process_start(stranger.pid))
            edit_record(world, other, boot_id="another")
            assert world.json("info", "never")["state"] == "lost"
            assert world.json("info", "never")["reason"] == REASON_REBOOT
            with world.connect() as pg:
                session = pg.session("s")
                session.wait_for(rb"up", LIMIT_S)
                assert session.read()[1].startswith(b"[ptyguard: relaunched after a reboot, which was noticed at ")
                assert stranger.poll() is None
        finally:
            stranger.kill()
            stranger.wait()


def test_the_first_command_may_attach_to_it():
    with World(under=MEMORY) as world:
        with world.connect() as pg:
            session = pg.start(["sh", "-c", "echo up; exec sleep 1000"], "s", restart="always")
            session.wait_for(rb"up", LIMIT_S)
        kill_both(world)
        terminal = world.terminal("attach", "s")
        terminal.expect(rb"\[ptyguard: relaunched.*up")
        kill_both(world)
        done = world.run("ensure", "s", "--json", "--", "false", check=0)
        told = json.loads(done.stdout)
        assert not told["created"] and told["state"] == "running" and told["incarnation"] == 3


def test_killed_never_comes_back_though_everything_dies_in_the_middle_of_the_kill():
    with World(under=MEMORY) as world:
        with world.connect() as pg, pg.open_channel("test") as channel:
            session = pg.start(["sh", "-c", "trap '' HUP TERM; echo up; while :; do sleep 1000; done"], "s",
                               restart="always")
            session.wait_for(rb"up", LIMIT_S)
            pid = session.info()["pid"]
            channel.ask("kill", target="s", grace=86400)
            wait_until(lambda: "kill_begun session=" + session.id in world.log(), "the kill")
            kill_both(world)
        os.kill(pid, signal.SIGKILL)
        assert world.json("info", "s")["state"] == "lost"
        world.kill_daemon()
        assert world.json("info", "s")["state"] == "lost"


def test_what_lives_on_of_it_is_ended_before_it_is_started_again_and_strangers_are_not():
    with World(under=MEMORY) as world:
        # It has the same environment as one of ours, but for the directory: another user's tools may.
        stranger = None
        try:
            with world.connect() as pg:
                session = pg.start(["sh", "-c", "trap '' HUP; (trap '' HUP; exec setsid sleep 1000) & echo up $!; "
                                                "while :; do sleep 1000; done"], "s", restart="always")
                spared = pg.start(["sh", "-c", "trap '' HUP; echo up; while :; do sleep 1000; done"], "never")
                found = session.wait_for(rb"up (\d+)", LIMIT_S)
                spared.wait_for(rb"up", LIMIT_S)
                leaked = [session.info()["pid"], int(found.group(1))]
                alone = spared.info()["pid"]
            stranger = subprocess.Popen(["sleep", "1000"], env={"PTYGUARD_SESSION_ID": session.id,
                                                                "PTYGUARD_DIR": "/elsewhere"})
            kill_both(world)
            assert all(map(is_alive, leaked))
            with world.connect() as pg:
                session = pg.session("s")
                facts = wait_until(lambda: running(session), "its life")
                session.wait_for(rb"up", LIMIT_S)
                assert not any(map(is_alive, leaked)) and facts["pid"] not in leaked
                assert stranger.poll() is None
                assert is_alive(alone)      # nobody asked for that one to come back: nothing is done to it
                assert pg.session("never").facts["state"] == "lost"
        finally:
            if stranger is not None:
                stranger.kill()
                stranger.wait()


def test_what_lives_on_of_it_is_ended_before_somebody_restarts_it_by_hand_too():
    """The old programs ran beside the new one."""
    with World(under=MEMORY) as world:
        with world.connect() as pg:
            session = pg.start(["sh", "-c", "trap '' HUP; echo up; while :; do sleep 1000; done"], "s",
                               restart="always")
            session.wait_for(rb"up", LIMIT_S)
            leaked = session.info()["pid"]
        kill_both(world)
        edit_record(world, session, relaunch={"attempts": 0, "off": True})
        assert world.json("info", "s")["state"] == "lost" and is_alive(leaked)
        world.run("restart", "s", check=0)
        assert not is_alive(leaked)
        facts = world.json("info", "s")
        assert facts["state"] == "running" and facts["pid"] != leaked
        world.run("restart", "s", check=0)
        assert world.log().count("leaked_reaped") == 1


def test_a_number_that_a_stranger_has_by_now_is_not_signalled():
    with World(under=MEMORY) as world:
        stranger = subprocess.Popen(["sleep", "1000"])
        try:
            with world.connect() as pg:
                session = pg.start(["sh", "-c", "echo up; exec sleep 1000"], "s", restart="always")
                session.wait_for(rb"up", LIMIT_S)
                facts = session.info()
            kill_both(world)
            wait_until(lambda: not is_alive(facts["pid"]), "its end")
            edit_record(world, session, pid=stranger.pid, pid_start=facts["pid_start"])
            with world.connect() as pg:
                wait_until(lambda: running(pg.session("s")), "its life")
                assert stranger.poll() is None
        finally:
            stranger.kill()
            stranger.wait()


@pytest.mark.parametrize("lie", [
    {"incarnation": "x", "size": None, "spawn": None},
    {"relaunch": {"attempts": 2, "due_at": 9e10}, "state": "ended"},
    {"relaunch": {"attempts": 10 ** 18}}, {"restart": "always:0"},
    {"relaunch": {"attempts": 1, "gave_up": True}, "state": "failed"}, {"state": "starting", "spawn": 7}, {"pid": 1, "pid_start": None}, {"boot_id": None, "pid_start": "x"},
    {"argv": None, "exit": None, "ended_at": None, "cwd": None}])
def test_a_record_that_lies_costs_its_relaunch_at_most(lie):
    with World(under=MEMORY) as world:
        with world.connect() as pg:
            session = pg.start(["sh", "-c", "echo up; exec sleep 1000"], "s", restart="always")
            session.wait_for(rb"up", LIMIT_S)
            pid = session.info()["pid"]
        kill_both(world)
        wait_until(lambda: not is_alive(pid), "its end")
        edit_record(world, session, **lie)
        assert world.json("info", "s")["state"] in ("running", "lost", "failed", "starting", "ended")
        daemon = world.daemon_pid()
        world.run("run", "--", "true", check=0)
        assert world.daemon_pid() == daemon


@pytest.mark.parametrize("what", ["gone", "garbage", "wrong"])
def test_a_launch_that_cannot_be_used_leaves_it_lost_with_the_reason(what):
    with World(under=MEMORY) as world:
        with world.connect() as pg:
            session = pg.start(["sh", "-c", "echo up; exec sleep 1000"], "s", restart="always")
            session.wait_for(rb"up", LIMIT_S)
        path = os.path.join(world.state, "launches", session.id + ".json")
        kill_both(world)
        if what == "gone":
            os.unlink(path)
        else:
            with open(path, "w") as file:
                file.write("{" if what == "garbage" else json.dumps({"id": session.id, "launch": {"argv": 5}}))
        facts = world.json("info", "s")
        assert facts["state"] == "lost" and "not relaunched" in facts["reason"]


def test_a_command_that_is_gone_is_tried_and_then_the_session_has_failed(tmp_path):
    with World(under=MEMORY) as world:
        program = tmp_path / "program"
        program.write_text("#!/bin/sh\necho up; exec sleep 1000\n")
        program.chmod(0o755)
        with world.connect() as pg:
            session = pg.start([str(program)], "s", restart="always:2")
            session.wait_for(rb"up", LIMIT_S)
        program.unlink()
        kill_both(world)
        world.run("wait", "s", check=125)
        facts = world.json("info", "s")
        assert facts["state"] == "failed" and "command not found" in facts["reason"]


# -- what is asked for -----------------------------------------------------------------------------

def test_its_environment_is_on_disk_only_if_it_is_to_come_back_and_goes_with_it(world, pg, name):
    env = dict(world.env, SECRET="env-hunter2")
    directory = os.path.join(world.state, "launches")
    world.run("start", "-n", name, "--", "sleep", "1000", env=env, check=0)
    ids = [pg.session(name).id]
    world.run("start", "-n", name + "r", "--restart", "on-reboot", "--", "sleep", "1000", env=env, check=0)
    ids.append(pg.session(name + "r").id)
    assert not os.path.exists(os.path.join(directory, ids[0] + ".json"))
    path = os.path.join(directory, ids[1] + ".json")
    with open(path) as file:
        assert "SECRET=env-hunter2" in json.load(file)["launch"]["env"]
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o600 and stat.S_IMODE(os.stat(directory).st_mode) == 0o700
    world.run("rm", name, name + "r", check=0)
    assert not os.path.exists(path)
    assert b"environment" in world.run("help", "start", check=0).stdout


def test_a_word_that_is_no_policy_starts_nothing(world, name):
    done = world.run("start", "-n", name, "--restart", "sometimes", "--", "true", check=2)
    assert b"not a restart policy" in done.stderr
    world.run("info", name, check=3)


# -- programs of a lost session, which nobody asked to be started again ------------------------

STUBBORN = "trap '' HUP; echo $$ >>{}; while :; do sleep 0.1; done"


def left_over(world, tmp_path):
    """(its pid, the file of all pids) of a program whose guard and daemon are gone."""
    pids = tmp_path / "pids"
    world.run("start", "-n", "web", "--", "sh", "-c", STUBBORN.format(pids), check=0)
    wait_until(lambda: pids.exists() and pids.read_text(), "its pid")
    kill_both(world)
    pid = int(pids.read_text())
    assert is_alive(pid)
    return pid, pids


@pytest.mark.parametrize("words", [["kill", "web"], ["rm", "web"], ["kill", "web", "--orphans"]], ids=" ".join)
def test_who_ends_a_lost_session_ends_what_lives_on_of_it(tmp_path, words):
    with World(under=MEMORY) as world:
        pid, _ = left_over(world, tmp_path)
        assert world.json("info", "web")["state"] == "lost"
        world.run(*words, check=0)
        assert not is_alive(pid)


@pytest.mark.parametrize("words", [["ensure", "web"], ["start", "-n", "web"], ["run", "-n", "web", "--timeout", "20"]],
                         ids=" ".join)
def test_who_starts_a_lost_session_anew_leaves_no_two_of_it(tmp_path, words):
    with World(under=MEMORY) as world:
        pid, pids = left_over(world, tmp_path)
        several = [world.popen(*words, "--", "sh", "-c", STUBBORN.format(pids), stdout=subprocess.DEVNULL,
                               stderr=subprocess.DEVNULL) for _ in range(3 if words[0] == "ensure" else 1)]
        wait_until(lambda: pids.read_text().count("\n") == 2, "the second start")
        assert not is_alive(pid)
        for process in several:
            process.wait(LIMIT_S)
        assert pids.read_text().count("\n") == 2
