"""A database that refuses a write, by a trigger of the test's own, with an error of the test's choice."""

from collections.abc import Iterator
from contextlib import contextmanager

from solidjq import Database
from support.servers import execute

VALUE, UNKNOWN = "22001", "45000"  # a value that is too long; an error of the application's own
_ERRNO = {VALUE: 1406, UNKNOWN: 1644}


@contextmanager
def refusing(database: Database, kind: str, event: str, table: str, condition: str, state: str) -> Iterator[None]:
    """Refuse an event (``INSERT``, ``DELETE``) of rows for which the condition on ``NEW`` or ``OLD`` holds."""
    if kind == "sqlite":  # any error of a trigger is a violated constraint there
        made = [
            (
                f"CREATE TRIGGER refusal BEFORE {event} ON {table} WHEN {condition} "
                "BEGIN SELECT RAISE(ABORT, 'refused by the test'); END"
            )
        ]
        dropped = ["DROP TRIGGER refusal"]
    elif kind == "postgresql":
        made = [
            (
                "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
                f"IF {condition} THEN RAISE EXCEPTION 'refused by the test' USING ERRCODE = '{state}'; END IF; "
                "RETURN COALESCE(NEW, OLD); END $$"
            ),
            f"CREATE TRIGGER refusal BEFORE {event} ON {table} FOR EACH ROW EXECUTE FUNCTION refuse()",
        ]
        dropped = [f"DROP TRIGGER refusal ON {table}", "DROP FUNCTION refuse()"]
    else:
        made = [
            (
                f"CREATE TRIGGER refusal BEFORE {event} ON {table} FOR EACH ROW BEGIN IF {condition} THEN "
                f"SIGNAL SQLSTATE '{state}' SET MYSQL_ERRNO = {_ERRNO[state]}, MESSAGE_TEXT = 'refused by the test'; "
                "END IF; END"
            )
        ]
        dropped = ["DROP TRIGGER refusal"]
    execute(database.url, *made)
    try:
        yield
    finally:
        execute(database.url, *dropped)
