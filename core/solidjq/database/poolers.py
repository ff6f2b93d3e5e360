"""Poolers: whether a connection's session is its own or a pooler's, and in which schema the tables are.

A pooler between this program and the server may drop or refuse settings that are requested at the start of a
connection, such as the search path, and may run every transaction in another session. So settings are made by
statement, and in a pooler's session only for a transaction. Where a schema was chosen, and behind every pooler,
statements name the schema of each table: no search path that was lost, or left behind by another client, can lead them
to another queue.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from secrets import randbits
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import Connection, Engine, event

from solidjq.database.sessions import postgresql_settings
from solidjq.errors import RefusedError

if TYPE_CHECKING:
    import psycopg

SESSION: Final = "solidjq_session"  # key of a pooled connection's ``info``
_TERMS: Final = "solidjq_session_terms"  # execution option of an engine
_SCHEMA: Final = "solidjq_schema"  # execution option of a connection
SEARCH_PATH: Final = "search_path"

# -c name=value, -cname=value and --name=value, as libpq sends them; a backslash escapes a space or itself.
_WORD = re.compile(r"(?:\\.|[^\s\\])+", re.DOTALL)
# A cast, so that both types are equal: an operator =(oid, regclass) of another role could come before the server's own.
_SCHEMA_OF = (
    "(SELECT nspname::text FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace "
    "WHERE c.oid = to_regclass(%s)::oid)"
)
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


@dataclass(slots=True)
class SessionTerms:
    """What the sessions of one engine need."""

    settings: Mapping[str, str] = field(default_factory=dict)  # name -> value
    tables: tuple[str, str] = ("", "")  # one of Solid Queue's and one of ours, which show where the others are
    prepare: bool | None = None  # whether statements are prepared; None: where the session is this connection's own


@dataclass(frozen=True, slots=True)
class Session:
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

    Raises RefusedError behind a pooler if Solid Queue's tables and ours are in two schemas of a search path.
    """
    # The options of a service file and of PGOPTIONS are known only here.
    requested = split_options(driver.info.options)[0]
    settings = {**requested, **terms.settings, **postgresql_settings(driver)}
    shared = not _owns_session(driver, settings)
    if terms.prepare is False or (shared and not terms.prepare):
        driver.prepare_threshold = None
    # In a session that is shared after all, a name that another client may use would run its statement, with our
    # parameters; a name that nobody else uses is an error.
    driver._prepared._prepared_idx = randbits(60)  # noqa: SLF001  (the driver has no option for it)
    path = settings.pop(SEARCH_PATH, None)
    session = Session(shared, _find_schema(driver, terms.tables, path, shared=shared), settings if shared else {})
    info[SESSION] = session
    return session


def _owns_session(driver: "psycopg.Connection[Any]", settings: Mapping[str, str]) -> bool:
    """Whether the server's process is the one that answered at the start; if so, make the settings."""
    pid = driver.info.backend_pid
    made = ", ".join(["set_config(%s, %s, false)"] * len(settings))
    query = f"SELECT pg_backend_pid() = %s, CASE WHEN pg_backend_pid() = %s THEN ARRAY[{made}]::text[] END"
    values = [part for setting in settings.items() for part in setting]
    driver.autocommit = True  # no BEGIN and ROLLBACK around one statement
    row = driver.execute(query, [pid, pid, *values]).fetchone()
    driver.autocommit = False
    return bool(row and row[0])


def _find_schema(
    driver: "psycopg.Connection[Any]", names: tuple[str, str], path: str | None, *, shared: bool
) -> str | None:
    """Return the schema that statements name; None where the search path of the connection's own session decides."""
    schemas = [] if path is None else schemas_of(path)
    if len(schemas) == 1 and schemas[0] != "$user":
        return schemas[0]
    if path is None and not shared:
        return None
    with driver.transaction():
        # reset_val: what this role starts with, whatever another client has set in this session.
        default = "(SELECT reset_val FROM pg_settings WHERE name = 'search_path')"
        driver.execute(f"SELECT set_config('search_path', coalesce(%s, {default}), true)", [path])
        row = driver.execute(f"SELECT current_schema()::text, {_SCHEMA_OF}, {_SCHEMA_OF}", names).fetchone()
    current, queue, ledger = row or (None, None, None)
    if queue is None or ledger is None or queue == ledger:
        return queue or current
    if shared:
        raise RefusedError(
            f"Solid Queue's tables are in the schema {queue}, the jq_ tables in {ledger}; through a pooler both must "
            "be in one: connect to the server itself, or move each jq_ table: "
            f"ALTER TABLE {ledger}.{names[1]} SET SCHEMA {queue}"
        )
    return None


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
    """Make the settings for the transaction that begins, if the session may be another's in the next one."""
    session = _session(connection)
    driver: Any = connection.connection.driver_connection
    if session is None or not session.settings or driver.autocommit:
        return
    calls = ", ".join(["set_config(%s, %s, true)"] * len(session.settings))
    values = tuple(part for setting in session.settings.items() for part in setting)
    connection.exec_driver_sql(f"SELECT {calls}", values)


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
