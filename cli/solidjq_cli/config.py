"""The options that commands share, and what they mean together."""

import math
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from solidjq_cli.render import Output

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sqlalchemy.engine import URL

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


class Connecting(NamedTuple):
    """How to connect, as it stood before the command: ``jq --database URL --read-only failed list``.

    What stands there comes before what the profile says; a profile that is read-only stays so.
    """

    profile: str | None = None
    database: str | None = None
    rails: Path | None = None
    environment: str | None = None
    schema: str | None = None
    read_only: bool = False


_connecting = Connecting()


def remember(connecting: Connecting) -> None:
    """Keep what stood before the command."""
    global _connecting  # noqa: PLW0603  (one command line a process)
    _connecting = connecting


def _completed(connecting: Connecting, given: str | None) -> Connecting:
    """Take from the profile what the command line leaves open."""
    if connecting.profile is None:
        return connecting
    from solidjq import policy as files  # noqa: PLC0415
    from solidjq import profiles  # noqa: PLC0415

    profile = profiles.choose(files.find(), connecting.profile)
    named = given is not None or connecting.database is not None or connecting.rails is not None
    return connecting._replace(
        database=connecting.database if named else profile.database,
        rails=connecting.rails if named else profile.rails,
        environment=connecting.environment or profile.env,
        schema=connecting.schema if named or connecting.schema else profile.schema,
        read_only=connecting.read_only or profile.read_only,
    )


def given_url(given: str | None) -> "str | URL | None":
    """Return the URL that the command line names, after the command or before it; not the environment's.

    Raises UsageError if it names two.
    """
    return _url(_completed(_connecting, given), given)


def _url(connecting: Connecting, given: str | None) -> "str | URL | None":
    url = given if given is not None else connecting.database
    if connecting.rails is None:
        return url
    from solidjq import rails  # noqa: PLC0415
    from solidjq.errors import UsageError  # noqa: PLC0415

    if url is not None:
        raise UsageError("--database and --rails both name a database; leave one out")
    return rails.database_url(connecting.rails, connecting.environment)


def opened(given: str | None, *, create: bool = True) -> "Database":
    """Open the database that the command line, the environment or the default names.

    The embedded one is made if it is not there, unless ``create`` is False.
    """
    from solidjq.init import open_database  # noqa: PLC0415

    connecting = _completed(_connecting, given)
    return open_database(
        _url(connecting, given), create=create, namespace=connecting.schema, read_only=connecting.read_only
    )


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
    """Describe this command for the ledger. Raises RefusedError if the database is opened read-only."""
    if _completed(_connecting, None).read_only:
        from solidjq.errors import RefusedError  # noqa: PLC0415

        raise RefusedError(f"jq {verb} changes the database, and it is opened read-only; nothing was changed")
    from solidjq.ledger import Operation  # noqa: PLC0415
    from solidjq.text import mask_argument  # noqa: PLC0415

    command = shlex.join(["jq", *map(mask_argument, sys.argv[1:])])
    return Operation(verb, command=command, reason=reason, chosen=chosen, plan=plan)
