"""Servers, databases and roles whose settings change what statements mean: every command works as everywhere else."""

from collections.abc import Callable
from pathlib import Path

import pytest
from compatibility import FIRST
from sqlalchemy import text
from sqlalchemy.engine import URL

from solidjq import Database
from solidjq.database.urls import url_text
from solidjq.doctor.checks import DoctorTerms, Severity
from solidjq.doctor.mysql import find_isolation
from solidjq.ledger.operations import Operation
from solidjq_cli.exits import Exit
from support.environments import make, run_every_command
from support.servers import execute, mariadb, mariadb_programs, missing_program, server_folder

ON_POSTGRESQL = (
    "default_transaction_isolation = serializable",
    "default_transaction_deferrable = on",
    "standard_conforming_strings = off",
    "backslash_quote = on",
    "escape_string_warning = on",
    "row_security = off",
    "transform_null_equals = on",
    "datestyle = 'German, DMY'",
    "intervalstyle = sql_standard",
    "bytea_output = escape",
    "timezone = 'Asia/Kathmandu'",
    "lc_messages = 'C'",
    "extra_float_digits = -15",
    "statement_timeout = '20s'",
    "lock_timeout = '10s'",
    "idle_in_transaction_session_timeout = '20s'",
    "enable_seqscan = off",
    "client_min_messages = debug1",
    "quote_all_identifiers = on",
)
ON_MARIADB = (
    "--sql-mode=ANSI_QUOTES,PIPES_AS_CONCAT,NO_BACKSLASH_ESCAPES,NO_ZERO_DATE,ONLY_FULL_GROUP_BY,IGNORE_SPACE",
    "--transaction-isolation=SERIALIZABLE",
    "--group-concat-max-len=4",
    "--character-set-server=latin1",
    "--collation-server=latin1_general_cs",
    "--default-time-zone=+05:45",
    "--innodb-lock-wait-timeout=20",
    "--innodb-strict-mode=OFF",
    "--tmp-table-size=1024",
    "--lower-case-table-names=1",
    "--sort-buffer-size=1024",
)
MOST_WRITE = 10  # of the commands
REMEDY = "let an administrator run: SET GLOBAL binlog_format = MIXED"

Run = Callable[[URL], list[tuple[object, object]]]


@pytest.fixture
def commands_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run every command on a queue in this database, and return how those ended that did not end as they should."""
    monkeypatch.chdir(tmp_path)

    def run(url: URL) -> list[tuple[object, object]]:
        monkeypatch.setenv("JQ_DATABASE_URL", url_text(url))
        ended = run_every_command(url, make(url, FIRST), FIRST, monkeypatch, capsys)
        return [(each.outcome, each.expected) for each in ended if each.outcome != each.expected]

    return run


@pytest.mark.only_on("postgresql")
def test_settings_of_a_postgresql_database(empty_url: URL, commands_run: Run) -> None:
    execute(empty_url, *(f"ALTER DATABASE {empty_url.database} SET {setting}" for setting in ON_POSTGRESQL))
    assert commands_run(empty_url) == []


@pytest.mark.only_on("mariadb")
@pytest.mark.parametrize("collation", ["utf8mb4_unicode_ci", "utf8mb4_bin", "latin1_general_cs"])
def test_collation_of_a_mariadb_database(empty_url: URL, commands_run: Run, collation: str) -> None:
    """Rails' own database.yml may name any; that of the session is another."""
    character_set = collation.partition("_")[0]
    execute(empty_url, f"ALTER DATABASE {empty_url.database} CHARACTER SET {character_set} COLLATE {collation}")
    assert commands_run(empty_url) == []


def test_settings_of_a_mariadb_server(commands_run: Run) -> None:
    if missing := missing_program(mariadb_programs()):
        pytest.skip(f"{missing} is not installed")
    with server_folder("odd") as folder, mariadb(*ON_MARIADB, folder=folder) as server:
        execute(server, "CREATE DATABASE `Odd-1`")
        url = server.set(database="Odd-1")
        assert commands_run(url) == []
        # MySQL calls it on to the driver, which then never switches it on: statements that commit alone would be lost.
        execute(server, "SET GLOBAL autocommit = 0")
        database = Database(url)
        with database.outside_transactions() as connection:
            assert connection.scalar(text("SELECT @@autocommit")) == 1
        with database.write() as connection:
            assert connection.scalar(text("SELECT @@autocommit")) == 0
        database.close()


def test_a_binary_log_by_statement(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every writing command says in one line what to change, and has changed nothing; then all of them work."""
    if missing := missing_program(mariadb_programs()):
        pytest.skip(f"{missing} is not installed")
    monkeypatch.chdir(tmp_path)
    log = ("--log-bin=log", "--server-id=1", "--binlog-format=MIXED")
    with server_folder("log") as folder, mariadb(*log, folder=folder) as server:
        execute(server, "CREATE DATABASE queue")
        url = server.set(database="queue")
        monkeypatch.setenv("JQ_DATABASE_URL", url_text(url))
        names = make(url, FIRST)
        execute(server, "SET GLOBAL binlog_format = STATEMENT")
        ended = run_every_command(url, names, FIRST, monkeypatch, capsys)
        writing = {command for _, (command, _, changes, *_) in ended if changes}
        refused = {command: (code, told) for (command, code, *_, told), _ in ended if REMEDY in str(told)}
        assert writing - refused.keys() == set()
        assert len(writing) > MOST_WRITE
        assert [command for (command, _, changed, *_), _ in ended if changed] == []
        doctor = refused.pop("doctor orphans --fix --yes")  # which goes on with its other checks
        assert doctor[0] == Exit.PARTLY
        assert {(code, str(told).count(REMEDY)) for code, told in refused.values()} == {(Exit.DATABASE, 1)}
        database = Database(url)
        with database.read() as connection:
            (finding, *_) = find_isolation(connection, DoctorTerms())
        database.close()
        assert (finding.severity, "binlog_format is STATEMENT" in finding.what) == (Severity.ERROR, True)
        execute(server, "SET GLOBAL binlog_format = MIXED")
        ended = run_every_command(url, names, FIRST, monkeypatch, capsys)
        assert [(each.outcome, each.expected) for each in ended if each.outcome != each.expected] == []
        execute(server, "SET GLOBAL binlog_format = ROW")
        database = Database(url)
        assert database.transact(Operation("prune").record, 1)
        database.close()
