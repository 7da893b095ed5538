"""Replies: what a terminal types by itself, found in what a client types.

With several terminals attached every one of them answers a program's query, and the
program wants one answer.  That of the leader counts; those of the others are taken out of
what they type, for as long after a query as answers may be on their way.  At other times
nothing is taken out: `CSI 1;2R` may be an answer, and is Shift-F3.

Not taken out: reports of mouse and focus, pastes, keys in whatever protocol; they are
meant.  A reply to a query that nobody here knows is typed, as before.
"""

from .terminal import Pattern, has_query, incomplete_tail

WAIT_S = 2.0                    # for answers, after a query (C-213)
REST_S = 0.1                    # for the rest of one that came in pieces; a bare ESC waits as long
HELD_MAX = 4096                 # of one that has begun
UNFINISHED_MAX = 256            # of a query that has

_END = rb"\x07\x18\x1a\x1b"

# Answers that are control sequences; names are of the queries, as in terminal.py.
CSI_REPLIES = (
    ("DA1", rb"\?[0-9;]*c"),
    ("DA2", rb">[0-9;]*c"),
    ("DSR", rb"[03]n"),
    ("DECDSR", rb"\?[0-9;]*n"),
    ("CPR", rb"[0-9]+;[0-9]+R"),
    ("DECXCPR", rb"\?[0-9;]*R"),
    ("DECRPM", rb"\??[0-9]+;[0-9]+\$y"),
    ("kitty keyboard", rb"\?[0-9]*u"),
    ("XTQMODKEYS", rb">[0-9;]*m"),
    ("XTSMGRAPHICS", rb"\?[0-9;]*S"),
    ("XTWINOPS report", rb"[0-9]+(?:;[0-9]+)*t"),
    ("DECREPTPARM", rb"[0-9]+(?:;[0-9]+)+x"),
)

# Colours (OSC), DA3, XTVERSION, DECRPSS and XTGETTCAP (DCS), graphics (APC): no key sends strings.
_STRING = rb"[P\]_^X][^" + _END + rb"]*(?:\x07|\x1b\\)"

_PATTERN = (rb"\x1b(?:\[(?:" + rb"|".join(pattern for _, pattern in CSI_REPLIES)
            + rb")|" + _STRING + rb")")
_REPLY = Pattern(_PATTERN)
_REPLIES = Pattern(rb"(?:" + _PATTERN + rb")+\Z")
_BEGUN = Pattern(rb"\x1b(?:\[[0-?]*\$?|[P\]_^X][^" + _END + rb"]*\x1b?)?\Z")


def without_replies(data):
    """(what was typed by a person, the beginning of an answer that `data` ends in)."""
    kept = _REPLY.sub(b"", data)
    last = kept.rfind(b"\x1b")
    for at in (kept.rfind(b"\x1b", 0, last) if last == len(kept) - 1 else -1, last):
        if at >= 0 and len(kept) - at <= HELD_MAX and _BEGUN.match(kept, at):
            return kept[:at], kept[at:]
    return kept, b""


def is_only_replies(data):
    """Whether a terminal has typed all of this by itself."""
    return _REPLIES.match(data) is not None


class ReplyFilter:
    """What the clients of one session type, less the answers of all but one.

    Times are on the clock that the caller looks at.
    """

    def __init__(self):
        self._asked_at = None
        self._unfinished = b""          # output: a query that has begun
        self._held = {}                 # cursor -> the beginning of what may be an answer

    def show(self, data, now):
        """All terminals get this piece of output; what it asks they will answer."""
        data = self._unfinished + bytes(data)
        self._unfinished = incomplete_tail(data, UNFINISHED_MAX)
        if has_query(data):
            self.note_query(now)

    def note_query(self, now):
        """Something was asked, or may have been."""
        self._asked_at = now

    def is_waiting(self, now):
        """Whether answers may be on their way."""
        return self._asked_at is not None and now - self._asked_at < WAIT_S

    def take(self, cursor, data, is_leader, now):
        """What is to be typed of `data`; the rest may be held, see `is_holding`."""
        data = self._held.pop(cursor, b"") + bytes(data)
        if is_leader or not self.is_waiting(now):
            return data
        data, held = without_replies(data)
        if held:
            self._held[cursor] = held
        return data

    def is_holding(self, cursor):
        """Whether something of it is held; to be released in REST_S."""
        return cursor in self._held

    def held(self, cursor):
        """What is held of it, or None."""
        return self._held.get(cursor)

    def release(self, cursor):
        """What was held: nothing followed, so a person has typed it."""
        return self._held.pop(cursor, b"")

    def release_all(self):
        """Likewise, of all: pairs of cursor and bytes."""
        held, self._held = self._held, {}
        return list(held.items())
