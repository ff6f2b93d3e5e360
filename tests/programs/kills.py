"""Kill ``jq work`` with SIGKILL, again and again, while two long jobs run: ``python tests/programs/kills.py URL``.

The database at URL must have no queue yet. Both jobs have ``--records`` records. One writes a line for each into a
file, and saves its progress every now and then. The other inserts a row for each into the queue's own database, and
saves its progress in the same transaction. Each life of a worker ends by SIGKILL, at a random moment; its jobs are
pruned and retried. After the last kill the jobs run to their ends. It prints what it saw as a line of JSON, and ends
with status 1 if a promise was broken:

- every record is processed, and both jobs finish;
- no record up to the cursor that was in the database after a death is processed again;
- in the job that saves its progress with its own rows, each record is processed exactly once.

Most lives are of a worker that was forked by this program, which has imported everything: it runs within milliseconds.
The others are of the whole program, supervisor and dispatcher included.
"""

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import psutil
from sqlalchemy import BigInteger, Column, MetaData, Table, func, select, update

from solidjq import Database, NewJob, current_job, enqueue, job
from solidjq.database.opening import open_database
from solidjq.database.setup import initialize
from solidjq.database.tables import claimed, failed, jobs, processes
from solidjq.database.times import ago, utcnow
from solidjq.database.urls import url_text
from solidjq.ledger.operations import Operation
from solidjq.processes import heartbeat, pruning
from solidjq.rails.continuation import progress_of
from solidjq.rails.error_text import parse_error
from solidjq.recovery.retry import retry
from solidjq.recovery.terms import RetryTerms, Selection
from solidjq.runtime.config import ChildConfig, Config
from solidjq.runtime.registration import process_name
from solidjq.runtime.wakeup import Wakeup
from solidjq.runtime.worker import Worker
from solidjq.settings.policy import BUILT_IN

ROOT = Path(__file__).resolve().parents[1]
FILE = "KILLS_FILE"  # the environment's names for what the jobs need
URL = "KILLS_URL"
INTERVAL = 0.03  # seconds between two checkpoints of the job that writes into the file
PAUSE = 0.0003  # seconds that a record takes: the work
LONGEST_LIFE = 0.7  # seconds from the start of a worker to its end
LONGEST_START = 60.0  # seconds that the whole program may take until it has claimed a job: it starts three Pythons
QUIET = 20.0  # seconds without progress after which a worker that should finish is replaced
PATIENCE = 1800.0  # seconds in which the jobs must have ended after the last kill
THRESHOLD = 300.0

effects = Table("kills_effects", MetaData(), Column("number", BigInteger, nullable=False, index=True))
_own: Database | None = None


def own_database() -> Database:
    """Return the database that the job writes its own rows into: the queue's."""
    global _own  # noqa: PLW0603  (one a process)
    if _own is None:
        _own = open_database(os.environ[URL])
    return _own


@job(name="kills_visit")
def visit(count: int) -> None:
    """Write a line for each record into the file."""

    def left(cursor: int | None) -> range:
        return range((cursor or 0) + 1, count + 1)

    file = os.open(os.environ[FILE], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    for number in current_job().iterate("visit", left, cursor=lambda number: number, checkpoint_interval=INTERVAL):
        os.write(file, b"%d\n" % number)
        time.sleep(PAUSE)


@job(name="kills_write")
def write(count: int) -> None:
    """Insert a row for each record, in the transaction that saves the progress."""
    database = own_database()
    with current_job().step("write") as step:
        if step.done:
            return
        for number in range((step.cursor or 0) + 1, count + 1):
            with database.write() as connection:
                connection.execute(effects.insert().values(number=number))
                step.advance(to=number, connection=connection)


@dataclass
class Life:
    """One life of ``jq work``: the pid to wait for, and whether it is the whole program."""

    pid: int
    program: subprocess.Popen[bytes] | None = None
    lifeline: int | None = None  # the end of a pipe: while it is open, a worker has its supervisor

    def kill(self) -> None:
        """Kill all of its processes at once, and wait until they are gone."""
        doomed = [self.pid]
        if self.program is not None:
            os.kill(self.pid, signal.SIGSTOP)  # it starts no child meanwhile
            with suppress(psutil.NoSuchProcess):
                doomed += [child.pid for child in psutil.Process(self.pid).children(recursive=True)]
        for pid in doomed:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)
        if self.lifeline is not None:
            os.close(self.lifeline)
        for pid in doomed[1:]:  # they are init's now
            while psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
                time.sleep(0.005)


@dataclass
class Run:
    """One run on one database."""

    url: str
    kills: int
    records: int
    seed: int
    folder: Path
    whole: float  # the share of lives that are of the whole program
    counts: Counter[str] = field(default_factory=Counter)
    violations: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.random = random.Random(self.seed)  # noqa: S311
        self.file = self.folder / "records"
        self.database = open_database(self.url)
        self.config = Config(
            database_url=url_text(self.database.url), imports=("kills",), threads=2, worker_polling_interval=0.02
        )
        self.cursor = self.checked = 0  # the durable cursor of ``visit``, and how much of the file was checked

    # -- the run ------------------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Kill as often as asked, in as many rounds of two jobs as that takes."""
        os.environ |= {FILE: str(self.file), URL: url_text(self.database.url)}
        self.prepare()
        while self.counts["kills"] < self.kills:
            self.round()

    def prepare(self) -> None:
        """Make the tables, and register this program, which no prune must take for dead."""
        initialize(self.database)
        with self.database.write() as connection:
            effects.create(connection)
        me = {"kind": "Supervisor(test)", "name": "kills", "pid": os.getpid(), "hostname": "kills", "metadata": {}}
        self.me = self.database.transact(heartbeat.register, **me)

    def round(self) -> None:
        """Run two jobs to their ends, killing their workers while kills are left."""
        self.enqueue()
        while self.counts["kills"] < self.kills and self.unfinished():
            life = self.start(whole=self.random.random() < self.whole)
            if life.program is not None:
                self.wait_for_claim()
            time.sleep(self.random.uniform(0.0, LONGEST_LIFE))
            life.kill()
            died = self.bury()
            self.counts["kills"] += died > 0
            self.counts["kills before a job had begun"] += died == 0
            self.counts["kills of the whole program"] += died > 0 and life.program is not None
            self.counts["deaths of jobs"] += died
            self.check()
        self.finish()

    def enqueue(self) -> None:
        """Begin a round."""
        self.counts["rounds"] += 1
        self.cursor = self.checked = 0
        self.file.unlink(missing_ok=True)
        with self.database.write() as connection:
            connection.execute(effects.delete())
        new = [NewJob(class_name=name, args=[self.records]) for name in ("kills_visit", "kills_write")]
        self.visit_id, self.write_id = self.database.transact(enqueue, new)

    def finish(self) -> None:
        """Let the jobs run to their ends."""
        deadline = time.monotonic() + PATIENCE
        while self.unfinished() and time.monotonic() < deadline:
            life = self.start(whole=False)
            since, before = time.monotonic(), self.position()
            while self.unfinished() and time.monotonic() < min(since + QUIET, deadline):
                time.sleep(0.1)
                if (now := self.position()) != before:
                    since, before = time.monotonic(), now
            life.kill()
            self.bury()
            self.check()
        if self.unfinished():
            self.violate("the jobs did not finish")
        self.check_result()

    def check_result(self) -> None:
        """Compare what was done in a round with what had to be."""
        lines = Counter(self.lines(0))
        if missing := self.records - len(lines.keys() & set(range(1, self.records + 1))):
            self.violate(f"{missing} records were not processed")
        self.counts["records"] += self.records
        self.counts["records processed again"] += sum(times - 1 for times in lines.values())
        with self.database.read() as connection:
            rows = connection.scalar(select(func.count()).select_from(effects)) or 0
            different = connection.scalar(select(func.count(effects.c.number.distinct()))) or 0
        self.counts["records exactly once"] += different
        if not rows == different == self.records:
            self.violate(f"{rows} rows for {different} records of {self.records}, where each must have one")

    def violate(self, words: str) -> None:
        """Note a promise that was broken."""
        self.violations.append(f"kill {self.counts['kills']}: {words}")

    # -- lives --------------------------------------------------------------------------------------------------------

    def start(self, *, whole: bool) -> Life:
        """Start a worker, or the whole program."""
        self.database.close()  # a fork must not share its connections
        if whole:
            program = [sys.executable, "-m", "solidjq_cli", "work", "--import", "kills", "--threads", "2"]
            path = os.pathsep.join([str(ROOT), str(ROOT / "programs")])
            process = subprocess.Popen(
                program,
                env={**os.environ, "JQ_DATABASE_URL": os.environ[URL], "PYTHONPATH": path},
                stdin=subprocess.DEVNULL,
                stderr=(self.folder / "worker.log").open("ab"),
                start_new_session=True,
            )
            return Life(process.pid, process)
        lifeline, end = os.pipe()
        pid = os.fork()
        if pid == 0:
            self.become_worker(lifeline)
        os.close(lifeline)
        return Life(pid, lifeline=end)

    def wait_for_claim(self) -> None:
        """Wait until a worker has claimed a job, or should have."""
        deadline = time.monotonic() + LONGEST_START
        while time.monotonic() < deadline:
            with self.database.read() as connection:
                if connection.scalar(select(func.count()).select_from(claimed)):
                    return
            time.sleep(0.02)
        self.violate(f"no job was claimed within {LONGEST_START:g} seconds")

    def become_worker(self, lifeline: int) -> NoReturn:
        """Be a worker, as ``python -m solidjq.runtime`` is."""
        os.setpgrp()
        log = os.open(self.folder / "worker.log", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        os.dup2(log, 2)
        wakeup = Wakeup(lifeline)
        wakeup.listen([signal.SIGTERM, signal.SIGINT, signal.SIGQUIT])
        child = ChildConfig(kind="Worker", name=process_name("Worker"), supervisor_id=self.me, config=self.config)
        Worker(child, wakeup).run()

    def bury(self) -> int:
        """Prune the processes that were killed, and retry their jobs; return how many jobs died."""
        with self.database.write() as connection:
            connection.execute(update(processes).values(last_heartbeat_at=ago(2 * THRESHOLD)))
            connection.execute(update(processes).where(processes.c.id == self.me).values(last_heartbeat_at=utcnow()))
        for _ in pruning.prune(self.database, THRESHOLD):
            pass
        with self.database.read() as connection:
            errors = {row.job_id: parse_error(row.error) for row in connection.execute(select(failed))}
        for job_id, error in errors.items():
            if error.death is None:
                self.violate(f"job {job_id} failed with {error.exception_class}: {error.message}")
        terms = RetryTerms(force=True)
        operation = Operation("retry", reason="kills")
        moved = retry(self.database, Selection(job_ids=list(errors)), operation, terms, policy=BUILT_IN)
        for _ in moved:
            pass
        return len(errors)

    # -- checks -------------------------------------------------------------------------------------------------------

    def unfinished(self) -> bool:
        """Whether one of the jobs has not finished."""
        mine = jobs.c.id.in_([self.visit_id, self.write_id])
        with self.database.read() as connection:
            return connection.scalar(select(jobs.c.id).where(mine, jobs.c.finished_at.is_(None))) is not None

    def position(self) -> tuple[int, int | None]:
        """Return how far both jobs are."""
        with self.database.read() as connection:
            return self.size(), connection.scalar(select(func.max(effects.c.number)))

    def size(self) -> int:
        """Return the size of the file, in bytes."""
        return self.file.stat().st_size if self.file.exists() else 0

    def lines(self, above: int) -> list[int]:
        """Return the records in the file from a byte on."""
        if not self.file.exists():
            return []
        with self.file.open("rb") as file:
            file.seek(above)
            return [int(line) for line in file.read().split()]

    def check(self) -> None:
        """Compare what was done since the last death with the cursor of then, and read the one of now."""
        size = self.size()
        again = [number for number in self.lines(self.checked) if number <= self.cursor]
        if again:
            self.violate(f"record {min(again)} was processed again, although the cursor was {self.cursor}")
        with self.database.read() as connection:
            arguments = {row.id: row.arguments for row in connection.execute(select(jobs.c.id, jobs.c.arguments))}
            last = connection.scalar(select(func.max(effects.c.number))) or 0
            held = connection.scalar(select(func.count()).select_from(claimed))
        if held:
            self.counts["claims that committed after the death"] += 1
        visited, written = progress_of(arguments[self.visit_id]), progress_of(arguments[self.write_id])
        cursor = self.records if visited.completed else visited.cursor or 0
        if cursor < self.cursor:
            self.violate(f"the cursor went back from {self.cursor} to {cursor}")
        self.cursor, self.checked = cursor, size
        done = self.records if written.completed else written.cursor or 0
        if last != done:
            self.violate(f"the cursor {done} and the last row {last} were not committed together")


def main() -> None:
    """Run, and say what was seen."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("url")
    parser.add_argument("--kills", type=int, default=350)
    parser.add_argument("--records", type=int, default=100_000)
    parser.add_argument("--whole", type=float, default=0.1, help="the share of lives that are of the whole program")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1_000_000))
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="solidjq-kills-") as folder:
        run = Run(given.url, given.kills, given.records, given.seed, Path(folder), given.whole)
        start = time.monotonic()
        try:
            run.run()
        finally:
            seconds = round(time.monotonic() - start)
            report = {"database": run.database.url.get_backend_name(), "seed": run.seed, "seconds": seconds}
            sys.stdout.write(json.dumps({**report, **run.counts, "violations": run.violations}) + "\n")
            if run.violations or os.environ.get("KILLS_LOG"):
                sys.stderr.write((Path(folder) / "worker.log").read_text(errors="replace")[-5000:])
    sys.exit(bool(run.violations))


if __name__ == "__main__":
    sys.modules["kills"] = sys.modules["__main__"]  # what a worker that is forked from here imports
    main()
