"""Replies: what terminals type by themselves, told from what people type."""

import pytest
from hypothesis import given, strategies as st

from ptyguard_core.replies import HELD_MAX, WAIT_S, ReplyFilter, is_only_replies, without_replies

REPLIES = [
    b"\x1b[?62;22c", b"\x1b[?6c", b"\x1b[>1;10;0c", b"\x1bP!|00000000\x1b\\", b"\x1b[0n", b"\x1b[3n",
    b"\x1b[1;1R", b"\x1b[24;80R", b"\x1b[?24;80R", b"\x1b[?24;80;1R", b"\x1b[?2026;2$y", b"\x1b[4;2$y",
    b"\x1b[?0u", b"\x1b[?31u", b"\x1bP>|XTerm(388)\x1b\\", b"\x1bP1$r0m\x1b\\", b"\x1bP0$r\x1b\\",
    b"\x1bP1+r544e=787465726d\x1b\\", b"\x1bP0+r\x1b\\", b"\x1b]11;rgb:0000/0000/0000\x1b\\",
    b"\x1b]10;rgb:ffff/ffff/ffff\x07", b"\x1b]4;1;rgb:cdcd/0000/0000\x07", b"\x1b]52;c;aGVsbG8=\x07",
    b"\x1b[8;24;80t", b"\x1b[4;600;800t", b"\x1b[>4;2m", b"\x1b[?997;1n", b"\x1b[2;1;1;128;128;1;0x",
    b"\x1b_Gi=31;OK\x1b\\", b"\x1b[?1;0;256S",
]
TYPED = [
    b"", b"a", b"ls -l\r", b"\xc3\xa9\xff\x00", b"\x1b[A", b"\x1bOA", b"\x1b[1;5C", b"\x1b[3~", b"\x1b[15;2~", b"\x1bx",
    b"\x1b\x1b[A", b"\x1b[97;5u", b"\x1b[97;5:3u", b"\x1b[27;5;9~",                 # keys
    b"\x1b[I", b"\x1b[O",                                                       # focus
    b"\x1b[<0;10;20M", b"\x1b[<0;10;20m", b"\x1b[M !!", b"\x1b[32;10;20M",      # mouse
    b"\x1b[200~pasted\x1b[201~", b"\x1bOR", b"\x1b[13;2~",
]
# Some terminals report Shift-F3 as `CSI 1;2R`.
SHIFT_F3 = b"\x1b[1;2R"


@pytest.mark.parametrize("reply", REPLIES)
def test_an_answer_is_taken_out_and_what_is_around_it_is_not(reply):
    assert without_replies(reply) == (b"", b"")
    assert without_replies(b"ab" + reply + b"c\x1b[A" + reply) == (b"abc\x1b[A", b"")
    assert is_only_replies(reply) and is_only_replies(memoryview(reply * 3))
    assert not is_only_replies(reply + b"a") and not is_only_replies(b"a" + reply)


@pytest.mark.parametrize("data", TYPED)
def test_what_people_type_and_do_is_left_alone(data):
    assert without_replies(data) == (data, b"")
    assert not is_only_replies(data)


def pieces_of(data, cuts):
    cuts = [0, *sorted({min(cut, len(data)) for cut in cuts}), len(data)]
    return [data[a:b] for a, b in zip(cuts, cuts[1:])]


def waiting_filter(now=10.0):
    replies = ReplyFilter()
    replies.show(b"text\x1b[6n", now)
    return replies


@given(st.lists(st.sampled_from(REPLIES + TYPED), max_size=8), st.lists(st.integers(0, 300), max_size=6))
def test_answers_are_taken_out_wherever_they_are_cut(parts, cuts):
    replies = waiting_filter()
    data = b"".join(parts)
    typed = b"".join(replies.take("second", piece, False, 10.5) for piece in pieces_of(data, cuts))
    typed += replies.release("second")
    assert typed == b"".join(without_replies(data))


@given(st.binary(max_size=60) | st.lists(st.sampled_from([b"\x1b", b"[", b"]", b"P", b"?", b"1", b";", b"R", b"\\"]))
       .map(b"".join), st.lists(st.integers(0, 60), max_size=5))
def test_nothing_is_added_and_what_is_no_answer_comes_out_whole_and_in_order(data, cuts):
    replies = waiting_filter()
    typed = b"".join(replies.take("second", piece, False, 10.5) for piece in pieces_of(data, cuts))
    typed += replies.release("second")
    rest = iter(data)
    assert all(byte in rest for byte in typed)
    assert not b"\x1b" in data or typed == b"".join(without_replies(data))


def test_the_leaders_answers_are_typed():
    replies = waiting_filter()
    assert replies.take("first", b"\x1b[1;1R", True, 10.1) == b"\x1b[1;1R"


def test_answers_of_others_are_taken_out_for_as_long_as_one_may_be_on_its_way():
    replies = ReplyFilter()
    assert replies.take("second", SHIFT_F3, False, 5.0) == SHIFT_F3          # nobody has asked
    replies.show(b"\x1b[6n", 10.0)
    assert replies.take("second", SHIFT_F3, False, 10.0) == b""
    assert replies.take("second", SHIFT_F3, False, 9.9 + WAIT_S) == b""
    assert replies.take("second", SHIFT_F3, False, 10.0 + WAIT_S) == SHIFT_F3
    replies.show(b"\x1b[3", 20.0)
    assert not replies.is_waiting(20.0)
    replies.show(b"1m\x1b[", 20.0)
    replies.show(b"c", 21.0)                                                 # a query in pieces
    assert replies.is_waiting(22.9)


def test_the_beginning_of_an_answer_waits_and_is_typed_when_nothing_follows():
    replies = waiting_filter()
    assert replies.take("second", b"a\x1b", False, 10.1) == b"a"
    assert replies.is_holding("second") and not replies.is_holding("third")
    assert replies.release("second") == b"\x1b"
    assert not replies.is_holding("second")
    replies.take("second", b"\x1b[", False, 10.1)
    replies.take("third", b"\x1b]1", False, 10.1)
    assert sorted(replies.release_all()) == [("second", b"\x1b["), ("third", b"\x1b]1")]


def test_what_was_held_comes_first_also_when_its_time_is_over():
    replies = waiting_filter()
    assert replies.take("second", b"\x1b[1;", False, 10.1) == b""
    assert replies.take("second", b"5C", False, 20.0) == b"\x1b[1;5C"


def test_no_more_than_an_answers_length_is_held():
    replies = waiting_filter()
    typed = b""
    for _ in range(100):
        typed += replies.take("second", b"\x1b]" if not typed else b"x" * 100, False, 10.1)
        assert len(replies.held("second") or b"") <= HELD_MAX
    typed += replies.take("second", b"\x1b]" + b"x" * 9000, False, 10.1)
    assert typed.endswith(b"x" * 9000)
