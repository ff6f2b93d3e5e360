"""Deaths that nobody recorded, reconstructed from the failures that they left.

A death that Rails noticed leaves only failures. The error's text is the same for all jobs of the process, and names a
signal, a status or a last heartbeat: that, and when they failed, is all the evidence.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from itertools import groupby
from operator import attrgetter
from typing import Any

from sqlalchemy import Row

from solidjq.incidents.claimed_jobs import ClaimedJobs
from solidjq.incidents.death_records import DeathRecord
from solidjq.ledger import crashes
from solidjq.ledger.deaths import DeathSource
from solidjq.rails.error_text import Death

# Failures with the same error count as one death: each this close to the one before, since Rails writes them one by
# one, and the last of them this close to the first.
SAME_DEATH_WITHIN = timedelta(seconds=10)
LONGEST_FAILING = timedelta(seconds=60)


def reconstruct(rows: Iterable[Row[Any]]) -> list[DeathRecord]:
    """Return the deaths that failures, sorted by time, report: the same error, written one soon after the other.

    Two processes whose last heartbeats fell into one second have the same error, as have two of one pid in different
    containers, and jobs whose process has no row always do. Only the time separates them: a prune by ``jq`` writes
    the failures of one process at one instant, which those of no other process share. Where all instants differ, as
    Rails leaves them, nothing does, and the record says that it may stand for several processes.

    No more rows than errors of one instant are held at a time.
    """
    growing: dict[str, _GrowingDeath] = {}  # by error: of failures that were written one by one
    records: list[_GrowingDeath] = []
    for _, together in groupby(rows, key=attrgetter("crashed_at")):
        first: dict[str, Row[Any]] = {}  # by error, until another failure of this instant has the same
        at_once: dict[str, _GrowingDeath | None] = {}
        for row in together:
            if row.evidence not in at_once and row.evidence not in first:
                first[row.evidence] = row
                continue
            if row.evidence not in at_once:
                begun = first.pop(row.evidence)
                at_once[row.evidence] = death = _begun(begun, records, at_once=True)
                if death is not None:
                    death.add(begun)
            if (death := at_once[row.evidence]) is not None:
                death.add(row)
        for error, row in first.items():
            before = growing.get(error)
            if before is None or not before.includes(row.crashed_at):
                if (before := _begun(row, records, at_once=False)) is None:
                    continue
                growing[error] = before
            before.add(row)
    return [each.record for each in records]


def _begun(row: Row[Any], records: "list[_GrowingDeath]", *, at_once: bool) -> "_GrowingDeath | None":
    """Begin a death with this failure and list it in ``records``; None if the failure reports no death."""
    if (death := death_of(row)) is None:
        return None
    records.append(_GrowingDeath(death, at_once, row.crashed_at))
    return records[-1]


@dataclass(slots=True)
class _GrowingDeath:
    """A death that is put together from failures, one after the other."""

    death: DeathRecord
    at_once: bool  # all its failures were written at one instant
    last_at: datetime
    jobs: ClaimedJobs = field(default_factory=ClaimedJobs)

    def includes(self, at: datetime) -> bool:
        """Whether a failure with its error that was written at this time is of this death."""
        return at - self.last_at <= SAME_DEATH_WITHIN and at - self.death.noticed_at <= LONGEST_FAILING

    def add(self, row: Row[Any]) -> None:
        self.jobs.add(row.job_id, row.subject, row.class_name, row.failure_id)
        self.last_at = row.crashed_at

    @property
    def record(self) -> DeathRecord:
        told_apart = self.at_once and self.death.how is not Death.MISSING
        return replace(self.death, jobs=self.jobs, several=len(self.jobs) > 1 and not told_apart)


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
