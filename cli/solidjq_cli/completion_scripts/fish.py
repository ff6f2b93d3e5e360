"""Fish's completion script."""

from __future__ import annotations

from solidjq_cli.command_tree import Command, Value
from solidjq_cli.completion_scripts.parts import GENERATED, function_name, positions

_FUNCTIONS = r"""
# Prints the commands in the line as far as the cursor, and the number of the argument that comes next.
function __NAME_place
    set -l path PROGRAM
    set -l place 1
    set -l awaited no
    set -l only_arguments no
    set -l words (commandline -opc)
    while string match -qr '^\w+=' -- $words[1] # variables set for this command alone
        set -e words[1]
    end
    for word in $words[2..-1]
        if test $awaited = yes
            set awaited no
        else if test $only_arguments = yes; or not string match -q -- '-?*' $word
            if __NAME_group $path
                set path "$path $word"
                set only_arguments no
            else
                set place (math $place + 1)
            end
        else if test $word = --
            set only_arguments yes
        else if string match -q -- '--*' $word # with = it is no option's name, and nothing is awaited
            __NAME_takes $path $word; and set awaited yes
        else # short options in one word: the first with a value takes the rest, or the next word
            set -l letters (string split '' -- (string sub -s 2 -- $word))
            for i in (seq (count $letters))
                if __NAME_takes $path -$letters[$i]
                    test $i = (count $letters); and set awaited yes
                    break
                end
            end
        end
    end
    echo $path
    echo $place
end

# Is the cursor behind this command?
function __NAME_at
    set -l place (__NAME_place)
    test "$place[1]" = "$argv"
end

# Is it at an argument from number $argv[1] to $argv[2] (or - for any) of the command that follows?
function __NAME_argument
    set -l place (__NAME_place)
    test "$place[1]" = "$argv[3..-1]"
    and test $place[2] -ge $argv[1]
    and begin
        test $argv[2] = -
        or test $place[2] -le $argv[2]
    end
end

# The values of the kind $argv[1], as the program finds them in the database. Fish quotes what it inserts.
function __NAME_values
    set -l words (commandline -opc)
    while string match -qr '^\w+=' -- $words[1]
        set -e words[1]
    end
    set -l word (string unescape -- (string replace -r '^--[\w-]+=' '' -- (commandline -ct)))
    $words[1] __complete fish $argv[1] "$word" -- $words[2..-1] 2>/dev/null </dev/null
end

complete -c PROGRAM -f
"""


def write(root: Command) -> str:
    """Return the script for the commands below ``root``."""
    program = root.path[0]
    name = function_name(program)
    groups = " ".join(_quote(" ".join(command.path)) for command in root.all() if command.commands)
    return (
        f"# Fish completion for {program}. {GENERATED}\n\n"
        "# Has this command commands below it?\n"
        f"function __{name}_group\n    contains -- $argv[1] {groups}\nend\n\n"
        "# Does the option $argv[2] of the command $argv[1] take a value?\n"
        f"function __{name}_takes\n    switch $argv[1]\n{''.join(_case(each) for each in root.all())}"
        "        case '*'\n            false\n    end\nend\n"
        + _FUNCTIONS.replace("PROGRAM", program).replace("NAME", name)
        + "".join(f"\n{_command(command, name)}" for command in root.all())
    )


def _case(command: Command) -> str:
    names = " ".join(name for option in command.options if option.value for name in option.names)
    if not names:
        return ""
    return f"        case {_quote(' '.join(command.path))}\n            contains -- $argv[2] {names}\n"


def _command(command: Command, name: str) -> str:
    path = " ".join(command.path)
    start = f"complete -c {command.path[0]} -n"
    lines = [
        f"{start} '__{name}_argument 1 1 {path}' -a {each.path[-1]} -d {_quote(each.summary)}"
        for each in command.commands
    ]
    for argument, first, last in positions(command.arguments):
        if argument.value.choices or argument.value.is_path or argument.value.kind:
            where = f"'__{name}_argument {first} {last or '-'} {path}'"
            lines.append(f"{start} {where} {_takes(argument.value, name)} -d {_quote(argument.help)}")
    for option in command.options:
        names = " ".join(_option_name(each) for each in option.names)
        takes = f" -r {_takes(option.value, name)}" if option.value else ""
        lines.append(f"{start} '__{name}_at {path}' {names}{takes} -d {_quote(option.help)}")
    return "".join(f"{line}\n" for line in lines)


def _option_name(name: str) -> str:
    if name.startswith("--"):
        return f"-l {name[2:]}"
    return f"-s {name[1:]}" if len(name) == 2 else f"-o {name[1:]}"  # noqa: PLR2004  (a dash and a letter)


def _takes(value: Value, name: str) -> str:
    if value.choices:
        return f"-f -k -a {_quote(' '.join(value.choices))}"
    if value.kind:
        return f"-f -k -a '(__{name}_values {value.kind})'"
    return "-F" if value.is_path else "-f"


def _quote(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"
