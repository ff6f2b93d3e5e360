"""The queues that exist: Solid Queue has no table of them, so a queue is what a job, worker, pause or task names."""

from collections.abc import Iterable, Iterator

from sqlalchemy import Connection, select

from solidjq.database.functions import equals
from solidjq.database.statements import distinct_values
from solidjq.database.tables import jobs, pauses, processes, recurring_tasks
from solidjq.errors import RefusedError
from solidjq.names import suggestion
from solidjq.processes.attendance import polled_in
from solidjq.queue.patterns import ALL_QUEUES, fits


def unknown_queues(connection: Connection, names: Iterable[str]) -> list[str]:
    """Return those of these names that no job, worker, pause or recurring task names, in the given order.

    A worker that polls ``mail*`` names no queue. Reads one index entry a name, however many jobs there are.
    """
    known = set(_named_beside_jobs(connection))
    with_jobs = select(jobs.c.id).limit(1)
    return [
        name
        for name in names
        if name not in known and connection.scalar(with_jobs.where(equals(jobs.c.queue_name, name))) is None
    ]


def unknown_patterns(connection: Connection, patterns: Iterable[str]) -> list[str]:
    """Return those of these patterns, such as ``mailers`` or ``mail*``, that no queue's name fits; ``*`` fits all."""
    patterns = [pattern for pattern in patterns if pattern not in ALL_QUEUES]
    unknown = unknown_queues(connection, [pattern for pattern in patterns if not pattern.endswith("*")])
    if starred := [pattern for pattern in patterns if pattern.endswith("*")]:
        existing = queue_names(connection)
        unknown += [pattern for pattern in starred if not any(fits(pattern, name) for name in existing)]
    return unknown


def explain_unknown(connection: Connection, unknown: Iterable[str]) -> dict[str, str]:
    """Return a sentence on each of these ``unknown`` names or patterns, with the name that may have been meant."""
    if not (unknown := list(unknown)):
        return {}
    existing = queue_names(connection)
    return {name: f"no queue {name}{suggestion(name.removesuffix('*'), existing)}" for name in unknown}


def refuse_unknown(connection: Connection, unknown: Iterable[str], otherwise: str) -> None:
    """Raise RefusedError if there are ``unknown`` names or patterns, and say what to do ``otherwise``."""
    sentences = explain_unknown(connection, unknown).values()
    if sentences:
        which = " ".join(text if text.endswith("?") else f"{text}." for text in sentences)
        raise RefusedError(f"{which} {otherwise}")


def queue_names(connection: Connection) -> list[str]:
    """Return the name of every queue that a job, worker, pause or recurring task names, sorted."""
    return sorted({*_named_beside_jobs(connection), *distinct_values(connection, jobs.c.queue_name)})


def _named_beside_jobs(connection: Connection) -> Iterator[str]:
    yield from connection.scalars(select(pauses.c.queue_name))
    tasks = select(recurring_tasks.c.queue_name).where(recurring_tasks.c.queue_name.is_not(None)).distinct()
    yield from connection.scalars(tasks)
    workers = select(processes.c.metadata).where(processes.c.kind == "Worker", processes.c.metadata.is_not(None))
    for metadata in connection.scalars(workers):
        polled = polled_in(metadata)
        yield from (name for name in (*polled.patterns, *polled.excepted) if "*" not in name)
