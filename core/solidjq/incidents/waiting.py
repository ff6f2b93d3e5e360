"""How many jobs of an incident still wait for a decision: their failures are still there."""

from collections import Counter
from collections.abc import Collection
from typing import Any

from sqlalchemy import Connection, func, select

from solidjq.batching import in_batches
from solidjq.database.statements import among
from solidjq.database.tables import crashes, failed
from solidjq.incidents.incidents import Incident


def count_waiting(connection: Connection, incidents: Collection[Incident]) -> Counter[str]:
    """Return by incident how many of its jobs are failed still, by the very failure that it left.

    They are counted with their deaths (``count_incidents(..., waiting=True)``), or else here by the database. Of
    deaths that were put together from failures only those counted with them are.
    """
    of_death: dict[Any, str] = {}
    waiting: Counter[str] = Counter()
    for incident in incidents:
        for death in incident.deaths:
            if death.counted is not None:
                waiting[incident.name] += sum(count.waiting for count in death.counted.values())
            elif death.span is None:
                of_death[death.key] = incident.name
    counted = select(crashes.c.death_id, func.count()).join(failed, failed.c.id == crashes.c.failure_id)
    for batch in in_batches(of_death):
        of_batch = counted.where(among(crashes.c.death_id, batch)).group_by(crashes.c.death_id)
        for death_id, count in connection.execute(of_batch):
            waiting[of_death[death_id]] += count
    return waiting
