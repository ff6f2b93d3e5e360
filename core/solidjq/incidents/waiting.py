"""How many jobs of an incident still wait for a decision: their failures are still there."""

from array import array
from collections import Counter, defaultdict
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
    of_failure: dict[str, array[int]] = defaultdict(lambda: array("q"))
    for incident in incidents:
        for death in incident.deaths:
            if death.source is not DeathSource.FAILURES:
                of_death[death.key] = incident.name
            else:
                of_failure[incident.name].extend(death.jobs.failure_ids)
    waiting: Counter[str] = Counter()
    counted = select(crashes.c.death_id, func.count()).join(failed, failed.c.id == crashes.c.failure_id)
    for batch in in_batches(of_death):
        of_batch = counted.where(among(crashes.c.death_id, batch)).group_by(crashes.c.death_id)
        for death_id, count in connection.execute(of_batch):
            waiting[of_death[death_id]] += count
    for name, failure_ids in of_failure.items():
        for batch in in_batches(failure_ids):
            left = select(func.count()).select_from(failed).where(among(failed.c.id, batch))
            waiting[name] += connection.scalar(left) or 0
    return waiting
