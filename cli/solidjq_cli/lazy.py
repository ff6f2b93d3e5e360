"""Commands that are loaded when they are asked for: a start loads one of them, and help loads none."""

from __future__ import annotations

from collections.abc import Iterator, MutableMapping
from importlib import import_module
from typing import Any

import typer
from typer.core import TyperGroup

from solidjq_cli import suggestions
from solidjq_cli.arguments import by_own_name
from solidjq_cli.command_list import COMMANDS
from solidjq_cli.exits import Exit, drop_output

# The headings of --help; a command that is under none is listed last.
HEADINGS = {
    "Look": ("failed", "jobs", "queues", "processes"),
    "Understand": ("incidents", "suspects", "bisect", "doctor"),
    "Recover": ("prune", "retry", "discard", "apply", "recover", "undo"),
    "Record": ("operations", "history"),
    "Run": ("enqueue", "work", "demo"),
    "Set up": ("init", "grants", "policy", "profiles", "config", "completions", "link-jq"),
}


def load(module: str) -> dict[str, Any]:
    """Return the commands of a module of ``solidjq_cli.commands``."""
    # rich_markup_mode: help drawn by rich costs twice the whole start-up.
    loaded = typer.Typer(rich_markup_mode=None, add_completion=False)
    import_module(f"solidjq_cli.commands.{module}").add_to(loaded)
    commands = dict(typer.main.get_group(loaded).commands)
    _use_own_name(commands)
    return commands


def _use_own_name(commands: dict[str, Any], *, deep: bool = True) -> None:
    for command in commands.values():
        command.help = by_own_name(command.help or "")
        for param in command.params:
            param.help = by_own_name(param.help or "")
        if deep:
            _use_own_name(getattr(command, "commands", {}))


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


class LazyGroup(TyperGroup):
    """The root of the command tree."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.commands = Commands()

    def invoke(self, ctx: Any) -> Any:
        """Run the command; if the reader of its output leaves, as ``head`` does, end without a word."""
        try:
            with suggestions.for_option():
                return super().invoke(ctx)
        except BrokenPipeError:
            drop_output()
            raise typer.Exit(Exit.UNREAD) from None

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Find the command; say what was meant where there is none of that name."""
        with suggestions.for_command(args[0], self.commands):
            return super().resolve_command(ctx, args)

    def format_commands(self, ctx: Any, formatter: Any) -> None:  # noqa: ARG002
        """Write the commands with their summaries, by what they are for."""
        listed = {name for names in HEADINGS.values() for name in names}
        rest = {"More": tuple(name for name in COMMANDS if name not in listed)}
        width = max(map(len, COMMANDS))
        for heading, names in {**HEADINGS, **rest}.items():
            rows = [(name.ljust(width), COMMANDS[name][1]) for name in names if name in COMMANDS]
            if rows:
                with formatter.section(heading):
                    formatter.write_dl(rows)

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Write the help, its examples with the name that the program was called by."""
        _use_own_name({"": self}, deep=False)
        super().format_help(ctx, formatter)
