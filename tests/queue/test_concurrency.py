"""Slots of many keys at once: what they should become, and in how few statements."""

import random
from dataclasses import dataclass, field
from datetime import timedelta

import pytest
from sqlalchemy import delete, event

from solidjq import Database, NewJob
from solidjq.database.tables import claimed, jobs, semaphores
from solidjq.database.times import clock
from solidjq.queue import claim, concurrency, discard, dispatch, endings
from solidjq.queue.concurrency import Limit
from solidjq.queue.enqueue import enqueue_alone
from solidjq.queue.states import State
from support.processes import add_process
from support.queue import add_jobs, rows, state_of_each

LIMITS = {"Narrow": Limit(1, 60), "Wide": Limit(3, 600)}
KEYS = ["Job/1", "a,b", '{"x"}', "o'c", "back\\slash", "%s :key", "ü", "NULL"]


@dataclass(eq=False)
class Job:
    class_name: str
    key: str
    priority: int
    state: State = State.BLOCKED


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
            top = self.known.get(min(given), Limit(1)).to
            free = self.slots[key].free
            if free < top:
                self.slots[key].free = min(free + len(given) - len(promoted), top)


def check(database: Database, model: Model) -> None:
    assert list(state_of_each(database).values()) == [job.state for job in model.jobs]
    with database.read() as connection:
        far = clock(connection) + timedelta(seconds=300)
    assert {row["key"]: (row["value"], row["expires_at"] > far) for row in rows(database, semaphores)} == {
        key: (slots.free, slots.duration > 300) for key, slots in model.slots.items()
    }


@pytest.mark.parametrize("known", [LIMITS, {}], ids=["known", "unknown"])
@pytest.mark.parametrize("seed", range(3))
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
                database.transact(endings.finish_claims, claims, known)
            elif after is State.FAILED:
                database.transact(endings.fail, endings.held_by(process, claims), "{}", known)
            else:
                database.transact(discard.discard, chosen, known)
            check(database, model)
        for key in chance.sample(sorted(model.slots), len(model.slots) // 8):  # as one that expired
            del model.slots[key]
            with database.write() as connection:
                connection.execute(delete(semaphores).where(semaphores.c.key == key))


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
            lambda: database.transact(endings.fail, endings.held_by(process), "{}"),
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
