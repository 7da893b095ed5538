"""Whatever stdin, stdout and stderr are: nothing, the null device, a file, a pipe, or closed."""

import os
import subprocess

import pytest

from outside import cpu_ticks, wait_until

# A line of arguments, and the exit status.  `living` and `over` are sessions.
VERBS = [
    ("ls", 0), ("ls --json", 0), ("info living", 0), ("has nobody", 1), ("send living x", 0), ("send living -", 0),
    ("log over -f", 0), ("wait over", 3), ("resize living 81x25", 0), ("ensure living", 0), ("start -- true", 0),
    ("run -- sh -c 'cat; exit 3'", 3), ("attach living", 125), ("detach living", 0), ("kill over", 0),
    ("rm --no-tombstone nobody", 0), ("status", 0), ("daemon start", 0), ("daemon log", 0), ("version", 0), ("help run", 0),
    ("nonsense", 2),
]

SHAPES = {
    "stdin closed": '"$@" <&- >>"$OUT" 2>>"$ERR"',
    "stdin null": '"$@" </dev/null >>"$OUT" 2>>"$ERR"',
    "stdin a file": '"$@" <"$FILE" >>"$OUT" 2>>"$ERR"',
    "stdin a pipe": 'echo typed | "$@" >>"$OUT" 2>>"$ERR"',
    "stdout closed": '"$@" </dev/null >&- 2>>"$ERR"',
    "stderr closed": '"$@" </dev/null >>"$OUT" 2>&-',
    "all closed": '"$@" <&- >&- 2>&-',
}


@pytest.fixture(scope="module")
def told(pg):
    """{shape: (status of each verb, stdout, stderr)}; all shapes are tried at the same time."""
    pg.start("living", "stty -echo; echo ready; exec cat >/dev/null")
    pg.run("run", "-n", "over", "--", "sh", "-c", "echo it was; exit 3", code=3)
    file = os.path.join(pg.above, "file")
    with open(file, "w") as made:
        made.write("typed\n")
    running = {}
    for shape, line in SHAPES.items():
        paths = [os.path.join(pg.above, shape.replace(" ", "-") + end) for end in (".out", ".err", ".status")]
        script = f"try() {{ {line}; echo $? >>\"$STATUS\"; }}\n" + "".join(
            f"try ptyguard {verb}\n" for verb, _ in VERBS)
        env = dict(pg.env, FILE=file, OUT=paths[0], ERR=paths[1], STATUS=paths[2])
        running[shape] = pg.popen("-c", script, argv=["sh"], env=env), paths
    texts = {}
    for shape, (process, paths) in running.items():
        process.wait()
        for path in paths:
            open(path, "a").close()
        out, err, statuses = [open(path, errors="replace").read() for path in paths]
        texts[shape] = [int(word) for word in statuses.split()], out, err
    return texts


@pytest.mark.parametrize("shape", SHAPES)
def test_every_verb_does_its_work_and_says_so_by_its_status(told, shape):
    statuses, _, errors = told[shape]
    assert list(zip([verb for verb, _ in VERBS], statuses)) == VERBS
    assert "Traceback" not in errors and "Exception" not in errors and "Error:" not in errors


def test_what_is_printed_does_not_depend_on_stdin(told):
    assert "it was\n" in told["stdin null"][1] and "NAME" in told["stdin null"][1]
    assert "no such session: nobody" in told["stdin null"][2]
    for shape in ("stdin closed", "stdin a file", "stdin a pipe"):
        assert "it was\n" in told[shape][1]
        assert "no such session: nobody" in told[shape][2]


def test_what_is_given_to_run_is_what_its_program_reads(told):
    assert told["stdin a file"][1].count("typed\n") == 1
    assert told["stdin a pipe"][1].count("typed\n") == 1
    assert told["stdin null"][1].count("typed\n") == 0


def test_no_stdin_at_all_is_an_end_of_file_for_the_program(pg):
    for line in ('ptyguard run -- cat </dev/null', 'ptyguard run -- cat <&-', ': | ptyguard run -- cat'):
        assert pg.sh(line, code=0).stdout == b""
    done = pg.sh('printf "no newline" | ptyguard run -- cat', code=0)
    assert done.stdout == b"no newline"


def test_a_caller_whose_output_is_a_pipe_is_not_kept_waiting_by_what_was_started(fresh):
    # The guard, the daemon and the program have let go of it, or this would never end.
    done = fresh.sh('x=$(ptyguard start -n it -- sleep 1000 2>&1 3>&1); echo "<$x>"', code=0)
    assert done.stdout == b"<it>\n"


def test_a_reader_that_goes_leaves_the_session_running(pg, name):
    line = 'ptyguard run -n "$1" -- sh -c "while echo line; do sleep 0.01; done"; echo $? >"$2"'
    told = os.path.join(pg.above, "told")
    pg.sh(f"( {line} ) | head -n 1", name, told, code=0)
    wait_until(lambda: os.path.exists(told) and os.path.getsize(told), "the end of run")
    with open(told) as file:
        assert file.read() == "75\n"
    assert pg.sessions()[name]["state"] == "running"
    pg.run("kill", name, code=0)


@pytest.mark.skipif(not os.path.exists("/proc/self/stat"), reason="no /proc: processor time is not known")
def test_nothing_to_read_eats_no_processor_time(fresh, tmp_path):
    # 150 ticks or more for who spins, and a few for who waits.
    ticking = "i=0; while [ $i -lt 20 ]; do i=$((i + 1)); echo tick $i; sleep 0.1; done"
    at_end = os.pipe()
    os.close(at_end[1])
    clients = [fresh.popen("run", "--", "sh", "-c", ticking, stdin=subprocess.DEVNULL, stdout=-1)]
    clients.append(fresh.popen("run", "--", "sh", "-c", ticking, stdin=at_end[0], stdout=-1))
    clients.append(fresh.popen("run", "-n", "watched", "--", "sh", "-c", ticking, stdin=subprocess.DEVNULL,
                               stdout=subprocess.DEVNULL, preexec_fn=lambda: os.close(0)))
    os.close(at_end[0])
    # A program that lets go of its terminal, a client whose terminal has gone, one that follows.
    fresh.run("start", "-n", "quiet", "--", "sh", "-c", "exec <&- >&- 2>&-; exec sleep 1000", code=0)
    fresh.attach("quiet").close()
    clients.append(fresh.popen("log", "quiet", "-f", stdin=subprocess.DEVNULL))
    everybody = [client.pid for client in clients] + [fresh.guard_pid(), fresh.daemon_pid()]
    first = clients[0].stdout
    assert first.readline().startswith(b"tick ")
    before = {pid: cpu_ticks(pid) for pid in everybody}
    number = 0
    while number < 18:
        number = int(first.readline().split()[1])
    for pid in everybody:
        assert cpu_ticks(pid) - before[pid] < 40, (pid, everybody)
    assert clients[0].wait() == clients[1].wait() == clients[2].wait() == 0
