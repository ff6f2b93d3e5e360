"""What many tests need: the program itself, and the law that a job is in exactly one state."""

import os
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, create_engine, literal, select, text, union_all
from sqlalchemy.engine import URL

from solidjq import Database, NewJob, enqueue
from solidjq.database.tables import blocked, claimed, failed, jobs, ready, scheduled
from solidjq.ledger.operations import Operation
from solidjq.processes import heartbeat
from solidjq.queue import claim, endings
from solidjq.queue.claim import Claim
from solidjq.queue.states import State
from solidjq.recovery.retry import Selection, retry
from solidjq.recovery.verdicts import Decision, RetryTerms, Verdict
from solidjq.settings.policy import BUILT_IN, Policy
from zygote import AT_START, Zygote

DATABASES = ("sqlite", "postgresql", "mariadb")
EXECUTIONS = {
    State.READY: ready,
    State.SCHEDULED: scheduled,
    State.BLOCKED: blocked,
    State.CLAIMED: claimed,
    State.FAILED: failed,
}
PATIENCE = 60.0  # seconds before a test gives up waiting for something that must come


@dataclass
class Shell:
    """``jq`` run as a program, on one database, in a folder of its own."""

    url: str
    folder: Path
    environment: dict[str, str] = field(default_factory=dict)
    fresh: bool = False  # each run starts a Python of its own, and imports what it needs itself

    def run(self, *arguments: str, stdin: str = "", url: str | None = None) -> subprocess.CompletedProcess[str]:
        """Run a command to its end."""
        env = self.env(url)
        if not self.fresh and not any(name in self.environment for name in AT_START):
            return zygote().run(list(arguments), stdin, env, self.folder, PATIENCE)
        return subprocess.run(
            [sys.executable, "-m", "solidjq_cli", *arguments],
            input=stdin,
            capture_output=True,
            text=True,
            env=env,
            cwd=self.folder,
            timeout=PATIENCE,
            check=False,
        )

    def start(self, *arguments: str, program: Sequence[str] = ("-m", "solidjq_cli")) -> subprocess.Popen[str]:
        """Start a command and leave it running."""
        return subprocess.Popen(
            [sys.executable, *program, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=self.env(),
            cwd=self.folder,
        )

    def env(self, url: str | None = None) -> dict[str, str]:
        kept = {key: value for key, value in os.environ.items() if key not in {"JQ_DATABASE_URL", "JQ_DEBUG"}}
        # The PostgreSQL of the tests has just come up; prune would wait a while before it took anybody for dead.
        return {**kept, "JQ_PRUNE_FORCE": "1", "JQ_DATABASE_URL": self.url if url is None else url, **self.environment}


def execute(url: URL, *statements: str) -> None:
    """Run statements as they stand, each a transaction of its own."""
    engine = create_engine(url, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        for statement in statements:
            connection.execute(text(statement))
    engine.dispose()


@cache
def zygote() -> Zygote:
    """Return the one of this test process."""
    return Zygote()


def until(condition: Callable[[], Any], what: str) -> Any:
    """Ask again and again until the condition holds; the test fails if it never does."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        if found := condition():
            return found
        time.sleep(0.02)
    raise AssertionError(f"never happened: {what}")


def states(connection: Connection) -> dict[int, set[State]]:
    """Return the states of every job, in one statement: workers may be at it while a test looks."""
    each = [select(literal(state.value).label("state"), table.c.job_id) for state, table in EXECUTIONS.items()]
    finished = select(literal(State.FINISHED.value), jobs.c.id).where(jobs.c.finished_at.is_not(None))
    held = union_all(*each, finished).subquery()
    found: dict[int, set[State]] = defaultdict(set)
    for job_id, state in connection.execute(
        select(jobs.c.id, held.c.state).outerjoin(held, held.c.job_id == jobs.c.id)
    ):
        found[job_id] |= set() if state is None else {State(state)}
    return found


def state_of_each(database: Database) -> dict[int, State]:
    """Return each job's state, in the order of the ids; fail if a job is in none or in several."""
    with database.read() as connection:
        found = states(connection)
    damaged = {job_id: held for job_id, held in found.items() if len(held) != 1}
    assert not damaged, f"jobs in no state or in several: {damaged}"
    return {job_id: next(iter(held)) for job_id, held in sorted(found.items())}


def add_jobs(database: Database, *new_jobs: NewJob) -> list[int]:
    """Enqueue jobs."""
    return database.transact(enqueue, new_jobs)


def plain_jobs(count: int, **settings: Any) -> list[NewJob]:
    """Describe jobs that nobody will run."""
    return [NewJob(class_name="PlainJob", args=[number], **settings) for number in range(count)]


def add_process(database: Database, name: str = "worker-1", *, kind: str = "Worker", pid: int = 4242) -> int:
    """Register a process that does not exist."""
    return database.transact(heartbeat.register, kind=kind, name=name, pid=pid, hostname="testhost", metadata={})


def claim_all(database: Database, process_id: int, limit: int = 1000) -> list[Claim]:
    """Claim whatever is ready."""
    return database.transact(claim.claim, process_id, claim.ALL_QUEUES, limit)


def take_turn(
    database: Database, process_id: int, claim_ids: Sequence[int], queues: Sequence[str], limit: int
) -> list[Claim]:
    """Finish claims and claim others, as a worker does: in one statement where there is one."""

    def exchange(connection: Connection) -> list[Claim]:
        endings.finish_claims(connection, claim_ids)
        return claim.claim(connection, process_id, queues, limit)

    claims = claim.exchange(database, process_id, claim_ids, queues, limit)
    return database.transact(exchange) if claims is None else claims


@dataclass(frozen=True)
class Retried:
    """What a retry decided."""

    decisions: list[Decision]

    @property
    def count(self) -> int:
        return sum(decision.jobs for decision in self.decisions if decision.verdict.moves)

    @property
    def job_ids(self) -> list[int]:
        return sorted(decision.job_id for decision in self.decisions if decision.verdict.moves)

    @property
    def ready(self) -> list[int]:
        return sorted(d.job_id for d in self.decisions if d.verdict.moves and not d.scheduled)

    @property
    def scheduled(self) -> list[int]:
        return sorted(d.job_id for d in self.decisions if d.verdict.moves and d.scheduled)

    @property
    def verdicts(self) -> dict[int, Verdict]:
        return {decision.job_id: decision.verdict for decision in self.decisions}

    def reason(self, job_id: int) -> str | None:
        (reason,) = (decision.reason for decision in self.decisions if decision.job_id == job_id)
        return reason


def retry_jobs(
    database: Database,
    job_ids: Sequence[int] | None = None,
    operation: Operation | None = None,
    *,
    policy: Policy = BUILT_IN,
    selection: Selection | None = None,
    by_job: bool = True,
    **terms: Any,
) -> Retried:
    """Retry these jobs, or a selection, in this process."""
    chosen = Selection(job_ids=job_ids) if selection is None else selection
    ran = retry(database, chosen, operation or Operation("retry"), RetryTerms(**terms), policy=policy, by_job=by_job)
    return Retried([decision for batch in ran for decision in batch])


def rows(database: Database, table: Any) -> list[dict[str, Any]]:
    """Return a table's rows in id order."""
    with database.read() as connection:
        return [dict(row) for row in connection.execute(select(table).order_by(*table.primary_key)).mappings()]
