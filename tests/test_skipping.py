"""Skipping: a screen that was not fed all output is the same as one that was, cell by cell and state by state."""

import pathlib
from unittest import mock

import pytest
from hypothesis import HealthCheck, example, given, settings, strategies as st

from ptyguard_core import skipping
from ptyguard_core.replay import Replay
from ptyguard_core.screen import UNKNOWN, Screen
from ptyguard_core.viewing import Making, replayed

CAPTURES = sorted(pathlib.Path(__file__).parent.joinpath("captures").glob("*.bytes"))


def told(sizes, sequences=b"", offset=0):
    return {"past": {"sequences": sequences.decode("latin-1"), "sizes": [[0, *sizes[0]]] + [
        [offset + at, *size] for at, size in sizes[1:]]}}


def made_whole(facts, data, end_offset, history_max):
    """The same with nothing skipped."""
    replay = Replay(dict(facts["past"], offset=end_offset - len(data)), history_max)
    replay.feed(data)
    return replay


def cells(lines):
    return [(line.chars, [attr is UNKNOWN or attr for attr in line.attrs], line.is_wrapped) for line in lines or ()]


def everything(screen):
    """All that is to be seen of a screen, and what only later output would show."""
    return {
        "lines": cells(screen.lines), "hidden": cells(screen._hidden), "history": cells(screen.history),
        "cursor": (screen.cursor, screen.is_wrap_pending, screen._saved, screen.attr, screen._blank, screen._last),
        "modes": (screen.modes, screen.margins, screen.is_alternate, screen._keyboard, screen._shape),
        "tabs": (screen.tab_stops, screen._tabs, screen._tabs_made),
        "charsets": (screen.charsets, screen._single, screen._translation),
        "strings": (screen.title, screen.icon_title, screen._titles, screen.cwd, screen.palette),
        "begun": (screen._held, screen._skipped, screen._decoder.getstate()), "size": screen.size,
    }


def marks(screen):
    """Those of lines that are kept."""
    first = screen.lines_scrolled - len(screen.history)
    return [(mark.kind, mark.line - screen.lines_scrolled, mark.detail) for mark in screen.marks if mark.line >= first]


def assert_same(data, sizes, history_max, sequences=b"", offset=0, then=(), guess_bytes=skipping.GUESS_BYTES):
    """Nothing tells a screen for which output was skipped from one for which none was, now and later on."""
    facts = told(sizes, sequences, offset)
    end_offset = offset + len(data)
    whole = made_whole(facts, data, end_offset, history_max)
    with mock.patch.multiple(skipping, GUESS_BYTES=guess_bytes, LEAST_BYTES=1):
        short = replayed(facts, data, end_offset, history_max)
    for later in (b"", *then):
        whole.feed(later)
        short.feed(later)
        assert everything(short.screen) == everything(whole.screen)
        assert short.offset == whole.offset
        assert marks(whole.screen)[-len(marks(short.screen)) or len(whole.screen.marks):] == marks(short.screen)


def fed_bytes(data, size, history_max):
    """How many bytes a screen is fed in the end."""
    with mock.patch.object(skipping, "LEAST_BYTES", 1):
        made = skipping.plan(data, Screen(size, history_max), history_max).pieces
    assert made[0][0] == 0 and [end for _, end, _ in made[:-1]] == [start for start, _, _ in made[1:]]
    return sum(end - start if instead is None else len(instead) for start, end, instead in made)


# --- real programs ------------------------------------------------------------------------------

def size_of(path):
    return tuple(map(int, path.stem.rsplit("-", 1)[1].split("x")))


# What a session sees when it has been in use.
REMAINS = [b"", b"\x1b[?1049h\x1b[1;31m\x1b[2;5r", b"\x1b(0\x0e\x1b[4h\x1b[?25l\x1b]0;old\x07"]
AFTERWARDS = [b"more\x1b[K\x1b[5C\ttext", b"\x1b8here", b"\x1b[?1047l\x1b[?47hx\x1b[?47l", b"line\r\n" * 9,
              b"\x1b[?1049l", b"\x1b8\x1b[23tthere\x1b[<u", b"\x1b[?1049h"]


@pytest.mark.parametrize("history_max", [0, 40])
@pytest.mark.parametrize("path", CAPTURES, ids=lambda path: path.stem)
def test_a_real_program_looks_the_same_wherever_its_output_begins(path, history_max):
    data = path.read_bytes()
    data *= 30000 // len(data) + 2
    for number in range(12):
        start = number * 811
        assert_same(data[start:start + 30000 - 37 * number], [size_of(path)], history_max, REMAINS[number % 3],
                    offset=number % 2 * start, then=AFTERWARDS, guess_bytes=500 << number % 5)


@pytest.mark.parametrize("history_max", [0, 40, 1000])
def test_programs_one_after_the_other_look_the_same(history_max):
    outputs = [path.read_bytes() for path in CAPTURES]
    lines = b"".join(b"$ \x1b[32mline\x1b[m %d\r\n" % number for number in range(400))
    for number in range(len(outputs)):
        data = lines.join(outputs[number:] + outputs[:number])
        assert_same(data[number * 100:], [(80, 24)], history_max, then=AFTERWARDS)


@pytest.mark.parametrize("name", ["build", "dialog", "git", "htop", "less", "mc", "vim", "vim-left"])
def test_most_of_a_real_program_is_skipped(name):
    path, = (path for path in CAPTURES if path.stem.rpartition("-")[0] == name)
    data = path.read_bytes() * 100
    assert fed_bytes(data, size_of(path), 0) < len(data) // 7


@pytest.mark.parametrize("line", [b"plain\r\n", b"\x1b[1;31mred\x1b[0m\r\n", b"\x1b]0;title\x07\x1b[?2004h$ ls\x1b[K\r\n",
                                  "\u2764\ufe0f \u6f22\u5b57\r\n".encode()])
@pytest.mark.parametrize("history_max", [0, 100])
def test_lines_that_have_scrolled_away_are_skipped(line, history_max):
    data = b"\x1b[?1049hother\x1b[?1049l" + line * 1000
    assert fed_bytes(data, (80, 24), history_max) < len(line) * (history_max + 52) + 100
    assert_same(data, [(80, 24)], history_max, then=AFTERWARDS)


def test_what_a_screen_has_shown_before_it_was_left_is_skipped():
    data = b"one\r\n" * 20 + b"\x1b[?1049h" + b"\x1b[H\x1b[2Jframe\x1b[5;5Hx" * 1000 + b"\x1b[?1049l" + b"two\r\n"
    assert fed_bytes(data, (80, 24), 100) < 500
    assert_same(data, [(80, 24)], 100, then=AFTERWARDS)


# --- a guess -----------------------------------------------------------------------------------------

FRAME = b"\x1b[1;1Htop \x1b[K\r\n\x1b[7mhead\x1b[m\x1b[K\r\nrow\x1b[K\r\n\x1b[J"


def steps_of(making):
    count = 1
    while not making.step():
        count += 1
    return count


@pytest.mark.parametrize("size", [(20, 4), (20, 9)])
def test_frames_that_draw_all_anew_are_skipped_but_the_last(size):
    data = b"old\r\nold\r\nold\r\n\x1b[32m" + FRAME * 2000
    making = Making(told([size]), data, len(data), 0)
    assert steps_of(making) == 2
    assert_same(data, [size], 0, then=AFTERWARDS)


@pytest.mark.parametrize("before, frame", [
    (b"old\x1b[5;1Hstays", b"\x1b[1;1Hframe\x1b[K\r\n"),
    # A line that is drawn over in all its cells goes on in the next one as it did.
    (b"\x1b[?7h" + b"0123456789x", b"\x1b[1;1H012345678\x1b[1;10H9\x1b[2;1H\x1b[J"),
    (b"\x1b[2;5H\xe2\x9d\xa4", b"\x1b[1;1H\x1b[K\x1b[2;1Habcd\x1b[2;6H\xef\xb8\x8f\x1b[2;5H_\x1b[K\x1b[3;1H\x1b[J"),
    (b"\x1b[2;5Ha\xe2\x80\x8d", b"\x1b[1;1H\x1b[K\x1b[2;1Habcd\x1b[2;6H\xf0\x9f\x9a\x80\x1b[D\x1b[1K\x1b[K\x1b[3;1H\x1b[J")])
def test_what_shines_through_is_not_guessed_away(before, frame):
    for count in range(40, 44):
        assert_same(before + frame * count, [(10, 5)], 0, then=AFTERWARDS, guess_bytes=len(frame) + 3)


# --- what could go wrong ----------------------------------------------------------------------------

LINES = b"line\r\n" * 60


@pytest.mark.parametrize("before", [
    b"\x1b[?6h\x1b7\x1b[?6l\x1b[2;3r\x1b8", b"\x1b[?6h\x1b7\x1b[?6l\x1b[2;3r" + LINES + b"\x1b8", b"\x1b[2;3r", b"\x1b[2;3r\x1b[1;4r", b"\x1b[2;3r\x1b[r", b"\x1b[3;2r", b"\x1b[;9r", b"\x1b[2;3r\x1b[!p", b"\x1b[?6h",
    b"\x1b[?69h\x1b[2;5s", b"\x1b[?45h", b"\x1b[?7l", b"\x1b[4h", b"\x1b[20h", b"\x1bN", b"\x1bO", b"\x1b(0", b"\x0e", b"\x0e\x1bn\x0f",
    b"\x1b]0;\x0e\x07", b"\x1bP\x0e\x1b\\", b"\x0e\x1b]2;\x0f\x1b\\", b"\x1b*0\x1bn", b"\x1b*0\x0f\x1bn", b"\x1b*t\x1b*9", b"\x1b[22t\x1b*t\x1b*9\x1b[23t", b"\x1b[3g", b"\x1b[5G\x1bH", b"\x1b[5G\x1b[g",
    b"\x1b[?5W", b"\x1b7", b"\x1b[2;2H\x1b7", b"\x1b[2;2H\x1b[s", b"\x1b[3;3H\x1b[?1048h", b"\x1b[1;31m\x1b7\x1b[m\x1b8", b"\x1b[1m\x0e\x1b[?1049h\x1b[m\x0f\x1b8",
    b"\x1b[?1049h", b"\x1b[?1049hx\x1b[?1049l", b"\x1b[?47hx\x1b[?47l", b"\x1b[?1047hx\x1b[41m\x1b[?1047l", b"\x1b[?1049hx\x1b[?47l",
    b"\x1b[?47hx\x1b[?47l\x1bH\x1b[1;1Hy\x1b[H\x1b[2J\x1b[?1049h\x1b[?47l\x1b[H\x1b[2J\x1b7",
    b"\x1b[?1049hz\x1b[?7l\x1b[?1049l0123456789abc\x1b[?1049hz\x1b[?7l\x1b[?1049l",
    b"\x1b[?1049;25l", b"\x1b[?25;1049h", b"\x1b[?1049h\x1b[H\x1b[2Jx\x1b[?1049;25l\x1b[?25;1049h\x1b[H\x1b[2J", b"\x1b[?1049;1047h", b"\x1b[?01049h", b"\x1b[?1047h\x1b7\x1b[4;4H\x1b7\x1b[?1049l",
    b"\x1bc", b"\x1b[!p", b"\x1b#8", b"\x1b[3J", b"\x1b[?3J", b"\x1b[1;31m", b"\x1b]8;;http://x\x07", b"\x1b[0;1m\x1b[4m",
    b"\x1b]0;t\x07\x1b[22t\x1b]0;u\x07\x1b[23t", b"\x1b[22;0;0t", b"\x1b[>1u\x1b[>5u\x1b[<u", b"\x1b[=3;2u", b"\x1b[5 q",
    b"\x1b[>4;2m", b"\x1b=", b"\x1b[?1000;1006h", b"\x1b[?1005h\x1b[?1006h\x1b[?1006l", b"\x1b]4;1;#123456\x07\x1b]104;2\x07",
    b"\x1b]11;#fff\x07", b"\x1b]7;file:///tmp\x07", b"\x1b]133;A\x07", b"\x1b[3\r1m", b"\x1b[?10\n49h", b"\x1b\x0f7", b"\x1b]\x000;t\x07",
    b"\x1b[1\x18", b"\x1bP1;2\x1b[H\x1b[2J", b"\x1bPx\r\n", b"\x1bkname\x1b\\", b"\x1b[12\x1b[H\x1b[2J", b"\x1b]0;x\x1b[H\x1b[2J",
    b"\xe2\x82", b"\xff", b"\x1b[\xc2\x8531m", b"\x1b[" + b"0" * 600 + b"m", b"\x1b[?" + b"0" * 600 + b"1049h", b"\x1b[" + b"9" * 70 + b"r",
    b"\t\t\xef\xb8\x8f", b"\x1b%G", b"\x1b%8", b"\x1b $8", b"\x1b[1;2;3$r", b"\x1b[?7r", b"\x1b[?1u", b"\x1b[!!p"])
@pytest.mark.parametrize("after", [b"\x1b[H\x1b[2J", b"\x1b[H\x1b[J", b"\x1b[2J\x1b[3;4H", b"\x1b[2J", LINES, b"\x1b[?1049h",
                                   b"\x1b[?1049l", LINES + b"\x1b[?1049htop\x1b[H\x1b[2J", b"\x1bc"],
                         ids=lambda data: ascii(data)[:16])
def test_state_that_is_set_in_skipped_output_is_kept(before, after):
    for history_max in (0, 7):
        for inside in (b"", b"\x1b[?1049h"):
            data = b"\xf0\x9f\x98\x80" + LINES + inside + b"\x1b[2;3Hthere" + before + b"text\x1b[35mmore" + after + b"end"
            assert_same(data, [(10, 4)], history_max, then=[b"".join(AFTERWARDS[:3]), b"".join(AFTERWARDS[3:])])


@pytest.mark.parametrize("begins, ends", [(b"\x1bP", b"\x1b\\"), (b"\x1bk", b"\x1b\\"), (b"\x1b]0;", b"\x07"), (b"\x1b]9;", b"\x1b\\"),
                                          (b"\x1b_", b"\x18"), (b"\x1b[?", b"h")])
def test_a_line_that_is_part_of_a_string_is_none(begins, ends):
    for count in range(5, 12):
        data = LINES + begins + b"not\r\na\r\nline\r\n" + ends + b"line\r\n" * count
        assert_same(data, [(10, 4)], 0, then=AFTERWARDS)


# --- anything ---------------------------------------------------------------------------------------

WORDS = [
    b"word", b"a much longer line than fits", b"\r\n", b"\r\n\r\n", b"\n", b"\r", b"\b", b"\t", b"\x0b", b"\x0e", b"\x0f", b"\x18",
    "\u6f22\u5b57\u304b".encode(), "\u2764\ufe0f".encode(), "\U0001f469\u200d\U0001f467".encode(), b"\xef\xb8\x8f", b"\xe2\x80\x8d",
    b"\xf0\x9f", b"\xff", LINES, b"l\xc3\xa9\r\n" * 30, b"\x1b[31mc\x1b[m\r\n" * 25, b"\x1b[K\r\n\x1b[1mx" * 25, b"0123456789abc\r\n" * 12,
    b"\x1b[m", b"\x1b[0m", b"\x1b[1m", b"\x1b[41m", b"\x1b[38;5;9m", b"\x1b[0;4m", b"\x1b[7;31m",
    b"\x1b[H", b"\x1b[2;3H", b"\x1b[4;1H", b"\x1b[9;9f", b"\x1b[A", b"\x1b[2A", b"\x1b[3B", b"\x1b[C", b"\x1b[5D", b"\x1b[6G", b"\x1b[2d",
    b"\x1b[J", b"\x1b[1J", b"\x1b[2J", b"\x1b[3J", b"\x1b[K", b"\x1b[1K", b"\x1b[2K", b"\x1b[2P", b"\x1b[@", b"\x1b[3X", b"\x1b[L", b"\x1b[M",
    b"\x1b[S", b"\x1b[T", b"\x1bM", b"\x1bD", b"\x1bE", b"\x1b[5b", b"\x1b[I", b"\x1b[Z", b"\x1b[H\x1b[2J", b"\x1b[H\x1b[J", b"\x1b[H\x1b[2J\x1b[3J",
    b"\x1b[H\x1b[0;44m\x1b(B\x1b[2J", b"\x1b[2J\x1b[32m\x1b[2;2H", b"\x1b[1;1H\x1b[?25l\x1b[J",
    b"\x1b7", b"\x1b8", b"\x1b[s", b"\x1b[u", b"\x1b[?1048h", b"\x1b[?1048l", b"\x1b[?1049h", b"\x1b[?1049l", b"\x1b[?1047h", b"\x1b[?1047l",
    b"\x1b[?47h", b"\x1b[?47l", b"\x1b[?1049h\x1b[22;0;0t\x1b[1;4r\x1b[H\x1b[2J", b"\x1b[?12;25h\x1b[?1049l\x1b[23;0;0t",
    b"\x1b[r", b"\x1b[2;3r", b"\x1b[1;4r", b"\x1b[2r", b"\x1b[4h", b"\x1b[4l", b"\x1b[20h", b"\x1b[20l", b"\x1b[?7l", b"\x1b[?7h", b"\x1b[?25l",
    b"\x1b[?1000h", b"\x1b[?1006h", b"\x1b[?1006l", b"\x1b[?1005h", b"\x1b[?1000;1006h", b"\x1b[?2004h", b"\x1b[?2004l", b"\x1b[?66h",
    b"\x1b=", b"\x1b>", b"\x1b[2 q", b"\x1b[>4;1m", b"\x1b(0", b"\x1b(B", b"\x1b)0", b"\x1b*A", b"\x1bn", b"\x1bo",
    b"\x1b[>1u", b"\x1b[<u", b"\x1b[=2;2u", b"\x1b]0;title\x07", b"\x1b]2;other\x1b\\", b"\x1b]1;i\x07", b"\x1b]8;;u:x\x07", b"\x1b]8;;\x07",
    b"\x1b]4;1;#112233\x07", b"\x1b]104\x07", b"\x1b]10;#fff;#000\x07", b"\x1b]110\x07", b"\x1b]7;file://h/x\x07", b"\x1b]133;A\x07",
    b"\x1b[22t", b"\x1b[23t", b"\x1b[!p", b"\x1bP+q\x1b\\", b"\x1b_x\x1b\\", b"\x1b[6n", b"\x1b[c"]
RARE = [b"\x1bc", b"\x1bH", b"\x1b[g", b"\x1b[3g", b"\x1bN", b"\x1b#8", b"\x1b[?6h", b"\x1b[?6l", b"\x1b[?69h", b"\x1b[2;6s", b"\x1b[?69l",
        b"\x1b[?45h", b"\x1b[3\n1m", b"\x1b]0;cut", b"\x1bPcut", b"\x1b[1", b"\x1b", b"\x1b[?1049;1048h", b"\x1b]0;a\x0eb\x07", b"\x1b[?5W"]
some_output = st.lists(st.sampled_from(WORDS * 3 + RARE) | st.sampled_from(WORDS) | st.binary(max_size=4), max_size=30).map(b"".join)
some_sizes = st.sampled_from([(10, 4), (7, 3), (20, 6), (1, 1), (2, 2), (30, 1)])
without_shrinking_time = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])


@without_shrinking_time
@given(some_output, some_sizes, st.sampled_from([0, 0, 1, 5, 40]), some_output, st.lists(some_output, max_size=2),
       st.sampled_from([5, 20, 100, 500]))
@example(LINES + b"\x1b[31mred\r\n" * 50, (10, 4), 0, b"", [], 500)
def test_any_output_makes_the_same_screen(data, size, history_max, before, then, guess_bytes):
    assert_same(data, [size], history_max, before, len(before), [b"\x18"] + then, guess_bytes)


@without_shrinking_time
@given(st.lists(some_output, min_size=2, max_size=4), st.lists(some_sizes, min_size=4, max_size=4), st.sampled_from([0, 9]))
def test_any_output_in_changing_sizes_makes_the_same_screen(outputs, sizes, history_max):
    changes, at = [sizes[0]], 0
    for size, output in zip(sizes[1:], outputs[:-1]):
        at += len(output)
        changes.append((at, size))
    assert_same(b"".join(outputs), changes, history_max, then=AFTERWARDS)


@without_shrinking_time
@given(st.sampled_from(CAPTURES).map(lambda path: path.read_bytes() * 3), st.integers(0, 9000), st.integers(0, 9000),
       some_output, some_sizes | st.just((80, 24)), st.sampled_from([0, 20]))
def test_a_real_program_between_anything_looks_the_same(data, start, count, other, size, history_max):
    assert_same(other + data[start:start + count] + other, [size], history_max, then=AFTERWARDS, guess_bytes=count // 3)


def test_the_pieces_are_fed_in_steps_and_skipped_ones_in_one():
    making = Making(told([(80, 24)]), b"x\x1b[K\r\n" * 30000, 180000, 0)
    assert steps_of(making) == 2 and making.replay.offset == 180000


def test_what_is_fed_in_the_place_of_skipped_output_is_fed_in_steps_too():
    data = (b"\x1bc" + b"x" * 100) * 9000
    making = Making(told([(500, 200)]), data, len(data), 0)
    assert steps_of(making) > 10 and making.replay.offset == len(data)
