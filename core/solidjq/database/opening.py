"""Open the database that an argument, the environment or the default names."""

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

    The embedded queue is made if it is not there, unless ``create`` is False. ``namespace`` is the PostgreSQL schema
    with the tables, ``table_prefix`` what the names of Solid Queue's begin with, for the whole process; else
    JQ_TABLE_PREFIX says it. Raises UsageError for a malformed URL or prefix.
    """
    tables.use_prefix(
        os.environ.get(PREFIX_ENVIRONMENT, tables.DEFAULT_PREFIX) if table_prefix is None else table_prefix
    )
    # An empty one is an error: a variable that was not filled must not lead to another queue.
    given = url if url is not None else os.environ.get(URL_ENVIRONMENT)
    if given is None:
        path = urls.default_path()
        found = URL.create("sqlite", database=str(path))
        missing = create and not read_only and not path.exists()
    else:
        found = urls.parse_url(given) if isinstance(given, str) else given
        missing = False
    if namespace is not None:
        found = urls.with_schema(found, namespace)
    database = Database(found, name=name, read_only=read_only)
    if missing:
        initialize(database)
    return database
