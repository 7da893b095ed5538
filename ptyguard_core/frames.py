"""Frames: the client wire, without I/O.

A byte stream of frames, the same over AF_UNIX and over ssh, so nothing here may
depend on passed descriptors or on local pids.  Layout, big-endian:

    u8 type | u32 length | [u64 offset, for OUTPUT only] | payload

Control frames carry one JSON object, raw frames the terminal's bytes as they
are.  `hello` comes first, in both directions.  Unknown fields are ignored, so
that versions mix; the frame types themselves belong to the protocol version.

Rule 1: a peer can cost no more memory than the limits below, and its own time only.
Rule 2: raw payload is handed on in pieces as it arrives, without a copy.
Rule 3: an error here is the peer's fault (ProtocolError) and ends its connection.
"""

import struct

from . import jsontext
from .errors import Incompatible, ProtocolError

PROTOCOL_MIN = 1
PROTOCOL_MAX = 1

HELLO_BYTES_MAX = 4 * 1024           # before hello anybody may be talking
RAW_BYTES_MAX = 64 * 1024            # input and output frames
CONTROL_BYTES_MAX = 4 * 1024 * 1024  # argv and environment of a start, execve's own size
BUFFERED_BYTES_MAX = 64 * 1024 * 1024   # of all connections of a daemon together
HELLO_LIMIT_S = 5.0
CLIENTS_MAX = 1000

HELLO = 1        # client: who I am            daemon: WELCOME
WELCOME = 2
REQUEST = 3      # {"id", "verb", ...}         answered by REPLY with the same id
REPLY = 4        # {"id", "ok": {...}} or {"id", "error": {...}}
EVENT = 5        # {"event", ...}: something the client did not ask for just now
OUTPUT = 6       # raw, with the offset of its first byte
INPUT = 7        # raw: typed, or the body of a send
RESTORE = 8      # raw: history to paint from, no offset
DATA = 9         # raw: the body of a reply that announced it
PING = 10        # {} either way
PONG = 11

RAW = frozenset((OUTPUT, INPUT, RESTORE, DATA))
CONTROL = frozenset((HELLO, WELCOME, REQUEST, REPLY, EVENT, PING, PONG))
FROM_CLIENT = frozenset((HELLO, REQUEST, INPUT, PING, PONG))
FROM_DAEMON = frozenset((WELCOME, REPLY, EVENT, OUTPUT, RESTORE, DATA, PING, PONG))

_HEAD = struct.Struct(">BI")
_OFFSET = struct.Struct(">Q")
_OUTPUT_HEAD = struct.Struct(">BIQ")


def raw_header(type_, length):
    """The header of a raw frame other than OUTPUT."""
    return _HEAD.pack(type_, length)


def output_header(length, offset):
    """The header of an OUTPUT frame."""
    return _OUTPUT_HEAD.pack(OUTPUT, length, offset)


def control(type_, fields):
    """One control frame, whole.

    Text that is not UTF-8 travels as lone surrogates, which JSON can escape.
    """
    body = jsontext.write(fields, jsontext.COMPACT).encode("ascii")
    if len(body) > CONTROL_BYTES_MAX:
        raise ProtocolError(f"a message of {len(body)} bytes is too long "
                            f"(at most {CONTROL_BYTES_MAX})")
    return _HEAD.pack(type_, len(body)) + body


def raw_frames(type_, data):
    """`data` as raw frames of at most RAW_BYTES_MAX each (not OUTPUT), for small uses."""
    view = memoryview(data)
    parts = []
    for at in range(0, len(view), RAW_BYTES_MAX):
        piece = view[at:at + RAW_BYTES_MAX]
        parts += [raw_header(type_, len(piece)), piece]
    return b"".join(parts)


def _bounded_int(text):
    # int() of a long text takes quadratic time before Python 3.11, and is refused later.
    if len(text) > 20:
        raise ValueError("a number of more than 20 digits")
    return int(text)


def parse_control(body):
    """The JSON object of a control frame; ProtocolError when it is none."""
    try:
        fields = jsontext.read(bytes(body).decode("utf-8"), _bounded_int)
    except (ValueError, RecursionError) as error:
        raise ProtocolError(f"not a JSON object: {error}") from None
    if not isinstance(fields, dict):
        raise ProtocolError("not a JSON object")
    return fields


class Decoder:
    """Bytes in, frames out; `accepts` is what this side may be sent."""

    def __init__(self, accepts):
        self.accepts = accepts
        self.control_max = HELLO_BYTES_MAX     # raised by whoever has checked the hello
        self._head = bytearray()               # of a header cut by a read
        self._type = None                      # of the frame whose payload is awaited
        self._left = 0                         # bytes of payload still to come
        self._offset = 0
        self._body = bytearray()               # of a control frame

    @property
    def buffered_bytes(self):
        """What is kept here for frames that are not whole."""
        return len(self._head) + len(self._body)

    def frames(self, data):
        """Yield (type, offset, payload) for what `data` completes or continues.

        Control payload is a dict.  Raw payload is a piece, a view of `data`: use
        it before the next call.  An empty raw frame yields one empty piece.
        """
        view = memoryview(data)
        at = 0
        while at < len(view) or (self._type is not None and not self._left):
            if self._type is None:
                at = self._take_head(view, at)
                continue
            piece = view[at:at + self._left]
            at += len(piece)
            self._left -= len(piece)
            type_, offset = self._type, self._offset
            if not self._left:
                self._type = None
            if type_ in RAW:
                self._offset += len(piece)
                yield type_, offset, piece
            else:
                self._body += piece
                if self._type is None:
                    body, self._body = self._body, bytearray()
                    yield type_, 0, parse_control(body)

    def _take_head(self, view, at):
        """Take header bytes from `at`; returns where the rest begins."""
        wanted = _HEAD.size
        if self._head and self._head[0] == OUTPUT or not self._head and view[at] == OUTPUT:
            wanted = _OUTPUT_HEAD.size
        piece = view[at:at + wanted - len(self._head)]
        self._head += piece
        if len(self._head) == wanted:
            self._begin(*_HEAD.unpack_from(self._head))
            if wanted == _OUTPUT_HEAD.size:
                self._offset = _OFFSET.unpack_from(self._head, _HEAD.size)[0]
            self._head.clear()
        elif self._head[0] not in self.accepts:
            raise ProtocolError(f"frame type {self._head[0]} is not for this side")
        return at + len(piece)

    def _begin(self, type_, length):
        if type_ not in self.accepts:
            raise ProtocolError(f"frame type {type_} is not for this side")
        limit = RAW_BYTES_MAX if type_ in RAW else self.control_max
        if length > limit:
            raise ProtocolError(f"frame type {type_} of {length} bytes, at most {limit} are taken")
        self._type = type_
        self._left = length


def negotiate(ours, theirs):
    """The highest protocol that both ranges (pairs of ints) have.

    Raises Incompatible, naming both, when there is none.
    """
    low, high = max(ours[0], theirs[0]), min(ours[1], theirs[1])
    if low > high:
        raise Incompatible(f"no common protocol: this side speaks {ours[0]} to {ours[1]}, "
                           f"the other {theirs[0]} to {theirs[1]}",
                           hint="use the same version of ptyguard on both sides",
                           protocol=list(ours))
    return high


def protocol_range(fields):
    """The (min, max) that a hello or welcome names; ProtocolError when it does not."""
    found = fields.get("protocol")
    if not (isinstance(found, list) and len(found) == 2
            and all(type(n) is int and 0 < n < 1 << 16 for n in found)):
        raise ProtocolError("hello without a protocol range")
    return tuple(found)
