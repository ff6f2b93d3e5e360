"""Deaths that nobody recorded, reconstructed from the failures that they left.

A death that Rails noticed leaves only failures. The error's text is the same for all jobs of the process, and names a
signal, a status or a last heartbeat: that, and when they failed, is all the evidence.
"""

from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from itertools import groupby, pairwise
from operator import attrgetter
from typing import Any

from sqlalchemy import Row

from solidjq.database.times import micros_of, time_of
from solidjq.incidents.claimed_jobs import UNREAD, ClaimedJobs, ClassCount
from solidjq.incidents.death_records import DeathRecord, FailureSpan
from solidjq.ledger import crashes
from solidjq.ledger.deaths import DeathSource
from solidjq.rails.error_text import Death
from solidjq.untrusted import EARLIEST, LATEST

# Failures with the same error count as one death: each this close to the one before, since Rails writes them one by
# one, and the last of them this close to the first.
SAME_DEATH_WITHIN = timedelta(seconds=10)
LONGEST_FAILING = timedelta(seconds=60)
_WITHIN, _LONGEST = (time // timedelta(microseconds=1) for time in (SAME_DEATH_WITHIN, LONGEST_FAILING))
_FIRST, _LAST = micros_of(EARLIEST), micros_of(LATEST)


def reconstruct(rows: Iterable[Row[Any]]) -> Iterator[DeathRecord]:
    """Yield the deaths that failures report, in order: the same error, written one soon after the other.

    A row counts the failures of one instant, error and class; the rows are sorted by time and lowest failure_id. The
    jobs of the deaths are counted, not read.

    Two processes whose last heartbeats fell into one second have the same error, as have two of one pid in different
    containers, and jobs whose process has no row always do. Only the time separates them: a prune by ``jq`` writes
    the failures of one process at one instant, which those of no other process share. Where all instants differ, as
    Rails leaves them, nothing does, and the record says that it may stand for several processes.

    The rows of one instant are held at a time, and the deaths of a minute.
    """
    open_deaths: deque[_GrowingDeath] = deque()
    growing: dict[str, _GrowingDeath] = {}  # by error: of failures that were written one by one
    classes: dict[str, str] = {}  # each name once: the driver makes a text for each row
    for at, together in groupby(rows, key=attrgetter("crashed_at")):
        yield from _ended(open_deaths, growing, at)
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
                open_deaths.append(death := _GrowingDeath(record, at_once, at, first_id, last_id))
                if not at_once:
                    growing[error] = death
            for row in alike:
                death.add(row, classes.setdefault(row.class_name, row.class_name))
    yield from (death.record for death in open_deaths)


def reconstruct_one(rows: Sequence[Row[Any]]) -> DeathRecord | None:
    """Return the death that all failures with one error are of, as ``reconstruct`` would; None if that is not certain.

    A row counts the failures of one class; its ``moments`` are when each was written, in microseconds, and its id.
    They are of one death if all were written at one instant; or each at another, soon after the one before.
    """
    if any(row.hosts or row.moments is None or len(row.moments) != row.failures for row in rows):
        return None
    moments = [(at, failure_id) for row in rows for at, failure_id in row.moments]
    if any(at is None for at, _ in moments):
        return None
    moments.sort()
    times = [at for at, _ in moments]
    length = times[-1] - times[0]
    at_once = len(times) > 1 and length == 0
    soon = length <= _LONGEST and all(0 < later - at <= _WITHIN for at, later in pairwise(times))
    if not (at_once or soon) or not _FIRST <= times[0] <= times[-1] < _LAST:
        return None
    first_at, first_id = moments[0]
    if (record := death_from(first_id, rows[0].evidence, time_of(first_at), None, None)) is None:
        return None
    ids = [failure_id for _, failure_id in moments]
    death = _GrowingDeath(record, at_once, time_of(times[-1]), min(ids), max(ids))
    for row in sorted(rows, key=lambda row: min(row.moments)):
        death.count(row, row.class_name)
    return death.record


def _ended(
    open_deaths: "deque[_GrowingDeath]", growing: "dict[str, _GrowingDeath]", at: datetime
) -> Iterator[DeathRecord]:
    """Yield the first of these deaths as long as no failure written at that time or later is of it; take it out."""
    while open_deaths and not open_deaths[0].includes(at):
        ended = open_deaths.popleft()
        if growing.get(ended.error) is ended:
            del growing[ended.error]
        yield ended.record


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
    once: bool = True  # none of its jobs may have been in flight at another death

    @property
    def error(self) -> str:
        """The error of its failures."""
        return self.death.error

    def includes(self, at: datetime) -> bool:
        """Whether a failure with its error that was written at this time is of this death."""
        return at - self.last_at <= SAME_DEATH_WITHIN and at - self.death.noticed_at <= LONGEST_FAILING

    def add(self, row: Row[Any], class_name: str) -> None:
        self.first_id = min(self.first_id, row.failure_id)
        self.last_id = max(self.last_id, row.last_failure_id)
        self.last_at = row.crashed_at
        self.count(row, class_name)

    def count(self, row: Row[Any], class_name: str) -> None:
        before = self.counted.get(class_name, ClassCount(0))
        self.counted[class_name] = before.plus(row.failures, row.waiting, row.subject, row.job_id)
        self.once = self.once and not row.again

    @property
    def record(self) -> DeathRecord:
        told_apart = self.at_once and self.death.how is not Death.MISSING
        return replace(
            self.death,
            jobs=UNREAD,
            counted=self.counted,
            span=FailureSpan(self.first_id, self.last_id, self.last_at, self.at_once, self.others_at, self.once),
            several=sum(count.claimed for count in self.counted.values()) > 1 and not told_apart,
        )


def death_of(row: Row[Any]) -> DeathRecord | None:
    """Return the death that a failure's error reports; None if it reports none, or the failure has no time."""
    if row.crashed_at is None:
        return None
    return death_from(row.failure_id, row.evidence, row.crashed_at, row.hostname, row.pid)


def death_from(
    failure_id: int,
    error: str,
    noticed_at: datetime,
    hostname: str | None,
    pid: int | None,
    *,
    counted: Mapping[str, ClassCount] | None = None,
    span: FailureSpan | None = None,
    several: bool = False,
) -> DeathRecord | None:
    """Return the death that the error of a failure reports, its jobs as counted; None if it reports none."""
    parsed = crashes.parse_evidence(error)
    if parsed.death is None:
        return None
    return DeathRecord(
        name=f"f{failure_id}",
        source=DeathSource.FAILURES,
        how=parsed.death,
        noticed_at=noticed_at,
        hostname=hostname,
        pid=pid if parsed.pid is None else parsed.pid,
        last_heartbeat_at=parsed.last_heartbeat_at,
        exit_status=parsed.exit_status,
        signal=parsed.signal,
        evidence={"error": error},
        jobs=ClaimedJobs() if counted is None else UNREAD,
        counted=counted,
        span=span,
        several=several,
    )
