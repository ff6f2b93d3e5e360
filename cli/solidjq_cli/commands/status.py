"""``jq status``: the first screen."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from solidjq_cli import options, outcomes, session
from solidjq_cli.ages import since
from solidjq_cli.columns.status import status_fields
from solidjq_cli.render import Output, drawn, heading, next_commands, paragraph, records
from solidjq_cli.screens import screen

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import typer

    from solidjq.processes.heartbeat import Process
    from solidjq.queue.overview import Queue
    from solidjq.status.report import Count, QueueStatus

LABEL = 11  # cells of what stands before a line
MOST_NAMED = 4  # silent processes or queues in a line


def add_to(app: typer.Typer) -> None:
    """Add the command."""
    app.command("status")(status)


@screen()
def status(
    alive_threshold: options.AliveThresholdOption = None,
    output: options.OutputOption = Output.TABLE,
    database: options.DatabaseOption = None,
) -> None:
    """Show who lives, what failed and why, and what waits.

    It is the first screen: what jq alone shows on a terminal, where a database is named. Each number is counted by the
    database, within about a second; what would take longer is left out, and is null in -o json.

    \b
    Examples:
      jq
      jq status --watch
      jq status -o json
    """
    from solidjq.status.report import find_status

    command = session.current(database)
    threshold = command.alive_threshold(alive_threshold)
    queue_status = find_status(command.open(), threshold)
    if not drawn(output):
        records([queue_status], status_fields(), output)
        return
    heading(f"status at {queue_status.at:%H:%M:%S} UTC")
    for label, text, style in _lines(queue_status):
        paragraph(text, f"{label:<{LABEL}} ", style=style)
    next_commands(*_next(queue_status), lead="next".ljust(LABEL - 1))


def _lines(status: QueueStatus) -> Iterator[tuple[str, str, str]]:
    """Yield each line: its label, its text and its style."""
    from solidjq.text import count_of, its

    yield "processes", _processes(status), ""
    if status.standby is not None:
        yield status.standby.noun, status.standby.doubt, ""
    holding = [process for process in status.silent if process.claimed]
    for process in holding[:MOST_NAMED]:
        yield "silent", _silent(process), "error"
    if rest := holding[MOST_NAMED:]:
        jobs = count_of(sum(process.claimed for process in rest), "job")
        yield "silent", f"{count_of(len(rest), 'more process')} with {jobs}", "error"
    yield "failed", _failed(status), "warning" if status.failed != (0, True) else "good"
    if status.new_died is not None and status.new_errors is not None:
        died = f"{status.new_died:,} died with {its(status.new_died)} process"
        yield "last hour", f"{died}, {status.new_errors:,} failed with an error", "error" if status.new_died else ""
    elif status.new_failed is not None:
        yield "last hour", f"{status.new_failed:,} failed", ""
    yield "waiting", "too many to count in a second" if status.queues is None else _waiting(status), ""
    if paused := [queue for queue in status.queues or () if queue.paused]:
        yield "paused", _named([f"{queue.name} ({queue.ready:,} ready)" for queue in paused]), "warning"
    if status.last is not None:
        yield from _last(status)
    if status.product is not None:
        yield "database", str(status.product), ""


def _processes(status: QueueStatus) -> str:
    from solidjq.text import count_of
    from solidjq_cli.columns.processes import kind_in_words

    kinds: Counter[str] = Counter()
    for kind, count in status.alive.items():
        kinds[kind_in_words(kind)] += count
    alive = [count_of(count, kind) for kind, count in sorted(kinds.items())]
    if not alive and not status.silent:
        return "none is registered: no job will run"
    dead = count_of(len(status.silent), "process")
    jobs = sum(process.claimed for process in status.silent)
    holding = f"with {count_of(jobs, 'job')}" if jobs else "without jobs"
    silent = f"; {dead} {holding} silent for {status.threshold:g} s or more" if status.silent else ""
    return f"{', '.join(alive) or 'none'} alive{silent}"


def _silent(process: Process) -> str:
    from datetime import timedelta

    from solidjq.durations import spell_duration
    from solidjq.text import count_of
    from solidjq_cli.columns.processes import kind_in_words

    age = "ever" if process.silence is None else spell_duration(timedelta(seconds=process.silence))
    host = f" on {process.hostname}" if process.hostname else ""
    return f"{kind_in_words(process.kind)} pid {process.pid}{host} for {age}, holds {count_of(process.claimed, 'job')}"


def _failed(status: QueueStatus) -> str:
    from solidjq.text import its

    if status.failed is None:
        return "too many to count in a second"
    if status.failed == (0, True):
        return "none"
    if status.died is None:
        return f"{status.failed}; how many of them died takes longer than a second to count"
    incidents = _of(status.incidents, "incident") if status.died.number else ""
    died = f"{status.died} died with {its(status.died.number)} process{incidents}"
    if status.errors is None:
        return f"{status.failed}: {died}"
    problems = _of(status.problems, "problem") if status.errors else ""
    return f"{status.failed}: {died}, {status.errors:,} failed with an error of {its(status.errors)} own{problems}"


def _of(count: Count | None, noun: str) -> str:
    from solidjq.text import plural_of

    return "" if count is None else f" ({count} {noun if count.number == 1 and count.exact else plural_of(noun)})"


def _waiting(status: QueueStatus) -> str:
    return _named([_queue(queue) for queue in status.waiting]) if status.waiting else "no job is ready"


def _queue(queue: Queue) -> str:
    oldest = "" if queue.oldest_ready_at is None else f" (oldest {since(queue.oldest_ready_at)})"
    return f"{queue.name} {queue.ready:,}{oldest}"


def _named(parts: Sequence[str]) -> str:
    from solidjq.text import first_of

    return first_of(parts, MOST_NAMED)


def _last(status: QueueStatus) -> Iterator[tuple[str, str, str]]:
    from solidjq.text import count_of

    if status.last is None:
        return
    operation, outcome = status.last
    at = "" if operation.created_at is None else f", {since(operation.created_at)}"
    text = f"{operation.verb} of {count_of(operation.jobs, 'job')} by {operation.actor}{at} (operation {operation.id})"
    became = "" if outcome is None else f": {', '.join(outcomes.phrases(outcome))}"
    yield "last", text + became, "error" if outcome is not None and outcome.died else ""


def _next(status: QueueStatus) -> Iterator[str]:
    """Yield the commands that fit what was found, the most urgent first."""
    if any(process.claimed for process in status.silent):
        yield "prune --dry-run"
    if status.died is not None and status.died.number:
        yield from ("incidents list", "retry --safe --dry-run")
    elif status.failed != (0, True):
        yield "failed diff"
    if status.last is not None and status.last[1] is not None and status.last[1].open:
        yield f"operations show {status.last[0].id} --watch"
    yield "doctor"
