"""Much of it: output, input, words, sessions, descriptors."""

import os
import re
import resource
import signal
import subprocess
import sys

import pytest

from outside import is_alive, wait_until

LINES = 100000
PASTE = 10 << 20


def resident_kib(pid):
    with open(f"/proc/{pid}/status") as file:
        return int(re.search(r"VmRSS:\s+(\d+)", file.read()).group(1))


# -- output ----------------------------------------------------------------------------------------


def numbers(count):
    return b"".join(b"%d\r\n" % number for number in range(1, count + 1))


def test_a_hundred_thousand_lines_arrive_in_a_pipe(pg):
    assert pg.run("run", "--", "seq", str(LINES), code=0).stdout == numbers(LINES)


def test_a_hundred_thousand_lines_arrive_in_a_terminal(pg):
    terminal = pg.terminal("run", "--", "seq", str(LINES))
    assert terminal.wait() == 0
    assert numbers(LINES) in terminal.output


def test_a_hundred_thousand_lines_are_kept_when_there_is_room(pg, name):
    pg.run("start", "-n", name, "--scrollback", "2M", "--", "seq", str(LINES), code=0)
    pg.run("wait", name, code=0)
    assert pg.log(name) == numbers(LINES)
    assert pg.run("log", name, "--tail", "3", code=0).stdout == b"99998\n99999\n100000\n"


def test_what_was_not_kept_is_told_and_the_rest_is_the_end(pg, name):
    pg.run("start", "-n", name, "--scrollback", "64K", "--", "seq", str(LINES), code=0)
    pg.run("wait", name, code=0)
    kept = pg.log(name)
    assert 32 << 10 < len(kept) <= 64 << 10 and numbers(LINES).endswith(kept)
    done = pg.run("log", name, "--raw", "--since", "0")
    assert done.returncode == 1 and done.stderr.startswith(b"ptyguard: ")


def test_who_leaves_a_job_and_comes_back_has_the_output_of_the_bare_command(pg, name):
    job = ("i=0; while [ $i -lt 60 ]; do i=$((i + 1)); echo \"line $i of the job\"; sleep 0.1; done; "
           "echo the end; exit 5")
    bare = subprocess.Popen(["sh", "-c", job], stdout=subprocess.PIPE)
    pg.run("start", "-n", name, "--", "sh", "-c", job, code=0)
    first = pg.attach(name)
    first.expect(rb"line 10 of the job\r\n")
    first.detach()
    pg.run("wait", name, "--for", "line 30 of the job", code=0)
    second = pg.attach(name)
    assert second.wait() == 5
    expected = bare.communicate()[0]
    assert bare.returncode == 5
    assert pg.run("log", name, code=0).stdout == expected
    assert b"the end\r\nptyguard: [ended: exit 5]" in second.output
    seen, shown = ([int(number) for number in re.findall(rb"line (\d+) of the job", each.output)]
                   for each in (first, second))
    assert shown == list(range(1, 61))                  # some painted, some as they came, each once
    assert seen == shown[:len(seen)] and len(seen) >= 10


def test_a_flood_to_many_terminals_is_whole_in_each(pg, name):
    pg.start(name, "stty -echo; echo ready; read x; seq 20000; echo the end; read x")
    terminals = [pg.attach(name) for _ in range(3)]
    for terminal in terminals:
        terminal.expect(rb"ready")
    terminals[0].type(b"\n")

    def everywhere():
        for terminal in terminals:
            terminal.take(0)
        return all(b"the end\r\n" in terminal.output[-20:] for terminal in terminals)
    wait_until(everywhere, "the end in each")
    for terminal in terminals:
        assert terminal.output.endswith(numbers(20000) + b"the end\r\n")
        terminal.detach()


# -- input -----------------------------------------------------------------------------------------


def test_a_paste_of_ten_megabytes_that_nobody_reads_harms_nobody(fresh):
    fresh.start("deaf", "stty raw -echo; echo ready; exec sleep 1000")
    fresh.start("other", "stty -echo; echo ready; while read x; do echo \"got $x\"; done")
    pasting, other = fresh.attach("deaf"), fresh.attach("other")
    with open(os.path.join(fresh.above, "paste"), "wb") as file:
        file.write(b"x" * PASTE)
    sending = fresh.popen("send", "deaf", "-", stdin=open(file.name, "rb"), stderr=-1)
    typed = quiet = 0
    while quiet < 20 and typed < PASTE:             # until no more is taken, for twenty echoes
        taken = pasting.type_some(b"x" * 1024)
        typed += taken
        if not taken:
            quiet += 1
            other.type(b"meanwhile %d\n" % quiet)
            other.expect(rb"got meanwhile %d\r\n" % quiet)
    assert typed < PASTE
    assert resident_kib(fresh.daemon_pid()) < 100 << 10
    assert resident_kib(pasting.process.pid) < 100 << 10
    assert sending.poll() is None
    assert fresh.sessions()["deaf"]["clients"] == 1
    fresh.run("kill", "deaf", code=0)
    assert pasting.wait() == 128 + 1                # hung up, as kill does it
    assert sending.wait() == 1 and b"ptyguard: " in sending.stderr.read()
    other.type(b"still\n")
    other.expect(rb"got still\r\n")
    other.detach()


def test_a_paste_of_a_megabyte_that_is_read_arrives_whole(pg, name):
    data = bytes(range(32, 127)) * 11000
    path = os.path.join(pg.above, name)
    pg.start(name, f"stty raw -echo; echo ready; head -c {len(data)} >'{path}'; echo done; exec cat >/dev/null")
    terminal = pg.attach(name)
    terminal.type(data)
    terminal.expect(rb"done")
    with open(path, "rb") as file:
        assert file.read() == data
    terminal.detach()


# -- words -----------------------------------------------------------------------------------------


def test_a_long_command_line_arrives_whole(pg, name):
    words = ["w" * 100000 + str(number) for number in range(8)] + ["", " ", "-x", "--", "a'b\"c", "\n"]
    line = 'for word; do printf "%s|" "$word"; done'
    done = pg.run("run", "-n", name, "--", "sh", "-c", line, "sh", *words, code=0)
    assert done.stdout == "".join(word + "|" for word in words).replace("\n", "\r\n").encode()
    assert pg.sessions()[name]["state"] == "ended"
    assert len(pg.run("ls", code=0).stdout) < 100000        # and is not shown in full
    pg.run("start", "-n", name, "--shell", ": " + "x" * 100000, code=0)


def test_a_long_line_is_typed_into_a_shell(pg, name):
    pg.run("start", "-n", name, "--env", "PS1=prompt> ", "--unset", "ENV", "--", "sh", "-i", code=0)
    terminal = pg.attach(name)
    terminal.expect(rb"prompt>")
    word = b"abcdefghij" * 350                      # below what a line may have, 4096
    terminal.type(b"printf '<%s>' " + word + b" | wc -c\n")
    terminal.expect(rb"\D3502\r\n")
    terminal.detach()


# -- sessions and descriptors ----------------------------------------------------------------------

# The README's Python, in a process of its own: that many clients, and that many sessions.
MANY = """
import resource, sys
hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
sys.path.insert(0, sys.argv[1])
import ptyguard
clients = [ptyguard.connect() for _ in range(int(sys.argv[2]))]
for number, client in enumerate(clients[:int(sys.argv[3])]):
    client.start(["cat"], name="many.%d" % number)
print("ready", flush=True)
sys.stdin.read()
"""


@pytest.mark.skipif(0 < resource.getrlimit(resource.RLIMIT_NOFILE)[1] < 2048,
                    reason="fewer than 2048 descriptors are allowed here")
def test_a_daemon_works_beyond_1024_descriptors(fresh):
    many = fresh.popen("-c", MANY, fresh.archive, "960", "40", argv=[sys.executable], stdin=-1, stdout=-1)
    assert many.stdout.readline() == b"ready\n"
    old = fresh.daemon_pid()
    assert len(os.listdir(f"/proc/{old}/fd")) > 1024
    fresh.start("it", "stty -echo; echo ready; while read x; do echo \"got $x\"; done")
    terminal = fresh.attach("it")
    terminal.type(b"one\n")
    terminal.expect(rb"got one\r\n")
    os.kill(old, signal.SIGKILL)
    fresh.daemon_pid(other_than=old)
    terminal.type(b"two\n")
    terminal.expect(rb"got two\r\n")
    told = fresh.sessions()
    assert len(told) == 41 and {each["state"] for each in told.values()} == {"running"}
    fresh.run("send", "many.39", "--enter", "hello", code=0)
    fresh.run("wait", "many.39", "--for", "hello\\s+hello", code=0)
    many.stdin.close()
    assert many.wait() == 0
    pids = [each["pid"] for each in told.values()]
    fresh.run("kill", "--all", code=0)
    assert not any(map(is_alive, pids))
    assert terminal.wait() == 128 + 1
