"""Databases as Rails left them: ``tests/data/rails`` holds rows that Solid Queue itself wrote.

Each file is one scenario on one database: ``columns`` gives each column's type as that database reports it, ``tables``
the rows as stored. ``load`` makes such a database again, without the help of the schema under test. A text file of the
same name is its reading: what jq should print of it.
"""

import copy
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

from sqlalchemy import Connection, column, create_engine, func, insert, inspect, select, table, text
from sqlalchemy.engine import URL

from support.paths import DATA

Fixture = dict[str, Any]

FOLDER = DATA / "rails"
KINDS = {"postgresql": "pg", "sqlite": "sqlite", "mariadb": "mysql"}  # a test's kind of database -> ``db`` in a file
BACKENDS = {"postgresql": "pg", "sqlite": "sqlite", "mysql": "mysql"}  # SQLAlchemy's name -> ``db`` in a file
JOBS = "solid_queue_jobs"
FAILURE = [
    *("failure_id", "job_id", "class_name", "queue_name", "priority"),
    *("death", "pid", "exit_status", "signal", "last_heartbeat_at", "failed_at"),
]
PROCESS = ["process_id", "kind", "supervisor_id", "pid", "claimed", "name", "last_heartbeat_at", "created_at"]
QUEUE = ["queue_name", "paused", "ready", "claimed", "scheduled", "blocked", "oldest_ready_at"]
FIELDS = {"failures": FAILURE, "processes": PROCESS, "queues": QUEUE}  # of each part of a reading
STATES = "[states] state job_id..."

_PRIMARY_KEYS = {
    "pg": "bigserial PRIMARY KEY",  # the same sequence and default as Rails' own
    "sqlite": "INTEGER PRIMARY KEY AUTOINCREMENT NOT NULL",
    "mysql": "bigint(20) NOT NULL AUTO_INCREMENT PRIMARY KEY",
}
_UNIQUE = {
    "solid_queue_pauses": ("queue_name",),
    "solid_queue_processes": ("name", "supervisor_id"),
    "solid_queue_recurring_tasks": ("key",),
    "solid_queue_semaphores": ("key",),
}
_COLUMN = re.compile(r"(?P<type>.+?)(?P<null> not null)?(?: default (?P<default>.+?))?(?: pk)?")


def read(kind: str, scenario: str) -> Fixture:
    """Return a scenario, such as ``5c``, of a kind of database; a copy, to be changed at will."""
    return copy.deepcopy(_parsed(kind, scenario))


@cache
def _parsed(kind: str, scenario: str) -> Fixture:
    (path,) = FOLDER.glob(f"{KINDS[kind]}-{scenario}-*.json")
    return dict(json.loads(path.read_text(encoding="utf-8")))


@dataclass(frozen=True)
class Reading:
    """What jq should print of a scenario, one line a row. Times are of 2026-11-23 unless a date stands there."""

    failures: list[str]
    processes: list[str]
    queues: list[str]
    states: dict[str, list[int]]  # state -> ids of jobs


@cache
def reading(kind: str, scenario: str) -> Reading:
    """Return what should be read of a scenario. Each part starts with its name and the fields of its lines."""
    (path,) = FOLDER.glob(f"{KINDS[kind]}-{scenario}-*.txt")
    parts: dict[str, list[str]] = {}
    for block in path.read_text(encoding="utf-8").strip().split("\n\n"):
        (head, *lines) = block.splitlines()
        parts[head] = lines
    states = {state: [int(job_id) for job_id in ids] for state, *ids in map(str.split, parts[STATES])}
    return Reading(*(parts[f"[{name}] {' '.join(fields)}"] for name, fields in FIELDS.items()), states)


def row(fixture: Fixture, name: str, row_id: int) -> dict[str, Any]:
    """Return a table's row, to be looked at or changed."""
    found: dict[str, Any]
    (found,) = (values for values in fixture["tables"][f"solid_queue_{name}"] if int(values["id"]) == row_id)
    return found


def load(url: URL, fixture: Fixture) -> None:
    """Make the tables in an empty database with Rails' own column types and keys, and insert the rows as stored.

    Ids that the database gives out later are beyond those of the rows.
    """
    backend = BACKENDS[url.get_backend_name()]
    if fixture["db"] != backend:
        raise ValueError(f"rows of {fixture['db']} do not go into {backend}")
    engine = create_engine(url)
    with engine.begin() as connection:
        names = [JOBS, *(name for name in fixture["columns"] if name != JOBS and not name.endswith(".typeof"))]
        for name in names:
            for statement in _definition(backend, name, fixture["columns"][name]):
                connection.execute(text(statement))
            if rows := fixture["tables"].get(name):
                connection.execute(insert(table(name, *map(column, rows[0]))), rows)
                if backend == "pg":
                    connection.execute(select(func.setval(f"{name}_id_seq", max(int(row["id"]) for row in rows))))
    engine.dispose()


def _definition(backend: str, name: str, columns: dict[str, str]) -> Iterator[str]:
    """Yield the statements that make a table and its unique index."""
    quote = "`" if backend == "mysql" else '"'
    lines = []
    for key, described in columns.items():
        match = _COLUMN.fullmatch(described)
        if match is None:
            raise ValueError(f"{name}.{key}: {described}")
        default = "" if match["default"] is None else f" DEFAULT {match['default']}"
        null = " NOT NULL" if match["null"] else ""
        kind = _PRIMARY_KEYS[backend] if key == "id" else f"{match['type']}{default}{null}"
        lines.append(f"{quote}{key}{quote} {kind}")
    unique = _UNIQUE.get(name)
    if "job_id" in columns:
        unique = ("job_id",)
        lines.append(f"FOREIGN KEY (job_id) REFERENCES {JOBS} (id) ON DELETE CASCADE")
    yield f"CREATE TABLE {name} ({', '.join(lines)})"
    if unique:
        index = f"index_{name}_on_{'_and_'.join(unique)}"
        yield f"CREATE UNIQUE INDEX {index} ON {name} ({', '.join(f'{quote}{key}{quote}' for key in unique)})"


# -- looking at a database as it is, without the types under test ----------------------------------------------------


def snapshot(url: URL) -> dict[str, tuple[str, list[dict[str, Any]]]]:
    """Return every table's definition and rows, as the database itself has them."""
    engine = create_engine(url)
    with engine.connect() as connection:
        found = {
            name: (_described(connection, name), _rows(connection, name))
            for name in sorted(inspect(connection).get_table_names())
        }
    engine.dispose()
    return found


def _rows(connection: Connection, name: str) -> list[dict[str, Any]]:
    names = [found["name"] for found in inspect(connection).get_columns(name)]
    query = select(*map(column, names)).select_from(table(name)).order_by(column(names[0]))
    return [dict(found) for found in connection.execute(query).mappings()]


def _described(connection: Connection, name: str) -> str:
    match connection.dialect.name:
        case "sqlite":
            query = text("SELECT sql FROM sqlite_master WHERE tbl_name = :name ORDER BY name")
            return "\n".join(str(sql) for sql in connection.scalars(query, {"name": name}))
        case "mysql":
            return str(connection.execute(text(f"SHOW CREATE TABLE {name}")).one()[1])
        case _:
            asked = inspect(connection)
            return "\n".join(
                str(part)
                for part in (
                    asked.get_columns(name),
                    asked.get_pk_constraint(name),
                    asked.get_foreign_keys(name),
                    sorted(asked.get_indexes(name), key=str),
                    asked.get_check_constraints(name),
                )
            )
