"""`run`: a command to its end, its bytes and its status, in pipes, jobs and terminals (C-123)."""

import fcntl
import json
import os
import re
import shlex
import signal
import subprocess
import sys

import pytest

from world import LIMIT_S, ROOT, World, is_alive, wait_until

PYTHON = sys.executable

# What ends nobody by default: SIGCHLD, SIGCONT, the four that stop, SIGURG, SIGWINCH.
HARMLESS = {signal.SIGCHLD, signal.SIGCONT, signal.SIGSTOP, signal.SIGTSTP, signal.SIGTTIN,
            signal.SIGTTOU, signal.SIGURG, signal.SIGWINCH}


def open_gate(path):
    path.write_bytes(b"")


def run_in_background(world, *args, **options):
    options = dict({"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}, **options)
    return world.popen("run", *args, **options)


def finish(process):
    """(exit code, stdout, stderr)."""
    out, err = process.communicate(timeout=LIMIT_S)
    return process.returncode, out, err


def begun(pg, name):
    """The session once it is there."""
    def find():
        found = [session for session in pg.sessions() if session.name == name]
        return found and found[0].facts["state"] != "starting" and found[0]
    return wait_until(find, "session " + name)


def has_clients(session, count):
    return wait_until(lambda: len(session.info()["viewers"]) == count, f"{count} clients")


def is_at_work(session):
    """Wait until some `run` reads that session, however it got there."""
    return wait_until(lambda: session.info()["viewers"], "its client")


# -- the status ---------------------------------------------------------------------------------


def statuses(world, programs):
    """What `run` ends with for each shell line; one Python, a fork for each."""
    code = f"""if True:
        import json, os, resource, sys
        sys.path.insert(0, {ROOT!r})
        import ptyguard
        from ptyguard_core import attach, client, detachkey, report, terminal
        ptyguard.pick_backend()
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        for program in json.load(sys.stdin):
            pid = os.fork()
            if not pid:
                os.dup2(os.open(os.devnull, os.O_RDWR), 0)
                os._exit(ptyguard.main(["run", "--rm", "--", "sh", "-c", program]))
            print(os.WEXITSTATUS(os.waitpid(pid, 0)[1]), flush=True)
    """
    done = subprocess.run([PYTHON, "-c", code], input=json.dumps(programs).encode(), env=world.env,
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=2 * LIMIT_S)
    assert done.stderr == b""
    return [int(line) for line in done.stdout.split()]


def test_each_of_the_256_codes_is_mirrored(world):
    assert statuses(world, [f"exit {code}" for code in range(256)]) == list(range(256))


def test_each_signal_that_can_end_a_program_is_mirrored_as_128_and_its_number(world):
    numbers = sorted(set(map(int, signal.valid_signals())) - set(map(int, HARMLESS)))
    assert signal.SIGKILL in numbers and max(numbers) > 60
    assert statuses(world, [f"kill -{number} $$" for number in numbers]) == [
        128 + number for number in numbers]


@pytest.mark.parametrize("program, code, told", [
    ("exit 75", 75, {"code": 75, "signal": None}),
    ("kill -9 $$", 137, {"code": None, "signal": "SIGKILL"}),
])
def test_json_tells_the_commands_code_from_ours(world, name, program, code, told):
    done = world.run("run", "-n", name, "--json", "--", "sh", "-c", "echo out; " + program,
                     check=code)
    fields = json.loads(done.stderr.splitlines()[-1])
    assert (fields["name"], fields["exit"], fields["timed_out"]) == (name, told, False)
    assert done.stdout == b"out\r\n"


@pytest.mark.parametrize("words, code", [
    (["--", "/no/such/command"], 127), (["--", "/etc/passwd"], 126),
    (["--cwd", "/no/such", "--", "true"], 126),
    (["-n", "bad name", "--", "true"], 2), ([], 2), (["--timeout", "x", "--", "true"], 2),
])
def test_what_cannot_begin_has_a_code_of_its_own(world, words, code):
    done = world.run("run", *words, check=code)
    assert done.stdout == b"" and done.stderr.startswith(b"ptyguard: ")


def test_any_other_failure_of_ours_is_125():
    with World() as empty:
        done = empty.run("--no-start", "run", "--", "true", check=125)
        assert b"no daemon runs" in done.stderr


# -- the bytes ------------------------------------------------------------------------------------


def test_output_is_byte_exact_whatever_it_is(world, tmp_path):
    data = bytes(range(256)) * 40 + b"\xff" * 40000 + os.urandom(400000) + b"\xff\xff\xff"
    (tmp_path / "data").write_bytes(data)
    done = world.run("run", "--", "sh", "-c", f"stty raw; exec cat {tmp_path / 'data'}", check=0)
    assert done.stdout == data
    assert done.stderr == b""


def test_a_hundred_thousand_lines_come_out_as_the_terminal_made_them(world):
    done = world.run("run", "--", "seq", "100000", check=0)
    assert done.stdout == b"".join(b"%d\r\n" % n for n in range(1, 100001))


def test_a_reader_that_begins_late_gets_everything_and_holds_the_program_meanwhile(world, pg, name):
    # 7 MB: more than pipe, sockets and ring take together.
    process = run_in_background(world, "-n", name, "--", "sh", "-c", "seq 1000000; exit 3")
    session = begun(pg, name)
    ring = 1 << 20
    end = [0]

    def stands_still():
        before, end[0] = end[0], session.info()["offsets"]["end"]
        return end[0] > ring and end[0] == before
    wait_until(stands_still, "a full ring")
    assert end[0] < 7888896
    code, out, err = finish(process)
    assert (code, err) == (3, b"")
    assert out == b"".join(b"%d\r\n" % n for n in range(1, 1000001))


def test_a_reader_that_is_slow_does_not_delay_anybody_elses_wait(world, pg, name):
    process = run_in_background(world, "-n", name, "--", "sh", "-c", "seq 60000; exit 4")
    assert begun(pg, name).wait(LIMIT_S) == {"code": 4, "signal": None}
    code, out, _ = finish(process)
    assert code == 4 and out.endswith(b"\r\n60000\r\n") and out.count(b"\n") == 60000


def test_a_reader_that_goes_away_is_a_hangup_and_the_session_lives(world, pg, name, gate):
    read_end, write_end = os.pipe()
    process = run_in_background(world, "-n", name, "--", "sh", "-c",
                                f"cat {gate}; echo more; exec sleep 1000",
                                stdout=write_end)
    os.close(write_end)
    session = begun(pg, name)
    is_at_work(session)
    os.close(read_end)
    open_gate(gate)
    assert process.wait(LIMIT_S) == 75
    assert b"detached" in process.stderr.read()
    assert session.info()["state"] == "running"


def test_a_stdout_that_somebody_made_non_blocking_loses_nothing(world):
    read_end, write_end = os.pipe()
    os.set_blocking(write_end, False)
    process = world.popen("run", "--", "seq", "100000", stdout=write_end)
    os.close(write_end)
    with open(read_end, "rb") as file:
        assert file.read() == b"".join(b"%d\r\n" % n for n in range(1, 100001))
    assert process.wait(LIMIT_S) == 0


def test_a_session_that_is_over_does_not_keep_a_run_whose_reader_is_stuck_from_ending(
        world, pg, name):
    # What used to happen: once the session had ended the client waited in poll for its
    # reader, and SIGTERM only made it wait again.  200 KB: more than the pipe takes, and
    # little enough for the client to have read it all.
    words = ("-n", name, "--", "sh", "-c", "seq 30000; exit 4")
    process = run_in_background(world, *words)
    session = begun(pg, name)
    session.wait(LIMIT_S)
    end = session.info()["offsets"]["end"]
    wait_until(lambda: [each["offset"] for each in session.info()["viewers"]] == [end],
               "all of it sent")

    def has_left():
        process.send_signal(signal.SIGTERM)
        return process.poll() is not None
    wait_until(has_left, "the client's end")
    # (A second SIGTERM may meet an interpreter that is shutting down.)
    assert finish(process)[0] in (75, -signal.SIGTERM)      # not all came out, so:
    assert world.run("run", *words, check=4).stdout.endswith(b"\r\n30000\r\n")


# -- standard input --------------------------------------------------------------------------------


@pytest.mark.parametrize("data, out", [
    (b"", b""), (b"one\ntwo\n", b"one\r\ntwo\r\n"), (b"unfinished", b"unfinished"),
    (b"one\nunfinished", b"one\r\nunfinished"), (b"\n", b"\r\n"),
    (b"bytes \xff\xfe\n", b"bytes \xff\xfe\r\n"),
])
def test_a_canonical_reader_sees_the_input_and_its_end_and_nothing_is_echoed(world, data, out):
    done = world.run("run", "--", "cat", input=data, check=0)
    assert done.stdout == out


def test_the_null_device_and_a_file_are_input_too(world, tmp_path):
    assert world.run("run", "--", "cat", check=0).stdout == b""
    (tmp_path / "file").write_bytes(b"from a file\n" * 3)
    with open(tmp_path / "file", "rb") as file:
        assert world.run("run", "--", "wc", "-c", stdin=file, check=0).stdout.split() == [b"36"]


def test_no_stdin_at_all_is_an_empty_one(world):
    done = subprocess.run(["sh", "-c", '"$@" <&-', "sh"] + world.program + ["run", "--", "cat"],
                          env=world.env,
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=LIMIT_S)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


def test_a_megabyte_of_lines_goes_through_in_both_directions(world):
    lines = b"".join(b"%07d some words to make it longer\n" % n for n in range(30000))
    done = world.run("run", "--", "cat", input=lines, check=0)
    assert done.stdout == lines.replace(b"\n", b"\r\n")


def test_input_reaches_a_raw_program_as_bytes_and_no_end_of_file_character(world):
    data = bytes(range(256)) * 16
    done = world.run("run", "--", "sh", "-c",
                     "stty raw; echo; head -c 4096; echo; stty -a | grep -c -- -icanon",
                     input=data, check=0)
    assert done.stdout == b"\n" + data + b"\n1\n"


def test_a_program_that_reads_no_input_ends_as_it_pleases(world):
    done = world.run("run", "--", "sh", "-c", "echo out; exit 5", input=b"x" * 3000000, check=5)
    assert done.stdout == b"out\r\n"


# -- by name ---------------------------------------------------------------------------------------


def counting(tmp_path, rest):
    """A shell line that notes each of its runs, and how often it ran."""
    path = tmp_path / "runs"
    return (f"echo run >>{path}; {rest}",
            lambda: path.read_text().count("run") if path.exists() else 0)


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGTERM])
def test_a_client_that_is_hung_up_says_75_and_the_same_line_rejoins_from_the_beginning(
        world, pg, name, tmp_path, gate, number):
    line, runs = counting(tmp_path, f"echo begin; cat {gate}; echo end; exit 9")
    first = run_in_background(world, "-n", name, "--", "sh", "-c", line)
    session = begun(pg, name)
    is_at_work(session)
    first.send_signal(number)
    code, _, err = finish(first)
    assert code == 75 and f"[detached (from session {name})]".encode() in err
    assert session.info()["state"] == "running"
    second = run_in_background(world, "-n", name, "--", "sh", "-c", line)
    is_at_work(session)
    open_gate(gate)
    assert finish(second) == (9, b"begin\r\nend\r\n", b"")
    assert runs() == 1


def test_a_client_that_is_killed_leaves_the_session_alone(world, pg, name, gate):
    first = run_in_background(world, "-n", name, "--", "sh", "-c", f"cat {gate}; echo end; exit 3")
    session = begun(pg, name)
    is_at_work(session)
    first.kill()
    has_clients(session, 0)
    second = run_in_background(world, "-n", name, "--", "sh", "-c", f"cat {gate}; echo end; exit 3")
    is_at_work(session)
    open_gate(gate)
    assert finish(second)[:2] == (3, b"end\r\n")


def test_an_end_that_nobody_has_seen_is_replayed_once_and_then_the_command_runs_anew(
        world, pg, name, tmp_path):
    line, runs = counting(tmp_path, "echo result; exit 7")
    world.run("start", "-n", name, "--", "sh", "-c", line, check=0)
    wait_until(lambda: pg.session(name).facts["state"] == "ended", "the end")
    words = ("run", "-n", name, "--", "sh", "-c", line)
    assert world.run(*words, check=7).stdout == b"result\r\n"
    assert runs() == 1                              # the result, not a second build
    assert world.run(*words, check=7).stdout == b"result\r\n"
    assert runs() == 2                              # that one had been collected


def test_an_end_that_wait_has_fetched_is_not_replayed(world, pg, name, tmp_path):
    line, runs = counting(tmp_path, "exit 0")
    world.run("start", "-n", name, "--", "sh", "-c", line, check=0)
    world.run("wait", name, check=0)
    world.run("run", "-n", name, "--", "sh", "-c", line, check=0)
    assert runs() == 2


def test_an_uncollected_end_is_mirrored_even_when_both_processes_have_died_since(tmp_path):
    with World() as world:
        line, runs = counting(tmp_path, "echo result; exit 7")
        with world.connect() as pg:
            world.run("start", "-n", "job", "--", "sh", "-c", line, check=0)
            wait_until(lambda: pg.session("job").facts["state"] == "ended", "the end")
        world.kill_daemon()
        world.run("ls", check=0)                    # another daemon, and the output is there
        guard = world.guard_pid()
        world.run("daemon", "stop", check=0)
        wait_until(lambda: not is_alive(guard), "the guard's end")
        done = world.run("run", "-n", "job", "--", "sh", "-c", line, check=7)
        assert runs() == 1
        assert b"not kept" in done.stderr           # the output was memory


def test_another_command_under_a_live_name_is_refused_and_under_an_ended_one_begins(
        world, pg, name):
    pg.start(["sleep", "1000"], name)
    done = world.run("run", "-n", name, "--", "sleep", "1001", check=4)
    assert f"session exists: {name}".encode() in done.stderr
    pg.session(name).kill(0.2)
    assert world.run("run", "-n", name, "--", "echo", "other", check=0).stdout == b"other\r\n"


def test_ten_runs_of_one_name_at_once_are_one_session_and_all_tell_its_status(
        world, pg, name, tmp_path, gate):
    # What used to happen: who came while it was being started was told that its output
    # is not kept.
    line, runs = counting(tmp_path, f"echo begin; cat {gate}; echo end; exit 3")
    clients = [run_in_background(world, "-n", name, "--", "sh", "-c", line) for _ in range(10)]
    session = begun(pg, name)
    has_clients(session, 10)
    open_gate(gate)
    for client in clients:
        assert finish(client) == (3, b"begin\r\nend\r\n", b"")
    assert runs() == 1


def test_rm_leaves_nothing_of_it(world, name):
    world.run("run", "--rm", "-n", name, "--", "sh", "-c", "exit 3", check=3)
    assert name.encode() not in world.run("ls", "-aq", check=0).stdout


def test_detached_it_is_start(world, name):
    done = world.run("run", "-d", "-n", name, "--", "sleep", "1000", check=0)
    assert done.stdout == name.encode() + b"\n"
    world.run("has", name, check=0)


# -- time, signals, jobs ---------------------------------------------------------------------------


def test_a_timeout_is_124_and_the_whole_tree_is_ended(world, pg, name):
    program = "setsid sleep 1000 & echo pid $!; sleep 1001 & echo pid $!; wait"
    done = world.run("run", "-n", name, "--timeout", "1s", "--json", "--", "sh", "-c", program,
                     check=124)
    pids = [int(pid) for pid in re.findall(rb"pid (\d+)", done.stdout)]
    assert len(pids) == 2 and not any(map(is_alive, pids))
    told = [json.loads(line) for line in done.stderr.splitlines()]
    assert any(each.get("timed_out") for each in told)
    assert pg.session(name).facts["state"] == "ended"


def test_an_interrupt_that_reaches_the_client_is_meant_for_the_program(world, pg, name):
    # No shell: one that forks just then was seen to miss it.
    # No print: a handler that meets one must not print itself.
    program = ("import os, signal, sys\n"
               "signal.signal(signal.SIGINT, lambda *_: (os.write(1, b'interrupted\\n'), sys.exit(8)))\n"
               "os.write(1, b'ready\\n')\nsignal.pause()")
    process = run_in_background(world, "-n", name, "--", sys.executable, "-I", "-S", "-c", program)
    begun(pg, name).wait_for(b"ready", LIMIT_S)
    is_at_work(pg.session(name))
    process.send_signal(signal.SIGINT)
    assert finish(process) == (8, b"ready\r\ninterrupted\r\n", b"")
    process = run_in_background(world, "-n", "2" + name[1:], "--", "sleep", "1000")
    is_at_work(begun(pg, "2" + name[1:]))
    process.send_signal(signal.SIGINT)
    assert finish(process)[0] == 130


@pytest.mark.parametrize("shell", ["sh", "bash"])
def test_in_the_background_of_a_script_it_works_and_an_interrupt_for_others_is_not_its(
        world, pg, name, gate, shell):
    # A shell without job control starts `cmd &` with SIGINT ignored: Ctrl-C ends the script.
    line = f'"$@" & echo "pid $!"; wait $!; echo "status $?"'
    process = subprocess.Popen(
        [shell, "-c", line, shell] + world.program + [
            "run", "-n", name, "--", "sh", "-c", f"echo begin; cat {gate}; echo end; exit 6"],
        env=world.env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
    world._started.append(process)
    session = begun(pg, name)
    is_at_work(session)
    client = session.info()["viewers"][0]["pid"]
    os.kill(client, signal.SIGINT)
    os.kill(client, signal.SIGQUIT)
    open_gate(gate)
    out, _ = process.communicate(timeout=LIMIT_S)
    assert out == b"pid %d\nbegin\r\nend\r\nstatus 6\n" % client


def test_under_nohup_a_hangup_does_not_end_it(world, pg, name, gate):
    process = subprocess.Popen(
        ["nohup"] + world.program + ["run", "-n", name, "--", "sh", "-c",
                                     f"cat {gate}; echo end; exit 6"],
        env=world.env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    world._started.append(process)
    is_at_work(begun(pg, name))
    process.send_signal(signal.SIGHUP)
    open_gate(gate)
    assert finish(process)[:2] == (6, b"end\r\n")


def test_command_substitution_gets_the_output_and_start_does_not_hold_it_open(world, name):
    line = ('x=$("$@" run -- echo hello); printf "[%s]" "$x"; '
            'y=$("$@" start -n "$NAME" -- sleep 1000); printf "[%s]" "$y"')
    done = subprocess.run(["sh", "-c", line, "sh"] + world.program, env=dict(world.env, NAME=name),
                          stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, timeout=LIMIT_S)
    assert done.stdout == b"[hello\r][%s]" % name.encode()


@pytest.mark.parametrize("idler", ["sleep 1000", "yes"])
def test_a_grandchild_that_keeps_the_terminal_open_or_floods_does_not_delay_the_end(
        world, name, gate, idler):
    program = f"(trap '' HUP; : >{gate}; exec {idler}) & echo pid $!; cat {gate}; exit 3"
    done = world.run("run", "-n", name, "--", "sh", "-c", program, check=3)
    pid = int(re.search(rb"pid (\d+)", done.stdout).group(1))
    try:
        if idler == "yes":              # its terminal is gone: writing fails
            wait_until(lambda: not is_alive(pid), "the end of yes")
        else:
            assert is_alive(pid)        # it asked to outlive the hang-up
    finally:
        if is_alive(pid):
            os.kill(pid, signal.SIGKILL)


# -- in a terminal ---------------------------------------------------------------------------------


def test_in_a_terminal_ctrl_c_is_the_programs_and_the_status_is_mirrored(world):
    program = "trap 'echo interrupted; exit 8' INT; echo ready; while :; do read x; done"
    terminal = world.terminal("run", "--", "sh", "-c", program)
    terminal.expect(b"ready")
    terminal.send(b"\x03")
    terminal.expect(b"interrupted")
    assert terminal.wait() == 8


def test_in_a_terminal_the_detach_key_is_75_and_the_terminal_is_as_before(world, pg, name):
    import termios
    terminal = world.terminal("run", "-n", name, "--", "sh", "-c", "echo ready; exec cat",
                              size=(91, 31))
    terminal.expect(b"ready")
    assert pg.session(name).facts["size"] == {"cols": 91, "rows": 31}
    terminal.send(b"typed\n")
    terminal.expect(b"typed\r\ntyped")
    terminal.send(b"\x1c")
    terminal.expect(rb"\[detached \(from session " + name.encode())
    assert terminal.wait() == 75
    assert termios.tcgetattr(terminal.slave) == terminal.settings
    assert pg.session(name).facts["state"] == "running"
    again = world.terminal("run", "-n", name, "--", "sh", "-c", "echo ready; exec cat")
    again.expect(b"typed.*typed")
    again.send(b"\x04")
    assert again.wait() == 0


def test_with_output_in_a_pipe_the_terminal_still_types(world, name):
    # `ptyguard run -- make | tee log`, typed at a prompt.
    line = '"$@" | tr a-z A-Z; echo "[end]"'
    terminal = world.terminal("run", "-n", name, "--", "sh", "-c",
                              "echo ready; read x; echo got $x",
                              program=["bash", "-c", line, "bash"] + world.program)
    terminal.expect(b"READY")
    terminal.send(b"words\n")
    terminal.expect(b"GOT WORDS")
    terminal.expect(rb"\[end\]")
    assert terminal.wait() == 0


def test_as_a_background_job_of_an_interactive_shell_it_only_shows_output(world, pg, name, gate):
    terminal = world.terminal(program=["bash", "--norc", "--noprofile", "-i"],
                              env=dict(world.env, PS1="prompt> "))
    terminal.expect(b"prompt> ")
    words = shlex.join(world.program + ["run", "-n", name, "--", "sh", "-c",
                                        f"cat {gate}; echo from the job; exit 6"]) + " &"
    terminal.send(words.encode() + b"\n")
    session = begun(pg, name)
    is_at_work(session)
    terminal.send(b"echo $((70 + 7))\n")
    terminal.expect(b"\r77\r\n")                  # the terminal is the shell's
    open_gate(gate)
    terminal.expect(b"from the job")
    assert session.wait(LIMIT_S) == {"code": 6, "signal": None}
    terminal.send(b"wait %1; echo status $?\n")
    terminal.expect(rb"status 6\r\n")
    terminal.send(b"exit\n")
    terminal.wait()


def test_ended_while_attached_leaves_the_flags_of_the_open_file_alone(world):
    terminal = world.terminal("run", "--", "sh", "-c", "echo ready; read x")
    before = fcntl.fcntl(terminal.slave, fcntl.F_GETFL)
    terminal.expect(b"ready")
    assert fcntl.fcntl(terminal.slave, fcntl.F_GETFL) == before
    terminal.send(b"\n")
    assert terminal.wait() == 0
    assert fcntl.fcntl(terminal.slave, fcntl.F_GETFL) == before
