"""The regression index: defects that other systems of this kind had, and that this one has not.

One row, one test (or two) with its number and name.  Each shows the row's whole story with
processes and files of its own where the kernel decides; what else there is to say of the same
thing is in the file of its room.

Rows whose tests come with what they are about, which is not built yet:
    tombstones and reboot   5 a tombstone written before a teardown that fails
                            6 a tombstone lifted by a racing start
                            27 mass teardown because the runtime was briefly unavailable
    the liveness link       8 the owner read again from a file after the probe
                            9 the watchdog firing early from an older timer
                            10 a stray connect arming the watchdog
    upgrade                 11 adoption that kills live shells because a probe was slow
                            12 list-then-kill with a session born in between
                            13 bytes lost or split in a hand-over with two readers
                            14 the predecessor gone before the successor could serve
                            19 a crash after a stop mistaken for an expected exit
                            20 a rival daemon spawned during an upgrade
                            22 two installed versions killing each other's daemon
                            31 options lost across a restart
"""

import contextlib
import fcntl
import json
import os
import re
import resource
import signal
import socket
import subprocess
import sys
import threading

import pytest

import ptyguard
import ptyguard_posix as backend
from ptyguard_core import channel, frames, guardwire as wire, reaching, sending, supervise
from ptyguard_core.registry import shape_fault
from test_client_wire import Wire
from world import (LIMIT_S, MEMORY, ROOT, World, is_alive, open_descriptors, voluntary_switches,
                   wait_until)

LOCKS = ("start.lock", "guard.lock", "daemon.lock")
NOBODY = 65534                  # a user that is certainly not us, whether it has a name or not
# What an attack may cost for good; those below send 40 MB.  PyPy leaves more lying for a while.
GROWTH_MAX_KIB = (24 if sys.implementation.name == "pypy" else 8) * 1024


# -- what the tests below are made of --------------------------------------------------------------


def patch_all(world, patch):
    """From now on all of ptyguard in this world, guard and daemon too, begins with `patch`.

    That is Python text.  They then run from one file, not from a private copy.
    """
    path = os.path.join(world.directory, "patched.py")
    with open(path, "w") as file:
        file.write(f"import os, sys\nsys.path.insert(0, {ROOT!r})\n"
                   "import ptyguard, ptyguard_posix as backend\n"
                   "from ptyguard_core import copies, daemon, frames, guardwire as wire, link, supervise\n"
                   "supervise.find_program = lambda backend, paths: (sys.executable, sys.argv[0])\n"
                   f"{patch}\nsys.exit(ptyguard.main(sys.argv[1:]))\n")
    world.program = [sys.executable, path]


def content(path):
    """The bytes of that file, none if there is none (any more: it may be a process's)."""
    try:
        with open(path, "rb") as file:
            return file.read()
    except (FileNotFoundError, ProcessLookupError):
        return b""


def refused(call):
    """What that call is refused with."""
    with pytest.raises(ptyguard.PtyguardError) as caught:
        call()
    return caught.value


def refused_in_time(call):
    """The same of a call that may wait without limit if it is wrong."""
    found = []
    thread = threading.Thread(target=lambda: found.append(refused(call)), daemon=True)
    thread.start()
    thread.join(LIMIT_S)
    assert found, "it was neither refused nor given up"
    return found[0]


def targets_of(pid):
    """What the descriptors of that process lead to."""
    targets = []
    for name in os.listdir(f"/proc/{pid}/fd"):
        with contextlib.suppress(OSError):
            targets.append(os.readlink(f"/proc/{pid}/fd/{name}"))
    return targets


def descendants_of(pid):
    """The pids of all living processes below that one."""
    found, table = {pid}, backend.process_table()
    for _ in table:
        found |= {row.pid for row in table if row.parent in found and not row.is_zombie}
    return found - {pid}


def own_kib(pid):
    """Memory that this process has for itself, 0 once it has ended; rings are shared and do not count."""
    found = re.search(rb"RssAnon:\s+(\d+)", content(f"/proc/{pid}/status"))
    return int(found.group(1)) if found else 0


def state_of(pid):
    """The letter of proc(5): S sleeps, T is stopped."""
    return content(f"/proc/{pid}/stat").rpartition(b") ")[2][:1].decode()


def stop(*pids):
    """SIGSTOP; returns once they are stopped."""
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    wait_until(lambda: all(state_of(pid) == "T" for pid in pids), "the stop")


def proceed(*pids):
    """SIGCONT."""
    for pid in pids:
        os.kill(pid, signal.SIGCONT)


def end_both(world):
    """kill -9 of guard and daemon; stopped before, since each would replace the other."""
    pids = world.guard_pid(), world.daemon_pid()
    stop(*pids)
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not any(map(is_alive, pids)), "both deaths")


def hand_over(world, how):
    """Another daemon serves when this returns."""
    old = world.daemon_pid()
    if how == "kill -9":
        world.kill_daemon()
    elif how == "daemon restart":
        world.run("daemon", "restart", check=0)
    else:
        guard, deposits = world.kill_guard(), world.log("guard").count("deposit_done")
        world.new_guard_pid(guard)
        wait_until(lambda: world.log("guard").count("deposit_done") > deposits, "the deposit")
        world.kill_daemon()
    return world.new_daemon_pid(old)


HAND_OVERS = ("kill -9", "daemon restart", "kill -9 of the guard, then of the daemon")


def records_of(world):
    """{id: the record on disk}; each has to be whole."""
    directory, found = os.path.join(world.state, "sessions"), {}
    for entry in os.listdir(directory):
        data = content(os.path.join(directory, entry))
        if entry.endswith(".json") and data:    # it may have been removed just now
            record = json.loads(data)
            assert not shape_fault(record) and record["id"] + ".json" == entry
            found[record["id"]] = record
    return found


def stranger():
    """A process that has nothing to do with us; what we might send it would end it."""
    return subprocess.Popen(["sleep", "1000"], start_new_session=True)     # leads a group, too


# -- 1 and 2 ---------------------------------------------------------------------------------------

# What others took for a stale lock: a time of long ago, a holder that is dead, and no sense.
_HOLDS = """
import fcntl, os, sys
fd = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT, 0o600)
fcntl.flock(fd, fcntl.LOCK_EX)
os.write(fd, b"pid 4194305 start 1, guard, since 1970-01-01 00:00:00\\n\\xff\\0")
os.utime(fd, (0, 0))
print("held", flush=True)
sys.stdin.read()
"""


@contextlib.contextmanager
def held_by_another(path):
    """The kernel lock of that file, in another process's hands; gives the process."""
    with subprocess.Popen([sys.executable, "-c", _HOLDS, path], stdin=subprocess.PIPE,
                          stdout=subprocess.PIPE) as holder:
        assert holder.stdout.readline() == b"held\n"
        yield holder                    # leaving closes its stdin, and that ends it


@pytest.mark.parametrize("name", LOCKS)
def test_regression_01_a_lock_stolen_or_released_by_someone_who_does_not_own_it(name):
    with World(under=MEMORY) as world:
        path = os.path.join(world.paths.place, name)        # which makes the directories
        with held_by_another(path) as holder:
            before = os.stat(path), content(path)
            starting = world.popen("ls")
            # daemon.lock is the guard's to look at, the others the client's.
            looking = world.guard_pid() if name == "daemon.lock" else starting.pid
            turns = 2 if name == "daemon.lock" else 60
            more = voluntary_switches(looking) + turns
            wait_until(lambda: voluntary_switches(looking) > more, "its looking, again and again")
            assert starting.poll() is None
            with open(path) as file, pytest.raises(BlockingIOError):
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            after = os.stat(path), content(path)
            for field in ("st_ino", "st_mtime", "st_size"):
                assert getattr(after[0], field) == getattr(before[0], field)
            assert after[1] == before[1] and holder.poll() is None
            holder.kill()                       # and that is how a lock is released
            assert starting.wait(LIMIT_S) == 0
        assert os.stat(path).st_ino == before[0].st_ino
        assert world.log("guard").count(" banner ") == 1
        assert world.guard_pid() and world.daemon_pid()


@contextlib.contextmanager
def no_file_above(pid, size):
    """That process can write no file beyond that size: a disk that is full, as it were."""
    before = resource.prlimit(pid, resource.RLIMIT_FSIZE)
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.prlimit(pid, resource.RLIMIT_FSIZE, before)


@pytest.mark.skipif(not hasattr(resource, "prlimit"),
                    reason="this Python cannot set another process's limits")
def test_regression_02_an_orphan_terminal_after_a_lock_or_persistence_failure():
    with World(under=MEMORY) as world, world.connect() as pg:
        first = pg.start(["sleep", "1000"], "first")
        pids = world.guard_pid(), world.daemon_pid()
        before = list(map(open_descriptors, pids))
        directory = os.path.join(world.state, "sessions")
        size = os.path.getsize(os.path.join(directory, first.id + ".json"))
        # The intent has no pid yet and no markers, and is shorter by that.
        for most, does_spawn in 2 * ((size - 60, True), (10, False)):
            spawned = world.log("guard").count("session_spawned")
            with no_file_above(pids[1], most):
                error = refused(lambda: pg.start(["sleep", "1000"], "other"))
                assert error.kind == "state_unusable" and "EFBIG" in error.message
                wait_until(lambda: [s.name for s in pg.sessions()] == ["first"], "its removal")
                # A name that cannot be recorded is no name.
                assert refused(lambda: pg.request("rename", target="first", name="x" * 64))
                assert pg.session("first").facts["state"] == "running"
            assert world.log("guard").count("session_spawned") == spawned + does_spawn
            # `before` may have had one more: of whoever had just asked the guard.
            wait_until(lambda: all(open_descriptors(pid) <= count for pid, count in zip(pids, before)),
                       "as many descriptors as before")
            assert descendants_of(pids[0]) == {pids[1], first.facts["pid"]}
            assert os.listdir(directory) == [first.id + ".json"]
        other = pg.start(["cat"], "other")
        other.send(b"all well\r")
        other.wait_for(b"all well", LIMIT_S)
        assert (world.guard_pid(), world.daemon_pid()) == pids


# -- 3 and 4: what guard, daemon and clients note of themselves ------------------------------------

_NOTES_FILES_IT_MAKES = """
opening = os.open
def noting(path, flags, *args, **options):
    fd = opening(path, flags, *args, **options)
    if flags & os.O_CREAT:
        note = opening(NOTES, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        os.write(note, b"%d %s\\n" % (flags, os.fsencode(path)))
        os.close(note)
    return fd
os.open = noting
supervise.find_program = lambda backend, paths: (
    copies.make_copy(backend, paths) and sys.executable, sys.argv[0])
"""


def test_regression_03_predictable_temporary_names():
    with World(under=MEMORY) as world:
        notes = os.path.join(world.directory, "notes")
        patch_all(world, f"NOTES = {notes!r}\n" + _NOTES_FILES_IT_MAKES)
        status = os.path.join(world.directory, "status")
        for how in HAND_OVERS:                  # no successor counts from the beginning again
            for _ in range(2):
                world.run("run", "-n", "s", "--status-file", status, "--", "true", check=0)
            world.run("rename", "s", "s." + os.urandom(2).hex(), check=0)
            hand_over(world, how)
        drafts = set()
        for line in content(notes).splitlines():
            flags, path = line.split(b" ", 1)
            flags, name = int(flags), os.path.basename(os.fsdecode(path))
            if name in LOCKS + ("guard.log", "daemon.log"):
                assert flags & os.O_NOFOLLOW, name
                continue
            # With O_EXCL no link is followed either, open(2).
            assert flags & os.O_EXCL and path not in drafts, path
            assert name.startswith("status.") or flags & os.O_NOFOLLOW, name
            assert re.search(r"[.-][0-9a-f]{12}$", name), f"{name} can be guessed"
            drafts.add(path)
        for kind in (rb"/place\.", rb"/bin/.*\.pyz\.tmp-", rb"/sessions/.*\.json\.tmp-", rb"/status\."):
            assert any(re.search(kind, path) for path in drafts), kind      # none was overlooked


_NOTES_DOUBLE_CLOSES = """
import errno, socket, traceback
mine = os.getpid()          # a fork closes what it finds, and its own list of that
def noted(closing):
    def close(*args):
        try:
            return closing(*args)
        except OSError as error:
            if error.errno == errno.EBADF and os.getpid() == mine:
                with open(NOTES, "a") as file:
                    file.write(f"{sys.argv[1:]} {args}\\n" + "".join(traceback.format_stack()))
            raise
    return close
os.close = noted(os.close)
socket.socket._real_close = noted(socket.socket._real_close)
"""


def test_regression_04_a_descriptor_closed_twice_hitting_an_unrelated_one():
    with World(under=MEMORY) as world:
        notes, log = (os.path.join(world.directory, name) for name in ("notes", "log"))
        patch_all(world, f"NOTES = {notes!r}\n" + _NOTES_DOUBLE_CLOSES)
        world.run("start", "-n", "stays", "--log", log, "--", "cat", check=0)
        with world.connect() as pg:
            for how in HAND_OVERS:
                session = pg.start(["cat"], "s")
                refused(lambda: pg.start(["cat"], "stays"))
                refused(lambda: pg.start(["/no/such/program"]))
                refused(lambda: pg.start(["true"], cwd="/etc/passwd"))
                brief = pg.start(["sh", "-c", "exit 3"])
                assert brief.wait(LIMIT_S)["code"] == 3
                brief.remove()
                terminal = world.terminal("attach", "s")
                terminal.send(b"hello\n")
                terminal.expect(b"hello\r\nhello")
                pg.request("restart", target="s", grace=0)
                pg.request("rename", target="s", name="r")
                hand_over(world, how)           # over an attached client's head
                terminal.send(b"again\n")
                terminal.expect(b"again\r\nagain")
                pg.request("detach", target="r")
                assert terminal.wait() == 0
                session.kill(0)
                pg.request("restart", target="r")
                session.remove(tombstone=False)
        # What it would have hit: the locks, the listeners, the log are as they were.
        for name, holder in (("guard.lock", world.guard_pid()), ("daemon.lock", world.daemon_pid())):
            assert backend.look_at_lock(os.path.join(world.place, name))[0]
            assert any(target.endswith(name) for target in targets_of(holder))
        world.run("daemon", "stop", "--sessions", "kill", check=0)
        assert content(notes) == b""
        assert "Bad file" not in world.log("guard") + world.log("daemon")
        assert "act_failed" not in world.log("guard")


# -- 7 ---------------------------------------------------------------------------------------------

# What a version of tomorrow says: a field more in each message and before it one that nobody
# knows (but on guard.sock, where one answer follows one question); and a field in each record.
_OF_TOMORROW = """
plain_control, plain_encode, plain_save = frames.control, wire.encode, daemon.Daemon.save
def control(type_, fields):
    novelty = plain_control(frames.EVENT, {"event": "of_tomorrow", "session": 7}) \\
        if type_ in frames.FROM_DAEMON - frames.FROM_CLIENT else b""
    return novelty + plain_control(type_, dict(fields, of_tomorrow={"x": [1, None]}))
wire.FIELDS["of_tomorrow"] = (60000, "b")       # known to this writer only, not to its reader
asked_on_guard_sock = (wire.STATE, wire.START_DAEMON, wire.STOP, wire.RESTART, wire.DEAF,
                       wire.OK, wire.REFUSED, wire.GUARD_STATE)
def encode(type_, serial=0, descriptors=0, **fields):
    novelty = b"" if type_ in asked_on_guard_sock else plain_encode(60000)
    return novelty + plain_encode(type_, serial, descriptors, of_tomorrow="x", **fields)
def save(self, session):
    session.record["of_tomorrow"] = ["kept"]
    plain_save(self, session)
frames.control, wire.encode, link.encode, daemon.Daemon.save = control, encode, encode, save
"""


def use(world):
    """What a client does, with everything that a daemon tells it."""
    world.run("start", "-n", "used", "--", "cat", check=0)
    terminal = world.terminal("attach", "used")
    terminal.send(b"hello\n")
    terminal.expect(b"hello\r\nhello")
    world.run("send", "used", "--enter", "sent", check=0)
    world.run("wait", "used", "--for", "sent\nsent", check=0)
    assert world.run("log", "--raw", "used").stdout == b"hello\r\n" * 2 + b"sent\r\n" * 2
    world.run("rename", "used", "renamed", check=0)
    world.run("resize", "renamed", "91x17", check=0)
    assert world.json("info", "renamed")["size"] == {"cols": 91, "rows": 17}
    world.run("restart", "renamed", check=0)
    world.run("detach", "renamed", check=0)
    assert terminal.wait() == 0
    world.run("run", "--rm", "--", "sh", "-c", "exit 7", check=7)
    world.run("rm", "--no-tombstone", "renamed", check=0)
    assert world.json("status")["state"] == "running"


def test_regression_07_a_strict_new_wire_field_that_breaks_mixed_versions():
    with World(under=MEMORY) as world:
        of_today = world.program
        patch_all(world, _OF_TOMORROW)
        of_tomorrow = world.program
        id_ = json.loads(world.run("start", "-n", "s", "--json", "--", "cat", check=0).stdout)["id"]
        record = os.path.join(world.state, "sessions", id_ + ".json")
        guard = world.guard_pid()
        world.run("rename", "s", "old", check=0)
        # A client of today; then a daemon, too, under a guard of tomorrow.
        world.program = of_today
        use(world)
        hand_over(world, "daemon restart")
        assert world.json("status")["daemon"]["binary"].startswith(world.paths.copies)
        assert world.guard_pid() == guard
        use(world)
        # What it does not know of the record lives on, on disk and in what the guard keeps.
        world.run("rename", "old", "new", check=0)
        assert json.loads(content(record))["of_tomorrow"] == ["kept"]
        os.unlink(record)
        hand_over(world, "kill -9")
        world.run("rename", "new", "newest", check=0)
        assert json.loads(content(record))["of_tomorrow"] == ["kept"]
        # A client of tomorrow with a daemon of today, then a daemon of tomorrow with a guard of
        # today: the one that the daemon of today starts.
        world.program = of_tomorrow
        use(world)
        world.program = of_today
        world.new_guard_pid(world.kill_guard())
        wait_until(lambda: "deposit_done" in world.log("guard"), "the deposit")
        world.program = of_tomorrow
        hand_over(world, "daemon restart")
        use(world)
        assert world.json("info", "newest")["state"] == "running"


def test_regression_07_a_word_of_tomorrow_is_answered_and_no_other_connection_notices(world, pg, name):
    session = pg.start(["cat"], name)
    path = world.paths.client_socket
    with Wire(path, is_greeting=False) as connection:
        connection.hello(protocol=[1, 99], of_tomorrow={"x": 1}, role=["new"])
        assert connection.expect(frames.WELCOME)["chosen"] == frames.PROTOCOL_MAX
        connection.request("of_tomorrow", 1, target=name)
        assert connection.answer(1)["kind"] == "usage"
        connection.request("resolve", 2, target=name, of_tomorrow=[[]])
        assert connection.answer(2)["session"]["id"] == session.id
        connection.send(b"\x63\0\0\0\2{}")      # a frame of a type that there is not
        assert connection.refusal()["kind"] == "protocol"
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(LIMIT_S)
        sock.connect(world.paths.guard_socket)
        decoder = wire.Decoder()
        for type_, answer in ((60000, wire.REFUSED), (wire.STATE, wire.GUARD_STATE)):
            sock.sendall(wire.encode(type_, type_))
            assert hear(sock, decoder).type == answer
    session.send(b"still here\r")
    session.wait_for(b"still here", LIMIT_S)


def hear(sock, decoder, *wanted):
    """The next message, or the next of a type that is wanted."""
    while True:
        message = decoder.next()
        if message is None:
            data = sock.recv(65536)
            assert data, "it hung up"
            decoder.feed(data)
        elif not wanted or message.type in wanted:
            return message


# -- 15, 16, 17 ------------------------------------------------------------------------------------


def test_regression_15_unlinking_a_live_socket_or_a_winners_files():
    with World(under=MEMORY) as world:
        world.run("start", "-n", "s", "--", "cat", check=0)
        paths, guard, daemon = world.paths, world.guard_pid(), world.daemon_pid()
        program = sys.executable, os.path.join(paths.copies, os.listdir(paths.copies)[0])

        def inodes():
            """Of all that there is but the logs, which grow."""
            return {os.path.join(directory, name): os.lstat(os.path.join(directory, name)).st_ino
                    for directory, _, names in os.walk(paths.state) for name in names}

        before = inodes()
        stop(guard)                     # who is slow to answer is the guard none the less
        try:
            with open(supervise.launch_guard(backend, paths, program, {}, home="/"), "rb") as report:
                assert report.read().startswith(b"taken pid %d " % guard)
        finally:
            proceed(guard)
        ours, theirs = socket.socketpair()
        second = backend.launch([*program[:1], "-I", "-S", program[1], "__daemon", paths.root],
                                {"PATH": os.defpath, "HOME": "/"}, (theirs.fileno(),),
                                paths.daemon_log, detach=False)
        theirs.close()
        with ours:
            ours.settimeout(LIMIT_S)
            ours.sendall(wire.encode(wire.WELCOME) + wire.encode(wire.TABLE_END))
            hear(ours, wire.Decoder(), wire.READY)
            ours.sendall(wire.encode(wire.GO))
            more = voluntary_switches(second) + 50
            wait_until(lambda: voluntary_switches(second) > more, "its looking at daemon.lock")
            assert inodes() == before
            os.kill(second, signal.SIGTERM)     # it leaves in order, with all its cleaning-up
        assert os.waitpid(second, 0)[1] == 0
        assert inodes() == before
        assert (world.guard_pid(), world.daemon_pid()) == (guard, daemon)
        world.run("send", "s", "--enter", "hello", check=0)
        world.run("wait", "s", "--for", "hello\nhello", check=0)


def test_regression_16_history_lost_after_a_hand_over():
    kept = (64 << 10) - (16 << 10)      # of the smallest ring
    script = "stty -echo; seq $0; echo ready; while read x; do echo got $x; done"
    with World(under=MEMORY) as world, world.connect() as pg:
        full, short = (pg.start(["sh", "-c", script, str(lines)], scrollback=64 << 10)
                       for lines in (20000, 10))
        for session in (full, short):
            session.wait_for(b"ready", LIMIT_S)
        for how in HAND_OVERS:
            before = [session.read() for session in (full, short)]
            assert len(before[0][1]) == kept and before[1][0] == 0
            hand_over(world, how)
            for session, (offset, history) in zip((full, short), before):
                assert session.read() == (offset, history)
                session.send(b"a word\r")
                session.wait_for(b"got a word\r", LIMIT_S, since=offset + len(history), raw=True)
                added = b"got a word\r\n"
                wait_until(lambda: session.read()[1].endswith(added), "the whole line")
                gone = len(added) if session is full else 0     # as many bytes as came, and no more
                assert session.read() == (offset + gone, (history + added)[gone:])


def test_regression_17_exit_status_lost_after_adoption_or_for_a_late_client():
    with World(under=MEMORY) as world, world.connect() as pg:
        gate = os.path.join(world.directory, "gate")
        os.mkfifo(gate)
        ends = {"code": 9, "signal": 128 + signal.SIGTERM, "meanwhile": 5, "before": 3}
        reads = {name: "" if name != "meanwhile" else f"<{gate}" for name in ends}
        sessions = {name: pg.start(["sh", "-c", f"echo ready; read x {reads[name]}; exit $x"], name)
                    for name in ends}
        for session in sessions.values():
            session.wait_for(b"ready", LIMIT_S)
        sessions["before"].send(b"3\r")
        wait_until(lambda: pg.session("before").facts["state"] == "ended", "an end")
        hand_over(world, "kill -9")
        sessions["code"].send(b"9\r")
        os.kill(sessions["signal"].facts["pid"], signal.SIGTERM)
        # An end while there is no daemon to be told of it.
        guard, daemon = world.guard_pid(), world.daemon_pid()
        stop(guard)
        os.kill(daemon, signal.SIGKILL)
        with open(gate, "w") as file:
            file.write("5\n")
        wait_until(lambda: not is_alive(sessions["meanwhile"].facts["pid"]), "its end")
        proceed(guard)
        world.new_daemon_pid(daemon)
        for _ in range(2):                      # being asked takes nothing away
            for name, status in ends.items():
                world.run("wait", name, check=status)
        end_both(world)                         # then the disk knows
        for name, status in ends.items():
            world.run("wait", name, check=status)
        told = {s.name: s.facts["exit"] for s in pg.sessions()}
        assert told["meanwhile"] == {"code": 5, "signal": None}
        assert told["signal"] == {"code": None, "signal": "SIGTERM"}


# -- 18 and 21 -------------------------------------------------------------------------------------


def test_regression_18_a_stopped_viewer_freezing_the_program(world, pg, name):
    session = pg.start(["sh", "-c", "stty -echo; echo ready; read x; seq 450000; echo end of flood; cat"],
                       name)
    viewer = world.terminal("attach", name)
    viewer.expect(b"ready")
    viewer.send(b"\n")                  # who typed last may hold the program, for a moment
    viewer.expect(b"1\r\n2\r\n")
    stop(viewer.process.pid)
    session.wait_for(b"end of flood", LIMIT_S)
    assert state_of(viewer.process.pid) == "T"
    proceed(viewer.process.pid)
    viewer.expect(b"end of flood")      # a fresh picture ...
    assert len(viewer.output) < 2500000         # ... in place of the three megabytes that it missed
    viewer.send(b"back again\n")
    viewer.expect(b"back again")
    viewer.send(b"\x1c")
    assert viewer.wait() == 0


_STUBBORN = """
import os, signal, time
def told(number, _frame):
    print("told", signal.Signals(number).name, flush=True)
for name in ("SIGHUP", "SIGTERM", "SIGINT", "SIGQUIT"):
    signal.signal(getattr(signal, name), told)
if os.fork() == 0:
    os.setsid()
    for name in ("SIGHUP", "SIGTERM"):
        signal.signal(getattr(signal, name), signal.SIG_IGN)
    print("grandchild", os.getpid(), flush=True)
while True:
    time.sleep(1000)
"""


def test_regression_21_no_escalation_to_sigkill():
    with World(under=MEMORY) as world, world.connect() as pg:
        session = pg.start([sys.executable, "-c", _STUBBORN], "s")
        grandchild = int(session.wait_for(rb"grandchild (\d+)", LIMIT_S).group(1))
        pg.start(["cat"], "other")
        os.kill(grandchild, signal.SIGSTOP)
        world.run("kill", "--grace", "500ms", "s", check=0)
        assert not is_alive(session.facts["pid"]) and not is_alive(grandchild)
        assert re.findall(rb"told (\w+)", session.read()[1]) == [b"SIGHUP", b"SIGTERM"]
        world.run("wait", "s", check=128 + signal.SIGKILL)
        # And a daemon that does not listen.
        daemon = world.daemon_pid()
        stop(daemon)
        leaves = ("daemon", "stop", "--sessions", "keep", "--timeout", "300ms")
        assert b"--force" in world.run(*leaves, check=6).stderr and is_alive(daemon)
        world.run(*leaves, "--force", check=0)
        assert not is_alive(daemon)
        assert world.json("info", "other")["state"] == "running"


# -- 23, 24, 25 ------------------------------------------------------------------------------------


def use_all_verbs(pg, *names):
    """What may end up with a signal to somebody; some of it is refused."""
    for name in names:
        for verb, fields in (("info", {}), ("kill", {"signal": int(signal.SIGUSR1)}),
                             ("restart", {"grace": 0}), ("kill", {"grace": 0}), ("rm", {})):
            with contextlib.suppress(ptyguard.PtyguardError):
                pg.request(verb, target=name, **fields)
    assert not {s.name for s in pg.sessions()} & set(names)


# The leader has gone, and somebody else has its number by now.
_RECYCLED = """
taken = daemon.Daemon._take_spawned
def take(self, session, message):
    message.fields.update(pid=PID, pid_start=START)
    taken(self, session, message)
daemon.Daemon._take_spawned = take
"""


def test_regression_23_a_recycled_pid_signalled_by_its_session():
    with World(under=MEMORY) as world, stranger() as bystander:
        try:
            other = backend.process_start(bystander.pid) + 1
            patch_all(world, f"PID, START = {bystander.pid}, {other}\n" + _RECYCLED)
            world.run("daemon", "start", check=0)
            with world.connect() as pg:
                sessions = [pg.start(["sh", "-c", "trap '' HUP; sleep 1000"], name) for name in "abc"]
                assert [s.facts["pid"] for s in sessions] == [bystander.pid] * 3
                pg.request("kill", target="a", signal=int(signal.SIGKILL))      # of its own, that is
                assert sessions[0].wait(LIMIT_S)["signal"] == "SIGKILL"
                sessions[1].kill(0.3)
                use_all_verbs(pg, "a", "b")
                # On disk it claims to live, after a crash of both.
                end_both(world)
                record, = records_of(world).values()
                assert (record["state"], record["pid"]) == ("running", bystander.pid)
                assert pg.session("c").facts["state"] == "lost"
                use_all_verbs(pg, "c")
            world.run("daemon", "stop", "--sessions", "kill", "--force", check=0)
            assert bystander.poll() is None
        finally:
            bystander.kill()


def test_regression_23_a_recycled_pid_signalled_by_the_words_in_a_lock():
    with World(under=MEMORY) as world, stranger() as bystander:
        try:
            start = backend.process_start(bystander.pid)

            def write_words():
                for name in LOCKS:
                    with open(os.path.join(world.place, name), "w") as file:
                        purpose = name.partition(".")[0].replace("start", "guard")
                        file.write(f"pid {bystander.pid} start {start + 1}, {purpose}, since "
                                   "2026-01-01 00:00:00\n")

            assert world.paths          # which makes the directories
            write_words()               # left behind by a crash: nobody holds any of them
            with held_by_another(os.path.join(world.place, "guard.lock")):
                write_words()           # or somebody does, and has no socket
                starting = world.popen("ls")
                more = voluntary_switches(starting.pid) + 60
                wait_until(lambda: voluntary_switches(starting.pid) > more, "its looking")
                world.run("daemon", "stop", "--force", check=0)
                world.run("status", check=1)
            assert starting.wait(LIMIT_S) == 0
            guard, daemon = world.guard_pid(), world.daemon_pid()
            with world.connect() as pg:
                pg.start(["cat"], "s")
                write_words()           # or those who hold them were not who wrote there last
                world.run("daemon", "restart", check=0)
                use_all_verbs(pg, "s")
            write_words()
            world.run("daemon", "stop", "--sessions", "kill", "--force", check=0)
            wait_until(lambda: not is_alive(guard) and not is_alive(daemon), "their end")
            assert bystander.poll() is None
        finally:
            bystander.kill()


_READS_WHEN_TOLD = 'stty raw -echo; echo ready; read x <"$0"; exec cat >"$1"'
_NUMBERS = b"".join(b"%06d " % number for number in range(30000))


@pytest.mark.parametrize("cause", ["the program", "the daemon", "the daemon's death"])
def test_regression_24_input_typed_twice_after_a_time_out(world, pg, name, tmp_path, cause):
    gate, into = str(tmp_path / "gate"), str(tmp_path / "into")
    os.mkfifo(gate)
    session = pg.start(["sh", "-c", _READS_WHEN_TOLD, gate, into], name)
    session.wait_for(b"ready", LIMIT_S)
    daemon = world.daemon_pid()
    if cause == "the daemon":
        connection = pg.open_channel("send")
        stop(daemon)
        error = refused_in_time(lambda: sending.send_input(connection, name, _NUMBERS, timeout_s=0.2))
        proceed(daemon)
        assert error.kind == "timed_out" and error.details["written"] == 0
    elif cause == "the program":
        error = refused_in_time(lambda: session.send(_NUMBERS, timeout_s=0.2))
        assert error.kind == "timed_out" and 0 < error.details["written"] < len(_NUMBERS)
    else:
        killing = threading.Thread(target=lambda: wait_until(
            lambda: pg_info(world, name)["input_queued"], "input that waits")
            and os.kill(daemon, signal.SIGKILL))
        killing.start()
        error = refused_in_time(lambda: session.send(_NUMBERS))
        killing.join()
        assert error.kind == "unreachable" and "not sent again" in error.hint
    with open(gate, "w") as file:
        file.write("\n")
    session.send(b"end")                # whoever gave up may ask again: that is typed once
    wait_until(lambda: content(into).endswith(b"end"), "the end")
    typed = content(into)[:-len(b"end")]
    assert typed == _NUMBERS[:error.details.get("written", len(typed))]
    assert len(typed) < len(_NUMBERS)


def pg_info(world, name):
    """Facts of a session, by a connection of their own."""
    with world.connect() as pg:
        return pg.session(name).info()


def test_regression_25_a_slow_process_recorded_as_exited():
    with World(under=MEMORY) as world, world.connect() as pg:
        session = pg.start(["sh", "-c", "echo ready; while read x; do echo got $x; done"], "s")
        session.wait_for(b"ready", LIMIT_S)
        program, guard, daemon = session.facts["pid"], world.guard_pid(), world.daemon_pid()

        def check():
            told = world.json("ls")["sessions"]
            assert [(s["state"], s["pid"], s["ended_at"]) for s in told] == [("running", program, None)]
            assert records_of(world)[session.id]["state"] == "running"

        stop(program)
        check()
        stop(daemon)
        waiting = world.popen("ls")
        wait_until(lambda: "daemon_pinged" in world.log("guard"), "the guard's question")
        proceed(daemon)
        assert waiting.wait(LIMIT_S) == 0
        stop(guard)
        check()                         # without its help
        proceed(guard)
        check()
        assert (world.guard_pid(), world.daemon_pid()) == (guard, daemon)
        assert world.log("guard").count(" banner ") == world.log("guard").count("daemon_started") == 1
        hand_over(world, HAND_OVERS[-1])        # to a guard that is not its parent, too
        check()
        proceed(program)
        session.send(b"a word\r")
        session.wait_for(b"got a word", LIMIT_S)
        check()


# -- 26 --------------------------------------------------------------------------------------------


def test_regression_26_two_writers_of_one_record():
    with World(under=MEMORY) as world, world.connect() as pg:
        pg.start(["sleep", "1000"], "first")
        faults, is_over = [], threading.Event()

        def read_all_the_while():
            while not is_over.wait(0.005):
                try:
                    records_of(world)
                except (ValueError, AssertionError) as fault:
                    faults.append(fault)

        def call(number):
            """One of those who want the same few names."""
            with world.connect() as own:
                for turn in range(2):
                    target = None
                    verbs = [("rename", {"name": f"b{(number + turn) % 12}.{turn}"}),
                             ("restart", {"grace": 0}), ("kill", {"grace": 0})]
                    for verb, fields in verbs[number % 3:] + verbs[:number % 3]:
                        with contextlib.suppress(ptyguard.PtyguardError):
                            target = target or "@" + own.start(
                                ["sleep", "1000"], f"a{number % 8}" if number % 2 else None).id
                            own.request(verb, target=target, **fields)

        callers = [threading.Thread(target=call, args=(number,)) for number in range(24)]
        reader = threading.Thread(target=read_all_the_while)
        for thread in [reader] + callers:
            thread.start()
        for number, how in enumerate(HAND_OVERS[:2]):       # a daemon and its successor, too
            wait_until(lambda: len(records_of(world)) > 4 * number + 1, "some sessions")
            hand_over(world, how)
        for thread in callers:
            thread.join()
        is_over.set()
        reader.join()
        assert not faults, faults[:3]

        def told():
            """What `ls` and the disk say, in the fields that both have."""
            fields = ("name", "state", "pid", "pid_start", "created_at", "ended_at", "argv")
            listed = {s.id: s.facts for s in pg.sessions()}
            return [{id_: [facts[field] for field in fields]
                     + [facts["exit"] or {"code": None, "signal": None}]
                     for id_, facts in source.items()} for source in (listed, records_of(world))]

        wait_until(lambda: all(s.facts["state"] in ("running", "ended") for s in pg.sessions()),
                   "quiet")
        listed, recorded = told()
        assert listed == recorded and len(listed) > 6
        living = [row[0] for row in listed.values() if row[1] == "running"]
        assert len(set(living)) == len(living) and "first" in living


# A daemon that stands still between the word that it reads no more and its end; all
# programs have ended just before that word.
_LEAVES_SLOWLY = """
import select, signal
leaving = daemon.GuardLink.leave
def leave(self, on_done):
    if not os.path.exists(MARK):
        open(MARK, "w").close()
        for session in self._owner.sessions.values():
            os.kill(session.record["pid"], signal.SIGKILL)
        select.select([self._link.fileno()], [], [])
        leaving(self, on_done)
        os.kill(os.getpid(), signal.SIGSTOP)
    else:
        leaving(self, on_done)
daemon.GuardLink.leave = leave
"""


def test_regression_26_a_daemon_that_is_leaving_writes_no_record_of_its_successors():
    # What used to happen: an end that it was told of after it had let go of daemon.lock went to
    # disk as "draining", over its successor's "ended".
    with World(under=MEMORY) as world:
        patch_all(world, f"MARK = {os.path.join(world.directory, 'mark')!r}\n" + _LEAVES_SLOWLY)
        world.run("start", "-n", "s", "--", "sleep", "1000", check=0)
        old = world.daemon_pid()
        restarting = world.popen("daemon", "restart")
        wait_until(lambda: state_of(old) == "T", "its last word")
        world.new_daemon_pid(old)

        def states():
            return [record["state"] for record in records_of(world).values()]

        wait_until(lambda: states() == ["ended"], "the end on disk")
        proceed(old)
        assert restarting.wait(LIMIT_S) == 0
        wait_until(lambda: not is_alive(old), "its end")
        assert states() == ["ended"]


# -- 28 and 29 -------------------------------------------------------------------------------------

_STRANGER = """
import os, socket, sys
os.setgroups([])
os.setgid(int(sys.argv[1]))
os.setuid(int(sys.argv[1]))
for name in sys.argv[2:]:
    sock = socket.socket(socket.AF_UNIX)
    sock.settimeout(60)
    try:
        sock.connect(name)
    except PermissionError:
        print("no way in")
        continue
    try:
        sock.sendall(b'\\1\\0\\0\\0\\22{"protocol":[1,1]}' + b"\\0\\62\\0\\0\\0\\0\\0\\1\\0\\0\\0\\0")
        print("told", sock.recv(1000))
    except (BrokenPipeError, ConnectionResetError):
        print("told", b"")
"""

_SERVES_AS_ANOTHER = """
import os, socket, sys
sock = socket.socket(socket.AF_UNIX)
sock.bind(sys.argv[2])
os.setgroups([])
os.setgid(int(sys.argv[1]))
os.setuid(int(sys.argv[1]))
sock.listen(10)
print("listens", flush=True)
sys.stdin.read()
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be another user")
def test_regression_28_an_unauthenticated_peer():
    with World(under=MEMORY) as world:
        world.run("start", "-n", "s", "--", "cat", check=0)
        names = ("client.sock", "guard.sock")

        def as_another():
            return subprocess.run([sys.executable, "-c", _STRANGER, str(NOBODY), *names], cwd=world.place,
                                  stdout=subprocess.PIPE, check=True, timeout=LIMIT_S).stdout.decode()

        for modes in ((0o700, 0o600), (0o711, 0o600), (0o711, 0o666)):
            # The last is somebody's careless hand, and then the kernel's word for the uid counts.
            os.chmod(world.place, modes[0])
            for name in names:
                os.chmod(os.path.join(world.place, name), modes[1])
            answer = "told b''\n" if modes[1] == 0o666 else "no way in\n"
            assert as_another() == answer * 2
        os.chmod(world.place, 0o700)
        for which in ("guard", "daemon"):
            assert f"uid={NOBODY}" in world.log(which)
        world.run("send", "s", "--enter", "hello", check=0)
    with World(under=MEMORY) as world:          # and the other way round
        path = world.paths.client_socket
        with subprocess.Popen([sys.executable, "-c", _SERVES_AS_ANOTHER, str(NOBODY), path],
                              stdin=subprocess.PIPE, stdout=subprocess.PIPE) as server:
            assert server.stdout.readline() == b"listens\n"
            before = os.stat(path).st_ino
            assert f"served by uid {NOBODY}" in world.run("ls", check=6).stderr.decode()
            assert os.stat(path).st_ino == before and not world.log("guard")


def endless(*pieces):
    """Two megabytes of what those bytes make, again and again."""
    whole = b"".join(pieces)
    return whole * ((2 << 20) // len(whole))


def test_regression_28_an_unbounded_peer(world, pg, name):
    pg.start(["cat"], name)
    path, pids = world.paths.client_socket, (world.guard_pid(), world.daemon_pid())
    attacks = {
        "one frame without end": b"\1\xff\xff\xff\xff" + endless(b"x"),
        "a hello of megabytes": b"\1\0\x40\0\0" + endless(b" "),
        "input": endless(frames.raw_header(frames.INPUT, 60000), b"x" * 60000),
        "questions": endless(frames.control(frames.PING, {})),
        "requests": endless(frames.control(frames.REQUEST, {"id": 1, "verb": "ls"})),
        "a request of megabytes": frames.raw_header(frames.REQUEST, 2 << 20) + endless(b"{"),
        "nothing": endless(b"\0"),
    }
    for attack, data in attacks.items():        # once, for what is needed the first time
        with Wire(path, is_greeting=False) as peer:
            peer.send(data)
            peer.until_end()
    before = [own_kib(pid) for pid in pids]
    for attack, data in attacks.items():
        peers = [Wire(path, is_greeting=False) for _ in range(20)]
        for peer in peers:
            peer.send(data)
        for peer in peers:
            told = [payload["event"] for _, _, payload in peer.until_end()]
            peer.sock.close()
            assert told == ["refused"], attack
        assert all(own_kib(pid) < was + GROWTH_MAX_KIB for pid, was in zip(pids, before)), attack
    assert (world.guard_pid(), world.daemon_pid()) == pids
    assert pg.session(name).info()["state"] == "running"


def test_regression_29_unbounded_growth_on_output_without_newline(world, pg, name):
    many = "head -c 20000000 /dev/zero | tr '\\0' x"
    session = pg.start(["sh", "-c", f"stty raw -echo; echo ready; read x; printf '\\033]0;'; {many}; "
                                    f"printf '\\007'; {many}; echo; echo done; cat"], name,
                       scrollback=64 << 10)
    session.wait_for(b"ready", LIMIT_S)
    viewer = world.terminal("attach", "-r", name)
    viewer.expect(b"ready")
    shown = world.sink(viewer.master)
    waiting = world.popen("wait", name, "--for", "done", stdout=subprocess.DEVNULL)
    follower = world.popen("log", "-f", name, stdout=subprocess.DEVNULL)
    wait_until(lambda: len(session.info()["viewers"]) == 3, "all who look")
    pids = world.guard_pid(), world.daemon_pid(), waiting.pid, follower.pid, viewer.process.pid
    before = [own_kib(pid) for pid in pids]
    session.send(b"\n")
    most = list(before)

    def is_done():
        session.info()                  # which looks for a title, too
        for index, pid in enumerate(pids):
            most[index] = max(most[index], own_kib(pid))
        return session.facts["offsets"]["end"] > 40000000 and waiting.poll() is not None
    wait_until(is_done, "the end of the output")
    assert waiting.returncode == 0
    for pid, was, now in zip(pids, before, most):
        assert now < was + GROWTH_MAX_KIB, (pid, pids)
    assert (world.guard_pid(), world.daemon_pid()) == pids[:2]
    assert len(json.dumps(session.info())) < 16384
    assert world.run("log", "--tail", "1", name, check=0).stdout.strip() == b"done"
    wait_until(lambda: b"done" in shown.data()[-1000:], "its picture")


# -- 30, 32, 33, 34 --------------------------------------------------------------------------------


def test_regression_30_a_lock_wait_without_limit_or_holder():
    when = r"since \d{4}-\d\d-\d\d \d\d:\d\d:\d\d"
    with World(under=MEMORY) as world:
        paths = world.paths
        with held_by_another(paths.guard_lock):
            # It holds start.lock, and waits for a guard that does not come.
            starting = world.popen("ls")
            words = rf"pid {starting.pid} start \d+, client, starting, " + when
            wait_until(lambda: re.match(words, content(paths.start_lock).decode()), "its words")
            error = refused_in_time(lambda: supervise.reach(backend, paths, timeout_s=0.2))
            assert error.kind == "unreachable" and error.hint
            assert re.search(f"{paths.start_lock} is held by {words}", error.message)
        assert starting.wait(LIMIT_S) == 0
        # Who holds the others for good says so, too.
        for path, pid in ((paths.guard_lock, world.guard_pid()), (paths.daemon_lock, world.daemon_pid())):
            purpose = os.path.basename(path).partition(".")[0]
            error = refused(lambda: supervise.take_lock(backend, path, "a test", 0.0))
            assert re.search(rf"is held by pid {pid} start {backend.process_start(pid)}, {purpose}, "
                             + when, error.message)


_NOTES_MODES = """
import socket
os.umask(0)
binding, plain_chmod, plain_fchmod = socket.socket.bind, os.chmod, os.fchmod
def note(line):
    with open(NOTES, "a") as file:
        file.write(line + "\\n")
def bind(self, path):
    binding(self, path)
    note(f"{os.stat(path).st_mode & 0o777:o} {os.path.basename(path)}")
def chmod(path, *args, **options):
    note(f"chmod {path}")
socket.socket.bind, os.chmod, os.fchmod = bind, chmod, chmod
"""


def test_regression_32_bind_then_chmod():
    with World(under=MEMORY) as world:
        notes = os.path.join(world.directory, "notes")
        patch_all(world, f"NOTES = {notes!r}\n" + _NOTES_MODES)
        world.run("start", "-n", "s", "--", "sleep", "1000", check=0)
        guard = world.guard_pid()
        for name in ("client.sock", "guard.sock"):
            os.unlink(os.path.join(world.place, name))
        world.run("ls", check=0)                # which has them made again
        assert world.guard_pid() == guard
        # A probe, that is listened on by nobody and gone at once, asks whether there can be any.
        bound = [line for line in content(notes).decode().splitlines() if " probe." not in line]
        assert sorted(bound) == ["600 client.sock"] * 2 + ["600 guard.sock"] * 2
        assert b"Umask:\t0000" in content(f"/proc/{guard}/status")      # as it was before
        for directory, directories, files in os.walk(world.env["PTYGUARD_DIR"]):
            for path in (os.path.join(directory, name) for name in directories + files):
                assert os.path.islink(path) or os.stat(path).st_mode & 0o077 == 0, path


class Clock:
    """In place of the module `time`: goes on by what is waited for, and knows no time of day."""

    def __init__(self):
        self.now = 1000.0

    def monotonic(self):
        return self.now

    def sleep(self, seconds):
        self.now += seconds


class LateServer:
    """A listener whose backlog is full until `make_room`, and whose welcome comes when it is told."""

    def __init__(self, path):
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(path)
        self._listener.listen(0)
        self._listener.setblocking(False)
        self._connections = []
        self.is_full, self.has_answered = False, False

    def fill(self, path):
        """Nobody can connect any more: the kernel says EAGAIN, connect(2)."""
        while not self.is_full:
            sock = backend.connect_now(path)
            self.is_full = sock is None
            self._connections += [sock] if sock else []

    def make_room(self):
        """Accept all who wait."""
        with contextlib.suppress(BlockingIOError):
            while True:
                self._connections.append(self._listener.accept()[0])
        self.is_full = False

    def answer(self):
        """Accept one, hear its hello, and welcome it."""
        sock = self._listener.accept()[0]
        self._connections.append(sock)
        decoder = frames.Decoder(frames.FROM_CLIENT)
        assert [type_ for type_, _, _ in decoder.frames(sock.recv(65536))] == [frames.HELLO]
        sock.sendall(frames.control(frames.WELCOME, {"chosen": frames.PROTOCOL_MAX}))
        self.has_answered = True

    def close(self):
        for sock in self._connections + [self._listener]:
            sock.close()


@pytest.fixture
def late(own_directory, monkeypatch):
    """`late(full_s, answer_s, asleep_s)` connects to a LateServer; (clock, seconds connected).

    The backlog is full for so long, the welcome comes so long after the connection (None:
    never), and just before that is seen the machine sleeps for so long.
    """
    paths, clock = backend.find_paths(str(own_directory)), Clock()
    server = LateServer(paths.client_socket)
    monkeypatch.setattr(channel, "time", clock)
    monkeypatch.setattr(reaching, "time", clock)
    connecting, waiting = backend.connect, channel.Channel.wait_readable

    def connect_to(full_s, answer_s, asleep_s=0.0):
        began, connected = clock.now, []
        if full_s:
            server.fill(paths.client_socket)

        def connect(path, timeout_s):
            if path == paths.client_socket and clock.now >= began + full_s and server.is_full:
                server.make_room()
            try:
                sock = connecting(path, 0.02)
            except TimeoutError:
                clock.now += timeout_s
                raise
            connected.append(clock.now)
            return sock

        def wait_readable(connection, timeout_s):
            answer_at = float("inf") if answer_s is None else connected[0] + answer_s
            if not server.has_answered and clock.now + timeout_s >= answer_at:
                server.answer()
                if asleep_s:            # the time was over just then, and its sleep was long
                    clock.now += asleep_s
                    return False
                clock.now = max(clock.now, answer_at)
            if server.has_answered:
                return waiting(connection, LIMIT_S)
            clock.now += timeout_s
            return False

        monkeypatch.setattr(backend, "connect", connect)
        monkeypatch.setattr(channel.Channel, "wait_readable", wait_readable)
        try:
            channel.Channel(backend, paths).close()
        finally:
            connected = clock.now - connected[0]
        return connected

    yield connect_to
    server.close()


@pytest.mark.parametrize("full_s, answer_s, asleep_s", [
    (0, 29, 0),
    (35, 20, 0),                # 55 s after it began, 20 after it was connected
    (0, 29, 7 * 3600),          # the answer was there all night
])
def test_regression_33_a_time_out_window_eaten_by_a_slow_connect_or_a_machines_sleep(
        late, full_s, answer_s, asleep_s):
    assert late(full_s, answer_s, asleep_s) >= answer_s


def test_regression_33_and_there_is_a_window(late):
    error = refused(lambda: late(20, None))
    assert error.kind == "unreachable" and "did not answer in 30 s" in error.message


def test_regression_34_a_lock_inherited_by_a_child():
    with World(under=MEMORY) as world:
        log, mark = (os.path.join(world.directory, name) for name in ("log", "mark"))
        leaves = f"setsid sh -c 'echo $$ >{mark}; exec sleep 1000' </dev/null >/dev/null 2>&1 & exec cat"
        world.run("start", "-n", "s", "--log", log, "--", "sh", "-c", leaves, check=0)
        for how in (None,) + HAND_OVERS[:2]:
            if how:
                hand_over(world, how)
            world.run("start", "--", "sleep", "1000", check=0)
            guard, daemon = world.guard_pid(), world.daemon_pid()
            wait_until(lambda: content(mark) and len(descendants_of(guard)) >= 5, "all of them")
            for pid in {guard} | descendants_of(guard):
                held = sorted(os.path.basename(target) for target in targets_of(pid)
                              if target.startswith(world.place) and target.endswith(".lock"))
                assert held == {guard: ["guard.lock"], daemon: ["daemon.lock"]}.get(pid, []), pid
        grandchild = int(content(mark))
        end_both(world)
        assert is_alive(grandchild)
        for name in LOCKS:
            lock = backend.try_lock(os.path.join(world.place, name), "a test")
            assert lock is not None, name
            os.close(lock)
        world.run("ls", check=0)
        assert world.guard_pid() != guard and is_alive(grandchild)
