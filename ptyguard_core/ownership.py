"""Ownership: whose daemon this is, and that it leaves once they are gone.

Somebody links by a hello that says so, and holds as long as that connection is open;
closing it, a crash and SIGKILL are the same to the kernel, and so to us.  When the last
one has been gone for the grace, the daemon asks the guard to be stopped on purpose; with
nothing living, the guard goes too.

    owner, as somebody said         a link's end
    nothing (told as headless)      stops the daemon
    app                             stops the daemon; whoever attaches links too
    persistent, headless            changes nothing: whoever set that meant it

Rule 1: what a successor must know (the owner, and that there were holders) is with the
        guard, from the moment it is so.  A daemon that was stopped on purpose leaves no
        holders behind: the guard forgets them, and keeps the owner.
Rule 2: sessions to be killed are those of the moment at which the grace was over.  Whoever
        links while they end finds the daemon still there, and keeps it.
"""

from . import frames, guardwire as wire
from .errors import UsageError
from .liveness import GRACE_MAX_S, GRACE_S, KEEP, KILL, ON_ORPHAN, Terms, Watchdog

APP, PERSISTENT, HEADLESS = OWNERS = ("app", "persistent", "headless")

IF_APP = "if_app"              # of a hello: link only if an app owns this daemon
KILL_GRACE_S = 5.0
STOP_RETRY_S = 1.0             # the guard is gone, or in the middle of something


class Ownership:
    """`daemon` has: loop, guard, log, sessions, kill, is_leaving."""

    def __init__(self, daemon):
        self._daemon = daemon
        self._watchdog = Watchdog()
        self._said = ""                 # one of OWNERS once somebody said so
        self._timer = None
        self._is_ending = False         # it has fired, and the daemon still is here
        self.is_stopping = False        # the guard has been asked: nobody new may hold

    @property
    def owner(self):
        """One of OWNERS."""
        return self._said or HEADLESS

    @property
    def holders(self):
        """How many hold a link."""
        return self._watchdog.holders

    def set_owner(self, owner):
        """Somebody says whose it is."""
        if owner not in OWNERS:
            raise UsageError(f"no owner mode: {str(owner)[:40]!r}", hint=", ".join(OWNERS))
        did_count, self._said = self._counts(), owner
        self._daemon.log("owner_set", owner=owner)
        if not self._counts():
            self._watchdog.disarm()
        elif not did_count:
            self._watchdog.rearm()
        self._changed()

    def _counts(self):
        return self._said in ("", APP)

    # -- who holds -----------------------------------------------------------------------

    def wanted(self, fields):
        """The Terms of a hello, None where it is no link; UsageError: not understood."""
        link = fields.get("link")
        if link is not True and (link != IF_APP or self._said != APP):
            return None
        grace, on_orphan = fields.get("grace", GRACE_S), fields.get("on_orphan", KEEP)
        # JSON has no NaN, but Python's reader takes it: it is within nothing.
        if isinstance(grace, bool) or not isinstance(grace, (int, float)) \
                or not 0 <= grace <= GRACE_MAX_S:
            raise UsageError(f"no grace: {str(grace)[:40]}", hint="seconds, at most 30 days")
        if on_orphan not in ON_ORPHAN:
            raise UsageError(f"no fate of sessions: {str(on_orphan)[:40]!r}",
                             hint=" or ".join(ON_ORPHAN))
        return Terms(float(grace), on_orphan)

    def link(self, client, terms):
        """This client holds; whether that counts."""
        self._watchdog.link(client, terms)
        if not self._counts():
            self._watchdog.disarm()
        self._daemon.log("linked", pid=client.hello.get("pid"), holders=self.holders,
                         grace_s=terms.grace_s, on_orphan=terms.on_orphan,
                         counts=int(self._counts()))
        self._changed()
        return self._counts()

    def unlink(self, client):
        """Its connection is gone; perhaps it held."""
        if self._watchdog.drop(client, self._daemon.loop.clock()):
            self._daemon.log("unlinked", pid=client.hello.get("pid"), holders=self.holders)
            self._changed()

    def tell_stopping(self):
        """We are stopped on purpose: holders are not to come back."""
        for client in self._daemon.clients:
            if self._watchdog.is_holder(client):
                client.send(frames.EVENT, event="stopping")

    # -- what a successor knows ----------------------------------------------------------

    def resume(self, fields):
        """What the guard kept of a predecessor's words."""
        said = fields.get("owner", b"").decode("ascii", "replace")
        on_orphan = fields.get("on_orphan", b"").decode("ascii", "replace")
        self._said = said if said in OWNERS else ""
        if on_orphan in ON_ORPHAN and self._counts():
            terms = Terms(fields.get("grace_ms", 0) / 1000, on_orphan)
            self._watchdog.resume(terms, self._daemon.loop.clock())
            self._daemon.log("holders_awaited", grace_s=self._watchdog.terms.grace_s,
                             on_orphan=on_orphan)
        self._watch()

    def tell_guard(self):
        """What a successor has to know (rule 1)."""
        watched = {}
        if self._watchdog.is_armed or self._is_ending:
            terms = self._watchdog.terms
            watched = {"grace_ms": int(terms.grace_s * 1000), "on_orphan": terms.on_orphan}
        self._daemon.guard.send(wire.OWNERSHIP, owner=self._said, **watched)

    def _changed(self):
        self.tell_guard()
        self._watch()

    # -- when nobody is left -------------------------------------------------------------

    def _watch(self):
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        due_at = self._watchdog.due_at
        if due_at is not None:
            self._timer = self._daemon.loop.at(due_at, self._look)

    def _look(self):
        if not self._daemon.is_leaving and self._watchdog.fire(self._daemon.loop.clock()):
            self._end(self._watchdog.terms)

    def _end(self, terms):
        daemon = self._daemon
        self._is_ending = True
        daemon.log("orphaned", grace_s=terms.grace_s, on_orphan=terms.on_orphan)
        ending = {session.id: session for session in daemon.sessions.values()
                  if terms.on_orphan == KILL and session.is_living}
        waiting = set(ending)
        if terms.on_orphan == KILL:
            for session in list(daemon.sessions.values()):
                daemon.restarts.cancel(session)     # nor do they come back

        def ended(id_):
            waiting.discard(id_)
            if not waiting:
                self._stop()

        for id_, session in ending.items():
            daemon.kill(session, KILL_GRACE_S, lambda _error, id_=id_: ended(id_))
        if not ending:
            self._stop()

    def _stop(self):
        """Be stopped on purpose, unless somebody has linked in the meantime (rule 2)."""
        daemon = self._daemon
        self.is_stopping = False
        if daemon.is_leaving or not self._is_ending:
            return
        if self.holders or self._watchdog.is_armed or not self._counts():
            daemon.log("orphaned_no_more", holders=self.holders)
            self._is_ending = False
            self.tell_guard()
        elif not daemon.guard.is_up:
            daemon.loop.after(STOP_RETRY_S, self._stop)
        else:
            self.is_stopping = True
            daemon.guard.ask(wire.STOPPING, self._on_answer, self._stop, mode="keep")

    def _on_answer(self, message):
        """It is on its way, or the guard cannot just now (None: it died)."""
        if message is None or message.type != wire.OK:
            self.is_stopping = False
            self._daemon.loop.after(STOP_RETRY_S, self._stop)
