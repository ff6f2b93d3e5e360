"""Text columns on MySQL and MariaDB, which have a character set and a greatest length each.

PostgreSQL and SQLite have neither: every function here finds nothing on them.
"""

from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

from sqlalchemy import Column, Connection, Table, Text, bindparam, text
from sqlalchemy.schema import CreateColumn

from solidjq.database import tables
from solidjq.errors import LedgerMissingError

EVERY_CHARACTER = "utf8mb4"
_LONGEST = 2**32 - 1  # bytes of a LONGTEXT


class TextColumn(NamedTuple):
    """A text column as the server's catalogue describes it."""

    characters: int  # at most; of TEXT and its kin, which are limited in bytes, as many as there are bytes
    octets: int  # at most
    character_set: str

    def holds(self, other: "TextColumn") -> bool:
        """Whether every value of ``other`` can be copied here as it is."""
        if self.character_set == other.character_set:
            return self.octets >= other.octets
        return self.character_set == EVERY_CHARACTER and self.octets >= min(4 * other.characters, _LONGEST)


def text_columns(connection: Connection, names: Collection[str]) -> dict[str, dict[str, TextColumn]]:
    """Return the text columns of these tables by table and column."""
    if connection.dialect.name != "mysql":
        return {}
    query = text(
        "SELECT table_name, column_name, character_maximum_length, character_octet_length, character_set_name "
        "FROM information_schema.columns WHERE table_schema = DATABASE() AND table_name IN :names "
        "AND character_set_name IS NOT NULL ORDER BY table_name, ordinal_position"
    ).bindparams(bindparam("names", expanding=True))
    columns: dict[str, dict[str, TextColumn]] = {}
    for table, column, *facts in connection.execute(query, {"names": list(names)}):
        columns.setdefault(table, {})[column] = TextColumn(*facts)
    return columns


def table_setting(connection: Connection) -> str:
    """Return the end of a CREATE TABLE on MySQL: the new table holds every character, whatever the database's default.

    Its collation is that of the jobs table if that can be: with two collations, no index serves a comparison.
    """
    collations = connection.execute(
        text(
            "SELECT @@collation_database UNION ALL SELECT collation_name FROM information_schema.columns "
            "WHERE table_schema = DATABASE() AND table_name = :jobs AND column_name = 'active_job_id'"
        ),
        {"jobs": tables.jobs.name},
    ).scalars()
    usable = [name for name in collations if name and name.startswith(EVERY_CHARACTER)]
    return f"CHARACTER SET {EVERY_CHARACTER}" + (f" COLLATE {usable[-1]}" if usable else "")


def outdated(connection: Connection) -> dict[Table, list[Column[Any]]]:
    """Return the columns of our tables that cannot hold every text of their source, as older versions created them."""
    there = text_columns(connection, [table.name for table in tables.jq.sorted_tables])
    found = {
        table: [column for column in table.columns if _is_outdated(column, there.get(table.name, {}))]
        for table in tables.jq.sorted_tables
    }
    return {table: columns for table, columns in found.items() if columns}


def _is_outdated(column: Column[Any], there: Mapping[str, TextColumn]) -> bool:
    present = there.get(column.name)
    if present is None:
        return False
    return present.character_set != EVERY_CHARACTER or (_is_long(column) and present.octets < _LONGEST)


def _is_long(column: Column[Any]) -> bool:
    from sqlalchemy.dialects.mysql import dialect  # noqa: PLC0415  (loaded already where this is called)

    kind = column.type.dialect_impl(dialect())
    return isinstance(kind, Text) and kind.length == _LONGEST


def bring_up_to_date(connection: Connection) -> None:
    """Let our tables of an older version hold every text: each is rewritten at once, or left alone."""
    for table, columns in outdated(connection).items():
        # The conversion would shorten no column, but make TEXT a MEDIUMTEXT.
        parts = [f"CONVERT TO {table_setting(connection)}"]
        parts += [
            f"MODIFY {CreateColumn(column).compile(dialect=connection.dialect)}"
            for column in columns
            if _is_long(column)
        ]
        connection.exec_driver_sql(f"ALTER TABLE {table.name} {', '.join(parts)}")


def require_room(connection: Connection, copied: Mapping[Column[Any], Column[Any]]) -> None:
    """Raise LedgerMissingError if a column of ours cannot hold every value of the column that is copied into it.

    ``copied``: ours and the source of each. MariaDB refuses no such copy, even in strict mode: it stores the rest of
    the length divided by 65,536, so 3,428 of 200,036 bytes.
    """
    there = text_columns(connection, {column.table.name for pair in copied.items() for column in pair})
    for ours, source in copied.items():
        room, needed = (there.get(column.table.name, {}).get(column.name) for column in (ours, source))
        if room is not None and needed is not None and not room.holds(needed):
            raise LedgerMissingError(
                f"{ours.table.name}.{ours.name} cannot hold every value of {source.table.name}.{source.name}, so an "
                "undo would lose text; run: jq init"
            )
