"""The mark of a lent terminal: exact between two writes, and none within one."""

import os
import signal
import struct

import pytest

from ptyguard_core.mark import MARK_BYTES, Mark, read_mark


@pytest.fixture
def file(tmp_path):
    fd = os.open(tmp_path / "mark", os.O_RDWR | os.O_CREAT)
    os.ftruncate(fd, MARK_BYTES)
    yield fd
    os.close(fd)


def test_between_two_writes_it_is_exact_and_within_one_there_is_none(file):
    mark = Mark(os.dup(file))
    mark.end(7)
    assert read_mark(file) == 7
    mark.begin(7)
    assert read_mark(file) is None
    mark.end((1 << 63) + 5)
    assert read_mark(file) == (1 << 63) + 5
    mark.close()
    mark.close()
    mark.end(9)                                     # nobody's any more
    assert read_mark(file) == (1 << 63) + 5


def test_what_is_no_file_of_that_kind_leaves_no_mark_and_breaks_nothing(file):
    read_end, write_end = os.pipe()
    try:
        for fd in (os.dup(write_end), os.open("/dev/full", os.O_WRONLY)):
            mark = Mark(fd)
            mark.begin(1)
            mark.end(2)
            mark.close()
        os.ftruncate(file, 3)
        assert read_mark(file) is None
    finally:
        os.close(read_end)
        os.close(write_end)


def test_whoever_is_killed_at_any_moment_leaves_a_mark_that_is_true(file):
    # The child writes numbers into a pipe, as a daemon does into a terminal.
    for _ in range(40):
        read_end, write_end = os.pipe()
        pid = os.fork()
        if not pid:
            mark, number = Mark(file), 0
            mark.end(0)
            while True:
                mark.begin(number)
                os.write(write_end, struct.pack("<Q", number))
                number += 1
                mark.end(number)
        os.close(write_end)
        seen = os.read(read_end, 4096)              # it is at work
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        while True:
            more = os.read(read_end, 65536)
            if not more:
                break
            seen += more
        os.close(read_end)
        assert read_mark(file) in (None, len(seen) // 8)
