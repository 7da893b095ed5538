"""Log keeper: the daemon's care for its sessions' log files (`start --log FILE`).

A log is written by a process of ours (logwriter.py) that is a client like any other: it
follows its session, and holds the program back as a `run` in a pipe does.  Here it is
decided when such a process is started, and who waits for it.

    how a writer ended           what follows
    by a signal                  the next one, at once; meanwhile the session is not read
    it told of an error          the session is read on; the next try after 1 s, 2 s ... 60 s
    with another status          the same
    all is written, to the end   nothing: the session's output may go now

Rule 1: byte `base + n` of the file is byte n of the output; `base` is kept in the record.
        So the file's size says where a writer goes on, whatever became of the last one.
        Whatever moves that (something was missed, somebody cut the file or wrote into it
        too) is told here, and is with the guard, before another byte is written.
Rule 2: one writer a session.  The file's kernel lock sees to that; where files cannot be
        locked, the second one is refused here.
Rule 3: a log that fails costs what it could not take of its own session, and holds nobody.
Rule 4: nothing here touches the file: it may be on a disk that does not answer.
"""

import os

from .errors import Busy, UsageError

ROLE = "logwriter"             # of a writer's hello
LOG_WAIT_S = 30.0              # for a writer that was started to be there: a machine may swap
RETURN_WAIT_S = 5.0            # for one that lives to be back after a daemon was replaced
LOOK_S = 0.25                  # between looks whether one that is awaited still lives
RETRY_S = 1.0                  # doubled with each failure ...
RETRY_MAX_S = 60.0             # ... up to this
DEATHS_MAX = 20                # killed before it was there, in a row: then it is a failure
WRITTEN_WAIT_S = 5.0           # for the rest to be written, of those who wait for the end

_BEFORE = {"base": None, "done": None}         # in a record, before anything is written


def retry_delay(failures):
    """Seconds before the next try after so many failures in a row."""
    return min(RETRY_MAX_S, RETRY_S * 2 ** min(failures - 1, 16))


def resume_at(base, size, end):
    """The output offset at which to go on in a file of `size` bytes; `end` is the output's.

    `base` None: nothing of this output is in it yet.  Of a file that was cut, what may be
    missing is written again; in one that others wrote into, nothing is skipped twice.
    """
    return 0 if base is None else min(max(0, size - base), end)


def needs_writer(session):
    """Whether there is, or may come, output that its log does not have."""
    log = session.record.get("log")
    if not log or session.ring is None:
        return False
    return session.is_living or log.get("done") != session.ring.end_offset


class Writer:
    """What is known here of one session's writers; what must outlive us is in the record."""

    def __init__(self):
        self.cursor = None              # of the one that follows
        self.given_until = 0.0          # one that lives and does not follow yet has until then
        self.retry_at = 0.0
        self.failures = 0               # in a row
        self.deaths = 0                 # by a signal and before they followed, in a row
        self.reporter = None            # the pid of the one that told of an error
        self.look_timer = None
        self.waiting = []               # [callable]: for all to be written


class LogKeeper:
    """`owner` (the daemon) has `sessions` by id, and is told: on_log_changed(session)."""

    def __init__(self, backend, loop, paths, log, program, owner):
        self._backend = backend
        self._loop = loop
        self._paths = paths
        self._log = log
        self._program = program
        self._owner = owner
        self._writers = {}              # session id -> Writer
        self._children = {}             # pid -> session id, of those that are ours to reap
        self._is_over = False

    def stop(self):
        """The daemon leaves: writers live on, and the next one looks after them."""
        self._is_over = True

    # -- what becomes of a session -------------------------------------------------------

    def begin(self, session):
        """It has been started, adopted or restarted, and has not been read yet."""
        log = session.record.get("log")
        if not log:
            return
        if log.get("incarnation") != session.record["incarnation"]:
            log.update(_BEFORE, incarnation=session.record["incarnation"])   # another ring
        writer = self._writers.setdefault(session.id, Writer())
        if writer.cursor is None and needs_writer(session):
            self._await(session, writer)
            self._look(session)

    def forget(self, session):
        """It is dropped, with all its output."""
        writer = self._writers.pop(session.id, None)
        if writer is not None:
            if writer.look_timer is not None:
                writer.look_timer.cancel()
            self._tell_written(writer)

    def is_pending(self, session):
        """Whether its output must be kept for its log; a log that fails is no reason."""
        return needs_writer(session) and not session.record["log"].get("error")

    def when_written(self, session, act):
        """Call `act()` once an ended session's log has all of it, cannot have it, or takes
        longer than anybody waits for."""
        writer = self._writers.get(session.id)
        if writer is None or not self.is_pending(session):
            act()
            return
        entry = [act]
        writer.waiting.append(entry)

        def give_up():
            if entry in writer.waiting:
                writer.waiting.remove(entry)
                act()

        self._loop.after(WRITTEN_WAIT_S, give_up)

    @staticmethod
    def _tell_written(writer):
        waiting, writer.waiting = writer.waiting, []
        for (act,) in waiting:
            act()

    # -- starting writers ----------------------------------------------------------------

    def _await(self, session, writer):
        """No writer is there, and one will be: nothing is read before, unless it fails."""
        log = session.record["log"]
        wait_s = LOG_WAIT_S if log.get("pid") in self._children else RETURN_WAIT_S
        writer.given_until = self._loop.clock() + wait_s
        session.awaits_log = session.is_living and not log.get("error")

    def _look(self, session):
        """Is a writer needed, and is none there?  Then start one, or look again in time."""
        writer = self._writers.get(session.id)
        if writer is None or self._is_over:
            return
        if writer.look_timer is not None:
            writer.look_timer.cancel()
            writer.look_timer = None
        if writer.cursor is not None or not needs_writer(session):
            return
        log = session.record["log"]
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
        writer.look_timer = self._loop.at(again_at, lambda: self._look(session))

    def _lives(self, log):
        if log.get("pid") in self._children:
            return True
        return bool(log.get("pid")) and self._backend.signal_process(
            log["pid"], log.get("pid_start"), 0)

    def _launch(self, session, writer):
        interpreter, binary = self._program
        argv = [interpreter, "-I", "-S", binary, "__logwriter", self._paths.root, session.id]
        environment = {name: os.environ[name] for name in ("HOME", "PATH", "LANG")
                       if name in os.environ}
        try:
            pid = self._backend.begin_launch(argv, environment, (), self._paths.daemon_log)
        except OSError as error:
            self._fail(session, writer, f"its writer cannot be started: {error.strerror}")
            return
        self._children[pid] = session.id
        writer.given_until = self._loop.clock() + LOG_WAIT_S
        self._note_process(session, pid)
        self._log("log_writer_started", session=session.id, pid=pid)
        self._owner.on_log_changed(session)

    def _note_process(self, session, pid):
        """Who writes, so that the next daemon knows whether it still does."""
        try:
            start = self._backend.process_start(pid)
        except OSError:
            start = None
        session.record["log"].update(pid=pid, pid_start=start)

    def on_child_end(self, pid, raw):
        """A child of the daemon's has ended; most are none of ours."""
        session = self._owner.sessions.get(self._children.pop(pid, None))
        writer = self._writers.get(session.id) if session is not None else None
        if writer is None:
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
        self._look(session)

    def _fail(self, session, writer, text):
        """It cannot be written now: nobody waits, and it is tried again (rule 3)."""
        log = session.record["log"]
        writer.failures += 1
        writer.deaths = 0
        writer.retry_at = self._loop.clock() + retry_delay(writer.failures)
        if log.get("error") != text:
            self._log("log_failed", session=session.id, path=log["path"], error=text)
        log["error"] = text
        session.awaits_log = False
        self._owner.on_log_changed(session)
        self._tell_written(writer)

    # -- what a writer says --------------------------------------------------------------

    def admits(self, client, session):
        """Whether `client`, which is about to follow, is that session's writer.

        Raises Busy for a second one (rule 2).
        """
        if client.hello.get("role") != ROLE:
            return False
        self._writer_of(client, session)
        return True

    def _writer_of(self, client, session):
        """The Writer that `client` may speak for."""
        writer = self._writers.get(session.id)
        if writer is None or not session.record.get("log"):
            raise UsageError(f"session {session.name} has no log")
        if writer.cursor is not None and _pid(writer.cursor.owner) != _pid(client):
            raise Busy(f"the log of session {session.name} is being written by "
                       f"{_pid(writer.cursor.owner)}")
        return writer

    def on_follow(self, session, cursor):
        """Somebody follows from now on: its writer, perhaps."""
        if not cursor.is_log:
            return
        writer = self._writers[session.id]
        writer.cursor = cursor
        writer.deaths = 0
        session.awaits_log = False
        self._note_process(session, _pid(cursor.owner))
        if session.record["log"].get("error") and cursor.offset >= session.ring.end_offset:
            self._works_again(session, writer)
        self._owner.on_log_changed(session)

    def on_unfollow(self, session, cursor):
        """Somebody follows no more: the writer that died, perhaps.  Nothing is read before
        the next one is there, or everything it lacks might be overwritten."""
        writer = self._writers.get(session.id)
        if writer is None or writer.cursor is not cursor:
            return
        writer.cursor = None
        if needs_writer(session):
            self._await(session, writer)
            self._loop.soon(lambda: self._look(session))

    def place(self, client, session, size, offset, missed):
        """The offset at which to go on in a file of `size` bytes; with `offset` the writer
        says so itself, having missed so many bytes."""
        self._writer_of(client, session)
        log = session.record["log"]
        if offset is None:
            offset = resume_at(log.get("base"), size, session.ring.end_offset)
        log["base"] = size - offset
        log["missed"] = log.get("missed", 0) + missed
        if missed:
            self._log("log_output_missed", session=session.id, bytes=missed)
        self._owner.on_log_changed(session)
        return offset

    def report(self, client, session, text):
        """A writer could not write and is about to end; without `text` it could again."""
        try:
            writer = self._writer_of(client, session)
        except Busy:
            return                      # this one does not, another does
        if text:
            writer.reporter = _pid(client)
            self._fail(session, writer, text)
        else:
            self._works_again(session, writer)
            self._owner.on_log_changed(session)

    def _works_again(self, session, writer):
        log = session.record["log"]
        writer.failures = 0
        if log.get("error"):
            log["error"] = None
            self._log("log_written_again", session=session.id, path=log["path"])

    def finish(self, client, session, offset):
        """All of the output, up to `offset`, is in the file."""
        writer = self._writer_of(client, session)
        session.record["log"]["done"] = offset
        self._works_again(session, writer)
        self._owner.on_log_changed(session)
        if not needs_writer(session):
            self._tell_written(writer)

    def trouble(self):
        """A line about a log that cannot be written, or None."""
        for session in self._owner.sessions.values():
            if needs_writer(session) and session.record["log"].get("error"):
                return (f"the log of session {session.name} cannot be written: "
                        + session.record["log"]["error"])
        return None


def _pid(client):
    return client.hello.get("pid")
