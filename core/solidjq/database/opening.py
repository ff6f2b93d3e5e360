"""Opening: the database that an argument or the environment names, else the embedded queue."""

import os
from contextlib import nullcontext

from sqlalchemy.engine import URL

from solidjq.database import tables, urls
from solidjq.database.answers import COMMAND_TIMEOUT
from solidjq.database.transactions import Database
from solidjq.errors import UsageError

URL_ENVIRONMENT = "JQ_DATABASE_URL"
PREFIX_ENVIRONMENT = "JQ_TABLE_PREFIX"
WAYS_TO_NAME = (
    f"--database URL, {URL_ENVIRONMENT}, --rails FOLDER, or a profile of jq.toml (--profile NAME, default_profile)"
)


def open_database(
    url: str | URL | None = None,
    *,
    name: str = "jq",
    create: bool = True,
    namespace: str | None = None,
    table_prefix: str | None = None,
    read_only: bool = False,
    answer_timeout: float | None = None,
    lock_timeout: float | None = None,
) -> Database:
    """Open the database at ``url``, else the one that JQ_DATABASE_URL names, else the embedded queue.

    The embedded queue is created if it is missing; with ``create`` False, a missing one is a UsageError that says how
    to name a database. ``namespace`` is the tables' PostgreSQL schema. ``table_prefix``, else JQ_TABLE_PREFIX, is the
    prefix of Solid Queue's tables, for the whole process. A server that takes longer than ``answer_timeout`` seconds,
    by default 600, to answer a statement counts as unreachable; a statement that waits for a lock longer than
    ``lock_timeout`` seconds fails with LockedError. Raises UsageError for a malformed URL or prefix.
    """
    tables.use_prefix(
        os.environ.get(PREFIX_ENVIRONMENT, tables.DEFAULT_PREFIX) if table_prefix is None else table_prefix
    )
    source = url if url is not None else _url_of_environment()
    if source is None:
        target, path = embedded_url(), urls.default_path()
        if not create and not path.exists():
            raise UsageError(f"no database is named, and there is no embedded queue; name one with {WAYS_TO_NAME}")
        missing = create and not read_only and not path.exists()
    else:
        target = _parsed(source, URL_ENVIRONMENT if url is None else None)
        missing = False
    if namespace is not None:
        target = urls.with_schema(target, namespace)
    database = Database(
        target,
        name=name,
        read_only=read_only,
        answer_timeout=answer_timeout or COMMAND_TIMEOUT,
        lock_timeout=lock_timeout,
    )
    if missing:
        from solidjq.database.setup import initialize  # noqa: PLC0415  (seldom)

        initialize(database)
    return database


def _parsed(source: str | URL, place: str | None) -> URL:
    if not isinstance(source, str):
        return source
    with nullcontext() if place is None else urls.written_in(place):
        return urls.parse_url(source)


def embedded_url() -> URL:
    """Return the URL of the embedded queue, whether it exists or not."""
    return URL.create("sqlite", database=str(urls.default_path()))


def _url_of_environment() -> str | None:
    """Return what JQ_DATABASE_URL names. An empty one is an error: it was meant to name some queue."""
    url = os.environ.get(URL_ENVIRONMENT)
    if url is not None and not url.strip():
        raise UsageError(f"{URL_ENVIRONMENT} is empty; set it to a database's URL or unset it; write {urls.EXAMPLES}")
    return url
