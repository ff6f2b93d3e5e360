"""The root of the command tree. Importing it loads neither SQLAlchemy nor rich, nor a command: help must be quick."""

from typing import Annotated

import typer

from solidjq_cli import config
from solidjq_cli.exits import MEANINGS
from solidjq_cli.lazy import LazyGroup

_EPILOG = "Exit codes: " + "; ".join(f"{code.value} {meaning}" for code, meaning in MEANINGS.items()) + "."

# rich_markup_mode: help drawn by rich costs twice the whole start-up.
app = typer.Typer(
    name="jq",
    cls=LazyGroup,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    no_args_is_help=True,
    add_completion=False,
    epilog=_EPILOG,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:  # noqa: FBT001  (typer calls it so)
    if wanted:
        from solidjq import __version__  # noqa: PLC0415

        typer.echo(f"jq (solidjq) {__version__}")
        raise typer.Exit


@app.callback()
def root(
    database: config.DatabaseOption = None,
    version: Annotated[  # noqa: ARG001  (its callback does the work)
        bool, typer.Option("--version", help="Print the version and exit.", callback=_version, is_eager=True)
    ] = False,
) -> None:
    """Recover jobs whose worker process died, on any Solid Queue database.

    \b
    The job of the night, in four commands:
      jq prune                   find dead processes, fail the jobs they held
      jq failed list --died      which jobs died with their process
      jq failed show 42          one of them, with its arguments
      jq retry --safe            put the safe ones back to work, with a limit

    \b
    Which database: --database, else $JQ_DATABASE_URL, else an embedded SQLite file:
      jq --database postgres://user@host/app_production_queue failed list
      jq --database mysql2://user@host/app_queue queues list
      jq --database sqlite3:storage/production_queue.sqlite3 processes list

    For scripts: -o json|ndjson|csv|ids, notices on stderr, times in UTC.
    """
    config.remember(database)
