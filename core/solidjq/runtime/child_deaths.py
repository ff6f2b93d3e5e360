"""A child's death: what its supervisor knows of it, and its way into the database."""

import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from sqlalchemy import Connection

from solidjq.processes import heartbeat, pruning
from solidjq.queue import endings


@dataclass(frozen=True, slots=True)
class ChildDeath:
    """A child's death that is not in the database yet."""

    name: str
    pid: int
    returncode: int
    killed: bool  # by its supervisor, because it did not stop: its jobs are innocent
    witness: Mapping[str, object] = field(default_factory=dict)  # the supervisor's evidence
    not_begun: Sequence[int] = ()  # claims whose jobs had not begun, so they cannot have killed it
    succeeded: Sequence[int] = ()  # claims whose jobs had ended well, which was not committed
    faulting: int | None = None  # the claim that the thread which crashed was executing

    def describe(self) -> str:
        """Return the death in words, with pid and status or signal."""
        if self.returncode >= 0:
            return f"pid {self.pid} exited with status {self.returncode}"
        try:
            name = signal.Signals(-self.returncode).name
        except ValueError:
            name = f"signal {-self.returncode}"
        return f"pid {self.pid} was killed by {name}"


def report(connection: Connection, death: ChildDeath, supervisor_id: int) -> list[int]:
    """Record a death and end the dead child's claims; return the ids of their jobs.

    Jobs that had ended well are finished, if their claims are still there. Jobs that had not begun
    are released, and all others too if its own supervisor killed the child; else these fail with ProcessExitError. A
    child without a row had deregistered or was pruned: then there is nothing to do.
    """
    process_id = heartbeat.find_child(connection, name=death.name, supervisor_id=supervisor_id)
    if process_id is None:
        return []
    if death.succeeded:
        endings.finish(connection, endings.claims_of(process_id, death.succeeded))
    if death.killed:
        pruning.record_exit(connection, process_id, returncode=death.returncode, witness=death.witness)
        return heartbeat.deregister(connection, process_id)
    return pruning.fail_exited(
        connection,
        process_id,
        pid=death.pid,
        returncode=death.returncode,
        witness=death.witness,
        not_begun=death.not_begun,
        faulting=death.faulting,
    )
