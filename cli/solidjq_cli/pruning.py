"""What prune and recover share: wait with a notice, refuse while silent processes may be alive, name those spared."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import typer

from solidjq_cli.exits import Exit
from solidjq_cli.render import note

if TYPE_CHECKING:
    from collections.abc import Sequence

    from solidjq import Database
    from solidjq.errors import RowsRefusedError
    from solidjq.ledger.operations import Operation
    from solidjq.processes.prune_guard import Doubts
    from solidjq.processes.pruning import PrunedProcess


def settle(database: Database, threshold: float, *, force: bool, quiet: bool, nothing: str) -> Doubts:
    """Check who is dead; where several processes look dead, wait and check again.

    Raises RefusedError if the silent processes may be alive. ``nothing`` says what was not done then. A notice comes
    before the deed if the deaths will not be recorded.
    """
    from solidjq.errors import RefusedError  # noqa: PLC0415
    from solidjq.processes import prune_sequence  # noqa: PLC0415
    from solidjq.text import count_of  # noqa: PLC0415

    check_record(database, threshold, quiet=quiet)
    counting = sys.stderr.isatty() and not quiet

    def wait(doubts: Doubts, pause: float) -> None:
        if not quiet:
            hint = "" if counting else " (--force prunes at once)"
            one = len(doubts.unsure) == 1
            looks = f"{count_of(len(doubts.unsure), 'process')} {'looks' if one else 'look'} dead"
            note(f"{looks}; waiting {pause:g} s to see whether {'it beats' if one else 'they beat'} again{hint}")
        database.close()  # no connection is kept from others meanwhile
        _sleep(pause, counting=counting)

    try:
        doubts = prune_sequence.settle(database, threshold, wait, looks_up=True, force=force)
    except KeyboardInterrupt:
        note("interrupted; nothing was changed")
        raise typer.Exit(Exit.INTERRUPTED) from None
    if doubts.refusal is not None:
        raise RefusedError(f"{nothing}: {doubts.refusal}{'' if doubts.standby else '; --force prunes at once'}")
    return doubts


def _sleep(seconds: float, *, counting: bool) -> None:
    """Sleep; ``counting`` shows the seconds left, in a line that is wiped at the end, however it ends."""
    import time  # noqa: PLC0415

    if not counting:
        time.sleep(seconds)
        return
    deadline = time.monotonic() + seconds
    shown = ""
    try:
        while (left := deadline - time.monotonic()) > 0:
            text = f"{left:.0f} s left; Ctrl-C changes nothing, --force would prune at once"
            sys.stderr.write(f"\r{text:<{len(shown)}}")
            sys.stderr.flush()
            shown = text
            time.sleep(min(1.0, left))
    finally:
        sys.stderr.write(f"\r{'':<{len(shown) + len('^C')}}\r")
        sys.stderr.flush()


def leave(doubts: Doubts, refusal: RowsRefusedError | None = None) -> None:
    """Name the processes that were spared, and the jobs that the database refused to fail.

    Raises RefusedError, for exit code 5, if a process was spared, else the ``refusal``, for exit code 6.
    """
    from solidjq.errors import RefusedError  # noqa: PLC0415

    if refusal is not None and not doubts.alive:
        raise refusal
    if refusal is not None:
        note(str(refusal))
    if doubts.alive:
        *others, last = doubts.alive.values()
        for words in others:
            note(f"spared: {words}")
        raise RefusedError(f"spared: {last}; stop it, or prune it with --force")


def check_record(database: Database, threshold: float, *, quiet: bool) -> None:
    """Warn that a prune loses host and pid of dead processes, if some process looks dead and there is no ledger.

    Raises LedgerMissingError if there is one, but not all of it.
    """
    from solidjq.ledger import operations  # noqa: PLC0415
    from solidjq.processes.pruning import find_dead  # noqa: PLC0415

    with database.read() as connection:
        recorded = operations.exists(connection)
        if recorded:
            operations.require(connection)  # before the wait for a second look, not after it
        lost = not recorded and bool(find_dead(connection, threshold))
    if lost and not quiet:
        note(
            "without the jq_ tables a prune records neither host nor pid of the dead, so nobody can tell later where "
            "their jobs ran; to keep that, first run: jq init"
        )


def prune(
    database: Database, threshold: float, doubts: Doubts, operation: Operation
) -> tuple[list[PrunedProcess], RowsRefusedError | None]:
    """Prune the processes that the check found dead, all before anything is printed; return them.

    With them comes the error that names jobs which the database refuses to fail: the others are done all the same.

    A broken pipe or a full disk must not stop a prune half-way. Ctrl-C or a lost connection may: then say what was done
    until then.
    """
    from solidjq.errors import RowsRefusedError  # noqa: PLC0415
    from solidjq.processes import prune_sequence  # noqa: PLC0415
    from solidjq_cli.stopping import Account, accounted  # noqa: PLC0415

    pruned: list[PrunedProcess] = []

    def done(_count: int) -> str:
        return words(pruned) + ("" if operation.id is None else f" under operation {operation.id}")

    refusal: RowsRefusedError | None = None
    with accounted(Account(database, None, done, lambda: len(pruned))):
        try:
            pruned.extend(
                prune_sequence.prune_checked(database, threshold, doubts, record=operation.record_if_possible)
            )
        except RowsRefusedError as error:
            refusal = error
    return pruned, refusal


def preview(database: Database, threshold: float, *, force: bool) -> list[PrunedProcess]:
    """Return the processes that a prune would remove now if no doubt were left. Changes nothing."""
    from solidjq.processes import prune_sequence  # noqa: PLC0415

    doubts = prune_sequence.check(database, threshold, looks_up=True, force=force)
    with database.read() as connection:
        return prune_sequence.preview(connection, threshold, doubts)


def words(pruned: Sequence[PrunedProcess], *, would: bool = False) -> str:
    """Return in words how many processes were pruned and how many jobs failed, or would be."""
    from solidjq.text import count_of  # noqa: PLC0415

    processes = count_of(sum(each.process_id is not None for each in pruned), "process")
    jobs = count_of(sum(len(each.job_ids) for each in pruned), "job")
    return f"would prune {processes} and fail {jobs}" if would else f"pruned {processes} and failed {jobs}"
