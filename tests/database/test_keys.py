"""Queues whose keys jq cannot read: UUIDs, and claims that name their process by its name."""

from datetime import UTC, datetime
from pathlib import Path

import pytest
from sqlalchemy import BigInteger, Connection, MetaData, String, Uuid
from sqlalchemy.engine import URL

from solidjq import Database
from solidjq.database import tables
from solidjq.database.urls import url_text, with_schema
from solidjq.errors import NotAQueueError
from solidjq_cli import session
from solidjq_cli.exits import Exit
from support.commands import run
from support.environments import contents
from support.every_command import COMMANDS, ON_TERMINALS, PLAN, PLUGINS
from support.processes import add_process
from support.program import Shell, assert_refused
from support.queue import add_jobs, claim_all, plain_jobs
from support.servers import connected, execute

# As Rails makes them with primary_key_type: :uuid.
KEY = String(36).with_variant(Uuid(as_uuid=False), "postgresql")
ID = "0b8e9c1a-0f6a-4c0e-9d56-2f7c2f6d5a10"
# These read no database, or a file first.
BESIDES = {"policy show", "profiles list", "completions bash", "grants somebody", f"apply {PLAN}"}


def make_uuid_queue(connection: Connection) -> None:
    """Create Solid Queue's tables with UUIDs for keys, and a job that is failed."""
    theirs = MetaData()
    for table in tables.solid_queue.sorted_tables:
        for column in table.to_metadata(theirs).columns:
            if isinstance(column.type, BigInteger):
                column.type, column.autoincrement = KEY, False
    theirs.create_all(connection)
    now = datetime(2026, 1, 1, tzinfo=UTC)
    job = {"id": ID, "queue_name": "default", "class_name": "PlainJob", "arguments": "{}", "active_job_id": ID}
    connection.execute(theirs.tables[tables.jobs.name].insert().values(**job, created_at=now, updated_at=now))
    connection.execute(theirs.tables[tables.failed.name].insert().values(id=ID, job_id=ID, error="{}", created_at=now))
    connection.commit()


def test_every_command_says_that_uuids_are_not_supported(
    empty_url: URL, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("JQ_DATABASE_URL", url_text(empty_url))
    monkeypatch.setenv("JQ_PRUNE_FORCE", "1")
    with connected(empty_url) as connection:
        make_uuid_queue(connection)
        before = contents(connection)
        connection.commit()
        names = {**dict.fromkeys(("failed", "retried", "held", "operation"), "1"), "death": "d1"}
        told = {}
        for command in COMMANDS.keys() - BESIDES - ON_TERMINALS:
            code = run(command.format(**names).split())
            ended = capsys.readouterr()
            told[command] = (code, ended.out, "not integers, such as UUIDs, are not supported" in ended.err, ended.err)
            session.close()
        plugins = {command: told.pop(command) for command in PLUGINS - {"check alive-file nowhere"}}
        assert {(code, "such as UUIDs, are not supported" in out) for code, out, *_ in plugins.values()} == {(3, True)}
        del told["check alive-file nowhere"]
        down = told.pop("metrics")
        assert (down[0], "solid_queue_up 0" in down[1], down[2]) == (Exit.DATABASE, True, True)
        assert [each for each in told.items() if each[1][:3] != (Exit.DATABASE, "", True)] == []
        assert contents(connection) == before


@pytest.mark.only_on("postgresql", "mariadb")
@pytest.mark.parametrize(("table", "column"), [("claimed_executions", "process_id"), ("processes", "supervisor_id")])
def test_one_uuid_is_enough(own: Database, kind: str, table: str, column: str) -> None:
    """Whoever made the tables by hand may have forgotten a column, or changed one too many."""
    change = f"ALTER {column} TYPE uuid USING NULL" if kind == "postgresql" else f"MODIFY {column} binary(16)"
    own.close()
    execute(own.url, f"ALTER TABLE solid_queue_{table} {change}")
    with pytest.raises(NotAQueueError, match=rf"solid_queue_{table}\.{column} is of type (uuid|binary)"):
        own.now()


def test_claims_that_name_their_process_are_not_pruned(own: Database, tmp_path: Path) -> None:
    """They would look like orphans: the process that holds them is not in process_id."""
    add_jobs(own, *plain_jobs(1))
    claim_all(own, add_process(own))
    own.close()
    execute(
        own.url,
        "ALTER TABLE solid_queue_claimed_executions ADD process_name varchar(255)",
        "UPDATE solid_queue_claimed_executions SET process_name = 'worker-1', process_id = NULL",
    )
    shell = Shell(url_text(own.url), tmp_path)
    for command in ("prune --force", "doctor orphans --fix --yes", "recover --force"):
        assert_refused(shell.run(*command.split()), Exit.DATABASE, "process_name", "not supported", "orphaned")
    with connected(own.url) as connection:
        assert contents(connection)["solid_queue_failed_executions"] == []


@pytest.mark.only_on("postgresql")
def test_a_queue_of_uuids_in_another_schema_is_not_in_the_way(own: Database) -> None:
    with connected(own.url) as connection:
        connection.exec_driver_sql("CREATE SCHEMA other")
        connection.exec_driver_sql("SET search_path = other")
        make_uuid_queue(connection)
    assert add_jobs(own, *plain_jobs(1))
    other = Database(with_schema(own.url, "other"))
    with pytest.raises(NotAQueueError, match="UUIDs"):
        other.now()
    other.close()
