"""The options that commands share, and what they mean together."""

import math
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from solidjq_cli.render import Output

if TYPE_CHECKING:
    from collections.abc import Mapping

    from solidjq import Database
    from solidjq.ledger import Operation
    from solidjq.policy import Policy

MOST_SECONDS = 10 * 365 * 86400.0
MOST_ID = 2**63 - 1  # of a bigint column
MOST_INTEGER = 2**31 - 1  # of an integer column

DatabaseOption = Annotated[
    str | None,
    typer.Option(
        "--database",
        "-d",
        metavar="URL",
        help="The queue's database: postgres://, mysql2://, sqlite3: or a path.  [env: JQ_DATABASE_URL]",
    ),
]
ConfigOption = Annotated[
    Path | None, typer.Option("--config", metavar="FILE", help="The policy file.  [default: jq.toml, see jq policy]")
]
ImportOption = Annotated[
    list[str] | None,
    typer.Option("--import", "-i", metavar="MODULE", help="A module with @job functions; may be repeated."),
]
ReasonOption = Annotated[str | None, typer.Option("--reason", metavar="TEXT", help="Why, for the record.")]
OutputOption = Annotated[
    Output,
    typer.Option("--output", "-o", help="How to print: for people (table), or for scripts."),
]


def _finite(value: float) -> float:
    if not math.isfinite(value):
        raise typer.BadParameter(f"{value} is not a number of seconds")
    return value


def seconds(*names: str, least: float, text: str) -> Any:
    """Describe an option that takes a number of seconds."""
    return typer.Option(*names, metavar="SECONDS", min=least, max=MOST_SECONDS, callback=_finite, help=text)


AliveThresholdOption = Annotated[
    float,
    seconds(
        "--alive-threshold",
        least=0,
        text="A process whose last heartbeat is this old is dead. Must fit the workers' own setting.",
    ),
]

_given_to_root: str | None = None


def remember(database: str | None) -> None:
    """Keep what stood before the command: ``jq --database URL failed list``."""
    global _given_to_root  # noqa: PLW0603  (one command line a process)
    _given_to_root = database


def given_url(given: str | None) -> str | None:
    """Return the URL that stood in the command line, after the command or before it; not the environment's."""
    return given if given is not None else _given_to_root


def opened(given: str | None, *, create: bool = True) -> "Database":
    """Open the database that the command line, the environment or the default names.

    The embedded one is made if it is not there, unless ``create`` is False.
    """
    from solidjq.init import open_database  # noqa: PLC0415

    return open_database(given_url(given), create=create)


def policy(path: Path | None, modules: list[str] | None) -> "Policy":
    """Load the retry policy: jq.toml, and the settings of the jobs in these modules."""
    from solidjq.policy import load  # noqa: PLC0415

    if not modules:
        return load(path)
    from solidjq.runtime import registry  # noqa: PLC0415

    registry.import_modules(modules)
    return load(path, registered=registry.policies())


def operation(
    verb: str, reason: str | None = None, *, chosen: "Mapping[str, object] | None" = None, plan: str | None = None
) -> "Operation":
    """Describe this command for the ledger."""
    from solidjq.ledger import Operation  # noqa: PLC0415
    from solidjq.text import mask_argument  # noqa: PLC0415

    command = shlex.join(["jq", *map(mask_argument, sys.argv[1:])])
    return Operation(verb, command=command, reason=reason, chosen=chosen, plan=plan)
