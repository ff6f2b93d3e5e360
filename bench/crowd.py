"""A made-up queue of very many failures, and as many jobs that have finished; the ledger is as ``jq`` leaves it.

Half of the failures are of jobs that died with their process, in hundreds of incidents; half have errors of their own,
of hundreds of groups.

Python makes the few thousand deaths and errors; the database makes the jobs from them, in a statement a table.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from random import Random
from typing import Any

from sqlalchemy import (
    BigInteger,
    Column,
    Connection,
    DateTime,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    cast,
    func,
    insert,
    literal,
    null,
    select,
    text,
)
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql import expression
from sqlalchemy.sql.compiler import SQLCompiler

from solidjq import Database
from solidjq.batching import in_batches
from solidjq.database import tables
from solidjq.database.setup import initialize
from solidjq.database.statements import begin_ids_above
from solidjq.database.times import UtcDateTime
from solidjq.ledger import crashes
from solidjq.rails.error_text import error_json, exit_error, pruned_error

SPOT = 50  # failures of one class, one error and one moment; fewer if more deaths are wanted
DEATH = 5  # spots: so many classes were in flight at a death
INCIDENTS = 400
GROUPS = 300
READY = 20_000
HOSTS = [f"app-{number}.internal" for number in range(40)]
CLASSES = [f"{name}Job" for name in ("Mail", "Sync", "Import", "Index", "Webhook", "Report", "Billing", "Cleanup")]
CLASSES += [f"{name}Job" for name in ("Thumbnail", "Export", "Legacy", "Digest", "Invoice", "Search", "Geo", "Audit")]
KILLER = "ThumbnailJob"  # in flight at each crash of compiled code
QUEUES = ["default", "mailers", "imports", "low"]
SPAN = timedelta(days=6)  # within which everything happened
ROWS = 100_000  # of a statement that makes jobs

_made = MetaData()
numbers = Table("bench_numbers", _made, Column("n", BigInteger, primary_key=True, autoincrement=False))
spots = Table(
    "bench_spots",
    _made,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("class_name", String(100), nullable=False),
    Column("queue_name", String(100), nullable=False),
    Column("at", UtcDateTime(), nullable=False),
    Column("step", Integer, nullable=False),  # milliseconds between two of its failures
    Column("before", Text, nullable=False),  # the error, before and after the number of the job
    Column("after", Text),  # NULL: the whole error is ``before``
    Column("death_id", BigInteger),
    Column("counted", Integer, nullable=False),  # 1 if its crashes are in jq_crashes
)


class later(expression.FunctionElement[datetime]):  # noqa: N801  (used like an SQL function)
    """A time, so many milliseconds later."""

    type = UtcDateTime()
    inherit_cache = True


@compiles(later, "postgresql")
def _later_postgresql(element: later, compiler: SQLCompiler, **kw: Any) -> str:
    at, milliseconds = (compiler.process(clause, **kw) for clause in element.clauses)
    return f"({at} + {milliseconds} * interval '1 millisecond')"


@compiles(later, "mysql")
def _later_mysql(element: later, compiler: SQLCompiler, **kw: Any) -> str:
    at, milliseconds = (compiler.process(clause, **kw) for clause in element.clauses)
    return f"({at} + INTERVAL ({milliseconds}) * 1000 MICROSECOND)"


@compiles(later, "sqlite")
def _later_sqlite(element: later, compiler: SQLCompiler, **kw: Any) -> str:
    at, milliseconds = (compiler.process(clause, **kw) for clause in element.clauses)
    return f"strftime('%Y-%m-%d %H:%M:%f000', {at}, (({milliseconds}) / 1000.0) || ' seconds')"


@dataclass(slots=True)
class _Death:
    """A process's end that is made up."""

    at: datetime
    host: str
    pid: int
    signal: int | None  # None: its heartbeat stopped
    recorded: bool  # by jq; else Rails wrote only the failures
    number: int | None = None

    @property
    def error(self) -> str:
        """The error of its jobs."""
        beat = self.at - timedelta(minutes=6) + timedelta(seconds=self.pid % 50)
        return pruned_error(beat) if self.signal is None else exit_error(self.pid, -self.signal)


def fill(database: Database, count: int, wanted_deaths: int | None = None, finished: int | None = None) -> None:
    """Make a queue in an empty database: ``count`` failures, ``finished`` jobs (as many) and ``READY`` ready ones.

    Half of the failures are of ``wanted_deaths`` in a tenth as many incidents, nine tenths of them
    recorded; None: of few deaths in ``INCIDENTS``, half of them recorded.
    """
    initialize(database)
    now, dice = database.now(), Random(7)  # noqa: S311
    if wanted_deaths is None:
        spot, deaths = SPOT, list(_deaths(dice, now, max(DEATH, count // SPOT // DEATH // 2), INCIDENTS, 0.5))
    else:
        spot = max(1, count // wanted_deaths // DEATH // 2)
        deaths = list(_deaths(dice, now, wanted_deaths, wanted_deaths // 10, 0.9))
    end = count + (count if finished is None else finished)
    recorded = [death for death in deaths if death.recorded]
    for number, death in enumerate(recorded, start=1):
        death.number = number
    made = sorted([*_death_spots(dice, deaths), *_error_spots(dice, now, count // spot - len(deaths) * DEATH)], key=_at)
    with database.write() as connection:
        _made.create_all(connection)
        for batch in in_batches(enumerate(made)):
            connection.execute(insert(spots), [{"id": number, **spot} for number, spot in batch])
        for some in in_batches(recorded):
            connection.execute(insert(tables.deaths), [_row_of(death) for death in some])
        _count_to(connection, end + READY)
    for low in range(0, end + READY, ROWS):
        high = min(low + ROWS, end + READY)
        for first, last, state in ((0, count, "failed"), (count, end, "finished"), (end, high, "ready")):
            if max(low, first) < min(high, last):
                database.transact(_make, max(low, first), min(high, last), state, spot)
    with database.write() as connection:
        for table in (tables.jobs, tables.failed, tables.deaths):
            begin_ids_above(connection, table, connection.scalar(select(func.max(table.c.id))) or 0)
        _made.drop_all(connection)


def analyze(database: Database) -> None:
    """Let the database gather its statistics, as it does by itself after a while."""
    with database.outside_transactions() as connection:
        names = ", ".join(table.name for table in (tables.jobs, tables.failed, tables.crashes, tables.deaths))
        match connection.dialect.name:
            case "postgresql":
                connection.execute(text("VACUUM ANALYZE"))
            case "mysql":
                connection.execute(text(f"ANALYZE TABLE {names}"))
            case _:
                connection.execute(text("PRAGMA wal_checkpoint(TRUNCATE)"))


def _at(spot: dict[str, Any]) -> datetime:
    at: datetime = spot["at"]
    return at


def _deaths(dice: Random, now: datetime, count: int, most: int, share: float) -> Iterator[_Death]:
    """Yield deaths of ``most`` moments: one manner each, some on one host, some on many; ``jq`` recorded a share."""
    moments = min(most, count // 2)
    for number in range(moments):
        at = now - SPAN + (SPAN - timedelta(minutes=30)) * number / moments
        signal = dice.choice([None, None, 9, 9, 11])
        hosts = dice.sample(HOSTS, dice.choice([1, 1, 3]))
        recorded = dice.random() < share
        for _ in range(count // moments + (number < count % moments)):
            yield _Death(at, dice.choice(hosts), dice.randrange(100, 4_000_000), signal, recorded)


def _row_of(death: _Death) -> dict[str, Any]:
    beat = death.at - timedelta(seconds=20)
    if death.signal is None:
        beat = death.at - timedelta(minutes=6) + timedelta(seconds=death.pid % 50)
    sample = {
        "at": beat.isoformat(),
        "interval": 60,
        "rss": 400_000_000,
        "looks": 90,
        "seen": dict.fromkeys(CLASSES, 9),
    }
    fleet = {"alive": 30, "silent": 2, "alive_here": 2, "silent_here": 1, "hosts_alive": 20, "hosts_silent": 1}
    return {
        "id": death.number,
        "process_id": death.number,
        "kind": "Worker",
        "name": f"worker-{death.number}",
        "hostname": death.host,
        "pid": death.pid,
        "supervisor_id": None,
        "started_at": death.at - timedelta(hours=9),
        "last_heartbeat_at": beat,
        "noticed_at": death.at,
        "noticed_by": "prune" if death.signal is None else "supervisor",
        "exit_status": None,
        "signal": death.signal,
        "evidence": json.dumps({"threshold": 300, "sample": sample, "fleet": fleet}),
    }


def _death_spots(dice: Random, deaths: list[_Death]) -> Iterator[dict[str, Any]]:
    for death in deaths:
        classes = dice.sample([name for name in CLASSES if name != KILLER], DEATH)
        if death.signal == 11:  # noqa: PLR2004
            classes[0] = KILLER
        for number, name in enumerate(classes):
            yield {
                "class_name": name,
                "queue_name": dice.choice(QUEUES),
                "at": death.at if death.recorded else death.at + timedelta(milliseconds=number),
                "step": 0 if death.recorded else 20,
                "before": death.error,
                "after": None,
                "death_id": death.number,
                "counted": int(death.recorded or dice.random() < 0.5),  # noqa: PLR2004
            }


def _error_spots(dice: Random, now: datetime, count: int) -> Iterator[dict[str, Any]]:
    groups = []
    for group in range(min(GROUPS, count)):
        frames = [f"/srv/shop/releases/20261101/app/jobs/part{group % 17}/step{group}.rb:{group}:in `perform'"]
        frames += [
            f"/usr/lib/ruby/gems/3.3.0/gems/activejob-7.2/lib/active_job/f{n}.rb:{n}:in `call'" for n in range(12)
        ]
        kind = f"Shop::Error{group % 40}"
        error = error_json(kind, f"order @ of shop {group % 9} was refused by gateway{'abcdefgh'[group % 8]}", frames)
        groups.append((dice.choice(CLASSES), dice.choice(QUEUES), error.partition("@")))
    for number in range(count):
        class_name, queue_name, (before, _, after) = groups[min(int(dice.expovariate(0.02)), len(groups) - 1)]
        at = now - SPAN + SPAN * number / count
        common = {"class_name": class_name, "queue_name": queue_name, "at": at, "death_id": None, "counted": 0}
        yield {**common, "step": 7, "before": before, "after": after}


def _count_to(connection: Connection, most: int) -> None:
    connection.execute(insert(numbers).values(n=0))
    done = 1
    while done < most:
        doubled = select(numbers.c.n + done).where(numbers.c.n < most - done)
        connection.execute(insert(numbers).from_select(["n"], doubled))
        done = min(2 * done, most)


def _make(connection: Connection, first: int, last: int, state: str, size: int) -> None:
    """Make the jobs from number ``first`` on and below ``last``, ``size`` a spot, and the rows of their state."""
    number, spot = numbers.c.n, spots.c
    is_of = (numbers.c.n / size) if connection.dialect.name != "mysql" else func.floor(numbers.c.n / size)
    total = select(func.count()).select_from(spots).scalar_subquery()
    source = numbers.join(spots, spot.id == cast(func.floor(is_of), BigInteger) % total)
    chosen = (number >= first, number < last)
    job_id = number + 1
    written = cast(job_id, String(20))
    active_job_id = literal("0b8e9c1a-0000-4000-8000-") + cast(number + 100_000_000_000, String(20))
    at = later(spot.at, (number % size) * spot.step)
    payload = (
        literal('{"job_class":"')
        + spot.class_name
        + '","job_id":"'
        + active_job_id
        + '","provider_job_id":null,"queue_name":"'
        + spot.queue_name
        + '","priority":null,"arguments":[{"_aj_globalid":"gid://shop/Order/'
        + written
        + '"},{"retries":3,"note":"a text of the usual length","_aj_symbol_keys":["retries","note"]}],"executions":0,'
        '"exception_executions":{},"locale":"en","timezone":"UTC","enqueued_at":"2026-11-01T00:00:00.000000000Z",'
        '"scheduled_at":null}'
    )
    finished = at if state == "finished" else cast(null(), DateTime()) if state != "ready" else null()
    columns = {
        "id": job_id,
        "queue_name": spot.queue_name,
        "class_name": spot.class_name,
        "arguments": payload,
        "priority": literal(0),
        "active_job_id": active_job_id,
        "finished_at": finished,
        "created_at": later(spot.at, literal(-60_000)),
        "updated_at": at,
    }
    if state != "finished":
        del columns["finished_at"]
    jobs = select(*columns.values()).select_from(source).where(*chosen).order_by(number)
    connection.execute(insert(tables.jobs).from_select(list(columns), jobs))
    if state == "ready":
        made = tables.jobs.c
        rows = select(made.id, made.queue_name, made.priority, made.created_at).where(made.id.between(first + 1, last))
        names = ["job_id", "queue_name", "priority", "created_at"]
        connection.execute(insert(tables.ready).from_select(names, rows.order_by(made.id)))
    if state != "failed":
        return
    error = expression.case((spot.after.is_(None), spot.before), else_=spot.before + written + spot.after)
    failures = select(job_id, error, at).select_from(source).where(*chosen).order_by(number)
    connection.execute(insert(tables.failed).from_select(["job_id", "error", "created_at"], failures))
    failed, made = tables.failed.c, tables.jobs.c
    counted = (
        select(
            failed.id,
            made.active_job_id,
            made.id,
            made.class_name,
            func.substr(failed.error, 1, crashes.EVIDENCE),
            spot.death_id,
            failed.created_at,
        )
        .select_from(source.join(tables.failed, failed.job_id == job_id).join(tables.jobs, made.id == failed.job_id))
        .where(*chosen, spot.counted == 1)
    )
    names = ["failure_id", "subject", "job_id", "class_name", "evidence", "death_id", "crashed_at"]
    connection.execute(insert(tables.crashes).from_select(names, counted))
