"""What can go wrong, whose fault it is, and which exit code says so.

Every error that a user may meet is a `PtyguardError`.  It carries three things:
`kind`, one word for programs (it travels over the wire and into `--json`);
the message, which names what failed and on which object; and `hint`, the next
step.  The exit code belongs to the class, so that a kind has one code wherever
it is raised.  docs/PROTOCOL.md lists the kinds.
"""


class PtyguardError(Exception):
    """Base of all errors with a name; on its own it means "failed"."""

    kind = "failed"
    exit_code = 1

    def __init__(self, message, hint="", **details):
        """`details` are JSON-able facts (errno, offsets, names) for programs."""
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.details = details

    def to_wire(self):
        """The error as a JSON-able dict; `from_wire` is its inverse."""
        return dict(self.details, kind=self.kind, message=self.message, hint=self.hint)


class UsageError(PtyguardError):
    """The caller's words cannot be understood; nothing was done."""

    kind = "usage"
    exit_code = 2


class NoSuchSession(PtyguardError):
    """The named session is not there."""

    kind = "no_such_session"
    exit_code = 3


class SessionExists(PtyguardError):
    """A live session has that name already."""

    kind = "session_exists"
    exit_code = 4


class Busy(PtyguardError):
    """Somebody else has what is needed, or live sessions forbid the act."""

    kind = "busy"
    exit_code = 4


class SessionDestroyed(NoSuchSession):
    """The session was removed on purpose, and its tombstone stands."""

    kind = "destroyed"
    exit_code = 5


class Unreachable(PtyguardError):
    """The daemon (or the guard) cannot be reached or did not start."""

    kind = "unreachable"
    exit_code = 6


class Refused(PtyguardError):
    """The other side is not ours, or refuses us."""

    kind = "refused"
    exit_code = 6


class Incompatible(PtyguardError):
    """No protocol version that both sides speak."""

    kind = "incompatible"
    exit_code = 6


class Deferred(PtyguardError):
    """An update that nobody asked for has to wait; the message is the reason's name."""

    kind = "deferred"


class TimedOut(PtyguardError):
    """The time that the caller gave has passed."""

    kind = "timed_out"
    exit_code = 124


class CannotExecute(PtyguardError):
    """The command is there but cannot be executed; `details["errno"]` is the true one."""

    kind = "cannot_execute"
    exit_code = 126


class CommandNotFound(PtyguardError):
    """There is no such command."""

    kind = "command_not_found"
    exit_code = 127


class LimitReached(PtyguardError):
    """A cap of ours or of the machine (sessions, clients, PTYs, descriptors)."""

    kind = "limit_reached"


class StateUnusable(PtyguardError):
    """Our directory or a file in it cannot be used; nothing was changed."""

    kind = "state_unusable"


class Unsupported(PtyguardError):
    """This platform has no back-end for it (yet)."""

    kind = "unsupported"


class OutputGap(PtyguardError):
    """The wanted output has been overwritten; it begins at `first_offset` now."""

    kind = "output_gap"

    def __init__(self, message, hint="", first_offset=0, **details):
        super().__init__(message, hint, first_offset=first_offset, **details)
        self.first_offset = first_offset


class RingCorrupt(PtyguardError):
    """The memory given is not a ring that this version can read."""

    kind = "ring_corrupt"


class ProtocolError(PtyguardError):
    """The peer broke the wire's rules.  Its fault: only its connection ends."""

    kind = "protocol"
    exit_code = 6


def _by_kind(cls):
    found = {cls.kind: cls}
    for sub in cls.__subclasses__():
        found.update(_by_kind(sub))
    return found


def from_wire(fields):
    """The error that `to_wire` described; an unknown kind is a plain failure."""
    details = dict(fields) if isinstance(fields, dict) else {}
    kind = str(details.pop("kind", "failed"))
    message = str(details.pop("message", "failed without a message"))
    hint = str(details.pop("hint", ""))
    error = _by_kind(PtyguardError).get(kind, PtyguardError)(message, hint, **details)
    if error.kind != kind:
        error.kind = kind          # a newer peer's word is passed on as it came
    return error
