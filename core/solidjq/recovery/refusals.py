"""Refusals: jobs that the database refuses to move, by a trigger say. They are found by halves, and keep no other."""

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TypeVar

from solidjq.errors import DatabaseError, concerns_rows
from solidjq.ledger.operations import Operation

MOST_REFUSED = 10  # jobs; then the database refuses them all

T = TypeVar("T")


@contextmanager
def reverting(operation: Operation) -> Iterator[None]:
    """Around a transaction: if the database refuses its rows, the operation gets the id back that it had before."""
    before = operation.id
    try:
        yield
    except DatabaseError as error:
        if concerns_rows(error):
            operation.revert(before)
        raise


@dataclass(slots=True)
class Refusals:
    """The jobs that the database refused to move in one command, each with the database's error."""

    errors: dict[int, DatabaseError] = field(default_factory=dict)  # by the id of the job

    def by_halves(
        self, rows: Sequence[tuple[int, int]], error: DatabaseError, move: Callable[[Sequence[int]], T]
    ) -> Iterator[tuple[Sequence[int], T | None]]:
        """Move the rows of a transaction that was refused with ``error``: its halves, and their halves if need be.

        ``rows`` are ids, ascending, each with its job's id; ``move`` moves those of some ids in a transaction of its
        own. Yields these ids, with what ``move`` returned, or None if a row was refused alone.

        Raises the error if it is not about rows, and if more than ``MOST_REFUSED`` jobs are refused.
        """
        if not rows or not concerns_rows(error):
            raise error
        if len(rows) == 1:
            ((row_id, job_id),) = rows
            self._add(job_id, error)
            yield [row_id], None
            return
        middle = len(rows) // 2
        for half in (rows[:middle], rows[middle:]):
            ids = [row_id for row_id, _ in half]
            try:
                moved = move(ids)
            except DatabaseError as again:
                refusal = again
            else:
                yield ids, moved
                continue
            yield from self.by_halves(half, refusal, move)

    def _add(self, job_id: int, error: DatabaseError) -> None:
        if len(self.errors) >= MOST_REFUSED and job_id not in self.errors:
            raise error
        self.errors[job_id] = error

    def words(self) -> list[str]:
        """Return a line for each error, which names its jobs."""
        job_ids: dict[str, list[str]] = defaultdict(list)
        for job_id, error in self.errors.items():
            job_ids[str(error)].append(str(job_id))
        return [
            f"job {ids[0]} stays failed: {error}" if len(ids) == 1 else f"jobs {', '.join(ids)} stay failed: {error}"
            for error, ids in job_ids.items()
        ]
