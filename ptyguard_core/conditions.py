"""Conditions: what a session's output or screen is searched for, and what was found.

Output is searched as bytes, whatever they are; the screen as text, line by line as
`screen NAME` prints it, so that ^ and $ are those of lines.  Pure, but that a search may be
bounded in time by whoever may use signals for that (`Patience`).
"""

import re
import time
import warnings

from .errors import TimedOut, UsageError

FOR, SCREEN, IDLE = "for", "screen", "idle"


# -- patterns ----------------------------------------------------------------------------

def output_pattern(source):
    """A compiled bytes pattern; UsageError names the place of what is wrong."""
    return _compiled(source, 0)


def screen_pattern(source):
    """A compiled str pattern for the lines of a screen; UsageError names the place."""
    return _compiled(source, re.MULTILINE)


def _compiled(source, flags):
    if isinstance(source, re.Pattern):
        return source
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")     # of what may mean another thing some day
            return re.compile(source, flags)
    # The last three: too large a number, too many parentheses, a flag for text only.
    except (re.error, OverflowError, RecursionError, ValueError) as error:
        raise UsageError(f"not a regular expression: {as_text(source)}: "
                         f"{str(error) or 'it is too deep'}") from None


def as_text(data):
    """Bytes as text, those that are not UTF-8 as lone surrogates; None and text as they are."""
    return data.decode("utf-8", "surrogateescape") if isinstance(data, bytes) else data


# -- time --------------------------------------------------------------------------------

SEARCH_LEAST_S = 0.25          # for a look at the last moment, which --timeout 0 asks for


class Patience:
    """How long somebody waits, for a search too if `run_within` is the back-end's.

    That one uses signals: only who has the main thread, and this process for itself, may
    give it.  Without it a search is not interrupted.
    """

    def __init__(self, timeout_s=None, run_within=None, clock=time.monotonic):
        self.timeout_s = timeout_s
        self._run_within = run_within
        self._clock = clock
        self._deadline = None if timeout_s is None else clock() + timeout_s

    def left(self):
        """Seconds, None without a limit."""
        return None if self._deadline is None else max(0.0, self._deadline - self._clock())

    def search(self, act):
        """What `act()` returns.  Raises TimedOut when the time is over before."""
        if self._run_within is None:
            return act()
        try:
            left = self.left()
            return self._run_within(left if left is None else max(SEARCH_LEAST_S, left), act)
        except TimeoutError:
            raise TimedOut(f"the search itself took more than what was left of {self.timeout_s:g} s",
                           hint="such as (a+)+$ may take for ever") from None


# -- on the screen -----------------------------------------------------------------------

class ScreenSearch:
    """Looks for a pattern on a screen; what counts is how that looks at the moment."""

    def __init__(self, pattern, patience=None):
        self.match = None
        self._place = None
        self._pattern = screen_pattern(pattern)
        self._patience = patience or Patience()

    def look(self, screen, text):
        """The match object, or None; `text` is `text_of(screen)`."""
        self.match = self._patience.search(lambda: self._pattern.search(text))
        if self.match is not None:
            self._place = place_of(screen, text, self.match.start())
        return self.match

    def describe(self):
        """What was found, for JSON, with the cell where it begins."""
        row, col = self._place
        return dict(description(SCREEN, self.match), row=row, col=col)

    def missing(self):
        """What was not, for people."""
        return f"the screen does not match {self._pattern.pattern}"


def text_of(screen):
    """The lines of a screen, without blanks at their ends and without blank ones at the end."""
    from .render import render_text     # nobody else who waits needs it
    return render_text(screen)[:-1]


def look_at(screen, searches):
    """Whether all that is looked for is on the screen now."""
    text = text_of(screen)
    # All of them: what has been found is told, also when the rest is missing.
    return all([search.look(screen, text) is not None for search in searches])


def place_of(screen, text, at):
    """(row, column) of the cell that holds character `at` of `text_of(screen)`, from 0."""
    row = text.count("\n", 0, at)
    left = at - (text.rfind("\n", 0, at) + 1)
    cells = screen.lines[row].chars
    for column, cell in enumerate(cells):
        if left < len(cell):
            return row, column
        left -= len(cell)
    return row, len(cells)


# -- what was found ----------------------------------------------------------------------

def description(condition, match):
    """What was found by that condition, for JSON."""
    return {"condition": condition, "pattern": as_text(match.re.pattern), "text": as_text(match.group()),
            "groups": [as_text(group) for group in match.groups()],
            "named": {name: as_text(group) for name, group in match.groupdict().items()}}


def described_silence():
    """That it has been quiet for as long as was asked, for JSON."""
    return {"condition": IDLE, "pattern": None, "text": None, "groups": [], "named": {}}
