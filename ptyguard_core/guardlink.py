"""Guard link: the daemon's side of its bond with the guard.

Three stages.  Rehearsal: the guard tells who it is and what it holds; everything is
kept and nothing touched.  Service: after GO, and with daemon.lock in hand, the
terminals are the daemon's.  Loss: the guard has died, the terminals are still here;
a new guard is found or started and given everything.

Rule 1: what is sent while there is no guard is not queued: the deposit tells it all.
Rule 2: the lock order is start.lock, guard.lock, daemon.lock.  Here the last is held,
        so the first two are only ever tried.
Rule 3: whoever holds start.lock when it launches a guard keeps it until that guard
        has said how it went.
"""

import os

from . import guardwire as wire
from .backend import READABLE
from .errors import StateUnusable
from .link import QUEUE_MAX, Link, close_all
from .version import OURS

LOCK_WAIT_S = 10.0             # for a killed predecessor's daemon.lock to be released
LOCK_LOOK_S = 0.002
GUARD_RETRY_S = (0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0)
GUARD_WAIT_S = 10.0            # a request may wait this long for a new guard
DEPOSIT_MAX = 4 << 30          # all environments at once: they are in memory here already


class Offer:
    """One session as the guard gave it: `descriptors` are [ring] or [ring, master]."""

    def __init__(self, fields, descriptors):
        self.fields = fields
        self.descriptors = descriptors      # whoever takes the offer owns them
        self.rehearsed = None               # what the owner has made of it before the go

    def refuse(self):
        """Close what came with it."""
        if self.rehearsed is not None:
            self.rehearsed.drop()
            self.rehearsed = None
        close_all(self.descriptors)


class GuardLink:
    """`owner` (the daemon) is told: rehearse, on_listener, on_go, on_late_offer, on_exited,
    on_leave, on_quit, on_deposited, on_end; and asked: listener_descriptor, deposits."""

    def __init__(self, backend, loop, paths, log, program, settings, owner):
        self.facts = {}                     # of the guard's WELCOME
        self.inheritance = {}               # of its GO: what a predecessor had told, and why we are
        self.update = {}                    # of its UPDATE: a newer version that waits or failed
        self._backend = backend
        self._loop = loop
        self._paths = paths
        self._log = log
        self._program = program
        self._settings = settings
        self._owner = owner
        self._link = None
        self._lock = None                   # daemon.lock
        self._offers = {}                   # id -> Offer
        self._fresh = set()                 # ids in the latest table
        self._has_said_ready = False
        self._has_go = False
        self._is_serving = False
        self._is_leaving = False
        self._waiting = []                  # [act]: until there is a guard
        self._tries = 0
        self._launch = None                 # (start.lock, report descriptor)

    @property
    def is_up(self):
        """Whether there is a guard at the other end."""
        return self._link is not None

    def open(self, descriptor):
        """Take the link that the guard gave us and rehearse."""
        sock = self._backend.adopt_socket(descriptor)
        sock.setblocking(False)
        self._link = Link(self._backend, self._loop, sock, self._on_message, self._on_end)

    def send(self, type_, **fields):
        """Tell the guard, if there is one (rule 1)."""
        if self._link is not None:
            self._link.send(type_, **fields)

    def send_joined(self, act):
        """Call `act`; what it sends to the guard goes in few pieces."""
        if self._link is None:
            act()
        else:
            self._link.send_joined(act)

    def ask(self, type_, on_reply, give_up, **fields):
        """Ask the guard, waiting for a new one if need be; `give_up()` if none came."""
        def act():
            self._link.ask(type_, on_reply, **fields)

        if self._link is not None:
            act()
            return
        entry = [act]

        def expire():
            if entry in self._waiting:
                self._waiting.remove(entry)
                give_up()

        self._waiting.append(entry)
        self._loop.after(GUARD_WAIT_S, expire)

    def leave(self, on_done):
        """We have stopped reading and told everything: release the lock, say so."""
        self._is_leaving = True
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None
        if self._link is None:
            on_done()
        else:
            self._link.ask(wire.QUIESCED, lambda _message: on_done())

    # -- rehearsal and go ----------------------------------------------------------------

    def _on_message(self, _link, message):
        act = self._VERBS.get(message.type)
        # Whoever leaves has let go of daemon.lock: what is told now, the next one is told too.
        if act is None or self._is_leaving:
            close_all(message.descriptors)
        else:
            act(self, message)

    def _hear_welcome(self, message):
        self.facts = message.fields
        if message.descriptors:
            self._owner.on_listener(self._backend.adopt_socket(message.descriptors[0]))

    def _hear_session(self, message):
        id_ = message.bytes("session").decode("ascii", "replace")
        self._fresh.add(id_)
        offer = self._offers.get(id_)
        if offer is None or message.descriptors:
            if offer is not None:
                offer.refuse()              # it was restarted: that terminal is gone
            offer = self._offers[id_] = Offer(message.fields, message.descriptors or [])
        else:
            offer.fields = message.fields
        if self._is_serving:
            self._owner.on_late_offer(id_, self._offers.pop(id_))

    def confirm(self, id_):
        """This session is open (or refused to be), and that did not end us."""
        self.send(wire.ADOPTED, session=id_)

    def _hear_table_end(self, message):
        self._fresh.update(id_.decode("ascii", "replace") for id_ in message.fields.get("same", ()))
        if not self._has_said_ready:
            self._has_said_ready = True
            self._owner.rehearse(self._offers)
            self._fresh = set()             # the table comes again before the go
            self.send(wire.READY, version=OURS, pid=os.getpid(), keeps=1)

    def _hear_go(self, message):
        self._has_go = True
        self.inheritance = message.fields
        self._take_lock(self._loop.clock() + LOCK_WAIT_S)

    def _take_lock(self, deadline):
        """A predecessor that was killed a moment ago may not be gone entirely."""
        self._lock = self._backend.try_lock(self._paths.daemon_lock, "daemon")
        if self._lock is None:
            if self._loop.clock() > deadline:
                raise StateUnusable(f"{self._paths.daemon_lock} is held: "
                                    + self._backend.lock_holder(self._paths.daemon_lock))
            self._loop.after(LOCK_LOOK_S, lambda: self._take_lock(deadline))
            return
        offers = {id_: offer for id_, offer in self._offers.items() if id_ in self._fresh}
        for id_, offer in self._offers.items():
            if id_ not in offers:
                offer.refuse()              # it was released while we rehearsed
        self._offers = {}
        self._is_serving = True
        self._owner.on_go(offers)
        if self._link is None:
            self._find_guard()              # it died while we waited for the lock

    # -- loss ----------------------------------------------------------------------------

    def _on_end(self, _link, reason):
        self._link = None
        if self._is_leaving or not self._has_go:
            self._owner.on_end()            # rehearsing, or on our way: nothing is ours
            return
        self._log("guard_lost", reason=reason)
        self._tries = 0
        if self._is_serving:
            self._find_guard()              # else once daemon.lock is ours

    def _find_guard(self):
        """Connect to a guard that is there, else become the one that starts it."""
        if self._link is not None or self._is_leaving:
            return
        try:
            sock = self._backend.connect(self._paths.guard_socket, 0.2)
        except OSError:
            try:
                self._maybe_launch_guard()
            except OSError as error:        # nobody else has the terminals: try again
                self._log("guard_not_started", error=str(error))
            self._find_guard_later()
            return
        if self._backend.peer_user(sock) != self._backend.user_id():
            sock.close()
            self._find_guard_later()
            return
        sock.setblocking(False)
        link = Link(self._backend, self._loop, sock, self._on_message, self._on_deposit_end)
        link.ask(wire.DEPOSIT, lambda message: self._deposit(link, message),
                 descriptors=(self._owner.listener_descriptor(),), daemon_pid=os.getpid(),
                 version=OURS, interpreter=os.fsencode(self._program[0]),
                 binary=os.fsencode(self._program[1]))

    def _find_guard_later(self):
        delay = GUARD_RETRY_S[min(self._tries, len(GUARD_RETRY_S) - 1)]
        self._tries += 1
        self._loop.after(delay, self._find_guard)

    def _on_deposit_end(self, link, reason):
        if self._link is link:
            self._on_end(link, reason)
        elif self._link is None:
            self._find_guard_later()

    def _maybe_launch_guard(self):
        """Start a guard, unless somebody else is about to or one lives."""
        if self._launch is not None:
            return
        start_lock = self._backend.try_lock(self._paths.start_lock, "daemon, starting a guard")
        if start_lock is None:
            return
        report = None
        try:
            report = self._launch_guard_if_none()
        finally:
            if report is None:
                os.close(start_lock)
        if report is None:
            return
        self._log("guard_started")
        self._launch = (start_lock, report)
        os.set_blocking(report, False)
        self._loop.watch(report, self._on_report, READABLE)

    def _launch_guard_if_none(self):
        guard_lock = self._backend.try_lock(self._paths.guard_lock, "daemon, starting a guard")
        if guard_lock is None:
            return None                     # one lives, and is not ready yet
        os.close(guard_lock)
        from .supervise import launch_guard         # loaded by now: see Daemon._load_rest
        return launch_guard(self._backend, self._paths, self._program, self._settings,
                            os.environ.get("HOME"))

    def _on_report(self, _bits):
        start_lock, report = self._launch
        try:
            said = os.read(report, 4096)
        except BlockingIOError:
            return
        if said:
            self._log("guard_said", text=said)
            self._tries = 0
            return
        self._loop.forget(report)
        os.close(report)
        os.close(start_lock)
        self._launch = None

    def _deposit(self, link, message):
        """A guard takes us: give it everything we hold."""
        if message is None or message.type != wire.OK:
            link.close("the deposit was refused")
            return
        self._link = link
        link.queue_max = DEPOSIT_MAX
        count = 0
        for descriptors, fields in self._owner.deposits():
            link.send(wire.SESSION, descriptors=descriptors, **fields)
            count += 1
        link.send(wire.TABLE_END)
        if self._link is not link:
            return                          # it broke off: whoever waits, waits for the next
        link.queue_max = QUEUE_MAX
        self._log("deposited", sessions=count)
        self._owner.on_deposited()
        waiting, self._waiting = self._waiting, []
        for entry in waiting:
            entry[0]()

    # -- orders --------------------------------------------------------------------------

    def _hear_exited(self, message):
        if not self._is_serving:            # told once: keep it with the offer
            offer = self._offers.get(message.bytes("session").decode("ascii", "replace"))
            if offer is not None:
                offer.fields = dict(offer.fields, **message.fields)
            return
        self._owner.on_exited(message)

    def _hear_quiesce(self, _message):
        self._owner.on_leave()

    def _hear_quit(self, _message):
        self._owner.on_quit()

    def _hear_ping(self, _message):
        self.send(wire.PONG)

    def _hear_update(self, message):
        self.update = {name: message.text(name) for name in wire.OF_UPDATE}

    _VERBS = {
        wire.WELCOME: _hear_welcome, wire.SESSION: _hear_session,
        wire.TABLE_END: _hear_table_end, wire.GO: _hear_go, wire.EXITED: _hear_exited,
        wire.QUIESCE: _hear_quiesce, wire.QUIT: _hear_quit, wire.PING: _hear_ping,
        wire.UPDATE: _hear_update,
    }
