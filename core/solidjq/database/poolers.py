"""Poolers: whether a connection's session is its own or a pooler's, and in which schema the tables are.

A pooler between this program and the server may drop or refuse settings that are requested at the start of a
connection, such as the search path, and may run every transaction in another session. So settings are made by
statement, and in a pooler's session only for a transaction.

Statements name the schema of each table, and the search path is PostgreSQL's own schema alone. So neither another
client of a pooler, nor a role that may create objects beside the tables, decides what a name in a statement means.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from secrets import randbits
from typing import TYPE_CHECKING, Any, Final, LiteralString, NamedTuple, cast

from sqlalchemy import Connection, Engine, event

from solidjq.database import sessions
from solidjq.database.faults import past_sqlalchemy
from solidjq.errors import RefusedError

if TYPE_CHECKING:
    import psycopg

SESSION: Final = "solidjq_session"  # key of a pooled connection's ``info``
_TERMS: Final = "solidjq_session_terms"  # execution option of an engine
_SCHEMA: Final = "solidjq_schema"  # execution option of a connection
SEARCH_PATH: Final = "search_path"

# -c name=value, -cname=value and --name=value, as libpq sends them; a backslash escapes a space or itself.
_WORD = re.compile(r"(?:\\.|[^\s\\])+", re.DOTALL)
_NOBODYS = ("$user", "pg_catalog", "pg_temp")  # in a search path, where no tables of a queue can be
# Sent while the search path is whatever the role or the owner of the database chose: an unqualified name, operators'
# included, could mean a function of anybody. PostgreSQL evaluates the columns in their order.
_SCHEMA_OF = """(
  SELECT n.nspname::pg_catalog.text FROM pg_catalog.pg_class c
  JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) c.relnamespace
  WHERE c.relname OPERATOR(pg_catalog.=) %s::pg_catalog.name
  AND n.nspname OPERATOR(pg_catalog.=) ANY (pg_catalog.current_schemas(false))
  ORDER BY pg_catalog.array_position(pg_catalog.current_schemas(false), n.nspname) LIMIT 1)"""
_PLACE = f"""pg_catalog.current_setting('search_path'), pg_catalog.current_schemas(false)::pg_catalog.text[],
  {_SCHEMA_OF}, {_SCHEMA_OF}"""
_OWN = "pg_catalog.pg_backend_pid() OPERATOR(pg_catalog.=) %s::pg_catalog.int4"
_SET = "pg_catalog.set_config(%s, %s, false)"
# reset_val: what this role starts with, whatever another client has set in this session.
_RESET = """SELECT pg_catalog.set_config(s.name, coalesce(%s, s.reset_val), true) FROM pg_catalog.pg_settings s
  WHERE s.name OPERATOR(pg_catalog.=) 'search_path'"""
_SETTING = re.compile(r"(?:-c|--)(?P<name>[A-Za-z_][\w.\-]*)=(?P<value>.*)", re.DOTALL)


def split_options(options: str) -> tuple[dict[str, str], str]:
    """Return the settings in libpq's ``options``, and what else is in them.

    Of two settings with the same name the last counts, as on the server.
    """
    settings: dict[str, str] = {}
    others: list[str] = []
    words = _WORD.findall(options)
    while words:
        word = words.pop(0)
        joined = word + words[0] if word == "-c" and words else word
        if match := _SETTING.fullmatch(joined):
            if joined is not word:
                words.pop(0)
            settings[match["name"].lower().replace("-", "_")] = re.sub(r"\\(.)", r"\1", match["value"], flags=re.DOTALL)
        else:
            others.append(word)
    return settings, " ".join(others)


def schemas_of(path: str) -> list[str]:
    """Return the schemas of a search path, in its order, as the server reads their names; ``$user`` stays as it is."""
    matches = re.finditer(r'"(?P<quoted>(?:[^"]|"")+)"|[^\s,"]+', path)
    return [m[0].lower() if m["quoted"] is None else m["quoted"].replace('""', '"') for m in matches]


@dataclass(slots=True, eq=False, repr=False)
class SessionTerms:
    """What the sessions of one engine need."""

    settings: Mapping[str, str]  # name -> value
    tables: tuple[str, str]  # one of Solid Queue's and one of ours, which show where the others are
    prepare: bool | None = None  # whether statements are prepared; None: where the session is this connection's own


class Session(NamedTuple):
    """What was found out about a connection's session when it was opened."""

    shared: bool  # a pooler stands between: every transaction may be in another session
    schema: str | None  # of the tables, if statements name it
    settings: Mapping[str, str]  # that every transaction must make, because the session may be another's


def follow_sessions(engine: Engine, terms: SessionTerms) -> None:
    """Let statements and transactions follow what ``open_session`` finds out about each connection's session."""
    engine.update_execution_options(**{_TERMS: terms})
    event.listen(engine, "engine_connect", _name_schema)
    event.listen(engine, "begin", _make_settings)


def open_session(driver: "psycopg.Connection[Any]", info: dict[str, Any], terms: SessionTerms) -> Session:
    """Make a new connection's settings, note its ``Session`` in ``info``, and return it.

    Raises RefusedError behind a pooler and for superusers if Solid Queue's tables and ours are in two schemas.
    """
    # The options of a service file and of PGOPTIONS are known only here.
    requested = split_options(driver.info.options)[0]
    settings = {**requested, **terms.settings, **sessions.postgresql_settings(driver)}
    driver.autocommit = True  # no BEGIN and ROLLBACK around one statement
    place = _set_up(driver, settings, terms.tables)
    shared = place is None
    if terms.prepare is False or (shared and not terms.prepare):
        driver.prepare_threshold = None
    # In a session that is shared after all, a name that another client may use would run its statement, with our
    # parameters; a name that nobody else uses is an error.
    driver._prepared._prepared_idx = randbits(60)  # noqa: SLF001  (the driver has no option for it)
    path = settings.pop(SEARCH_PATH, None)
    if place is None:
        place = _look(driver, path, terms.tables)
    schema = _schema_of(place, path, driver.info.user)
    if schema is None and (shared or is_superuser(driver)):
        raise RefusedError(
            f"Solid Queue's tables are in the schema {place.queue}, the jq_ tables in {place.ledger}; "
            + ("through a pooler" if shared else "for a superuser")
            + f" both must be in one: connect {'to the server itself' if shared else 'as another role'}, or move each "
            f"jq_ table: ALTER TABLE {place.ledger}.{terms.tables[1]} SET SCHEMA {place.queue}"
        )
    if schema is None:  # the tables are found by the search path that was asked for
        driver.execute("SELECT pg_catalog.set_config('search_path', %s, false)", [place.path])
    driver.autocommit = False
    session = Session(shared, schema, {**settings, SEARCH_PATH: sessions.SAFE_PATH} if shared else {})
    info[SESSION] = session
    return session


class _Place(NamedTuple):
    """What a search path leads to."""

    path: str
    schemas: list[str]  # that exist, and that this role may use
    queue: str | None  # the schema of Solid Queue's tables
    ledger: str | None  # the schema of ours


def _set_up(driver: "psycopg.Connection[Any]", settings: Mapping[str, str], names: tuple[str, str]) -> _Place | None:
    """Make the settings, look where the tables are, and then leave PostgreSQL's schema alone in the search path.

    None, and nothing is set, if the server's process is not the one that answered at the start.
    """
    pid = driver.info.backend_pid
    wanted, safe = [part for setting in settings.items() for part in setting], [SEARCH_PATH, sessions.SAFE_PATH]
    made = ", ".join([_SET] * len(settings))
    row = driver.execute(
        f"SELECT {_OWN}, CASE WHEN {_OWN} THEN ARRAY[{made}]::pg_catalog.text[] END, {_PLACE}, "
        f"CASE WHEN {_OWN} THEN {_SET} END",
        [pid, pid, *wanted, *names, pid, *safe],
    ).fetchone()
    return _Place(*row[2:6]) if row and row[0] else None


def _look(driver: "psycopg.Connection[Any]", path: str | None, names: tuple[str, str]) -> _Place:
    """Return what a search path, by default the one that this role starts with, leads to in a shared session."""
    with driver.transaction():
        driver.execute(_RESET, [path])
        row: Any = driver.execute(f"SELECT {_PLACE}", names).fetchone()
    return _Place(*row)


def _schema_of(place: _Place, requested: str | None, user: str) -> str | None:
    """Return the schema that statements name; None if the tables are in two, so that a search path must find them."""
    asked_for = [] if requested is None else schemas_of(requested)
    if len(asked_for) == 1 and asked_for[0] != "$user":
        return asked_for[0]
    if None not in {place.queue, place.ledger} and place.queue != place.ledger:
        return None
    # If no schema is there, or none for this role, the first one is named in the error that follows.
    named = [schema for schema in (*place.schemas, *schemas_of(place.path), user) if schema not in _NOBODYS]
    return place.queue or named[0]


def is_superuser(driver: "psycopg.Connection[Any]") -> bool:
    """Whether this connection's role is a superuser, or may be one: a pooler may not say so."""
    return driver.pgconn.parameter_status(b"is_superuser") != b"off"


def ask(
    driver: "psycopg.Connection[Any]", session: Session, queries: Sequence[str], values: Mapping[str, Any]
) -> list[list[tuple[Any, ...]]]:
    """Return the rows of each of these queries, which only read, on a new connection: one round trip for all.

    No name in them is looked up in a schema in which others may create.
    """
    from psycopg import ClientCursor  # noqa: PLC0415  (only where PostgreSQL is used)

    shared = ["BEGIN", f"SET LOCAL search_path = {sessions.SAFE_PATH}"], ["ROLLBACK"]
    before, after = shared if session.shared else ([], [])
    driver.autocommit = True  # or it would send a BEGIN of its own
    # Values in the text: the server takes several statements in one message only without parameters.
    cursor = ClientCursor(driver).execute("; ".join([*before, *queries, *after]), values)
    rows = [cursor.fetchall()] if cursor.description else []
    while cursor.nextset():
        if cursor.description:
            rows.append(cursor.fetchall())
    driver.autocommit = False
    return rows


def stop_preparing(engine: Engine) -> None:
    """Let no connection of this engine prepare statements any more: their sessions turned out to be shared."""
    engine.get_execution_options()[_TERMS].prepare = False
    engine.dispose()


def _name_schema(connection: Connection) -> None:
    """Let statements of this connection name the schema that its ``Session`` noted."""
    session = _session(connection)
    if session is not None and session.schema is not None:
        connection.execution_options(**{_SCHEMA: session.schema, "schema_translate_map": {None: session.schema}})


def _make_settings(connection: Connection) -> None:
    """Begin the transaction and make its settings, if its session may be another's in the next one: one round trip."""
    session = _session(connection)
    without_transaction = connection.get_execution_options().get("isolation_level") == "AUTOCOMMIT"
    if session is None or not session.settings or without_transaction:
        return
    import psycopg  # noqa: PLC0415  (only where PostgreSQL is used)

    driver = cast("psycopg.Connection[Any]", connection.connection.driver_connection)
    driver.autocommit = True  # or it would send a BEGIN of its own
    set_local = psycopg.sql.SQL("pg_catalog.set_config({}, {}, true)")
    calls = [set_local.format(*setting) for setting in session.settings.items()]
    begin = psycopg.sql.SQL("{}; SELECT {}").format(
        psycopg.sql.SQL(begin_of(driver)), psycopg.sql.SQL(", ").join(calls)
    )
    with past_sqlalchemy(connection, "BEGIN"):
        driver.execute(begin, prepare=False)


def begin_of(driver: "psycopg.Connection[Any]") -> LiteralString:
    """Return the BEGIN that the driver would send."""
    level = driver.isolation_level
    isolation = "" if level is None else f" ISOLATION LEVEL {level.name.replace('_', ' ')}"
    return f"BEGIN{isolation}{' READ ONLY' if driver.read_only else ''}"


def _session(connection: Connection) -> Session | None:
    return connection.info.get(SESSION)


def is_shared(connection: Connection) -> bool:
    """Whether a pooler stands between: what is set in a session, or waits in it, may be gone after a transaction."""
    session = _session(connection)
    return session is not None and session.shared


def needs_transaction(connection: Connection) -> bool:
    """Whether even one statement needs a transaction, in which its settings are made."""
    session = _session(connection)
    return session is not None and bool(session.settings)


def schema_of(connection: Connection) -> str | None:
    """Return the schema that statements of this connection name; None if the search path, or no schema, decides."""
    return connection.get_execution_options().get(_SCHEMA)


def qualified(connection: Connection, name: str) -> str:
    """Return the name of a table, index or function for the text of a statement, with its schema if there is one."""
    schema, preparer = schema_of(connection), connection.dialect.identifier_preparer
    quoted = preparer.quote(name)
    return quoted if schema is None else f"{preparer.quote_schema(schema)}.{quoted}"
