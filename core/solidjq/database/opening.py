"""Opening: the database that an argument or the environment names, else the embedded queue."""

import os

from sqlalchemy.engine import URL

from solidjq.database import tables, urls
from solidjq.database.setup import initialize
from solidjq.database.transactions import Database

URL_ENVIRONMENT = "JQ_DATABASE_URL"
PREFIX_ENVIRONMENT = "JQ_TABLE_PREFIX"


def open_database(
    url: str | URL | None = None,
    *,
    name: str = "jq",
    create: bool = True,
    namespace: str | None = None,
    table_prefix: str | None = None,
    read_only: bool = False,
) -> Database:
    """Open the database at ``url``, else the one that JQ_DATABASE_URL names, else the embedded queue.

    The embedded queue is created if it is missing, unless ``create`` is False. ``namespace`` is the tables'
    PostgreSQL schema. ``table_prefix``, else JQ_TABLE_PREFIX, is the prefix of Solid Queue's tables, for the whole
    process. Raises UsageError for a malformed URL or prefix.
    """
    tables.use_prefix(
        os.environ.get(PREFIX_ENVIRONMENT, tables.DEFAULT_PREFIX) if table_prefix is None else table_prefix
    )
    # An empty variable is an error: one that was not filled must not open another queue.
    source = url if url is not None else os.environ.get(URL_ENVIRONMENT)
    if source is None:
        path = urls.default_path()
        target = URL.create("sqlite", database=str(path))
        missing = create and not read_only and not path.exists()
    else:
        target = urls.parse_url(source) if isinstance(source, str) else source
        missing = False
    if namespace is not None:
        target = urls.with_schema(target, namespace)
    database = Database(target, name=name, read_only=read_only)
    if missing:
        initialize(database)
    return database
