"""``jq history``."""

from __future__ import annotations

from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import chain, islice
from typing import TYPE_CHECKING, Annotated

import typer

from solidjq_cli import history_view, options, selection, session
from solidjq_cli.columns.operations import event_fields
from solidjq_cli.exits import Exit
from solidjq_cli.ids import OptionalIdsArgument, read_ids
from solidjq_cli.render import Output, drawn, note, records
from solidjq_cli.selection import FilterOptions

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from solidjq import Database
    from solidjq.ledger.history import Event

MOST_JOBS = 100


def add_to(app: typer.Typer) -> None:
    """Add the command."""
    app.command("history")(history)


@options.grouped
def history(
    names: OptionalIdsArgument = None,
    *,
    filters: FilterOptions,
    limit: Annotated[
        int,
        typer.Option("--limit", metavar="N", min=1, max=options.MOST_ID, help="Of at most N jobs.", show_default=True),
    ] = MOST_JOBS,
    output: options.OutputOption = Output.TABLE,
    database: options.DatabaseOption = None,
) -> None:
    """Show a job's whole life: failures, retries, by whom and why.

    It spans every attempt under one Active Job id, failures that a retry took away, and jobs that are gone by now. An
    incident names the jobs that were in flight at it, whatever became of them. A filter takes failed jobs, of those
    that are named if any are.

    \b
    Examples:
      jq history 42
      jq history 0b8e9c1a-0f6a-4c0e-9d56-2f7c2f6d5a10 -o json
      jq history d13
      jq history --class ReportJob --host worker-4
    """
    from solidjq.errors import DatabaseError, UsageError
    from solidjq.text import count_of

    if not names and filters == FilterOptions():
        raise UsageError("which jobs? Name them, or a filter such as --class or --host; see: jq history --help")
    opened = session.current(database).open()
    no_filter = filters == FilterOptions()
    wanted = _named(opened, read_ids(names)) if names and no_filter else _failed(opened, names, filters)
    lives = _Lives(opened)
    if drawn(output):
        first = history_view.draw(lives.each(islice(wanted, limit)))
    else:
        events = chain.from_iterable(lives.each(islice(wanted, limit)))
        first = list(islice(events, 1))
        if first or not names:
            records(chain(first, events), event_fields(), output)
    more = None
    with suppress(DatabaseError):  # the answer stands above
        more = next(wanted, None)
    if more is not None:
        note(f"of the first {count_of(limit, 'job')} only; see --limit")
    for name in lives.missing:
        note(f"no job {name}")
    if lives.missing:
        raise typer.Exit(Exit.PARTLY if first else Exit.NO_SUCH_JOB)
    if output is Output.TABLE and first and not drawn(output):
        note(f"{count_of(lives.kinds['crash'], 'crash')}, {count_of(lives.kinds['retried'], 'retry')}")


def _named(opened: Database, names: list[str]) -> Iterator[str]:
    from solidjq.selection.lookups import name_jobs

    return iter(name_jobs(opened, names))


def _failed(opened: Database, names: list[str] | None, filters: FilterOptions) -> Iterator[str]:
    """Yield the ids of the failed jobs that the filter takes, the newest first; say why if there are none.

    ``names``: of these only.
    """
    from solidjq.queue.failed import list_failure_ids

    chosen = filters.resolve(opened, names, include_jobs=True).chosen
    count = 0
    for failure in list_failure_ids(opened, chosen, limit=None):
        count += 1
        yield str(failure.job_id)
    if not count:
        note("no failed jobs")
        selection.explain(opened, chosen)


@dataclass(slots=True)
class _Lives:
    """The events of several jobs, one life after the other; jobs of one Active Job id are one life."""

    opened: Database
    missing: list[str] = field(default_factory=list)
    kinds: Counter[str] = field(default_factory=Counter)

    def each(self, names: Iterable[str]) -> Iterator[list[Event]]:
        """Yield the events of each life that there is."""
        from solidjq.ledger import history as lives

        shown: set[str] = set()
        for name in names:
            if name in shown:
                continue
            with self.opened.read() as connection:
                events = lives.history(connection, name)
            shown.update(str(event.job_id) for event in events)
            if not events:
                self.missing.append(name)
                continue
            self.kinds.update(event.event for event in events)
            self.kinds["crash"] += sum(event.crash for event in events)
            yield events
