"""A made-up night: five hosts, twelve classes, five thousand failures, and killers among innocents.

What really killed each process is known here, and to nobody else: the database has only what workers leave behind.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from random import Random
from typing import Any

from sqlalchemy import delete, insert, select, update

from solidjq import Database, NewJob
from solidjq.database import tables
from solidjq.processes import pruning
from solidjq.processes.heartbeat import register
from solidjq.queue import endings
from solidjq.rails.error_text import error_json, exit_error, pruned_error
from support.processes import silence
from support.queue import add_jobs, claim_all

HOSTS = ("app-1", "app-2", "app-3", "app-4", "app-5")
LOST = "app-3"
LENGTH = 24.0  # hours
THREADS = 3
FAILURES = 5000
LOOKS = 4000  # of heartbeats at busy processes, in all
# What usually runs: in how many looks of a thousand a class is in flight.
USUAL = {
    "MailJob": 300,
    "SyncJob": 250,
    "ImportJob": 200,
    "IndexJob": 150,
    "WebhookJob": 120,
    "ReportJob": 60,
    "BillingJob": 40,
    "CleanupJob": 30,
}
CRASHES, FILLS, VANISHES, DIGESTS = "ThumbnailJob", "ExportJob", "LegacyJob", "DigestJob"
RARE = {CRASHES: 12, FILLS: 8, VANISHES: 6, DIGESTS: 6}  # DigestJob does no harm


@dataclass(slots=True)
class Night:
    """What the night left: by job id."""

    database: Database
    rng: Random
    began: datetime
    hour: float = 0.0
    killers: set[int] = field(default_factory=set)  # each killed a process, and has not ended since
    company: set[int] = field(default_factory=set)  # in flight beside a killer
    outside: set[int] = field(default_factory=set)  # in flight when a host was lost or a deployment killed
    errors: int = 0
    pids: int = 20_000

    @property
    def now(self) -> datetime:
        return self.began + timedelta(hours=self.hour)

    def others(self, count: int) -> list[str]:
        return self.rng.choices(list(USUAL), weights=list(USUAL.values()), k=count)

    def die(
        self,
        classes: Sequence[str],
        how: dict[str, Any] | None = None,
        *,
        host: str | None = None,
        sample: dict[str, Any] | None = None,
        rails: bool = False,
        again: int | None = None,
    ) -> list[int]:
        """Let a worker die that executes jobs of these classes, and ``again`` if that is a job.

        ``how``: what its supervisor saw; None if it was only pruned. ``rails``: its death was recorded by Rails alone.
        """
        self.hour += self.rng.uniform(0.02, 0.15)
        self.pids += 1
        job_ids = add_jobs(self.database, *(NewJob(class_name=name) for name in classes))
        worker = self.database.transact(
            register,
            kind="Worker",
            name=f"worker-{self.pids}",
            pid=self.pids,
            hostname=host or self.rng.choice([name for name in HOSTS if name != LOST]),
            metadata={"sample": sample} if sample else {},
        )
        claimed = {claim.job_id for claim in claim_all(self.database, worker)}
        assert claimed == {*job_ids, *([] if again is None else [again])}
        if rails:
            error = pruned_error(self.now) if how is None else exit_error(self.pids, how["returncode"])
            self.database.transact(endings.fail, endings.claims_of(worker), error)
            with self.database.write() as connection:
                connection.execute(delete(tables.processes).where(tables.processes.c.id == worker))
        elif how is None:
            silence(self.database, worker, 1000)
            assert list(pruning.prune(self.database, 300, only=[worker]))
        else:
            self.database.transact(pruning.fail_exited, worker, pid=self.pids, **how)
        self.date(claimed)
        return job_ids

    def date(self, job_ids: set[int]) -> None:
        """Let what was just written have happened now, in the night."""
        failed, crashes, deaths = tables.failed.c, tables.crashes.c, tables.deaths.c
        with self.database.write() as connection:
            connection.execute(update(tables.failed).where(failed.job_id.in_(job_ids)).values(created_at=self.now))
            mine = crashes.job_id.in_(job_ids) & (crashes.crashed_at > self.began + timedelta(hours=LENGTH - 0.2))
            connection.execute(update(tables.crashes).where(mine).values(crashed_at=self.now))
            late = deaths.noticed_at > self.began + timedelta(hours=LENGTH - 0.2)
            connection.execute(
                update(tables.deaths).where(late).values(noticed_at=self.now, last_heartbeat_at=self.now)
            )

    def back(self, job_id: int) -> None:
        """Put a job back to work as Rails' own retry does: without a word."""
        with self.database.write() as connection:
            connection.execute(delete(tables.failed).where(tables.failed.c.job_id == job_id))
            queue = select(tables.jobs.c.queue_name).where(tables.jobs.c.id == job_id).scalar_subquery()
            values = {"job_id": job_id, "queue_name": queue, "priority": 0, "created_at": self.now}
            connection.execute(insert(tables.ready).values(values))

    def fail(self, count: int) -> None:
        """Let jobs fail with errors of their own, many at once."""
        worker = self.database.transact(
            register, kind="Worker", name="worker-errors", pid=1, hostname="app-1", metadata={}
        )
        for name, share in (("ImportJob", 0.7), ("WebhookJob", 0.2), ("BillingJob", 0.1)):
            add_jobs(self.database, *(NewJob(class_name=name, args=[n]) for n in range(int(count * share))))
            claim_all(self.database, worker, count)
            self.database.transact(endings.fail, endings.claims_of(worker), error_json("ArgumentError", f"bad {name}"))
        self.errors += count
        with self.database.write() as connection:
            connection.execute(delete(tables.processes).where(tables.processes.c.id == worker))


def make_night(database: Database, *, seed: int = 1, failures: int = FAILURES) -> Night:
    """Leave a night in a database that ``init`` made; its last death was an hour ago."""
    night = Night(database, Random(seed), database.now() - timedelta(hours=LENGTH))  # noqa: S311  (no secret)
    for number, host in enumerate(HOSTS):
        if host != LOST:
            seen = {name: share * LOOKS // 4000 for name, share in (USUAL | RARE).items()}
            database.transact(
                register,
                kind="Worker",
                name=f"worker-alive-{number}",
                pid=100 + number,
                hostname=host,
                metadata={"queues": "*", "sample": {"looks": LOOKS // 4, "seen": seen}},
            )
    with database.write() as connection:
        connection.execute(update(tables.processes).values(created_at=night.began))
    _crashes(night)
    _no_memory(night)
    _a_poisonous_job(night)
    _vanishing(night)
    _innocents(night)
    night.fail(failures - len(night.killers) - len(night.company) - len(night.outside))
    return night


def _crashes(night: Night) -> None:
    """A class that crashes: Rails saw the signal, our runtime the thread, too."""
    for number in range(6):
        beside = night.others(THREADS - 1) if number != 3 else []  # once it was alone
        killer, *company = night.die([CRASHES, *beside], {"returncode": -11}, rails=number % 2 == 0)
        night.killers.add(killer)
        night.company.update(company)


def _no_memory(night: Night) -> None:
    """A class that fills the memory: the kernel counted what it killed."""
    for _ in range(5):
        killed = {"returncode": -9, "witness": {"oom_kill": [0, 1]}}
        killer, *company = night.die([FILLS, *night.others(THREADS - 1)], killed)
        night.killers.add(killer)
        night.company.update(company)


def _a_poisonous_job(night: Night) -> None:
    """One job of a harmless class that ends its process whenever it runs; somebody put it back twice."""
    killer, *company = night.die(["SyncJob", *night.others(1)], {"returncode": 7})
    night.killers.add(killer)
    night.company.update(company)
    for _ in range(2):
        night.back(killer)
        night.company.update(night.die(night.others(1), {"returncode": 7}, again=killer))


def _vanishing(night: Night) -> None:
    """A class whose processes vanish without a trace; only that it is always there tells."""
    for _ in range(5):
        killer, *company = night.die([VANISHES, *night.others(THREADS - 1)], rails=True)
        night.killers.add(killer)
        night.company.update(company)


def _innocents(night: Night) -> None:
    """A lost host, a deployment that waited too short, and kills that nothing explains."""
    night.hour = 20.0
    for _ in range(6):
        how = {"returncode": -9, "witness": {"term_at": night.now.isoformat()}}
        night.outside.update(night.die([DIGESTS, *night.others(THREADS - 1)], how))
    night.hour = 22.0
    for _ in range(4):
        night.outside.update(night.die(night.others(THREADS), host=LOST))
    for _ in range(4):
        night.company.update(night.die(night.others(THREADS), {"returncode": -9}))
