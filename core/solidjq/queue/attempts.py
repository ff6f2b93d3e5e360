"""Attempts at moving rows, of which the database may refuse some: what it refuses alone keeps nothing else."""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from sqlalchemy import ColumnElement, Connection, Select
from sqlalchemy.exc import DBAPIError

from solidjq.database.among import among
from solidjq.database.tables import claimed
from solidjq.database.transactions import Database
from solidjq.errors import STAYS_CLAIMED, DatabaseError, LockedError, RowsRefusedError, Stays, concerns_all
from solidjq.queue.concurrency import Limits
from solidjq.queue.endings import MOST_REFUSED, fail, fail_locked, locked_elsewhere
from solidjq.queue.refused import all_but_refused
from solidjq.text import count_of

LOCK_WAIT = 5.0  # seconds that a command waits for a lock, once
LOCK_REASON = "another transaction has locked what its end would change"
MOST_REASONS = 3  # that one error names
MOST_PASSED = 50  # rows, a transaction each, while nothing else ends; then the database refuses all

T = TypeVar("T")
Q = TypeVar("Q", bound=Select[Any])
Name = int | str | None  # of what a row is about, by which a refusal names it: a job's id, a concurrency key


@dataclass(slots=True)
class Attempt:
    """What one transaction may take: at most ``at_once`` rows, whose ids are greater than ``above``.

    The transaction notes which rows it ``tried``, in the order of their ids. If it is ``careful``, it leaves the rows
    that the database refuses: ``refused`` has their names and errors, ``left`` the ids of the rows that it left for it.
    If it ``waits``, it waits for locks of other transactions, each for ``LOCK_WAIT`` seconds at most; otherwise it
    leaves what is locked.
    """

    at_once: int
    careful: bool = False
    waits: bool = True
    above: int | None = None
    tried: Sequence[int] = ()
    left: Collection[int] = ()
    refused: dict[Name, DBAPIError | LockedError] = field(default_factory=dict)

    def of(self, query: Q, number: ColumnElement[int]) -> Q:
        """Return the query for the rows that this transaction may take, ordered by ``number``, their id."""
        query = query.order_by(number).limit(self.at_once)
        return query if self.above is None else query.where(number > self.above)

    def act(
        self, connection: Connection, names: Mapping[int, Name], act: Callable[[Sequence[int]], list[int]]
    ) -> list[int]:
        """Act on rows by their ids, each with its name; return what ``act`` returned."""
        self.refused = {}  # what was refused before a deadlock may have ended since
        self.left = ()
        if not names:
            return []
        if not self.careful:
            return act(list(names))
        done, refused = all_but_refused(connection, list(names), act, most=MOST_REFUSED)
        self.refused = {names[number]: error for number, error in refused.items()}
        self.left = refused.keys()
        return done

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

        This transaction has locked the claims, unless ``still`` is a condition that must hold for them. Without
        waiting, claims of which another transaction has locked a row are left, as those that are refused.
        """

        def fail_part(part: Sequence[int]) -> list[int]:
            if still is None and not self.careful:
                return fail_locked(connection, claims, errors, limits)
            condition = among(claimed.c.id, part)
            return fail(connection, condition if still is None else condition & still, errors, limits)

        locked = () if self.waits else locked_elsewhere(connection, claims)
        failed = self.act(
            connection, {number: job for number, job in claims.items() if number not in locked}, fail_part
        )
        self.refused |= {claims[number]: LockedError(LOCK_REASON) for number in locked}
        self.left = [*self.left, *locked]
        return failed


def passing_over(
    database: Database, move: Callable[[Attempt], T | None], at_once: int, *, what: str, stays: Stays = STAYS_CLAIMED
) -> Iterator[T]:
    """Make moves, a transaction each, until one returns None; what the database refuses alone keeps nothing else.

    Each move takes the rows behind those of the move before. One that was refused is made again with care; if that is
    refused, too, with one row at a time until the refused one is found. It is passed over, unless more than
    ``MOST_PASSED`` were since anything was moved. If a move has waited for a lock in vain, it is made again, and all
    further ones are made, without waiting; all its rows are passed over if it meets another lock even so. At the end
    RowsRefusedError names what was refused, in the words of ``stays``, and counts the rows that were passed over;
    ``what`` each of them is.
    """
    attempt = Attempt(at_once)
    refused: dict[Name, DBAPIError | LockedError] = {}
    first: DatabaseError | None = None
    passed = 0  # rows that were refused as such, for ``first`` or a later error, and not for one of their jobs
    in_vain = 0  # rows that were passed over since anything was moved
    while in_vain <= MOST_PASSED:
        attempt.tried, attempt.left, attempt.refused = (), (), {}
        try:
            moved = move(attempt)
        except DatabaseError as error:
            if not attempt.tried or concerns_all(error) or in_vain >= MOST_PASSED:
                raise
            over = _give_way(attempt) if isinstance(error, LockedError) else _narrow(attempt, at_once)
            if over:
                first = first or error
                passed += over
                in_vain += 1
            continue
        if moved is None:
            break
        attempt.above = max(attempt.tried)
        in_vain = 0 if moved else in_vain + len(attempt.left)
        if attempt.refused:
            refused |= attempt.refused
            attempt.at_once = at_once
        attempt.careful = attempt.at_once < at_once  # then the refused row is still being looked for
        yield moved
    reasons = [*dict.fromkeys(_words(database, error) for error in refused.values())][:MOST_REASONS]
    if first is not None:
        reasons.append(f"{count_of(passed, what)} {'stays' if passed == 1 else 'stay'} as before: {first}")
    if reasons:
        raise RowsRefusedError("; ".join(reasons), list(refused), stays) from first


def _words(database: Database, error: DBAPIError | LockedError) -> str:
    return str(error if isinstance(error, LockedError) else database.translated(error))


def _narrow(attempt: Attempt, at_once: int) -> int:
    """Choose how the next move is made after a refused one; return 1 if it passes over the row that was refused."""
    if attempt.careful and len(attempt.tried) == 1:
        attempt.above = attempt.tried[0]
        attempt.at_once, attempt.careful = at_once, False
        return 1
    if attempt.careful:
        attempt.at_once = 1
    attempt.careful = True
    return 0


def _give_way(attempt: Attempt) -> int:
    """Choose how the next move is made after one that met a lock; return how many rows it passes over."""
    if attempt.waits:
        attempt.waits = False
        return 0
    attempt.above = max(attempt.tried)
    return len(attempt.tried)
