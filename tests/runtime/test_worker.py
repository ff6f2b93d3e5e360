"""A worker in the test's own process, on a connection that breaks where it hurts most."""

import signal
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from threading import Event
from typing import Any, NoReturn

import pytest
from sqlalchemy import delete, update

from solidjq import Database, NewJob
from solidjq.database.statements import WriteStyle
from solidjq.database.tables import claimed, jobs, semaphores
from solidjq.database.times import utcnow
from solidjq.database.urls import url_text
from solidjq.errors import AccessDeniedError, DatabaseUnreachableError
from solidjq.processes import heartbeat
from solidjq.queue.scan_start import Bound
from solidjq.queue.states import State
from solidjq.runtime import child
from solidjq.runtime.child import Child
from solidjq.runtime.config import ChildConfig, Config
from solidjq.runtime.dispatcher import Dispatcher
from solidjq.runtime.sampler import Sampler
from solidjq.runtime.wakeup import Wakeup
from solidjq.runtime.worker import Worker
from support.processes import add_process
from support.queue import add_jobs, claim_all, rows, state_of_each
from support.waiting import PATIENCE, until
from support.worker import finish_all, notes_to_write

BROKEN = DatabaseUnreachableError("the connection broke")


def lose_an_answer(worker: Worker) -> None:
    """Let the next transaction be committed, and the connection break before anybody hears of it."""
    transact = worker._transact

    def lose(*given: Any, **named: Any) -> Any:
        worker._transact = transact  # type: ignore[method-assign]
        transact(*given, **named)
        raise BROKEN

    worker._transact = lose  # type: ignore[method-assign]


def notes(folder: Path) -> list[str]:
    return sorted((folder / "journal").read_text().splitlines())


def test_a_claim_whose_answer_was_lost_is_put_back_and_runs_once(
    worker: Worker, database: Database, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    ids = add_jobs(database, *notes_to_write(4))
    lose_an_answer(worker)
    with pytest.raises(DatabaseUnreachableError):
        worker.step()
    assert [row["job_id"] for row in rows(database, claimed)] == ids[:2]  # and in no hands
    finish_all(worker, database, ids)
    assert notes(tmp_path) == [f"({number},) {{}}" for number in range(4)]
    assert "released 2 jobs claimed just before the connection broke" in caplog.text


def test_an_end_whose_answer_was_lost_is_no_second_end(worker: Worker, database: Database, tmp_path: Path) -> None:
    ids = add_jobs(database, *notes_to_write(2))
    worker.step()
    until(lambda: worker._unrecorded.new == 2, "both are over")
    lose_an_answer(worker)
    with pytest.raises(DatabaseUnreachableError):
        worker.step()
    ended = state_of_each(database)
    later = add_jobs(database, NewJob(class_name="note", args=[2]))
    finish_all(worker, database, ids + later)
    assert ended == dict.fromkeys(ids, State.FINISHED)
    assert len(notes(tmp_path)) == 3


def test_what_was_in_hand_is_not_put_back(worker: Worker, database: Database, tmp_path: Path) -> None:
    """A job that runs through the outage goes on, and runs once."""
    ids = add_jobs(database, NewJob(class_name="hold", args=["a"]), *notes_to_write(2))
    worker.step()
    until((tmp_path / "journal").exists, "the job runs")
    until(lambda: worker._unrecorded.new, "the other one is over")
    lose_an_answer(worker)
    with pytest.raises(DatabaseUnreachableError):
        worker.step()
    worker.step()
    assert ids[0] in {row["job_id"] for row in rows(database, claimed)}
    (tmp_path / "a.may-end").touch()
    finish_all(worker, database, ids)
    assert sum(line.startswith("a runs") for line in notes(tmp_path)) == 1


@pytest.mark.only_on("postgresql", "mariadb")
def test_a_worker_with_free_threads_passes_over_no_job_although_scans_are_dear(
    worker: Worker, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Scans from the first entry are then minutes apart; but one that finds too little behind a bound makes another."""
    monkeypatch.setattr(worker, "_scan_cost", lambda _queue, _bound: 60.0)
    ids = add_jobs(database, *notes_to_write(6))
    for _ in range(2):
        worker.step()
        until(lambda: worker._unrecorded.new == 2, "both are over")
    (early,) = add_jobs(database, NewJob(class_name="note", priority=-1))
    worker.step()
    assert {row["job_id"] for row in rows(database, claimed)} == set(ids[4:])
    until(lambda: worker._unrecorded.new == 2, "both are over")
    assert worker.step() == 0
    assert rows(database, claimed) == []
    worker.step()
    assert [row["job_id"] for row in rows(database, claimed)] == [early]
    finish_all(worker, database, [*ids, early])


def test_a_busy_worker_measures_what_its_scans_cost_and_an_idle_one_does_not(
    worker: Worker, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured: list[tuple[str | None, Bound]] = []

    def measure(queue: str | None, bound: Bound) -> float:
        measured.append((queue, bound))
        return 0.0

    monkeypatch.setattr(worker, "_scan_cost", measure)
    (only,) = add_jobs(database, *notes_to_write(1))
    finish_all(worker, database, [only])
    assert measured == []
    ids = add_jobs(database, *notes_to_write(3))
    worker.step()
    has_bounds = database.write_style is not WriteStyle.RETURNING  # SQLite keeps no entries of deleted rows
    assert measured == ([(None, Bound(0, ids[1]))] if has_bounds else [])
    finish_all(worker, database, [only, *ids])


@pytest.mark.sqlite_only
def test_beats_go_on_after_one_for_which_there_was_no_memory(
    worker: Worker, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    take = worker.sampler.take
    failing, beaten = Event(), Event()

    def take_or_fail(sampler: Sampler, beats: Mapping[str, Any]) -> dict[str, Any]:
        if not failing.is_set():
            failing.set()
            raise MemoryError
        beaten.set()
        return take(beats)

    monkeypatch.setattr(Sampler, "take", take_or_fail)
    worker.registration._due.set()
    assert failing.wait(PATIENCE)
    until(lambda: "heartbeat failed: MemoryError" in caplog.text, "it is told")
    worker.registration._due.set()
    assert beaten.wait(PATIENCE)


@pytest.mark.sqlite_only
def test_an_outage_of_the_heartbeats_is_logged_once_and_its_end(
    worker: Worker, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "solidjq")
    registration = worker.registration

    def refused(*_: object) -> bool:
        raise AccessDeniedError("the server is set read-only")

    with monkeypatch.context() as patch:
        patch.setattr(heartbeat, "heartbeat", refused)
        for beats in range(1, 5):
            registration._due.set()
            until(lambda beats=beats: registration.outage and registration.outage["beats"] >= beats, "it has failed")
    registration._due.set()
    until(lambda: "worker: heartbeat works again" in caplog.text, "it works again")
    assert caplog.text.count("worker: heartbeat failed: the server is set read-only") == 1


class Away(Child):
    """A child whose database does not come back."""

    metadata: dict[str, object] = {}  # type: ignore[assignment]  # noqa: RUF012

    def step(self) -> NoReturn:
        raise DatabaseUnreachableError(str(BROKEN))  # a new one, whose traceback does not grow with each turn


@pytest.mark.sqlite_only
def test_a_database_that_is_away_for_days_is_waited_for(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    wakeup = Wakeup()
    pauses: list[float] = []

    def wait(pause: float) -> None:
        pauses.append(pause)
        if len(pauses) == 2000:
            wakeup.signals.append(signal.SIGTERM)

    monkeypatch.setattr(wakeup, "wait", wait)
    monkeypatch.setattr(child, "leave", sys.exit)
    config = Config(database_url=url_text(database.url))
    supervisor = add_process(database, "supervisor", kind="Supervisor")
    away = Away(ChildConfig(kind="Worker", name="away", supervisor_id=supervisor, config=config), wakeup)
    with pytest.raises(SystemExit) as left:
        away.run()
    away.registration._thread.join(PATIENCE)
    away.database.close()
    assert left.value.code == 0
    assert all(most / 2 <= pause <= most for pause, most in zip(pauses, [1, 2, 4, 8, 8], strict=False))
    assert 4 <= pauses[-1] <= 8


@pytest.mark.sqlite_only
def test_a_dispatcher_gives_back_a_slot_that_stays_lost_and_none_that_rails_is_giving_back(
    worker: Worker, database: Database
) -> None:
    from sample_jobs import alone

    first, second = add_jobs(database, alone.new("a"), alone.new("b"))
    claim_all(database, add_process(database, "of Rails"))
    dispatcher = Dispatcher(replace(worker._child_config, kind="Dispatcher", name="dispatcher"), Wakeup())
    with database.write() as connection:  # a Rails worker ends the first job ...
        connection.execute(delete(claimed))
        connection.execute(update(jobs).where(jobs.c.id == first).values(finished_at=utcnow()))
    dispatcher.step()
    with database.write() as connection:  # ... and then gives its slot back
        connection.execute(update(semaphores).values(value=1))
    dispatcher._refill_at = 0.0
    dispatcher.step()
    assert state_of_each(database)[second] is State.BLOCKED
    with database.write() as connection:  # the slot is lost
        connection.execute(update(semaphores).values(value=0))
    dispatcher._next_maintenance = 0.0
    dispatcher.step()
    assert state_of_each(database)[second] is State.BLOCKED
    dispatcher._refill_at = 0.0
    dispatcher.step()
    assert state_of_each(database)[second] is State.READY
    dispatcher.database.close()
