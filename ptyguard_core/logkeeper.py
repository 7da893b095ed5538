"""Log keeper: the daemon's care for its sessions' files (`start --log FILE`, `--record FILE`).

A log, and a recording, is written by a process of ours (logwriter.py) that is a client like any other: it
follows its session, and holds the program back as a `run` in a pipe does.  Here it is
decided when such a process is started, and who waits for it.

    how a writer ended           what follows
    by a signal                  the next one, at once; meanwhile the session is not read
    it told of an error          the session is read on; the next try after 1 s, 2 s ... 60 s
    with another status          the same
    all is written, to the end   nothing: the session's output may go now

Rule 1: byte `base + n` of a log is byte n of the output; `base` is kept in the record.
        So the file's size says where a writer goes on, whatever became of the last one.
        Whatever moves that (something was missed, somebody cut the file or wrote into it
        too) is told here, and is with the guard, before another byte is written.
        A recording says itself where it ends (record.py).
Rule 2: one writer a file.  The file's kernel lock sees to that; where files cannot be
        locked, the second one is refused here.
Rule 3: a file that fails costs what it could not take of its own session, and holds nobody.
Rule 4: nothing here touches the file: it may be on a disk that does not answer.
"""

import os

from .errors import Busy, UsageError
from .registry import FILES, LOG, RECORDING

ROLE = "logwriter"             # of a log writer's hello
ROLES = {ROLE: LOG, "recorder": RECORDING}
LOG_WAIT_S = 30.0              # for a writer that was started to be there: a machine may swap
RETURN_WAIT_S = 5.0            # for one that lives to be back after a daemon was replaced
LOOK_S = 0.25                  # between looks whether one that is awaited still lives
RETRY_S = 1.0                  # doubled with each failure ...
RETRY_MAX_S = 60.0             # ... up to this
DEATHS_MAX = 20                # killed before it was there, in a row: then it is a failure
WRITTEN_WAIT_S = 5.0           # for the rest to be written, of those who wait for the end

_BEFORE = {"base": None, "done": None, "missed_to": None}      # in a record, before anything is written


def retry_delay(failures):
    """Seconds before the next try after so many failures in a row."""
    return min(RETRY_MAX_S, RETRY_S * 2 ** min(failures - 1, 16))


def resume_at(base, size, end):
    """The output offset at which to go on in a file of `size` bytes; `end` is the output's.

    `base` None: nothing of this output is in it yet.  Of a file that was cut, what may be
    missing is written again; in one that others wrote into, nothing is skipped twice.
    """
    return 0 if base is None else min(max(0, size - base), end)


def needs_writer(session, field=LOG):
    """Whether there is, or may come, output that its file does not have."""
    log = session.record.get(field)
    if not log or session.ring is None:
        return False
    return session.is_living or log.get("done") != session.ring.end_offset


class Writer:
    """What is known here of the writers of one file; what must outlive us is in the record."""

    def __init__(self, field):
        self.field = field              # LOG or RECORDING
        self.cursor = None              # of the one that follows
        self.given_until = 0.0          # one that lives and does not follow yet has until then
        self.retry_at = 0.0
        self.failures = 0               # in a row
        self.deaths = 0                 # by a signal and before they followed, in a row
        self.reporter = None            # the pid of the one that told of an error
        self.look_timer = None


class LogKeeper:
    """`owner` (the daemon) has `sessions` by id, and is told: on_log_changed(session)."""

    def __init__(self, backend, loop, paths, log, program, owner):
        self._backend = backend
        self._loop = loop
        self._paths = paths
        self._log = log
        self._program = program
        self._owner = owner
        self._writers = {}              # (session id, field) -> Writer
        self._children = {}             # pid -> (session id, field), of those that are ours to reap
        self._waiting = {}              # session id -> [[callable]]: for all to be written
        self._is_over = False

    def stop(self):
        """The daemon leaves: writers live on, and the next one looks after them."""
        self._is_over = True

    # -- what becomes of a session -------------------------------------------------------

    def begin(self, session):
        """It has been started, adopted or restarted, and has not been read yet."""
        for field in FILES:
            if session.record.get(field):
                self._begin(session, field)

    def _begin(self, session, field):
        log = session.record[field]
        if log.get("incarnation") != session.record["incarnation"]:
            log.update(_BEFORE, incarnation=session.record["incarnation"])   # another ring
        writer = self._writers.setdefault((session.id, field), Writer(field))
        if writer.cursor is None and needs_writer(session, field):
            self._await(session, writer)
            self._look(session, writer)

    def _writers_of(self, session):
        return [self._writers[session.id, field] for field in FILES if (session.id, field) in self._writers]

    def forget(self, session):
        """It is dropped, with all its output."""
        for writer in self._writers_of(session):
            del self._writers[session.id, writer.field]
            if writer.look_timer is not None:
                writer.look_timer.cancel()
        self._tell_written(session)

    def is_pending(self, session):
        """Whether its output must be kept for its files; one that fails is no reason."""
        return any(needs_writer(session, field) and not session.record[field].get("error") for field in FILES)

    def when_written(self, session, act):
        """Call `act()` once an ended session's files have all of it, cannot have it, or take
        longer than anybody waits for."""
        if not self._writers_of(session) or not self.is_pending(session):
            act()
            return
        entry = [act]
        self._waiting.setdefault(session.id, []).append(entry)

        def give_up():
            if entry in self._waiting.get(session.id, ()):
                self._waiting[session.id].remove(entry)
                act()

        self._loop.after(WRITTEN_WAIT_S, give_up)

    def _tell_written(self, session):
        for (act,) in self._waiting.pop(session.id, ()):
            act()

    def _maybe_tell_written(self, session):
        if not self.is_pending(session):
            self._tell_written(session)

    # -- starting writers ----------------------------------------------------------------

    def _await(self, session, writer):
        """No writer is there, and one will be: nothing is read before, unless it fails."""
        log = session.record[writer.field]
        wait_s = LOG_WAIT_S if log.get("pid") in self._children else RETURN_WAIT_S
        writer.given_until = self._loop.clock() + wait_s
        if session.is_living and not log.get("error"):
            session.awaited_writers.add(writer.field)
        else:
            session.awaited_writers.discard(writer.field)

    def _look(self, session, writer):
        """Is a writer needed, and is none there?  Then start one, or look again in time."""
        if self._writers.get((session.id, writer.field)) is not writer or self._is_over:
            return
        if writer.look_timer is not None:
            writer.look_timer.cancel()
            writer.look_timer = None
        if writer.cursor is not None or not needs_writer(session, writer.field):
            return
        log = session.record[writer.field]
        now = self._loop.clock()
        if now < writer.given_until and self._lives(log):
            again_at = now + LOOK_S
        elif log.get("pid") in self._children:
            # Its disk does not answer, perhaps: another one would only hang beside it.
            self._fail(session, writer, "its writer does not come")
            return                      # on_child_end comes back here, whenever that is
        elif now < writer.retry_at:
            again_at = writer.retry_at
        else:
            self._launch(session, writer)
            again_at = now + LOOK_S
        writer.look_timer = self._loop.at(again_at, lambda: self._look(session, writer))

    def _lives(self, log):
        if log.get("pid") in self._children:
            return True
        return bool(log.get("pid")) and self._backend.signal_process(
            log["pid"], log.get("pid_start"), 0)

    def _launch(self, session, writer):
        interpreter, binary = self._program
        argv = [interpreter, "-I", "-S", binary, "__logwriter", self._paths.root, session.id]
        argv += [] if writer.field == LOG else [writer.field]
        environment = {name: os.environ[name] for name in ("HOME", "PATH", "LANG")
                       if name in os.environ}
        try:
            pid = self._backend.begin_launch(argv, environment, (), self._paths.daemon_log)
        except OSError as error:
            self._fail(session, writer, f"its writer cannot be started: {error.strerror}")
            return
        self._children[pid] = session.id, writer.field
        writer.given_until = self._loop.clock() + LOG_WAIT_S
        self._note_process(session, writer, pid)
        self._log(f"{writer.field}_writer_started", session=session.id, pid=pid)
        self._owner.on_log_changed(session)

    def _note_process(self, session, writer, pid):
        """Who writes, so that the next daemon knows whether it still does."""
        try:
            start = self._backend.process_start(pid)
        except OSError:
            start = None
        session.record[writer.field].update(pid=pid, pid_start=start)

    def on_child_end(self, pid, raw):
        """A child of the daemon's has ended; most are none of ours."""
        id_, field = self._children.pop(pid, (None, None))
        session, writer = self._owner.sessions.get(id_), self._writers.get((id_, field))
        if session is None or writer is None:
            return
        has_told = writer.reporter == pid
        if has_told:
            writer.reporter = None
        if writer.cursor is not None:
            return                      # another's; or its own, whose connection ends next
        code, _signum = self._backend.decode_status(raw)
        if code is None or code == 0:
            writer.deaths += 1
        if not has_told and (code or writer.deaths > DEATHS_MAX):
            self._fail(session, writer, "its writer does not live" if code is None else
                       f"its writer ended with status {code}")
        self._look(session, writer)

    def _fail(self, session, writer, text):
        """It cannot be written now: nobody waits, and it is tried again (rule 3)."""
        log = session.record[writer.field]
        writer.failures += 1
        writer.deaths = 0
        writer.retry_at = self._loop.clock() + retry_delay(writer.failures)
        if log.get("error") != text:
            self._log(f"{writer.field}_failed", session=session.id, path=log["path"], error=text)
        log["error"] = text
        session.awaited_writers.discard(writer.field)
        self._owner.on_log_changed(session)
        self._maybe_tell_written(session)

    # -- what a writer says --------------------------------------------------------------

    def admits(self, client, session):
        """Whether `client`, which is about to follow, writes one of that session's files.

        Raises Busy for a second one (rule 2).
        """
        field = _field_of(client)
        if field is None:
            return False
        self._writer_of(client, session, field)
        return True

    def _writer_of(self, client, session, field):
        """The Writer that `client` may speak for."""
        writer = self._writers.get((session.id, field))
        if writer is None or not session.record.get(field):
            raise UsageError(f"session {session.name} has no {field}")
        if writer.cursor is not None and _pid(writer.cursor.owner) != _pid(client):
            raise Busy(f"the {field} of session {session.name} is being written by "
                       f"{_pid(writer.cursor.owner)}")
        return writer

    def on_follow(self, session, cursor):
        """Somebody follows from now on: its writer, perhaps."""
        if not cursor.is_log:
            return
        writer = self._writers[session.id, _field_of(cursor.owner)]
        writer.cursor = cursor
        writer.deaths = 0
        session.awaited_writers.discard(writer.field)
        self._note_process(session, writer, _pid(cursor.owner))
        if session.record[writer.field].get("error") and cursor.offset >= session.ring.end_offset:
            self._works_again(session, writer)
        self._owner.on_log_changed(session)

    def on_unfollow(self, session, cursor):
        """Somebody follows no more: the writer that died, perhaps.  Nothing is read before
        the next one is there, or everything it lacks might be overwritten."""
        for writer in self._writers_of(session):
            if writer.cursor is cursor:
                writer.cursor = None
                if needs_writer(session, writer.field):
                    self._await(session, writer)
                    self._loop.soon(lambda gone=writer: self._look(session, gone))

    def place(self, client, session, size, offset, missed):
        """The offset at which to go on in a log of `size` bytes; with `offset` the writer
        says so itself, having missed so many bytes."""
        self._writer_of(client, session, LOG)
        log = session.record[LOG]
        if offset is None:
            offset = resume_at(log.get("base"), size, session.ring.end_offset)
        log["base"] = size - offset
        log["missed"] = (log.get("missed") or 0) + missed
        if missed:
            self._log("log_output_missed", session=session.id, bytes=missed)
        self._owner.on_log_changed(session)
        return offset

    def miss(self, client, session, count, offset):
        """Its recording lacks `count` bytes before `offset`; told twice it is counted once."""
        self._writer_of(client, session, RECORDING)
        recording = session.record[RECORDING]
        if offset > (recording.get("missed_to") or 0):
            recording.update(missed=(recording.get("missed") or 0) + count, missed_to=offset)
            self._log("recording_output_missed", session=session.id, bytes=count)
            self._owner.on_log_changed(session)

    def report(self, client, session, text, field=LOG):
        """A writer could not write and is about to end; without `text` it could again."""
        try:
            writer = self._writer_of(client, session, field)
        except Busy:
            return                      # this one does not, another does
        if text:
            writer.reporter = _pid(client)
            self._fail(session, writer, text)
        else:
            self._works_again(session, writer)
            self._owner.on_log_changed(session)

    def _works_again(self, session, writer):
        log = session.record[writer.field]
        writer.failures = 0
        if log.get("error"):
            log["error"] = None
            self._log(f"{writer.field}_written_again", session=session.id, path=log["path"])

    def finish(self, client, session, offset, field=LOG):
        """All of the output, up to `offset`, is in the file."""
        writer = self._writer_of(client, session, field)
        session.record[field]["done"] = offset
        self._works_again(session, writer)
        self._owner.on_log_changed(session)
        self._maybe_tell_written(session)

    def trouble(self):
        """A line about a file that cannot be written, or None."""
        for session in self._owner.sessions.values():
            for field in FILES:
                if needs_writer(session, field) and session.record[field].get("error"):
                    return (f"the {field} of session {session.name} cannot be written: "
                            + session.record[field]["error"])
        return None


def _field_of(client):
    """What `client` writes, or None: it is no writer."""
    role = client.hello.get("role")
    return ROLES.get(role) if isinstance(role, str) else None


def _pid(client):
    return client.hello.get("pid")
