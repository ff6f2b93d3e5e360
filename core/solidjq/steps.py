"""Steps: a long job goes on where it died. The running job's progress, in memory and in its row.

``running.py`` offers them as methods of ``current_job()``.
"""

import logging
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Any, Self, TypeVar

from sqlalchemy import Connection, Transaction, select

from solidjq.database.tables import claimed
from solidjq.errors import (
    ArgumentsError,
    BusyError,
    Cancelled,
    ClaimLostError,
    ConflictError,
    DatabaseUnreachableError,
    LockedError,
    StepError,
    Stopping,
    TookTooLongError,
)
from solidjq.queue.checkpoint_groups import CheckpointGroups
from solidjq.queue.checkpoints import save_within
from solidjq.queue.claim import Claim
from solidjq.queue.endings import claims_of
from solidjq.rails.argument_values import deserialize
from solidjq.rails.continuation import NO_PROGRESS, check_cursor, progress_of, with_progress
from solidjq.rails.positions import NO_MARKS, NOWHERE, Marks, key_of, marks_of, with_marks

log = logging.getLogger("solidjq")

CHECKPOINT_INTERVAL = 5.0  # seconds from one checkpoint of a step to the next, unless the step says otherwise
PATIENCE = 0.05  # seconds that a checkpoint may wait for those of other jobs, and at most a hundredth of its interval
OWN_TRANSACTION = "if this job has a transaction open there, give its connection: advance(..., connection=connection)"
R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class ClaimedBy:
    """The claim of a running job, and the worker that has it.

    ``stop_requested`` is whether the worker was told to stop. ``cancelled`` returns who asked for the end of this job,
    and why, in words; None if nobody did. ``has_crashed`` is whether a process died while it ran this job before, by a
    query.
    """

    claim: Claim
    checkpoints: CheckpointGroups
    stop_requested: Callable[[], bool]
    cancelled: Callable[[], str | None] = lambda: None
    has_crashed: Callable[[], bool] = lambda: False

    def is_held(self) -> bool:
        """Whether the worker still has the claim, by a query."""
        mine = claims_of(self.checkpoints.process_id, [self.claim.id])
        with self.checkpoints.database.read() as connection:
            return connection.scalar(select(claimed.c.id).where(mine)) is not None


class Steps:
    """The steps of one run of a job. Without a claim, outside of a worker, nothing is read or written."""

    def __init__(self, claimed_by: ClaimedBy | None) -> None:
        self._claimed_by = claimed_by
        self.progress = NO_PROGRESS if claimed_by is None else progress_of(claimed_by.claim.arguments)
        if self.progress.started:
            self.progress = replace(self.progress, resumptions=self.progress.resumptions + 1)
        before = NO_MARKS if claimed_by is None else marks_of(claimed_by.claim.arguments)
        # After a death every record is saved for one interval: so a second death names the record.
        since = (before.since or key_of(self.progress)) if before.running else None
        self._marks = Marks(running=True, exact=before.exact, rows=before.rows, since=since, skip=before.skip)
        self._saved = self._start = self.progress
        self._saved_marks = before
        self._began_at = self._saved_at = time.monotonic()
        self._begun: list[str] = []  # in this run
        self._asked = False  # for earlier crashes
        self._is_warned = False  # that the database could not be asked
        self._is_marked = before != NO_MARKS  # whether the job's row may have marks
        # The caller's, of the last checkpoint within a transaction. Until the step is complete, nothing is saved
        # elsewhere: if that transaction rolls back, progress that was saved would pass over what it undid.
        self._connection: Connection | None = None
        self._transaction: Transaction | None = None

    def begin(self, name: str, interval: float, *, iterates: bool = False) -> "Step":
        """Begin the next step, or go on with it. Raises StepError if it is not the one that the progress expects.

        Where a death came before, it is saved that the step has begun: another one then has a position, though it come
        before the first checkpoint. If the step ``iterates`` over rows, that is saved when the first row is asked for.
        """
        if not name:
            raise StepError("a step must have a name")
        if name in self._begun:
            raise StepError(f"step {name!r} occurs twice in this job; give each step a name of its own")
        position, completed = len(self._begun), self.progress.completed
        if position > len(completed):
            raise StepError(f"step {name!r} begins before step {self._begun[-1]!r} is complete")
        expected = completed[position] if position < len(completed) else self.progress.current
        if expected not in {None, name}:
            raise StepError(
                f"step {name!r} begins where the job's progress has step {expected!r}: its steps have other names now, "
                "or another order; deploy those with which it began, or drop its progress: "
                f"jq retry {self._job} --restart"
            )
        done = position < len(completed)
        if not done:
            self.stop_if_told()
            self._marks = self._marks._replace(running=True)
            self._began_at = time.monotonic()
        self._begun.append(name)
        if expected is None:
            self.progress = self.progress.begin(name)
        if not done and not iterates and self._follows_death():
            self._save_beginning(interval)
        return Step(self, name, interval, done=done)

    def _follows_death(self) -> bool:
        """Whether a process died while it ran this job before; it is asked for where the job's row cannot say so."""
        by = self._claimed_by
        if by is not None and self._saved == NO_PROGRESS and not self._asked:
            self._asked = True
            if by.has_crashed():
                self._marks = self._marks._replace(since=NOWHERE)
        return self._marks.since is not None

    @property
    def _job(self) -> object:
        return "ID" if self._claimed_by is None else self._claimed_by.claim.job_id

    def advance(self, name: str, cursor: Any, interval: float, connection: Connection | None) -> None:
        """Move the cursor of the current step; save it if that is due, or within the caller's transaction."""
        check_cursor(name, cursor)
        self.progress = replace(self.progress, cursor=cursor)
        if connection is not None:
            self.checkpoint(connection)
            return
        self.stop_if_told()
        if self._connection is None and self._is_due(interval):
            self._save_if_possible()

    def _is_due(self, interval: float) -> bool:
        """Whether a checkpoint is due; notes whether each record is saved."""
        now = time.monotonic()
        careful = self._marks.since is not None and now - self._began_at < interval
        over = self._marks.since is not None and not careful
        self._marks = self._marks._replace(exact=careful or interval == 0, since=self._marks.since if careful else None)
        return careful or over or now - self._saved_at >= interval

    def iterate(self, interval: float) -> None:
        """Note that the current step iterates over rows; if nothing was saved before, save that it has begun."""
        self._marks = self._marks._replace(rows=True)
        if self._claimed_by is not None and (self._saved == NO_PROGRESS or self._marks.since is not None):
            self._save_beginning(interval)

    def _save_beginning(self, interval: float) -> None:
        if self._connection is None:  # else another one might wait for its transaction's lock on the claim
            self._is_due(interval)
            self._save_if_possible()

    def passes_over(self) -> bool:
        """Whether the row after the cursor is the one that a retry asked to pass over."""
        return self._marks.skip is not None and self._marks.skip == key_of(self.progress)

    def pass_over(self, name: str, cursor: Any) -> None:
        """Count a row as done that was not, and save that. From now on the job stands behind it."""
        check_cursor(name, cursor)
        log.warning("job %s: passed over the row with cursor %r of step %s: --skip-record", self._job, cursor, name)
        self.progress = replace(self.progress, cursor=cursor)
        since = None if self._marks.since is None else key_of(self.progress)
        self._marks = self._marks._replace(skip=None, since=since)
        self._save_if_possible()

    def complete(self) -> None:
        """Complete the current step, and save that."""
        self.progress = self.progress.complete()
        self._marks = self._marks._replace(rows=False, exact=False, since=None, skip=None)
        if self._connection is not None and self._transaction is not None and self._transaction.is_active:
            self._save(self._connection)  # another connection would wait for that transaction's lock on the claim
            return
        self._connection = self._transaction = None
        self._save_if_possible()

    def checkpoint(self, connection: Connection | None = None) -> None:
        """Save the progress now, in the caller's transaction if one is given.

        Raises Cancelled, Stopping and ClaimLostError.
        """
        if connection is not None:
            self._connection = connection
            self._marks = self._marks._replace(exact=True, since=None)
        self._save(connection)
        if connection is not None:
            self._transaction = connection.get_transaction()
        self.stop_if_told()

    def stop_if_told(self) -> None:
        """If the job or its worker is to stop, save the progress and raise Cancelled or Stopping."""
        by = self._claimed_by
        if by is None or ((words := by.cancelled()) is None and not by.stop_requested()):
            return
        if self._connection is None:
            self._end_orderly()
            self._save_if_possible()
        raise Stopping if words is None else Cancelled(words)

    def _end_orderly(self) -> None:
        """Take back that the run goes on: it ends, and saves all that is done."""
        exact = self._marks.rows and (self._marks.exact or self.progress != self._start)
        self._marks = self._marks._replace(running=False, exact=exact, since=None)

    def save_at_exception(self) -> None:
        """Save what is not saved yet, because an exception ends the step or the job; it must not be hidden by another.

        What a caller's transaction was to save is left to that transaction, which may just have been rolled back.
        """
        if self._connection is not None or (self.progress == self._saved and not self._saved_marks.running):
            return
        self._end_orderly()
        try:
            self._save(None)
        except Exception as error:  # noqa: BLE001  (the exception that is under way counts)
            log.warning("job %s: its progress could not be saved: %s", self._job, error)

    def final_arguments(self) -> str | None:
        """Return the payload of the job, which is done, without the marks of its runs; None if it has none."""
        if self._claimed_by is None or not self._is_marked:
            return None
        return with_marks(with_progress(self._claimed_by.claim.arguments or "", self.progress), NO_MARKS)

    def _save_if_possible(self) -> None:
        """Save the progress; if the database cannot be asked, the next checkpoint saves it: the job need not fail."""
        try:
            self._save(None)
        except (DatabaseUnreachableError, ConflictError, TookTooLongError) as error:
            self._saved_at = time.monotonic()
            level = logging.DEBUG if self._is_warned else logging.WARNING  # a thousand jobs would fill the log
            self._is_warned = True
            words = "job %s: its progress is not saved, trying again at each checkpoint until it is: %s"
            log.log(level, words, self._job, error)
        else:
            self._is_warned = False

    def _save(self, connection: Connection | None) -> None:
        by = self._claimed_by
        if by is not None and (self.progress, self._marks) != (self._saved, self._saved_marks):
            arguments = with_marks(with_progress(by.claim.arguments or "", self.progress), self._marks)
            self._is_marked = True
            if connection is None:
                held = self._save_alone(by, arguments)
            else:
                held = save_within(connection, by.checkpoints.process_id, by.claim, arguments)
            if not held:
                raise self._not_held(by, connection)
        self._saved_at = time.monotonic()
        if connection is None:
            self._saved, self._saved_marks = self.progress, self._marks

    def _save_alone(self, by: ClaimedBy, arguments: str) -> bool:
        try:
            return by.checkpoints.save(by.claim, arguments, self._patience)
        except (BusyError, LockedError) as error:
            raise type(error)(f"{error}; {OWN_TRANSACTION}") from error

    @property
    def _patience(self) -> float:
        """How many seconds a checkpoint may wait for those of other jobs; an event loop must not wait at all."""
        asyncio = sys.modules.get("asyncio")  # nobody runs a loop who has not loaded it, which takes 30 ms
        if asyncio is not None:
            with suppress(RuntimeError):
                asyncio.get_running_loop()
                return 0.0
        return min(PATIENCE, (time.monotonic() - self._saved_at) / 100)

    def _not_held(self, by: ClaimedBy, connection: Connection | None) -> Exception:
        if connection is not None and by.is_held():
            return StepError(
                f"the connection that the checkpoint of job {by.claim.job_id} was given leads to another database than "
                f"the queue's ({by.checkpoints.database}); a checkpoint and the job's own rows commit together only in "
                "one database"
            )
        return ClaimLostError(
            f"job {by.claim.job_id} is no longer this worker's: the worker was taken for dead, and the job may run "
            "elsewhere; its progress was not saved"
        )


class Step:
    """One step of the running job, and how far it is."""

    def __init__(self, steps: Steps, name: str, interval: float, *, done: bool) -> None:
        self._steps = steps
        self.name = name
        self._interval = interval
        self._done = done

    def __repr__(self) -> str:
        return f"<step {self.name}{', done' if self._done else ''}>"

    @property
    def done(self) -> bool:
        """Whether the step is complete; then leave out its work."""
        return self._done

    @property
    def cursor(self) -> Any:
        """How far the step is: what ``advance`` was given last, None at first.

        Raises StepError if the step is done: its work would begin again at None.
        """
        self._require_open("has no cursor any more")
        try:
            return deserialize(self._steps.progress.cursor)
        except ArgumentsError as error:
            raise StepError(f"the cursor of step {self.name!r} cannot be read in Python: {error}") from None

    def advance(self, to: Any, *, connection: Connection | None = None) -> None:
        """Move the cursor, when all up to it is done. It is saved if the last checkpoint is long enough ago.

        With a ``connection``, which must lead to the queue's database, it is saved in the transaction that is open
        there: it counts if that commits, together with what the job itself wrote.

        Raises Stopping, after it was saved, if the worker was told to stop, and Cancelled if the job was asked to;
        ClaimLostError if the claim is gone; StepError for a cursor that is too large, or no integer, string, boolean,
        None or list of these.
        """
        self._require_open("cannot advance")
        self._steps.advance(self.name, to, self._interval, connection)

    def _require_open(self, words: str) -> None:
        if self._done:
            raise StepError(f"step {self.name!r} is done and {words}; look at its done before its work begins")

    def __enter__(self) -> Self:
        """Return the step."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Complete the step, or save how far it is if an exception leaves it."""
        if self._done:
            return
        if kind is None:
            self._complete()
        else:
            self._steps.save_at_exception()

    def _complete(self) -> None:
        self._steps.complete()
        self._done = True

    def rows(self, rows: Iterable[R] | Callable[[Any], Iterable[R]], cursor: Callable[[R], Any]) -> Iterator[R]:
        """Yield the rows that are left; a row is done when the next one is asked for. Completes the step at the end."""
        if self._done:
            return
        self._steps.iterate(self._interval)
        for row, position in self._left(rows, cursor):
            if self._steps.passes_over():
                self._steps.pass_over(self.name, position)
                continue
            yield row
            self.advance(position)
        self._complete()

    def _left(
        self, rows: Iterable[R] | Callable[[Any], Iterable[R]], cursor: Callable[[R], Any]
    ) -> Iterator[tuple[R, Any]]:
        """Yield the rows beyond the cursor, each with its own; raise StepError if their order could lose one."""
        start = last = self.cursor
        rest = rows(start) if callable(rows) else rows
        passing = start is not None and not callable(rows)
        for row in rest:
            position = cursor(row)
            if passing and not self._is_after(position, start):
                continue
            if position is None or position == last:
                raise StepError(
                    f"two rows of step {self.name!r} have the cursor {position!r}, or have none: a resume could not "
                    "tell them apart; use a unique value as cursor"
                )
            if not callable(rows) and last is not None and not self._is_after(position, last):
                raise StepError(
                    f"the rows of step {self.name!r} are not in the order of their cursors: {position!r} came after "
                    f"{last!r}; sort them, or pass a function that takes the cursor and returns the rows after it"
                )
            passing, last = False, position
            yield row, position

    def _is_after(self, position: Any, other: Any) -> bool:
        try:
            return bool(position > other)
        except TypeError:
            raise StepError(
                f"the cursors {position!r} and {other!r} of step {self.name!r} cannot be compared; pass a function "
                "that takes the cursor and returns the rows after it"
            ) from None
