"""Listing: sessions as a table for people.  Pure: dicts in, lines out.

Columns are counted as terminals show them: a wide character takes two, an accent none.  Where
the width of the terminal is known no line is longer than that, so that none is wrapped.
"""

from . import jsontext
from .report import LIVING, SCHEMA_VERSION, age, exit_text, printable, shell_words

SHOWN_ENDED_S = 3600.0          # what ended within the hour is listed unasked
TITLE_WIDTH_MAX = 30            # where nothing else limits it; `info` shows it whole
_ROOM_MIN = 12                  # for title and command, however narrow the terminal is
_STATE_WIDTH = len("starting")  # at least: a start moves no column
_CUT = "..."


def text_width(text):
    """How many columns a printable text takes."""
    if text.isascii():
        return len(text)
    from .screen import char_width      # an emulator: only who needs it pays for it
    return sum(map(char_width, text))


def cut(text, width):
    """`text` in at most `width` columns, no character broken; dots where something is missing."""
    if text_width(text) <= width:
        return text
    dots = _CUT[:max(0, width)]
    kept, left = "", width - len(dots)
    for char in text:
        left -= text_width(char)
        if left < 0:
            break
        kept += char
    return kept + dots


def chosen(sessions, now, has_all=False):
    """Of what the daemon lists what is shown."""
    return [facts for facts in sessions if has_all or facts["state"] in LIVING
            or now - (facts["ended_at"] or 0) < SHOWN_ENDED_S]


def listed(sessions, now, wishes, terminal_size):
    """What `ls` prints of the chosen; None when it is told on stderr that there is nothing.

    `wishes`: names of options, "json" and "short" among them.  `terminal_size()` is asked where it counts.
    """
    if "json" in wishes:
        return jsontext.write({"sessions": sessions, "schema_version": SCHEMA_VERSION}) + "\n"
    if "short" in wishes:
        return "".join(session["name"] + "\n" for session in sessions)
    if not sessions:
        return None
    size = terminal_size()
    return "\n".join(session_table(sessions, now, size and size[0])) + "\n"


def session_table(sessions, now, width=None):
    """The lines of `ls`; the titles' column is there when there are titles."""
    rows = [("NAME", "STATE", "PID", "SIZE", "AGE", "CLIENTS", "EXIT", "TITLE", "COMMAND")]
    rows += [_row(facts, now) for facts in sessions]
    if all(row[-2] == "-" for row in rows[1:]):
        rows = [row[:-2] + row[-1:] for row in rows]
    elif width is None:
        rows = [row[:-2] + (cut(row[-2], TITLE_WIDTH_MAX), row[-1]) for row in rows]
    else:
        most = _title_width(rows, width)
        rows = [row[:-2] + (cut(row[-2], most), row[-1]) for row in rows]
    lines = align(rows)
    return lines if width is None else [cut(line, width) for line in lines]


def _row(facts, now):
    size = facts["size"] or {"cols": 0, "rows": 0}
    return (printable(facts["name"]), printable(facts["state"]).ljust(_STATE_WIDTH), str(facts["pid"] or "-"),
            f"{size['cols']}x{size['rows']}", age(now - facts["created_at"]), str(facts["clients"]),
            exit_text(facts["exit"], facts["state"] in LIVING) or "-",
            printable(facts.get("title") or "-"), shell_words(facts["argv"]))


def _title_width(rows, width):
    """What the titles may take: all that the commands leave, and half of it if those are long."""
    fixed = sum(max(text_width(row[at]) for row in rows) + 2 for at in range(len(rows[0]) - 2))
    room = max(_ROOM_MIN, width - fixed - 2)
    commands = max(text_width(row[-1]) for row in rows)
    return max(len("TITLE"), room - min(commands, room // 2))


def align(rows):
    """Columns as wide as their widest; the last one is left ragged."""
    widths = [max(text_width(row[at]) for row in rows) for at in range(len(rows[0]) - 1)]
    return ["".join(cell + " " * (most - text_width(cell) + 2) for cell, most in zip(row, widths))
            + row[-1] for row in rows]
