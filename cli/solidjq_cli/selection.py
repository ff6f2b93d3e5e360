"""The options that choose failed jobs, the same in every command, and the filter that they make."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from solidjq_cli.ids import read_ids
from solidjq_cli.options import OptionGroup
from solidjq_cli.render import note
from solidjq_cli.times import parse_span

if TYPE_CHECKING:
    from solidjq import Database
    from solidjq.incidents.summaries import IncidentSummary
    from solidjq.queue.failed import Filter
    from solidjq.selection.request import RequestedFailures

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
    not_class: Annotated[
        list[str] | None, typer.Option("--not-class", metavar="NAME", help="Not this job class; may be repeated.")
    ] = None
    argument: Annotated[
        str | None, typer.Option("--argument", metavar="TEXT", help="TEXT occurs in the job's arguments, as JSON.")
    ] = None
    since: Annotated[
        str | None,
        typer.Option("--since", metavar="TIME", help="Failed then or later: 15m, 2h ago, yesterday, 12:00, a date."),
    ] = None
    until: UntilOption = None
    host: Annotated[
        list[str] | None,
        typer.Option("--host", metavar="NAME", help="Died with a process on this host, or web*; may be repeated."),
    ] = None
    incident: Annotated[
        list[str] | None,
        typer.Option("--incident", metavar="NAME", help="In flight at this incident: d13, f123; may be repeated."),
    ] = None
    group: Annotated[
        list[str] | None,
        typer.Option("--group", metavar="NAME", help="Of this group of jq failed diff: g2569e0c; may be repeated."),
    ] = None

    def _filter(self, now: datetime) -> Filter:
        from solidjq.queue.failed import Filter  # noqa: PLC0415
        from solidjq.rails.error_text import Death  # noqa: PLC0415

        deaths = {Death.PRUNED: self.pruned, Death.EXITED: self.exited, Death.MISSING: self.missing}
        since, until = parse_span(self.since, self.until, now)
        return Filter(
            deaths=frozenset(death for death, wanted in deaths.items() if wanted or self.died),
            error=self.error,
            queues=tuple(self.queue or ()),
            classes=tuple(self.class_name or ()),
            not_classes=tuple(self.not_class or ()),
            argument=self.argument,
            since=since,
            until=until,
            hosts=tuple(self.host or ()),
        )

    def resolve(
        self,
        database: Database,
        names: list[str] | None = None,
        *,
        include_jobs: bool = False,
        archived: bool = False,
        empty: bool = False,
    ) -> RequestedFailures:
        """Look up the jobs, incidents and groups that are named, with - read from standard input.

        ``empty``: no name, as from an empty standard input, means no job. ``include_jobs`` and ``archived`` are those
        of ``solidjq.selection.lookups.resolve``, as is what is raised.
        """
        from solidjq.selection.request import FailureRequest, RequestedFailures  # noqa: PLC0415

        # Only a filter by time needs the database's clock, which takes a transaction.
        names_a_time = self.since is not None or self.until is not None
        request = FailureRequest(
            names=read_ids(names or []) if names or empty else None,
            incidents=self.incident or (),
            groups=self.group or (),
            chosen=self._filter(database.now() if names_a_time else datetime.now(UTC)),
        )
        if request.plain:  # the rest loads far more
            return RequestedFailures(request.chosen, {}, by_id=False)
        from solidjq.selection.lookups import resolve  # noqa: PLC0415

        return resolve(database, request, include_jobs=include_jobs, archived=archived)


def explain(database: Database, chosen: Filter, *, implied_deaths: bool = False) -> None:
    """Say why a filter selects no failed job; nothing if no job has failed at all."""
    from solidjq.selection.explanations import explain_nothing  # noqa: PLC0415

    for sentence in explain_nothing(database, chosen, implied_deaths=implied_deaths):
        note(sentence)


def note_unknown_names(database: Database, chosen: Filter) -> None:
    """Say which of several classes or queues, or of the classes left out, no job has: one may be misspelled."""
    if len(chosen.classes) > 1 or len(chosen.queues) > 1 or chosen.not_classes:
        from solidjq.selection.explanations import unknown_names  # noqa: PLC0415

        for sentence in database.glance(unknown_names, chosen) or ():
            note(sentence)


def summarize_incidents(
    database: Database, since: str, until: str | None, *, waiting: bool = False
) -> list[IncidentSummary]:
    """Find the incidents noticed between these times, their jobs only counted; ``waiting``: those still failed, too.

    Raises UsageError for a malformed time.
    """
    from solidjq.incidents.incidents import each_incident  # noqa: PLC0415
    from solidjq.incidents.summaries import summarize  # noqa: PLC0415

    earliest, latest = parse_span(since, until, database.now())
    with database.read() as connection:
        return summarize(each_incident(connection, since=earliest, until=latest, waiting=waiting))
