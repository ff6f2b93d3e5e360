"""--read-only, proven on every command that there is: nothing changes, whatever the command."""

import json
import subprocess
import sys
from itertools import chain
from pathlib import Path

import pytest
from sqlalchemy import inspect, text
from sqlalchemy.engine import URL

from solidjq import Database
from solidjq.database import tables as database_tables
from solidjq.database.urls import url_text
from solidjq.errors import DatabaseError, RefusedError
from solidjq.recovery import plans
from solidjq.recovery.retry import plan
from solidjq.recovery.terms import RetryTerms, Selection
from solidjq_cli import session
from solidjq_cli.command_tree import tree
from solidjq_cli.exits import Exit
from support.commands import ELSEWHERE, leaves, run
from support.every_command import COMMANDS, PLAN
from support.program import Shell
from support.queue import add_jobs, plain_jobs, rows
from support.scenes import something_for_every_command
from support.servers import connected


def test_no_command_is_forgotten() -> None:
    named = {next((leaf for leaf in leaves(tree()) if command.startswith(leaf)), command) for command in COMMANDS}
    assert named == leaves(tree()) - ELSEWHERE


@pytest.fixture
def names(database: Database) -> dict[str, object]:
    return something_for_every_command(database)


def everything(database: Database) -> dict[str, object]:
    with connected(database.url) as connection:
        found: dict[str, object] = {"tables": sorted(inspect(connection).get_table_names())}
    tables = [*database_tables.solid_queue.sorted_tables, *database_tables.jq.sorted_tables]
    return {**found, **{table.name: rows(database, table) for table in tables}}


@pytest.mark.parametrize("way", [["--read-only"], ["--profile", "looking"]], ids=["option", "profile"])
def test_no_command_changes_anything(
    database: Database,
    queue_url: URL,
    names: dict[str, object],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    way: list[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("JQ_DATABASE_URL", url_text(queue_url))
    written = f"[profiles.looking]\ndatabase = {json.dumps(url_text(queue_url))}\nread_only = true\n"
    monkeypatch.setenv("JQ_CONFIG", "own.toml")
    Path("own.toml").write_text(written)
    decisions = chain.from_iterable(plan(database, Selection(job_ids=[int(str(names["failed"]))])))
    assert plans.write(Path(PLAN), database.identity(), RetryTerms(), decisions) == 1
    before = everything(database)
    ended = {}
    for command in COMMANDS:
        ended[command] = run([*way, *command.format(**names).split()])
        session.close()  # a program would have ended
        told = capsys.readouterr().err
        if "opened read-only; nothing" in told:
            assert f"jq {next(leaf for leaf in leaves(tree()) if command.startswith(leaf))}" in told
    assert everything(database) == before
    assert ended == {command: int(code) for command, code in COMMANDS.items()}


def test_the_database_itself_refuses(database: Database, queue_url: URL) -> None:
    """Our own refusal comes first; behind it stands the database's."""
    (job_id,) = add_jobs(database, *plain_jobs(1))
    guarded = Database(queue_url, read_only=True)
    with pytest.raises(RefusedError, match="read-only"), guarded.write():
        pass
    with pytest.raises(DatabaseError), guarded.read() as connection:
        connection.execute(database_tables.jobs.update().values(queue_name="changed"))
    assert [row["queue_name"] for row in rows(guarded, database_tables.jobs) if row["id"] == job_id] == ["default"]
    guarded.close()


@pytest.mark.sqlite_only
def test_no_file_is_made(shell: Shell, tmp_path: Path) -> None:
    home = tmp_path / "home"
    shell.environment |= {"JQ_READ_ONLY": "1", "XDG_STATE_HOME": str(home), "HOME": str(home)}
    embedded = {key: value for key, value in shell.env().items() if key != "JQ_DATABASE_URL"}
    done = subprocess.run(
        [sys.executable, "-m", "solidjq_cli", "failed", "list"],
        env=embedded,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == Exit.USAGE
    assert "no database is named" in done.stderr
    assert not home.exists()


# -- --schema


@pytest.mark.only_on("postgresql")
def test_a_queue_in_a_schema_of_its_own(database: Database, shell: Shell) -> None:
    with database.write() as connection:
        connection.execute(text('CREATE SCHEMA "the jobs"'))
    assert shell.run("--schema", "the jobs", "init").returncode == 0
    shell.environment["JQ_SCHEMA"] = "the jobs"
    done = shell.run("enqueue", "ReportJob", "-o", "ids")
    assert done.returncode == 0, done.stderr
    with database.read() as connection:
        tables = inspect(connection).get_table_names("the jobs")
        assert connection.scalar(text('SELECT count(*) FROM "the jobs".solid_queue_jobs')) == 1
    assert {"solid_queue_jobs", "jq_operations"} <= set(tables)
    assert rows(database, database_tables.jobs) == []
    with database.write() as connection:
        connection.execute(text('DROP SCHEMA "the jobs" CASCADE'))


@pytest.mark.only_on("postgresql")
def test_the_schema_of_a_profile(database: Database, shell: Shell) -> None:
    with database.write() as connection:
        connection.execute(text("CREATE SCHEMA jobs"))
    shell.environment["JQ_CONFIG"] = "own.toml"
    (shell.folder / "own.toml").write_text(f'[profiles.a]\ndatabase = {json.dumps(shell.url)}\nschema = "jobs"\n')
    assert shell.run("--profile", "a", "init").returncode == 0
    with database.write() as connection:
        assert "solid_queue_jobs" in inspect(connection).get_table_names("jobs")
        connection.execute(text("DROP SCHEMA jobs CASCADE"))


@pytest.mark.only_on("sqlite", "mariadb")
def test_a_schema_where_there_are_none(shell: Shell, kind: str) -> None:
    done = shell.run("--schema", "x", "queues", "list")
    assert done.returncode == Exit.USAGE
    assert ("name it in the URL" if kind == "mariadb" else "only PostgreSQL") in done.stderr
