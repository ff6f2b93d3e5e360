"""The driver of a run: real supervisors, workers and commands on one database, faults by a seed, and the verdict.

    PYTHONPATH=tests:tests/programs python tests/chaos/driver.py [KIND ...] [--minutes 30] [--seed N] [--out FOLDER]

A run enqueues jobs and starts commands all the time, strikes one fault after another, and waits after each until a job
that is enqueued then has run. At the end it lets every job end, and asks the oracle.
"""

import argparse
import json
import lzma
import random
import resource
import shutil
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import audit
import chaos_jobs
import history
import oracle
from faults import TABLE, Fault, World, faults_of
from fleet import THRESHOLD, Fleet
from servers import KINDS
from sqlalchemy import text

from solidjq import Database, enqueue
from solidjq.database.setup import initialize
from solidjq.errors import SolidJQError
from support.databases import connected
from support.proxies import proxied

ANSWER = 5.0  # seconds that the enqueuer waits for an answer
PATIENCE = 90.0  # seconds in which a job that is enqueued after a fault must have run, and all must have ended
LEAST_JOBS = 60  # that a run enqueues, however slow the machine is
COMMANDS = (
    ("prune", "--force", "--alive-threshold", str(THRESHOLD)),
    ("recover", "--force", "--alive-threshold", str(THRESHOLD)),
    ("retry", "--safe", "--yes", "--reason", "chaos"),
    ("retry", "--class", "broken", "--limit", "3", "--yes"),
    ("discard", "--class", "broken", "--limit", "2", "--yes"),
    ("undo", "{operation}"),
    ("doctor", "-o", "ndjson"),
    ("operations", "verify"),
    ("failed", "list", "-o", "ndjson"),
)
WEIGHTS = {"kill children": 10, "kill a tree": 5, "kill a supervisor": 2}  # a fault that is not named here has 1
NEWEST = "SELECT max(id) FROM jq_operations WHERE verb IN ('retry', 'recover', 'discard')"


@dataclass
class Run:
    """One run on one database."""

    kind: str
    seed: int
    folder: Path
    rate: float = 15.0  # jobs a second
    commanders: int = 1
    counts: Counter[str] = field(default_factory=Counter)
    _number: int = 0
    _stopping: threading.Event = field(default_factory=threading.Event)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @contextmanager
    def prepared(self, *, supervisors: int, workers: int) -> Iterator[World]:
        """Start the database and what works on it."""
        (self.folder / "jq.toml").write_text('[default]\nretry = "auto"\n')
        (self.folder / "jq.toml").chmod(0o600)
        self.history = history.History(self.folder / "history.jsonl")
        with ExitStack() as stack:
            server = KINDS[self.kind](self.folder / "server")
            stack.callback(server.end)
            self.url = server.url
            queue = Database(self.url)
            initialize(queue)
            queue.close()
            audit.install(self.url)
            proxy, remote = (None, self.url) if self.kind == "sqlite" else stack.enter_context(proxied(self.url))
            fleet = Fleet(self.url, remote, self.folder, self.history, workers)
            stack.callback(fleet.end, 9)
            for number in range(supervisors):
                fleet.start(remote=proxy is not None and number % 2 == 0)
            # A file is too busy for an enqueuer that waits for it; a proxy makes acknowledgments uncertain.
            self._enqueuer = Database(remote, answer_timeout=ANSWER)
            stack.callback(self._enqueuer.close)
            yield World(server, fleet, proxy, random.Random(self.seed))  # noqa: S311

    # -- what goes on all the time ------------------------------------------------------------------------------------

    @contextmanager
    def traffic(self, world: World) -> Iterator[None]:
        """Enqueue jobs and run commands, until the block ends."""
        self._stopping.clear()
        threads = [threading.Thread(target=self._enqueue_all_the_time)]
        threads += [
            threading.Thread(target=self._command_all_the_time, args=[world, number])
            for number in range(self.commanders)
        ]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            self._stopping.set()
            for thread in threads:
                thread.join()

    def _enqueue_all_the_time(self) -> None:
        chosen = random.Random(self.seed + 1)  # noqa: S311
        poison_at = time.monotonic() + 3
        while not self._stopping.wait(chosen.uniform(0, 10 / self.rate)):
            names = chosen.choices(["quick", "slow", "limited", "broken", "later"], [50, 20, 17, 5, 8], k=5)
            if time.monotonic() >= poison_at:
                names.append("poison")
                poison_at = time.monotonic() + 40
            self.enqueue(names, chosen)

    def enqueue(self, names: list[str], chosen: random.Random) -> list[int]:
        """Enqueue jobs in one transaction; return their numbers if it was acknowledged."""
        with self._lock:
            numbers = list(range(self._number + 1, self._number + 1 + len(names)))
            self._number += len(names)
        new = [_new(name, number, chosen) for name, number in zip(names, numbers, strict=True)]
        self.history.add("invoke", "enqueue", jobs=numbers)
        try:
            self._enqueuer.transact(enqueue, new)
        except SolidJQError as error:  # it may have been committed all the same
            self.history.add("info", "enqueue", jobs=numbers, words=str(error)[:100])
            return []
        self.history.add("ok", "enqueue", jobs=numbers)
        self.counts["jobs enqueued"] += len(numbers)
        return numbers

    def _command_all_the_time(self, world: World, number: int) -> None:
        chosen = random.Random(self.seed + 2 + number)  # noqa: S311
        while not self._stopping.wait(chosen.uniform(0, 0.4)):
            self._command(world, chosen.choice(COMMANDS), chosen.uniform(0, 0.6) if chosen.random() < 0.6 else None)

    def _command(self, world: World, words: tuple[str, ...], kill_after: float | None = None) -> int:
        if "{operation}" in words:
            newest = 0
            with suppress(Exception), connected(self.url) as connection:  # the database may be away
                newest = connection.scalar(text(NEWEST)) or 0
            if not newest:
                return 0
            words = (words[0], str(newest))
        command = " ".join(words)
        self.history.add("invoke", "command", command=command)
        done = world.fleet.run(*words, kill_after=kill_after)
        killed = done.returncode == -9
        self.counts["commands killed" if killed else "commands"] += 1
        self.history.add(
            "info" if killed else "ok" if done.returncode in {0, 6} else "fail",
            "command",
            command=command,
            status=done.returncode,
            words=done.stderr[-500:] if done.returncode in {1, 2} or "Traceback" in done.stderr else "",
        )
        return done.returncode

    # -- faults -------------------------------------------------------------------------------------------------------

    def strike(self, world: World, fault: Fault) -> None:
        """Let a fault happen, and wait until a job that is enqueued afterwards has run."""
        self.history.add("invoke", "fault", name=fault.name)
        with fault.strike(world) as pids:
            time.sleep(world.random.uniform(*fault.seconds))
        self.history.add("ok", "fault", name=fault.name, processes=pids, excused=pids if fault.kills else [])
        self.counts[fault.name] += 1
        self.probe(world, fault.name)

    def probe(self, world: World, after: str) -> None:
        """Wait until a job that is enqueued now has run to its end."""
        deadline = time.monotonic() + PATIENCE
        waiting: set[int] = set()
        with self.history.path.open(encoding="utf-8") as lines:
            lines.seek(0, 2)
            while time.monotonic() < deadline:
                self.counts["supervisors that ended"] += world.fleet.restart_ended()
                world.database.ensure_runs()  # MariaDB ends some time after its disk was full
                if not waiting:
                    waiting = set(self.enqueue(["quick"], world.random))
                for line in lines:
                    if line.startswith('{"type": "ok", "f": "run"') and json.loads(line)["job"] in waiting:
                        return
                time.sleep(0.02)
        self.history.add(
            "fail", "fault", name=after, words=f"{PATIENCE:g} s after {after!r}, job {waiting} has not run"
        )

    def drain(self, world: World) -> None:
        """Let all jobs end, those of killed processes by a retry; a class of which each run fails is left alone."""
        if world.proxy is not None:
            world.proxy.heal()
        world.fleet.end(15)
        world.fleet.start(remote=False)
        deadline = time.monotonic() + PATIENCE
        while True:
            self._command(world, ("prune", "--force", "--alive-threshold", str(THRESHOLD)))
            again = ("quick", "slow", "limited")
            chosen = [word for name in again for word in ("--class", name)]
            self._command(world, ("retry", *chosen, "--yes", "--force", "--reason", "the end of the run"))
            left = self._unended()
            if not left:
                break
            if time.monotonic() > deadline:
                self.history.add("fail", "end", words=f"{len(left)} jobs never ended: {left[:20]}")
                break
            time.sleep(0.2)
        self._command(world, ("operations", "verify"))
        world.fleet.end(15)

    def _unended(self) -> list[int]:
        query = (
            "SELECT j.id FROM solid_queue_jobs j LEFT JOIN solid_queue_failed_executions f ON f.job_id = j.id "
            "WHERE j.finished_at IS NULL AND (f.id IS NULL OR j.class_name NOT IN ('broken', 'poison'))"
        )
        with connected(self.url) as connection:
            return list(connection.scalars(text(query)))


def _new(name: str, number: int, chosen: random.Random) -> Any:
    match name:
        case "slow":
            return chaos_jobs.slow.new(number, round(chosen.uniform(0.05, 0.5), 2))
        case "limited":
            return chaos_jobs.limited.new(number, chosen.choice(["a", "b"]))
        case "later":
            return chaos_jobs.quick.set(delay=chosen.uniform(0.5, 3)).new(number)
        case _:
            return getattr(chaos_jobs, name).new(number)


def run(
    kind: str,
    seed: int,
    folder: Path,
    *,
    minutes: float = 0.0,
    supervisors: int = 2,
    workers: int = 2,
    rate: float = 15.0,
) -> dict[str, Any]:
    """Make a run: each fault once in an order by the seed, then more until the minutes are over. Return its summary."""
    made = Run(kind, seed, folder, rate, commanders=2 if minutes else 1)
    began = time.monotonic()
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    with made.prepared(supervisors=supervisors, workers=workers) as world:
        order = faults_of(world)
        world.random.shuffle(order)
        weights = [WEIGHTS.get(fault.name, 1) for fault in order]
        made.probe(world, "the start")
        with made.traffic(world):
            for fault in order:
                made.strike(world, fault)
            while time.monotonic() - began < minutes * 60 or made.counts["jobs enqueued"] < LEAST_JOBS:
                made.strike(world, world.random.choices(order, weights)[0])
        made.drain(world)
        events = history.read(made.history.path)
        with connected(made.url) as connection:
            evidence = oracle.gather(connection, events, threshold=THRESHOLD, limit=chaos_jobs.LIMIT)
        kills, ended = world.kills, world.ended
        logs = world.fleet.logs()
    made.history.close()
    violations = oracle.judge(evidence)
    violations += [f"{name} wrote a stack trace: {log[-500:]}" for name, log in logs.items() if "Traceback" in log]
    runs = [event for event in events if event["f"] == "run"]
    begun = Counter(event["job"] for event in runs if event["type"] == "invoke")
    spent = resource.getrusage(resource.RUSAGE_CHILDREN)
    return {
        "database": kind,
        "seed": seed,
        "minutes": round((time.monotonic() - began) / 60, 1),
        "cpu_seconds_of_children": round(spent.ru_utime + spent.ru_stime - used.ru_utime - used.ru_stime, 1),
        "faults": {fault.name: made.counts[fault.name] for fault in TABLE if made.counts[fault.name]},
        "kills": {"processes of jq work": kills, "commands": made.counts["commands killed"]},
        "sessions_terminated": ended,
        "supervisors_that_ended_themselves": made.counts["supervisors that ended"],
        "commands": made.counts["commands"],
        "jobs": len(evidence.numbers),
        "runs": len(runs) and begun.total(),
        "jobs_run_again": sum(times > 1 for times in begun.values()),
        "changes_of_state": len(evidence.audit),
        "violations": violations,
    }


def main() -> None:
    """Run on each database, print and keep the summaries and the compressed histories."""
    parser = argparse.ArgumentParser(description="Break everything around jq for a while, and see whether it holds.")
    parser.add_argument("kinds", nargs="*", choices=[*KINDS, []], default=[])
    parser.add_argument("--minutes", type=float, default=30.0, help="for each database")
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--out", type=Path, default=None, help="a folder for the results")
    chosen = parser.parse_args()
    failed = False
    for kind in chosen.kinds or KINDS:
        seed = random.randrange(10**6) if chosen.seed is None else chosen.seed  # noqa: S311
        print(f"{kind}: seed {seed}", flush=True)
        folder = Path(tempfile.mkdtemp(prefix="solidjq-chaos-"))
        folder.chmod(0o755)  # the server is another user, where this runs as root
        summary = run(kind, seed, folder, minutes=chosen.minutes)
        print(json.dumps(summary, indent=1), flush=True)
        if chosen.out is not None:
            chosen.out.mkdir(parents=True, exist_ok=True)
            (chosen.out / f"{kind}-{seed}.json").write_text(json.dumps(summary, indent=1) + "\n")
            packed = lzma.compress((folder / "history.jsonl").read_bytes())
            (chosen.out / f"{kind}-{seed}.history.jsonl.xz").write_bytes(packed)
        failed = failed or bool(summary["violations"])
        if summary["violations"]:
            print(f"its files are kept: {folder}", flush=True)
        else:
            shutil.rmtree(folder)
    sys.exit(failed)


if __name__ == "__main__":
    main()
