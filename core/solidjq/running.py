"""The running job: what a job may ask and do about itself, ``current_job()``.

Not in a file ``current_job.py``: a module of that name would replace the function in ``solidjq``.
"""

from collections.abc import Callable, Iterable, Iterator
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, TypeVar

from sqlalchemy import Connection

from solidjq.steps import CHECKPOINT_INTERVAL, ClaimedBy, Step, Steps

R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class CurrentJob:
    """The job that runs here. Outside of a worker, where a test or a program calls the function, nothing stops it."""

    _claimed_by: ClaimedBy | None = None
    _steps: Steps | None = None

    @property
    def id(self) -> int | None:
        """The job's id; None outside of a worker."""
        return None if self._claimed_by is None else self._claimed_by.claim.job_id

    def should_stop(self) -> bool:
        """Whether the job should stop soon.

        Its worker was told to stop, or an operator asked this job to (``jq jobs stop``), or the worker could not reach
        the database for too long: then other programs may take it for dead and run the job elsewhere. A job that stops
        early raises ``Stopping`` in each case; one that returns counts as finished. Costs no query.
        """
        by = self._claimed_by
        return by is not None and (by.stop_requested() or by.cancelled() is not None)

    def still_mine(self) -> bool:
        """Whether the worker still has its claim on this job: check it just before what must not be done twice.

        It is one query. False: the worker was taken for dead, so the job may run elsewhere, and however it ends here is
        not recorded. Raises DatabaseUnreachableError if the database cannot be asked; then the job fails unless it
        catches that, which is safe: nothing was done.
        """
        if self._claimed_by is None:
            return True
        return self._claimed_by.is_held()

    def step(self, name: str, *, checkpoint_interval: float = CHECKPOINT_INTERVAL) -> Step:
        """Begin a step, or go on with it where it was: ``with current_job().step("import") as step:``.

        The end of the block completes it. A job that runs again, after its process died too, passes over the steps that
        are ``done`` and goes on from the ``cursor`` of the one that is not. The cursor is saved every
        ``checkpoint_interval`` seconds as ``step.advance(to=...)`` moves it, each time if that is 0.

        Raises StepError if the job's progress has another step in this place, Stopping if the worker was told to stop,
        Cancelled if the job was asked to.
        """
        return self._steps_of_run().begin(name, checkpoint_interval)

    def iterate(
        self,
        name: str,
        rows: Iterable[R] | Callable[[Any], Iterable[R]],
        *,
        cursor: Callable[[R], Any],
        checkpoint_interval: float = CHECKPOINT_INTERVAL,
    ) -> Iterator[R]:
        """Yield the rows of a step that are left: none if it is done. ``cursor(row)`` is the row's own cursor.

        ``rows`` is a function that takes the cursor, None at first, and returns the rows after it; or, where passing
        over those that are done takes no time, the rows in ascending order of their cursors. A row is done when the
        loop asks for the next one.

        Raises StepError, Stopping, Cancelled and ClaimLostError as ``step`` and ``Step.advance`` do, and StepError for
        rows that a resume could not tell apart, or that are out of order.
        """
        yield from self._steps_of_run().begin(name, checkpoint_interval, iterates=True).rows(rows, cursor)

    def checkpoint(self, connection: Connection | None = None) -> None:
        """Save the progress now: with a ``connection`` to the queue's database, in the transaction that is open there.

        Raises Stopping, after it was saved, if the worker was told to stop, and Cancelled if the job was asked to;
        ClaimLostError if the claim is gone, so that the job may run elsewhere.
        """
        self._steps_of_run().checkpoint(connection)

    def save_at_exception(self) -> None:
        """Save what is not saved yet of the progress, because an exception ends the job; raises nothing."""
        self._steps_of_run().save_at_exception()

    def final_arguments(self) -> str | None:
        """Return the payload that the job's row gets at its end; None if it stays as it is."""
        return self._steps_of_run().final_arguments()

    def _steps_of_run(self) -> Steps:
        return Steps(None) if self._steps is None else self._steps


_NOBODYS = CurrentJob()
_current: ContextVar[CurrentJob] = ContextVar("solidjq_current_job", default=_NOBODYS)


def current_job() -> CurrentJob:
    """Return the job that runs in this thread or task."""
    return _current.get()


def set_current_job(claimed_by: ClaimedBy | None) -> None:
    """Make this the job of this thread, and of the tasks that it starts; None after its end."""
    _current.set(_NOBODYS if claimed_by is None else CurrentJob(claimed_by, Steps(claimed_by)))
