"""`key` and `send --paste` with real sessions: which bytes a program gets, in which mode it is.

C-115 and C-114.  Most tests share one world.  `Program` is a session whose program writes
down every byte that it is sent, and shows what the test tells it to show.
"""

import json
import os
import re
import shutil
import signal
import sys

import pytest

from world import LIMIT_S, MEMORY, World, wait_until

import ptyguard
from ptyguard_core import keys, sending, waiting
from ptyguard_core.errors import NoSuchSession, PtyguardError, TimedOut

PASTED = b"\x1b[200~%s\x1b[201~"
WRITES_DOWN = """
import os, select, sys, tty
got, show = sys.argv[1:]
tty.setraw(0)
show = os.open(show, os.O_RDWR)
os.write(1, b"ready")
with open(got, "wb", buffering=0) as file:
    while True:
        for fd in select.select([0, show], [], [])[0]:
            data = os.read(fd, 65536)
            if fd == show:
                while data:
                    data = data[os.write(1, data):]
            else:
                file.write(data)
"""


@pytest.fixture(scope="module")
def pg(world):
    with world.connect() as client_:
        yield client_


class Program:
    """A session that writes down what it gets; see above."""

    def __init__(self, pg, tmp_path, **options):
        self.name = "program-" + os.urandom(4).hex()
        self.got = tmp_path / self.name
        self._show = str(tmp_path / (self.name + ".show"))
        os.mkfifo(self._show)
        self.session = pg.start([sys.executable, "-I", "-S", "-c", WRITES_DOWN, str(self.got),
                                 self._show], self.name, **options)
        self.session.wait_for(b"ready", LIMIT_S)

    def shows(self, data):
        """It writes `data` to its terminal, and ptyguard has read it."""
        mark = b"<%s>" % os.urandom(4).hex().encode()
        with open(self._show, "wb") as file:
            file.write(data + mark)
        self.session.wait_for(re.escape(mark), LIMIT_S, raw=True)

    def has_got(self, data):
        """All that it was ever sent is `data`."""
        wait_until(lambda: self.got.stat().st_size >= len(data), f"{data!r} in {self.got}")
        assert self.got.read_bytes() == data


@pytest.fixture
def program(pg, tmp_path):
    return Program(pg, tmp_path)


def said(done):
    """stderr of a command that failed: each line ours, none a traceback."""
    text = done.stderr.decode()
    assert text and all(line.startswith("ptyguard: ") for line in text.splitlines()), text
    return text


# -- keys ------------------------------------------------------------------------------------------


def test_keys_arrive_as_a_terminal_sends_them_and_nothing_is_printed(world, program):
    done = world.run("key", program.name, "a", "Enter", "C-c", "M-x", "Up", "F5", "\N{SNOWMAN}",
                     "C-Space", "S-Tab", check=0)
    assert (done.stdout, done.stderr) == (b"", b"")
    program.has_got(b"a\r\x03\x1bx\x1b[A\x1b[15~\xe2\x98\x83\0\x1b[Z")


def test_every_named_key_arrives(world, program):
    names = [name for key in keys.KEYS for name in key.names]
    world.run("key", program.name, *names, check=0)
    program.has_got(keys.encode(names, False))


def test_cursor_keys_follow_the_programs_mode_there_and_back(world, program):
    words = ("Up", "Home", "C-Up", "PageUp")
    usual, application = b"\x1b[A\x1b[H\x1b[1;5A\x1b[5~", b"\x1bOA\x1bOH\x1b[1;5A\x1b[5~"
    world.run("key", program.name, *words, check=0)
    program.has_got(usual)
    program.shows(b"\x1b[?1h")
    world.run("keys", program.name, *words, check=0)
    program.has_got(usual + application)
    program.shows(b"\x1b[?1;25l")
    world.run("send-keys", program.name, *words, check=0)
    program.has_got(usual + application + usual)


def test_the_mode_is_known_to_the_next_daemon_too(tmp_path):
    with World(under=MEMORY) as world, world.connect() as pg:
        program = Program(pg, tmp_path)
        program.shows(b"\x1b[?1h")
        world.kill_daemon()
        world.run("key", program.name, "Up", check=0)
        program.has_got(b"\x1bOA")


def test_a_mode_is_found_in_front_of_more_output_than_one_reply_holds(world, pg, tmp_path):
    program = Program(pg, tmp_path, scrollback=16 << 20)
    program.shows(b"\x1b[?1h" + b"x" * 79 + b"\n")
    for _ in range(5):
        program.shows(b"y" * (1 << 20))
    assert program.session.info()["offsets"]["start"] == 0
    world.run("key", program.name, "Down", check=0)
    program.has_got(b"\x1bOB")


def test_a_mode_that_is_older_than_the_kept_output_is_known(world, pg, tmp_path):
    program = Program(pg, tmp_path, scrollback=64 << 10)
    program.shows(b"\x1b[?1h")
    program.shows(b"y" * (256 << 10))
    assert program.session.info()["offsets"]["start"] > 0
    world.run("key", program.name, "Down", check=0)
    program.has_got(b"\x1bOB")
    program.shows(b"\x1b[?1l")
    world.run("key", program.name, "Down", check=0)
    program.has_got(b"\x1bOB\x1b[B")


def test_json_tells_what_was_written_and_where_the_output_was(world, program):
    end = program.session.info()["offsets"]["end"]
    for word, count in (("x", 1), ("Up", 3)):
        told = json.loads(world.run("key", program.name, word, "Enter", "--json", check=0).stdout)
        assert told == {"name": program.name, "written": count + 1, "offset": end,
                        "schema_version": 1}


def test_a_name_is_needed_and_must_be_one(world, pg):
    assert "key needs NAME or --list" in said(world.run("key", check=2))
    assert "key needs KEY or --list" in said(world.run("key", "x", check=2))
    assert "no such session" in said(world.run("key", "nobody", "x", check=3))
    assert "no such session" in said(world.run("key", "nobody", "Up", check=3))
    session = pg.start(["true"])
    session.wait(LIMIT_S)
    for word in ("x", "Up"):
        assert "it has ended" in said(world.run("key", session.name, word, check=3))


def test_by_its_id_a_session_is_found_too(world, program):
    world.run("key", "@" + program.session.id, "Up", "x", check=0)
    program.has_got(b"\x1b[Ax")


def test_keys_to_a_program_that_does_not_read_give_up_in_time_and_tell_how_far_they_came(world, pg):
    session = pg.start([sys.executable, "-I", "-S", "-c",
                        "import signal, tty; tty.setraw(0); print('ready', flush=True);"
                        "signal.pause()"])
    session.wait_for(b"ready", LIMIT_S)
    word = "x" * 100000
    done = world.run("key", session.name, "-l", word, word, "--timeout", "2s", check=124)
    written = int(re.search(r"sent (\d+) of 200000 bytes", said(done)).group(1))
    assert 0 < written < 200000


# -- words that are no keys ------------------------------------------------------------------------


@pytest.mark.parametrize("verb", ["key", "keys"])
def test_an_unknown_key_is_refused_with_the_nearest_and_nothing_is_typed(world, program, verb):
    text = said(world.run(verb, program.name, "x", "Entr", check=2))
    assert "unknown key: 'Entr' (nearest: Enter)" in text and "help key" in text
    world.run("key", program.name, "y", check=0)
    program.has_got(b"y")


def test_an_unknown_key_starts_no_daemon():
    with World(under=MEMORY) as world:
        for words in (["x", "Upp"], ["x", "S-Enter"], ["x", "--hex", "zz"]):
            said(world.run("key", *words, check=2))
        world.run("key", "--list", check=0)
        assert not os.path.exists(world.env["PTYGUARD_DIR"])


def test_send_keys_types_words_that_are_no_keys(world, program):
    world.run("send-keys", program.name, "ls -l", "Space", "", "Upp", "Enter", check=0)
    program.has_got(b"ls -l Upp\r")
    text = said(world.run("send-keys", program.name, "text", "S-Enter", check=2))
    assert "no code for this key" in text
    world.run("send-keys", program.name, "--", "-x", check=0)
    world.run("send-keys", "-t", program.name, "make", "C-m", check=0)      # as tmux spells it
    program.has_got(b"ls -l Upp\r-xmake\r")
    assert "put -- before text" in said(world.run("send-keys", program.name, "-x", check=2))


def test_literal_words_are_typed_as_they_are_with_nothing_between(world, program):
    world.run("key", program.name, "-l", "Enter", "C-c", "", " a", "\N{SNOWMAN}", check=0)
    world.run("send-keys", program.name, "--literal", "--", "-x", check=0)
    program.has_got("EnterC-c a\N{SNOWMAN}-x".encode())


def test_bytes_that_are_no_text_are_typed_as_they_came(world, program):
    world.run("key", program.name, os.fsdecode(b"\xff"), check=0)
    world.run("send-keys", program.name, os.fsdecode(b"\xfe\xff"), check=0)
    world.run("key", program.name, "-l", os.fsdecode(b"\x80"), check=0)
    program.has_got(b"\xff\xfe\xff\x80")


def test_a_character_is_one_key_whatever_the_locale(world, program):
    bare = dict(world.env, LC_ALL="C", PYTHONCOERCECLOCALE="0", PYTHONUTF8="0")
    world.run("key", program.name, "\N{SNOWMAN}", env=bare, check=0)
    program.has_got("\N{SNOWMAN}".encode())


def test_bytes_in_hexadecimal(world, program):
    world.run("key", program.name, "--hex", "1b5b41", "0x0D", "d", "ff00", check=0)
    program.has_got(b"\x1b[A\r\r\xff\0")
    assert "not bytes in hexadecimal: '1b5'" in said(
        world.run("send-keys", "-H", program.name, "41", "1b5", check=2))
    assert "--hex or --literal, not both" in said(
        world.run("key", program.name, "-lH", "41", check=2))
    world.run("key", program.name, "-H", "2e", check=0)
    program.has_got(b"\x1b[A\r\r\xff\0.")


# -- the list --------------------------------------------------------------------------------------


def test_the_list_is_behind_the_page_of_help_and_alone(world):
    listed = world.run("key", "--list", check=0).stdout
    assert listed.decode().splitlines() == keys.list_lines()
    for words in (["help", "key"], ["help", "send-keys"], ["key", "--help"], ["keys", "-h"]):
        page = world.run(*words, check=0).stdout
        assert page.startswith(b"usage: ptyguard key NAME KEY") and page.endswith(b"\n\n" + listed)
    assert listed not in world.run("help", "send", check=0).stdout
    for word in ("x", "--hex", "--literal", "--timeout=1"):
        assert "not both" in said(world.run("key", "--list", word, check=2))


def test_the_list_for_programs_names_every_key(world):
    told = world.json("key", "--list")
    assert told["schema_version"] == 1
    assert {"name": "Up", "aliases": [], "group": "cursor", "hex": "1b5b41",
            "hex_application": "1b4f41"} in told["keys"]
    assert [row["name"] for row in told["keys"]] == [key.names[0] for key in keys.KEYS]
    assert {"prefix": "C-", "name": "Ctrl"} in told["modifiers"]


# -- pasting ---------------------------------------------------------------------------------------


def test_a_paste_is_bracketed_while_the_program_wants_that_and_only_then(world, program):
    world.run("send", program.name, "--paste", "one", "two", check=0)
    program.has_got(b"one two")
    program.shows(b"\x1b[?2004h")
    world.run("send", program.name, "--paste", "three\nfour", check=0)
    got = b"one two" + PASTED % b"three\nfour"
    program.has_got(got)
    world.run("send", program.name, "five", check=0)
    program.has_got(got + b"five")
    program.shows(b"\x1b[?2004l")
    world.run("send", program.name, "--paste", "six", check=0)
    program.has_got(got + b"fivesix")


def test_a_paste_of_stdin_then_enter(world, program):
    program.shows(b"\x1b[?2004h")
    data = os.urandom(100000).replace(b"\x1b[201~", b"")
    done = world.run("send", program.name, "--paste", "--enter", "--json", "-", input=data, check=0)
    assert json.loads(done.stdout)["written"] == len(PASTED % data) + 1
    program.has_got(PASTED % data + b"\r")


def test_a_paste_that_holds_its_own_end_is_refused_and_nothing_is_typed(world, program):
    data = b"text\x1b[201~rm -rf\r"
    program.shows(b"\x1b[?2004h")
    text = said(world.run("send", program.name, "--paste", "--enter", "-", input=data, check=1))
    assert "holds the end of a paste" in text and "nothing was typed" in text
    world.run("send", program.name, "-", input=b"." + data, check=0)    # as bytes it is none of ours
    program.has_got(b"." + data)
    program.shows(b"\x1b[?2004l")
    world.run("send", program.name, "--paste", "-", input=data, check=0)
    program.has_got(b"." + data * 2)


def test_an_empty_paste_is_no_paste(world, program):
    program.shows(b"\x1b[?2004h")
    world.run("send", program.name, "--paste", "", check=0)
    world.run("send", program.name, "--paste", "-", input=b"", check=0)
    world.run("send", program.name, "--paste", "", "--enter", check=0)
    program.has_got(b"\r")
    for words in ([], ["--enter"]):
        said(world.run("send", program.name, "--paste", *words, check=2))


def test_a_paste_to_nobody_is_3(world, pg):
    assert "no such session" in said(world.run("send", "nobody", "--paste", "x", check=3))
    session = pg.start(["true"])
    session.wait(LIMIT_S)
    assert "it has ended" in said(world.run("send", session.name, "--paste", "x", check=3))


# -- the Python API --------------------------------------------------------------------------------


def test_the_api_presses_keys_and_pastes(pg, program):
    end = program.session.info()["offsets"]["end"]
    assert program.session.key("Up", "C-c", "x", timeout_s=LIMIT_S) == end
    program.has_got(b"\x1b[A\x03x")
    program.shows(b"\x1b[?1h\x1b[?2004h")
    program.session.key("Up")
    program.session.key("Enter")
    program.session.send(b"text", enter=True, paste=True)
    got = b"\x1b[A\x03x\x1bOA\r" + PASTED % b"text" + b"\r"
    program.has_got(got)
    with pytest.raises(PtyguardError, match="end of a paste") as raised:
        program.session.send(b"\x1b[201~", paste=True)
    assert raised.value.details["written"] == 0
    for words in (("x", "ls -l"), ("\ud800",), ("S-Enter",)):
        with pytest.raises(ptyguard.UsageError):
            program.session.key(*words)
    program.session.key()                               # no key at all
    program.session.key("z")
    program.has_got(got + b"z")


def test_no_connection_is_left_behind_whether_it_goes_well_or_not(pg, program):
    before = pg.status()["clients"]
    for _ in range(5):
        program.session.key("Up")
        program.session.send(b"x", paste=True)
        with pytest.raises(ptyguard.UsageError):
            program.session.key("Upp")
    wait_until(lambda: pg.status()["clients"] <= before, "closed connections")


def test_keys_go_on_when_the_daemon_has_died(tmp_path):
    with World(under=MEMORY) as world, world.connect() as pg:
        program = Program(pg, tmp_path)
        program.shows(b"\x1b[?1h\x1b[?2004h")
        for number in range(3):
            os.kill(world.daemon_pid(), signal.SIGKILL)
            program.session.key("Up")
            program.session.send(b"%d" % number, paste=True)
        program.has_got(b"".join(b"\x1bOA" + PASTED % b"%d" % number for number in range(3)))


# -- the mode look-up, with a channel that plays the daemon ----------------------------------------


class Played:
    """Answers of a daemon that keeps `data`, and what was set before it."""

    def __init__(self, data, sequences=None):
        self.data = data
        self.past = {} if sequences is None else {"past": {"offset": 5, "sequences": sequences}}
        self.asked = []

    def request(self, verb, timeout_s=None, target=None):
        assert (verb, target) == ("resolve", "name")
        return {"session": {"id": "abc", "offsets": None if self.data is None else {"start": 5, "end": 99}}}

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.is_closed = True

    def read(self, timeout_s=None, **fields):
        self.asked.append(fields)
        return dict(self.past, offset=5), self.data


def test_modes_are_those_of_what_is_kept_and_of_what_was_set_before():
    played = Played(b"\x1b[?1h and more", "\x1b[?2004h")
    session, modes = sending.kept_modes(played, "name")
    assert session["id"] == "abc" and modes.application_cursor and modes.bracketed_paste
    assert played.asked == [{"target": "@abc", "past": True}]


def test_an_older_daemon_knows_only_what_is_kept():
    _, modes = sending.kept_modes(Played(b"\x1b[?1h"), "name")
    assert modes.application_cursor and not modes.bracketed_paste


def test_a_session_without_kept_output_has_no_modes():
    _, modes = sending.kept_modes(Played(None), "name")
    assert not modes.application_cursor and not modes.bracketed_paste


@pytest.mark.parametrize("words, data, enter", [
    (["x", "Enter"], b"x", True), (["Enter"], b"", True), (["C-m"], b"", True),
    (["Enter", "x"], b"\rx", False), (["M-Enter"], b"\x1b\r", False), (["Up", "Enter"], b"\x1bOA", True),
])
def test_enter_at_the_end_is_a_write_of_its_own_as_that_of_send(monkeypatch, words, data, enter):
    sent = []
    monkeypatch.setattr(sending, "send_input", lambda channel, *what: sent.append(what))
    played = Played(b"\x1b[?1h")
    sending.send_keys(played, "name", words)
    assert sent == [("@abc" if "Up" in words else "name", data, enter, None, None)]
    assert played.is_closed and len(played.asked) == ("Up" in words)


# -- real programs ---------------------------------------------------------------------------------


def needs(*programs):
    """The first of these that is installed, or a skip."""
    for name in programs:
        if shutil.which(name):
            return shutil.which(name)
    pytest.skip(f"{' or '.join(programs)} is not installed")


def environment(**variables):
    kept = {key: value for key, value in os.environ.items()
            if not key.startswith(("PTYGUARD", "PYTEST"))}
    return dict(kept, TERM="xterm-256color", LC_ALL="C.UTF-8", **variables)


@pytest.fixture
def bash(pg, tmp_path):
    inputrc = tmp_path / "inputrc"
    inputrc.write_text("set enable-bracketed-paste on\n")
    session = pg.start([needs("bash"), "--norc", "--noprofile", "-i"],
                       env=environment(PS1="p$((6 * 7))> ", INPUTRC=str(inputrc), HISTFILE=""))
    session.wait_for(rb"p42> ", LIMIT_S)
    return session


def test_keys_edit_a_line_of_bash(world, bash):
    world.run("send-keys", bash.name, "echo wxyz; echo $((40 + 4))", "Home", "Right", "Right", "Right",
              "Right", "Right", "Right", "DC", "DC", "End", "BSpace", "BSpace", "5", "))", "Enter",
              check=0)
    bash.wait_for(rb"\nwz\n85\n", LIMIT_S)
    world.run("key", bash.name, "Up", "C-a", "M-d", *"printf", "Enter", check=0)
    bash.wait_for(rb"\nwz85\n", LIMIT_S)
    world.run("key", bash.name, "C-d", check=0)
    assert bash.wait(LIMIT_S) == {"code": 0, "signal": None}


def test_a_paste_into_bash_is_one_line_to_edit_until_enter(world, bash):
    if not re.search(rb"\x1b\[\?2004h", bash.read()[1]):
        pytest.skip("this bash knows no bracketed paste")
    world.run("send", bash.name, "--paste", "-", input=b"echo a$((1 + 1))\necho b$((1 + 2))\n", check=0)
    world.run("key", bash.name, "C-u", *"echo", "Space", *"c$((2+2))", "Enter", check=0)
    bash.wait_for(rb"\nc4\n", LIMIT_S)
    world.run("send", bash.name, "--paste", "--enter", "echo d$((3 + 2))\necho e$((3 + 3))", check=0)
    bash.wait_for(rb"\nd5\ne6\n", LIMIT_S)
    text = waiting.Plain().feed(bash.read()[1])
    assert b"\na2" not in text and b"\nb3" not in text


def test_keys_drive_vim(world, pg, tmp_path):
    vim = needs("vim", "vi")
    path = tmp_path / "file.txt"
    path.write_text("one\ntwo\nthree\n")
    session = pg.start([vim, "-u", "NONE", "-N", "-n", str(path)], env=environment())
    session.wait_for(rb"\x1b\[\?1049h", LIMIT_S, raw=True)
    session.wait_for(rb"three", LIMIT_S)
    assert re.search(rb"\x1b\[\?1h", session.read()[1])     # its cursor keys are ESC O x
    world.run("key", session.name, "Down", "Down", "i", "X", "End", "Y", "Up", "Home", "Delete", "Z",
              check=0)
    world.run("key", session.name, "Escape", check=0)
    world.run("send-keys", session.name, ":wq", "Enter", check=0)
    assert session.wait(LIMIT_S) == {"code": 0, "signal": None}
    assert path.read_text() == "one\nZwo\nXthreeY\n"


def test_a_key_that_comes_too_late_is_a_typed_error(pg, tmp_path):
    program = Program(pg, tmp_path)
    with pytest.raises(TimedOut):
        program.session.key("Up", timeout_s=0)
    program.session.key("x")
    program.has_got(b"x")
    program.session.remove()
    with pytest.raises(NoSuchSession):
        program.session.key("Up")
