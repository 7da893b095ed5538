"""Ring: a session's output by absolute offset, in memory that outlives its writer.

The memory is shared between the guard, which only keeps it, and one daemon at a
time, which reads the terminal straight into it.  That daemon may be killed
between any two instructions; what is in the memory then is all that the next
one has.

    one header page                        data area, `capacity` bytes
    +-------+---------+----------+---     +----------------------------------------+
    | magic | version | capacity | ...    |  history   | window of 0xFF |  history   |
    +-------+---------+----------+---     +------------^----------------^----------+
                                                      end            end + W

Offsets count bytes since the session began; offset `o` lives at `o % capacity`.
The end offset has two slots and a one-byte selector: the idle slot is written,
then the byte is flipped, so that a half-done store is never seen.

Rule 1: before a read may fill it, the window `[end, end + W)` holds only 0xFF,
        a byte that no UTF-8 text contains.  What a killed daemon had read and
        not counted is then visible as what is not 0xFF.
Rule 2: after n bytes were read: first fill `[end + W, end + W + n)` with 0xFF,
        then store `end + n`.  The other order leaves, for a moment, a window
        with old output in it, and a recovery would take that for new.
Rule 3: a successor recovers (strips 0xFF from the window's end, completes the
        fill, stores) before it reads.  The idle slot is written before the fill
        and the byte flipped after it, so that an idle slot ahead of the end says
        what a half-done fill was for: the fill may have eaten that much of the
        oldest output, and fewer bytes must not be made of it.
Rule 4: never two readers; whoever holds a ring here has seen to that.

What is not handled: output that ends in 0xFF loses those trailing 0xFF bytes when
a kill -9 comes between that very read and the first store of its commit.
"""

from .errors import OutputGap, RingCorrupt

HEADER_BYTES = 4096            # one page, so that the data area is page-aligned
WINDOW_BYTES = 16 * 1024       # four reads of what Linux gives at once (n_tty's 4096)
_WINDOW_MAX = 64 * 1024        # what this version still adopts, should one ever grow
CAPACITY_MIN = 4 * WINDOW_BYTES
CAPACITY_MAX = 1 << 32

_MAGIC = int.from_bytes(b"PTYGRING", "big")
_VERSION = 1
# Words of the header, each 64 bits, native byte order (both sides are one host).
_W_MAGIC, _W_VERSION, _W_CAPACITY, _W_WINDOW, _W_END, _W_SELECTOR = 0, 1, 2, 3, 4, 6
_SELECTOR_BYTE = _W_SELECTOR * 8
_WORDS = _W_SELECTOR + 1


def memory_bytes(capacity):
    """Bytes of memory that a ring of `capacity` data bytes needs."""
    return HEADER_BYTES + capacity


class Ring:
    """One session's output; owns the views, not the memory, that it is given."""

    def __init__(self, memory):
        """Use `format` or `adopt`; `memory` is a writable buffer of a whole ring."""
        whole = memoryview(memory)
        self._header = whole[:HEADER_BYTES]
        # Stored through a cast view: struct.pack_into zeroes a field before it
        # writes it and was seen to tear under kill -9.
        self._words = self._header[:_WORDS * 8].cast("Q")
        self._data = whole[HEADER_BYTES:]
        self.capacity = len(self._data)
        self.window_bytes = WINDOW_BYTES
        self.recovered_bytes = 0

    @classmethod
    def format(cls, memory):
        """Make a new, empty ring of all of `memory` (zeroed or not)."""
        ring = cls(memory)
        if not CAPACITY_MIN <= ring.capacity <= CAPACITY_MAX:
            capacity = ring.capacity
            ring.release()
            raise RingCorrupt(f"a ring cannot have {capacity} bytes",
                              hint=f"use {CAPACITY_MIN} to {CAPACITY_MAX}")
        words = ring._words
        words[_W_VERSION] = _VERSION
        words[_W_CAPACITY] = ring.capacity
        words[_W_WINDOW] = ring.window_bytes
        words[_W_END] = words[_W_END + 1] = 0
        ring._header[_SELECTOR_BYTE] = 0
        ring._fill(0, ring.window_bytes)
        words[_W_MAGIC] = _MAGIC
        return ring

    @classmethod
    def adopt(cls, memory):
        """Take over a ring whose last reader is gone; recovers what it had read.

        `recovered_bytes` then says how many bytes were found uncounted.
        Raises RingCorrupt, having changed nothing, when this is no such ring.
        """
        if len(memory) < HEADER_BYTES + CAPACITY_MIN:
            raise RingCorrupt(f"{len(memory)} bytes are too few for a ring")
        ring = cls(memory)
        try:
            ring._check()
        except RingCorrupt:
            ring.release()
            raise
        ring._recover()
        return ring

    def _check(self):
        words = self._words
        if words[_W_MAGIC] != _MAGIC:
            raise RingCorrupt("no ring here: the magic number is missing")
        if words[_W_VERSION] != _VERSION:
            raise RingCorrupt(f"ring of version {words[_W_VERSION]}, this is {_VERSION}")
        if words[_W_CAPACITY] != self.capacity:
            raise RingCorrupt(f"ring says {words[_W_CAPACITY]} bytes, "
                              f"its memory has {self.capacity}")
        if not 0 < words[_W_WINDOW] <= min(self.capacity // 4, _WINDOW_MAX):
            raise RingCorrupt(f"ring says a window of {words[_W_WINDOW]} bytes")
        if self._header[_SELECTOR_BYTE] > 1:
            raise RingCorrupt(f"ring says slot {self._header[_SELECTOR_BYTE]}")
        if self.end_offset >= 1 << 63:
            raise RingCorrupt(f"ring says end offset {self.end_offset}")
        self.window_bytes = words[_W_WINDOW]    # fixed for this ring's life

    def _recover(self):
        end = self.end_offset
        at = end % self.capacity
        first = self._data[at:at + self.window_bytes]
        found = bytes(first) + bytes(self._data[:self.window_bytes - len(first)])
        # Mostly there is nothing: then `rstrip` would take 0.1 ms to say so, of each of a thousand rings.
        count = 0 if found == _ONES.obj[:len(found)] else len(found.rstrip(b"\xff"))
        noted = self._words[_W_END + 1 - self._header[_SELECTOR_BYTE]] - end
        if 0 < noted <= self.window_bytes:      # killed within `commit`: it says how far
            count = noted
        self.recovered_bytes = count
        if count:
            self.commit(count)

    @property
    def end_offset(self):
        """Bytes ever read from the terminal."""
        return self._words[_W_END + self._header[_SELECTOR_BYTE]]

    @property
    def start_offset(self):
        """The oldest offset whose byte is still here."""
        return max(0, self.end_offset + self.window_bytes - self.capacity)

    def start_after(self, count):
        """What `start_offset` will be once `count` more bytes are committed."""
        return max(0, self.end_offset + count + self.window_bytes - self.capacity)

    def writable(self, limit):
        """A view, at most `limit` bytes, to read the next output into.

        It is one contiguous piece of the window.  What is written there counts
        only after `commit`.
        """
        at = self._words[_W_END + self._header[_SELECTOR_BYTE]] % self.capacity
        window = self.window_bytes
        return self._data[at:at + (limit if limit < window else window)]

    def commit(self, count):
        """Count the first `count` bytes of the window as output (rule 2)."""
        used = self._header[_SELECTOR_BYTE]
        end = self._words[_W_END + used]
        self._words[_W_END + 1 - used] = end + count    # counts nothing yet: rule 3's note
        at = (end + self.window_bytes) % self.capacity
        if at + count <= self.capacity:
            self._data[at:at + count] = _ONES[:count]
        else:
            self._fill(at, count)
        self._header[_SELECTOR_BYTE] = 1 - used

    def _fill(self, offset, count):
        at = offset % self.capacity
        first = min(count, self.capacity - at)
        self._data[at:at + first] = _ONES[:first]
        if first < count:
            self._data[:count - first] = _ONES[:count - first]

    def views(self, offset, limit):
        """At most `limit` bytes from `offset`, as one view or, at the wrap, two.

        No copy: the views are good until output overwrites them.  An empty list
        means "nothing newer yet".  Raises OutputGap(first_offset) when `offset`
        has been overwritten, ValueError when it lies beyond the end.
        """
        end = self.end_offset
        if offset > end:
            raise ValueError(f"offset {offset} lies beyond the end {end}")
        if offset < self.start_offset:
            raise OutputGap(f"output before offset {self.start_offset} is gone, "
                            f"{offset} was wanted", first_offset=self.start_offset)
        count = min(limit, end - offset)
        if not count:
            return []
        at = offset % self.capacity
        first = self._data[at:at + count]
        if len(first) == count:
            return [first]
        return [first, self._data[:count - len(first)]]

    def read(self, offset, limit):
        """Like `views`, as bytes."""
        return b"".join(self.views(offset, limit))

    def release(self):
        """Let go of the memory, so that its owner can unmap it."""
        self._words.release()
        self._header.release()
        self._data.release()


# A fill is never longer than a window.
_ONES = memoryview(b"\xff" * _WINDOW_MAX)
