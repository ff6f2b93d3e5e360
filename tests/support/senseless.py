"""A queue in which every column of every table has a row for each senseless value that the database's type accepts."""

import json
import socket
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any

from sqlalchemy import Engine, Table, create_engine
from sqlalchemy.engine import URL

from solidjq.database import tables
from solidjq.rails.error_text import exit_error, pruned_error

NOW = datetime.now(UTC)
LONG_AGO = NOW - timedelta(seconds=2000)
DEEP = "[" * 100_000 + "]" * 100_000
FIRST = 1000  # the first id

# Whatever the type of the column: SQLite accepts all of these in any column, the others refuse some.
VALUES: list[Any] = [
    None,
    "",
    "text",
    "\x1b[31m\u202e",
    b"\xff\x00blob",
    -1,
    2**62,
    1.5,
    float("inf"),
    "0001-01-01 00:00:00",
    "0001-01-01 00:00:00+14:00",
    "9999-12-31 23:59:59.999999",
    "9999-12-31 23:59:59-14:00",
    "2026-13-45 99:99:99",
    "0000-00-00 00:00:00",
    "infinity",
    "-infinity",
    "4713-01-01 BC",
    "[]",
    "null",
    '"text"',
    '{"a":',
    "1e400",
    "NaN",
    "1" * 5000,
    "[" * 500 + "]" * 500,
    DEEP,
]
# In the place of each value in a JSON document.
JSON_VALUES = [
    "null",
    "true",
    "-1",
    "0.5",
    "1e400",
    "NaN",
    "1" * 25,
    '"text"',
    '"0001-01-01T00:00:00+14:00"',
    '"9999-12-31T23:59:59-14:00"',
    "[]",
    "{}",
    "[{}, 1e400]",
    '{"text": [NaN]}',
    "[" * 500 + "]" * 500,
]
_START = LONG_AGO.isoformat()
SAMPLE = {
    "at": _START,
    "rss": 1000,
    "peak": 2000,
    "cgroup": {"current": 990, "max": 1000, "oom_kill": 1},
    "psi": {"some": 50.0, "full": 50.0},
    "monotonic": 1.0,
    "boottime": 2.0,
    "term_at": _START,
    "boot_id": "boot",
    "pid_ns": "pid:[1]",
    "pid_started": _START,
    "release": "v1",
    "interval": 60.0,
    "latency": 0.1,
    "outage": {"from": _START, "to": NOW.isoformat()},
    "jobs": [{"id": 1, "since": _START, "rss": 500}],
    "looks": 3,
    "seen": {"PlainJob": 3},
}
METADATA = {"queues": "default", "except": "other", "prefetch": 5, "thread_pool_size": 3, "sample": SAMPLE}
METADATA |= {"polling_interval": 1, "batch_size": 100, "shutdown_timeout": 5, "recurring_schedule": ["nightly"]}
EVIDENCE = {
    "sample": SAMPLE,
    "threshold": 300,
    "here": {"boot_id": "boot", "process": "running", "started_at": _START, "certain": True, "monotonic": 1.0}
    | {"boottime": 900.0, "elsewhere": True},
    "fleet": {"alive": 1, "silent": 1, "alive_here": 0, "silent_here": 1, "hosts_alive": 1, "hosts_silent": 1},
    "ahead": True,
    "faulting": {"job_id": 1, "class_name": "PlainJob"},
    "killed_by_supervisor": False,
    "outage": {"from": _START, "to": NOW.isoformat()},
    "oom_kill": [1, 2],
    "last_words": "MemoryError",
    "rusage": {"peak": 2000},
    "term_at": _START,
}
ARGUMENTS = {
    "job_class": "PlainJob",
    "job_id": "a",
    "arguments": [1, {"key": "value", "_aj_symbol_keys": ["key"]}, {"_aj_serialized": "X", "value": "y"}],
    "executions": 1,
    "exception_executions": {},
}
ERROR = {"exception_class": "E", "message": "boom", "backtrace": ["a.rb:1"]}
DOCUMENTS: dict[tuple[str, str], Any] = {
    ("processes", "metadata"): METADATA,
    ("deaths", "evidence"): EVIDENCE,
    ("jobs", "arguments"): ARGUMENTS,
    ("failed_executions", "error"): ERROR,
    ("operations", "filter"): {"incident": "d1", "suspects": [1, 2], "deaths": 1, "queue_as": "q", "checks": ["a"]},
    ("operations", "verdicts"): {"retry": 1},
    ("failures", "more"): {"note": "'x'"},
}
UNCHECKED = {
    "sqlite": "PRAGMA foreign_keys = OFF",
    "postgresql": "SET session_replication_role = replica",
    "mysql": "SET foreign_key_checks = 0, sql_mode = ''",
}
PRUNED = pruned_error(LONG_AGO)


def variants(document: Any, chance: Random, most: int) -> Iterator[str]:
    """Yield the document with senseless values, ``most`` of them, in the place of each of its values in turn."""
    for path in _paths(document, ()):
        copy = json.loads(json.dumps(document))
        *above, last = path
        place = copy
        for key in above:
            place = place[key]
        place[last] = "@"
        written = json.dumps(copy, separators=(",", ":"))
        yield from (written.replace('"@"', value) for value in chance.sample(JSON_VALUES, most))


def _paths(document: Any, above: tuple[Any, ...]) -> Iterator[tuple[Any, ...]]:
    inside = document.items() if isinstance(document, dict) else enumerate(document)
    for key, value in inside:
        yield (*above, key)
        if isinstance(value, dict | list):
            yield from _paths(value, (*above, key))


class Damage:
    """Adds rows; each new row has an id of its own, and what a row needs beside it is added with it."""

    def __init__(self, engine: Engine) -> None:
        self._connection = engine.raw_connection()  # the plain driver: it neither checks nor converts what it is given
        self._cursor = self._connection.cursor()
        self._refusal = engine.dialect.loaded_dbapi.Error
        self._name = engine.dialect.name
        self._cursor.execute(UNCHECKED[self._name])
        self._next = FIRST
        self.ids: dict[str, list[int]] = {}

    def add(self, name: str, /, **changed: Any) -> int | None:
        """Insert a row; return its id, or None if the database refuses it."""
        number = self._next = self._next + 1
        values = {**self._sane(name, number), **changed}
        statement = f"INSERT INTO {_table(name).name} ({', '.join(map(self._quoted, values))}) VALUES "  # noqa: S608
        place = "?" if self._name == "sqlite" else "%s"
        if self._name == "postgresql":
            self._cursor.execute("SAVEPOINT before")
        try:
            self._cursor.execute(f"{statement}({', '.join(place for _ in values)})", tuple(values.values()))
        except (self._refusal, OverflowError, ValueError):
            if self._name == "postgresql":
                self._cursor.execute("ROLLBACK TO SAVEPOINT before")
            return None
        row_id = next(iter(values.values()))
        self.ids.setdefault(name, []).append(row_id)
        return int(row_id)

    def _quoted(self, column: str) -> str:
        return f"`{column}`" if self._name == "mysql" else column

    def finish(self) -> None:
        self._connection.commit()
        self._connection.close()

    def _sane(self, name: str, number: int) -> dict[str, Any]:  # noqa: C901, PLR0911, PLR0912  (one case a table)
        ago = f"{LONG_AGO:%Y-%m-%d %H:%M:%S.%f}"
        created = {"id": number, "created_at": ago}
        of_queue = {"queue_name": "default", "priority": 0}
        match name:
            case "jobs":
                return {
                    **created,
                    **of_queue,
                    "class_name": "PlainJob",
                    "arguments": json.dumps(ARGUMENTS),
                    "active_job_id": f"job-{number}",
                    "scheduled_at": ago,
                    "finished_at": None,
                    "concurrency_key": None,
                    "updated_at": ago,
                }
            case "processes":
                return {
                    **created,
                    "kind": "Worker",
                    "last_heartbeat_at": ago,
                    "supervisor_id": None,
                    "pid": 4242,
                    "hostname": "elsewhere",
                    "metadata": json.dumps(METADATA),
                    "name": f"worker-{number}",
                }
            case "ready_executions":
                return {**created, **of_queue, "job_id": self.add("jobs")}
            case "scheduled_executions":
                return {**created, **of_queue, "job_id": self.add("jobs"), "scheduled_at": ago}
            case "blocked_executions":
                job = self.add("jobs", concurrency_key="key")
                return {**created, **of_queue, "job_id": job, "concurrency_key": "key", "expires_at": ago}
            case "claimed_executions":
                return {**created, "job_id": self.add("jobs"), "process_id": self.add("processes")}
            case "failed_executions":
                return {**created, "job_id": self.add("jobs"), "error": PRUNED}
            case "recurring_executions":
                return {**created, "job_id": self.add("jobs"), "task_key": f"task-{number}", "run_at": ago}
            case "pauses":
                return {**created, "queue_name": f"paused-{number}"}
            case "semaphores":
                return {**created, "key": f"key-{number}", "value": 1, "expires_at": ago, "updated_at": ago}
            case "recurring_tasks":
                return {**created, "key": f"task-{number}", "schedule": "every day", "updated_at": ago}
            case "schema_migrations":
                return {"version": number, "name": "later", "applied_at": ago}
            case "operations":
                return {
                    **created,
                    "verb": "retry",
                    "actor": "me@here",
                    "command": "jq retry",
                    "reason": None,
                    "filter": json.dumps({"ids": [1]}),
                    "plan": None,
                    "jobs": 1,
                    "verdicts": json.dumps({"retry": 1}),
                }
            case "failures":
                return {
                    "id": number,
                    "failure_id": number,
                    "job_id": self.add("jobs"),
                    "active_job_id": f"job-{number}",
                    "queue_name": "default",
                    "class_name": "PlainJob",
                    "error": PRUNED,
                    "failed_at": ago,
                    "archived_at": ago,
                    "operation_id": self.add("operations"),
                    "restored_by": None,
                    "arguments": json.dumps(ARGUMENTS),
                    "priority": 0,
                    "concurrency_key": None,
                    "scheduled_at": None,
                    "enqueued_at": ago,
                    "updated_at": ago,
                    "more": None,
                }
            case "crashes":
                return {
                    "failure_id": number,
                    "subject": f"job-{number}",
                    "job_id": number,
                    "class_name": "PlainJob",
                    "evidence": exit_error(4242, -9),
                    "death_id": None,
                    "started_at": ago,
                    "growth": 1,
                    "hostname": "elsewhere",
                    "pid": 4242,
                    "last_heartbeat_at": ago,
                    "crashed_at": ago,
                }
            case "deaths":
                return {
                    "id": number,
                    "process_id": number,
                    "kind": "Worker",
                    "name": "worker",
                    "hostname": "elsewhere",
                    "pid": 4242,
                    "supervisor_id": None,
                    "started_at": ago,
                    "last_heartbeat_at": ago,
                    "noticed_at": ago,
                    "noticed_by": "prune",
                    "exit_status": None,
                    "signal": None,
                    "evidence": json.dumps(EVIDENCE),
                }
            case "chain":
                return {
                    "position": number,
                    "operation_id": number,
                    "failures": 1,
                    "failures_hash": "a",
                    "sealed_at": ago,
                    "previous_hash": "b",
                    "hash": "c",
                }
        raise LookupError(name)


def _table(name: str) -> Table:
    names = {f"jq_{name}", f"{tables.prefix()}{name}"}
    return next(t for t in (*tables.solid_queue.sorted_tables, *tables.jq.sorted_tables) if t.name in names)


def damage(url: URL, *, seed: int, values: int, json_values: int) -> dict[str, list[int]]:
    """Fill a queue with damaged rows, each damaged in one column; return the ids of all rows, by table.

    Each column gets so many of ``VALUES``, each place in a JSON document so many of ``JSON_VALUES``, chosen by seed.
    """
    chance = Random(seed)  # noqa: S311
    engine = create_engine(url)
    adding = Damage(engine)
    for table in (*tables.solid_queue.sorted_tables, *tables.jq.sorted_tables):
        name = table.name.removeprefix("jq_").removeprefix(tables.prefix())
        for column in table.columns:
            if column.name in {"id", "version", "failure_id", "position"} and column.primary_key:
                adding.add(name, **{column.name: -1})
                continue
            documents = variants(DOCUMENTS.get((name, column.name), {}), chance, json_values)
            for value in (*chance.sample(VALUES, values), *documents):
                _add_damaged(adding, name, column.name, value)
    adding.finish()
    engine.dispose()
    return adding.ids


def _add_damaged(adding: Damage, name: str, column: str, value: Any) -> None:
    changed: dict[str, Any] = {column: value}
    match name:
        case "jobs":
            adding.add("failed_executions", job_id=adding.add("jobs", **changed))
        case "processes":
            adding.add("claimed_executions", process_id=adding.add("processes", **changed))
            if column in {"pid", "metadata", "last_heartbeat_at"}:
                adding.add("processes", hostname=socket.gethostname(), **changed)
        case "deaths":
            death = adding.add("deaths", **changed)
            adding.add("crashes", death_id=death)
        case "operations" if column == "filter":
            operation = adding.add("operations", verb="bisect", plan="d1", **changed)
            adding.add("failures", operation_id=operation)
        case "operations":
            adding.add("failures", operation_id=adding.add("operations", **changed))
        case _:
            adding.add(name, **changed)
