"""Waiting: patterns, what was found, and how long; on scripted output and a clock that is handed in."""

import json
import re
import signal
import threading
import time
import types

import pytest
from hypothesis import given
from hypothesis import strategies as st

import ptyguard
from ptyguard_core import conditions, waiting
from ptyguard_core.conditions import (Patience, ScreenSearch, look_at, output_pattern, place_of,
                                      screen_pattern, text_of)
from ptyguard_core.errors import PtyguardError, TimedOut, UsageError
from ptyguard_core.screen import Screen
from ptyguard_core.waiting import Search, wait_quiet, wait_screen

CATASTROPHE = r"(a+)+$"
VICTIM = "a" * 60 + "b"


def screen(data, size=(20, 5)):
    made = Screen(size)
    made.feed(data)
    return made


# -- patterns --------------------------------------------------------------------------------------


@pytest.mark.parametrize("source, place", [
    ("a(b", "position 1"), ("[a", "position 0"), ("a**", "position 2"), ("(?P<1>a)", "position 4"),
])
@pytest.mark.parametrize("compile_", [lambda text: output_pattern(text.encode()), screen_pattern])
def test_what_is_no_pattern_is_refused_with_its_place(compile_, source, place):
    with pytest.raises(UsageError) as refusal:
        compile_(source)
    assert source in refusal.value.message and place in refusal.value.message


@pytest.mark.parametrize("source", [b"(?u)a", b"a{99999999999999999999}", b"(" * 5000 + b")" * 5000])
def test_a_pattern_that_python_itself_cannot_take_is_refused_all_the_same(source):
    with pytest.raises(UsageError):
        output_pattern(source)


def test_a_pattern_that_may_mean_another_thing_some_day_is_no_news_for_the_user(recwarn):
    assert output_pattern(b"[[a]").search(b"x[")
    assert not recwarn.list


def test_on_the_screen_lines_have_a_beginning_and_an_end():
    shown = screen(b"one\r\ntwo   \r\n\r\nthree")
    for pattern, found in [("^two$", "two"), (r"\Aone$", "one"), ("^$", ""), (r"e\nt", "e\nt"), (r"three\Z", "three")]:
        search = ScreenSearch(pattern)
        assert look_at(shown, [search]) and search.match.group() == found


def test_an_empty_screen_is_an_empty_text():
    search = ScreenSearch(r"\A\Z")
    assert text_of(screen(b"\x1b[2J")) == "" and look_at(screen(b""), [search])
    assert (search.describe()["row"], search.describe()["col"]) == (0, 0)


# -- what was found --------------------------------------------------------------------------------


def test_groups_are_told_by_number_and_name_and_bytes_that_are_no_text_as_lone_surrogates():
    search = Search(b"(?P<what>\\w+)=(.+)(;)?")
    search.feed(b"one \xff x=\xfe\xc3\xa9\n")
    told = search.describe()
    assert told == {"condition": "for", "pattern": "(?P<what>\\w+)=(.+)(;)?", "text": "x=\udcfe\xe9",
                    "groups": ["x", "\udcfe\xe9", None], "named": {"what": "x"}}
    assert json.loads(json.dumps(told)) == told


def test_a_match_on_the_screen_has_the_row_and_column_of_its_first_cell():
    # Wide characters have two cells; a character with an accent of its own has one.
    shown = screen("ab\r\n\u6f22\u5b57e\u0301x total 42".encode())
    search = ScreenSearch(r"total (?P<n>\d+)")
    assert look_at(shown, [search])
    assert search.describe() == {"condition": "screen", "pattern": r"total (?P<n>\d+)", "text": "total 42",
                                 "groups": ["42"], "named": {"n": "42"}, "row": 1, "col": 7}


@given(st.lists(st.text(st.sampled_from("ab \u6f22e\u0301\U0001f600"), max_size=12), min_size=1, max_size=5))
def test_every_character_of_a_screen_is_in_the_cell_that_is_told(lines):
    shown = screen("\r\n".join(lines).encode(), (40, 6))
    text = text_of(shown)
    for at, character in enumerate(text):
        if character != "\n":
            row, column = place_of(shown, text, at)
            assert character in shown.lines[row].chars[column]


def test_what_was_seen_in_the_output_stays_seen():
    search = Search(rb"o(.)e")
    assert search.feed(b"on") is None
    first = search.feed(b"e two")
    assert first.group(1) == b"n" and search.feed(b" ore") is first


def test_all_that_is_on_the_screen_is_told_also_when_the_rest_is_missing():
    searches = [ScreenSearch("nothing"), ScreenSearch("some.*")]
    assert not look_at(screen(b"something"), searches)
    assert [search.match and search.match.group() for search in searches] == [None, "something"]
    assert "nothing" in searches[0].missing()


# -- time ------------------------------------------------------------------------------------------


def test_patience_counts_from_its_beginning_and_never_below_nothing():
    now = [100.0]
    patience = Patience(5.0, clock=lambda: now[0])
    assert patience.left() == 5.0
    now[0] = 104.0
    assert patience.left() == 1.0
    now[0] = 200.0
    assert patience.left() == 0.0 and Patience(None).left() is None


def test_a_search_gets_what_is_left_of_the_time_and_a_moment_at_its_end():
    now, given_s = [0.0], []

    def run_within(timeout_s, act):
        given_s.append(timeout_s)
        return act()

    patience = Patience(3.0, run_within, clock=lambda: now[0])
    assert patience.search(lambda: "found") == "found"
    now[0] = 9.0
    assert patience.search(lambda: None) is None
    assert given_s == [3.0, conditions.SEARCH_LEAST_S]
    assert Patience(None, run_within).search(lambda: 1) == 1 and given_s[-1] is None


@pytest.mark.parametrize("sees_signals", [True, False])
@pytest.mark.parametrize("kind", [str, bytes])
def test_a_search_that_takes_for_ever_ends_at_its_time(monkeypatch, sees_signals, kind):
    backend = ptyguard.pick_backend()
    if sees_signals and not backend._SEARCHES_SEE_SIGNALS:
        pytest.skip("this interpreter does not look for signals while it searches")
    monkeypatch.setattr(backend, "_SEARCHES_SEE_SIGNALS", sees_signals)
    before = signal.getsignal(signal.SIGALRM)
    patience = Patience(0.3, backend.run_within)
    with pytest.raises(TimedOut):
        if kind is str:
            look_at(screen(VICTIM.encode(), (80, 2)), [ScreenSearch(CATASTROPHE, patience)])
        else:
            Search(CATASTROPHE.encode(), patience=patience).feed(VICTIM.encode())
    assert signal.getsignal(signal.SIGALRM) == before
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)


@pytest.mark.parametrize("sees_signals", [True, False])
def test_what_is_done_in_time_gives_its_answer_or_its_error(monkeypatch, sees_signals):
    backend = ptyguard.pick_backend()
    monkeypatch.setattr(backend, "_SEARCHES_SEE_SIGNALS", sees_signals)
    for timeout_s in (60.0, None):
        assert backend.run_within(timeout_s, lambda: "answer") == "answer"
        with pytest.raises(ZeroDivisionError):
            backend.run_within(timeout_s, lambda: 1 // 0)
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)


def test_without_a_back_end_a_search_touches_no_signal_and_may_be_anywhere():
    found = []
    thread = threading.Thread(target=lambda: found.append(Search(b"a+", patience=Patience(9.0)).feed(b"xaa")))
    thread.start()
    thread.join()
    assert found[0].group() == b"aa"


# -- on a scripted session -------------------------------------------------------------------------


class Scripted:
    """A viewing whose session does what a script says: (at this time, output, or an event).

    Time is a fact of the script too: it passes while one waits, and only then.
    """

    def __init__(self, script, is_mute=False):
        self.channel = self
        self.session = {"name": "scripted"}
        self.welcome = {}
        self.screen = Screen((20, 5))
        self.offset = 0
        self.end = None
        self.now = 0.0
        self.looks = 0
        self._script = list(script)
        self._pongs = 0
        self._is_mute = is_mute

    def monotonic(self):
        return self.now

    def wait_answer(self, limit):
        due = self.now if self._pongs else self._script[0][0] if self._script else None
        if due is not None and (limit is None or due <= self.now + limit):
            self.now = max(self.now, due)
            return True
        assert limit is not None, "this would wait for ever"
        self.now += limit
        return False

    def send(self, _type):
        self._pongs += not self._is_mute

    def burst(self):
        if self._pongs:
            self._pongs -= 1
            return
        _, what = self._script.pop(0)
        if what is END:
            self.end = {"exit": {"code": 3, "signal": None}}
        elif isinstance(what, tuple):
            self.screen.resize(what)
        else:
            self.screen.feed(what)
            self.offset += len(what)
            yield self.offset - len(what), what

    def look(self, patterns, timeout_s=None, idle_s=None):
        """(what was found of each, when); the end's facts are left in `ended`."""
        searches = [Counting(pattern, self) for pattern in patterns]
        self.ended = wait_screen(self, searches, Patience(timeout_s, clock=self.monotonic), idle_s)
        return [search.match.group() for search in searches], self.now


class Counting(ScreenSearch):
    def __init__(self, pattern, viewing):
        super().__init__(pattern)
        self._viewing = viewing

    def look(self, shown, text):
        self._viewing.looks += 1
        return super().look(shown, text)


END = object()


@pytest.fixture
def scripted(monkeypatch):
    def begin(*script, **options):
        made = Scripted(script, **options)
        monkeypatch.setattr(waiting, "time", types.SimpleNamespace(monotonic=made.monotonic))
        return made
    return begin


def test_the_present_screen_is_looked_at_first(scripted):
    viewing = scripted((9.0, b"later"))
    viewing.screen.feed(b"here")
    assert viewing.look(["here"]) == (["here"], 0.0)


def test_the_screen_is_looked_at_once_for_each_burst_and_not_without_one(scripted):
    viewing = scripted((1.0, b"one"), (2.0, b" two"), (3.0, b" three"))
    viewing._pongs = 2              # answers that are no output
    assert viewing.look(["three"]) == (["three"], 3.0)
    assert viewing.looks == 4       # the present one, and each that output made


def test_what_is_not_on_the_screen_any_more_does_not_count(scripted):
    viewing = scripted((1.0, b"one"), (2.0, b"\x1b[2J\x1b[Htwo"), (3.0, b" one"))
    assert viewing.look(["one", "two"]) == (["one", "two"], 3.0)


def test_another_size_is_another_screen(scripted):
    viewing = scripted((1.0, (2, 5)))
    viewing.screen.feed(b"one")
    assert viewing.look(["^on$"], timeout_s=5.0) == (["on"], 1.0)


def test_a_picture_that_is_being_drawn_is_not_looked_at_before_it_is_drawn(scripted):
    viewing = scripted((1.0, b"\x1b[?2026hdone: 1"), (1.5, b"2 of 3"), (1.6, b"\x1b[?2026l"))
    assert viewing.look([r"done: \d+"]) == (["done: 12"], 1.6)


def test_a_program_that_never_says_that_it_has_drawn_is_not_waited_for_for_ever(scripted):
    viewing = scripted((1.0, b"\x1b[?2026hdone"), (99.0, b"\x1b[?2026l"))
    assert viewing.look(["done"]) == (["done"], 1.0 + waiting.UPDATE_LIMIT_S)


def test_a_time_out_comes_at_its_time_and_is_no_answer(scripted):
    viewing = scripted((1.0, b"one"), (9.0, b"two"))
    with pytest.raises(TimedOut):
        viewing.look(["two"], timeout_s=5.0)
    assert viewing.now == 5.0


def test_no_time_at_all_is_enough_for_a_look(scripted):
    viewing = scripted((9.0, b"later"))
    viewing.screen.feed(b"here")
    assert viewing.look(["here"], timeout_s=0.0) == (["here"], 0.0)
    with pytest.raises(TimedOut):
        viewing.look(["later"], timeout_s=0.0)


def test_the_last_screen_counts_also_one_that_was_never_finished(scripted):
    viewing = scripted((1.0, b"\x1b[?2026hlast words"), (1.1, END))
    assert viewing.look(["words"]) == (["words"], 1.1)
    assert viewing.ended["exit"]["code"] == 3


def test_an_end_without_it_is_told_with_how_it_ended(scripted):
    viewing = scripted((1.0, b"one"), (2.0, END))
    with pytest.raises(PtyguardError) as error:
        viewing.look(["two"])
    assert "exit 3" in error.value.message and error.value.details["reason"] == "ended"


def test_quiet_is_quiet_while_the_screen_shows_it(scripted):
    # It is quiet for two seconds twice; the first time the screen shows something else.
    viewing = scripted((1.0, b"one"), (4.0, b"\x1b[2J\x1b[Htwo"), (4.5, b"."), (9.0, b"three"))
    assert viewing.look(["two.?"], idle_s=2.0) == (["two."], 6.5)
    assert viewing.looks == 2       # once for each silence


def test_quiet_is_not_believed_of_a_daemon_that_does_not_answer(scripted):
    viewing = scripted((50.0, b"late"), is_mute=True)
    with pytest.raises(TimedOut):
        wait_quiet(viewing, 1.0, Patience(10.0, clock=viewing.monotonic))
    assert viewing.now == 10.0


def test_the_end_is_as_quiet_as_it_gets(scripted):
    viewing = scripted((1.0, b"one"), (1.5, END))
    assert viewing.look(["one"], idle_s=60.0) == (["one"], 1.5)
    viewing = scripted((1.0, b"one"), (1.5, END))
    with pytest.raises(PtyguardError):
        viewing.look(["two"], idle_s=60.0)
