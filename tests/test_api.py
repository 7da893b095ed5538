"""The Python API: `ptyguard.connect()`, sessions, their output by offset, and the errors."""

import os
import subprocess
import sys
import threading

import pytest

from world import LIMIT_S, MEMORY, ROOT, World, is_alive, wait_until

import ptyguard
from ptyguard_core import errors

ECHO = ["sh", "-c", "stty -echo; echo ready; while read x; do echo got $x; done"]


@pytest.fixture(scope="module")
def pg(world):
    with ptyguard.connect(world.env["PTYGUARD_DIR"]) as client:
        yield client


# -- as the README has it --------------------------------------------------------------------------


def test_the_example_of_the_readme_runs(pg):
    calc = pg.start([sys.executable, "-q"], name="calc",
                    env=dict(os.environ, TERM="dumb", PYTHON_BASIC_REPL="1"))
    calc.wait_for(rb">>> ", timeout_s=LIMIT_S)
    before = calc.send(b"6 * 7", enter=True)
    assert calc.wait_for(rb"\n(\d+)\n", timeout_s=LIMIT_S, since=before).group(1) == b"42"
    calc.send(b"raise SystemExit(3)", enter=True)
    assert calc.wait(LIMIT_S) == {"code": 3, "signal": None}
    offset, data = calc.read()
    assert offset == 0 and data.startswith(b">>> ") or b">>> " in data


def test_connect_starts_what_is_missing_unless_it_may_not():
    with World(under=MEMORY) as world:
        directory = world.env["PTYGUARD_DIR"]
        with pytest.raises(ptyguard.Unreachable, match="no daemon runs"):
            ptyguard.connect(directory, may_start=False)
        with ptyguard.connect(directory) as pg:
            assert pg.sessions() == []
            assert pg.status()["pid"] == world.daemon_pid()
        ptyguard.connect(directory, may_start=False).close()


def test_the_archive_can_be_imported_and_used_from_its_path(world, tmp_path):
    archive = tmp_path / "ptyguard.pyz"
    build = subprocess.run(["sh", os.path.join(ROOT, "zipapp.sh"), str(archive)],
                           stdout=subprocess.PIPE,
                           stderr=subprocess.PIPE, env=dict(os.environ, PYTHON=sys.executable, PYTHONS=""),
                           timeout=2 * LIMIT_S)
    assert build.returncode == 0, build.stderr
    code = """if True:
        import ptyguard
        assert ".pyz" in ptyguard.__file__
        with ptyguard.connect() as pg:
            session = pg.start(["sh", "-c", "echo from the archive; exit 4"], "archived")
            print(session.wait(60)["code"], session.read()[1])
    """
    with World(under=MEMORY) as own:
        done = subprocess.run([sys.executable, "-c", code],
                              env=dict(own.env, PYTHONPATH=str(archive)), cwd="/",
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=LIMIT_S)
        assert (done.stdout, done.stderr) == (b"4 b'from the archive\\r\\n'\n", b"")
        # The file itself is the command, and finds what the library has started.
        done = subprocess.run([sys.executable, str(archive), "wait", "archived"], env=own.env,
                              timeout=LIMIT_S)
        assert done.returncode == 4


def test_a_program_that_imports_it_keeps_its_signals_and_needs_no_terminal(world):
    code = """if True:
        import os, signal, sys
        sys.path.insert(0, %r)
        before = [signal.getsignal(number) for number in (1, 2, 3, 13, 15, 17, 28)]
        import ptyguard
        with ptyguard.connect() as pg:
            session = pg.start(["true"], "quiet")
            session.wait(60)
        assert before == [signal.getsignal(number) for number in (1, 2, 3, 13, 15, 17, 28)]
        assert not os.listdir("/proc/self/fd")[4:], os.listdir("/proc/self/fd")
    """ % ROOT
    done = subprocess.run([sys.executable, "-c", code], env=world.env, stdin=subprocess.DEVNULL,
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=LIMIT_S)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


# -- starting and finding --------------------------------------------------------------------------


def test_start_takes_everything_a_session_has(pg, tmp_path):
    program = "echo $ODD; pwd; stty size; stty -a | grep -o -- -echo\\\\b; exit 3"
    session = pg.start(["sh", "-c", program], "all", cwd=str(tmp_path),
                       env={"ODD": "a b", "PATH": os.environ["PATH"]},
                       size=(91, 31), scrollback=131072, echo=False)
    assert session.was_created and session.name == "all"
    assert session.wait(LIMIT_S) == {"code": 3, "signal": None}
    assert session.read()[1].split(b"\r\n")[:4] == [b"a b", os.fsencode(str(tmp_path)), b"31 91",
                                                    b"-echo"]
    assert session.info()["ring"]["bytes"] >= 131072
    assert repr(session) == f"<ptyguard session all @{session.id} ended>"


def test_bytes_and_text_are_both_words_of_a_command(pg, tmp_path):
    out = tmp_path / "out"
    pg.start([b"sh", "-c", 'printf %s "$1" >"$2"', b"sh", b"\xff\xfe", str(out)]).wait(LIMIT_S)
    assert out.read_bytes() == b"\xff\xfe"


def test_ensure_finds_what_lives_and_session_finds_by_name_and_id(pg):
    first = pg.ensure("kept", ECHO)
    again = pg.ensure("kept", ["never", "run"])
    assert first.was_created and not again.was_created and again.id == first.id
    assert pg.session("kept").id == pg.session("@" + first.id).id == first.id
    assert first.id in [session.id for session in pg.sessions()]


@pytest.mark.parametrize("act, kind, code", [
    (lambda pg: pg.session("nobody"), errors.NoSuchSession, 3),
    (lambda pg: pg.session("@zzzzzzzz"), errors.NoSuchSession, 3),
    (lambda pg: pg.start(["/no/such/command"]), errors.CommandNotFound, 127),
    (lambda pg: pg.start(["/etc/passwd"]), errors.CannotExecute, 126),
    (lambda pg: pg.start(["true"], cwd="/no/such/directory"), errors.CannotExecute, 126),
    (lambda pg: pg.start(["true"], "bad name"), errors.UsageError, 2),
    (lambda pg: pg.start(["true"], scrollback=5), errors.UsageError, 2),
    (lambda pg: pg.start(["true"], size=(0, 0)), errors.UsageError, 2),
    (lambda pg: pg.request("no_such_verb"), errors.UsageError, 2),
    (lambda pg: ptyguard.connect("/dev/null/x"), errors.StateUnusable, 1),
])
def test_each_failure_has_a_type_a_message_and_an_exit_code(pg, act, kind, code):
    with pytest.raises(kind) as raised:
        act(pg)
    error = raised.value
    assert isinstance(error, ptyguard.PtyguardError) and error.exit_code == code
    assert error.message and str(error) == error.message


def test_the_errno_of_a_command_that_cannot_run_is_told(pg):
    with pytest.raises(errors.CommandNotFound) as raised:
        pg.start(["/no/such/command"])
    assert raised.value.details["errno"] == 2
    with pytest.raises(errors.CannotExecute) as raised:
        pg.start(["/etc/passwd"])
    assert raised.value.details["errno"] == 13


def test_a_live_name_is_an_error_of_its_own(pg):
    pg.ensure("taken", ECHO)
    with pytest.raises(ptyguard.SessionExists, match="session exists: taken"):
        pg.start(ECHO, "taken")


# -- output by offset ------------------------------------------------------------------------------


def test_read_gives_what_lies_at_an_offset(pg):
    session = pg.start(["seq", "1", "1000"])
    session.wait(LIMIT_S)
    whole = b"".join(b"%d\r\n" % n for n in range(1, 1001))
    assert session.read() == (0, whole)
    assert session.read(10, 5) == (10, whole[10:15])
    assert session.read(-6) == (len(whole) - 6, b"1000\r\n")
    assert session.read(len(whole)) == (len(whole), b"")
    assert session.read(len(whole) + 100) == (len(whole), b"")


def test_what_has_been_overwritten_is_an_error_that_tells_where_output_begins_now(pg):
    session = pg.start(["seq", "1", "60000"], scrollback=65536)
    session.wait(LIMIT_S)
    start, end = (session.info()["offsets"][key] for key in ("start", "end"))
    assert end - start > 40000
    with pytest.raises(ptyguard.OutputGap) as raised:
        session.read(10)
    assert raised.value.first_offset == start
    whole = b"".join(b"%d\r\n" % n for n in range(1, 60001))
    assert session.read() == (start, whole[start:])
    with pytest.raises(ptyguard.OutputGap) as raised:
        list(session.follow(10))
    assert raised.value.first_offset == start
    assert b"".join(data for _, data in session.follow(start)) == whole[start:]


@pytest.mark.parametrize("hold", ["always", "never"])
def test_followers_from_anywhere_see_every_byte_once_while_it_floods(pg, hold):
    # C-205: history and live output meet without a seam, wherever a follower begins.  With
    # "never" the ring is large enough that nobody falls out of it.
    lines = b"".join(b"%d\r\n" % n for n in range(1, 200001))
    session = pg.start(["sh", "-c", "stty -echo; echo ready; read x; exec seq 200000"],
                       scrollback=4 << 20)
    session.wait_for(b"ready", LIMIT_S)
    expected = b"ready\r\n" + lines
    results, threads = {}, []

    def follow(number, offset):
        with ptyguard.connect(pg.paths.root) as own:
            first, parts, at = None, [], None
            for offset, data in own.session("@" + session.id).follow(offset, hold, 2 * LIMIT_S):
                first = offset if first is None else first
                assert at is None or offset == at
                at = offset + len(data)
                parts.append(data)
            results[number] = first, b"".join(parts)
    session.send(b"\n")
    for number in range(8):
        wait_until(lambda: session.info()["offsets"]["end"] >= number * 100000, "some output")
        threads.append(threading.Thread(target=follow,
                                        args=(number,
                                              ["oldest", "now", number * 90000, 7][number % 4])))
        threads[-1].start()
    for thread in threads:
        thread.join(2 * LIMIT_S)
    assert len(results) == 8
    for first, data in results.values():
        assert data == (expected[first:] if first is not None else b"")
    assert results[0][0] == 0 and results[2][0] == 180000 and results[3][0] == 7


def test_follow_ends_with_the_session_and_its_facts_tell_how(pg):
    session = pg.start(["sh", "-c", "echo one; exit 6"])
    assert b"".join(data for _, data in session.follow()) == b"one\r\n"
    assert session.facts["exit"] == {"code": 6, "signal": None}
    assert list(session.follow("now")) == []


def test_follow_and_wait_for_and_wait_give_up_at_their_time(pg):
    session = pg.ensure("patient", ECHO)
    session.wait_for(b"ready", LIMIT_S)
    for act in (lambda: list(session.follow("now", timeout_s=0.1)),
                lambda: session.wait_for(b"never", 0.1),
                lambda: session.wait(0.1), lambda: session.wait_for(b"ready", 0.1, since="now")):
        with pytest.raises(ptyguard.TimedOut):
            act()
    assert session.info()["state"] == "running"


def test_wait_for_gives_the_match_and_fails_when_the_session_ends_first(pg):
    session = pg.start(["sh", "-c", r"printf 'name: \033[1mAnn\033[0m\r\n'; exit 2"])
    assert session.wait_for(rb"name: (\w+)", LIMIT_S).group(1) == b"Ann"
    assert session.wait_for(rb"\x1b\[1mAnn", LIMIT_S, raw=True)
    with pytest.raises(ptyguard.PtyguardError, match="ended before the text came") as raised:
        session.wait_for(b"Bob", LIMIT_S)
    assert not isinstance(raised.value, ptyguard.TimedOut)


def test_a_match_may_span_any_number_of_reads(pg):
    program = "stty -echo; printf a; for i in 1 2 3; do read x; printf b; done; printf c; read x"
    session = pg.start(["sh", "-c", program])
    session.wait_for(b"a", LIMIT_S)
    for count in range(3):
        session.send(b"\n")
        session.wait_for(b"ab{%d}" % (count + 1), LIMIT_S)
    assert session.wait_for(b"ab+c", LIMIT_S).group() == b"abbbc"


# -- typing, sizes, ends ---------------------------------------------------------------------------


def test_send_returns_the_offset_before_it_and_types_once(pg):
    session = pg.ensure("typed", ECHO)
    session.wait_for(b"ready", LIMIT_S)
    for word in (b"one", b"two"):
        before = session.send(word, enter=True)
        assert session.wait_for(b"got (.*)\n", LIMIT_S, before).group(1) == word
    assert session.read()[1] == b"ready\r\ngot one\r\ngot two\r\n"


def test_send_that_gives_up_tells_how_much_was_typed(pg):
    session = pg.start(["sh", "-c", "stty raw -echo; echo ready; exec sleep 1000"])
    session.wait_for(b"ready", LIMIT_S)
    with pytest.raises(ptyguard.TimedOut) as raised:
        session.send(b"x" * 3000000, timeout_s=2)
    assert 0 < raised.value.details["written"] < raised.value.details["total"] == 3000000
    assert session.info()["input_queued"] == 0
    with pytest.raises(ptyguard.TimedOut):      # one whose turn does not come
        holder = threading.Thread(target=lambda: pytest.raises(
            ptyguard.PtyguardError, session.send, b"x" * 100000))
        holder.start()
        wait_until(lambda: session.info()["input_queued"], "a send that waits")
        session.send(b"y", timeout_s=0.2)
    session.kill(0.2)
    holder.join(LIMIT_S)
    with pytest.raises(ptyguard.NoSuchSession):
        session.send(b"x")


def test_resize_tells_the_program_and_the_facts(pg):
    session = pg.start(["sh", "-c", "trap 'stty size' WINCH; echo ready; while :; do read x; done"])
    session.wait_for(b"ready", LIMIT_S)
    session.resize(120, 40)
    assert session.facts["size"] == {"cols": 120, "rows": 40}
    session.wait_for(b"40 120", LIMIT_S)
    with pytest.raises(ptyguard.UsageError):
        session.resize(0, 40)


def test_kill_and_remove(pg):
    session = pg.start(["sh", "-c", "trap '' HUP TERM; echo ready; while :; do sleep 1000; done"],
                       "doomed")
    session.wait_for(b"ready", LIMIT_S)
    session.kill(grace_s=0.2)
    assert session.facts["exit"] == {"code": None,
                                     "signal": "SIGKILL"} and not is_alive(session.facts["pid"])
    session.kill()                              # it is dead: fine
    session.remove()
    session.remove()                            # it is gone: fine
    for act in (session.info, session.kill, session.wait, session.read,
                lambda: session.send(b"x")):
        with pytest.raises(ptyguard.NoSuchSession):
            act()


def test_a_client_goes_on_when_the_daemon_dies():
    with World(under=MEMORY) as world, world.connect() as pg:
        session = pg.start(ECHO, "survivor")
        session.wait_for(b"ready", LIMIT_S)
        world.kill_daemon()
        assert session.info()["state"] == "running"
        session.send(b"still\n")
        session.wait_for(b"got still", LIMIT_S)
        follower = session.follow("oldest", timeout_s=2 * LIMIT_S)
        assert next(follower)[0] == 0
        world.kill_daemon()
        session.send(b"here\n")
        seen = b""
        while b"got here" not in seen:
            seen += next(follower)[1]
        follower.close()
        assert pg.start(["true"]).wait(LIMIT_S)["code"] == 0
        world.kill_daemon()
        waiting = []
        waiter = threading.Thread(target=lambda: waiting.append(pg_wait(world)))
        waiter.start()
        wait_until(lambda: pg.status()["clients"] >= 2, "the waiter")
        world.kill_daemon()
        session.kill(0.5)
        waiter.join(LIMIT_S)
        assert waiting == [{"code": None, "signal": "SIGHUP"}]


def pg_wait(world):
    with world.connect() as own:
        return own.session("survivor").wait(LIMIT_S)


# -- docs/API.md ---------------------------------------------------------------------------------

with open(os.path.join(ROOT, "docs", "API.md"), encoding="utf-8") as file:
    PAGE = file.read()

INSTALLER = """
read -p 'Do you accept the licence (yes/no)? ' licence
[ "$licence" = yes ] || exit 1
read -p 'In which directory shall it be? ' directory
echo "installed in $directory"
exit 4
"""


def run_example(world, *argv):
    code = PAGE.partition("```python\n")[2].partition("```")[0]
    assert len(code.strip().splitlines()) <= 12
    return subprocess.run([sys.executable, "-c", code, *argv], stdin=subprocess.DEVNULL,
                          env=dict(world.env, PYTHONPATH=ROOT), stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, timeout=2 * LIMIT_S)


def test_the_installer_of_the_page_is_answered_and_its_status_told(world, pg):
    before = {session.id for session in pg.sessions()}
    done = run_example(world, "bash", "-c", INSTALLER)
    assert done.returncode == 0, done.stderr
    assert done.stdout == b"exit status 4\n"
    new, = [session for session in pg.sessions() if session.id not in before]
    assert not new.is_living and b"installed in /opt/thing" in new.read()[1]


def test_the_page_names_every_public_method_and_every_error():
    from ptyguard_core.client import Client, Session
    for cls in (Client, Session):
        for name in vars(cls):
            if not name.startswith("_") and name not in ("backend", "request", "open_channel", "close",
                                                         "welcome", "status", "is_living", "start_no_more"):
                assert f"{name}(" in PAGE or f"`{name}`" in PAGE, name
    for name in ptyguard.__all__:
        assert name in PAGE or name in ("main", "pick_backend"), name
    for cls in vars(errors).values():
        if isinstance(cls, type) and issubclass(cls, errors.PtyguardError) \
                and cls.__name__ not in ("RingCorrupt", "ProtocolError", "Deferred"):
            assert f"`{cls.__name__}`" in PAGE and f"`{cls.kind}`" in PAGE, cls


def test_every_error_that_a_user_may_meet_can_be_caught_by_its_name():
    for cls in vars(errors).values():
        if isinstance(cls, type) and issubclass(cls, errors.PtyguardError) \
                and cls.__name__ not in ("RingCorrupt", "ProtocolError", "Deferred"):
            assert getattr(ptyguard, cls.__name__) is cls


def test_the_stubs_give_what_the_module_gives():
    import ast
    with open(os.path.join(ROOT, "ptyguard-stubs", "__init__.pyi"), encoding="utf-8") as file:
        tree = ast.parse(file.read())
    given = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
    given |= {alias.name for node in tree.body if isinstance(node, ast.ImportFrom)
              and node.module.startswith("ptyguard_core") for alias in node.names}
    assert set(ptyguard.__all__) | {"console", "Client", "Session"} == given


def test_a_session_ends_with_its_with_block_and_keeps_its_output(pg):
    with pg.start(["sh", "-c", "echo ready; sleep 1000"]) as session:
        session.wait_for(b"ready", LIMIT_S)
        pid = session.facts["pid"]
    assert not session.is_living and not is_alive(pid)
    assert session.read()[1] == b"ready\r\n"
    with pg.start(["true"]) as session:
        session.wait(LIMIT_S)
        session.remove()


def test_rename_restart_detach_and_orphans_are_there_too(world, pg):
    session = pg.start(["sh", "-c", "echo ready; exec sleep 1000"], "first")
    session.rename("second")
    assert session.name == "second" and pg.session("second").id == session.id
    with pytest.raises(ptyguard.SessionExists):
        pg.start(["true"], "third").rename("second")
    session.restart()
    session.wait_for(b"(?s)ready.*ready", LIMIT_S)
    terminal = world.terminal("attach", "second")
    wait_until(lambda: session.info()["clients"], "the client")
    session.detach()
    assert terminal.wait() == 0
    session.wait_idle(0.01, LIMIT_S)
    session.kill(orphans=True)
    assert session.facts["exit"]["signal"] == "SIGHUP"
