"""The options of a database's URL and of a ``database.yml`` entry: an allow-list per driver.

An option is passed on under the driver's name, ignored because it concerns Rails alone, or refused. None is dropped in
silence: a connection whose ``ssl_mode`` was dropped is not encrypted.
"""

import re
from collections.abc import Iterable, Mapping

from solidjq.errors import DatabaseURLError

# Options of Rails and its adapters without a meaning for jq, which has one connection a program and its own sessions.
_RAILS = frozenset(
    (
        *("adapter", "advisory_locks", "checkout_timeout", "connection_retries", "database_tasks", "encoding"),
        *("idle_timeout", "insert_returning", "keepalive", "lazy_schema_cache", "max_age", "max_connections"),
        *("migrations_paths", "min_connections", "min_messages", "pool", "pool_jitter", "prepared_statements"),
        *("query_cache", "reaping_frequency", "reconnect", "replica", "retries", "retry_deadline", "schema_cache_path"),
        *("schema_dump", "schema_format", "schema_search_path", "seeds", "statement_limit", "strict", "timeout"),
        *("use_metadata_table", "variables", "verify_timeout", "wait_timeout"),
    )
)
_RAILS_ON_MYSQL = frozenset(
    (
        *("as", "automatic_close", "automatic_reconnect", "application_timezone", "cache_rows", "cast", "charset"),
        *("collation", "connect_attrs", "database_timezone", "flags", "found_rows", "get_server_public_key"),
        *("keepalive_count", "keepalive_enabled", "keepalive_idle", "keepalive_interval", "local_infile"),
        *(
            "max_allowed_packet",
            "multi_result",
            "multi_statement",
            "secure_auth",
            "stream",
            "symbolize_keys",
            "tcp_nodelay",
        ),
    )
)
_RAILS_ON_SQLITE = frozenset(
    ("default_transaction_mode", "extensions", "pragmas", "results_as_hash", "type_translation")
)
# libpq's options; Rails passes these on from a database.yml entry, and no others.
_LIBPQ = frozenset(
    (
        *("application_name", "channel_binding", "client_encoding", "connect_timeout", "fallback_application_name"),
        *("gssencmode", "gsslib", "host", "hostaddr", "keepalives", "keepalives_count", "keepalives_idle"),
        *("keepalives_interval", "krbsrvname", "load_balance_hosts", "options", "passfile", "replication"),
        *("require_auth", "requirepeer", "service", "sslcert", "sslcertmode", "sslcompression", "sslcrl", "sslcrldir"),
        *("sslkey", "sslmode", "sslnegotiation", "sslpassword", "sslrootcert", "sslsni", "ssl_max_protocol_version"),
        *("ssl_min_protocol_version", "target_session_attrs", "tcp_user_timeout"),
    )
)
_ONLY_IN_URLS = frozenset(
    ("user", "password", "port", "max_protocol_version", "min_protocol_version", "servicefile", "sslkeylogfile")
)
# Our own option, removed before the driver gets the URL.
PREPARE = "solidjq_prepare"  # true or false; without it, statements are prepared unless a pooler stands between
SSL_MODE = "ssl_mode"  # becomes the driver's own arguments; see ``tls``
# The names of an option in mysql2, Trilogy and PyMySQL -> PyMySQL's.
_MYSQL = {
    "default_file": "read_default_file",
    "read_default_file": "read_default_file",
    "default_group": "read_default_group",
    "read_default_group": "read_default_group",
    "socket": "unix_socket",
    "unix_socket": "unix_socket",
    "connect_timeout": "connect_timeout",
    "read_timeout": "read_timeout",
    "write_timeout": "write_timeout",
    "ssl_mode": SSL_MODE,
    "sslmode": SSL_MODE,
    "sslca": "ssl_ca",
    "ssl_ca": "ssl_ca",
    "sslcert": "ssl_cert",
    "ssl_cert": "ssl_cert",
    "sslkey": "ssl_key",
    "ssl_key": "ssl_key",
}
# Whatever the application's own: in utf8 or latin1, every other character would be read as a question mark.
_MYSQL_CHARSET = "utf8mb4"
_SPECIAL = re.compile(r"([\\\s])")  # what a backslash precedes in libpq's ``options``
Options = Mapping[str, str | tuple[str, ...]]  # as SQLAlchemy has them
_KINDS = {"postgresql": "PostgreSQL", "mysql": "MySQL", "sqlite": "SQLite"}
_HONOURED = {
    "postgresql": _LIBPQ | _ONLY_IN_URLS | {PREPARE, "prepared_statements", "schema_search_path"},
    "mysql": frozenset(_MYSQL),
    "sqlite": frozenset[str](),
}
_IGNORED = {
    "postgresql": _RAILS,
    "mysql": _RAILS | _RAILS_ON_MYSQL,
    "sqlite": _RAILS | _RAILS_ON_SQLITE,
}
# The settings of an entry that are parts of a URL, not options.
PARTS = frozenset(("adapter", "database", "username", "user", "password", "host", "port"))
# Of the options, those by which the driver opens a file, loads a library or reads more options: code, in the end.
OPENING_FILES = frozenset(
    (
        *("gsslib", "krbsrvname", "passfile", "service", "servicefile", "sslcert", "sslcrl", "sslcrldir", "sslkey"),
        *("sslkeylogfile", "sslpassword", "sslrootcert", "sslca", "ssl_ca", "ssl_cert", "ssl_key"),
        *("default_file", "default_group", "read_default_file", "read_default_group"),
    )
)
# An entry has keys that gems read, too. One that says how to connect, and safely, is an option all the same.
_SAYS_HOW_TO_CONNECT = re.compile(
    r"(?i)ssl|tls|gss|krb|crl|cipher|auth|cleartext|public_?key|certificate|verify"
    r"|\A(?:init_command|bind_address|proxy|dbname|readonly|mode|vfs|immutable|nolock)\Z"
)


def translated(backend: str, options: Options) -> dict[str, str | tuple[str, ...]]:
    """Return the options of a URL under the driver's names. Raises DatabaseURLError for one that is not allowed."""
    check_url_options(backend, options)
    single = last_values(options)
    if backend == "mysql":
        return {"charset": _MYSQL_CHARSET, **{_MYSQL[key]: text for key, text in single.items() if key in _MYSQL}}
    passed_on = {key: texts for key, texts in options.items() if key in _LIBPQ | _ONLY_IN_URLS | {PREPARE}}
    if path := single.get("schema_search_path"):
        passed_on["options"] = with_setting(single.get("options", ""), "search_path", path.replace(" ", ""))
    if (prepare := single.get("prepared_statements")) in {"true", "false"}:
        passed_on[PREPARE] = str(prepare)
    return passed_on


def with_setting(options: str, name: str, value: str) -> str:
    """Return libpq's ``options`` with a setting more; of two settings of one name, the server uses the last."""
    word = _SPECIAL.sub(r"\\\1", value)
    return f"{options} -c{name}={word}".strip()


def last_values(options: Options) -> dict[str, str]:
    """Return the options of a URL, of several of one name the last."""
    return {key: texts if isinstance(texts, str) else texts[-1] for key, texts in options.items()}


def is_usual(backend: str, key: str, text: str) -> bool:
    """Whether ``translated`` adds this option to every URL."""
    return (backend, key, text) == ("mysql", "charset", _MYSQL_CHARSET)


def check_url_options(backend: str, options: Mapping[str, object]) -> None:
    """Raise DatabaseURLError for an option of a URL that is neither the driver's nor Rails'."""
    for key in sorted(options.keys() - _HONOURED[backend] - _IGNORED[backend]):
        raise _refusal(backend, key)
    _check_flags(options)


def entry_options(backend: str, settings: Mapping[str, object]) -> set[str]:
    """Return the settings of a ``database.yml`` entry that are options of the driver.

    Keys that are neither the driver's nor Rails' are ignored, as Rails does: gems read them. Raises DatabaseURLError
    for one that says how to connect and cannot be honoured.
    """
    known = _HONOURED[backend] | _IGNORED[backend] | PARTS
    for key in sorted(key for key in _texts(settings) if key not in known and _SAYS_HOW_TO_CONNECT.search(key)):
        if settings[key] is not None and settings[key] is not False:
            raise _refusal(backend, key)
    _check_flags(settings)
    options = {key for key in _texts(settings) if key in _HONOURED[backend]}
    if lists := sorted(key for key in options if isinstance(settings[key], Mapping | list)):
        raise DatabaseURLError(f"{lists[0]} is not one text")
    return options


def _texts(keys: Iterable[object]) -> list[str]:
    return [key for key in keys if isinstance(key, str)]


def _check_flags(options: Mapping[str, object]) -> None:
    """Refuse mysql2's ``flags`` if they ask for TLS; the others change nothing here."""
    if "ssl" in str(options.get("flags")).lower():
        raise _refusal("mysql", "flags")


def _refusal(backend: str, key: str) -> DatabaseURLError:
    allowed = ", ".join(sorted(_HONOURED[backend] - {PREPARE} - PARTS)) or "none but Rails' own, which are ignored"
    return DatabaseURLError(
        f"the database URL has the option {key!r}, which jq cannot honour on {_KINDS[backend]}; remove it, or use one "
        f"of these: {allowed}"
    )
