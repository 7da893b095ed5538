"""Recorder: one session followed into a recording, by whoever has the file open.

That is the helper of `--record` (logwriter.py), which holds the program back, or the verb
`record`, which does not unless it is told to.  The file's last position says where to go on
(record.py), so that either may be killed at any moment, as may the daemon.

Rule 1: everything stands in its place.  A new size and what was typed come as events that
        name the output offset at which they were; they wait here until the output has come
        that far, and a piece of output is cut there.
Rule 2: one burst is one write.
"""

import collections
import os
import time

from . import record
from .channel import Follower
from .logfile import CannotWrite, append, find_end, locate, open_log, size_of

LOCK_WAIT_S = 5.0              # for a predecessor that was killed to be gone entirely
LOOK_S = 0.02
TELL_BYTES = 8 * 1024          # less than the smallest ring keeps, or it would wait for ever

# What happened at an output offset: `act` is a method's name of record.Encoder.
_Note = collections.namedtuple("_Note", "offset act value")


def lock_file(backend, fd):
    """Be the only one who writes to the open file; CannotWrite when somebody else does."""
    deadline = time.monotonic() + LOCK_WAIT_S
    # None: this file system has no locks, and the daemon lets one writer in.
    while backend.lock_open_file(fd) is False:
        if time.monotonic() > deadline:
            raise CannotWrite("somebody else writes it, and has locked it")
        time.sleep(LOOK_S)


def open_recording(backend, path, session):
    """A descriptor of the file for a recording of `session`, ours alone.

    Raises CannotWrite, also for a recording of another session: that file is left as it is.
    """
    try:
        fd = open_log(locate(path), os.O_RDWR)
    except OSError as error:
        raise CannotWrite(error.strerror) from None
    lock_file(backend, fd)
    _check_session(find_end(fd), session)
    return fd


def _check_session(found, session):
    if found is not None and found[0].session != session["id"]:
        raise CannotWrite(f"it is a recording of another session (@{found[0].session})")
    return found


class Stopped(Exception):
    """A signal asked for the end."""


def stop_on_signals(backend):
    """From now on SIGINT, SIGTERM and SIGHUP raise Stopped."""
    def stop():
        raise Stopped

    backend.watch_signals(("SIGINT", "SIGTERM", "SIGHUP"), stop)


class WritingFollower(Follower):
    """A session's output for who puts it into a file; all before `start` is there.

    What has been sent and not written is lost if the writer is killed: until it says what is
    written, the daemon keeps it.
    """

    def __init__(self, channel, target, start, hold, on_gap=None):
        self._told = self._written = start if isinstance(start, int) else None
        super().__init__(channel, target, start, hold, on_gap)

    def _attach(self, target, start, **more):
        self._told = self._written
        return super()._attach(target, start, **dict({"written": self._written}, **more))

    def wrote(self, offset):
        """All before this is in the file."""
        self._written = offset
        if self._told is None or offset - self._told >= TELL_BYTES:
            self._told = offset
            try:
                self.channel.ask("written", offset=offset)
            except ConnectionError:
                pass                    # the next burst notices, and attaches anew


class _Source(WritingFollower):
    """A session's output, and what happened beside it.

    `size`: that of the terminal at the offset where it begins, if that is known.
    """

    def __init__(self, channel, target, start, hold, on_gap, wants_input, incarnation, size):
        self.notes = collections.deque()        # in the order of their offsets
        self._wanted = {"input": True} if wants_input else {}
        self._size = size                       # behind all notes
        self._incarnation = {} if incarnation is None else {"incarnation": incarnation}
        super().__init__(channel, target, start, hold, on_gap)

    def _attach(self, target, start, **more):
        ok = super()._attach(target, start, **dict(dict(self._incarnation, **self._wanted), **more))
        size = self.session["size"]
        now = size["cols"], size["rows"]
        if now != self._size:
            self._catch_up(now)
        return ok

    def _catch_up(self, now):
        """Take note of the changes of size that we were not there to be told of."""
        with self.channel.another("log") as other:
            told, _ = other.read(target="@" + self.session["id"], past=True, limit=0)
        # A daemon of before the first screens knows the last one only.
        sizes = (told.get("past") or {}).get("sizes") or [[told["end"], *now]]
        for offset, *size in sizes:
            if offset >= self.offset or self._size is None:
                self._note_size(tuple(size), max(offset, self.offset))
        self._note_size(now, told["end"])

    def _on_event(self, event):
        if event["event"] == "resized":
            self._note_size(tuple(event["size"]), event.get("offset"))
        elif event["event"] == "input":
            self._note(event["offset"], "input", event["data"].encode("utf-8", "surrogateescape"))
        else:
            super()._on_event(event)

    def _note_size(self, size, offset):
        if size != self._size:
            self._size = size
            self._note(offset, "resize", size)

    def _note(self, offset, act, value):
        least = self.notes[-1].offset if self.notes else 0
        self.notes.append(_Note(max(least, self.offset if offset is None else offset), act, value))

    def size_here(self):
        """The size of the terminal at the offset where it begins."""
        size = self._size
        for note in self.notes:
            if note.act == "resize":
                if note.offset > self.offset:
                    break
                size = note.value
        return size


class Recorder:
    """Appends to the open and locked file `fd` what happens in a session from now on."""

    def __init__(self, channel, session, fd, hold="never", on_gap=None, on_written=None, wants_input=False,
                 look=None, env=()):
        """`session`: its facts.  A file that has nothing yet begins at output offset 0, or where
        `look() -> (output offset, size, bytes that paint what a terminal shows there)` says;
        another goes on where it ends.

        `on_gap(from, to)` is told of output that is missing, `on_written()` of each write.
        """
        self._channel = channel
        self._fd = fd
        self._on_gap = on_gap
        self._on_written = on_written
        self._env = env
        self._target = "@" + session["id"]
        self._encoder = None
        self._written = None                    # the Position at the end of the file
        found = _check_session(find_end(fd), session)
        is_going_on = found is not None and found[0].incarnation == session["incarnation"]
        start, size, screen = (found[0].offset, found[0].size, b"") if is_going_on else \
            (0, None, b"") if found is not None or look is None else look()
        self._source = _Source(channel, self._target, start, hold, self._note_gap, wants_input,
                               session["incarnation"] if is_going_on else None, size)
        if found is None:
            self._begin(size or self._source.size_here(), screen)
        else:
            self._go_on(*found)

    @property
    def session(self):
        """Its facts, as they were when we came."""
        return self._source.session

    @property
    def offset(self):
        """All output before this is in the file, but for the beginning of a character."""
        return self._source.offset

    def run(self):
        """Record until the session's end.  Raises CannotWrite, and what channel.py raises."""
        while self._source.end is None:
            self._channel.wait_answer(None)
            for offset, view in self._source.burst():
                self._take(offset, view)
            self._settle(self._source.offset)
            self._write()
        self._encoder.end(self._now())
        self._write()

    # -- the file -----------------------------------------------------------------------------

    def _begin(self, size, screen):
        """A file that holds nothing yet."""
        position = record.Position(0.0, self.session["id"], self.session["incarnation"], self._source.offset,
                                   size)
        self._cut(0)
        self._started_at = time.monotonic()
        self._encoder = record.Encoder(position)
        self._written = position
        data = self._beginning()
        if screen:
            self._encoder.paint(screen)
            data += self._encoder.taken()
        self._append(data)

    def _beginning(self):
        """A header, from which the time that has passed is as it is here."""
        return record.beginning(self._written.size, time.time() - self._written.time, self._written,
                                self.session["name"], self._env)

    def _go_on(self, position, end):
        """A file that has something: what a killed writer left unfinished goes."""
        self._cut(end)
        with open(os.dup(self._fd), "rb") as file:
            file.seek(0)
            began_at = record.Recording(file).header.get("timestamp")
        so_far = time.time() - began_at if isinstance(began_at, (int, float)) else 0.0
        self._started_at = time.monotonic() - max(position.time, so_far)
        self._encoder = record.Encoder(position)
        self._written = position
        if position.incarnation != self.session["incarnation"]:
            self._encoder.begin_anew(self.session["incarnation"], self._now())

    def _cut(self, end):
        try:
            os.ftruncate(self._fd, end)
        except OSError as error:
            raise CannotWrite(error.strerror) from None

    def _append(self, data):
        append(self._fd, data)
        self._written = self._encoder.position
        if self._source.session["incarnation"] == self._written.incarnation:
            self._source.wrote(self._written.offset)

    def _write(self):
        if not self._encoder.has_more:
            return
        # Somebody may have emptied it: what follows is to be a recording again.
        is_empty = size_of(self._fd) == 0
        self._append((self._beginning() if is_empty else b"") + self._encoder.taken())
        if self._on_written is not None:
            self._on_written()

    # -- what happens ---------------------------------------------------------------------------

    def _now(self):
        return time.monotonic() - self._started_at

    def _note_gap(self, start, end):
        self._settle(start)
        self._encoder.skip(end, self._now())
        if self._on_gap is not None:
            self._on_gap(start, end)

    def _take(self, offset, view):
        now = self._now()
        notes = self._source.notes
        while notes and notes[0].offset < offset + len(view):
            before = max(0, notes[0].offset - offset)
            if before:
                self._encoder.output(view[:before], now)
                view, offset = view[before:], offset + before
            self._apply(notes.popleft(), now)
        self._encoder.output(view, now)

    def _settle(self, offset):
        """What happened up to there is due, whether output follows or not."""
        notes = self._source.notes
        while notes and notes[0].offset <= offset:
            self._apply(notes.popleft(), self._now())

    def _apply(self, note, now):
        getattr(self._encoder, note.act)(note.value, now)
