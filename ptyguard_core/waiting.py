"""Waiting: for a text in a session's output or on its screen, or for its silence.

Patterns are searched here, by whoever waits, and never in the daemon: the loop that
serves everybody cannot be held up by a regular expression.  What was seen in the output
stays seen; the screen has to show it at the moment; quiet is quiet while it does.
"""

import re
import time

from . import frames
from .channel import Follower
from .conditions import FOR, Patience, as_text, description, look_at, output_pattern
from .errors import PtyguardError, TimedOut
from .report import exit_text

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
    """Looks for a pattern in a stream; matches that span pieces are found, and stay.

    A match may reach back MATCH_OVERLAP bytes into what was searched before.
    """

    def __init__(self, pattern, is_raw=False, patience=None):
        self.match = None
        self._pattern = output_pattern(pattern)
        self._patience = patience or Patience()
        self._plain = None if is_raw else Plain()
        self._text = b""
        self._searched = 0

    def feed(self, data):
        """The match object, or None."""
        if self.match is not None:
            return self.match
        self._text += bytes(data) if self._plain is None else self._plain.feed(data)
        begin = max(0, self._searched - MATCH_OVERLAP)
        self.match = self._patience.search(lambda: self._pattern.search(self._text, begin))
        self._searched = len(self._text)
        if self.match is None and len(self._text) > TEXT_KEPT:
            self._text = self._text[-TEXT_KEPT // 2:]
            self._searched = len(self._text)
        return self.match

    def describe(self):
        """What was found, for JSON."""
        return description(FOR, self.match)

    def missing(self):
        """What was not, for people."""
        return f"no output matched {as_text(self._pattern.pattern)}"


# -- on a channel ------------------------------------------------------------------------

def wait_for(channel, target, pattern, timeout_s=None, since="oldest", raw=False):
    """`Session.wait_for` on a channel of its own."""
    search = Search(pattern, raw)
    wait_for_texts(channel, target, [search], Patience(timeout_s), since)
    return search.match


def wait_for_texts(channel, target, searches, patience, since="oldest"):
    """Until each `Search` has found something.  Raises TimedOut; when the session ends
    first, PtyguardError with the reason "ended"."""
    follower = Follower(channel, target, since)
    for _, piece in follower.pieces(patience.left()):
        if all([search.feed(piece) is not None for search in searches]):
            return
    raise ended_before(follower, "the text came")


def ended_before(follower, what):
    """The error for a session that has ended before that."""
    name = follower.session["name"]
    return PtyguardError(f"session {name} ended before {what} ({exit_text(follower.end['exit'])})",
                         hint=f"ptyguard log {name}", reason="ended")


def wait_idle(channel, target, idle_s, timeout_s=None):
    """Return once no output has come for `idle_s`, or the session ended (then its facts)."""
    follower = Follower(channel, target, "now")
    wait_quiet(follower, idle_s, Patience(timeout_s))
    return follower.end


def wait_quiet(follower, idle_s, patience, holds=lambda: True):
    """Return once no output has come for `idle_s` and `holds()`, or the session has ended.

    `holds` is asked when it is quiet, and of the same silence once: only output changes it.
    """
    channel = follower.channel
    quiet_since, is_asked, is_in_vain = time.monotonic(), False, False
    while follower.end is None:
        left = patience.left()
        # That the program was quiet is only known from a daemon that answers.
        due = None if is_asked or is_in_vain else max(0.0, quiet_since + idle_s - time.monotonic())
        limit = due if left is None else left if due is None else min(due, left)
        if channel.wait_answer(limit):
            before = follower.offset, channel.welcome
            for _ in follower.burst():
                pass
            if (follower.offset, channel.welcome) != before:    # output, or another daemon
                quiet_since, is_asked, is_in_vain = time.monotonic(), False, False
            elif is_asked and follower.end is None:
                if holds():
                    return
                is_asked, is_in_vain = False, True
        elif limit == left:
            raise TimedOut(f"session {follower.session['name']} was not quiet for "
                           f"{idle_s:g} s within {patience.timeout_s:g} s")
        else:
            try:
                channel.send(frames.PING)
                is_asked = True
            except ConnectionError:
                pass                    # it has died just now: reading tells


# -- on the screen -----------------------------------------------------------------------

LOOK_LEAST_S = 5.0             # for a first look, whatever the time-out
UPDATE_LIMIT_S = 1.0           # a program that began to draw and does not say it is done


def wait_screen(viewing, searches, patience, idle_s=None):
    """Until the screen shows all that the `ScreenSearch`es look for, and if `idle_s` is given
    until it has done so for that long without output; the session's facts if it has ended.

    The last screen of a session counts as well; PtyguardError with the reason "ended" if that
    does not show it.  Raises TimedOut.
    """
    def holds():
        return look_at(viewing.screen, searches)

    _take_screen(viewing, patience)
    if not viewing.screen.is_whole and viewing.end is None:
        viewing.ask_to_repaint()
    if idle_s is None:
        _wait_shown(viewing, holds, patience)
    else:
        wait_quiet(viewing, idle_s, patience, holds)
    # A session that has ended may have drawn since it was looked at.
    if viewing.end is not None and not holds():
        raise ended_before(viewing, "the screen showed it")
    return viewing.end


def _take_screen(viewing, patience):
    """Until the present screen is here, which takes some bursts."""
    left = patience.left()
    deadline = None if left is None else time.monotonic() + max(LOOK_LEAST_S, left)
    while viewing.screen is None:
        left = None if deadline is None else max(0.0, deadline - time.monotonic())
        if not viewing.channel.wait_answer(left):
            raise TimedOut(f"session {viewing.session['name']}: the screen did not come in time")
        for _ in viewing.burst():
            pass


def _wait_shown(viewing, holds, patience):
    """Return once `holds()`, or the session has ended; asked once a burst of output."""
    update_ends = None                  # when what is being drawn counts as drawn
    is_news = True
    while viewing.end is None:
        now = time.monotonic()
        if not viewing.screen.modes.get("synchronised_output"):
            update_ends = None
        elif update_ends is None:
            update_ends = now + UPDATE_LIMIT_S
        is_drawing = update_ends is not None and now < update_ends
        if is_news and not is_drawing:
            if holds():
                return
            is_news = False
        left = patience.left()
        limit = left
        if is_drawing:
            limit = update_ends - now if left is None else min(left, update_ends - now)
        if viewing.channel.wait_answer(limit):
            before = _picture(viewing)
            for _ in viewing.burst():
                pass
            is_news = is_news or _picture(viewing) != before
        elif limit == left:
            raise TimedOut(f"session {viewing.session['name']}: the screen did not show it within "
                           f"{patience.timeout_s:g} s")


def _picture(viewing):
    """What differs when the screen may."""
    return viewing.offset, viewing.screen, viewing.screen.size
