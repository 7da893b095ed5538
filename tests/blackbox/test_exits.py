"""How a program ended is told truly: every status, every signal, whoever was there to see it."""

import json
import os
import signal
import sys


from outside import wait_until

# signal(7): these do not end a process.
SURVIVED = {signal.SIGCHLD, signal.SIGCONT, signal.SIGURG, signal.SIGWINCH,
            signal.SIGSTOP, signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU}
SIGNALS = [int(number) for number in sorted(signal.valid_signals()) if number not in SURVIVED]

# Names that say how a session ends.
ENDS = [f"exit.{code}" for code in range(256)] + [f"kill.{number}" for number in SIGNALS]


def status_of(end):
    """What a shell has in $? for it."""
    how, number = end.split(".")
    return int(number) + (128 if how == "kill" else 0)


def exit_of(end):
    """What JSON tells of it."""
    how, number = end.split(".")
    if how == "exit":
        return {"code": int(number), "signal": None}
    try:
        return {"code": None, "signal": signal.Signals(int(number)).name}
    except ValueError:                  # a real-time signal, which has a number only
        return {"code": None, "signal": "SIG" + number}


# A program that ends as $1 says, without a core file.
ENDING = """ulimit -c 0
case $1 in
exit.*) exit ${1#exit.} ;;
kill.*) kill -${1#kill.} $$ ;;
esac"""

# Runs the archive once for each argument, and says with which status that ended.  The modules
# are there already when it begins: loading them would be most of the work.
RUN_EACH = """
import os, runpy, sys
archive, ending, *ends = sys.argv[1:]
sys.path.insert(0, archive)
import ptyguard
for end in ends:
    pid = os.fork()
    if not pid:
        sys.argv = [archive, "run", "--", "sh", "-c", ending, "sh", end]
        runpy.run_path(archive, run_name="__main__")
    print("<%s=%d>" % (end, os.WEXITSTATUS(os.waitpid(pid, 0)[1])), flush=True)
"""

# The README's Python, in a process of its own: each argument becomes a session.
START_EACH = """
import sys
sys.path.insert(0, sys.argv[1])
import ptyguard
with ptyguard.connect() as pg:
    for end in sys.argv[3:]:
        pg.start(["sh", "-c", sys.argv[2], "sh", end], name=end)
"""


def test_every_status_and_signal_is_what_run_ends_with_in_a_terminal(pg):
    halves = [(ENDS[at::2], pg.terminal("-c", RUN_EACH, pg.archive, ENDING, *ENDS[at::2], argv=[sys.executable]))
              for at in (0, 1)]
    while any(ends for ends, _ in halves):
        for ends, terminal in halves:
            if ends:
                end = ends.pop(0)
                assert int(terminal.expect(rb"<%s=(\d+)>" % end.encode()).group(1)) == status_of(end), end
    for _, terminal in halves:
        assert terminal.wait() == 0


def test_every_status_and_signal_is_known_of_sessions_that_nobody_saw(fresh):
    told = {}
    for at in range(0, len(ENDS), 64):          # some 100 that have ended are kept
        batch = ENDS[at:at + 64]
        fresh.run("-c", START_EACH, fresh.archive, ENDING, *batch, argv=[sys.executable], code=0)
        done = fresh.run("wait", "--json", *batch)
        # The first in the order of the arguments that is not 0.
        assert done.returncode == next(filter(None, map(status_of, batch)))
        told.update((each["name"], each["exit"]) for each in json.loads(done.stdout)["results"])
        fresh.run("rm", "--ended", code=0)
    assert told == {end: exit_of(end) for end in ENDS}


def test_attach_ends_as_the_program_does_and_so_does_who_asks_later(pg, name):
    ends = ["exit.0", "exit.1", "exit.255", "exit.137", "kill.1", "kill.9", "kill.15", "kill.2"]
    for end in ends:
        pg.run("start", "-n", name + end, "--", "sh", "-c", "read line; " + ENDING, "sh", end, code=0)
    terminals = {end: pg.attach(name + end) for end in ends}
    for terminal in terminals.values():
        terminal.type(b"\n")
    for end, terminal in terminals.items():
        assert terminal.wait() == status_of(end)
        assert (b"[ended: exit %d]" % status_of(end) in terminal.output) == end.startswith("exit")
        assert (b"[ended: killed by SIG" in terminal.output) == end.startswith("kill")
        pg.run("wait", name + end, code=status_of(end))
    told = pg.sessions()
    assert {end: told[name + end]["exit"] for end in ends} == {end: exit_of(end) for end in ends}


def test_a_status_that_only_looks_like_a_signal_is_told_apart(pg):
    for end in ("exit.137", "kill.9"):
        done = pg.run("run", "--json", "--", "sh", "-c", ENDING, "sh", end, code=137)
        assert json.loads(done.stderr.splitlines()[-1])["exit"] == exit_of(end)


def test_what_attach_tells_as_json_is_its_last_line(pg, name):
    line = 'ptyguard attach "$1" --create --json -- sh -c "read line; exit 3" 2>"$2"; exit $?'
    told = os.path.join(pg.above, "told")
    terminal = pg.terminal("-c", line, "sh", name, told, argv=["sh"])
    terminal.wait_until_raw()
    terminal.type(b"\n")
    assert terminal.wait() == 3
    with open(told) as file:
        assert json.loads(file.read().splitlines()[-1])["exit"] == {"code": 3, "signal": None}


def test_a_status_outlives_the_daemon_that_should_have_seen_it(fresh, tmp_path):
    os.mkfifo(tmp_path / "gate")
    fresh.start("it", f"echo ready; cat '{tmp_path}/gate'; exit 19")
    old = fresh.daemon_pid()
    os.kill(old, signal.SIGKILL)
    (tmp_path / "gate").write_bytes(b"")
    fresh.run("wait", "it", code=19)
    fresh.daemon_pid(other_than=old)
    assert fresh.sessions()["it"]["exit"] == {"code": 19, "signal": None}


def test_what_cannot_run_is_127_or_126_and_leaves_nothing(pg, name, tmp_path):
    (tmp_path / "text").write_text("no program\n")
    env = dict(pg.env, PATH="/usr/bin:/bin")        # a place that we may not search would be 126, as with env(1)
    for program, code in (("/none/such", 127), ("no-such-command", 127), (str(tmp_path / "text"), 126),
                          (str(tmp_path), 126)):
        for verb in (["start", "-n", name], ["run", "-n", name]):
            done = pg.run(*verb, "--", program, env=env, code=code)
            assert done.stderr.startswith(b"ptyguard: ") and program.encode() in done.stderr
    assert pg.terminal("attach", name, "--create", "--", "/none/such").wait() == 127
    assert name not in pg.sessions("-a")


def test_a_program_that_ends_at_once_is_shown_to_who_attached_to_create_it(pg, name):
    terminal = pg.terminal("attach", name, "--create", "--", "sh", "-c", "echo last words; exit 19")
    assert terminal.wait() == 19
    assert b"last words" in terminal.output


def test_output_and_status_of_a_program_that_ends_at_once_are_runs(pg):
    for _ in range(3):
        terminal = pg.terminal("run", "--", "sh", "-c", "echo last words; exit 19")
        assert terminal.wait() == 19
        assert b"last words\r\n" in terminal.output
        done = pg.run("run", "--", "sh", "-c", "echo last words; exit 19", code=19)
        assert done.stdout == b"last words\r\n"


def test_the_end_is_not_delayed_by_who_keeps_the_terminal_open(pg, name):
    done = pg.run("run", "-n", name, "--", "sh", "-c", "trap '' HUP; sleep 1000 & echo $!; exit 3", code=3)
    sleeper = int(done.stdout)
    assert pg.sessions()[name]["state"] in ("draining", "ended")
    os.kill(sleeper, signal.SIGKILL)
    wait_until(lambda: pg.sessions()[name]["state"] == "ended", "the end")
