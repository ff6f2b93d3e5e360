"""Deaths as one kind of record: how a process ended, with the evidence, whoever noticed it."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from types import MappingProxyType
from typing import Any, NamedTuple

from solidjq.incidents.claimed_jobs import UNREAD, ClaimedJob, ClaimedJobs, ClassCount
from solidjq.ledger.deaths import DeathSource
from solidjq.processes.heartbeat import HEARTBEAT_INTERVAL
from solidjq.rails.error_text import Death, exit_error, missing_error, pruned_error
from solidjq.untrusted import number, part

LONGEST_INTERVAL = 3600.0  # seconds between heartbeats: evidence that claims more is not believed

_NOTHING: Mapping[str, Any] = MappingProxyType({})


class FailureSpan(NamedTuple):
    """Where the failures are that a death was reconstructed from; all have its error."""

    first_id: int  # the lowest failure_id
    last_id: int  # the highest
    last_at: datetime | None = None  # when the last was written; None: all failures with its error are of the death
    at_once: bool = False  # all were written at one instant
    others_at: tuple[datetime, ...] = ()  # instants at which failures of other processes with its error were written
    once: bool = False  # no job whose failure is not counted was at another death; False also if nobody looked


class Manner(NamedTuple):
    """How a process ended, as far as deaths of one moment must agree in it."""

    how: Death
    hostname: str | None = None
    signal: int | None = None
    exit_status: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DeathRecord:
    """One process's end. ``evidence`` has its last ``sample``, and what the supervisor or the prune observed.

    What nobody recorded is None. Times are in UTC.
    """

    name: str  # d17: jq_deaths.id 17; f123: reconstructed from failure 123 and those of the same error
    source: DeathSource
    how: Death
    noticed_at: datetime
    process_id: int | None = None
    kind: str | None = None
    process_name: str | None = None
    hostname: str | None = None
    pid: int | None = None
    supervisor_id: int | None = None
    started_at: datetime | None = None
    last_heartbeat_at: datetime | None = None
    exit_status: int | None = None
    signal: int | None = None
    evidence: Mapping[str, Any] = field(default_factory=dict)
    jobs: ClaimedJobs = field(default_factory=ClaimedJobs)  # UNREAD if they were only counted
    counted: Mapping[str, ClassCount] | None = None  # its jobs by class; None if ``jobs`` has them
    span: FailureSpan | None = None  # None if jq recorded it
    several: bool = False  # its failures may be of several processes that cannot be distinguished

    @property
    def key(self) -> int | str:
        """The key by which the crashes of its jobs refer to it: ``jq_deaths.id``, else the beginning of its error."""
        return self.error if self.source is DeathSource.FAILURES else int(self.name[1:])

    @property
    def error(self) -> str:
        """The error that its jobs failed with, as stored."""
        if self.source is DeathSource.FAILURES:
            return str(self.evidence["error"])
        if self.how is Death.PRUNED:
            return missing_error() if self.last_heartbeat_at is None else pruned_error(self.last_heartbeat_at)
        return exit_error(self.pid or 0, -self.signal if self.signal is not None else self.exit_status or 0)

    @property
    def slim(self) -> "DeathRecord":
        """The record with what its jobs are found by and charged by, and nothing else."""
        needed = {key: self.evidence[key] for key in ("error", "ahead", "faulting") if key in self.evidence}
        return DeathRecord(
            name=self.name,
            source=self.source,
            how=self.how,
            noticed_at=self.noticed_at,
            evidence=needed or _NOTHING,
            jobs=UNREAD,
            counted=_NOTHING,
            span=self.span,
        )

    @property
    def sample(self) -> Mapping[str, Any]:
        """The last sample of the process, as ``processes.samples`` defines it; empty if there is none."""
        return part(self.evidence, "sample")

    @property
    def ahead(self) -> bool:
        """Whether the process claimed jobs ahead: then only jobs with a recorded start are charged."""
        return bool(self.evidence.get("ahead"))

    @property
    def faulting(self) -> tuple[int, str] | None:
        """The id and class of the job whose thread crashed, if that was recorded."""
        match self.evidence.get("faulting"):
            case {"job_id": int(job_id), "class_name": str(class_name)}:
                return job_id, class_name
        return None

    @property
    def size(self) -> int:
        """How many jobs it had claimed."""
        return len(self.jobs) if self.counted is None else sum(count.claimed for count in self.counted.values())

    @property
    def by_class(self) -> Counter[str]:
        """How many jobs of each class it had claimed."""
        if self.counted is None:
            return self.jobs.by_class()
        return Counter({name: count.claimed for name, count in self.counted.items()})

    @property
    def charged(self) -> tuple[ClaimedJob, ...]:
        """The jobs that may have killed the process."""
        return tuple(job for job in self.jobs if self.charges(job.job_id, job.started_at))

    @property
    def charges_all(self) -> bool:
        """Whether every job that it had claimed may have killed it; False if that must be asked of each."""
        return self.faulting is None and not self.ahead

    def charges(self, job_id: int, started_at: datetime | None) -> bool:
        """Whether a job that it had claimed may have killed the process; ``started_at`` is None if that is unknown.

        Only the one whose thread crashed, if that is recorded; else those that it executed, as far as that is recorded.
        """
        if self.faulting is not None:
            return job_id == self.faulting[0]
        return started_at is not None or not self.ahead

    @property
    def named_by_stack(self) -> bool:
        """Whether it charges one of several jobs, because the stack of the thread that crashed names that one."""
        return self.faulting is not None and self.size > 1

    @property
    def why_cleared(self) -> str | None:
        """Why it does not charge all jobs that the process had claimed, in words; None if it does."""
        if self.faulting is not None and self.named_by_stack:
            return f"the stack of the thread that crashed names job {self.faulting[0]}"
        return "they had not begun" if not self.charges_all and len(self.charged) < len(self.jobs) else None

    @property
    def silent_at(self) -> datetime:
        """When the process was last known to live: its last heartbeat if it was pruned, else when it was reaped."""
        if self.how is Death.PRUNED and self.last_heartbeat_at is not None:
            return self.last_heartbeat_at
        return self.noticed_at

    @property
    def manner(self) -> Manner:
        """What it has in common with every death of its moment: see ``incidents.group``."""
        if self.how is Death.PRUNED:
            return Manner(self.how)
        return Manner(self.how, self.hostname, self.signal, self.exit_status)

    @property
    def interval(self) -> timedelta:
        """The time between two of its heartbeats: it died at most so long after it was last known to live.

        Recorded by its last sample; else Solid Queue's default, but at most half of the silence that it was pruned for,
        since an alive threshold is at least two heartbeats.
        """
        recorded = number(self.sample, "interval")
        if recorded is not None and 0 < recorded <= LONGEST_INTERVAL:
            return timedelta(seconds=recorded)
        default = timedelta(seconds=HEARTBEAT_INTERVAL)
        if self.how is not Death.PRUNED:
            return default
        threshold = number(self.evidence, "threshold")
        silence = self.noticed_at - self.silent_at
        if threshold is not None and 0 < threshold <= 2 * LONGEST_INTERVAL:
            silence = timedelta(seconds=threshold)
        return max(timedelta(), min(default, silence / 2))
