"""The command line as a process: words in; output, exit code and one clear message out.

C-101 to C-121 as far as a terminal is not needed; `run` and `attach` have files of their
own.  Most tests share one world and use names of their own in it.
"""

import json
import os
import re
import signal
import stat
import subprocess
import sys
import tempfile

import pytest

from world import LIMIT_S, MEMORY, ROOT, World, is_alive, wait_until

from ptyguard_core import errors

PYTHON = sys.executable
# For those who can be told "read everything that the terminal has, as bytes".
RAW_CAT = "stty raw -echo; echo ready; exec cat >"

SESSION_FIELDS = {
    "name": str, "id": str, "incarnation": int, "state": str, "pid": int, "pid_start": int,
    "argv": list, "cwd": str, "size": dict, "created_at": float, "ended_at": (float, type(None)),
    "exit": dict, "clients": int, "title": (str, type(None)), "offsets": (dict, type(None)),
    "labels": dict, "restart": str,
}


@pytest.fixture
def empty():
    """A world in which nothing runs yet."""
    with World(under=MEMORY) as made:
        yield made


def text_of(session):
    """All output so far."""
    return session.read()[1]


def said(done):
    """stderr of a command that failed: each line ours, none a traceback."""
    text = done.stderr.decode()
    assert text and all(line.startswith("ptyguard: ") for line in text.splitlines()), text
    return text


def sh(world, line, *args, program=None, **options):
    """`line` by the shell, in which "$@" is ptyguard and `args`."""
    options.setdefault("env", world.env)
    return subprocess.run(["sh", "-c", line, "sh"] + (program or world.program) + list(args),
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=LIMIT_S,
                          **options)


def is_stopped(pid):
    with open(f"/proc/{pid}/stat") as file:
        return file.read().rpartition(") ")[2][0] == "T"


def number(match, group=1):
    return int(match.group(group))


# -- start ---------------------------------------------------------------------------------------


def test_start_prints_the_name_alone_and_nothing_on_stderr(world, name):
    done = world.run("start", "-n", name, "--", "sleep", "1000", check=0)
    assert done.stdout == name.encode() + b"\n"
    assert done.stderr == b""


def test_a_session_without_a_name_gets_one_that_nobody_has(world, pg):
    first = world.run("start", "--", "sleep", "1000", check=0).stdout.decode().strip()
    second = world.run("start", "--", "sleep", "1000", check=0).stdout.decode().strip()
    assert first != second
    for made in (first, second):
        assert re.fullmatch("[A-Za-z0-9_][A-Za-z0-9._-]{0,63}", made)
        pg.session(made).kill(0.2)


def test_start_json_tells_the_session_and_that_it_was_created(world, name):
    done = world.run("start", "-n", name, "--json", "--", "sleep", "1000", check=0)
    told = json.loads(done.stdout)
    assert done.stdout.count(b"\n") == 1
    assert told["schema_version"] == 1 and told["created"] is True
    for field, kind in SESSION_FIELDS.items():
        assert isinstance(told[field], kind), field
    assert told["name"] == name and told["argv"] == ["sleep", "1000"]
    assert told["state"] == "running" and told["size"] == {"cols": 80, "rows": 24}
    assert told["exit"] == {"code": None, "signal": None}
    assert told["cwd"] == os.getcwd()
    assert is_alive(told["pid"])


def test_argv_arrives_as_it_was_given_whatever_it_holds(world, pg, name, tmp_path):
    out = tmp_path / "argv"
    code = ("import os, sys; "
            "open(sys.argv[1], 'w').write(repr([os.fsencode(a) for a in sys.argv[2:]]))")
    given = [b"", b"-x", b"--", b"--json", b"a  b", b"*", b"$HOME", b"'\"", b"\xff\xfe",
             b"new\nline",
             "\N{SNOWMAN}".encode()]
    done = world.run("start", "-n", name, "--", PYTHON, "-c", code, str(out), *given, check=0)
    assert pg.session(done.stdout.decode().strip()).wait(LIMIT_S) == {"code": 0, "signal": None}
    assert out.read_text() == repr(given)


def test_a_shell_sees_the_line_only_when_it_is_asked_for(world, pg, name):
    world.run("start", "-n", name, "--shell", "echo $((20 + 22)) | tr 4 5; exit 7", check=0)
    assert world.run("wait", name).returncode == 7
    assert b"52" in text_of(pg.session(name))
    world.run("start", "-n", name, "--", "echo", "$((20 + 22))", check=0)
    world.run("wait", name, check=0)
    assert b"$((20 + 22))" in text_of(pg.session(name))


def test_a_command_that_ends_at_once_is_a_result_and_its_output_and_status_are_kept(world, name):
    world.run("start", "-n", name, "--", "sh", "-c", "printf done; exit 9", check=0)
    assert world.run("wait", name).returncode == 9
    assert world.run("log", "--raw", name, check=0).stdout == b"done"
    assert world.run("wait", name).returncode == 9      # again, and as often as one likes


@pytest.mark.parametrize("argv, code, words", [
    (["/no/such/command"], 127, "command not found: /no/such/command"),
    (["no-such-command-anywhere"], 127, "command not found"),
    (["/etc/passwd"], 126, "Permission denied"),
    (["/"], 126, "cannot execute /"),
])
def test_a_command_that_cannot_run_says_why_and_leaves_nothing(world, name, argv, code, words):
    done = world.run("start", "-n", name, "--", *argv, check=code)
    assert words in said(done)
    assert done.stdout == b""
    assert name.encode() not in world.run("ls", "-a", "-q", check=0).stdout
    records = os.path.join(world.state, "sessions")
    for record in os.listdir(records):
        with open(os.path.join(records, record)) as file:
            assert name not in file.read()


def test_a_file_that_is_no_program_is_126_with_its_errno(world, name, tmp_path):
    program = tmp_path / "program"
    program.write_bytes(b"\x7fELF but not really")
    program.chmod(0o755)
    done = world.run("start", "-n", name, "--json", "--", str(program), check=126)
    error = json.loads(done.stderr)["error"]
    assert error["kind"] == "cannot_execute" and "Exec format error" in error["message"]


@pytest.mark.parametrize("make, words", [
    (lambda path: None, "No such file or directory"),
    (lambda path: path.write_text(""), "Not a directory"),
])
def test_a_directory_that_cannot_be_entered_is_a_typed_error(world, name, tmp_path, make, words):
    make(tmp_path / "there")
    done = world.run("start", "-n", name, "--cwd", str(tmp_path / "there"), "--", "true", check=126)
    assert words in said(done) and str(tmp_path / "there") in said(done)
    world.run("info", name, check=3)


def test_cwd_is_the_callers_or_the_given_one_also_when_relative(world, pg, name, tmp_path):
    inner = tmp_path / "inner"
    inner.mkdir()
    world.run("start", "-n", name, "--cwd", "inner", "--", "pwd", cwd=str(tmp_path), check=0)
    pg.session(name).wait(LIMIT_S)
    assert text_of(pg.session(name)).strip() == os.fsencode(str(inner))
    world.run("start", "-n", name, "--", "pwd", cwd=str(tmp_path), check=0)
    pg.session(name).wait(LIMIT_S)
    assert text_of(pg.session(name)).strip() == os.fsencode(str(tmp_path))


# -- what a session inherits -----------------------------------------------------------------------


def environment_of(world, pg, name, *options, env=None):
    """What `env` in a new session sees, as a dict."""
    with tempfile.TemporaryDirectory() as directory:
        out = os.path.join(directory, "env")
        world.run("start", "-n", name, *options, "--", "/bin/sh", "-c",
                  "exec /usr/bin/env -0 >" + out,
                  env=env, check=0)
        assert pg.session(name).wait(LIMIT_S)["code"] == 0
        with open(out, "rb") as file:
            return dict(item.split(b"=", 1) for item in file.read().split(b"\0")[:-1])


def test_the_environment_is_the_creators_less_what_is_not_the_sessions(world, pg, name):
    given = dict(world.env, MINE="yes", ODD="a=b\n\udcff", TMUX="/tmp/tmux,1,0", STY="1.pts",
                 ZELLIJ="0",
                 PTYGUARD_DETACH_KEY="C-x", PTYGUARD_SESSION="other",
                 PTYGUARD_SESSION_ID="aaaabbbb",
                 PTYGUARD_IDLE_EXIT="7", PTYGUARD_TEST_VERSION="0.0.1", PTYGUARD_DEV="", LINES="7",
                 COLUMNS="9", TERM="dumb")
    found = environment_of(world, pg, name, env=given)
    assert found[b"MINE"] == b"yes" and found[b"ODD"] == b"a=b\n\xff"
    assert found[b"TERM"] == b"xterm-256color"
    assert found[b"PTYGUARD_SESSION"] == name.encode()
    assert found[b"PTYGUARD_SESSION_ID"] == pg.session(name).id.encode()
    assert os.path.samefile(found[b"PTYGUARD_DIR"], world.env["PTYGUARD_DIR"])
    ours = {key for key in found if key.startswith(b"PTYGUARD")}
    assert ours == {b"PTYGUARD_SESSION", b"PTYGUARD_SESSION_ID", b"PTYGUARD_DIR"}
    assert not {b"TMUX", b"STY", b"ZELLIJ", b"LINES", b"COLUMNS"} & set(found)


def test_env_unset_and_clean_env_change_the_sessions_environment(world, pg, name):
    given = dict(world.env, GONE="1", KEPT="2", HOME="/somewhere")
    found = environment_of(world, pg, name, "--unset", "GONE", "--env", "NEW=x=y", "--env",
                           "EMPTY=",
                           env=given)
    assert b"GONE" not in found and found[b"KEPT"] == b"2"
    assert found[b"NEW"] == b"x=y" and found[b"EMPTY"] == b""
    found = environment_of(world, pg, name, "--clean-env", "--env", "NEW=1", env=given)
    assert b"KEPT" not in found and b"GONE" not in found
    assert found[b"HOME"] == b"/somewhere" and found[b"NEW"] == b"1" and b"PATH" in found


def test_umask_nice_and_soft_limits_are_the_creators(world, pg, name):
    line = 'umask 027; ulimit -S -n 123; ulimit -S -c 0; exec nice -n 3 "$@"'
    program = "umask; nice; ulimit -S -n; ulimit -H -n; ulimit -S -c"
    done = sh(world, line, "start", "-n", name, "--", "sh", "-c", program, stdin=subprocess.DEVNULL)
    assert done.returncode == 0, done.stderr
    pg.session(name).wait(LIMIT_S)
    umask, nice, soft, hard, core = text_of(pg.session(name)).split()
    assert int(umask, 8) == 0o027 and nice == b"3" and soft == b"123" and core == b"0"
    assert hard != b"123"


def test_a_child_starts_with_default_signals_an_empty_mask_and_three_descriptors(world, pg, name):
    # As `cmd &` in a shell without job control and `nohup` would start it, and with a stray
    # descriptor, as CI runners do.
    line = "trap '' INT QUIT HUP USR1; exec 7</dev/null; exec \"$@\""
    program = "grep -E '^Sig(Blk|Ign|Cgt)' /proc/self/status; ls -l /proc/self/fd"
    done = sh(world, line, "start", "-n", name, "--", "sh", "-c", program, stdin=subprocess.DEVNULL)
    assert done.returncode == 0, done.stderr
    pg.session(name).wait(LIMIT_S)
    output = text_of(pg.session(name)).decode()
    for field in ("SigBlk", "SigIgn"):
        mask = int(re.search(field + r":\s+([0-9a-f]+)\s", output).group(1), 16)
        # 32 and 33 are the C library's own; its posix_spawn leaves them ignored, and Python
        # (subprocess from 3.13 on uses that) cannot change them.
        assert mask & ~(0b11 << 31) == 0, output
    open_ones = set(re.findall(r" (\d+) -> (\S+)", output))
    assert {number for number, _ in open_ones} == {"0", "1", "2", "3"}      # 3: ls's own directory
    assert all(target.startswith("/dev/pts/") for number, target in open_ones if number != "3")


def test_without_a_command_the_login_shell_runs_as_one(world, pg, name):
    import pwd
    shell = pwd.getpwuid(os.getuid()).pw_shell
    if not os.access(shell, os.X_OK) or not shell.endswith("sh"):
        pytest.skip(f"the login shell here is {shell}")
    world.run("start", "-n", name, check=0)
    facts = pg.session(name).facts
    assert facts["argv"] == ["-" + os.path.basename(shell)]
    assert os.path.samefile(f"/proc/{facts['pid']}/exe", shell)


def test_the_terminal_has_its_size_before_the_program_runs(world, pg, name):
    world.run("start", "-n", name, "--size", "101x33", "--", "stty", "size", check=0)
    pg.session(name).wait(LIMIT_S)
    assert text_of(pg.session(name)).split() == [b"33", b"101"]
    world.run("start", "-n", name, "--size", "0x5", "--", "true", check=2)


# -- names and targets -----------------------------------------------------------------------------


@pytest.mark.parametrize("bad",
                         ["", ".hidden", "a b", "a/b", "x" * 65, "\N{SNOWMAN}", "a\nb", "-x", "@x",
                          "\udcff"])
def test_an_invalid_name_is_refused(pg, bad):
    with pytest.raises(errors.UsageError, match="not a valid session name") as raised:
        pg.start(["sleep", "1000"], bad)
    assert "1 to 64 characters of A-Z a-z 0-9 . _ -" in raised.value.hint


def test_the_rule_for_names_is_told_and_a_bad_one_shown_harmlessly(world):
    for bad in ("a\x1b[31m", "-x"):
        done = world.run("start", "--name=" + bad, "--", "sleep", "1000", check=2)
        assert "1 to 64 characters of A-Z a-z 0-9 . _ -" in said(done)
        assert b"\x1b" not in done.stderr
    assert "--name" in said(world.run("start", "--name=", "--", "sleep", "1000", check=2))


def test_the_longest_name_and_every_character_of_the_rule_are_taken(world, pg):
    long = "aZ09._-" + "x" * 57
    world.run("start", "-n", long, "--", "sleep", "1000", check=0)
    world.run("has", long, check=0)
    pg.session(long).kill(0.2)


def test_a_name_is_matched_whole_and_near_ones_are_only_offered(world, pg, name):
    world.run("start", "-n", name, "--", "sleep", "1000", check=0)
    for verb in (["info"], ["kill"], ["log"], ["wait"], ["send", "--enter"]):
        done = world.run(*verb, name[:-1], check=3)
        assert f"no such session: {name[:-1]}" in said(done)
        assert name in said(done)               # offered
    assert pg.session(name).facts["state"] == "running"


def test_an_id_names_a_session_anywhere(world, pg, name):
    id_ = pg.start(["sleep", "1000"], name).id
    assert world.json("info", "@" + id_)["name"] == name
    world.run("has", "@" + id_, check=0)
    world.run("info", "@zzzzzzzzzzzz", check=3)
    world.run("info", id_, check=3)             # without the @ it would be a name
    world.run("kill", "@" + id_, check=0)
    world.run("has", "@" + id_, check=1)


def test_without_a_name_the_session_one_is_in_is_meant_then_the_only_one(empty):
    done = empty.run("info", check=3)
    assert "no session lives" in said(done)
    with empty.connect() as pg:
        one = pg.start(["sleep", "1000"], "one")
        assert empty.json("info")["name"] == "one"
        two = pg.start(["sleep", "1000"], "two")
        done = empty.run("info", check=3)
        assert "one" in said(done) and "two" in said(done)
        inside = dict(empty.env, PTYGUARD_SESSION_ID=two.id, PTYGUARD_SESSION="whatever")
        assert empty.run("info", "--json", env=inside, check=0).stdout.count(b'"two"') >= 1
        assert json.loads(empty.run("info", "one", "--json", env=inside,
                                    check=0).stdout)["id"] == one.id
        # The id of another directory's session says nothing here.
        with World() as other:
            elsewhere = dict(inside, PTYGUARD_DIR=other.env["PTYGUARD_DIR"])
            empty.run("--dir", empty.env["PTYGUARD_DIR"], "info", env=elsewhere, check=3)
        for verb in ("kill", "rm"):             # what destroys takes no default at all
            assert "needs NAME" in said(empty.run(verb, env=inside, check=2))


def test_a_live_name_is_exists_and_nothing_is_started(world, pg, name):
    session = pg.start(["sleep", "1000"], name)
    done = world.run("start", "-n", name, "--", "sleep", "1", check=4)
    assert f"session exists: {name}" in said(done)
    assert pg.session(name).id == session.id
    assert pg.session(name).facts["argv"] == ["sleep", "1000"]


def test_an_ended_name_can_be_used_again_and_its_output_is_gone(world, pg, name):
    first = pg.start(["echo", "first"], name)
    first.wait(LIMIT_S)
    world.run("start", "-n", name, "--", "echo", "second", check=0)
    pg.session(name).wait(LIMIT_S)
    assert b"first" not in text_of(pg.session(name))
    assert b"second" in text_of(pg.session(name))
    assert pg.session(name).id != first.id
    world.run("info", "@" + first.id, check=3)


def test_an_ended_name_keeps_its_output_when_the_new_command_cannot_run(world, pg, name):
    pg.start(["echo", "kept"], name).wait(LIMIT_S)
    world.run("start", "-n", name, "--", "/no/such/command", check=127)
    assert b"kept" in text_of(pg.session(name))


def test_ensure_makes_it_once_and_says_which(world, pg, name):
    first = world.run("ensure", name, "--", "sleep", "1000", check=0)
    second = world.run("ensure", name, "--", "sleep", "1000", check=0)
    assert first.stdout == second.stdout == name.encode() + b"\n"
    told = json.loads(world.run("ensure", name, "--json", check=0).stdout)
    assert told["created"] is False and told["argv"] == ["sleep", "1000"]
    pg.session(name).kill(0.2)
    told = json.loads(world.run("ensure", name, "--json", "--", "sleep", "1000", check=0).stdout)
    assert told["created"] is True


def test_callers_of_ensure_at_once_with_an_empty_environment_make_one_session(world, pg, name):
    bare = {"PTYGUARD_DIR": world.env["PTYGUARD_DIR"]}
    callers = [world.popen("ensure", name, "--json", "--", "/bin/sleep", "1000", env=bare,
                           stdout=subprocess.PIPE, stderr=subprocess.PIPE) for _ in range(12)]
    told = []
    for caller in callers:
        out, err = caller.communicate(timeout=LIMIT_S)
        assert (caller.returncode, err) == (0, b"")
        told.append(json.loads(out))
    assert {each["id"] for each in told} == {pg.session(name).id}
    assert sum(each["created"] for each in told) == 1


# -- looking ---------------------------------------------------------------------------------------


def test_ls_of_nothing_is_success_and_an_empty_list(empty):
    done = empty.run("ls", check=0)
    assert done.stdout == b"" and "no sessions" in said(done)
    assert empty.json("ls") == {"sessions": [], "schema_version": 1}
    assert empty.run("ls", "-q", check=0).stdout == b""


def test_ls_tells_the_living_and_how_the_others_ended(empty):
    with empty.connect() as pg:
        living = pg.start(["sleep", "1000"], "living", size=(90, 30))
        pg.start(["sh", "-c", "exit 3"], "three").wait(LIMIT_S)
        pg.start(["sh", "-c", "kill -9 $$"], "killed").wait(LIMIT_S)
        lines = empty.run("ls", check=0).stdout.decode().splitlines()
        rows = {line.split()[0]: line for line in lines[1:]}
        assert lines[0].split() == ["NAME", "STATE", "PID", "SIZE", "AGE", "CLIENTS", "EXIT",
                                    "COMMAND"]
        assert list(rows) == ["living", "three", "killed"]
        assert re.search(rf"running +{living.facts['pid']} +90x30 .* sleep 1000$", rows["living"])
        assert "exit 3" in rows["three"] and "killed by SIGKILL" in rows["killed"]
        assert empty.run("list", "-q", check=0).stdout.split() == [b"living", b"three", b"killed"]
        told = {each["name"]: each for each in empty.json("ls", "-a")["sessions"]}
        assert told["three"]["exit"] == {"code": 3, "signal": None}
        assert told["killed"]["exit"] == {"code": None, "signal": "SIGKILL"}
        assert told["killed"]["pid"] and told["killed"]["ended_at"] >= told["killed"]["created_at"]
        for each in told.values():
            assert {field for field in SESSION_FIELDS} <= set(each)


def test_ls_passes_no_escape_sequence_of_a_command_to_the_terminal(world, pg, name):
    pg.start(["sh", "-c", ":", "\x1b]0;owned\x07\x1b[31m\udcff"], name).wait(LIMIT_S)
    for verb in (["ls"], ["info", name]):
        shown = world.run(*verb, check=0).stdout
        assert b"\x1b" not in shown and b"\x07" not in shown and b"owned" in shown
    assert world.json("info", name)["argv"][3] == "\x1b]0;owned\x07\x1b[31m\udcff"


def test_info_tells_what_the_session_is_doing(world, pg, name, tmp_path):
    session = pg.start(["bash", "--norc", "-i"], name, env=dict(os.environ, PS1="> "),
                       size=(90, 30))
    session.wait_for(rb"> ", LIMIT_S)
    told = world.json("info", name)
    assert told["foreground"]["busy"] is False and told["foreground"]["pid"] == told["pid"]
    session.send(f"cd {tmp_path}; sleep 1000".encode(), enter=True)
    wait_until(lambda: session.info()["foreground"]["command"] == "sleep",
               "sleep in the foreground")
    told = world.json("info", name)
    assert told["foreground"]["busy"] is True and told["foreground"]["argv"] == ["sleep", "1000"]
    assert os.path.samefile(told["cwd_now"], tmp_path)
    assert told["offsets"]["start"] == 0 and told["offsets"]["end"] > 0
    assert told["ring"]["bytes"] == 1 << 20
    assert told["environment"]["PTYGUARD_SESSION"] == name and told["viewers"] == []
    sheet = world.run("info", name, check=0).stdout.decode()
    for words in (f"name: {name}", "yes: sleep", "90x30", str(told["pid"]), "PTYGUARD_SESSION_ID"):
        assert re.search(re.escape(words).replace(r":\ ", r":\s+"), sheet), sheet


def test_has_answers_by_its_status_alone(world, pg, name):
    for code, prepare in ((1, lambda: None), (0, lambda: pg.start(["sleep", "1000"], name)),
                          (1, lambda: pg.session(name).kill(0.2))):
        prepare()
        done = world.run("has", name, check=code)
        assert done.stdout == b"" and done.stderr == b""


def test_looking_starts_no_daemon_when_it_must_not(empty):
    for verb in (["ls"], ["info", "x"], ["start", "--", "true"], ["send", "x", "y"]):
        done = empty.run("--no-start", *verb, check=6)
        assert "no daemon runs" in said(done)
    assert empty.run("status", check=1).stdout.startswith(b"daemon:     stopped")
    assert empty.json("status")["daemon"]["pid"] is None
    assert not os.path.exists(os.path.join(empty.state, "guard.lock"))


# -- output ----------------------------------------------------------------------------------------


def test_log_is_text_without_escapes_or_the_bytes_themselves(world, pg, name):
    pg.start(["printf", r"\033]0;t\007a\033[1;31mb\033[0m\r\nc\377\033(B"], name).wait(LIMIT_S)
    assert world.run("log", name, check=0).stdout == b"ab\nc\xff"
    assert world.run("log", "--raw", name, check=0).stdout == (
        b"\x1b]0;t\x07a\x1b[1;31mb\x1b[0m\r\r\nc\xff\x1b(B")


def test_log_tail_and_since_pick_what_is_shown(world, pg, name):
    pg.start(["seq", "1", "500"], name).wait(LIMIT_S)
    assert world.run("log", "--tail", "2", name, check=0).stdout == b"499\n500\n"
    assert world.run("log", "--tail", "0", name, check=0).stdout == b""
    assert world.run("log", "--raw", "--since", "3", "--tail", "9999", name,
                     check=0).stdout.startswith(b"2\r\n3")
    end = pg.session(name).facts["offsets"]["end"]
    assert world.run("log", "--raw", "--since", str(end - 5), name, check=0).stdout == b"500\r\n"


def test_log_says_what_is_gone_and_fails(world, pg, name):
    session = pg.start(["sh", "-c", "seq 1 60000"], name, scrollback=65536)
    session.wait(LIMIT_S)
    start, end = (session.info()["offsets"][key] for key in ("start", "end"))
    done = world.run("log", "--raw", "--since", "10", name, check=1)
    assert f"output 10 to {start} is gone" in said(done)
    assert len(done.stdout) == end - start and done.stdout.endswith(b"60000\r\n")
    assert world.run("log", "--raw", name, check=0).stdout == done.stdout


def test_log_follows_to_the_end_of_the_session_and_ends_with_it(world, pg, name):
    session = pg.start(["sh", "-c", "echo one; read x; echo two; read x; echo three; exit 3"], name,
                       echo=False)
    session.wait_for(b"one", LIMIT_S)
    follower = world.popen("log", "-f", "--raw", name, stdout=subprocess.PIPE,
                           stderr=subprocess.PIPE)
    wait_until(lambda: session.info()["viewers"] or follower.poll() is not None, "the follower")
    assert follower.poll() is None, follower.communicate()
    session.send(b"\n")
    session.wait_for(b"two", LIMIT_S)
    session.send(b"\n")
    out, err = follower.communicate(timeout=LIMIT_S)
    assert (follower.returncode, err) == (0, b"")
    assert out == b"one\r\ntwo\r\nthree\r\n"


def test_log_follow_with_tail_begins_there(world, pg, name):
    session = pg.start(["sh", "-c", "seq 1 50; read x; echo end"], name, echo=False)
    session.wait_for(b"50\n", LIMIT_S)
    follower = world.popen("log", "-f", "--tail", "2", name, stdout=subprocess.PIPE, bufsize=0)
    assert follower.stdout.readline() == b"49\n"
    session.send(b"\n")
    assert follower.communicate(timeout=LIMIT_S)[0] == b"50\nend\n"
    assert follower.returncode == 0


def test_log_that_follows_holds_the_program_for_its_time_and_then_says_what_it_missed(
        world, pg, name):
    # 3.6 MB are more than pipe, socket and ring take.
    session = pg.start(["sh", "-c", "stty -echo; echo ready; read x; exec seq 500000"], name)
    session.wait_for(b"ready", LIMIT_S)
    follower = world.popen("log", "-f", "--raw", "--hold", "100ms", name, bufsize=0,
                           stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert follower.stdout.readline() == b"ready\r\n"
    session.send(b"\n")
    assert session.wait(LIMIT_S)["code"] == 0       # nobody reads there, and it ended all the same
    out, err = follower.communicate(timeout=LIMIT_S)
    assert follower.returncode == 1
    told = re.fullmatch(r"ptyguard: output (\d+) to (\d+) of \S+ was overwritten before "
                        r"it could be written\n", err.decode())
    assert len(b"ready\r\n" + out) == number(told) < number(told, 2)
    assert b"".join(b"%d\r\n" % n for n in range(1, 500001)).startswith(out)


def test_log_that_follows_without_hurry_gets_everything_once_it_is_read(world, pg, name):
    session = pg.start(["sh", "-c", "stty -echo; echo ready; read x; exec seq 500000"], name)
    session.wait_for(b"ready", LIMIT_S)
    follower = world.popen("log", "-f", "--raw", name, bufsize=0, stdout=subprocess.PIPE,
                           stderr=subprocess.PIPE)
    assert follower.stdout.readline() == b"ready\r\n"
    session.send(b"\n")
    session.wait_for(b"1000\n", LIMIT_S)
    out, err = follower.communicate(timeout=LIMIT_S)
    assert (follower.returncode, err) == (0, b"")
    assert out == b"".join(b"%d\r\n" % n for n in range(1, 500001))


# -- waiting ---------------------------------------------------------------------------------------


def test_wait_mirrors_the_status_of_one_and_the_first_failure_of_several(world, pg, name):
    for suffix, program in (("a", "exit 0"), ("b", "exit 5"), ("c", "kill -TERM $$"),
                            ("d", "exit 0")):
        pg.start(["sh", "-c", program], name + suffix)
    assert world.run("wait", name + "a").returncode == 0
    assert world.run("wait", name + "c").returncode == 128 + signal.SIGTERM
    assert world.run("wait", name + "a", name + "c", name + "b").returncode == 143
    assert world.run("wait", name + "a", name + "b", name + "c").returncode == 5
    done = world.run("wait", "--json", name + "d", name + "b", name + "c")
    told = json.loads(done.stdout)
    assert done.returncode == 5 and told["schema_version"] == 1
    assert [each["exit"] for each in told["results"]] == [
        {"code": 0, "signal": None}, {"code": 5, "signal": None},
        {"code": None, "signal": "SIGTERM"}]
    told = json.loads(world.run("wait", "--json", name + "b").stdout)
    assert (told["name"], told["exit"], told["matched"], told["timed_out"]) == (
        name + "b", {"code": 5, "signal": None}, None, False)


def test_wait_that_times_out_is_124_and_kills_nothing(world, pg, name):
    pg.start(["sleep", "1000"], name)
    done = world.run("wait", "--timeout", "200ms", name, check=124)
    assert name in said(done)
    done = world.run("wait", "--timeout", "0", "--json", name, check=124)
    assert json.loads(done.stdout)["timed_out"] is True
    assert pg.session(name).facts["state"] == "running"
    # What has ended is no matter of time.
    pg.start(["sh", "-c", "exit 6"], name + "x").wait(LIMIT_S)
    assert world.run("wait", "--timeout", "0", name + "x").returncode == 6
    told = json.loads(world.run("wait", "--timeout", "100ms", "--json", name, name + "x",
                                check=124).stdout)
    assert [each["timed_out"] for each in told["results"]] == [True, False]


def test_wait_for_finds_what_is_kept_and_what_spans_reads(world, pg, name):
    session = pg.start(["sh", "-c", "printf hel; read x; printf lo; read x"], name, echo=False)
    session.wait_for(b"hel", LIMIT_S)
    world.run("wait", name, "--for", "h.l", check=0)
    waiter = world.popen("wait", name, "--for", "hello", "--json", stdout=subprocess.PIPE)
    wait_until(lambda: pg.status()["clients"] >= 3,
               "the waiter")     # its two connections, and ours
    session.send(b"\n")
    out, _ = waiter.communicate(timeout=LIMIT_S)
    assert waiter.returncode == 0
    assert json.loads(out)["matched"] == "hello"


def test_wait_for_sees_text_without_escapes_unless_it_wants_the_bytes(world, pg, name):
    pg.start(["sh", "-c", r"printf 'a\033[31mb\033[0m\r\nc'; read x"], name)
    world.run("wait", name, "--for", r"ab\nc", check=0, timeout=LIMIT_S)
    world.run("wait", name, "--raw", "--for", r"a\x1b\[31mb", check=0)
    world.run("wait", name, "--raw", "--for", "ab", "--timeout", "100ms", check=124)
    assert "not a regular expression" in said(world.run("wait", name, "--for", "(", check=2))


def test_send_then_wait_since_its_offset_does_not_match_an_old_prompt(world, pg, name):
    session = pg.start(["bash", "--norc", "--noediting", "-i"], name,
                       env=dict(os.environ, PS1="ready> "))
    session.wait_for(b"ready> ", LIMIT_S)
    sent = json.loads(world.run("send", name, "--json", "--enter", "echo $((40 + 2)); read x",
                                check=0).stdout)
    assert sent["name"] == name and sent["written"] == len("echo $((40 + 2)); read x") + 1
    assert sent["offset"] == session.read()[1].index(b"ready> ") + len("ready> ")
    since = str(sent["offset"])
    world.run("wait", name, "--for", "\n42\n", "--since", since, check=0)
    # The prompt stands before the offset only: without --since it is found, with it not.
    world.run("wait", name, "--for", "ready> ", check=0)
    world.run("wait", name, "--for", "ready> ", "--since", since, "--timeout", "200ms", check=124)
    world.run("send", name, "--enter", "x", check=0)
    world.run("wait", name, "--for", "ready> ", "--since", since, check=0)


def test_wait_since_now_looks_at_what_comes_only(world, pg, name):
    session = pg.start(["sh", "-c", "while read x; do echo got $x; done"], name, echo=False)
    session.send(b"old\n")
    session.wait_for(b"got old", LIMIT_S)
    world.run("wait", name, "--for", "got old", "--since", "now", "--timeout", "200ms", check=124)
    waiter = world.popen("wait", name, "--for", "got .*", "--since", "now", "--json",
                         stdout=subprocess.PIPE)
    wait_until(lambda: pg.status()["clients"] >= 3, "the waiter")
    # It has connected; that it has begun to follow shows itself by the match only.
    def matched():
        session.send(b"new\n")
        return waiter.poll() is not None
    wait_until(matched, "the match")
    assert json.loads(waiter.stdout.read())["matched"].startswith("got new")


def test_wait_for_a_text_that_never_came_is_1_when_the_session_ends(world, pg, name):
    pg.start(["sh", "-c", "echo hello; exit 7"], name)
    done = world.run("wait", name, "--for", "never", check=1)
    assert "ended before the text came" in said(done)
    done = world.run("wait", name, "--for", "never", "--json", check=1)
    assert json.loads(done.stderr)["error"]["kind"]


def test_wait_idle_returns_when_it_is_quiet_or_over(world, pg, name):
    session = pg.start(["sh", "-c", "read x; while :; do echo noise; sleep 0.05; done"], name)
    told = json.loads(world.run("wait", name, "--idle", "100ms", "--json", check=0).stdout)
    assert told["exit"] is None and told["timed_out"] is False
    session.send(b"\n")
    session.wait_for(b"noise", LIMIT_S)
    world.run("wait", name, "--idle", "30s", "--timeout", "500ms", check=124)
    session.kill(0.2)
    told = json.loads(world.run("wait", name, "--idle", "50s", "--json", check=0).stdout)
    assert told["exit"]["signal"] == "SIGHUP"


# -- typing ----------------------------------------------------------------------------------------


def raw_cat(pg, name, path):
    session = pg.start(["sh", "-c", RAW_CAT + '"$0"', str(path)], name)
    session.wait_for(b"ready", LIMIT_S)
    return session


def wait_for_bytes(path, wanted):
    wait_until(lambda: path.stat().st_size >= len(wanted), f"{len(wanted)} bytes in {path}")
    assert path.read_bytes() == wanted


def test_send_types_the_words_joined_by_single_blanks_and_nothing_else(world, pg, name, tmp_path):
    out = tmp_path / "out"
    raw_cat(pg, name, out)
    world.run("send", name, "a", "b  c", "", "$HOME", check=0)
    world.run("send", name, "--", "-x", "--enter", check=0)
    world.run("send", name, "--enter", "end", check=0)
    world.run("send", name, "--enter", check=0)
    world.run("send", name, os.fsdecode(b"\xff\xfe\x00"[:2]), check=0)
    wait_for_bytes(out, b"a b  c  $HOME" + b"-x --enter" + b"end\r" + b"\r" + b"\xff\xfe")
    assert "unknown option" in said(world.run("send", name, "-x", check=2))


def test_send_of_a_megabyte_from_stdin_arrives_whole(world, pg, name, tmp_path):
    out = tmp_path / "out"
    raw_cat(pg, name, out)
    data = os.urandom(1 << 20)
    done = world.run("send", name, "-", "--json", input=data, check=0)
    assert json.loads(done.stdout)["written"] == len(data)
    wait_for_bytes(out, data)


def test_sends_to_one_session_never_mix(world, pg, name, tmp_path):
    out = tmp_path / "out"
    raw_cat(pg, name, out)
    senders = [world.popen("send", name, "-", stdin=subprocess.PIPE) for _ in range(6)]
    blocks = [bytes([65 + n]) * 100000 for n in range(6)]
    for sender, block in zip(senders, blocks):
        sender.stdin.write(block)
        sender.stdin.close()
    for sender in senders:
        assert sender.wait(LIMIT_S) == 0
    wait_until(lambda: out.stat().st_size == 600000, "all of it")
    found = out.read_bytes()
    assert sorted(found[at:at + 100000] for at in range(0, 600000, 100000)) == blocks


def test_send_to_a_program_that_does_not_read_gives_up_and_knows_how_far_it_came(
        world, pg, name, tmp_path):
    go, out = tmp_path / "go", tmp_path / "out"
    os.mkfifo(go)
    program = f"stty raw -echo; echo ready; cat {go} >/dev/null; exec cat >{out}"
    session = pg.start(["sh", "-c", program], name)
    session.wait_for(b"ready", LIMIT_S)
    data = b"".join(b"%08d\n" % n for n in range(400000))
    done = world.run("send", name, "-", "--timeout", "2s", input=data, check=124)
    written = number(re.search(r"sent (\d+) of 3600000 bytes", said(done)))
    assert 0 < written < len(data)
    # It reads at last: what was said to be typed, then the next send, and nothing between.
    go.write_bytes(b"")
    world.run("send", name, "END", check=0)
    wait_for_bytes(out, data[:written] + b"END")


def test_a_sender_that_is_killed_frees_the_way_for_the_next(world, pg, name, tmp_path):
    go, out = tmp_path / "go", tmp_path / "out"
    os.mkfifo(go)
    session = pg.start(["sh", "-c",
                        f"stty raw -echo; echo ready; cat {go} >/dev/null; exec cat >{out}"], name)
    session.wait_for(b"ready", LIMIT_S)
    sender = world.popen("send", name, "-", stdin=subprocess.PIPE)
    with pytest.raises(BlockingIOError):
        os.set_blocking(sender.stdin.fileno(), False)
        while True:
            os.write(sender.stdin.fileno(), b"x" * 65536)
    # Its stdin has no end yet, so nothing is typed; with an end it is on its way.
    os.set_blocking(sender.stdin.fileno(), True)
    sender.stdin.write(b"x" * 3000000)
    sender.stdin.close()
    wait_until(lambda: session.info()["input_queued"] > 0, "input that waits")
    sender.kill()
    wait_until(lambda: session.info()["input_queued"] == 0, "the dropped rest")
    go.write_bytes(b"")
    world.run("send", name, "END", check=0)
    wait_until(lambda: out.exists() and out.read_bytes().endswith(b"END"), "the next send")
    assert set(out.read_bytes()[:-3]) <= {ord("x")}


def test_input_sent_before_the_program_is_ready_is_kept_in_order(world, pg, name, tmp_path):
    go = tmp_path / "go"
    os.mkfifo(go)
    session = pg.start(["sh", "-c", f"cat {go} >/dev/null; while read x; do echo got $x; done"],
                       name, echo=False)
    for word in ("one", "two", "three"):
        world.run("send", name, "--enter", word, check=0)
    go.write_bytes(b"")
    session.wait_for(rb"got one\ngot two\ngot three\n", LIMIT_S)


def test_send_to_nobody_is_3(world, pg, name):
    assert "no such session" in said(world.run("send", name, "x", check=3))
    pg.start(["true"], name).wait(LIMIT_S)
    assert "it has ended" in said(world.run("send", name, "x", check=3))


# -- resize ----------------------------------------------------------------------------------------


def test_resize_tells_the_program(world, pg, name):
    session = pg.start(["sh", "-c", "trap 'stty size' WINCH; echo ready; while :; do read x; done"],
                       name)
    session.wait_for(b"ready", LIMIT_S)
    world.run("resize", name, "132x43", check=0)
    session.wait_for(b"43 132", LIMIT_S)
    assert world.json("info", name)["size"] == {"cols": 132, "rows": 43}
    for bad in ("0x5", "5", "80x", "80x24x3", "70000x10", "axb", "-3x4"):
        world.run("resize", name, bad, check=2)
    assert world.json("info", name)["size"] == {"cols": 132, "rows": 43}


# -- ending ----------------------------------------------------------------------------------------


def test_kill_ends_it_and_output_and_status_stay(world, pg, name):
    pg.start(["sh", "-c", "echo said; exec sleep 1000"], name).wait_for(b"said", LIMIT_S)
    done = world.run("kill", name, "--json", check=0)
    assert json.loads(done.stdout)["results"][0]["exit"] == {"code": None, "signal": "SIGHUP"}
    assert world.run("wait", name).returncode == 129
    assert world.run("log", name, check=0).stdout == b"said\n"
    world.run("kill", name, check=0)                # it is dead already: success
    assert f"no such session: {name}x" in said(world.run("kill", name + "x", check=3))


def test_kill_ends_what_ignores_hangup_and_term(world, pg, name):
    session = pg.start(["sh", "-c", "trap '' HUP TERM; echo ready; while :; do sleep 1000; done"],
                       name)
    session.wait_for(b"ready", LIMIT_S)
    world.run("kill", name, "--grace", "300ms", check=0)
    assert not is_alive(session.facts["pid"])
    assert world.run("wait", name).returncode == 137


def test_kill_reaches_descendants_that_left_the_session_and_those_that_are_stopped(world, pg, name):
    program = ("setsid sh -c 'echo away $$; trap \"\" HUP TERM; while :; do sleep 1000; done' & "
               "sh -c 'echo stopped $$; kill -STOP $$' & "
               "sh -c 'sleep 1000 & echo child $!; wait' & exec sleep 1000")
    session = pg.start(["sh", "-c", program], name)
    pids = [number(session.wait_for(word + rb" (\d+)\n", LIMIT_S))
            for word in (b"away", b"stopped", b"child")]
    wait_until(lambda: is_stopped(pids[1]), "the stop")
    world.run("kill", name, "--grace", "500ms", check=0)
    assert [pid for pid in pids if is_alive(pid)] == []


def test_kill_lets_an_interactive_shell_end_by_hangup_at_once(world, pg, name):
    session = pg.start(["bash", "--norc", "-i"], name, env=dict(os.environ, PS1="> "))
    session.wait_for(b"> ", LIMIT_S)
    world.run("kill", name, "--grace", "50s", check=0, timeout=45)
    assert world.json("info", name)["exit"]["signal"] == "SIGHUP"


def test_kill_with_a_signal_sends_that_and_nothing_else(world, pg, name):
    session = pg.start(["sh", "-c", "trap 'echo usr1' USR1; echo ready; while :; do read x; done"],
                       name)
    session.wait_for(b"ready", LIMIT_S)
    world.run("kill", name, "--signal", "USR1", check=0)
    session.wait_for(b"usr1", LIMIT_S)
    assert session.info()["state"] == "running"
    assert "no such signal" in said(world.run("kill", name, "--signal", "NOPE", check=2))


def test_kill_of_several_goes_on_after_a_failure_and_tells_each(world, pg, name):
    for suffix in "ab":
        pg.start(["sleep", "1000"], name + suffix)
    done = world.run("kill", name + "a", name + "none", name + "b", check=3)
    assert "no such session" in said(done)
    assert {pg.session(name + suffix).facts["state"] for suffix in "ab"} == {"ended"}


def test_kill_all_ends_every_living_session(empty):
    with empty.connect() as pg:
        for name in ("a", "b", "c"):
            pg.start(["sleep", "1000"], name)
        empty.run("kill", "--all", check=0)
        assert {session.facts["state"] for session in pg.sessions()} == {"ended"}
        empty.run("kill", "--all", check=0)         # nobody is left: success


def test_rm_ends_and_forgets(world, pg, name):
    session = pg.start(["sleep", "1000"], name)
    world.run("rm", name, check=0)
    assert not is_alive(session.facts["pid"])
    world.run("info", name, check=5)
    pg.start(["true"], name).wait(LIMIT_S)          # an explicit start takes it
    world.run("rm", name, check=0)
    assert name.encode() not in world.run("ls", "-aq", check=0).stdout


def test_rm_ended_leaves_the_living(empty):
    with empty.connect() as pg:
        pg.start(["sleep", "1000"], "living")
        pg.start(["true"], "one").wait(LIMIT_S)
        pg.start(["false"], "two").wait(LIMIT_S)
        empty.run("rm", "--ended", check=0)
        assert [session.name for session in pg.sessions()] == ["living"]


def test_what_has_ended_is_known_after_both_processes_died_and_its_output_after_one(empty):
    with empty.connect() as pg:
        pg.start(["sh", "-c", "echo output; exit 11"], "ended").wait(LIMIT_S)
    empty.kill_daemon()
    assert empty.run("log", "ended", check=0).stdout == b"output\n"
    assert empty.run("wait", "ended").returncode == 11
    guard = empty.guard_pid()
    empty.run("daemon", "stop", check=0)
    wait_until(lambda: not is_alive(guard), "the guard's end")
    assert empty.run("wait", "ended").returncode == 11
    done = empty.run("log", "ended", check=1)
    assert "not kept" in said(done)


# -- whatever a program does -----------------------------------------------------------------------


def test_output_without_a_newline_is_output(world, pg, name):
    session = pg.start(["sh", "-c", "head -c 3000000 /dev/zero | tr '\\0' x; exit 5"], name)
    assert session.wait(LIMIT_S) == {"code": 5, "signal": None}
    start, end = (session.info()["offsets"][key] for key in ("start", "end"))
    assert end == 3000000
    assert world.run("log", "--tail", "1", name, check=0).stdout == b"x" * (end - start)
    with open(f"/proc/{world.daemon_pid()}/status") as status:
        assert number(re.search(r"VmRSS:\s+(\d+)", status.read())) < 100 * 1024


def test_a_program_that_lets_go_of_its_terminal_lives_on_and_its_end_is_known(
        world, pg, name, tmp_path):
    go = tmp_path / "go"
    os.mkfifo(go)
    program = f"echo words; exec <{go} >/dev/null 2>&1; read x; exit 6"
    session = pg.start(["sh", "-c", program], name)
    session.wait_for(b"words", LIMIT_S)
    assert world.json("info", name)["state"] == "running"
    world.run("resize", name, "90x30", check=0)
    go.write_bytes(b"\n")
    assert session.wait(LIMIT_S) == {"code": 6, "signal": None}
    assert text_of(session) == b"words\r\n"


def test_a_program_that_stops_itself_is_listed_and_can_be_ended(world, pg, name):
    session = pg.start(["sh", "-c", "echo ready; kill -STOP $$; sleep 1000"], name)
    session.wait_for(b"ready", LIMIT_S)
    wait_until(lambda: is_stopped(session.facts["pid"]), "the stop")
    assert world.json("info", name)["state"] == "running"
    world.run("send", name, "kept for later", check=0)
    world.run("kill", name, check=0)
    assert not is_alive(session.facts["pid"])


def test_a_thousand_forks_and_an_end_at_once_are_one_end(pg, name):
    session = pg.start(["sh", "-c",
                        "i=0; while [ $i -lt 1000 ]; do : & i=$((i + 1)); done; wait; "
                        "echo all; exit 3"], name)
    assert session.wait(LIMIT_S) == {"code": 3, "signal": None}
    assert text_of(session) == b"all\r\n"


# -- streams, directories, environments ------------------------------------------------------------


@pytest.fixture(scope="module")
def two_sessions(world, pg):
    pg.start(["sleep", "1000"], "streams")
    pg.start(["sh", "-c", "echo over; exit 3"], "streams-over").wait(LIMIT_S)


QUICK_VERBS = [
    (0, ["ls"]), (0, ["info", "streams"]), (0, ["has", "streams"]), (0, ["send", "streams", "x"]),
    (0, ["send", "streams", "-"]), (0, ["key", "streams", "Up"]), (0, ["log", "streams"]), (3, ["wait", "streams-over"]),
    (0, ["resize", "streams", "81x25"]), (0, ["ensure", "streams"]),
    (4, ["start", "-n", "streams"]),
    (0, ["status"]), (0, ["version"]), (125, ["attach", "streams"]), (0, ["detach", "streams"]),
    (0, ["kill", "streams-over"]), (0, ["help"]), (0, ["start", "--", "true"]),
    (3, ["run", "--", "sh", "-c", "exit 3"]),
]


def check_all(world, line, verbs, **variables):
    for code, verb in verbs:
        done = sh(world, line, *verb, env=dict(world.env, **variables), stdin=subprocess.DEVNULL)
        assert done.returncode == code, (line, verb, done)
        assert b"Traceback" not in done.stderr and b"Exception" not in done.stderr


@pytest.mark.parametrize("line", ['"$@" <&-', '"$@"', '"$@" <"$FILE"', 'echo | "$@"'])
def test_whoever_looks_at_stdin_takes_none_the_null_device_a_file_and_a_pipe(
        world, two_sessions, tmp_path, line):
    (tmp_path / "file").write_text("")
    check_all(world, line,
              [each for each in QUICK_VERBS if each[1][0] in ("send", "run", "attach", "ls")],
              FILE=str(tmp_path / "file"))


def test_every_verb_works_with_all_three_streams_closed(world, two_sessions):
    check_all(world, '"$@" >&- 2>&- <&-',
              QUICK_VERBS + [(0, ["ls", "--json"]), (0, ["info", "streams", "--json"]),
                             (3, ["info", "none"])])


@pytest.mark.parametrize("streams", [">&-", "2>&-"])
def test_a_verb_works_with_one_output_closed(world, two_sessions, streams):
    check_all(world, '"$@" ' + streams,
              QUICK_VERBS[:2] + QUICK_VERBS[-3:] + [(3, ["info", "none", "--json"])])


def test_a_reader_that_has_gone_ends_a_verb_quietly(world, two_sessions):
    for verb in (["ls"], ["log", "streams-over"], ["info", "streams", "--json"], ["help"]):
        read_end, write_end = os.pipe()
        os.close(read_end)
        done = world.run(*verb, stdout=write_end)
        os.close(write_end)
        assert done.returncode == 141 and done.stderr == b"", verb


def test_a_full_disk_behind_stdout_is_one_clear_sentence(world, two_sessions):
    for verb in (["ls"], ["log", "streams-over"], ["info", "streams"], ["help"]):
        with open("/dev/full", "wb") as full:
            done = world.run(*verb, stdout=full, check=1)
        assert "No space left on device" in said(done), verb


def test_a_stdout_that_cannot_show_a_character_gets_it_escaped(world, pg, name):
    pg.start(["sh", "-c", ":", "\N{SNOWMAN}"], name).wait(LIMIT_S)
    done = world.run("ls", env=dict(world.env, PYTHONIOENCODING="ascii"), check=0)
    assert b"\\u2603" in done.stdout


def test_any_directory_will_do_also_one_that_is_gone(world, two_sessions, tmp_path):
    gone = tmp_path / "gone"
    line = f'mkdir {gone}; cd {gone}; rmdir {gone}; exec "$@"'
    # The script, since `python3.13 -c` cannot import in such a place (cpython 3.13.0).
    script = {"program": [PYTHON, os.path.join(ROOT, "ptyguard.py")], "stdin": subprocess.DEVNULL}
    for code, verb in QUICK_VERBS[:10] + [(0, ["start", "--cwd", "/", "--", "true"])]:
        done = sh(world, line, *verb, **script)
        # ensure may have to start it, and a new session would begin there.
        assert done.returncode == (1 if verb[0] == "ensure" else code), (verb, done)
    done = sh(world, line, "start", "--", "true", **script)
    assert done.returncode == 1 and "current directory does not exist" in said(done)
    done = sh(world, f'PTYGUARD_DIR=relative; export PTYGUARD_DIR; {line}', "ls", **script)
    assert done.returncode != 0 and said(done)


def test_an_empty_environment_finds_the_same_sessions(world, two_sessions):
    bare = {"PTYGUARD_DIR": world.env["PTYGUARD_DIR"]}
    assert b"streams" in world.run("ls", "-q", env=bare, check=0).stdout
    done = sh(world, 'exec env -i "$@"', "--dir", world.env["PTYGUARD_DIR"], "run", "--", "sh",
              "-c",
              "echo $TERM", stdin=subprocess.DEVNULL)
    assert (done.returncode, done.stdout) == (0, b"xterm-256color\r\n")


def test_the_directory_is_the_same_by_every_name(world, two_sessions, tmp_path):
    directory = world.env["PTYGUARD_DIR"]
    link = tmp_path / "link"
    link.symlink_to(directory)
    parent, last = os.path.split(directory)
    for spelled, cwd in ((directory + "/", None), (str(link), None), (last, parent),
                         ("./" + last + "/../" + last, parent)):
        done = world.run("ls", "-q", env=dict(world.env, PTYGUARD_DIR=spelled), cwd=cwd, check=0)
        assert b"streams" in done.stdout, spelled


def all_verbs():
    sys.path.insert(0, ROOT)
    from ptyguard_core.usage import VERBS
    words = {"info": ["x"], "has": ["x"], "send": ["x", "y"], "log": ["x"], "wait": ["x"],
             "kill": ["x"], "key": ["x", "y"], "new": ["-d"], "rename": ["x", "y"], "restart": ["x"],
             "rm": ["x"], "reconcile": ["--live", "x"], "resize": ["x", "80x24"], "ensure": ["x"],
             "attach": ["x"], "record": ["x", "y.cast"],
             "detach": ["x"],
             "run": ["--", "true"]}
    quiet = ("help", "version", "completion", "play", "export")     # they need no directory
    return [verb.split() + words.get(verb, []) for verb in VERBS if verb not in quiet]


@pytest.mark.parametrize("spoil, words", [
    (lambda path: open(path, "w").close(), "is not a directory"),
    (lambda path: os.mkdir(path, 0o755) or os.chmod(path, 0o755), "is open to others (mode 0755)"),
    (lambda path: os.mkdir(path, 0o700) or os.chown(path, 12345, 12345), "belongs to uid 12345"),
])
def test_a_directory_that_is_not_ours_alone_is_refused_with_the_reason(empty, spoil, words):
    if "uid" in words and os.getuid():
        pytest.skip("only root can give a directory away")
    spoil(empty.env["PTYGUARD_DIR"])
    before = os.stat(empty.env["PTYGUARD_DIR"])
    for verb in (["ls"], ["start", "--", "true"], ["run", "--", "true"], ["attach"], ["status"],
                 ["daemon", "stop"]):
        done = empty.run(*verb, check=125 if verb[0] == "run" else 1)
        assert words in said(done) and empty.env["PTYGUARD_DIR"] in said(done), verb
    after = os.stat(empty.env["PTYGUARD_DIR"])
    assert (stat.S_IMODE(before.st_mode),
            before.st_uid) == (stat.S_IMODE(after.st_mode), after.st_uid)
    os.chown(empty.env["PTYGUARD_DIR"], os.getuid(), -1)


def test_a_directory_that_cannot_be_made_is_refused_with_the_reason(empty, tmp_path):
    (tmp_path / "file").write_text("")
    done = empty.run("ls", env=dict(empty.env, PTYGUARD_DIR=str(tmp_path / "file" / "d")), check=1)
    assert str(tmp_path / "file") in said(done) and "Not a directory" in said(done)


def test_a_link_in_the_place_of_our_own_directory_is_refused(empty):
    empty.run("--no-start", "ls", check=6)
    state = empty.state
    os.rename(state, empty.directory + "/elsewhere")
    os.symlink(empty.directory + "/elsewhere", state)
    assert "is a symbolic link" in said(empty.run("ls", check=1))
    os.unlink(state)


# -- where it does not run -------------------------------------------------------------------------


def elsewhere(world, prelude, verbs):
    """{verb: (exit code, stderr)} in a Python that `prelude` has turned into another platform's."""
    code = f"""if True:
        import json, os, re, sys, time
        sys.path.insert(0, {ROOT!r})
        import ptyguard
        from ptyguard_core import client
        {prelude}
        for verb in json.loads(sys.argv[1]):
            print("VERB", json.dumps(verb), file=sys.stderr, flush=True)
            print("CODE", ptyguard.main(verb), file=sys.stderr, flush=True)
    """
    done = subprocess.run([PYTHON, "-c", code, json.dumps(verbs)], env=world.env, timeout=LIMIT_S,
                          stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert done.returncode == 0, done
    parts = [part.partition("\n") for part in done.stderr.decode().split("VERB ")[1:]]
    return {tuple(json.loads(verb)): (int(rest.rpartition("CODE ")[2]), rest.rpartition("CODE ")[0])
            for verb, _, rest in parts}


@pytest.mark.parametrize("prelude, words", [
    ("os.name = 'nt'", "does not support this platform"),
    ("sys.modules.pop('ptyguard_posix', None); sys.modules['termios'] = None",
     "lacks the module termios"),
])
def test_on_an_unsupported_platform_every_verb_ends_in_one_clear_sentence(empty, prelude, words):
    told = elsewhere(empty, prelude, all_verbs())
    assert len(told) == len(all_verbs())
    for verb, (code, text) in told.items():
        assert code == (125 if verb[0] in ("run", "wait") else 1), (verb, text)
        assert text.startswith("ptyguard: ") and words in text, (verb, text)
        assert text.count("\n") == 1, (verb, text)


def test_help_and_version_need_no_platform(empty):
    told = elsewhere(empty, "os.name = 'nt'", [["help"], ["version"], ["run", "--help"]])
    assert set(told.values()) == {(0, "")}


# -- the words themselves --------------------------------------------------------------------------


@pytest.mark.parametrize("words, said_so", [
    (["strat"], "nearest: start"), (["ls", "--jsn"], "nearest: --json"),
    (["ls", "extra"], "unexpected argument"),
    (["daemon", "stopp"], "nearest: daemon stop"),
    (["wait", "--timeout", "soon", "x"], "not a duration"),
    (["run"], "run needs CMD"), (["kill"], "kill needs NAME"),
])
def test_what_is_not_understood_is_a_usage_error_that_names_it_and_does_nothing(
        empty, words, said_so):
    done = empty.run(*words, check=2)
    assert said_so in said(done) and done.stdout == b""
    assert not os.path.exists(empty.env["PTYGUARD_DIR"])


def test_help_has_no_side_effects_and_no_traceback(empty):
    for words in (["help"], ["help", "run"], ["run", "--help"], ["kill", "--help"], ["--help"],
                  ["--version"],
                  ["version"], ["help", "daemon", "stop"], ["rm", "-h"]):
        done = empty.run(*words, check=0)
        assert done.stdout and done.stderr == b""
    assert not os.path.exists(empty.env["PTYGUARD_DIR"])


def test_alone_it_lists_on_a_terminal_and_helps_elsewhere(world, two_sessions):
    assert world.run(check=0).stdout.startswith(b"usage: ptyguard VERB")
    terminal = world.terminal()
    assert terminal.wait() == 0
    assert b"NAME" in terminal.output and b"streams" in terminal.output


def test_errors_with_json_are_one_object_on_stderr(world, name):
    for code, kind, words in ((3, "no_such_session", ["info", name, "--json"]),
                              (4, "session_exists",
                               ["start", "-n", "streams-j", "--json", "--", "true"]),
                              (127, "command_not_found", ["start", "--json", "--", "/no/such"]),
                              (2, "usage", ["info", "a", "b", "--json"]),
                              (3, "no_such_session", ["kill", name, "--json"])):
        if code == 4:
            world.run("start", "-n", "streams-j", "--", "sleep", "1000", check=0)
        done = world.run(*words, check=code)
        told = json.loads(done.stderr)
        assert told["schema_version"] == 1 and told["error"]["kind"] == kind
        assert told["error"]["message"] and "hint" in told["error"] and done.stdout == b""
