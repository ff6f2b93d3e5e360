"""A plan in a file: the exact failures that a retry would move, to be reviewed and carried out as written.

One JSON object a line: a head, a line a job, and an end with the number of jobs, which a file that was cut off lacks.
"""

import json
import os
import tempfile
import uuid
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

from sqlalchemy import select

from solidjq.batching import in_batches
from solidjq.database.statements import among
from solidjq.database.tables import failures, operations
from solidjq.database.transactions import Database
from solidjq.errors import UsageError
from solidjq.ledger import operations as ledger_operations
from solidjq.recovery import retry
from solidjq.recovery.retry import Expected, Selection
from solidjq.recovery.verdicts import Decision, RetryTerms
from solidjq.settings.policy import BUILT_IN, Policy
from solidjq.text import one_line

FORMAT = 1


@dataclass(frozen=True, slots=True)
class Plan:
    """A plan file that was checked. ``size``: how many jobs it moves, and ``destinations``: how many to which queue."""

    id: str
    path: Path
    terms: RetryTerms
    size: int
    destinations: Mapping[str, int] = field(default_factory=dict)

    def jobs(self) -> Iterator[Expected]:
        """Yield the failures to move, read line by line: memory does not grow with the plan.

        Raises UsageError if the file cannot be read.
        """
        for line in _lines(self.path):
            if "failure_id" in line:
                yield Expected(line["failure_id"], line["job_id"], line["active_job_id"])


def write(path: Path, terms: RetryTerms, decisions: Iterable[Decision]) -> int:
    """Write a plan of the decisions that move a job; return how many. The file is written whole or not at all.

    Raises UsageError if it cannot be written.
    """
    count = 0
    try:
        descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    except OSError as error:
        raise UsageError(f"the plan cannot be written to {path}: {error.strerror}") from None
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            by = ledger_operations.actor()
            _write_line(file, {"jq_plan": FORMAT, "id": str(uuid.uuid4()), "by": by, "terms": terms.to_record()})
            for decision in decisions:
                if decision.verdict.moves:
                    candidate = decision.candidate
                    line = {
                        "failure_id": candidate.failure_id,
                        "job_id": candidate.job_id,
                        "active_job_id": candidate.active_job_id,
                        "class_name": candidate.class_name,
                        "queue_name": candidate.queue_name,
                        "queue_as": decision.queue_as,
                    }
                    _write_line(file, line)
                    count += 1
            _write_line(file, {"end": count})
        Path(name).replace(path)
    except BaseException as error:
        Path(name).unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise UsageError(f"the plan cannot be written to {path}: {error.strerror}") from None
        raise
    return count


def read(path: Path) -> Plan:
    """Read a plan's head, and check that the file is whole.

    Raises UsageError if it cannot be read, was cut off or changed, or is not a plan that this version wrote.
    """
    head: dict[str, Any] | None = None
    end: object = None
    size = 0
    destinations: Counter[str] = Counter()
    for line in _lines(path):
        head = line if head is None else head
        if "failure_id" in line:
            size += 1
            destinations[line.get("queue_as") or line.get("queue_name") or ""] += 1
        end = line.get("end")
    if head is None or head.get("jq_plan") != FORMAT:
        raise UsageError(f"{path} is not a plan that this version of jq wrote")
    if end != size:
        raise UsageError(f"{path} was cut off or changed: make the plan again")
    try:
        return Plan(str(head["id"]), path, RetryTerms.from_record(head["terms"]), size, destinations)
    except (KeyError, TypeError):
        raise UsageError(f"{path} is not a plan that this version of jq wrote") from None


def count_suspects(database: Database, plan: Plan, *, policy: Policy = BUILT_IN) -> int:
    """Return how many suspects a plan sends to the queue ``terms.queue_as``; 0 for a plan of a safe retry."""
    if plan.terms.safe or plan.terms.queue_as is None:
        return 0
    return sum(
        retry.count_suspects(
            database, Selection(job_ids=[failure.job_id for failure in batch]), plan.terms, policy=policy
        )
        for batch in in_batches(plan.jobs())
    )


def apply(
    database: Database, plan: Plan, operation: ledger_operations.Operation, *, policy: Policy = BUILT_IN
) -> Iterator[list[Decision]]:
    """Move exactly the failures of the plan; yield each committed batch's decisions.

    Idempotent: failures that this plan moved before are skipped, so an apply that was killed can be run again. Raises
    LedgerMissingError without ``jq_`` tables. Raises RefusedError before it moves anything if a failure of the plan is
    gone or may not move any more, and between two batches if one changes meanwhile; committed batches stay.
    """
    with database.read() as connection:
        ledger_operations.require(connection)
    retry.check_plan(database, _left(database, plan), plan.terms, policy=policy)
    yield from retry.retry_exactly(database, _left(database, plan), operation, plan.terms, policy=policy)


def _left(database: Database, plan: Plan) -> Iterator[Expected]:
    """Yield the failures that the plan has not moved yet."""
    for batch in in_batches(plan.jobs()):
        with database.read() as connection:
            moved = set(
                connection.scalars(
                    select(failures.c.failure_id)
                    .join(operations, operations.c.id == failures.c.operation_id)
                    .where(
                        operations.c.plan == plan.id,
                        among(failures.c.failure_id, [failure.failure_id for failure in batch]),
                        failures.c.restored_by.is_(None),
                    )
                )
            )
        yield from (failure for failure in batch if failure.failure_id not in moved)


def _write_line(file: TextIO, value: Mapping[str, object]) -> None:
    file.write(json.dumps(value, ensure_ascii=True, separators=(",", ":")) + "\n")


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    try:
        with path.open(encoding="utf-8") as file:
            for number, line in enumerate(file, start=1):
                value = json.loads(line)
                if not isinstance(value, dict):
                    raise UsageError(f"{path} is not a plan: line {number} is not a JSON object")
                yield value
    except OSError as error:
        raise UsageError(f"the plan cannot be read: {path}: {error.strerror}") from None
    except ValueError as error:
        raise UsageError(f"{path} is not a plan: {one_line(str(error))}") from None
