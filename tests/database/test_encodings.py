"""PostgreSQL databases in other encodings than UTF-8."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import text, update
from sqlalchemy.engine import URL

from solidjq import Database
from solidjq.database import tables
from solidjq.database.encodings import storable
from solidjq.database.setup import initialize
from solidjq.database.urls import url_text
from solidjq.queue import endings
from solidjq.rails.error_text import error_json, parse_error
from support.deaths import die
from support.processes import add_process
from support.program import Shell
from support.queue import add_jobs, claim_all, plain_jobs, rows
from support.servers import execute


@pytest.fixture(params=["SQL_ASCII", "LATIN1", "EUC_JP"])
def encoded(request: pytest.FixtureRequest, postgresql_server: URL, worker_name: str) -> Iterator[Database]:
    name = f"encoded_{worker_name}"
    encoding = f"TEMPLATE template0 ENCODING '{request.param}' LC_COLLATE 'C' LC_CTYPE 'C'"
    execute(postgresql_server, f"CREATE DATABASE {name} {encoding}")
    database = Database(postgresql_server.set(database=name))
    yield database
    database.close()
    execute(postgresql_server, f"DROP DATABASE {name} WITH (FORCE)")


def test_every_text_is_stored_and_read(encoded: Database, tmp_path: Path) -> None:
    initialize(encoded)
    add_jobs(encoded, *plain_jobs(1))
    worker = add_process(encoded)
    claim_all(encoded, worker)
    error = error_json("ArgumentError", "Ночь 🌙 é 夜")
    encoded.transact(endings.fail, endings.claims_of(worker), error)
    assert {parse_error(row["error"]).message for row in rows(encoded, tables.failed)} == {"Ночь 🌙 é 夜"}
    ours = Shell(url_text(encoded.url), tmp_path)
    for arguments in (("doctor",), ("failed", "list"), ("retry", "1", "--yes", "--reason", "Ночь 夜")):
        done = ours.run(*arguments)
        assert done.returncode in {0, 6}, done.stderr  # 6: the doctor finds that fsync is off
        assert "unexpected" not in done.stderr
    assert rows(encoded, tables.failed) == []
    (operation,) = rows(encoded, tables.operations)
    assert operation["reason"] in {"Ночь 夜", storable("Ночь 夜", "latin-1")}


def test_bytes_that_are_no_utf8_stop_no_command(encoded: Database, tmp_path: Path) -> None:
    initialize(encoded)
    add_jobs(encoded, *plain_jobs(1))
    die(encoded)
    with encoded.write() as connection:
        if connection.scalar(text("SHOW server_encoding")) != "SQL_ASCII":
            return
        error = b'{"exception_class":"E","message":"\xe9"}'.hex()
        convert = text(f"convert_from('\\x{error}', 'SQL_ASCII')")
        connection.execute(update(tables.failed).values(error=convert))
    ours = Shell(url_text(encoded.url), tmp_path)
    for arguments in (("failed", "list"), ("incidents", "list"), ("retry", "1", "--yes")):
        done = ours.run(*arguments)
        assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("stored", "codec", "expected"),
    [
        ("plain", "latin-1", "plain"),
        ("é", "latin-1", "é"),
        ("яé🌙", "latin-1", r"\u044fé\ud83c\udf19"),
        ("é", "ascii", r"\u00e9"),
        ("\ud800", "latin-1", r"\ud800"),
    ],
)
def test_what_an_encoding_lacks_is_escaped_as_in_json(stored: str, codec: str, expected: str) -> None:
    assert storable(stored, codec) == expected
