"""The options that commands share, and what they mean together."""

from __future__ import annotations

import math
import os
import shlex
import sys
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from solidjq_cli.render import Output, note

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sqlalchemy.engine import URL

    from solidjq import Database
    from solidjq.ledger.operations import Operation
    from solidjq.rails.settings import RailsConfig
    from solidjq.settings.file import SettingsFile
    from solidjq.settings.policy import Policy

ENVIRONMENT = "JQ_DATABASE_URL"  # as in solidjq.init, which --help must not load
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


def _remember_file(path: Path | None) -> Path | None:
    """Keep the file for whatever else is read from it: the profiles."""
    if path is not None:
        remember(_connecting._replace(file=path))
    return path


ConfigOption = Annotated[
    Path | None,
    typer.Option(
        "--config",
        metavar="FILE",
        callback=_remember_file,
        help="The file of policy and profiles.  [default: jq.toml, see jq policy]",
    ),
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


def _finite(value: float | None) -> float | None:
    if value is not None and not math.isfinite(value):
        raise typer.BadParameter(f"{value} is not a number of seconds")
    return value


def seconds(*names: str, least: float, text: str, envvar: str | None = None) -> Any:
    """Describe an option that takes a number of seconds."""
    return typer.Option(
        *names,
        metavar="SECONDS",
        min=least,
        max=MOST_SECONDS,
        callback=_finite,
        help=text,
        envvar=envvar,
        show_envvar=False,
    )


AliveThresholdOption = Annotated[
    float | None,
    seconds(
        "--alive-threshold",
        least=0,
        text="A process whose last heartbeat is this old is dead. Must fit the workers' own setting.  "
        "[env: JQ_ALIVE_THRESHOLD; default: the profile's, with --rails the application's, else 300]",
        envvar="JQ_ALIVE_THRESHOLD",
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
    table_prefix: str | None = None
    read_only: bool = False
    alive_threshold: float | None = None  # the profile's
    file: Path | None = None  # with the profiles and the policy

    def names_a_database(self) -> bool:
        """Tell whether a database is named, or a Rails application."""
        return self.database is not None or self.rails is not None


_connecting = Connecting()
_effective: Connecting | None = None  # what was opened, profile and all
_opened: list[Database] = []


def remember(connecting: Connecting) -> None:
    """Keep what stood before the command."""
    global _connecting, _effective
    _connecting, _effective = connecting, None
    file.cache_clear()


@cache
def file() -> SettingsFile | None:
    """Read the file with the profiles and the policy, once: they are of the same moment."""
    from solidjq.settings.file import read_file  # noqa: PLC0415

    return read_file(_connecting.file)


def _completed(given: str | None, *, default_profile: bool = True) -> Connecting:
    """Return how to connect: what the command line says, and from a profile what it leaves open."""
    from solidjq.errors import UsageError  # noqa: PLC0415

    found = _connecting if given is None else _connecting._replace(database=given)
    if found.database is not None and found.rails is not None:
        raise UsageError("--database and --rails both name a database; leave one out")
    named = found.names_a_database()
    profile = None
    if found.profile is not None or not (named or not default_profile or ENVIRONMENT in os.environ):
        from solidjq.settings import profiles  # noqa: PLC0415

        profile = profiles.choose_profile(file(), found.profile)
    if profile is not None:
        found = found._replace(
            database=found.database if named else profile.database,
            rails=found.rails if named else profile.rails,
            environment=found.environment or (None if named else profile.env),
            schema=found.schema if named or found.schema else profile.schema,
            table_prefix=found.table_prefix if named or found.table_prefix else profile.table_prefix,
            read_only=found.read_only or profile.read_only,
            alive_threshold=None if named else profile.alive_threshold,
        )
    if found.environment is not None and found.rails is None:
        raise UsageError(
            "--env chooses an environment of a Rails application; name the application with --rails or a profile"
        )
    return found


def given_url(given: str | None) -> str | URL | None:
    """Return the URL that the command line names, after the command or before it; not the environment's.

    Raises UsageError if it names two.
    """
    return _url(_completed(given, default_profile=False))


def table_prefix(given: str | None) -> str | None:
    """Return what the command line says that the names of Solid Queue's tables begin with."""
    return _completed(given, default_profile=False).table_prefix


def _url(connecting: Connecting) -> str | URL | None:
    if connecting.rails is None:
        return connecting.database
    from solidjq.rails.settings import queue_url  # noqa: PLC0415

    return queue_url(connecting.rails, connecting.environment)


def opened(given: str | None, *, create: bool = True) -> Database:
    """Open the database that the command line, the environment or the default names.

    The embedded one is made if it is not there, unless ``create`` is False.
    """
    from solidjq.database.opening import open_database  # noqa: PLC0415

    global _effective  # noqa: PLW0603  (one command line a process)
    _effective = connecting = _completed(given)
    database = open_database(
        _url(connecting),
        create=create,
        namespace=connecting.schema,
        table_prefix=connecting.table_prefix,
        read_only=connecting.read_only,
    )
    _opened.append(database)
    return database


def close() -> None:
    """Take leave of the databases: a server is told, and SQLite puts its log away."""
    while _opened:
        _opened.pop().close()


def alive_threshold(given: float | None, database: str | None, *, acts: bool = False) -> float:
    """Return the age of a heartbeat, in seconds, from which on a process is dead.

    What the command line or its environment variable says, else the profile, else the Rails application, else Solid
    Queue's 300. Raises UsageError if only Ruby could tell the application's and the command ``acts`` on it; one that
    only shows says so.
    """
    from solidjq.processes.heartbeat import ALIVE_THRESHOLD  # noqa: PLC0415

    connecting = _completed(database)
    told = connecting.alive_threshold if given is None else given
    if told is not None or connecting.rails is None:
        return ALIVE_THRESHOLD if told is None else told
    from solidjq.errors import UsageError  # noqa: PLC0415
    from solidjq.rails.settings import THRESHOLD, read_settings  # noqa: PLC0415

    setting = read_settings(connecting.rails, connecting.environment).get(THRESHOLD)
    if setting is None:
        return ALIVE_THRESHOLD
    if setting.value is None:
        unread = f"{setting.place} sets {THRESHOLD} in a way that only Ruby can read: {setting.code}"
        if acts:
            raise UsageError(f"{unread}; give --alive-threshold")
        note(f"{unread}; {ALIVE_THRESHOLD:g} s is taken instead: give --alive-threshold")
        return ALIVE_THRESHOLD
    return float(setting.value)


def configured(database: str | None) -> RailsConfig | None:
    """Read what the Rails application wants to have running; None where none is named."""
    connecting = _completed(database)
    if connecting.rails is None:
        return None
    from solidjq.rails.settings import read_config  # noqa: PLC0415

    return read_config(connecting.rails, connecting.environment)


def policy(modules: list[str] | None) -> Policy:
    """Load the retry policy: jq.toml, and the settings of the jobs in these modules."""
    from solidjq.settings.policy import Policy, load_policy  # noqa: PLC0415

    found = file()
    if modules:
        from solidjq import registry  # noqa: PLC0415

        registry.import_modules(modules)
    registered = registry.policies() if modules else None
    return Policy(registered=registered) if found is None else load_policy(found, registered=registered)


def operation(
    verb: str, reason: str | None = None, *, chosen: Mapping[str, object] | None = None, plan: str | None = None
) -> Operation:
    """Describe this command for the ledger. Raises RefusedError if the database is opened read-only."""
    if (_effective or _completed(None)).read_only:
        from solidjq.errors import RefusedError  # noqa: PLC0415

        raise RefusedError(f"jq {verb} changes the database, and it is opened read-only; nothing was changed")
    from solidjq.ledger.operations import Operation  # noqa: PLC0415
    from solidjq.text import mask_argument  # noqa: PLC0415

    command = shlex.join(["jq", *map(mask_argument, sys.argv[1:])])
    return Operation(verb, command=command, reason=reason, chosen=chosen, plan=plan)
