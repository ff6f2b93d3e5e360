"""The report of an incident, as sections of plain blocks that ``report_markdown`` and ``report_html`` write."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, NamedTuple

from solidjq.durations import spell_duration
from solidjq.recovery.outcome import JobOutcome
from solidjq.text import count_of
from solidjq_cli.arguments import by_own_name, program_name
from solidjq_cli.columns.incidents import incident_detail_fields
from solidjq_cli.formats import plain
from solidjq_cli.incident_view import how_far
from solidjq_cli.timeline import Life, lives, span
from solidjq_cli.view import masked

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from solidjq.incidents.cause_rules import WeighedCause
    from solidjq.incidents.incidents import Incident
    from solidjq.ledger.positions import DeathPosition
    from solidjq.recovery.aftermath import Aftermath, JobAftermath
    from solidjq.recovery.verdicts import Decision

MOST_JOBS = 500  # in the table; the counts are of all
MOST_STACKS = 5


class Facts(NamedTuple):
    """Short labels, each with a sentence."""

    pairs: Sequence[tuple[str, str]]


class Table(NamedTuple):
    """Rows of cells; those of ``numbers`` are aligned to the right."""

    heads: Sequence[str]
    rows: Sequence[Sequence[str]]
    numbers: frozenset[int] = frozenset()


class Paragraph(NamedTuple):
    """A sentence or two."""

    text: str


class ToDo(NamedTuple):
    """Things to tick off."""

    items: Sequence[str]


class Code(NamedTuple):
    """Text as it was written."""

    text: str


class Timeline(NamedTuple):
    """Lives of processes and jobs, between two times."""

    lives: Sequence[Life]
    start: datetime
    end: datetime


Block = Facts | Table | Paragraph | ToDo | Code | Timeline


class Section(NamedTuple):
    """A part of the report with a title of its own."""

    title: str
    blocks: Sequence[Block]


class Report(NamedTuple):
    """A report: its title, its sections, and all that is known as data for ``-o json``."""

    title: str
    sections: Sequence[Section]
    data: object


def make(
    incident: Incident,
    aftermath: Aftermath,
    others: Sequence[WeighedCause],
    decisions: Sequence[Decision] | None,
    stood: Mapping[int, DeathPosition],
    *,
    database: str,
    now: datetime,
) -> Report:
    """Put the report together. ``decisions``: what a safe retry would do now with the jobs that are still failed.

    ``stood``: by failure, where long jobs stood. Passwords in texts of the database are masked, as on a screen;
    arguments of jobs are not in it.
    """
    sections = [
        Section("Summary", list(_summary(incident, aftermath, database, now))),
        Section("Timeline", [Timeline(list(lives(incident)), *span(incident))]),
        Section("Why", list(_why(incident, others))),
        Section("Jobs", [*_jobs(incident, aftermath, decisions), *_long_jobs(incident, decisions, stood)]),
        Section("What was done", [_operations(aftermath)]),
        Section("What is unknown", [_unknown(incident)]),
        *[Section("Last words", stacks) for stacks in [list(_last_words(incident))] if stacks],
        Section("Follow-ups", [ToDo(list(_follow_ups(incident, aftermath, decisions)))]),
    ]
    fields = incident_detail_fields({incident.name: decisions}, stood).columns
    data = {
        "database": database,
        "reported_at": now,
        **{column.name: column.value(incident) for column in fields},
        "jobs_now": [
            {"job_id": each.job.job_id, "outcome": each.outcome.value, "at": each.at, "again": each.again}
            for each in aftermath.jobs
        ],
        "operations": [
            {
                "operation_id": each.operation.id,
                "verb": each.operation.verb,
                "actor": each.operation.actor,
                "reason": each.operation.reason,
                "created_at": each.operation.created_at,
                "jobs": each.jobs,
            }
            for each in aftermath.operations
        ],
    }
    return Report(f"Incident {incident.name}: {incident.finding.words}", sections, plain(data))


def utc(time: datetime | None) -> str:
    """Write a time in full, in UTC: a report is read in other zones."""
    return "" if time is None else f"{time.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"


def _summary(incident: Incident, aftermath: Aftermath, database: str, now: datetime) -> Iterator[Block]:

    more = " or more" if incident.several else ""
    yield Paragraph(incident.finding.cause.meaning)
    processes = f"{len(incident.deaths):,}{more}{' on ' if incident.hosts else ''}{', '.join(incident.hosts)}"
    yield Facts(
        [
            ("Cause", incident.finding.words),
            ("Processes", processes),
            ("Jobs in flight", f"{len(aftermath.jobs):,} of {count_of(len(incident.classes), 'class')}"),
            ("Last sign of life", utc(incident.at)),
            ("Noticed", f"{utc(incident.noticed_at)}, {_delay(incident)}"),
            ("Jobs now", _counts(aftermath)),
            ("Database", database),
            ("Reported", utc(now)),
        ]
    )


def _delay(incident: Incident) -> str:
    delay = incident.noticed_at - incident.at
    return "at once" if delay < timedelta(seconds=1) else f"{spell_duration(delay)} later"


def _counts(aftermath: Aftermath) -> str:
    return ", ".join(f"{count:,} {_word(outcome)}" for outcome, count in aftermath.counts.items()) or "none"


def _word(outcome: JobOutcome) -> str:
    words = {
        JobOutcome.DIED: "failed by a death",
        JobOutcome.FAILED: "failed by an error",
        JobOutcome.GONE: "no longer there",
    }
    return words.get(outcome, outcome.value.replace("_", " "))


def _why(incident: Incident, others: Sequence[WeighedCause]) -> Iterator[Block]:
    finding = incident.finding
    yield Facts(
        [(f"Because ({finding.confidence})" if number == 0 else "", fact) for number, fact in enumerate(finding.used)]
        or [("Because", "no fact speaks for a cause")]
    )
    if incident.beside:
        yield Paragraph(
            "At the same moment: "
            + "; ".join(f"{other.name}, {other.words}, processes: {other.processes}" for other in incident.beside)
        )
    yield Table(
        ["What else it might be", "Speaks for it", "Looked for, not found"],
        [[each.cause.value, "; ".join(each.facts) or "nothing", "; ".join(each.absent)] for each in others],
    )


def _jobs(incident: Incident, aftermath: Aftermath, decisions: Sequence[Decision] | None) -> Iterator[Block]:
    by_job = {decision.job_id: decision for decision in decisions or ()}
    charged = {job.job_id for job in incident.charged_jobs} if incident.charged else set()
    yield Paragraph(
        "Charged: the job may have killed its process."
        if incident.charged
        else "None of these jobs is charged: the cause lies outside of them."
    )
    yield Table(
        ["Job", "Class", "Started", "Charged", "Now", "A safe retry"],
        [
            [
                str(each.job.job_id),
                each.job.class_name,
                utc(each.job.started_at),
                "yes" if each.job.job_id in charged else "no",
                _now(each),
                _decided(by_job.get(each.job.job_id)),
            ]
            for each in aftermath.jobs[:MOST_JOBS]
        ],
        frozenset({0}),
    )
    if (left := len(aftermath.jobs) - MOST_JOBS) > 0:
        yield Paragraph(f"And {left:,} more: {program_name()} incidents show {incident.name} -o json")


def _long_jobs(
    incident: Incident, decisions: Sequence[Decision] | None, stood: Mapping[int, DeathPosition]
) -> Iterator[Block]:
    if lines := list(how_far(incident, decisions or (), stood)):
        yield Facts([("Long jobs" if number == 0 else "", line) for number, line in enumerate(lines)])


def _now(each: JobAftermath) -> str:
    again = "again " if each.again else ""
    at = f", {utc(each.at)}" if each.at else ""
    return f"{again}{_word(each.outcome)}{at}"


def _decided(decision: Decision | None) -> str:
    if decision is None:
        return ""
    return "goes back to work" if decision.verdict.moves else f"{decision.verdict}: {decision.reason}"


def _operations(aftermath: Aftermath) -> Block:
    if not aftermath.operations:
        return Paragraph("No operation of this program has moved these jobs.")
    return Table(
        ["Operation", "When", "Who", "What", "Jobs of this incident", "Reason"],
        [
            [
                str(each.operation.id),
                utc(each.operation.created_at),
                each.operation.actor,
                masked(each.operation.command or each.operation.verb),
                f"{each.jobs:,}",
                masked(each.operation.reason or ""),
            ]
            for each in aftermath.operations
        ],
        frozenset({0, 4}),
    )


def _unknown(incident: Incident) -> Block:
    missing = incident.finding.missing
    return (
        Facts([("", fact) for fact in missing]) if missing else Paragraph("No evidence that would matter is missing.")
    )


def _last_words(incident: Incident) -> Iterator[Block]:
    stacks = [
        (death, str(death.evidence["last_words"])) for death in incident.deaths if death.evidence.get("last_words")
    ]
    for death, words in stacks[:MOST_STACKS]:
        yield Paragraph(f"Process {death.pid} on {death.hostname or 'an unknown host'}:")
        yield Code(masked(words))
    if (left := len(stacks) - MOST_STACKS) > 0:
        yield Paragraph(f"And {left:,} more in the data.")


def _follow_ups(incident: Incident, aftermath: Aftermath, decisions: Sequence[Decision] | None) -> Iterator[str]:

    yield by_own_name(incident.finding.advice)
    program, name = program_name(), incident.name
    going = sum(1 for decision in decisions or () if decision.verdict.moves)
    held = len(decisions or ()) - going
    if going:
        yield f"Put {count_of(going, 'job')} back to work: {program} retry --safe {name}"
    if held:
        yield f"Decide about {count_of(held, 'job')} that a safe retry holds back: {program} suspects"
    if waiting := sum(count for outcome, count in aftermath.counts.items() if outcome.open):
        yield f"See that {count_of(waiting, 'job')} that wait or run end well: {program} incidents report {name}"
    if incident.finding.missing:
        yield "Record what was missing this time, so that the next report knows more."
