"""Session: one session's life as the daemon sees it, without sockets.

States, the ring and who reads it where (cursors), what is to be typed (the input
queue), and whose size the terminal has.  The ring is the only output queue: a
client is a cursor.  Who may hold the program back is decided here, in `room`:

    hold        who                       how far behind         how long
    LEADER      typed last, interactive   256 KiB                1 s per 64 KiB it takes
    ALWAYS      run without limit         the ring               for ever
    seconds     log -f                    the ring               that long without progress
    NEVER       read-only, other clients  -                      -

Whoever may not hold and falls out of the ring is lagged: the daemon tells it
what it missed.
"""

from collections import deque

from .backend import LET_GO, NOTHING_YET
from .canonical import LineFeeder
from .past import RESTORE_BYTES, Past, Sizes, told_facts
from .registry import LIVING_STATES, RECORDING
from .ring import WINDOW_BYTES
from .terminal import TitleFinder

STARTING, RUNNING, DRAINING, ENDED = "starting", "running", "draining", "ended"
LOST, FAILED, QUARANTINED = "lost", "failed", "quarantined"

SPAWNED, SPAWN_REFUSED, HELD_UNOPENED = "spawned", "spawn_refused", "held_unopened"
CHILD_EXITED, DRAINED, GUARD_LOST_IT = "child_exited", "drained", "guard_lost_it"
RESTARTED, RESTART_FAILED, GAVE_UP = "restarted", "restart_failed", "gave_up"

STATES = (STARTING, RUNNING, DRAINING, ENDED, LOST, FAILED, QUARANTINED)
EVENTS = (SPAWNED, CHILD_EXITED, DRAINED, SPAWN_REFUSED, GUARD_LOST_IT, HELD_UNOPENED, RESTARTED,
          RESTART_FAILED, GAVE_UP)
TRANSITIONS = {
    (STARTING, SPAWNED): RUNNING,
    (STARTING, CHILD_EXITED): DRAINING,      # adopted before its start was confirmed
    (STARTING, SPAWN_REFUSED): FAILED,
    (STARTING, GUARD_LOST_IT): LOST,
    (STARTING, HELD_UNOPENED): QUARANTINED,
    (STARTING, RESTART_FAILED): ENDED,
    (RUNNING, SPAWNED): RUNNING,             # adopted
    (RUNNING, CHILD_EXITED): DRAINING,       # output may still be in the terminal
    (RUNNING, GUARD_LOST_IT): LOST,
    (RUNNING, HELD_UNOPENED): QUARANTINED,
    (DRAINING, CHILD_EXITED): DRAINING,      # told again after an adoption
    (DRAINING, DRAINED): ENDED,
    (DRAINING, GUARD_LOST_IT): LOST,
    (DRAINING, HELD_UNOPENED): QUARANTINED,
    (QUARANTINED, CHILD_EXITED): ENDED,      # nothing of it can be read
    (QUARANTINED, HELD_UNOPENED): QUARANTINED,
    (QUARANTINED, SPAWNED): RUNNING,         # a later daemon could open it
    (QUARANTINED, GUARD_LOST_IT): LOST,
    (ENDED, CHILD_EXITED): ENDED,
    (ENDED, RESTARTED): STARTING,
    (ENDED, GAVE_UP): FAILED,                # by its policy; see relaunching.py
    (LOST, RESTARTED): STARTING,
    (LOST, GAVE_UP): FAILED,
    (FAILED, CHILD_EXITED): FAILED,          # told again after an adoption
    (FAILED, RESTARTED): STARTING,
}

NEVER, LEADER, ALWAYS = "never", "leader", "always"
LEADER_ALLOWANCE = 256 * 1024    # screens' worth; more would show minutes-old output
PROGRESS_BYTES = 64 * 1024       # what a leader must take ...
PROGRESS_S = 1.0                 # ... in this time, to go on holding
INPUT_QUEUE_MAX = 1024 * 1024    # then senders wait
DRAIN_S = 0.2                    # of reading: a grandchild may flood for ever
RESUME_BYTES = 32 * 1024         # of room, for a program that was held to be read again
READS_ALONE = 16                 # reads a turn while it is the only thing ready
KEYS_BYTES_MAX = 1024            # typed at once by somebody who waits for the answer; else a paste
ANSWER_BYTES = 32 * 1024         # output that may be the answer: a few screens
ANSWER_S = 1.0                   # after this it is none

LATEST, LARGEST, SMALLEST, FIXED = "latest", "largest", "smallest", "fixed"


def _size_of_leader(leader, _sized):
    return leader.size if leader is not None and leader.size else None


def _largest_size(_leader, sized):
    return max((cursor.size for cursor in sized), key=_area, default=None)


def _smallest_size(_leader, sized):
    return min((cursor.size for cursor in sized), key=_area, default=None)


def _area(size):
    return size[0] * size[1]


# Whose size the terminal has: always one client's, never columns of one and rows of another.
SIZE_POLICIES = {
    LATEST: _size_of_leader,            # who typed or came last
    LARGEST: _largest_size,
    SMALLEST: _smallest_size,
    FIXED: lambda _leader, _sized: None,
}


class Cursor:
    """One reader of one session: where it is and what it may do."""

    def __init__(self, offset, hold, size=None, is_interactive=False):
        self.offset = offset            # of the next byte that goes into a frame
        self.hold = hold                # NEVER, LEADER, ALWAYS or seconds
        self.size = size                # (cols, rows) of its terminal
        self.is_interactive = is_interactive
        self.is_lagged = False          # fell behind and has not caught up since
        self.mark = None                # (offset, time) since when it is watched for progress
        self.owner = None               # the connection that reads it
        self.is_viewer = False          # counts as a client for people, may be read-only
        self.is_log = False             # the writer of the session's log or recording; see logkeeper.py
        self.wants_input = False        # is told what is typed
        self.written = None             # it puts output into a file, which has all before this
        self.may_type = is_interactive
        self.kills_on_hangup = False    # its going without a word ends the session ...
        self.removes_on_hangup = False  # ... and has it forgotten

    @property
    def held_from(self):
        """What it holds is kept from here on: what was sent may die with who was to write it."""
        return self.offset if self.written is None else self.written


class Input:
    """One piece to be typed; `ticket` is told when the kernel took it, or the end came."""

    __slots__ = ("data", "ticket", "is_end")

    def __init__(self, data, ticket=None, is_end=False):
        self.data = data
        self.ticket = ticket
        self.is_end = is_end            # not bytes but "end of input"


class Session:
    """`record` is the dict that goes to disk and to clients; see registry.py."""

    def __init__(self, record):
        self.record = record
        self.ring = None
        self.memory = None              # what the ring lives in, ours to unmap
        self.ring_fd = -1
        self.master = -1                # -1 once released
        self.cursors = []
        self.leader = None              # the cursor that typed last
        self.input = deque()
        self.input_bytes = 0
        self.last_input = b"\n"         # the last byte written: is the line unfinished?
        self.drain_left_s = DRAIN_S
        self.awaited_holders = 0        # of before a daemon was replaced
        self.noted_holders = 0          # as the blob has it
        self.awaited_writers = set()    # those of its files' writers that are on the way
        self.has_let_go = False         # the terminal has nobody at the other side
        self.is_held = False            # nobody reads it until there is room again
        self.is_blocked = False         # it takes no more input for now
        self.is_drain_due = False
        self.is_unopened = False        # the guard holds it, and it could not be opened here
        self.raw_exit = None            # (raw status, is known, at ms), for a new guard
        self.launch = b""               # what it was started with; see restarting.py
        self.is_restarting = False      # its end is nobody's exit
        self.notice = None              # (offset, bytes) of ours that stand there in its output
        self.ending = None              # what is to become of it; see destroying.py
        self.survivors = ()             # (pid, start) of whoever lived on after a kill
        self.active_at = 0.0            # when it was last written or typed to, on the loop's clock
        self.forget_past()
        self.is_past_news = False       # it has changed since it was noted in the blob
        self.noted_end = None           # where output ended when the guard was given the blob; see is_noted
        self.asked_from = None          # where a query stands that a successor is to answer
        self.typed_at = None            # when somebody typed who may still wait for the answer ...
        self.answer_end = 0             # ... which is over when output has got there
        self._lines = LineFeeder()

    @property
    def id(self):
        return self.record["id"]

    @property
    def name(self):
        return self.record["name"]

    @property
    def state(self):
        return self.record["state"]

    @property
    def is_living(self):
        return self.record["state"] in LIVING_STATES

    @property
    def awaits_relaunch(self):
        """Whether its policy has it started again, in a while; see relaunching.py."""
        return (self.record.get("relaunch") or {}).get("due_at") is not None

    @property
    def is_to_run_again(self):
        """Whether its program is being started again, or will be without being asked for."""
        return self.is_restarting or self.awaits_relaunch

    @property
    def is_over(self):
        """Whether it has ended for good, as far as anybody has asked."""
        return not self.is_living and not self.is_to_run_again

    def happen(self, event):
        """Change state by the table; KeyError is a broken invariant."""
        self.record["state"] = TRANSITIONS[self.record["state"], event]

    def is_plain(self):
        """Whether it runs, and nobody waits for its output, its input or its end: another turn will do."""
        record = self.record
        return self.state == RUNNING and self.master >= 0 and not (
            self.awaited_holders or self.input or self.notice or self.ending or record.get("kill_pending")
            or record.get("relaunch") or record.get("log") or record.get(RECORDING))

    def note_end(self):
        """The guard has been given the blob as it is now."""
        self.noted_end = None if self.ring is None else self.ring.end_offset

    def is_noted(self):
        """Whether the guard has the blob as it is: what changes it is told at once, but for what
        follows from output, and while a child comes or goes."""
        return self.noted_end == self.ring.end_offset and self.notice is None and not self.is_restarting \
            and (self.record["state"] == RUNNING or not self.is_living)

    def begin_anew(self):
        """Another child has a new terminal; ring and cursors go on."""
        self.drop_input()
        self.last_input = b"\n"
        self._lines = LineFeeder()
        self.drain_left_s = DRAIN_S
        self.has_let_go = self.is_blocked = False
        self.raw_exit = None

    # -- output --------------------------------------------------------------------------

    def await_answer(self, now):
        """Somebody has typed a little, and waits for what the program makes of it."""
        self.typed_at = now
        self.answer_end = self.ring.end_offset + ANSWER_BYTES

    def is_urgent(self, now):
        """Whether what comes may be the answer that somebody waits for, and no stream."""
        if self.typed_at is not None and (self.ring.end_offset > self.answer_end
                                          or now - self.typed_at > ANSWER_S):
            self.typed_at = None
        return self.typed_at is not None

    def allowance(self, cursor):
        """How far behind this cursor may hold the program back, or None."""
        history = self.ring.capacity - self.ring.window_bytes
        if cursor.hold == NEVER or cursor.is_lagged:
            return None
        if cursor.hold == LEADER:
            return min(LEADER_ALLOWANCE, history) if cursor is self.leader else None
        return history

    def room(self, limit=WINDOW_BYTES):
        """How many bytes, at most `limit`, may be read now without running over somebody
        who holds."""
        end = self.ring.end_offset
        room = limit
        for cursor in self.cursors:
            allowance = self.allowance(cursor)
            if allowance is not None:
                room = min(room, cursor.held_from + allowance - end)
        return max(0, room)

    @property
    def is_awaiting(self):
        """Whether nothing is to be read because somebody who holds is still to come."""
        return bool(self.awaited_holders) or self.awaits_log

    @property
    def awaits_log(self):
        """Whether a writer of its log, or of its recording, is on the way."""
        return bool(self.awaited_writers)

    @property
    def awaits_hearing(self):
        """Whether what is typed has to wait for who is to record it."""
        return RECORDING in self.awaited_writers and bool(self.record[RECORDING].get("input"))

    def may_read(self):
        """Whether the terminal is to be read now."""
        if self.master < 0 or self.is_awaiting or self.has_let_go:
            return False
        # Once held, not for each little that the slowest takes: each time costs a turn.
        enough = min(RESUME_BYTES, (self.ring.capacity - self.ring.window_bytes) // 2) if self.is_held else 1
        self.is_held = self.room(RESUME_BYTES) < enough
        return not self.is_held

    def pump(self, read, before_commit, reads):
        """Move output from the terminal into the ring: at most `reads` reads.

        `read(master, view)` is the back-end's; `before_commit(start)` is called
        when everything below offset `start` is about to be overwritten.  Returns
        (bytes read, why it stopped): the last answer of `read`.
        """
        ring, master = self.ring, self.master
        # Cursors stand still meanwhile (only `before_commit` moves them), so that what
        # depends on them is asked once a pump, not once a read.
        room = self.room(reads * ring.window_bytes)
        lowest = min((cursor.offset for cursor in self.cursors), default=None)
        total = self._put_notice(room, before_commit) if self.notice is not None else 0
        room -= total
        count = 1
        end, look_at = ring.end_offset, self.past.due_at(ring)
        history = ring.capacity - ring.window_bytes
        while reads and room and count > 0:
            count = read(master, ring.writable(room))
            if count > 0:
                end += count
                if end > look_at:
                    self.is_past_news |= self.past.look(ring, end)
                    look_at = self.past.due_at(ring)
                if lowest is not None and lowest < end - history:
                    before_commit(end - history)
                ring.commit(count)
                total += count
                room -= count
                if self.is_past_news:       # to be with the guard before more is overwritten
                    break
            reads -= 1
        if count == LET_GO:
            self.has_let_go = True
        return total, count

    def _put_notice(self, room, before_commit):
        """What there is room for of our own words, ahead of the program's; how much that was.

        Where they begin is with the guard, so that a successor writes what is missing of them
        and no more.
        """
        at, text = self.notice
        written = 0
        while room and self.ring.end_offset < at + len(text):
            view = self.ring.writable(room)
            piece = text[self.ring.end_offset - at:][:len(view)]
            # One after the other: of a copy that a kill -9 cuts, nobody knows what is there.
            for index, byte in enumerate(piece):
                view[index] = byte
            before_commit(self.ring.start_after(len(piece)))
            self.ring.commit(len(piece))
            written += len(piece)
            room -= len(piece)
        if self.ring.end_offset >= at + len(text):
            self.notice = None
        return written

    def forget_past(self):
        """A ring begins: nothing has been set yet."""
        size = self.record.get("size") or {"cols": 80, "rows": 24}      # of a record that somebody wrote
        self.past = Past()
        self.sizes = Sizes((0, size["cols"], size["rows"]))
        self._titles = TitleFinder()

    def restore_facts(self):
        """What a restore begins with: where, the state there, and sizes from there on."""
        if self.ring is not None and self.ring.start_offset == 0 and self.ring.end_offset <= RESTORE_BYTES:
            return told_facts(Past(), self.sizes)       # all there ever was is here
        return told_facts(self.past, self.sizes)

    def look_for_title(self, budget):
        """The window title that the program set last, bytes, or None; within the LookBudget."""
        start = self.past.offset
        if self.ring is not None:
            start = max(start, self.ring.start_offset)
            self._titles.look(self.ring.read, start, self.ring.end_offset, budget)
        return self._titles.title if self._titles.offset >= start else self.past.title

    def watch_progress(self, now):
        """Judge those who hold: (the cursors to lag now, time of the next judgement).

        To be called when `may_read` has found it held, and at the time it returned.
        """
        lagging = []
        next_at = None
        for cursor in self.cursors:
            allowance = self.allowance(cursor)
            if allowance is None or cursor.hold == ALWAYS:
                continue
            # A small ring has less than that to give: who is half-way through is no stall.
            step = min(PROGRESS_BYTES, allowance // 2)
            needed, limit_s = (step, PROGRESS_S) if cursor.hold == LEADER else (1, cursor.hold)
            behind = self.ring.end_offset - cursor.held_from
            if behind <= allowance - step:
                cursor.mark = None
                continue
            if cursor.mark is None or cursor.held_from - cursor.mark[0] >= needed:
                cursor.mark = (cursor.held_from, now)
            elif now - cursor.mark[1] >= limit_s:
                cursor.mark = None
                lagging.append(cursor)
                continue
            due = cursor.mark[1] + limit_s
            next_at = due if next_at is None else min(next_at, due)
        return lagging, next_at

    # -- clients -------------------------------------------------------------------------

    def add(self, cursor):
        """A client begins to read."""
        self.cursors.append(cursor)
        if self.awaited_holders and cursor.hold != NEVER and not cursor.is_log:
            self.awaited_holders -= 1
        if cursor.is_interactive:
            self.leader = cursor

    def remove(self, cursor):
        """A client has left; the size may be another's now."""
        if cursor in self.cursors:
            self.cursors.remove(cursor)
        if self.leader is cursor:
            self.leader = next((c for c in reversed(self.cursors) if c.is_interactive), None)

    def holders(self):
        """How many may hold, those still on their way back included; noted in the blob
        for a successor.  A log's writer is awaited on its own account."""
        return self.awaited_holders + sum(cursor.hold != NEVER and not cursor.is_log
                                          for cursor in self.cursors)

    def typed(self, cursor):
        """This client is the leader now."""
        if cursor.is_interactive:
            self.leader = cursor

    def wanted_size(self):
        """The size of one client, chosen by policy, or None to leave it as it is."""
        policy = self.record.get("size_policy")
        sized = [cursor for cursor in self.cursors if cursor.is_interactive and cursor.size]
        return SIZE_POLICIES.get(policy, SIZE_POLICIES[LATEST])(self.leader, sized)

    # -- input ---------------------------------------------------------------------------

    @property
    def sends(self):
        """How many sends have typed something into this incarnation."""
        return self._sent()[0]

    @property
    def sent_at(self):
        """Where the output ended when the last of them was over, or None."""
        return self._sent()[1]

    def _sent(self):
        noted = self.record.get("sends")    # as a file may have it
        if not isinstance(noted, dict) or noted.get("incarnation") != self.record.get("incarnation") \
                or not all(isinstance(noted.get(key), int) for key in ("count", "at")):
            return 0, None
        return noted["count"], noted["at"]

    def note_sent(self):
        """A send is over that has typed something: what was awaited before it is answered."""
        self.record["sends"] = {"incarnation": self.record["incarnation"], "count": self.sends + 1,
                                "at": self.ring.end_offset if self.ring is not None else self.sent_at or 0}

    def enqueue(self, data, ticket=None, is_end=False):
        """Queue bytes (copied) to be typed, in order."""
        self.input.append(Input(bytes(data), ticket, is_end))
        self.input_bytes += len(data)

    def is_full(self):
        """Whether senders have to wait."""
        return self.input_bytes >= INPUT_QUEUE_MAX

    def write_input(self, write, end_byte, canonical_mode=lambda: None, tell_typed=None):
        """Write what the terminal takes now; False when it takes no more for now.

        `write(master, bytes)` is the back-end's, `end_byte()` tells the byte that
        means end of input, or None when there is none in the present mode, which
        `canonical_mode()` tells (None: it is not the canonical one).  `tell_typed(bytes)`
        hears what was written of it.
        """
        while self.input:
            item = self.input[0]
            if item.is_end:
                item.data = self._end_bytes(end_byte())
                self.input_bytes += len(item.data)
                item.is_end = False
            if item.data:
                piece, is_ours = self._lines.next_piece(item.data, canonical_mode)
                count = write(self.master, piece)
                if count == LET_GO:
                    self.drop_input()
                    return True
                if count == NOTHING_YET:
                    return False
                self.last_input = piece[count - 1:count]
                self._lines.wrote(piece[:count])
                if not is_ours:
                    continue
                if tell_typed is not None:
                    tell_typed(piece[:count])
                self.input_bytes -= count
                item.data = item.data[count:]
                if item.ticket is not None:
                    item.ticket.wrote(count)
            if not item.data:
                self.input.popleft()
                if item.ticket is not None:
                    item.ticket.piece_done()
        return True

    def _end_bytes(self, byte):
        """What makes a canonical reader see end of file: twice in an unfinished line,
        since the first only delivers what stands there (termios(3), VEOF)."""
        if byte is None:
            return b""
        return byte if self.last_input in (b"\n", b"\r", byte) else byte * 2

    def drop_input(self):
        """Nobody will read it any more: whoever waits is told."""
        items, self.input = self.input, deque()
        self.input_bytes = 0
        for item in items:
            if item.ticket is not None:
                item.ticket.failed()

    def give_up_end_of_input(self):
        """A successor cannot be handed it: whoever asked is told to ask there."""
        ends = [item for item in self.input if item.is_end]
        for item in ends:
            self.input.remove(item)
            item.ticket.failed()

    def unwritten(self):
        """What was typed and is queued, for a successor; a `send` is told instead."""
        return b"".join(item.data for item in self.input if item.ticket is None)
