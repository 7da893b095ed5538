"""Sending: bytes, keys and pastes, typed at most once.

A send waits for its turn, hands over its bytes as the program takes them, and is answered
when the kernel has all of them.  Before its turn it may be asked again; afterwards never:
what was typed of it is then not known (rule of docs/PROTOCOL.md, Sending).
"""

import time

from . import frames
from .canonical import longest_line
from .errors import PtyguardError, TimedOut, Unreachable

CANCEL_LIMIT_S = 5.0
NOT_KNOWN = "how much of it was typed is not known; it is not sent again"


def send_input(channel, target, data, enter=False, timeout_s=None, sends=None):
    """`Session.send` on a channel of its own, which is closed; the reply's dict.

    With `sends` (how many there were, as `Follower` has it) only if nothing else has been
    sent by then: else Busy with how many there are in `details["sends"]`, nothing typed.
    """
    deadline = None if timeout_s is None else time.monotonic() + timeout_s
    ticket = None
    try:
        serial, ticket = _ask_to_send(channel, target, data, enter, deadline, sends)
        if ticket is None:
            return channel.await_reply(serial)
        if _send_body(channel, data, deadline):
            left = None if deadline is None else max(0.0, deadline - time.monotonic())
            try:
                return channel.await_reply(serial, left)
            except TimedOut:
                pass
        return _give_up_send(channel, serial, ticket)
    except (EOFError, ConnectionError):
        raise Unreachable(f"the daemon went away while input was sent to {target}",
                          hint=NOT_KNOWN) from None
    except Unreachable as error:        # it is there and has gone silent
        if ticket is not None:
            error.hint = NOT_KNOWN
        raise
    finally:
        channel.close()


def send_keys(channel, target, words, takes_text=False, timeout_s=None, sends=None):
    """`Session.key` on a channel of its own, which is closed; the reply's dict.

    Enter at the end is a write of its own, as that of `send_input`.
    """
    from . import keys
    deadline = None if timeout_s is None else time.monotonic() + timeout_s
    with channel:
        pieces = keys.pieces(words, False, takes_text)
        if keys.wants_mode(words):
            session, modes = kept_modes(channel, target, _left(deadline))
            target = "@" + session["id"]
            pieces = keys.pieces(words, modes.application_cursor, takes_text)
        enter = pieces[-1:] == [b"\r"]
        return send_input(channel, target, b"".join(pieces[:-1] if enter else pieces), enter,
                          _left(deadline), sends)


PASTE_BEGIN, PASTE_END = b"\x1b[200~", b"\x1b[201~"


def paste_input(channel, target, data, enter=False, timeout_s=None, sends=None):
    """`send_input`, as a bracketed paste if the program has asked for such."""
    deadline = None if timeout_s is None else time.monotonic() + timeout_s
    with channel:
        session, modes = kept_modes(channel, target, timeout_s)
        if modes.bracketed_paste and data:
            if PASTE_END in data:
                raise PtyguardError("the text holds the end of a paste (ESC [201~): what follows "
                                    "would be taken for typing", hint="nothing was typed",
                                    written=0)
            data = PASTE_BEGIN + data + PASTE_END
        return send_input(channel, "@" + session["id"], data, enter, _left(deadline), sends)


def kept_modes(channel, target, timeout_s=None):
    """(facts of the session, `terminal.Modes` that its program has switched on by now)."""
    from .past import sequences_told
    from .terminal import Modes         # patterns that other verbs need not compile
    deadline = None if timeout_s is None else time.monotonic() + timeout_s
    session = channel.request("resolve", _left(deadline), target=target)["session"]
    modes = Modes()
    if session["offsets"]:
        ok, data = channel.read(_left(deadline), target="@" + session["id"], past=True)
        modes.feed(sequences_told(ok))
        modes.feed(data)
    return session, modes


def _left(deadline):
    return None if deadline is None else max(0.0, deadline - time.monotonic())


def _ask_to_send(channel, target, data, enter, deadline, sends):
    """(serial, ticket or None as below); asked again while nothing has been sent yet."""
    more = {} if sends is None else {"sends": sends}
    while True:
        try:
            serial = channel.ask("send", target=target, bytes=len(data), enter=enter,
                                 longest_line=longest_line(data), **more)
            return serial, _await_go(channel, serial, deadline)
        except (EOFError, ConnectionError):
            channel.connect()


def _await_go(channel, serial, deadline):
    """The send's ticket when it is our turn, None when the reply came instead (an error)."""
    others = []
    ticket, is_answered = None, False
    try:
        while ticket is None and not is_answered:
            left = None if deadline is None else deadline - time.monotonic()
            if left is not None and left <= 0 or not channel.wait_answer(left):
                raise TimedOut("another send to that session did not end in time",
                               hint="nothing was typed", written=0)
            # To its end: the reply to an empty send comes in the same burst.
            for type_, offset, payload in channel.receive():
                if type_ == frames.EVENT and payload.get("event") == "go":
                    ticket = payload.get("ticket", "")
                else:
                    others.append((type_, offset, payload))
                    is_answered = type_ == frames.REPLY and payload.get("id") == serial
    finally:
        channel.keep(others)
    return ticket


def _send_body(channel, data, deadline):
    """Hand the bytes over as the daemon takes them; False when the time was over first.

    It takes no more while the program does not read: nothing here may block for longer.
    """
    for at in range(0, len(data), frames.RAW_BYTES_MAX):
        rest = memoryview(frames.raw_frames(frames.INPUT, data[at:at + frames.RAW_BYTES_MAX]))
        while rest:
            left = None if deadline is None else deadline - time.monotonic()
            if left is not None and left <= 0 or not channel.wait_room(left):
                return False
            rest = rest[channel.send_now(rest):]
    return True


def _give_up_send(channel, serial, ticket):
    """The time is over: what is not typed yet is not to be.  TimedOut tells the count.

    It is asked on another connection: the daemon may not be listening to this one.
    """
    try:
        with channel.another("cancel", CANCEL_LIMIT_S) as other:
            other.request("cancel", CANCEL_LIMIT_S, ticket=ticket)
        return channel.await_reply(serial, CANCEL_LIMIT_S)      # all of it had been typed
    except (TimedOut, Unreachable):
        raise TimedOut("the daemon did not say how much was typed", hint=NOT_KNOWN) from None
    except PtyguardError as error:
        raise TimedOut(error.message, error.hint, **error.details) from None
