"""The manual page ptyguard(1), written from the tables that `--help` and the parser read.

    python3 docs/manual.py > docs/ptyguard.1

What the tables say is not said again here: verbs, options, exit codes, keys.  Here is what
only a manual has: what it is, environment, files, examples.  The page is mdoc(7), and the
same whenever it is written.
"""

import os
import re
import sys
import textwrap

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
if ROOT not in sys.path:
    sys.path.insert(0, ROOT)

from ptyguard_core import detachkey, keys, usage  # noqa: E402 (found by the line above)

# Of the text below: no machine's clock shall change the page.
DATE = "November 29, 2026"

DESCRIPTION = """\
ptyguard keeps terminal sessions alive: through closed laptops, dropped ssh, crashed and replaced daemons.
It runs programs in terminals of their own, to which you attach and from which you detach, by hand, from
cron and from CI scripts.

Three processes share the work.
The guard is the parent of every program; it holds the program's terminal, the memory that its output is in, and
its exit status, and does next to nothing else.
The daemon, started by the guard and started again whenever it has died, moves output and input between programs
and clients.
A client is what you type: it finds guard and daemon, or starts them.
Both leave after an hour in which no session lived, no output was kept and no client was connected.

A session's NAME has 1 to 64 characters of A-Z a-z 0-9 . _ - and does not begin with - or a dot; @ID names
a session by its id.
Where NAME may be left out, the session is meant in which the command itself runs, else the only living one.

Options stand anywhere after the verb, until -- or the first word of CMD: what follows is the program's.
Without a verb, sessions are listed if standard output is a terminal, else help is shown.
"""

ENVIRONMENT = (
    ("PTYGUARD_DIR", "where everything is kept, instead of ~/.ptyguard; --dir wins"),
    ("PTYGUARD_DETACH_KEY", "the detach key of attach, new and run; -e wins"),
    ("PTYGUARD_DIRECT", "0: attach, new and run move all bytes through their connection, and do not lend the daemon "
                        "their terminal"),
    ("PTYGUARD_IDLE_EXIT", "seconds without living sessions, kept output and clients after which daemon and "
                           "guard leave: 3600; with 0 they stay"),
    ("PTYGUARD_MAX_SESSIONS", "living sessions at most: 1000"),
    ("PTYGUARD_MAX_CLIENTS", "connections at most: 1000"),
    ("PTYGUARD_KEEP_COUNT", "ended sessions kept at most: 100"),
    ("PTYGUARD_KEEP_DAYS", "days that an ended session is kept: 7"),
    ("PTYGUARD_KEEP_OUTPUT", "bytes of output of ended sessions that are kept in all: 33554432"),
    ("PTYGUARD_FOREGROUND", "the text's colour, #rrggbb, as a program is told that asks while nobody is attached: "
                            "#e5e5e5"),
    ("PTYGUARD_BACKGROUND", "the background's, likewise: #000000"),
    ("PTYGUARD_CURSOR_COLOUR", "the cursor's, likewise: that of the text"),
    ("PTYGUARD_AUTO_UPGRADE", "when a newer ptyguard replaces an older daemon by itself: idle (while no session "
                              "lives; the default), always, never"),
    ("PTYGUARD_SCOPE", "systemd: as if --survive-logout were given wherever a guard is started"),
    ("PTYGUARD_SESSION", "set in a session: the name that it had at its start"),
    ("PTYGUARD_SESSION_ID", "set in a session: its id"),
)

ENVIRONMENT_NOTE = """\
Those that name a number or a colour are read by the call that starts the guard, and hold until it ends.
PTYGUARD_DIR is set in a session too, so that commands in it find the daemon that it belongs to.
"""

FILES = (
    ("~/.ptyguard/", "of the home that the user database names; /tmp/ptyguard-UID where there is none"),
    ("~/.ptyguard/host-ID/", "this host's part; what follows is in it"),
    ("client.sock, guard.sock", "where daemon and guard listen"),
    ("start.lock, guard.lock, daemon.lock", "kernel locks; the files stay"),
    ("place", "where sockets and locks are: here, or in a directory below /tmp"),
    ("sessions/ID.json", "one record a session: what was started, how it ended; no output"),
    ("daemon.log, guard.log", "one line, one fact; kept to 5 MiB, with three older ones"),
    ("bin/", "private copies of the program, from which guard and daemon run"),
)

EXAMPLES = (
    ("Start a program, look at it, leave it with Ctrl-\\ and wait for its end:",
     "ptyguard start -n build -- make -j4\n"
     "ptyguard attach build\n"
     "ptyguard wait build; echo $?"),
    ("A shell that is there tomorrow:",
     "ssh -t host ptyguard attach work --create"),
    ("From cron, keep a program running:",
     "*/5 * * * *  $HOME/bin/ptyguard ensure feed --cwd /srv/feed -- ./feed --live >/dev/null"),
    ("In a CI job, with the command's status and at most half an hour:",
     "ptyguard run -n \"deploy-$BUILD\" --timeout 30m -- ./deploy.sh"),
    ("Over a fragile connection: repeat the line until it is through. It rejoins the build.",
     "while ssh -n build-host ptyguard run -n release -- make release; [ $? = 255 ]; do sleep 5; done"),
    ("Type into a program and wait for its answer:",
     "ptyguard start -n calc -- python3 -q\n"
     "ptyguard send calc --enter '6 * 7'\n"
     "ptyguard wait calc --for '(?m)^42'\n"
     "ptyguard log calc"),
)

SEE_ALSO = ("abduco 1", "dtach 1", "screen 1", "tmux 1")

SEE_ALSO_NOTE = "README.md, and in docs: DESIGN.md, PROTOCOL.md, GUARD.md, STATE.md."

KEYS_NOTE = """\
The detach key leaves an attached session. It is %s, unless -e or PTYGUARD_DETACH_KEY names another:
C-x (or ^x) is Ctrl and a key, M-x is Alt and a key, C-Space the space bar, and two keys are a chord, such as
'C-b d'. A chord's first key pressed twice goes to the program, once. Besides there are these words:
"""


# --- From text to roff ------------------------------------------------------------------

_LITERAL = {"\\": "\\e", "-": "\\-", "'": "\\(aq", "`": "\\(ga", "^": "\\(ha", "~": "\\(ti"}


def literal(text):
    """Text that shows as it is, to be copied: no quote or hyphen turns into a finer one."""
    return _guarded("".join(_LITERAL.get(char, char) for char in text))


def prose(text):
    """One line of running text.  What stands in backquotes is bold and literal."""
    pieces = text.split("`")
    return _guarded("".join(f"\\fB{literal(piece)}\\fP" if at % 2 else _prose(piece)
                            for at, piece in enumerate(pieces)))


def _prose(text):
    text = text.replace("\\", "\\e").replace("^", "\\(ha").replace("~", "\\(ti").replace("'", "\\(aq")
    # The hyphens of options are minus signs; those between words are hyphens.
    return re.sub(r"(?<![A-Za-z0-9])-+", lambda found: "\\-" * len(found.group()), text)


def _guarded(line):
    """A line that begins with a dot or an apostrophe would be a request."""
    return "\\&" + line if line.startswith((".", "'")) else line


def word(text):
    """A word on a macro's line: never taken for a macro itself, or for punctuation."""
    return "\\&" + literal(text).replace('"', "\\(dq")


def paragraph(text):
    """Running text, each sentence on lines of its own."""
    sentences = re.split(r"(?<=[.:?])\s+(?=[A-Z`])", text.strip())
    return [_guarded(line) for sentence in sentences
            for line in textwrap.wrap(prose(sentence), 79, break_long_words=False,
                                      break_on_hyphens=False)]


def display(text):
    """Lines to be shown as they are."""
    return [".Bd -literal -offset indent", *(literal(line) for line in text.split("\n")), ".Ed"]


def tagged(rows, width="Ds", offset=""):
    """A list of (macro line, lines of text)."""
    lines = [f".Bl -tag -width {width}{offset}"]
    for head, body in rows:
        lines += [f".It {head}", *body]
    return lines + [".El"]


def section(title, *lines):
    return [f".Sh {title}", *lines]


# --- The tables as roff -----------------------------------------------------------------

def synopsis(text):
    """The macro line of a usage line, such as `wait [NAME...] [--for REGEX] [OPTIONS]`."""
    tokens = re.findall(r"\[|\]|\||\.\.\.|[^\s\[\]|.]+(?:\.(?!\.\.)[^\s\[\]|.]*)*", text)
    return " ".join(_SYNOPSIS.get(token) or _synopsis_word(token) for token in tokens)


_SYNOPSIS = {"[": "Oo", "]": "Oc", "|": "|", "...": "...", "-": "Fl"}


def _synopsis_word(token):
    if token.startswith("-"):
        return "Fl " + word(token[1:])
    return ("Cm " if token.islower() else "Ar ") + word(token)


def option_head(option):
    """Its spellings, and what it takes."""
    heads = ["Fl" + (" " + word(spelling[1:]) if spelling != "-" else "")
             for spelling in option.spellings]
    return " , ".join(heads) + (" Ar " + word(option.value) if option.value else "")


def options_list(options):
    return tagged([(option_head(option), paragraph(option.help)) for option in options
                   if not is_hidden(option)])


def exits_list(rows):
    return tagged([(word(code), paragraph(meaning)) for code, meaning in rows], "0-255",
                  " -offset indent -compact")


def is_hidden(thing):
    return getattr(thing, "hidden", False)


def verb_part(verb):
    """A verb's part of the page: all that its page of help has."""
    lines = [f'.Ss "{word(verb.name)} \\(en {prose(verb.summary)}"', ".Nm " + synopsis(verb.usage),
             ".Pp", *_about(verb.about)]
    if verb.aliases:
        lines += [".Pp", "Also: " + ", ".join(f"\\fB{literal(alias)}\\fP" for alias in verb.aliases)
                  + "."]
    if any(not is_hidden(option) for option in verb.options):
        lines += options_list(verb.options)
    lines += [".Pp", "For example:", *display("\n".join(verb.examples))]
    return lines + [".Pp", "Exit status:", *exits_list(verb.exits)]


def _about(text):
    """Paragraphs of prose; indented lines are shown as they are."""
    lines, shown = [], []
    for line in text.split("\n"):
        if line.startswith("  "):
            shown.append(line[2:])
        else:
            lines.append(line)
    told = paragraph("\n".join(lines))
    return told + display("\n".join(shown)) if shown else told


# --- The page ---------------------------------------------------------------------------

def page():
    """The whole text of ptyguard.1."""
    lines = ['.\\" Written by docs/manual.py from the tables of ptyguard_core; not to be edited.',
             f".Dd {DATE}", ".Dt PTYGUARD 1", ".Os"]
    lines += section("NAME", ".Nm ptyguard", ".Nd keep terminal sessions alive")
    lines += section("SYNOPSIS", ".Nm " + synopsis("[OPTIONS] VERB [OPTIONS] [ARGUMENTS]"),
                     ".Nm " + synopsis("help [VERB]"))
    lines += section("DESCRIPTION", *_paragraphs(DESCRIPTION))
    lines += section("VERBS")
    for group in usage.GROUPS:
        for verb in usage.VERBS.values():
            if verb.group == group and not is_hidden(verb):
                lines += verb_part(verb)
    lines += section("GLOBAL OPTIONS", "Every verb takes these.", *options_list(usage.GLOBALS))
    lines += section("KEYS", *_keys())
    lines += section("ENVIRONMENT", *tagged([("Ev " + word(name), paragraph(text))
                                             for name, text in ENVIRONMENT]),
                     ".Pp", *paragraph(ENVIRONMENT_NOTE))
    lines += section("FILES", *tagged([("Pa " + word(name), paragraph(text)) for name, text in FILES]))
    lines += section("EXIT STATUS", *exits_list(usage.EXIT_CODES), ".Pp",
                     *paragraph("Where a code could be the command's or ours, `--json` tells: one object, "
                                "for `run` and `attach` the last line of standard error."))
    lines += section("EXAMPLES", *_examples())
    lines += section("SEE ALSO", *(f".Xr {name}" + " ," * (name != SEE_ALSO[-1]) for name in SEE_ALSO),
                     ".Pp", SEE_ALSO_NOTE)
    return "\n".join(lines) + "\n"


def _paragraphs(text):
    lines = []
    for part in text.strip().split("\n\n"):
        lines += [".Pp"] * bool(lines) + paragraph(part)
    return lines


def _keys():
    presets = [("Cm " + word(name), [prose("the same as " + spelled if spelled else "no key detaches")])
               for name, spelled in detachkey.PRESETS.items()]
    return [*paragraph(KEYS_NOTE % detachkey.DEFAULT),
            *tagged(presets, "shpool", " -offset indent -compact"),
            ".Pp", *paragraph("The verb `key` knows these:"), *display("\n".join(keys.list_lines()))]


def _examples():
    lines = []
    for text, commands in EXAMPLES:
        lines += [".Pp"] * bool(lines) + paragraph(text) + display(commands)
    return lines


if __name__ == "__main__":
    sys.stdout.write(page())
