"""Examine a queue: the table of checks, and the sequence in which they are chosen, made, confirmed and fixed.

Each check reads in a transaction of its own and within a time limit. A check that the database refuses, or that takes
too long, is skipped with the reason, and the others go on. Each finding rests on one statement, which sees the queue at
one moment.
"""

import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace

from sqlalchemy import inspect

from solidjq.database.engines import time_limit
from solidjq.database.poolers import schema_of
from solidjq.database.standby import find_standby
from solidjq.database.tables import jobs as job_table
from solidjq.database.transactions import Database
from solidjq.doctor import application, batches, code, fleet, jobs, shutdown, slots, storage
from solidjq.doctor.checks import CheckResult, DoctorCheck, DoctorTerms, Fix
from solidjq.errors import DatabaseError, DatabaseUnreachableError, TookTooLongError, UsageError
from solidjq.ledger.operations import Operation

CHECKS = (
    *jobs.CHECKS,
    *slots.CHECKS,
    *batches.CHECKS,
    *fleet.CHECKS,
    *shutdown.CHECKS,
    *application.CHECKS,
    *code.CHECKS,
    *storage.CHECKS,
)
CONFIRM_AFTER = 1.0  # seconds from a finding that may be momentary to its confirmation


def choose(
    only: Collection[str] = (),
    skip: Collection[str] = (),
    *,
    with_application: bool = True,
    with_modules: bool = True,
) -> list[DoctorCheck]:
    """Return the checks named in ``only``, or all, without those named in ``skip``.

    Checks of a Rails application, or of imported modules, are left out when there are none; to name one is then an
    error.

    Raises UsageError for an unknown name.
    """
    names = [check.name for check in CHECKS]
    if unknown := [name for name in (*only, *skip) if name not in names]:
        raise UsageError(f"there is no check {unknown[0]!r}; the checks are: {', '.join(names)}")
    chosen = [check for check in CHECKS if (not only or check.name in only) and check.name not in skip]
    lacking = [
        check
        for check in chosen
        if not with_application and (check.of_application or (check.of_code and not with_modules))
    ]
    if only and lacking:
        modules = ", or the modules of Python jobs with --import" if lacking[0].of_code else ""
        raise UsageError(
            f"the check {lacking[0].name} needs a Rails application: name it with --rails or a profile{modules}"
        )
    return [check for check in chosen if check not in lacking]


def reads_code(checks: Collection[DoctorCheck]) -> bool:
    """Whether one of these checks needs the text of the Rails application (``DoctorTerms.code``)."""
    return any(check in code.CHECKS for check in checks)


def examine(
    database: Database, checks: Sequence[DoctorCheck], terms: DoctorTerms, *, wait: Callable[[float], None] = time.sleep
) -> list[CheckResult]:
    """Make every check that exists for this kind of database; repeat those whose findings may be momentary.

    On a standby, checks that compare times with the clock are skipped. Raises DatabaseUnreachableError and
    NotAQueueError; any other database error only skips its check.
    """
    with database.read() as connection:  # a database without a queue is an error, not a finding
        standby = find_standby(connection)
        if not inspect(connection).has_table(job_table.name, schema_of(connection)):
            raise database.not_a_queue(f"there is no table {job_table.name}")
    backend = database.url.get_backend_name()
    results: list[CheckResult] = []
    doubtful: set[str] = set()
    last = 0.0  # when the last of these was made
    for check in checks:
        if backend not in check.finds:
            continue
        if standby and check.by_clock:
            results.append(CheckResult(check, skipped=f"not judged on {standby}; {standby.instead}"))
            continue
        results.append(_make(database, check, terms))
        if check.again and results[-1].findings:
            doubtful.add(check.name)
            last = time.monotonic()
    if doubtful:
        wait(max(0.0, CONFIRM_AFTER - (time.monotonic() - last)))  # the checks behind it took a part of that time
        results = [
            _confirmed(result, _make(database, result.check, terms)) if result.check.name in doubtful else result
            for result in results
        ]
    return results


def _make(database: Database, check: DoctorCheck, terms: DoctorTerms) -> CheckResult:
    """Make one check, and once more if its connection broke: one session that is killed must not lose the others."""
    with suppress(DatabaseUnreachableError):
        return _attempt(database, check, terms)
    return _attempt(database, check, terms)


def _attempt(database: Database, check: DoctorCheck, terms: DoctorTerms) -> CheckResult:
    find = check.finds[database.url.get_backend_name()]
    try:
        with database.read() as connection, time_limit(connection, terms.patience):
            return CheckResult(check, list(find(connection, terms)))
    except DatabaseUnreachableError:
        raise
    except TookTooLongError:
        return CheckResult(check, skipped=f"it took longer than {terms.patience:g} s; to allow more: --patience")
    except DatabaseError as error:
        return CheckResult(check, skipped=str(error))


def _confirmed(first: CheckResult, second: CheckResult) -> CheckResult:
    """Return the second result without findings about subjects that the first did not find."""
    if second.skipped:
        return second
    before = frozenset().union(*(finding.subjects for finding in first.findings))
    return replace(second, findings=[finding for finding in second.findings if finding.subjects & before])


def fix(
    database: Database, results: Collection[CheckResult], terms: DoctorTerms, operation: Operation
) -> Iterator[str]:
    """Apply the fix of every check that has findings and a fix; yield a line of outcome for each.

    Each fix locks the rows that it changes and repeats its check under the lock, so running it again does no harm. If
    the database refuses a fix, or rows of it, its line gives the reason, and the others go on.
    """
    for result in results:
        if result.findings and result.check.fix is not None:
            yield f"{result.check.name}: {_outcome(database, result.check.fix, terms, operation)}"


def _outcome(database: Database, fix_rows: Fix, terms: DoctorTerms, operation: Operation) -> str:
    fixed = 0
    try:
        for count in fix_rows(database, terms, operation):
            fixed += count
    except DatabaseUnreachableError:
        raise
    except DatabaseError as error:
        return f"fixed {fixed:,}, but not all: {error}" if fixed else f"not fixed: {error}"
    return f"fixed {fixed:,}"
