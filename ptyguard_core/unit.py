"""Unit: guard and daemon as a service of the user's service manager.  Pure: words in, text out.

Why it is what it is: guard and daemon leave whoever starts them, are nobody's children and
replace each other, so there is no main process that the manager could watch.  The service is
a oneshot that remains: `daemon start` is its start, and what that leaves is in its control
group.  KillMode=process, with no main process, means that a stop signals nobody; what a stop
does is said by ExecStop, which leaves live sessions with the guard.
"""

from .errors import UsageError

_TEXT = """\
# ptyguard as a service of your own systemd manager: guard, daemon and sessions live in it,
# and not in the login that happens to need them first.
#
#   mkdir -p ~/.config/systemd/user
#   ptyguard daemon unit > ~/.config/systemd/user/ptyguard.service
#   systemctl --user daemon-reload
#   systemctl --user enable --now ptyguard.service
#   loginctl enable-linger       # your manager starts at boot, and stays after your logout
#
# A guard that runs already stays where it is; stop it first (ptyguard daemon stop).
# Stopping this leaves live sessions with the guard; the next command serves them again.

[Unit]
Description=ptyguard, which keeps terminal sessions alive

[Service]
Type=oneshot
RemainAfterExit=yes
# A stop ends no session: the manager signals nobody.
KillMode=process
{environment}
ExecStart={start}
ExecStop={stop}

[Install]
WantedBy=default.target
"""


def service(program, variables):
    """The text of a user unit that runs `program` (words, the first one absolute).

    `variables`: what the guard is started with; it stays though nothing lives, unless they
    say otherwise: the next one would be started by a login again.
    """
    variables = dict({"PTYGUARD_IDLE_EXIT": "0"}, **variables)
    for name, value in variables.items():
        if not value.isprintable():     # systemd drops the whole line then
            raise UsageError(f"{name} cannot stand in a unit: {value[:40]!r}",
                             hint="a path of printable characters can")
    return _TEXT.format(
        environment="\n".join(f"Environment={quoted(f'{name}={value}')}"
                              for name, value in sorted(variables.items())),
        start=command_line(program + ["daemon", "start"]),
        stop=command_line(program + ["daemon", "stop", "--sessions", "keep"]))


def command_line(words):
    """`words` as ExecStart= takes them, systemd.service(5)."""
    # The path of the program itself is no place for quotes, controls and variables.
    if any(not character.isprintable() or character in "\"'\\$" for character in words[0]):
        words = ["/usr/bin/env", *words]
    # Not in the first word: nothing is substituted there.
    return " ".join([quoted(words[0]), *(quoted(word).replace("$", "$$") for word in words[1:])])


def quoted(word):
    """One word by systemd.syntax(7), with no specifier (systemd.unit(5)) in it."""
    word = word.replace("%", "%%")
    if word and all(character.isalnum() or character in "-_./=:,+@%$" for character in word):
        return word
    return '"' + "".join(_escaped(character) for character in word) + '"'


def _escaped(character):
    if character in "\"\\":
        return "\\" + character
    if character.isprintable():
        return character
    # Bytes that are no text are surrogates here (PEP 383).
    return "".join(f"\\x{byte:02x}" for byte in character.encode("utf-8", "surrogateescape"))
