"""Canonical lines: what the terminal would drop is delivered whole, or refused (C-116)."""

import pytest
from hypothesis import given, strategies as st

from ptyguard_core.backend import CanonicalMode
from ptyguard_core.canonical import LineFeeder, longest_line
from world import LIMIT_S, wait_until

EOF_BYTE = b"\x04"


class Kernel:
    """A terminal's line discipline as n_tty.c does it: the lines that a reader gets."""

    def __init__(self, limit):
        self.limit = limit
        self.line = b""
        self.read = b""
        self.has_ended = False

    def type(self, data):
        for at in range(len(data)):
            byte = data[at:at + 1]
            if byte == EOF_BYTE:
                self.has_ended = self.has_ended or self.line == b""
                self.read, self.line = self.read + self.line, b""
            elif byte in b"\r\n":
                self.read, self.line = self.read + self.line + b"\n", b""
            elif len(self.line) < self.limit:
                self.line += byte           # else it is dropped without a word

    def change_mode(self):
        """Into another one, where what stands in the line may be read."""
        self.read, self.line = self.read + self.line, b""


def feed(feeder, kernel, data, mode):
    pieces = []
    while data:
        piece, is_ours = feeder.next_piece(data, lambda: mode)
        assert piece
        kernel.type(piece)
        feeder.wrote(piece)
        pieces.append(piece)
        if is_ours:
            assert data.startswith(piece)
            data = data[len(piece):]
    return pieces


TEXT = st.lists(st.sampled_from([b"a", b"\xff", b"line\n", b"x" * 5, b"cr\r", b"y" * 40, b"\n"])).map(b"".join)


@given(TEXT, st.integers(8, 30), st.integers(0, 6))
def test_no_byte_is_dropped_and_no_end_of_file_invented_whatever_the_lines(data, limit, unasked):
    kernel, feeder = Kernel(limit), LineFeeder(unasked)
    feed(feeder, kernel, data, CanonicalMode(limit, b"\n\r", EOF_BYTE))
    assert kernel.read + kernel.line == data.replace(b"\r", b"\n")
    assert not kernel.has_ended


@given(st.lists(TEXT), st.integers(8, 30), st.integers(0, 6))
def test_nor_when_it_comes_in_pieces(parts, limit, unasked):
    kernel, feeder = Kernel(limit), LineFeeder(unasked)
    for part in parts:
        feed(feeder, kernel, part, CanonicalMode(limit, b"\n\r", EOF_BYTE))
    assert kernel.read + kernel.line == b"".join(parts).replace(b"\r", b"\n")
    assert not kernel.has_ended


@given(st.lists(st.tuples(TEXT, st.booleans())), st.integers(8, 30), st.integers(0, 6))
def test_nor_when_the_mode_changes_between_them(parts, limit, unasked):
    kernel, feeder = Kernel(limit), LineFeeder(unasked)
    wanted = b""
    for part, is_canonical in parts:
        if is_canonical:
            feed(feeder, kernel, part, CanonicalMode(limit, b"\n\r", EOF_BYTE))
            wanted += part.replace(b"\r", b"\n")
        elif part:                              # else nobody can know of it
            kernel.change_mode()
            feed(feeder, Kernel(len(part)), part, None)
    assert kernel.read + kernel.line == wanted
    assert not kernel.has_ended


def test_a_few_keys_do_not_ask_for_the_mode_and_many_do_now_and_then():
    feeder, asked = LineFeeder(), []
    for _ in range(1000):
        feeder.next_piece(b"k", lambda: asked.append(1))
        feeder.wrote(b"k")
    assert 1 <= len(asked) < 10
    feeder.next_piece(b"k" * 500, lambda: asked.append(2))
    assert asked[-1] == 2


def test_what_fits_is_written_as_it_came_in_one_piece():
    mode = CanonicalMode(4095, b"\n", EOF_BYTE)
    for data in (b"a", b"x" * 4095, b"two\nlines\n", b"\n"):
        assert LineFeeder().next_piece(data, lambda: mode) == (data, True)


def test_outside_canonical_mode_nothing_is_cut_or_counted():
    feeder = LineFeeder()
    assert feeder.next_piece(b"x" * 100000, lambda: None) == (b"x" * 100000, True)
    feeder.wrote(b"x" * 100000)
    mode = CanonicalMode(100, b"\n", EOF_BYTE)
    assert feeder.next_piece(b"y" * 99, lambda: mode) == (b"y" * 99, True)


def test_the_cut_comes_behind_an_ordinary_character():
    mode = CanonicalMode(20, b"\n", EOF_BYTE)
    piece, is_ours = LineFeeder(0).next_piece(b"a" * 17 + b"\x16\x15\x17" + b"b" * 30, lambda: mode)
    assert is_ours and piece == b"a" * 17


def test_a_terminal_without_an_end_of_file_character_is_left_alone():
    mode = CanonicalMode(20, b"\n", b"")
    assert LineFeeder(0).next_piece(b"x" * 50, lambda: mode) == (b"x" * 50, True)


@pytest.mark.parametrize("data, length", [(b"", 0), (b"abc", 3), (b"ab\ncdef\r\n", 4), (b"\n\n", 0)])
def test_the_longest_line_is_that_between_two_ends(data, length):
    assert longest_line(data) == length


# -- real terminals -----------------------------------------------------------------------------

LINES = b"".join(bytes([97 + n % 26]) * (1 + n * 997 % 20000) + b"\n" for n in range(20))


@pytest.mark.parametrize("reader", ["cat", "while read -r x; do printf '%s\\n' \"$x\"; done"])
def test_piped_lines_of_any_length_reach_a_canonical_reader_whole(world, tmp_path, reader):
    out = tmp_path / "out"
    world.run("run", "--", "sh", "-c", f"{{ {reader}; }} >{out}", input=LINES, check=0)
    assert out.read_bytes() == LINES


def test_a_piped_line_without_an_end_is_whole_and_then_the_input_ends(world, tmp_path):
    out = tmp_path / "out"
    world.run("run", "--", "sh", "-c", f"cat >{out}", input=b"z" * 50000, check=0)
    assert out.read_bytes() == b"z" * 50000


def test_a_long_line_pasted_into_a_terminal_is_whole(world, pg, name, tmp_path):
    out = tmp_path / "out"
    session = pg.start(["sh", "-c", f"stty -echo; echo ready; cat >{out}"], name)
    session.wait_for(b"ready", LIMIT_S)
    terminal = world.terminal("attach", name)
    terminal.expect(b"ready")
    terminal.send(b"p" * 9000 + b"\r")
    wait_until(lambda: out.exists() and out.read_bytes() == b"p" * 9000 + b"\n", "the line")
    terminal.send(b"\x04")
    assert terminal.wait() == 0


def test_a_sent_line_that_does_not_fit_is_refused_and_nothing_is_typed(world, pg, name):
    session = pg.start(["cat"], name)
    done = world.run("send", name, "--enter", "q" * 4096, check=1)
    assert b"4096 bytes is longer than the 4095" in done.stderr and b"sent 0 of" in done.stderr
    done = world.run("send", name, "-", input=b"short\n" + b"w" * 5000 + b"\n", check=1)
    assert b"canonical mode" in done.stderr
    world.run("send", name, "--enter", "v" * 4095, check=0)
    session.wait_for(b"v" * 4095 + b"\n" + b"v" * 4095, LIMIT_S)
    output = session.read()[1]
    assert b"q" not in output and b"w" not in output and b"short" not in output


def test_a_program_that_reads_raw_gets_lines_of_any_length(world, pg, name, tmp_path):
    out = tmp_path / "out"
    pg.start(["sh", "-c", f"stty raw -echo; echo ready; exec head -c 20000 >{out}"], name) \
        .wait_for(b"ready", LIMIT_S)
    world.run("send", name, "-", input=b"r" * 20000, check=0)
    assert pg.session(name).wait(LIMIT_S)["code"] == 0
    assert out.read_bytes() == b"r" * 20000


def test_sends_that_wait_for_their_turn_are_judged_then(world, pg, name):
    session = pg.start(["sh", "-c", "stty -icanon -echo; echo ready; read x; stty sane; echo $x; cat"], name)
    session.wait_for(b"ready", LIMIT_S)
    world.run("send", name, "--enter", "l" * 5000, check=0)
    session.wait_for(b"l" * 5000, LIMIT_S)
    world.run("send", name, "m" * 5000, check=1)
