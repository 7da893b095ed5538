"""Chaos, for a minute: chaos.py with a seed of its own in each run, and what its oracle is worth.

CHAOS_SEED repeats the steps of a seed, CHAOS_STEPS takes more or fewer of them; by hand
`python3 tests/chaos.py --minutes M` goes on for longer.
"""

import os
import random

import pytest
from chaos import Both, Chaos
from chaos_books import UNKNOWN, Ledger, Wrong

STEPS = int(os.environ.get("CHAOS_STEPS", "150"))


@pytest.fixture
def seed():
    """Of this run; pytest shows what is printed when a test fails."""
    found = int(os.environ.get("CHAOS_SEED", random.randrange(1 << 32)))
    print(f"CHAOS_SEED={found}")
    return found


def test_whatever_happens_nothing_is_lost_doubled_orphaned_or_leaked(seed):
    with Chaos(seed) as chaos:
        chaos.run(STEPS)


def test_guard_and_daemon_killed_at_once_lose_living_sessions_and_nothing_else(seed):
    with Both(seed) as chaos:
        chaos.run(2)


# -- the oracle finds what it is there for -----------------------------------------------------

FIRST = b"\x02t.1 begins " + b"1" * 48 + b"\n" + b"".join(b"one %04d\n" % n for n in range(100))
SECOND = b"\x02t.2 begins " + b"2" * 48 + b"\n" + b"".join(b"two %04d\n" % n for n in range(100))


class Written:
    """Books as children leave them."""

    def __init__(self, directory):
        self.directory = str(directory)
        self.ledger = Ledger(self.directory, "t", "name")

    def child(self, number, out, confirmed=None, end="", heard=b"", err=b""):
        count = len(out) if confirmed is None else confirmed
        for what, data in (
                (".claim", b""), (".out", out), (".count", count.to_bytes(8, "little")),
                (".in", heard), (".err", err), (".end", end.encode()),
                ("", b'{"id": "abc", "name": "name", "pid": 1, "at": 100.0}')):
            with open(os.path.join(self.directory, f"t.{number}{what}"), "wb") as file:
                file.write(data)
        return self


@pytest.fixture
def written(tmp_path):
    return Written(tmp_path)


def spoilt(data):
    """That data with something lost, doubled, changed, moved or made up, one after the other."""
    middle = len(data) // 2
    yield data[:middle] + data[middle + 1:] + b"x"
    yield data[:middle] + data[middle - 1:-1]
    yield data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1:]
    yield data[:middle] + data[middle + 9:middle + 18] + data[middle:middle + 9] + data[middle + 18:]
    yield data + b"one more"


def test_the_oracle_takes_what_was_written_and_nothing_else(written):
    ledger = written.child(1, FIRST, end="exit:3").ledger
    for offset in (0, 1, 500, len(FIRST)):
        ledger.check_stream(offset, FIRST[offset:], "all")
    ledger.check_end(len(FIRST), "all")
    for data in spoilt(FIRST):
        with pytest.raises(Wrong):
            ledger.check_stream(0, data, "spoilt")
    for end in (len(FIRST) - 1, len(FIRST) + 1):
        with pytest.raises(Wrong):
            ledger.check_end(end, "spoilt")


def test_a_child_killed_in_a_write_has_written_some_of_it_and_the_next_follows(written):
    written.child(1, FIRST, confirmed=300).child(2, SECOND, end="exit:0")
    ledger = written.ledger
    ledger.restarts = 1
    stream = FIRST[:317] + SECOND
    ledger.check_stream(0, stream, "all")
    ledger.check_stream(400, stream[400:], "the end of it")
    ledger.check_end(len(stream), "all")
    with pytest.raises(Wrong):              # another reader saw it begin elsewhere
        ledger.check_stream(0, FIRST[:318] + SECOND, "all")
    for data in spoilt(stream):
        with pytest.raises(Wrong):
            ledger.check_stream(0, data, "spoilt")


def test_a_child_cannot_begin_before_the_confirmed_end_of_the_one_before(written):
    written.child(1, FIRST, confirmed=300).child(2, SECOND)
    with pytest.raises(Wrong):
        written.ledger.check_stream(0, FIRST[:299] + SECOND, "all")


def test_a_terminal_shows_one_piece_of_the_stream(written):
    written.child(1, FIRST, confirmed=300).child(2, SECOND)
    ledger = written.ledger
    for data in (FIRST[20:280], SECOND[100:], FIRST[200:310] + SECOND[:99]):
        ledger.find_stream(data, "shown")
    for data in (FIRST[20:100] + FIRST[101:280], FIRST[200:299] + SECOND[:99], b"what"):
        with pytest.raises(Wrong):
            ledger.find_stream(data, "shown")


def test_a_gap_has_to_be_told_with_both_of_its_ends(written):
    ledger = written.child(1, FIRST, end="exit:3").ledger
    held = FIRST[:200] + FIRST[300:]
    assert Chaos.check_pieces(ledger, 0, held, [(200, 300)], "told") == len(FIRST)
    for gone in ([], [(200, 299)], [(199, 300)], [(300, 200)]):
        with pytest.raises(Wrong):
            Chaos.check_pieces(ledger, 0, held, gone, "told")


def test_a_status_is_what_the_child_meant_or_what_was_done_to_it(written):
    ledger = written.child(1, FIRST, end="exit:3").ledger
    ledger.check_exit({"code": 3, "signal": None}, "ls")
    ledger.check_code(3, "wait")
    wrong = [{"code": 4, "signal": None}, {"code": None, "signal": "SIGHUP"}, {"code": None, "signal": None}]
    for exit_ in wrong:
        with pytest.raises(Wrong):
            ledger.check_exit(exit_, "ls")
    ledger.was_killed = True
    ledger.check_exit(wrong[1], "ls")
    ledger.guard_deaths.append(120.0)
    ledger.check_exit(wrong[2], "ls")
    assert ledger.legal_ends() == {3, UNKNOWN, "SIGHUP", "SIGTERM", "SIGKILL"}
    with pytest.raises(Wrong):
        ledger.check_code(4, "wait")


@pytest.mark.parametrize("heard", [b"a\nb\na\n", b"b\na\n", b"a\nx\n", b"a\na\n"])
def test_input_is_heard_once_in_order_and_as_it_was_typed(written, heard):
    ledger = written.child(1, FIRST).ledger
    ledger.sent = [(b"a", True), (b"b", True)]
    written.child(1, FIRST, heard=b"a\nb\n")
    ledger.check_input()
    written.child(1, FIRST, heard=heard)
    with pytest.raises(Wrong):
        ledger.check_input()


def test_confirmed_input_is_heard(written):
    ledger = written.child(1, FIRST, heard=b"a\nquit 3\n", end="exit:3").ledger
    ledger.sent = [(b"a", True), (b"b", False), (b"quit 3", True)]
    ledger.check_confirmed_input()
    ledger.sent[1] = (b"b", True)
    with pytest.raises(Wrong):
        ledger.check_confirmed_input()


def test_a_child_that_nobody_asked_for_or_that_fell_over_is_wrong(written):
    ledger = written.child(1, FIRST).child(2, SECOND).ledger
    with pytest.raises(Wrong):
        ledger.check_children()
    ledger.restarts = 1
    ledger.check_children()
    written.child(2, SECOND, err=b"Traceback")
    with pytest.raises(Wrong):
        ledger.check_children()
