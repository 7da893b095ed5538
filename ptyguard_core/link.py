"""Link: one connection that speaks the guard wire, on a loop.

Both guard and daemon use it.  It never blocks: what the peer does not take
waits here.  Descriptors on their way out are duplicates that belong to the link
until they are sent, so that their owner may close its own at any time.
"""

import os

from .backend import READABLE, WRITABLE
from .errors import ProtocolError
from .guardwire import MESSAGE_MAX, Decoder, encode

# A peer of ours that lets this much wait has stopped; an honest queue holds some
# blobs and one table of sessions.
QUEUE_MAX = 64 * 1024 * 1024
# Sent as one piece: a message alone wakes the peer, and of a thousand small ones that costs more
# than all that is in them.
JOINED_BYTES = 32 * 1024


class Link:
    """`on_message(link, message)` for each message, `on_close(link, reason)` once."""

    def __init__(self, backend, loop, sock, on_message, on_close, message_max=MESSAGE_MAX,
                 received=b""):
        self.is_open = True
        self._is_deaf = False       # the peer reads no more; what it wrote may still come
        self.peer_pid = None        # for whoever learns it
        self.on_message = on_message
        self.on_close = on_close
        self._backend = backend
        self._loop = loop
        self._sock = sock
        self._decoder = Decoder(message_max)
        self._decoder.feed(received)
        self._queue = []            # [bytes or view, duplicates]
        self._queued_bytes = 0
        self.queue_max = QUEUE_MAX
        self._feeds = []            # iterators of messages that can wait
        self._is_joining = False
        self._rest = None           # Timer: until then nothing is received
        self._serial = 0
        self._awaited = {}          # serial -> callable(message or None)
        loop.watch(sock.fileno(), self._on_ready, READABLE)

    def fileno(self):
        """The socket's descriptor."""
        return self._sock.fileno()

    def raise_limit(self):
        """Take messages of any size that the wire allows from now on."""
        self._decoder.message_max = MESSAGE_MAX
        self.queue_max = QUEUE_MAX

    def send(self, type_, serial=0, descriptors=(), **fields):
        """Queue one message; the descriptors stay the caller's."""
        if not self.is_open or self._is_deaf:
            return
        self._enqueue(encode(type_, serial, len(descriptors), **fields), descriptors)
        if len(self._queue) == 1 and not self._is_joining:
            self._flush()

    def send_joined(self, act):
        """Call `act`; what it sends here goes in few pieces."""
        self._is_joining = True
        try:
            act()
        finally:
            self._is_joining = False
            if self.is_open and self._queue:
                self._flush()

    def rest(self, delay_s):
        """Receive nothing for so long: a peer that says a lot in little pieces wakes us once
        for many of them.  Nothing is lost by that, also if the peer ends meanwhile."""
        if self.is_open and self._rest is None:
            self._rest = self._loop.after(delay_s, self._end_rest)
            self._watch()

    def _end_rest(self):
        self._rest = None
        if self.is_open:
            self._watch()

    def _watch(self):
        bits = READABLE if self._rest is None else 0
        self._loop.change(self._sock.fileno(), bits | WRITABLE if self._queue else bits)

    def _enqueue(self, data, descriptors):
        duplicates = []
        try:
            for fd in descriptors:
                duplicates.append(os.dup(fd))
        except OSError as error:        # EMFILE, mostly: the peer cannot be served
            close_all(duplicates)
            self.close(f"duplicating failed: {error.strerror}")
            return
        self._queue.append([memoryview(data), duplicates])
        self._queued_bytes += len(data)
        if self._queued_bytes > self.queue_max:
            self.close("it takes nothing any more")

    def feed(self, messages, is_joined=True):
        """Send what an iterator gives, (type, descriptors, fields) each, as the peer takes it.

        `is_joined` False: none is asked for before the one ahead of it was sent.

        For many messages: only one at a time costs memory and duplicates here.
        """
        self._feeds.append((iter(messages), is_joined))
        if not self._queue:
            self._flush()

    def _join(self):
        """Make one piece of the first messages, as far as they carry no descriptors."""
        parts, size = [], 0
        while size < JOINED_BYTES and (len(parts) < len(self._queue)
                                       or self._feeds and self._feeds[0][1] and self._take_from_feed()):
            data, duplicates = self._queue[len(parts)]
            if duplicates or parts and size + len(data) > JOINED_BYTES:
                break
            parts.append(data)
            size += len(data)
        if len(parts) > 1 and self._queue:
            self._queue[:len(parts)] = [[memoryview(b"".join(parts)), []]]

    def _take_from_feed(self):
        """Put the next message of a feed into the queue; whether there was one."""
        while self._feeds and self.is_open:
            for type_, descriptors, fields in self._feeds[0][0]:
                self._enqueue(encode(type_, 0, len(descriptors), **fields), descriptors)
                return self.is_open
            del self._feeds[0]
        return False

    def ask(self, type_, on_reply, descriptors=(), **fields):
        """Send and call `on_reply(message)`; with None when the link ends first."""
        if not self.is_open:
            on_reply(None)
            return
        self._serial += 1
        serial = self._serial
        self._awaited[serial] = on_reply
        try:
            self.send(type_, serial, descriptors, **fields)
        except ProtocolError:
            self._awaited.pop(serial, None)     # it cannot be encoded: nothing was asked
            raise

    def close(self, reason):
        """Close both ways; idempotent."""
        if not self.is_open:
            return
        self.is_open = False
        self._loop.forget(self._sock.fileno())
        self._sock.close()
        self._drop_queue()
        close_all(self._decoder.leftovers())
        awaited, self._awaited = self._awaited, {}
        for on_reply in awaited.values():
            on_reply(None)
        self.on_close(self, reason)

    @property
    def is_quiet(self):
        """Whether nothing is on its way out, nothing awaited, and no descriptor half received."""
        return self.is_open and not (self._queue or self._feeds or self._awaited
                                     or self._decoder.has_descriptors)

    def received(self):
        """The beginning of a message that is still to come."""
        return self._decoder.buffered()

    def hear_out(self):
        """Deliver what is still to be received from a peer that is gone."""
        while self.is_open and self._receive():
            pass

    def _drop_queue(self):
        for _, duplicates in self._queue:
            close_all(duplicates)
        self._queue = []
        self._feeds = []
        self._queued_bytes = 0

    def _on_ready(self, bits):
        if bits & WRITABLE and self._queue:
            self._flush()
        if self.is_open and bits & ~WRITABLE:
            self._receive()

    def _flush(self):
        try:
            while self._queue or self._take_from_feed():
                if len(self._queue) > 1 or self._feeds:
                    self._join()
                    if not self.is_open:
                        break               # it has met its end in `_take_from_feed`
                data, duplicates = self._queue[0]
                sent = self._backend.send_descriptors(self._sock, data, duplicates)
                close_all(duplicates)
                self._queued_bytes -= sent
                if sent < len(data):
                    self._queue[0] = [data[sent:], []]
                else:
                    del self._queue[0]
        except BlockingIOError:
            pass
        except (BrokenPipeError, ConnectionResetError):
            # The peer is gone.  What it said before is still to be heard, then its end.
            self._is_deaf = True
            self._drop_queue()
        except OSError as error:
            self.close(f"sending failed: {error.strerror}")
        if not self.is_open:
            return
        self._watch()

    def _receive(self):
        """Take and deliver one piece; whether there was one."""
        try:
            data, descriptors, is_whole = self._backend.receive_descriptors(self._sock, 1 << 18)
        except BlockingIOError:
            return False
        except OSError as error:
            self.close(f"receiving failed: {error.strerror}")
            return False
        if not data:
            close_all(descriptors)
            self.close("closed by the peer")
            return False
        try:
            self._decoder.feed(data, descriptors, is_whole)
            while self.is_open:
                message = self._decoder.next()
                close_all(self._decoder.rejected)
                if message is None:
                    break
                self._deliver(message)
        except ProtocolError as error:
            self.close(error.message)
        return True

    def _deliver(self, message):
        on_reply = self._awaited.pop(message.serial, None) if message.serial else None
        if on_reply is not None:
            on_reply(message)
        else:
            self.on_message(self, message)


def close_all(descriptors):
    """Close and take out all of a list of descriptors; None is none."""
    while descriptors:
        os.close(descriptors.pop())
