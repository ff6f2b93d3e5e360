"""A whole prune, step by step: settle the doubts, prune, fail orphaned claims, count crashes.

The command line and the supervisor both prune this way. Only the waiting differs: a command sleeps between two checks,
a supervisor goes on with its other work and checks again at its next turn.
"""

from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager

from sqlalchemy import Connection

from solidjq.database.transactions import Database
from solidjq.errors import DatabaseError, RowsRefusedError, Stays, concerns_all
from solidjq.ledger import crashes
from solidjq.processes import pruning
from solidjq.processes.prune_guard import NOBODY, PAUSE, Doubts, find_doubts
from solidjq.processes.pruning import PrunedProcess, Record

Wait = Callable[[Doubts, float], object]  # is called with the unsettled doubts and the seconds until the next check


def pause_of(threshold: float) -> float:
    """Return the seconds between two checks of processes that look dead."""
    return threshold * PAUSE


def check(
    database: Database, threshold: float, *, before: Doubts = NOBODY, looks_up: bool = False, force: bool = False
) -> Doubts:
    """Check once who is dead, and what speaks against it; see ``prune_guard.find_doubts`` for the parameters."""
    with database.read() as connection:
        return find_doubts(connection, threshold, before=before, looks_up=looks_up, force=force)


def settle(database: Database, threshold: float, wait: Wait, *, looks_up: bool = False, force: bool = False) -> Doubts:
    """Check who is dead, and check again after ``wait`` as long as it is unsure of some process.

    The result either names the dead or contains a refusal; nobody in it is ``unsure``.
    """
    doubts = check(database, threshold, looks_up=looks_up, force=force)
    while doubts.unsure:
        wait(doubts, pause_of(threshold))
        doubts = check(database, threshold, before=doubts, looks_up=looks_up, force=force)
    return doubts


def prune_checked(
    database: Database,
    threshold: float,
    doubts: Doubts,
    *,
    record: Record | None = None,
    witness: Mapping[str, object] | None = None,
) -> Iterator[PrunedProcess]:
    """Prune the processes that a check found dead, fail orphaned claims, count every crash that is not counted yet.

    Orphaned claims come last, as a ``PrunedProcess`` without an id. ``record``, ``witness``: as for ``pruning.prune``.
    What the database refuses keeps nothing else; at the end RowsRefusedError names the jobs.
    """
    refusals: list[DatabaseError] = []
    with _put_off(refusals):
        yield from pruning.prune(database, threshold, only=doubts.dead, record=record, witness=witness)
    orphans: list[int] = []
    with _put_off(refusals):
        for batch in pruning.fail_orphans(database, record=record):
            orphans += batch
    # A claim that was locked when its process went may have ended since, as an orphan.
    refusals = [left for refusal in refusals if (left := _without(refusal, orphans)) is not None]
    yield from _orphaned(orphans)
    with _put_off(refusals):
        crashes.count_all(database)
    if refusals:
        raise _all_of(refusals)


def _without(refusal: DatabaseError, ended: Collection[int]) -> DatabaseError | None:
    """Return a refusal without the jobs that have ended since; None if it was about these alone."""
    if not isinstance(refusal, RowsRefusedError) or set(refusal.names).isdisjoint(ended):
        return refusal
    names = [name for name in refusal.names if name not in ended]
    whole_rows = refusal.__cause__ is not None  # some were passed over, for a reason of their own
    return RowsRefusedError(refusal.reason, names, refusal.stays) if names or whole_rows else None


def _all_of(refusals: Sequence[DatabaseError]) -> DatabaseError:
    """Return the first of these errors; if it is about refused rows, with the jobs that all of them name."""
    if not isinstance(refusals[0], RowsRefusedError):
        return refusals[0]
    alike: dict[Stays, list[RowsRefusedError]] = defaultdict(list)
    for refusal in refusals:
        if isinstance(refusal, RowsRefusedError):
            alike[refusal.stays].append(refusal)
    first, *others = (_one_of(stays, of_rows) for stays, of_rows in alike.items())
    return RowsRefusedError("; ".join(map(str, (first, *others)))) if others else first


def _one_of(stays: Stays, refusals: Sequence[RowsRefusedError]) -> RowsRefusedError:
    names = list(dict.fromkeys(name for refusal in refusals for name in refusal.names))
    by_names = sorted(refusals, key=lambda refusal: not refusal.names)  # the reason of the jobs comes first
    return RowsRefusedError("; ".join(dict.fromkeys(refusal.reason for refusal in by_names)), names, stays)


@contextmanager
def _put_off(refusals: list[DatabaseError]) -> Iterator[None]:
    """Keep the error of rows that the database refuses to remove; what concerns others is done first."""
    try:
        yield
    except DatabaseError as error:
        if concerns_all(error):
            raise
        refusals.append(error)


def preview(connection: Connection, threshold: float, doubts: Doubts) -> list[PrunedProcess]:
    """Return what ``prune_checked`` would yield if every silent process were dead; on a standby, nobody is."""
    if doubts.standby is not None:
        return []
    silent = pruning.find_dead(connection, threshold)
    dead = [process for process in silent if process.process_id not in doubts.alive]
    return [*dead, *_orphaned(pruning.find_orphans(connection))]


def _orphaned(job_ids: list[int]) -> list[PrunedProcess]:
    return [PrunedProcess(None, None, "(missing)", None, None, None, job_ids)] if job_ids else []
