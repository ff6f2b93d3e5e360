"""Incidents on a terminal: the list, and one of them with its cause, facts and next step before its picture."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from solidjq_cli import view
from solidjq_cli.ages import when
from solidjq_cli.arguments import by_own_name
from solidjq_cli.flow import short_hosts
from solidjq_cli.grid import Head, Names, Words
from solidjq_cli.render import Keyed, heading, lines, next_commands, page, paragraph, table

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from solidjq.incidents.incidents import Incident
    from solidjq.incidents.summaries import IncidentSummary
    from solidjq.ledger.positions import DeathPosition
    from solidjq.recovery.verdicts import Decision

MOST_LINES = 20  # of a crash's stack, and jobs that are held back
MOST_FACTS = 5
MOST_POSITIONS = 10  # long jobs of which it is said how far they were
PIPE_WIDTH = 100  # of a picture that no terminal limits
LABEL = "          "  # as wide as "because   "


def draw_list(incidents: Sequence[IncidentSummary], since: str) -> None:
    """Print incidents, a line each, with how many of their jobs are still failed."""
    from solidjq.text import count_of

    left = sum(1 for incident in incidents if incident.waiting)
    hosts = short_hosts({host for incident in incidents for host in incident.hosts})
    with page():
        heading(f"{count_of(len(incidents), 'incident')} since {since}, {left:,} with jobs that still wait")
        heads = [
            Head("INCIDENT"),
            Head("WHEN", right=True),
            Head("CAUSE", flows=True),
            Head("HOST", gives=True),
            Head("WAITING", right=True),
            Head("OF", right=True),
            Head("CLASSES", gives=True),
        ]
        table(
            heads,
            (
                Keyed(
                    incident.name,
                    [
                        incident.name,
                        when(incident.at),
                        Words(_cause(incident), "" if incident.finding.outside else "error"),
                        Names(tuple(hosts[host] for host in incident.hosts)),
                        f"{incident.waiting:,}",
                        f"{incident.size:,}",
                        Names(tuple(_by_count(incident))),
                    ],
                )
                for incident in incidents
            ),
        )
        first = next((incident.name for incident in incidents if incident.waiting), incidents[0].name)
        retry = ["retry --safe --dry-run"] * any(incident.waiting for incident in incidents)
        next_commands(f"incidents show {first}", "suspects", *retry)


def _cause(incident: IncidentSummary) -> str:
    """Return the cause, its doubt, and how many processes: ``killed (likely, 3 processes)``."""
    finding = incident.finding
    doubt = [] if finding.confidence.value in {"certain", "unknown"} else [finding.confidence.value]
    count = len(incident.deaths)
    several = [f"{count:,}{'+' if incident.several else ''} processes"] if count > 1 or incident.several else []
    beside = ", ".join((*doubt, *several))
    return f"{finding.cause.value} ({beside})" if beside else finding.cause.value


def _by_count(incident: IncidentSummary) -> list[str]:
    return [name for name, _ in incident.by_class.most_common()]


# -- one incident -----------------------------------------------------------------------------------------------------


def draw(
    incident: Incident,
    decisions: Sequence[Decision] | None,
    stood: Mapping[int, DeathPosition],
    *,
    first: bool = True,
) -> None:
    """Print an incident. ``decisions``: what a safe retry would do with its jobs that are still failed.

    ``stood``: by failure, where long jobs stood.
    """
    from solidjq.text import count_of

    finding = incident.finding
    more = " or more" if incident.several else ""
    jobs = count_of(incident.size, "job")
    hosts = f" on {', '.join(incident.hosts)}" if incident.hosts else ""
    one = len(incident.deaths) == 1 and not incident.several
    processes = f"{len(incident.deaths):,}{more} {'process' if one else 'processes'}"
    with page():
        if not first:
            paragraph("")
        _title(f"{incident.name}: {finding.words}: {processes} with {jobs}{hosts}, {_moment(incident)}")
        paragraph(finding.cause.meaning, style="" if finding.outside else "error")
        for label, text in _facts(incident):
            paragraph(text, label, LABEL)
        paragraph(by_own_name(finding.advice), "do        ")
        for text in _verdicts(decisions):
            paragraph(by_own_name(text), "retry     " if text[:1] != " " else LABEL)
        for text in how_far(incident, decisions or (), stood):
            paragraph(text, "progress  ", LABEL)
        _picture(incident)
        for line in _last_words(incident):
            paragraph(line)
        if decisions:
            moving = any(decision.verdict.moves for decision in decisions)
            held = any(not decision.verdict.moves for decision in decisions)
            next_commands(*[f"retry --safe {incident.name}"] * moving, *["suspects"] * held, f"history {incident.name}")


def _title(text: str) -> None:
    if view.for_people():
        heading(text)
    else:
        paragraph(text)


def _moment(incident: Incident) -> str:
    from datetime import UTC

    at, noticed = (time.astimezone(UTC) for time in (incident.at, incident.noticed_at))
    seen = "" if (noticed - at).total_seconds() < 1 else f", noticed at {noticed:%H:%M:%S}"
    return f"last sign at {at:%Y-%m-%d %H:%M:%S} UTC{seen}"


def _facts(incident: Incident) -> Iterator[tuple[str, str]]:
    """Yield the facts behind the finding, each with its label."""
    from solidjq.text import count_of

    finding = incident.finding
    yield from (("because   ", fact) for fact in finding.used[:MOST_FACTS])
    if (left := len(finding.used) - MOST_FACTS) > 0:
        yield "because   ", f"{count_of(left, 'more fact')} (-o json)"
    sure = Counter(each.confidence.value for each in incident.findings)
    if len(sure) > 1:
        yield "sure      ", ", ".join(f"{count_of(count, 'process')} {word}" for word, count in sure.most_common())
    yield from (("unknown   ", fact) for fact in finding.missing[:MOST_FACTS])
    for other in incident.beside:
        processes = count_of(other.processes, "process")
        yield "beside    ", f"{other.name}: {other.words}, {processes} at the same moment"


def _verdicts(decisions: Sequence[Decision] | None) -> Iterator[str]:
    from solidjq.text import count_of

    if decisions is None:
        yield "--safe cannot decide here; to see why: jq retry --safe --dry-run"
        return
    if not decisions:
        yield "none of its jobs is failed any more"
        return
    held = [decision for decision in decisions if not decision.verdict.moves]
    going = count_of(len(decisions) - len(held), "job")
    yield f"--safe: {going} would go back, {len(held):,} would be held back"
    for decision in held[:MOST_LINES]:
        yield f"  job {decision.job_id} {decision.candidate.class_name}: {decision.verdict}: {decision.reason}"
    if len(held) > MOST_LINES:
        yield f"  and {len(held) - MOST_LINES:,} more (-o json)"


def how_far(incident: Incident, decisions: Sequence[Decision], stood: Mapping[int, DeathPosition]) -> Iterator[str]:
    """Yield how far each long job was: ``job 7 Import: step import, cursor 5 (saved 2s before the death)``."""
    from solidjq.rails.error_text import Death

    failed = {decision.candidate.failure_id for decision in decisions}
    long_jobs = 0
    for death in incident.deaths:
        event = "the last heartbeat" if death.how is Death.PRUNED else "the death"
        for job in death.jobs:
            stands = stood.get(job.failure_id or 0)
            if stands is None or not stands.position.progress.started:
                continue
            long_jobs += 1
            if long_jobs <= MOST_POSITIONS:
                words = stands.position.progress.compared(stands.saved_at, death.silent_at, event)
                resumes = "; resumes there" if job.failure_id in failed else ""
                yield f"job {job.job_id} {job.class_name}: {words}{resumes}"
    if long_jobs > MOST_POSITIONS:
        yield f"{long_jobs - MOST_POSITIONS:,} more long jobs (-o json)"


def _picture(incident: Incident) -> None:
    from solidjq_cli.timeline import draw as draw_timeline

    lines(draw_timeline(incident, view.width() or PIPE_WIDTH))


def _last_words(incident: Incident) -> Iterator[str]:
    for death in incident.deaths:
        if words := death.evidence.get("last_words"):
            yield f"the last words of pid {death.pid} (all threads: -o json):"
            yield from _stack(str(words))


def _stack(words: str) -> list[str]:
    """Return the stack of the thread that crashed: the others only waited."""
    _, current, rest = words.partition("Current thread")
    stack = (current + rest).split("\n\n")[0] or words
    return [f"  {line}" for line in stack.splitlines()[:MOST_LINES]]
