"""What a check and a finding are, and what the checks of several files share."""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from enum import StrEnum
from typing import Any

from sqlalchemy import Connection, text

from solidjq.batching import BATCH
from solidjq.database.transactions import Database
from solidjq.durations import spell_duration
from solidjq.errors import DatabaseError, Stays
from solidjq.ledger.operations import Operation, reverting
from solidjq.processes.heartbeat import ALIVE_THRESHOLD, Process, list_processes
from solidjq.queue.attempts import Attempt, passing_over
from solidjq.queue.concurrency import Limits
from solidjq.rails.job_code import JobCode
from solidjq.rails.settings import RailsConfig

MOST_NAMED = 1000  # jobs or keys that one finding names
MOST_QUEUES = 1000  # queues that one check looks at
MANY_BYTES = 256 * 2**20  # of free space or write-ahead log; less is not worth a finding
MANY_DEADLOCKS = 1000  # that are worth a note, in whatever time
MANY_HOURLY = 10  # deadlocks an hour that hurt
MANY_NOTIFYING = 200.0  # commits a second that notify; a disk that takes 1 to 3 ms a commit allows 300 to 1,000
MANY_WAITING = 3  # transactions that wait to notify; on a slow disk they never reach that rate
NEARLY_ALL = 0.9  # of the server's connections


class Severity(StrEnum):
    """How bad a finding is."""

    ERROR = "error"  # work is lost, doubled, or stands still
    WARNING = "warning"  # it will hurt, or hurts already
    NOTE = "note"  # worth knowing; the queue is healthy all the same


@dataclass(frozen=True, slots=True, kw_only=True)
class DoctorTerms:
    """What the operator considers normal. Times in seconds."""

    threshold: float = ALIVE_THRESHOLD  # a process whose heartbeat is this old is dead
    long: float = 3600.0  # a claim, or a wait in a paused queue, of this length is worth a finding
    patience: float = 10.0  # that one check may take
    limits: Limits = field(default_factory=dict)  # of the job classes whose code was imported
    application: RailsConfig | None = None  # the Rails application named with --rails or a profile
    code: JobCode | None = None  # the text of its Ruby files
    registered: frozenset[str] | None = None  # the jobs of the modules that were imported; None: none was named
    grace: float | None = None  # what a stopping process gets before it is killed, if the operator gave it


@dataclass(frozen=True, slots=True)
class DoctorFinding:
    """One thing that is wrong: ``what`` it is, and ``advice``: the command or step that puts it right."""

    what: str
    advice: str
    severity: Severity = Severity.ERROR
    job_ids: tuple[int, ...] = ()
    subjects: frozenset[object] = frozenset()  # what it is about; a confirmation must find one of them again


class SkippedCheckError(DatabaseError):
    """A check cannot be made here; the message says why."""


Find = Callable[[Connection, DoctorTerms], Iterable[DoctorFinding]]
# Yields how many rows each of its transactions fixed; what the database refuses keeps none of the others.
Fix = Callable[[Database, DoctorTerms, Operation], Iterator[int]]


@dataclass(frozen=True, slots=True, kw_only=True)
class DoctorCheck:
    """One question about a queue.

    ``fix`` does what ``fixes`` says: only what Solid Queue itself would do, or what cannot make any job run.
    """

    name: str
    asks: str  # what it looks for
    why: str  # why that matters
    advice: str  # what to do about it, in general
    finds: Mapping[str, Find]  # by SQLAlchemy's name of the database
    again: bool = False  # a finding may be a moment between two transactions, so only a repeated finding counts
    by_clock: bool = False  # it compares times with the clock, heartbeats above all: on a standby these are old
    of_application: bool = False  # it compares the queue with a Rails application
    of_code: bool = False  # it compares the queue with a Rails application's text, or with imported modules
    fix: Fix | None = None
    fixes: str = ""


def fix_some(
    database: Database,
    operation: Operation,
    move: Callable[..., list[int] | None],
    *args: object,
    what: str,
    stays: Stays,
) -> Iterator[int]:
    """Yield how many rows each transaction of a fix fixed, ``BATCH`` at most, until there are no more.

    ``move`` is called with a connection, ``args``, the operation and the attempt (see ``passing_over``).
    """

    def fix(attempt: Attempt) -> list[int] | None:
        with reverting(operation):
            return database.transact(move, *args, operation, attempt)

    return map(len, passing_over(database, fix, BATCH, what=what, stays=stays))


def everywhere(find: Find) -> Mapping[str, Find]:
    """Return ``finds`` for a check that is the same on every database."""
    return dict.fromkeys(("postgresql", "mysql", "sqlite"), find)


@dataclass(frozen=True, slots=True)
class CheckResult:
    """The findings of one check; ``skipped`` is the reason if it could not be made."""

    check: DoctorCheck
    findings: list[DoctorFinding] = field(default_factory=list)
    skipped: str | None = None

    @property
    def healthy(self) -> bool:
        """Whether no finding is worse than a note."""
        return not any(finding.severity is not Severity.NOTE for finding in self.findings)


def how_many(items: Collection[object], one: str, more: str) -> str:
    """Return ``1 job is``, ``7 jobs are`` or, for more than MOST_NAMED items, ``more than 1000 jobs are``."""
    if len(items) > MOST_NAMED:
        return f"more than {MOST_NAMED:,} {more}"
    return f"1 {one}" if len(items) == 1 else f"{len(items):,} {more}"


def living(connection: Connection, terms: DoctorTerms, kind: str = "") -> list[Process]:
    """Return the processes whose heartbeat is younger than the threshold, only those of ``kind`` if it is named."""
    return [p for p in list_processes(connection) if p.is_alive(terms.threshold) and p.kind.startswith(kind)]


def fetch_rows(connection: Connection, query: str, **values: object) -> list[Any]:
    """Return the rows of a query in the SQL of one kind of database."""
    return list(connection.execute(text(query), values))


def judge_connections(used: int, most: int) -> Iterator[DoctorFinding]:
    """Warn before the last connection is taken: the next process to start may be the supervisor that prunes."""
    if used >= NEARLY_ALL * most:
        yield DoctorFinding(
            f"{used} of {most} connections are in use: a worker that gets none cannot beat, and is pruned as dead",
            "lower pools and threads, put a pooler in between, or raise max_connections",
            Severity.WARNING,
        )


def judge_notifying(commits: float, waiting: int, *, triggered: bool) -> Iterator[DoctorFinding]:
    """Warn of ``commits`` a second that enqueue, if the trigger notifies for each, or of ``waiting`` ones that notify.

    The server makes transactions that notify durable one by one.
    """
    several = "enqueue several jobs in one transaction"
    if triggered and (commits >= MANY_NOTIFYING or waiting >= MANY_WAITING):
        yield DoctorFinding(
            f"about {commits:.0f} transactions a second enqueue, {waiting} wait to notify: the trigger of jq init "
            "--notify makes each wait for the commit of the one before",
            f"jq init --no-notify: workers then find new jobs when they poll, every 0.1 s; or {several}",
            Severity.WARNING,
        )
    elif waiting >= MANY_WAITING:
        yield DoctorFinding(
            f"{waiting} transactions wait to notify, each for the commit of the one before: those of Python that "
            "enqueue among other statements, or other programs'",
            f"{several}, or in none: a job's enqueue() in Python leaves the notice to others that send one at the time",
            Severity.WARNING,
        )


def judge_deadlocks(deadlocks: int, seconds: float | None) -> Iterator[DoctorFinding]:
    """Judge how many deadlocks a server counted in so many seconds; None: nobody knows since when it counts."""
    advice = (
        "READ COMMITTED for every connection of the queue (on MySQL), and transactions of the application that are "
        "short and enqueue last; the server's log names the statements"
    )
    if seconds is None:
        if deadlocks >= MANY_DEADLOCKS:
            yield DoctorFinding(
                f"the server counted {deadlocks} deadlocks in this database, since an unknown time",
                f"{advice}. SELECT pg_stat_reset() starts the count anew",
                Severity.NOTE,
            )
        return
    hourly = deadlocks / max(seconds / 3600, 1.0)
    if hourly >= 1:
        yield DoctorFinding(
            f"{hourly:.0f} deadlocks an hour ({deadlocks} in {spell_duration(timedelta(seconds=seconds))}): the server "
            "ends one of the two transactions, and who does not try again loses a job's ending or an enqueue",
            advice,
            Severity.WARNING if hourly >= MANY_HOURLY else Severity.NOTE,
        )
