"""What ails a queue: one table of checks, each with what it asks, why, what to do, and, where that is safe, doing it.

A check reads, in a transaction of its own and within a time limit; one that is refused or takes too long is skipped,
with a word why, and hides no other. Every decision rests on one statement, which sees the queue at one moment.
"""

import time
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import replace

from sqlalchemy import inspect

from solidjq.database.engines import time_limit
from solidjq.database.tables import jobs as job_table
from solidjq.database.transactions import Database
from solidjq.doctor import application, fleet, jobs, shutdown, slots, storage
from solidjq.doctor.checks import CheckResult, DoctorCheck, DoctorTerms
from solidjq.errors import DatabaseError, DatabaseUnreachableError, NotAQueueError, TookTooLongError, UsageError
from solidjq.ledger.operations import Operation

CHECKS = (*jobs.CHECKS, *slots.CHECKS, *fleet.CHECKS, *shutdown.CHECKS, *application.CHECKS, *storage.CHECKS)
AGAIN = 1.0  # seconds to the second look


def choose(
    only: Collection[str] = (), skip: Collection[str] = (), *, with_application: bool = True
) -> list[DoctorCheck]:
    """Return the checks of these names, or all, but those to skip. Raises UsageError for a name that is none.

    Without an application, a check that is about one is left out; naming it is an error.
    """
    names = [check.name for check in CHECKS]
    if unknown := [name for name in (*only, *skip) if name not in names]:
        raise UsageError(f"there is no check {unknown[0]!r}; there are: {', '.join(names)}")
    chosen = [check for check in CHECKS if (not only or check.name in only) and check.name not in skip]
    if with_application:
        return chosen
    if only and (lacking := [check.name for check in chosen if check.of_application]):
        raise UsageError(f"the check {lacking[0]} needs a Rails application: name it with --rails or a profile")
    return [check for check in chosen if not check.of_application]


def examine(
    database: Database, checks: Sequence[DoctorCheck], terms: DoctorTerms, *, wait: Callable[[float], None] = time.sleep
) -> list[CheckResult]:
    """Ask every check that is for this kind of database; what may have been a moment only, ask again a second later.

    Raises DatabaseUnreachableError and NotAQueueError; whatever else goes wrong skips one check.
    """
    with database.read() as connection:  # no queue at all is no finding
        if not inspect(connection).has_table(job_table.name):
            raise NotAQueueError(
                f"{database} is not a Solid Queue database (there is no table {job_table.name}); "
                f"to make it one, run: {database.init_command}"
            )
    backend = database.url.get_backend_name()
    results = [_ask(database, check, terms) for check in checks if backend in check.looks]
    doubtful = {result.check.name for result in results if result.check.again and result.findings}
    if doubtful:
        wait(AGAIN)
        results = [
            _confirmed(result, _ask(database, result.check, terms)) if result.check.name in doubtful else result
            for result in results
        ]
    return results


def _ask(database: Database, check: DoctorCheck, terms: DoctorTerms) -> CheckResult:
    look = check.looks[database.url.get_backend_name()]
    try:
        with database.read() as connection, time_limit(connection, terms.patience):
            return CheckResult(check, list(look(connection, terms)))
    except DatabaseUnreachableError:
        raise
    except TookTooLongError:
        return CheckResult(check, skipped=f"it took longer than {terms.patience:g} s; for more: --patience")
    except DatabaseError as error:
        return CheckResult(check, skipped=str(error))


def _confirmed(first: CheckResult, second: CheckResult) -> CheckResult:
    """Keep what both looks have seen: a finding about something that the first look saw too."""
    if second.skipped:
        return second
    before = frozenset().union(*(finding.subjects for finding in first.findings))
    return replace(second, findings=[finding for finding in second.findings if finding.subjects & before])


def mend(
    database: Database, results: Collection[CheckResult], terms: DoctorTerms, operation: Operation
) -> Iterator[str]:
    """Do what the checks with findings can do about them; yield what was done, one line a check.

    Each effect locks what it changes and asks its question again under the lock. Running it again does no harm. What
    the database refuses is said, and keeps no other from being mended.
    """
    for result in results:
        if result.findings and result.check.mend is not None:
            try:
                count = result.check.mend(database, terms, operation)
            except DatabaseUnreachableError:
                raise
            except DatabaseError as error:
                yield f"{result.check.name}: not mended: {error}"
            else:
                yield f"{result.check.name}: mended {count}"
