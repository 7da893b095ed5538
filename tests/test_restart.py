"""`restart`: the same command again, in the same session, whoever dies meanwhile (C-119)."""

import json
import os
import signal
import subprocess

import pytest

from ptyguard_core.errors import PtyguardError
from ptyguard_core.restarting import Restarts, decode_launch, encode_launch
from ptyguard_core.session import Session
from world import LIMIT_S, MEMORY, World, is_alive, wait_until

# Says who it is, then ends with the status that it is told.
ANSWERS = "echo begin $$ in $PWD $COLOUR; read x; echo got $x; exit $x"


def start(pg, name, **options):
    session = pg.start(["sh", "-c", ANSWERS], name, **options)
    session.wait_for(rb"begin \d+", LIMIT_S)
    return session


def begun(session, times):
    """Wait until the command has begun so often; its output so far."""
    session.wait_for(rb"(?s)" + rb"begin \d+.*?" * times, LIMIT_S)
    return session.read()[1]


def running(session):
    """Its facts, if it runs."""
    facts = session.info()
    return facts["state"] == "running" and facts


def test_a_launch_comes_back_as_it_was_whatever_its_bytes():
    request = {"argv": [b"sh", b"\xff\xfe", b""], "env": [b"A=\x80", b"B="], "cwd": b"/\xff",
               "echo": 1, "umask": 18, "limits": [b"RLIMIT_NOFILE=99"]}
    assert decode_launch(encode_launch(request)) == request


@pytest.mark.parametrize("kept", [b"", b"{", b"\xff", b"null x"])
def test_nothing_usable_kept_is_no_launch(kept):
    assert decode_launch(kept) is None


def test_the_same_command_runs_again_under_the_same_name_and_id(world, pg, name, tmp_path):
    session = start(pg, name, cwd=str(tmp_path), env=dict(os.environ, COLOUR="red"), size=(100, 30))
    before = session.info()
    done = world.run("restart", name, "--json", check=0)
    told = json.loads(done.stdout)
    assert told["id"] == before["id"] and told["name"] == name
    assert told["state"] == "running" and told["pid"] != before["pid"]
    assert told["incarnation"] == before["incarnation"]
    assert told["offsets"]["start"] == 0 and told["offsets"]["end"] >= before["offsets"]["end"]
    output = begun(session, 2)
    assert output.count(b"in " + os.fsencode(str(tmp_path)) + b" red") == 2
    assert told["size"] == {"cols": 100, "rows": 30}
    assert not is_alive(before["pid"])
    session.send(b"7", enter=True)
    assert session.wait(LIMIT_S) == {"code": 7, "signal": None}


def test_an_ended_one_is_restarted_with_its_history(world, pg, name):
    session = start(pg, name)
    session.send(b"3", enter=True)
    assert session.wait(LIMIT_S)["code"] == 3
    world.run("restart", name, check=0)
    facts = session.info()
    assert facts["state"] == "running" and facts["exit"] == {"code": None, "signal": None}
    assert facts["ended_at"] is None and not facts["collected"]
    assert begun(session, 2).startswith(b"begin")
    session.send(b"4", enter=True)
    assert session.wait(LIMIT_S)["code"] == 4


def test_attached_clients_followers_and_waiters_stay(world, pg, name):
    session = start(pg, name)
    terminal = world.terminal("attach", name)
    terminal.expect(rb"begin \d+")
    runner = world.popen("run", "-n", name, "--", "sh", "-c", ANSWERS, stdin=subprocess.PIPE,
                         stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    waiter = world.popen("wait", name)
    wait_until(lambda: len(session.info()["viewers"]) == 2, "both clients")
    world.run("restart", name, check=0)
    begun(session, 2)
    terminal.expect(rb"begin \d+")
    assert waiter.poll() is None and runner.poll() is None
    terminal.send(b"9\r")
    assert terminal.wait() == 9 and waiter.wait(LIMIT_S) == 9
    out, _ = runner.communicate(timeout=LIMIT_S)
    assert runner.returncode == 9 and out.count(b"begin") == 2 and b"got 9" in out


def test_a_restart_survives_the_death_of_the_daemon_and_of_the_guard():
    with World(under=MEMORY) as world, world.connect() as pg:
        session = start(pg, "s")
        world.kill_daemon()
        world.run("restart", "s", check=0)
        begun(session, 2)
        guard = world.kill_guard()
        world.new_guard_pid(guard)
        world.run("restart", "s", check=0)      # what it was started with was deposited
        begun(session, 3)
        world.kill_daemon()
        session.send(b"5", enter=True)
        assert session.wait(LIMIT_S) == {"code": 5, "signal": None}     # a child of this guard


def test_daemons_killed_all_the_while_lose_no_restart():
    with World(under=MEMORY) as world, world.connect() as pg:
        session = start(pg, "s")
        for _ in range(10):
            asking = world.popen("restart", "s", stderr=subprocess.PIPE)
            world.kill_daemon()
            asking.wait(LIMIT_S)
            # Either it was done, or it says that it may not have been.
            facts = wait_until(lambda: running(session), "its life")
            assert is_alive(facts["pid"])
        spawns = session.read()[1].count(b"begin")
        assert 1 <= spawns <= 11
        session.send(b"6", enter=True)
        assert session.wait(LIMIT_S)["code"] == 6


def test_a_command_that_is_gone_leaves_the_ended_session_as_it_was(world, pg, name, tmp_path):
    program = tmp_path / "program"
    program.write_text("#!/bin/sh\necho once; exit 8\n")
    program.chmod(0o755)
    session = pg.start([str(program)], name)
    assert session.wait(LIMIT_S)["code"] == 8
    program.unlink()
    done = world.run("restart", name, check=127)
    assert b"command not found" in done.stderr
    facts = session.info()
    assert facts["state"] == "ended" and facts["exit"] == {"code": 8, "signal": None}
    assert session.read()[1] == b"once\r\n"
    program.write_text("#!/bin/sh\necho twice; exit 2\n")
    program.chmod(0o755)
    world.run("restart", name, check=0)
    assert session.wait(LIMIT_S)["code"] == 2 and session.read()[1] == b"once\r\ntwice\r\n"


def test_a_stubborn_program_is_ended_before_it_runs_again(world, pg, name):
    session = pg.start(["sh", "-c", "trap '' HUP TERM; echo begin $$; while :; do read x; done"], name)
    session.wait_for(rb"begin", LIMIT_S)
    pid = session.info()["pid"]
    world.run("restart", name, "--grace", "100ms", check=0)
    assert not is_alive(pid) and begun(session, 2)


def test_a_kill_in_the_middle_of_a_restart_wins(world, pg, name):
    session = pg.start(["sh", "-c", "trap '' HUP TERM; echo begin $$; while :; do read x; done"], name)
    session.wait_for(rb"begin", LIMIT_S)
    pid = session.info()["pid"]
    with pg.open_channel("test") as channel, pg.open_channel("test") as other:
        restart = channel.ask("restart", target=name, grace=86400)
        wait_until(lambda: "kill_begun session=" + session.id in world.log(), "the restart's kill")
        kill = other.ask("kill", target=name)
        with pytest.raises(PtyguardError, match="killed meanwhile"):
            channel.await_reply(restart, LIMIT_S)
        os.kill(pid, signal.SIGKILL)
        other.await_reply(kill, LIMIT_S)
    assert session.info()["state"] == "ended" and b"begin" in session.read()[1]


def test_what_only_the_disk_knows_cannot_be_restarted_and_says_why(world, pg, name):
    with World(under=MEMORY) as other:
        other.run("run", "-n", "s", "--", "true", check=0)
        other.run("daemon", "stop", check=0)
        done = other.run("restart", "s", check=1)
        assert b"not known any more" in done.stderr
        assert other.json("info", "s")["state"] == "ended"


def test_a_session_whose_output_was_dropped_begins_a_new_incarnation():
    with World(under=MEMORY, PTYGUARD_KEEP_OUTPUT="0") as world:
        world.run("run", "-n", "s", "--", "sh", "-c", "echo out; exit 1", check=1)
        with world.connect() as pg:
            session = pg.session("s")
            wait_until(lambda: session.info()["offsets"] is None, "its output to go")
            world.run("restart", "s", check=0)
            assert session.info()["incarnation"] == 2
            assert session.wait(LIMIT_S)["code"] == 1


def test_restarting_nobody_and_everybody_is_refused(world, name):
    world.run("restart", "nosuch", check=3)
    world.run("restart", check=2)
    world.run("restart", "a", "b", check=2)


# -- in the middle of a restart ----------------------------------------------------------------

# Its leader ends at once, and what it leaves behind ignores everything but SIGKILL.
STRAGGLING = ("sh -c 'trap \"\" HUP TERM; echo left; exec sleep 1000' & "
              "trap 'exit 0' HUP; echo begin $$; while :; do read x; done")


def straggling(pg, name):
    """A session between two programs: the old one has ended, a straggler has not."""
    session = pg.start(["sh", "-c", STRAGGLING], name)
    session.wait_for(rb"(?s)(left.*begin|begin.*left)", LIMIT_S)
    channel = pg.open_channel("test")
    serial = channel.ask("restart", target=name, grace=3.0)
    wait_until(lambda: not is_alive(session.facts["pid"]), "the old program's end")
    return session, channel, serial


def test_while_stragglers_are_ended_the_session_is_nobodys_to_replace(world, pg, name):
    session, channel, serial = straggling(pg, name)
    assert world.run("start", "-n", name, "--", "true").returncode == 4
    assert session.info()["state"] == "starting"
    assert pg.ensure(name, ["true"]).id == session.id
    channel.await_reply(serial, LIMIT_S)
    assert [s.id for s in pg.sessions() if s.name == name] == [session.id]
    assert running(session)
    session.kill(0.1)


def test_a_kill_while_stragglers_are_ended_is_over_when_they_are(world, pg, name):
    session, channel, serial = straggling(pg, name)
    session.kill(0.1)
    with pytest.raises(PtyguardError, match="killed meanwhile"):
        channel.await_reply(serial, LIMIT_S)
    assert session.facts["state"] == "ended"


def test_an_old_id_is_not_restarted_beside_a_living_one_of_its_name(world, pg, name):
    old = pg.start(["false"], name)
    old.wait(LIMIT_S)
    world.run("rename", name, name[-50:] + ".old", check=0)
    new = pg.start(["sleep", "1000"], name)
    world.run("kill", name, check=0)
    old.rename(name[-50:] + ".older")
    new.restart()
    assert world.run("rename", old.name, name, check=4).returncode == 4
    old.restart()
    old.wait(LIMIT_S)
    new.kill()


class Clockwork:
    """As much of a daemon as a restart sees, with a clock that is wound by hand."""

    def __init__(self):
        self.loop, self.guard, self.sessions, self.told = self, self, {}, []
        self.relaunches = self
        self.facts, self.is_up = {"wire": 2}, True
        self.timers, self.killed = [], []

    def after(self, delay_s, act):
        self.timers.append((delay_s, act))

    def kill(self, _session, _grace_s, act):
        self.killed.append(act)

    def on_tried(self, _session, error):
        """Its policy is not asked here."""

    def tell_started(self, _session, error):
        self.told.append(error)

    def tell_end(self, session):
        self.told.append(session)


def test_a_restart_that_waits_for_a_reader_of_the_last_output_is_bounded():
    """A reader that takes nothing used to keep it, and its caller, for ever."""
    daemon = Clockwork()
    session = Session({"id": "k3f9", "name": "build", "size": {"cols": 80, "rows": 24}, "state": "draining"})
    session.launch = encode_launch({"argv": [b"x"]})
    daemon.sessions["k3f9"] = session
    answers = []
    Restarts(daemon).restart(session, 5.0, answers.append)
    daemon.killed.pop()(None)           # all are dead, and its last output is not read yet
    assert not answers and session.is_restarting and not session.is_over
    delay_s, give_up = daemon.timers.pop()
    assert delay_s >= 5.0
    give_up()
    assert "waits for a reader" in answers[0].message and not session.is_restarting


def test_who_waits_for_a_lost_one_is_told_when_it_could_not_be_restarted():
    """They were told of ended ones only, and waited for ever."""
    daemon = Clockwork()
    session = Session({"id": "k3f9", "name": "build", "size": {"cols": 80, "rows": 24}, "state": "lost"})
    session.launch = encode_launch({"argv": [b"x"]})
    daemon.sessions["k3f9"] = session
    reaped, answers = [], []
    daemon.reap = lambda _session, act: reaped.append(act)
    Restarts(daemon).restart(session, 5.0, answers.append)
    error = PtyguardError("processes 7 of before live on")
    reaped.pop()(error)
    assert answers == [error] and session.is_over and daemon.told == [error, session]


def test_one_that_has_failed_is_started_once_a_kill_that_was_pending_is_confirmed():
    """Its last output was waited for, which had been read long ago."""
    daemon = Clockwork()
    session = Session({"id": "k3f9", "name": "build", "size": {"cols": 80, "rows": 24}, "state": "failed",
                       "kill_pending": {"since": 1, "tried_at": 1, "survivors": []}})
    session.launch = encode_launch({"argv": [b"x"]})
    daemon.sessions["k3f9"] = session
    restarts, started = Restarts(daemon), []
    restarts.go_on = started.append
    restarts.restart(session, 5.0, None)
    daemon.killed.pop()(None)
    assert started == [session]


def test_a_reaping_that_ends_after_its_restart_was_given_up_starts_nothing():
    daemon = Clockwork()
    session = Session({"id": "k3f9", "name": "build", "size": {"cols": 80, "rows": 24}, "state": "lost"})
    session.launch = encode_launch({"argv": [b"x"]})
    daemon.sessions["k3f9"] = session
    daemon.cancel, reaped = (lambda _session: None), []
    daemon.reap = lambda _session, act: reaped.append(act)
    restarts, answers = Restarts(daemon), []
    restarts.restart(session, 5.0, answers.append)
    restarts.cancel(session)
    restarts.restart(session, 5.0, answers.append)
    reaped[0](None)
    assert session.state == "lost" and len(answers) == 1 and "killed meanwhile" in answers[0].message


def test_an_older_guard_is_asked_for_nothing_and_nothing_is_killed():
    daemon = Clockwork()
    daemon.facts = {"wire": 1, "version": b"0.1.0"}
    session = Session({"id": "k3f9", "name": "build", "size": {"cols": 80, "rows": 24}, "state": "running"})
    session.launch = encode_launch({"argv": [b"x"]})
    with pytest.raises(PtyguardError, match="0.1.0, is too old"):
        Restarts(daemon).restart(session, 5.0, None)
    assert not daemon.killed and not session.is_restarting


def test_output_that_is_being_read_outlives_its_sessions_time(world, pg, name):
    reader = world.popen("run", "-n", name, "--ttl", "0", "--", "sh", "-c",
                         "stty -opost; read x; head -c 3000000 /dev/zero; exit 7",
                         stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    session = wait_until(lambda: next((s for s in pg.sessions() if s.name == name), None), "it")
    wait_until(lambda: session.info()["viewers"], "the reader")
    os.kill(reader.pid, signal.SIGSTOP)
    session.send(b"", enter=True)
    wait_until(lambda: session.info()["offsets"]["end"] > 1000000, "output")
    os.kill(reader.pid, signal.SIGCONT)
    out, _ = reader.communicate(timeout=LIMIT_S)
    assert reader.returncode == 7 and out.count(b"\0") == 3000000
