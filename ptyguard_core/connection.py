"""Connection: one client of the daemon, as a socket, a decoder and a cursor.

There is no output queue for terminal output: the ring is the queue.  What is sent
is always one of three things, in this order:

1. the rest of an OUTPUT frame already begun, straight from the ring's memory;
2. control frames and history waiting in `out`;
3. a new OUTPUT frame from the cursor, header and ring in one sendmsg.

The output itself goes another way while the client's terminal is lent to us: see direct.py.

Rule 1: framing never breaks.  Before output overwrites the unsent rest of a begun
        frame, that rest (one frame at most) is copied aside.
Rule 2: it never blocks, and one turn sends a bounded amount.
Rule 3: a client that does not read its replies, or has asked very much that is not
        answered yet, is not listened to.
Rule 4: of what it asks, a bounded number of frames is acted on at a time, and the rest at
        the end of the turns that follow; until then nothing more of it is read.
Rule 5: a client is urgent (loop.py) but while it has not taken what is there for it: then it
        is one of many that streams are sent to.
"""

import os
from _socket import SHUT_WR             # `socket` costs 7 ms
from collections import deque

from . import frames
from .backend import FAILED, HANGUP, READABLE, WRITABLE
from .direct import ASKED
from .errors import ProtocolError
from .link import close_all

FRAMES_A_TURN = 8               # half a MiB; then others have their turn
ACTS_A_TURN = 16                # rule 4
RECEIVE_BYTES = 64 * 1024
OUT_MAX = 1 << 20               # rule 3
PENDING_MAX = 2048              # requests that are not answered yet: more than there are sessions


CLOSED_BY_CLIENT = "closed by the client"
_LOST = ("sending failed", "receiving failed")


def is_hangup(reason):
    """Whether a connection that closed for that reason was left by its client, or lost it."""
    return reason == CLOSED_BY_CLIENT or reason.startswith(_LOST)


class Connection:
    """`owner` (the daemon) is told: on_frame, on_buffered, on_progress,
    on_caught_up, on_gap, on_protocol_error, on_close; and asked: is_input_full."""

    def __init__(self, owner, loop, sock, peer_pid=0):
        self.is_open = True
        self.has_said_hello = False
        self.hello = {}
        self.session = None             # the one that is read here
        self.cursor = None
        self.waits = []                 # (session id, callable): ends that are awaited here
        self.sends = None               # the send whose body is awaited here
        self.pending = 0                # requests that wait for their answer
        self.hello_timer = None         # until when it has to have said hello
        self.awaited_by = None          # the session that waits for this one to come and read
        self.ticket = os.urandom(8).hex()       # by which another connection means this one
        self.direct = None              # its terminal, while that is lent to us
        self.peer_pid = peer_pid        # by the kernel, or 0
        self.is_exit_told = False
        self.has_fallen = False         # output it has not read has been overwritten
        self.started_at = loop.clock()
        self._owner = owner
        self._loop = loop
        self._sock = sock
        self._passed = []               # descriptors that came and were not asked about yet
        self._decoder = frames.Decoder(frames.FROM_CLIENT)
        self._has_said_farewell = False
        self._arrived = None            # frames of one receive that are not acted on yet
        self._is_going_on = False       # with those, at the end of this turn
        self._out = deque()
        self._out_bytes = 0
        self._frame_head = b""          # unsent header bytes of the begun OUTPUT frame
        self._frame_end = None          # where that frame ends; None: none is begun
        sock.setblocking(False)
        loop.watch(sock.fileno(), self._on_ready, READABLE, is_urgent=True)

    @property
    def buffered_bytes(self):
        """Memory that this client costs, rings apart."""
        return self._decoder.buffered_bytes + self._out_bytes

    def accept_hello(self, fields):
        """From here on frames may have their full size."""
        self.has_said_hello = True
        self._hello_is_over()
        # What others are told of it is bounded.
        pid, role = fields.get("pid"), fields.get("role")
        self.hello = {"pid": pid if type(pid) is int else None,
                      "role": role[:40] if isinstance(role, str) else None}
        self._decoder.control_max = frames.CONTROL_BYTES_MAX

    def _hello_is_over(self):
        if self.hello_timer is not None:
            self.hello_timer.cancel()
            self.hello_timer = None

    # -- sending -------------------------------------------------------------------------

    def send(self, type_, **fields):
        """Queue one control frame; it goes out at the end of this turn at the latest."""
        self._queue(frames.control(type_, fields))

    def send_raw(self, type_, data):
        """Queue bytes as raw frames (not OUTPUT); `data` is copied."""
        self._queue(frames.raw_frames(type_, data))

    def _queue(self, data):
        if not self.is_open or self._has_said_farewell:
            return
        if not self._out and self._frame_end is None:
            self._loop.soon(self.flush)
        self._out.append(memoryview(data))
        self._out_bytes += len(data)

    def follow(self, session, cursor):
        """Read `session` from `cursor` on; the cursor is ours now."""
        self.session, self.cursor = session, cursor
        cursor.owner = self
        self.is_exit_told = False
        self.has_fallen = cursor.offset < session.ring.start_offset

    def unfollow(self):
        """Stop reading; the frame that is begun is still completed."""
        self.give_back(ASKED)
        if self.cursor is not None:
            self._copy_aside()
        self.session = self.cursor = None

    def hold_output(self):
        """Complete the frame that is begun; what comes now stands behind it."""
        self._copy_aside()

    def give_back(self, reason):
        """The terminal that was lent is the client's again, if it was lent; idempotent."""
        if self.direct is not None:
            self.direct.give_back(reason)

    def before_overwrite(self, start):
        """Everything below offset `start` is about to be overwritten (rule 1)."""
        if self.cursor.offset < start:
            if self._frame_end is not None:
                self._copy_aside()
            if self.cursor.offset < start:
                self.has_fallen = True

    def _copy_aside(self):
        if self._frame_end is None:
            return
        rest = self._frame_head + self.session.ring.read(
            self.cursor.offset, self._frame_end - self.cursor.offset)
        self._out.appendleft(memoryview(rest))
        self._out_bytes += len(rest)
        self.cursor.offset = self._frame_end
        self._frame_end = None

    def flush(self, is_writable=False):
        """Send what the socket takes, a bounded amount; `is_writable` is the lent terminal."""
        if not self.is_open or self._has_said_farewell:
            return
        before = self.cursor.offset if self.cursor else 0
        if self.direct is not None and self._frame_end is None and not self._out:
            self.direct.write(is_writable)      # and nothing else is to be sent
            if self.cursor is not None and self.cursor.offset != before:
                self._owner.on_progress(self)
            return
        try:
            is_more = self._send_some()
        except OSError as error:
            self.close(f"sending failed: {error.strerror}")
            return
        if is_more is not None:
            self._watch_for(self._interest(is_more))
            self._maybe_go_on()
        if self.direct is not None:
            self.direct.write(is_writable)
        if self.cursor and self.cursor.offset != before:
            self._owner.on_progress(self)
        if self.is_open:
            self._owner.on_buffered(self)

    def _send_some(self):
        """True when more waits for the socket, None when this connection closed."""
        try:
            for _ in range(FRAMES_A_TURN):
                if self._frame_end is not None:
                    self._send_frame()
                elif self._out:
                    self._send_out()
                elif not self._begin():
                    return False if self.is_open else None
        except BlockingIOError:
            pass
        return True

    def _send_frame(self):
        cursor = self.cursor
        views = self.session.ring.views(cursor.offset, self._frame_end - cursor.offset)
        sent = self._sock.sendmsg([self._frame_head, *views])
        in_head = min(sent, len(self._frame_head))
        self._frame_head = self._frame_head[in_head:]
        cursor.offset += sent - in_head
        if cursor.offset == self._frame_end:
            self._frame_end = None

    def _send_out(self):
        head = self._out[0]
        sent = self._sock.send(head)
        self._out_bytes -= sent
        if sent < len(head):
            self._out[0] = head[sent:]
        else:
            self._out.popleft()

    def _begin(self):
        """Begin the next OUTPUT frame, or queue what follows the last; False: nothing to send."""
        cursor = self.cursor
        if cursor is None or self.direct is not None:
            return False
        if self.has_fallen:
            self.has_fallen = False
            self._owner.on_gap(self)
            return bool(self._out) or self.cursor is not None
        end = self.session.ring.end_offset if self.session.ring else cursor.offset
        if cursor.offset < end:
            self._frame_end = min(end, cursor.offset + frames.RAW_BYTES_MAX)
            self._frame_head = frames.output_header(self._frame_end - cursor.offset, cursor.offset)
            return True
        cursor.is_lagged = False
        if not self.is_exit_told:
            self._owner.on_caught_up(self)
        return bool(self._out)

    def _interest(self, is_more):
        if self._has_said_farewell:
            return READABLE
        # Also of one that is not listened to it has to be known when it goes.
        reading = HANGUP if not self._is_listened_to() else 0 if self._arrived is not None else READABLE
        return (WRITABLE if is_more else 0) | reading

    def _watch_for(self, bits):
        fd = self._sock.fileno()
        self._loop.set_urgent(fd, not bits & WRITABLE)      # rule 5
        self._loop.change(fd, bits)

    def _is_listened_to(self):
        # What is still to come then is what its socket holds, and it is the last.
        return self._has_said_farewell or self._out_bytes <= OUT_MAX and self.pending < PENDING_MAX \
            and not self._owner.is_input_full(self)

    def update_interest(self):
        """Whether this client is listened to may have changed."""
        if self.is_open:
            self._watch_for(self._interest(self._frame_end is not None or bool(self._out)))
            if self.direct is not None:
                self.direct.update()
            self._maybe_go_on()

    def _maybe_go_on(self):
        if self._arrived is not None and self._is_listened_to() and not self._is_going_on:
            self._is_going_on = True
            self._loop.soon(self._go_on)

    def _go_on(self):
        self._is_going_on = False
        if self.is_open and self._arrived is not None:
            self._act()

    # -- receiving -----------------------------------------------------------------------

    def _on_ready(self, bits):
        if bits & WRITABLE:
            self.flush()
        if self.is_open and bits & FAILED and not self._is_listened_to():
            self.close(CLOSED_BY_CLIENT)
        elif self.is_open and bits & (READABLE | FAILED):
            self._act() if self._arrived is not None else self._receive()

    def _receive(self):
        try:
            data = self._take_bytes()
        except BlockingIOError:
            return
        except OSError as error:
            self.close(f"receiving failed: {error.strerror}")
            return
        if not data:
            self.close(CLOSED_BY_CLIENT)
            return
        self._arrived = self._decoder.frames(data)
        self._act()

    def _take_bytes(self):
        """What has come; descriptors only from whom they are expected, and only the newest two."""
        if self.direct is not None or self.cursor is None or not self.cursor.is_interactive:
            return self._sock.recv(RECEIVE_BYTES)
        data, descriptors, _ = self._owner.backend.receive_descriptors(self._sock, RECEIVE_BYTES)
        if descriptors:
            close_all(self._passed)
            self._passed = descriptors[:2]
            close_all(descriptors[2:])
        return data

    def take_passed(self):
        """The descriptors that were passed along, the caller's from now on."""
        passed, self._passed = self._passed, []
        return passed

    def _act(self):
        """Act on what has arrived, as far as rules 3 and 4 let us; the rest waits."""
        try:
            for count, (type_, _, payload) in enumerate(self._arrived, 1):
                self._owner.on_frame(self, type_, payload)
                if not self.is_open:
                    return
                if count == ACTS_A_TURN or not self._is_listened_to():
                    break
            else:
                self._arrived = None
        except ProtocolError as error:
            self._owner.on_protocol_error(self, error)
            return
        self._owner.on_buffered(self)
        self.update_interest()

    def close(self, reason):
        """Close at once; what is queued is gone.  Idempotent."""
        if not self.is_open:
            return
        self.is_open = False
        self._hello_is_over()
        if self.direct is not None:
            self.direct.close()
            self.direct = None
        close_all(self._passed)
        self._loop.forget(self._sock.fileno())
        self._sock.close()
        self._owner.on_close(self, reason)

    def say_farewell(self):
        """Say nothing more, and hear what it says until it notices and closes."""
        self.flush()
        if not self.is_open:
            return
        self._has_said_farewell = True
        try:
            self._sock.shutdown(SHUT_WR)
        except OSError as error:            # it has gone already
            self.close(f"sending failed: {error.strerror}")
            return
        self._watch_for(READABLE)
        self._maybe_go_on()

    def close_after_flush(self, reason):
        """Try to get out what is queued, once, then close."""
        self.flush()
        self.close(reason)
