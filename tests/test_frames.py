"""The client wire: every frame whole, in pieces, with more behind it; limits; garbage."""

import json
import struct

import pytest
from hypothesis import given, strategies as st

from ptyguard_core import frames
from ptyguard_core.errors import Incompatible, ProtocolError
from ptyguard_core.frames import (CONTROL, CONTROL_BYTES_MAX, FROM_CLIENT, FROM_DAEMON,
                                  HELLO_BYTES_MAX, RAW, RAW_BYTES_MAX, Decoder)

CONTROL_FIELDS = {"id": 7, "text": "zwölf \u20ac", "list": [1, None, True, 1.5], "inner": {"a": "b"}}
RAW_DATA = bytes(range(256))
OFFSET = (1 << 40) + 5


def encoded(type_):
    """One frame of this type, and what decoding it gives."""
    if type_ in CONTROL:
        return frames.control(type_, CONTROL_FIELDS), (type_, 0, CONTROL_FIELDS)
    if type_ == frames.OUTPUT:
        return (frames.output_header(len(RAW_DATA), OFFSET) + RAW_DATA, (type_, OFFSET, RAW_DATA))
    return frames.raw_header(type_, len(RAW_DATA)) + RAW_DATA, (type_, 0, RAW_DATA)


ALL = [(type_, accepts) for accepts in (FROM_CLIENT, FROM_DAEMON) for type_ in sorted(accepts)]
each_type = pytest.mark.parametrize("type_, accepts", ALL)


def decode(chunks, accepts=FROM_DAEMON, control_max=CONTROL_BYTES_MAX):
    """All frames of the chunks; pieces of a raw frame are joined."""
    decoder = Decoder(accepts)
    decoder.control_max = control_max
    found = []
    for chunk in chunks:
        for type_, offset, payload in decoder.frames(chunk):
            if type_ in RAW:
                payload = bytes(payload)
                last = found[-1] if found and found[-1][0] == type_ else None
                if last and (type_ != frames.OUTPUT or last[1] + len(last[2]) == offset):
                    found[-1] = (type_, last[1], last[2] + payload)
                    continue
                offset = offset if type_ == frames.OUTPUT else 0
            found.append((type_, offset, payload))
    return found, decoder


def each_byte(data):
    return [data[i:i + 1] for i in range(len(data))]


# --- every frame, three ways -------------------------------------------------------

@each_type
def test_whole_frame_decodes_to_what_was_encoded(type_, accepts):
    data, expected = encoded(type_)
    found, decoder = decode([data], accepts)
    assert found == [expected]
    assert decoder.buffered_bytes == 0


@each_type
def test_frame_split_at_every_byte_decodes_to_the_same_message(type_, accepts):
    data, expected = encoded(type_)
    for at in range(len(data) + 1):
        assert decode([data[:at], data[at:]], accepts)[0] == [expected]


@each_type
def test_frame_that_comes_byte_by_byte_decodes_to_the_same_message(type_, accepts):
    data, expected = encoded(type_)
    assert decode(each_byte(data), accepts)[0] == [expected]


@each_type
def test_what_follows_a_frame_is_left_to_the_next(type_, accepts):
    data, expected = encoded(type_)
    ping, pinged = encoded(frames.PING)
    found, decoder = decode([data + ping[:3]], accepts)
    assert found == [expected]
    assert decoder.buffered_bytes == 3
    assert decode([data + ping + data + ping], accepts)[0] == [expected, pinged] * 2


@each_type
def test_an_empty_payload_is_a_frame_too(type_, accepts):
    if type_ in CONTROL:
        with pytest.raises(ProtocolError):
            decode([struct.pack(">BI", type_, 0)], accepts)
        return
    data = frames.output_header(0, 9) if type_ == frames.OUTPUT else frames.raw_header(type_, 0)
    for chunks in ([data], each_byte(data)):
        found = [(kind, bytes(payload)) for decoder in [Decoder(accepts)] for chunk in chunks
                 for kind, _, payload in decoder.frames(chunk)]
        assert found == [(type_, b"")]


def test_every_type_is_either_raw_or_control_and_somebody_sends_it():
    assert not RAW & CONTROL
    assert RAW | CONTROL == FROM_CLIENT | FROM_DAEMON


# --- raw pieces ------------------------------------------------------------------------

def test_raw_payload_is_handed_on_as_it_arrives_and_nothing_is_kept():
    decoder = Decoder(FROM_DAEMON)
    head = frames.output_header(10, 100)
    assert [bytes(p) for _, _, p in decoder.frames(head + b"abc")] == [b"abc"]
    assert decoder.buffered_bytes == 0
    assert [(o, bytes(p)) for _, o, p in decoder.frames(b"defg")] == [(103, b"defg")]
    assert [(o, bytes(p)) for _, o, p in decoder.frames(b"hij")] == [(107, b"hij")]
    assert list(decoder.frames(b"")) == []


def test_raw_pieces_are_views_of_what_was_fed_not_copies():
    data = bytearray(frames.raw_header(frames.INPUT, 3) + b"abc")
    (_, _, piece), = Decoder(FROM_CLIENT).frames(data)
    data[-1] = ord("X")
    assert bytes(piece) == b"abX"


@given(st.binary(max_size=3000), st.lists(st.integers(1, 700), max_size=20))
def test_raw_bytes_pass_unchanged_however_they_are_cut(data, cuts):
    stream = frames.output_header(len(data), 77) + data
    chunks, at = [], 0
    for size in cuts + [len(stream)]:
        chunks.append(stream[at:at + size])
        at += size
    joined = b"".join(bytes(p) for _, _, p in (f for d in [Decoder(FROM_DAEMON)] for c in chunks
                                               for f in d.frames(c)))
    assert joined == data


def test_long_raw_data_is_cut_into_frames_of_the_greatest_size():
    data = bytes(RAW_BYTES_MAX * 2 + 5)
    stream = frames.raw_frames(frames.RESTORE, data)
    assert len(stream) == len(data) + 3 * 5
    assert decode([stream])[0] == [(frames.RESTORE, 0, data)]
    assert frames.raw_frames(frames.RESTORE, b"") == b""


# --- limits -------------------------------------------------------------------------------

def head(type_, length):
    return struct.pack(">BI", type_, length)


def test_before_hello_only_four_kibibytes_of_control_are_taken():
    decoder = Decoder(FROM_CLIENT)
    list(decoder.frames(head(frames.HELLO, HELLO_BYTES_MAX)))
    with pytest.raises(ProtocolError) as caught:
        list(Decoder(FROM_CLIENT).frames(head(frames.HELLO, HELLO_BYTES_MAX + 1)))
    assert "4097" in caught.value.message and "4096" in caught.value.message


def test_after_hello_control_frames_may_be_long():
    decoder = Decoder(FROM_CLIENT)
    list(decoder.frames(frames.control(frames.HELLO, {})))
    decoder.control_max = CONTROL_BYTES_MAX
    list(decoder.frames(head(frames.REQUEST, CONTROL_BYTES_MAX)))
    decoder = Decoder(FROM_CLIENT)
    decoder.control_max = CONTROL_BYTES_MAX
    with pytest.raises(ProtocolError):
        list(decoder.frames(head(frames.REQUEST, CONTROL_BYTES_MAX + 1)))


@pytest.mark.parametrize("type_", sorted(RAW))
def test_raw_frames_have_a_greatest_size(type_):
    accepts = FROM_CLIENT if type_ in FROM_CLIENT else FROM_DAEMON
    tail = bytes(8) if type_ == frames.OUTPUT else b""
    list(Decoder(accepts).frames(head(type_, RAW_BYTES_MAX) + tail))
    with pytest.raises(ProtocolError):
        list(Decoder(accepts).frames(head(type_, RAW_BYTES_MAX + 1) + tail))


@pytest.mark.parametrize("accepts", [FROM_CLIENT, FROM_DAEMON])
def test_a_type_that_is_not_for_this_side_is_refused_at_its_first_byte(accepts):
    for type_ in set(range(256)) - accepts:
        with pytest.raises(ProtocolError):
            list(Decoder(accepts).frames(bytes([type_])))
        with pytest.raises(ProtocolError):
            list(Decoder(accepts).frames(bytes([type_]) + bytes(12)))


def test_a_message_that_no_peer_would_take_is_not_made():
    with pytest.raises(ProtocolError):
        frames.control(frames.REQUEST, {"env": "x" * CONTROL_BYTES_MAX})


def test_memory_for_an_unfinished_frame_is_counted():
    decoder = Decoder(FROM_CLIENT)
    list(decoder.frames(head(frames.REQUEST, 4000)))
    list(decoder.frames(b"{" * 3000))
    assert decoder.buffered_bytes == 3000


# --- JSON ------------------------------------------------------------------------------------

@pytest.mark.parametrize("body", [
    b"", b"{", b"[]", b"1", b'"text"', b"null", b"{}{}", b"{'a':1}", b"\xff{}", b"\xef\xbb\xbf{}",
    b'{"a":"\xff"}', b'{"a":"\x00"}', b'{"a":}', b"{\x00}",
    b'{"n":' + b"9" * 21 + b"}", b'{"n":-' + b"9" * 100000 + b"}",
    b"[" * 100000, b'{"a":' * 100000, b"[" * 100000 + b"]" * 100000])
def test_what_is_no_small_json_object_is_a_protocol_error(body):
    with pytest.raises(ProtocolError):
        frames.parse_control(body)


def test_numbers_of_sixty_four_bits_pass():
    for number in (0, -1, 1 << 63, (1 << 64) - 1, -(1 << 63)):
        assert frames.parse_control(json.dumps({"n": number}).encode()) == {"n": number}


def test_text_that_is_not_utf8_travels_as_surrogates():
    text = b"\xff/caf\xe9".decode("utf-8", "surrogateescape")
    found, _ = decode([frames.control(frames.REPLY, {"path": text})])
    assert found[0][2]["path"].encode("utf-8", "surrogateescape") == b"\xff/caf\xe9"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(10 ** 18), 10 ** 18) | st.text()
    | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=10)


@given(st.lists(st.dictionaries(st.text(), JSON, max_size=4), max_size=5), st.integers(1, 50))
def test_any_fields_survive_in_chunks_of_any_size(messages, size):
    stream = b"".join(frames.control(frames.EVENT, fields) for fields in messages)
    found, _ = decode([stream[i:i + size] for i in range(0, len(stream), size)])
    assert found == [(frames.EVENT, 0, fields) for fields in messages]


# --- garbage ----------------------------------------------------------------------------------

def feed(decoder, chunks):
    try:
        for chunk in chunks:
            for _ in decoder.frames(chunk):
                pass
    except ProtocolError:
        return
    assert decoder.buffered_bytes <= decoder.control_max + 13


@given(st.lists(st.binary(max_size=200), max_size=10))
def test_garbage_never_raises_anything_but_protocol_error(chunks):
    feed(Decoder(FROM_CLIENT), chunks)
    feed(Decoder(FROM_DAEMON), chunks)


@given(st.sampled_from(sorted(CONTROL)), st.binary(max_size=60), st.text(max_size=60))
def test_framed_garbage_never_raises_anything_but_protocol_error(type_, data, text):
    for body in (data, text.encode("utf-8", "replace"), b'{"a":' + data + b"}"):
        feed(Decoder(frozenset((type_,))), [head(type_, len(body)) + body])


# --- versions ------------------------------------------------------------------------------------

@pytest.mark.parametrize("ours, theirs, expected", [
    ((1, 1), (1, 1), 1), ((1, 3), (2, 5), 3), ((2, 5), (1, 3), 3), ((1, 9), (4, 4), 4),
    ((4, 4), (1, 9), 4), ((1, 2), (2, 3), 2)])
def test_the_highest_protocol_that_both_speak_wins(ours, theirs, expected):
    assert frames.negotiate(ours, theirs) == expected


@pytest.mark.parametrize("ours, theirs", [((1, 1), (2, 3)), ((4, 5), (1, 3)), ((1, 9), (5, 3))])
def test_without_a_common_protocol_the_refusal_names_both_ranges(ours, theirs):
    with pytest.raises(Incompatible) as caught:
        frames.negotiate(ours, theirs)
    assert all(str(number) in caught.value.message for number in ours + theirs)


def test_the_protocol_range_of_a_hello_is_read():
    assert frames.protocol_range({"protocol": [1, 4], "whatever": "is ignored"}) == (1, 4)


@pytest.mark.parametrize("value", [
    None, 1, "1", [], [1], [1, 2, 3], [0, 1], [1, 1 << 16], [1.0, 2], [True, 2], ["1", "2"],
    {"0": 1}, [-1, 2], [None, None]])
def test_a_hello_without_a_protocol_range_is_a_protocol_error(value):
    with pytest.raises(ProtocolError):
        frames.protocol_range({"protocol": value})
    with pytest.raises(ProtocolError):
        frames.protocol_range({})


@given(JSON)
def test_no_value_of_protocol_raises_anything_else(value):
    try:
        low, high = frames.protocol_range({"protocol": value})
    except ProtocolError:
        return
    assert type(low) is int and type(high) is int
