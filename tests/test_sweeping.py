"""What killed processes left behind is swept when a daemon starts, and nothing else is (C-707)."""

import fcntl
import os
import socket
import stat
import types

import pytest
from hypothesis import given, strategies as st

from ptyguard_core.registry import LEFTOVER_AGE_S
from ptyguard_core.sweeping import (COPIES_KEPT, COPY, COPY_AGE_S, CORRUPT, CORRUPT_AGE_S, DRAFT, FILES_A_TURN,
                                    SOCKET, Sweep, kind_of, leftovers)
from world import MEMORY, World, wait_until

NOW = 1_795_960_927.0
HOUR, DAY = 3600.0, 86400.0
COPY_NAME = "ptyguard-0.1.0-%016x.pyz"


def facts(age_s=0.0, mode=stat.S_IFREG | 0o600, uid=1000):
    return types.SimpleNamespace(st_mtime=NOW - age_s, st_mode=mode, st_uid=uid)


@pytest.mark.parametrize("name, kind", [
    ("k3f9.json.tmp-00aa", DRAFT), ("place.00aa11bb22cc", DRAFT), (COPY_NAME % 5 + ".tmp-0a", DRAFT),
    ("k3f9.json.corrupt-1795960927-0a1b", CORRUPT), (COPY_NAME % 5, COPY),
    ("ptyguard-1.2.0b1-0123456789abcdef.pyz", COPY),
    ("k3f9.json", None), ("place", None), ("daemon.log", None), ("daemon.log.1", None), ("start.lock", None),
    ("k3f9.json.tmp-xyz", None), ("k3f9.json.tmp-", None), ("notes.txt", None), ("notes.tmp", None),
    ("my-ptyguard-0.1.0-0123456789abcdef.pyz", None), ("ptyguard-0.1.0-0123.pyz", None),
    ("k3f9.json.corrupt-1795960927-0a1b.old", None), ("probe.00aa", None)])
def test_a_file_is_ours_by_its_name(name, kind):
    assert kind_of(name, facts(), 1000) == kind


@pytest.mark.parametrize("mode", [stat.S_IFDIR, stat.S_IFLNK, stat.S_IFIFO, stat.S_IFSOCK, stat.S_IFCHR])
def test_what_is_no_regular_file_of_ours_stays(mode):
    for name in ("k3f9.json.tmp-00aa", COPY_NAME % 5, "k3f9.json.corrupt-1-0a"):
        assert kind_of(name, facts(mode=mode | 0o600), 1000) is None
        assert kind_of(name, facts(uid=1001), 1000) is None


def test_sockets_are_swept_as_sockets_only():
    for name in ("probe.00aa", "client.sock", "guard.sock"):
        assert kind_of(name, facts(mode=stat.S_IFSOCK | 0o600), 1000) == SOCKET
        assert kind_of(name, facts(mode=stat.S_IFSOCK | 0o600, uid=0), 1000) is None
        assert kind_of(name, facts(), 1000) is None
    assert kind_of("other.sock", facts(mode=stat.S_IFSOCK | 0o600), 1000) is None


@pytest.mark.parametrize("name, limit_s", [
    ("k3f9.json.tmp-00aa", LEFTOVER_AGE_S), ("k3f9.json.corrupt-1-0a", CORRUPT_AGE_S), (COPY_NAME % 5, COPY_AGE_S)])
def test_each_goes_after_its_time_and_not_before(name, limit_s):
    def swept(age_s):
        return leftovers([("/d/" + name, facts(age_s))], 1000, NOW, kept=0)

    assert not swept(limit_s - 1) and not swept(limit_s) and not swept(-5.0)
    assert [path for path, _ in swept(limit_s + 1)] == ["/d/" + name]


def test_the_newest_copies_and_those_in_use_stay_however_old_they_are():
    files = [("/bin/" + COPY_NAME % number, facts(100 * DAY - number)) for number in range(8)]
    used = files[1][0]
    gone = [path for path, _ in leftovers(files, 1000, NOW, (used,))]
    assert gone == sorted(path for path, _ in files[:-COPIES_KEPT] if path != used) and len(gone) == 4


@given(st.lists(st.tuples(st.sampled_from(["k3f9.json.tmp-00aa", COPY_NAME % 1, COPY_NAME % 2, "place", "k3f9.json",
                                           "k3f9.json.corrupt-1-0a", "client.sock"]), st.floats(-1e6, 1e8),
                          st.sampled_from([stat.S_IFREG, stat.S_IFLNK, stat.S_IFSOCK]), st.sampled_from([1000, 0])),
                max_size=20))
def test_nothing_young_foreign_or_unknown_is_ever_swept(entries):
    files = [(f"/{number}/{name}", facts(age_s, mode, uid)) for number, (name, age_s, mode, uid) in enumerate(entries)]
    told = dict(files)
    for path, kind in leftovers(files, 1000, NOW):
        assert told[path].st_uid == 1000 and NOW - told[path].st_mtime > HOUR
        assert os.path.basename(path) not in ("place", "k3f9.json")
        assert stat.S_ISREG(told[path].st_mode) != (kind == SOCKET)


# -- a sweep of real files -----------------------------------------------------------------------

class Yard:
    """A state directory, and a loop that counts its turns."""

    def __init__(self, directory):
        import ptyguard_posix
        self.state = str(directory)
        self.place = self.state
        self.copies = os.path.join(self.state, "bin")
        self.client_socket = os.path.join(self.state, "client.sock")
        self.guard_socket = os.path.join(self.state, "guard.sock")
        self.backend, self.acts, self.lines, self.turns = ptyguard_posix, [], [], 0
        for name in ("bin", "sessions", "tombstones", "launches"):
            os.mkdir(os.path.join(self.state, name), 0o700)

    def after(self, _delay_s, act):
        self.acts.append(act)

    soon = property(lambda self: self.acts.append)

    def make(self, name, age_s):
        path = os.path.join(self.state, name)
        with open(path, "w") as file:
            file.write("x")
        os.utime(path, (NOW - age_s, NOW - age_s))
        return path

    def sweep(self, own="/none"):
        Sweep(self.backend, self, self, lambda: NOW, lambda event, **fields: self.lines.append((event, fields)),
              own).begin()
        while self.acts:
            self.turns += 1
            self.acts.pop(0)()


@pytest.fixture
def yard(tmp_path):
    return Yard(tmp_path)


def test_old_drafts_and_what_was_set_aside_go_from_everywhere(yard):
    gone = [yard.make(name, 40 * DAY) for name in (
        "place.00aa", "sessions/k3f9.json.tmp-00aa", "tombstones/k3f9.json.tmp-00aa", "launches/k3f9.json.tmp-0a",
        "bin/" + COPY_NAME % 1 + ".tmp-0a", "sessions/k3f9.json.corrupt-1-0a", "launches/k3f9.json.corrupt-1-0a")]
    stay = [yard.make(name, 40 * DAY) for name in (
        "place", "sessions/k3f9.json", "tombstones/k3f9.json", "launches/k3f9.json", "daemon.log.3", "bin/mine.pyz")]
    stay += [yard.make("sessions/zzzz.json.tmp-0a", 60), yard.make("sessions/zzzz.json.corrupt-1-0a", 5 * DAY)]
    yard.sweep()
    assert not any(map(os.path.exists, gone)) and all(map(os.path.exists, stay))
    assert sorted(fields["path"] for event, fields in yard.lines if event == "leftover_swept") == sorted(gone)


def test_a_copy_that_somebody_runs_from_stays(yard):
    paths = [yard.make("bin/" + COPY_NAME % number, 10 * DAY - number) for number in range(6)]
    with open(paths[0]) as held:
        fcntl.flock(held, fcntl.LOCK_SH)
        yard.sweep(own=paths[1])
        assert [os.path.exists(path) for path in paths] == [True, True, False, True, True, True]
    yard.sweep(own=paths[1])
    assert [os.path.exists(path) for path in paths] == [False, True, False, True, True, True]
    with open(paths[1]) as file:
        assert file.read() == "x"       # looked at, and never written to


def test_links_and_what_they_lead_to_stay(yard, tmp_path_factory):
    target = tmp_path_factory.mktemp("else") / "precious"
    target.write_text("x")
    os.utime(target, (0, 0))
    for name in ("sessions/k3f9.json.tmp-0a", "bin/" + COPY_NAME % 1):
        os.symlink(target, os.path.join(yard.state, name))
        os.utime(os.path.join(yard.state, name), (0, 0), follow_symlinks=False)
    os.rmdir(os.path.join(yard.state, "tombstones"))
    elsewhere = tmp_path_factory.mktemp("tombstones")
    (elsewhere / "k3f9.json.tmp-0a").write_text("x")
    os.utime(elsewhere / "k3f9.json.tmp-0a", (0, 0))
    os.symlink(elsewhere, os.path.join(yard.state, "tombstones"))
    yard.sweep()
    assert target.exists() and (elsewhere / "k3f9.json.tmp-0a").exists() and yard.lines == []


def test_a_dead_socket_goes_and_one_that_is_served_stays(yard):
    listening, sockets = [], {}
    for name in ("probe.00aa", "client.sock", "guard.sock"):
        sock = socket.socket(socket.AF_UNIX)
        sockets[name] = os.path.join(yard.state, name)
        sock.bind(sockets[name])
        os.utime(sockets[name], (NOW - DAY, NOW - DAY))
        listening.append(sock)
    listening[1].listen(1)
    yard.client_socket = yard.guard_socket = "/elsewhere"      # since the place was decided anew
    yard.sweep()
    assert {name for name, path in sockets.items() if os.path.exists(path)} == {"client.sock"}
    for sock in listening:
        sock.close()


def test_the_sockets_of_the_place_are_not_looked_at(yard):
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(yard.guard_socket)
        os.utime(yard.guard_socket, (NOW - DAY, NOW - DAY))
        yard.sweep()
        assert os.path.exists(yard.guard_socket)


def test_a_few_files_a_turn(yard):
    for number in range(FILES_A_TURN * 5):
        yard.make("sessions/k3f9.json.tmp-%04x" % number, DAY)
    yard.sweep()
    assert os.listdir(os.path.join(yard.state, "sessions")) == [] and yard.turns >= 10


def test_what_cannot_be_removed_stays_and_ends_nothing(yard):
    path = yard.make("sessions/k3f9.json.tmp-0a", DAY)
    other = yard.make("launches/k3f9.json.tmp-0a", DAY)
    sweep_unlink = os.unlink

    def unlink(what):
        if what == path:
            raise PermissionError(1, "not permitted", what)
        sweep_unlink(what)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "unlink", unlink)
        yard.sweep()
    assert os.path.exists(path) and not os.path.exists(other)
    assert ("leftover_stays", "not permitted") in [(e, "not permitted" if "not permitted" in f.get("error", "") else "")
                                                   for e, f in yard.lines]


# -- a real daemon -------------------------------------------------------------------------------

def test_a_daemon_sweeps_when_it_starts_and_runs_on():
    with World(under=MEMORY) as world:
        world.run("ls", check=0)
        copies = os.path.join(world.state, "bin")
        own = os.path.join(copies, os.listdir(copies)[0])
        os.utime(own, (0, 0))           # the oldest of all, and in use
        old = []
        for number in range(COPIES_KEPT + 2):
            path = os.path.join(copies, COPY_NAME % number)
            with open(path, "w"):
                pass
            os.utime(path, (1000 + number, 1000 + number))
            old.append(path)
        draft = os.path.join(world.state, "sessions", "k3f9.json.corrupt-1-0a")
        with open(draft, "w"):
            pass
        os.utime(draft, (0, 0))
        world.kill_daemon()
        world.run("ls", check=0)
        wait_until(lambda: not os.path.exists(draft), "the sweep")
        wait_until(lambda: not os.path.exists(old[1]), "the sweep of copies")
        assert not os.path.exists(old[0]) and all(map(os.path.exists, old[2:])) and os.path.exists(own)
        world.run("run", "--", "true", check=0)
