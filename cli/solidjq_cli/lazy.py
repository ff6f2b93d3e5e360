"""Commands that are loaded when they are asked for: a start loads one of them, and help loads none."""

from __future__ import annotations

import sys
from collections.abc import Iterator, MutableMapping
from importlib import import_module
from typing import Any

import typer
from typer._click.exceptions import ClickException, UsageError
from typer.core import TyperGroup

from solidjq_cli import layout, ranges, screens
from solidjq_cli.arguments import by_own_name
from solidjq_cli.command_list import COMMANDS
from solidjq_cli.exits import Exit, drop_output, say

PLUGIN_UNKNOWN = 3


def load(module: str) -> dict[str, Any]:
    """Return the commands of a module of ``solidjq_cli.commands``."""
    # rich_markup_mode: help drawn by rich costs twice the whole start-up.
    loaded = typer.Typer(rich_markup_mode=None, add_completion=False)
    import_module(f"solidjq_cli.commands.{module}").add_to(loaded)
    commands = dict(typer.main.get_group(loaded).commands)
    _complete(commands)
    for command in commands.values():
        layout.lay_out(command)
        _name_in_errors(command)
        _name_in_help(command)
    return commands


def _complete(commands: dict[str, Any]) -> None:
    for command in commands.values():
        if below := getattr(command, "commands", None):
            _complete(below)
        else:
            screens.complete(command)


def _name_in_errors(command: Any) -> None:
    """Let each error about the words of this command, and of those below it, lead to its own help.

    Click's parser leaves the command out of an option without its value.
    """
    parse = command.parse_args

    def parse_args(context: Any, words: list[str]) -> list[str]:
        try:
            rest: list[str] = parse(context, words)
        except UsageError as error:
            error.ctx = error.ctx or context
            raise
        return rest

    command.parse_args = parse_args
    for below in getattr(command, "commands", {}).values():
        _name_in_errors(below)


def _name_in_help(command: Any) -> None:
    """Let the help of a command use the name that the program was called by, when it is shown and not before."""
    format_help = command.format_help

    def format_own_help(ctx: Any, formatter: Any) -> None:
        _use_own_name(command)
        format_help(ctx, formatter)

    command.format_help = format_own_help
    for below in getattr(command, "commands", {}).values():
        _name_in_help(below)


def _use_own_name(command: Any, *, deep: bool = True) -> None:
    command.help = by_own_name(command.help or "")
    for param in command.params:
        param.help = by_own_name(param.help or "")
    if deep:
        for below in getattr(command, "commands", {}).values():
            _use_own_name(below)


class Commands(MutableMapping[str, Any]):
    """Every command by its name; only what is looked at is loaded."""

    def __init__(self) -> None:
        self._loaded: dict[str, Any] = {}

    def __getitem__(self, name: str) -> Any:
        if name not in self._loaded:
            module, _summary = COMMANDS[name]
            self._loaded.update(load(module))
        return self._loaded[name]

    def __setitem__(self, name: str, command: Any) -> None:
        self._loaded[name] = command

    def __delitem__(self, name: str) -> None:
        del self._loaded[name]

    def __iter__(self) -> Iterator[str]:
        return iter(COMMANDS)

    def __len__(self) -> int:
        return len(COMMANDS)


ranges.use_words()


def _plugin_code(code: int, error: ClickException, args: Any) -> int:
    """Return the exit code of a command line that cannot be used: of jq check, that of a monitoring plugin.

    For a monitor 2 is critical, and a mistyped option of its own is not.
    """
    context = error.ctx if isinstance(error, UsageError) else None
    while context is not None and context.parent is not None and context.parent.parent is not None:
        context = context.parent
    words = sys.argv[1:] if args is None else args
    name = context.info_name if context is not None and context.parent is not None else None
    return PLUGIN_UNKNOWN if code and (name or next((w for w in words if w in COMMANDS), None)) == "check" else code


class LazyGroup(TyperGroup):
    """The root of the command tree."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.commands = Commands()

    def main(self, args: Any = None, *, standalone_mode: bool = True, **settings: Any) -> Any:  # type: ignore[override]
        """Run the command line; what is wrong with it becomes one line, as every other error does."""
        try:
            code = super().main(args, **settings, standalone_mode=False)
        except ClickException as error:
            from solidjq_cli import suggestions  # noqa: PLC0415  (only where something is wrong)

            code = suggestions.report(error)
            code = _plugin_code(code, error, args)
        except typer.Abort:
            say("nothing was changed")
            code = Exit.INTERRUPTED
        if standalone_mode:
            sys.exit(code or 0)
        return code

    def invoke(self, ctx: Any) -> Any:
        """Run the command; if the reader of its output leaves, as ``head`` does, end without a word."""
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            drop_output()
            raise typer.Exit(Exit.UNREAD) from None

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Find the command; say what was meant where there is none of that name."""
        try:
            return super().resolve_command(ctx, args)
        except UsageError as error:
            from solidjq_cli import suggestions  # noqa: PLC0415  (the same)

            suggestions.name_commands(error, args[0], self.commands)
            raise

    def format_commands(self, ctx: Any, formatter: Any) -> None:  # noqa: ARG002
        """Write the commands with their summaries, by what they are for."""
        layout.write_all_commands(formatter)

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Write the help, its examples with the name that the program was called by."""
        _use_own_name(self, deep=False)
        super().format_help(ctx, formatter)
