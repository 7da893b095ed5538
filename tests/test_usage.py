"""The command line: its tables are whole, and argv is read as they say."""

import itertools
import os
import shlex
import subprocess
import sys

import pytest
from hypothesis import example, given, strategies as st

from ptyguard_core import usage
from ptyguard_core.errors import UsageError
from ptyguard_core.usage import VERBS, help_text, overview, parse

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


def refusal(*argv):
    """The UsageError that this command line meets."""
    with pytest.raises(UsageError) as caught:
        parse(list(argv))
    return caught.value


def options_of(*argv):
    return parse(list(argv)).options


every_verb = pytest.mark.parametrize("verb", list(VERBS.values()), ids=list(VERBS))


# --- The tables -------------------------------------------------------------------

EXPECTED_WORDS = {
    "start": ["new -d"], "new": [], "run": ["r"], "ensure": ["up"], "attach": ["a", "attach-session"],
    "detach": ["d"], "ls": ["list", "l", "list-sessions"], "info": ["show"],
    "has": ["has-session"], "send": ["s"], "log": ["history", "tail"], "wait": ["w"],
    "screen": ["capture", "capture-pane", "get"], "key": ["keys", "send-keys"], "resize": [], "rename": [], "restart": [], "prune": [], "reconcile": [],
    "doctor": [], "completion": [], "kill": ["k", "kill-session"], "rm": ["destroy"], "status": [],
    "daemon start": [], "daemon stop": [], "daemon restart": [], "daemon log": [], "daemon unit": [],
    "link": [], "upgrade": [], "record": [], "play": [], "export": [],
    "version": ["--version"], "help": [],
}

NEW_SESSION = ("--name --cwd --env --unset --clean-env --size --scrollback --shell --label --ttl "
               "--size-policy --restart --log --record --record-input --survive-logout --json")

EXPECTED_OPTIONS = {
    "start": NEW_SESSION + " -d",
    "new": NEW_SESSION + " -d -A -e",
    "run": NEW_SESSION + " --rm --timeout --kill-on-hangup --lf --status-file -d -e",
    "ensure": NEW_SESSION,
    "attach": "--create -r --read-only -f --steal --restore -e --detach-key --json",
    "detach": "--timeout", "ls": "-a --all -q --short -w --watch --json", "info": "--json", "has": "",
    "send": "--enter --paste - --wait-for --since --timeout --json",
    "key": "--hex --literal --list --wait-for --since --timeout --json",
    "screen": "--format --history --json",
    "log": "--raw --tail --since -f --follow --hold",
    "wait": "--for --screen --since --raw --idle --timeout --json",
    "record": "--input --hold", "play": "--speed --idle-limit",
    "export": "--html --svg -o --speed --idle-limit --title",
    "resize": "", "rename": "--json", "restart": "--grace --timeout --json",
    "prune": "--dry-run --json", "reconcile": "--live --live-file --idle --dry-run --json",
    "doctor": "--json", "completion": "",
    "kill": "--all --signal --grace --orphans --timeout --json",
    "rm": "--ended --no-tombstone --timeout --json",
    "status": "--json", "daemon start": "--owner --json", "link": "--grace --on-orphan",
    "daemon stop": "--sessions --force --timeout", "daemon restart": "--timeout",
    "upgrade": "--to --guard --check --timeout --json",
    "daemon log": "-n --lines -f --follow", "daemon unit": "", "version": "--daemon --json", "help": "",
}


def test_verbs_and_aliases_are_those_of_the_manual():
    assert {name: list(verb.aliases) for name, verb in VERBS.items()} == EXPECTED_WORDS


def test_no_word_means_two_verbs():
    words = [word for verb in VERBS.values()
             for word in (verb.name, *verb.aliases, *verb.hidden_aliases) if word != "new -d"]
    assert len(words) == len(set(words)) == len(usage.BY_WORD)


@every_verb
def test_options_are_those_of_the_manual(verb):
    wanted = {usage._flags(verb.options)[word] for word in EXPECTED_OPTIONS[verb.name].split()}
    assert wanted == {option for option in verb.options if not option.hidden}


@every_verb
def test_no_spelling_or_key_of_a_verb_means_two_options(verb):
    spellings = [word for option in verb.options for word in option.spellings]
    assert len(spellings) == len(set(spellings))
    keys = [option.key for option in verb.options + usage.GLOBALS if not option.hidden]
    assert len(keys) == len(set(keys))


@every_verb
def test_rows_of_a_verb_are_complete(verb):
    assert verb.group in usage.GROUPS
    assert verb.summary and verb.about and verb.usage.startswith(verb.name)
    assert verb.exits[0][0].startswith("0")
    for option in verb.options + usage.GLOBALS:
        assert option.help and option.key.isidentifier()
        assert bool(option.repeats) <= bool(option.value)


@every_verb
def test_rules_speak_of_words_that_the_verb_has(verb):
    has = {option.spellings[-1] for option in verb.options}
    has |= {argument.name for argument in verb.arguments}
    if verb.command:
        has.add("CMD")
    for row in verb.needs + verb.excludes + verb.depends:
        assert set(row) <= has


@every_verb
def test_only_the_last_kind_of_argument_is_unlimited(verb):
    for argument in verb.arguments[:-1]:
        assert argument.most is not None


def test_settlers_belong_to_verbs():
    assert set(usage.SETTLERS) <= set(VERBS)


# --- Help -------------------------------------------------------------------------

PAGES = list(VERBS) + ["daemon", ""]


@pytest.mark.parametrize("page", PAGES)
def test_no_line_of_help_is_wider_than_80_columns(page):
    assert max(map(len, help_text(page).split("\n"))) <= 80


@pytest.mark.parametrize("page", PAGES)
def test_help_is_plain_ascii_and_ends_in_one_newline(page):
    text = help_text(page)
    assert text.isascii() and text.endswith("\n") and not text.endswith("\n\n")


@every_verb
def test_help_of_a_verb_fits_one_screen(verb):
    assert help_text(verb.name).count("\n") <= 48


@every_verb
def test_help_of_a_verb_tells_every_option_and_exit_code(verb):
    text = help_text(verb.name)
    for option in verb.options:
        if option.hidden:
            assert option.help not in text
        else:
            assert ", ".join(option.spellings) in text and option.help in text
    for code, meaning in verb.exits:
        assert code in text and meaning in text


@every_verb
def test_every_example_parses_as_its_verb(verb):
    assert 2 <= len(verb.examples) <= 3
    for line in verb.examples:
        program, *argv = shlex.split(line.partition(" < ")[0])
        assert program == "ptyguard" and line in help_text(verb.name)
        assert parse(argv).verb == ("start" if argv[:2] == ["new", "-d"] else verb.name)


@every_verb
def test_help_of_an_alias_is_that_of_its_verb(verb):
    for alias in verb.aliases + verb.hidden_aliases:
        assert help_text(alias.split()[0] if alias in usage.BY_WORD else verb.name) == help_text(verb.name)


@every_verb
def test_overview_has_one_line_for_each_verb(verb):
    lines = [line for line in overview().split("\n") if line.endswith("  " + verb.summary)]
    assert len(lines) == 1 and lines[0].startswith("  " + verb.name)


def test_global_q_is_not_promised_where_q_means_short():
    assert "-h, --dir D, --quiet, -v, --no-start" in help_text("ls")
    assert "-h, --dir D, -q, -v, --no-start" in help_text("log")


def test_help_of_an_unknown_word_is_refused_with_the_nearest():
    with pytest.raises(UsageError, match="unknown verb: atach .nearest: attach."):
        help_text("atach")


def test_help_of_a_family_lists_its_verbs():
    text = help_text("daemon")
    assert all(f"daemon {word}" in text for word in ("start", "stop", "restart", "log"))


@every_verb
def test_dash_dash_help_wins_over_missing_and_wrong_words(verb):
    for flag in ("--help", "-h"):
        command = parse([*verb.name.split(), flag, "--bogus", "too", "many", "words"])
        assert command.wants_help and command.verb == verb.name
        assert parse([flag, *verb.name.split()]).wants_help


def test_help_after_the_first_word_of_the_command_is_the_commands():
    assert parse(["run", "make", "--help"]).command == ["make", "--help"]
    assert parse(["run", "--", "--help"]).command == ["--help"]
    assert not parse(["run", "--", "--help"]).wants_help


def test_help_alone_names_no_verb():
    for argv in (["--help"], ["-h"], ["-qh"], ["--dir", "d", "--help"]):
        command = parse(argv)
        assert command.verb == "" and command.wants_help


def test_help_of_a_family_is_wanted_without_its_second_word():
    command = parse(["daemon", "--help"])
    assert command.verb == "daemon" and command.wants_help


@pytest.mark.parametrize("words, page", [
    ([], []), (["ls"], ["ls"]), (["l"], ["ls"]), (["daemon"], ["daemon"]),
    (["daemon", "stop"], ["daemon stop"]), (["help"], ["help"]),
])
def test_help_verb_names_the_canonical_page(words, page):
    command = parse(["help", *words])
    assert (command.verb, command.args, command.wants_help) == ("help", page, False)


def test_help_of_an_unknown_verb_is_a_usage_error():
    error = refusal("help", "strat")
    assert "nearest: start" in error.message and error.hint == "ptyguard help"


# --- Verbs ------------------------------------------------------------------------

def test_nothing_said_is_a_command_without_a_verb():
    command = parse([])
    assert (command.verb, command.options, command.names) == ("", {}, [])
    assert (command.args, command.command, command.wants_help) == ([], None, False)
    assert parse(["--dir", "d"]).options == {"dir": "d"}


@pytest.mark.parametrize("alias, name", [
    (alias, name) for name, aliases in EXPECTED_WORDS.items() for alias in aliases])
def test_alias_is_read_as_its_verb(alias, name):
    words = {"ensure": ["x"], "has": ["x"], "send": ["x", "y"], "kill": ["x"], "rm": ["x"],
             "run": ["x"], "key": ["x", "Up"]}
    assert parse([*alias.split(), *words.get(name, [])]).verb == name


@pytest.mark.parametrize("word, nearest", [
    ("atach", "attach"), ("strat", "start"), ("lst", "list"), ("kil", "kill"),
    ("deamon", "daemon"), ("enshure", "ensure"), ("verison", "version"),
])
def test_unknown_verb_names_the_nearest(word, nearest):
    error = refusal(word)
    assert error.message == f"unknown verb: {word} (nearest: {nearest})"
    assert error.hint == "ptyguard help" and error.exit_code == 2


def test_unknown_verb_near_to_nothing_names_none():
    assert refusal("qqqqqq").message == "unknown verb: qqqqqq"


def test_daemon_alone_names_its_verbs():
    error = refusal("daemon")
    assert error.message == "daemon needs one of: start, stop, restart, log, unit"
    assert error.hint == "ptyguard help daemon"


def test_second_word_of_daemon_is_checked():
    assert "nearest: daemon start" in refusal("daemon", "strat").message
    assert refusal("daemon", "status").message.endswith("(nearest: status)")


def test_global_options_stand_before_between_and_after_the_verb():
    wanted = {"dir": "D", "quiet": True, "verbose": True, "no_start": True}
    one = ["--dir", "D", "-qv", "--no-start"]
    for argv in ([*one, "daemon", "log"], ["daemon", *one, "log"], ["daemon", "log", *one]):
        command = parse(argv)
        assert command.verb == "daemon log" and command.options == wanted


def test_option_of_a_verb_before_the_verb_says_where_it_belongs():
    error = refusal("--json", "ls")
    assert error.message == "the option of a verb stands before it: --json"
    assert error.hint == "ptyguard VERB --json"


def test_q_is_quiet_before_ls_and_short_after_it():
    assert options_of("-q", "ls") == {"quiet": True}
    assert options_of("ls", "-q") == {"short": True}
    assert options_of("ls", "--quiet") == {"quiet": True}


def test_dash_dash_version_is_the_verb():
    assert parse(["--version"]).verb == "version"
    assert "unknown option of ls: --version" in refusal("ls", "--version").message


# --- Options ----------------------------------------------------------------------

@pytest.mark.parametrize("words", [
    ["--name", "web"], ["--name=web"], ["-n", "web"], ["-nweb"], ["-dnweb"], ["-dn", "web"],
])
def test_value_of_an_option_in_each_spelling(words):
    assert parse(["start", *words, "--", "x"]).get("name") == "web"


def test_short_flags_group():
    assert options_of("ls", "-aq") == options_of("ls", "-a", "--short")


def test_options_and_arguments_mix_in_any_order():
    words = [["web"], ["--timeout", "5"], ["--for", "x"], ["--json"]]
    read = [parse(["wait", *sum(order, [])]) for order in itertools.permutations(words)]
    for command in read:
        assert command.names == ["web"]
        assert command.options == {"timeout": 5.0, "for": ["x"], "json": True}


def test_value_may_hold_equals_signs_and_begin_with_a_dash():
    assert parse(["start", "--shell=a=b"]).get("shell") == "a=b"
    assert parse(["wait", "x", "--for", "-x"]).get("for") == ["-x"]
    assert parse(["wait", "x", "--for=--"]).get("for") == ["--"]


def test_repeatable_options_gather_and_the_last_of_others_wins():
    command = parse(["start", "--env", "A=1", "--env=B=", "--unset", "C", "--cwd=/a",
                     "--cwd", "/b"])
    assert command.get("env") == [("A", "1"), ("B", "")]
    assert command.get("unset") == ["C"] and command.get("cwd") == "/b"


def test_option_that_was_not_given_is_not_there():
    command = parse(["start"])
    assert command.options == {} and command.get("env") is None
    assert command.get("env", []) == []


def test_detached_start_is_a_start():
    assert parse(["new", "-d"]).verb == "start"
    assert parse(["run", "-d", "x"]).get("detached") is True


@pytest.mark.parametrize("argv, message", [
    (["start", "--nmae", "x"], "unknown option of start: --nmae (nearest: --name)"),
    (["start", "--nmae=x"], "unknown option of start: --nmae (nearest: --name)"),
    (["ls", "-json"], "unknown option of ls: -json (nearest: --json)"),
    (["ls", "-j"], "unknown option of ls: -j (nearest: --json)"),
    (["ls", "-ax"], "unknown option of ls: -ax"),
    (["ls", "-"], "unexpected argument of ls: -"),
    (["--drr", "x"], "unknown option: --drr (nearest: --dir)"),
    (["ls", "--json=1"], "--json takes no value: --json=1"),
    (["start", "--name"], "--name needs NAME"),
    (["start", "-n"], "-n needs NAME"),
    (["start", "--cwd", "--", "make"], "--cwd needs D"),
    (["start", "--cwd="], "--cwd: the value is empty"),
    (["start", "--cwd", ""], "--cwd: the value is empty"),
    (["daemon", "stop", "--sessions"], "--sessions needs keep|kill"),
    (["daemon", "stop", "--sessions", "x"], "--sessions: not one of keep, kill: x"),
    (["wait", "x", "--timeout", "soon"], "--timeout: not a duration: soon"),
    (["wait", "x", "--timeout", "--json"], "--timeout: not a duration: --json"),
    (["start", "--time", "5"], "unknown option of start: --time"),
])
def test_wrong_option_is_refused_by_name(argv, message):
    assert refusal(*argv).message.startswith(message)


def test_refusal_about_a_verb_hints_at_its_page():
    assert refusal("ls", "--bogus").hint == "ptyguard help ls"
    assert refusal("kill").hint == "ptyguard help kill"


# --- The child's argv ---------------------------------------------------------------

@pytest.mark.parametrize("argv, command", [
    (["start"], None),
    (["start", "--"], None),
    (["start", "--", "make", "-j4"], ["make", "-j4"]),
    (["start", "make", "-j4", "--json"], ["make", "-j4", "--json"]),
    (["run", "make", "--", "-x"], ["make", "--", "-x"]),
    (["run", "-e", "C-b d", "make"], ["make"]),
    (["run", "--", "--", ""], ["--", ""]),
    (["run", ""], [""]),
    (["run", "-"], ["-"]),
    (["ensure", "web"], None),
    (["ensure", "web", "serve", "--json"], ["serve", "--json"]),
    (["ensure", "web", "--json", "--", "-x"], ["-x"]),
    (["ensure", "-n", "web", "serve", "x"], ["serve", "x"]),
    (["attach", "web", "--create", "--", "sh", "-c", ""], ["sh", "-c", ""]),
    (["attach", "--create", "web", "--", "--create"], ["--create"]),
])
def test_command_of_the_child(argv, command):
    assert parse(argv).command == command


@given(st.lists(st.text().filter(lambda text: "\0" not in text), min_size=1))
def test_words_after_dash_dash_reach_the_child_untouched(tail):
    for head in (["start"], ["run", "-n", "x", "--json"], ["ensure", "x"],
                 ["attach", "x", "--create"]):
        assert parse([*head, "--", *tail]).command == tail


@given(st.lists(st.text().filter(lambda text: "\0" not in text)))
def test_words_after_the_commands_first_reach_the_child_untouched(tail):
    for head in (["start"], ["run", "--rm"], ["ensure", "x"]):
        assert parse([*head, "cmd", *tail]).command == ["cmd", *tail]


@given(st.lists(st.text().filter(lambda text: "\0" not in text), min_size=1))
def test_words_after_dash_dash_are_text_to_send(tail):
    command = parse(["send", "web", "--", *tail])
    assert command.args == tail and command.options == {}


def test_shell_line_and_command_exclude_each_other():
    assert options_of("run", "--shell", "a | b") == {"shell": "a | b"}
    assert refusal("run", "--shell", "x", "y").message == \
        "run takes --shell or CMD, not both"


def test_run_without_anything_to_run_is_refused():
    assert refusal("run", "-n", "x").message == "run needs CMD or --shell"
    assert refusal("run", "--").message == "run needs CMD or --shell"


def test_detached_run_refuses_what_only_a_present_run_can_do():
    assert "not both" in refusal("run", "-d", "--timeout", "5", "x").message
    assert "not both" in refusal("run", "-d", "--rm", "x").message


# --- Arguments ----------------------------------------------------------------------

@pytest.mark.parametrize("argv, names, args", [
    (["attach"], [], []),
    (["attach", "@k3"], ["@k3"], []),
    (["attach", "--", "web"], ["web"], []),
    (["detach", "a", "b"], ["a", "b"], []),
    (["wait", "a", "--json", "b"], ["a", "b"], []),
    (["kill", "--", "a", "b"], ["a", "b"], []),
    (["info"], [], []),
    (["send", "web", "a", "--enter", "", "b"], ["web"], ["a", "", "b"]),
    (["resize", "web", "80x24"], ["web"], ["80x24"]),
    (["version", "compare", "1", "2"], [], ["compare", "1", "2"]),
    (["ensure", "web"], ["web"], []),
    (["ensure", "-n", "web"], ["web"], []),
])
def test_arguments_are_names_or_others(argv, names, args):
    command = parse(argv)
    assert (command.names, command.args) == (names, args)


@pytest.mark.parametrize("argv, message", [
    (["has"], "has needs NAME"),
    (["send"], "send needs NAME"),
    (["send", "web"], "send needs TEXT, - or --enter"),
    (["send", "web", "--paste", "--enter"], "send takes --paste only with TEXT or -"),
    (["key"], "key needs NAME or --list"),
    (["key", "web"], "key needs KEY or --list"),
    (["key", "web", "--list"], "key takes --list or NAME, not both"),
    (["key", "web", "-lH", "41"], "key takes --hex or --literal, not both"),
    (["resize", "web"], "resize needs COLSxROWS"),
    (["ensure"], "ensure needs NAME"),
    (["ensure", "--", "web"], "ensure needs NAME"),
    (["kill"], "kill needs NAME or --all"),
    (["rm"], "rm needs NAME or --ended"),
    (["reconcile", "a"], "reconcile needs --live or --live-file"),
    (["attach", "--create"], "attach takes --create only with NAME"),
    (["version", "compare", "1"], "version compare needs A and B"),
    (["version", "match"], "version match needs A and B"),
    (["version", "satisfies", "1"], "version satisfies needs V and RANGE"),
])
def test_missing_argument_is_named(argv, message):
    assert refusal(*argv).message == message


@pytest.mark.parametrize("argv", [
    ["ls", "x"], ["info", "a", "x"], ["has", "a", "x"], ["attach", "a", "x"],
    ["attach", "--create", "a", "x"], ["log", "a", "x"], ["resize", "a", "80x24", "x"],
    ["status", "x"], ["daemon", "start", "x"], ["daemon", "stop", "x"],
    ["daemon", "restart", "x"], ["daemon", "log", "x"],
    ["version", "compare", "1", "2", "x"], ["help", "daemon", "stop", "x"],
])
def test_extra_argument_is_refused_by_name(argv):
    verb = VERBS.get(" ".join(argv[:2])) or VERBS[argv[0]]
    assert refusal(*argv).message == f"unexpected argument of {verb.name}: x"


def test_names_and_all_exclude_each_other():
    assert "not both" in refusal("kill", "a", "--all").message
    assert "not both" in refusal("rm", "a", "--ended").message
    assert options_of("kill", "--all") == {"all": True}
    assert options_of("rm", "--ended") == {"ended": True}
    assert "not both" in refusal("rm", "--ended", "--no-tombstone").message


def test_the_names_of_a_list_are_one_list_however_they_are_given():
    for argv in (["--live", "a", "b", "@idid"], ["--live=a", "--live=b", "--live", "@idid"],
                 ["--live", "a", "--", "b", "@idid"]):
        assert parse(["reconcile", *argv]).names == ["a", "b", "@idid"]
    assert "not both" in refusal("reconcile", "--live", "a", "--live-file", "f").message


def test_ensure_finds_its_name_in_either_spelling():
    for argv in (["ensure", "web"], ["ensure", "-n", "web"], ["ensure", "web", "-n", "web"]):
        command = parse(argv)
        assert command.names == ["web"] and command.get("name") == "web"
    assert "one name" in refusal("ensure", "web", "-n", "other").message


def test_the_word_that_a_verb_was_called_by_is_remembered():
    for word in ("key", "keys", "send-keys"):
        command = parse(["-q", word, "web", "ls -l", "Enter"])
        assert (command.verb, command.word) == ("key", word)
        assert (command.names, command.args) == (["web"], ["ls -l", "Enter"])
    assert parse(["daemon", "stop"]).word == "daemon stop"
    assert parse([]).word == ""


def test_keys_that_begin_with_a_dash_stand_behind_dash_dash_and_a_lone_one_anywhere():
    assert parse(["key", "web", "-", "--", "-", "--"]).args == ["-", "-", "--"]
    error = refusal("send-keys", "web", "-x")
    assert error.message == "unknown option of key: -x"
    assert error.hint == "put -- before text that begins with a dash"


def test_attach_takes_a_command_only_to_create():
    assert refusal("attach", "web", "--", "sh").message == \
        "attach takes CMD only with --create"


def test_dash_is_standard_input_before_dash_dash_and_text_after_it():
    assert options_of("send", "web", "-") == {"stdin": True}
    assert parse(["send", "web", "--", "-"]).args == ["-"]
    assert refusal("send", "web", "-", "x").message == "send takes - or TEXT, not both"


def test_send_of_an_unknown_option_tells_of_dash_dash():
    error = refusal("send", "web", "ls", "-l")
    assert error.message == "unknown option of send: -l"
    assert error.hint == "put -- before text that begins with a dash"


def test_enter_alone_is_something_to_send():
    assert options_of("send", "web", "--enter") == {"enter": True}
    assert parse(["send", "web", ""]).args == [""]


def test_resize_gives_its_size_as_numbers():
    assert parse(["resize", "web", "132x43"]).get("size") == (132, 43)
    assert refusal("resize", "web", "132").message == "not a terminal size: 132"


def test_wait_takes_a_text_and_then_silence_but_no_option_in_vain():
    assert options_of("wait", "x", "--for", "a", "--idle", "2") == {"for": ["a"], "idle": 2.0}
    assert "only with --for" in refusal("wait", "x", "--since", "now").message
    assert options_of("wait", "x", "--for", "a", "--since", "now") == \
        {"for": ["a"], "since": "now"}
    assert options_of("wait", "x", "--for", "a", "--screen", "b", "--screen", "c", "--for", "d") == \
        {"for": ["a", "d"], "screen": ["b", "c"]}
    assert "only with --for" in refusal("wait", "x", "--screen", "a", "--raw").message


def test_since_of_what_is_typed_belongs_to_what_is_waited_for():
    assert options_of("send", "x", "--wait-for", "a", "--since", "7", "b") == {"wait_for": "a", "since": 7}
    assert "only with --wait-for" in refusal("send", "x", "--since", "now", "b").message
    assert "only with --wait-for" in refusal("key", "x", "--since", "now", "b").message
    assert "not both" in refusal("key", "--list", "--wait-for", "a").message


def test_version_questions_are_checked():
    assert "nearest: compare" in refusal("version", "compaer", "1", "2").message
    assert "not both" in refusal("version", "--daemon", "match", "1", "2").message


# --- Values -------------------------------------------------------------------------

@pytest.mark.parametrize("text, seconds", [
    ("2", 2.0), ("2s", 2.0), ("500ms", 0.5), ("5m", 300.0), ("1h", 3600.0), ("0", 0.0),
    ("1.5h", 5400.0), (".5", 0.5), ("5.", 5.0),
])
def test_duration(text, seconds):
    assert usage.duration(text) == seconds and isinstance(usage.duration(text), float)


@pytest.mark.parametrize("text", [
    "", ".", "s", "-1", "+1", "1e3", "nan", "inf", "1_0", "1.2.3", "2 s", " 2", "2S", "2d",
    "\u0662", "\u00b2", "9" * 400, "9" * 308 + "h",
])
def test_what_is_no_duration_is_refused(text):
    with pytest.raises(UsageError, match="not a duration"):
        usage.duration(text)


@pytest.mark.parametrize("text, size", [
    ("80x24", (80, 24)), ("1x1", (1, 1)), ("65535x65535", (65535, 65535)), ("080x24", (80, 24)),
])
def test_terminal_size(text, size):
    assert usage.terminal_size(text) == size


@pytest.mark.parametrize("text", [
    "", "x", "80", "80x", "x24", "0x24", "80x0", "65536x1", "80x24x1", "-1x24", "80X24",
    "80 x24", "8\u0662x24", "1" * 5000 + "x1",
])
def test_what_is_no_terminal_size_is_refused(text):
    with pytest.raises(UsageError, match="not a terminal size"):
        usage.terminal_size(text)


@pytest.mark.parametrize("text, size", [
    ("64K", 65536), ("64k", 65536), ("1M", 1048576), ("1G", 1 << 30), ("1048576", 1048576),
])
def test_byte_size(text, size):
    assert usage.byte_size(text) == size


@pytest.mark.parametrize("text", ["", "K", "63K", "65535", "2G", "1T", "1.5M", "-1M", "1MB", "0"])
def test_what_is_no_byte_size_is_refused(text):
    with pytest.raises(UsageError, match="not a size"):
        usage.byte_size(text)


def test_offsets_and_counts():
    assert options_of("log", "x", "--since", str(2 ** 64 - 1)) == {"since": 2 ** 64 - 1}
    assert options_of("log", "x", "--tail", "0") == {"tail": 0}
    for wrong in ("-1", "now", "1K", "", str(2 ** 64), "9" * 5000):
        assert "not an output offset" in refusal("log", "x", "--since", wrong).message
    assert "not a number" in refusal("daemon", "log", "-n", "-5").message


@pytest.mark.parametrize("argv", [
    ["--env", "A"], ["--env", "=1"], ["--env="], ["--unset", "A=1"], ["--unset="]])
def test_what_is_no_variable_is_refused(argv):
    assert "--" in refusal("start", *argv).message


def test_nul_byte_is_refused_wherever_it_stands():
    for argv in (["a\0"], ["start", "--", "x\0y"], ["start", "--name=\0"]):
        assert "NUL" in refusal(*argv).message


def test_callers_word_cannot_write_on_the_terminal():
    """A message used to be able to carry an escape sequence from a script's variable."""
    for word in ("\x1b[2J", "a\nb", "\udc80", "two words"):
        assert repr(word) in refusal(word).message
    assert len(refusal("x" * 100000).message) < 200


# --- Anything -----------------------------------------------------------------------

KNOWN_WORDS = sorted(
    set(usage.BY_WORD) | set(usage.FAMILIES) | set(usage.VERSION_QUESTIONS)
    | {word for verb in VERBS.values() for option in verb.options + usage.GLOBALS
       for word in option.spellings}
    | {"--", "-", "", "x", "80x24", "5s", "now", "K=V", "64K", "keep", "-aq", "--json=1",
       "-nweb", "--name=web", "-xyz", "\0"})

ANY_TEXT = st.text(st.characters(), max_size=8)      # lone surrogates too: argv is bytes


@given(st.lists(st.sampled_from(KNOWN_WORDS) | ANY_TEXT, max_size=8))
@example(["version", "--", "compare"])
@example(["daemon", "daemon"])
def test_any_argv_is_understood_or_a_usage_error(argv):
    try:
        command = parse(argv)
    except UsageError as error:
        assert error.message and error.message.isprintable() and error.hint
    else:
        assert command.verb in VERBS or command.verb == "" or command.wants_help
        assert all(isinstance(key, str) for key in command.options)


@given(ANY_TEXT)
def test_any_text_is_a_value_or_a_usage_error(text):
    for convert in (usage.duration, usage.terminal_size, usage.byte_size, usage.offset_or_now,
                    usage.count, usage.assignment, usage.variable, usage.some_text):
        try:
            convert(text)
        except UsageError:
            pass


def test_reading_argv_loads_nothing_but_errors():
    """Every command pays for what is imported here."""
    script = ("import sys; before = set(sys.modules);"
              f"sys.path.insert(0, {ROOT!r});"
              "from ptyguard_core import usage; usage.parse(['ls', '-aq']);"
              "print(*sorted(set(sys.modules) - before))")
    out = subprocess.run([sys.executable, "-I", "-S", "-c", script], check=True,
                         stdout=subprocess.PIPE, universal_newlines=True).stdout
    assert out.split() == ["ptyguard_core", "ptyguard_core.errors", "ptyguard_core.usage"]
