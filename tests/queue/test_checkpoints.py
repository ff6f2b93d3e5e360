"""A checkpoint is written if the claim is still there, and never into a job that has moved on."""

import threading

import pytest
from sqlalchemy import delete, update

from solidjq import Database
from solidjq.database.tables import failed, jobs, ready
from solidjq.processes import pruning
from solidjq.queue import checkpoints, endings
from solidjq.queue.claim import Claim
from solidjq.queue.executions import make_ready
from solidjq.queue.states import State
from solidjq.rails.error_text import error_json
from support.locks import sessions
from support.processes import add_process, silence
from support.queue import add_jobs, claim_all, plain_jobs, rows, state_of_each
from support.recovery import retry_jobs
from support.waiting import PATIENCE, until

PROGRESS = '{"progress":"é"}'


@pytest.fixture
def process(database: Database) -> int:
    return add_process(database)


@pytest.fixture
def claim(database: Database, process: int) -> Claim:
    add_jobs(database, *plain_jobs(2))
    return claim_all(database, process, 1)[0]


def arguments(database: Database) -> list[str]:
    return [row["arguments"] for row in rows(database, jobs)]


def test_a_checkpoint_writes_the_arguments_and_the_time_of_one_job(
    database: Database, process: int, claim: Claim
) -> None:
    before = rows(database, jobs)
    assert checkpoints.save(database, process, claim, PROGRESS)
    after = rows(database, jobs)
    assert after[0].pop("updated_at") > before[0].pop("updated_at")
    assert after[0] == before[0] | {"arguments": PROGRESS}
    assert after[1] == before[1]
    assert checkpoints.save(database, process, claim, PROGRESS)  # the same again is no lost claim


def test_a_checkpoint_within_a_transaction_is_part_of_it(database: Database, process: int, claim: Claim) -> None:
    before = arguments(database)
    with database.write() as connection:
        assert checkpoints.save_within(connection, process, claim, PROGRESS)
        connection.rollback()
    assert arguments(database) == before
    with database.write() as connection:
        assert checkpoints.save_within(connection, process, claim, PROGRESS)
    assert arguments(database) == [PROGRESS, before[1]]


def test_another_process_or_another_claim_writes_nothing(database: Database, process: int, claim: Claim) -> None:
    before = rows(database, jobs)
    assert not checkpoints.save(database, add_process(database, "other"), claim, PROGRESS)
    assert not checkpoints.save(database, process, claim._replace(id=claim.id + 1000), PROGRESS)
    assert rows(database, jobs) == before


def test_a_pruned_worker_changes_nothing_not_even_after_a_retry(database: Database, process: int, claim: Claim) -> None:
    silence(database, process, 600)
    assert list(pruning.prune(database, 300))
    before = rows(database, jobs)
    assert not checkpoints.save(database, process, claim, PROGRESS)
    retry_jobs(database, [claim.job_id])
    other = add_process(database, "other")
    (new,) = (one for one in claim_all(database, other) if one.job_id == claim.job_id)
    assert not checkpoints.save(database, process, claim, PROGRESS)
    assert rows(database, jobs) == before
    assert checkpoints.save(database, other, new, PROGRESS)


@pytest.mark.only_on("postgresql", "mariadb")
def test_a_retry_that_is_about_to_commit_is_not_overwritten(database: Database, process: int, claim: Claim) -> None:
    """The checkpoint begins while the job's failure and retry are not committed: it waits, and then writes nothing."""
    saved: list[bool] = []
    own = Database(database.url)
    late = threading.Thread(target=lambda: saved.append(checkpoints.save(own, process, claim, PROGRESS)))
    with database.write() as connection:
        endings.fail(connection, endings.claims_of(process), error_json("E", "died", []))
        connection.execute(delete(failed).where(failed.c.job_id == claim.job_id))
        connection.execute(update(jobs).where(jobs.c.id == claim.job_id).values(arguments='{"moved":1}'))
        make_ready(connection, [claim.job_id])
        late.start()
        until(lambda: sessions(database), "the checkpoint waits for the claim")
    late.join(PATIENCE)
    own.close()
    assert saved == [False]
    assert arguments(database)[0] == '{"moved":1}'
    assert state_of_each(database)[claim.job_id] is State.READY


@pytest.mark.only_on("postgresql", "mariadb")
def test_a_prune_waits_for_a_checkpoint(database: Database, process: int, claim: Claim) -> None:
    own = Database(database.url)
    failing = threading.Thread(
        target=lambda: own.transact(endings.fail, endings.claims_of(process), error_json("E", "died", []))
    )
    with database.write() as connection:
        assert checkpoints.save_within(connection, process, claim, PROGRESS)
        failing.start()
        until(lambda: sessions(database), "the ending waits for the checkpoint")
        assert not rows(database, failed)
    failing.join(PATIENCE)
    own.close()
    assert arguments(database)[0] == PROGRESS
    assert state_of_each(database)[claim.job_id] is State.FAILED


@pytest.mark.only_on("postgresql", "mariadb")
def test_checkpoints_of_two_jobs_do_not_wait_for_each_other(database: Database, process: int, claim: Claim) -> None:
    (other,) = claim_all(database, process)
    assert not rows(database, ready)
    with database.write() as connection:
        assert checkpoints.save_within(connection, process, claim, PROGRESS)
        assert checkpoints.save(database, process, other, PROGRESS)
    assert arguments(database) == [PROGRESS, PROGRESS]
