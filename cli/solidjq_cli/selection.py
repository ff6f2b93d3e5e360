"""The options that choose failed jobs, the same in every command, and the filter that they make."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import typer

from solidjq_cli.options import OptionGroup
from solidjq_cli.times import parse_time

if TYPE_CHECKING:
    from datetime import datetime

    from solidjq import Database
    from solidjq.incidents.incidents import Incident
    from solidjq.queue.failed import Filter

UntilOption = Annotated[str | None, typer.Option("--until", metavar="TIME", help="Failed before then.")]


@dataclass(frozen=True, slots=True, kw_only=True)
class FilterOptions(OptionGroup):
    """Which failed jobs. Different options must all hold; several values of one option are alternatives."""

    pruned: Annotated[bool, typer.Option("--pruned", help="Only jobs whose process lost its heartbeat.")] = False
    exited: Annotated[bool, typer.Option("--exited", help="Only jobs whose process was seen to exit.")] = False
    missing: Annotated[bool, typer.Option("--missing", help="Only jobs whose process was gone without trace.")] = False
    died: Annotated[bool, typer.Option("--died", help="All three: jobs that died with their process.")] = False
    error: Annotated[
        str | None, typer.Option("--error", metavar="TEXT", help="TEXT occurs in the error: class, message, backtrace.")
    ] = None
    queue: Annotated[
        list[str] | None, typer.Option("--queue", metavar="NAME", help="Only this queue, or mail*; may be repeated.")
    ] = None
    class_name: Annotated[
        list[str] | None, typer.Option("--class", metavar="NAME", help="Only this job class; may be repeated.")
    ] = None
    since: Annotated[
        str | None, typer.Option("--since", metavar="TIME", help="Failed then or later: 15m, 2h, 3d, or a time.")
    ] = None
    until: UntilOption = None

    @property
    def names_a_time(self) -> bool:
        """Whether the filter depends on the time of the failure."""
        return self.since is not None or self.until is not None

    def to_filter(self, now: datetime) -> Filter:
        """Make the filter. Raises UsageError for a malformed time."""
        from solidjq.queue.failed import Filter  # noqa: PLC0415
        from solidjq.rails.error_text import Death  # noqa: PLC0415

        deaths = {Death.PRUNED: self.pruned, Death.EXITED: self.exited, Death.MISSING: self.missing}
        return Filter(
            deaths=frozenset(death for death, wanted in deaths.items() if wanted or self.died),
            error=self.error,
            queues=tuple(self.queue or ()),
            classes=tuple(self.class_name or ()),
            since=parse_time(self.since, now, "--since") if self.since is not None else None,
            until=parse_time(self.until, now, "--until") if self.until is not None else None,
        )


def find_incidents(database: Database, since: str, until: str | None) -> list[Incident]:
    """Find the incidents noticed between these times. Raises UsageError for a malformed time."""
    from solidjq.incidents import incidents  # noqa: PLC0415

    now = database.now()
    earliest = parse_time(since, now, "--since")
    latest = None if until is None else parse_time(until, now, "--until")
    with database.read() as connection:
        return incidents.find_incidents(connection, since=earliest, until=latest)
