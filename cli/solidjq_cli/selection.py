"""The options that choose failed jobs, the same in every command, and the filter that they make."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Annotated

import typer

from solidjq_cli.times import parse_time

if TYPE_CHECKING:
    from collections.abc import Sequence

    from solidjq import Database
    from solidjq.incidents.incidents import Incident
    from solidjq.queue.failed import Filter

PrunedOption = Annotated[bool, typer.Option("--pruned", help="Only jobs whose process lost its heartbeat.")]
ExitedOption = Annotated[bool, typer.Option("--exited", help="Only jobs whose process was seen to exit.")]
MissingOption = Annotated[bool, typer.Option("--missing", help="Only jobs whose process was gone without trace.")]
DiedOption = Annotated[bool, typer.Option("--died", help="All three: jobs that died with their process.")]
ErrorOption = Annotated[
    str | None, typer.Option("--error", metavar="TEXT", help="TEXT occurs in the error: class, message, backtrace.")
]
QueueOption = Annotated[
    list[str] | None, typer.Option("--queue", metavar="NAME", help="Only this queue, or mail*; may be repeated.")
]
ClassOption = Annotated[
    list[str] | None, typer.Option("--class", metavar="NAME", help="Only this job class; may be repeated.")
]
SinceOption = Annotated[
    str | None, typer.Option("--since", metavar="TIME", help="Failed then or later: 15m, 2h, 3d, or a time.")
]
UntilOption = Annotated[str | None, typer.Option("--until", metavar="TIME", help="Failed before then.")]


def find_incidents(database: Database, since: str, until: str | None) -> list[Incident]:
    """Find the incidents noticed between these times. Raises UsageError for a time that is none."""
    from solidjq.incidents import incidents  # noqa: PLC0415

    now = database.now()
    earliest = parse_time(since, now, "--since")
    latest = None if until is None else parse_time(until, now, "--until")
    with database.read() as connection:
        return incidents.find_incidents(connection, since=earliest, until=latest)


def make_filter(
    now: datetime,
    *,
    pruned: bool,
    exited: bool,
    missing: bool,
    died: bool,
    error: str | None,
    queue: Sequence[str] | None,
    class_name: Sequence[str] | None,
    since: str | None,
    until: str | None,
) -> Filter:
    """Make the filter that these options describe. Raises UsageError for a time that is none."""
    from solidjq.queue.failed import Filter  # noqa: PLC0415
    from solidjq.rails.error_text import Death  # noqa: PLC0415

    deaths = {Death.PRUNED: pruned, Death.EXITED: exited, Death.MISSING: missing}
    return Filter(
        deaths=frozenset(death for death, wanted in deaths.items() if wanted or died),
        error=error,
        queues=tuple(queue or ()),
        classes=tuple(class_name or ()),
        since=parse_time(since, now, "--since") if since is not None else None,
        until=parse_time(until, now, "--until") if until is not None else None,
    )
