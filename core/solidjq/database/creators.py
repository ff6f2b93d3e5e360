"""Creators: which other roles may make objects beside the queue's tables, or own some there.

Our own statements look no name up there. Other programs do, Rails among them: they would run such a role's functions.
And whoever may create tables may make one of ours before ``jq init`` does.
"""

from typing import NamedTuple

from sqlalchemy import Connection, text

from solidjq.database import tables
from solidjq.database.poolers import schema_of
from solidjq.text import printable

# Objects of extensions belong to whoever installed the extension.
_POSTGRESQL = """
WITH place AS (
  SELECT n.oid, n.nspname, n.nspacl, n.nspowner FROM pg_catalog.pg_namespace n
  WHERE n.nspname = COALESCE(CAST(:schema AS name), pg_catalog.current_schema())
), trusted AS (
  SELECT r.oid FROM pg_catalog.pg_roles r
  WHERE r.rolsuper OR r.rolname = current_user OR r.rolname = 'pg_database_owner'
  OR r.oid = (SELECT d.datdba FROM pg_catalog.pg_database d WHERE d.datname = pg_catalog.current_database())
  OR r.oid = (SELECT c.relowner FROM pg_catalog.pg_class c JOIN place ON place.oid = c.relnamespace
    WHERE c.relname = :jobs)
), object AS (
  SELECT c.relowner AS role, 0 AS code, 'pg_class'::regclass AS class, c.oid FROM pg_catalog.pg_class c
  JOIN place ON place.oid = c.relnamespace WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f')
  UNION ALL
  SELECT p.proowner, 1, 'pg_proc'::regclass, p.oid FROM pg_catalog.pg_proc p JOIN place ON place.oid = p.pronamespace
  UNION ALL
  SELECT o.oprowner, 1, 'pg_operator'::regclass, o.oid FROM pg_catalog.pg_operator o
  JOIN place ON place.oid = o.oprnamespace
), right_or_object AS (
  SELECT a.grantee AS role, 1 AS creates, 0 AS objects, 0 AS code FROM place,
    pg_catalog.aclexplode(COALESCE(place.nspacl, pg_catalog.acldefault('n', place.nspowner))) a
  WHERE a.privilege_type = 'CREATE'
  UNION ALL
  SELECT o.role, 0, 1, o.code FROM object o WHERE NOT EXISTS (
    SELECT FROM pg_catalog.pg_depend d WHERE d.classid = o.class AND d.objid = o.oid AND d.deptype = 'e')
)
SELECT (SELECT nspname FROM place), r.rolname, max(x.creates) = 1, sum(x.objects), max(x.code) = 1
FROM right_or_object x LEFT JOIN pg_catalog.pg_roles r ON r.oid = x.role
WHERE x.role NOT IN (SELECT oid FROM trusted) GROUP BY r.rolname ORDER BY 2 NULLS FIRST
"""

# An account sees the rights of others if it may read MySQL's own tables. One with a right everywhere administers it.
_MYSQL = """
SELECT DISTINCT p.grantee FROM information_schema.schema_privileges p
WHERE DATABASE() LIKE p.table_schema AND p.privilege_type IN ('CREATE', 'CREATE VIEW', 'CREATE ROUTINE', 'TRIGGER')
AND p.grantee <> :me ORDER BY 1
"""


class Creator(NamedTuple):
    """A role, or every role, that may make objects in the queue's schema, or has some there."""

    schema: str
    role: str | None  # None: every role
    may_create: bool
    objects: int  # tables, views, functions and operators that it owns there
    has_code: bool  # functions or operators are among them

    def __str__(self) -> str:
        return "every role" if self.role is None else printable(f'the role "{self.role}"')


def find_creators(connection: Connection) -> list[Creator]:
    """Return those of PostgreSQL but superusers, this role, and the owners of the database and of the queue's tables.

    Empty on other databases.
    """
    if connection.dialect.name != "postgresql":
        return []
    values = {"schema": schema_of(connection), "jobs": tables.jobs.name}
    return [
        Creator(schema, role, may_create, int(objects), has_code)
        for schema, role, may_create, objects, has_code in connection.execute(text(_POSTGRESQL), values)
    ]


def find_mysql_accounts(connection: Connection) -> list[str]:
    """Return the other accounts of MySQL that may make tables, views or triggers here, as far as this one can see."""
    user, _, host = str(connection.scalar(text("SELECT CURRENT_USER()"))).rpartition("@")
    return [printable(str(name)) for name in connection.scalars(text(_MYSQL), {"me": f"'{user}'@'{host}'"})]
