"""Stand-in for the daemon: one session, read at full speed, everything written down.

The guard starts it as it starts any daemon (`python -I -S standin.py __daemon ROOT
name=value...`, its link at descriptor 3).  It serves no clients.  In the directory
that the setting `notes` names it leaves

    argv                what to start, a NUL between words; made by the test
    read.PID            after GO: a header (offset, length) before each piece of output
    end.PID             once the session has ended and is drained: what was told of it

A piece is noted after it was committed, so a kill in between leaves it in the ring
only: each stand-in begins its notes with all that the ring still has.
"""

import os
import struct
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

import ptyguard_posix as backend
from ptyguard_core import guardwire as wire
from ptyguard_core.backend import NOTHING_YET, READABLE
from ptyguard_core.link import Link
from ptyguard_core.loop import Loop
from ptyguard_core.ring import CAPACITY_MIN, Ring

SESSION = "flood"
PIECE = struct.Struct("=QI")


class StandIn:
    """What `ptyguard_core/daemon.py` is to a guard, and nothing else."""

    def __init__(self, paths, notes):
        self.paths = paths
        self.notes = notes
        self.loop = Loop(backend.make_poller(), time.monotonic)
        self.facts = {}                 # the session's latest fields
        self.descriptors = []           # [ring, master]
        self.ring = None
        self.has_said_ready = False
        self.lock = None

    def run(self):
        link = backend.adopt_socket(3)
        link.setblocking(False)
        self.link = Link(backend, self.loop, link, self.on_message, lambda *_: self.loop.stop())
        self.loop.run()

    def on_message(self, link, message):
        if message.type == wire.SESSION:
            self.facts = message.fields
            self.descriptors = message.descriptors or self.descriptors
            link.send(wire.ADOPTED, session=SESSION)
        elif message.type == wire.TABLE_END and not self.has_said_ready:
            self.has_said_ready = True
            link.send(wire.READY, version="standin", pid=os.getpid())
        elif message.type == wire.GO:
            self.begin()
        elif message.type == wire.EXITED:
            self.facts.update(message.fields, exited=1)
            self.pump()

    def begin(self):
        while self.lock is None:        # whoever was killed a moment ago may still be going
            self.lock = backend.try_lock(self.paths.daemon_lock, "daemon")
        self.file = os.open(os.path.join(self.notes, f"read.{os.getpid()}"),
                            os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        if self.descriptors:
            self.adopt()
        else:
            with open(os.path.join(self.notes, "argv")) as file:
                argv = file.read().split("\0")
            self.link.ask(wire.SPAWN, self.on_spawned, session=SESSION, argv=argv,
                          executable=argv[0], cwd="/", cols=80, rows=24, ring_bytes=CAPACITY_MIN,
                          env=["PTYGUARD_DIR=" + self.paths.root], spawn_number=1)

    def on_spawned(self, message):
        assert message.type == wire.SPAWNED, message.fields
        self.descriptors = message.descriptors
        self.adopt()

    def adopt(self):
        ring, self.master = self.descriptors
        self.ring = Ring.adopt(backend.map_memory(ring))
        self.note(self.ring.start_offset)
        self.loop.watch(self.master, lambda _bits: self.pump(), READABLE)
        self.pump()

    def pump(self):
        if self.ring is None:
            return                      # it ended before it was ours; `adopt` comes here
        for _ in range(16):
            count = backend.read_terminal(self.master, self.ring.writable(1 << 16))
            if count <= 0:
                break
            before = self.ring.end_offset
            self.ring.commit(count)
            self.note(before)
        if count == NOTHING_YET and self.facts.get("exited"):
            self.tell_end()
        elif self.facts.get("exited"):
            self.loop.soon(self.pump)

    def note(self, offset):
        """All output from there on, in one write: a kill cuts the last piece at most."""
        data = self.ring.read(offset, 1 << 20)
        os.write(self.file, PIECE.pack(offset, len(data)) + data)

    def tell_end(self):
        self.loop.forget(self.master)
        path = os.path.join(self.notes, f"end.{os.getpid()}")
        with open(path + ".draft", "w") as file:
            file.write(f"{self.facts['status']} {self.facts['status_known']} {self.ring.end_offset}")
        os.rename(path + ".draft", path)


def pieces(path):
    """(offset, bytes) of each piece noted there; the last one may be cut."""
    with open(path, "rb") as file:
        data = file.read()
    at = 0
    while len(data) - at >= PIECE.size:
        offset, length = PIECE.unpack_from(data, at)
        at += PIECE.size
        yield offset, data[at:at + length]
        at += length


if __name__ == "__main__":
    StandIn(backend.find_paths(sys.argv[2]),
            dict(item.split("=", 1) for item in sys.argv[3:])["notes"]).run()
