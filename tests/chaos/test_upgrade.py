"""Two versions on one queue: the oldest that keeps a chain of operations, taken from the history, and this one."""

import io
import os
import signal
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from sqlalchemy.engine import URL

from solidjq import Database
from solidjq.database.tables import failures, operations
from solidjq.database.urls import url_text
from solidjq.queue.states import State
from solidjq_cli.exits import Exit
from support.databases import execute
from support.paths import PROGRAMS, ROOT
from support.program import Shell
from support.queue import add_jobs, rows, state_of_each
from support.runtime import Runtime, held, kill
from support.skips import NO_HISTORY

FIRST = ["log", "--reverse", "--format=%H", '-S"chain of operations"', "--", "core/solidjq/database/setup.py"]


def git(*arguments: str) -> bytes:
    return subprocess.run(["git", "-C", str(ROOT), *arguments], capture_output=True, check=True).stdout


@pytest.fixture(scope="session")
def old_code(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The packages of the older version."""
    try:
        commit = git(*FIRST).split()[0].decode()
        archive = git("archive", commit, "core", "cli")
    except (OSError, subprocess.CalledProcessError, IndexError):
        pytest.skip(NO_HISTORY)
    folder = tmp_path_factory.mktemp("old")
    with tarfile.open(fileobj=io.BytesIO(archive)) as packed:
        packed.extractall(folder, filter="data")
    return folder


@dataclass
class Version:
    """One of the two versions: its commands and its workers, on the same queue and in the same folder."""

    shell: Shell
    database: Database

    def run(self, *words: str) -> str:
        done = self.shell.run(*words)
        assert done.returncode in {Exit.DONE, Exit.PARTLY}, done.stderr
        return done.stdout

    def lose_a_worker(self, name: str) -> None:
        """Start workers, and kill the whole tree while a job runs; nobody beats any more."""
        runtime = Runtime(self.database, self.shell)
        runtime.start("--threads", "1")
        worker = runtime.running(name)
        assert runtime.supervisor is not None
        kill(runtime.supervisor.pid, signal.SIGKILL)
        kill(worker, signal.SIGKILL)
        runtime.kill_all()
        execute(self.database.url, "UPDATE solid_queue_processes SET last_heartbeat_at = '2020-01-01 00:00:00'")

    def work_until_finished(self, job_id: int) -> None:
        runtime = Runtime(self.database, self.shell)
        runtime.start("--threads", "1")
        runtime.wait_for(job_id, State.FINISHED)
        code, log = runtime.stop()
        assert code == 0, log


@pytest.fixture
def versions(empty_url: URL, tmp_path: Path, old_code: Path) -> Iterator[tuple[Version, Version]]:
    """The older version and this one, on a queue that the older one has made."""
    path = os.pathsep.join(map(str, (old_code / "core", old_code / "cli", PROGRAMS)))
    database = Database(empty_url)
    url = url_text(empty_url)
    old = Version(Shell(url, tmp_path, {"PYTHONPATH": path}, fresh=True), database)
    new = Version(Shell(url, tmp_path, {"PYTHONPATH": str(PROGRAMS)}), database)
    where = [sys.executable, "-c", "import solidjq; print(solidjq.__file__)"]
    used = subprocess.run(where, env=old.shell.env(), capture_output=True, text=True, check=True).stdout
    assert Path(used).is_relative_to(old_code)
    old.run("init")
    yield old, new
    database.close()


def test_each_version_recovers_the_jobs_of_the_other(versions: tuple[Version, Version]) -> None:
    old, new = versions
    database = new.database
    (first,) = add_jobs(database, held("first"))
    for worker, other in ((old, new), (new, old)):
        (worker.shell.folder / "journal").unlink(missing_ok=True)
        worker.lose_a_worker("first")
        other.run("init")  # the new one brings the record up to date; the old one finds nothing to do
        other.run("prune", "--force")
        assert state_of_each(database)[first] is State.FAILED
        other.run("retry", "--safe", "--yes", "--reason", "upgrade")
        assert state_of_each(database)[first] is State.READY
        other.run("history", str(first))
    (new.shell.folder / "first.may-end").touch()
    old.work_until_finished(first)
    for version in versions:
        version.run("operations", "verify")
    assert [row["verb"] for row in rows(database, operations) if row["verb"] == "retry"] == ["retry"] * 2
    assert len(rows(database, failures)) == 2
