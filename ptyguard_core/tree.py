"""Tree: which processes belong to a session, and how all of them are ended.

A program can leave its process group, its session and its terminal, one by one;
a kill that follows only one of these misses something.  So the tree is the union
of: the leader, its descendants, whoever has the leader's session or a process
group once seen in it, whoever has the session's terminal as controlling terminal,
and the descendants of all of these.  Whoever was seen once stays a member for as
long as that very process (pid and start time) lives, also after its parent died.

Rule 1: a fresh look at the process table before every round of signals.
Rule 2: never signal ourselves, our ancestors, or a guard with all above it.
Rule 3: a zombie is dead.

Not members: programs that had become daemons before anybody looked (child of init,
session and group of their own).  Nobody's ssh-agent dies by accident.  Who wants those
too asks for orphans: they are known by the session's mark in their environment.
"""

# When the rounds of SIGKILL come, in seconds after the first.  A fork bomb's young
# appear between a look and its signals; what is left after these is reported.
KILL_ROUNDS_S = (0.0, 0.3, 0.7, 1.5, 2.5)
# Between a signal and the question whether it worked; doubling, so that a quick end
# is seen quickly and a slow one costs little.
LOOK_FIRST_S, LOOK_MOST_S = 0.02, 0.32
TABLE_AGE_S = 0.01              # hundreds of kills at once look together
TERM_AFTER_S = 1.0              # what ignores a hang-up in that time gets SIGTERM


def session_mark(id_):
    """What the environment of every program of a session holds, unless it was cleaned."""
    return b"PTYGUARD_SESSION_ID=" + id_.encode("ascii")


def members(table, leader, terminal, seen, spared, marked=()):
    """The living members as a set of (pid, start), and the groups they have.

    `table` is a list of backend.Process, `leader` a pid, `terminal` a device number
    or 0, `seen` a pair (set of (pid, start), set of groups) from earlier looks,
    `spared` a set of pids that are never members, `marked` pids that are.
    """
    seen_processes, seen_groups = seen
    # Nobody spared is ever in it, so that nobody is found for being below one of them.
    table = [row for row in table if row.pid not in spared and row.pid > 1]
    found = {row.pid: row for row in table
             if row.pid == leader or row.session == leader
             or (terminal and row.terminal == terminal)
             or (row.pid, row.start) in seen_processes or row.group in seen_groups
             or row.pid in marked}
    children = {}
    for row in table:
        children.setdefault(row.parent, []).append(row)
    waiting = list(found)
    while waiting:
        for row in children.get(waiting.pop(), ()):
            if row.pid not in found:
                found[row.pid] = row
                waiting.append(row.pid)
    # A zombie's descendants count, itself it does not.
    living = {(row.pid, row.start) for row in found.values() if not row.is_zombie}
    groups = {row.group for row in found.values() if row.session == leader}
    return living, groups


def ancestors(table, pid):
    """`pid` and all above it."""
    parents = {row.pid: row.parent for row in table}
    line = set()
    while pid and pid not in line:
        line.add(pid)
        pid = parents.get(pid, 0)
    return line


class RecentProcesses:
    """A back-end whose process table is read once for all who look at about the same time.

    A signal is sent to a pid with that start time only, so that a table of a moment ago
    harms nobody.
    """

    def __init__(self, backend, clock):
        self._backend = backend
        self._clock = clock
        self._table = None
        self._read_at = 0.0
        self.signal_process = backend.signal_process
        self.signal_number = backend.signal_number
        self.marked_processes = backend.marked_processes

    def process_table(self):
        """All processes, as of at most TABLE_AGE_S ago."""
        now = self._clock()
        if self._table is None or now - self._read_at > TABLE_AGE_S:
            self._table, self._read_at = self._backend.process_table(), self._clock()
        return self._table


class Killing:
    """Ends one session's tree; `step` is called until it returns None.

    Signals through `backend`; time is an argument.  `survivors` is what was alive
    at the last look.
    """

    def __init__(self, backend, leader, terminal, spared_pids, grace_s, now, leader_start=None,
                 mark=None, seen=()):
        self.survivors = set()
        self.is_done = False
        self._backend = backend
        self._leader = leader
        self._leader_start = leader_start       # None: what the first look sees
        self._terminal = terminal
        self._spared_pids = spared_pids
        self._mark = mark               # of orphans, or None: they are left alone
        self._seen = (set(seen), set())         # (pid, start) of who outlived an earlier one
        self._look_s = LOOK_FIRST_S
        kill_at = now + grace_s
        term_at = min(now + TERM_AFTER_S, now + grace_s / 2)
        plan = [(now, ("HUP", "CONT")), (term_at, ("TERM", "CONT"))]
        plan += [(kill_at + delay, ("KILL",)) for delay in KILL_ROUNDS_S]
        self._plan = plan
        self._last_look = plan[-1][0] + KILL_ROUNDS_S[-1]

    def step(self, now, is_leader_gone):
        """Look, signal what is due; the time of the next step, or None at the end.

        At the end `is_done` tells whether everybody is gone.  `is_leader_gone` is
        the guard's word: a leader that is no zombie any more is not enough.
        """
        is_round = bool(self._plan) and self._plan[0][0] <= now
        self._look(is_round)
        if is_leader_gone and not self.survivors:
            self.is_done = True
            return None
        if self._plan and self._plan[0][0] <= now:
            _, names = self._plan.pop(0)
            self._look_s = LOOK_FIRST_S
            self._signal(names)
        elif not self._plan and now >= self._last_look:
            return None
        next_at = now + self._look_s
        self._look_s = min(self._look_s * 2, LOOK_MOST_S)
        return min(next_at, self._plan[0][0]) if self._plan else next_at

    def forget_terminal(self):
        """The terminal is let go of: its number may be a stranger's next."""
        self._terminal = 0

    def _look(self, is_round):
        table = self._backend.process_table()
        self._check_leader(table)
        spared = set()
        for pid in self._spared_pids:
            spared |= ancestors(table, pid)
        spared.discard(self._leader)
        # Environments are read when a signal is due, not at every look: it costs.
        marked = self._backend.marked_processes(self._mark) if self._mark and is_round else ()
        self.survivors, groups = members(table, self._leader, self._terminal, self._seen, spared,
                                         marked)
        self._seen = (self._seen[0] | self.survivors, self._seen[1] | groups)

    def _check_leader(self, table):
        """A leader that was reaped leaves a number that a stranger may have by now."""
        start = next((row.start for row in table if row.pid == self._leader), None)
        self._leader_start = self._leader_start or start
        if start is not None and start != self._leader_start:
            # A number is not given out while a session still has it: nobody of ours does,
            # and none of its groups is left.
            self._leader = -1
            self._seen = (self._seen[0], set())

    def _signal(self, names):
        for name in names:
            number = self._backend.signal_number(name)
            for pid, start in self.survivors:
                self._backend.signal_process(pid, start, number)
