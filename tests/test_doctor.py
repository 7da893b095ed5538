"""Doctor: what it makes of facts, case by case; and real worlds, well and unwell."""

import ast
import contextlib
import copy
import ctypes
import fcntl
import json
import os
import resource
import signal
import socket
import sys
import types
import zipfile

import pytest

import ptyguard_posix as backend
from ptyguard_core import doctor, survey
from ptyguard_core.doctor import (FAIL, PASS, WARN, examine, kills_leftovers, managed_group,
                                  settings_in, unit_of, worst)
from ptyguard_core.report import findings_sheet
from world import MEMORY, World, is_alive, wait_until

INFINITY = float("inf")


# -- judging: pure --------------------------------------------------------------------------

def confinement(**changes):
    return dict({"state": "S", "groups": [4, 1000], "no_new_privs": False, "seccomp": False,
                 "cgroups": {"": "/user.slice/user-1000.slice/session-3.scope"},
                 "limits": {"max open files": (20000, 20000), "max processes": (900, 900)},
                 "mounts": "mnt:[1]", "files": ["/dev/null"] * 20}, **changes)


def directory(path="/h/.ptyguard", **changes):
    return dict({"path": path, "kind": "directory", "uid": 1000, "mode": 0o700, "error": "",
                 "is_root": path == "/h/.ptyguard", "is_writable": True, "above": "/h",
                 "can_be_made": True}, **changes)


def file(path="/s/guard.log", **changes):
    return dict({"path": path, "kind": "file", "uid": 1000, "mode": 0o600, "is_needed": True},
                **changes)


def lock(name, pid, **changes):
    purpose = name.partition(".")[0]
    return dict({"name": name, "path": "/s/" + name, "is_held": True, "pids": [pid], "error": "",
                 "words": f"pid {pid} start 9, {purpose}, since 2026-11-29 19:50:31", "pid": pid,
                 "purpose": purpose, "is_alive": True}, **changes)


def free(name):
    return lock(name, 30, is_held=False, pids=[], is_alive=False)


def private_copy(path="/s/bin/new.pyz", **changes):
    return dict({"path": path, "bytes": 400000, "is_ours": True, "is_held": True}, **changes)


def well():
    """The facts of a world in which guard and daemon run and all is well."""
    return {
        "uid": 1000, "version": "1.2.0", "refusal": None, "job": None, "settings": {},
        "directories": [directory(), directory("/h/.ptyguard/host")], "files": [file()],
        "disk": {"path": "/h", "type": "ext4", "is_network": False, "is_read_only": False,
                 "free_bytes": 1 << 40, "free_files": 10 ** 6},
        "place": {"path": "/s", "file": "/s/place", "is_unreadable": False, "is_elsewhere": False,
                  "cleaning_age": "", "is_locked": False},
        "is_reachable": True,
        "guard": {"pid": 20, "error": "", "is_silent": False, "log": "/s/guard.log",
                  "version": "1.2.0", "state": "serving", "reason": "", "last_failure": "",
                  "daemon_pid": 21, "binary": "/s/bin/new.pyz", "has_binary": True,
                  "interpreter": "/usr/bin/python3", "has_interpreter": True,
                  "holds_binary": True, "confinement": confinement()},
        "daemon": {"pid": 21, "version": "1.2.0", "error": "", "confinement": confinement(),
                   "binary": "/s/bin/new.pyz", "is_ours": True},
        "strays": [],
        "locks": [free("start.lock"), lock("guard.lock", 20), lock("daemon.lock", 21)],
        "sockets": [{"name": name, "path": "/s/" + name, "kind": "socket"}
                    for name in ("guard.sock", "client.sock")],
        "confinement": confinement(), "group_names": {}, "memory": "memfd",
        "terminals": {"used": 3, "limit": 4096, "error": ""},
        "shared_memory": {"free_bytes": 1 << 30},
        "logout": {"has_manager": True, "user": "ann", "lingers": False, "unit": [],
                   "logind": ["[Login]\n#KillUserProcesses=no\n"]},
        "python": {"version": "3.11.7", "executable": "/usr/bin/python3", "base": "/usr/bin/python3",
                   "in_venv": False, "missing": [], "is_usable": True},
        "copies": [private_copy()], "corrupt": [], "unknown": [],
    }


def resting():
    """The same when nothing runs and sockets are gone, as after `daemon stop`."""
    facts = well()
    facts.update(guard=None, daemon=None, locks=[free(f"{name}.lock") for name in (
        "start", "guard", "daemon")])
    for one in facts["sockets"]:
        one["kind"] = "missing"
    facts["copies"][0]["is_held"] = False
    return facts


def changed(facts, where, value):
    """`facts` with what is at `where` (keys, separated by dots) replaced."""
    facts = copy.deepcopy(facts)
    *path, last = (int(key) if key.isdigit() else key for key in where.split("."))
    inner = facts
    for key in path:
        inner = inner[key]
    inner[last] = value
    return facts


def after(base, *changes):
    for where, value in zip(changes[::2], changes[1::2]):
        base = changed(base, where, value)
    return base


def in_group(path):
    """Changes that put the guard and us into that control group."""
    return ("guard.confinement.cgroups", {"": path}, "confinement.cgroups", {"": path})


WELL, RESTING = well(), resting()
SYSTEM = "/system.slice/"
USER = "/user.slice/user-1000.slice/user@1000.service/"

# (facts, level, subject, words of the text, words of the cure); what is told of that subject
# and level.  Each finding stands here both ways: when it is made, and what stands in its place.
CASES = [
    # directory
    (WELL, PASS, "directory", "/h/.ptyguard is yours alone", ""),
    (after(RESTING, "directories.0.kind", "missing"), PASS, "directory", "made by the first start", ""),
    (after(RESTING, "refusal", ("a test run must not", "set PTYGUARD_DIR")), FAIL, "directory",
     "a test run must not", "set PTYGUARD_DIR"),
    (after(RESTING, "directories.0.kind", "missing", "directories.0.can_be_made", False), FAIL,
     "directory", "/h is no directory that you can write", "PTYGUARD_DIR"),
    (after(RESTING, "directories.1.kind", "unknown", "directories.1.error", "Permission denied"), FAIL,
     "directory", "cannot be looked at: Permission denied", "PTYGUARD_DIR"),
    (after(RESTING, "directories.0.kind", "file"), FAIL, "directory", "is not a directory", "move it"),
    (after(RESTING, "directories.0.kind", "socket"), FAIL, "directory", "is not a directory", "move it"),
    (after(RESTING, "directories.0.kind", "other"), FAIL, "directory", "is not a directory", "move it"),
    (after(RESTING, "directories.0.kind", "link"), FAIL, "directory", "is a symbolic link", "move it"),
    (after(WELL, "directories.1.uid", 0), FAIL, "directory", "belongs to uid 0, not to you (1000)",
     "PTYGUARD_DIR"),
    (after(WELL, "directories.1.mode", 0o755), FAIL, "directory", "open to others (mode 0755)",
     "chmod 700 /h/.ptyguard/host"),
    (after(WELL, "directories.0.mode", 0o500, "directories.0.is_writable", False), FAIL, "directory",
     "cannot be written by you (mode 0500)", "chmod 700 /h/.ptyguard"),
    (after(WELL, "directories.0.is_writable", False), FAIL, "directory", "cannot be written", "`disk`"),
    # files
    (WELL, PASS, "files", "1 file, all yours alone", ""),
    (after(WELL, "files.0.uid", 0), FAIL, "files", "/s/guard.log belongs to uid 0",
     "chown 1000 /s/guard.log"),
    (after(WELL, "files.0.uid", 0, "files.0.is_needed", False), WARN, "files", "belongs to uid 0", "chown"),
    (after(WELL, "files.0.kind", "link"), FAIL, "files", "is neither a file nor a socket", "move"),
    (after(WELL, "files.0.kind", "agent link"), PASS, "files", "1 file, all yours", ""),
    (after(WELL, "files.0.mode", 0o644), WARN, "files", "open to others (mode 0644)",
     "chmod 600 /s/guard.log"),
    # disk
    (WELL, PASS, "disk", "1024 GiB free on ext4", ""),
    (after(WELL, "disk.type", None), PASS, "disk", "free on the file system", ""),
    (after(WELL, "disk.is_read_only", True), FAIL, "disk", "read-only", "PTYGUARD_DIR"),
    (after(WELL, "disk.free_bytes", 5000), FAIL, "disk", "the disk is full (4 KiB free)", "free some"),
    (after(WELL, "disk.free_bytes", 0), FAIL, "disk", "the disk is full (0 bytes free)", "free some"),
    (after(WELL, "disk.free_files", 0), FAIL, "disk", "the disk is full", "free some"),
    (after(WELL, "disk.free_bytes", 9 << 20), WARN, "disk", "9 MiB free", "free some"),
    (after(WELL, "disk.free_files", 9), WARN, "disk", "room for 9 files", "free some"),
    (after(WELL, "disk.free_files", None), PASS, "disk", "free on ext4", ""),
    (after(WELL, "disk.is_network", True, "disk.type", "nfs4"), WARN, "disk",
     "network file system (nfs4)", "directory of this host"),
    (after(WELL, "disk.is_network", True, "place.is_elsewhere", True), PASS, "disk", "free", ""),
    # place
    (after(WELL, "place.is_elsewhere", True), PASS, "place", "sockets and locks are in /s", ""),
    (after(WELL, "place.is_elsewhere", True, "place.cleaning_age", "10d"), WARN, "place",
     "not locked against the cleaner, which removes what is 10d old", "daemon stop"),
    (after(WELL, "place.is_elsewhere", True, "place.cleaning_age", "10d", "place.is_locked", True),
     PASS, "place", "locked against the cleaner", ""),
    (after(RESTING, "place.is_elsewhere", True, "place.cleaning_age", "10d"), PASS, "place", "/s", ""),
    (after(WELL, "place.cleaning_age", "10d"), WARN, "place", "which removes what is 10d old", "daemon stop"),
    (after(WELL, "place.cleaning_age", "10d", "place.is_locked", True), PASS, "place",
     "locked against the cleaner", ""),
    (after(RESTING, "place.is_unreadable", True, "is_reachable", False), FAIL, "place",
     "/s/place does not name a directory", "rm /s/place"),
    # settings
    (after(WELL, "settings", {"PTYGUARD_IDLE_EXIT": "soon"}), FAIL, "settings",
     "PTYGUARD_IDLE_EXIT is 'soon'", "unset PTYGUARD_IDLE_EXIT"),
    (after(WELL, "settings", {"PTYGUARD_SCOPE": "docker"}), FAIL, "settings",
     "PTYGUARD_SCOPE is 'docker'", "make it systemd"),
    # guard
    (WELL, PASS, "guard", "pid 20, version 1.2.0", ""),
    (after(WELL, "guard.version", "1.1.0"), PASS, "guard", "older than this program", ""),
    (after(WELL, "guard.version", "what?"), PASS, "guard", "pid 20, version what?", ""),
    (RESTING, PASS, "guard", "none runs", ""),
    (after(WELL, "guard", None), WARN, "guard", "it has died", "daemon log"),
    (after(WELL, "guard.is_silent", True, "guard.error", "no answer in 3 s"), FAIL, "guard",
     "pid 20 does not answer: no answer in 3 s", "/s/guard.log"),
    (after(WELL, "guard.is_silent", True, "guard.confinement.state", "T"), FAIL, "guard",
     "pid 20 is stopped", "kill -CONT 20"),
    (after(WELL, "guard.is_silent", True, "guard.pid", None, "guard.error", "served by uid 7"), FAIL,
     "guard", "whoever listens there does not answer: served by uid 7", ""),
    (after(WELL, "guard.error", "nobody listens at /s/guard.sock"), WARN, "guard",
     "pid 20: nobody listens", "next command"),
    (after(WELL, "guard.state", "circuit-open", "guard.reason", "exited with 3", "daemon", None), FAIL,
     "guard", "keep dying: exited with 3", "daemon restart"),
    (after(WELL, "guard.state", "dead", "guard.last_failure", "no python", "daemon", None), WARN,
     "guard", "start of a daemon failed: no python", "daemon restart"),
    (after(RESTING, "strays", [{"pid": 7, "daemons": [8]}]), WARN, "strays",
     "pid 7 is a guard of /h/.ptyguard too, and nobody can reach it", "kill -9 8 7"),
    # daemon
    (WELL, PASS, "daemon", "pid 21, version 1.2.0", ""),
    (after(WELL, "daemon.version", "1.3.0"), PASS, "daemon", "newer than this program", ""),
    (after(WELL, "daemon.version", "1.1.9"), WARN, "daemon", "is of version 1.1.9", "daemon restart"),
    (after(WELL, "daemon.error", "no answer in 3 s"), FAIL, "daemon", "pid 21 does not answer",
     "ptyguard ls"),
    (after(WELL, "daemon.error", "no answer in 3 s", "daemon.confinement.state", "t"), FAIL, "daemon",
     "pid 21 is stopped", "kill -CONT 21"),
    (after(WELL, "guard.state", "stopped", "daemon", None), PASS, "daemon", "sessions live on", ""),
    (after(WELL, "guard.state", "quiescing", "daemon", None), WARN, "daemon", "being replaced", "again"),
    # sockets
    (WELL, PASS, "sockets", "in their places", ""),
    (RESTING, PASS, "sockets", "none is left over", ""),
    (after(RESTING, "sockets.0.kind", "socket"), WARN, "sockets", "/s/guard.sock is left over", "none"),
    (after(WELL, "sockets.1.kind", "missing"), WARN, "sockets", "/s/client.sock is gone", "none"),
    (after(RESTING, "sockets.1.kind", "directory"), FAIL, "sockets", "in the way", "move"),
    (after(WELL, "guard.state", "circuit-open", "daemon", None, "sockets.1.kind", "missing"), PASS,
     "sockets", "", ""),
    (after(WELL, "guard.error", "gone", "sockets.0.kind", "missing"), PASS, "sockets", "", ""),
    # locks
    (WELL, PASS, "locks", "guard.lock is held by pid 20 (guard, since 2026-11-29 19:50:31), daemon.lock is "
     "held by pid 21 (daemon, since 2026", ""),
    (RESTING, PASS, "locks", "nobody holds one", ""),
    (after(RESTING, "locks.0", lock("start.lock", 9)), WARN, "locks",
     "start.lock is held by pid 9 start 9, start, since 2026", "kill 9"),
    (after(RESTING, "locks.0", lock("start.lock", 9, pids=[])), WARN, "locks", "held by pid 9", "kill 9"),
    (after(RESTING, "locks.1", lock("guard.lock", 9, pids=[8])), WARN, "locks",
     "held by pid 8, and not by whom it names (pid 9", "ps -fp 8"),
    (after(RESTING, "locks.1", lock("guard.lock", 9, pids=[], is_alive=False)), FAIL, "locks",
     "though whom it names is gone (pid 9", "fuser -v /s/guard.lock"),
    (after(RESTING, "locks.1", lock("guard.lock", None, pids=[], is_alive=False, words="")), FAIL,
     "locks", "(nobody)", "fuser"),
    (after(RESTING, "locks.2", lock("daemon.lock", 9, is_held=None, error="Too many levels")), FAIL,
     "locks", "cannot be looked at: Too many levels", "files"),
    (after(WELL, "locks.2", free("daemon.lock")), WARN, "locks", "does not hold daemon.lock", "restart"),
    # limits
    (WELL, PASS, "limits", "the guard uses 20 of 20000 descriptors", ""),
    (WELL, PASS, "limits", "the daemon uses 20 of 20000 descriptors", ""),
    (after(WELL, "guard.confinement.files", ["x"] * 19800), WARN, "limits", "19800 of 20000", "rm --ended"),
    (after(WELL, "daemon.confinement.files", ["x"] * 19990), FAIL, "limits", "the daemon uses 19990", "rm"),
    (after(WELL, "guard.confinement.limits", {"max open files": (INFINITY, INFINITY)}), PASS, "limits",
     "20 of unlimited descriptors", ""),
    (after(WELL, "confinement.limits", {"max processes": (900, INFINITY)}), WARN, "limits",
     "max processes 900 (here unlimited)", "daemon stop"),
    (after(WELL, "confinement.limits", {"max processes": (5, 5)}), PASS, "limits", "uses", ""),
    (RESTING, PASS, "limits", "20000 descriptors: room for about 6650 sessions", ""),
    (after(RESTING, "confinement.limits", {"max open files": (256, 512)}), WARN, "limits",
     "512 descriptors: room for about 154 sessions", "ulimit -Hn"),
    (after(RESTING, "confinement.limits", {"max open files": (256, INFINITY)}), PASS, "limits",
     "no limit to sessions", ""),
    # PTYs
    (WELL, PASS, "PTYs", "3 of 4096 are in use", ""),
    (after(WELL, "terminals.used", 4090), WARN, "PTYs", "4090 of 4096", "kernel.pty.max"),
    (after(WELL, "terminals.error", "No space left"), FAIL, "PTYs",
     "none can be opened: No space left; 3 of 4096", "kernel.pty.max"),
    (after(WELL, "terminals.error", "No such device", "terminals.limit", None), FAIL, "PTYs",
     "none can be opened: No such device", "/dev/pts"),
    (after(WELL, "terminals.used", None), PASS, "PTYs", "one can be opened", ""),
    # memory
    (WELL, PASS, "memory", "output is kept in memfd", ""),
    (after(WELL, "memory", "file"), WARN, "memory", "unlinked files on a disk", "/dev/shm"),
    (after(WELL, "memory", "shared memory"), PASS, "memory", "shared memory", ""),
    (after(WELL, "memory", "shared memory", "shared_memory.free_bytes", 3 << 20), WARN, "memory",
     "of which 3 MiB are free", "--shm-size"),
    # cgroup
    (WELL, PASS, "cgroup", "the guard is in yours, /user.slice/user-1000.slice/session-3.scope", ""),
    (after(WELL, "confinement.cgroups", {"": "/user.slice/user-1000.slice/session-9.scope"}), PASS,
     "cgroup", "another login of yours", ""),
    (after(WELL, "guard.confinement.cgroups", {"": SYSTEM + "runner.service"}), WARN, "cgroup",
     "/system.slice/runner.service (you: /user.slice/user-1000.slice/session-3.scope)", "daemon stop"),
    (after(WELL, "guard.confinement.cgroups", {"": "/", "memory": "/small"},
           "confinement.cgroups", {"": "/", "memory": "/"}), WARN, "cgroup", "memory:/small (you: /)", "stop"),
    # privileges
    (WELL, PASS, "privileges", "no less than yours", ""),
    (after(WELL, "guard.confinement.no_new_privs", True), WARN, "privileges", "NoNewPrivs", "daemon stop"),
    (after(WELL, "confinement.no_new_privs", True), PASS, "privileges", "no less", ""),
    (after(WELL, "guard.confinement.no_new_privs", None), PASS, "privileges", "no less", ""),
    (after(WELL, "guard.confinement.seccomp", True), WARN, "privileges", "seccomp", "daemon stop"),
    (after(WELL, "confinement.seccomp", True), PASS, "privileges", "no less", ""),
    (after(WELL, "guard.confinement.mounts", "mnt:[2]"), WARN, "privileges", "other mounts", "stop"),
    (after(WELL, "guard.confinement.mounts", None), PASS, "privileges", "no less", ""),
    # groups
    (WELL, PASS, "groups", "the guard's are yours", ""),
    (after(WELL, "confinement.groups", [4, 998, 1000], "group_names", {998: "docker"}), WARN, "groups",
     "sessions lack your groups docker", "daemon stop"),
    (after(WELL, "confinement.groups", [1000]), WARN, "groups", "groups that you have not: 4", "stop"),
    # logout
    (WELL, PASS, "logout", "the guard is in session-3.scope; a logout leaves it alone", ""),
    (RESTING, PASS, "logout", "a guard started from here would be in session-3.scope", ""),
    (after(WELL, "logout.logind", ["[Login]\nKillUserProcesses=yes\n"]), WARN, "logout",
     "KillUserProcesses=yes ends it at logout", "@reboot"),
    (after(WELL, "logout.logind", []), WARN, "logout", "does not say", "KillExcludeUsers=ann"),
    (after(WELL, "logout.has_manager", False), PASS, "logout", "no systemd here", ""),
    (after(WELL, *in_group(USER + "app.slice/run-7.scope")), WARN, "logout",
     "run-7.scope: your user manager ends with your last login", "loginctl enable-linger ann"),
    (after(WELL, *in_group(USER + "app.slice/run-7.scope"), "logout.lingers", True), PASS, "logout",
     "the user manager stays (linger)", ""),
    (after(WELL, *in_group(USER + "app.slice/code.service"), "logout.lingers", True), WARN, "logout",
     "code.service: it ends when that is stopped", "@reboot"),
    (after(WELL, *in_group(SYSTEM + "runner.service")), WARN, "logout",
     "runner.service: it ends when that is stopped (KillMode=control-group)", "@reboot"),
    (after(WELL, *in_group(SYSTEM + "cron.service"), "logout.unit", ["[Service]\nKillMode=process\n"]),
     PASS, "logout", "cron.service, whose end leaves it alone", ""),
    (after(WELL, *in_group(SYSTEM + "run-3.scope")), PASS, "logout", "run-3.scope: no logout ends it", ""),
    (after(WELL, *in_group("/")), PASS, "logout", "no unit: no logout ends it", ""),
    (after(WELL, *in_group("/docker/4f5e")), PASS, "logout", "as long as this container", ""),
    (after(WELL, "job", "GITLAB_CI"), WARN, "logout", "CI job (GITLAB_CI is set)", "@reboot"),
    (after(RESTING, "job", "CI"), WARN, "logout", "would be in a CI job", "@reboot"),
    (after(WELL, "job", "CI", "confinement.cgroups", {"": "/user.slice/user-1000.slice/session-9.scope"}),
     PASS, "logout", "the guard is in session-3.scope", ""),
    # python
    (WELL, PASS, "python", "3.11.7, /usr/bin/python3", ""),
    (after(WELL, "python.in_venv", True, "python.executable", "/v/bin/python"), PASS, "python",
     "/v/bin/python; guard and daemon run on /usr/bin/python3, outside", ""),
    (after(WELL, "python.missing", ["termios", "zlib"]), FAIL, "python", "lacks termios, zlib",
     "full python3"),
    (after(RESTING, "python.is_usable", False), FAIL, "python", "does not work for guard", "install"),
    (after(RESTING, "python.is_usable", False, "python.in_venv", True), FAIL, "python",
     "(of a virtual environment)", "install"),
    (after(WELL, "python.is_usable", False), WARN, "python", "does not work for guard", "install"),
    (after(WELL, "guard.has_interpreter", False), FAIL, "python", "/usr/bin/python3, which the next",
     "daemon restart"),
    # binaries
    (WELL, PASS, "binaries", "nothing is stale", ""),
    (after(RESTING, "copies", []), PASS, "binaries", "no private copy yet", ""),
    (after(WELL, "guard.has_binary", False), WARN, "binaries", "/s/bin/new.pyz, which the next daemon is to "
     "run from, is gone; the guard writes it again", "daemon restart"),
    (after(WELL, "guard.has_binary", False, "guard.holds_binary", False), FAIL, "binaries", "is gone",
     "daemon restart"),
    (after(WELL, "copies", [private_copy(), private_copy("/s/bin/o l.pyz", is_ours=False, is_held=False)]), WARN,
     "binaries", "1 old copy that nobody runs from (390 KiB)", "rm '/s/bin/o l.pyz'"),
    (after(WELL, "copies", [private_copy(path, is_ours=False, is_held=False) for path in ("/1", "/2")]), WARN,
     "binaries", "2 old copies", "rm /1 /2"),
    (after(WELL, "copies", [private_copy("/1", is_ours=False)]), PASS, "binaries", "nothing is stale", ""),
    (after(WELL, "copies", [private_copy("/1", is_ours=False, is_held=None)]), PASS, "binaries", "stale", ""),
    (after(WELL, "copies", [private_copy(is_ours=False, is_held=False)]), PASS, "binaries", "stale", ""),
    (after(WELL, "daemon.is_ours", False, "daemon.binary", "/s/bin/b.pyz"), WARN, "binaries",
     "the daemon, pid 21, runs another build of 1.2.0 than this program: /s/bin/b.pyz", "daemon restart"),
    (after(WELL, "daemon.is_ours", None), PASS, "binaries", "nothing is stale", ""),
    (after(WELL, "daemon.is_ours", False, "daemon.version", "1.3.0"), PASS, "binaries", "nothing is", ""),
    # records and system
    (after(WELL, "corrupt", ["/s/sessions/a.json.corrupt-1-x"]), WARN, "records", "1 unreadable record set",
     "rm /s/sessions/a.json.corrupt-1-x"),
    (after(WELL, "corrupt", ["/1", "/2"]), WARN, "records", "2 unreadable records", "rm /1 /2"),
    (after(WELL, "unknown", ["a", "b"]), WARN, "system", "not known here: a, b", ""),
]
case = pytest.mark.parametrize(
    "facts, level, subject, text, cure", CASES,
    ids=[f"{row[2]}-{row[1]}-{number}" for number, row in enumerate(CASES)])


# (facts, subject): what is not known, or not so, is not told of.
SILENCE = [
    (after(RESTING, "disk", None), "disk"), (WELL, "place"),
    (after(RESTING, "place.cleaning_age", "10d"), "place"),
    (after(WELL, "settings", {"PTYGUARD_SCOPE": "systemd"}), "settings"), (WELL, "settings"), (WELL, "records"),
    (after(WELL, "settings", {"PTYGUARD_IDLE_EXIT": "0", "PTYGUARD_MAX_CLIENTS": "2.5"}), "settings"),
    (after(RESTING, "is_reachable", False), "guard"), (after(RESTING, "is_reachable", False), "sockets"),
    (after(RESTING, "is_reachable", False), "locks"), (after(RESTING, "is_reachable", False), "binaries"),
    (after(WELL, "is_reachable", False), "daemon"), (RESTING, "daemon"), (RESTING, "cgroup"),
    (RESTING, "privileges"), (RESTING, "groups"), (WELL, "strays"), (WELL, "system"),
    (after(WELL, "guard.confinement", {}), "cgroup"), (after(WELL, "confinement", {}), "privileges"),
    (after(WELL, "guard.confinement", {}), "groups"), (after(WELL, "guard.confinement", {}), "logout"),
    (after(RESTING, "confinement", {}), "logout"), (after(RESTING, "confinement", {}), "limits"),
    (after(WELL, "memory", None), "memory"), (after(WELL, "files", []), "files"),
    (after(WELL, "guard.state", "circuit-open", "daemon", None), "daemon"),
]


@pytest.mark.parametrize("facts, subject", SILENCE)
def test_what_is_not_known_or_not_so_is_not_told(facts, subject):
    assert subject not in {finding.subject for finding in examine(facts)}


@case
def test_a_fact_is_judged_and_the_cure_is_named(facts, level, subject, text, cure):
    told = [finding for finding in examine(facts) if finding.subject == subject]
    fitting = [finding for finding in told if finding.level == level and text in finding.text
               and cure in finding.cure]
    assert fitting, told
    assert bool(fitting[0].cure) == (level != PASS or bool(cure)) or subject == "system"
    if level == PASS:
        assert {finding.level for finding in told} == {PASS}, "well is well, with no but"


@pytest.mark.parametrize("facts", [WELL, RESTING], ids=["running", "resting"])
def test_where_all_is_well_nothing_but_pass_is_told(facts):
    findings = examine(facts)
    assert [finding for finding in findings if finding.level != PASS] == []
    assert worst(findings) == PASS
    assert not [finding for finding in findings if finding.cure]


@case
def test_one_thing_that_is_wrong_does_not_darken_the_others(facts, level, subject, text, cure):
    others = {finding.subject for finding in examine(facts)
              if finding.level != PASS and finding.subject != subject}
    # Some things are two: a guard without its daemon, a disk that is the network's.
    related = {"guard": {"daemon", "sockets", "locks"}, "daemon": {"guard", "locks"},
               "cgroup": {"logout"}, "logout": {"cgroup"}, "sockets": {"guard", "daemon", "locks"},
               "locks": set(), "place": set()}
    assert others <= related.get(subject, set())


def test_every_answer_of_every_check_is_in_the_table():
    with open(doctor.__file__, "rb") as source:
        tree = ast.parse(source.read())
    answers = {node.lineno for node in ast.walk(tree)
               if isinstance(node, ast.Return) or isinstance(node, ast.Expr)
               and isinstance(node.value, (ast.Yield, ast.YieldFrom))}
    seen = set()

    def watch(frame, event, _arg):
        if frame.f_code.co_filename != doctor.__file__:
            return None
        if event == "line":
            seen.add(frame.f_lineno)
        return watch

    before = sys.gettrace()
    sys.settrace(watch)
    try:
        for facts, *_ in CASES + SILENCE:
            worst(examine(facts))
        kills_leftovers(["[Login]\nKillOnlyUsers=bob\n"], "ann")
        kills_leftovers([], "root")
    finally:
        sys.settrace(before)
    assert answers - seen == set()


def test_the_gravest_level_is_the_worst():
    assert worst([]) == PASS
    assert worst(examine(after(WELL, "guard.version", "1.1.0"))) == PASS
    assert worst(examine(after(WELL, "memory", "file"))) == WARN
    assert worst(examine(after(WELL, "memory", "file", "disk.is_read_only", True))) == FAIL


def test_what_a_name_holds_reaches_no_terminal_as_a_control_sequence():
    facts = after(WELL, "directories.1.mode", 0o755, "directories.1.path", "/h/\x1b]0;x\x07\n")
    sheet = findings_sheet(examine(facts))
    assert any("\\x1b]0;x\\x07\\n" in line for line in sheet)
    assert all(line.isprintable() for line in sheet)


def test_a_sheet_has_one_line_a_finding_and_the_cure_under_it():
    sheet = findings_sheet([doctor.Finding(PASS, "disk", "fine", ""),
                            doctor.Finding(FAIL, "directory", "gone", "mkdir it")])
    assert sheet == ["PASS  disk       fine", "FAIL  directory  gone",
                     "                 -> mkdir it"]
    assert findings_sheet([]) == []


UNITS = [
    ("/", doctor.NO_UNIT, ""), ("/init.scope", doctor.NO_UNIT, ""), ("/../..", doctor.NO_UNIT, ""),
    ("/user.slice/user-0.slice/session-c2.scope", doctor.LOGIN, "session-c2.scope"),
    (USER + "init.scope", doctor.USER_MANAGER, "user@1000.service"),
    (USER + "app.slice/vte-spawn-1.scope", doctor.USER_MANAGER, "vte-spawn-1.scope"),
    (USER + "app.slice/ptyguard.service", doctor.USER_MANAGER, "ptyguard.service"),
    (USER + "app.slice/code-server.service", doctor.USER_SERVICE, "code-server.service"),
    (SYSTEM + "cron.service", doctor.SERVICE, "cron.service"),
    (SYSTEM + "system-getty.slice/getty@tty1.service", doctor.SERVICE, "getty@tty1.service"),
    (SYSTEM + "ptyguard@ann.service", doctor.SCOPE, "ptyguard@ann.service"),
    (SYSTEM + "run-u3.scope", doctor.SCOPE, "run-u3.scope"),
    (SYSTEM + "docker-4f5e.scope", doctor.CONTAINER, ""), ("/docker/4f5e", doctor.CONTAINER, ""),
    ("/kubepods.slice/kubepods-pod1.slice/cri-containerd-7.scope", doctor.CONTAINER, ""),
    ("/lxc.payload.web/system.slice/ssh.service", doctor.CONTAINER, ""),
]


@pytest.mark.parametrize("path, kind, name", UNITS)
def test_a_control_group_tells_the_unit_that_ends_what_is_in_it(path, kind, name):
    assert unit_of(path) == (kind, name)


def test_every_kind_of_unit_has_its_fate():
    kinds = {doctor.LOGIN, doctor.USER_MANAGER, doctor.USER_SERVICE, doctor.SERVICE, doctor.SCOPE,
             doctor.CONTAINER, doctor.NO_UNIT}
    assert set(doctor._FATES) == kinds
    assert {kind for _, kind, _ in UNITS} == kinds


@pytest.mark.parametrize("groups, path", [
    ({"": "/a"}, "/a"), ({"name=systemd": "/b", "memory": "/c"}, "/b"), ({}, "/"),
    ({"name=systemd": "/", "": "/a", "memory": "/c"}, "/a")])
def test_the_group_that_counts_is_the_service_managers(groups, path):
    assert managed_group(groups) == path


LOGIND = [
    ([], None), (["[Login]\nKillUserProcesses=yes"], True), (["[Login]\nKillUserProcesses=no"], False),
    (["[Login]\n#KillUserProcesses=yes"], True), (["[Login]\n#KillUserProcesses=no"], False),
    (["[Other]\nKillUserProcesses=yes"], None), (["[Login]\n;KillUserProcesses=yes"], None),
    (["[Login]\nKillUserProcesses=no", "[Login]\nKillUserProcesses = yes "], True),
    (["[Login]\n#KillUserProcesses=no\nKillUserProcesses=yes", "[Login]\nKillUserProcesses="], False),
    (["[Login]\nKillUserProcesses=yes\nKillExcludeUsers=bob ann"], False),
    (["[Login]\nKillUserProcesses=yes\nKillExcludeUsers=bob", "[Login]\nKillExcludeUsers=ann"], False),
    (["[Login]\nKillUserProcesses=yes\nKillExcludeUsers=ann", "[Login]\nKillExcludeUsers="], True),
    (["[Login]\nKillUserProcesses=yes\nKillOnlyUsers=bob"], False),
    (["[Login]\nKillUserProcesses=no\nKillOnlyUsers=ann"], True),
]


@pytest.mark.parametrize("texts, kills", LOGIND)
def test_a_logout_ends_what_logind_conf_says(texts, kills):
    assert kills_leftovers(texts, "ann") is kills


def test_root_is_spared_at_logout_unless_the_list_of_the_spared_is_given():
    assert kills_leftovers(["[Login]\nKillUserProcesses=yes"], "root") is False
    assert kills_leftovers(["[Login]\nKillUserProcesses=yes\nKillExcludeUsers="], "root") is True


def test_the_last_word_about_a_setting_counts():
    texts = ["[Unit]\nKillMode=none\n[Service]\nKillMode=mixed\nType=notify", "[Service]\nKillMode=process"]
    assert settings_in(texts, "Service") == {"KillMode": "process", "Type": "notify"}
    assert settings_in([], "Service") == {}


# -- what the back-end tells ------------------------------------------------------------------

def test_looking_for_paths_makes_nothing_and_finds_what_a_start_makes(own_directory):
    looked, is_decided = backend.look_for_paths()
    assert not is_decided and not own_directory.exists()
    made = backend.find_paths()
    looked, is_decided = backend.look_for_paths()
    assert is_decided and vars(looked) == vars(made)


def test_looking_for_paths_finds_sockets_that_are_elsewhere(own_directory):
    deep = str(own_directory / ("x" * 100))
    made = backend.find_paths(deep)
    try:
        looked, is_decided = backend.look_for_paths(deep)
        assert is_decided and looked.place == made.place != made.state
    finally:
        os.rmdir(made.place)


def test_a_look_at_a_lock_names_its_holder_and_leaves_it_as_it_was(tmp_path):
    path = str(tmp_path / "lock")
    assert backend.look_at_lock(path) == (False, [])
    held = backend.try_lock(path, "a test")
    words = backend.lock_holder(path)
    is_held, pids = backend.look_at_lock(path)
    assert is_held and pids in ([os.getpid()], [])      # not every file system is in the list
    os.close(held)
    assert backend.look_at_lock(path) == (False, [])
    assert backend.lock_holder(path) == words
    assert backend.try_lock(path, "another") is not None    # nothing is left of the look


def test_a_look_at_a_lock_sees_those_who_share_it_when_asked(tmp_path):
    path = tmp_path / "copy"
    path.write_text("")
    held = backend.try_lock(str(path), "a test", shared=True)
    assert backend.look_at_lock(str(path), shared=True)[0] is True
    os.close(held)
    assert backend.look_at_lock(str(path), shared=True) == (False, [])


def test_a_lock_that_cannot_be_looked_at_is_an_error(tmp_path):
    os.symlink("loop", tmp_path / "loop")
    with pytest.raises(OSError):
        backend.look_at_lock(str(tmp_path / "loop"))


def write(root, path, text):
    path = os.path.join(str(root), path)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w") as into:
        into.write(text)


def test_the_managers_texts_are_the_main_one_and_its_drop_ins_in_order(tmp_path):
    etc, usr = str(tmp_path / "etc"), str(tmp_path / "usr")
    write(usr, "systemd/logind.conf", "shipped")
    write(usr, "systemd/logind.conf.d/50-b.conf", "b of usr")
    write(usr, "systemd/logind.conf.d/90-c.conf", "c of usr")
    write(usr, "systemd/logind.conf.d/no", "no drop-in")
    assert backend._manager_texts("logind.conf", (etc, usr)) == ["shipped", "b of usr", "c of usr"]
    write(etc, "systemd/logind.conf", "of the administrator")
    write(etc, "systemd/logind.conf.d/90-c.conf", "c of etc")
    os.symlink("/dev/null", os.path.join(etc, "systemd/logind.conf.d/50-b.conf"))
    assert backend._manager_texts("logind.conf", (etc, usr)) == ["of the administrator", "c of etc"]
    write(usr, "systemd/system/cron.service", "unit")
    write(etc, "systemd/system/cron.service.d/x.conf", "drop-in")
    assert backend._manager_texts("cron.service", (etc, usr)) == ["unit", "drop-in"]
    assert backend._manager_texts("none.service", (etc, usr)) == []


def test_the_age_of_cleaning_is_that_of_the_first_line_about_the_directory(tmp_path):
    etc, usr = str(tmp_path / "etc"), str(tmp_path / "usr")
    assert backend._cleaning_age("/tmp", (etc, usr)) == ""
    write(usr, "tmpfiles.d/tmp.conf", "# /tmp\nx /tmp/keep\nq /tmp 1777 root root 10d\nd /tmp - - - 1d\n")
    write(usr, "tmpfiles.d/z.conf", "q /var/tmp/ 1777 root root 30d\nq /tmp 1777 root root 5d\n")
    assert backend._cleaning_age("/tmp", (etc, usr)) == "10d"
    assert backend._cleaning_age("/var/tmp", (etc, usr)) == "30d"
    write(etc, "tmpfiles.d/tmp.conf", "D! /tmp 1777 root root -\n")
    assert backend._cleaning_age("/tmp", (etc, usr)) == ""


def test_the_memory_of_rings_is_found_in_the_process_that_has_them():
    here = backend.ring_memory()
    assert here in ("memfd", "shared memory", "file")
    assert backend.ring_memory(os.getpid()) is None
    ring = backend.make_memory(65536)
    assert backend.ring_memory(os.getpid()) == here
    os.close(ring)


def test_what_bounds_a_process_is_told_and_of_none_nothing():
    told = backend.process_confinement(os.getpid())
    assert told["state"] == "R" and os.getegid() in told["groups"]
    assert told["limits"]["max open files"][0] == resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    assert len(told["files"]) > 2 and told["cgroups"] is not None
    assert backend.process_confinement(2 ** 22 + 1) == {}       # above any pid, proc(5)


def test_what_a_path_is_on_is_told():
    told = backend.file_system("/proc")
    assert told["type"] == "proc" and told["is_network"] is False
    with pytest.raises(OSError):
        backend.file_system("/proc/no such thing")


# -- worlds ------------------------------------------------------------------------------------

def checks(world, code, *options, **given):
    """{subject: [finding]} of `doctor --json`, which must end with that code."""
    done = world.run("doctor", "--json", *options, check=code, **given)
    told = json.loads(done.stdout)
    assert told["schema_version"] == 1 and done.stderr == b""
    found = [types.SimpleNamespace(**check) for check in told["checks"]]
    assert told["worst"] == worst(found)
    assert (code == 1) == (told["worst"] == FAIL)
    return {finding.subject: [other for other in found if other.subject == finding.subject]
            for finding in found}


def one(found, subject, level):
    """The only finding about `subject`, which is of that level."""
    assert [finding.level for finding in found[subject]] == [level], found[subject]
    return found[subject][0]


def everything_below(directory):
    """{path: what may not change} of all that is there, but for logs."""
    found = {}
    for above, _, names in os.walk(directory):
        for path in [above] + [os.path.join(above, name) for name in names
                               if not name.endswith(".log")]:
            facts = os.lstat(path)
            found[path] = (facts.st_ino, facts.st_mode, facts.st_size, facts.st_mtime_ns)
    return found


def test_where_nothing_runs_it_starts_nothing_and_makes_nothing():
    with World(under=MEMORY) as world:
        found = checks(world, 0)
        assert "made by the first start" in one(found, "directory", PASS).text
        assert one(found, "guard", PASS).text.startswith("none runs")
        assert not os.path.exists(world.env["PTYGUARD_DIR"])


def test_of_a_running_one_it_tells_who_runs_and_changes_nothing():
    with World(under=MEMORY) as world:
        world.run("start", "-n", "s", "--", "sleep", "1000", check=0)
        guard, daemon = world.guard_pid(), world.daemon_pid()
        wait_until(lambda: world.json("info", "s")["state"] == "running", "the session")
        before = everything_below(world.directory)
        found = checks(world, 0)
        assert everything_below(world.directory) == before
        assert one(found, "guard", PASS).text.startswith(f"pid {guard}, ")
        assert one(found, "daemon", PASS).text.startswith(f"pid {daemon}, ")
        assert f"guard.lock is held by pid {guard}" in one(found, "locks", PASS).text
        for subject in ("directory", "files", "sockets", "groups", "memory", "binaries"):
            one(found, subject, PASS)
        assert (world.guard_pid(), world.daemon_pid()) == (guard, daemon)


def test_as_text_it_is_aligned_lines_with_the_levels_in_front():
    with World(under=MEMORY) as world:
        lines = world.run("doctor", check=0).stdout.decode().splitlines()
        told = [line for line in lines if not line.lstrip().startswith("-> ")]
        assert {line.split()[0] for line in told} <= {PASS, WARN}
        assert {line.split()[1] for line in told} >= {"directory", "guard", "PTYs", "python"}


def test_a_resting_guard_is_told_of_and_not_woken():
    with World(under=MEMORY) as world:
        world.run("start", "--", "sleep", "1000", check=0)
        world.run("daemon", "stop", "--sessions", "keep", check=0)
        started = world.log("guard").count("daemon_started")
        assert "sessions live on" in one(checks(world, 0), "daemon", PASS).text
        assert world.json("status")["state"] == "stopped"
        assert world.log("guard").count("daemon_started") == started


def end_both(world):
    """kill -9 of guard and daemon; neither may replace the other."""
    both = world.guard_pid(), world.daemon_pid()
    for pid in both:
        os.kill(pid, signal.SIGSTOP)
    for pid in both:
        os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not any(map(is_alive, both)), "both deaths")


def test_sockets_of_dead_processes_are_told_as_left_over():
    with World(under=MEMORY) as world:
        world.run("ls", check=0)
        end_both(world)
        left = checks(world, 0)["sockets"]
        assert [finding.level for finding in left] == [WARN, WARN]
        assert all("left over" in finding.text for finding in left)
        world.run("ls", check=0)
        one(checks(world, 0), "sockets", PASS)


def test_a_socket_that_a_cleaner_took_is_told():
    with World(under=MEMORY) as world:
        world.run("ls", check=0)
        os.unlink(world.paths.guard_socket)
        assert "nobody listens" in one(checks(world, 0), "guard", WARN).text
        assert not os.path.exists(world.paths.guard_socket)     # it is told, not mended
        world.run("daemon", "restart", check=0)
        one(checks(world, 0), "guard", PASS)


def test_a_directory_that_is_open_to_others_fails_and_the_cure_cures():
    with World(under=MEMORY) as world:
        world.run("ls", check=0)
        os.chmod(world.state, 0o755)
        wrong = one(checks(world, 1), "directory", FAIL)
        assert world.state in wrong.text and "0755" in wrong.text
        assert f"chmod 700 {world.state}" in wrong.cure
        os.chmod(world.state, 0o700)
        one(checks(world, 0), "directory", PASS)


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give a directory away")
def test_anothers_directory_fails_and_is_not_looked_into():
    with World(under=MEMORY) as world:
        assert world.paths                      # only so that the directories are there
        os.chown(world.state, 4242, -1)
        found = checks(world, 1)
        assert "belongs to uid 4242" in one(found, "directory", FAIL).text
        assert not {"files", "guard", "sockets", "locks"} & set(found)
        os.chown(world.state, 0, -1)


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give a file away")
def test_anothers_file_in_our_directory_is_told():
    with World(under=MEMORY) as world:
        world.run("ls", check=0)
        os.chown(world.paths.guard_log, 4242, -1)
        wrong = one(checks(world, 1), "files", FAIL)
        assert world.paths.guard_log in wrong.text and "uid 4242" in wrong.text


@pytest.mark.skipif(os.getuid() == 0, reason="root may write anywhere")
def test_a_directory_that_we_cannot_write_fails():
    with World(under=MEMORY) as world:
        assert world.paths
        os.chmod(world.state, 0o500)
        assert "cannot be written" in one(checks(world, 1), "directory", FAIL).text
        os.chmod(world.state, 0o700)


def test_a_directory_that_is_a_file_fails():
    with World(under=MEMORY) as world:
        with open(world.env["PTYGUARD_DIR"], "w") as into:
            into.write("not yours to remove")
        assert "is not a directory" in one(checks(world, 1), "directory", FAIL).text
        with open(world.env["PTYGUARD_DIR"]) as untouched:
            assert untouched.read() == "not yours to remove"
        inner = os.path.join(world.env["PTYGUARD_DIR"], "below")
        assert "cannot be made" in one(checks(world, 1, "--dir", inner), "directory", FAIL).text


def test_a_directory_relative_to_one_that_is_gone_fails(tmp_path, monkeypatch):
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    wrong = examine(survey.gather(backend, "relative", {}))[0]
    assert (wrong.level, wrong.subject) == (FAIL, "directory") and "relative" in wrong.text


def test_in_a_test_run_without_a_directory_of_its_own_it_does_not_look_at_the_home(monkeypatch):
    monkeypatch.delenv("PTYGUARD_DIR")
    findings = examine(survey.gather(backend, None, {}))
    assert (findings[0].level, findings[0].subject) == (FAIL, "directory")
    assert not {"files", "guard", "locks"} & {finding.subject for finding in findings}


def test_a_guard_whose_directory_is_gone_is_told_and_found_again_when_it_is_back():
    with World(under=MEMORY) as world:
        world.run("start", "-n", "s", "--", "sleep", "1000", check=0)
        guard, daemon = world.guard_pid(), world.daemon_pid()
        root, away = world.env["PTYGUARD_DIR"], os.path.join(world.directory, "away")
        os.rename(root, away)
        try:
            wrong = one(checks(world, 0), "strays", WARN)
            assert f"pid {guard} is a guard of {root} too" in wrong.text
            assert wrong.cure.endswith(f"kill -9 {daemon} {guard}")
        finally:
            os.rename(away, root)
        one(checks(world, 0), "guard", PASS)
        world.run("has", "s", check=0)


def test_a_stopped_guard_is_told_with_the_signal_that_continues_it():
    with World(under=MEMORY) as world:
        world.run("ls", check=0)
        guard, daemon = world.guard_pid(), world.daemon_pid()
        os.kill(guard, signal.SIGSTOP)
        found = checks(world, 1)
        assert one(found, "guard", FAIL).text == f"pid {guard} is stopped"
        assert one(found, "guard", FAIL).cure == f"kill -CONT {guard}"
        assert one(found, "daemon", PASS).text.startswith(f"pid {daemon}, ")
        os.kill(guard, signal.SIGCONT)
        one(checks(world, 0), "guard", PASS)


def test_a_stopped_daemon_is_told_and_is_not_replaced_for_that():
    with World(under=MEMORY) as world:
        world.run("ls", check=0)
        daemon = world.daemon_pid()
        os.kill(daemon, signal.SIGSTOP)
        assert one(checks(world, 1), "daemon", FAIL).cure == f"kill -CONT {daemon}"
        os.kill(daemon, signal.SIGCONT)
        one(checks(world, 0), "daemon", PASS)
        assert world.daemon_pid() == daemon
        assert " deaf" not in world.log("guard")


def test_a_daemon_that_has_lost_its_guard_is_told():
    with World(under=MEMORY) as world:
        world.run("ls", check=0)
        daemon = world.daemon_pid()
        os.kill(daemon, signal.SIGSTOP)         # else it would have another at once
        world.kill_guard()
        found = checks(world, 1)
        assert "it has died" in one(found, "guard", WARN).text
        assert one(found, "daemon", FAIL).text == f"pid {daemon} is stopped"
        os.kill(daemon, signal.SIGCONT)


def test_a_held_start_lock_names_its_holder():
    with World(under=MEMORY) as world:
        assert world.paths
        held = backend.try_lock(world.paths.start_lock, "a test")
        wrong = one(checks(world, 0), "locks", WARN)
        assert f"pid {os.getpid()} " in wrong.text and "a test" in wrong.text
        assert f"kill {os.getpid()}" in wrong.cure
        os.close(held)
        one(checks(world, 0), "locks", PASS)


def test_a_lock_that_names_nobody_is_told_with_the_way_to_its_holder():
    with World(under=MEMORY) as world:
        assert world.paths
        with open(world.paths.daemon_lock, "w") as held:
            fcntl.flock(held, fcntl.LOCK_EX)
            is_listed = bool(backend.look_at_lock(world.paths.daemon_lock)[1])
            wrong = one(checks(world, 0 if is_listed else 1), "locks", WARN if is_listed else FAIL)
            assert (f"pid {os.getpid()}," if is_listed else "is gone") in wrong.text


def test_a_private_copy_that_is_gone_is_told_and_comes_back():
    with World(under=MEMORY) as world:
        world.run("ls", check=0)
        for name in os.listdir(world.paths.copies):
            os.unlink(os.path.join(world.paths.copies, name))
        assert "the guard writes it again" in one(checks(world, 0), "binaries", WARN).text
        world.new_daemon_pid(world.kill_daemon())
        one(checks(world, 0), "binaries", PASS)


def test_a_private_copy_that_nobody_runs_from_is_told_and_one_that_runs_is_not():
    with World(under=MEMORY) as world:
        world.run("ls", check=0)
        old = os.path.join(world.paths.copies, "ptyguard-0.0.1-0123456789abcdef.pyz")
        with open(old, "w", opener=lambda path, flags: os.open(path, flags, 0o600)) as into:
            into.write("an old one")
        assert one(checks(world, 0), "binaries", WARN).cure == f"rm {old}"
        held = backend.try_lock(old, "a guard of old", shared=True)
        one(checks(world, 0), "binaries", PASS)
        os.close(held)
        os.unlink(old)
        one(checks(world, 0), "binaries", PASS)


def test_a_daemon_of_another_build_is_told_and_one_made_for_another_python_is_not(tmp_path):
    with World(under=MEMORY) as world:
        world.run("ls", check=0)
        copy, sources = survey.name_copy(world.paths)
        assert survey._is_our_code(world.paths, copy)
        for name, changed_source, is_ours in (("python", None, True), ("build", b"# other", False)):
            other = str(tmp_path / name)
            with zipfile.ZipFile(other, "w") as archive:
                for room, source in dict(sources, **{"__main__.py": b"pass"}).items():
                    archive.writestr(room, changed_source if changed_source and "doctor" in room else source)
            assert survey._is_our_code(world.paths, other) is is_ours
        assert survey._is_our_code(world.paths, str(tmp_path / "none")) is None
        assert survey._is_our_code(world.paths, __file__) is None
        facts = survey.gather(backend, world.env["PTYGUARD_DIR"], {})
        assert facts["daemon"]["binary"] == copy and facts["daemon"]["is_ours"]


def test_what_is_below_a_cleaned_directory_is_cleaned(monkeypatch):
    monkeypatch.setattr(backend, "cleaning_age", lambda path: "10d" if path == "/tmp" else "")
    assert survey._cleaning_age(backend, "/tmp/a/b") == "10d"
    assert survey._cleaning_age(backend, "/home/a/b") == survey._cleaning_age(backend, "/tmp") == ""


def test_records_that_were_set_aside_are_told():
    with World(under=MEMORY) as world:
        world.run("run", "-n", "s", "--", "true", check=0)
        records = os.path.join(world.state, "sessions")
        world.run("daemon", "stop", check=0)
        for name in os.listdir(records):
            with open(os.path.join(records, name), "w") as into:
                into.write("{")
        world.run("ls", check=0)
        assert ".corrupt-" in one(checks(world, 0), "records", WARN).cure


def start_so(world, prepare):
    """Guard and daemon, started by a process that `prepare` was called in."""
    starting = world.popen("start", "-n", "s", "--", "sleep", "1000", preexec_fn=prepare)
    assert starting.wait(60) == 0


def give_up_privileges():
    libc = ctypes.CDLL(None)
    if libc.prctl(38, 1, 0, 0, 0) != 0:         # PR_SET_NO_NEW_PRIVS, prctl(2)
        os._exit(125)


def test_a_guard_that_cannot_gain_privileges_is_told_from_outside():
    if backend.process_confinement(os.getpid()).get("no_new_privs") is not False:
        pytest.skip("no such thing here, or it is set for us too")
    with World(under=MEMORY) as world:
        start_so(world, give_up_privileges)
        assert "NoNewPrivs" in one(checks(world, 0), "privileges", WARN).text
        inside = world.popen("doctor", preexec_fn=give_up_privileges, stdout=-1)
        lines = inside.communicate(timeout=60)[0].decode().splitlines()
        assert [line.split()[0] for line in lines if " privileges " in line] == [PASS]


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give itself groups")
def test_a_guard_with_other_groups_is_told():
    with World(under=MEMORY) as world:
        start_so(world, lambda: os.setgroups([4242]))
        assert "4242" in one(checks(world, 0), "groups", WARN).text


def test_a_guard_with_lower_hard_limits_is_told():
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard == resource.RLIM_INFINITY:
        pytest.skip("descriptors are not limited")
    with World(under=MEMORY) as world:
        start_so(world, lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (hard - 1, hard - 1)))
        wrong = [finding for finding in checks(world, 0)["limits"] if finding.level == WARN]
        assert f"max open files {hard - 1} (here {hard})" in wrong[0].text


@contextlib.contextmanager
def control_group(name):
    """A control group of its own; skips the test where none can be made."""
    for root in ("/sys/fs/cgroup", "/sys/fs/cgroup/unified"):
        path = os.path.join(root, name)
        if os.path.exists(os.path.join(root, "cgroup.procs")):
            try:
                os.mkdir(path)
            except OSError:
                continue
            try:
                yield path
            finally:
                os.rmdir(path)          # empty: whoever was in it has ended
            return
    pytest.skip("no control group can be made here")


def test_a_guard_in_another_control_group_is_told():
    with control_group(f"pg-{os.getpid()}.service") as group:
        members = os.path.join(group, "cgroup.procs")

        def enter():
            with open(members, "w") as file:
                file.write("0")         # the writer itself, cgroups(7)

        with World(under=MEMORY) as world:
            start_so(world, enter)
            wrong = one(checks(world, 0), "cgroup", WARN)
            assert os.path.basename(group) in wrong.text and "end with it" in wrong.text
            world.run("daemon", "stop", "--sessions", "kill", check=0)
            one(checks(world, 0), "guard", PASS)

        def members_left():
            with open(members) as file:
                return file.read()
        wait_until(lambda: not members_left(), "the end of all in it")


def test_a_setting_that_is_no_number_fails_before_a_start_does():
    with World(under=MEMORY, PTYGUARD_IDLE_EXIT="soon") as world:
        world.env["PTYGUARD_IDLE_EXIT"] = "soon"
        assert "'soon'" in one(checks(world, 1), "settings", FAIL).text
        world.run("ls", check=2)


def test_a_job_of_a_runner_is_told_that_what_it_starts_ends_with_it():
    with World(under=MEMORY) as world:
        job = dict(world.env, GITHUB_ACTIONS="true")
        assert "GITHUB_ACTIONS" in one(checks(world, 0, env=job), "logout", WARN).text


GARBAGE = [
    ("place", b"not absolute"), ("place", b""), ("place", b"\xff\0\x1b[2J"),
    ("place", b"/a\0b"), ("place", b"/\x1b[2J"), ("place", b"/no/such/place"),
    ("start.lock", b"\xff" * 3000), ("guard.lock", b"pid 1 start 2, guard, since"),
    ("guard.lock", b"pid 99999999999999999999 start -1, guard"), ("daemon.lock", b"pid x start y, daemon"),
    ("guard.sock", b"no socket"), ("client.sock", b"no socket"), ("sessions/x.json", b"{"), ("bin/x", b""),
]


@pytest.mark.parametrize("name, data", GARBAGE)
def test_whatever_is_in_a_file_there_is_no_traceback(name, data):
    with World(under=MEMORY) as world:
        assert world.paths
        path = os.path.join(world.state, name)
        os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
        with open(path, "wb") as into:
            into.write(data)
        done = world.run("doctor")
        os.unlink(path)
        assert done.returncode in (0, 1) and done.stderr == b""
        assert b"\x1b" not in done.stdout


@pytest.mark.parametrize("name", ["place", "sessions", "bin", "guard.sock", "client.sock", "start.lock",
                                  "guard.lock", "daemon.lock", "guard.log"])
@pytest.mark.parametrize("kind", ["loop", "directory", "fifo", "file", "dead socket"])
def test_whatever_stands_in_the_place_of_a_file_there_is_no_traceback(own_directory, name, kind):
    state = backend.find_paths().state
    path = os.path.join(state, name)
    if os.path.lexists(path):
        os.unlink(path)
    if kind == "dead socket":
        with socket.socket(socket.AF_UNIX) as dead:
            dead.bind(path)
    else:
        {"loop": lambda: os.symlink(name, path), "directory": lambda: os.mkdir(path),
         "fifo": lambda: os.mkfifo(path), "file": lambda: open(path, "w").close()}[kind]()
    findings = examine(survey.gather(backend, None, {}))
    is_directory = name in ("sessions", "bin")
    if kind in ("loop", "fifo") or is_directory and kind in ("file", "dead socket"):
        assert worst(findings) != PASS
    assert findings_sheet(findings)


def test_the_link_to_a_sessions_agent_is_as_it_should_be(own_directory):
    paths = backend.find_paths()
    os.symlink("/no/such/agent", paths.agent_link("k3"))
    findings = examine(survey.gather(backend, None, {}))
    assert [finding.level for finding in findings if finding.subject == "files"] == [PASS]
    os.symlink("/no/such/agent", os.path.join(paths.state, "z-k3"))
    findings = examine(survey.gather(backend, None, {}))
    assert [finding.level for finding in findings if finding.subject == "files"] == [WARN]


class Blind:
    """A back-end on a system without /proc: it does not know, and says so."""

    def __getattr__(self, name):
        return getattr(backend, name)

    @staticmethod
    def process_confinement(_pid):
        return {}

    @staticmethod
    def look_at_lock(path, shared=False):
        return backend.look_at_lock(path, shared)[0], []

    @staticmethod
    def terminal_supply():
        return {"used": None, "limit": None, "error": ""}

    @staticmethod
    def file_system(path):
        return dict(backend.file_system(path), type=None, is_network=None)

    @staticmethod
    def ring_memory(_pid=None):
        return None


@pytest.mark.parametrize("is_running", [True, False])
def test_where_the_system_tells_little_that_is_said_once(is_running):
    with World(under=MEMORY) as world:
        assert world.run("ls") if is_running else world.paths
        findings = examine(survey.gather(Blind(), world.env["PTYGUARD_DIR"], {}))
        told = [finding for finding in findings if finding.level != PASS]
        assert [finding.subject for finding in told] == ["system"]
        assert all(what in told[0].text for what in ("control groups", "terminals", "file system"))
        subjects = {finding.subject for finding in findings}
        assert not subjects & {"cgroup", "privileges", "groups", "logout", "memory"}
        assert {"directory", "guard", "locks", "python"} <= subjects


def test_every_check_answers_for_the_facts_that_are_gathered():
    with World(under=MEMORY) as world:
        assert set(survey.gather(backend, world.env["PTYGUARD_DIR"], {})) == set(WELL)
        world.run("ls", check=0)
        facts = survey.gather(backend, world.env["PTYGUARD_DIR"], {})
        for key in WELL:
            if isinstance(WELL[key], dict) and key != "group_names":
                assert set(facts[key]) >= set(WELL[key]), key
            elif isinstance(WELL[key], list) and WELL[key]:
                assert set(facts[key][0]) == set(WELL[key][0]), key
