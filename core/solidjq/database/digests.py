"""Digests: SHA-256 of rows, computed by the database, and the same canonical form in Python.

A field is its number of characters, a colon, its text and a comma: ``3:ada,``. NULL is ``:,``, an empty text ``0:,``.
No two lists of fields have the same form.
"""

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any

from sqlalchemy import Column, ColumnElement, String, Text, cast
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql import expression
from sqlalchemy.sql.compiler import SQLCompiler

from solidjq.database.times import UtcDateTime


def canonical(values: Iterable[str | int | datetime | None]) -> str:
    """Return the canonical form of values: integers in decimal, times in UTC as ``2026-11-23 04:40:22.022096``."""
    texts = (_time_text(value) if isinstance(value, datetime) else value for value in values)
    return "".join(":," if text is None else f"{len(str(text))}:{text}," for text in texts)


def _time_text(time: datetime) -> str:
    return time.astimezone(UTC).replace(tzinfo=None).isoformat(sep=" ", timespec="microseconds")


def hash_of(values: Iterable[str | int | datetime | None]) -> str:
    """Return the SHA-256 of the canonical form of values, in UTF-8, as 64 hexadecimal digits."""
    return sha256(canonical(values).encode("utf-8", "surrogatepass")).hexdigest()


def sha256_of(value: bytes | None) -> str | None:
    """Return the SHA-256 of bytes as hexadecimal digits; None for NULL. SQLite has no such function of its own."""
    return None if value is None else sha256(value).hexdigest()


def row_text(columns: Iterable[Column[Any]]) -> ColumnElement[str]:
    """Return, as SQL, the canonical form of a row's columns.

    Long texts follow the other fields, each as its own SHA-256 and a comma, NULL as the comma alone: no database has to
    put several long texts together.
    """
    texts, hashes = [], []
    for column in columns:
        if isinstance(column.type, Text):
            hashes.append(_sha256(column))
        else:
            texts.append(_text_of(column))
    return _fields(texts, hashes)


def row_hash(columns: Iterable[Column[Any]]) -> ColumnElement[str]:
    """Return, as SQL, the SHA-256 of ``row_text`` of these columns."""
    return _sha256(row_text(columns))


def _text_of(column: Column[Any]) -> ColumnElement[str]:
    if isinstance(column.type, UtcDateTime):
        return _stored_time(column)
    return column if isinstance(column.type, String) else cast(column, String(20))


class _fields(expression.FunctionElement[str]):  # noqa: N801  (used like an SQL function)
    """Texts with their lengths, then hashes without."""

    type = String()
    inherit_cache = False  # how many of the clauses are texts is no part of a cache key

    def __init__(self, texts: Sequence[ColumnElement[str]], hashes: Sequence[ColumnElement[str]]) -> None:
        self.texts = len(texts)
        super().__init__(*texts, *hashes)


def _parts(element: _fields, compiler: SQLCompiler, **kw: Any) -> tuple[list[str], list[str]]:
    parts = [compiler.process(clause, **kw) for clause in element.clauses]
    return parts[: element.texts], parts[element.texts :]


@compiles(_fields, "postgresql")
def _fields_postgresql(element: _fields, compiler: SQLCompiler, **kw: Any) -> str:
    # One call, which skips NULL: joined with ||, as many texts take six times as long.
    texts, hashes = _parts(element, compiler, **kw)
    fields = [f"char_length({text}), ':', {text}, ','" for text in texts] + [f"{text}, ','" for text in hashes]
    return f"concat({', '.join(fields)})"


@compiles(_fields, "mysql")
def _fields_mysql(element: _fields, compiler: SQLCompiler, **kw: Any) -> str:
    texts, hashes = _parts(element, compiler, **kw)
    fields = [f"COALESCE(CHAR_LENGTH({text}), ''), ':', COALESCE({text}, ''), ','" for text in texts]
    fields += [f"COALESCE({text}, ''), ','" for text in hashes]
    return f"CONCAT({', '.join(fields)})"


@compiles(_fields, "sqlite")
def _fields_sqlite(element: _fields, compiler: SQLCompiler, **kw: Any) -> str:
    texts, hashes = _parts(element, compiler, **kw)
    fields = [f"coalesce(length({text}), '') || ':' || coalesce({text}, '') || ','" for text in texts]
    fields += [f"coalesce({text}, '') || ','" for text in hashes]
    return f"({' || '.join(fields)})"


class _sha256(expression.FunctionElement[str]):  # noqa: N801
    """The SHA-256 of a text in UTF-8, as hexadecimal digits."""

    type = String()
    inherit_cache = True


@compiles(_sha256, "postgresql")
def _sha256_postgresql(element: _sha256, compiler: SQLCompiler, **kw: Any) -> str:
    return f"encode(sha256(convert_to({compiler.process(element.clauses, **kw)}, 'UTF8')), 'hex')"


@compiles(_sha256, "mysql")
def _sha256_mysql(element: _sha256, compiler: SQLCompiler, **kw: Any) -> str:
    return f"SHA2(CONVERT({compiler.process(element.clauses, **kw)} USING utf8mb4), 256)"


@compiles(_sha256, "sqlite")
def _sha256_sqlite(element: _sha256, compiler: SQLCompiler, **kw: Any) -> str:
    return f"jq_sha256(CAST({compiler.process(element.clauses, **kw)} AS BLOB))"


class _stored_time(expression.FunctionElement[str]):  # noqa: N801
    """A time as text: ``2026-11-23 04:40:22.022096``; in SQLite as it is stored."""

    type = String()
    inherit_cache = True


@compiles(_stored_time, "postgresql")
def _stored_time_postgresql(element: _stored_time, compiler: SQLCompiler, **kw: Any) -> str:
    return f"to_char({compiler.process(element.clauses, **kw)}, 'YYYY-MM-DD HH24:MI:SS.US')"


@compiles(_stored_time, "mysql")
def _stored_time_mysql(element: _stored_time, compiler: SQLCompiler, **kw: Any) -> str:
    return f"CAST({compiler.process(element.clauses, **kw)} AS CHAR(26))"


@compiles(_stored_time, "sqlite")
def _stored_time_sqlite(element: _stored_time, compiler: SQLCompiler, **kw: Any) -> str:
    return compiler.process(element.clauses, **kw)
