"""Two jobs, groups or incidents side by side, and the fields in which they differ."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, NamedTuple

from sqlalchemy import Connection, or_, select

from solidjq.database.tables import failures
from solidjq.database.transactions import Database
from solidjq.diff.failure_groups import FailureGroup
from solidjq.diff.groups import find_group
from solidjq.diff.signatures import Signature, signature_of
from solidjq.errors import NoSuchJobError
from solidjq.incidents import incidents
from solidjq.ledger import archive, operations
from solidjq.names import NameKind, kind_of
from solidjq.queue.failed import Failure, failures_of
from solidjq.queue.jobs import find_jobs
from solidjq.rails.active_job import hidden_text, shown_arguments
from solidjq.rails.error_text import ErrorInfo, parse_error
from solidjq.rails.masking import Mask
from solidjq.text import MASK, parse_id
from solidjq.untrusted import number, read_object

MOST_ARGUMENTS = 60  # fields for the arguments of one job
# Fields that differ between any two jobs: shown, but never marked as a difference.
CONTEXT = frozenset({"job_id", "jobs", "failed_at", "enqueued_at", "waited", "first_failed_at", "last_failed_at"})


@dataclass(frozen=True, slots=True)
class DiffSide:
    """One side of a comparison: a job, a group or an incident, with its fields by name."""

    kind: str  # "job", "group" or "incident"
    name: str  # as the operator wrote it
    group: str | None  # the name of the group, or of the job's group; None for an incident
    fields: Mapping[str, object]
    job_ids: tuple[int, ...] = ()  # the job, or the jobs of an incident; empty for a group


class Difference(NamedTuple):
    """One field of both sides, and whether it differs."""

    field: str
    left: object
    right: object
    differs: bool


def find_side(database: Database, text: str) -> DiffSide:
    """Return the side that an operator names: a group, an incident, or a failed job by its id or Active Job id.

    A job's failure may be archived: retried or discarded. Raises NoSuchJobError if there is none of this name,
    UsageError for a text that cannot be a name.
    """
    kind = kind_of(text)
    if kind is NameKind.GROUP:
        group = find_group(database, text)
        if group is None:
            raise NoSuchJobError(f"no group {text}; jq failed diff lists them")
        return DiffSide("group", text, group.name, _group_fields(group))
    with database.read() as connection:
        if kind is NameKind.INCIDENT:
            incident = incidents.find_incident(connection, text)
            if incident is None:
                raise NoSuchJobError(f"no incident {text}; jq incidents list shows them")
            return DiffSide("incident", text, None, _incident_fields(incident), tuple(incident.job_ids))
        failure = _failure_now(connection, text) or _archived_failure(connection, text)
        if failure is None:
            exists = any(find_jobs(connection, [text]).values())
            raise NoSuchJobError(f"job {text} has not failed" if exists else f"no job {text}")
    signature = signature_of(_error_text(failure.error))
    return DiffSide("job", text, signature.name, _job_fields(failure, signature), (failure.job_id,))


def side_by_side(left: DiffSide, right: DiffSide, mask: Mask | None = None) -> list[Difference]:
    """Compare two sides field by field; sides of different kinds only in the fields that both have.

    Secret arguments are compared too, and then masked.
    """
    same_kind = left.kind == right.kind
    differences = []
    for name in dict.fromkeys((*left.fields, *right.fields)):
        one, other = left.fields.get(name), right.fields.get(name)
        if (one is None and other is None) or not (same_kind or (name in left.fields and name in right.fields)):
            continue
        differs = name not in CONTEXT and not _match(one, other)
        differences.append(Difference(name, _masked(name, one, mask), _masked(name, other, mask), differs))
    return differences


def _masked(field: str, value: object, mask: Mask | None) -> object:
    if mask is None or value is None or not field.startswith("arguments"):
        return value
    if field == "arguments" and isinstance(value, str):
        return hidden_text(value)
    key = field.partition("].")[2]
    return MASK if key and mask.hides(key) else mask.applied(value)


def _match(one: object, other: object) -> bool:
    """Whether two values are equal, or one is in the other's list: a job's class among those of a group."""
    if isinstance(one, list) and isinstance(other, str):
        return other in one
    if isinstance(other, list) and isinstance(one, str):
        return one in other
    return bool(one == other) and type(one) is type(other)


def _failure_now(connection: Connection, text: str) -> Failure | None:
    """Return the last failure in ``failed_executions`` of the jobs with this id or Active Job id."""
    ids = [view.job_id for view in find_jobs(connection, [text])[text]]
    return max(failures_of(connection, ids), key=lambda failure: failure.failure_id, default=None)


def _archived_failure(connection: Connection, text: str) -> Failure | None:
    """Return the last failure in ``jq_failures`` of the jobs with this id or Active Job id."""
    if not operations.exists(connection):
        return None
    is_job = failures.c.active_job_id == text
    if (job_id := parse_id(text)) is not None:
        is_job = or_(is_job, failures.c.job_id == job_id)
    archived = select(*archive.ARCHIVED).where(
        is_job, failures.c.restored_by.is_(None), failures.c.failure_id > archive.NO_FAILURE
    )
    row = connection.execute(archived.order_by(failures.c.id.desc()).limit(1)).first()
    if row is None:
        return None
    return Failure(
        failure_id=row.failure_id,
        job_id=row.job_id,
        active_job_id=row.active_job_id,
        class_name=row.class_name,
        queue_name=row.queue_name,
        priority=row.priority,
        enqueued_at=row.enqueued_at,
        failed_at=row.failed_at,
        error=parse_error(row.error),
        arguments=row.arguments,
        changed_at=row.updated_at,
    )


def _error_text(error: ErrorInfo) -> str | None:
    """Return a parsed error as Solid Queue stores it, without what a signature does not need."""
    if error == ErrorInfo():
        return None
    if error.exception_class is None and not error.backtrace:
        return error.message
    parts = {"exception_class": error.exception_class, "message": error.message, "backtrace": error.backtrace}
    return json.dumps(parts, ensure_ascii=False, separators=(",", ":"))


def _job_fields(failure: Failure, signature: Signature) -> dict[str, object]:
    waited = failure.failed_at - failure.enqueued_at if failure.failed_at and failure.enqueued_at else None
    return {
        "job_id": failure.job_id,
        **_signature_fields(signature),
        "message": failure.error.message,
        "class_name": failure.class_name,
        "queue_name": failure.queue_name,
        "priority": failure.priority,
        "executions": _executions(failure.arguments),
        **_argument_fields(shown_arguments(failure.arguments)),
        "enqueued_at": failure.enqueued_at,
        "failed_at": failure.failed_at,
        "waited": None if waited is None else round(waited.total_seconds(), 3),
    }


def _group_fields(group: FailureGroup) -> dict[str, object]:
    return {
        "jobs": group.count,
        **_signature_fields(group.signature),
        "class_name": [name for name, _ in group.classes.most_common()],
        "queue_name": [name for name, _ in group.queues.most_common()],
        "hosts": [name for name, _ in group.hosts.most_common()] or None,
        "first_failed_at": group.first_at,
        "last_failed_at": group.last_at,
    }


def _incident_fields(incident: incidents.Incident) -> dict[str, object]:
    deaths, finding = incident.deaths, incident.finding
    return {
        "jobs": incident.size,
        "cause": finding.cause.value,
        "confidence": finding.confidence.value,
        "facts": list(finding.used),
        "processes": len(deaths),
        "kinds": _distinct(death.kind for death in deaths),
        "hosts": incident.hosts,
        "signals": _distinct(death.signal for death in deaths),
        "exit_statuses": _distinct(death.exit_status for death in deaths),
        "class_name": incident.classes,
        "releases": _distinct(death.sample.get("release") for death in deaths),
        "peak_memory": max((int(number(death.sample, "peak") or 0) for death in deaths), default=0) or None,
        "memory_limit": max((int(number(death.sample, "cgroup", "max") or 0) for death in deaths), default=0) or None,
        "first_failed_at": incident.at,
        "last_failed_at": incident.noticed_at,
    }


def _distinct(values: Iterable[Any]) -> list[Any]:
    return sorted({value for value in values if value is not None})


def _signature_fields(signature: Signature) -> dict[str, object]:
    return {
        "group": signature.name,
        "death": signature.death and signature.death.value,
        "error_class": signature.exception_class,
        "signature": signature.message,
        "frames": list(signature.frames),
    }


def _executions(arguments: str | None) -> int | None:
    """Return Active Job's count of executions, which it keeps in the arguments across its own retries."""
    count = read_object(arguments).get("executions")
    return count if isinstance(count, int) else None


def _argument_fields(arguments: object) -> dict[str, object]:
    """Return a field for each argument, and for each key of an argument that is a hash."""
    if not isinstance(arguments, list):
        return {"arguments": arguments}
    named = ((f"arguments{path}", value) for path, value in _members(arguments))
    return {"arguments": len(arguments), **dict(islice(named, MOST_ARGUMENTS))}


def _members(arguments: Sequence[object]) -> Iterator[tuple[str, object]]:
    for at, value in enumerate(arguments):
        if isinstance(value, dict) and (keys := [key for key in value if not key.startswith("_aj_")]):
            yield from ((f"[{at}].{key}", _explicit(value[key])) for key in keys)
        else:
            yield f"[{at}]", _explicit(value)


def _explicit(value: object) -> object:
    """Return a value as it is shown, so that null differs from a missing argument, and "1" from 1."""
    return "null" if value is None else json.dumps(value, ensure_ascii=False) if isinstance(value, str) else value
