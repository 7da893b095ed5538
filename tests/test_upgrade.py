"""Upgrade: another program for the daemon, and nobody is worse off, whatever that program does."""

import os
import re
import signal
import stat
import subprocess
import sys

import pytest

from ptyguard_core import guardwire as wire
from ptyguard_core.version import OURS
from variants import BROKEN, BROKEN_AFTER_GO, broken_daemon, make_variant
from world import LIMIT_S, MEMORY, Flood, World, wait_until

LATER, LATEST, EARLIER = "90.1.0", "90.2.0", "0.0.1"


@pytest.fixture(scope="module")
def archives(tmp_path_factory):
    """Well-behaved archives by version."""
    folder = tmp_path_factory.mktemp("archives")
    return {version: make_variant(folder / f"{version}.pyz", version)
            for version in (LATER, LATEST, EARLIER)}


@pytest.fixture
def own():
    with World(under=MEMORY) as world:
        yield world


def as_version(world, archive, *args, **options):
    """One command of another archive in the same world."""
    before, world.program = world.program, [sys.executable, archive]
    try:
        return world.run(*args, **options)
    finally:
        world.program = before


def breadcrumbs(world):
    """(after, prev, now) of each restart's line, oldest first."""
    return re.findall(r"daemon started after=(\S+) prev=(\S+) now=(\S+) by=", world.log())


def facts_of(world):
    """What an upgrade must not change, by session's name."""
    return {session["name"]: {key: session[key] for key in (
        "id", "pid", "pid_start", "incarnation", "argv", "cwd", "size", "created_at", "labels",
        "restart", "state", "exit")} for session in world.json("ls", "-a")["sessions"]}


def running(world):
    return world.json("status")["daemon"]["version"]


# -- asked for --------------------------------------------------------------------------------

def test_an_upgrade_changes_the_code_and_nothing_else(own, archives):
    for n in range(20):
        own.run("start", "-n", f"s{n}", "--label", f"n={n}", "--size", f"{40 + n}x12", "--",
                "sh", "-c", f"echo I am {n}; cat", check=0)
    own.run("run", "-n", "over", "--", "sh", "-c", "exit 9", check=9)
    before, guard, daemon = facts_of(own), own.guard_pid(), own.daemon_pid()
    done = own.run("upgrade", "--to", archives[LATER], check=0)
    assert LATER in done.stdout.decode()
    assert facts_of(own) == before and len(before) == 21
    assert own.guard_pid() == guard and own.daemon_pid() != daemon
    assert running(own) == LATER
    assert breadcrumbs(own) == [("upgrade", OURS, LATER)]
    for n in range(20):
        own.run("send", "--enter", f"s{n}", f"still {n}", check=0)
        own.run("wait", f"s{n}", "--for", f"still {n}", "--timeout", "60", check=0)
        assert own.run("log", f"s{n}", check=0).stdout.startswith(b"I am %d" % n)
    own.run("wait", "over", check=9)


def test_twice_in_a_row_and_back_again(own, archives):
    own.run("start", "-n", "s", "--", "cat", check=0)
    before = facts_of(own)
    for version in (LATER, LATEST, EARLIER, LATEST):
        own.run("upgrade", "--to", archives[version], check=0)
        assert running(own) == version and facts_of(own) == before
    assert [now for _, _, now in breadcrumbs(own)] == [LATER, LATEST, EARLIER, LATEST]


def test_to_a_file_of_the_same_version_and_content_replaces_all_the_same(own, archives):
    own.run("upgrade", "--to", archives[LATER], check=0)
    daemon = own.daemon_pid()
    own.run("upgrade", "--to", archives[LATER], check=0)
    assert own.daemon_pid() != daemon


def test_to_what_runs_already_says_so_and_replaces_nothing(own):
    own.run("start", "-n", "s", "--", "cat", check=0)
    daemon = own.daemon_pid()
    for words in (["upgrade"], ["upgrade", "--check"], ["upgrade", "--guard"]):
        assert f"{OURS} runs already" in own.run(*words, check=0).stdout.decode()
    assert own.daemon_pid() == daemon and not breadcrumbs(own)


def test_where_nothing_runs_an_upgrade_starts_nothing(own):
    assert b"no daemon runs" in own.run("upgrade", check=0).stdout
    assert b"no daemon runs" in own.run("upgrade", "--check", check=0).stdout
    assert own.json("status")["state"] == "stopped"


def test_check_tells_and_changes_nothing(own, archives):
    own.run("start", "-n", "s", "--", "cat", check=0)
    daemon = own.daemon_pid()
    told = own.json("upgrade", "--check", "--to", archives[LATER])
    assert (told["pending"], told["running"], told["version"], told["living"]) == (True, OURS, LATER, 1)
    assert not own.json("upgrade", "--check", "--to", archives[EARLIER])["pending"]
    assert own.daemon_pid() == daemon


def test_a_later_daemon_is_left_alone_by_an_earlier_upgrade(own, archives):
    own.run("start", "-n", "s", "--", "cat", check=0)
    own.run("upgrade", "--to", archives[LATER], check=0)
    daemon = own.daemon_pid()
    refused = own.run("upgrade", check=1).stderr.decode()
    assert f"the daemon is newer: {LATER}" in refused and "--to" in refused
    own.run("daemon", "restart", check=0)           # of what runs: nobody asked to go back
    assert running(own) == LATER and own.daemon_pid() != daemon


def test_regression_13_bytes_lost_or_split_in_a_hand_over_with_two_readers(own, archives):
    """A flood, its reader, a terminal and a waiter notice nothing."""
    flood = Flood(own.directory)
    with open(os.path.join(own.directory, "out"), "w+b") as out:
        reader = own.popen("run", "-n", "flood", "--", *flood.argv, stdout=out)
        wait_until(lambda: not own.run("has", "flood").returncode, "the session")
        own.run("wait", "flood", "--for", "ready", "--timeout", "60", check=0)
        own.run("start", "-n", "shell", "--", "sh", "-c", "stty -echo; echo here; cat", check=0)
        terminal = own.terminal("attach", "shell")
        terminal.expect(rb"here")
        waiter = own.popen("wait", "flood")
        flood.go()
        for version in (LATER, LATEST, LATER):
            own.run("upgrade", "--to", archives[version], check=0)
            terminal.send(version.encode() + b" typed\n")
            terminal.expect(re.escape(version.encode()) + rb" typed")
        flood.stop()
        assert reader.wait(LIMIT_S) == flood.STATUS
        assert waiter.wait(LIMIT_S) == flood.STATUS
        out.seek(0)
        assert out.read() == flood.output()
        assert own.run("detach", "shell", check=0).returncode == terminal.wait() == 0


def test_ten_at_once_leave_one_that_serves(own, archives):
    own.run("start", "-n", "s", "--", "cat", check=0)
    before = facts_of(own)
    several = [own.popen("upgrade", "--to", archives[version], stdout=subprocess.DEVNULL)
               for version in (LATER, LATEST) * 5]
    assert [process.wait(2 * LIMIT_S) for process in several] == [0] * 10
    assert facts_of(own) == before and running(own) in (LATER, LATEST)
    starts = breadcrumbs(own)
    assert 2 <= len(starts) <= 10 and {after for after, _, _ in starts} == {"upgrade"}


def test_what_is_asked_for_during_an_upgrade_waits_for_it(own, archives):
    own.run("start", "-n", "first", "--", "cat", check=0)
    guard = own.guard_pid()
    upgrades = [own.popen("upgrade", "--to", archives[LATER], stdout=subprocess.DEVNULL)]
    others = [own.popen("start", "-n", f"s{n}", "--", "cat", stdout=subprocess.DEVNULL) for n in range(6)]
    others += [own.popen("ensure", "e", "--", "cat", stdout=subprocess.DEVNULL) for _ in range(4)]
    terminal = own.terminal("attach", "first")
    assert [process.wait(2 * LIMIT_S) for process in upgrades + others] == [0] * 11
    terminal.send(b"hello\n")
    terminal.expect(rb"hello\r\nhello")
    assert own.guard_pid() == guard
    assert set(facts_of(own)) == {"first", "e"} | {f"s{n}" for n in range(6)}


# -- files that are no good -------------------------------------------------------------------

def _junk(path):
    path.write_bytes(b"#!/usr/bin/env python3\n" + os.urandom(5000))


def _another_program(path):
    import zipfile
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("__main__.py", "print('ptyguard 99.0.0')")


def _cut(path):
    make_variant(path, LATER)
    path.write_bytes(path.read_bytes()[:-2000])


def _world_writable(path):
    make_variant(path, LATER)
    path.chmod(0o757)


def _group_writable(path):
    make_variant(path, LATER)
    path.chmod(0o775)


def _of_somebody_else(path):
    make_variant(path, LATER)
    if os.getuid():
        pytest.skip("only root can give a file away")
    os.chown(path, 65534, -1)


def _fifo(path):
    os.mkfifo(path)


def _directory(path):
    path.mkdir()


def _nothing(path):
    pass


def _without_version(path):
    make_variant(path, "mine")


def _of_a_version_without_end(path):
    make_variant(path, "1.0." + "9" * 300)


def _that_cannot_be_compiled(path):
    make_variant(path, LATER, behind={"ptyguard_core/daemon.py": "def ("})


def _that_fails_at_once(path):
    make_variant(path, LATER, behind={"ptyguard_core/errors.py": "raise RuntimeError('no')"})


@pytest.mark.parametrize("make, says", [
    (_junk, b"not a ptyguard"), (_another_program, b"another program"), (_cut, b"not a ptyguard"),
    (_world_writable, b"chmod go-w"), (_group_writable, b"chmod go-w"),
    (_of_somebody_else, b"belongs to uid 65534"), (_fifo, b"not a ptyguard"),
    (_directory, b"Is a directory"), (_nothing, b"No such file"), (_without_version, b"no version"), (_of_a_version_without_end, b"no version"),
    (_that_cannot_be_compiled, b"compile"), (_that_fails_at_once, b"does not even tell its version"),
], ids=lambda value: getattr(value, "__name__", ""))
def test_a_file_that_is_no_good_is_refused_and_the_daemon_serves_on(world, tmp_path, make, says):
    world.run("ensure", "s", "--", "cat", check=0)
    daemon = world.daemon_pid()
    path = tmp_path / "file.pyz"
    make(path)
    for check in ([], ["--check"]):
        done = world.run("upgrade", "--to", str(path), *check)
        assert done.returncode == 1 and says in done.stderr, done
        assert done.stderr.count(b"\n") == 1 and str(path).encode() in done.stderr
    assert world.daemon_pid() == daemon
    assert not [name for name in os.listdir(world.paths.copies) if ".tmp-" in name]


# -- programs that are no good ----------------------------------------------------------------

@pytest.mark.parametrize("how", sorted({**BROKEN, **BROKEN_AFTER_GO}))
def test_a_successor_that(how, tmp_path):
    """... leaves sessions as they were and the code that was before serving; status tells."""
    archive = broken_daemon(tmp_path / "broken.pyz", LATER, {**BROKEN, **BROKEN_AFTER_GO}[how])
    with World(under=MEMORY) as world:
        world.run("start", "-n", "s", "--", "sh", "-c", "stty -echo; echo here; cat", check=0)
        world.run("wait", "s", "--for", "here", "--timeout", "60", check=0)
        terminal = world.terminal("attach", "s")
        terminal.expect(rb"here")
        before = facts_of(world)
        done = world.run("upgrade", "--to", archive)
        if how in BROKEN and "when ready" not in how and "after ready" not in how:
            assert done.returncode == 6 and f"not upgraded to {LATER}: ".encode() in done.stderr, done   # of those the go may be quicker
        terminal.send(b"on we go\n")
        terminal.expect(rb"on we go")
        wait_until(lambda: world.json("status")["daemon"]["version"] == OURS, "the old code", 120)
        update = wait_until(lambda: world.json("status")["update"]["last_failure"] and
                            world.json("status")["update"], "word of the failure")
        assert LATER in update["last_failure"], update
        assert f"{LATER}" in world.run("status").stdout.decode()
        assert facts_of(world) == before
        assert "circuit_open" not in world.log("guard")
        world.run("upgrade", "--to", make_variant(tmp_path / "good.pyz", LATEST), check=0)
        assert world.json("status")["update"]["last_failure"] is None
        assert facts_of(world) == before


def test_what_falls_back_leaves_a_breadcrumb_and_is_not_tried_again_unasked(tmp_path):
    archive = broken_daemon(tmp_path / "broken.pyz", LATER, BROKEN_AFTER_GO["dies once it serves"])
    with World(under=MEMORY) as world:
        world.run("start", "-n", "s", "--", "cat", check=0)
        world.run("upgrade", "--to", archive)
        wait_until(lambda: running(world) == OURS, "the old code")
        assert breadcrumbs(world)[-1] == ("fall-back", LATER, OURS)
        daemon = world.daemon_pid()
        as_version(world, archive, "ls", check=0, env=dict(world.env, PTYGUARD_AUTO_UPGRADE="always"))
        assert world.daemon_pid() == daemon
        assert world.json("status")["update"]["deferred_reason"] == "failed_before"


def test_kill_9_says_nothing_about_a_new_program(own, archives):
    own.run("start", "-n", "s", "--", "cat", check=0)
    own.run("upgrade", "--to", archives[LATER], check=0)
    for _ in range(5):
        old = own.kill_daemon()
        own.new_daemon_pid(old)
        assert running(own) == LATER
    assert own.json("status")["update"]["last_failure"] is None


def test_typed_input_goes_on_over_upgrades_and_restarts(own, archives):
    """What was in the socket as the old daemon left was lost: nobody had read it."""
    told = os.path.join(own.directory, "told")
    own.run("start", "-n", "s", "--", "sh", "-c", f"stty raw -echo; echo ready; exec cat > {told}", check=0)
    own.run("wait", "s", "--for", "ready", "--timeout", "60", check=0)
    terminal = own.terminal("attach", "s")
    terminal.expect(rb"ready")
    typed = 0
    for words in (["upgrade", "--to", archives[LATER]], ["daemon", "restart"],
                  ["upgrade", "--to", archives[LATEST], "--guard"], ["daemon", "restart"]):
        changing = own.popen(*words, stdout=subprocess.DEVNULL)
        while changing.poll() is None:
            terminal.send(b"<%d>" % typed)
            terminal.read_more(0.002)
            typed += 1
        assert changing.returncode == 0
    terminal.send(b"end")

    def content():
        with open(told, "rb") as file:
            return file.read()

    wait_until(lambda: content().endswith(b"end"), "the last of it")
    assert content() == b"".join(b"<%d>" % n for n in range(typed)) + b"end"


# -- unasked ----------------------------------------------------------------------------------

def test_a_newer_command_replaces_an_idle_daemon_once(own, archives):
    own.run("run", "-n", "over", "--", "sh", "-c", "exit 5", check=5)
    as_version(own, archives[LATER], "ls", check=0)
    assert running(own) == LATER
    daemon = own.daemon_pid()
    for archive in (archives[LATER], archives[EARLIER]):
        as_version(own, archive, "ls", check=0)
    own.run("wait", "over", check=5)                # the older command works with the newer daemon
    assert own.daemon_pid() == daemon
    assert breadcrumbs(own) == [("version-mismatch", OURS, LATER)]


def test_while_a_session_lives_it_defers_and_tells_once(own, archives):
    own.run("start", "-n", "s", "--", "cat", check=0)
    daemon = own.daemon_pid()
    for _ in range(3):
        as_version(own, archives[LATER], "ls", check=0)
    assert own.daemon_pid() == daemon
    assert own.log("guard").count("deferred reason=live_sessions_present") == 1
    update = own.json("status")["update"]
    assert update == {"pending": True, "running": OURS, "newest": LATER,
                      "deferred_reason": "live_sessions_present", "last_failure": None}
    assert LATER in own.run("status", check=0).stdout.decode()
    as_version(own, archives[LATER], "upgrade", check=0)
    assert running(own) == LATER and not own.json("status")["update"]["pending"]
    assert set(facts_of(own)) == {"s"}


def test_people_are_told_of_it_once_for_each_pair_of_versions(own, archives):
    own.run("start", "-n", "s", "--", "cat", check=0)
    for version, told in ((LATER, True), (LATER, False), (LATEST, True), (LATER, False)):
        terminal = own.terminal("has", "s", program=[sys.executable, archives[version]])
        assert terminal.wait() == 0
        assert (b"ptyguard upgrade does it" in terminal.output) == told, terminal.output
    done = as_version(own, archives[LATEST], "has", "s", check=0)
    assert done.stderr == b""                       # scripts are not


@pytest.mark.parametrize("policy, lives, is_replaced", [
    ("always", True, True), ("never", False, False), ("idle", False, True), ("", False, True)])
def test_the_policy_is_obeyed(own, archives, policy, lives, is_replaced):
    if lives:
        own.run("start", "-n", "s", "--", "cat", check=0)
    else:
        own.run("ls", check=0)
    before = facts_of(own)
    as_version(own, archives[LATER], "ls", check=0, env=dict(own.env, PTYGUARD_AUTO_UPGRADE=policy))
    assert running(own) == (LATER if is_replaced else OURS)
    assert facts_of(own) == before


def test_a_policy_that_is_none_is_an_error(own):
    own.run("ls", check=0)
    done = own.run("ls", env=dict(own.env, PTYGUARD_AUTO_UPGRADE="sometimes"), check=2)
    assert b"PTYGUARD_AUTO_UPGRADE" in done.stderr and b"idle, always, never" in done.stderr


@pytest.mark.parametrize("verb", [["status"], ["status", "--json"], ["doctor"], ["version", "--daemon"],
                                  ["upgrade", "--check"], ["daemon", "log"], ["ls", "--no-start"]],
                         ids=" ".join)
def test_whoever_only_looks_replaces_nothing(own, archives, verb):
    own.run("ls", check=0)
    daemon = own.daemon_pid()
    as_version(own, archives[LATER], *verb)
    assert own.daemon_pid() == daemon


def test_twenty_newer_commands_at_once_are_one_restart(own, archives):
    own.run("run", "--", "true", check=0)
    before, own.program = own.program, [sys.executable, archives[LATER]]
    many = [own.popen("ls", stdout=subprocess.DEVNULL) for _ in range(20)]
    assert [process.wait(3 * LIMIT_S) for process in many] == [0] * 20
    own.program = before
    assert breadcrumbs(own) == [("version-mismatch", OURS, LATER)]
    assert running(own) == LATER


def test_a_newer_command_that_starts_a_session_gets_it_from_the_newer_daemon(own, archives):
    own.run("ls", check=0)
    done = as_version(own, archives[LATER], "run", "--", "sh", "-c", "echo hi; exit 4", check=4)
    assert done.stdout == b"hi\r\n"
    assert running(own) == LATER


def test_regression_22_two_installed_versions_killing_each_others_daemon(own, archives):
    for _ in range(3):
        for archive in (archives[LATER], archives[EARLIER], archives[LATEST], archives[LATER]):
            as_version(own, archive, "ls", check=0, env=dict(own.env, PTYGUARD_AUTO_UPGRADE="always"))
    assert [now for _, _, now in breadcrumbs(own)] == [LATEST]


def test_after_an_operator_went_back_nobody_goes_forward_unasked(own, archives):
    as_version(own, archives[LATER], "ls", check=0)
    own.run("upgrade", "--to", archives[EARLIER], check=0)
    always = dict(own.env, PTYGUARD_AUTO_UPGRADE="always")
    as_version(own, archives[LATER], "ls", check=0, env=always)
    assert running(own) == EARLIER
    assert own.json("status")["update"]["deferred_reason"] == "held_back"
    as_version(own, archives[LATEST], "ls", check=0, env=always)       # this one is news
    assert running(own) == LATEST


@pytest.mark.parametrize("said", ["9.9\x1b[31mX", "mine", "1.0." + "9" * 200, "1.2"])
def test_a_said_version_that_is_none_is_an_error_and_reaches_no_terminal(own, said):
    done = own.run("ls", env=dict(own.env, PTYGUARD_TEST_VERSION=said), check=2)
    assert b"PTYGUARD_TEST_VERSION" in done.stderr and b"\x1b" not in done.stderr


def test_a_version_that_is_only_said_is_tried_once_and_never_reaches_a_session(own):
    own.run("ls", check=0)
    said = dict(own.env, PTYGUARD_TEST_VERSION=LATER, PTYGUARD_AUTO_UPGRADE="always")
    own.run("start", "-n", "s", "--", "sh", "-c", "env | grep PTYGUARD_TEST; echo done; cat", env=said,
            check=0)
    assert running(own) == LATER                    # its copy says so too
    own.run("wait", "s", "--for", "done", "--timeout", "60", check=0)
    assert own.run("log", "s", check=0).stdout == b"done\n"


def test_a_daemon_that_says_another_version_than_it_should_is_replaced_once(own, tmp_path):
    liar = make_variant(tmp_path / "liar.pyz", LATER, behind={
        "ptyguard_core/daemon.py": f"_about = Daemon.about\n"
                                   f"Daemon.about = lambda self: dict(_about(self), version={OURS!r})\n"})
    own.run("ls", check=0)
    terminal = own.terminal("ls", program=[sys.executable, liar])
    assert terminal.wait() == 0
    assert b"PTYGUARD_TEST_VERSION" in terminal.output
    daemon = own.daemon_pid()
    as_version(own, liar, "ls", check=0)
    assert own.daemon_pid() == daemon
    assert len(breadcrumbs(own)) == 1


def ask(world, type_, **fields):
    """What the guard answers to one message."""
    import ptyguard_posix as backend
    from ptyguard_core.supervise import ask_guard
    return ask_guard(backend, world.paths, type_, LIMIT_S, **fields)


@pytest.mark.parametrize("version", [EARLIER, OURS, "mine"])
def test_an_offer_that_comes_late_does_not_undo_what_was_quicker(own, archives, version):
    """It was made for an older daemon, and the guard had exchanged that one meanwhile."""
    own.run("ls", check=0)
    before = own.json("status")["daemon"]["binary"]
    own.run("upgrade", "--to", archives[LATER], check=0)
    daemon = own.daemon_pid()
    for mode in (b"idle", b"always"):
        answer = ask(own, wire.RESTART, mode=mode, version=version, binary=os.fsencode(before),
                     interpreter=os.fsencode(sys.executable))
        assert answer.type == wire.OK and answer.text("daemon_version") == LATER
    assert own.daemon_pid() == daemon


def test_what_was_killed_is_no_failed_version(own, tmp_path):
    own.run("start", "-n", "s", "--", "cat", check=0)
    hanging = own.popen("upgrade", "--to", broken_daemon(tmp_path / "b.pyz", LATER, BROKEN["hangs"]),
                        stderr=subprocess.DEVNULL)
    pid = wait_until(lambda: re.findall(r"daemon_started pid=(\d+)", own.log("guard"))[1:], "the successor")
    os.kill(int(pid[0]), signal.SIGKILL)
    assert hanging.wait(LIMIT_S) == 6
    assert own.json("status")["update"]["last_failure"]
    always = dict(own.env, PTYGUARD_AUTO_UPGRADE="always")
    as_version(own, make_variant(tmp_path / "good.pyz", LATER), "ls", check=0, env=always)
    assert running(own) == LATER


def test_who_ends_a_new_daemon_by_sigterm_says_nothing_about_its_program(own, archives):
    own.run("start", "-n", "s", "--", "cat", check=0)
    own.run("upgrade", "--to", archives[LATER], check=0)
    daemon = own.daemon_pid()
    os.kill(daemon, signal.SIGTERM)
    own.new_daemon_pid(daemon)
    assert running(own) == LATER and "fell_back" not in own.log("guard")


def test_a_client_that_waited_long_ends_no_daemon_that_serves_for_less(own):
    own.run("ls", check=0)
    daemon = own.daemon_pid()
    assert ask(own, wire.DEAF, timeout_ms=40000).type == wire.OK
    wait_until(lambda: "daemon_pinged" in own.log("guard"), "a ping instead")
    own.run("ls", check=0)
    assert own.daemon_pid() == daemon and "adopt_rejected" not in own.log("guard")


# -- a daemon that cannot be talked to --------------------------------------------------------

def test_a_daemon_without_a_common_protocol_is_replaced_without_harm(own, tmp_path):
    own.run("start", "-n", "s", "--", "cat", check=0)
    before = facts_of(own)
    newer = make_variant(tmp_path / "newer.pyz", LATER,
                         ("ptyguard_core/frames.py", r"(?m)^PROTOCOL_MIN = 1\b", "PROTOCOL_MIN = 2"),
                         ("ptyguard_core/frames.py", r"(?m)^PROTOCOL_MAX = 1\b", "PROTOCOL_MAX = 2"))
    assert as_version(own, newer, "has", "s", check=0,
                      env=dict(own.env, PTYGUARD_AUTO_UPGRADE="never")).stderr == b""
    assert breadcrumbs(own) == [("version_probe_failed", OURS, LATER)]
    done = own.run("ls", check=6)                   # and the older one does not replace it
    assert b"no common protocol" in done.stderr
    own.run("upgrade", "--to", make_variant(tmp_path / "same.pyz", OURS), check=0)
    assert facts_of(own) == before


def test_a_daemon_that_answers_garbage_is_replaced_once(tmp_path):
    """The first of its kind in this directory answers nonsense, the next ones do not."""
    odd = make_variant(tmp_path / "odd.pyz", OURS, behind={"ptyguard_core/daemon.py": (
        "_admit = Daemon._admit\n"
        "def _babble(self, sock):\n"
        "    mark = self.paths.state + '/babbled'\n"
        "    if not os.path.exists(mark) or open(mark).read() == str(os.getpid()):\n"
        "        with open(mark, 'w') as file:\n"
        "            file.write(str(os.getpid()))\n"
        "        sock.send(b'HTTP/1.1 400 Bad Request\\r\\n\\r\\n' * 20)\n"
        "        sock.close()\n"
        "        return\n"
        "    _admit(self, sock)\n"
        "Daemon._admit = _babble\n")})
    with World(under=MEMORY, program=[sys.executable, odd]) as world:
        world.run("start", "-n", "s", "--", "cat", check=0)
        assert [after for after, _, _ in breadcrumbs(world)] == ["version_probe_failed"]
        assert set(facts_of(world)) == {"s"}


def test_a_daemon_that_leaves_a_hello_unanswered_is_replaced_though_its_loop_turns(tmp_path):
    """It answers the guard's pings; a client's patience is what counts then."""
    mute = make_variant(
        tmp_path / "mute.pyz", OURS,
        ("ptyguard_core/channel.py", r"(?m)^HELLO_LIMIT_S = 30.0", "HELLO_LIMIT_S = 3.0"),
        ("ptyguard_core/guard.py", r"(?m)^HELLO_LIMIT_S = 30.0", "HELLO_LIMIT_S = 3.0"),
        behind={"ptyguard_core/daemon.py": (
            "_hello = Daemon._on_hello\n"
            "def _ignore(self, client, fields):\n"
            "    mark = self.paths.state + '/muted'\n"
            "    if not os.path.exists(mark) or open(mark).read() == str(os.getpid()):\n"
            "        with open(mark, 'w') as file:\n"
            "            file.write(str(os.getpid()))\n"
            "        return\n"
            "    _hello(self, client, fields)\n"
            "Daemon._on_hello = _ignore\n")})
    with World(under=MEMORY, program=[sys.executable, mute]) as world:
        world.run("ls", check=6)
        world.run("ls", check=0)
        assert "adopt_rejected reason=version_probe_failed" in world.log("guard")
        assert [after for after, _, _ in breadcrumbs(world)] == ["deaf"]


# -- development ------------------------------------------------------------------------------

def test_in_development_a_daemon_of_other_source_is_replaced_whatever_lives(tmp_path):
    import shutil
    from world import ROOT
    checkout = tmp_path / "checkout"
    checkout.mkdir()
    for name in ("ptyguard.py", "ptyguard_posix.py", "ptyguard_win.py"):
        shutil.copy(os.path.join(ROOT, name), checkout)
    shutil.copytree(os.path.join(ROOT, "ptyguard_core"), checkout / "ptyguard_core",
                    ignore=shutil.ignore_patterns("__pycache__"))
    with World(under=MEMORY, program=[sys.executable, "-B", str(checkout / "ptyguard.py")]) as world:
        in_dev = dict(world.env, PTYGUARD_DEV="1")
        world.run("start", "-n", "s", "--", "cat", check=0, env=in_dev)
        before, daemon = facts_of(world), world.daemon_pid()
        world.run("ls", check=0, env=in_dev)
        assert world.daemon_pid() == daemon             # the same source
        with open(checkout / "ptyguard_core" / "daemon.py", "a") as file:
            file.write("\n# changed\n")
        world.run("ls", check=0)
        world.run("ls", check=0, env=dict(in_dev, PTYGUARD_ADOPT_IN_DEV="1"))
        assert world.daemon_pid() == daemon
        world.run("ls", check=0, env=in_dev)
        other = world.new_daemon_pid(daemon)
        world.run("ls", check=0, env=in_dev)
        assert world.daemon_pid() == other
        assert facts_of(world) == before
        assert [after for after, _, _ in breadcrumbs(world)] == ["source-changed"]


def test_outside_development_the_variable_does_nothing(own, archives):
    as_version(own, archives[LATER], "start", "-n", "s", "--", "cat", check=0)
    daemon = own.daemon_pid()
    as_version(own, archives[EARLIER], "ls", check=0, env=dict(own.env, PTYGUARD_DEV="1"))
    assert own.daemon_pid() == daemon


# -- regressions ------------------------------------------------------------------------------

def test_regression_11_adoption_that_kills_live_shells_because_a_probe_was_slow(own):
    for n in range(3):
        own.run("start", "-n", f"s{n}", "--", "cat", check=0)
    before, daemon = facts_of(own), own.daemon_pid()
    os.kill(daemon, signal.SIGSTOP)
    waiting = own.popen("ls", stdout=subprocess.DEVNULL)
    wait_until(lambda: "daemon_pinged" in own.log("guard"), "the client's patience to end")
    os.kill(daemon, signal.SIGCONT)
    assert waiting.wait(LIMIT_S) == 0
    assert facts_of(own) == before
    assert own.run("send", "--enter", "s1", "hello").returncode == 0


def test_regression_12_list_then_kill_with_a_session_born_in_between(own, archives):
    own.run("ls", check=0)
    newer = [own.popen("ls", stdout=subprocess.DEVNULL) for own.program in
             [[sys.executable, archives[LATER]]] * 4]
    born = [own.popen("start", "-n", f"s{n}", "--", "cat", stdout=subprocess.DEVNULL) for n in range(8)]
    assert [process.wait(2 * LIMIT_S) for process in newer + born] == [0] * 12
    found = facts_of(own)
    assert set(found) == {f"s{n}" for n in range(8)}
    assert {session["state"] for session in found.values()} == {"running"}
    assert len(breadcrumbs(own)) <= 1


def test_regression_14_predecessor_gone_before_the_successor_could_serve(own, tmp_path):
    own.run("start", "-n", "s", "--", "cat", check=0)
    daemon = own.daemon_pid()
    hanging = own.popen("upgrade", "--to", broken_daemon(tmp_path / "b.pyz", LATER, BROKEN["hangs"]),
                        stderr=subprocess.PIPE)
    wait_until(lambda: own.log("guard").count("daemon_started") == 2, "the successor")
    while hanging.poll() is None:           # all the while the old one serves
        own.run("has", "s", check=0)
        assert own.daemon_pid() == daemon
    assert hanging.returncode == 6 and b"not ready in time" in hanging.stderr.read()


def test_regression_19_a_crash_after_a_stop_mistaken_for_an_expected_exit(own):
    own.run("start", "-n", "s", "--", "cat", check=0)
    own.run("daemon", "stop", "--sessions", "keep", check=0)
    own.run("ls", check=0)
    assert ask(own, wire.STATE).number("deaths") == 0      # a stop is none
    daemon = own.daemon_pid()
    os.kill(daemon, signal.SIGSEGV)
    own.new_daemon_pid(daemon)
    assert ask(own, wire.STATE).number("deaths") == 1      # a crash is one
    assert [after for after, _, _ in breadcrumbs(own)] == ["stop", "death"]


def test_regression_20_a_rival_daemon_spawned_during_an_upgrade(own, archives):
    own.run("start", "-n", "s", "--", "cat", check=0)
    upgrade = own.popen("upgrade", "--to", archives[LATER], stdout=subprocess.DEVNULL)
    others = [own.popen(*words, stdout=subprocess.DEVNULL) for words in (
        ["start", "--", "cat"], ["ensure", "e", "--", "cat"], ["ls"], ["daemon", "start"]) * 3]
    assert [process.wait(2 * LIMIT_S) for process in [upgrade, *others]] == [0] * 13
    assert own.log("guard").count("daemon_started") == 2
    assert own.log("guard").count(" guard banner ") == 1


def test_regression_31_options_lost_across_a_restart(own, archives):
    own.run("start", "-n", "s", "--label", "team=core", "--ttl", "1h", "--size", "100x30", "--size-policy",
            "fixed", "--scrollback", "256K", "--cwd", "/usr", "--env", "COLOUR=blue", "--log",
            os.path.join(own.directory, "log"), "--", "sh", "-c", "cat; echo $COLOUR; exit 3", check=0)
    before = own.json("info", "s")
    own.run("upgrade", "--to", archives[LATER], check=0)
    after = own.json("info", "s")
    for facts in before, after:             # who asks, and its window, are of the moment
        for key in ("clients", "viewers", "foreground"):
            facts.pop(key, None)
    assert after == before
    own.run("restart", "s", check=0)
    assert own.json("info", "s")["labels"] == {"team": "core"}
    own.run("key", "s", "C-d", check=0)
    own.run("wait", "s", check=3)
    assert b"blue" in own.run("log", "s", check=0).stdout


# -- private copies ---------------------------------------------------------------------------

def test_the_file_may_vanish_once_it_was_taken(own, archives, tmp_path):
    gone = tmp_path / "gone.pyz"
    gone.write_bytes(open(archives[LATER], "rb").read())
    gone.chmod(0o700)
    own.run("start", "-n", "s", "--", "cat", check=0)
    own.run("upgrade", "--to", str(gone), check=0)
    gone.unlink()
    own.new_daemon_pid(own.kill_daemon())
    assert running(own) == LATER and set(facts_of(own)) == {"s"}


def test_copies_are_private_whatever_the_file_was(own, archives):
    own.run("upgrade", "--to", archives[LATER], check=0)
    for name in os.listdir(own.paths.copies):
        facts = os.stat(os.path.join(own.paths.copies, name))
        assert stat.S_IMODE(facts.st_mode) == 0o600 and facts.st_uid == os.getuid()


def test_the_copy_that_may_be_fallen_back_to_is_locked(own, archives):
    import fcntl
    own.run("ls", check=0)
    before = own.json("status")["daemon"]["binary"]
    own.run("daemon", "stop", check=0)
    own.run("ls", check=0)
    own.run("upgrade", "--to", archives[LATER], check=0)
    with open(before, "rb") as file:
        with pytest.raises(BlockingIOError):
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
