"""Commands that are loaded when they are asked for: a start loads one of them, and help loads none."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, MutableMapping
from importlib import import_module
from typing import Any

import typer
from typer.core import TyperGroup

from solidjq_cli.command_list import COMMANDS
from solidjq_cli.exits import Exit, drop_output


def load(module: str) -> dict[str, Any]:
    """Return the commands of a module of ``solidjq_cli.commands``."""
    # rich_markup_mode: help drawn by rich costs twice the whole start-up.
    loaded = typer.Typer(rich_markup_mode=None, add_completion=False)
    import_module(f"solidjq_cli.commands.{module}").add_to(loaded)
    return dict(typer.main.get_group(loaded).commands)


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
            return super().invoke(ctx)
        except BrokenPipeError:
            drop_output()
            raise typer.Exit(Exit.UNREAD) from None

    def format_commands(self, ctx: Any, formatter: Any) -> None:  # noqa: ARG002
        """Write the commands with their summaries, a line each."""
        room = formatter.width - 6 - max(map(len, COMMANDS))
        with formatter.section("Commands"):
            formatter.write_dl(
                [(name, textwrap.shorten(summary, room, placeholder="...")) for name, (_, summary) in COMMANDS.items()]
            )
