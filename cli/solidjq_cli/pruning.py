"""What prune and recover share: wait with a notice, refuse while silent processes may be alive, name those spared."""

from __future__ import annotations

from typing import TYPE_CHECKING

from solidjq_cli.render import note

if TYPE_CHECKING:
    from collections.abc import Sequence

    from solidjq import Database
    from solidjq.processes.prune_guard import Doubts
    from solidjq.processes.pruning import Pruned


def hostname() -> str:
    """Return the name of this host, as processes register with it."""
    import socket  # noqa: PLC0415

    return socket.gethostname()


def settle(database: Database, threshold: float, *, force: bool, quiet: bool, nothing: str) -> Doubts:
    """Check who is dead; where several processes look dead, wait and check again.

    Raises RefusedError if the silent processes may be alive. ``nothing`` says what was not done then.
    """
    import time  # noqa: PLC0415

    from solidjq.errors import RefusedError  # noqa: PLC0415
    from solidjq.processes import prune_sequence  # noqa: PLC0415

    def wait(doubts: Doubts, pause: float) -> None:
        if not quiet:
            note(
                f"{len(doubts.unsure)} processes look dead; looking again in {pause:g} s, whether any of "
                "them lives (--force prunes at once)"
            )
        database.close()  # no connection is kept from others meanwhile
        time.sleep(pause)

    doubts = prune_sequence.settle(database, threshold, wait, hostname=hostname(), force=force)
    if doubts.refusal is not None:
        raise RefusedError(f"{nothing}: {doubts.refusal}; --force prunes at once")
    return doubts


def refuse_alive(doubts: Doubts) -> None:
    """Name the processes that were spared. Raises RefusedError, for exit code 5, if there are any."""
    from solidjq.errors import RefusedError  # noqa: PLC0415

    if doubts.alive:
        *others, last = doubts.alive.values()
        for words in others:
            note(f"spared: {words}")
        raise RefusedError(f"spared: {last}; stop it, or prune it with --force")


def counts(pruned: Sequence[Pruned]) -> tuple[int, int]:
    """Return how many processes were pruned and how many jobs failed."""
    return sum(each.process_id is not None for each in pruned), sum(len(each.job_ids) for each in pruned)
