"""Verification of the chain: which records were changed, removed, inserted or reordered since they were sealed."""

from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Connection, Row, Select, func, select, true

from solidjq.batching import BATCH
from solidjq.database.tables import chain, failures, operations
from solidjq.errors import LedgerMissingError
from solidjq.ledger.chain import (
    FIRST,
    OPERATION,
    UNDO,
    FailuresDigest,
    FailuresHasher,
    add_archived,
    add_restored,
    began_since,
    last_link,
    link_hash,
    together,
    undone_by,
)
from solidjq.ledger.operations import has_chain
from solidjq.text import count_of

MOST = 100  # breaks, and unsealed operations, that a report names


class BreakKind(StrEnum):
    """What is wrong with the record."""

    CHANGED = "changed"  # an operation's row, after it was sealed
    FAILURES = "failures"  # what it archived or took back
    REMOVED = "removed"  # an operation's row is gone
    INSERTED = "inserted"  # an operation without a link that is too old for that, or failures of no operation
    LINK = "link"  # a link is missing, was changed, or stands elsewhere
    UNKNOWN_HASH = "unknown hash"  # the chain does not contain a hash that it once had


class Break(NamedTuple):
    """One place where the record is not as it was sealed."""

    kind: BreakKind
    operation_id: int | None
    words: str


@dataclass(slots=True)
class ChainReport:
    """What a verification found. ``breaks`` and ``unsealed`` name the first ``MOST``; ``broken`` counts all breaks."""

    links: int = 0
    since: datetime | None = None  # when the first link was sealed: of what was before, the chain proves nothing
    last_operation: int | None = None
    last_hash: str | None = None
    expected_operation: int | None = None  # the operation of the link with the expected hash
    unsealed: list[int] = field(default_factory=list)  # operations that have not ended, or were not sealed by then
    unsealed_count: int = 0
    breaks: list[Break] = field(default_factory=list)
    broken: int = 0

    @property
    def whole(self) -> bool:
        """Whether nothing is broken."""
        return not self.broken

    def add(self, found: Collection[Break]) -> None:
        """Count breaks, and name them if few are named yet."""
        self.broken += len(found)
        self.breaks += [*found][: MOST - len(self.breaks)]


def verify(connection: Connection, *, after: int = 0, expected: str | None = None) -> ChainReport:
    """Compare every sealed operation, and what it archived, with its link, and every link with the one before.

    Of operations up to the id ``after`` only the links are checked: their rows may have been cleared. ``expected`` is
    the hash of a link that must be in the chain. Reads page by page. Raises LedgerMissingError without a chain.
    """
    if not has_chain(connection):
        raise LedgerMissingError("the table jq_chain, which seals operations, is missing; run: jq init")
    report = ChainReport()
    last = last_link(connection)
    before: tuple[int, str] = (0, FIRST)
    if last is not None:
        report.last_operation, report.last_hash = last.operation_id, last.hash
        restored = FailuresHasher()  # read after the last link: all that sealed undos took back is committed
        add_restored(connection, true(), restored)
        taken_back = restored.digests()
        while page := _page(connection, before[0], last.position):
            if report.since is None:
                report.since = page[0].sealed_at
            archived = _archived(connection, page, after)
            for link in page:
                digest = together(archived.get(link.operation_id), taken_back.get(link.operation_id))
                report.add([*check_link(link, before, digest, after=after)])
                before = (link.position, link.hash)
                report.links += 1
                if expected == link.hash:
                    report.expected_operation = link.operation_id
    if expected is not None and report.expected_operation is None:
        words = f"no link has the hash {expected}: later links were removed, or the chain was made anew"
        report.add([Break(BreakKind.UNKNOWN_HASH, None, words)])
    _add_unlinked(connection, report, after, None if last is None else last.sealed_at)
    return report


def check_link(link: Row[Any], before: tuple[int, str], digest: FailuresDigest, *, after: int = 0) -> Iterator[Break]:
    """Yield what is wrong with a link and its operation; ``before`` are position and hash of the link before."""
    operation_id = link.operation_id
    position, hash_before = before
    named = f"link {link.position}, of operation {operation_id}"
    if link.position != position + 1:
        words = f"{count_of(link.position - position - 1, 'link')} before {named}: missing"
        yield Break(BreakKind.LINK, operation_id, words)
    elif link.previous_hash != hash_before:
        words = f"{named}: it does not follow the link before: one of them was changed, removed or moved"
        yield Break(BreakKind.LINK, operation_id, words)
    if operation_id is None:  # SQLite takes text there
        yield Break(BreakKind.CHANGED, None, f"link {link.position} was changed: it names no operation")
        return
    if operation_id <= after:
        return
    if link.recorded_id is None:
        yield Break(BreakKind.REMOVED, operation_id, f"operation {operation_id} was removed")
        return
    sealed = FailuresDigest(link.failures, link.failures_hash)
    values = [getattr(link, f"recorded_{column.name}") for column in OPERATION]
    if link_hash(link.position, link.previous_hash, link.sealed_at, sealed, values) != link.hash:
        words = f"operation {operation_id}, or its link, was changed after it was sealed"
        yield Break(BreakKind.CHANGED, operation_id, words)
    undone = undone_by(link.recorded_filter)
    may_lack = link.recorded_verb == UNDO and undone is not None and undone <= after
    if sealed != digest and not may_lack:
        counts = (
            ""
            if sealed.failures == digest.failures
            else f": there are {digest.failures}, and {sealed.failures} were sealed"
        )
        words = f"the archived failures of operation {operation_id} were changed after it was sealed{counts}"
        yield Break(BreakKind.FAILURES, operation_id, words)


def _page(connection: Connection, above: int, top: int) -> list[Row[Any]]:
    """Return the next links, each with its operation as ``recorded_``..., NULL if that is gone."""
    recorded = [column.label(f"recorded_{column.name}") for column in OPERATION]
    query = (
        select(*chain.c, *recorded)
        .join_from(chain, operations, operations.c.id == chain.c.operation_id, isouter=True)
        .where(chain.c.position > above, chain.c.position <= top)
        .order_by(chain.c.position)
        .limit(BATCH)
    )
    return [*connection.execute(query)]


def _archived(connection: Connection, page: Collection[Row[Any]], after: int) -> dict[int, FailuresDigest]:
    hasher = FailuresHasher()
    add_archived(connection, [at for link in page if (at := link.operation_id) is not None and at > after], hasher)
    return hasher.digests()


def _add_unlinked(connection: Connection, report: ChainReport, after: int, sealed_at: datetime | None) -> None:
    """Add operations without a link, and archived failures without an operation."""
    linked = select(chain.c.operation_id).where(chain.c.operation_id == operations.c.id).exists()
    unlinked = select(operations.c.id).where(~linked, operations.c.id > after).order_by(operations.c.id)
    recent = began_since(sealed_at)
    report.unsealed_count = connection.scalar(select(func.count()).select_from(unlinked.where(recent).subquery())) or 0
    report.unsealed = [*connection.scalars(unlinked.where(recent).limit(MOST))]
    for operation_id in connection.scalars(unlinked.where(~recent)):
        words = f"operation {operation_id} was inserted: operations that began a day after it were sealed before"
        report.add([Break(BreakKind.INSERTED, operation_id, words)])
    for column, words in ((failures.c.operation_id, "archived"), (failures.c.restored_by, "taken back")):
        for row in connection.execute(_without_operation(column, after)):
            operation_id, count = row[0], row[1]
            named = f"{count_of(count, 'failure')} {words} by operation {operation_id}, which does not exist"
            report.add([Break(BreakKind.INSERTED, operation_id, named)])


def _without_operation(column: ColumnElement[int], after: int) -> Select[int, int]:
    missing = ~select(operations.c.id).where(operations.c.id == column).exists()
    removed = select(chain.c.operation_id).where(chain.c.operation_id == column).exists()  # which is a break already
    query = select(column, func.count()).where(column > after, missing, ~removed)
    return query.group_by(column).order_by(column)
