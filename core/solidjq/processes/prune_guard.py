"""Check before a prune that processes which look dead are dead.

A process is dead when its heartbeat is older than the threshold. That is wrong if no process could send one, because
the database or the network was away: the first prune after such an outage would fail the jobs of a whole healthy fleet.
Time separates the two cases: a live process soon sends a heartbeat again, a dead one never does. So a doubtful prune is
only postponed: a little later the same command goes ahead, and a line in cron needs no person.

The checks:

- The database is a standby. Its heartbeats are as old as its lag; only the primary's show which processes are dead.
- The database came up less than a threshold ago. No process had the time to be silent for a threshold since then.
- Several hosts fell silent together, and most of the fleet with them, less than two thresholds ago. One host may die
  with all its processes; several at once are more likely cut off. After two thresholds they count as dead.
- Several processes look dead that did not at an earlier check. If this is the first check after the network came back,
  they have not had the time to send a heartbeat, however long they were silent. They are checked again half a threshold
  later. If one of them has sent a heartbeat by then, they were cut off, and the wait starts again for the others.
- The heartbeats of several processes are young but for the same multiple of 15 minutes, and none is young by the
  database's clock: Rails writes them in local time (see ``local_time``), and nobody can be called dead.
- The second check is skipped for a process that the database shows to be dead: it has been silent for more than four
  thresholds, others live, and between a threshold after its last heartbeat and half a threshold ago another process
  registered or finished a job. So the database was reachable then, and is now. It is not skipped for a heartbeat that
  is young in another zone.
- A process of this host still has its pid, and had it before its last heartbeat (see ``pids``). It is stopped, hangs or
  cannot reach the database; in any case it may be running its jobs. Only this process is spared.
"""

import os
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from sqlalchemy import Connection, Row, select

from solidjq.batching import in_batches
from solidjq.database.among import among
from solidjq.database.standby import Standby, find_standby
from solidjq.database.tables import jobs, processes
from solidjq.database.times import ago, clock, up_since
from solidjq.processes import local_time
from solidjq.processes.heartbeat import last_sign
from solidjq.processes.pids import LocalProcess, find_local
from solidjq.text import count_of
from solidjq.untrusted import EARLIEST

FLEET = 2  # hosts at least
MASS = 2  # processes at least; one alone may die at any time
PAUSE = 0.5  # thresholds between two looks: a threshold is at least two heartbeats
LONG = 4  # thresholds; a process that has been silent for longer may count as dead without a second check
FORCE = "JQ_PRUNE_FORCE"


class ProcessRow(NamedTuple):
    """A registered process, as its row in the database describes it."""

    id: int
    name: str
    hostname: str | None
    pid: int
    last_heartbeat_at: datetime | None
    created_at: datetime | None = None

    def sign(self, now: datetime) -> datetime | None:
        """Return when it last gave a sign of life; None if its row has no time that makes sense."""
        return last_sign(self.last_heartbeat_at, self.created_at, now)


Beats = Mapping[int, datetime | None]  # the last of each process, by its id


@dataclass(frozen=True, slots=True)
class Doubts:
    """The result of one check, by process id: the processes that may be pruned, and why the others may not."""

    dead: frozenset[int] = frozenset()
    unsure: frozenset[int] = frozenset()  # look again, PAUSE thresholds later
    refusal: str | None = None  # against all of them; then ``dead`` is empty
    alive: Mapping[int, str] = field(default_factory=dict)  # the processes that are spared, and why
    silent: Beats = field(default_factory=dict)  # the processes that looked dead, with their last heartbeats
    standby: Standby | None = None  # the reason of a refusal that ``force`` does not overcome


NOBODY = Doubts()


def find_doubts(
    connection: Connection,
    threshold: float,
    *,
    before: Doubts = NOBODY,
    looks_up: bool = False,
    find: Callable[[Row[Any]], LocalProcess] = find_local,
    force: bool = False,
) -> Doubts:
    """Find the processes that are dead by this threshold, in seconds, and the reasons to doubt it.

    ``before`` is the result of an earlier check. ``looks_up``: whether the processes of this host are looked up, each
    row by ``find``. ``force``, or JQ_PRUNE_FORCE=1, skips every doubt but one: on a standby, heartbeats are as old as
    its lag, so no process counts as dead.
    """
    if (standby := find_standby(connection)) is not None:
        return Doubts(refusal=standby.doubt, standby=standby)
    now, span = clock(connection), timedelta(seconds=threshold)
    columns = (processes.c[name] for name in ProcessRow._fields)
    fleet = [ProcessRow(*row) for row in connection.execute(select(*columns).order_by(processes.c.id))]
    silent = _silent(fleet, span, now)
    odd = frozenset(process.id for process in silent if process.sign(now) != process.last_heartbeat_at)
    if is_forced(force=force):
        return Doubts(dead=frozenset(process.id for process in silent))
    refusal = judge_zone(fleet, span, now) or judge(fleet, span, now, up_since(connection))
    if refusal is not None:
        return Doubts(refusal=refusal, silent=_beats(silent))
    alive = dict(_running(connection, [process.id for process in silent], find)) if looks_up else {}
    gone = [process for process in silent if process.id not in alive]
    long_dead = find_long_dead(fleet, span, now, lambda: _last_activity(connection, fleet, span, now))
    elsewhere = {p.id for p in silent if local_time.offset_of(p.last_heartbeat_at, now, span) is not None}
    long_dead -= elsewhere if len(elsewhere) >= MASS else set()
    return replace(compare(before.silent, _beats(gone), _beats(fleet), long_dead, odd), alive=alive)


def is_forced(*, force: bool) -> bool:
    """Whether every doubt is to be skipped: by an option, or by JQ_PRUNE_FORCE."""
    return force or os.environ.get(FORCE, "0") not in {"", "0"}


def _running(
    connection: Connection, ids: Collection[int], find: Callable[[Row[Any]], LocalProcess]
) -> Iterator[tuple[int, str]]:
    """Yield those processes of this host that still run, each with the fact in words."""
    for batch in in_batches(ids):
        rows = select(processes).where(among(processes.c.id, batch)).order_by(processes.c.id)
        for row in connection.execute(rows).all():
            local = find(row)
            if local.runs:
                words = f"pid {row.pid} of this host, {row.name}, still runs, though its heartbeat stopped"
                other = f" (or another program has its pid by now: ps -o lstart,args -p {row.pid})"
                yield row.id, words if local.certain else words + other


def _last_activity(
    connection: Connection, fleet: Sequence[ProcessRow], threshold: timedelta, now: datetime
) -> datetime | None:
    """Return when a process last registered or finished a job, half a threshold ago or earlier; None if unknown."""
    before = now - PAUSE * threshold
    finished = connection.scalar(
        select(jobs.c.finished_at)
        .where(jobs.c.finished_at <= ago(PAUSE * threshold.total_seconds()))
        .order_by(jobs.c.finished_at.desc())
        .limit(1)
    )
    registered = [
        process.created_at
        for process in fleet
        if process.created_at
        and process.created_at <= before
        # A process beats as it registers. If a row says otherwise, its times were not both written then.
        and process.last_heartbeat_at
        and process.created_at <= process.last_heartbeat_at
    ]
    return max([*registered, *([finished] if finished else [])], default=None)


def find_long_dead(
    fleet: Sequence[ProcessRow], threshold: timedelta, now: datetime, last_activity: Callable[[], datetime | None]
) -> frozenset[int]:
    """Return the processes that need no second check: silent for over ``LONG`` thresholds while others worked.

    ``last_activity`` returns when some process last did something in the database, ``PAUSE`` thresholds ago or earlier.
    It counts for a silent process if it came a threshold or more after its last heartbeat: alive, the process would
    have beaten by then, and it has had the time of a second look since.
    """
    long = {
        process.id: process.last_heartbeat_at
        for process in fleet
        if process.last_heartbeat_at and _silence(process, now) > LONG * threshold
    }
    others_live = any(_silence(process, now) < threshold for process in fleet)
    active = last_activity() if long and others_live else None
    return frozenset(number for number, beat in long.items() if active is not None and active - beat >= threshold)


def judge_zone(fleet: Sequence[ProcessRow], threshold: timedelta, now: datetime) -> str | None:
    """Return why not to prune any process if the heartbeats look like local time; None if they do not."""
    offset = local_time.find_offset((process.last_heartbeat_at for process in fleet), now, threshold)
    if offset is None:
        return None
    return (
        f"heartbeats are {local_time.words(offset)} to the minute, so Rails seems to write local time "
        "(config.active_record.default_timezone = :local) and the database's clock cannot show who is dead; set it to "
        f":utc. Dead processes whose silence has this length by chance count as dead in {_seconds(threshold)}"
    )


def judge(fleet: Sequence[ProcessRow], threshold: timedelta, now: datetime, up: datetime | None) -> str | None:
    """Return why not to prune any process that looks dead, judged by a single check; None if there is no reason.

    ``up`` is when the database came up, None if it is always there.
    """
    silent = _silent(fleet, threshold, now)
    if silent and up is not None and is_young(up, threshold, now):
        return (
            f"the database came up {_seconds(now - up)} ago, and {len(silent)} of {len(fleet)} processes may only have "
            f"been unable to reach it; in {_seconds(threshold - (now - up))} the live ones have beaten"
        )
    recent = [process for process in fleet if _silence(process, now) < 2 * threshold]
    fresh = [process for process in silent if _silence(process, now) < 2 * threshold]
    hosts = {process.hostname for process in fresh}
    if len(hosts) >= FLEET and 2 * len(fresh) > len(recent):
        last = min(_silence(process, now) for process in fresh)
        return (
            f"{len(fresh)} of {len(recent)} processes on {len(hosts)} hosts look dead at once, rather cut off from the "
            f"database; if they stay silent, they count as dead in {_seconds(2 * threshold - last)}"
        )
    return None


def is_young(up: datetime | None, threshold: timedelta, now: datetime) -> bool:
    """Whether the database came up so late that no process had the time to be silent for a threshold since."""
    return up is not None and now - up < threshold


def compare(
    before: Beats, silent: Beats, beats: Beats, long_dead: Collection[int] = (), odd: Collection[int] = ()
) -> Doubts:
    """Compare the processes that look dead with those of an earlier check; ``beats``: all last heartbeats now.

    Dead are those that were silent at that check already, one that fell silent alone since, and the ``long_dead``.
    ``odd``: processes whose heartbeat is not a time. They are checked twice even if alone, since a living process
    overwrites it meanwhile.
    """
    back = sum(process in beats and beats[process] != beat for process, beat in before.items())
    if back and silent:
        refusal = (
            f"{back} of {len(before)} processes that looked dead have sent a heartbeat since: they were cut off from "
            f"the database, and {count_of(len(silent), 'other')} may still be"
        )
        return Doubts(refusal=refusal, silent=silent)
    same = frozenset(process for process, beat in silent.items() if process in before and before[process] == beat)
    new = frozenset(silent) - same - set(long_dead)
    unsure = new if len(new) >= MASS else new & frozenset(odd)
    return Doubts(dead=frozenset(silent) - unsure, unsure=unsure, silent=silent)


def _silent(fleet: Sequence[ProcessRow], threshold: timedelta, now: datetime) -> list[ProcessRow]:
    return [process for process in fleet if _silence(process, now) >= threshold]


def _beats(fleet: Iterable[ProcessRow]) -> Beats:
    return {process.id: process.last_heartbeat_at for process in fleet}


def _silence(process: ProcessRow, now: datetime) -> timedelta:
    return now - (process.sign(now) or EARLIEST)


def _seconds(span: timedelta) -> str:
    return f"{span.total_seconds():.0f} s"
