"""``jq profiles list``."""

from __future__ import annotations

import typer

from solidjq_cli import columns, options, session
from solidjq_cli.render import Output, note, records

group = typer.Typer(rich_markup_mode=None, no_args_is_help=True, help="Databases that jq.toml names.")


def add_to(app: typer.Typer) -> None:
    """Add the commands."""
    app.add_typer(group, name="profiles")


@group.callback()
def _group() -> None:
    """Databases that jq.toml names."""


@group.command("list")
def list_profiles(output: options.OutputOption = Output.TABLE) -> None:
    """List the profiles of jq.toml: what jq --profile NAME would connect to.

    \b
    Examples:
      jq profiles list
      jq --profile production failed list
    """
    from solidjq.settings import profiles

    file = session.current().file
    note(f"file: {file.path}" if file else "no jq.toml")
    found = [] if file is None else list(profiles.load_profiles(file).values())
    records(found, columns.profiles(), output, empty="no profiles")
