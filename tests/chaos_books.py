"""The oracle of chaos.py: what the children noted, and what may be said of them.

chaos_child.py keeps books of every byte it means to write, of how many its terminal has
taken and of how it means to end.  From these follow, for every session:

- its stream: child after child, each from its first byte.  A child that was killed in a
  write has written between `confirmed` and `intended` bytes; where the next one begins
  is then found by its first line, and is one and the same place for every reader;
- the ends that may be reported of it;
- what it may have heard: each typed line at most once.

`Ledger` is one session, `Wrong` is raised for whatever must not be.
"""

import json
import os
import signal

UNKNOWN = "unknown"
HEAD_BYTES = 40             # of a child's first line, which names it
PROBE_BYTES = 96            # of a stream in which no line comes twice
GUARD_SLACK_S = 10.0        # from a child's fork to its books, or from its end to the record


class Wrong(AssertionError):
    """Something was lost, doubled, orphaned, leaked, or said wrongly."""


def shown(data):
    """A piece of a stream, for people."""
    return repr(bytes(data[:120])) + ("..." if len(data) > 120 else "")


class Spawn:
    """One child, as its books tell it now."""

    def __init__(self, path):
        self._path = path

    def _read(self, what):
        try:
            with open(self._path + what, "rb") as file:
                return file.read()
        except FileNotFoundError:
            return b""

    @property
    def facts(self):
        """id, name, pid and when it began; None before it was ready."""
        text = self._read("")
        return json.loads(text) if text else None

    @property
    def intended(self):
        return self._read(".out")

    @property
    def confirmed(self):
        return int.from_bytes(self._read(".count"), "little")

    @property
    def heard(self):
        return self._read(".in").split(b"\n")[:-1]

    @property
    def end(self):
        """`exit:N`, `signal:N`, `hangup`, or "" when it did not mean to end."""
        return self._read(".end").decode()

    @property
    def complaints(self):
        return self._read(".err")

    @property
    def bounds(self):
        """How many bytes it has written, at least and at most; it has ended."""
        intended, confirmed = len(self.intended), self.confirmed
        # Who notes an end has written all; but a kill may come between two notes.
        return (intended, intended) if self.end not in ("", "hangup") else (confirmed, intended)


class Ledger:
    """One session, by the tag that its children are given."""

    def __init__(self, notes, tag, name):
        self.notes, self.tag = notes, tag
        self.name = name            # None while a rename is under way
        self.id = None
        self.conduct = {}
        self.is_started = False     # a start of it was confirmed
        self.may_be_missing = False     # its start or its removal may have been cut off
        self.is_removed = False
        self.is_destroyed = False   # and its name with it
        self.took_name = False      # it has the name of an older one
        self.was_killed = False     # somebody asked for its end
        self.signals = set()        # that were sent by name
        self.restarts = 0           # at most so many
        self.guard_deaths = []      # when, on the monotonic clock
        self.lost_input = False     # a send was not confirmed
        self.sent = []              # (line, confirmed)
        self.busy = set()           # errands that change it
        self.log = None             # the file of its output
        self.is_audited = False
        self._starts = {1: 0}       # where each child's output begins, once known

    # -- children --------------------------------------------------------------------------

    def spawns(self):
        """All children so far, in order."""
        found = []
        while os.path.exists(os.path.join(self.notes, f"{self.tag}.{len(found) + 1}.claim")):
            found.append(Spawn(os.path.join(self.notes, f"{self.tag}.{len(found) + 1}")))
        if not self.id and found and found[0].facts:
            self.id = found[0].facts["id"]
        return found

    def living(self):
        """The last child, if it is ready and has not noted its end; else None."""
        spawns = self.spawns()
        spawn = spawns[-1] if spawns else None
        if spawn is None or spawn.facts is None or spawn.end:
            return None
        return spawn

    @property
    def is_over(self):
        """Whether nothing more is to be expected of it."""
        spawns = self.spawns()
        return self.is_removed or self.was_killed or bool(spawns and spawns[-1].end)

    def check_children(self):
        """No child more than was asked for, and none that fell over."""
        spawns = self.spawns()
        if len(spawns) > 1 + self.restarts:
            raise Wrong(f"{self.tag}: {len(spawns)} children, {self.restarts} restarts")
        for number, spawn in enumerate(spawns, 1):
            if spawn.complaints:
                raise Wrong(f"{self.tag}.{number} fell over: {spawn.complaints.decode()}")

    # -- output ----------------------------------------------------------------------------

    def check_stream(self, offset, data, what):
        """`data` is what stands in the stream at `offset`, to the byte."""
        spawns = self.spawns()
        begin = 0                   # of this child; of the next: between least and most
        for number, spawn in enumerate(spawns, 1):
            intended = spawn.intended
            is_last = number == len(spawns)
            least, most = (begin + n for n in (spawn.bounds if not is_last
                                               else (0, len(intended))))
            end = most if is_last else self._start_of(number + 1, spawns, least, most, offset, data)
            first, last = max(begin, offset), min(end, offset + len(data))
            if first < last:
                expected = intended[first - begin:last - begin]
                self._compare(first, expected, data[first - offset:last - offset], what)
            begin = end
        if offset + len(data) > begin:
            raise Wrong(f"{what}: {self.tag} wrote {begin} bytes, and of {offset + len(data)} is told: "
                        + shown(data[begin - offset:]))

    def _start_of(self, number, spawns, least, most, offset, data):
        """Where that child's output begins: known, or found in `data`, or `most`."""
        known = self._starts.get(number)
        if known is None:
            known = self._find_start(spawns[number - 1].intended, least, most, offset, data)
            if known is None:
                return most
            self._starts[number] = known
        if not least <= known <= most:
            raise Wrong(f"{self.tag}.{number} begins at {known}, not in {least} to {most}: "
                        "something before it was lost or doubled")
        return known

    @staticmethod
    def _find_start(intended, least, most, offset, data):
        if least == most:
            return least
        at = data.find(intended[:HEAD_BYTES]) if intended else -1
        if at >= 0:
            return offset + at
        if offset > least and len(data) >= PROBE_BYTES:     # its beginning is gone already
            at = intended.find(data[:PROBE_BYTES])
            if at >= 0:
                return offset - at
        return None

    def _compare(self, offset, expected, data, what):
        if expected == data:
            return
        at = next(n for n, pair in enumerate(zip(expected, data)) if pair[0] != pair[1])
        found = expected.find(data[at:at + 48])
        raise Wrong(f"{what}: {self.tag} differs at {offset + at}: {shown(data[at:])} instead of "
                    f"{shown(expected[at:])}" + (f"; that stands at {offset + found}" if found >= 0 else ""))

    def check_end(self, offset, what):
        """The session is over, and its output ends at `offset`."""
        spawns = self.spawns()
        if not spawns:
            least = most = 0
        elif len(spawns) in self._starts or len(spawns) == 1:
            begin = self._starts[len(spawns)]
            least, most = (begin + n for n in spawns[-1].bounds)
        else:                       # nothing of the last is kept, or it wrote nothing
            least, most = (sum(spawn.bounds[n] for spawn in spawns) for n in (0, 1))
        if not least <= offset <= most:
            raise Wrong(f"{what}: the output of {self.tag} ends at {offset}, not in {least} to {most}")

    def find_stream(self, data, what):
        """`data` stands somewhere in the stream, in one piece."""
        if not any(data in spawn.intended for spawn in self.spawns()):
            self._find_across(data, what)

    def _find_across(self, data, what):
        """Begins in one child's output and goes on with the next one's."""
        for number, spawn in enumerate(self.spawns()[1:], 1):
            head = spawn.intended[:HEAD_BYTES]
            at = data.find(head) if head else -1
            if at >= 0:
                before = self.spawns()[number - 1]
                least, most = before.bounds
                if any(before.intended[:end].endswith(data[:at]) for end in range(least, most + 1)):
                    return
        raise Wrong(f"{what}: these {len(data)} bytes are no piece of the output of {self.tag}: "
                    f"{shown(data)} ... {bytes(data[-120:])!r}")

    # -- the end ---------------------------------------------------------------------------

    def legal_ends(self):
        """Every end that may be told of its last child; of all, after restarts."""
        spawns = self.spawns()
        legal = set()
        for spawn in spawns[-1:]:
            if spawn.end.startswith(("exit", "signal")):
                kind, number = spawn.end.split(":")
                legal.add(int(number) if kind == "exit" else signal.Signals(int(number)).name)
            facts = spawn.facts
            began = facts["at"] if facts else 0.0
            if any(death > began - GUARD_SLACK_S for death in self.guard_deaths):
                legal.add(UNKNOWN)
        if not spawns and self.guard_deaths:
            legal.add(UNKNOWN)
        if self.was_killed:
            legal |= {"SIGHUP", "SIGTERM", "SIGKILL"} | self.signals
            if spawns and spawns[-1].end == "hangup":
                legal.add(9)
        return legal

    def check_exit(self, exit_, what):
        """That exit may be told of it; `exit_` as in JSON."""
        told = exit_["signal"] or (UNKNOWN if exit_["code"] is None else exit_["code"])
        if told not in self.legal_ends():
            ends = [spawn.end for spawn in self.spawns()]
            raise Wrong(f"{what}: {self.tag} ended as {told}; legal is {sorted(map(str, self.legal_ends()))}, "
                        f"its children noted {ends}")

    def check_code(self, code, what):
        """That exit code may be told of it, as `run` and `wait` tell it."""
        legal = {125 if end == UNKNOWN else end if isinstance(end, int)
                 else 128 + signal.Signals[end] for end in self.legal_ends()}
        if code not in legal:
            raise Wrong(f"{what}: exit code {code} of {self.tag}; legal is {sorted(legal)}")

    # -- input -----------------------------------------------------------------------------

    def check_input(self):
        """Nothing was typed twice, nothing out of order, nothing made up."""
        heard = [line for spawn in self.spawns() for line in spawn.heard]
        sent = [line for line, _ in self.sent]
        whole = [line for line in heard if line in sent]
        if len(whole) != len(set(whole)):
            raise Wrong(f"{self.tag} heard a line twice: {heard}")
        if whole != [line for line in sent if line in whole]:
            raise Wrong(f"{self.tag} heard lines in another order: {heard}, sent {sent}")
        if len(whole) != len(heard) and not self.lost_input:
            raise Wrong(f"{self.tag} heard what nobody typed: {heard}, sent {sent}")

    def check_confirmed_input(self):
        """Of a child that ended by a typed line: all that was confirmed before was heard."""
        heard = [line for spawn in self.spawns() for line in spawn.heard]
        sent = [line for line, _ in self.sent]
        if self.restarts or not heard or not heard[-1].startswith(b"quit "):
            return
        if any(line not in sent for line in heard):
            return                      # half a line that was lost has spoilt the next
        for line, is_confirmed in self.sent:
            if line == heard[-1]:
                break
            if is_confirmed and line not in heard:
                raise Wrong(f"{self.tag} never heard {line!r}, which was confirmed: {heard}")
