"""Screen: bytes in, cells out."""

import os
import pathlib

import pytest
from hypothesis import example, given, settings, strategies as st

from ptyguard_core import screen as room, tables
from ptyguard_core.screen import Attr, Cursor, Mark, PLAIN, Screen, char_width

CAPTURES = sorted(pathlib.Path(__file__).parent.joinpath("captures").glob("*.bytes"))


def shown(*pieces, size=(10, 4), history_max=1000):
    screen = Screen(size, history_max)
    for piece in pieces:
        screen.feed(piece if isinstance(piece, bytes) else piece.encode())
    return screen


def rows(screen):
    return [line.text.rstrip() for line in screen.lines]


def history(screen):
    return [line.text.rstrip() for line in screen.history]


def position(screen):
    return screen.cursor[:2]


def everything(screen):
    """All that is to be seen of a screen."""
    return {
        "lines": [(line.chars, line.attrs, line.is_wrapped) for line in screen.lines],
        "history": [(line.chars, line.attrs, line.is_wrapped) for line in screen.history],
        "main": [line.chars for line in screen.main_lines or []],
        "rest": (screen.size, screen.cursor, screen.is_wrap_pending, screen.modes, screen.margins, screen.tab_stops,
                 screen.charsets, screen.title, screen.icon_title, screen.cwd, screen.palette, screen.attr,
                 screen.saved_cursor, screen.main_saved_cursor, screen.is_alternate, screen.marks,
                 screen.lines_scrolled),
    }


def assert_whole(screen):
    """What holds of every screen, whatever it was fed."""
    cols, rows_ = screen.size
    assert len(screen.lines) == rows_
    for line in list(screen.lines) + list(screen.main_lines or []):
        assert len(line.chars) == len(line.attrs) == cols
    for line in list(screen.lines) + list(screen.history) + list(screen.main_lines or []):
        assert len(line.chars) == len(line.attrs)
        assert line.chars[0] != ""
        for before, char in zip(line.chars, line.chars[1:]):
            assert len(char) <= room.CELL_MAX
            assert before != "" or char != "", "half a wide character"
    assert 0 <= screen.cursor.x < cols and 0 <= screen.cursor.y < rows_
    top, bottom, left, right = screen.margins
    assert 0 <= top <= bottom < rows_ and 0 <= left <= right < cols
    assert all(0 <= x < cols for x in screen.tab_stops)
    assert screen.tab_stops == sorted(set(screen.tab_stops))


# --- the vocabulary ------------------------------------------------------------------------

def test_every_name_of_the_vocabulary_is_a_method():
    names = [name for table in (tables.CONTROLS, tables.ESCAPES, tables.CSI, tables.OSC, tables.MODE_EFFECTS)
             for name in table.values()]
    names += [name for pair in tables.MODE_ACTS.values() for name in pair]
    assert [name for name in names if not callable(getattr(Screen, "_" + name, None))] == []


def test_every_mode_that_a_soft_reset_puts_back_is_one():
    names = {name for name, _ in list(tables.PRIVATE_MODES.values()) + list(tables.ANSI_MODES.values())}
    assert set(tables.SOFT_RESET_MODES) - names == {"modify_other_keys"}
    assert set(tables.MODE_EFFECTS) < names


def test_every_field_that_a_rendition_changes_is_one_of_an_attribute():
    assert {field for changes in tables.SGR.values() for field in changes} <= set(Attr._fields)


def test_what_is_handled_as_a_run_is_as_wide_as_that_says():
    import re
    narrow, wide = (re.compile("[" + ranges + "]") for ranges in (tables.NARROW_RANGES, tables.WIDE_RANGES))
    unknown = {char for char in map(chr, range(0x20, 0xFFFE)) if not 0xD800 <= ord(char) <= 0xDFFF
               and room.unicodedata.category(char) == "Cn"}
    for char in map(chr, range(0x20, 0xFFFE)):
        if 0xD800 <= ord(char) <= 0xDFFF or char in unknown:
            continue
        if narrow.match(char):
            assert char_width(char) == 1, hex(ord(char))
        if wide.match(char):
            assert char_width(char) == 2, hex(ord(char))
            assert not room._is_emoji(char), hex(ord(char))


@pytest.mark.parametrize("char, columns", [
    ("a", 1), ("\u00e9", 1), ("\u0301", 0), ("\u200b", 0), ("\u200d", 0), ("\ufe0f", 0), ("\u00ad", 1), ("\u0600", 1),
    ("漢", 2), ("한", 2), ("\u1161", 0), ("\uff21", 2), ("\uff71", 1), ("\u2500", 1), ("\u2764", 1), ("\u231a", 2),
    ("\U0001f680", 2), ("\U0001fae0", 2), ("\U0001f6dc", 2), ("\U0001f1e9", 1), ("\U00020000", 2), ("\U0003ff00", 2),
    ("\ue0b0", 1), ("\ufffd", 1), ("\u0378", 1), ("\U000e0067", 0), ("\u4dc0", 2), ("\u2028", 0), ("\U0010ffff", 1),
])
def test_a_character_is_as_wide_as_programs_count(char, columns):
    assert char_width(char) == columns


@pytest.mark.parametrize("ranges", [tables.EMOJI_RANGES, tables.MODIFIER_BASE_RANGES])
def test_ranges_that_are_searched_are_sorted(ranges):
    assert list(ranges) == sorted(ranges)
    assert all(first <= last for first, last in ranges)


# --- text --------------------------------------------------------------------------------------

def test_text_stands_where_it_was_written():
    screen = shown("one\r\ntwo")
    assert rows(screen) == ["one", "two", "", ""]
    assert screen.cursor == Cursor(3, 1, True, "block", False)


def test_a_full_line_wraps_only_when_more_comes():
    screen = shown("0123456789")
    assert (position(screen), screen.is_wrap_pending) == ((9, 0), True)
    screen.feed(b"x")
    assert rows(screen)[:2] == ["0123456789", "x"]
    assert [line.is_wrapped for line in screen.lines] == [True, False, False, False]


def test_a_newline_after_a_full_line_makes_no_empty_one():
    assert rows(shown("0123456789\r\nx"))[:2] == ["0123456789", "x"]


@pytest.mark.parametrize("ends_it", ["\r", "\b", "\x1b[1;10H", "\x1b[C", "\x1b[K", "\x1b[X", "\x1b[P", "\x1b[@",
                                     "\x1b[A", "\x1b[B", "\n", "\x1b[10G"])
def test_what_moves_or_erases_ends_a_pending_wrap(ends_it):
    assert not shown("\n0123456789", ends_it).is_wrap_pending


@pytest.mark.parametrize("keeps_it", ["\t", "\x1b[31m", "\x1b[1K", "\x1b7\x1b[H\x1b8", "\x1b]0;x\x07", "\a", "\x1b[S", "\x1b[T", "\x1b[m"])
def test_what_does_neither_keeps_a_pending_wrap(keeps_it):
    assert shown("0123456789", keeps_it).is_wrap_pending


def test_without_autowrap_the_last_column_is_written_over():
    screen = shown("\x1b[?7l0123456789abc")
    assert rows(screen)[:2] == ["012345678c", ""]
    assert screen.modes == {"autowrap": False}
    assert rows(shown("\x1b[?7l012345678漢"))[0] == "012345678", "half a character is none"


def test_lines_that_leave_at_the_top_become_history():
    screen = shown("".join("%d\r\n" % n for n in range(9)), history_max=4)
    assert history(screen) == ["2", "3", "4", "5"]
    assert rows(screen) == ["6", "7", "8", ""]
    assert screen.lines_scrolled == 6


def test_insert_mode_pushes_what_stands_there():
    assert rows(shown("abcdef\x1b[1;3H\x1b[4hXY\x1b[4l_"))[0] == "abXY_def"
    assert rows(shown("0123456789\x1b[1;3H\x1b[4hXY"))[0] == "01XY234567"


@pytest.mark.parametrize("data, cells", [
    ("e\u0301x", ["e\u0301", "x"]),
    ("漢x", ["漢", "", "x"]),
    ("\U0001f680x", ["\U0001f680", "", "x"]),
    ("\u2764\ufe0fx", ["\u2764\ufe0f", "", "x"]),                          # narrow, unless shown as an emoji
    ("\u2764x", ["\u2764", "x"]),
    ("1\ufe0f\u20e3x", ["1\ufe0f\u20e3", "", "x"]),                        # a keycap
    ("\U0001f469\u200d\U0001f469\u200d\U0001f467x",
     ["\U0001f469\u200d\U0001f469\u200d\U0001f467", "", "x"]),              # a family
    ("\U0001f44d\U0001f3fdx", ["\U0001f44d\U0001f3fd", "", "x"]),          # a thumb with a skin tone
    ("\U0001f469\U0001f3fd\u200d\u2764\ufe0f\u200d\U0001f468\U0001f3fdx",
     ["\U0001f469\U0001f3fd\u200d\u2764\ufe0f\u200d\U0001f468\U0001f3fd", "", "x"]),
    ("\U0001f3f4\U000e0067\U000e007fx", ["\U0001f3f4\U000e0067\U000e007f", "", "x"]),
    ("x\U0001f3fd", ["x", "\U0001f3fd", ""]),                              # a tone for nobody
    ("a\u200db", ["a\u200d", "b"]),                                        # joins emoji only
    ("\u1112\u1161\u11ab", ["\u1112\u1161\u11ab", ""]),                    # Hangul in parts
    ("\u00adx", ["\u00ad", "x"]),
    ("\u0301x", ["x"]),                                                    # nothing to combine with
])
def test_a_cell_shows_one_character(data, cells):
    for split in range(len(data.encode()) + 1):
        screen = shown(data.encode()[:split], data.encode()[split:])
        assert screen.lines[0].chars == cells + [" "] * (10 - len(cells))
        assert position(screen) == (len(cells), 0)


def test_a_combining_character_joins_the_one_whose_wrap_is_pending():
    screen = shown("012345678e\u0301")
    assert (screen.lines[0].chars[9], screen.is_wrap_pending) == ("e\u0301", True)
    screen = shown("01234567漢\u0301")
    assert screen.lines[0].chars[8:] == ["漢\u0301", ""]


def test_a_cell_takes_only_so_many_combining_characters():
    screen = shown("e" + "\u0301" * 100000)
    assert len(screen.lines[0].chars[0]) == room.CELL_MAX


def test_a_wide_character_that_does_not_fit_goes_to_the_next_line():
    screen = shown("012345678漢")
    assert rows(screen)[:2] == ["012345678", "漢"]
    assert screen.lines[0].is_wrapped
    assert rows(shown("漢", size=(1, 2))) == ["", ""], "nowhere to go"


@pytest.mark.parametrize("data, row", [
    ("漢字\x1b[1;2Hx", " x字"), ("漢字\x1b[1;1Hx", "x 字"), ("a漢字\x1b[1;3Hxy", "a xy"),
    ("漢字\x1b[1;2H\x1b[K", ""), ("漢字\x1b[1;2H\x1b[1K", "  字"), ("漢字\x1b[1;2H\x1b[P", " 字"),
    ("漢字\x1b[1;2H\x1b[@", "   字"), ("漢字\x1b[1;3H\x1b[4hx", "漢x字"), ("漢字\x1b[1;2H語", " 語"),
    ("0123456漢\x1b[1;1H\x1b[@", " 0123456漢"), ("01234567漢\x1b[1;1H\x1b[@", " 01234567"),
])
def test_half_of_a_wide_character_becomes_a_blank(data, row):
    screen = shown(data)
    assert rows(screen)[0] == row
    assert_whole(screen)


@pytest.mark.parametrize("data, text", [
    (b"\xff\xfea", "\ufffd\ufffda"), (b"\xe2\x82a", "\ufffda"), (b"\xe2\x82\xac", "\u20ac"),
    (b"\xf0\x9f\x1b[mx", "\ufffdx"), (b"\xc0\xaf", "\ufffd\ufffd"), (b"\xed\xa0\x80", "\ufffd\ufffd\ufffd"),
    (b"\x80\x9b31m", "\ufffd\ufffd31m"),
])
def test_invalid_bytes_are_shown_as_such(data, text):
    assert rows(shown(data))[0] == text
    assert rows(shown(*[data[at:at + 1] for at in range(len(data))]))[0] == text


# --- character sets ------------------------------------------------------------------------------

def test_line_drawing_is_drawn():
    screen = shown("\x1b(0lqk\x1b(Bq\x0e\x1b)0x\x0fx")
    assert rows(screen)[0] == "┌─┐q│x"
    assert screen.charsets == (("B", "0", "B", "B"), 0)


def test_a_set_that_was_not_named_whole_is_not_shifted_in():
    assert shown("\x1b(漢").charsets == shown("\x1b(\x18").charsets == (("B",) * 4, 0)
    assert shown("\x1b(\x070").charsets == (("0", "B", "B", "B"), 0)


def test_a_single_shift_is_for_one_character():
    assert rows(shown("\x1b*0\x1bNqq"))[0] == "─q"
    assert rows(shown("\x1b+0\x1bOqq\x1boq\x1b(A\x0f#"))[0] == "─q─£"


# --- the cursor --------------------------------------------------------------------------------------

@pytest.mark.parametrize("data, where", [
    ("\x1b[3;4H", (3, 2)), ("\x1b[H", (0, 0)), ("\x1b[99;99H", (9, 3)), ("\x1b[0;0H", (0, 0)), ("\x1b[;5H", (4, 0)),
    ("\x1b[2;2H\x1b[A", (1, 0)), ("\x1b[2;2H\x1b[9A", (1, 0)), ("\x1b[2B", (0, 2)), ("\x1b[9C", (9, 0)),
    ("\x1b[5C\x1b[2D", (3, 0)), ("\x1b[3;5H\x1b[E", (0, 3)), ("\x1b[3;5H\x1b[F", (0, 1)), ("\x1b[7G", (6, 0)),
    ("\x1b[3d", (0, 2)), ("\x1b[3;3H\x1b[2a", (4, 2)), ("\x1b[2;3H\x1b[1e", (2, 2)), ("\x1b[2;3f", (2, 1)),
    ("\x1b[5`", (4, 0)), ("ab\b", (1, 0)), ("\b", (0, 0)), ("\t", (8, 0)), ("\t\t", (9, 0)), ("\x1b[2I", (9, 0)),
    ("\x1b[9C\x1b[Z", (8, 0)), ("\x1b[9C\x1b[5Z", (0, 0)), ("a\nb", (2, 1)), ("\x1bD", (0, 1)), ("a\x1bE", (0, 1)),
    ("\x1b[3;3H\x1b7\x1b[H\x1b8", (2, 2)), ("\x1b[3;3H\x1b[s\x1b[H\x1b[u", (2, 2)), ("ab\x1b8", (0, 0)),
    ("\x1b[99999999999999999999B", (0, 3)), ("a\x0bb\x0cc", (3, 2)), ("\x1b[2;3H\x1bM", (2, 0)),
    ("\x1b[20h\n", (0, 1)), ("\x1b[20hab\n", (0, 1)), ("a\u0085b\u0084", (2, 0)),
])
def test_the_cursor_goes_where_it_is_sent(data, where):
    assert position(shown(data)) == where


def test_saving_the_cursor_saves_what_belongs_to_it():
    screen = shown("\x1b[2;3r\x1b[?6h\x1b[31m\x1b(0\x1b[2;2H\x1b7\x1b[?6l\x1b[m\x1b(B\x1b[H\x1b8")
    assert (position(screen), screen.attr.fg, screen.charsets[0][0]) == ((1, 2), 1, "0")
    assert screen.modes == {"origin": True}
    assert screen.saved_cursor.attr == Attr(fg=1)


def test_tab_stops_are_set_and_cleared():
    screen = shown("\x1b[4G\x1bH\x1b[1;9H\x1b[g\r\tx")
    assert (screen.tab_stops, rows(screen)[0]) == ([0, 3], "   x")
    screen.feed(b"\x1b[3g")
    assert screen.tab_stops == []
    screen.feed(b"\x1b[?5W")
    assert screen.tab_stops == [0, 8]


@pytest.mark.parametrize("number, shape, is_blinking", [
    (0, "block", False), (1, "block", True), (2, "block", False), (3, "underline", True), (4, "underline", False),
    (5, "bar", True), (6, "bar", False), (7, "block", False)])
def test_the_cursor_has_a_shape(number, shape, is_blinking):
    assert shown("\x1b[%d q" % number).cursor[3:] == (shape, is_blinking)


def test_the_cursor_can_be_hidden():
    screen = shown("\x1b[?25l")
    assert (screen.cursor.is_visible, screen.modes) == (False, {"cursor_visible": False})
    screen.feed(b"\x1b[?25h")
    assert (screen.cursor.is_visible, screen.modes) == (True, {})


def test_reverse_wrap_goes_back_over_a_wrapped_line():
    assert position(shown("\x1b[?45h0123456789ab\b\b\b")) == (9, 0)
    assert position(shown("0123456789ab\b\b\b")) == (0, 1)


# --- margins, scrolling -----------------------------------------------------------------------------

FOUR = "a\r\nb\r\nc\r\nd"


@pytest.mark.parametrize("data, expected", [
    ("\x1b[2;3r\x1b[3;1H\n", ["a", "c", "", "d"]), ("\x1b[2;3r\x1b[2;1H\x1bM", ["a", "", "b", "d"]),
    ("\x1b[2;3r\x1b[4;1H\n\n", ["a", "b", "c", "d"]), ("\x1b[1;1H\x1b[2L", ["", "", "a", "b"]),
    ("\x1b[2;1H\x1b[M", ["a", "c", "d", ""]), ("\x1b[2;1H\x1b[99M", ["a", "", "", ""]),
    ("\x1b[2S", ["c", "d", "", ""]), ("\x1b[T", ["", "a", "b", "c"]), ("\x1b[^", ["", "a", "b", "c"]),
    ("\x1b[2;3r\x1b[S", ["a", "c", "", "d"]), ("\x1b[2;3r\x1b[1;1H\x1b[L", ["a", "b", "c", "d"]),
    ("\x1b[2;3r\x1b[2;1H\x1b[L", ["a", "", "b", "d"]), ("\x1b[1;2;3;4;5T", ["a", "b", "c", "d"]),
    ("\x1b[3;2r\x1b[4;1H\n", ["b", "c", "d", ""]), ("\x1b[99999999L", ["a", "b", "c", ""]),
])
def test_lines_scroll_between_the_margins(data, expected):
    assert rows(shown(FOUR, data)) == expected


def test_only_what_leaves_the_main_screen_at_its_top_becomes_history():
    assert history(shown(FOUR, "\x1b[2;3r\x1b[3;1H\n")) == []
    assert history(shown(FOUR, "\x1b[1;3r\x1b[3;1H\n")) == ["a"]
    assert history(shown(FOUR, "\x1b[?1049h\x1b[4;1H\n\n")) == []


def test_origin_mode_counts_from_the_margins():
    screen = shown("\x1b[2;3r\x1b[?6h\x1b[1;1Hx\x1b[9;1Hy")
    assert rows(screen) == ["", "x", "y", ""]
    assert screen.margins == (1, 2, 0, 9)


def test_left_and_right_margins_hold_text_and_scrolling():
    screen = shown("\x1b[?69h\x1b[3;6s\x1b[1;3Habcdefghij\x1b[4;3H\n")
    assert screen.margins == (0, 3, 2, 5)
    assert rows(screen) == ["  efgh", "  ij", "", ""]
    screen = shown("0123456789\x1b[?69h\x1b[3;6s\x1b[1;4H\x1b[P\r")
    assert rows(screen)[0] == "01245 6789"
    assert position(screen) == (2, 0)
    assert rows(shown("0123456789\x1b[?69h\x1b[3;6s\x1b[1;4H\x1b[@"))[0] == "012 346789"
    assert rows(shown("0123456789\x1b[?69h\x1b[3;6s\x1b[1;3H\x1b[L"))[:2] == ["01    6789", "  2345"]


def test_columns_are_inserted_and_deleted():
    assert rows(shown("abc\r\ndef\x1b[1;2H\x1b[2'}"))[:2] == ["a  bc", "d  ef"]
    assert rows(shown("abc\r\ndef\x1b[1;2H\x1b['~"))[:2] == ["ac", "df"]
    assert rows(shown("abc\r\ndef\x1b[ @"))[:2] == ["bc", "ef"]
    assert rows(shown("abc\r\ndef\x1b[2 A"))[:2] == ["  abc", "  def"]


# --- erase, insert, delete, repeat ----------------------------------------------------------------------

@pytest.mark.parametrize("data, expected", [
    ("\x1b[K", "abc"), ("\x1b[1K", "    ef"), ("\x1b[2K", ""), ("\x1b[2X", "abc  f"), ("\x1b[X", "abc ef"),
    ("\x1b[2P", "abcf"), ("\x1b[2@", "abc  def"), ("\x1b[99P", "abc"), ("\x1b[99@", "abc"), ("\x1b[?K", "abc"),
    ("x\x1b[3b", "abcxxxx"), ("\x1b[9K", "abcdef"), ("\x1b[99999999X", "abc"),
])
def test_a_line_is_edited(data, expected):
    assert rows(shown("abcdef\x1b[1;4H", data))[0] == expected


@pytest.mark.parametrize("data, expected", [
    ("\x1b[J", ["a", "", "", ""]), ("\x1b[1J", ["", "", "c", "d"]), ("\x1b[2J", ["", "", "", ""]),
    ("\x1b[3J", ["a", "b", "c", "d"]), ("\x1b#8", ["E" * 10] * 4),
])
def test_the_screen_is_erased(data, expected):
    assert rows(shown(FOUR, "\x1b[2;1H", data)) == expected


def test_the_history_can_be_erased():
    screen = shown("\n" * 9, "\x1b[3J")
    assert (len(screen.history), screen.lines_scrolled) == (0, 6)


@pytest.mark.parametrize("data", ["\x1b[K", "\x1b[J", "\x1b[2J", "\x1b[X", "\x1b[@", "\x1b[P", "\x1b[L", "\x1b[M"])
def test_what_is_erased_has_the_background_and_nothing_else_of_the_current_look(data):
    screen = shown("\x1b[1;4;31;44m", data)
    assert Attr(bg=4) in screen.lines[0].attrs + screen.lines[3].attrs
    assert {attr for line in screen.lines for attr in line.attrs} <= {PLAIN, Attr(bg=4)}


def test_a_line_that_is_scrolled_in_has_the_current_background():
    screen = shown("\x1b[41m\x1b[4;1H\n")
    assert screen.lines[3].attrs == [Attr(bg=1)] * 10


@pytest.mark.parametrize("data, row", [
    ("x\x1b[3b", "xxxx"), ("e\u0301\x1b[2b", "e\u0301ee"), ("\x1b(0q\x1b[b", "──"), ("x\x1b[3b\x1b[3b", "xxxx"),
    ("x\x1b[1m\x1b[3b", "x"), ("x\x1b]0;t\x07\x1b[3b", "x"), ("x\a\x1b[3b", "x"), ("x\x1b]0;" + "t" * 9999 + "\x07\x1b[3b", "x"),
])
def test_repeat_repeats_what_stands_right_before_it(data, row):
    for at in range(0, len(data.encode()) + 1, 1 + len(data) // 20):
        assert rows(shown(data.encode()[:at], data.encode()[at:]))[0] == row


def test_repeat_is_bounded_by_the_screen():
    screen = shown("x\x1b[99999999b")
    assert rows(screen) == ["x" * 10] * 3 + ["x" * 6], "as many as 65536 leave in the last line"
    assert rows(shown("漢\x1b[2b"))[0] == "漢漢漢"
    assert rows(shown("\x1b[5b"))[0] == ""


# --- how it looks -------------------------------------------------------------------------------------------

@pytest.mark.parametrize("parameters, attr", [
    ("1", Attr(bold=True)), ("2", Attr(faint=True)), ("3", Attr(italic=True)), ("4", Attr(underline=1)),
    ("5", Attr(blink=True)), ("7", Attr(inverse=True)), ("8", Attr(invisible=True)), ("9", Attr(strike=True)),
    ("21", Attr(underline=2)), ("53", Attr(overline=True)), ("1;2;22", PLAIN), ("4;24", PLAIN), ("7;27", PLAIN),
    ("31", Attr(fg=1)), ("97", Attr(fg=15)), ("42", Attr(bg=2)), ("103", Attr(bg=11)), ("31;39", PLAIN),
    ("38;5;123", Attr(fg=123)), ("48;2;1;2;3", Attr(bg=(1, 2, 3))), ("38:2::1:2:3", Attr(fg=(1, 2, 3))),
    ("38:2:1:2:3", Attr(fg=(1, 2, 3))), ("38:5:9", Attr(fg=9)), ("4:3", Attr(underline=3)),
    ("4:0", PLAIN), ("4:5", Attr(underline=5)), ("58:5:1", Attr(underline_colour=1)), ("4:9", PLAIN),
    ("58;2;9;8;7", Attr(underline_colour=(9, 8, 7))), ("58;5;1;59", PLAIN), ("1;0", PLAIN), ("1;", PLAIN),
    ("38;5", PLAIN), ("38", PLAIN), ("38;9;1", Attr(bold=True)), ("38;2;1;2", PLAIN), ("38;5;256", PLAIN),
    ("38;2;1;2;999", PLAIN), ("1;38;5;7;4", Attr(bold=True, fg=7, underline=1)), ("999", PLAIN),
    ("001", Attr(bold=True)), ("38:2", PLAIN), ("38:", PLAIN), (":", PLAIN), (";;1", Attr(bold=True)),
])
def test_a_rendition_is_selected(parameters, attr):
    screen = shown("\x1b[%smx" % parameters)
    assert screen.lines[0].attrs[0] == attr


def test_equal_attributes_are_one_object():
    screen = shown("\x1b[1;31ma\x1b[m\x1b[31m\x1b[1mb\x1b[mc")
    a, b, c = screen.lines[0].attrs[:3]
    assert a is b
    assert c is PLAIN


def test_a_link_is_part_of_how_a_cell_looks():
    screen = shown("\x1b]8;id=1;http://a/;b\x1b\\x\x1b[0my\x1b]8;;\x07z")
    assert [attr.link for attr in screen.lines[0].attrs[:3]] == ["http://a/;b", "http://a/;b", None]
    assert shown("\x1b]8;;" + "x" * 3000 + "\x07x").lines[0].attrs[0].link is None


def test_remembered_attributes_are_bounded():
    screen = Screen((80, 24))
    for red in range(0, 256, 2):
        screen.feed(b"".join(b"\x1b[38;2;%d;%d;0mx" % (red, green) for green in range(256)))
    assert len(screen._known) <= room.STYLES_MAX + 2
    assert len(screen._styles) <= room.STYLES_MAX + 2


# --- modes, titles, marks ------------------------------------------------------------------------------------

@pytest.mark.parametrize("data, modes", [
    ("\x1b[?2004h", {"bracketed_paste": True}), ("\x1b[?1000;1006h", {"mouse": "normal", "mouse_encoding": "sgr"}),
    ("\x1b[?1002h\x1b[?1003h", {"mouse": "any"}), ("\x1b[?1003h\x1b[?1000l", {}), ("\x1b[?9h", {"mouse": "x10"}),
    ("\x1b[?1006h\x1b[?1015l", {"mouse_encoding": "sgr"}), ("\x1b[?1015h\x1b[?1015l", {}),
    ("\x1b[?1h\x1b=", {"application_cursor": True, "application_keypad": True}), ("\x1b[?1h\x1b[?1l", {}),
    ("\x1b[?1004h", {"focus_events": True}), ("\x1b[?2026h", {"synchronised_output": True}),
    ("\x1b[4h\x1b[20h", {"insert": True, "newline": True}), ("\x1b[?5h", {"reverse_video": True}),
    ("\x1b[>1u", {"keyboard_flags": 1}), ("\x1b[>1u\x1b[>3u\x1b[<u", {"keyboard_flags": 1}), ("\x1b[>1u\x1b[<9u", {}),
    ("\x1b[=5u\x1b[=2;2u\x1b[=1;3u", {"keyboard_flags": 6}), ("\x1b[>4;2m", {"modify_other_keys": 2}),
    ("\x1b[>4;2m\x1b[>4m", {}), ("\x1b[?1049h", {"alternate_screen": True}), ("\x1b[?9999h\x1b[9h", {}),
    ("\x1b[>5u\x1b[?1049h", {"alternate_screen": True}), ("\x1b[?1049h\x1b[>5u\x1b[?1049l", {}),
    ("\x1b[?1;7;25;66;2004;6;4h\x1b[4h\x1b[!p", {"bracketed_paste": True}), ("\x1b[?1;1000;2004h\x1bc", {}),
])
def test_modes_are_known_by_name(data, modes):
    assert shown(data).modes == modes


def test_the_alternate_screen_leaves_the_main_one_as_it_was():
    screen = shown("main\x1b[?1049h")
    assert (rows(screen)[0], position(screen), screen.is_alternate) == ("", (4, 0), True)
    screen.feed(b"\x1b[Halternate")
    assert screen.main_lines[0].text.rstrip() == "main"
    assert screen.main_saved_cursor[:2] == (4, 0)
    screen.feed(b"\x1b[?1049l!")
    assert (rows(screen)[0], screen.is_alternate, screen.main_lines) == ("main!", False, None)


def test_the_older_ways_to_the_alternate_screen_leave_the_cursor_where_it_is():
    for number in (47, 1047):
        screen = shown("main\x1b[?%dhalt\x1b[?%dl" % (number, number))
        assert (rows(screen)[0], position(screen)) == ("main", (7, 0))
    assert rows(shown("\x1b[?47halt\x1b[?47l\x1b[?47h"))[0] == "alt"
    assert rows(shown("\x1b[?1047halt\x1b[?1047l\x1b[?1047h"))[0] == ""


def test_titles_are_set_pushed_and_popped():
    screen = shown("\x1b]0;both\x07\x1b[22;0t\x1b]2;title\x1b\\\x1b]1;icon\x1b\\")
    assert (screen.title, screen.icon_title) == ("title", "icon")
    screen.feed(b"\x1b[23;2t")
    assert (screen.title, screen.icon_title) == ("both", "icon")
    screen.feed(b"\x1b[22t" * 1000 + b"\x1b[23t" * 2000)
    assert screen.title == "both"


def test_titles_have_no_control_characters_and_are_bounded():
    assert shown("\x1b]2;a\nb\x00c\x07").title == "abc"
    assert shown("\x1b]2;" + "x" * 5000 + "\x07").title == ""
    assert shown("\x1b]2;" + "x" * 4000 + "\x07").title == "x" * 4000


def test_the_directory_is_known():
    assert shown("\x1b]7;file://host/a%20b/%c3%a9\x07").cwd == "/a b/é"
    assert shown("\x1b]7;file:///tmp\x07\x1b]7;\x07").cwd is None


def test_colours_that_were_set_are_known():
    screen = shown("\x1b]4;1;rgb:ff/8/0000;300;#fff;2;#123456\x07\x1b]10;#abc;rgb:1/2/3\x07\x1b]12;red\x07")
    assert screen.palette == {1: (255, 136, 0), 2: (0x12, 0x34, 0x56), "foreground": (0xa0, 0xb0, 0xc0),
                              "background": (17, 34, 51)}
    screen.feed(b"\x1b]104;1\x07\x1b]110\x07\x1b]111;\x07\x1b]4;x;?\x07\x1b]4;3;?\x07")
    assert screen.palette == {2: (0x12, 0x34, 0x56)}


def test_marks_of_a_shell_are_kept_with_their_lines():
    screen = shown("\x1b]133;A\x07$ \x1b]133;B\x07x\r\n\x1b]133;C\x07\n\n\n\n\x1b]133;D;1\x07")
    assert screen.marks == [Mark("A", 0, ""), Mark("B", 0, ""), Mark("C", 1, ""), Mark("D", 5, "1")]
    assert screen.lines_scrolled == 2
    screen.feed(b"\x1b]133;A\x07" * 10000)
    assert len(screen.marks) == room.MARKS_MAX


def test_a_reset_makes_it_as_new():
    screen = shown("x\n" * 9, "\x1b[?1049;2004;6h\x1b[1;31m\x1b(0\x1b[2;3r\x1b[3g\x1b]4;1;#fff\x07\x1b[5 q\x1b7\x1bc")
    new, old = everything(Screen((10, 4))), everything(screen)
    assert new["rest"][:-1] == old["rest"][:-1]
    assert new["lines"] == old["lines"] and new["history"] == old["history"]


# --- sequences ---------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("data, row", [
    ("a\x1b[31\nmb", "a"), ("\x1b[2\x08Cx", "  x"), ("a\x1b[3\x181mb", "a1mb"), ("a\x1b[3\x1b[Cb", "a b"),
    ("a\x1b\x00[Cb", "a b"), ("a\x1b(\x000q", "a─"), ("\u009b2Cx", "2Cx"), ("a\x1b[?3;2;1$yb", "ab"),
    ("a\x1b]0;t\x1b[Cb", "a b"), ("a\x1bP1;2q#0~~\x07~\x1b\\b", "ab"), ("a\x1b_Gx\x1b\\b", "ab"),
    ("a\x1b^x\x1b\\\x1bXy\x1b\\b", "ab"), ("a\x1bktitle\x1b\\b", "ab"), ("a\x1b%Gb", "ab"), ("a\x1b#3b", "ab"),
    ("a\x1b]777;notify;x;y\x07b", "ab"), ("a\x1b]0;t\u009cb\x07c", "ac"), ("a\x1b]0;t\x18b", "ab"),
    ("a\x1b[1éC", "aC"), ("a\x1b漢bc", "abc"), ("a\x1b(漢0q", "a0q"), ("a\x1b[3\u0085C", "a"), ("a\x1b[<1;2;3Mb", "ab"), ("a\x1b[1;2;?3hb", "ab"), ("a\x7fb\x00", "ab"),
    ("a\x1b[" + "1;" * 5000 + "Cb", "ab"), ("a\x1b]0;" + "x" * 9999 + "\x1b\\b", "ab"),
    ("a\x1bP" + "x" * 9999 + "\x1b\\b", "ab"), ("a\x1b[" + "1" * 500 + "Cb", "a        b"),
    ("a\x1b" + " " * 2000 + "Fb", "ab"), ("a\x1b[" + "\x01" * 2000 + "Cb", "a b"), ("a\x1b\\b", "ab"),
    ("a\u009d\x07b\u0090x\u009cd", "abxd"), ("a\x1b]\x07b\x1b]\u009c\x1b\\c\x1b]\x1b\\d", "abcd"),
    ("a\x1bP\x1b\x1b[Cb", "a b"), ("a\x1b!\x1b[Cb", "a b"),
])
def test_a_sequence_is_taken_whole_however_it_is_cut(data, row):
    data = data.encode()
    whole = shown(data)
    assert rows(whole)[0] == row
    assert everything(shown(*[data[at:at + 1] for at in range(len(data))])) == everything(whole)
    for split in range(0, len(data), 1 + len(data) // 50):
        assert everything(shown(data[:split], data[split:])) == everything(whole)


def test_what_is_held_of_an_unfinished_sequence_is_bounded():
    for start in (b"\x1b[", b"\x1b]0;", b"\x1bP", b"\x1b", b"\x1b_", b"\x1b[1", b"\x1b]8;;http://"):
        for filler in (b"1", b" ", b"\x01", b"x", b";"):
            screen = Screen((10, 4))
            for _ in range(100):
                screen.feed(start + filler * 1000 if _ == 0 else filler * 1000)
                assert len(screen._held) <= room.STRING_MAX + 10


# --- another size ------------------------------------------------------------------------------------------------

def test_another_width_cuts_lines_or_fills_them_up():
    screen = shown("0123456789\r\n漢字漢字漢")
    screen.resize((5, 4))
    assert rows(screen) == ["01234", "漢字", "", ""]
    screen.resize((7, 4))
    assert [line.text for line in screen.lines[:2]] == ["01234  ", "漢字   "]
    assert_whole(screen)


def test_fewer_rows_send_what_is_above_the_cursor_to_the_history():
    screen = shown(FOUR)
    screen.resize((10, 2))
    assert (rows(screen), history(screen), position(screen)) == (["c", "d"], ["a", "b"], (1, 1))
    screen.resize((10, 5))
    assert (rows(screen), history(screen), position(screen)) == (["a", "b", "c", "d", ""], [], (1, 3))


def test_fewer_rows_take_empty_ones_below_the_cursor_first():
    screen = shown("a\r\nb")
    screen.resize((10, 2))
    assert (rows(screen), history(screen)) == (["a", "b"], [])


def test_the_main_screen_is_resized_behind_the_alternate_one():
    screen = shown(FOUR, "\x1b[?1049h\x1b[Hx")
    screen.resize((8, 2))
    assert (rows(screen), history(screen)) == (["x", ""], ["a", "b"])
    screen.feed(b"\x1b[?1049l")
    assert (rows(screen), position(screen)) == (["c", "d"], (1, 1))


def test_a_new_width_has_tab_stops():
    screen = Screen((10, 4))
    screen.resize((30, 4))
    assert screen.tab_stops == [0, 8, 16, 24]


# --- where xterm and tmux differ ----------------------------------------------------------

# What, rows and cursor as xterm has them, and its reason (docs/SCREEN.md).  tmux is 3.3a.
XTERM_NOT_TMUX = [
    ("漢字\x1b[1;2Hx", [" x字"], (2, 0), "what is left of half a wide character is blank (DamagedCells)"),
    ("漢字\x1b[1;2H\x1b[K", [""], (1, 0), "the same"),
    ("漢字語\x1b[1;3H\x1b[P", ["漢 語"], (2, 0), "the same"),
    ("abc\x1b[1;2H\x1b[99@", ["a"], (1, 0), "a count that is too great is cut down (InsertChar); tmux does nothing"),
    ("a\x1b[99999999999Cb", ["a        b"], (9, 0), "so is a number; tmux drops the sequence"),
    ("a\r\nb\r\nc\x1b[2;3r\x1b[1;1H\x1b[M", ["a", "b", "c"], (0, 0),
    "nothing is deleted outside the margins (DeleteLine)"),
    ("a\r\nb\x1b[2;2H\x1b[L", ["a", "", "b"], (0, 1), "the cursor goes to the left margin (InsertLine, DeleteLine)"),
    ("\x1b[?6h\x1b[2;3rx", ["", "x"], (1, 1), "in origin mode margins send the cursor to their corner (CursorSet)"),
    ("é\x1b[2b漢\x1b[b", ["ééé漢漢"], (7, 0), "REP repeats any character (CASE_REP)"),
    ("x\x1b[12b", ["x" * 10, "xxx"], (3, 1), "and wraps"),
    ("0123456789\r\nab\x1b[4h\x1b[1;10HXY", ["012345678X", "Yab"], (1, 1),
    "inserted text that wraps pushes (InsertChar)"),
    ("\x1b[Ix", ["        x"], (9, 0), "CHT is known"),
    ("0123456789\bx", ["01234567x9"], (9, 0), "from a pending wrap a column is gone back (CursorBack)"),
    ("0123456789\nx", ["0123456789", "         x"], (9, 1), "a line feed ends a pending wrap (CursorDown)"),
    ("0123456789\x1b[K", ["012345678"], (9, 0), "a pending wrap is in the last column, which is erased (ClearRight)"),
    ("0123456789ab\b\b\b", ["0123456789", "ab"], (0, 1),
    "BS stays in its line, unless reverse wrap is on (CursorBack)"),
    ("ab\x1b[?1049l", ["ab"], (0, 0), "1049 restores the cursor on the main screen too (srm_OPT_ALTBUF_CURSOR)"),
    ("\x1b[2;2H\x1b7\x1b[H\x1b[?1049h\x1b[?1049l\x1b8", [""], (0, 0), "1049 saves it where DECSC does (CursorSave)"),
    ("a\x1b]0;t\x1b[Cb", ["a b"], (3, 0), "ESC aborts a string; the title of tmux would be set"),
    ("x\x1b[?47hy\x1b[?47l\x1b[?47h", [" y"], (2, 0), "47 clears nothing (srm_ALTBUF)"),
]


@pytest.mark.parametrize("data, expected, where, reason", XTERM_NOT_TMUX, ids=lambda value: ascii(value)[:50])
def test_where_xterm_and_tmux_differ_xterm_is_followed(data, expected, where, reason):
    screen = shown(data)
    assert (rows(screen)[:len(expected)], position(screen)) == (expected, where), reason


def test_a_soft_reset_is_known():
    screen = shown("ab\x1b[2;3r\x1b[?6h\x1b[4h\x1b[1;31m\x1b[!p")
    assert (screen.margins, screen.modes, screen.attr, rows(screen)[0]) == ((0, 3, 0, 9), {}, PLAIN, "ab")
    assert position(screen) == (0, 1), "the cursor stays (ReallyReset)"


# --- whatever the bytes are ----------------------------------------------------------------------

FRAGMENTS = [
    "\x1b", "\x1b[", "\x1b]", "\x1bP", "\x1b_", "\x1b\\", "\x07", "\x18", "\x1a", "\n", "\r", "\b", "\t", "\x0e",
    "\x0f", "\x7f", "?", ">", "=", "<", "!", "$", " ", "'", ";", ":", "0", "1", "2", "3", "5", "9", "38;2;", "48;5;",
    "25", "69", "1049", "47", "99999999", "text", "漢字", "e\u0301", "\u200d", "\ufe0f", "\u2764", "\U0001f469",
    "\U0001f3fd", "\u009b", "\u009d", "\u009c", "\u0085", "8;;http://x/", "133;A", "4;1;#fff", "7;file:///tmp",
] + list(tables.ESCAPES) + list(tables.CSI)
WHOLE = (["\x1b[%s" % name for name in tables.CSI if name[0] not in "?<=>"]
         + ["\x1b[?%d%s" % (number, final) for final in "hl"
            for number in list(tables.PRIVATE_MODES) + list(tables.MODE_ACTS)]
         + ["\x1b[4h", "\x1b[2;3r", "\x1b[2;5s", "\x1b[3;4H", "\x1b[9;9H", "\x1b(0", "\x1b[41m", "x\x1b[9b"])
pieces = st.lists(st.sampled_from(FRAGMENTS).map(str.encode) | st.sampled_from(WHOLE).map(str.encode)
                  | st.binary(max_size=3), max_size=40)
sizes = st.tuples(st.integers(1, 12), st.integers(1, 6))


@given(sizes, pieces, st.data())
@settings(max_examples=300)
def test_any_bytes_cut_anywhere_give_the_same_whole_screen(size, data, draw):
    data = b"".join(data)
    whole = shown(data, size=size, history_max=20)
    assert_whole(whole)
    cut = draw.draw(st.integers(0, len(data)))
    assert everything(shown(data[:cut], data[cut:], size=size, history_max=20)) == everything(whole)
    assert everything(shown(*[data[at:at + 1] for at in range(len(data))], size=size, history_max=20)) \
        == everything(whole)


@given(sizes, st.lists(st.tuples(sizes, pieces.map(b"".join)), max_size=4))
@settings(max_examples=200)
def test_any_bytes_and_any_sizes_leave_a_whole_screen(size, steps):
    screen = Screen(size, history_max=20)
    for size, data in steps:
        screen.feed(data)
        assert_whole(screen)
        screen.resize(size)
        assert screen.size == size
        assert_whole(screen)
        assert len(screen._held) <= room.STRING_MAX + 10 and len(screen.history) <= 20


@given(st.binary(max_size=2000))
def test_random_bytes_do_no_harm(data):
    screen = Screen((20, 5))
    screen.feed(data)
    assert_whole(screen)


HOSTILE = [
    b"x\x1b[99999999b", b"\x1b[99999L", b"\x1b[99999M", b"\x1b[99999S", b"\x1b[99999T", b"\x1b[99999@",
    b"\x1b[99999P",
    b"\x1b[99999X", b"\x1b[99999I", b"\x1b[99999Z", b"\x1bH\t", "e\u0301\u0301\u0301".encode(), b"\x1b[1;1H\x1bM",
    b"\x1b]0;" + b"x" * 4000 + b"\x07", b"\x1b]8;;http://x/\x07y", b"\x1b]133;A\x07", b"\x1b[22t", b"\x1b[>1u",
    b"\x1b[" + b"1;" * 250 + b"m", b"\x1b[?1049h\x1b[?1049l", b"\x1b7\x1b8", b"\x1b[3g\x1b[?5W", b"\x1b[99999'}",
    b"\x1b[38;2;1;2;3m", b"\x1b[\x01\x01\x01", b"\x1b(", b"\x9b\xff\xc2", b"\x1b]4" + b";1;#fff" * 500 + b"\x07",
    b"\x1bc",
]


@pytest.mark.parametrize("data", HOSTILE)
def test_work_is_in_proportion_to_what_is_fed(data):
    """Counted in what Python carries out, not in seconds: bytes and cells of the screen bound it."""
    import sys
    steps = 0

    def count(frame, event, argument):
        nonlocal steps
        steps += 1
        return count

    def steps_of(times):
        nonlocal steps
        steps = 0
        screen = Screen((20, 10), history_max=50)
        sys.settrace(count)
        try:
            screen.feed(data * times)
        finally:
            sys.settrace(None)
        assert_whole(screen)
        return steps

    once = steps_of(20)
    assert steps_of(80) <= 6 * once + 500


@pytest.mark.parametrize("path", CAPTURES, ids=lambda path: path.stem)
def test_a_capture_cut_anywhere_gives_the_same_screen(path):
    data = path.read_bytes()
    size = tuple(map(int, os.path.splitext(path.stem)[0].rsplit("-", 1)[1].split("x")))
    whole = shown(data, size=size)
    expected = everything(whole)
    assert_whole(whole)
    assert everything(shown(*[data[at:at + 1] for at in range(len(data))], size=size)) == expected
    for cut in range(0, len(data), 1 + len(data) // 25):
        assert everything(shown(data[:cut], data[cut:], size=size)) == expected
