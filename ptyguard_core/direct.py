"""Direct: a client's terminal, lent to the daemon, which moves the bytes itself.

A client whose stdin and stdout are one terminal passes that descriptor; the daemon opens the
terminal anew, for a description of its own that does not block, and from then on reads keys and
writes output without the client in between.  The client keeps raw mode, size, signals and
suspension.  Its cursor, who may hold and who is lagged are what they were: only where
Connection would send a frame, this writes.

    client                                      daemon
    lend, with the descriptors         ->       stops sending output, completes the frame
    writes all it was sent             <-       {offset}: so far it was sent
    lend_go                            ->       writes from there on, reads keys
    has it again                       <-       `returned` {offset, typed}: frames go on there

Rule 1: the terminal is one's at a time.  The daemon's from `lend_go` to `returned`, which it
        says before anything that the client has to act upon: the session's end, a fresh screen
        for one that fell behind, the detach key, its own leaving.
Rule 2: a client that was stopped holds its terminal no more, its shell does: nothing is read or
        written until the client has said `lend_go` again.  Nobody tells when one is stopped, so
        it is looked at, before the terminal is touched and at most every SEEN_S.
Rule 3: whoever falls behind is told only when the terminal takes bytes again, as with a socket.
Rule 4: how far the terminal has come stands in memory of the client's (mark.py), which outlives us:
        killed between two writes we leave an exact offset, and within one the word that it is none.
"""

import os

from . import detachkey, frames
from .backend import FAILED, HANGUP, READABLE, WRITABLE
from .errors import PtyguardError, UsageError
from .keywatch import KeyWatch
from .link import close_all
from .mark import Mark

TYPED_BYTES = 64 * 1024         # a read
WRITE_BYTES = 64 * 1024         # a turn: as much as a terminal's buffer takes
SEEN_S = 0.02                   # nobody stops a client and types at its shell in that time

DETACH, ENDED, LAGGED, LEAVING, HUNG_UP, ASKED = "detach", "ended", "lagged", "leaving", "hung_up", "asked"


class DirectTerminal:
    """One lent terminal.  `fd` is ours, `witness` tells whether its client is stopped, `mark` is a Mark.

    `owner` (the daemon) is told: on_typed, on_caught_up; and asked: is_input_full.
    """

    def __init__(self, owner, loop, client, fd, witness, mark, key):
        self.is_live = False            # from `lend_go` on
        self._owner = owner
        self._loop = loop
        self._client = client
        self._fd = fd
        self._witness = witness
        self._mark = mark
        self._keys = KeyWatch(loop, key, lambda data: owner.on_typed(client, data),
                              lambda: self.give_back(DETACH))
        self._seen_at = -SEEN_S
        self._is_paused = False         # rule 2
        self._is_stuck = False          # it takes nothing for now
        loop.watch(fd, self._on_ready, 0, is_urgent=True)

    def go(self, typed, is_pasting=False):
        """It is ours from here on, or again; `typed` was read by the client before, and the end
        of a paste is still to come when it `is_pasting`."""
        self.is_live = True
        self._is_paused = False
        self._mark.end(self._client.cursor.offset)
        if is_pasting:
            self._keys.begin_paste()
        if typed:
            self._keys.feed(typed)
        self._client.flush()
        self.update()

    def give_back(self, reason):
        """It is the client's from here on; idempotent."""
        if self._fd < 0:
            return                      # while what was typed before the detach key was passed on
        cursor = self._client.cursor
        typed = self._keys.release()
        self.close()
        self._client.direct = None
        self._client.send(frames.EVENT, event="returned", reason=reason, offset=cursor.offset,
                          typed=typed.decode("latin-1"), pasting=self._keys.is_pasting)

    def close(self):
        """Its client is gone, or has it back.  Once; `_fd` is -1 from then on."""
        self.is_live = False
        self._keys.release()
        self._loop.forget(self._fd)
        os.close(self._fd)
        self._fd = -1
        self._witness.close()
        self._mark.close()

    def update(self):
        """What it is watched for: the one place that says so."""
        if self._fd < 0:
            return                      # it was given back just now
        bits = 0
        if self.is_live and not self._is_paused:
            bits = HANGUP if self._owner.is_input_full(self._client) else READABLE
            if self._is_stuck:
                bits |= WRITABLE
        self._loop.set_urgent(self._fd, not bits & WRITABLE)    # as rule 5 of connection.py
        self._loop.change(self._fd, bits)

    def write(self, is_writable=False):
        """Write of the output what the terminal takes, a bounded amount.

        `is_writable`: it takes bytes again, so that what it did not take is tried once more.
        """
        client, cursor = self._client, self._client.cursor
        if not self.is_live or self._is_paused or self._is_stuck and not is_writable:
            return
        if client.has_fallen:
            self.give_back(LAGGED)      # what follows is the connection's to tell
            return
        ring = client.session.ring
        left = (ring.end_offset if ring else cursor.offset) - cursor.offset
        if left and self._may_touch():
            left -= self._write_some(ring, min(left, WRITE_BYTES))
        elif self._is_stuck:            # what it did not take is gone
            self._is_stuck = False
            self.update()
        if not self.is_live or self._is_paused or self._is_stuck:
            return
        if left:
            self._loop.soon(client.flush)
            return
        cursor.is_lagged = False
        if not client.is_exit_told:
            self._owner.on_caught_up(client)

    def _write_some(self, ring, count):
        """How many of the next `count` bytes of output the terminal took."""
        cursor = self._client.cursor
        written = 0
        self._mark.begin(cursor.offset)
        try:
            for view in ring.views(cursor.offset, count):
                written += os.write(self._fd, view)
                if written < len(view):
                    break
        except BlockingIOError:
            pass
        except OSError:                 # EIO: it is gone
            self.give_back(HUNG_UP)
            return 0
        cursor.offset += written
        self._mark.end(cursor.offset)
        if self._is_stuck != (written < count):
            self._is_stuck = written < count
            self.update()
        return written

    def _on_ready(self, bits):
        if not self._may_touch():
            return
        if bits & WRITABLE:
            self._client.flush(is_writable=True)
        if self.is_live and bits & (READABLE | FAILED):
            self._read()

    def _read(self):
        try:
            data = os.read(self._fd, TYPED_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self.give_back(HUNG_UP)
            return
        self._keys.feed(data)
        self.update()

    def _may_touch(self):
        """Whether its client runs; if not, nothing is done with it any more (rule 2)."""
        now = self._loop.clock()
        if now - self._seen_at >= SEEN_S:
            if self._witness.is_stopped():
                self._is_paused = True
                self.update()
                return False
            self._seen_at = now
        return True


# -- what a client asks, for requests.py ----------------------------------------------------


def lend(daemon, client, fields, reply):
    """The terminal that was passed, and the file for its mark: stop sending output, and tell up
    to where it was sent."""
    passed = client.take_passed()
    if len(passed) != 2:
        close_all(passed)
        raise UsageError("a terminal and a file are to be passed along")
    terminal, mark = passed
    fd = None
    try:
        if client.cursor is None or not client.cursor.is_interactive or client.direct is not None:
            raise UsageError("a terminal is lent by who is attached, once")
        text = fields.get("key")
        key = detachkey.parse(text) if isinstance(text, str) else None
        fd = daemon.backend.open_lent_terminal(terminal)
        witness = daemon.backend.watch_stops(client.peer_pid)
    except BaseException as error:
        close_all([mark] if fd is None else [mark, fd])
        if not isinstance(error, OSError):
            raise
        raise PtyguardError(f"the terminal cannot be opened anew: {error.strerror or error}") from None
    finally:
        os.close(terminal)
    client.hold_output()
    client.direct = DirectTerminal(daemon, daemon.loop, client, fd, witness, Mark(mark), key)
    reply(offset=client.cursor.offset)


def lend_go(daemon, client, fields, reply):
    """All that was sent has been written: the terminal is ours; also again, after a stop."""
    typed = fields.get("typed")
    typed = typed.encode("latin-1", "ignore") if isinstance(typed, str) else b""
    if client.direct is not None:
        client.direct.go(typed, fields.get("pasting") is True)
    elif typed:                         # given back before this came: we leave
        daemon.on_typed(client, typed)
    reply()


def reclaim(_daemon, client, _fields, reply):
    """The client wants its terminal back; `returned` comes before the reply."""
    client.give_back(ASKED)
    reply()
