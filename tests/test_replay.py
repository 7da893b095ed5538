"""Replay: the same screen however the output comes, in the sizes that the terminal had."""

from hypothesis import given, settings, strategies as st

from ptyguard_core.replay import CELLS_MAX, Replay, capped

PAST = {"offset": 1000, "sequences": "\x1b[?2004h\x1b]2;title\x1b\\", "sizes": [[0, 10, 4], [1010, 20, 5], [1025, 6, 3]]}
DATA = b"0123456789abcdefghijklmnopqrstuvwxyz\r\n\x1b[31mred\x1b[m"


def shown(replay):
    screen = replay.screen
    return [line.text for line in screen.lines], screen.size, screen.cursor, screen.modes


def replayed(data, *cuts):
    replay = Replay(PAST)
    before = 0
    for cut in sorted(cuts) + [len(data)]:
        replay.feed(data[before:cut])
        before = cut
    assert replay.offset == PAST["offset"] + len(data)
    return replay


def test_it_begins_in_the_state_that_was_told():
    screen = Replay(PAST).screen
    assert screen.modes == {"bracketed_paste": True} and screen.title == "title" and screen.size == (10, 4)


def test_a_size_holds_from_its_place_in_the_output_on():
    assert replayed(DATA[:9]).screen.size == (10, 4)
    at = replayed(DATA[:10]).screen
    assert at.size == (20, 5) and at.lines[0].text.rstrip() == "0123456789"
    assert replayed(DATA).screen.size == (6, 3)


@settings(max_examples=100)
@given(st.lists(st.integers(0, len(DATA)), max_size=5))
def test_however_the_output_is_cut_the_screen_is_the_same(cuts):
    assert shown(replayed(DATA, *cuts)) == shown(replayed(DATA))


def test_a_size_that_is_told_later_waits_for_its_place():
    replay = Replay(dict(PAST, sizes=[[0, 10, 4]]))
    replay.resize((30, 8), 1005)
    replay.resize((40, 9), 1005)
    assert replay.screen.size == (10, 4)
    replay.feed(DATA[:5])
    assert replay.screen.size == (40, 9)
    replay.resize((12, 3), 900)                     # of what is fed already
    assert replay.screen.size == (12, 3)


def test_what_is_known_already_is_not_fed_twice():
    replay = replayed(DATA)
    before = shown(replay)
    replay.feed_at(1000, DATA)
    replay.feed_at(1000 + len(DATA) - 3, DATA[-3:] + b"!")
    assert replay.offset == 1001 + len(DATA) and before != shown(replay)


def test_of_a_terminal_that_is_too_large_a_part_is_made():
    for size in ((65535, 65535), (65535, 1), (1, 65535), (0, 0), (4096, 4096)):
        cols, rows = capped(size)
        assert 1 <= cols * rows <= CELLS_MAX
        assert Replay(dict(PAST, sizes=[[0, *size]])).screen.size == (cols, rows)
    assert capped((200, 60)) == (200, 60)


def test_lines_of_history_are_bounded_by_their_cells():
    replay = Replay(dict(PAST, sizes=[[0, 4000, 2]]), 10 ** 9)
    assert replay.screen.history.maxlen < 2000
