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
    found = find_status(command.open(), threshold)
    if not drawn(output):
        records([found], status_fields(), output)
        return
    heading(f"status at {found.at:%H:%M:%S} UTC")
    for label, text, style in _lines(found):
        paragraph(text, f"{label:<{LABEL}} ", style=style)
    next_commands(*_next(found), lead="next".ljust(LABEL - 1))


def _lines(found: QueueStatus) -> Iterator[tuple[str, str, str]]:
    """Yield each line: its label, its text and its style."""
    from solidjq.text import count_of, its

    yield "processes", _processes(found), ""
    if found.standby is not None:
        yield found.standby.noun, found.standby.doubt, ""
    holding = [process for process in found.silent if process.claimed]
    for process in holding[:MOST_NAMED]:
        yield "silent", _silent(process), "error"
    if rest := holding[MOST_NAMED:]:
        held = count_of(sum(process.claimed for process in rest), "job")
        yield "silent", f"{count_of(len(rest), 'more process')} with {held}", "error"
    yield "failed", _failed(found), "warning" if found.failed != (0, True) else "good"
    if found.new_died is not None and found.new_errors is not None:
        died = f"{found.new_died:,} died with {its(found.new_died)} process"
        yield "last hour", f"{died}, {found.new_errors:,} failed with an error", "error" if found.new_died else ""
    elif found.new_failed is not None:
        yield "last hour", f"{found.new_failed:,} failed", ""
    yield "waiting", "too many to count in a second" if found.queues is None else _waiting(found), ""
    if paused := [queue for queue in found.queues or () if queue.paused]:
        yield "paused", _named([f"{queue.name} ({queue.ready:,} ready)" for queue in paused]), "warning"
    if found.last is not None:
        yield from _last(found)
    if found.product is not None:
        yield "database", str(found.product), ""


def _processes(found: QueueStatus) -> str:
    from solidjq.text import count_of
    from solidjq_cli.columns.processes import kind_in_words

    kinds: Counter[str] = Counter()
    for kind, count in found.alive.items():
        kinds[kind_in_words(kind)] += count
    alive = [count_of(count, kind) for kind, count in sorted(kinds.items())]
    if not alive and not found.silent:
        return "none is registered: no job will run"
    dead = count_of(len(found.silent), "process")
    jobs = sum(process.claimed for process in found.silent)
    held = f"with {count_of(jobs, 'job')}" if jobs else "without jobs"
    silent = f"; {dead} {held} silent for {found.threshold:g} s or more" if found.silent else ""
    return f"{', '.join(alive) or 'none'} alive{silent}"


def _silent(process: Process) -> str:
    from datetime import timedelta

    from solidjq.durations import spell_duration
    from solidjq.text import count_of
    from solidjq_cli.columns.processes import kind_in_words

    age = "ever" if process.silence is None else spell_duration(timedelta(seconds=process.silence))
    host = f" on {process.hostname}" if process.hostname else ""
    return f"{kind_in_words(process.kind)} pid {process.pid}{host} for {age}, holds {count_of(process.claimed, 'job')}"


def _failed(found: QueueStatus) -> str:
    from solidjq.text import its

    if found.failed is None:
        return "too many to count in a second"
    if found.failed == (0, True):
        return "none"
    if found.died is None:
        return f"{found.failed}; how many of them died takes longer than a second to count"
    incidents = _of(found.incidents, "incident") if found.died.number else ""
    died = f"{found.died} died with {its(found.died.number)} process{incidents}"
    if found.errors is None:
        return f"{found.failed}: {died}"
    problems = _of(found.problems, "problem") if found.errors else ""
    return f"{found.failed}: {died}, {found.errors:,} failed with an error of {its(found.errors)} own{problems}"


def _of(count: Count | None, noun: str) -> str:
    from solidjq.text import plural_of

    return "" if count is None else f" ({count} {noun if count.number == 1 and count.exact else plural_of(noun)})"


def _waiting(found: QueueStatus) -> str:
    return _named([_queue(queue) for queue in found.waiting]) if found.waiting else "no job is ready"


def _queue(queue: Queue) -> str:
    oldest = "" if queue.oldest_ready_at is None else f" (oldest {since(queue.oldest_ready_at)})"
    return f"{queue.name} {queue.ready:,}{oldest}"


def _named(parts: Sequence[str]) -> str:
    from solidjq.text import first_of

    return first_of(parts, MOST_NAMED)


def _last(found: QueueStatus) -> Iterator[tuple[str, str, str]]:
    from solidjq.text import count_of

    if found.last is None:
        return
    operation, outcome = found.last
    at = "" if operation.created_at is None else f", {since(operation.created_at)}"
    text = f"{operation.verb} of {count_of(operation.jobs, 'job')} by {operation.actor}{at} (operation {operation.id})"
    became = "" if outcome is None else f": {', '.join(outcomes.phrases(outcome))}"
    yield "last", text + became, "error" if outcome is not None and outcome.died else ""


def _next(found: QueueStatus) -> Iterator[str]:
    """Yield the commands that fit what was found, the most urgent first."""
    if any(process.claimed for process in found.silent):
        yield "prune --dry-run"
    if found.died is not None and found.died.number:
        yield from ("incidents list", "retry --safe --dry-run")
    elif found.failed != (0, True):
        yield "failed diff"
    if found.last is not None and found.last[1] is not None and found.last[1].open:
        yield f"operations show {found.last[0].id} --watch"
    yield "doctor"
