"""The log's file: whose name it is, and what is opened."""

import errno
import os
import stat

import pytest

from ptyguard_core.logfile import locate, open_log


def mode(path):
    return stat.S_IMODE(os.stat(path).st_mode)


def test_a_relative_name_is_of_where_it_was_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    here = os.path.realpath(str(tmp_path))
    assert locate("out") == locate(b"./out") == os.path.join(here, "out")
    assert locate("../x") == os.path.join(os.path.dirname(here), "x")


def test_a_link_is_followed_once_also_one_whose_end_is_not_there_yet(tmp_path):
    os.symlink(str(tmp_path / "target"), str(tmp_path / "link"))
    assert locate(str(tmp_path / "link")) == os.path.realpath(str(tmp_path / "target"))


def test_bytes_that_are_no_text_make_a_name_too(tmp_path):
    path = locate(os.fsencode(str(tmp_path)) + b"/\xff")
    os.close(open_log(path))
    assert os.listdir(os.fsencode(str(tmp_path))) == [b"\xff"]


@pytest.mark.parametrize("name, number", [
    ("", errno.EINVAL), ("a\0b", errno.EINVAL), ("new/", errno.EISDIR)])
def test_what_can_be_no_files_name_is_refused(name, number):
    with pytest.raises(OSError) as caught:
        locate(name)
    assert caught.value.errno == number and caught.value.strerror


def test_where_there_is_no_directory_any_more_a_relative_name_is_refused(tmp_path, monkeypatch):
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    with pytest.raises(OSError):
        locate("out")


def test_a_new_file_is_its_owners_whatever_the_umask_and_one_that_is_there_stays_as_it_is(tmp_path):
    path = str(tmp_path / "out")
    before = os.umask(0o777)
    try:
        fd = open_log(path)
    finally:
        os.umask(before)
    os.write(fd, b"one ")
    os.close(fd)
    assert mode(path) == 0o600
    os.chmod(path, 0o644)
    fd = open_log(path)
    assert not os.get_inheritable(fd)
    os.lseek(fd, 0, os.SEEK_SET)
    os.write(fd, b"two")                # at the end all the same
    os.close(fd)
    assert mode(path) == 0o644
    with open(path, "rb") as file:
        assert file.read() == b"one two"


def test_only_regular_files_are_opened_and_nothing_is_waited_for(tmp_path):
    fifo = str(tmp_path / "fifo")
    os.mkfifo(fifo)
    for path, number in ((fifo, errno.EINVAL), ("/dev/null", errno.EINVAL),
                         (str(tmp_path), errno.EISDIR), (str(tmp_path / "no" / "x"), errno.ENOENT)):
        before = os.listdir("/proc/self/fd") if os.path.isdir("/proc/self/fd") else None
        with pytest.raises(OSError) as caught:
            open_log(path)
        assert caught.value.errno == number
        assert before is None or len(os.listdir("/proc/self/fd")) == len(before)


def test_what_takes_the_files_place_meanwhile_is_found_out(tmp_path, monkeypatch):
    fifo = str(tmp_path / "fifo")
    os.mkfifo(fifo)
    reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)

    def missing(_path):
        raise FileNotFoundError(errno.ENOENT, "not yet")
    monkeypatch.setattr(os, "stat", missing)
    try:
        with pytest.raises(OSError) as caught:
            open_log(fifo)
        assert caught.value.errno == errno.EINVAL
    finally:
        os.close(reader)
