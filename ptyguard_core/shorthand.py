"""Shorthand: what fingers know from dtach, abduco and tmux, in ptyguard's own words.

    dtach, abduco         -A NAME CMD   attach, or start and attach
                          -a NAME       attach
                          -c NAME CMD   start and attach
                          -n NAME CMD   start, detached
                          -N NAME CMD   start, detached, and stay until it ends
                          -p NAME       type what standard input holds
    tmux                  kill-server   daemon stop --sessions kill

Options of theirs (`-e KEY`, `-E`, `-r`, `-r winch`, `-z`, `-f`, `-q`) are understood before
CMD, those without a meaning here are dropped.  tmux's other verbs, with `-t` and `-s`, stand
in the tables of usage.py.  Pure: argv in, argv out.
"""

from .errors import UsageError

# Mode -> (our words, whether CMD may follow).  NAME goes where {} is.
_MODES = {
    "-A": (("attach", "{}", "--create"), True),
    "-a": (("attach", "{}"), False),
    "-c": (("new", "-n", "{}"), True),
    "-n": (("start", "-n", "{}"), True),
    "-N": (("run", "-n", "{}", "--unattended"), True),
    "-p": (("send", "{}", "-"), False),
}
_ATTACHING = ("-A", "-a", "-c")
_REDRAWS = ("none", "ctrl_l", "winch")      # dtach's -r; here the size is nudged always
_DROPPED = ("-z", "-f", "-q")

_WHOLE = {"kill-server": ("daemon", "stop", "--sessions", "kill")}

_GLOBAL_FLAGS = ("-q", "--quiet", "-v", "--verbose", "--no-start")


def expand(argv):
    """`argv` in our own words if it is one of these, else as it came."""
    at = _skip_globals(argv)
    if at >= len(argv):
        return argv
    before, word, rest = list(argv[:at]), argv[at], list(argv[at + 1:])
    if word in _WHOLE:
        return before + list(_WHOLE[word]) + rest
    mode = _mode_of(argv[at:])
    if mode is None:
        return argv
    return before + _expand_mode(mode, argv[at:])


def _skip_globals(argv):
    at = 0
    while at < len(argv):
        if argv[at] in _GLOBAL_FLAGS or argv[at].startswith("--dir="):
            at += 1
        elif argv[at] == "--dir":
            at += 2
        else:
            break
    return at


def _mode_of(words):
    """The mode among the options that `words` begins with, or None."""
    at = 0
    while at < len(words) and words[at].startswith("-"):
        if words[at] in _MODES:
            return words[at]
        if words[at] not in ("-e", "-E", "-r") + _DROPPED:
            return None
        at += 2 if words[at] == "-e" else 1
    return None


def _expand_mode(mode, words):
    template, may_have_command = _MODES[mode]
    name, options, command = _read(mode, words)
    if name is None:
        raise UsageError(f"{mode} needs NAME", hint=f"ptyguard {mode} NAME"
                                                    + (" CMD ARG..." if may_have_command else ""))
    if command and not may_have_command:
        raise UsageError(f"{mode} takes no command: {command[0][:60]!r}")
    out = [name if word == "{}" else word for word in template]
    if mode in _ATTACHING:
        out += options
    return out + (["--"] + command if command else [])


def _read(mode, words):
    """(NAME or None, our options, CMD): options may stand before and after NAME."""
    name, options, at = None, [], 0
    while at < len(words):
        word = words[at]
        at += 1
        if word == mode:
            pass
        elif word == "-e":
            options += ["-e", words[at] if at < len(words) else ""]
            at += 1
        elif word == "-E":
            options += ["-e", "none"]
        elif word == "-r" and at < len(words) and words[at] in _REDRAWS:
            at += 1
        elif word == "-r":
            options.append("-r")
        elif word in _DROPPED:
            pass
        elif word == "--":
            return (name, options, words[at:]) if name is not None else (None, options, [])
        elif name is None:
            name = word
        else:
            return name, options, words[at - 1:]
    return name, options, []


def session_of_tmux(target):
    """The session of a tmux target: `=NAME:WINDOW.PANE`, all but NAME left out."""
    name = target[1:] if target.startswith("=") else target
    return name.partition(":")[0] if name.partition(":")[0] else target
