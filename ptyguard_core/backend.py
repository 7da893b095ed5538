"""Backend: the contract that ptyguard_posix.py and ptyguard_win.py both keep.

The house asks the operating system for nothing but what is named here; the
front door picks the module, everyone else is handed it as `backend`.  The class
below is never instantiated: it is the list of names, parameters, units and
errors, and tests/test_backend_contract.py reads both modules against it.

What it does not promise, so that a pseudo-console fits behind it too: that the
daemon reads the terminal itself (there the guard pumps into the ring), that a
handle travels by descriptor passing, that a signal exists (a graceful stop is
a message), that a path is a socket.

Units: seconds are floats with the suffix `_s`, sizes are bytes, terminal sizes
are (cols, rows).  A process is a pid plus its start time, an opaque integer
that differs for two processes that ever had the same pid.
"""

# Readiness bits, as epoll(7) and poll(2) number them: no conversion on the hot path.
READABLE = 1
WRITABLE = 4
FAILED = 8 | 16 | 32           # error, hang-up, not open
HANGUP = 16                    # comes unasked; asked for alone it keeps a descriptor watched

# What `read_terminal` answers besides a count of bytes.
NOTHING_YET = 0
LET_GO = -1                    # no program has the terminal open any more

LISTENER_GONE = -1             # what `watch_listener` answers besides a descriptor and None

SOCKET_PATH_MAX = 107          # bytes that Linux takes; macOS 103, and fails beyond them


class Paths:
    """Where things are, for one user on one host; strings, absolute."""

    def __init__(self, root, state, place):
        self.root = root                                # what PTYGUARD_DIR names
        self.state = state                              # this host's part of it
        self.place = place                              # sockets and locks
        self.client_socket = place + "/client.sock"
        self.guard_socket = place + "/guard.sock"
        self.start_lock = place + "/start.lock"
        self.guard_lock = place + "/guard.lock"
        self.daemon_lock = place + "/daemon.lock"
        self.daemon_log = state + "/daemon.log"
        self.guard_log = state + "/guard.log"
        self.copies = state + "/bin"

    def agent_link(self, id_):
        """A session's link to an SSH agent: the longest name beside the sockets."""
        return f"{self.place}/a-{id_}"


class Process:
    """One row of the process table."""

    __slots__ = ("pid", "parent", "group", "session", "terminal", "start", "is_zombie")

    def __init__(self, pid, parent, group, session, terminal, start, is_zombie):
        self.pid = pid
        self.parent = parent
        self.group = group
        self.session = session
        self.terminal = terminal        # device number of the controlling terminal, or 0
        self.start = start
        self.is_zombie = is_zombie


class Spawned:
    """A child on its way: `status` tells, at its end of file, whether exec worked."""

    __slots__ = ("pid", "start", "master", "slave", "status")

    def __init__(self, pid, start, master, slave, status):
        self.pid = pid
        self.start = start
        self.master = master            # descriptors: the receiver of this owns them
        self.slave = slave
        self.status = status


class CanonicalMode:
    """What a terminal's settings say of lines, while it is in canonical mode."""

    __slots__ = ("limit", "ends", "end_of_file")

    def __init__(self, limit, ends, end_of_file):
        self.limit = limit              # bytes that an unfinished line may have
        self.ends = ends                # the bytes that end one
        self.end_of_file = end_of_file  # one byte, or b"" when there is none


class Backend:
    """The names both modules have.  See the module's docstring."""

    # -- places and identities -----------------------------------------------------------
    def find_paths(explicit=None):
        """The `Paths` for this user; directories are made, private, or refused.

        `explicit` wins over PTYGUARD_DIR.  Raises StateUnusable with the reason.
        """

    def look_for_paths(explicit=None):
        """(the `Paths` that `find_paths` would find, whether the place of sockets is decided).

        Makes and refuses nothing.  Raises StateUnusable where no root can be named.
        """

    def user_id():
        """An integer that names the user; only the same user may talk to us."""

    def user_home():
        """The user's home by the user database, or None."""

    def user_shell():
        """The user's login shell, absolute."""

    def boot_id():
        """A text that changes with every boot of this host."""

    def check_private(path):
        """Raise StateUnusable unless `path` is a directory of ours that nobody else enters."""

    # -- processes -----------------------------------------------------------------------
    def process_start(pid):
        """The start time of the living process `pid`, or None; a zombie is dead.

        OSError when it could not be looked at: that says nothing about the process.
        """

    def process_table():
        """All processes that can be seen, as a list of `Process`."""

    def process_facts(pid):
        """What can be seen of a process, for people: a dict with `command`, `cwd`, `argv`
        where they are known."""

    def marked_processes(mark):
        """The set of pids whose environment, as they were started, holds the bytes `mark`
        (`NAME=VALUE`); of those that can be looked at."""

    def signal_process(pid, start, signum):
        """Send a signal to exactly that process; False when it is gone.

        With `signum` 0 only asks.  Never signals a recycled pid.
        """

    def signal_group(group, signum):
        """Signal a process group; False when nobody was there (or all not ours)."""

    def signal_number(name):
        """The number of `SIGHUP`, `HUP`, `hup` or `1`; None when there is none."""

    def signal_name(number):
        """`SIGHUP` for 1; a name is made up for numbers without one."""

    def decode_status(raw):
        """(code, signal number) of what the system reported; one of them is None."""

    def reap_children():
        """(pid, raw exit status) of every child of ours that has ended; never blocks."""

    def watch_process(pid, start):
        """A descriptor that becomes readable at that process's end, or None if
        this system has no such thing.  Not only for children."""

    def launch(argv, environment, descriptors, log_path, detach):
        """Run `argv` with null and log as its stdio; return its pid.

        `descriptors` become 3, 4, ... there; everything else is closed.  With
        `detach` it is nobody's child and leads its own session.  OSError with
        the errno of a failed exec.
        """

    def begin_launch(argv, environment, descriptors, log_path):
        """Like `launch` without `detach`, and waits for nothing; the pid of a child.

        A failed exec shows in what `reap_children` tells of it: status 127.  OSError when
        it did not get that far.
        """

    def run_in_place(argv, environment, descriptors):
        """Become the program `argv`: same process, same children.

        It has these descriptors and 0 to 2, under the numbers that they have.  Returns only
        by raising OSError; then nothing has changed.
        """

    def block_signals(names):
        """Let these signals wait until they are unblocked; over `run_in_place`, too."""

    def unblock_signals(names):
        """Those that waited come now."""

    def begin_command(argv):
        """Run `argv`, found by PATH, with all that is ours: streams, directory, environment,
        process group, what is ignored; the pid of a child.  OSError when it cannot run."""

    def try_program(argv, timeout_s):
        """Whether `argv` runs and ends with status 0 within the time."""

    def own_limits():
        """The caller's soft limits, umask and nice value, for a new session:
        a dict with `limits` (list of "NAME=VALUE"), `umask`, `nice`."""

    def raise_descriptor_limit():
        """Raise the number of descriptors to what we may; returns it."""

    def close_from(first):
        """Close every descriptor from `first` up."""

    def ensure_standard_streams():
        """Open the null device for each of 0, 1, 2 that is closed."""

    # -- sessions ------------------------------------------------------------------------
    def spawn_session(argv, executable, environment, cwd, size, echo, umask, nice, limits):
        """Start a child as leader of a new terminal of `size`; return `Spawned`.

        Bytes throughout; `environment` is a dict.  exec is tried after return:
        read `Spawned.status` to its end (`decode_exec_status`).  OSError with
        `.stage` "terminal" or "fork" when it did not get that far.
        """

    def decode_exec_status(data):
        """None when exec worked, else (stage, errno); stages `cwd`, `exec`, `setup`."""

    def reopen_slave(master):
        """A new slave descriptor of that terminal, so that it outlives its programs."""

    def read_terminal(master, view):
        """Read into `view`: a count, NOTHING_YET or LET_GO.  Never blocks."""

    def write_terminal(master, data):
        """Write what fits now; the count, 0 for none, LET_GO when nobody can read it."""

    def resize_terminal(master, size):
        """Set the size; programs are told when it differs."""

    def terminal_size(descriptor):
        """(cols, rows) or None when it is no terminal or has none."""

    def foreground_group(master):
        """The foreground process group, or None."""

    def canonical_mode(master):
        """The terminal's `CanonicalMode`, None while it is in another mode."""

    def hides_input(master):
        """Whether a line is typed there that is not shown, a password most likely: canonical
        mode without echo.  True where it cannot be known."""

    def end_of_input(master):
        """The byte that means end of input while in canonical mode, else None."""

    def terminal_device(master):
        """The device number that `Process.terminal` shows for its programs, or 0."""

    # -- memory --------------------------------------------------------------------------
    def make_memory(size):
        """A descriptor of `size` bytes of zeroed memory without a name, fully backed."""

    def map_memory(descriptor):
        """A writable buffer over all of it, shared; `.close()` unmaps."""

    # -- sockets and locks ---------------------------------------------------------------
    def listen(path):
        """A listening socket at `path`, private from birth, non-blocking.

        Whoever calls holds the lock that makes the path theirs: a dead socket
        there is removed, anything that is not a socket of ours is refused.
        """

    def connect(path, timeout_s):
        """A connected socket, or OSError; TimeoutError is not a refusal."""

    def connect_now(path):
        """A connected, non-blocking socket, or None when that cannot be had at once."""

    def watch_listener(sock):
        """How to notice the end of who serves the socket that `sock` is connected to.

        A descriptor that becomes readable at the end of the process that called listen;
        LISTENER_GONE when that one is gone, so that its child or the like serves there;
        None when nothing tells.
        """

    def accept(listener):
        """A connected, non-blocking socket with room for bulk output, or OSError."""

    def socket_pair():
        """Two connected sockets, non-blocking."""

    def adopt_socket(descriptor):
        """The socket object of a descriptor that was passed to us; owns it."""

    def peer_user(sock):
        """The user id behind a connection (of whoever called listen, seen from the client)."""

    def peer_process(sock):
        """The pid behind an accepted connection, by the kernel, or 0 where it does not tell."""

    def send_descriptors(sock, data, descriptors):
        """Like send, descriptors travel with the first byte; returns the count sent."""

    def receive_descriptors(sock, limit):
        """(data, descriptors, is_whole); the descriptors are ours, close-on-exec."""

    def try_lock(path, purpose, shared=False):
        """Take the kernel lock of that file: a descriptor, or None when held.

        Released by closing it or by death, inherited by nobody.  The holder's
        pid and purpose are written inside for error messages only.
        """

    def lock_holder(path):
        """What the holder wrote there, for an error message; "" when nothing is known."""

    def lock_open_file(descriptor):
        """Take the kernel lock of an open file for as long as that is open; writes nothing.

        True; False when somebody else holds it; None where files cannot be locked.
        """

    # -- readiness -----------------------------------------------------------------------
    def make_poller(any_file=False):
        """An object with register(fd, bits), modify, unregister, poll(timeout_s).

        `poll` gives (fd, bits) pairs; a negative time waits for ever.  `any_file`: it also
        takes regular files and /dev/null, which epoll refuses.
        """

    def make_inner_poller():
        """A poller that can be watched in one of `make_poller`, by its fileno(): readable while
        anything in it is ready.  None where pollers cannot be nested.
        """

    def poller_name():
        """epoll, poll, ...: for the log's banner."""

    def watch_signals(names, act=None):
        """Turn signals into bytes on a descriptor: (descriptor, read function).

        The read function returns the names that came, without blocking.  `act()`
        is called in the signal handler too: it may raise, to leave a blocked call.
        Hang-ups and keyboard signals that the caller had us ignore stay ignored.
        """

    def run_within(timeout_s, act):
        """What `act()` returns; TimeoutError when that takes longer (None: without limit).

        For a search that may take for ever, which Ctrl-C ends too.  It changes nothing but
        what it returns (it may be done twice).  In the main thread only, uses signals.
        """

    def ignore_signals(names):
        """Ignore these signals from now on."""

    # -- a human's terminal --------------------------------------------------------------
    def enter_raw(descriptor, keep_output):
        """Make it raw and return what `leave_raw` needs.

        `keep_output`: output processing stays, for when our stdout goes elsewhere.
        """

    def leave_raw(descriptor, saved):
        """Put it back; never stops us, never blocks."""

    def reopen_terminal(descriptor):
        """A descriptor for writing to that terminal that is ours alone and does not block,
        or None where it cannot be had."""

    def is_same_terminal(descriptor, other):
        """Whether both are that terminal."""

    def open_lent_terminal(descriptor):
        """A descriptor of a terminal that somebody passed to us, for both ways, which is ours
        alone and does not block.

        Raises OSError where it is none, not the user's own, or cannot be opened anew.
        """

    def watch_stops(pid):
        """An object that tells whether that process `is_stopped()` (or gone) just now, and is
        to be closed by `close()`.

        Raises OSError where that cannot be known.
        """

    def is_foreground(descriptor):
        """Whether we may read from that terminal now."""

    def stop_self():
        """Stop as Ctrl-Z would; returns when continued."""

    # -- what `doctor` asks: changes nothing; what is not known here is None or empty ------
    def process_confinement(pid):
        """What bounds a process: a dict with `state` (one letter), `groups`, `no_new_privs`,
        `seccomp`, `cgroups` ({controllers: path}), `limits` ({name: (soft, hard)}), `mounts`
        (a name of the namespace) and `files` (what it has open)."""

    def group_name(number):
        """The name of a group, or its number as text."""

    def look_at_lock(path, shared=False):
        """(whether the lock of that file is held, pids of holders as far as the system tells).

        With `shared` those who share it count too.  OSError when the file cannot be looked at.
        """

    def terminal_supply():
        """A dict: `used` and `limit` of this host's terminals, `error` when none can be opened."""

    def file_system(path):
        """What `path` is on: a dict with `type`, `is_network`, `is_read_only`, `free_bytes`,
        `free_files`.  OSError when it is not there."""

    def ring_memory(pid=None):
        """What rings are made of, by that process or by this one: "memfd", "shared memory",
        "file" (on a disk), or None."""

    def logout_facts():
        """A dict: `has_manager` (a service manager ends what a login leaves), `user`, `lingers`."""

    def user_bus():
        """The socket at which the user's own service manager is asked, or None."""

    def find_program(name):
        """The absolute path of a program by PATH, or None."""

    def manager_texts(name):
        """The service manager's settings of `logind.conf` or of a unit, as texts; what stands
        in a later one counts."""

    def cleaning_age(directory):
        """After what time a cleaner removes what lies in `directory`, as text; "" for never."""
