"""Registered processes: register, heartbeat, deregister, list. Alive means a heartbeat younger than the threshold."""

import json
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, and_, delete, func, insert, or_, select, update

from solidjq.database.inserts import inserted_id
from solidjq.database.standby import READ_ONLY, Standby, takes_writes
from solidjq.database.tables import claimed, processes
from solidjq.database.times import ago, utcnow
from solidjq.errors import AccessDeniedError
from solidjq.ledger.stop_requests import end_asked
from solidjq.queue.endings import claims_of, end_but_refused, release
from solidjq.untrusted import read_object

# Solid Queue's own defaults, in seconds.
HEARTBEAT_INTERVAL = 60.0
ALIVE_THRESHOLD = 300.0

RUNTIME = "solidjq"  # how the ``runtime`` in a process's metadata begins, if it is one of ours
CAN_STOP = "can_stop"  # the key of a worker's metadata: it reads the requests of jq jobs stop

AHEAD = timedelta(days=1)  # no clock is that fast: what a row says of a later time makes no sense


def last_sign(last_heartbeat_at: datetime | None, created_at: datetime | None, now: datetime) -> datetime | None:
    """Return when a process last gave a sign of life: its heartbeat, or else its registration; None if neither is one.

    A heartbeat that is no time, or lies more than ``AHEAD`` of ``now``, was not written by the process. A living one
    writes over it at its next heartbeat.
    """
    return next((time for time in (last_heartbeat_at, created_at) if time is not None and time <= now + AHEAD), None)


def silent(threshold: float) -> ColumnElement[bool]:
    """Return, as SQL, whether ``last_sign`` of a process is ``threshold`` seconds old or older, or there is none."""

    def senseless(time: ColumnElement[Any]) -> ColumnElement[bool]:
        return or_(time.is_(None), time > ago(-AHEAD.total_seconds()))

    beat, registered = processes.c.last_heartbeat_at, processes.c.created_at
    unregistered = or_(registered <= ago(threshold), senseless(registered))
    return or_(beat <= ago(threshold), and_(senseless(beat), unregistered))


@dataclass(frozen=True, slots=True)
class Process:
    """A registered process, with its number of claimed jobs and its heartbeat's age by the database's clock."""

    id: int
    kind: str
    name: str
    hostname: str | None
    pid: int
    supervisor_id: int | None
    last_heartbeat_at: datetime | None
    heartbeat_age: float | None  # seconds
    silence: float | None  # seconds since its last sign of life; None if there never was one
    created_at: datetime | None
    claimed: int
    metadata: str | None

    @property
    def is_ours(self) -> bool:
        """Whether this project's runtime registered the process, and not Solid Queue."""
        return str(read_object(self.metadata).get("runtime")).startswith(RUNTIME)

    def is_alive(self, threshold: float) -> bool:
        """Whether its last sign of life is younger than ``threshold`` seconds."""
        return self.silence is not None and self.silence < threshold

    def life(self, threshold: float, standby: Standby | None) -> bool | None:
        """Whether it is alive; None on a standby that shows no young heartbeat, since it may only be behind."""
        return self.is_alive(threshold) or (None if standby else False)


def register(
    connection: Connection,
    *,
    kind: str,
    name: str,
    pid: int,
    hostname: str,
    metadata: Mapping[str, object],
    supervisor_id: int | None = None,
) -> int:
    """Insert a process with its first heartbeat; return its id. ``metadata`` must be JSON."""
    result = connection.execute(
        insert(processes).values(
            kind=kind,
            name=name,
            pid=pid,
            hostname=hostname,
            metadata=_json(metadata),
            supervisor_id=supervisor_id,
            last_heartbeat_at=utcnow(),
            created_at=utcnow(),
        )
    )
    return inserted_id(result)


def _json(metadata: Mapping[str, object]) -> str:
    return json.dumps(metadata, separators=(",", ":"))


def heartbeat(connection: Connection, process_id: int, metadata: Mapping[str, object] | None = None) -> bool:
    """Write a heartbeat and, if given, new metadata. False if the row is gone: the process was pruned and must stop.

    Raises AccessDeniedError, and writes nothing, if a MySQL server was set read-only, even where this user may write
    all the same: what is written on a replica parts it from its primary.
    """
    beat = update(processes).where(processes.c.id == process_id, takes_writes(connection))
    beat = beat.values(last_heartbeat_at=utcnow())
    if metadata is not None:
        beat = beat.values(metadata=_json(metadata))
    if connection.execute(beat).rowcount:
        return True
    if connection.scalar(select(processes.c.id).where(processes.c.id == process_id)) is None:
        return False
    raise AccessDeniedError(f"{READ_ONLY}; nothing is written until it takes writes again")


def deregister(connection: Connection, process_id: int) -> list[int]:
    """Release the jobs that the process still has claimed and remove its row; return the ids of those jobs.

    Jobs that were asked to stop (``jq jobs stop``) fail instead. A claim that the database refuses to end stays, as an
    orphan that each prune tries to fail; if it refuses all of them, the error is raised.
    """

    def end(claim_ids: Sequence[int]) -> list[int]:
        end_asked(connection, claims_of(process_id, claim_ids))
        return release(connection, claims_of(process_id, claim_ids))

    ids = connection.scalars(select(claimed.c.id).where(claims_of(process_id)).order_by(claimed.c.id)).all()
    released = end_but_refused(connection, process_id, ids, end)
    connection.execute(delete(processes).where(processes.c.id == process_id))
    return released


def find_child(connection: Connection, *, name: str, supervisor_id: int) -> int | None:
    """Return the id of a supervisor's child by the child's name; None if it is not registered, or no longer."""
    return connection.scalar(
        select(processes.c.id).where(processes.c.name == name, processes.c.supervisor_id == supervisor_id)
    )


def list_processes(connection: Connection) -> list[Process]:
    """Return all processes, each supervisor followed by its children."""
    held = select(claimed.c.process_id, func.count().label("claimed")).group_by(claimed.c.process_id).subquery("held")
    rows = connection.execute(
        select(processes, func.coalesce(held.c.claimed, 0).label("claimed"), utcnow().label("now"))
        .outerjoin(held, held.c.process_id == processes.c.id)
        .order_by(
            func.coalesce(processes.c.supervisor_id, processes.c.id),
            processes.c.supervisor_id.is_not(None),
            processes.c.id,
        )
    )
    listed = []
    for row in rows:
        values = row._asdict()
        now, beat = values.pop("now"), values["last_heartbeat_at"]
        sign = last_sign(beat, values["created_at"], now)
        age, silence = (None if time is None else (now - time).total_seconds() for time in (beat, sign))
        listed.append(Process(**values, heartbeat_age=age, silence=silence))
    return listed


def names_of_children(connection: Connection, supervisor_id: int) -> set[str]:
    """Return the names of a supervisor's registered children."""
    return set(connection.scalars(select(processes.c.name).where(processes.c.supervisor_id == supervisor_id)))


def processes_at(
    connection: Connection, addresses: Collection[tuple[str | None, int | None]]
) -> dict[tuple[str, int], list[Row[Any]]]:
    """Return the rows of the processes that are registered now under these addresses, a host and a pid each."""
    if not addresses:
        return {}
    at: dict[tuple[str, int], list[Row[Any]]] = defaultdict(list)
    for row in connection.execute(select(processes).where(processes.c.pid.in_({pid for _, pid in addresses}))):
        if (row.hostname, row.pid) in addresses:
            at[row.hostname, row.pid].append(row)
    return at
