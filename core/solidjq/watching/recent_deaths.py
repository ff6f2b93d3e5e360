"""The recorded deaths of the last minutes, each read once: a look among thousands of deaths reads only the new ones."""

from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime

from sqlalchemy import Connection

from solidjq.incidents.claimed_jobs import UNREAD
from solidjq.incidents.death_queries import list_recorded
from solidjq.incidents.death_records import DeathRecord


class RecentDeaths:
    """The recorded deaths around those that are new, without their jobs. The rows of deaths never change."""

    def __init__(self) -> None:
        self._records: dict[str, DeathRecord] = {}
        self._since: datetime | None = None

    def around(self, connection: Connection, new: Iterable[DeathRecord], since: datetime) -> dict[str, DeathRecord]:
        """Return the deaths noticed ``since``, by name: those that are ``new``, and those that earlier looks have read.

        It reads them from the database at first, and if ``since`` goes back.
        """
        if self._since is None or since < self._since:
            self._records = {death.name: death for death in list_recorded(connection, since=since)}
        else:
            self._records = {name: death for name, death in self._records.items() if death.noticed_at >= since}
        self._since = since
        self._records.update((death.name, replace(death, jobs=UNREAD)) for death in new if death.span is None)
        return self._records

    def forget(self) -> None:
        """Forget all: the ids of deaths begin again."""
        self._records, self._since = {}, None
