"""Owners: who may change what our tables and functions do. Code on a table or in a view may run as whoever uses it.

A role that may create objects in the schema could make a table or a function under one of our names beforehand, and
change later what it does: its code would then run with the rights of every role that writes to the queue.
"""

from collections.abc import Collection, Iterable
from typing import Any, NamedTuple

from sqlalchemy import Connection, text

from solidjq.database import tables
from solidjq.database.poolers import is_superuser, qualified, schema_of
from solidjq.errors import RefusedError
from solidjq.text import first_of, printable

NOTIFY_FUNCTION = "jq_notify"
PREVIEW = 3  # objects that a message names

_OURS = tuple(table.name for table in tables.jq.sorted_tables)
_SUPERUSER = "SELECT rolsuper FROM pg_catalog.pg_roles WHERE rolname = current_user"

_NAMESPACE = (
    "(SELECT oid FROM pg_catalog.pg_namespace WHERE nspname = COALESCE(CAST(:schema AS text), current_schema()))"
)

# Code is found by its dependencies, so that triggers, rules, defaults, checks and index expressions all count.
_PARTS = f"""relation AS (
  SELECT c.oid, c.relname, c.relkind, c.relowner FROM pg_catalog.pg_class c
  WHERE c.relnamespace = {_NAMESPACE}
  AND c.relname = ANY (:names)
), part AS (
  SELECT r.relname, d.classid, d.objid FROM relation r
  JOIN pg_catalog.pg_depend d ON d.refclassid = 'pg_catalog.pg_class'::regclass AND d.refobjid = r.oid
  UNION
  SELECT r.relname, 'pg_catalog.pg_class'::regclass, r.oid FROM relation r
)"""  # noqa: S608  (our own words)
_FOREIGN = f"""
WITH trusted AS (
  SELECT r.oid FROM pg_catalog.pg_roles r
  WHERE r.rolsuper OR r.rolname = current_user
  OR r.oid = (SELECT datdba FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database())
  OR :trust_queue_owner AND r.oid = (SELECT relowner FROM pg_catalog.pg_class WHERE oid = pg_catalog.to_regclass(:jobs))
), {_PARTS}, object AS (
  SELECT CASE r.relkind WHEN 'v' THEN 'view' WHEN 'm' THEN 'view' ELSE 'table' END AS kind,
    r.relname::text AS name, NULL::text AS of_table, r.relowner AS owner
  FROM relation r
  UNION
  SELECT 'function', pg_catalog.format('%s(%s)', p.proname, pg_catalog.pg_get_function_identity_arguments(p.oid)),
    part.relname::text, p.proowner
  FROM part
  JOIN pg_catalog.pg_depend d
    ON d.classid = part.classid AND d.objid = part.objid AND d.refclassid = 'pg_catalog.pg_proc'::regclass
  JOIN pg_catalog.pg_proc p ON p.oid = d.refobjid
  UNION
  SELECT 'function', pg_catalog.format('%s(%s)', p.proname, pg_catalog.pg_get_function_identity_arguments(p.oid)),
    NULL, p.proowner
  FROM pg_catalog.pg_proc p
  WHERE p.pronamespace = {_NAMESPACE}
  AND p.proname = :notify AND p.pronargs = 0
)
SELECT o.kind, o.name, o.of_table, pg_catalog.pg_get_userbyid(o.owner) AS owner FROM object o
WHERE o.owner NOT IN (SELECT oid FROM trusted) AND (NOT :only_for_superusers OR ({_SUPERUSER}))
ORDER BY 1 DESC, 2, 3
"""  # noqa: S608  (our own words)

# What a superuser's reading would run: of an index, PostgreSQL computes what is constant when it plans a statement.
RUN_BY_READING = """
WITH relation AS (
  SELECT c.oid, c.relname, c.relkind, c.relowner FROM pg_catalog.pg_class c
  WHERE c.relnamespace = (SELECT n.oid FROM pg_catalog.pg_namespace n
    WHERE n.nspname = %(schema)s::name)
  AND c.relname = ANY (%(names)s::name[])
), trusted AS (
  SELECT r.oid FROM pg_catalog.pg_roles r
  WHERE r.rolsuper OR r.rolname = current_user
  OR r.oid = (SELECT d.datdba FROM pg_catalog.pg_database d WHERE d.datname = pg_catalog.current_database())
  OR r.oid = (SELECT o.relowner FROM relation o WHERE o.relname = %(jobs)s::name)
), object AS (
  SELECT 'view' AS kind, r.relname AS name, NULL::name AS of_table, r.relowner AS owner FROM relation r
  WHERE r.relkind = ANY ('{v,m,f}'::"char"[])
  UNION ALL
  SELECT 'index', i.relname, r.relname, r.relowner FROM relation r
  JOIN pg_catalog.pg_index x ON x.indrelid = r.oid AND (x.indexprs IS NOT NULL OR x.indpred IS NOT NULL)
  JOIN pg_catalog.pg_class i ON i.oid = x.indexrelid
  UNION ALL
  SELECT 'function', p.proname, r.relname, p.proowner FROM relation r
  JOIN pg_catalog.pg_index x ON x.indrelid = r.oid
  JOIN pg_catalog.pg_depend d ON d.objid = x.indexrelid AND d.classid = 'pg_catalog.pg_class'::regclass::oid
    AND d.refclassid = 'pg_catalog.pg_proc'::regclass::oid
  JOIN pg_catalog.pg_proc p ON p.oid = d.refobjid
)
SELECT DISTINCT o.kind, o.name, o.of_table, pg_catalog.pg_get_userbyid(o.owner) FROM object o
WHERE o.owner NOT IN (SELECT t.oid FROM trusted t) ORDER BY 1, 2, 3
"""

# On MySQL a trigger runs as its definer. So does a view, unless it is made to run as whoever reads it.
INVOKED_VIEWS = """
SELECT 'view', CONVERT(table_name USING utf8mb4), NULL, CONVERT(definer USING utf8mb4) FROM information_schema.views
WHERE table_schema = DATABASE() AND table_name IN %(names)s AND security_type = 'INVOKER' AND definer <> CURRENT_USER()
"""

# Functions in C or of PostgreSQL itself look no names up.
_WITHOUT_PATH = f"""
WITH {_PARTS}
SELECT DISTINCT p.proname, pg_catalog.format('%s(%s)', p.proname, pg_catalog.pg_get_function_identity_arguments(p.oid)),
  part.relname::text
FROM part
JOIN pg_catalog.pg_depend d
  ON d.classid = part.classid AND d.objid = part.objid AND d.refclassid = 'pg_catalog.pg_proc'::regclass
JOIN pg_catalog.pg_proc p ON p.oid = d.refobjid
JOIN pg_catalog.pg_language l ON l.oid = p.prolang
WHERE l.lanname NOT IN ('internal', 'c')
AND COALESCE(pg_catalog.array_to_string(p.proconfig, ','), '') NOT LIKE '%search_path=%' ORDER BY 2, 3
"""  # noqa: S608


class ForeignObject(NamedTuple):
    """A table, view or function that a role owns whom this connection has no reason to trust."""

    kind: str
    name: str
    of_table: str | None  # the table that runs the function
    owner: str

    def __str__(self) -> str:
        """Return ``the function jq_notify() belongs to the role "app"``."""
        of_table = f", which {self.of_table} runs," if self.of_table else ""
        return printable(f'the {self.kind} {self.name}{of_table} belongs to the role "{self.owner}"')


def find_foreign(
    connection: Connection,
    names: Collection[str] | None = None,
    *,
    trust_queue_owner: bool = False,
    only_for_superusers: bool = False,
) -> list[ForeignObject]:
    """Return which of these tables, our own by default, and the functions they run, an untrusted role owns.

    The current user, the database's owner and superusers are trusted; with ``trust_queue_owner`` also the owner of
    Solid Queue's tables, who can put a trigger on them anyway. Empty on databases without owners, and with
    ``only_for_superusers`` if the current user is none.
    """
    if connection.dialect.name != "postgresql":
        return []
    values = {
        "names": list(names or _OURS),
        "trust_queue_owner": trust_queue_owner,
        "only_for_superusers": only_for_superusers,
        "schema": schema_of(connection),
        "jobs": qualified(connection, tables.jobs.name),
        "notify": NOTIFY_FUNCTION,
    }
    return [ForeignObject(*row) for row in connection.execute(text(_FOREIGN), values)]


def values() -> dict[str, Any]:
    """Return the values of RUN_BY_READING and INVOKED_VIEWS, except the schema."""
    return {"names": list(_names()), "jobs": str(tables.jobs.name)}


def require_safe_to_read(rows: Iterable[tuple[Any, ...]]) -> None:
    """Raise RefusedError if reading the queue would run the code of another role, in these rows of one of the queries.

    That is a view under one of the queue's names, and on PostgreSQL also an index that computes something. There only
    superusers are refused.
    """
    foreign = [ForeignObject(*row) for row in rows]
    if foreign:
        raise RefusedError(
            f"{words_of(foreign)}; it would run with the rights of this role: look at it, then drop it or change its "
            f"owner, or go on as a role with fewer rights; nothing was changed"
        )


def _names() -> tuple[str, ...]:
    return (*_OURS, *(str(table.name) for table in tables.solid_queue.sorted_tables))


def require_own(connection: Connection) -> None:
    """Raise RefusedError, which names them, if an untrusted role owns objects under our names."""
    _refuse(find_foreign(connection), "then run jq init again")


def require_safe_for_superuser(connection: Connection) -> None:
    """Raise RefusedError if a superuser is about to write to tables that an untrusted role owns, or that run its code.

    That holds for Solid Queue's tables and ours; the owner of Solid Queue's is trusted. Other roles may write: whoever
    was granted ``jq init`` alone owns our tables, and the queue's are the application's.
    """
    if connection.dialect.name != "postgresql":
        return
    driver: Any = connection.connection.driver_connection
    # One round trip for either: others are asked by the small query, which the server plans in less time.
    if is_superuser(driver) or connection.scalar(text(_SUPERUSER)):
        foreign = find_foreign(connection, _names(), trust_queue_owner=True, only_for_superusers=True)
        _refuse(foreign, "or go on as a role that is no superuser")


def _refuse(foreign: Collection[ForeignObject], way_out: str) -> None:
    if foreign:
        raise RefusedError(f"{words_of(foreign)}; {ADVICE}, {way_out}; nothing was changed")


ADVICE = (
    "whoever owns it can change what it does with the rights of everybody who writes to the queue: look at it, then "
    "drop it, change its owner, or let its owner run jq init"
)


def words_of(foreign: Collection[ForeignObject]) -> str:
    """Return the first of these objects with their owners, and how many more there are."""
    return first_of(list(foreign), PREVIEW, separator="; ")


class FunctionWithoutPath(NamedTuple):
    """A function that a table of the queue runs, and that finds only what it names with a schema when ``jq`` works."""

    name: str
    signature: str
    of_table: str


def find_without_path(connection: Connection) -> list[FunctionWithoutPath]:
    """Return the functions that tables of the queue run and that have no search path of their own, on PostgreSQL."""
    values = {"schema": schema_of(connection), "names": list(_names())}
    return [FunctionWithoutPath(*row) for row in connection.execute(text(_WITHOUT_PATH), values)]
