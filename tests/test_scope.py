"""Scope: a guard beyond the login; what is asked of systemd-run, and what is said when it fails.

systemd runs on few machines that run tests.  Here `systemd-run` is a script that notes what
it was called with and becomes the command, as systemd-run(1) promises for --scope.
"""

import os
import re
import signal
import socket
import stat
import sys

import pytest

import ptyguard_posix as backend
from ptyguard_core.doctor import Finding, PASS, WARN
from ptyguard_core.errors import UsageError
from ptyguard_core.scope import Scope, command, decide
from world import MEMORY, ROOT, World, is_alive, wait_until


# -- deciding: pure -------------------------------------------------------------------------

SURVIVES = Finding(PASS, "logout", "it is in session-3.scope; a logout leaves it alone", "")
ENDS = Finding(WARN, "logout", "it is in session-3.scope: a logout ends it", "do something")


def facts(**changes):
    logout = {name: changes.pop(name) for name in ("has_manager", "lingers") if name in changes}
    return dict({"program": "/usr/bin/systemd-run", "bus": "/run/user/1000/bus", "is_named": False,
                 "kind": "login", "fate": ENDS,
                 "logout": dict({"has_manager": True, "user": "ann", "lingers": False}, **logout)},
                **changes)


DECISIONS = [
    (facts(), True, ""),
    (facts(lingers=True), True, ""),
    (facts(lingers=True, fate=SURVIVES), True, ""),
    (facts(fate=None), True, ""),
    (facts(has_manager=False, fate=SURVIVES), True, ""),     # whose bus is it? it will be asked
    (facts(bus=None), False, "no bus"),
    (facts(bus=None, has_manager=False), False, "no systemd runs here"),
    (facts(program=None), False, "systemd-run is not installed"),
    (facts(program=None, bus=None), False, "no bus"),
    # A scope would end with the user manager, and where we are nothing ends.
    (facts(fate=SURVIVES), False, "as you do not linger"),
    (facts(fate=SURVIVES, is_named=True), True, ""),
]


@pytest.mark.parametrize("given, is_wanted, why_not", DECISIONS)
def test_a_scope_is_asked_for_where_there_can_be_one_and_it_helps(given, is_wanted, why_not):
    decided, reason = decide(given)
    assert decided is is_wanted
    assert why_not in reason and bool(reason) != is_wanted


def test_what_runs_in_the_scope_has_its_own_environment_alone():
    argv, environment = command(facts(), ["/usr/bin/python3", "-I"], {"PATH": "/bin", "HOME": "/h"})
    assert argv == ["/usr/bin/systemd-run", "--user", "--scope", "--collect", "--quiet",
                    "--description=ptyguard: guard, daemon and sessions", "--",
                    "/usr/bin/env", "-i", "HOME=/h", "PATH=/bin", "/usr/bin/python3", "-I"]
    assert environment == {"PATH": "/bin", "HOME": "/h", "XDG_RUNTIME_DIR": "/run/user/1000"}


# -- what is said ---------------------------------------------------------------------------

class System:
    """A back-end whose systemd is as a test says."""

    def __init__(self, group="/user.slice/user-1000.slice/session-3.scope", has_manager=True,
                 lingers=False, logind="#KillUserProcesses=yes", bus="/run/user/1000/bus",
                 program="/usr/bin/systemd-run"):
        self._group, self._logind = group, logind
        self._logout = {"has_manager": has_manager, "user": "ann", "lingers": lingers}
        self.user_bus = lambda: bus
        self.find_program = lambda name: program

    def process_confinement(self, pid):
        return {"cgroups": {"": self._group}} if self._group else {}

    def logout_facts(self):
        return dict(self._logout)

    def manager_texts(self, name):
        return [f"[Login]\n{self._logind}\n"] if name == "logind.conf" else []


def said(system, act, value="", is_asked=True):
    """What a Scope of that system says when `act` is done with it."""
    told = []
    act(Scope(system, value, is_asked, told.append))
    return told


def wrap(scope_):
    return scope_.wrap(["guard"], {"PATH": "/bin"})


def test_the_plain_way_is_told_with_what_a_logout_does_to_it_then():
    assert said(System(bus=None), wrap) == [
        "--survive-logout: your systemd user manager cannot be asked: it has no bus; the guard is started "
        "the plain way: it is in session-3.scope: KillUserProcesses=yes ends it at logout (what lives "
        "longer: `@reboot ptyguard daemon start` in cron)"]
    assert said(System(IN_SCOPE, program=None), wrap)[0].endswith(
        "run-7.scope: your user manager ends with your last login, and that with it "
        "(loginctl enable-linger ann)")


def test_where_no_logout_ends_anything_that_is_told_too():
    told = said(System(has_manager=False, bus=None), wrap)
    assert told == ["--survive-logout: no systemd runs here that would end what a login leaves; the guard is "
                    "started the plain way"]
    assert said(System(group=None, bus=None), wrap)[0].endswith("started the plain way")


def test_the_variable_is_named_when_it_was_the_variable():
    assert said(System(bus=None), wrap, "systemd", False)[0].startswith("PTYGUARD_SCOPE=systemd: ")


def test_a_scope_of_a_user_who_does_not_linger_is_told_with_the_cure():
    def start(scope_):
        assert wrap(scope_)[0][0] == "/usr/bin/systemd-run"
        scope_.worked()
    assert said(System(lingers=True), start) == []
    assert said(System(has_manager=False), start) == []
    assert said(System(), start) == [
        "--survive-logout: the guard is in a scope of your user manager, which ends with your last login "
        "(loginctl enable-linger ann)"]


def test_a_value_that_means_nothing_is_refused():
    with pytest.raises(UsageError) as caught:
        said(System(), wrap, "docker", False)
    assert "'docker'" in caught.value.message and "systemd" in caught.value.hint


IN_SCOPE = "/user.slice/user-1000.slice/user@1000.service/app.slice/run-7.scope"
# (the system that a guard runs on, by the option?, what is said of it)
RUNNING = [
    (System(), True, "no effect on the guard, which runs already (pid 7): it is in session-3.scope: "
     "KillUserProcesses=yes ends it at logout (once no session lives: ptyguard daemon stop, then this again)"),
    (System(), False, "no effect on the guard"),
    (System(logind="#KillUserProcesses=no"), True, "session-3.scope; a logout leaves it alone"),
    (System(logind="#KillUserProcesses=no"), False, None),
    (System(has_manager=False), True, "no systemd here that would end"),
    (System(group=None), True, "no effect on the guard, which runs already (pid 7)"),
    (System(group=None), False, None),
    (System(IN_SCOPE), True, "ends with your last login, and that with it (loginctl enable-linger ann)"),
    (System(IN_SCOPE, lingers=True), True, None),
    (System("/system.slice/cron.service"), True, "cron.service: it ends when that is stopped"),
]


@pytest.mark.parametrize("system, is_asked, text", RUNNING)
def test_a_guard_that_runs_already_is_judged_by_where_it_is(system, is_asked, text):
    told = said(system, lambda scope_: scope_.judge(7), "systemd", is_asked)
    assert len(told) == (text is not None)
    assert not told or text in told[0]


def test_of_a_guard_that_was_just_started_or_is_not_known_nothing_more_is_said():
    def start(scope_):
        wrap(scope_)
        scope_.worked()
        scope_.judge(7)
    assert said(System(lingers=True), start) == []
    assert said(System(), lambda scope_: scope_.judge(None)) == []


# -- with a stand-in for systemd-run ----------------------------------------------------------

RECORDS = """#!/bin/sh
echo "$XDG_RUNTIME_DIR" > {directory}/runtime
printf '%s\\n' "$@" > {directory}/called
while [ "$1" != -- ]; do shift; done
shift
INVOCATION_ID=4f5e exec "$@"
"""
FAILS = """#!/bin/sh
echo called > {directory}/called
echo 'Failed to start transient scope unit: it is full' >&2
exit 1
"""
HANGS = """#!/bin/sh
echo $$ > {directory}/called
exec {python} -c 'import time; time.sleep(1000)' "$0"
"""
NO_GUARD = """#!/bin/sh
exit 0
"""


class Manager(World):
    """A world with a user bus (nobody is behind it) and a systemd-run of its own."""

    def __init__(self, script=RECORDS, has_bus=True, limit_s=None, **variables):
        World.__init__(self, under=MEMORY, **variables)
        self.env.update((name, value) for name, value in variables.items())
        bus = os.path.join(self.directory, "bus")
        tools = os.path.join(self.directory, "tools")
        os.mkdir(tools)
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(bus)
        if script is not None:
            path = os.path.join(tools, "systemd-run")
            with open(path, "w") as file:
                file.write(script.format(directory=self.directory, python=sys.executable))
            os.chmod(path, 0o755)
        self.env["PATH"] = tools + ":" + self.env.get("PATH", os.defpath)
        code = (f"import sys; sys.path[0] = {ROOT!r}\n"
                "import ptyguard_posix as backend\n"
                "from ptyguard_core import supervise\n"
                f"backend.user_bus = lambda: {bus if has_bus else None!r}\n"
                "backend.logout_facts = lambda: dict(has_manager=False, user='ann', lingers=False)\n")
        if script is None:
            code += "backend.find_program = lambda name: None\n"
        if limit_s is not None:
            code += f"supervise.SCOPE_LIMIT_S = {limit_s!r}\n"
        self.program = [sys.executable, "-c", code + "from ptyguard import console; console()"]

    def close(self):
        self._listener.close()
        World.close(self)

    def told(self, name):
        """What the stand-in noted, or None when it was not called."""
        try:
            with open(os.path.join(self.directory, name)) as file:
                return file.read()
        except FileNotFoundError:
            return None


def environment_of(pid):
    with open(f"/proc/{pid}/environ", "rb") as file:
        return {item.partition(b"=")[0] for item in file.read().split(b"\0")[:-1]}


def test_a_guard_is_started_by_systemd_run_and_has_nothing_of_it():
    with Manager() as world:
        done = world.run("start", "-n", "s", "--survive-logout", "--", "sleep", "1000", check=0)
        assert (done.stdout, done.stderr) == (b"s\n", b"")
        called = world.told("called").split("\n")
        assert called[:4] == ["--user", "--scope", "--collect", "--quiet"]
        assert "__guard" in called
        assert world.told("runtime") == world.directory + "\n"
        guard = world.guard_pid()
        assert environment_of(guard) == environment_of(world.daemon_pid()) == {b"HOME", b"PATH", b"LANG"} \
            & ({b"HOME", b"PATH"} | {os.fsencode(name) for name in world.env})
        with open(f"/proc/{guard}/cmdline", "rb") as file:
            assert file.read().split(b"\0")[1:3] == [b"-I", b"-S"]
        assert world.run("log", "s").returncode == 0


@pytest.mark.parametrize("verb", [["new", "-d", "-n", "s"], ["ensure", "s"], ["run", "-d", "-n", "s"]])
def test_the_other_verbs_that_start_take_it_too(verb):
    with Manager() as world:
        world.run(*verb, "--survive-logout", "--", "sleep", "1000", check=0)
        assert "__guard" in world.told("called")


def test_the_variable_does_it_for_every_verb_that_starts_a_guard():
    with Manager(PTYGUARD_SCOPE="systemd") as world:
        assert world.run("ls", check=0).stderr == b"ptyguard: no sessions\n"
        assert "__guard" in world.told("called")
        world.run("run", "--", "sh", "-c", "test -z \"$PTYGUARD_SCOPE\"", check=0)


def test_daemon_start_says_where_the_guard_is():
    with Manager() as world:
        world.run("ls", check=0)
        asked = dict(world.env, PTYGUARD_SCOPE="systemd")
        assert world.run("daemon", "start", env=asked, check=0).stderr == b""      # no logout ends it here
        world.program[2] = world.program[2].replace("has_manager=False", "has_manager=True").replace(
            "from ptyguard import", 'backend.process_confinement = lambda pid: '
            '{"cgroups": {"": "/system.slice/runner.service"}}; from ptyguard import')
        told = world.run("daemon", "start", env=asked, check=0).stderr.decode()
        assert told.startswith("ptyguard: PTYGUARD_SCOPE=systemd: no effect on the guard, which runs already "
                               f"(pid {world.guard_pid()}): it is in runner.service: it ends when that is")


def test_a_link_starts_its_guard_there_too():
    with Manager(PTYGUARD_SCOPE="systemd") as world:
        world.run("link", "--", "true", check=0)
        assert "__guard" in world.told("called")


def test_without_the_wish_nobody_is_asked():
    with Manager() as world:
        assert world.run("start", "--", "sleep", "1000", check=0).stderr == b""
        assert world.told("called") is None


def test_a_systemd_run_that_fails_is_told_in_one_line_and_the_session_starts():
    with Manager(FAILS) as world:
        done = world.run("start", "-n", "s", "--survive-logout", "--", "sleep", "1000", check=0)
        assert done.stdout == b"s\n"
        lines = done.stderr.decode().splitlines()
        assert len(lines) == 1
        assert re.match("ptyguard: --survive-logout: .*/systemd-run failed: Failed to start transient "
                        "scope unit: it is full; the guard is started the plain way$", lines[0])
        world.run("has", "s", check=0)


def test_one_that_ends_without_a_word_or_a_guard_is_told():
    with Manager(NO_GUARD) as world:
        done = world.run("start", "-n", "s", "--survive-logout", "--", "sleep", "1000", check=0)
        assert b"it did not say why; the guard is started the plain way" in done.stderr
        world.run("has", "s", check=0)


def test_one_that_hangs_is_ended_and_the_session_starts():
    with Manager(HANGS, limit_s=0.5) as world:
        done = world.run("start", "-n", "s", "--survive-logout", "--", "sleep", "1000", check=0)
        assert b"systemd-run did not come to an end in 0.5 s; the guard is started the plain way" in done.stderr
        hung = int(world.told("called"))
        wait_until(lambda: not is_alive(hung), "the end of systemd-run")
        world.run("has", "s", check=0)


def test_one_that_cannot_be_run_is_told():
    with Manager("#!/no/such/shell\n") as world:
        done = world.run("start", "-n", "s", "--survive-logout", "--", "sleep", "1000", check=0)
        assert b"systemd-run cannot be run: No such file or directory; the guard is" in done.stderr
        world.run("has", "s", check=0)


@pytest.mark.parametrize("options, why", [
    ({"script": None}, b"systemd-run is not installed"), ({"has_bus": False}, b"no systemd runs here")])
def test_what_is_missing_is_told_and_the_session_starts(options, why):
    with Manager(**options) as world:
        done = world.run("start", "-n", "s", "--survive-logout", "--", "sleep", "1000", check=0)
        assert why in done.stderr and b"; the guard is started the plain way" in done.stderr
        assert done.stderr.count(b"\n") == 1
        assert world.run("-q", "start", "--survive-logout", "--", "true", check=0).stderr == b""


def test_a_guard_that_runs_already_is_left_where_it_is_and_that_is_said():
    with Manager() as world:
        world.run("ls", check=0)
        guard = world.guard_pid()
        done = world.run("start", "-n", "s", "--survive-logout", "--", "sleep", "1000", check=0)
        assert f"no effect on the guard, which runs already (pid {guard})".encode() in done.stderr
        assert world.told("called") is None and world.guard_pid() == guard


def test_a_value_that_means_nothing_starts_nothing():
    with Manager(PTYGUARD_SCOPE="docker") as world:
        done = world.run("ls", check=2)
        assert b"PTYGUARD_SCOPE is 'docker'" in done.stderr and b"systemd" in done.stderr


def test_a_guard_that_a_daemon_sets_up_after_the_first_has_died_needs_nobody():
    with Manager() as world:
        world.run("start", "-n", "s", "--survive-logout", "--", "sleep", "1000", check=0)
        os.unlink(os.path.join(world.directory, "called"))
        world.new_guard_pid(world.kill_guard())
        world.run("has", "s", check=0)
        assert world.told("called") is None         # it is where its daemon is: in the scope


# -- the back-end ------------------------------------------------------------------------------

def test_a_program_is_found_by_absolute_path_only(tmp_path, monkeypatch):
    tool = tmp_path / "some-tool"
    tool.write_text("")
    monkeypatch.setenv("PATH", f"relative:{tmp_path}/none:{tmp_path}")
    assert backend.find_program("some-tool") is None        # it cannot be run
    tool.chmod(tool.stat().st_mode | stat.S_IXUSR)
    assert backend.find_program("some-tool") == str(tool)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", ".:")
    assert backend.find_program("some-tool") is None


def test_the_bus_is_a_socket_of_our_own_or_none():
    path = f"/run/user/{os.getuid()}/bus"
    is_there = os.path.exists(path) and stat.S_ISSOCK(os.lstat(path).st_mode)
    assert backend.user_bus() == (path if is_there else None)


@pytest.mark.skipif(backend.find_program("systemd-run") is None, reason="there is no systemd-run here")
def test_a_real_systemd_run_that_reaches_nobody_says_so_and_the_session_starts():
    with Manager(None) as world:
        real = backend.find_program("systemd-run")
        world.program[2] = world.program[2].replace("lambda name: None", f"lambda name: {real!r}")
        done = world.run("start", "-n", "s", "--survive-logout", "--", "sleep", "1000", check=0)
        assert b"systemd-run failed: Failed to " in done.stderr
        assert b"the guard is started the plain way" in done.stderr
        world.run("has", "s", check=0)
