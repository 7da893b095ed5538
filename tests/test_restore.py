"""What a session shows: its screen asked for, painted anew, and after deaths."""

import json
import os
import signal
import sys
import xml.dom.minidom

import pytest

from ptyguard_core.render import render_text
from ptyguard_core.screen import Screen
from world import LIMIT_S, wait_until

pytestmark = pytest.mark.usefixtures("both_ways")


def start(pg, name, line, **options):
    session = pg.start(["sh", "-c", line], name, **options)
    session.wait_for(b"ready", LIMIT_S)
    return session


def text_of(screen):
    return render_text(screen)


class Glass:
    """What a terminal shows."""

    def __init__(self, terminal, size=(80, 24)):
        self.terminal = terminal
        self.screen = Screen(size, 0)
        self._fed = 0

    def look(self):
        """Take what has come."""
        while self.terminal.read_more(0.05):
            self.screen.feed(self.terminal.output[self._fed:])
            self._fed = len(self.terminal.output)
        return self.screen

    def shows(self, text):
        """Wait until it shows exactly this text."""
        wait_until(lambda: text_of(self.look()) == text, "the screen")


# -- the verb ------------------------------------------------------------------------------

PICTURE = (r"printf '\033]2;a <title>\007\033[1;31mred\033[m and \344\270\226\r\n\033[7minverse\033[m'; "
           "stty -echo; printf ready; cat")


def test_a_screen_is_printed_as_text_with_blank_ends_cut(world, pg, name):
    start(pg, name, PICTURE)
    assert world.run("screen", name, check=0).stdout == "red and \u4e16\ninverseready\n".encode()


def test_every_format_tells_the_same(world, pg, name):
    session = start(pg, name, PICTURE, size=(40, 5))
    told = json.loads(world.run("screen", name, "--format", "json", check=0).stdout)
    assert (told["schema_version"], told["name"], told["title"]) == (1, name, "a <title>")
    assert told["size"] == {"cols": 40, "rows": 5} and told["cursor"]["x"] == 12
    assert told["rows"][0][0] == {"text": "red", "fg": 1, "bold": True}
    assert told == world.json("screen", name)
    ansi = world.run("screen", name, "--format", "ansi", check=0).stdout
    again = Screen((40, 5))
    again.feed(ansi)
    assert text_of(again) == text_of(session.screen()) and again.title == "a <title>"
    for form in ("svg", "html"):
        page = world.run("screen", name, f"--format={form}", check=0).stdout.decode()
        assert "inverse" in page and "a &lt;title&gt;" in page and "<title>a <" not in page
    xml.dom.minidom.parseString(world.run("screen", name, "--format=svg", check=0).stdout)


def test_history_is_what_has_left_the_screen_at_the_top(world, pg, name):
    session = start(pg, name, "seq 100; stty -echo; printf ready; cat", size=(20, 5))
    assert world.run("capture-pane", "-t", name, "-p", check=0).stdout == b"97\n98\n99\n100\nready\n"
    lines = world.run("screen", name, "--history", "3", check=0).stdout.split()
    assert lines == [b"94", b"95", b"96", b"97", b"98", b"99", b"100", b"ready"]
    assert len(session.screen(history=50).history) == 50


def test_an_ended_session_shows_its_last_screen(world, pg, name):
    session = pg.start(["sh", "-c", "printf 'last words'; exit 3"], name)
    session.wait(LIMIT_S)
    assert world.run("screen", name, check=0).stdout == b"last words\n"


def test_an_empty_screen_is_no_error_and_an_unknown_name_is(world, pg, name):
    pg.start(["cat"], name)
    assert world.run("screen", name, check=0).stdout == b""
    unknown = world.run("screen", "nobody-has-this", "--json", check=3)
    assert json.loads(unknown.stderr)["error"]["kind"] == "no_such_session"
    assert world.run("screen", name, "--format", "pdf", check=2).stdout == b""


def test_of_a_gigantic_terminal_a_part_is_drawn(world, pg, name):
    start(pg, name, "stty -echo; printf ready; cat", size=(65535, 65535))
    assert world.run("screen", name, check=0).stdout == b"ready\n"
    assert world.json("screen", name)["size"]["cols"] == 4096


# -- what is not kept any more ------------------------------------------------------------------

def test_a_program_that_took_the_whole_screen_long_ago_is_still_shown_so(world, pg, name, gate):
    session = start(pg, name,
                    r"stty -echo; printf 'ready\033]2;editor\007\033[?1049h\033[?2004h\033[?25l\033[2;20r'; "
                    f"cat {gate}; seq 40000; printf 'still here'; cat", scrollback=65536)
    gate.write_bytes(b"")
    session.wait_for(b"still here", LIMIT_S)
    assert session.info()["offsets"]["start"] > 100000
    before = world.json("screen", name)
    assert before["is_alternate"] and before["title"] == "editor" and not before["cursor"]["visible"]
    assert before["modes"]["bracketed_paste"] and before["rows"][19][0]["text"] == "still here"
    world.kill_daemon()
    assert world.json("screen", name) == before
    session.send(b"and more\n")
    session.wait_for(b"and more", LIMIT_S)
    after = world.json("screen", name)
    assert after["is_alternate"] and after["rows"][18][0]["text"] == "still hereand more"


def test_killed_at_any_moment_of_a_flood_the_modes_are_not_forgotten(world, pg, name):
    session = start(pg, name, r"stty -echo; printf 'ready\033[?1049h\033[?1000h'; while :; do seq 1000; done",
                    scrollback=65536)
    for _ in range(15):
        end = session.info()["offsets"]["end"]
        wait_until(lambda: session.info()["offsets"]["end"] > end + 30000, "more output")
        world.kill_daemon()
        assert session.screen().modes == {"alternate_screen": True, "mouse": "normal"}
    session.kill()


def test_while_nothing_is_gone_yet_what_was_set_at_first_is_replayed_too(pg, name):
    # What is noted of the past runs ahead of what is overwritten, and the bytes came from there.
    session = start(pg, name, r"stty -echo; printf '\033[?1049hready'; yes | head -c 28000; printf done; cat",
                    scrollback=65536)
    session.wait_for(b"done", LIMIT_S)
    offsets = session.info()["offsets"]
    assert offsets["start"] == 0 and 32768 < offsets["end"] < 49152
    screen = session.screen(history=100000)
    assert screen.is_alternate and screen.is_whole


# -- attach -----------------------------------------------------------------------------------------

def attach(world, session, *words, **options):
    terminal = world.terminal("attach", session.name, *words, **options)
    wait_until(lambda: any(v["pid"] == terminal.process.pid for v in session.info()["viewers"]), "the client")
    return terminal


def test_in_the_middle_of_a_flood_whoever_comes_sees_what_the_session_shows(world, pg, name, tmp_path):
    stop = tmp_path / "stop"
    session = start(pg, name, f"stty -echo; echo ready; n=0; while ! [ -e {stop} ]; do n=$((n+1)); "
                              r"printf '\033[%d;%dH\033[3%dm%d' $((n%24+1)) $((n%70+1)) $((n%8)) $n; done; "
                              "printf '\\033[1;1Hend of it'; cat")
    terminals = [attach(world, session, "-r") for _ in range(6)]
    stop.write_bytes(b"")
    session.wait_for(b"end of it", LIMIT_S)
    wanted = text_of(session.screen())
    for terminal in terminals:
        Glass(terminal).shows(wanted)
        terminal.process.send_signal(signal.SIGTERM)
        terminal.wait()


def test_the_lines_before_the_screen_go_into_the_terminals_scrollback(world, pg, name):
    session = start(pg, name, "seq 300; stty -echo; printf ready; cat")
    terminal = attach(world, session)
    terminal.expect(b"ready")
    screen = Screen((80, 24))
    screen.feed(b"my own words\r\n$ ptyguard attach\r\n" + terminal.output)
    lines = [line.text.rstrip() for line in [*screen.history, *screen.lines]]
    assert lines[:2] == ["my own words", "$ ptyguard attach"]       # scrolled away, not erased
    assert [line for line in lines[2:] if line] == [str(n) for n in range(1, 301)] + ["ready"]
    assert [line.text.rstrip() for line in screen.lines][-2:] == ["300", "ready"]


def test_a_terminal_of_another_size_shows_the_session_in_it(world, pg, name):
    session = start(pg, name, r"stty -echo; printf '\033[?1049h\033[5;5Hready'; cat", size=(80, 24))
    terminal = attach(world, session, size=(40, 10))
    Glass(terminal, (40, 10)).shows("\n" * 4 + "    ready\n")
    wait_until(lambda: session.info()["size"] == {"cols": 40, "rows": 10}, "the size")
    assert session.screen().size == (40, 10)


def test_who_fell_behind_gets_a_fresh_screen(world, pg, name):
    session = start(pg, name, r"stty -echo; echo ready; read x; seq 500000; printf '\033[2J\033[3;3Hall done'; cat")
    terminal = attach(world, session, "-r")
    terminal.process.send_signal(signal.SIGSTOP)
    session.send(b"\n")
    session.wait_for(b"all done", LIMIT_S)
    terminal.process.send_signal(signal.SIGCONT)
    glass = Glass(terminal)
    glass.shows(text_of(session.screen()))
    session.send(b" and on\n")
    session.wait_for(b"and on", LIMIT_S)
    glass.shows(text_of(session.screen()))


def test_keyboard_modes_that_were_pushed_are_pushed_again(world, pg, name):
    session = start(pg, name, r"stty -echo; printf '\033[>1u\033[>5uready'; cat")
    terminal = attach(world, session)
    glass = Glass(terminal)
    wait_until(lambda: glass.look().keyboard_stacks == ([0, 1, 5], [0, 1, 5]), "the pushed ones")
    session.send(b"\x1b[<u\n")
    wait_until(lambda: glass.look().keyboard_stacks[1] == [0, 1], "the pop")


def test_sizes_of_the_past_hold_at_their_place(world, pg, name):
    session = start(pg, name, "stty -echo; printf '%0100d' 1; printf ready; cat", size=(50, 10))
    session.resize(120, 10)
    session.send(b"more\n")
    session.wait_for(b"more", LIMIT_S)
    screen = session.screen()
    assert screen.size == (120, 10) and screen.lines[0].text.rstrip() == "0" * 50
    world.kill_daemon()
    assert text_of(session.screen()) == text_of(screen)


# -- what nobody knows any more -----------------------------------------------------------------------

# Paints a heading once, and again when its terminal is resized, and then only a counter.
PAINTER = r"""
import os, signal, sys
def paint(*_):
    os.write(1, b"\x1b[H\x1b[2J\x1b[1;1HTHE HEADING")
if sys.argv[1] == "repaints":
    signal.signal(signal.SIGWINCH, paint)
paint()
for number in range(30000):
    rest = b"\x1b[20;1Hcounter %d" % number
    while rest:
        rest = rest[os.write(1, rest):]
os.write(1, b"\x1b[22;1Hready")
while True:
    signal.pause()
"""


def painter(pg, name, how):
    session = pg.start([sys.executable, "-I", "-S", "-c", PAINTER, how], name, scrollback=65536)
    session.wait_for(b"ready", LIMIT_S)
    assert session.info()["offsets"]["start"] > 0
    return session


def test_a_program_that_painted_parts_long_ago_is_asked_to_paint_again(world, pg, name):
    painter(pg, name, "repaints")
    told = world.json("screen", name)
    assert told["is_whole"] and told["rows"][0][0]["text"] == "THE HEADING"


def test_so_it_is_for_who_waits_for_that_part(world, pg, name):
    painter(pg, name, "repaints")
    assert world.run("wait", name, "--screen", "^THE HEADING$", "--timeout", "60").returncode == 0


def test_and_for_who_only_watches(world, pg, name):
    painter(pg, name, "repaints")
    terminal = attach(world, pg.session(name), "-r")
    glass = Glass(terminal)
    wait_until(lambda: glass.look().lines[0].text.startswith("THE HEADING"), "the heading")


def test_what_is_not_known_is_said_and_nothing_is_made_up(world, pg, name):
    session = painter(pg, name, "never")
    done = world.run("screen", name, check=0)
    assert b"what they show is not known" in done.stderr
    assert done.stdout == b"\n" * 19 + b"counter 29999\n\nready\n"
    assert not world.json("screen", name)["is_whole"]
    session.kill()


def test_as_long_as_all_output_is_kept_all_of_it_is_shown(pg, name):
    session = pg.start(["sh", "-c", "printf '\\033[1;1HTHE HEADING'; for i in $(seq 9999); do "
                                    "printf '\\033[20;1Hcounter %d' $i; done; printf ready; cat"], name,
                       scrollback=300 << 10)
    session.wait_for(b"ready", LIMIT_S)
    assert session.info()["offsets"]["end"] > 150 << 10
    screen = session.screen()
    assert screen.is_whole and screen.lines[0].text.startswith("THE HEADING")
