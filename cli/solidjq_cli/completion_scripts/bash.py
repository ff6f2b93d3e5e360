"""Bash's completion script."""

from __future__ import annotations

import shlex
from textwrap import indent

from solidjq_cli.command_tree import Command, Value
from solidjq_cli.completion_scripts.parts import GENERATED, function_name, positions

# Bash 3.2 can read it, and it needs nothing of the bash-completion package.
_FUNCTIONS = r"""
# Looks up the option in the word $1. If its value is in the same word, head is what stands before the value.
_NAME_option() {
    local i
    head=
    case $1 in
        --*=*)
            head=${1%%=*}=
            _NAME_takes "$path" "${1%%=*}"
            ;;
        -[!-]*) # short options in one word: the first with a value takes the rest, or the next word
            for ((i = 1; i < ${#1}; i++)); do
                _NAME_takes "$path" "-${1:i:1}"
                [[ -z $takes ]] || break
            done
            ((i + 1 >= ${#1})) || head=${1:0:i+1}
            ;;
        *) _NAME_takes "$path" "$1" ;;
    esac
}

_NAME_complete() {
    local commands options takes values head path='PROGRAM' place=1 awaited='' only_arguments=''
    local IFS=$' \t\n' line=${COMP_LINE:0:COMP_POINT} words=() word blank i last

    # COMP_WORDS is split at = : @ < > too. Here a word ends at a blank or behind a redirection.
    for ((i = 0; i <= COMP_CWORD; i++)); do
        word=${COMP_WORDS[i]}
        blank=${line%%[![:space:]]*}
        line=${line#"$blank"}
        ((i < COMP_CWORD)) || word=$line
        last=$((${#words[@]} - 1))
        if ((i == 0)) || [[ -n $blank || ${words[last]} == *[\<\>] ]]; then
            words+=("$word")
        else
            words[last]+=$word
        fi
        line=${line#"$word"}
    done
    last=$((${#words[@]} - 1))

    for ((i = 1; i < last; i++)); do
        word=${words[i]}
        if [[ -n $awaited ]]; then
            awaited=
        elif [[ $word == *[\<\>] ]]; then
            takes=file head= awaited=yes
        elif [[ $word == -- && -z $only_arguments ]]; then
            only_arguments=yes
        elif [[ $word == -?* && -z $only_arguments ]]; then
            _NAME_option "$word"
            [[ -z $takes || -n $head ]] || awaited=yes
        else
            _NAME_takes "$path"
            if [[ -n $commands ]]; then
                path+=" $word" only_arguments=
            else
                ((place++))
            fi
        fi
    done

    word=${words[last]}
    if [[ -z $awaited ]]; then
        head=
        if [[ $word == -* && -z $only_arguments ]]; then
            _NAME_option "$word"
            [[ -n $head ]] || takes=choice values=$options
        else
            _NAME_takes "$path" "$place"
            if [[ -n $commands ]]; then
                takes=choice values=$commands
            elif [[ -z $takes && -z $only_arguments ]]; then
                takes=choice values=$options
            fi
        fi
    fi

    word=${word#"$head"}
    [[ $head != *= || $COMP_WORDBREAKS != *=* ]] || head= # bash keeps what stands before the = itself
    case $takes in
        choice) COMPREPLY=($(compgen -P "$head" -W "$values" -- "$word")) ;;
        file) # left to readline, which knows how to quote; before bash 4 there is no compopt
            COMPREPLY=()
            compopt -o default 2>/dev/null || { IFS=$'\n'; COMPREPLY=($(compgen -P "$head" -f -- "$word")); }
            ;;
        values) _NAME_ask "$values" ;;
        *) COMPREPLY=() ;;
    esac
}

# Offers the values of the kind $1 that the program finds in the database, each quoted.
_NAME_ask() {
    local kept='' value i
    COMPREPLY=()
    [[ ${word//\\?/} != *[\'\"\`\$]* ]] || return 0 # in an open quote, other letters are special
    for i in : = @; do # bash keeps what stands before the last letter that it splits words at, and all of these but @
        [[ $COMP_WORDBREAKS == *$i* && $word == *$i* ]] || continue
        value=${word%"${word##*$i}"}
        [[ $i != @ ]] || value=${value%@}
        ((${#value} <= ${#kept})) || kept=$value
    done
    [[ -z $kept ]] || head=
    while IFS=$'\t' read -r value _; do
        printf -v value %q "$value"
        COMPREPLY+=("$head${value#"$kept"}")
    done < <("${words[0]}" __complete bash "$1" "$word" -- "${words[@]:1:last-1}" 2>/dev/null </dev/null)
}

complete -F _NAME_complete PROGRAM
"""


def write(root: Command) -> str:
    """Return the script for the commands below ``root``."""
    program = root.path[0]
    name = function_name(program)
    cases = "".join(_case(command) for command in root.all())
    return (
        f"# Bash completion for {program}. {GENERATED}\n\n"
        "# Says of the command $1 what it takes: its commands, its options, and what may stand behind the option $2\n"
        "# or as argument number $2.\n"
        f"_{name}_takes() {{\n    commands= options= takes= values=\n    case $1 in\n{cases}    esac\n}}\n"
        + _FUNCTIONS.replace("PROGRAM", program).replace("NAME", name)
    )


def _case(command: Command) -> str:
    lines = (
        [f"commands={shlex.quote(' '.join(each.path[-1] for each in command.commands))}"] if command.commands else []
    )
    lines.append(f"options={shlex.quote(' '.join(name for option in command.options for name in option.names))}")
    places = positions(command.arguments)
    takes: dict[str, list[str]] = {}
    for option in command.options:
        if option.value:
            takes.setdefault(_takes(option.value), []).extend(option.names)
    cases = [f"{' | '.join(names)}) {action} ;;" for action, names in takes.items()]
    cases += [f"{_places(first, last)}) {_takes(each.value)} ;;" for each, first, last in places]
    if cases:
        lines += ["case ${2-} in", *(f"    {case}" for case in cases), "esac"]
    body = indent("\n".join([*lines, ";;"]), " " * 12)
    return f"        {shlex.quote(' '.join(command.path))})\n{body}\n"


def _places(first: int, last: int | None) -> str:
    # The earlier places stand in earlier cases, so that any number is one of the rest.
    return "[1-9]*" if last is None else " | ".join(str(place) for place in range(first, last + 1))


def _takes(value: Value) -> str:
    if value.choices:
        return f"takes=choice values={shlex.quote(' '.join(value.choices))}"
    if value.kind:
        return f"takes=values values={value.kind}"
    return "takes=file" if value.is_path else "takes=text"
