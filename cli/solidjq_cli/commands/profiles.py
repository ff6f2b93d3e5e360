"""``jq profiles list``."""

from __future__ import annotations

import typer

from solidjq_cli import options, session
from solidjq_cli.columns.settings import profile_fields
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
    from solidjq.settings.sources import cure

    settings = session.current().settings
    note("; ".join(f"file: {file.path}" for file in settings.files) or "no settings file may name databases here")
    if settings.found is not None and "profiles" in settings.found.document:
        note(
            f"{settings.found.path} names databases, and is only found: it counts for none; {cure(settings.found.path)}"
        )
    if settings.distrust is not None:
        note(settings.distrust)
    records(list(profiles.load_profiles(settings).values()), profile_fields(), output, empty="no profiles")
