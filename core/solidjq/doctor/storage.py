"""Checks of the database: tables, indexes, dead rows and settings.

The code for one kind of database is in ``postgresql``, ``mysql`` and ``sqlite``; the table of all checks is here.
"""

from collections.abc import Iterator

from sqlalchemy import Connection, func, inspect, select

from solidjq.database import indexes
from solidjq.database.poolers import schema_of
from solidjq.database.tables import failed, failures, jobs, solid_queue
from solidjq.doctor import mysql, postgresql, sqlite
from solidjq.doctor.checks import DoctorCheck, DoctorFinding, DoctorTerms, Severity, everywhere
from solidjq.ledger import archive

MANY_FAILED = 100_000  # failures; from this number on, a search by time without an index is slow


def _find_missing_indexes(connection: Connection, _terms: DoctorTerms) -> Iterator[DoctorFinding]:
    for wanted in indexes.missing(connection):
        yield DoctorFinding(
            f"no index on {wanted}{', which must be unique' if wanted.unique else ''}",
            "jq init --indexes creates it while the queue goes on",
            Severity.ERROR if wanted.unique else Severity.WARNING,
        )
    some = select(failed.c.id).limit(MANY_FAILED).subquery()
    if (connection.scalar(select(func.count()).select_from(some)) or 0) >= MANY_FAILED:
        for wanted in indexes.missing(connection, indexes.ours()):
            yield DoctorFinding(
                f"{MANY_FAILED} failed jobs or more, and no index on {wanted}: jq failed list --since, failed diff and "
                "incidents read all of them",
                "jq init --indexes creates it while the queue goes on",
                Severity.NOTE,
            )


MIGRATE = "run the migrations of the Rails application's Solid Queue version; without Rails: jq init"


def _find_missing_tables(connection: Connection, _terms: DoctorTerms) -> Iterator[DoctorFinding]:
    inspector, schema = inspect(connection), schema_of(connection)
    there = set(inspector.get_table_names(schema))
    for table in solid_queue.sorted_tables:
        if table.name not in there:
            yield DoctorFinding(f"there is no table {table.name}", MIGRATE)
            continue
        columns = {column["name"]: column for column in inspector.get_columns(table.name, schema)}
        for name in table.columns.keys() - columns.keys():
            yield DoctorFinding(f"{table.name} has no column {name}: older than Solid Queue 1.0, or damaged", MIGRATE)
        for name in columns.keys() - table.columns.keys():
            if not columns[name]["nullable"] and columns[name]["default"] is None:
                yield DoctorFinding(
                    f"{table.name} has an added column {name} that must be filled: jq cannot insert rows",
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


def _find_clear_text(connection: Connection, terms: DoctorTerms) -> Iterator[DoctorFinding]:
    from solidjq.database.tls import unencrypted_host  # noqa: PLC0415  (Python's ssl is loaded where it is used)

    if host := unencrypted_host(connection):
        yield DoctorFinding(
            f"this connection to {host} is not encrypted: passwords and arguments can be read on the way",
            "sslmode=verify-full in a PostgreSQL URL, ssl_mode=verify_identity in a MySQL URL",
            Severity.NOTE,
        )
    if connection.dialect.name == "postgresql":
        yield from postgresql.find_clear_text(connection, terms)


CHECKS = (
    DoctorCheck(
        name="tables",
        asks="Tables and columns of Solid Queue that are missing, and added columns that jq cannot fill or keep in its "
        "record.",
        why="Without these, workers, dispatchers or the enqueuing application fail.",
        advice="Run Solid Queue's migrations; without Rails: jq init.",
        finds=everywhere(_find_missing_tables),
    ),
    DoctorCheck(
        name="indexes",
        asks="Indexes of Solid Queue's schema that are missing, under any name.",
        why="Polls and dispatches scan whole tables, or two rows exist where only one may.",
        advice="jq init --indexes: CONCURRENTLY on PostgreSQL, online on MySQL.",
        finds=everywhere(_find_missing_indexes),
    ),
    DoctorCheck(
        name="owners",
        asks="PostgreSQL: tables of the queue, and functions that they run, of other owners than this role, the owner "
        "of the database or of Solid Queue's tables, and superusers; functions that they run without a search_path; "
        "and which other roles may create objects in the queue's schema, or own some there. MySQL: several accounts "
        "that may make tables, views or triggers, if this one may read the rights of others.",
        why="The owner of a table or function can change what it does, with the rights of every role that writes to "
        "the queue. A function in the schema is run by every program that looks names up there; a table under a name "
        "of jq's is taken for it.",
        advice="Drop what nobody here made; give the rest to the owner of the queue's tables; REVOKE CREATE from the "
        "others.",
        finds={"postgresql": postgresql.find_owners, "mysql": mysql.find_creators},
    ),
    DoctorCheck(
        name="bloat",
        asks="More dead rows or free space than live data; an SQLite write-ahead log that only grows. The numbers are "
        "the database's own estimates: nothing is scanned.",
        why="A poll of a few rows must skip all the dead ones.",
        advice="VACUUM, and stricter autovacuum settings for the tables whose rows come and go.",
        finds={"postgresql": postgresql.find_bloat, "mysql": mysql.find_bloat, "sqlite": sqlite.find_bloat},
    ),
    DoctorCheck(
        name="vacuum",
        asks="PostgreSQL: autovacuum off, and transactions open for longer than 15 minutes.",
        why="Without vacuum, or during a long transaction, dead rows stay in the tables: the queue slows down hour by "
        "hour.",
        advice="Turn autovacuum on; end the transaction, or find out who leaves it open.",
        finds={"postgresql": postgresql.find_vacuum},
    ),
    DoctorCheck(
        name="durability",
        asks="Settings that lose commits: fsync, full_page_writes, synchronous_commit; innodb_flush_log_at_trx_commit, "
        "innodb_doublewrite.",
        why="A job whose ending was lost runs again; a job whose enqueue was lost never runs.",
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
        asks="An isolation level other than READ COMMITTED; on MySQL, a binary log that takes no writes at that level.",
        why="On MySQL, polls lock gaps and deadlock with enqueues; on PostgreSQL, they fail with serialization errors. "
        "With binlog_format = STATEMENT, MySQL refuses every write of jq.",
        advice="READ COMMITTED for the queue's connections, as Solid Queue recommends; binlog_format = MIXED or ROW.",
        finds={"postgresql": postgresql.find_isolation, "mysql": mysql.find_isolation},
    ),
    DoctorCheck(
        name="connections",
        asks="Nine of ten connections of the server in use.",
        why="A process that gets no connection cannot beat and is pruned as dead, while it still runs its jobs.",
        advice="Smaller pools, a pooler, or a higher max_connections.",
        finds={"postgresql": postgresql.find_connections, "mysql": mysql.find_connections},
    ),
    DoctorCheck(
        name="deadlocks",
        asks="One deadlock an hour or more, by the server's own count: of this database on PostgreSQL, of the whole "
        "server on MySQL, where this account may read it (PROCESS; on MariaDB every account).",
        why="The server ends one of the two transactions. Solid Queue does not try an ending again: its job stays "
        "claimed, or counts as failed although it is done.",
        advice="READ COMMITTED on MySQL, and short transactions of the application that enqueue last.",
        finds={"postgresql": postgresql.find_deadlocks, "mysql": mysql.find_deadlocks},
    ),
    DoctorCheck(
        name="notifications",
        asks="PostgreSQL: three or more transactions that wait to notify; or the trigger of jq init --notify on a "
        "queue into which 200 transactions a second or more enqueue, counted for two seconds.",
        why="PostgreSQL commits transactions that notify one after another, so all that enqueue together are as fast "
        "as one connection.",
        advice="jq init --no-notify, or several jobs in each transaction.",
        finds={"postgresql": postgresql.find_notifying},
    ),
    DoctorCheck(
        name="encryption",
        asks="A connection to another host in clear text: this one, and on PostgreSQL those of the workers and the "
        "application, as far as this role may see them (pg_read_all_stats).",
        why="Passwords and the arguments of every job can be read on the way.",
        advice="sslmode=verify-full in a PostgreSQL URL, ssl_mode=verify_identity in a MySQL URL.",
        finds=everywhere(_find_clear_text),
    ),
    DoctorCheck(
        name="engine",
        asks="MySQL: tables of another storage engine than InnoDB.",
        why="Without transactions and row locks a job can run twice or be lost.",
        advice="ALTER TABLE ... ENGINE=InnoDB while no worker runs.",
        finds={"mysql": mysql.find_engine},
    ),
    DoctorCheck(
        name="characters",
        asks="MySQL: tables in another character set than utf8mb4, and jq's own with columns shorter than their "
        "source.",
        why="A text is refused, stored with question marks, or stored in part.",
        advice="jq init mends jq's tables; ALTER TABLE ... CONVERT TO CHARACTER SET utf8mb4 the others.",
        finds={"mysql": mysql.find_character_sets},
    ),
    DoctorCheck(
        name="journal",
        asks="SQLite: a journal mode other than WAL.",
        why="Readers and writers block each other.",
        advice="PRAGMA journal_mode = WAL; the file stores it.",
        finds={"sqlite": sqlite.find_journal},
    ),
    DoctorCheck(
        name="file-system",
        asks="SQLite: a file on a network file system.",
        why="File locks there do not work across machines.",
        advice="A local disk, or a database server.",
        finds={"sqlite": sqlite.find_file_system},
    ),
    DoctorCheck(
        name="file-access",
        asks="SQLite: a file that every user of this host may read or write.",
        why="Who may write it decides what your workers run; who may read it sees the arguments of every job.",
        advice="chmod o-rwx FILE FILE-wal FILE-shm; for a group, give the file and its folder to the group.",
        finds={"sqlite": sqlite.find_access},
    ),
    DoctorCheck(
        name="integrity",
        asks="SQLite: a damaged file (PRAGMA quick_check, within --patience).",
        why="Each write into a damaged file can damage more.",
        advice="Stop everything, copy the file, recover what can be read.",
        finds={"sqlite": sqlite.find_integrity},
    ),
)
