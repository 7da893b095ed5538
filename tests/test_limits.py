"""Limits of ours and of the machine: a clear error, and everybody else is served (C-311)."""

import os
import resource
import subprocess

import pytest

from world import LIMIT_S, MEMORY, World, open_descriptors, wait_until

CAN_LIMIT_OTHERS = hasattr(resource, "prlimit")


def cpu_ticks(pid):
    with open(f"/proc/{pid}/stat") as file:
        words = file.read().rpartition(") ")[2].split()
    return int(words[11]) + int(words[12])


def test_beyond_the_cap_of_sessions_a_start_is_refused_and_the_rest_lives_on():
    with World(under=MEMORY, PTYGUARD_MAX_SESSIONS="2") as world:
        for name in ("a", "b"):
            world.run("start", "-n", name, "--", "sleep", "1000", check=0)
        refused = world.run("start", "-n", "c", "--", "sleep", "1000", check=1)
        assert b"2 sessions live already" in refused.stderr and b"PTYGUARD_MAX_SESSIONS" in refused.stderr
        assert world.run("ensure", "a", check=0).stdout == b"a\n"
        world.run("kill", "a", check=0)
        world.run("start", "-n", "c", "--", "sleep", "1000", check=0)


def test_beyond_the_cap_of_clients_one_is_refused_and_the_others_are_served():
    with World(under=MEMORY, PTYGUARD_MAX_CLIENTS="3") as world:
        world.run("start", "-n", "s", "--", "sleep", "1000", check=0)
        followers = [world.popen("log", "-f", "s", stdout=subprocess.DEVNULL)]
        with world.connect() as pg:
            # One who only asks fits in between; each follower has two connections for a moment.
            wait_until(lambda: len(pg.session("s").info()["viewers"]) == 1, "a follower")
            followers.append(world.popen("log", "-f", "s", stdout=subprocess.DEVNULL))
            refused = wait_until(lambda: _refusal(world), "a refusal")
            assert b"3 clients are connected already" in refused and b"PTYGUARD_MAX_CLIENTS" in refused
            assert pg.session("s").info()["state"] == "running"
        for follower in followers:
            follower.kill()
        wait_until(lambda: world.run("ls").returncode == 0, "room again")


def _refusal(world):
    done = world.run("ls")
    return done.stderr if done.returncode else None


@pytest.mark.skipif(not CAN_LIMIT_OTHERS, reason="this Python cannot set another process's limits")
def test_a_daemon_out_of_descriptors_waits_without_spinning_and_serves_who_waited():
    with World(under=MEMORY) as world:
        world.run("start", "-n", "s", "--", "sleep", "1000", check=0)
        daemon = world.daemon_pid()
        wait_until(lambda: world.json("status")["state"] == "running", "a quiet daemon")
        before = resource.prlimit(daemon, resource.RLIMIT_NOFILE)
        # What it has, and not one more.
        highest = max(map(int, os.listdir(f"/proc/{daemon}/fd"))) + 1
        resource.prlimit(daemon, resource.RLIMIT_NOFILE, (highest, before[1]))
        holes = highest - open_descriptors(daemon)
        waiting = [world.popen("ls", "-q", stdout=subprocess.PIPE) for _ in range(holes + 3)]
        wait_until(lambda: "accept_failed" in world.log(), "a failed accept")
        began = cpu_ticks(daemon)
        wait_until(lambda: world.log().count("accept_failed") >= 2, "a second one")
        assert cpu_ticks(daemon) - began < 30           # of a hundred in the second between
        resource.prlimit(daemon, resource.RLIMIT_NOFILE, before)
        for one in waiting:
            out, _ = one.communicate(timeout=LIMIT_S)
            assert one.returncode == 0 and out == b"s\n"
        assert world.daemon_pid() == daemon


def test_descriptor_limits_are_raised_in_guard_and_daemon_and_given_back_to_programs():
    with World(under=MEMORY) as world:
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        lower = min(soft, 256)
        limited = ["sh", "-c", f'ulimit -Sn {lower}; exec "$@"', "sh", *world.program]
        done = subprocess.run([*limited, "run", "--", "sh", "-c", "ulimit -Sn"], env=world.env,
                              stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, timeout=LIMIT_S)
        assert done.stdout.strip() == b"%d" % lower
        for pid in (world.guard_pid(), world.daemon_pid()):
            with open(f"/proc/{pid}/limits") as file:
                line = next(line for line in file if line.startswith("Max open files"))
            assert line.split()[3] == line.split()[4]


# A mount namespace with terminals of its own, of which there are few.
_FEW_TERMINALS = ("mount -t devpts -o newinstance,max=3,ptmxmode=0666 devpts /dev/pts && "
                  'mount --bind /dev/pts/ptmx /dev/ptmx && exec "$@"')


def few_terminals(*argv):
    return ["unshare", "--mount", "sh", "-c", _FEW_TERMINALS, "sh", *argv]


def can_have_few_terminals():
    try:
        return subprocess.run(few_terminals("true"), stdout=subprocess.DEVNULL,
                              stderr=subprocess.DEVNULL, timeout=LIMIT_S).returncode == 0
    except OSError:
        return False


@pytest.mark.skipif(not can_have_few_terminals(),
                    reason="no mount namespace with a devpts of its own can be had here")
def test_without_terminals_left_the_limit_is_named_and_how_to_raise_it():
    with World(under=MEMORY) as world:
        world.program = few_terminals(*world.program)
        for n in range(3):
            world.run("start", "-n", f"s{n}", "--", "sleep", "1000", check=0)
        descriptors = open_descriptors(world.guard_pid())
        refused = world.run("start", "-n", "s3", "--", "sleep", "1000", check=1)
        assert b"no terminal could be opened" in refused.stderr and b"kernel.pty.max" in refused.stderr
        assert open_descriptors(world.guard_pid()) == descriptors
        world.run("info", "s3", check=3)
        world.run("kill", "s0", check=0)
        world.run("start", "-n", "s3", "--", "sleep", "1000", check=0)


def test_a_guard_out_of_memory_descriptors_refuses_and_keeps_its_reserve():
    """Programs that are started are refused long before no daemon could be started any more."""
    with World(under=MEMORY) as world:
        limited = ["sh", "-c", 'ulimit -n 64; exec "$@"', "sh", *world.program]
        subprocess.run([*limited, "daemon", "start"], env=world.env, check=True, timeout=LIMIT_S,
                       stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        codes = [world.run("start", "--", "sleep", "1000").returncode for _ in range(12)]
        assert codes[0] == 0 and codes[-1] == 1
        world.kill_daemon()
        assert len(world.json("ls")["sessions"]) == codes.count(0)
