"""Checks of MySQL and MariaDB themselves."""

from collections.abc import Iterator

from sqlalchemy import Connection

from solidjq.database import text_columns
from solidjq.database.creators import find_mysql_accounts
from solidjq.database.tables import solid_queue
from solidjq.doctor.checks import (
    MANY_BYTES,
    DoctorFinding,
    DoctorTerms,
    Severity,
    SkippedCheckError,
    fetch_rows,
    judge_connections,
    judge_deadlocks,
)
from solidjq.text import first_of

MOST_ACCOUNTS = 5  # that one finding names


def _variables(connection: Connection, *names: str) -> dict[str, str]:
    values = {}
    for name in names:  # one by one, because not every server has all of them
        for key, value in fetch_rows(connection, "SHOW GLOBAL VARIABLES LIKE :name", name=name):
            values[str(key)] = str(value)
    return values


def find_creators(connection: Connection, _terms: DoctorTerms) -> Iterator[DoctorFinding]:
    """Find more than one other account that may make tables, views or triggers: one is the application's."""
    accounts = find_mysql_accounts(connection)
    if len(accounts) > 1:
        yield DoctorFinding(
            f"{first_of(accounts, MOST_ACCOUNTS)} may make tables, views or triggers in this database",
            "REVOKE CREATE, CREATE VIEW, CREATE ROUTINE, TRIGGER from all but the account that migrates the queue",
            Severity.WARNING,
        )


def find_engine(connection: Connection, _terms: DoctorTerms) -> Iterator[DoctorFinding]:
    """Find tables of another storage engine than InnoDB."""
    query = (
        "SELECT table_name, engine FROM information_schema.tables WHERE table_schema = DATABASE() "
        "AND (table_name LIKE 'solid\\_queue\\_%' OR table_name LIKE 'jq\\_%') AND engine <> 'InnoDB' "
        "ORDER BY table_name"
    )
    for name, engine in fetch_rows(connection, query):
        yield DoctorFinding(
            f"the engine of {name} is {engine}: without transactions and row locks a job can run twice or be lost",
            f"stop all workers, then ALTER TABLE {name} ENGINE=InnoDB",
        )


def find_character_sets(connection: Connection, _terms: DoctorTerms) -> Iterator[DoctorFinding]:
    """Find tables that cannot store every text: ours of an older version, Solid Queue's in another character set."""
    names = sorted(table.name for table in text_columns.outdated(connection))
    if names:
        yield DoctorFinding(
            f"{', '.join(names)}: an older jq made them, in the database's character set or shorter than the texts "
            "that are copied into them",
            "jq init",
            Severity.WARNING,
        )
    theirs = text_columns.text_columns(connection, [table.name for table in solid_queue.sorted_tables])
    for table, columns in theirs.items():
        foreign = {c.character_set for c in columns.values()} - {text_columns.EVERY_CHARACTER}
        if foreign:
            yield DoctorFinding(
                f"the character set of {table} is {', '.join(sorted(foreign))}: a job or an error with another "
                "character is refused, or its letters become question marks",
                f"while no worker runs: ALTER TABLE {table} CONVERT TO CHARACTER SET {text_columns.EVERY_CHARACTER}",
                Severity.WARNING,
            )


def find_isolation(connection: Connection, _terms: DoctorTerms) -> Iterator[DoctorFinding]:
    """Find an isolation level other than READ COMMITTED, and a binary log that takes no writes at that level."""
    log = _variables(connection, "log_bin", "binlog_format")
    if log.get("log_bin") == "ON" and log.get("binlog_format") == "STATEMENT":
        yield DoctorFinding(
            "binlog_format is STATEMENT: the server refuses every write at READ COMMITTED, at which jq and its workers "
            "write",
            "SET GLOBAL binlog_format = MIXED (or ROW), and in my.cnf; sessions that are open keep the old one",
        )
    levels = _variables(connection, "transaction_isolation", "tx_isolation")  # old servers have the second name
    level = next(iter(levels.values()), "READ-COMMITTED")
    if level != "READ-COMMITTED":
        yield DoctorFinding(
            f"the isolation level is {level}: polls lock the gaps between rows, and workers deadlock with enqueuers "
            "unless their own connections ask for READ COMMITTED",
            "in database.yml of the queue: variables: { transaction_isolation: READ-COMMITTED }  (jq work asks for it)",
            Severity.NOTE if level == "REPEATABLE-READ" else Severity.WARNING,
        )


def find_durability(connection: Connection, _terms: DoctorTerms) -> Iterator[DoctorFinding]:
    """Find settings that lose commits."""
    flush = _variables(connection, "innodb_flush_log_at_trx_commit").get("innodb_flush_log_at_trx_commit", "1")
    if flush != "1":
        yield DoctorFinding(
            f"innodb_flush_log_at_trx_commit is {flush}: a crash loses the last commits, and jobs that ended run again",
            "SET GLOBAL innodb_flush_log_at_trx_commit = 1, and in my.cnf",
            Severity.WARNING,
        )
    if _variables(connection, "innodb_doublewrite").get("innodb_doublewrite", "ON") in {"OFF", "0"}:
        yield DoctorFinding(
            "innodb_doublewrite is off: a crash can destroy pages, unless the file system writes them whole",
            "innodb_doublewrite = ON in my.cnf",
            Severity.WARNING,
        )


def find_timeouts(connection: Connection, _terms: DoctorTerms) -> Iterator[DoctorFinding]:
    """Find time limits so short that they cancel healthy statements or connections."""
    timeouts = _variables(connection, "innodb_lock_wait_timeout", "wait_timeout")
    for name, least in (("innodb_lock_wait_timeout", 5), ("wait_timeout", 60)):
        value = timeouts.get(name, "")
        if value.isdigit() and int(value) < least:
            yield DoctorFinding(
                f"{name} is {value} s: under load it cancels healthy transactions or closes connections",
                f"SET GLOBAL {name} = {'50' if least == 5 else '28800'}, and in my.cnf",  # noqa: PLR2004
                Severity.WARNING,
            )


def find_connections(connection: Connection, _terms: DoctorTerms) -> Iterator[DoctorFinding]:
    """Find nearly all connections of the server in use."""
    ((_, used),) = fetch_rows(connection, "SHOW GLOBAL STATUS LIKE 'Threads_connected'")
    yield from judge_connections(int(used), int(_variables(connection, "max_connections")["max_connections"]))


def find_deadlocks(connection: Connection, _terms: DoctorTerms) -> Iterator[DoctorFinding]:
    """Find a server on which transactions deadlock often. MariaDB tells every account, MySQL those with PROCESS."""
    counters = dict(
        map(tuple, fetch_rows(connection, "SHOW GLOBAL STATUS WHERE variable_name IN ('Innodb_deadlocks', 'Uptime')"))
    )
    if "Innodb_deadlocks" in counters:
        yield from judge_deadlocks(int(counters["Innodb_deadlocks"]), float(counters["Uptime"]))
        return
    query = (
        "SELECT `count`, time_elapsed FROM information_schema.innodb_metrics "
        "WHERE name = 'lock_deadlocks' AND `status` = 'enabled'"
    )
    counted = fetch_rows(connection, query)
    if not counted:
        raise SkippedCheckError(
            "the server does not count deadlocks (SET GLOBAL innodb_monitor_enable = lock_deadlocks)"
        )
    for deadlocks, seconds in counted:
        yield from judge_deadlocks(int(deadlocks), float(seconds))


def find_bloat(connection: Connection, _terms: DoctorTerms) -> Iterator[DoctorFinding]:
    """Find tables with more free space than rows."""
    query = (
        "SELECT table_name, data_length + index_length, data_free FROM information_schema.tables "
        "WHERE table_schema = DATABASE() AND table_name LIKE 'solid\\_queue\\_%' ORDER BY table_name"
    )
    for name, size, free in fetch_rows(connection, query):
        if free is not None and free > MANY_BYTES and free > (size or 0):
            yield DoctorFinding(
                f"{name} has {free // 2**20} MB of free space to {(size or 0) // 2**20} MB of rows",
                f"OPTIMIZE TABLE {name}, at a quiet hour",
                Severity.NOTE,
            )
