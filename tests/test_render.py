"""Pictures of a screen: exact ones of small screens, and none that a program could break."""

import collections
import html.parser
import json
import os
import pathlib
import re
import shlex
import shutil
import subprocess
import types
import unicodedata
import xml.etree.ElementTree as ElementTree

import pytest
from hypothesis import assume, given, settings, strategies as st

import world
from ptyguard_core import glyphs, render, tables, terminal
from ptyguard_core.screen import Attr, Cursor, Line, PLAIN, SavedCursor, Screen

SVG = "{http://www.w3.org/2000/svg}"


def cursor_at(x=0, y=0, is_visible=True, shape="block", is_blinking=False):
    return Cursor(x, y, is_visible, shape, is_blinking)


def line_of(*parts, cols=10, is_wrapped=False):
    """A line of texts (plain) and (text, attr) pairs; "日" and a list's graphemes of emoji are wide."""
    chars, attrs = [], []
    for part in parts:
        text, attr = part if isinstance(part, tuple) else (part, PLAIN)
        for char in text:
            cells = [char, ""] if unicodedata.east_asian_width(char[0]) == "W" else [char]
            chars += cells
            attrs += [attr] * len(cells)
    blanks = cols - len(chars)
    assert blanks >= 0
    return Line(chars + [" "] * blanks, attrs + [PLAIN] * blanks, is_wrapped)


def screen_of(*lines, cols=10, history=(), **facts):
    """A screen with these lines (`line_of`, or text), otherwise as after a reset."""
    def made(line):
        return line_of(line, cols=cols) if isinstance(line, str) else line
    screen = types.SimpleNamespace(
        size=(cols, len(lines)), lines=[made(line) for line in lines],
        history=collections.deque(made(line) for line in history),
        cursor=cursor_at(), is_wrap_pending=False, modes={}, margins=(0, len(lines) - 1, 0, cols - 1),
        tab_stops=list(range(0, cols, 8)), charsets=(("B",) * 4, 0), title="", icon_title="", cwd=None,
        palette={}, saved_cursor=None, main_saved_cursor=None, attr=PLAIN, is_alternate=False, main_lines=None)
    for name, value in facts.items():
        assert hasattr(screen, name)
        setattr(screen, name, value)
    return screen


# --- all formats ---------------------------------------------------------------------------

def test_every_format_has_its_function():
    assert list(render.FORMATS) == ["text", "ansi", "json", "html", "svg"]
    assert all(function.__name__ == "render_" + name for name, function in render.FORMATS.items())


def test_every_attribute_is_known_with_its_default():
    assert list(render._DEFAULTS) == list(PLAIN._asdict().items())


# --- text ------------------------------------------------------------------------------------

@pytest.mark.parametrize("lines, text", [
    ([""], ""),
    (["", "", ""], ""),
    (["a  b  "], "a  b\n"),
    (["a", "", "b", "", ""], "a\n\nb\n"),
    (["", "  x"], "\n  x\n"),
    ([line_of("日本")], "日本\n"),
    ([line_of(["e\u0301", "👨\u200d👩\u200d👧"], "|")], "e\u0301👨\u200d👩\u200d👧|\n"),
    ([line_of("x\u3000")], "x\u3000\n"),                    # a blank of Japanese is a character
    ([line_of(("  ", Attr(bg=1)))], ""),                    # colour is no text
    ([line_of("a\x1bb\x00")], "ab\n"),
])
def test_text_is_lines_without_what_is_blank_at_their_ends(lines, text):
    assert render.render_text(screen_of(*lines)) == text


@pytest.mark.parametrize("history, text", [
    (0, "now\n"), (1, "c\nnow\n"), (2, "b\nc\nnow\n"), (9, "a\nb\nc\nnow\n"), (-1, "now\n"),
])
def test_history_is_the_latest_lines_of_the_scrollback(history, text):
    assert render.render_text(screen_of("now", history=["a", "b", "c"]), history) == text


# --- JSON ------------------------------------------------------------------------------------

def test_json_is_rows_of_runs_with_what_differs_from_plain():
    screen = screen_of(
        line_of("ab", ("cd", Attr(fg=1, bold=True)), ("日", Attr(bg=(1, 2, 255), link="http://x/"))),
        line_of("0123456789", is_wrapped=True), line_of(("  ", Attr(bg=4))), "",
        history=["old", "older"], title="t", icon_title="i", cwd="/tmp", modes={"mouse": "any"},
        cursor=cursor_at(3, 1, False, "bar", True), is_wrap_pending=True,
        palette={1: (255, 0, 1), "cursor": (0, 0, 0), 0: (1, 1, 1)})
    picture = render.render_json(screen, history=1)
    assert picture == {
        "size": {"cols": 10, "rows": 4},
        "cursor": {"x": 3, "y": 1, "visible": False, "shape": "bar", "blinking": True, "wrap_pending": True},
        "title": "t", "icon_title": "i", "cwd": "/tmp", "modes": {"mouse": "any"}, "is_alternate": False,
        "palette": {"0": "#010101", "1": "#ff0001", "cursor": "#000000"},
        "rows": [[{"text": "ab"}, {"text": "cd", "fg": 1, "bold": True},
                  {"text": "日", "cells": 2, "bg": "#0102ff", "link": "http://x/"}],
                 [{"text": "0123456789"}], [{"text": "  ", "bg": 4}], []],
        "wrapped_rows": [1],
        "history": [[{"text": "older"}]],
        "wrapped_history": [],
    }
    assert json.loads(json.dumps(picture)) == picture


# --- ANSI ------------------------------------------------------------------------------------

def drawn(screen, history=0):
    """What is sent after the reset."""
    out = render.render_ansi(screen, history)
    reset, cleared, rest = out.partition(b"\x1b[H\x1b7\x1b[2J")
    assert cleared and reset.startswith(b"\x1b[?1049l")
    return rest


@pytest.mark.parametrize("screen, expected", [
    (screen_of("", ""), b"\x1b[1;1H"),
    (screen_of("ab", "", "c"), b"\x1b[1;1Hab\x1b[3;1Hc\x1b[1;1H"),
    (screen_of(line_of("a", ("b", Attr(fg=1)), "c")), b"\x1b[1;1Ha\x1b[0;31mb\x1b[mc\x1b[1;1H"),
    (screen_of(line_of(("b ", Attr(bg=9)))), b"\x1b[1;1H\x1b[0;101mb \x1b[m\x1b[1;1H"),
    (screen_of(line_of("日", "|")), "\x1b[1;1H日|\x1b[1;1H".encode()),
    # An emoji that a terminal may take for one cell: the column is set after it.
    (screen_of(line_of("👍", "|")), "\x1b[1;1H👍\x1b[3G|\x1b[1;1H".encode()),
    (screen_of(line_of("👍")), "\x1b[1;1H👍\x1b[1;1H".encode()),
    # The blank makes the terminal wrap; the row is drawn over it.
    (screen_of(line_of("0123456789", is_wrapped=True), "ab"),
     b"\x1b[1;1H0123456789 \x1b[2;1Hab\x1b[1;1H"),
    (screen_of(line_of(("x", Attr(link="http://e/\x1b\x07")), "y")),
     b"\x1b[1;1H\x1b]8;;http://e/\x1b\\x\x1b]8;;\x1b\\y\x1b[1;1H"),
    (screen_of("a", cursor=cursor_at(4, 0, False, "bar", True)), b"\x1b[1;1Ha\x1b[1;5H\x1b[5 q\x1b[?25l"),
    (screen_of("a", cursor=cursor_at(shape="underline")), b"\x1b[1;1Ha\x1b[1;1H\x1b[4 q"),
    (screen_of("0123456789", cursor=cursor_at(9, 0), is_wrap_pending=True),
     b"\x1b[1;1H0123456789\x1b[1;10H9"),
    (screen_of(line_of("01234567日"), cursor=cursor_at(9, 0), is_wrap_pending=True),
     "\x1b[1;1H01234567日\x1b[1;9H日".encode()),
    (screen_of("a", title="T\x1b]2;evil\x07", icon_title="I"),
     b"\x1b[1;1Ha\x1b]1;I\x1b\\\x1b]2;T]2;evil\x1b\\\x1b[1;1H"),
    (screen_of("a", title="T", icon_title="T"), b"\x1b[1;1Ha\x1b]0;T\x1b\\\x1b[1;1H"),
    (screen_of("a", palette={3: (1, 2, 255), "cursor": (0, 16, 0)}),
     b"\x1b[1;1Ha\x1b]4;3;rgb:01/02/ff\x1b\\\x1b]12;rgb:00/10/00\x1b\\\x1b[1;1H"),
    (screen_of("a", tab_stops=[3, 5]), b"\x1b[1;1Ha\x1b[3g\x1b[4G\x1bH\x1b[6G\x1bH\x1b[1;1H"),
    (screen_of("a", "b", "c", margins=(1, 2, 0, 9)), b"\x1b[1;1Ha\x1b[2;1Hb\x1b[3;1Hc\x1b[2;3r\x1b[1;1H"),
    (screen_of("a", "b", margins=(1, 1, 2, 5), modes={"origin": True, "left_right_margins": True},
               cursor=cursor_at(3, 1)),
     b"\x1b[1;1Ha\x1b[2;1Hb\x1b[2;2r\x1b[?69h\x1b[3;6s\x1b[?6h\x1b[1;2H"),
    (screen_of("a", charsets=(("0", "B", "A", "B"), 1)), b"\x1b[1;1Ha\x1b[1;1H\x1b(0\x1b*A\x0e"),
    (screen_of("a", cwd="/a b/é"), b"\x1b[1;1Ha\x1b]7;file:///a%20b/%C3%A9\x1b\\\x1b[1;1H"),
    (screen_of("a", attr=Attr(fg=1),
               saved_cursor=SavedCursor(3, 0, Attr(bold=True), ("0", "B", "B", "B"), 1, False, False)),
     b"\x1b[1;1Ha\x1b[1;4H\x1b(0\x0e\x1b[0;1m\x1b7\x1b(B\x1b)B\x1b*B\x1b+B\x0f\x1b[1;1H\x1b[0;31m"),
    (screen_of("a", modes={"mouse": "any", "mouse_encoding": "sgr", "autowrap": False, "insert": True,
                           "keyboard_flags": 5, "application_keypad": True, "unheard_of": 1}),
     b"\x1b[1;1Ha\x1b[1;1H\x1b[?7l\x1b[?1003h\x1b=\x1b[?1006h\x1b[4h\x1b[=5u"),
])
def test_ansi_is_exactly(screen, expected):
    assert drawn(screen) == expected


def test_history_is_drawn_below_a_screenful_at_a_time_and_pushed_out_at_the_bottom():
    screen = screen_of("now", "", "", history=["a", "b", "c"])
    assert drawn(screen, history=3) == (
        b"\x1b[1;1Ha\x1b[2;1Hb\x1b[9999;1H\n\n\x1b[H"
        b"\x1b[1;1Hc\x1b[9999;1H\n\x1b[H"
        b"\x1b[1;1Hnow\x1b[1;1H")


def test_a_line_of_history_that_is_too_long_goes_on_in_the_next_row():
    history = [line_of("0123456789abcdef日g", cols=20)]
    assert drawn(screen_of("", "", "", "", cols=7, history=history), history=1) == (
        "\x1b[1;1H0123456 \x1b[2;1H789abcd \x1b[3;1Hef日g\x1b[9999;1H\n\n\n\x1b[H\x1b[1;1H".encode())


def test_the_main_screen_is_drawn_behind_an_alternate_one():
    screen = screen_of("vim", "", is_alternate=True, modes={"alternate_screen": True},
                       main_lines=[line_of("$ vim"), line_of("")], history=["$ ls"],
                       main_saved_cursor=SavedCursor(0, 1, PLAIN, ("B",) * 4, 0, False, False))
    assert drawn(screen, history=1) == (
        b"\x1b[1;1H$ ls\x1b[9999;1H\n\x1b[H"
        b"\x1b[1;1H$ vim\x1b[2;1H\x1b[?1049h\x1b(B\x1b)B\x1b*B\x1b+B\x0f\x1b[=0u\x1b[H\x1b[2J\x1b[1;1Hvim\x1b[1;1H")


SGR = [
    (Attr(bold=True), b"\x1b[0;1m"), (Attr(faint=True, bold=True), b"\x1b[0;1;2m"),
    (Attr(italic=True, blink=True, inverse=True), b"\x1b[0;3;5;7m"),
    (Attr(invisible=True, strike=True, overline=True), b"\x1b[0;8;9;53m"),
    (Attr(underline=1), b"\x1b[0;4m"), (Attr(underline=2), b"\x1b[0;4:2m"), (Attr(underline=5), b"\x1b[0;4:5m"),
    (Attr(underline=3, underline_colour=200), b"\x1b[0;4:3;58:5:200m"),
    (Attr(underline=1, underline_colour=(1, 2, 3)), b"\x1b[0;4;58:2::1:2:3m"),
    (Attr(fg=0, bg=7), b"\x1b[0;30;47m"), (Attr(fg=8, bg=15), b"\x1b[0;90;107m"),
    (Attr(fg=16, bg=255), b"\x1b[0;38;5;16;48;5;255m"),
    (Attr(fg=(1, 2, 3), bg=(4, 5, 6)), b"\x1b[0;38;2;1;2;3;48;2;4;5;6m"),
]


@pytest.mark.parametrize("attr, sequence", SGR)
def test_an_attribute_is_set_from_nothing_by_one_sequence(attr, sequence):
    assert drawn(screen_of(line_of(("x", attr)))) == b"\x1b[1;1H" + sequence + b"x\x1b[m\x1b[1;1H"


def test_every_attribute_has_its_sequence():
    told = {name for attr, _ in SGR for name, value in attr._asdict().items() if value != getattr(PLAIN, name)}
    assert told == set(Attr._fields) - {"link"}


def test_every_mode_of_the_emulator_is_set_and_reset():
    names = {name for table in (tables.PRIVATE_MODES, tables.ANSI_MODES) for name, _ in table.values()}
    assert names - set(render.PLACED_MODES) == set(render.MODES)
    assert set(tables.MODE_DEFAULTS) <= set(render.MODES) | set(render.NUMBER_MODES) | set(render.PLACED_MODES)


ALL_MODES = (b"".join(b"\x1b[?%dh" % number for number, (name, _) in tables.PRIVATE_MODES.items()
                      if number not in (7, 25) and name not in render.OWN_MODES)
             + b"\x1b[?7l\x1b[?25l\x1b[4h\x1b[20h\x1b=\x1b[=3u\x1b[>4;2m\x1b[4 q\x1b[2;3r\x1b(0\x1b)0\x1b*0\x1b+0\x0e"
             + b"\x1b[31m")


@pytest.mark.parametrize("before", [b"", b"\x1b[?1049h", b"\x1b[?1047h", b"\x1b[?47h"])
def test_a_picture_of_a_plain_screen_leaves_nothing_on_of_what_was_on_before(before):
    modes = terminal.Modes()
    modes.feed(before + ALL_MODES)
    assert modes.undo()
    modes.feed(render.render_ansi(screen_of("a", "b")))
    assert modes.undo() == b""


def test_the_modes_that_a_picture_sets_are_known_to_who_undoes_them():
    screen = screen_of("a", modes={
        "application_cursor": True, "bracketed_paste": True, "mouse": "button", "mouse_encoding": "sgr",
        "focus_events": True, "keyboard_flags": 7, "alternate_screen": True}, is_alternate=True,
        main_lines=[line_of("m")], main_saved_cursor=SavedCursor(0, 0, PLAIN, ("B",) * 4, 0, False, False),
        cursor=cursor_at(0, 0, False))
    modes = terminal.Modes()
    modes.feed(render.render_ansi(screen))
    assert modes.is_alternate and modes.bracketed_paste and modes.application_cursor
    for sequence in (b"\x1b[?1002l", b"\x1b[?1006l", b"\x1b[?1004l", b"\x1b[=0u", b"\x1b[?1049l", b"\x1b[?25h"):
        assert sequence in modes.undo()


# --- colours ---------------------------------------------------------------------------------

@pytest.mark.parametrize("index, colour", [
    (0, (0, 0, 0)), (1, (205, 0, 0)), (4, (0, 0, 238)), (7, (229, 229, 229)), (8, (127, 127, 127)),
    (12, (92, 92, 255)), (15, (255, 255, 255)),
    (16, (0, 0, 0)), (17, (0, 0, 95)), (21, (0, 0, 255)), (52, (95, 0, 0)), (110, (135, 175, 215)),
    (231, (255, 255, 255)), (232, (8, 8, 8)), (244, (128, 128, 128)), (255, (238, 238, 238)),
])
def test_the_256_colours_are_xterms(index, colour):
    assert render.palette_colour(index) == colour


def style_of(attr, **facts):
    return render._Colours(screen_of("", **facts)).style(attr)


@pytest.mark.parametrize("attr, facts, fg, bg", [
    (PLAIN, {}, "#e5e5e5", None),
    (Attr(fg=1, bg=17), {}, "#cd0000", "#00005f"),
    (Attr(fg=(1, 2, 3)), {}, "#010203", None),
    (Attr(fg=1, bold=True), {}, "#ff0000", None), (Attr(bg=1, bold=True), {}, "#e5e5e5", "#cd0000"),
    (Attr(fg=9, bold=True), {}, "#ff0000", None), (Attr(fg=(1, 2, 3), bold=True), {}, "#010203", None),
    (Attr(bg=0), {}, "#e5e5e5", None),                          # black on black needs no rectangle
    (Attr(inverse=True), {}, "#000000", "#e5e5e5"),
    (Attr(inverse=True, fg=1), {}, "#000000", "#cd0000"),
    (Attr(inverse=True, bg=1), {}, "#cd0000", "#e5e5e5"),
    (Attr(faint=True), {}, "#898989", None),
    (Attr(faint=True, fg=15, bg=4), {}, "#9999f8", "#0000ee"),
    (PLAIN, {"modes": {"reverse_video": True}}, "#000000", None),
    (Attr(fg=2), {"modes": {"reverse_video": True}}, "#00cd00", None),
    (Attr(inverse=True), {"modes": {"reverse_video": True}}, "#e5e5e5", "#000000"),
    (Attr(fg=1, bg=200), {"palette": {1: (9, 9, 9), 200: (8, 8, 8)}}, "#090909", "#080808"),
    (Attr(bg=0), {"palette": {"foreground": (1, 1, 1), "background": (2, 2, 2)}}, "#010101", "#000000"),
])
def test_a_style_has_the_colours_that_a_terminal_shows(attr, facts, fg, bg):
    style = style_of(attr, **facts)
    assert (style.fg, style.bg) == (fg, bg)


# --- geometry --------------------------------------------------------------------------------

BOXES = [chr(code) for code in range(0x2500, 0x2580)]
OTHERS = [chr(code) for code in list(range(0x2580, 0x25A0)) + list(range(0x2801, 0x2900))
          + list(range(0xE0B0, 0xE0B4))]


def extent(char, width=8, height=16):
    """(left, top, right, bottom) of all that is drawn of it."""
    xs, ys = [], []
    for data in glyphs.paths([char], 0, 0, width, height).values():
        for command, arguments in re.findall(r"([MLHVQZ])([^MLHVQZ]*)", data):
            numbers = [float(number) for number in arguments.split()]
            xs += numbers if command == "H" else [] if command == "V" else numbers[::2]
            ys += numbers if command == "V" else [] if command == "H" else numbers[1::2]
    return min(xs), min(ys), max(xs), max(ys)


@pytest.mark.parametrize("char", BOXES)
def test_the_arms_of_a_box_character_reach_the_edges_of_its_cell_and_no_others(char):
    name = unicodedata.name(char)
    left, top, right, bottom = extent(char)
    reaches = {edge for edge, does in (("LEFT", left == 0), ("UP", top == 0), ("RIGHT", right == 8),
                                       ("DOWN", bottom == 16)) if does}
    if "DIAGONAL" in name:
        assert reaches == {"LEFT", "UP", "RIGHT", "DOWN"}
    elif "DASH" in name:
        assert (right - left > 4) == ("HORIZONTAL" in name) and (bottom - top > 8) == ("VERTICAL" in name)
    else:
        words = name.replace("HORIZONTAL", "LEFT RIGHT").replace("VERTICAL", "UP DOWN").split()
        assert reaches == {"LEFT", "UP", "RIGHT", "DOWN"} & set(words)


@pytest.mark.parametrize("name, arms", [
    ("BOX DRAWINGS LIGHT HORIZONTAL", (1, 0, 1, 0)),
    ("BOX DRAWINGS DOWN LIGHT AND RIGHT HEAVY", (0, 0, 2, 1)),
    ("BOX DRAWINGS LEFT HEAVY AND RIGHT DOWN LIGHT", (2, 0, 1, 1)),
    ("BOX DRAWINGS UP HEAVY AND DOWN HORIZONTAL LIGHT", (1, 2, 1, 1)),
    ("BOX DRAWINGS DOUBLE DOWN AND RIGHT", (0, 0, 3, 3)),
    ("BOX DRAWINGS UP SINGLE AND LEFT DOUBLE", (3, 1, 0, 0)),
    ("BOX DRAWINGS LIGHT LEFT AND HEAVY RIGHT", (1, 0, 2, 0)),
    ("BOX DRAWINGS HEAVY UP", (0, 2, 0, 0)),
])
def test_a_box_character_is_read_from_its_name(name, arms):
    assert tuple(glyphs._arms(name).values()) == arms


@pytest.mark.parametrize("char, data", [
    ("─", {"fill": "M0 7.5H4V8.5H0ZM4 7.5H8V8.5H4Z"}),
    ("█", {"fill": "M0 0H8V16H0Z"}), ("▀", {"fill": "M0 0H8V8H0Z"}), ("▁", {"fill": "M0 14H8V16H0Z"}),
    ("▌", {"fill": "M0 0H4V16H0Z"}), ("▐", {"fill": "M4 0H8V16H4Z"}), ("▏", {"fill": "M0 0H1V16H0Z"}),
    ("▚", {"fill": "M0 0H4V8H0ZM4 8H8V16H4Z"}), ("▟", {"fill": "M4 0H8V8H4ZM0 8H4V16H0ZM4 8H8V16H4Z"}),
    ("▒", {"shade2": "M0 0H8V16H0Z"}),
    ("╱", {"stroke": "M8 0L0 16"}), ("╭", {"stroke": "M4 16V12Q4 8 8 8H8"}),
    ("\ue0b0", {"slope": "M0 0L8 8L0 16Z"}),
    ("⠁", {"fill": "M1 1H3V3H1Z"}), ("⡀", {"fill": "M1 13H3V15H1Z"}), ("⠀", {}),
    ("╔", {"fill": "M2 6H8V7H2ZM5 9H8V10H5ZM2 6H3V16H2ZM5 9H6V16H5Z"}),
])
def test_a_drawn_character_has_exactly_this_shape(char, data):
    assert glyphs.paths([char], 0, 0, 8, 16) == data


@pytest.mark.parametrize("char", BOXES + OTHERS)
def test_every_drawn_character_stays_in_its_cell(char):
    left, top, right, bottom = extent(char)
    assert 0 <= left < right <= 8 and 0 <= top < bottom <= 16


def test_equal_characters_side_by_side_are_one_shape():
    assert glyphs.paths(list("████▀▀"), 10, 0, 8, 16) == {"fill": "M10 0H42V16H10ZM42 0H58V8H42Z"}


# --- SVG -------------------------------------------------------------------------------------

def svg(screen, **options):
    """(texts of the screen as (x, text, attributes), the whole tree)."""
    tree = ElementTree.fromstring(render.render_svg(screen, **options))
    found = []
    for text in tree.find(SVG + "g").iter(SVG + "text"):
        if text.text:
            found.append((float(text.get("x")), text.text, text.attrib))
        found += [(float(span.get("x")), span.text, text.attrib) for span in text]
    return found, tree


def test_svg_is_as_large_as_its_cells_and_its_window():
    _, tree = svg(screen_of("", "", cols=80))
    assert (tree.get("width"), tree.get("height")) == ("696", "88")
    assert tree.get("viewBox") == "0 0 696 88"


def test_svg_has_one_element_a_run_where_its_cells_are():
    texts, _ = svg(screen_of(line_of("  ab c", ("de", Attr(fg=1, bold=True, italic=True)))))
    assert [(x, text, attributes["textLength"]) for x, text, attributes in texts] == [
        (16.8, "ab c", "33.6"), (50.4, "de", "16.8")]
    assert texts[1][2]["fill"] == "#ff0000"
    assert (texts[1][2]["font-weight"], texts[1][2]["font-style"]) == ("bold", "italic")
    assert "fill" not in texts[0][2] and "font-weight" not in texts[0][2]


def test_svg_puts_wide_and_strange_characters_in_the_middle_of_their_cells():
    texts, _ = svg(screen_of(line_of("日本", ["👨\u200d👩\u200d👧", "→", "e\u0301"], "|")))
    assert [(x, text) for x, text, _ in texts] == [
        (8.4, "日"), (25.2, "本"), (42, "👨\u200d👩\u200d👧"), (54.6, "→"), (63, "e\u0301"), (67.2, "|")]
    assert all(attributes["text-anchor"] == "middle" for _, _, attributes in texts[:-1])


def rectangles(tree):
    return [(element.get("x"), element.get("y"), element.get("width"), element.get("height"), element.get("fill"))
            for element in tree.find(SVG + "g").iter(SVG + "rect")]


@pytest.mark.parametrize("cursor, rectangle", [
    (cursor_at(1, 0), ("8.4", "0", "8.4", "17", "#e5e5e5")),
    (cursor_at(2, 0), ("16.8", "0", "16.8", "17", "#e5e5e5")),
    (cursor_at(3, 0), ("16.8", "0", "16.8", "17", "#e5e5e5")),             # the second half of a wide one
    (cursor_at(9, 1), ("75.6", "17", "8.4", "17", "#e5e5e5")),             # where nothing was written
    (cursor_at(2, 0, True, "bar"), ("16.8", "0", "2", "17", "#e5e5e5")),
    (cursor_at(2, 0, True, "underline"), ("16.8", "15", "16.8", "2", "#e5e5e5")),
])
def test_svg_shows_the_cursor(cursor, rectangle):
    texts, tree = svg(screen_of(line_of("ab日"), "", cursor=cursor))
    assert rectangles(tree) == [rectangle]
    assert "".join(text for _, text, _ in texts) == "ab日"


def test_svg_shows_the_character_under_a_block_cursor_in_the_colour_of_the_background():
    texts, _ = svg(screen_of("abc", cursor=cursor_at(1, 0)))
    assert [(text, attributes.get("fill")) for _, text, attributes in texts] == [
        ("a", None), ("b", "#000000"), ("c", None)]


def test_svg_shows_no_cursor_that_is_hidden():
    assert rectangles(svg(screen_of("abc", cursor=cursor_at(1, 0, False)))[1]) == []


def test_svg_has_the_scrollback_above_and_the_cursor_below_it():
    texts, tree = svg(screen_of("now", history=["a", "b"], cursor=cursor_at(0, 0, True, "bar")), history=1)
    assert [(text, attributes["y"]) for _, text, attributes in texts] == [("b", "13"), ("n", "30"), ("ow", "30")]
    assert rectangles(tree) == [("0", "17", "2", "17", "#e5e5e5")]


def test_boxes_in_svg_join_from_cell_to_cell_and_row_to_row():
    _, tree = svg(screen_of("┌──┐", "│  │", "└──┘", cursor=cursor_at(0, 0, False)))
    paths = [path.get("d") for path in tree.find(SVG + "g").iter(SVG + "path")]
    assert paths[0].startswith("M3.7 8H8.4V9H3.7Z")                     # ┌ to the right
    assert "M8.4 8H16.8V9H8.4Z" in paths[0] and "M16.8 8H25.2V9H16.8Z" in paths[0]
    assert "M3.7 8H4.7V17H3.7Z" in paths[0]                             # ┌ down
    assert "M3.7 17H4.7V25.5H3.7Z" in paths[1] and "M3.7 25.5H4.7V34H3.7Z" in paths[1]
    assert "M3.7 34H4.7V43H3.7Z" in paths[3]


@pytest.mark.parametrize("kind, data, more", [
    (1, "M0 15.5H16.8", {}), (2, "M0 14.5H16.8M0 16.5H16.8", {}),
    (3, "M0 15q2.1 -2.5 4.2 0t4.2 0t4.2 0t4.2 0", {}),
    (4, "M0 15.5H16.8", {"stroke-dasharray": "1.4 1.4"}), (5, "M0 15.5H16.8", {"stroke-dasharray": "4.2 2.1"}),
])
def test_svg_draws_underlines_of_all_kinds_in_their_colour(kind, data, more):
    attr = Attr(underline=kind, underline_colour=9)
    _, tree = svg(screen_of(line_of(("ab", attr)), cursor=cursor_at(0, 0, False)))
    assert [path.attrib for path in tree.find(SVG + "g").iter(SVG + "path")] == [
        dict(d=data, fill="none", stroke="#ff0000", **more)]


def test_svg_draws_lines_through_and_above():
    _, tree = svg(screen_of(line_of(("ab", Attr(strike=True, overline=True, fg=2))), cursor=cursor_at(0, 0, False)))
    assert [(path.get("d"), path.get("stroke")) for path in tree.find(SVG + "g").iter(SVG + "path")] == [
        ("M0 8.5H16.8", "#00cd00"), ("M0 0.5H16.8", "#00cd00")]


@pytest.mark.parametrize("cols, title, shown", [
    (40, "short", "short"),
    (40, "x" * 60, "x" * 26 + "…"),
    (40, "日" * 30, "日" * 13 + "…"),
    (40, "  a\x1b[31m\u202eb\n", "a[31mb"),
    (12, "anything", None),
])
def test_the_title_is_cut_to_what_its_bar_holds(cols, title, shown):
    _, tree = svg(screen_of("", cols=cols, title=title))
    bar = [text.text for text in tree.findall(SVG + "text")]
    assert bar == ([shown] if shown else [])


def test_a_title_that_is_given_replaces_the_screens():
    for picture in (render.render_svg, render.render_html):
        out = picture(screen_of("", cols=80, title="theirs"), title="mine")
        assert "mine" in out and "theirs" not in out


# --- HTML ------------------------------------------------------------------------------------

def html_rows(screen, **options):
    page = ElementTree.fromstring(render.render_html(screen, **options))
    body = page.find("body/div[@class='window']/div[@class='screen']")
    return body.findall("div"), page


def test_html_has_a_row_for_each_line_with_its_text():
    rows, _ = html_rows(history=1, screen=screen_of(
        "  a  b", line_of("日", "|─x"), "", cursor=cursor_at(0, 0, False), history=["old"]))
    assert ["".join(row.itertext()) for row in rows] == ["old", "  a  b", "日|─x", ""]


def test_html_puts_runs_of_equal_style_in_one_element_and_equal_styles_in_one_class():
    red = Attr(fg=1)
    rows, page = html_rows(screen_of(line_of("a", ("bc", red), "d", ("e", red)), cursor=cursor_at(0, 0, False)))
    assert ElementTree.tostring(rows[0]) == b'<div>a<span class="s0">bc</span>d<span class="s0">e</span></div>'
    assert "\n.screen .s0{color:#cd0000}\n" in page.find("head/style").text


def test_html_gives_wide_and_strange_characters_their_cells():
    rows, _ = html_rows(screen_of(line_of("日→──"), cursor=cursor_at(0, 0, False)))
    assert [(cell.text, cell.attrib) for cell in rows[0].findall("i")] == [
        ("日", {"class": "w"}), ("→", {}), ("──", {"class": "d", "style": "width:2ch"})]
    assert rows[0].find("svg").get("viewBox") == "0 0 84 17"


@pytest.mark.parametrize("attr, rules", [
    (Attr(bg=1), "background-color:#cd0000"), (Attr(bold=True, italic=True), "font-weight:bold;font-style:italic"),
    (Attr(underline=1), "text-decoration:underline solid #e5e5e5"),
    (Attr(underline=3, underline_colour=2), "text-decoration:underline wavy #00cd00"),
    (Attr(strike=True), "background-image:linear-gradient(currentColor,currentColor);background-position:0 8px;"
                        "background-size:100% 1px;background-repeat:no-repeat"),
])
def test_html_styles_an_attribute_by(attr, rules):
    _, page = html_rows(screen_of(line_of(("x", attr)), cursor=cursor_at(0, 0, False)))
    assert f"\n.screen .s0{{{rules}}}\n" in page.find("head/style").text


@pytest.mark.parametrize("shape, rule", [
    ("block", "color:#000000;background-color:#e5e5e5"), ("bar", "box-shadow:inset 2px 0 #e5e5e5"),
    ("underline", "box-shadow:inset 0 -2px #e5e5e5"),
])
def test_html_shows_the_cursor(shape, rule):
    rows, page = html_rows(screen_of("abc", cursor=cursor_at(1, 0, True, shape)))
    assert [(span.text, span.get("class")) for span in rows[0]] == [("b", "s0")]
    assert f"\n.screen .s0{{{rule}}}\n" in page.find("head/style").text


# --- nobody breaks out -------------------------------------------------------------------------

HOSTILE = [
    "</title><script>alert(1)</script>", "</text></svg><script>", "]]>", "<!--", "--></style>", "&lt;&#0;&amp",
    "\"' onload='alert(1)", "\x00\x01\x08\x0b\x0c\x1b[31m\x7f\x9b", "\ud800\udfff\ufffe\uffff", "\u202e\u2066\u200f",
    "${jndi}", "{{7*7}}", "%s%n", "\\", "\r\n\t",
]
HOSTILE_LINKS = [
    "javascript:alert(1)", "JaVaScRiPt:alert(1)", " javascript:x", "java\nscript:x", "\x01javascript:x",
    "data:text/html,<script>", "vbscript:x", "//evil/", "/x", "x", "", "https", "blob:https://x/",
    "view-source:http://x/", "\u202ejavascript:x", "http&#58;javascript:x",
]
HARMLESS_LINKS = ["http://e/a b", "https://e.org/?a=1&b=<'\">", "HTTP://E/", "ftp://e/", "mailto:a@b",
                  "file:///tmp/x"]


class Elements(html.parser.HTMLParser):
    """What a browser would make of it, not only an XML parser: elements, and whether all are closed."""

    VOID = ("meta",)

    def __init__(self, page):
        super().__init__()
        self.open, self.names, self.attributes = [], set(), []
        self.feed(page)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.names.add(tag)
        self.attributes += attributes
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.names.add(tag)
        self.attributes += attributes

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


KNOWN_ELEMENTS = {
    "svg": {"svg", "title", "style", "rect", "path", "circle", "g", "text", "tspan", "a"},
    "html": {"html", "head", "meta", "title", "style", "body", "div", "i", "b", "span", "a", "svg", "path"},
}


def check_is_harmless(screen, **options):
    """Well-formed, no other elements than ours, no event, no foreign address, no control character."""
    for name, known in KNOWN_ELEMENTS.items():
        out = render.FORMATS[name](screen, **options)
        ElementTree.fromstring(out)
        elements = Elements(out)
        assert elements.names <= known
        for attribute, value in elements.attributes:
            assert not attribute.startswith("on") and attribute != "src"
            if attribute == "href":
                assert re.match("(https?|ftp|mailto|file):", value.lower())
        assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]", out)
        assert "url(" not in out and "@import" not in out
        assert out == render.FORMATS[name](screen, **options)
    return out


@pytest.mark.parametrize("text", HOSTILE)
def test_a_hostile_text_title_and_link_stay_what_they_are(text):
    screen = screen_of(line_of(text, (text, Attr(link="http://x/" + text, underline=1)), cols=80), cols=80,
                       title=text, icon_title=text, cwd=text, history=[line_of(text, cols=80)])
    check_is_harmless(screen, history=1)
    check_is_harmless(screen, title=text)
    json.dumps(render.render_json(screen, history=1))
    out = render.render_ansi(screen, history=1)
    assert terminal.without_queries(out) == out
    again = Screen(screen.size)
    again.feed(out)
    assert again.modes == {} and again.palette == {} and len(again.history) == 1
    assert again.title == again.icon_title == render._clean(text)


@pytest.mark.parametrize("uri", HOSTILE_LINKS)
def test_a_link_to_another_scheme_is_none(uri):
    assert render.safe_link(uri) is None
    for picture in (render.render_svg, render.render_html):
        assert "href" not in picture(screen_of(line_of(("x", Attr(link=uri)))))


@pytest.mark.parametrize("uri", HARMLESS_LINKS)
def test_a_link_to_a_harmless_scheme_is_one(uri):
    screen = screen_of(line_of(("x", Attr(link=uri))), cursor=cursor_at(0, 0, False))
    assert svg(screen)[1].find(f"{SVG}g/{SVG}a").get("href") == uri
    assert html_rows(screen)[0][0].find("a").get("href") == uri


def test_invisible_text_is_in_no_picture():
    screen = screen_of(line_of("[", ("hunter2日", Attr(invisible=True, bg=4)), "]", cols=20), cols=20)
    for picture in (render.render_svg, render.render_html):
        assert "hunter2" not in picture(screen) and "日" not in picture(screen)
    rows, _ = html_rows(screen)
    assert "".join(rows[0].itertext()) == "[" + " " * 9 + "]"
    assert [(x, text) for x, text, _ in svg(screen)[0]] == [(0, "["), (84, "]")]


colours = st.one_of(st.none(), st.integers(0, 255), st.tuples(*[st.integers(0, 255)] * 3))
attributes = st.builds(
    Attr, fg=colours, bg=colours, bold=st.booleans(), faint=st.booleans(), italic=st.booleans(),
    underline=st.integers(0, 5), underline_colour=colours, blink=st.booleans(), inverse=st.booleans(),
    invisible=st.booleans(), strike=st.booleans(), overline=st.booleans(),
    link=st.one_of(st.none(), st.sampled_from(HOSTILE_LINKS + HARMLESS_LINKS), st.text(max_size=8)))
# A cell holds something, or is the second one of what is before it; one may be anything all the same.
cells = st.one_of(st.sampled_from(["a", " ", "<", "&", "日", "👍", "─", "█", "é", "e\u0301", "\u0301", "",
                                   "\x1b"]),
                  st.text(st.characters(), min_size=1, max_size=2))


@st.composite
def screens(draw):
    cols, rows = draw(st.integers(1, 6)), draw(st.integers(1, 3))
    attrs = draw(st.lists(attributes, min_size=1, max_size=3)) + [PLAIN]

    def line():
        return Line(draw(st.lists(cells, min_size=cols, max_size=cols)),
                    draw(st.lists(st.sampled_from(attrs), min_size=cols, max_size=cols)), draw(st.booleans()))
    return screen_of(
        *[line() for _ in range(rows)], cols=cols, history=[line() for _ in range(draw(st.integers(0, 2)))],
        title=draw(st.text(max_size=12)), is_wrap_pending=draw(st.booleans()),
        cursor=cursor_at(draw(st.integers(0, cols - 1)), draw(st.integers(0, rows - 1)), draw(st.booleans()),
                      draw(st.sampled_from(["block", "bar", "underline"])), draw(st.booleans())))


@given(screens())
@settings(max_examples=150, deadline=None)
def test_no_screen_breaks_a_picture(screen):
    check_is_harmless(screen, history=2)
    json.dumps(render.render_json(screen, history=2)).encode()
    out = render.render_ansi(screen, history=2)
    assert terminal.without_queries(out) == out
    out.decode("utf-8")
    assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f]", render.render_text(screen, history=2))


@given(screens())
@settings(max_examples=100, deadline=None)
def test_what_is_drawn_before_a_cell_does_not_move_it(screen):
    """In SVG every text stands at the place of its own cells."""
    texts, _ = svg(screen)
    for x, text, _ in texts:
        assert -0.01 <= x <= screen.size[0] * render.CELL_WIDTH + 0.01


# --- there and back ----------------------------------------------------------------------------

EVERYTHING = ("size", "cursor", "is_wrap_pending", "modes", "margins", "tab_stops", "charsets", "title", "icon_title",
              "cwd", "palette", "attr", "is_alternate")
NOTHING_SAVED = SavedCursor(0, 0, PLAIN, ("B",) * 4, 0, False, False)


def facts_of(screen, names=EVERYTHING):
    """All that a picture is to bring back; of the last line nobody can tell that it goes on."""
    def cells_of(lines):
        return [(line.chars, line.attrs, line.is_wrapped and at + 1 < len(lines)) for at, line in enumerate(lines)]
    facts = {name: getattr(screen, name) for name in names}
    facts.update(lines=cells_of(screen.lines), main_lines=cells_of(screen.main_lines or []))
    return facts


def shown_again(screen, before=b""):
    """The screen of a terminal that showed `before` and then a picture of `screen`."""
    again = Screen(screen.size)
    again.feed(before)
    again.feed(render.render_ansi(screen, history=10 ** 6))
    return again


PIECES = st.sampled_from([
    "a", "bc", "hello world", "0123456789", "日本", "👍", "e\u0301", "\U0001f468\u200d\U0001f469\u200d\U0001f467",
    "☺️", "─", " ", "\r", "\n", "\r\n", "\t", "\x08", "\x1b[m", "\x1b[31m", "\x1b[7m", "\x1b[42m",
    "\x1b[1;4:3;58:5:9m", "\x1b[48;2;1;2;3m", "\x1b[53;9;8m", "\x1b]8;;http://e/\x07", "\x1b]8;;\x07", "\x1b[H",
    "\x1b[2;3H", "\x1b[A", "\x1b[3C", "\x1b[K", "\x1b[J", "\x1b[2J", "\x1b[L", "\x1b[M", "\x1b[P", "\x1b[@",
    "\x1b[S", "\x1b[T", "\x1bM", "\x1bD", "\x1b[X", "\x1b#8", "\x1b[2;3r", "\x1b[r", "\x1b[?6h", "\x1b[?6l",
    "\x1b[?7l", "\x1b[?7h", "\x1b[20h", "\x1b[?69h", "\x1b[2;4s", "\x1b[?69l", "\x1b7", "\x1b8", "\x1b(0",
    "\x1b(B", "\x1b)0", "\x0e", "\x0f", "\x1bn", "\x1bH", "\x1b[3g", "\x1b[g", "\x1b[?1049h", "\x1b[?1049l",
    "\x1b[?1047h", "\x1b[?47h", "\x1b[?47l", "\x1b[?1h", "\x1b=", "\x1b>", "\x1b[?1003h", "\x1b[?1000h",
    "\x1b[?1006h", "\x1b[?1002l", "\x1b[?2004h", "\x1b[?2026h", "\x1b[?5h", "\x1b[?45h", "\x1b[4h", "\x1b[4l",
    "\x1b[>1u", "\x1b[=5u", "\x1b[>4;2m", "\x1b[?25l", "\x1b[?25h", "\x1b[?12h", "\x1b[5 q", "\x1b[4 q",
    "\x1b]0;t\x07", "\x1b]2;T\x07", "\x1b]4;1;rgb:11/22/33\x07", "\x1b]11;#010203\x07",
    "\x1b]7;file://h/tmp/a%20b\x07"])
OUTPUT = st.lists(PIECES, max_size=60).map(lambda pieces: "".join(pieces).encode())
SIZES = st.tuples(st.integers(2, 12), st.integers(2, 6))


def is_exotic(screen):
    """What no output can bring about again in one go.

    A wrap that is pending where no character can have made it so (by DECRC, or at margins
    that are gone); an emoji that a margin kept narrow; half a wide character.
    """
    if screen.is_wrap_pending and (screen.modes.get("autowrap") is False
                                   or screen.cursor.x != screen.margins[3]):
        return True
    lines = screen.lines + list(screen.history) + (screen.main_lines or [])
    return any(char.endswith("\ufe0f") and after != "" or char == " " and after == ""
               for line in lines for char, after in zip(line.chars, line.chars[1:]))


@given(SIZES, OUTPUT)
@settings(max_examples=300, deadline=None)
def test_a_picture_shows_a_fresh_terminal_the_same_screen_and_scrollback(size, output):
    screen = Screen(size)
    screen.feed(output)
    assume(not is_exotic(screen))
    again = shown_again(screen)
    assert facts_of(again) == facts_of(screen)
    assert [(line.chars, line.attrs, line.is_wrapped) for line in again.history] == [
        (line.chars, line.attrs, line.is_wrapped) for line in screen.history]
    assert (again.saved_cursor or NOTHING_SAVED) == (screen.saved_cursor or NOTHING_SAVED)
    assert (again.main_saved_cursor or NOTHING_SAVED) == (screen.main_saved_cursor or NOTHING_SAVED)


@given(SIZES, OUTPUT, OUTPUT)
@settings(max_examples=200, deadline=None)
def test_a_picture_shows_the_same_whatever_the_terminal_showed_before(size, output, before):
    screen = Screen(size)
    screen.feed(output)
    assume(not is_exotic(screen))
    # What may be the user's own is left as it was.
    names = [name for name in EVERYTHING if name not in ("title", "icon_title", "cwd", "palette", "tab_stops")]
    before += b"\x1b[?12;45;1007l"
    assert facts_of(shown_again(screen, before), names) == facts_of(screen, names)


def test_a_picture_leaves_alone_what_is_the_users_own():
    again = Screen((4, 2))
    again.feed(b"\x1b[?12;45;1007h\x1b]4;1;#010203\x07\x1b]10;#010203\x07\x1b]0;mine\x07\x1b[3g")
    again.feed(render.render_ansi(Screen((4, 2))))
    assert set(again.modes) == {"cursor_blink", "reverse_wrap", "alternate_scroll"}
    assert again.palette == {1: (1, 2, 3), "foreground": (1, 2, 3)} and again.title == "mine" and not again.tab_stops


@pytest.mark.parametrize("rows", [3, 4, 9])
@pytest.mark.parametrize("count", [0, 1, 2, 3, 5, 40])
def test_all_history_and_nothing_else_goes_into_the_scrollback_of_a_terminal_that_is_no_smaller(rows, count):
    screen = screen_of("now", "", "end", history=[f"line {n}" for n in range(count)])
    again = Screen((10, rows))
    again.feed(render.render_ansi(screen, history=99))
    assert ["".join(line.chars).rstrip() for line in again.history] == [f"line {n}" for n in range(count)]
    assert ["".join(line.chars).rstrip() for line in again.lines] == ["now", "", "end"] + [""] * (rows - 3)


# --- the same in another's terminal ---------------------------------------------------------------

CAPTURES = sorted(pathlib.Path(__file__).parent.joinpath("captures").glob("*.bytes"))
TMUX_FACTS = ("#{cursor_x},#{cursor_y} #{cursor_flag} alternate #{alternate_on} mouse #{mouse_any_flag} "
              "#{mouse_all_flag} #{mouse_button_flag} #{mouse_standard_flag} #{mouse_sgr_flag} keys #{keypad_flag} "
              "#{keypad_cursor_flag} insert #{insert_flag} origin #{origin_flag} wrap #{wrap_flag} "
              "region #{scroll_region_upper} #{scroll_region_lower} tabs #{pane_tabs} history #{history_size}")


class Tmux:
    """A server of our own, on a socket of its own."""

    def __init__(self, directory):
        self._socket = str(directory / "tmux")
        self._directory = directory
        self._count = 0

    def ask(self, *words):
        return subprocess.run(
            ["tmux", "-S", self._socket, "-f", os.devnull, *words], check=True, stdout=subprocess.PIPE,
            env=dict(os.environ, TERM="xterm-256color", LC_ALL="C.UTF-8", TMUX="")).stdout.decode()

    def show(self, data, size):
        """(facts, cells, whole text) after it was shown these bytes in a pane of that size."""
        self._count += 1
        # The title comes last; all has been shown when it is there.
        file = self._directory / f"output-{self._count}"
        file.write_bytes(data + b"\x1b]2;shown %d\x07" % self._count)
        self.ask("new-session", "-d", "-x", str(size[0]), "-y", str(size[1]), "-s", "x",
                 f"stty raw -echo; cat {shlex.quote(str(file))}; exec cat", ";", "set", "status", "off",
                 ";", "resize-window", "-x", str(size[0]), "-y", str(size[1]))
        world.wait_until(lambda: self.ask("display", "-p", "-t", "x", "#{pane_title}") == f"shown {self._count}\n",
                         "the last byte's effect")
        facts = self.ask("display", "-p", "-t", "x", TMUX_FACTS)
        cells = Screen((size[0] + 1, size[1] + 1))
        cells.feed(b"\x1b)0" + self.ask("capture-pane", "-p", "-e", "-t", "x").replace("\n", "\r\n").encode())
        # -J joins lines that wrapped; it leaves blanks at their ends, written or not.
        text = [line.rstrip() for line in self.ask("capture-pane", "-p", "-J", "-S", "-", "-t", "x").split("\n")]
        self.ask("new-session", "-d", "-s", f"keep-{self._count}", "exec cat", ";", "kill-session", "-t", "x")
        # Blanks at the end of a line are told or not, as they were written or erased.
        ends = [max([at + 1 for at, char in enumerate(line.chars) if char != " "], default=0) for line in cells.lines]
        return facts, [(line.chars[:end], line.attrs[:end]) for line, end in zip(cells.lines, ends)], text

    def end(self):
        self.ask("kill-server")


@pytest.fixture(scope="module")
def tmux(tmp_path_factory):
    if not shutil.which("tmux"):
        pytest.skip("no tmux here")
    server = Tmux(tmp_path_factory.mktemp("tmux"))
    server.ask("new-session", "-d", "-s", "keep", "exec cat")
    yield server
    server.end()


# What tmux 3.3 sees otherwise is left out: U+FE0F, line drawing (kept as letters), and that
# it puts what leaves a scroll region into the history.
TMUX_OUTPUT = {
    "colours": b"".join(b"\x1b[%dm%d " % (n, n) for base in (30, 40, 90, 100) for n in range(base, base + 8)),
    "attributes": b"".join(b"\x1b[%dm%d " % (n, n) for n in (1, 2, 3, 4, 5, 7, 8, 9, 53, 21)) + b"\x1b[m x",
    "more colours": b"".join(b"\x1b[38;5;%dm%d " % (n, n) for n in range(16, 256, 9)) + b"\x1b[48;2;1;2;3mrgb\x1b[m",
    "underlines": b"\x1b[4:3;58:5:9mcurly\x1b[m \x1b[4:2mdouble\x1b[m \x1b[4:4mdotted\x1b[m x",
    "wrapped lines": b"x" * 50 + b"\r\n" + "日本語".encode() * 20 + b"\r\nend",
    "history": b"".join(b"line %d %s\r\n" % (n, b"y" * (3 * n)) for n in range(40)),
    "history that wraps into the screen": b"z" * 370 + b"\r\n" + b"w" * 430,
    "emoji": "👍🎉 x e\u0301 ñ 👨\u200d👩\u200d👧|é".encode(),
    "a full screen": b"$ vim\r\n\x1b[?1049h\x1b[?1h\x1b=\x1b[H\x1b[2J\x1b[1;9r~\r\n~\r\n\x1b[44mstatus\x1b[m"
                     b"\x1b[3;4H\x1b[?1002h\x1b[?1006h\x1b[?2004h",
    "margins": b"a\r\nb\r\nc\x1b[2;5r\x1b[?6h\x1b[2;3Hd", "a pending wrap": b"0" * 40,
    "a pending wrap of a wide one": "日".encode() * 20, "no cursor": b"ab\x1b[?25l",
    "insert": b"abc\x1b[4h\x1b[2G", "no wrap": b"\x1b[?7labc",
    "tab stops": b"\x1b[3g\x1b[5G\x1bH\x1b[12G\x1bH\rab\tc",
    "a coloured end of line": b"\x1b[41mab\x1b[K\r\n\x1b[m", "the mouse": b"\x1b[?1003h\x1b[?1006h",
}


@pytest.mark.parametrize("name", TMUX_OUTPUT)
def test_tmux_shows_a_picture_as_it_shows_the_output_itself(tmux, name):
    size = (40, 10)
    screen = Screen(size)
    screen.feed(TMUX_OUTPUT[name])
    assert tmux.show(render.render_ansi(screen, history=10 ** 6), size) == tmux.show(TMUX_OUTPUT[name], size)


@pytest.mark.parametrize("path", CAPTURES, ids=lambda path: path.stem)
def test_tmux_shows_a_picture_of_a_programs_screen_as_it_shows_the_programs_output(tmux, path):
    cols, rows = path.stem.rpartition("-")[2].split("x")
    size, output = (int(cols), int(rows)), path.read_bytes()
    screen = Screen(size)
    screen.feed(output)
    assert (tmux.show(render.render_ansi(screen, history=10 ** 6), size)[:2] == tmux.show(output, size)[:2])


# --- a real program's screen ------------------------------------------------------------------------

@pytest.mark.parametrize("path", CAPTURES, ids=lambda path: path.stem)
def test_pictures_of_a_programs_screen_hold_its_text(path):
    cols, rows = path.stem.rpartition("-")[2].split("x")
    screen = Screen((int(cols), int(rows)))
    screen.feed(path.read_bytes())
    check_is_harmless(screen)
    wanted = ["".join(line.chars).rstrip(" ") for line in screen.lines]
    divs, _ = html_rows(screen)
    assert ["".join(div.itertext()).rstrip(" ") for div in divs] == wanted
    assert render.render_text(screen).split("\n")[:-1] == "\n".join(wanted).rstrip("\n").split("\n")
