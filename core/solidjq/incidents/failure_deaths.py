"""Which incident each of some failures belongs to, on which host its process died, and how often its job crashed."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from sqlalchemy import Connection, func, select

from solidjq.database.tables import failed
from solidjq.database.times import boundary
from solidjq.incidents.incidents import LISTED_AROUND, Incident, each_with_jobs
from solidjq.ledger import crashes, operations, positions
from solidjq.ledger.crashes import Crash
from solidjq.queue.failed import Failure, is_death
from solidjq.rails.positions import Position

MOST_AROUND = 20_000  # failures of deaths: with more of them around, the incidents of a few are not looked for


class FailureDeath(NamedTuple):
    """The death that a failure records. What is unknown is None; ``crashes`` are the counted ones of its job.

    ``position`` is where a long job stands, if it has crashes: it says which of them count together.
    """

    incident: str | None = None
    hostname: str | None = None
    crashes: tuple[Crash, ...] = ()
    position: Position | None = None


def find_failure_deaths(connection: Connection, failures: Sequence[Failure]) -> dict[int, FailureDeath]:
    """Return, by failure_id, the deaths of those of these failures that record one; they should be of one page."""
    died = [failure for failure in failures if failure.error.death is not None]
    if not died:
        return {}
    subjects = {each.failure_id: crashes.subject_of(each.job_id, each.active_job_id) for each in died}
    counted = crashes.crashes_of(connection, set(subjects.values())) if operations.exists(connection) else {}
    present = positions.find_present(connection, [id_ for id_, subject in subjects.items() if counted.get(subject)])
    hosts = {crash.failure_id: crash.hostname for of_one in counted.values() for crash in of_one}
    wanted = set(subjects)
    names: dict[int, str] = {}
    for incident in _incidents_around(connection, died):
        for death in incident.deaths:
            for job in death.jobs:
                if job.failure_id in wanted:
                    names[job.failure_id] = incident.name
                    hosts[job.failure_id] = death.hostname or hosts.get(job.failure_id)
    return {
        each.failure_id: FailureDeath(
            names.get(each.failure_id),
            hosts.get(each.failure_id),
            tuple(counted.get(subjects[each.failure_id], ())),
            None if (stands := present.get(each.failure_id)) is None else stands.position,
        )
        for each in died
    }


def _incidents_around(connection: Connection, died: Sequence[Failure]) -> Iterable[Incident]:
    times = [failure.failed_at for failure in died if failure.failed_at is not None]
    if not times:
        return []
    since, until = min(times) - LISTED_AROUND, max(times) + LISTED_AROUND
    around = (
        select(failed.c.id)
        .where(failed.c.created_at >= boundary(since), failed.c.created_at < boundary(until), is_death())
        .limit(MOST_AROUND)
        .subquery()
    )
    if (connection.scalar(select(func.count()).select_from(around)) or 0) >= MOST_AROUND:
        return []
    return each_with_jobs(connection, since=since, until=until)
