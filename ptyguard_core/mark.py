"""Mark: how far a lent terminal has come, in a file that outlives the daemon that writes there.

Before a write it says that one is under way, after it where the terminal is then.  So a client
whose daemon was killed either knows exactly what its terminal shows, or that it does not.
"""

import os
import struct

_MARK = struct.Struct("<QB")    # offset of the next byte of output, and whether it is being written
MARK_BYTES = _MARK.size


class Mark:
    """What a terminal has taken, noted where somebody else reads it once we are dead.

    One system call a note, which a kill does not cut; not mapped, since a file that shrinks would
    then be a SIGBUS.  `fd` is ours.
    """

    def __init__(self, fd):
        self._fd = fd

    def begin(self, offset):
        """What begins there is about to be written."""
        self._note(offset, 1)

    def end(self, offset):
        """The terminal has taken everything before that."""
        self._note(offset, 0)

    def _note(self, offset, is_writing):
        if self._fd >= 0:
            try:
                os.pwrite(self._fd, _MARK.pack(offset, is_writing), 0)
            except OSError:             # no such file as was agreed: then nothing is known
                self.close()

    def close(self):
        """Idempotent."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def read_mark(fd):
    """The offset that a daemon that died has left there, or None when it is not known."""
    data = os.pread(fd, MARK_BYTES, 0)
    if len(data) != MARK_BYTES:
        return None
    offset, is_writing = _MARK.unpack(data)
    return None if is_writing else offset
