"""Fields of a queue's status."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from solidjq_cli.columns.column import Column, Fields
from solidjq_cli.columns.operations import operation_fields
from solidjq_cli.columns.queues import queue_fields

if TYPE_CHECKING:
    from solidjq.ledger.operations import OperationView
    from solidjq.processes.heartbeat import Process
    from solidjq.queue.overview import Queue
    from solidjq.recovery.outcome import OperationOutcome
    from solidjq.status.report import Count, QueueStatus


def status_fields() -> Fields[QueueStatus]:
    """Fields of a queue's status. What took too long to count is null; ``..._exact`` false means so many or more."""

    def number(name: str) -> Column[QueueStatus]:
        def value(status: QueueStatus) -> int | None:
            count: Count | None = getattr(status, name)
            return None if count is None else count.number

        return Column(name, value, name.upper())

    def exact(name: str) -> Column[QueueStatus]:
        def value(status: QueueStatus) -> bool | None:
            count: Count | None = getattr(status, name)
            return None if count is None else count.exact

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
    return {column.name: column.value(queue) for column in queue_fields().columns}


def _operation(operation: OperationView, outcome: OperationOutcome | None) -> dict[str, Any]:
    shown = {"operation_id", "created_at", "verb", "actor", "jobs", "restored", "reason"}
    record = {column.name: column.value(operation) for column in operation_fields().columns if column.name in shown}
    counts = None if outcome is None else {kind.value: count for kind, count in outcome.counts.items()}
    return {**record, "outcome": counts}
