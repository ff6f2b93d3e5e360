"""Operations on a terminal: who did what and why, and what became of the jobs."""

from __future__ import annotations

import json
from collections import Counter
from typing import TYPE_CHECKING, Any

from solidjq_cli import outcomes
from solidjq_cli.ages import since
from solidjq_cli.render import heading, lines, next_commands, page, paragraph

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from solidjq.ledger.operations import OperationView
    from solidjq.recovery.outcome import OperationOutcome

LABEL = 10


def draw(operations: Sequence[tuple[OperationView, OperationOutcome | None]]) -> None:
    """Print operations, each with the outcome of its jobs; None if it put no jobs back to work."""
    with page():
        for number, (operation, outcome) in enumerate(operations):
            if number:
                paragraph("")
            _draw(operation, outcome)


def _draw(operation: OperationView, outcome: OperationOutcome | None) -> None:
    from solidjq.text import count_of

    at = "" if operation.created_at is None else f", {since(operation.created_at)}"
    heading(f"operation {operation.id}: {operation.verb} of {count_of(operation.jobs, 'job')} by {operation.actor}{at}")
    for label, text in _facts(operation):
        paragraph(text, f"{label:<{LABEL}}")
    if outcome is not None:
        paragraph(outcomes.bar(outcome), f"{'jobs':<{LABEL}}", style="error" if outcome.died else "good")
        lines(outcomes.counts(outcome))
    next_commands(*_next(operation, outcome))


def _facts(operation: OperationView) -> Iterator[tuple[str, str]]:
    if operation.reason:
        yield "reason", operation.reason
    if operation.command:
        yield "command", operation.command
    if chosen := _words(operation.chosen):
        yield "selection", chosen
    if verdicts := _words(operation.verdicts):
        yield "verdicts", verdicts
    if operation.plan:
        yield "plan", operation.plan
    if operation.restored:
        yield "undone", f"{operation.restored} of its jobs were taken back"
    role = [f"database role {operation.database_role}"] if operation.database_role else []
    job = [f"CI job {operation.ci_job}"] if operation.ci_job else []
    if role or job:
        yield "as", ", ".join((*role, *job))


def _words(text: str | None) -> str:
    """Return stored JSON in words: ``safe, deaths exited pruned, limit 5``; counts with the largest first."""
    from solidjq.untrusted import read_json

    value: Any = read_json(text)
    if not isinstance(value, dict):
        return text or ""
    if value and all(type(each) is int for each in value.values()):
        return ", ".join(f"{count:,} {name}" for name, count in Counter(value).most_common())
    return ", ".join(_phrase(str(name), each) for name, each in value.items())


def _phrase(name: str, value: Any) -> str:
    if value is True:
        return name
    if isinstance(value, list) and all(isinstance(each, (str, int)) for each in value):
        return f"{name} {' '.join(map(str, value))}"
    return f"{name} {value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)}"


def _next(operation: OperationView, outcome: OperationOutcome | None) -> Iterator[str]:
    if outcome is not None:
        yield from (f"incidents show {name}" for name in list(outcome.incidents)[:1])
        if outcome.open:
            yield f"operations show {operation.id} --watch"
    if operation.restored < operation.jobs and operation.verb in {"retry", "recover", "discard"}:
        yield f"undo {operation.id}"
    yield "operations verify"
