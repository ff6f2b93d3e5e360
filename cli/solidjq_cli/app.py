"""The command tree. Importing it loads neither SQLAlchemy nor rich: --help must be quick."""

from typing import Annotated

import typer

from solidjq_cli import config
from solidjq_cli.commands import (
    apply,
    bisect,
    completions,
    demo,
    doctor,
    enqueue,
    failed,
    grants,
    history,
    incidents,
    init,
    jobs,
    operations,
    policy,
    processes,
    prune,
    queues,
    recover,
    retry,
    suspects,
    work,
)
from solidjq_cli.exits import MEANINGS

_EPILOG = "Exit codes: " + "; ".join(f"{code.value} {meaning}" for code, meaning in MEANINGS.items()) + "."

# rich_markup_mode: help drawn by rich costs twice the whole start-up.
app = typer.Typer(
    name="jq",
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


init.add_to(app)
grants.add_to(app)
enqueue.add_to(app)
work.add_to(app)
prune.add_to(app)
failed.add_to(app)
retry.add_to(app)
apply.add_to(app)
recover.add_to(app)
operations.add_to(app)
history.add_to(app)
incidents.add_to(app)
suspects.add_to(app)
bisect.add_to(app)
policy.add_to(app)
jobs.add_to(app)
processes.add_to(app)
queues.add_to(app)
doctor.add_to(app)
demo.add_to(app)
completions.add_to(app)
