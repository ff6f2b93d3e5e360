"""Scans that begin at a bound: what is passed over, for how long, and never while a worker has nothing to do."""

from collections.abc import Callable, Iterator, Sequence

import pytest
from sqlalchemy import delete, update

from solidjq import Database, NewJob
from solidjq.database.statements import WriteStyle
from solidjq.database.tables import processes, scheduled
from solidjq.database.times import ago
from solidjq.errors import ProcessGoneError
from solidjq.queue import claim as queue_claim
from solidjq.queue import dispatch, endings, enqueue, pauses, ready_rows, waiting
from solidjq.queue.claim import Claim
from solidjq.queue.scan_start import LEAST_INTERVAL, MEASURE_INTERVAL, Bound, ScanStart
from solidjq.rails.error_text import error_json
from support.processes import add_process
from support.queue import add_jobs, fail, plain_jobs, take_turn
from support.recovery import retry_jobs

DEAR = 0.01  # seconds
WITH_BOUNDS = pytest.mark.only_on("postgresql", "mariadb")  # SQLite keeps no entries of deleted rows


def cost(seconds: float) -> Callable[[str | None, Bound], float]:
    return lambda _queue, _bound: seconds


def measured(seconds: float) -> ScanStart:
    """Return the bounds of a worker that has claimed job 17 at the time 0, and measured what a scan costs."""
    start = ScanStart()
    start.begin(0)
    start.note(None, [placed(17)])
    start.measure_if_due(cost(seconds), 0)
    start.begin(0)
    start.note(None, [placed(17)])
    return start


def placed(job_id: int, priority: int = 0) -> Claim:
    return Claim(1, job_id, None, "default", priority, "J", None, None)


def bound_at(start: ScanStart, now: float) -> Bound | None:
    start.begin(now)
    return start.bound(None)


def test_where_scans_are_cheap_each_begins_at_the_first_entry() -> None:
    assert bound_at(measured(0.0001), 0) is None


def test_where_they_are_dear_one_in_an_interval_begins_there() -> None:
    start = measured(DEAR)
    assert start.interval == LEAST_INTERVAL
    assert bound_at(start, 0.9 * LEAST_INTERVAL) == Bound(0, 17)
    assert bound_at(start, LEAST_INTERVAL) is None
    start.note(None, [placed(18), placed(3, priority=1)])
    assert bound_at(start, 1.9 * LEAST_INTERVAL) == Bound(1, 3)


def test_scans_from_the_first_entry_take_a_tenth_of_the_time_however_dear_they_are() -> None:
    start = measured(2.0)
    assert start.interval == 20
    assert bound_at(start, 19) is not None
    assert bound_at(start, 20) is None


def test_who_finds_too_little_behind_a_bound_looks_from_the_first_entry_at_once() -> None:
    start = measured(DEAR)
    assert not start.must_look_again(found=1, wanted=2)  # that was from the first entry
    assert bound_at(start, 0.01)
    assert not start.must_look_again(found=2, wanted=2)
    assert start.must_look_again(found=1, wanted=2)
    assert bound_at(start, 0.01) is None
    assert not start.must_look_again(found=1, wanted=2)


def test_it_is_measured_again_whether_scans_are_still_dear() -> None:
    start = measured(DEAR)
    start.measure_if_due(cost(0), 0.9 * MEASURE_INTERVAL)
    assert bound_at(start, 0.01) is not None
    start.measure_if_due(cost(0), MEASURE_INTERVAL)
    assert bound_at(start, 0.01) is None


class Turns:
    """A worker's turns, two jobs each, at times that the test says."""

    def __init__(self, database: Database, queues: Sequence[str] = ("*",), excepted: Sequence[str] = ()) -> None:
        self.start = ScanStart()
        self.process = add_process(database)
        self._database = database
        self._queues = queues, excepted
        self._held: dict[int, int] = {}

    def take(self, now: float, limit: int = 2) -> list[int]:
        """Finish the jobs of the turn before, claim others and return their ids."""
        self.start.begin(now)
        queues, excepted = self._queues
        claims = queue_claim.exchange(
            self._database, self.process, self._held, queues, limit, excepted, self.start
        ) or self._in_steps(limit)
        self._held = {claim.id: claim.job_id for claim in claims}
        self.start.measure_if_due(cost(DEAR), now)
        return list(self._held.values())

    def _in_steps(self, limit: int) -> list[Claim]:
        queues, excepted = self._queues
        self._database.transact(endings.finish_claims, self.process, self._held)
        return self._database.transact(queue_claim.claim, self.process, queues, limit, excepted, scan_start=self.start)


# What comes to stand before the bound. Each yields when the jobs behind it may be enqueued and claimed, and then makes
# its own ready and yields its id.
Arrival = Callable[[Database], Iterator[int]]


def better_priority(database: Database) -> Iterator[int]:
    yield 0
    yield add_jobs(database, NewJob(class_name="J", priority=-1))[0]


def late_commit(database: Database) -> Iterator[int]:
    with database.write() as connection:
        (job_id,) = enqueue.enqueue(connection, [NewJob(class_name="J")])
        yield 0
    yield job_id


def due(database: Database) -> Iterator[int]:
    (job_id,) = add_jobs(database, NewJob(class_name="J", delay=3600))
    yield 0
    with database.write() as connection:
        connection.execute(update(scheduled).values(scheduled_at=ago(1)))
    database.transact(dispatch.dispatch, 10)
    yield job_id


def released(database: Database) -> Iterator[int]:
    other = add_process(database, "other")
    add_jobs(database, NewJob(class_name="J"))
    (claim,) = database.transact(queue_claim.claim, other, ("*",), 1)
    yield 0
    database.transact(endings.release, endings.claims_of(other))
    yield claim.job_id


def retried(database: Database) -> Iterator[int]:
    (job_id,) = fail(database, NewJob(class_name="J"), error=error_json("E", "boom"))
    yield 0
    retry_jobs(database)
    yield job_id


def run_now(database: Database) -> Iterator[int]:
    (job_id,) = add_jobs(database, NewJob(class_name="J", delay=3600))
    yield 0
    database.transact(waiting.run_now, [job_id])
    yield job_id


@WITH_BOUNDS
@pytest.mark.parametrize("arrival", [better_priority, late_commit, due, released, retried, run_now])
@pytest.mark.parametrize(
    ("queues", "excepted"),
    [(("*",), ()), (("default",), ()), (("default", "a"), ()), (("def*",), ()), (("*",), ("a",))],
    ids=["all", "one", "two", "prefix", "exception"],
)
def test_what_comes_before_the_bound_waits_for_an_interval_at_most(
    database: Database, arrival: Arrival, queues: tuple[str, ...], excepted: tuple[str, ...]
) -> None:
    turns = Turns(database, queues, excepted)
    arriving = arrival(database)
    next(arriving)
    ids = add_jobs(database, *plain_jobs(12))
    assert turns.take(0) + turns.take(0) == ids[:4]
    early = next(arriving)
    if database.write_style is WriteStyle.SILENT and (excepted or queues not in {("*",), ("default",)}):
        assert turns.take(0.05) == [early, ids[4]]  # several statements a turn: none begins at a bound on MySQL
        return
    assert turns.take(0.05) == ids[4:6]
    assert turns.take(LEAST_INTERVAL) == [early, ids[6]]
    assert turns.take(LEAST_INTERVAL) == ids[7:9]


@WITH_BOUNDS
def test_a_queue_that_is_resumed_is_claimed_from_within_an_interval(database: Database) -> None:
    turns = Turns(database)
    (early,) = add_jobs(database, NewJob(class_name="J", queue_name="slow"))
    database.transact(pauses.pause, "slow")
    ids = add_jobs(database, *plain_jobs(12))
    assert turns.take(0) + turns.take(0) + turns.take(0.01) == ids[:6]
    database.transact(pauses.resume, "slow")
    assert early in turns.take(0.05) + turns.take(LEAST_INTERVAL)


@WITH_BOUNDS
def test_a_queue_that_is_paused_is_left_alone_at_once(database: Database) -> None:
    turns = Turns(database)
    ids = add_jobs(database, *plain_jobs(12))
    assert turns.take(0) + turns.take(0) == ids[:4]
    database.transact(pauses.pause, "default")
    assert turns.take(0.05) == []


@WITH_BOUNDS
def test_priorities_and_queues_keep_their_order_behind_a_bound(database: Database) -> None:
    low = add_jobs(database, *plain_jobs(3, priority=5, queue_name="b"))
    high = add_jobs(database, *plain_jobs(5, priority=-5, queue_name="b"))
    other = add_jobs(database, *plain_jobs(3, queue_name="a"))
    turns = Turns(database)
    expected = [high[:2], high[2:4], [high[4], other[0]], other[1:], low[:2], low[2:]]
    assert [turns.take(0) for _ in expected] == expected


@WITH_BOUNDS
def test_two_workers_behind_bounds_claim_no_job_twice_and_leave_none(database: Database) -> None:
    ids = add_jobs(database, *plain_jobs(24))
    one, other = Turns(database), Turns(database)
    claimed = [job_id for _ in range(6) for turns in (one, other) for job_id in turns.take(0)]
    assert claimed == ids


@WITH_BOUNDS
def test_a_pruned_worker_claims_nothing_behind_a_bound(database: Database) -> None:
    turns = Turns(database)
    add_jobs(database, *plain_jobs(12))
    turns.take(0)
    turns.take(0)
    with database.write() as connection:
        connection.execute(delete(processes).where(processes.c.id == turns.process))
    with pytest.raises(ProcessGoneError):
        turns.take(0.01)


@pytest.mark.only_on("postgresql")
def test_a_claim_beside_endings_of_another_kind_begins_at_the_bound_too(database: Database) -> None:
    turns = Turns(database)
    ids = add_jobs(database, *plain_jobs(12))
    turns.take(0)
    turns.take(0)
    add_jobs(database, NewJob(class_name="J", priority=-1))
    turns.start.begin(0.05)
    claims = database.transact(queue_claim.claim, turns.process, ("*",), 2, scan_start=turns.start)
    assert [claim.job_id for claim in claims] == ids[4:6]


@pytest.mark.only_on("postgresql")  # on MySQL no turn of several queues passes over anything
@pytest.mark.parametrize(
    ("queues", "excepted"), [(("urgent", "a*"), ()), (("*",), ("b",))], ids=["name and prefix", "exception"]
)
def test_a_queue_that_was_empty_waits_for_no_interval_while_a_worker_is_idle(
    database: Database, queues: tuple[str, ...], excepted: tuple[str, ...]
) -> None:
    """The queues of a turn are kept for an interval: in this one, a queue by its name, or one that is paused."""
    turns = Turns(database, queues, excepted)
    ids = add_jobs(database, *plain_jobs(2, queue_name="a"))
    assert turns.take(0) == ids  # busy, so it measures that scans are dear
    add_jobs(database, *plain_jobs(1, queue_name="c"))
    database.transact(pauses.pause, "c")
    assert turns.take(LEAST_INTERVAL) == []
    new = add_jobs(database, NewJob(class_name="J", queue_name="a"))
    found = turns.take(1.5 * LEAST_INTERVAL)
    if turns.start.must_look_again(found=len(found), wanted=2):
        found += turns.take(1.5 * LEAST_INTERVAL)
    assert found == new


def test_without_bounds_the_first_job_comes_first(database: Database) -> None:
    process = add_process(database)
    ids = add_jobs(database, *plain_jobs(4))
    claims = take_turn(database, process, [], ["*"], 2)
    (early,) = add_jobs(database, NewJob(class_name="J", priority=-1))
    assert [claim.job_id for claim in take_turn(database, process, claims, ["*"], 2)] == [early, ids[2]]


def test_what_is_measured_is_the_scan_up_to_the_bound(database: Database) -> None:
    """It must not lock the jobs that a claim would find behind the bound."""
    first, second, third = add_jobs(
        database,
        NewJob(class_name="J", priority=1),
        NewJob(class_name="J", priority=2, queue_name="b"),
        NewJob(class_name="J", priority=2),
    )
    style = database.write_style
    with database.write() as connection:

        def before(queue: str | None, bound: Bound) -> list[int]:
            return list(connection.scalars(ready_rows.ready_before(queue, style), bound._asdict()))

        assert before(None, Bound(1, first)) == []
        assert before(None, Bound(1, first + 1)) == before(None, Bound(2, third)) == [first]
        assert before("b", Bound(2, second)) == before("b", Bound(2, 0)) == []
        assert before("b", Bound(2, third)) == [second]
    assert isinstance(queue_claim.scan_cost(database, None, Bound(1, first)), float)
    assert isinstance(queue_claim.scan_cost(database, "b", Bound(1, first)), float)
