"""The one line about a command line that cannot be used: what is wrong, what was meant, and which help to read."""

from __future__ import annotations

import re
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

from typer._click.core import ParameterSource
from typer._click.exceptions import BadParameter, ClickException, NoArgsIsHelpError, NoSuchOption, UsageError

from solidjq_cli.exits import say
from solidjq_cli.view import Output

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

MOST_SUGGESTIONS = 3
# How much alike two words are of which one may be a slip for the other, from 0 to 1. At 0.6, --json is like --version.
_ALIKE = 0.7
_EXTRA = re.compile(r"Got unexpected extra arguments?(?:\(s\))? \((.*)\)")
_FORMATS = tuple(output.value for output in Output)
_ANY_FORMAT = ("format", "yaml", "tsv", "jsonl", "jsonlines")
# Words of other programs for what a command does here. A name of a group's commands stands for all of them.
_MEANT = {
    "ls": "list",
    "get": "list",
    "describe": "show",
    "info": "show",
    "ps": "processes list",
    "workers": "processes list",
    "log": "history",
    "logs": "history",
    "events": "history",
    "rm": "discard",
    "delete": "discard",
    "requeue": "retry",
    "rerun": "retry",
    "redrive": "retry",
    "replay": "retry",
    "rollback": "undo",
    "revert": "undo",
    "audit": "operations list",
    "health": "doctor",
    "start": "work",
    "worker": "work",
    "run": "work",
    "push": "enqueue",
    "version": "--version",
    "completion": "completions",
    "topics": "help",
}


def report(error: ClickException) -> int:
    """Print in one line what is wrong with the command line, or the help of a group; return the exit code."""
    if isinstance(error, NoArgsIsHelpError):
        error.show()
        return error.exit_code
    context = error.ctx if isinstance(error, UsageError) else None
    if isinstance(error, BadParameter) and (variable := _variable(error)):
        error.param_hint = variable
    message = error.format_message().rstrip(".").replace(". Did you mean", "; did you mean")
    message = _EXTRA.sub(r"unexpected argument: \1", message)
    if isinstance(error, NoSuchOption):
        message = f"no such option: {error.option_name}"
        if hint := ", or ".join(_options_meant(error.option_name, context)):
            message += f"; did you mean {hint}?"
    message = f"{message[:1].lower()}{message[1:]}"
    help_of = f"{context.command_path} --help" if context is not None else "jq --help"
    say(f"{message}{' See' if message.endswith('?') else '; see'}: {help_of}")
    return error.exit_code


def name_commands(error: UsageError, word: str, commands: Mapping[str, Any]) -> None:
    """Name in the error about an unknown command those that may be meant: ``list`` stands in ``failed list``."""
    meant = _MEANT.get(word, word)
    below = [f"{group} {meant}" for group in commands if meant in getattr(commands[group], "commands", {})]
    if meant != word and meant in commands:
        below = [meant]
    if not below:
        below = [meant] if meant != word else get_close_matches(word, [*commands], MOST_SUGGESTIONS, _ALIKE)
    names = ", ".join(repr(name) for name in below[:MOST_SUGGESTIONS])
    error.message = f"no such command {word!r}" + (f"; did you mean {names}?" if names else "")


def _variable(error: BadParameter) -> str | None:
    """Return the environment variable that has the value which is wrong; None if it was typed."""
    param, context = error.param, error.ctx
    if param is None or param.name is None or context is None or not isinstance(param.envvar, str):
        return None
    return param.envvar if context.get_parameter_source(param.name) is ParameterSource.ENVIRONMENT else None


def _options_meant(typed: str, context: Any) -> Iterator[str]:
    """Yield what may be meant by an option that the command does not have."""
    if context is None:
        return
    own, root = _names(context.command), _names(context.find_root().command)
    name = typed.removeprefix("--")
    if "--output" in own and name in _FORMATS:
        yield f"-o {name}"
    elif "--output" in own and name in _ANY_FORMAT:
        yield f"-o {'|'.join(_FORMATS)}"
    elif context.parent is None and name in (*_FORMATS, *_ANY_FORMAT, "output"):
        yield "-o FORMAT behind the command, as in jq failed list -o json"
    elif typed in root:
        yield f"{typed} before the command, as in jq {typed} {context.command_path.partition(' ')[2]}"
    elif alike := _alike(typed, own):
        yield from alike
    else:
        yield from (f"{each} before the command" for each in _alike(typed, root))


def _alike(typed: str, names: Iterable[str]) -> list[str]:
    names = [name for name in names if name.startswith("--")]
    begun = [name for name in names if len(typed) > len("--") and name.startswith(typed)]
    bare = {name.replace("-", ""): name for name in names}
    if (same := bare.get(typed.replace("-", ""))) is not None:
        return [same]
    return (begun or get_close_matches(typed, names, MOST_SUGGESTIONS, _ALIKE))[:MOST_SUGGESTIONS]


def _names(command: Any) -> list[str]:
    return [name for param in command.params for name in (*param.opts, *param.secondary_opts)]
