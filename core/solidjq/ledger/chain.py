"""The chain, table ``jq_chain``: one link an operation, whose hash covers the operation and the link before.

An operation is sealed in two steps. First it ends: from then on no command counts jobs for it or archives under it.
Then its link is appended, in a short transaction, so that commands never wait for each other while they work. What a
killed command leaves open is ended and sealed by a later one.
"""

from collections.abc import Callable, Collection, Iterable
from datetime import datetime, timedelta
from hashlib import sha256
from typing import Any, NamedTuple, TypeVar

from sqlalchemy import ColumnElement, Connection, Row, Select, func, insert, or_, select, true, update

from solidjq.batching import in_batches
from solidjq.database.among import among
from solidjq.database.digests import hash_of, row_hash, row_text
from solidjq.database.faults import duplicate_is_conflict
from solidjq.database.tables import chain, failures, operations
from solidjq.database.times import boundary, clock, utcnow
from solidjq.database.transactions import Database
from solidjq.ledger.operations import has_chain
from solidjq.untrusted import read_object

T = TypeVar("T")

FORM = "jq_chain 1"  # of what is hashed; another form needs another name
UNDO = "undo"  # the verb of operations that take failures back
FIRST = "0" * 64  # the hash before the first link
WHOLE = 1000  # archived failures of an operation whose rows are hashed whole; of more, the ids
OPEN = timedelta(days=1)  # how long an operation that has not ended may be of a command that still runs
LATE = OPEN + timedelta(hours=1)  # an operation that began so long before the last link should be in the chain

# The columns of an archived failure that never change.
ARCHIVED = [column for column in failures.c if column is not failures.c.restored_by]
_IDS = [failures.c.id, failures.c.failure_id, failures.c.job_id]
# The columns of an operation; none changes after it has ended.
OPERATION = [
    operations.c.id,
    operations.c.verb,
    operations.c.actor,
    operations.c.database_role,
    operations.c.ci_job,
    operations.c.command,
    operations.c.reason,
    operations.c.filter,
    operations.c.plan,
    operations.c.jobs,
    operations.c.verdicts,
    operations.c.created_at,
    operations.c.ended_at,
]


class FailuresDigest(NamedTuple):
    """How many archived failures an operation archived or took back, and the SHA-256 over them."""

    failures: int = 0
    hash: str = sha256().hexdigest()


NO_FAILURES = FailuresDigest()


def together(archived: FailuresDigest | None, restored: FailuresDigest | None) -> FailuresDigest:
    """Return the digest of what an operation archived and, if it was an undo, what it took back."""
    archived = archived or NO_FAILURES
    if restored is None:
        return archived
    return FailuresDigest(archived.failures + restored.failures, hash_of([archived.hash, restored.hash]))


def link_hash(
    position: int, previous: str, sealed_at: datetime | None, digest: FailuresDigest, operation: Iterable[Any]
) -> str:
    """Return the hash of a link; ``operation`` are the values of the columns ``OPERATION``."""
    return hash_of([FORM, position, previous, sealed_at, digest.failures, digest.hash, *operation])


# -- what operations archived -----------------------------------------------------------------------------------------


class FailuresHasher:
    """Makes the digests of operations, of texts that arrive in the order of the failures' ids."""

    def __init__(self) -> None:
        self._hashes: dict[int, Any] = {}
        self._counts: dict[int, int] = {}

    def add(self, operation_id: int, texts: Collection[str]) -> None:
        """Add texts to the digest of an operation."""
        self._hashes.setdefault(operation_id, sha256()).update("".join(texts).encode())
        self._counts[operation_id] = self._counts.get(operation_id, 0) + len(texts)

    def digests(self) -> dict[int, FailuresDigest]:
        """Return the digests of the operations that have failures."""
        return {key: FailuresDigest(self._counts[key], value.hexdigest()) for key, value in self._hashes.items()}


def add_archived(connection: Connection, operation_ids: Collection[int], hasher: FailuresHasher) -> None:
    """Add the failures that these operations archived: whole rows, or of more than ``WHOLE`` their ids."""
    counted = select(failures.c.operation_id, func.count()).where(among(failures.c.operation_id, operation_ids))
    counts = {row[0]: row[1] for row in connection.execute(counted.group_by(failures.c.operation_id))}
    _add_rows(
        connection,
        select(failures.c.operation_id, row_hash(ARCHIVED))
        .where(among(failures.c.operation_id, [key for key, count in counts.items() if count <= WHOLE]))
        .order_by(failures.c.operation_id, failures.c.id),
        hasher,
    )
    for operation_id in [key for key, count in counts.items() if count > WHOLE]:
        ids = select(row_text(_IDS)).where(failures.c.operation_id == operation_id).order_by(failures.c.id)
        for texts in connection.scalars(ids.execution_options(yield_per=WHOLE)).partitions():
            hasher.add(operation_id, texts)


def add_restored(connection: Connection, which: ColumnElement[bool], hasher: FailuresHasher) -> None:
    """Add the ids of those failures among ``which`` that an undo took back, to the undo's digest."""
    _add_rows(
        connection,
        select(failures.c.restored_by, row_text([failures.c.id]))
        .where(failures.c.restored_by.is_not(None), which)
        .order_by(failures.c.restored_by, failures.c.id),
        hasher,
    )


def _add_rows(connection: Connection, query: Select[Any], hasher: FailuresHasher) -> None:
    for rows in connection.execute(query.execution_options(yield_per=WHOLE)).partitions():
        for operation_id, text in rows:
            hasher.add(operation_id, (text,))


# -- sealing ----------------------------------------------------------------------------------------------------------


def seal(database: Database, operation_ids: Collection[int], *, patient: bool = True) -> None:
    """End these operations and append their links, and those of operations that other commands left unsealed.

    Does nothing to a ledger without a chain. Call it when nothing more is to be counted: an operation that has ended
    takes no more jobs. Unless ``patient``, raises ConflictError as soon as the database is busy or one of their rows is
    locked: on MySQL, the session of a command that was interrupted waits on, and holds its locks, for up to 50 seconds.
    """
    if not _transact(database, _end if patient else _end_at_once, operation_ids, patient=patient):
        return
    with database.read() as connection:
        unsealed = connection.execute(_sealable(connection, operations.c.id, operations.c.verb, operations.c.filter))
        digests = _digests(connection, unsealed.all())
    _transact(database, _append, digests, patient=patient)


def _transact(database: Database, move: Callable[[Connection, Any], T], argument: Any, *, patient: bool) -> T:
    if patient:
        return database.transact(move, argument)
    with database.write() as connection:
        return move(connection, argument)


def _end(connection: Connection, operation_ids: Collection[int]) -> bool:
    """End operations, these and those that began ``OPEN`` ago; return whether the ledger has a chain."""
    if not has_chain(connection):
        return False
    connection.execute(update(operations).where(_to_be_ended(connection, operation_ids)).values(ended_at=utcnow()))
    return True


def _end_at_once(connection: Connection, operation_ids: Collection[int]) -> bool:
    """End operations as ``_end`` does. Raises ConflictError if one of their rows is locked."""
    if not has_chain(connection):
        return False
    wanted = _to_be_ended(connection, operation_ids)
    connection.execute(select(operations.c.id).where(wanted).with_for_update(nowait=True)).all()
    return _end(connection, operation_ids)


def _to_be_ended(connection: Connection, operation_ids: Collection[int]) -> ColumnElement[bool]:
    """Return, as SQL, which operations are to be ended: of these and of the old ones, those that have not ended."""
    old = operations.c.created_at < boundary(clock(connection) - OPEN)
    wanted = or_(among(operations.c.id, operation_ids), old & since_last_link(connection))
    return operations.c.ended_at.is_(None) & wanted


def last_link(connection: Connection) -> Row[Any] | None:
    """Return the newest link; None if there is none."""
    return connection.execute(select(chain).order_by(chain.c.position.desc()).limit(1)).one_or_none()


def since_last_link(connection: Connection) -> ColumnElement[bool]:
    """Return, as SQL, whether an operation is recent enough to be missing in the chain."""
    last = last_link(connection)
    return true() if last is None else began_since(last.sealed_at)


def began_since(sealed_at: datetime | None) -> ColumnElement[bool]:
    """Return, as SQL, whether an operation need not have a link because of one that was sealed at this time.

    One that began earlier would have been sealed then: it was inserted later.
    """
    try:
        return true() if sealed_at is None else operations.c.created_at >= boundary(sealed_at - LATE)
    except OverflowError:  # a time of the year 1
        return true()


def _sealable(connection: Connection, *columns: ColumnElement[Any]) -> Select[Any]:
    """Select operations that have ended and have no link, the oldest first."""
    sealed = select(chain.c.operation_id).where(chain.c.operation_id == operations.c.id).exists()
    return (
        select(*columns)
        .where(operations.c.ended_at.is_not(None), ~sealed, since_last_link(connection))
        .order_by(operations.c.created_at, operations.c.id)
    )


def _digests(connection: Connection, unsealed: Collection[Row[Any]]) -> dict[int, FailuresDigest]:
    archived, restored = FailuresHasher(), FailuresHasher()
    for batch in in_batches([row.id for row in unsealed]):
        add_archived(connection, batch, archived)
    for undo in unsealed:
        if undo.verb == UNDO:
            which = failures.c.restored_by == undo.id
            if (undone := undone_by(undo.filter)) is not None:  # which has an index
                which &= failures.c.operation_id == undone
            add_restored(connection, which, restored)
    of_archived, of_restored = archived.digests(), restored.digests()
    return {row.id: together(of_archived.get(row.id), of_restored.get(row.id)) for row in unsealed}


def undone_by(chosen: str | None) -> int | None:
    """Return the operation that an undo took back, from its selection."""
    number = read_object(chosen).get("operation")
    return number if isinstance(number, int) else None


def _append(connection: Connection, digests: dict[int, FailuresDigest]) -> None:
    """Append the links of those operations that no other command has sealed meanwhile.

    Raises ConflictError if another command appended at this moment: then nothing was, and it may be tried again.
    """
    last = last_link(connection)
    position, previous = (0, FIRST) if last is None else (last.position, last.hash)
    now = clock(connection)
    links: list[dict[str, object]] = []
    for operation in connection.execute(_sealable(connection, *OPERATION)).all():
        if (digest := digests.get(operation.id)) is None:  # it ended after the digests were made
            continue
        position += 1
        hashed = link_hash(position, previous, now, digest, operation)
        links.append(
            {
                "position": position,
                "operation_id": operation.id,
                "failures": digest.failures,
                "failures_hash": digest.hash,
                "sealed_at": now,
                "previous_hash": previous,
                "hash": hashed,
            }
        )
        previous = hashed
    with duplicate_is_conflict("another command sealed its operation at this moment"):
        for batch in in_batches(links):
            connection.execute(insert(chain), batch)
