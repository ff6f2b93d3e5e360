"""Whether processes that look dead are dead: what a prune asks before it fails their jobs.

A process is dead when its heartbeat is older than the threshold. That is right unless nobody could beat: the database
or the network was away. Whoever prunes first after that would fail the jobs of a whole fleet that is well. What tells
one from the other is time: a process that lives beats again within seconds, a dead one never. So what is doubtful is
only put off: a little later the same command goes ahead by itself, and a line in cron needs no person.

- The database came up less than a threshold ago. Nobody had the time to be silent for a threshold since then.
- Several hosts fell silent together, and most of the fleet with them, less than two thresholds ago. One host may die
  with all its processes; several at once are rather cut off. After two thresholds they are taken for dead.
- A process of this host has its pid still, and had it before its last heartbeat. It is stopped, or hangs, or cannot
  reach the database; in any case it may be running its jobs. Only this process is spared.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import NamedTuple

from sqlalchemy import Connection, select

from solidjq.dialects import clock, up_since
from solidjq.processes import ran_before
from solidjq.schema import processes

FLEET = 2  # hosts at least
FORCE = "JQ_PRUNE_FORCE"


class Seen(NamedTuple):
    """A registered process, as the database knows it."""

    id: int
    name: str
    hostname: str | None
    pid: int
    last_heartbeat_at: datetime | None


@dataclass(frozen=True, slots=True)
class Doubts:
    """What speaks against a prune: against all of it, or against single processes, by their ids."""

    refusal: str | None = None
    alive: Mapping[int, str] = field(default_factory=dict)


def find_doubts(
    connection: Connection,
    threshold: float,
    *,
    hostname: str | None = None,
    runs: Callable[[int, datetime], bool] = ran_before,
) -> Doubts:
    """Ask the database what speaks against a prune with this threshold, in seconds.

    ``hostname`` is this host's, if its processes are to be looked for; ``runs`` tells by pid and last heartbeat whether
    one runs still. JQ_PRUNE_FORCE=1 silences every doubt.
    """
    if os.environ.get(FORCE, "0") not in {"", "0"}:
        return Doubts()
    now = clock(connection)
    columns = (processes.c[name] for name in Seen._fields)
    seen = [Seen(*row) for row in connection.execute(select(*columns).order_by(processes.c.id))]
    doubts = judge(seen, timedelta(seconds=threshold), now, up_since(connection))
    if doubts.refusal is not None:
        return doubts
    alive = {
        process.id: f"pid {process.pid} of this host, {process.name}, still runs, though its heartbeat stopped"
        for process in _silent(seen, timedelta(seconds=threshold), now)
        if process.hostname == hostname
        and process.last_heartbeat_at is not None
        and runs(process.pid, process.last_heartbeat_at)
    }
    return Doubts(alive=alive)


def judge(seen: Sequence[Seen], threshold: timedelta, now: datetime, up: datetime | None) -> Doubts:
    """Say whether anything speaks against a prune of all processes that look dead.

    ``up`` is when the database came up, None if it is always there.
    """
    silent = _silent(seen, threshold, now)
    if silent and up is not None and now - up < threshold:
        return Doubts(
            f"the database came up {_seconds(now - up)} ago, and {len(silent)} of {len(seen)} processes may only have "
            f"been unable to reach it; in {_seconds(threshold - (now - up))} those that live have told so"
        )
    recent = [process for process in seen if _silence(process, now) < 2 * threshold]
    fresh = [process for process in silent if _silence(process, now) < 2 * threshold]
    hosts = {process.hostname for process in fresh}
    if len(hosts) >= FLEET and 2 * len(fresh) > len(recent):
        last = min(_silence(process, now) for process in fresh)
        return Doubts(
            f"{len(fresh)} of {len(recent)} processes on {len(hosts)} hosts look dead at once, rather cut off from the "
            f"database; if they stay silent, they count as dead in {_seconds(2 * threshold - last)}"
        )
    return Doubts()


def _silent(seen: Sequence[Seen], threshold: timedelta, now: datetime) -> list[Seen]:
    return [process for process in seen if process.last_heartbeat_at and _silence(process, now) >= threshold]


def _silence(process: Seen, now: datetime) -> timedelta:
    return timedelta() if process.last_heartbeat_at is None else now - process.last_heartbeat_at


def _seconds(span: timedelta) -> str:
    return f"{span.total_seconds():.0f} s"
