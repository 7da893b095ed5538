"""What a program asks its terminal, found in its output, and what it is answered.

For a program that nobody views: where a terminal is attached, that one answers.  The
terminal described is the least that today's programs expect: a VT220 (62) with colour
(22), version 10 of nothing known, so that nobody switches on what one particular terminal
would understand; but what is asked of the screen (where the cursor is, which modes are set,
which colours) is answered with what is so, as a `Screen` has it.

Rule 1: what is found is what xterm would answer as well (ctlseqs.ms); a query with control
        bytes inside is not, nor one with more parameters than it needs.
Rule 2: how the output is cut makes no difference, and a query is found once.
Rule 3: searching is one compiled expression over pieces that have an ESC at all.  Nothing
        raises on data, takes more than linear time or remembers more than HELD_MAX bytes.
"""

from collections import namedtuple

from . import tables
from .terminal import Pattern
from .version import OURS

HELD_MAX = 2048             # of a query that has begun: one for each colour of 256 fits
_STRING_MAX = HELD_MAX - 16

# Groups: 1 marker, 2 parameter, 3 final | 4 number of the OSC, 5 its body, 6 its end | 7 kind
# of the DCS | 8 DECID.  The look ahead passes over what is no query (colours, moves) in one go.
_BODY = rb"[^\x07\x18\x1a\x1b]{0,%d}" % _STRING_MAX
_QUERY = Pattern(
    rb"\x1b(?!\[[0-?]*[@-bd-mor-tv-~])(?:\[([?>=]?)([0-9]{0,5})([cnqu]|\$p)"
    rb"|\]0{0,3}(4|1[0-2]);(" + _BODY + rb")(\x07|\x1b\\)"
    rb"|P([+$])q" + _BODY + rb"\x1b\\"
    rb"|(Z))")

_END = rb"\x07\x18\x1a\x1b"
_HEX = frozenset("0123456789abcdefABCDEF")      # no expression: every daemon asks before it reads on
_INDEX = Pattern(rb"[0-9]{1,5}\Z")
_INCOMPLETE = Pattern(rb"\x1b(?:\[[ -?]*|[P\]][^" + _END + rb"]*\x1b?)?\Z")

# What is asked -> kind of query; a parameter that is missing is 0.
_KINDS = {
    b"0c": "primary_attributes", b">0c": "secondary_attributes", b"=0c": "tertiary_attributes",
    b"5n": "status", b"6n": "position", b"?6n": "extended_position",
    b">0q": "version", b"?0u": "keyboard",
}

# Those that need no look at the screen.
FIXED = {
    "primary_attributes": b"\x1b[?62;22c",
    "secondary_attributes": b"\x1b[>1;10;0c",       # 1: VT220
    "tertiary_attributes": b"\x1bP!|00000000\x1b\\",
    "status": b"\x1b[0n",                           # no malfunction
    "version": b"\x1bP>|ptyguard(%s)\x1b\\" % OURS.encode("ascii"),
    "capability": b"\x1bP0+r\x1b\\",                # XTGETTCAP: not known
    "setting": b"\x1bP0$r\x1b\\",                   # DECRQSS: not known
}

# `text` is the parameter, or of an OSC number and body, which `terminator` ends; offsets.
Query = namedtuple("Query", "kind text terminator start end")


def needs_screen(query):
    """Whether it takes a screen to answer that query."""
    return query.kind not in FIXED


class QueryFinder:
    """Finds the queries in a program's output, which comes in pieces."""

    def __init__(self, before=b""):
        """`before`: the last HELD_MAX bytes of output before what is looked at here."""
        self._held = _unfinished(bytes(before))

    @property
    def held_bytes(self):
        """How much of what was looked at is the beginning of a sequence."""
        return len(self._held)

    def find(self, data, end):
        """The queries that this piece, which ends at offset `end`, completes, in order."""
        data = bytes(data)
        if self._held:
            data = self._held + data
        elif b"\x1b" not in data:
            return []
        self._held = _unfinished(data)
        begin = end - len(data)
        found = (_query(match, begin) for match in _QUERY.finditer(data))
        return [query for query in found if query is not None]


def _unfinished(data):
    """The sequence that `data` ends within, empty when it is longer than a query may be."""
    last = data.rfind(b"\x1b")
    if last < 0 or len(data) - last > HELD_MAX:
        return b""
    # ESC always begins a sequence, but the last byte may be half of a string's end.
    for at in (data.rfind(b"\x1b", 0, last) if last == len(data) - 1 else -1, last):
        if at >= 0 and len(data) - at <= HELD_MAX and _INCOMPLETE.match(data, at):
            return data[at:]
    return b""


def _query(match, begin):
    """The Query of this match in data that begins at offset `begin`, None if it asks nothing."""
    kind, text, terminator = _READERS[match.lastindex](match)
    return kind and Query(kind, text, terminator, begin + match.start(), begin + match.end())


def _read_control(match):
    marker, number, final = match.group(1, 2, 3)
    if final == b"$p":
        return {b"": "ansi_mode", b"?": "private_mode"}.get(marker), number, b""
    return _KINDS.get(b"%s%d%s" % (marker, int(number or b"0"), final)), b"", b""


def _read_command(match):
    number, body, terminator = match.group(4, 5, 6)
    kind = "palette" if number == b"4" else "colours"
    return kind if b"?" in body else None, number + b";" + body, terminator


def _read_device_string(match):
    return {b"+": "capability", b"$": "setting"}[match.group(7)], b"", b""


def _read_escape(_match):
    return "primary_attributes", b"", b""


# By the last group that has matched.
_READERS = {3: _read_control, 6: _read_command, 7: _read_device_string, 8: _read_escape}


# -- answers ------------------------------------------------------------------------------------


def parse_colour(text):
    """(r, g, b) of "#rrggbb", or None."""
    if len(text) == 7 and text[0] == "#" and _HEX.issuperset(text[1:]):
        return tuple(bytes.fromhex(text[1:]))
    return None


def default_colours(settings):
    """What a program is told of colours that it has not set, by the names of tables.py."""
    foreground = parse_colour(settings.get("foreground", "")) or tables.FOREGROUND
    return {"foreground": foreground,
            "background": parse_colour(settings.get("background", "")) or tables.BACKGROUND,
            "cursor": parse_colour(settings.get("cursor-colour", "")) or foreground}


def answer(query, screen=None, colours=None):
    """The bytes that a terminal types when it is asked `query`.

    `screen` is as the program's output up to that query leaves it, `colours` are the
    `default_colours`; both are needed if `needs_screen`.
    """
    if query.kind in FIXED:
        return FIXED[query.kind]
    return _ANSWERS[query.kind](query, screen, colours)


def _place(screen):
    """Row and column of the cursor, as addressed: in origin mode within the margins (xterm, CPR)."""
    top, _, left, _ = screen.margins if screen.modes.get("origin") else (0, 0, 0, 0)
    return screen.cursor.y - top + 1, screen.cursor.x - left + 1


def _position(_query_, screen, _colours):
    return b"\x1b[%d;%dR" % _place(screen)


def _extended_position(_query_, screen, _colours):
    return b"\x1b[?%d;%dR" % _place(screen)


def _keyboard(_query_, screen, _colours):
    return b"\x1b[?%du" % screen.modes.get("keyboard_flags", 0)


# DECRPM (VT510 manual): 0 not known, 1 set, 2 reset.
_UNKNOWN, _SET, _RESET = 0, 1, 2

# Said to be not known: reports that we do not send, and that the terminal which is attached
# later may not send either.  Textual, told otherwise, hears of a new size by 2048 only.
UNPROMISED_MODES = {
    1016,       # the mouse in pixels
    2031,       # dark and light
    2048,       # size
}


def _is_set(screen, vocabulary, number):
    name, value = vocabulary[number]
    return screen.modes.get(name, tables.MODE_DEFAULTS.get(name, False)) == value


def _ansi_mode(query, screen, _colours):
    number = int(query.text or b"0")
    state = _UNKNOWN
    if number in tables.ANSI_MODES:
        state = _SET if _is_set(screen, tables.ANSI_MODES, number) else _RESET
    return b"\x1b[%d;%d$y" % (number, state)


def _private_mode(query, screen, _colours):
    number = int(query.text or b"0")
    state = _UNKNOWN
    if number in tables.PRIVATE_MODES and number not in UNPROMISED_MODES:
        state = _SET if _is_set(screen, tables.PRIVATE_MODES, number) else _RESET
    elif number == 1048:
        state = _SET if screen.saved_cursor else _RESET
    elif number in tables.MODE_ACTS:
        state = _SET if screen.is_alternate else _RESET
    return b"\x1b[?%d;%d$y" % (number, state)


def _rgb(colour):
    return b"rgb:" + b"/".join(b"%02x%02x" % (part, part) for part in colour)


def _dynamic_colours(query, screen, colours):
    """OSC 10 to 12: each further field is about the next colour (xterm, ChangeColorsRequest)."""
    first, *fields = query.text.split(b";")
    found = []
    for number, field in enumerate(fields, int(first)):
        if field == b"?" and number - 10 < len(tables.DYNAMIC_COLOURS):
            name = tables.DYNAMIC_COLOURS[number - 10]
            colour = screen.palette.get(name) or _default_colour(name, screen, colours)
            found.append(b"\x1b]%d;%s%s" % (number, _rgb(colour), query.terminator))
    return b"".join(found)


def _default_colour(name, screen, colours):
    # A cursor that nobody has coloured is of the text's colour.
    if name == "cursor" and colours["cursor"] == colours["foreground"]:
        name = "foreground"
    return screen.palette.get(name) or colours[name]


def _palette(query, screen, _colours):
    """OSC 4: pairs of an index and what it is to be, or "?"."""
    fields = query.text.split(b";")[1:]
    found = []
    for index, field in zip(fields[::2], fields[1::2]):
        if field == b"?" and _INDEX.match(index) and int(index) < 256:
            colour = screen.palette.get(int(index)) or tables.palette_colour(int(index))
            found.append(b"\x1b]4;%d;%s%s" % (int(index), _rgb(colour), query.terminator))
    return b"".join(found)


_ANSWERS = {
    "position": _position, "extended_position": _extended_position, "keyboard": _keyboard,
    "ansi_mode": _ansi_mode, "private_mode": _private_mode,
    "colours": _dynamic_colours, "palette": _palette,
}
