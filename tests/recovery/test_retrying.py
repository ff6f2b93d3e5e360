"""A retry moves what is failed, archives the failure first, and can be run again."""

import json

import pytest
from sqlalchemy import insert, update

from solidjq import Database, NewJob
from solidjq.database import tables
from solidjq.database.tables import failed, failures, jobs, operations, ready, scheduled
from solidjq.database.times import ago, utcnow
from solidjq.errors import LedgerMissingError
from solidjq.ledger.operations import Operation
from solidjq.queue import endings
from solidjq.queue.states import State
from solidjq.rails.error_text import error_json
from support.processes import add_process
from support.queue import add_jobs, claim_all, plain_jobs, rows, state_of_each
from support.recovery import Retried, retry_jobs
from support.scenes import change

ERROR = error_json("ValueError", "boom")


def fail_all(database: Database) -> None:
    process = add_process(database)
    claim_all(database, process, 5000)
    database.transact(endings.fail, endings.claims_of(process), ERROR)


def retry(database: Database, *job_ids: int) -> Retried:
    return retry_jobs(database, job_ids, Operation("retry", command="jq retry", reason="because"))


def test_a_failed_job_is_ready_again(database: Database) -> None:
    one, two = add_jobs(database, *plain_jobs(2, queue_name="mailers", priority=4))
    fail_all(database)
    assert retry(database, one).job_ids == [one]
    assert state_of_each(database) == {one: State.READY, two: State.FAILED}
    (execution,) = rows(database, ready)
    assert (execution["job_id"], execution["queue_name"], execution["priority"]) == (one, "mailers", 4)


def test_the_failure_is_archived_with_who_and_why(database: Database) -> None:
    (job_id,) = add_jobs(database, *plain_jobs(1))
    fail_all(database)
    (failure,) = rows(database, failed)
    (job,) = rows(database, jobs)
    retry(database, job_id)
    (operation,) = rows(database, operations)
    assert (operation["verb"], operation["reason"], operation["jobs"]) == ("retry", "because", 1)
    assert "@" in operation["actor"]
    (archived,) = rows(database, failures)
    assert archived["operation_id"] == operation["id"]
    assert archived["failure_id"] == failure["id"]
    assert archived["failed_at"] == failure["created_at"]
    assert (archived["job_id"], archived["active_job_id"]) == (job_id, job["active_job_id"])
    assert archived["error"] == ERROR


@pytest.mark.parametrize("way", ["at once", "one by one", "paced"])
def test_a_failed_job_that_waits_already_keeps_no_other_from_its_retry(database: Database, way: str) -> None:
    """As after a damage by hand: its failure is archived, and it goes on waiting."""
    ids = add_jobs(database, *plain_jobs(2))
    fail_all(database)
    row = {"job_id": ids[0], "queue_name": "default", "priority": 0, "created_at": utcnow()}
    table, more = (scheduled, {"scheduled_at": ago(-60)}) if way == "paced" else (ready, {})
    change(database, insert(table).values(**row, **more))
    terms = {"interval": 5} if way == "paced" else {}
    assert retry_jobs(database, ids, by_job=way != "at once", **terms).count == len(ids)
    assert len(rows(database, failures)) == len(ids)
    assert set(state_of_each(database).values()) == {State.SCHEDULED if way == "paced" else State.READY}


def test_a_second_retry_changes_nothing(database: Database) -> None:
    (job_id,) = add_jobs(database, *plain_jobs(1))
    fail_all(database)
    retry(database, job_id)
    assert retry(database, job_id, 10**12).job_ids == []
    assert len(rows(database, failures)) == len(rows(database, operations)) == 1
    assert state_of_each(database) == {job_id: State.READY}


def test_attempt_counters_start_again(database: Database) -> None:
    (job_id,) = add_jobs(database, NewJob(class_name="A", args=[{"executions": 5}, 1.10]))
    fail_all(database)
    (before,) = rows(database, jobs)
    worn = (
        before["arguments"]
        .replace('"executions":0', '"executions": 3 ')
        .replace('"exception_executions":{}', '"exception_executions":{"[E]":3}')
    )
    with database.write() as connection:
        connection.execute(update(jobs).values(arguments=worn, updated_at=ago(1000)))
    retry(database, job_id)
    (after,) = rows(database, jobs)
    assert after["arguments"] == worn.replace('"executions": 3 ', '"executions": 0 ').replace('{"[E]":3}', "{}")
    assert json.loads(after["arguments"]) == json.loads(before["arguments"])
    assert after["updated_at"] >= before["updated_at"]


def test_a_job_with_a_concurrency_key_is_left_to_a_dispatcher(database: Database) -> None:
    (job_id,) = add_jobs(database, *plain_jobs(1))
    fail_all(database)
    with database.write() as connection:
        connection.execute(update(jobs).values(concurrency_key="L/k"))
    before = database.now()
    assert retry(database, job_id).scheduled == [job_id]
    assert state_of_each(database) == {job_id: State.SCHEDULED}
    (execution,) = rows(database, scheduled)
    assert abs((execution["scheduled_at"] - before).total_seconds()) < 60


def test_a_job_whose_time_has_not_come_waits_for_it(database: Database) -> None:
    (job_id,) = add_jobs(database, *plain_jobs(1))
    fail_all(database)
    with database.write() as connection:
        connection.execute(update(jobs).values(scheduled_at=ago(-3600)))
    (job,) = rows(database, jobs)
    assert retry(database, job_id).scheduled == [job_id]
    assert rows(database, scheduled)[0]["scheduled_at"] == job["scheduled_at"]


def test_a_job_that_finished_too_is_not_retried(database: Database) -> None:
    """Damage that some other program left: retrying it would run a finished job again."""
    (job_id,) = add_jobs(database, *plain_jobs(1))
    fail_all(database)
    with database.write() as connection:
        connection.execute(update(jobs).values(finished_at=utcnow()))
    assert retry(database, job_id).job_ids == []
    assert len(rows(database, failed)) == 1


def test_thousands_are_retried_in_batches_of_one_operation(database: Database) -> None:
    ids = add_jobs(database, *plain_jobs(2300))
    fail_all(database)
    assert retry(database, *ids).ready == ids
    assert set(state_of_each(database).values()) == {State.READY}
    (operation,) = rows(database, operations)
    assert operation["jobs"] == len(rows(database, failures)) == 2300


def test_without_the_ledger_nothing_is_retried(database: Database, empty_url: object) -> None:
    from sqlalchemy.engine import URL

    assert isinstance(empty_url, URL)
    bare = Database(empty_url)
    bare.transact(tables.solid_queue.create_all)
    (job_id,) = add_jobs(bare, *plain_jobs(1))
    with bare.write() as connection:
        connection.execute(ready.delete())
        connection.execute(insert(failed).values(job_id=job_id, error=ERROR, created_at=utcnow()))
    with pytest.raises(LedgerMissingError, match="jq init"):
        retry(bare, job_id)
    assert state_of_each(bare) == {job_id: State.FAILED}
    bare.close()
