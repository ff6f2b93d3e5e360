"""Grants: the least rights that ``jq`` needs on a server, as SQL that an administrator can paste.

These statements are text for a person; the program never executes them.
"""

import os
import shlex
from collections import defaultdict
from collections.abc import Iterable, Iterator
from enum import StrEnum
from pathlib import Path
from typing import Any

from sqlalchemy import Column, Table
from sqlalchemy.engine import URL
from sqlalchemy.exc import DBAPIError

from solidjq.database import tables, urls
from solidjq.database.poolers import SEARCH_PATH, schemas_of, split_options
from solidjq.errors import UsageError
from solidjq.text import printable

OF_FILES = (
    "SQLite has no roles; file permissions decide: to read, read the file; to recover, and for jq init, write to "
    "the file and to its folder (as a reader too may have to, while no program has the file open)"
)
LONGEST_NAME = 63  # bytes; PostgreSQL truncates a longer name, and would grant to another role


class Purpose(StrEnum):
    """What a role may do."""

    READING = "reading"  # every command that only reads
    RECOVERING = "recovering"  # prune, retry, recover, discard, undo, pause, resume, doctor --fix; reading included
    INIT = "init"  # jq init, where Solid Queue's tables exist


_HEADINGS = {
    Purpose.READING: ("to read: lists, show, history, prune --dry-run",),
    Purpose.RECOVERING: (
        "to recover, reading included: prune, retry, recover, discard, undo, queues pause and resume, doctor --fix",
    ),
    Purpose.INIT: (
        "for jq init: to make the jq_ tables beside Solid Queue's own",
        "(where Solid Queue's are missing too, let an administrator run jq init)",
    ),
}
# Rights on tables that do not exist cannot be granted.
_AFTER_INIT = "the jq_ tables must be there first: run jq init, then grant"
# MySQL has no way to say "if it was granted".
_EARLIER_GRANTS = (
    "to an account that an earlier version of jq grants let rewrite the record, say first:",
    f"REVOKE UPDATE ON ... FROM ..., for each of {', '.join(table.name for table in tables.LEDGER[:-1])}",
)

# What the moves do to Solid Queue's tables, besides SELECT. SELECT ... FOR UPDATE needs the right to UPDATE.
_WRITES: dict[Table, tuple[str, ...]] = {
    tables.jobs: ("INSERT", "UPDATE", "DELETE"),  # a discard deletes jobs, its undo inserts them again
    tables.ready: ("INSERT", "UPDATE", "DELETE"),
    tables.scheduled: ("INSERT", "UPDATE", "DELETE"),
    tables.failed: ("INSERT", "UPDATE", "DELETE"),
    tables.blocked: ("UPDATE", "DELETE"),
    tables.claimed: ("UPDATE", "DELETE"),
    tables.processes: ("UPDATE", "DELETE"),
    tables.pauses: ("INSERT", "DELETE"),
    tables.semaphores: ("INSERT", "UPDATE", "DELETE"),  # by jq doctor --fix, which does a dispatcher's maintenance
    tables.schema_migrations: (),  # only jq init writes it
}
# To ours rows are only added, but for these columns: whoever recovers jobs cannot rewrite the record of it.
_UPDATED: dict[Table, tuple[Column[Any], ...]] = {
    tables.operations: (tables.operations.c.jobs, tables.operations.c.verdicts, tables.operations.c.ended_at),
    tables.failures: (tables.failures.c.restored_by,),
    tables.crashes: (
        tables.crashes.c.started_at,
        tables.crashes.c.growth,
        tables.crashes.c.progress,
        tables.crashes.c.saved_at,
    ),
}


def statements(url: URL, role: str, purpose: Purpose) -> list[str]:
    """Return the GRANT statements, each of one or more lines; none for SQLite, which has no roles.

    ``role`` is a PostgreSQL role, or a MySQL ``user`` or ``user@host``; without a host it is ``%``. The database, and
    PostgreSQL's schema, are those of ``url``; nothing connects. Raises UsageError for a name that is not valid, or that
    would grant to another role.
    """
    _require_printable("the role", role)
    match url.get_backend_name():
        case "postgresql":
            return list(_postgresql(url, role, purpose))
        case "mysql":
            return list(_mysql(url, role, purpose))
        case _:
            return []


def script(url: URL, role: str, purposes: Iterable[Purpose]) -> str:
    """Return the statements for each purpose below a comment on what they allow; empty for SQLite."""
    parts: list[str] = []
    for purpose in purposes:
        granted = statements(url, role, purpose)
        if granted:
            notes = [*_HEADINGS[purpose], *([] if purpose is Purpose.INIT else [_AFTER_INIT])]
            if purpose is Purpose.RECOVERING and url.get_backend_name() == "mysql":
                notes += _EARLIER_GRANTS
            parts.append("\n".join([*(f"-- {note}" for note in notes), *granted]) + "\n")
    return "\n".join(parts)


def table_rights(purpose: Purpose, table: Table, *, upsert: bool = False) -> tuple[str, ...]:
    """Return the rights on an existing table that reading or recovering needs.

    ``upsert``: whether an insert that skips existing rows is written with an UPDATE, which needs that right.
    """
    if purpose is not Purpose.RECOVERING:
        return ("SELECT",)
    writes = _WRITES.get(table, ("INSERT",) if table.metadata is tables.jq else ())
    if upsert and table.metadata is not tables.jq and "INSERT" in writes and "UPDATE" not in writes:
        writes = ("INSERT", "UPDATE", *writes[1:])
    return ("SELECT", *writes)


def updated_columns(purpose: Purpose, table: Table) -> tuple[str, ...]:
    """Return the columns that recovering changes in a table on which it has no right to UPDATE."""
    return tuple(column.name for column in _UPDATED.get(table, ())) if purpose is Purpose.RECOVERING else ()


def _tables() -> list[Table]:
    return [*tables.solid_queue.sorted_tables, *tables.jq.sorted_tables]


def _require_printable(what: str, name: str) -> None:
    if not name.strip() or printable(name) != name:
        raise UsageError(f"{what} cannot be named '{printable(name)}'")


# -- PostgreSQL -------------------------------------------------------------------------------------------------------


def _postgresql(url: URL, role: str, purpose: Purpose) -> Iterator[str]:
    # Even in quotes, "public" is every role, and "none" is no role.
    if role in {"public", "none"} or len(role.encode()) > LONGEST_NAME:
        raise UsageError(f"{role!r} cannot be a PostgreSQL role")
    grantee = _identifier(role, '"')
    database = url.database or _last(url.query.get("dbname")) or url.username  # as libpq chooses
    if not database:
        raise UsageError(f"the URL names no database; write {urls.EXAMPLES}")
    name = schema_of(url)
    _require_printable("the database", database)
    _require_printable("the schema", name)
    within = _identifier(name, '"')
    yield f"GRANT CONNECT ON DATABASE {_identifier(database, chr(34))} TO {grantee};"
    yield f"GRANT USAGE ON SCHEMA {within} TO {grantee};"
    if purpose is Purpose.INIT:  # the role that creates a table owns it, and has all rights on it
        yield f"GRANT CREATE ON SCHEMA {within} TO {grantee};"
        return
    # Our tables in statements of their own: if they are missing, the other statements still work.
    by_rights: dict[tuple[str, bool, tuple[str, ...]], list[str]] = defaultdict(list)
    for table in _tables():
        ours = table.metadata is tables.jq
        rights = table_rights(purpose, table)
        by_rights["TABLE", ours, rights].append(f"{within}.{table.name}")
        if "INSERT" in rights and table.autoincrement_column is not None:
            by_rights["SEQUENCE", ours, ("USAGE",)].append(
                f"{within}.{table.name}_{table.autoincrement_column.name}_seq"
            )
    if purpose is Purpose.RECOVERING:  # earlier versions granted it on whole tables
        listed = ",\n  ".join(f"{within}.{table.name}" for table in tables.LEDGER)
        yield f"REVOKE UPDATE ON TABLE\n  {listed}\n  FROM {grantee};"
    for (kind, _, rights), names in sorted(by_rights.items(), key=lambda item: (item[0][1], item[0][0] != "TABLE")):
        listed = ",\n  ".join(names)
        yield f"GRANT {', '.join(rights)} ON {kind}\n  {listed}\n  TO {grantee};"
    for table in tables.LEDGER:
        if columns := updated_columns(purpose, table):
            yield f"GRANT UPDATE ({', '.join(columns)}) ON TABLE {within}.{table.name} TO {grantee};"


def schema_of(url: URL) -> str:
    """Return the first schema of the search path in a URL, as in ``options=-csearch_path=queue``; else ``public``."""
    settings, _ = split_options(_last(url.query.get("options")) or "")
    names = schemas_of(settings.get(SEARCH_PATH, ""))
    return next((name for name in names if name != "$user"), "public")


def _last(value: str | tuple[str, ...] | None) -> str | None:
    return value[-1] if isinstance(value, tuple) else value


# -- MySQL, MariaDB ---------------------------------------------------------------------------------------------------


def _mysql(url: URL, role: str, purpose: Purpose) -> Iterator[str]:
    if not url.database:
        raise UsageError(f"the URL names no database; write {urls.EXAMPLES}")
    _require_printable("the database", url.database)
    account = _account(role)
    for table in _tables():
        rights = table_rights(purpose, table, upsert=True)
        # jq init needs SELECT on Solid Queue's tables to see that they exist.
        if purpose is Purpose.INIT and table.metadata is tables.jq:
            # A migration alters tables, for which MySQL requires INSERT too.
            rights = (*rights, "CREATE", "ALTER", "INSERT", "INDEX")
        if columns := updated_columns(purpose, table):
            rights = (*rights, f"UPDATE ({', '.join(columns)})")
        place = f"{_identifier(url.database, '`')}.{_identifier(table.name, '`')}"
        yield f"GRANT {', '.join(rights)} ON {place} TO {account};"


def _account(role: str) -> str:
    user, at, host = role.rpartition("@") if "@" in role else (role, "@", "%")
    # What a backslash in a string means depends on the server's sql_mode.
    if not user or not host or "\\" in role:
        raise UsageError(f"{role!r} is no MySQL account; write user or user@host")
    return f"{_identifier(user, chr(39))}{at}{_identifier(host, chr(39))}"


def _identifier(name: str, quote: str) -> str:
    return f"{quote}{name.replace(quote, quote * 2)}{quote}"


# -- a jq init that was refused ---------------------------------------------------------------------------------------

_NO_SCHEMA = "3F000"  # no schema in the search path that the role may use
_DENIED = "42501"
_MYSQL_DENIED = {1044, 1142}  # on a database, on a table


def may_not_create(error: DBAPIError) -> bool:
    """Whether the grants for ``jq init`` would have prevented this error of it."""
    state = getattr(error.orig, "sqlstate", None)
    if state in {_DENIED, _NO_SCHEMA}:
        return (error.statement or "").lstrip().startswith("CREATE TABLE")
    return bool(error.orig and error.orig.args and error.orig.args[0] in _MYSQL_DENIED)


def how_to_be_allowed(url: URL, role: str) -> str:
    """Return one line of text: what to ask an administrator for, so that ``role`` may run ``jq init``."""
    needed = [grant.removesuffix(";") for grant in statements(url, role, Purpose.INIT) if "CREATE" in grant]
    others, them = (f" and {len(needed) - 1} more", "them") if len(needed) > 1 else ("", "it")
    anybody = url._replace(username=None, password=None)
    command = urls.command_for(f"grants {shlex.quote(role)} --for init", anybody)
    return f"ask for: {needed[0]}{others} ({command} prints {them}), or let an administrator run: jq init"


def unwritable(url: URL) -> Path | None:
    """Return the file of an SQLite queue, or its folder, if this user may not write to it; else None."""
    path = Path(url.database or "").absolute()
    existing = [place for place in (path, *path.parents) if os.access(place, os.F_OK)]
    needed = existing[:2] if existing[:1] == [path] else existing[:1]
    return next((place for place in needed if not os.access(place, os.W_OK)), None)
