"""The other queues on the same server, or beside the same file, for an error about a database without one."""

import shlex
import time
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from difflib import SequenceMatcher
from itertools import islice
from pathlib import Path
from urllib.parse import quote

from sqlalchemy import Connection, Engine, inspect, text
from sqlalchemy.engine import URL
from sqlalchemy.exc import SQLAlchemyError

from solidjq.database import engines, tables
from solidjq.database.place import host_of
from solidjq.database.poolers import schema_of
from solidjq.errors import SolidJQError
from solidjq.text import count_of, first_of, printable

PATIENCE = 3.0  # seconds for all other databases of a server
CONNECT_TIMEOUT = 2  # seconds for one of them, the least that libpq takes
STATEMENT_TIMEOUT = 1000  # milliseconds
MOST_DATABASES = 10  # PostgreSQL: each needs a connection
MOST_FILES = 50
MOST_NAMED = 5
_NO_SCHEMA = "which is not there, or not allowed to this role"
_SUFFIX = "claimed_executions"  # of a table that no other program has; what stands before it is the prefix


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What is at a database without the table that was asked for, and which other queues there are."""

    here: str  # database shop on db1, schema public
    has_queue: bool = False  # Solid Queue's jobs are here, so that only some other table is missing
    tables: tuple[str, ...] = ()  # that are here, without jq's own
    queues: tuple[str, ...] = ()  # the other queues: database shop_queue, schema jobs of this database

    def advice(self, init: str) -> str:
        """Return what to do; ``init`` is the command that makes a queue here, named only where nothing else is."""
        make = f"to make a queue here, run: {init}"
        if self.here.endswith(_NO_SCHEMA):
            make = "name another with --schema, or create this one first"
        if self.queues:
            name = "name it" if len(self.queues) == 1 else "name one"
            return f"they are in {names_of(self.queues)}: {name}{'' if self.tables else f'; {make}'}"
        return "name the queue's own database with --database, --rails or a profile" if self.tables else make

    def words(self, init: str) -> str:
        """Return the error's text: that no queue is here, what is, and what to do."""
        prefix = "" if tables.prefix() == tables.DEFAULT_PREFIX else f" with prefix {tables.prefix()}"
        others = f"; it has {self.others}" if self.tables else ""
        return f"no Solid Queue tables{prefix} here ({self.here}{others}); {self.advice(init)}"

    @property
    def others(self) -> str:
        """The tables that are here: ``57 other tables: orders, users ...``."""
        return f"{count_of(len(self.tables), 'other table')}: {names_of(self.tables)}"


def names_of(names: Iterable[str]) -> str:
    """Return the first names, and how many more there are: ``users, orders and 55 more``."""
    return first_of([printable(name) for name in names], MOST_NAMED)


def most_alike(names: Iterable[str], wanted: str) -> list[str]:
    """Return names sorted by how much they look like the one that was asked for, the most alike first."""
    return sorted(names, key=lambda name: (-SequenceMatcher(None, wanted, name).ratio(), name))


def look_around(engine: Engine, url: URL) -> Surroundings:
    """Return what is at ``url``, and which other queues there are. What may not be seen, or is slow, is left out."""
    if url.get_backend_name() == "sqlite" and not Path(url.database or "").exists():
        return Surroundings(f"file {url.database}", queues=tuple(files_beside(Path(url.database or ""))))
    here = f"database {url.database}"
    try:
        with engine.connect() as connection:
            here = _describe(connection, url)
            ours = {table.name for table in tables.jq.sorted_tables}
            present = tuple(sorted(set(inspect(connection).get_table_names(schema_of(connection))) - ours))
            if tables.jobs.name in present:
                return Surroundings(here, has_queue=True, tables=present)
            prefixes = [name.removesuffix(_SUFFIX) for name in present if name.endswith(_SUFFIX)]
            queues = (
                *(f"tables {prefix}* of this database (--table-prefix {prefix})" for prefix in prefixes),
                *_queues(connection, url, url.database or ""),
            )
    except (SQLAlchemyError, SolidJQError, OSError):
        return Surroundings(here)
    return Surroundings(here, tables=present, queues=queues)


def queues_of_server(url: URL) -> tuple[str, ...]:
    """Return the queues on the server of a URL whose own database does not exist, as far as they may be seen."""
    server = url._replace(database="postgres" if url.get_backend_name() == "postgresql" else None)
    engine = engines.create(_impatient(server), name="jq", read_only=True)
    try:
        with engine.connect() as connection:
            return tuple(_queues(connection, server, url.database or ""))
    except (SQLAlchemyError, SolidJQError, OSError):
        return ()
    finally:
        engine.dispose()


def _impatient(url: URL) -> URL:
    return url.difference_update_query(["dbname"]).update_query_dict({"connect_timeout": str(CONNECT_TIMEOUT)})


def _describe(connection: Connection, url: URL) -> str:
    host = f" on {host_of(url)}" if host_of(url) else ""
    match connection.dialect.name:
        case "postgresql":
            query = (
                "SELECT current_database(), current_schema(), current_setting('search_path'), EXISTS ("
                "SELECT FROM pg_namespace WHERE nspname = :schema AND has_schema_privilege(oid, 'USAGE'))"
            )
            named = schema_of(connection)
            database, schema, wanted, usable = connection.execute(text(query), {"schema": named}).one()
            if named is not None:
                schema, wanted = (named if usable else None), f'"{named}"'
            return f"database {database}{host}, schema {schema or f'{wanted}, {_NO_SCHEMA}'}"
        case "mysql":
            return f"database {connection.scalar(text('SELECT DATABASE()'))}{host}"
        case _:
            return f"file {url.database}"


def _queues(connection: Connection, url: URL, wanted: str) -> Iterator[str]:
    match connection.dialect.name:
        case "postgresql":
            yield from (f"schema {schema} of this database" for schema in _schemas(connection))
            yield from _other_databases(connection, url, wanted)
        case "mysql":
            query = text("SELECT table_schema FROM information_schema.tables WHERE table_name = :jobs")
            names = connection.scalars(query, {"jobs": tables.jobs.name})
            yield from (f"database {name}" for name in most_alike(names, wanted))
        case _:
            yield from files_beside(Path(url.database or ""))


def _schemas(connection: Connection) -> list[str]:
    """Return the schemas of this database with Solid Queue's jobs that this role may use."""
    query = text(
        "SELECT n.nspname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace "
        "WHERE c.relname = :jobs AND c.relkind IN ('r', 'p') AND has_schema_privilege(n.oid, 'USAGE') ORDER BY 1"
    )
    return list(connection.scalars(query, {"jobs": tables.jobs.name}))


def _other_databases(connection: Connection, url: URL, wanted: str) -> Iterator[str]:
    """Look into the other databases of a PostgreSQL server, read-only."""
    query = text(
        "SELECT datname FROM pg_database WHERE datallowconn AND NOT datistemplate AND datname <> current_database() "
        "AND has_database_privilege(oid, 'CONNECT')"
    )
    deadline = time.monotonic() + PATIENCE
    for name in most_alike(connection.scalars(query), wanted)[:MOST_DATABASES]:
        if time.monotonic() < deadline:
            for schema in _schemas_of(url, name):
                yield f"database {name}" + ("" if schema == "public" else f" (schema {schema})")


def _schemas_of(url: URL, name: str) -> list[str]:
    engine = engines.create(_impatient(url.set(database=name)), name="jq", read_only=True)
    try:
        with engine.connect() as connection:
            connection.execute(text(f"SET LOCAL statement_timeout = {STATEMENT_TIMEOUT}"))
            return _schemas(connection)
    except (SQLAlchemyError, SolidJQError, OSError):
        return []
    finally:
        engine.dispose()


def no_file(path: Path, init: str) -> str:
    """Return why there is no SQLite file to open at ``path``, and what to do; ``init`` is the command that makes it.

    SQLite gives one error for a file that is missing, a folder, and a file that this user may not open.
    """
    if path.is_dir():
        if (path / "config" / "database.yml").is_file():
            named = shlex.quote(str(path))
            return f"{path} is the folder of a Rails application, not a database; name it with --rails {named}"
        return _beside(f"{path} is a folder, not an SQLite file", path / "queue", "name the file in it")
    try:
        exists = path.exists()
    except OSError as error:  # a folder on the way that this user may not enter
        return f"cannot open {path}: {error.strerror}"
    if engines.is_special(path):
        return f"cannot open {path}: it is a pipe or a device, and not an SQLite file"
    if exists:
        return f"cannot open {path}: this user may not read it, or may not write in its folder"
    return _beside(f"there is no SQLite file at {path}", path, f"to make a queue there, run: {init}")


def _beside(what: str, path: Path, otherwise: str) -> str:
    files = list(files_beside(path))
    there = f"Solid Queue's tables are in {names_of(files)}" if files else otherwise
    return f"{what}; {there}"


def files_beside(path: Path) -> Iterator[str]:
    """Yield the SQLite files with a queue in the folder of ``path``, and in the folder ``storage`` there, as in Rails.

    Those named like a queue come first. The files are not changed.
    """
    folders = [path.parent, path.parent / "storage"]
    files = islice((file for folder in folders for file in folder.glob("*.sqlite3") if file != path), MOST_FILES)
    yield from (
        str(file) for file in sorted(files, key=lambda file: ("queue" not in file.name, file)) if _is_queue(file)
    )


def _is_queue(file: Path) -> bool:
    import sqlite3  # noqa: PLC0415

    if engines.is_special(file):
        return False
    # Without a write-ahead log, opening the file as immutable keeps SQLite from making one beside it.
    mode = "mode=ro" if file.with_name(f"{file.name}-wal").exists() else "mode=ro&immutable=1"
    try:
        with closing(
            sqlite3.connect(f"file:{quote(str(file.absolute()))}?{mode}", uri=True, timeout=0.1)
        ) as connection:
            query = "SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = ?"
            return connection.execute(query, [tables.jobs.name]).fetchone() is not None
    except sqlite3.Error:
        return False
