"""The root of the command tree. Importing it loads neither SQLAlchemy nor rich, nor a command: help must be quick."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer
from typer._click.exceptions import NoArgsIsHelpError, UsageError

from solidjq_cli import options, session, view
from solidjq_cli.exits import MEANINGS
from solidjq_cli.lazy import LazyGroup

_EPILOG = "Exit codes: " + "; ".join(f"{code.value} {meaning}" for code, meaning in MEANINGS.items()) + "."

# rich_markup_mode: help drawn by rich costs twice the whole start-up.
app = typer.Typer(
    name="jq",
    cls=LazyGroup,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    invoke_without_command=True,
    add_completion=False,
    epilog=_EPILOG,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(asked: bool) -> None:  # noqa: FBT001  (typer calls it so)
    if asked:
        from solidjq import __version__  # noqa: PLC0415

        typer.echo(f"jq (solidjq) {__version__}")
        raise typer.Exit


def _which(asked: bool) -> None:  # noqa: FBT001  (typer calls it so)
    if asked:
        from solidjq_cli.other_jq import which  # noqa: PLC0415

        typer.echo("\n".join(which()))
        raise typer.Exit


def _first_screen(context: typer.Context) -> None:
    """Answer a call without a command: on a terminal the status, where a database is named; elsewhere the help."""
    group = context.command
    if sys.stdout.isatty() and not session.current().embedded and isinstance(group, LazyGroup):
        command = group.commands["status"]
        with command.make_context("status", [], parent=context) as own:
            command.invoke(own)
    elif len(sys.argv) > 1:
        raise UsageError("Missing command.", context)
    else:
        raise NoArgsIsHelpError(context)


@app.callback()
def root(
    context: typer.Context,
    database: options.DatabaseOption = None,
    profile: Annotated[
        str | None,
        typer.Option(
            "--profile",
            metavar="NAME",
            envvar="JQ_PROFILE",
            show_envvar=False,
            help="A database that jq.toml names.  [default: its default_profile; env: JQ_PROFILE]",
        ),
    ] = None,
    rails: Annotated[
        Path | None,
        typer.Option(
            "--rails", metavar="PATH", help="A Rails application's folder: the queue of its config/database.yml."
        ),
    ] = None,
    environment: Annotated[
        str | None, typer.Option("--env", metavar="NAME", help="With --rails.  [default: $RAILS_ENV, else production]")
    ] = None,
    config_file: options.ConfigOption = None,
    schema: Annotated[
        str | None,
        typer.Option(
            "--schema",
            metavar="NAME",
            envvar="JQ_SCHEMA",
            show_envvar=False,
            help="The PostgreSQL schema with the tables.  [env: JQ_SCHEMA]",
        ),
    ] = None,
    table_prefix: Annotated[
        str | None,
        typer.Option(
            "--table-prefix",
            metavar="PREFIX",
            envvar="JQ_TABLE_PREFIX",
            show_envvar=False,
            help="What the names of the queue's tables begin with.  [env: JQ_TABLE_PREFIX; default: solid_queue_]",
        ),
    ] = None,
    read_only: Annotated[
        bool,
        typer.Option(
            "--read-only",
            envvar="JQ_READ_ONLY",
            show_envvar=False,
            help="Change nothing, whatever the command.  [env: JQ_READ_ONLY]",
        ),
    ] = False,
    csv_raw: Annotated[
        bool,
        typer.Option(
            "--csv-raw",
            envvar="JQ_CSV_RAW",
            show_envvar=False,
            help="With -o csv: no apostrophe before cells that a spreadsheet would run.  [env: JQ_CSV_RAW]",
        ),
    ] = False,
    no_pager: Annotated[
        bool, typer.Option("--no-pager", help="Print what is longer than the screen without $PAGER.")
    ] = False,
    version: Annotated[  # noqa: ARG001  (its callback does the work)
        bool, typer.Option("--version", help="Print the version and exit.", callback=_version, is_eager=True)
    ] = False,
    which: Annotated[  # noqa: ARG001  (its callback does the work)
        bool,
        typer.Option(
            "--which",
            help="Print which program answers to jq and solidjq: here, under cron, under sudo.",
            callback=_which,
            is_eager=True,
        ),
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
    Which database: --database, else $JQ_DATABASE_URL, else that of jq init:
      jq --database postgres://user@host/app_production_queue failed list
      jq --database mysql2://user@host/app_queue queues list
      jq --database sqlite3:storage/production_queue.sqlite3 processes list
      jq --rails /srv/shop --read-only failed list

    For scripts: -o json|ndjson|csv|markdown|ids, notices on stderr, times in UTC.
    """
    view.begin(csv_raw=csv_raw, paged=not no_pager)
    session.begin(
        session.Connecting(
            profile, database, rails, environment, schema, table_prefix, read_only=read_only, file=config_file
        )
    )
    if context.invoked_subcommand is None:
        _first_screen(context)
