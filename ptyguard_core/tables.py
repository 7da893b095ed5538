"""The vocabulary of a terminal, as data: what screen.py understands.

Sequences are named by their last bytes with whatever marks them before their
parameters: "?h" is `CSI ? Pm h`, " q" is `CSI Ps SP q`.  The value is the name of
the method of `Screen` that carries it out, without its leading underscore.

Sources: ctlseqs.ms of xterm ("XTerm Control Sequences") and ECMA-48 for sequences
and modes, DEC STD 070 for what they do, sw.kovidgoyal.net/kitty/keyboard-protocol and
the "underlines" page there, gist.github.com/egmontkob (OSC 8), the FinalTerm marks of
iTerm2's documentation (OSC 133); Unicode 14 and 15 for widths.
"""

# --- control bytes ---------------------------------------------------------------------

# Those that are missing here do nothing: NUL, ENQ, BEL, XON, XOFF, CAN, SUB, DEL, and C1.
CONTROLS = {
    "\x08": "backspace",
    "\x09": "tab",
    "\x0a": "line_feed",
    "\x0b": "line_feed",
    "\x0c": "line_feed",
    "\x0d": "carriage_return",
    "\x0e": "shift_out",
    "\x0f": "shift_in",
}

# --- ESC ... ----------------------------------------------------------------------------

ESCAPES = {
    "7": "save_cursor",
    "8": "restore_cursor",
    "=": "keypad_application",
    ">": "keypad_numeric",
    "D": "index",
    "E": "next_line",
    "H": "set_tab_stop",
    "M": "reverse_index",
    "N": "single_shift_2",
    "O": "single_shift_3",
    "c": "reset",
    "n": "lock_shift_2",
    "o": "lock_shift_3",
    "#8": "alignment_test",
}

# Which of G0 to G3 an intermediate character designates.  "-./" are sets of 96.
CHARSET_SLOTS = {"(": 0, ")": 1, "*": 2, "+": 3, "-": 1, ".": 2, "/": 3}

# DEC special graphics (VT100 user guide, table 3-9), for 0x5F to 0x7E.
DEC_GRAPHICS = dict(zip(
    range(0x5F, 0x7F),
    " \u25c6\u2592\u2409\u240c\u240d\u240a\u00b0\u00b1\u2424\u240b\u2518\u2510\u250c\u2514"
    "\u253c\u23ba\u23bb\u2500\u23bc\u23bd\u251c\u2524\u2534\u252c\u2502\u2264\u2265\u03c0\u2260\u00a3\u00b7"))

# What a character becomes where another set than ASCII is shifted in.
CHARSETS = {"0": DEC_GRAPHICS, "A": {0x23: "\u00a3"}}

# --- CSI ... ----------------------------------------------------------------------------

CSI = {
    "@": "insert_characters",
    "A": "cursor_up",
    "B": "cursor_down",
    "C": "cursor_forward",
    "D": "cursor_back",
    "E": "cursor_next_line",
    "F": "cursor_previous_line",
    "G": "cursor_column",
    "H": "cursor_position",
    "I": "tab_forward",
    "J": "erase_display",
    "K": "erase_line",
    "L": "insert_lines",
    "M": "delete_lines",
    "P": "delete_characters",
    "S": "scroll_up",
    "T": "scroll_down_or_track",
    "X": "erase_characters",
    "Z": "tab_back",
    "^": "scroll_down",
    "`": "cursor_column",
    "a": "column_relative",
    "b": "repeat",
    "d": "cursor_row",
    "e": "row_relative",
    "f": "cursor_position",
    "g": "clear_tab_stop",
    "h": "set_ansi_modes",
    "l": "reset_ansi_modes",
    "m": "select_rendition",
    "r": "set_top_bottom_margins",
    "s": "set_left_right_margins",
    "t": "window_operation",
    "u": "restore_cursor",
    " @": "shift_left",
    " A": "shift_right",
    " q": "cursor_style",
    "!p": "soft_reset",
    "'}": "insert_columns",
    "'~": "delete_columns",
    "?J": "erase_display",      # selective: nothing is ever protected here
    "?K": "erase_line",
    "?W": "default_tab_stops",
    "?h": "set_private_modes",
    "?l": "reset_private_modes",
    "=u": "keyboard_set",
    ">u": "keyboard_push",
    "<u": "keyboard_pop",
    ">m": "modify_keys",
}

# --- OSC ... ----------------------------------------------------------------------------

OSC = {
    "0": "both_titles",
    "1": "set_icon_title",
    "2": "set_title",
    "4": "set_palette",
    "7": "set_cwd",
    "8": "set_link",
    "10": "set_foreground",
    "11": "set_background",
    "12": "set_cursor_colour",
    "104": "reset_palette",
    "110": "reset_foreground",
    "111": "reset_background",
    "112": "reset_cursor_colour",
    "133": "mark",
}

# OSC 10 sets these, one after the other when it has more than one colour.
DYNAMIC_COLOURS = ("foreground", "background", "cursor")

# --- modes ------------------------------------------------------------------------------

# DEC private modes: number: (name, value when set).  Several with one name exclude each
# other; a reset of any mouse mode switches the mouse off, one of an encoding only itself.
PRIVATE_MODES = {
    1: ("application_cursor", True),
    5: ("reverse_video", True),
    6: ("origin", True),
    7: ("autowrap", True),
    9: ("mouse", "x10"),
    12: ("cursor_blink", True),
    25: ("cursor_visible", True),
    45: ("reverse_wrap", True),
    66: ("application_keypad", True),
    69: ("left_right_margins", True),
    1000: ("mouse", "normal"),
    1002: ("mouse", "button"),
    1003: ("mouse", "any"),
    1004: ("focus_events", True),
    1005: ("mouse_encoding", "utf8"),
    1006: ("mouse_encoding", "sgr"),
    1007: ("alternate_scroll", True),
    1015: ("mouse_encoding", "urxvt"),
    1016: ("mouse_encoding", "sgr_pixels"),
    2004: ("bracketed_paste", True),
    2026: ("synchronised_output", True),
    2031: ("theme_reports", True),
    2048: ("size_reports", True),
}

# ANSI modes.
ANSI_MODES = {4: ("insert", True), 20: ("newline", True)}

# What a mode is on a terminal after a reset; False where it is not named.
MODE_DEFAULTS = {
    "autowrap": True,
    "cursor_visible": True,
    "keyboard_flags": 0,
    "modify_other_keys": 0,
    "mouse": None,
    "mouse_encoding": None,
}

# Modes that are acts: number: (on set, on reset).
MODE_ACTS = {
    47: ("enter_alternate", "leave_alternate"),
    1047: ("enter_alternate", "leave_alternate_clearing"),
    1048: ("save_cursor", "restore_cursor"),
    1049: ("enter_alternate_saving", "leave_alternate_restoring"),
}

# What else happens when a mode is set or reset.
MODE_EFFECTS = {"origin": "home", "left_right_margins": "columns_margins_switched"}

# What DECSTR puts back (xterm, ReallyReset): the rest stays.
SOFT_RESET_MODES = ("application_cursor", "application_keypad", "autowrap", "cursor_visible", "insert",
                    "left_right_margins", "origin", "reverse_wrap", "modify_other_keys")

# DECSCUSR: (shape, is_blinking).
CURSOR_STYLES = {
    0: ("block", False),        # the terminal's own
    1: ("block", True),
    2: ("block", False),
    3: ("underline", True),
    4: ("underline", False),
    5: ("bar", True),
    6: ("bar", False),
}

# --- colours ----------------------------------------------------------------------------

# xterm's, as in its XTerm-col.ad.
PALETTE = ((0x00, 0x00, 0x00), (0xcd, 0x00, 0x00), (0x00, 0xcd, 0x00), (0xcd, 0xcd, 0x00),
           (0x00, 0x00, 0xee), (0xcd, 0x00, 0xcd), (0x00, 0xcd, 0xcd), (0xe5, 0xe5, 0xe5),
           (0x7f, 0x7f, 0x7f), (0xff, 0x00, 0x00), (0x00, 0xff, 0x00), (0xff, 0xff, 0x00),
           (0x5c, 0x5c, 0xff), (0xff, 0x00, 0xff), (0x00, 0xff, 0xff), (0xff, 0xff, 0xff))
FOREGROUND, BACKGROUND = (0xe5, 0xe5, 0xe5), (0x00, 0x00, 0x00)


def palette_colour(index):
    """Colour `index` of 256: xterm's 16, the cube, the greys."""
    if index < 16:
        return PALETTE[index]
    if index >= 232:
        return (8 + 10 * (index - 232),) * 3
    index -= 16
    return tuple(55 + 40 * level if level else 0 for level in (index // 36, index // 6 % 6, index % 6))


# --- SGR --------------------------------------------------------------------------------

# Number: fields of Attr that become something else.
SGR = {
    1: {"bold": True},
    2: {"faint": True},
    3: {"italic": True},
    4: {"underline": 1},
    5: {"blink": True},
    6: {"blink": True},
    7: {"inverse": True},
    8: {"invisible": True},
    9: {"strike": True},
    21: {"underline": 2},
    22: {"bold": False, "faint": False},
    23: {"italic": False},
    24: {"underline": 0},
    25: {"blink": False},
    27: {"inverse": False},
    28: {"invisible": False},
    29: {"strike": False},
    39: {"fg": None},
    49: {"bg": None},
    53: {"overline": True},
    55: {"overline": False},
    59: {"underline_colour": None},
}
for _index in range(8):
    SGR[30 + _index] = {"fg": _index}
    SGR[40 + _index] = {"bg": _index}
    SGR[90 + _index] = {"fg": 8 + _index}
    SGR[100 + _index] = {"bg": 8 + _index}

SGR_COLOURS = {38: "fg", 48: "bg", 58: "underline_colour"}
UNDERLINE_STYLES = 5            # `4:0` to `4:5`

# --- widths -----------------------------------------------------------------------------

# Where `unicodedata` does not say what terminals do, or says it in newer versions only.
# (first, last, columns).
WIDTH_CORRECTIONS = (
    (0x00AD, 0x00AD, 1),        # soft hyphen: Cf, and one column in wcwidth of glibc (utf8_gen.py)
    (0x0600, 0x0605, 1),        # signs that stand before numbers: Prepended_Concatenation_Mark,
    (0x06DD, 0x06DD, 1),        #   the same source
    (0x070F, 0x070F, 1),
    (0x0890, 0x0891, 1),
    (0x08E2, 0x08E2, 1),
    (0x110BD, 0x110BD, 1),
    (0x110CD, 0x110CD, 1),
    (0x1160, 0x11FF, 0),        # Hangul vowels and finals join what stands before (Kuhn, wcwidth.c)
    (0xD7B0, 0xD7FB, 0),
    (0x2028, 0x2029, 0),        # separators of lines and paragraphs, as tmux has them
    (0x3248, 0x324F, 2),        # black squares with numbers, and hexagrams: glibc, bug 21750;
    (0x4DC0, 0x4DFF, 2),        #   Unicode says so of the latter from 16 on
    (0x1ABF, 0x1ACE, 0),        # newer than Python 3.8's Unicode 12.1: UnicodeData.txt and
    (0x31BB, 0x31BF, 2),        #   EastAsianWidth.txt of 15.0
    (0x4DB6, 0x4DBF, 2),
    (0x9FF0, 0x9FFF, 2),
    (0x1F6D5, 0x1F6D7, 2),
    (0x1F6DC, 0x1F6DF, 2),
    (0x1F6FB, 0x1F6FC, 2),
    (0x1F7F0, 0x1F7F0, 2),
    (0x1F90C, 0x1F93A, 2),
    (0x1F93B, 0x1F93B, 1),
    (0x1F93C, 0x1F945, 2),
    (0x1F946, 0x1F946, 1),
    (0x1F947, 0x1F9FF, 2),
    (0x1FA70, 0x1FAFF, 2),
)

# Ranges of what is one column wide, joins nothing and is joined by nothing but what
# comes after it: the inside of a class, for text that is handled as a run.
NARROW_RANGES = (
    " -~\u00a0-\u00ac\u00ae-\u02ff\u0370-\u0377\u037a-\u037f\u0384-\u038a\u038c\u038e-\u03a1\u03a3-\u0482"
    "\u048a-\u052f\u0531-\u0556\u1e00-\u1eff\u2010-\u2027\u2030-\u203b\u203d-\u2048\u204a-\u205e"
    "\u20a0-\u20bf\u2100-\u2121\u2123-\u2138\u213a-\u218b\u2200-\u22ff\u2400-\u2426\u2500-\u25a9"
    "\u2800-\u28ff\ue000-\uf8ff\ufffd")

# The same for what is two columns wide.
WIDE_RANGES = (
    "\u3001-\u3029\u3041-\u3096\u309b-\u30ff\u3105-\u312f\u3131-\u318e\u31a0-\u31ba\u3400-\u4dbf"
    "\u4e00-\ua48c\uac00-\ud7a3\uf900-\ufa6d\uff01-\uff60\uffe0-\uffe6")

# Emoji outside U+1F000 to U+1FAFF that can follow a zero width joiner, and (where they
# are narrow) become wide by U+FE0F: Emoji=Yes in emoji-data.txt of Unicode 14, which
# for those is the list of emoji-variation-sequences.txt.
EMOJI_RANGES = (
    (0x23, 0x23), (0x2A, 0x2A), (0x30, 0x39), (0xA9, 0xA9), (0xAE, 0xAE), (0x203C, 0x203C), (0x2049, 0x2049),
    (0x2122, 0x2122), (0x2139, 0x2139), (0x2194, 0x2199), (0x21A9, 0x21AA), (0x231A, 0x231B), (0x2328, 0x2328),
    (0x23CF, 0x23CF), (0x23E9, 0x23F3), (0x23F8, 0x23FA), (0x24C2, 0x24C2), (0x25AA, 0x25AB), (0x25B6, 0x25B6),
    (0x25C0, 0x25C0), (0x25FB, 0x25FE), (0x2600, 0x2604), (0x260E, 0x260E), (0x2611, 0x2611), (0x2614, 0x2615),
    (0x2618, 0x2618), (0x261D, 0x261D), (0x2620, 0x2620), (0x2622, 0x2623), (0x2626, 0x2626), (0x262A, 0x262A),
    (0x262E, 0x262F), (0x2638, 0x263A), (0x2640, 0x2640), (0x2642, 0x2642), (0x2648, 0x2653), (0x265F, 0x2660),
    (0x2663, 0x2663), (0x2665, 0x2666), (0x2668, 0x2668), (0x267B, 0x267B), (0x267E, 0x267F), (0x2692, 0x2697),
    (0x2699, 0x2699), (0x269B, 0x269C), (0x26A0, 0x26A1), (0x26A7, 0x26A7), (0x26AA, 0x26AB), (0x26B0, 0x26B1),
    (0x26BD, 0x26BE), (0x26C4, 0x26C5), (0x26C8, 0x26C8), (0x26CE, 0x26CF), (0x26D1, 0x26D1), (0x26D3, 0x26D4),
    (0x26E9, 0x26EA), (0x26F0, 0x26F5), (0x26F7, 0x26FA), (0x26FD, 0x26FD), (0x2702, 0x2702), (0x2705, 0x2705),
    (0x2708, 0x270D), (0x270F, 0x270F), (0x2712, 0x2712), (0x2714, 0x2714), (0x2716, 0x2716), (0x271D, 0x271D),
    (0x2721, 0x2721), (0x2728, 0x2728), (0x2733, 0x2734), (0x2744, 0x2744), (0x2747, 0x2747), (0x274C, 0x274C),
    (0x274E, 0x274E), (0x2753, 0x2755), (0x2757, 0x2757), (0x2763, 0x2764), (0x2795, 0x2797), (0x27A1, 0x27A1),
    (0x27B0, 0x27B0), (0x27BF, 0x27BF), (0x2934, 0x2935), (0x2B05, 0x2B07), (0x2B1B, 0x2B1C), (0x2B50, 0x2B50),
    (0x2B55, 0x2B55), (0x3030, 0x3030), (0x303D, 0x303D), (0x3297, 0x3297), (0x3299, 0x3299),
)

# What takes a skin tone: Emoji_Modifier_Base in emoji-data.txt of Unicode 14.
MODIFIER_BASE_RANGES = (
    (0x261D, 0x261D), (0x26F9, 0x26F9), (0x270A, 0x270D), (0x1F385, 0x1F385), (0x1F3C2, 0x1F3C4),
    (0x1F3C7, 0x1F3C7), (0x1F3CA, 0x1F3CC), (0x1F442, 0x1F443), (0x1F446, 0x1F450), (0x1F466, 0x1F478),
    (0x1F47C, 0x1F47C), (0x1F481, 0x1F483), (0x1F485, 0x1F487), (0x1F48F, 0x1F48F), (0x1F491, 0x1F491),
    (0x1F4AA, 0x1F4AA), (0x1F574, 0x1F575), (0x1F57A, 0x1F57A), (0x1F590, 0x1F590), (0x1F595, 0x1F596),
    (0x1F645, 0x1F647), (0x1F64B, 0x1F64F), (0x1F6A3, 0x1F6A3), (0x1F6B4, 0x1F6B6), (0x1F6C0, 0x1F6C0),
    (0x1F6CC, 0x1F6CC), (0x1F90C, 0x1F90C), (0x1F90F, 0x1F90F), (0x1F918, 0x1F91F), (0x1F926, 0x1F926),
    (0x1F930, 0x1F939), (0x1F93C, 0x1F93E), (0x1F977, 0x1F977), (0x1F9B5, 0x1F9B6), (0x1F9B8, 0x1F9B9),
    (0x1F9BB, 0x1F9BB), (0x1F9CD, 0x1F9CF), (0x1F9D1, 0x1F9DD), (0x1FAC3, 0x1FAC5), (0x1FAF0, 0x1FAF8),
)
