"""``@job(on_death=...)``: another job is enqueued once a death, in the transaction that counts it."""

import json
import signal
from collections.abc import Callable

import pytest
from sqlalchemy import delete, select, text, update

from solidjq import Database, NewJob, job, registry
from solidjq.database.faults import Fault
from solidjq.database.tables import crashes as crash_table
from solidjq.database.tables import failed, jobs
from solidjq.database.tables import processes as process_table
from solidjq.database.times import utcnow
from solidjq.errors import ConflictError, UsageError
from solidjq.ledger import crashes, on_death
from solidjq.ledger.operations import Operation
from solidjq.processes import pruning
from solidjq.queue import endings
from solidjq.queue.states import State
from solidjq.rails.active_job import OnDeath, call_of, on_death_of
from solidjq.rails.error_text import exit_error
from solidjq.recovery import undo
from support.deaths import die
from support.killer import KILLED, killer
from support.processes import add_process, fail_orphans, silence
from support.program import Shell
from support.queue import add_jobs, claim_all, clear, plain_jobs, rows
from support.races import at_once
from support.recovery import retry_jobs
from support.runtime import Runtime, kill
from support.waiting import until

TELL = OnDeath("tell", "urgent", 3)


def asking(*args: object, on_death: OnDeath = TELL, **kwargs: object) -> NewJob:
    return NewJob(class_name="Rendering", args=args, kwargs=kwargs, on_death=on_death)


def told(database: Database, name: str = "tell") -> list[tuple[list[object], dict[str, object]]]:
    """Return what the jobs that deaths have enqueued are called with."""
    return [tuple(call_of(row["arguments"])) for row in rows(database, jobs) if row["class_name"] == name]


def by_rails(database: Database) -> list[int]:
    """Let a worker die with all that is ready, noticed by Rails: it writes failures, and counts no crash."""
    worker = add_process(database)
    claim_all(database, worker)
    return database.transact(endings.fail, endings.claims_of(worker), exit_error(4242, -9))


def by_supervisor(database: Database) -> list[int]:
    worker = add_process(database)
    claim_all(database, worker)
    return database.transact(pruning.fail_exited, worker, pid=4242, returncode=-9)


def orphaned(database: Database) -> list[int]:
    worker = add_process(database)
    claim_all(database, worker)
    with database.write() as connection:
        connection.execute(delete(process_table).where(process_table.c.id == worker))
    return fail_orphans(database)


@pytest.mark.parametrize("end", [die, by_supervisor, orphaned, by_rails])
def test_a_death_enqueues_one_job_with_the_id_and_the_arguments(
    database: Database, end: Callable[[Database], list[int]]
) -> None:
    first, second, _ = add_jobs(database, asking(42, to="a@b"), asking(), *plain_jobs(1))
    assert len(end(database)) == 3
    for _ in range(2):  # only the first finds what Rails wrote, and nobody finds it again
        crashes.count_all(database)
    assert told(database) == [([first, 42], {"to": "a@b"}), ([second], {})]
    new = [row for row in rows(database, jobs) if row["class_name"] == "tell"]
    assert {(row["queue_name"], row["priority"], "jq_on_death" in row["arguments"]) for row in new} == {
        ("urgent", 3, False)
    }
    # A retry takes the request along: its next death is another one. An undo is none.
    retry_jobs(database, [first])
    list(undo.undo(database, 1, Operation("undo")))
    crashes.count_all(database)
    assert len(told(database)) == 2
    retry_jobs(database, [first])
    with database.write() as connection:
        connection.execute(delete(jobs).where(jobs.c.class_name == "tell"))
    assert end(database) == [first]
    crashes.count_all(database)
    assert told(database) == [([first, 42], {"to": "a@b"})]


def test_a_death_that_nobody_counted_yet_is_not_told_with_that_of_another(database: Database) -> None:
    (first,) = add_jobs(database, asking(1))
    by_rails(database)
    (second,) = add_jobs(database, asking(2))
    die(database)
    assert told(database) == [([second, 2], {})]
    crashes.count_all(database)
    assert told(database) == [([second, 2], {}), ([first, 1], {})]


@pytest.mark.only_on("postgresql")
def test_to_count_a_death_waits_for_no_other_failure(database: Database) -> None:
    ids = add_jobs(database, asking(1), asking(2))
    by_rails(database)
    mine, other = (failed.c.job_id == job_id for job_id in ids)
    (failure_id,) = [row["id"] for row in rows(database, failed) if row["job_id"] == ids[0]]
    with database.write() as counting:
        assert [dead.job_id for dead in on_death.lock_uncounted(counting, [failure_id])] == [ids[0]]
        with database.write() as connection:
            connection.execute(select(failed.c.id).where(other).with_for_update(nowait=True)).one()
        with pytest.raises(ConflictError), database.write() as connection:
            connection.execute(select(failed.c.id).where(mine).with_for_update(nowait=True))


def test_two_programs_at_once(database: Database) -> None:
    for end in (None, by_rails):
        clear(database)
        ids = add_jobs(database, *(asking(number) for number in range(20)))
        if end is None:
            worker = add_process(database)
            claim_all(database, worker)
            silence(database, worker, 1000)
        else:
            end(database)

        def look(own: Database) -> None:
            list(pruning.prune(own, 300))
            crashes.count_all(own)

        at_once(database, look, look, look)
        assert sorted(args for args, _ in told(database)) == [[job_id, number] for number, job_id in enumerate(ids)]


def test_killed_between_any_two_statements(database: Database, shell: Shell) -> None:
    killed = 0
    with killer(shell.url, shell, ("prune", "--force"), stride=3) as run:
        code = KILLED
        while code == KILLED:
            clear(database)
            ids = add_jobs(database, asking(1), asking(2))
            worker = add_process(database)
            claim_all(database, worker)
            silence(database, worker, 1000)
            code = run("")
            killed += code == KILLED
            failures = len(rows(database, failed))
            assert len(told(database)) == failures  # both are there, or neither
            until(
                lambda: (list(pruning.prune(database, 300)), len(rows(database, failed)) == 2)[1],
                "the next prune completes it",
            )
            crashes.count_all(database)
            assert [args for args, _ in told(database)] == [[ids[0], 1], [ids[1], 2]]
    assert code == 0
    assert killed >= 3


@pytest.mark.sqlite_only
def test_what_a_payload_may_ask_for(database: Database) -> None:
    """Whoever may write rows may write anything; arguments that only Ruby reads do not keep the other job away."""
    ids = add_jobs(database, asking(1), asking(2), asking(3))
    wrong = [{"jq_on_death": "tell"}, {"jq_on_death": {"class_name": "x" * 256, "queue_name": "q", "priority": 1}}]
    ruby = {
        "arguments": [{"_aj_serialized": "ActiveJob::Serializers::ModuleSerializer", "value": "Kernel"}],
        "jq_on_death": TELL._asdict(),
    }
    with database.write() as connection:
        for job_id, payload in zip(ids, [*wrong, ruby], strict=True):
            connection.execute(update(jobs).where(jobs.c.id == job_id).values(arguments=json.dumps(payload)))
    die(database)
    assert told(database) == [([ids[2]], {})]
    # An error of the job's own is no death.
    worker = add_process(database)
    claim_all(database, worker)
    (lone,) = add_jobs(database, asking(4))
    with database.write() as connection:
        connection.execute(failed.insert().values(job_id=lone, error='{"message":"no"}', created_at=utcnow()))
    crashes.count_all(database)
    assert len(told(database)) == 1
    assert len(rows(database, crash_table)) == 3


def test_no_row_stops_a_prune(database: Database) -> None:
    """Names that no column takes, numbers that JSON has not, arguments that are too long with one more."""
    names = [("a\0b", "q"), ("a\ud800b", "q"), ("tell", "q\0"), ("é" * 255, "q" * 255), ("😀" * 255, "q")]
    wrong = [{"class_name": name, "queue_name": queue, "priority": 1} for name, queue in names]
    odd = [["\0"], ["\ud800"], [float("inf")], [10**400], ["x" * 65_400]]
    payloads = [{"arguments": [1], "jq_on_death": wanted} for wanted in wrong]
    payloads += [{"arguments": given, "jq_on_death": TELL._asdict()} for given in odd]
    ids = add_jobs(database, *(asking() for _ in payloads))
    with database.write() as connection:
        for job_id, payload in zip(ids, payloads, strict=True):
            connection.execute(update(jobs).where(jobs.c.id == job_id).values(arguments=json.dumps(payload)))
    die(database)
    assert len(rows(database, failed)) == len(rows(database, crash_table)) == len(payloads)
    assert {args[0] for args, _ in told(database)} == set(ids[-len(odd) :])


def test_a_role_that_may_enqueue_nothing_prunes(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    (held,) = add_jobs(database, asking(1))
    monkeypatch.setattr(on_death, "fault_of", lambda _: Fault.DENIED)  # of any error, as this one's
    monkeypatch.setattr(on_death, "enqueue", lambda connection, _: connection.execute(text("SELECT 1 FROM nowhere")))
    die(database)
    assert [row["job_id"] for row in rows(database, failed)] == [held]
    assert told(database) == []


def test_what_the_decorator_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_jobs", {})

    @job(name="tell", queue="urgent", priority=3)
    def tell(job_id: int) -> None: ...

    @job(on_death=tell)
    def render() -> None: ...

    @job(on_death="Elsewhere")
    def import_all() -> None: ...

    assert render.new().on_death == OnDeath("tell", "urgent", 3)
    assert import_all.new().on_death == OnDeath("Elsewhere")
    assert tell.new().on_death is None
    assert on_death_of(None) is None

    @job(limit=1)
    def limited(job_id: int) -> None: ...

    for wrong in (limited, print, "", 7):
        with pytest.raises(UsageError, match="on_death"):
            job(on_death=wrong)  # type: ignore[call-overload]


@pytest.mark.sqlite_only
def test_a_worker_that_is_killed(database: Database, runtime: Runtime) -> None:
    """The next worker runs it, and knows no more of the dead one than that."""
    runtime.start("--threads", "1")
    (held,) = add_jobs(database, NewJob(class_name="hold", args=["it"], on_death=OnDeath("note")))
    kill(runtime.running("it"), signal.SIGKILL)
    until(lambda: f"({held}, 'it') {{}}" in runtime.journal(), "the other job has run")
    assert runtime.state(held) is State.FAILED
    assert told(database, "note") == [([held, "it"], {})]
