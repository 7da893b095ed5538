"""What a terminal and a program say to each other besides text.

A program's output is text mixed with requests: "switch the mouse on", "who are
you?", "use the other screen".  ptyguard stands between program and terminal and
has to understand three things about them, no more (cells are screen.py's job, answers those
of queries.py):

1. where history that was cut anywhere may be replayed from   `safe_start`
2. what in it would make a real terminal answer               `without_queries`
3. which modes the program has left switched on               `Modes`

The grammar is ECMA-48 as xterm speaks it (ctlseqs.ms, "Control Sequences"), read
with the parser of vt100.net/emu/dec_ansi_parser.  All lean on three rules:

Rule 1: ESC always begins a new sequence, whatever it interrupts.  So sequences
        are found by searching for ESC; strings need not be followed to know
        where they end.
Rule 2: control bytes inside a sequence are carried out at once and do not end
        it, but CAN and SUB abort it.
Rule 3: everything is bytes and may be garbage: nothing here decodes, raises on
        data, takes more than linear time, or remembers more than a few bytes.

Data is bytes-like; a memoryview into a ring is searched where it lies.

Not handled: 8-bit C1 controls (in a UTF-8 terminal 0x9B is not CSI), VT52 mode,
XTSAVE and XTRESTORE (`CSI ? Pm s`, `r`), control bytes right between ESC and the
introducer of a string, and answers to kitty graphics commands other than a query
(removing those would remove the picture).
"""


class Pattern:
    """A regular expression that is compiled when it is first used.

    Compiling those below takes longer than all else that a daemon does before it reads a
    terminal again, and most daemons never need most of them.
    """

    def __init__(self, source):
        self._source = source

    def __getattr__(self, name):
        import re                   # with `enum` and others 5 ms: for a daemon that starts, too, too early
        # What is asked for stays here: from then on it is found without us.
        value = self.__dict__[name] = getattr(re.compile(self._source), name)   # re remembers it
        return value


_CAN = b"\x18"

# Control bytes that rule 2 lets pass inside a sequence: C0 without CAN, SUB and
# ESC; DEL is ignored there by every terminal.
_C0 = rb"\x00-\x17\x19\x1c-\x1f\x7f"

# What ends the body of OSC, DCS, SOS, PM and APC, as the inside of a class.
_END = rb"\x07\x18\x1a\x1b"

# And what ends it properly.
_STRING_ENDED = rb"(?:\x07|\x1b\\)"

# A sequence that has begun and not ended when the data does.  The last `\x1b?` is
# half of the string terminator ESC \.
_INCOMPLETE = Pattern(
    rb"\x1b(?:[P\]X^_][^" + _END + rb"]*\x1b?"
    rb"|[" + _C0 + rb"]*\[[" + _C0 + rb" -?]*"
    rb"|[" + _C0 + rb" -/]*)\Z")

# After CSI: most sequences are colours, and this passes over them in one look.
_NO_SGR = rb"(?![0-9:;]*m)"


def incomplete_tail(data, limit):
    """The incomplete sequence that `data` ends in, as bytes; empty when longer than `limit`."""
    match = _INCOMPLETE.search(data, max(0, len(data) - limit))
    return bytes(match.group()) if match else b""


def unfinished_at(data, end=None):
    """Where the sequence begins, of any length, that has not ended when `data` does (or at
    `end`); or None."""
    end = len(data) if end is None else end
    last = data.rfind(b"\x1b", 0, end)
    if last < 0 or not _INCOMPLETE.match(data, last, end):
        return None
    if last == end - 1:                 # half of the terminator of a string?
        before = data.rfind(b"\x1b", 0, last)
        if before >= 0 and data[before + 1:before + 2] in (b"P", b"]", b"X", b"^", b"_") \
                and _INCOMPLETE.match(data, before, end):
            return before
    return last


def unfinished_character(data):
    """How many bytes at the end of `data` are the beginning of a UTF-8 character."""
    for back in range(1, min(4, len(data) + 1)):
        byte = data[-back]
        if byte >= 0xC0:
            return back if back < (2 if byte < 0xE0 else 3 if byte < 0xF0 else 4) else 0
        if byte < 0x80:
            break
    return 0


# --- 1: where replay may start ---------------------------------------------------

# How far a newline is looked for: a screenful of long lines.  Full-screen programs
# write none for megabytes, and then a start at the cut is as good as any other.
NEWLINE_WINDOW = 8192

# What the front of cut data may be the rest of, as far as one can tell:
_CUT_REST = Pattern(
    rb"[^" + _END + rb"]*\x1b\\"            # a string: the first ESC is its terminator
    rb"|[^\x00-\x1f]*\x07"                  # an OSC that BEL ends, or a line with a bell
    rb"|\[?[0-9:;<=>?]+[A-Za-z@`~]"         # CSI: "31m", "[?25h"
    rb"|[\x80-\xbf]+")                      # a UTF-8 character

# A newline, or anything that a newline could be inside of.
_NEWLINE_OR_SEQUENCE = Pattern(
    rb"(\n)"
    rb"|\x1b[P\]X^_][^" + _END + rb"]*(?:\x1b\\|[\x07\x18\x1a])?"
    rb"|\x1b[" + _C0 + rb"]*\[[" + _C0 + rb" -?]*[@-~]?"
    rb"|\x1b[" + _C0 + rb" -/]*[0-~]?")


def safe_start(data):
    """Return the index in `data`, whose front was cut anywhere, where replay may start.

    That is after the first newline of the first 8 KiB which is not inside a
    sequence; without one, after whatever rest of a sequence or character the data
    begins with.  `len(data)` when nothing can be replayed.
    """
    rest = _CUT_REST.match(data)
    ground = rest.end() if rest else 0
    for match in _NEWLINE_OR_SEQUENCE.finditer(data, ground, ground + NEWLINE_WINDOW):
        if match.lastindex:
            return match.end()
    return ground


# --- 2: replay without questions ---------------------------------------------------

_ANY = rb"[0-9:;]*"
_ZERO = rb"0*(?:[:;][0-9:;]*)?"             # xterm looks at the first parameter only

# Queries that are control sequences: private marker, parameters, and the last bytes.
CSI_QUERIES = (
    ("DA1", rb"", _ZERO, rb"c"),            # CSI ? Ps c is Linux's cursor shape: not one
    ("DA2", rb">", _ZERO, rb"c"),
    ("DA3", rb"=", _ZERO, rb"c"),
    ("DSR, CPR", rb"", _ANY, rb"n"),        # CSI > Ps n switches keys off: not one
    ("DECDSR, DECXCPR", rb"\?", _ANY, rb"n"),
    ("DECRQM of an ANSI mode", rb"", _ANY, rb"\$p"),
    ("DECRQM", rb"\?", _ANY, rb"\$p"),
    ("XTVERSION", rb">", _ZERO, rb"q"),
    ("kitty keyboard, DECRQPKU", rb"\?", _ANY, rb"u"),
    ("XTQMODKEYS", rb"\?", _ANY, rb"m"),
    ("XTQFMTKEYS", rb"\?", _ANY, rb"g"),
    ("XTSMGRAPHICS", rb"\?", _ANY, rb"S"),
    ("XTWINOPS report", rb"", rb"0*(?:1[1345689]|2[01])(?:[:;][0-9:;]*)?", rb"t"),
    ("DECREQTPARM", rb"", rb"0*1?", rb"x"),
    ("DECRQCRA", rb"", _ANY, rb"\*y"),
    ("DECRQPSR", rb"", _ANY, rb"\$w"),
    ("DECRQTSR", rb"", _ANY, rb"\$u"),
    ("DECRQUPSS", rb"", _ANY, rb"&u"),
    ("DECRQDE", rb"", _ANY, rb'"v'),
    ("DECRQLP", rb"", _ANY, rb"'\|"),
    ("XTREPORTCOLORS", rb"", _ANY, rb"#R"),
    ("XTREPORTSGR", rb"", _ANY, rb"#\|"),
)

_BODY = rb"[^" + _END + rb"]*"
_FIELDS = rb"[^;" + _END + rb"]*"           # of the body, up to the next semicolon


def _body(beginning):
    # Looking ahead is not gone back into: else a body with many such beginnings and no end
    # would be read once for each of them.
    return rb"(?=" + beginning + rb")" + _BODY


# Queries that are strings: introducer and body, the terminator comes by itself.
STRING_QUERIES = (
    ("colours (OSC 4, 5, 10-19), clipboard (OSC 52)",
     rb"\]0*(?:[45]|1[0-9]|52);" + _body(_BODY + rb"\?")),
    ("kitty colours", rb"\]0*21;" + _body(_BODY + rb"=\?")),
    ("pointer shape, font", rb"\]0*(?:22|50);\?" + _BODY),
    ("XTQALLOWED, XTQDISALLOWED", rb"\]0*6[01](?:;" + _BODY + rb")?"),
    ("kitty notifications", rb"\]0*99;" + _body(rb"(?:" + _FIELDS + rb":)?p=\?")),
    ("kitty clipboard", rb"\]0*5522;" + _body(rb"(?:" + _FIELDS + rb":)?type=read")),
    ("iTerm2 reports", rb"\]0*1337;(?:Report|RequestUpload|Capabilities)" + _BODY),
    ("DECRQSS, XTGETTCAP", rb"P[0-9;]*[$+]q" + _BODY),
    ("kitty graphics query", rb"_G" + _body(rb"(?:" + _FIELDS + rb",)?a=q")),
)

# Parsers made after vt100.net carry a string out at *any* ESC, CAN or SUB (alacritty
# does), so those end a query as well; they belong to what follows and stay.
_STRING_END = rb"(?:\x07|\x1b\\|(?=[\x18\x1a])|(?=\x1b[^\\]))"


def _csi_pattern(rows):
    """One pattern for all rows; those with equal fronts share it, so each is read once."""
    finals = {}
    for _, marker, parameters, final in rows:
        finals.setdefault(marker + parameters, []).append(final)
    return rb"\[" + _NO_SGR + rb"(?:" + rb"|".join(
        front + rb"(?:" + rb"|".join(ends) + rb")" for front, ends in finals.items()) + rb")"


_PLAIN_QUERY = (_csi_pattern(CSI_QUERIES) + rb"|Z"               # ESC Z is DECID
                + rb"|(?:" + rb"|".join(row[1] for row in STRING_QUERIES) + rb")" + _STRING_END)

# A sequence with control bytes inside it (rule 2): a query or not, to be seen without them.
_MIXED = (rb"[" + _C0 + rb"]+(?:Z|\[[" + _C0 + rb" -?]*[@-~])"
          rb"|\[(?![ -?]*[@-~])[" + _C0 + rb" -?]*[@-~]")

# Both begin with the literal ESC alone, for which `re` has a search as fast as memchr.
_QUERY = Pattern(rb"\x1b(?:" + _PLAIN_QUERY + rb")")
_QUERY_OR_MIXED = Pattern(rb"\x1b(?:" + _PLAIN_QUERY + rb"|(?P<mixed>" + _MIXED + rb"))")
# The same as _QUERY, found faster: a look ahead passes over colours, moves and modes.
_QUERY_FAST = Pattern(
    rb"\x1b(?!\[(?:[0-9;:]*[@-bd-mo-su-wyz{-~]|[<-?][0-9;:]*[@-RT-bd-fh-lo-pr-tv-~]))(?:"
    + _PLAIN_QUERY + rb")")
_C0_BYTES = bytes([*range(0x18), 0x19, *range(0x1c, 0x20), 0x7f])     # what the class _C0 has
_OTHER_BYTES = bytes(sorted({*range(256)} - {*_C0_BYTES}))


def without_queries(data):
    """Return `data` as bytes, less every sequence that makes a real terminal answer.

    Everything else stays byte for byte, an incomplete sequence at the end too.
    One thing is added: where a query had cut off an unfinished sequence, CAN takes
    its place, which cuts off likewise (ECMA-48 8.3.6).  Else the unfinished one
    would swallow the text that follows, or be completed to a new query by it.
    """
    # ENQ asks for the answerback.  It is carried out inside sequences too and never
    # means anything else, in UTF-8 or in any of the old multi-byte encodings.
    data = bytes(data).replace(b"\x05", b"")
    kept = []
    copied = 0
    for match in _QUERY_OR_MIXED.finditer(data):
        controls = b""
        if match.lastgroup:
            if not _QUERY.match(match.group().translate(None, _C0_BYTES)):
                continue
            controls = match.group().translate(None, _OTHER_BYTES)
        before = data[copied:match.start()]
        kept.append(before)
        if unfinished_at(before) is not None:
            kept.append(_CAN)
        kept.append(controls)
        copied = match.end()
    if not kept:
        return data
    kept.append(data[copied:])
    return b"".join(kept)


def has_query(data):
    """Whether a real terminal would answer something in `data`."""
    return b"\x05" in data or _QUERY_FAST.search(data) is not None


class QueryFilter:
    """`without_queries` for output that comes in pieces: a query may be cut anywhere."""

    HELD_MAX = 256 * 1024       # of an unfinished sequence: pictures are that long

    def __init__(self):
        self._held = b""                # an incomplete sequence

    def feed(self, data):
        """What of this piece, and of what was held, is known to be none."""
        data = self._held + bytes(data)
        self._held = incomplete_tail(data, len(data))
        if len(self._held) > self.HELD_MAX:         # nobody is to complete what is shown of it
            self._held, data = b"", data + _CAN
        return without_queries(data[:len(data) - len(self._held)])

    @property
    def is_holding(self):
        """Whether the last piece ended within a sequence."""
        return bool(self._held)

    def flush(self):
        """What is held, as it is."""
        held, self._held = self._held, b""
        return held


# --- 3: the modes a program has left on ---------------------------------------------

# DEC private modes worth undoing: what a fresh terminal has, in the order of undoing.
# Synchronised output first, or nothing of the rest would be seen; then what makes the
# terminal type by itself; then keys; then drawing; the cursor last.
PRIVATE_MODES = {
    2026: False,    # synchronised output
    9: False, 1000: False, 1001: False, 1002: False, 1003: False,      # mouse tracking
    1005: False, 1006: False, 1015: False, 1016: False,                # mouse encodings
    1007: False,    # the wheel sends arrows on the alternate screen
    1004: False,    # focus reports
    2004: False,    # bracketed paste
    2031: False,    # reports of dark and light
    2048: False,    # reports of size
    9001: False,    # win32 input
    1: False,       # application cursor keys
    66: False,      # application keypad
    5: False,       # reverse video
    69: False,      # left and right margins
    6: False,       # origin: switching it sends the cursor home (DEC STD 070)
    7: True,        # wrap at the margin
    45: False,      # and backwards
    12: False,      # cursor blinks
    25: True,       # cursor is visible
}

# ANSI modes: insert, and newline as CR LF.
ANSI_MODES = {4: False, 20: False}

# Ways to the alternate screen.  1048 is none, but saves and restores the cursor for
# the two that do not (xterm, "alternate screen").
_ALTERNATE = (47, 1047, 1049)
_SAVE_CURSOR = 1048

# What DECSTR resets in every terminal (VT510 manual).  Some reset the mouse and more
# by it, xterm does not: to undo those once too often harms nobody, once too seldom does.
_SOFT_RESET = (1, 6, 7, 25, 66, 69)

# kitty keeps as many; the oldest falls out (sw.kovidgoyal.net/kitty/keyboard-protocol).
_KITTY_DEPTH = 8

# Which of G0-G3 an intermediate byte designates, and how each becomes ASCII again.
_G_SETS = {b"(": 0, b")": 1, b"-": 1, b"*": 2, b".": 2, b"+": 3, b"/": 3}
_ASCII_SETS = (b"\x1b(B", b"\x1b)B", b"\x1b*B", b"\x1b+B")
_SHIFT_IN = b"\x0f"

# Longest parameters looked at; 30 is the most that xterm takes, three bytes each.
_PARAMETERS = rb"[0-9;]{0,96}"
_MODES_HELD = 128
_TABS_TO = 512                  # columns in which a terminal has stops of its own
_COLOURS_MAX = 512              # that a program has set: of the palette, and a few of its own

# Names stand at the end: an alternative that begins with a character is passed over fast.
_MODE = Pattern(
    rb"\x1b(?:\[(?:"
    rb"\?" + _PARAMETERS + rb"(?P<private>[hl])"
    rb"|[<=>]" + _PARAMETERS + rb"(?P<kitty>u)"
    rb"|>" + _PARAMETERS + rb"(?P<other_keys>m)"
    rb"|!(?P<soft_reset>p)"
    rb"|" + _NO_SGR + _PARAMETERS + rb"(?:(?P<ansi>[hl])|(?P<margins>r)|(?P<cursor_style> q)))"
    rb"|[()*+\-./](?P<charset>[ -/]?[0-~])"
    rb"|[=>](?P<keypad>)"
    rb"|[no](?P<shift>)"
    rb"|c(?P<reset>)"
    rb"|H(?P<tab_set>)"
    rb"|\[[0-9;]{0,96}(?P<tab_clear>g)"
    rb"|\]0*8;[^;" + _END + rb"]*;(?P<link>[^" + _END + rb"]*)" + _STRING_ENDED +
    rb"|\]0*(?P<colour>4|1[0-2]);[^" + _END + rb"]*" + _STRING_ENDED +
    rb"|\]0*1(?P<colour_reset>04|1[0-2])(?:;[^" + _END + rb"]*)?" + _STRING_ENDED +
    rb")")

# The same, found faster: what is most frequent (colours, moves of the cursor, erasing) is
# passed over in one look, and groups have their price.
_MODE_FAST = Pattern(
    rb"\x1b(?!\[[0-9;:]*[@-fijkm-qs-~])(?:"
    rb"\[(?:\?" + _PARAMETERS + rb"[hl]|[<=>]" + _PARAMETERS + rb"u|>" + _PARAMETERS + rb"m|!p"
    rb"|" + _PARAMETERS + rb"(?:[ghlr]| q))"
    rb"|[()*+\-./][ -/]?[0-~]"
    rb"|[=>nocH]"
    rb"|\]0*(?:8;[^;" + _END + rb"]*;|(?:4|1[0-2]);|1(?:04|1[0-2])(?=[;\x07\x1b]))[^" + _END + rb"]*" + _STRING_ENDED
    + rb")")

# Whether there is any can be told without looking at each ESC, at the speed of memory: what
# may stand between an ESC and the byte that decides (the bracket, parameters) is left out, of
# the rest each byte that may decide for a mode becomes X, and each that ends a sequence without
# one m.  No text can stand in between, so an ESC of a mode is one before an X.
_DECIDES = b"]?<>=!()*+-./nochlrqgH"
_ENDS = b"mABCDEFGJKLMPSTX"
_KINDS = bytes(0x58 if byte in _DECIDES else 0x6D if byte in _ENDS else byte for byte in range(256))
_OTHERS = bytes(set(range(256)) - set(b"\x1b" + _DECIDES + _ENDS))


def has_only_colours(data):
    """Whether all sequences in `data` are colours, or move the cursor, or erase; False may
    also be said of some that are."""
    # From the end: in that direction the search steps over what is no ESC two at a time.
    return b"\x1b" not in data or data.translate(_KINDS, _OTHERS).rfind(b"\x1bX") < 0


# Of most sequences only the last of its kind counts.  Not of those that push and pop, and not
# of two ways to the alternate screen, of which the first does.
_COUNTED = Pattern(rb"\x1b\[[<=>][0-9;]*u")
_ENTERS_ALTERNATE = Pattern(rb"\x1b\[\?(?:[0-9;]*;)?0*(?:47|1047|1049)(?:;[0-9;]*)?h")
_SHIFTS = (b"\x1bn", b"\x1bo", b"\x1bc", b"\x1b[!p")


def _last_of_each(found):
    """Each of these sequences once, where it stands last; None when all of them count."""
    last = list(dict.fromkeys(reversed(found)))
    if any(map(_COUNTED.match, last)) or sum(map(bool, map(_ENTERS_ALTERNATE.match, last))) > 1:
        return None
    return last[::-1]


# Colours are the most frequent sequence by far and only the last one says whether
# they are reset, so it is looked for from the end, in C.
_LAST_SGR = Pattern(rb"(?s:.*)\x1b(?:\[([0-9:;]{0,96})m|\[!p|c)")


def _numbers(parameters):
    return [int(number or b"0") for number in parameters.split(b";")]


class Modes:
    """Which modes a program has switched on, read from its output piece by piece.

    `undo` is for a terminal that showed all of that output, `redo` for a fresh one
    that will show only what comes next.  `redo` also serves to keep the state: fed to
    a new `Modes` it gives one that undoes and redoes the same.

    The window title is left alone.  Of colours only the last SGR is known: whether
    it was a full reset decides `undo`, and `redo` repeats it.
    """

    def __init__(self):
        self._held = b""                # an incomplete sequence, at most _MODES_HELD bytes
        self._reset()

    def _reset(self, seq=b""):
        self._private = {}              # mode -> value, where not as in a fresh terminal
        self._ansi = {}
        self._alternate = 0             # the mode that led to the alternate screen, or 0
        self._is_cursor_saved = False
        self._is_keypad = False
        # kitty keyboard flags per screen: what is below the stack, then the stack.
        self._kitty = {False: [0], True: [0]}
        self._other_keys = 0            # modifyOtherKeys
        self._cursor_style = 0
        self._margins = b""
        self._charsets = {}             # G0-G3 -> the designating sequence, where not ASCII
        self._shift = _SHIFT_IN
        self._sgr = b""                 # parameters of the last SGR unless it was a reset
        self._link = b""                # the sequence that began the link that is open
        self._colours = {}              # what was set (4;N or 10 to 12) -> the sequence
        self._are_tabs_set = False

    @property
    def is_alternate(self):
        """Is the alternate screen shown?"""
        return bool(self._alternate)

    @property
    def bottom_margin(self):
        """The last row that scrolls, from 1 on, where the program has set that; else None."""
        return (_numbers(self._margins) + [0])[1] or None

    @property
    def bracketed_paste(self):
        """Does the program want pastes bracketed?"""
        return self._private.get(2004, False)

    @property
    def application_cursor(self):
        """Do cursor keys send ESC O x instead of ESC [ x?"""
        return self._private.get(1, False)

    def feed(self, data):
        """Take note of the next piece of output; sequences may be split over pieces."""
        data = self._held + bytes(data)     # a copy costs less than it would to search a view
        shifted_at = max(data.rfind(b"\x0e"), data.rfind(b"\x0f"))
        last = _last_of_each(_MODE_FAST.findall(data))
        if last is None or shifted_at >= 0 and any(seq in last for seq in _SHIFTS):
            self._feed_in_order(data, shifted_at)
        else:
            for seq in last:
                self._ACTS[_MODE.match(seq).lastgroup](self, seq)
            if shifted_at >= 0:
                self._shift = data[shifted_at:shifted_at + 1]
        self._feed_colour(data)
        self._held = incomplete_tail(data, _MODES_HELD)

    def _feed_in_order(self, data, shifted_at):
        for match in _MODE.finditer(data):
            if 0 <= shifted_at < match.start():
                self._shift = data[shifted_at:shifted_at + 1]
                shifted_at = -1
            self._ACTS[match.lastgroup](self, match.group())
        if shifted_at >= 0:
            self._shift = data[shifted_at:shifted_at + 1]

    def feed_colours(self, data):
        """`feed` of what `has_only_colours`, and ends with a sequence that is whole."""
        shifted_at = max(data.rfind(b"\x0e"), data.rfind(b"\x0f"))
        if shifted_at >= 0:
            self._shift = data[shifted_at:shifted_at + 1]
        self._feed_colour(data)

    def _feed_colour(self, data):
        first = data.find(b"\x1b")
        last = first >= 0 and _LAST_SGR.match(data, first)
        if last:
            parameters = last.group(1) or b""
            self._sgr = parameters if parameters.strip(b"0;") else b""

    # One method per group of _MODE; each takes the whole sequence.

    def _on_private(self, seq):
        value = seq[-1:] == b"h"
        for mode in _numbers(seq[3:-1]):
            if mode in PRIVATE_MODES:
                _note(self._private, mode, value, PRIVATE_MODES[mode])
            elif mode in _ALTERNATE:
                self._alternate = (self._alternate or mode) if value else 0
            elif mode == _SAVE_CURSOR:
                self._is_cursor_saved = value

    def _on_ansi(self, seq):
        for mode in _numbers(seq[2:-1]):
            if mode in ANSI_MODES:
                _note(self._ansi, mode, seq[-1:] == b"h", ANSI_MODES[mode])

    def _on_kitty(self, seq):
        stack = self._kitty[self.is_alternate]
        first, second = (_numbers(seq[3:-1]) + [0])[:2]
        if seq[2:3] == b">":
            stack.append(first)
            del stack[1:-_KITTY_DEPTH]
        elif seq[2:3] == b"<":
            _pop_kitty(stack, first or 1)
        else:
            stack[-1] = {2: stack[-1] | first, 3: stack[-1] & ~first}.get(second, first)

    def _on_other_keys(self, seq):
        resource, value = (_numbers(seq[3:-1]) + [0])[:2]
        if resource == 4 or seq[3:-1] == b"":
            self._other_keys = value

    def _on_cursor_style(self, seq):
        self._cursor_style = _numbers(seq[2:-2])[0]

    def _on_margins(self, seq):
        top, bottom = (_numbers(seq[2:-1]) + [0])[:2]
        self._margins = seq[2:-1] if top > 1 or bottom else b""

    def _on_charset(self, seq):
        index = _G_SETS[seq[1:2]]
        self._charsets.pop(index, None)
        if seq != _ASCII_SETS[index]:
            self._charsets[index] = seq

    def _on_shift(self, seq):
        self._shift = seq

    def _on_keypad(self, seq):
        self._is_keypad = seq == b"\x1b="

    def _on_soft_reset(self, seq):
        for mode in _SOFT_RESET:
            self._private.pop(mode, None)
        self._ansi.pop(4, None)
        self._is_keypad = False
        self._margins = b""
        self._charsets.clear()
        self._shift = _SHIFT_IN

    def _on_tab_set(self, seq):
        self._are_tabs_set = True

    def _on_link(self, seq):
        self._link = seq if seq.rstrip(b"\x07\x1b\\").rpartition(b";")[2] else b""

    def _on_colour(self, seq):
        which, _, what = seq[2:].strip(b"\x07\x1b\\").lstrip(b"0").partition(b";")
        if which == b"4":
            which, _, what = (which + b";" + what).rpartition(b";")
        if b"?" not in what and (which in self._colours or len(self._colours) < _COLOURS_MAX):
            self._colours.pop(which, None)
            self._colours[which] = seq

    def _on_colour_reset(self, seq):
        which, _, what = seq[2:].strip(b"\x07\x1b\\").lstrip(b"0").partition(b";")
        if which == b"104":
            gone = [b"4;" + number for number in what.split(b";")] if what else \
                [known for known in self._colours if known.startswith(b"4")]
        else:
            gone = [which[1:]]
        for each in gone:
            self._colours.pop(each, None)

    _ACTS = {
        "tab_set": _on_tab_set, "tab_clear": _on_tab_set, "link": _on_link,
        "colour": _on_colour, "colour_reset": _on_colour_reset,
        "private": _on_private, "ansi": _on_ansi, "kitty": _on_kitty,
        "other_keys": _on_other_keys, "cursor_style": _on_cursor_style,
        "margins": _on_margins, "charset": _on_charset, "shift": _on_shift,
        "keypad": _on_keypad, "soft_reset": _on_soft_reset, "reset": _reset,
    }

    def undo(self):
        """Return what switches off all that is still on, and nothing else; changes nothing here.

        The cursor stays where it is, unless origin mode is on: switching that off
        sends it home in every terminal.
        """
        out = [b"\x1b]8;;\x1b\\"] if self._link else []
        out += [self._undo_tabs(), self._undo_margins()]
        out += [_private(mode, fresh) for mode, fresh in PRIVATE_MODES.items()
                if mode in self._private]
        out += [_ansi(mode, fresh) for mode, fresh in ANSI_MODES.items() if mode in self._ansi]
        if self._is_keypad:
            out.append(b"\x1b>")
        if self._other_keys:
            out.append(b"\x1b[>4m")
        if self._cursor_style:
            out.append(b"\x1b[0 q")
        if self._alternate:
            out += [_undo_kitty(self._kitty[True]), _private(self._alternate, False)]
            if self._restores_cursor():
                out.append(_private(_SAVE_CURSOR, False))
        out.append(_undo_kitty(self._kitty[False]))
        # Leaving 1049 restores charsets and colours as they were on entry, so these
        # come after it.
        out += [_ASCII_SETS[index] for index in sorted(self._charsets)]
        if self._shift != _SHIFT_IN:
            out.append(_SHIFT_IN)
        if self._sgr:
            out.append(b"\x1b[m")
        kinds = sorted({which.partition(b";")[0] for which in self._colours})
        out += [b"\x1b]1%s\x1b\\" % (b"04" if kind == b"4" else kind) for kind in kinds]
        return b"".join(out)

    def _undo_tabs(self):
        if not self._are_tabs_set:
            return b""
        stops = b"".join(b"\x1b[%dG\x1bH" % (column + 1) for column in range(8, _TABS_TO, 8))
        return b"\x1b7\x1b[3g" + stops + b"\x1b8"

    def _undo_margins(self):
        # DECSTBM sends the cursor home.  1049 brings its own cursor back on leaving, from
        # the same place where some terminals would keep the one saved here.  This comes
        # before origin mode is switched off: DECRC would switch it on again.
        if not self._margins:
            return b""
        return b"\x1b[r" if self._alternate == 1049 else b"\x1b7\x1b[r\x1b8"

    def _restores_cursor(self):
        return self._is_cursor_saved and self._alternate in (47, 1047)

    def redo(self):
        """Return what brings a fresh terminal into these modes; changes nothing here."""
        out = [self._charsets[index] for index in sorted(self._charsets)]
        if self._shift != _SHIFT_IN:
            out.append(self._shift)
        out.append(_redo_kitty(self._kitty[False]))
        if self._alternate:
            if self._restores_cursor():
                out.append(_private(_SAVE_CURSOR, True))
            out += [_private(self._alternate, True), _redo_kitty(self._kitty[True])]
        if self._margins:
            out.append(b"\x1b[" + self._margins + b"r")
        # In the order of setting: of the mouse modes the last one counts.
        out += [_private(mode, value) for mode, value in self._private.items()]
        out += [_ansi(mode, value) for mode, value in self._ansi.items()]
        if self._is_keypad:
            out.append(b"\x1b=")
        if self._other_keys:
            out.append(b"\x1b[>4;%dm" % self._other_keys)
        if self._cursor_style:
            out.append(b"\x1b[%d q" % self._cursor_style)
        if self._sgr:
            out.append(b"\x1b[" + self._sgr + b"m")
        return b"".join(out) + b"".join(self._colours.values()) + self._link


def undo_anything():
    """What undoes whatever a program may have left on, in a terminal of which nobody knows.

    Harmless where nothing was: the cursor stays, also where the alternate screen is not shown.
    """
    modes = Modes()
    modes.feed(b"".join(_private(mode, not fresh) for mode, fresh in PRIVATE_MODES.items())
               + b"\x1b[?1049h\x1b[4h\x1b[20h\x1b=\x1b[>4;1m\x1b[1 q\x1b[>1u\x1b[2;3r\x1b[1m\x0e\x1b(0")
    return b"\x1b7" + modes.undo()


def _note(modes, mode, value, fresh):
    """Keep `mode` in `modes` only while it differs from `fresh`, the latest set last."""
    modes.pop(mode, None)
    if value != fresh:
        modes[mode] = value


def _private(mode, value):
    return b"\x1b[?%d%s" % (mode, b"h" if value else b"l")


def _ansi(mode, value):
    return b"\x1b[%d%s" % (mode, b"h" if value else b"l")


def _pop_kitty(stack, count):
    # Popping more than there is resets all flags (kitty, "Progressive enhancement").
    if count >= len(stack):
        stack[:] = [0]
    else:
        del stack[-count:]


def _undo_kitty(stack):
    out = b"\x1b[<%du" % (len(stack) - 1) if len(stack) > 1 else b""
    return out + b"\x1b[=0u" if stack[0] else out


def _redo_kitty(stack):
    out = b"\x1b[=%du" % stack[0] if stack[0] else b""
    return out + b"".join(b"\x1b[>%du" % flags for flags in stack[1:])


# --- for readers that are no terminals ---------------------------------------------------


class Newlines:
    """Turns CR LF into LF in output that comes in pieces; a CR alone stays."""

    def __init__(self):
        self._held = b""                # a CR at the end of a piece

    def feed(self, data):
        """The next piece, as bytes."""
        data = self._held + bytes(data)
        self._held = b"\r" if data.endswith(b"\r") else b""
        return data[:len(data) - len(self._held)].replace(b"\r\n", b"\n")

    def flush(self):
        """What is held: nothing follows any more."""
        held, self._held = self._held, b""
        return held


# --- the window's title ----------------------------------------------------------------

# OSC 0 (icon and title) and OSC 2 (title); 255 characters are what window managers show.
_TITLE = Pattern(rb"\x1b\]0*[02];([^" + _END + rb"]{0,1020})(?:\x07|\x1b\\)")
_TITLE_BYTES_MAX = 1040         # of a whole one: it may be cut where a look ends
_TITLE_LOOK_BYTES = 64 * 1024   # at a time: most of who sets one does so often
TITLE_LEAST_BYTES = 16 * 1024   # of each session at each asking, however little is left ...
TITLES_BUDGET_BYTES = 2 << 20   # ... of this, for all that are asked about: some 5 ms


class LookBudget:
    """How much output one request may have looked at, in all."""

    def __init__(self, left=TITLES_BUDGET_BYTES):
        self.left = left

    def share(self):
        """What the next session may have of it."""
        return max(self.left, TITLE_LEAST_BYTES)


class TitleFinder:
    """The latest title in a session's output, looked for when somebody asks.

    The newest is looked at first; what the budget does not reach waits for the next asking,
    unless a newer title is found before.  Nothing is looked at twice but a beginning of one.
    """

    def __init__(self):
        self.title = None
        self.offset = -1                # where it begins
        self._seen_to = 0
        self._unseen = []               # (start, end) of what was skipped, the newest last

    def look(self, read, start, end, budget):
        """The title, or None; `read(offset, count)` gives output between `start` and `end`."""
        if end < self._seen_to:         # another ring: it begins anew
            self.title, self.offset, self._seen_to, self._unseen = None, -1, 0, []
        self._unseen = [(first, last) for first, last in self._unseen if last > start]
        self._unseen.append((self._seen_to, end))
        self._seen_to = end
        limit = budget.share()
        while self._unseen and limit > 0:
            first, last = self._unseen.pop()
            begin = max(first, start, last - min(limit, _TITLE_LOOK_BYTES))
            if begin >= last:
                continue                # gone, or nothing new
            if first < begin:
                self._unseen.append((first, begin))
            limit -= last - begin
            budget.left -= last - begin
            self._search(read(begin, min(end, last + _TITLE_BYTES_MAX) - begin), begin, last, last == end)
        return self.title

    def _search(self, data, begin, last, is_newest):
        """Take the last title that begins before `last` in `data`, which lies at `begin`."""
        found = None
        for match in _TITLE.finditer(data):
            if begin + match.start() < last:
                found = match
        if found is not None:
            self.title, self.offset = found.group(1), begin + found.start()
            self._unseen.clear()        # all of it is older
        if is_newest:
            self._seen_to -= len(incomplete_tail(data, _TITLE_BYTES_MAX))
