"""A plan in a file: the exact set that a retry would move, to be looked at, kept, and carried out as it stands.

One JSON value a line: a head, a line a job, and an end that tells a whole file from one that was cut off.
"""

import json
import os
import tempfile
import uuid
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import select

from solidjq.batching import in_batches
from solidjq.database.statements import among
from solidjq.database.tables import failures, operations
from solidjq.database.transactions import Database
from solidjq.errors import UsageError
from solidjq.ledger import operations as ledger_operations
from solidjq.recovery import retry
from solidjq.recovery.retry import Expected
from solidjq.recovery.verdicts import Decision, RetryTerms
from solidjq.settings.policy import BUILT_IN, Policy
from solidjq.text import one_line

FORMAT = 1


@dataclass(frozen=True, slots=True)
class Plan:
    """A plan's head. ``size``: how many jobs it moves."""

    id: str
    path: Path
    terms: RetryTerms
    size: int

    def jobs(self) -> Iterator[Expected]:
        """Read the set, line by line: memory is constant."""
        for line in _lines(self.path):
            if "failure_id" in line:
                yield Expected(line["failure_id"], line["job_id"], line["active_job_id"])


def write(path: Path, terms: RetryTerms, decisions: Iterable[Decision]) -> int:
    """Write those decisions that move a job; return how many. The file is there whole or not at all.

    Raises UsageError if it cannot be written.
    """
    count = 0
    try:
        descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    except OSError as error:
        raise UsageError(f"the plan cannot be written to {path}: {error.strerror}") from None
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            _put(
                file,
                {"jq_plan": FORMAT, "id": str(uuid.uuid4()), "by": ledger_operations.actor(), "terms": terms.given()},
            )
            for decision in decisions:
                if decision.verdict.moves:
                    found = decision.candidate
                    _put(
                        file,
                        {
                            "failure_id": found.failure_id,
                            "job_id": found.job_id,
                            "active_job_id": found.active_job_id,
                            "class_name": found.class_name,
                            "queue_name": found.queue_name,
                        },
                    )
                    count += 1
            _put(file, {"end": count})
        Path(name).replace(path)
    except BaseException as error:
        Path(name).unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise UsageError(f"the plan cannot be written to {path}: {error.strerror}") from None
        raise
    return count


def read(path: Path) -> Plan:
    """Read a plan's head, and see that the file is whole. Raises UsageError if it is no plan of ours, or cut off."""
    head: dict[str, Any] | None = None
    end: object = None
    size = 0
    for line in _lines(path):
        head = line if head is None else head
        size += "failure_id" in line
        end = line.get("end")
    if head is None or head.get("jq_plan") != FORMAT:
        raise UsageError(f"{path} is not a plan that this version of jq wrote")
    if end != size:
        raise UsageError(f"{path} was cut off or changed: make the plan again")
    try:
        return Plan(str(head["id"]), path, RetryTerms.read(head["terms"]), size)
    except (KeyError, TypeError):
        raise UsageError(f"{path} is not a plan that this version of jq wrote") from None


def apply(
    database: Database, plan: Plan, operation: ledger_operations.Operation, *, policy: Policy = BUILT_IN
) -> Iterator[list[Decision]]:
    """Move exactly what the plan says, batch by batch.

    Raises RefusedError, before it moves anything, if any job of it has changed meanwhile; and in the middle, with the
    batches before committed, if one changes while it is at work. Jobs that this very plan moved before count as done: a
    killed apply can be run again.
    """
    with database.read() as connection:
        ledger_operations.require(connection)
    retry.check_plan(database, _left(database, plan), plan.terms, policy=policy)
    yield from retry.retry_exactly(database, _left(database, plan), operation, plan.terms, policy=policy)


def _left(database: Database, plan: Plan) -> Iterator[Expected]:
    """Yield what the plan has not moved yet."""
    for batch in in_batches(plan.jobs()):
        with database.read() as connection:
            moved = set(
                connection.scalars(
                    select(failures.c.failure_id)
                    .join(operations, operations.c.id == failures.c.operation_id)
                    .where(
                        operations.c.plan == plan.id,
                        among(failures.c.failure_id, [each.failure_id for each in batch]),
                        failures.c.restored_by.is_(None),
                    )
                )
            )
        yield from (each for each in batch if each.failure_id not in moved)


def _put(file: Any, value: dict[str, Any]) -> None:
    file.write(json.dumps(value, ensure_ascii=True, separators=(",", ":")) + "\n")


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    try:
        with path.open(encoding="utf-8") as file:
            for number, line in enumerate(file, start=1):
                value = json.loads(line)
                if not isinstance(value, dict):
                    raise UsageError(f"{path}: line {number} is not a plan's")
                yield value
    except OSError as error:
        raise UsageError(f"the plan cannot be read: {path}: {error.strerror}") from None
    except ValueError as error:
        raise UsageError(f"{path} is not a plan: {one_line(str(error))}") from None
