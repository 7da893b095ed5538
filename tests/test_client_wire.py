"""The client's socket under attack: whatever comes, the daemon lives and serves the others.

Raw connections to client.sock that break every rule of docs/PROTOCOL.md.  After each of
them the same daemon (by pid) has as many descriptors as before, and a session that has
nothing to do with it still echoes.
"""

import json
import os
import re
import select
import socket
import struct
import time

import pytest
from hypothesis import HealthCheck, Phase, given, settings, strategies as st

from world import LIMIT_S, MEMORY, World, open_descriptors, wait_until

from ptyguard_core import frames, requests
from ptyguard_core.errors import SessionDestroyed

# Not shrunk: a daemon that has died of an example would take its limit for each attempt.
FEW = settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck),
               phases=(Phase.explicit, Phase.generate), database=None)


class Wire:
    """One raw connection."""

    def __init__(self, path, is_greeting=True):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(LIMIT_S)
        self.sock.connect(path)
        self.decoder = frames.Decoder(frames.FROM_DAEMON)
        self.decoder.control_max = frames.CONTROL_BYTES_MAX
        self.got = []                   # (type, offset, payload) not asked for yet
        self.is_ended = False
        if is_greeting:
            self.hello()
            assert self.expect(frames.WELCOME)["chosen"] == frames.PROTOCOL_MAX

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.sock.close()

    def send(self, data):
        """Send all of it, as far as the daemon still listens."""
        try:
            self.sock.sendall(data)
        except (BrokenPipeError, ConnectionResetError):
            pass

    def hello(self, **fields):
        self.send(frames.control(frames.HELLO, dict(
            {"version": "0.0.0", "pid": os.getpid(), "role": "test",
             "protocol": [frames.PROTOCOL_MIN, frames.PROTOCOL_MAX]}, **fields)))

    def request(self, verb, id_=1, **fields):
        self.send(frames.control(frames.REQUEST, dict(fields, id=id_, verb=verb)))

    def receive(self):
        """Take what comes; False at the end."""
        try:
            data = self.sock.recv(1 << 16)
        except ConnectionResetError:
            data = b""
        self.is_ended = not data
        for type_, offset, payload in self.decoder.frames(data):
            self.got.append((type_, offset, bytes(payload) if type_ in frames.RAW else payload))
        return not self.is_ended

    def expect(self, type_, fact=lambda payload: True):
        """The next frame of that type of which `fact` is true; what else came is forgotten."""
        while True:
            while self.got:
                found, _, payload = self.got.pop(0)
                if found == type_ and fact(payload):
                    return payload
            assert self.receive(), f"closed before a frame of type {type_} came"

    def answer(self, id_=1):
        """The reply to the request of that id: its `ok`, or its `error`."""
        reply = self.expect(frames.REPLY, lambda payload: payload["id"] == id_)
        return reply["ok"] if "ok" in reply else reply["error"]

    def until_end(self):
        """All frames until the daemon closes."""
        while self.receive():
            pass
        return self.got

    def refusal(self):
        """The error with which the daemon refused us; it has closed."""
        events = [payload for type_, _, payload in self.until_end() if type_ == frames.EVENT]
        assert [event["event"] for event in events] == ["refused"]
        return events[0]["error"]


@pytest.fixture(scope="module")
def path(world, pg):
    return world.paths.client_socket


@pytest.fixture(scope="module")
def bystander(pg, path):
    """A connection on a session of its own: `bystander()` proves that it still echoes."""
    session = pg.start(["sh", "-c", "stty -echo; echo ready; while read x; do echo got $x; done"],
                       "bystander")
    session.wait_for(b"ready", LIMIT_S)
    wire = Wire(path)
    wire.request("attach", target="bystander", interactive=True, **{"from": "now"})
    wire.answer()
    count = [0]

    def echo():
        count[0] += 1
        word = b"word%d" % count[0]
        wire.send(frames.raw_frames(frames.INPUT, word + b"\n"))
        seen = b""
        while b"got " + word not in seen:
            seen += wire.expect(frames.OUTPUT)
    with wire:
        yield echo


@pytest.fixture(scope="module")
def check(world, pg, bystander):
    """`check()`: the daemon is the same, has leaked nothing, and serves."""
    pid = world.daemon_pid()

    def besides_sessions():
        """Descriptors that no session accounts for: a ring costs two, a terminal one."""
        kept = [session.facts for session in pg.sessions()]
        return (open_descriptors(pid) - 2 * sum(facts["offsets"] is not None for facts in kept)
                - sum(facts["state"] == "running" for facts in kept))
    bystander()
    before = besides_sessions()

    def unharmed():
        assert world.daemon_pid() == pid
        bystander()
        wait_until(lambda: besides_sessions() <= before, "the descriptors of before")
    return unharmed


# -- hello -----------------------------------------------------------------------------------------


def test_hello_is_answered_with_who_serves(world, path):
    with Wire(path, is_greeting=False) as wire:
        wire.hello(unknown_field={"from": "the future"})
        told = wire.expect(frames.WELCOME)
    assert told["pid"] == world.daemon_pid() and told["guard_pid"] == world.guard_pid()
    assert told["protocol"] == [frames.PROTOCOL_MIN, frames.PROTOCOL_MAX]
    for field in ("version", "pid_start", "instance", "host", "boot_id", "owner", "sessions",
                  "guard_version",
                  "update"):
        assert field in told


@pytest.mark.parametrize("theirs", [[97, 99], [65535, 65535]])
def test_ranges_without_a_common_protocol_are_a_refusal_that_names_both(path, check, theirs):
    with Wire(path, is_greeting=False) as wire:
        wire.hello(protocol=theirs)
        error = wire.refusal()
    assert error["kind"] == "incompatible"
    assert f"{frames.PROTOCOL_MIN} to {frames.PROTOCOL_MAX}" in error["message"]
    assert f"{theirs[0]} to {theirs[1]}" in error["message"]
    check()


def test_a_range_that_reaches_into_the_future_meets_at_our_highest(path):
    with Wire(path, is_greeting=False) as wire:
        wire.hello(protocol=[1, 9])
        assert wire.expect(frames.WELCOME)["chosen"] == frames.PROTOCOL_MAX


@pytest.mark.parametrize("protocol",
                         [None, 1, "1", [], [1], [1, 2, 3], ["1", "1"], [True, True], [0, 1],
                          [-1, 5],
                                      [1.0, 1.0], [1, 1 << 20], {"min": 1}])
def test_a_hello_without_a_usable_range_is_refused(path, protocol):
    with Wire(path, is_greeting=False) as wire:
        wire.hello(protocol=protocol)
        assert wire.refusal()["kind"] == "protocol"


@pytest.mark.parametrize("frame", [
    frames.control(frames.REQUEST, {"id": 1, "verb": "ls"}),
    frames.raw_frames(frames.INPUT, b"x"),
    frames.control(frames.PING, {}),
])
def test_hello_comes_before_anything_else(path, check, frame):
    with Wire(path, is_greeting=False) as wire:
        wire.send(frame)
        assert "hello comes first" in wire.refusal()["message"]
    check()


def test_who_says_nothing_is_disconnected(path, check):
    with Wire(path, is_greeting=False) as silent, Wire(path, is_greeting=False) as slow:
        slow.send(frames.control(frames.HELLO, {"protocol": [1, 1]})[:-1])
        assert silent.until_end() == [] and slow.until_end() == []
    check()


def test_a_hello_of_single_bytes_is_a_hello(path):
    with Wire(path, is_greeting=False) as wire:
        for byte in frames.control(frames.HELLO, {"protocol": [1, 1]}) + frames.control(
                frames.REQUEST, {"id": 5, "verb": "ls"}):
            wire.send(bytes([byte]))
        wire.expect(frames.WELCOME)
        assert "sessions" in wire.answer(5)


def test_a_second_hello_and_a_ping_are_answered(path):
    with Wire(path) as wire:
        wire.hello()
        wire.expect(frames.WELCOME)
        wire.send(frames.control(frames.PING, {}))
        wire.expect(frames.PONG)


# -- frames ----------------------------------------------------------------------------------------


@FEW
@given(st.binary(max_size=3000), st.booleans())
def test_garbage_ends_its_own_connection_only(path, check, data, has_said_hello):
    with Wire(path, has_said_hello) as wire:
        wire.send(data)
        wire.sock.shutdown(socket.SHUT_WR)
        wire.until_end()
    check()


@FEW
@given(st.sampled_from(sorted(frames.RAW | frames.CONTROL | {0, 12, 200, 255})),
       st.integers(0, (1 << 32) - 1),
       st.binary(max_size=300))
def test_any_header_with_any_body_ends_its_own_connection_only(path, check, type_, length, body):
    with Wire(path) as wire:
        wire.send(struct.pack(">BI", type_, length) + body)
        wire.sock.shutdown(socket.SHUT_WR)
        wire.until_end()
    check()


def test_a_frame_cut_at_every_byte_is_the_end_of_that_connection(path, check):
    whole = frames.control(frames.HELLO, {"protocol": [1, 1], "version": "x"})
    for at in range(len(whole)):
        with Wire(path, is_greeting=False) as wire:
            wire.send(whole[:at])
    whole = frames.control(frames.REQUEST, {"id": 1, "verb": "info", "target": "bystander"})
    for at in range(0, len(whole), 3):
        with Wire(path) as wire:
            wire.send(whole[:at])
            wire.sock.shutdown(socket.SHUT_WR)
            assert all(type_ != frames.REPLY for type_, _, _ in wire.until_end())
    check()


@pytest.mark.parametrize("type_", sorted(frames.FROM_DAEMON - frames.FROM_CLIENT) + [0, 99, 255])
def test_a_type_that_is_not_for_the_daemon_is_refused(path, type_):
    with Wire(path) as wire:
        wire.send(struct.pack(">BI", type_, 0))
        error = wire.refusal()
    assert error["kind"] == "protocol" and f"frame type {type_}" in error["message"]


def padded(type_, size, **fields):
    """A control frame with a body of exactly `size` bytes."""
    body = json.dumps(fields).encode()
    return struct.pack(">BI", type_, size) + body + b" " * (size - len(body))


def test_frames_are_taken_up_to_their_limits_and_not_beyond(path, check):
    with Wire(path, is_greeting=False) as wire:
        wire.send(padded(frames.HELLO, frames.HELLO_BYTES_MAX, protocol=[1, 1]))
        wire.expect(frames.WELCOME)
        wire.send(padded(frames.REQUEST, frames.CONTROL_BYTES_MAX, id=1, verb="ls"))
        assert "sessions" in wire.answer()
        wire.send(frames.raw_frames(frames.INPUT,
                                    b"x" * frames.RAW_BYTES_MAX))     # typed at nobody
        wire.request("ls", 2)
        assert "sessions" in wire.answer(2)
    for is_greeting, type_, size in ((False, frames.HELLO, frames.HELLO_BYTES_MAX + 1),
                                     (True, frames.REQUEST, frames.CONTROL_BYTES_MAX + 1),
                                     (True, frames.INPUT, frames.RAW_BYTES_MAX + 1),
                                     (True, frames.INPUT, (1 << 32) - 1)):
        with Wire(path, is_greeting) as wire:
            wire.send(struct.pack(">BI", type_, size))
            assert f"of {size} bytes" in wire.refusal()["message"]
    check()


@pytest.mark.parametrize("body", [
    b"", b"[]", b"1", b"null", b"{", b"{}x", b"\xff\xfe", b'"text"', b"[" * 100000,
    b'{"a":' * 50000,
    b'{"id": ' + b"9" * 5000 + b"}", b'{"id":1,"verb":"ls"', b"\x00" * 100,
])
def test_what_is_no_json_object_is_refused(path, check, body):
    with Wire(path) as wire:
        wire.send(struct.pack(">BI", frames.REQUEST, len(body)) + body)
        assert wire.refusal()["kind"] == "protocol"
    check()


# -- requests --------------------------------------------------------------------------------------


FIELDS = ("target", "inside", "name", "argv", "env", "cwd", "size", "echo", "umask", "nice",
          "limits", "ring_bytes",
          "executable", "id_wanted", "if_exists", "from", "hold", "mode", "incarnation",
          "interactive", "viewer",
          "may_type", "read_only", "offset", "limit", "bytes", "enter", "ticket", "collect",
          "signal", "grace")

ODD = st.one_of(
    st.none(), st.booleans(), st.integers(-(10 ** 18), 10 ** 18), st.floats(), st.sampled_from([
        "", "victim", "@", "@victim", "bystanderx", "\ud800", "a\0b", "x" * 5000, "\x1b[31m",
        "restore", "oldest",
        "now", "always", "leader", "never", "use", "rejoin", 0, 1, -1, 9, 1 << 31, 1 << 63]),
    st.text(max_size=20))
VALUES = st.recursive(ODD, lambda inner: st.one_of(
    st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=5), inner, max_size=3)),
                      max_leaves=6)


@pytest.fixture(scope="module")
def victim(pg):
    """`victim()`: there is a living session of that name, for fuzzed requests to hit."""
    def make():
        try:
            pg.ensure("victim", ["cat"])
        except SessionDestroyed:        # a fuzzed `rm` hit it
            pg.start(["cat"], "victim")
    return make


@pytest.mark.parametrize("verb", sorted(requests.VERBS))
@settings(FEW, max_examples=30)
@given(st.dictionaries(st.sampled_from(FIELDS), VALUES, max_size=5), VALUES, st.booleans())
def test_a_request_with_fields_of_any_type_gets_an_answer_or_none_and_harms_nobody(
        path, check, victim, verb, fields, id_, is_aimed):
    victim()
    if is_aimed:
        fields = dict(fields, target="victim")
    if verb == "start":
        fields.pop("ring_bytes", None)
    with Wire(path) as wire:
        wire.send(frames.control(frames.REQUEST, dict(fields, verb=verb, id=id_)))
        wire.request("resolve", "probe", target="bystander")
        # `attach` may have made output flow, so what comes is looked through.
        assert wire.answer("probe")["session"]["name"] == "bystander"
    check()


@pytest.mark.parametrize("verb",
                         [None, 1, [], {}, True, "", "__class__", "nothing", "ls\0", "x" * 100000,
                          "\ud800"])
def test_a_verb_that_is_none_is_a_usage_error(path, verb):
    with Wire(path) as wire:
        wire.send(frames.control(frames.REQUEST, {"id": 1, "verb": verb}))
        assert wire.answer()["kind"] == "usage"


@pytest.mark.parametrize("fields", [
    {"verb": "attach", "hold": []}, {"verb": "attach", "hold": {}},
    {"verb": "attach", "hold": float("nan")},
    {"verb": "attach", "hold": float("inf")}, {"verb": "attach", "from": -5},
    {"verb": "attach", "from": 10 ** 19},
    {"verb": "attach", "size": [0, 0]}, {"verb": "attach", "size": [True, True]},
    {"verb": "attach", "size": "80x24"},
    {"verb": "read", "offset": 1.5}, {"verb": "read", "limit": -1},
    {"verb": "read", "limit": 10 ** 15},
    {"verb": "send", "bytes": -1}, {"verb": "send", "bytes": 1 << 40},
    {"verb": "send", "bytes": "1"},
    {"verb": "kill", "grace": float("nan")}, {"verb": "kill", "grace": -1},
    {"verb": "kill", "signal": 100000},
    {"verb": "kill", "signal": True}, {"verb": "resize", "size": [1, 1 << 16]}, {"verb": "resize"},
    {"verb": "info", "target": ["bystander"]}, {"verb": "info", "target": "a\0b"},
    {"verb": "start"}, {"verb": "start", "argv": []}, {"verb": "start", "argv": ["a\0b"]},
    {"verb": "start", "argv": [1]}, {"verb": "start", "argv": ["true"], "env": None},
    {"verb": "start", "argv": ["true"], "env": [], "name": "\ud800"},
    {"verb": "start", "argv": ["\ud800"], "env": []},
    {"verb": "start", "argv": ["true"], "env": [], "id_wanted": "../x"},
    {"verb": "start", "argv": ["true"], "env": [], "ring_bytes": 1},
    {"verb": "start", "argv": ["true"], "env": [], "ring_bytes": 1 << 50},
    {"verb": "start", "argv": ["true"], "env": [], "umask": 0o7777},
])
def test_a_field_of_a_wrong_kind_is_a_typed_error_and_nothing_is_done(pg, path, check, fields):
    before = [session.id for session in pg.sessions()]
    with Wire(path) as wire:
        wire.send(frames.control(frames.REQUEST, dict({"target": "bystander"}, id=1, **fields)))
        assert wire.answer()["kind"] in ("usage", "output_gap", "protocol")
    assert [session.id for session in pg.sessions()] == before
    check()


def test_an_id_that_makes_the_late_reply_too_long_harms_nobody(pg, path, check):
    session = pg.start(["cat"], "late")
    with Wire(path) as wire:
        for number in range(2):
            wire.request("wait", "x" * (frames.CONTROL_BYTES_MAX - 100), target="late")
        wire.request("ls", 7)
        wire.answer(7)
        session.kill(0.2)
        wire.sock.shutdown(socket.SHUT_WR)
        wire.until_end()
    check()


def test_a_connection_follows_one_session_and_another_after_it_has_left(path, bystander, victim):
    victim()
    with Wire(path) as wire:
        wire.request("attach", 1, target="bystander", **{"from": "oldest"})
        wire.answer(1)
        wire.request("attach", 2, target="victim")
        assert wire.answer(2)["kind"] == "busy"
        wire.request("send", 3, target="victim", bytes=1)
        assert wire.answer(3)["kind"] == "busy"
        wire.request("leave", 4)
        wire.answer(4)
        wire.request("attach", 5, target="victim")
        assert wire.answer(5)["session"]["name"] == "victim"


def test_input_of_who_may_not_type_reaches_nobody(pg, path):
    session = pg.start(["sh", "-c", "stty -echo; echo ready; while read x; do echo got $x; done"],
                       "no-typing")
    session.wait_for(b"ready", LIMIT_S)
    with Wire(path) as stranger, Wire(path) as reader:
        reader.request("attach", target="no-typing", read_only=True, interactive=True, viewer=True)
        reader.answer()
        for wire in (stranger, reader):
            wire.send(frames.raw_frames(frames.INPUT, b"typed\n"))
            wire.request("end_input", 9)
            wire.answer(9)
    session.send(b"end\n")
    session.wait_for(b"got end", LIMIT_S)
    assert b"typed" not in session.read()[1]


# -- output, by offset -----------------------------------------------------------------------------


def test_a_resume_is_raw_and_begins_at_its_offset_or_is_told_why_not(pg, path):
    session = pg.start(["sh", "-c", r"printf 'before\033[1mafter'; read x"], "resumed")
    session.wait_for(b"after", LIMIT_S)
    incarnation = session.facts["incarnation"]
    with Wire(path) as wire:
        wire.request("attach", target="@" + session.id, incarnation=incarnation, **{"from": 3})
        assert wire.answer()["offset"] == 3
        assert wire.expect(frames.EVENT)["event"] == "live"
        assert wire.expect(frames.OUTPUT) == b"ore\x1b[1mafter"
    for fields, kind in (({"from": 3, "incarnation": incarnation + 1}, "no_such_session"),
                         ({"from": 100000, "incarnation": incarnation}, "output_gap")):
        with Wire(path) as wire:
            wire.request("attach", target="@" + session.id, **fields)
            assert wire.answer()["kind"] == kind


def test_a_gap_is_told_with_both_ends_in_the_place_of_what_is_gone(pg, path):
    session = pg.start(["seq", "60000"], "gappy", scrollback=65536)
    session.wait(LIMIT_S)
    start, end = (session.info()["offsets"][key] for key in ("start", "end"))
    with Wire(path) as wire:
        wire.request("attach", target="gappy", **{"from": 7})
        wire.answer()
        gap = wire.expect(frames.EVENT, lambda event: event["event"] == "gap")
        assert (gap["from"], gap["to"]) == (7, start)
        output = b""
        while len(output) < end - start:
            output += wire.expect(frames.OUTPUT)
    assert output == b"".join(b"%d\r\n" % n for n in range(1, 60001))[start:]


def test_each_client_gets_one_exit_event_and_gets_it_after_its_last_byte(pg, path):
    session = pg.start(["sh", "-c", "stty -echo; echo ready; read x; seq 100000; exit 5"], "ending")
    session.wait_for(b"ready", LIMIT_S)
    wires = [Wire(path) for _ in range(5)]
    for wire, hold in zip(wires, ("never", "never", "always", 60, "leader")):
        wire.request("attach", target="ending", hold=hold, interactive=hold == "leader",
                     **{"from": "oldest"})
        wire.answer()
    session.send(b"\n")
    assert session.wait(LIMIT_S)["code"] == 5
    size = session.info()["offsets"]["end"]
    for wire in wires:
        seen = 0
        while True:
            while not wire.got:
                assert wire.receive()
            type_, offset, payload = wire.got.pop(0)
            if type_ == frames.OUTPUT:
                assert offset == seen
                seen += len(payload)
            elif type_ == frames.EVENT and payload["event"] == "exit":
                break
        assert seen == size and payload["offset"] == size
        assert payload["session"]["exit"] == {"code": 5, "signal": None} and payload["spawn"] == 1
        wire.request("leave", 2)
        wire.answer(2)
        wire.sock.shutdown(socket.SHUT_WR)
        assert wire.until_end() == []               # and nothing more


def test_very_many_resizes_are_taken_and_the_last_one_holds(pg, path, check):
    session = pg.start(["sh", "-c", "trap 'stty size' WINCH; echo ready; while :; do read x; done"],
                       "resized")
    session.wait_for(b"ready", LIMIT_S)
    sizes = [[80 + n % 7, 24 + n % 5] for n in range(5000)] + [[91, 33]]
    with Wire(path) as wire:
        for at in range(0, len(sizes), 100):
            wire.send(b"".join(frames.control(frames.REQUEST, {
                "id": at + n, "verb": "resize", "target": "resized", "size": size})
                for n, size in enumerate(sizes[at:at + 100])))
            wire.answer(at + min(100, len(sizes) - at) - 1)
    session.wait_for(b"33 91\n", LIMIT_S)
    assert session.info()["size"] == {"cols": 91, "rows": 33}
    check()


# -- many, slow, and greedy ------------------------------------------------------------------------


def test_two_hundred_connections_are_served_and_leave_nothing(path, check):
    wires = [Wire(path, is_greeting=False) for _ in range(200)]
    for wire in wires:
        wire.hello()
        wire.request("ls", 1)
    for wire in wires:
        wire.expect(frames.WELCOME)
        assert "sessions" in wire.answer()
    for wire in wires[::2]:
        wire.request("attach", 2, target="bystander", **{"from": "oldest"})
        wire.answer(2)
    for wire in wires:
        wire.sock.close()
    check()


def test_over_the_limit_of_clients_the_refusal_names_it():
    with World(under=MEMORY, PTYGUARD_MAX_CLIENTS="4") as world:
        world.run("ls", check=0)
        path = world.paths.client_socket
        wires = [Wire(path) for _ in range(4)]
        with Wire(path, is_greeting=False) as fifth:
            error = fifth.refusal()
        assert error["kind"] == "limit_reached" and "4 clients" in error["message"]
        assert b"4 clients" in world.run("ls", check=1).stderr
        wires.pop().sock.close()
        wait_until(lambda: world.run("ls").returncode == 0, "room")
        for wire in wires:
            wire.sock.close()


def test_who_does_not_read_its_replies_is_not_listened_to_and_costs_bounded_memory(
        world, path, check):
    with Wire(path) as wire:
        wire.sock.setblocking(False)
        frame = frames.control(frames.REQUEST, {"id": 1, "verb": "info", "target": "bystander"})

        def is_stuck():
            try:
                while True:
                    wire.sock.send(frame * 100)
            except BlockingIOError:
                # Full; and nothing is taken any more.
                return not select.select([], [wire.sock], [], 0.2)[1]
            except (BrokenPipeError, ConnectionResetError):
                return True
        wait_until(is_stuck, "the daemon's patience")
        assert peak_kib(world) < 200 * 1024
    check()


def peak_kib(world):
    with open(f"/proc/{world.daemon_pid()}/status") as status:
        return int(re.search(r"VmHWM:\s+(\d+)", status.read()).group(1))


def test_a_burst_of_requests_for_all_of_the_history_costs_bounded_memory(world, pg, path, check):
    # What used to happen: all requests of one receive were answered before anybody looked
    # at what that costs: a thousand times a megabyte.
    session = pg.start(["sh", "-c", "seq 200000"], "long")
    session.wait(LIMIT_S)
    assert session.info()["offsets"]["end"] > 1 << 20
    burst = frames.control(frames.REQUEST, {"id": 1, "verb": "read", "target": "long"}) * 1000
    with Wire(path) as wire:
        wire.send(burst)
        for _ in range(20):             # each is answered, in its turn
            assert wire.answer()["size"] > 900000
    assert peak_kib(world) < 100 * 1024
    check()


def test_half_a_frame_of_four_megabytes_each_from_many_is_bounded_for_all_together(
        world, path, check):
    head = struct.pack(">BI", frames.REQUEST, frames.CONTROL_BYTES_MAX)
    wires = [Wire(path) for _ in range(24)]
    for wire in wires:
        wire.send(head + b" " * (frames.CONTROL_BYTES_MAX - 1))
    # 96 MiB are more than the 64 for all: some have been closed.
    wait_until(lambda: sum(is_closed(wire) for wire in wires) >= 8,
               "those for whom there is no room")
    assert peak_kib(world) < 300 * 1024
    for wire in wires:
        wire.sock.close()
    check()


def is_closed(wire):
    if not wire.is_ended and select.select([wire.sock], [], [], 0)[0]:
        wire.receive()
    return wire.is_ended


def test_a_follower_that_takes_a_byte_now_and_then_hinders_nobody(pg, path, check):
    session = pg.start(["sh", "-c",
                        "stty -echo; echo ready; read x; seq 300000; echo end of flood"], "drip")
    session.wait_for(b"ready", LIMIT_S)
    with Wire(path) as wire:
        wire.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        wire.request("attach", target="drip", interactive=True, viewer=True, hold="leader",
                     size=[80, 24])
        wire.answer()
        session.send(b"\n")
        deadline = time.monotonic() + LIMIT_S
        while session.info()["state"] != "ended":
            assert time.monotonic() < deadline
            wire.sock.recv(1)
    assert b"end of flood" in session.read(-100)[1]
    check()
