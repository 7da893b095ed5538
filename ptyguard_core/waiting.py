"""Waiting: for a text in a session's output, or for its silence.

Patterns are searched here, by whoever waits, and never in the daemon: the loop that
serves everybody cannot be held up by a regular expression.
"""

import re
import time

from . import frames
from .channel import Follower
from .errors import PtyguardError, TimedOut

MATCH_OVERLAP = 64 * 1024      # a match may span reads by this much
TEXT_KEPT = 1 << 20

# -- text out of terminal output ---------------------------------------------------------

_ESCAPES = re.compile(
    rb"\x1b(?:\[[0-?]*[ -/]*[@-~]|[\]PX^_][^\x07\x1b]*(?:\x07|\x1b\\)|[ -/]*[0-~])"
    rb"|[\x00-\x08\x0b-\x1a\x1c-\x1f\x7f]")
_CUT_ESCAPE = re.compile(rb"\x1b(?:\[[0-?]*[ -/]*|[\]PX^_][^\x07\x1b]*\x1b?|[ -/]*)?\Z")
_CUT_MAX = 4096                # a longer "sequence" is no sequence


class Plain:
    """Takes escapes and CR out of output that comes in pieces."""

    def __init__(self):
        self._rest = b""

    def feed(self, data):
        """The text of this piece, and of what was kept of the last."""
        data = self._rest + bytes(data)
        cut = _CUT_ESCAPE.search(data, max(0, len(data) - _CUT_MAX))
        self._rest = data[cut.start():] if cut else b""
        return _ESCAPES.sub(b"", data[:len(data) - len(self._rest)])


class Search:
    """Looks for a pattern in a stream; matches that span pieces are found.

    A match may reach back MATCH_OVERLAP bytes into what was searched before.
    """

    def __init__(self, pattern, is_raw=False):
        self._pattern = re.compile(pattern) if isinstance(pattern, (bytes, str)) else pattern
        self._plain = None if is_raw else Plain()
        self._text = b""
        self._searched = 0

    def feed(self, data):
        """The match object, or None."""
        self._text += bytes(data) if self._plain is None else self._plain.feed(data)
        match = self._pattern.search(self._text, max(0, self._searched - MATCH_OVERLAP))
        self._searched = len(self._text)
        if match is None and len(self._text) > TEXT_KEPT:
            self._text = self._text[-TEXT_KEPT // 2:]
            self._searched = len(self._text)
        return match


# -- on a channel ------------------------------------------------------------------------

def wait_for(channel, target, pattern, timeout_s=None, since="oldest", raw=False):
    """`Session.wait_for` on a channel of its own."""
    search = Search(pattern, raw)
    follower = Follower(channel, target, since)
    for _, piece in follower.pieces(timeout_s):
        match = search.feed(piece)
        if match is not None:
            return match
    raise PtyguardError(f"session {follower.session['name']} ended before the text came",
                        hint=f"ptyguard log {follower.session['name']}", reason="ended")


def wait_idle(channel, target, idle_s, timeout_s=None):
    """Return once no output has come for `idle_s`, or the session ended (then its facts)."""
    deadline = None if timeout_s is None else time.monotonic() + timeout_s
    follower = Follower(channel, target, "now")
    quiet_since, is_asked = time.monotonic(), False
    while follower.end is None:
        until = quiet_since + idle_s
        # That the program was quiet is only known from a daemon that answers.
        limit = deadline if is_asked else until if deadline is None else min(deadline, until)
        if channel.wait_answer(None if limit is None else max(0.0, limit - time.monotonic())):
            before = follower.offset, channel.welcome
            for _ in follower.burst():
                pass
            if (follower.offset, channel.welcome) != before:    # output, or another daemon
                quiet_since, is_asked = time.monotonic(), False
            elif is_asked and follower.end is None:
                return None
        elif limit == deadline:
            raise TimedOut(f"session {follower.session['name']} was not quiet for "
                           f"{idle_s:g} s within {timeout_s:g} s")
        else:
            try:
                channel.send(frames.PING)
                is_asked = True
            except ConnectionError:
                pass                    # it has died just now: reading tells
    return follower.end
