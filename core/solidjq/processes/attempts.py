"""Attempts at ending claims, of which the database may refuse some: what it refuses alone keeps nothing else."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

from sqlalchemy import ColumnElement, Connection, Select
from sqlalchemy.exc import DBAPIError

from solidjq.database.among import among
from solidjq.database.tables import claimed
from solidjq.database.transactions import Database
from solidjq.errors import DatabaseError, RowsRefusedError, concerns_all
from solidjq.queue.concurrency import Limits
from solidjq.queue.endings import fail, fail_but_refused, fail_locked
from solidjq.text import count_of

MOST_PASSED = 50  # rows, a transaction each, while nothing else ends; then the database refuses all

T = TypeVar("T")


@dataclass(slots=True)
class Attempt:
    """What one transaction may take: at most ``at_once`` rows, and none of ``passed``.

    The transaction notes which rows it ``tried``. If it is ``careful``, it leaves the claims that the database refuses:
    ``refused`` has their jobs and errors, ``left`` the rows that it leaves for that.
    """

    at_once: int
    careful: bool = False
    passed: list[int] = field(default_factory=list)
    tried: list[int] = field(default_factory=list)
    left: list[int] = field(default_factory=list)
    refused: dict[int | None, DBAPIError] = field(default_factory=dict)

    def of(self, query: Select[T], number: ColumnElement[int]) -> Select[T]:
        """Return the query for the rows that this transaction may take; ``number`` is their id."""
        return (query.where(number.not_in(self.passed)) if self.passed else query).limit(self.at_once)

    def fail(
        self,
        connection: Connection,
        claims: Mapping[int, int | None],
        errors: Mapping[int, str] | str,
        limits: Limits,
        *,
        still: ColumnElement[bool] | None = None,
    ) -> list[int]:
        """Fail these claims, each with its job; return the ids of the jobs that failed.

        This transaction has locked the claims, unless ``still`` is a condition that must hold for them.
        """
        self.refused = {}  # what was refused before a deadlock may have ended since
        if not claims:
            return []
        condition = among(claimed.c.id, claims) if still is None else among(claimed.c.id, claims) & still
        if not self.careful:
            if still is None:
                return fail_locked(connection, claims, errors, limits)
            return fail(connection, condition, errors, limits)
        failed, refused = fail_but_refused(connection, condition, errors, limits)
        self.refused = {claims[claim_id]: error for claim_id, error in refused.items()}
        return failed


def passing_over(database: Database, move: Callable[[Attempt], T | None], at_once: int, *, what: str) -> Iterator[T]:
    """Make moves, a transaction each, until one returns None; what the database refuses alone keeps nothing else.

    A move that was refused is made again with care; if that is refused, too, with one row at a time until the refused
    one is found. It is passed over, unless more than ``MOST_PASSED`` were since anything was moved. At the end
    RowsRefusedError names the jobs, and counts the rows that were passed over; ``what`` each of them is.
    """
    attempt = Attempt(at_once)
    refused: dict[int | None, DBAPIError] = {}
    first: DatabaseError | None = None
    passed = 0  # rows that were refused as such, for ``first`` or a later error, and not for one of their jobs
    in_vain = 0  # rows that were passed over since anything was moved
    while in_vain <= MOST_PASSED:
        attempt.tried, attempt.left, attempt.refused = [], [], {}
        try:
            moved = move(attempt)
        except DatabaseError as error:
            if not attempt.tried or concerns_all(error) or in_vain >= MOST_PASSED:
                raise
            if _narrow(attempt, at_once):
                first = first or error
                passed += 1
                in_vain += 1
            continue
        if moved is None:
            break
        in_vain = 0 if moved else in_vain + len(attempt.left)
        if attempt.refused:
            refused |= attempt.refused
            attempt.passed += attempt.left
            attempt.at_once = at_once
        attempt.careful = attempt.at_once < at_once  # then the refused row is still being looked for
        yield moved
    reasons = [str(database.translated(error)) for error in [*refused.values()][:1]]
    if first is not None:
        reasons.append(f"{count_of(passed, what)} {'stays' if passed == 1 else 'stay'} as before: {first}")
    if reasons:
        raise RowsRefusedError("; ".join(reasons), list(refused)) from first


def _narrow(attempt: Attempt, at_once: int) -> bool:
    """Choose how the next move is made after a refused one; return whether it passes over the row that was refused."""
    if attempt.careful and len(attempt.tried) == 1:
        attempt.passed += attempt.tried
        attempt.at_once, attempt.careful = at_once, False
        return True
    if attempt.careful:
        attempt.at_once = 1
    attempt.careful = True
    return False
