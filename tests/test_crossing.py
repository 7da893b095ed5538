"""The main job, short enough to be run on every interpreter that a machine has.

Front door, guard, daemon, ring, wire and attach together, on the interpreter that
runs the tests.  The other crossing files go deeper on one of them.
"""

import hashlib
import json
import os
import signal
import socket
import subprocess
import sys

import pytest

from world import ROOT, World, is_alive, wait_until

FLOOD = ("import sys\n"
         "for i in range(60000): sys.stdout.write('%07d %s\\n' % (i, 'x' * 62))\n"
         "sys.stdout.flush(); sys.exit(41)\n")


@pytest.fixture(scope="module")
def world():
    with World() as made:
        yield made


def flood_digest():
    lines = b"".join(b"%07d %s\r\n" % (i, b"x" * 62) for i in range(60000))
    return hashlib.sha256(lines).hexdigest()


def test_run_in_a_pipe_gives_the_commands_output_and_status(world):
    done = world.run("run", "--", "sh", "-c", "printf '\\377\\376\\000ok'; exit 7")
    assert (done.returncode, done.stdout, done.stderr) == (7, b"\xff\xfe\x00ok", b"")


def test_run_tells_which_signal_ended_the_command(world):
    assert world.run("run", "--", "sh", "-c", "kill -TERM $$").returncode == 128 + signal.SIGTERM


def test_input_from_a_pipe_reaches_the_command_and_ends(world):
    done = world.run("run", "--", "cat", input=b"one\ntwo")
    assert (done.returncode, done.stdout) == (0, b"one\r\ntwo")


def test_a_session_is_started_listed_typed_at_and_removed(world):
    assert world.run("start", "-n", "shell", "--", "sh", check=0).stdout == b"shell\n"
    listed = {s["name"]: s for s in world.json("ls")["sessions"]}
    assert listed["shell"]["state"] == "running" and is_alive(listed["shell"]["pid"])
    offset = world.json("send", "shell", "--enter", "echo $((6*7))")["offset"]
    world.run("wait", "shell", "--for", "\n42", "--since", str(offset), check=0)
    world.run("rm", "shell", check=0)
    assert world.run("has", "shell").returncode == 1
    assert not is_alive(listed["shell"]["pid"])


def test_a_flood_read_through_dying_daemons_is_complete(world):
    reader = world.popen("run", "-n", "flood", "--", sys.executable, "-c", FLOOD,
                         stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    digest = hashlib.sha256()
    for kill in range(6):
        for _ in range(20):
            digest.update(os.read(reader.stdout.fileno(), 16384))
        world.kill_daemon()
    for piece in iter(lambda: os.read(reader.stdout.fileno(), 65536), b""):
        digest.update(piece)
    assert reader.wait(60) == 41, reader.stderr.read()
    assert digest.hexdigest() == flood_digest()


def test_an_attached_terminal_survives_daemon_and_guard():
    with World() as world:
        terminal = world.terminal("attach", "--create", "shell", "--", "sh")
        terminal.send(b"echo first $((6*7))\n")
        terminal.expect(rb"first 42")
        world.kill_daemon()
        terminal.send(b"echo second $((7*7))\n")
        terminal.expect(rb"second 49")
        pid = world.json("info", "shell")["pid"]
        world.kill_guard()
        terminal.send(b"echo third $((8*8))\n")
        terminal.expect(rb"third 64")
        wait_until(lambda: world.json("status")["guard"]["pid"], "a new guard")
        world.kill_daemon()
        terminal.send(b"echo fourth $((9*9))\n")
        terminal.expect(rb"fourth 81")
        assert world.json("info", "shell")["pid"] == pid
        terminal.send(b"\x1c")
        terminal.expect(rb"\[detached \(from session shell\)\]")
        assert terminal.wait() == 0
        terminal.close()


def test_the_python_interface_starts_sends_waits_and_reads():
    with World() as world:
        script = (
            "import ptyguard\n"
            "with ptyguard.connect() as pg:\n"
            "    s = pg.start(['sh'], name='api')\n"
            "    s.send(b'echo $((6*7))\\n')\n"
            "    assert s.wait_for(rb'\\n42', timeout_s=60)\n"
            "    s.send(b'exit 9\\n')\n"
            "    assert s.wait(60) == {'code': 9, 'signal': None}\n"
            "    assert b'42' in s.read()[1]\n"
            "    print(b''.join(piece for _, piece in s.follow(timeout_s=60)).count(b'42'))\n")
        env = dict(world.env, PYTHONPATH=ROOT)
        done = subprocess.run([sys.executable, "-c", script], env=env, stdout=subprocess.PIPE,
                              stderr=subprocess.PIPE, timeout=120)
        assert (done.returncode, done.stderr) == (0, b"") and int(done.stdout) >= 1


def test_a_restart_keeps_the_sessions_and_a_stop_needs_an_answer(world):
    world.run("ensure", "keeper", "--", "sleep", "1000", check=0)
    pid = world.json("info", "keeper")["pid"]
    before = world.daemon_pid()
    world.run("daemon", "restart", check=0)
    assert world.daemon_pid() != before
    assert world.json("info", "keeper")["pid"] == pid and is_alive(pid)
    assert world.run("daemon", "stop").returncode == 4
    world.run("daemon", "stop", "--sessions", "keep", check=0)
    assert is_alive(pid) and world.json("status")["state"] == "stopped"
    assert world.json("info", "keeper")["state"] == "running"
    world.run("kill", "keeper", check=0)
    assert not is_alive(pid)


def test_garbage_at_the_client_socket_costs_only_its_sender(world):
    world.run("ensure", "other", "--", "cat", check=0)
    before = world.daemon_pid()
    for garbage in (b"\0" * 100, b"GET / HTTP/1.0\r\n\r\n", bytes(range(256)) * 40):
        sock = socket.socket(socket.AF_UNIX)
        sock.settimeout(60)
        sock.connect(os.path.join(world.place, "client.sock"))
        try:
            sock.sendall(garbage)
            while sock.recv(4096):
                pass
        except ConnectionError:
            pass
        sock.close()
    assert world.daemon_pid() == before
    world.run("send", "other", "hello\n", check=0)
    world.run("wait", "other", "--for", "hello", check=0)
    world.run("kill", "other", check=0)


def test_json_is_one_object_with_its_schema_version(world):
    for verb in ("ls", "status"):
        assert json.loads(world.run(verb, "--json").stdout)["schema_version"] == 1
