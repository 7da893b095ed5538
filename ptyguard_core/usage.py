"""The command line as data: verbs, options, help; and the parser that reads argv by it.

Every word that ptyguard understands stands in one table, `VERBS`.  The parser,
`ptyguard help`, the manual page and the shell completions all read that table,
so that none of them can know a word that the others do not.  (argparse would
cost 7 ms of every command, and cannot leave a child's argv alone.)

Rule 1: a word belongs to us or to the child, never to both.  Options stand
    anywhere after the verb, until `--` or the first word of CMD: what follows
    is the child's, and is handed on as it came (empty, leading dash, `--`).
Rule 2: what is not understood is refused, with the nearest word named; an
    option that could have no effect is refused too.  Nothing is guessed.
Rule 3: `--help`, before CMD, ends the reading (but for the verb): it is there to
    help whoever got the rest wrong.
Rule 4: this file only reads words.  Whether a session's name is well formed,
    a signal exists or a regular expression compiles, the callers know.

Not handled: abbreviated long options (`--time 5`); a script that uses one would
break when the next option is added.

The file is long because half of it is tables.  It reads from the top: values, the
tables' shapes, the tables, the parser, help.
"""

from ptyguard_core.errors import UsageError

# A winsize holds two unsigned shorts (ioctl_tty(2)), and nothing can be drawn on 0.
SMALLEST_SIDE, LARGEST_SIDE = 1, 65535

# The crash-safe window of a ring is 16 KiB and at most a quarter of it.
LEAST_RING_BYTES = 64 * 1024
# A ring is memory; a session that keeps more than this wants a file.
MOST_RING_BYTES = 1024 * 1024 * 1024

LARGEST_OFFSET = 2 ** 64 - 1   # offsets travel in 64 bits

# A signed 32-bit count: more lines than any ring holds, and no surprise for anyone's integers.
LARGEST_COUNT = 2 ** 31 - 1

SECONDS_PER_UNIT = {"": 1.0, "ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
BYTES_PER_UNIT = {"": 1, "K": 1024, "M": 1024 ** 2, "G": 1024 ** 3}

LONGEST_GRACE_S = 30 * 86400.0     # as liveness.py has it, which a parser does not load

SHOWN_CHARACTERS = 60          # of a caller's word in a message
LABEL_LENGTH_MAX = 256         # a note, no file


# --- Values: from the text of one argument to what the verb works with ---------

def duration(text):
    """Seconds (float, finite, not negative) of `2`, `2s`, `500ms`, `1.5m`, `1h`."""
    unit = text.lstrip("0123456789.")
    number = text[:len(text) - len(unit)]
    is_number = number.count(".") <= 1 and number.strip(".") != ""
    if is_number and unit in SECONDS_PER_UNIT:
        seconds = float(number) * SECONDS_PER_UNIT[unit]
        if seconds != float("inf"):
            return seconds
    raise UsageError(f"not a duration: {_shown(text)}",
                     hint="write 2, 2s, 500ms, 5m or 1h")


def grace(text):
    """A duration that a link may be missing."""
    seconds = duration(text)
    if seconds > LONGEST_GRACE_S:
        raise UsageError(f"longer than 30 days: {_shown(text)}")
    return seconds


def terminal_size(text):
    """(columns, rows) of `80x24`."""
    columns, _, rows = text.partition("x")
    size = (_whole_number(columns, LARGEST_SIDE), _whole_number(rows, LARGEST_SIDE))
    if None not in size and min(size) >= SMALLEST_SIDE:
        return size
    raise UsageError(f"not a terminal size: {_shown(text)}",
                     hint="write COLSxROWS, each from "
                          f"{SMALLEST_SIDE} to {LARGEST_SIDE}, such as 80x24")


def speed(text):
    """How many times as fast: `2`, `0.5`, `2x`."""
    digits = text[:-1] if text.endswith("x") else text
    if digits.count(".") <= 1 and digits.strip(".").replace(".", "", 1).isdigit() and digits.isascii():
        if 0.001 <= float(digits) <= 1e6:
            return float(digits)
    raise UsageError(f"not a speed: {_shown(text)}", hint="write 2, 0.5 or 10")


def byte_size(text):
    """Bytes of `64K`, `1M`, `1G` or `1048576`, within what a ring may have."""
    unit = text.lstrip("0123456789")
    number = _whole_number(text[:len(text) - len(unit)], MOST_RING_BYTES)
    scale = BYTES_PER_UNIT.get(unit.upper())
    if number is not None and scale is not None:
        if LEAST_RING_BYTES <= number * scale <= MOST_RING_BYTES:
            return number * scale
    raise UsageError(f"not a size of 64K to 1G: {_shown(text)}",
                     hint="write 64K, 1M or a number of bytes")


def offset(text):
    """An absolute output offset: bytes since the session began."""
    number = _whole_number(text, LARGEST_OFFSET)
    if number is None:
        raise UsageError(f"not an output offset: {_shown(text)}",
                         hint="write a number of bytes, as `offsets` in info --json")
    return number


def offset_or_now(text):
    """An offset, or the word `now`, which only the daemon can turn into one."""
    return text if text == "now" else offset(text)


def count(text):
    """A number of things, 0 included."""
    number = _whole_number(text, LARGEST_COUNT)
    if number is None:
        raise UsageError(f"not a number: {_shown(text)}", hint="write 0, 1, 2 and so on")
    return number


def some_text(text):
    """Any text but none: an empty value is a shell variable that was not set."""
    if text == "":
        raise UsageError("the value is empty")
    return text


def restart_policy(text):
    """`never`, `on-failure[:N]`, `always[:N]` or `on-reboot`, as it was written."""
    from ptyguard_core.restartpolicy import parse_policy
    parse_policy(text)
    return text


def variable(text):
    """The name of an environment variable."""
    if text == "" or "=" in text:
        raise UsageError(f"not a variable's name: {_shown(text)}")
    return text


def assignment(text):
    """(variable, value) of `K=V`; the value may be empty and may hold `=`."""
    key, equals, value = text.partition("=")
    if key == "" or equals == "":
        raise UsageError(f"not of the form K=V: {_shown(text)}",
                         hint="write --env NAME=VALUE")
    return key, value


def tmux_target(text):
    """The session of a tmux target."""
    from ptyguard_core.shorthand import session_of_tmux
    return session_of_tmux(text)


def label(text):
    """(key, value) of `K=V`, a note of the user's."""
    key, value = assignment(text)
    if max(len(key), len(value)) > LABEL_LENGTH_MAX:
        raise UsageError(f"a label's key and value have at most {LABEL_LENGTH_MAX} characters: "
                         f"{_shown(text)}")
    return key, value


def restore(text):
    """("screen", None), ("none", None) or ("tail", lines) of `screen`, `none`, `tail:N`."""
    word, colon, number = text.partition(":")
    if word == "tail" and colon:
        return "tail", count(number)
    if text in ("screen", "none"):
        return text, None
    raise UsageError(f"not a way to restore: {_shown(text)}",
                     hint="write screen, none or tail:N (N lines)")


def _whole_number(text, largest):
    # isdigit alone takes superscripts and other scripts' digits; int() of
    # thousands of digits raises since Python 3.11.
    if text.isascii() and text.isdigit() and len(text.lstrip("0")) <= 20:
        number = int(text)
        return number if number <= largest else None
    return None


# --- The shapes of the tables ---------------------------------------------------

class Option:
    """One option: how it is spelled, what it takes, what it does.

    `key` is its name in `Command.options`; `spellings` begins with the short
    one, if any; `value` is the placeholder of what follows ("" for a flag);
    `convert` turns that text into the value or raises UsageError; of `choices`
    one must be said; a repeatable one (`repeats`) gathers a list; a hidden one is
    understood and not shown.
    """

    __slots__ = ("key", "spellings", "value", "convert", "repeats", "choices", "help", "hidden")

    def __init__(self, spellings, help, value="", convert=some_text, repeats=False,
                 choices=(), key="", hidden=False):
        self.hidden = hidden
        self.spellings = tuple(spellings.split())
        self.key = key or self.spellings[-1].lstrip("-").replace("-", "_")
        self.value = value or "|".join(choices)
        self.convert = convert
        self.repeats = repeats
        self.choices = choices
        self.help = help


class Argument:
    """One kind of positional argument: at least `least` of it, at most `most` (None: any).

    With `choices`, each of it must be one of these.
    """

    __slots__ = ("name", "least", "most", "choices")

    def __init__(self, name, least=1, most=1, choices=()):
        self.name = name
        self.least = least
        self.most = most
        self.choices = choices


class Verb:
    """One verb: its words, what it takes, what it refuses, and its page of help.

    `command` says where a child's argv begins (NO_COMMAND, AFTER_DASHES,
    AFTER_ARGUMENTS).  `needs`, `excludes` and `depends` are rules over words as
    the user writes them (`--all`, and NAME, TEXT, CMD for arguments): of each
    row in `needs` one word must be there, of each in `excludes` only one may,
    and in `depends` the first is nothing without the second.  Of `aliases` those in
    `hidden_aliases` are understood and not shown.
    """

    __slots__ = ("name", "aliases", "group", "summary", "usage", "about", "arguments",
                 "command", "options", "needs", "excludes", "depends", "examples", "exits",
                 "hidden_aliases")

    def __init__(self, name, group, summary, usage, about, examples, exits, aliases=(),
                 arguments=(), command="", options=(), needs=(), excludes=(), depends=(),
                 hidden_aliases=()):
        self.hidden_aliases = hidden_aliases
        self.name = name
        self.aliases = aliases
        self.group = group
        self.summary = summary
        self.usage = usage
        self.about = about
        self.arguments = arguments
        self.command = command
        self.options = options
        self.needs = needs
        self.excludes = excludes
        self.depends = depends
        self.examples = examples
        self.exits = exits


NO_COMMAND = ""
AFTER_DASHES = "after dashes"          # only `--` begins CMD
AFTER_ARGUMENTS = "after arguments"    # `--`, or the first word more than `arguments` takes


# --- Options --------------------------------------------------------------------

HELP = Option("-h --help", "show help and do nothing else")

GLOBALS = (
    HELP,
    Option("--dir", "where everything is kept (as PTYGUARD_DIR)", "D"),
    Option("-q --quiet", "say only what was asked for"),
    Option("-v --verbose", "say which daemon is asked"),
    Option("--no-start", "never start a daemon"),
)

JSON = Option("--json", "one JSON object instead of text")
DETACH_KEY = Option("-e --detach-key", "C-x, 'C-b d', tmux, screen, shpool or none", "KEY")

NEW_NAME = Option("-n --name", "its name (absent: one is made up)", "NAME")

# tmux's ways to say which session.
TMUX_TARGET = Option("-t", "tmux's spelling of NAME", "NAME", tmux_target, key="target",
                     hidden=True)
TMUX_NAME = Option("-s", "tmux's spelling of -n", "NAME", key="name", hidden=True)

NEW_SESSION = (
    Option("--cwd", "start it in directory D", "D"),
    Option("--env", "set a variable; may be repeated", "K=V", assignment, repeats=True),
    Option("--unset", "remove a variable; may be repeated", "K", variable, repeats=True),
    Option("--clean-env", "do not pass on your environment"),
    Option("--size", "size of its terminal", "COLSxROWS", terminal_size),
    Option("--scrollback", "output kept, 64K to 1G (absent: 1M)", "SIZE", byte_size),
    Option("--log", "append its output to FILE, as the terminal made it", "FILE"),
    Option("--record", "record it to FILE with its timing (asciicast)", "FILE"),
    Option("--record-input", "record what is typed too (see record)"),
    Option("--shell", "run LINE through a shell instead of CMD", "LINE"),
    Option("--label", "a note of yours, for info; may be repeated", "K=V", label, repeats=True),
    Option("--ttl", "forget it S after its end (absent: after 7 days)", "S", duration),
    Option("--restart", "run it again unasked; its environment goes to disk", "POLICY",
           restart_policy),
    Option("--size-policy", "latest (absent), largest, smallest or fixed", "POLICY",
           choices=("latest", "largest", "smallest", "fixed")),
    Option("--survive-logout", "start the guard beyond your login (systemd)"),
    JSON,
)


_NEEDS_RECORD = ("--record-input", "--record")
IDLE_LIMIT = Option("--idle-limit", "make pauses no longer than S", "S", duration)


def _timeout(what):
    return Option("--timeout", what, "S", duration)


# Of the verbs that type.
WAIT_FOR = Option("--wait-for", "first wait until the output matches", "REGEX")
WAIT_SINCE = Option("--since", "match from there on, not from the last send",
                    "OFFSET|now", offset_or_now)


# --- Exit codes, as the verbs' pages tell them ------------------------------------

USAGE = ("2", "the command line is wrong; nothing was done")
NO_SESSION = ("3", "no such session")
DESTROYED = ("5", "it was destroyed: start makes a new one")
EXISTS = ("4", "a live session has that name")
UNREACHABLE = ("6", "the daemon cannot be reached, or refuses us")
TIMED_OUT = ("124", "timed out")
NOT_EXECUTABLE = ("126", "the command cannot be executed")
NOT_FOUND = ("127", "the command was not found")

# All of them, for the manual page.
EXIT_CODES = (
    ("0", "done; of attach: detached"),
    ("0-255", "of run, of wait (for the end), and of attach when the session ended meanwhile: "
              "the command's own, 128+N when signal N killed it"),
    ("1", "failed, or the answer is no; of wait and send: the session ended before the text came"),
    ("2", "the command line is wrong; nothing was done"),
    ("3", "no such session"),
    ("4", "it exists already, or live sessions forbid it"),
    ("5", "the session was destroyed (rm, reconcile)"),
    ("6", "the daemon cannot be reached, refuses us, or is incompatible"),
    ("75", "of run: detached or hung up (its terminal, or the reader of its output, has gone); "
           "the session lives on"),
    ("124", "timed out"),
    ("125", "of run and wait: any other failure of ours, or the status is unknown; of attach: "
            "no terminal, or a failure after attaching"),
    ("126", "the command cannot be executed"),
    ("127", "the command was not found"),
    ("130", "interrupted by Ctrl-C"),
    ("141", "the reader of our output has gone"),
)


# --- Verbs ------------------------------------------------------------------------

SHELLS = ("bash", "zsh", "fish")       # whose completion we can write

STARTING, TALKING, ENDING, DAEMON, ASKING = GROUPS = (
    "Start and attach", "Look and talk", "End", "The daemon", "Ask")

_TABLE = (
    Verb("start", STARTING, "start a session, detached",
         "start [-n NAME] [OPTIONS] [-- CMD ARG...]",
         "Start CMD (absent: your login shell) in a new session and print its name.\n"
         "--restart POLICY has it started again under the same name and id:\n"
         "never (absent), on-failure[:N], always[:N], or on-reboot; all but never also\n"
         "after a reboot, at the first command then. The N attempts (5) come after 1 s,\n"
         "2 s and so on to 60 s; 60 s of life begin the count anew; then it has failed.\n"
         "What you kill stays so. For this its environment, secrets included, is kept in\n"
         "a file that only you can read, as long as the session is listed.",
         aliases=("new -d",),
         command=AFTER_ARGUMENTS,
         options=(NEW_NAME,) + NEW_SESSION + (
             Option("-d --detached", "accepted: start always is"), TMUX_NAME),
         excludes=(("--shell", "CMD"),), depends=(_NEEDS_RECORD,),
         examples=("ptyguard start -n build -- make -j4",
                   "ptyguard start --cwd /srv/app --env PORT=8080 -- ./serve --fast",
                   "ptyguard start -n job --shell 'make && make test'"),
         exits=(("0", "it runs"), ("1", "failed"), USAGE, EXISTS, UNREACHABLE,
                NOT_EXECUTABLE, NOT_FOUND)),

    Verb("new", STARTING, "start a session and attach to it",
         "new [-n NAME] [OPTIONS] [-- CMD ARG...]",
         "Start CMD (absent: your login shell) in a new session and take it into this\n"
         "terminal.  With -d it is left detached, as start does.",
         hidden_aliases=("new-session",),
         command=AFTER_ARGUMENTS,
         options=(NEW_NAME,) + NEW_SESSION + (
             Option("-d --detached", "do not attach: the same as start"),
             Option("-A --attach", "if NAME lives already, attach to that"),
             DETACH_KEY, TMUX_NAME),
         excludes=(("--shell", "CMD"), ("--detached", "--attach"),
                   ("--detached", "--detach-key")),
         depends=(("--attach", "--name"), _NEEDS_RECORD),
         examples=("ptyguard new -n work", "ptyguard new -A -n work",
                   "ptyguard new -d -n build -- make -j4"),
         exits=(("0", "detached (or started, with -d)"),
                ("0-255", "it ended: its own status, 128+N for signal N"), ("1", "failed"), USAGE,
                EXISTS, UNREACHABLE, ("125", "a failure after attaching, or no terminal"),
                NOT_EXECUTABLE, NOT_FOUND)),

    Verb("run", STARTING, "run a command to its end, and mirror its status",
         "run [-n NAME] [OPTIONS] -- CMD ARG...",
         "Start CMD in a session, or rejoin the live session NAME that runs it, and\n"
         "stay to the end.  For cron, CI and fragile ssh: repeat the line to rejoin.",
         aliases=("r",),
         command=AFTER_ARGUMENTS,
         options=(NEW_NAME,) + NEW_SESSION + (
             Option("--rm", "forget the session when it has ended"),
             _timeout("kill it, its daemons too, after S; then exit 124"),
             Option("--kill-on-hangup", "end it when this process is hung up or killed"),
             Option("--lf", "turn CR LF into LF, where stdout is no terminal"),
             Option("--status-file", "write how it ended to F, as one JSON object", "F"),
             Option("-d --detached", "do not stay: the same as start"),
             DETACH_KEY,
             Option("--unattended", "dtach's -N: stay, but show and pass on nothing",
                    hidden=True)),
         needs=(("CMD", "--shell"),),
         # Nobody would be there to keep the time or to remove it.
         excludes=(("--shell", "CMD"), ("--detached", "--timeout"), ("--detached", "--rm"),
                   ("--detached", "--kill-on-hangup"), ("--detached", "--lf"),
                   ("--detached", "--status-file"), ("--detached", "--unattended")),
         depends=(_NEEDS_RECORD,),
         examples=("ptyguard run -- make -j4",
                   "ptyguard run -n deploy --timeout 30m -- ./deploy.sh --all",
                   "ptyguard run -n nightly --rm --json -- ./backup"),
         exits=(("0-255", "the command's own, 128+N when signal N killed it"), USAGE,
                ("4", "NAME lives and runs something else"), DESTROYED,
                ("75", "detached or hung up: the session lives on"), TIMED_OUT,
                ("125", "any other failure of ours"), NOT_EXECUTABLE, NOT_FOUND)),

    Verb("ensure", STARTING, "start a session unless it lives",
         "ensure NAME [OPTIONS] [-- CMD ARG...]",
         "Start CMD (absent: your login shell) as NAME unless NAME lives already, and\n"
         "print the name.  Any number of callers at once make one session.",
         aliases=("up",),
         arguments=(Argument("NAME", 0),),
         command=AFTER_ARGUMENTS,
         options=(Option("-n --name", "NAME in another spelling", "NAME"),) + NEW_SESSION,
         needs=(("NAME",),),
         excludes=(("--shell", "CMD"),), depends=(_NEEDS_RECORD,),
         examples=("ptyguard ensure web -- ./serve --port 8080",
                   "ptyguard ensure shell",
                   "ptyguard ensure bot --cwd /srv/bot --env MODE=live -- python3 bot.py"),
         exits=(("0", "it lives"), ("1", "failed"), USAGE, DESTROYED, UNREACHABLE,
                NOT_EXECUTABLE, NOT_FOUND)),

    Verb("attach", STARTING, "take a session into this terminal",
         "attach [NAME] [OPTIONS] [--create [-- CMD ARG...]]",
         "Connect this terminal to a session (absent: the only one).  The detach key,\n"
         "Ctrl-\\ unless you chose another, leaves; the session lives on.",
         aliases=("a", "attach-session"),
         arguments=(Argument("NAME", 0),),
         command=AFTER_DASHES,
         options=(Option("--create", "start it first, unless it lives"),
                  Option("-r --read-only", "watch only: send no keys, no size"),
                  Option("-f --steal", "send its other clients away"),
                  Option("--restore", "what is shown first: screen, tail:N (lines), none", "WHAT",
                         restore),
                  DETACH_KEY, JSON, TMUX_TARGET,
                  Option("-d", "tmux's spelling of --steal", key="steal", hidden=True)),
         depends=(("CMD", "--create"), ("--create", "NAME")),
         examples=("ptyguard attach build",
                   "ptyguard attach -r build",
                   "ptyguard attach web --create -- ./serve --port 8080"),
         exits=(("0", "detached"),
                ("0-255", "it ended: its own status, 128+N for signal N"), ("1", "failed"),
                USAGE, ("3", "no such session, or it has ended: see log"), DESTROYED,
                UNREACHABLE, ("125", "a failure after attaching, or no terminal"))),

    Verb("detach", STARTING, "send a session's clients away",
         "detach [NAME...]",
         "Detach all clients of each session (absent: the one you are in, or the only\n"
         "one) and return when they have left.  The sessions live on.",
         aliases=("d",), hidden_aliases=("detach-client",),
         arguments=(Argument("NAME", 0, None),),
         options=(_timeout("give up waiting after S"), TMUX_TARGET,
                  Option("-s", "tmux's spelling of NAME", "NAME", tmux_target, key="target",
                         hidden=True)),
         examples=("ptyguard detach", "ptyguard detach build web"),
         exits=(("0", "they have left"), ("1", "failed"), USAGE, NO_SESSION, DESTROYED,
                UNREACHABLE, TIMED_OUT)),

    Verb("ls", TALKING, "list sessions",
         "ls [-a] [-q | --json | --watch]",
         "List the living sessions, and those that ended within the last hour.\n"
         "With --watch the list stays on the terminal and follows what happens; q leaves.",
         aliases=("list", "l", "list-sessions"),
         options=(Option("-a --all", "all ended ones too"),
                  Option("-q --short", "names only, one a line"),
                  Option("-w --watch", "keep it on the terminal, and up to date"),
                  JSON),
         excludes=(("--short", "--json"), ("--watch", "--short"), ("--watch", "--json")),
         examples=("ptyguard ls", "ptyguard ls --watch", "ptyguard ls -a --json"),
         exits=(("0", "done, also when there is none"), ("1", "failed"), USAGE, UNREACHABLE)),

    Verb("info", TALKING, "everything about one session",
         "info [NAME] [--json]",
         "Tell what is known of a session (absent: the one you are in, or the only one):\n"
         "state, pid, size, directory, clients, output offsets, exit status, and what its\n"
         "program has switched on in the terminal: alternate screen, mouse and so on.",
         aliases=("show",),
         arguments=(Argument("NAME", 0),),
         options=(JSON,),
         examples=("ptyguard info build", "ptyguard info build --json"),
         exits=(("0", "done"), ("1", "failed"), USAGE, NO_SESSION, DESTROYED, UNREACHABLE)),

    Verb("has", TALKING, "does a session live?  (exit status only)",
         "has NAME",
         "Say by the exit status whether the session lives, and print nothing.",
         aliases=("has-session",),
         arguments=(Argument("NAME"),),
         options=(TMUX_TARGET,),
         examples=("ptyguard has web", "ptyguard --no-start has web"),
         exits=(("0", "it lives"), ("1", "it does not"), USAGE, UNREACHABLE)),

    Verb("send", TALKING, "type into a session",
         "send NAME [OPTIONS] [TEXT... | -]",
         "Send bytes as if typed: TEXT joined by single spaces, or standard input.\n"
         "Put -- before text that begins with a dash.  With --wait-for it is typed once\n"
         "the output since the last send matches, and no other send comes in between.",
         aliases=("s",),
         arguments=(Argument("NAME"), Argument("TEXT", 0, None)),
         options=(Option("--enter", "then press Enter"),
                  Option("--paste", "as a paste, if the program tells that from typing"),
                  Option("-", "send standard input", key="stdin"),
                  WAIT_FOR, WAIT_SINCE,
                  _timeout("give up when not taken within S"),
                  Option("--json", "also tell the output offset before it"), TMUX_TARGET),
         needs=(("TEXT", "-", "--enter"),),
         excludes=(("-", "TEXT"),),
         depends=(("--since", "--wait-for"),),
         examples=("ptyguard send build --enter 'make test'",
                   "ptyguard send db --wait-for '=# $' --timeout 1m --enter 'select 1;'",
                   "ptyguard send vm --wait-for '[Pp]assword: $' - < secret"),
         exits=(("0", "the terminal took every byte"),
                ("1", "it did not; or the session ended before it matched"), USAGE, NO_SESSION, DESTROYED,
                UNREACHABLE, TIMED_OUT)),

    Verb("key", TALKING, "press keys in a session, by their names",
         "key NAME KEY... [OPTIONS]",
         "Press keys: single characters, and names such as Enter, C-c, M-x, S-F5, Up.\n"
         "As send-keys it types words that are no keys.  Escape and a key in one call\n"
         "are Alt and that key to many programs: press Escape by itself.",
         aliases=("keys", "send-keys"),
         arguments=(Argument("NAME", 0), Argument("KEY", 0, None)),
         options=(Option("-H --hex", "each KEY is bytes in hexadecimal: 1b, 1b5b41"),
                  Option("-l --literal", "type each KEY as it is, nothing between them"),
                  Option("--list", "list the names; asks no session"),
                  WAIT_FOR, WAIT_SINCE,
                  _timeout("give up when not taken within S"),
                  Option("--json", "also tell the output offset before it; or the list"),
                  TMUX_TARGET),
         needs=(("NAME", "--list"), ("KEY", "--list")),
         excludes=(("--list", "NAME"), ("--list", "--hex"), ("--list", "--literal"),
                   ("--list", "--timeout"), ("--list", "--wait-for"), ("--hex", "--literal")),
         depends=(("--since", "--wait-for"),),
         examples=("ptyguard key build C-c",
                   "ptyguard key edit Escape",
                   "ptyguard send-keys shell 'ls -l' Enter"),
         exits=(("0", "the terminal took every byte"), ("1", "it did not"), USAGE, NO_SESSION, DESTROYED,
                UNREACHABLE, TIMED_OUT)),

    Verb("screen", TALKING, "what a session's terminal shows",
         "screen [NAME] [--format FORMAT] [--history N]",
         "Print the screen of a session (absent: the one you are in, or the only\n"
         "one), as a terminal would show it; of an ended one, as it was at the end.\n"
         "ansi paints it in a terminal, html and svg are whole files of their own.\n"
         "If parts of it were painted before the oldest kept output, the program is\n"
         "asked to paint again, as a resize does.",
         aliases=("capture", "capture-pane", "get"),
         arguments=(Argument("NAME", 0),),
         options=(Option("--format", "text (absent), ansi, json, html or svg", "FORMAT",
                         choices=("text", "ansi", "json", "html", "svg")),
                  Option("--history", "and up to N lines that left it at the top", "N", count),
                  Option("--json", "as --format json"), TMUX_TARGET,
                  Option("-p", "tmux's word for printing it", key="prints", hidden=True)),
         excludes=(("--format", "--json"),),
         examples=("ptyguard screen build",
                   "ptyguard screen build --format svg",
                   "ptyguard screen build --history 1000"),
         exits=(("0", "done"), USAGE, NO_SESSION, DESTROYED, UNREACHABLE)),

    Verb("log", TALKING, "a session's output so far",
         "log [NAME] [OPTIONS]",
         "Print the kept output of a session (absent: the one you are in, or the only\n"
         "one), also after its end, as text without escapes.",
         aliases=("history", "tail"),
         arguments=(Argument("NAME", 0),),
         options=(Option("--raw", "bytes as the program wrote them"),
                  Option("--tail", "the last N lines only", "N", count),
                  Option("--since", "from this output offset on", "OFFSET", offset),
                  Option("-f --follow", "go on until the session ends"),
                  Option("--hold", "with -f: how long to hold the program (60s)", "S", duration)),
         depends=(("--hold", "--follow"),),
         examples=("ptyguard log build",
                   "ptyguard log build --tail 20 -f",
                   "ptyguard log build --raw --since 4096"),
         exits=(("0", "done"), ("1", "failed, or output was missed"), USAGE, NO_SESSION, DESTROYED,
                UNREACHABLE)),

    Verb("wait", TALKING, "wait for the end, a text, a screen or silence",
         "wait [NAME...] [--for REGEX] [--screen REGEX] [OPTIONS]",
         "Wait until all of the sessions have ended and mirror the status (of several: the\n"
         "first that is not 0), or until all that is asked for holds of each: what was in\n"
         "the output stays seen, the screen has to show it at the moment, and quiet is\n"
         "quiet while it does.  On the screen ^ and $ are those of lines, without blanks\n"
         "at their ends; it counts after the end too, and --timeout 0 only looks at it.",
         aliases=("w",),
         arguments=(Argument("NAME", 0, None),),
         options=(Option("--for", "until the output matches; may be repeated", "REGEX", repeats=True),
                  Option("--screen", "until the screen matches; may be repeated", "REGEX", repeats=True),
                  Option("--since", "match from there on, not from the oldest",
                         "OFFSET|now", offset_or_now),
                  Option("--raw", "match the bytes, escapes included"),
                  Option("--idle", "until there is no output for S", "S", duration),
                  _timeout("give up after S: exit 124, nothing is killed"),
                  JSON),
         # Without --for they would be ignored and the wait would be for the end: a trap.
         depends=(("--since", "--for"), ("--raw", "--for")),
         examples=("ptyguard wait build",
                   "ptyguard wait web --for 'listening on ([0-9]+)' --timeout 30s --json",
                   "ptyguard wait edit --screen '^~$' --idle 500ms"),
         exits=(("0-255", "the session's own, 128+N for signal N"),
                ("0", "what was asked for holds"),
                ("1", "the session ended before it came"), USAGE, NO_SESSION, DESTROYED,
                TIMED_OUT, ("125", "any other failure of ours, or the status is unknown"))),

    Verb("resize", TALKING, "give a session's terminal a size",
         "resize NAME COLSxROWS",
         "Set the size of a session's terminal; its program is told.",
         arguments=(Argument("NAME"), Argument("COLSxROWS")),
         options=(TMUX_TARGET,),
         examples=("ptyguard resize build 132x43", "ptyguard resize web 80x24"),
         exits=(("0", "done"), ("1", "failed"), USAGE, NO_SESSION, DESTROYED, UNREACHABLE)),

    Verb("rename", TALKING, "give a session another name",
         "rename OLD NEW [--json]",
         "Change a session's name; its id stays.  Programs in it go on to see the old one\n"
         "in PTYGUARD_SESSION.",
         hidden_aliases=("rename-session",),
         arguments=(Argument("NAME"), Argument("NEW")),
         options=(JSON, TMUX_TARGET),
         examples=("ptyguard rename build build-1.4", "ptyguard rename @k3f9a2b7cdmn web"),
         exits=(("0", "done"), ("1", "failed"), USAGE, NO_SESSION, DESTROYED,
                ("4", "another session, which may have ended, has that name"), UNREACHABLE)),

    Verb("restart", TALKING, "run a session's command again",
         "restart NAME [OPTIONS]",
         "End the session's program, if it runs, and start the same command again: same\n"
         "name and id, directory, environment and size; its output is kept and goes on.\n"
         "Attached clients stay.",
         arguments=(Argument("NAME"),),
         options=(Option("--grace", "time to obey before the next signal (5s)", "S", duration),
                  _timeout("give up waiting after S"), JSON),
         examples=("ptyguard restart web", "ptyguard restart web --grace 30s"),
         exits=(("0", "it runs again"), ("1", "failed; an ended session stays as it was"), USAGE,
                NO_SESSION, DESTROYED, UNREACHABLE, TIMED_OUT, NOT_EXECUTABLE, NOT_FOUND)),

    Verb("record", TALKING, "record a session to a file, with its timing",
         "record NAME FILE.cast [--input] [--hold S]",
         "Write what a session shows from now on, and its sizes, to an asciicast (v2) for\n"
         "play, export and asciinema, until it ends or Ctrl-C.  A new FILE is yours alone.\n"
         "One that is a recording of this session goes on where it ends, nothing missing\n"
         "that is still kept; any other is refused.  --input adds what is typed, but never\n"
         "while a line is typed without echo, as passwords are; a program that reads them\n"
         "key by key cannot be told from an editor.  start --record does all by itself.",
         arguments=(Argument("NAME"), Argument("FILE")),
         options=(Option("--input", "what is typed too"),
                  Option("--hold", "hold the program up to S rather than miss output", "S", duration),
                  TMUX_TARGET),
         examples=("ptyguard record build build.cast",
                   "ptyguard record shell --input lesson.cast"),
         exits=(("0", "recorded: it ended, or was stopped"),
                ("1", "failed, or output was missed (the file says where)"), USAGE,
                NO_SESSION, DESTROYED, UNREACHABLE)),

    Verb("play", TALKING, "play a recording in this terminal",
         "play FILE.cast [--speed N] [--idle-limit S]",
         "Write the output of an asciicast (v2; - is standard input) with its timing.\n"
         "What would make your terminal answer is left out, and modes are undone at the\n"
         "end, also by Ctrl-C.",
         arguments=(Argument("FILE", 0),),
         options=(Option("--speed", "N times as fast (2, 0.5)", "N", speed), IDLE_LIMIT,
                  Option("-", "play standard input", key="stdin", hidden=True)),
         needs=(("FILE", "-"),), excludes=(("FILE", "-"),),
         examples=("ptyguard play build.cast", "ptyguard play build.cast --speed 4 --idle-limit 1s"),
         exits=(("0", "played"), ("1", "it is no recording, or a line of it is broken"), USAGE,
                ("130", "stopped by Ctrl-C"))),

    Verb("export", TALKING, "make a web page or a picture of a recording",
         "export FILE.cast --html|--svg [-o FILE] [--idle-limit S]",
         "Make one self-contained file of an asciicast (v2; - is standard input): a page\n"
         "with a play bar, or an animated picture for a README.  Neither loads anything\n"
         "from anywhere.  With -o it is a file like any of yours, over what was there.",
         arguments=(Argument("FILE", 0),),
         options=(Option("--html", "a page that plays it"), Option("--svg", "an animated picture"),
                  Option("-o --output", "to FILE instead of standard output", "FILE"),
                  Option("--speed", "N times as fast (2, 0.5)", "N", speed), IDLE_LIMIT,
                  Option("--title", "instead of the recording's", "TEXT"),
                  Option("-", "read standard input", key="stdin", hidden=True)),
         needs=(("FILE", "-"), ("--html", "--svg")),
         excludes=(("FILE", "-"), ("--html", "--svg")),
         examples=("ptyguard export build.cast --html -o build.html",
                   "ptyguard export demo.cast --svg --idle-limit 1s -o demo.svg"),
         exits=(("0", "done"), ("1", "it is no recording, or FILE cannot be written"), USAGE)),

    Verb("kill", ENDING, "end sessions, and keep their output and status",
         "kill NAME... | --all [OPTIONS]",
         "End each session and all its processes: HUP, then TERM, then KILL; return\n"
         "when they are confirmed dead.  `log` and `wait` still know them.",
         aliases=("k", "kill-session"),
         arguments=(Argument("NAME", 0, None),),
         options=(Option("--all", "every living session"),
                  Option("--signal", "only send this one: INT, SIGINT or 2", "SIG"),
                  Option("--grace", "time to obey before the next signal (5s)", "S", duration),
                  Option("--orphans", "also daemons that it has started"),
                  _timeout("give up waiting after S"),
                  JSON, TMUX_TARGET),
         needs=(("NAME", "--all"),),
         excludes=(("--all", "NAME"), ("--signal", "--grace"), ("--signal", "--orphans")),
         examples=("ptyguard kill build",
                   "ptyguard kill build web --grace 30s",
                   "ptyguard kill --all --json"),
         exits=(("0", "dead, or dead before"), ("1", "not confirmed dead"), USAGE, NO_SESSION, DESTROYED,
                UNREACHABLE, TIMED_OUT)),

    Verb("rm", ENDING, "destroy sessions: kill, forget, leave a tombstone",
         "rm NAME... [--no-tombstone] | --ended [--json]",
         "Kill each session, if it lives, and forget its output and status.  For 30 days\n"
         "its name counts as destroyed: what only refers to it (attach, ensure, run, ...)\n"
         "exits with 5, and start begins a new one.  A name that nobody has is marked too.",
         aliases=("destroy",),
         arguments=(Argument("NAME", 0, None),),
         options=(Option("--no-tombstone", "only kill and forget"),
                  Option("--ended", "all that have ended; leaves no tombstones"),
                  _timeout("give up waiting after S"), JSON),
         needs=(("NAME", "--ended"),),
         excludes=(("--ended", "NAME"), ("--ended", "--no-tombstone")),
         examples=("ptyguard rm build", "ptyguard rm build web --no-tombstone",
                   "ptyguard rm --ended"),
         exits=(("0", "gone, or not there before"),
                ("1", "could not be ended: it is still there, and it is tried again"), USAGE,
                UNREACHABLE, TIMED_OUT)),

    Verb("reconcile", ENDING, "destroy what an authority's list does not hold",
         "reconcile --live NAME... | --live-file F [OPTIONS]",
         "Somebody else knows which sessions are wanted.  Destroy those that are not in\n"
         "the list and that nobody uses; lift the tombstones of names that are in it.\n"
         "Never touched: sessions with clients, with another program than their own in\n"
         "the foreground, or active in the last S.  If 5 or more, and more than half of\n"
         "all, are not in the list, it is not believed and nothing is done.",
         arguments=(Argument("NAME", 0, None),),
         options=(Option("--live", "a name (or @ID) of the list; more may follow", "NAME",
                         repeats=True),
                  Option("--live-file", "the list as a file, one a line; - is standard input", "F"),
                  Option("--idle", "quiet for so long counts as idle (60s)", "S", duration),
                  Option("--dry-run", "only say what would be done"), JSON),
         needs=(("--live", "--live-file"),),
         excludes=(("--live", "--live-file"), ("NAME", "--live-file")),
         examples=("ptyguard reconcile --live web db --dry-run",
                   "ptyguard reconcile --live-file wanted.txt --idle 10m --json",
                   "ptyguard reconcile --live-file - < wanted.txt"),
         exits=(("0", "done"), ("1", "inconclusive, or some could not be ended"), USAGE,
                UNREACHABLE)),

    Verb("prune", ENDING, "drop what is past its keeping",
         "prune [--dry-run] [--json]",
         "Forget ended sessions beyond the newest 100 (PTYGUARD_KEEP_COUNT), older than 7\n"
         "days (PTYGUARD_KEEP_DAYS, --ttl), and the oldest output beyond 32 MiB\n"
         "(PTYGUARD_KEEP_OUTPUT); print which.  It happens by itself whenever one ends.",
         options=(Option("--dry-run", "only say what would go"), JSON),
         examples=("ptyguard prune --dry-run", "ptyguard prune --json"),
         exits=(("0", "done"), ("1", "failed"), USAGE, UNREACHABLE)),

    Verb("status", DAEMON, "is the daemon well?",
         "status [--json]",
         "One screen about daemon and guard: state, versions, sessions, sockets, log.\n"
         "Starts nothing.",
         options=(JSON,),
         examples=("ptyguard status", "ptyguard status --json"),
         exits=(("0", "running"), ("1", "not running, or not well"), USAGE)),

    Verb("daemon start", DAEMON, "start it (every verb that needs it does so)",
         "daemon start [--owner app|persistent|headless] [--json]",
         "Start guard and daemon unless they run; sessions that lived on are adopted.\n"
         "--owner says whose it is: an app's, which links (see link), and with it whoever\n"
         "attaches; persistent and headless ones outlive every link.",
         options=(Option("--owner", "whose it is from now on",
                         choices=("app", "persistent", "headless")), JSON),
         examples=("ptyguard daemon start", "ptyguard daemon start --owner app"),
         exits=(("0", "running"), ("1", "failed"), USAGE, UNREACHABLE)),

    Verb("daemon stop", DAEMON, "stop it; asks what becomes of live sessions",
         "daemon stop [--sessions keep|kill] [--force] [--timeout S]",
         "Stop the daemon, and the guard with it when no session lives.  With live\n"
         "sessions say which: keep lets them live on, the next command serves them again.",
         options=(Option("--sessions", "what becomes of live ones", choices=("keep", "kill")),
                  Option("--force", "SIGKILL the daemon when S has passed"),
                  _timeout("how long it may take to stop")),
         examples=("ptyguard daemon stop",
                   "ptyguard daemon stop --sessions keep",
                   "ptyguard daemon stop --sessions kill --force --timeout 5"),
         exits=(("0", "stopped, or was not running"), ("1", "failed"), USAGE,
                ("4", "sessions live: say --sessions keep or kill"), UNREACHABLE, TIMED_OUT)),

    Verb("daemon restart", DAEMON, "replace it; sessions live on",
         "daemon restart [--timeout S]",
         "Replace the daemon by a new one.  Sessions and attached clients stay.",
         options=(_timeout("how long it may take"),),
         examples=("ptyguard daemon restart", "ptyguard daemon restart --timeout 10s"),
         exits=(("0", "a new one serves"), ("1", "failed; the old one still serves"), USAGE,
                UNREACHABLE, TIMED_OUT)),

    Verb("upgrade", DAEMON, "replace the running code; sessions live on",
         "upgrade [--to FILE] [--guard] [--check] [--json]",
         "Replace the daemon's program by this one, or by that of FILE (an archive that\n"
         "only you or root can write).  Sessions and attached clients stay; what does not\n"
         "work leaves the old one serving.  --guard replaces the guard's program as well,\n"
         "in place.  PTYGUARD_AUTO_UPGRADE says when a newer ptyguard does it by itself:\n"
         "idle (no session lives; the default), always, never.",
         options=(Option("--to", "this archive, whatever runs; also to go back", "FILE"),
                  Option("--guard", "the guard's program too, in place"),
                  Option("--check", "only say what it would do"),
                  _timeout("how long it may take"), JSON),
         examples=("ptyguard upgrade --check", "ptyguard upgrade",
                   "ptyguard upgrade --to ./ptyguard.pyz --guard"),
         exits=(("0", "it runs, or ran already"),
                ("1", "FILE cannot be used, what runs is newer, or the guard was not replaced"),
                USAGE, UNREACHABLE, TIMED_OUT)),

    Verb("daemon log", DAEMON, "what it has written down",
         "daemon log [-n N] [-f]",
         "Print the end of the daemon's log and of the guard's, as one by time: one line a\n"
         "fact, event key=value.  The guard's `daemon_ended`, `daemon_killed` and\n"
         "`circuit_open` tell why a daemon went; `banner` is the first line of each.",
         options=(Option("-n --lines", "the last N lines", "N", count),
                  Option("-f --follow", "go on with what is written")),
         examples=("ptyguard daemon log", "ptyguard daemon log -n 100 -f"),
         exits=(("0", "done"), ("1", "there is none, or it cannot be read"), USAGE)),

    Verb("daemon unit", DAEMON, "print a systemd user unit for it",
         "daemon unit",
         "Print a unit by which your own systemd manager starts guard and daemon: sessions\n"
         "are then in no login.  Its first lines say where to put it and how to enable it.\n"
         "It names this program's file, python and --dir; starts and changes nothing.",
         examples=("ptyguard daemon unit", "ptyguard --dir /srv/pg daemon unit"),
         exits=(("0", "printed"), ("1", "failed"), USAGE)),

    Verb("link", DAEMON, "let the daemon live no longer than a command",
         "link [--grace S] [--on-orphan keep|kill] [-- CMD ARG...]",
         "Hold the daemon for the life of CMD (absent: until a signal comes), and mirror\n"
         "CMD's status.  When the last link has been gone for the grace, however it ended,\n"
         "the daemon stops as by `daemon stop`; sessions are kept, or killed first.",
         command=AFTER_ARGUMENTS,
         options=(Option("--grace", "how long a link may be missing (5s)", "S", grace),
                  Option("--on-orphan", "what becomes of sessions then (keep)",
                         choices=("keep", "kill"))),
         examples=("ptyguard link -- ./app",
                   "ptyguard link --on-orphan kill -- ./run-tests",
                   "ptyguard link --grace 1m"),
         exits=(("0-255", "CMD's own, 128+N when signal N killed it"),
                ("0", "without CMD: signalled, or the daemon was stopped"), USAGE,
                UNREACHABLE, NOT_EXECUTABLE, NOT_FOUND)),

    Verb("doctor", DAEMON, "what is well, what is not, and the cure",
         "doctor [--json]",
         "Look at directories, locks, sockets, limits, terminals, what a logout ends, the\n"
         "guard's rights against yours, python and binaries.  Starts and changes nothing.",
         options=(JSON,),
         examples=("ptyguard doctor", "ptyguard doctor --json"),
         exits=(("0", "nothing fails; there may be warnings"), ("1", "something fails"), USAGE)),

    Verb("version", ASKING, "print or compare versions",
         "version [--daemon | compare A B | match A B | satisfies V RANGE]",
         "Print the version of this program, or answer a question about versions:\n"
         "compare prints -1, 0 or 1; match and satisfies answer by the exit status.",
         aliases=("--version",),
         arguments=(Argument("QUESTION", 0), Argument("VERSION", 0, 2)),
         options=(Option("--daemon", "that of the running daemon"), JSON),
         excludes=(("--daemon", "QUESTION"),),
         examples=("ptyguard version",
                   "ptyguard version compare 1.2.0 1.10.0",
                   "ptyguard version satisfies 1.4.2 '>=1.2,<2'"),
         exits=(("0", "done, or yes"), ("1", "no, or failed"),
                ("2", "the command line or a version is malformed"), UNREACHABLE)),

    Verb("completion", ASKING, "a script by which your shell completes words",
         "completion " + "|".join(SHELLS),
         "Print a script by which TAB completes verbs, options and names of sessions:\n"
         "  bash  in ~/.bashrc:  eval \"$(ptyguard completion bash)\"\n"
         "  zsh   in ~/.zshrc:   source <(ptyguard completion zsh)    (after compinit)\n"
         "  fish  ptyguard completion fish > ~/.config/fish/completions/ptyguard.fish",
         arguments=(Argument("SHELL", choices=SHELLS),),
         examples=("ptyguard completion bash", "ptyguard completion fish"),
         exits=(("0", "done"), USAGE)),

    Verb("help", ASKING, "this, or one screen about VERB",
         "help [VERB]",
         "Show all verbs, or the page of one.  `VERB --help` is the same.",
         arguments=(Argument("VERB", 0, 2),),
         examples=("ptyguard help", "ptyguard help run", "ptyguard help daemon stop"),
         exits=(("0", "done"), USAGE)),
)

VERBS = {verb.name: verb for verb in _TABLE}

# Every word that means a verb, aliases included.
BY_WORD = dict(VERBS, **{alias: verb for verb in _TABLE
                         for alias in verb.aliases + verb.hidden_aliases if " " not in alias})

# First words that need a second one: `daemon stop`.
FAMILIES = tuple(dict.fromkeys(name.split()[0] for name in VERBS if " " in name))

# What `version` can be asked, and what about.
VERSION_QUESTIONS = {
    "compare": ("A", "B"),
    "match": ("A", "B"),
    "satisfies": ("V", "RANGE"),
}


# --- The parser -------------------------------------------------------------------

class Command:
    """A command line, understood.

    `verb` is the canonical one, "" for none, or a family ("daemon") whose help
    is wanted; `word` is the verb as it was typed.  `options` maps an option's key
    to its value; what was not given is not there.  `names` are the sessions named,
    `args` all other positional arguments, `command` the child's argv or None.
    """

    __slots__ = ("verb", "word", "options", "names", "args", "command", "wants_help")

    def __init__(self):
        self.verb = ""
        self.word = ""
        self.options = {}
        self.names = []
        self.args = []
        self.command = None
        self.wants_help = False

    def get(self, key, default=None):
        """The value of an option, or `default` when it was not given."""
        return self.options.get(key, default)

    def __repr__(self):
        fields = ", ".join(f"{name}={getattr(self, name)!r}" for name in self.__slots__)
        return f"Command({fields})"


class _Words:
    """argv, and how far it has been read."""

    def __init__(self, argv):
        self.argv = list(argv)
        self.at = 0

    def __bool__(self):
        return self.at < len(self.argv)

    def take(self):
        self.at += 1
        return self.argv[self.at - 1]

    def take_rest(self):
        rest = self.argv[self.at:]
        self.at = len(self.argv)
        return rest


def parse(argv):
    """Read `argv` (without the program's name) into a Command, or raise UsageError."""
    command = Command()
    try:
        _refuse_nul(argv)
        _read(_Words(_expanded(argv)), command)
    except UsageError as error:
        error.hint = error.hint or f"ptyguard help {command.verb}".rstrip()
        raise
    return command


def _expanded(argv):
    """Other programs' shorthand in our own words; who has none does not pay for it."""
    if argv and (argv[0].startswith("-") or argv[0] == "kill-server"):
        from ptyguard_core.shorthand import expand
        return expand(argv)
    return argv


def _read(words, command):
    """Fill `command` from `words`, whole or as far as the help that is wanted needs."""
    verb = _read_verb(words, command)
    if verb is None or command.wants_help:
        return
    positionals = _read_words(words, verb, command)
    if command.wants_help:
        return
    if "target" in command.options:
        positionals.insert(0, command.options.pop("target"))
    _assign(verb, positionals, command)
    if verb.name in SETTLERS:
        SETTLERS[verb.name](command)
    _check(verb, command)


def _refuse_nul(argv):
    # execve(2) would cut the word there, and so mean another one.
    for number, word in enumerate(argv, 1):
        if "\0" in word:
            raise UsageError(f"argument {number} holds a NUL byte: {_shown(word)}")


def _read_verb(words, command):
    """Read up to the verb, global options on the way; None when there is none."""
    family = ""
    flags = _flags(GLOBALS)
    while words:
        word = words.take()
        if family + word in BY_WORD:
            verb = BY_WORD[family + word]
            command.verb = verb.name
            command.word = family + word
            return verb
        if word in FAMILIES and not family:
            family = word + " "
        elif _is_option(word, flags):
            _read_option(word, words, flags, command)
        else:
            raise _unknown_verb(family + word)
    command.verb = family.rstrip()
    if family and not command.wants_help:
        raise UsageError(f"{command.verb} needs one of: {', '.join(_members(command.verb))}")
    return None


def _read_words(words, verb, command):
    """Read what follows the verb; return the positional arguments."""
    flags = _flags(GLOBALS + verb.options)
    positionals = []
    while words and not command.wants_help:
        word = words.take()
        if word == "--":
            if verb.command:
                command.command = words.take_rest() or None
            else:
                positionals += words.take_rest()
        elif _is_option(word, flags):
            _read_option(word, words, flags, command)
        elif _begins_command(verb, positionals, command):
            command.command = [word] + words.take_rest()
        else:
            positionals.append(word)
    return positionals


def _begins_command(verb, positionals, command):
    """Is a word that is neither an option nor `--` the first one of CMD here?"""
    # `ensure -n NAME CMD` has its name already.
    room = 0 if {"name", "target"} & set(command.options) else len(verb.arguments)
    return verb.command == AFTER_ARGUMENTS and len(positionals) >= room


def _read_option(word, words, flags, command):
    """Read one option word (a group of short ones, it may be) and its value."""
    if word.startswith("--"):
        spelling, equals, text = word.partition("=")
        option = _find_option(spelling, spelling, flags, command)
        if option.value:
            text = text if equals else _take_value(option, spelling, words)
        elif equals:
            raise UsageError(f"{spelling} takes no value: {_shown(word)}")
        _store(option, spelling, text, command)
    elif word == "-":
        _store(flags[word], word, "", command)
    else:
        _read_short_options(word, words, flags, command)


def _read_short_options(word, words, flags, command):
    """Read `-a`, `-aq`, `-n value` or `-nvalue`: the first that takes a value ends it."""
    for at, letter in enumerate(word[1:], 2):
        spelling = "-" + letter
        # The whole word goes into the refusal: `-json` was meant to be `--json`.
        option = _find_option(spelling, word, flags, command)
        if option.value:
            _store(option, spelling, word[at:] or _take_value(option, spelling, words), command)
            return
        _store(option, spelling, "", command)


def _take_value(option, spelling, words):
    # `--cwd -- make` has lost its value; who means "--" writes `--cwd=--`.
    if words and words.argv[words.at] != "--":
        return words.take()
    raise UsageError(f"{spelling} needs {option.value}")


def _store(option, spelling, text, command):
    """Note that `option` was given, with the value that `text` means."""
    if option is HELP:
        command.wants_help = True
    elif not option.value:
        command.options[option.key] = True
    elif option.repeats:
        command.options.setdefault(option.key, []).append(_converted(option, spelling, text))
    else:
        # The last one wins, so that a script's defaults can be overridden.
        command.options[option.key] = _converted(option, spelling, text)


def _converted(option, spelling, text):
    if option.choices and text not in option.choices:
        raise UsageError(f"{spelling}: not one of {', '.join(option.choices)}: {_shown(text)}")
    try:
        return option.convert(text)
    except UsageError as error:
        raise UsageError(f"{spelling}: {error.message}", hint=error.hint) from None


def _assign(verb, positionals, command):
    """Hand the positional arguments to the verb's kinds, in order."""
    left = positionals
    for argument in verb.arguments:
        most = len(left) if argument.most is None else argument.most
        taken, left = left[:most], left[most:]
        if len(taken) < argument.least:
            raise UsageError(f"{verb.name} needs {'|'.join(argument.choices) or argument.name}")
        for word in taken if argument.choices else ():
            if word not in argument.choices:
                raise UsageError(f"{verb.name}: not one of {', '.join(argument.choices)}: "
                                 f"{_shown(word)}")
        kept = command.names if argument.name == "NAME" else command.args
        kept.extend(taken)
    if left:
        raise UsageError(f"unexpected argument of {verb.name}: {_shown(left[0])}")


# --- What one verb means beyond its tables ----------------------------------------

def _settle_ensure(command):
    """NAME and --name are the same thing: callers find it in either place."""
    name = command.get("name")
    if name is None and command.names:
        command.options["name"] = command.names[0]
    elif name is not None and command.names not in ([], [name]):
        raise UsageError(f"ensure takes one name, not {_shown(command.names[0])} "
                         f"and {_shown(name)}")
    elif name is not None:
        command.names = [name]


def _settle_attach(command):
    """`attach -- "$name"`: without --create there is no CMD, and `--` ends options."""
    tail = command.command or []
    if not command.get("create") and not command.names and len(tail) == 1:
        command.names, command.command = tail, None


def _settle_detached(command):
    """`new -d` and `run -d` are `start`, in what fails too."""
    if command.get("detached"):
        command.verb = "start"


def _settle_send(command):
    if command.get("paste") and not command.args and not command.get("stdin"):
        raise UsageError("send takes --paste only with TEXT or -")


def _settle_reconcile(command):
    """`--live a b c`: the first is the option's, the others follow it."""
    if command.get("live"):
        command.names = command.options["live"] + command.names


def _settle_file(command):
    """`-` is a FILE: standard input."""
    if command.get("stdin") and not command.args:
        del command.options["stdin"]
        command.args = ["-"]


def _settle_resize(command):
    command.options["size"] = terminal_size(command.args[0])


def _settle_version(command):
    if not command.args:
        return
    question, values = command.args[0], command.args[1:]
    if question not in VERSION_QUESTIONS:
        raise UsageError(f"unknown question: version {_shown(question)}"
                         + _nearest(question, VERSION_QUESTIONS))
    wanted = VERSION_QUESTIONS[question]
    if len(values) != len(wanted):
        raise UsageError(f"version {question} needs {' and '.join(wanted)}")


def _settle_help(command):
    if command.args:
        command.args = [_canonical(" ".join(command.args))]


SETTLERS = {
    "ensure": _settle_ensure,
    "attach": _settle_attach,
    "new": _settle_detached,
    "run": _settle_detached,
    "send": _settle_send,
    "reconcile": _settle_reconcile,
    "play": _settle_file,
    "export": _settle_file,
    "resize": _settle_resize,
    "version": _settle_version,
    "help": _settle_help,
}


def _check(verb, command):
    """Hold the verb's rules `needs`, `excludes` and `depends` against what was given."""
    given = _given_words(verb, command)
    for words in verb.needs:
        if given.isdisjoint(words):
            raise UsageError(f"{verb.name} needs {_either(words)}")
    for one, other in verb.excludes:
        if one in given and other in given:
            raise UsageError(f"{verb.name} takes {one} or {other}, not both")
    for one, other in verb.depends:
        if one in given and other not in given:
            raise UsageError(f"{verb.name} takes {one} only with {other}")


def _given_words(verb, command):
    """What was given, as the rows of the rules spell it."""
    given = {option.spellings[-1] for option in verb.options if option.key in command.options}
    if command.command is not None:
        given.add("CMD")
    if command.names:
        given.add("NAME")
    if command.args:
        given.update(argument.name for argument in verb.arguments if argument.name != "NAME")
    return given


# --- Looking words up, and refusing them --------------------------------------------

def _flags(options):
    """Spelling -> Option; a later one wins (-q of `ls` over the global one)."""
    return {spelling: option for option in options for spelling in option.spellings}


def _is_option(word, flags):
    """Does `word` have to be an option?  A lone `-` is one for some verbs only."""
    return word.startswith("-") and (word != "-" or word in flags)


def _members(family):
    return [name.split()[1] for name in VERBS if name.split()[0] == family]


def _canonical(word):
    """The verb or family that `word` (an alias, it may be) means."""
    if word in FAMILIES:
        return word
    if word in BY_WORD:
        return BY_WORD[word].name
    raise _unknown_verb(word)


def _unknown_verb(word):
    last = word.split(" ")[-1]
    if last in BY_WORD and last != word:            # `daemon status`
        near = f" (nearest: {last})"
    else:
        # One letter is near to everything short.
        near = _nearest(word, [known for known in BY_WORD if len(known) > 1] + list(FAMILIES))
    return UsageError(f"unknown verb: {_shown(word)}{near}", hint="ptyguard help")


def _find_option(spelling, word, flags, command):
    """The Option with that spelling; else UsageError about `word`, which holds it."""
    if spelling in flags:
        return flags[spelling]
    if not command.verb and any(word in _flags(verb.options) for verb in _TABLE):
        raise UsageError(f"the option of a verb stands before it: {word}",
                         hint=f"ptyguard VERB {word}")
    of_verb = f" of {command.verb}" if command.verb else ""
    # To one letter, only an option that begins with it is near.
    start = "-" + word if len(word) == 2 else "--"
    near = _nearest(word, [known for known in flags if known.startswith(start)])
    takes_text = any(argument.name in ("TEXT", "KEY") for argument in _arguments(command.verb))
    hint = "put -- before text that begins with a dash" if takes_text else ""
    raise UsageError(f"unknown option{of_verb}: {_shown(word)}{near}", hint=hint)


def _arguments(verb_name):
    return VERBS[verb_name].arguments if verb_name else ()


def _nearest(word, known):
    """` (nearest: X)`, or nothing when none is near."""
    import difflib             # only a mistake pays for it (and for re, behind it)
    # difflib is quadratic, and no word of ours is longer than this.
    found = difflib.get_close_matches(word[:SHOWN_CHARACTERS], known, 1, 0.5)
    return f" (nearest: {found[0]})" if found else ""


def _shown(text):
    """A caller's word on one line: cut, and quoted where it would not show as it is."""
    cut = text if len(text) <= SHOWN_CHARACTERS else text[:SHOWN_CHARACTERS] + "..."
    is_plain = cut.isprintable() and cut != "" and " " not in cut
    return cut if is_plain else repr(cut)


def _either(words):
    return " or ".join(filter(None, (", ".join(words[:-1]), words[-1])))


# --- Help -----------------------------------------------------------------------------

def help_text(verb_name):
    """The page of a verb, an alias or a family ("daemon"), with a newline at its end.

    "" is the overview.  Raises UsageError for a word that is none of these.
    """
    if verb_name == "":
        return overview()
    name = _canonical(verb_name)
    lines = _family_page(name) if name in FAMILIES else _verb_page(VERBS[name])
    return "\n".join(lines) + "\n"


def _verb_page(verb):
    lines = [f"usage: ptyguard {verb.usage}", "", *verb.about.split("\n")]
    if verb.aliases:
        lines.append(f"Also: {', '.join(verb.aliases)}")
    lines += ["", "options:"]
    lines += [_option_line(option) for option in verb.options if not option.hidden]
    lines.append(f"  everywhere: {_global_spellings(verb)}")
    lines += ["", "examples:"] + [f"  {example}" for example in verb.examples]
    lines += ["", "exit status:"] + [f"  {code:<6} {meaning}" for code, meaning in verb.exits]
    return lines


def _family_page(family):
    lines = [f"usage: ptyguard {family} {'|'.join(_members(family))} [OPTIONS]", ""]
    lines += [_verb_line(verb) for verb in _TABLE if verb.name.startswith(family + " ")]
    return lines + ["", f"`ptyguard help {family} VERB` shows one of them."]


def overview():
    """All verbs in their groups, one line each, and the options that all of them take."""
    lines = ["usage: ptyguard VERB [OPTIONS] [ARGUMENTS]",
             "",
             "Keeps terminal sessions alive.  Alone on a terminal, it lists them."]
    for group in GROUPS:
        lines += ["", f"{group}:"]
        lines += [_verb_line(verb) for verb in _TABLE if verb.group == group]
    lines += ["", "Options of every verb:"] + [_option_line(option) for option in GLOBALS]
    lines += ["", "`ptyguard help VERB` shows one screen about it, with examples."]
    return "\n".join(lines) + "\n"


def _verb_line(verb):
    words = [verb.name] + [alias for alias in verb.aliases if not alias.startswith("-")]
    return f"  {', '.join(words):<27}  {verb.summary}"


def _option_line(option):
    # Long options stand under each other, whether or not a short one precedes.
    spelled = ", ".join(option.spellings)
    if option.spellings[0].startswith("--"):
        spelled = "    " + spelled
    return f"  {spelled + ' ' + option.value:<26} {option.help}"


def _global_spellings(verb):
    """The global options on one line, each as short as this verb leaves it free."""
    taken = _flags(verb.options)
    spelled = []
    for option in GLOBALS:
        spelling = [word for word in option.spellings if word not in taken][0]
        spelled.append(f"{spelling} {option.value}".rstrip())
    return ", ".join(spelled)
