"""Why a filter of jobs in any state selects none: a name that no job has, another state, or one term too many."""

import time
from collections.abc import Iterator
from dataclasses import replace

from sqlalchemy import Connection

from solidjq.database.transactions import GLANCE, Database
from solidjq.queue.listing import JobFilter, ids_in
from solidjq.queue.states import State
from solidjq.selection.explanations import BoundedQueries, found_in_time, unknown_name

# The fields of a filter, each with its option.
_OPTIONS = {
    "queues": "--queue", "classes": "--class", "not_classes": "--not-class", "argument": "--argument",
    "since": "--since", "until": "--until", "keys": "--key", "processes": "--process", "hosts": "--host",
}  # fmt: skip
_EVERYTHING = JobFilter()


def explain_no_jobs(database: Database, chosen: JobFilter, *, seconds: float = GLANCE) -> list[str]:
    """Return, in sentences, why a filter selects no job; what cannot be asked within so many seconds is left out."""
    queries = BoundedQueries(database, time.monotonic() + seconds)
    return found_in_time(_explain(queries, chosen))[0]


def _explain(queries: BoundedQueries, chosen: JobFilter) -> Iterator[str]:
    names = [("class", name) for name in chosen.classes] + [("queue", name) for name in chosen.queues]
    unknown = [sentence for what, name in names if (sentence := queries.run(unknown_name, what, name))]
    yield from unknown
    if unknown:
        return
    given = [name for name in _OPTIONS if getattr(chosen, name)]
    if given or chosen.job_ids is not None:
        others = tuple(state for state in State if state not in chosen.states)
        if there := [state.value for state in others if queries.run(_any, replace(chosen, states=(state,)))]:
            yield f"there are such jobs that are {' or '.join(there)}: --state {there[0]}"
            return
    if len(given) < 2 and chosen.job_ids is None:  # noqa: PLR2004  (then the term alone leaves nothing)
        return
    helps = [name for name in given if queries.run(_any, replace(chosen, **{name: getattr(_EVERYTHING, name)}))]
    yield from (f"without {_OPTIONS[name]} there are some" for name in helps)
    if given and not helps:
        yield "more than one of these options leaves nothing"


def _any(connection: Connection, chosen: JobFilter) -> bool:
    ids = None if chosen.job_ids is None else list(chosen.job_ids)[:1000]
    return any(connection.scalar(ids_in(state, chosen, ids).limit(1)) is not None for state in chosen.states)
