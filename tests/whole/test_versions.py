"""Schemas of other versions: what works with each, and what is said where it does not."""

import pytest
from sqlalchemy import create_engine, inspect

from solidjq import Database
from solidjq.database.setup import initialize
from solidjq.doctor import examine as doctor
from solidjq.doctor.checks import DoctorTerms
from solidjq.errors import NotAQueueError
from solidjq.processes import pruning
from solidjq.processes.heartbeat import list_processes
from solidjq.queue import endings
from solidjq.queue.failed import Filter, list_failures
from solidjq.queue.overview import list_queues
from solidjq.queue.states import State
from solidjq.rails.error_text import error_json
from support.processes import add_process, silence
from support.queue import add_jobs, claim_all, plain_jobs, state_of_each
from support.recovery import retry_jobs
from support.schemas import make_older
from support.servers import execute

NAME_INDEX = "index_solid_queue_processes_on_name_and_supervisor_id"


def tables(database: Database) -> list[str]:
    (check,) = [check for check in doctor.CHECKS if check.name == "tables"]
    (result,) = doctor.examine(database, [check], DoctorTerms())
    assert result.skipped is None
    return [finding.what for finding in result.findings]


def test_a_later_version_may_have_more(own: Database) -> None:
    """Columns and tables that we do not know of, as a later version or the application itself may add."""
    execute(
        own.url,
        "ALTER TABLE solid_queue_jobs ADD COLUMN tenant varchar(20)",
        "ALTER TABLE solid_queue_ready_executions ADD COLUMN shard integer NOT NULL DEFAULT 3",
        "ALTER TABLE solid_queue_processes ADD COLUMN region varchar(20)",
        "CREATE TABLE solid_queue_batches (id integer)",
        "CREATE TABLE users (id integer)",
    )
    assert tables(own) == []
    ids = add_jobs(own, *plain_jobs(3))
    worker = add_process(own)
    (done, *_) = claim_all(own, worker, 2)
    own.transact(endings.finish, endings.claims_of(worker, [done.id]))
    silence(own, worker, 1000)
    (pruned,) = pruning.prune(own, 300)
    assert pruned.job_ids == ids[1:2]
    assert [failure.job_id for failure in list_failures(own, Filter(), limit=None)] == ids[1:2]
    assert retry_jobs(own, safe=True).ready == ids[1:2]
    assert state_of_each(own) == dict(zip(ids, (State.FINISHED, State.READY, State.READY), strict=True))
    engine = create_engine(own.url)
    assert "users" in inspect(engine).get_table_names()
    engine.dispose()


def test_a_record_without_room_for_what_a_discard_would_delete(own: Database) -> None:
    make_older(own)
    assert tables(own) == []
    execute(own.url, "ALTER TABLE solid_queue_jobs ADD COLUMN tenant varchar(20)")
    assert tables(own) == ["jq's record has no room for tenant of solid_queue_jobs: jq discard is refused"]
    initialize(own)
    assert tables(own) == []


def test_an_older_version_is_named_and_its_failures_can_be_read(own: Database) -> None:
    """Before 1.0 processes had no name."""
    (job_id,) = add_jobs(own, *plain_jobs(1))
    worker = add_process(own)
    claim_all(own, worker)
    own.transact(endings.fail, endings.claims_of(worker), error_json("ValueError", "boom"))
    where = " ON solid_queue_processes" if own.url.get_backend_name() == "mysql" else ""
    execute(
        own.url,
        f"DROP INDEX {NAME_INDEX}{where}",
        "ALTER TABLE solid_queue_processes DROP COLUMN name",
        "DROP TABLE solid_queue_recurring_tasks",
    )
    missing = tables(own)
    assert sorted(missing) == [
        "solid_queue_processes has no column name: older than Solid Queue 1.0, or damaged",
        "there is no table solid_queue_recurring_tasks",
    ]
    assert [failure.job_id for failure in list_failures(own, Filter(), limit=None)] == [job_id]
    with own.read() as connection:
        assert [queue.name for queue in list_queues(connection)] == ["default"]
    with pytest.raises(NotAQueueError, match=r"not a Solid Queue database of version 1.x .*name.*jq doctor tables"):
        list(pruning.prune(own, 300))
    with pytest.raises(NotAQueueError, match="jq doctor tables"), own.read() as connection:
        list_processes(connection)


def test_a_column_that_only_its_owner_can_fill_is_found(own: Database) -> None:
    default = " DEFAULT ''" if own.url.get_backend_name() == "sqlite" else ""
    execute(own.url, f"ALTER TABLE solid_queue_jobs ADD COLUMN tenant varchar(20) NOT NULL{default}")
    found = tables(own)
    words = "solid_queue_jobs has an added column tenant that must be filled: jq cannot insert rows"
    assert found == ([] if default else [words])
