"""Which fields each kind of thing has: the same names in every output and every command."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cache, lru_cache
from itertools import groupby
from operator import itemgetter
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, TypeVar, cast

from solidjq_cli import masking, view
from solidjq_cli.arguments import by_own_name

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from datetime import datetime

    from solidjq import Database
    from solidjq.database.standby import Standby
    from solidjq.doctor.checks import CheckResult, DoctorCheck, DoctorFinding
    from solidjq.incidents.causes import CauseFinding
    from solidjq.incidents.class_scores import ClassScore
    from solidjq.incidents.death_cases import JobStanding
    from solidjq.incidents.death_records import DeathRecord
    from solidjq.incidents.incidents import Incident
    from solidjq.incidents.job_scores import JobScore
    from solidjq.incidents.summaries import IncidentSummary
    from solidjq.incidents.suspects import Ranking
    from solidjq.ledger.history import Event
    from solidjq.ledger.operations import OperationView
    from solidjq.ledger.positions import DeathPosition
    from solidjq.ledger.stop_requests import StopRequest
    from solidjq.ledger.verification import ChainReport
    from solidjq.monitoring.levels import AlertRange, CheckReport, Measure
    from solidjq.processes.heartbeat import Process
    from solidjq.processes.pruning import PrunedProcess
    from solidjq.queue.failed import Failure
    from solidjq.queue.job_times import ClassTimes
    from solidjq.queue.jobs import JobView
    from solidjq.queue.keys import ConcurrencyKey, SlotHolder
    from solidjq.queue.overview import Queue
    from solidjq.queue.states import State
    from solidjq.rails.error_text import ErrorInfo
    from solidjq.recovery.bisect import TrialStanding
    from solidjq.recovery.outcome import OperationOutcome
    from solidjq.recovery.undo import UndoneJob
    from solidjq.recovery.verdicts import Decision, Verdict
    from solidjq.recovery.waiting import WaitingDecision
    from solidjq.settings.profiles import Profile
    from solidjq.status.report import Count, QueueStatus
    from solidjq_cli.effective import Setting

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Column(Generic[T]):
    """One field. ``title`` is its heading in a table; a field without one is left to the other outputs.

    How a table treats it where the terminal is narrow is described in ``grid``.
    """

    name: str
    value: Callable[[T], Any]
    title: str | None = None
    wide: bool = False  # gives: may be cut short on a terminal
    words: Callable[[T], Any] | None = None  # what a table shows instead of the value
    leaves: int = 0  # the order in which columns leave a narrow terminal, 1 first; 0 stays
    flows: bool = False  # sentences: never cut, broken between words
    style: Callable[[T], str | None] | None = None  # the colour of its cell; see view.styled
    extra: bool = False  # shown by -o wide alone
    least: int = 0  # cells that it keeps where it is cut; 0 for what all columns keep
    optional: bool = False  # leaves a table in which no row has it
    hosts: bool = False  # names of hosts, shown without the domain that all of them share

    @property
    def heading(self) -> str:
        """Its title, or one made of its name."""
        return self.name.replace("_", " ").upper() if self.title is None else self.title

    def told(self, item: T) -> Any:
        """Return what a person is shown of an item."""
        return self.value(item) if self.words is None else self.words(item)


@dataclass(frozen=True, slots=True)
class Fields(Generic[T]):
    """All fields of one kind of thing, and which ids ``-o ids`` prints for one."""

    columns: tuple[Column[T], ...]
    ids: Callable[[T], list[int]]

    def of(self, columns: Iterable[Column[T]]) -> Fields[T]:
        """Return these columns of it."""
        return replace(self, columns=tuple(columns))

    def shown(self, *, wide: bool) -> Fields[T]:
        """Return the columns of a table; ``wide``: with those that are shown where there is room for all."""
        return self.of(column for column in self.columns if column.title is not None or (wide and column.extra))


def _arguments() -> Callable[[str | None], Any]:
    """Return what shows a job's arguments; the mask is read at the first of them."""
    from solidjq.rails.active_job import shown_arguments  # noqa: PLC0415

    mask = cache(masking.mask)
    return lambda text: shown_arguments(text, mask())


def _progress(arguments: str | None, saved_at: datetime | None, failed_at: datetime | None, error: ErrorInfo) -> Any:
    """Return how far a long job got; for people in words."""
    from solidjq.rails.continuation import progress_of  # noqa: PLC0415

    progress = progress_of(arguments)
    if not progress.started:
        return None
    if view.for_people():
        return progress.described(saved_at, failed_at, error)
    return {**progress.to_record(), "saved_at": saved_at}


def failures() -> Fields[Failure]:
    """Fields of a failed job."""
    return Fields(
        (
            Column("job_id", lambda f: f.job_id, "JOB"),
            Column("class_name", lambda f: f.class_name, "CLASS", wide=True),
            Column("queue_name", lambda f: f.queue_name, "QUEUE", wide=True),
            Column("death", lambda f: f.error.death.value if f.error.death else None, "DEATH"),
            Column("failed_at", lambda f: f.failed_at, "FAILED"),
            Column("error_class", lambda f: f.error.exception_class, None),
            Column("error", lambda f: error_line(f.error), "ERROR", wide=True),
            Column("message", lambda f: f.error.message),
            Column("pid", lambda f: f.error.pid),
            Column("exit_status", lambda f: f.error.exit_status),
            Column("signal", lambda f: f.error.signal),
            Column("last_heartbeat_at", lambda f: f.error.last_heartbeat_at),
            Column("failure_id", lambda f: f.failure_id, extra=True),
            Column("active_job_id", lambda f: f.active_job_id, extra=True),
            Column("priority", lambda f: f.priority, extra=True),
            Column("enqueued_at", lambda f: f.enqueued_at, extra=True),
        ),
        lambda f: [f.job_id],
    )


def failure_details() -> Fields[Failure]:
    """Fields of a failed job, with its arguments and backtrace, which are too long for a list."""
    arguments = _arguments()
    return Fields(
        (
            *(column for column in failures().columns if column.name != "error"),
            Column("progress", lambda f: _progress(f.arguments, f.changed_at, f.failed_at, f.error)),
            Column("arguments", lambda f: arguments(f.arguments)),
            Column("backtrace", lambda f: list(f.error.backtrace)),
        ),
        lambda f: [f.job_id],
    )


def error_line(error: ErrorInfo) -> str:
    """Return the error in one short line, its class first: ``ProcessPrunedError: last heartbeat at ...``.

    Operators search for the class. The field ``message`` contains the full text.
    """
    if error.exception_class is None and error.message is None:
        return "(no error was recorded)"
    name = error.exception_class and error.exception_class.rsplit("::", 1)[-1]
    return ": ".join(part for part in (name, how_it_ended(error)) if part)


def how_it_ended(error: ErrorInfo) -> str | None:
    """Return how the process ended if the error says it, else the error's message."""
    if error.signal is not None:
        return f"pid {error.pid} was killed by signal {error.signal}"
    if error.exit_status is not None:
        return f"pid {error.pid} exited with status {error.exit_status}"
    if error.last_heartbeat_at is not None:
        return f"last heartbeat at {error.last_heartbeat_at:%Y-%m-%d %H:%M:%S} UTC"
    return error.message


def jobs(holders: Sequence[SlotHolder] = (), asked: Mapping[int, StopRequest] | None = None) -> Fields[JobView]:
    """Fields of a job in any state; ``holders``: jobs that hold slots of the concurrency keys of blocked jobs.

    ``asked``: the requests that running jobs stop, by job id.
    """
    arguments = _arguments()
    stops = {} if asked is None else {job_id: request.words for job_id, request in asked.items()}
    return Fields(
        (
            Column("job_id", lambda j: j.job_id, "JOB"),
            Column("class_name", lambda j: j.class_name, "CLASS", wide=True),
            Column("queue_name", lambda j: j.queue_name, "QUEUE", wide=True),
            Column("state", lambda j: _state(j.states), "STATE"),
            Column("active_job_id", lambda j: j.active_job_id),
            Column("priority", lambda j: j.priority, "PRIORITY"),
            Column("concurrency_key", lambda j: j.concurrency_key),
            Column("enqueued_at", lambda j: j.enqueued_at, "ENQUEUED"),
            Column("scheduled_at", lambda j: j.scheduled_at),
            Column("finished_at", lambda j: j.finished_at),
            Column("claimed_at", lambda j: j.claimed_at),
            Column("process_id", lambda j: j.process_id),
            Column("process_name", lambda j: j.process_name),
            Column("process_hostname", lambda j: j.process_hostname),
            Column("process_pid", lambda j: j.process_pid),
            Column("stop_requested", lambda j: stops.get(j.job_id)),
            Column("blocked_until", lambda j: j.blocked_until),
            Column("blocked_by", lambda j: _blocked_by(j, holders)),
            Column("failed_at", lambda j: j.failed_at),
            Column("error_class", lambda j: _parsed(j).exception_class),
            Column("message", lambda j: _parsed(j).message),
            Column("progress", lambda j: _progress(j.arguments, j.changed_at, j.failed_at, _parsed(j))),
            Column("arguments", lambda j: arguments(j.arguments)),
        ),
        lambda j: [j.job_id],
    )


def _blocked_by(job: JobView, holders: Sequence[SlotHolder]) -> list[Any]:
    """Return the jobs that hold the slots which a blocked job waits for; for people in words."""
    from solidjq.queue.states import State  # noqa: PLC0415

    if State.BLOCKED not in job.states:
        return []
    return [
        f"job {each.job_id} {each.class_name}, {each.state.value}"
        + (f" by pid {each.pid} on {each.hostname}" if each.pid else "")
        if view.for_people()
        else {
            "job_id": each.job_id,
            "class_name": each.class_name,
            "state": each.state.value,
            "since": each.since,
            "hostname": each.hostname,
            "pid": each.pid,
        }
        for each in holders
        if each.key == job.concurrency_key
    ]


def class_times() -> Fields[ClassTimes]:
    """Fields of how long the jobs of a class take, in seconds."""
    kinds = (("finished", "TOOK"), ("waiting", "WAITING"), ("waited", "WAITED"), ("running", "RUNNING"))
    return Fields(
        (
            Column("class_name", lambda t: t.class_name, "CLASS", wide=True),
            *(column for name, title in kinds for column in _percentiles(name, title)),
        ),
        lambda _: [],
    )


def _percentiles(name: str, title: str) -> Iterator[Column[ClassTimes]]:
    """Yield the columns of one kind of time; a table shows the three percentiles in one cell."""

    def part(which: str) -> Callable[[ClassTimes], Any]:
        return lambda times: getattr(getattr(times, name), which, None)

    def words(times: ClassTimes) -> str:
        found = getattr(times, name)
        return "-" if found is None else " ".join(_seconds(value) for value in found[1:])

    yield Column(f"{name}_jobs", part("times"), "DONE" if name == "finished" else None)
    yield Column(f"{name}_p50", part("p50"), title, words=words)
    yield Column(f"{name}_p95", part("p95"))
    yield Column(f"{name}_p99", part("p99"))


def _seconds(value: float) -> str:
    """Return seconds in three figures or so: ``0.012``, ``3.4``, ``82``, ``14m``."""
    from datetime import timedelta  # noqa: PLC0415

    from solidjq.durations import spell_duration  # noqa: PLC0415

    if value >= 100:  # noqa: PLR2004
        return spell_duration(timedelta(seconds=value))
    return f"{value:.0f}" if value >= 10 else f"{value:.1f}" if value >= 1 else f"{value:.3f}"  # noqa: PLR2004


def concurrency_keys() -> Fields[ConcurrencyKey]:
    """Fields of a concurrency key."""
    return Fields(
        (
            Column("concurrency_key", lambda k: k.key, "KEY", wide=True),
            Column("blocked", lambda k: k.blocked, "BLOCKED"),
            Column("claimed", lambda k: k.claimed, "CLAIMED"),
            Column("ready", lambda k: k.ready, "READY"),
            Column("free", lambda k: k.free, "FREE"),
            Column("limit", lambda k: k.limit, "LIMIT"),
            Column("oldest_blocked_at", lambda k: k.oldest_blocked_at, "OLDEST"),
            Column("expires_at", lambda k: k.expires_at),
        ),
        lambda _: [],
    )


def listed_jobs() -> Fields[JobView]:
    """Fields of a job in a list: what it waits for, or who has it, in words."""
    shown = {"job_id", "class_name", "queue_name", "state", "enqueued_at"}
    columns = tuple(
        column if column.name in shown else replace(column, title=None)
        for column in jobs().columns
        if column.name not in {"message", "blocked_by", "progress"}
    )
    return Fields((*columns, Column("detail", _standing(), "DETAIL", wide=True)), lambda j: [j.job_id])


def _standing() -> Callable[[JobView], str | None]:
    """Return what says what a job waits for, who has it, or how it failed."""
    from solidjq.queue.states import State  # noqa: PLC0415
    from solidjq_cli.ages import rfc3339, when  # noqa: PLC0415

    def standing(job: JobView) -> str | None:
        state = job.states[0] if job.states else None
        if state is State.FINISHED:  # most jobs of a long list
            return None
        if state is State.SCHEDULED and job.scheduled_at is not None:
            return f"due {(when if view.for_people() else rfc3339)(job.scheduled_at)}"
        if state is State.BLOCKED:
            return f"for {job.concurrency_key}"
        if state is State.CLAIMED:
            return f"pid {job.process_pid} on {job.process_hostname}" if job.process_pid else "its process is gone"
        if state is State.FAILED:
            return error_line(_parsed(job))
        return f"holds {job.concurrency_key}" if state is State.READY and job.concurrency_key else None

    return standing


@lru_cache(maxsize=64)  # the jobs of a list have few
def _state(states: tuple[State, ...]) -> str:
    return "+".join(state.value for state in states) or "none"


def _parsed(job: JobView) -> ErrorInfo:
    return _error(job.error)


@lru_cache(maxsize=1)  # several fields of a job are read from its error
def _error(text: str | None) -> ErrorInfo:
    from solidjq.rails.error_text import parse_error  # noqa: PLC0415

    return parse_error(text)


def processes(threshold: float, standby: Standby | None) -> Fields[Process]:
    """Fields of a process. On a standby, it is unknown whether a silent process is alive."""
    return Fields(
        (
            Column("process_id", lambda p: p.id, "ID"),
            Column("kind", lambda p: p.kind, "KIND", wide=True),
            Column("name", lambda p: p.name, "NAME", wide=True),
            Column("hostname", lambda p: p.hostname, "HOST", wide=True),
            Column("pid", lambda p: p.pid, "PID"),
            Column("supervisor_id", lambda p: p.supervisor_id, "PARENT"),
            Column("alive", lambda p: p.life(threshold, standby), "ALIVE"),
            Column("last_heartbeat_at", lambda p: p.last_heartbeat_at, "BEAT"),
            Column("heartbeat_age", lambda p: p.heartbeat_age),
            Column("claimed", lambda p: p.claimed, "JOBS"),
            Column("queues", polled, "QUEUES", wide=True),
            Column("created_at", lambda p: p.created_at),
            Column("metadata", lambda p: _json(p.metadata)),
        ),
        lambda p: [p.id],
    )


def polled(process: Process) -> str | None:
    """Return the queues that a worker polls, in words; None for other processes."""
    from solidjq.processes.attendance import polled_by  # noqa: PLC0415

    return polled_by(process).describe() if process.kind == "Worker" else None


def queues() -> Fields[Queue]:
    """Fields of a queue."""
    return Fields(
        (
            Column("queue_name", lambda q: q.name, "QUEUE", wide=True),
            Column("paused", lambda q: q.paused, "PAUSED"),
            Column("ready", lambda q: q.ready, "READY"),
            Column("claimed", lambda q: q.claimed, "CLAIMED"),
            Column("scheduled", lambda q: q.scheduled, "SCHEDULED"),
            Column("blocked", lambda q: q.blocked, "BLOCKED"),
            Column("oldest_ready_at", lambda q: q.oldest_ready_at, "OLDEST"),
            Column("latency", lambda q: q.latency),
        ),
        lambda _: [],
    )


def pruned() -> Fields[PrunedProcess]:
    """Fields of a process that a prune removed, or would remove."""
    return Fields(
        (
            Column("process_id", lambda p: p.process_id, "ID"),
            Column("kind", lambda p: p.kind, "KIND", wide=True),
            Column("name", lambda p: p.name, "NAME", wide=True),
            Column("hostname", lambda p: p.hostname, "HOST", wide=True),
            Column("pid", lambda p: p.pid, "PID"),
            Column("last_heartbeat_at", lambda p: p.last_heartbeat_at, "BEAT"),
            Column("failed", lambda p: len(p.job_ids), "FAILED JOBS"),
            Column("job_ids", lambda p: p.job_ids),
        ),
        lambda p: p.job_ids,
    )


def decisions() -> Fields[Decision]:
    """Fields of one job's verdict."""
    return Fields(
        (
            Column("job_id", lambda d: d.job_id, "JOB"),
            Column("class_name", lambda d: d.candidate.class_name, "CLASS", wide=True),
            Column("queue_name", lambda d: d.candidate.queue_name, "QUEUE", wide=True),
            Column("verdict", lambda d: d.verdict.value, "VERDICT"),
            Column("state", _next_state, "STATE"),
            Column("reason", lambda d: d.reason, "REASON", wide=True),
            Column("queue_as", lambda d: d.queue_as),
            Column("crashes", lambda d: len(d.candidate.crashes)),
            Column("progress", _resumption),
            Column("death", lambda d: d.candidate.death and d.candidate.death.value),
            Column("failed_at", lambda d: d.candidate.failed_at),
            Column("failure_id", lambda d: d.candidate.failure_id),
            Column("active_job_id", lambda d: d.candidate.active_job_id),
        ),
        lambda d: [d.job_id],
    )


def _resumption(decision: Decision) -> Any:
    """Return how far a long job is; for people in words."""
    from solidjq.ledger.crashes import parse_evidence  # noqa: PLC0415

    candidate, stands = decision.candidate, decision.candidate.stands
    if stands is None or not view.for_people():
        return _progress_of(stands)
    error = parse_evidence(candidate.evidence)
    return stands.position.progress.described(stands.saved_at, candidate.failed_at, error) or None


def _next_state(decision: Decision) -> str:
    """Name the state that the job goes to, or stays in."""
    if decision.verdict.value == "discard":
        return "gone"
    if not decision.verdict.moves:
        return "failed"
    return "scheduled" if decision.scheduled else "ready"


def waiting_decisions() -> Fields[WaitingDecision]:
    """Fields of what was decided on one job that waits."""
    return Fields(
        (
            Column("job_id", lambda d: d.job.job_id, "JOB"),
            Column("class_name", lambda d: d.job.class_name, "CLASS", wide=True),
            Column("queue_name", lambda d: d.job.queue_name, "QUEUE", wide=True),
            Column("state", lambda d: _state(d.job.states), "STATE"),
            Column("moves", lambda d: d.moves, "MOVES"),
            Column("reason", lambda d: d.reason, "WHY NOT", wide=True),
            Column("concurrency_key", lambda d: d.job.concurrency_key),
            Column("active_job_id", lambda d: d.job.active_job_id),
        ),
        lambda d: [d.job.job_id] if d.moves else [],
    )


class WaitingGroup(NamedTuple):
    """Jobs of one class, queue and state with the same decision."""

    reason: str | None
    class_name: str
    queue_name: str
    state: str
    jobs: int


def waiting_groups() -> Fields[WaitingGroup]:
    """Fields of a group of waiting jobs with the same decision."""
    return Fields(
        (
            Column("moves", lambda g: g.reason is None, "MOVES"),
            Column("jobs", lambda g: g.jobs, "JOBS"),
            Column("class_name", lambda g: g.class_name, "CLASS", wide=True),
            Column("queue_name", lambda g: g.queue_name, "QUEUE", wide=True),
            Column("state", lambda g: g.state, "STATE"),
            Column("reason", lambda g: g.reason, "WHY NOT", wide=True),
        ),
        lambda _: [],
    )


class VerdictGroup(NamedTuple):
    """Jobs of one class and queue with the same verdict."""

    verdict: Verdict
    class_name: str
    queue_name: str
    jobs: int


def groups() -> Fields[VerdictGroup]:
    """Fields of a group of jobs: one class and queue, one verdict."""
    return Fields(
        (
            Column("verdict", lambda g: g.verdict.value, "VERDICT"),
            Column("jobs", lambda g: g.jobs, "JOBS"),
            Column("class_name", lambda g: g.class_name, "CLASS", wide=True),
            Column("queue_name", lambda g: g.queue_name, "QUEUE", wide=True),
            Column("meaning", lambda g: g.verdict.meaning, "THE JOB", wide=True),
        ),
        lambda _: [],
    )


def operations() -> Fields[OperationView]:
    """Fields of a recorded operation."""
    return Fields(
        (
            Column("operation_id", lambda o: o.id, "ID"),
            Column("created_at", lambda o: o.created_at, "WHEN"),
            Column("verb", lambda o: o.verb, "VERB"),
            Column("actor", lambda o: o.actor, "WHO", wide=True),
            Column("jobs", lambda o: o.jobs, "JOBS"),
            Column("restored", lambda o: o.restored, "TAKEN BACK"),
            Column("reason", lambda o: o.reason, "REASON", wide=True),
            Column("database_role", lambda o: o.database_role, "ROLE", wide=True),
            Column("ci_job", lambda o: o.ci_job, "CI JOB", wide=True),
            Column("command", lambda o: o.command),
            Column("selection", lambda o: _json(o.chosen)),
            Column("verdicts", lambda o: _json(o.verdicts)),
            Column("plan", lambda o: o.plan),
            Column("ended_at", lambda o: o.ended_at),
        ),
        lambda o: [o.id],
    )


MESSAGE = (
    *("id", "kind", "name", "at", "database", "title", "incident", "cause", "confidence", "error", "hosts", "deaths"),
    *("processes", "follows"),
    *("jobs", "jobs_total", "classes", "held_back", "next"),
)


def watched() -> Fields[dict[str, Any]]:
    """Fields of a message of ``jq watch``: those that webhooks and programs get, too."""
    return Fields(
        tuple(Column(name, itemgetter(name)) for name in MESSAGE),
        lambda message: [job["job_id"] for job in message["jobs"]],
    )


def chain(*, spoken: bool) -> Fields[ChainReport]:
    """Fields of a verification of the record; ``spoken`` for people: breaks in words, and no counts beside lists."""
    for_scripts: tuple[Column[ChainReport], ...] = (
        Column("unsealed_count", lambda r: r.unsealed_count),
        Column("broken", lambda r: r.broken),
        Column("breaks", lambda r: [broken._asdict() for broken in r.breaks]),
    )
    for_people: tuple[Column[ChainReport], ...] = (Column("breaks", lambda r: [broken.words for broken in r.breaks]),)
    return Fields(
        (
            Column("whole", lambda r: r.whole),
            Column("links", lambda r: r.links),
            Column("since", lambda r: r.since),
            Column("last_operation", lambda r: r.last_operation),
            Column("last_hash", lambda r: r.last_hash),
            Column("expected_operation", lambda r: r.expected_operation),
            Column("unsealed", lambda r: [str(number) for number in r.unsealed] if spoken else r.unsealed),
            *(for_people if spoken else for_scripts),
        ),
        lambda r: [broken.operation_id for broken in r.breaks if broken.operation_id is not None],
    )


def _json(text: str | None) -> Any:
    """Return stored JSON as data; text that is none as it is."""
    from solidjq.untrusted import read_json  # noqa: PLC0415

    value = read_json(text)
    return text if value is None else value


def undone() -> Fields[UndoneJob]:
    """Fields of a job that an undo took back or left."""
    return Fields(
        (
            Column("job_id", lambda u: u.job_id, "JOB"),
            Column("class_name", lambda u: u.class_name, "CLASS", wide=True),
            Column("queue_name", lambda u: u.queue_name, "QUEUE", wide=True),
            Column("restored", lambda u: u.restored, "TAKEN BACK"),
            Column("reason", lambda u: u.reason, "WHY NOT", wide=True),
        ),
        lambda u: [u.job_id] if u.restored else [],
    )


def events() -> Fields[Event]:
    """Fields of an event in a job's life."""
    return Fields(
        (
            Column("at", lambda e: e.at, "WHEN"),
            Column("job_id", lambda e: e.job_id, "JOB"),
            Column("event", lambda e: e.event, "EVENT"),
            Column("detail", lambda e: e.detail, "DETAIL", wide=True),
            Column("operation_id", lambda e: e.operation_id, "OPERATION"),
            Column("actor", lambda e: e.actor, "WHO", wide=True),
        ),
        lambda e: [e.job_id],
    )


def incidents() -> Fields[Any]:
    """Fields of an incident: of an ``Incident`` or an ``IncidentSummary``."""
    return Fields(
        (
            Column("incident", lambda i: i.name, "INCIDENT"),
            Column("at", lambda i: i.at, "LAST SIGN"),
            Column("cause", lambda i: i.finding.cause.value, "CAUSE"),
            Column("confidence", lambda i: i.finding.confidence.value, "SURE", leaves=2),
            Column("processes", lambda i: len(i.deaths), "PROCESSES", words=_process_count, leaves=1),
            Column("jobs", lambda i: i.size, "JOBS"),
            Column("hosts", lambda i: i.hosts, "HOSTS", wide=True),
            Column("classes", lambda i: i.classes, "CLASSES", wide=True),
            Column("noticed_at", lambda i: i.noticed_at),
            Column("charged", lambda i: i.charged),
            Column("processes_exact", lambda i: not i.several),
            Column("beside", lambda i: [neighbour.name for neighbour in i.beside]),
        ),
        lambda i: i.job_ids,
    )


def _process_count(incident: Incident | IncidentSummary) -> str:
    return f"{len(incident.deaths)}{' or more' if incident.several else ''}"


def incident_details(
    verdicts: Mapping[str, Sequence[Decision] | None], stood: Mapping[int, DeathPosition]
) -> Fields[Incident]:
    """Fields of an incident, with all evidence, and what a safe retry would do with the jobs of each incident.

    ``stood``: by failure, where long jobs stood.
    """
    return Fields(
        (
            *incidents().columns,
            Column("facts", lambda i: list(i.finding.used)),
            Column("missing", lambda i: list(i.finding.missing)),
            Column("next", lambda i: by_own_name(i.finding.advice)),
            Column("job_ids", lambda i: i.job_ids),
            Column("retry_safe", lambda i: _verdicts(verdicts[i.name])),
            Column("deaths", lambda i: [_death(death, finding, stood) for death, finding in i.pairs]),
        ),
        lambda i: i.job_ids,
    )


def _verdicts(decisions: Sequence[Decision] | None) -> list[dict[str, Any]] | None:
    return None if decisions is None else list(map(_verdict, decisions))


def _verdict(decision: Decision) -> dict[str, Any]:
    return {"job_id": decision.job_id, "verdict": decision.verdict.value, "reason": decision.reason}


def _death(death: DeathRecord, finding: CauseFinding, stood: Mapping[int, DeathPosition]) -> dict[str, Any]:
    return {
        "death": death.name,
        "source": death.source.value,
        "how": death.how.value,
        "cause": finding.cause.value,
        "confidence": finding.confidence.value,
        "facts": list(finding.used),
        "missing": list(finding.missing),
        "charged": not finding.outside,
        "next": by_own_name(finding.advice),
        "kind": death.kind,
        "name": death.process_name,
        "hostname": death.hostname,
        "pid": death.pid,
        "process_id": death.process_id,
        "supervisor_id": death.supervisor_id,
        "started_at": death.started_at,
        "last_heartbeat_at": death.last_heartbeat_at,
        "noticed_at": death.noticed_at,
        "exit_status": death.exit_status,
        "signal": death.signal,
        "evidence": dict(death.evidence),
        "jobs": [
            {
                "job_id": job.job_id,
                "class_name": job.class_name,
                "failure_id": job.failure_id,
                "started_at": job.started_at,
                "growth": job.growth,
                "progress": _progress_of(stood.get(job.failure_id or 0)),
            }
            for job in death.jobs
        ],
    }


def _progress_of(stands: DeathPosition | None) -> dict[str, object] | None:
    """Return how far a long job was, as programs get it; None if it had begun no step."""
    if stands is None or not stands.position.progress.started:
        return None
    return {**stands.position.progress.to_record(), "saved_at": stands.saved_at}


class Suspect(NamedTuple):
    """A class with its score, or a job, or several jobs with one score."""

    kind: str
    score: JobScore | ClassScore

    @property
    def size(self) -> int:
        """How many it is."""
        return int(getattr(self.score, "count", 1))

    @property
    def job_ids(self) -> list[int]:
        """The jobs of the subject; none of a class."""
        return list(getattr(self.score, "job_ids", ()))

    @property
    def lowest(self) -> float:
        """The lowest id of its jobs; infinite of a class."""
        crowd = getattr(self.score, "crowd", None)
        return min(self.job_ids, default=math.inf) if crowd is None else crowd.lowest


def suspects_of(ranking: Ranking, *standings: JobStanding) -> Iterator[Suspect]:
    """Yield the classes with these standings, then the jobs."""
    yield from (Suspect("class", score) for score in ranking.classes if score.standing in standings)
    yield from (Suspect("job", score) for score in ranking.jobs.standing(*standings))


def suspects_apart(database: Database, suspects: Iterable[Suspect]) -> Iterator[Suspect]:
    """Yield each of these classes, and of the jobs each by itself; those with one score are read in batches."""
    from solidjq.incidents.charges import each_job  # noqa: PLC0415

    for kind, of_kind in groupby(suspects, key=lambda suspect: suspect.kind):
        if kind == "class":
            yield from of_kind
        else:
            scores = each_job(database, (cast("JobScore", suspect.score) for suspect in of_kind))
            yield from (Suspect(kind, score) for score in scores)


def _stuck_at(suspect: Suspect) -> dict[str, object] | None:
    position = getattr(suspect.score, "position", None)
    return None if position is None else position.to_record()


def suspects() -> Fields[Suspect]:
    """Fields of a suspect."""
    return Fields(
        (
            Column("standing", lambda s: s.score.standing.value, "STANDING"),
            Column("kind", lambda s: s.kind, "KIND"),
            Column("name", lambda s: s.score.name, "NAME", wide=True),
            Column("class_name", lambda s: getattr(s.score, "class_name", s.score.name)),
            Column("deaths", lambda s: s.score.deaths, "DEATHS"),
            Column("alone", lambda s: s.score.alone, "ALONE"),
            Column("score", lambda s: round(s.score.score, 2), "SCORE"),
            Column("reasons", lambda s: s.score.reasons, "WHY", wide=True),
            Column("job_ids", lambda s: s.job_ids),
            Column("position", _stuck_at),
        ),
        lambda s: s.job_ids,
    )


def bisections() -> Fields[TrialStanding]:
    """Fields of a bisect's progress."""
    return Fields(
        (
            Column("stage", lambda b: b.stage.value, "STAGE"),
            Column("suspects", lambda b: list(b.suspects), "SUSPECTS", wide=True),
            Column("deaths", lambda b: b.deaths, "DEATHS"),
            Column("on_trial", lambda b: list(b.on_trial)),
            Column("waiting", lambda b: list(b.waiting)),
            Column("died", lambda b: list(b.died)),
            Column("operation_id", lambda b: b.operation_id, "OPERATION"),
        ),
        lambda b: list(b.suspects),
    )


class PolicySetting(NamedTuple):
    """One key of a class's retry policy."""

    class_name: str
    key: str
    value: Any
    source: str


def effective_settings() -> Fields[Setting]:
    """Fields of a setting of the command line."""
    from solidjq.text import mask_secrets  # noqa: PLC0415

    return Fields(
        (
            Column("name", lambda s: s.name, "SETTING"),
            Column(
                "value", lambda s: mask_secrets(s.value) if isinstance(s.value, str) else s.value, "VALUE", wide=True
            ),
            Column("source", lambda s: s.source, "FROM", wide=True),
        ),
        lambda _: [],
    )


class ConfigFile(NamedTuple):
    """A settings file, and what it may do."""

    path: str
    standing: str


def config_files() -> Fields[ConfigFile]:
    """Fields of a settings file."""
    return Fields(
        (
            Column("path", lambda f: f.path, "FILE", wide=True),
            Column("standing", lambda f: f.standing, "STANDING", wide=True),
        ),
        lambda _: [],
    )


def profiles() -> Fields[Profile]:
    """Fields of a named database."""
    from solidjq.text import mask_secrets  # noqa: PLC0415

    return Fields(
        (
            Column("name", lambda p: p.name, "PROFILE"),
            Column("database", lambda p: p.database and mask_secrets(p.database), "DATABASE", wide=True),
            Column("rails", lambda p: p.rails and str(p.rails), "RAILS", wide=True),
            Column("env", lambda p: p.env, "ENV"),
            Column("schema", lambda p: p.schema, "SCHEMA"),
            Column("table_prefix", lambda p: p.table_prefix, "PREFIX"),
            Column("alive_threshold", lambda p: p.alive_threshold, "THRESHOLD"),
            Column("read_only", lambda p: p.read_only, "READ-ONLY"),
            Column("confirm", lambda p: p.confirm, "CONFIRM"),
        ),
        lambda _: [],
    )


def policies() -> Fields[PolicySetting]:
    """Fields of one key of a class's retry policy."""
    return Fields(
        (
            Column("class_name", lambda s: s.class_name, "CLASS", wide=True),
            Column("key", lambda s: s.key, "KEY"),
            Column("value", lambda s: s.value, "VALUE"),
            Column("source", lambda s: s.source, "FROM", wide=True),
        ),
        lambda _: [],
    )


def status() -> Fields[QueueStatus]:
    """Fields of a queue's status. What took too long to count is null; ``..._exact`` false means so many or more."""

    def number(name: str) -> Column[QueueStatus]:
        def value(status: QueueStatus) -> int | None:
            found: Count | None = getattr(status, name)
            return None if found is None else found.number

        return Column(name, value, name.upper())

    def exact(name: str) -> Column[QueueStatus]:
        def value(status: QueueStatus) -> bool | None:
            found: Count | None = getattr(status, name)
            return None if found is None else found.exact

        return Column(f"{name}_exact", value, f"{name.upper()} EXACT")

    return Fields(
        (
            Column("at", lambda s: s.at, "AT"),
            Column("engine", lambda s: None if s.product is None else s.product.name),
            Column("engine_version", lambda s: None if s.product is None else s.product.version),
            Column("solid_queue", lambda s: None if s.product is None else s.product.tables),
            Column("alive", lambda s: dict(s.alive)),
            Column("silent", lambda s: list(map(_silent, s.silent))),
            number("failed"),
            number("died"),
            number("incidents"),
            Column("errors", lambda s: s.errors, "ERRORS"),
            number("problems"),
            Column("new_died", lambda s: s.new_died, "NEW DIED"),
            Column("new_errors", lambda s: s.new_errors, "NEW ERRORS"),
            *map(exact, ("failed", "died", "incidents", "problems")),
            Column("queues", lambda s: None if s.queues is None else list(map(_queue, s.queues))),
            Column("last_operation", lambda s: None if s.last is None else _operation(*s.last)),
        ),
        lambda _: [],
    )


def _silent(process: Process) -> dict[str, Any]:
    names = ("process_id", "kind", "name", "hostname", "pid", "last_heartbeat_at", "heartbeat_age", "claimed")
    return {name: getattr(process, "id" if name == "process_id" else name) for name in names}


def _queue(queue: Queue) -> dict[str, Any]:
    return {column.name: column.value(queue) for column in queues().columns}


def _operation(operation: OperationView, outcome: OperationOutcome | None) -> dict[str, Any]:
    shown = {"operation_id", "created_at", "verb", "actor", "jobs", "restored", "reason"}
    record = {column.name: column.value(operation) for column in operations().columns if column.name in shown}
    counts = None if outcome is None else {each.value: count for each, count in outcome.counts.items()}
    return {**record, "outcome": counts}


class CheckRow(NamedTuple):
    """A check and one of its findings; None if the check found nothing or was skipped."""

    result: CheckResult
    finding: DoctorFinding | None

    @property
    def status(self) -> str:
        """The check's status in one word."""
        if self.finding is not None:
            return self.finding.severity.value
        return "skipped" if self.result.skipped is not None else "healthy"


def _own(text: str | None) -> str | None:
    return None if text is None else by_own_name(text)


class MeasureRow(NamedTuple):
    """One value of a check, or a check that measured nothing."""

    report: CheckReport
    measure: Measure | None


def measures() -> Fields[MeasureRow]:
    """Fields of what jq check measured."""
    return Fields(
        (
            Column("check", lambda r: r.report.check, "CHECK"),
            Column("status", lambda r: r.report.level.value if r.measure is None else r.measure.level.value, "STATUS"),
            Column("subject", lambda r: None if r.measure is None else r.measure.label, "SUBJECT", wide=True),
            Column("value", lambda r: None if r.measure is None else r.measure.value, "VALUE"),
            Column("unit", lambda r: None if r.measure is None else r.measure.unit or None, "UNIT"),
            Column("warning", lambda r: _bound(None if r.measure is None else r.measure.warn), "WARNING"),
            Column("critical", lambda r: _bound(None if r.measure is None else r.measure.crit), "CRITICAL"),
            Column("text", lambda r: r.report.summary if r.measure is None else r.measure.text, "TEXT", flows=True),
            Column("summary", lambda r: r.report.text),
        ),
        lambda _: [],
    )


def _bound(bound: AlertRange | None) -> str | None:
    return None if bound is None else bound.text


def examined() -> Fields[CheckRow]:
    """Fields of a finding of ``jq doctor``, or of a check without findings."""
    return Fields(
        (
            Column("check", lambda e: e.result.check.name, "CHECK"),
            Column("status", lambda e: e.status, "STATUS"),
            Column("finding", lambda e: _own(e.finding.what if e.finding else e.result.skipped), "FINDING"),
            Column("fix", lambda e: _own(e.finding.advice if e.finding else None), "FIX"),
            Column("fixable", lambda e: bool(e.finding and e.result.check.fix)),
            Column("job_ids", lambda e: list(e.finding.job_ids) if e.finding else []),
            Column("asks", lambda e: e.result.check.asks),
            Column("why", lambda e: e.result.check.why),
        ),
        lambda e: list(e.finding.job_ids) if e.finding else [],
    )


def checks() -> Fields[DoctorCheck]:
    """Fields of a check that ``jq doctor`` can make."""
    return Fields(
        (
            Column("check", lambda c: c.name, "CHECK"),
            Column("databases", lambda c: list(c.finds), "DATABASES"),
            Column("asks", lambda c: c.asks, "ASKS", wide=True),
            Column("why", lambda c: c.why),
            Column("fix", lambda c: c.advice),
            Column("mends", lambda c: c.fixes or None),
        ),
        lambda _: [],
    )
