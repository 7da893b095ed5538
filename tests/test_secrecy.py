"""What must not reach the disk, and what must not reach the user's terminal (C-905, C-906)."""

import json
import os
import stat

import pytest

from world import World, wait_until

SECRETS = {"of the environment": "env-hunter2", "of the output": "out-hunter2", "typed": "in-hunter2"}


def files_below(*roots):
    for root in roots:
        for directory, _, names in os.walk(root):
            for name in names:
                path = os.path.join(directory, name)
                if stat.S_ISREG(os.lstat(path).st_mode):
                    yield path


def holding(text, *roots):
    found = []
    for path in files_below(*roots):
        with open(path, "rb") as file:
            if text.encode() in file.read():
                found.append(path)
    return found


def test_environment_output_and_input_never_touch_the_disk_whatever_happens():
    """On a disk, not in memory: /dev/shm would say nothing of what is written where."""
    with World() as world:
        env = dict(world.env, SECRET=SECRETS["of the environment"])
        line = f"echo {SECRETS['of the output'][:4]}''{SECRETS['of the output'][4:]}; stty -echo; read x; echo $x; read y"
        world.run("start", "-n", "s", "--", "sh", "-c", line, env=env, check=0)
        world.run("wait", "s", "--for", SECRETS["of the output"], "--timeout", "60", check=0)
        world.run("send", "s", "--enter", SECRETS["typed"], check=0)
        world.run("wait", "s", "--for", SECRETS["typed"], "--timeout", "60", check=0)
        world.run("rename", "s", "t", check=0)
        world.kill_daemon()
        world.run("restart", "t", env=env, check=0)
        guard = world.kill_guard()
        world.new_guard_pid(guard)
        with world.connect() as pg:
            facts = pg.session("t").info()
            with open(f"/proc/{facts['pid']}/environ", "rb") as file:
                assert SECRETS["of the environment"].encode() in file.read()    # restarted with it
        world.run("kill", "t", check=0)
        world.run("daemon", "restart", check=0)
        places = world.directory, world.place
        for what, secret in SECRETS.items():
            assert holding(secret, *places) == [], what


def test_a_log_is_asked_for_and_private(tmp_path):
    with World() as world:
        log = tmp_path / "log"
        world.run("run", "--log", str(log), "--", "sh", "-c", "echo out-''hunter2", check=0)
        wait_until(lambda: log.exists() and b"out-hunter2" in log.read_bytes(), "the log")
        assert stat.S_IMODE(log.stat().st_mode) == 0o600
        assert holding("out-hunter2", world.directory, world.place) == []


# -- escapes -----------------------------------------------------------------------------------

EVIL = "\x1b]0;owned\x07\x1b[2J\x9b31mred\rover\x08\x7f\u202egnp"


@pytest.fixture(scope="module")
def evil(world, tmp_path_factory):
    """A session whose command, directory, environment, labels, title and output are all evil."""
    directory = tmp_path_factory.mktemp("x") / EVIL
    directory.mkdir()
    line = "printf '\\033]2;%s\\007' \"$1\"; echo ready; exec sleep 1000"
    world.run("start", "-n", "evil", "--cwd", str(directory), "--label", f"k{EVIL}={EVIL}",
              "--env", f"TERM={EVIL}", "--", "sh", "-c", line, EVIL, EVIL.replace("\x07", ""), check=0)
    world.run("wait", "evil", "--for", "ready", "--timeout", "60", check=0)
    return "evil"


def assert_harmless(data):
    text = data.decode("utf-8")
    assert all(c.isprintable() or c in "\n" for c in text), ascii(text)


@pytest.mark.parametrize("words", [
    ["ls"], ["ls", "-a"], ["info", "evil"], ["status"], ["daemon", "log"], ["doctor"], ["prune"],
    ["help"], ["ls", "--json"], ["info", "evil", "--json"],
], ids=" ".join)
def test_nothing_of_a_session_reaches_the_terminal_as_an_escape(world, evil, words):
    done = world.run(*words)
    assert_harmless(done.stdout)
    assert_harmless(done.stderr)
    if "--json" in words:
        json.loads(done.stdout)


@pytest.mark.parametrize("words", [
    [EVIL], ["attach", EVIL], ["start", "--" + EVIL], ["start", "-n", EVIL], ["start", "--cwd", EVIL],
    ["start", "--", "/" + EVIL], ["start", "--size", EVIL], ["wait", "evil", "--for", "(" + EVIL],
    ["send", EVIL, "x"], ["key", "evil", EVIL], ["kill", EVIL, "--signal", "9"], ["rm", EVIL, EVIL],
    ["kill", "evil", "--signal", EVIL], ["log", EVIL], ["rename", "evil", EVIL], ["help", EVIL],
    ["run", "-e", EVIL, "--", "true"], ["version", "match", EVIL, "1"], ["--dir", "/proc/" + EVIL, "ls"],
    ["start", "--label", EVIL], ["completion", EVIL], ["start", "--log", "/" + EVIL + "/x", "--", "true"],
    ["run", "--status-file", "/" + EVIL + "/x", "--", "true"], ["daemon", EVIL], ["-A" + EVIL],
], ids=lambda words: words[0] if words[0] != EVIL else "evil verb")
def test_an_error_repeats_nothing_of_the_users_words_as_an_escape(world, evil, words):
    done = world.run(*words)
    assert done.returncode != 0
    assert_harmless(done.stderr)
    assert done.stderr.startswith(b"ptyguard: ") and done.stdout == b""
    assert_harmless(world.run(*words[:1], "--json", *words[1:]).stderr)
