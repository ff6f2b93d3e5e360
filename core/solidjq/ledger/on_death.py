"""Jobs that are enqueued because another died: what ``@job(on_death=...)`` wrote into the dead job's payload.

A death counts as one row of ``jq_crashes``, whichever program wrote the failure. The job is enqueued in the transaction
that inserts this row, so once a death: by the supervisor that reaped the process, by the prune that removed it, or by
the first maintenance that reads a failure which Rails wrote.
"""

import logging
from collections.abc import Collection, Iterable, Iterator
from dataclasses import replace
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Connection, Row, Select, select
from sqlalchemy.exc import DBAPIError

from solidjq.batching import in_batches
from solidjq.database.among import among
from solidjq.database.faults import OF_ROWS, Fault, fault_of, words_of
from solidjq.database.functions import holds
from solidjq.database.inserts import lacks
from solidjq.database.tables import crashes, failed, jobs
from solidjq.errors import ArgumentsError
from solidjq.queue.enqueue import NewJob, enqueue
from solidjq.queue.failed import is_death
from solidjq.rails.active_job import ON_DEATH, Call, call_of, on_death_of

log = logging.getLogger("solidjq")


class DeadJob(NamedTuple):
    """A job whose crash is about to be counted, and which asks for another job then."""

    failure_id: int
    job_id: int
    payload: str


def asks() -> ColumnElement[bool]:
    """Return the SQL condition that a job names another as its ``on_death``, with false positives."""
    return holds(jobs.c.arguments, f'"{ON_DEATH}"')


def lock_uncounted(connection: Connection, failure_ids: Collection[int]) -> list[DeadJob]:
    """Lock these failures; return the jobs of those that are uncounted crashes of jobs with an ``on_death``.

    Call it before the crashes are counted, in the same transaction: a program that counts the same crash waits for the
    lock, and then finds it counted.
    """
    found: list[DeadJob] = []
    for batch in in_batches(failure_ids):
        chosen = among(failed.c.id, batch)
        connection.execute(select(failed.c.id).where(chosen).order_by(failed.c.id).with_for_update()).all()
        found += _dead(connection.execute(_uncounted(chosen)))
    return found


def enqueue_for(connection: Connection, dead: Collection[DeadJob]) -> list[int]:
    """Enqueue what these dead jobs ask for; return the ids of the new jobs.

    The new job is called with the id of the dead job and then with its arguments; the id alone if those cannot be read,
    or are longer than the column takes. A job that the database refuses all the same is named in the log and left out:
    the death is recorded, since no row may stop a prune.
    """
    wanted = [new for one in dead if (new := _new_job(one)) is not None]
    if not wanted:
        return []
    try:
        return _enqueue(connection, wanted)
    except _RefusedError:
        return [job_id for new in wanted for job_id in _enqueue_one(connection, new)]


class _RefusedError(Exception):
    """The database takes one of the jobs for none, or this role may enqueue none."""


def _enqueue(connection: Connection, wanted: Collection[NewJob]) -> list[int]:
    """Enqueue all of these, or raise _RefusedError and enqueue none."""
    try:
        with connection.begin_nested():
            return enqueue(connection, wanted)
    except ArgumentsError as error:
        raise _RefusedError(str(error)) from error
    except DBAPIError as error:
        if fault_of(error) not in {*OF_ROWS, Fault.DENIED}:
            raise
        raise _RefusedError(words_of(error)) from error


def _enqueue_one(connection: Connection, new: NewJob) -> list[int]:
    dead_id = new.args[0]
    try:
        return _enqueue(connection, [new])
    except _RefusedError as refusal:
        log.warning("job %s died; %s gets its id alone: %s", dead_id, new.class_name, refusal)
    try:
        return _enqueue(connection, [replace(new, args=[dead_id], kwargs={})])
    except _RefusedError as refusal:
        log.warning("job %s died; %s is not enqueued: %s", dead_id, new.class_name, refusal)
        return []


def _uncounted(which: ColumnElement[bool]) -> Select[Any]:
    return (
        select(failed.c.id, failed.c.job_id, jobs.c.arguments)
        .join_from(failed, jobs, jobs.c.id == failed.c.job_id)
        .where(which, is_death(), lacks(crashes.c.failure_id, failed.c.id), asks())
        .order_by(failed.c.id)
    )


def _dead(rows: Iterable[Row[Any]]) -> Iterator[DeadJob]:
    return (DeadJob(row.id, row.job_id, row.arguments) for row in rows)


def _new_job(dead: DeadJob) -> NewJob | None:
    wanted = on_death_of(dead.payload)
    if wanted is None:
        return None
    try:
        call = call_of(dead.payload)
    except ArgumentsError as error:
        log.warning("job %d died; %s gets its id alone: %s", dead.job_id, wanted.class_name, error)
        call = Call([], {})
    return NewJob(
        class_name=wanted.class_name,
        args=[dead.job_id, *call.args],
        kwargs=call.kwargs,
        queue_name=wanted.queue_name,
        priority=wanted.priority,
    )
