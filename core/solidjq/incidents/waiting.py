"""How many jobs of an incident still wait for a decision: their failures are still there."""

from collections import Counter
from collections.abc import Collection
from typing import Any

from sqlalchemy import Connection, func, select

from solidjq.batching import in_batches
from solidjq.database.statements import among
from solidjq.database.tables import crashes, failed
from solidjq.incidents.incidents import Incident
from solidjq.ledger.deaths import DeathSource


def count_waiting(connection: Connection, incidents: Collection[Incident]) -> Counter[str]:
    """Return by incident how many of its jobs are failed still, by the very failure that it left.

    The database counts those of recorded deaths; of deaths that were put together from failures it is asked which of
    the failures are left.
    """
    of_death: dict[Any, str] = {}
    of_failure: dict[int, str] = {}
    for incident in incidents:
        for death in incident.deaths:
            if death.source is not DeathSource.FAILURES:
                of_death[death.key] = incident.name
            else:
                of_failure |= {job.failure_id: incident.name for job in death.jobs if job.failure_id is not None}
    waiting: Counter[str] = Counter()
    counted = select(crashes.c.death_id, func.count()).join(failed, failed.c.id == crashes.c.failure_id)
    for batch in in_batches(of_death):
        of_batch = counted.where(among(crashes.c.death_id, batch)).group_by(crashes.c.death_id)
        for death_id, count in connection.execute(of_batch):
            waiting[of_death[death_id]] += count
    for batch in in_batches(of_failure):
        left = connection.scalars(select(failed.c.id).where(among(failed.c.id, batch)))
        waiting.update(of_failure[failure_id] for failure_id in left)
    return waiting
