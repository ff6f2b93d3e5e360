"""What jq grants prints is enough for what it promises, and for nothing else."""

import json
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import create_engine, event, text
from sqlalchemy.engine import URL
from sqlalchemy.exc import DBAPIError

from solidjq import Database
from solidjq.database import grants
from solidjq.database import tables as database_tables
from solidjq.database.grants import Purpose
from solidjq.database.setup import initialize
from solidjq.database.urls import parse_url, url_text
from solidjq.doctor import examine as doctor
from solidjq.errors import AccessDeniedError, UsageError
from solidjq.ledger import archive, chain, operations
from solidjq.ledger.operations import Operation
from solidjq.processes import pruning
from solidjq.queue import pauses
from solidjq.queue.states import State
from solidjq.rails.error_text import missing_error
from solidjq.recovery import undo as recovery_undo
from solidjq_cli.commands.grants import For
from support.doctor import fix
from support.long_jobs import add_long_job, save
from support.processes import add_process, fail_orphans, silence
from support.program import PASSWORD, Shell, assert_refused
from support.queue import claim_all, fail, plain_jobs, rows, state_of_each
from support.rails import snapshot
from support.recovery import retry_jobs
from support.scenes import (
    blocked_too_long,
    expired_semaphore,
    finished_and_failed,
    in_trouble,
    leak_slot,
    lose_slot,
    lose_state,
    orphan,
)
from support.schemas import OURS, THEIRS, definitions, make_older
from support.servers import execute

POSTGRES, MYSQL = "postgres://db.internal/app", "mysql2://db.internal/app"


@dataclass
class Someone:
    """A role that may log in, and nothing else yet."""

    name: str  # as jq grants takes it
    url: URL
    shell: Shell  # as this role
    administrator: URL

    def allow(self, purpose: str) -> None:
        """Do exactly what jq grants prints for it."""
        url = url_text(self.administrator)
        printed = self.shell.run("grants", self.name, "--for", purpose, "--database", url)
        assert (printed.returncode, printed.stderr) == (0, "")
        execute(self.administrator, *sql(printed.stdout))

    def refused(self, statement: str) -> bool:
        """Tell whether the server does not let this role do it."""
        engine = create_engine(self.url)
        try:
            with engine.begin() as connection:
                connection.execute(text(statement))
        except DBAPIError as error:
            return re.search("denied|must be owner", str(error.orig)) is not None
        finally:
            engine.dispose()
        return False


def sql(printed: str) -> list[str]:
    """Take a script apart."""
    lines = [line for line in printed.splitlines() if line and not line.startswith("--")]
    return [statement for statement in re.split(r";(?:\n|$)", "\n".join(lines)) if statement]


Make = Callable[[URL], Someone]


@pytest.fixture
def make_someone(kind: str, tmp_path: Path) -> Iterator[Make]:
    """Make a role of a server, with a name that must be quoted."""
    undo: list[tuple[URL, str]] = []

    def make(administrator: URL) -> Someone:
        quote = '"' if kind == "postgresql" else "'"
        name = f"on{quote}call; {os.getpid()}"
        grantee = f"{quote}{name.replace(quote, 2 * quote)}{quote}"
        if kind == "postgresql":
            execute(administrator, f"CREATE ROLE {grantee} LOGIN")
            undo.extend([(administrator, f"DROP OWNED BY {grantee}"), (administrator, f"DROP ROLE {grantee}")])
        else:
            execute(administrator, f"CREATE USER {grantee}@'%' IDENTIFIED BY '{PASSWORD}'")
            undo.append((administrator, f"DROP USER {grantee}@'%'"))
        url = administrator.set(username=name, password=PASSWORD)
        return Someone(name, url, Shell(url_text(url), tmp_path), administrator)

    yield make
    for administrator, statement in undo:
        execute(administrator, statement)


# -- what is printed is enough, and no more


@pytest.mark.only_on("postgresql", "mariadb")
def test_a_reader_sees_everything_and_changes_nothing(database: Database, make_someone: Make) -> None:
    failed = in_trouble(database)
    someone = make_someone(database.url)
    someone.allow("reading")
    before = snapshot(database.url)
    commands = ["failed list", f"failed show {failed}", f"jobs show {failed}", "processes list", "queues list"]
    commands += ["prune --dry-run", "operations list", f"history {failed}", f"retry {failed} --dry-run", "init"]
    for command in commands:
        done = someone.shell.run(*command.split())
        assert done.returncode == 0, (command, done.stderr)
    for command in (f"retry {failed}", "prune", "queues pause --create mailers", "enqueue A"):
        assert_refused(someone.shell.run(*command.split()), 3, "refused", "denied")
    assert snapshot(database.url) == before
    assert place_of(someone).endswith(" (read-only)")
    assert str(database.place()).endswith(" (read-write)")


def place_of(someone: Someone) -> str:
    """Name the database and what this role may do there."""
    opened = Database(someone.url)
    place = str(opened.place())
    opened.close()
    return place


@pytest.mark.only_on("postgresql", "mariadb")
def test_whoever_recovers_can_do_that_and_nothing_else(database: Database, make_someone: Make) -> None:
    failed = in_trouble(database)
    someone = make_someone(database.url)
    someone.allow("recovering")
    tenant = "ALTER TABLE solid_queue_jobs ADD COLUMN tenant varchar(20)"  # which a discard keeps
    execute(database.url, "CREATE TABLE customers (name varchar(20))", tenant)
    try:
        others = f"{failed + 1} {failed + 2}"
        commands = ["prune", f"retry {failed} {others}", "undo LAST", f"discard {failed} --yes", "undo LAST"]
        commands += [f"retry {failed} --queue-as big", "queues pause --create mailers", "queues resume mailers"]
        commands.append("failed list")
        for command in commands:
            last = str(max([row["id"] for row in rows(database, database_tables.operations)], default=0))
            done = someone.shell.run(*command.replace("LAST", last).split())
            assert done.returncode == 0, (command, done.stderr)
        assert list(state_of_each(database).values()) == [State.READY, State.FAILED, State.FAILED, State.READY]
        before = snapshot(database.url)
        for statement in (
            "DROP TABLE jq_failures",
            "DROP TABLE solid_queue_jobs",
            "CREATE TABLE mine (id integer)",
            "SELECT * FROM customers",
            "DELETE FROM solid_queue_recurring_tasks",
            "DELETE FROM jq_schema_migrations",
            "INSERT INTO solid_queue_claimed_executions (job_id, created_at) VALUES (1, '2026-01-01')",
        ):
            assert someone.refused(statement), statement
        assert snapshot(database.url) == before
    finally:
        execute(database.url, "DROP TABLE customers", "ALTER TABLE solid_queue_jobs DROP COLUMN tenant")


UNALTERABLE = {
    "jq_operations": (
        "id",
        "verb",
        "actor",
        "database_role",
        "ci_job",
        "command",
        "reason",
        "filter",
        "plan",
        "created_at",
    ),
    "jq_failures": ("id", "failure_id", "job_id", "error", "arguments", "class_name", "operation_id", "archived_at"),
    "jq_crashes": ("subject", "job_id", "crashed_at", "evidence"),
    "jq_deaths": ("id", "evidence", "noticed_at"),
    "jq_chain": ("position", "operation_id", "hash", "previous_hash", "failures_hash", "sealed_at"),
}


@pytest.mark.only_on("postgresql", "mariadb")
def test_whoever_recovers_can_only_append_to_the_record(database: Database, make_someone: Make) -> None:
    failed = in_trouble(database)
    runs = [
        {"id": claim["job_id"], "since": "2026-11-23T04:40:00+00:00", "rss": 10}
        for claim in rows(database, database_tables.claimed)
    ]
    sampled = {"sample": {"jobs": runs, "rss": 20}}
    with database.write() as connection:
        connection.execute(database_tables.processes.update().values(metadata=json.dumps(sampled)))
    someone = make_someone(database.url)
    _allow_as_earlier_versions_did(someone)
    someone.allow("recovering")
    for command in ("prune", f"retry {failed}", "undo LAST", f"discard {failed} --yes", "recover", "operations verify"):
        last = str(max([row["id"] for row in rows(database, database_tables.operations)], default=0))
        done = someone.shell.run(*command.replace("LAST", last).split())
        assert (done.returncode, "not sealed" in done.stderr) == (0, False), (command, done.stderr)
    grown = [row["growth"] for row in rows(database, database_tables.crashes) if row["started_at"]]
    assert grown
    assert set(grown) == {10}
    before = snapshot(database.url)
    for table, columns in UNALTERABLE.items():
        for column in columns:
            assert someone.refused(f"UPDATE {table} SET {column} = {column}"), (table, column)  # noqa: S608
        assert someone.refused(f"DELETE FROM {table}")  # noqa: S608
        assert someone.refused(f"TRUNCATE TABLE {table}")
    assert snapshot(database.url) == before
    last = str(max(row["id"] for row in rows(database, database_tables.operations)))
    assert someone.refused("UPDATE jq_operations SET jobs = 0") is False
    forged = someone.shell.run("operations", "verify")
    assert (forged.returncode, f"operation {last}, or its link, was changed" in forged.stdout) == (5, True)


@pytest.mark.only_on("postgresql", "mariadb")
def test_a_role_of_an_older_version_counts_crashes_of_long_jobs(database: Database, make_someone: Make) -> None:
    job_id = add_long_job(database)
    save(database, job_id, "import", 5)
    worker = add_process(database)
    claim_all(database, worker)
    silence(database, worker, 9000)
    someone = make_someone(database.url)
    someone.allow("recovering")
    name = someone.name.replace('"', '""')
    role = f'"{name}"' if database.url.get_backend_name() == "postgresql" else _account(someone)
    execute(database.url, f"REVOKE UPDATE (progress, saved_at) ON jq_crashes FROM {role}")
    done = someone.shell.run("prune")
    assert done.returncode == 0, done.stderr
    (crash,) = rows(database, database_tables.crashes)
    assert (crash["job_id"], crash["progress"]) == (job_id, None)


@pytest.mark.only_on("mariadb")
def test_a_record_that_a_role_may_not_read_is_not_taken_for_a_missing_one(
    database: Database, make_someone: Make
) -> None:
    """MySQL lists no table on which a role has no right."""
    someone = make_someone(database.url)
    theirs = [table.name for table in database_tables.solid_queue.sorted_tables]
    execute(database.url, *(f"GRANT ALL ON {name} TO {_account(someone)}" for name in theirs))
    opened = Database(someone.url)
    with pytest.raises(AccessDeniedError, match="jq_deaths"), opened.read() as connection:
        operations.exists(connection)
    opened.close()


def _allow_as_earlier_versions_did(someone: Someone) -> None:
    """Let a role rewrite the record; on PostgreSQL the next grants take that away again."""
    if someone.administrator.get_backend_name() == "postgresql":
        name = someone.name.replace('"', '""')
        tables = ", ".join(UNALTERABLE)
        execute(someone.administrator, f'GRANT SELECT, INSERT, UPDATE ON {tables} TO "{name}"')


DAMAGES = {
    "no-state": lose_state,
    "finished-and-failed": finished_and_failed,
    "orphans": orphan,
    "leaked-slots": leak_slot,
    "short-slots": lose_slot,
    "expired-semaphores": expired_semaphore,
    "blocked-jobs": blocked_too_long,
}


def test_all_that_can_be_fixed_is_tried() -> None:
    assert {check.name for check in doctor.CHECKS if check.fix is not None} == DAMAGES.keys()


@pytest.mark.only_on("postgresql", "mariadb")
@pytest.mark.parametrize("check", DAMAGES)
def test_whoever_recovers_can_mend_what_the_doctor_finds(database: Database, make_someone: Make, check: str) -> None:
    DAMAGES[check](database)
    someone = make_someone(database.url)
    someone.allow("recovering")
    done = someone.shell.run("doctor", check, "--fix", "--yes")
    assert (done.returncode, f"{check}: fixed " in done.stderr) == (0, True), done.stderr


@pytest.mark.only_on("postgresql", "mariadb")
def test_whoever_may_init_makes_our_tables_beside_solid_queues(empty_url: URL, make_someone: Make) -> None:
    administrator = Database(empty_url)
    administrator.transact(database_tables.solid_queue.create_all)
    before = definitions(administrator)
    someone = make_someone(empty_url)
    someone.allow("init")
    done = someone.shell.run("init")
    assert (done.returncode, done.stdout) == (0, "")
    assert {line.split()[-1] for line in done.stderr.splitlines()[:-1]} == OURS
    assert set(definitions(administrator)) == OURS | THEIRS
    assert {name: definitions(administrator)[name] for name in before} == before
    assert someone.shell.run("init").stderr.endswith("was ready; nothing to do\n")
    assert someone.refused("DROP TABLE solid_queue_jobs")
    assert someone.refused("INSERT INTO solid_queue_pauses (queue_name, created_at) VALUES ('a', now())")
    administrator.close()


@pytest.mark.only_on("postgresql", "mariadb")
@pytest.mark.parametrize("purpose", [Purpose.READING, Purpose.RECOVERING])
def test_the_server_has_granted_exactly_what_is_listed(
    kind: str, database: Database, make_someone: Make, purpose: Purpose
) -> None:
    someone = make_someone(database.url)
    someone.allow(purpose.value)
    query = (
        "SELECT table_name, privilege_type FROM information_schema.role_table_grants WHERE grantee = :who"
        if kind == "postgresql"
        else "SELECT table_name, privilege_type FROM information_schema.table_privileges "
        "WHERE grantee = concat('''', :who, '''@''%''')"
    )
    with database.read() as connection:
        granted = {tuple(row) for row in connection.execute(text(query), {"who": someone.name})}
    tables = [*database_tables.solid_queue.sorted_tables, *database_tables.jq.sorted_tables]
    assert granted == {
        (table.name, right)
        for table in tables
        for right in grants.table_rights(purpose, table, upsert=kind == "mariadb")
    }
    assert ("solid_queue_jobs", "SELECT") in granted


@pytest.mark.only_on("postgresql")
def test_every_right_to_write_is_one_that_a_move_uses(database: Database) -> None:
    """On PostgreSQL the statements of all moves, one by one, against the list."""
    used: set[tuple[str, str]] = set()
    patterns = {
        "INSERT": r"^INSERT INTO (?:public\.)?(\w+)",
        "UPDATE": r"^UPDATE (?:public\.)?(\w+)|FROM (?:public\.)?(\w+)\b.*FOR UPDATE",
        "DELETE": r"^DELETE FROM (?:public\.)?(\w+)",
    }

    def listen(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        for right, pattern in patterns.items():
            if found := re.search(pattern, " ".join(statement.split())):
                used.add((next(filter(None, found.groups())), right))

    failed = in_trouble(database)
    with database.write() as connection:
        connection.execute(database_tables.jobs.update().values(arguments='{"executions":4}'))
    event.listen(database._reader, "before_cursor_execute", listen)
    pruning_of = Operation("prune")
    assert list(pruning.prune(database, 300, record=pruning_of.record))
    assert fail_orphans(database) == []
    ran = Operation("retry")
    retry_jobs(database, [failed, failed + 1, failed + 2], ran)
    assert ran.id is not None
    assert list(recovery_undo.undo(database, ran.id, Operation("undo")))
    chain.seal(database, [ran.id])
    gone = Operation("discard")
    retry_jobs(database, [failed], gone, discard=True)
    assert gone.id is not None
    assert list(recovery_undo.undo(database, gone.id, Operation("undo")))
    retry_jobs(database, [failed], interval=1.0)
    database.transact(pauses.pause, "mailers")
    database.transact(pauses.resume, "mailers")
    event.remove(database._reader, "before_cursor_execute", listen)
    for check in ("blocked-jobs", "expired-semaphores"):
        DAMAGES[check](database)
        event.listen(database._reader, "before_cursor_execute", listen)
        fix(database, check)
        event.remove(database._reader, "before_cursor_execute", listen)
    listed = {
        (table.name, right)
        for table in database_tables.solid_queue.sorted_tables
        for right in grants.table_rights(Purpose.RECOVERING, table)
        if right != "SELECT"
    }
    assert {each for each in used if each[0] in THEIRS} == listed
    assert {name for name, _ in used} - THEIRS == OURS - {database_tables.schema_migrations.name}


@pytest.mark.only_on("postgresql")
def test_tables_in_a_schema_of_their_own(empty_url: URL, make_someone: Make) -> None:
    execute(empty_url, 'CREATE SCHEMA "the-queue"')
    url = parse_url(url_text(empty_url) + '&schema_search_path="the-queue",public')
    database = Database(url)
    initialize(database)
    fail(database, *plain_jobs(1), error=missing_error())
    someone = make_someone(url)
    someone.allow("recovering")
    done = someone.shell.run("retry", "1")
    assert done.returncode == 0, done.stderr
    database.close()


# -- names


@pytest.mark.parametrize(
    ("url", "role"),
    [
        *((url, role) for url in (POSTGRES, MYSQL) for role in ("", " ", "a\nb", "a\x1b[2J", "a\u202eb", "a\x00b")),
        (POSTGRES, "public"),
        (POSTGRES, "none"),
        (POSTGRES, "r" * 64),
        (POSTGRES, "ž" * 32),
        (MYSQL, "@host"),
        (MYSQL, "app@"),
        (MYSQL, "a\\"),
        (MYSQL.removesuffix("app"), "app"),
        (f"{MYSQL}%0Aapp", "app"),
        (f"{POSTGRES}%0Aapp", "app"),
    ],
)
@pytest.mark.parametrize("purpose", Purpose)
def test_a_name_that_would_mean_something_else_is_refused(url: str, role: str, purpose: Purpose) -> None:
    with pytest.raises(UsageError, match=r"cannot be|is no MySQL account|names no database"):
        grants.statements(parse_url(url), role, purpose)


@pytest.mark.parametrize(
    ("url", "role", "grantee"),
    [
        (POSTGRES, "app", '"app"'),
        (POSTGRES, 'a"; DROP TABLE x; --', '"a""; DROP TABLE x; --"'),
        (POSTGRES, "App@db", '"App@db"'),
        (MYSQL, "app", "'app'@'%'"),
        (MYSQL, "app@10.0.0.%", "'app'@'10.0.0.%'"),
        (MYSQL, "a@b@localhost", "'a@b'@'localhost'"),
        (MYSQL, "a'; DROP TABLE x; --", "'a''; DROP TABLE x; --'@'%'"),
    ],
)
@pytest.mark.parametrize("purpose", Purpose)
def test_a_name_is_quoted(url: str, role: str, grantee: str, purpose: Purpose) -> None:
    found = grants.statements(parse_url(url), role, purpose)
    assert found
    assert [each for each in found if not each.endswith((f"TO {grantee};", f"FROM {grantee};"))] == []


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ("", "public"),
        ("?options=-csearch_path%3Dqueue,public", "queue"),
        ("?options=-c%20statement_timeout%3D5s%20-c%20search_path%3D%22$user%22,Queue", "queue"),
        ("?options=-csearch_path%3D%22My%5C%20%22%22Queue%22", 'My ""Queue'),
        ("?options=--search_path%3Da%20-csearch_path%3Db", "b"),
        ("?schema_search_path=queue,%20public", "queue"),
    ],
)
def test_the_schema_is_the_one_that_the_url_searches_first(options: str, name: str) -> None:
    url = parse_url(POSTGRES + options)
    assert f'GRANT USAGE ON SCHEMA "{name}" TO "app";' in grants.statements(url, "app", Purpose.READING)


@pytest.mark.sqlite_only
def test_without_for_all_is_printed_below_headings(shell: Shell) -> None:
    each = [shell.run("grants", "app", "--for", name.value, "-d", MYSQL).stdout for name in Purpose]
    everything = shell.run("grants", "app", "-d", MYSQL)
    assert (everything.returncode, everything.stderr) == (0, "")
    assert everything.stdout == "\n".join(each)
    assert all(text.startswith("-- ") for text in each)
    assert [name.value for name in For] == [name.value for name in Purpose]


@pytest.mark.sqlite_only
def test_sqlite_says_what_decides_instead(shell: Shell) -> None:
    done = shell.run("grants", "app")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", f"jq: {grants.OF_FILES}\n")
    assert_refused(shell.run("grants", "a\nb"), 2, "cannot be named")


# -- jq init by somebody who may not


def shown_grant(kind: str, someone: Someone) -> str:
    if kind == "postgresql":
        return 'GRANT CREATE ON SCHEMA "public" TO "on""call; '
    return f"GRANT SELECT, CREATE, ALTER, INSERT, INDEX ON `{someone.url.database}`.`jq_chain` TO 'on''call; "


@pytest.mark.only_on("postgresql", "mariadb")
@pytest.mark.parametrize("has", [THEIRS, set()], ids=["a queue of Rails", "no table"])
def test_an_init_that_is_refused_names_the_grant_and_makes_nothing(
    kind: str, empty_url: URL, make_someone: Make, has: set[str]
) -> None:
    if has:
        administrator = Database(empty_url)
        administrator.transact(database_tables.solid_queue.create_all)
        administrator.close()
    before = snapshot(empty_url)
    someone = make_someone(empty_url)
    if kind == "postgresql":
        execute(empty_url, "REVOKE CREATE ON SCHEMA public FROM PUBLIC")  # the default since PostgreSQL 15
    elif has:
        execute(empty_url, *(f"GRANT SELECT ON {name} TO {_account(someone)}" for name in before))
    told = someone.shell.run("init")
    assert_refused(told, 3, "may not create tables in", "enied", "ask for: ", shown_grant(kind, someone))
    assert_refused(told, 3, "jq grants ", "--for init --database ", "or let an administrator run: jq init")
    assert "LINE" not in told.stderr
    assert snapshot(empty_url) == before
    if has:
        someone.allow("init")
        assert someone.shell.run("init").returncode == 0
        assert set(snapshot(empty_url)) == OURS | THEIRS


def _account(someone: Someone) -> str:
    return f"'{someone.name.replace(chr(39), 2 * chr(39))}'@'%'"


@pytest.mark.only_on("postgresql")
def test_a_schema_that_may_not_even_be_looked_into(empty_url: URL, make_someone: Make) -> None:
    someone = make_someone(empty_url)
    execute(empty_url, "REVOKE ALL ON SCHEMA public FROM PUBLIC")
    assert_refused(someone.shell.run("init"), 3, "may not create tables in", 'GRANT CREATE ON SCHEMA "public" TO')


@pytest.mark.only_on("mariadb")
def test_whoever_may_init_brings_an_older_record_up_to_date(empty_url: URL, make_someone: Make) -> None:
    administrator = Database(empty_url)
    initialize(administrator)
    make_older(administrator)
    someone = make_someone(empty_url)
    someone.allow("init")
    done = someone.shell.run("init")
    assert done.returncode == 0, done.stderr
    with administrator.read() as connection:
        assert archive.has_more_column(connection)
    administrator.close()


@pytest.mark.only_on("mariadb")
def test_an_init_that_was_refused_half_way_is_completed_by_the_next(empty_url: URL, make_someone: Make) -> None:
    """There each CREATE is committed by itself, the table with its indexes."""
    administrator = Database(empty_url)
    initialize(administrator)
    complete = definitions(administrator)
    administrator.transact(database_tables.jq.drop_all)
    someone = make_someone(empty_url)
    reading = [f"GRANT SELECT ON {name} TO {_account(someone)}" for name in THEIRS]
    execute(empty_url, *reading, f"GRANT SELECT, CREATE ON jq_chain TO {_account(someone)}")
    assert_refused(someone.shell.run("init"), 3, "may not create tables in", "CREATE command denied", "ask for: GRANT")
    assert set(definitions(administrator)) == THEIRS | {"jq_chain"}
    someone.allow("init")
    done = someone.shell.run("init")
    assert done.returncode == 0, done.stderr
    assert definitions(administrator) == complete
    administrator.close()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read and write any file")
def test_a_folder_that_may_not_be_written_is_named(tmp_path: Path) -> None:
    folder = tmp_path / "queues"
    folder.mkdir()
    folder.chmod(0o555)
    done = Shell(str(folder / "queue.sqlite3"), tmp_path).run("init")
    assert_refused(done, 3, f"ask for the right to write to {folder}")
    assert list(folder.iterdir()) == []
