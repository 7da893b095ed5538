r"""Named keys: which bytes a terminal sends for them.

The names are tmux's (key-string.c).  The bytes are xterm's, the terminal that a session's
TERM promises: ctlseqs.ms, "PC-Style Function Keys", and terminfo's xterm-256color, by
which F13 to F24 are Shift and F1 to F12.

Rule 1: a word is a key, or it is refused with the nearest key named.  Only where
        `takes_text` asks for it, as tmux's send-keys has it, such a word is typed.
Rule 2: no modifier is dropped.  A terminal has no code for Shift and Enter, and whoever
        asks for these two must not get Enter alone: that is refused, in text too.
Rule 3: the six cursor keys without modifiers are ESC O x in application cursor mode
        (DECCKM) and ESC [ x outside it.  Nothing else depends on what the program wants.

Upper and lower case are one in names and prefixes, and two in single characters.  Words
are text as argv brings it: bytes that are no UTF-8 are lone surrogates, and go out as
those bytes.

Not handled: application keypad mode (keypad keys are those with Num Lock on), and what
modifyOtherKeys and kitty's protocol have codes for besides.
"""

from .errors import UsageError

# As xterm counts them: a modified key's parameter is 1 more than their sum.
SHIFT, ALT, CTRL = 1, 2, 4
PREFIXES = {"C": CTRL, "M": ALT, "S": SHIFT}

# What a row's code is: a character, the same without Ctrl and Shift, the final letter of a
# sequence that begins with CSI (with SS3 in application cursor mode, or always), or the
# number before a tilde.
CHARACTER, KEYPAD, CURSOR, SS3, TILDE = "character", "keypad", "cursor", "ss3", "tilde"

SHOWN_CHARACTERS = 60          # of a caller's word in a message


# --- The tables -------------------------------------------------------------------

class Key:
    """One key: its names, the usual one first; how its code becomes bytes; modifiers it has."""

    __slots__ = ("names", "form", "code", "modifiers")

    def __init__(self, names, form, code, modifiers=0):
        self.names = tuple(names.split())
        self.form = form
        self.code = code
        self.modifiers = modifiers


_FUNCTION_CODES = ((SS3, "P"), (SS3, "Q"), (SS3, "R"), (SS3, "S"), (TILDE, "15"), (TILDE, "17"),
                   (TILDE, "18"), (TILDE, "19"), (TILDE, "20"), (TILDE, "21"), (TILDE, "23"),
                   (TILDE, "24"))

GROUPS = (
    ("editing", (
        Key("Enter", CHARACTER, "\r"),
        Key("Tab", CHARACTER, "\t"),
        Key("BTab", CHARACTER, "\t", SHIFT),
        Key("Escape", CHARACTER, "\x1b"),
        Key("Space", CHARACTER, " "),
        Key("BSpace", CHARACTER, "\x7f"),
        Key("Delete DC", TILDE, "3"),
        Key("Insert IC", TILDE, "2"))),
    ("cursor", (
        Key("Up", CURSOR, "A"),
        Key("Down", CURSOR, "B"),
        Key("Right", CURSOR, "C"),
        Key("Left", CURSOR, "D"),
        Key("Home", CURSOR, "H"),
        Key("End", CURSOR, "F"),
        Key("PageUp PgUp PPage", TILDE, "5"),
        Key("PageDown PgDn NPage", TILDE, "6"))),
    ("function", tuple(
        Key(f"F{number + 12 * bool(shift)}", form, code, shift)
        for shift in (0, SHIFT)
        for number, (form, code) in enumerate(_FUNCTION_CODES, 1))),
    ("keypad", tuple(Key("KP" + char, KEYPAD, char) for char in "0123456789.+-*/")
        + (Key("KPEnter", KEYPAD, "\r"),)),
)

KEYS = tuple(key for _, group in GROUPS for key in group)

_BY_NAME = {name.lower(): key for key in KEYS for name in key.names}

# What Ctrl makes of a character: of those from @ on the last five bits, and of the others
# what keyboards without those had it on (Xlib, XLookupString).  Ctrl and Backspace is the
# other one of the two characters that delete backwards.
WITH_CTRL = {chr(code): chr(code & 0x1F) for code in range(ord("@"), ord("~") + 1)}
WITH_CTRL.update({" ": "\0", "2": "\0", "3": "\x1b", "4": "\x1c", "5": "\x1d", "6": "\x1e",
                  "7": "\x1f", "8": "\x7f", "/": "\x1f", "-": "\x1f", "?": "\x7f", "\x7f": "\b"})

_SHIFT_TAB = "\x1b[Z"

# How others spell names and prefixes.  Only refusals know these words: to send-keys they
# are text, and `return` is a command of shells.
_OTHER_NAMES = {
    "return": "Enter", "ret": "Enter", "cr": "Enter", "newline": "Enter", "esc": "Escape",
    "backspace": "BSpace", "bs": "BSpace", "del": "Delete", "ins": "Insert", "spc": "Space",
    "spacebar": "Space", "backtab": "BTab", "prior": "PageUp", "next": "PageDown",
}
_OTHER_PREFIXES = {
    "ctrl": "C-", "control": "C-", "ctl": "C-", "c": "C-", "alt": "M-", "meta": "M-",
    "option": "M-", "a": "M-", "m": "M-", "shift": "S-", "s": "S-",
}


# --- From words to bytes -----------------------------------------------------------

def encode(words, is_application, takes_text=False):
    """The bytes of these keys.  UsageError names the first word that is none."""
    return b"".join(pieces(words, is_application, takes_text))


def pieces(words, is_application, takes_text=False):
    """The bytes of each of these keys, as a list."""
    return [_encode_word(word, is_application, takes_text) for word in words]


def wants_mode(words):
    """Do the bytes of any of these keys depend on application cursor mode?"""
    return any(key is not None and key.form == CURSOR and not modifiers
               for key, modifiers in map(_find, words))


def literal(words):
    """The bytes of the words as they are, nothing between them."""
    return b"".join(map(_as_bytes, words))


def hex_keys(words):
    """The bytes that these words spell in hexadecimal: `d`, `1b`, `0x1b`, `1b5b41`."""
    return b"".join(map(_hex_bytes, words))


def _encode_word(word, is_application, takes_text):
    key, modifiers = _find(word)
    if key is None:
        if takes_text:
            return _as_bytes(word)
        raise _unknown(word)
    data = _key_bytes(key, modifiers, is_application)
    if data is None:
        raise UsageError(f"a terminal has no code for this key with these modifiers: {_shown(word)}",
                         hint="name the character that it makes; -l types the word itself")
    return data


def _find(word):
    """(Key, modifiers in all) that `word` means; (None, 0) when it is no key."""
    modifiers, base = _split(word)
    if len(base) == 1:
        return Key("", CHARACTER, base), modifiers
    key = _BY_NAME.get(base.lower()) if base.isascii() else None
    return (None, 0) if key is None else (key, modifiers | key.modifiers)


def _split(word):
    """(modifiers, the rest of the word): a prefix with nothing behind it is none."""
    modifiers, at = 0, 0
    while True:
        letter, dash = word[at:at + 1], word[at + 1:at + 2]
        if dash == "-" and at + 2 < len(word) and letter in "CMScms":
            modifiers |= PREFIXES[letter.upper()]
            at += 2
        elif letter == "^" and dash:
            modifiers |= CTRL
            at += 1
        else:
            return modifiers, word[at:]


def _key_bytes(key, modifiers, is_application):
    """The bytes, or None when a terminal has no code for that."""
    if key.form in (CHARACTER, KEYPAD):
        return _character(key, modifiers)
    parameter = f";{1 + modifiers}" if modifiers else ""
    if key.form == TILDE:
        return f"\x1b[{key.code}{parameter}~".encode("ascii")
    if modifiers:
        return f"\x1b[1{parameter}{key.code}".encode("ascii")
    introducer = "O" if is_application or key.form == SS3 else "["
    return f"\x1b{introducer}{key.code}".encode("ascii")


def _character(key, modifiers):
    without_alt = modifiers & ~ALT
    if not without_alt:
        text = key.code
    elif key.form == KEYPAD:
        text = None
    elif without_alt == CTRL:
        text = WITH_CTRL.get(key.code)
    else:
        text = _shifted(key.code) if without_alt == SHIFT else None
    if text is None:
        return None
    return (b"\x1b" if modifiers & ALT else b"") + _as_bytes(text)


def _shifted(char):
    """What Shift makes of it.  Of what is no letter only the keyboard knows: None."""
    if char == "\t":
        return _SHIFT_TAB
    upper = char.upper()
    return upper if len(upper) == 1 and upper.lower() != upper else None


def _as_bytes(text):
    try:
        return text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        raise UsageError(f"this cannot be typed: {_shown(text)}") from None


def _hex_bytes(word):
    digits = word[2:] if word[:2] in ("0x", "0X") else word
    is_whole = len(digits) == 1 or len(digits) % 2 == 0
    # bytes.fromhex would pass over white space.
    if digits and is_whole and not digits.strip("0123456789abcdefABCDEF"):
        return bytes.fromhex(digits.zfill(2))
    raise UsageError(f"not bytes in hexadecimal: {_shown(word)}",
                     hint="two digits a byte, such as 1b or 1b5b41")


# --- Refusing ----------------------------------------------------------------------

def _unknown(word):
    near = _nearest(word)
    return UsageError(f"unknown key: {_shown(word)}" + (f" (nearest: {near})" if near else ""),
                      hint="ptyguard help key lists them, send types text")


def _nearest(word):
    """The key that was meant, as one would write it here; "" when none is near."""
    word = word[:SHOWN_CHARACTERS]          # difflib is quadratic
    prefixes, base = _other_prefixes(word.strip("<>"))
    if len(base) == 1:
        found = base.lower() if "C-" in prefixes else base
    else:
        found = _OTHER_NAMES.get(base.lower()) or _near_name(base)
    return prefixes + found if found and _is_key(prefixes + found) else found


def _other_prefixes(word):
    """(prefixes as they are written here, the rest) of `Ctrl+Alt-x` and the like."""
    prefixes = ""
    while True:
        separators = [at for at in map(word.find, "-+") if 0 < at < len(word) - 1]
        prefix = _OTHER_PREFIXES.get(word[:min(separators)].lower()) if separators else None
        if prefix is None:
            return prefixes, word
        prefixes += prefix
        word = word[min(separators) + 1:]


def _near_name(base):
    import difflib             # only a mistake pays for it (and for re, behind it)
    names = {name.lower(): name for key in KEYS for name in key.names}
    found = difflib.get_close_matches(base.lower(), names, 1, 0.6)
    return names[found[0]] if found else ""


def _is_key(word):
    key, modifiers = _find(word)
    return key is not None and _key_bytes(key, modifiers, False) is not None


def _shown(word):
    return repr(word if len(word) <= SHOWN_CHARACTERS else word[:SHOWN_CHARACTERS] + "...")


# --- The list ----------------------------------------------------------------------

MODIFIERS = (
    ("C-", "Ctrl", "C-c, or ^c; C-Space; C-Up"),
    ("M-", "Alt", "M-x, which is Escape and x; C-M-x; M-Enter"),
    ("S-", "Shift", "S-F5; S-Tab, which is BTab"),
)
LINE_COLUMNS = 80


def listing():
    """Every named key as a dict: name, aliases, group, and its bytes in hexadecimal."""
    return [{"name": key.names[0], "aliases": list(key.names[1:]), "group": group,
             "hex": _key_bytes(key, key.modifiers, False).hex(),
             "hex_application": _key_bytes(key, key.modifiers, True).hex()}
            for group, keys in GROUPS for key in keys]


def modifiers_listing():
    """Every prefix as a dict."""
    return [{"prefix": prefix, "name": name} for prefix, name, _ in MODIFIERS]


def list_lines():
    """The list of names for people, as lines."""
    lines = ["keys (upper and lower case are one; = is another name):"]
    for group, keys in GROUPS:
        lines += _wrapped(f"  {group + ':':<10}", ["=".join(key.names) for key in keys])
    lines += ["  any single character, in its own case", "", "before a key:"]
    return lines + [f"  {prefix:<10}{name + ',':<7} as in {examples}"
                    for prefix, name, examples in MODIFIERS]


def _wrapped(label, words):
    lines = [label.rstrip()]
    for word in words:
        indented = lines[-1].ljust(len(label))
        room = indented + ("" if indented.endswith(" ") else " ") + word
        if len(room) > LINE_COLUMNS:
            lines.append(" " * len(label) + word)
        else:
            lines[-1] = room
    return lines
