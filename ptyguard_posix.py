"""POSIX back-end: every call that is not the same on all systems.

It keeps the contract of ptyguard_core/backend.py, whose docstrings say what each
public function promises; what stands here is how, and which fact of the kernel
made it so.  Sections: places, processes, sessions, memory, sockets and locks,
readiness, a human's terminal, what `doctor` asks.

Three facts shape it.  A forked child shares everything with its parent until it
has reset it (signals, mask, descriptors).  O_NONBLOCK belongs to the open file
description, which others share.  Linux reports EIO, BSDs end of file, on a master
whose last slave has closed (pty(7)).
"""

import _signal as signal         # `signal` and `socket` wrap these in enums: 4 and 7 ms of every start
import _socket
import errno
import fcntl
import os
import select
import stat
import struct
import sys
import termios
import time

from ptyguard_core.backend import (LET_GO, LISTENER_GONE, NOTHING_YET, CanonicalMode, Paths,
                                   Process, Spawned)
from ptyguard_core.errors import StateUnusable

_IS_LINUX = sys.platform.startswith("linux")
_HOME_DIRECTORY = ".ptyguard"
# Linux takes 107 bytes of path in sun_path, macOS 103; the longest name in it is that of
# a session's agent link, "/a-" and an id.
_SOCKET_PATH_MAX = 103
_INITIAL_PID_NAMESPACE = 0xEFFFFFFC       # PROC_PID_INIT_INO, include/linux/proc_ns.h


# -- places and identities ---------------------------------------------------------------

def find_paths(explicit=None):
    """The `Paths` for this user; directories are made, private, or refused."""
    root, is_named = _find_root(explicit)
    _make_private(root, parents=is_named)
    state = os.path.join(root, _host_name())
    _make_private(state)
    return Paths(root, state, _place_for_sockets(state))


def look_for_paths(explicit=None):
    """The `Paths` that `find_paths` would find, and whether sockets have their place yet."""
    root, _ = _find_root(explicit)
    state = os.path.join(root, _host_name())
    try:
        place = os.fsdecode(_read_start(os.path.join(state, "place"), 4096)).strip()
    except OSError:
        place = ""
    is_elsewhere = os.path.isabs(place) and "\0" not in place
    return Paths(root, state, place if is_elsewhere else state), is_elsewhere or place == "."


def _find_root(explicit):
    """(the root directory, whether somebody named it)."""
    explicit = explicit or os.environ.get("PTYGUARD_DIR")
    if explicit:
        try:
            return os.path.realpath(os.path.expanduser(explicit)), True
        except OSError:
            raise StateUnusable(f"{explicit} is relative to a current directory that does "
                                "not exist any more",
                                hint="cd elsewhere, or name it from / on") from None
    if "PYTEST_CURRENT_TEST" in os.environ:
        raise StateUnusable("a test run must not use the real home directory",
                            hint="set PTYGUARD_DIR to a directory of the test's own")
    return _default_root(), False


def _default_root():
    """~/.ptyguard by the user database; /tmp/ptyguard-UID without a usable home."""
    home = user_home()
    if home and os.path.isdir(home):
        root = os.path.join(home, _HOME_DIRECTORY)
        if os.path.isdir(root) or os.access(home, os.W_OK | os.X_OK):
            return root
    return f"/tmp/ptyguard-{os.getuid()}"


def _host_name():
    """A directory name for this host, so that two that share a home stay apart."""
    name = _read_text("/etc/machine-id") or _read_text("/var/lib/dbus/machine-id")
    if not name or name == "uninitialized":
        name = "".join(c if c.isalnum() else "-" for c in os.uname().nodename) or "host"
    name = "host-" + name[:16]
    try:
        namespace = os.stat("/proc/self/ns/pid").st_ino
    except OSError:
        return name
    # Containers often carry the machine-id of the image that they came from.
    return name if namespace == _INITIAL_PID_NAMESPACE else f"{name}-{namespace:x}"


def _read_text(path):
    try:
        return _read_start(path, 256).decode("ascii", "replace").strip()
    except OSError:
        return ""


def _read_start(path, limit):
    """The first bytes of a file; does not wait for what has no end, such as a FIFO."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    data, piece = b"", b"?"
    try:
        while piece and len(data) < limit:
            piece = os.read(fd, limit - len(data))      # those of /proc come in pieces
            data += piece
    finally:
        os.close(fd)
    return data


def _make_private(path, parents=False):
    try:
        if parents:
            os.makedirs(os.path.dirname(path), exist_ok=True)
        os.mkdir(path, 0o700)
    except FileExistsError:
        pass
    except OSError as error:
        raise StateUnusable(f"cannot make the directory {path}: {error.strerror}",
                            hint="make it yourself, or set PTYGUARD_DIR to one that "
                                 "you can write", errno=error.errno) from None
    check_private(path)


def check_private(path):
    """Raise StateUnusable unless `path` is a directory of ours that nobody else enters."""
    try:
        facts = os.lstat(path)
    except OSError as error:
        raise StateUnusable(f"cannot look at {path}: {error.strerror}",
                            errno=error.errno) from None
    if stat.S_ISLNK(facts.st_mode):
        raise StateUnusable(f"{path} is a symbolic link",
                            hint="remove it, or set PTYGUARD_DIR to the real directory")
    if not stat.S_ISDIR(facts.st_mode):
        raise StateUnusable(f"{path} is not a directory", hint="move it out of the way")
    if facts.st_uid != os.getuid():
        raise StateUnusable(f"{path} belongs to uid {facts.st_uid}, not to us "
                            f"({os.getuid()})", hint="set PTYGUARD_DIR to a directory of yours")
    if stat.S_IMODE(facts.st_mode) & 0o077:
        raise StateUnusable(f"{path} is open to others "
                            f"(mode {stat.S_IMODE(facts.st_mode):04o})",
                            hint=f"it must be for you alone: chmod 700 {path}, or name one "
                                 "that does not exist yet")


def _place_for_sockets(state):
    """The directory for sockets and locks: the state directory itself where it can
    carry them, else a private one under /tmp.  Decided once, in the file `place`."""
    chosen = os.path.join(state, "place")
    for _ in range(3):
        try:
            place = os.fsdecode(_read_start(chosen, 4096)).strip()
        except FileNotFoundError:
            _decide_place(state, chosen)
            continue
        except OSError as error:
            raise StateUnusable(f"cannot read {chosen}: {error.strerror}",
                                errno=error.errno) from None
        if place == ".":
            return state
        if os.path.isabs(place) and "\0" not in place:
            _make_private(place)        # a cleaner of /tmp may have taken it
            return place
        break
    raise StateUnusable(f"{chosen} does not name a directory",
                        hint="remove it while no session runs")


def _decide_place(state, chosen):
    place = "."
    if len(os.fsencode(state)) + len("/a-123456789012") > _SOCKET_PATH_MAX \
            or not _can_carry_sockets(state):
        place = f"/tmp/ptyguard-{os.getuid()}-{os.urandom(6).hex()}"
    draft = f"{chosen}.{os.urandom(6).hex()}"
    try:
        fd = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        with open(fd, "wb") as file:
            file.write(os.fsencode(place) + b"\n")
        try:
            os.link(draft, chosen)      # whole or not at all, and only one wins
        except FileExistsError:
            pass
        except OSError:
            os.rename(draft, chosen)    # no hard links here: the last one wins, once
            return
        os.unlink(draft)
    except OSError as error:
        raise StateUnusable(f"cannot write {chosen}: {error.strerror}",
                            hint="free some space, or set PTYGUARD_DIR elsewhere",
                            errno=error.errno) from None


def _can_carry_sockets(directory):
    """Whether sockets and locks work there (some network and FUSE mounts have neither)."""
    probe = os.path.join(directory, "probe." + os.urandom(4).hex())
    sock = _socket.socket(_socket.AF_UNIX)
    try:
        sock.bind(probe)
        fd = os.open(directory, os.O_RDONLY)
        try:
            fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        finally:
            os.close(fd)
        return True
    except OSError:
        return False
    finally:
        sock.close()
        _unlink_quietly(probe)


def _unlink_quietly(path):
    try:
        os.unlink(path)
    except OSError:
        pass


def user_id():
    """An integer that names the user; only the same user may talk to us."""
    return os.getuid()


def _passwd_entry():
    import pwd              # not on every start: it may ask a directory service
    try:
        return pwd.getpwuid(os.getuid())
    except KeyError:
        return None


def user_home():
    """The user's home by the user database, or None."""
    entry = _passwd_entry()
    return entry.pw_dir if entry and os.path.isabs(entry.pw_dir) else None


def user_shell():
    """The user's login shell, absolute."""
    entry = _passwd_entry()
    for shell in (entry and entry.pw_shell, os.environ.get("SHELL")):
        if shell and os.path.isabs(shell) and os.access(shell, os.X_OK):
            return shell
    return "/bin/sh"


def boot_id():
    """A text that changes with every boot of this host."""
    return _read_text("/proc/sys/kernel/random/boot_id") or "unknown"


# -- processes ---------------------------------------------------------------------------

def process_start(pid):
    """The start time of the living process `pid`, or None; a zombie is dead."""
    row = _read_process(pid)
    return None if row is None or row.is_zombie else row.start


def _read_process(pid):
    if not _IS_LINUX:
        return _ask_ps(pid)
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            text = file.read()
    except (FileNotFoundError, ProcessLookupError):
        return None                     # any other error says nothing about the process
    # The command stands in brackets and may hold brackets and blanks (proc(5)).
    fields = text[text.rindex(b")") + 2:].split()
    return Process(pid, parent=int(fields[1]), group=int(fields[2]), session=int(fields[3]),
                   terminal=int(fields[4]) & 0xFFFFFFFF, start=int(fields[19]),
                   is_zombie=fields[0] in (b"Z", b"X", b"x"))


def _ask_ps(pid):
    """Where there is no /proc: ps gives the start to the second."""
    found = [row for row in _process_table_of_ps() if row.pid == pid]
    return found[0] if found else None


def _process_table_of_ps():
    import subprocess
    text = subprocess.run(["ps", "-axo", "pid=,ppid=,pgid=,stat=,lstart="], timeout=10,
                          env={"LC_ALL": "C", "PATH": "/bin:/usr/bin"},
                          stdout=subprocess.PIPE).stdout.decode("ascii", "replace")
    rows = []
    for line in text.splitlines():
        fields = line.split(None, 4)
        if len(fields) == 5:
            start = int(time.mktime(time.strptime(fields[4].strip())))
            rows.append(Process(int(fields[0]), int(fields[1]), int(fields[2]),
                                int(fields[2]), 0, start, fields[3].startswith("Z")))
    return rows


def process_table():
    """All processes that can be seen, as a list of `Process`."""
    if not _IS_LINUX:
        return _process_table_of_ps()
    rows = []
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                rows.append(_read_process(int(name)))
            except OSError:
                continue                # hidden from us (hidepid)
    return [row for row in rows if row is not None]


def process_facts(pid):
    """What can be seen of a process, for people."""
    facts = {}
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            argv = file.read(4096).split(b"\0")[:-1]
        facts["argv"] = [os.fsdecode(item) for item in argv]
        facts["command"] = _read_text(f"/proc/{pid}/comm")
        facts["cwd"] = os.readlink(f"/proc/{pid}/cwd")
    except OSError:
        pass
    return facts


def marked_processes(mark):
    """The set of pids whose environment holds the bytes `mark`; of those we may look at."""
    found = set()
    for name in os.listdir("/proc") if _IS_LINUX else ():
        if not name.isdigit():
            continue
        try:
            with open(f"/proc/{name}/environ", "rb") as file:
                if mark in file.read().split(b"\0"):
                    found.add(int(name))
        except OSError:
            continue                    # gone, or somebody else's
    return found


def signal_process(pid, start, signum):
    """Send a signal to exactly that process; False when it is gone."""
    try:
        if pid <= 0 or process_start(pid) != start or start is None:
            return False
        os.kill(pid, signum)
    except ProcessLookupError:
        return False
    except OSError:
        return True         # it may live, and is not ours to signal (setuid) or to look at
    return True


def signal_group(group, signum):
    """Signal a process group; False when nobody was there (or all not ours)."""
    if group <= 1:
        return False
    try:
        os.killpg(group, signum)
    except OSError:                     # nobody there, not ours, or no such signal
        return False
    return True


def signal_number(name):
    """The number of `SIGHUP`, `HUP`, `hup` or `1`; None when there is none."""
    text = str(name).upper()
    if text.isdecimal():
        if len(text) > 4:
            return None                 # int() of a longer text is slow, or an error
        return int(text) if int(text) in signal.valid_signals() else None
    if not text.startswith("SIG"):
        text = "SIG" + text
    if text[3:].isdecimal():            # as signal_name spells those between RTMIN and RTMAX
        return signal_number(text[3:])
    number = getattr(signal, text, None)
    return number if text in _signal_names() else None


def _signal_names():
    """The names of signals, in alphabetical order."""
    return [name for name in dir(signal) if name.startswith("SIG") and not name.startswith("SIG_")]


def signal_name(number):
    """`SIGHUP` for 1; a name is made up for numbers without one."""
    # The first of several, as signal.Signals has it: SIGABRT, not SIGIOT.
    return next((name for name in _signal_names() if getattr(signal, name) == number),
                f"SIG{number}")         # real-time signals between SIGRTMIN and SIGRTMAX


def decode_status(raw):
    """(code, signal number) of what the system reported; one of them is None."""
    if os.WIFSIGNALED(raw):
        return None, os.WTERMSIG(raw)
    return os.WEXITSTATUS(raw), None


def reap_children():
    """(pid, raw exit status) of every child of ours that has ended; never blocks."""
    ended = []
    while True:
        try:
            pid, raw = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return ended
        if not pid:
            return ended
        ended.append((pid, raw))


def watch_process(pid, start):
    """A descriptor that becomes readable at that process's end, or None."""
    if not hasattr(os, "pidfd_open"):
        return None
    try:
        fd = os.pidfd_open(pid, 0)      # close-on-exec by itself, pidfd_open(2)
    except OSError:
        return None
    if process_start(pid) != start:     # gone in between, or somebody else by now
        os.close(fd)
        return None
    return fd


def launch(argv, environment, descriptors, log_path, detach):
    """Run `argv` with null and log as its stdio; return its pid."""
    report_read, report_write = os.pipe()
    try:
        pid = _fork_launched(argv, environment, descriptors, log_path, detach, report_write)
    except BaseException:
        os.close(report_read)
        raise
    finally:
        os.close(report_write)
    with open(report_read, "rb", buffering=0) as report:
        text = b"".join(iter(lambda: report.read(256), b""))
    if detach:
        os.waitpid(pid, 0)
    words = text.split()
    if len(words) == 2:
        if not detach:
            os.waitpid(pid, 0)
        number = int(words[1])
        raise OSError(number, os.strerror(number), argv[0])
    if detach and not words:
        raise OSError(errno.ECHILD, "ended before it ran", argv[0])
    return int(words[0]) if detach else pid


def begin_launch(argv, environment, descriptors, log_path):
    """Like `launch` without `detach`, and waits for nothing; the pid of a child."""
    # What it would say of a failed exec, its status says as well.
    unread = os.open(os.devnull, os.O_WRONLY)
    try:
        return _fork_launched(argv, environment, descriptors, log_path, False, unread)
    finally:
        os.close(unread)


def _fork_launched(argv, environment, descriptors, log_path, detach, report):
    pid = _fork_clean()
    if pid == 0:
        _run_launched(argv, environment, descriptors, log_path, detach, report)
    return pid


def _run_launched(argv, environment, descriptors, log_path, detach, report):
    """The child's side of `launch`: never returns.

    `report` gets the pid, then nothing (exec closes it) or the errno.
    """
    said = b"0 "                        # in place of the pid, until that is told
    try:
        _reset_signals()
        os.setsid()
        if detach:
            if os.fork():               # the session's leader leaves: its child can
                os._exit(0)             # never get a controlling terminal by accident
            said = b""
            os.write(report, b"%d " % os.getpid())
        os.umask(0o077)
        os.chdir("/")
        null = os.open(os.devnull, os.O_RDWR)
        try:
            log = os.open(log_path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW
                          | os.O_NONBLOCK, 0o600)
        except OSError:
            log = null                  # a log never stops what it describes
        # All are moved above the target range first, so that no dup2 hits one
        # that is still to be moved.
        lifted = [fcntl.fcntl(fd, fcntl.F_DUPFD, 10 + len(descriptors))
                  for fd in (null, log, log, *descriptors, report)]
        for target, fd in enumerate(lifted):
            os.dup2(fd, target, inheritable=target < len(lifted) - 1)
        report = len(lifted) - 1
        close_from(report + 1)
        os.execve(argv[0], argv, environment)
    except OSError as error:
        os.write(report, said + b"%d" % error.errno)
    except BaseException:
        os.write(report, said + b"%d" % errno.EINVAL)
    finally:
        os._exit(127)


def run_in_place(argv, environment, descriptors):
    """Become that program, with these descriptors and 0 to 2; returns only by raising OSError."""
    try:
        for fd in descriptors:
            os.set_inheritable(fd, True)
        os.execve(argv[0], argv, environment)
    except OSError:
        for fd in descriptors:
            os.set_inheritable(fd, False)
        raise


def block_signals(names):
    """Let these wait until they are unblocked; over an exec, too."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {getattr(signal, name) for name in names})


def unblock_signals(names):
    """Those that waited come now."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {getattr(signal, name) for name in names})


def begin_command(argv):
    """Run `argv`, found by PATH, with all that is ours; the pid of a child."""
    report_read, report_write = os.pipe()
    try:
        pid = _fork_clean()
    except BaseException:
        os.close(report_read)
        os.close(report_write)
        raise
    if pid == 0:
        _run_command([os.fsencode(word) for word in argv], report_write)
    os.close(report_write)
    with open(report_read, "rb") as report:     # exec closes it
        text = report.read()
    if text:
        os.waitpid(pid, 0)
        raise OSError(int(text), os.strerror(int(text)), argv[0])
    return pid


def _run_command(argv, report):
    """The child's side of `begin_command`: never returns."""
    try:
        signal.set_wakeup_fd(-1)
        # Handlers end with exec, and what our caller had ignored stays so.  But these two
        # are Python's own doing.
        for name in ("SIGPIPE", "SIGXFSZ"):
            signal.signal(getattr(signal, name), signal.SIG_DFL)
        for number in signal.valid_signals():
            if callable(signal.getsignal(number)):
                signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        _exec_by_path(argv[0], argv, dict(os.environb))
    except OSError as error:
        os.write(report, b"%d" % error.errno)
    except BaseException:
        os.write(report, b"%d" % errno.EINVAL)
    finally:
        os._exit(127)


def try_program(argv, timeout_s):
    """Whether `argv` runs and ends with status 0 within the time."""
    try:
        pid = launch(argv, {"PATH": os.defpath}, (), os.devnull, detach=False)
    except OSError:
        return False
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        found, raw = os.waitpid(pid, os.WNOHANG)
        if found:
            return raw == 0
        time.sleep(0.002)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return False


def _limit_names():
    import resource
    return {name: getattr(resource, name) for name in dir(resource)
            if name.startswith("RLIMIT_")}


def own_limits():
    """The caller's soft limits, umask and nice value, for a new session."""
    import resource
    limits = []
    for name, number in _limit_names().items():
        try:
            limits.append(f"{name}={resource.getrlimit(number)[0]}")
        except (OSError, ValueError):
            continue                    # known to Python, not to this kernel
    umask = os.umask(0o077)
    os.umask(umask)
    return {"limits": limits, "umask": umask, "nice": os.nice(0)}


def raise_descriptor_limit():
    """Raise the number of descriptors to what we may; returns it."""
    import resource
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    for wanted in (hard, 10240):        # macOS says "unlimited" and takes OPEN_MAX only
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
            return wanted
        except (OSError, ValueError):
            continue
    return soft


def close_from(first):
    """Close every descriptor from `first` up."""
    try:
        names = os.listdir("/proc/self/fd" if _IS_LINUX else "/dev/fd")
    except OSError:
        os.closerange(first, os.sysconf("SC_OPEN_MAX"))
        return
    # Named one by one: closerange counts to the limit where the kernel has no
    # close_range(2), and a limit of a million is common.
    for name in names:
        if int(name) >= first:
            try:
                os.close(int(name))
            except OSError:
                pass                    # the directory's own descriptor
    # A PyPy without reference counts may hold listdir's descriptor no longer; done.


def ensure_standard_streams():
    """Open the null device for each of 0, 1, 2 that is closed."""
    for fd in (0, 1, 2):
        try:
            os.fstat(fd)
        except OSError:
            # The lowest free number is exactly `fd`: those below are open.
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)


def _fork_clean():
    """fork with all signals blocked; the child resets them before it unblocks."""
    every = signal.valid_signals()
    before = signal.pthread_sigmask(signal.SIG_SETMASK, every)
    try:
        pid = os.fork()
    except BaseException:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        raise
    if pid:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    return pid


def _reset_signals():
    """Default dispositions and an empty mask: what a program expects to begin with.

    Python ignores SIGPIPE and SIGXFSZ, a background job of a shell without job
    control SIGINT and SIGQUIT, nohup SIGHUP; exec would keep all of that.
    """
    signal.set_wakeup_fd(-1)
    for number in signal.valid_signals():
        try:
            signal.signal(number, signal.SIG_DFL)
        except (OSError, ValueError):
            pass                        # KILL, STOP, and those the C library keeps
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


# -- sessions ----------------------------------------------------------------------------

class _SpawnFailed(OSError):
    """An OSError that knows its stage."""

    def __init__(self, error, stage):
        super().__init__(*error.args[:2])       # termios.error has no more than these
        self.stage = stage


def spawn_session(argv, executable, environment, cwd, size, echo, umask, nice, limits):
    """Start a child as leader of a new terminal of `size`; return `Spawned`."""
    try:
        master, slave = os.openpty()
    except OSError as error:
        raise _SpawnFailed(error, "terminal") from None
    status_read = status_write = -1
    try:
        _set_up_terminal(slave, size, echo)
        os.set_blocking(master, False)
        status_read, status_write = os.pipe()
        os.set_blocking(status_read, False)
        pid = _fork_clean()
    except (OSError, termios.error) as error:
        for fd in (master, slave, status_read, status_write):
            if fd >= 0:
                os.close(fd)
        raise _SpawnFailed(error, "fork") from None
    if pid == 0:
        _run_session(argv, executable, environment, cwd, slave, status_write,
                     umask, nice, limits)
    os.close(status_write)
    try:
        start = process_start(pid) or 0     # 0: it ended before anybody looked
    except OSError:
        start = 0
    return Spawned(pid, start, master, slave, status_read)


def _set_up_terminal(slave, size, echo):
    # Sizes go to the slave: on macOS a master takes none before its slave is open.
    resize_terminal(slave, size)
    mode = termios.tcgetattr(slave)
    mode[0] |= getattr(termios, "IUTF8", 0x4000 if _IS_LINUX or sys.platform == "darwin" else 0)
    if not echo:
        mode[3] &= ~(termios.ECHO | termios.ECHOE | termios.ECHOK | termios.ECHONL)
    termios.tcsetattr(slave, termios.TCSANOW, mode)


def _run_session(argv, executable, environment, cwd, slave, status, umask, nice, limits):
    """The child's side of `spawn_session`: never returns."""
    stage = "setup"
    try:
        _reset_signals()
        os.setsid()
        fcntl.ioctl(slave, termios.TIOCSCTTY, 0)
        # Out of the way, above 3: dup2 of a descriptor to itself is an error here.
        status = fcntl.fcntl(status, fcntl.F_DUPFD, 4)
        for fd in (0, 1, 2):
            os.dup2(slave, fd, inheritable=True)
        os.dup2(status, 3, inheritable=False)
        status = 3
        close_from(4)
        os.umask(umask)
        _apply_nice(nice)
        _apply_limits(limits)
        stage = "cwd"
        os.chdir(cwd)
        stage = "exec"
        _exec_by_path(executable, argv, environment)
    except OSError as error:
        os.write(status, f"{stage} {error.errno}".encode())
    except BaseException:
        os.write(status, f"{stage} {errno.EINVAL}".encode())
    finally:
        os._exit(127)


def _apply_nice(nice):
    try:
        os.nice(nice - os.nice(0))
    except OSError:
        pass                            # a guard at 10 cannot give a child 0 unless root


def _apply_limits(limits):
    import resource
    numbers = _limit_names()
    for item in limits:
        name, _, value = item.decode("ascii", "replace").partition("=")
        if name not in numbers:
            continue
        try:
            hard = resource.getrlimit(numbers[name])[1]
            resource.setrlimit(numbers[name], (int(value), hard))
        except (OSError, ValueError):
            continue                    # the creator's limit lies above our hard one


def _exec_by_path(executable, argv, environment):
    """execve along the session's own PATH; the errno that is raised is the telling one.

    As a shell does: a directory without it is skipped, and "permission denied"
    somewhere is worth more than "not found" elsewhere.
    """
    if b"/" in executable:
        os.execve(executable, argv, environment)
    denied = None
    for directory in environment.get(b"PATH", os.fsencode(os.defpath)).split(b":"):
        try:
            os.execve(os.path.join(directory or b".", executable), argv, environment)
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError as error:
            if error.errno not in (errno.EACCES, errno.ELOOP, errno.ENAMETOOLONG):
                raise
            denied = denied or error
    raise denied or FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))


def decode_exec_status(data):
    """None when exec worked, else (stage, errno); stages `cwd`, `exec`, `setup`."""
    words = data.split()
    return (words[0].decode("ascii", "replace"), int(words[1])) if len(words) == 2 else None


def reopen_slave(master):
    """A new slave descriptor of that terminal, so that it outlives its programs."""
    flags = os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC
    if _IS_LINUX:
        try:
            # TIOCGPTPEER (Linux 4.13): needs no path, so any mount namespace will do.
            return fcntl.ioctl(master, 0x5441, flags)
        except OSError:
            number = struct.unpack("I", fcntl.ioctl(master, 0x80045430, b"\0" * 4))[0]
            return os.open(f"/dev/pts/{number}", flags)     # TIOCGPTN
    if hasattr(os, "ptsname"):
        return os.open(os.ptsname(master), flags)
    name = fcntl.ioctl(master, 0x40807453, b"\0" * 128)     # TIOCPTYGNAME, macOS
    return os.open(name.rstrip(b"\0"), flags)


if hasattr(os, "readv"):
    def _read_into(fd, view):
        return os.readv(fd, (view,))
else:                                   # PyPy
    from io import FileIO

    def _read_into(fd, view):
        count = FileIO(fd, closefd=False).readinto(view)
        if count is None:
            raise BlockingIOError
        return count


def read_terminal(master, view):
    """Read into `view`: a count, NOTHING_YET or LET_GO.  Never blocks."""
    try:
        return _read_into(master, view) or LET_GO
    except BlockingIOError:
        return NOTHING_YET
    except OSError as error:
        if error.errno == errno.EIO:
            return LET_GO
        raise


def write_terminal(master, data):
    """Write what fits now; the count, 0 for none, LET_GO when nobody can read it."""
    try:
        return os.write(master, data)
    except BlockingIOError:
        return 0
    except OSError as error:
        if error.errno == errno.EIO:
            return LET_GO
        raise


def resize_terminal(master, size):
    """Set the size; programs are told when it differs."""
    cols, rows = size
    fcntl.ioctl(master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, cols, 0, 0))


def terminal_size(descriptor):
    """(cols, rows) or None when it is no terminal or has none."""
    try:
        packed = fcntl.ioctl(descriptor, termios.TIOCGWINSZ, b"\0" * 8)
    except OSError:
        return None
    rows, cols = struct.unpack("HHHH", packed)[:2]
    return (cols, rows) if cols and rows else None


def foreground_group(master):
    """The foreground process group, or None."""
    try:
        group = os.tcgetpgrp(master)
    except OSError:
        return None
    return group if group > 1 else None


# N_TTY_BUF_SIZE less the newline's place (drivers/tty/n_tty.c); MAX_CANON of macOS.
_LINE_BYTES_MAX = 4095 if _IS_LINUX else 1023


def canonical_mode(master):
    """The terminal's CanonicalMode, None while it is in another mode."""
    try:
        mode = termios.tcgetattr(master)
    except termios.error:
        return None
    if not mode[3] & termios.ICANON:
        return None
    ends = b"\n" + (b"\r" if mode[0] & termios.ICRNL and not mode[0] & termios.IGNCR else b"")
    ends += b"".join(mode[6][which] for which in (termios.VEOL, termios.VEOL2)
                     if mode[6][which] not in (b"\0", b"\xff"))
    byte = mode[6][termios.VEOF]
    return CanonicalMode(_LINE_BYTES_MAX, ends, b"" if byte == b"\0" else byte)


def hides_input(master):
    """Canonical mode without echo; True where it cannot be known."""
    try:
        local = termios.tcgetattr(master)[3]
    except termios.error:
        return True
    return bool(local & termios.ICANON) and not local & termios.ECHO


def end_of_input(master):
    """The byte that means end of input while in canonical mode, else None."""
    mode = canonical_mode(master)
    return mode.end_of_file or None if mode is not None else None


def terminal_device(master):
    """The device number that `Process.terminal` shows for its programs, or 0."""
    try:
        if _IS_LINUX:
            number = struct.unpack("I", fcntl.ioctl(master, 0x80045430, b"\0" * 4))[0]
            return _kernel_device(os.stat(f"/dev/pts/{number}").st_rdev)
    except OSError:
        pass
    return 0


def _kernel_device(device):
    # /proc/PID/stat shows new_encode_dev(): minor 7-0, major, minor 31-20 (kdev_t.h).
    major, minor = os.major(device), os.minor(device)
    return (minor & 0xFF) | (major << 8) | ((minor & ~0xFF) << 12)


# -- memory ------------------------------------------------------------------------------

def make_memory(size):
    """A descriptor of `size` bytes of zeroed memory without a name, fully backed."""
    fd = _make_memfd()
    if fd is not None:
        try:
            os.ftruncate(fd, size)
            return fd
        except OSError:
            os.close(fd)
            raise
    fd = _make_unlinked_file()
    try:
        # Without it a full tmpfs shows itself as SIGBUS, at a store, in the loop.
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(fd, 0, size)
        else:
            os.ftruncate(fd, size)
    except OSError:
        os.close(fd)
        raise
    return fd


def _make_memfd():
    try:
        return os.memfd_create("ptyguard-ring", os.MFD_CLOEXEC)
    except AttributeError:
        return None
    except OSError as error:
        if error.errno not in (errno.ENOSYS, errno.EPERM):
            raise
        return None                     # an old kernel, or a sandbox that forbids it


def _make_unlinked_file():
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    name = "ptyguard-" + os.urandom(12).hex()
    try:
        from _posixshmem import shm_open, shm_unlink
    except ImportError:
        pass
    else:
        fd = shm_open("/" + name, flags, mode=0o600)
        shm_unlink("/" + name)
        return fd
    for directory in ("/dev/shm", "/tmp"):
        path = os.path.join(directory, name)
        try:
            fd = os.open(path, flags | os.O_NOFOLLOW, 0o600)
        except OSError:
            continue
        os.unlink(path)
        return fd
    raise OSError(errno.ENOSPC, "no place for shared memory")


def map_memory(descriptor):
    """A writable buffer over all of it, shared; `.close()` unmaps."""
    import mmap             # of the daemon only, which has it loaded by then
    return mmap.mmap(descriptor, os.fstat(descriptor).st_size)


# -- sockets and locks -------------------------------------------------------------------

def listen(path):
    """A listening socket at `path`, private from birth, non-blocking."""
    try:
        facts = os.lstat(path)
        if not stat.S_ISSOCK(facts.st_mode) or facts.st_uid != os.getuid():
            raise StateUnusable(f"{path} is in the way and is no socket of ours",
                                hint="move it away")
        os.unlink(path)
    except FileNotFoundError:
        pass
    import socket
    sock = socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
    before = os.umask(0o177)            # bind creates the file: no moment with a wider mode
    try:
        sock.bind(path)
    except BaseException:
        sock.close()
        raise
    finally:
        os.umask(before)
    sock.listen(1024)
    sock.setblocking(False)
    return sock


def connect(path, timeout_s):
    """A connected socket, or OSError; TimeoutError is not a refusal."""
    sock = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
    try:
        # Only a blocking connect waits for room in a full backlog; with settimeout's
        # O_NONBLOCK it fails at once with EAGAIN (connect(2), AF_UNIX).
        limit = divmod(max(1, int(timeout_s * 1_000_000)), 1_000_000)
        sock.setsockopt(_socket.SOL_SOCKET, _socket.SO_SNDTIMEO, struct.pack("ll", *limit))
        sock.connect(path)
        sock.setsockopt(_socket.SOL_SOCKET, _socket.SO_SNDTIMEO, struct.pack("ll", 0, 0))
        sock.settimeout(timeout_s)
    except (BlockingIOError, _socket.timeout):
        sock.close()
        raise TimeoutError(errno.ETIMEDOUT, "no answer", path) from None
    except BaseException:
        sock.close()
        raise
    return sock


def connect_now(path):
    """A connected, non-blocking socket, or None when that cannot be had at once."""
    import socket
    sock = socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        sock.connect(path)              # at once or not at all: a full backlog is EAGAIN, unix(7)
        return sock
    except OSError:
        sock.close()
        return None


def watch_listener(sock):
    """A descriptor, LISTENER_GONE, or None."""
    try:
        pid = peer_process(sock)        # noted by listen(2), SO_PEERCRED in unix(7)
        if pid <= 0:
            return None
        os.kill(pid, 0)                 # not /proc, which may hide what lives (hidepid, proc(5))
    except ProcessLookupError:
        return LISTENER_GONE
    except PermissionError:
        pass                            # it lives
    except OSError:
        return None
    try:
        return watch_process(pid, process_start(pid))
    except OSError:
        return None


class _Socket(_socket.socket):
    """As much of `socket.socket` as is used of one that was passed to us, without loading that."""

    __slots__ = ()

    def accept(self):
        """A connected socket, and nothing worth knowing of a unix address."""
        descriptor, address = self._accept()
        return _Socket(_socket.AF_UNIX, _socket.SOCK_STREAM, 0, descriptor), address


def accept(listener):
    """A connected, non-blocking socket with room for bulk output, or OSError."""
    sock, _ = listener.accept()
    sock.setblocking(False)
    # Measured: a megabyte takes what a turn reads in one send; the default
    # (about 200 KiB) costs wake-ups.
    sock.setsockopt(_socket.SOL_SOCKET, _socket.SO_SNDBUF, 1 << 20)
    return sock


def socket_pair():
    """Two connected sockets, non-blocking."""
    import socket
    ours, theirs = socket.socketpair(_socket.AF_UNIX, _socket.SOCK_STREAM)
    ours.setblocking(False)
    theirs.setblocking(False)
    return ours, theirs


def adopt_socket(descriptor):
    """The socket object of a descriptor that was passed to us; owns it."""
    os.set_inheritable(descriptor, False)
    sock = _Socket(_socket.AF_UNIX, _socket.SOCK_STREAM, 0, descriptor)
    sock.setblocking(False)             # PyPy makes what it is given blocking
    return sock


# PyPy does not name it.  asm-generic/socket.h
_SO_PEERCRED = getattr(_socket, "SO_PEERCRED", 17 if _IS_LINUX else None)


def peer_user(sock):
    """The user id behind a connection (of whoever called listen, seen from the client)."""
    if _SO_PEERCRED:
        packed = sock.getsockopt(_socket.SOL_SOCKET, _SO_PEERCRED, struct.calcsize("3i"))
        return struct.unpack("3i", packed)[1]
    # struct xucred: version, uid, ... under LOCAL_PEERCRED (1) at SOL_LOCAL (0), BSDs
    return struct.unpack_from("II", sock.getsockopt(0, 1, 76))[1]


def peer_process(sock):
    """The pid behind an accepted connection, by the kernel, or 0 where it does not tell."""
    if not _SO_PEERCRED:
        return 0
    packed = sock.getsockopt(_socket.SOL_SOCKET, _SO_PEERCRED, struct.calcsize("3i"))
    return struct.unpack("3i", packed)[0]


def send_descriptors(sock, data, descriptors):
    """Like send, descriptors travel with the first byte; returns the count sent."""
    if not descriptors:
        return sock.send(data)
    packed = struct.pack(f"{len(descriptors)}i", *descriptors)
    return sock.sendmsg([data], [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, packed)])


_CMSG_CLOEXEC = getattr(_socket, "MSG_CMSG_CLOEXEC", 0)
_CMSG_BYTES = 253 * 4                   # SCM_MAX_FD


def receive_descriptors(sock, limit):
    """(data, descriptors, is_whole); the descriptors are ours, close-on-exec."""
    data, control, flags, _ = sock.recvmsg(limit, _socket.CMSG_SPACE(_CMSG_BYTES), _CMSG_CLOEXEC)
    descriptors = []
    for level, kind, packed in control:
        if level == _socket.SOL_SOCKET and kind == _socket.SCM_RIGHTS:
            count = len(packed) // 4
            descriptors += struct.unpack(f"{count}i", packed[:count * 4])
    if not _CMSG_CLOEXEC:
        for fd in descriptors:
            os.set_inheritable(fd, False)
    return data, descriptors, not flags & _socket.MSG_CTRUNC


def try_lock(path, purpose, shared=False):
    """Take the kernel lock of that file: a descriptor, or None when held."""
    flags = os.O_RDONLY if shared else os.O_RDWR | os.O_CREAT
    # Opening a FIFO that somebody put there must not wait for its other end (fifo(7)).
    fd = os.open(path, flags | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK, 0o600)
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode) and not stat.S_ISDIR(os.fstat(fd).st_mode):
            raise OSError(errno.EINVAL, "it is no file that could be locked", path)
        fcntl.flock(fd, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        if not shared:
            os.ftruncate(fd, 0)
            os.pwrite(fd, f"pid {os.getpid()} start {process_start(os.getpid())}, {purpose}, since "
                          f"{time.strftime('%Y-%m-%d %H:%M:%S')}\n".encode(), 0)
    except BlockingIOError:
        os.close(fd)
        return None
    except OSError as error:
        if error.errno != errno.ENOSPC:     # the lock counts, the words in it do not
            os.close(fd)
            raise
    return fd


def lock_holder(path):
    """What the holder wrote there, for an error message; "" when nothing is known."""
    return _read_text(path)


def lock_open_file(descriptor):
    """Take the kernel lock of an open file: True, False when held, None where there is none."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None                     # ENOLCK, EOPNOTSUPP: flock(2) on some network mounts
    return True


# -- readiness ---------------------------------------------------------------------------

class _Poll:
    """poll(2) with epoll's manners: takes any file, costs by the number of them."""

    def __init__(self):
        self._poll = select.poll()
        self.register = self._poll.register
        self.modify = self._poll.modify
        self.unregister = self._poll.unregister

    def poll(self, timeout_s):
        """(fd, bits) pairs; a negative time waits for ever."""
        # Rounded up: a deadline half a millisecond away must not spin.
        return self._poll.poll(-1 if timeout_s < 0 else int(timeout_s * 1000 + 0.999))

    def close(self):
        """Nothing to let go of."""


def make_poller(any_file=False):
    """An object with register(fd, bits), modify, unregister, poll(timeout_s), close."""
    if hasattr(select, "epoll") and not any_file:
        return select.epoll()           # its bits are poll's: READABLE, WRITABLE, FAILED
    return _Poll()


def make_inner_poller():
    """A poller whose fileno() can be watched in one of `make_poller`; None where there is none."""
    return select.epoll() if hasattr(select, "epoll") else None     # epoll(7), Q3


def poller_name():
    """epoll, poll, ...: for the log's banner."""
    return "epoll" if hasattr(select, "epoll") else "poll"


_LEFT_IGNORED = (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTSTP)


def watch_signals(names, act=None):
    """Turn signals into bytes on a descriptor: (descriptor, read function)."""
    read_end, write_end = os.pipe()
    os.set_blocking(read_end, False)
    os.set_blocking(write_end, False)
    numbers = {getattr(signal, name): name for name in names if hasattr(signal, name)}
    # A full pipe loses a byte, not the fact: whoever reads it acts on the name.
    signal.set_wakeup_fd(write_end, warn_on_full_buffer=False)
    for number in numbers:
        # What nohup, or `cmd &` in a script, had us ignore stays ignored.
        if number in _LEFT_IGNORED and signal.getsignal(number) == signal.SIG_IGN:
            continue
        # The byte is written before the handler runs.
        signal.signal(number, lambda *_: act() if act else None)

    def read():
        try:
            data = os.read(read_end, 4096)
        except BlockingIOError:
            return []
        return [numbers[number] for number in dict.fromkeys(data) if number in numbers]

    return read_end, read


# Before 3.11 the count of steps between two looks began anew with each try of a search, and
# PyPy never looks: there a signal may have to wait for as long as the search takes.
_SEARCHES_SEE_SIGNALS = sys.implementation.name == "cpython" and sys.version_info >= (3, 11)


def run_within(timeout_s, act):
    """What `act()` returns; TimeoutError when that takes longer (None: without limit)."""
    if timeout_s is None:
        return act() if _SEARCHES_SEE_SIGNALS else _run_interruptible(act)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGALRM,))       # as our caller may have left it
    if not _SEARCHES_SEE_SIGNALS:
        _rehearse(timeout_s, act)

    def late(*_):
        raise TimeoutError

    before = signal.signal(signal.SIGALRM, late)
    try:
        try:
            # 0 would be never.
            signal.setitimer(signal.ITIMER_REAL, max(timeout_s, 1e-6))
            return act()
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
    finally:                            # also if it came while that was switched off
        signal.signal(signal.SIGALRM, before)


def _run_interruptible(act):
    """`act()`, which Ctrl-C ends, and us with it: no handler would be called."""
    before = signal.getsignal(signal.SIGINT)
    if before != signal.default_int_handler:
        return act()
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        return act()
    finally:
        signal.signal(signal.SIGINT, before)


def _rehearse(timeout_s, act):
    """Do it in a child, which the kernel ends when the time is over: TimeoutError then."""
    pid = os.fork()
    if not pid:
        try:
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            if signal.getsignal(signal.SIGINT) == signal.default_int_handler:
                signal.signal(signal.SIGINT, signal.SIG_DFL)
            signal.setitimer(signal.ITIMER_REAL, max(timeout_s, 1e-6))
            act()
        finally:
            os._exit(0)                 # what it raises, it raises again in the parent
    try:
        _, status = os.waitpid(pid, 0)
    except BaseException:
        os.kill(pid, signal.SIGKILL)    # ours, and not reaped yet
        os.waitpid(pid, 0)
        raise
    if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGALRM:
        raise TimeoutError


def ignore_signals(names):
    """Ignore these signals from now on."""
    for name in names:
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)


# -- a human's terminal ------------------------------------------------------------------

def enter_raw(descriptor, keep_output):
    """Make it raw and return what `leave_raw` needs."""
    saved = termios.tcgetattr(descriptor)
    mode = termios.tcgetattr(descriptor)
    # cfmakeraw(3) by hand: tty.setraw left half of these flags alone before 3.12.
    mode[0] &= ~(termios.IGNBRK | termios.BRKINT | termios.PARMRK | termios.ISTRIP
                 | termios.INLCR | termios.IGNCR | termios.ICRNL | termios.IXON
                 | termios.IXOFF | termios.INPCK)
    if not keep_output:
        mode[1] &= ~termios.OPOST
    mode[2] = mode[2] & ~(termios.CSIZE | termios.PARENB) | termios.CS8
    mode[3] &= ~(termios.ECHO | termios.ECHONL | termios.ICANON | termios.ISIG | termios.IEXTEN)
    mode[6][termios.VMIN] = 1
    mode[6][termios.VTIME] = 0
    while True:
        try:
            # TCSANOW: draining can wait for ever on a terminal that is stopped.
            termios.tcsetattr(descriptor, termios.TCSANOW, mode)
            return saved
        except termios.error as error:  # in the background it stops us (SIGTTOU), until a signal comes
            if error.args[0] != errno.EINTR:
                raise


def leave_raw(descriptor, saved):
    """Put it back; never stops us, never blocks."""
    before = signal.signal(signal.SIGTTOU, signal.SIG_IGN)
    try:
        termios.tcsetattr(descriptor, termios.TCSANOW, saved)
        # The release of the detach key, an answer to a query: nothing for the shell.
        termios.tcflush(descriptor, termios.TCIFLUSH)
    except termios.error:
        pass                            # the terminal is gone: there is nothing to put back
    finally:
        signal.signal(signal.SIGTTOU, before)


def reopen_terminal(descriptor):
    """A descriptor of that terminal that is ours alone and does not block, or None."""
    try:
        # On Linux the link leads to the device; elsewhere its name does, if it has one.
        path = f"/proc/self/fd/{descriptor}" if _IS_LINUX else os.ttyname(descriptor)
        return os.open(path, os.O_WRONLY | os.O_NOCTTY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return None                     # another user's terminal, after su


def is_same_terminal(descriptor, other):
    """Whether both are that terminal."""
    if not (os.isatty(descriptor) and os.isatty(other)):
        return False
    one, two = os.fstat(descriptor), os.fstat(other)
    return (one.st_dev, one.st_ino, one.st_rdev) == (two.st_dev, two.st_ino, two.st_rdev)


_TTY_AUX_MAJOR = 5              # /dev/tty, /dev/console, /dev/ptmx: each opens another terminal


def open_lent_terminal(descriptor):
    """Such a terminal, opened anew (Linux: elsewhere /dev/fd/N is only a duplicate)."""
    import resource
    facts = os.fstat(descriptor)
    if not _IS_LINUX:
        raise OSError(errno.ENOTSUP, os.strerror(errno.ENOTSUP))
    if not stat.S_ISCHR(facts.st_mode) or not os.isatty(descriptor) \
            or os.major(facts.st_rdev) == _TTY_AUX_MAJOR:
        raise OSError(errno.ENOTTY, os.strerror(errno.ENOTTY))
    if facts.st_uid != os.getuid():
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))
    fd = os.open(f"/proc/self/fd/{descriptor}", os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK | os.O_CLOEXEC)
    if fd >= resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 2:
        os.close(fd)                    # a client costs one descriptor without: others are to come
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
    try:
        termios.tcgetattr(fd)           # EIO: it hung up meanwhile
        return fd
    except termios.error as error:
        os.close(fd)
        raise OSError(*error.args) from None


def watch_stops(pid):
    """Whether it is stopped, from /proc: 8 us a look."""
    if not _IS_LINUX or pid <= 0:
        raise OSError(errno.ENOTSUP, os.strerror(errno.ENOTSUP))
    return _ProcessState(os.open(f"/proc/{pid}/stat", os.O_RDONLY | os.O_CLOEXEC))


class _ProcessState:
    """One process's /proc/PID/stat: it stays that process's when the pid is another's."""

    def __init__(self, fd):
        self._fd = fd

    def is_stopped(self):
        """By a signal, or gone; a debugger's stop (t) is short, and nobody tells of its end."""
        try:
            text = os.pread(self._fd, 512, 0)
        except OSError:
            return True                 # ESRCH
        at = text.rfind(b")") + 2       # the command stands in brackets and may hold brackets, proc(5)
        return text[at:at + 1] in (b"T", b"Z", b"X")

    def close(self):
        os.close(self._fd)


def is_foreground(descriptor):
    """Whether we may read from that terminal now."""
    try:
        return os.tcgetpgrp(descriptor) == os.getpgrp()
    except OSError:
        return False


def stop_self():
    """Stop as Ctrl-Z would; returns when continued."""
    before = signal.signal(signal.SIGTSTP, signal.SIG_DFL)
    os.kill(os.getpid(), signal.SIGTSTP)
    signal.signal(signal.SIGTSTP, before)


# -- what `doctor` asks: looks only, and not to be known is an answer ----------------------

_NETWORK_FILE_SYSTEMS = frozenset((
    "9p", "afs", "beegfs", "ceph", "cifs", "fuse.glusterfs", "fuse.sshfs", "gfs2", "gpfs",
    "lustre", "ncpfs", "nfs", "nfs4", "ocfs2", "smb3", "smbfs", "virtiofs"))
# In order of weight, systemd.unit(5): what stands in an earlier one hides its namesake.
_MANAGER_ROOTS = ("/etc", "/run", "/usr/local/lib", "/usr/lib", "/lib")
_ST_RDONLY = 1                 # PyPy does not name it; the same on all systems, statvfs(3)
_RING_FILES = (                # how an open ring shows in /proc/PID/fd -> its kind
    ("/memfd:ptyguard-ring", "memfd"), ("/dev/shm/ptyguard-", "shared memory"),
    ("/tmp/ptyguard-", "file"))


def process_confinement(pid):
    """What bounds a process; {} where that cannot be seen."""
    status = dict(line.split(":\t", 1) for line in _read_whole(f"/proc/{pid}/status").splitlines()
                  if ":\t" in line)
    if not status:
        return {}
    groups = {int(word) for word in status.get("Groups", "").split()}
    groups.update(int(word) for word in status.get("Gid", "").split()[1:2])     # the effective one
    return {"state": status.get("State", "")[:1], "groups": sorted(groups),
            "no_new_privs": _is_set(status.get("NoNewPrivs")),
            "seccomp": _is_set(status.get("Seccomp")),
            "cgroups": _read_cgroups(pid), "limits": _read_limits(pid),
            "mounts": _read_link(f"/proc/{pid}/ns/mnt"), "files": _open_files(pid)}


def _read_whole(path):
    """A file of the system's as text; "" when it cannot be read."""
    try:
        return os.fsdecode(_read_start(path, 1 << 20))
    except OSError:
        return ""


def _read_link(path):
    try:
        return os.readlink(path)
    except OSError:
        return None


def _is_set(word):
    return None if word is None else word.strip() != "0"    # not told by old kernels


def _read_cgroups(pid):
    """{controllers: path}; those of version 2 have the name "" (cgroups(7))."""
    rows = [line.split(":", 2) for line in _read_whole(f"/proc/{pid}/cgroup").splitlines()]
    return {row[1]: row[2] for row in rows if len(row) == 3}


def _read_limits(pid):
    """{name: (soft, hard)}; `inf` for what is not limited."""
    limits = {}
    for line in _read_whole(f"/proc/{pid}/limits").splitlines()[1:]:
        words = line[26:].split()       # names have blanks in them, and 25 columns
        try:
            limits[line[:26].strip().lower()] = tuple(
                float("inf") if word == "unlimited" else int(word) for word in words[:2])
        except ValueError:
            continue
    return limits


def _open_files(pid):
    """What its descriptors lead to, or None when that is not for us to see."""
    try:
        names = os.listdir(f"/proc/{pid}/fd")
    except OSError:
        return None
    return [link for link in (_read_link(f"/proc/{pid}/fd/{name}") for name in names)
            if link is not None]


def group_name(number):
    """The name of a group by the group database; the number where it has none."""
    import grp
    try:
        return grp.getgrgid(number).gr_name
    except (KeyError, OverflowError):
        return str(number)


def look_at_lock(path, shared=False):
    """Whether that kernel lock is held, and by which pids; takes it for no longer than it asks."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError:
        return False, []
    try:
        pids = _locking_pids(os.fstat(fd))
        if pids:
            return True, pids
        # The list may lack it: other file systems number their files otherwise there.
        fcntl.flock(fd, (fcntl.LOCK_EX if shared else fcntl.LOCK_SH) | fcntl.LOCK_NB)
        return False, []
    except BlockingIOError:
        return True, []
    finally:
        os.close(fd)


def _locking_pids(facts):
    """Who has locked that file, by /proc/locks (proc(5))."""
    name = f"{os.major(facts.st_dev):02x}:{os.minor(facts.st_dev):02x}:{facts.st_ino}"
    rows = [line.split() for line in _read_whole("/proc/locks").splitlines()]
    return [int(row[4]) for row in rows
            if len(row) > 5 and row[1] == "FLOCK" and row[5] == name and row[4].isdigit()]


def terminal_supply():
    """How many terminals there are and may be, and why none can be had, if so."""
    counts = [_read_text("/proc/sys/kernel/pty/" + name) for name in ("nr", "max")]
    used, limit = (int(text) if text.isdigit() else None for text in counts)
    error = ""
    try:
        for fd in os.openpty():
            os.close(fd)
    except OSError as failure:
        error = failure.strerror or str(failure)
    return {"used": used, "limit": limit, "error": error}


def file_system(path):
    """What `path` is on."""
    facts = os.statvfs(path)
    type_ = _file_system_type(path)
    return {"type": type_, "is_network": None if type_ is None else type_ in _NETWORK_FILE_SYSTEMS,
            "is_read_only": bool(facts.f_flag & _ST_RDONLY),
            "free_bytes": facts.f_bavail * facts.f_frsize,
            # Some, such as btrfs, have no such number.
            "free_files": facts.f_favail if facts.f_files else None}


def _file_system_type(path):
    """By the mount that `path` is under: the last of those with the longest name."""
    path, found, type_ = os.path.realpath(path), "", None
    for line in _read_whole("/proc/self/mountinfo").splitlines():
        words, _, rest = line.partition(" - ")
        words = words.split()
        if len(words) < 5 or not rest:
            continue
        # Blanks and their like stand there as \\040.
        under = os.fsdecode(os.fsencode(words[4]).decode("unicode_escape").encode("latin-1"))
        if len(under) >= len(found) and (path + "/").startswith(under.rstrip("/") + "/"):
            found, type_ = under, rest.split()[0]
    return type_


def ring_memory(pid=None):
    """What rings are made of, there or (without `pid`) here: memfd, shared memory, file."""
    if pid is None:
        fd = _make_memfd()
        if fd is None:
            fd = _make_unlinked_file()
        links = [_read_link(f"/proc/self/fd/{fd}") or ""]
        os.close(fd)
    else:
        links = _open_files(pid) or []
    kinds = {kind for link in links for start, kind in _RING_FILES
             if link.startswith(start) and link.endswith(" (deleted)")}
    if "file" in kinds and _file_system_type("/tmp") == "tmpfs":
        kinds = kinds - {"file"} | {"shared memory"}
    return next((kind for kind in ("file", "shared memory", "memfd") if kind in kinds), None)


def logout_facts():
    """What systemd knows of this user; `has_manager` is False where it does not run."""
    entry = _passwd_entry()
    user = entry.pw_name if entry else str(os.getuid())
    return {"has_manager": os.path.isdir("/run/systemd/system"),    # sd_booted(3)
            "user": user, "lingers": os.path.exists(f"/var/lib/systemd/linger/{user}")}


def user_bus():
    """The socket of the user's own bus, by the uid alone: cron has no XDG_RUNTIME_DIR."""
    path = f"/run/user/{os.getuid()}/bus"           # pam_systemd(8)
    try:
        facts = os.lstat(path)
    except OSError:
        return None
    return path if stat.S_ISSOCK(facts.st_mode) and facts.st_uid == os.getuid() else None


def find_program(name):
    """The absolute path of a program by PATH."""
    for directory in os.environ.get("PATH", os.defpath).split(os.pathsep):
        path = os.path.join(directory, name)
        if os.path.isabs(path) and os.path.isfile(path) and os.access(path, os.X_OK):
            return path
    return None


def manager_texts(name):
    """The service manager's texts about `logind.conf` or a unit, weightiest last."""
    return _manager_texts(name, _MANAGER_ROOTS)


def _manager_texts(name, roots):
    folder = "systemd" if name.endswith(".conf") else "systemd/system"
    mains = [os.path.join(root, folder, name) for root in roots]
    texts = [_read_whole(main) for main in mains if os.path.exists(main)][:1]
    added = {}
    for main in reversed(mains):
        added.update((drop, os.path.join(main + ".d", drop)) for drop in _names_in(main + ".d")
                     if drop.endswith(".conf"))
    texts += [_read_whole(added[drop]) for drop in sorted(added)]
    return [text for text in texts if text]


def _names_in(directory):
    try:
        return os.listdir(directory)
    except OSError:
        return []                       # most of these directories are not there


def cleaning_age(directory):
    """After what time systemd-tmpfiles removes what lies in `directory`; "" when never."""
    return _cleaning_age(directory, _MANAGER_ROOTS)


def _cleaning_age(directory, roots):
    files = {}
    for folder in (os.path.join(root, "tmpfiles.d") for root in reversed(roots)):
        files.update((name, os.path.join(folder, name)) for name in _names_in(folder)
                     if name.endswith(".conf"))
    for name in sorted(files):          # of two lines about one path the first counts
        for line in _read_whole(files[name]).splitlines():
            words = line.split()
            if len(words) >= 2 and words[0][:1] in "dDevqQ" and words[1].rstrip("/") == directory:
                return words[5] if len(words) > 5 and words[5] != "-" else ""
    return ""
