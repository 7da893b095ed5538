"""The records on disk, and which session a word means."""

import errno
import itertools
import json
import os
import stat
import threading
import time

import pytest
from hypothesis import given, settings, strategies as st

from ptyguard_core import registry
from ptyguard_core.errors import NoSuchSession, StateUnusable, UsageError
from ptyguard_core.registry import Registry

NOW = 1_795_960_927.5
DAY = 86400


class House:
    """A state directory, a clock that stands still, and a log that remembers."""

    def __init__(self, directory):
        self.directory = str(directory)
        self.sessions = os.path.join(self.directory, "sessions")
        self.now = NOW
        self.lines = []
        self._numbers = itertools.count(0xABC000)

    def open(self):
        return Registry(self.directory, lambda: self.now,
                        lambda: f"{next(self._numbers):x}", self._log)

    def _log(self, event, **fields):
        self.lines.append((event, fields))

    def path(self, name):
        return os.path.join(self.sessions, name)

    def put(self, name, data):
        with open(self.path(name), "wb") as file:
            file.write(data)

    def listing(self):
        return sorted(os.listdir(self.sessions))

    def reasons(self, event="record_set_aside"):
        return {fields["session"]: fields["reason"]
                for name, fields in self.lines if name == event}


@pytest.fixture
def house(tmp_path):
    house = House(tmp_path)
    house.open()
    return house


def a_record(session_id="k3f9", **fields):
    record = {"id": session_id, "name": "web", "state": "running", "created_at": NOW,
              "incarnation": 1, "spawn": 1, "boot_id": "boot-a", "pid": 4711,
              "pid_start": 99, "argv": ["sh", "-c", ""], "cwd": "/",
              "size": {"cols": 80, "rows": 24}, "ended_at": None,
              "exit": {"code": None, "signal": None}, "labels": {}, "restart": "never",
              "collected": False, "ttl": None, "size_policy": "latest",
              "log": {"path": "/out", "base": -5}}
    record.update(fields)
    return record


def on_disk(house, session_id="k3f9"):
    with open(house.path(session_id + ".json"), "rb") as file:
        return json.loads(file.read())


def by_id(*records):
    return {record["id"]: record for record in records}


# -- round trips

def test_a_new_directory_is_made_private_and_empty(house):
    assert stat.S_IMODE(os.lstat(house.sessions).st_mode) == 0o700
    assert house.open().load() == {}


def test_a_record_is_read_back_as_it_was_written(house):
    house.open().write(a_record())
    assert house.open().load() == {"k3f9": a_record()}
    assert stat.S_IMODE(os.lstat(house.path("k3f9.json")).st_mode) == 0o600
    assert house.listing() == ["k3f9.json"]


@given(argv=st.lists(st.binary(max_size=30).map(lambda b: b.decode("utf-8", "surrogateescape")),
                     max_size=5),
       label=st.text(alphabet=st.characters(blacklist_categories=("Cs",))))
@settings(deadline=None, max_examples=50)
def test_any_argv_bytes_and_any_text_survive(tmp_path_factory, argv, label):
    house = House(tmp_path_factory.mktemp("state"))
    record = a_record(argv=argv, labels={"note": label})
    house.open().write(record)
    assert house.open().load() == {"k3f9": record}
    assert house.lines == []


def test_the_file_is_ascii_so_that_lone_surrogates_fit(house):
    house.open().write(a_record(argv=[os.fsdecode(b"\xff\x80")], cwd="/\u00e9"))
    with open(house.path("k3f9.json"), "rb") as file:
        assert max(file.read()) < 0x80


# -- rule 3: a field is never dropped

def test_fields_of_a_newer_version_survive_a_rewrite(house):
    house.open().write(a_record(future={"deep": [1, 2.5, None]}))
    writer = house.open()
    writer.load()
    writer.write(a_record(state="ended"))
    assert on_disk(house)["future"] == {"deep": [1, 2.5, None]}
    assert on_disk(house)["state"] == "ended"


def test_fields_survive_without_a_load_in_between(house):
    writer = house.open()
    writer.write(a_record(future=7))
    writer.write(a_record())
    writer.write(a_record(name="other"))
    assert on_disk(house)["future"] == 7


def test_null_clears_a_field(house):
    writer = house.open()
    writer.write(a_record(boot_id="boot-a"))
    writer.write(a_record(boot_id=None))
    assert on_disk(house)["boot_id"] is None


def test_a_new_record_under_a_removed_id_inherits_nothing(house):
    writer = house.open()
    writer.write(a_record(future=7))
    writer.remove("k3f9")
    writer.write(a_record())
    assert "future" not in on_disk(house)


def test_a_label_that_was_taken_away_stays_away(house):
    writer = house.open()
    writer.write(a_record(labels={"a": "1", "b": "2"}))
    writer.write(a_record(labels={"a": "1"}))
    assert on_disk(house)["labels"] == {"a": "1"}


# -- rule 4: one bad file costs one record

BAD_FILES = {
    "empty": b"",
    "blank": b" \n",
    "truncated": json.dumps(a_record("bad1")).encode()[:40],
    "zeroes": b"\0" * 512,            # what a power cut leaves on some file systems
    "not UTF-8": b'{"id": "\xff"}',
    "a list": b"[]",
    "null": b"null",
    "no fields": b"{}",
    "another id": json.dumps(a_record("k3f9")).encode(),
    "NaN": json.dumps(a_record("bad1", created_at=float("nan"))).encode(),
    "endless number": json.dumps(a_record("bad1")).encode().replace(b"{", b'{"x": 1e999, ', 1),
    "huge integer": json.dumps(a_record("bad1", created_at=10 ** 400)).encode(),
    "too deep": b"[" * 100_000 + b"]" * 100_000,
    "too large": b" " * ((1 << 20) + 1),
    "two records": json.dumps(a_record("bad1")).encode() * 2,
}


@pytest.mark.parametrize("kind", sorted(BAD_FILES))
def test_a_bad_file_is_set_aside_reported_and_stops_nothing(house, kind):
    house.open().write(a_record("good"))
    house.put("bad1.json", BAD_FILES[kind])
    assert set(house.open().load()) == {"good"}
    assert set(house.reasons()) == {"bad1"}
    aside = f"bad1.json.corrupt-{int(NOW)}-"
    assert [name for name in house.listing() if name.startswith(aside)]
    assert "bad1.json" not in house.listing()
    house.lines.clear()
    assert set(house.open().load()) == {"good"}        # it is not reported twice
    assert house.lines == []


WRONG = {
    "id": "../x", "name": "-x", "state": "dreaming", "created_at": True, "ended_at": -1,
    "incarnation": [], "spawn": "1", "boot_id": 5, "pid": 0, "pid_start": {},
    "argv": ["a", 1], "cwd": ["/"], "size": {"cols": 80}, "exit": {"code": "0"},
    "labels": {"a": 1}, "restart": 1, "collected": 1, "ttl": "60", "size_policy": 1, "markers": [1],
    "log": {"path": "/out", "base": "0"}, "recording": {"path": 5},
    "kill_pending": {"since": 1.0, "tried_at": 1.0, "survivors": [[0, 5]]},
    "relaunch": {"attempts": -1},
}


@pytest.mark.parametrize("field", sorted(registry.FIELDS))
def test_a_field_of_the_wrong_shape_is_named(field):
    record = a_record()
    record[field] = WRONG[field]
    assert registry.shape_fault(record) == f"field {field}"


@pytest.mark.parametrize("field", sorted(registry.FIELDS))
def test_only_required_fields_may_not_be_null(field):
    fault = registry.shape_fault(a_record(**{field: None}) if field != "id"
                                 else dict(a_record(), id=None))
    assert bool(fault) == (field in registry.REQUIRED)


@given(st.recursive(st.none() | st.booleans() | st.floats() | st.integers() | st.text(),
                    lambda inner: st.lists(inner) | st.dictionaries(
                        st.sampled_from(sorted(registry.FIELDS)) | st.text(), inner)))
def test_no_json_value_confuses_the_shape_check(value):
    assert registry.shape_fault(value)


@given(data=st.binary(max_size=300))
@settings(deadline=None, max_examples=50)
def test_no_bytes_in_a_file_stop_a_load(tmp_path_factory, data):
    house = House(tmp_path_factory.mktemp("state"))
    house.open().write(a_record("good"))
    house.put("bad1.json", data)
    assert set(house.open().load()) == {"good"}


@given(position=st.integers(0, 2000), value=st.integers(0, 255))
@settings(deadline=None, max_examples=50)
def test_a_flipped_byte_gives_a_usable_record_or_none(tmp_path_factory, position, value):
    house = House(tmp_path_factory.mktemp("state"))
    data = bytearray(json.dumps(a_record()).encode())
    data[position % len(data)] = value
    house.open()
    house.put("k3f9.json", bytes(data))
    writer = house.open()
    for record in writer.load().values():
        assert registry.shape_fault(record) == ""
        writer.write(record)


def test_a_symbolic_link_is_set_aside_and_its_target_left_alone(house, tmp_path):
    target = tmp_path / "target.json"
    target.write_bytes(json.dumps(a_record()).encode())
    os.symlink(str(target), house.path("k3f9.json"))
    assert house.open().load() == {}
    assert house.reasons() == {"k3f9": "symbolic link"}
    assert target.exists()


def test_a_fifo_and_a_directory_do_not_hang_a_load(house):
    os.mkfifo(house.path("fifo.json"))
    os.mkdir(house.path("dirs.json"))
    assert house.open().load() == {}
    assert house.reasons() == {"fifo": "not a file", "dirs": "not a file"}


def test_a_foreign_file_is_not_believed(house, monkeypatch):
    house.open().write(a_record())
    loader = house.open()
    monkeypatch.setattr(os, "geteuid", lambda: 12345)
    assert loader.load() == {}
    assert "uid" in house.reasons()["k3f9"]


def test_a_bad_file_that_cannot_be_renamed_stays_and_is_reported(house, monkeypatch):
    house.put("bad1.json", b"")
    monkeypatch.setattr(os, "rename", failing(errno.EPERM))
    assert house.open().load() == {}
    assert house.reasons() == {"bad1": "empty"}
    assert house.listing() == ["bad1.json"]


@pytest.mark.parametrize("code", [errno.EACCES, errno.EPERM])
def test_an_unreadable_file_is_set_aside(house, monkeypatch, code):
    house.open().write(a_record())
    with monkeypatch.context() as patch:
        patch.setattr(os, "open", failing(code))
        assert house.open().load() == {}
    assert house.reasons() == {"k3f9": "unreadable"}


@pytest.mark.parametrize("code", [errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EIO])
def test_a_machine_out_of_something_does_not_condemn_good_records(house, monkeypatch, code):
    house.open().write(a_record())
    with monkeypatch.context() as patch:
        patch.setattr(os, "open", failing(code))
        assert house.open().load() == {}
    assert [event for event, _ in house.lines] == ["record_unreadable"]
    assert house.open().load() == {"k3f9": a_record()}


def test_other_files_are_left_alone(house):
    names = ["README", ".json", "A.json", "k3f9.json.bak", "k3f9.json.corrupt-1-ab",
             "a b.json", "x.json"]
    for name in names:
        house.put(name, b"?")
    assert house.open().load() == {}
    assert house.listing() == sorted(names) and house.lines == []


# -- leftovers

def test_only_our_own_old_temp_files_are_swept(house, tmp_path, monkeypatch):
    names = ["k3f9.json.tmp-0ld", "k3f9.json.tmp-abc", "k3f9.json.tmp-", "k3f9.json.tmp-xyz",
             "UP.json.tmp-abc", "k3f9.json.tmp-def"]
    for name in names:
        house.put(name, b"")
        os.utime(house.path(name), (NOW - 3601, NOW - 3601))
    os.utime(house.path("k3f9.json.tmp-def"), (NOW - 3599, NOW - 3599))
    os.symlink(str(tmp_path), house.path("k3f9.json.tmp-1111"))
    house.open().load()
    assert house.listing() == sorted(set(names) - {"k3f9.json.tmp-abc"}
                                     | {"k3f9.json.tmp-1111"})
    loader = house.open()
    house.now += 10 * DAY
    monkeypatch.setattr(os, "geteuid", lambda: 12345)
    loader.load()
    assert "k3f9.json.tmp-def" in house.listing()


# -- writing under trouble

def failing(code):
    def fail(*args, **kwargs):
        raise OSError(code, os.strerror(code))
    return fail


@pytest.mark.parametrize("call", ["open", "write", "fsync", "replace"])
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS])
def test_a_write_that_fails_leaves_the_old_record_and_nothing_else(house, monkeypatch, call, code):
    writer = house.open()
    writer.write(a_record(future=7))
    with monkeypatch.context() as patch:
        patch.setattr(os, call, failing(code))
        with pytest.raises(StateUnusable) as caught:
            writer.write(a_record(state="ended", another=8))
    error = caught.value
    assert error.details == {"errno": code, "path": house.path("k3f9.json")}
    assert errno.errorcode[code] in error.message and house.path("k3f9.json") in error.message
    assert error.hint
    assert writer.last_error == error.message
    assert house.listing() == ["k3f9.json"]
    assert house.open().load() == {"k3f9": a_record(future=7)}
    assert [event for event, _ in house.lines] == ["record_failed"]
    writer.write(a_record(state="ended"))
    assert writer.last_error is None
    assert on_disk(house) == a_record(state="ended", future=7)     # `another` never was


def test_a_full_disk_is_named(house, monkeypatch):
    writer = house.open()
    monkeypatch.setattr(os, "write", failing(errno.ENOSPC))
    with pytest.raises(StateUnusable) as caught:
        writer.write(a_record())
    assert "No space left" in caught.value.message and "full" in caught.value.hint
    assert house.listing() == []


def test_an_interrupted_write_leaves_no_temp_file(house, monkeypatch):
    def interrupted(fd):
        raise KeyboardInterrupt
    monkeypatch.setattr(os, "fsync", interrupted)
    with pytest.raises(KeyboardInterrupt):
        house.open().write(a_record())
    assert house.listing() == []


def test_short_writes_are_continued(house, monkeypatch):
    whole = os.write
    monkeypatch.setattr(os, "write", lambda fd, data: whole(fd, bytes(data[:7])))
    house.open().write(a_record())
    assert house.open().load() == {"k3f9": a_record()}


def test_a_temp_name_that_exists_is_not_followed_or_removed(house, tmp_path):
    victim = tmp_path / "victim"
    victim.write_bytes(b"precious")
    os.symlink(str(victim), house.path("k3f9.json.tmp-abc"))
    writer = Registry(house.directory, lambda: NOW, lambda: "abc", house._log)
    with pytest.raises(StateUnusable):
        writer.write(a_record())
    assert victim.read_bytes() == b"precious"
    assert house.listing() == ["k3f9.json.tmp-abc"]


def test_temp_names_come_from_the_given_randomness_and_differ(house, monkeypatch):
    seen = []
    whole = os.replace
    monkeypatch.setattr(os, "replace", lambda old, new: (seen.append(old), whole(old, new)))
    writer = house.open()
    writer.write(a_record())
    writer.write(a_record())
    assert len(set(seen)) == 2 and all("/k3f9.json.tmp-abc" in name for name in seen)


def test_no_descriptor_stays_open(house, monkeypatch):
    def count():
        return len(os.listdir("/proc/self/fd"))
    if not os.path.isdir("/proc/self/fd"):
        pytest.skip("needs /proc")
    writer = house.open()
    house.put("bad1.json", b"{")
    os.mkdir(house.path("dirs.json"))
    before = count()
    writer.write(a_record())
    writer.load()
    writer.remove("k3f9")
    monkeypatch.setattr(os, "fsync", failing(errno.EIO))
    with pytest.raises(StateUnusable):
        writer.write(a_record())
    assert count() == before


def test_a_record_too_large_to_be_read_back_is_refused(house):
    writer = house.open()
    with pytest.raises(StateUnusable) as caught:
        writer.write(a_record(argv=["x" * (1 << 20)]))
    assert caught.value.details["errno"] == errno.EFBIG and "command line" in caught.value.hint
    assert house.listing() == []
    fits = a_record(argv=["x" * ((1 << 20) - 2000)])
    writer.write(fits)
    assert house.open().load() == {"k3f9": fits}


def test_a_record_that_no_reader_could_use_is_refused(house):
    with pytest.raises(UsageError) as caught:
        house.open().write(a_record(argv=("a", "tuple")))
    assert "argv" in caught.value.message
    with pytest.raises(UsageError):
        house.open().write(a_record(ttl=float("inf")))
    assert house.listing() == []


def test_24_writers_at_once_lose_nothing(house):
    """Each record has one writer; their directory is common to all."""
    def write_often(number):
        writer = Registry(house.directory, lambda: NOW, lambda: os.urandom(8).hex(), house._log)
        for spawn in range(10):
            writer.write(a_record(f"id{number:02d}", spawn=spawn))
    threads = [threading.Thread(target=write_often, args=(n,)) for n in range(24)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert house.open().load() == {f"id{n:02d}": a_record(f"id{n:02d}", spawn=9)
                                   for n in range(24)}
    assert len(house.listing()) == 24 and house.lines == []


# -- removal

def test_removing_twice_is_removing_once(house):
    writer = house.open()
    writer.write(a_record())
    writer.remove("k3f9")
    writer.remove("k3f9")
    assert house.listing() == [] and writer.last_error is None


def test_a_record_that_cannot_be_removed_says_so(house, monkeypatch):
    writer = house.open()
    writer.write(a_record())
    monkeypatch.setattr(os, "unlink", failing(errno.EROFS))
    with pytest.raises(StateUnusable) as caught:
        writer.remove("k3f9")
    assert writer.last_error == caught.value.message
    assert caught.value.details["errno"] == errno.EROFS


# -- the directory

def test_a_directory_open_to_others_is_refused(house):
    os.chmod(house.sessions, 0o755)
    with pytest.raises(StateUnusable) as caught:
        house.open()
    assert "0755" in caught.value.message and caught.value.hint == f"chmod 700 {house.sessions}"


def test_a_symbolic_link_for_a_directory_is_refused(tmp_path):
    (tmp_path / "elsewhere").mkdir(mode=0o700)
    os.symlink(str(tmp_path / "elsewhere"), str(tmp_path / "sessions"))
    with pytest.raises(StateUnusable):
        House(tmp_path).open()


def test_a_foreign_directory_is_refused(house, monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: 12345)
    with pytest.raises(StateUnusable) as caught:
        house.open()
    assert "uid" in caught.value.message


def test_a_missing_state_directory_is_an_error_with_a_name(tmp_path):
    with pytest.raises(StateUnusable) as caught:
        House(tmp_path / "missing").open()
    assert caught.value.details["errno"] == errno.ENOENT


# -- ids

@pytest.mark.parametrize("bad", ["", "abc", "a" * 33, "../../etc", "a/bc", "ABCD", "ab.cd",
                                 "abc\n", "abc\0", "\u0661\u0662\u0663\u0664", None, 1234,
                                 ["a", "b", "c", "d"]])
def test_an_id_can_never_be_a_path(house, bad):
    assert not registry.is_valid_id(bad)
    with pytest.raises(UsageError):
        house.open().remove(bad)
    with pytest.raises(UsageError):
        house.open().write(dict(a_record(), id=bad))


# -- names

@pytest.mark.parametrize("name", ["a", "A", "0", "_", "web-1.2_x", "x" * 64, "a-", "a."])
def test_valid_names(name):
    assert registry.check_name(name) == name


@pytest.mark.parametrize("name", ["", "-a", ".a", ".", "..", "x" * 65, "a b", "a/b", "a\n",
                                  "\u00e9", "a\x1b[31m", "@a", "a:b", None, 5])
def test_invalid_names_are_refused_with_the_rule(name):
    with pytest.raises(UsageError) as caught:
        registry.check_name(name)
    assert caught.value.hint == registry.NAME_RULE
    assert caught.value.message.isprintable()


SUGGESTIONS = [
    (["bash"], "bash"), (["-bash"], "bash"), (["/usr/bin/python3.11", "x"], "python3.11"),
    (["g++"], "g__"), (["["], "session"), (["/"], "session"), ([""], "session"), ([], "session"),
    (["./.hidden"], "hidden"), (["-.-"], "session"), (["\u00e9t\u00e9"], "_t_"),
    (["a\x1b[0m"], "a__0m"), (["x" * 100], "x" * 64), (["\udcff\udcfe"], "session"),
]


@pytest.mark.parametrize("argv, name", SUGGESTIONS)
def test_a_name_is_suggested_from_the_command(argv, name):
    assert registry.suggest_name(argv, ()) == name


def test_the_second_bash_is_bash_2():
    assert registry.suggest_name(["bash"], ["bash"]) == "bash-2"
    assert registry.suggest_name(["bash"], ["bash", "bash-2", "bash-4"]) == "bash-3"
    assert registry.suggest_name(["x" * 70], ["x" * 64]) == "x" * 62 + "-2"


@given(argv=st.lists(st.text(), max_size=3), taken=st.sets(st.text(), max_size=5),
       copies=st.integers(0, 12))
def test_a_suggestion_is_always_valid_and_free(argv, taken, copies):
    for _ in range(copies + 1):
        name = registry.suggest_name(argv, taken)
        assert registry.is_valid_name(name) and name not in taken
        taken.add(name)


def test_near_names_are_few_and_likely():
    names = ["build", "build-server", "web", "webserver", "Deploy", "zzz"]
    assert registry.near_names("biuld", names) == ["build"]
    assert registry.near_names("deploy", names) == ["Deploy"]
    assert registry.near_names("web", names) == ["web", "webserver"]
    assert registry.near_names("buil", names) == ["build", "build-server"]
    assert registry.near_names("other", names) == []
    assert registry.near_names("", names) == []
    assert len(registry.near_names("job", [f"job{n}" for n in range(9)])) == 3
    assert registry.near_names("x" * 100_000, names) == []


# -- which session

def test_a_name_is_found_exactly_and_never_by_prefix():
    records = by_id(a_record("k3f9", name="build"), a_record("aaaa", name="build-2"))
    assert registry.find(records, "build")["id"] == "k3f9"
    for target in ("buil", "b", "build-", "BUILD", ""):
        with pytest.raises(NoSuchSession):
            registry.find(records, target)


def test_an_id_needs_its_at_sign():
    records = by_id(a_record("k3f9"))
    assert registry.find(records, "@k3f9")["id"] == "k3f9"
    with pytest.raises(NoSuchSession) as caught:
        registry.find(records, "k3f9")
    assert "@k3f9" in caught.value.hint
    for target in ("@", "@k3f", "@../k3f9", "@@k3f9"):
        with pytest.raises(NoSuchSession):
            registry.find(records, target)


def test_the_living_session_is_meant_then_the_newest():
    ended = a_record("aaaa", state="ended", created_at=NOW + 9)
    older = a_record("bbbb", state="ended", created_at=NOW + 1)
    living = a_record("cccc", state="draining", created_at=NOW)
    assert registry.find(by_id(ended, living, older), "web") is living
    assert registry.find(by_id(older, ended), "web") is ended


def test_a_missing_session_is_named_with_what_may_have_been_meant():
    records = by_id(a_record(name="build"))
    with pytest.raises(NoSuchSession) as caught:
        registry.find(records, "biuld")
    assert caught.value.message == "no such session: biuld"
    assert "build" in caught.value.hint and caught.value.details["near"] == ["build"]
    with pytest.raises(NoSuchSession) as caught:
        registry.find({}, "web")
    assert caught.value.hint == "`ptyguard ls` shows them"


@given(st.text())
def test_no_target_reaches_the_terminal_raw(target):
    with pytest.raises(NoSuchSession) as caught:
        registry.find({}, target)
    assert caught.value.message.isprintable() and caught.value.hint.isprintable()


# -- retention

def test_living_sessions_never_expire():
    records = by_id(*(a_record(f"id{n:02d}", state=state, created_at=0)
                      for n, state in enumerate(sorted(registry.LIVING_STATES))))
    assert registry.expired(records, NOW, keep_count=0, keep_days=0) == []


@pytest.mark.parametrize("state", sorted(registry.OVER_STATES))
def test_sessions_expire_seven_days_after_their_end(state):
    records = by_id(a_record("aaaa", state=state, created_at=0, ended_at=NOW - 7 * DAY),
                    a_record("bbbb", state=state, created_at=0, ended_at=NOW - 7 * DAY - 1),
                    a_record("cccc", state=state, created_at=NOW - 8 * DAY, ended_at=None))
    assert registry.expired(records, NOW) == ["cccc", "bbbb"]


def test_only_the_newest_hundred_are_kept_and_the_oldest_go_first():
    records = by_id(*(a_record(f"id{n:03d}", state="ended", ended_at=NOW - n)
                      for n in range(103)), a_record("live", created_at=0))
    assert registry.expired(records, NOW) == ["id102", "id101", "id100"]
    assert registry.expired(records, NOW, keep_count=103) == []


def test_a_clock_set_back_expires_nothing():
    assert registry.expired(by_id(a_record(state="ended", ended_at=NOW)), now=0) == []


# -- loss

def test_a_record_that_claims_to_live_unheld_is_lost_with_the_reason():
    records = by_id(a_record("aaaa", created_at=3), a_record("bbbb", created_at=1),
                    a_record("cccc", boot_id="boot-b", created_at=2),
                    a_record("dddd", state="ended"), a_record("eeee", boot_id=None))
    assert registry.lost(records, ["aaaa"], "boot-b") == [
        ("bbbb", "reboot"), ("cccc", "guard and daemon gone"),
        ("eeee", "guard and daemon gone")]


def test_an_unknown_boot_is_no_proof_of_a_reboot():
    assert registry.lost(by_id(a_record()), (), "") == [("k3f9", "guard and daemon gone")]


def test_every_state_is_either_living_or_over():
    assert registry.LIVING_STATES | registry.OVER_STATES == set(registry.STATES)
    for state in registry.STATES:
        is_lost = bool(registry.lost(by_id(a_record(state=state)), (), "boot-a"))
        assert is_lost == (state in registry.LIVING_STATES)


# --- reading ahead ---------------------------------------------------------------------------

@pytest.fixture
def reads(monkeypatch):
    """Names of the files that are read."""
    seen, read = [], registry._read_private
    monkeypatch.setattr(registry, "_read_private", lambda path: seen.append(os.path.basename(path)) or read(path))
    return seen


def ahead(house, *records):
    """A registry that has read these ahead, when they were old enough to be known again."""
    for record in records:
        house.open().write(record)
    house.now = time.time() + 10
    found = house.open()
    found.read_ahead()
    return found


def test_what_was_read_ahead_is_not_read_again(house, reads):
    found = ahead(house, a_record(), a_record("m4n7"))
    assert sorted(reads) == ["k3f9.json", "m4n7.json"]
    assert found.load() == {"k3f9": a_record(), "m4n7": a_record("m4n7")}
    assert len(reads) == 2


def test_a_record_that_was_replaced_since_is_read_again_and_one_that_went_is_gone(house, reads):
    found = ahead(house, a_record(), a_record("m4n7"), a_record("p5q8"))
    house.open().write(a_record(name="new"))
    house.open().remove("m4n7")
    house.open().write(a_record("r6s9"))
    del reads[:]
    assert found.load() == {"k3f9": a_record(name="new"), "p5q8": a_record("p5q8"), "r6s9": a_record("r6s9")}
    assert sorted(reads) == ["k3f9.json", "m4n7.json", "r6s9.json"] or sorted(reads) == ["k3f9.json", "r6s9.json"]


def test_a_record_that_may_be_replaced_within_a_tick_of_the_clock_is_not_trusted(house, reads):
    house.open().write(a_record())
    house.now = time.time()
    found = house.open()
    found.read_ahead()
    found.load()
    assert reads == ["k3f9.json"]


def test_reading_ahead_changes_nothing_and_loading_does_what_it_always_did(house):
    house.put("k3f9.json", b"{")
    house.put("m4n7.json.tmp-abc", b"")
    before = house.listing()
    found = ahead(house)
    assert house.listing() == before and house.lines == []
    assert found.load() == {}
    assert set(house.reasons()) == {"k3f9"}


def test_a_registry_has_what_its_file_said_when_it_was_loaded(house):
    house.open().write(a_record(unknown=1))
    found = house.open()
    assert not found.has(a_record())
    found.load()
    assert found.has(a_record())                        # what only the file has stays there
    assert not found.has(a_record(name="other")) and not found.has(a_record("m4n7"))
