"""Client: the Python API.

    import ptyguard
    with ptyguard.connect() as pg:
        with pg.start(["bash"]) as shell:
            shell.send(b"ls\\n")
            shell.wait_for(rb"\\$ ")

Rooms that only some methods need are loaded by those.

Everything blocks.  Times are seconds (floats), None means without limit; sizes of terminals
are (columns, rows); text to and from a terminal is bytes.  Errors are those of errors.py, all
of them `PtyguardError`.  A `Client` and what it gave belong to one thread at a time.

Sessions outlive this process unless one says otherwise: `with` on a session does.
"""

from __future__ import annotations

import os

from . import frames
from .channel import Channel, Follower
from .errors import NoSuchSession, OutputGap
from .reaching import START_LIMIT_S
from .report import LIVING
from .version import OURS

TYPE_CHECKING = False
if TYPE_CHECKING:               # never at run time: `typing` costs as much as all the rest
    import re
    from .screen import Screen
    from typing import (Any, Dict, Iterable, Iterator, List, Optional, Sequence, Tuple, Union)

    Text = Union[str, bytes]
    Exit = Dict[str, Any]


class Client:
    """A connection to the user's daemon; a context manager."""

    def __init__(self, backend: Any, paths: Any, may_start: bool = True,
                 timeout_s: float = START_LIMIT_S, may_update: bool = True,
                 scope: Any = None) -> None:
        """Use `ptyguard.connect`, which knows the back-end.

        `may_update`: a daemon that is older than we are may be replaced, as the policy
        PTYGUARD_AUTO_UPGRADE has it; `notice` then tells what has to wait or failed.
        """
        self.backend = backend
        self.paths = paths
        self._may_start = may_start
        self._scope = scope
        self._channel = Channel(backend, paths, "api", may_start, timeout_s, scope=scope)
        self.notice = None
        if may_start and may_update and _is_to_be_considered(self._channel.welcome):
            from .upgrading import consider
            self.notice = consider(backend, paths, self._channel, os.environ)

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the connection; sessions live on.  Idempotent."""
        self._channel.close()

    def request(self, verb: str, timeout_s: Optional[float] = None, **fields: Any) -> Dict[str, Any]:
        """One request to the daemon, as docs/PROTOCOL.md lists them; the reply's dict."""
        return self._channel.request(verb, timeout_s, **fields)

    def start_no_more(self) -> None:
        """Talk only to a daemon that runs: what a stop has ended is not begun anew by us."""
        self._may_start = False
        self._channel.may_start = False

    def open_channel(self, role: str) -> Channel:
        """A connection of its own, for following or sending."""
        return Channel(self.backend, self.paths, role, self._may_start, scope=self._scope)

    def start(self, argv: Optional[Sequence[Text]] = None, name: Optional[str] = None,
              if_exists: str = "refuse", **options: Any) -> Session:
        """Start `argv` (the login shell when None) in a new session.

        `if_exists`, when a living session has that name: "refuse", "use" that one, or "rejoin"
        it if it runs the same (also one that ended and whose status nobody has fetched).
        `options`: `cwd`; `env` (a dict, whole); `size` (columns, rows); `scrollback` (bytes);
        `echo`; `executable`; `agent` (the path of an SSH agent); `log` (a file to append its
        output to); `record` (a file to record it to), `record_input`; `labels` (a dict); `ttl` (seconds to keep it after its end); `size_policy`;
        `restart` (its policy, as "always:3").
        Raises SessionExists, CommandNotFound, CannotExecute (`details["errno"]`), LimitReached,
        StateUnusable; then nothing is left behind.
        """
        from .starting import start_fields
        fields = start_fields(self.backend, argv, **options)
        if name is not None:
            fields["name"] = name
        ok = self.request("start", if_exists=if_exists, **fields)
        session = Session(self, ok["session"])
        session.was_created = ok["created"]
        return session

    def ensure(self, name: str, argv: Optional[Sequence[Text]] = None, **options: Any) -> Session:
        """The living session of that name, started if there is none; any number of callers
        at once make one.  `was_created` tells."""
        return self.start(argv, name, "use", **options)

    def sessions(self) -> List[Session]:
        """All sessions, ended ones too, the oldest first."""
        return [Session(self, facts) for facts in self.request("ls")["sessions"]]

    def session(self, target: str) -> Session:
        """The session of that name (exact) or `@ID`; raises NoSuchSession, SessionDestroyed."""
        return Session(self, self.request("resolve", target=target)["session"])

    def remove(self, target: str, tombstone: bool = True,
               timeout_s: Optional[float] = None) -> Dict[str, Any]:
        """Destroy what that name or `@ID` means, and leave a tombstone, also when there is nothing.

        Idempotent.  Gives `session` (its facts, None when there was none), `known` (False when
        nobody has ever had it), `tombstone`, `near` (names that may have been meant).
        """
        fields: Dict[str, Any] = {}
        if not target.startswith("@"):
            try:                # by its id it can be asked again, and never hits a newer one
                facts = self.request("resolve", target=target)["session"]
                target, fields = "@" + facts["id"], {"name": facts["name"]}
            except NoSuchSession:
                pass
        return self.request("rm", timeout_s, target=target, tombstone=tombstone, **fields)

    def reconcile(self, live: Iterable[str], idle_s: float = 60.0,
                  dry_run: bool = False) -> Dict[str, Any]:
        """Destroy the sessions that `live` (names, `@ID`s) does not hold and nobody uses, and
        lift the tombstones of names that it holds.

        Never one with a client, with another program than its own in the foreground, or that
        was active in the last `idle_s`.  Gives `items`, a list of dicts with `name`, `id`,
        `action` ("drop", "keep", "lift", "failed") and `reason`, and `inconclusive`: too many
        looked dead at once, and nothing was done.
        """
        return self.request("reconcile", live=list(live), idle=idle_s, dry_run=dry_run)

    @property
    def welcome(self) -> Dict[str, Any]:
        """What the daemon said of itself when it was connected to."""
        return self._channel.welcome

    def status(self) -> Dict[str, Any]:
        """What the daemon says of itself now: pid, version, counts of sessions, ..."""
        return self.request("status")


def _is_to_be_considered(welcome: Dict[str, Any]) -> bool:
    """Whether `upgrading.consider` could say anything but that this daemon will do."""
    return (welcome.get("version") != OURS
            or welcome.get("protocol") != [frames.PROTOCOL_MIN, frames.PROTOCOL_MAX]
            or bool(os.environ.get("PTYGUARD_AUTO_UPGRADE")) or os.environ.get("PTYGUARD_DEV") == "1")


class Session:
    """One session.

    `facts` is its JSON object as of the last answer (docs/PROTOCOL.md).  As a context manager
    it is ended on the way out, if it lives still; its output and status stay readable.
    """

    def __init__(self, client: Client, facts: Dict[str, Any]) -> None:
        self._client = client
        self.facts = facts
        self.was_created = False

    def __repr__(self) -> str:
        return f"<ptyguard session {self.name} @{self.id} {self.facts['state']}>"

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self.kill()
        except NoSuchSession:
            pass                # somebody removed it: it has ended, which is what was wanted

    @property
    def name(self) -> str:
        """Its name as of the last answer; `rename` changes it."""
        return self.facts["name"]

    @property
    def id(self) -> str:
        """Its id, for life."""
        return self.facts["id"]

    @property
    def is_living(self) -> bool:
        """Whether it lived as of the last answer."""
        return self.facts["state"] in LIVING

    @property
    def _target(self) -> str:
        return "@" + self.id

    def _ask(self, verb: str, timeout_s: Optional[float] = None, **fields: Any) -> Dict[str, Any]:
        self.facts = self._client.request(verb, timeout_s, target=self._target, **fields)["session"]
        return self.facts

    # -- looking -------------------------------------------------------------------------

    def info(self) -> Dict[str, Any]:
        """Fresh facts, with foreground process, current directory, ring, clients."""
        return self._ask("info")

    def read(self, offset: Optional[int] = None,
             limit: int = frames.CONTROL_BYTES_MAX) -> Tuple[int, bytes]:
        """(offset, bytes) of history, at most `limit` bytes from `offset` on.

        Offsets count bytes since the session began; None is the oldest kept byte, -N the end
        less N, beyond the end is the end.  Raises OutputGap(first_offset) when it is gone.
        """
        fields = {} if offset is None else {"offset": offset}
        with self._client.open_channel("read") as channel:
            ok, data = channel.read(target=self._target, limit=limit, **fields)
        return ok["offset"], data

    def follow(self, offset: Union[int, str] = "oldest", hold: Union[str, float] = "never",
               timeout_s: Optional[float] = None) -> Iterator[Tuple[int, bytes]]:
        """Yield (offset, bytes) as output comes, to the session's end; over daemons' deaths.

        From `offset`, "oldest" or "now".  `hold`: may this reader hold the program back,
        "never", "always", or for so many seconds.  Raises OutputGap when output was
        overwritten before it could be read, TimedOut.
        """
        def gap(start: int, end: int) -> None:
            raise OutputGap(f"output {start} to {end} of {self.name} is gone", first_offset=end)

        with self._client.open_channel("follow") as channel:
            follower = Follower(channel, self._target, offset, hold, gap)
            for at, view in follower.pieces(timeout_s):
                yield at, bytes(view)
            self.facts = follower.end

    def screen(self, history: int = 0, timeout_s: Optional[float] = None) -> Screen:
        """What its terminal shows now, with at most so many lines of history; docs/SCREEN.md.

        It is a picture: call again for the next.  Raises PtyguardError when the output of an
        ended session is not kept any more.
        """
        from .viewing import look
        with self._client.open_channel("screen") as channel:
            self.facts, replay = look(channel, self._target, history, timeout_s)
        return replay.screen

    # -- typing --------------------------------------------------------------------------

    def send(self, data: bytes, enter: bool = False, timeout_s: Optional[float] = None,
             paste: bool = False, wait_for: Optional[Union[bytes, re.Pattern[bytes]]] = None,
             since: Union[int, str, None] = None) -> int:
        """Type bytes; returns once the kernel took all of them: the end offset before.

        `enter`: then press Enter, in a write of its own.  `paste`: as a bracketed paste, if
        the program wants such.  `wait_for`: not before the output behind the last send (or
        `since` there) matches, and only if nobody else sends in between; then it has to match
        anew.  Never retried.  Raises PtyguardError with `details["written"]` when not all
        went, TimedOut.
        """
        from .sending import paste_input, send_input
        type_ = paste_input if paste else send_input
        if wait_for is None:
            return type_(self._client.open_channel("send"), self._target, data, enter,
                         timeout_s)["offset"]
        from .conditions import Patience, output_pattern
        from .prompt import answer
        _, ok = answer(
            self._client.open_channel, self._target, output_pattern(wait_for),
            lambda channel, target, sends, left_s: type_(channel, target, data, enter, left_s, sends),
            Patience(timeout_s), since)
        return ok["offset"]

    def key(self, *names: str, timeout_s: Optional[float] = None) -> int:
        """Press keys by their names (`ptyguard help key`), as `send` does; UsageError."""
        from .sending import send_keys
        return send_keys(self._client.open_channel("send"), self._target, names,
                         timeout_s=timeout_s)["offset"]

    def resize(self, cols: int, rows: int) -> None:
        """Set the terminal's size."""
        self._ask("resize", size=[cols, rows])

    # -- waiting -------------------------------------------------------------------------

    def wait_for(self, pattern: Union[bytes, re.Pattern[bytes]], timeout_s: Optional[float] = None,
                 since: Union[int, str] = "oldest", raw: bool = False) -> re.Match[bytes]:
        """The match of a bytes pattern in the output, escapes and CR removed unless `raw`.

        From the oldest kept byte, `since` an offset (that of `send`), or "now".  Raises
        TimedOut; PtyguardError when the session ends first.
        """
        from .waiting import wait_for
        with self._client.open_channel("wait") as channel:
            return wait_for(channel, self._target, pattern, timeout_s, since, raw)

    def wait_screen(self, pattern: Union[str, re.Pattern[str]],
                    timeout_s: Optional[float] = None) -> re.Match[str]:
        """The match of a str pattern on the screen as it is now or comes to be, the last one
        included; ^ and $ are those of lines, which have no blanks at their ends.  Raises
        TimedOut; PtyguardError when the session ends first.
        """
        from .conditions import Patience, ScreenSearch
        from .viewing import Viewing
        from .waiting import wait_screen
        search = ScreenSearch(pattern)
        with self._client.open_channel("wait") as channel:
            wait_screen(Viewing(channel, self._target), [search], Patience(timeout_s))
        return search.match

    def wait_idle(self, idle_s: float, timeout_s: Optional[float] = None) -> None:
        """Until no output has come for `idle_s` seconds, or the end.  Raises TimedOut."""
        from .waiting import wait_idle
        with self._client.open_channel("wait") as channel:
            wait_idle(channel, self._target, idle_s, timeout_s)

    def wait(self, timeout_s: Optional[float] = None) -> Exit:
        """Until the end; its exit: `{"code": 3, "signal": None}`, or the signal's name; both
        None when it cannot be known (`facts["reason"]`).  Raises TimedOut."""
        return self._ask("wait", timeout_s, collect=True)["exit"]

    # -- its life ------------------------------------------------------------------------

    def kill(self, grace_s: float = 5.0, orphans: bool = False) -> None:
        """End its whole tree; returns when that is confirmed, PtyguardError when it is not.

        HUP, TERM, and after `grace_s` KILL.  `orphans`: also daemons that it has started.
        An ended session is fine.
        """
        self._ask("kill", grace=grace_s, orphans=orphans)

    def restart(self, grace_s: float = 5.0) -> None:
        """The same command again, in the same session; killed first if it lives."""
        self._ask("restart", grace=grace_s)

    def rename(self, name: str) -> None:
        """Another name; SessionExists when another kept session has it."""
        self._ask("rename", name=name)

    def detach(self) -> None:
        """Send people's clients away; returns when they have left."""
        self._ask("detach")

    def remove(self, tombstone: bool = True) -> None:
        """Kill if it lives, forget it, and leave a tombstone.  Idempotent."""
        told = self._client.request("rm", target=self._target, name=self.name, tombstone=tombstone)
        self.facts = told["session"] or self.facts
