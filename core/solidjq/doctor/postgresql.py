"""Checks of PostgreSQL itself."""

from collections.abc import Iterator
from typing import NamedTuple

from sqlalchemy import Connection

from solidjq.database import notices, owners
from solidjq.database.creators import find_creators
from solidjq.database.poolers import qualified, schema_of
from solidjq.database.tables import claimed, jobs, processes, ready, scheduled, semaphores, solid_queue
from solidjq.doctor.checks import (
    MANY_WAITING,
    DoctorFinding,
    DoctorTerms,
    Severity,
    fetch_rows,
    judge_connections,
    judge_deadlocks,
    judge_notifying,
)
from solidjq.text import count_of, printable

HOT = (
    ready,
    claimed,
    scheduled,
    jobs,
    processes,
    semaphores,
)  # tables whose rows change or come and go often


MANY_DEAD = 10_000  # dead rows
LONG_TRANSACTION = 900  # seconds
COUNTED = 2.0  # seconds; sessions report their counts at most once a second
SHORT = 5000  # milliseconds; a time limit below that ends healthy statements


def _settings(connection: Connection, *names: str) -> dict[str, str]:
    """Return settings as this role has them, in their base unit: milliseconds for times."""
    query = "SELECT name, setting FROM pg_settings WHERE name = ANY (:names)"
    return {name: value for name, value in fetch_rows(connection, query, names=list(names))}  # noqa: C416  (rows are no pairs to mypy)


def find_bloat(connection: Connection, _terms: DoctorTerms) -> Iterator[DoctorFinding]:
    """Find tables with more dead rows than live ones."""
    counted = fetch_rows(
        connection,
        "SELECT relname, n_live_tup, n_dead_tup, last_autovacuum FROM pg_stat_user_tables "
        "WHERE CASE WHEN CAST(:schema AS text) IS NULL THEN schemaname = ANY (current_schemas(false)) "
        "ELSE schemaname = :schema END AND relname = ANY (:names) ORDER BY relname",
        schema=schema_of(connection),
        names=[table.name for table in solid_queue.sorted_tables],
    )
    for name, live, dead, vacuumed in counted:
        if dead >= MANY_DEAD and dead > live:
            hot = name in {table.name for table in HOT}
            when = f"last autovacuum {vacuumed:%Y-%m-%d %H:%M} UTC" if vacuumed else "autovacuum has never run"
            table = qualified(connection, name)
            tune = (
                f"; for good: ALTER TABLE {table} SET (autovacuum_vacuum_scale_factor = 0, "
                "autovacuum_vacuum_threshold = 1000, autovacuum_vacuum_cost_delay = 0)"
            )
            yield DoctorFinding(
                f"{name} has about {dead} dead rows to {live} live ones ({when})",
                f"VACUUM (ANALYZE) {table}{tune if hot else ''}",
                Severity.WARNING,
            )


def find_vacuum(connection: Connection, _terms: DoctorTerms) -> Iterator[DoctorFinding]:
    """Find autovacuum switched off, and transactions that stay open."""
    if _settings(connection, "autovacuum").get("autovacuum") == "off":
        yield DoctorFinding(
            "autovacuum is off: the tables of a queue fill with dead rows within hours",
            "ALTER SYSTEM SET autovacuum = on; SELECT pg_reload_conf()",
        )
    old = fetch_rows(
        connection,
        "SELECT pid, usename, state, extract(epoch FROM clock_timestamp() - xact_start) AS age FROM pg_stat_activity "
        "WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_xmin IS NOT NULL "
        "AND xact_start < clock_timestamp() - :age * interval '1 second' ORDER BY xact_start LIMIT 5",
        age=LONG_TRANSACTION,
    )
    for pid, user, state, age in old:
        yield DoctorFinding(
            f"a transaction of {user} (pid {pid}, {state}) has been open for {age:.0f} s: autovacuum can remove "
            "no row deleted since then, and claims become slower",
            f"see what it does (pg_stat_activity); to end it: SELECT pg_terminate_backend({pid})",
            Severity.WARNING,
        )


def find_durability(connection: Connection, _terms: DoctorTerms) -> Iterator[DoctorFinding]:
    """Find settings that lose commits."""
    now = _settings(connection, "fsync", "full_page_writes", "synchronous_commit")
    for name in ("fsync", "full_page_writes"):
        if now.get(name) == "off":
            yield DoctorFinding(
                f"{name} is off: a crash of the server can destroy the database",
                f"ALTER SYSTEM SET {name} = on; SELECT pg_reload_conf()",
            )
    if now.get("synchronous_commit") == "off":
        yield DoctorFinding(
            "synchronous_commit is off: a crash of the server loses the last commits, and jobs that ended run again",
            "ALTER SYSTEM SET synchronous_commit = on; SELECT pg_reload_conf()  (or for the queue's role alone)",
            Severity.WARNING,
        )


def find_timeouts(connection: Connection, _terms: DoctorTerms) -> Iterator[DoctorFinding]:
    """Find time limits so short that they cancel healthy statements."""
    # reset_val, because the current value is the time limit of this check itself.
    query = (
        "SELECT name, reset_val FROM pg_settings WHERE name IN ('statement_timeout', 'lock_timeout', "
        "'idle_in_transaction_session_timeout', 'transaction_timeout') ORDER BY name"
    )
    for name, value in fetch_rows(connection, query):
        if not 0 < int(value) < SHORT:
            continue
        yield DoctorFinding(
            f"{name} is {value} ms for this role: under load it cancels healthy statements of workers and of jq",
            f"ALTER ROLE CURRENT_USER SET {name} = '30s'",
            Severity.WARNING,
        )


def find_isolation(connection: Connection, _terms: DoctorTerms) -> Iterator[DoctorFinding]:
    """Find an isolation level other than READ COMMITTED."""
    level = _settings(connection, "default_transaction_isolation").get("default_transaction_isolation")
    if level in {"repeatable read", "serializable"}:
        yield DoctorFinding(
            f"default_transaction_isolation is {level}: workers that poll together fail with serialization errors",
            "ALTER ROLE CURRENT_USER SET default_transaction_isolation = 'read committed'",
            Severity.WARNING,
        )


def find_connections(connection: Connection, _terms: DoctorTerms) -> Iterator[DoctorFinding]:
    """Find nearly all connections of the server in use."""
    ((used, most),) = fetch_rows(
        connection,
        "SELECT (SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend'), "
        "current_setting('max_connections')::int",
    )
    yield from judge_connections(used, most)


def find_deadlocks(connection: Connection, _terms: DoctorTerms) -> Iterator[DoctorFinding]:
    """Find a database in which transactions deadlock often."""
    # Since PostgreSQL 15 a database does not record since when it counts; the server's own counters began before it.
    query = (
        "SELECT deadlocks, extract(epoch FROM clock_timestamp() - coalesce(d.stats_reset, "
        "least(b.stats_reset, a.stats_reset))) FROM pg_stat_database d, pg_stat_bgwriter b, pg_stat_archiver a "
        "WHERE datname = current_database()"
    )
    for deadlocks, seconds in fetch_rows(connection, query):
        yield from judge_deadlocks(int(deadlocks), None if seconds is None else float(seconds))


def find_notifying(connection: Connection, _terms: DoctorTerms) -> Iterator[DoctorFinding]:
    """Find a queue into which very many transactions enqueue that notify: by the trigger, or by themselves.

    If the trigger is there, or transactions wait to notify, this takes COUNTED seconds.
    """
    triggered = notices.announces_all(connection)
    table = qualified(connection, ready.name)
    before = _notifying(connection, table)
    if not triggered and before.waiting < MANY_WAITING:
        return
    _wait(connection)
    after = _notifying(connection, table)
    # A transaction that only reads notifies nobody, and one that enqueues inserts at least a row.
    counted = min(after.commits - before.commits, after.rows - before.rows)
    rate = counted / (after.at - before.at)
    yield from judge_notifying(rate, min(before.waiting, after.waiting), triggered=triggered)


class _Notifying(NamedTuple):
    """Counts of committed transactions and of rows inserted into the table, those who wait to notify, the time in s."""

    commits: int
    rows: int
    waiting: int
    at: float


def _notifying(connection: Connection, table: str) -> _Notifying:
    # A transaction that notifies locks "database 0" until its commit is durable.
    ((commits, rows, waiting, at),) = fetch_rows(
        connection,
        "SELECT xact_commit, pg_stat_get_tuples_inserted(to_regclass(:table)), (SELECT count(*) FROM pg_locks WHERE "
        "NOT granted AND locktype = 'object' AND classid = CAST('pg_database' AS regclass) AND objid = 0), "
        "extract(epoch FROM clock_timestamp()) FROM pg_stat_database WHERE datname = current_database()",
        table=table,
    )
    return _Notifying(int(commits), int(rows), int(waiting), float(at))


def _wait(connection: Connection) -> None:
    fetch_rows(connection, "SELECT pg_sleep(:seconds)", seconds=COUNTED)
    fetch_rows(connection, "SELECT pg_stat_clear_snapshot()")  # counters stay as this transaction read them first


def find_clear_text(connection: Connection, _terms: DoctorTerms) -> Iterator[DoctorFinding]:
    """Find other programs' connections to the queue's database from other hosts without TLS."""
    # Without pg_read_all_stats the addresses of other roles' connections are NULL: they are not seen.
    query = (
        "SELECT usename, host(client_addr), count(*) FROM pg_stat_activity JOIN pg_stat_ssl USING (pid) "
        "WHERE datname = current_database() AND pid <> pg_backend_pid() AND NOT ssl AND client_addr IS NOT NULL "
        "AND NOT client_addr <<= '127.0.0.0/8' AND client_addr <> '::1' "
        "AND client_addr IS DISTINCT FROM inet_server_addr() "
        "GROUP BY usename, client_addr ORDER BY 3 DESC, 1, 2 LIMIT 5"
    )
    for user, host, count in fetch_rows(connection, query):
        yield DoctorFinding(
            printable(
                f"{count_of(count, 'connection')} of {user} from {host} {'is' if count == 1 else 'are'} not encrypted"
            ),
            "sslmode=verify-full in that program's URL or database.yml, and hostssl instead of host in pg_hba.conf",
            Severity.NOTE,
        )


def find_owners(connection: Connection, _terms: DoctorTerms) -> Iterator[DoctorFinding]:
    """Find tables of the queue and functions that they run which a role owns whom nobody has reason to trust."""
    for foreign in owners.find_foreign(connection, trust_queue_owner=True):
        yield DoctorFinding(str(foreign), owners.ADVICE)
    theirs = [str(table.name) for table in solid_queue.sorted_tables]
    for foreign in owners.find_foreign(connection, theirs, trust_queue_owner=True):
        if foreign.of_table or foreign.kind != "function":  # jq_notify() was found above
            yield DoctorFinding(
                str(foreign),
                "whoever owns it acts with the rights of everybody who writes to the queue: see that this is meant",
                Severity.WARNING,
            )
    for function in owners.find_without_path(connection):
        own = function.name == owners.NOTIFY_FUNCTION
        yield DoctorFinding(
            printable(
                f"the function {function.signature}, which {function.of_table} runs, has no search_path of its own: "
                + ("an earlier jq made it" if own else "under jq it finds only what it names with a schema")
            ),
            "jq init --notify makes it again"
            if own
            else printable(f"ALTER FUNCTION {function.signature} SET search_path = ...: the schemas that it needs"),
            Severity.NOTE,
        )
    yield from _creators(connection)


def _creators(connection: Connection) -> Iterator[DoctorFinding]:
    quote = connection.dialect.identifier_preparer.quote
    for creator in find_creators(connection):
        grantee = "PUBLIC" if creator.role is None else quote(creator.role)
        does = []
        advice = []
        if creator.may_create:
            does.append("may create objects")
            advice.append(f"REVOKE CREATE ON SCHEMA {quote(creator.schema)} FROM {grantee}")
        if creator.objects:
            code = " (functions or operators among them)" if creator.has_code else ""
            does.append(f"owns {count_of(creator.objects, 'object')}{code}")
            advice.append("see that its objects there are meant")
        yield DoctorFinding(
            printable(
                f"{creator} {' and '.join(does)} in the queue's schema {creator.schema}: programs that look names up "
                "there, as Rails does, would run its functions"
            ),
            printable("; ".join(advice)),
            Severity.WARNING if creator.may_create or creator.has_code else Severity.NOTE,
        )
