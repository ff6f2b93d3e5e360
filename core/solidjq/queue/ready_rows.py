"""Parts of the statements of a claim: the first ready rows, and those before and behind a bound."""

from typing import Any

from sqlalchemy import (
    BigInteger,
    BindParameter,
    Insert,
    Integer,
    Select,
    String,
    bindparam,
    exists,
    insert,
    select,
    tuple_,
)

from solidjq.database.hot import limit_of
from solidjq.database.statements import WriteStyle
from solidjq.database.tables import claimed, jobs, processes, ready
from solidjq.database.times import utcnow


def process_lock() -> Select[Any]:
    """Lock the row of the process ``process_id``, shared: its claims do not wait for each other, a prune does."""
    process_id = bindparam("process_id", type_=BigInteger())
    return select(processes.c.id).where(processes.c.id == process_id).with_for_update(read=True, key_share=True)


def first_ready() -> Select[Any]:
    """Lock the first ``most`` ready rows of all queues, by priority and then by job id, but none that is locked."""
    return (
        select(ready.c.job_id)
        .order_by(ready.c.priority, ready.c.job_id)
        .limit(limit_of("most"))
        .with_for_update(skip_locked=True)
    )


def first_ready_of_queue() -> Select[Any]:
    """Lock the first ready rows of the queue ``queue_name``, as ``first_ready`` does those of all queues."""
    return first_ready().where(ready.c.queue_name == bindparam("queue_name", type_=String()))


def behind(first_ready: Select[Any], style: WriteStyle) -> Select[Any]:
    """Let a query begin at the bound ``priority``, ``job_id`` in the index on both.

    Each database gets the form for which it reads only a part of the index: PostgreSQL a comparison of pairs, MySQL
    a condition on each column. No other index serves either form.
    """
    priority, job_id = _bound()
    if style is WriteStyle.SILENT:
        same = (ready.c.priority == priority) & (ready.c.job_id >= job_id)
        return first_ready.where(same | (ready.c.priority > priority))
    return first_ready.where(tuple_(ready.c.priority, ready.c.job_id) >= tuple_(priority, job_id))


def ready_before(queue_name: str | None, style: WriteStyle) -> Select[Any]:
    """Scan a queue, or all for None, up to the bound ``priority``, ``job_id``, as a claim would; see ``behind``.

    As a rule nothing is there but entries of deleted rows, so this locks nothing. It is a locking read all
    the same: as a plain read, MariaDB passes over such entries twenty times as fast as a claim does. Executed once a
    second at most.
    """
    priority, job_id = _bound()
    query = select(ready.c.job_id).order_by(ready.c.priority, ready.c.job_id).limit(1).with_for_update(skip_locked=True)
    if queue_name is not None:
        query = query.where(ready.c.queue_name == queue_name)
    if style is WriteStyle.SILENT:
        same = (ready.c.priority == priority) & (ready.c.job_id < job_id)
        return query.where(same | (ready.c.priority < priority))
    return query.where(tuple_(ready.c.priority, ready.c.job_id) < tuple_(priority, job_id))


def _bound() -> tuple[BindParameter[int], BindParameter[int]]:
    return bindparam("priority", type_=Integer()), bindparam("job_id", type_=BigInteger())


def sound_ready(queue_name: str | None, most: int) -> Select[Any]:
    """Lock the first ready rows of a queue, or of all for None, of jobs that exist and are not claimed."""
    claimable = (
        exists().where(jobs.c.id == ready.c.job_id),
        ~exists().where(claimed.c.job_id == ready.c.job_id),
        *([] if queue_name is None else [ready.c.queue_name == queue_name]),
    )
    query = select(ready.c.job_id, ready.c.id).where(*claimable).order_by(ready.c.priority, ready.c.job_id)
    return query.limit(most).with_for_update(skip_locked=True)


def claim_insertion(job_ids: Select[Any]) -> Insert:
    """Insert claims for the process ``process_id`` of the jobs that a query selects."""
    rows = job_ids.add_columns(bindparam("process_id", type_=BigInteger()), utcnow())
    return insert(claimed).from_select(["job_id", "process_id", "created_at"], rows)
