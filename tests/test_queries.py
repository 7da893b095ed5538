"""Queries: what a program asks its terminal, found however the output is cut, and the answers."""

import pytest
from hypothesis import given, strategies as st

from ptyguard_core import queries, tables
from ptyguard_core.queries import (FIXED, HELD_MAX, QueryFinder, answer, default_colours, needs_screen,
                                   parse_colour)
from ptyguard_core.screen import Screen
from ptyguard_core.terminal import without_queries
from ptyguard_core.version import OURS

COLOURS = default_colours({"foreground": "#010203", "background": "#fffefd"})

# Output, and what a terminal of 20 x 6 says to the query that it ends in.
ANSWERED = [
    (b"\x1b[c", b"\x1b[?62;22c"), (b"\x1b[0c", b"\x1b[?62;22c"), (b"\x1bZ", b"\x1b[?62;22c"),
    (b"\x1b[>c", b"\x1b[>1;10;0c"), (b"\x1b[>0c", b"\x1b[>1;10;0c"),
    (b"\x1b[=c", b"\x1bP!|00000000\x1b\\"), (b"\x1b[=0c", b"\x1bP!|00000000\x1b\\"),
    (b"\x1b[5n", b"\x1b[0n"),
    (b"\x1b[>q", b"\x1bP>|ptyguard(" + OURS.encode() + b")\x1b\\"),
    (b"\x1b[6n", b"\x1b[1;1R"), (b"\x1b[?6n", b"\x1b[?1;1R"), (b"\x1b[0006n", b"\x1b[1;1R"),
    (b"one\r\ntwo\x1b[6n", b"\x1b[2;4R"),
    (b"\x1b[99;99H\x1b[6n", b"\x1b[6;20R"),
    (b"\x1b[2;1Hx" + b"y" * 19 + b"\x1b[6n", b"\x1b[2;20R"),                # a wrap is pending
    (b"\x1b[2;5r\x1b[?6h\x1b[2;3H\x1b[6n", b"\x1b[2;3R"),                   # origin mode
    (b"\x1b[?69h\x1b[5;15s\x1b[2;5r\x1b[?6h\x1b[2;3H\x1b[?6n", b"\x1b[?2;3R"),
    (b"\x1b[2;5r\x1b[3;3H\x1b[6n", b"\x1b[3;3R"),                           # margins without it
    (b"\x1b[?u", b"\x1b[?0u"), (b"\x1b[>5u\x1b[?u", b"\x1b[?5u"), (b"\x1b[>5u\x1b[<u\x1b[?u", b"\x1b[?0u"),
    (b"\x1b[?2026$p", b"\x1b[?2026;2$y"), (b"\x1b[?2026h\x1b[?2026$p", b"\x1b[?2026;1$y"),
    (b"\x1b[?25$p", b"\x1b[?25;1$y"), (b"\x1b[?25l\x1b[?25$p", b"\x1b[?25;2$y"),
    (b"\x1b[?7$p", b"\x1b[?7;1$y"), (b"\x1b[?1000$p", b"\x1b[?1000;2$y"),
    (b"\x1b[?1002h\x1b[?1002$p", b"\x1b[?1002;1$y"), (b"\x1b[?1002h\x1b[?1000$p", b"\x1b[?1000;2$y"),
    (b"\x1b[?1049$p", b"\x1b[?1049;2$y"), (b"\x1b[?1049h\x1b[?1049$p", b"\x1b[?1049;1$y"),
    (b"\x1b[?1048$p", b"\x1b[?1048;2$y"), (b"\x1b7\x1b[?1048$p", b"\x1b[?1048;1$y"),
    (b"\x1b[?4711$p", b"\x1b[?4711;0$y"), (b"\x1b[?$p", b"\x1b[?0;0$y"),
    (b"\x1b[4$p", b"\x1b[4;2$y"), (b"\x1b[4h\x1b[4$p", b"\x1b[4;1$y"), (b"\x1b[77$p", b"\x1b[77;0$y"),
    (b"\x1b]10;?\x07", b"\x1b]10;rgb:0101/0202/0303\x07"),
    (b"\x1b]11;?\x1b\\", b"\x1b]11;rgb:ffff/fefe/fdfd\x1b\\"),
    (b"\x1b]12;?\x07", b"\x1b]12;rgb:0101/0202/0303\x07"),                 # the text's colour
    (b"\x1b]010;?;?\x1b\\", b"\x1b]10;rgb:0101/0202/0303\x1b\\\x1b]11;rgb:ffff/fefe/fdfd\x1b\\"),
    (b"\x1b]11;?;?;?;?\x07", b"\x1b]11;rgb:ffff/fefe/fdfd\x07\x1b]12;rgb:0101/0202/0303\x07"),
    (b"\x1b]11;#102030\x07\x1b]11;?\x07", b"\x1b]11;rgb:1010/2020/3030\x07"),
    (b"\x1b]10;#102030;?\x07", b"\x1b]11;rgb:ffff/fefe/fdfd\x07"),
    (b"\x1b]10;#102030\x07\x1b]12;?\x07", b"\x1b]12;rgb:1010/2020/3030\x07"),
    (b"\x1b]11;#102030\x07\x1b]111\x07\x1b]11;?\x07", b"\x1b]11;rgb:ffff/fefe/fdfd\x07"),
    (b"\x1b]4;1;?\x07", b"\x1b]4;1;rgb:cdcd/0000/0000\x07"),
    (b"\x1b]4;1;#010203;2;?;255;?\x1b\\",
     b"\x1b]4;2;rgb:0000/cdcd/0000\x1b\\\x1b]4;255;rgb:eeee/eeee/eeee\x1b\\"),
    (b"\x1b]4;7;#010203\x07\x1b]4;7;?\x07", b"\x1b]4;7;rgb:0101/0202/0303\x07"),
    (b"\x1b]4;256;?\x07", b""), (b"\x1b]4;?\x07", b""), (b"\x1b]4;x;?;1;?\x07", b"\x1b]4;1;rgb:cdcd/0000/0000\x07"),
    (b"\x1bP+q544e\x1b\\", b"\x1bP0+r\x1b\\"), (b"\x1bP$qm\x1b\\", b"\x1bP0$r\x1b\\"),
]
UNASKED = [b"", b"text", b"\x1b", b"\x1b[m", b"\x1b[0;1;31m", b"\x1b[?6c", b"\x1b[1c", b"\x1b[15n", b"\x1b[?5n",
           b"\x1b[>6n", b"\x1b[\x18c", b"\x1b[u", b"\x1b[>1u", b"\x1b[=1u", b"\x1b[2 q", b"\x1b[1q", b"\x1b[!p",
           b"\x1b]11;#000000\x07", b"\x1b]2;what?\x07", b"\x1b]52;c;?\x07", b"\x1b]4;1;rgb:0/0/0\x1b\\",
           b"\x1bPq#0\x1b\\", b"\x1bP+q544e\x18", b"\x1b]11;?\x1b[m", b"\x05", b"\x1b[>4;1m", b"\x1b[?4m"]


def answers(data, screen, cuts=()):
    """All answers to `data`, of a terminal that is shown it in pieces cut there."""
    finder, given, shown = QueryFinder(), [], 0
    cuts = [0, *cuts, len(data)]
    for begin, end in zip(cuts, cuts[1:]):
        for query in finder.find(memoryview(data)[begin:end], end):
            screen.feed(data[shown:query.end])
            shown = query.end
            given.append(answer(query, screen, COLOURS))
    return b"".join(given)


@pytest.mark.parametrize("data, expected", ANSWERED)
def test_a_query_is_answered_as_the_screen_is_wherever_it_is_cut(data, expected):
    data += b" after"
    assert answers(data, Screen((20, 6))) == expected
    for at in range(len(data) + 1):
        assert answers(data, Screen((20, 6)), [at]) == expected
    assert answers(data, Screen((20, 6)), range(1, len(data))) == expected


@pytest.mark.parametrize("data", UNASKED)
def test_what_is_no_query_is_not_answered(data):
    assert answers(data, Screen((20, 6))) == b""


def test_each_kind_has_its_answer():
    kinds = set(queries._KINDS.values()) | {"ansi_mode", "private_mode", "colours", "palette", "capability",
                                            "setting"}
    assert kinds == set(queries._ANSWERS) | set(FIXED)
    assert not set(queries._ANSWERS) & set(FIXED)


def test_only_what_the_screen_knows_needs_one():
    found = {query.kind: needs_screen(query)
             for data, _ in ANSWERED for query in QueryFinder().find(data, len(data))}
    assert {kind for kind, needs in found.items() if not needs} == set(FIXED)
    for kind in FIXED:
        assert answer(queries.Query(kind, b"", b"", 0, 1)) == FIXED[kind]


def test_what_is_answered_is_not_left_in_replayed_output():
    for data, _ in ANSWERED:
        for query in QueryFinder().find(data, len(data)):
            assert without_queries(data[query.start:query.end]) == b""


def test_a_query_knows_where_it_stands():
    data = b"text\x1b[6nmore\x1b]11;?\x1b\\"
    assert [(query.start, query.end) for query in QueryFinder().find(data, 1000 + len(data))] == [
        (1004, 1008), (1012, 1000 + len(data))]


def test_no_report_is_promised_that_nobody_sends():
    for mode in queries.UNPROMISED_MODES & set(tables.PRIVATE_MODES):
        assert answers(b"\x1b[?%dh\x1b[?%d$p" % (mode, mode), Screen((20, 6))) == b"\x1b[?%d;0$y" % mode


@pytest.mark.parametrize("mode", sorted(set(tables.PRIVATE_MODES) - queries.UNPROMISED_MODES))
def test_every_mode_is_told_as_reset_after_a_reset_and_as_set_once_it_is(mode):
    screen = Screen((20, 6))
    default = 1 if tables.PRIVATE_MODES[mode][0] in ("autowrap", "cursor_visible") else 2
    asked = b"\x1b[?%d$p" % mode
    assert answers(asked, screen) == b"\x1b[?%d;%d$y" % (mode, default)
    assert answers(b"\x1b[?%dh" % mode + asked, screen) == b"\x1b[?%d;1$y" % mode
    assert answers(b"\x1b[?%dl" % mode + asked, screen) == b"\x1b[?%d;2$y" % mode


fragments = st.sampled_from([data for data, _ in ANSWERED] + UNASKED + [
    b"\x1b[2;3H", b"\r\n", b"words", b"\x1b", b"\x1b[", b"\x1b]11;", b"?", b"\x07", b"\\", b"\x1b[31m", b"\xff"])


@given(st.lists(fragments | st.binary(max_size=4), max_size=12).map(b"".join),
       st.lists(st.integers(0, 200), max_size=6))
def test_answers_are_the_same_however_the_output_is_cut(data, cuts):
    cuts = sorted({min(cut, len(data)) for cut in cuts})
    assert answers(data, Screen((20, 6)), cuts) == answers(data, Screen((20, 6)))


@given(st.lists(fragments, max_size=6).map(b"".join), fragments)
def test_a_finder_that_comes_later_goes_on_within_a_query(before, data):
    at = len(before)
    whole = QueryFinder().find(before + data, at + len(data))
    assert QueryFinder(before[-HELD_MAX:]).find(data, at + len(data)) == [
        query for query in whole if query.end > at]


@pytest.mark.parametrize("part", [b"\x1b", b"\x1b[", b"\x1b]4;", b"\x1b]4;?", b"\x1b]11;" + b"x" * 3000, b"0;", b"?",
                                  b"\x1bP+q", b"\x1b[0", b"\x1b[?" + b"9" * 90, b";\x1b\x1b"])
def test_hostile_output_is_read_in_linear_time_and_little_of_it_is_kept(part):
    # Nothing is timed here: what is quadratic at this size does not come back.
    finder = QueryFinder()
    data = part * (1 + 300000 // len(part))
    for size in (len(data), 700):
        for begin in range(0, len(data), size):
            finder.find(data[begin:begin + size], begin + size)
            assert finder.held_bytes <= HELD_MAX


def test_colours_are_as_they_were_set_and_have_defaults():
    assert default_colours({}) == {"foreground": tables.FOREGROUND, "background": tables.BACKGROUND,
                                   "cursor": tables.FOREGROUND}
    assert default_colours({"foreground": "#fff", "background": "red", "cursor-colour": "#0A0b0C"}) == {
        "foreground": tables.FOREGROUND, "background": tables.BACKGROUND, "cursor": (10, 11, 12)}


@pytest.mark.parametrize("text", ["", "#", "#12345", "#1234567", "123456", "#12345g", "#123456\n", " #123456", "#١23456"])
def test_what_is_no_colour_is_none(text):
    assert parse_colour(text) is None
