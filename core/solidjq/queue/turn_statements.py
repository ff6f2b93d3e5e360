"""The hot statements of a worker's whole turn on MySQL and MariaDB: endings and a claim. claim.exchange sends them."""

from enum import StrEnum
from typing import Any

from sqlalchemy import CompoundSelect, Executable, Select, exists, literal, union_all

from solidjq.database.deletions import delete_both
from solidjq.database.hot import hot
from solidjq.database.statements import WriteStyle
from solidjq.database.tables import claimed, pauses, processes, ready
from solidjq.queue.claim_statements import FromQueues
from solidjq.queue.endings import held_claims
from solidjq.queue.ready_rows import behind, first_ready, first_ready_of_queue, process_lock


class Locked(StrEnum):
    """The kinds of rows that lock_turn locks."""

    PROCESS = "process"  # its job_id is whether any queue is paused
    CLAIM = "claim"
    READY = "ready"


@hot(WriteStyle.SILENT)
def lock_turn() -> CompoundSelect[Any]:
    """Lock what a worker's turn changes, in one round trip: the process, the claims that end, the first ready rows.

    Guard: as in lock_process_and_see_pauses, lock_claims and lock_first_ready, in this order: a prune of the process
    waits or came first, a claim that has ended is not returned, ready rows that another worker has locked are skipped.
    """
    return _turn_lock(first_ready())


@hot(WriteStyle.SILENT)
def lock_turn_of_queue() -> CompoundSelect[Any]:
    """Lock what lock_turn locks, with the first ready rows of one queue.

    Guard: as in lock_turn.
    """
    return _turn_lock(first_ready_of_queue())


@hot(WriteStyle.SILENT)
def lock_turn_behind() -> CompoundSelect[Any]:
    """Lock what lock_turn locks, but pass over ready rows before a bound.

    Guard: as in lock_turn; a row before the bound is claimed later (see scan_start.py).
    """
    return _turn_lock(behind(first_ready(), WriteStyle.SILENT))


@hot(WriteStyle.SILENT)
def lock_turn_of_queue_behind() -> CompoundSelect[Any]:
    """Lock what lock_turn_of_queue locks, but pass over ready rows before a bound.

    Guard: as in lock_turn; a row before the bound is claimed later (see scan_start.py).
    """
    return _turn_lock(behind(first_ready_of_queue(), WriteStyle.SILENT))


@hot(WriteStyle.SILENT)
def delete_claims_and_ready() -> Executable:
    """Delete the claims of jobs that were just marked as finished, and the ready rows of jobs that were claimed.

    Guard: this transaction has locked all of them.
    """
    return delete_both({claimed: "claim_ids", ready: "ready_ids"})


def _turn_lock(first_ready: Select[Any]) -> CompoundSelect[Any]:
    any_paused = exists().select_from(pauses)
    return union_all(  # the process first, as a prune locks it before its claims: in the other order both may deadlock
        process_lock()
        .with_only_columns(literal(Locked.PROCESS.value).label("what"), processes.c.id, any_paused.label("job_id"))
        .order_by(processes.c.id),
        held_claims().with_only_columns(literal(Locked.CLAIM.value), claimed.c.id, claimed.c.job_id),
        first_ready.with_only_columns(literal(Locked.READY.value), ready.c.id, ready.c.job_id),
    )


LOCK_TURN = FromQueues(lock_turn, lock_turn_of_queue)
LOCK_TURN_BEHIND = FromQueues(lock_turn_behind, lock_turn_of_queue_behind)
