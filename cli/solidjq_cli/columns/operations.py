"""Columns of the record: operations, its verification, what an undo took back, a job's history."""

from __future__ import annotations

from typing import TYPE_CHECKING

from solidjq_cli.columns.column import Column, Fields, json_or_text, with_fields

if TYPE_CHECKING:
    from solidjq.ledger.history import Event
    from solidjq.ledger.operations import OperationView
    from solidjq.ledger.verification import ChainReport
    from solidjq.recovery.undo import UndoneJob


def operation_fields() -> Fields[OperationView]:
    """Fields of a recorded operation."""
    return Fields(
        (
            Column("operation_id", lambda o: o.id, "ID"),
            Column("created_at", lambda o: o.created_at, "WHEN"),
            Column("verb", lambda o: o.verb, "VERB"),
            Column("actor", lambda o: o.actor, "WHO", wide=True),
            Column("jobs", lambda o: o.jobs, "JOBS", counts=True),
            Column("restored", lambda o: o.restored, "TAKEN BACK", counts=True),
            Column("reason", lambda o: o.reason, "REASON", wide=True),
            Column("database_role", lambda o: o.database_role, "ROLE", wide=True),
            Column("ci_job", lambda o: o.ci_job, "CI JOB", wide=True),
            Column("command", lambda o: o.command),
            Column("selection", lambda o: json_or_text(o.chosen)),
            Column("verdicts", lambda o: json_or_text(o.verdicts)),
            Column("plan", lambda o: o.plan),
            Column("ended_at", lambda o: o.ended_at),
        ),
        lambda o: [o.id],
    )


def operation_columns() -> Fields[OperationView]:
    """Return the columns of operations."""
    return with_fields(
        (
            Column("operation_id", lambda o: o.id, "ID"),
            Column("created_at", lambda o: o.created_at, "WHEN"),
            Column("verb", lambda o: o.verb, "WHAT"),
            Column("jobs", lambda o: o.jobs, "JOBS", counts=True),
            Column("restored", lambda o: o.restored or None, "TAKEN BACK", optional=True, counts=True),
            Column("actor", lambda o: o.actor, "WHO", wide=True),
            Column("ci_job", lambda o: o.ci_job, "CI JOB", wide=True, leaves=2, optional=True),
            Column("database_role", lambda o: o.database_role, "ROLE", wide=True, leaves=1, optional=True),
            Column("reason", lambda o: o.reason, "REASON", flows=True),
            Column("command", lambda o: o.command, extra=True),
        ),
        operation_fields(),
        lambda operation: operation,
    )


def chain_report_fields(*, spoken: bool) -> Fields[ChainReport]:
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
            Column("links", lambda r: r.links, counts=True),
            Column("since", lambda r: r.since),
            Column("last_operation", lambda r: r.last_operation),
            Column("last_hash", lambda r: r.last_hash),
            Column("expected_operation", lambda r: r.expected_operation),
            Column("unsealed", lambda r: [str(number) for number in r.unsealed] if spoken else r.unsealed),
            *(for_people if spoken else for_scripts),
        ),
        lambda r: [broken.operation_id for broken in r.breaks if broken.operation_id is not None],
    )


def undone_job_fields() -> Fields[UndoneJob]:
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


def event_fields() -> Fields[Event]:
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
