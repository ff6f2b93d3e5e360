"""Indexes that are missing are found, and made one at a time beside running workers."""

from pathlib import Path

import pytest
from sqlalchemy import create_engine, delete, event, insert, inspect

from solidjq import Database
from solidjq.database import duplicates, indexes
from solidjq.database.tables import failed, operations, semaphores
from solidjq.database.times import utcnow
from solidjq.database.urls import url_text
from solidjq.doctor.checks import Severity
from solidjq.errors import ConflictError, RefusedError
from support.doctor import findings
from support.program import Shell
from support.queue import add_jobs, plain_jobs, rows
from support.scenes import change
from support.schemas import drop_index
from support.servers import execute


def test_missing_indexes_are_found_and_made(bare: Database) -> None:
    assert findings(bare, "indexes") == []
    drop_index(bare, "index_solid_queue_poll_by_queue", "solid_queue_ready_executions")
    drop_index(bare, "index_solid_queue_semaphores_on_key", "solid_queue_semaphores")
    unique, poll = sorted(findings(bare, "indexes"), key=lambda finding: finding.severity)
    assert (poll.severity, unique.severity) == (Severity.WARNING, Severity.ERROR)
    assert "solid_queue_ready_executions (queue_name, priority, job_id)" in poll.what
    made = {index.name for index in indexes.create_missing(bare)}
    ours = {index.name for index in indexes.ours()}
    assert made == ours | {"index_solid_queue_poll_by_queue", "index_solid_queue_semaphores_on_key"}
    assert findings(bare, "indexes") == []
    assert list(indexes.create_missing(bare)) == []
    engine = create_engine(bare.url)
    there = {index["name"]: index for index in inspect(engine).get_indexes("solid_queue_semaphores")}
    engine.dispose()
    assert there["index_solid_queue_semaphores_on_key"]["unique"]


def row_of_semaphore(key: str, value: int) -> dict[str, object]:
    return {"key": key, "value": value, "expires_at": utcnow(), "created_at": utcnow(), "updated_at": utcnow()}


def test_rows_that_must_be_unique_and_are_not(bare: Database, tmp_path: Path) -> None:
    """Of a half-made queue: init says what is there twice, asks, deletes the surplus, and makes the index."""
    drop_index(bare, "index_solid_queue_semaphores_on_key", "solid_queue_semaphores")
    twice = [row_of_semaphore(*row) for row in (("a", 2), ("a", 0), ("b", 1), ("a", 3))]
    change(bare, *(insert(semaphores).values(row) for row in twice))
    shell = Shell(url_text(bare.url), tmp_path)
    assert shell.run("init").returncode == 6
    assert "lacks indexes of Solid Queue's schema: solid_queue_semaphores (key); jq init --indexes" in (
        shell.run("init").stderr
    )
    asked = shell.run("init", "--indexes")
    assert (asked.returncode, asked.stderr.splitlines()) == (
        2,
        [
            "jq: solid_queue_semaphores (key) must be unique, and 1 value occurs more than once, for example a",
            "jq: to make the indexes, 2 surplus rows must be deleted first: add --yes",
        ],
    )
    done = shell.run("init", "--indexes", "--yes")
    assert done.returncode == 0, done.stderr
    assert [(row["key"], row["value"]) for row in rows(bare, semaphores)] == [("a", 0), ("b", 1)]
    assert [row["verb"] for row in rows(bare, operations)] == ["init"]
    assert findings(bare, "indexes") == []


@pytest.mark.only_on("sqlite", "postgresql")  # MariaDB keeps the index of a foreign key
def test_which_of_two_failures_is_right_is_for_the_operator(bare: Database) -> None:
    drop_index(bare, "index_solid_queue_failed_executions_on_job_id", "solid_queue_failed_executions")
    (job_id,) = add_jobs(bare, *plain_jobs(1))
    change(bare, *(insert(failed).values(job_id=job_id, error=text, created_at=utcnow()) for text in ("{}", "[]")))
    with (
        bare.read() as connection,
        pytest.raises(RefusedError, match=f"for example {job_id}; which of the rows is right"),
    ):
        duplicates.require_removable(duplicates.find(connection))


def test_an_index_of_another_name_will_do(bare: Database) -> None:
    drop_index(bare, "index_solid_queue_poll_all", "solid_queue_ready_executions")
    execute(bare.url, "CREATE INDEX mine ON solid_queue_ready_executions (priority, job_id, created_at)")
    assert findings(bare, "indexes") == []
    drop_index(bare, "mine", "solid_queue_ready_executions")
    execute(bare.url, "CREATE INDEX index_solid_queue_poll_all ON solid_queue_ready_executions (job_id, priority)")
    assert len(findings(bare, "indexes")) == 1
    names = {index.name for index in indexes.create_missing(bare)}
    assert "jq_index_solid_queue_poll_all" in names  # what is there keeps its name
    assert findings(bare, "indexes") == []


@pytest.mark.only_on("postgresql")
def test_an_unfinished_index_is_made_again(bare: Database) -> None:
    """A CREATE INDEX CONCURRENTLY that fails leaves an index that serves nobody."""
    name, table = "index_solid_queue_semaphores_on_key", "solid_queue_semaphores"
    drop_index(bare, name, table)
    row = {"key": "twice", "value": 1, "expires_at": utcnow(), "created_at": utcnow(), "updated_at": utcnow()}
    change(bare, insert(semaphores).values(row), insert(semaphores).values(row))
    with pytest.raises(Exception, match="could not create unique index"):
        list(indexes.create_missing(bare))
    assert len(findings(bare, "indexes")) == 1
    change(bare, delete(semaphores))
    assert {index.name for index in indexes.create_missing(bare)} >= {name}
    assert findings(bare, "indexes") == []


@pytest.mark.only_on("postgresql", "mariadb")
def test_one_at_a_time(bare: Database) -> None:
    other = Database(bare.url)
    first = indexes.create_missing(bare)
    next(first)
    with pytest.raises(ConflictError):
        list(indexes.create_missing(other))
    list(first)
    assert list(indexes.create_missing(other)) == []
    other.close()


@pytest.mark.only_on("postgresql")
def test_workers_go_on_while_an_index_is_made(bare: Database) -> None:
    """A writer that is not done yet would block a plain CREATE INDEX, and it everybody else."""
    drop_index(bare, "index_solid_queue_poll_all", "solid_queue_ready_executions")
    statements: list[str] = []
    event.listen(bare._reader, "before_cursor_execute", lambda *told: statements.append(told[2]))
    list(indexes.create_missing(bare))
    made = [statement for statement in statements if statement.startswith("CREATE")]
    assert made
    assert all(" CONCURRENTLY " in statement for statement in made)
