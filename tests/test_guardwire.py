"""The guard wire: it only grows, whatever is fed to it, and a descriptor is never lost."""

import struct

import pytest
from hypothesis import given, strategies as st

from ptyguard_core import guardwire as wire
from ptyguard_core.errors import ProtocolError
from ptyguard_core.guardwire import DESCRIPTORS_MAX, FIELDS, MESSAGE_MAX, NAMES, Decoder, encode

KINDS = {"n": st.integers(-(10 ** 20) + 1, 10 ** 20 - 1), "b": st.binary(max_size=40),
         "l": st.lists(st.binary(max_size=20), min_size=1, max_size=4)}
ANY_FIELDS = st.fixed_dictionaries({}, optional={name: KINDS[kind]
                                                 for name, (_, kind) in FIELDS.items()})
EVERY_FIELD = {name: {"n": -5, "b": b"\xff\0bytes", "l": [b"", b"one", b"\xff"]}[kind]
               for name, (_, kind) in FIELDS.items()}


def decode(*chunks):
    decoder = Decoder()
    found = []
    for chunk in chunks:
        decoder.feed(chunk)
        message = decoder.next()
        while message is not None:
            found.append(message)
            message = decoder.next()
    return found


def raw_field(tag, value):
    return struct.pack(">HI", tag, len(value)) + value


def raw_message(type_, body=b"", descriptors=0, serial=0, length=None):
    return struct.pack(">HHII", type_, descriptors, serial,
                       len(body) if length is None else length) + body


# --- round trips ---------------------------------------------------------------------

@given(st.sampled_from(sorted(NAMES)), st.integers(0, (1 << 32) - 1), ANY_FIELDS)
def test_any_message_survives(type_, serial, fields):
    message, = decode(encode(type_, serial, **fields))
    assert (message.type, message.serial, message.fields) == (type_, serial, fields)
    assert message.descriptors == []


def test_every_field_survives_in_one_message():
    message, = decode(encode(wire.SESSION, 1, **EVERY_FIELD))
    assert message.fields == EVERY_FIELD


def test_message_split_at_every_byte_decodes_to_the_same():
    data = encode(wire.SPAWN, 9, argv=["a", "b"], rows=24, cwd=b"/")
    for at in range(len(data) + 1):
        message, = decode(data[:at], data[at:])
        assert message.fields == {"argv": [b"a", b"b"], "rows": 24, "cwd": b"/"}
    message, = decode(*(data[i:i + 1] for i in range(len(data))))
    assert message.serial == 9


def test_several_messages_in_one_piece_come_one_by_one():
    data = encode(wire.PING) + encode(wire.EXITED, session="k3", status=256) + encode(wire.OK, 4)
    assert [m.name for m in decode(data)] == ["PING", "EXITED", "OK"]
    assert [m.name for m in decode(data + data[:7])] == ["PING", "EXITED", "OK"]


def test_a_field_that_is_none_is_left_out_and_text_may_be_given_as_text():
    message, = decode(encode(wire.REFUSED, text="n\u00f6 \udcff", errno=None))
    assert message.fields == {"text": b"n\xc3\xb6 \xff"}
    assert message.text("text") == "n\u00f6 \ufffd"


def test_absent_fields_have_defaults():
    message, = decode(encode(wire.OK))
    assert (message.number("rows"), message.number("rows", 7)) == (0, 7)
    assert (message.bytes("cwd"), message.text("cwd")) == (b"", "")


# --- the wire only grows -----------------------------------------------------------------

# What these bytes mean may never change: an old guard or an old daemon sends them.
FROZEN = [
    ("000a 0000 00000000 00000000", wire.READY, 0, {}),
    ("0026 0000 00000000 00000000", wire.PING, 0, {}),
    ("0001 0000 0000002a 00000000", wire.OK, 42, {}),
    ("0002 0000 00000007 0000000f  0002 00000001 32  0003 00000002 6f6b",
     wire.REFUSED, 7, {"errno": 2, "stage": b"ok"}),
    ("000b 0000 00000001 0000004e"
     "  001e 00000002 7368  001e 00000002 2d63  001e 00000000  001f 00000003 413d31"
     "  0020 00000001 2f  0022 00000002 3234  0023 00000002 3830  000a 00000002 6b33"
     "  0024 00000000".replace("  0024 00000000", ""),
     wire.SPAWN, 1, {"argv": [b"sh", b"-c", b""], "env": [b"A=1"], "cwd": b"/", "rows": 24,
                     "cols": 80, "session": b"k3"}),
    ("0023 0000 00000000 00000028  000a 00000002 6b33  000c 00000001 31  000f 00000003 323536"
     "  0010 00000001 31  0011 00000003 393939",
     wire.EXITED, 0, {"session": b"k3", "spawn_number": 1, "status": 256, "status_known": 1,
                      "exited_at_ms": 999}),
    ("0034 0000 00000003 0000001a  0046 00000004 6b656570  0047 00000001 30  0048 00000003 2d3530",
     wire.STOP, 3, {"mode": b"keep", "force": 0, "timeout_ms": -50}),
    # From a later version: an unknown field in the middle, an unknown message.
    ("0012 0000 00000000 00000010  0309 00000001 ff  0001 00000003 627965",
     wire.STOPPING, 0, {"text": b"bye"}),
    ("0fff 0000 00000005 00000007  000d 00000001 37", 0x0FFF, 5, {"pid": 7}),
]


@pytest.mark.parametrize("text, type_, serial, fields", FROZEN)
def test_bytes_of_old_decode_the_same_for_ever(text, type_, serial, fields):
    data = bytearray.fromhex(text)
    data[8:12] = struct.pack(">I", len(data) - 12)
    message, = decode(bytes(data))
    assert (message.type, message.serial, message.fields) == (type_, serial, fields)


# Numbers that have been used, for ever.  A new one is added here; none is changed or removed.
NUMBERS = {
    "OK": 1, "REFUSED": 2, "READY": 10, "SPAWN": 11, "BLOB": 12, "ADOPTED": 13,
    "RELEASE_TERMINAL": 14, "RELEASE": 15, "QUIESCED": 16, "PONG": 17, "STOPPING": 18, "RESPAWN": 19,
    "OWNERSHIP": 20, "UPDATE": 39, "OFFER": 57, "REEXEC": 58,
    "FROZEN_GUARD": 70, "FROZEN_DAEMON": 71, "FROZEN_SESSION": 72, "FROZEN_END": 73,
    "WELCOME": 30, "SESSION": 31, "TABLE_END": 32, "GO": 33, "SPAWNED": 34, "EXITED": 35,
    "QUIESCE": 36, "QUIT": 37, "PING": 38, "STATE": 50, "START_DAEMON": 51, "STOP": 52,
    "RESTART": 53, "DEAF": 54, "DEPOSIT": 55, "GUARD_STATE": 56,
}
TAGS = {
    "text": (1, "b"), "errno": (2, "n"), "stage": (3, "b"), "kind": (4, "b"),
    "session": (10, "b"), "blob": (11, "b"), "spawn_number": (12, "n"), "pid": (13, "n"),
    "pid_start": (14, "n"), "status": (15, "n"), "status_known": (16, "n"),
    "exited_at_ms": (17, "n"), "has_terminal": (18, "n"), "quarantined": (19, "n"),
    "exited": (20, "n"), "launch": (21, "b"), "argv": (30, "l"), "env": (31, "l"), "cwd": (32, "b"),
    "executable": (33, "b"), "rows": (34, "n"), "cols": (35, "n"), "ring_bytes": (36, "n"),
    "echo": (37, "n"), "umask": (38, "n"), "nice": (39, "n"), "limits": (40, "l"),
    "version": (50, "b"), "guard_pid": (51, "n"), "guard_start": (52, "n"),
    "daemon_pid": (53, "n"), "daemon_start": (54, "n"), "started_at_ms": (55, "n"),
    "daemon_state": (56, "b"), "sessions": (57, "n"), "living": (58, "n"), "wire": (59, "n"),
    "reason": (60, "b"), "binary": (61, "b"), "interpreter": (62, "b"), "instance": (63, "b"),
    "daemon_version": (64, "b"), "deaths": (65, "n"), "retry_at_ms": (66, "n"),
    "daemon_started_at_ms": (67, "n"), "mode": (70, "b"), "force": (71, "n"),
    "timeout_ms": (72, "n"), "input": (80, "b"), "has_listener": (81, "n"),
    "holding": (82, "n"), "last_failure": (83, "b"),
    "owner": (84, "b"), "grace_ms": (85, "n"), "on_orphan": (86, "b"),
    "after": (87, "b"), "prev": (88, "b"), "by": (89, "n"), "newest": (90, "b"),
    "deferred": (91, "b"), "update_failure": (92, "b"), "ring_fd": (100, "n"),
    "master_fd": (101, "n"), "slave_fd": (102, "n"), "link_fd": (103, "n"),
    "listener_fd": (104, "n"), "guard_listener_fd": (105, "n"), "locks": (106, "l"),
    "caller_fd": (107, "n"), "caller_serial": (108, "n"), "given": (109, "l"),
    "unopened": (110, "l"), "has_gone": (111, "n"), "is_child": (112, "n"),
    "received": (113, "b"), "keep_stopped": (114, "n"),
    "program": (116, "l"), "failed": (117, "b"), "left": (118, "b"), "guard_binary": (119, "b"),
    "good": (120, "l"), "probation_ms": (121, "n"),
    "keeps": (122, "n"), "same": (123, "l"), "beside": (124, "n"),
}


def test_no_number_was_changed_removed_or_given_out_twice():
    constants = {name: value for name, value in vars(wire).items()
                 if name.isupper() and type(value) is int
                 and not name.startswith(("_", "WIRE_")) and not name.endswith("_MAX")}
    assert {**constants, **NUMBERS} == constants
    assert len(set(constants.values())) == len(constants)
    assert NAMES == {number: name for name, number in constants.items()}


def test_no_tag_was_changed_removed_or_given_out_twice():
    assert {**FIELDS, **TAGS} == FIELDS
    tags = [tag for tag, _ in FIELDS.values()]
    assert len(set(tags)) == len(tags)
    assert {kind for _, kind in FIELDS.values()} <= set("nbl")


@given(st.integers(900, 65535), st.binary(max_size=30))
def test_an_unknown_field_is_skipped_wherever_it_stands(tag, value):
    unknown, known = raw_field(tag, value), raw_field(13, b"7") + raw_field(32, b"/")
    for body in (unknown + known, known + unknown, raw_field(13, b"7") + unknown + raw_field(32, b"/")):
        message, = decode(raw_message(wire.OK, body))
        assert message.fields == {"pid": 7, "cwd": b"/"}


def test_an_unknown_message_is_passed_on_by_its_number():
    message, = decode(raw_message(999, serial=3))
    assert (message.type, message.name, message.serial) == (999, "999", 3)


# --- descriptors -------------------------------------------------------------------------------

def test_descriptors_go_with_their_message():
    decoder = Decoder()
    first, second = encode(wire.SESSION, descriptors=2), encode(wire.WELCOME, descriptors=1)
    decoder.feed(first[:5], [10, 11])
    assert decoder.next() is None
    decoder.feed(first[5:] + encode(wire.PING) + second, [12])
    assert [(m.name, m.descriptors) for m in (decoder.next(), decoder.next(), decoder.next())] \
        == [("SESSION", [10, 11]), ("PING", []), ("WELCOME", [12])]
    assert decoder.leftovers() == []


@pytest.mark.parametrize("came, is_whole", [
    ([10], True), ([10, 11, 12], True), ([10, 11], False), ([10], False), ([], False)])
def test_a_batch_that_is_not_what_was_announced_belongs_to_no_one(came, is_whole):
    decoder = Decoder()
    decoder.feed(encode(wire.SESSION, descriptors=2, session="k3"), came, is_whole)
    message = decoder.next()
    assert message.descriptors is None
    assert message.fields == {"session": b"k3"}
    assert decoder.rejected == came
    assert decoder.leftovers() == came
    decoder.feed(encode(wire.SESSION, descriptors=2), [20, 21])     # the next is not hurt
    assert decoder.next().descriptors == [20, 21]


def test_announced_descriptors_that_never_came_are_a_protocol_error():
    decoder = Decoder()
    decoder.feed(encode(wire.SESSION, descriptors=2))
    with pytest.raises(ProtocolError):
        decoder.next()


def test_descriptors_of_an_unfinished_or_broken_message_are_handed_back():
    decoder = Decoder()
    decoder.feed(encode(wire.SESSION, descriptors=2)[:-1], [10, 11])
    assert decoder.next() is None
    assert decoder.leftovers() == [10, 11]
    assert decoder.leftovers() == []
    decoder = Decoder()
    decoder.feed(raw_message(wire.SESSION, raw_field(13, b"x"), descriptors=1), [12])
    with pytest.raises(ProtocolError):
        decoder.next()
    assert decoder.leftovers() == [12]


def test_a_peer_that_only_sends_descriptors_is_stopped_and_none_is_lost():
    decoder = Decoder()
    with pytest.raises(ProtocolError):
        for number in range(100):
            decoder.feed(b"\0", [100 + number])
    left = decoder.leftovers()
    assert left == list(range(100, 100 + len(left))) and len(left) < 20


# --- limits and garbage ----------------------------------------------------------------------------

def test_a_message_longer_than_the_wire_allows_is_refused_by_its_header():
    decoder = Decoder()
    decoder.feed(raw_message(wire.SPAWN, length=MESSAGE_MAX))
    assert decoder.next() is None
    for header in (raw_message(wire.SPAWN, length=MESSAGE_MAX + 1),
                   raw_message(wire.SPAWN, descriptors=DESCRIPTORS_MAX + 1)):
        decoder = Decoder()
        decoder.feed(header)
        with pytest.raises(ProtocolError):
            decoder.next()


def test_a_stranger_may_be_given_a_smaller_limit():
    decoder = Decoder(message_max=10)
    decoder.feed(raw_message(wire.STATE, length=11))
    with pytest.raises(ProtocolError):
        decoder.next()


def test_a_message_that_no_guard_would_take_is_not_made():
    with pytest.raises(ProtocolError):
        encode(wire.SPAWN, env=[bytes(MESSAGE_MAX)])


@pytest.mark.parametrize("body", [
    b"\0", bytes(5), raw_field(1, b"abc")[:-1], struct.pack(">HI", 1, 1 << 31),
    raw_field(1, b"a") + b"\0", raw_field(13, b""), raw_field(13, b"-"), raw_field(13, b"1 "),
    raw_field(13, b"+1"), raw_field(13, b"0x1"), raw_field(13, b"1_0"),
    raw_field(13, "\u0663".encode()), raw_field(13, b"9" * 21), raw_field(13, b"9" * 100000)])
def test_a_body_that_is_no_list_of_fields_is_a_protocol_error(body):
    with pytest.raises(ProtocolError):
        decode(raw_message(wire.OK, body))


def drain(chunks):
    """Feed (data, descriptors, is_whole); returns what became of the descriptors."""
    decoder = Decoder()
    seen = []
    try:
        for data, descriptors, is_whole in chunks:
            decoder.feed(data, descriptors, is_whole)
            message = decoder.next()
            while message is not None:
                seen += message.descriptors or []
                message = decoder.next()
    except ProtocolError:
        pass
    return seen + decoder.leftovers()


CHUNKS = st.lists(st.tuples(
    st.binary(max_size=80) | st.builds(raw_message, st.integers(0, 60), st.binary(max_size=12),
                                       st.integers(0, 3)),
    st.lists(st.integers(3, 1000), max_size=3), st.booleans()), max_size=8)


@given(CHUNKS)
def test_garbage_raises_protocol_error_at_most_and_every_descriptor_stays_somebodys(chunks):
    numbered, number = [], 0
    for data, descriptors, is_whole in chunks:
        numbered.append((data, list(range(number, number + len(descriptors))), is_whole))
        number += len(descriptors)
    accounted = drain(numbered)
    assert len(set(accounted)) == len(accounted)
    fed = []
    decoder = Decoder()
    for data, descriptors, is_whole in numbered:        # those that were fed before an error
        fed += descriptors
        try:
            decoder.feed(data, descriptors, is_whole)
            while decoder.next() is not None:
                pass
        except ProtocolError:
            break
    assert sorted(accounted) == fed
