"""``jq completions``."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer


class Shell(StrEnum):
    """The shells that have a script."""

    BASH = "bash"
    ZSH = "zsh"
    FISH = "fish"


def add_to(app: typer.Typer) -> None:
    """Add the command."""
    app.command("completions")(completions)


def completions(
    context: typer.Context,
    shell: Annotated[Shell, typer.Argument(metavar="SHELL", help="For which shell: bash, zsh or fish.")],
) -> None:
    """Print a shell's completion script.

    Ids of failed jobs, incidents, groups, operations, queues, classes, hosts and profiles are looked up in the database
    that the line names, or the environment: read-only, in at most 0.3 seconds, and in silence if that is not enough.

    \b
    Examples:
      source <(jq completions bash)     # in ~/.bashrc
      source <(jq completions zsh)      # in ~/.zshrc, after compinit
      jq completions fish | source      # in ~/.config/fish/config.fish
    """
    from solidjq_cli.completion_scripts.script import script

    typer.echo(script(shell.value, context.find_root().info_name or "jq"), nl=False)
