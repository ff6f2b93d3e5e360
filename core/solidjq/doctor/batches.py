"""A check of Solid Queue's batches (from 1.7 on): those that stand still. Older versions have no tables of them."""

from collections.abc import Iterator

from sqlalchemy import Connection, TableClause, column, exists, inspect, or_, select, table

from solidjq.database.poolers import schema_of
from solidjq.database.tables import blocked, claimed, prefix, ready, scheduled
from solidjq.database.times import ago
from solidjq.doctor.checks import MOST_NAMED, DoctorCheck, DoctorFinding, DoctorTerms, Severity, everywhere, how_many
from solidjq.doctor.slots import maintenance_margin
from solidjq.text import first_of

COLUMNS = ("id", "created_at", "enqueued_at", "finished_at")
MOST_SHOWN = 5  # ids in a finding


def _tables(connection: Connection) -> tuple[TableClause, TableClause] | None:
    """Return the tables of batches and of their outstanding jobs; None if the queue has none, or others."""
    inspector, schema = inspect(connection), schema_of(connection)
    batches = table(f"{prefix()}batches", *(column(name) for name in COLUMNS), schema=schema)
    outstanding = table(f"{prefix()}batch_executions", column("job_id"), column("batch_id"), schema=schema)
    for one in (batches, outstanding):
        if not inspector.has_table(one.name, schema):
            return None
        if set(one.columns.keys()) - {there["name"] for there in inspector.get_columns(one.name, schema)}:
            return None
    return batches, outstanding


def _find_still(connection: Connection, _terms: DoctorTerms) -> Iterator[DoctorFinding]:
    """Find unfinished batches of which no outstanding job waits or runs: a failed job is not outstanding any more."""
    if (found := _tables(connection)) is None:
        return
    batches, outstanding = found
    late = ago(maintenance_margin(connection))
    states = (ready, claimed, scheduled, blocked)
    alive = or_(*(exists().where(state.c.job_id == outstanding.c.job_id) for state in states))
    still = (
        select(batches.c.id, batches.c.enqueued_at.is_(None).label("unstarted"))
        .where(
            batches.c.finished_at.is_(None),
            batches.c.created_at < late,
            ~exists().where(outstanding.c.batch_id == batches.c.id, alive),
        )
        .order_by(batches.c.id)
        .limit(MOST_NAMED + 1)
    )
    rows = connection.execute(still).all()
    for unstarted in (False, True):
        ids = [row.id for row in rows if bool(row.unstarted) is unstarted]
        if not ids:
            continue
        yield DoctorFinding(
            f"{how_many(ids, 'batch has', 'batches have')} no job that waits or runs, and "
            f"{'was never started' if unstarted else 'is not finished'}: {first_of(ids, MOST_SHOWN)}",
            "a dispatcher of Solid Queue 1.7 or later finishes such batches with its maintenance: see that one runs "
            "(jq processes list). Their callbacks (on_finish and others) have not been enqueued",
            Severity.WARNING,
            subjects=frozenset(ids),
        )


CHECKS = (
    DoctorCheck(
        name="batches",
        by_clock=True,
        asks="Batches (Solid Queue 1.7 and later) older than two maintenance intervals that are not finished, although "
        "none of their jobs waits or runs.",
        why="The callbacks of such a batch are never enqueued. A process died between the last job and the end of the "
        "batch, or while it enqueued the batch, and no dispatcher repairs that.",
        advice="Run a dispatcher of Solid Queue 1.7 or later, whose maintenance finishes such batches.",
        finds=everywhere(_find_still),
        again=True,
    ),
)
