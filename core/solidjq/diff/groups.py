"""Groups of failures with one signature: how many there are, of which classes and queues, from when to when.

The database counts equal errors first, by their first ``HEAD`` characters; of each kind only one is read to its end.
"""

import time
from array import array
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, Select, Subquery, case, func, select, true, type_coerce
from sqlalchemy.sql.visitors import replacement_traverse

from solidjq.batching import in_batches
from solidjq.database.any_types import ANY_BYTES, ANY_TEXT
from solidjq.database.grouping import before, exact_text, from_first, gathered, zeroed
from solidjq.database.statements import among, octets
from solidjq.database.tables import crashes, failed, failures, jobs
from solidjq.database.transactions import Database
from solidjq.diff.failure_groups import FailureGroup, fold
from solidjq.diff.folding import fold_of, folds_of, names_among
from solidjq.diff.signatures import (
    BACKTRACE,
    FIRST_FRAME,
    MESSAGE_KEY,
    READ,
    Signature,
    hides_digits,
    outline,
    signature_of,
)
from solidjq.incidents import incidents
from solidjq.ledger import archive, operations
from solidjq.queue.failed import Filter, conditions, parts

HEAD = 500  # characters of the error that are read of every failure
DEATHS_AROUND = timedelta(hours=1)  # how long after its first job failed a death may be noticed
PAGE = 20_000  # failures that one statement reads
SHORT = 2_000  # bytes: PostgreSQL may compress a longer error
CODED = 500  # kinds of errors with digits that matter: if there are more, all errors are read as they are
EXAMPLES = 100  # whole errors that one statement reads

SignatureCache = dict[tuple[object, ...], Signature]  # by the outline of an error


@dataclass(frozen=True, slots=True)
class _Source:
    """A table of failures, ``failed_executions`` or ``jq_failures``, with its columns under one set of names."""

    id: ColumnElement[int]
    failure_id: ColumnElement[int]  # in both tables that of failed_executions
    job_id: ColumnElement[int]
    error: ColumnElement[Any]
    failed_at: ColumnElement[Any]
    class_name: ColumnElement[str]
    queue_name: ColumnElement[str]
    conditions: Callable[[Filter], Iterable[ColumnElement[bool]]]
    joined: bool = False

    def page(self, chosen: Filter, after: int, *, raw: bool, counted: bool) -> Select[Any]:
        """Return the statement for the next page of failures that the filter matches, with the text that is compared.

        ``raw``: with the head of each error as it is, besides. ``counted``: with each failure's class and queue.
        """
        query = select(
            self.id.label("id"),
            self.failure_id.label("failure_id"),
            self.job_id.label("job_id"),
            self.failed_at.label("failed_at"),
            octets(self.error).label("size"),
            *_folded(self.error),
        )
        if raw:
            query = query.add_columns(_head(self.error).label("raw"))
        if counted:
            names = (self.class_name.label("class_name"), self.queue_name.label("queue_name"))
            query = query.add_columns(*(exact_text(name).label(name.name) for name in names))
        # Every failure has a job: the join is needed only for the job's columns.
        if self.joined and (counted or chosen.reads_jobs):
            query = query.join_from(failed, jobs, jobs.c.id == failed.c.job_id)
        return query.where(self.id > after, *self.conditions(chosen)).order_by(self.id).limit(PAGE)


def _head(error: ColumnElement[str]) -> ColumnElement[str]:
    return exact_text(func.substr(error, 1, HEAD))


def _folded(error: ColumnElement[str]) -> tuple[ColumnElement[str], ColumnElement[str]]:
    """Return an error up to its message, and its head with zeros for the digits before the backtrace.

    Of a hundred thousand errors that differ in a number the database makes one row. If there is no backtrace, or not
    soon, the first is NULL and the second the head as it is.
    """
    # The beginning of a long text: PostgreSQL decompresses no more of it.
    begun = case((octets(error) <= SHORT, error), else_=func.substr(error, 1, HEAD))
    start = before(begun, BACKTRACE)
    has_backtrace = octets(start) < octets(begun)
    length = case((octets(error) <= HEAD, HEAD), else_=len(BACKTRACE) + FIRST_FRAME)
    zeros = zeroed(exact_text(start)) + exact_text(from_first(begun, BACKTRACE, length))
    return (
        case((has_backtrace, exact_text(before(start, MESSAGE_KEY)))).label("name"),
        type_coerce(case((has_backtrace, zeros), else_=_head(error)), ANY_BYTES).label("head"),
    )


_ARCHIVED = {
    failed.c.id: failures.c.failure_id,
    failed.c.error: failures.c.error,
    failed.c.created_at: failures.c.failed_at,
    jobs.c.queue_name: failures.c.queue_name,
    jobs.c.class_name: failures.c.class_name,
    jobs.c.arguments: failures.c.arguments,
}


def _archived_conditions(chosen: Filter) -> Iterator[ColumnElement[bool]]:
    """Yield the filter's conditions on ``failed_executions`` as conditions on the archive."""
    yield failures.c.restored_by.is_(None)  # an undone failure is in failed_executions again
    yield failures.c.failure_id > archive.NO_FAILURE
    for condition in conditions(chosen):
        yield replacement_traverse(condition, {}, lambda element, **_: _ARCHIVED.get(element))


_FAILED = _Source(
    failed.c.id,
    failed.c.id,
    failed.c.job_id,
    failed.c.error,
    failed.c.created_at,
    jobs.c.class_name,
    jobs.c.queue_name,
    conditions,
    joined=True,
)
_ARCHIVE = _Source(
    failures.c.id,
    failures.c.failure_id,
    failures.c.job_id,
    failures.c.error,
    failures.c.failed_at,
    failures.c.class_name,
    failures.c.queue_name,
    _archived_conditions,
)


def group_failures(database: Database, chosen: Filter) -> list[FailureGroup]:
    """Return the failures that the filter matches, grouped by signature and folded, the largest group first."""
    with database.read() as connection:
        return groups_of(connection, chosen)


def groups_of(connection: Connection, chosen: Filter) -> list[FailureGroup]:
    """Return what ``group_failures`` does, in the transaction of the caller."""
    groups = _unfolded(connection, chosen)
    return fold(groups, folds_of(group.signature for group in groups))


def group_windows(database: Database, chosen: Sequence[Filter]) -> list[list[FailureGroup]]:
    """Return the groups for each of these filters; what is folded in one is folded in all.

    Failures that ``jq`` retried or discarded since are counted too.
    """
    with database.read() as connection:
        unfolded = [_unfolded(connection, each, archived=True) for each in chosen]
    folds = folds_of(dict.fromkeys(group.signature for groups in unfolded for group in groups))
    return [fold(groups, folds) for groups in unfolded]


def _unfolded(connection: Connection, chosen: Filter, *, archived: bool = False) -> list[FailureGroup]:
    """Return a group for each signature."""
    groups: dict[Signature, FailureGroup] = {}
    for row, signature in _counted(connection, chosen, archived=archived):
        if (group := groups.get(signature)) is None:
            group = groups[signature] = FailureGroup(signature)
        group.add(row.class_name, row.queue_name, row.failures, row.first_at, row.last_at, row.job_id)
    _add_deaths(connection, [group for group in groups.values() if group.signature.death is not None], chosen)
    return list(groups.values())


def _counted(connection: Connection, chosen: Filter, *, archived: bool = False) -> Iterator[tuple[Row[Any], Signature]]:
    """Yield a row for all failures of a page with equal errors, class and queue, with their signature."""
    cache: SignatureCache = {}
    for source in _sources(connection, archived=archived):
        for part in parts(chosen):
            pages = _Pages(source, part, cache)
            while pages.more:
                yield from pages.read(connection)


def count_problems(connection: Connection, chosen: Filter, *, seconds: float) -> tuple[int, bool]:
    """Count the groups of failures that are no deaths; stop when that takes ``seconds``, and return whether it did."""
    until = time.monotonic() + seconds
    signatures: dict[Signature, None] = {}
    stopped = False
    for _, signature in _counted(connection, chosen):
        if signature.death is None:
            signatures[signature] = None
        if stopped := time.monotonic() > until:
            break
    folds = folds_of(signatures)
    return len({folds.get(signature, signature) for signature in signatures}), stopped


def _add_deaths(connection: Connection, died: Collection[FailureGroup], chosen: Filter) -> None:
    """Add the causes and hosts of the deaths to the groups of failures by death."""
    since = min((group.first_at for group in died if group.first_at is not None), default=None)
    if since is None:
        return
    by_name = {group.name: group for group in died}
    of_chosen = _names_of_deaths(connection, chosen) if chosen.hosts or chosen.named else None
    counted = []
    for death, classes, finding in incidents.judge_by_class(connection, since - DEATHS_AROUND):
        if classes and (of_chosen is None or death.name in of_chosen):
            name = signature_of(death.error).name
            counted.append((death.name[0], int(death.name[1:]), name, finding.words, death.hostname, classes.total()))
    for _, _, name, words, hostname, count in sorted(counted):
        if (group := by_name.get(name)) is not None:
            group.causes[words] += count
            if hostname is not None:
                group.hosts[hostname] += count


def _names_of_deaths(connection: Connection, chosen: Filter) -> set[str]:
    """Return the names of the deaths that failures which the filter matches are of."""
    names = set() if chosen.hosts else {f"f{number}" for number in chosen.failure_ids() or ()}
    if operations.exists(connection):
        columns = crashes.c
        for part in parts(chosen):
            matching = select(failed.c.id).join(jobs, jobs.c.id == failed.c.job_id).where(*conditions(part))
            query = select(columns.death_id).where(columns.failure_id.in_(matching), columns.death_id.is_not(None))
            names.update(f"d{number}" for number in connection.scalars(query.distinct()))
    return names


def find_group(database: Database, name: str, chosen: Filter | None = None) -> FailureGroup | None:
    """Return the group of this name, of the jobs failed now or else with those archived; None if there is none."""
    names = frozenset([name])
    for archived in (False, True):
        with database.read() as connection:
            groups = _unfolded(connection, chosen or Filter(), archived=archived)
        members = [group for group in groups if names_among(group.signature, names)]
        if members:
            alone = next((group for group in members if group.name == name), None)
            folds = {} if alone else {group.signature: fold_of(group.signature, name) for group in members}
            return fold([alone] if alone else members, folds)[0]
    return None


def job_ids(database: Database, chosen: Filter, names: Collection[str]) -> Iterator[int]:
    """Yield the ids of the jobs failed now in the groups of these names, in the order of their failures."""
    wanted = frozenset(names)
    for page in _members(database, _FAILED, chosen):
        found = [row for row, signature in page if names_among(signature, wanted)]
        pairs = (pair for row in found for pair in zip(row.failure_ids, row.job_ids, strict=True))
        yield from (job_id for _, job_id in sorted(pairs))


def find_members(
    database: Database, names: Collection[str], *, archived: bool = False
) -> "tuple[dict[str, array[int]], set[str]]":
    """Return the failure_ids of each of these groups, ascending, and the names of all groups.

    With ``archived``, failures that ``jq`` retried or discarded since are members too. Eight bytes a failure.
    """
    members = {name: array("q") for name in names}
    wanted = frozenset(names)
    groups: set[str] = set()
    with database.read() as connection:
        sources = _sources(connection, archived=archived)
    for source in sources:
        for page in _members(database, source, Filter()):
            for row, signature in page:
                groups.add(signature.name)
                for name in names_among(signature, wanted):
                    groups.add(name)
                    members[name].extend(row.failure_ids)
    return {name: array("q", sorted(ids)) for name, ids in members.items()}, groups


def _members(database: Database, source: _Source, chosen: Filter) -> Iterator[list[tuple[Row[Any], Signature]]]:
    """Yield pages of rows, one for all failures with equal errors, with their ids and their signature."""
    cache: SignatureCache = {}
    for part in parts(chosen):
        pages = _Pages(source, part, cache, counted=False)
        while pages.more:
            with database.read() as connection:
                page = pages.read(connection)
            yield page


def signatures_of(connection: Connection, rows: Sequence[Row[Any]], cache: "SignatureCache") -> list[Signature]:
    """Return the signature of each of these failures, of which a row has ``id``, ``head`` and ``size`` of the error.

    ``head`` is its first ``HEAD`` characters. Of errors with one outline only one is read whole; ``cache`` keeps that.
    """
    kinds = [outline(row.head, row.size, HEAD) for row in rows]
    return _signatures(connection, _FAILED, rows, kinds, cache)


def newest_job_ids(connection: Connection, chosen: Filter, limit: int) -> list[int]:
    """Return the ids of the ``limit`` jobs that failed last, among those that the filter matches."""
    query = select(failed.c.job_id).join_from(failed, jobs, jobs.c.id == failed.c.job_id)
    newest: list[int] = []
    for part in parts(chosen, newest_first=True):
        page = query.where(*conditions(part)).order_by(failed.c.id.desc()).limit(limit - len(newest))
        newest += connection.scalars(page)
        if len(newest) >= limit:
            break
    return newest


def _sources(connection: Connection, *, archived: bool) -> list[_Source]:
    return [_FAILED, _ARCHIVE] if archived and operations.exists(connection) else [_FAILED]


class _Pages:
    """Reads the failures that a filter matches page by page; those of a page with equal errors are one row.

    ``counted``: a row has class, queue, ``failures``, ``first_at``, ``last_at`` and the newest ``job_id``; otherwise
    the ``failure_ids`` and ``job_ids``.
    """

    def __init__(self, source: _Source, chosen: Filter, cache: SignatureCache, *, counted: bool = True) -> None:
        self.more = True
        self._source = source
        self._chosen = chosen
        self._cache = cache
        self._counted = counted
        self._after = 0
        self._coded: dict[str, None] = {}  # heads with zeros for digits that matter: these errors are read as they are
        self._folds = True  # otherwise all errors are

    def read(self, connection: Connection) -> list[tuple[Row[Any], Signature]]:
        """Return the rows of the next page, each with its signature."""
        while True:
            rows = connection.execute(self._query()).all()
            coded = {row.head: None for row in rows if row.name is not None and hides_digits(_whole_head(row))}
            if not coded:
                break
            # A head that was not valid text is read as another: the database finds none that equals it.
            self._folds = not coded.keys() <= self._coded.keys() and len(self._coded | coded) <= CODED
            self._coded |= coded
        self.more = sum(row.failures for row in rows) == PAGE
        self._after = max((row.id for row in rows), default=0)
        kinds = [_outline(row) for row in rows]
        return list(zip(rows, _signatures(connection, self._source, rows, kinds, self._cache), strict=True))

    def _query(self) -> Select[Any]:
        page = self._source.page(self._chosen, self._after, raw=bool(self._coded), counted=self._counted).subquery()
        if self._coded:
            page = _unfolded_where(page, self._coded if self._folds else ())
        columns = page.c
        kind = [columns.name, columns.head, columns.size]
        facts = [func.count().label("failures"), func.max(columns.id).label("id")]
        if self._counted:
            kind += [columns.class_name, columns.queue_name]
            facts += [
                func.min(columns.failed_at).label("first_at"),
                func.max(columns.failed_at).label("last_at"),
                func.max(columns.job_id).label("job_id"),
            ]
        else:
            facts += [gathered(columns.failure_id).label("failure_ids"), gathered(columns.job_id).label("job_ids")]
        return select(*kind, *facts).group_by(*kind)


def _unfolded_where(page: Subquery, coded: Collection[str]) -> Subquery:
    """Return a page with the heads as they are instead of these; instead of all if none is named."""
    name, head, raw = page.c.name, page.c.head, page.c.raw
    is_coded = head.in_(coded) if coded else true()
    others = [column for column in page.c if column not in {name, head, raw}]
    return select(
        case((~is_coded, name)).label("name"), case((is_coded, raw), else_=head).label("head"), *others
    ).subquery()


def _outline(row: Row[Any]) -> tuple[object, ...]:
    return outline(row.head, row.size, HEAD) if row.name is None else outline(_whole_head(row), row.size, 0)


def _whole_head(row: Row[Any]) -> str:
    """Return the head of an error with zeros in the message alone."""
    name: str = row.name
    return name + str(row.head)[len(name) :]


def _signatures(
    connection: Connection,
    source: _Source,
    rows: Sequence[Row[Any]],
    kinds: Sequence[tuple[object, ...]],
    cache: SignatureCache,
) -> list[Signature]:
    """Return the signature of each row, of which ``kinds`` has the outline; of each kind only one is read whole."""
    wanted = {row.id: kind for row, kind in zip(rows, kinds, strict=True) if not _whole(kind) and kind not in cache}
    examples = {kind: row_id for row_id, kind in wanted.items()}
    for batch in in_batches(examples.values(), EXAMPLES):
        text = func.substr(source.error, 1, READ, type_=ANY_TEXT)
        for row_id, error in connection.execute(select(source.id, text).where(among(source.id, batch))):
            cache[wanted[row_id]] = signature_of(error)
    # If a failure was moved between the two statements, its head is all that is left.
    return [
        kind[0] if isinstance(kind[0], Signature) else cache.get(kind) or signature_of(row.head)
        for row, kind in zip(rows, kinds, strict=True)
    ]


def _whole(kind: tuple[object, ...]) -> bool:
    return isinstance(kind[0], Signature)
