"""Re-exec: the guard becomes another program, in place, and stays the parent of all its children."""

import os
import re
import signal
import subprocess
import sys

import pytest
from hypothesis import given, strategies as st

import ptyguard_posix as backend
from ptyguard_core import guardwire as wire
from ptyguard_core.errors import ProtocolError
from ptyguard_core.guard import Guard
from ptyguard_core.reexec import Frozen
from ptyguard_core.version import OURS
from variants import make_variant
from world import LIMIT_S, MEMORY, Flood, World, is_alive, open_descriptors, wait_until

LATER = "90.1.0"


@pytest.fixture(scope="module")
def later(tmp_path_factory):
    return make_variant(tmp_path_factory.mktemp("archives") / "later.pyz", LATER)


@pytest.fixture
def own():
    with World(under=MEMORY) as world:
        yield world


def guard_facts(world):
    return world.json("status")["guard"]


def test_the_guard_is_another_program_and_the_same_process(own, later):
    own.run("start", "-n", "lives", "--", "cat", check=0)
    own.run("run", "-n", "over", "--", "sh", "-c", "echo bye; exit 9", check=9)
    guard, before = own.guard_pid(), guard_facts(own)
    pids = {s["name"]: s["pid"] for s in own.json("ls", "-a")["sessions"]}
    done = own.run("upgrade", "--guard", "--to", later, check=0)
    assert f"guard: {OURS} -> {LATER}" in done.stdout.decode()
    after = guard_facts(own)
    assert own.guard_pid() == guard == after["pid"]
    assert (after["version"], after["started_at"]) == (LATER, before["started_at"])
    assert {s["name"]: s["pid"] for s in own.json("ls", "-a")["sessions"]} == pids
    assert own.run("log", "over", check=0).stdout == b"bye\n"
    own.run("wait", "over", check=9)
    own.run("send", "--enter", "lives", "hello", check=0)
    own.run("wait", "lives", "--for", "hello\\s+hello", "--timeout", "60", check=0)
    own.run("daemon", "stop", "--sessions", "kill", check=0)
    assert not is_alive(guard)


def test_statuses_of_children_from_before_are_known_afterwards(own, later):
    go = os.path.join(own.directory, "go")
    for n in range(8):
        own.run("start", "-n", f"s{n}", "--", "sh", "-c",
                f"while ! [ -e {go} ]; do sleep 0.1; done; "
                + (f"exit {30 + n}" if n % 2 else f"kill -{n + 1} $$"), check=0)
    own.run("upgrade", "--guard", "--to", later, check=0)
    with open(go, "w"):
        pass
    for n in range(8):
        own.run("wait", f"s{n}", check=30 + n if n % 2 else 128 + n + 1)
    assert "guard lost" not in own.log()


def test_whatever_happens_in_that_moment_is_not_lost(own, later):
    """Children that end, output, input, attached clients: while the guard changes thrice."""
    flood = Flood(own.directory)
    with open(os.path.join(own.directory, "out"), "w+b") as out:
        reader = own.popen("run", "-n", "flood", "--", *flood.argv, stdout=out)
        wait_until(lambda: not own.run("has", "flood").returncode, "the session")
        own.run("wait", "flood", "--for", "ready", "--timeout", "60", check=0)
        terminal = own.terminal("attach", "--create", "shell", "--", "sh", "-c", "stty -echo; echo here; cat")
        terminal.expect(rb"here")
        flood.go()
        brief = [own.popen("run", "--", "sh", "-c", f"sleep 0.{n}; exit {n}", stdout=subprocess.DEVNULL)
                 for n in range(1, 10)]
        for n in range(3):
            own.run("upgrade", "--guard", "--to", later, check=0)
            terminal.send(b"line %d\n" % n)
            terminal.expect(rb"line %d" % n)
        assert [process.wait(2 * LIMIT_S) for process in brief] == list(range(1, 10))
        flood.stop()
        assert reader.wait(2 * LIMIT_S) == flood.STATUS
        out.seek(0)
        assert out.read() == flood.output()


def test_after_it_daemons_may_be_killed_replaced_and_guards_lost_as_before(own, later):
    own.run("start", "-n", "s", "--", "cat", check=0)
    own.run("upgrade", "--guard", "--to", later, check=0)
    own.new_daemon_pid(own.kill_daemon())
    own.run("upgrade", "--to", later, check=0)
    own.run("restart", "s", check=0)
    old = own.kill_guard()
    own.new_guard_pid(old)
    own.run("send", "--enter", "s", "hello", check=0)
    own.run("wait", "s", "--for", "hello\\s+hello", "--timeout", "60", check=0)


def test_a_deposited_session_survives_it_too(own, later):
    """Its program is not the guard's child: its end is seen, its status is not known."""
    own.run("start", "-n", "s", "--", "cat", check=0)
    own.new_guard_pid(own.kill_guard())
    wait_until(lambda: "deposit_done" in own.log("guard"), "the deposit")
    own.run("upgrade", "--guard", "--to", later, check=0)
    pid = own.json("info", "s")["pid"]
    os.kill(pid, signal.SIGKILL)
    own.run("wait", "s", check=125)
    assert own.json("info", "s")["state"] == "ended"


def test_a_resting_guard_can_be_replaced_and_still_wakes_for_a_client(own, later):
    own.run("start", "-n", "s", "--", "cat", check=0)
    own.run("daemon", "stop", "--sessions", "keep", check=0)
    own.run("upgrade", "--guard", check=0)          # it runs a daemon of ours first
    own.run("daemon", "stop", "--sessions", "keep", check=0)
    guard = own.guard_pid()
    own.run("send", "--enter", "s", "hello", check=0)
    own.run("wait", "s", "--for", "hello\\s+hello", "--timeout", "60", check=0)
    assert own.guard_pid() == guard


def test_no_descriptor_is_left_behind_by_many(own, later):
    own.run("start", "-n", "s", "--", "cat", check=0)
    own.run("upgrade", "--guard", "--to", later, check=0)
    counts = []
    for _ in range(4):
        own.run("upgrade", "--guard", "--to", later, check=0)
        own.run("ls", check=0)
        counts.append(wait_until(lambda: open_descriptors(own.guard_pid()), "the count"))
    assert counts[-1] <= counts[0] + 1, counts      # a caller may still be leaving


def test_children_of_a_replaced_guard_get_nothing_of_it(own, later):
    own.run("ls", check=0)
    own.run("upgrade", "--guard", "--to", later, check=0)
    # Of grep itself: a shell blocks signals for a moment whenever it forks.
    told = own.run("run", "--", "sh", "-c", "ls -l /proc/$$/fd; exec grep Sig /proc/self/status",
                   check=0).stdout.decode()
    numbers = {int(number) for number in re.findall(r" (\d+) -> ", told)}
    assert numbers <= {0, 1, 2, 3}, told            # 3: the shell's or ls's own look
    assert re.search(r"SigBlk:\s+0+\r", told) and re.search(r"SigIgn:\s+0+\r", told), told


FAILS = {
    "does not understand": ({"ptyguard_core/reexec.py":
                             "def rehearse():\n    os.write(4, b'nothing of that')\n"},
                            b"does not understand"),
    "crashes in the rehearsal": ({"ptyguard_core/guard.py": "def rehearse():\n    os._exit(3)\n"},
                                 b"it said nothing"),
    "speaks an older wire": ({"ptyguard_core/reexec.py": "def rehearse():\n    os.write(4, b'ok 1')\n"},
                             b"does not understand"),
    "cannot thaw": ({"ptyguard_core/guard.py":
                     "def thaw(guard, frozen):\n    raise RuntimeError('cannot')\n"},
                    b"the new program failed"),
    "cannot thaw all of it": ({"ptyguard_core/reexec.py":
                               "def _thaw_daemon(guard, message):\n    raise KeyError('cannot')\n"}, b"the new program failed"),
}


@pytest.mark.parametrize("how", sorted(FAILS))
def test_a_program_that_cannot_be_the_guard_leaves_it_as_it_is(how, own, tmp_path):
    behind, says = FAILS[how]
    bad = make_variant(tmp_path / "bad.pyz", LATER, behind=behind)
    own.run("start", "-n", "s", "--", "sh", "-c", "cat; exit 6", check=0)
    guard, before = own.guard_pid(), guard_facts(own)
    done = own.run("upgrade", "--guard", "--to", bad, check=1)
    assert f"daemon: {OURS} -> {LATER}".encode() in done.stderr     # that much was done
    assert says in done.stderr and b"goes on as before" in done.stderr, done.stderr
    assert own.guard_pid() == guard and guard_facts(own) == before
    own.run("send", "--enter", "s", "hello", check=0)
    own.run("wait", "s", "--for", "hello\\s+hello", "--timeout", "60", check=0)
    own.run("key", "s", "C-d", check=0)
    own.run("wait", "s", check=6)                   # its child still


def test_what_may_be_fallen_back_to_is_known_to_the_new_program(own, later):
    own.run("start", "-n", "s", "--", "cat", check=0)
    own.run("upgrade", "--guard", "--to", later, check=0)
    daemon = own.daemon_pid()
    os.kill(daemon, signal.SIGSEGV)
    own.new_daemon_pid(daemon)
    assert own.json("status")["daemon"]["version"] == OURS
    assert LATER in own.json("status")["update"]["last_failure"]


def test_a_guard_with_an_end_that_is_known_and_not_noted_yet_is_not_quiet(own):
    """It had waited for a child, and was frozen in the same turn: that status was lost."""
    guard = Guard(backend, own.paths, ("python3", "/copy"), [], lambda *_, **__: None)
    guard.keep_stopped, guard.listener = True, object()
    assert guard.why_not_quiet() == ""
    noted = []
    guard.loop.soon(lambda: noted.append(guard.why_not_quiet()))
    assert guard.why_not_quiet() == "a program has just ended"
    guard.loop.turn()
    assert noted and guard.why_not_quiet() == ""


def test_a_rehearsal_that_hangs_is_ended(own, tmp_path):
    hangs = make_variant(tmp_path / "hangs.pyz", LATER, behind={"ptyguard_core/guard.py": "def rehearse():\n    os.read(os.pipe()[0], 1)\n"})
    own.run("start", "-n", "s", "--", "cat", check=0)
    done = own.run("upgrade", "--guard", "--to", hangs)
    assert b"did not answer in time" in done.stderr and b"daemon: " in done.stderr      # what was done is told

    def rehearsing():
        found = []
        for pid in filter(str.isdigit, os.listdir("/proc")):
            try:
                with open(f"/proc/{pid}/cmdline", "rb") as file:
                    words = file.read().split(b"\0")
            except OSError:
                continue
            if b"__guard_rehearse" in words and own.directory.encode() in b"".join(words):
                found.append(pid)
        return found

    wait_until(lambda: not rehearsing(), "its end")


def test_a_guard_that_is_asked_for_nonsense_refuses(own):
    from ptyguard_core.supervise import ask_guard
    own.run("ls", check=0)
    for fields in ({}, {"binary": b"/no/such/file"},
                   {"binary": b"/no/such/file", "interpreter": b"/no/such/python"},
                   {"binary": b"/dev/null", "interpreter": sys.executable.encode()}):
        answer = ask_guard(backend, own.paths, wire.REEXEC, LIMIT_S, **fields)
        assert answer.type == wire.REFUSED and answer.text("text"), fields
    own.run("ls", check=0)


# -- what is frozen ---------------------------------------------------------------------------

def frozen_bytes():
    return b"".join((
        wire.encode(wire.FROZEN_GUARD, listener_fd=5, guard_listener_fd=6, locks=[b"3"],
                    program=[b"python3", b"/copy"], started_at_ms=1, caller_fd=9, caller_serial=1),
        wire.encode(wire.FROZEN_DAEMON, link_fd=7, pid=10, program=[b"python3", b"/copy"], is_child=1),
        wire.encode(wire.FROZEN_SESSION, session=b"k3", ring_fd=11, master_fd=-1, slave_fd=-1, pid=12,
                    is_child=1),
        wire.encode(wire.FROZEN_END)))


def test_what_is_whole_is_read():
    frozen = Frozen(frozen_bytes())
    assert frozen.guard.number("listener_fd") == 5 and frozen.daemon.number("pid") == 10
    assert [message.text("session") for message in frozen.sessions] == ["k3"]


@given(st.integers(0, len(frozen_bytes()) - 1))
def test_what_is_cut_anywhere_is_refused(end):
    with pytest.raises(ProtocolError):
        Frozen(frozen_bytes()[:end])


@given(st.binary(max_size=300))
def test_noise_is_refused(data):
    with pytest.raises(ProtocolError):
        Frozen(data)


def test_what_lacks_something_is_refused():
    whole = frozen_bytes()
    for message in (wire.encode(wire.FROZEN_SESSION, session=b"k3"), wire.encode(wire.FROZEN_GUARD),
                    wire.encode(wire.FROZEN_DAEMON, pid=3)):
        with pytest.raises(ProtocolError):
            Frozen(message + whole)


def test_what_a_later_version_adds_is_skipped():
    added = frozen_bytes()[:-12] + wire.encode(79, pid=1) + wire.encode(wire.FROZEN_END)
    assert len(Frozen(added).sessions) == 1
