"""When a log's writer is started, who waits for it, and where it goes on: on a clock of our own."""

import types

import pytest
from hypothesis import given, strategies as st

from ptyguard_core import logkeeper
from ptyguard_core.errors import Busy, UsageError
from ptyguard_core.logkeeper import (DEATHS_MAX, LOG_WAIT_S, LOOK_S, RETRY_MAX_S, RETURN_WAIT_S,
                                     WRITTEN_WAIT_S, LogKeeper, needs_writer, resume_at, retry_delay)
from ptyguard_core.loop import Loop
from ptyguard_core.ring import Ring, memory_bytes
from ptyguard_core.session import ALWAYS, DRAINING, ENDED, RUNNING, Cursor, Session

SIGKILL, EXIT_1 = 9, 1 << 8
PATH = "/var/log/out"


class Clock:
    """Time that passes when nobody has anything to do before."""

    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now

    def poll(self, sleep_s):
        self.now += max(0.0, sleep_s)
        return []


class Backend:
    """Processes that are only numbers."""

    def __init__(self):
        self.launched = []
        self.living = set()
        self.error = None

    def begin_launch(self, argv, environment, descriptors, log_path):
        if self.error:
            raise self.error
        pid = 100 + len(self.launched)
        self.launched.append(argv)
        self.living.add(pid)
        return pid

    def process_start(self, pid):
        return pid * 7 if pid in self.living else None

    def signal_process(self, pid, start, signum):
        assert signum == 0
        return pid in self.living and start == pid * 7

    def decode_status(self, raw):
        return (None, raw & 127) if raw & 127 else (raw >> 8, None)


class Keeper:
    """A LogKeeper of one session, and the daemon around it."""

    def __init__(self, state=RUNNING, written=0, **log):
        self.clock, self.backend = Clock(), Backend()
        self.loop = Loop(self.clock, self.clock)
        self.told = []
        self.changes = 0
        self.sessions = {}
        self.session = Session({"id": "k3f9", "name": "build", "size": {"cols": 80, "rows": 24}, "state": state, "incarnation": 1,
                                "log": dict({"path": PATH, "incarnation": 1}, **log)})
        self.session.ring = Ring.format(bytearray(memory_bytes(1 << 16)))
        self.write(written)
        self.sessions["k3f9"] = self.session
        self.logs = LogKeeper(self.backend, self.loop,
                              types.SimpleNamespace(root="/r", daemon_log="/r/daemon.log"),
                              lambda event, **fields: self.told.append(event), ("/python", "/bin.pyz"),
                              self)

    def on_log_changed(self, session):
        assert session is self.session
        self.changes += 1

    def write(self, count):
        ring = self.session.ring
        while count:
            view = ring.writable(min(count, 1000))
            view[:] = b"x" * len(view)
            ring.commit(len(view))
            count -= len(view)

    @property
    def log(self):
        return self.session.record["log"]

    @property
    def newest(self):
        """The pid of the writer that was started last."""
        return 99 + len(self.backend.launched)

    def come(self, pid=None, offset=0, role=logkeeper.ROLE):
        """A writer follows; its connection."""
        client = types.SimpleNamespace(hello={"role": role, "pid": pid or self.newest})
        cursor = Cursor(offset, ALWAYS)
        cursor.is_log = self.logs.admits(client, self.session)
        cursor.owner = client
        client.cursor = cursor
        self.session.add(cursor)
        self.logs.on_follow(self.session, cursor)
        return client

    def go(self, client, raw=SIGKILL):
        """It ends: its connection closes, then it is reaped."""
        self.session.remove(client.cursor)
        self.backend.living.discard(client.hello["pid"])
        self.logs.on_unfollow(self.session, client.cursor)
        self.loop.soon(lambda: None)
        self.loop.turn()
        self.logs.on_child_end(client.hello["pid"], raw)

    def die(self, raw=SIGKILL):
        """The one that was started last ends before it came."""
        pid = self.newest
        self.backend.living.discard(pid)
        self.logs.on_child_end(pid, raw)

    def wait(self, seconds):
        """Let that time pass, and whatever is due in it happen."""
        until = self.clock.now + seconds
        self.loop.at(until, lambda: None)
        while self.clock.now < until:
            self.loop.turn()


# -- decisions --------------------------------------------------------------------------------


@given(base=st.integers(-1 << 40, 1 << 40), written=st.integers(0, 1 << 40), extra=st.integers(0, 1 << 40))
def test_a_writer_goes_on_at_the_byte_that_its_file_lacks(base, written, extra):
    size = base + written
    if size >= 0:
        assert resume_at(base, size, written + extra) == written


@given(base=st.none() | st.integers(-1 << 40, 1 << 40), size=st.integers(0, 1 << 40),
       end=st.integers(0, 1 << 40))
def test_a_writer_goes_on_within_the_output_whatever_became_of_the_file(base, size, end):
    offset = resume_at(base, size, end)
    assert 0 <= offset <= end
    # Told so, the next one goes on there too.
    assert resume_at(size - offset, size, end) == offset


def test_nothing_of_a_new_log_is_taken_for_output():
    assert resume_at(None, 500, 1000) == 0


def test_the_time_between_tries_doubles_up_to_a_minute():
    assert [retry_delay(n) for n in range(1, 9)] == [1, 2, 4, 8, 16, 32, RETRY_MAX_S, RETRY_MAX_S]
    assert retry_delay(10 ** 9) == RETRY_MAX_S


def test_a_writer_is_needed_while_the_session_lives_or_its_log_lacks_something():
    assert needs_writer(Keeper().session)
    assert needs_writer(Keeper(DRAINING).session)
    assert needs_writer(Keeper(ENDED, written=5).session)
    assert needs_writer(Keeper(ENDED, written=5, done=4).session)
    assert not needs_writer(Keeper(ENDED, written=5, done=5).session)
    keeper = Keeper(RUNNING)
    keeper.session.ring = None
    assert not needs_writer(keeper.session)
    keeper = Keeper()
    keeper.session.record["log"] = None
    assert not needs_writer(keeper.session)


# -- starting and restarting ------------------------------------------------------------------


def test_a_session_is_not_read_before_its_writer_is_there():
    keeper = Keeper()
    keeper.logs.begin(keeper.session)
    assert keeper.session.awaits_log and keeper.session.is_awaiting
    assert keeper.backend.launched == [["/python", "-I", "-S", "/bin.pyz", "__logwriter", "/r", "k3f9"]]
    assert (keeper.log["pid"], keeper.log["pid_start"]) == (100, 700)
    keeper.come()
    assert not keeper.session.is_awaiting
    keeper.wait(600)
    assert len(keeper.backend.launched) == 1


def test_a_session_without_a_log_is_left_alone():
    keeper = Keeper()
    keeper.session.record["log"] = None
    keeper.logs.begin(keeper.session)
    keeper.wait(60)
    assert not keeper.session.awaits_log and not keeper.backend.launched


def test_a_writer_that_hangs_is_waited_for_with_a_limit_and_gets_no_company():
    keeper = Keeper()
    keeper.logs.begin(keeper.session)
    keeper.wait(LOG_WAIT_S - LOOK_S)
    assert keeper.session.awaits_log and not keeper.told.count("log_failed")
    keeper.wait(3 * LOOK_S)
    assert not keeper.session.awaits_log and keeper.log["error"] == "its writer does not come"
    keeper.wait(3600)
    assert len(keeper.backend.launched) == 1        # its disk may not answer for days
    keeper.die()
    assert len(keeper.backend.launched) == 2
    keeper.come()
    assert keeper.log["error"] is None


def test_a_log_whose_writer_hangs_keeps_no_ended_sessions_output():
    keeper = Keeper(ENDED, written=50)
    keeper.logs.begin(keeper.session)
    assert keeper.logs.is_pending(keeper.session)
    keeper.wait(LOG_WAIT_S + LOOK_S)
    assert not keeper.logs.is_pending(keeper.session)


def test_a_killed_writer_is_followed_by_another_at_once_and_nothing_is_read_meanwhile():
    keeper = Keeper()
    keeper.logs.begin(keeper.session)
    for number in range(1, 3 * DEATHS_MAX):
        client = keeper.come()
        assert not keeper.session.awaits_log
        keeper.go(client)
        assert keeper.session.awaits_log
        assert len(keeper.backend.launched) == number + 1
    assert "log_failed" not in keeper.told


def test_one_that_is_killed_before_it_comes_again_and_again_holds_nobody_any_more():
    keeper = Keeper()
    keeper.logs.begin(keeper.session)
    for number in range(DEATHS_MAX):
        keeper.die()
        assert keeper.session.awaits_log and len(keeper.backend.launched) == number + 2
    keeper.die()
    assert not keeper.session.awaits_log and "log_failed" in keeper.told
    assert len(keeper.backend.launched) == DEATHS_MAX + 1
    keeper.wait(2)
    assert len(keeper.backend.launched) == DEATHS_MAX + 2


def test_one_that_crashes_is_told_of_and_tried_again_ever_later():
    keeper = Keeper()
    keeper.logs.begin(keeper.session)
    for number in range(1, 8):
        keeper.die(EXIT_1)
        assert keeper.log["error"] == "its writer ended with status 1"
        assert not keeper.session.awaits_log
        keeper.wait(retry_delay(number) - 0.1)
        assert len(keeper.backend.launched) == number
        keeper.wait(0.2)
        assert len(keeper.backend.launched) == number + 1
    assert keeper.told.count("log_failed") == 1     # not a line a minute


def test_a_writer_that_cannot_be_started_is_told_of_and_tried_again():
    keeper = Keeper()
    keeper.backend.error = OSError(11, "Resource temporarily unavailable")
    keeper.logs.begin(keeper.session)
    assert "Resource" in keeper.log["error"] and not keeper.session.awaits_log
    keeper.backend.error = None
    keeper.wait(1.5)
    assert len(keeper.backend.launched) == 1
    keeper.come()
    assert keeper.log["error"] is None


# -- what writers report ----------------------------------------------------------------------


def fail(keeper, client, text="No space left on device"):
    """It tells of an error and ends."""
    keeper.logs.report(client, keeper.session, text)
    keeper.go(client, EXIT_1)


def test_an_error_counts_once_and_is_over_with_the_first_byte_that_is_written():
    keeper = Keeper(written=5000)
    keeper.logs.begin(keeper.session)
    fail(keeper, keeper.come())
    assert keeper.log["error"] == "No space left on device" == keeper.logs.trouble().split(": ")[1]
    assert not keeper.session.awaits_log and not keeper.logs.is_pending(keeper.session)
    keeper.wait(1.1)
    client = keeper.come(offset=4000)
    assert keeper.log["error"]              # it has come, not written
    keeper.logs.report(client, keeper.session, None)
    assert keeper.log["error"] is None and keeper.logs.trouble() is None
    assert keeper.told.count("log_failed") == keeper.told.count("log_written_again") == 1
    fail(keeper, client)
    keeper.wait(1.1)                        # counted from one again
    assert len(keeper.backend.launched) == 3


def test_an_error_is_over_when_there_is_nothing_left_to_write():
    keeper = Keeper(written=5000)
    keeper.logs.begin(keeper.session)
    fail(keeper, keeper.come())
    keeper.wait(1.1)
    keeper.come(offset=5000)
    assert keeper.log["error"] is None


def test_a_second_writer_is_refused_and_its_troubles_are_nobodys():
    keeper = Keeper()
    keeper.logs.begin(keeper.session)
    keeper.come(pid=555)                    # one that an earlier daemon had started
    late = types.SimpleNamespace(hello={"role": logkeeper.ROLE, "pid": keeper.newest})
    for act in (lambda: keeper.logs.admits(late, keeper.session),
                lambda: keeper.logs.place(late, keeper.session, 5, None, 0),
                lambda: keeper.logs.finish(late, keeper.session, 0)):
        with pytest.raises(Busy):
            act()
    keeper.logs.report(late, keeper.session, "locked")
    keeper.die(EXIT_1)
    keeper.wait(60)
    assert not keeper.log.get("error") and len(keeper.backend.launched) == 1
    assert keeper.log["pid"] == 555


def test_only_a_logs_writer_is_taken_for_one():
    keeper = Keeper()
    keeper.logs.begin(keeper.session)
    reader = types.SimpleNamespace(hello={"role": "log", "pid": 1})
    assert not keeper.logs.admits(reader, keeper.session)
    keeper.session.record["log"] = None
    with pytest.raises(UsageError):
        keeper.come()


def test_a_base_is_kept_before_the_writer_is_answered():
    keeper = Keeper(written=5000)
    keeper.logs.begin(keeper.session)
    client = types.SimpleNamespace(hello={"role": logkeeper.ROLE, "pid": keeper.newest})
    assert keeper.logs.place(client, keeper.session, 300, None, 0) == 0
    assert keeper.log["base"] == 300
    before = keeper.changes
    assert keeper.logs.place(client, keeper.session, 1300, None, 0) == 1000
    assert keeper.logs.place(client, keeper.session, 1300, 2000, 1000) == 2000
    assert (keeper.log["base"], keeper.log["missed"]) == (-700, 1000)
    assert keeper.logs.place(client, keeper.session, 1300, None, 0) == 2000
    assert keeper.changes == before + 3


# -- other daemons' writers -------------------------------------------------------------------


def test_a_writer_that_outlived_its_daemon_is_given_time_to_come_back():
    keeper = Keeper(pid=555, pid_start=555 * 7, base=0)
    keeper.backend.living.add(555)
    keeper.logs.begin(keeper.session)
    assert keeper.session.awaits_log
    keeper.wait(RETURN_WAIT_S - 2 * LOOK_S)
    assert not keeper.backend.launched
    keeper.come(pid=555)
    keeper.wait(60)
    assert not keeper.backend.launched


def test_one_that_does_not_come_back_or_died_is_replaced():
    for how in ("stays away", "dies"):
        keeper = Keeper(pid=555, pid_start=555 * 7, base=0)
        keeper.backend.living.add(555)
        keeper.logs.begin(keeper.session)
        keeper.wait(1)
        if how == "dies":
            keeper.backend.living.discard(555)
            keeper.wait(2 * LOOK_S)
        else:
            keeper.wait(RETURN_WAIT_S)
        assert len(keeper.backend.launched) == 1 and keeper.session.awaits_log


def test_a_recycled_pid_is_no_writer():
    keeper = Keeper(pid=555, pid_start=1, base=0)
    keeper.backend.living.add(555)
    keeper.logs.begin(keeper.session)
    assert len(keeper.backend.launched) == 1


def test_a_log_that_failed_under_another_daemon_holds_nobody_and_is_tried():
    keeper = Keeper(error="No space left on device", base=0)
    keeper.logs.begin(keeper.session)
    assert not keeper.session.awaits_log and len(keeper.backend.launched) == 1


def test_a_daemon_that_leaves_starts_no_more():
    keeper = Keeper()
    keeper.logs.begin(keeper.session)
    client = keeper.come()
    keeper.logs.stop()
    keeper.go(client)
    keeper.wait(60)
    assert len(keeper.backend.launched) == 1


def test_another_incarnation_begins_anew_in_the_file():
    keeper = Keeper(base=100, done=5)
    keeper.session.record["incarnation"] = 2
    keeper.logs.begin(keeper.session)
    assert keeper.log["base"] is None and keeper.log["done"] is None


# -- ends -------------------------------------------------------------------------------------


def test_an_ended_session_has_writers_until_all_is_written():
    keeper = Keeper(ENDED, written=50)
    keeper.logs.begin(keeper.session)
    assert not keeper.session.awaits_log and keeper.logs.is_pending(keeper.session)
    keeper.go(keeper.come())
    client = keeper.come()
    keeper.logs.finish(client, keeper.session, 50)
    assert not keeper.logs.is_pending(keeper.session)
    keeper.go(client, 0)
    keeper.wait(60)
    assert len(keeper.backend.launched) == 2


def test_who_waits_for_the_log_is_told_when_it_is_written_fails_or_takes_long():
    for how in ("written", "fails", "is forgotten", "takes long"):
        keeper, told = Keeper(ENDED, written=50), []
        keeper.logs.begin(keeper.session)
        client = keeper.come()
        keeper.logs.when_written(keeper.session, lambda: told.append(how))
        keeper.wait(WRITTEN_WAIT_S / 2)
        assert not told
        if how == "written":
            keeper.logs.finish(client, keeper.session, 50)
        elif how == "fails":
            keeper.logs.report(client, keeper.session, "I/O error")
        elif how == "is forgotten":
            keeper.logs.forget(keeper.session)
        else:
            keeper.wait(WRITTEN_WAIT_S)
        assert told == [how]
        keeper.wait(60)
        assert told == [how]
        keeper.logs.when_written(keeper.session, lambda: told.append("again"))
        if how != "takes long":
            assert told == [how, "again"]


def test_nobody_waits_where_there_is_no_log():
    keeper, told = Keeper(ENDED, written=50), []
    keeper.session.record["log"] = None
    keeper.logs.when_written(keeper.session, lambda: told.append("at once"))
    assert told == ["at once"]


def test_a_forgotten_session_starts_no_writers():
    keeper = Keeper()
    keeper.logs.begin(keeper.session)
    client = keeper.come()
    keeper.logs.forget(keeper.session)
    del keeper.sessions["k3f9"]
    keeper.go(client)
    keeper.wait(60)
    assert len(keeper.backend.launched) == 1


# -- a log and a recording at once --------------------------------------------------------------


def with_recording(state=RUNNING, written=0):
    keeper = Keeper(state, written)
    keeper.session.record["recording"] = {"path": "/var/log/x.cast", "incarnation": 1, "input": True}
    keeper.logs.begin(keeper.session)
    return keeper, 100, 101             # the pids of the log's writer and the recorder


def test_each_file_has_its_own_writer_and_both_are_awaited():
    keeper, log, recorder = with_recording()
    assert [argv[4:] for argv in keeper.backend.launched] == [
        ["__logwriter", "/r", "k3f9"], ["__logwriter", "/r", "k3f9", "recording"]]
    keeper.come(log)
    assert keeper.session.awaits_log and keeper.session.awaits_hearing
    keeper.come(recorder, role="recorder")
    assert not keeper.session.awaits_log and not keeper.session.awaits_hearing
    keeper.wait(60)
    assert len(keeper.backend.launched) == 2


def test_a_writer_that_dies_is_replaced_by_one_of_its_kind():
    keeper, log, recorder = with_recording()
    keeper.come(log)
    keeper.go(keeper.come(recorder, role="recorder"))
    assert keeper.session.awaits_hearing and keeper.backend.launched[2][-1] == "recording"
    keeper.come(102, role="recorder")
    keeper.wait(60)
    assert len(keeper.backend.launched) == 3


def test_a_recording_that_fails_leaves_the_log_alone():
    keeper, log, recorder = with_recording()
    keeper.come(log)
    client = keeper.come(recorder, role="recorder")
    keeper.logs.report(client, keeper.session, "No space left on device", "recording")
    keeper.go(client, EXIT_1)
    assert not keeper.session.awaits_log and not keeper.session.awaits_hearing
    assert keeper.log.get("error") is None and "recording" in keeper.logs.trouble()
    assert "recording_failed" in keeper.told


def test_who_waits_for_the_end_waits_for_both_files():
    for order in (("log", "recording"), ("recording", "log")):
        keeper, log, recorder = with_recording(ENDED, written=50)
        clients = {"log": keeper.come(log), "recording": keeper.come(recorder, role="recorder")}
        told = []
        keeper.logs.when_written(keeper.session, lambda: told.append("written"))
        keeper.logs.finish(clients[order[0]], keeper.session, 50, order[0])
        assert not told and keeper.logs.is_pending(keeper.session)
        keeper.logs.finish(clients[order[1]], keeper.session, 50, order[1])
        assert told == ["written"] and not keeper.logs.is_pending(keeper.session)


def test_what_a_recording_misses_is_counted_once():
    keeper, log, recorder = with_recording(written=5000)
    client = keeper.come(recorder, role="recorder")
    for offset, missed in ((1000, 300), (1000, 300), (2000, 100)):
        keeper.logs.miss(client, keeper.session, missed, offset)
    assert keeper.session.record["recording"]["missed"] == 400


def test_a_log_writer_speaks_for_no_recording():
    keeper = Keeper()
    keeper.logs.begin(keeper.session)
    with pytest.raises(UsageError):
        keeper.come(role="recorder")
    assert not keeper.logs.admits(types.SimpleNamespace(hello={"role": ["recorder"]}), keeper.session)
