"""Indexes, dead rows and settings of the database: what no job shows, and all jobs feel.

What is asked of one kind of database only stands here and not in dialects.py: it is the check itself.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, func, inspect, select, text

from solidjq.database import indexes
from solidjq.database.tables import (
    claimed,
    failed,
    failures,
    jobs,
    processes,
    ready,
    scheduled,
    semaphores,
    solid_queue,
)
from solidjq.doctor.checks import Check, Finding, Severity, Terms, everywhere
from solidjq.ledger import archive

HOT = (ready, claimed, scheduled, jobs, processes, semaphores)  # tables whose rows come and go, or change often
MANY_FAILED = 100_000  # failures; from so many on, finding those of a time without an index takes long
MANY_DEAD = 10_000  # dead rows
MANY_BYTES = 256 * 2**20
LONG_TRANSACTION = 900  # seconds
SHORT = 5000  # milliseconds; a time limit below that ends healthy statements
NEARLY = 0.9
NETWORKED = frozenset({"nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "fuse.sshfs", "glusterfs", "ceph", "fuse.s3fs"})


def _find_missing_indexes(connection: Connection, _terms: Terms) -> Iterator[Finding]:
    for wanted in indexes.missing(connection):
        yield Finding(
            f"no index on {wanted}{', which must be unique' if wanted.unique else ''}",
            "jq init --indexes makes it while the queue goes on",
            Severity.ERROR if wanted.unique else Severity.WARNING,
        )
    some = select(failed.c.id).limit(MANY_FAILED).subquery()
    if (connection.scalar(select(func.count()).select_from(some)) or 0) >= MANY_FAILED:
        for wanted in indexes.missing(connection, indexes.ours()):
            yield Finding(
                f"{MANY_FAILED} failed jobs or more, and no index on {wanted}: jq failed list --since, failed diff and "
                "incidents read all of them",
                "jq init --indexes makes it while the queue goes on",
                Severity.NOTE,
            )


def _rows(connection: Connection, query: str, **values: object) -> list[Any]:
    return list(connection.execute(text(query), values))


# -- PostgreSQL -------------------------------------------------------------------------------------------------------


def _settings(connection: Connection, *names: str) -> dict[str, str]:
    """Return settings in their base unit (milliseconds for all times asked for here), as this role has them."""
    query = "SELECT name, setting FROM pg_settings WHERE name = ANY (:names)"
    return {name: value for name, value in _rows(connection, query, names=list(names))}  # noqa: C416  (rows are no pairs to mypy)


def _postgresql_bloat(connection: Connection, _terms: Terms) -> Iterator[Finding]:
    counted = _rows(
        connection,
        "SELECT relname, n_live_tup, n_dead_tup, last_autovacuum FROM pg_stat_user_tables "
        "WHERE schemaname = ANY (current_schemas(false)) AND relname = ANY (:names) ORDER BY relname",
        names=[table.name for table in solid_queue.sorted_tables],
    )
    for name, live, dead, vacuumed in counted:
        if dead >= MANY_DEAD and dead > live:
            hot = name in {table.name for table in HOT}
            when = f"last autovacuum {vacuumed:%Y-%m-%d %H:%M} UTC" if vacuumed else "autovacuum was never there"
            tune = (
                f"; for good: ALTER TABLE {name} SET (autovacuum_vacuum_scale_factor = 0, "
                "autovacuum_vacuum_threshold = 1000, autovacuum_vacuum_cost_delay = 0)"
            )
            yield Finding(
                f"{name} has about {dead} dead rows to {live} live ones ({when})",
                f"VACUUM (ANALYZE) {name}{tune if hot else ''}",
                Severity.WARNING,
            )


def _postgresql_vacuum(connection: Connection, _terms: Terms) -> Iterator[Finding]:
    if _settings(connection, "autovacuum").get("autovacuum") == "off":
        yield Finding(
            "autovacuum is off: the tables of a queue fill with dead rows within hours",
            "ALTER SYSTEM SET autovacuum = on; SELECT pg_reload_conf()",
        )
    old = _rows(
        connection,
        "SELECT pid, usename, state, extract(epoch FROM clock_timestamp() - xact_start) AS age FROM pg_stat_activity "
        "WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_xmin IS NOT NULL "
        "AND xact_start < clock_timestamp() - :age * interval '1 second' ORDER BY xact_start LIMIT 5",
        age=LONG_TRANSACTION,
    )
    for pid, user, state, age in old:
        yield Finding(
            f"a transaction of {user} (pid {pid}, {state}) has been open for {age:.0f} s: no row deleted since can be "
            "cleaned away, and claims grow slower",
            f"see what it does (pg_stat_activity); to end it: SELECT pg_terminate_backend({pid})",
            Severity.WARNING,
        )


def _postgresql_durability(connection: Connection, _terms: Terms) -> Iterator[Finding]:
    now = _settings(connection, "fsync", "full_page_writes", "synchronous_commit")
    for name in ("fsync", "full_page_writes"):
        if now.get(name) == "off":
            yield Finding(
                f"{name} is off: a crash of the server can destroy the database",
                f"ALTER SYSTEM SET {name} = on; SELECT pg_reload_conf()",
            )
    if now.get("synchronous_commit") == "off":
        yield Finding(
            "synchronous_commit is off: a crash of the server loses the last commits, and jobs that ended run again",
            "ALTER SYSTEM SET synchronous_commit = on; SELECT pg_reload_conf()  (or for the queue's role alone)",
            Severity.WARNING,
        )


def _postgresql_timeouts(connection: Connection, _terms: Terms) -> Iterator[Finding]:
    # reset_val: what is in force just now is this check's own time limit.
    query = (
        "SELECT name, reset_val FROM pg_settings WHERE name IN ('statement_timeout', 'lock_timeout', "
        "'idle_in_transaction_session_timeout', 'transaction_timeout') ORDER BY name"
    )
    for name, value in _rows(connection, query):
        if not 0 < int(value) < SHORT:
            continue
        yield Finding(
            f"{name} is {value} ms for this role: under load it ends healthy statements of workers and of jq",
            f"ALTER ROLE CURRENT_USER SET {name} = '30s'",
            Severity.WARNING,
        )


def _postgresql_isolation(connection: Connection, _terms: Terms) -> Iterator[Finding]:
    level = _settings(connection, "default_transaction_isolation").get("default_transaction_isolation")
    if level in {"repeatable read", "serializable"}:
        yield Finding(
            f"default_transaction_isolation is {level}: workers that poll together fail with serialization errors",
            "ALTER ROLE CURRENT_USER SET default_transaction_isolation = 'read committed'",
            Severity.WARNING,
        )


def _postgresql_connections(connection: Connection, _terms: Terms) -> Iterator[Finding]:
    ((used, most),) = _rows(
        connection,
        "SELECT (SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend'), "
        "current_setting('max_connections')::int",
    )
    yield from judge_connections(used, most)


def judge_connections(used: int, most: int) -> Iterator[Finding]:
    """Warn while a few connections are left: the next process to start could be the supervisor that prunes."""
    if used >= NEARLY * most:
        yield Finding(
            f"{used} of {most} connections are in use: soon workers cannot beat, and are pruned as dead",
            "lower pools and threads, put a pooler in between, or raise max_connections",
            Severity.WARNING,
        )


# -- MySQL and MariaDB ------------------------------------------------------------------------------------------------


def _variables(connection: Connection, *names: str) -> dict[str, str]:
    found = {}
    for name in names:  # one by one: their number differs from server to server
        for key, value in _rows(connection, "SHOW GLOBAL VARIABLES LIKE :name", name=name):
            found[str(key)] = str(value)
    return found


def _mysql_engine(connection: Connection, _terms: Terms) -> Iterator[Finding]:
    query = (
        "SELECT table_name, engine FROM information_schema.tables WHERE table_schema = DATABASE() "
        "AND (table_name LIKE 'solid\\_queue\\_%' OR table_name LIKE 'jq\\_%') AND engine <> 'InnoDB' "
        "ORDER BY table_name"
    )
    for name, engine in _rows(connection, query):
        yield Finding(
            f"{name} is kept by {engine}: without transactions and row locks a job can run twice or be lost",
            f"stop all workers, then ALTER TABLE {name} ENGINE=InnoDB",
        )


def _mysql_isolation(connection: Connection, _terms: Terms) -> Iterator[Finding]:
    found = _variables(connection, "transaction_isolation", "tx_isolation")
    level = next(iter(found.values()), "READ-COMMITTED")
    if level != "READ-COMMITTED":
        yield Finding(
            f"the isolation level is {level}: polls lock the gaps between rows, and workers deadlock with enqueuers "
            "unless their own connections ask for READ COMMITTED",
            "in database.yml of the queue: variables: { transaction_isolation: READ-COMMITTED }  (jq work asks for it)",
            Severity.NOTE if level == "REPEATABLE-READ" else Severity.WARNING,
        )


def _mysql_durability(connection: Connection, _terms: Terms) -> Iterator[Finding]:
    flush = _variables(connection, "innodb_flush_log_at_trx_commit").get("innodb_flush_log_at_trx_commit", "1")
    if flush != "1":
        yield Finding(
            f"innodb_flush_log_at_trx_commit is {flush}: a crash loses the last commits, and jobs that ended run again",
            "SET GLOBAL innodb_flush_log_at_trx_commit = 1, and in my.cnf",
            Severity.WARNING,
        )
    if _variables(connection, "innodb_doublewrite").get("innodb_doublewrite", "ON") in {"OFF", "0"}:
        yield Finding(
            "innodb_doublewrite is off: a crash can destroy pages, unless the file system writes them whole",
            "innodb_doublewrite = ON in my.cnf",
            Severity.WARNING,
        )


def _mysql_timeouts(connection: Connection, _terms: Terms) -> Iterator[Finding]:
    found = _variables(connection, "innodb_lock_wait_timeout", "wait_timeout")
    for name, least in (("innodb_lock_wait_timeout", 5), ("wait_timeout", 60)):
        value = found.get(name, "")
        if value.isdigit() and int(value) < least:
            yield Finding(
                f"{name} is {value} s: under load it ends healthy transactions or connections",
                f"SET GLOBAL {name} = {'50' if least == 5 else '28800'}, and in my.cnf",  # noqa: PLR2004
                Severity.WARNING,
            )


def _mysql_connections(connection: Connection, _terms: Terms) -> Iterator[Finding]:
    ((_, used),) = _rows(connection, "SHOW GLOBAL STATUS LIKE 'Threads_connected'")
    yield from judge_connections(int(used), int(_variables(connection, "max_connections")["max_connections"]))


def _mysql_bloat(connection: Connection, _terms: Terms) -> Iterator[Finding]:
    query = (
        "SELECT table_name, data_length + index_length, data_free FROM information_schema.tables "
        "WHERE table_schema = DATABASE() AND table_name LIKE 'solid\\_queue\\_%' ORDER BY table_name"
    )
    for name, size, free in _rows(connection, query):
        if free is not None and free > MANY_BYTES and free > (size or 0):
            yield Finding(
                f"{name} has {free // 2**20} MB of free room to {(size or 0) // 2**20} MB of rows",
                f"OPTIMIZE TABLE {name}, at a quiet hour",
                Severity.NOTE,
            )


# -- SQLite -----------------------------------------------------------------------------------------------------------


def _pragma(connection: Connection, name: str) -> Any:
    return connection.exec_driver_sql(f"PRAGMA {name}").scalar()


def _file(connection: Connection) -> Path:
    """Return the main database's file."""
    return Path(next(str(row[2]) for row in connection.exec_driver_sql("PRAGMA database_list") if row[1] == "main"))


def _sqlite_journal(connection: Connection, _terms: Terms) -> Iterator[Finding]:
    mode = str(_pragma(connection, "journal_mode"))
    if mode in {"off", "memory"}:
        yield Finding(
            f"the journal mode is {mode}: a process that dies while it writes destroys the database",
            f"sqlite3 {_file(connection)} 'PRAGMA journal_mode = WAL'",
        )
    elif mode != "wal":
        yield Finding(
            f"the journal mode is {mode}: readers and writers stop each other, and workers meet a busy database",
            f"sqlite3 {_file(connection)} 'PRAGMA journal_mode = WAL'",
            Severity.WARNING,
        )


def _sqlite_file_system(connection: Connection, _terms: Terms) -> Iterator[Finding]:
    path = _file(connection).resolve()
    try:
        mounts = Path("/proc/mounts").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return
    kind = file_system(path, mounts)
    if kind in NETWORKED:
        yield Finding(
            f"{path} lies on a network file system ({kind}): its locks do not hold, and the database gets damaged",
            "move it to a local disk, or use a database server",
        )


def file_system(path: Path, mounts: list[str]) -> str | None:
    """Return the kind of file system that a path lies on, by the lines of /proc/mounts."""
    found: tuple[int, str | None] = (-1, None)
    for line in mounts:
        parts = line.split(" ")
        if len(parts) > 2:  # noqa: PLR2004
            point = Path(parts[1].replace("\\040", " "))
            if path.is_relative_to(point) and len(point.parts) >= found[0]:
                found = (len(point.parts), parts[2])
    return found[1]


def _sqlite_integrity(connection: Connection, _terms: Terms) -> Iterator[Finding]:
    said = [str(row[0]) for row in connection.exec_driver_sql("PRAGMA quick_check(5)")]
    if said != ["ok"]:
        yield Finding(
            f"the file is damaged: {'; '.join(said)}",
            "stop all programs, keep a copy of the file, its -wal and -shm, and save what can be read: "
            f"sqlite3 {_file(connection)} .recover",
        )


def _sqlite_bloat(connection: Connection, _terms: Terms) -> Iterator[Finding]:
    free, pages, size = (int(_pragma(connection, name)) for name in ("freelist_count", "page_count", "page_size"))
    if free * size > MANY_BYTES and free * 2 > pages:
        yield Finding(
            f"{free * size // 2**20} MB of the file's {pages * size // 2**20} MB are free room",
            f"sqlite3 {_file(connection)} VACUUM, at a quiet hour: it stops every writer",
            Severity.NOTE,
        )
    log = _file(connection).with_name(_file(connection).name + "-wal")
    if log.exists() and log.stat().st_size > MANY_BYTES:
        yield Finding(
            f"the write-ahead log has grown to {log.stat().st_size // 2**20} MB: a reader that never ends keeps it",
            "find the program with the long transaction (lsof on the file); then PRAGMA wal_checkpoint(TRUNCATE)",
            Severity.WARNING,
        )


MIGRATE = "run the migrations of the Rails application's Solid Queue version; without Rails: jq init"


def _tables_there(connection: Connection, _terms: Terms) -> Iterator[Finding]:
    inspector = inspect(connection)
    there = set(inspector.get_table_names())
    for table in solid_queue.sorted_tables:
        if table.name not in there:
            yield Finding(f"there is no table {table.name}", MIGRATE)
            continue
        columns = {column["name"]: column for column in inspector.get_columns(table.name)}
        for name in table.columns.keys() - columns.keys():
            yield Finding(f"{table.name} has no column {name}: older than Solid Queue 1.0, or damaged", MIGRATE)
        for name in columns.keys() - table.columns.keys():
            if not columns[name]["nullable"] and columns[name]["default"] is None:
                yield Finding(
                    f"{table.name} has a column {name} of its own that must be filled: jq cannot insert there",
                    "give the column a default, or let it be NULL",
                    Severity.WARNING,
                )
    more = archive.more_columns(connection) if {jobs.name, failures.name} <= there else {}
    if more and not archive.keeps_more(connection):
        yield Finding(
            f"jq's record has no room for {', '.join(more)} of {jobs.name}: jq discard is refused",
            "jq init",
            Severity.NOTE,
        )


CHECKS = (
    Check(
        name="tables",
        asks="Tables and columns of Solid Queue that are missing, and others that only their owner can fill, or that "
        "jq's record has no room for.",
        why="What needs them fails: workers, dispatchers, or the application that enqueues.",
        fix="Run Solid Queue's migrations; without Rails: jq init.",
        looks=everywhere(_tables_there),
    ),
    Check(
        name="indexes",
        asks="Indexes of Solid Queue's schema that are missing, whatever they are called.",
        why="Polls and dispatches read whole tables, or two rows come where one may be.",
        fix="jq init --indexes: CONCURRENTLY on PostgreSQL, online on MySQL.",
        looks=everywhere(_find_missing_indexes),
    ),
    Check(
        name="bloat",
        asks="Dead rows or free room that outweigh what is alive; an SQLite write-ahead log that only grows. The "
        "database's own estimates; nothing is scanned.",
        why="A poll of a few rows has to step over all the dead ones.",
        fix="VACUUM, and stricter autovacuum settings for the tables whose rows come and go.",
        looks={"postgresql": _postgresql_bloat, "mysql": _mysql_bloat, "sqlite": _sqlite_bloat},
    ),
    Check(
        name="vacuum",
        asks="PostgreSQL: autovacuum off, and transactions open for longer than 15 minutes.",
        why="Both keep dead rows in the tables; a queue slows down hour by hour.",
        fix="Turn autovacuum on; end the transaction, or find out who leaves it open.",
        looks={"postgresql": _postgresql_vacuum},
    ),
    Check(
        name="durability",
        asks="Settings that lose commits: fsync, full_page_writes, synchronous_commit; innodb_flush_log_at_trx_commit, "
        "innodb_doublewrite.",
        why="A job whose end was lost runs again, and a claim that was lost never ran.",
        fix="Turn them on. (On SQLite synchronous belongs to each connection and cannot be seen.)",
        looks={"postgresql": _postgresql_durability, "mysql": _mysql_durability},
    ),
    Check(
        name="timeouts",
        asks="Time limits of the server so short that they end healthy work.",
        why="A poll or an ending that waits for a lock under load is cancelled; the job stays claimed.",
        fix="30 s or more for this role.",
        looks={"postgresql": _postgresql_timeouts, "mysql": _mysql_timeouts},
    ),
    Check(
        name="isolation",
        asks="An isolation level other than READ COMMITTED.",
        why="On MySQL polls then lock gaps and deadlock with enqueues; on PostgreSQL they fail to serialize.",
        fix="READ COMMITTED for the queue's connections, as Solid Queue recommends.",
        looks={"postgresql": _postgresql_isolation, "mysql": _mysql_isolation},
    ),
    Check(
        name="connections",
        asks="Nine of ten connections in use.",
        why="A process that gets none cannot beat and is pruned as dead, with jobs that it still runs.",
        fix="Smaller pools, a pooler, or a higher max_connections.",
        looks={"postgresql": _postgresql_connections, "mysql": _mysql_connections},
    ),
    Check(
        name="engine",
        asks="MySQL: tables that InnoDB does not keep.",
        why="Without transactions and row locks no queue holds.",
        fix="ALTER TABLE ... ENGINE=InnoDB while no worker runs.",
        looks={"mysql": _mysql_engine},
    ),
    Check(
        name="journal",
        asks="SQLite: a journal mode other than WAL.",
        why="Readers and writers stop each other.",
        fix="PRAGMA journal_mode = WAL; the file remembers it.",
        looks={"sqlite": _sqlite_journal},
    ),
    Check(
        name="file-system",
        asks="SQLite: a file on a network file system.",
        why="Its locks do not hold across machines.",
        fix="A local disk, or a database server.",
        looks={"sqlite": _sqlite_file_system},
    ),
    Check(
        name="integrity",
        asks="SQLite: a damaged file (quick_check, as far as it comes within --patience).",
        why="Writes into a damaged file damage more.",
        fix="Stop everything, copy the file, recover what can be read.",
        looks={"sqlite": _sqlite_integrity},
    ),
)
