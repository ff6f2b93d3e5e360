"""The options that choose jobs in any state, the filter that they make, and the jobs that a verb is asked to change."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import typer

from solidjq_cli import session
from solidjq_cli.exits import Exit
from solidjq_cli.ids import read_ids
from solidjq_cli.options import OptionGroup
from solidjq_cli.render import note
from solidjq_cli.times import parse_span

if TYPE_CHECKING:
    from collections.abc import Collection

    from solidjq import Database
    from solidjq.queue.listing import JobFilter
    from solidjq.queue.states import State
    from solidjq_cli.session import Session

_REPEATED = "may be repeated."


@dataclass(frozen=True, slots=True, kw_only=True)
class JobOptions(OptionGroup):
    """Which jobs. Different options must all hold; several values of one option are alternatives."""

    state: Annotated[
        list[str] | None,
        typer.Option(
            "--state", metavar="STATE", help="ready, scheduled, blocked, claimed, failed or finished; " + _REPEATED
        ),
    ] = None
    queue: Annotated[
        list[str] | None, typer.Option("--queue", metavar="NAME", help="Only this queue, or mail*; " + _REPEATED)
    ] = None
    class_name: Annotated[
        list[str] | None, typer.Option("--class", metavar="NAME", help="Only this job class; " + _REPEATED)
    ] = None
    not_class: Annotated[
        list[str] | None, typer.Option("--not-class", metavar="NAME", help="Not this job class; " + _REPEATED)
    ] = None
    argument: Annotated[
        str | None, typer.Option("--argument", metavar="TEXT", help="TEXT occurs in the job's arguments, as JSON.")
    ] = None
    since: Annotated[
        str | None, typer.Option("--since", metavar="TIME", help="Enqueued then or later: 15m, yesterday, 12:00.")
    ] = None
    until: Annotated[
        str | None, typer.Option("--until", metavar="TIME", help="Enqueued before then: 2h is older than 2 hours.")
    ] = None
    key: Annotated[
        list[str] | None,
        typer.Option("--key", metavar="KEY", help="Only of this concurrency key, or Import/*; " + _REPEATED),
    ] = None

    @property
    def chooses(self) -> bool:
        """Whether any option is given."""
        return self != JobOptions()

    def to_filter(
        self,
        database: Database,
        ids: list[int] | None,
        default: tuple[State, ...],
        *,
        processes: list[str] | None = None,
        hosts: list[str] | None = None,
    ) -> JobFilter:
        """Return the filter; ``ids``: of these jobs only; ``default``: the states if none is given.

        Raises UsageError for an unknown state or a malformed time.
        """
        from solidjq.queue.listing import JobFilter  # noqa: PLC0415

        since, until = parse_span(self.since, self.until, database.now())
        return JobFilter(
            states=tuple(map(_state, self.state)) if self.state else default,
            job_ids=ids,
            queues=tuple(self.queue or ()),
            classes=tuple(self.class_name or ()),
            not_classes=tuple(self.not_class or ()),
            argument=self.argument,
            since=since,
            until=until,
            keys=tuple(self.key or ()),
            processes=tuple(processes or ()),
            hosts=tuple(hosts or ()),
        )


def named_jobs(database: Database, names: list[str] | None) -> tuple[list[int] | None, list[str]]:
    """Return the ids of the jobs, incidents and groups that are named, None without names, and the names of no job.

    Says which names these are. Raises as ``name_jobs`` does.
    """
    from solidjq.queue.jobs import find_jobs  # noqa: PLC0415
    from solidjq.selection.lookups import name_jobs  # noqa: PLC0415

    if not names:
        return None, []
    names_of_jobs = name_jobs(database, read_ids(names))
    with database.read() as connection:
        found = find_jobs(connection, names_of_jobs)
    missing = [name for name, views in found.items() if not views]
    for name in missing:
        note(f"no job {name}")
    return [view.job_id for views in found.values() for view in views], missing


@dataclass(frozen=True, slots=True)
class JobRequest:
    """Jobs that are named by ids or by a filter, for a verb that changes them."""

    command: Session
    database: Database
    filters: JobOptions
    ids: list[int] | None
    missing: bool  # a name is that of no job
    by_id: bool

    def filter(self, default: tuple[State, ...], takes: Collection[State], refusal: str) -> JobFilter:
        """Return the filter; raises UsageError for a state that the verb does not take."""
        from solidjq.errors import UsageError  # noqa: PLC0415

        chosen = self.filters.to_filter(self.database, self.ids, default)
        if others := [state.value for state in chosen.states if state not in takes]:
            raise UsageError(f"jobs that are {others[0]} {refusal}")
        if self.missing and not self.ids:
            raise typer.Exit(Exit.NO_SUCH_JOB)
        return chosen

    def end(self, left: int) -> None:
        """End the command after it left so many jobs alone."""
        if left or self.missing:
            raise typer.Exit(Exit.PARTLY)


def requested_jobs(verb: str, names: list[str] | None, filters: JobOptions, database: str | None) -> JobRequest:
    """Look up the jobs that are named. Raises UsageError if nothing says which jobs."""
    from solidjq.errors import UsageError  # noqa: PLC0415

    if not names and not filters.chooses:
        raise UsageError(f"which jobs? Name them (42), or a filter such as --queue; see: jq jobs {verb} --help")
    command = session.current(database)
    opened = command.open()
    ids, missing = named_jobs(opened, names)
    return JobRequest(command, opened, filters, ids, bool(missing), by_id=bool(names) and not filters.chooses)


def explain(database: Database, chosen: JobFilter) -> None:
    """Say why a filter selects no job."""
    from solidjq.selection.job_explanations import explain_no_jobs  # noqa: PLC0415

    for sentence in explain_no_jobs(database, chosen):
        note(sentence)


def _state(text: str) -> State:
    from solidjq.errors import UsageError  # noqa: PLC0415
    from solidjq.names import suggestion  # noqa: PLC0415
    from solidjq.queue.states import State  # noqa: PLC0415

    try:
        return State(text)
    except ValueError:
        names = [state.value for state in State]
        raise UsageError(f"--state {text!r}: one of {', '.join(names)}{suggestion(text, names)}") from None
