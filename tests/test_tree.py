"""Which processes belong to a session, and how all of them are ended."""

import signal

import pytest

from ptyguard_core.backend import Process
from ptyguard_core.tree import KILL_ROUNDS_S, TERM_AFTER_S, Killing, ancestors, members

NOTHING_SEEN = (set(), set())
TTY, OTHER_TTY = 0x8803, 0x8804
INIT, GUARD, DAEMON, LEADER = 1, 50, 51, 100


def process(pid, parent=INIT, group=None, session=None, terminal=0, start=None, is_zombie=False):
    return Process(pid, parent, group or pid, session or pid, terminal, start or pid * 10, is_zombie)


BASE = [
    process(INIT, parent=0),
    process(GUARD), process(DAEMON, parent=GUARD),
    process(200, terminal=OTHER_TTY), process(201, parent=200, session=200, terminal=OTHER_TTY),
]


def leader(**facts):
    return process(LEADER, parent=GUARD, terminal=TTY, **facts)


def found(table, seen=NOTHING_SEEN, spared=frozenset(), terminal=TTY):
    living, _ = members(table, LEADER, terminal, seen, spared)
    return {pid for pid, _ in living}


# --- members ------------------------------------------------------------------------

def test_strangers_are_no_members():
    assert found(BASE) == set()
    assert found(BASE + [leader()]) == {LEADER}


@pytest.mark.parametrize("why, other", [
    ("a job of its own group", process(101, parent=LEADER, session=LEADER, terminal=TTY)),
    ("an orphan in the session", process(101, group=LEADER, session=LEADER)),
    ("a child that left the session", process(101, parent=LEADER)),
    ("an orphan that only has the terminal", process(101, terminal=TTY)),
])
def test_each_tie_to_the_session_makes_a_member(why, other):
    assert found(BASE + [leader(), other]) == {LEADER, 101}, why


def test_descendants_count_down_to_the_last_also_of_those_who_left():
    table = BASE + [leader(), process(101, parent=LEADER), process(102, parent=101),
                    process(103, parent=102), process(104, terminal=TTY), process(105, parent=104)]
    assert found(table) == {LEADER, 101, 102, 103, 104, 105}


def test_whoever_was_seen_once_stays_a_member_after_its_parent_died():
    table = BASE + [process(103, start=77)]
    assert found(table, seen=({(103, 77)}, set())) == {103}


def test_another_process_with_a_number_once_seen_is_a_stranger():
    table = BASE + [process(103, start=78)]
    assert found(table, seen=({(103, 77)}, set())) == set()


def test_a_process_group_once_seen_makes_members():
    table = BASE + [process(104, group=101, session=104)]
    assert found(table, seen=(set(), {101})) == {104}


def test_only_groups_of_the_sessions_own_are_remembered():
    table = BASE + [leader(), process(101, parent=LEADER, session=LEADER),
                    process(102, parent=LEADER, group=102, session=102)]
    assert members(table, LEADER, TTY, NOTHING_SEEN, frozenset())[1] == {LEADER, 101}


def test_without_a_terminal_nobody_is_a_member_for_having_none():
    assert found(BASE + [leader()], terminal=0) == {LEADER}


def test_a_zombie_is_dead_but_its_descendants_live():
    table = BASE + [leader(is_zombie=True), process(101, parent=LEADER, is_zombie=True),
                    process(102, parent=101)]
    assert found(table) == {102}


def test_members_come_with_their_start_times():
    assert members(BASE + [leader(start=5)], LEADER, TTY, NOTHING_SEEN, frozenset())[0] == {(LEADER, 5)}


def test_the_spared_are_no_members_whatever_ties_them():
    table = BASE + [leader(), process(101, parent=LEADER, terminal=TTY), process(102, parent=LEADER)]
    assert found(table, spared={101}) == {LEADER, 102}


def test_nobody_is_a_member_for_being_below_a_spared_one():
    # A guard that had got into the tree, by a group number used again, would have drawn
    # all other sessions in, which are its children too.
    table = BASE + [leader(), process(110, parent=GUARD)]
    guard = table[1]
    assert guard.pid == GUARD
    assert found(table, seen=(set(), {guard.group}), spared={INIT, GUARD}) == {LEADER}
    assert found(table, seen=({(INIT, 10)}, {INIT})) == {LEADER}


def test_a_loop_in_the_table_is_no_endless_one():
    # Two reads of a changing table can make one.
    table = [process(LEADER, parent=102), process(101, parent=LEADER), process(102, parent=101)]
    assert found(table) == {LEADER, 101, 102}
    assert ancestors(table, 101) == {LEADER, 101, 102}


def test_ancestors_are_the_whole_line_above():
    assert ancestors(BASE, DAEMON) == {DAEMON, GUARD, INIT}
    assert ancestors(BASE, 4711) == {4711}


# --- killing -------------------------------------------------------------------------

class System:
    """A process table that changes by what it is sent; each process knows what ends it."""

    def __init__(self, table, dies_of):
        self.rows = {row.pid: row for row in table}
        self.dies_of = dies_of              # pid -> names of signals; others ignore all
        self.sent = []                      # (time, pid, name)
        self.now = 0.0
        self.after_look = None

    def process_table(self):
        table = list(self.rows.values())
        if self.after_look:
            self.after_look()
        return table

    def signal_number(self, name):
        return int(getattr(signal, "SIG" + name))

    def signal_process(self, pid, start, number):
        row = self.rows.get(pid)
        if row is None or row.start != start:
            return False
        name = signal.Signals(number).name[3:]
        self.sent.append((self.now, pid, name))
        if name in self.dies_of.get(pid, ()):
            del self.rows[pid]
        return True

    def signals_to(self, pid):
        return [name for _, whom, name in self.sent if whom == pid]


def run(system, grace_s=5.0, **options):
    """Step to the end on the system's clock; returns the Killing."""
    killing = Killing(system, LEADER, TTY, [DAEMON, GUARD], grace_s, system.now, **options)
    while True:
        next_at = killing.step(system.now, is_leader_gone=LEADER not in system.rows)
        if next_at is None:
            return killing
        assert next_at >= system.now
        system.now = max(next_at, system.now)


def test_a_hang_up_ends_a_shell_and_that_is_all_it_gets():
    system = System(BASE + [leader()], {LEADER: {"HUP"}})
    killing = run(system)
    assert killing.is_done and killing.survivors == set()
    assert system.sent == [(0.0, LEADER, "HUP")]


def test_a_stopped_job_is_continued_so_that_it_sees_its_signal():
    system = System(BASE + [leader()], {LEADER: {"CONT"}})
    assert run(system).is_done
    assert system.signals_to(LEADER) == ["HUP", "CONT"]


def test_what_ignores_the_hang_up_gets_term_and_then_kill():
    system = System(BASE + [leader()], {LEADER: {"KILL"}})
    assert run(system).is_done
    assert system.signals_to(LEADER) == ["HUP", "CONT", "TERM", "CONT", "KILL"]
    times = [now for now, _, name in system.sent if name != "CONT"]
    assert times == [0.0, TERM_AFTER_S, 5.0]


def test_a_short_grace_has_room_for_term_too():
    system = System(BASE + [leader()], {LEADER: {"KILL"}})
    run(system, grace_s=1.0)
    assert [now for now, _, name in system.sent if name != "CONT"] == [0.0, 0.5, 1.0]


def test_without_grace_all_come_at_once_in_order():
    system = System(BASE + [leader()], {LEADER: {"KILL"}})
    assert run(system, grace_s=0.0).is_done
    assert system.signals_to(LEADER) == ["HUP", "CONT", "TERM", "CONT", "KILL"]
    assert {now for now, _, _ in system.sent} == {0.0}


def test_the_whole_tree_is_signalled_and_the_spared_never():
    table = BASE + [leader(), process(101, parent=LEADER), process(102, terminal=TTY)]
    system = System(table, {LEADER: {"HUP"}, 101: {"TERM"}, 102: {"KILL"}})
    assert run(system).is_done
    assert {pid for _, pid, _ in system.sent} == {LEADER, 101, 102}
    assert set(system.rows) == {row.pid for row in BASE}


def test_children_whose_parent_died_of_an_earlier_round_are_still_found():
    system = System(BASE + [leader(), process(101, parent=LEADER)], {LEADER: {"HUP"}, 101: {"KILL"}})

    def reparent():
        if LEADER not in system.rows and 101 in system.rows:
            system.rows[101].parent = INIT
    system.after_look = reparent
    assert run(system).is_done
    assert system.signals_to(101)[-1] == "KILL"


def test_a_child_born_between_look_and_signal_is_met_by_the_next_round():
    system = System(BASE + [leader()], {LEADER: {"KILL"}, 101: {"KILL"}})
    killing = Killing(system, LEADER, TTY, [DAEMON, GUARD], 0.0, 0.0)

    def bear():
        if LEADER in system.rows:
            system.rows[101] = process(101, parent=LEADER, session=LEADER)
    system.after_look = bear
    while True:
        next_at = killing.step(system.now, LEADER not in system.rows)
        if next_at is None:
            break
        system.now = max(next_at, system.now)
    assert killing.is_done and 101 not in system.rows


def test_it_gives_up_with_the_survivors_after_the_last_round():
    system = System(BASE + [leader(), process(101, parent=LEADER)], {LEADER: {"HUP"}})
    killing = run(system)
    assert not killing.is_done
    assert killing.survivors == {(101, 1010)}
    kills = [now for now, _, name in system.sent if name == "KILL"]
    assert kills == [5.0 + delay for delay in KILL_ROUNDS_S]
    assert system.now >= kills[-1] + KILL_ROUNDS_S[-1]


def test_a_leader_that_the_guard_has_not_reaped_is_not_gone():
    system = System(BASE + [leader()], {LEADER: {"HUP"}})
    killing = Killing(system, LEADER, TTY, [DAEMON, GUARD], 5.0, 0.0)
    assert killing.step(0.0, is_leader_gone=False) is not None
    assert killing.step(0.1, is_leader_gone=False) is not None
    assert not killing.is_done
    assert killing.step(0.2, is_leader_gone=True) is None
    assert killing.is_done and killing.survivors == set()


def test_a_killer_that_slept_through_its_deadlines_still_goes_through_all_steps():
    system = System(BASE + [leader()], {LEADER: {"KILL"}})
    killing = Killing(system, LEADER, TTY, [DAEMON, GUARD], 5.0, 0.0)
    system.now = 1000.0
    while killing.step(system.now, LEADER not in system.rows) is not None:
        pass
    assert killing.is_done
    assert system.signals_to(LEADER) == ["HUP", "CONT", "TERM", "CONT", "KILL"]


def test_a_stranger_with_the_dead_leaders_number_is_not_signalled():
    # It was taken for the leader, with all of its session.
    system = System(BASE + [leader(), process(101, parent=LEADER)], {LEADER: {"HUP"}, 101: {"KILL"}})

    def recycle():
        if LEADER not in system.rows:
            system.rows[LEADER] = process(LEADER, start=999999)
            system.rows[300] = process(300, parent=LEADER, session=LEADER)
    system.after_look = recycle
    killing = Killing(system, LEADER, TTY, [DAEMON, GUARD], 5.0, 0.0)
    at = 0.0
    while at is not None:
        system.now = at
        at = killing.step(at, is_leader_gone=bool(system.sent))
    assert killing.is_done
    assert system.signals_to(LEADER) == ["HUP"]
    assert system.signals_to(300) == []
    assert system.signals_to(101) == ["HUP", "CONT", "TERM", "CONT", "KILL"]


def test_a_leader_that_was_replaced_before_the_first_look_is_known_by_its_start():
    system = System(BASE + [leader(start=999999)], {LEADER: {"HUP"}})
    killing = Killing(system, LEADER, TTY + 100, [DAEMON, GUARD], 5.0, 0.0, leader_start=1000)
    assert killing.step(0.0, is_leader_gone=True) is None
    assert killing.is_done and system.sent == []
