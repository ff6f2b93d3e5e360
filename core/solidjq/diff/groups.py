"""Groups of failures with one signature: how many there are, of which classes and queues, from when to when."""

import time
from array import array
from collections.abc import Collection, Iterator, Sequence
from datetime import timedelta
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, select

from solidjq.database.tables import crashes, failed, jobs
from solidjq.database.transactions import Database
from solidjq.diff.failure_groups import FailureGroup, fold
from solidjq.diff.folding import fold_of, folds_of, names_among
from solidjq.diff.pages import (
    ALL_UNCOUNTED,
    FAILED,
    UNCOUNTED,
    FailurePages,
    FailureSource,
    SignatureCache,
    error_begin,
    sources_of,
)
from solidjq.diff.signatures import Signature, signature_of
from solidjq.incidents import incidents
from solidjq.incidents.unrecorded import ErrorCount
from solidjq.ledger import operations
from solidjq.ledger.crashes import EVIDENCE
from solidjq.queue.failed import Filter, conditions, parts

MOST_GATHERED = 50_000  # rows of some 500 bytes: of more, the database groups the failures by itself
DEATHS_AROUND = timedelta(hours=1)  # how long after its first job failed a death may be noticed


def group_failures(database: Database, chosen: Filter) -> list[FailureGroup]:
    """Return the failures that the filter matches, grouped by signature and folded, the largest group first."""
    with database.read() as connection:
        return groups_of(connection, chosen)


def groups_of(connection: Connection, chosen: Filter) -> list[FailureGroup]:
    """Return what ``group_failures`` does, in the transaction of the caller."""
    groups = _unfolded(connection, chosen)
    return fold(groups, folds_of(group.signature for group in groups))


def group_windows(database: Database, chosen: Sequence[Filter]) -> list[list[FailureGroup]]:
    """Return the groups for each of these filters; what is folded in one is folded in all.

    Failures that ``jq`` retried or discarded since are counted too.
    """
    with database.read() as connection:
        unfolded = [_unfolded(connection, each, archived=True) for each in chosen]
    folds = folds_of(dict.fromkeys(group.signature for groups in unfolded for group in groups))
    return [fold(groups, folds) for groups in unfolded]


def _unfolded(connection: Connection, chosen: Filter, *, archived: bool = False) -> list[FailureGroup]:
    """Return a group for each signature."""
    groups: dict[Signature, FailureGroup] = {}
    # While all failures are read, those that nobody counted are gathered: to search for them reads all once more.
    gathered: list[ErrorCount] | None = None if archived or chosen != Filter() else []
    mark = None if gathered is None else UNCOUNTED if operations.exists(connection) else ALL_UNCOUNTED
    for row, signature in _counted(connection, chosen, archived=archived, mark=mark):
        if (group := groups.get(signature)) is None:
            group = groups[signature] = FailureGroup(signature)
        group.add(row.class_name, row.queue_name, row.failures, row.first_at, row.last_at, row.job_id)
        if gathered is not None and signature.death is not None and row.uncounted:
            gathered.append(_error_count(row))
            if len(gathered) > MOST_GATHERED:
                gathered = None
    died = [group for group in groups.values() if group.signature.death is not None]
    _add_deaths(connection, died, chosen, gathered)
    return list(groups.values())


def _error_count(row: Row[Any]) -> ErrorCount:
    error = error_begin(row)[:EVIDENCE]
    return ErrorCount(error, row.class_name, row.first_id, row.id, row.failures, row.first_at)


def _counted(
    connection: Connection, chosen: Filter, *, archived: bool = False, mark: ColumnElement[int] | None = None
) -> Iterator[tuple[Row[Any], Signature]]:
    """Yield a row for all failures of a page with equal errors, class and queue, with their signature."""
    cache: SignatureCache = {}
    for source in sources_of(connection, archived=archived):
        for part in parts(chosen):
            pages = FailurePages(source, part, cache, mark=mark)
            while pages.more:
                yield from pages.read(connection)


def count_problems(connection: Connection, chosen: Filter, *, seconds: float) -> tuple[int, bool]:
    """Count the groups of failures that are no deaths; stop when that takes ``seconds``, and return whether it did."""
    until = time.monotonic() + seconds
    signatures: dict[Signature, None] = {}
    stopped = False
    for _, signature in _counted(connection, chosen):
        if signature.death is None:
            signatures[signature] = None
        if stopped := time.monotonic() > until:
            break
    folds = folds_of(signatures)
    return len({folds.get(signature, signature) for signature in signatures}), stopped


def _add_deaths(
    connection: Connection, died: Collection[FailureGroup], chosen: Filter, uncounted: Sequence[ErrorCount] | None
) -> None:
    """Add the causes and hosts of the deaths to the groups of failures by death.

    ``uncounted``: the failures by death that are not counted; None if they were not all read.
    """
    since = min((group.first_at for group in died if group.first_at is not None), default=None)
    if since is None:
        return
    by_name = {group.name: group for group in died}
    of_chosen = _names_of_deaths(connection, chosen) if chosen.hosts or chosen.named else None
    counted = []
    for death, classes, finding in incidents.judge_by_class(connection, since - DEATHS_AROUND, uncounted=uncounted):
        if classes and (of_chosen is None or death.name in of_chosen):
            name = signature_of(death.error).name
            counted.append((death.name[0], int(death.name[1:]), name, finding.words, death.hostname, classes.total()))
    for _, _, name, words, hostname, count in sorted(counted):
        if (group := by_name.get(name)) is not None:
            group.causes[words] += count
            if hostname is not None:
                group.hosts[hostname] += count


def _names_of_deaths(connection: Connection, chosen: Filter) -> set[str]:
    """Return the names of the deaths that failures which the filter matches are of."""
    names = set() if chosen.hosts else {f"f{number}" for number in chosen.failure_ids() or ()}
    if operations.exists(connection):
        columns = crashes.c
        for part in parts(chosen):
            matching = select(failed.c.id).join(jobs, jobs.c.id == failed.c.job_id).where(*conditions(part))
            query = select(columns.death_id).where(columns.failure_id.in_(matching), columns.death_id.is_not(None))
            names.update(f"d{number}" for number in connection.scalars(query.distinct()))
    return names


def find_group(database: Database, name: str, chosen: Filter | None = None) -> FailureGroup | None:
    """Return the group of this name, of the jobs failed now or else with those archived; None if there is none."""
    names = frozenset([name])
    for archived in (False, True):
        with database.read() as connection:
            groups = _unfolded(connection, chosen or Filter(), archived=archived)
        members = [group for group in groups if names_among(group.signature, names)]
        if members:
            alone = next((group for group in members if group.name == name), None)
            folds = {} if alone else {group.signature: fold_of(group.signature, name) for group in members}
            return fold([alone] if alone else members, folds)[0]
    return None


def job_ids(database: Database, chosen: Filter, names: Collection[str]) -> Iterator[int]:
    """Yield the ids of the jobs failed now in the groups of these names, in the order of their failures."""
    wanted = frozenset(names)
    for page in _members(database, FAILED, chosen):
        found = [row for row, signature in page if names_among(signature, wanted)]
        pairs = (pair for row in found for pair in zip(row.failure_ids, row.job_ids, strict=True))
        yield from (job_id for _, job_id in sorted(pairs))


def find_members(
    database: Database, names: Collection[str], *, archived: bool = False
) -> "tuple[dict[str, array[int]], set[str]]":
    """Return the failure_ids of each of these groups, ascending, and the names of all groups.

    With ``archived``, failures that ``jq`` retried or discarded since are members too. Eight bytes a failure.
    """
    members = {name: array("q") for name in names}
    wanted = frozenset(names)
    groups: set[str] = set()
    with database.read() as connection:
        sources = sources_of(connection, archived=archived)
    for source in sources:
        for page in _members(database, source, Filter()):
            for row, signature in page:
                groups.add(signature.name)
                for name in names_among(signature, wanted):
                    groups.add(name)
                    members[name].extend(row.failure_ids)
    return {name: array("q", sorted(ids)) for name, ids in members.items()}, groups


def _members(database: Database, source: FailureSource, chosen: Filter) -> Iterator[list[tuple[Row[Any], Signature]]]:
    """Yield pages of rows, one for all failures with equal errors, with their ids and their signature."""
    cache: SignatureCache = {}
    for part in parts(chosen):
        pages = FailurePages(source, part, cache, counted=False)
        while pages.more:
            with database.read() as connection:
                page = pages.read(connection)
            yield page


def newest_job_ids(connection: Connection, chosen: Filter, limit: int) -> list[int]:
    """Return the ids of the ``limit`` jobs that failed last, among those that the filter matches."""
    query = select(failed.c.job_id).join_from(failed, jobs, jobs.c.id == failed.c.job_id)
    newest: list[int] = []
    for part in parts(chosen, newest_first=True):
        page = query.where(*conditions(part)).order_by(failed.c.id.desc()).limit(limit - len(newest))
        newest += connection.scalars(page)
        if len(newest) >= limit:
            break
    return newest
