"""Agentlink: a session's SSH agent is a link, so that it can be another one tomorrow.

A program keeps the SSH_AUTH_SOCK that it was started with, and the agent behind that goes
away with the login that it belongs to.  So a session's SSH_AUTH_SOCK is a symbolic link of
ours, which leads to the agent of whoever attached last:

    PLACE/a-ID  ->  /tmp/ssh-XXXX/agent.4711

Rule 1: a client that comes wins, if its agent can be reached.  One that only comes back,
        after a daemon was replaced, takes nothing from a living agent.
Rule 2: when the agent goes away, or the client whose agent it is leaves, the first that can
        be reached takes its place: the agents of clients that are there, the newest first;
        the present one, whose client has left; the creator's.  If there is none, the link
        stays as it is.
Rule 3: no connection is held through a login.  ssh does not end at logout while one is open
        through its forwarded agent (channel_still_open() in OpenSSH's channels.c; seen with
        9.2).  What is watched is the process that listens, sshd's there.  Only where that
        one is gone, since an ssh-agent makes itself a daemon after it has called listen, a
        connection is held, and its hang-up tells.
Rule 4: nothing is watched unless there is another agent to take, and nothing is looked at
        by time.  An event (a client came, left, an agent went) costs one attempt an agent.
Rule 5: no link leads to itself, by however many other links.

Not noticed before the next event: the end of an agent that listens at a socket of another,
living process (`ssh-agent CMD`) or of another pid namespace, or one that closes idle
connections.
"""

import os

from .backend import HANGUP, LISTENER_GONE, READABLE, SOCKET_PATH_MAX
from .errors import UsageError

RETURN_WAIT_S = 5.0            # for clients to come back after a daemon was replaced
BRIEF_S = 60.0                 # an agent that closes idle connections sooner than that ...
BRIEF_MAX = 2                  # ... so often, is not held on to.  Once, it may have been dying
LINKS_FOLLOWED_MAX = 40        # by the kernel, path_resolution(7)


def agent_path(text):
    """The path of an agent's socket as bytes; b"" stands for no agent.

    Raises UsageError for what cannot be one.
    """
    path = text.encode("utf-8", "surrogateescape")
    if path and (not os.path.isabs(path) or b"\0" in path or len(path) > SOCKET_PATH_MAX):
        raise UsageError(f"not the path of an agent's socket: {text[:40]!r}")
    return path


class _Link:
    """One session's link, and the agents that it could lead to."""

    def __init__(self, id_, path, creator):
        self.id = id_                   # the session's
        self.path = path
        self.creator = creator          # the agent of who started the session, or b""
        self.target = None              # what it leads to
        self.offers = []                # (client, its agent's path), the newest last

    def is_offered(self, path):
        """Whether that is the agent of a client that is there."""
        return any(offered == path for _, offered in self.offers)

    def wishes(self):
        """Paths of agents, the best first (rule 2)."""
        paths = [path for _, path in reversed(self.offers)] + [self.target, self.creator]
        return [path for path in dict.fromkeys(paths) if path]

    def has_other(self):
        """Whether there would be another agent to take."""
        return any(path != self.target for path in self.wishes())


class _Watch:
    """How the end of one agent is noticed, for all links that lead to it."""

    __slots__ = ("fd", "sock", "since", "ends")

    def __init__(self):
        self.fd = None                  # None: it is not
        self.sock = None                # the connection that is held, if it takes one
        self.since = 0.0
        self.ends = 0                   # in a row, each soon after it began


class AgentLinks:
    """The links of all sessions.  Paths are bytes, clients any objects; nothing blocks."""

    def __init__(self, backend, loop, paths, log):
        self._backend = backend
        self._loop = loop
        self._paths = paths
        self._log = log
        self._links = {}                # session id -> _Link
        self._watches = {}              # path of an agent -> _Watch

    # -- a session's life ------------------------------------------------------------------

    def adopt(self, id_, creator):
        """The session's link, made or taken over: its path, or None when it has none.

        `creator`: of the session's record, the path of the agent that it was started with,
        a text; anything else says that it is to have no link.
        """
        path = os.fsencode(self._paths.agent_link(id_))
        if not isinstance(creator, str) or len(path) > SOCKET_PATH_MAX:
            return None
        try:
            creator = agent_path(creator)
        except (UsageError, ValueError):
            creator = b""               # somebody wrote in the record
        link = self._links[id_] = _Link(id_, path, creator)
        link.target = _read(path)
        if link.target is None:
            if creator and self._make(link, creator):
                link.target = creator
        elif link.target != creator:
            self._loop.after(RETURN_WAIT_S, lambda: self._settle(id_))
        return path

    def _settle(self, id_):
        """Whoever wanted to come back is here: the client of the present agent, too?"""
        link = self._links.get(id_)
        if link is not None and not link.is_offered(link.target):
            self._choose(link)

    def offer(self, id_, client, path, is_return=False):
        """A client has come; `path` is its agent's, or empty."""
        link = self._links.get(id_)
        if link is None:
            return
        if path:
            link.offers.append((client, path))
            if not is_return and self._try(link, path):
                return
        if not self._try(link, link.target):
            self._choose(link)

    def withdraw(self, id_, client):
        """That client has left."""
        link = self._links.get(id_)
        if link is None or not any(owner is client for owner, _ in link.offers):
            return
        link.offers = [offer for offer in link.offers if offer[0] is not client]
        if link.is_offered(link.target):
            self._update_watch(link.target)
        else:
            self._choose(link)

    def forget(self, id_):
        """The session is no more."""
        link = self._links.pop(id_, None)
        _remove(os.fsencode(self._paths.agent_link(id_)))
        if link is not None:
            self._update_watch(link.target)

    def sweep(self, ids):
        """Remove links, and drafts of links, that belong to none of these sessions."""
        directory, prefix = os.path.split(os.fsencode(self._paths.agent_link("")))
        try:
            names = os.listdir(directory)
        except OSError:
            return
        known = {prefix + os.fsencode(id_) for id_ in ids}
        for name in names:
            if name.startswith(prefix) and name not in known:
                _remove(os.path.join(directory, name))

    def describe(self, id_):
        """For clients: `link`, and the `target` that it has on disk; None without a link."""
        link = self._links.get(id_)
        if link is None:
            return None
        return {"link": _as_text(link.path), "target": _as_text(_read(link.path))}

    # -- where it leads --------------------------------------------------------------------

    def _choose(self, link):
        """Rule 2.  A present agent that nobody is there for stays only if it is watched or
        the last."""
        for path in link.wishes():
            if self._try(link, path) and (link.is_offered(path) or path == link.creator
                                          or self._is_watched(path)):
                return
        if link.target:
            self._make(link, link.target)       # a cleaner may have taken it

    def _try(self, link, path):
        """Point there, if somebody serves there; whether it does."""
        sock = self._reach(link, path) if path else None
        if sock is None:
            if not self._is_watched(path):
                self._watches.pop(path, None)   # it was the agent's end, not a brief connection's
            return False
        before = link.target
        if not self._make(link, path):
            sock.close()
            return False
        link.target = path
        self._update_watch(path, sock)
        if path != before:
            self._update_watch(before)
        return True

    def _reach(self, link, path):
        """A connection to that agent, or None."""
        if _leads_to(path, link.path):
            return None
        sock = self._backend.connect_now(path)
        if sock is None:
            return None
        # The directory of an agent that is gone may be another user's by now.
        ours = self._backend.user_id()
        try:
            theirs = self._backend.peer_user(sock)
        except OSError:
            theirs = None               # it has gone already
        if theirs in (ours, 0) or ours == 0 and theirs is not None:
            return sock
        self._log("agent_refused", session=link.id, path=_as_text(path), uid=theirs)
        sock.close()
        return None

    def _make(self, link, target):
        """The link on disk, replaced in one step unless it is right; whether that worked."""
        if _read(link.path) == target:
            return True
        draft = link.path + b"." + os.urandom(6).hex().encode()
        try:
            os.symlink(target, draft)
            os.replace(draft, link.path)
        except OSError as error:
            _remove(draft)
            self._log("agent_link_not_made", session=link.id, error=str(error))
            return False
        self._log("agent_linked", session=link.id, target=_as_text(target))
        return True

    # -- noticing its end --------------------------------------------------------------------

    def _is_watched(self, path):
        watch = self._watches.get(path)
        return watch is not None and watch.fd is not None

    def _update_watch(self, path, sock=None):
        """Watch that agent, or no more: the one place that says so.  `sock` is a connection
        to it, ours to keep or to close."""
        watch = self._watches.get(path)
        if not any(link.target == path and link.has_other() for link in self._links.values()):
            if self._watches.pop(path, None) is not None:
                self._release(watch)
        elif sock is not None:
            if watch is None:
                watch = self._watches[path] = _Watch()
            if watch.fd is None and watch.ends < BRIEF_MAX:
                self._begin_watch(path, watch, sock)
        if sock is not None and (watch is None or sock is not watch.sock):
            sock.close()

    def _begin_watch(self, path, watch, sock):
        """Rule 3."""
        fd = self._backend.watch_listener(sock)
        if fd is None:
            return
        if fd == LISTENER_GONE:
            watch.sock, fd = sock, sock.fileno()
        watch.fd = fd
        watch.since = self._loop.clock()
        self._loop.watch(fd, lambda _bits: self._on_end(path), HANGUP if watch.sock else READABLE)

    def _release(self, watch):
        if watch.fd is not None:
            self._loop.forget(watch.fd)
            watch.sock.close() if watch.sock else os.close(watch.fd)
            watch.fd = watch.sock = None

    def _on_end(self, path):
        """It hung up, or the process is gone: look again, and elsewhere."""
        watch = self._watches[path]
        watch.ends = watch.ends + 1 if self._loop.clock() - watch.since < BRIEF_S else 1
        self._release(watch)
        for link in list(self._links.values()):
            if link.target == path:
                self._choose(link)


def _read(link):
    """What a link holds, or None when there is none."""
    try:
        return os.readlink(link)
    except OSError:
        return None


def _remove(link):
    """Remove it if it is a link; clean-up."""
    if os.path.islink(link):
        try:
            os.unlink(link)
        except OSError:
            pass


def _leads_to(path, link):
    """Whether `path` is that link, or leads to it by other links (rule 5)."""
    for _ in range(LINKS_FOLLOWED_MAX):
        if path == link:
            return True
        target = _read(path)
        if target is None:
            return False
        path = os.path.join(os.path.dirname(path), target)
    return True


def _as_text(path):
    """As it travels in JSON: UTF-8 with lone surrogates."""
    return None if path is None else path.decode("utf-8", "surrogateescape")
