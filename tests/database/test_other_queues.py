"""A database without a queue: the error names it, what is there, and where a queue is; jq init asks first."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import inspect
from sqlalchemy.engine import URL

from solidjq import Database
from solidjq.database import other_queues
from solidjq.database.setup import initialize
from solidjq.database.urls import parse_url, url_text, with_schema
from support.program import PASSWORD, Shell, assert_refused
from support.schemas import THEIRS
from support.servers import connected, execute
from support.terminal import terminal

OTHERS = ("CREATE TABLE users (id integer)", "CREATE TABLE orders (id integer)")


def make_queue(url: URL) -> None:
    database = Database(url)
    initialize(database)
    database.close()


def tables_of(url: URL) -> set[str]:
    with connected(url) as connection:
        return set(inspect(connection).get_table_names())


@pytest.fixture
def application(empty_url: URL) -> URL:
    """The primary database of an application, whose queue is in another."""
    execute(empty_url, *OTHERS)
    return empty_url


@pytest.mark.parametrize("command", ["failed list", "prune", "doctor", "queues pause x"])
def test_an_applications_own_database_is_named_and_no_queue_is_recommended_there(
    application: URL, tmp_path: Path, command: str
) -> None:
    done = Shell(url_text(application), tmp_path).run(*command.split())
    words = ["no Solid Queue tables here", str(application.database), "2 other tables: orders, users"]
    assert_refused(done, 3, *words)
    assert "jq init" not in done.stderr
    assert tables_of(application) == {"users", "orders"}


def test_init_beside_other_tables_needs_yes(application: URL, tmp_path: Path) -> None:
    shell = Shell(url_text(application), tmp_path)
    assert_refused(shell.run("init"), 2, str(application.database), "2 other tables: orders, users", "--yes")
    assert tables_of(application) == {"users", "orders"}
    done = shell.run("init", "--yes")
    assert done.returncode == 0, done.stderr
    assert tables_of(application) >= THEIRS
    assert shell.run("init").returncode == 0  # the queue is there now: nothing to ask


@pytest.mark.parametrize(("answer", "tables"), [("n\n", {"users", "orders"}), ("y\n", THEIRS)])
@pytest.mark.sqlite_only
def test_init_beside_other_tables_asks_on_a_terminal(
    application: URL, tmp_path: Path, answer: str, tables: set[str]
) -> None:
    shown = terminal(Shell(url_text(application), tmp_path), "init", typed=answer)
    assert "2 other tables: orders, users" in shown
    assert "make a queue beside the other tables? [y/N]" in shown
    assert tables_of(application) >= tables
    assert (answer == "y\n") or tables_of(application) == tables


@pytest.mark.only_on("postgresql")
def test_other_databases_and_schemas_are_named(
    application: URL, make_postgresql: Callable[[str], URL], tmp_path: Path
) -> None:
    elsewhere_url = make_postgresql("template1")
    make_queue(elsewhere_url)
    execute(application, "CREATE SCHEMA jobs")
    make_queue(with_schema(application, "jobs"))
    done = Shell(url_text(application.set(password=PASSWORD)), tmp_path).run("failed", "list")
    here = ("schema public", "schema jobs of this database", f"database {elsewhere_url.database}")
    assert_refused(done, 3, *here)
    assert_refused(
        Shell(url_text(with_schema(application, "none")), tmp_path).run("failed", "list"),
        3,
        'schema "none", which is not there',
        "schema jobs of this database",
    )


@pytest.mark.only_on("postgresql")
def test_a_role_names_only_what_it_may_see(
    application: URL, make_postgresql: Callable[[str], URL], tmp_path: Path
) -> None:
    hidden = make_postgresql("template1")
    make_queue(hidden)
    execute(application, "CREATE SCHEMA hidden", "DROP ROLE IF EXISTS looker", "CREATE ROLE looker LOGIN")
    make_queue(with_schema(application, "hidden"))
    execute(application, f"REVOKE CONNECT ON DATABASE {hidden.database} FROM PUBLIC")
    try:
        done = Shell(url_text(application.set(username="looker")), tmp_path).run("failed", "list")
        assert_refused(done, 3, "no Solid Queue tables here")
        assert [name for name in ("hidden", f"database {hidden.database}") if name in done.stderr] == []
    finally:
        execute(application, "DROP ROLE looker")


@pytest.mark.only_on("postgresql")
def test_a_schema_that_is_not_there_is_named_by_init(empty_url: URL, tmp_path: Path) -> None:
    shell = Shell(url_text(empty_url), tmp_path)
    assert_refused(shell.run("--schema", "none", "init"), 3, 'there is no schema "none"', 'CREATE SCHEMA "none"')


@pytest.mark.only_on("mariadb")
def test_other_databases_of_the_server_are_named(application: URL, mariadb_database: URL, tmp_path: Path) -> None:
    done = Shell(url_text(application), tmp_path).run("failed", "list")
    assert_refused(done, 3, "Solid Queue", "database ")
    opened = Database(application)
    assert f"database {mariadb_database.database}" in opened.look_around().queues
    opened.close()


def test_the_most_alike_come_first() -> None:
    names = ["analytics", "crm_queue", "shop_staging", "shop_production_queue"]
    assert other_queues.most_alike(names, "shop_production")[0] == "shop_production_queue"
    assert other_queues.most_alike(names, "crm_qeue")[0] == "crm_queue"


@pytest.mark.only_on("postgresql", "mariadb")
def test_a_mistyped_database_names_the_queues_of_the_server(database: Database, queue_url: URL, tmp_path: Path) -> None:
    mistyped = queue_url.set(database=f"{queue_url.database}_qeue")
    done = Shell(url_text(mistyped), tmp_path).run("failed", "list")
    assert_refused(done, 3, f"{mistyped.database}", f"database {queue_url.database}")


def test_files_as_rails_makes_them_are_named_and_nothing_is_made(tmp_path: Path) -> None:
    storage = tmp_path / "storage"
    storage.mkdir()
    make_queue(URL.create("sqlite", database=str(storage / "production_queue.sqlite3")))
    execute(URL.create("sqlite", database=str(storage / "production.sqlite3")), *OTHERS)
    (storage / "broken.sqlite3").write_text("no database at all")
    before = sorted(file.name for file in storage.iterdir())
    for path in ("storage/production.sqlite3", "typo.sqlite3", "storage/typo.sqlite3"):
        done = Shell(path, tmp_path).run("failed", "list")
        assert_refused(done, 3, "storage/production_queue.sqlite3")
        assert "init" not in done.stderr
    assert sorted(file.name for file in storage.iterdir()) == before


def test_a_folder_is_called_one_and_the_queue_in_it_is_named(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "shop" / "config").mkdir(parents=True)
    (tmp_path / "shop" / "config" / "database.yml").touch()
    (tmp_path / "storage").mkdir()
    make_queue(URL.create("sqlite", database=str(tmp_path / "storage" / "queue.sqlite3")))
    for folder, advice in (
        ("empty", "name the file in it"),
        ("storage", "Solid Queue's tables are in storage/queue.sqlite3"),
        ("shop", "a Rails application, not a database; name it with --rails shop"),
    ):
        shell = Shell(folder, tmp_path)
        assert_refused(shell.run("failed", "list"), 3, f"{folder} is ", " folder", advice)
        assert_refused(shell.run("init"), 3, f"{folder}: it is a folder; name a file in it")


@pytest.mark.sqlite_only
def test_init_of_an_empty_database_says_that_queues_are_elsewhere(database: Database, tmp_path: Path) -> None:
    other = Path(str(database.url.database)).with_name("another.sqlite3")
    done = Shell(str(other), tmp_path).run("init")
    assert done.returncode == 0, done.stderr
    words = f"Solid Queue's tables are in {database.url.database}; this made another queue, in file {other}"
    assert words in done.stderr
    again = Shell(str(other), tmp_path).run("init")
    assert "another queue" not in again.stderr


def test_a_table_that_is_missing_beside_the_others_makes_no_other_database(database: Database, shell: Shell) -> None:
    execute(database.url, "ALTER TABLE solid_queue_pauses RENAME TO away")
    try:
        done = shell.run("queues", "list")
    finally:
        execute(database.url, "ALTER TABLE away RENAME TO solid_queue_pauses")
    assert_refused(done, 3, "is not a Solid Queue database of version 1.x", "solid_queue_pauses", "jq doctor tables")


def test_names_of_many_tables_are_counted() -> None:
    assert other_queues.names_of(["a", "b"]) == "a, b"
    assert other_queues.names_of(map(str, range(9))) == "0, 1, 2, 3, 4 and 4 more"


@pytest.mark.parametrize(
    ("url", "command"),
    [
        ("postgres://app:hunter2@db/shop", "jq --schema none init --database 'postgresql://app:***@db/shop'"),
        (
            "postgres://db/shop?sslmode=require",
            "jq --schema none init --database 'postgresql://db/shop?sslmode=require'",
        ),
    ],
)
def test_the_command_for_init_is_as_one_would_type_it(url: str, command: str) -> None:
    assert elsewhere_command(with_schema(parse_url(url), "none")) == command


def test_the_command_for_init_on_mysql_is_as_one_would_type_it() -> None:
    assert elsewhere_command(parse_url("mysql2://app@db/shop")) == "jq init --database mysql://app@db/shop"


def elsewhere_command(url: URL) -> str:
    database = Database(url)
    return database.init_command


@pytest.mark.sqlite_only
def test_no_pipe_in_the_place_of_a_file_is_waited_for(tmp_path: Path, shell: Shell) -> None:
    pipe = tmp_path / "pipe.sqlite3"
    os.mkfifo(pipe)
    for command, url in (("failed list", f"sqlite:{pipe}"), ("init", str(pipe))):
        assert_refused(shell.run(*command.split(), url=url), 3, "pipe or a device")
    done = shell.run("failed", "list", url=f"sqlite:{tmp_path / 'other.sqlite3'}")
    assert_refused(done, 3, "there is no SQLite file")
