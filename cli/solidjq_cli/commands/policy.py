"""``jq policy show``."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Annotated, Any

import typer

from solidjq_cli import options, session
from solidjq_cli.columns.settings import PolicySetting, policy_setting_fields
from solidjq_cli.render import Output, note, records

if TYPE_CHECKING:
    from collections.abc import Iterator

    from solidjq.settings.policy import Policy

group = typer.Typer(rich_markup_mode=None, no_args_is_help=True, help="Which job classes may be retried, how often.")
DEFAULT = "(default)"


def add_to(app: typer.Typer) -> None:
    """Add the commands."""
    app.add_typer(group, name="policy")


@group.command("show")
def show_policy(
    class_names: Annotated[
        list[str] | None,
        typer.Argument(metavar="[CLASS...]", help="Job classes  [default: all that the file names]"),
    ] = None,
    config_file: options.ConfigOption = None,
    import_modules: options.ImportOption = None,
    output: options.OutputOption = Output.TABLE,
) -> None:
    """Show the retry policy of job classes, and where each part of it comes from.

    The file is $JQ_CONFIG; else jq.toml in the user's configuration folder, then /etc/solidjq/jq.toml. A jq.toml in
    this folder or the nearest one above may only make this stricter, unless it is trusted (jq config trust). What no
    file sets comes from the class's @job (with --import), else it is built in.

    \b
    Examples:
      jq policy show
      jq policy show SendReceipt 'Reports::Monthly'
      jq policy show send_receipt --import shop.jobs -o json
    """
    policy = session.current(config_file=config_file).policy(import_modules)
    note(f"policy: {policy.words() or 'built in'}")
    names = class_names or [DEFAULT, *policy.classes]
    records((setting for name in names for setting in _settings(policy, name)), policy_setting_fields(), output)


def _settings(policy: Policy, class_name: str) -> Iterator[PolicySetting]:
    from solidjq.settings.policy import KEYS

    rule = policy.rule("" if class_name == DEFAULT else class_name)
    for key in KEYS:
        source = rule.sources.get(key, "built in")
        yield PolicySetting(class_name, key, _shown(getattr(rule, key)), source)


def _shown(value: Any) -> Any:
    from solidjq.durations import spell_duration

    return spell_duration(value) if isinstance(value, timedelta) else value
