"""Terminal talk: safe starts, queries removed, modes remembered, queries answered."""

import pytest
from hypothesis import example, given, strategies as st

from ptyguard_core import terminal
from ptyguard_core.screen import Screen
from ptyguard_core.terminal import Modes, QueryFilter, has_query, safe_start, without_queries

QUERIES = [
    b"\x1b[c", b"\x1b[0c", b"\x1b[0;1c", b"\x1b[>c", b"\x1b[>0c", b"\x1b[=c", b"\x1b[=0c",
    b"\x1b[5n", b"\x1b[6n", b"\x1b[n", b"\x1b[?6n", b"\x1b[?15n", b"\x1b[?25n", b"\x1b[?26n",
    b"\x1b[?996n", b"\x1b[?62;1n",
    b"\x1b[4$p", b"\x1b[?2026$p", b"\x1b[>q", b"\x1b[>0q", b"\x1b[?u", b"\x1b[?4m", b"\x1b[?4g",
    b"\x1b[11t", b"\x1b[13t", b"\x1b[13;2t", b"\x1b[14t", b"\x1b[14;2t", b"\x1b[15t", b"\x1b[16t",
    b"\x1b[18t", b"\x1b[19t", b"\x1b[20t", b"\x1b[21t",
    b"\x1b[x", b"\x1b[0x", b"\x1b[1x", b"\x1b[1;1;1;1;24;80*y", b"\x1b[1$w", b"\x1b[1$u",
    b"\x1b[&u", b'\x1b["v', b"\x1b['|", b"\x1b[?1;1;0S", b"\x1b[#R", b"\x1b[1;1;2;2#|",
    b"\x1bP$qm\x1b\\", b"\x1bP$q q\x1b\\", b"\x1bP+q544e;524742\x1b\\",
    b"\x1b]4;1;?\x07", b"\x1b]4;1;?;2;?\x1b\\", b"\x1b]5;0;?\x07",
    b"\x1b]10;?\x07", b"\x1b]11;?\x1b\\", b"\x1b]12;?\x07", b"\x1b]10;?;?\x1b\\", b"\x1b]17;?\x07",
    b"\x1b]19;?\x07", b"\x1b]52;c;?\x07", b"\x1b]52;;?\x1b\\", b"\x1b]21;foreground=?\x1b\\",
    b"\x1b]22;?__current__\x1b\\", b"\x1b]50;?\x07", b"\x1b]60\x1b\\", b"\x1b]61;allowColorOps\x07",
    b"\x1b]99;i=1:p=?;\x1b\\", b"\x1b]5522;type=read;Lg==\x1b\\", b"\x1b]1337;ReportCellSize\x07",
    b"\x1b_Gi=31,s=1,v=1,a=q,t=d,f=24;AAAA\x1b\\",
    b"\x05", b"\x1bZ",
    b"\x1b[\r\nc", b"\x1b\x00[6\x08n", b"\x1b[?2026\x7f$p", b"\x1b[\x05c",     # carried out inside
]

# What looks like a query and is none.
NO_QUERIES = [
    b"plain text, \xc3\xa9\xff\x80\r\n\x07\x08\x00", b"", b"\x1b", b"\x1b\x1b",
    b"\x1b[?6c", b"\x1b[1c", b"\x1b[>4;2m", b"\x1b[>4n", b"\x1b[0m", b"\x1b[38;5;1m", b"\x1b[m",
    b"\x1b[8;24;80t", b"\x1b[22;0t", b"\x1b[23;0t", b"\x1b[1;1;2;2$t", b"\x1b[1 t", b"\x1b[>2t",
    b"\x1b[u", b"\x1b[s", b"\x1b[>1u", b"\x1b[<u", b"\x1b[=1;1u", b"\x1b[2 q", b"\x1b[1q",
    b"\x1b[!p", b"\x1b[61\"p", b"\x1b[?2026h", b"\x1b[42;1;1;24;80$x", b"\x1b[2*x", b"\x1b[1S",
    b"\x1b]0;what?\x07", b"\x1b]2;is;this?\x1b\\",
    b"\x1b]4;1;rgb:ff/00/00\x07", b"\x1b]11;#000000\x1b\\",
    b"\x1b]52;c;aGVsbG8=\x07", b"\x1b]8;;http://example.org/?q=1\x1b\\", b"\x1b]104\x07",
    b"\x1b]1337;File=name=YQ==:AAAA\x07", b"\x1b]22;pointer\x1b\\",
    b"\x1bPq#0;2;0;0;0~~\x1b\\", b"\x1bP1000p", b"\x1b_Ga=T,f=100;AAAA\x1b\\", b"\x1b_Ga=p,q=2;\x1b\\",
    b"\x1b(0\x1b)B\x1b7\x1b8\x1b=\x1b>\x1bc\x1bM", b"\x1b[\r\nA", b"\x1b[\x18c", b"\x1b[\x1ac",
]

# Pieces that sequences are made of, so that random data is full of half ones.
FRAGMENTS = [
    b"\x1b", b"\x1b[", b"\x1b]", b"\x1bP", b"\x1b_", b"\x1b\\", b"\x07", b"\x18", b"\x1a", b"\x05",
    b"\n", b"\r", b"\x0e", b"\x0f", b"\x7f", b"[", b"]", b"?", b">", b"=", b"<", b"!", b"$", b"+",
    b" ", b";", b":", b"0", b"1", b"4", b"5", b"6", b"11;?", b"25", b"1049", b"1000", b"2004",
    b"c", b"n", b"m", b"p", b"q", b"h", b"l", b"u", b"r", b"t", b"x", b"Z", b"(",
    b"text", b"\xc3\xa9", b"\xa9",
]
pieces = st.lists(st.sampled_from(FRAGMENTS + QUERIES) | st.binary(max_size=3), max_size=14)
anything = pieces.map(b"".join)

MODE_SEQUENCES = [
    b"\x1b[?1h", b"\x1b[?1l", b"\x1b[?1000;1006h", b"\x1b[?1002h", b"\x1b[?1000l", b"\x1b[?2004h",
    b"\x1b[?25l", b"\x1b[?25h", b"\x1b[?7l", b"\x1b[?6h", b"\x1b[?2026h", b"\x1b[?9999h",
    b"\x1b[?1049h", b"\x1b[?1049l", b"\x1b[?47h", b"\x1b[?47l", b"\x1b[?1047h",
    b"\x1b[?1048h", b"\x1b[?1048l", b"\x1b[4h", b"\x1b[4l", b"\x1b=", b"\x1b>",
    b"\x1b[>1u", b"\x1b[>3u", b"\x1b[<u", b"\x1b[<5u", b"\x1b[=5u", b"\x1b[=2;2u", b"\x1b[=1;3u",
    b"\x1b[>4;2m", b"\x1b[>4m", b"\x1b[>4;m", b"\x1b[>m", b"\x1b[3 q", b"\x1b[ q",
    b"\x1b[2;10r", b"\x1b[r", b"\x1b(0", b"\x1b(B", b"\x1b)0", b"\x1b-A", b"\x1b(%5",
    b"\x0e", b"\x0f", b"\x1bn", b"\x1b[31m", b"\x1b[1;4m", b"\x1b[m", b"\x1b[0m", b"\x1b[38;5;0m",
    b"\x1b[!p", b"\x1bc",
]
output = st.lists(st.sampled_from(MODE_SEQUENCES + FRAGMENTS), max_size=20).map(b"".join)


def modes_of(*pieces):
    modes = Modes()
    for piece in pieces:
        modes.feed(piece)
    return modes


def state(modes):
    return dict(vars(modes))


# --- safe_start ---------------------------------------------------------------------

@pytest.mark.parametrize("skipped, replayed", [
    (b"", b""),
    (b"", b"plain"),
    (b"rest of a line\r\n", b"next"),
    (b"\n", b"next"),
    (b"no end yet\n", b""),
    (b"\xa9\x80", b"text"),                                 # the rest of a character
    (b"\x80\x80\x80\x80\x80", b""),
    (b"31m", b"red"),                                       # the rest of CSI
    (b"[?25h", b"shown"),
    (b";5;12mblue\n", b"next"),
    (b"window title\x07", b"text"),                         # the rest of OSC
    (b"]0;window title\x1b\\", b"text"),
    (b"#0~~\n#1~~\n\x1b\\", b"text"),                       # the rest of a picture, newlines in it
    (b"#0~~\n\x1b\\text\n", b"next"),
    (b"a\x1b]0;two\nlines\x07b\n", b"c"),                   # no newline inside a string
    (b"a\x1bPq\n\n\x1b\\b\n", b"c"),
    (b"a\x1b_x\ny\x1b\\\n", b"z"),
    (b"a\x1b[3\n1mb\n", b"c"),                              # nor inside CSI
    (b"a\x1b\n(Bb\n", b"c"),
    (b"a\x1b]0;cut off\n\x1b[mb\n", b"c"),                  # ESC ends a string
    (b"a\x1b]0;cut off\x18b\n", b"c"),
    (b"a\x1b]0;x\x07\x1b\\\n", b"b"),                       # a terminator too many
    (b"", b"a\x1b]0;never ends\n\n\n"),
    (b"", b"2024-01-01 not CSI"),
    (b"", b"\x1b[31m\x1b[Hx"),                              # begins where one begins
])
def test_replay_starts_after_a_newline_or_after_what_the_cut_left(skipped, replayed):
    assert safe_start(skipped + replayed) == len(skipped)
    assert safe_start(memoryview(skipped + replayed)) == len(skipped)


def test_a_newline_is_looked_for_in_8_kib_only():
    assert safe_start(b"x" * 8191 + b"\ny") == 8192
    assert safe_start(b"x" * 8192 + b"\ny") == 0
    assert safe_start(b"\x80" + b"x" * 8192 + b"\ny") == 1


def test_every_cut_of_a_screenful_starts_at_the_same_lines():
    screen = (b"\x1b]0;a title\x07\x1b[1;31mred\x1b[m caf\xc3\xa9\r\n"
              b"\x1bP$r0m\x1b\\second\r\n" + b"third \x1b(0qq\x1b(B\r\n")
    starts = {cut + safe_start(screen[cut:]) for cut in range(len(screen))}
    lines = {i + 1 for i, byte in enumerate(screen) if byte == 10}
    assert starts <= lines


@given(anything)
def test_a_start_is_inside_the_data_and_past_the_rest_of_a_character(data):
    start = safe_start(data)
    assert 0 <= start <= len(data)
    if 0x80 <= max(data[:1], default=0) < 0xC0:
        assert start > 0


@given(st.text(), st.integers(1, 3))
def test_cut_text_starts_with_a_whole_character(text, cut):
    data = text.encode("utf-8", "replace").replace(b"\x1b", b"")[cut:]
    data[safe_start(data):].decode("utf-8")


# --- without_queries -------------------------------------------------------------------

@pytest.mark.parametrize("query", QUERIES)
def test_a_query_is_removed_and_the_text_around_it_is_not(query):
    controls = bytes(b for b in query if b in b"\r\n\x00\x08\x7f") if query[:2] != b"\x1b]" else b""
    assert without_queries(query) == controls
    assert without_queries(b"before" + query + b"after") == b"before" + controls + b"after"
    view = memoryview(b"\x1b[m" + query * 3 + b"\xff")
    assert without_queries(view) == b"\x1b[m" + controls * 3 + b"\xff"


@pytest.mark.parametrize("query", [q for q in QUERIES if len(q) > 1 and b"\x05" not in q])
def test_an_incomplete_query_at_the_end_stays(query):
    for end in range(1, len(query)):
        # One query in front of another's end is complete by itself: OSC 60.
        if without_queries(query[:end]) == b"":
            continue
        assert without_queries(b"text" + query[:end]) == b"text" + query[:end]


@pytest.mark.parametrize("data", NO_QUERIES)
def test_what_is_no_query_stays_byte_for_byte(data):
    assert without_queries(data) == data
    assert without_queries(data + b"after" + data) == data + b"after" + data


def test_a_string_query_that_is_cut_off_is_removed_and_what_cuts_it_off_stays():
    assert without_queries(b"a\x1b]11;?\x1b[31mb") == b"a\x1b[31mb"
    assert without_queries(b"a\x1b]11;?\x18b") == b"a\x18b"
    assert without_queries(b"a\x1b]11;?\x1b[cb") == b"ab"


def test_removing_a_query_does_not_put_a_new_one_together():
    assert without_queries(b"\x1b[\x1b[cc") == b"\x1b[\x18c"
    assert without_queries(b"\x1b]11;\x1b[c?\x07") == b"\x1b]11;\x18?\x07"
    assert without_queries(b"\x1b\x1b[c[c") == b"\x1b\x18[c"


def test_a_query_wrapped_for_tmux_does_not_get_through_and_the_wrapping_still_ends():
    wrapped = b"a\x1bPtmux;\x1b\x1b[c\x1b\\b"
    assert without_queries(wrapped) == b"a\x1bPtmux;\x1b\x18\x1b\\b"


@given(anything)
@example(b"\x1b[\x1b[\x1b[ccc")
@example(b"\x1b\x05Z")
def test_removing_queries_twice_removes_no_more(data):
    once = without_queries(data)
    assert without_queries(once) == once


@given(anything | st.lists(st.sampled_from([b"\x1b[", b"?", b">", b"="]) | st.sampled_from(
    [bytes([code]) for code in range(0x20, 0x7f)]), max_size=12).map(b"".join) | output)
def test_whether_there_is_a_query_is_told_as_it_would_be_removed(data):
    assert has_query(data) == (b"\x05" in data or terminal._QUERY.search(data) is not None)


@pytest.mark.parametrize("query", QUERIES[:-4])
def test_a_query_is_seen_and_what_is_none_is_not(query):
    assert has_query(b"\x1b[1;31mtext" + query)
    assert not any(has_query(data) for data in NO_QUERIES)


@given(output, st.lists(st.integers(0, 200), max_size=4))
def test_queries_are_removed_from_pieces_as_from_the_whole(data, cuts):
    cuts = sorted({min(cut, len(data)) for cut in cuts})
    queries = QueryFilter()
    kept = b"".join(queries.feed(data[a:b]) for a, b in zip([0] + cuts, cuts + [len(data)]))
    assert not has_query(kept + queries.flush()) and (cuts or kept == without_queries(data)[:len(kept)])


no_queries = st.sampled_from([data for data in NO_QUERIES if data.strip(b"\x1b")])
letters = st.text("abc 0;?\n").map(str.encode)


@given(st.lists(no_queries | letters, max_size=8).map(b"".join))
def test_data_without_queries_is_left_alone(data):
    assert without_queries(data) == data


@given(anything)
def test_without_escape_and_enq_nothing_is_a_query(data):
    data = data.replace(b"\x1b", b"").replace(b"\x05", b"")
    assert without_queries(data) == data


@pytest.mark.parametrize("part", [
    b"\x1b", b"\x1b[", b"\x1b]4;", b"\x1b]4;?", b"?", b";", b"=?", b":", b":p=?", b":type=read",
    b",a=q", b"0", b"9;", b" ", b"\n", b"\x00", b"\x1b[\n", b"\x1b\n", b"\x1b[c", b"\x1b[\x1b[c",
    b"m", b"\x80", b"\x07", b"\x0e", b"\x1bP+q",
])
@pytest.mark.parametrize("front", [
    b"", b"\x1b", b"\x1b[", b"\x1b[?", b"\x1b]4;", b"\x1b]21;", b"\x1b]99;", b"\x1b]5522;", b"\x1b_G",
])
def test_hostile_output_is_read_in_linear_time(front, part):
    # ESC ]99; and many :p=? took minutes.  Nothing is timed here: what is quadratic at this
    # size does not come back.
    data = front + part * (100000 // len(part))
    without_queries(data)
    safe_start(data)
    Modes().feed(data)
    QueryFilter().feed(data)


# --- Modes ------------------------------------------------------------------------------

UNDONE = [
    # output, undo, redo
    (b"", b"", b""),
    (b"\x1b[?1h", b"\x1b[?1l", b"\x1b[?1h"),
    (b"\x1b[?25l", b"\x1b[?25h", b"\x1b[?25l"),
    (b"\x1b[?25l\x1b[?25h", b"", b""),
    (b"\x1b[?7l", b"\x1b[?7h", b"\x1b[?7l"),
    (b"\x1b[?1000;1006h", b"\x1b[?1000l\x1b[?1006l", b"\x1b[?1000h\x1b[?1006h"),
    (b"\x1b[?1002h\x1b[?1000h", b"\x1b[?1000l\x1b[?1002l", b"\x1b[?1002h\x1b[?1000h"),
    (b"\x1b[?2004h\x1b[?1004h", b"\x1b[?1004l\x1b[?2004l", b"\x1b[?2004h\x1b[?1004h"),
    (b"\x1b[?0002004h", b"\x1b[?2004l", b"\x1b[?2004h"),
    (b"\x1b[?1049h", b"\x1b[?1049l", b"\x1b[?1049h"),
    (b"\x1b[?47h", b"\x1b[?47l", b"\x1b[?47h"),
    (b"\x1b[?1048h\x1b[?1047h", b"\x1b[?1047l\x1b[?1048l", b"\x1b[?1048h\x1b[?1047h"),
    (b"\x1b[?1048h", b"", b""),
    (b"\x1b[?1049h\x1b[?47l", b"", b""),
    (b"\x1b[?34h\x1b[?3h", b"", b""),                                   # not ours to know
    (b"\x1b[4h", b"\x1b[4l", b"\x1b[4h"),
    (b"\x1b=", b"\x1b>", b"\x1b="),
    (b"\x1b[>5u", b"\x1b[<1u", b"\x1b[>5u"),
    (b"\x1b[>1u\x1b[>3u\x1b[<u", b"\x1b[<1u", b"\x1b[>1u"),
    (b"\x1b[>1u\x1b[=3u", b"\x1b[<1u", b"\x1b[>3u"),
    (b"\x1b[=1u\x1b[=4;2u\x1b[=1;3u", b"\x1b[=0u", b"\x1b[=4u"),
    (b"\x1b[>1u\x1b[<9u", b"", b""),
    (b"\x1b[>1u\x1b[?1049h\x1b[>3u",
     b"\x1b[<1u\x1b[?1049l\x1b[<1u", b"\x1b[>1u\x1b[?1049h\x1b[>3u"),
    (b"\x1b[>4;2m", b"\x1b[>4m", b"\x1b[>4;2m"),
    (b"\x1b[>4;2m\x1b[>4;m", b"", b""),
    (b"\x1b[5 q", b"\x1b[0 q", b"\x1b[5 q"),
    (b"\x1b[5 q\x1b[0 q", b"", b""),
    (b"\x1b[2;10r", b"\x1b7\x1b[r\x1b8", b"\x1b[2;10r"),
    (b"\x1b[?1049h\x1b[2;10r", b"\x1b[r\x1b[?1049l", b"\x1b[?1049h\x1b[2;10r"),
    (b"\x1b[?6h\x1b[2;10r", b"\x1b7\x1b[r\x1b8\x1b[?6l", b"\x1b[2;10r\x1b[?6h"),
    (b"\x1b[2;10r\x1b[r", b"", b""),
    (b"\x1b(0", b"\x1b(B", b"\x1b(0"),
    (b"\x1b(0\x1b(B", b"", b""),
    (b"\x1b)0\x0e", b"\x1b)B\x0f", b"\x1b)0\x0e"),
    (b"\x0e\x1bc", b"", b""),
    (b"\x1bc\x0e", b"\x0f", b"\x0e"),
    (b"\x1b[1;31mred", b"\x1b[m", b"\x1b[1;31m"),
    (b"\x1b[1;31mred\x1b[m", b"", b""),
    (b"\x1b[1;31mred\x1b[0;0m", b"", b""),
    (b"\x1b[48;5;0mblack", b"\x1b[m", b"\x1b[48;5;0m"),
    (b"\x1b]2;title\x07", b"", b""),
    (b"\x1b[?2026h\x1b[?25l", b"\x1b[?2026l\x1b[?25h", b"\x1b[?2026h\x1b[?25l"),
    (b"\x1b[?1049;1000h\x1b=\x1b[31m\x1b[>1u\x1bc", b"", b""),
    (b"\x1b[?1;25h\x1b[?25l\x1b[2;3r\x1b(0\x1b[31m\x1b=\x1b[4h\x1b[!p", b"", b""),
    (b"\x1b[?1003h\x1b[!p", b"\x1b[?1003l", b"\x1b[?1003h"),            # xterm keeps it
]


@pytest.mark.parametrize("data, undo, redo", UNDONE)
def test_what_was_switched_on_is_undone_and_redone_and_nothing_else(data, undo, redo):
    modes = modes_of(data)
    assert (modes.undo(), modes.redo()) == (undo, redo)
    assert (modes.undo(), modes.redo()) == (undo, redo)          # asking changes nothing


@pytest.mark.parametrize("data, undo, redo", UNDONE)
def test_modes_are_the_same_however_the_output_was_split(data, undo, redo):
    data = b"text" + data + b"text"
    for at in range(len(data) + 1):
        modes = modes_of(data[:at], data[at:])
        assert (modes.undo(), modes.redo()) == (undo, redo)
    modes = modes_of(*[memoryview(data)[i:i + 1] for i in range(len(data))])
    assert (modes.undo(), modes.redo()) == (undo, redo)


@given(output, st.lists(st.integers(0, 200), max_size=4))
def test_splitting_anywhere_gives_the_same_state(data, cuts):
    cuts = sorted({min(cut, len(data)) for cut in cuts})
    split = [data[a:b] for a, b in zip([0] + cuts, cuts + [len(data)])]
    assert state(modes_of(*split)) == state(modes_of(data))


@given(output)
def test_after_undo_nothing_is_on(data):
    modes = modes_of(data, b"\x18")
    modes.feed(modes.undo())
    assert (modes.undo(), modes.redo()) == (b"", b"")


@given(output)
def test_redo_brings_a_fresh_terminal_to_the_same_modes(data):
    modes = modes_of(data)
    again = modes_of(modes.redo())
    assert (again.undo(), again.redo()) == (modes.undo(), modes.redo())
    assert again.is_alternate == modes.is_alternate


def test_properties_follow_the_output():
    modes = Modes()
    assert not (modes.is_alternate or modes.bracketed_paste or modes.application_cursor)
    modes.feed(b"\x1b[?1;2004;1049h")
    assert modes.is_alternate and modes.bracketed_paste and modes.application_cursor
    modes.feed(b"\x1b[?1l\x1b[?2004l\x1b[?1049l")
    assert not (modes.is_alternate or modes.bracketed_paste or modes.application_cursor)


def test_memory_stays_bounded_whatever_is_written():
    modes, queries = Modes(), QueryFilter()
    for _ in range(2000):
        for piece in (b"\x1b[>1u", b"\x1b]0;" + b"x" * 100, b"\x1b[" + b"1;" * 300,
                      b"\x1b[?7777h", b"\x1b[" + b"9" * 60):
            modes.feed(piece)
            queries.feed(piece)
    kept = [len(value) for value in state(modes).values() if isinstance(value, (bytes, dict))]
    assert max(kept) <= 128
    assert len(modes.redo()) < 256
    assert len(queries.flush()) <= QueryFilter.HELD_MAX


def test_every_group_of_the_pattern_has_an_act():
    assert set(terminal._MODE.groupindex) == set(Modes._ACTS)


@pytest.mark.parametrize("data, undone", [
    (b"\x1b]8;;http://evil/\x07linked", b"\x1b]8;;\x1b\\"),
    (b"\x1b]8;;http://good/\x07linked\x1b]8;;\x07", b""),
    (b"\x1b]11;#445566\x07\x1b]4;1;#00ff00\x07\x1b]12;#ff0000\x1b\\\x1b]4;7;red\x07",
     b"\x1b]111\x1b\\\x1b]112\x1b\\\x1b]104\x1b\\"),
    (b"\x1b]11;#445566\x07\x1b]111\x07\x1b]4;1;red\x07\x1b]104;1\x07", b""),
    (b"\x1b]10;?\x07\x1b]4;1;?\x07", b""),
    (b"\x1b[?45h", b"\x1b[?45l"),
])
def test_links_and_colours_are_undone_as_far_as_they_were_set(data, undone):
    modes = Modes()
    modes.feed(data)
    assert modes.undo() == undone


@pytest.mark.parametrize("data", [b"\x1b[3g", b"\x1b[10G\x1bH"])
def test_tab_stops_are_put_back_where_the_cursor_stays(data):
    modes, screen = Modes(), Screen((100, 3))
    modes.feed(data)
    screen.feed(b"word" + data + b"\x1b[2;5H" + modes.undo())
    # One in the last column changes nothing: that is where a tab ends without any.
    assert set(screen.tab_stops) - {99} == set(range(8, 100, 8)) and screen.cursor[:2] == (4, 1)


# --- what has only colours, told at the speed of memory --------------------------------------

OF_MODES = [
    b"\x1b[?25l", b"\x1b[?1;25h", b"\x1b[>1u", b"\x1b[<u", b"\x1b[=3;1u", b"\x1b[>4;2m", b"\x1b[!p", b"\x1b[4h",
    b"\x1b[20l", b"\x1b[2;5r", b"\x1b[r", b"\x1b[3 q", b"\x1b[3g", b"\x1b(0", b"\x1b)B", b"\x1b*A", b"\x1b+B",
    b"\x1b-A", b"\x1b.A", b"\x1b/A", b"\x1b=", b"\x1b>", b"\x1bn", b"\x1bo", b"\x1bc", b"\x1bH",
    b"\x1b]8;;http://x/\x07", b"\x1b]4;1;red\x1b\\", b"\x1b]11;#fff\x07", b"\x1b]104\x07", b"\x1b]2;title\x07"]
OF_COLOURS = [b"\x1b[m", b"\x1b[0m", b"\x1b[38;5;196m", b"\x1b[38:2::1:2:3m", b"\x1b[K", b"\x1b[2J", b"\x1b[3A",
              b"\x1b[4P", b"\x1b[5X", b"\x1b[2;5;1m", b"\x1b[1;31m\x1b[K"]
TEXT = [b"a word", b"hello, cron!", b"h", b"[?25h", b"4h", b"m", b"X", b"\r\n", b"\xc3\xa4", b"()<>=?", b""]


@pytest.mark.parametrize("mode", OF_MODES)
@pytest.mark.parametrize("before", [b"", b"text ", b"\x1b[1m", b"\x1b[K", b"\x1b", b"\x1b[1;3"])
def test_output_with_a_mode_in_it_never_has_only_colours(mode, before):
    assert not terminal.has_only_colours(before + mode + b"text")
    assert not terminal.has_only_colours(b"\x1b[31mred\x1b[0m" + before + mode)


@given(st.lists(st.sampled_from(OF_COLOURS + TEXT)).map(b"".join))
def test_output_of_text_colours_and_moves_has_only_those(data):
    assert terminal.has_only_colours(data)


@given(st.lists(st.one_of(st.sampled_from(OF_MODES + OF_COLOURS + TEXT), st.binary(max_size=4),
                          st.sampled_from([b"\x1b", b"\x1b[", b"\x0e", b"\x0f"]))).map(b"".join))
def test_of_output_that_has_only_colours_nothing_else_is_to_be_known(data):
    if terminal.has_only_colours(data) and terminal.unfinished_at(data) is None:
        assert terminal._MODE.search(data) is None
        quick, whole = Modes(), Modes()
        quick.feed_colours(data)
        whole.feed(data)
        assert (quick.undo(), quick.redo()) == (whole.undo(), whole.redo())


def test_a_pattern_is_compiled_when_it_is_first_used():
    pattern = terminal.Pattern(rb"a(?P<rest>b+)")
    assert set(vars(pattern)) == {"_source"}
    assert pattern.match(b"abb").group("rest") == b"bb"
    assert "match" in vars(pattern) and "search" not in vars(pattern)
    assert dict(pattern.groupindex) == {"rest": 1}
