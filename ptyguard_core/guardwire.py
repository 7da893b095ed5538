"""Guard wire: what guard, daemon and clients say on the guard's sockets.

A message is a fixed header and a list of fields; there is no JSON and nothing
here is ever renumbered.  This wire only grows: a guard started years ago serves
the daemon of today, so

Rule 1: an unknown field is skipped, an unknown message is answered with REFUSED.
Rule 2: numbers below are used once and never again for something else.
Rule 3: a message says how many descriptors belong to it.  They travel with its
        first byte, one message a `sendmsg`, at most 200; a batch that arrived
        truncated belongs to no one, is closed, and its message says so.

Layout, big-endian:  u16 type | u16 descriptors | u32 serial | u32 length | fields
one field:           u16 tag  | u32 length | bytes
A reply carries the serial of its request; serial 0 asks for no reply.
"""

import struct

from .errors import ProtocolError

WIRE_VERSION = 3
WIRE_WITH_RESPAWN = 2           # what an older guard does not know is not asked of it
WIRE_WITH_UPDATES = 3
MESSAGE_MAX = 8 * 1024 * 1024   # argv and environment of a spawn: execve takes 6 MiB at most
DESCRIPTORS_MAX = 200           # Linux passes at most 253 in one message (SCM_MAX_FD)

# -- messages: name = number, for ever ---------------------------------------------------
OK = 1                # generic answer
REFUSED = 2           # answer: TEXT, ERRNO, STAGE, KIND
# daemon -> guard, on the link
READY = 10            # I have mapped what you gave me and can serve
SPAWN = 11            # start a child in a new terminal -> SPAWNED
BLOB = 12             # keep this opaque metadata (and unwritten input) with the session
ADOPTED = 13          # this session is open with me, or could not be opened
RELEASE_TERMINAL = 14  # drained: close master and slave
RELEASE = 15          # forget the session and its ring
QUIESCED = 16         # I have stopped reading, and all BLOBs are with you
PONG = 17
STOPPING = 18         # I am going on purpose: stop with me; MODE keep: or let me go alone
RESPAWN = 19          # start another child in the ring of one that has ended -> SPAWNED
OWNERSHIP = 20        # whose daemon this is, and who holds it: for the next one
# guard -> daemon, on the link
WELCOME = 30          # who the guard is; carries the listening socket
SESSION = 31          # one held session: ring, master (unless released)
TABLE_END = 32        # that was all of them
GO = 33               # the terminals are yours now
SPAWNED = 34          # answer to SPAWN: pid, start time, master, ring
EXITED = 35           # a child has ended
QUIESCE = 36          # stop reading and hand over -> QUIESCED
QUIT = 37             # leave, on purpose
PING = 38
UPDATE = 39           # a newer version waits, or failed: NEWEST, DEFERRED, UPDATE_FAILURE
# anyone of our uid -> guard, on guard.sock
STATE = 50            # -> GUARD_STATE
START_DAEMON = 51     # -> OK when a daemon is ready, REFUSED with the cause
STOP = 52             # MODE keep|all, FORCE, TIMEOUT_MS -> OK | REFUSED
RESTART = 53          # replace the daemon (BINARY, INTERPRETER optional) -> OK | REFUSED;
                      # VERSION, AFTER; MODE idle|always|source: unasked, may be deferred
DEAF = 54             # my hello has been unanswered for 1.5 s, or for TIMEOUT_MS
DEPOSIT = 55          # I am a daemon that lost its guard: DAEMON_PID, then SESSIONs, TABLE_END
GUARD_STATE = 56
OFFER = 57            # a newer VERSION is here, MODE idle|always -> OK: come, REFUSED: deferred
REEXEC = 58           # run BINARY instead of what you are, in place -> OK by the new one
# guard -> guard, over its own exec; see reexec.py
FROZEN_GUARD = 70
FROZEN_DAEMON = 71
FROZEN_SESSION = 72
FROZEN_END = 73

NAMES = {number: name for name, number in sorted(globals().items())
         if name.isupper() and isinstance(number, int)
         and not name.startswith("WIRE_") and not name.endswith("_MAX")}

# -- fields: name = (tag, kind); kind "n" a number, "b" bytes, "l" a list of bytes --
FIELDS = {
    "text": (1, "b"), "errno": (2, "n"), "stage": (3, "b"), "kind": (4, "b"),
    "session": (10, "b"), "blob": (11, "b"), "spawn_number": (12, "n"),
    "pid": (13, "n"), "pid_start": (14, "n"), "status": (15, "n"),
    "status_known": (16, "n"), "exited_at_ms": (17, "n"), "has_terminal": (18, "n"),
    "quarantined": (19, "n"), "exited": (20, "n"), "launch": (21, "b"),
    "argv": (30, "l"), "env": (31, "l"), "cwd": (32, "b"), "executable": (33, "b"),
    "rows": (34, "n"), "cols": (35, "n"), "ring_bytes": (36, "n"), "echo": (37, "n"),
    "umask": (38, "n"), "nice": (39, "n"), "limits": (40, "l"),
    "version": (50, "b"), "guard_pid": (51, "n"), "guard_start": (52, "n"),
    "daemon_pid": (53, "n"), "daemon_start": (54, "n"), "started_at_ms": (55, "n"),
    "daemon_state": (56, "b"), "sessions": (57, "n"), "living": (58, "n"),
    "wire": (59, "n"), "reason": (60, "b"), "binary": (61, "b"),
    "interpreter": (62, "b"), "instance": (63, "b"), "daemon_version": (64, "b"),
    "deaths": (65, "n"), "retry_at_ms": (66, "n"), "daemon_started_at_ms": (67, "n"),
    "mode": (70, "b"), "force": (71, "n"), "timeout_ms": (72, "n"),
    "input": (80, "b"), "has_listener": (81, "n"), "holding": (82, "n"),
    "last_failure": (83, "b"),
    "owner": (84, "b"), "grace_ms": (85, "n"), "on_orphan": (86, "b"),
    "after": (87, "b"), "prev": (88, "b"), "by": (89, "n"), "newest": (90, "b"),
    "deferred": (91, "b"), "update_failure": (92, "b"),
    # of a frozen guard: numbers of descriptors, and what it knows
    "ring_fd": (100, "n"), "master_fd": (101, "n"), "slave_fd": (102, "n"), "link_fd": (103, "n"),
    "listener_fd": (104, "n"), "guard_listener_fd": (105, "n"), "locks": (106, "l"),
    "caller_fd": (107, "n"), "caller_serial": (108, "n"), "given": (109, "l"),
    "unopened": (110, "l"), "has_gone": (111, "n"), "is_child": (112, "n"), "received": (113, "b"),
    "keep_stopped": (114, "n"), "program": (116, "l"), "failed": (117, "b"),
    "left": (118, "b"), "guard_binary": (119, "b"), "good": (120, "l"), "probation_ms": (121, "n"),
    "keeps": (122, "n"), "same": (123, "l"), "beside": (124, "n"),
}
OF_UPDATE = ("newest", "deferred", "update_failure")
OF_OWNERSHIP = ("owner", "grace_ms", "on_orphan")
_BY_TAG = {tag: (name, kind) for name, (tag, kind) in FIELDS.items()}

_BATCHES_MAX = 4      # an honest peer has one in flight while its message's body arrives
_HEADER = struct.Struct(">HHII")
_FIELD = struct.Struct(">HI")


class Message:
    """One message: `type`, `serial`, `descriptors` (ints, now yours), `fields`.

    `descriptors` is None when they were announced and did not arrive whole.
    """

    __slots__ = ("type", "serial", "descriptors", "fields")

    def __init__(self, type_, serial, descriptors, fields):
        self.type = type_
        self.serial = serial
        self.descriptors = descriptors
        self.fields = fields

    @property
    def name(self):
        """The type's name, for logs."""
        return NAMES.get(self.type, str(self.type))

    def number(self, name, default=0):
        """The number field `name`, or `default`."""
        return self.fields.get(name, default)

    def bytes(self, name, default=b""):
        """The bytes field `name`, or `default`."""
        return self.fields.get(name, default)

    def text(self, name):
        """The bytes field `name` as text, whatever bytes it has."""
        return self.fields.get(name, b"").decode("utf-8", "replace")


def encode(type_, serial=0, descriptors=0, **fields):
    """The bytes of one message; a field that is None is left out."""
    parts = []
    for name, value in fields.items():
        if value is None:
            continue
        tag, kind = FIELDS[name]
        for item in value if kind == "l" else (value,):
            if kind == "n":
                item = b"%d" % item
            elif isinstance(item, str):
                item = item.encode("utf-8", "surrogateescape")
            parts.append(_FIELD.pack(tag, len(item)))
            parts.append(item)
    body = b"".join(parts)
    if len(body) > MESSAGE_MAX:
        raise ProtocolError(f"a message of {len(body)} bytes is too long for the guard")
    return _HEADER.pack(type_, descriptors, serial, len(body)) + body


def _decode_fields(body):
    fields = {}
    at = 0
    while at < len(body):
        if len(body) - at < _FIELD.size:
            raise ProtocolError("guard wire: a field's header is cut")
        tag, length = _FIELD.unpack_from(body, at)
        at += _FIELD.size
        if length > len(body) - at:
            raise ProtocolError(f"guard wire: field {tag} says {length} bytes, "
                                f"{len(body) - at} are there")
        value = bytes(body[at:at + length])
        at += length
        name, kind = _BY_TAG.get(tag, (None, None))
        if kind == "n":
            fields[name] = _decode_number(tag, value)
        elif kind == "l":
            fields.setdefault(name, []).append(value)
        elif kind:
            fields[name] = value
    return fields


def _decode_number(tag, value):
    # At most 20 digits: int() of a longer text is slow, and none of ours is longer.
    digits = value[1:] if value[:1] == b"-" else value
    if not digits.isdigit() or len(digits) > 20:
        raise ProtocolError(f"guard wire: field {tag} is no number: {value[:24]!r}")
    return int(value)


class Decoder:
    """Bytes and descriptors in, messages out.

    The descriptors it was fed belong to it until a message carries them away;
    `leftovers` hands back those still here when the connection ends.
    """

    def __init__(self, message_max=MESSAGE_MAX):
        self.message_max = message_max
        self._buffer = bytearray()
        self._batches = []          # one a sendmsg: (descriptors, is_whole)
        self.rejected = []          # belong to no message; the caller closes and clears them

    def feed(self, data, descriptors=(), is_whole=True):
        """Take what one `recvmsg` gave; ProtocolError: close the connection."""
        if descriptors or not is_whole:
            self._batches.append((list(descriptors), is_whole))
        self._buffer += data
        if len(self._batches) > _BATCHES_MAX:
            raise ProtocolError("guard wire: descriptors without messages")

    def next(self):
        """The next whole message, or None.

        Raises ProtocolError on bytes that are no message: the connection is to
        be closed.  A batch of descriptors that does not fit its message is put
        into `message.descriptors` as None and its members into `rejected`.
        """
        if len(self._buffer) < _HEADER.size:
            return None
        type_, count, serial, length = _HEADER.unpack_from(self._buffer)
        if length > self.message_max or count > DESCRIPTORS_MAX:
            raise ProtocolError(f"guard wire: message {type_} of {length} bytes "
                                f"with {count} descriptors")
        if len(self._buffer) < _HEADER.size + length:
            return None
        body = bytes(self._buffer[_HEADER.size:_HEADER.size + length])
        del self._buffer[:_HEADER.size + length]
        fields = _decode_fields(body)       # first: it may refuse, and a batch must not be lost
        return Message(type_, serial, self._take_batch(count), fields)

    def _take_batch(self, count):
        if not count:
            return []
        if not self._batches:
            raise ProtocolError(f"guard wire: {count} descriptors announced, none came")
        descriptors, is_whole = self._batches.pop(0)
        if is_whole and len(descriptors) == count:
            return descriptors
        self.rejected.extend(descriptors)
        return None

    @property
    def has_descriptors(self):
        """Whether some are here that no message has carried away."""
        return bool(self._batches or self.rejected)

    def buffered(self):
        """The bytes of a message that is not whole yet."""
        return bytes(self._buffer)

    def leftovers(self):
        """All descriptors still here, for the caller to close."""
        left = [fd for batch, _ in self._batches for fd in batch] + self.rejected
        self._batches = []
        self.rejected = []
        return left
