"""Unknown columns: read from the catalogue, packed into one JSON object of texts, and restored from it.

A later Solid Queue, or the application, may have added columns of any type to the jobs table; a discard keeps them.
"""

import json
import re
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from sqlalchemy import JSON, ColumnElement, Connection, FromClause, LargeBinary, Table, Text, func, text
from sqlalchemy.sql import expression
from sqlalchemy.types import UserDefinedType

from solidjq.database.poolers import qualified


def decode(text: bytes) -> str:
    """Decode text that may be in another encoding than UTF-8: one such row must not make all others unreadable."""
    return text.decode("utf-8", "replace")


_COLUMN_TYPES = {
    "postgresql": "SELECT attname, format_type(atttypid, -1) FROM pg_attribute "
    "WHERE attrelid = CAST(:name AS regclass) AND attnum > 0 AND NOT attisdropped "
    "AND attgenerated = '' AND attidentity <> 'a' ORDER BY attnum",
    "mysql": "SELECT column_name, data_type FROM information_schema.columns "
    "WHERE table_schema = DATABASE() AND table_name = :name AND COALESCE(generation_expression, '') = '' "
    "ORDER BY ordinal_position",
    "sqlite": "SELECT name, type FROM pragma_table_xinfo(:name) WHERE hidden = 0 ORDER BY cid",
}
_MYSQL_BINARY = re.compile("bit|.*(?:binary|blob)|point|linestring|polygon|multi.*|geom.*")


def column_types(connection: Connection, table: Table) -> dict[str, str]:
    """Return the columns of a table with their types, without those that the database generates."""
    dialect = connection.dialect.name
    name = qualified(connection, table.name) if dialect == "postgresql" else table.name
    return {str(column): str(kind) for column, kind in connection.execute(text(_COLUMN_TYPES[dialect]), {"name": name})}


def packed(connection: Connection, source: FromClause, types: Mapping[str, str]) -> ColumnElement[str]:
    """Return these columns of a row as one JSON object of texts, which ``unpacked`` converts back exactly."""
    dialect = connection.dialect.name
    build = func.json_build_object if dialect == "postgresql" else func.json_object
    pairs = ((expression.cast(name, Text), _as_text(dialect, source.c[name], kind)) for name, kind in types.items())
    return expression.cast(build(*(part for pair in pairs for part in pair)), Text)


def _as_text(dialect: str, column: ColumnElement[Any], kind: str) -> ColumnElement[Any]:
    if dialect == "sqlite":  # each value has a type of its own
        return func.quote(column)
    if dialect == "mysql" and _MYSQL_BINARY.fullmatch(kind):
        return func.hex(column)
    # MySQL would round a float to 6 digits; as a double it keeps all.
    exact = column + expression.literal_column("0e0") if dialect == "mysql" and kind == "float" else column
    return expression.cast(exact, Text)


def unpacked(connection: Connection, pack: ColumnElement[str], name: str, kind: str) -> ColumnElement[Any]:
    """Return the value of one column, for an insert, from the JSON object of ``packed``."""
    path = f"$.{json.dumps(name, ensure_ascii=False)}"
    match connection.dialect.name:
        case "postgresql":
            return expression.cast(expression.cast(pack, JSON)[name].as_string(), _Spelled(kind))
        case "mysql":
            quoted = func.json_extract(pack, path)  # unquoted, JSON's null would be the text 'null'
            value = expression.case((func.json_type(quoted) != "NULL", func.json_unquote(quoted)))
            return func.unhex(value) if _MYSQL_BINARY.fullmatch(kind) else value
        case _:
            return func.unquote(expression.cast(func.json_extract(pack, path), LargeBinary))


class _Spelled(UserDefinedType[Any]):
    """A type as the database spells it."""

    cache_ok = True

    def __init__(self, spelled: str) -> None:
        self.spelled = spelled

    def get_col_spec(self, **_: Any) -> str:
        return self.spelled


def unquote(quoted: bytes) -> str | bytes | float | None:
    """Return the value that SQLite's function ``quote`` wrote as a literal; SQLite has no function for it.

    Text that is no such literal is returned as it is.
    """
    literal = decode(quoted)
    if literal.startswith("'"):
        return literal[1:-1].replace("''", "'")
    if literal == "NULL":
        return None
    with suppress(ValueError):
        if literal.startswith("X'"):
            return bytes.fromhex(literal[2:-1])
        return int(literal) if literal.lstrip("-").isdigit() else float(literal)
    return literal
