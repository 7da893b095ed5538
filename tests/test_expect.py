"""Dialogues with real programs by `wait` and `send --wait-for`, as a script would have them.

Each program is skipped, with the reason, where it is not installed.
"""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading

import pytest

from ptyguard_core import prompt
from ptyguard_core.channel import Follower
from ptyguard_core.conditions import Patience
from ptyguard_core.errors import Busy
from ptyguard_core.sending import send_input
from world import LIMIT_S, World, wait_until

TIME = ("--timeout", str(LIMIT_S))


def needs(*programs):
    """The first of these that is installed, or a skip."""
    for program in programs:
        if shutil.which(program):
            return shutil.which(program)
    pytest.skip(f"{' or '.join(programs)} is not installed")


def environment(**variables):
    kept = {key: value for key,
            value in os.environ.items() if not key.startswith(("PTYGUARD", "PYTEST"))}
    return dict(kept, TERM="xterm-256color", LC_ALL="C.UTF-8", **variables)


def answer(world, session, question, *words):
    """`send --wait-for`, with Enter."""
    return world.run("send", session.name, "--wait-for", question, "--enter", *TIME, *words, check=0)


def shows(world, session, *words):
    """`wait` on the screen; what was found."""
    return json.loads(world.run("wait", session.name, *words, *TIME, "--json", check=0).stdout)["matches"]


class Clients:
    """How many connections there are more than at its beginning: a command that waits has two."""

    def __init__(self, pg):
        self._pg = pg
        self._before = self.count()

    def count(self):
        return self._pg.status()["clients"]

    def await_waiters(self, number, *processes):
        """Until so many commands wait, or any of these has ended."""
        wait_until(lambda: self.count() >= self._before + 2 * number
                   or any(process.poll() is not None for process in processes), "who waits")


# -- dialogues -------------------------------------------------------------------------------------


@pytest.mark.skipif(sys.implementation.name != "cpython", reason="PyPy has another prompt, and redraws it")
def test_a_python_prompt_is_answered_line_by_line(world, pg, name, gate):
    session = pg.start([sys.executable, "-q"], name, env=environment(PYTHON_BASIC_REPL="1"))
    # Each line waits for a prompt of its own: none is typed into a program that is busy.
    busy = f"gate = open({str(gate)!r}).read()"
    answer(world, session, ">>> $", busy)
    late = world.popen("send", name, "--wait-for", ">>> $", "--enter", "print(6 * 7)")
    gate.write_bytes(b"")
    assert late.wait(LIMIT_S) == 0
    answer(world, session, ">>> $", "raise SystemExit(5)")
    assert session.wait(LIMIT_S)["code"] == 5
    text = session.wait_for(rb"(?s).*").group()
    assert text.split(b"\n")[:4] == [b">>> " + busy.encode(), b">>> print(6 * 7)", b"42",
                                     b">>> raise SystemExit(5)"]


def test_ssh_keygen_asks_for_a_passphrase_twice_and_shows_it_never(world, pg, name, tmp_path):
    keygen = needs("ssh-keygen")
    path = tmp_path / "id"
    session = pg.start([keygen, "-q", "-t", "ed25519", "-C", "", "-f", str(path)], name)
    answer(world, session, "passphrase.*: $", "open sesame")
    answer(world, session, "again: $", "open sesame")
    assert session.wait(LIMIT_S) == {"code": 0, "signal": None}
    assert b"open sesame" not in session.read()[1]
    def read_with(passphrase):
        return subprocess.run([keygen, "-y", "-P", passphrase, "-f", str(path)], stdin=subprocess.DEVNULL,
                              stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    assert read_with("open sesame").stdout.startswith(b"ssh-ed25519 ")
    assert read_with("open barley").returncode != 0


def test_a_shell_that_reads_a_password_gets_it_after_its_question(world, pg, name):
    bash = needs("bash")
    script = 'read -sp "Password: " p; echo; read -p "Really? " r; echo "${#p} characters, $r"; [ "$p" = "s3 cret" ]'
    session = pg.start([bash, "-c", script], name)
    done = world.run("send", name, "--wait-for", "Password: $", *TIME, "-", input=b"s3 cret\n", check=0)
    assert not done.stdout and not done.stderr
    told = json.loads(world.run("send", name, "--wait-for", r"(R\w+)\? $", "--enter", "--json", *TIME, "yes",
                                check=0).stdout)
    assert told["matched"] == "Really? " and told["matches"][0]["groups"] == ["Really"]
    assert session.wait(LIMIT_S)["code"] == 0
    assert b"7 characters, yes" in session.read()[1] and b"s3 cret" not in session.read()[1]


def test_less_is_led_to_a_line_and_the_screen_tells_when_it_is_there(world, pg, name, tmp_path):
    less = needs("less")
    path = tmp_path / "lines"
    path.write_text("".join(f"line {n} of it\n" for n in range(1, 2001)))
    session = pg.start([less, str(path)], name, env=environment(LESS="", LESSHISTFILE="-"), size=(80, 24))
    shows(world, session, "--screen", "^line 23 of it$")
    world.run("send", name, "--enter", "/line 1500", check=0)
    found = shows(world, session, "--screen", r"\Aline (\d+) of it$", "--screen", "^line 1522 of it$",
                  "--idle", "200ms")
    assert found[0]["groups"] == ["1500"] and (found[0]["row"], found[1]["row"]) == (0, 22)
    world.run("key", name, "G", check=0)
    shows(world, session, "--screen", r"^line 2000 of it\n\(END\)")
    world.run("key", name, "--wait-for", "END", *TIME, "q", check=0)
    assert session.wait(LIMIT_S)["code"] == 0


def test_vim_shows_what_was_typed_and_writes_it(world, pg, name, tmp_path):
    vim = needs("vim", "vi")
    path = tmp_path / "file.txt"
    session = pg.start([vim, "-u", "NONE", "-N", "-n", str(path)], name, env=environment(), size=(80, 24))
    shows(world, session, "--screen", "^~$")
    world.run("send", name, "iA line, and another\x1b", check=0)
    world.run("send", name, "bcwa third\x1b", check=0)
    found = shows(world, session, "--screen", "^A line, and a (.*)$")
    assert found[0]["groups"] == ["third"] and (found[0]["row"], found[0]["col"]) == (0, 0)
    world.run("send", name, "--enter", ":wq", check=0)
    assert session.wait(LIMIT_S)["code"] == 0
    assert path.read_text() == "A line, and a third\n"


# -- conditions ------------------------------------------------------------------------------------


DRAWING = """
import sys
for line in sys.stdin:
    sys.stdout.write(eval(line))
    sys.stdout.flush()
"""


@pytest.fixture
def drawing(pg, name):
    """A program that draws what it is told to, and `draw(text)`, which tells it."""
    session = pg.start([sys.executable, "-u", "-c", DRAWING], name, echo=False, size=(40, 10))
    def draw(text):
        session.send(ascii(text).encode(), enter=True)
    return session, draw


def test_several_conditions_have_to_hold_all_of_them(world, pg, drawing):
    session, draw = drawing
    waiter = world.popen("wait", session.name, "--screen", "^ready$", "--for", r"step (?P<n>\d)", "--for",
                         "(never mind)", "--screen", "user: (\\w+)", "--json", stdout=subprocess.PIPE)
    draw("step 3\r\nready\r\nuser: ann")
    session.wait_for(b"ann", LIMIT_S)
    draw("\x1b[2J\x1b[H")                   # seen stays seen, and shown does not stay shown
    session.wait_screen(r"\A\Z", LIMIT_S)
    draw("never mind\r\nready\r\n")
    session.wait_screen("ready", LIMIT_S)
    assert waiter.poll() is None
    draw("user: bob")
    out, _ = waiter.communicate(timeout=LIMIT_S)
    assert waiter.returncode == 0
    told = json.loads(out)
    assert [(one["condition"], one["text"]) for one in told["matches"]] == [
        ("for", "step 3"), ("for", "never mind"), ("screen", "ready"), ("screen", "user: bob")]
    assert told["matches"][0]["named"] == {"n": "3"} and told["matches"][3]["groups"] == ["bob"]
    assert (told["matches"][3]["row"], told["matches"][3]["col"]) == (2, 0)
    assert told["matched"] == "step 3" and told["timed_out"] is False and told["exit"] is None


def test_what_scrolled_away_or_was_overwritten_is_not_on_the_screen(world, drawing):
    session, draw = drawing
    draw("first\r\n" + "more\r\n" * 20 + "loading\r\x1b[Kdone")
    session.wait_screen("^done$", LIMIT_S)
    for gone in ("first", "loading"):
        world.run("wait", session.name, "--for", gone, *TIME, check=0)
        done = world.run("wait", session.name, "--screen", gone, "--timeout", "0", check=124)
        assert gone.encode() in done.stderr and session.name.encode() in done.stderr
    world.run("wait", session.name, "--screen", "done", "--timeout", "0", check=0)


def test_what_was_found_is_told_also_when_the_rest_does_not_come(world, drawing):
    session, draw = drawing
    draw("here")
    session.wait_screen("here", LIMIT_S)
    done = world.run("wait", session.name, "--screen", "here", "--screen", "there", "--timeout", "300ms", "--json",
                     check=124)
    told = json.loads(done.stdout)
    assert told["timed_out"] is True and [one["text"] for one in told["matches"]] == ["here"]
    done = world.run("wait", session.name, "--screen", "here", "--screen", "there", "--timeout", "300ms", check=124)
    assert b"does not match there" in done.stderr and b"match here" not in done.stderr


def test_the_last_screen_counts_and_an_end_without_it_is_1_with_the_reason(world, pg, name):
    session = pg.start(["sh", "-c", "read x; echo last words; exit 7"], name)
    waiters = [world.popen("wait", name, "--screen", pattern, "--json", stdout=subprocess.PIPE,
                           stderr=subprocess.PIPE) for pattern in ("last (words)", "never")]
    session.send(b"", enter=True)
    (found, _), (_, failed) = [waiter.communicate(timeout=LIMIT_S) for waiter in waiters]
    assert [waiter.returncode for waiter in waiters] == [0, 1]
    assert json.loads(found)["matches"][0]["groups"] == ["words"]
    assert "exit 7" in json.loads(failed)["error"]["message"]
    # Long after the end, too.
    session.wait(LIMIT_S)
    told = json.loads(world.run("wait", name, "--screen", "words", "--json", check=0).stdout)
    assert told["exit"] == {"code": 7, "signal": None}
    world.run("wait", name, "--screen", "never", check=1)


def test_bytes_that_are_no_text_are_searched_for_and_told_as_what_they_are(world, pg, name):
    pg.start(["sh", "-c", r"printf 'x\376y \303\251'; read x"], name).wait_for(b"y ", LIMIT_S)
    told = json.loads(world.run("wait", name, "--for", "x.y", "--for", "\udcfe(.) \xe9", "--json", *TIME,
                                check=0).stdout)
    assert [one["text"] for one in told["matches"]] == ["x\udcfey", "\udcfey \xe9"]
    assert told["matches"][1]["pattern"] == "\udcfe(.) \xe9"
    world.run("wait", name, "--screen", "x\ufffdy \xe9", *TIME, check=0)


@pytest.mark.parametrize("words", [
    ("wait", "x", "--for", "a(b"), ("wait", "x", "--screen", "a(b"), ("wait", "x", "--for", "a", "--screen", "a(b"),
    ("send", "x", "--wait-for", "a(b", "y"), ("key", "x", "--wait-for", "a(b", "y"),
])
def test_what_is_no_pattern_is_said_before_any_daemon_is_asked(words):
    with World() as world:
        done = world.run(*words, check=2)
        assert b"position 1" in done.stderr
        assert not os.path.exists(world.env["PTYGUARD_DIR"])


# -- what disturbs, and what must not ----------------------------------------------------------------


def test_a_wait_for_the_screen_goes_on_over_a_killed_daemon(world, pg, drawing):
    session, draw = drawing
    draw("\x1b[?1049h\x1b[5;5Hfive")
    session.wait_screen("five", LIMIT_S)
    clients = Clients(pg)
    waiter = world.popen("wait", session.name, "--screen", r"five\n\n +seven", "--json", stdout=subprocess.PIPE)
    clients.await_waiters(1, waiter)
    world.kill_daemon()
    draw("\x1b[7;5Hseven")
    out, _ = waiter.communicate(timeout=LIMIT_S)
    assert waiter.returncode == 0
    assert (json.loads(out)["matches"][0]["row"], json.loads(out)["matches"][0]["col"]) == (4, 4)


def test_a_flood_is_looked_at_as_it_passes(world, pg, name):
    flood = "i=0; while [ $i -lt 60000 ]; do i=$((i+1)); echo flood line $i of many; done; echo at last; read x"
    session = pg.start(["sh", "-c", "read x; " + flood], name)
    clients = Clients(pg)
    waiter = world.popen("wait", name, "--screen", "^at last$", *TIME)
    clients.await_waiters(1, waiter)
    session.send(b"", enter=True)
    assert waiter.wait(LIMIT_S) == 0
    assert session.info()["offsets"]["end"] > 1000000


def test_who_fell_behind_sees_the_screen_as_it_is_now(world, pg, name):
    flood = "i=0; while [ $i -lt 60000 ]; do i=$((i+1)); echo flood line $i of very many; done; echo at last; read x"
    session = pg.start(["sh", "-c", "read x; " + flood], name, scrollback=64 * 1024)
    clients = Clients(pg)
    waiter = world.popen("wait", name, "--screen", r"of very many\nat last$", *TIME)
    clients.await_waiters(1, waiter)
    waiter.send_signal(signal.SIGSTOP)
    session.send(b"", enter=True)
    session.wait_screen("^at last$", LIMIT_S)       # ours does not fall behind
    waiter.send_signal(signal.SIGCONT)
    assert waiter.wait(LIMIT_S) == 0


CATASTROPHE, VICTIM = "(a+)+$", "a" * 60 + "b"


def is_searching(process):
    """Whether that process uses the processor: it does not wait any more."""
    with open(f"/proc/{process.pid}/stat") as file:
        return file.read().rsplit(")", 1)[1].split()[0] == "R"


@pytest.mark.parametrize("condition", ["--for", "--screen"])
def test_a_pattern_that_takes_for_ever_disturbs_nobody_and_ends_at_its_time(world, pg, name, condition):
    session = pg.start(["sh", "-c", f"echo {VICTIM}; read x"], name)
    session.wait_for(VICTIM.encode(), LIMIT_S)
    other = pg.start(["cat"], name[-50:] + ".other")
    stuck = world.popen("wait", name, condition, CATASTROPHE)
    timed = world.popen("wait", name, condition, CATASTROPHE, "--timeout", "2s", stderr=subprocess.PIPE)
    wait_until(lambda: is_searching(stuck), "the search")
    # Neither others' sessions nor the very one that is searched.
    assert other.name in world.run("ls", "-q", check=0).stdout.decode().split()
    world.run("send", other.name, "--enter", "hello", check=0)
    world.run("wait", other.name, "--screen", r"hello\nhello", *TIME, check=0)
    world.run("wait", name, "--screen", "^a+b$", *TIME, check=0)
    assert timed.wait(LIMIT_S) == 124 and name.encode() in timed.stderr.read()
    assert stuck.poll() is None
    stuck.send_signal(signal.SIGINT)
    assert stuck.wait(LIMIT_S) in (130, -signal.SIGINT)


def test_a_send_whose_search_takes_for_ever_types_nothing_at_its_time(world, pg, name):
    session = pg.start(["sh", "-c", f"echo {VICTIM}; cat"], name)
    session.wait_for(VICTIM.encode(), LIMIT_S)
    world.run("send", name, "--wait-for", CATASTROPHE, "--timeout", "500ms", "typed", check=124)
    session.send(b"over", enter=True)
    session.wait_for(b"over\n.*over", LIMIT_S)
    assert b"typed" not in session.read()[1]


# -- wait, then send -------------------------------------------------------------------------------


ASKING = r"""
import sys
for number in range(int(sys.argv[1])):
    sys.stdout.write(f"question {number}? ")
    sys.stdout.flush()
    line = sys.stdin.readline().strip()
    print(f"answer {number}: {line}", flush=True)
print("no more questions", flush=True)
sys.stdin.readline()
"""


def asking(pg, name, count):
    return pg.start([sys.executable, "-u", "-c", ASKING, str(count)], name, echo=False)


def test_of_many_who_wait_for_a_question_each_gets_one_of_its_own(world, pg, name):
    session = asking(pg, name, 6)
    session.wait_for(rb"question 0\? ", LIMIT_S)
    senders = [world.popen("send", name, "--wait-for", r"question \d\? ", "--enter", *TIME, f"from {one}")
               for one in range(6)]
    assert [sender.wait(LIMIT_S) for sender in senders] == [0] * 6
    text = session.wait_for(rb"(?s).*no more questions", LIMIT_S).group().decode()
    answers = re.findall(r"question (\d)\? answer (\d): (.*)\n", text)
    # No question was answered twice, and none by nobody.
    assert [(int(one), int(other)) for one, other, _ in answers] == [(n, n) for n in range(6)]
    assert sorted(line for _, _, line in answers) == [f"from {one}" for one in range(6)]


def test_what_was_asked_before_somebody_elses_send_has_to_be_asked_again(pg, name):
    session = asking(pg, name, 3)
    session.wait_for(rb"question 0\? ", LIMIT_S)
    others = [b"first", b"second"]

    def open_channel(role):
        if role == "send" and others:       # between the question and its answer, twice
            session.send(others.pop(0), enter=True)
        return pg.open_channel(role)

    match, _ = prompt.answer(
        open_channel, session.name, rb"question (\d)\? ",
        lambda channel, target, sends, left_s: send_input(channel, target, b"mine", True, left_s, sends),
        Patience(LIMIT_S))
    assert match.group(1) == b"2"
    session.wait_for(rb"answer 0: first\nquestion 1\? answer 1: second\nquestion 2\? answer 2: mine\n", LIMIT_S)


def test_a_send_that_counts_those_before_it_is_refused_when_there_was_another(pg, name):
    session = asking(pg, name, 3)
    session.wait_for(rb"question 0\? ", LIMIT_S)
    target = "@" + session.id
    with pg.open_channel("first") as first, pg.open_channel("late") as late, pg.open_channel("look") as look:
        assert Follower(look, target, "now").sends == 0
        serial = first.ask("send", target=target, bytes=6)
        wait_until(lambda: first.wait_readable(0.1), "its turn")
        # Enter alone: it has no body that could be held back.
        refused = late.ask("send", target=target, bytes=0, enter=True, sends=0)
        first.send_input(b"first\n")
        assert first.await_reply(serial, LIMIT_S)["written"] == 6
        with pytest.raises(Busy) as error:
            late.await_reply(refused, LIMIT_S)
        details = error.value.details
        assert (details["written"], details["sends"]) == (0, 1) and details["sent_at"] >= len("question 0? ")
        session.wait_for(rb"question 1\? ", LIMIT_S)
        assert b"answer 1" not in session.read()[1]
        # What came to nothing is no send; and with the new number it works.
        assert late.await_reply(late.ask("send", target=target, bytes=0, enter=True, sends=1), LIMIT_S)
    session.wait_for(rb"answer 1: \nquestion 2\? ", LIMIT_S)


def test_the_question_that_was_answered_last_is_not_taken_for_the_next(world, pg, name):
    session = asking(pg, name, 2)
    answer(world, session, r"question \d\? $", "one")
    answer(world, session, r"question \d\? $", "two")
    session.wait_for(rb"answer 0: one\nquestion 1\? answer 1: two\n", LIMIT_S)
    # There is no third; from the beginning on there are two.
    world.run("send", name, "--wait-for", r"question \d\? ", "--timeout", "300ms", "three", check=124)
    world.run("send", name, "--wait-for", r"question \d\? ", "--since", "0", "--enter", "three", check=0)
    assert session.wait(LIMIT_S)["code"] == 0


def test_how_many_sends_there_were_is_known_to_the_next_daemon(world, pg, name):
    session = asking(pg, name, 3)
    answer(world, session, r"question \d\? $", "one")
    session.wait_for(rb"question 1\? ", LIMIT_S)
    world.kill_daemon()
    session.send(b"two", wait_for=rb"question \d\? $", enter=True, timeout_s=LIMIT_S)
    answer(world, session, r"question \d\? $", "three")
    session.wait_for(rb"answer 0: one\nquestion 1\? answer 1: two\nquestion 2\? answer 2: three\n", LIMIT_S)


def test_a_question_that_does_not_come_in_time_is_not_answered(world, pg, name):
    session = pg.start(["cat"], name)
    done = world.run("send", name, "--wait-for", "never", "--enter", "--timeout", "300ms", "typed", check=124)
    assert name.encode() in done.stderr
    session.send(b"over", enter=True)
    session.wait_for(b"over\nover", LIMIT_S)
    assert b"typed" not in session.read()[1]


def test_a_session_that_ends_before_its_question_is_1_and_one_that_has_ended_is_3(world, pg, name):
    session = pg.start(["sh", "-c", "read x; exit 7"], name)
    clients = Clients(pg)
    sender = world.popen("send", name, "--wait-for", "never", "typed", stderr=subprocess.PIPE)
    clients.await_waiters(1, sender)
    session.send(b"", enter=True)
    assert sender.wait(LIMIT_S) == 1 and b"exit 7" in sender.stderr.read()
    world.run("send", name, "--wait-for", "never", "typed", check=3)


def test_a_paste_waits_for_its_question_too(world, pg, name):
    program = r"import sys; print('\x1b[?2004hpaste here: ', end='', flush=True); print(ascii(input()))"
    session = pg.start([sys.executable, "-u", "-c", program], name, echo=False)
    world.run("send", name, "--paste", "--wait-for", "paste here: $", "--enter", *TIME, "a  b", check=0)
    session.wait_for(re.escape(rb"'\x1b[200~a  b\x1b[201~'"), LIMIT_S)


def test_the_python_api_waits_for_the_screen_and_answers(world, pg, drawing):
    session, draw = drawing
    threading.Thread(target=draw, args=("Total: 7\r\nName? ",)).start()
    with world.connect() as mine:
        own = mine.session(session.name)
        assert own.wait_screen(r"^Total: (\d+)$", LIMIT_S).group(1) == "7"
        assert own.wait_screen(re.compile(r"\ATotal.*Name", re.S), LIMIT_S)
        own.send(ascii("thanks").encode(), wait_for=rb"Name\? ", since=0, enter=True, timeout_s=LIMIT_S)
        own.wait_screen("thanks", LIMIT_S)
