"""ptyguard: the front door.

The command line, its exit codes, and the face of the Python API.  This is the only
place that picks a back-end; everything below is handed it.  Modules are loaded by
verb: a quick verb must not pay for a slow one.

    import ptyguard
    with ptyguard.connect() as pg:
        session = pg.start(["bash"])
        session.send(b"ls\\n")
        session.wait_for(rb"\\$ ")

docs/API.md tells the rest.
"""

import os
import sys

from ptyguard_core.backend import WRITABLE
from ptyguard_core.errors import (Busy, CannotExecute, CommandNotFound, Incompatible, LimitReached,
                                  NoSuchSession, OutputGap, PtyguardError, Refused, SessionDestroyed,
                                  SessionExists, StateUnusable, TimedOut, Unreachable, Unsupported,
                                  UsageError)
from ptyguard_core import version as _version

# A test's word for what we are; a private copy that we make says the same (copies.py).
_version.override(os.environ.get("PTYGUARD_TEST_VERSION"))
__version__ = _version.OURS

DETACHED_STATUS = 75           # EX_TEMPFAIL: the session lives on, so `run ... && deploy` stops
TIMED_OUT_STATUS = 124
OUR_FAILURE_STATUS = 125       # as env, nohup and timeout say it
LOG_HOLD_S = 60.0
ANSWER_LATE_S = 1.0            # of a daemon that was told by when to answer
KILL_LIMIT_S = 20.0            # of a `run` whose time is over
READ_BYTES = 4 << 20
FOLLOW_LOOK_S = 0.25           # of a log file, which has no readiness


def pick_backend():
    """The module that keeps the contract of ptyguard_core/backend.py here."""
    if os.name == "nt":
        import ptyguard_win
        return ptyguard_win
    try:
        import ptyguard_posix
    except ImportError as error:        # Debian's python3-minimal lacks termios and others
        raise PtyguardError(f"this Python lacks the module {error.name}",
                            hint="install the full python3 package") from None
    return ptyguard_posix


def connect(directory=None, may_start=True):
    """A `Client` of the user's daemon, which is started if need be and allowed.

    `directory` is what PTYGUARD_DIR would name.  Blocks for at most 60 s.  Raises
    Unreachable, StateUnusable, Incompatible.
    """
    # All of it now: whoever uses the API stays, and later our archive may be another one.
    from ptyguard_core import (conditions, copies, prompt, sending, starting, supervise, upgrading,     # noqa: F401
                               verdict, viewing, waiting)
    from ptyguard_core.client import Client
    backend = pick_backend()
    return Client(backend, backend.find_paths(directory), may_start, scope=wish_for_scope(backend))


def wish_for_scope(backend, is_asked=False, note=None):
    """Where a guard that has to be started is to be, as Scope; None for where we are."""
    value = os.environ.get("PTYGUARD_SCOPE", "")
    if not (value or is_asked):
        return None                     # and nothing is loaded for it
    from ptyguard_core.scope import Scope
    return Scope(backend, value, is_asked, note)


def console():
    """Entry point of an installed `ptyguard`."""
    sys.exit(main(sys.argv[1:]))


def main(argv):
    """Run one command line; the exit code."""
    if argv[:1] in (["__guard"], ["__guard_resume"], ["__daemon"], ["__logwriter"]):
        # For the back-end, which clients use without; in their loops nothing is imported any more, but
        # for what a daemon puts off until it has read on (Daemon._load_rest).
        import mmap         # noqa: F401
        if argv[0] != "__daemon":
            import socket   # noqa: F401
    if argv[:1] == ["__guard"]:
        from ptyguard_core import guard
        return guard.main(pick_backend(), argv[1:], sys.argv[0])
    if argv[:1] == ["__guard_resume"]:
        from ptyguard_core import guard
        return guard.resume(pick_backend(), argv[1:], sys.argv[0])
    if argv[:1] == ["__guard_rehearse"]:
        from ptyguard_core import guard
        return guard.rehearse()
    if argv[:1] == ["__daemon"]:
        from ptyguard_core import daemon
        return daemon.main(pick_backend(), argv[1:], sys.argv[0])
    if argv[:1] == ["__logwriter"]:
        from ptyguard_core import logwriter
        return logwriter.main(pick_backend(), argv[1:], sys.argv[0])
    command = call = None
    try:
        _version.check_override(os.environ.get("PTYGUARD_TEST_VERSION"))
        from ptyguard_core import usage
        command = usage.parse(argv)     # first: who asks decides the exit code of what fails
        if os.name == "posix":
            pick_backend().ensure_standard_streams()
        call = _Call(command)
        return call.run()
    except PtyguardError as error:
        if call is not None and call.status_file is not None:
            _note_failure(call.status_file, error)
        return _report_error(error, command, argv)
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        return _reader_gone()
    except OSError as error:            # of our own files, mostly: a lock that cannot be opened
        where = f"{os.fsdecode(error.filename)}: " if error.filename else ""
        return _report_error(PtyguardError(f"{where}{error.strerror or error}",
                                           hint="ptyguard doctor"), command, argv)


def _reader_gone():
    """Whoever read us is gone: as SIGPIPE would have ended us."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    return 141


def finish_output(data):
    """Print what a quick verb (quick.py) could not at once; the exit code."""
    try:
        _write_out(data)
        return 0
    except BrokenPipeError:
        return _reader_gone()
    except PtyguardError as error:
        return _report_error(error, None, sys.argv[1:])


def _report_error(error, command, argv):
    from ptyguard_core.report import printable_lines
    verb = command.verb if command else ""
    wants_json = command.get("json") if command else "--json" in argv
    if wants_json:
        _tell(_error_json(error))
    else:
        text = f"ptyguard: {printable_lines(error.message)}"
        if error.hint:
            hint = printable_lines(error.hint)
            text += f"\nptyguard: {hint}" if "\n" in error.message else f" ({hint})"
        _tell(text)
    code = error.exit_code
    if verb in ("run", "wait") and code in (1, 6) and error.details.get("reason") != "ended":
        return OUR_FAILURE_STATUS
    return error.details.get("exit_code", code)


def _note_failure(status_file, error):
    """What failed first is what is reported; that it could not be noted is an addition."""
    try:
        status_file.write(_error_json(error))
    except PtyguardError as second:
        error.message += f"; {second.message}"


def _error_json(error):
    return _as_json(error={"kind": error.kind, "message": error.message, "hint": error.hint})


def _as_json(**fields):
    from ptyguard_core import jsontext
    from ptyguard_core.report import SCHEMA_VERSION
    return jsontext.write(dict(fields, schema_version=SCHEMA_VERSION))


def _print(text, end="\n"):
    """`text` to standard output, which may be closed, full, or unable to show it."""
    encoding = sys.stdout.encoding if sys.stdout else "utf-8"
    _write_out((text + end).encode(encoding, "backslashreplace"))


def _print_lines(lines):
    _print("".join(line + "\n" for line in lines), end="")


def _tell(text):
    """A line to standard error, which is the last place to complain to."""
    data = (text + "\n").encode(sys.stderr.encoding if sys.stderr else "utf-8", "backslashreplace")
    try:
        os.write(2, data)
    except OSError:
        pass


class _Call:
    """One command being carried out."""

    def __init__(self, command):
        self.command = command
        self.get = command.get
        self._backend = None
        self._paths = None
        self._client = None
        self._scope = None
        self.status_file = None         # of `run --status-file`, until it is written
        self._deadline = None           # of `run --timeout`

    def run(self):
        """Carry it out; the exit code."""
        command = self.command
        if command.wants_help:
            _print(_help_page(command.verb), end="")
            return 0
        verb = command.verb or ("ls" if os.isatty(1) else "help")
        if verb in _TIMED:
            return self._run_in_time(verb)
        return self._VERBS[verb](self) or 0

    def _run_in_time(self, verb):
        """A verb whose --timeout is for all of it, also for reaching a daemon that is silent."""
        import time
        if self.get("timeout") is None:
            return self._VERBS[verb](self) or 0
        self._deadline = time.monotonic() + self.get("timeout")
        try:
            return self._VERBS[verb](self) or 0
        except Unreachable as error:
            if time.monotonic() < self._deadline:
                raise
            raise TimedOut(f"not done in {self.get('timeout'):g} s: {error.message}",
                           hint=error.hint) from None

    # -- what verbs need -----------------------------------------------------------------

    @property
    def backend(self):
        if self._backend is None:
            self._backend = pick_backend()
        return self._backend

    @property
    def paths(self):
        if self._paths is None:
            self._paths = self.backend.find_paths(self.get("dir"))
        return self._paths

    @property
    def client(self):
        if self._client is None:
            from ptyguard_core.client import Client
            limit = {} if self._deadline is None else {"timeout_s": self._left()}
            self._scope = wish_for_scope(self.backend, bool(self.get("survive_logout")), self.say)
            self._client = Client(self.backend, self.paths, not self.get("no_start"),
                                  may_update=self.command.verb not in _LOOKING, scope=self._scope, **limit)
            if self._client.notice is not None:
                self._tell_notice(self._client.notice)
            if self.get("verbose"):
                self.say("daemon {pid}, version {version}, guard {guard_pid}".format(
                    **self._client.welcome))
        return self._client

    def _tell_notice(self, notice):
        """Of an update that waits, or failed: once for each pair of versions, and to people."""
        from ptyguard_core import upgrading
        if self.is_quiet or not os.isatty(2) or not upgrading.is_news(self.paths, notice):
            return
        if notice.kind == upgrading.FAILED:
            self.say(f"the daemon (version {notice.running}) was not replaced by {notice.newest}, and "
                     f"goes on: {notice.why}")
        else:
            self.say(f"the daemon is of version {notice.running}, this is {notice.newest}; it is not "
                     f"replaced by itself ({notice.why}); ptyguard upgrade does it, sessions stay")

    @property
    def is_quiet(self):
        return bool(self.get("quiet"))

    def say(self, text):
        """A diagnostic."""
        if not self.is_quiet:
            from ptyguard_core.report import printable_lines
            _tell(f"ptyguard: {printable_lines(text)}")

    def _inside(self):
        """The id of the session of the same directory that we run in, or None."""
        id_ = os.environ.get("PTYGUARD_SESSION_ID")
        directory = os.environ.get("PTYGUARD_DIR", "")
        # In a session it is absolute; nothing else says that we are in one.
        if not id_ or not os.path.isabs(directory):
            return None
        return id_ if os.path.realpath(directory) == self.paths.root else None

    def _target(self, name=None):
        """Request fields that say which session is meant (C-106)."""
        if name is not None:
            return {"target": name}
        inside = self._inside()
        return {"inside": inside} if inside else {}

    def _first_target(self):
        return self._target(self.command.names[0] if self.command.names else None)

    def _resolve(self, name=None):
        return self.client.request("resolve", **self._target(name))["session"]

    # -- starting ------------------------------------------------------------------------

    def _start_fields(self, echo=True):
        from ptyguard_core.starting import session_environment, start_fields
        argv, executable = self.command.command, None
        if self.get("shell"):
            argv, executable = ["sh", "-c", self.get("shell")], "/bin/sh"
        return start_fields(
            self.backend, argv, ttl=self.get("ttl"), size_policy=self.get("size_policy"),
            labels=dict(self.get("label", ())), cwd=self._cwd(), env=self._environment(session_environment),
            size=self.get("size") or self._own_size() or (80, 24),
            scrollback=self.get("scrollback"), echo=echo, executable=executable,
            agent=self._agent(), log=self.get("log"), restart=self.get("restart"),
            record=self.get("record"), record_input=bool(self.get("record_input")))

    def _agent(self):
        """The SSH agent for the session's link to begin with, None when it is to have no link."""
        from ptyguard_core.starting import own_agent
        name = "SSH_AUTH_SOCK"
        is_told = self.get("clean_env") or name in self.get("unset", ()) \
            or name in dict(self.get("env", ()))
        return None if is_told else own_agent()

    def _cwd(self):
        try:
            here = os.getcwd()
        except OSError:
            if not os.path.isabs(self.get("cwd", "")):
                raise PtyguardError("the current directory does not exist any more",
                                    hint="cd elsewhere, or use --cwd DIR") from None
            return self.get("cwd")
        return os.path.join(here, self.get("cwd")) if self.get("cwd") else here

    def _environment(self, session_environment):
        has_terminal = any(os.isatty(fd) for fd in (0, 1, 2))
        base = None
        if self.get("clean_env"):
            kept = ("HOME", "PATH", "USER", "LOGNAME", "SHELL", "TERM", "LANG", "TZ")
            base = {name: os.environ[name] for name in kept if name in os.environ}
        environment = session_environment(base, has_terminal)
        for name in self.get("unset", ()):
            environment.pop(name, None)
        environment.update(self.get("env", ()))
        return environment

    def _own_size(self):
        for fd in (1, 0, 2):
            size = self.backend.terminal_size(fd)
            if size is not None:
                return size
        return None

    def _left(self):
        import time
        return max(0.1, self._deadline - time.monotonic())

    def _start(self, if_exists, echo=True, name=None):
        self._tell_of_fallback()
        fields = dict(self._start_fields(echo), await_reader=if_exists == "rejoin")
        name = self.get("name", name)
        if name is not None:
            fields["name"] = name
        limit_s = None
        if self._deadline is not None:
            fields["within"] = self._left()         # the daemon says so itself, if it can
            limit_s = fields["within"] + ANSWER_LATE_S
        ok = self.client.request("start", limit_s, if_exists=if_exists, **fields)
        if self._scope is not None:
            self._scope.judge(self.client.welcome.get("guard_pid"))
        if self.get("record") and "recording" not in ok["session"]:
            self.say("the daemon is too old to record; ptyguard upgrade replaces it")
        return ok["session"], ok["created"]

    def _start_in_time(self, **options):
        """`_start`, which a `run --timeout` ends as anything else."""
        try:
            return self._start("rejoin", **options)
        except (TimedOut, Unreachable) as error:
            if self._deadline is None or self._left() > 0.1 and not isinstance(error, TimedOut):
                raise
            raise TimedOut(f"the command was not started in {self.get('timeout'):g} s: {error.message}",
                           hint="if it starts yet, it is ended") from None

    def _tell_of_fallback(self):
        """A home that cannot be used is said: what it held before is not found any more."""
        home = self.backend.user_home()
        if home and home != "/" and not self.get("dir") and not os.environ.get("PTYGUARD_DIR") \
                and os.path.isdir(home) and not self.paths.root.startswith(home):
            self.say(f"{home} cannot be written to: sessions are kept under {self.paths.root}")

    def _tell_started(self, session, was_created):
        if self.get("json"):
            _print(_as_json(created=was_created, **session))
        else:
            _print(session["name"])

    def start(self):
        """A new session, detached; its name alone on stdout."""
        self._tell_started(*self._start("refuse"))

    def new(self):
        """Start and attach, as tmux does it."""
        key = self._detach_key()
        self._check_terminal("new -d")
        session, was_created = self._start("use" if self.get("attach") else "refuse")
        return self._attach_to(session, key, was_created)

    def ensure(self):
        """Start unless it lives; the name either way."""
        self._tell_started(*self._start("use"))

    # -- run and attach ------------------------------------------------------------------

    def run_(self):
        """Start (or rejoin) and stay to the end; the status is mirrored (C-123)."""
        if self.get("status_file"):
            from ptyguard_core.statusfile import StatusFile
            self.status_file = StatusFile(self.get("status_file"))
        if self.get("unattended"):
            return self._run_unattended()
        has_terminal = os.isatty(0) and self.backend.is_foreground(0)
        key = self._detach_key()
        if self.get("timeout") is not None:
            import time
            self._deadline = time.monotonic() + self.get("timeout")
        session, was_created = self._start_in_time(echo=has_terminal)
        from ptyguard_core import attach
        if session["offsets"] is None and session["state"] == "ended":
            self.say(f"session {session['name']} has ended; its output is not kept any more")
            return self._finish_run(attach, attach.Outcome(attach.ENDED, session))
        attachment = attach.Attachment(
            self.backend, self.paths, session, is_run=True, detach_key=key,
            start=self._run_from(has_terminal and os.isatty(1), was_created),
            timeout_s=None if self._deadline is None else self._left(), note=self.say,
            rm_on_hangup=bool(self.get("rm")),
            kill_on_hangup=bool(self.get("kill_on_hangup")), as_lf=bool(self.get("lf")))
        return self._finish_run(attach, attachment.run())

    def _run_unattended(self):
        """As `dtach -N`: start it and stay, but be no client of its terminal."""
        session, _ = self._start("refuse")
        ended = self.client.request("wait", target="@" + session["id"], collect=True)["session"]
        self._tell_run(ended, ended["exit"])
        self._maybe_remove(ended)
        return self._mirror(ended)

    @staticmethod
    def _run_from(is_human, was_created):
        """Where its output is shown from.  Of a new session all is wanted, so that what is
        missing is told; a human's terminal is not to answer old queries."""
        if was_created:
            return 0
        return "restore" if is_human else "oldest"

    def _finish_run(self, attach, outcome):
        session = outcome.session
        if outcome.kind == attach.HUNG_UP and self.get("kill_on_hangup"):
            session = self.client.request("kill", target="@" + session["id"],
                                          orphans=True)["session"]
            outcome = attach.Outcome(attach.ENDED, session)
        if outcome.kind == attach.KILLED:
            self._end_in_time(session)
            self._tell_run(session, None, timed_out=True)
            self._maybe_remove(session)
            return TIMED_OUT_STATUS
        if outcome.kind == attach.LOST:
            outcome.error.details["exit_code"] = OUR_FAILURE_STATUS
            raise outcome.error
        if outcome.kind != attach.ENDED:
            why = f"{outcome.reason}; " if outcome.reason else ""
            self.say(f"{why}[detached (from session {session['name']})]")
            self._tell_run(session, None)
            return DETACHED_STATUS
        self.client.start_no_more()
        try:
            self.client.request("collect", target="@" + session["id"])
        except NoSuchSession:
            pass                        # past its keeping already
        except Unreachable:
            pass                        # stopped, and its sessions with it: not to be begun anew
        self._tell_run(session, session["exit"])
        self._maybe_remove(session)
        return self._mirror(session)

    def _end_in_time(self, session):
        """The time of a `run` is over, and it does not wait for ever for the end either."""
        try:
            self.client.request("kill", KILL_LIMIT_S, target="@" + session["id"], orphans=True)
        except TimedOut:
            raise TimedOut(f"session {session['name']} was to be ended after "
                           f"{self.get('timeout'):g} s, and it is not confirmed that it was",
                           hint="ptyguard ls tells; ptyguard doctor looks at guard and daemon") from None
        if not self.get("json"):
            self.say(f"session {session['name']} was ended after {self.get('timeout'):g} s")

    def _tell_run(self, session, exit_, timed_out=False):
        told = _as_json(name=session["name"], exit=exit_, matched=None, timed_out=timed_out)
        if self.get("json"):
            _tell(told)
        if self.status_file is not None:
            try:
                self.status_file.write(told)
            except PtyguardError as error:
                from ptyguard_core.report import exit_text
                if exit_ is not None:
                    error.message += f"; {session['name']} ended: {exit_text(exit_)}"
                raise

    def _maybe_remove(self, session):
        if self.get("rm"):
            try:
                self.client.remove("@" + session["id"], tombstone=False)
            except NoSuchSession:
                pass                    # somebody was quicker

    def _mirror(self, session):
        """The exit code that says how the session ended."""
        exit_ = session["exit"]
        if exit_["signal"]:
            return 128 + (self.backend.signal_number(exit_["signal"]) or 0)
        if exit_["code"] is None:
            self.say(f"the status of {session['name']} is not known: "
                     f"{session.get('reason') or session['state']}")
            return OUR_FAILURE_STATUS
        return exit_["code"]

    def _detach_key(self):
        from ptyguard_core import detachkey
        return detachkey.parse(self.get("detach_key") or os.environ.get("PTYGUARD_DETACH_KEY")
                               or detachkey.DEFAULT)

    def attach(self):
        """Take over the terminal."""
        key = self._detach_key()
        was_created = False
        if self.get("create"):
            self._check_terminal("ensure NAME -- CMD")      # before anything is started
            session, was_created = self._start("use", name=self.command.names[0])
        else:
            session = self.client.request("resolve", **self._first_target())["session"]
        if session["id"] == self._inside():
            raise PtyguardError(f"this is session {session['name']}: attaching it to itself "
                                "would show its output to itself for ever",
                                hint="ptyguard detach leaves it", exit_code=OUR_FAILURE_STATUS)
        if not was_created and session["state"] not in ("starting", "running", "draining"):
            raise NoSuchSession(f"no such session: {session['name']} (it is {session['state']})",
                                hint=f"ptyguard log {session['name']} shows its output")
        self._check_terminal(f"log -f {session['name']}")
        return self._attach_to(session, key, was_created)

    def _check_terminal(self, instead):
        if not (os.isatty(0) and os.isatty(1)):
            raise PtyguardError(f"{self.command.word} needs a terminal at stdin and stdout",
                                hint=f"ptyguard {instead} does without one",
                                exit_code=OUR_FAILURE_STATUS)

    def _attach_to(self, session, key, was_created=False):
        from ptyguard_core import attach
        how, lines = self.get("restore", ("screen", None))
        # What was made for us is shown from its beginning, also when that is its end as well.
        start = 0 if was_created else "now" if how == "none" else "restore"
        outcome = attach.Attachment(
            self.backend, self.paths, session, start, is_new=was_created,
            read_only=bool(self.get("read_only")), detach_key=key, note=self.say,
            steal=bool(self.get("steal")), restored_lines=lines).run()
        return self._finish_attach(attach, outcome)

    def _finish_attach(self, attach, outcome):
        session = outcome.session
        if outcome.kind == attach.LOST:
            self._tell_run(session, None)
            outcome.error.details["exit_code"] = OUR_FAILURE_STATUS
            raise outcome.error
        if outcome.kind == attach.ENDED:
            from ptyguard_core.report import exit_text
            self.say(f"[ended: {exit_text(session['exit'])}]")
            status = self._mirror(session)
            self._tell_run(session, session["exit"])        # its last line
            return status
        self.say(f"[detached (from session {session['name']})]")
        self._tell_run(session, None)
        return 0

    def detach(self):
        """Send clients away; returns when they have left."""
        for name in self.command.names or [None]:
            self.client.request("detach", self.get("timeout"), **self._target(name))

    # -- looking -------------------------------------------------------------------------

    def ls(self):
        """List sessions."""
        import time
        from ptyguard_core.listing import chosen, listed
        if self.get("watch"):
            return self._watch_sessions()
        now = time.time()
        sessions = chosen(self.client.request("ls")["sessions"], now, self.get("all"))
        wishes = [name for name in ("json", "short") if self.get(name)]
        text = listed(sessions, now, wishes, lambda: self.backend.terminal_size(1))
        if text is None:
            self.say("no sessions")
        else:
            _print(text, end="")

    def _watch_sessions(self):
        """The list on a terminal of its own, as it changes, until somebody leaves."""
        if not (os.isatty(0) and os.isatty(1)):
            raise UsageError("ls --watch needs a terminal at stdin and stdout",
                             hint="ptyguard ls --json tells what there is once")
        from ptyguard_core.watching import Watch
        self.client.close()             # there is one, or one was started: none is from now on
        return Watch(self.backend, self.paths, bool(self.get("all")), sys.stdout.encoding).run()

    def info(self):
        """Everything about one session."""
        import time
        from _socket import gethostname     # `socket` costs 7 ms
        from ptyguard_core import standing
        from ptyguard_core.report import session_sheet
        session = self.client.request("info", **self._first_target())["session"]
        with self.client.open_channel("read") as channel:
            session.update(standing.look(channel, session, gethostname()))
        if self.get("json"):
            _print(_as_json(**session))
        else:
            _print("\n".join(session_sheet(session, time.time())))

    def has(self):
        """0 when it lives, 1 when not; silent."""
        from ptyguard_core.report import LIVING
        try:
            return 0 if self._resolve(self.command.names[0])["state"] in LIVING else 1
        except NoSuchSession:
            return 1

    def screen(self):
        """What its terminal shows, drawn here."""
        from ptyguard_core import render, viewing
        form = "json" if self.get("json") else self.get("format", "text")
        lines = self.get("history", 0)
        with self.client.open_channel("screen") as channel:
            session = channel.request("resolve", **self._first_target())["session"]
            session, replay = viewing.look(channel, "@" + session["id"], lines)
        is_whole = replay.screen.is_whole
        if not is_whole:
            self.say(f"parts of this screen were painted before offset {session['offsets']['start']}, the oldest "
                     "output that is kept: what they show is not known")
        drawn = render.FORMATS[form](replay.screen, lines)
        if form == "json":
            drawn = _as_json(name=session["name"], id=session["id"], state=session["state"],
                             offset=replay.offset, is_whole=is_whole, **drawn) + "\n"
        _write_out(drawn if isinstance(drawn, bytes) else drawn.encode("utf-8", "replace"))

    def log(self):
        """The history, and with -f what follows."""
        session = self.client.request("resolve", **self._first_target())["session"]
        filter_ = _Verbatim() if self.get("raw") else _plain_text()
        target = "@" + session["id"]
        offset, status = self._print_history(session, target, filter_)
        if not self.get("follow"):
            return status
        return self._follow(session, target, offset, filter_) or status

    def _print_history(self, session, target, filter_):
        """Print what is kept and asked for; (the offset behind it, exit status)."""
        lines = self.get("tail")
        offset = self.get("since")
        status = 0
        kept = []
        with self.client.open_channel("read") as channel:
            while True:
                fields = {} if offset is None else {"offset": offset}
                try:
                    ok, data = channel.read(target=target, limit=READ_BYTES, **fields)
                except OutputGap as gap:
                    self.say(f"output {offset} to {gap.first_offset} is gone")
                    offset, status = gap.first_offset, 1
                    continue
                offset = ok["offset"] + len(data)
                text = filter_.feed(data)
                if lines is None:
                    _write_out(text)
                else:
                    kept.append(text)
                if offset >= ok["end"] or not data:
                    break
        if lines is not None:
            _write_out(_last_lines(b"".join(kept), lines))
        return offset, status

    def _follow(self, session, target, offset, filter_):
        from ptyguard_core.channel import Follower
        gaps = []
        with self.client.open_channel("log") as channel:
            follower = Follower(channel, target, offset, self.get("hold", LOG_HOLD_S),
                                on_gap=lambda start, end: gaps.append((start, end)))
            for _, view in follower.pieces():
                if gaps:
                    break
                _write_out(filter_.feed(view))
        if gaps:
            self.say(f"output {gaps[0][0]} to {gaps[0][1]} of {session['name']} was overwritten "
                     "before it could be written")
            return 1
        return 0

    # -- recordings ----------------------------------------------------------------------

    def record(self):
        """What a session shows from now on, to a file, until it ends or we are stopped."""
        from ptyguard_core.logfile import CannotWrite
        from ptyguard_core.recorder import open_recording
        from ptyguard_core.report import LIVING
        session = self.client.request("resolve", **self._first_target())["session"]
        file, gaps = self.command.args[0], []

        def note_gap(start, end):
            gaps.append((start, end))
            self.say(f"output {start} to {end} of {session['name']} was overwritten before it could be "
                     "recorded")

        if session["state"] not in LIVING and not os.path.exists(file):     # else it may lack its end
            raise NoSuchSession(f"no such session: {session['name']} (it is {session['state']})",
                                hint=f"ptyguard log {session['name']} shows its output")
        try:
            self._record_to(open_recording(self.backend, file, session), session, note_gap)
        except CannotWrite as error:
            raise PtyguardError(f"cannot record to {file}: {error}") from None
        return 1 if gaps else 0

    def _record_to(self, fd, session, note_gap):
        from ptyguard_core.painting import first_paint
        from ptyguard_core.recorder import Recorder, Stopped, stop_on_signals

        def look():
            with self.client.open_channel("read") as channel:
                return first_paint(channel, "@" + session["id"])

        try:
            stop_on_signals(self.backend)
            with self.client.open_channel("record") as channel:
                Recorder(channel, session, fd, self.get("hold", "never"), note_gap, look=look,
                         wants_input=bool(self.get("input")), env=os.environ).run()
        except Stopped:
            pass                        # the file ends with a position, always

    def play(self):
        """A recording, in its time."""
        import time
        from ptyguard_core.playing import Player, Stopped
        from ptyguard_core.record import in_time
        player = Player(_write_out, time.monotonic, time.sleep)

        def on_signal():
            names = set(read_signals())
            if "SIGTSTP" in names:
                player.pause(self.backend.stop_self)
            for name in names - {"SIGTSTP"}:
                raise Stopped(name)

        def act(recording):
            self._note_size(recording.size)
            output = (event for event in self._events(recording) if event[1] == "o")
            player.play(in_time(output, self.get("speed", 1.0), self.get("idle_limit")))

        _, read_signals = self.backend.watch_signals(("SIGINT", "SIGTERM", "SIGHUP", "SIGTSTP"), on_signal)
        try:
            self._with_recording(act)
        except Stopped as stopped:
            return 128 + self.backend.signal_number(str(stopped))
        return 0

    def _note_size(self, size):
        own = self._own_size() if os.isatty(1) and os.isatty(2) else None
        if own is not None and (own[0] < size[0] or own[1] < size[1]):
            self.say(f"it was recorded in a terminal of {size[0]}x{size[1]}, this one has {own[0]}x{own[1]}")

    def export(self):
        """A recording as a page or a picture."""
        from ptyguard_core.export import export_html, export_svg
        from ptyguard_core.record import in_time
        make = export_html if self.get("html") else export_svg

        def act(recording):
            title = self.get("title", recording.header.get("title"))
            events = (event for event in self._events(recording) if event[1] in ("o", "r"))
            return make(recording.size, in_time(events, self.get("speed", 1.0), self.get("idle_limit")),
                        title if isinstance(title, str) else "").encode("utf-8", "replace")

        data = self._with_recording(act)
        if self._is_own_input(self.get("output")):
            raise PtyguardError(f"{self.get('output')} is the recording itself", hint="nothing was written")
        if self.get("output") is None:
            _write_out(data)
            return
        with open(self.get("output"), "wb") as file:
            file.write(data)

    def _is_own_input(self, path):
        """Whether what is to be written is what is read."""
        try:
            return path is not None and os.path.samefile(path, self.command.args[0])
        except OSError:                 # it is new, or standard input
            return False

    def _with_recording(self, act):
        """What `act` makes of the recording that is meant."""
        from ptyguard_core.record import BadRecording, Recording
        name = self.command.args[0]
        try:
            with open(0 if name == "-" else name, "rb", closefd=name != "-") as file:
                return act(Recording(file))
        except BadRecording as error:
            raise PtyguardError(f"{'standard input' if name == '-' else name}: {error}",
                                hint="an asciicast of version 2 can be played") from None

    def _events(self, recording):
        yield from recording.events()
        if recording.is_cut:
            self.say("the last line is cut off; that is where it ends")

    # -- input and size ------------------------------------------------------------------

    def send(self):
        """Type literal bytes, once."""
        from ptyguard_core.sending import paste_input, send_input
        pattern = self._prompt_pattern()
        data = b" ".join(os.fsencode(word) for word in self.command.args)
        if self.get("stdin"):
            data = _read_stdin()
        type_ = paste_input if self.get("paste") else send_input
        self._type(pattern, lambda channel, target, sends, timeout_s: type_(
            channel, target, data, bool(self.get("enter")), timeout_s, sends))

    def _prompt_pattern(self):
        """What is to be waited for before it is typed, or None.  UsageError."""
        if self.get("wait_for") is None:
            return None
        from ptyguard_core.conditions import output_pattern
        return output_pattern(os.fsencode(self.get("wait_for")))

    def _type(self, pattern, type_):
        """`type_(channel, target, sends, timeout_s)`, after what is waited for if anything is."""
        target = self.command.names[0]
        if pattern is None:
            with self.client.open_channel("send") as channel:
                return self._tell_sent(type_(channel, target, None, self.get("timeout")))
        from ptyguard_core.conditions import FOR, Patience, description
        from ptyguard_core.prompt import answer
        patience = Patience(self.get("timeout"), self.backend.run_within)
        match, ok = answer(self.client.open_channel, target, pattern, type_, patience, self.get("since"))
        found = description(FOR, match)
        self._tell_sent(ok, matched=found["text"], matches=[found])

    def _tell_sent(self, ok, **more):
        if self.get("json"):
            _print(_as_json(name=ok["session"], written=ok["written"], offset=ok["offset"], **more))

    def key(self):
        """Press keys, once; or tell their names."""
        from ptyguard_core import keys
        from ptyguard_core.sending import send_input, send_keys
        from ptyguard_core.starting import as_wire
        if self.get("list"):
            return self._list_keys(keys)
        pattern = self._prompt_pattern()
        words = [as_wire(word) for word in self.command.args]
        type_, what, options = send_keys, words, {"takes_text": self.command.word == "send-keys"}
        if self.get("hex") or self.get("literal"):
            type_, options = send_input, {}
            what = keys.hex_keys(words) if self.get("hex") else keys.literal(words)
        else:
            keys.encode(words, False, **options)    # what is no key starts nothing, asks nobody
        self._type(pattern, lambda channel, target, sends, timeout_s: type_(
            channel, target, what, timeout_s=timeout_s, sends=sends, **options))

    def _list_keys(self, keys):
        if self.get("json"):
            _print(_as_json(keys=keys.listing(), modifiers=keys.modifiers_listing()))
        else:
            _print("\n".join(keys.list_lines()))

    def resize(self):
        """Set a session's terminal size."""
        self.client.request("resize", size=list(self.get("size")), **self._first_target())

    # -- waiting and ending --------------------------------------------------------------

    def wait(self):
        """For the end, a text, what the screen shows, or silence."""
        import time
        patterns = self._patterns()         # first: what is wrong with them needs no daemon
        timeout_s = self.get("timeout")
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        # All at the beginning: "now" is now for each of them.
        sessions = [self._resolve(name) for name in self.command.names or [None]]
        results = []
        for session in sessions:
            left = None if deadline is None else max(0.0, deadline - time.monotonic())
            results.append(self._wait_one(session, left, *patterns))
        if self.get("json"):
            told = [result[1] for result in results]
            _print(_as_json(**(told[0] if len(told) == 1 else {"results": told})))
        return next((status for status, _ in results if status), 0)

    def _patterns(self):
        """(those for the output, those for the screen), compiled; UsageError."""
        if not (self.get("for") or self.get("screen")):
            return (), ()
        from ptyguard_core.conditions import as_text, output_pattern, screen_pattern
        # An argument is UTF-8 as the screen's text is, whatever the locale.
        return ([output_pattern(os.fsencode(text)) for text in self.get("for", ())],
                [screen_pattern(as_text(os.fsencode(text))) for text in self.get("screen", ())])

    def _wait_one(self, facts, timeout_s, for_, screen):
        """(exit status, facts for --json)."""
        from ptyguard_core.report import LIVING
        target = "@" + facts["id"]
        told = {"name": facts["name"], "exit": None if facts["state"] in LIVING else facts["exit"],
                "matched": None, "matches": [], "timed_out": False}
        has_conditions = bool(for_ or screen or self.get("idle") is not None)
        try:
            if has_conditions:
                self._wait_for_conditions(facts, target, timeout_s, for_, screen, told)
                return 0, told
            # What has ended is no matter of time.
            session = self.client.request(
                "wait", timeout_s if facts["state"] in LIVING else None, target=target,
                collect=True)["session"]
            told["exit"] = session["exit"]
            return self._mirror(session), told
        except TimedOut as error:
            if not self.get("json"):
                why = error.message if has_conditions else "it has not ended"
                self.say(f"{facts['name']}: not in {self.get('timeout'):g} s: {why}")
            told["timed_out"] = True
            return TIMED_OUT_STATUS, told

    def _wait_for_conditions(self, facts, target, timeout_s, for_, screen, told):
        """All that was asked for; into `told` goes what has been found, also when the rest is not."""
        from ptyguard_core import conditions, waiting
        patience = conditions.Patience(timeout_s, self.backend.run_within)
        texts = [waiting.Search(pattern, bool(self.get("raw")), patience) for pattern in for_]
        looks = [conditions.ScreenSearch(pattern, patience) for pattern in screen]
        silences = []
        try:
            if texts:
                with self.client.open_channel("wait") as channel:
                    waiting.wait_for_texts(channel, target, texts, patience, self._since(facts))
            if looks or self.get("idle") is not None:
                ended = self._wait_for_now(target, looks, patience)
                told["exit"] = ended["exit"] if ended else told["exit"]
            if self.get("idle") is not None:
                silences.append(conditions.described_silence())
        except TimedOut as error:
            missing = [one.missing() for one in texts + looks if one.match is None]
            error.message = "; ".join(missing or [error.message])
            raise
        finally:
            found = [one.describe() for one in texts + looks if one.match is not None]
            told.update(matches=found + silences, matched=found[0]["text"] if found else None)

    def _wait_for_now(self, target, looks, patience):
        """Until the screen shows it, it is quiet, or both; what the session is if it has ended."""
        from ptyguard_core import waiting
        with self.client.open_channel("wait") as channel:
            if not looks:
                return waiting.wait_idle(channel, target, self.get("idle"), patience.left())
            from ptyguard_core.viewing import Viewing
            return waiting.wait_screen(Viewing(channel, target), looks, patience, self.get("idle"))

    def _since(self, facts):
        since = self.get("since", "oldest")
        if since == "now":
            return facts["offsets"]["end"] if facts["offsets"] else "oldest"
        return since

    def kill(self):
        """End sessions' trees; fails honestly."""
        fields = {}
        if self.get("signal") is not None:
            fields["signal"] = self.backend.signal_number(self.get("signal"))
            if not fields["signal"]:
                raise UsageError(f"no such signal: {self.get('signal')}", hint="such as HUP or 15")
        if self.get("grace") is not None:
            fields["grace"] = self.get("grace")
        if self.get("orphans"):
            fields["orphans"] = True
        if self.get("all"):
            return self._each_at_once(self._listed(is_living=True), "kill", fields)
        return self._each(self.command.names, lambda name: self.client.request(
            "kill", self.get("timeout"), target=name, **fields)["session"])

    def _listed(self, is_living):
        """Targets of the sessions that live, or of those that do not."""
        from ptyguard_core.report import LIVING
        return ["@" + s["id"] for s in self.client.request("ls")["sessions"]
                if (s["state"] in LIVING) == is_living]

    def restart(self):
        """The same command again."""
        fields = {} if self.get("grace") is None else {"grace": self.get("grace")}
        session = self.client.request("restart", self.get("timeout"),
                                      target=self.command.names[0], **fields)["session"]
        if self.get("json"):
            _print(_as_json(**session))

    def rename(self):
        """Another name."""
        session = self.client.request("rename", target=self.command.names[0],
                                      name=self.command.args[0])["session"]
        if self.get("json"):
            _print(_as_json(**session))

    def prune(self):
        """Drop what is past its keeping, and tell what that was."""
        is_rehearsal = bool(self.get("dry_run"))
        ok = self.client.request("prune", dry_run=is_rehearsal)
        if self.get("json"):
            _print(_as_json(dry_run=is_rehearsal, sessions=ok["sessions"],
                            output_only=ok["output_only"]))
            return
        for session in ok["sessions"]:
            _print(f"{session['name']} @{session['id']}")
        for session in ok["output_only"]:
            _print(f"{session['name']} @{session['id']} (output only)")

    def rm(self):
        """Kill, forget, and mark as destroyed."""
        if self.get("ended"):
            return self._each_at_once(self._listed(is_living=False), "rm", {"tombstone": False})
        return self._each(self.command.names, self._remove)

    def _remove(self, name):
        leaves_tombstone = not self.get("no_tombstone")
        ok = self.client.remove(name, leaves_tombstone, self.get("timeout"))
        if not ok["known"]:
            near = f" (did you mean {' or '.join(ok['near'])}?)" if ok["near"] else ""
            self.say(f"no such session: {name}{near}"
                     + ("; it counts as destroyed from now on" if leaves_tombstone else ""))
        told = {"name": None if name.startswith("@") else name, "exit": None,
                "id": name[1:] if name.startswith("@") else None}
        return dict(ok["session"] or told, known=ok["known"], tombstone=leaves_tombstone)

    def reconcile(self):
        """An authority says which sessions live."""
        live = self.command.names
        if self.get("live_file") is not None:
            live = _names_in(self.get("live_file"))
            if not live:                # a list that failed to be made looks like that, too
                raise PtyguardError(f"{self.get('live_file')} names no session: it is not believed, and "
                                    "nothing was done", hint="kill --all, or rm, ends all of them")
        fields = {} if self.get("idle") is None else {"idle_s": self.get("idle")}
        is_rehearsal = bool(self.get("dry_run"))
        ok = self.client.reconcile(live, dry_run=is_rehearsal, **fields)
        if self.get("json"):
            _print(_as_json(items=ok["items"], inconclusive=ok["inconclusive"],
                            dry_run=is_rehearsal))
        else:
            for item in ok["items"]:
                name = item["name"] or "-"
                _print(f"{item['action']:<6} {name} @{item['id']}: {_printable(item['reason'])}")
        if ok["inconclusive"]:
            self.say("inconclusive: too many of the sessions look dead at once, so the list is not "
                     "believed; nothing was done")
        return 1 if ok["inconclusive"] or any(i["action"] == "failed" for i in ok["items"]) else 0

    def _each_at_once(self, targets, verb, fields=None):
        """The same for all that were listed, asked together: hundreds take no longer than one."""
        with self.client.open_channel(verb) as channel:
            serials = {target: channel.ask(verb, target=target, **fields or {})
                       for target in targets}

            def answer(target):
                try:
                    return channel.await_reply(serials[target], self.get("timeout"))["session"]
                except (EOFError, ConnectionError):     # the daemon died: ask the next one
                    return self.client.request(verb, self.get("timeout"), target=target,
                                               **fields or {})["session"]

            return self._each(targets, answer, were_listed=True)

    def _each(self, names, act, were_listed=False):
        """Do it for all; the first failure's code, all failures told.

        `were_listed`: nobody named them, so one that is gone by now is done.
        """
        results, first = [], None
        for name in names:
            try:
                session = act(name)
                result = {"name": session["name"], "id": session["id"], "exit": session["exit"],
                          "error": None}
                result.update((key, session[key]) for key in ("known", "tombstone")
                              if key in session)
                results.append(result)
            except PtyguardError as error:
                if were_listed and isinstance(error, NoSuchSession):
                    continue
                first = first or error
                results.append({"name": name, "exit": None,
                                "error": {"kind": error.kind, "message": error.message}})
                if len(names) == 1:
                    raise
                self.say(error.message)
        if self.get("json"):
            _print(_as_json(results=results))
        return first.exit_code if first else 0

    # -- the daemon ----------------------------------------------------------------------

    def status(self):
        """Is it well?  Starts nothing."""
        import time
        from ptyguard_core.report import status_sheet
        facts = self._probe()
        if self.get("json"):
            _print(_as_json(**facts))
        else:
            _print("\n".join(status_sheet(facts, time.time())))
        return 0 if facts["state"] == "running" else 1

    def _probe(self):
        """What `status --json` tells, from the guard first, then from the daemon."""
        from ptyguard_core import guardwire as wire
        from ptyguard_core.supervise import ask_guard
        # Looking makes no directories.
        paths = self.backend.look_for_paths(self.get("dir"))[0]
        if os.path.lexists(paths.root):
            paths = self.paths
        reason = ""
        try:
            guard = ask_guard(self.backend, paths, wire.STATE)
        except Unreachable as error:
            guard, reason = None, error.message
        state, daemon = "stopped", None
        if guard is None and not reason and not os.path.isdir(paths.state):
            return _status_facts(paths, state, reason, None, None)
        if guard is not None and guard.text("daemon_state") == "depositing":
            guard, state = None, "running"      # a daemon serves, a new guard is not ready yet
        elif guard is not None:
            state = _STATES.get(guard.text("daemon_state"), "starting")
            reason = guard.text("reason")
        elif self._is_locked(paths.guard_lock):
            state = "unhealthy"
            reason = reason or self._about_lock(paths)
        elif self._is_locked(paths.daemon_lock):
            state = "running"           # its guard died; it serves on
        elif os.path.exists(paths.client_socket) or os.path.exists(paths.guard_socket):
            state, reason = "stale", "sockets without a living owner; the next start replaces them"
        elif self._claim_to_live(paths):
            state, reason = "stale", ("sessions that lived and that nobody holds; the next start "
                                      "marks them lost")
        if state == "running":
            try:
                daemon = self.client.status()
            except PtyguardError as error:
                state, reason = "unhealthy", error.message
        return _status_facts(paths, state, reason, guard, daemon)

    def _about_lock(self, paths):
        """Who holds guard.lock, where no guard answers."""
        words, pids = self.backend.lock_holder(paths.guard_lock), \
            self.backend.look_at_lock(paths.guard_lock)[1]
        is_guard = " guard, " in words and (not pids or words.startswith(tuple(f"pid {p} " for p in pids)))
        if is_guard:
            return f"a guard lives ({words}) without its socket {paths.guard_socket}"
        holder = f"pid {pids[0]}" if pids else "somebody"
        return f"{paths.guard_lock} is held by {holder}, and that is no guard: nothing starts meanwhile"

    def _claim_to_live(self, paths):
        """Whether records tell of living sessions, while no guard is there to hold them."""
        from ptyguard_core.registry import claims_to_live
        return claims_to_live(paths.state)

    def _is_locked(self, path):
        lock = self.backend.try_lock(path, "client, asking for status") \
            if os.path.exists(path) else -1
        if lock is None:
            return True
        if lock >= 0:
            os.close(lock)
        return False

    def daemon_start(self):
        """See to it that one runs; and say whose it is."""
        if self.get("owner"):
            self.client.request("own", owner=self.get("owner"))
        facts = self.client.status()
        if self._scope is not None:
            self._scope.judge(facts["guard_pid"])
        if self.get("json"):
            return self.status()
        _print(f"daemon {facts['pid']}, guard {facts['guard_pid']}")

    def daemon_stop(self):
        """C-309: with live sessions it must be said what becomes of them."""
        from ptyguard_core import guardwire as wire, supervise
        guard = supervise.tell_guard(self.backend, self.paths, wire.STATE)
        if guard is None:
            if not self._is_locked(self.paths.daemon_lock):
                self.say("no daemon runs")
                return 0
        if guard is None or guard.text("daemon_state") == "depositing":
            guard = self._await_guard(supervise, wire)
        living, kept = guard.number("living"), guard.number("sessions") - guard.number("living")
        choice = self.get("sessions")
        if not living and guard.text("daemon_state") == "serving":
            living = len(self._listed(is_living=True))      # their restart is due
        if living and choice is None:
            from ptyguard_core.errors import Busy
            raise Busy(f"{living} session{'s live' if living > 1 else ' lives'}",
                       hint="--sessions keep leaves them with the guard, "
                            "--sessions kill ends them first")
        if living and choice == "kill":
            self._each_at_once(self._listed(is_living=True), "kill")
        mode = "keep" if living and choice == "keep" else "all"
        if mode == "all" and kept:
            self.say(f"the output of {kept} ended sessions is dropped; their status is kept")
        if mode == "keep":
            self.say("sessions live on with the guard; a program pauses once about 20 KB of its "
                     "output wait, until the next command starts a daemon")
        supervise.stop(self.backend, self.paths, mode, bool(self.get("force")),
                       self.get("timeout", 5.0))

    def _await_guard(self, supervise, wire):
        """A daemon without a guard sees to it that one comes; wait for that."""
        import time
        deadline = time.monotonic() + supervise.LOCK_LIMIT_S
        while True:
            guard = supervise.ask_guard(self.backend, self.paths, wire.STATE)
            if guard is not None and guard.text("daemon_state") == "serving":
                return guard
            if time.monotonic() > deadline:
                raise Unreachable("the daemon has no guard yet", hint="ptyguard daemon log")
            time.sleep(supervise.LOOK_S)

    def daemon_restart(self):
        """Replace it by one of this code; sessions live on."""
        from ptyguard_core import supervise
        why_not = supervise.restart(self.backend, self.paths,
                                    self.get("timeout", supervise.START_LIMIT_S))
        if why_not is not None:
            self.client.status()        # nobody was there: start one

    def upgrade(self):
        """Another program for the daemon, and the guard; sessions live on."""
        from ptyguard_core import upgrading
        file = self.get("to")
        look = upgrading.look(self.backend, self.paths)
        if look.state is None and self._is_locked(self.paths.daemon_lock):
            self._await_guard_state()
            look = upgrading.look(self.backend, self.paths)
        program, version = upgrading.choose_program(self.backend, self.paths, file)
        if self.get("check"):
            return self._tell_upgrade(look, program, version)
        if look.state is None:
            if file is None:
                return self._told_upgraded(None, version, f"no daemon runs; the next one is {version}")
            self.client.status()            # one to begin with
            look = upgrading.look(self.backend, self.paths)
        is_same = look.running_binary == program[1] and look.state == "serving"
        if file is None and not is_same and upgrading.is_newer(look.running, version):
            raise PtyguardError(f"the daemon is newer: {look.running}, this is {version}",
                                hint="upgrade --to FILE goes back, if that is what you want")
        limit_s = self.get("timeout", upgrading.START_LIMIT_S)
        did = []
        if file is not None or not is_same:
            upgrading.upgrade(self.backend, self.paths, program, version, limit_s)
            did.append(f"daemon: {look.running or 'none'} -> {version}")
        if self.get("guard") and (file is not None or look.guard_binary != program[1]):
            try:
                upgrading.replace_guard(self.backend, self.paths, program, limit_s)
            except PtyguardError as error:
                if not did:
                    raise
                raise PtyguardError("; ".join(did + [error.message]), hint=error.hint) from None
            did.append(f"guard: {look.guard_version} -> {version}")
        text = "; ".join(did) or f"{version} runs already"
        return self._told_upgraded(look, version, text, bool(did))

    def _told_upgraded(self, look, version, text, is_changed=False):
        if self.get("json"):
            _print(_as_json(changed=is_changed, version=version,
                            was=look.running or None if look else None))
        else:
            _print(text)
        return 0

    def _tell_upgrade(self, look, program, version):
        """`--check`: what an upgrade would do."""
        from ptyguard_core.upgrading import is_newer
        is_same = look.running_binary == program[1]
        if look.state is None:
            text = f"no daemon runs; the next one is {version}"
        elif is_same:
            text = f"{version} runs already"
        elif is_newer(look.running, version):
            text = f"{look.running} runs, which is newer than {version}"
        else:
            text = f"{look.running or 'nothing'} runs; ptyguard upgrade replaces it by {version}"
        if look.state is not None and self.get("guard"):
            text += f"; the guard is of version {look.guard_version}"
        if self.get("json"):
            _print(_as_json(pending=look.state is not None and not is_same
                            and not is_newer(look.running, version),
                            running=look.running or None, version=version,
                            guard=look.guard_version or None, living=look.living))
        else:
            _print(text)
        return 0

    def _await_guard_state(self):
        from ptyguard_core import guardwire as wire, supervise
        self._await_guard(supervise, wire)

    def daemon_log(self):
        """What daemon and guard have written down, as one."""
        from ptyguard_core.logview import LogTail, merged
        looked = self.backend.look_for_paths(self.get("dir"))[0]        # looking makes nothing
        paths, count = (looked.daemon_log, looked.guard_log), self.get("lines", 100)
        logs = [LogTail(path) for path in paths]
        if not any(log.exists for log in logs):
            self.say(f"there is no log yet in {os.path.dirname(paths[0])}")
            if not self.get("follow"):
                return 1
        elif os.isatty(1):
            self.say(f"{paths[0]} and {os.path.basename(paths[1])}, by time; `daemon_ended` and "
                     "`circuit_open` tell why a daemon went, `banner` begins another")
        found = [log.read() for log in logs]
        older = [log.older(count - data.count(b"\n")) for log, data in zip(logs, found)]
        lines = merged([before + data for before, data in zip(older, found)])
        _print_lines(lines[len(lines) - count:] if count < len(lines) else lines)
        if self.get("follow"):
            self._follow_logs(logs, merged)
        return 0

    def _follow_logs(self, logs, merged):
        import time
        while True:
            lines = merged([log.read() for log in logs])
            _print_lines(lines)
            if not lines:
                time.sleep(FOLLOW_LOOK_S)

    def daemon_unit(self):
        """A systemd user unit for whoever wants one."""
        from ptyguard_core import copies, supervise, unit
        variables = {name: os.environ[name] for name in supervise.SETTINGS if os.environ.get(name)}
        supervise.check_settings(variables)
        directory = self.get("dir") or os.environ.get("PTYGUARD_DIR")
        if directory:
            variables["PTYGUARD_DIR"] = self.backend.look_for_paths(directory)[0].root
        _print(unit.service(copies.own_command(), variables), end="")

    def link(self):
        """The daemon lives no longer than a command, or than this process."""
        from ptyguard_core.holder import Holder
        from ptyguard_core.liveness import GRACE_S, KEEP, Terms
        terms = Terms(self.get("grace", GRACE_S), self.get("on_orphan", KEEP))
        holder = Holder(self.backend, self.paths, terms, not self.get("no_start"), self.say,
                        wish_for_scope(self.backend, note=self.say))
        return holder.run(self.command.command)

    def doctor(self):
        """What is well, what is not, and the cure.  Starts and changes nothing."""
        from ptyguard_core import doctor, survey
        from ptyguard_core.report import findings_sheet
        findings = doctor.examine(survey.gather(self.backend, self.get("dir"), os.environ))
        worst = doctor.worst(findings)
        if self.get("json"):
            _print(_as_json(checks=[finding._asdict() for finding in findings], worst=worst))
        else:
            _print("\n".join(findings_sheet(findings)))
        return 1 if worst == doctor.FAIL else 0

    # -- asking --------------------------------------------------------------------------

    def version(self):
        """Ours, the daemon's, or a comparison."""
        from ptyguard_core import version
        question, words = (self.command.args + [None])[0], self.command.args[1:]
        if self.get("daemon"):
            self._tell_version(self.client.status()["version"])
        elif question == "compare":
            self._tell_answer(version.compare(*words), is_shown=True)
        elif question == "match":
            return self._tell_answer(version.versions_match(*words))
        elif question == "satisfies":
            return self._tell_answer(version.satisfies(*words))
        else:
            self._tell_version(__version__, "ptyguard ")

    def _tell_version(self, which, lead=""):
        _print(_as_json(version=which) if self.get("json") else lead + which)

    def _tell_answer(self, answer, is_shown=False):
        """A comparison is told, a yes or no is the exit status; with --json both are told."""
        if self.get("json"):
            _print(_as_json(answer=answer))
        elif is_shown:
            _print(str(answer))
        return 0 if is_shown or answer else 1

    def completion(self):
        """A shell's script."""
        from ptyguard_core import completion
        _print(completion.script(self.command.args[0]), end="")

    def help(self):
        """One screen."""
        _print(_help_page(self.command.args[0] if self.command.args else ""), end="")

    _VERBS = {
        "start": start, "new": new, "run": run_, "ensure": ensure, "attach": attach, "detach": detach, "ls": ls,
        "info": info, "has": has, "send": send, "key": key, "screen": screen, "log": log, "wait": wait,
        "record": record, "play": play, "export": export,
        "resize": resize, "rename": rename, "restart": restart, "kill": kill, "rm": rm,
        "prune": prune, "reconcile": reconcile, "status": status, "version": version,
        "completion": completion, "help": help,
        "daemon start": daemon_start, "daemon stop": daemon_stop,
        "daemon restart": daemon_restart, "daemon log": daemon_log, "daemon unit": daemon_unit,
        "link": link,
        "upgrade": upgrade,
        "doctor": doctor,
    }


# Verbs whose --timeout begins with them (that of `run` is the command's own).
_TIMED = ("wait", "kill", "rm", "restart", "send", "detach")

# Verbs that only look, or see to the daemon themselves: they leave its program alone.
_LOOKING = ("status", "doctor", "version", "upgrade", "daemon stop", "daemon restart", "daemon log")

# The guard's word for its daemon -> the word of `status`.
_STATES = {"serving": "running", "quiescing": "running", "leaving": "stopped", "stopped": "stopped",
           "dead": "stopped", "stopping": "stopped", "circuit-open": "unhealthy"}


def _help_page(verb):
    """A verb's page of help; to that of `key` belong the names."""
    from ptyguard_core import usage
    page = usage.help_text(verb)
    if verb == "key":
        from ptyguard_core import keys
        page += "\n" + "\n".join(keys.list_lines()) + "\n"
    return page


def _status_facts(paths, state, reason, guard, daemon):
    from ptyguard_core.logview import last_death
    daemon = daemon or {}
    has_guard = guard is not None
    running, ended = daemon.get("running", 0), daemon.get("ended", 0)
    if not daemon and has_guard:
        running = guard.number("living")
        ended = guard.number("sessions") - running
    return {
        "state": state, "reason": reason or None,
        "daemon": {"pid": daemon.get("pid"), "version": daemon.get("version"),
                   "protocol": daemon.get("protocol"), "started_at": daemon.get("started_at"),
                   "binary": daemon.get("binary"), "owner": daemon.get("owner"),
                   "linked": daemon.get("linked", 0)},
        "guard": {"pid": guard.number("guard_pid") if has_guard else None,
                  "version": guard.text("version") if has_guard else None,
                  "started_at": guard.number("started_at_ms") / 1000 if has_guard else None},
        "dir": paths.state, "socket": paths.client_socket, "log": paths.daemon_log,
        "sessions": {"running": running, "ended": ended},
        "update": _update_facts(daemon.get("version"), guard),
        "disk_error": daemon.get("disk_error"), "log_error": daemon.get("log_error"),
        "circuit": _circuit_facts(guard) if has_guard else None,
        "last_death": last_death(paths.guard_log), "guard_log": paths.guard_log,
        "quarantined": daemon.get("quarantined", []), "kills_pending": daemon.get("kills_pending", []),
        "tombstones": daemon.get("tombstones"),
    }


def _circuit_facts(guard):
    """Why daemons are not started any more, and when that is tried again; None while they are."""
    if guard.text("daemon_state") != "circuit-open":
        return None
    retry_at_ms = guard.number("retry_at_ms", None)      # an older guard does not tell
    return {"reason": guard.text("reason"), "deaths": guard.number("deaths"),
            "retry_at": retry_at_ms and retry_at_ms / 1000}


def _update_facts(running, guard):
    """Whether a newer version than the running one is at hand: the one that asks, or one that
    the guard was offered."""
    from ptyguard_core.verdict import is_newer
    offered = guard.text("newest") if guard is not None else ""
    newest = offered if is_newer(offered, __version__) else __version__
    is_pending = running is not None and is_newer(newest, running)
    failures = [guard.text("update_failure"), guard.text("last_failure")] if guard is not None else []
    return {"pending": is_pending, "running": running,
            "newest": newest if is_pending or running is None else running,
            "deferred_reason": guard.text("deferred") or None if is_pending and guard else None,
            "last_failure": next(filter(None, failures), None)}


def _names_in(path):
    """The names that a file holds, one a line; `-` is standard input."""
    if path == "-":
        data = _read_stdin()
    else:
        try:
            with open(path, "rb") as file:
                data = file.read()
        except OSError as error:
            raise PtyguardError(f"cannot read {path}: {error.strerror}",
                                hint="without the list nothing is done") from None
    words = [line.strip() for line in data.decode("utf-8", "surrogateescape").splitlines()]
    return [word for word in words if word and not word.startswith("#")]


def _printable(text):
    from ptyguard_core.report import printable
    return printable(text)


class _Verbatim:
    """Output as it is."""

    @staticmethod
    def feed(data):
        return data


def _plain_text():
    from ptyguard_core.waiting import Plain
    return Plain()


def _last_lines(data, count):
    """The last `count` lines; an unfinished one counts."""
    at = len(data)
    if data.endswith(b"\n"):
        at -= 1
    for _ in range(count):
        at = data.rfind(b"\n", 0, at)
        if at < 0:
            return data
    return data[at + 1:] if count else b""


def _write_out(data):
    """Bytes to standard output.  Whoever reads it may have gone: BrokenPipeError."""
    view = memoryview(data)
    while view:
        try:
            view = view[os.write(1, view):]
        except BlockingIOError:         # somebody who shares it made it non-blocking
            poller = pick_backend().make_poller(any_file=True)
            poller.register(1, WRITABLE)
            poller.poll(-1)
        except BrokenPipeError:
            raise
        except OSError as error:
            raise PtyguardError(f"cannot write to standard output: {error.strerror}") from None


def _read_stdin():
    try:
        with open(0, "rb", closefd=False) as file:
            return file.read()
    except OSError as error:
        raise PtyguardError(f"cannot read standard input: {error.strerror}") from None


__all__ = ["Busy", "CannotExecute", "CommandNotFound", "Incompatible", "LimitReached", "NoSuchSession",
           "OutputGap", "PtyguardError", "Refused", "SessionDestroyed", "SessionExists",
           "StateUnusable", "TimedOut", "Unreachable", "Unsupported", "UsageError", "connect", "main",
           "pick_backend"]

if __name__ == "__main__":
    console()
