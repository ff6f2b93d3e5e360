"""A long job whose worker is killed goes on from its last checkpoint."""

import json
import signal
from collections import Counter
from pathlib import Path

from sqlalchemy import select

from solidjq import Database, NewJob
from solidjq.database.tables import jobs
from solidjq.processes import pruning
from solidjq.queue.states import State
from solidjq.rails.continuation import Progress, progress_of
from support.processes import silence
from support.queue import add_jobs
from support.recovery import retry_jobs
from support.runtime import Runtime, kill
from support.waiting import until

COUNT = 30
STOPS_AFTER = 20


def arguments(database: Database) -> str:
    with database.read() as connection:
        return str(connection.scalar(select(jobs.c.arguments)))


def progress(database: Database) -> Progress:
    return progress_of(arguments(database))


def test_a_killed_worker_loses_what_it_did_since_its_last_checkpoint(runtime: Runtime, database: Database) -> None:
    (job_id,) = add_jobs(database, NewJob(class_name="import_records", args=[COUNT, STOPS_AFTER]))
    before = arguments(database)
    file: Path = runtime.shell.folder / "records"

    def records() -> list[int]:
        return [int(line) for line in file.read_text().splitlines()] if file.exists() else []

    runtime.start("--threads", "1", module="long_jobs")
    worker = runtime.worker()
    until(lambda: STOPS_AFTER in records(), "the worker is in the middle of the step")
    assert runtime.supervisor is not None
    for pid in (runtime.supervisor.pid, worker.pid):  # the supervisor first: it would record the death at once
        kill(pid, signal.SIGKILL)
    runtime.supervisor.communicate()
    cursor = progress(database).cursor
    assert cursor == STOPS_AFTER - 1
    for process in (*runtime.processes("Worker"), *runtime.processes("Supervisor"), *runtime.processes("Dispatcher")):
        silence(database, process.id, 600)
    assert list(pruning.prune(database, 300))
    assert runtime.state(job_id) is State.FAILED
    assert retry_jobs(database, [job_id]).count == 1
    assert progress(database) == Progress((), "import", cursor)
    (runtime.shell.folder / "go-on").touch()
    runtime.start("--threads", "1", module="long_jobs")
    runtime.wait_for(job_id, State.FINISHED)
    times = Counter(records())
    assert {number: times[number] for number in range(1, COUNT + 1)} == {
        number: 2 if number == STOPS_AFTER else 1 for number in range(1, COUNT + 1)
    }
    assert progress(database) == Progress(("import",), resumptions=1)
    assert json.loads(arguments(database)).keys() == json.loads(before).keys() | {"continuation", "resumptions"}
    runtime.stop()
