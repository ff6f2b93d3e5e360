"""The completion script of a shell: one writer a shell, from the same command tree."""

from __future__ import annotations

from solidjq_cli.command_tree import tree
from solidjq_cli.completion_scripts import bash, fish, zsh

WRITERS = {"bash": bash.write, "zsh": zsh.write, "fish": fish.write}


def script(shell: str, program: str = "jq") -> str:
    """Return the completion script of a shell, "bash", "zsh" or "fish", for the program of this name."""
    return WRITERS[shell](tree(program))
