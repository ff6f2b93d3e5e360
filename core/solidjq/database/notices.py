"""Notices: wake waiting workers when jobs become ready, by PostgreSQL's NOTIFY and LISTEN.

Notices only shorten the wait. Workers poll all the same, so a notice that is lost or never sent costs a polling
interval. ``enqueue`` sends one, or leaves it to others that are about to; with the trigger of ``jq init --notify``,
every ready row sends one, Rails' included.
"""

import logging
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, cast

from sqlalchemy import ColumnElement, Connection, and_, func, or_, select, text

from solidjq.database import answers, owners
from solidjq.database.engines import SCHEMA_LOCK_TIMEOUT
from solidjq.database.poolers import is_shared, qualified
from solidjq.database.tables import ready
from solidjq.database.transactions import Database
from solidjq.errors import UsageError

if TYPE_CHECKING:
    import psycopg


log = logging.getLogger("solidjq")

CHANNEL = "jq_ready"
DEATHS = "jq_deaths"  # every row of jq_deaths is announced, for jq watch
TRIGGER = owners.NOTIFY_FUNCTION
_MAY_CALL = "solidjq_may_call_notice"  # key of a pooled connection's ``info``


def send(connection: Connection, channel: str = CHANNEL) -> None:
    """Send a notice when this transaction commits, by default that jobs are ready.

    It does nothing on a database without notices.
    """
    if connection.dialect.name == "postgresql":
        connection.exec_driver_sql(f"NOTIFY {channel}")


def notice() -> ColumnElement[Any]:
    """Return the SQL expression that sends a notice, for a statement on a database that ``writes_in_with``.

    The statement is refused whole unless the role ``may_call`` it.
    """
    return func.pg_notify(CHANNEL, "")


def may_call(connection: Connection) -> bool:
    """Whether this role may call the functions of ``notice`` and ``notice_of_few``; ``send`` needs none.

    Read once a connection.
    """
    if _MAY_CALL not in connection.info:
        functions = ("pg_notify(text, text)", "pg_try_advisory_xact_lock(int, int)", "hashtext(text)")
        rights = [func.has_function_privilege(f"pg_catalog.{function}", "EXECUTE") for function in functions]
        connection.info[_MAY_CALL] = connection.scalar(select(and_(*rights)))
    return bool(connection.info[_MAY_CALL])


def notice_of_few() -> ColumnElement[Any]:
    """Return the SQL expression that sends a notice unless two other transactions are about to send theirs.

    The server commits transactions that notify one after another. Of all that enqueue at once, only two wait for that;
    the workers that these wake find what the others enqueued. Only for a statement that is a transaction by itself: a
    longer one would keep its place, an advisory lock, and with it others from notifying, until it ends.
    """
    # The second commits behind the first, and so behind most of those that came while both were at it.
    places = [func.pg_try_advisory_xact_lock(func.hashtext("solidjq.notices"), place) for place in (1, 2)]
    return select(notice()).where(or_(*places)).scalar_subquery()


def listen(database: Database, channel: str = CHANNEL) -> Iterator[None]:
    """Yield once when listening, then at each notice; yield nothing on a database without notices.

    Behind a pooler it yields nothing either: the session that listens may be another client's when the notice comes.
    Raises DatabaseUnreachableError if the connection breaks.
    """
    with database.outside_transactions() as connection:
        if connection.dialect.name != "postgresql":
            return
        if is_shared(connection):
            log.info("no notifications arrive through a pooler: polling alone finds what is new")
            return
        connection.exec_driver_sql(f"LISTEN {channel}")
        yield
        driver = cast("psycopg.Connection[Any]", connection.connection.driver_connection)
        answers.wait_without_limit(driver)
        for _ in driver.notifies():
            yield


def announces_all(connection: Connection) -> bool:
    """Return whether the trigger sends a notice for every ready row, whichever program inserts it."""
    if connection.dialect.name != "postgresql":
        return False
    query = (
        "SELECT 1 FROM pg_trigger WHERE tgrelid = to_regclass(:table) AND tgname = :name AND tgenabled IN ('O', 'A')"
    )
    wanted = {"table": qualified(connection, ready.name), "name": TRIGGER}
    return connection.scalar(text(query), wanted) is not None


def install(database: Database) -> None:
    """Create the trigger that sends a notice for every inserted ready row, whichever program inserts it. Idempotent.

    Raises UsageError on a database without notices, ConflictError if the table was busy for too long, and RefusedError
    if an untrusted role owns the function.
    """
    with database.write() as connection:
        if connection.dialect.name != "postgresql":
            raise UsageError(f"{database} cannot notify: only PostgreSQL can; its workers poll")
        body = f"BEGIN NOTIFY {CHANNEL}; RETURN NULL; END"
        path = "SET search_path = pg_catalog, pg_temp"  # it runs as whoever inserts; else with that role's path
        owners.require_own(connection)
        function, table = qualified(connection, TRIGGER), qualified(connection, ready.name)
        for statement in (
            f"SET LOCAL lock_timeout = {SCHEMA_LOCK_TIMEOUT * 100}",  # programs that enqueue wait behind this meanwhile
            f"CREATE OR REPLACE FUNCTION {function}() RETURNS trigger LANGUAGE plpgsql {path} AS '{body}'",
            f"DROP TRIGGER IF EXISTS {TRIGGER} ON {table}",
            f"CREATE TRIGGER {TRIGGER} AFTER INSERT ON {table} FOR EACH STATEMENT EXECUTE FUNCTION {function}()",
        ):
            connection.exec_driver_sql(statement)
        owners.require_own(connection)  # to replace a function that was made meanwhile leaves it with its owner


def remove(database: Database) -> None:
    """Drop the trigger that ``install`` creates, if it exists."""
    with database.write() as connection:
        if connection.dialect.name == "postgresql":
            connection.exec_driver_sql(f"DROP TRIGGER IF EXISTS {TRIGGER} ON {qualified(connection, ready.name)}")
            connection.exec_driver_sql(f"DROP FUNCTION IF EXISTS {qualified(connection, TRIGGER)}()")
