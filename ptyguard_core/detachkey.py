r"""The detach key: what a human presses to get out, found in what the terminal sends.

One key has many shapes.  `Ctrl-\` comes as the byte 0x1C; from a terminal that a
program has switched to the kitty keyboard protocol as `CSI 92;5u`, with more fields
when more was asked for; under xterm's modifyOtherKeys as `CSI 27;5;92~`.  The session's
program decides which, so all are looked for, always.

Rule 1: whatever is not the key is passed on unchanged and in order.  Bytes that may
        be the beginning of it are held, and passed on when they were not.
Rule 2: how the bytes were cut into reads makes no difference.
Rule 3: a paste is not typing.  Between ESC [200~ and ESC [201~ nothing is looked for:
        a pasted 0x1C must not detach.  (Terminals bracket pastes only when the program
        asked for it; an unbracketed one cannot be told from typing.)
Rule 4: ESC and a control byte are two keys.  Whoever leaves insert mode and detaches in
        one go wants to detach, and nobody else sends Alt-Ctrl-\ as often.

A chord (`C-b d`) is held from its first key to its second, for as long as it takes.
Mouse movement, focus, answers to queries, modifiers on their own and released keys come
in between without being keys: they neither complete a chord nor break it, and are held
with it.

Sources: sw.kovidgoyal.net/kitty/keyboard-protocol; xterm's ctlseqs.ms, modifyOtherKeys.
"""

from . import errors
from .terminal import Pattern

DEFAULT = "C-\\"

# What people's fingers know from elsewhere.
PRESETS = {
    "tmux": "C-b d",
    "screen": "C-a d",
    "shpool": "C-Space C-q",
    "none": "",
}

_SHIFT, _ALT, _CTRL = 1, 2, 4
_LOCKS = 64 | 128               # caps lock, num lock: not held down, so no part of a key

_PREFIXES = {"C-": _CTRL, "^": _CTRL, "M-": _ALT}
_NAMES = {"space": " ", "\\\\": "\\"}        # one backslash too many is a matter of quoting
_ACCEPTED = ("accepted are C-x or ^x (x: a letter but i and m, Space, or one of @ \\ ] ^ _), "
             "M-x, a chord of two keys such as 'C-b d', and %s" % ", ".join(PRESETS))

# Not [, i, m and ?: those are Escape, Tab, Enter and Backspace.
_WITH_CTRL = frozenset("abcdefghjklnopqrstuvwxyz @\\]^_")
# ESC and one of these begins a sequence: answers of the terminal would detach.
_NOT_WITH_ALT = frozenset("[OP]^_X")


class Stroke:
    """One key going down: the code point it has without Ctrl, the modifiers, the old bytes."""

    __slots__ = ("code", "mods", "legacy")

    def __init__(self, code, mods, legacy):
        self.code = code
        self.mods = mods
        self.legacy = legacy

    def is_in(self, token):
        """Is `token`, one complete key or sequence, this stroke?"""
        if not token.startswith(b"\x1b["):
            return token == self.legacy
        return (self.code, self.mods) in _candidates(token)


class DetachKey:
    """A detach key: no stroke (`none`), one, or the two of a chord."""

    __slots__ = ("text", "strokes")

    def __init__(self, text, strokes):
        self.text = text
        self.strokes = tuple(strokes)

    def __repr__(self):
        return "DetachKey(%r)" % self.text


def parse(text):
    r"""Return the DetachKey that `text` names: `C-\`, `^x`, `M-x`, `C-b d`, or a preset.

    Its `text` is spelled as C-x and M-x, for messages.  Raises UsageError.
    """
    preset = PRESETS.get(text.strip().lower())
    # Not split(): to that a raw 0x1C is white space.
    words = [word for word in (text if preset is None else preset).split(" ") if word]
    if len(words) > 2 or not words and preset is None:
        raise _not_a_key(text, "it has %d keys" % len(words))
    strokes = [_parse_stroke(word, text) for word in words]
    if strokes and not strokes[0].mods & (_CTRL | _ALT):
        raise _not_a_key(text, "its first key could not be typed any more")
    return DetachKey(" ".join(map(_spell, strokes)) or "none", strokes)


def _parse_stroke(word, text):
    mods, char = 0, word
    while len(char) > 1 and char.lower() not in _NAMES:
        prefix = next((p for p in _PREFIXES if char[:len(p)].upper() == p), None)
        if prefix is None:
            raise _not_a_key(text, "there is no key %r" % char)
        mods |= _PREFIXES[prefix]
        char = char[len(prefix):]
    char = _NAMES.get(char.lower(), char)
    return _stroke(char, mods, word, text)


def _stroke(char, mods, word, text):
    if len(char) != 1 or not " " <= char <= "~":
        raise _not_a_key(text, "%r does not end in a printable ASCII character" % word)
    if mods == _CTRL | _ALT:
        raise _not_a_key(text, "%r cannot be told from Escape and a key" % word)
    if mods & _CTRL:
        char = char.lower()
        if char not in _WITH_CTRL:
            raise _not_a_key(text, "%r is another key to a terminal, or none" % word)
        byte = bytes([ord(char.upper()) & 0x1F])
        char = " " if char == "@" else char             # both are NUL
    else:
        byte = char.encode("ascii")
    if mods == _ALT and char in _NOT_WITH_ALT:
        raise _not_a_key(text, "%r looks like the beginning of something else" % word)
    legacy = b"\x1b" + byte if mods & _ALT else byte
    if char.isupper():
        char, mods = char.lower(), mods | _SHIFT
    return Stroke(ord(char), mods, legacy)


def _spell(stroke):
    char = chr(stroke.code)
    return ("M-" * bool(stroke.mods & _ALT) + "C-" * bool(stroke.mods & _CTRL)
            + ("Space" if char == " " else char.upper() if stroke.mods & _SHIFT else char))


def _not_a_key(text, why):
    return errors.UsageError("not a detach key: %r: %s" % (text, why), hint=_ACCEPTED)


# --- the shapes of a key ------------------------------------------------------------

# Bound on what is held of a chord.
_LONGEST_CHORD = 4096

_PASTE_BEGIN = b"\x1b[200~"
_PASTE_END = b"\x1b[201~"

# One key or report, or what a key can begin with and then is not one.
_TOKEN = Pattern(
    rb"(?s:\x1b\[[0-?]{0,56}[ -/]{0,4}[@-~]"            # CSI
    rb"|\x1bO[ -~]"                                 # SS3: cursor and function keys
    rb"|\x1b[ -NP-Z\\-~]"                           # Alt and a key
    rb"|\x1b(?:\[[ -?]*)?"                          # neither (rule 4: ESC and a control byte)
    rb"|[^\x1b])")

_BEGUN = Pattern(rb"\x1b(?:\[[0-?]{0,56}[ -/]{0,4}|O)?\Z")

_KITTY = Pattern(
    rb"\x1b\[([0-9]+)(?::([0-9]*))?(?::([0-9]*))?"          # code, shifted, on a US keyboard
    rb"(?:;([0-9]*)(?::([0-9]*))?(?:;([0-9]*)[0-9:]*)?)?u")     # modifiers, event, text
_OTHER_KEYS = Pattern(rb"\x1b\[27;([0-9]+);([0-9]+)~")

_RELEASE = 3

# Between the keys of a chord these are no keys: mouse, focus, answers to queries, and in
# kitty's functional key codes the locks and the modifiers themselves.
_REPORT = Pattern(
    rb"\x1b\[(?:[<?>][0-?]*[ -/]*[@-~]|[IO]|[0-9;]+[MRnt])")
_MODIFIER_KEYS = frozenset([57358, 57359, 57360]) | frozenset(range(57441, 57455))


def _fields(match):
    return [int(field) if field else 0 for field in match.groups()]


def _candidates(token):
    """The (code point, modifiers) that a key's escape sequence may stand for; none for others."""
    match = _KITTY.fullmatch(token)
    if match:
        code, shifted, base, mods, event, text = _fields(match)
        return () if event == _RELEASE else _kitty_candidates(code, shifted, base, mods, text)
    match = _OTHER_KEYS.fullmatch(token)
    if match:
        mods, code = _fields(match)
        return _other_keys_candidates(code, _held_down(mods))
    return ()


def _held_down(mods):
    return max(mods - 1, 0) & ~_LOCKS


def _kitty_candidates(code, shifted, base, mods, text):
    mods = _held_down(mods)
    found = [(code, mods)]
    if mods & _SHIFT:
        # `code` is the key without Shift; where Shift makes the character, it is used up.
        found += [(char, mods & ~_SHIFT) for char in (shifted, text)
                  if char and not _is_letter(char)]
    if base and code > 127:
        # On a Cyrillic keyboard Ctrl and the key where US keyboards have b is C-b.
        found.append((base, mods))
    return [_space_for_at(pair) for pair in found]


def _other_keys_candidates(code, mods):
    # Here `code` is the character with Shift applied, and with caps lock.
    if _is_letter(code):
        return [(code | 0x20, mods)]
    return [_space_for_at((code, mods)), _space_for_at((code, mods & ~_SHIFT))]


def _space_for_at(pair):
    code, mods = pair
    return (32, mods) if code == 64 and mods & _CTRL else pair


def _is_letter(code):
    return 65 <= code <= 90 or 97 <= code <= 122


def _is_released(stroke, token):
    match = token.endswith(b"u") and _KITTY.fullmatch(token)
    if not match:
        return False
    code, shifted, base, mods, event, text = _fields(match)
    return event == _RELEASE and (stroke.code, stroke.mods) in _kitty_candidates(
        code, shifted, base, mods, text)


def _is_no_key(token):
    match = _KITTY.fullmatch(token)
    if match:
        code, _, _, _, event, _ = _fields(match)
        return event == _RELEASE or code in _MODIFIER_KEYS
    return _REPORT.fullmatch(token) is not None


# --- finding it ----------------------------------------------------------------------


class Matcher:
    """Looks for one DetachKey in the terminal's input, read by read.

    `is_holding_escape` says that the last bytes are the beginning of an escape
    sequence, or the Escape key.  When nothing has followed for some 50 ms it is the
    key: the caller then forwards what `flush` returns.  A chord's first key alone is
    not a matter of time.
    """

    def __init__(self, key):
        self._first = key.strokes[0] if key.strokes else None
        self._last = key.strokes[-1] if key.strokes else None
        self._is_chord = len(key.strokes) == 2
        # Control bytes, both: none is special inside a class.
        self._interesting = self._first and Pattern(b"[\x1b" + self._first.legacy[:1] + b"]")
        self._chord = b""           # a chord's first key, and reports after it
        self._begun = b""           # an incomplete sequence
        self._is_pasting = False
        self._paste_tail = b""      # forwarded, but may be the front of _PASTE_END

    @property
    def is_holding_escape(self):
        """Is the start of an escape sequence held?"""
        return bool(self._begun)

    @property
    def is_pasting(self):
        """Has a bracketed paste begun and not ended?"""
        return self._is_pasting

    def flush(self):
        """Return all that is held, and hold it no longer."""
        held = self._chord + self._begun
        self._chord = self._begun = b""
        return held

    def begin_paste(self):
        """A paste has begun elsewhere, and its end is to come here."""
        self._is_pasting = True

    def end_paste(self):
        """Look for the key again although the paste has no end.

        For a caller that has seen a second of silence: a terminal that loses the end
        marker must not cost the user the detach key.
        """
        self._is_pasting = False
        self._paste_tail = b""

    def feed(self, data):
        """Return (forward, is_detach, rest) for the next bytes from the terminal.

        `forward` is what goes to the session now.  With `is_detach` the key was
        pressed, and `rest` is what came after it, which is not the session's.
        """
        if self._first is None:
            return data, False, b""
        data, self._begun = self._begun + data, b""
        forward = []
        at = 0
        while at < len(data):
            end = self._pass_over(data, at)
            if end > at:
                forward.append(data[at:end])
                at = end
                continue
            begun = _BEGUN.match(data, at)
            if begun:
                self._begun = begun.group()
                break
            token = _TOKEN.match(data, at).group()
            at += len(token)
            if self._take(token, forward):
                self._chord = b""
                return b"".join(forward), True, data[at:]
        return b"".join(forward), False, b""

    def _pass_over(self, data, at):
        """The index up to which nothing needs a look, or `at`."""
        if self._is_pasting:
            return self._pass_over_paste(data, at)
        if self._chord:
            return at
        match = self._interesting.search(data, at)
        return match.start() if match else len(data)

    def _pass_over_paste(self, data, at):
        # A paste is never held, so the end marker is looked for in what has gone before, too.
        seen = self._paste_tail + data[at:]
        found = seen.find(_PASTE_END)
        if found < 0:
            self._paste_tail = seen[1 - len(_PASTE_END):]
            return len(data)
        end = at + found + len(_PASTE_END) - len(self._paste_tail)
        self.end_paste()
        return end

    def _take(self, token, forward):
        """Deal with one token: is the detach key complete?"""
        if self._chord:
            return self._take_in_chord(token, forward)
        if self._first.is_in(token):
            if not self._is_chord:
                return True
            self._chord = token
        elif not self._is_chord and _is_released(self._first, token):
            pass            # of a press that was ours: the program knows nothing of it
        else:
            self._is_pasting = token == _PASTE_BEGIN
            forward.append(token)
        return False

    def _take_in_chord(self, token, forward):
        if self._last.is_in(token):
            return True
        if _is_no_key(token) and len(self._chord) + len(token) <= _LONGEST_CHORD:
            self._chord += token
            return False
        forward.append(self._chord)
        self._chord = b""
        if not self._first.is_in(token):        # twice the first key sends it once
            self._is_pasting = token == _PASTE_BEGIN
            forward.append(token)
        return False
