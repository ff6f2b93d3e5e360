"""No query that workers or operators wait for reads a large table from end to end.

What a move really sends is recorded, and explained by each database while its tables are large.
"""

import json
import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, event, insert, literal, select, text

from solidjq import Database
from solidjq.batching import in_batches
from solidjq.database import hot, tables
from solidjq.database.grouping import gathers
from solidjq.database.tables import failed, jobs, ready, scheduled
from solidjq.database.times import utcnow
from solidjq.doctor import examine as doctor
from solidjq.doctor.checks import DoctorTerms
from solidjq.incidents import death_jobs, death_queries
from solidjq.incidents.death_records import DeathRecord
from solidjq.ledger import crashes
from solidjq.processes import heartbeat, pruning
from solidjq.queue import claim as queue_claim
from solidjq.queue import discard, dispatch, endings, enqueue, slot_maintenance, waiting
from solidjq.queue import jobs as queue_jobs
from solidjq.queue.failed import Filter, list_failures, page_of_ids
from solidjq.queue.scan_start import ScanStart
from solidjq.rails.error_text import Death, error_json, pruned_error
from solidjq.recovery.candidates import find_candidates, find_groups
from support.databases import explain, is_mysql
from support.processes import add_process, fail_orphans, silence
from support.queue import add_jobs, plain_jobs, take_turn
from support.servers import execute

JOBS = 12_000
LARGE = {jobs.name, ready.name, failed.name, scheduled.name, "jq_crashes", "jq_failures"}
DIED = Filter(deaths=frozenset(Death))
NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


def fill(database: Database) -> int:
    """Make many jobs: a third waits, a third has failed, a third is due later. Return the id of a process."""
    with database.write() as connection:
        for batch in in_batches(range(1, JOBS + 1)):
            connection.execute(
                insert(jobs).values(
                    arguments='{"arguments":[],"executions":0,"exception_executions":{}}',
                    scheduled_at=utcnow(),
                    created_at=utcnow(),
                    updated_at=utcnow(),
                ),
                [
                    {
                        "id": number,
                        "queue_name": f"queue{number % 7}",
                        "class_name": f"Job{number % 11}",
                        "priority": number % 3,
                        "active_job_id": f"aj-{number}",
                    }
                    for number in batch
                ],
            )
        now = utcnow()
        for table, part, values in (
            (ready, 0, {"queue_name": jobs.c.queue_name, "priority": jobs.c.priority, "created_at": now}),
            (failed, 1, {"error": literal(pruned_error(NOON)), "created_at": now}),
            (
                scheduled,
                2,
                {
                    "queue_name": jobs.c.queue_name,
                    "priority": jobs.c.priority,
                    "scheduled_at": jobs.c.scheduled_at,
                    "created_at": now,
                },
            ),
        ):
            rows = jobs.select().with_only_columns(jobs.c.id, *values.values()).where(jobs.c.id % 3 == part)
            connection.execute(insert(table).from_select(["job_id", *values], rows))
        process = heartbeat.register(connection, kind="Worker", name="w", pid=1, hostname="h", metadata={})
    crashes.count_all(database)
    analyze(database, *sorted(LARGE))
    return process


def analyze(database: Database, *names: str) -> None:
    verb = "ANALYZE TABLE" if database.url.get_backend_name() == "mysql" else "ANALYZE"
    execute(database.url, *(f"{verb} {name}" for name in names))


@contextmanager
def recorded() -> Iterator[list[tuple[str, Any]]]:
    """Record what is sent, with its parameters."""
    sent: list[tuple[str, Any]] = []

    def record(_: Connection, _cursor: Any, statement: str, parameters: Any, _context: Any, executemany: bool) -> None:  # noqa: FBT001
        sent.append((statement, parameters[0] if executemany else parameters))

    event.listen(Engine, "before_cursor_execute", record)
    yield sent
    event.remove(Engine, "before_cursor_execute", record)


def read_whole(connection: Connection, statement: str, parameters: Any) -> Iterable[str]:
    """Return the tables that the database would read from end to end, index or not at hand."""
    match connection.dialect.name:
        case "postgresql":
            found = connection.exec_driver_sql(f"EXPLAIN (FORMAT JSON) {statement}", parameters).scalar_one()
            plan = json.loads(found) if isinstance(found, str) else found
            return [node["Relation Name"] for node in nodes(plan[0]["Plan"]) if node["Node Type"] == "Seq Scan"]
        case "mysql":
            # "index": it reads all entries of an index, unless it stops at the limit.
            whole = {"ALL"} if "LIMIT" in statement else {"ALL", "index"}
            return [
                row["table"]
                for row in explain(connection, statement, parameters)
                if row["type"] in whole and row["select_type"] != "INSERT"
            ]
        case _:
            words = [row["detail"].split() for row in explain(connection, statement, parameters)]
            if "LIMIT" in statement and ["USE", "TEMP", "B-TREE"] not in (word[:3] for word in words):
                return []  # it stops there, in the order of the rows themselves
            return [word[1] for word in words if word[0] == "SCAN" and "USING" not in word]


def nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for part in plan.get("Plans", []):
        yield from nodes(part)


def claim_some(database: Database, process: int, *queues: str) -> list[queue_claim.Claim]:
    return database.transact(queue_claim.claim, process, queues, 10)


def finish_some(database: Database, process: int) -> None:
    held = {claim.id: claim.job_id for claim in claim_some(database, process, "*")}
    database.transact(endings.finish_claims, process, held)


def take_turns(database: Database, process: int) -> None:
    for queues in (("*",), ("queue3", "queue4"), ("queue3*",)):
        claims = take_turn(database, process, [], queues, 10)
        take_turn(database, process, claims, queues, 10)


def take_turns_behind_a_bound(database: Database, process: int) -> None:
    for queues in (("*",), ("queue3",)):
        start = ScanStart()
        for _ in range(3):
            start.begin(0)
            assert queue_claim.exchange(database, process, {}, queues, 10, (), start)
            start.measure_if_due(lambda queue, bound: queue_claim.scan_cost(database, queue, bound) + 1, 0)


def decide_on_some(database: Database, _process: int) -> None:
    with database.read() as connection:
        ids = connection.scalars(page_of_ids(DIED, above=100, top=10**6, limit=20)).all()
        assert len(find_candidates(connection, ids, has_ledger=True, twins=True)) == len(ids)
        if gathers(connection):
            assert sum(len(group.failure_ids) for group in find_groups(connection, ids, has_ledger=True)) == len(ids)


def look_up(database: Database, _process: int) -> None:
    with database.read() as connection:
        queue_jobs.find_jobs(connection, ["17", "aj-23"])
        queue_jobs.find_jobs(connection, ["17"])


def prune_one(database: Database, _process: int) -> None:
    dead = add_process(database, "dead")
    database.transact(queue_claim.claim, dead, queue_claim.ALL_QUEUES, 2)
    silence(database, dead, 1000)
    list(pruning.prune(database, 300))


HOT: dict[str, Callable[[Database, int], object]] = {
    "claim": lambda database, process: claim_some(database, process, "*"),
    "claim of a queue": lambda database, process: claim_some(database, process, "queue3"),
    "claim of queues": lambda database, process: claim_some(database, process, "queue1*", "queue2"),
    "claim of all queues but some": lambda database, process: database.transact(
        queue_claim.claim, process, ("*",), 10, ("queue3", "queue5*")
    ),
    "finish": finish_some,
    "turn of a worker": take_turns,
    "dispatch": lambda database, _: database.transact(dispatch.dispatch, 10),
    "unblock": lambda database, _: database.transact(slot_maintenance.expired_keys, 10),
    "heartbeat": lambda database, process: database.transact(heartbeat.heartbeat, process),
    "prune": prune_one,
    "orphans": lambda database, _: fail_orphans(database),
    "first page": lambda database, _: list(list_failures(database, Filter(), limit=50)),
    "page that died": lambda database, _: list(list_failures(database, DIED, limit=50)),
    "page of a class": lambda database, _: list(list_failures(database, Filter(classes=("Job4",)), limit=50)),
    "next page": lambda database, _: list(list_failures(database, Filter(), limit=50, after=2000)),
    "verdicts": decide_on_some,
    "look up": look_up,
}


def test_no_hot_query_reads_a_large_table_from_end_to_end(database: Database) -> None:
    process = fill(database)
    found: dict[str, list[str]] = {}
    for name, move in HOT.items():
        with recorded() as sent:
            move(database, process)
        assert sent, name
        with database.write() as connection:
            for statement, parameters in dict.fromkeys((s, str(p)) for s, p in sent):
                given = next(p for s, p in sent if (s, str(p)) == (statement, parameters))
                explained = (
                    statement.lstrip("( \n").upper().startswith(("SELECT", "WITH", "INSERT", "UPDATE", "DELETE"))
                )
                if explained and (whole := LARGE.intersection(read_whole(connection, statement, given))):
                    found.setdefault(name, []).append(f"{sorted(whole)}: {statement}")
    assert not found


@pytest.mark.only_on("mariadb")
def test_waiting_jobs_are_deleted_without_a_scan_that_waits_for_others(database: Database) -> None:
    """Half of a table's rows are named, for which MySQL would rather scan, and lock, all of them."""
    fill(database)
    with database.write() as connection:
        of_scheduled, of_ready, of_failed = (
            list(connection.scalars(select(table.c.job_id).limit(JOBS // 6))) for table in (scheduled, ready, failed)
        )
    with recorded() as sent, database.write() as connection:
        waiting.run_now(connection, of_scheduled)
        waiting.postpone(connection, of_ready, NOON)
        discard.discard(connection, of_failed)
    deletions = [(statement, values) for statement, values in sent if statement.startswith("DELETE")]
    assert {name for name in LARGE for statement, _ in deletions if name in statement} >= {
        table.name for table in (scheduled, ready, failed, jobs)
    }
    with database.write() as connection:
        assert not [each for each in deletions if LARGE.intersection(read_whole(connection, *each))]


@pytest.mark.only_on("postgresql", "mariadb")
def test_a_scan_behind_a_bound_begins_in_the_middle_of_the_index(database: Database) -> None:
    process = fill(database)
    with recorded() as sent:
        take_turns_behind_a_bound(database, process)
    behind = [each for each in sent if "priority > " in each[0] or ">= (" in each[0]]
    with database.write() as connection:
        plans = [explain(connection, *each) for each in behind]
        whole = [LARGE.intersection(read_whole(connection, *each)) for each in behind]
        chosen_freely = is_mysql(connection)  # it may take a whole index for as quick, as only a few rows are wanted
    assert whole == [set(), set()]  # of three turns, only the last begins at a bound
    if database.url.get_backend_name() == "postgresql":
        assert not [plan for plan in plans if "(ROW(priority, job_id) >= ROW" not in str(plan)]
        return
    scans = [step for plan in plans for step in plan if step["table"] == ready.name]
    ways = {step["type"] for step in scans}
    assert ways <= {"range", "index"} if chosen_freely else ways == {"range"}
    assert not [step for step in scans if "filesort" in step["Extra"]]
    assert {step["key"] for step in scans} == {"index_solid_queue_poll_all", "index_solid_queue_poll_by_queue"}


def test_a_query_without_an_index_would_be_found(database: Database) -> None:
    fill(database)
    with database.read() as connection, recorded() as sent:
        connection.execute(select(jobs.c.id).where(jobs.c.arguments == "x"))
        assert list(read_whole(connection, *sent[0])) == [jobs.name]


def test_the_end_of_a_job_reads_no_other_that_is_unfinished(database: Database) -> None:
    """A planner that thinks there are few of them would look for the job among all of those."""
    process = fill(database)
    with database.write() as connection:
        connection.execute(jobs.update().values(finished_at=utcnow()))
    analyze(database, jobs.name)
    with database.write() as connection:
        connection.execute(jobs.update().values(finished_at=None))
    with recorded() as sent:
        finish_some(database, process)
        take_turns(database, process)
        database.transact(endings.fail, endings.claims_of(process), error_json("E", "boom"))
    plans = []
    with database.read() as connection:
        for statement, parameters in sent:
            if "finished_at" in statement and statement.startswith(("WITH", "UPDATE", "INSERT")):
                plans.append(str(explain(connection, statement, parameters)))
    assert len(plans) > 2
    assert not [plan for plan in plans if "on_finished_at" in plan]


def jobs_read(connection: Connection, statement: str, parameters: Any) -> int:
    """Execute a statement, and return how many jobs PostgreSQL read for it, by whichever way."""
    found = connection.exec_driver_sql(f"EXPLAIN (ANALYZE, FORMAT JSON) {statement}", parameters).scalar_one()
    plan = json.loads(found) if isinstance(found, str) else found
    return sum(
        (node["Actual Rows"] + node.get("Rows Removed by Filter", 0)) * node["Actual Loops"]
        for node in nodes(plan[0]["Plan"])
        if node.get("Relation Name") == jobs.name
    )


def of_two_processes(database: Database) -> None:
    """Let a process have died before the failures of each second job, which nobody counted; all others finished."""
    fill(database)
    with database.write() as connection:
        for table in (ready, scheduled, tables.crashes):
            connection.execute(table.delete())
        connection.execute(jobs.update().where(jobs.c.id % 3 != 1).values(finished_at=utcnow()))
        second = failed.c.id % 2 == 0
        connection.execute(failed.update().where(second).values(error=pruned_error(NOON.replace(hour=13))))
    execute(database.url, f"VACUUM ANALYZE {jobs.name}", f"VACUUM ANALYZE {failed.name}")


def look_for_states(database: Database) -> None:
    checks = doctor.choose(["no-state", "two-states", "finished-and-failed"])
    assert all(result.healthy for result in doctor.examine(database, checks, DoctorTerms()))


def read_jobs_of_one(database: Database) -> None:
    (one,) = (death for death in database.transact(list_deaths) if death.error == pruned_error(NOON))
    (death,) = database.transact(death_jobs.with_jobs, [one])
    assert len(death.jobs) == JOBS // 6


def list_deaths(connection: Connection) -> list[DeathRecord]:
    return list(death_queries.each_death(connection))


@pytest.mark.only_on("postgresql")
@pytest.mark.parametrize(("read", "most"), [(look_for_states, JOBS // 3), (read_jobs_of_one, JOBS // 6)])
def test_beside_many_finished_jobs_those_of_failures_alone_are_read(
    database: Database, read: Callable[[Database], None], most: int
) -> None:
    of_two_processes(database)
    with recorded() as sent:
        read(database)
    of_jobs = [one for one in sent if jobs.name in one[0] and "AS failures" not in one[0]]  # which groups all failures
    assert of_jobs
    with database.read() as connection:
        counts = {statement: jobs_read(connection, statement, given) for statement, given in of_jobs}
    assert {statement: count for statement, count in counts.items() if count > most} == {}


@pytest.mark.only_on("postgresql")
def test_a_job_that_is_due_is_enqueued_in_one_round_trip(database: Database) -> None:
    enqueue.enqueue_alone(database, *plain_jobs(1))  # before the first write, the owners of the tables are checked
    with recorded() as sent:
        enqueue.enqueue_alone(database, *plain_jobs(1))
    assert len(sent) == 1
    observer = Database(database.url)
    with observer.read() as connection:
        last = connection.scalars(
            text(
                "SELECT query FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid() "
                "AND backend_type = 'client backend'"  # and no autovacuum
            )
        ).all()
    observer.close()
    assert last
    assert not [query for query in last if not query.startswith("WITH job AS")]  # no COMMIT of its own


@pytest.mark.only_on("mariadb")
def test_a_turn_of_a_worker_takes_six_round_trips(database: Database) -> None:
    process = add_process(database)
    add_jobs(database, *plain_jobs(20))
    claims = take_turn(database, process, [], ["*"], 10)
    with recorded() as sent:
        others = take_turn(database, process, claims, ["*"], 10)
    assert {claim.job_id for claim in claims}.isdisjoint(claim.job_id for claim in others)
    assert (len(claims), len(others)) == (10, 10)
    assert len(sent) == 5  # the sixth is the COMMIT, and nothing comes after it
    rollbacks = text("SHOW SESSION STATUS LIKE 'Com_rollback'")
    with database.write() as connection:
        before = connection.execute(rollbacks).all()
    with database.write() as connection:
        assert connection.execute(rollbacks).all() == before


@pytest.mark.only_on("postgresql")  # the others plan each time anew
def test_a_plan_for_an_empty_table_is_not_kept_when_it_is_full(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    process = add_process(database)
    for name in (ready.name, jobs.name):
        execute(database.url, f"VACUUM ANALYZE {name}", f"ALTER TABLE {name} SET (autovacuum_enabled = false)")
    with monkeypatch.context() as patched:
        patched.setattr(hot, "SLOW", math.inf)  # the table is empty: what takes long is the machine
        for _ in range(20):  # the driver prepares it after 5, the server keeps a plan after 5 more
            claim_some(database, process, "*")
    add_jobs(database, *plain_jobs(30_000))
    read = text("SELECT seq_tup_read FROM pg_stat_xact_user_tables WHERE relname = :name")
    with database.write() as connection:
        for _ in range(40):
            queue_claim.claim(connection, process, queue_claim.ALL_QUEUES, 10)
        assert connection.scalar(read, {"name": ready.name}) <= 2 * 30_000


@pytest.mark.only_on("postgresql")
def test_a_server_that_is_slow_with_any_plan_keeps_its_plans(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hot, "SLOW", 0)
    process = add_process(database)
    texts: Counter[str] = Counter()
    event.listen(database._reader, "before_cursor_execute", lambda *told: texts.update([told[2]]))
    for _ in range(200):
        claim_some(database, process, "*")
    claims = [times for statement, times in texts.items() if "solid_queue_claimed_executions" in statement]
    assert sum(claims) == 200
    assert len(claims) < 10
