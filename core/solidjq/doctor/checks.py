"""What a check is, and what it finds."""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from sqlalchemy import Connection, text

from solidjq.database.transactions import Database
from solidjq.ledger.operations import Operation
from solidjq.processes.heartbeat import ALIVE_THRESHOLD, Process, list_processes
from solidjq.queue.concurrency import Limits
from solidjq.rails.settings import RailsConfig

MOST_NAMED = 1000  # jobs or keys that one finding names


class Severity(StrEnum):
    """How bad a finding is."""

    ERROR = "error"  # work is lost, doubled, or stands still
    WARNING = "warning"  # it will hurt, or hurts already
    NOTE = "note"  # worth knowing; the queue is healthy all the same


@dataclass(frozen=True, slots=True, kw_only=True)
class DoctorTerms:
    """What the operator holds for normal. Times in seconds."""

    threshold: float = ALIVE_THRESHOLD  # a process silent for so long is dead
    long: float = 3600.0  # a claim or a wait of this length is worth a look
    patience: float = 10.0  # that one check may take
    limits: Limits = field(default_factory=dict)  # of the job classes whose code was imported
    application: RailsConfig | None = None  # the Rails application that was named


@dataclass(frozen=True, slots=True)
class DoctorFinding:
    """One thing that is not as it should be: ``what`` it is, and the command or step that mends it."""

    what: str
    fix: str
    severity: Severity = Severity.ERROR
    job_ids: tuple[int, ...] = ()
    subjects: frozenset[object] = frozenset()  # what it is about, to know it again at a second look


Look = Callable[[Connection, DoctorTerms], Iterable[DoctorFinding]]
Mend = Callable[[Database, DoctorTerms, Operation], int]  # returns how many rows it mended


@dataclass(frozen=True, slots=True, kw_only=True)
class DoctorCheck:
    """One question to the database.

    ``again``: what it finds may be a moment between two transactions of a program at work, so it is believed only if it
    is there at a second look. ``mend`` does what ``mends`` says; only what Solid Queue itself would do, or what changes
    nothing that could still run.
    """

    name: str
    asks: str  # what it looks for
    why: str  # why that matters
    fix: str  # what to do, in general
    looks: Mapping[str, Look]  # by SQLAlchemy's name of the database
    again: bool = False
    of_application: bool = False  # it compares the queue with the Rails application that is named
    mend: Mend | None = None
    mends: str = ""


def everywhere(look: Look) -> Mapping[str, Look]:
    """Ask the same on every database."""
    return dict.fromkeys(("postgresql", "mysql", "sqlite"), look)


@dataclass(frozen=True, slots=True)
class CheckResult:
    """What one check had to say; ``skipped`` says why it could not be asked."""

    check: DoctorCheck
    findings: list[DoctorFinding] = field(default_factory=list)
    skipped: str | None = None

    @property
    def healthy(self) -> bool:
        """Tell whether nothing was found that is worse than a note."""
        return not any(finding.severity is not Severity.NOTE for finding in self.findings)


def several(ids: Collection[object], one: str, more: str) -> str:
    """Count what a query limited to one more than MOST has returned: ``1 job is``, ``more than 1000 jobs are``."""
    if len(ids) > MOST_NAMED:
        return f"more than {MOST_NAMED} {more}"
    return f"1 {one}" if len(ids) == 1 else f"{len(ids)} {more}"


def living(connection: Connection, terms: DoctorTerms, kind: str = "") -> list[Process]:
    """Return the processes, or those of a kind, whose heartbeat is young enough."""
    return [p for p in list_processes(connection) if p.is_alive(terms.threshold) and p.kind.startswith(kind)]


MANY_BYTES = 256 * 2**20


NEARLY = 0.9


def fetch_rows(connection: Connection, query: str, **values: object) -> list[Any]:
    """Return the rows of a query that one kind of database understands."""
    return list(connection.execute(text(query), values))


def judge_connections(used: int, most: int) -> Iterator[DoctorFinding]:
    """Warn while a few connections are left: the next process to start could be the supervisor that prunes."""
    if used >= NEARLY * most:
        yield DoctorFinding(
            f"{used} of {most} connections are in use: soon workers cannot beat, and are pruned as dead",
            "lower pools and threads, put a pooler in between, or raise max_connections",
            Severity.WARNING,
        )
