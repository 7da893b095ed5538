"""The ring: absolute offsets, the wrap, eviction, and a kill at every instruction."""

import mmap
import os
import random
import signal
import subprocess
import sys
import tempfile

import pytest
from hypothesis import given, strategies as st

from ptyguard_core import ring as ring_module
from ptyguard_core.errors import OutputGap, RingCorrupt
from ptyguard_core.ring import CAPACITY_MIN, HEADER_BYTES, WINDOW_BYTES, Ring, memory_bytes

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
HISTORY = CAPACITY_MIN - WINDOW_BYTES
POOL = random.Random(7).getrandbits(8 * (1 << 20)).to_bytes(1 << 20, "big")    # has 0xFF in it


def new_ring(capacity=CAPACITY_MIN):
    memory = bytearray(memory_bytes(capacity))
    return memory, Ring.format(memory)


def put(ring, data):
    """Write all of `data` as a terminal's reader does: piece by piece."""
    while data:
        view = ring.writable(len(data))
        view[:] = data[:len(view)]
        ring.commit(len(view))
        data = data[len(view):]


def everything(ring):
    return ring.read(ring.start_offset, ring.capacity)


def states_during(memory, act):
    """Copies of `memory` before each line of ring.py that `act` runs, and after it.

    Each is what a kill at that instruction would leave.  Between two of them a store
    may be half done: for the data area the states with a part of it are added.
    """
    states = []

    def trace(frame, event, _):
        if frame.f_code.co_filename != ring_module.__file__:
            return None
        if event == "line":
            states.append(bytes(memory))
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        act()
    finally:
        sys.settrace(before)
    states.append(bytes(memory))
    return states + [half for one, next_ in zip(states, states[1:])
                     for half in _half_done(one, next_)]


def _half_done(before, after):
    changed = [i for i in range(HEADER_BYTES, len(before)) if before[i] != after[i]] \
        if before[HEADER_BYTES:] != after[HEADER_BYTES:] else []
    if before[:HEADER_BYTES] == after[:HEADER_BYTES]:
        for at in changed[1::max(1, len(changed) // 3)]:
            yield before[:at] + after[at:]          # memcpy may go either way
            yield after[:at] + before[at:]


# --- offsets ---------------------------------------------------------------------

def test_new_ring_is_empty_and_begins_at_zero():
    _, ring = new_ring()
    assert (ring.start_offset, ring.end_offset) == (0, 0)
    assert ring.views(0, 100) == []
    assert ring.read(0, 100) == b""


def test_output_is_read_back_from_any_offset_and_up_to_any_limit():
    _, ring = new_ring()
    put(ring, b"hello, world")
    assert ring.end_offset == 12
    assert ring.read(0, 5) == b"hello"
    assert ring.read(7, 100) == b"world"
    assert ring.read(12, 100) == b""
    assert ring.read(3, 0) == b""


def test_an_offset_beyond_the_end_is_the_callers_mistake():
    _, ring = new_ring()
    put(ring, b"abc")
    with pytest.raises(ValueError):
        ring.views(4, 1)


def test_formatting_forgets_what_the_memory_held():
    memory = bytearray(POOL[:memory_bytes(CAPACITY_MIN)])
    ring = Ring.format(memory)
    put(ring, b"new")
    assert Ring.adopt(bytearray(memory)).read(0, 100) == b"new"


@pytest.mark.parametrize("capacity", [0, 1, CAPACITY_MIN - 1])
def test_too_little_memory_is_refused_and_let_go(capacity):
    # A refused format used to keep its views, so that the memory could not be unmapped.
    memory = mmap.mmap(-1, memory_bytes(capacity))
    with pytest.raises(RingCorrupt) as caught:
        Ring.format(memory)
    memory.close()
    assert str(capacity) in caught.value.message


def test_released_ring_lets_its_memory_be_unmapped():
    memory = mmap.mmap(-1, memory_bytes(CAPACITY_MIN))
    Ring.format(memory).release()
    Ring.adopt(memory).release()
    memory.close()


# --- wrap and eviction ---------------------------------------------------------------

def test_exactly_capacity_less_the_window_is_kept():
    _, ring = new_ring()
    put(ring, POOL[:HISTORY])
    assert ring.start_offset == 0
    assert everything(ring) == POOL[:HISTORY]
    put(ring, b"x")
    assert ring.start_offset == 1
    assert everything(ring) == POOL[1:HISTORY] + b"x"


def test_eviction_goes_byte_by_byte_not_by_chunks():
    _, ring = new_ring()
    put(ring, POOL[:3 * CAPACITY_MIN])
    for count in (1, 2, 700, WINDOW_BYTES):
        before = ring.start_offset
        assert ring.start_after(count) == before + count
        put(ring, POOL[:count])
        assert ring.start_offset == before + count


def test_evicted_output_is_a_gap_that_tells_where_output_begins():
    _, ring = new_ring()
    put(ring, POOL[:HISTORY + 10])
    with pytest.raises(OutputGap) as caught:
        ring.read(9, 1)
    assert caught.value.first_offset == 10
    assert ring.read(10, 5) == POOL[10:15]


def test_views_at_the_wrap_are_two_and_elsewhere_one():
    _, ring = new_ring()
    put(ring, POOL[:CAPACITY_MIN + 100])
    at_wrap = ring.views(CAPACITY_MIN - 50, 120)
    assert [len(view) for view in at_wrap] == [50, 70]
    assert b"".join(at_wrap) == POOL[CAPACITY_MIN - 50:CAPACITY_MIN + 70]
    assert [len(view) for view in ring.views(CAPACITY_MIN - 50, 50)] == [50]
    assert [len(view) for view in ring.views(CAPACITY_MIN, 50)] == [50]


def test_views_are_the_memory_itself():
    memory, ring = new_ring()
    put(ring, b"abc")
    view, = ring.views(0, 3)
    memory[HEADER_BYTES] = ord("A")
    assert bytes(view) == b"Abc"


def test_writable_is_one_piece_within_the_window_and_ends_at_the_wrap():
    _, ring = new_ring()
    assert len(ring.writable(10)) == 10
    assert len(ring.writable(1 << 20)) == WINDOW_BYTES
    put(ring, POOL[:CAPACITY_MIN - 5])
    assert len(ring.writable(1 << 20)) == 5


def test_the_window_is_all_ones_before_it_may_be_written():
    _, ring = new_ring()
    for count in (1, 5000, WINDOW_BYTES, CAPACITY_MIN - 3, 10):
        put(ring, POOL[:count])
        assert bytes(ring.writable(WINDOW_BYTES)).strip(b"\xff") == b""


# --- kills -----------------------------------------------------------------------------

def test_output_read_and_not_counted_is_recovered():
    memory, ring = new_ring()
    put(ring, b"counted")
    ring.writable(9)[:] = b" and read"
    successor = Ring.adopt(memory)
    assert successor.recovered_bytes == 9
    assert successor.read(0, 100) == b"counted and read"


def test_nothing_is_recovered_after_a_clean_end():
    memory, ring = new_ring()
    put(ring, b"all counted\xff\xff")
    successor = Ring.adopt(memory)
    assert successor.recovered_bytes == 0
    assert successor.read(0, 100) == b"all counted\xff\xff"


def test_0xff_inside_an_interrupted_read_survives():
    memory, ring = new_ring()
    ring.writable(5)[:] = b"\xff\xffa\xffb"
    assert Ring.adopt(memory).read(0, 100) == b"\xff\xffa\xffb"


def test_trailing_0xff_of_an_interrupted_read_is_the_one_exception():
    memory, ring = new_ring()
    put(ring, b"kept\xff")
    ring.writable(4)[:] = b"ab\xff\xff"
    successor = Ring.adopt(memory)
    assert successor.read(0, 100) == b"kept\xffab"
    put(successor, b"next")
    assert successor.read(0, 100) == b"kept\xffabnext"


def test_recovery_at_the_wrap_takes_both_parts():
    memory, ring = new_ring()
    put(ring, POOL[:CAPACITY_MIN - 3])
    ring.writable(3)[:] = b"xyz"
    assert Ring.adopt(memory).read(CAPACITY_MIN - 3, 100) == b"xyz"


@pytest.mark.parametrize("before", [
    0, 1, HISTORY - 10, HISTORY, CAPACITY_MIN - WINDOW_BYTES // 2, CAPACITY_MIN - 600,
    2 * CAPACITY_MIN, 3 * CAPACITY_MIN - WINDOW_BYTES - 300])
@pytest.mark.parametrize("data", [
    b"x", b"line\r\n" * 100, b"\xff\xfe" * 300, POOL[:WINDOW_BYTES], b"abc" + b"\xff" * 500])
def test_a_kill_at_any_instruction_of_a_commit_loses_and_invents_nothing(before, data):
    memory, ring = new_ring()
    stream = POOL[:before]
    put(ring, stream)
    view = ring.writable(len(data))
    data = data[:len(view)]
    view[:] = data
    for state in states_during(memory, lambda: ring.commit(len(data))):
        successor = Ring.adopt(bytearray(state))
        whole = stream + data
        if successor.end_offset != len(whole):      # the exception
            whole = stream + data.rstrip(b"\xff")
        assert successor.end_offset == len(whole)
        assert everything(successor) == whole[successor.start_offset:]
        put(successor, b"and on")
        assert everything(successor) == (whole + b"and on")[successor.start_offset:]


def test_a_kill_after_a_fill_does_not_turn_the_oldest_output_into_0xff():
    # The fill had made room for all of a read; its trailing 0xFF were then not recovered,
    # so that as many of the oldest bytes, filled over, still counted as output.
    memory, ring = new_ring()
    put(ring, b"o" * (2 * CAPACITY_MIN))
    ring.writable(6)[:] = b"ab" + b"\xff" * 4
    for state in states_during(memory, lambda: ring.commit(6)):
        assert everything(Ring.adopt(bytearray(state))).rstrip(b"ab\xff").strip(b"o") == b""


def test_a_kill_at_any_instruction_of_a_recovery_is_recovered_the_same():
    memory, ring = new_ring()
    put(ring, POOL[:CAPACITY_MIN - 100])
    ring.writable(100)[:] = bytes(range(100))
    found = POOL[:CAPACITY_MIN - 100] + bytes(range(100))
    killed = bytearray(memory)
    for state in states_during(killed, lambda: Ring.adopt(killed)):
        successor = Ring.adopt(bytearray(state))
        assert successor.end_offset == len(found)
        assert everything(successor) == found[successor.start_offset:]


def test_a_kill_at_any_instruction_of_a_format_leaves_no_ring_or_an_empty_one():
    memory = bytearray(memory_bytes(CAPACITY_MIN))
    adopted = 0
    for state in states_during(memory, lambda: Ring.format(memory)):
        try:
            ring = Ring.adopt(bytearray(state))
        except RingCorrupt:
            continue
        adopted += 1
        assert (ring.end_offset, ring.recovered_bytes) == (0, 0)
    assert adopted


WRITES = st.tuples(st.integers(1, WINDOW_BYTES), st.integers(0, len(POOL) - WINDOW_BYTES),
                   st.integers(0, 3), st.sampled_from(["commit", "kill", "kill in commit"]),
                   st.integers(0, 1 << 16))


@given(st.integers(0, 3 * CAPACITY_MIN), st.lists(WRITES, max_size=12))
def test_ring_with_kills_in_between_is_a_plain_stream_of_bytes(before, writes):
    memory, ring = new_ring()
    stream = bytearray(POOL[:before])
    put(ring, bytes(stream))
    for size, at, trailing, fate, when in writes:
        view = ring.writable(size)
        data = (POOL[at:at + size] + b"\xff" * trailing)[-len(view):]
        view[:] = data
        if fate == "commit":
            ring.commit(len(data))
            stream += data
        else:
            states = [bytes(memory)]
            if fate == "kill in commit":
                states = states_during(memory, lambda: ring.commit(len(data)))
            memory = bytearray(states[when % len(states)])
            ring = Ring.adopt(memory)
            whole = ring.end_offset == len(stream) + len(data)
            stream += data if whole else data.rstrip(b"\xff")
        assert ring.end_offset == len(stream)
        assert everything(ring) == stream[ring.start_offset:]
        assert len(everything(ring)) == min(len(stream), HISTORY)


_READER = """
import mmap, os, sys
from ptyguard_core.ring import Ring
memory = mmap.mmap(int(sys.argv[1]), 0)
ring = Ring.adopt(memory)
with open(0, "rb", buffering=0) as source:
    while True:
        count = source.readinto(ring.writable(1 << 16))     # no byte is ever only here
        if not count:
            break
        ring.commit(count)
"""


def test_a_stream_read_by_readers_that_are_killed_one_after_another_is_whole(eventually):
    stream = POOL.replace(b"\xff", b"f")[:600000]
    with tempfile.TemporaryFile() as file:
        file.truncate(memory_bytes(1 << 20))
        memory = mmap.mmap(file.fileno(), memory_bytes(1 << 20))
        ring = Ring.format(memory)
        source, sink = os.pipe()
        writer = subprocess.Popen([sys.executable, "-c", "import sys; sys.stdout.buffer.write("
                                   "sys.stdin.buffer.read())"], stdin=subprocess.PIPE, stdout=sink)
        os.close(sink)
        try:
            writer.stdin.write(stream)
            writer.stdin.close()
            for wanted in (1, 90000, 250000, 400000, len(stream)):
                reader = subprocess.Popen([sys.executable, "-S", "-c", _READER, str(file.fileno())],
                                          stdin=source, cwd=ROOT, pass_fds=(file.fileno(),))
                try:
                    eventually(lambda: ring.end_offset >= wanted or reader.poll() is not None)
                finally:
                    reader.kill()
                    assert reader.wait() in (0, -signal.SIGKILL)
                ring.release()
                ring = Ring.adopt(memory)
                assert ring.read(0, len(stream)) == stream[:ring.end_offset]
            assert ring.end_offset == len(stream)
        finally:
            os.close(source)
            writer.kill()
            writer.wait()
            ring.release()
            memory.close()


# --- memory that is no ring --------------------------------------------------------------

def adopt_or_leave(memory):
    before = bytes(memory)
    try:
        return Ring.adopt(memory)
    except RingCorrupt:
        assert bytes(memory) == before
        return None


@pytest.mark.parametrize("memory", [
    b"", b"\0", bytes(HEADER_BYTES), bytes(memory_bytes(CAPACITY_MIN)),
    POOL[:memory_bytes(CAPACITY_MIN)]])
def test_memory_that_never_was_a_ring_is_refused(memory):
    assert adopt_or_leave(bytearray(memory)) is None


def test_a_ring_that_was_cut_or_grown_is_refused():
    memory, ring = new_ring(2 * CAPACITY_MIN)
    put(ring, b"abc")
    ring.release()
    assert adopt_or_leave(memory[:-1]) is None
    assert adopt_or_leave(memory[:memory_bytes(CAPACITY_MIN)]) is None
    assert adopt_or_leave(memory + b"\0") is None
    assert adopt_or_leave(memory) is not None


def test_refused_memory_can_be_unmapped():
    memory = mmap.mmap(-1, memory_bytes(CAPACITY_MIN))
    with pytest.raises(RingCorrupt) as caught:
        Ring.adopt(memory)
    memory.close()
    assert "magic" in caught.value.message


@given(st.lists(st.tuples(st.integers(0, 55), st.integers(0, 255)), min_size=1, max_size=8))
def test_a_corrupt_header_never_crashes_and_a_refused_ring_is_untouched(changes):
    memory, ring = new_ring()
    put(ring, POOL[:CAPACITY_MIN + 77])
    for at, byte in changes:
        memory[at] = byte
    adopted = adopt_or_leave(memory)
    if adopted is not None:             # the end offset may be another, nothing else
        assert len(everything(adopted)) <= adopted.capacity
        put(adopted, POOL[:CAPACITY_MIN])
        assert adopted.read(adopted.end_offset - 100, 100) == POOL[CAPACITY_MIN - 100:CAPACITY_MIN]


@given(st.binary(max_size=56))
def test_any_header_at_all_is_refused_or_adopted(header):
    memory = bytearray(memory_bytes(CAPACITY_MIN))
    memory[:len(header)] = header
    adopt_or_leave(memory)
