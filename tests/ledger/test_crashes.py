"""jq_crashes: each death of a job counts once, whoever wrote it, and outlives the job."""

import uuid

import pytest
from sqlalchemy import delete, func, insert, select, update

from solidjq import Database
from solidjq.database.tables import crashes as crash_table
from solidjq.database.tables import deaths, jobs, ready
from solidjq.database.times import ago, utcnow
from solidjq.ledger import crashes
from solidjq.processes import pruning
from solidjq.queue import discard
from solidjq.recovery.retry import plan
from solidjq.recovery.terms import RetryTerms
from solidjq.recovery.verdicts import Verdict
from support.deaths import ALL, crash_count, die
from support.processes import add_process, silence
from support.program import Shell
from support.queue import add_jobs, claim_all, plain_jobs, rows
from support.recovery import retry_jobs, safe
from support.refusals import UNKNOWN, VALUE, refusing


def test_a_crash_that_rails_wrote_counts_beside_one_that_was_counted_before(database: Database) -> None:
    (job_id,) = add_jobs(database, *plain_jobs(1))
    die(database, silent=2000)
    assert retry_jobs(database, [job_id]).verdicts == {job_id: Verdict.RETRY}
    die(database, silent=1000)
    with database.write() as connection:  # Solid Queue's own prune would have counted nothing
        newest = connection.scalar(select(func.max(crash_table.c.failure_id)))
        connection.execute(delete(crash_table).where(crash_table.c.failure_id == newest))
    assert crash_count(database, job_id) == 1
    retry_jobs(database, [job_id])
    assert crash_count(database, job_id) == 2


def test_a_crash_counts_once_whoever_wrote_it_and_however_often_it_is_seen(database: Database) -> None:
    """Solid Queue's own prune, or a death in a database that had no ledger yet: counted when it is first seen."""
    ids = add_jobs(database, *plain_jobs(3))
    die(database)
    with database.write() as connection:
        connection.execute(delete(crash_table))
    for _ in range(2):
        crashes.count_all(database)
        assert [crash_count(database, job_id) for job_id in ids] == [1, 1, 1]
    safe(database, max_crashes=1)  # all are held back
    safe(database)
    assert [crash_count(database, job_id) for job_id in ids] == [1, 1, 1]
    assert len(rows(database, crash_table)) == 3


def test_one_crash_that_was_counted_hides_no_other(database: Database) -> None:
    ids = add_jobs(database, *plain_jobs(3))
    die(database)
    with database.write() as connection:
        connection.execute(delete(crash_table).where(crash_table.c.job_id != ids[1]))
    crashes.count_all(database)
    assert [crash_count(database, job_id) for job_id in ids] == [1, 1, 1]


@pytest.mark.parametrize("state", [VALUE, UNKNOWN])
def test_a_crash_that_the_database_refuses_keeps_no_other_from_being_counted(
    database: Database, kind: str, shell: Shell, state: str
) -> None:
    """Those that another program's prune left to be counted; the next command tries the refused one again."""
    ids = add_jobs(database, *plain_jobs(5))
    die(database)
    with database.write() as connection:
        connection.execute(delete(crash_table))
    with refusing(database, kind, "INSERT", crash_table.name, f"NEW.job_id = {ids[1]}", state):
        ran = shell.run("prune")
        assert ran.returncode == 6
        assert f"jq: job {ids[1]} is not counted as crashed: " in ran.stderr
        assert [crash_count(database, job_id) for job_id in ids] == [1, 0, 1, 1, 1]
    assert shell.run("prune").returncode == 0
    assert [crash_count(database, job_id) for job_id in ids] == [1] * 5


def test_whether_a_job_has_crashed_is_asked_of_it_alone(database: Database) -> None:
    """And of its earlier rows, where Rails made a new one for the attempt."""
    crashed, _ = add_jobs(database, *plain_jobs(2))
    claim_all(database, worker := add_process(database), 1)
    database.transact(pruning.fail_exited, worker, pid=4242, returncode=-9)
    by_id = {row["id"]: row["active_job_id"] for row in rows(database, jobs)}
    assert {job_id: crashes.has_crashed(database, job_id, uuid_) for job_id, uuid_ in by_id.items()} == {
        job_id: job_id == crashed for job_id in by_id
    }
    assert crashes.has_crashed(database, 10**6, by_id[crashed])


def test_a_crash_that_was_never_counted_holds_a_job_back_all_the_same(database: Database) -> None:
    add_jobs(database, *plain_jobs(1))
    die(database, silent=2000)
    safe(database)
    die(database)
    with database.write() as connection:
        connection.execute(
            delete(crash_table).where(crash_table.c.failure_id == rows(database, crash_table)[-1]["failure_id"])
        )
    with database.read() as connection:
        before = connection.execute(select(crash_table)).all()
    ((decision,),) = plan(database, ALL, RetryTerms(safe=True))
    assert decision.verdict is Verdict.SUSPECT
    with database.read() as connection:
        assert connection.execute(select(crash_table)).all() == before  # a plan writes nothing


def test_crashes_outlive_the_job_and_follow_its_active_job_id(database: Database) -> None:
    (job_id,) = add_jobs(database, *plain_jobs(1))
    (job,) = rows(database, jobs)
    die(database, silent=2000)
    database.transact(discard.discard, [job_id])
    again = {key: value for key, value in job.items() if key != "id"}
    with database.write() as connection:  # as retry_on enqueues the next attempt
        new_id = connection.execute(insert(jobs).values(**again)).inserted_primary_key[0]  # type: ignore[index]
        connection.execute(insert(ready).values(job_id=new_id, queue_name="default", priority=0, created_at=utcnow()))
    die(database)
    assert crash_count(database, new_id) == 2
    assert safe(database) == {new_id: Verdict.SUSPECT}


def test_crashes_before_the_window_do_not_count(database: Database) -> None:
    (job_id,) = add_jobs(database, *plain_jobs(1))
    die(database, silent=2000)
    safe(database)
    die(database)
    with database.write() as connection:
        connection.execute(
            update(crash_table)
            .where(crash_table.c.failure_id == rows(database, crash_table)[0]["failure_id"])
            .values(crashed_at=ago(73 * 3600))
        )
    assert safe(database) == {job_id: Verdict.RETRY}


@pytest.mark.parametrize("by_job", [True, False])
def test_attempts_of_one_job_that_rails_pruned_count_together_in_one_batch(database: Database, by_job: bool) -> None:  # noqa: FBT001
    ids = add_jobs(database, *plain_jobs(3))
    with database.write() as connection:
        connection.execute(update(jobs).where(jobs.c.id.in_(ids[:2])).values(active_job_id="one"))
    for _ in ids:  # three deaths, each with one of them in flight
        worker = add_process(database, f"worker-{uuid.uuid4()}")
        claim_all(database, worker, 1)
        silence(database, worker, 1000)
        list(pruning.prune(database, 300))
    with database.write() as connection:
        connection.execute(delete(crash_table))  # as if Rails had pruned them
    done = retry_jobs(database, ids, by_job=by_job, max_crashes=2)
    assert [done.verdicts[job_id] for job_id in ids] == [Verdict.OVER_LIMIT, Verdict.OVER_LIMIT, Verdict.RETRY]
    assert len(rows(database, crash_table)) == len(ids)


def test_a_crash_keeps_the_address_and_the_last_heartbeat_of_its_process(database: Database) -> None:
    """A retry asks whether that process lives; one that was reaped has none of the three."""
    add_jobs(database, *plain_jobs(1))
    die(database, silent=1000, hostname="pod-0", pid=7)
    (death,) = rows(database, deaths)
    (crash,) = rows(database, crash_table)
    assert (crash["hostname"], crash["pid"], crash["last_heartbeat_at"]) == ("pod-0", 7, death["last_heartbeat_at"])
    assert crash["last_heartbeat_at"] is not None
    add_jobs(database, *plain_jobs(1))
    process = add_process(database)
    claim_all(database, process)
    database.transact(pruning.fail_exited, process, pid=4242, returncode=-9)
    crash = rows(database, crash_table)[-1]
    assert (crash["hostname"], crash["pid"], crash["last_heartbeat_at"]) == (None, None, None)
