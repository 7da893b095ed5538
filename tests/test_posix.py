"""The POSIX back-end against the kernel that is here: what it decides, not what we think."""

import errno
import os
import select
import signal
import socket
import stat
import subprocess
import sys
import termios

import pytest

import ptyguard_posix as backend
from ptyguard_core.backend import LET_GO, NOTHING_YET
from ptyguard_core.errors import StateUnusable

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
LIMIT_MS = 60_000
PATH = os.environb.get(b"PATH", b"/usr/bin:/bin")
linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")


def open_descriptors():
    return len(os.listdir("/proc/self/fd"))


def read_to_end(fd):
    """All bytes of a non-blocking descriptor up to its end of file."""
    poller = select.poll()
    poller.register(fd, select.POLLIN)
    found = b""
    while True:
        assert poller.poll(LIMIT_MS), "no end of file"
        data = os.read(fd, 65536)
        if not data:
            return found
        found += data


def python(code, *arguments, **options):
    """A child Python with this house on its path; `-S` since sites are slow."""
    environment = dict(os.environ, PYTHONPATH=ROOT)
    environment.update(options.pop("env", {}))
    return subprocess.Popen([sys.executable, "-S", "-c", code, *arguments], env=environment,
                            bufsize=0, stdin=subprocess.PIPE, stdout=subprocess.PIPE, **options)


def answer(process):
    """The child's output, which has to end well."""
    output, _ = process.communicate()
    assert process.returncode == 0
    return output.decode().strip()


# --- places -------------------------------------------------------------------------

def mode(path):
    return stat.S_IMODE(os.stat(path).st_mode)


def test_directories_are_made_private_and_found_again(own_directory):
    paths = backend.find_paths()
    assert paths.root == str(own_directory)
    assert os.path.dirname(paths.state) == paths.root
    assert paths.place == paths.state
    for path in (paths.root, paths.state):
        assert mode(path) == 0o700
    assert vars(backend.find_paths()) == vars(paths)
    assert sorted(os.listdir(paths.state)) == ["place"]


def test_private_also_under_a_generous_umask(own_directory):
    before = os.umask(0)
    try:
        paths = backend.find_paths()
    finally:
        os.umask(before)
    assert mode(paths.root) == mode(paths.state) == 0o700
    assert mode(os.path.join(paths.state, "place")) == 0o600


def test_an_explicit_directory_wins_and_all_ways_to_write_it_are_one(own_directory, monkeypatch):
    tmp_path = own_directory.parent
    wanted = backend.find_paths(str(tmp_path / "other")).root
    monkeypatch.chdir(tmp_path)
    os.symlink("other", str(tmp_path / "link"))
    for written in ("other", "other/", "./x/../other", "link", str(tmp_path) + "//other"):
        assert backend.find_paths(written).root == wanted
        monkeypatch.setenv("PTYGUARD_DIR", written)
        assert backend.find_paths().root == wanted


def test_parents_of_an_explicit_directory_are_made(own_directory):
    assert os.path.isdir(backend.find_paths(str(own_directory / "a/b/c")).place)


def test_under_a_test_runner_the_real_home_is_refused(monkeypatch):
    monkeypatch.delenv("PTYGUARD_DIR")
    assert "PYTEST_CURRENT_TEST" in os.environ
    with pytest.raises(StateUnusable) as caught:
        backend.find_paths()
    assert "PTYGUARD_DIR" in caught.value.hint


def test_a_symbolic_link_is_no_private_directory(tmp_path):
    (tmp_path / "real").mkdir(0o700)
    os.symlink("real", str(tmp_path / "link"))
    backend.check_private(str(tmp_path / "real"))
    with pytest.raises(StateUnusable) as caught:
        backend.check_private(str(tmp_path / "link"))
    assert "symbolic link" in caught.value.message


def test_a_state_directory_that_is_a_symbolic_link_is_refused(tmp_path):
    state = backend.find_paths().state
    os.unlink(os.path.join(state, "place"))
    os.rmdir(state)
    (tmp_path / "elsewhere").mkdir(0o700)
    os.symlink(str(tmp_path / "elsewhere"), state)
    with pytest.raises(StateUnusable):
        backend.find_paths()
    assert os.listdir(str(tmp_path / "elsewhere")) == []


@pytest.mark.parametrize("bits", [0o770, 0o720, 0o707, 0o701, 0o740, 0o755])
def test_a_directory_that_others_may_enter_is_refused_and_left_as_it_is(own_directory, bits):
    own_directory.mkdir()
    own_directory.chmod(bits)
    with pytest.raises(StateUnusable) as caught:
        backend.find_paths()
    assert str(own_directory) in caught.value.message and "for you alone" in caught.value.hint
    assert mode(str(own_directory)) == bits and os.listdir(str(own_directory)) == []


def test_a_file_or_nothing_in_place_of_the_directory_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    for path in ("file", "file/under", "missing"):
        with pytest.raises(StateUnusable):
            backend.check_private(str(tmp_path / path))
    with pytest.raises(StateUnusable):
        backend.find_paths(str(tmp_path / "file"))


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give a directory away")
def test_a_directory_of_another_user_is_refused(tmp_path):
    (tmp_path / "theirs").mkdir(0o700)
    os.chown(str(tmp_path / "theirs"), 12345, -1)
    with pytest.raises(StateUnusable) as caught:
        backend.check_private(str(tmp_path / "theirs"))
    assert "12345" in caught.value.message


@pytest.fixture
def places():
    """Removes directories outside of the test's own."""
    found = set()
    yield found
    for path in found:
        assert path.startswith("/tmp/ptyguard-")
        os.rmdir(path)


def long_directory(tmp_path):
    return str(tmp_path / ("a-directory-with-a-long-name-" * 4))


def test_a_path_too_long_for_sockets_has_them_under_tmp(tmp_path, places):
    paths = backend.find_paths(long_directory(tmp_path))
    places.add(paths.place)
    assert paths.place.startswith(f"/tmp/ptyguard-{os.getuid()}-")
    assert mode(paths.place) == 0o700
    assert backend.find_paths(long_directory(tmp_path)).place == paths.place
    sock = backend.listen(paths.client_socket)
    sock.close()
    os.unlink(paths.client_socket)


def test_a_place_that_a_cleaner_took_is_made_again(tmp_path, places):
    place = backend.find_paths(long_directory(tmp_path)).place
    places.add(place)
    os.rmdir(place)
    assert backend.find_paths(long_directory(tmp_path)).place == place
    assert mode(place) == 0o700


def test_a_place_that_somebody_opened_to_others_is_refused(tmp_path, places):
    place = backend.find_paths(long_directory(tmp_path)).place
    places.add(place)
    os.chmod(place, 0o777)
    with pytest.raises(StateUnusable):
        backend.find_paths(long_directory(tmp_path))


@pytest.mark.parametrize("content", [b"", b"relative/path\n", b"\0\n"])
def test_a_place_file_that_names_no_directory_is_refused(content):
    state = backend.find_paths().state
    with open(os.path.join(state, "place"), "wb") as file:
        file.write(content)
    with pytest.raises(StateUnusable) as caught:
        backend.find_paths()
    assert "place" in caught.value.message


def test_eight_at_once_decide_for_one_place(tmp_path, places):
    code = ("import sys, ptyguard_posix\nsys.stdin.read()\n"
            "print(ptyguard_posix.find_paths(sys.argv[1]).place)")
    directory = long_directory(tmp_path)
    children = [python(code, directory) for _ in range(8)]
    for child in children:
        child.stdin.close()             # go
        child.stdin = None
    found = {answer(child) for child in children}
    places |= found
    assert len(found) == 1
    state = backend.find_paths(directory).state
    assert os.listdir(state) == ["place"]       # no draft is left


# --- processes ----------------------------------------------------------------------------

@pytest.fixture
def sleeper():
    """A process that runs until it is told otherwise."""
    child = subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)
    yield child
    child.kill()
    child.communicate()


def test_a_process_start_is_the_same_whenever_one_looks(sleeper):
    start = backend.process_start(sleeper.pid)
    assert isinstance(start, int) and start
    assert backend.process_start(sleeper.pid) == start
    assert backend.process_start(os.getpid()) is not None


def test_a_zombie_is_dead_and_so_is_nobody(sleeper, eventually):
    assert backend.process_start(sleeper.pid)
    sleeper.kill()
    eventually(lambda: backend.process_start(sleeper.pid) is None)
    row, = [row for row in backend.process_table() if row.pid == sleeper.pid]
    assert row.is_zombie
    sleeper.wait()
    assert backend.process_start(sleeper.pid) is None
    assert backend.process_start(1 << 30) is None


def test_the_table_shows_us_and_our_child(sleeper):
    rows = {row.pid: row for row in backend.process_table()}
    row = rows[sleeper.pid]
    assert (row.parent, row.group, row.session) == (os.getpid(), os.getpgid(sleeper.pid),
                                                    os.getsid(sleeper.pid))
    assert row.start == backend.process_start(sleeper.pid) and not row.is_zombie


@linux
def test_a_command_with_brackets_and_blanks_in_its_name_is_read_right(tmp_path):
    name = tmp_path / "a) S 1 (b"
    os.symlink("/bin/cat", str(name))
    child = subprocess.Popen([str(name)], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)
    try:
        row, = [row for row in backend.process_table() if row.pid == child.pid]
        assert row.parent == os.getpid()
    finally:
        child.communicate()


def test_another_start_is_another_process_and_is_never_signalled(sleeper):
    start = backend.process_start(sleeper.pid)
    for other in (start + 1, start - 1, 0, None):
        assert backend.signal_process(sleeper.pid, other, signal.SIGKILL) is False
    assert backend.signal_process(sleeper.pid, start, 0) is True
    assert sleeper.poll() is None
    assert backend.signal_process(sleeper.pid, start, signal.SIGTERM) is True
    assert sleeper.wait() == -signal.SIGTERM
    assert backend.signal_process(sleeper.pid, start, signal.SIGTERM) is False


@pytest.mark.parametrize("pid", [0, -1])
def test_pids_that_mean_many_are_never_signalled(pid):
    assert backend.signal_process(pid, None, 0) is False
    assert backend.signal_process(pid, 0, 0) is False
    assert backend.signal_group(pid, 0) is False
    assert backend.signal_group(1, 0) is False


def test_signals_have_names_and_numbers():
    assert [backend.signal_number(name) for name in ("SIGHUP", "HUP", "hup", "1")] == [1] * 4
    for name in ("", "SIG", "NOSUCH", "_DFL", "SIG_IGN", "0", "-1", "1000", "\u00b2", "BLOCK"):
        assert backend.signal_number(name) is None
    assert backend.signal_name(15) == "SIGTERM"
    assert backend.signal_name(40) == "SIG40"


def test_an_exit_status_is_a_code_or_a_signal(tmp_path):
    log = str(tmp_path / "log")
    for command, expected in (("exit 0", (0, None)), ("exit 7", (7, None)),
                              ("exit 200", (200, None)), ("kill -9 $$", (None, 9)),
                              ("kill -15 $$", (None, 15))):
        pid = backend.launch(["/bin/sh", "-c", command], {}, (), log, detach=False)
        assert backend.decode_status(os.waitpid(pid, 0)[1]) == expected


def test_our_children_that_ended_are_reaped_all_at_once(tmp_path, eventually):
    log = str(tmp_path / "log")
    pids = {backend.launch(["/bin/sh", "-c", f"exit {n}"], {}, (), log, detach=False): n
            for n in range(5)}
    found = []
    eventually(lambda: found.extend(backend.reap_children()) or len(found) == 5)
    assert {pid: backend.decode_status(raw) for pid, raw in found} \
        == {pid: (code, None) for pid, code in pids.items()}
    assert backend.reap_children() == []


@pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="needs pidfd_open")
def test_a_watched_process_makes_its_descriptor_readable_at_its_end(sleeper):
    start = backend.process_start(sleeper.pid)
    assert backend.watch_process(sleeper.pid, start + 1) is None
    fd = backend.watch_process(sleeper.pid, start)
    try:
        assert select.select([fd], [], [], 0)[0] == []
        sleeper.kill()
        assert select.select([fd], [], [], LIMIT_MS / 1000)[0] == [fd]
    finally:
        os.close(fd)
    sleeper.wait()
    assert backend.watch_process(sleeper.pid, start) is None


# --- launch -----------------------------------------------------------------------------------

def log_of(path):
    with open(path) as file:
        return file.read()


def wait_for_end(pid, start, eventually):
    eventually(lambda: backend.process_start(pid) != start)


@linux
def test_a_launched_program_has_null_log_and_the_descriptors_it_was_given(tmp_path):
    log = str(tmp_path / "log")
    one, two = os.pipe()
    extra = os.dup(0)
    os.set_inheritable(extra, True)
    script = ("readlink /proc/$$/fd/0 /proc/$$/fd/1 /proc/$$/fd/3 /proc/$$/fd/4; "
              "ls /proc/$$/fd; pwd; umask; env")
    pid = backend.launch(["/bin/sh", "-c", script], {"PATH": os.fsdecode(PATH), "ONLY": "this"},
                         (two, one), log, detach=False)
    assert os.waitpid(pid, 0)[1] == 0
    lines = log_of(log).split()
    pipe = os.readlink(f"/proc/self/fd/{one}")
    assert lines[:4] == ["/dev/null", log, pipe, pipe]
    assert lines[4:9] == ["0", "1", "2", "3", "4"]
    assert lines[9:11] == ["/", "0077"]
    assert "ONLY=this" in lines and not any(line.startswith("HOME=") for line in lines)
    assert mode(log) == 0o600
    for fd in (one, two, extra):
        os.close(fd)


def test_a_detached_program_is_nobodys_child_and_leads_no_session(tmp_path, eventually):
    pid = backend.launch(["/bin/cat", str(tmp_path)], {}, (), str(tmp_path / "log"), detach=True)
    with pytest.raises(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)
    eventually(lambda: "cat" in log_of(str(tmp_path / "log")))


@pytest.mark.parametrize("detach", [False, True])
@pytest.mark.parametrize("program, number", [
    ("/no/such/program", errno.ENOENT), ("/", errno.EACCES), ("/dev/null/x", errno.ENOTDIR)])
def test_a_launch_that_cannot_be_says_why(tmp_path, detach, program, number):
    before = open_descriptors()
    with pytest.raises(OSError) as caught:
        backend.launch([program], {}, (), str(tmp_path / "log"), detach)
    assert caught.value.errno == number
    assert open_descriptors() == before
    assert backend.reap_children() == []


def test_a_launch_that_is_only_begun_waits_for_nothing_and_is_told_of_at_its_end(tmp_path, eventually):
    log, go = tmp_path / "log", str(tmp_path / "go")
    os.mkfifo(go)
    before = open_descriptors()
    pid = backend.begin_launch(["/bin/sh", "-c", f"read word < {go}; echo $word; exit 6"], {}, (), str(log))
    assert backend.reap_children() == []        # it waits for its word
    assert open_descriptors() == before
    with open(go, "w") as file:
        file.write("ran\n")
    found = []
    eventually(lambda: found.extend(backend.reap_children()) or found)
    assert [(ended, backend.decode_status(raw)) for ended, raw in found] == [(pid, (6, None))]
    assert log.read_bytes() == b"ran\n"


def test_a_begun_launch_whose_exec_fails_ends_with_status_127(tmp_path):
    pid = backend.begin_launch(["/no/such/program"], {}, (), str(tmp_path / "log"))
    assert backend.decode_status(os.waitpid(pid, 0)[1]) == (127, None)


def test_a_detached_launch_whose_second_fork_fails_is_an_error_not_a_pid(tmp_path, monkeypatch):
    # The errno alone was taken for the pid of the program: 11 for EAGAIN.
    real, forks = os.fork, []

    def fork():
        forks.append(1)
        if len(forks) > 1:
            raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
        return real()
    monkeypatch.setattr(os, "fork", fork)
    with pytest.raises(OSError) as caught:
        backend.launch(["/bin/true"], {}, (), str(tmp_path / "log"), detach=True)
    assert caught.value.errno == errno.EAGAIN


def test_a_program_is_tried_before_it_is_used():
    assert backend.try_program(["/bin/true"], 60.0) is True
    assert backend.try_program(["/bin/false"], 60.0) is False
    assert backend.try_program(["/no/such"], 60.0) is False
    assert backend.try_program(["/bin/cat", "/dev/zero"], 0.0) is False     # killed and reaped
    assert backend.reap_children() == []


# --- sessions --------------------------------------------------------------------------------------

class Sessions:
    """Children in terminals of their own, all ended and closed at the end."""

    def __init__(self):
        self.spawned = []

    def spawn(self, argv, executable=None, environment=None, cwd=b"/", size=(80, 24), echo=True,
              umask=0o022, nice=0, limits=()):
        child = backend.spawn_session(
            argv, executable or argv[0], dict(environment or {}, PATH=PATH), cwd, size, echo,
            umask, nice, limits)
        self.spawned.append(child)
        return child

    def run(self, argv, **options):
        """Spawn, and everything that it wrote, to its end."""
        child = self.spawn(argv, **options)
        assert backend.decode_exec_status(read_to_end(child.status)) is None
        os.close(child.slave)           # so that the last program's end is the terminal's
        child.slave = -1
        return self.output(child)

    def output(self, child):
        found, view = b"", bytearray(65536)
        poller = select.poll()
        poller.register(child.master, select.POLLIN)
        while True:
            assert poller.poll(LIMIT_MS), "the terminal was not let go"
            count = backend.read_terminal(child.master, memoryview(view))
            if count == LET_GO:
                return found.decode().replace("\r\n", "\n")
            found += view[:count]

    def failure(self, *arguments, **options):
        """(stage, errno) of a child that does not come to be."""
        child = self.spawn(*arguments, **options)
        fault = backend.decode_exec_status(read_to_end(child.status))
        assert os.WEXITSTATUS(os.waitpid(child.pid, 0)[1]) == 127
        self.spawned.remove(child)
        self.close(child)
        return fault

    @staticmethod
    def close(child):
        for fd in (child.master, child.slave, child.status):
            if fd >= 0:
                os.close(fd)

    def end(self):
        for child in self.spawned:
            try:
                os.kill(child.pid, signal.SIGKILL)
                os.waitpid(child.pid, 0)
            except (ProcessLookupError, ChildProcessError):
                pass
            self.close(child)


@pytest.fixture
def sessions():
    sessions = Sessions()
    yield sessions
    sessions.end()


def test_the_terminal_has_its_size_before_the_program_begins(sessions):
    assert sessions.run([b"stty", b"size"], size=(132, 50)) == "50 132\n"
    assert sessions.run([b"stty", b"size"], size=(1, 1000)) == "1000 1\n"


def test_the_child_leads_a_session_with_the_terminal_as_its_controlling_one(sessions):
    child = sessions.spawn([b"cat"])
    read_to_end(child.status)
    row, = [row for row in backend.process_table() if row.pid == child.pid]
    assert row.session == row.group == row.pid
    assert row.terminal == backend.terminal_device(child.master) != 0
    assert row.start == child.start
    assert backend.foreground_group(child.master) == child.pid


def test_argv_environment_and_directory_arrive_exactly(sessions, tmp_path):
    argv = [b"sh", b"-c", b'printf "%s|" "$0" "$@" "$X"; pwd', b"-dash", b"", b"a b", b'"q"', b"*"]
    output = sessions.run(argv, environment={b"X": b"y z"}, cwd=os.fsencode(str(tmp_path)))
    assert output == f'-dash||a b|"q"|*|y z|{tmp_path}\n'
    child = sessions.spawn([b"printf", b"\\377|%s", b"\xfe\xff"])
    read_to_end(child.status)
    view = bytearray(100)
    assert select.select([child.master], [], [], LIMIT_MS / 1000)[0]
    assert backend.read_terminal(child.master, memoryview(view)) == 4
    assert bytes(view[:4]) == b"\xff|\xfe\xff"


def test_argv_0_may_be_another_than_the_program(sessions):
    assert sessions.run([b"-sh", b"-c", b"echo $0"], executable=b"/bin/sh") == "-sh\n"


@pytest.fixture
def programs(tmp_path):
    (tmp_path / "plain").write_text("no program")
    (tmp_path / "denied").mkdir()
    (tmp_path / "denied" / "hidden").write_text("#!/bin/sh\n")
    (tmp_path / "good").mkdir()
    (tmp_path / "good" / "hidden").write_text("#!/bin/sh\necho found\n")
    (tmp_path / "good" / "hidden").chmod(0o755)
    (tmp_path / "script").write_text("#!/no/such/interpreter\n")
    (tmp_path / "script").chmod(0o755)
    return os.fsencode(str(tmp_path))


@pytest.mark.parametrize("argv, fault", [
    (b"no-such-program", errno.ENOENT), (b"/no/such/program", errno.ENOENT),
    (b"%/plain", errno.EACCES), (b"/", errno.EACCES), (b"%/plain/x", errno.ENOTDIR),
    (b"%/script", errno.ENOENT)])
def test_a_command_that_cannot_run_tells_its_errno(sessions, programs, argv, fault):
    assert sessions.failure([argv.replace(b"%", programs)]) == ("exec", fault)


@pytest.mark.parametrize("cwd, fault", [(b"/no/such", errno.ENOENT), (b"%/plain", errno.ENOTDIR)])
def test_a_directory_that_cannot_be_entered_tells_its_errno(sessions, programs, cwd, fault):
    assert sessions.failure([b"true"], cwd=cwd.replace(b"%", programs)) == ("cwd", fault)


def test_words_that_no_kernel_takes_are_a_failure_of_the_child_alone(sessions):
    assert sessions.failure([b"true", b"nul\0byte"]) == ("exec", errno.EINVAL)


def test_the_path_is_searched_as_a_shell_does(sessions, programs):
    environment = {b"PATH": b":".join([b"/no/such", programs + b"/plain", programs + b"/denied"])}

    def spawn(path):
        child = backend.spawn_session([b"hidden"], b"hidden", {b"PATH": path}, b"/", (80, 24), True,
                                      0o022, 0, ())
        sessions.spawned.append(child)
        return child, backend.decode_exec_status(read_to_end(child.status))
    assert spawn(environment[b"PATH"])[1] == ("exec", errno.EACCES)
    child, fault = spawn(environment[b"PATH"] + b":" + programs + b"/good")
    assert fault is None
    os.close(child.slave)
    child.slave = -1
    assert sessions.output(child) == "found\n"


def test_failures_and_ends_leave_no_descriptor(sessions):
    before = open_descriptors()
    for _ in range(5):
        sessions.failure([b"no-such-program"])
        sessions.run([b"true"])
        sessions.end()
        sessions.spawned.clear()
    assert open_descriptors() == before


@linux
def test_the_child_has_default_signals_and_an_empty_mask_whatever_its_parent_had(sessions):
    ignored = (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP, signal.SIGCHLD, signal.SIGUSR2)
    before = {number: signal.signal(number, signal.SIG_IGN) for number in ignored}
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGWINCH})
    try:
        assert signal.getsignal(signal.SIGPIPE) == signal.SIG_IGN       # Python's own doing
        child = sessions.spawn([b"cat", b"/proc/self/status"])
        after = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        for number, handler in before.items():
            signal.signal(number, handler)
    assert after == mask | {signal.SIGTERM, signal.SIGWINCH}            # ours is ours again
    read_to_end(child.status)
    os.close(child.slave)
    child.slave = -1
    facts = dict(line.split(":\t") for line in sessions.output(child).splitlines() if ":\t" in line)
    assert [int(facts[name], 16) for name in ("SigIgn", "SigBlk", "SigCgt")] == [0, 0, 0]


@linux
def test_the_child_has_no_descriptor_but_its_terminal(sessions):
    leaky = [os.open(os.devnull, os.O_RDONLY) for _ in range(20)]
    for fd in leaky:
        os.set_inheritable(fd, True)
    try:
        # 3 is ls's own, for the directory.
        assert sessions.run([b"ls", b"/proc/self/fd"]).split() == ["0", "1", "2", "3"]
    finally:
        for fd in leaky:
            os.close(fd)


def test_umask_and_nice_and_soft_limits_are_the_creators(sessions):
    here = os.nice(0)
    assert sessions.run([b"sh", b"-c", b"umask; nice; ulimit -n; ulimit -c"], umask=0o027,
                        nice=here + 3, limits=[b"RLIMIT_NOFILE=77", b"RLIMIT_CORE=0"]) \
        == f"0027\n{here + 3}\n77\n0\n"


def test_limits_that_cannot_be_are_passed_over(sessions):
    assert sessions.run([b"sh", b"-c", b"ulimit -n"], limits=[
        b"RLIMIT_NOSUCH=1", b"RLIMIT_CORE=x", b"", b"\xff=1", b"RLIMIT_NOFILE=88"]) == "88\n"


def test_our_own_limits_can_be_given_to_a_session(sessions):
    own = backend.own_limits()
    assert own["umask"] == os.umask(own["umask"])
    limits = [item.encode() for item in own["limits"]]
    assert any(item.startswith(b"RLIMIT_NOFILE=") for item in limits)
    import resource
    soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    assert sessions.run([b"sh", b"-c", b"ulimit -n"], limits=limits) == f"{soft}\n"


def test_without_echo_nothing_that_is_typed_comes_back(sessions):
    child = sessions.spawn([b"head", b"-n1"], echo=False)
    assert backend.write_terminal(child.master, b"secret\n") == 7
    os.close(child.slave)
    child.slave = -1
    assert sessions.output(child) == "secret\n"         # once, from head


# --- the terminal's two sides -------------------------------------------------------------------------

@pytest.fixture
def terminal():
    """(master, slave), as a session has them, without a program."""
    fds = list(os.openpty())
    os.set_blocking(fds[0], False)
    yield fds
    for fd in fds:
        if fd >= 0:
            os.close(fd)


def read(master, limit=100):
    view = bytearray(limit)
    count = backend.read_terminal(master, memoryview(view))
    return bytes(view[:count]) if count > 0 else count


def test_an_open_terminal_that_is_silent_has_nothing_yet(terminal):
    assert read(terminal[0]) == NOTHING_YET
    os.write(terminal[1], b"output")
    assert read(terminal[0], 3) == b"out"
    assert read(terminal[0]) == b"put"
    assert read(terminal[0]) == NOTHING_YET


def test_a_terminal_is_let_go_when_its_last_slave_closes_and_not_before_it_is_read(terminal):
    os.write(terminal[1], b"last words")
    os.close(terminal[1])
    terminal[1] = -1
    assert read(terminal[0]) == b"last words"
    assert read(terminal[0]) == LET_GO
    assert read(terminal[0]) == LET_GO


def test_a_reopened_slave_revives_the_terminal(terminal):
    os.close(terminal[1])
    assert read(terminal[0]) == LET_GO
    terminal[1] = backend.reopen_slave(terminal[0])
    assert not os.get_inheritable(terminal[1])
    assert read(terminal[0]) == NOTHING_YET
    os.write(terminal[1], b"alive")
    assert read(terminal[0]) == b"alive"


def test_the_guards_own_slave_keeps_what_a_program_wrote_before_it_ended(sessions):
    child = sessions.spawn([b"echo", b"last words"])
    read_to_end(child.status)
    assert os.waitpid(child.pid, 0)[1] == 0
    assert read(child.master) == b"last words\r\n"
    assert read(child.master) == NOTHING_YET


def test_reopening_a_slave_does_not_take_the_terminal_for_our_own(terminal):
    code = ("import os, sys, ptyguard_posix\nos.setsid()\n"
            "ptyguard_posix.reopen_slave(int(sys.argv[1]))\n"
            "try: os.open('/dev/tty', os.O_RDWR)\nexcept OSError: print('none')")
    assert answer(python(code, str(terminal[0]), pass_fds=(terminal[0],))) == "none"


def test_input_that_nobody_reads_fills_up_without_blocking(terminal):
    taken = 0
    for _ in range(1000):
        count = backend.write_terminal(terminal[0], b"line\n" * 800)
        if count == 0:
            break
        taken += count
    else:
        pytest.fail("it takes for ever")
    assert taken > 0


def test_end_of_input_is_a_byte_only_while_the_terminal_is_canonical(terminal):
    assert backend.end_of_input(terminal[0]) == b"\x04"
    facts = termios.tcgetattr(terminal[1])
    facts[6][termios.VEOF] = b"\x1a"
    termios.tcsetattr(terminal[1], termios.TCSANOW, facts)
    assert backend.end_of_input(terminal[0]) == b"\x1a"
    facts[6][termios.VEOF] = b"\0"                              # _POSIX_VDISABLE
    termios.tcsetattr(terminal[1], termios.TCSANOW, facts)
    assert backend.end_of_input(terminal[0]) is None
    backend.enter_raw(terminal[1], keep_output=False)
    assert backend.end_of_input(terminal[0]) is None


def test_a_new_size_is_seen_on_both_sides_and_what_is_no_terminal_has_none(terminal):
    assert backend.terminal_size(terminal[1]) is None           # 0 x 0
    backend.resize_terminal(terminal[0], (100, 30))
    assert backend.terminal_size(terminal[0]) == backend.terminal_size(terminal[1]) == (100, 30)
    with open(os.devnull) as null:
        assert backend.terminal_size(null.fileno()) is None


def test_raw_mode_passes_every_byte_and_is_undone_exactly(terminal):
    before = termios.tcgetattr(terminal[1])
    saved = backend.enter_raw(terminal[1], keep_output=False)
    every = bytes(range(256))
    backend.write_terminal(terminal[0], every)
    assert os.read(terminal[1], 1000) == every
    os.write(terminal[1], every)
    assert read(terminal[0], 1000) == every
    backend.leave_raw(terminal[1], saved)
    assert termios.tcgetattr(terminal[1]) == before


# --- memory ---------------------------------------------------------------------------------------------

def check_memory(size=3 * 65536):
    fd = backend.make_memory(size)
    try:
        facts = os.fstat(fd)
        assert facts.st_size == size and facts.st_nlink == 0
        assert not os.get_inheritable(fd)
        one, two = backend.map_memory(fd), backend.map_memory(fd)
        assert len(one) == size and bytes(one[:]).strip(b"\0") == b""
        one[size - 3:size] = b"end"
        assert two[size - 3:size] == b"end"
        one.close()
        two.close()
        return fd, facts
    finally:
        os.close(fd)


def test_memory_is_zero_shared_nameless_and_not_inherited():
    check_memory()


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.EPERM])
def test_without_memfd_there_is_shared_memory_fully_backed(monkeypatch, number):
    def refuse(*_):
        raise OSError(number, os.strerror(number))
    monkeypatch.setattr(os, "memfd_create", refuse, raising=False)
    _, facts = check_memory()
    assert facts.st_blocks * 512 >= facts.st_size


def test_without_memfd_and_posix_shared_memory_there_is_an_unlinked_file(monkeypatch):
    monkeypatch.delattr(os, "memfd_create", raising=False)
    monkeypatch.setitem(sys.modules, "_posixshmem", None)
    _, facts = check_memory()
    assert facts.st_blocks * 512 >= facts.st_size


def test_without_any_memory_file_system_there_is_one_on_disk(monkeypatch):
    monkeypatch.delattr(os, "memfd_create", raising=False)
    monkeypatch.setitem(sys.modules, "_posixshmem", None)
    real, tried = os.open, []

    def no_shm(path, *arguments, **options):
        tried.append(path)
        if str(path).startswith("/dev/shm"):
            raise FileNotFoundError(errno.ENOENT, "no such place", path)
        return real(path, *arguments, **options)
    monkeypatch.setattr(os, "open", no_shm)
    check_memory()
    assert [os.path.dirname(path) for path in tried] == ["/dev/shm", "/tmp"]
    assert not any(os.path.exists(path) for path in tried)


@pytest.mark.skipif(not hasattr(os, "posix_fallocate"), reason="needs posix_fallocate")
def test_memory_that_cannot_be_backed_is_an_error_now_and_leaks_nothing(monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "full")
    monkeypatch.delattr(os, "memfd_create", raising=False)
    monkeypatch.setattr(os, "posix_fallocate", full)
    before = open_descriptors()
    with pytest.raises(OSError):
        backend.make_memory(65536)
    assert open_descriptors() == before


# --- sockets ---------------------------------------------------------------------------------------------

def test_a_socket_is_born_private_whatever_the_umask_and_takes_connections(tmp_path):
    path = str(tmp_path / "s")
    before = os.umask(0)
    try:
        listener = backend.listen(path)
        assert os.umask(0) == 0             # ours is ours again
    finally:
        os.umask(before)
    assert mode(path) == 0o600
    client = backend.connect(path, 60.0)
    server = backend.accept(listener)
    assert not server.getblocking() and not listener.getblocking()
    assert backend.peer_user(client) == backend.peer_user(server) == os.getuid()
    with pytest.raises(BlockingIOError):
        backend.accept(listener)
    for sock in (client, server, listener):
        assert not os.get_inheritable(sock.fileno())
        sock.close()


def test_a_dead_socket_is_replaced(tmp_path):
    path = str(tmp_path / "s")
    backend.listen(path).close()
    with pytest.raises(ConnectionRefusedError):
        backend.connect(path, 60.0)
    listener = backend.listen(path)
    backend.connect(path, 60.0).close()
    listener.close()


def test_anything_else_in_the_way_of_a_socket_is_refused_and_kept(tmp_path):
    (tmp_path / "file").write_text("precious")
    (tmp_path / "directory").mkdir()
    sock = backend.listen(str(tmp_path / "real"))
    os.symlink("real", str(tmp_path / "link"))
    for name in ("file", "directory", "link"):
        with pytest.raises(StateUnusable) as caught:
            backend.listen(str(tmp_path / name))
        assert name in caught.value.message
    assert (tmp_path / "file").read_text() == "precious"
    assert os.readlink(str(tmp_path / "link")) == "real"
    sock.close()


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give a socket away")
def test_a_socket_of_another_user_is_refused(tmp_path):
    path = str(tmp_path / "s")
    backend.listen(path).close()
    os.chown(path, 12345, -1)
    with pytest.raises(StateUnusable):
        backend.listen(path)


def test_no_answer_and_a_refusal_are_different_things(tmp_path):
    path = str(tmp_path / "s")
    with pytest.raises(FileNotFoundError):
        backend.connect(path, 60.0)
    for sock in full_listener(path):        # an EAGAIN, at once, was no TimeoutError
        sock.close()


def full_listener(path):
    """A listening socket, and connections until there was no more room."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen(0)
    found = [listener]
    with pytest.raises(TimeoutError):
        while len(found) < 20:
            found.append(backend.connect(path, 0.01))
    return found


_CONNECTOR = """
import sys, ptyguard_posix as backend
print("begun", flush=True)
backend.connect(sys.argv[1], 60.0)
print("connected")
"""


@linux
def test_whoever_finds_the_backlog_full_waits_for_room_and_gets_in(tmp_path, eventually):
    path = str(tmp_path / "s")
    listener, *waiting = full_listener(path)
    child = python(_CONNECTOR, path)
    try:
        assert child.stdout.readline() == b"begun\n"
        eventually(lambda: waits_in_connect(child))
        while child.poll() is None and select.select([listener], [], [], 0)[0]:
            listener.accept()[0].close()
        assert child.communicate()[0] == b"connected\n"
    finally:
        child.kill()
        child.communicate()
        for sock in [listener] + waiting:
            sock.close()


def waits_in_connect(child):
    """Whether it sleeps; it has said that there is nothing else left to do."""
    with open(f"/proc/{child.pid}/stat", "rb") as file:
        return file.read().rpartition(b") ")[2][:1] == b"S" or child.poll() is not None


@pytest.fixture
def pair():
    ours, theirs = backend.socket_pair()
    yield ours, theirs
    ours.close()
    theirs.close()


@linux
def test_two_hundred_descriptors_pass_at_once_and_are_not_inheritable(pair):
    before = open_descriptors()
    with open(os.devnull) as file:
        fds = [os.dup(file.fileno()) for _ in range(200)]
    same = os.fstat(fds[0]).st_rdev
    assert backend.send_descriptors(pair[0], b"data", fds) == 4
    for fd in fds:
        os.close(fd)
    data, came, is_whole = backend.receive_descriptors(pair[1], 100)
    assert (data, len(came), is_whole) == (b"data", 200, True)
    for fd in came:
        assert os.fstat(fd).st_rdev == same and not os.get_inheritable(fd)
        os.close(fd)
    assert open_descriptors() == before


def test_data_without_descriptors_passes_as_it_is(pair):
    assert backend.send_descriptors(pair[0], b"plain", []) == 5
    assert backend.receive_descriptors(pair[1], 3) == (b"pla", [], True)
    assert backend.receive_descriptors(pair[1], 3) == (b"in", [], True)
    with pytest.raises(BlockingIOError):
        backend.receive_descriptors(pair[1], 3)
    pair[0].close()
    assert backend.receive_descriptors(pair[1], 3) == (b"", [], True)


_RECEIVER = """
import os, resource, sys
import ptyguard_posix as backend
sock = backend.adopt_socket(int(sys.argv[1]))
before = len(os.listdir("/proc/self/fd"))
resource.setrlimit(resource.RLIMIT_NOFILE, (before + 20, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
data, came, is_whole = backend.receive_descriptors(sock, 100)
assert data == b"data" and 0 < len(came) < 50, came
for fd in came:
    os.fstat(fd)
    os.close(fd)
assert len(os.listdir("/proc/self/fd")) == before
print(is_whole)
"""


@linux
def test_a_batch_cut_by_the_limit_of_descriptors_says_so_and_leaks_nothing(pair):
    pair[1].setblocking(True)
    backend.send_descriptors(pair[0], b"data", [0] * 50)
    fd = pair[1].fileno()
    assert answer(python(_RECEIVER, str(fd), pass_fds=(fd,))) == "False"


# --- locks --------------------------------------------------------------------------------------------------

_HOLDER = """
import sys, ptyguard_posix
fd = ptyguard_posix.try_lock(sys.argv[1], "a test's own")
print("held" if fd is not None else "not held", flush=True)
sys.stdin.read()
"""


def test_a_lock_is_held_by_one_and_its_holder_is_named(tmp_path):
    path = str(tmp_path / "lock")
    fd = backend.try_lock(path, "testing")
    try:
        assert fd is not None and not os.get_inheritable(fd) and mode(path) == 0o600
        assert backend.try_lock(path, "somebody else") is None
        held = backend.lock_holder(path)
        assert f"pid {os.getpid()} " in held and "testing" in held
        assert answer(python(_HOLDER, path)) == "not held"
        assert backend.lock_holder(path) == held        # a loser writes nothing
    finally:
        os.close(fd)
    assert os.path.exists(path)                         # never unlinked
    again = backend.try_lock(path, "x")
    assert "testing" not in backend.lock_holder(path)
    os.close(again)


def test_a_lock_is_released_by_death(tmp_path):
    path = str(tmp_path / "lock")
    child = python(_HOLDER, path)
    try:
        assert child.stdout.readline() == b"held\n"
        assert backend.try_lock(path, "too early") is None
        assert str(child.pid) in backend.lock_holder(path)
    finally:
        child.kill()
        child.communicate()
    fd = backend.try_lock(path, "after its death")
    assert fd is not None
    os.close(fd)


def test_a_lock_is_not_inherited_by_a_child_that_lives_on(tmp_path):
    # Elsewhere an inherited descriptor kept a lock for as long as some child lived.
    path = str(tmp_path / "lock")
    fd = backend.try_lock(path, "parent")
    child = subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, close_fds=False)
    try:
        os.close(fd)
        again = backend.try_lock(path, "after the parent let go")
        assert again is not None and child.poll() is None
        os.close(again)
    finally:
        child.communicate()


def test_shared_locks_go_together_and_keep_an_exclusive_one_out(tmp_path):
    path = str(tmp_path / "copy")
    with pytest.raises(FileNotFoundError):
        backend.try_lock(path, "use", shared=True)
    with open(path, "w") as file:
        file.write("content")
    one, two = (backend.try_lock(path, "use", shared=True) for _ in range(2))
    assert one is not None and two is not None
    assert backend.try_lock(path, "removal") is None
    os.close(one)
    os.close(two)
    with open(path) as file:
        assert file.read() == "content"


def test_a_lock_file_that_is_a_symbolic_link_is_not_followed(tmp_path):
    (tmp_path / "victim").write_text("precious")
    os.symlink("victim", str(tmp_path / "lock"))
    with pytest.raises(OSError):
        backend.try_lock(str(tmp_path / "lock"), "testing")
    assert (tmp_path / "victim").read_text() == "precious"


def test_an_open_files_lock_is_held_by_one_until_that_is_closed_and_changes_nothing(tmp_path):
    path = tmp_path / "file"
    path.write_text("content")
    one, two = (os.open(str(path), os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC) for _ in range(2))
    assert backend.lock_open_file(one) is True
    assert backend.lock_open_file(two) is False
    assert backend.lock_open_file(one) is True          # it has it already
    os.close(one)
    assert backend.lock_open_file(two) is True
    os.close(two)
    assert path.read_text() == "content"


def test_where_files_cannot_be_locked_that_is_told(monkeypatch):
    import fcntl

    def flock(*_):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))      # some network file systems
    monkeypatch.setattr(fcntl, "flock", flock)
    assert backend.lock_open_file(0) is None


def test_nobody_is_known_to_hold_a_lock_that_never_was(tmp_path):
    assert backend.lock_holder(str(tmp_path / "lock")) == ""


# --- readiness and descriptors -----------------------------------------------------------------

@pytest.mark.parametrize("any_file", [False, True])
def test_a_poller_tells_what_is_ready_and_nothing_else(any_file):
    poller = backend.make_poller(any_file)
    read_end, write_end = os.pipe()
    poller.register(read_end, 1)
    assert list(poller.poll(0)) == []
    os.write(write_end, b"x")
    assert list(poller.poll(60.0)) == [(read_end, 1)]
    poller.modify(read_end, 0)
    assert list(poller.poll(0)) == []
    poller.unregister(read_end)
    for fd in (read_end, write_end):
        os.close(fd)
    poller.close()


def test_an_inner_poller_is_readable_in_another_while_anything_in_it_is_ready():
    inner = backend.make_inner_poller()
    if inner is None:
        assert backend.poller_name() != "epoll"
        return
    outer = backend.make_poller()
    read_end, write_end = os.pipe()
    inner.register(read_end, 1)
    outer.register(inner.fileno(), 1)
    assert list(outer.poll(0)) == []
    os.write(write_end, b"x")
    assert list(outer.poll(60.0)) == [(inner.fileno(), 1)]
    assert list(inner.poll(0)) == [(read_end, 1)]
    os.read(read_end, 1)
    assert list(outer.poll(0)) == []
    assert not os.get_inheritable(inner.fileno())
    for fd in (read_end, write_end):
        os.close(fd)
    inner.close()
    outer.close()


def test_a_poller_for_any_file_takes_dev_null_and_regular_files(tmp_path):
    poller = backend.make_poller(any_file=True)
    (tmp_path / "file").write_text("")
    with open(os.devnull) as null, open(str(tmp_path / "file")) as file:
        poller.register(null.fileno(), 1)
        poller.register(file.fileno(), 1)
        assert {fd for fd, _ in poller.poll(0)} == {null.fileno(), file.fileno()}
    poller.close()


_SIGNALS = """
import os, select, signal, ptyguard_posix as backend
acts = []
fd, read = backend.watch_signals(["SIGTERM", "SIGUSR1", "SIGNOSUCH"], lambda: acts.append(1))
assert read() == []
for number in (signal.SIGUSR1, signal.SIGTERM, signal.SIGUSR1):
    os.kill(os.getpid(), number)
assert select.select([fd], [], [], 60)[0]
found = read()
assert sorted(found) == ["SIGTERM", "SIGUSR1"], found
assert read() == [] and len(acts) == 3
backend.ignore_signals(["SIGHUP", "SIGNOSUCH"])
os.kill(os.getpid(), signal.SIGHUP)
print("ok")
"""


def test_signals_become_names_on_a_descriptor():
    assert answer(python(_SIGNALS)) == "ok"


_STREAMS = """
import os, sys, ptyguard_posix as backend
report = os.dup(1)
os.set_inheritable(report, True)
for fd in (0, 2):
    os.close(fd)
backend.ensure_standard_streams()
facts = [os.fstat(fd).st_rdev for fd in (0, 2)]
assert facts == [os.stat(os.devnull).st_rdev] * 2, facts
assert all(os.get_inheritable(fd) for fd in (0, 2))
leak = [os.dup(0) for _ in range(5)]
backend.close_from(report + 1)
for fd in leak:
    try:
        os.fstat(fd)
    except OSError:
        continue
    raise SystemExit(f"{fd} is open")
os.fstat(report)
os.write(report, b"ok")
"""


def test_missing_standard_streams_are_null_and_everything_above_can_be_closed():
    assert answer(python(_STREAMS)) == "ok"


def test_the_limit_of_descriptors_is_raised_to_the_hard_one():
    code = ("import resource, ptyguard_posix\n"
            "hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]\n"
            "resource.setrlimit(resource.RLIMIT_NOFILE, (64, hard))\n"
            "got = ptyguard_posix.raise_descriptor_limit()\n"
            "print(got == resource.getrlimit(resource.RLIMIT_NOFILE)[0] and got in (hard, 10240))")
    assert answer(python(code)) == "True"


def test_the_user_has_a_number_a_shell_and_this_host_a_boot():
    assert backend.user_id() == os.getuid()
    assert os.access(backend.user_shell(), os.X_OK)
    assert backend.boot_id() == backend.boot_id() != ""
