"""Rows that the database refuses alone, by a trigger say: found by halves, each in a savepoint of one transaction."""

from collections.abc import Callable, Sequence

from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from solidjq.database.faults import OF_ROWS, fault_of


def all_but_refused(
    connection: Connection, ids: Sequence[int], act: Callable[[Sequence[int]], list[int]], *, most: int
) -> tuple[list[int], dict[int, DBAPIError]]:
    """Act on these rows, but leave those that the database refuses as they are.

    Returns what ``act`` returned for the others, and the error of each row that was refused. If more than ``most`` are
    refused and nothing was done, the database refuses them all: the error is raised.
    """
    done: list[int] = []
    refused: dict[int, DBAPIError] = {}
    parts = [ids] if ids else []
    while parts:
        part = parts.pop()
        savepoint = connection.begin_nested()
        try:
            done += act(part)
            savepoint.commit()
        except DBAPIError as error:
            if fault_of(error) not in OF_ROWS:
                raise
            try:
                savepoint.rollback()
            except DBAPIError:  # the transaction has ended: a trigger of SQLite may do that
                raise error from None
            if len(part) > 1:
                middle = len(part) // 2
                parts += [part[middle:], part[:middle]]
                continue
            refused[part[0]] = error
            if len(refused) > most and not done:
                raise
    return done, refused
