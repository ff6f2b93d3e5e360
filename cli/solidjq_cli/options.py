"""The options that several commands share, each declared once, and groups of options that arrive as one object."""

from __future__ import annotations

import math
from dataclasses import MISSING, Field, fields
from functools import wraps
from inspect import Parameter, Signature, signature
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

import typer
from typer._click.types import FloatRange

from solidjq.durations import parse_duration
from solidjq_cli.screens import take_output
from solidjq_cli.view import Output, on_terminal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

MOST_SECONDS = 10 * 365 * 86400.0
MOST_ID = 2**63 - 1  # of a bigint column
MOST_INTEGER = 2**31 - 1  # of an integer column
QUARANTINE = "quarantine"


def _finite(value: float | None) -> float | None:
    if value is not None and not math.isfinite(value):
        raise typer.BadParameter(f"{value} is not a number of seconds")
    return value


class _Seconds(FloatRange):
    """A number of seconds, or a duration: ``90``, ``90s``, ``5m``."""

    def convert(self, value: Any, param: Any, ctx: Any) -> Any:
        duration = parse_duration(value) if isinstance(value, str) else None
        return super().convert(value if duration is None else duration.total_seconds(), param, ctx)


def seconds(*names: str, least: float, text: str, envvar: str | None = None) -> Any:
    """Describe an option that takes a number of seconds, or a duration such as ``5m``."""
    return typer.Option(
        *names,
        metavar="SECONDS",
        click_type=_Seconds(min=least, max=MOST_SECONDS),
        callback=_finite,
        help=text,
        envvar=envvar,
        show_envvar=False,
    )


# -- where, how, why --------------------------------------------------------------------------------------------------

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
    Path | None,
    typer.Option(
        "--config",
        metavar="FILE",
        help="The one file of policy and profiles.  [default: see jq policy show; env: JQ_CONFIG]",
    ),
]
ImportOption = Annotated[
    list[str] | None,
    typer.Option("--import", "-i", metavar="MODULE", help="A module with @job functions; may be repeated."),
]
ReasonOption = Annotated[str | None, typer.Option("--reason", metavar="TEXT", help="Why, for the record.")]
OutputOption = Annotated[
    Output,
    typer.Option(
        "--output", "-o", callback=take_output, help="How to print: for people (table, wide), or for scripts."
    ),
]
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

# -- what moves, and whether to ask -----------------------------------------------------------------------------------

PruneForceOption = Annotated[
    bool,
    typer.Option(
        "--force",
        help="Prune every silent process, even one that may be alive.  [env: JQ_PRUNE_FORCE=1]",
        show_default=False,
    ),
]
QuietOption = Annotated[bool, typer.Option("--quiet", "-q", help="Print nothing but errors.")]
LimitOption = Annotated[
    int | None,
    typer.Option("--limit", metavar="N", min=1, max=MOST_ID, help="Move at most N, the oldest failures first."),
]
BatchOption = Annotated[
    int, typer.Option("--batch", metavar="N", min=1, max=1000, help="Jobs a transaction.", show_default=True)
]
FastOption = Annotated[
    bool, typer.Option("--fast", help="No rests between batches, which leave the database to busy workers.")
]
RateOption = Annotated[
    str | None, typer.Option("--rate", metavar="N/UNIT", help="Spread them out: 100/m, 5/s, 2000/h.")
]
MaxAgeOption = Annotated[
    str | None, typer.Option("--max-age", metavar="AGE", help="Only jobs that failed at most this long ago: 12h, 3d.")
]
DryRunOption = Annotated[bool, typer.Option("--dry-run", "-n", help="Only show what would be done.")]
PlanOutOption = Annotated[
    Path | None, typer.Option("--plan-out", metavar="FILE", help="Write the exact set for jq apply; change nothing.")
]
SignOption = Annotated[
    Path | None, typer.Option("--sign-with", metavar="KEYFILE", help="With --plan-out: sign the plan (HMAC-SHA256).")
]
VerifyOption = Annotated[
    Path | None, typer.Option("--verify-with", metavar="KEYFILE", help="Refuse a plan not signed with this key.")
]
YesOption = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]
WatchOption = Annotated[
    bool, typer.Option("--watch", help="Follow the jobs until all have ended; exit code 6 if some died again.")
]
QuarantineOption = Annotated[
    str, typer.Option("--quarantine", metavar="NAME", help="The queue for suspects.", show_default=True)
]


def queue_name(name: str) -> str:
    """Return the name of a queue. Raises UsageError if it is empty or too long."""
    from solidjq.errors import UsageError  # noqa: PLC0415
    from solidjq.settings.policy import MOST_CHARACTERS  # noqa: PLC0415

    if not 0 < len(name) <= MOST_CHARACTERS:
        raise UsageError(f"a queue's name has 1 to {MOST_CHARACTERS} characters")
    return name


# -- pages ------------------------------------------------------------------------------------------------------------


LIST_LIMIT = 100  # rows of a list on a terminal
ListLimitOption = Annotated[
    int | None,
    typer.Option(
        "--limit",
        metavar="N",
        min=1,
        max=MOST_ID,
        help=f"At most N  [default: {LIST_LIMIT} on a terminal, else all]",
    ),
]


def list_limit(limit: int | None, output: Output) -> int | None:
    """Return the limit of a list: the one that was typed, else ``LIST_LIMIT`` on a terminal and none elsewhere."""
    return LIST_LIMIT if limit is None and output is Output.TABLE and on_terminal() else limit


def page_after(what: str, least: int = 0) -> Any:
    """Describe the option that goes on below the last one of a page."""
    return typer.Option("--page-after", metavar="ID", min=least, max=MOST_ID, help=f"Go on below this {what}.")


def replaced(name: str, by: str = "--page-after") -> Any:
    """Describe a hidden option of an id that another has replaced: it fails, and names what to write."""

    def refuse(value: str | None) -> None:
        from solidjq.errors import UsageError  # noqa: PLC0415

        if value is not None:
            raise UsageError(f"{name} takes a time everywhere now; an id stands after {by}: {by} {value}")

    return typer.Option(name, hidden=True, callback=refuse)


# -- groups -----------------------------------------------------------------------------------------------------------


class OptionGroup:
    """Base of a keyword-only dataclass whose fields are options. A field may itself be a group."""


def grouped(command: Callable[..., None]) -> Callable[..., None]:
    """Let a command take option groups: Typer gets an option a field, the command gets one object a group."""
    hints = get_type_hints(command, include_extras=True)
    parameters = list(_expanded(signature(command).parameters.values(), hints))

    @wraps(command)
    def parsed(**values: Any) -> None:
        command(**{name: _collected(name, hints[name], values) for name in signature(command).parameters})

    del parsed.__wrapped__  # Typer must not see the groups
    parsed.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    parsed.__signature__ = Signature(parameters)  # type: ignore[attr-defined]
    return parsed


def _is_group(hint: Any) -> bool:
    return isinstance(hint, type) and issubclass(hint, OptionGroup)


def _expanded(parameters: Any, hints: Mapping[str, Any]) -> Iterator[Parameter]:
    for parameter in parameters:
        hint = hints[parameter.name]
        if not _is_group(hint):
            yield parameter.replace(annotation=hint, kind=Parameter.KEYWORD_ONLY)
            continue
        inner = [Parameter(field.name, Parameter.KEYWORD_ONLY, default=_default(field)) for field in fields(hint)]
        yield from _expanded(inner, get_type_hints(hint, include_extras=True))


def _default(field: Field[Any]) -> Any:
    return Parameter.empty if field.default is MISSING else field.default


def _collected(name: str, hint: Any, values: Mapping[str, Any]) -> Any:
    if not _is_group(hint):
        return values[name]
    inner = get_type_hints(hint, include_extras=True)
    return hint(**{field.name: _collected(field.name, inner[field.name], values) for field in fields(hint)})
