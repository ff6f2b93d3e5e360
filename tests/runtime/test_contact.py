"""A worker that loses the database begins nothing, tells its jobs, and ends itself; one that starts early waits."""

import os
import signal

import pytest
from sqlalchemy import delete

from solidjq import CurrentJob, Database, NewJob, current_job
from solidjq.database.tables import claimed
from solidjq.database.tables import processes as process_table
from solidjq.database.urls import url_text
from solidjq.processes import heartbeat
from solidjq.queue.states import State
from solidjq.runtime import child_deaths, contact
from solidjq.runtime.child_deaths import ChildDeath
from solidjq.runtime.contact import Contact
from solidjq.runtime.worker import Worker
from support.paths import PROGRAMS
from support.processes import add_process
from support.program import Shell
from support.proxies import proxied
from support.queue import add_jobs, claim_all, plain_jobs, rows, state_of_each
from support.runtime import Runtime, held, is_running, kill
from support.waiting import until
from support.worker import finish_all, notes_to_write


@pytest.mark.parametrize(
    ("silence", "expected"),
    [
        (0, Contact.SURE),
        (239.9, Contact.SURE),
        (240, Contact.DOUBTFUL),
        (299.9, Contact.DOUBTFUL),
        (300, Contact.LOST),
        (86400, Contact.LOST),
    ],
)
def test_what_a_worker_may_do_by_the_age_of_its_heartbeat(silence: float, expected: Contact) -> None:
    assert contact.judge(silence, interval=60, threshold=300) is expected


def test_a_worker_in_doubt_begins_nothing_until_a_heartbeat_succeeds(worker: Worker, database: Database) -> None:
    worker.registration._heard_at -= 250
    ids = add_jobs(database, *notes_to_write(2))
    worker.step()
    assert set(state_of_each(database).values()) == {State.READY}  # it claims nothing
    worker.registration.beat_soon()
    finish_all(worker, database, ids)


def test_claims_that_had_not_begun_wait_for_a_heartbeat(worker: Worker, database: Database) -> None:
    doubts: list[int] = []

    def doubtful() -> Contact:
        doubts.append(1)
        return Contact.DOUBTFUL

    known = worker._contact
    ids = add_jobs(database, *notes_to_write(2))
    worker.registration._heard_at -= 250
    worker._exchange(0, 2)
    worker._contact = doubtful  # type: ignore[method-assign]
    until(lambda: len(doubts) > 4, "job threads look again and again")
    assert worker._unrecorded.new == 0
    assert not os.path.exists("journal")  # noqa: PTH110
    worker._contact = known  # type: ignore[method-assign]
    worker.registration.beat_soon()
    finish_all(worker, database, ids)


@pytest.mark.only_on("postgresql", "mariadb")
def test_a_worker_that_is_cut_off_tells_its_jobs_and_ends_itself(runtime: Runtime, database: Database) -> None:
    told, deaf, later = add_jobs(
        database, NewJob(class_name="hold_until_told", args=["told"]), held("deaf"), held("later")
    )
    with proxied(database.url) as (proxy, url):
        runtime.shell.url = url_text(url)
        runtime.start("--threads", "2", "--prefetch", "1", "--lost-timeout", "8", heartbeat=0.5, threshold=6)
        pid = runtime.running("deaf")
        runtime.running("told")
        until(lambda: len(rows(database, claimed)) == 3, "one is claimed ahead")
        proxy.cut()
        until(lambda: "told was told to stop, still mine: unknown" in runtime.journal(), "the job is told to stop")
        until(lambda: not is_running(pid), "the worker has ended itself")
        assert not any(line.startswith("later runs") for line in runtime.journal())
        proxy.heal()
        runtime.running("later")  # in another worker, and nothing had to be pruned for it
        runtime.let_end("later")
        runtime.wait_for(later, State.FINISHED)
        runtime.wait_for(deaf, State.FAILED)
        assert runtime.error(deaf).exit_status == 74
        assert state_of_each(database)[told] is not State.FAILED  # it stopped by itself: that is no failure
        code, log = runtime.stop()
    assert code == 0
    assert "no heartbeat for 6 s: others may take it for dead" in log
    assert f"jobs {deaf} still run without contact with the database; stopping at once" in log


@pytest.mark.only_on("mariadb")
def test_a_worker_whose_connections_go_silent_connects_again(runtime: Runtime, database: Database) -> None:
    """What PostgreSQL's connections do is tested in test_answers.py; only here can a URL shorten the 30 seconds."""
    first, second = add_jobs(database, held("first"), held("second"))
    with proxied(database.url) as (proxy, url):
        runtime.shell.url = url_text(url.update_query_dict({"read_timeout": "1"}))
        runtime.start("--threads", "1")
        pid = runtime.running("first")
        proxy.silence()
        runtime.let_end("first")
        runtime.wait_for_log("timed out")
        proxy.heal(closing=True)
        runtime.let_end("second")
        for job_id in (first, second):
            runtime.wait_for(job_id, State.FINISHED)
        assert runtime.running("second") == pid


@pytest.mark.sqlite_only
def test_a_frozen_worker_that_wakes_goes_on_if_nobody_pruned_it(runtime: Runtime, database: Database) -> None:
    """As on a machine that was suspended: it is no outage, and it beats at once."""
    first, second = add_jobs(database, held("first"), held("second"))
    runtime.start("--threads", "1", "--lost-timeout", "60", heartbeat=0.2, threshold=2)
    pid = runtime.running("first")
    assert runtime.supervisor is not None
    tree = [runtime.supervisor.pid, pid]
    for one in tree:
        kill(one, signal.SIGSTOP)
    frozen = contact.now()
    until(lambda: contact.now() - frozen > 2.5, "its heartbeat is older than the threshold")
    for one in tree:
        kill(one, signal.SIGCONT)
    for name in ("first", "second"):
        runtime.let_end(name)
    for job_id in (first, second):
        runtime.wait_for(job_id, State.FINISHED)
    assert runtime.running("second") == pid


def test_a_job_is_told_that_its_claim_is_gone(worker: Worker, database: Database) -> None:
    """The fencing check asks the database, not the clock."""
    (job_id,) = add_jobs(database, NewJob(class_name="hold_until_told", args=["a"]))
    worker.step()
    until(lambda: os.path.exists("journal"), "it runs")  # noqa: PTH110
    with database.write() as connection:
        connection.execute(delete(claimed).where(claimed.c.job_id == job_id))
    worker.registration._heard_at -= 1000
    until(lambda: worker._unrecorded.new, "it has ended")
    with open("journal") as journal:  # noqa: PTH123
        assert journal.read().endswith("a was told to stop, still mine: False\n")


def test_a_job_that_stops_because_it_was_told_to_is_no_failure(worker: Worker, database: Database) -> None:
    (job_id,) = add_jobs(database, NewJob(class_name="hold_until_told", args=["a"]))
    worker.step()
    until(lambda: os.path.exists("journal"), "it runs")  # noqa: PTH110
    worker.wakeup.signals.append(signal.SIGTERM)
    until(lambda: worker._unrecorded.new, "it has ended")
    worker.drain()
    assert state_of_each(database)[job_id] is State.READY
    assert len(worker._hands) == 0


@pytest.mark.sqlite_only
def test_a_job_that_stops_untold_has_failed_and_async_jobs_know_who_they_are(
    worker: Worker, database: Database
) -> None:
    (job_id,) = add_jobs(database, NewJob(class_name="stop_async"))
    until(lambda: (worker.step(), state_of_each(database)[job_id] is State.FAILED)[1], "it failed")
    with open("journal") as journal:  # noqa: PTH123
        assert journal.read() == f"job {job_id}\n"


def test_outside_of_a_worker_nothing_stops_a_job() -> None:
    assert current_job() == CurrentJob()
    assert (current_job().id, current_job().should_stop(), current_job().still_mine()) == (None, False, True)


# -- what jobs start


@pytest.mark.parametrize(("how", "status"), [("terminate", -signal.SIGTERM.value), ("ask", 3)])
def test_a_forked_process_has_signals_and_connections_of_its_own(
    runtime: Runtime, database: Database, how: str, status: int
) -> None:
    (job_id,) = add_jobs(database, NewJob(class_name="fork", args=["a", how]))
    runtime.start("--threads", "1")
    runtime.wait_for(job_id, State.FINISHED)
    assert f"a ended with {status}, still mine: True" in runtime.journal()


@pytest.mark.sqlite_only
@pytest.mark.parametrize("left", [False, True])
def test_what_a_killed_workers_jobs_started_ends_with_it_unless_it_is_left(
    runtime: Runtime, database: Database, *, left: bool
) -> None:
    (job_id,) = add_jobs(database, NewJob(class_name="fork", args=["a", "outlive"]))
    runtime.start(*(["--leave-children"] if left else []))
    child = runtime.running("a")
    kill(runtime.worker().pid, signal.SIGKILL)
    runtime.wait_for(job_id, State.FAILED)
    if not left:
        until(lambda: not is_running(child), "what the job started has ended")
    assert is_running(child) is left
    kill(child, signal.SIGKILL)


@pytest.mark.sqlite_only
def test_what_jobs_started_ends_with_a_worker_whose_supervisor_was_killed(runtime: Runtime, database: Database) -> None:
    add_jobs(database, NewJob(class_name="fork", args=["a", "outlive"]))
    runtime.start("--shutdown-timeout", "0")
    child = runtime.running("a")
    runtime.signal(signal.SIGKILL)
    until(lambda: not is_running(child), "what the job started has ended")


# -- a worker that died between the end of a job and its commit


@pytest.mark.parametrize("killed", [False, True], ids=["died", "killed by its supervisor"])
def test_a_job_that_had_ended_well_before_its_worker_died_is_finished(database: Database, *, killed: bool) -> None:
    done, running, waiting = add_jobs(database, *plain_jobs(3))
    supervisor = add_process(database, "supervisor", kind="Supervisor")
    worker = database.transact(
        heartbeat.register, kind="Worker", name="w", pid=1, hostname="h", metadata={}, supervisor_id=supervisor
    )
    claims = {claim.job_id: claim.id for claim in claim_all(database, worker)}
    death = ChildDeath("w", 1, -9, killed, not_begun=[claims[waiting]], succeeded=[claims[done]])
    database.transact(child_deaths.report, death, supervisor)
    assert state_of_each(database) == {
        done: State.FINISHED,
        running: State.READY if killed else State.FAILED,
        waiting: State.READY,
    }


# -- the start


@pytest.mark.only_on("postgresql", "mariadb")
def test_jq_work_waits_for_a_database_that_is_away(shell: Shell, database: Database) -> None:
    shell.environment["PYTHONPATH"] = str(PROGRAMS)
    (job_id,) = add_jobs(database, NewJob(class_name="note"))
    with proxied(database.url) as (proxy, url):
        proxy.cut()
        shell.url = url_text(url)
        required = shell.run("work", "--import", "sample_jobs", "--require-database")
        assert (required.returncode, required.stderr.count("\n")) == (3, 1)
        runtime = Runtime(database, shell)
        runtime.start()
        runtime.wait_for_log("waits for the database")
        proxy.heal()
        runtime.wait_for(job_id, State.FINISHED)
        assert runtime.stop()[0] == 0
        assert rows(database, process_table) == []
        proxy.cut()
        runtime.start()
        runtime.wait_for_log("waits for the database")
        assert runtime.stop()[0] == 0
