"""Scale: 1 to 2000 sessions: memory, start, list, what they cost while idle, and a key's echo among them.

Each session is a `sleep` with nobody attached. They are started the quickest way that there is: ptyguard's by
one program that uses its Python API, tmux's by one file of commands, the others by a command for each, as they
have no other way ("start" is the time of all through their number). Peers are measured with 1, 100 and 1000.

"memory" is PSS (what is shared is divided among those who share it) of the processes that keep the sessions,
not of the programs: guard and daemon, the server, or one process for each session. "wake-ups" are voluntary
context switches of those processes, "CPU" their processor time, for some seconds in which nothing happens. "ls"
is the time of the command that lists (dtach has none). "echo" is the time of a key as in `echo`, program echo,
in one more session with a client.
"""

import time
from functools import partial

import echo
import processes
from contenders import Place
from rounds import Failure, quantile, take_turns
from startup import seconds_of
from tables import Figure, Table

SIZES = (1, 10, 100, 300, 1000, 2000)
SIZES_OF_PEERS = (1, 100, 1000)
SETTLE_S = 1.0
IDLE_S = 3.0
LISTS = 5
KEYS = 100


def run_sessions(contender, count, options):
    """All figures with so many sessions."""
    idle_s = 0.2 if options.quick else IDLE_S
    _look_for_room(count)
    with Place(contender) as place:
        began = time.perf_counter()
        place.start_many({f"s{i}": ["sleep", "1000000"] for i in range(count)})
        figures = {"start": 1000 * (time.perf_counter() - began) / count}
        time.sleep(min(SETTLE_S, idle_s))
        keepers = place.keepers()
        if not all(keepers.values()):
            raise Failure("none of its processes is to be found")
        figures.update(_idle(keepers, idle_s), **_memory(keepers))
        if contender.list:
            argv = place.command(contender.list)
            status = None if contender.kind == "screen" else 0      # 1, whatever it lists
            figures["ls"] = 1000 * quantile([seconds_of(argv, place.environment, status) for _ in range(LISTS)], 0.5)
        keys = echo.keys(place, "program", 5 if options.quick else KEYS)
        figures.update(echo_p50=1e6 * quantile(keys, 0.5), echo_p99=1e6 * quantile(keys, 0.99))
        return figures


def _look_for_room(count):
    """Failure, with the reason, where the machine has too few terminals."""
    with open("/proc/sys/kernel/pty/max") as most, open("/proc/sys/kernel/pty/nr") as used:
        room = int(most.read()) - int(used.read())
    if count + 20 > room:
        raise Failure(f"the machine has only {room} terminals left (kernel.pty.max)")


def _idle(keepers, seconds):
    pids = [pid for role in keepers.values() for pid in role]

    def counted():
        return sum(map(processes.wakeups, pids)), sum(map(processes.cpu_s, pids))

    (wakeups, cpu), began = counted(), time.perf_counter()
    time.sleep(seconds)
    (wakeups_now, cpu_now), took = counted(), time.perf_counter() - began
    return {"wakeups": (wakeups_now - wakeups) / took, "cpu": (cpu_now - cpu) / took}


def _memory(keepers):
    by_role = {role: sum(map(processes.pss_bytes, pids)) / 1e6 for role, pids in keepers.items()}
    return {"memory": sum(by_role.values()), "guard": by_role.get("guard"),
            "daemon": by_role["daemon"] if "guard" in by_role else None}


def measure(chosen, options):
    """The tables, one by one."""
    for size in (2,) if options.quick else SIZES:
        cases = [(one.name, partial(run_sessions, one, size, options)) for one in chosen
                 if one.kind != "bare" and (one.kind == "ptyguard" or options.quick or size in SIZES_OF_PEERS)]
        yield Table(f"sessions-{size}", f"{size} session{'s' if size > 1 else ''}", [
            Figure("memory", "memory MB", "{:.1f}"), Figure("guard", "guard MB", "{:.1f}"),
            Figure("daemon", "daemon MB", "{:.1f}"), Figure("start", "start ms each", "{:.2f}"),
            Figure("ls", "ls ms", "{:.1f}"), Figure("wakeups", "wake-ups/s", "{:.1f}"),
            Figure("cpu", "CPU", "{:.1%}"), Figure("echo_p50", "echo p50 \u00b5s", "{:.0f}"),
            Figure("echo_p99", "p99 \u00b5s", "{:.0f}")],
            ["memory"], *take_turns(cases, options.rounds or 1, f"scale {size}"))
