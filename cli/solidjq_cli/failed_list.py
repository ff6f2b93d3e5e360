"""The list of failed jobs as people read it: how many of how many, each with its incident, and the next page."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from solidjq_cli import paging
from solidjq_cli.columns.failures import ListedFailure, failure_columns
from solidjq_cli.render import Output, records

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from solidjq import Database
    from solidjq.queue.failed import Failure, Filter
    from solidjq_cli.session import Session

AT_ONCE = 500  # failures whose deaths are looked up together


def show(
    command: Session,
    database: Database,
    failures: Iterable[Failure],
    chosen: Filter,
    limit: int | None,
    *,
    empty: str,
) -> tuple[int, Failure | None, int | None]:
    """Print the newest failures, ``limit`` of them, as a table for people.

    Return how many there were, the oldest one, and how many are older; None if that takes too long to count.
    """
    from solidjq.queue.failed import count_failures  # noqa: PLC0415

    fields = failure_columns(command.policy(None, quiet=True), database.now())
    page = paging.Page(failures, limit, lambda last: database.glance(count_failures, chosen, after=last.failure_id))

    def head(shown: int) -> str:
        last = page.end(shown)
        text, older = heading(database, chosen, None if last is None else last.failure_id)
        page.count_with_heading(shown, older)
        return text

    shown = records(_with_deaths(database, page), fields, Output.TABLE, empty=empty, head=head)
    return shown, page.last, page.older(shown)


def _with_deaths(database: Database, failures: Iterable[Failure]) -> Iterator[ListedFailure]:
    from solidjq.batching import in_batches  # noqa: PLC0415
    from solidjq.incidents.failure_deaths import find_failure_deaths  # noqa: PLC0415

    for page in in_batches(failures, AT_ONCE):
        deaths = database.glance(find_failure_deaths, page) or {}
        yield from (ListedFailure(failure, deaths.get(failure.failure_id)) for failure in page)


def heading(database: Database, chosen: Filter, last: int | None = None) -> tuple[str, int | None]:
    """Say how many failures a filter takes, of how many, and how many of them died with their process.

    The number of those below the failure_id ``last`` is returned, too. All counts share one second, the slowest comes
    last; a count that has not ended by then is left out.
    """
    from solidjq.queue.failed import Filter, count_failures, count_with_older  # noqa: PLC0415
    from solidjq.rails.error_text import Death  # noqa: PLC0415
    from solidjq.text import count_of, its  # noqa: PLC0415

    glance = database.glances()
    dead = frozenset(Death.__members__.values())
    everything = Filter()
    taken, older = glance(count_with_older, chosen, last or 0) or (None, None)
    total = taken if chosen == everything else glance(count_failures, everything)
    died = taken if chosen.deaths == dead else glance(count_failures, replace(chosen, deaths=dead))
    if total is None or taken is None:
        return f"failed jobs; {paging.order()}", older
    jobs = count_of(total, "failed job")
    what = jobs if taken == total else f"{taken:,} of {jobs}"
    if died is not None and chosen.deaths == dead:
        what += f" died with {its(died)} process"
    elif died and not chosen.deaths:
        what += f", {died:,} died with {its(died)} process"
    return f"{what}; {paging.order()}" if taken > 1 else what, older


def next_page(last: Failure, older: int | None) -> None:
    """Print the last line: how many failures are older than the last one, and the command that shows them."""
    overview = "failed diff" if last.error.death is None else "incidents list"
    paging.show_next(last.failure_id, older, *([f"failed show {last.job_id}"] if older == 0 else []), overview)
