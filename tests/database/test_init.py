"""jq init makes what is missing and touches nothing else."""

import itertools
import threading
from typing import Any

import pytest
from sqlalchemy import event, inspect
from sqlalchemy.engine import URL

from solidjq import Database
from solidjq.database import indexes, tables
from solidjq.database.setup import MIGRATIONS, initialize
from solidjq.ledger import archive, operations
from solidjq.ledger.operations import Operation
from support.deaths import die
from support.program import Shell, assert_refused
from support.queue import add_jobs, plain_jobs, rows
from support.recovery import retry_jobs
from support.schemas import OURS, THEIRS, definitions, make_older
from support.servers import connected, execute

LATER = [f"{migration.version} {migration.name}" for migration in MIGRATIONS if migration.version >= 3]


@pytest.fixture
def bare(empty_url: URL) -> Any:
    database = Database(empty_url)
    yield database
    database.close()


def test_a_fresh_database_gets_all_tables(bare: Database) -> None:
    done = initialize(bare)
    assert set(done.created) == OURS | THEIRS
    assert definitions(bare).keys() == OURS | THEIRS
    assert len(THEIRS) == 11
    stamped = {row["version"] for row in _versions(bare)}
    assert stamped == {migration.version for migration in MIGRATIONS}


def test_a_second_init_does_nothing(bare: Database) -> None:
    initialize(bare)
    add_jobs(bare, *plain_jobs(3))
    before, kept = definitions(bare), rows(bare, tables.jobs)
    done = initialize(bare)
    assert (done.created, done.migrated) == ([], [])
    assert (definitions(bare), rows(bare, tables.jobs)) == (before, kept)


def test_existing_tables_are_left_as_they_are(bare: Database) -> None:
    bare.transact(tables.solid_queue.create_all)
    execute(
        bare.url, "ALTER TABLE solid_queue_jobs ADD COLUMN batch_id bigint", "CREATE TABLE customers (name varchar(20))"
    )
    before = definitions(bare)
    assert set(initialize(bare).created) == OURS
    after = definitions(bare)
    assert {name: after[name] for name in before} == before


def test_an_interrupted_init_is_completed(bare: Database) -> None:
    """MySQL commits each CREATE TABLE by itself: a killed init leaves some."""
    bare.transact(tables.operations.create)
    bare.transact(tables.jobs.create)
    initialize(bare)
    assert definitions(bare).keys() == OURS | THEIRS
    assert len(_versions(bare)) == len(MIGRATIONS)


class Killed(Exception):  # noqa: N818
    """Stands for a kill: nothing after it runs."""


@pytest.mark.only_on("mariadb")
def test_wherever_init_is_killed_the_next_one_leaves_no_gap(bare: Database) -> None:
    """On MySQL each CREATE is committed by itself: a table must not be there without its unique indexes."""
    initialize(bare)
    whole = definitions(bare)
    for last in range(1, 1000, 5):
        with bare.write() as connection:
            tables.jq.drop_all(connection)
            tables.solid_queue.drop_all(connection)
        if not _killed_at(bare, last):
            break
        initialize(bare)
        with bare.read() as connection:
            assert indexes.missing(connection) == []
        assert definitions(bare).keys() == whole.keys()
    assert last > len(whole)
    assert _unordered(definitions(bare)) == _unordered(whole)


def _killed_at(bare: Database, last: int) -> bool:
    """Run init up to its ``last`` CREATE, which is not executed any more; tell whether it has that many."""
    own = Database(bare.url)
    count = itertools.count(1)

    def die(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        if statement.lstrip().startswith("CREATE") and next(count) == last:
            raise Killed

    event.listen(own._reader, "before_cursor_execute", die)
    try:
        initialize(own)
    except Killed:
        return True
    finally:
        own.close()
    return False


def test_two_at_once(bare: Database) -> None:
    gate = threading.Barrier(4)
    outcomes: list[Any] = []

    def run() -> None:
        own = Database(bare.url)
        gate.wait()
        try:
            outcomes.append(initialize(own))
        except Exception as error:  # noqa: BLE001  (the assertion below names it)
            outcomes.append(error)
        own.close()

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not [outcome for outcome in outcomes if isinstance(outcome, Exception)]
    assert sum(len(outcome.created) for outcome in outcomes) == len(OURS | THEIRS)
    assert len(_versions(bare)) == len(MIGRATIONS)


def test_the_tables_are_those_that_rails_makes(kind: str, bare: Database) -> None:
    """Types, defaults and nullability of solid_queue_jobs as each database reports them for Rails' own schema."""
    initialize(bare)
    with connected(bare.url) as connection:
        columns = {column["name"]: column for column in inspect(connection).get_columns("solid_queue_jobs")}
        types = {name: str(column["type"]).lower() for name, column in columns.items()}
    text_type, time_type, big = {
        "sqlite": ("varchar", "datetime", "bigint"),
        "postgresql": ("varchar", "timestamp", "bigint"),
        "mariadb": ("varchar(255)", "datetime", "bigint"),
    }[kind]
    assert types["queue_name"] == types["class_name"] == types["concurrency_key"] == text_type
    assert types["arguments"] == "text"
    assert all(types[name].startswith(time_type) for name in ("scheduled_at", "finished_at", "created_at"))
    assert types["id"] == ("integer" if kind == "sqlite" else big)
    nullable = {name for name, column in columns.items() if column["nullable"]}
    assert nullable == {"arguments", "active_job_id", "scheduled_at", "finished_at", "concurrency_key"}


def _versions(database: Database) -> list[dict[str, Any]]:
    with database.read() as connection:
        return [dict(row) for row in connection.execute(tables.schema_migrations.select()).mappings()]


def test_an_older_ledger_is_brought_up_to_date(bare: Database) -> None:
    """Version 1 had no deaths; a program that needs them takes such a ledger for none until jq init has run."""
    initialize(bare)
    fresh = definitions(bare)
    make_older(bare)
    with bare.write() as connection:
        tables.deaths.drop(connection)
        next(index for index in tables.crashes.indexes if "death_id" in str(index.name)).drop(connection)
    execute(
        bare.url,
        *(f"ALTER TABLE jq_crashes DROP COLUMN {column}" for column in ("death_id", "started_at", "growth")),
        "DELETE FROM jq_schema_migrations WHERE version = 2",
    )
    with bare.read() as connection:
        assert not operations.exists(connection)
    done = initialize(bare)
    assert (done.created, done.migrated) == (["jq_chain", "jq_deaths"], ["2 deaths", *LATER])
    assert _unordered(definitions(bare)) == _unordered(fresh)
    assert [row["version"] for row in _versions(bare)] == [migration.version for migration in MIGRATIONS]


def test_a_ledger_without_room_for_all_columns_is_one_all_the_same(bare: Database) -> None:
    initialize(bare)
    fresh = definitions(bare)
    make_older(bare)
    with bare.read() as connection:
        assert operations.exists(connection)
        assert not archive.has_more_column(connection)
    done = initialize(bare)
    assert (done.created, done.migrated) == (["jq_chain"], LATER)
    with bare.read() as connection:
        assert archive.has_more_column(connection)
    assert _unordered(definitions(bare)) == _unordered(fresh)
    execute(bare.url, "DELETE FROM jq_schema_migrations WHERE version = 3")  # MySQL keeps a column without its stamp
    assert initialize(bare).migrated == ["3 all columns of a discarded job"]


def _unordered(found: dict[str, Any]) -> dict[str, Any]:
    """Take the order of the columns away: added ones stand last."""
    return {name: (sorted(map(str, columns)), *rest) for name, (columns, *rest) in found.items()}


def test_a_table_of_the_record_that_was_dropped_is_named_and_made_anew(
    database: Database, shell: Shell, kind: str
) -> None:
    ids = add_jobs(database, *plain_jobs(2))
    die(database)
    retry_jobs(database, ids[:1], operation=Operation("retry"))
    (first,) = rows(database, tables.operations)
    execute(database.url, "DROP TABLE jq_operations")
    try:
        for command in ("operations list", f"undo {first['id']}", "retry --safe --yes", "prune", f"history {ids[0]}"):
            done = shell.run(*command.split())
            assert_refused(done, 3, "the table jq_operations, a part of jq's record, is missing; run: jq init")
    finally:
        assert shell.run("init").returncode == 0
    retry_jobs(database, ids[1:], operation=Operation("retry"))
    (second,) = rows(database, tables.operations)
    assert second["id"] == first["id"] + 1, kind
    undone = shell.run("undo", str(second["id"]), "-o", "ids")
    assert undone.stdout.split() == [str(ids[1])]
