r"""Completion: what a shell offers when TAB is pressed, as a script for bash, zsh or fish.

A script knows what `usage.VERBS` knows, because its tables are made from it: the
words of each verb, its options, and of each option and argument what kind of thing
it is.  Below its tables stands a reader, the same one in three languages, which goes
over the words before the cursor as `usage.parse` would.  So it finds where CMD
begins: from there on the words are another program's, and the shell completes them
as if they stood alone.

Rule 1: TAB changes nothing.  Only for the names of sessions a program is run: the one
    that stands on the line, with its --dir, and with --no-start.  What it complains of
    is not shown.
Rule 2: nothing that stands on the line is evaluated.
Rule 3: hidden verbs and options are understood and never offered; an alias is offered
    only where no verb's own name fits.

A kind is one word for all three shells:

    none                        nothing can be said about it
    directory, file, variable   what the shell knows of them
    root                        the directory that --dir names
    live, session               a living session; any that is known
    name                        of a living one, as an option: the next word begins CMD
    target                      the same, in the place of the first argument (tmux's -t)
    verb                        the words of a verb (`help daemon stop`)
    =one,two                    one of these
    kind+                       (of arguments) any number of them

Not handled: verbs and options that are quoted, a value glued to a short option (`-nNA`),
values that the shell would still expand (but for a leading ~/).

The file is long because three languages say the same.
"""

import textwrap

from ptyguard_core import usage
from ptyguard_core.detachkey import PRESETS
from ptyguard_core.keys import KEYS
from ptyguard_core.report import LIVING

PROGRAMS = "ptyguard ptyguard.pyz"

SIGNALS = ("HUP", "INT", "QUIT", "KILL", "USR1", "USR2", "TERM", "CONT", "STOP", "WINCH")

# What a value is, by the placeholder that the tables give it.
VALUE_KINDS = {
    "D": "directory", "FILE": "file", "F": "file", "NAME": "session", "K": "variable",
    "KEY": "=" + ",".join(PRESETS), "SIG": "=" + ",".join(SIGNALS), "OFFSET|now": "=now",
    "K=V": "none", "COLSxROWS": "none", "SIZE": "none", "LINE": "none", "S": "none",
    "N": "none", "OFFSET": "none", "REGEX": "none", "TEXT": "none", "WHAT": "=screen,none",
    "POLICY": "=never,on-failure,always,on-reboot",
}

# The same of an argument.
ARGUMENT_KINDS = {
    "NAME": "session", "VERB": "verb", "QUESTION": "=" + ",".join(usage.VERSION_QUESTIONS),
    "VERSION": "none", "TEXT": "none", "COLSxROWS": "none", "NEW": "none", "FILE": "file",
    "KEY": "=" + ",".join(key.names[0] for key in KEYS),
}

# Of what has ended these can make no use.
LIVE_ONLY = frozenset("start new run ensure attach detach has send key record resize kill".split())

BEGINNINGS = {usage.NO_COMMAND: "never", usage.AFTER_DASHES: "dashes",
              usage.AFTER_ARGUMENTS: "arguments"}


def script(shell):
    """The script for `shell`, which is one of usage.SHELLS."""
    return _WRITERS[shell]()


# --- What a script has to know ----------------------------------------------------------

class Facts:
    """Of one verb, or of the place before any verb: what may be said there."""

    def __init__(self, verb=None):
        own = verb.options if verb else ()
        meant = {spelling: option for option in usage.GLOBALS + own
                 for spelling in option.spellings}        # the verb's own wins, as for parse
        self.name = verb.name if verb else ""
        self.offered = [(spelling, option.help) for option in own + usage.GLOBALS
                        for spelling in option.spellings
                        if meant[spelling] is option and not is_hidden(option)]
        self.values = [f"{spelling}:{_value_kind(option, self.name)}"
                       for spelling, option in meant.items() if option.value]
        self.arguments = [_argument_kind(argument, self.name)
                          for argument in (verb.arguments if verb else ())
                          for _ in range(argument.most or 1)]
        self.begins = BEGINNINGS[verb.command if verb else usage.NO_COMMAND]


def is_hidden(thing):
    """Is this verb or option for those only who know it already?"""
    return getattr(thing, "hidden", False)


def _value_kind(option, verb_name):
    if option.choices:
        return "=" + ",".join(option.choices)
    if option in usage.GLOBALS and option.key == "dir":
        return "root"
    if option.key in ("name", "target"):
        return option.key
    return _of_verb(VALUE_KINDS.get(option.value, "none"), verb_name)


def _argument_kind(argument, verb_name):
    kind = ("=" + ",".join(argument.choices) if argument.choices
            else ARGUMENT_KINDS.get(argument.name, "none"))
    return _of_verb(kind, verb_name) + ("+" if argument.most is None else "")


def _of_verb(kind, verb_name):
    return "live" if kind == "session" and verb_name in LIVE_ONLY else kind


def _all_facts():
    places = [Facts()] + [Facts(verb) for verb in usage.VERBS.values()]
    places[0].offered += [pair for pair in _alias_words() if pair[0].startswith("-")]
    return places


def _visible_verbs():
    return [verb for verb in usage.VERBS.values() if not is_hidden(verb)]


def _meanings():
    """(words, verb) of every verb, hidden ones too."""
    return [([word for word, meant in usage.BY_WORD.items() if meant is verb], verb.name)
            for verb in usage.VERBS.values()]


def _own_words(family):
    """(word, summary) of the verbs of a family; of "" all first words."""
    if family:
        return [(verb.name.split()[1], verb.summary) for verb in _visible_verbs()
                if verb.name.split()[0] == family]
    singles = [(verb.name, verb.summary) for verb in _visible_verbs() if " " not in verb.name]
    return singles + [(name, ", ".join(word for word, _ in _own_words(name)))
                      for name in usage.FAMILIES if _own_words(name)]


def _alias_words():
    """(word, summary) of the other names that verbs have, in one word and not hidden."""
    return [(alias, verb.summary) for verb in _visible_verbs() for alias in verb.aliases
            if alias in usage.BY_WORD]


# --- The tables, for bash and zsh -------------------------------------------------------

def _sh_quoted(text):
    plain = text and all(c.isalnum() or c in "-_./:,+@" for c in text)
    return text if plain else "'" + text.replace("'", "'\\''") + "'"


def _sh_array(name, items):
    inside = " ".join(item.replace(" ", "\0") for item in map(_sh_quoted, items))
    lines = textwrap.wrap(inside, 88, break_long_words=False, break_on_hyphens=False)
    return f"            {name}=(" + "\n                ".join(lines).replace("\0", " ") + ")\n"


def _sh_tables(described):
    """The functions that set what is known.  `described`: words carry `:their meaning`."""
    def words(pairs):
        return [f"{word}:{meaning}" if described else word for word, meaning in pairs]

    meanings = "".join(f"        {'|'.join(map(_sh_quoted, spelled))}) verb='{verb}' ;;\n"
                       for spelled, verb in _meanings())
    meanings += "".join(f"        {family}) family='{family} ' ;;\n" for family in usage.FAMILIES)
    places = "".join(f"        {_sh_quoted(place.name)})\n"
                     + _sh_array("offered", words(place.offered))
                     + _sh_array("values", place.values)
                     + _sh_array("arguments", place.arguments)
                     + f"            begins={place.begins} ;;\n" for place in _all_facts())
    families = "".join(f"        '{family}{' ' if family else ''}')\n"
                       + _sh_array("offered", words(_own_words(family)))
                       + _sh_array("spare", words([] if family else _alias_words()))
                       + "            ;;\n" for family in ("",) + usage.FAMILIES)
    return _SH_TABLES.replace("@MEANINGS@", meanings).replace("@PLACES@", places) \
                     .replace("@FAMILIES@", families)


_SH_TABLES = r"""
# The verb, or the family of verbs, that the word $1 means.
_ptyguard_meaning() {
    case $family$1 in
@MEANINGS@        *) return 1 ;;
    esac
}

# What is known of the verb $1.
_ptyguard_about() {
    case $1 in
@PLACES@    esac
}

# The words that make a verb of the family $1; `spare` are its other names.
_ptyguard_words() {
    offered=() spare=()
    case $1 in
@FAMILIES@    esac
}
"""

# --- bash -------------------------------------------------------------------------------

_BASH = r"""# bash completion for ptyguard, made by `ptyguard completion bash`.  In ~/.bashrc:
#
#     eval "$(ptyguard completion bash)"
#
# For bash 4.0 and newer.  The words of CMD are completed by the rules of that command when
# the package bash-completion is loaded, else as commands and files.
# shellcheck shell=bash disable=SC2034
@TABLES@
# bash takes a=b apart at each of = : @.  Here `words` are whole again, up to the cursor;
# `starts` says where each begins in COMP_WORDS; `behind` is what readline will not replace.
_ptyguard_join() {
    local rest=${COMP_LINE:0:COMP_POINT} raw='' gap i at=-1
    for ((i = 0; i <= COMP_CWORD; i++)); do
        gap=${rest%%[![:space:]]*}
        rest=${rest#"$gap"}
        raw=${COMP_WORDS[i]}
        if ((i == COMP_CWORD)) && [[ $COMP_LINE ]]; then
            raw=$rest
        fi
        rest=${rest#"$raw"}
        if ((i > 0)) && [[ ! $gap ]] \
            && { _ptyguard_is_break "$raw" || _ptyguard_is_break "${COMP_WORDS[i - 1]}"; }; then
            words[at]+=$raw
        else
            words[++at]=$raw
            starts[at]=$i
        fi
    done
    cur=${words[at]}
    behind=${cur%"$raw"}
    if _ptyguard_is_break "$raw"; then
        behind=$cur
    fi
}

_ptyguard_is_break() {
    [[ $1 && ! ${1//[=:@]/} ]]
}

# The kind of value that the option $1 takes; fails when it takes none.
_ptyguard_kind() {
    local value
    for value in "${values[@]}"; do
        if [[ $value == "$1:"* ]]; then
            kind=${value#*:}
            return 0
        fi
    done
    return 1
}

# The value $2, of kind $1, has been given.
_ptyguard_note() {
    case $1 in
        root) root=${2//[\\\"\']/} ;;
        name) room=0 ;;
        target) named+=("$2") ;;
    esac
}

# An option, or a group of short ones, stands there: what it still wants is `pending`.
_ptyguard_option() {
    local i
    if [[ $1 == --*=* ]]; then
        _ptyguard_kind "${1%%=*}" && _ptyguard_note "$kind" "${1#*=}"
    elif [[ $1 == --* ]]; then
        _ptyguard_kind "$1" && pending=$kind
    else
        for ((i = 1; i < ${#1}; i++)); do
            if _ptyguard_kind "-${1:i:1}"; then
                pending=$kind
                break
            fi
        done
        if [[ $pending && ${1:i+1} ]]; then
            _ptyguard_note "$pending" "${1:i+1}"
            pending=
        fi
    fi
}

_ptyguard_begins_command() {
    [[ $begins == arguments ]] && ((${#named[@]} >= room))
}

# Go over the words before the cursor.  Fails when there is nothing left to say.
_ptyguard_read() {
    local at word last=$((${#words[@]} - 1))
    for ((at = 1; at < last; at++)); do
        word=${words[at]}
        if [[ $word == *[\<\>]* && ! ${word//[0-9<>&|]/} ]]; then
            pending='file'
        elif [[ $pending ]]; then
            _ptyguard_note "$pending" "$word"
            pending=
        elif [[ $word == -- ]]; then
            [[ $begins == never ]] || _ptyguard_command "${starts[at + 1]}"
            return 1
        elif [[ ! $verb ]] && _ptyguard_meaning "$word"; then
            _ptyguard_about "$verb"
            room=${#arguments[@]}
        elif [[ $word == -?* ]]; then
            _ptyguard_option "$word"
        elif [[ ! $verb ]]; then
            return 1
        elif _ptyguard_begins_command; then
            _ptyguard_command "${starts[at]}"
            return 1
        elif [[ $word != - ]]; then
            named+=("$word")
        fi
    done
}

# CMD begins at COMP_WORDS[$1].
_ptyguard_command() {
    behind=
    if declare -F _comp_command_offset >/dev/null; then
        _comp_command_offset "$1"
    elif declare -F _command_offset >/dev/null; then
        _command_offset "$1"
    elif (($1 == COMP_CWORD)); then
        _ptyguard_files -c
    else
        _ptyguard_files -f
    fi
}

# Reply with those of the words that begin as the current one does.
_ptyguard_reply() {
    local word
    for word in "$@"; do
        if [[ $word == "$cur"* ]]; then
            COMPREPLY+=("$word")
        fi
    done
}

# Reply with what `compgen $1` finds.
_ptyguard_files() {
    local line
    compopt -o filenames 2>/dev/null
    while IFS= read -r line; do
        if [[ $line ]]; then
            COMPREPLY+=("$line")
        fi
    done <<<"$(compgen "$1" -- "$cur")"
}

# Reply with the names of living sessions, or of all.
_ptyguard_sessions() {
    local program=${COMP_WORDS[0]} name state
    local -a ask
    if [[ $program == \~/* ]]; then
        program=$HOME/${program:2}
    fi
    program=$(type -P -- "$program") || program=ptyguard
    ask=("$program" --no-start)
    if [[ $root == \~/* ]]; then
        root=$HOME/${root:2}
    fi
    if [[ $root ]]; then
        [[ -d $root ]] || return 0
        ask+=(--dir "$root")
    fi
    if [[ $1 == session ]]; then
        while read -r name; do
            _ptyguard_session "$name"
        done <<<"$("${ask[@]}" ls -aq 2>/dev/null </dev/null)"
    else
        while read -r name state _; do
            case $state in
                @LIVING@) _ptyguard_session "$name" ;;
            esac
        done <<<"$("${ask[@]}" ls 2>/dev/null </dev/null)"
    fi
}

_ptyguard_session() {
    if [[ $1 && " ${named[*]} " != *" $1 "* ]]; then
        _ptyguard_reply "$1"
    fi
}

# Reply with a word of a verb; with another name of one only when none of these fits.
_ptyguard_verbs() {
    _ptyguard_words "$1"
    _ptyguard_reply "${offered[@]}"
    if ((${#COMPREPLY[@]} == 0)); then
        _ptyguard_reply "${spare[@]}"
    fi
}

# Reply with values of the kind $1.
_ptyguard_value() {
    local -a choices
    case $1 in
        =*)
            IFS=, read -r -a choices <<<"${1#=}"
            _ptyguard_reply "${choices[@]}" ;;
        root | directory) _ptyguard_files -d ;;
        file) _ptyguard_files -f ;;
        variable) _ptyguard_files -e ;;
        live | name | target) _ptyguard_sessions live ;;
        session) _ptyguard_sessions session ;;
        verb) _ptyguard_verbs "${named[0]:+${named[0]} }" ;;
    esac
}

# Reply for the word at the cursor.
_ptyguard_offer() {
    local at=${#named[@]}
    if [[ $pending ]]; then
        _ptyguard_value "$pending"
    elif [[ $cur == --*=* ]]; then
        local option=${cur%%=*}
        cur=${cur#*=}
        if _ptyguard_kind "$option"; then
            _ptyguard_value "$kind"
            COMPREPLY=("${COMPREPLY[@]/#/$option=}")
        fi
    elif [[ $cur == -* ]]; then
        _ptyguard_reply "${offered[@]}"
    elif [[ ! $verb ]]; then
        _ptyguard_verbs "$family"
    elif _ptyguard_begins_command; then
        _ptyguard_command "${starts[${#words[@]} - 1]}"
    elif ((at < ${#arguments[@]})); then
        _ptyguard_value "${arguments[at]%+}"
    elif [[ ${arguments[*]} == *+ ]]; then
        _ptyguard_value "${arguments[${#arguments[@]} - 1]%+}"
    else
        _ptyguard_reply "${offered[@]}"
    fi
}

_ptyguard() {
    local -a words=() starts=() named=() offered=() spare=() values=() arguments=()
    local cur='' behind='' verb='' family='' begins='' kind='' pending='' root='' room=0
    local IFS=$' \t\n'
    COMPREPLY=()
    _ptyguard_join
    _ptyguard_about ''
    if _ptyguard_read; then
        _ptyguard_offer
    fi
    COMPREPLY=("${COMPREPLY[@]#"$behind"}")
}

complete -F _ptyguard @PROGRAMS@
"""


# --- zsh --------------------------------------------------------------------------------

_ZSH = r"""#compdef @PROGRAMS@
# zsh completion for ptyguard, made by `ptyguard completion zsh`.  In ~/.zshrc, after compinit:
#
#     source <(ptyguard completion zsh)
#
# or kept as a file named _ptyguard in a directory of $fpath.
@TABLES@
# The kind of value that the option $1 takes; fails when it takes none.
_ptyguard_kind() {
    local value
    for value in $values; do
        if [[ $value == "$1":* ]]; then
            kind=${value#*:}
            return 0
        fi
    done
    return 1
}

# The value $2, of kind $1, has been given.
_ptyguard_note() {
    case $1 in
        root) root=$2 ;;
        name) room=0 ;;
        target) named+=("$2") ;;
    esac
}

# An option, or a group of short ones, stands there: what it still wants is `pending`.
_ptyguard_option() {
    local word=$1 i
    if [[ $word == --*=* ]]; then
        _ptyguard_kind "${word%%=*}" && _ptyguard_note $kind "${word#*=}"
    elif [[ $word == --* ]]; then
        _ptyguard_kind $word && pending=$kind
    else
        for ((i = 2; i <= $#word; i++)); do
            if _ptyguard_kind "-${word[i]}"; then
                pending=$kind
                break
            fi
        done
        if [[ -n $pending && -n ${word[i+1,-1]} ]]; then
            _ptyguard_note $pending "${word[i+1,-1]}"
            pending=
        fi
    fi
}

_ptyguard_begins_command() {
    [[ $begins == arguments ]] && (( $#named >= room ))
}

# Go over the words before the cursor.  Fails when there is nothing left to say.
_ptyguard_read() {
    local at word
    for ((at = 2; at < CURRENT; at++)); do
        word=${(Q)words[at]}
        if [[ -n $pending ]]; then
            _ptyguard_note $pending "$word"
            pending=
        elif [[ $word == -- ]]; then
            [[ $begins == never ]] || _ptyguard_command $((at + 1))
            return 1
        elif [[ -z $verb ]] && _ptyguard_meaning "$word"; then
            _ptyguard_about "$verb"
            room=$#arguments
        elif [[ $word == -?* ]]; then
            _ptyguard_option $word
        elif [[ -z $verb ]]; then
            return 1
        elif _ptyguard_begins_command; then
            _ptyguard_command $at
            return 1
        elif [[ $word != - ]]; then
            named+=("$word")
        fi
    done
}

# CMD begins at words[$1].
_ptyguard_command() {
    shift $(($1 - 1)) words
    ((CURRENT -= $1 - 1))
    _normal
}

# Offer the names of living sessions, or of all.
_ptyguard_sessions() {
    local program=${(Q)words[1]} line expl
    local -a ask names fields
    [[ $program == '~/'* ]] && program=$HOME/${program[3,-1]}
    program=$(whence -p -- $program) || program=ptyguard
    ask=($program --no-start)
    [[ $root == '~/'* ]] && root=$HOME/${root[3,-1]}
    if [[ -n $root ]]; then
        [[ -d $root ]] || return 1
        ask+=(--dir $root)
    fi
    if [[ $1 == session ]]; then
        names=(${(f)"$($ask ls -aq 2>/dev/null </dev/null)"})
    else
        for line in ${(f)"$($ask ls 2>/dev/null </dev/null)"}; do
            fields=(${=line})
            case $fields[2] in
                @LIVING@) names+=($fields[1]) ;;
            esac
        done
    fi
    names=(${names:|named})
    _wanted sessions expl session compadd -a names
}

# Offer the words of a verb; its other names only when none of these fits.
_ptyguard_verbs() {
    _ptyguard_words "$1"
    if [[ -z ${(M)offered:#$PREFIX*} ]]; then
        offered=($spare)
    fi
    _describe -t verbs verb offered
}

# Offer values of the kind $1.
_ptyguard_value() {
    local expl
    local -a choices
    case $1 in
        \=*)
            choices=(${(s:,:)1#=})
            _wanted values expl value compadd -a choices ;;
        root|directory) _directories ;;
        file) _files ;;
        variable) _parameters -g '*export*' ;;
        live|name|target) _ptyguard_sessions live ;;
        session) _ptyguard_sessions session ;;
        verb) _ptyguard_verbs "${named:+$named }" ;;
        *) return 1 ;;
    esac
}

# Offer what fits the word at the cursor.
_ptyguard_offer() {
    if [[ -n $pending ]]; then
        _ptyguard_value $pending
    elif [[ $PREFIX == --*=* ]]; then
        _ptyguard_kind ${PREFIX%%=*} || return 1
        compset -P 1 '*='
        _ptyguard_value $kind
    elif [[ $PREFIX == -* ]]; then
        _describe -o -t options option offered
    elif [[ -z $verb ]]; then
        _ptyguard_verbs "$family"
    elif _ptyguard_begins_command; then
        _ptyguard_command $CURRENT
    elif (( $#named < $#arguments )); then
        _ptyguard_value ${arguments[$#named + 1]%+}
    elif [[ $arguments[-1] == *+ ]]; then
        _ptyguard_value ${arguments[-1]%+}
    else
        _describe -o -t options option offered
    fi
}

_ptyguard() {
    local -a named offered spare values arguments
    local verb family begins kind pending root room=0
    _ptyguard_about ''
    _ptyguard_read && _ptyguard_offer
}

if [[ $funcstack[1] == _ptyguard ]]; then
    _ptyguard "$@"              # autoloaded, at its first use
else
    (( $+functions[compdef] )) || { autoload -Uz compinit && compinit -D -i }
    compdef _ptyguard @PROGRAMS@
fi
"""


# --- fish -------------------------------------------------------------------------------

def _fish_quoted(text):
    plain = text and all(c.isalnum() or c in "-_./:,+@=" for c in text)
    return text if plain else "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


def _fish_list(name, items):
    inside = " ".join(item.replace(" ", "\0") for item in items)
    lines = textwrap.wrap(inside, 88, break_long_words=False, break_on_hyphens=False)
    return f"            set {name} " + " \\\n                ".join(lines).replace("\0", " ") + "\n"


def _fish_tables():
    """The functions that set what is known, as those of _sh_tables."""
    def words(pairs):
        return [f"{_fish_quoted(word)}\\t{_fish_quoted(meaning)}" for word, meaning in pairs]

    meanings = "".join(f"        case {' '.join(map(_fish_quoted, spelled))}\n"
                       f"            set verb {_fish_quoted(verb)}\n" for spelled, verb in _meanings())
    meanings += "".join(f"        case {family}\n            set family '{family} '\n"
                        for family in usage.FAMILIES)
    places = "".join(f"        case {_fish_quoted(place.name)}\n"
                     + _fish_list("offered", words(place.offered))
                     + _fish_list("values", map(_fish_quoted, place.values))
                     + _fish_list("arguments", map(_fish_quoted, place.arguments))
                     + f"            set begins {place.begins}\n" for place in _all_facts())
    families = "".join(f"        case '{family}{' ' if family else ''}'\n"
                       + _fish_list("offered", words(_own_words(family)))
                       + _fish_list("spare", words([] if family else _alias_words()))
                       for family in ("",) + usage.FAMILIES)
    return _FISH_TABLES.replace("@MEANINGS@", meanings).replace("@PLACES@", places) \
                       .replace("@FAMILIES@", families)


_FISH_TABLES = r"""
# The verb, or the family of verbs, that the word $argv means; fails when it means none.
function __ptyguard_meaning --no-scope-shadowing
    switch "$family$argv[1]"
@MEANINGS@        case '*'
            return 1
    end
    return 0
end

# What is known of the verb $argv.
function __ptyguard_about --no-scope-shadowing
    switch $argv[1]
@PLACES@    end
end

# The words that make a verb of the family $argv; `spare` are its other names.
function __ptyguard_words --no-scope-shadowing
    set offered
    set spare
    switch $argv[1]
@FAMILIES@    end
end
"""

_FISH = r"""# fish completion for ptyguard, made by `ptyguard completion fish`:
#
#     ptyguard completion fish > ~/.config/fish/completions/ptyguard.fish
@TABLES@
# The kind of value that the option $argv takes; nothing when it takes none.
function __ptyguard_kind --no-scope-shadowing
    string replace -f -- "$argv[1]:" '' (string match -- "$argv[1]:*" $values)
end

# The value $argv[2], of kind $argv[1], has been given.
function __ptyguard_note --no-scope-shadowing
    switch "$argv[1]"
        case root
            set root (string replace -r '^~/' "$HOME/" -- $argv[2])
        case name
            set room 0
        case target
            set -a named $argv[2]
    end
end

# An option, or a group of short ones, stands there: what it still wants is `pending`.
function __ptyguard_option --no-scope-shadowing
    if string match -q -- '--*=*' $argv[1]
        set -l parts (string split -m 1 = -- $argv[1])
        set kind (__ptyguard_kind $parts[1])
        __ptyguard_note "$kind" $parts[2]
        return
    end
    if string match -q -- '--*' $argv[1]
        set pending (__ptyguard_kind $argv[1])
        return
    end
    set -l letters (string split '' -- (string sub -s 2 -- $argv[1]))
    set -l i 1
    while test $i -le (count $letters)
        set kind (__ptyguard_kind -$letters[$i])
        if test -n "$kind"
            if test $i -eq (count $letters)
                set pending $kind
            else
                __ptyguard_note $kind (string join '' -- $letters[(math $i + 1)..-1])
            end
            return
        end
        set i (math $i + 1)
    end
end

function __ptyguard_begins_command --no-scope-shadowing
    test "$begins" = arguments; and test (count $named) -ge $room
end

# Go over the words before the cursor.  Fails when there is nothing left to say.
function __ptyguard_read --no-scope-shadowing
    set -l at 2
    while test $at -le (count $words)
        set -l word $words[$at]
        if test -n "$pending"
            __ptyguard_note "$pending" $word
            set pending
        else if test "$word" = --
            if test "$begins" != never
                set -e words[1..$at]
                __ptyguard_command $words
            end
            return 1
        else if test -z "$verb"; and __ptyguard_meaning "$word"
            __ptyguard_about "$verb"
            set room (count $arguments)
        else if string match -qr -- '^-.' "$word"
            __ptyguard_option $word
        else if test -z "$verb"
            return 1
        else if __ptyguard_begins_command
            __ptyguard_command $words[$at..-1]
            return 1
        else if test "$word" != -
            set -a named "$word"
        end
        set at (math $at + 1)
    end
    return 0
end

# Offer what completes the word at the cursor behind $argv, the beginning of CMD.
function __ptyguard_command --no-scope-shadowing
    complete -C (string join ' ' -- (string escape -- $argv) "$cur")
end

# Offer the names of living sessions, or of all.
function __ptyguard_sessions --no-scope-shadowing
    set -l program (string replace -r '^~/' "$HOME/" -- $words[1])
    command -sq -- $program; or set program ptyguard
    set -l where
    if test -n "$root"
        test -d "$root"; or return
        set where --dir $root
    end
    set -l names
    if test $argv[1] = session
        set names (command $program --no-start $where ls -aq 2>/dev/null </dev/null)
    else
        for line in (command $program --no-start $where ls 2>/dev/null </dev/null)
            set -l fields (string split -n ' ' -- $line)
            if contains -- "$fields[2]" @LIVING@
                set -a names $fields[1]
            end
        end
    end
    for name in $names
        contains -- $name $named; or printf '%s\t%s\n' $name session
    end
end

# Offer the words of a verb; its other names only when none of these fits.
function __ptyguard_verbs --no-scope-shadowing
    __ptyguard_words "$argv[1]"
    if string match -q -- "$cur*" $offered
        printf '%s\n' $offered
    else
        printf '%s\n' $spare
    end
end

# Offer values of the kind $argv for the word $cur.
function __ptyguard_value --no-scope-shadowing
    switch "$argv[1]"
        case '=*'
            string split , -- (string sub -s 2 -- $argv[1])
        case root directory
            __fish_complete_directories "$cur"
        case file
            __fish_complete_path "$cur"
        case variable
            set -nx
        case live name target
            __ptyguard_sessions live
        case session
            __ptyguard_sessions session
        case verb
            set family $named
            test -n "$family"; and set family "$family "
            __ptyguard_verbs "$family"
    end
end

# Offer what fits the word at the cursor.
function __ptyguard_offer --no-scope-shadowing
    if test -n "$pending"
        __ptyguard_value $pending
    else if string match -q -- '--*=*' "$cur"
        set -l parts (string split -m 1 = -- $cur)
        set kind (__ptyguard_kind $parts[1])
        set cur $parts[2]
        for line in (__ptyguard_value "$kind")
            printf '%s=%s\n' $parts[1] $line
        end
    else if string match -q -- '-*' "$cur"
        printf '%s\n' $offered
    else if test -z "$verb"
        __ptyguard_verbs "$family"
    else if __ptyguard_begins_command
        __ptyguard_command
    else if test (count $named) -lt (count $arguments)
        __ptyguard_value (string trim -r -c + -- $arguments[(math (count $named) + 1)])
    else if string match -q -- '*+' $arguments[-1]
        __ptyguard_value (string trim -r -c + -- $arguments[-1])
    else
        printf '%s\n' $offered
    end
end

function __ptyguard_complete
    set -l words (commandline -opc)
    set -l cur (commandline -ct)
    set -l named
    set -l offered
    set -l spare
    set -l values
    set -l arguments
    set -l verb
    set -l family
    set -l begins
    set -l kind
    set -l pending
    set -l root
    set -l room 0
    __ptyguard_about ''
    __ptyguard_read; and __ptyguard_offer
end

for program in @PROGRAMS@
    complete -c $program -e
    complete -c $program -f -a '(__ptyguard_complete)'
end
"""


# --- Who writes which -------------------------------------------------------------------

def _filled(body, tables, living):
    return body.replace("@TABLES@", tables).replace("@PROGRAMS@", PROGRAMS) \
               .replace("@LIVING@", living)


def _bash():
    return _filled(_BASH, _sh_tables(described=False), " | ".join(LIVING))


def _zsh():
    return _filled(_ZSH, _sh_tables(described=True), "|".join(LIVING))


def _fish():
    return _filled(_FISH, _fish_tables(), " ".join(LIVING))


_WRITERS = {"bash": _bash, "zsh": _zsh, "fish": _fish}
