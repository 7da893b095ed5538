"""Spawning: children that daemons ask for, each in a new terminal, in a new ring or its own again.

The guard is their parent.  It makes the ring and the terminal, forks, and awaits in its loop
a pipe that exec closes, so that a child stuck on a dead file system holds nobody up.

Rule 1: a request is checked in full before anything is made; what a refused one made is gone.
Rule 2: a child is a session from the fork on, and in no table until exec has worked: if the
        daemon that asked for it dies meanwhile, the next one is offered it.
"""

import errno
import os

from . import guardwire as wire
from .backend import READABLE
from .errors import RingCorrupt
from .holdings import Held, Spawning, session_id
from .ring import CAPACITY_MAX, CAPACITY_MIN, Ring, memory_bytes

# Without some in reserve no daemon could be started for the sessions there are.
DESCRIPTOR_RESERVE = 48


class Spawns:
    """The children of `guard` that are on their way."""

    def __init__(self, guard):
        self._guard = guard
        self.going = {}                 # status descriptor -> Spawning

    def say_spawn(self, daemon, message):
        """A daemon wants a new session."""
        if session_id(message) in self._guard.sessions:
            daemon.link.send(wire.REFUSED, message.serial, kind="in_use", stage="request",
                             text=f"session id {session_id(message)} is in use")
            return
        self._begin_child(daemon, message, self._spawn)

    def say_respawn(self, daemon, message):
        """A daemon wants another child in the ring of one that has ended."""
        held = self._guard.sessions.get(session_id(message))
        if held is None or held.is_living or self.is_starting(held):
            daemon.link.send(wire.REFUSED, message.serial, kind="busy", stage="request",
                             text="no such session" if held is None else "its program lives")
            return
        self._begin_child(daemon, message, self._respawn_in(held))

    def _begin_child(self, daemon, message, spawn):
        """`spawn(fields)` gives (Held, status descriptor, the child before or None)."""
        link, serial = daemon.link, message.serial
        if self._guard.is_stopping:
            link.send(wire.REFUSED, serial, kind="busy", stage="request",
                      text="the guard is stopping")
            return
        if self._descriptors_left() < DESCRIPTOR_RESERVE:
            link.send(wire.REFUSED, serial, errno=errno.EMFILE, stage="descriptors",
                      text=f"the guard may have {self._guard.descriptor_limit} descriptors")
            return
        try:
            held, status, before = spawn(message.fields)
        except OSError as error:
            link.send(wire.REFUSED, serial, errno=error.errno,
                      stage=getattr(error, "stage", "memory"), text=str(error.strerror))
            return
        except (KeyError, ValueError, RingCorrupt) as error:
            link.send(wire.REFUSED, serial, stage="request", text=str(error))
            return
        self._guard.sessions[held.id] = held
        self.going[status] = Spawning(held, link, serial, before)
        self._guard.loop.watch(status, lambda _bits: self._on_exec_status(status), READABLE)

    def _descriptors_left(self):
        used = sum(3 if held.master >= 0 else 1 for held in self._guard.sessions.values())
        return self._guard.descriptor_limit - used

    def _spawn(self, fields):
        id_ = fields["session"]
        if not id_.isalnum() or len(id_) > 64:
            raise ValueError(f"session id {id_!r} cannot be used")
        capacity = fields["ring_bytes"]
        if not CAPACITY_MIN <= capacity <= CAPACITY_MAX:
            raise ValueError(f"a ring of {capacity} bytes")
        ring = self._make_ring(capacity)
        held = Held(id_.decode("ascii"), ring, -1, -1, b"")
        try:
            return held, self._spawn_child(held, fields), None
        except BaseException:
            os.close(ring)
            raise

    def _respawn_in(self, held):
        def spawn(fields):
            before = held.child()
            return held, self._spawn_child(held, fields), before
        return spawn

    def _spawn_child(self, held, fields):
        """Start it in a new terminal, as `held`'s child; its status descriptor."""
        cols, rows = fields["cols"], fields["rows"]
        if not (0 < cols < 65536 and 0 < rows < 65536):
            raise ValueError(f"a terminal of {cols}x{rows}")
        environment = dict(item.partition(b"=")[::2] for item in fields.get("env", ()))
        spawned = self._guard.backend.spawn_session(
            fields["argv"], fields["executable"], environment, fields["cwd"], (cols, rows),
            bool(fields.get("echo", 1)), fields.get("umask", 0o022) & 0o777,
            fields.get("nice", 0), fields.get("limits", ()))
        self._guard.release_terminal(held)        # of the child before
        self._guard.foreign.forget(held)
        held.master, held.slave = spawned.master, spawned.slave
        held.pid, held.pid_start, held.is_child = spawned.pid, spawned.start, True
        held.exit, held.input = None, b""
        held.spawn_number = fields.get("spawn_number", 1)
        held.blob, held.launch = fields.get("blob", b""), fields.get("launch", b"")
        return spawned.status

    def _make_ring(self, capacity):
        fd = self._guard.backend.make_memory(memory_bytes(capacity))
        try:
            memory = self._guard.backend.map_memory(fd)
            Ring.format(memory).release()
            memory.close()
        except BaseException:
            os.close(fd)
            raise
        return fd

    def is_starting(self, held):
        """Whether a child of that session is on its way."""
        return any(spawning.held is held for spawning in self.going.values())

    def _on_exec_status(self, status):
        """The child's exec worked (end of file) or it says why not."""
        spawning = self.going[status]
        try:
            data = os.read(status, 64)
        except BlockingIOError:
            return
        if data:
            spawning.said.append(data)
            return
        self._guard.loop.forget(status)
        os.close(status)
        del self.going[status]
        failure = self._guard.backend.decode_exec_status(b"".join(spawning.said))
        if failure is not None:
            self._on_exec_failed(spawning, *failure)
            return
        held = spawning.held
        self._guard.log("session_spawned", session=held.id, pid=held.pid, spawn=held.spawn_number)
        self.take_back(held)           # its terminal is a new one
        # If whoever asked is gone, the next daemon gets it.
        self._send_spawned(spawning.link, spawning.serial, held) if spawning.link.is_open \
            else self._offer(held)
        if not held.is_living:
            self._guard.tell_exit(held)

    def take_back(self, held):
        """What daemons were given of that session is void."""
        for daemon in (self._guard.daemon, self._guard.successor):
            if daemon:
                daemon.take_back(held.id)

    def _on_exec_failed(self, spawning, stage, number):
        held = spawning.held
        if spawning.before is None:
            self._guard.release(held)
        else:
            self._guard.release_terminal(held)
            held.put_back(spawning.before)
        if spawning.link.is_open:
            spawning.link.send(wire.REFUSED, spawning.serial, errno=number, stage=stage,
                               text=os.strerror(number))
        elif spawning.before is not None:
            self._offer(held)

    def _offer(self, held):
        """Tell the daemon of one that was not in its table: it was on its way then."""
        if self._guard.daemon and self._guard.daemon.link:
            type_, descriptors, fields = self._guard.session_message(self._guard.daemon, held)
            self._guard.daemon.link.send(type_, descriptors=descriptors, **fields)

    def _send_spawned(self, link, serial, held):
        daemon = next((d for d in (self._guard.daemon, self._guard.successor) if d and d.link is link), None)
        if daemon is None:
            return
        daemon.given.add(held.id)
        link.send(wire.SPAWNED, serial, (held.ring, held.master), session=held.id,
                  pid=held.pid, pid_start=held.pid_start, spawn_number=held.spawn_number)
