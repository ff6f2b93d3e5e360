"""A running job that is asked to stop ends as failed, with its progress; whoever else has a job is left alone."""

import json
import os
import threading
from collections.abc import Callable, Mapping

import pytest
from sqlalchemy import delete, text

from solidjq import Cancelled, Database, NewJob, Stopping, current_job, job
from solidjq.database.tables import failures, jobs
from solidjq.database.tables import processes as process_table
from solidjq.errors import LedgerMissingError, UsageError
from solidjq.ledger import history as ledger_history
from solidjq.ledger.operations import Operation, list_operations
from solidjq.ledger.stop_requests import EXCEPTION_CLASS, end_asked, requests_of
from solidjq.processes import heartbeat
from solidjq.processes.heartbeat import CAN_STOP
from solidjq.queue import endings
from solidjq.queue.checkpoint_groups import CheckpointGroups
from solidjq.queue.claim import Claim
from solidjq.queue.listing import JobFilter
from solidjq.queue.states import State
from solidjq.rails.continuation import Progress, progress_of
from solidjq.rails.error_text import parse_error
from solidjq.recovery import stopping
from solidjq.recovery.stopping import VERB, plan_stop, stop
from solidjq.recovery.verdicts import Verdict
from solidjq.runtime.performing import perform
from solidjq.runtime.sampler import Sampler
from solidjq.runtime.stop_requests import StopRequests
from solidjq.runtime.unrecorded import Ending
from solidjq.runtime.worker import _exchange
from solidjq.steps import ClaimedBy
from support.locks import sessions
from support.processes import add_process, silence
from support.queue import add_jobs, claim_all, plain_jobs, rows, state_of_each
from support.recovery import retry_jobs, undo
from support.runtime import Runtime
from support.servers import execute
from support.waiting import PATIENCE, until

THRESHOLD = 300.0
OURS: Mapping[str, object] = {"runtime": "solidjq 1", CAN_STOP: True}
Body = Callable[[], object]


class Script:
    body: Body = staticmethod(lambda: None)


@job(name="stopped_script")
def stopped_script(*_: object) -> object:
    return Script.body()


def ask(database: Database, *job_ids: int, operation: Operation | None = None) -> dict[int, str | None]:
    """Ask jobs to stop; return why each was left alone."""
    chosen = JobFilter(states=(State.CLAIMED,), job_ids=job_ids or None)
    operation = operation or Operation(VERB, reason="INC-7")
    return {one.job.job_id: one.reason for batch in stop(database, chosen, THRESHOLD, operation) for one in batch}


class Worker:
    """A worker of ``jq work`` as far as requests concern it."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.id = add_process(database, metadata=OURS)
        self.checkpoints = CheckpointGroups(database, self.id)
        self.requests = StopRequests(database, self.id, Sampler())
        self.stopping = False

    def claim(self) -> Claim:
        (claim,) = claim_all(self.database, self.id, 1)
        return claim

    def perform(self, claim: Claim, body: Body) -> Ending:
        Script.body = staticmethod(body)
        by = ClaimedBy(claim, self.checkpoints, lambda: self.stopping, lambda: self.requests.words(claim.id))
        return perform(by)


@pytest.fixture
def worker(database: Database) -> Worker:
    return Worker(database)


@pytest.fixture
def claim(database: Database, worker: Worker) -> Claim:
    add_jobs(database, NewJob(class_name="stopped_script"))
    return worker.claim()


def error_of(ending: Ending) -> str:
    assert ending.error is not None
    error = parse_error(ending.error)
    return f"{error.exception_class}: {error.message}"


def progress(database: Database) -> Progress:
    return progress_of(rows(database, jobs)[0]["arguments"])


# -- what the job sees ------------------------------------------------------------------------------------------------


def test_the_next_checkpoint_saves_the_progress_and_ends_the_job(
    database: Database, worker: Worker, claim: Claim
) -> None:
    done: list[int] = []

    def body() -> None:
        for number in current_job().iterate("import", range(1, 10), cursor=lambda number: number):
            done.append(number)
            if number == 3:
                assert not current_job().should_stop()
                ask(database, claim.job_id)
                worker.requests.look()
                assert current_job().should_stop()

    words = error_of(worker.perform(claim, body))
    assert words.startswith(f"{EXCEPTION_CLASS}: asked to stop by ")
    assert words.endswith(", operation 1: INC-7")
    assert (done, progress(database)) == ([1, 2, 3], Progress((), "import", 3))


@pytest.mark.parametrize("raised", [Stopping, Cancelled])
def test_a_job_that_asks_may_raise_either_word(
    database: Database, worker: Worker, claim: Claim, raised: type[Exception]
) -> None:
    def body() -> None:
        ask(database, claim.job_id)
        worker.requests.look()
        if current_job().should_stop():
            raise raised

    ending = worker.perform(claim, body)
    assert not ending.stopped
    assert "Cancelled: asked to stop by" in error_of(ending)


def test_an_async_job_is_asked_likewise(database: Database, worker: Worker, claim: Claim) -> None:
    async def body() -> None:
        with current_job().step("import") as step:
            ask(database, claim.job_id)
            worker.requests.look()
            step.advance(to=1)

    assert "Cancelled: asked to stop by" in error_of(worker.perform(claim, body))
    assert progress(database).cursor == 1


def test_a_job_that_had_not_begun_does_not(database: Database, worker: Worker, claim: Claim) -> None:
    begun: list[int] = []
    ask(database, claim.job_id)
    worker.requests.look()
    assert "Cancelled: asked to stop by" in error_of(worker.perform(claim, lambda: begun.append(1)))
    assert begun == []


def test_nobody_asked(worker: Worker, claim: Claim) -> None:
    worker.requests.look()
    assert worker.requests.words(claim.id) is None
    assert worker.perform(claim, lambda: current_job().checkpoint()).error is None


def test_a_request_counts_for_one_claim(database: Database, worker: Worker, claim: Claim) -> None:
    """A job that ended and is retried runs: the old request is not its."""
    ask(database, claim.job_id)
    database.transact(endings.fail, endings.claims_of(worker.id), worker_error(worker, claim))
    assert retry_jobs(database, [claim.job_id]).count == 1
    again = worker.claim()
    assert again.job_id == claim.job_id
    worker.requests.look()
    assert worker.requests.words(again.id) is None
    assert ask(database, again.job_id) == {again.job_id: None}


def worker_error(worker: Worker, claim: Claim) -> str:
    worker.requests.look()
    error = worker.perform(claim, lambda: None).error
    assert error is not None
    return error


# -- a worker that stops at the same moment ---------------------------------------------------------------------------


def test_a_job_that_a_stopping_worker_gives_back_fails_if_it_was_asked(database: Database, worker: Worker) -> None:
    """The request came after the worker's last look."""
    asked, other = add_jobs(database, NewJob(class_name="stopped_script"), NewJob(class_name="stopped_script"))
    claims = {claim.job_id: claim for claim in claim_all(database, worker.id)}
    ask(database, asked)
    worker.stopping = True
    batch = [worker.perform(claims[each], lambda: current_job().checkpoint()) for each in (asked, other)]
    assert [ending.stopped for ending in batch] == [True, True]
    database.transact(_exchange, worker.id, batch, {}, None, 0, sound=True)
    assert state_of_each(database) == {asked: State.FAILED, other: State.READY}


def test_a_worker_that_leaves_releases_all_but_what_was_asked_to_stop(database: Database, worker: Worker) -> None:
    asked, other = add_jobs(database, *plain_jobs(2))
    claim_all(database, worker.id)
    ask(database, asked)
    assert database.transact(heartbeat.deregister, worker.id) == [other]
    assert state_of_each(database) == {asked: State.FAILED, other: State.READY}


@pytest.mark.only_on("postgresql")
def test_a_role_that_may_not_read_the_archive_leaves_all_the_same(database: Database, worker: Worker) -> None:
    (job_id,) = add_jobs(database, *plain_jobs(1))
    claim_all(database, worker.id)
    ask(database, job_id)
    role = f"worker_{os.getpid()}"
    with database.write() as connection:
        connection.execute(text(f"CREATE ROLE {role}"))
        for name in ("jobs", "claimed_executions", "ready_executions", "processes"):
            connection.execute(text(f"GRANT ALL ON public.solid_queue_{name} TO {role}"))
        connection.execute(text(f"GRANT USAGE ON SEQUENCE public.solid_queue_ready_executions_id_seq TO {role}"))
        connection.execute(text(f"SET LOCAL ROLE {role}"))
        assert heartbeat.deregister(connection, worker.id) == [job_id]
        connection.rollback()  # with the role


def test_ending_what_nobody_asked_for_ends_nothing(database: Database, worker: Worker, claim: Claim) -> None:
    assert database.transact(end_asked, endings.claims_of(worker.id)) == []
    assert state_of_each(database) == {claim.job_id: State.CLAIMED}


# -- who can be asked -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("metadata", "words"),
    [
        ({"polling_interval": 0.1}, "a worker of Rails runs it, and that cannot be asked"),
        ({"runtime": "solidjq 0.1"}, "its worker is of a version that cannot be asked"),
    ],
)
def test_other_workers_cannot_be_asked(database: Database, metadata: Mapping[str, object], words: str) -> None:
    process = add_process(database, metadata=metadata)
    (job_id,) = add_jobs(database, *plain_jobs(1))
    claim_all(database, process)
    assert ask(database, job_id) == {job_id: words}
    assert rows(database, failures) == []


def test_a_dead_worker_is_not_asked(database: Database, worker: Worker, claim: Claim) -> None:
    silence(database, worker.id, 600)
    assert "jq prune" in str(ask(database, claim.job_id)[claim.job_id])
    with database.write() as connection:
        connection.execute(delete(process_table))
    assert ask(database, claim.job_id) == {claim.job_id: "its process is gone: jq prune, then jq discard"}


def test_jobs_that_do_not_run_are_left_alone(database: Database, worker: Worker) -> None:
    ready, failed, finished = add_jobs(database, *plain_jobs(3))
    claims = {claim.job_id: claim for claim in claim_all(database, worker.id)}
    database.transact(endings.release, endings.claims_of(worker.id, [claims[ready].id]))
    database.transact(endings.fail, endings.claims_of(worker.id, [claims[failed].id]), "{}")
    database.transact(endings.finish, endings.claims_of(worker.id, [claims[finished].id]))
    assert ask(database, ready, failed, finished) == {
        ready: "it does not run: it is ready; to delete it: jq jobs discard",
        failed: "it does not run: it has failed; to delete it: jq discard",
        finished: "it has finished",
    }


def test_a_job_is_asked_once(database: Database, claim: Claim) -> None:
    ask(database, claim.job_id)
    assert ask(database, claim.job_id) == {claim.job_id: "it was asked to stop already, by operation 1"}
    assert len(rows(database, failures)) == 1


@pytest.mark.only_on("postgresql", "mariadb")
def test_of_two_who_ask_at_once_one_asks(database: Database, claim: Claim) -> None:
    own, answers = Database(database.url), []
    second = threading.Thread(target=lambda: answers.append(ask(own, claim.job_id)))
    with database.write() as connection:
        stopping._stop_batch(connection, [claim.job_id], THRESHOLD, Operation(VERB), None)
        second.start()
        until(lambda: sessions(database), "the second waits for the claim's lock")
    second.join(PATIENCE)
    own.close()
    assert answers == [{claim.job_id: "it was asked to stop already, by operation 1"}]
    assert [row["job_id"] for row in rows(database, failures)] == [claim.job_id]


def test_without_a_ledger_nobody_can_be_asked(own: Database) -> None:
    execute(own.url, "DROP TABLE jq_deaths")
    with pytest.raises(LedgerMissingError):
        ask(own)


def test_a_dry_run_decides_alike_and_changes_nothing(database: Database, worker: Worker) -> None:
    add_jobs(database, *plain_jobs(3))
    claim_all(database, worker.id)
    chosen = JobFilter(states=(State.CLAIMED,))
    planned = [one.job.job_id for batch in plan_stop(database, chosen, THRESHOLD, limit=2, batch=1) for one in batch]
    assert rows(database, failures) == []
    operation = Operation(VERB)
    asked = [
        one.job.job_id
        for batch in stop(database, chosen, THRESHOLD, operation, limit=2, batch=1)
        for one in batch
        if one.moves
    ]
    assert planned == asked
    with database.read() as connection:
        (view,) = list_operations(connection, limit=10)
        found = requests_of(connection, endings.claims_of(worker.id))
    assert (view.verb, view.jobs, len(found)) == (VERB, 2, 2)


# -- what is written down ---------------------------------------------------------------------------------------------


def test_the_request_is_in_the_history_and_moves_no_other_operation(
    database: Database, worker: Worker, claim: Claim
) -> None:
    """It is no failure, and no move: an undo of the retry before it says that the job runs."""
    database.transact(endings.fail, endings.claims_of(worker.id), json.dumps({"exception_class": "E", "message": "m"}))
    retried = Operation("retry")
    retry_jobs(database, [claim.job_id], retried)
    worker.claim()
    ask(database, claim.job_id)
    assert undo(database, retried) == {claim.job_id: "it runs now"}
    with database.read() as connection:
        events = ledger_history.history(connection, str(claim.job_id))
    assert [event.event for event in events if event.event not in {"enqueued", "claimed"}] == [
        "failed", "retried", "asked to stop",
    ]  # fmt: skip
    (request,) = (event for event in events if event.event == "asked to stop")
    assert (request.detail, request.operation_id) == ("INC-7", 2)


def test_a_stop_cannot_be_undone(database: Database, claim: Claim) -> None:
    operation = Operation(VERB)
    ask(database, claim.job_id, operation=operation)
    with pytest.raises(UsageError, match="operation 1 was a jobs stop"):
        undo(database, operation)


def test_a_safe_retry_holds_it_back_and_a_retry_by_id_goes_on(database: Database, worker: Worker, claim: Claim) -> None:
    ask(database, claim.job_id)
    database.transact(endings.fail, endings.claims_of(worker.id), worker_error(worker, claim))
    assert retry_jobs(database, [claim.job_id], safe=True).verdicts == {claim.job_id: Verdict.STOPPED}
    assert retry_jobs(database, [claim.job_id], safe=True, include_errors=True).count == 0
    assert retry_jobs(database, [claim.job_id]).count == 1


def test_a_real_worker_stops_a_job_that_is_asked(runtime: Runtime, database: Database) -> None:
    (job_id,) = add_jobs(database, NewJob(class_name="import_records", args=[30, 20]))
    runtime.start("--threads", "1", module="long_jobs")
    records = runtime.shell.folder / "records"
    until(lambda: records.exists() and "20\n" in records.read_text(), "the job is in the middle of its step")
    asked = runtime.shell.run("jobs", "stop", str(job_id), "--reason", "wrong file")
    assert asked.returncode == 0, asked.stderr
    assert "asked 1 job to stop" in asked.stderr
    until(lambda: "wrong file" in next(runtime.log_lines()), "the worker has seen the request")
    (runtime.shell.folder / "go-on").touch()
    runtime.wait_for(job_id, State.FAILED)
    error = runtime.error(job_id)
    assert error.exception_class == EXCEPTION_CLASS
    assert progress(database).cursor == 20
    assert retry_jobs(database, [job_id]).count == 1
    runtime.wait_for(job_id, State.FINISHED)
    assert records.read_text().split() == [str(number) for number in range(1, 31)]
    runtime.stop()
