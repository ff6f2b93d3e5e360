"""The commands, options and arguments of the program as plain data, for docs and completions."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from functools import cache
from typing import TYPE_CHECKING, Any

import typer.main

from solidjq_cli.app import app
from solidjq_cli.arguments import by_own_name
from solidjq_cli.command_list import COMMANDS
from solidjq_cli.topics import TOPICS

if TYPE_CHECKING:
    from collections.abc import Iterator


_TEXT_THAT_MAY_BE_A_PATH = {"database"}
# What the database, or jq.toml, has values for: options by their names, arguments by their metavars without brackets.
_KINDS = {
    **dict.fromkeys(("--queue", "--queue-as", "--quarantine", "QUEUE"), "queue"),
    **dict.fromkeys(("--queues", "--except"), "queues"),
    **dict.fromkeys(("--class", "--not-class", "CLASS"), "class"),
    **dict.fromkeys(("--incident", "INCIDENT"), "incident"),
    **dict.fromkeys(("OPERATION", "ID"), "operation"),
    **dict.fromkeys(("JOB", "A", "B"), "failed"),
    "--host": "host",
    "--group": "group",
    "--profile": "profile",
}
_OF_ANY_JOB = {"history", "jobs"}  # commands whose JOB need not have failed


@dataclass(frozen=True)
class Value:
    """What stands after an option, or as an argument."""

    metavar: str
    choices: tuple[str, ...] = ()
    is_path: bool = False
    kind: str | None = None  # whose values the program itself finds: see commands/complete.py


@dataclass(frozen=True)
class Option:
    """An option; a flag has no value."""

    names: tuple[str, ...]
    help: str
    value: Value | None = None
    default: str | None = None
    repeatable: bool = False


@dataclass(frozen=True)
class Argument:
    """An argument; its count is None if there may be any number of it."""

    value: Value
    help: str
    default: str | None = None
    required: bool = True
    count: int | None = 1


@dataclass(frozen=True)
class Command:
    """A command with everything that it takes; one with commands below it is a group."""

    path: tuple[str, ...]
    help: str
    options: tuple[Option, ...]
    arguments: tuple[Argument, ...]
    commands: tuple[Command, ...]

    @property
    def summary(self) -> str:
        """The first paragraph of the help."""
        return first_paragraph(self.help)

    def all(self) -> Iterator[Command]:
        """Yield this command and those below it, in the order of --help."""
        yield self
        for command in self.commands:
            yield from command.all()


def first_paragraph(text: str) -> str:
    """Return the first paragraph of a help text, as one line."""
    return _one_line(text.partition("\n\n")[0])


@cache
def tree(program: str = "jq") -> Command:
    """Return the command tree, without what is hidden."""
    return _tree(typer.main.get_command(app), program)


def _tree(root: Any, program: str) -> Command:
    return _command(root, (program,), tuple(root.context_settings.get("help_option_names", ["--help"])))


def _command(command: Any, path: tuple[str, ...], help_names: tuple[str, ...]) -> Command:
    shown = [param for param in command.params if not getattr(param, "hidden", False)]
    below = getattr(command, "commands", {}).items()
    return Command(
        path=path,
        help=by_own_name(command.help or "").partition("\f")[0].strip(),
        options=(
            *(_option(param) for param in shown if param.param_type_name == "option"),
            Option(help_names, "Show this message and exit."),
        ),
        arguments=tuple(_argument(param, path) for param in shown if param.param_type_name == "argument"),
        commands=tuple(_command(each, (*path, name), help_names) for name, each in below if not each.hidden),
    )


def _option(param: Any) -> Option:
    is_flag = param.is_flag or getattr(param, "count", False)
    return Option(
        names=tuple(sorted([*param.opts, *param.secondary_opts], key=lambda name: name.startswith("--"))),
        help=_one_line(by_own_name(param.help or "")),
        value=None if is_flag else _value(param, *_of_option(param)),
        default=None if is_flag else _default(param),
        repeatable=bool(param.multiple),
    )


def _argument(param: Any, path: tuple[str, ...]) -> Argument:
    name = (param.metavar or "").strip("[].")
    kind = _KINDS.get(name)
    if kind == "failed" and _OF_ANY_JOB & {*path}:
        kind = "job"
    return Argument(
        value=_value(param, kind, _fixed(name)),
        help=_one_line(by_own_name(param.help or "")),
        default=_default(param),
        required=param.required,
        count=None if param.nargs < 0 else param.nargs,
    )


def _of_option(param: Any) -> tuple[str | None, tuple[str, ...]]:
    kind = next((_KINDS[name] for name in param.opts if name in _KINDS), None)
    return kind, _fixed("CHECK") if "--skip" in param.opts else ()


def _fixed(name: str) -> tuple[str, ...]:
    """Return the values of an argument that are the same in every database, but are no choices of the parser."""
    if name == "CHECK":
        from solidjq.doctor.examine import CHECKS  # noqa: PLC0415  (loads the core)

        return tuple(check.name for check in CHECKS)
    if name == "TOPIC|COMMAND":
        return (*TOPICS, *(command for command in COMMANDS if command not in TOPICS and not command.startswith("_")))
    return ()


def _value(param: Any, kind: str | None, fixed: tuple[str, ...]) -> Value:
    choices = fixed or tuple(
        str(getattr(choice, "value", choice)) for choice in getattr(param.type, "choices", None) or ()
    )
    is_path = param.type.name in {"path", "file", "filename", "directory"} or param.name in _TEXT_THAT_MAY_BE_A_PATH
    return Value(param.metavar or "|".join(choices) or param.name.upper(), choices, is_path, kind)


def _default(param: Any) -> str | None:
    default = param.default
    if default is None or callable(default) or not param.show_default:
        return None
    return str(default.value if isinstance(default, Enum) else default)


def _one_line(text: str | None) -> str:
    return " ".join((text or "").replace("\b", "").split())
