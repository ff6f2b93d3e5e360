"""Deaths that nobody recorded, reconstructed from the failures that they left.

A death that Rails noticed leaves only failures. The error's text is the same for all jobs of the process, and names a
signal, a status or a last heartbeat: that, and when they failed, is all the evidence.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from itertools import groupby
from operator import attrgetter
from typing import Any

from sqlalchemy import Row

from solidjq.incidents.claimed_jobs import UNREAD, ClassCount
from solidjq.incidents.death_records import DeathRecord, FailureSpan
from solidjq.ledger import crashes
from solidjq.ledger.deaths import DeathSource
from solidjq.rails.error_text import Death

# Failures with the same error count as one death: each this close to the one before, since Rails writes them one by
# one, and the last of them this close to the first.
SAME_DEATH_WITHIN = timedelta(seconds=10)
LONGEST_FAILING = timedelta(seconds=60)


def reconstruct(rows: Iterable[Row[Any]]) -> list[DeathRecord]:
    """Return the deaths that failures report: the same error, written one soon after the other.

    A row counts the failures of one instant, error and class; the rows are sorted by time and lowest failure_id. The
    jobs of the deaths are counted, not read.

    Two processes whose last heartbeats fell into one second have the same error, as have two of one pid in different
    containers, and jobs whose process has no row always do. Only the time separates them: a prune by ``jq`` writes
    the failures of one process at one instant, which those of no other process share. Where all instants differ, as
    Rails leaves them, nothing does, and the record says that it may stand for several processes.

    No more rows than those of one instant are held at a time.
    """
    growing: dict[str, _GrowingDeath] = {}  # by error: of failures that were written one by one
    deaths: list[_GrowingDeath] = []
    classes: dict[str, str] = {}  # each name once: the driver makes a text for each row
    for at, together in groupby(rows, key=attrgetter("crashed_at")):
        by_error: dict[str, list[Row[Any]]] = {}
        for row in together:
            by_error.setdefault(row.evidence, []).append(row)
        for error, alike in by_error.items():
            at_once = sum(row.failures for row in alike) > 1
            death = growing.get(error)
            if at_once:
                if death is not None and death.includes(at):
                    death.others_at += (at,)
                death = None
            if death is None or not death.includes(at):
                if (record := death_of(alike[0])) is None:
                    continue
                first_id, last_id = alike[0].failure_id, alike[0].last_failure_id
                deaths.append(death := _GrowingDeath(record, at_once, at, first_id, last_id))
                if not at_once:
                    growing[error] = death
            for row in alike:
                death.add(row, classes.setdefault(row.class_name, row.class_name))
    growing.clear()
    return list(_records(deaths))


def _records(deaths: "list[_GrowingDeath]") -> Iterator[DeathRecord]:
    """Yield the records of deaths and take these out of the list, so that none is held in both forms."""
    deaths.reverse()
    while deaths:
        yield deaths.pop().record


@dataclass(slots=True)
class _GrowingDeath:
    """A death that is put together from failures, one after the other."""

    death: DeathRecord
    at_once: bool  # all its failures were written at one instant
    last_at: datetime
    first_id: int  # the lowest of its failures
    last_id: int  # the highest
    counted: dict[str, ClassCount] = field(default_factory=dict)
    others_at: tuple[datetime, ...] = ()

    def includes(self, at: datetime) -> bool:
        """Whether a failure with its error that was written at this time is of this death."""
        return at - self.last_at <= SAME_DEATH_WITHIN and at - self.death.noticed_at <= LONGEST_FAILING

    def add(self, row: Row[Any], class_name: str) -> None:
        self.first_id = min(self.first_id, row.failure_id)
        self.last_id = max(self.last_id, row.last_failure_id)
        before = self.counted.get(class_name, ClassCount(0))
        self.counted[class_name] = before.plus(row.failures, row.waiting, row.subject, row.job_id)
        self.last_at = row.crashed_at

    @property
    def record(self) -> DeathRecord:
        told_apart = self.at_once and self.death.how is not Death.MISSING
        return replace(
            self.death,
            jobs=UNREAD,
            counted=self.counted,
            span=FailureSpan(self.first_id, self.last_id, self.last_at, self.at_once, self.others_at),
            several=sum(count.claimed for count in self.counted.values()) > 1 and not told_apart,
        )


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
