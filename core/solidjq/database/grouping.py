"""Statements that gather many rows in one, which each database spells differently; groups where it ``gathers``."""

import json
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

from sqlalchemy import ColumnElement, Connection, Dialect, LargeBinary, Select, String, select
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql import expression
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.types import TypeEngine, UserDefinedType

from solidjq.database.any_types import ANY_BYTES
from solidjq.database.functions import utf8_bytes

LONGEST_LIST = 10_000  # pairs of a group
ALL_ROWS = 2**63 - 1  # a LIMIT that leaves out no row


def gathers(connection: Connection) -> bool:
    """Whether a group's earliest and latest time are those of its rows; SQLite's times may be texts of any kind."""
    return connection.dialect.name != "sqlite"


def groups_by_digest(connection: Connection) -> bool:
    """Whether rows are grouped by a ``digest`` of their texts: on MySQL a temporary table of texts is on disk."""
    return connection.dialect.name == "mysql"


class _Numbers(UserDefinedType[list[Any]]):
    """Numbers of many rows in one value: an array, or its JSON text."""

    cache_ok = True

    def result_processor(self, dialect: Dialect, coltype: object) -> Callable[[Any], list[Any]] | None:  # noqa: ARG002
        return None if dialect.name == "postgresql" else lambda numbers: json.loads(numbers or "[]")


class _ShortList(_Numbers):
    cache_ok = True

    def result_processor(self, dialect: Dialect, coltype: object) -> Callable[[Any], Any] | None:
        read = super().result_processor(dialect, coltype)

        def read_whole(numbers: Any) -> Any:
            with suppress(ValueError):
                return None if numbers is None or read is None else read(numbers)

        return None if read is None else read_whole


class gathered(expression.FunctionElement[list[Any]]):  # noqa: N801  (used like an SQL function)
    """The numbers of a group's rows as a list, in no order."""

    type = _Numbers()
    inherit_cache = True


@compiles(gathered)
def _gathered(element: gathered, compiler: SQLCompiler, **kw: Any) -> str:
    return f"array_agg({compiler.process(element.clauses, **kw)})"


@compiles(gathered, "sqlite")
def _gathered_sqlite(element: gathered, compiler: SQLCompiler, **kw: Any) -> str:
    return f"json_group_array({compiler.process(element.clauses, **kw)})"


@compiles(gathered, "mysql")
def _gathered_mysql(element: gathered, compiler: SQLCompiler, **kw: Any) -> str:
    return f"JSON_ARRAYAGG({compiler.process(element.clauses, **kw)})"


class gathered_pairs(gathered):  # noqa: N801  (used like an SQL function)
    """Two numbers of each of a group's rows as a list of pairs, in no order.

    A list that is longer than ``LONGEST_LIST`` is cut off there, or None.
    """

    type = _ShortList()
    inherit_cache = True


@compiles(gathered_pairs, "postgresql")
def _gathered_pairs_postgresql(element: gathered_pairs, compiler: SQLCompiler, **kw: Any) -> str:
    return f"(array_agg(ARRAY[{compiler.process(element.clauses, **kw)}]))[1:{LONGEST_LIST}]"


@compiles(gathered_pairs, "mysql")
def _gathered_pairs_mysql(element: gathered_pairs, compiler: SQLCompiler, **kw: Any) -> str:
    # MariaDB cuts the text off at group_concat_max_len.
    return f"JSON_ARRAYAGG(JSON_ARRAY({compiler.process(element.clauses, **kw)}))"


class exactly(expression.FunctionElement[str]):  # noqa: N801  (used like an SQL function)
    """A text that is compared exactly: on MySQL its bytes, for a collation ignores case, accents and spaces.

    What it returns there is for the server alone: the driver would return bytes.
    """

    type: TypeEngine[str] = String()
    inherit_cache = True


@compiles(exactly)
def _exactly(element: exactly, compiler: SQLCompiler, **kw: Any) -> str:
    return compiler.process(element.clauses, **kw)


@compiles(exactly, "mysql")
def _exactly_mysql(element: exactly, compiler: SQLCompiler, **kw: Any) -> str:
    return f"CAST({compiler.process(element.clauses, **kw)} AS BINARY)"


class exact_text(exactly):  # noqa: N801  (used like an SQL function)
    """A text that is compared exactly, as with ``exactly``, and returned as text."""

    type = ANY_BYTES
    inherit_cache = True


@compiles(exact_text, "mysql")
def _exact_text_mysql(element: exact_text, compiler: SQLCompiler, **kw: Any) -> str:
    return utf8_bytes(compiler.process(element.clauses, **kw))


class digest(expression.FunctionElement[bytes]):  # noqa: N801  (used like an SQL function)
    """The SHA-256 of texts and numbers with the byte FF between them, where ``groups_by_digest``; NULL if one is NULL.

    Of several texts one must be ``exactly`` or ``exact_text``: then MySQL takes the bytes of all as they are.
    """

    type = LargeBinary()
    inherit_cache = True


@compiles(digest, "mysql")
def _digest_mysql(element: digest, compiler: SQLCompiler, **kw: Any) -> str:
    parts = ", X'FF', ".join(compiler.process(part, **kw) for part in element.clauses)
    return f"CAST(UNHEX(SHA2(CONCAT({parts}), 256)) AS BINARY(32))"


class begin(expression.FunctionElement[str]):  # noqa: N801  (used like an SQL function)
    """So many characters of a text, the first; on SQLite all of a text with U+0000, at which its ``substr`` ends."""

    type = String()
    inherit_cache = True


@compiles(begin)
def _begin(element: begin, compiler: SQLCompiler, **kw: Any) -> str:
    text, length = (compiler.process(clause, **kw) for clause in element.clauses)
    return f"substr({text}, 1, {length})"


@compiles(begin, "sqlite")
def _begin_sqlite(element: begin, compiler: SQLCompiler, **kw: Any) -> str:
    text, length = (compiler.process(clause, **kw) for clause in element.clauses)
    return _unless_cut(text, f"substr({text}, 1, {length})")


def _unless_cut(text: str, part: str) -> str:
    return f"(CASE WHEN instr({text}, char(0)) > 0 THEN {text} ELSE {part} END)"


class before(expression.FunctionElement[str]):  # noqa: N801  (used like an SQL function)
    """A text up to the first place of another, or all of it; on SQLite all of a text with U+0000, see ``begin``."""

    type = String()
    inherit_cache = True

    def __init__(self, text: ColumnElement[str], part: str) -> None:
        super().__init__(text, expression.bindparam(None, part, type_=String(), unique=True))


@compiles(before, "postgresql")
def _before_postgresql(element: before, compiler: SQLCompiler, **kw: Any) -> str:
    return f"split_part({compiler.process(element.clauses, **kw)}, 1)"


@compiles(before, "sqlite")
def _before_sqlite(element: before, compiler: SQLCompiler, **kw: Any) -> str:
    text, part = (compiler.process(clause, **kw) for clause in element.clauses)
    return _unless_cut(text, f"substr({text}, 1, instr({text} || {part}, {part}) - 1)")


@compiles(before, "mysql")
def _before_mysql(element: before, compiler: SQLCompiler, **kw: Any) -> str:
    return f"SUBSTRING_INDEX({compiler.process(element.clauses, **kw)}, 1)"


class from_first(expression.FunctionElement[str]):  # noqa: N801  (used like an SQL function)
    """At most ``length`` characters of a text, from the first place of another on; it must contain that."""

    type = String()
    inherit_cache = True

    def __init__(self, text: ColumnElement[str], part: str, length: ColumnElement[int]) -> None:
        super().__init__(text, expression.bindparam(None, part, type_=String(), unique=True), length)


@compiles(from_first, "postgresql")
def _from_first_postgresql(element: from_first, compiler: SQLCompiler, **kw: Any) -> str:
    text, part, length = (compiler.process(clause, **kw) for clause in element.clauses)
    return f"substr({text}, strpos({text}, {part}), {length})"


@compiles(from_first, "sqlite")
def _from_first_sqlite(element: from_first, compiler: SQLCompiler, **kw: Any) -> str:
    text, part, length = (compiler.process(clause, **kw) for clause in element.clauses)
    return f"substr({text}, instr({text}, {part}), {length})"


@compiles(from_first, "mysql")
def _from_first_mysql(element: from_first, compiler: SQLCompiler, **kw: Any) -> str:
    text, part, length = (compiler.process(clause, **kw) for clause in element.clauses)
    # LOCATE compares by the collation, and takes three times as long.
    return f"SUBSTR({text}, CHAR_LENGTH(SUBSTRING_INDEX({text}, {part}, 1)) + 1, {length})"


class zeroed(expression.FunctionElement[str]):  # noqa: N801  (used like an SQL function)
    """A text with zeros for its digits. PostgreSQL's ``translate`` takes seven times as long as these nine calls."""

    type = String()
    inherit_cache = True


@compiles(zeroed)
def _zeroed(element: zeroed, compiler: SQLCompiler, **kw: Any) -> str:
    text = compiler.process(element.clauses, **kw)
    for digit in "123456789":
        text = f"replace({text}, '{digit}', '0')"
    return text


def read_numbers(connection: Connection, query: Select[Any]) -> list[tuple[int, ...]]:
    """Return the rows of a query, in no order; each of its columns is a number, and none is NULL.

    A driver takes longer for a thousand rows than the server does, so from a server they come as one: a list a column.
    """
    if connection.dialect.name == "sqlite":
        return list(map(tuple, connection.execute(query).all()))
    packed = select(*map(gathered, query.subquery("numbers").columns))
    return list(zip(*(numbers or () for numbers in connection.execute(packed).one()), strict=True))


def lock_rows(connection: Connection, page: Select[Any]) -> list[tuple[int, ...]]:
    """Lock the rows of a query with an order and a limit; return them, ascending. Its columns are as above.

    Without a limit, ALL_ROWS if nothing else, MySQL might merge the inner query into the outer one, and lock in
    another order.
    """
    return sorted(read_numbers(connection, page.with_for_update()))


def read_ids(connection: Connection, page: Select[int], *, descending: bool = False) -> Sequence[int]:
    """Return the ids of a page, a query with a limit that is ordered by them; on MySQL they come as one row."""
    if connection.dialect.name != "mysql":
        return connection.scalars(page).all()
    (number,) = (found := page.subquery("page")).columns
    return sorted(connection.scalars(select(gathered(number)).select_from(found)).one(), reverse=descending)


def lock_ids(connection: Connection, page: Select[int]) -> Sequence[int]:
    """Lock the rows of a page of ids, a query with a limit that is ordered by them; return the ids, ascending."""
    return read_ids(connection, page.with_for_update())
