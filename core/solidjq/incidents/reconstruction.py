"""Deaths that nobody recorded, reconstructed from the failures that they left.

A death that Rails noticed leaves only failures. The error's text is the same for all jobs of the process, and names a
signal, a status or a last heartbeat: that, and when they failed, is all the evidence.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Row

from solidjq.incidents.death_records import ClaimedJob, DeathRecord
from solidjq.ledger import crashes
from solidjq.ledger.deaths import DeathSource
from solidjq.rails.error_text import Death

# Failures with the same error count as one death: each this close to the one before, since Rails writes them one by
# one, and the last of them this close to the first.
SAME_DEATH_WITHIN = timedelta(seconds=10)
LONGEST_FAILING = timedelta(seconds=60)


def reconstruct(rows: Sequence[Row[Any]]) -> list[DeathRecord]:
    """Return the deaths that failures, sorted by time, report: the same error, written one soon after the other.

    Two processes whose last heartbeats fell into one second have the same error, as have two of one pid in different
    containers, and jobs whose process has no row always do. Only the time separates them: a prune by ``jq`` writes
    the failures of one process at one instant, which those of no other process share. Where all instants differ, as
    Rails leaves them, nothing does, and the record says that it may stand for several processes.
    """
    written = Counter((row.evidence, row.crashed_at) for row in rows)
    deaths: dict[tuple[str, datetime | None], _GrowingDeath] = {}
    records: list[_GrowingDeath] = []
    for row in rows:
        at_once = written[row.evidence, row.crashed_at] > 1
        key = (row.evidence, row.crashed_at if at_once else None)
        growing = deaths.get(key)
        if growing is None or not growing.includes(row.crashed_at):
            if (death := death_of(row)) is None:
                continue
            growing = deaths[key] = _GrowingDeath(death, at_once, row.crashed_at)
            records.append(growing)
        growing.add(row)
    return [growing.record for growing in records]


@dataclass(slots=True)
class _GrowingDeath:
    """A death that is put together from failures, one after the other."""

    death: DeathRecord
    at_once: bool  # all its failures were written at one instant
    last_at: datetime
    jobs: list[ClaimedJob] = field(default_factory=list)

    def includes(self, at: datetime) -> bool:
        """Whether a failure with its error that was written at this time is of this death."""
        return at - self.last_at <= SAME_DEATH_WITHIN and at - self.death.noticed_at <= LONGEST_FAILING

    def add(self, row: Row[Any]) -> None:
        self.jobs.append(ClaimedJob(row.job_id, row.subject, row.class_name, row.failure_id))
        self.last_at = row.crashed_at

    @property
    def record(self) -> DeathRecord:
        told_apart = self.at_once and self.death.how is not Death.MISSING
        return replace(self.death, jobs=tuple(self.jobs), several=len(self.jobs) > 1 and not told_apart)


def death_of(row: Row[Any]) -> DeathRecord | None:
    """Return the death that a failure's error reports; None if it reports none, or the failure has no time."""
    error = crashes.parse_evidence(row.evidence)
    if error.death is None or row.crashed_at is None:
        return None
    return DeathRecord(
        name=f"f{row.failure_id}",
        source=DeathSource.FAILURES,
        how=error.death,
        noticed_at=row.crashed_at,
        hostname=row.hostname,
        pid=row.pid if error.pid is None else error.pid,
        last_heartbeat_at=error.last_heartbeat_at,
        exit_status=error.exit_status,
        signal=error.signal,
        evidence={"error": row.evidence},
    )
