"""Functions of SQL that each database spells differently."""

from typing import Any

from sqlalchemy import Boolean, ColumnElement, Integer, String
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql import expression
from sqlalchemy.sql.compiler import SQLCompiler


class without_index(expression.FunctionElement[int]):  # noqa: N801  (used like an SQL function)
    """A number by whose index PostgreSQL must not look, because its statistics, which are old, would let it."""

    type = Integer()
    inherit_cache = True


@compiles(without_index)
def _with_index(element: without_index, compiler: SQLCompiler, **kw: Any) -> str:
    return compiler.process(element.clauses, **kw)


@compiles(without_index, "postgresql")
def _without_index(element: without_index, compiler: SQLCompiler, **kw: Any) -> str:
    return f"({compiler.process(element.clauses, **kw)} + 0)"


class _of_two_texts(expression.FunctionElement[bool]):  # noqa: N801  (the base of what is used like an SQL function)
    """A comparison of a column's text with another text."""

    type = Boolean()
    inherit_cache = True

    def __init__(self, text: ColumnElement[str], other: str) -> None:
        super().__init__(text, expression.bindparam(None, other, type_=String(), unique=True))


class holds(_of_two_texts):  # noqa: N801  (used like an SQL function)
    """Whether a text contains another: what LIKE finds, in half the time and without wildcards."""

    inherit_cache = True


@compiles(holds)
def _holds(element: holds, compiler: SQLCompiler, **kw: Any) -> str:
    return f"instr({compiler.process(element.clauses, **kw)}) > 0"


@compiles(holds, "mysql")
def _holds_mysql(element: holds, compiler: SQLCompiler, **kw: Any) -> str:
    text, part = (compiler.process(clause, **kw) for clause in element.clauses)
    return f"instr(CAST({text} AS BINARY), {part}) > 0"  # as bytes: a collation takes longer for every character


@compiles(holds, "postgresql")
def _holds_postgresql(element: holds, compiler: SQLCompiler, **kw: Any) -> str:
    return f"strpos({compiler.process(element.clauses, **kw)}) > 0"


class equals(_of_two_texts):  # noqa: N801  (used like an SQL function)
    """Whether a text is another one, to the letter. MySQL finds by its collation, with an index, and then by bytes."""

    inherit_cache = True


@compiles(equals)
def _equals(element: equals, compiler: SQLCompiler, **kw: Any) -> str:
    text, other = (compiler.process(clause, **kw) for clause in element.clauses)
    return f"({text} = {other})"


@compiles(equals, "mysql")
def _equals_mysql(element: equals, compiler: SQLCompiler, **kw: Any) -> str:
    text, other = (compiler.process(clause, **kw) for clause in element.clauses)
    return f"({text} = {other} AND {utf8_bytes(text)} = {utf8_bytes(other)})"


class begins(_of_two_texts):  # noqa: N801  (used like an SQL function)
    """Whether a text begins with another one, to the letter, whatever the case rules of LIKE and of the collation."""

    inherit_cache = True


@compiles(begins)
def _begins(element: begins, compiler: SQLCompiler, **kw: Any) -> str:
    text, other = (compiler.process(clause, **kw) for clause in element.clauses)
    return f"(substr({text}, 1, length({other})) = {other})"


@compiles(begins, "postgresql")
def _begins_postgresql(element: begins, compiler: SQLCompiler, **kw: Any) -> str:
    return f"starts_with({compiler.process(element.clauses, **kw)})"


@compiles(begins, "mysql")
def _begins_mysql(element: begins, compiler: SQLCompiler, **kw: Any) -> str:
    text, other = (compiler.process(clause, **kw) for clause in element.clauses)
    return f"(LOCATE({utf8_bytes(other)}, {utf8_bytes(text)}) = 1)"


def utf8_bytes(text: str) -> str:
    """Return the SQL of the bytes of a text in MySQL, whatever the character set of its column."""
    return f"CAST(CONVERT({text} USING utf8mb4) AS BINARY)"


class octets(expression.FunctionElement[int]):  # noqa: N801  (used like an SQL function)
    """The length of a text in bytes. PostgreSQL reads that of a long text without decompressing it."""

    type = Integer()
    inherit_cache = True


@compiles(octets)
def _octets(element: octets, compiler: SQLCompiler, **kw: Any) -> str:
    return f"octet_length({compiler.process(element.clauses, **kw)})"


@compiles(octets, "sqlite")
def _octets_sqlite(element: octets, compiler: SQLCompiler, **kw: Any) -> str:
    return f"length(CAST({compiler.process(element.clauses, **kw)} AS BLOB))"


class own_arguments(expression.FunctionElement[str]):  # noqa: N801  (used like an SQL function)
    """The job's own arguments in the payload of Active Job; a text that is no such payload is returned whole.

    In a payload they stand between the keys ``arguments`` and ``executions``. The arguments may contain the second key
    too, so its last place counts.
    """

    type = String()
    inherit_cache = True


@compiles(own_arguments)
def _own_arguments(element: own_arguments, compiler: SQLCompiler, **kw: Any) -> str:
    payload = compiler.process(element.clauses, **kw)
    extracted = f"coalesce(json_extract({payload}, '$.arguments'), {payload})"
    return f"(CASE WHEN json_valid({payload}) THEN {extracted} ELSE {payload} END)"


@compiles(own_arguments, "postgresql")
def _own_arguments_postgresql(element: own_arguments, compiler: SQLCompiler, **kw: Any) -> str:
    payload = compiler.process(element.clauses, **kw)
    return f'coalesce(substring({payload} from \'"arguments":(.*)"executions":\'), {payload})'


@compiles(own_arguments, "mysql")
def _own_arguments_mysql(element: own_arguments, compiler: SQLCompiler, **kw: Any) -> str:
    payload = compiler.process(element.clauses, **kw)
    after = f"SUBSTRING_INDEX({payload}, '\"executions\":', -1)"
    before = f"LEFT({payload}, CHAR_LENGTH({payload}) - CHAR_LENGTH({after}) - 13)"
    ends = f"LOCATE('\"arguments\":', {payload}) > 0 AND LOCATE('\"executions\":', {payload}) > 0"
    return f"(CASE WHEN {ends} THEN SUBSTR({before}, LOCATE('\"arguments\":', {payload}) + 12) ELSE {payload} END)"


class current_role(expression.FunctionElement[str]):  # noqa: N801  (used like an SQL function)
    """The role that this connection acts as, by the database; NULL in SQLite.

    PostgreSQL: with the role that logged in, where it is another one. MySQL: the account, with its host.
    """

    type = String()
    inherit_cache = True


@compiles(current_role)
def _no_current_role(_element: current_role, _compiler: SQLCompiler, **_: Any) -> str:
    return "NULL"


@compiles(current_role, "postgresql")
def _current_role_postgresql(_element: current_role, _compiler: SQLCompiler, **_: Any) -> str:
    return "(current_user || CASE WHEN session_user = current_user THEN '' ELSE ' by ' || session_user END)"


@compiles(current_role, "mysql")
def _current_role_mysql(_element: current_role, _compiler: SQLCompiler, **_: Any) -> str:
    return "CURRENT_USER()"
