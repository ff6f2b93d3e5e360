"""Slots of many keys at once: what they should become, and in how few statements."""

import random
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import delete, event, update

from solidjq import Database, NewJob
from solidjq.database.tables import blocked, claimed, jobs, semaphores
from solidjq.database.times import ago, clock
from solidjq.queue import claim, concurrency, discard, dispatch, endings, slot_maintenance
from solidjq.queue.concurrency import Limit
from solidjq.queue.enqueue import enqueue_alone
from solidjq.queue.states import State
from support.processes import add_process
from support.queue import add_jobs, claim_all, rows, state_of_each
from support.scenes import age_of, change

LIMITS = {"Narrow": Limit(1, 60), "Wide": Limit(3, 600)}
KEYS = ["Job/1", "a,b", '{"x"}', "o'c", "back\\slash", "%s :key", "ü", "NULL"]


@dataclass(eq=False)
class Job:
    class_name: str
    key: str
    priority: int
    state: State = State.BLOCKED
    enqueued_under: bool = True  # the semaphore that is there now


@dataclass
class Slots:
    free: int
    duration: float


@dataclass
class Model:
    """What should become of jobs and slots: one key after the other, and no database."""

    known: dict[str, Limit]  # to whoever ends jobs
    jobs: list[Job] = field(default_factory=list)
    slots: dict[str, Slots] = field(default_factory=dict)

    def enqueue(self, new: list[Job]) -> None:
        self.jobs += new
        for job in sorted(new, key=lambda job: LIMITS[job.class_name]):
            self.slots.setdefault(job.key, Slots(*LIMITS[job.class_name]))
        order = list(dict.fromkeys((job.key, job.class_name) for job in new))
        for job in sorted(new, key=lambda job: order.index((job.key, job.class_name))):
            if self.slots[job.key].free > 0:
                self.slots[job.key].free -= 1
                job.state = State.READY
        for job in sorted(new, key=lambda job: LIMITS[job.class_name]):
            if job.state is State.READY:
                self.slots[job.key].duration = LIMITS[job.class_name].duration

    def in_order(self, state: State, key: str | None = None) -> list[Job]:
        found = [job for job in self.jobs if job.state is state and key in (None, job.key)]
        return sorted(found, key=lambda job: job.priority)

    def claim(self, most: int) -> None:
        for job in self.in_order(State.READY)[:most]:
            job.state = State.CLAIMED

    def end(self, ended: list[Job], state: State | None) -> None:
        """Give jobs another state, or None: discard them; and their slots to those who wait."""
        for job in ended:
            if state is None:
                self.jobs.remove(job)
            else:
                job.state = state
        for key in {job.key for job in ended} & self.slots.keys():
            given = [job.class_name for job in ended if job.key == key]
            promoted = self.in_order(State.BLOCKED, key)[: len(given)]
            for job in promoted:
                job.state = State.READY
                self.slots[key].duration = LIMITS[job.class_name].duration
            slots, left = self.slots[key], len(given) - len(promoted)
            if min(given) in self.known:
                slots.free = max(slots.free, min(slots.free + left, self.known[min(given)].to))
            elif left:
                certain = sum(job.enqueued_under for job in ended if job.key == key)
                slots.free += max(min(left, certain), 0 if slots.free else 1)
                if certain < left and not self.in_order(State.READY, key) + self.in_order(State.CLAIMED, key):
                    del self.slots[key]

    def expire(self, key: str) -> None:
        """Let a semaphore expire long after its jobs were enqueued."""
        del self.slots[key]
        for job in self.jobs:
            job.enqueued_under &= job.key != key


def check(database: Database, model: Model) -> None:
    assert list(state_of_each(database).values()) == [job.state for job in model.jobs]
    with database.read() as connection:
        far = clock(connection) + timedelta(seconds=300)
    assert {row["key"]: (row["value"], row["expires_at"] > far) for row in rows(database, semaphores)} == {
        key: (slots.free, slots.duration > 300) for key, slots in model.slots.items()
    }


@pytest.mark.parametrize("known", [LIMITS, {}], ids=["known", "unknown"])
@pytest.mark.parametrize("seed", range(2))
def test_slots_are_taken_and_given_back(database: Database, seed: int, known: dict[str, Limit]) -> None:
    """Jobs are enqueued, claimed, ended and discarded by chance; classes with different limits share keys."""
    chance, model = random.Random(seed), Model(known)  # noqa: S311
    process = add_process(database)
    for _ in range(8):
        new = [
            Job(chance.choice(sorted(LIMITS)), chance.choice(KEYS), chance.randrange(3))
            for _ in range(chance.randrange(25))
        ]
        model.enqueue(new)
        add_jobs(
            database,
            *(
                NewJob(
                    class_name=job.class_name,
                    priority=job.priority,
                    concurrency_key=job.key,
                    limit=LIMITS[job.class_name],
                )
                for job in new
            ),
        )
        check(database, model)
        most = chance.randrange(20)
        model.claim(most)
        database.transact(claim.claim, process, claim.ALL_QUEUES, most)
        check(database, model)
        for before, after in (
            (State.CLAIMED, State.FINISHED),
            (State.CLAIMED, State.FAILED),
            (State.READY, None),
        ):
            ids = list(state_of_each(database))
            those = [number for number, job in enumerate(model.jobs) if job.state is before]
            those = chance.sample(those, len(those) // 2)
            chosen = {ids[number] for number in those}
            claims = [row["id"] for row in rows(database, claimed) if row["job_id"] in chosen]
            model.end([model.jobs[number] for number in those], after)
            if after is State.FINISHED:
                database.transact(endings.finish, endings.claims_of(process, claims), known)
            elif after is State.FAILED:
                database.transact(endings.fail, endings.claims_of(process, claims), "{}", known)
            else:
                database.transact(discard.discard, chosen, known)
            check(database, model)
        for key in chance.sample(sorted(model.slots), len(model.slots) // 8):  # as one that expired
            model.expire(key)
            of_key = jobs.c.concurrency_key == key
            change(
                database,
                delete(semaphores).where(semaphores.c.key == key),
                age_of(jobs, 3600, "created_at").where(of_key),
                age_of(jobs, 3600, "scheduled_at").where(of_key),
            )


TWO = Limit(2, 60)


def end_all(database: Database, process: int) -> None:
    """End jobs as a program does that does not know their limit: a prune by ``jq``, say."""
    claim_all(database, process)
    database.transact(endings.fail, endings.claims_of(process), "{}")


def free_slots(database: Database) -> dict[str, int]:
    return {row["key"]: row["value"] for row in rows(database, semaphores)}


def of_key(number: int, *, key: str = "Job/1") -> list[NewJob]:
    return [NewJob(class_name="Job", concurrency_key=key, limit=TWO) for _ in range(number)]


def test_all_slots_of_a_dead_process_come_back_though_the_limit_is_unknown(database: Database) -> None:
    """Under steady traffic a semaphore that is too low never expires, so it would stay too low for ever."""
    add_jobs(database, *of_key(2))
    process = add_process(database)
    end_all(database, process)
    assert free_slots(database) == {"Job/1": 2}
    add_jobs(database, *of_key(3))  # traffic that never ends: somebody always holds a slot
    claim_all(database, process)
    first, _ = [row["id"] for row in rows(database, claimed)]
    database.transact(endings.fail, endings.claims_of(process, [first]), "{}")
    assert free_slots(database) == {"Job/1": 0}  # passed to the job that was blocked
    end_all(database, process)
    assert free_slots(database) == {"Job/1": 2}


def test_a_slot_of_an_expired_semaphore_does_not_come_back(database: Database) -> None:
    add_jobs(database, *of_key(2))
    old = add_process(database, "old")
    claim_all(database, old)
    change(database, delete(semaphores), age_of(jobs, 3600, "created_at"), age_of(jobs, 3600, "scheduled_at"))
    add_jobs(database, *of_key(1))  # makes the semaphore anew
    assert free_slots(database) == {"Job/1": 1}
    database.transact(endings.fail, endings.claims_of(old), "{}")
    assert free_slots(database) == {"Job/1": 1}
    end_all(database, add_process(database, "new"))
    assert free_slots(database) == {"Job/1": 2}


def test_a_semaphore_that_nobody_holds_is_made_anew_where_its_slots_are_in_doubt(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A job that was retried got its slot long after it was enqueued: which semaphore it was is not to be seen."""
    process = add_process(database)
    for most_ready, left in ((concurrency.MOST_READY, {"Job/2": 1}), (0, {"Job/1": 1, "Job/2": 1})):
        monkeypatch.setattr(concurrency, "MOST_READY", most_ready)
        add_jobs(database, *of_key(2))
        claim_all(database, process)
        add_jobs(database, *of_key(1, key="Job/2"))
        change(database, age_of(jobs, 3600, "created_at"), age_of(jobs, 3600, "scheduled_at"))
        database.transact(endings.fail, endings.claims_of(process), "{}")
        assert free_slots(database) == left
        change(database, delete(jobs), delete(semaphores))


def test_maintenance_gives_lost_slots_back(database: Database) -> None:
    """Whatever lost them: each key's free slots and its jobs make the limit again."""
    limits = {"Job": Limit(3)}
    add_jobs(database, *(job for key in ("Job/1", "Job/2", "Jobs/1") for job in of_key(4, key=key)))
    claim_all(database, add_process(database))
    change(database, update(semaphores).values(value=0))
    lost = {"Job/1": 1, "Job/2": 1}
    with database.read() as connection:
        assert slot_maintenance.find_short(connection, limits, 9) == list(lost)
        assert slot_maintenance.find_short(connection, {}, 9) == []
    assert len(database.transact(slot_maintenance.refill, list(lost), limits)) == len(lost)  # blocked jobs take them
    assert free_slots(database) == {"Job/1": 0, "Job/2": 0, "Jobs/1": 0}
    assert database.transact(slot_maintenance.refill, list(lost), limits) == []
    change(database, delete(jobs))
    assert database.transact(slot_maintenance.refill, list(lost), limits) == []
    assert free_slots(database) == {"Job/1": 3, "Job/2": 3, "Jobs/1": 0}


def test_a_key_with_many_expired_jobs_leaves_room_for_others(database: Database) -> None:
    """Maintenance takes so many keys a round: one key counts once, and a key whose wait is not over does not count."""
    new = (job for key, jobs_of_it in (("Job/1", 6), ("Job/2", 3), ("Job/3", 3)) for job in of_key(jobs_of_it, key=key))
    add_jobs(database, *new)
    change(database, delete(semaphores), age_of(blocked, 60, "expires_at"))
    change(database, update(blocked).where(blocked.c.concurrency_key == "Job/2").values(expires_at=ago(-60)))
    with database.read() as connection:
        assert slot_maintenance.expired_keys(connection, 2) == ["Job/1", "Job/3"]
        assert slot_maintenance.expired_keys(connection, 1) == ["Job/1"]


@pytest.mark.only_on("postgresql")  # MariaDB locks the row in the first statement
def test_a_semaphore_that_vanishes_between_two_statements_is_made_again(database: Database) -> None:
    """A prune may delete it while an enqueue waits for its lock; the job would be blocked with nobody before it."""
    add_jobs(database, *of_key(2))
    end_all(database, add_process(database))
    deletions = [delete(semaphores)]

    def delete_before_the_lock(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        if "solid_queue_semaphores" in statement and "FOR UPDATE" in statement and deletions:
            other = Database(database.url)
            change(other, deletions.pop())
            other.close()

    event.listen(database._reader, "before_cursor_execute", delete_before_the_lock)
    add_jobs(database, *of_key(1))
    assert deletions == []
    assert free_slots(database) == {"Job/1": 1}
    assert State.BLOCKED not in state_of_each(database).values()


@pytest.mark.only_on("sqlite", "postgresql")
def test_many_keys_take_no_more_statements_than_few(database: Database) -> None:
    statements: list[str] = []
    event.listen(database._reader, "before_cursor_execute", lambda *told: statements.append(told[2]))
    process = add_process(database)

    def through(keys: int) -> list[int]:
        """Bring a job of each key, and for two of them a second one, through the queue; count the statements."""
        names = [*range(keys), 0, 1]
        limit = LIMITS["Narrow"]
        counts = []
        for step in (
            lambda: add_jobs(
                database,
                *(NewJob(class_name="N", concurrency_key=f"{keys} {name}", limit=limit) for name in names),
            ),
            lambda: database.transact(claim.claim, process, claim.ALL_QUEUES, 100),
            lambda: database.transact(endings.fail, endings.claims_of(process), "{}"),
        ):
            statements.clear()
            step()
            counts.append(len(statements))
        assert [row["value"] for row in rows(database, semaphores)].count(0) == 2
        with database.write() as connection:
            connection.execute(delete(jobs))
            connection.execute(delete(semaphores))
        return counts

    through(3)
    assert through(60) == through(6)


def test_the_keys_of_a_class_are_read_from_its_newest_jobs(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    def keys(class_name: str, most: int = 9) -> list[str]:
        with database.read() as connection:
            return concurrency.recent_keys(connection, class_name, most)

    def keyed(class_name: str, *names: str) -> list[NewJob]:
        return [NewJob(class_name=class_name, concurrency_key=name, limit=Limit(1)) for name in names]

    assert keys("A") == []
    add_jobs(database, *keyed("A", "A/1", "A/2", "A/1", "A/3"), *keyed("B", "B/1"), NewJob(class_name="C"))
    assert (keys("A"), keys("A", 2), keys("B"), keys("C")) == (["A/3", "A/1", "A/2"], ["A/3", "A/1"], ["B/1"], [])
    monkeypatch.setattr(concurrency, "MOST_ROWS", 2)
    assert keys("A") == ["A/3", "A/1"]
    monkeypatch.setattr(concurrency, "NEWEST", 1)  # C alone is among these; the others are found by their class
    assert sorted(keys("A")) in (["A/1", "A/2"], ["A/1", "A/3"], ["A/2", "A/3"], ["A/1"])
    assert keys("B") == ["B/1"]


def test_a_job_whose_limit_only_another_dispatcher_knows_is_left_to_it(database: Database) -> None:
    """It must not become ready without a slot: its end would give one back."""
    new = [NewJob(class_name="RubyJob", concurrency_key="RubyJob/1", delay=delay) for delay in (None, 60)]
    ids = [enqueue_alone(database, new[0]), *add_jobs(database, *new)]
    assert set(state_of_each(database).values()) == {State.SCHEDULED}
    assert database.transact(dispatch.dispatch, 10) == []
    assert database.transact(dispatch.dispatch, 10, {"RubyJob": Limit(1)}) == ids[:2]
    assert list(state_of_each(database).values()) == [State.READY, State.BLOCKED, State.SCHEDULED]
