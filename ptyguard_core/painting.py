"""Painting: what of a session's past a terminal is sent, so that it shows what the session does.

Two ways: the screen, drawn from what the output has made of it, with the lines before it for
the terminal's own scrollback; or the output itself, its tail, as it came.  Nothing that is
sent makes a terminal answer.
"""

import time

from .past import sequences_told
from .render import render_ansi
from .replay import capped
from .terminal import Modes, safe_start, unfinished_at, unfinished_character, without_queries
from .viewing import HISTORY_LINES, Making, ask_to_repaint, replayed

PAINTED_BYTES_MAX = 128 * 1024      # of output as it came; more than a terminal scrolls back
MAKING_LIMIT_S = 3.0                # keys wait for it; only garbage takes as long

_CAN = b"\x18"                      # ends whatever sequence was cut (ECMA-48 8.3.6)


def painted(told, data, end_offset, size, is_new=True, clock=time.monotonic):
    """(what makes a terminal of `size` show the screen after `data`, which ends at `end_offset`;
    whether the whole of it is known).

    `told` by the daemon: `past` and `session`.  `is_new`: it shows something else so far, which
    goes into its scrollback with our history; else it has shown this session, up to anywhere.
    Nothing when there is nothing to show.  A screen that takes too long to make is not waited for:
    then the tail of the output has to do.
    """
    if not (data or sequences_told(told)):
        return b"", True
    making = Making(told, data, end_offset, HISTORY_LINES if is_new else 0)
    limit = clock() + MAKING_LIMIT_S
    while not making.step():
        if clock() >= limit:
            return (b"" if is_new else _CAN) + tail_painted(told, data, end_offset), False
    screen = making.replay.screen
    is_whole = screen.is_whole
    if size is not None:
        screen.resize(capped(size))
    main, shown = screen.keyboard_stacks
    if not is_new:
        return _CAN + render_ansi(screen), is_whole
    room = b"\x1b[9999;1H" + b"\n" * screen.size[1]
    return (room + (_pushed(main) if screen.is_alternate else b"") + render_ansi(screen, HISTORY_LINES)
            + _pushed(shown)), is_whole


def first_paint(channel, target):
    """(output offset, size, what paints the screen there) as of now, for a recording that begins there.

    What stands cut at the end, a sequence or a character, comes behind that offset.
    """
    told, data = channel.read(target=target, past=True)
    cut = unfinished_at(data)
    data = data[:len(data) - unfinished_character(data) if cut is None else cut]
    replay = replayed(told, data, told["offset"] + len(data), 0)
    if not replay.screen.is_whole:
        ask_to_repaint(channel, target)     # which comes behind that, too
    return replay.offset, replay.screen.size, render_ansi(replay.screen)


def _pushed(stack):
    """Flags of the kitty protocol, as pushed: the program will pop them."""
    if len(stack) == 1:
        return b""
    return b"\x1b[=%du" % stack[0] + b"".join(b"\x1b[>%du" % flags for flags in stack[1:])


def tail_painted(told, data, end_offset, lines=None):
    """Of the output, from a safe place on, in the modes that hold there, and nothing that makes
    the terminal answer.  With `lines`, at most so many of them."""
    cut = max(0, len(data) - PAINTED_BYTES_MAX)
    if lines is not None:
        cut = max(cut, _line_start(data, lines))
    tail = data[cut:]
    modes = Modes()
    modes.feed(sequences_told(told))
    if lines is not None and data[cut - 1:cut] == b"\n":
        modes.feed(data[:cut])          # it begins with a line: nothing is cut
    elif len(tail) < end_offset:        # something lies before it
        modes.feed(data[:cut])
        skipped = safe_start(tail)
        modes.feed(tail[:skipped])
        tail = tail[skipped:]
    return modes.redo() + without_queries(tail)


def _line_start(data, lines):
    """Where the last `lines` lines begin; an unfinished one counts."""
    at = len(data) - 1 if data.endswith(b"\n") else len(data)
    if not lines:
        return len(data)
    for _ in range(lines):
        at = data.rfind(b"\n", 0, at)
        if at < 0:
            return 0
    return at + 1
