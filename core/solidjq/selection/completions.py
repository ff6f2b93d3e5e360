"""Values that a shell offers behind an option or as an argument: ids, incidents, groups, queues, classes, hosts."""

from collections.abc import Callable, Iterator
from datetime import timedelta
from enum import StrEnum
from typing import NamedTuple

from sqlalchemy import ColumnElement, Connection, Table, func, select

from solidjq.database.statements import distinct_values
from solidjq.database.tables import deaths, failed, jobs
from solidjq.database.tables import operations as operation_table
from solidjq.database.tables import processes as process_table
from solidjq.database.times import clock
from solidjq.diff.groups import groups_of
from solidjq.incidents.incidents import each_incident
from solidjq.incidents.summaries import summarize
from solidjq.ledger import operations
from solidjq.queue.failed import Filter
from solidjq.text import count_of

MOST = 50  # values of one kind
INCIDENTS_WITHIN = timedelta(days=7)
_MOST_DIGITS = 19  # of a bigint


class CompletedKind(StrEnum):
    """What a value names."""

    FAILED = "failed"  # a failed job, by its id, its incident or its group
    JOB = "job"  # the same, and jobs in any state
    INCIDENT = "incident"
    GROUP = "group"
    OPERATION = "operation"
    QUEUE = "queue"
    CLASS = "class"
    HOST = "host"


class Completion(NamedTuple):
    """A value, and what it is in a few words."""

    value: str
    words: str = ""


def find_completions(connection: Connection, kind: CompletedKind, prefix: str) -> Iterator[Completion]:
    """Yield values of this kind that begin with ``prefix``: ids the newest first, names in their order.

    At most ``MOST`` ids or incidents. Few rows are read, but for groups, for which all failures are.
    """
    return (found for found in _FINDERS[kind](connection, prefix) if found.value.startswith(prefix))


def _failed(connection: Connection, prefix: str) -> Iterator[Completion]:
    yield from _ids(connection, failed, failed.c.job_id, prefix)
    yield from _incidents(connection, prefix)
    if prefix.startswith("g"):  # to find the groups, all failures are read
        yield from _groups(connection, prefix)


def _jobs(connection: Connection, prefix: str) -> Iterator[Completion]:
    yield from _ids(connection, jobs, jobs.c.id, prefix)
    yield from _incidents(connection, prefix)
    if prefix.startswith("g"):
        yield from _groups(connection, prefix)


def _ids(connection: Connection, table: Table, column: ColumnElement[int], prefix: str) -> Iterator[Completion]:
    query = select(column, jobs.c.class_name).order_by(column.desc())
    if table is not jobs:
        query = query.join(jobs, jobs.c.id == column)
    left = MOST
    for condition in _beginning_with(connection, column, prefix):
        for number, class_name in connection.execute(query.where(*condition).limit(left)):
            left -= 1
            yield Completion(str(number), class_name)
        if not left:
            return


def _beginning_with(
    connection: Connection, column: ColumnElement[int], prefix: str
) -> Iterator[tuple[ColumnElement[bool], ...]]:
    """Yield conditions that together select the numbers that begin with these digits, each a range of an index."""
    if not prefix:
        yield ()
        return
    if not (prefix.isascii() and prefix.isdigit()) or prefix.startswith("0") or len(prefix) > _MOST_DIGITS:
        return
    top = connection.scalar(select(func.max(column))) or 0
    first, last = int(prefix), int(prefix)
    while first <= top:
        yield (column.between(first, min(last, top)),)
        first, last = first * 10, last * 10 + 9


def _incidents(connection: Connection, prefix: str) -> Iterator[Completion]:
    if prefix and prefix[0] not in "df":
        return
    incidents = summarize(each_incident(connection, since=clock(connection) - INCIDENTS_WITHIN))
    for incident in incidents[: -MOST - 1 : -1]:
        yield Completion(incident.name, f"{incident.finding.cause.value}, {count_of(incident.size, 'job')}")


def _groups(connection: Connection, prefix: str) -> Iterator[Completion]:
    if not prefix or prefix[0] == "g":
        for group in groups_of(connection, Filter()):
            yield Completion(group.name, f"{count_of(group.count, 'job')}: {group.signature.title}")


def _operations(connection: Connection, prefix: str) -> Iterator[Completion]:  # noqa: ARG001  (as the others)
    if not operations.exists(connection):
        return
    query = select(
        operation_table.c.id, operation_table.c.verb, operation_table.c.jobs, operation_table.c.actor
    ).order_by(operation_table.c.id.desc())
    for number, verb, count, actor in connection.execute(query.limit(MOST)):
        yield Completion(str(number), f"{verb}, {count_of(count, 'job')}, {actor}")


def _names(column: ColumnElement[str]) -> Callable[[Connection, str], Iterator[Completion]]:
    return lambda connection, _prefix: map(Completion, distinct_values(connection, column))


def _hosts(connection: Connection, prefix: str) -> Iterator[Completion]:  # noqa: ARG001  (as the others)
    names = set(connection.scalars(select(process_table.c.hostname).distinct()))
    if operations.exists(connection):
        since = clock(connection) - INCIDENTS_WITHIN
        names |= set(connection.scalars(select(deaths.c.hostname).where(deaths.c.noticed_at >= since).distinct()))
    yield from (Completion(name) for name in sorted(filter(None, names)))


_FINDERS: dict[CompletedKind, Callable[[Connection, str], Iterator[Completion]]] = {
    CompletedKind.FAILED: _failed,
    CompletedKind.JOB: _jobs,
    CompletedKind.INCIDENT: _incidents,
    CompletedKind.GROUP: _groups,
    CompletedKind.OPERATION: _operations,
    CompletedKind.QUEUE: _names(jobs.c.queue_name),
    CompletedKind.CLASS: _names(jobs.c.class_name),
    CompletedKind.HOST: _hosts,
}
