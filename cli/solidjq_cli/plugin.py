"""How ``jq check`` answers: a line and an exit code by the convention of the monitoring plugins of Nagios and Icinga.

Here that convention wins over ``exits.Exit``: 0 OK, 1 warning, 2 critical, 3 unknown, whatever goes wrong.
"""

from __future__ import annotations

import os
from contextlib import contextmanager
from typing import TYPE_CHECKING

import typer

from solidjq_cli import view
from solidjq_cli.arguments import by_own_name
from solidjq_cli.columns.checks import MeasureRow, measure_fields
from solidjq_cli.render import Output, records

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from solidjq.monitoring.levels import CheckReport, Measure

GROUP = "check"
UNKNOWN = 3  # the exit code for what is wrong with the command line, too


@contextmanager
def answering(check: str, output: Output) -> Iterator[None]:
    """Turn whatever is raised into the answer of a check that could not be made."""
    from solidjq.errors import SolidJQError  # noqa: PLC0415
    from solidjq.monitoring.levels import unknown  # noqa: PLC0415

    try:
        yield
    except SolidJQError as error:
        answer(check, [unknown(check, str(error))], output)
    except Exception as error:
        if isinstance(error, (typer.Exit, BrokenPipeError)) or os.environ.get("JQ_DEBUG"):
            raise
        answer(check, [unknown(check, f"unexpected error: {type(error).__name__}: {error}")], output)


def answer(name: str, reports: Sequence[CheckReport], output: Output) -> None:
    """Print what the checks found and end with the exit code of the worst."""
    from solidjq.monitoring.levels import worst  # noqa: PLC0415

    if output is Output.TABLE and not view.current().fields:
        typer.echo("\n".join(lines(name, reports)))
    else:
        records([MeasureRow(report, one) for report in reports for one in _rows(report)], measure_fields(), output)
    raise typer.Exit(worst(report.level for report in reports).exit_code)


def _rows(report: CheckReport) -> Sequence[Measure | None]:
    return [*report.measures] or [None]


def lines(name: str, reports: Sequence[CheckReport]) -> Iterator[str]:
    """Yield the output: the first line with the values behind a bar, then a line for each of several checks."""
    from solidjq.monitoring.levels import Level, worst  # noqa: PLC0415

    level = worst(report.level for report in reports)
    several = name == "all"
    bad = [report for report in reports if report.level is not Level.OK]
    texts = {text: [report.check for report in bad if report.text == text] for text in (one.text for one in bad)}
    text = (
        "; ".join(f"{', '.join(checks)}: {text}" for text, checks in texts.items()) or f"{len(reports)} checks are OK"
    )
    if not several:
        text = reports[0].text
    values = [_value(report, one, several=several) for report in reports for one in report.measures]
    data = " ".join(filter(None, values))
    yield f"JQ {name.upper()} {level.upper()} - {_plain(text)}{f' | {data}' if data else ''}"
    if several:
        yield from (f"{report.check} {report.level.upper()}: {_plain(report.text)}" for report in reports)


def _value(report: CheckReport, one: Measure, *, several: bool) -> str:
    """Return a value as performance data: ``'label'=value[unit];warn;crit;min``."""
    if one.value is None:
        return ""
    label = _plain(f"{report.check} {one.label}" if several else one.label).replace("=", "_").replace("'", "''")
    bounds = ";".join("" if bound is None else bound.text for bound in (one.warn, one.crit))
    return f"'{label}'={_number(one.value)}{one.unit};{bounds};0"


def _number(value: float) -> str:
    return str(int(value)) if value == int(value) else f"{value:.3f}"


def _plain(text: str) -> str:
    """Return a text on one line and without the bar, behind which the values stand."""
    from solidjq.text import one_line  # noqa: PLC0415

    return by_own_name(view.masked(one_line(text))).replace("|", "/")
