"""The liveness link, with real processes: who holds the daemon, how links end, what follows."""

import json
import os
import signal
import socket
import stat
import subprocess
import sys
import threading

import pytest

import ptyguard_posix as backend
from ptyguard_core import frames, guardwire as wire
from ptyguard_core.channel import Channel
from ptyguard_core.errors import PtyguardError, UsageError
from ptyguard_core.holder import Holder
from ptyguard_core.liveness import KEEP, KILL, Terms
from ptyguard_core.supervise import ask_guard
from test_ownership import Daemon
from world import MEMORY, World, is_alive, wait_until

SHORT = ["--grace", "0.2"]
# A command that lasts until it is told to end, by a file, and then has a status of its own.
LASTS = 'while [ ! -e "$1" ]; do sleep 0.02; done; exit 5'


@pytest.fixture
def own():
    """A world of this test's own: its daemon will be stopped."""
    with World(under=MEMORY) as made:
        yield made


def linked(world):
    """How many links the daemon counts; asking starts nothing."""
    return world.json("status")["daemon"]["linked"]


def wait_linked(world, count=1):
    wait_until(lambda: linked(world) == count, f"{count} links")


def state_of(world):
    """The guard's word for its daemon; None when there is no guard."""
    guard = ask_guard(backend, world.paths, wire.STATE)
    return guard and guard.text("daemon_state")


def wait_stopped(world):
    """Until the daemon has been stopped on purpose, its guard with it or not."""
    wait_until(lambda: state_of(world) in (None, "stopped"), "the daemon's stop")


def start(world, name="s"):
    """A session that lasts; its pid."""
    world.run("start", "-n", name, "--", "sleep", "1000", check=0)
    return world.json("info", name)["pid"]


def hold(world, *options, **more):
    """A link without a command, in the background, that the daemon counts."""
    before = linked(world) if os.path.isdir(world.env["PTYGUARD_DIR"]) else 0
    process = world.popen("link", *options, **more)
    wait_linked(world, before + 1)
    return process


def hello(world, **fields):
    """What the daemon says to a hello with these fields, on a connection that is closed then."""
    with Channel(backend, world.paths, "test", hello=fields) as channel:
        return channel.welcome


def unlinks(world):
    return world.log().count(" unlinked ")


# -- the command ------------------------------------------------------------------------------


def test_a_link_lasts_as_long_as_its_command_and_has_its_status(own):
    end = os.path.join(own.directory, "end")
    pid = start(own)
    link = own.popen("link", *SHORT, "--", "sh", "-c", LASTS, "sh", end)
    wait_linked(own)
    daemon = own.daemon_pid()
    open(end, "w").close()
    assert link.wait(60) == 5
    wait_stopped(own)
    assert not is_alive(daemon) and is_alive(pid)


def test_a_command_that_a_signal_ends_is_told_as_a_shell_would(own):
    own.run("link", "--", "sh", "-c", "kill -9 $$", check=137)


def test_the_command_has_our_streams_directory_environment_and_process_group(own):
    script = "cat; pwd; echo $MARK; ps -o pgid= -p $$ 2>/dev/null || cut -d' ' -f5 /proc/$$/stat; echo err >&2"
    done = own.run("link", "--", "sh", "-c", script, input=b"in\n", cwd=own.directory,
                   env=dict(own.env, MARK="marked"), check=0)
    first, second, third, group = done.stdout.decode().split()
    assert (first, second, third) == ("in", own.directory, "marked") and int(group) == os.getpgrp()
    assert done.stderr == b"err\n"


def test_without_a_command_stdin_is_not_read(own):
    read_end, write_end = os.pipe()
    os.write(write_end, b"for somebody else\n")
    link = hold(own, stdin=read_end)
    link.terminate()
    assert link.wait(60) == 0
    os.close(write_end)
    assert os.read(read_end, 100) == b"for somebody else\n"
    os.close(read_end)


@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP", "SIGINT", "SIGQUIT"])
def test_without_a_command_a_signal_ends_it(own, name):
    link = hold(own)
    link.send_signal(getattr(signal, name))
    assert link.wait(60) == 0
    wait_until(lambda: unlinks(own), "the link's end")


@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP"])
def test_a_command_gets_what_was_meant_to_end_us(own, name):
    script = f'trap "exit 9" {name[3:]}; echo ready; while :; do sleep 0.02; done'
    link = own.popen("link", "--", "sh", "-c", script, stdout=subprocess.PIPE)
    assert link.stdout.readline() == b"ready\n"
    link.send_signal(getattr(signal, name))
    assert link.wait(60) == 9


def test_ctrl_c_is_the_commands_own_matter(own):
    script = 'trap "echo caught" INT; echo ready; read line; read line; echo end; exit 4'
    terminal = own.terminal("link", "--", "sh", "-c", script)
    terminal.expect(b"ready")
    terminal.send(b"\x03")
    terminal.expect(b"caught")
    terminal.send(b"a\rb\r")
    terminal.expect(b"end")
    assert terminal.wait() == 4


def test_the_command_starts_with_what_its_caller_ignored_and_nothing_of_ours(own):
    def ignored_by_command(**how):
        link = own.popen("link", "--", "sh", "-c", "cat /proc/$$/status", stdout=subprocess.PIPE,
                         **how)
        status = link.communicate(timeout=60)[0].splitlines()
        mask = int(next(line for line in status if line.startswith(b"SigIgn")).split()[1], 16)
        return {number for number in signal.valid_signals() if mask & 1 << (number - 1)}

    assert not ignored_by_command() & {signal.SIGHUP, signal.SIGTERM, signal.SIGINT, signal.SIGPIPE}
    if sys.implementation.name == "pypy":
        return                          # which does not know what was ignored when it began
    nohup = ignored_by_command(preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN))
    assert signal.SIGHUP in nohup and signal.SIGTERM not in nohup


def test_a_command_that_is_not_there_arms_nothing(own):
    start(own)
    daemon = own.daemon_pid()
    assert b"command not found" in own.run("link", "--", "no-such-program", check=127).stderr
    plain = os.path.join(own.directory, "plain")
    open(plain, "w").close()
    assert b"cannot execute" in own.run("link", "--", plain, check=126).stderr
    assert own.daemon_pid() == daemon and "linked" not in own.log()


def test_a_file_that_is_no_program_is_126(own):
    broken = os.path.join(own.directory, "broken")
    with open(broken, "w") as file:
        file.write("#!/no/such/interpreter\n")
    os.chmod(broken, stat.S_IRWXU)
    done = own.run("link", "--", broken)
    assert done.returncode in (126, 127) and b"broken" in done.stderr


def test_without_start_a_link_starts_nothing(own):
    assert b"no daemon runs" in own.run("--no-start", "link", "--", "true", check=6).stderr


# -- how links end ----------------------------------------------------------------------------


def test_a_holder_that_is_killed_ends_its_link_as_any_other(own):
    pid = start(own)
    link = hold(own, *SHORT)
    daemon = own.daemon_pid()
    link.kill()
    wait_stopped(own)
    assert not is_alive(daemon) and is_alive(pid)
    assert own.guard_pid()                      # it keeps the session
    assert own.json("info", "s")["pid"] == pid  # and the next command starts a daemon


def test_a_command_that_outlives_its_killed_link_does_not_hold_the_daemon(own):
    end = os.path.join(own.directory, "end")
    start(own)
    link = own.popen("link", *SHORT, "--", "sh", "-c", LASTS, "sh", end)
    wait_linked(own)
    link.kill()
    wait_stopped(own)
    open(end, "w").close()


def test_of_two_holders_the_last_one_counts(own):
    start(own)
    one, other = hold(own, *SHORT), hold(own, *SHORT)
    daemon = own.daemon_pid()
    one.kill()
    wait_until(lambda: unlinks(own) == 1, "the first one's end")
    assert own.daemon_pid() == daemon and linked(own) == 1 and "orphaned" not in own.log()
    other.kill()
    wait_stopped(own)
    assert own.log().count(" orphaned ") == 1


def test_without_sessions_the_guard_goes_too(own):
    link = hold(own, *SHORT)
    guard, daemon = own.guard_pid(), own.daemon_pid()
    link.kill()
    wait_until(lambda: not is_alive(guard) and not is_alive(daemon), "both ends")
    assert own.json("status")["state"] == "stopped"
    assert not os.path.exists(own.paths.client_socket)


def test_with_kill_sessions_end_first_and_then_everything(own):
    pids = [start(own, "one"), start(own, "two")]
    link = hold(own, *SHORT, "--on-orphan", "kill")
    everything = [own.guard_pid(), own.daemon_pid(), *pids]
    link.kill()
    wait_until(lambda: not any(map(is_alive, everything)), "all ends")
    sessions = own.json("ls", "-a")["sessions"]
    assert [s["exit"] for s in sessions] == [{"code": None, "signal": "SIGHUP"}] * 2


def test_a_link_within_the_grace_calls_it_off(own):
    start(own)
    first = hold(own, "--grace", "30")
    daemon = own.daemon_pid()
    first.kill()
    wait_until(lambda: unlinks(own) == 1, "the drop")
    second = hold(own, *SHORT)
    assert own.daemon_pid() == daemon
    second.kill()                       # 30 s have not passed since; its own 0.2 s count
    wait_stopped(own)
    assert own.log().count(" orphaned ") == 1


def test_what_has_fired_is_over_and_the_next_daemon_stays(own):
    pid = start(own)
    hold(own, "--grace", "0").kill()
    wait_stopped(own)
    assert own.json("info", "s")["pid"] == pid
    own.new_daemon_pid(own.kill_daemon())
    assert own.json("info", "s")["pid"] == pid
    assert linked(own) == 0 and own.log().count(" orphaned ") == 1
    assert own.log().count("holders_awaited") == 0
    hold(own, "--grace", "0").kill()    # and a new link arms it anew
    wait_stopped(own)


# -- daemons that die and are replaced --------------------------------------------------------


def test_a_holder_goes_over_to_the_next_daemon_when_one_is_killed(own):
    pid = start(own)
    link = hold(own, *SHORT)
    dead = own.kill_daemon()
    alive = own.new_daemon_pid(dead)
    wait_linked(own)
    assert link.poll() is None and own.daemon_pid() == alive and is_alive(pid)
    own.run("daemon", "restart", check=0)
    own.new_daemon_pid(alive)
    wait_linked(own)
    assert "orphaned" not in own.log()
    link.kill()
    wait_stopped(own)
    assert is_alive(pid)


def test_a_holder_that_went_while_no_daemon_lived_is_missed_by_the_next_one(own):
    pid = start(own)
    link = hold(own, *SHORT, "--on-orphan", "kill")
    guard, daemon = own.guard_pid(), own.daemon_pid()
    os.kill(guard, signal.SIGSTOP)      # no successor before the holder has gone
    os.kill(daemon, signal.SIGKILL)
    wait_until(lambda: not is_alive(daemon), "the daemon's death")
    link.kill()
    link.wait(60)
    os.kill(guard, signal.SIGCONT)
    wait_until(lambda: not is_alive(guard) and not is_alive(pid), "all ends")
    assert "holders_awaited" in own.log() and own.log().count(" orphaned ") == 1


def test_a_holder_that_went_before_the_daemon_died_is_missed_by_the_next_one(own):
    start(own)
    link = hold(own, "--grace", "4")
    link.kill()
    wait_until(lambda: unlinks(own), "the drop")
    own.kill_daemon()
    wait_until(lambda: "orphaned" in own.log(), "the end of the grace")
    wait_stopped(own)


def test_a_link_holds_over_the_guards_death(own):
    pid = start(own)
    own.run("daemon", "start", "--owner", "app", check=0)
    link = hold(own, *SHORT)
    daemon = own.daemon_pid()
    own.new_guard_pid(own.kill_guard())
    wait_until(lambda: state_of(own) == "serving", "the deposit")
    assert own.daemon_pid() == daemon and linked(own) == 1
    own.new_daemon_pid(own.kill_daemon())       # the new guard knows what the old one did
    wait_linked(own)
    assert own.json("status")["daemon"]["owner"] == "app"
    link.kill()
    wait_stopped(own)
    assert is_alive(pid)


def test_the_end_of_the_last_link_while_there_is_no_guard_stops_the_daemon_all_the_same(own):
    pid = start(own)
    link = hold(own, *SHORT)
    daemon = own.daemon_pid()
    os.kill(own.guard_pid(), signal.SIGKILL)
    link.kill()
    wait_until(lambda: not is_alive(daemon), "the daemon's stop")
    wait_stopped(own)
    assert is_alive(pid)


# -- stopped on purpose -----------------------------------------------------------------------


@pytest.mark.parametrize("options", [["--sessions", "keep"], ["--sessions", "kill"]], ids=" ".join)
def test_a_holder_does_not_come_back_to_a_daemon_that_was_stopped(own, options):
    start(own)
    link = hold(own, stderr=subprocess.PIPE)
    own.run("daemon", "stop", *options, check=0)
    assert b"the daemon was stopped" in link.communicate(timeout=60)[1]
    assert link.returncode == 0
    own.run("ls", check=0)              # another daemon, which nobody holds
    assert linked(own) == 0 and "orphaned" not in own.log()


def test_a_stop_by_force_that_could_tell_nobody_is_known_from_the_guard(own):
    start(own)
    link = hold(own, stderr=subprocess.PIPE)
    os.kill(own.daemon_pid(), signal.SIGSTOP)
    own.run("daemon", "stop", "--sessions", "keep", "--force", "--timeout", "0.1", check=0)
    assert b"the daemon was stopped" in link.communicate(timeout=60)[1]
    assert state_of(own) == "stopped"           # it has not waken one
    own.run("ls", check=0)
    assert linked(own) == 0 and "holders_awaited" not in own.log()


def test_a_command_goes_on_when_the_daemon_is_stopped(own):
    end = os.path.join(own.directory, "end")
    link = own.popen("link", "--", "sh", "-c", LASTS, "sh", end, stderr=subprocess.PIPE)
    wait_linked(own)
    own.run("daemon", "stop", check=0)
    assert b"goes on without the link" in link.stderr.readline()
    open(end, "w").close()
    assert link.wait(60) == 5
    assert own.json("status")["state"] == "stopped"


def test_where_guard_and_daemon_are_gone_a_holder_starts_neither(own):
    link = hold(own, stderr=subprocess.PIPE)
    pids = own.guard_pid(), own.daemon_pid()
    for number in (signal.SIGSTOP, signal.SIGKILL):     # neither may replace the other
        for pid in pids:
            os.kill(pid, number)
    assert b"are gone" in link.communicate(timeout=60)[1]
    assert not os.path.exists(own.paths.guard_socket) or state_of(own) is None


def test_a_link_can_be_closed_again_and_again(own):
    own.run("daemon", "start", check=0)
    holder = Holder(backend, own.paths, Terms(30.0, KEEP))
    holder._connect(True, 60)           # `open` would take over this process's signals
    assert holder.is_linked and linked(own) == 1
    for _ in range(3):
        holder.close()
    assert not holder.is_linked
    wait_linked(own, 0)


# -- whose daemon -----------------------------------------------------------------------------


def test_the_owner_is_set_told_and_known_to_every_successor(own):
    assert hello(own)["owner"] == "headless"
    for owner in ("app", "persistent", "headless", "app"):
        own.run("daemon", "start", "--owner", owner, check=0)
        assert own.json("status")["daemon"]["owner"] == owner
        own.new_daemon_pid(own.kill_daemon())
        assert hello(own)["owner"] == owner
        own.run("daemon", "restart", check=0)
        assert hello(own)["owner"] == owner
    start(own)
    own.run("daemon", "start", check=0)         # says nothing of it
    own.run("daemon", "stop", "--sessions", "keep", check=0)
    assert hello(own)["owner"] == "app"         # stopped on purpose: still whose it was
    own.run("daemon", "start", "--owner", "nobody", check=2)


@pytest.mark.parametrize("owner", ["persistent", "headless"])
def test_a_daemon_that_was_said_to_be_nobodys_outlives_every_link(own, owner):
    own.run("daemon", "start", "--owner", owner, check=0)
    daemon = own.daemon_pid()
    said = own.run("link", "--grace", "0", "--", "true", check=0).stderr
    assert b"it will outlive this one" in said and owner.encode() in said
    wait_until(lambda: unlinks(own), "the link's end")
    # With no grace it would have fired in that same turn.
    assert own.json("status")["state"] == "running" and own.daemon_pid() == daemon
    assert "orphaned" not in own.log()


def test_who_attaches_to_an_apps_daemon_holds_it(own):
    own.run("daemon", "start", "--owner", "app", check=0)
    own.run("start", "-n", "s", "--", "cat", check=0)
    app = hold(own, *SHORT)
    terminal = own.terminal("attach", "s")
    wait_linked(own, 2)
    app.kill()
    wait_linked(own, 1)
    terminal.send(b"hello\r")
    terminal.expect(b"hello\r\nhello\r\n")
    own.new_daemon_pid(own.kill_daemon())
    wait_linked(own, 1)                 # it says so to the next one as well
    terminal.send(b"\x1c")
    terminal.expect(b"detached")
    wait_until(lambda: unlinks(own) == 2, "its leaving")
    wait_stopped(own)


def test_who_attaches_to_any_other_daemon_does_not(own):
    own.run("start", "-n", "s", "--", "cat", check=0)
    for owner in (None, "persistent", "headless"):
        if owner:
            own.run("daemon", "start", "--owner", owner, check=0)
        terminal = own.terminal("attach", "s")
        terminal.send(b"hello\r")
        terminal.expect(b"hello\r\nhello\r\n")
        assert linked(own) == 0
        terminal.send(b"\x1c")
        terminal.expect(b"detached")
        terminal.wait()
    assert "linked" not in own.log()


def test_a_hello_that_says_nonsense_of_its_link_is_refused_and_arms_nothing(own):
    for wrong in ({"grace": -1}, {"grace": "5"}, {"on_orphan": "both"}, {"grace": float("inf")}):
        with pytest.raises(UsageError):
            hello(own, **dict({"link": True}, **wrong))
    assert linked(own) == 0 and "linked" not in own.log()


def test_a_hello_again_on_the_same_connection_is_the_same_holder(own):
    with Channel(backend, own.paths, "test", hello={"link": True, "grace": 30}) as channel:
        for _ in range(3):
            channel._say_hello(float("inf"))
        assert linked(own) == 1
    wait_linked(own, 0)


# -- regressions ------------------------------------------------------------------------------


def test_regression_08_the_owner_is_that_of_the_hello_and_of_no_later_look(own):
    """A client asked who owns the daemon, then read it again from a file: by then another
    daemon might be there, and the client was linked to one that was nobody's."""
    own.run("daemon", "start", check=0)
    is_over = threading.Event()

    def turn():
        with own.connect() as pg:
            while not is_over.is_set():
                for owner in ("app", "headless", "persistent"):
                    pg.request("own", owner=owner)

    turning = threading.Thread(target=turn)
    turning.start()
    try:
        told = [hello(own, link="if_app", grace=30) for _ in range(300)]
    finally:
        is_over.set()
        turning.join(60)
    assert all(each["link"] == (each["owner"] == "app") for each in told)
    assert {each["link"] for each in told} == {True, False}
    for directory, _, names in os.walk(own.env["PTYGUARD_DIR"]):
        for name in names:
            path = os.path.join(directory, name)
            if os.path.isfile(path) and not name.endswith((".log", ".pyz")):
                with open(path, "rb") as file:
                    assert b"persistent" not in file.read(), "nowhere to read it again from"


def test_regression_09_an_older_timer_does_not_stop_the_daemon_early():
    """A holder went, one came back and went again; the first one's timer was still there,
    and fired in the middle of the second grace."""
    daemon = Daemon()
    looks = []
    watch = daemon.loop.at
    daemon.loop.at = lambda deadline, act: looks.append(act) or watch(deadline, act)
    first, _ = daemon.link(5.0)
    daemon.unlink(first)
    daemon.loop.pass_time(3)
    second, _ = daemon.link(5.0)
    looks[0]()                          # while somebody holds
    daemon.unlink(second)
    daemon.loop.pass_time(2.5)          # past the first one's deadline
    looks[0]()                          # even if it came all the same
    assert not daemon.has_asked
    daemon.loop.pass_time(2.6)
    assert daemon.has_asked == 1
    for look in looks:
        look()
    assert daemon.has_asked == 1


def test_regression_10_strays_and_probes_never_arm_the_watchdog(own):
    """Whoever connected counted as a holder, and its leaving stopped the daemon."""
    start(own)
    daemon = own.daemon_pid()
    hellos = [{}, {"link": False}, {"link": 1}, {"link": "yes"}, {"link": "if_app"},
              {"grace": 0, "on_orphan": KILL}]
    for fields in hellos:
        assert hello(own, **dict({"grace": 0}, **fields))["link"] is False
    Channel(backend, own.paths, "link", hello={"grace": 0}).close()     # a role is only a word
    unwelcome = [b"", b"\0", b"GET / HTTP/1.0\r\n\r\n",
                 frames.control(frames.HELLO, {"link": True, "grace": 0}),    # no protocol
                 frames.control(frames.HELLO, {"link": True, "grace": 0, "protocol": [900, 901]}),
                 frames.control(frames.REQUEST, {"id": 1, "verb": "ls", "link": True, "grace": 0}),
                 frames.control(frames.HELLO, {"link": True, "grace": 0, "protocol": [1, 1]})[:-1]]
    for data in unwelcome:
        with socket.socket(socket.AF_UNIX) as stray:
            stray.connect(own.paths.client_socket)
            stray.sendall(data)
    for words in (["ls"], ["status"], ["doctor"], ["daemon", "start"], ["has", "s"]):
        own.run(*words)
    ask_guard(backend, own.paths, wire.DEAF)
    with own.connect() as pg:
        with pytest.raises(PtyguardError):
            pg.request("nonsense", link=True, grace=0)
    log = own.log()
    # With no grace, whatever had armed it would have fired by now.
    assert own.daemon_pid() == daemon and json.loads(own.run("ls", "--json").stdout)["sessions"]
    assert "linked" not in log and "orphaned" not in log and linked(own) == 0
