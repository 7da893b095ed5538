"""Overhearing: what is typed into a terminal, told to those who record input.

They are told at the moment when the terminal takes it, with the end of output at that
moment.  What is typed while a terminal in canonical mode does not echo is told to nobody:
that is how programs ask for passwords.  Asked before and after each write, so that a
program that switches the echo just then is on the safe side of it.

What is not handled: a program that shows stars for a password reads keys one by one, as an
editor does, and cannot be told from one.
"""

from . import frames

_PIECE_BYTES = 16 * 1024       # six bytes each at worst, in a control frame
_WAITING_MAX = 1 << 20         # who does not read misses what is typed, and costs no more memory


class Overhearing:
    """One round of writing to a session's terminal; it costs nothing when nobody listens."""

    def __init__(self, backend, session):
        self._backend = backend
        self._session = session
        self._cursors = [cursor for cursor in session.cursors if cursor.wants_input]
        self._is_hidden = True
        self.write = self._write if self._cursors else backend.write_terminal
        self.tell = self._tell if self._cursors else None

    def _write(self, master, data):
        self._is_hidden = self._backend.hides_input(master)
        return self._backend.write_terminal(master, data)

    def _tell(self, data):
        """The terminal has taken these bytes."""
        if self._is_hidden or self._backend.hides_input(self._session.master):
            return
        data = bytes(data)
        for at in range(0, len(data), _PIECE_BYTES):
            text = data[at:at + _PIECE_BYTES].decode("utf-8", "surrogateescape")
            for cursor in self._cursors:
                if cursor.owner.buffered_bytes <= _WAITING_MAX:
                    cursor.owner.send(frames.EVENT, event="input", data=text,
                                      offset=self._session.ring.end_offset)
