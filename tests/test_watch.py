"""`ls --watch`: the list on a terminal as it changes; and the tables and sheets that `ls` and `info` show.

What a terminal would show of it is seen by a Screen that is fed all that was written.
"""

import os
import shlex
import signal
import termios

import pytest
from hypothesis import given, strategies as st

from ptyguard_core import frames, report, tables
from ptyguard_core.listing import align, cut, session_table, text_width
from ptyguard_core.screen import Screen
from ptyguard_core.standing import Standing
from ptyguard_core.watchers import Watchers
from ptyguard_core.watching import Picture, page
from world import LIMIT_S, MEMORY, World, wait_until

GONE = "waiting for a daemon"


class Seen:
    """A terminal with the list on it, and what stands on it."""

    def __init__(self, world, *words, size=(100, 12), program=None):
        self.terminal = world.terminal("ls", "--watch", *words, size=size, program=program)
        self.screen = Screen(size, 0)
        self._shown = 0

    def look(self):
        """The lines that stand there now."""
        self.terminal.read_more(0.05)
        self.screen.feed(self.terminal.output[self._shown:])
        self._shown = len(self.terminal.output)
        return [line.text.rstrip() for line in self.screen.lines]

    def shows(self, *words, without=()):
        """Wait until all these words stand there, and none of the others."""
        def fact():
            text = "\n".join(self.look())
            return all(word in text for word in words) and not any(word in text for word in without)
        try:
            wait_until(fact, f"{words} without {without}")
        except AssertionError as error:
            raise AssertionError("\n".join([str(error)] + self.look())) from None

    def resize(self, cols, rows):
        """As a window that gets another size."""
        self.look()
        self.screen.resize((cols, rows))
        self.terminal.resize(cols, rows)

    def has_left(self, status):
        """It ends with that status and leaves the terminal as it was."""
        assert self.terminal.wait() == status, self.terminal.output[-2000:]
        self.look()
        assert termios.tcgetattr(self.terminal.slave) == self.terminal.settings
        assert self.screen.modes == {}, self.screen.modes
        assert b"\x1b[2J" not in self.terminal.output


@pytest.fixture
def own():
    """A world of its own: whoever lists sees what this test made."""
    with World(under=MEMORY) as made:
        yield made


def start(world, name, line="exec sleep 1000", *options):
    world.run("start", "-n", name, *options, "--", "sh", "-c", line, check=0)


# -- as it changes -----------------------------------------------------------------------------------


def test_sessions_that_come_go_change_and_are_renamed_are_seen(own):
    seen = Seen(own)
    seen.shows("no sessions")
    start(own, "first", r"printf '\033]2;a title\007'; exec sleep 1000", "--size", "91x17")
    seen.shows("NAME", "first", "running", "91x17", "a title", without=("no sessions",))
    start(own, "second", "exit 3")
    seen.shows("second", "exit 3")
    own.run("rename", "first", "other", check=0)
    seen.shows("other", without=("first",))
    own.run("resize", "other", "70x20", check=0)
    seen.shows("70x20", without=("91x17",))
    own.run("rm", "second", check=0)
    seen.shows("other", without=("second",))
    own.run("kill", "other", check=0)
    seen.shows("other", "killed by SIGHUP")
    seen.terminal.send(b"q")
    seen.has_left(0)


def test_clients_that_come_and_go_are_counted(own):
    start(own, "shared")
    seen = Seen(own)
    clients = lambda: next(line.split()[5] for line in seen.look() if line.startswith("shared"))   # noqa: E731
    wait_until(lambda: any("shared" in line for line in seen.look()), "the list")
    assert clients() == "0"
    client = own.terminal("attach", "shared")
    wait_until(lambda: clients() == "1", "one client")
    client.send(b"\x1c")
    assert client.wait() == 0
    wait_until(lambda: clients() == "0", "none")


def test_a_new_title_is_seen_without_anything_else_happening(own):
    go = os.path.join(own.directory, "go")
    os.mkfifo(go)
    start(own, "mood", rf"printf '\033]2;title-%d\007' 1; cat {go}; printf '\033]2;title-%d\007' 2; exec sleep 1000")
    seen = Seen(own)
    seen.shows("title-1")
    with open(go, "w"):
        pass
    seen.shows("title-2", without=("title-1",))


def test_only_lines_that_have_changed_are_written(own):
    for name in ("one", "two"):
        start(own, name)
    seen = Seen(own)
    seen.shows("one", "two")
    seen.look()
    before = len(seen.terminal.output)
    own.run("resize", "two", "33x11", check=0)
    seen.shows("33x11")
    written = seen.terminal.output[before:]
    assert b"sleep" in written and b"\x1b[2J" not in written and b"\x1b[H" not in written
    # Each drawing is one synchronised piece, and at most those lines of it are there whose age has changed.
    assert written.startswith(b"\x1b[?2026h") and b"NAME" not in written
    assert written.count(b"\x1b[?2026h") - written.count(b"\x1b[?2026l") in (0, 1)


# -- the terminal --------------------------------------------------------------------------------------


@pytest.mark.parametrize("key, status", [(b"q", 0), (b"\x03", 130), (b"\x1c", 131), (b"\x1b[A\x1b[Bq", None)])
def test_keys_leave_and_others_do_not(own, key, status):
    seen = Seen(own)
    seen.shows("no sessions")
    seen.terminal.send(key)
    if status is None:                  # an arrow is none of them, whatever stands in its bytes
        start(own, "later")
        seen.shows("later")
        seen.terminal.send(b"q")
    seen.has_left(status or 0)


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGQUIT])
def test_signals_leave_the_terminal_as_it_was(own, signum):
    seen = Seen(own)
    seen.shows("no sessions")
    seen.terminal.process.send_signal(signum)
    seen.has_left(128 + signum)


def test_a_terminal_that_goes_away_ends_it(own):
    seen = Seen(own)
    seen.shows("no sessions")
    seen.terminal.close()
    wait_until(lambda: seen.terminal.process.poll() is not None, "its end")
    assert seen.terminal.process.returncode == 129


def test_ctrl_z_gives_the_terminal_to_the_shell_and_fg_takes_it_again(own):
    start(own, "steady")
    shell = own.terminal(program=["bash", "--norc", "--noprofile", "-i"], env=dict(own.env, PS1="prompt> "))
    shell.expect(b"prompt> ")
    shell.send(shlex.join(own.program + ["ls", "--watch"]).encode() + b"\n")
    shell.expect(b"steady")
    shell.send(b"\x1a")
    shell.expect(rb"\x1b\[\?25h\x1b\[\?1049l.*Stopped")
    shell.send(b"echo $((70 + 7)); stty -a | tr ' ' '\\n' | grep -x -e icanon -e isig\n")
    shell.expect(rb"77\r\n(?:icanon|isig)\r\n(?:icanon|isig)\r\n")
    own.run("rename", "steady", "renamed", check=0)
    shell.send(b"fg\n")
    shell.expect(rb"\x1b\[\?1049h.*NAME.*renamed")
    shell.send(b"q")
    shell.expect(rb"\x1b\[\?1049l.*prompt> ")
    shell.send(b"exit\n")
    shell.wait()


def test_another_size_shows_what_fits_and_says_what_does_not(own):
    for number in range(9):
        start(own, f"session{number}", "exec sleep 1000 # " + "long " * 30)
    seen = Seen(own, size=(100, 12))
    seen.shows("session0", "session8")
    assert all(len(line) <= 100 for line in seen.look())
    seen.resize(40, 6)
    seen.shows("session0", "session3", "... and 5 more", without=("session4",))
    lines = seen.look()
    assert lines[0].startswith("NAME") and all(line for line in lines)
    seen.resize(120, 20)
    seen.shows("session8", without=("more",))
    seen.resize(9, 2)
    seen.shows("... an...")
    seen.resize(100, 12)
    seen.shows("session8", without=("more",))
    seen.terminal.send(b"q")
    seen.has_left(0)


def test_without_a_terminal_it_is_refused_and_nothing_is_started(own):
    for words in (["--watch"], ["-w", "--all"]):
        done = own.run("ls", *words, check=2)
        assert b"needs a terminal" in done.stderr and b"ls --json" in done.stderr
    assert own.json("status")["state"] == "stopped"
    assert b"--watch or --json" in own.run("ls", "--watch", "--json", check=2).stderr


def test_nothing_of_a_session_acts_on_the_terminal_of_who_watches(own):
    evil = "\x1b]2;from a command\x07\x1b[2J\x9b2J"
    start(own, "evil", r"printf '\033]2;x\001\302\2335m\302\235y\007'; exec sleep 1000 # " + evil)
    seen = Seen(own, size=(200, 5))
    seen.shows("evil", r"x\x01\x9b5m\x9dy")
    seen.terminal.send(b"q")
    seen.has_left(0)
    assert seen.screen.title == "" and "\x9b" not in seen.terminal.output.decode()


# -- daemons ---------------------------------------------------------------------------------------------


def test_a_daemon_that_is_killed_or_replaced_is_not_noticed(own):
    start(own, "first")
    seen = Seen(own)
    seen.shows("first")
    pid = own.kill_daemon()
    own.new_daemon_pid(pid)
    start(own, "second")
    seen.shows("first", "second")
    own.run("daemon", "restart", check=0)
    own.run("rename", "second", "third", check=0)
    seen.shows("first", "third")
    assert GONE.encode() not in seen.terminal.output
    seen.terminal.send(b"q")
    seen.has_left(0)


def test_a_daemon_that_was_stopped_is_not_started_by_who_watches(own):
    start(own, "first")
    seen = Seen(own)
    seen.shows("first")
    own.run("daemon", "stop", "--sessions", "keep", "--force", check=0)
    seen.shows(GONE, "first")
    assert own.json("status")["state"] == "stopped"
    start(own, "second")                # somebody else starts it
    seen.shows("first", "second", without=(GONE,))
    own.run("daemon", "stop", "--sessions", "kill", "--force", check=0)
    seen.shows(GONE)
    seen.terminal.send(b"q")
    seen.has_left(0)
    assert own.json("status")["state"] == "stopped"


def test_without_a_daemon_and_not_allowed_to_start_one_it_says_so(own):
    terminal = own.terminal("--no-start", "ls", "--watch")
    assert terminal.wait() == 6 and b"no daemon runs" in terminal.output
    assert b"\x1b[?1049h" not in terminal.output
    assert termios.tcgetattr(terminal.slave) == terminal.settings


def test_a_daemon_that_hangs_is_waited_for_with_working_keys(own):
    start(own, "first")
    seen = Seen(own)
    seen.shows("first")
    pid = own.daemon_pid()
    os.kill(pid, signal.SIGSTOP)
    try:
        seen.shows(GONE, "first")
        seen.shows("first", without=(GONE,))        # the guard has replaced it
        assert own.new_daemon_pid(pid)
    finally:
        if own.daemon_pid() == pid:
            os.kill(pid, signal.SIGCONT)
    seen.terminal.send(b"q")
    seen.has_left(0)


# -- what the daemon tells ---------------------------------------------------------------------------------


class FakeLoop:
    """What a loop does at the end of a turn, by hand."""

    def __init__(self):
        self.acts = []

    def soon(self, act):
        self.acts.append(act)

    def turn(self):
        acts, self.acts = self.acts, []
        for act in acts:
            act()


class FakeClient:
    def __init__(self):
        self.events = []

    def send(self, type_, **fields):
        assert type_ == frames.EVENT
        self.events.append(fields["event"])


def test_who_watches_is_told_once_a_turn_and_again_only_after_asking():
    loop, one, other, idle = FakeLoop(), FakeClient(), FakeClient(), FakeClient()
    watchers = Watchers(loop)
    watchers.note_change()
    assert not loop.acts                # nobody watches: nothing is done
    watchers.add(one)
    watchers.add(other)
    for _ in range(3):
        watchers.note_change()
    loop.turn()
    assert one.events == other.events == ["changed"] and not idle.events
    watchers.note_change()
    watchers.add(one)                   # asked for again, it is no acknowledgement
    loop.turn()
    assert one.events == ["changed"]
    watchers.caught_up(one)
    watchers.caught_up(idle)
    watchers.note_change()
    loop.turn()
    assert one.events == ["changed"] * 2 and other.events == ["changed"] and not idle.events
    watchers.forget(one)
    watchers.forget(other)
    watchers.note_change()
    assert not loop.acts


def test_a_connection_that_watches_is_told_and_one_that_does_not_is_not(own):
    start(own, "first")
    with own.connect() as pg, pg.open_channel("watch") as one, pg.open_channel("call") as other:
        assert one.request("watch") == {}
        own.run("rename", "first", "second", check=0)
        own.run("rename", "second", "third", check=0)
        assert [fields for type_, _, fields in one.receive()] == [{"event": "changed"}]
        assert not one.wait_readable(0) and not other.wait_readable(0)
        assert [s["name"] for s in one.request("ls")["sessions"]] == ["third"]
        own.run("rename", "third", "fourth", check=0)
        assert [fields for type_, _, fields in one.receive()] == [{"event": "changed"}]


def test_output_and_who_reads_it_are_no_change_of_the_list(own):
    line = (r"read x; i=0; while [ $i -lt 300 ]; do printf '\033[?1049h\033[?25l'; head -c 5000 /dev/zero | tr '\0' x;"
            r" printf '\033[?1049l\033[?25h'; i=$((i + 1)); done; echo done; exec sleep 1000")
    with own.connect() as pg, pg.open_channel("watch") as one:
        loud = pg.start(["sh", "-c", line], "loud")
        one.request("watch")
        loud.send(b"\n")
        loud.wait_for(b"done", LIMIT_S, raw=True)
        assert own.json("info", "loud")["offsets"]["start"] > 0
        assert not one.wait_readable(0)


# -- pictures: pure ------------------------------------------------------------------------------------------


def shown(screen):
    return [line.text.rstrip() for line in screen.lines]


LINES = st.lists(st.sampled_from(["", "a", "bb b", "x" * 10, "y" * 9, "日本", "日本語字体"]), min_size=1, max_size=6)


@given(st.lists(st.tuples(LINES, st.sampled_from([(10, 6), (10, 6), (10, 7), (12, 6)]), st.booleans()), max_size=8))
def test_whatever_stood_there_the_next_rows_stand_there_after_it(steps):
    screen, picture = Screen((10, 6), 0), Picture()
    screen.feed(b"\x1b[?7l" + b"rubbish " * 3)
    for rows, size, is_forgotten in steps:
        screen.resize(size)
        if is_forgotten:
            picture.forget()
            screen.feed(b"\x1b[3;2Hrubbish")
        data = picture.change(size, rows)
        screen.feed(data.encode())
        assert shown(screen) == rows + [""] * (size[1] - len(rows))
        assert "\x1b[2J" not in data
        assert picture.change(size, rows) == ""     # nothing has changed: nothing is written
        assert "synchronised_output" not in screen.modes


def test_a_line_that_changed_is_all_that_is_written():
    picture = Picture()
    picture.change((20, 5), ["one", "two", "three"])
    assert picture.change((20, 5), ["one", "TWO", "three"]) == "\x1b[?2026h\x1b[2;1H\x1b[m\x1b[KTWO\x1b[?2026l"
    assert picture.change((20, 5), ["one"]) == "\x1b[?2026h\x1b[2;1H\x1b[m\x1b[J\x1b[?2026l"


def test_too_many_lines_end_in_how_many_are_missing_and_the_note_has_its_place():
    lines = ["HEAD", "a", "b", "c", "d"]
    plain = [row.replace("\x1b[1m", "").replace("\x1b[2m", "").replace("\x1b[m", "") for row in page(lines, (30, 4))]
    assert plain == ["HEAD", "a", "b", "... and 2 more"]
    assert "... and 3 more" in page(lines, (30, 4), "note")[2] and "note" in page(lines, (30, 4), "note")[3]
    assert len(page(lines, (30, 5))) == 5 and "more" not in "".join(page(lines, (30, 5)))
    for rows in (1, 2, 3):
        for note in ("", "note"):
            assert len(page(lines, (4, rows), note)) <= rows


# -- tables and sheets: pure ------------------------------------------------------------------------------------


def facts(name, title=None, argv=("sleep", "9"), **more):
    return dict({"name": name, "state": "running", "pid": 7, "size": {"cols": 80, "rows": 24}, "created_at": 0.0,
                 "clients": 0, "exit": {"code": None, "signal": None}, "title": title, "argv": list(argv)}, **more)


def test_columns_are_counted_as_a_terminal_counts_them():
    table = session_table([facts("a", "日本語"), facts("b", "e\u0301te"), facts("c")], 5.0)
    screen = Screen((120, 5), 0)
    screen.feed("\r\n".join(table).encode())
    at = table[0].index("COMMAND")
    assert [line.chars[at] for line in screen.lines[:4]] == ["C", "s", "s", "s"]
    assert text_width("e\u0301te") == 3 and text_width("日本語") == 6


@given(st.lists(st.tuples(st.one_of(st.none(), st.text(max_size=60)), st.lists(st.text(max_size=40), max_size=3)),
                min_size=1, max_size=4), st.integers(1, 200))
def test_no_line_is_longer_than_the_terminal_and_nothing_in_it_acts(sessions, width):
    table = session_table([facts(f"s{n}", title, argv) for n, (title, argv) in enumerate(sessions)], 1.0, width)
    assert len(table) == 1 + len(sessions)
    for line in table:
        assert text_width(line) <= width and line.isprintable()


def test_a_wide_character_is_not_broken_by_a_cut():
    assert cut("日本語字", 7) == "日本..." and cut("日本語字", 6) == "日..." and cut("日本語字", 8) == "日本語字"
    assert cut("abc", 2) == ".." and cut("abc", 0) == "" and cut("", 0) == ""


def test_titles_get_what_commands_leave_of_the_line():
    long_title, long_command = "t" * 100, ("c" * 100,)
    for sessions in ([facts("a", long_title)], [facts("a", long_title, long_command)]):
        wide, narrow = session_table(sessions, 1.0, 200), session_table(sessions, 1.0, 90)
        assert "t" * 50 in wide[1] and "tttt..." in narrow[1]
        assert "sleep 9" in narrow[1] or "cccc..." in narrow[1]
    assert "TITLE" not in session_table([facts("a"), facts("b")], 1.0, 80)[0]


def test_align_leaves_the_last_column_ragged():
    assert align([("a", "bb"), ("ccc", "d")]) == ["a    bb", "ccc  d"]


# -- what stands --------------------------------------------------------------------------------------------------


SEQUENCES = [b"\x1b[?1049h", b"\x1b[?1049l", b"\x1b[?47h", b"\x1b[?1003;1006h", b"\x1b[?1000l", b"\x1b[?2004h",
             b"\x1b[?2004l", b"\x1b[?25l", b"\x1b[?7l", b"\x1b[4h", b"\x1b[20h", b"\x1b[4l", b"\x1b[>5u", b"\x1b[<u",
             b"\x1b[=3;2u", b"\x1b[>4;2m", b"\x1b[!p", b"\x1bc", b"\x1b=", b"\x1b>", b"\x1b]7;file:///tmp/a%20b\x07",
             b"\x1b]7;file://far/srv\x1b\\", b"\x1b]2;title\x07", b"\x1b[31m", b"text\r\n", b"\x1b[2J", b"\x1b[5;9H"]


@given(st.lists(st.sampled_from(SEQUENCES), max_size=20), st.integers(1, 40))
def test_what_stands_is_what_a_whole_screen_says_of_it(sequences, size):
    data = b"".join(sequences)
    standing, screen = Standing(), Screen((80, 24), 0)
    for at in range(0, len(data), size):
        standing.feed(data[at:at + size])
    screen.feed(data)
    assert standing.modes == screen.modes and standing.directory == screen.cwd


@given(st.lists(st.binary(max_size=60), max_size=5))
def test_any_bytes_can_be_looked_at(pieces):
    standing = Standing()
    for piece in pieces:
        standing.feed(piece + b"\x1b")
    assert isinstance(standing.modes, dict)


@pytest.mark.parametrize("uri, host", [
    (b"file:///tmp", None), (b"file://localhost/tmp", None), (b"file://Here.example/tmp", None),
    (b"file://here/tmp", None), (b"file://far/tmp", "far"), (b"/tmp", None)])
def test_the_host_of_a_directory_is_told_if_it_is_another(uri, host):
    standing = Standing()
    standing.feed(b"\x1b]7;" + uri + b"\x07")
    assert standing.host("here.example") == host and standing.directory == "/tmp"


def test_modes_are_told_in_words():
    assert report.mode_words({}) == ""
    assert set(report._MODE_WORDS) <= {name for name, _ in tables.PRIVATE_MODES.values()} | set(tables.MODE_DEFAULTS)
    assert report.mode_words({"alternate_screen": True, "mouse": "any", "mouse_encoding": "sgr", "bracketed_paste": True,
                              "cursor_visible": False, "autowrap": False, "keyboard_flags": 5}) == \
        "alternate screen, mouse any (sgr), bracketed paste, hidden cursor, no autowrap, kitty keyboard 5"


def test_what_left_the_ring_long_ago_is_told_also_by_the_next_daemon(own):
    # What used to happen: after a kill -9 it was asked for from where the dead daemon had noted it last,
    # which was not kept any more, and both `info` and `screen` failed.
    line = (r"printf '\033[?1049h\033]2;title-%d\007\033]7;file:///evicted\033\\' 1;"
            r"head -c 5000000 /dev/zero | tr '\0' x; echo ready; exec sleep 1000")
    with own.connect() as pg:
        pg.start(["sh", "-c", line], "flood").wait_for(b"ready", LIMIT_S)
    for _ in range(2):
        told = own.json("info", "flood")
        assert told["offsets"]["start"] > 1000
        assert (told["title"], told["modes"], told["cwd_told"]) == ("title-1", {"alternate_screen": True}, "/evicted")
        assert [s["title"] for s in own.json("ls")["sessions"]] == ["title-1"]
        assert b"ready" in own.run("screen", "flood", check=0).stdout
        pid = own.kill_daemon()
        own.new_daemon_pid(pid)


def test_info_tells_what_is_switched_on_and_where_the_shell_says_it_is(own):
    line = (r"printf '\033[?1049h\033[?1003h\033[?1006h\033[?2004h\033[?25l\033]7;file://far/tmp/a%%20b%%0a\033\\';"
            r"head -c 300000 /dev/zero | tr '\0' x; echo ready; exec sleep 1000")
    with own.connect() as pg:
        pg.start(["sh", "-c", line], "full").wait_for(b"ready", LIMIT_S)
    told = own.json("info", "full")
    assert told["modes"] == {"alternate_screen": True, "mouse": "any", "mouse_encoding": "sgr",
                             "bracketed_paste": True, "cursor_visible": False}
    assert (told["cwd_told"], told["cwd_host"]) == ("/tmp/a b", "far")
    sheet = own.run("info", "full", check=0).stdout.decode()
    assert "switched on:          alternate screen, mouse any (sgr), bracketed paste, hidden cursor\n" in sheet
    assert "says it is in:        /tmp/a b (on far)\n" in sheet
    own.run("kill", "full", check=0)
    told = own.json("info", "full")
    assert told["modes"] is None and told["cwd_told"] == "/tmp/a b"
    assert "switched on" not in own.run("info", "full", check=0).stdout.decode()
