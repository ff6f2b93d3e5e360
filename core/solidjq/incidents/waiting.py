"""How many jobs of an incident still wait for a decision: their failures are still there."""

from collections import Counter
from collections.abc import Iterable
from typing import Any

from sqlalchemy import Connection, func, select

from solidjq.batching import in_batches
from solidjq.database.among import among
from solidjq.database.tables import crashes, failed
from solidjq.incidents.summaries import IncidentSummary


def count_waiting(connection: Connection, incidents: Iterable[IncidentSummary]) -> Counter[str]:
    """Return by incident how many of its jobs are failed still, by the very failure that it left.

    The database counts those of recorded deaths; of deaths that were put together from failures none is counted.
    """
    of_death: dict[Any, str] = {
        death.key: incident.name for incident in incidents for death in incident.deaths if death.span is None
    }
    waiting: Counter[str] = Counter()
    counted = select(crashes.c.death_id, func.count()).join(failed, failed.c.id == crashes.c.failure_id)
    for batch in in_batches(of_death):
        of_batch = counted.where(among(crashes.c.death_id, batch)).group_by(crashes.c.death_id)
        for death_id, count in connection.execute(of_batch):
            waiting[of_death[death_id]] += count
    return waiting
