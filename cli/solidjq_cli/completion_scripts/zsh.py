"""Zsh's completion script."""

from __future__ import annotations

import re
from textwrap import indent

from solidjq_cli.command_tree import Command, Option, Value
from solidjq_cli.completion_scripts.parts import GENERATED, PROGRAMS, function_name, positions

_VALUES = r"""
# Offers the values of the kind that the last argument names, as the program finds them in the database.
_NAME_values() {
  local -a values shown
  local line
  for line in ${(f)"$("$_NAME_words[1]" __complete zsh "${@[-1]}" "${(Q)PREFIX}" -- "${(@)_NAME_words[2,-1]}" \
    2>/dev/null </dev/null)"}; do
    values+=("${line%%$'\t'*}")
    shown+=("${line/$'\t'/  }")
  done
  (( $#values )) && compadd "${@[1,-2]}" -l -d shown -a -- values
}
""".lstrip()


def write(root: Command) -> str:
    """Return the script for the commands below ``root``."""
    programs = " ".join(PROGRAMS if root.path[0] in PROGRAMS else root.path)
    entry = f"_{function_name(*root.path)}"
    functions = "\n".join(_function(command, function_name(root.path[0])) for command in root.all())
    return (
        f"#compdef {programs}\n# Zsh completion. {GENERATED}\n\n"
        f"{_VALUES.replace('NAME', function_name(root.path[0]))}\n{functions}\n"
        "# This file is a function's body when compinit finds it, and a script when it is sourced.\n"
        f'if [[ $zsh_eval_context[-1] == loadautofunc ]]; then\n  {entry} "$@"\n'
        f"else\n  compdef {entry} {programs}\nfi\n"
    )


def _function(command: Command, name: str) -> str:
    specs = [_option(option, name) for option in command.options]
    if command.commands:
        specs += ["'1: :->command'", "'*:: :->rest'"]
    for argument, first, last in positions(command.arguments):
        # A message, as for options, would keep the shell from completing an option in this place.
        action = _action(argument.value, name, text="()")
        places = [f"{place}" for place in range(first, last + 1)] if last else ["*"]
        specs += [_quote(f"{place}{action}") for place in places]
    flags = "-C -s -S" if command.commands else "-s -S"
    arguments = f"_arguments {flags}" + "".join(f" \\\n  {spec}" for spec in specs)
    body = _group(command, arguments) if command.commands else arguments
    if len(command.path) == 1:  # the words of the whole line: those of a command's function begin with the command
        body = f'local -a _{name}_words=("${{(@Q)words[1,CURRENT-1]}}")\n{body}'
    return f"_{function_name(*command.path)}() {{\n{indent(body, '  ')}\n}}\n"


def _group(command: Command, arguments: str) -> str:
    described = "\n".join(f"      {_quote(f'{each.path[-1]}:{each.summary}')}" for each in command.commands)
    rest = "\n".join(f"      {each.path[-1]}) _{function_name(*each.path)} && found=0 ;;" for each in command.commands)
    return (
        'local curcontext="$curcontext" state line found=1\nlocal -a state_descr commands\ntypeset -A opt_args\n'
        f"{arguments} && found=0\n"
        "case $state in\n"
        f"  command)\n    commands=(\n{described}\n    )\n"
        "    _describe -t commands command commands && found=0\n    ;;\n"
        "  rest) # with the -- in front, if there was one\n"
        "    [[ $words[1] != -- ]] || { shift words; (( CURRENT-- )) }\n"
        f"    case $line[1] in\n{rest}\n    esac\n    ;;\n"
        "esac\nreturn found"
    )


def _option(option: Option, name: str) -> str:
    names = [_option_name(name, option) for name in option.names]
    others = f"({' '.join(option.names)})" if len(names) > 1 else ""
    before = "*" if option.repeatable else others
    after = f"[{_escape(option.help, '[]')}]{_action(option.value, name) if option.value else ''}"
    if len(names) == 1:
        return _quote(f"{before}{names[0]}{after}")
    return f"{_quote(before)}{{{','.join(names)}}}{_quote(after)}"


def _option_name(name: str, option: Option) -> str:
    """Mark how a value may follow: as --name=VALUE or -nVALUE, or in both cases as the next word."""
    if not option.value:
        return name
    return f"{name}=" if name.startswith("--") else f"{name}+"


def _action(value: Value, name: str, *, text: str = " ") -> str:
    """Say what is completed; ``text`` is what stands for free text: a blank makes zsh show the metavar."""
    action = "_files" if value.is_path else f"_{name}_values {value.kind}" if value.kind else text
    if value.choices:
        action = f"({' '.join(_escape(choice, ' :()') for choice in value.choices)})"
    return f":{_escape(value.metavar, ':')}:{action}"


def _quote(text: str) -> str:
    return "'" + text.replace("'", r"'\''") + "'"


def _escape(text: str, special: str) -> str:
    return re.sub(rf"([\\{re.escape(special)}])", r"\\\1", text)
