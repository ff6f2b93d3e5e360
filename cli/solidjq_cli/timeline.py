"""An incident as a picture that fits a terminal: processes and their jobs as rows, time from left to right."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, NamedTuple

from solidjq_cli.flow import cells, cut, fill, pad

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from solidjq.incidents.claimed_jobs import ClaimedJob
    from solidjq.incidents.death_records import DeathRecord
    from solidjq.incidents.incidents import Incident

NARROWEST = 20  # characters that time gets, whatever the names take
LONGEST_NAME = 34
MOST_PROCESSES = 20
MOST_JOBS = 8  # of a process
LEGEND = ("= alive or running", "x last sign of life", ". silence", "! noticed")


class Life(NamedTuple):
    """A row of the picture. ``end``, the last sign of life, is None in a row that is a host's name alone."""

    name: str
    start: datetime | None
    end: datetime | None
    noticed: datetime | None


def draw(incident: Incident, width: int) -> Iterator[str]:
    """Yield the picture's lines, none longer than ``width``."""
    return picture(list(lives(incident)), *span(incident), width)


def picture(rows: Sequence[Life], start: datetime, end: datetime, width: int) -> Iterator[str]:
    """Yield the lines of these rows between two times, none longer than ``width``."""
    name_width = min(LONGEST_NAME, max(cells(row.name) for row in rows))
    scale = _Scale(start, end, max(NARROWEST, width - name_width - 2))
    yield " " * (name_width + 2) + scale.axis()
    for row in rows:
        bar = "" if row.end is None else scale.bar(row.start, row.end, row.noticed)
        yield f"{pad(cut(row.name, name_width), name_width)}  {bar}".rstrip()
    yield from fill(LEGEND, width, gap="   ")


def lives(incident: Incident) -> Iterator[Life]:
    """Yield each row of the picture.

    Where processes of several hosts died, a row with a name alone stands above those of each host.
    """
    drawn = incident.deaths[:MOST_PROCESSES]
    by_host = sorted(drawn, key=lambda death: death.hostname or "") if len(incident.hosts) > 1 else drawn
    host: str | None = None
    for death in by_host:
        if len(incident.hosts) > 1 and death.hostname != host:
            host = death.hostname
            yield Life(host or "host unknown", None, None, None)
        yield Life(_process(death), death.started_at, death.silent_at, death.noticed_at)
        for job in death.jobs[:MOST_JOBS]:
            yield Life(_job(job), job.started_at, death.silent_at, None)
        if len(death.jobs) > MOST_JOBS:
            yield Life(f"  {len(death.jobs) - MOST_JOBS:,} more jobs", None, death.silent_at, None)
    if len(incident.deaths) > MOST_PROCESSES:
        yield Life(f"{len(incident.deaths) - MOST_PROCESSES:,} more processes", None, incident.at, incident.noticed_at)


def _process(death: DeathRecord) -> str:
    kind = (death.kind or "process").lower()
    pid = "" if death.pid is None else f" pid {death.pid}"
    return f"{kind}{pid}, or several" if death.several else f"{kind}{pid}"


def _job(job: ClaimedJob) -> str:
    return f"  job {job.job_id} {job.class_name}"


def span(incident: Incident) -> tuple[datetime, datetime]:
    """Choose the time span to draw: the silence takes at least half of the width, the time before it the rest."""
    end = incident.noticed_at
    shown = max(end - incident.at, timedelta(seconds=10))
    starts = [at for death in incident.deaths for at in death.jobs.starts]
    starts += [death.started_at for death in incident.deaths if death.started_at is not None]
    return max(min([*starts, incident.at - shown / 10]), incident.at - shown), end


class _Scale:
    def __init__(self, start: datetime, end: datetime, width: int) -> None:
        self._start, self._width = start, width
        self._step = max((end - start) / (width - 1), timedelta(milliseconds=1))

    def _at(self, time: datetime) -> int:
        return max(0, min(self._width - 1, int((time - self._start) / self._step)))

    def axis(self) -> str:
        """Write the time at the left end and at the right."""
        first, last = (f"{time.astimezone(UTC):%H:%M:%S}" for time in (self._start, self._end))
        return first + f"{last} UTC".rjust(self._width - len(first))

    @property
    def _end(self) -> datetime:
        return self._start + self._step * (self._width - 1)

    def bar(self, start: datetime | None, end: datetime, noticed: datetime | None) -> str:
        """Draw a life: ``===x....!``; what began before the picture begins at its edge."""
        last = self._at(end)
        first = last if start is None else min(self._at(start), last)
        line = " " * first + "=" * (last - first) + "x"
        if noticed is not None and (seen := self._at(noticed)) > last:
            line += "." * (seen - last - 1) + "!"
        return line
