"""Depositing: a daemon that lost its guard gives everything to a new one.

Until all of it is here only that daemon has everything: it must live, and a deposit that
breaks off is forgotten as a whole and awaited anew.
"""

import os

from . import guardwire as wire
from .holdings import Cause, DaemonProcess, Held, session_id
from .link import close_all

CHECK_S = 1.0                   # while one is awaited: does that daemon still live?


class Deposit:
    """The one that `guard` awaits, or takes."""

    def __init__(self, guard):
        self._guard = guard
        self.is_awaited = False

    def await_one(self):
        """A daemon lives that is to come."""
        self.is_awaited = True
        self._guard.loop.after(CHECK_S, self._check)

    def _check(self):
        """The daemon that was to come may have died too: then there is nothing left."""
        if not self.is_awaited or self._guard.daemon is not None:
            return
        lock = self._guard.backend.try_lock(self._guard.paths.daemon_lock, "guard, looking for a daemon")
        if lock is None:
            self._guard.loop.after(CHECK_S, self._check)
            return
        os.close(lock)
        self.is_awaited = False
        self._guard.log("deposit_never_came")
        self._guard.start_daemon()

    def ask(self, link, message):
        """A daemon offers one: taken if one is awaited, with the listening socket that came along."""
        if not self.is_awaited or self._guard.daemon is not None \
                or len(message.descriptors or ()) != 1:
            close_all(message.descriptors)
            link.send(wire.REFUSED, message.serial, text="no deposit is awaited")
            return
        try:
            self._guard.listener = self._guard.backend.adopt_socket(message.descriptors[0])
        except OSError as error:
            close_all(message.descriptors)
            link.send(wire.REFUSED, message.serial, text=f"that is no socket: {error.strerror}")
            return
        self._guard.loop.watch(self._guard.listener.fileno(), self._guard.on_client_waits, 0)
        # Of whoever connected, by the kernel where it tells.
        pid = link.peer_pid or message.number("daemon_pid")
        interpreter, binary = message.bytes("interpreter"), message.bytes("binary")
        if interpreter and binary:      # it may run from another program than we do
            self._guard.updates.program = os.fsdecode(interpreter), os.fsdecode(binary)
        daemon = DaemonProcess(pid, self._guard.start_of(pid), False, self._guard.program, Cause(""))
        daemon.version = self._guard.last_version = message.bytes("version")
        daemon.was_ready = True
        daemon.state = daemon.READY         # serving once all of it is here
        daemon.link = link
        link.on_message = self._on_message
        link.on_close = self._guard.on_daemon_link_end
        link.raise_limit()
        self._guard.callers.discard(link)
        self.is_awaited = False
        self._guard.daemon = daemon
        self._guard.log("deposit_begun", pid=pid)
        link.send(wire.OK, message.serial)

    def abandon(self, daemon):
        """It broke off.  Only that daemon has everything: it must live, and come again."""
        self._guard.log("deposit_broken", pid=daemon.pid, sessions=len(self._guard.sessions))
        self._guard.forget_daemon(daemon)
        for held in list(self._guard.sessions.values()):
            self._guard.foreign.forget(held)
            self._guard.release(held)
        self._guard.loop.forget(self._guard.listener.fileno())
        self._guard.listener.close()
        self._guard.listener = None
        self.is_awaited = True
        self._guard.loop.after(CHECK_S, self._check)

    def _on_message(self, link, message):
        if message.type == wire.TABLE_END:
            link.on_message = self._guard.on_daemon_message
            self._guard.daemon.state = DaemonProcess.SERVING
            self._guard.daemon.serving_since = self._guard.loop.clock()
            self._guard.log("deposit_done", sessions=len(self._guard.sessions), living=self._guard.living())
            self._guard.cause = Cause("death")
            self._guard.welcome(self._guard.daemon)
            self._guard.wake_waiters(None)
        elif message.type == wire.SESSION and len(message.descriptors or ()) in (1, 2) \
                and session_id(message) and session_id(message) not in self._guard.sessions:
            self._take(message)
        else:
            close_all(message.descriptors)

    def _take(self, message):
        ring, master = (message.descriptors + [-1])[:2]
        slave = -1
        if master >= 0:
            try:
                slave = self._guard.backend.reopen_slave(master)
            except OSError as error:
                self._guard.log("slave_not_reopened", session=session_id(message), error=str(error))
        held = Held(session_id(message), ring, master, slave, message.bytes("blob"))
        held.pid, held.pid_start = message.number("pid"), message.number("pid_start")
        held.spawn_number = message.number("spawn_number", 1)
        held.launch = message.bytes("launch")
        held.is_child = False
        self._guard.sessions[held.id] = held
        self._guard.daemon.given.add(held.id)
        if message.number("exited"):
            held.exit = (message.number("status"), message.number("status_known"),
                         message.number("exited_at_ms"))
        else:
            self._guard.foreign.watch(held)
