"""The recorded deaths of the last minutes, each read once, and kept in a few bytes: an outage leaves thousands.

A look among them reads in full those of the moments that have a new death, and no others.
"""

from collections.abc import Collection, Iterable, Mapping
from datetime import datetime, timedelta
from typing import NamedTuple

from sqlalchemy import Connection

from solidjq.incidents.death_queries import each_recorded, list_recorded
from solidjq.incidents.death_records import DeathRecord, Manner
from solidjq.incidents.incidents import group


class _Glimpse(NamedTuple):
    """What a death is grouped by."""

    silent_at: datetime
    name: str
    noticed_at: datetime
    interval: timedelta
    manner: Manner


class RecentDeaths:
    """The recorded deaths around those that are new. The rows of deaths never change."""

    def __init__(self) -> None:
        self._glimpses: dict[str, _Glimpse] = {}
        self._since: datetime | None = None
        self._manners: dict[Manner, Manner] = {}  # each once: few, and the same at many deaths
        self._intervals: dict[timedelta, timedelta] = {}

    def beside(
        self, connection: Connection, deaths: Iterable[DeathRecord], new: Collection[str], since: datetime
    ) -> Mapping[str, DeathRecord]:
        """Return, by name, the recorded deaths, as if without jobs, of the moments that have one of the ``new`` names.

        ``deaths`` are those that are new, and others that nobody recorded. Of the recorded ones those noticed ``since``
        are looked among: they are read from the database at first, and if ``since`` goes back.
        """
        if self._since is None or since < self._since:
            self._glimpses = {death.name: self._glimpse(death) for death in each_recorded(connection, since=since)}
        else:
            self._glimpses = {name: one for name, one in self._glimpses.items() if one.noticed_at >= since}
        self._since = since
        here = {death.name: self._glimpse(death) for death in deaths}
        self._glimpses.update((name, one) for name, one in here.items() if name.startswith("d"))
        glimpses = sorted({**self._glimpses, **here}.values(), key=_silence)
        moments = (moment for moment in group(glimpses) if any(one.name in new for one in moment))
        names = (one.name for moment in moments for one in moment if one.name not in here)
        return {death.name: death for death in list_recorded(connection, [int(name[1:]) for name in names])}

    def _glimpse(self, death: DeathRecord) -> _Glimpse:
        manner, interval = death.manner, death.interval
        return _Glimpse(
            death.silent_at,
            death.name,
            death.noticed_at,
            self._intervals.setdefault(interval, interval),
            self._manners.setdefault(manner, manner),
        )

    def forget(self) -> None:
        """Forget all: the ids of deaths begin again."""
        self._glimpses, self._since = {}, None


def _silence(one: _Glimpse) -> datetime:
    return one.silent_at
