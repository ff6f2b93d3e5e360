"""An undo reads each archived failure a few times, however long the archive is and although no statistics cover it."""

from collections import Counter
from collections.abc import Callable
from typing import Any, TypeVar

import pytest
from sqlalchemy import Connection, insert

from solidjq import Database
from solidjq.database.tables import failures
from solidjq.database.times import utcnow
from solidjq.ledger.operations import Operation
from solidjq.recovery import undo as recovery_undo
from solidjq.recovery.rests import Rests
from solidjq.recovery.undo import GONE, NARROWEST, WIDEST, next_width
from support.reads import rows_read

T = TypeVar("T")

ARCHIVED = {"queue_name": "default", "class_name": "MailJob", "error": "x" * 200, "priority": 0}
READ_BY_A_JOB = 10  # by all statements of an undo


class Counting(Rests):
    """Moves without rests, and counts the rows that the server reads for them."""

    def __init__(self, database: Database) -> None:
        super().__init__(database, fast=True)
        self.read = 0

    def transact(self, move: Callable[..., T], *args: Any, **kwargs: Any) -> T:
        def counted(connection: Connection) -> T:
            before = rows_read(connection, failures)
            moved = move(connection, *args, **kwargs)
            self.read += rows_read(connection, failures) - before
            return moved

        return super().transact(counted)


@pytest.mark.only_on("postgresql", "mariadb")
@pytest.mark.parametrize("of_this", ["first", "last", "every other"])
def test_a_batch_does_not_read_the_whole_archive(own: Database, monkeypatch: pytest.MonkeyPatch, of_this: str) -> None:
    monkeypatch.setattr(recovery_undo, "BATCH", 100)
    monkeypatch.setattr(recovery_undo, "NARROWEST", 200)
    count, operation = 5000, Operation("retry")
    with own.write() as connection:
        mine, other = operation.record(connection, count), Operation("retry").record(connection, count)
    orders = {"first": [mine, other], "last": [other, mine], "every other": [mine, other]}
    numbers = [number for number in orders[of_this] for _ in range(count)]
    if of_this == "every other":
        numbers[::2], numbers[1::2] = numbers[:count], numbers[count:]
    with own.write() as connection:
        connection.execute(
            insert(failures).values(failed_at=utcnow(), archived_at=utcnow()),
            [
                {**ARCHIVED, "failure_id": at, "job_id": at, "operation_id": number}
                for at, number in enumerate(numbers, start=1)
            ],
        )
    counting = Counting(own)
    undone = recovery_undo.undo_batches(own, mine, Operation("undo"), by_job=False, rests=counting)
    assert sum((Counter(batch.reasons) for batch in undone), Counter()) == {GONE: count}
    assert counting.read < READ_BY_A_JOB * count


def test_a_batch_looks_through_more_ids_where_others_archived_more() -> None:
    half = recovery_undo.BATCH // 2
    width = next_width(NARROWEST, half - 1)
    assert width == 2 * NARROWEST
    assert next_width(width, half) == NARROWEST
    assert next_width(WIDEST, 0) == WIDEST
