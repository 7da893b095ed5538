"""Requests: what a client may ask of the daemon, one function a verb.

Each takes (daemon, client, fields, reply).  `reply(**ok)` answers, now or later;
raising a PtyguardError answers with that.  A verb checks everything before it
changes anything, and what it was sent is never trusted to have the right type.

The client's connection may be gone when a late answer comes; replying to it is
harmless.
"""

import errno
import os

from . import frames
from .agentlink import agent_path
from .direct import lend, lend_go, reclaim
from .errors import (Busy, CannotExecute, CommandNotFound, LimitReached, NoSuchSession,
                     OutputGap, ProtocolError, PtyguardError, SessionDestroyed, SessionExists,
                     StateUnusable, TimedOut, Unreachable, UsageError)
from .reconcile import IDLE_S, Pass
from .registry import (FILES, RECORDING, check_id, check_name, find, is_valid_id, is_valid_name, maybe_find,
                       suggest_name)
from .restartpolicy import NEVER as NEVER_AGAIN, parse_policy, policy_in
from .ring import CAPACITY_MIN
from .session import (ALWAYS, DRAINING, ENDED, FAILED, LATEST, LEADER, LOST, NEVER, QUARANTINED,
                      SIZE_POLICIES, STARTING, Cursor, Session)
from .terminal import LookBudget
from .tombstones import destroyed

RING_BYTES = 1 << 20            # a few hundred screens; `--scrollback`
RING_BYTES_MAX = 1 << 30
READ_BYTES_MAX = 4 << 20        # one `read`, copied into the connection's queue
ARGV_SHOWN_MAX = 256 * 1024     # of a command line; six bytes each at worst, in a 4 MiB frame
ARGV_LISTED_MAX = 512           # in a list of a thousand
LISTED_A_TURN = 64              # sessions: a few milliseconds
PATH_SHOWN_MAX = 4096           # PATH_MAX
SEND_BYTES_MAX = 1 << 30
GRACE_S = 5.0
LEAVING_LIMIT_S = 2.0           # a client that is stopped finds out when it is continued
START_WAIT_S = 30.0             # for a start, also one that somebody else asked for (C-505)
LABELS_MAX = 64
LABEL_LENGTH_MAX = 256          # of key and value: notes to oneself, no files
TTL_MAX_S = 10 * 365 * 86400
IDLE_MAX_S = TTL_MAX_S
_FILE_BYTES_MAX = (1 << 63) - 1
_LOG_ERROR_LENGTH_MAX = 1000


# -- reading what was sent ---------------------------------------------------------------

def _field(fields, name, kinds, default=None):
    value = fields.get(name)
    if value is None:                   # a null is as good as no field
        return default
    if (isinstance(value, kinds) and not isinstance(value, bool)) \
            or (kinds is bool and isinstance(value, bool)):
        return value
    raise UsageError(f"request field {name} is not of its kind: {str(value)[:40]!r}")


def _text(fields, name, default=None):
    value = _field(fields, name, str, default)
    if value is not None and "\0" in value:
        raise UsageError(f"request field {name} holds a NUL")
    return value


def _whole(fields, name, default, low, high):
    value = _field(fields, name, int, default)
    if value is not None and not low <= value <= high:
        raise UsageError(f"request field {name} is {value}, {low} to {high} can be used")
    return value


def _size(fields, name="size"):
    value = fields.get(name)
    if value is None:
        return None
    if not (isinstance(value, list) and len(value) == 2
            and all(type(n) is int and 0 < n < 65536 for n in value)):
        raise UsageError(f"not a terminal size: {str(value)[:40]}")
    return tuple(value)


def _bytes_list(fields, name):
    value = fields.get(name)
    if not isinstance(value, list) or not all(isinstance(v, str) and "\0" not in v for v in value):
        raise UsageError(f"request field {name} is not a list of texts without NUL")
    return [_encode(item) for item in value]


def _agent(fields):
    """The path of the client's SSH agent, b"" for none, None when nothing was said of it."""
    path = _text(fields, "agent")
    return None if path is None else agent_path(path)


def _encode(text):
    """Bytes travel in JSON as UTF-8 with lone surrogates, whatever the locale."""
    return text.encode("utf-8", "surrogateescape")


def _target(daemon, fields):
    """The session that is meant (C-106): named, else the one we are in, else the only one."""
    named = _text(fields, "target")
    if named is not None:
        return _find(daemon, named)
    inside = _text(fields, "inside")
    if inside in daemon.sessions and not daemon.sessions[inside].is_over:
        return daemon.sessions[inside]
    living = [session for session in daemon.sessions.values() if not session.is_over]
    if len(living) == 1:
        return living[0]
    if not living:
        raise NoSuchSession("no session lives", hint="ptyguard start -- CMD makes one")
    names = sorted(session.name for session in living)
    raise NoSuchSession(f"which session? {len(names)} live: {', '.join(names[:10])}"
                        + (", ..." if len(names) > 10 else ""), hint="name one")


def _find(daemon, named):
    session = _maybe_held(daemon, named)
    # Who has the id means that session, also while it is still being destroyed: its log's writer.
    is_meant = session is not None and (not session.is_over or named.startswith("@"))
    if not is_meant and daemon.endings.is_destroyed(named):
        raise destroyed(named)
    return session or daemon.sessions[find(_records(daemon), named)["id"]]


def _maybe_held(daemon, named):
    """Whoever has that name or `@ID`, as long as anything is held of it; or None."""
    record = maybe_find(_records(daemon), named)
    return None if record is None else daemon.sessions[record["id"]]


def _records(daemon):
    return {id_: session.record for id_, session in daemon.sessions.items()}


def _living_target(daemon, fields):
    session = _target(daemon, fields)
    if session.is_to_run_again or session.state == STARTING:
        raise Busy(f"session {session.name} is just being started", hint="try again in a moment")
    if not session.is_living:
        raise _is_over(session)
    if session.ring is None:
        raise PtyguardError(f"session {session.name} is held but cannot be opened "
                            f"({session.state})", hint="ptyguard daemon log")
    return session


def _is_over(session):
    if session.state == LOST:
        return NoSuchSession(f"session {session.name} was lost: {session.record.get('reason')}",
                             hint="its output and status are gone with it")
    return NoSuchSession(f"no such session: {session.name} (it has ended)",
                         hint=f"ptyguard log {session.name} shows its output, "
                              f"ptyguard wait {session.name} its status")


# -- what is told ------------------------------------------------------------------------

def describe(session, argv_max=ARGV_SHOWN_MAX, budget=None):
    """The session as cli clients see it: the JSON object of `ls` and `info`.

    A command line is cut at `argv_max` characters: a reply has to fit a frame.  Who describes
    many has one LookBudget for all of them.
    """
    record = session.record
    ring = session.ring
    told = {key: record.get(key) for key in (
        "name", "id", "incarnation", "state", "pid", "pid_start", "argv", "cwd", "size",
        "created_at", "ended_at", "exit", "labels", "restart", "reason")}
    told["argv"] = _cut(told["argv"] or [], argv_max)
    told["cwd"] = (told["cwd"] or "")[:min(argv_max, PATH_SHOWN_MAX)] or None
    told["relaunch"] = _relaunch(record)
    if session.is_to_run_again and not session.is_living:
        told.update(state=STARTING, exit=None, ended_at=None)   # between two programs
    told["exit"] = told["exit"] or {"code": None, "signal": None}
    told["labels"] = told["labels"] or {}
    told["ttl"] = record.get("ttl")
    told["size_policy"] = record.get("size_policy") or LATEST
    title = session.look_for_title(budget or LookBudget())
    told["title"] = None if title is None else title.decode("utf-8", "surrogateescape")
    told["kill_pending"] = _pending_kill(record.get("kill_pending"))
    told["collected"] = bool(record.get("collected"))
    told["clients"] = sum(cursor.is_interactive or cursor.is_viewer for cursor in session.cursors)
    told["offsets"] = {"start": ring.start_offset, "end": ring.end_offset} if ring else None
    log, recording = record.get("log"), record.get("recording")
    told["log"] = log and _written(log)
    told["recording"] = recording and dict(_written(recording), input=bool(recording.get("input")))
    return told


def _written(log):
    return {"path": log["path"], "error": log.get("error"), "missed": log.get("missed", 0)}


def _relaunch(record):
    """What its restart policy is about to do; None without one."""
    policy = policy_in(record.get("restart"))
    if policy.kind == NEVER_AGAIN:
        return None
    noted = record.get("relaunch") or {}
    due_at = noted.get("due_at")
    return {"attempts": noted.get("attempts", 0), "attempts_max": policy.attempts_max,
            "due_at": due_at, "off": bool(noted.get("off")),
            "last_exit": record.get("exit") if due_at is not None else None}


def _pending_kill(pending):
    return pending and {"since": pending["since"], "tried_at": pending["tried_at"],
                        "survivors": [pid for pid, _ in pending["survivors"]],
                        "destroy": bool(pending.get("destroy"))}


def _cut(words, limit):
    kept = []
    for word in words:
        if len(word) > limit:
            return kept + [word[:limit] + "..."]
        kept.append(word)
        limit -= len(word) + 1
    return kept


def ls(daemon, client, _fields, reply):
    """All sessions, the oldest first."""
    ordered = sorted(daemon.sessions.values(), key=lambda s: (s.record["created_at"], s.id))
    budget = LookBudget()
    daemon.watchers.caught_up(client)
    told = []

    def go_on():
        part = ordered[len(told):len(told) + LISTED_A_TURN]
        told.extend(describe(session, ARGV_LISTED_MAX, budget) for session in part)
        if len(told) < len(ordered):
            daemon.loop.soon(go_on)
        else:
            reply(sessions=told)
    go_on()


def watch(daemon, client, _fields, reply):
    """From now on this connection is told when `ls` would tell something else."""
    daemon.watchers.add(client)
    reply()


def info(daemon, _client, fields, reply):
    """Everything about one session."""
    session = _target(daemon, fields)
    told = describe(session)
    backend = daemon.backend
    told["ring"] = {"bytes": session.ring.capacity, "recovered": session.ring.recovered_bytes} \
        if session.ring else None
    told["input_queued"] = session.input_bytes
    told["viewers"] = [{"pid": c.owner.hello.get("pid"), "size": c.size,
                        "interactive": c.is_interactive, "hold": c.hold, "offset": c.offset,
                        "direct": c.owner.direct is not None and c.owner.direct.is_live}
                       for c in session.cursors if c.owner and not c.is_log]
    told["environment"] = session.record.get("markers")
    told["agent"] = daemon.agents.describe(session.id)
    told["foreground"] = None
    if session.is_living and session.master >= 0:
        group = backend.foreground_group(session.master)
        told["foreground"] = dict(backend.process_facts(group), pid=group,
                                  busy=group != session.record["pid"]) if group else None
        told["cwd_now"] = backend.process_facts(session.record["pid"]).get("cwd")
    reply(session=told)


def status(daemon, _client, _fields, reply):
    """What the daemon knows of itself."""
    living = sum(not session.is_over for session in daemon.sessions.values())
    reply(running=living, ended=len(daemon.sessions) - living, clients=len(daemon.clients),
          disk_error=daemon.registry.last_error or daemon.logs.trouble(),
          quarantined=[session.name for session in daemon.sessions.values()
                       if session.state == QUARANTINED],
          kills_pending=[session.name for session in daemon.sessions.values()
                         if session.record.get("kill_pending")],
          tombstones=len(daemon.tombstones.all()), log_error=daemon.log.error, **daemon.about())


def resolve(daemon, _client, fields, reply):
    """The session that a word means; no side effects."""
    reply(session=describe(_target(daemon, fields)))


# -- starting ----------------------------------------------------------------------------

def start(daemon, client, fields, reply):
    """A new session; with `if_exists` "use", the living one of that name will do,
    with "rejoin" also one whose uncollected end or life has the same argv."""
    wanted = _check_start(fields)
    name = wanted["name"]
    if wanted["id"] in daemon.sessions:
        # The same request again: its first asking was answered by a daemon that died.
        again = daemon.sessions[wanted["id"]]
        daemon.when_started(again, lambda error: reply(session=describe(again), created=True)
                            if error is None else reply(error=error))
        return
    policy = fields.get("if_exists", "refuse")
    present = None
    if name is not None:
        present = next((s for s in daemon.sessions.values()
                        if s.name == name and not s.is_over), None)
    if present is None:
        daemon.endings.check_start(wanted["id"], name, policy)
    if name is not None:
        if policy == "rejoin":
            rejoined = _find_to_rejoin(daemon, name, wanted["argv"], present)
            if rejoined is not None:
                _reply_when_started(daemon, rejoined, reply)
                return
        if present is not None:
            if policy != "use":
                raise _exists(name)
            _reply_when_started(daemon, present, reply)
            return
    left = next((s for s in daemon.sessions.values()
                 if name is not None and s.name == name and s.state == LOST
                 and daemon.relaunches.may_live_on(s)), None)
    if left is not None:                # two of the same would run
        daemon.relaunches.reap(left, lambda error: _start_after(daemon, client, fields, reply, error))
        return
    if sum(s.is_living for s in daemon.sessions.values()) >= daemon.sessions_max:
        raise LimitReached(f"{daemon.sessions_max} sessions live already",
                           hint="end some, or set PTYGUARD_MAX_SESSIONS and restart the daemon")
    _begin_start(daemon, client, wanted, reply)


def _start_after(daemon, client, fields, reply, error):
    """What was left of a lost session is gone, or cannot be ended; meanwhile another may have
    started it."""
    try:
        if error is not None:
            raise error
        start(daemon, client, fields, reply)
    except PtyguardError as refusal:
        reply(error=refusal)


def _reply_when_started(daemon, session, reply):
    """It is there already, or on its way; that somebody else waits for is no reason to do
    so for ever."""
    answered = []

    def started(error):
        timer.cancel()
        if not answered:
            answered.append(True)
            reply(error=error) if error else reply(session=describe(session), created=False)

    timer = daemon.loop.after(START_WAIT_S, lambda: started(Busy(
        f"session {session.name} is being started and not ready after {START_WAIT_S:g} s",
        hint="is its directory on a file system that does not answer?")))
    daemon.when_started(session, started)


def _exists(name):
    return SessionExists(f"session exists: {name}", hint=f"ptyguard attach {name}")


def _find_to_rejoin(daemon, name, argv, present):
    """C-123: the live session of that name and command, or its uncollected end."""
    if present is not None:
        if [_encode(item) for item in present.record["argv"]] != argv:
            raise _exists(name)
        return present
    ended = [s for s in daemon.sessions.values()
             if s.name == name and s.state in (ENDED, FAILED) and not s.record.get("collected")
             and [_encode(item) for item in s.record["argv"]] == argv]
    return max(ended, key=lambda s: s.record["created_at"]) if ended else None


def _check_start(fields):
    argv = _bytes_list(fields, "argv")
    if not argv:
        raise UsageError("a session needs a command")
    if argv[0] == b"" and not fields.get("executable"):
        raise CommandNotFound("command not found: ''", hint="its name is empty")
    name = _text(fields, "name")
    id_ = _text(fields, "id_wanted")
    if id_ is not None and not is_valid_id(id_):
        raise UsageError(f"not a session id: {id_[:40]!r}")
    executable = _text(fields, "executable")
    return {
        "id": id_,
        "name": None if name is None else check_name(name),
        "argv": argv,
        "executable": argv[0] if executable is None else _encode(executable),
        "env": _bytes_list(fields, "env"),
        "cwd": _encode(_text(fields, "cwd", "/")),
        "size": _size(fields) or (80, 24),
        "echo": _field(fields, "echo", bool, True),
        "umask": _whole(fields, "umask", 0o022, 0, 0o777),
        "nice": _whole(fields, "nice", 0, -40, 40),
        "limits": _bytes_list(fields, "limits") if "limits" in fields else [],
        "await_reader": _field(fields, "await_reader", bool, False),
        "ring_bytes": _whole(fields, "ring_bytes", RING_BYTES, CAPACITY_MIN, RING_BYTES_MAX),
        "labels": _labels(fields),
        "ttl": _seconds(fields, "ttl", TTL_MAX_S),
        "size_policy": _choice(fields, "size_policy", SIZE_POLICIES),
        "restart": _restart_policy(fields),
        "log": _log_file(fields, "log"),
        "recording": _recording(fields),
        "agent": _agent(fields),
        "within": _seconds(fields, "within", TTL_MAX_S),
    }


def _log_file(fields, name):
    log = _field(fields, name, dict)
    if log is None:
        return None
    path = _text(log, "path", "")
    if not os.path.isabs(path):
        raise UsageError(f"a {name}'s path is to be absolute: {path[:40]!r}")
    return {"path": path}


def _recording(fields):
    recording = _log_file(fields, "recording")
    if recording is not None:
        recording.update(input=_field(fields["recording"], "input", bool, False),
                         holds=_text(fields["recording"], "holds"))
    return recording


def _labels(fields):
    labels = _field(fields, "labels", dict, {})
    if len(labels) > LABELS_MAX or not all(
            isinstance(value, str) and key and max(len(key), len(value)) <= LABEL_LENGTH_MAX
            for key, value in labels.items()):
        raise UsageError(f"labels are at most {LABELS_MAX} pairs of texts of at most "
                         f"{LABEL_LENGTH_MAX} characters")
    return dict(labels)


def _seconds(fields, name, most):
    value = _field(fields, name, (int, float))
    if value is not None and not 0 <= value <= most:
        raise UsageError(f"request field {name} is {value}, 0 to {most} can be used")
    return value


def _restart_policy(fields):
    text = _text(fields, "restart", NEVER_AGAIN)
    parse_policy(text)
    return text


def _choice(fields, name, choices):
    value = _text(fields, name)
    if value is not None and value not in choices:
        raise UsageError(f"request field {name} is {value[:40]!r}, one of {', '.join(choices)} "
                         "can be used")
    return value


def _check_files_are_free(daemon, wanted):
    """Two outputs in one file would be neither.  By name; a file's second name is found out
    by its writer, and told in `info`."""
    log, recording = wanted["log"], wanted["recording"]
    if log and recording and log["path"] == recording["path"]:
        raise UsageError(f"{log['path']} is to be both log and recording", hint="--record another file")
    for option, file in (("--log", log), ("--record", recording)):
        for session in daemon.sessions.values():
            for field in FILES:
                theirs = session.record.get(field)
                if file and theirs and session.is_living and theirs["path"] == file["path"]:
                    raise Busy(f"{file['path']} is the {field} of session {session.name}",
                               hint=f"{option} another file")
    if recording and recording.pop("holds") not in (None, wanted["id"]):
        raise SessionExists(f"{recording['path']} is a recording already", hint="--record another file, "
                            "or remove that one")


def _begin_start(daemon, client, wanted, reply):
    """Record the intent, spawn, confirm; roll back on failure."""
    _check_files_are_free(daemon, wanted)
    # A name that we choose discards no status that nobody has fetched yet.
    taken = [s.name for s in daemon.sessions.values()
             if s.is_living or not s.record.get("collected")]
    taken += daemon.tombstones.names()
    argv = [item.decode("utf-8", "surrogateescape") for item in wanted["argv"]]
    cols, rows = wanted["size"]
    record = {
        "id": wanted["id"] or daemon.new_id(), "name": wanted["name"] or suggest_name(argv, taken),
        "incarnation": 1, "spawn": 1, "state": STARTING, "argv": argv,
        "cwd": wanted["cwd"].decode("utf-8", "surrogateescape"),
        "size": {"cols": cols, "rows": rows}, "created_at": daemon.wall_clock(),
        "ended_at": None, "exit": None, "pid": None, "pid_start": None,
        "labels": wanted["labels"], "ttl": wanted["ttl"], "size_policy": wanted["size_policy"],
        "restart": wanted["restart"], "boot_id": daemon.backend.boot_id(), "collected": False,
        "log": wanted["log"], "recording": wanted["recording"],
    }
    if wanted["agent"] is not None:
        record["agent"] = wanted["agent"].decode("utf-8", "surrogateescape")
    session = Session(record)
    if wanted["await_reader"]:
        # `run` is to see all of it: nothing is read before it is there (or too late).
        session.awaited_holders = session.noted_holders = 1
    # Raises: nothing has happened yet.  A power cut would take the session too: not synced.
    daemon.registry.write(record, is_synced=False)
    daemon.sessions[session.id] = session
    env = dict(item.partition(b"=")[::2] for item in wanted["env"])
    env.pop(b"", None)                  # execve takes it, Python does not
    markers = {"PTYGUARD_SESSION": record["name"], "PTYGUARD_SESSION_ID": record["id"],
               "PTYGUARD_DIR": daemon.paths.root}
    record["markers"] = dict(markers, TERM=env.get(b"TERM", b"").decode("utf-8", "replace"))
    env.update((key.encode(), os.fsencode(value)) for key, value in markers.items())
    link = daemon.agents.adopt(session.id, record.get("agent"))
    if link is not None:
        env[b"SSH_AUTH_SOCK"] = link

    to_lift = daemon.endings.to_lift(session.name)

    def started(error):
        timer.cancel()
        if error is not None:
            reply(error=error)
            return
        if not client.is_open:
            daemon.stop_awaiting(session)       # the reader that it waits for will not come
            if wanted["within"] is not None:    # nobody wants it any more
                daemon.endings.destroy(session, lambda _error: None, leaves_tombstone=False)
                return
        client.awaited_by = session
        daemon.tombstones.lift(to_lift)
        reply(session=describe(daemon.sessions.get(session.id, session)), created=True)

    timer = daemon.loop.after(min(START_WAIT_S, wanted["within"] or START_WAIT_S), lambda: daemon.give_up_start(
        session, _late_start(session, wanted["within"])))
    daemon.when_started(session, started)
    request = dict(
        argv=wanted["argv"], executable=wanted["executable"], cwd=wanted["cwd"],
        env=[key + b"=" + value for key, value in env.items()], cols=cols, rows=rows,
        ring_bytes=wanted["ring_bytes"], echo=int(wanted["echo"]), umask=wanted["umask"],
        nice=wanted["nice"], limits=wanted["limits"], spawn_number=1)
    try:
        daemon.spawn(session, request)
    except (ProtocolError, StateUnusable) as error:     # more than the guard's wire takes, the disk
        daemon.start_failed(session, error)


def _late_start(session, within_s):
    """Why a start was given up: the guard has not said how it went."""
    if within_s is not None and within_s < START_WAIT_S:
        return TimedOut(f"session {session.name} was not started in {within_s:.1f} s",
                        hint="if it starts yet, it is ended")
    return Unreachable(f"the guard has not started session {session.name} in {START_WAIT_S:g} s",
                       hint="if it starts yet, it is ended; is its directory on a file system that does "
                            "not answer? else look at the guard: ptyguard doctor")


def spawn_error(wanted, stage, number, text):
    """The typed error for a child that could not be started (C-103, C-215)."""
    command = wanted["executable"].decode("utf-8", "backslashreplace")
    cwd = wanted["cwd"].decode("utf-8", "backslashreplace")
    if stage == "cwd":
        return CannotExecute(f"cannot start in {cwd}: {text}", hint="--cwd DIR", errno=number,
                             stage=stage)
    if stage == "exec" and number in (errno.ENOENT, errno.ENOTDIR):
        hint = "--shell 'LINE' has a shell run it" if " " in command.strip() else \
            "check the name and the session's PATH"
        return CommandNotFound(f"command not found: {command}", errno=number, stage=stage,
                               hint=hint)
    if stage == "exec":
        return CannotExecute(f"cannot execute {command}: {text}", errno=number, stage=stage,
                             hint="is it an executable file for this machine?")
    if stage == "terminal":
        return LimitReached(f"no terminal could be opened: {text}", errno=number,
                            hint="sysctl kernel.pty.max is the limit of the machine; ulimit -n "
                                 "that of the guard")
    hint = {"descriptors": "end some sessions; the hard limit (ulimit -Hn) is that of whoever starts the guard",
            "memory": "end some sessions, or free memory", "fork": "ulimit -u limits your processes",
            }.get(stage, "ptyguard daemon log")
    return LimitReached(f"the session could not be made ({stage}): {text}", errno=number, hint=hint)


# -- reading output ----------------------------------------------------------------------

_HOLDS = {"never": NEVER, "leader": LEADER, "always": ALWAYS}


def attach(daemon, client, fields, reply):
    """Follow a session's output on this connection.

    `from`: "restore" (history as RESTORE frames, then live), "oldest", "now" or an
    offset (raw; with `incarnation`).  Snapshot and subscription are one step: the
    event `live` names the offset at which OUTPUT begins.
    """
    if client.session is not None:
        raise Busy("this connection follows a session already", hint="one connection, one session")
    session = _target(daemon, fields)
    daemon.resume_unread(session)       # what a dead daemon had read is asked in nobody's terminal
    if session.ring is None and _is_to_run(session):
        _put_off(attach, daemon, session, client, fields, reply)
        return
    mode = fields.get("mode", "follow")
    if mode == "attach" and session.is_over:
        raise _is_over(session)
    if session.state == LOST:
        raise _is_over(session)
    if session.ring is None:
        raise PtyguardError(f"the output of session {session.name} is not kept any more")
    incarnation = fields.get("incarnation")
    if incarnation is not None and incarnation != session.record["incarnation"]:
        raise NoSuchSession(f"session {session.name} has begun anew", hint="attach again")
    cursor = _make_cursor(session, fields)
    agent = _agent(fields)
    wants_nudge = _field(fields, "nudge", bool, fields.get("from") == "restore")
    cursor.is_log = daemon.logs.admits(client, session)
    ring = session.ring
    if isinstance(fields.get("from"), int):
        cursor.offset = _check_resume(ring, fields["from"])
    elif fields.get("from") == "oldest":
        cursor.offset = ring.start_offset
    is_restore = fields.get("from") == "restore"
    cursor.written = _whole(fields, "written", None, 0, cursor.offset)
    reply(session=describe(session), offset=cursor.offset, ticket=client.ticket, sends=session.sends,
          sent_at=session.sent_at, answered=_answered(daemon, session, fields.get("from")),
          **{"past": session.restore_facts()} if is_restore else {})
    if is_restore:
        send_restore(client, session)
    client.send(frames.EVENT, event="live", offset=cursor.offset)
    daemon.follow(client, session, cursor)
    if cursor.is_interactive:
        daemon.agents.offer(session.id, client, agent,
                            is_return=isinstance(fields.get("from"), int)
                            or _field(fields, "again", bool, False))
        # The first to come has seen all there is: only a later one needs a repaint.
        is_again = session.record.get("was_attached") or ring.start_offset > 0
        session.record["was_attached"] = True
        session.noted_end = None        # to be told at the latest when we leave
        daemon.apply_size(session, nudge=is_again and wants_nudge)
    if fields.get("steal"):
        _send_away(daemon, session, client)


def _answered(daemon, session, start):
    """[start, end] of the output whose queries no terminal is to answer any more."""
    if start == "oldest":
        return [session.ring.start_offset, session.ring.end_offset]
    return daemon.answering.answered(session)


def send_restore(client, session):
    """What to paint from: the output since what `Session.restore_facts` tells."""
    ring = session.ring
    begin = max(session.restore_facts()["offset"], ring.start_offset)
    client.send_raw(frames.RESTORE, ring.read(begin, ring.end_offset - begin))


def _make_cursor(session, fields):
    hold = fields.get("hold", "never")
    if isinstance(hold, (int, float)) and not isinstance(hold, bool) and 0 < hold < 1e9:
        hold = float(hold)
    elif isinstance(hold, str) and hold in _HOLDS:
        hold = _HOLDS[hold]
    else:
        raise UsageError(f"not a way to hold: {str(hold)[:40]!r}")
    cursor = Cursor(session.ring.end_offset, hold, _size(fields),
                    is_interactive=bool(fields.get("interactive") and not fields.get("read_only")))
    cursor.is_viewer = bool(fields.get("viewer"))
    cursor.kills_on_hangup = bool(fields.get("kill_on_hangup"))
    cursor.removes_on_hangup = bool(fields.get("rm_on_hangup"))
    cursor.wants_input = _field(fields, "input", bool, False)
    cursor.may_type = bool(fields.get("may_type", cursor.is_interactive)
                           and not fields.get("read_only"))
    return cursor


def _check_resume(ring, offset):
    if not 0 <= offset <= ring.end_offset:
        raise OutputGap(f"offset {offset} lies beyond the end {ring.end_offset}",
                        first_offset=ring.end_offset)
    return offset                       # too old: the gap is told in the stream, with both ends


def leave(daemon, client, fields, reply):
    """Stop following on this connection; or on that of the `ticket` that its attach brought,
    which may not be listened to just now: its going is no hang-up any more."""
    ticket = _text(fields, "ticket")
    if ticket is None:
        daemon.unfollow(client)
    else:
        for other in list(daemon.clients):
            if other.ticket == ticket:
                daemon.unfollow(other)
    reply()


def _put_off(verb, daemon, session, client, fields, reply):
    """Answer that once the session's program runs, or does not: its output is still to come."""
    def started(error):
        if not client.is_open:
            return
        try:
            if error is not None and session.id in daemon.sessions:
                raise error             # it was lost, and could not be started again
            verb(daemon, client, fields, reply)
        except PtyguardError as refusal:
            reply(error=refusal)

    daemon.when_started(session, started)


def _is_to_run(session):
    """Whether its program is being started, for the first time or again."""
    return session.state == STARTING or session.is_to_run_again


def read(daemon, client, fields, reply):
    """Bytes of the history: a reply with `offset` and `size`, then DATA frames."""
    session = _target(daemon, fields)
    if session.ring is None and _is_to_run(session):
        _put_off(read, daemon, session, client, fields, reply)
        return
    ring = session.ring
    if ring is None:
        raise PtyguardError(f"the output of session {session.name} is not kept any more",
                            hint="only its status is")
    limit = _whole(fields, "limit", READ_BYTES_MAX, 0, READ_BYTES_MAX)
    told = {"past": session.restore_facts()} if fields.get("past") else {}
    oldest = max(ring.start_offset, told["past"]["offset"] if told else 0)
    offset = _field(fields, "offset", int, oldest)
    if offset < 0:
        offset = max(ring.start_offset, ring.end_offset + offset)
    if offset > ring.end_offset:
        offset = ring.end_offset
    data = ring.read(offset, limit)
    reply(offset=offset, size=len(data), start=ring.start_offset, end=ring.end_offset,
          session=describe(session), **told)
    client.send_raw(frames.DATA, data)


def detach(daemon, client, fields, reply):
    """Make a session's clients leave; answered when they have."""
    session = _target(daemon, fields)
    leaving = _send_away(daemon, session, client)
    daemon.when_left(leaving, lambda: reply(session=describe(session), detached=len(leaving)))


def _send_away(daemon, session, but):
    """Make all people's clients of that session but one leave; those that are to."""
    leaving = [cursor.owner for cursor in session.cursors
               if cursor.is_viewer and cursor.owner is not but]
    for other in leaving:
        other.send(frames.EVENT, event="detached", session=session.name)
        daemon.unfollow(other)
        daemon.loop.after(LEAVING_LIMIT_S, lambda gone=other: gone.close("did not leave in time"))
    return leaving


def size(daemon, client, fields, reply):
    """This client's terminal has another size now."""
    if client.cursor is not None:
        client.cursor.size = _size(fields)
        if client.cursor.is_interactive:
            daemon.apply_size(client.session)
    reply()


def repaint(daemon, _client, fields, reply):
    """Have the program paint its screen, as after a change of size and back."""
    session = _living_target(daemon, fields)
    daemon.nudge(session)
    reply(session=describe(session))


def resize(daemon, _client, fields, reply):
    """Set a session's size by hand; it holds until a client's differs."""
    session = _living_target(daemon, fields)
    wanted = _size(fields)
    if wanted is None:
        raise UsageError("a size is needed", hint="COLSxROWS")
    daemon.set_size(session, wanted)
    reply(session=describe(session))


# -- input -------------------------------------------------------------------------------

class Send:
    """One `send`: its bytes stay together, and it is told when the kernel took them."""

    def __init__(self, daemon, client, session, total, enter, longest_line, reply, sends=None):
        self.client = client
        self.session = session
        self.total = total
        self.received = 0
        self.written = 0
        self.offset = 0
        self.ticket = os.urandom(8).hex()       # by which another connection can cancel it
        self._daemon = daemon
        self._enter = enter
        self._longest_line = longest_line
        self._sends = sends                     # how many there may have been before it
        self._reply = reply
        self._is_over = False

    def begin(self, offset):
        """It is this send's turn: its body may come."""
        self.offset = offset
        if self._sends not in (None, self.session.sends):
            self._daemon.loop.soon(self._too_late)      # of hundreds, not each within the last one
            return
        mode = self._daemon.backend.canonical_mode(self.session.master) \
            if self.session.master >= 0 else None
        if mode is not None and self._longest_line > mode.limit:
            # Better said than done by tricks: nobody knows yet what will read it.
            self._finish(f"a line of {self._longest_line} bytes is longer than the {mode.limit} that "
                         "this terminal takes in canonical mode")
            return
        self.client.sends = self
        self._daemon.note_send(self)
        if self.total == 0:
            self._daemon.loop.soon(self.piece_done)

    def _too_late(self):
        if not self._is_over:
            self._end(error=Busy(f"something else was sent to {self.session.name} meanwhile",
                                 hint="nothing was typed", written=0, sends=self.session.sends,
                                 sent_at=self.session.sent_at))

    def take(self, data):
        """A piece of the body, from the wire."""
        data = data[:self.total - self.received]
        self.received += len(data)
        self.session.enqueue(data, self)

    def wrote(self, count):
        """The kernel took `count` bytes."""
        self.written += count

    def piece_done(self):
        """A queued piece is written whole."""
        if self._is_over or self.written < self.total:
            return
        if self._enter:
            # A separate write, a turn later: programs tell a paste from a key by that.
            self._enter = False
            self.total += 1
            self.received += 1
            self._daemon.loop.soon(self._type_enter)
            return
        self._finish(None)

    def _type_enter(self):
        if not self._is_over:
            self.session.enqueue(b"\r", self)
            self._daemon.write_input(self.session)

    def failed(self):
        """The terminal takes nothing any more."""
        self._finish(f"session {self.session.name} ended")

    def cancel(self, why):
        """The client gave up or went: what is not written yet is not typed."""
        self.session.input_bytes -= sum(len(i.data) for i in self.session.input if i.ticket is self)
        kept = [item for item in self.session.input if item.ticket is not self]
        self.session.input.clear()
        self.session.input.extend(kept)
        self._finish(why)

    def _finish(self, why):
        if self._is_over:
            return
        if self.written:
            self.session.note_sent()
            self._daemon.note_sent(self.session)
        if why is None:
            self._end(written=self.written, offset=self.offset, session=self.session.name)
        else:
            self._end(error=PtyguardError(
                f"sent {self.written} of {self.total} bytes to {self.session.name}: {why}",
                hint="the rest was not typed", written=self.written, total=self.total))

    def _end(self, **answer):
        self._is_over = True
        if self.client.sends is self:
            self.client.sends = None
        self._reply(**answer)
        self._daemon.next_send(self)


def send(daemon, client, fields, reply):
    """Type bytes: answered by the event `go` at its turn, then INPUT frames, then the reply.

    With `sends` only if that many have been typed by then, else nothing is.
    """
    if client.sends is not None or client.session is not None:
        raise Busy("this connection is in use")
    session = _living_target(daemon, fields)
    if session.state == DRAINING:
        raise _is_over(session)
    total = _whole(fields, "bytes", 0, 0, SEND_BYTES_MAX)
    longest = _whole(fields, "longest_line", 0, 0, SEND_BYTES_MAX)
    daemon.queue_send(Send(daemon, client, session, total, bool(fields.get("enter")), longest,
                           reply, _field(fields, "sends", int)))


def cancel(daemon, _client, fields, reply):
    """Give up a send by the ticket that its `go` brought; its own reply tells how far it came.

    To be asked on another connection: while a program does not read, that of the send is
    not listened to.
    """
    send = daemon.find_send(_text(fields, "ticket", ""))
    if send is not None:
        send.cancel("given up")
    reply()


class EndOfInput:
    """The ticket of an end of input: answered when it is typed, or will not be."""

    def __init__(self, reply):
        self._reply = reply

    def wrote(self, _count):
        """Only the whole of it counts."""

    def piece_done(self):
        """It is typed, or means nothing in the terminal's present mode."""
        self._reply()

    def failed(self):
        """It was not typed: whoever asked may ask the next daemon."""
        self._reply(error=Busy("the end of input was not typed"))


def end_input(daemon, client, _fields, reply):
    """End of the client's own input: the terminal's end-of-file character, in its place."""
    session = client.session
    if session is None or not client.cursor.may_type or session.master < 0:
        reply()
        return
    session.enqueue(b"", EndOfInput(reply), is_end=True)
    daemon.write_input(session)


# -- ends --------------------------------------------------------------------------------

def wait(daemon, client, fields, reply):
    """Answered once the session has ended; `collect` marks its status as fetched."""
    session = _target(daemon, fields)

    def ended():
        if fields.get("collect"):
            daemon.collect(session)
        daemon.logs.when_written(session, lambda: reply(session=describe(session)))

    daemon.when_ended(session, ended, client)


def collect(daemon, _client, fields, reply):
    """Its status has reached somebody who asked for it."""
    session = _target(daemon, fields)
    daemon.collect(session)
    daemon.logs.when_written(session, reply)


def _named(fields):
    if _text(fields, "target") is None:
        raise UsageError("which session? this verb takes no default", hint="name it")


def _grace(fields):
    grace = _field(fields, "grace", (int, float), GRACE_S)
    if not 0 <= grace <= 86400:
        raise UsageError(f"a grace of {grace} s")
    return grace


_DEADLY = ("KILL", "TERM")      # whoever sends these wants it ended


def kill(daemon, _client, fields, reply):
    """End a session's whole tree; with `signal` only send that to its processes."""
    _named(fields)
    session = _target(daemon, fields)
    signum = _whole(fields, "signal", None, 1, 128)
    takes_orphans = _field(fields, "orphans", bool, False)
    grace = _grace(fields)
    if signum is None:
        daemon.restarts.cancel(session)

    def killed(error):
        if error is None:
            daemon.logs.when_written(session, lambda: reply(session=describe(session)))
        else:
            reply(error=error)

    if signum is None:
        daemon.endings.kill(session, grace, killed, takes_orphans)
    elif session.is_living:
        if signum in map(daemon.backend.signal_number, _DEADLY):
            daemon.relaunches.cancel(session)
        daemon.signal(session, signum)
        reply(session=describe(session))
    else:
        killed(None)


def restart(daemon, _client, fields, reply):
    """The same command again, under the same name and id; answered when it runs."""
    _named(fields)
    session = _target(daemon, fields)
    grace = _grace(fields)
    if daemon.endings.is_destroyed("@" + session.id):   # what was asked first counts
        raise destroyed(session.name)
    if any(other.name == session.name and other is not session and not other.is_over
           for other in daemon.sessions.values()):
        raise _exists(session.name)
    daemon.restarts.restart(session, grace, lambda error: reply(session=describe(session))
                            if error is None else reply(error=error))


def rename(daemon, _client, fields, reply):
    """Another name; the id stays, and so does what the program was told at its start."""
    _named(fields)
    session = _target(daemon, fields)
    name = check_name(_text(fields, "name", ""))
    if any(other.name == name for other in daemon.sessions.values() if other is not session):
        raise SessionExists(f"session exists: {name}",
                            hint=f"ptyguard rm --no-tombstone {name} makes room, if it has ended")
    if daemon.endings.is_destroyed(name):
        raise destroyed(name)
    before = session.name
    session.record["name"] = name
    try:
        daemon.registry.write(session.record)
    except PtyguardError:
        session.record["name"] = before
        raise
    daemon.save(session)
    for cursor in session.cursors:
        cursor.owner.send(frames.EVENT, event="renamed", session=name)
    reply(session=describe(session))


def own(daemon, _client, fields, reply):
    """Say whose daemon this is."""
    daemon.ownership.set_owner(fields.get("owner"))
    reply(owner=daemon.ownership.owner)


def prune(daemon, _client, fields, reply):
    """Drop what is past its keeping; with `dry_run` only tell what that is."""
    gone, emptied = daemon.past_keeping()
    budget = LookBudget()
    told = [describe(session, ARGV_LISTED_MAX, budget) for session in gone]
    output = [describe(session, ARGV_LISTED_MAX, budget) for session in emptied]
    if fields.get("dry_run"):
        reply(sessions=told, output_only=output)
    else:
        daemon.prune(lambda: reply(sessions=told, output_only=output))


def rm(daemon, _client, fields, reply):
    """Kill if it lives, then forget record, output and status, and leave a tombstone; also of
    what is not known."""
    _named(fields)
    leaves_tombstone = _field(fields, "tombstone", bool, True)
    try:
        # One that is being destroyed is, by whoever asks again, awaited.
        session = _maybe_held(daemon, _text(fields, "target")) or _target(daemon, fields)
    except NoSuchSession as error:
        _mark_unknown(daemon, fields, leaves_tombstone)
        reply(session=None, known=error.kind == SessionDestroyed.kind, tombstone=leaves_tombstone,
              near=error.details.get("near", []))
        return
    told = describe(session)

    def gone(error):
        if error is not None:
            reply(error=error)
        else:
            reply(session=dict(told, **{key: describe(session)[key] for key in _AFTER_AN_END}),
                  known=True, tombstone=leaves_tombstone, near=[])

    daemon.endings.destroy(session, gone, leaves_tombstone)


# What the end of a session that is destroyed adds to what was known of it.
_AFTER_AN_END = ("state", "exit", "ended_at", "reason")


def _mark_unknown(daemon, fields, leaves_tombstone):
    """A tombstone for a name or an id that no session has (C-701)."""
    target, name = _text(fields, "target"), _text(fields, "name")
    is_id = target.startswith("@")
    check_id(target[1:]) if is_id else check_name(target)
    if not leaves_tombstone:
        return
    standing = daemon.tombstones.find(target)
    if standing is not None:            # its time begins anew
        daemon.tombstones.add(standing["id"], standing["name"], standing.get("is_made_up", False))
    elif is_id:
        daemon.endings.mark(target[1:], name if is_valid_name(name) else None)
    else:
        daemon.endings.mark(daemon.new_id(), target, is_made_up=True)


def reconcile(daemon, _client, fields, reply):
    """Drop what an authority's list does not hold and nobody uses; lift what it holds again."""
    live = fields.get("live")
    if not isinstance(live, list) or not all(isinstance(word, str) for word in live):
        raise UsageError("request field live is not a list of names")
    for word in live:
        check_id(word[1:]) if word.startswith("@") else check_name(word)
    is_rehearsal = _field(fields, "dry_run", bool, False)
    idle_s = _seconds(fields, "idle", IDLE_MAX_S)

    def done(plan):
        reply(items=[item._asdict() for item in plan.items], dry_run=is_rehearsal,
              inconclusive=not plan.is_conclusive)

    one = Pass(daemon, live, IDLE_S if idle_s is None else idle_s, done)
    if is_rehearsal:
        done(one.plan())
    else:
        one.begin()


# -- what the writers of logs and recordings say; see logkeeper.py -------------------------

def log_at(daemon, client, fields, reply):
    """The file has `size` bytes: at which output offset to go on.  With `offset` the writer
    says which, `missed` bytes of output after the last that it wrote."""
    size = _whole(fields, "size", None, 0, _FILE_BYTES_MAX)
    if size is None:
        raise UsageError("the file's size is needed")
    session = _logged_target(daemon, fields)
    offset = _whole(fields, "offset", None, 0, session.ring.end_offset)
    missed = _whole(fields, "missed", 0, 0, session.ring.end_offset)
    reply(offset=daemon.logs.place(client, session, size, offset, missed))


def log_error(daemon, client, fields, reply):
    """It cannot be written, and why; without `text` it can again."""
    text = _text(fields, "text")
    daemon.logs.report(client, _logged_target(daemon, fields),
                       text and text[:_LOG_ERROR_LENGTH_MAX])
    reply()


def log_done(daemon, client, fields, reply):
    """All output up to `offset` is in the file."""
    session = _logged_target(daemon, fields)
    offset = _whole(fields, "offset", None, 0, session.ring.end_offset)
    daemon.logs.finish(client, session, offset)
    reply()


def written(daemon, client, fields, reply):
    """What this connection follows is in a file up to `offset`: it need not be kept for it."""
    if client.cursor is not None and client.cursor.written is not None:
        offset = _whole(fields, "offset", None, 0, client.cursor.offset)
        client.cursor.written = max(client.cursor.written, offset or 0)
        daemon.on_progress(client)
    reply()


def recording(daemon, client, fields, reply):
    """The recording lacks `missed` bytes before `offset`; or it cannot be written, `error` says
    why ("": it can again); or all output up to `done` is in it."""
    session = _logged_target(daemon, fields)
    end = session.ring.end_offset
    missed, offset = _whole(fields, "missed", 0, 0, end), _whole(fields, "offset", 0, 0, end)
    error, done = _text(fields, "error"), _whole(fields, "done", None, 0, end)
    if missed:
        daemon.logs.miss(client, session, missed, offset)
    if error is not None:
        daemon.logs.report(client, session, error[:_LOG_ERROR_LENGTH_MAX], RECORDING)
    if done is not None:
        daemon.logs.finish(client, session, done, RECORDING)
    reply()


def _logged_target(daemon, fields):
    _named(fields)
    session = _target(daemon, fields)
    if session.ring is None:
        raise NoSuchSession(f"the output of session {session.name} is not kept any more")
    return session


VERBS = {verb.__name__: verb for verb in (
    ls, watch, info, status, resolve, start, attach, lend, lend_go, reclaim, leave, read, detach, size, resize,
    repaint, send, cancel,
    end_input, wait, collect, kill, restart, rename, own, prune, rm, reconcile, log_at,
    log_error, log_done, recording, written)}
