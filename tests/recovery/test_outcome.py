"""What became of the jobs of an operation: every outcome is counted once, on every database."""

import json

import pytest
from sqlalchemy import delete, update

from solidjq import Database, NewJob
from solidjq.database.tables import claimed, crashes, deaths, failed, failures, jobs, ready
from solidjq.database.times import utcnow
from solidjq.incidents.incidents import find_incidents
from solidjq.ledger import operations
from solidjq.ledger.operations import Operation
from solidjq.queue import endings, pauses
from solidjq.queue.executions import schedule
from solidjq.rails.error_text import error_json
from solidjq.recovery.outcome import JobOutcome as Is
from solidjq.recovery.outcome import LaterMove, OperationOutcome, outcome_of
from support.deaths import ALL, die
from support.processes import add_process
from support.program import Shell
from support.queue import add_jobs, claim_all, plain_jobs
from support.recovery import retry_jobs, undo


def outcome(database: Database, operation: Operation) -> OperationOutcome | None:
    assert operation.id is not None
    with database.read() as connection:
        (view,) = operations.list_operations(connection, ids=[operation.id])
        return outcome_of(connection, view)


def counts(database: Database, operation: Operation) -> dict[Is, int]:
    found = outcome(database, operation)
    assert found is not None
    return dict(found.counts)


def died_and_retried(database: Database, count: int, verb: str = "retry") -> tuple[list[int], Operation]:
    """Return jobs whose worker died and that were retried, and that retry."""
    ids = add_jobs(database, *plain_jobs(count))
    die(database, silent=9000)
    operation = Operation(verb)
    retry_jobs(database, selection=ALL, operation=operation, discard=verb == "discard")
    return ids, operation


def test_every_outcome_is_counted_once(database: Database) -> None:
    ids, operation = died_and_retried(database, 9)
    assert counts(database, operation) == {Is.READY: 9}
    done, fails, runs, gone, late, dies, paused, waits, nowhere = ids
    worker = add_process(database)
    claim_all(database, worker)
    database.transact(endings.finish, claimed.c.job_id == done)
    database.transact(endings.fail, claimed.c.job_id == fails, error_json("E", "boom"))
    database.transact(endings.release, claimed.c.job_id.in_([gone, late, dies, paused, waits, nowhere]))
    with database.write() as connection:
        connection.execute(delete(jobs).where(jobs.c.id == gone))
        connection.execute(delete(ready).where(ready.c.job_id.in_([late, nowhere])))
        schedule(connection, [late], at=utcnow())
        for table in (jobs, ready):
            key = table.c.id if table is jobs else table.c.job_id
            connection.execute(update(table).where(key == paused).values(queue_name="slow"))
    database.transact(pauses.pause, "slow")
    assert counts(database, operation) == {
        Is.FINISHED: 1,
        Is.FAILED: 1,
        Is.RUNNING: 1,
        Is.GONE: 1,
        Is.SCHEDULED: 1,
        Is.PAUSED: 1,
        Is.READY: 2,
        Is.STATELESS: 1,
    }
    found = outcome(database, operation)
    assert found is not None
    assert (found.jobs, found.open, found.died) == (9, 6, 0)
    assert {dies, waits, runs} < set(ids)


def test_jobs_that_died_again_are_named_by_their_incidents(database: Database) -> None:
    _, operation = died_and_retried(database, 5)
    claimed_ids = [claim.job_id for claim in claim_all(database, add_process(database, "lives"), 2)]
    die(database, silent=5000)  # three of them
    with database.read() as connection:
        incidents = find_incidents(connection)
    found = outcome(database, operation)
    assert found is not None
    assert dict(found.counts) == {Is.DIED: 3, Is.RUNNING: 2}
    assert found.incidents == {incidents[-1].name: 3}
    assert found.died == 3
    assert len(claimed_ids) == 2


def test_a_death_that_nobody_recorded_is_named_by_a_failure(database: Database) -> None:
    _, operation = died_and_retried(database, 2)
    die(database, silent=5000)
    with database.write() as connection:
        (first, *_) = sorted(connection.scalars(failed.select().with_only_columns(failed.c.id)))
        connection.execute(delete(crashes).where(crashes.c.failure_id >= first))
        connection.execute(delete(deaths))
    found = outcome(database, operation)
    assert found is not None
    assert found.incidents == {f"f{first}": 2}


def test_jobs_that_a_later_operation_moved_are_counted_there(database: Database) -> None:
    ids, first = died_and_retried(database, 4)
    die(database, silent=5000)
    again, away = Operation("retry"), Operation("discard")
    retry_jobs(database, ids[:2], again)
    retry_jobs(database, ids[2:3], away, discard=True)
    found = outcome(database, first)
    assert found is not None
    assert dict(found.counts) == {Is.RETRIED: 2, Is.DISCARDED: 1, Is.DIED: 1}
    assert again.id is not None
    assert away.id is not None
    assert found.later == (LaterMove(again.id, "retry", 2, 2), LaterMove(away.id, "discard", 1, 1))
    assert (found.jobs, found.open, found.died) == (4, 0, 4)
    assert counts(database, again) == {Is.READY: 2}
    undo(database, again)  # then they wait for a decision again, on behalf of the first
    undo(database, away)
    assert counts(database, first) == {Is.DIED: 4}


def test_what_an_undo_took_back_is_said(database: Database) -> None:
    ids, operation = died_and_retried(database, 3)
    claim_all(database, add_process(database), 1)
    undo(database, operation)
    assert counts(database, operation) == {Is.TAKEN_BACK: 2, Is.RUNNING: 1}
    assert len(ids) == 3


@pytest.mark.parametrize("cleared", [False, True])
def test_the_attempt_that_retry_on_enqueued_is_followed(database: Database, *, cleared: bool) -> None:
    """Rails finishes the job's row, and writes a new one for the next attempt, under the same Active Job id."""
    (job_id,), operation = died_and_retried(database, 1)
    claim_all(database, add_process(database))
    database.transact(endings.finish, claimed.c.job_id == job_id)
    assert counts(database, operation) == {Is.FINISHED: 1}
    (attempt,) = add_jobs(database, NewJob(class_name="PlainJob"))
    with database.write() as connection:
        name = connection.scalar(jobs.select().with_only_columns(jobs.c.active_job_id).where(jobs.c.id == job_id))
        connection.execute(update(jobs).where(jobs.c.id == attempt).values(active_job_id=name))
        if cleared:
            connection.execute(delete(jobs).where(jobs.c.id == job_id))
    assert counts(database, operation) == {Is.READY: 1}
    die(database, silent=5000)
    assert counts(database, operation) == {Is.DIED: 1}
    later = Operation("retry")
    retry_jobs(database, [attempt], later)
    assert counts(database, operation) == {Is.RETRIED: 1}


def test_jobs_without_an_active_job_id_are_followed_by_their_own(database: Database) -> None:
    ids, operation = died_and_retried(database, 2)
    with database.write() as connection:
        connection.execute(update(jobs).values(active_job_id=None))
        connection.execute(update(failures).values(active_job_id=None))
    die(database, silent=5000)
    retry_jobs(database, ids[:1], Operation("retry"))
    assert counts(database, operation) == {Is.RETRIED: 1, Is.DIED: 1}


@pytest.mark.sqlite_only
def test_only_operations_that_put_jobs_back_have_an_outcome(database: Database) -> None:
    _, discarded = died_and_retried(database, 1, "discard")
    assert outcome(database, discarded) is None


def test_show_says_it_in_words_and_in_json(database: Database, shell: Shell) -> None:
    ids, operation = died_and_retried(database, 6)
    claim_all(database, add_process(database), 3)
    database.transact(endings.finish, claimed.c.job_id.in_(ids[:2]))
    die(database, silent=5000)
    with database.write() as connection:
        connection.execute(delete(jobs).where(jobs.c.id == ids[0]))
    with database.read() as connection:
        died = find_incidents(connection)[-1].name
    assert operation.id == 1
    shown = shell.run("operations", "show", "1")
    assert shown.returncode == 0
    lines = shown.stdout.splitlines()
    assert lines[lines.index("outcome:") :] == [
        "outcome:",
        "  1 finished",
        f"  3 died again ({died})",
        "  1 running",
        "  1 no longer there: finished and cleared, or deleted",
    ]
    (record,) = json.loads(shell.run("operations", "show", "1", "-o", "json").stdout)
    counted = {key: value for key, value in record["outcome"].items() if value}
    assert counted == {"jobs": 6, "open": 1, "finished": 1, "died": 3, "running": 1, "gone": 1, "incidents": {died: 3}}
