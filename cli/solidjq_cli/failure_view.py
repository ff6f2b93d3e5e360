"""Failed jobs on a terminal, each with what is known about it: its death, its crashes, its life, what to do next."""

from __future__ import annotations

import json
from datetime import UTC
from typing import TYPE_CHECKING, Any

from solidjq_cli.ages import since
from solidjq_cli.arguments import by_own_name
from solidjq_cli.columns.failures import failure_detail_fields, how_it_ended
from solidjq_cli.render import heading, next_commands, page, paragraph

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from datetime import datetime, timedelta

    from solidjq.ledger.history import Event
    from solidjq.queue.failed import Failure
    from solidjq.recovery.dossiers import Dossier

LABEL = 10
MOST_EVENTS = 5


def draw(dossiers: Iterable[Dossier], *, full: bool) -> None:
    """Print failed jobs; ``full``: with the frames of libraries, too."""
    with page():
        for number, dossier in enumerate(dossiers):
            if number:
                paragraph("")
            _draw(dossier, full=full)


def _draw(dossier: Dossier, *, full: bool) -> None:
    failure = dossier.failure
    at = "" if failure.failed_at is None else f", failed {since(failure.failed_at)}"
    heading(f"{failure.job_id}  {failure.class_name}{at}")
    paragraph(_error(dossier), style="error")
    for label, text in _facts(dossier):
        paragraph(by_own_name(text), f"{label:<{LABEL}}")
    for number, line in enumerate(_backtrace(failure, full=full)):
        paragraph(line, f"{'' if number else 'backtrace':<{LABEL}}")
    next_commands(*_next(dossier))


def _error(dossier: Dossier) -> str:
    """Say how the process ended, or with which error the job failed."""
    error, death = dossier.failure.error, dossier.death
    if error.death is None:
        parts = (error.exception_class, error.message)
        return ": ".join(part for part in parts if part) or "no error was recorded"
    name = (error.exception_class or "").rsplit("::", 1)[-1]
    host = "" if death is None or not death.hostname else f" on {death.hostname}"
    pid = f" (pid {death.pid}{host})" if error.pid is None and death is not None and death.pid is not None else host
    began = None if dossier.claim is None or death is None else dossier.claim.started_at
    ran = f", {_seconds(death.silent_at - began)} after the job began" if began is not None and death else ""
    return f"{name}: {how_it_ended(error)}{pid}{ran}"


def _facts(dossier: Dossier) -> Iterator[tuple[str, str]]:
    failure = dossier.failure
    if dossier.incident is not None:
        yield "incident", f"{dossier.incident.name}: {dossier.incident.finding.words}"
    if (count := dossier.crashes) is not None:
        from solidjq.durations import spell_duration

        yield "crashes", f"{count.crashes} of {count.most} within {spell_duration(count.window)}"
    if (decision := dossier.decision) is not None:
        moves = decision.verdict.moves
        reason = f": {decision.reason}" if decision.reason else ""
        yield "safe?", f"yes, jq retry --safe takes it{reason}" if moves else f"no, {decision.verdict.value}{reason}"
    yield "queue", f"{failure.queue_name}, priority {failure.priority}{_waited(failure)}"
    if failure.active_job_id:
        yield "job", f"Active Job id {failure.active_job_id}"
    if progress := _progress(failure):
        yield "progress", progress
    yield "arguments", _arguments(failure)
    for number, event in enumerate(_before(dossier)[-MOST_EVENTS:]):
        yield "" if number else "before", _event(event)


def _waited(failure: Failure) -> str:
    if failure.enqueued_at is None:
        return ""
    at = f"; enqueued {_clock(failure.enqueued_at)}"
    if failure.failed_at is None or failure.failed_at < failure.enqueued_at:
        return at
    return f"{at}, {_seconds(failure.failed_at - failure.enqueued_at)} before it failed"


def _arguments(failure: Failure) -> str:
    (column,) = (column for column in failure_detail_fields().columns if column.name == "arguments")
    value: Any = column.value(failure)
    if not isinstance(value, list):
        return "-" if value is None else str(value)
    return ", ".join(json.dumps(each, ensure_ascii=False) for each in value) or "none"


def _progress(failure: Failure) -> str | None:
    """Return how far a long job got: where a retry goes on, and the steps that it completed."""
    from solidjq.rails.continuation import progress_of

    progress = progress_of(failure.arguments)
    if not progress.started:
        return None
    words = f"{progress.described(failure.changed_at, failure.failed_at, failure.error)}; a retry resumes there"
    done = f"; completed {', '.join(progress.completed)}" if progress.completed and progress.current is not None else ""
    return f"{words}{done}"


def _before(dossier: Dossier) -> list[Event]:
    """Return what happened to the job before this failure."""
    end = dossier.failure.failed_at
    past = [event for event in dossier.past if event.at is not None and event.event != "enqueued"]
    return [event for event in past if end is None or (event.at is not None and event.at < end)]


def _event(event: Event) -> str:
    who = f" by {event.actor}" if event.actor else ""
    operation = f" (operation {event.operation_id})" if event.operation_id is not None else ""
    at = "" if event.at is None else _clock(event.at)
    return f"{at} {event.event}{who}{f': {event.detail}' if event.detail else ''}{operation}"


def _backtrace(failure: Failure, *, full: bool) -> Iterator[str]:
    from solidjq.diff.signatures import fold_libraries
    from solidjq.text import count_of

    for part in failure.error.backtrace if full else fold_libraries(failure.error.backtrace):
        yield part if isinstance(part, str) else f"... {count_of(part, 'line')} of libraries (--full)"


def _clock(time: datetime) -> str:
    return f"{time.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"


def _seconds(distance: timedelta) -> str:
    from solidjq.durations import spell_duration

    seconds = distance.total_seconds()
    return f"{seconds:.1f} s" if 0 <= seconds < 10 else spell_duration(distance)  # noqa: PLR2004  (one digit)


def _next(dossier: Dossier) -> Iterator[str]:
    job_id = dossier.failure.job_id
    if dossier.failure.error.death is None:
        yield f"failed diff {job_id}"
    if (decision := dossier.decision) is not None:
        if decision.verdict.moves:
            yield f"retry --safe {job_id}"
        if (position := decision.candidate.position) is not None and position.skips:
            yield f"retry {job_id} --skip-record"
        if decision.verdict.value in {"suspect", "stuck-record"}:
            yield f"retry --safe --isolate {job_id}"
    yield f"history {job_id}"
    if dossier.incident is not None:
        yield f"incidents show {dossier.incident.name}"
