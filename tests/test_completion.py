"""Completion in the real shells: what TAB offers is what usage.parse would take.

bash is asked through its completion function, as readline calls it, and by keys in a
terminal; zsh in a terminal, with `compadd` told to write down what it is given; fish by its
own `complete -C`.  A shell that is not installed is skipped by name.
"""

import os
import re
import shlex
import shutil
import subprocess

import pytest

from ptyguard_core import completion, usage
from world import LIMIT_S, MEMORY, World, wait_until

SHELLS = ("bash", "zsh", "fish")
VISIBLE = [verb for verb in usage.VERBS.values() if not getattr(verb, "hidden", False)]


class ShellWorld(World):
    """A world with `ptyguard`, `ptyguard.pyz` and one program, `zz-program`, on its path."""

    def __init__(self):
        super().__init__(under=MEMORY)
        self.bin = os.path.join(self.directory, "bin")
        self.home = os.path.join(self.directory, "home")
        os.makedirs(os.path.join(self.home, "sub dir", "inner"))
        self.write("home/a-file", "")
        program = [self.program[0], "-I", "-S", *self.program[1:]]
        ptyguard = "exec " + " ".join(map(shlex.quote, program)) + ' "$@"'
        for name, line in (("ptyguard", ptyguard), ("ptyguard.pyz", ptyguard), ("zz-program", ":")):
            os.chmod(self.write("bin/" + name, f"#!/bin/sh\n{line}\n"), 0o700)
        self.env.update(HOME=self.home, ZDOTDIR=self.home, PATH=self.bin + ":" + os.defpath,
                        XDG_CONFIG_HOME=os.path.join(self.home, ".config"),
                        XDG_DATA_HOME=os.path.join(self.home, ".local"), LC_ALL="C.UTF-8")

    def write(self, name, text):
        """A file in this world's directory; its path."""
        path = os.path.join(self.directory, name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "w") as file:
            file.write(text)
        return path

    def script(self, shell):
        """The file that `ptyguard completion` makes for it."""
        done = self.run("completion", shell, check=0)
        return self.write("completion." + shell, done.stdout.decode())


class Bash:
    """bash, whose completion function is called as readline does."""

    _ASK = r"""
spec=$(complete -p ptyguard)
function=${spec##*-F }
function=${function%% *}
ask() {
    COMP_LINE=$1 COMP_POINT=${#1} COMPREPLY=()
    shift
    COMP_WORDS=("$@") COMP_CWORD=$(($# - 1))
    "$function" "$1" "${COMP_WORDS[COMP_CWORD]}"
    printf '%s\n' "${COMPREPLY[@]}" --end--
}
"""

    def __init__(self, world, program):
        self.world = world
        self.program = program

    def replies(self, *lines):
        """What is offered at the end of each of these lines."""
        text = f"source {self.world.script('bash')}\n{self._ASK}"
        text += "".join(f"ask {shlex.quote(line)} {' '.join(map(shlex.quote, self._words(line)))}\n"
                        for line in lines)
        done = subprocess.run([self.program, "--norc", "--noprofile", "-c", text], cwd=self.world.home,
                              env=self.world.env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              stderr=subprocess.PIPE, timeout=LIMIT_S)
        assert (done.returncode, done.stderr) == (0, b"")
        return [[word for word in part.split("\n") if word]
                for part in done.stdout.decode().split("--end--\n")[:-1]]

    @staticmethod
    def _words(line):
        """As readline splits them: at blanks, and around `=` and `:`."""
        words = []
        for word in line.split(" "):
            words += [part for part in word.replace("=", "\0=\0").replace(":", "\0:\0").split("\0")
                      if part] or [""]
        return words


class Zsh:
    """zsh in a terminal; `compadd` writes down what matches."""

    _SETUP = r"""
PS1='> ' PS2= LISTMAX=100000
unset zle_bracketed_paste
autoload -Uz compinit && compinit -D -u
source SCRIPT
hits=()
capture() {
    compadd() {
        if [[ ${@[1,(i)(-|--)]} == *-(O|A|D)\ * ]]; then
            builtin compadd "$@"
            return
        fi
        local -a found
        builtin compadd -A found "$@"
        hits+=("$IPREFIX"$^found)
        builtin compadd "$@"
    }
    _main_complete
    unfunction compadd
}
zle -C capture list-choices capture
ask() {
    hits=()
    zle capture
    print -rl -- $hits --end-- >>ANSWERS
    BUFFER=
}
zle -N ask
bindkey '^T' ask
tell() {
    print -r -- "$BUFFER|" >>ANSWERS
    BUFFER=
}
zle -N tell
bindkey '^G' tell
print -r -- --end-- >>ANSWERS
"""

    def __init__(self, world, program, setup=None):
        self.world = world
        self.answers = os.path.join(world.directory, f"answers.{os.urandom(4).hex()}")
        text = (setup or self._SETUP).replace("SCRIPT", world.script("zsh"))
        setup = world.write("setup.zsh", text.replace("ANSWERS", self.answers))
        env = dict(world.env, PWD=world.home)
        self.terminal = world.terminal(program=["sh", "-c", 'cd "$HOME"; exec "$@"', "sh", program,
                                                "-f", "-i"], size=(200, 1000), env=env)
        self.terminal.expect(rb"\S *$")
        self.terminal.send(f"source {setup}\r".encode())
        self._wait_for_end(1)

    def _text(self):
        try:
            with open(self.answers) as file:
                return file.read()
        except FileNotFoundError:
            return ""

    def _wait_for_end(self, count):
        def has_answered():
            while self.terminal.read_more(0):
                pass
            return self._text().count("--end--\n") >= count
        wait_until(has_answered, "zsh's answer")

    def replies(self, *lines):
        """What is offered at the end of each of these lines."""
        before = self._text().count("--end--\n")
        for at, line in enumerate(lines, 1):
            self.terminal.send(line.encode() + b"\x14")
            self._wait_for_end(before + at)
        return [[word for word in part.split("\n") if word]
                for part in self._text().split("--end--\n")[before:-1]]


class Fish:
    """fish, by `complete -C`."""

    def __init__(self, world, program, *options):
        self.world = world
        self.program = program
        self.options = options

    def replies(self, *lines):
        """What is offered at the end of each of these lines."""
        text = f"source {self.world.script('fish')}\ncd $HOME\n"
        text += "".join(f"complete -C {shlex.quote(line)}\necho -- --end--\n" for line in lines)
        done = subprocess.run([self.program, *self.options, "-c", text], env=self.world.env,
                              stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              stderr=subprocess.PIPE, timeout=LIMIT_S)
        assert (done.returncode, done.stderr) == (0, b"")
        return [[word.partition("\t")[0] for word in part.split("\n") if word]
                for part in done.stdout.decode().split("--end--\n")[:-1]]


KINDS = {"bash": Bash, "zsh": Zsh, "fish": Fish}


def installed(name):
    program = shutil.which(name)
    if program is None:
        pytest.skip(f"{name} is not installed")
    return program


@pytest.fixture(scope="module")
def world():
    """Two sessions that live and one that has ended."""
    with ShellWorld() as made:
        for name in ("build", "web.1"):
            made.run("start", "-n", name, "--", "sleep", "100000", check=0)
        made.run("start", "-n", "over", "--", "true", check=0)
        made.run("wait", "over", check=0)
        yield made


@pytest.fixture(scope="module", params=SHELLS)
def shell(request, world):
    return KINDS[request.param](world, installed(request.param))


# --- The tables -------------------------------------------------------------------------

def test_the_shells_of_the_manual_are_those_that_scripts_can_be_made_for():
    for shell in usage.SHELLS:
        assert completion.script(shell)
    assert usage.SHELLS == SHELLS


def test_it_is_known_of_every_value_and_argument_what_it_is():
    for verb in usage.VERBS.values():
        for option in verb.options + usage.GLOBALS:
            assert not option.value or option.choices or option.value in completion.VALUE_KINDS
        for argument in verb.arguments:
            assert argument.choices or argument.name in completion.ARGUMENT_KINDS
    assert completion.LIVE_ONLY <= set(usage.VERBS)


def test_no_mark_is_left_in_a_script():
    for shell in SHELLS:
        assert not re.search("@[A-Z]+@", completion.script(shell))


def test_another_shell_is_a_usage_error_that_names_the_three(world):
    done = world.run("completion", "tcsh", check=2)
    assert done.stdout == b"" and b"bash, zsh, fish" in done.stderr and b"tcsh" in done.stderr
    assert b"bash|zsh|fish" in world.run("completion", check=2).stderr


def test_the_script_for_bash_is_clean_for_shellcheck(world):
    done = subprocess.run([installed("shellcheck"), "-s", "bash", world.script("bash")],
                          stdout=subprocess.PIPE, timeout=LIMIT_S)
    assert (done.returncode, done.stdout) == (0, b"")


# --- Words ------------------------------------------------------------------------------

def first_words():
    return {verb.name.split()[0] for verb in VISIBLE}


def members(family):
    return {verb.name.split()[1] for verb in VISIBLE if verb.name.split()[0] == family}


def options_at(verb):
    """What may be said there that begins with a dash and is not hidden."""
    meant = {}
    for option in usage.GLOBALS + (verb.options if verb else ()):
        meant.update(dict.fromkeys(option.spellings, option))
    return {spelling for spelling, option in meant.items() if not getattr(option, "hidden", False)}


def test_every_verb_is_offered_and_nothing_else(shell):
    families = list(usage.FAMILIES)
    first, *others = shell.replies("ptyguard ", *(f"ptyguard {family} " for family in families))
    assert sorted(first) == sorted(first_words())
    assert [set(words) for words in others] == [members(family) for family in families]


def test_every_visible_option_of_every_verb_is_offered_and_no_hidden_one(shell):
    replies = shell.replies("ptyguard -", *(f"ptyguard {verb.name} -" for verb in VISIBLE))
    assert set(replies[0]) == options_at(None) | {"--version"}
    for verb, words in zip(VISIBLE, replies[1:]):
        assert set(words) == options_at(verb), verb.name


def test_an_option_is_completed_after_other_options_and_names(shell):
    replies = shell.replies("ptyguard --no-start -v kill --gr", "ptyguard wait build --timeout 5 --id",
                            "ptyguard -q --dir x daemon stop --se", "ptyguard daemon log -n 5 --fol")
    assert replies == [["--grace"], ["--idle"], ["--sessions"], ["--follow"]]


def test_another_name_of_a_verb_is_offered_where_no_verb_fits_and_is_understood(shell):
    names = {alias: verb for verb in VISIBLE for alias in verb.aliases
             if alias in usage.BY_WORD and not alias.startswith("-")
             and not any(word.startswith(alias) for word in first_words())}
    assert "history" in names
    replies = shell.replies(*(f"ptyguard {name}" for name in names))
    assert all(name in words for name, words in zip(names, replies))
    replies = shell.replies(*(f"ptyguard {name} -" for name in names))
    assert [set(words) for words in replies] == [options_at(verb) for verb in names.values()]


def test_fish_needs_no_question_mark_that_matches_anything(world):
    # From fish 4 on it means itself alone.
    fish = Fish(world, installed("fish"), "--features=qmark-noglob")
    assert fish.replies("ptyguard --no-start -v kill --gr", "ptyguard run -n build zz-") == [
        ["--grace"], ["zz-program"]]


def test_where_a_verb_fits_its_other_names_are_not_in_the_way(shell):
    assert shell.replies("ptyguard att", "ptyguard daemon rest", "ptyguard zz", "ptyguard zz ",
                         "ptyguard daemon zz -") == [["attach"], ["restart"], [], [], []]


def test_hidden_names_of_verbs_are_understood_and_not_offered(shell):
    names = {alias: verb for verb in VISIBLE for alias in getattr(verb, "hidden_aliases", ())}
    shown = set(usage.BY_WORD) - set(names)
    replies = shell.replies(*(f"ptyguard {name}" for name in names))
    assert all(set(words) <= shown for words in replies)
    replies = shell.replies(*(f"ptyguard {name} -" for name in names))
    assert [set(words) for words in replies] == [options_at(verb) for verb in names.values()]


def test_values_that_are_a_choice_are_offered(shell):
    replies = shell.replies("ptyguard daemon stop --sessions ", "ptyguard completion ",
                            "ptyguard version ", "ptyguard attach -e ", "ptyguard kill --signal ",
                            "ptyguard wait build --for x --since n", "ptyguard start --size ")
    choices, shells, questions, keys, signals, since, size = map(set, replies)
    assert choices == {"keep", "kill"} and shells == set(SHELLS)
    assert questions == set(usage.VERSION_QUESTIONS)
    assert {"tmux", "none"} <= keys and {"INT", "TERM"} <= signals
    assert since == {"now"} and size == set()


def test_the_words_after_help_are_those_of_a_verb(shell):
    first, second, none = shell.replies("ptyguard help ", "ptyguard help daemon ",
                                        "ptyguard help attach ")
    assert set(first) == first_words() and set(second) == members("daemon")
    assert none == []


@pytest.mark.parametrize("name", ("zsh", "fish"))
def test_a_value_joined_to_its_option_is_offered_with_it(world, name):
    shell = KINDS[name](world, installed(name))
    assert sorted(shell.replies("ptyguard daemon stop --sessions=k")[0]) == [
        "--sessions=keep", "--sessions=kill"]


def test_bash_is_told_only_what_stands_behind_the_equals_sign(world):
    # readline takes `=` for the end of a word, and would double what stands before it.
    bash = Bash(world, installed("bash"))
    assert bash.replies("ptyguard daemon stop --sessions=k", "ptyguard daemon stop --sessions=",
                        "ptyguard run --env A=b:c --name=b") == [
        ["keep", "kill"], ["keep", "kill"], ["build"]]


# --- Sessions ---------------------------------------------------------------------------

LIVE, ALL = {"build", "web.1"}, {"build", "web.1", "over"}


def test_living_sessions_are_offered_where_only_they_will_do_and_all_elsewhere(shell):
    lines = {"attach ": LIVE, "attach -r ": LIVE, "a ": LIVE, "send ": LIVE, "kill ": LIVE,
             "detach ": LIVE, "ensure ": LIVE, "run -n ": LIVE, "ensure --name ": LIVE,
             "log ": ALL, "wait ": ALL, "rm ": ALL, "info ": ALL, "log --tail 5 ": ALL,
             "attach bu": {"build"}, "log ov": {"over"}, "attach ov": set()}
    replies = shell.replies(*("ptyguard " + line for line in lines))
    assert dict(zip(lines, map(set, replies))) == lines


def test_several_sessions_are_offered_one_after_the_other(shell):
    lines = {"kill build ": {"web.1"}, "wait build web.1 ": {"over"}, "detach build web.1 ": set(),
             "rm over b": {"build"}}
    replies = shell.replies(*("ptyguard " + line for line in lines))
    assert dict(zip(lines, map(set, replies))) == lines


def test_no_session_is_offered_where_no_name_is_wanted(shell):
    replies = shell.replies("ptyguard log build ", "ptyguard send build ", "ptyguard resize build ",
                            "ptyguard kill -- ", "ptyguard status ", "ptyguard run --timeout ",
                            "ptyguard wait --for ")
    assert not ALL & {word for words in replies for word in words}


def test_sessions_are_those_of_the_directory_on_the_line(shell):
    with World(under=MEMORY) as other:
        other.run("start", "-n", "elsewhere", "--", "sleep", "100000", check=0)
        there = other.env["PTYGUARD_DIR"]
        replies = shell.replies(f"ptyguard --dir {there} attach ", f"ptyguard attach --dir={there} ",
                                f"ptyguard attach --dir '{there}' e")
        assert replies == [["elsewhere"]] * 3


def test_whatever_the_program_is_called_as_it_is_that_which_is_asked(shell, world):
    lines = ("ptyguard.pyz att", "ptyguard.pyz attach bu", f"{world.bin}/ptyguard attach bu",
             f"{world.bin}/ptyguard.pyz attach bu", "../bin/ptyguard attach bu")
    assert shell.replies(*lines) == [["attach"]] + [["build"]] * 4


@pytest.mark.parametrize("name", SHELLS)
def test_where_no_daemon_runs_nothing_is_offered_and_nothing_started(name):
    with ShellWorld() as empty:
        shell = KINDS[name](empty, installed(name))
        assert shell.replies("ptyguard attach ", "ptyguard log x", "ptyguard run -n ",
                             "ptyguard att") == [[], [], [], ["attach"]]
        status = empty.run("status", check=1).stdout
        assert b"daemon:     stopped" in status and b"guard:      none" in status


@pytest.mark.parametrize("name", SHELLS)
def test_nothing_on_the_line_is_evaluated(name, world):
    shell = KINDS[name](world, installed(name))
    trap = os.path.join(world.home, "trap")
    for text in (f"$(touch${{IFS}}{trap})", f"`touch${{IFS}}{trap}`", f"'$(touch {trap})'"):
        shell.replies(f"ptyguard --dir {text} attach ", f"ptyguard {text} ", f"ptyguard kill {text} b")
    assert not os.path.exists(trap)


def test_a_directory_that_is_not_there_is_not_made(shell, world):
    assert shell.replies("ptyguard --dir new-one attach ", "ptyguard log --dir=new-one ") == [[], []]
    assert not os.path.exists(os.path.join(world.home, "new-one"))


# --- The words of CMD -------------------------------------------------------------------

COMMANDS = ["run -- ", "run ", "run -n build ", "run --rm -n build -- ", "run -nx ", "run --name=x ",
            "start --cwd / -- ", "start ", "ensure build ", "ensure -n build ", "ensure build -- ",
            "attach build --create -- "]
NO_COMMANDS = ["attach build ", "ensure ", "run -n ", "run --shell ", "send build ", "kill build ",
               "kill -- ", "ls "]


def test_where_cmd_begins_programs_are_offered(shell):
    for line in COMMANDS:       # the parser is of the same opinion
        assert usage.parse(line.split() + ["zz-program"]).command == ["zz-program"]
    replies = shell.replies(*(f"ptyguard {line}zz-" for line in COMMANDS))
    assert replies == [["zz-program"]] * len(COMMANDS)


def test_where_cmd_does_not_begin_no_program_is_offered(shell):
    replies = shell.replies(*(f"ptyguard {line}zz-" for line in NO_COMMANDS))
    assert replies == [[]] * len(NO_COMMANDS)


def test_the_words_after_cmd_are_completed_as_its_own(shell):
    lines = ["run -- cat a-f", "run cat a-f", "ensure build cat -- a-f",
             "attach build --create -- cat a-f"]
    replies = shell.replies(*(f"ptyguard {line}" for line in lines))
    assert replies == [["a-file"]] * len(lines)
    # An option of ours is none there.
    assert "--name" not in shell.replies("ptyguard run -- zz-program --na")[0]


# --- Files ------------------------------------------------------------------------------

def test_directories_are_offered_where_a_directory_is_wanted(shell):
    for option in ("--cwd", "--dir"):
        words = shell.replies(f"ptyguard start {option} ")[0]
        assert {word.rstrip("/").replace("\\", "") for word in words} == {"sub dir"}


def test_files_are_offered_where_a_file_is_wanted(shell):
    options = [(verb, option) for verb in VISIBLE for option in verb.options
               if completion.VALUE_KINDS.get(option.value) == "file"]
    for verb, option in options:
        words = shell.replies(f"ptyguard {verb.name} {option.spellings[-1]} a-")[0]
        assert words == ["a-file"]


def test_variables_are_offered_where_one_is_to_be_unset(shell):
    assert shell.replies("ptyguard start --unset XDG_CONFIG_H") == [["XDG_CONFIG_HOME"]]


# --- Keys -------------------------------------------------------------------------------

BASH_KEYS = [
    (b"ptyguard att\t", "ptyguard attach "),
    (b"ptyguard attach bui\t", "ptyguard attach build "),
    (b"ptyguard daemon stop --sessions=ke\t", "ptyguard daemon stop --sessions=keep "),
    (b"ptyguard daemon stop --sessions=\te\t", "ptyguard daemon stop --sessions=keep "),
    (b"ptyguard start --cwd su\t", "ptyguard start --cwd sub\\ dir/"),
    (b"ptyguard start --cwd sub\\ dir/i\t", "ptyguard start --cwd sub\\ dir/inner/"),
    (b"ptyguard start --cwd 'sub dir/i\t", "ptyguard start --cwd 'sub dir/inner'/"),
    (b"ptyguard start --cwd=~/su\t", "ptyguard start --cwd=~/sub\\ dir/"),
    (b"ptyguard run -- zz-p\ta-f\t", "ptyguard run -- zz-program a-file "),
    (b"ptyguard attach bui tail\x01" + b"\x1bf" * 3 + b"\t", "ptyguard attach build tail"),
    (b"true; ptyguard attach bui\t", "true; ptyguard attach build "),
    (b"X=1 ptyguard log build > a-\t", "X=1 ptyguard log build > a-file "),
]


def bash_lines(world, typed, before=""):
    """What bash makes of each of these, typed at its prompt."""
    told = world.write("told.bash", "")
    setup = world.write("setup.bash", f"""
PS1='> '
bind 'set bell-style none'; bind 'set enable-bracketed-paste off' 2>/dev/null
{before}
cd; source {world.script('bash')}
tell() {{ printf '%s|\\n' "$READLINE_LINE" >>{told}; READLINE_LINE=; READLINE_POINT=0; }}
bind -x '"\\C-g": tell'
""")
    terminal = world.terminal(program=[installed("bash"), "--noprofile", "--rcfile", setup, "-i"])
    terminal.expect(rb"> $")
    for at, line in enumerate(typed, 1):
        terminal.send(line + b"\x07")
        wait_for_lines(terminal, told, at)
    with open(told) as file:
        return file.read().split("|\n")[:-1]


def wait_for_lines(terminal, path, count):
    def are_there():
        while terminal.read_more(0):
            pass
        with open(path) as file:
            return file.read().count("|\n") >= count
    wait_until(are_there, f"line {count} in {path}")


def test_keys_complete_the_line_in_bash(world):
    assert bash_lines(world, [typed for typed, _ in BASH_KEYS]) == [line for _, line in BASH_KEYS]


def test_with_bash_completion_the_words_after_cmd_are_completed_by_its_rules(world):
    paths = [path for path in ("/usr/share/bash-completion/bash_completion",
                               "/usr/local/share/bash-completion/bash_completion",
                               "/opt/homebrew/share/bash-completion/bash_completion",
                               os.environ.get("BASH_COMPLETION_FILE", "")) if os.path.isfile(path)]
    if not paths:
        pytest.skip("bash-completion is not installed")
    keys = BASH_KEYS + [
        (b"ptyguard run -n x zz-program -\t", "ptyguard run -n x zz-program --of-zz "),
        (b"ptyguard run --env=A=b -- zz-p\t-\t", "ptyguard run --env=A=b -- zz-program --of-zz "),
        (b"ptyguard attach x --create -- zz-program a -\t",
         "ptyguard attach x --create -- zz-program a --of-zz "),
    ]
    rules = "_zz() { [[ $2 != -* ]] || COMPREPLY=(--of-zz); }; complete -o default -F _zz zz-program"
    lines = bash_lines(world, [typed for typed, _ in keys], f"source {paths[0]}; {rules}")
    assert lines == [line for _, line in keys]


ZSH_KEYS = [
    (b"ptyguard att\t", "ptyguard attach "),
    (b"ptyguard attach bui\t", "ptyguard attach build "),
    (b"ptyguard daemon stop --sessions=ke\t", "ptyguard daemon stop --sessions=keep "),
    (b"ptyguard start --cwd su\t", "ptyguard start --cwd sub\\ dir/"),
    (b"ptyguard start --cwd ~/su\t", "ptyguard start --cwd ~/sub\\ dir/"),
    (b"ptyguard run -- zz-p\ta-f\t", "ptyguard run -- zz-program a-file "),
]


def test_keys_complete_the_line_in_zsh(world):
    zsh = Zsh(world, installed("zsh"))
    before = zsh._text().count("|\n")
    for at, (typed, _) in enumerate(ZSH_KEYS, 1):
        zsh.terminal.send(typed + b"\x07")
        wait_for_lines(zsh.terminal, zsh.answers, before + at)
    assert zsh._text().split("--end--\n")[1].split("|\n")[:-1] == [line for _, line in ZSH_KEYS]


# --- Where the scripts are kept ----------------------------------------------------------

def test_the_one_line_of_the_manual_is_enough_in_bash(world):
    text = 'eval "$(ptyguard completion bash)"; complete -p ptyguard ptyguard.pyz'
    done = subprocess.run([installed("bash"), "-c", text], env=world.env, stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, timeout=LIMIT_S)
    assert done.stderr == b"" and done.stdout.count(b"-F _ptyguard ptyguard") == 2


def test_zsh_loads_the_script_as_a_file_in_fpath_or_without_compinit(world):
    installed("zsh")
    shutil.copy(world.script("zsh"), world.write("functions/_ptyguard", ""))
    setup = Zsh._SETUP.replace("source SCRIPT", "")
    as_file = Zsh(world, installed("zsh"), f"fpath=({world.directory}/functions $fpath)\n" + setup)
    assert as_file.replies("ptyguard att", "ptyguard attach bu", "ptyguard.pyz att") == [
        ["attach"], ["build"], ["attach"]]
    setup = Zsh._SETUP.replace("autoload -Uz compinit && compinit -D -u", "") \
                      .replace("source SCRIPT", "source <(ptyguard completion zsh)")
    assert Zsh(world, installed("zsh"), setup).replies("ptyguard att", "ptyguard attach bu") == [
        ["attach"], ["build"]]


def test_fish_finds_the_script_where_the_manual_puts_it(world):
    shutil.copy(world.script("fish"), world.write("home/.config/fish/completions/ptyguard.fish", ""))
    text = "complete -C 'ptyguard att'; complete -C 'ptyguard attach bu'"
    done = subprocess.run([installed("fish"), "-c", text], env=world.env, stdin=subprocess.DEVNULL,
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=LIMIT_S)
    assert [line.split(b"\t")[0] for line in done.stdout.splitlines()] == [b"attach", b"build"]
