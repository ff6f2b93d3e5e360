"""Looks up job ids, incidents and groups that an operator named, and returns the failures as one filter."""

from array import array
from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace

from sqlalchemy import Connection, select

from solidjq.batching import in_batches
from solidjq.database.among import among
from solidjq.database.tables import failed
from solidjq.database.transactions import Database
from solidjq.diff.groups import find_members, job_ids
from solidjq.errors import LedgerMissingError, NoSuchJobError, UsageError
from solidjq.incidents.incidents import Incident, find_incident
from solidjq.ledger import operations
from solidjq.names import NameKind, kind_of, suggestion
from solidjq.queue.failed import Filter, NamedFailures
from solidjq.queue.jobs import JobView, find_jobs
from solidjq.selection.beginnings import complete
from solidjq.selection.request import FailureRequest, RequestedFailures


def resolve(
    database: Database, request: FailureRequest, *, include_jobs: bool = False, archived: bool = False
) -> RequestedFailures:
    """Look up what is named, and return it as a filter.

    Job ids without other names are not part of the filter, unless ``include_jobs``. With ``archived``, a group includes
    the failures that ``jq`` has retried or discarded since.

    Raises UsageError for a text that cannot be a name or begins several Active Job ids, NoSuchJobError for an incident
    or a group that does not exist, LedgerMissingError for a host if the database has no ``jq_`` tables, which alone
    store where a job died.
    """
    by_kind = _by_kind(request.names or ())
    _require_kind(request.incidents, NameKind.INCIDENT, "--incident", "d13 or f123; to see them: jq incidents list")
    _require_kind(request.groups, NameKind.GROUP, "--group", "g2569e0c; to see them: jq failed diff")
    chosen = request.chosen
    if request.plain:
        return RequestedFailures(chosen, {}, by_id=False)
    with database.read() as connection:
        if chosen.hosts and not operations.exists(connection):
            raise LedgerMissingError("on which host a job died is stored in the jq_ tables only; run: jq init")
        by_incident = {
            name: _failures_of(_incident(connection, name))
            for name in dict.fromkeys([*request.incidents, *by_kind[NameKind.INCIDENT]])
        }
        jobs = _jobs(connection, by_kind[NameKind.JOB])
    by_group = _members(database, {*request.groups, *by_kind[NameKind.GROUP]}, archived=archived)
    named = list(chosen.named)
    if request.incidents:
        named.append(_union("incidents", request.incidents, [by_incident[name] for name in request.incidents]))
    if request.groups:
        named.append(_union("groups", request.groups, [by_group[name] for name in request.groups]))
    sets = [*by_kind[NameKind.INCIDENT], *by_kind[NameKind.GROUP]]
    if request.names is not None and (sets or include_jobs):
        with database.read() as connection:
            of_jobs = _failure_ids(connection, [view.job_id for views in jobs.values() for view in views])
        found = {**by_incident, **by_group}
        named.append(_union("names", request.names, [of_jobs, *(found[name] for name in sets)]))
    return RequestedFailures(replace(chosen, named=tuple(named)), jobs, by_id=request.names is not None and not sets)


def name_jobs(database: Database, names: Iterable[str]) -> list[str]:
    """Replace incidents and groups among these names with the ids of their jobs; those of an incident in any state.

    Raises as ``resolve`` does.
    """
    ids: dict[str, None] = {}
    names = list(names)
    with database.read() as connection:
        found = find_jobs(connection, [name for name in names if kind_of(name) is NameKind.JOB])
        whole = complete(connection, [name for name, views in found.items() if not views])
    for name in names:
        match kind_of(name):
            case NameKind.INCIDENT:
                with database.read() as connection:
                    ids |= dict.fromkeys(map(str, _incident(connection, name).job_ids))
            case NameKind.GROUP:
                members = dict.fromkeys(map(str, job_ids(database, Filter(), {name})))
                if not members:
                    _members(database, {name}, archived=True)  # raises if there is no such group
                ids |= members
            case NameKind.JOB:
                ids[whole.get(name, name)] = None
    return list(ids)


def whole_name(database: Database, name: str) -> str:
    """Return the whole Active Job id if the name is the beginning of one, else the name. Raises as ``resolve`` does."""
    return name if kind_of(name) is not NameKind.JOB else name_jobs(database, [name])[0]


def _jobs(connection: Connection, names: Sequence[str]) -> dict[str, list[JobView]]:
    """Look up jobs by their ids, their Active Job ids and the beginnings of these, by the names as written."""
    views = find_jobs(connection, names)
    whole = complete(connection, [name for name, found in views.items() if not found])
    completed = find_jobs(connection, list(whole.values()))
    return {name: completed[whole[name]] if name in whole else found for name, found in views.items()}


def _by_kind(names: Iterable[str]) -> dict[NameKind, list[str]]:
    by_kind: dict[NameKind, list[str]] = {kind: [] for kind in NameKind}
    for name in dict.fromkeys(names):
        by_kind[kind_of(name)].append(name)
    return by_kind


def _require_kind(names: Iterable[str], kind: NameKind, option: str, example: str) -> None:
    for name in names:
        if kind_of(name) is not kind:
            raise UsageError(f"{option} {name!r}: write a name such as {example}")


def _incident(connection: Connection, name: str) -> Incident:
    incident = find_incident(connection, name)
    if incident is None:
        why = "to see them: jq incidents list"
        if name.startswith("d") and not operations.exists(connection):
            why = "the jq_ tables, which store the deaths that jq saw, are missing; run: jq init"
        raise NoSuchJobError(f"no incident {name}; {why}")
    return incident


def _failures_of(incident: Incident) -> "array[int]":
    return array("q", sorted(incident.failure_ids))


def _members(database: Database, names: Collection[str], *, archived: bool) -> "dict[str, array[int]]":
    if not names:
        return {}
    members, groups = find_members(database, names, archived=archived)
    for name in sorted(names):
        if name not in groups:
            likely = suggestion(name, groups) or "; to see them: jq failed diff"
            raise NoSuchJobError(f"no group {name} among the failed jobs{likely}")
    return members


def _failure_ids(connection: Connection, ids: Sequence[int]) -> "array[int]":
    found = array("q")
    for batch in in_batches(ids):
        found.extend(connection.scalars(select(failed.c.id).where(among(failed.c.job_id, batch))))
    return array("q", sorted(found))


def _union(kind: str, names: Sequence[str], sets: "Sequence[array[int]]") -> NamedFailures:
    failure_ids = sets[0] if len(sets) == 1 else array("q", sorted({number for each in sets for number in each}))
    return NamedFailures(kind, tuple(dict.fromkeys(names)), failure_ids)
