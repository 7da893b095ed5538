"""Updates: which program daemons are started from, and which newer one waits.  Pure; time
is an argument.

    good      the program before, kept until the one in use has served for a minute
    program   the one in use; an early death of its daemon makes `good` the one in use again
    newest    a newer version that somebody offered, and why it waits

Rule 1: SIGKILL says nothing about a program.
Rule 2: an operator's word (`upgrade`, `daemon restart`) needs no leave.  An offer, which
        every command of a newer version makes by itself, does, and it is decided here, at
        the moment of the exchange: whoever looked earlier may have missed a session.
Rule 3: what has failed once is not tried again unasked.  What an operator went back from
        is not come back to unasked either.
"""

from .version import is_newer

PROBATION_S = 60.0
VERSION_MAX = 100              # characters of an offered version that are kept
TOLD_MAX = 1000                # pairs of versions

LIVE_SESSIONS = "live_sessions_present"     # as verdict.py says it, which a guard does not load
FAILED_BEFORE = "failed_before"
HELD_BACK = "held_back"

SOURCE = "source"              # mode: in development the version says nothing


class Updates:
    """`program` and `good` are pairs of (interpreter, binary)."""

    def __init__(self, program):
        self.program = program
        self.good = None
        self.newest = ""                # version
        self.deferred = ""              # why it waits
        self.failure = ""               # how the last update that failed did so
        self.failed_version = ""        # its version, where it was told
        self.left = ""                  # the newer version that an operator went back from
        self._proven_at = 0.0
        self._told = set()              # (running, newest) that were logged

    def probation_s(self, now):
        """For how long the program in use has still to prove itself."""
        return max(0.0, self._proven_at - now) if self.good is not None else 0.0

    def restore(self, program, good, proven_at, texts):
        """Know again what another guard knew; `texts` as `texts()` of that one gave them."""
        self.program, self.good, self._proven_at = program, good, proven_at
        self.newest, self.deferred, self.failure, self.failed_version, self.left = texts

    def texts(self):
        """What is known of versions."""
        return self.newest, self.deferred, self.failure, self.failed_version, self.left

    # -- offers --------------------------------------------------------------------------

    def why_not(self, version, mode, running, living):
        """Why a newer `version` has to wait, "" if it has not to.

        `mode` is "idle", "always" or SOURCE, `living` counts the sessions that would notice if the
        daemon were not replaced without harm.
        """
        if mode == SOURCE:
            return ""
        if version and version == self.failed_version:
            return FAILED_BEFORE
        if self.left and not is_newer(version, self.left):
            return HELD_BACK
        if mode != "always" and living:
            return LIVE_SESSIONS
        return ""

    def defer(self, version, running, why):
        """Note that it waits; whether that is news for this pair of versions."""
        version = version[:VERSION_MAX]
        if not self.newest or not is_newer(self.newest, version):
            self.newest, self.deferred = version, why
        pair = running, version
        if pair in self._told or len(self._told) >= TOLD_MAX:
            return False
        self._told.add(pair)
        return True

    # -- what becomes of programs --------------------------------------------------------

    def is_news(self, version, mode, running):
        """Whether an offer would change anything for the better: the daemon that it was made
        for may have been exchanged since."""
        return mode == SOURCE or is_newer(version, running)

    def failed(self, program, version, cause):
        """A daemon of that program did not come to serve."""
        if program != self.program:
            self._note_failure(version, cause)

    def took_over(self, program, version, now, before="", is_asked=False):
        """Its daemon serves; whether that is another program than `before`'s.

        `is_asked`: an operator named it.  One who goes back to an earlier version means it.
        """
        if is_asked and is_newer(before, version):
            self.left = before if not is_newer(self.left, before) else self.left
        elif is_asked and not is_newer(self.left, version):
            self.left = ""
        if self.newest and not is_newer(self.newest, version):
            self.newest = self.deferred = ""
        if program == self.program:
            return False
        if self.good is None or now >= self._proven_at:
            self.good = self.program
        if self.good == program:        # back to what had proven itself
            self.good = None
        self.program, self._proven_at = program, now + PROBATION_S
        self.failure = self.failed_version = ""
        return True

    def died(self, version, cause, now):
        """The serving daemon died, not by SIGKILL; whether an earlier program serves again."""
        if self.good is None or now >= self._proven_at:
            self.good = None
            return False
        self._note_failure(version, cause)
        self.program, self.good = self.good, None
        return True

    def prove(self, now):
        """Whether the program in use needs nobody to fall back to any more."""
        if self.good is None or now < self._proven_at:
            return False
        self.good = None
        return True

    def _note_failure(self, version, cause):
        self.failure = f"{version or 'an update'}: {cause}"
        self.failed_version = version or self.failed_version
