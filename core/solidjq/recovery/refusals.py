"""Refusals: jobs that the database refuses to move, by a trigger say. They are found by halves, and keep no other."""

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from typing import Generic, NamedTuple, TypeVar

from solidjq.errors import DatabaseError, concerns_rows
from solidjq.ledger.operations import Operation, reverting
from solidjq.text import count_of, first_of

# Jobs in a row that are refused alone, each of them tried in a transaction of its own:
IN_ORDER = 3  # from then on the largest part is next, so that what is tried is spread over the batch
MOST_OF_BATCH = 5  # then the rest of the batch waits until the other batches were tried
MOST_IN_VAIN = 50  # while no job has moved; then the database refuses them all
MOST_REFUSED = 1000  # once a job has moved
MOST_NAMED = 20  # jobs with one error, and errors

T = TypeVar("T")
Row = tuple[int, int]  # the id of a row, and that of its job


@dataclass(slots=True)
class Refusals:
    """The jobs that the database refused to move in one command, each with the database's error."""

    errors: dict[int, str] = field(default_factory=dict)  # by the id of the job
    in_a_row: int = 0  # jobs that were refused since the last one that moved
    has_moved: bool = False  # whether any job moved: then the database does not refuse them all

    def note_move(self) -> None:
        """Note that a transaction moved a job."""
        self.in_a_row, self.has_moved = 0, True

    def add(self, job_id: int, error: DatabaseError) -> None:
        """Add a job that was refused alone. Raises the error if so many in a row were that no more are to be tried."""
        if self.in_a_row >= (MOST_REFUSED if self.has_moved else MOST_IN_VAIN):
            raise type(error)(f"{error}; it refused {count_of(self.in_a_row + 1, 'job')} in a row") from error
        self.in_a_row += 1
        self.errors[job_id] = str(error)

    @property
    def names_last(self) -> bool:
        """Whether the job that was added last is one of the first ``MOST_NAMED``, which are named with their error."""
        return len(self.errors) <= MOST_NAMED

    def words(self, *, one: str = "stays failed", several: str = "stay failed") -> list[str]:
        """Return a line for each of the first errors, which names its first jobs, and one that counts the others."""
        job_ids: dict[str, list[int]] = defaultdict(list)
        for job_id, error in sorted(self.errors.items()):  # they were refused in the order of the halves
            job_ids[error].append(job_id)
        lines = [
            f"job {ids[0]} {one}: {error}" if len(ids) == 1 else f"jobs {first_of(ids, MOST_NAMED)} {several}: {error}"
            for error, ids in islice(job_ids.items(), MOST_NAMED)
        ]
        more = sum(len(ids) for ids in islice(job_ids.values(), MOST_NAMED, None))
        return [*lines, *([f"{count_of(more, 'more job')} refused with other errors"] if more else [])]


class Moves(NamedTuple, Generic[T]):
    """How the rows of one batch are moved: ``all`` of them, or ``some`` by their ids, in one transaction each.

    ``rows`` reads them, in the order of their ids, if they were refused together.
    """

    all: Callable[[], T]
    some: Callable[[Sequence[int]], T]
    rows: Callable[[], Sequence[Row]]


class Part(NamedTuple, Generic[T]):
    """What became of some rows of a batch: the result of their move, or the error of a row that was refused alone.

    Neither: they are still to be tried, by ``Halving.rest``. ``ids`` is empty if a whole batch moved at once.
    """

    ids: Sequence[int]
    moved: T | None = None
    error: DatabaseError | None = None


@dataclass(slots=True)
class Halving(Generic[T]):
    """Moves the batches of one command; a refused transaction is made again for each half of its rows, and so on.

    Without ``refusals``, the first refused transaction raises its error. ``has_moved``: whether the result of a move
    says that a job moved.

    What is about more than rows is raised, and so is the error at which too many jobs in a row were refused. These are
    spread over all batches, so that a database which refuses everything costs some hundred transactions, however many
    jobs there are, and one that refuses the oldest thousand jobs keeps none of the others.
    """

    refusals: Refusals | None
    operation: Operation
    has_moved: Callable[[T], bool]
    _waiting: list[tuple[Moves[T], list[Sequence[Row]]]] = field(default_factory=list)

    def move(self, moves: Moves[T]) -> Iterator[Part[T]]:
        """Move a batch, in one transaction if possible; yield its parts, each committed."""
        try:
            moved = self._transact(moves.all)
        except DatabaseError as error:
            if self.refusals is None or not concerns_rows(error):
                raise
            rows = moves.rows()
            if not rows:
                raise
            if len(rows) > 1:
                yield from self._move_parts(self.refusals, moves, halves(rows), MOST_OF_BATCH)
                return
            yield self._refused(self.refusals, rows[0], error)
        else:
            yield Part((), moved)

    def rest(self) -> Iterator[Part[T]]:
        """Move what has waited until the other batches were tried; yield its parts, each committed."""
        for moves, parts in self._waiting:
            if self.refusals is not None:
                yield from self._move_parts(self.refusals, moves, parts)

    def _move_parts(
        self, refusals: Refusals, moves: Moves[T], parts: list[Sequence[Row]], most: int | None = None
    ) -> Iterator[Part[T]]:
        in_vain = 0  # jobs of this batch that were refused alone since the last one that moved
        at = 0
        while parts and (most is None or in_vain < most):
            part = parts.pop(at)
            ids = [row_id for row_id, _ in part]
            try:
                moved = self._transact(partial(moves.some, ids))
            except DatabaseError as error:
                if not concerns_rows(error):
                    raise
                if len(part) > 1:
                    parts[at:at] = halves(part)
                    continue  # with the first half, until a job is refused alone
                in_vain += 1
                yield self._refused(refusals, part[0], error)
            else:
                in_vain = 0 if self.has_moved(moved) else in_vain
                yield Part(ids, moved)
            at = 0 if in_vain < IN_ORDER or not parts else max(range(len(parts)), key=lambda at: len(parts[at]))
        if parts:
            self._waiting.append((moves, parts))
            yield from (Part([row_id for row_id, _ in part]) for part in parts)

    def _transact(self, move: Callable[[], T]) -> T:
        with reverting(self.operation):
            moved = move()
        if self.refusals is not None and self.has_moved(moved):
            self.refusals.note_move()
        return moved

    def _refused(self, refusals: Refusals, row: Row, error: DatabaseError) -> Part[T]:
        row_id, job_id = row
        refusals.add(job_id, error)
        return Part([row_id], error=error)


def halves(rows: Sequence[Row]) -> list[Sequence[Row]]:
    """Return the first and the second half of several rows."""
    middle = len(rows) // 2
    return [rows[:middle], rows[middle:]]
