"""Refusals: jobs that the database refuses to move, by a trigger say. They are found by halves, and keep no other."""

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from typing import TypeVar

from solidjq.errors import DatabaseError, concerns_rows
from solidjq.ledger.operations import Operation
from solidjq.text import count_of, first_of

MOST_REFUSED = 10  # jobs in a row, of which none moves; then the database refuses them all
MOST_NAMED = 20  # jobs with one error, and errors

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

    errors: dict[int, str] = field(default_factory=dict)  # by the id of the job
    in_a_row: int = 0  # jobs that were refused since the last one that moved

    def note(self, moved: bool) -> None:  # noqa: FBT001  (its only argument)
        """Note whether a transaction that was not refused moved a job."""
        if moved:
            self.in_a_row = 0

    def by_halves(
        self, rows: Sequence[tuple[int, int]], error: DatabaseError, move: Callable[[Sequence[int]], T]
    ) -> Iterator[tuple[Sequence[int], T | None]]:
        """Move the rows of a transaction that was refused with ``error``: its halves, and their halves if need be.

        ``rows`` are ids, ascending, each with its job's id; ``move`` moves those of some ids in a transaction of its
        own. Yields these ids, with what ``move`` returned, or None if a row was refused alone.

        Raises the error if it is not about rows, and if more than ``MOST_REFUSED`` jobs in a row are refused.
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
        if self.in_a_row >= MOST_REFUSED:
            raise error
        self.in_a_row += 1
        self.errors[job_id] = str(error)

    def words(self) -> list[str]:
        """Return a line for each of the first errors, which names its first jobs, and one that counts the others."""
        job_ids: dict[str, list[str]] = defaultdict(list)
        for job_id, error in self.errors.items():
            job_ids[error].append(str(job_id))
        lines = [
            f"job {ids[0]} stays failed: {error}"
            if len(ids) == 1
            else f"jobs {first_of(ids, MOST_NAMED)} stay failed: {error}"
            for error, ids in islice(job_ids.items(), MOST_NAMED)
        ]
        more = sum(len(ids) for ids in islice(job_ids.values(), MOST_NAMED, None))
        return [*lines, *([f"{count_of(more, 'more job')} refused with other errors"] if more else [])]
