"""What database/statements.py writes, as each database plans it."""

import subprocess
import sys

import pytest
from sqlalchemy import Connection, delete, func, or_, select, text, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.sql.expression import Executable

from solidjq import Database
from solidjq.database.among import among, read_among
from solidjq.database.grouping import lock_ids
from solidjq.database.inserts import insert_many
from solidjq.database.tables import claimed, crashes, failed, jobs, pauses
from solidjq.database.times import clock
from support.databases import explain
from support.servers import connected

STATEMENTS = {
    "select": select(failed.c.id).where(among(failed.c.id, [1, 2, 3])).with_for_update(),
    "delete": delete(claimed).where(among(claimed.c.id, [1, 2, 3])),
    "update": update(jobs).where(among(jobs.c.id, [1, 2, 3])).values(priority=1),
    "names": select(crashes.c.failure_id).where(among(crashes.c.subject, ["a", "b"])),
    "either": select(jobs.c.id).where(or_(among(jobs.c.id, [1, 2]), among(jobs.c.active_job_id, ["a"]))),
}


def reads_all(connection: Connection, statement: str) -> bool:
    """Ask the database whether it would have to read the whole table."""
    match connection.dialect.name:
        case "sqlite":
            return any(row["detail"].startswith("SCAN") for row in explain(connection, statement))
        case "mysql":  # which prefers that while a table is small
            return any(row["possible_keys"] is None for row in explain(connection, statement))
        case _:
            connection.execute(text("SET LOCAL enable_seqscan = off"))  # so does this
            return any("Seq Scan" in row["QUERY PLAN"] for row in explain(connection, statement))


@pytest.mark.parametrize("statement", STATEMENTS.values(), ids=STATEMENTS)
def test_rows_that_are_named_are_found_by_an_index(database: Database, statement: Executable) -> None:
    """A batch that reads the whole table is slow, and on MySQL locks what it does not mean."""
    with connected(database.url) as connection:
        compiled = statement.compile(connection, compile_kwargs={"literal_binds": True})  # type: ignore[attr-defined]
        assert not reads_all(connection, str(compiled))
        assert reads_all(connection, "SELECT * FROM solid_queue_claimed_executions WHERE id + 0 IN (1, 2)")


def test_what_the_pool_says_of_a_broken_connection_stays_out_of_sight(capfd: pytest.CaptureFixture[str]) -> None:
    """Ctrl-C while a connection is given back: SQLAlchemy logs a stack, and closes the connection."""
    program = (
        "import logging, solidjq.database.engines;"
        "logging.getLogger('sqlalchemy.pool.impl.QueuePool').error('Exception during reset', exc_info=True)"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
    assert capfd.readouterr() == ("", "")


def test_a_row_that_is_there_already_is_an_integrity_error_by_copy_too(database: Database) -> None:
    with database.write() as connection:
        row = {"queue_name": "mail", "created_at": clock(connection)}
        with pytest.raises(IntegrityError):
            insert_many(connection, pauses, [row, row])


@pytest.mark.parametrize("ids", [[], [2], [2, 3, 4], [4, 2, 3, 3], [2, 4, 5], [-1, 0, 1, 2]])
def test_rows_that_are_read_by_a_list_of_keys(database: Database, ids: list[int]) -> None:
    with database.write() as connection:
        rows = [{"id": number, "queue_name": f"q{number}"} for number in range(1, 7)]
        insert_many(connection, pauses, [{**row, "created_at": clock(connection)} for row in rows])
        read = connection.scalars(select(pauses.c.id).where(read_among(pauses.c.id, ids)).order_by(pauses.c.id)).all()
        by_name = select(pauses.c.id).where(read_among(pauses.c.id, "ids")).order_by(pauses.c.id)
        assert read == connection.scalars(by_name, {"ids": ids}).all() == sorted({*ids} & {*range(1, 7)})


@pytest.mark.only_on("postgresql", "mariadb")
def test_a_page_of_ids_is_locked_alone(database: Database) -> None:
    with database.write() as connection:
        rows = [{"id": number, "queue_name": f"q{number}"} for number in range(1, 7)]
        insert_many(connection, pauses, [{**row, "created_at": clock(connection)} for row in rows])
    page = select(pauses.c.id).where(pauses.c.id > 1).order_by(pauses.c.id)
    with database.write() as connection, database.write() as other:
        assert lock_ids(connection, page.limit(3)) == [2, 3, 4]
        assert lock_ids(connection, page.where(pauses.c.id > 9).limit(3)) == []
        assert other.scalars(page.with_for_update(skip_locked=True)).all() == [5, 6]


@pytest.mark.only_on("postgresql")
def test_no_statement_is_compiled_and_a_stream_is_planned_for_its_end(database: Database) -> None:
    settings = select(func.current_setting("jit"), func.current_setting("cursor_tuple_fraction"))
    for _ in range(2):  # the second time in the same session
        with database.read() as connection:
            assert connection.execute(settings).one() == ("off", "1")
