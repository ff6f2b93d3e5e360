"""Indexes, dead rows and settings of the database: what no job shows, and all jobs feel.

What is asked of one kind of database only stands here and not in dialects.py: it is the check itself.
"""

from collections.abc import Iterator

from sqlalchemy import Connection, func, inspect, select

from solidjq.database import indexes
from solidjq.database.tables import failed, failures, jobs, solid_queue
from solidjq.doctor import mysql, postgresql, sqlite
from solidjq.doctor.checks import DoctorCheck, DoctorFinding, DoctorTerms, Severity, everywhere
from solidjq.ledger import archive

MANY_FAILED = 100_000  # failures; from so many on, finding those of a time without an index takes long


def _find_missing_indexes(connection: Connection, _terms: DoctorTerms) -> Iterator[DoctorFinding]:
    for wanted in indexes.missing(connection):
        yield DoctorFinding(
            f"no index on {wanted}{', which must be unique' if wanted.unique else ''}",
            "jq init --indexes makes it while the queue goes on",
            Severity.ERROR if wanted.unique else Severity.WARNING,
        )
    some = select(failed.c.id).limit(MANY_FAILED).subquery()
    if (connection.scalar(select(func.count()).select_from(some)) or 0) >= MANY_FAILED:
        for wanted in indexes.missing(connection, indexes.ours()):
            yield DoctorFinding(
                f"{MANY_FAILED} failed jobs or more, and no index on {wanted}: jq failed list --since, failed diff and "
                "incidents read all of them",
                "jq init --indexes makes it while the queue goes on",
                Severity.NOTE,
            )


MIGRATE = "run the migrations of the Rails application's Solid Queue version; without Rails: jq init"


def _tables_there(connection: Connection, _terms: DoctorTerms) -> Iterator[DoctorFinding]:
    inspector = inspect(connection)
    there = set(inspector.get_table_names())
    for table in solid_queue.sorted_tables:
        if table.name not in there:
            yield DoctorFinding(f"there is no table {table.name}", MIGRATE)
            continue
        columns = {column["name"]: column for column in inspector.get_columns(table.name)}
        for name in table.columns.keys() - columns.keys():
            yield DoctorFinding(f"{table.name} has no column {name}: older than Solid Queue 1.0, or damaged", MIGRATE)
        for name in columns.keys() - table.columns.keys():
            if not columns[name]["nullable"] and columns[name]["default"] is None:
                yield DoctorFinding(
                    f"{table.name} has a column {name} of its own that must be filled: jq cannot insert there",
                    "give the column a default, or let it be NULL",
                    Severity.WARNING,
                )
    more = archive.more_columns(connection) if {jobs.name, failures.name} <= there else {}
    if more and not archive.has_more_column(connection):
        yield DoctorFinding(
            f"jq's record has no room for {', '.join(more)} of {jobs.name}: jq discard is refused",
            "jq init",
            Severity.NOTE,
        )


CHECKS = (
    DoctorCheck(
        name="tables",
        asks="Tables and columns of Solid Queue that are missing, and others that only their owner can fill, or that "
        "jq's record has no room for.",
        why="What needs them fails: workers, dispatchers, or the application that enqueues.",
        advice="Run Solid Queue's migrations; without Rails: jq init.",
        finds=everywhere(_tables_there),
    ),
    DoctorCheck(
        name="indexes",
        asks="Indexes of Solid Queue's schema that are missing, whatever they are called.",
        why="Polls and dispatches read whole tables, or two rows come where one may be.",
        advice="jq init --indexes: CONCURRENTLY on PostgreSQL, online on MySQL.",
        finds=everywhere(_find_missing_indexes),
    ),
    DoctorCheck(
        name="bloat",
        asks="Dead rows or free room that outweigh what is alive; an SQLite write-ahead log that only grows. The "
        "database's own estimates; nothing is scanned.",
        why="A poll of a few rows has to step over all the dead ones.",
        advice="VACUUM, and stricter autovacuum settings for the tables whose rows come and go.",
        finds={"postgresql": postgresql.find_bloat, "mysql": mysql.find_bloat, "sqlite": sqlite.find_bloat},
    ),
    DoctorCheck(
        name="vacuum",
        asks="PostgreSQL: autovacuum off, and transactions open for longer than 15 minutes.",
        why="Both keep dead rows in the tables; a queue slows down hour by hour.",
        advice="Turn autovacuum on; end the transaction, or find out who leaves it open.",
        finds={"postgresql": postgresql.find_vacuum},
    ),
    DoctorCheck(
        name="durability",
        asks="Settings that lose commits: fsync, full_page_writes, synchronous_commit; innodb_flush_log_at_trx_commit, "
        "innodb_doublewrite.",
        why="A job whose end was lost runs again, and a claim that was lost never ran.",
        advice="Turn them on. (On SQLite synchronous belongs to each connection and cannot be seen.)",
        finds={"postgresql": postgresql.find_durability, "mysql": mysql.find_durability},
    ),
    DoctorCheck(
        name="timeouts",
        asks="Time limits of the server so short that they end healthy work.",
        why="A poll or an ending that waits for a lock under load is cancelled; the job stays claimed.",
        advice="30 s or more for this role.",
        finds={"postgresql": postgresql.find_timeouts, "mysql": mysql.find_timeouts},
    ),
    DoctorCheck(
        name="isolation",
        asks="An isolation level other than READ COMMITTED.",
        why="On MySQL polls then lock gaps and deadlock with enqueues; on PostgreSQL they fail to serialize.",
        advice="READ COMMITTED for the queue's connections, as Solid Queue recommends.",
        finds={"postgresql": postgresql.find_isolation, "mysql": mysql.find_isolation},
    ),
    DoctorCheck(
        name="connections",
        asks="Nine of ten connections in use.",
        why="A process that gets none cannot beat and is pruned as dead, with jobs that it still runs.",
        advice="Smaller pools, a pooler, or a higher max_connections.",
        finds={"postgresql": postgresql.find_connections, "mysql": mysql.find_connections},
    ),
    DoctorCheck(
        name="engine",
        asks="MySQL: tables that InnoDB does not keep.",
        why="Without transactions and row locks no queue holds.",
        advice="ALTER TABLE ... ENGINE=InnoDB while no worker runs.",
        finds={"mysql": mysql.find_engine},
    ),
    DoctorCheck(
        name="journal",
        asks="SQLite: a journal mode other than WAL.",
        why="Readers and writers stop each other.",
        advice="PRAGMA journal_mode = WAL; the file remembers it.",
        finds={"sqlite": sqlite.find_journal},
    ),
    DoctorCheck(
        name="file-system",
        asks="SQLite: a file on a network file system.",
        why="Its locks do not hold across machines.",
        advice="A local disk, or a database server.",
        finds={"sqlite": sqlite.find_file_system},
    ),
    DoctorCheck(
        name="integrity",
        asks="SQLite: a damaged file (quick_check, as far as it comes within --patience).",
        why="Writes into a damaged file damage more.",
        advice="Stop everything, copy the file, recover what can be read.",
        finds={"sqlite": sqlite.find_integrity},
    ),
)
