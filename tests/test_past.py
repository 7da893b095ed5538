"""Past: what evicted output has set is known, however the output was cut and whoever died."""

import json

import pytest
from hypothesis import example, given, settings, strategies as st

from ptyguard_core.past import RESTORE_BYTES, SIZES_MAX, Past, Sizes, read_facts, told_facts
from ptyguard_core.ring import CAPACITY_MIN, Ring, memory_bytes
from ptyguard_core.screen import Screen
from ptyguard_core.terminal import Modes

SIZE = {"cols": 80, "rows": 24}
TEXT = b"words and words\r\n" * 40

# Keyboard flags of the alternate screen are forgotten when it is left: nobody sees them then.
KEYBOARD = [b"\x1b[>1u", b"\x1b[>5u", b"\x1b[<u", b"\x1b[=3u", b"\x1b[?1049h", TEXT]
SETTING = [
    b"\x1b[?1049h", b"\x1b[?1049l", b"\x1b[?47h", b"\x1b[?1047;25l", b"\x1b[?2004h", b"\x1b[?2004l",
    b"\x1b[?1000;1006h", b"\x1b[?1000l", b"\x1b[?25l", b"\x1b[?25h", b"\x1b[4h", b"\x1b[4l", b"\x1b[3;20r", b"\x1b[r",
    b"\x1b=", b"\x1b>", b"\x1b[31m", b"\x1b[0m", b"\x1b[1;38;5;200m", b"\x1b(0", b"\x1b(B", b"\x1b)0", b"\x0e", b"\x0f",
    b"\x1bn", b"\x1bo", b"\x1b[>4;2m", b"\x1b[>4m", b"\x1b[5 q",
    b"\x1b]8;;http://x/\x1b\\", b"\x1b]8;id=1;\x07", b"\x1b]11;#445566\x07", b"\x1b]111\x07", b"\x1b]10;?\x07",
    b"\x1b]4;1;#00ff00\x07", b"\x1b]4;200;rgb:00/11/22\x1b\\", b"\x1b]104;1\x07", b"\x1b]104\x07", b"\x1b[?45h",
    b"\x1b[!p", b"\x1bc", b"\x1b[2J", b"\x1b[10;10H", b"\x1b[K", "\u00e9\u4e16".encode(), b"text\r\n", TEXT, b"\x1b[1;2",
    b"\x1b]0;a title\x07", b"\x1b]2;another\x1b\\", b"\x1b]7;file://host/tmp\x1b\\", b"\x1b]1;icon\x07", b"\x1b"]
OUTPUTS = [st.lists(st.sampled_from(words), max_size=30).map(b"".join) for words in (SETTING, KEYBOARD)]


def new_ring(capacity=CAPACITY_MIN):
    return Ring.format(bytearray(memory_bytes(capacity)))


def pump(ring, past, data, piece=4096):
    """As `Session.pump` does it; whether the state has changed."""
    has_changed = False
    while data:
        view = ring.writable(piece)
        count = min(len(view), len(data))
        view[:count] = data[:count]
        if ring.end_offset + count > past.due_at(ring):
            has_changed |= past.look(ring, ring.end_offset + count)
        ring.commit(count)
        data = data[count:]
        assert ring.start_offset <= past.offset <= ring.end_offset
    return has_changed


def rest(ring, past):
    return ring.read(past.offset, ring.end_offset - past.offset)


def modes_of(*pieces):
    modes = Modes()
    for piece in pieces:
        modes.feed(piece)
    return modes.redo(), modes.undo()


def screen_of(*pieces):
    screen = Screen((80, 24), 0)
    for piece in pieces:
        screen.feed(piece)
    return screen


def test_nothing_is_looked_at_while_nothing_is_overwritten():
    ring, past = new_ring(), Past()
    assert not pump(ring, past, b"\x1b[?1049h" + b"x" * 10000)
    assert past.offset == 0 and past.sequences == b""


def test_what_was_set_a_gigabyte_ago_is_still_known():
    ring, past = new_ring(), Past()
    assert pump(ring, past, b"\x1b]0;editor\x07\x1b[?1049h\x1b[2;20r\x1b(0" + TEXT * 300)
    assert not pump(ring, past, TEXT * 3000)
    screen = screen_of(past.sequences, rest(ring, past))
    assert screen.is_alternate and screen.title == "editor" and past.title == b"editor"
    assert screen.margins[:2] == (1, 19) and screen.charsets[0][0] == "0"


@settings(max_examples=100, deadline=None)
@given(st.one_of(*[st.tuples(output, output) for output in OUTPUTS]), st.integers(100, 9000))
@example((b"\x1b[>1u\x1b[>5u\x1b[<u", b""), 4096)
def test_modes_are_those_of_all_output_wherever_it_was_cut(outputs, piece):
    ring, past = new_ring(), Past()
    before, after = outputs
    data = before + TEXT * 120 + after + TEXT * 20
    pump(ring, past, data, piece)
    assert past.offset > 0
    assert modes_of(past.sequences, rest(ring, past)) == modes_of(data)


@settings(max_examples=100, deadline=None)
@given(st.one_of(*OUTPUTS), st.integers(0, 400))
def test_the_fast_way_finds_what_the_exact_one_does(data, cut):
    for piece in (data, data[:cut]):
        exact = Modes()
        exact._feed_in_order(piece, max(piece.rfind(b"\x0e"), piece.rfind(b"\x0f")))
        exact._feed_colour(piece)
        assert modes_of(piece) == (exact.redo(), exact.undo())


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=300), st.binary(max_size=3000))
def test_it_looks_at_any_bytes_and_gets_ahead(one, other):
    ring, past = new_ring(), Past()
    pump(ring, past, (one * 400 + other) * 3)
    told = json.loads(json.dumps(told_facts(past, Sizes((0, 80, 24)))))
    again, _ = read_facts(told, SIZE)
    assert (again.offset, again.sequences) == (past.offset, past.sequences)


@settings(max_examples=60, deadline=None)
@given(st.one_of(*OUTPUTS))
def test_what_was_noted_is_taken_up_as_it_was_over_any_number_of_deaths(output):
    ring, past = new_ring(), Past()
    pump(ring, past, output + TEXT * 150)
    assert past.offset > 0
    again = past
    for _ in range(3):
        again, _ = read_facts(json.loads(json.dumps(told_facts(again, Sizes((0, 80, 24))))), SIZE)
        again.adopt(ring)
        assert (again.offset, again.sequences) == (past.offset, past.sequences)


def test_of_a_large_ring_no_more_than_a_terminal_needs_is_replayed_after_a_death_either():
    ring, past = new_ring(4 * RESTORE_BYTES), Past()
    noted = told_facts(past, Sizes((0, 80, 24)))        # nothing was ever news
    pump(ring, past, TEXT * (3 * RESTORE_BYTES // len(TEXT)), 16384)
    past, _ = read_facts(noted, SIZE)
    past.adopt(ring)
    assert RESTORE_BYTES // 2 < len(rest(ring, past)) < RESTORE_BYTES + 64 * 1024


def test_output_is_replayed_from_a_line_when_there_are_lines():
    ring, past = new_ring(), Past()
    pump(ring, past, b"".join(b"line %d\r\n" % number for number in range(20000)))
    assert rest(ring, past).startswith(b"line ")


def test_it_is_not_cut_inside_a_character_or_a_sequence():
    ring, past = new_ring(), Past()
    pump(ring, past, "\u4e16".encode() * 30000)
    assert "\ufffd" not in screen_of(rest(ring, past)).lines[0].text
    ring, past = new_ring(), Past()
    pump(ring, past, b"\x1b[38;5;20m*" * 9000)
    assert set(screen_of(rest(ring, past)).lines[3].text) == {"*"}


def test_a_picture_that_is_longer_than_the_ring_stays_a_string():
    ring, past = new_ring(), Past()
    pump(ring, past, b"\x1bP0;0q" + b"#1~~@@vv" * 20000)
    assert screen_of(past.sequences, rest(ring, past)).lines[0].text.strip() == ""
    pump(ring, past, b"\x1b\\end of it")
    assert screen_of(past.sequences, rest(ring, past)).lines[0].text.strip() == "end of it"


def test_of_a_large_ring_no_more_is_replayed_than_a_terminal_needs():
    ring, past = new_ring(4 * RESTORE_BYTES), Past()
    pump(ring, past, b"\x1b[?1049h" + TEXT * (3 * RESTORE_BYTES // len(TEXT)), 16384)
    assert ring.start_offset == 0 and 0 < len(rest(ring, past)) <= RESTORE_BYTES
    assert len(rest(ring, past)) > RESTORE_BYTES * 7 // 8
    assert screen_of(past.sequences, rest(ring, past)).is_alternate


def test_it_is_ahead_of_what_is_overwritten_by_more_than_one_turn_reads():
    ring, past = new_ring(1 << 20), Past()
    pump(ring, past, TEXT * 10000)
    assert past.offset - ring.start_offset > 64 * 1024


def test_after_a_death_it_goes_on_from_the_oldest_kept_byte():
    ring, past = new_ring(), Past()
    pump(ring, past, b"\x1b[?1049h" + TEXT * 100)
    noted = told_facts(past, Sizes((0, 80, 24)))
    pump(ring, past, TEXT * 500)                    # nothing changes: nothing is noted
    past, _ = read_facts(noted, SIZE)
    assert past.offset < ring.start_offset
    past.adopt(ring)
    assert ring.start_offset <= past.offset < ring.start_offset + 1000
    pump(ring, past, TEXT)
    assert rest(ring, past).startswith(b"words") and modes_of(past.sequences)[0] == b"\x1b[?1049h"


def test_what_was_noted_of_another_ring_is_forgotten():
    past = Past(10 ** 9, b"\x1b[?1049h")
    past.adopt(new_ring())
    assert (past.offset, past.sequences) == (0, b"")


@pytest.mark.parametrize("facts", [
    None, 5, [], {}, {"offset": "x"}, {"offset": 5}, {"offset": 5, "sequences": "\u4e16", "sizes": []},
    {"offset": 5, "sequences": "", "sizes": 7}, {"offset": 5, "sequences": "", "sizes": [[1, 2]]},
    {"offset": float("inf"), "sequences": "", "sizes": []}])
def test_facts_that_cannot_be_used_are_as_if_nothing_had_been_told(facts):
    past, sizes = read_facts(facts, SIZE)
    assert (past.offset, past.sequences) == (0, b"") and sizes.since(0) == [(0, 80, 24)]


def test_sizes_hold_from_their_offset_on_and_older_ones_are_forgotten():
    sizes = Sizes((0, 80, 24))
    sizes.note(100, (100, 30))
    sizes.note(100, (120, 40))                      # nothing came in between
    sizes.note(200, (120, 40))                      # no change
    sizes.note(300, (10, 10))
    assert sizes.since(0) == [(0, 80, 24), (100, 120, 40), (300, 10, 10)]
    assert sizes.since(299) == [(100, 120, 40), (300, 10, 10)]
    assert sizes.since(10 ** 9) == [(300, 10, 10)]
    for number in range(1000):
        sizes.note(1000 + number, (number + 1, 5))
    assert len(sizes.since(0)) == SIZES_MAX
