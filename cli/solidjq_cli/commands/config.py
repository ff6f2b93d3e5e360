"""``jq config show``, ``list``, ``trust``, ``untrust``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from solidjq_cli import options, session
from solidjq_cli.columns.settings import ConfigFile, config_file_fields, setting_fields
from solidjq_cli.render import Output, note, records

group = typer.Typer(
    rich_markup_mode=None, no_args_is_help=True, help="See what is set and where; trust settings files."
)

PathArgument = Annotated[Path, typer.Argument(metavar="PATH", help="A jq.toml, or the folder that has it.")]


def add_to(app: typer.Typer) -> None:
    """Add the commands."""
    app.add_typer(group, name="config")


@group.callback()
def _group() -> None:
    """See what is set and where; trust settings files."""


@group.command("show")
def show_settings(
    context: typer.Context, config_file: options.ConfigOption = None, output: options.OutputOption = Output.TABLE
) -> None:
    """Show the settings of this command line, and where each comes from.

    An option counts before an environment variable, that before the profile of jq.toml, and that before what is built
    in. Passwords are masked. The policy of a class: jq policy show CLASS.

    \b
    Examples:
      jq config show
      jq --profile production config show
      jq --rails /srv/shop config show -o json
    """
    from solidjq_cli.effective import settings_in_force

    command = session.current(config_file=config_file)
    records([*settings_in_force(command, context.find_root())], setting_fields(), output)


@group.command("list")
def list_files(config_file: options.ConfigOption = None, output: options.OutputOption = Output.TABLE) -> None:
    """List the settings files that count in this folder, and those that you trust, with what each may do.

    \b
    Examples:
      jq config list
    """
    from solidjq.settings import sources

    described = sources.describe(session.current(config_file=config_file).config_file)
    files = [ConfigFile(str(path), words) for path, words in described]
    records(files, config_file_fields(), output, empty="no settings file; all is built in")


@group.command("trust")
def trust_file(path: PathArgument) -> None:
    """Let a jq.toml count in full where it is found: its databases, and a policy that allows more.

    Read it first: it decides which databases jq connects to, and which jobs jq recover retries. Trust is yours alone,
    for this path with this content: an edit ends it, until you trust the file again.

    \b
    Examples:
      jq config trust /srv/shop/jq.toml
      jq config trust .
    """
    from solidjq.settings import trust
    from solidjq.settings.file import parse_file, read_bytes
    from solidjq.settings.policy import load_policy
    from solidjq.settings.profiles import load_profiles
    from solidjq.settings.sources import Settings

    file = _file(path)
    content = read_bytes(file)
    parsed = parse_file(file, content)
    load_policy(parsed)
    load_profiles(Settings((parsed,)))
    digest = trust.trust(file, content)
    note(f"trusted {file} (SHA-256 {digest[:12]}...) until it is edited; to end it: jq config untrust {file}")


@group.command("untrust")
def untrust_file(path: PathArgument) -> None:
    """Trust a jq.toml no longer: where it is found, it may only make the retry policy stricter.

    \b
    Examples:
      jq config untrust /srv/shop/jq.toml
    """
    from solidjq.settings import trust

    file = _file(path)
    note(f"{file} is trusted no longer" if trust.untrust(file) else f"{file} was not trusted; nothing was changed")


def _file(path: Path) -> Path:
    from solidjq.settings.file import FILE_NAME

    path = path.absolute()
    return path.resolve() / FILE_NAME if path.is_dir() else path.parent.resolve() / path.name
