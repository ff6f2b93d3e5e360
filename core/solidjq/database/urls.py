"""URLs of databases: SQLAlchemy's, Rails' (``postgres://``, ``mysql2://``, ``sqlite3:``) and plain file paths."""

import re
import shlex
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import quote, unquote

from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError

from solidjq.errors import UsageError
from solidjq.text import MASK, mask_argument, mask_secrets

_POSTGRESQL = frozenset({"postgres", "postgresql", "postgresql+psycopg", "postgis"})
_MYSQL = frozenset({"mysql", "mysql2", "trilogy", "mariadb", "mysql+pymysql", "mariadb+pymysql"})
_SQLITE = re.compile(r"(?i)(?P<scheme>sqlite3?):(?P<rest>.*)", re.DOTALL)
_SCHEME = re.compile(r"[a-zA-Z][a-zA-Z0-9+]+:")
# user@host/name or //user@host/name: more likely a URL that lost its scheme than a file; /home/user@domain/x is a file.
_LOST_SCHEME = re.compile(r"(//|(?![./~])).*@", re.DOTALL)

# Options in a URL's query that are Rails' own; libpq would refuse each of them.
_RAILS_ONLY = frozenset(
    (
        "adapter",
        "advisory_locks",
        "automatic_reconnect",
        "checkout_timeout",
        "encoding",
        "idle_timeout",
        "insert_returning",
        "keepalive",
        "max_connections",
        "min_connections",
        "migrations_paths",
        "min_messages",
        "pool",
        "prepared_statements",
        "query_cache",
        "reaping_frequency",
        "reconnect",
        "retries",
        "schema_search_path",
        "statement_limit",
        "strict",
        "timeout",
        "use_metadata_table",
        "variables",
        "wait_timeout",
        "collation",
        "flags",
    )
)
# mysql2's name of an option -> PyMySQL's.
_MYSQL_OPTIONS = {
    "encoding": "charset",
    "charset": "charset",
    "socket": "unix_socket",
    "unix_socket": "unix_socket",
    "connect_timeout": "connect_timeout",
    "read_timeout": "read_timeout",
    "write_timeout": "write_timeout",
    "sslca": "ssl_ca",
    "ssl_ca": "ssl_ca",
    "sslcert": "ssl_cert",
    "ssl_cert": "ssl_cert",
    "sslkey": "ssl_key",
    "ssl_key": "ssl_key",
}
# libpq's options; Rails passes these on from a database.yml entry, and no others.
_LIBPQ = frozenset(
    (
        "application_name",
        "channel_binding",
        "client_encoding",
        "connect_timeout",
        "fallback_application_name",
        "gssencmode",
        "gsslib",
        "host",
        "hostaddr",
        "keepalives",
        "keepalives_count",
        "keepalives_idle",
        "keepalives_interval",
        "krbsrvname",
        "load_balance_hosts",
        "options",
        "passfile",
        "replication",
        "require_auth",
        "requirepeer",
        "service",
        "sslcert",
        "sslcertmode",
        "sslcompression",
        "sslcrl",
        "sslcrldir",
        "sslkey",
        "sslmode",
        "sslnegotiation",
        "sslpassword",
        "sslrootcert",
        "sslsni",
        "ssl_max_protocol_version",
        "ssl_min_protocol_version",
        "target_session_attrs",
        "tcp_user_timeout",
    )
)
# Of these, the options by which the driver opens a file, loads a library or reads more options: code, in the end.
OPENING_FILES = frozenset(
    (
        *("gsslib", "krbsrvname", "passfile", "service", "servicefile", "sslcert", "sslcrl", "sslcrldir", "sslkey"),
        *("sslkeylogfile", "sslpassword", "sslrootcert", "sslca", "ssl_ca", "ssl_cert", "ssl_key"),
    )
)
_FURTHER_LIBPQ = frozenset(
    ("user", "password", "port", "max_protocol_version", "min_protocol_version", "servicefile", "sslkeylogfile")
)
# The settings of a database.yml entry that a connection needs; all others concern Rails only.
CONNECTING = _LIBPQ | frozenset(
    (
        "adapter",
        "database",
        "username",
        "user",
        "password",
        "port",
        "schema_search_path",
        "prepared_statements",
        *_MYSQL_OPTIONS,
    )
)
_MYSQL_CHARSET = "utf8mb4"
_SCHEMA_OPTION = re.compile(r'(?:^| )-csearch_path="(?P<schema>[^"]+)"$')  # as with_schema writes it
# Our own option, removed before the driver gets the URL.
NO_PREPARE = "solidjq_no_prepare"
EXAMPLES = "postgresql://user@host/name, mysql://user@host/name or sqlite:path/to/file.sqlite3"


def default_path() -> Path:
    """Return the path of the embedded queue, in the user's state folder."""
    from platformdirs import user_state_path  # noqa: PLC0415  (not needed if a database is named)

    return user_state_path("solidjq") / "queue.sqlite3"


def parse_url(text: str) -> URL:
    """Parse what an operator types, or Rails' ``DATABASE_URL``, into a SQLAlchemy URL with our drivers.

    Raises UsageError for text that is not a URL; its message never repeats a password.
    """
    text = text.strip()
    if not text:
        raise UsageError(f"the database URL is empty; write {EXAMPLES}")
    sqlite = _SQLITE.fullmatch(text)
    if sqlite or not _SCHEME.match(text):
        path = _sqlite_path(sqlite["scheme"].lower(), sqlite["rest"]) if sqlite else text
        if path in {"", ":memory:"}:
            raise UsageError(f"an SQLite queue is a file, shared by several processes; write {EXAMPLES}")
        if _LOST_SCHEME.match(path) and not Path(path).exists():
            raise _not_a_url(text)
        return URL.create("sqlite", database=path)
    url = with_rails_options(_made(text))
    if url.get_backend_name() == "mysql" and not url.database:  # PostgreSQL takes the user's name for it
        raise UsageError(f"the database URL names no database; write {EXAMPLES}")
    return url


def _made(text: str) -> URL:
    if not text:
        raise UsageError(f"the database URL is empty; write {EXAMPLES}")
    try:
        url = make_url(text)
    except (ArgumentError, ValueError):
        raise _not_a_url(text) from None
    if "@" in (url.host or ""):
        raise UsageError("in a database URL, write %40 for an @ in the password, %2F for a slash, %3A for a colon")
    return url


def with_rails_options(url: URL) -> URL:
    """Return a URL with our driver, and Rails' options under the driver's names.

    Raises UsageError for a database that is not supported.
    """
    name = url.drivername.lower()
    if name in _POSTGRESQL:
        return _postgresql(url)
    if name in _MYSQL:
        return _mysql(url)
    raise UsageError(f"databases of kind {url.drivername!r} are not supported; write {EXAMPLES}")


def taken_apart(text: str) -> dict[str, str]:
    """Return a URL as the settings of a ``database.yml`` entry, as Rails reads it; parts that it lacks are absent.

    Raises UsageError for text that is not a URL; its message never repeats a password.
    """
    text = text.strip()
    if sqlite := _SQLITE.fullmatch(text):
        path = _sqlite_path("sqlite3", sqlite["rest"])  # in Rails sqlite:///x is the absolute /x too
        return {"adapter": "sqlite3", **({"database": path} if path else {})}
    url = _made(text)
    named = {
        "adapter": url.drivername,
        "username": url.username,
        "password": url.password,
        "host": url.host,
        "port": None if url.port is None else str(url.port),
        "database": url.database,
    }
    options = {key: _one(url.query, key) for key in url.query}
    return {key: value for key, value in {**named, **options}.items() if value}


def with_schema(url: URL, schema: str) -> URL:
    """Return the URL of a queue whose tables are in this PostgreSQL schema.

    Raises UsageError for another database, and for a text that cannot be a schema's name.
    """
    if url.get_backend_name() == "mysql":
        raise UsageError("on MySQL a schema is a database: name it in the URL instead of with --schema")
    if url.get_backend_name() != "postgresql":
        raise UsageError("only PostgreSQL has schemas; leave --schema out")
    if not schema or re.search(r"""["'\\\0,]""", schema):
        raise UsageError(f"{schema!r} cannot be the name of a schema here")
    path = f'"{schema}"'.replace(" ", r"\ ")
    before = _one(url.query, "options") or ""  # of two settings of one name, the server uses the last
    return url.update_query_dict({"options": f"{before} -csearch_path={path}".strip()})


def _not_a_url(text: str) -> UsageError:
    # In text that is not a URL, the end of a password cannot be known: nothing before the last @ is shown.
    hidden = re.sub(r"^([a-zA-Z][a-zA-Z0-9+]*:/{0,2})?.*@", rf"\g<1>{MASK}@", text, flags=re.DOTALL)
    return UsageError(f"not a database URL: {mask_secrets(hidden)}; write {EXAMPLES}")


def url_text(url: URL) -> str:
    """Return the text, with the password, that ``parse_url`` parses into this URL."""
    if url.get_backend_name() != "sqlite":
        return url.render_as_string(hide_password=False)
    path = url.database or ""
    return (
        f"sqlite:///{quote(path)}"
        if path.startswith("//") or path != path.strip() or {"%", "?"} & set(path)
        else f"sqlite:{path}"
    )


def init_command(url: URL, prefix: str | None = None) -> str:
    """Return the command that creates a queue at this URL; its password, if any, is masked."""
    return command_for("init", url, prefix)


def command_for(command: str, url: URL, prefix: str | None = None) -> str:
    """Return a command line of ``jq`` on the database at this URL; its password, if any, is masked."""
    bare, schema = _without_schema(_as_typed(url))
    before = "" if prefix is None else f" --table-prefix {prefix}"
    before += "" if schema is None else f" --schema {shlex.quote(schema)}"
    return f"jq{before} {command} --database {shlex.quote(mask_argument(url_text(bare)))}"


def _as_typed(url: URL) -> URL:
    """Return a URL without what ``parse_url`` added: the driver, and MySQL's usual character set."""
    usual = url.get_backend_name() == "mysql" and url.query.get("charset") == _MYSQL_CHARSET
    bare = url.difference_update_query(["charset"]) if usual else url
    return bare.set(drivername=url.get_backend_name())


def _without_schema(url: URL) -> tuple[URL, str | None]:
    """Take out of a URL the schema that ``with_schema`` put in; None if there is none."""
    options = _one(url.query, "options") or ""
    match = _SCHEMA_OPTION.search(options)
    if match is None:
        return url, None
    rest, bare = options[: match.start()], url.difference_update_query(["options"])
    return bare.update_query_dict({"options": rest}) if rest else bare, match["schema"].replace(r"\ ", " ")


def masked_url(url: URL) -> str:
    """Return the URL for a terminal, its password masked wherever it is in the URL."""
    if url.get_backend_name() == "sqlite":
        return f"sqlite:{url.database}"
    plain = url.set(drivername=url.get_backend_name())  # without the driver's name
    return mask_secrets(plain.render_as_string(hide_password=True))


def _sqlite_path(scheme: str, rest: str) -> str:
    rest, _, _query = rest.partition("?")
    path = unquote(rest)
    if path.startswith("//"):
        path = path[2:]
        # Rails' sqlite3:///x is the absolute /x; SQLAlchemy's sqlite:///x is the relative x, its //// absolute.
        if scheme == "sqlite" and path.startswith("/"):
            path = path[1:]
    return path


def _postgresql(url: URL) -> URL:
    query = {k: v for k, v in url.query.items() if k not in _RAILS_ONLY}
    if unknown := sorted(query.keys() - _LIBPQ - _FURTHER_LIBPQ - {NO_PREPARE}):
        raise UsageError(
            f"the database URL has the option {unknown[0]!r}, which is none of libpq's or Rails'; remove it"
        )
    if path := _one(url.query, "schema_search_path"):
        query["options"] = f"-csearch_path={path.replace(' ', '')}"
    if _one(url.query, "prepared_statements") == "false":  # as Rails is configured behind a connection pooler
        query[NO_PREPARE] = "true"
    return url.set(drivername="postgresql+psycopg", query=query)


def _mysql(url: URL) -> URL:
    query = {new: value for old, new in _MYSQL_OPTIONS.items() if (value := _one(url.query, old)) is not None}
    return url.set(drivername="mysql+pymysql", query={"charset": _MYSQL_CHARSET, **query})


def _one(query: Mapping[str, str | tuple[str, ...]], key: str) -> str | None:
    value = query.get(key)
    return value if value is None or isinstance(value, str) else value[-1]
