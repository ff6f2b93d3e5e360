"""Texts longer than MySQL's TEXT, and in languages that the database's own character set lacks."""

from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, event, text, update
from sqlalchemy.engine import URL

from solidjq import Database
from solidjq.database import tables, text_columns
from solidjq.database.setup import initialize
from solidjq.errors import DatabaseError, LedgerMissingError, ValueRefusedError
from solidjq.ledger.operations import Operation
from solidjq.rails.error_text import missing_error
from solidjq.recovery.terms import Selection
from support.deaths import die
from support.doctor import findings
from support.queue import add_jobs, fail, plain_jobs, rows
from support.recovery import retry_jobs, undo
from support.servers import execute

LONG = "[" + "я" * 100_000 + "]"  # 200,002 bytes


@pytest.fixture
def latin(empty_url: URL) -> Iterator[Database]:
    """A database whose default is latin1."""
    execute(empty_url, f"ALTER DATABASE {empty_url.database} CHARACTER SET latin1")
    opened = Database(empty_url)
    yield opened
    opened.close()


def widen(database: Database) -> None:
    execute(
        database.url,
        "ALTER TABLE solid_queue_jobs MODIFY arguments longtext, MODIFY class_name varchar(700)",
        "ALTER TABLE solid_queue_failed_executions MODIFY error longtext",
    )


def fail_with_long_texts(database: Database) -> list[int]:
    ids = add_jobs(database, *plain_jobs(2))
    die(database)
    with database.write() as connection:
        connection.execute(update(tables.jobs).values(arguments=LONG, class_name="K" * 700))
        connection.execute(update(tables.failed).values(error=LONG + "!"))
    return list(ids)


def make_version_3(database: Database, character_set: str = "utf8mb4") -> None:
    """Give jq's tables the columns of version 3."""
    short = "MODIFY error text, MODIFY arguments text, MODIFY queue_name varchar(255) NOT NULL"
    short += ", MODIFY class_name varchar(255) NOT NULL, MODIFY concurrency_key varchar(255)"
    execute(
        database.url,
        f"ALTER TABLE jq_failures CONVERT TO CHARACTER SET {character_set}, {short}",
        f"ALTER TABLE jq_operations CONVERT TO CHARACTER SET {character_set}, MODIFY command text",
        "DELETE FROM jq_schema_migrations WHERE version >= 5",
    )


@pytest.mark.only_on("mariadb")
def test_an_undone_discard_brings_every_byte_back(own: Database) -> None:
    widen(own)
    ids = fail_with_long_texts(own)
    before = rows(own, tables.jobs), rows(own, tables.failed)
    operation = Operation("discard")
    retry_jobs(own, ids, operation, discard=True)
    assert rows(own, tables.jobs) == []
    assert undo(own, operation) == dict.fromkeys(ids)
    assert (rows(own, tables.jobs), rows(own, tables.failed)) == before


@pytest.mark.only_on("mariadb")
def test_a_copy_that_would_be_shorter_is_refused(own: Database) -> None:
    widen(own)
    ids = fail_with_long_texts(own)
    make_version_3(own)
    before = rows(own, tables.jobs), rows(own, tables.failed)
    with pytest.raises(LedgerMissingError, match=r"jq_failures\.\w+ cannot hold every value .* run: jq init"):
        retry_jobs(own, ids, Operation("discard"), discard=True)
    with pytest.raises(LedgerMissingError):
        retry_jobs(own, ids, Operation("retry"))
    assert (rows(own, tables.jobs), rows(own, tables.failed)) == before
    (finding,) = findings(own, "characters")
    assert "jq_failures" in finding.what
    assert initialize(own).migrated == [
        "5 texts of every length and language",
        "6 where long jobs stood at their deaths",
    ]
    retry_jobs(own, ids, Operation("discard"), discard=True)
    assert {row["error"] for row in rows(own, tables.failures)} == {LONG + "!"}


@pytest.mark.only_on("mariadb")
def test_an_operation_measures_the_columns_once(own: Database) -> None:
    """Not in every batch: the catalogue is slow on a server with many tables. The next operation measures again."""
    ids = fail(own, *plain_jobs(6), error=missing_error())
    measured: list[str] = []

    def note(_: Connection, _cursor: Any, statement: str, *_more: Any) -> None:
        measured.extend([statement] if "character_octet_length" in statement else [])

    event.listen(Engine, "before_cursor_execute", note)
    try:
        retry_jobs(own, selection=Selection(job_ids=ids[:4], batch=2))
        retry_jobs(own, selection=Selection(job_ids=ids[4:], batch=1), discard=True)
    finally:
        event.remove(Engine, "before_cursor_execute", note)
    assert len(measured) == 2


@pytest.mark.only_on("mariadb")
def test_our_tables_hold_every_language_in_a_database_of_latin1(latin: Database) -> None:
    initialize(latin)
    with latin.read() as connection:
        names = [table.name for table in (*tables.jq.sorted_tables, *tables.solid_queue.sorted_tables)]
        columns = text_columns.text_columns(connection, names)
    assert {column.character_set for table in columns.values() for column in table.values()} == {"utf8mb4"}
    assert findings(latin, "characters") == []


@pytest.mark.only_on("mariadb")
def test_a_ledger_of_latin1_is_migrated(latin: Database) -> None:
    initialize(latin)
    make_version_3(latin, "latin1")
    ids = fail_with_a_moon(latin)
    with pytest.raises(DatabaseError, match="run: jq init"):
        retry_jobs(latin, ids, Operation("retry"))
    initialize(latin)
    retry_jobs(latin, ids, Operation("retry", command="jq retry", reason="Ночь 🌙"))
    assert [row["reason"] for row in rows(latin, tables.operations)][-1] == "Ночь 🌙"
    assert {row["error"] for row in rows(latin, tables.failures)} == {'{"message":"Ночь 🌙"}'}


def fail_with_a_moon(database: Database) -> list[int]:
    ids = add_jobs(database, *plain_jobs(2))
    die(database)
    with database.write() as connection:
        connection.execute(update(tables.failed).values(error='{"message":"Ночь 🌙"}'))
    return list(ids)


@pytest.mark.only_on("mariadb")
def test_solid_queues_tables_in_latin1_are_a_finding_and_no_letter_becomes_a_question_mark(own: Database) -> None:
    execute(own.url, "ALTER TABLE solid_queue_failed_executions CONVERT TO CHARACTER SET latin1")
    (finding,) = findings(own, "characters")
    assert "solid_queue_failed_executions is latin1" in finding.what
    add_jobs(own, *plain_jobs(1))
    die(own)
    with pytest.raises(ValueRefusedError), own.write() as connection:
        connection.execute(update(tables.failed).values(error="Ночь"))


@pytest.mark.only_on("mariadb")
def test_sessions_are_strict_and_in_utc_whatever_the_server_says(own: Database) -> None:
    with own.read() as connection:
        mode, zone = connection.execute(text("SELECT @@SESSION.sql_mode, @@SESSION.time_zone")).one()
    assert {"STRICT_ALL_TABLES", "STRICT_TRANS_TABLES"} <= set(mode.split(","))
    assert "ANSI_QUOTES" not in mode
    assert zone == "+00:00"
