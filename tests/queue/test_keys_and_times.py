"""Concurrency keys with their holders, and how long jobs take."""

from datetime import timedelta

import pytest
from sqlalchemy import update

from solidjq import Database, NewJob
from solidjq.database.tables import claimed, jobs, ready
from solidjq.queue.concurrency import Limit
from solidjq.queue.job_times import Percentiles, job_times, percentiles
from solidjq.queue.keys import holders_of, hottest_keys
from solidjq.queue.states import State
from support.processes import add_process
from support.queue import add_jobs, claim_all, plain_jobs

TWO = Limit(2, 60.0)


def limited(key: str, count: int) -> list[NewJob]:
    return [NewJob(class_name="Import", concurrency_key=key, limit=TWO) for _ in range(count)]


def test_the_hottest_keys_come_first_and_their_slots_add_up(database: Database) -> None:
    a = add_jobs(database, *limited("a", 3))
    process = add_process(database, pid=77)
    claim_all(database, process, 1)
    add_jobs(database, *limited("b", 1))
    c = add_jobs(database, *limited("c", 6))
    add_jobs(database, *plain_jobs(2))
    with database.read() as connection:
        found = hottest_keys(connection, 10)
        assert [(k.key, k.blocked, k.ready, k.claimed, k.free, k.limit) for k in found] == [
            ("c", 4, 2, 0, 0, 2),
            ("a", 1, 1, 1, 0, 2),
            ("b", 0, 1, 0, 1, 2),
        ]
        assert found[0].oldest_blocked_at is not None
        assert found[2].oldest_blocked_at is None
        assert [k.key for k in hottest_keys(connection, 1)] == ["c"]
        holders = holders_of(connection, ["a"], 10)
        assert [(h.key, h.job_id, h.state, h.hostname, h.pid) for h in holders] == [
            ("a", a[0], State.CLAIMED, "testhost", 77),
            ("a", a[1], State.READY, None, None),
        ]
        assert [h.job_id for h in holders_of(connection, ["a", "c"], 1)] == [a[0], a[1]]
        assert len(holders_of(connection, ["c"], 10)) == len(c) - 4


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        ([7.0], (1, 7.0, 7.0, 7.0)),
        ([float(n) for n in range(1, 101)], (100, 50.0, 95.0, 99.0)),
        ([3.0, 1.0, 2.0], (3, 2.0, 3.0, 3.0)),
        ([1.0] * 99 + [9.0], (100, 1.0, 1.0, 1.0)),
        ([1.0] * 98 + [9.0] * 2, (100, 1.0, 1.0, 9.0)),
    ],
)
def test_percentiles_are_times_that_occur(seconds: list[float], expected: tuple[float, ...]) -> None:
    assert percentiles(seconds) == expected


def test_the_times_of_a_class(database: Database) -> None:
    now = database.now()
    done = add_jobs(database, *(NewJob(class_name="Report", queue_name="reports") for _ in range(10)))
    running = add_jobs(database, NewJob(class_name="Report", queue_name="reports"))
    waiting = add_jobs(database, NewJob(class_name="Mail"))
    with database.write() as connection:
        for number, job_id in enumerate(done, start=1):
            due = now - timedelta(hours=1)
            times = {"scheduled_at": due, "created_at": due - timedelta(hours=9)}
            ended = update(jobs).where(jobs.c.id == job_id)
            connection.execute(ended.values(finished_at=due + timedelta(seconds=number), **times))
        connection.execute(ready.delete().where(ready.c.job_id.in_(done)))
    process = add_process(database)
    with database.write() as connection:
        connection.execute(ready.delete().where(ready.c.job_id == running[0]))
        connection.execute(
            claimed.insert().values(job_id=running[0], process_id=process, created_at=now - timedelta(seconds=30))
        )
        connection.execute(
            update(jobs)
            .where(jobs.c.id == running[0])
            .values(created_at=now - timedelta(seconds=50), scheduled_at=now - timedelta(seconds=50))
        )
    with database.read() as connection:
        found = job_times(connection)
        report, mail = found.classes
        assert (report.class_name, report.finished) == ("Report", Percentiles(10, 5.0, 10.0, 10.0))
        assert report.waited is not None
        assert report.waited.p50 == 20.0
        assert report.running is not None
        assert report.running.p50 >= 30.0
        assert report.waiting is None
        assert (mail.class_name, mail.finished, mail.waiting and mail.waiting.times) == ("Mail", None, len(waiting))
        assert not found.sampled
        few = job_times(connection, sample=4)
        assert few.sampled
        assert few.classes[0].finished == Percentiles(4, 8.0, 10.0, 10.0)  # those that finished last
        assert [each.class_name for each in job_times(connection, queues=("rep*",)).classes] == ["Report"]
        assert [each.class_name for each in job_times(connection, classes=("Mail",)).classes] == ["Mail"]
        late = job_times(connection, since=now - timedelta(hours=1) + timedelta(seconds=8))
        assert late.classes[0].finished == Percentiles(3, 9.0, 10.0, 10.0)
