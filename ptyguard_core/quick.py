"""Quick: the verbs that are one question and one answer, asked with as little as possible.

Most of what a command costs is loading what it might need: the tables of all verbs, the ways to
start, replace and judge a daemon.  Where a daemon of our own version listens and answers, none of
that is needed.  Here `ls`, `has` and `version` are tried so.

Rule 1: whatever is not as expected (a word, a variable, a silent or a foreign daemon, an error,
        an output that takes nothing) ends the try without a trace, and the verb is carried out as
        any other, from its beginning: what is to be said and done then, only that way knows.
Rule 2: so only what may be asked twice is asked here, and nothing is printed before all is known.
Rule 3: what is printed is made by the same functions.
"""

import os
import sys
import time

PATIENCE_S = 0.5                # with a daemon that says nothing; then the ordinary way waits
RECEIVE_BYTES = 64 * 1024

# They change what a client does before it asks: which version we are, where a guard is started.
_TELLING = ("PTYGUARD_TEST_VERSION", "PTYGUARD_AUTO_UPGRADE", "PTYGUARD_DEV", "PTYGUARD_SCOPE")
_LS_OPTIONS = {"-a": "all", "--all": "all", "-q": "short", "--short": "short", "--json": "json"}


def carry_out(argv, pick_backend, finish_output):
    """The exit code of a command line that is one of the quick; None: it is to be done as any other.

    `finish_output(data)` prints what a pipe that is full did not take at once; the exit code.
    """
    act = _ACTS.get(argv[0]) if argv else None
    # A missing stream is for the ordinary way to replace.
    if act is None or None in (sys.stdin, sys.stdout, sys.stderr) or any(map(os.environ.get, _TELLING)):
        return None
    try:
        text = act(pick_backend, argv[1:])
        return _say(text, finish_output) if isinstance(text, str) else text
    except ImportError:                 # a Python without some module
        return None
    except KeyboardInterrupt:
        return 130


def leave(status):
    """End this process at once: taking the interpreter apart costs a tenth of a quick verb's time."""
    for stream in (sys.stdout, sys.stderr):
        try:
            if stream is not None:
                stream.flush()
        except (OSError, ValueError):
            sys.exit(status)            # which tells of it
    os._exit(status)


def _version(_, words):
    if words:
        return None
    from .version import OURS
    return f"ptyguard {OURS}\n"


def _has(pick_backend, words):
    if len(words) != 1 or not words[0].isalnum():
        return None
    reply = _ask(pick_backend(), "resolve", lambda: None, target=words[0])
    if "ok" in reply:
        from .report import LIVING
        return 0 if reply["ok"]["session"]["state"] in LIVING else 1
    from .errors import NoSuchSession, from_wire
    return 1 if isinstance(from_wire(reply.get("error", {})), NoSuchSession) else None


def _ls(pick_backend, words):
    wishes = {_LS_OPTIONS.get(word) for word in words}
    if None in wishes or wishes >= {"short", "json"}:
        return None
    backend = pick_backend()
    reply = _ask(backend, "ls", _load_listing)
    if "ok" not in reply:
        return None
    from .listing import chosen, listed
    now = time.time()
    sessions = chosen(reply["ok"]["sessions"], now, "all" in wishes)
    return listed(sessions, now, wishes, lambda: backend.terminal_size(1))


def _load_listing():
    from . import listing       # noqa: F401 (it is there when the answer is)


# What gives a text to print, an exit code, or None.
_ACTS = {"ls": _ls, "list": _ls, "l": _ls, "list-sessions": _ls, "has": _has, "has-session": _has,
         "version": _version, "--version": _version}


def _say(text, finish_output):
    """Print it; None when nothing of it could be, the exit code otherwise."""
    data = text.encode(sys.stdout.encoding, "backslashreplace")
    try:
        rest = data[os.write(1, data):]
    except OSError:
        return None
    return finish_output(rest) if rest else 0


def _ask(backend, verb, meanwhile, **fields):
    """What the daemon that runs replies to one request, sent along with the hello; {} when it does not.

    `meanwhile()` is called while it thinks.
    """
    from . import frames
    from .errors import PtyguardError
    from .version import OURS
    own = [frames.PROTOCOL_MIN, frames.PROTOCOL_MAX]
    question = frames.control(frames.HELLO, {"version": OURS, "pid": os.getpid(), "role": "api", "protocol": own})
    question += frames.control(frames.REQUEST, dict(fields, id=1, verb=verb))
    sock = None
    try:
        path = backend.find_paths().client_socket
        sock = backend.connect(path, PATIENCE_S)
        if backend.peer_user(sock) not in (backend.user_id(), 0) or sock.send(question) != len(question):
            return {}
        meanwhile()
        return _answer(sock, frames, OURS, own)
    except (OSError, PtyguardError):
        return {}
    finally:
        if sock is not None:
            sock.close()


def _answer(sock, frames, version, protocol):
    decoder, is_welcome = frames.Decoder(frames.FROM_DAEMON), False
    decoder.control_max = frames.CONTROL_BYTES_MAX
    sock.settimeout(PATIENCE_S)
    while True:
        data = sock.recv(RECEIVE_BYTES)
        if not data:
            return {}
        for type_, _, fields in decoder.frames(data):
            if type_ == frames.WELCOME:
                # Of another version: is it to be replaced?  That is not judged here.
                is_welcome = fields.get("version") == version and fields.get("protocol") == protocol \
                    and isinstance(fields.get("chosen"), int)
            if type_ == frames.REPLY and is_welcome and fields.get("id") == 1:
                return fields
            if not is_welcome or type_ == frames.EVENT:
                return {}
