"""An undo restores what nobody has claimed yet, exactly, and says of the rest why not."""

import pytest
from sqlalchemy import delete, update

from solidjq import Database, NewJob, endings, queue, undoing
from solidjq.concurrency import Limit
from solidjq.dialects import ago
from solidjq.errors import NoSuchJobError, UsageError
from solidjq.failures import error_json
from solidjq.ledger import Operation
from solidjq.schema import claimed, failed, failures, jobs, operations, ready, scheduled, semaphores
from solidjq.states import State
from solidjq.undoing import Undone
from support import Retried, add_jobs, add_process, claim_all, plain_jobs, retry_jobs, rows, state_of_each
from test_safe_retry import ALL, die


def undo(database: Database, operation: Operation) -> dict[int, str | None]:
    assert operation.id is not None
    return {
        each.job_id: each.reason
        for batch in undoing.undo(database, operation.id, Operation("undo", reason="wrong"))
        for each in batch
    }


def retry(database: Database, operation: Operation, **terms: object) -> Retried:
    return retry_jobs(database, selection=ALL, operation=operation, **terms)


@pytest.mark.parametrize("verb", ["retry", "discard"])
def test_all_is_as_it_was(database: Database, verb: str) -> None:
    limit = Limit(1)
    new = [*plain_jobs(2, queue_name="mailers", priority=7), NewJob(class_name="L", concurrency_key="L/k", limit=limit)]
    ids = add_jobs(database, *new)
    die(database)
    with database.write() as connection:
        worn = '{"arguments":[1.10],"executions":4,"exception_executions":{"[E]":4}}'
        connection.execute(update(jobs).where(jobs.c.id == ids[0]).values(arguments=worn, updated_at=ago(5000)))
    before = {table.name: rows(database, table) for table in (jobs, failed, ready, scheduled, semaphores)}
    operation = Operation(verb)
    if verb == "retry":
        assert retry(database, operation, queue_as="elsewhere").job_ids == ids
    else:
        assert retry(database, operation, discard=True).job_ids == ids
        assert rows(database, jobs) == []
    assert undo(database, operation) == dict.fromkeys(ids)
    after = {table.name: rows(database, table) for table in (jobs, failed, ready, scheduled, semaphores)}
    assert after == before
    assert [row["restored_by"] for row in rows(database, failures)] == [rows(database, operations)[-1]["id"]] * 3
    assert undo(database, operation) == {}
    assert retry(database, Operation("retry")).job_ids == ids  # and it can be retried again


def test_what_was_claimed_or_ended_stays(database: Database) -> None:
    waits, runs, done, fails, gone = add_jobs(database, *plain_jobs(5))
    die(database)
    operation = Operation("retry")
    retry(database, operation)
    worker = add_process(database)
    claim_all(database, worker)
    database.transact(endings.finish, claimed.c.job_id.in_([done, gone]))
    database.transact(endings.fail, claimed.c.job_id == fails, error_json("E", "boom"))
    database.transact(endings.release, claimed.c.job_id == waits)
    with database.write() as connection:
        connection.execute(delete(jobs).where(jobs.c.id == gone))
    left = undo(database, operation)
    assert left[waits] is None
    assert left[runs] == "it runs now"
    assert left[done] == "it has finished"
    assert left[fails] == "it failed again"
    assert "gone" in str(left[gone])
    assert state_of_each(database) == {
        waits: State.FAILED,
        runs: State.CLAIMED,
        done: State.FINISHED,
        fails: State.FAILED,
    }


def test_an_older_retry_does_not_take_a_later_one_back(database: Database) -> None:
    (job_id,) = add_jobs(database, *plain_jobs(1))
    die(database, silent=2000)
    first, second = Operation("retry"), Operation("retry")
    retry(database, first)
    die(database)
    retry(database, second)
    assert undo(database, first) == {job_id: f"operation {second.id} moved it again"}
    assert state_of_each(database) == {job_id: State.READY}
    assert undo(database, second) == {job_id: None}


def test_a_dispatched_limited_job_gives_its_slot_back(database: Database) -> None:
    limit = Limit(1)
    first, second = add_jobs(database, *(NewJob(class_name="L", concurrency_key="L/k", limit=limit) for _ in range(2)))
    die(database)  # the second gets the slot
    database.transact(endings.finish, claimed.c.job_id == second) if claim_all(
        database, add_process(database)
    ) else None
    operation = Operation("retry")
    retry(database, operation)
    database.transact(queue.dispatch, 10, {"L": limit})
    assert state_of_each(database)[first] is State.READY
    assert rows(database, semaphores)[0]["value"] == 0
    assert undo(database, operation) == {first: None}
    assert rows(database, semaphores)[0]["value"] == 1


def test_thousands_in_batches(database: Database) -> None:
    ids = add_jobs(database, *plain_jobs(2300))
    die(database)
    operation = Operation("retry")
    retry(database, operation)
    undone = list(undoing.undo(database, operation.id or 0, Operation("undo")))
    assert [len(batch) for batch in undone] == [1000, 1000, 300]
    assert all(isinstance(each, Undone) and each.restored for batch in undone for each in batch)
    assert set(state_of_each(database).values()) == {State.FAILED}
    assert len(ids) == 2300


def test_only_a_recorded_retry_or_discard_can_be_undone(database: Database) -> None:
    add_jobs(database, *plain_jobs(1))
    die(database)
    pruned = Operation("prune")
    database.transact(pruned.record, 1)
    with pytest.raises(UsageError, match="was a prune"):
        undo(database, pruned)
    with pytest.raises(NoSuchJobError, match="no operation 999"):
        list(undoing.undo(database, 999, Operation("undo")))
