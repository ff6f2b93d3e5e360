"""Why a filter selects no failed job: a name that does not exist, or the term that leaves nothing.

Every query is bounded: existence reads one row, a count stops at ``MOST_COUNTED``, and all of them together take no
longer than ``GLANCE``. What is unknown by then is left out.
"""

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, Concatenate, NamedTuple, ParamSpec, TypeVar

from sqlalchemy import ColumnElement, Connection, select

from solidjq.database.engines import time_limit
from solidjq.database.functions import equals
from solidjq.database.statements import distinct_values
from solidjq.database.tables import deaths, jobs
from solidjq.database.transactions import GLANCE, Database
from solidjq.errors import DatabaseError, TookTooLongError
from solidjq.names import closest, suggestion
from solidjq.queue.failed import Filter, NamedFailures, count_up_to
from solidjq.rails.error_text import Death
from solidjq.text import its

MOST_COUNTED = 10_000
_LIKELY = 3  # similar names that are checked for failed jobs
_NO_FILTER = Filter()

P = ParamSpec("P")
T = TypeVar("T")


def explain_nothing(database: Database, chosen: Filter, *, implied_deaths: bool = False) -> list[str]:
    """Return, in sentences, why a filter selects no failed job; none if no job has failed at all.

    ``implied_deaths``: a safe retry added the term that the job died with its process; the operator did not.
    """
    queries = BoundedQueries(database, time.monotonic() + GLANCE)
    sentences, are_all = found_in_time(_explain(queries, chosen, implied_deaths=implied_deaths))
    return sentences if sentences or are_all else ["no failed job matches the filter"]


def found_in_time(sentences: Iterator[str]) -> tuple[list[str], bool]:
    """Return the sentences of an explanation that are found before the time is over, and whether that is all.

    An error of the database ends it too: the answer is that nothing was selected, and it has been given.
    """
    found: list[str] = []
    try:
        for sentence in sentences:
            found.append(sentence)  # noqa: PERF402  (what was found before the error stays)
    except DatabaseError:
        return found, False
    return found, True


def unknown_names(connection: Connection, chosen: Filter) -> list[str]:
    """Return a sentence on each class or queue that no job has, of several alternatives or of ``not_classes``.

    One index entry is read for each; patterns are left out. Use it for a filter that selects something.
    """
    several = [(what, names) for what, names in (("class", chosen.classes), ("queue", chosen.queues)) if len(names) > 1]
    several.append(("class", chosen.not_classes))
    each = (unknown_name(connection, what, name) for what, names in several for name in names)
    return [sentence for sentence in each if sentence is not None]


def unknown_name(connection: Connection, what: str, name: str) -> str | None:
    """Return a sentence on a ``class`` or ``queue`` that no job has; None if one has it, and for a pattern."""
    if name.endswith("*") or _has_job(connection, _COLUMNS[what], name):
        return None
    return f"no job of {what} {name}{suggestion(name, distinct_values(connection, _COLUMNS[what]))}"


_COLUMNS: dict[str, ColumnElement[str]] = {"class": jobs.c.class_name, "queue": jobs.c.queue_name}


@dataclass(frozen=True, slots=True)
class BoundedQueries:
    """Queries that share one deadline; one that would end later raises TookTooLongError."""

    database: Database
    deadline: float

    def run(self, at: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Return what a query finds; raises TookTooLongError if it would end after the deadline."""
        left = self.deadline - time.monotonic()
        if left <= 0:
            raise TookTooLongError("the time for an explanation is over")
        with self.database.read() as connection, time_limit(connection, left):
            return at(connection, *args, **kwargs)

    def count(self, chosen: Filter, most: int = MOST_COUNTED) -> int:
        """Count the failures that match a filter, up to ``most``."""
        return self.run(count_up_to, chosen, most)


def _explain(queries: BoundedQueries, chosen: Filter, *, implied_deaths: bool) -> Iterator[str]:
    if not queries.count(_NO_FILTER, 1):
        return
    missing = list(_missing_names(queries, chosen))
    yield from missing
    if missing:
        return
    if implied_deaths:
        errors = queries.count(replace(chosen, deaths=frozenset()))
        if errors:
            own = f"{_number(errors)} failed with an error of {its(errors)} own"
            yield f"0 died with their process; {own} (--include-errors takes them)"
            return
    terms = [term for term in _terms(chosen) if not (implied_deaths and term.words == _DIED)]
    for term in terms:
        # Texts are searched for last: that reads the errors.
        if not (term.alone.error or term.alone.argument or queries.count(term.alone, 1)):
            yield f"{term.words} matches none of {_failed_jobs(queries.count(_NO_FILTER))}"
            return
    if len(terms) == 1:
        yield f"{terms[0].words} matches none of {_failed_jobs(queries.count(_NO_FILTER))}"
        return
    helps = [f"without {term.words}: {_number(count)}" for term, count in _counts(queries, terms) if count]
    yield "no failed job matches all of these terms" + ("" if helps else ", and more than one of them leaves nothing")
    yield from helps


def _counts(queries: BoundedQueries, terms: Iterable["_Term"]) -> Iterator[tuple["_Term", int]]:
    """Yield each term with the count of the failures without it, as long as there is time."""
    with suppress(TookTooLongError):
        for term in terms:
            yield term, queries.count(term.without)


# -- names that no failed job has -------------------------------------------------------------------------------------


def _missing_names(queries: BoundedQueries, chosen: Filter) -> Iterator[str]:
    """Yield a sentence on each name that no failed job has: of a class, queue, host, incident or group."""
    for name in chosen.classes:
        yield from _of_jobs(queries, "class", name, lambda other: Filter(classes=(other,)))
    for name in chosen.queues:
        yield from _of_jobs(queries, "queue", name, lambda other: Filter(queues=(other,)))
    for name in chosen.hosts:
        if not queries.count(Filter(hosts=(name,)), 1):
            hosts = queries.run(_hosts)
            if name in hosts:
                yield f"no job that died on host {name} is still failed"
            else:
                yield f"no job is known to have died on host {name}{suggestion(name, hosts)}"
    for each in chosen.named:
        if not queries.count(Filter(named=(each,)), 1):
            yield f"no job of {' or '.join(each.names)} is failed any more"


def _of_jobs(queries: BoundedQueries, what: str, name: str, by_name: Callable[[str], Filter]) -> Iterator[str]:
    if queries.count(by_name(name), 1):
        return
    if name.endswith("*"):
        yield f"no {what} among the failed jobs begins with {name[:-1]}"
    elif queries.run(_has_job, _COLUMNS[what], name):
        yield f"no job of {what} {name} has failed"
    else:
        likely = closest(name, queries.run(distinct_values, _COLUMNS[what]), _LIKELY)
        failed = [other for other in likely if queries.count(by_name(other), 1)]
        yield f"no {what} {name} among the failed jobs{suggestion(name, failed)}"


def _has_job(connection: Connection, column: ColumnElement[str], name: str) -> bool:
    return connection.scalar(select(jobs.c.id).where(equals(column, name)).limit(1)) is not None


def _hosts(connection: Connection) -> list[str]:
    return list(connection.scalars(select(deaths.c.hostname).where(deaths.c.hostname.is_not(None)).distinct()))


# -- the terms of a filter --------------------------------------------------------------------------------------------

_DIED = "--died"


class _Term(NamedTuple):
    """One term of a filter: its option in words, the filter with this term alone, and the filter without it."""

    words: str
    alone: Filter
    without: Filter


def _terms(chosen: Filter) -> Iterator[_Term]:
    fields: dict[str, str] = {
        "deaths": _DIED
        if chosen.deaths == frozenset(Death)
        else " ".join(f"--{death.value}" for death in Death if death in chosen.deaths),
        "error": f"--error {chosen.error!r}",
        "queues": _repeated("--queue", chosen.queues),
        "classes": _repeated("--class", chosen.classes),
        "not_classes": _repeated("--not-class", chosen.not_classes),
        "argument": f"--argument {chosen.argument!r}",
        "hosts": _repeated("--host", chosen.hosts),
        "since": f"--since {_utc(chosen.since)}",
        "until": f"--until {_utc(chosen.until)}",
    }
    for name, words in fields.items():
        if value := getattr(chosen, name):
            only: dict[str, Any] = {name: value}
            yield _Term(words, Filter(**only), replace(chosen, **{name: getattr(_NO_FILTER, name)}))
    for each in chosen.named:
        others = tuple(other for other in chosen.named if other is not each)
        yield _Term(_named(each), Filter(named=(each,)), replace(chosen, named=others))


def _repeated(option: str, names: tuple[str, ...]) -> str:
    return " ".join(f"{option} {name}" for name in names)


def _named(named: NamedFailures) -> str:
    option = {"incidents": "--incident", "groups": "--group"}.get(named.kind)
    return " ".join(named.names) if option is None else _repeated(option, named.names)


def _utc(time: datetime | None) -> str:
    return "" if time is None else time.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _number(count: int) -> str:
    return f"{count:,} or more" if count >= MOST_COUNTED else f"{count:,}"


def _failed_jobs(count: int) -> str:
    if count >= MOST_COUNTED:
        return f"the failed jobs, {_number(count)}"
    return f"the {count:,} failed jobs" if count != 1 else "the 1 failed job"
