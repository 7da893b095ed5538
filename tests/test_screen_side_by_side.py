"""Screen beside tmux: the same bytes, the same cells, cursor and modes.

Whatever is fed to both goes into a pane of a tmux of this test's own, and what that says of the
pane (`capture-pane`, `display-message`) is compared with what `Screen` says.  Where xterm
and tmux differ, `Screen` does what xterm does: see XTERM_NOT_TMUX in test_screen.py and docs/SCREEN.md.
"""

import os
import pathlib
import re
import shutil
import subprocess

import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from ptyguard_core import tables
from ptyguard_core.screen import Screen
from world import wait_until

pytestmark = pytest.mark.skipif(not shutil.which("tmux"), reason="tmux is not installed")

CAPTURES = sorted(pathlib.Path(__file__).parent.joinpath("captures").glob("*.bytes"))
SIZE = (30, 8)

# What tmux tells of a pane: format, and the same of a Screen.
FACTS = {
    "cursor_y": lambda screen: screen.cursor.y,
    # tmux counts a pending wrap as one more column.
    "cursor_x": lambda screen: screen.cursor.x + screen.is_wrap_pending,
    "cursor_flag": lambda screen: screen.cursor.is_visible,
    "alternate_on": lambda screen: screen.is_alternate,
    "insert_flag": lambda screen: "insert" in screen.modes,
    "origin_flag": lambda screen: "origin" in screen.modes,
    "wrap_flag": lambda screen: "autowrap" not in screen.modes,
    "keypad_cursor_flag": lambda screen: "application_cursor" in screen.modes,
    "keypad_flag": lambda screen: "application_keypad" in screen.modes,
    "mouse_standard_flag": lambda screen: screen.modes.get("mouse") == "normal",
    "mouse_button_flag": lambda screen: screen.modes.get("mouse") == "button",
    "mouse_all_flag": lambda screen: screen.modes.get("mouse") == "any",
    "mouse_sgr_flag": lambda screen: screen.modes.get("mouse_encoding") == "sgr",
    "mouse_utf8_flag": lambda screen: screen.modes.get("mouse_encoding") == "utf8",
    "scroll_region_upper": lambda screen: screen.margins[0],
    "scroll_region_lower": lambda screen: screen.margins[1],
    # A stop in the first column does nothing; xterm has one there at first and tmux none.
    "pane_tabs": lambda screen: ",".join(str(x) for x in screen.tab_stops if x),
}
SEPARATOR = "== end =="


class Tmux:
    """A tmux server with one pane, which shows one file after the other."""

    def __init__(self, directory, size):
        self._socket = os.path.join(directory, "tmux")
        self._file = os.path.join(directory, "bytes")
        self._size = size
        self._turn = 0
        self._env = dict({key: value for key, value in os.environ.items() if key not in ("TMUX", "TMUX_PANE")},
                         LC_ALL="C.UTF-8", TERM="xterm-256color", TMUX_TMPDIR=directory)
        self._do("new-session", "-d", "-x", str(size[0]), "-y", str(size[1]), "exec cat")

    def _do(self, *words):
        done = subprocess.run(["tmux", "-u", "-S", self._socket, "-f", "/dev/null"] + list(words), env=self._env,
                              stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=60)
        answer = done.stdout.decode("utf-8", "replace")
        assert done.returncode == 0, answer
        return answer

    def show(self, data):
        """Show these bytes in a fresh pane; return (facts, rows of text, the same with escapes)."""
        self._turn += 1
        marker = f"turn{self._turn}"
        with open(self._file, "wb") as file:
            file.write(data)
        # A title is the last thing that is written, so who sees it sees all that came before.  CAN
        # goes before it, lest it become part of a sequence that has not ended.
        self._do("respawn-pane", "-k",
                 f"stty raw -echo; cat {self._file}; printf '\\030\\033]2;{marker}\\007'; exec sleep 100000")
        wanted = ["display-message", "-p", "#{pane_title}" + "".join("\n#{%s}" % fact for fact in FACTS)
                  + "\n" + SEPARATOR, ";", "capture-pane", "-p", ";", "display-message", "-p", SEPARATOR, ";",
                  "capture-pane", "-p", "-e"]

        def answer():
            parts = self._do(*wanted).split(SEPARATOR + "\n")
            return parts if parts[0].split("\n")[0] == marker else None

        facts, text, styled = wait_until(answer, "the bytes in tmux's pane")
        facts = dict(zip(FACTS, facts.split("\n")[1:]))
        facts["pane_tabs"] = re.sub("^0,?", "", facts["pane_tabs"])
        return facts, text.split("\n")[:self._size[1]], styled

    def show_all(self, data):
        """The history that these bytes make in a fresh pane, as rows of text."""
        self._do("respawn-pane", "-k", "exec cat")
        self._do("clear-history")
        self.show(data)
        rows = self._do("capture-pane", "-p", "-S", "-").split("\n")[:-1]
        return rows[:-self._size[1]]

    def close(self):
        self._do("kill-server")


@pytest.fixture(scope="module")
def panes(tmp_path_factory):
    """`panes(size)`: tmux with a pane of that size, one for each."""
    made = {}

    def of(size):
        if size not in made:
            made[size] = Tmux(str(tmp_path_factory.mktemp("tmux")), size)
        return made[size]

    yield of
    for tmux in made.values():
        tmux.close()


def facts_of(screen):
    answers = {name: fact(screen) for name, fact in FACTS.items()}
    return {name: str(int(answer)) if isinstance(answer, (bool, int)) else answer for name, answer in answers.items()}


def as_tmux_shows(text, row):
    """`row` of a Screen with what tmux keeps as the letters that were written, where it does: line drawing."""
    row = row.rstrip(" ")
    letters = {drawn: chr(code) for code, drawn in tables.DEC_GRAPHICS.items()}
    if len(text) == len(row):
        row = "".join(letters[mine] if mine != theirs == letters.get(mine) else mine
                      for mine, theirs in zip(row, text))
    return row


def looks_of(screen):
    """How each character looks, row by row, as far as tmux 3.3 tells: not of blanks behind a row's end, no links."""
    rows = []
    for line in screen.lines:
        length = len(line.text.rstrip(" "))
        cells = [(char, attr._replace(link=None)) for char, attr in zip(line.chars, line.attrs) if char != ""]
        rows.append([(char, attr) for char, attr in cells][:length])
    return rows


def assert_equal(tmux, data, size):
    """tmux and Screen show the same after these bytes."""
    facts, text, styled = tmux.show(data)
    screen = Screen(size)
    screen.feed(data)
    screen.feed(b"\x18")
    assert text == [as_tmux_shows(row, line.text) for row, line in zip(text, screen.lines)]
    assert facts == facts_of(screen)
    # tmux writes colours and line drawing as sequences; another Screen reads them.
    reader = Screen((size[0], size[1] + 1))
    reader.feed(b"\x1b)0" + styled.replace("\n", "\r\n").encode("utf-8"))
    del reader.lines[size[1]:]
    assert looks_of(reader) == looks_of(screen)


# --- real programs ---------------------------------------------------------------------------------

def cuts(data):
    """Where a picture of the screen on the way is taken: before a sequence, and at the end."""
    starts = [match.start() for match in re.finditer(rb"\x1b", data)]
    return sorted({starts[len(starts) * part // 7] for part in range(1, 7)} | {len(data)})


@pytest.mark.parametrize("path", CAPTURES, ids=lambda path: path.stem)
def test_a_real_program_looks_the_same_in_tmux(panes, path):
    size = tuple(map(int, path.stem.rsplit("-", 1)[1].split("x")))
    data = path.read_bytes()
    for cut in cuts(data):
        assert_equal(panes(size), data[:cut], size)


@pytest.mark.parametrize("data, size", [
    ("".join(f"line {n}\r\n" for n in range(300)), (30, 8)),
    ("".join(f"long line {n} " * (n % 9) + "\r\n" for n in range(99)), (30, 8)),
    ("\x1b[?1049h" + "x\r\n" * 20 + "\x1b[?1049ly\r\n" * 9, (30, 8)),
    ("".join(f"line {n}\r\n" for n in range(20)) + "\x1b[3S\x1b[2T\x1b[8;1H" + "\n" * 5, (30, 8)),
] + [(path.read_bytes(), tuple(map(int, path.stem.rsplit("-", 1)[1].split("x")))) for path in CAPTURES
     if path.stem.startswith(("git", "build", "bash", "vim-left", "less"))], ids=lambda value: ascii(value)[:20])
def test_the_history_is_the_same_in_tmux(panes, data, size):
    data = data if isinstance(data, bytes) else data.encode("utf-8")
    screen = Screen(size)
    screen.feed(data)
    assert panes(size).show_all(data) == [line.text.rstrip() for line in screen.history]


# --- sequences written by hand -----------------------------------------------------------------------

FILL = "".join(f"\x1b[{row};1Hrow {row} abcdefghijklmnopqrstuvw" for row in range(1, 9)) + "\x1b[4;6H"

SEQUENCES = [
    "plain", "one\r\ntwo\r\n", "x" * 30, "x" * 31, "x" * 30 + "\r\ny", "x" * 300, "a\tb\tc", "a\bb", "\t\t\t\t\tx",
    "".join(f"{n}\r\n" for n in range(20)), "a\x0bb\x0cc", "a\nb", "\x00a\x7fb\x05",
    "é ñ ü Ελληνικά кириллица", "漢字かな한글", "x" * 29 + "漢", "x" * 28 + "漢y", "e\u0301a\u0308", "\u200bx",
    "\U0001f680 \U0001f600", "\U0001f469\u200d\U0001f469\u200d\U0001f467 family", "\U0001f1e9\U0001f1ea flag",
    "\u1112\u1161\u11ab", "\u00ad\u0600", "─│┌┐ ▀▄█ ⣿", "\ue0b0\ue0b2",
    "漢字\x1b[1;1Hx", "a漢字\x1b[1;3Hxy", 
    "漢字語\x1b[1;3H\x1b[@", "漢字語\x1b[1;3H\x1b[2X",
    "\x1b[H", "\x1b[3;4H", "\x1b[99;99H", "\x1b[0;0H", "\x1b[5H", "\x1b[;5H", "\x1b[2;2f", "\x1b[3;5H\x1b[99A",
    "\x1b[3;5H\x1b[2A", "\x1b[3;5H\x1b[2B", "\x1b[3;5H\x1b[2C", "\x1b[3;5H\x1b[2D", "\x1b[3;5H\x1b[E",
    "\x1b[3;5H\x1b[F",
    "\x1b[3;5H\x1b[9G", "\x1b[3;5H\x1b[9`", "\x1b[3;5H\x1b[6d", "\x1b[3;5H\x1b[99B", "\x1b[99D", "\x1b[A", "\x1b[0A",
    FILL + "\x1b[J", FILL + "\x1b[1J", FILL + "\x1b[2J", FILL + "\x1b[3J", FILL + "\x1b[K", FILL + "\x1b[1K",
    FILL + "\x1b[2K", FILL + "\x1b[3X", FILL + "\x1b[99X", FILL + "\x1b[3P", FILL + "\x1b[99P", FILL + "\x1b[3@",
    FILL + "\r\x1b[L", FILL + "\r\x1b[3L", FILL + "\r\x1b[99L", FILL + "\r\x1b[M", FILL + "\r\x1b[3M",
    FILL + "\x1b[S", FILL + "\x1b[3S", FILL + "\x1b[99S", FILL + "\x1b[T", FILL + "\x1b[3T",
    FILL + "\x1b[4hXYZ\x1b[4l",
    FILL + "\x1bD", FILL + "\x1bM", FILL + "\x1bE", FILL + "\x1b[8;1H\x1bD", FILL + "\x1b[1;1H\x1bM", FILL + "\x1b#8",
    FILL + "\x1b[3;6r", FILL + "\x1b[3;6r\x1b[6;1H\n", FILL + "\x1b[3;6r\x1b[3;1H\x1bM",
    FILL + "\x1b[3;6r\x1b[8;1H\n",
    FILL + "\x1b[3;6r\x1b[1;1H\x1bM", FILL + "\x1b[3;6r\x1b[2S", FILL + "\x1b[3;6r\x1b[2T",
    FILL + "\x1b[3;6r\x1b[4;1H\x1b[L",
    FILL + "\x1b[3;6r\x1b[4;1H\x1b[9M", FILL + "\x1b[3;6r\x1b[5;1H\x1b[9A",
    FILL + "\x1b[3;6r\x1b[5;1H\x1b[9B", FILL + "\x1b[3;6r\x1b[8;1H\x1b[9A", FILL + "\x1b[3;6r\x1b[1;1H\x1b[9B",
    FILL + "\x1b[3;6r\x1b[?6h\x1b[2;2HX", FILL + "\x1b[3;6r\x1b[?6h\x1b[9;9HX", FILL + "\x1b[3;6r\x1b[?6h\x1b[2dX",
    FILL + "\x1b[3;6r\x1b[?6h\x1b[?6l", FILL + "\x1b[6;3r", FILL + "\x1b[5;5r", FILL + "\x1b[3;99r", FILL + "\x1b[r",
    FILL + "\x1b7\x1b[H\x1b8X", FILL + "\x1b[s\x1b[H\x1b[uX", FILL + "\x1b[31m\x1b7\x1b[0m\x1b[H\x1b8X", "\x1b8X",
    FILL + "\x1bc", "\x1b[3g\tx", "\x1b[5G\x1bH\r\tx", "\x1b[9G\x1b[g\r\tx", "\x1b[20G\x1b[Zx", "\x1b[20G\x1b[2Zx",
    "\x1b(0lqqqk\x1b(B", "\x1b)0\x0elqk\x0flqk", "\x1b(0_`afghijklmnopqrstuvwxyz{|}~\x1b(B",
    "x\x1b[5b",
    "\x1b[?7l" + "0123456789" * 4, "\x1b[?7l" + "x" * 29 + "漢", "\x1b[?7l\x1b[?7h" + "x" * 33,
    "\x1b[?1049h", "main\x1b[?1049halt", "main\x1b[?1049halt\x1b[?1049l!", "main\x1b[?1047halt\x1b[?1047l!",
    "ma\x1b[?47halt\x1b[?47l!",
    FILL + "\x1b[?1049h\x1b[Hx\x1b[?1049ly", "\x1b[?25l", "\x1b[?25l\x1b[?25h", "\x1b[?1h\x1b=",
    "\x1b[?1h\x1b[?1l\x1b=\x1b>",
    "\x1b[?1000h", "\x1b[?1002h", "\x1b[?1003h", "\x1b[?1003h\x1b[?1000l", "\x1b[?1000;1006h", "\x1b[?1005h",
    "\x1b[?1006h\x1b[?1006l",
    "\x1b[?2004h", "\x1b[?1004h", "\x1b[?2026h",
    "\x1b[1mb\x1b[2mf\x1b[3mi\x1b[4mu\x1b[5mb\x1b[7mr\x1b[8mh\x1b[9ms\x1b[0mn",
    "\x1b[1;22ma\x1b[3;23mb\x1b[4;24mc\x1b[7;27md",
    "\x1b[31mr\x1b[92mg\x1b[44mb\x1b[105mm\x1b[39;49mn", "\x1b[38;5;123ma\x1b[48;5;200mb",
    "\x1b[38;2;1;2;3ma\x1b[48;2;4;5;6mb",
    "\x1b[38:5:99ma\x1b[48:2::9:8:7mb\x1b[38:2:1:2:3mc",
    "\x1b[4:3ma\x1b[4:2mb\x1b[4:4mc\x1b[4:5md\x1b[4:0me\x1b[21mf",
    "\x1b[4;58;5;9ma\x1b[58:2::1:2:3mb\x1b[59mc", "\x1b[44mx\x1b[K\x1b[2;1Hy\x1b[0m\x1b[2;9Hz", "\x1b[;;1mx\x1b[mx",
    "\x1b[44m\x1b[2Jx\x1b[3;3H\x1b[0my", "\x1b[41m" + "\n" * 9 + "x\x1b[0m\x1b[8;9Hy",
    "a\x1b[31\nmb", "a\x1b[3\x181mb", "a\x1b[3\x1b[Cb", "a\x1bP1;2q#0~~\x1b\\b", "a\x1b_Gx\x1b\\b", "a\x1b^x\x1b\\b",
    "a\x1bXy\x1b\\b",
    "a\x1b]777;x;y\x07b", "a\x1b]4;1;rgb:ff/ff/ff\x1b\\b", "a\x1b[?3;2;1$yb", "a\x1b[<1;2;3Mb", "a\x1b%Gb",
    "a\x1b[1;2;?3hb", "a\x1b]0;" + "x" * 3000 + "\x07b", "\xff\xfe", "a\x1b[2 qb",
]


@pytest.mark.parametrize("data", SEQUENCES, ids=lambda data: ascii(data.replace(FILL, "FILL "))[:60])
def test_a_sequence_does_the_same_in_tmux(panes, data):
    assert_equal(panes(SIZE), data.encode("utf-8"), SIZE)


@pytest.mark.parametrize("data", [b"a\xffb", b"a\xe2\x82b", b"\xc0\xafb", b"\xf0\x9f\x98b", b"a\xe2\x82\x1b[31mb"])
def test_tmux_and_we_recover_at_the_same_place_from_invalid_bytes(panes, data):
    facts, text, _ = panes(SIZE).show(data)
    screen = Screen(SIZE)
    screen.feed(data)
    assert text[0].replace("\ufffd", "") == screen.lines[0].text.rstrip().replace("\ufffd", "")


# --- random ones ---------------------------------------------------------------------------------------

numbers = st.integers(0, 9) | st.sampled_from(["", 30, 31])
ALPHABET = "abcXYZ 0123é─漢字"
texts = st.text(ALPHABET, max_size=20) | st.text(ALPHABET, min_size=25, max_size=40)
newlines = st.sampled_from(["\r\n", "\r", "\r\n\r\n"])
colours = st.sampled_from(["", "1", "4", "7", "31", "44", "38;5;200", "48;2;1;2;3", "22", "24", "39", "49", "0;32",
                           "4:3"])
steps = st.one_of(
    texts, newlines,
    st.builds("\x1b[{};{}H".format, numbers, numbers),
    st.builds("\x1b[{}{}".format, numbers, st.sampled_from(list("ABCDEFGdST"))),
    # Counts that fit: a greater one is ignored by tmux and clamped by xterm.
    st.builds("\x1b[{}G\x1b[{}{}".format, st.integers(1, 15), st.integers(1, 9), st.sampled_from("@PX")),
    st.builds("\x1b[{}{}".format, st.sampled_from(["", 0, 1, 2]), st.sampled_from("JK")),
    st.builds("\x1b[{};{}r".format, st.integers(1, 4), st.integers(5, 8)),
    st.builds("\x1b[{}m".format, colours),
    # tmux leaves the column as it is and takes no notice of the margins here.
    st.builds("\x1b[r\x1b[{}H\x1b[{}{}\r".format, st.integers(1, 8), st.integers(1, 9), st.sampled_from("LM")),
    st.sampled_from(["\x1bD", "\x1bE", "\x1bM", "\x1b[r", "\x1b7", "\x1b8", "\t", "\x1b[4h", "\x1b[4l", "\x1b[?6h",
    "\x1b[?6l",
                     "\x1bH", "\x1b[g", "\x1b[Z", "\x1b(0", "\x1b(B", "\x1b[?1049h", "\x1b[?1049l", "\x1b[?25l",
                     "\x1b#8"]))


def is_apart(screen, step):
    """Would the two differ here: by half of a wide character, insert mode, or where margins send the cursor?"""
    line = screen.lines[screen.cursor.y]
    if step[0] >= " ":
        is_wide = "漢" in step or "字" in step or any("" in each.chars for each in screen.lines)
        # In insert mode tmux makes room for a run of text at once, in the line that it begins in.
        wraps = screen.is_wrap_pending or len(step) > screen.size[0] - screen.cursor.x
        return line.chars[screen.cursor.x] == "" or "insert" in screen.modes and (is_wide or wraps)
    return step[-1] in "@PXJK" and "" in line.chars or step[-1] == "r" and "origin" in screen.modes


def as_both_understand(steps):
    """The bytes of `steps`, less what the two are known to do differently."""
    screen = Screen(SIZE)
    done = []
    for step in filter(None, steps):
        if is_apart(screen, step) or "1049" in step and ("h" in step) == screen.is_alternate:
            continue
        if step[0] < " " and screen.is_wrap_pending:
            step = "\r" + step
        elif step[0] >= " " and any("" in line.chars for line in screen.lines):
            step = "\x1b[49m" + step     # what remains of half a character has this background in xterm only
        if "1049" in step:
            step += "\x1b7"              # xterm saves the cursor where DECSC does, one for each screen
        done.append(step)
        screen.feed(step.encode("utf-8"))
    return "".join(done).encode("utf-8")


@settings(max_examples=60, suppress_health_check=list(HealthCheck))
@given(st.lists(steps, max_size=25))
def test_random_sequences_do_the_same_in_tmux(panes, steps):
    assert_equal(panes(SIZE), as_both_understand(steps), SIZE)
