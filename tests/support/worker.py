"""A worker in the test's own process: its job threads run, and the test itself takes its turns."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from solidjq import Database, NewJob
from solidjq.database.urls import url_text
from solidjq.errors import SolidJQError
from solidjq.queue.states import State
from solidjq.runtime.config import ChildConfig, Config
from solidjq.runtime.listener import Listener
from solidjq.runtime.registration import Registration
from solidjq.runtime.wakeup import Wakeup
from solidjq.runtime.worker import Worker
from support.processes import add_process
from support.queue import state_of_each
from support.waiting import PATIENCE, until


@pytest.fixture
def worker(database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Worker]:
    import sample_jobs  # registers its jobs: only where a worker is wanted

    assert sample_jobs
    monkeypatch.chdir(tmp_path)  # where the jobs write
    monkeypatch.setattr(Listener, "start", lambda _: None)
    monkeypatch.setattr(Worker, "_watch", lambda _: None)  # it would end this process
    config = Config(database_url=url_text(database.url), threads=2)
    supervisor = add_process(database, "supervisor", kind="Supervisor")
    made = Worker(ChildConfig(kind="Worker", name="worker", supervisor_id=supervisor, config=config), Wakeup())
    made.registration = Registration(
        made.database,
        kind="Worker",
        name="worker",
        metadata=made.metadata,
        interval=60,
        on_gone=lambda: None,
        sampler=made.sampler,
        supervisor_id=supervisor,
    )
    made.start()
    yield made
    made.registration.deregister(within=5)
    made.registration._thread.join(PATIENCE)  # its last beat may be under way
    made.database.close()


def finish_all(worker: Worker, database: Database, job_ids: list[int]) -> None:
    def finished() -> bool:
        worker.step()
        return state_of_each(database) == dict.fromkeys(job_ids, State.FINISHED)

    until(finished, "all jobs have finished")


def notes_to_write(count: int) -> list[NewJob]:
    return [NewJob(class_name="note", args=[number]) for number in range(count)]


def take_turn(worker: Worker) -> Exception | None:
    """Let the worker take a turn; return the error after which it would wait and take another one."""
    try:
        worker.step()
    except SolidJQError as error:
        return error
    return None


def finish_despite(worker: Worker, database: Database, job_ids: list[int]) -> None:
    """Let the worker take turns, whatever they end with, until these jobs have finished."""

    def finished() -> bool:
        take_turn(worker)
        states = state_of_each(database)
        return {states[job_id] for job_id in job_ids} == {State.FINISHED}

    until(finished, "these jobs have finished")
