"""Holdings: what the guard knows of a session, of a child on its way, and of a daemon.

Only what is known, and what follows from it; who acts on it is guard.py.
"""

import time

QUARANTINE_DEATHS = 2


class Held:
    """One session as the guard sees it."""

    def __init__(self, id_, ring, master, slave, blob):
        self.id = id_
        self.ring = ring                # descriptors, ours; -1 when released
        self.master = master
        self.slave = slave
        self.blob = blob                # the daemon's metadata, opaque here
        self.launch = b""               # what it was started with, for a daemon that restarts it
        self.input = b""                # what a predecessor could not write any more
        self.spawn_number = 1
        self.pid = 0
        self.pid_start = 0
        self.is_child = True            # ours to wait for; else its status cannot be learnt
        self.exit = None                # (raw status, is known, at ms) once it has ended
        self.watch = None               # descriptor that tells of a foreign process's end
        self.deaths = 0                 # of daemons, not by SIGKILL, while opening this one

    def facts(self):
        """All that a daemon is told of it."""
        return (self.blob, self.input, self.launch, self.pid, self.pid_start, self.spawn_number, self.exit,
                self.master >= 0, self.is_quarantined)

    _OF_A_CHILD = ("blob", "launch", "spawn_number", "pid", "pid_start", "is_child", "exit")

    def child(self):
        """What a new child replaces, for `put_back` should it not come to be."""
        return {name: getattr(self, name) for name in self._OF_A_CHILD}

    def put_back(self, child):
        """Be again what `child` says."""
        for name, value in child.items():
            setattr(self, name, value)

    @property
    def is_living(self):
        return self.exit is None

    @property
    def is_quarantined(self):
        return self.deaths >= QUARANTINE_DEATHS


class Spawning:
    """A child on its way: exec has neither worked nor failed yet."""

    def __init__(self, held, link, serial, before=None):
        self.held = held
        self.link = link                # who asked, and wants the answer
        self.serial = serial
        self.before = before            # the child that it replaces, or None
        self.said = []                  # pieces of what its status pipe told


class Cause:
    """Why a daemon is started: `after` what, asked for `by` which process, hoping for which
    `version` (text; "" as before)."""

    def __init__(self, after, by=0, version="", is_asked=False):
        self.after = after
        self.is_asked = is_asked        # an operator named the program
        self.by = by
        self.version = version


class DaemonProcess:
    """One daemon, from its start to its end.  `state` is what it has said so far."""

    STARTING, READY, SERVING, QUIESCING, LEAVING = (
        "starting", "ready", "serving", "quiescing", "leaving")

    def __init__(self, pid, start, is_child, program, cause):
        self.cause = cause
        self.pid = pid
        self.start = start
        self.is_child = is_child
        self.program = program          # (interpreter, binary)
        self.link = None
        self.state = self.STARTING
        self.was_ready = False
        self.has_gone = False           # it was told GO: before that it opens nothing
        self.started_at = time.time()
        self.version = b""
        self.given = set()              # sessions whose descriptors it has
        self.keeps = False              # it is told only what has changed since the first table
        self.told = {}                  # session id -> its facts, as that table told them
        self.unopened = []              # sessions given and not yet confirmed, in order
        self.timer = None               # of what is awaited of it
        self.ping = None                # timer: a PONG is awaited
        self.serving_since = None
        self.has_quiesced = False       # it left as it was asked to, or on its own will
        self.end_note = ""              # why we ended it, if we did

    def take_back(self, id_):
        """What it was given of that session is void: there is nothing to be opened."""
        self.given.discard(id_)
        self.told.pop(id_, None)
        if id_ in self.unopened:
            self.unopened.remove(id_)


def exit_fields(held):
    """How it ended, as a message tells it; nothing while it lives."""
    if held.is_living:
        return {}
    raw, known, at_ms = held.exit
    return {"exited": 1, "status": raw, "status_known": known, "exited_at_ms": at_ms}


def session_id(message):
    """The session that a message is about."""
    return message.bytes("session").decode("ascii", "replace")
