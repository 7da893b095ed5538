"""Tombstones: which sessions were destroyed on purpose, and may not come back unasked.

`rm` and `reconcile` leave one, after the session is torn down.  Whoever then refers to the
name, or would have it started on the way (`ensure`, `run`, `attach --create`), is told that
it was destroyed.  One file a tombstone, beside the records and written as they are:

    tombstones/k3f9.json      {"id": "k3f9", "name": "web", "at": 1795960927.5}

The file is named by the id, which is safe in any file system and differs where names do
not.  A name that nobody had when it was destroyed gets an id of its own.

    name   id    what is refused
    web    k3f9  the name `web`, the id, and a start that wants that very id
    null   k3f9  the id only: an explicit start has taken the name

Rule 1: a start lifts the tombstones that stood when it was asked for, once it has worked.
        One that was put up meanwhile, which may be its own, stays.
Rule 2: lifting frees the name, never the id: a start that was under way when its session
        was destroyed, and is asked for again, cannot bring it back.
"""

from .errors import PtyguardError, SessionDestroyed
from .registry import RecordFiles, is_valid_id, is_valid_name, shape_fault

KEEP_S = 30 * 86400.0
KEEP_COUNT = 10_000            # then the oldest go: a loop of `rm` fills no disk

FIELDS = {
    "id": is_valid_id,
    "name": is_valid_name,
    # The bound refuses what no arithmetic with floats could use.
    "at": lambda value: type(value) in (int, float) and 0 <= value < 1e11,
    "is_made_up": lambda value: type(value) is bool,
}


class TombstoneFiles(RecordFiles):
    """Tombstones on disk."""

    FOLDER = "tombstones"

    @staticmethod
    def fault_of(record):
        """As registry.shape_fault."""
        return shape_fault(record, FIELDS, ("id", "at"))


def overdue(tombstones, now, keep_s=KEEP_S, keep_count=KEEP_COUNT):
    """Ids of those past their keeping, oldest first.  Pure."""
    ordered = sorted((tombstone["at"], id_) for id_, tombstone in tombstones.items())
    surplus = max(0, len(ordered) - keep_count)
    return [id_ for position, (at, id_) in enumerate(ordered)
            if position < surplus or now > at + keep_s]


class Tombstones:
    """Those that stand, in memory and in `files` (a TombstoneFiles, or a NoRegistry)."""

    def __init__(self, files, clock, log):
        self._files = files
        self._clock = clock
        self._log = log
        self._by_id = {}
        self._ids = {}                  # name -> ids
        self._due = 0.0                 # when the oldest is past its keeping

    def load(self):
        """Read them, and let go of those past their keeping."""
        for tombstone in self._files.load().values():
            self._keep(tombstone)
        self.sweep()

    def all(self):
        """A dict by id; not to be changed."""
        return self._by_id

    def names(self):
        """The names that may not be used unasked."""
        return self._ids.keys()

    def ids_of(self, name):
        """Ids of the tombstones of that name."""
        return frozenset(self._ids.get(name, ()))

    def find(self, target):
        """The tombstone that a name or `@ID` means, or None."""
        self.sweep()
        if target.startswith("@"):
            return self._by_id.get(target[1:])
        return next((self._by_id[id_] for id_ in self._ids.get(target, ())), None)

    def add(self, id_, name=None, is_made_up=False):
        """Put one up, or renew it; the name is marked once.  Raises StateUnusable: none stands."""
        tombstone = {"id": id_, "name": name, "at": self._clock()}
        if is_made_up:
            tombstone["is_made_up"] = True
        self._files.write(tombstone)
        self._drop(id_)
        self._keep(tombstone)
        self.sweep()

    def lift(self, ids):
        """Free the names of these.  A disk that refuses is logged: a later daemon lifts them."""
        for id_ in ids:
            tombstone = self._by_id.get(id_)
            if tombstone is None or tombstone["name"] is None:
                continue
            self._log("tombstone_lifted", session=id_, name=tombstone["name"])
            self._drop(id_)
            if tombstone.get("is_made_up"):
                self._quietly(id_, self._files.remove, id_)
            else:
                self._keep(dict(tombstone, name=None))
                self._quietly(id_, self._files.write, self._by_id[id_])

    def remove(self, id_):
        """Take it down, id and all.  Raises StateUnusable: it stays."""
        self._files.remove(id_)
        self._drop(id_)

    def sweep(self):
        """Let go of those past their keeping."""
        if self._clock() <= self._due and len(self._by_id) <= KEEP_COUNT:
            return
        for id_ in overdue(self._by_id, self._clock()):
            self._drop(id_)
            self._quietly(id_, self._files.remove, id_)
        self._due = min((tombstone["at"] for tombstone in self._by_id.values()),
                        default=self._clock()) + KEEP_S

    def _keep(self, tombstone):
        self._by_id[tombstone["id"]] = tombstone
        if tombstone.get("name") is not None:
            self._ids.setdefault(tombstone["name"], set()).add(tombstone["id"])

    def _drop(self, id_):
        tombstone = self._by_id.pop(id_, None)
        if tombstone is not None and tombstone.get("name") is not None:
            ids = self._ids[tombstone["name"]]
            ids.discard(id_)
            if not ids:
                del self._ids[tombstone["name"]]

    def _quietly(self, id_, act, *arguments):
        try:
            act(*arguments)
        except PtyguardError as error:
            self._log("tombstone_not_changed", session=id_, error=error.message)


def destroyed(target):
    """The error for whoever refers to what is under a tombstone."""
    hint = "" if target.startswith("@") else f"ptyguard start -n {target} makes a new one"
    return SessionDestroyed(f"session was destroyed: {target}", hint=hint)
