"""Shorthand: dtach's, abduco's and tmux's spellings, and what they mean here."""

import pytest

from ptyguard_core.errors import UsageError
from ptyguard_core.shorthand import expand, session_of_tmux
from ptyguard_core.usage import parse

ROWS = [
    ("-A s bash -l", "attach s --create -- bash -l"),
    ("-A s", "attach s --create"),
    ("-a s", "attach s"),
    ("-c s vim x", "new -n s -- vim x"),
    ("-n s make -j4", "start -n s -- make -j4"),
    ("-N s ./serve", "run -n s --unattended -- ./serve"),
    ("-p s", "send s -"),
    # dtach: options after the name; its redraw methods have no meaning here
    ("-A s -e ^q -r winch -z bash", "attach s --create -e ^q -- bash"),
    ("-a s -E", "attach s -e none"),
    # abduco: options before the mode, -r watches only
    ("-e ^q -f -A s bash", "attach s --create -e ^q -- bash"),
    ("-r -a s", "attach s -r"),
    # what follows the name is the command's own, from its first word on
    ("-n s -- -x", "start -n s -- -x"),
    ("-n s sh -c -e", "start -n s -- sh -c -e"),
    ("-q --dir d -a s", "-q --dir d attach s"),
    ("kill-server", "daemon stop --sessions kill"),
    ("--dir=d kill-server", "--dir=d daemon stop --sessions kill"),
]


@pytest.mark.parametrize("theirs, ours", ROWS)
def test_what_theirs_means_in_our_words(theirs, ours):
    assert expand(theirs.split()) == ours.split()
    parse(theirs.split())


@pytest.mark.parametrize("line", ["", "ls -a", "start -n s -- -A x", "run -- kill-server", "--help",
                                  "-q ls", "-h", "--dir", "-x -A s"])
def test_anything_else_stays_as_it_came(line):
    assert expand(line.split()) == line.split()


@pytest.mark.parametrize("line", ["-A", "-a", "-n -e", "-p", "-N", "-c -e x"])
def test_a_mode_without_a_name_says_what_it_needs(line):
    with pytest.raises(UsageError) as caught:
        expand(line.split())
    assert "needs NAME" in caught.value.message


@pytest.mark.parametrize("line", ["-a s bash", "-p s x"])
def test_a_mode_that_starts_nothing_takes_no_command(line):
    with pytest.raises(UsageError):
        expand(line.split())


@pytest.mark.parametrize("target, name", [
    ("s", "s"), ("=s", "s"), ("s:", "s"), ("s:0.1", "s"), ("=s:w", "s"), ("@k3f9", "@k3f9"), (":1", ":1")])
def test_a_tmux_target_names_its_session(target, name):
    assert session_of_tmux(target) == name


@pytest.mark.parametrize("line, verb, names, args", [
    ("attach -t s:0", "attach", ["s"], []),
    ("a -t s -d", "attach", ["s"], []),
    ("attach-session -t s", "attach", ["s"], []),
    ("has-session -t =s", "has", ["s"], []),
    ("kill-session -t s", "kill", ["s"], []),
    ("send-keys -t s ls Enter", "key", ["s"], ["ls", "Enter"]),
    ("rename-session -t old new", "rename", ["old"], ["new"]),
    ("detach-client -s s", "detach", ["s"], []),
    ("new-session -d -s s", "start", [], []),
    ("new -s s", "new", [], []),
])
def test_tmux_long_names_are_understood_with_their_targets(line, verb, names, args):
    command = parse(line.split())
    assert (command.verb, command.names, command.args) == (verb, names, args)


def test_tmux_new_takes_its_name_and_command():
    command = parse("new-session -s work -d top -d 5".split())
    assert command.get("name") == "work" and command.command == ["top", "-d", "5"]
