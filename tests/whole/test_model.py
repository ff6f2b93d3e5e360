"""Any sequence of verbs: every change of a job's state is an arrow of states.py, and no limit is ever exceeded."""

from collections import Counter
from collections.abc import Callable
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test
from sqlalchemy import Connection, delete, select, update

from solidjq import Database, NewJob, enqueue
from solidjq.database import tables
from solidjq.database.tables import failures, jobs, scheduled
from solidjq.database.times import ago
from solidjq.ledger.operations import Operation
from solidjq.processes import heartbeat, pruning
from solidjq.queue import claim as queue_claim
from solidjq.queue import discard, dispatch, endings, pauses
from solidjq.queue.concurrency import Limit
from solidjq.queue.states import MOVES, State
from solidjq.rails.error_text import error_json
from solidjq.recovery import undo
from solidjq.recovery.terms import Selection
from support.processes import fail_orphans
from support.queue import clear, rows, state_of_each
from support.recovery import retry_jobs

TWO = Limit(2, duration=3600)
LIMITS = {"Limited": TWO}
ARROWS = {(move.verb, move.source, move.target) for move in MOVES}
INDEX = st.integers(min_value=0, max_value=1000)


class Queue(RuleBasedStateMachine):
    database: Database

    def __init__(self) -> None:
        super().__init__()
        clear(self.database)
        self.states: dict[int, State] = {}
        self.processes: list[int] = []
        self.archived = 0
        self.deaths: Counter[int] = Counter()
        self.operations: list[Operation] = []
        self.names = 0

    def step(self, verb: str, move: Callable[[], list[int]]) -> list[int]:
        """Make a move; check that what changed is what it returned, by its own arrows and by unblocking."""
        moved = move()
        after = state_of_each(self.database)
        changed = {
            job_id: (self.states.get(job_id), after.get(job_id))
            for job_id in self.states.keys() | after.keys()
            if self.states.get(job_id) is not after.get(job_id)
        }
        for job_id, (source, target) in changed.items():
            verbs = {verb} if job_id in moved else {"unblock"}
            assert {(each, source, target) for each in verbs} & ARROWS, f"{verb}: {job_id} {source} -> {target}"
        assert set(moved) <= changed.keys()
        assert len(set(moved)) == len(moved)
        self.states = after
        return moved

    def transact(self, verb: str, move: Callable[..., list[int]], *arguments: Any) -> list[int]:
        return self.step(verb, lambda: self.database.transact(move, *arguments))

    def some(self, *wanted: State, index: int) -> list[int]:
        """Choose up to three jobs of these states."""
        found = sorted(job_id for job_id, state in self.states.items() if state in wanted)
        return [found[(index + step) % len(found)] for step in range(min(3, len(found)))]

    def process(self, index: int) -> int:
        return self.processes[index % len(self.processes)]

    @rule(
        kind=st.sampled_from(["plain", "later", "limited", "limited later"]),
        queue_name=st.sampled_from(["a", "b"]),
        priority=st.integers(-3, 3),
    )
    def enqueue(self, kind: str, queue_name: str, priority: int) -> None:
        limited = kind.startswith("limited")
        new = NewJob(
            class_name="Limited" if limited else "Plain",
            queue_name=queue_name,
            priority=priority,
            delay=3600 if kind.endswith("later") else None,
            concurrency_key="Limited/k" if limited else None,
            limit=TWO if limited else None,
        )
        self.transact("enqueue", enqueue, [new, new])

    @rule(index=INDEX)
    def dispatch(self, index: int) -> None:
        chosen = self.some(State.SCHEDULED, index=index)
        with self.database.write() as connection:
            connection.execute(update(scheduled).where(scheduled.c.job_id.in_(chosen)).values(scheduled_at=ago(1)))
        assert sorted(self.transact("dispatch", dispatch.dispatch, 10, LIMITS)) == sorted(chosen)

    @rule()
    def register(self) -> None:
        self.names += 1
        self.processes.append(
            self.database.transact(
                heartbeat.register, kind="Worker", name=f"w{self.names}", pid=1, hostname="h", metadata={}
            )
        )

    @rule(name=st.sampled_from(["a", "b"]), paused=st.booleans())
    def pause(self, name: str, paused: bool) -> None:  # noqa: FBT001
        self.database.transact(pauses.pause if paused else pauses.resume, name)

    @precondition(lambda self: self.processes)
    @rule(index=INDEX, queues=st.sampled_from([("*",), ("a",), ("b", "a"), ("a*",)]), limit=st.integers(1, 4))
    def claim(self, index: int, queues: tuple[str, ...], limit: int) -> None:
        def claim(connection: Connection) -> list[int]:
            return [claim.job_id for claim in queue_claim.claim(connection, self.process(index), queues, limit)]

        assert len(self.transact("claim", claim)) <= limit

    @precondition(lambda self: self.processes)
    @rule(index=INDEX, verb=st.sampled_from(["finish", "fail", "release"]))
    def end(self, index: int, verb: str) -> None:
        chosen = tables.claimed.c.job_id.in_(self.some(State.CLAIMED, index=index))
        match verb:
            case "finish":
                self.transact(verb, endings.finish, chosen, LIMITS)
            case "fail":
                self.transact(verb, endings.fail, chosen, error_json("E", "boom"), LIMITS)
            case _:
                self.transact(verb, endings.release, chosen)

    @precondition(lambda self: self.processes)
    @rule(index=INDEX)
    def deregister(self, index: int) -> None:
        process = self.process(index)
        self.processes.remove(process)
        self.transact("release", heartbeat.deregister, process)

    @precondition(lambda self: self.processes)
    @rule(index=INDEX)
    def prune(self, index: int) -> None:
        process = self.process(index)
        self.processes.remove(process)
        with self.database.write() as connection:
            beat = update(tables.processes).where(tables.processes.c.id == process)
            connection.execute(beat.values(last_heartbeat_at=ago(1000)))
        self.deaths.update(
            self.step("fail", lambda: [job_id for each in pruning.prune(self.database, 300) for job_id in each.job_ids])
        )

    @precondition(lambda self: self.processes)
    @rule(index=INDEX)
    def lose_the_row(self, index: int) -> None:
        process = self.process(index)
        self.processes.remove(process)
        with self.database.write() as connection:
            connection.execute(delete(tables.processes).where(tables.processes.c.id == process))
        self.deaths.update(self.step("fail", lambda: fail_orphans(self.database)))

    @rule(index=INDEX, by_job=st.booleans())
    def retry(self, index: int, by_job: bool) -> None:  # noqa: FBT001
        chosen = self.some(State.FAILED, State.READY, State.FINISHED, index=index)
        expected = sorted(job_id for job_id in chosen if self.states[job_id] is State.FAILED)
        operation = self.operation("retry")

        def move() -> list[int]:
            # Past the crash limit: what it holds back has tests of its own.
            done = retry_jobs(self.database, chosen, operation, by_job=by_job, force=True)
            assert done.count == len(expected)
            return done.job_ids if by_job else expected

        assert self.step("retry", move) == expected
        self.archived += len(expected)

    def operation(self, verb: str) -> Operation:
        self.operations.append(Operation(verb))
        return self.operations[-1]

    @rule(limit=st.integers(1, 3), paced=st.booleans())
    def retry_safely(self, limit: int, paced: bool) -> None:  # noqa: FBT001
        chosen = Selection(limit=limit, batch=2)
        operation = self.operation("retry")

        def move() -> list[int]:
            done = retry_jobs(
                self.database, selection=chosen, operation=operation, safe=True, delay=3600.0 if paced else None
            )
            assert all(self.deaths[job_id] in {1, 2} for job_id in done.job_ids)
            return done.job_ids

        moved = self.step("retry", move)
        assert len(moved) <= limit
        self.archived += len(moved)

    @rule(index=INDEX)
    def discard_failed(self, index: int) -> None:
        chosen = self.some(State.FAILED, State.READY, index=index)
        expected = sorted(job_id for job_id in chosen if self.states[job_id] is State.FAILED)
        operation = self.operation("discard")
        assert (
            self.step("discard", lambda: retry_jobs(self.database, chosen, operation, discard=True).job_ids) == expected
        )
        self.archived += len(expected)

    @precondition(lambda self: any(operation.id for operation in self.operations))
    @rule(index=INDEX)
    def undo(self, index: int) -> None:
        done = [operation.id for operation in self.operations if operation.id]

        def move() -> list[int]:
            batches = undo.undo(self.database, done[index % len(done)], Operation("undo"))
            return [each.job_id for batch in batches for each in batch if each.restored]

        self.step("undo", move)

    @rule(index=INDEX)
    def discard(self, index: int) -> None:
        chosen = self.some(*State, index=index)
        waiting = {State.READY, State.SCHEDULED, State.BLOCKED, State.FAILED}
        expected = sorted(job_id for job_id in chosen if self.states[job_id] in waiting)
        assert sorted(self.transact("discard", discard.discard, chosen, LIMITS)) == expected

    @invariant()
    def no_limit_is_exceeded(self) -> None:
        with self.database.read() as connection:
            keys = {
                row.id: row.concurrency_key for row in connection.execute(select(jobs.c.id, jobs.c.concurrency_key))
            }
        held = Counter(keys[job_id] for job_id, state in self.states.items() if state in {State.READY, State.CLAIMED})
        assert held["Limited/k"] <= TWO.to

    @invariant()
    def counts_equal_the_deaths_that_happened(self) -> None:
        assert Counter(row["job_id"] for row in rows(self.database, tables.crashes)) == self.deaths

    @invariant()
    def history_never_shrinks(self) -> None:
        assert len(rows(self.database, failures)) == self.archived


def test_any_sequence_of_verbs_keeps_the_law(database: Database) -> None:
    machine = type("QueueOnThisDatabase", (Queue,), {"database": database})
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=15,
            stateful_step_count=40,
            deadline=None,
            derandomize=True,
            report_multiple_bugs=False,
            suppress_health_check=list(HealthCheck),
        ),
    )


def test_every_state_can_be_reached_and_left() -> None:
    assert {move.target for move in MOVES} == {*State, None}
    assert {move.source for move in MOVES} == {*State, None} - {State.FINISHED}
