"""Pages of failures: those of a page with equal errors are one row, counted by the database, with their signature.

Errors are compared by their first ``HEAD`` characters; of each kind only one is read to its end.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    Row,
    Select,
    Subquery,
    and_,
    case,
    func,
    literal_column,
    select,
    true,
    type_coerce,
)
from sqlalchemy.sql.visitors import replacement_traverse

from solidjq.batching import in_batches
from solidjq.database.among import among
from solidjq.database.any_types import ANY_BYTES, ANY_TEXT
from solidjq.database.functions import octets
from solidjq.database.grouping import (
    before,
    begin,
    digest,
    exact_text,
    exactly,
    from_first,
    gathered,
    groups_by_digest,
    zeroed,
)
from solidjq.database.tables import crashes, failed, failures, jobs
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
from solidjq.ledger import archive, operations
from solidjq.queue.failed import Filter, conditions

HEAD = 500  # characters of the error that are read of every failure
PAGE = 20_000  # failures that one statement reads
SHORT = 2_000  # bytes: PostgreSQL may compress a longer error
CODED = 500  # kinds of errors with digits that matter: if there are more, all errors are read as they are
EXAMPLES = 100  # whole errors that one statement reads

SignatureCache = dict[tuple[object, ...], Signature]  # by the outline of an error


# -- the tables -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class FailureSource:
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

    def page(
        self,
        chosen: Filter,
        after: int,
        columns: Iterable[ColumnElement[Any]],
        *,
        reads_jobs: bool,
        reads_crashes: bool = False,
    ) -> Select[Any]:
        """Return the statement for the next page of failures that the filter matches, with these columns besides."""
        query = select(
            self.id.label("id"),
            self.failure_id.label("failure_id"),
            self.job_id.label("job_id"),
            self.failed_at.label("failed_at"),
            *columns,
        )
        query = self.with_jobs(query) if reads_jobs or chosen.reads_jobs else query
        if reads_crashes:
            # Without the bound PostgreSQL would read all crashes below the page.
            of_failure = and_(crashes.c.failure_id == self.id, crashes.c.failure_id > after)
            query = query.outerjoin(crashes, of_failure)
        return query.where(self.id > after, *self.conditions(chosen)).order_by(self.id).limit(PAGE)

    def with_jobs(self, query: Select[Any]) -> Select[Any]:
        """Return a query with the columns of the jobs; every failure has a job, so the join is needed for them only."""
        return query.join_from(failed, jobs, jobs.c.id == failed.c.job_id) if self.joined else query

    @property
    def names(self) -> tuple[ColumnElement[str], ColumnElement[str]]:
        """The class and the queue of the job, compared exactly."""
        return exact_text(self.class_name), exact_text(self.queue_name)

    @property
    def head(self) -> ColumnElement[str]:
        """The first characters of the error, as they are."""
        return exact_text(begin(self.error, HEAD))

    @property
    def folded(self) -> tuple[ColumnElement[str], ColumnElement[str]]:
        """The error up to its message, and its head with zeros for the digits before the backtrace.

        Of a hundred thousand errors that differ in a number the database makes one row. If there is no backtrace, or
        not soon, the first is NULL and the second the head as it is.
        """
        has_backtrace, name, zeros, backtrace = self._around_backtrace()
        folded = zeros + exact_text(backtrace)
        return case((has_backtrace, exact_text(name))), type_coerce(
            case((has_backtrace, folded), else_=self.head), ANY_BYTES
        )

    @property
    def digest_of_folded(self) -> ColumnElement[bytes]:
        """The digest of both; where the first is NULL, that of the head as it is.

        The texts are not made ``exact_text``, which takes longer than the digest. No two errors have one digest: the
        zeros begin with the name, so that it ends where half of what is before the message's key does.
        """
        has_backtrace, name, zeros, backtrace = self._around_backtrace()
        return case((has_backtrace, digest(name, zeros, backtrace)), else_=self.digest_of_head)

    @property
    def digest_of_head(self) -> ColumnElement[bytes]:
        """The digest of the head as it is."""
        error = self.error
        return digest(case((octets(error) <= HEAD, error), else_=begin(error, HEAD)))

    @property
    def digest_of_rest(self) -> ColumnElement[bytes]:
        """The digest of the error's length, the class and the queue."""
        size = func.coalesce(octets(self.error), -1)
        # With its length, no class ends where the queue of another begins.
        return digest(size, octets(self.class_name), exactly(self.class_name), exactly(self.queue_name))

    def _around_backtrace(
        self,
    ) -> tuple[ColumnElement[bool], ColumnElement[str], ColumnElement[str], ColumnElement[str]]:
        """Return whether the error has a backtrace soon, and then its name, all before it in zeros, and its begin."""
        error = self.error
        # The beginning of a long text: PostgreSQL decompresses no more of it.
        begun = case((octets(error) <= SHORT, error), else_=func.substr(error, 1, HEAD))
        start = before(begun, BACKTRACE)
        length = case((octets(error) <= HEAD, HEAD), else_=len(BACKTRACE) + FIRST_FRAME)
        backtrace = from_first(begun, BACKTRACE, length)
        return octets(start) < octets(begun), before(start, MESSAGE_KEY), zeroed(exact_text(start)), backtrace


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


FAILED = FailureSource(
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
ARCHIVE = FailureSource(
    failures.c.id,
    failures.c.failure_id,
    failures.c.job_id,
    failures.c.error,
    failures.c.failed_at,
    failures.c.class_name,
    failures.c.queue_name,
    _archived_conditions,
)


UNCOUNTED: ColumnElement[int] = case((crashes.c.failure_id.is_(None), 1), else_=0)
ALL_UNCOUNTED: ColumnElement[int] = literal_column("1")  # without the ``jq_`` tables


def sources_of(connection: Connection, *, archived: bool) -> list[FailureSource]:
    """Return the tables of failures; ``archived``: with those that were retried or discarded since, if there is one."""
    return [FAILED, ARCHIVE] if archived and operations.exists(connection) else [FAILED]


# -- pages ------------------------------------------------------------------------------------------------------------


class FailurePages:
    """Reads the failures that a filter matches page by page; those of a page with equal errors are one row.

    ``counted``: a row has class, queue, ``failures``, ``first_at``, ``last_at`` and the newest ``job_id``; otherwise
    the ``failure_ids`` and ``job_ids``. With ``mark``, ``UNCOUNTED`` or ``ALL_UNCOUNTED``, it has the ``first_id``,
    too, and ``uncounted``: 1 if none of its failures is in ``jq_crashes``, 0 if all are.
    """

    def __init__(
        self,
        source: FailureSource,
        chosen: Filter,
        cache: SignatureCache,
        *,
        counted: bool = True,
        mark: ColumnElement[int] | None = None,
    ) -> None:
        self.more = True
        self._mark = mark
        self._source = source
        self._chosen = chosen
        self._cache = cache
        self._counted = counted
        self._after = 0
        self._coded: dict[Any, None] = {}  # what has zeros for digits that matter: these errors are read as they are
        self._folds = True  # otherwise all errors are

    def read(self, connection: Connection) -> list[tuple[Row[Any], Signature]]:
        """Return the rows of the next page, each with its signature."""
        by_digest = groups_by_digest(connection)
        query, of_row = (self._by_digest, attrgetter("folded")) if by_digest else (self._by_text, attrgetter("head"))
        while True:
            rows = connection.execute(query()).all()
            coded = {of_row(row): None for row in rows if row.name is not None and hides_digits(_whole_head(row))}
            if not coded:
                break
            # A head that was not valid text is read as another: the database finds none that equals it.
            self._folds = not coded.keys() <= self._coded.keys() and len(self._coded | coded) <= CODED
            self._coded |= coded
        self.more = sum(row.failures for row in rows) == PAGE
        self._after = max((row.id for row in rows), default=0)
        kinds = [_outline(row) for row in rows]
        return list(zip(rows, _signatures(connection, self._source, rows, kinds, self._cache), strict=True))

    def _by_text(self) -> Select[Any]:
        """Return the statement that groups a page by the texts themselves."""
        source = self._source
        name, head = source.folded
        columns: list[ColumnElement[Any]] = [octets(source.error).label("size"), name.label("name"), head.label("head")]
        kind = ["name", "head", "size"]
        if self._coded:
            columns.append(source.head.label("raw"))
        if self._counted:
            kind += ["class_name", "queue_name"]
            columns += [text.label(label) for text, label in zip(source.names, kind[-2:], strict=True)]
        if self._mark is not None:
            kind.append("uncounted")
        page = self._page(columns)
        if self._coded:
            page = _unfolded_where(page, self._is_coded(page.c.head))
        texts = [page.c[label] for label in kind]
        return select(*texts, *self._facts(page)).group_by(*texts)

    def _by_digest(self) -> Select[Any]:
        """Return the statement that groups a page by digests of the texts, and reads these of a row of each group."""
        source = self._source
        name, head = source.folded
        size = octets(source.error)
        names = source.names if self._counted else ()
        rest = source.digest_of_rest if self._counted else size
        columns = [source.digest_of_folded.label("folded"), rest.label("rest")]
        if self._coded:
            columns.append(source.digest_of_head.label("raw"))
        page = self._page(columns)
        kind: ColumnElement[Any] = page.c.folded
        facts = [func.max(page.c.folded).label("folded"), *self._facts(page)]
        if self._coded:
            is_coded = self._is_coded(kind)
            kind = case((is_coded, page.c.raw), else_=kind)
            facts.append(func.max(case((is_coded, 1), else_=0)).label("coded"))
        keys = [kind, page.c.rest]
        if self._mark is not None:
            keys.append(page.c.uncounted)
            facts.append(page.c.uncounted)
        group = select(*facts).group_by(*keys).subquery("groups")
        if self._coded:
            name, head = case((group.c.coded == 0, name)), case((group.c.coded == 1, source.head), else_=head)
        texts: list[ColumnElement[Any]] = [
            name.label("name"),
            type_coerce(head, ANY_BYTES).label("head"),
            size.label("size"),
        ]
        texts += [text.label(label) for text, label in zip(names, ("class_name", "queue_name"), strict=False)]
        query: Select[Any] = select(*texts, *(column for column in group.c if column.name != "coded"))
        if self._counted:
            query = source.with_jobs(query)
        return query.join(group, group.c.id == source.id)

    def _page(self, columns: Sequence[ColumnElement[Any]]) -> Subquery:
        """Return the next page of failures with these columns besides."""
        mark = self._mark
        marks = [] if mark is None else [mark.label("uncounted")]
        page = self._source.page(
            self._chosen,
            self._after,
            [*columns, *marks],
            reads_jobs=self._counted,
            reads_crashes=mark is UNCOUNTED,
        )
        return page.subquery("page")

    def _facts(self, page: Subquery) -> list[ColumnElement[Any]]:
        """Return what is computed of the failures of a group."""
        columns = page.c
        facts: list[ColumnElement[Any]] = [func.count().label("failures"), func.max(columns.id).label("id")]
        if self._mark is not None:
            facts.append(func.min(columns.failure_id).label("first_id"))
        if not self._counted:
            return [
                *facts,
                gathered(columns.failure_id).label("failure_ids"),
                gathered(columns.job_id).label("job_ids"),
            ]
        return [
            *facts,
            func.min(columns.failed_at).label("first_at"),
            func.max(columns.failed_at).label("last_at"),
            func.max(columns.job_id).label("job_id"),
        ]

    def _is_coded(self, key: ColumnElement[Any]) -> ColumnElement[bool]:
        """Return the condition that an error is read as it is."""
        return key.in_(list(self._coded)) if self._folds else true()


def _unfolded_where(page: Subquery, is_coded: ColumnElement[bool]) -> Subquery:
    """Return a page with the heads as they are where a condition holds."""
    name, head, raw = page.c.name, page.c.head, page.c.raw
    others = [column for column in page.c if column not in {name, head, raw}]
    return select(
        case((~is_coded, name)).label("name"), case((is_coded, raw), else_=head).label("head"), *others
    ).subquery()


def _outline(row: Row[Any]) -> tuple[object, ...]:
    return outline(row.head, row.size, HEAD) if row.name is None else outline(_whole_head(row), row.size, 0)


def error_begin(row: Row[Any]) -> str:
    """Return the first characters of the error of a row, at most ``HEAD``, without zeros if it is a death's."""
    return str(row.head) if row.name is None else _whole_head(row)


def _whole_head(row: Row[Any]) -> str:
    """Return the head of an error with zeros in the message alone."""
    name: str = row.name
    return name + str(row.head)[len(name) :]


# -- signatures -------------------------------------------------------------------------------------------------------


def signatures_of(connection: Connection, rows: Sequence[Row[Any]], cache: SignatureCache) -> list[Signature]:
    """Return the signature of each of these failures, of which a row has ``id``, ``head`` and ``size`` of the error.

    ``head`` is its first ``HEAD`` characters. Of errors with one outline only one is read whole; ``cache`` keeps that.
    """
    kinds = [outline(row.head, row.size, HEAD) for row in rows]
    return _signatures(connection, FAILED, rows, kinds, cache)


def _signatures(
    connection: Connection,
    source: FailureSource,
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
