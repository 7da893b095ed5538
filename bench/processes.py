"""What /proc tells of processes: memory, processor time, wake-ups, and whose they are.

Linux only.  A process belongs to a run if it carries the name of the run's directory in its
arguments or its environment; only such processes are ever ended, and each by its pid.
"""

import os
import signal
import time

EXECUTING_S = 1.0              # longer than that nothing is without arguments that has any
TICKS = os.sysconf("SC_CLK_TCK")


def carrying(mark):
    """Pids of the living, other than this one, that carry `mark` (a directory's name)."""
    return {pid for pid, words in _all_words() if os.fsencode(mark) in words}


def _all_words():
    """(pid, its arguments and environment) of all processes but this one."""
    for name in os.listdir("/proc"):
        if name.isdigit() and int(name) != os.getpid():
            yield int(name), _words(name)


def _words(pid):
    words = b""
    try:
        for part in ("cmdline", "environ"):
            with open(f"/proc/{pid}/{part}", "rb") as file:
                words += file.read()
    except OSError:
        pass                            # gone, or not ours to look at
    return words


def end_all(mark, limit_s=60.0):
    """End whoever carries `mark`.

    They start one another, a ptyguard's daemon another guard, so all are stopped before the first is killed.
    One that is amid execve(2) carries nothing for a moment; then is looked again.
    """
    began = time.monotonic()
    deadline = began + limit_s
    stopped, is_sure = set(), False
    while not is_sure and time.monotonic() < deadline:
        found, is_sure = set(), True
        for pid, words in _all_words():
            if os.fsencode(mark) in words:
                found.add(pid)
            elif not words and time.monotonic() < began + EXECUTING_S and _has_program(pid):
                is_sure = False
        new = found - stopped
        _signal(new, signal.SIGSTOP)
        stopped |= new
        is_sure = is_sure and not new
    _signal(stopped, signal.SIGKILL)
    while any(map(is_alive, stopped)) and time.monotonic() < deadline:
        time.sleep(0.002)               # the dying take a moment
    _reap()


def _has_program(pid):
    """Whether it runs a program; a zombie and a thread of the kernel do not."""
    try:
        os.readlink(f"/proc/{pid}/exe")
    except OSError:
        return False
    return True


def _signal(pids, number):
    for pid in pids:
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            pass


def _reap():
    """Children of ours that nobody waits for."""
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        pass


def is_alive(pid):
    """Whether that process runs; a zombie does not."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return file.read().rpartition(b") ")[2][:1] not in (b"Z", b"X")
    except OSError:
        return False


def name_of(pid):
    """Its short name; "" if it is gone."""
    try:
        with open(f"/proc/{pid}/comm") as file:
            return file.read().strip()
    except OSError:
        return ""


def pss_bytes(pid):
    """Its memory, what it shares being divided among those who share it."""
    with open(f"/proc/{pid}/smaps_rollup") as file:
        return 1024 * int(file.read().split("\nPss:")[1].split()[0])


def cpu_s(pid):
    """The processor time that it has used."""
    with open(f"/proc/{pid}/stat") as file:
        fields = file.read().rpartition(") ")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def wakeups(pid):
    """How often it has gone to sleep, of its own will: it wakes once for each."""
    with open(f"/proc/{pid}/status") as file:
        return int(file.read().split("\nvoluntary_ctxt_switches:")[1].split()[0])
