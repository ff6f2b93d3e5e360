"""URLs of databases: SQLAlchemy's, Rails' (``postgres://``, ``mysql2://``, ``sqlite3:``) and plain file paths."""

import re
import shlex
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import parse_qsl, quote, unquote

from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError

from solidjq.database.url_options import PARTS, check_url_options, is_usual, last_values, translated, with_setting
from solidjq.errors import DatabaseURLError, UsageError
from solidjq.home import state_folder
from solidjq.text import MASK, mask_argument, mask_secrets, parse_id

_SCHEMES = {
    "postgresql": ("postgres", "postgresql", "postgresql+psycopg", "postgis"),
    "mysql": ("mysql", "mysql2", "trilogy", "mariadb", "mysql+pymysql", "mariadb+pymysql"),
    "sqlite": ("sqlite", "sqlite3"),
}
_DRIVERS = {"postgresql": "postgresql+psycopg", "mysql": "mysql+pymysql"}
_SQLITE = re.compile(r"(?i)(?P<scheme>sqlite3?):(?P<rest>.*)", re.DOTALL)
_SCHEME = re.compile(r"[a-zA-Z][a-zA-Z0-9+]+:")
# user@host/name or //user@host/name: more likely a URL that lost its scheme than a file; /home/user@domain/x is a file.
_LOST_SCHEME = re.compile(r"(//|(?![./~])).*@", re.DOTALL)

_SCHEMA_OPTION = re.compile(r'(?:^| )-csearch_path="(?P<schema>[^"]+)"$')  # as with_schema writes it
# scheme://user:password@h1:p1,h2:p2/name?options
_HOSTS = re.compile(r"(?P<before>[\w+]+://(?:[^/?#]*@)?)(?P<hosts>[^/?#@,]*,[^/?#@]*)(?P<after>(?:[/?].*)?)", re.DOTALL)
_HOST = re.compile(r"(?:\[(?P<address>[^\]]*)\]|(?P<name>[^:\[\]]*))(?::(?P<port>[^:]*))?")
_MOST_PORT = 65535
_MOST_SHOWN = 40  # characters of what is not a port number
EXAMPLES = "postgresql://user@host/name, mysql://user@host/name or sqlite:path/to/file.sqlite3"


def default_path() -> Path:
    """Return the path of the embedded queue, in the user's state folder. Raises UsageError for one without a home."""
    return state_folder() / "queue.sqlite3"


def parse_url(text: str) -> URL:
    """Parse what an operator types, or Rails' ``DATABASE_URL``, into a SQLAlchemy URL with our drivers.

    Raises DatabaseURLError for text that is not a URL; its message never repeats a password.
    """
    text = text.strip()
    if not text:
        raise DatabaseURLError(f"the database URL is empty; write {EXAMPLES}")
    sqlite = _SQLITE.fullmatch(text)
    if sqlite or not _SCHEME.match(text):
        path, options = sqlite_parts(sqlite["scheme"].lower(), sqlite["rest"]) if sqlite else (text, {})
        if path in {"", ":memory:"}:
            raise DatabaseURLError(f"an SQLite queue is a file, shared by several processes; write {EXAMPLES}")
        if _LOST_SCHEME.match(path) and not Path(path).exists():
            raise _not_a_url(text)
        check_url_options("sqlite", options)
        return URL.create("sqlite", database=path)
    url = with_rails_options(_made(text))
    if url.get_backend_name() == "mysql" and not url.database:  # PostgreSQL takes the user's name for it
        raise DatabaseURLError(f"the database URL names no database; write {EXAMPLES}")
    return url


def _made(text: str) -> URL:
    if not text:
        raise DatabaseURLError(f"the database URL is empty; write {EXAMPLES}")
    hosts = _HOSTS.fullmatch(text)
    try:
        url = make_url(text if hosts is None else f"{hosts['before']}{hosts['after']}")
    except (ArgumentError, ValueError):
        raise _not_a_url(text) from None
    if hosts is not None:
        names, ports = zip(*map(_host_and_port, hosts["hosts"].split(",")), strict=True)
        return with_hosts(url, ",".join(names), ",".join(ports) if any(ports) else "")
    if "%" in (url.host or ""):  # a folder of sockets, as libpq has it: %2Frun%2Fpostgresql
        return with_hosts(url._replace(host=None, port=None), unquote(str(url.host)), str(url.port or ""))
    if "@" in (url.host or ""):
        raise DatabaseURLError(
            "in a database URL, write %40 for an @ in the password, %2F for a slash, %3A for a colon"
        )
    return url


def _host_and_port(text: str) -> tuple[str, str]:
    """Split one of several hosts; an IPv6 address is in brackets."""
    match = _HOST.fullmatch(text)
    if match is None:
        raise _not_a_url(text)
    return unquote(match["address"] or match["name"]), match["port"] or ""


def with_hosts(url: URL, hosts: str, ports: str = "") -> URL:
    """Return the URL of one host, or of several separated by commas, with their ports: one for each, or one for all.

    A host that begins with a slash is the folder of a Unix socket, on MySQL the socket. Raises DatabaseURLError for
    what is not a port number, and for several hosts on MySQL.
    """
    for port in filter(None, ports.split(",")):
        if parse_id(port) is None or int(port) > _MOST_PORT:
            raise DatabaseURLError(f"{port[:_MOST_SHOWN]!r} is not a port number")
    if backend_of(url.drivername) == "mysql":
        if "," in hosts + ports:
            raise DatabaseURLError("several hosts in one URL are PostgreSQL's; on MySQL name one")
        if hosts.startswith("/"):
            return url.update_query_dict({"socket": hosts})
    several = "," in hosts + ports
    if not several and not hosts.startswith("/"):
        return url.set(host=hosts or None, port=int(ports) if ports else None)
    if several and ports.count(",") not in {0, hosts.count(",")}:
        raise DatabaseURLError(
            f"{hosts.count(',') + 1} hosts and {ports.count(',') + 1} ports: name a port for each host"
        )
    # SQLAlchemy takes a port for each host only.
    each = ports if "," in ports or not ports else ",".join([ports] * (hosts.count(",") + 1))
    return url.update_query_dict({"host": hosts, **({"port": each} if each else {})})


def with_rails_options(url: URL) -> URL:
    """Return a URL with our driver, and Rails' options under the driver's names.

    Raises DatabaseURLError for a database that is not supported.
    """
    backend = backend_of(url.drivername)
    if backend == "sqlite":
        raise _unsupported(url.drivername)
    return url.set(drivername=_DRIVERS[backend], query=translated(backend, url.query))


def backend_of(adapter: str) -> str:
    """Return the kind of database that a URL's scheme or Rails' adapter names: ``postgresql``, ``mysql``, ``sqlite``.

    Raises DatabaseURLError for one that is not supported.
    """
    name = adapter.lower()
    backend = next((backend for backend, names in _SCHEMES.items() if name in names), None)
    if backend is None:
        raise _unsupported(adapter)
    return backend


def _unsupported(adapter: str) -> DatabaseURLError:
    return DatabaseURLError(f"databases of kind {adapter!r} are not supported; write {EXAMPLES}")


@contextmanager
def written_in(place: str) -> Iterator[None]:
    """Name the option, variable or file that a URL was written in, in the error that it causes."""
    try:
        yield
    except DatabaseURLError as error:
        raise UsageError(f"{place}: {error}") from None


def taken_apart(text: str) -> dict[str, str]:
    """Return a URL as the settings of a ``database.yml`` entry, as Rails reads it; parts that it lacks are absent.

    Raises DatabaseURLError for text that is not a URL and options that are not allowed; its message never repeats a
    password.
    """
    text = text.strip()
    if sqlite := _SQLITE.fullmatch(text):
        path, options = sqlite_parts("sqlite3", sqlite["rest"])  # in Rails sqlite:///x is the absolute /x too
        check_url_options("sqlite", options)
        return {**options, "adapter": "sqlite3", **({"database": path} if path else {})}
    url = _made(text)
    named = {
        "adapter": url.drivername,
        "username": url.username,
        "password": url.password,
        "host": url.host,
        "port": None if url.port is None else str(url.port),
        "database": url.database,
    }
    options = last_values(url.query)
    check_url_options(backend_of(url.drivername), {key: options[key] for key in options.keys() - PARTS})
    return {key: value for key, value in {**options, **{k: v for k, v in named.items() if v}}.items() if value}


def with_schema(url: URL, schema: str) -> URL:
    """Return the URL of a queue whose tables are in this PostgreSQL schema.

    Raises UsageError for another database, and for a text that cannot be a schema's name.
    """
    if url.get_backend_name() == "mysql":
        raise UsageError("on MySQL a schema is a database: name it in the URL, not with --schema")
    if url.get_backend_name() != "postgresql":
        raise UsageError(f"only PostgreSQL has schemas; take {schema!r} out of --schema, JQ_SCHEMA or the profile")
    if not schema or re.search(r"""["'\\\0,]""", schema):
        raise UsageError(f"{schema!r} cannot be the name of a schema here")
    before = _one(url.query, "options") or ""
    return url.update_query_dict({"options": with_setting(before, "search_path", f'"{schema}"')})


def _not_a_url(text: str) -> DatabaseURLError:
    # In text that is not a URL, the end of a password cannot be known: nothing before the last @ is shown.
    hidden = re.sub(r"^([a-zA-Z][a-zA-Z0-9+]*:/{0,2})?.*@", rf"\g<1>{MASK}@", text, flags=re.DOTALL)
    return DatabaseURLError(f"not a database URL: {mask_secrets(hidden)}; write {EXAMPLES}")


def without_password(url: URL, place: str) -> URL:
    """Return a URL that a password may be added to. Raises UsageError if it has one, or is that of an SQLite file."""
    if url.get_backend_name() == "sqlite":
        raise UsageError(f"{place}: an SQLite file has no password")
    if url.password is not None or "password" in url.query:
        raise UsageError(f"{place}: the database's URL has a password already; leave one of them out")
    return url


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
    backend = url.get_backend_name()
    usual = [key for key, text in last_values(url.query).items() if is_usual(backend, key, text)]
    return url.difference_update_query(usual).set(drivername=backend)


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
    plain = url.set(drivername=url.get_backend_name()).difference_update_query(["charset"])  # as it was written
    return mask_secrets(plain.render_as_string(hide_password=True))


def sqlite_parts(scheme: str, rest: str) -> tuple[str, dict[str, str]]:
    """Return the path and the options of an SQLite URL, of which ``rest`` comes after the scheme."""
    rest, _, query = rest.partition("?")
    path = unquote(rest)
    if path.startswith("//"):
        path = path[2:]
        # Rails' sqlite3:///x is the absolute /x; SQLAlchemy's sqlite:///x is the relative x, its //// absolute.
        if scheme == "sqlite" and path.startswith("/"):
            path = path[1:]
    return path, dict(parse_qsl(query, keep_blank_values=True))


def _one(query: Mapping[str, str | tuple[str, ...]], key: str) -> str | None:
    value = query.get(key)
    return value if value is None or isinstance(value, str) else value[-1]
