"""Tables: Solid Queue's eleven, a contract that we never alter, and ours, prefixed ``jq_``.

Column types, defaults, index names and foreign keys are those of Solid Queue's own schema (1.0 to 1.5) as Rails
creates it on each database, so that each program can use a queue that the other created.
"""

import re
from collections.abc import Collection
from hashlib import sha256
from typing import Any

from sqlalchemy import (
    Boolean,
    Column,
    Connection,
    ForeignKey,
    Index,
    MetaData,
    Table,
    event,
    text,
    true,
)
from sqlalchemy.sql.elements import quoted_name

from solidjq.database.any_types import (
    ANY_BIG_INTEGER,
    ANY_INTEGER,
    ANY_TEXT,
    ID,
    LONG_STRING,
    LONG_TEXT,
    any_string,
)
from solidjq.database.times import PastDateTime, UtcDateTime
from solidjq.errors import UsageError

DEFAULT_PREFIX = "solid_queue_"
MOST_PREFIX = 36  # characters: the sequence of the longest table's ids then fits into PostgreSQL's 63
LONGEST_NAME = 63  # characters of an index's, on PostgreSQL; MySQL takes one more

solid_queue = MetaData()
jq = MetaData()


def never_reuse_ids(metadata: MetaData) -> None:
    """Create tables on SQLite with AUTOINCREMENT, as Rails does: no id is used twice.

    It is set just before creation: set on the table, it would load SQLAlchemy's SQLite dialect for every database.
    """

    @event.listens_for(metadata, "before_create")
    def _set_autoincrement(_metadata: MetaData, connection: Connection, *, tables: Collection[Table], **_: Any) -> None:
        if connection.dialect.name == "sqlite":
            for table in tables:
                if table.autoincrement_column is not None:
                    table.kwargs["sqlite_autoincrement"] = True


never_reuse_ids(solid_queue)
never_reuse_ids(jq)

_String = any_string()
_Boolean = Boolean(create_constraint=False)


def _id() -> Column[int]:
    return Column("id", ID, primary_key=True, autoincrement=True)


def _time(name: str, *, nullable: bool = False) -> Column[Any]:
    """Return the column of when something happened."""
    return Column(name, PastDateTime, nullable=nullable)


def _due(name: str, *, nullable: bool = False) -> Column[Any]:
    """Return the column of when something is to happen, which may be the end of the calendar, for never."""
    return Column(name, UtcDateTime, nullable=nullable)


def _priority(*, nullable: bool = False) -> Column[int]:
    return Column("priority", ANY_INTEGER, nullable=nullable, server_default=text("0"))


def _table(name: str, *columns: Any) -> Table:
    return Table(f"{DEFAULT_PREFIX}{name}", solid_queue, _id(), *columns)


def _execution(name: str, *columns: Any) -> Table:
    """Return the table of one state: a row is a job in that state, and is deleted with the job."""
    table = f"solid_queue_{name}_executions"
    return _table(
        f"{name}_executions",
        Column("job_id", ANY_BIG_INTEGER, ForeignKey(jobs.c.id, ondelete="CASCADE"), nullable=False),
        *columns,
        _time("created_at"),
        Index(f"index_{table}_on_job_id", "job_id", unique=True),
    )


def _queue_name() -> Column[str]:
    return Column("queue_name", _String, nullable=False)


jobs = _table(
    "jobs",
    _queue_name(),
    Column("class_name", _String, nullable=False),
    Column("arguments", ANY_TEXT),
    _priority(),
    Column("active_job_id", _String),
    _due("scheduled_at", nullable=True),
    _time("finished_at", nullable=True),
    Column("concurrency_key", _String),
    _time("created_at"),
    _time("updated_at"),
    Index("index_solid_queue_jobs_on_active_job_id", "active_job_id"),
    Index("index_solid_queue_jobs_on_class_name", "class_name"),
    Index("index_solid_queue_jobs_on_finished_at", "finished_at"),
    Index("index_solid_queue_jobs_for_filtering", "queue_name", "finished_at"),
    Index("index_solid_queue_jobs_for_alerting", "scheduled_at", "finished_at"),
)

ready = _execution(
    "ready",
    _queue_name(),
    _priority(),
    Index("index_solid_queue_poll_all", "priority", "job_id"),
    Index("index_solid_queue_poll_by_queue", "queue_name", "priority", "job_id"),
)

scheduled = _execution(
    "scheduled",
    _queue_name(),
    _priority(),
    _due("scheduled_at"),
    Index("index_solid_queue_dispatch_all", "scheduled_at", "priority", "job_id"),
)

blocked = _execution(
    "blocked",
    _queue_name(),
    _priority(),
    Column("concurrency_key", _String, nullable=False),
    _due("expires_at"),
    Index("index_solid_queue_blocked_executions_for_release", "concurrency_key", "priority", "job_id"),
    Index("index_solid_queue_blocked_executions_for_maintenance", "expires_at", "concurrency_key"),
)

claimed = _execution(
    "claimed",
    Column("process_id", ANY_BIG_INTEGER),
    Index("index_solid_queue_claimed_executions_on_process_id_and_job_id", "process_id", "job_id"),
)

failed = _execution("failed", Column("error", ANY_TEXT))

processes = _table(
    "processes",
    Column("kind", _String, nullable=False),
    _time("last_heartbeat_at"),
    Column("supervisor_id", ANY_BIG_INTEGER),
    Column("pid", ANY_INTEGER, nullable=False),
    Column("hostname", _String),
    Column("metadata", ANY_TEXT),
    _time("created_at"),
    Column("name", _String, nullable=False),
    Index("index_solid_queue_processes_on_last_heartbeat_at", "last_heartbeat_at"),
    Index("index_solid_queue_processes_on_name_and_supervisor_id", "name", "supervisor_id", unique=True),
    Index("index_solid_queue_processes_on_supervisor_id", "supervisor_id"),
)

pauses = _table(
    "pauses",
    _queue_name(),
    _time("created_at"),
    Index("index_solid_queue_pauses_on_queue_name", "queue_name", unique=True),
)

semaphores = _table(
    "semaphores",
    Column("key", _String, nullable=False),
    Column("value", ANY_INTEGER, nullable=False, server_default=text("1")),
    _due("expires_at"),
    _time("created_at"),
    _time("updated_at"),
    Index("index_solid_queue_semaphores_on_expires_at", "expires_at"),
    Index("index_solid_queue_semaphores_on_key_and_value", "key", "value"),
    Index("index_solid_queue_semaphores_on_key", "key", unique=True),
)

recurring_tasks = _table(
    "recurring_tasks",
    Column("key", _String, nullable=False),
    Column("schedule", _String, nullable=False),
    Column("command", any_string(2048)),
    Column("class_name", _String),
    Column("arguments", ANY_TEXT),
    Column("queue_name", _String),
    _priority(nullable=True),
    Column("static", _Boolean, nullable=False, server_default=true()),
    Column("description", ANY_TEXT),
    _time("created_at"),
    _time("updated_at"),
    Index("index_solid_queue_recurring_tasks_on_key", "key", unique=True),
    Index("index_solid_queue_recurring_tasks_on_static", "static"),
)

recurring_executions = _execution(
    "recurring",
    Column("task_key", _String, nullable=False),
    _due("run_at"),
    Index("index_solid_queue_recurring_executions_on_task_key_and_run_at", "task_key", "run_at", unique=True),
)

# -- ours -------------------------------------------------------------------------------------------------------------
# A change here needs a numbered migration in setup.py.

schema_migrations = Table(
    "jq_schema_migrations",
    jq,
    Column("version", ANY_INTEGER, primary_key=True, autoincrement=False),
    Column("name", _String, nullable=False),
    _time("applied_at"),
)

# Who changed what, when and why: one row a command, written in the transaction of its first change.
operations = Table(
    "jq_operations",
    jq,
    _id(),
    Column("verb", _String, nullable=False),
    Column("actor", _String, nullable=False),  # OS user@host
    Column("database_role", _String),  # by the database
    Column("ci_job", _String),
    Column("command", LONG_TEXT),  # the command line, secrets masked
    Column("reason", LONG_TEXT),
    Column("filter", LONG_TEXT),  # JSON: what was selected, and under which terms
    Column("plan", _String),  # the id of the plan that it applied
    Column("jobs", ANY_INTEGER, nullable=False),  # how many jobs it moved
    Column("verdicts", LONG_TEXT),  # JSON: how many jobs got which verdict
    _time("created_at"),
    _time("ended_at", nullable=True),  # from then on its row and its archived failures never change
    Index("index_jq_operations_on_created_at", "created_at"),
    Index("index_jq_operations_on_plan", "plan"),
)

# Failures that jq removed from solid_queue_failed_executions, with the job as it was. No foreign keys: they outlive it.
failures = Table(
    "jq_failures",
    jq,
    _id(),
    Column("failure_id", ANY_BIG_INTEGER, nullable=False),  # solid_queue_failed_executions.id
    Column("job_id", ANY_BIG_INTEGER, nullable=False),
    Column("active_job_id", _String),
    Column("queue_name", LONG_STRING, nullable=False),
    Column("class_name", LONG_STRING, nullable=False),
    Column("error", LONG_TEXT),
    _time("failed_at"),
    _time("archived_at"),
    Column("operation_id", ANY_BIG_INTEGER, nullable=False),
    Column("restored_by", ANY_BIG_INTEGER),  # the operation that undid the removal
    # The rest of the jobs row, for an undo.
    Column("arguments", LONG_TEXT),
    Column("priority", ANY_INTEGER, nullable=False),
    Column("concurrency_key", LONG_STRING),
    _due("scheduled_at", nullable=True),
    _time("enqueued_at", nullable=True),
    _time("updated_at", nullable=True),
    # Of a discarded job, JSON: all other columns, a later Solid Queue's or the application's own.
    Column("more", LONG_TEXT),
    Index("index_jq_failures_on_job_id", "job_id"),
    Index("index_jq_failures_on_active_job_id", "active_job_id"),
    Index("index_jq_failures_on_operation_id", "operation_id"),
)

# Every death that a job was in flight at, counted once, whichever program wrote the failure. It limits retries.
crashes = Table(
    "jq_crashes",
    jq,
    Column("failure_id", ID, primary_key=True, autoincrement=False),
    Column("subject", _String, nullable=False),  # active_job_id, which all attempts of a job share; else 'job 42'
    Column("job_id", ANY_BIG_INTEGER, nullable=False),
    Column("class_name", _String, nullable=False),
    Column("evidence", _String),  # the beginning of the error, which may name the process
    Column("death_id", ANY_BIG_INTEGER),  # jq_deaths.id, if jq saw the process end or pruned it
    _time("started_at", nullable=True),  # when the job began to run, if its process reported it
    Column("growth", ANY_BIG_INTEGER),  # bytes by which the process had grown since then, at its last heartbeat
    Column("hostname", _String),  # of the process, if jq pruned it
    Column("pid", ANY_INTEGER),
    _time("last_heartbeat_at", nullable=True),
    _time("crashed_at"),
    Column("progress", LONG_TEXT),  # of a long job: how far it was, the part of its payload that says so
    _time("saved_at", nullable=True),  # when that was written
    Index("index_jq_crashes_on_subject", "subject"),
    Index("index_jq_crashes_on_death_id", "death_id"),
)

# The end of each process that jq's supervisor reaped or jq pruned, with its evidence. Its jobs are in jq_crashes.
deaths = Table(
    "jq_deaths",
    jq,
    _id(),
    Column("process_id", ANY_BIG_INTEGER),  # solid_queue_processes.id
    Column("kind", _String),
    Column("name", _String),
    Column("hostname", _String),
    Column("pid", ANY_INTEGER),
    Column("supervisor_id", ANY_BIG_INTEGER),
    _time("started_at", nullable=True),
    _time("last_heartbeat_at", nullable=True),
    _time("noticed_at"),
    Column("noticed_by", _String, nullable=False),  # 'supervisor' or 'prune'
    Column("exit_status", ANY_INTEGER),
    Column("signal", ANY_INTEGER),
    Column("evidence", LONG_TEXT),  # JSON: see incidents/death_records.py
    Index("index_jq_deaths_on_noticed_at", "noticed_at"),
)

# The seal of each operation that has ended: its hash covers the operation, what it archived and the link before.
chain = Table(
    "jq_chain",
    jq,
    Column("position", ID, primary_key=True, autoincrement=False),  # 1, 2, ...: two commands cannot add one link
    Column("operation_id", ANY_BIG_INTEGER, nullable=False),
    Column("failures", ANY_INTEGER, nullable=False),  # rows of jq_failures that it archived or took back
    Column("failures_hash", _String, nullable=False),
    _time("sealed_at"),
    Column("previous_hash", _String, nullable=False),
    Column("hash", _String, nullable=False),
    Index("index_jq_chain_on_operation_id", "operation_id", unique=True),
)

LEDGER = (operations, failures, crashes, deaths, chain)  # the tables that grow


# -- another prefix ---------------------------------------------------------------------------------------------------

_prefix = DEFAULT_PREFIX


def prefix() -> str:
    """Return the prefix of Solid Queue's tables in this process."""
    return _prefix


def use_prefix(prefix: str) -> None:
    """Set the prefix of Solid Queue's tables for the whole process; the ``jq_`` tables keep their names.

    One process works on queues of one prefix: a ``Database`` that was opened under another raises UsageError when it is
    used. Raises UsageError for a text that cannot begin a name.
    """
    global _prefix  # noqa: PLW0603  (one prefix a process)
    if not re.fullmatch(rf"[A-Za-z_][A-Za-z0-9_]{{0,{MOST_PREFIX - 1}}}", prefix):
        raise UsageError(
            f"{prefix!r} cannot be the prefix of tables: 1 to {MOST_PREFIX} letters, digits and _, no digit first"
        )
    if prefix == _prefix:
        return
    for table in solid_queue.sorted_tables:
        table.name = table.fullname = quoted_name(prefix + table.name.removeprefix(_prefix), None)
        for index in table.indexes:
            index.name = quoted_name(_index_name(_INDEXES[index], prefix), None)
    _prefix = prefix


# The name of each index under the default prefix, which cannot be read from a shortened name.
_INDEXES = {index: str(index.name) for table in solid_queue.sorted_tables for index in table.indexes}


def _index_name(original: str, prefix: str) -> str:
    name = original.replace(DEFAULT_PREFIX, prefix, 1)
    return name if len(name) <= LONGEST_NAME else f"{name[: LONGEST_NAME - 9]}_{sha256(name.encode()).hexdigest()[:8]}"
