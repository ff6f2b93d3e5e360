"""Every command that there is, and a command run in the test's own process."""

from functools import cache
from typing import Any

import typer

from solidjq_cli import exits, session
from solidjq_cli.app import app
from solidjq_cli.command_tree import Command

# demo has a queue of its own; help, config and link-jq speak of files and of no queue
ELSEWHERE = {"demo", "help", "link-jq", "config list", "config show", "config trust", "config untrust"}


def leaves(command: Command) -> set[str]:
    below = [leaves(each) for each in command.commands]
    return set().union(*below) if below else {" ".join(command.path[1:])}


@cache
def program() -> Any:
    """Return the program, to be called with arguments; it keeps what it loads: to load a command costs more than it."""
    return typer.main.get_command(app)


def run(arguments: list[str]) -> int:
    """Run a command in this process."""
    try:
        program()(arguments, prog_name="jq")
    except SystemExit as end:
        return int(end.code or 0)
    except Exception as error:  # noqa: BLE001  (as the program does)
        return exits.report(error)
    finally:
        session.close()  # as the program does at its end
    return 0
