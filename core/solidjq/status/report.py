"""The status of a queue: who lives, what failed and why, what waits. Each number is read within about a second."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import NamedTuple

from sqlalchemy import Connection, case, func, select

from solidjq.database.product import Product, find_product
from solidjq.database.standby import Standby, find_standby
from solidjq.database.tables import failed
from solidjq.database.times import boundary, clock
from solidjq.database.transactions import GLANCE, Database
from solidjq.diff.groups import count_problems
from solidjq.incidents.incidents import each_incident
from solidjq.incidents.summaries import IncidentSummary, find_recent
from solidjq.incidents.waiting import count_waiting
from solidjq.ledger.deaths import DeathSource
from solidjq.ledger.operations import OperationView, list_operations
from solidjq.processes.heartbeat import Process, list_processes
from solidjq.queue.failed import Filter, count_failures, count_up_to, is_death
from solidjq.queue.overview import Queue, list_queues
from solidjq.rails.error_text import Death
from solidjq.recovery.outcome import OperationOutcome, outcomes_of

NEW = timedelta(hours=1)  # failures of so long ago and later are counted as new
INCIDENTS = timedelta(days=7)  # as jq incidents list counts them by default
LEAST = 10_000  # failures that are counted where all of them would take longer than a second
MOST_READ = 20_000  # jobs of deaths that are read one by one, to say which incidents still have jobs that wait


class Count(NamedTuple):
    """A number of rows; if it is not exact, there are so many or more."""

    number: int
    exact: bool = True

    def __str__(self) -> str:
        """Return ``4,966``, or ``10,000 or more``."""
        return f"{self.number:,}" if self.exact else f"{self.number:,} or more"


@dataclass(frozen=True, slots=True)
class QueueStatus:
    """How a queue is doing at a moment of the database's clock.

    None stands for a number that cannot be read within about a second, or not with the rights of this user.
    """

    at: datetime
    threshold: float  # seconds: a process that is silent for so long is dead
    product: Product | None
    standby: Standby | None
    processes: Sequence[Process]
    failed: Count | None
    died: Count | None  # those that died with their process
    new_failed: int | None  # failed within the last hour
    new_died: int | None
    problems: Count | None  # groups of failures with errors of their own
    incidents: Count | None  # of the last 7 days, with jobs that are still failed
    queues: Sequence[Queue] | None
    last: tuple[OperationView, OperationOutcome | None] | None  # the newest operation, and what became of its jobs

    @property
    def errors(self) -> int | None:
        """How many jobs failed with errors of their own."""
        return _difference(self.failed, self.died)

    @property
    def new_errors(self) -> int | None:
        """How many of them failed within the last hour."""
        both = self.new_failed is not None and self.new_died is not None
        return max(0, (self.new_failed or 0) - (self.new_died or 0)) if both else None

    @property
    def alive(self) -> Counter[str]:
        """How many processes of each kind live; on a standby also those of which that is unknown."""
        return Counter(process.kind for process in self.processes if self._lives(process))

    @property
    def silent(self) -> list[Process]:
        """The processes that are silent for as long as the threshold, those with the most jobs first."""
        found = [process for process in self.processes if not self._lives(process)]
        return sorted(found, key=lambda process: -process.claimed)

    @property
    def waiting(self) -> list[Queue]:
        """The queues with jobs that are ready, the fullest first."""
        return sorted((queue for queue in self.queues or () if queue.ready), key=lambda queue: -queue.ready)

    def _lives(self, process: Process) -> bool:
        return process.life(self.threshold, self.standby) is not False


def _difference(whole: Count | None, part: Count | None) -> int | None:
    if whole is None or part is None or not (whole.exact and part.exact):
        return None
    return max(0, whole.number - part.number)


def find_status(database: Database, threshold: float) -> QueueStatus:
    """Return the status of a queue; ``threshold`` is the alive threshold in seconds.

    The processes are always read, so it raises if the database cannot be reached or is not a queue. Every other number
    is a glance of its own: what takes too long is None, and keeps none of the others from being read.
    """
    with database.read() as connection:
        now = clock(connection)
        standby = find_standby(connection)
        processes = list_processes(connection)
    since = now - NEW
    everything = database.glance(_count, since)
    # It reads more of the same rows: where a second was too short for the first, it is for the second, too.
    deaths = None if everything is None else database.glance(_count_deaths, since)
    failed_jobs = _count_of(database, everything, Filter())
    died = _count_of(database, deaths, Filter(deaths=frozenset(Death)))
    # The problems take longer still: half a second finds most of them, and what is left of it is for the incidents.
    rest = database.glance if deaths is not None else database.glances()
    problems = rest(_count_problems, GLANCE if deaths is not None else GLANCE / 2)
    incidents = Count(0) if died == Count(0) else rest(_count_incidents, now - INCIDENTS, died)
    return QueueStatus(
        at=now,
        threshold=threshold,
        product=database.glance(find_product),
        standby=standby,
        processes=processes,
        failed=failed_jobs,
        died=died,
        new_failed=None if everything is None else everything[1],
        new_died=None if deaths is None else deaths[1],
        problems=problems,
        incidents=incidents,
        queues=database.glance(list_queues),
        last=database.glance(_last_operation),
    )


def _last_operation(connection: Connection) -> tuple[OperationView, OperationOutcome | None] | None:
    return next(iter(outcomes_of(connection, list_operations(connection, limit=1))), None)


def _count_of(database: Database, counted: tuple[int, int] | None, chosen: Filter) -> Count | None:
    """Return the number of failures, or else that there are at least ``LEAST``."""
    if counted is None and chosen == Filter():  # alone they are counted by an index
        number = database.glance(count_failures, chosen)
        counted = None if number is None else (number, 0)
    if counted is not None:
        return Count(counted[0])
    number = database.glance(count_up_to, chosen, LEAST)
    return None if number is None else Count(number, exact=number < LEAST)


def _count(connection: Connection, since: datetime) -> tuple[int, int]:
    """Count all failures, and those since then."""
    new = case((failed.c.created_at >= boundary(since), 1), else_=0)
    total, recent = connection.execute(select(func.count(), func.sum(new)).select_from(failed)).one()
    return total, int(recent or 0)


def _count_deaths(connection: Connection, since: datetime) -> tuple[int, int]:
    new = case((failed.c.created_at >= boundary(since), 1), else_=0)
    query = select(func.count(), func.sum(new)).select_from(failed).where(is_death())
    total, recent = connection.execute(query).one()
    return total, int(recent or 0)


def _count_problems(connection: Connection, seconds: float) -> Count:
    number, stopped = count_problems(connection, Filter(), seconds=seconds)
    return Count(number, exact=not stopped)


def _count_incidents(connection: Connection, since: datetime, died: Count | None) -> Count:
    """Count the incidents with jobs that are still failed; of very many jobs only the deaths are read."""
    exact = died is not None and died.exact and died.number <= MOST_READ
    if exact:
        found = each_incident(connection, since=since, waiting=True)
        return Count(sum(summary.waiting > 0 for summary in map(IncidentSummary.of, found)))
    # Deaths that nobody recorded are one if their errors are equal, and were not retried since.
    recent = find_recent(connection, since, most=None)
    waiting = count_waiting(connection, recent)
    return Count(sum(waiting[one.name] > 0 or _reconstructed(one) for one in recent), exact=False)


def _reconstructed(incident: IncidentSummary) -> bool:
    return any(death.source is DeathSource.FAILURES for death in incident.deaths)
