"""Column types that read whatever a column contains: SQLite stores values of any type in any column.

There, text is read from bytes and numbers too, and a number that is none is None. Other databases check the type.
"""

from collections.abc import Callable

from sqlalchemy import BigInteger, Dialect, Integer, String, Text
from sqlalchemy.types import TypeEngine

from solidjq.database.unknown_columns import decode


def read_text(value: object) -> str | None:
    """Return a value of any type as text; bytes are read as UTF-8."""
    if value is None or isinstance(value, str):
        return value
    return decode(value) if isinstance(value, bytes) else str(value)


def read_integer(value: object) -> int | None:
    """Return an integer as it is, and None for anything else."""
    return value if type(value) is int else None


class _AnyString(String):
    def result_processor(self, dialect: Dialect, coltype: object) -> Callable[[object], str | None]:  # noqa: ARG002
        return read_text


class _AnyText(Text):
    def result_processor(self, dialect: Dialect, coltype: object) -> Callable[[object], str | None]:  # noqa: ARG002
        return read_text


class _AnyInteger(Integer):
    def result_processor(self, dialect: Dialect, coltype: object) -> Callable[[object], int | None]:  # noqa: ARG002
        return read_integer


class _AnyBigInteger(BigInteger):
    def result_processor(self, dialect: Dialect, coltype: object) -> Callable[[object], int | None]:  # noqa: ARG002
        return read_integer


def any_string(length: int | None = None) -> TypeEngine[str]:
    """Return the type of a short text, of 255 characters in MySQL unless ``length`` says another."""
    return String(length).with_variant(String(length or 255), "mysql").with_variant(_AnyString(length), "sqlite")


ANY_TEXT: TypeEngine[str] = Text().with_variant(_AnyText(), "sqlite")
# Of what MySQL returns as bytes because it was compared so.
ANY_BYTES: TypeEngine[str] = ANY_TEXT.with_variant(_AnyText(), "mysql")
# For copies: they hold what their source holds, however long its column was made. MySQL's TEXT ends at 64 KB.
LONG_TEXT: TypeEngine[str] = ANY_TEXT.with_variant(Text(2**32 - 1), "mysql")
LONG_STRING: TypeEngine[str] = String().with_variant(Text(2**32 - 1), "mysql").with_variant(_AnyString(), "sqlite")
ANY_INTEGER: TypeEngine[int] = Integer().with_variant(_AnyInteger(), "sqlite")
ANY_BIG_INTEGER: TypeEngine[int] = BigInteger().with_variant(_AnyBigInteger(), "sqlite")
# An SQLite key aliases the rowid only if it is INTEGER. Then it contains nothing else.
ID: TypeEngine[int] = BigInteger().with_variant(Integer(), "sqlite")
