"""Screen: a terminal emulator.  Bytes go in, cells come out.

It does what xterm does (ctlseqs.ms; where that is silent, its source), read with the
parser of vt100.net/emu/dec_ansi_parser; the vocabulary is data, in tables.py.  It
answers nothing, beeps nothing and owns no file: `terminal.py` answers queries.

Rule 1: text is handled as runs.  Bytes are decoded, then split by one compiled
        pattern into runs of text and whole sequences; a run of narrow text is
        written into a line by one assignment to a slice.
Rule 2: a control byte inside a sequence is carried out at once and does not end
        it; ESC begins another, CAN and SUB abort.
Rule 3: how the bytes are cut makes no difference.  What has begun and not ended is
        held until more comes, or (if its meaning is known to be nothing) skipped.
Rule 4: whatever the bytes are, work is linear in them times the screen, and memory
        is bounded: numbers, strings, stacks, marks and characters of a cell have limits.
Rule 5: a wide character is its cell and an empty one after it; whoever writes or cuts
        between the two leaves blanks (`_split`), so no line ever has half of one.

C1 controls do nothing, as in xterm and tmux where they speak UTF-8: not U+009B, which is CSI
elsewhere, and not the byte 0x9B, which is invalid.

Not handled: protected cells (DECSCA; selective erases erase everything), double width
and height lines, VT52 mode, 132 columns (DECCOLM), rectangles (DECCRA and kin), graphics,
ids of links, XTSAVE and XTRESTORE, bidirectional text, grapheme clusters beyond
combining characters and emoji.
"""

import bisect
import codecs
import collections
import functools
import re
import unicodedata

from ptyguard_core import tables
from ptyguard_core.terminal import Pattern

# --- limits (rule 4) ---------------------------------------------------------------------

SEQUENCE_MAX = 512          # characters between CSI and its last one; longer ones do nothing
STRING_MAX = 4096           # characters of an OSC that has an effect
LINK_MAX = 2083             # of a link, as VTE has it
PARAMETERS_MAX = 64
NUMBER_MAX = 65535
CELL_MAX = 16               # characters of one cell; the longest emoji that is in use has ten
STYLES_MAX = 4096           # remembered attributes
TITLES_MAX = 10             # pushed ones, as in xterm
KEYBOARD_MAX = 8            # pushed keyboard flags, as in terminal.py
MARKS_MAX = 4096

# --- what a screen is made of --------------------------------------------------------------

_FIELDS = {"fg": None, "bg": None, "bold": False, "faint": False, "italic": False, "underline": 0,
           "underline_colour": None, "blink": False, "inverse": False, "invisible": False,
           "strike": False, "overline": False, "link": None}
Attr = collections.namedtuple("Attr", list(_FIELDS), defaults=list(_FIELDS.values()))
Attr.__doc__ = """How a cell looks.

Colours are None for the default, 0 to 255 of the palette, or (r, g, b); `underline` is 0 none,
1 single, 2 double, 3 curly, 4 dotted, 5 dashed; `link` a URI or None.
"""
PLAIN = Attr()
UNKNOWN = Attr()            # as PLAIN, but another object: nobody knows what that cell shows

Cursor = collections.namedtuple("Cursor", "x y is_visible shape is_blinking")
SavedCursor = collections.namedtuple("SavedCursor", "x y attr charsets shift is_origin is_wrap_pending")
Mark = collections.namedtuple("Mark", "kind line detail")


class Line:
    """One row: `chars` and `attrs`, as long as the screen was wide.

    An entry of `chars` is what one cell shows, " " if nothing; "" is the second cell of the
    wide character before it.  `is_wrapped` says that the text goes on in the next line.
    """

    __slots__ = ("chars", "attrs", "is_wrapped")

    def __init__(self, chars, attrs, is_wrapped=False):
        self.chars = chars
        self.attrs = attrs
        self.is_wrapped = is_wrapped

    @property
    def text(self):
        return "".join(self.chars)


def _split(line, x, blank):
    """See to it that a wide character does not reach over the boundary before column `x` (rule 5)."""
    chars = line.chars
    if x < len(chars) and chars[x] == "":
        chars[x - 1:x + 1] = "  "
        line.attrs[x - 1:x + 1] = [blank, blank]


def _fit(line, cols):
    """Make the line `cols` wide: what is beyond is cut, what is missing is blank."""
    missing = cols - len(line.chars)
    if missing < 0:
        _split(line, cols, PLAIN)
        del line.chars[cols:], line.attrs[cols:]
    elif missing:
        line.chars += [" "] * missing
        line.attrs += [PLAIN] * missing


# --- width -------------------------------------------------------------------------------------

_JOINER = "\u200d"
_EMOJI_STYLE = "\ufe0f"


def _is_in(code, ranges):
    at = bisect.bisect_right(ranges, (code, 0x110000)) - 1
    return at >= 0 and ranges[at][0] <= code <= ranges[at][1]


@functools.lru_cache(maxsize=4096)
def char_width(char):
    """Return how many columns one character takes: 0, 1 or 2."""
    code = ord(char)
    for first, last, columns in tables.WIDTH_CORRECTIONS:
        if first <= code <= last:
            return columns
    category = unicodedata.category(char)
    if category in ("Mn", "Me", "Cf"):
        return 0
    if category == "Cn":        # Python before 3.9 says of what is unassigned that it is full width
        return 2 if 0x20000 <= code <= 0x3FFFD else 1
    return 2 if unicodedata.east_asian_width(char) in "WF" else 1


def _is_emoji(char):
    code = ord(char)
    return 0x1F000 <= code <= 0x1FAFF or _is_in(code, tables.EMOJI_RANGES)


def _joins(char, cell):
    """Is `char`, which has a width of its own, part of the character that `cell` shows?"""
    if "\U0001f3fb" <= char <= "\U0001f3ff":
        return _is_in(ord(cell[-1]), tables.MODIFIER_BASE_RANGES)
    return cell[-1] == _JOINER and _is_emoji(char)


_RUN = Pattern(r"([" + tables.NARROW_RANGES + r"]+)|([" + tables.WIDE_RANGES + r"]+)|[^\x00]")

# --- sequences -----------------------------------------------------------------------------------

# Carried out inside sequences (rule 2), or ignored there.
_C0 = r"\x00-\x17\x19\x1c-\x1f\x7f-\x9f"
_ABORT = r"(?:(?=[\x18\x1a\x1b])|[^\x00-\x9f])"     # another character aborts, and is gone
_OSC_BODY = r"[^\x07\x18\x1a\x1b]*"
_BODY = r"[^\x18\x1a\x1b]*"
_CUT_OFF = r"(?=[\x18\x1a]|\x1b[^\\])"
_FINAL = r"[0-OQ-WYZ\\`a-jl-~]"             # of ESC; the others introduce strings and CSI

_CSI = r"\x1b[" + _C0 + r"]*\["
_OSC = r"\x1b[" + _C0 + r"]*\]"
# `ESC k` is screen's and tmux's own: a title.
_STRING = r"\x1b[" + _C0 + r"]*[PX^_k]"

_TEXT = r"([^\x00-\x1f\x7f-\x9f]+)"

# What each number stands for is in `Screen.feed`.  What comes in pairs is one token: half of the
# time goes into finding one.  From `12` on everything is rare: control bytes inside, sequences that
# are aborted, and last what has no end yet.
_TOKEN = Pattern(
    _TEXT + r"(\r\n)?"                                              # 1 or 2: text, and the end of its line
    r"|\x1b\[([0-9:;]*)m" + _TEXT + r"?"                            # 3 or 4: SGR, and text
    r"|\x1b\[([<-?]?)([0-9:;]*)([ -/]*[@-~])"                       # 5, 6, 7: CSI
    r"|(\r\n)"                                                      # 8
    r"|([\x00-\x1a\x1c-\x1f\x7f-\x9f])"                             # 9: controls
    r"|\x1b([ -/]+[0-~]|" + _FINAL + r")"                           # 10: ESC
    r"|\x1b\](" + _OSC_BODY + r")(?:\x07|\x1b\\)"                   # 11: OSC
    r"|(" + _CSI + r"[" + _C0 + r" -?]*(?:[@-~]|" + _ABORT + r"))"                      # 12
    r"|(" + _OSC + _OSC_BODY + r"(?:\x07|\x1b\\|" + _CUT_OFF + r"))"                    # 13
    r"|(" + _STRING + _BODY + r"(?:\x1b\\|" + _CUT_OFF + r"))"                          # 14
    r"|(\x1b[" + _C0 + r"]*(?:[ -/][" + _C0 + r" -/]*[0-~]|" + _FINAL + r")"            # 15
    r"|\x1b[" + _C0 + r" -/]*" + _ABORT + r")"
    r"|(\x1b(?s:.*))")                                                                  # 16

_CONTROL = re.compile("[" + _C0 + "]")
_NO_C0 = {code: None for code in list(range(0x20)) + list(range(0x7F, 0xA0)) if code != 0x1B}
_CSI_PARTS = re.compile(r"\x1b\[([<-?]?)([0-9:;]*)([ -/]*[@-~])")
_INTRODUCER = re.compile("(?P<csi>" + _CSI + ")|(?P<osc>" + _OSC + ")|(?P<string>" + _STRING + ")|(?P<escape>\x1b)")

_OSC_END = re.compile(r"[\x07\x18\x1a\x1b]")

# Where what is skipped ends.  The ESC of the string terminator is an end itself: what
# remains of it, `ESC \`, does nothing.
_SKIP_ENDS = {
    "csi": re.compile(r"[@-~]|" + _ABORT),
    "osc": re.compile(r"\x07|(?=[\x18\x1a\x1b])"),
    "string": re.compile(r"(?=[\x18\x1a\x1b])"),
    "escape": re.compile(r"[0-~]|" + _ABORT),
}


def _number(digits):
    if digits.isdigit() and len(digits) < 6:        # as most are
        return min(int(digits), NUMBER_MAX)
    digits = digits.partition(":")[0].lstrip("0")
    return min(int(digits or "0"), NUMBER_MAX) if len(digits) < 6 else NUMBER_MAX


def _numbers(parameters):
    """The numbers of a sequence, at least one; what is missing is 0."""
    return tuple(map(_number, parameters.split(";", PARAMETERS_MAX)[:PARAMETERS_MAX]))


# --- colours -----------------------------------------------------------------------------------

def _palette_colour(numbers):
    return numbers[0] if numbers and numbers[0] < 256 else None


def _direct_colour(numbers):
    return tuple(numbers[:3]) if len(numbers) >= 3 and max(numbers[:3]) < 256 else None


# After 38, 48 and 58: (how many numbers follow, what they mean).
_COLOUR_KINDS = {5: (1, _palette_colour), 2: (3, _direct_colour)}


def _restyle(attr, parameters):
    """Return `attr` after SGR with these parameters."""
    changes = {}
    fields = parameters.split(";", PARAMETERS_MAX)[:PARAMETERS_MAX]
    at = 0
    while at < len(fields):
        field = fields[at]
        at += 1
        code = _number(field)
        if ":" in field:
            _restyle_by_parts(changes, code, [_number(part) for part in field.split(":")[1:]])
        elif code in tables.SGR:
            changes.update(tables.SGR[code])
        elif code in tables.SGR_COLOURS:
            count, colour_of = _COLOUR_KINDS.get(_number(fields[at]) if at < len(fields) else 0, (0, None))
            numbers = [_number(part) for part in fields[at + 1:at + 1 + count]]
            at += 1 + count
            _set_colour(changes, code, colour_of and colour_of(numbers))
        elif code == 0:
            changes = dict(_FIELDS, link=attr.link)
    return attr._replace(**changes)


def _restyle_by_parts(changes, code, parts):
    """One parameter with colons: `4:3`, `38:5:1`, `38:2::1:2:3`, and `38:2:1:2:3` as it was misread."""
    if code == 4 and parts[0] <= tables.UNDERLINE_STYLES:
        changes["underline"] = parts[0]
    elif code in tables.SGR_COLOURS:
        count, colour_of = _COLOUR_KINDS.get(parts[0], (0, None))
        has_space = parts[0] == 2 and len(parts) > 4
        _set_colour(changes, code, colour_of and colour_of(parts[1 + has_space:1 + has_space + count]))


def _set_colour(changes, code, colour):
    if colour is not None:
        changes[tables.SGR_COLOURS[code]] = colour


_RGB = re.compile(r"rgb:([0-9a-fA-F]{1,4})/([0-9a-fA-F]{1,4})/([0-9a-fA-F]{1,4})\Z")
_HASH = re.compile(r"#(?:[0-9a-fA-F]{3}){1,4}\Z")


def _parse_colour(text):
    """(r, g, b) of an X colour (XParseColor), None if it is not one written in numbers."""
    match = _RGB.match(text)
    if match:
        # rgb: scales, so that "f" is as bright as "ffff"; # does not.
        return tuple(int(part, 16) * 255 // (16 ** len(part) - 1) for part in match.groups())
    if _HASH.match(text):
        size = (len(text) - 1) // 3
        parts = [text[1 + size * at:1 + size * at + size] for at in range(3)]
        return tuple(int((part + "0")[:2], 16) for part in parts)
    return None


_ESCAPED = re.compile(rb"%([0-9a-fA-F]{2})")


def _path_of(uri):
    """The path of a file: URI (OSC 7), any other text as it is; None if there is none."""
    if uri.startswith("file://"):
        uri = "/" + uri[len("file://"):].partition("/")[2]
        path = _ESCAPED.sub(lambda match: bytes([int(match.group(1), 16)]), uri.encode("utf-8"))
        uri = path.decode("utf-8", "replace").translate(_NO_C0)
    return uri or None


# --- the screen -----------------------------------------------------------------------------------

class Screen:
    """A terminal of `(cols, rows)` that shows what it is fed.

    `lines` are the visible ones, `history` (the oldest first) those that left the main screen at
    its top, at most `history_max`; `lines_scrolled` counts these ever since, so it is the absolute
    number of `lines[0]` on the main screen.  All that is public may be read at any time and is
    changed by `feed` and `resize` only; neither raises on any bytes.

    `modes` has those that differ from a terminal after a reset, by the names of tables.py.
    """

    def __init__(self, size, history_max=1000):
        self._cols, self._rows = max(1, size[0]), max(1, size[1])
        self.history = collections.deque(maxlen=history_max)
        self.lines_scrolled = 0
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._held = ""                 # a sequence that has begun, at most one of the limits long
        self._skipped = None            # of which kind the one is that is skipped
        self.title = self.icon_title = ""
        self._titles = []
        self.cwd = None
        self._known = {PLAIN: PLAIN}    # equal attributes are one object
        self._styles = {}               # attr: {SGR parameters: (attr, what is erased then, this dict of that attr)}
        self._styles_count = 0
        self._has_guessed = False       # whether a character may have joined one that nobody knows
        self._start()

    def _start(self):
        """All that RIS puts back: not titles and the directory, which are the window's (xterm, ReallyReset)."""
        self.is_alternate = False
        self._hidden = None             # lines of the screen that is not shown; None: never was any
        self._set_attr(PLAIN)
        self.lines = self._blank_lines(self._rows)
        self._x = self._y = 0
        self.is_wrap_pending = False
        self._last = ""                 # what REP repeats
        self.modes = {}
        self._saved = [None, None]      # DECSC on the main and the alternate screen
        self._keyboard = ([0], [0])
        self._shape, self._is_blinking = tables.CURSOR_STYLES[0]
        self._tabs = []
        self._tabs_made = 0
        self._default_tab_stops()
        self._reset_margins()
        self._reset_charsets()
        self.palette = {}
        self.marks = []

    # --- what there is to see ---

    @property
    def size(self):
        return self._cols, self._rows

    @property
    def cursor(self):
        is_blinking = self._is_blinking or "cursor_blink" in self.modes
        return Cursor(self._x, self._y, "cursor_visible" not in self.modes, self._shape, is_blinking)

    @property
    def margins(self):
        return self._top, self._bottom, self._left, self._right

    @property
    def tab_stops(self):
        return self._tabs[:bisect.bisect_left(self._tabs, self._cols)]

    @property
    def charsets(self):
        return tuple(self._charsets), self._shift

    @property
    def attr(self):
        """What the next character will look like."""
        return self._attr

    def forget_cells(self):
        """What is shown is not known from now on, but for what is drawn later."""
        for lines in (self.lines, self._hidden or ()):
            for line in lines:
                line.attrs[:] = [UNKNOWN] * len(line.attrs)

    def doubt_cells(self):
        """`forget_cells` of what will have been drawn anew, if a guess is right; `is_certain` says it was."""
        for line in self.lines:
            line.attrs[:] = [UNKNOWN] * len(line.attrs)
            line.is_wrapped = None
        self._has_guessed = False

    @property
    def is_certain(self):
        """Whether nothing that was there when cells were doubted has a part in what is shown."""
        return self.is_whole and not self._has_guessed and all(line.is_wrapped is not None for line in self.lines)

    @property
    def is_whole(self):
        """Whether it is known of each cell what it shows."""
        unknown = id(UNKNOWN)
        return not any(unknown in set(map(id, line.attrs)) for line in self.lines)

    @property
    def is_plain(self):
        """Whether nothing has begun that the next bytes could end, and the cursor moves as after a reset
        (and will, when it is restored)."""
        return not (self._held or self._skipped or self._single is not None or self._decoder.getstate()[0]
                    or not self.modes.keys().isdisjoint(("origin", "reverse_wrap", "left_right_margins"))
                    or any(saved and saved.is_origin for saved in self._saved))

    @property
    def keyboard_stacks(self):
        """Flags of the kitty protocol, the pushed ones last: of the main and of the shown screen."""
        return list(self._keyboard[False]), list(self._keyboard[self.is_alternate])

    @property
    def saved_cursor(self):
        """What DECRC would restore on this screen; None when nothing was saved."""
        return self._saved[self.is_alternate]

    @property
    def main_lines(self):
        """The lines of the main screen while the alternate one is shown, else None."""
        return self._hidden if self.is_alternate else None

    @property
    def main_saved_cursor(self):
        """What DECRC would restore on the main screen: where the cursor will be after 1049."""
        return self._saved[False]

    # --- bytes in ---

    def feed(self, data):
        """Show what these bytes of a program's output do.  They may be split anywhere."""
        text = self._decoder.decode(data)
        start = 0
        if self._skipped:
            start = self._skip(text)
        elif self._held:
            text, seen = self._held + text, len(self._held)
            self._held = ""
            # A string is looked at once, however small the pieces are that it comes in.
            if text.startswith("\x1b]") and not _OSC_END.search(text, max(1, seen - 1)):
                self._hold(text)
                return
        print_, style, control = self._print, self._select_rendition, self._control_sequence
        for match in _TOKEN.finditer(text, start):
            kind = match.lastindex
            if kind == 1:
                print_(match.group())
                continue
            if kind == 4:
                style(match.group(3))
                print_(match.group(4))
                continue
            if kind == 2:
                print_(match.group(1))
                self._begin_line()
            elif kind == 3:
                style(match.group(3))
            elif kind == 7:
                control(*match.group(5, 6, 7))
            elif kind == 8:
                self._begin_line()
            elif kind == 9:
                self._control(match.group())
            elif kind == 10:
                self._escape(match.group(10))
            elif kind == 11:
                self._system_command(match.group(11))
            elif kind == 16:
                self._hold(match.group())
                break
            else:
                _RARE[kind](self, match.group())
            self._last = ""             # REP repeats only what stands right before it

    def _control(self, char):
        method = _CONTROLS.get(char)
        if method:
            method(self)

    def _controls_inside(self, sequence):
        for char in _CONTROL.findall(sequence):
            self._control(char)

    def _control_sequence(self, marker, parameters, final):
        if len(marker) + len(parameters) + len(final) - 1 > SEQUENCE_MAX:
            return                      # nor is it remembered
        method, argument = _call_of(marker, parameters, final)
        if method:
            method(self, argument)

    def _mixed_control_sequence(self, sequence):
        self._controls_inside(sequence)
        match = _CSI_PARTS.fullmatch(sequence.translate(_NO_C0))
        if match:
            self._control_sequence(*match.groups())

    def _escape(self, name):
        if name in _ESCAPES:
            _ESCAPES[name](self)
        elif len(name) == 2 and name[0] in tables.CHARSET_SLOTS:
            self._designate(tables.CHARSET_SLOTS[name[0]], name[1])

    def _mixed_escape(self, sequence):
        self._controls_inside(sequence)
        name = sequence.translate(_NO_C0)[1:]
        if "0" <= name[-1:] <= "~":
            self._escape(name)

    def _system_command(self, body):
        if len(body) > STRING_MAX:
            return
        number, _, rest = body.translate(_NO_C0).partition(";")
        method = _OSC_METHODS.get(number)
        if method:
            method(self, rest)

    def _mixed_system_command(self, string):
        introducer = _INTRODUCER.match(string)
        self._controls_inside(introducer.group())
        body = string[introducer.end():]
        for terminator in ("\x07", "\x1b\\"):
            if body.endswith(terminator):
                self._system_command(body[:-len(terminator)])

    def _ignored_string(self, string):
        self._controls_inside(_INTRODUCER.match(string).group())

    def _hold(self, sequence):
        """What has no end yet: keep it, or skip the rest of it if it will do nothing (rule 3)."""
        introducer = _INTRODUCER.match(sequence)
        kind = introducer.lastgroup
        if kind in ("osc", "string"):
            self._controls_inside(introducer.group())
            body = len(sequence) - introducer.end() - sequence.endswith("\x1b", introducer.end())
            held = introducer.group().translate(_NO_C0) + sequence[introducer.end():]
        else:
            self._controls_inside(sequence)
            held = sequence.translate(_NO_C0)
            body = len(held) - (1 if kind == "escape" else 2)
        if body <= _HELD_MAX[kind]:
            self._held = held
        elif kind in ("osc", "string") and sequence.endswith("\x1b"):
            self._held = "\x1b"
        else:
            self._skipped = kind

    def _skip(self, text):
        """Skip the rest of a sequence; return where it ends."""
        match = _SKIP_ENDS[self._skipped].search(text)
        end = match.end() if match else len(text)
        if self._skipped in ("csi", "escape"):
            self._controls_inside(text[:end])
        if match:
            self._skipped = None
            self._last = ""
        return end

    # --- text ---

    def _print(self, text):
        if self._single is not None:
            first = text[0].translate(tables.CHARSETS.get(self._charsets[self._single], {}))
            self._single = None
            rest = text[1:]
            text = first + (rest.translate(self._translation) if self._translation else rest)
        elif self._translation:
            text = text.translate(self._translation)
        if text.isascii():
            self._last = text[-1]
            self._print_narrow(text)
            return
        for match in _RUN.finditer(text):
            run = match.group()
            if match.lastindex:
                self._last = run[-1]
            if match.lastindex == 1:
                self._print_narrow(run)
            elif match.lastindex == 2:
                self._print_wide(run)
            else:
                self._print_character(run)

    def _print_character(self, char):
        """Anything that may join what is before it."""
        width = char_width(char)
        line = self.lines[self._y]
        x = self._before_cursor(line)
        if x >= 0 and line.attrs[x] is UNKNOWN:
            self._has_guessed = True
        if width == 0:
            if x >= 0:
                self._combine(line, x, char)
        elif x >= 0 and _joins(char, line.chars[x]):
            self._combine(line, x, char)
            self._widen(line, x)
        else:
            self._last = char
            (self._print_narrow if width == 1 else self._print_wide)(char)

    def _before_cursor(self, line):
        """The column of the character that the cursor stands behind, -1 for none."""
        x = self._x if self.is_wrap_pending else self._x - 1
        return x - 1 if x > 0 and line.chars[x] == "" else x

    def _combine(self, line, x, char):
        cell = line.chars[x]
        if len(cell) < CELL_MAX:
            line.chars[x] = cell + char
        if char == _EMOJI_STYLE and _is_emoji(cell[0]):
            self._widen(line, x)

    def _widen(self, line, x):
        """Make the narrow character before the cursor a wide one, if there is room."""
        if self._x != x + 1 or self.is_wrap_pending or x + 1 > self._limit() or not line.chars[x + 1]:
            return
        if "insert" in self.modes:
            self._make_room(line, x + 1, 1)
        _split(line, x + 2, self._blank)
        line.chars[x + 1] = ""
        line.attrs[x + 1] = line.attrs[x]
        self._advance(x + 2, self._limit())

    def _limit(self):
        """The last column that text goes to."""
        return self._right if self._x <= self._right else self._cols - 1

    def _advance(self, x, limit):
        if x > limit:
            self._x = limit
            self.is_wrap_pending = "autowrap" not in self.modes
        else:
            self._x = x

    def _wrap(self):
        self.is_wrap_pending = False
        if self._right - self._left + 1 == self._cols:
            self.lines[self._y].is_wrapped = True
        self._index()
        self._x = self._left

    def _print_narrow(self, text):
        """Text of one column a character."""
        cols = self._cols
        attr = self._attr
        done, length = 0, len(text)
        x, line = self._x, self.lines[self._y]
        end, chars = x + length, line.chars
        # Most text ends before the last column, and stands on nothing wide.
        if end <= self._right and chars[x] and chars[end] and not self.is_wrap_pending and "insert" not in self.modes:
            chars[x:end] = text
            line.attrs[x:end] = [attr] * length
            self._x = end
            return
        while done < length:
            if self.is_wrap_pending:
                self._wrap()
            x = self._x
            limit = self._right if x <= self._right else cols - 1
            room = limit + 1 - x
            if length - done > room and "autowrap" in self.modes:
                text = text[:room - 1] + text[-1]       # all others were at the last column, too
                length = room
            piece = text[done:done + room]
            count = len(piece)
            end = x + count
            line = self.lines[self._y]
            if "insert" in self.modes:
                self._make_room(line, x, count)
            chars = line.chars
            if chars[x] == "":
                _split(line, x, self._blank)
            if end < cols and chars[end] == "":
                _split(line, end, self._blank)
            chars[x:end] = piece
            line.attrs[x:end] = [attr] * count
            done += count
            if end > limit:
                self._x = limit
                self.is_wrap_pending = "autowrap" not in self.modes
            else:
                self._x = end

    def _print_wide(self, text):
        """Text of two columns a character.  One that does not fit into the screen at all is dropped."""
        done, length = 0, len(text)
        while done < length:
            if self.is_wrap_pending:
                self._wrap()
            x = self._x
            limit = self._limit()
            room = (limit + 1 - x) // 2
            if room == 0:
                if "autowrap" in self.modes or self._right == self._left:
                    return
                self._wrap()
                continue
            piece = text[done:done + room]
            count = 2 * len(piece)
            line = self.lines[self._y]
            if "insert" in self.modes:
                self._make_room(line, x, count)
            _split(line, x, self._blank)
            _split(line, x + count, self._blank)
            cells = [""] * count
            cells[::2] = piece
            line.chars[x:x + count] = cells
            line.attrs[x:x + count] = [self._attr] * count
            done += len(piece)
            self._advance(x + count, limit)

    def _repeat(self, numbers):
        if self._last:
            char = self._last
            count, most, width = max(1, numbers[0]), self._cols * self._rows, self._right - self._left + 1
            if count > most:
                count = most + (count - most) % width       # the same to look at
            if char_width(char) == 1:
                self._print_narrow(char * count)
            elif char_width(char) == 2:
                self._print_wide(char * count)

    # --- character sets ---

    def _reset_charsets(self):
        self._charsets = ["B"] * 4
        self._single = None
        self._shift_to(0)

    def _shift_to(self, slot):
        self._shift = slot
        self._translation = tables.CHARSETS.get(self._charsets[slot])

    def _designate(self, slot, charset):
        self._charsets[slot] = charset
        self._shift_to(self._shift)

    def _shift_in(self):
        self._shift_to(0)

    def _shift_out(self):
        self._shift_to(1)

    def _lock_shift_2(self):
        self._shift_to(2)

    def _lock_shift_3(self):
        self._shift_to(3)

    def _single_shift_2(self):
        self._single = 2

    def _single_shift_3(self):
        self._single = 3

    # --- where the cursor is ---

    def _move(self, x, y):
        self._x, self._y = x, y
        self.is_wrap_pending = False

    def _place(self, x, y):
        """Go to a place counted from the screen's corner, or in origin mode from the margins'."""
        if "origin" in self.modes:
            self._move(max(self._left, min(x + self._left, self._right)),
                       max(self._top, min(y + self._top, self._bottom)))
        else:
            self._x = 0 if x < 0 else x if x < self._cols else self._cols - 1
            self._y = 0 if y < 0 else y if y < self._rows else self._rows - 1
            self.is_wrap_pending = False

    def _origin(self):
        return (self._left, self._top) if "origin" in self.modes else (0, 0)

    def _home(self):
        self._place(0, 0)

    def _cursor_position(self, numbers):
        column = numbers[1] if len(numbers) > 1 else 1
        self._place(max(1, column) - 1, max(1, numbers[0]) - 1)

    def _cursor_column(self, numbers):
        self._place(max(1, numbers[0]) - 1, self._y - self._origin()[1])

    def _cursor_row(self, numbers):
        self._place(self._x - self._origin()[0], max(1, numbers[0]) - 1)

    def _column_relative(self, numbers):
        left, top = self._origin()
        self._place(self._x - left + max(1, numbers[0]), self._y - top)

    def _row_relative(self, numbers):
        left, top = self._origin()
        self._place(self._x - left, self._y - top + max(1, numbers[0]))

    def _cursor_up(self, numbers):
        stop = self._top if self._y >= self._top else 0
        self._move(self._x, max(stop, self._y - max(1, numbers[0])))

    def _cursor_down(self, numbers):
        stop = self._bottom if self._y <= self._bottom else self._rows - 1
        self._move(self._x, min(stop, self._y + max(1, numbers[0])))

    def _cursor_forward(self, numbers):
        self._move(min(self._limit(), self._x + max(1, numbers[0])), self._y)

    def _cursor_back(self, numbers):
        left = self._left if self._x >= self._left else 0
        x, y, count = self._x, self._y, max(1, numbers[0])
        if "reverse_wrap" in self.modes and "autowrap" not in self.modes:
            count -= self.is_wrap_pending
            while count > x - left and y > self._top and self.lines[y - 1].is_wrapped:
                count -= x - left + 1
                x, y = self._right, y - 1
        self._move(max(left, x - count), y)

    def _cursor_next_line(self, numbers):
        self._cursor_down(numbers)
        self._carriage_return()

    def _cursor_previous_line(self, numbers):
        self._cursor_up(numbers)
        self._carriage_return()

    def _backspace(self):
        self._cursor_back((1,))

    def _carriage_return(self):
        self.is_wrap_pending = False
        self._x = self._left if self._x >= self._left or "origin" in self.modes else 0

    def _line_feed(self):
        self._index()
        if "newline" in self.modes:
            self._carriage_return()

    def _begin_line(self):
        """Carriage return and line feed, whatever newline mode says."""
        self._carriage_return()
        self._index()

    def _next_line(self):
        self._index()
        self._carriage_return()

    def _index(self):
        """Down by one, scrolling at the bottom margin."""
        self.is_wrap_pending = False
        if self._y == self._bottom:
            if self._left <= self._x <= self._right:
                self._scroll(self._top, 1)
        elif self._y < self._rows - 1:
            self._y += 1

    def _reverse_index(self):
        self.is_wrap_pending = False
        if self._y == self._top:
            if self._left <= self._x <= self._right:
                self._scroll_back(self._top, 1)
        elif self._y > 0:
            self._y -= 1

    def _save_cursor(self):
        self._saved[self.is_alternate] = SavedCursor(
            self._x, self._y, self._attr, tuple(self._charsets), self._shift,
            "origin" in self.modes, self.is_wrap_pending)

    def _restore_cursor(self, numbers=None):
        saved = self._saved[self.is_alternate] or SavedCursor(0, 0, PLAIN, ("B",) * 4, 0, False, False)
        self._set_attr(saved.attr)
        self._charsets = list(saved.charsets)
        self._shift_to(saved.shift)
        self._set_mode("origin", saved.is_origin)
        left, top = self._origin()
        self._place(saved.x - left, saved.y - top)
        self.is_wrap_pending = (saved.is_wrap_pending and self._x == self._limit()
                                and "autowrap" not in self.modes)

    # --- tab stops ---

    def _default_tab_stops(self, numbers=None):
        """A stop every eight columns; with numbers (DECST8C) if they are that request."""
        if numbers is None or numbers[0] == 5:
            self._tabs_made = max(self._tabs_made, self._cols)
            self._tabs = list(range(0, self._tabs_made, 8))

    def _set_tab_stop(self):
        at = bisect.bisect_left(self._tabs, self._x)
        if self._tabs[at:at + 1] != [self._x]:
            self._tabs.insert(at, self._x)

    def _clear_tab_stop(self, numbers):
        if numbers[0] == 3:
            self._tabs = []
        elif numbers[0] == 0 and self._x in self._tabs:
            self._tabs.remove(self._x)

    def _tab(self):
        self._tab_forward((1,))

    def _tab_forward(self, numbers):
        """To a tab stop, or the last column.  A pending wrap stays pending, as in xterm."""
        at = bisect.bisect_right(self._tabs, self._x) + max(1, numbers[0]) - 1
        limit = self._limit()
        self._x = min(self._tabs[at], limit) if at < len(self._tabs) else limit

    def _tab_back(self, numbers):
        at = bisect.bisect_left(self._tabs, self._x) - max(1, numbers[0])
        stop = self._left if "origin" in self.modes else 0
        self._move(max(self._tabs[at], stop) if at >= 0 else stop, self._y)

    # --- margins and scrolling ---

    def _reset_margins(self):
        self._top, self._bottom = 0, self._rows - 1
        self._reset_columns_margins()

    def _reset_columns_margins(self):
        self._left, self._right = 0, self._cols - 1

    def _columns_margins_switched(self):
        if "left_right_margins" not in self.modes:
            self._reset_columns_margins()

    def _set_top_bottom_margins(self, numbers):
        top = max(1, numbers[0])
        bottom = numbers[1] if len(numbers) > 1 else 0
        if bottom == 0 or bottom > self._rows:
            bottom = self._rows
        if top < bottom:
            self._top, self._bottom = top - 1, bottom - 1
            self._home()

    def _set_left_right_margins(self, numbers):
        """DECSLRM where such margins are switched on; else it is the saving of the cursor."""
        if "left_right_margins" not in self.modes:
            self._save_cursor()
            return
        left = max(1, numbers[0])
        right = numbers[1] if len(numbers) > 1 else 0
        if right == 0 or right > self._cols:
            right = self._cols
        if left < right:
            self._left, self._right = left - 1, right - 1
            self._home()

    def _blank_line(self):
        return Line([" "] * self._cols, [self._blank] * self._cols)

    def _blank_lines(self, count):
        return [self._blank_line() for _ in range(count)]

    def _scroll(self, top, count):
        """Move the lines from `top` to the bottom margin up; those that leave the screen become history."""
        if self._right - self._left + 1 != self._cols:
            self._move_columns(range(top, self._bottom + 1), min(count, self._bottom - top + 1))
            return
        lines = self.lines
        if count == 1:
            line = lines.pop(top)
            lines.insert(self._bottom, Line([" "] * self._cols, [self._blank] * self._cols))
            if top == 0 and not self.is_alternate:
                self.history.append(line)
                self.lines_scrolled += 1
            return
        count = min(count, self._bottom - top + 1)
        if top == 0 and not self.is_alternate:
            self.history.extend(lines[:count])
            self.lines_scrolled += count
        del lines[top:top + count]
        at = self._bottom + 1 - count
        lines[at:at] = self._blank_lines(count)

    def _scroll_back(self, top, count):
        """Move the lines from `top` to the bottom margin down."""
        count = min(count, self._bottom - top + 1)
        if self._right - self._left + 1 != self._cols:
            self._move_columns(range(self._bottom, top - 1, -1), count)
            return
        del self.lines[self._bottom + 1 - count:self._bottom + 1]
        self.lines[top:top] = self._blank_lines(count)

    def _move_columns(self, rows, count):
        """Scroll between the left and right margin: each row gets what is `count` further on in `rows`."""
        left, end = self._left, self._right + 1
        for y in rows:
            _split(self.lines[y], left, self._blank)
            _split(self.lines[y], end, self._blank)
        for at, y in enumerate(rows):
            if at + count < len(rows):
                source, target = self.lines[rows[at + count]], self.lines[y]
                target.chars[left:end] = source.chars[left:end]
                target.attrs[left:end] = source.attrs[left:end]
            else:
                self._erase(y, left, end)

    def _scroll_up(self, numbers):
        self._scroll(self._top, max(1, numbers[0]))

    def _scroll_down(self, numbers):
        self._scroll_back(self._top, max(1, numbers[0]))

    def _scroll_down_or_track(self, numbers):
        if len(numbers) == 1:           # with five it is mouse tracking by highlighting
            self._scroll_down(numbers)

    # --- insert and delete ---

    def _is_inside(self):
        return self._top <= self._y <= self._bottom and self._left <= self._x <= self._right

    def _insert_lines(self, numbers):
        if self._is_inside():
            self._scroll_back(self._y, max(1, numbers[0]))
            self._move(self._left, self._y)

    def _delete_lines(self, numbers):
        if self._is_inside():
            self._scroll(self._y, max(1, numbers[0]))
            self._move(self._left, self._y)

    def _insert_blanks(self, line, x, count):
        """Push what stands from column `x` to the right margin to the right."""
        end = self._right + 1
        count = min(count, end - x)
        _split(line, x, self._blank)
        _split(line, end - count, self._blank)
        _split(line, end, self._blank)
        line.chars[x:end] = [" "] * count + line.chars[x:end - count]
        line.attrs[x:end] = [self._blank] * count + line.attrs[x:end - count]

    def _make_room(self, line, x, count):
        """What insert mode does: nothing outside the margins."""
        if self._left <= x <= self._right:
            self._insert_blanks(line, x, count)

    def _delete_cells(self, line, x, count):
        """Pull what stands up to the right margin to column `x`."""
        end = self._right + 1
        count = min(count, end - x)
        _split(line, x, self._blank)
        _split(line, x + count, self._blank)
        _split(line, end, self._blank)
        line.chars[x:end] = line.chars[x + count:end] + [" "] * count
        line.attrs[x:end] = line.attrs[x + count:end] + [self._blank] * count

    def _insert_characters(self, numbers):
        self.is_wrap_pending = False
        if self._left <= self._x <= self._right:
            self._insert_blanks(self.lines[self._y], self._x, max(1, numbers[0]))

    def _delete_characters(self, numbers):
        self.is_wrap_pending = False
        if self._left <= self._x <= self._right:
            self._delete_cells(self.lines[self._y], self._x, max(1, numbers[0]))

    def _between_margins(self, change, x, numbers):
        if self._is_inside():
            for line in self.lines[self._top:self._bottom + 1]:
                change(line, x, max(1, numbers[0]))

    def _insert_columns(self, numbers):
        self._between_margins(self._insert_blanks, self._x, numbers)

    def _delete_columns(self, numbers):
        self._between_margins(self._delete_cells, self._x, numbers)

    def _shift_left(self, numbers):
        self._between_margins(self._delete_cells, self._left, numbers)

    def _shift_right(self, numbers):
        self._between_margins(self._insert_blanks, self._left, numbers)

    # --- erase ---

    def _erase(self, y, start, end):
        line = self.lines[y]
        _split(line, start, self._blank)
        _split(line, end, self._blank)
        line.chars[start:end] = [" "] * (end - start)
        line.attrs[start:end] = [self._blank] * (end - start)
        if end == self._cols:
            line.is_wrapped = False

    def _erase_rows(self, start, end):
        self.lines[start:end] = self._blank_lines(end - start)

    def _erase_right(self, count):
        self.is_wrap_pending = False
        self._erase(self._y, self._x, min(self._cols, self._x + count))

    def _erase_characters(self, numbers):
        self._erase_right(max(1, numbers[0]))

    def _erase_line(self, numbers):
        if numbers[0] == 0:
            self._erase_right(self._cols)
        elif numbers[0] == 1:
            self._erase(self._y, 0, self._x + 1)
        elif numbers[0] == 2:
            self._erase(self._y, 0, self._cols)

    def _erase_display(self, numbers):
        if numbers[0] == 0:
            self._erase_right(self._cols)
            self._erase_rows(self._y + 1, self._rows)
        elif numbers[0] == 1:
            self._erase_rows(0, self._y)
            self._erase(self._y, 0, self._x + 1)
        elif numbers[0] == 2:
            self._erase_everything()
        elif numbers[0] == 3:
            self.history.clear()

    def _erase_everything(self):
        self.is_wrap_pending = False
        self._erase_rows(0, self._rows)

    def _alignment_test(self):
        self._reset_margins()
        self._set_mode("origin", False)
        for line in self.lines:
            line.chars[:] = "E" * self._cols
            line.attrs[:] = [PLAIN] * self._cols
            line.is_wrapped = False
        self._home()

    # --- attributes ---

    def _select_rendition(self, parameters):
        style = self._next_styles.get(parameters)
        if style is None:
            if len(parameters) > SEQUENCE_MAX:
                return
            known = self._next_styles
            self._set_attr(_restyle(self._attr, parameters))
            known[parameters] = self._attr, self._blank, self._next_styles
            self._styles_count += 1
        else:
            self._attr, self._blank, self._next_styles = style

    def _one_object(self, attr):
        """Equal attributes as one object, as long as there are not too many."""
        if len(self._known) > STYLES_MAX or self._styles_count > STYLES_MAX:
            self._known = {PLAIN: PLAIN}
            self._styles, self._styles_count = {}, 0
        return self._known.setdefault(attr, attr)

    def _set_attr(self, attr):
        self._attr = self._one_object(attr)                     # of text ...
        self._blank = PLAIN if attr.bg is None else self._one_object(PLAIN._replace(bg=attr.bg))     # ... and erased
        self._next_styles = self._styles.setdefault(self._attr, {})

    def _set_link(self, body):
        uri = body.partition(";")[2]
        self._set_attr(self._attr._replace(link=uri if 0 < len(uri) <= LINK_MAX else None))

    # --- modes ---

    def _set_mode(self, name, value):
        if value == tables.MODE_DEFAULTS.get(name, False):
            self.modes.pop(name, None)
        else:
            self.modes[name] = value

    def _change_modes(self, vocabulary, numbers, is_set):
        for number in numbers:
            if number in tables.MODE_ACTS and vocabulary is tables.PRIVATE_MODES:
                getattr(self, "_" + tables.MODE_ACTS[number][not is_set])()
            elif number in vocabulary:
                self._change_mode(*vocabulary[number], is_set)

    def _change_mode(self, name, value, is_set):
        if is_set:
            self._set_mode(name, value)
        elif name != "mouse_encoding" or self.modes.get(name) == value:
            self._set_mode(name, None if name in ("mouse", "mouse_encoding") else False)
        if name in tables.MODE_EFFECTS:
            getattr(self, "_" + tables.MODE_EFFECTS[name])()
        if name == "autowrap" and not is_set:
            self.is_wrap_pending = False

    def _set_private_modes(self, numbers):
        self._change_modes(tables.PRIVATE_MODES, numbers, True)

    def _reset_private_modes(self, numbers):
        self._change_modes(tables.PRIVATE_MODES, numbers, False)

    def _set_ansi_modes(self, numbers):
        self._change_modes(tables.ANSI_MODES, numbers, True)

    def _reset_ansi_modes(self, numbers):
        self._change_modes(tables.ANSI_MODES, numbers, False)

    def _keypad_application(self):
        self._set_mode("application_keypad", True)

    def _keypad_numeric(self):
        self._set_mode("application_keypad", False)

    def _modify_keys(self, numbers):
        if numbers[0] == 4:
            self._set_mode("modify_other_keys", numbers[1] if len(numbers) > 1 else 0)
        elif numbers[0] == 0:
            self._set_mode("modify_other_keys", 0)

    def _keyboard_changed(self):
        self._set_mode("keyboard_flags", self._keyboard[self.is_alternate][-1])

    def _keyboard_set(self, numbers):
        stack = self._keyboard[self.is_alternate]
        flags = numbers[0]
        how = max(1, numbers[1]) if len(numbers) > 1 else 1
        stack[-1] = {1: flags, 2: stack[-1] | flags, 3: stack[-1] & ~flags}.get(how, stack[-1])
        self._keyboard_changed()

    def _keyboard_push(self, numbers):
        stack = self._keyboard[self.is_alternate]
        stack.append(numbers[0])
        del stack[:-KEYBOARD_MAX - 1]
        self._keyboard_changed()

    def _keyboard_pop(self, numbers):
        stack = self._keyboard[self.is_alternate]
        del stack[-min(max(1, numbers[0]), len(stack)):]
        if not stack:
            stack.append(0)
        self._keyboard_changed()

    def _cursor_style(self, numbers):
        if numbers[0] in tables.CURSOR_STYLES:
            self._shape, self._is_blinking = tables.CURSOR_STYLES[numbers[0]]

    # --- the two screens ---

    def _show(self, is_alternate):
        if self.is_alternate == is_alternate:
            return
        if not self._hidden:
            self._hidden = [Line([" "] * self._cols, [PLAIN] * self._cols) for _ in range(self._rows)]
        self.lines, self._hidden = self._hidden, self.lines
        self.is_alternate = is_alternate
        self._set_mode("alternate_screen", is_alternate)
        self._keyboard_changed()

    def _enter_alternate(self):
        self._show(True)

    def _leave_alternate(self):
        self._show(False)

    def _leave_alternate_clearing(self):
        if self.is_alternate:
            self._erase_everything()
            self._show(False)

    def _enter_alternate_saving(self):
        self._save_cursor()
        self._show(True)
        self._erase_everything()

    def _leave_alternate_restoring(self):
        self._show(False)
        self._restore_cursor()

    # --- resets ---

    def _reset(self):
        self.history.clear()
        self._start()

    def _soft_reset(self, numbers):
        for name in tables.SOFT_RESET_MODES:
            self.modes.pop(name, None)
        self._reset_margins()
        self._reset_charsets()
        self._set_attr(PLAIN)
        self._shape, self._is_blinking = tables.CURSOR_STYLES[0]
        self._saved[self.is_alternate] = None
        self._reset_palette("")

    # --- titles, colours, marks ---

    def _both_titles(self, text):
        self.title = self.icon_title = text

    def _set_title(self, text):
        self.title = text

    def _set_icon_title(self, text):
        self.icon_title = text

    def _window_operation(self, numbers):
        """Push and pop of titles; sizes and reports are not ours."""
        which = numbers[1] if len(numbers) > 1 else 0
        if numbers[0] == 22:
            self._titles = self._titles[1 - TITLES_MAX:] + [(self.icon_title, self.title)]
        elif numbers[0] == 23 and self._titles:
            icon_title, title = self._titles.pop()
            self.icon_title = icon_title if which in (0, 1) else self.icon_title
            self.title = title if which in (0, 2) else self.title

    def _set_palette(self, text):
        parts = text.split(";")
        for index, colour in zip(parts[::2], parts[1::2]):
            self._set_palette_entry(_number(index) if index.isdigit() and index.isascii() else 256, colour)

    def _set_palette_entry(self, index, colour):
        colour = _parse_colour(colour)
        if colour and index in range(256):
            self.palette[index] = colour

    def _reset_palette(self, text):
        for index in list(self.palette):
            if isinstance(index, int) and (not text or str(index) in text.split(";")):
                del self.palette[index]

    def _set_dynamic_colours(self, first, text):
        for name, colour in zip(tables.DYNAMIC_COLOURS[first:], text.split(";")):
            colour = _parse_colour(colour)
            if colour:
                self.palette[name] = colour

    def _set_foreground(self, text):
        self._set_dynamic_colours(0, text)

    def _set_background(self, text):
        self._set_dynamic_colours(1, text)

    def _set_cursor_colour(self, text):
        self._set_dynamic_colours(2, text)

    def _reset_foreground(self, text):
        self.palette.pop("foreground", None)

    def _reset_background(self, text):
        self.palette.pop("background", None)

    def _reset_cursor_colour(self, text):
        self.palette.pop("cursor", None)

    def _set_cwd(self, text):
        self.cwd = _path_of(text)

    def _mark(self, text):
        """A shell says where its prompt, its input and a command's output begin, and how it ended."""
        kind, _, detail = text.partition(";")
        if kind and not self.is_alternate:
            self.marks.append(Mark(kind, self.lines_scrolled + self._y, detail))
            del self.marks[:-MARKS_MAX]

    # --- another size ---

    def resize(self, size):
        """Be `(cols, rows)` in size: lines are cut or filled up at the right, never wrapped anew.

        Fewer rows: those below the cursor go first, then those at the top, to the history; more
        rows: the history's last ones come back, then blank ones at the bottom (xterm, ScreenResize).
        """
        cols, rows = max(1, size[0]), max(1, size[1])
        if (cols, rows) == self.size:
            return
        self._blank, blank = PLAIN, self._blank
        self._cols, old_rows, self._rows = cols, self._rows, rows
        moved = self._fit_rows(self.lines, self._y, not self.is_alternate)
        self._saved[self.is_alternate] = self._saved_moved(self.is_alternate, moved)
        self._y = max(0, min(self._y + moved, rows - 1))
        self._x = min(self._x, cols - 1)
        if self._hidden:
            saved = self._saved[not self.is_alternate]
            y = saved.y if saved else old_rows - 1
            moved = self._fit_rows(self._hidden, min(y, old_rows - 1), self.is_alternate)
            self._saved[not self.is_alternate] = self._saved_moved(not self.is_alternate, moved)
        self._blank = blank
        self.is_wrap_pending = False
        self._reset_margins()
        if cols > self._tabs_made:
            self._tabs += [x for x in range(0, cols, 8) if x >= self._tabs_made]
            self._tabs_made = cols

    def _saved_moved(self, which, rows):
        saved = self._saved[which]
        return saved and saved._replace(y=max(0, min(saved.y + rows, self._rows - 1)),
                                        x=min(saved.x, self._cols - 1), is_wrap_pending=False)

    def _fit_rows(self, lines, y, is_main):
        """Make these lines as many and as wide as the screen is; return how far line `y` has moved down."""
        surplus = len(lines) - self._rows
        moved = 0
        if surplus > 0:
            below = min(surplus, len(lines) - 1 - y)
            del lines[len(lines) - below:]
            moved = below - surplus
            if is_main:
                self.history.extend(lines[:-moved])
                self.lines_scrolled -= moved
            del lines[:-moved]
        elif is_main:
            moved = min(-surplus, len(self.history))
            lines[:0] = [self.history.pop() for _ in range(moved)][::-1]
            self.lines_scrolled -= moved
        for line in lines:
            _fit(line, self._cols)
        lines += self._blank_lines(self._rows - len(lines))
        return moved


def _methods(names):
    return {key: getattr(Screen, "_" + name) for key, name in names.items()}


_CONTROLS = _methods(tables.CONTROLS)
_ESCAPES = _methods(tables.ESCAPES)
_CSI_METHODS = _methods(tables.CSI)
_OSC_METHODS = _methods(tables.OSC)
_RAW_METHODS = {Screen._select_rendition}           # these want parameters as text
_RARE = {12: Screen._mixed_control_sequence, 13: Screen._mixed_system_command,
         14: Screen._ignored_string, 15: Screen._mixed_escape}


@functools.lru_cache(maxsize=1024)
def _call_of(marker, parameters, final):
    """(method, argument) of a sequence; (None, None) when it does nothing."""
    method = _CSI_METHODS.get(marker + final)
    if not method or len(marker) + len(parameters) + len(final) - 1 > SEQUENCE_MAX:
        return None, None
    return method, parameters if method in _RAW_METHODS else _numbers(parameters)

# How much of an unfinished sequence is kept.  Of strings without effect nothing but
# what says that they are such.
_HELD_MAX = {"csi": SEQUENCE_MAX, "escape": SEQUENCE_MAX, "osc": STRING_MAX, "string": 0}
