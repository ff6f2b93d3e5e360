"""The running job: what a job may ask about itself, ``current_job()``.

Not in a file ``current_job.py``: a module of that name would replace the function in ``solidjq``.
"""

from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass

from sqlalchemy import select

from solidjq.database.tables import claimed
from solidjq.database.transactions import Database
from solidjq.queue.claim import Claim
from solidjq.queue.endings import claims_of


@dataclass(frozen=True, slots=True)
class ClaimedBy:
    """The claim of a running job, and the worker that has it."""

    claim: Claim
    process_id: int
    database: Database
    stop_requested: Callable[[], bool]


@dataclass(frozen=True, slots=True)
class CurrentJob:
    """The job that runs here. Outside of a worker, where a test or a program calls the function, nothing stops it."""

    _claimed_by: ClaimedBy | None = None

    @property
    def id(self) -> int | None:
        """The job's id; None outside of a worker."""
        return None if self._claimed_by is None else self._claimed_by.claim.job_id

    def should_stop(self) -> bool:
        """Whether the job should stop soon: its worker was told to stop, or could not reach the database for too long.

        In the second case other programs may take the worker for dead and run the job elsewhere. A job that stops
        early raises ``Stopping``; one that returns counts as finished. Costs no query.
        """
        return self._claimed_by is not None and self._claimed_by.stop_requested()

    def still_mine(self) -> bool:
        """Whether the worker still has its claim on this job: check it just before what must not be done twice.

        It is one query. False: the worker was taken for dead, so the job may run elsewhere, and however it ends here is
        not recorded. Raises DatabaseUnreachableError if the database cannot be asked; then the job fails unless it
        catches that, which is safe: nothing was done.
        """
        if self._claimed_by is None:
            return True
        mine = claims_of(self._claimed_by.process_id, [self._claimed_by.claim.id])
        with self._claimed_by.database.read() as connection:
            return connection.scalar(select(claimed.c.id).where(mine)) is not None


_NOBODYS = CurrentJob()
_current: ContextVar[CurrentJob] = ContextVar("solidjq_current_job", default=_NOBODYS)


def current_job() -> CurrentJob:
    """Return the job that runs in this thread or task."""
    return _current.get()


def set_current_job(claimed_by: ClaimedBy | None) -> None:
    """Make this the job of this thread, and of the tasks that it starts; None after its end."""
    _current.set(_NOBODYS if claimed_by is None else CurrentJob(claimed_by))
