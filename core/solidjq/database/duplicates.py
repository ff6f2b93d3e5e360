"""Rows that must be unique and are not, because a unique index was missing; removes the surplus where nothing is lost.

On MySQL each CREATE was committed by itself, so an init that was killed left tables without their unique indexes.
Without the one on ``semaphores.key``, for example, each program may make a semaphore of its own for one key, and more
jobs run at once than the limit allows.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Connection, Select, Table, and_, func, or_, select

from solidjq.batching import BATCH
from solidjq.database import indexes
from solidjq.database.deletions import delete_by_id
from solidjq.database.indexes import RequiredIndex
from solidjq.database.tables import claimed, failed, processes, semaphores, solid_queue
from solidjq.errors import RefusedError

NEVER_SURPLUS = (claimed, failed, processes)  # what each of their rows says is found nowhere else


class Duplicates(NamedTuple):
    """Values of a unique index that occur more than once: how many, and the rows beyond the first of each."""

    required: RequiredIndex
    values: int
    rows: int
    example: tuple[Any, ...]

    def __str__(self) -> str:
        example = ", ".join(map(str, self.example))
        times = "value occurs" if self.values == 1 else "values occur"
        return f"{self.required} must be unique, and {self.values:,} {times} more than once, for example {example}"


def find(connection: Connection) -> list[Duplicates]:
    """Return the duplicates that keep missing unique indexes of Solid Queue's tables from being made."""
    unique = [required for required in indexes.missing(connection) if required.unique]
    return [duplicates for required in unique if (duplicates := _count(connection, required)) is not None]


def _count(connection: Connection, required: RequiredIndex) -> Duplicates | None:
    table = _table(required)
    columns = [table.c[name] for name in required.columns]
    twice = (
        select(*columns, func.count().label("rows"))
        .where(*(column.is_not(None) for column in columns))
        .group_by(*columns)
        .having(func.count() > 1)
    )
    each = twice.subquery()
    total = select(func.count(), func.coalesce(func.sum(each.c.rows), 0)).select_from(each)
    values, rows = connection.execute(total).one()
    if not values:
        return None
    first = connection.execute(twice.order_by(*columns).limit(1)).one()
    return Duplicates(required, int(values), int(rows) - int(values), tuple(first[: len(columns)]))


def require_removable(duplicates: Sequence[Duplicates]) -> None:
    """Raise RefusedError if rows are among them of which it cannot be told from here which is the right one."""
    for found in duplicates:
        if _table(found.required) in NEVER_SURPLUS:
            raise RefusedError(
                f"{found}; which of the rows is right cannot be told from here: delete the others, then run "
                "jq init --indexes again"
            )


def remove_some(connection: Connection, required: RequiredIndex) -> int:
    """Delete up to a batch of surplus rows, under their locks; return how many. 0: there are none any more.

    The oldest row of each value stays; of semaphores the one with the fewest free slots, which exceeds no limit.
    """
    ids = connection.scalars(_surplus(required).limit(BATCH).with_for_update()).all()
    table = _table(required)
    connection.execute(delete_by_id(table, ids))
    return len(set(ids))


def _surplus(required: RequiredIndex) -> Select[Any]:
    table = _table(required)
    twin = table.alias("twin")
    same = and_(*(twin.c[name] == table.c[name] for name in required.columns))
    return select(table.c.id).join(twin, same & _is_kept(table, twin)).order_by(table.c.id)


def _is_kept(table: Table, twin: Any) -> ColumnElement[bool]:
    """Return the condition that the twin stays rather than the row of the table."""
    older: ColumnElement[bool] = twin.c.id < table.c.id
    if table is not semaphores:
        return older
    return or_(twin.c.value < table.c.value, and_(twin.c.value == table.c.value, older))


def _table(required: RequiredIndex) -> Table:
    return next(table for table in solid_queue.sorted_tables if table.name == required.table)
