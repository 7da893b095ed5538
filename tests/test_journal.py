"""The log of guard and daemon."""

import ast
import os
import re
import stat

import pytest
from hypothesis import given, strategies as st

from ptyguard_core import journal as journal_module
from ptyguard_core.journal import Journal, format_line, tail

NOW = 1_795_960_927.113        # 2026-11-29T14:02:07.113Z


class Clock:
    def __init__(self, now=NOW):
        self.now = now

    def __call__(self):
        return self.now


@pytest.fixture
def path(tmp_path):
    return str(tmp_path / "daemon.log")


@pytest.fixture
def opened():
    """Open journals that are closed afterwards."""
    journals = []

    def open_journal(path, **options):
        journals.append(Journal(path, "daemon", Clock(), **options))
        return journals[-1]
    yield open_journal
    for journal in journals:
        journal.close()


def text_of(path):
    with open(path, "rb") as file:
        return file.read().decode()


# -- lines

def test_a_line_is_time_who_event_and_fields(path, opened):
    opened(path)("handover", session="k3f9", offset=918244, ms=4)
    assert text_of(path) == ("2026-11-29T14:02:07.113Z daemon handover "
                             "session=k3f9 offset=918244 ms=4\n")


@pytest.mark.parametrize("now, shown", [
    (0, "1970-01-01T00:00:00.000Z"), (1.9996, "1970-01-01T00:00:02.000Z"),
    (951827696.789, "2000-02-29T12:34:56.789Z")])
def test_times_are_utc_with_milliseconds(path, now, shown):
    journal = Journal(path, "guard", Clock(now))
    journal("x")
    journal.close()
    assert text_of(path) == f"{shown} guard x\n"


@pytest.mark.parametrize("value, shown", [
    ("web", "web"), ("/a/b", "/a/b"), ("", "''"), ("a b", "'a b'"), ("a=b", "'a=b'"),
    ("a\nb", r"'a\nb'"), ("\x1b[31m", r"'\x1b[31m'"), ("it's", '"it\'s"'), ("\\n", r"'\\n'"),
    ("\udcff", r"'\udcff'"), ("\u00e9", "\u00e9"), ("\u202e", r"'\u202e'"),
    ("\x85", r"'\x85'"), ("\u2028", r"'\u2028'"),
    (b"\xff\n", r"b'\xff\n'"), (bytearray(b"a b"), "b'a b'"), (memoryview(b"m"), "b'm'"),
    (None, "None"), (True, "True"), (-7, "-7"), (0.25, "0.25"),
    (["ls", "-l"], '"[\'ls\', \'-l\']"'), (OSError(28, "No space"), "'[Errno 28] No space'")])
def test_values_are_shown_on_one_line_and_escaped(value, shown):
    assert format_line("t who", "event", {"key": value}) == f"t who event key={shown}\n".encode()


@given(st.dictionaries(st.text(), st.text() | st.binary() | st.lists(st.text())), st.text())
def test_no_value_ends_the_line_or_reaches_the_terminal(fields, event):
    line = format_line("t who", event, fields).decode()
    assert line.endswith("\n") and line[:-1].isprintable()


@given(st.text() | st.binary())
def test_a_value_can_be_read_back(value):
    shown = format_line("t who", "e", {"key": value}).decode()[:-1].split(" ", 3)[3]
    key, _, shown = shown.partition("=")
    is_quoted = shown[0] in "'\"" or isinstance(value, bytes)
    assert (ast.literal_eval(shown) if is_quoted else shown) == value


def test_the_session_comes_first_and_any_field_name_may_be_used(path, opened):
    opened(path)("exit", code=1, event=2, self=3, session="k3f9")
    assert text_of(path).endswith(" exit session=k3f9 code=1 event=2 self=3\n")


def test_a_value_as_long_as_a_file_is_cut():
    line = format_line("t who", "e", {"a": "x" * 5000, "b": b"y" * 4097, "c": "z" * 4096})
    assert line == (b"t who e a=" + b"x" * 4096 + b"...+904 b=b'" + b"y" * 4096
                    + b"'...+1 c=" + b"z" * 4096 + b"\n")


# -- the file

def test_the_log_is_private_appended_and_not_inherited(path, opened):
    opened(path)("one")
    second = opened(path)
    second("two")
    assert re.findall(r"daemon (\w+)", text_of(path)) == ["one", "two"]
    assert stat.S_IMODE(os.lstat(path).st_mode) == 0o600
    assert not os.get_inheritable(second.fileno())


def test_two_writers_of_one_log_interleave_whole_lines(path, opened):
    one, two = opened(path), opened(path)
    for number in range(50):
        one("one", n=number)
        two("two", n=number)
    assert len(text_of(path).splitlines()) == 100


def test_a_symbolic_link_is_not_followed(path, opened, tmp_path):
    victim = tmp_path / "victim"
    victim.write_bytes(b"precious")
    os.symlink(str(victim), path)
    journal = opened(path)
    journal("x")
    assert victim.read_bytes() == b"precious"
    assert journal.fileno() == -1 and journal.lost == 1 and path in journal.error


def test_a_fifo_in_its_place_hangs_nobody(path, opened):
    os.mkfifo(path)
    journal = opened(path)
    journal("x")
    assert journal.lost == 1 and tail(path) == ""


# -- rotation

def test_the_log_is_rotated_while_it_is_written(path, opened):
    journal = opened(path, max_bytes=100, kept=3)
    for number in range(12):
        journal("event", n=number)                 # 44 or 45 bytes: two fit
    assert sorted(os.listdir(os.path.dirname(path))) == [
        "daemon.log", "daemon.log.1", "daemon.log.2", "daemon.log.3"]
    numbers = [re.findall(r"n=(\d+)", text_of(path + suffix))
               for suffix in (".3", ".2", ".1", "")]
    assert numbers == [["4", "5"], ["6", "7"], ["8", "9"], ["10", "11"]]
    assert journal.lost == 0


def test_the_size_found_at_open_counts(path, opened):
    opened(path)("before", text="x" * 80)
    opened(path, max_bytes=100)("after")
    assert "after" in text_of(path) and "before" in text_of(path + ".1")


def test_each_new_file_begins_with_the_banner(path, opened):
    journal = opened(path, max_bytes=150)
    journal.banner(version="1.0.0", pid=42)
    for number in range(6):
        journal("event", n=number)
    for name in (path, path + ".1"):
        assert "daemon banner version=1.0.0 pid=42" in text_of(name).splitlines()[0]
        assert text_of(name).count("banner") == 1


def test_a_line_longer_than_the_log_may_be_is_written_all_the_same(path, opened):
    journal = opened(path, max_bytes=10)
    journal("one")
    journal("two")
    assert "two" in text_of(path) and "one" in text_of(path + ".1")


def test_a_rotation_keeps_the_descriptor_number_and_what_was_redirected(path, opened):
    journal = opened(path, max_bytes=100)
    number = journal.fileno()
    stderr = os.open(os.devnull, os.O_WRONLY)
    try:
        assert journal.redirect(stderr)
        os.write(stderr, b"Traceback 1\n")
        journal("event", text="x" * 80)
        journal("after")
        os.write(stderr, b"Traceback 2\n")
    finally:
        os.close(stderr)
    assert journal.fileno() == number and not os.get_inheritable(number)
    assert "Traceback 1" in text_of(path + ".1") and "Traceback 2" in text_of(path)


def test_who_finds_the_log_rotated_by_another_joins_it(path, opened):
    one, two = opened(path, max_bytes=100), opened(path, max_bytes=100)
    one("one", n=1)
    two("two", n=1)
    one("one", n=2)
    two("two", n=2)
    one("one", n=3)            # rotates
    two("two", n=3)            # finds that, and does not rotate again
    assert re.findall(r"daemon (\w+ n=\d)", text_of(path)) == ["one n=3", "two n=3"]
    assert not os.path.exists(path + ".2")


def test_a_rotation_that_fails_loses_nothing(path, opened, monkeypatch):
    journal = opened(path, max_bytes=100)

    def refuse(old, new):
        raise OSError(13, "Permission denied")
    monkeypatch.setattr(os, "replace", refuse)
    for number in range(9):
        journal("event", n=number)
    assert re.findall(r"n=(\d)", text_of(path)) == list("012345678")


def test_a_new_file_that_cannot_be_opened_leaves_the_old_one_in_use(path, opened, monkeypatch):
    journal = opened(path, max_bytes=100)
    journal("event", text="x" * 80)

    def refuse(*args):
        raise OSError(24, "Too many open files")
    with monkeypatch.context() as patch:
        patch.setattr(os, "open", refuse)
        journal("meanwhile")
    journal("after")
    assert "meanwhile" in text_of(path + ".1") and "after" in text_of(path)
    assert journal.lost == 0 and not os.path.exists(path + ".2")


# -- trouble

@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_lines_lost_on_a_full_disk_are_counted_and_said(path, opened):
    journal = opened(path)
    journal("before")
    kept, full = os.dup(journal.fileno()), os.open("/dev/full", os.O_WRONLY)
    os.dup2(full, journal.fileno())
    journal("lost", n=1)
    journal("lost", n=2)
    assert journal.lost == 2 and "space" in journal.error
    os.dup2(kept, journal.fileno())
    os.close(kept)
    os.close(full)
    journal("after")
    journal("then")
    assert [line.split(" ", 2)[2] for line in text_of(path).splitlines()] == [
        "before", "log_lines_lost n=2", "after", "then"]
    assert journal.lost == 2 and journal.error is None


def test_a_torn_line_does_not_swallow_the_next(path, opened, monkeypatch):
    journal = opened(path)
    whole = os.write
    calls = []

    def torn(fd, data):
        calls.append(1)
        if len(calls) == 1:
            return whole(fd, bytes(data[:30]))
        raise OSError(28, "No space left on device")
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", torn)
        journal("torn")
    journal("after")
    assert [line[25:] for line in text_of(path).splitlines()] == [
        "daemo", "daemon log_lines_lost n=1", "daemon after"]


def test_short_writes_are_continued(path, opened, monkeypatch):
    whole = os.write
    journal = opened(path)
    monkeypatch.setattr(os, "write", lambda fd, data: whole(fd, bytes(data[:3])))
    journal("event", n=1)
    assert text_of(path).endswith("daemon event n=1\n") and journal.lost == 0


def test_a_log_that_cannot_be_opened_is_tried_again(tmp_path, opened):
    path = str(tmp_path / "later" / "guard.log")
    journal = opened(path)
    journal("lost")
    (tmp_path / "later").mkdir()
    journal.banner(version="1.0.0")
    assert [line.split(" ", 2)[2] for line in text_of(path).splitlines()] == [
        "log_lines_lost n=1", "banner version=1.0.0"]


def test_a_closed_journal_counts_and_never_raises(path, opened):
    journal = opened(path)
    journal.close()
    journal.close()
    journal("x")
    assert journal.lost == 1 and journal.fileno() == -1 and journal.error == "closed"


def test_no_descriptor_stays_open(path, opened):
    if not os.path.isdir("/proc/self/fd"):
        pytest.skip("needs /proc")
    before = len(os.listdir("/proc/self/fd"))
    journal = opened(path, max_bytes=60)
    for number in range(20):
        journal("event", n=number)
        tail(path)
    journal.close()
    assert len(os.listdir("/proc/self/fd")) == before


# -- tail

def test_the_tail_is_the_last_characters(path, tmp_path):
    with open(path, "wb") as file:
        file.write(b"first\n" + b"x" * 3000 + b"\nlast\n")
    assert tail(path, 10) == "xxxx\nlast\n"
    assert len(tail(path)) == journal_module.TAIL_BYTES == 2000
    assert tail(str(tmp_path / "missing")) == "" == tail(str(tmp_path))


def test_the_tail_begins_with_a_whole_character(path):
    with open(path, "wb") as file:
        file.write("\u20ac\u20ac".encode())
    assert [tail(path, limit) for limit in (6, 5, 4, 3, 2)] == [
        "\u20ac\u20ac", "\u20ac", "\u20ac", "\u20ac", ""]


@given(st.binary(max_size=60), st.integers(0, 70))
def test_the_tail_of_anything_is_fit_for_a_terminal(tmp_path_factory, data, limit):
    path = str(tmp_path_factory.getbasetemp() / "any.log")
    with open(path, "wb") as file:
        file.write(data)
    assert all(c.isprintable() or c in "\n\t" for c in tail(path, limit))
