"""Log writer: the process that appends one session's output to its log file, or to its
recording.

It is a client like any other, one that the daemon starts (logkeeper.py).  It follows the
session from the offset at which the file ends, holds the program back as a pipe would,
goes on over daemons' deaths, and leaves when all is written.

Rule 1: byte `base + n` of a log is byte n of the output.  What would break that (output
        that is gone, a file that was cut or that others write into) is told to the daemon
        first and written upon afterwards, so that the next writer knows where it is.
        A recording says itself where it ends (record.py).
Rule 2: nothing is started for its sake.  With no daemon on purpose it leaves; the next
        daemon starts another.
Rule 3: it does not wait for a disk.  What cannot be written is told, and it leaves.

What is not handled: a file that is renamed or removed is written on, since it is the open
file that counts; the next writer opens the path again.
"""

import os
import time

from . import guardwire as wire
from .channel import Channel
from .errors import PtyguardError, Unreachable
from .journal import Journal
from .logfile import CannotWrite, append, open_log, size_of
from .recorder import Recorder, WritingFollower, lock_file
from .supervise import START_LIMIT_S, ask_guard

# Exit statuses; Python's own for a traceback is 1 too.
WRITTEN = LEFT = 0
REPORTED = 1
LOOK_S = 0.02
# The guard's words for a daemon that comes back by itself.
_ON_ITS_WAY = frozenset(("dead", "starting", "ready", "serving", "quiescing", "depositing"))


class PatientChannel(Channel):
    """A connection that starts nobody, and waits for a daemon that is on its way."""

    watches_for_stalls = False          # it is the daemon's own, and follows for days

    def connect(self, timeout_s=START_LIMIT_S):
        """(Re)connect.  Unreachable when no daemon is to be expected."""
        deadline = time.monotonic() + timeout_s
        while True:
            # Asked first: merely to connect would make a resting guard start a daemon.
            state = self._daemon_state()
            if state is not None and state not in _ON_ITS_WAY:
                raise Unreachable(f"the daemon is {state}")
            try:
                super().connect(timeout_s)
                return
            except Unreachable:
                if state is None or time.monotonic() > deadline:
                    raise
                time.sleep(LOOK_S)

    def _daemon_state(self):
        """As the guard knows it; None without a guard: a daemon may serve all the same."""
        state = ask_guard(self._backend, self._paths, wire.STATE)
        return None if state is None else state.text("daemon_state")


class Writer:
    """One session's file, from the first look to the last byte.

    A subclass says what it is: its `FIELD` in a session's facts, its `ROLE` in the hello, what
    `ACCESS` it needs, and how it writes: `_follow(facts of the session)`, `_report(text)`.
    """

    FIELD = ROLE = ""
    ACCESS = os.O_WRONLY

    def __init__(self, backend, paths, session_id, journal):
        self._backend = backend
        self._paths = paths
        self._session_id = session_id
        self._target = "@" + session_id
        self._journal = journal
        self._channel = None
        self._fd = -1

    def run(self):
        """Write all of it; the exit status."""
        try:
            self._channel = PatientChannel(self._backend, self._paths, self.ROLE, may_start=False)
            session = self._channel.request("resolve", target=self._target)["session"]
            if session.get(self.FIELD) is None:
                return WRITTEN
            self._open(session[self.FIELD]["path"])
            self._follow(session)
            return WRITTEN
        except CannotWrite as error:
            self._report(str(error))
            return REPORTED
        except PtyguardError as error:
            # No daemon, no session any more, another writer: who needs one starts one.
            self._journal("log_writer_left", session=self._session_id, reason=error.message)
            return LEFT

    def _open(self, path):
        path = path.encode("utf-8", "surrogateescape")
        try:
            self._fd = open_log(path, self.ACCESS)
        except OSError as error:
            raise CannotWrite(error.strerror) from None
        lock_file(self._backend, self._fd)

    def _follow(self, session):
        raise NotImplementedError

    def _report(self, text):
        raise NotImplementedError

    def _tell(self, verb, **fields):
        # On another connection: a burst of output is being read on the one that follows.
        with self._channel.another("log") as channel:
            channel.request(verb, target=self._target, **fields)


class LogWriter(Writer):
    """A log: the bytes as they are."""

    FIELD, ROLE = "log", "logwriter"

    def __init__(self, *args):
        super().__init__(*args)
        self._follower = None
        self._base = 0
        self._missed = 0                # bytes, not told of yet

    def _follow(self, session):
        size = size_of(self._fd)
        offset = self._channel.request("log_at", target=self._target, size=size)["offset"]
        self._base = size - offset
        self._follower = WritingFollower(self._channel, self._target, offset, hold="always",
                                         on_gap=self._note_gap)
        for offset, view in self._follower.pieces():
            self._write(offset, view)
            self._follower.wrote(offset + len(view))
        self._channel.request("log_done", target=self._target, offset=self._follower.offset)

    def _note_gap(self, start, end):
        self._missed += end - start

    def _write(self, offset, view):
        size = size_of(self._fd)
        if size - offset != self._base:
            self._settle(size, offset)
        append(self._fd, view)
        log = self._follower.session.get("log") or {}
        if log.get("error"):            # as it stood when we came
            log["error"] = None
            self._report(None)

    def _settle(self, size, offset):
        """Rule 1: another base from here on."""
        missed, self._missed = self._missed, 0
        self._tell("log_at", size=size, offset=offset, missed=missed)
        self._base = size - offset

    def _report(self, text):
        try:
            self._tell("log_error", text=text)
        except PtyguardError:
            pass                        # nobody is there to be told


class RecordingWriter(Writer):
    """A recording: events, and where it ends (record.py)."""

    FIELD, ROLE = "recording", "recorder"
    ACCESS = os.O_RDWR

    def _follow(self, session):
        told = self._channel.request("info", target=self._target)["session"].get("environment")
        self._recorder = Recorder(self._channel, session, self._fd, hold="always", on_gap=self._note_gap,
                                  on_written=self._note_written, env=told or {},
                                  wants_input=bool(session["recording"].get("input")))
        self._recorder.run()
        self._channel.request("recording", target=self._target, done=self._recorder.offset)

    def _note_gap(self, start, end):
        self._tell("recording", missed=end - start, offset=end)

    def _note_written(self):
        recording = self._recorder.session.get("recording") or {}
        if recording.get("error"):      # as it stood when we came
            recording["error"] = None
            self._report(None)

    def _report(self, text):
        try:
            self._tell("recording", error=text or "")
        except PtyguardError:
            pass                        # nobody is there to be told


_WRITERS = {writer.FIELD: writer for writer in (LogWriter, RecordingWriter)}


def main(backend, argv, binary):
    """The writer's process: `argv` is [root, session id], and what it writes unless a log."""
    root, session_id, *field = argv
    paths = backend.find_paths(root)
    journal = Journal(paths.daemon_log, "logwriter", time.time)
    journal.redirect(2)
    copy_lock = backend.try_lock(binary, "log writer", shared=True)
    backend.ignore_signals(("SIGHUP", "SIGINT", "SIGQUIT", "SIGPIPE", "SIGTSTP"))
    writer = _WRITERS[field[0] if field else LogWriter.FIELD]
    status = writer(backend, paths, session_id, journal).run()
    del copy_lock
    return status
