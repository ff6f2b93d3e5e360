"""A job that is done is never forgotten, whatever the database refuses, and what it can store it stores."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy import insert, select

from solidjq import Database, NewJob
from solidjq.database.tables import blocked, claimed, failed, jobs, ready, semaphores
from solidjq.database.times import utcnow
from solidjq.errors import ConflictError
from solidjq.processes.heartbeat import list_processes
from solidjq.processes.samples import sample_of
from solidjq.queue.states import State
from solidjq.rails.error_text import parse_error
from solidjq.runtime.child import Stop
from solidjq.runtime.contact import Contact
from solidjq.runtime.worker import Worker
from support.databases import is_mysql
from support.processes import add_process
from support.queue import add_jobs, claim_all, rows, state_of_each
from support.refusals import UNKNOWN, VALUE, refusing
from support.waiting import until
from support.worker import finish_all, finish_despite, notes_to_write, take_turn

ENDED = {State.FINISHED, State.FAILED}


def lines(folder: Path) -> list[str]:
    return sorted((folder / "journal").read_text().splitlines())


def test_an_ending_that_is_refused_for_an_unknown_reason_stays_and_keeps_no_other(
    worker: Worker, database: Database, kind: str, tmp_path: Path
) -> None:
    ids = add_jobs(database, *notes_to_write(6))
    with refusing(database, kind, "UPDATE", jobs.name, f"NEW.id = {ids[1]}", UNKNOWN):
        finish_despite(worker, database, [*ids[:1], *ids[2:]])
        assert state_of_each(database)[ids[1]] is State.CLAIMED
        assert [ending.claim.job_id for ending in worker._unrecorded.all] == [ids[1]]
    finish_all(worker, database, ids)
    assert len(lines(tmp_path)) == 6  # each ran once


def test_the_heartbeat_says_that_endings_are_refused_and_takes_it_back(
    worker: Worker, database: Database, kind: str
) -> None:
    def reported() -> dict[str, object] | None:
        take_turn(worker)
        with database.read() as connection:
            (row,) = [process for process in list_processes(connection) if process.kind == "Worker"]
        said: dict[str, object] | None = sample_of(row.metadata).get("unrecorded")
        return said

    (job_id,) = add_jobs(database, *notes_to_write(1))
    with refusing(database, kind, "UPDATE", jobs.name, f"NEW.id = {job_id}", UNKNOWN):
        said = until(reported, "a heartbeat says it")
        assert said["jobs"] == 1
        assert "refused by the test" in str(said["error"])
    finish_all(worker, database, [job_id])
    until(lambda: reported() is None, "a heartbeat takes it back")


def test_of_an_error_that_cannot_be_stored_its_class_is_stored(worker: Worker, database: Database, kind: str) -> None:
    bad, good = add_jobs(
        database, NewJob(class_name="fail", args=["a bad one"]), NewJob(class_name="fail", args=["a good one"])
    )
    with refusing(database, kind, "INSERT", failed.name, "NEW.error LIKE '%a bad one%'", VALUE):
        until(
            lambda: (take_turn(worker), set(state_of_each(database).values()) == {State.FAILED})[1], "both jobs failed"
        )
    errors = {row["job_id"]: parse_error(row["error"]) for row in rows(database, failed)}
    assert (errors[good].exception_class, errors[good].message) == ("ValueError", "a good one")
    assert errors[bad].exception_class == "ValueError"
    assert errors[bad].message == "the job failed; the database refused to store its error"


def test_a_success_is_recorded_although_its_slot_cannot_be_given_back(
    worker: Worker, database: Database, kind: str
) -> None:
    from sample_jobs import alone

    first, second = add_jobs(database, alone.new("a"), alone.new("b"))
    with refusing(database, kind, "INSERT", ready.name, f"NEW.job_id = {second}", VALUE):
        finish_despite(worker, database, [first])
    assert [row["job_id"] for row in rows(database, blocked)] == [second]
    assert rows(database, claimed) == []


def test_a_ready_row_of_a_job_that_is_claimed_already_keeps_no_other_waiting(
    worker: Worker, database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    """As it is after a job that a dead process holds was made ready by hand."""
    (held,) = add_jobs(database, *notes_to_write(1))
    dead = add_process(database, "dead")
    assert [claim.job_id for claim in claim_all(database, dead)] == [held]
    row = {"job_id": held, "queue_name": "default", "priority": 0, "created_at": utcnow()}
    with database.write() as connection:
        connection.execute(insert(ready).values(row))
    others = add_jobs(database, *notes_to_write(5))

    def finished() -> bool:
        worker.step()
        return all(job["finished_at"] for job in rows(database, jobs) if job["id"] in others)

    until(finished, "the other jobs have finished")
    assert [(found["job_id"], found["process_id"]) for found in rows(database, claimed)] == [(held, dead)]
    assert [found["job_id"] for found in rows(database, ready)] == [held]
    assert caplog.text.count("claimed already are passed over") == 1


@pytest.mark.only_on("postgresql", "mariadb")
def test_endings_that_wait_for_a_lock_longer_than_a_statement_may_take_are_recorded_later(
    worker: Worker, database: Database, kind: str, tmp_path: Path
) -> None:
    from sqlalchemy import event, text

    with database.read() as connection:
        if is_mysql(connection):
            pytest.skip("MySQL limits the time of no statement that writes")
    limit = "SET statement_timeout = 200" if kind == "postgresql" else "SET SESSION max_statement_time = 0.2"
    ids = add_jobs(database, *notes_to_write(2))
    worker.step()
    until(lambda: worker._unrecorded.new == 2, "both jobs are done")

    @event.listens_for(worker.database._writer, "begin")
    @event.listens_for(worker.database._reader, "begin")
    def _limit(connection: object) -> None:
        connection.exec_driver_sql(limit)  # type: ignore[attr-defined]

    with database.write() as connection:
        connection.execute(select(jobs.c.id).where(jobs.c.id == ids[0]).with_for_update())
        connection.execute(text("SELECT 1"))
        until(lambda: (take_turn(worker), len(worker._unrecorded))[1] == 1, "the other ending is recorded")
    finish_despite(worker, database, ids)  # a busy machine exceeds the limit, too
    assert len(lines(tmp_path)) == 2


LOCKS = {"claim": claimed.c.job_id, "job": jobs.c.id, "semaphore": semaphores.c.key}


@pytest.mark.only_on("postgresql", "mariadb")
@pytest.mark.parametrize("what", LOCKS)
def test_a_row_that_is_locked_delays_its_own_job_alone(
    worker: Worker, database: Database, what: str, tmp_path: Path
) -> None:
    from sample_jobs import alone

    ids = add_jobs(database, *notes_to_write(2), alone.new("a"), NewJob(class_name="fail", args=["x"]))
    locked = ids[2] if what == "semaphore" else ids[0]
    value = rows(database, jobs)[2]["concurrency_key"] if what == "semaphore" else locked
    worker.step()
    column = LOCKS[what]
    with database.write() as holder:
        rows_held = holder.execute(select(column).where(column == value).with_for_update()).all()
        assert len(rows_held) == 1
        others = set(ids) - {locked}
        until(
            lambda: (take_turn(worker), {state_of_each(database)[each] for each in others} == ENDED)[1],
            "the others have ended while the row is locked",
        )
        until(lambda: (take_turn(worker), len(worker._unrecorded))[1] == 1, "the job of the locked row is done")
        assert state_of_each(database)[locked] is State.CLAIMED
    until(lambda: (take_turn(worker), state_of_each(database)[locked] is State.FINISHED)[1], "its end is recorded")
    assert len(lines(tmp_path)) == 4  # each ran once: two notes, the beginning and the end of the third


@pytest.mark.sqlite_only
def test_a_lock_of_sqlite_delays_every_job_until_it_is_free(
    worker: Worker, database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("solidjq.database.transactions.ATTEMPTS", 1)
    monkeypatch.setattr("solidjq.database.engines.BUSY_TIMEOUT", 0.1)
    worker.database.close()  # the next connection has that limit
    ids = add_jobs(database, *notes_to_write(2))
    worker.step()
    until(lambda: worker._unrecorded.new == 2, "both jobs are done")
    with closing(sqlite3.connect(str(database.url.database), isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        error = take_turn(worker)
        assert isinstance(error, ConflictError)
        assert len(worker._unrecorded) == 2
    finish_all(worker, database, ids)
    assert len(lines(tmp_path)) == 2


def test_a_job_that_stopped_early_is_never_finished_because_its_release_is_refused(
    worker: Worker, database: Database, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has not done its work: where it cannot go back to its queue now, it must go back later."""
    (job_id,) = add_jobs(database, NewJob(class_name="hold_until_told", args=["a"]))
    monkeypatch.setattr(worker, "stop_requested", lambda: Stop.DRAIN)
    worker.step()
    until(lambda: worker._unrecorded.new == 1, "the job has stopped")
    with refusing(database, kind, "INSERT", ready.name, f"NEW.job_id = {job_id}", VALUE):
        until(lambda: (take_turn(worker), worker._unrecorded.new)[1] == 0, "its ending was refused")
        assert state_of_each(database)[job_id] is State.CLAIMED
    monkeypatch.setattr(worker, "_contact", lambda: Contact.DOUBTFUL)  # so that it claims nothing
    until(lambda: (take_turn(worker), state_of_each(database)[job_id] is State.READY)[1], "it is back in its queue")
