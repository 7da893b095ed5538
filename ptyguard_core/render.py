"""Render: a screen as text, as ANSI, as JSON, as an HTML page and as an SVG picture.

Pure: a `Screen` (or anything with its fields) in, str, bytes or dict out; the same
screen gives the same bytes.  `history` asks for that many lines of scrollback before it.

Rule 1: nothing that a program wrote is markup or a control sequence here.  Control
        characters are dropped from every text (XML allows most of them not even
        escaped), the rest is escaped; a link is one only to a harmless scheme.
Rule 2: what a cell holds can't shift other cells, whatever font or terminal shows it.
        So characters whose width is in doubt are placed one by one, and all that has to
        touch its neighbours is drawn as geometry (glyphs.py).
Rule 3: a run of equal attributes is one element; only rule 2 divides it.

Not handled: blinking (pictures stand still), double-width lines.
In pictures text of the attribute "invisible" is left out: it might be a password.
"""

import collections
import itertools
import re
import unicodedata

from . import glyphs, tables
from .tables import BACKGROUND, FOREGROUND, palette_colour

# Not in XML 1.0, or control characters of which a terminal might think something.
_CONTROLS = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff\ufdd0-\ufdef\ufffe\uffff]")
# They would order or break a browser's line anew; a terminal gives them no cell.
_LAYOUT = re.compile("[\u00ad\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u2069\ufeff]")

# Attribute -> what it is when it is not set, in the order of JSON and SGR.
_DEFAULTS = (("fg", None), ("bg", None), ("bold", False), ("faint", False), ("italic", False),
             ("underline", 0), ("underline_colour", None), ("blink", False), ("inverse", False),
             ("invisible", False), ("strike", False), ("overline", False), ("link", None))
_PLAIN = tuple(default for _, default in _DEFAULTS)


def _clean(text):
    return _CONTROLS.sub("", text)


def _content(line):
    """How many cells of `line` are left when plain blanks are cut from its end."""
    count = len(line.chars)
    plain = None
    while count and line.chars[count - 1] == " ":
        attr = line.attrs[count - 1]
        if attr is not plain:
            if attr != _PLAIN:
                break
            plain = attr
        count -= 1
    return count


def _groups(line, count):
    """(from, to, attr) of the runs of equal attributes in the first `count` cells."""
    start = 0
    for attr, run in itertools.groupby(line.attrs[:count]):
        end = start + len(list(run))
        yield start, end, attr
        start = end


def _lines(screen, history):
    """(lines of scrollback, lines of the screen)."""
    kept = list(screen.history)
    return kept[max(0, len(kept) - history):] if history > 0 else [], list(screen.lines)


# --- text and JSON -----------------------------------------------------------------------

def render_text(screen, history=0):
    """Lines of text, blanks cut at the end of each and of the whole."""
    scrollback, lines = _lines(screen, history)
    text = "\n".join(_clean("".join(line.chars)).rstrip(" ") for line in scrollback + lines)
    text = text.rstrip("\n")
    return text + "\n" if text else ""


def render_json(screen, history=0):
    """What a screen is, as a dict for json.dumps; a row is a list of runs, its blank end cut.

    A run tells `cells` where that is not the length of its text.
    """
    scrollback, lines = _lines(screen, history)
    cursor = screen.cursor
    return {
        "size": {"cols": screen.size[0], "rows": screen.size[1]},
        "cursor": {"x": cursor.x, "y": cursor.y, "visible": cursor.is_visible, "shape": cursor.shape,
                   "blinking": cursor.is_blinking, "wrap_pending": screen.is_wrap_pending},
        "title": _clean(screen.title), "icon_title": _clean(screen.icon_title),
        "cwd": screen.cwd and _clean(screen.cwd),
        "modes": dict(sorted(screen.modes.items())), "is_alternate": screen.is_alternate,
        "palette": {str(key): _hex(colour) for key, colour in
                    sorted(screen.palette.items(), key=lambda item: (str(type(item[0])), item[0]))},
        "rows": [_runs(line) for line in lines],
        "wrapped_rows": [i for i, line in enumerate(lines) if line.is_wrapped],
        "history": [_runs(line) for line in scrollback],
        "wrapped_history": [i for i, line in enumerate(scrollback) if line.is_wrapped],
    }


def _runs(line):
    return [_run("".join(line.chars[start:end]), end - start, attr)
            for start, end, attr in _groups(line, _content(line))]


def _run(text, cells, attr):
    run = {"text": _clean(text)}
    if len(run["text"]) != cells:
        run["cells"] = cells
    for name, default in _DEFAULTS:
        value = getattr(attr, name)
        if value != default:
            run[name] = _hex(value) if isinstance(value, tuple) else _clean(value) if name == "link" else value
    return run


# --- ANSI --------------------------------------------------------------------------------

# These move the cursor, or are a part of it or of the screen: `render_ansi` places them.
PLACED_MODES = ("alternate_screen", "origin", "left_right_margins", "cursor_visible")


def _switches():
    """{mode: {value: sequence}}, without those that are placed."""
    found = {}
    for marker, table in ((b"?", tables.PRIVATE_MODES), (b"", tables.ANSI_MODES)):
        for number, (name, value) in table.items():
            values = found.setdefault(name, {})
            values[value] = b"\x1b[%s%dh" % (marker, number)
            if value is True:
                values[False] = b"\x1b[%s%dl" % (marker, number)
    # More terminals know it than ?66; a reset has to be of both.
    found["application_keypad"] = {True: b"\x1b=", False: b"\x1b>\x1b[?66l"}
    return {name: values for name, values in found.items() if name not in PLACED_MODES}


MODES = _switches()
# Modes that are numbers.
NUMBER_MODES = {"keyboard_flags": b"\x1b[=%du", "modify_other_keys": b"\x1b[>4;%dm"}

_CURSOR_SHAPES = {"block": 2, "underline": 4, "bar": 6}     # DECSCUSR, and one less for blinking


# In these a user's own terminal may differ from a terminal after a reset: never reset here.
OWN_MODES = ("cursor_blink", "reverse_wrap", "alternate_scroll")


def _mode_resets():
    """What puts all other modes back."""
    out = []
    for name, values in MODES.items():
        default = tables.MODE_DEFAULTS.get(name, False)
        if name not in OWN_MODES:
            out += [values[default]] if default in values else [on[:-1] + b"l" for on in values.values()]
    return b"".join(out + [form % 0 for form in NUMBER_MODES.values()])


# The terminal may be in any state.  1049 is first: what comes then is for the main screen.
_RESET = (b"\x1b[?1049l\x1b[m\x1b]8;;\x1b\\\x1b(B\x1b)B\x1b*B\x1b+B\x0f\x1b[r\x1b[?69l\x1b[?6l"
          + _mode_resets() + b"\x1b[0 q\x1b[?25h\x1b[H\x1b7\x1b[2J")


def render_ansi(screen, history=0):
    """Bytes that make a terminal of the same size show the same, whatever it showed before.

    Lines of history scroll into the terminal's own scrollback (of a taller terminal too);
    behind an alternate screen the main one is drawn as well.  What the program saved and
    what its next character will look like are part of it.  Nothing in it is a query.
    What may be the user's own setting is changed only if the program has set it: OWN_MODES,
    colours of the palette, titles, tab stops.
    """
    scrollback, lines = _lines(screen, history)
    cols, rows = screen.size
    pen = _Pen(cols)
    pen.write(_RESET)
    _scroll_in(pen, scrollback, rows)
    if screen.is_alternate:
        _paint(pen, _fitted(screen.main_lines or [], cols)[:rows])
        _enter_alternate(pen, screen)
    _paint(pen, _fitted(lines, cols)[:rows])
    pen.write(_tab_stops(screen) + _strings(screen) + _palette_strings(screen))
    _place_cursor(pen, screen)
    pen.write(_mode_sequences(screen.modes) + _cursor_sequences(screen.cursor))
    return pen.taken()


class _Pen:
    """Bytes being written, and the attributes that the terminal has after them."""

    def __init__(self, cols):
        self.cols = cols
        self._parts = []
        self._attr = None               # None: plain
        self._link = None
        self._sgr = _PLAIN_SGR
        self._known = {None: (None, _PLAIN_SGR)}

    def write(self, data):
        self._parts.append(data)

    def taken(self):
        return b"".join(self._parts)

    def set(self, attr):
        """Attributes for what comes next; None for plain ones."""
        if attr is self._attr:
            return
        self._attr = attr
        if attr not in self._known:
            self._known[attr] = _clean(attr.link or "") or None, _sgr(attr)
        link, sgr = self._known[attr]
        if link != self._link:
            self.write(b"\x1b]8;;" + _encoded(link or "") + b"\x1b\\")
        if sgr != self._sgr:
            self.write(sgr)
        self._link, self._sgr = link, sgr

    def move(self, x, y):
        self.write(b"\x1b[%d;%dH" % (y + 1, x + 1))

    def cells(self, line, start, end):
        """Write these cells; after one whose width is in doubt the column is set."""
        for begin, stop, attr in _groups(line, end):
            if stop > start:
                self.set(attr)
                self._run(line.chars, max(start, begin), stop, end)

    def _run(self, chars, start, stop, end):
        piece = chars[start:stop]
        text = "".join(piece)
        if not _is_simple(piece, text):
            text = self._placed(chars, start, stop, end)
        self.write(_encoded(text))

    def _placed(self, chars, start, stop, end):
        text = []
        for at in range(start, stop):
            char = _clean(chars[at]) or " "
            is_half = chars[at] == ""
            if is_half and at and chars[at - 1] not in ("", " "):
                continue                        # the character before has drawn it
            text.append(char)
            after = at + (2 if not is_half and at + 1 < len(chars) and chars[at + 1] == "" else 1)
            if after < end and _DOUBTFUL.search(char):
                text.append(f"\x1b[{after + 1}G")
        return "".join(text)


def _encoded(text):
    return text.encode("utf-8", "replace")


# Terminals disagree on how many cells these take: emoji, what joins others, new scripts; and
# (in one cell) all that is more than one character.
_DOUBTFUL_ONE = re.compile("[\u0300-\u036f\u200b-\u200f\u2300-\u24ff\u25a0-\u27ff\u2900-\u2bff\ufe00-\ufe0f"
                           "\U0001f000-\U0010ffff]")
_DOUBTFUL = re.compile(_DOUBTFUL_ONE.pattern + "|..")


def _is_simple(piece, text):
    """May these cells be written as they are?"""
    if text.isascii():
        return len(text) == len(piece) and text.isprintable() and "" not in piece
    return (max(map(len, piece)) == 1 and not _CONTROLS.search(text) and not _DOUBTFUL_ONE.search(text)
            and all(before not in ("", " ") for before, char in zip([""] + piece, piece) if char == ""))


_PLAIN_SGR = b"\x1b[m"


def _sgr(attr):
    """The sequence that sets exactly these attributes."""
    codes = [str(code) for name, code in
             (("bold", 1), ("faint", 2), ("italic", 3), ("blink", 5), ("inverse", 7), ("invisible", 8),
              ("strike", 9), ("overline", 53)) if getattr(attr, name)]
    if attr.underline:
        # With a colon only where there is no other way: old terminals take it for nothing.
        codes.append("4" if attr.underline == 1 else f"4:{attr.underline}")
    codes += _colour_codes(attr.fg, 30, 90, "38") + _colour_codes(attr.bg, 40, 100, "48")
    colour = attr.underline_colour
    if colour is not None:
        codes.append("58:2::%d:%d:%d" % colour if isinstance(colour, tuple) else f"58:5:{colour}")
    return b"\x1b[" + ";".join(["0"] + codes).encode() + b"m" if codes else _PLAIN_SGR


def _colour_codes(colour, first, first_bright, extended):
    if colour is None:
        return []
    if isinstance(colour, tuple):
        return [extended + ";2;%d;%d;%d" % colour]
    if colour < 16:
        return [str(first + colour if colour < 8 else first_bright + colour - 8)]
    return [f"{extended};5;{colour}"]


class _Row:
    """A line as it is drawn in a terminal of so many columns."""

    __slots__ = ("chars", "attrs", "is_wrapped")

    def __init__(self, chars, attrs, is_wrapped):
        self.chars, self.attrs, self.is_wrapped = chars, attrs, is_wrapped


def _fitted(lines, cols):
    """Lines of any width as rows of at most `cols` cells; a longer one goes on in the next row."""
    rows = []
    for line in lines:
        is_full = line.is_wrapped and len(line.chars) >= cols
        end = len(line.chars) if is_full else _content(line)
        at = 0
        while end - at > cols:
            cut = at + cols
            if line.chars[cut] == "" and cols > 1:      # no wide character is cut in two
                cut -= 1
            rows.append(_Row(line.chars[at:cut], line.attrs[at:cut], cut - at == cols))
            at = cut
        rows.append(_Row(line.chars[at:end], line.attrs[at:end], is_full and end - at == cols))
    return rows


def _paint(pen, rows):
    """Rows on the screen, from its top."""
    for y, row in enumerate(rows):
        if row.chars:
            pen.move(0, y)
            pen.cells(row, 0, len(row.chars))
        if row.is_wrapped and y + 1 < len(rows):
            # The terminal has to see the wrap to know it when it reflows or copies.  A blank
            # makes it, which nobody sees where the terminal is wider; the row is drawn over it.
            pen.set(None)
            pen.write(b" ")
    pen.set(None)


def _scroll_in(pen, lines, screen_rows):
    """Send lines into the terminal's scrollback.

    Always fewer than fill the screen are drawn and then pushed out at the bottom: so
    exactly they leave it, however tall the terminal is.
    """
    rows = _fitted(lines, pen.cols)
    step = max(1, screen_rows - 1)
    for at in range(0, len(rows), step):
        part = rows[at:at + step]
        if part[-1].is_wrapped and screen_rows > 1:
            part = part + [_Row([], [], False)]         # what it goes on in comes next
        _paint(pen, part)
        pen.write(b"\x1b[9999;1H" + b"\n" * len(rows[at:at + step]) + b"\x1b[H")


def _enter_alternate(pen, screen):
    """From the main screen, which is drawn, to the other one, which is blank then."""
    saved = screen.main_saved_cursor
    if saved is None:
        pen.write(b"\x1b[?1047h")
    else:                                       # 1049 saves the cursor: leaving, it will be there again
        _take_up_saved(pen, screen.main_lines, saved, b"\x1b[?1049h")
    pen.set(None)
    pen.write(b"\x1b[=0u\x1b[H\x1b[2J")                 # each screen has its own keyboard flags


def _tab_stops(screen):
    if screen.tab_stops == list(range(0, screen.size[0], 8)):
        return b""
    return b"\x1b[3g" + b"".join(b"\x1b[%dG\x1bH" % (stop + 1) for stop in screen.tab_stops)


def _strings(screen):
    """Titles and directory."""
    title, icon = _clean(screen.title or ""), _clean(screen.icon_title or "")
    out = b""
    if title != icon:
        out = b"\x1b]1;" + _encoded(icon) + b"\x1b\\\x1b]2;" + _encoded(title) + b"\x1b\\"
    elif title:
        out = b"\x1b]0;" + _encoded(title) + b"\x1b\\"
    if screen.cwd and screen.cwd.startswith("/"):
        out += b"\x1b]7;file://" + _percent(screen.cwd) + b"\x1b\\"
    return out


_UNRESERVED = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~/")


def _percent(path):
    return b"".join(b"%c" % byte if byte in _UNRESERVED else b"%%%02X" % byte for byte in _encoded(path))


_SPECIAL_COLOURS = {"foreground": 10, "background": 11, "cursor": 12}


def _palette_strings(screen):
    out = []
    for key, colour in sorted(screen.palette.items(), key=lambda item: str(item[0]).zfill(3)):
        spec = b"rgb:%02x/%02x/%02x\x1b\\" % tuple(colour)
        if key in _SPECIAL_COLOURS:
            out.append(b"\x1b]%d;" % _SPECIAL_COLOURS[key] + spec)
        elif isinstance(key, int):
            out.append(b"\x1b]4;%d;" % key + spec)
    return b"".join(out)


def _place_cursor(pen, screen):
    """What DECSC saved, margins, then the cursor: all that moves it comes before it."""
    cols, rows = screen.size
    if screen.saved_cursor is not None:
        _take_up_saved(pen, screen.lines, screen.saved_cursor, b"\x1b7")
    top, bottom, left, right = screen.margins
    if (top, bottom) != (0, rows - 1):
        pen.write(b"\x1b[%d;%dr" % (top + 1, bottom + 1))
    if screen.modes.get("left_right_margins"):
        is_whole = (left, right) == (0, cols - 1)
        pen.write(b"\x1b[?69h" + (b"" if is_whole else b"\x1b[%d;%ds" % (left + 1, right + 1)))
    charsets, shift = screen.charsets
    _take_up(pen, screen.lines, _Place(screen.cursor.x, screen.cursor.y, screen.attr, charsets, shift,
                                       bool(screen.modes.get("origin")), screen.is_wrap_pending), (left, top))


def _take_up_saved(pen, lines, saved, save):
    """Save a cursor by `save`; margins are not set yet, so it doesn't matter which there were."""
    # A wrap that was pending at a margin is pending at one that is there just for this.
    has_margin = saved.is_wrap_pending and 0 < saved.x < pen.cols - 1
    if has_margin:
        pen.write(b"\x1b[?69h\x1b[1;%ds" % (saved.x + 1))
    _take_up(pen, lines, saved, (0, 0))
    pen.write(save + (b"\x1b[?69l" if has_margin else b"") + (b"\x1b[?6l" if saved.is_origin else b"")
              + _ASCII)


# What a terminal saves of its cursor.
_Place = collections.namedtuple("_Place", "x y attr charsets shift is_origin is_wrap_pending")
_ASCII = b"\x1b(B\x1b)B\x1b*B\x1b+B\x0f"
_SHIFTS = {0: b"", 1: b"\x0e", 2: b"\x1bn", 3: b"\x1bo"}


def _take_up(pen, lines, place, origin):
    """Bring the cursor from where it is, without origin mode and charsets, to `place`."""
    x, y = place.x, place.y
    if place.is_origin:
        pen.write(b"\x1b[?6h")
        x, y = max(0, x - origin[0]), max(0, y - origin[1])
    if place.is_wrap_pending:
        # A wrap is pending after a character in the last column, and after nothing else.
        line = lines[place.y]
        width = 2 if place.x and line.chars[place.x] == "" else 1
        pen.move(x + 1 - width, y)
        pen.cells(line, place.x + 1 - width, place.x + 1)
    else:
        pen.move(x, y)
    slots = zip((b"(", b")", b"*", b"+"), place.charsets)
    pen.write(b"".join(b"\x1b" + slot + _encoded(name) for slot, name in slots
                       if name != "B" and "0" <= name <= "~") + _SHIFTS[place.shift])
    pen.set(place.attr)


def _mode_sequences(modes):
    out = [values[modes[name]] for name, values in MODES.items() if modes.get(name) in values]
    out += [form % modes[name] for name, form in NUMBER_MODES.items() if modes.get(name)]
    return b"".join(out)


def _cursor_sequences(cursor):
    style = _CURSOR_SHAPES[cursor.shape] - bool(cursor.is_blinking)
    return (b"" if style == 2 else b"\x1b[%d q" % style) + (b"" if cursor.is_visible else b"\x1b[?25l")


# --- colours -----------------------------------------------------------------------------

_FAINT = 0.6                                    # how much of the foreground is left


def _hex(colour):
    return "#%02x%02x%02x" % tuple(colour)


class _Style:
    """An attribute as colours of a picture, "#rrggbb"; `bg` is None where it is the screen's."""

    __slots__ = ("fg", "bg", "bold", "italic", "underline", "underline_colour", "strike", "overline",
                 "is_hidden", "link", "cursor")


class _Colours:
    """The colours of one screen, and its attributes' styles."""

    def __init__(self, screen):
        self._palette = screen.palette
        self.fg = self._palette.get("foreground", FOREGROUND)
        self.bg = self._palette.get("background", BACKGROUND)
        if screen.modes.get("reverse_video"):
            self.fg, self.bg = self.bg, self.fg
        self.cursor = self._palette.get("cursor")
        self._styles = {}

    def _colour(self, colour, default):
        if colour is None:
            return default
        if isinstance(colour, tuple):
            return colour
        return self._palette.get(colour) or palette_colour(colour)

    def style(self, attr, cursor=None):
        """The style of `attr`, with a cursor of this shape on it."""
        found = self._styles.get((attr, cursor))
        if found is None:
            found = self._styles[attr, cursor] = self._new(attr, cursor)
        return found

    def _new(self, attr, cursor):
        # Bold ones of the first eight are bright, as in xterm (resource boldColors).
        is_bright = attr.bold and isinstance(attr.fg, int) and attr.fg < 8
        fg = self._colour(attr.fg + 8 if is_bright else attr.fg, self.fg)
        bg = self._colour(attr.bg, self.bg)
        if attr.inverse:
            fg, bg = bg, fg
        if attr.faint:
            fg = tuple(round(_FAINT * a + (1 - _FAINT) * b) for a, b in zip(fg, bg))
        if cursor == "block":
            fg, bg = bg, self.cursor or (fg if fg != bg else self.fg)
        style = _Style()
        style.fg = _hex(fg)
        style.bg = _hex(bg) if bg != self.bg else None
        style.bold, style.italic = bool(attr.bold), bool(attr.italic)
        style.underline = attr.underline
        style.underline_colour = _hex(self._colour(attr.underline_colour, fg)) if attr.underline else None
        style.strike, style.overline = bool(attr.strike), bool(attr.overline)
        style.is_hidden = bool(attr.invisible)
        style.link = safe_link(attr.link)
        style.cursor = None if cursor in (None, "block") else (cursor, _hex(self.cursor or fg))
        return style


_HARMLESS = re.compile(r"(?:https?|ftp|mailto|file):", re.IGNORECASE)


def safe_link(uri):
    """`uri` for a picture, or None unless it is one that a click may follow."""
    uri = _LAYOUT.sub("", _clean(uri or "")).strip()
    return uri if _HARMLESS.match(uri) else None


# --- pictures: what HTML and SVG have in common --------------------------------------------

CELL_WIDTH, CELL_HEIGHT, FONT_SIZE = 8.4, 17, 14
_FONTS = ("ui-monospace,SFMono-Regular,Menlo,Consolas,'DejaVu Sans Mono','Liberation Mono',"
          "'Noto Sans Mono',monospace")

_MARKUP = re.compile("[&<>\"']")
_ESCAPES = {ord("&"): "&amp;", ord("<"): "&lt;", ord(">"): "&gt;", ord('"'): "&quot;", ord("'"): "&#39;"}


def _marked_up(text):
    """Text that has nothing in it but what XML wants escaped."""
    return text.translate(_ESCAPES) if _MARKUP.search(text) else text


def _escaped(text):
    return _LAYOUT.sub("", _clean(text)).translate(_ESCAPES)


# In every monospaced font, as wide as all others, and nothing to be drawn: the inside of a class.
_ORDINARY = " -~\u00a1-\u00ac\u00ae-\u017f\u0391-\u03ce\u0400-\u045f\u2013-\u2022\u2026"
_DRAWN = "\u2500-\u259f\u2800-\u28ff\ue0b0-\ue0b3"

# Cells, one character each: \x01 is a second half, \x02 a cell of more characters than one.
# The groups of the pattern are named by the way in which they are shown.
_PARTS = re.compile(f"(?P<text>(?:[{_ORDINARY}](?!\x01))+)|(?P<drawn>(?:[{_DRAWN}](?!\x01))+)"
                    f"|(?P<placed>(?:[^{_ORDINARY}{_DRAWN}]|.(?=\x01))+)")

# A run of equal style from column `start` to `end`, and its parts.
_Group = collections.namedtuple("_Group", "start end style parts")
# `kind` is "text" (a run), "placed" (each by itself) or "drawn" (as geometry); `chars` as in a line.
_Part = collections.namedtuple("_Part", "kind start chars")


def _group(chars, start, end, style):
    chars = [" "] * (end - start) if style.is_hidden else chars[start:end]
    cells = "".join(chars)
    if len(cells) != len(chars) or "" in chars:
        cells = "".join([char if len(char) == 1 else "\x02" if char else "\x01" for char in chars])
    return _Group(start, end, style, [
        _Part(match.lastgroup, start + match.start(), chars[match.start():match.end()])
        for match in _PARTS.finditer(cells)])


def _places(part):
    """(column, how many columns, character) of the cells of a part."""
    at, chars = 0, part.chars
    while at < len(chars):
        after = at + 1
        while after < len(chars) and chars[after] == "":
            after += 1
        yield part.start + at, after - at, chars[at] or " "
        at = after


def _picture(screen, history):
    """(colours, rows as lists of _Group) of scrollback and screen."""
    scrollback, lines = _lines(screen, history)
    colours, cols = _Colours(screen), screen.size[0]
    rows = [_row(line, colours, cols, None) for line in scrollback]
    cursor = screen.cursor
    for y, line in enumerate(lines):
        has_cursor = cursor.is_visible and y == cursor.y and 0 <= cursor.x < len(line.chars)
        rows.append(_row(line, colours, cols, cursor if has_cursor else None))
    return colours, rows


def _row(line, colours, cols, cursor):
    """The groups of a line; the cells under the cursor are one."""
    count = min(cols, _content(line))
    first = end = count
    if cursor:
        first, end = _cursor_cells(line.chars, cursor.x)
        count = max(count, end)
    found = []
    for start, stop, attr in _groups(line, count):
        for begin, finish, shape in ((start, min(stop, first), None),
                                     (max(start, first), min(stop, end), cursor and cursor.shape),
                                     (max(start, end), stop, None)):
            if begin < finish:
                found.append(_group(line.chars, begin, finish, colours.style(attr, shape)))
    return found


def _cursor_cells(chars, x):
    """(first, end) of the cells under the cursor: both of a wide character."""
    first = x - 1 if x and chars[x] == "" else x
    return first, first + (2 if first + 1 < len(chars) and chars[first + 1] == "" else 1)


def _cut_title(text, width):
    """(as much of `text` as fits into `width` cells, the cells it takes)."""
    text = _LAYOUT.sub("", _clean(text)).strip()
    cells = [_title_width(char) for char in text]
    if sum(cells) <= width:
        return text, sum(cells)
    taken, used = [], 0
    for char, size in zip(text, cells):
        if used + size > width - 1:
            break
        taken.append(char)
        used += size
    return ("".join(taken) + "\u2026", used + 1) if width > 0 else ("", 0)


def _title_width(char):
    if unicodedata.combining(char) or unicodedata.category(char) in ("Mn", "Me", "Cf"):
        return 0
    return 2 if unicodedata.east_asian_width(char) in "WF" else 1


# --- SVG ---------------------------------------------------------------------------------

_PADDING, _BAR_HEIGHT = 12, 30
_TITLE_SIZE, _TITLE_WIDTH = 13, 7.8
_BASELINE = 13                                  # of a cell, from its top
_BUTTONS = (("#ff5f57", 18), ("#febc2e", 36), ("#28c840", 54))
_LAYER_PAINT = {"fill": 'fill="{0}" shape-rendering="crispEdges"', "slope": 'fill="{0}"',
                "stroke": 'fill="none" stroke="{0}"',
                "shade1": 'fill="{0}" fill-opacity=".25"', "shade2": 'fill="{0}" fill-opacity=".5"',
                "shade3": 'fill="{0}" fill-opacity=".75"'}
# Here and not as an attribute of the group: a browser's own sheet has a rule for <text>.
_SVG_STYLE = ("<style>text{white-space:pre;font-variant-ligatures:none;unicode-bidi:bidi-override;direction:ltr}"
              "</style>")
_n = glyphs.number


def render_svg(screen, history=0, title=None):
    """A picture of the screen in a window; its title is the screen's unless given."""
    colours, rows = _picture(screen, history)
    fg = _hex(colours.fg)
    body = []
    for index, row in enumerate(rows):
        body += _svg_row(row, index * CELL_HEIGHT, fg)
    return _svg_window((screen.size[0], len(rows)), screen.title or "" if title is None else title,
                       fg, _hex(colours.bg), body)


def _svg_window(size, title, fg, bg, body):
    """A window with room for so many cells, and the elements of `body` in it."""
    width = size[0] * CELL_WIDTH + 2 * _PADDING
    height = size[1] * CELL_HEIGHT + _BAR_HEIGHT + 2 * _PADDING
    out = [f'<svg xmlns="http://www.w3.org/2000/svg" width="{_n(width)}" height="{_n(height)}" '
           f'viewBox="0 0 {_n(width)} {_n(height)}" role="img">',
           f"<title>{_escaped(title)}</title>", _SVG_STYLE,
           f'<rect width="{_n(width)}" height="{_n(height)}" rx="8" fill="{bg}"/>',
           _svg_bar(title, width),
           f'<g transform="translate({_PADDING} {_BAR_HEIGHT + _PADDING})" font-family="{_escaped(_FONTS)}" '
           f'font-size="{FONT_SIZE}" fill="{fg}" xml:space="preserve">']
    return "\n".join(out + body + ["</g>", "</svg>", ""])


def _svg_bar(title, width):
    out = [f'<path d="M0 {_BAR_HEIGHT}V8Q0 0 8 0H{_n(width - 8)}Q{_n(width)} 0 {_n(width)} 8V{_BAR_HEIGHT}Z" '
           'fill="#2d2d2d"/>']
    out += [f'<circle cx="{x}" cy="15" r="6" fill="{colour}"/>' for colour, x in _BUTTONS if x + 18 < width]
    text, cells = _cut_title(title, int((width - 2 * (_BUTTONS[-1][1] + 18)) / _TITLE_WIDTH))
    if cells > 0:
        out.append(f'<text x="{_n(width / 2 - cells * _TITLE_WIDTH / 2)}" y="19.5" fill="#c8c8c8" '
                   f'font-family="{_escaped(_FONTS)}" font-size="{_TITLE_SIZE}" '
                   f'textLength="{_n(cells * _TITLE_WIDTH)}" xml:space="preserve">'
                   f'{_escaped(text)}</text>')
    return "\n".join(out)


def _drawn(part, style, top):
    paths = glyphs.paths(part.chars, part.start * CELL_WIDTH, top, CELL_WIDTH, CELL_HEIGHT)
    return "".join(f'<path d="{data}" {_LAYER_PAINT[layer].format(style.fg)}/>' for layer, data in paths.items())


def _svg_row(row, top, default_fg):
    # Backgrounds first: what overhangs its cell a little is not cut off by the next one.
    out = [f'<rect x="{_n(group.start * CELL_WIDTH)}" y="{top}" width="{_n((group.end - group.start) * CELL_WIDTH)}" '
           f'height="{CELL_HEIGHT}" fill="{group.style.bg}" shape-rendering="crispEdges"/>'
           for group in row if group.style.bg]
    for group in row:
        inner = [_svg_part(part, group.style, top, default_fg) for part in group.parts]
        inner += _svg_decorations(group, top)
        inner = [element for element in inner if element]
        if inner and group.style.link:
            inner = [f'<a href="{_escaped(group.style.link)}">'] + inner + ["</a>"]
        out += inner
        if group.style.cursor:
            out.append(_svg_cursor(group, top))
    return out


def _svg_part(part, style, top, default_fg):
    if part.kind == "drawn":
        return _drawn(part, style, top)
    looks = ("" if style.fg == default_fg else f' fill="{style.fg}"') \
        + (' font-weight="bold"' if style.bold else "") + (' font-style="italic"' if style.italic else "")
    y = top + _BASELINE
    if part.kind == "placed":
        spans = "".join([f'<tspan x="{_n((x + count / 2) * CELL_WIDTH)}">{_escaped_cell(char)}</tspan>'
                         for x, count, char in _places(part)])
        return f'<text y="{y}" text-anchor="middle"{looks}>{spans}</text>'
    text = "".join(part.chars).rstrip(" ")
    x = part.start + len(text) - len(text.lstrip(" "))
    text = text.lstrip(" ")
    if not text:
        return ""
    return (f'<text x="{_n(x * CELL_WIDTH)}" y="{y}" textLength="{_n(len(text) * CELL_WIDTH)}" '
            f'lengthAdjust="spacingAndGlyphs"{looks}>{_marked_up(text)}</text>')


def _escaped_cell(char):
    """One cell's character; a combining one gets a blank to sit on."""
    text = _escaped(char)
    return "\u00a0" + text if text and unicodedata.combining(text[0]) else text


def _svg_decorations(group, top):
    style, x0, x1 = group.style, group.start * CELL_WIDTH, group.end * CELL_WIDTH
    for is_on, y in ((style.strike, top + 8.5), (style.overline, top + 0.5)):
        if is_on:
            yield f'<path d="M{_n(x0)} {_n(y)}H{_n(x1)}" stroke="{style.fg}"/>'
    if style.underline:
        data, more = _underline(style.underline, x0, x1, top)
        yield f'<path d="{data}" fill="none" stroke="{style.underline_colour}"{more}/>'


def _underline(kind, x0, x1, top):
    """(path data, further attributes): single, double, curly, dotted, dashed."""
    y = top + 15.5
    line = f"M{_n(x0)} {_n(y)}H{_n(x1)}"
    if kind == 2:
        return f"M{_n(x0)} {_n(y - 1)}H{_n(x1)}M{_n(x0)} {_n(y + 1)}H{_n(x1)}", ""
    if kind == 3:
        half = CELL_WIDTH / 2
        return (f"M{_n(x0)} {_n(y - 0.5)}q{_n(half / 2)} -2.5 {_n(half)} 0"
                + f"t{_n(half)} 0" * (round((x1 - x0) / half) - 1)), ""
    return line, {4: ' stroke-dasharray="1.4 1.4"', 5: ' stroke-dasharray="4.2 2.1"'}.get(kind, "")


def _svg_cursor(group, top):
    shape, colour = group.style.cursor
    x, width = group.start * CELL_WIDTH, (group.end - group.start) * CELL_WIDTH
    box = (x, top, 2, CELL_HEIGHT) if shape == "bar" else (x, top + CELL_HEIGHT - 2, width, 2)
    return '<rect x="%s" y="%s" width="%s" height="%s"' % tuple(map(_n, box)) + f' fill="{colour}"/>'


# --- HTML --------------------------------------------------------------------------------

_CSS = """\
body{margin:16px;background:#fff}
@media(prefers-color-scheme:dark){body{background:#1b1b1b}}
.window{display:inline-block;border-radius:8px;overflow:hidden;background:BACKGROUND;color:FOREGROUND;\
font:14px/17px FONTS;font-variant-ligatures:none}
.bar{position:relative;height:30px;line-height:30px;background:#2d2d2d;color:#c8c8c8;font-size:13px}
.bar b{position:absolute;left:72px;right:72px;text-align:center;font-weight:normal;white-space:pre;\
overflow:hidden;text-overflow:ellipsis}
.bar i{float:left;width:12px;height:12px;margin:9px 0 0 6px;border-radius:6px}
.bar i:first-child{margin-left:12px}
.screen{margin:12px;width:COLSch;white-space:pre;unicode-bidi:bidi-override;direction:ltr;overflow:hidden}
.screen div{position:relative;height:17px;width:max-content}
.screen span,.screen a,.screen i{display:inline-block;height:17px;vertical-align:top}
.screen a{color:inherit;text-decoration:none}
.screen i{width:1ch;font-style:inherit;text-align:center;text-decoration:inherit}
.screen i.w{width:2ch}
.screen i.d{text-align:left;-webkit-text-fill-color:transparent}
.screen svg{position:absolute;left:0;top:0;width:COLSch;height:17px;pointer-events:none}"""

_LINE_STYLES = {1: "solid", 2: "double", 3: "wavy", 4: "dotted", 5: "dashed"}


def render_html(screen, history=0, title=None):
    """A page that needs nothing but itself; its title is the screen's unless given."""
    colours, rows = _picture(screen, history)
    title = screen.title or "" if title is None else title
    classes = {}
    body = [_html_row(row, classes, screen.size[0], _hex(colours.fg)) for row in rows]
    return _html_page(title, _html_css(screen.size[0], _hex(colours.fg), _hex(colours.bg), classes), body)


def _html_css(cols, fg, bg, classes):
    css = _CSS.replace("BACKGROUND", bg).replace("FOREGROUND", fg).replace("FONTS", _FONTS).replace("COLS", str(cols))
    return css + "".join(f"\n.screen .{name}{{{rules}}}" for rules, name in classes.items())


def _html_page(title, css, rows, policy="", after=""):
    """`policy`: more of the page's Content-Security-Policy; `after`: what stands below the screen."""
    shown = _escaped(title)
    return "\n".join([
        "<!DOCTYPE html>", '<html lang="en">', "<head>", '<meta charset="utf-8"/>',
        '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; style-src \'unsafe-inline\''
        + policy + '"/>',
        '<meta name="viewport" content="width=device-width"/>',
        f"<title>{shown}</title>", f"<style>\n{css}\n</style>", "</head>", "<body>", '<div class="window">',
        '<div class="bar">' + "".join(f'<i style="background:{colour}"></i>' for colour, _ in _BUTTONS)
        + f"<b>{shown}</b></div>",
        '<div class="screen">' + "".join(rows) + "</div>" + after, "</div>", "</body>", "</html>", ""])


def _html_row(row, classes, cols, default_fg):
    """One <div>; `classes` (rules -> name) grows by the styles that are new."""
    out, drawn = [], []
    for group in row:
        inner = "".join(map(_html_part, group.parts))
        drawn += [_drawn(part, group.style, 0) for part in group.parts if part.kind == "drawn"]
        rules = _html_rules(group.style, default_fg)
        kind = f' class="{classes.setdefault(rules, f"s{len(classes)}")}"' if rules else ""
        if group.style.link:
            inner = f'<a{kind} href="{_escaped(group.style.link)}" rel="noopener noreferrer nofollow">{inner}</a>'
        elif kind:
            inner = f"<span{kind}>{inner}</span>"
        out.append(inner)
    if drawn:
        # One picture a row, from its left edge: each by itself would begin at a pixel of its own.
        out.append(f'<svg viewBox="0 0 {_n(cols * CELL_WIDTH)} {CELL_HEIGHT}" preserveAspectRatio="none">'
                   + "".join(drawn) + "</svg>")
    return "<div>" + "".join(out) + "</div>"


def _html_part(part):
    if part.kind == "placed":
        return "".join([('<i class="w">' if count == 2 else "<i>") + _escaped_cell(char) + "</i>"
                        for _, count, char in _places(part)])
    text = "".join(part.chars)
    return _marked_up(text) if part.kind == "text" else f'<i class="d" style="width:{len(text)}ch">{text}</i>'


def _html_rules(style, default_fg):
    rules = []
    if style.fg != default_fg:
        rules.append(f"color:{style.fg}")
    if style.bg:
        rules.append(f"background-color:{style.bg}")
    if style.bold:
        rules.append("font-weight:bold")
    if style.italic:
        rules.append("font-style:italic")
    if style.underline:
        rules.append(f"text-decoration:underline {_LINE_STYLES[style.underline]} {style.underline_colour}")
    # Not as text-decoration: all lines of one have the same style and colour.
    lines = [place for is_on, place in ((style.strike, "0 8px"), (style.overline, "0 0")) if is_on]
    if lines:
        rules.append("background-image:" + ",".join(["linear-gradient(currentColor,currentColor)"] * len(lines)))
        rules.append("background-position:" + ",".join(lines))
        rules.append("background-size:100% 1px;background-repeat:no-repeat")
    if style.cursor:
        shape, colour = style.cursor
        rules.append(f"box-shadow:inset {'2px 0' if shape == 'bar' else '0 -2px'} {colour}")
    return ";".join(rules)


# --- moving pictures -----------------------------------------------------------------------

_COLS_MAX = 1000                                # of a screen that is drawn row by row


class RowPainter:
    """The rows of one screen, time after time, as markup: equal rows are equal text.

    A subclass says in what. Colours are those of a screen on which nobody has set any; a row
    that has others brings them along.
    """

    fg, bg = _hex(FOREGROUND), _hex(BACKGROUND)

    def __init__(self):
        self._colours = {}              # what a screen's colours depend on -> _Colours
        self._known = {}                # what a row's markup depends on -> (markup, what keeps ids good)

    def rows(self, screen):
        """The markup of each row of the screen, the cursor in it."""
        key = bool(screen.modes.get("reverse_video")), tuple(screen.palette.items())
        colours = self._colours.get(key) or self._colours.setdefault(key, _Colours(screen))
        cursor = screen.cursor
        out = []
        for y, line in enumerate(screen.lines):
            is_here = cursor.is_visible and y == cursor.y and 0 <= cursor.x < len(line.chars)
            look = (key, tuple(line.chars), tuple(map(id, line.attrs)),
                    (cursor.x, cursor.shape) if is_here else None)
            known = self._known.get(look)
            if known is None:
                row = _row(line, colours, screen.size[0], cursor if is_here else None)
                known = self._known[look] = self._paint(row, colours), tuple(line.attrs)
            out.append(known[0])
        return out

    def _paint(self, row, colours):
        raise NotImplementedError


class HtmlRows(RowPainter):
    """Rows as <div>."""

    def __init__(self):
        super().__init__()
        self._classes = {}

    def _paint(self, row, colours):
        if not row and _hex(colours.bg) == self.bg:
            return ""
        markup = _html_row(row, self._classes, _COLS_MAX, self.fg)
        if _hex(colours.bg) != self.bg:
            markup = f'<div style="background:{_hex(colours.bg)};min-width:{_COLS_MAX}ch">' + markup[len("<div>"):]
        return markup

    def page(self, size, title, shown, more_css, policy, after):
        """A page with these rows on its screen, and what is to be below it."""
        css = _html_css(size[0], self.fg, self.bg, self._classes).replace(
            f"top:0;width:{size[0]}ch", f"top:0;width:{_COLS_MAX}ch")
        rows = [f"<div>{row}</div>" for row in shown]
        return _html_page(title, css + more_css, rows, policy, after)


class SvgRows(RowPainter):
    """Rows as elements whose top is 0."""

    def _paint(self, row, colours):
        out = _svg_row(row, 0, self.fg)
        if _hex(colours.bg) != self.bg:
            out.insert(0, f'<rect width="{_n(_COLS_MAX * CELL_WIDTH)}" height="{CELL_HEIGHT}" '
                          f'fill="{_hex(colours.bg)}"/>')
        return "".join(out)

    def window(self, size, title, body):
        """A picture of a window around these elements."""
        box = f'<svg width="{_n(size[0] * CELL_WIDTH)}" height="{size[1] * CELL_HEIGHT}">'
        return _svg_window(size, title, self.fg, self.bg, [box] + body + ["</svg>"])


FORMATS = {"text": render_text, "ansi": render_ansi, "json": render_json,
           "html": render_html, "svg": render_svg}
