"""Starting: what a new session gets from its creator.

Environment, directory, soft limits, umask, nice value, SSH agent and the log file travel
with the request, so that a guard that cron started poisons nobody.
"""

import os

from .backend import SOCKET_PATH_MAX
from .errors import PtyguardError, UsageError


def new_id():
    """An id for a session to be started."""
    alphabet = "abcdefghijkmnpqrstuvwxyz23456789"
    return "".join(alphabet[byte % 32] for byte in os.urandom(12))


def as_wire(value):
    """Text or bytes as they travel in JSON: UTF-8 with lone surrogates; else UsageError."""
    if not isinstance(value, (str, bytes, os.PathLike)):
        raise UsageError(f"neither text nor bytes: {str(value)[:40]!r}")
    if not isinstance(value, bytes):
        value = os.fsencode(value)
    return value.decode("utf-8", "surrogateescape")


def start_fields(backend, argv=None, labels=None, ttl=None, size_policy=None, cwd=None, env=None,
                 size=None, scrollback=None, echo=True,
                 executable=None, agent=None, log=None, restart=None, record=None, record_input=False):
    """The request fields of `start`: what a new session inherits from its creator.

    `agent`: the path of an SSH agent ("": none yet) for the session's link to begin with.
    When None, that of an inherited environment; another environment then has no link.
    """
    if isinstance(argv, (str, bytes)):
        raise UsageError("a command is a list of words", hint='["make", "-j4"]')
    if argv is None:
        shell = backend.user_shell()
        argv, executable = ["-" + os.path.basename(shell)], shell
    fields = dict(backend.own_limits(), id_wanted=new_id(), argv=[as_wire(item) for item in argv],
                  cwd=as_wire(cwd or os.getcwd()), echo=echo,
                  env=[as_wire(k) + "=" + as_wire(v) for k, v in
                       (session_environment() if env is None else env).items()])
    if executable is not None:
        fields["executable"] = as_wire(executable)
    if agent is None and env is None:
        agent = own_agent()
    if agent is not None:
        fields["agent"] = as_wire(agent)
    if size is not None:
        fields["size"] = list(size)
    if scrollback is not None:
        fields["ring_bytes"] = scrollback
    if labels:
        fields["labels"] = dict(labels)
    if ttl is not None:
        fields["ttl"] = ttl
    if size_policy is not None:
        fields["size_policy"] = size_policy
    if restart is not None:
        fields["restart"] = restart
    if log is not None:
        fields["log"] = {"path": as_wire(make_log(log))}
    if record is not None:
        path, holds = make_recording(record)
        fields["recording"] = {"path": as_wire(path), "holds": holds, "input": bool(record_input)}
    return fields


def make_log(path):
    """The absolute path of a log file that can be appended to; it is there from now on.

    Asked before anything is started, so that a wrong word costs nothing.
    """
    from .logfile import locate, open_log        # with what only a log or a recording needs
    try:
        located = locate(path)
        os.close(open_log(located))
        return located
    except OSError as error:
        raise PtyguardError(f"cannot append to {os.fsdecode(path)}: {error.strerror}",
                            hint="--log takes a file of yours; nothing was started") from None


def make_recording(path):
    """(absolute path of a recording, the id of the session that it is of or None for an empty one).

    As `make_log`: it is there from now on, and nothing was started when it cannot be.
    """
    from .logfile import CannotWrite, find_end, locate, open_log
    try:
        located = locate(path)
        fd = open_log(located, os.O_RDWR)
        try:
            found = find_end(fd)
        finally:
            os.close(fd)
    except (OSError, CannotWrite) as error:
        raise PtyguardError(f"cannot record to {os.fsdecode(path)}: {getattr(error, 'strerror', None) or error}",
                            hint="a recording goes to a new file of yours; nothing was started") from None
    return located, found and found[0].session


def own_agent():
    """The path of our SSH agent's socket, absolute; "" when we have none that can be used."""
    path = os.environ.get("SSH_AUTH_SOCK", "")
    if path and not os.path.isabs(path):
        try:
            path = os.path.join(os.getcwd(), path)
        except OSError:
            return ""                   # relative to a directory that does not exist any more
    return path if len(os.fsencode(path)) <= SOCKET_PATH_MAX else ""


# Of other multiplexers and of ours: a session is not inside those (C-122).
_NOT_INHERITED = ("TMUX", "TMUX_PANE", "STY", "WINDOW", "ZELLIJ", "ZELLIJ_SESSION_NAME",
                  "ZELLIJ_PANE_ID", "SHPOOL_SESSION_NAME", "ABDUCO_SESSION", "DTACH_SESSION",
                  "ZMX_SESSION", "COLUMNS", "LINES")
_OURS = "PTYGUARD_"             # none of ours goes on but what a session is told of itself


def _is_coerced(environment):
    """Whether LC_CTYPE is nobody's wish: in the C locale Python sets it for itself (PEP 538)."""
    if environment.get("LC_CTYPE") not in ("C.UTF-8", "C.utf8", "UTF-8"):
        return False
    try:
        with open("/proc/self/environ", "rb") as file:
            return not any(item.startswith(b"LC_CTYPE=") for item in file.read().split(b"\0"))
    except OSError:
        return False                    # not known here: it stays


def session_environment(base=None, has_terminal=False):
    """The environment for a new session: the creator's, less what is not its own.

    Without a terminal, or with a TERM that says nothing, TERM is xterm-256color.
    """
    environment = dict(os.environ if base is None else base)
    if base is None and _is_coerced(environment):
        del environment["LC_CTYPE"]
    for name in _NOT_INHERITED + tuple(name for name in environment if name.startswith(_OURS)):
        environment.pop(name, None)
    if not has_terminal or environment.get("TERM", "") in ("", "dumb", "unknown"):
        environment["TERM"] = "xterm-256color"
    return environment
