"""Standing: what a program has set in its terminal and not taken back, found in its output.

Modes and the directory that a shell tells (OSC 7).  The sequences that set these are picked
out at C speed and shown to a very small screen: what they mean stands in one place (screen.py,
tables.py), and text, colours and the cursor, by far the most of any output, cost nothing here.
"""

import re

from .past import sequences_told
from .screen import Screen

_SEQUENCE_MAX = 4200            # bytes of what may be cut by the end of a piece

# The numbers as long as screen.py takes them, the string as well.
_SETTING = re.compile(
    rb"\x1b(?:\[(?:\?[0-9;]{1,512}[hl]|[<=>][0-9;]{0,512}[um]|!p|[0-9;]{1,512}[hl])"
    rb"|[=>c]"
    rb"|\]0*7;([^\x07\x18\x1a\x1b]{0,4096})(?:\x07|\x1b\\))")
_OWN_NAMES = ("", "localhost")


class Standing:
    """What stands after the output that it was fed, piece by piece."""

    def __init__(self):
        self._screen = Screen((2, 2), 0)
        self._held = b""
        self._uri = b""

    def feed(self, data):
        """The next piece of output, cut anywhere."""
        data = self._held + bytes(data)
        found, end = [], 0
        for match in _SETTING.finditer(data):
            found.append(match.group())
            end = match.end()
            if match.group(1) is not None:
                self._uri = match.group(1)
        self._screen.feed(b"".join(found))
        self._held = data[self._begin_of_rest(data, max(end, len(data) - _SEQUENCE_MAX)):]

    @staticmethod
    def _begin_of_rest(data, start):
        """Where the last sequence begins, which may be cut; the end if there is none."""
        last = data.rfind(b"\x1b", start)
        if last < 0:
            return len(data)
        # At the very end it may be half of the terminator of a string that began before.
        before = data.rfind(b"\x1b", start, last) if last == len(data) - 1 else -1
        return before if before >= 0 else last

    @property
    def modes(self):
        """Those that are not as in a fresh terminal, by the names of tables.py."""
        return dict(self._screen.modes)

    @property
    def directory(self):
        """The directory that was told last, as text; None when there was none."""
        return self._screen.cwd

    def host(self, own):
        """On which host that is; None when it is the one that is called `own`."""
        uri = self._uri.decode("utf-8", "replace")
        name = uri.partition("://")[2].partition("/")[0].lower() if "://" in uri else ""
        own = own.lower()
        return None if name in _OWN_NAMES + (own, own.partition(".")[0]) else name


def look(channel, session, own_host):
    """What stands after a session's output: the fields that `info` adds to its facts."""
    told = {"modes": None, "cwd_told": None, "cwd_host": None}
    if not session["offsets"]:
        return told
    standing = Standing()
    ok, data = channel.read(target="@" + session["id"], past=True)
    standing.feed(sequences_told(ok))
    standing.feed(data)
    if session["ended_at"] is None:
        told["modes"] = standing.modes
    told["cwd_told"] = standing.directory
    told["cwd_host"] = standing.host(own_host)
    return told
