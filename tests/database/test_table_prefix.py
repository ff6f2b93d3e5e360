"""Queues whose tables have another prefix than solid_queue_: the same commands, on each database."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import create_engine, inspect, text
from sqlalchemy.engine import URL

from solidjq import Database
from solidjq.database import tables
from solidjq.database.opening import open_database
from solidjq.database.setup import initialize
from solidjq.database.tables import DEFAULT_PREFIX, LONGEST_NAME, MOST_PREFIX, use_prefix
from solidjq.database.urls import url_text
from solidjq.errors import UsageError
from solidjq.queue.states import State
from support.paths import PROGRAMS
from support.processes import add_process, silence
from support.program import Shell
from support.queue import add_jobs, claim_all, plain_jobs, state_of_each
from support.waiting import PATIENCE, until

PREFIX = "my_queue_"


@pytest.fixture(autouse=True)
def _own_prefix_afterwards() -> Iterator[None]:
    yield
    use_prefix(DEFAULT_PREFIX)


@pytest.fixture
def other(empty_url: URL) -> Iterator[Database]:
    """A queue with another prefix."""
    database = open_database(empty_url, table_prefix=PREFIX)
    initialize(database)
    yield database
    database.close()


@pytest.fixture
def jq(other: Database, tmp_path: Any) -> Shell:
    return Shell(url_text(other.url), tmp_path, {"JQ_TABLE_PREFIX": PREFIX})


def names(url: URL) -> set[str]:
    engine = create_engine(url)
    found = set(inspect(engine).get_table_names())
    engine.dispose()
    return found


def ids(jq: Shell, *arguments: str) -> list[int]:
    ended = jq.run(*arguments, "-o", "ids")
    assert ended.returncode == 0, ended.stderr
    return [int(line) for line in ended.stdout.split()]


def test_the_tables_and_their_rows(other: Database, jq: Shell) -> None:
    """From a death to an undo, through the program."""
    jobs = add_jobs(other, *plain_jobs(3))
    worker = add_process(other)
    claim_all(other, worker, 2)
    silence(other, worker, 1000)
    made = names(other.url)
    assert not [name for name in made if name.startswith(DEFAULT_PREFIX)]
    assert {"my_queue_jobs", "my_queue_recurring_executions", "jq_failures"} <= made
    assert ids(jq, "prune") == jobs[:2]
    assert sorted(ids(jq, "failed", "list", "--died")) == jobs[:2]
    (queue,) = json.loads(jq.run("queues", "list", "-o", "json").stdout)
    assert (queue["queue_name"], queue["ready"]) == ("default", 1)
    assert ids(jq, "retry", "--safe", str(jobs[0])) == jobs[:1]
    (operation,) = [row["operation_id"] for row in operations(jq) if row["verb"] == "retry"]
    assert jq.run("undo", str(operation)).returncode == 0
    assert state_of_each(other) == dict(zip(jobs, (State.FAILED, State.FAILED, State.READY), strict=True))
    assert jq.run("retry", "--safe", "--since", "1h", "--yes").returncode == 0
    assert jq.run("queues", "pause", "default").returncode == 0
    assert [row["paused"] for row in json.loads(jq.run("queues", "list", "-o", "json").stdout)] == [True]
    assert jq.run("queues", "resume", "default").returncode == 0
    claim_all(other, worker := add_process(other, "worker-2"), 1)
    silence(other, worker, 1000)
    pruned = ids(jq, "prune")
    assert (len(pruned), ids(jq, "discard", "--died", "--yes")) == (1, pruned)
    assert len(state_of_each(other)) == 2
    (operation,) = [row["operation_id"] for row in operations(jq) if row["verb"] == "discard"]
    assert jq.run("undo", str(operation)).returncode == 0
    assert {job: state for job, state in state_of_each(other).items() if state is State.FAILED}.keys() == set(pruned)
    assert jq.run("history", str(jobs[0])).returncode == 0
    assert names(other.url) == made


def operations(jq: Shell) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(jq.run("operations", "list", "-o", "json").stdout)
    return found


def test_doctor_and_its_indexes(other: Database, jq: Shell) -> None:
    examined = json.loads(jq.run("doctor", "tables", "indexes", "bloat", "-o", "json").stdout)
    assert {each["status"] for each in examined if each["check"] != "bloat"} == {"healthy"}
    engine = create_engine(other.url)
    where = " ON my_queue_jobs" if other.url.get_backend_name() == "mysql" else ""
    with engine.begin() as connection:
        connection.execute(text(f"DROP INDEX index_my_queue_jobs_on_class_name{where}"))
    engine.dispose()
    (found,) = json.loads(jq.run("doctor", "indexes", "-o", "json").stdout)
    assert "my_queue_jobs (class_name)" in found["finding"]
    made = jq.run("init", "--indexes")
    assert "created index index_my_queue_jobs_on_class_name on my_queue_jobs" in made.stderr
    (found,) = json.loads(jq.run("doctor", "indexes", "-o", "json").stdout)
    assert found["status"] == "healthy"


def test_work(other: Database, jq: Shell) -> None:
    """The option reaches the worker processes, which are programs of their own."""
    del jq.environment["JQ_TABLE_PREFIX"]
    jq.environment["PYTHONPATH"] = str(PROGRAMS)
    jobs = ids(jq, "--table-prefix", PREFIX, "enqueue", "note", "done")
    assert len(jobs) == 1
    working = jq.start("--table-prefix", PREFIX, "work", "--import", "sample_jobs")
    try:
        until(lambda: state_of_each(other) == dict.fromkeys(jobs, State.FINISHED), "the job finishes")
    finally:
        working.terminate()
        _, told = working.communicate(timeout=PATIENCE)
    assert working.returncode == 0, told


def test_a_prefix_without_tables(other: Database, jq: Shell) -> None:
    jq.environment["JQ_TABLE_PREFIX"] = "lost_"
    for command in (["failed", "list"], ["prune"], ["doctor"], ["queues", "list"]):
        refused = jq.run(*command)
        assert refused.returncode == 3, refused.stderr
        assert "no Solid Queue tables with prefix lost_ here" in refused.stderr
        assert f"tables {PREFIX}* of this database (--table-prefix {PREFIX})" in refused.stderr
    assert jq.run("--table-prefix", PREFIX, "failed", "list").returncode == 0
    jq.environment["JQ_CONFIG"] = str(jq.folder / "own.toml")
    (jq.folder / "own.toml").write_text(f'[profiles.a]\ndatabase = {json.dumps(jq.url)}\ntable_prefix = "{PREFIX}"\n')
    del jq.environment["JQ_TABLE_PREFIX"]
    assert jq.run("--profile", "a", "queues", "list").returncode == 0
    granted = jq.run("--profile", "a", "grants", "oncall", "--for", "reading").stdout
    assert (DEFAULT_PREFIX in granted, PREFIX in granted) == (False, other.url.get_backend_name() != "sqlite")


@pytest.mark.sqlite_only
@pytest.mark.parametrize("prefix", ["", "1a", "a-b", "a b", 'a"', "é", "a" * (MOST_PREFIX + 1), "a\n"])
def test_what_can_be_no_prefix(shell: Shell, prefix: str) -> None:
    refused = shell.run("--table-prefix", prefix, "failed", "list")
    assert (refused.returncode, "cannot be the prefix of tables" in refused.stderr) == (2, True), refused.stderr


def test_the_longest_prefix_makes_names_that_fit(empty_url: URL) -> None:
    database = open_database(empty_url, table_prefix="x" * MOST_PREFIX)
    initialize(database)
    database.close()
    indexes = [str(index.name) for table in tables.solid_queue.sorted_tables for index in table.indexes]
    assert max(map(len, indexes)) <= LONGEST_NAME
    assert len(set(indexes)) == len(indexes)
    engine = create_engine(empty_url)
    made = [str(index["name"]) for name in names(empty_url) for index in inspect(engine).get_indexes(name)]
    engine.dispose()
    assert set(indexes) <= set(made)


def test_two_prefixes_in_one_process_are_refused(other: Database) -> None:
    use_prefix("another_")
    with pytest.raises(UsageError, match=r"opened for tables my_queue_\*, but this process now uses another_\*"):
        other.now()
    with pytest.raises(UsageError, match="one prefix"), other.write():
        pass
    use_prefix(PREFIX)
    assert other.now()


def test_back_to_its_own(database: Database) -> None:
    """A prefix leaves nothing behind, in names of indexes neither."""
    before = [(index.name, table.name) for table in tables.solid_queue.sorted_tables for index in table.indexes]
    use_prefix("x" * MOST_PREFIX)
    use_prefix(DEFAULT_PREFIX)
    assert [(index.name, table.name) for table in tables.solid_queue.sorted_tables for index in table.indexes] == before
    assert add_jobs(database, *plain_jobs(1))
