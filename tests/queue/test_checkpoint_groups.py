"""Checkpoints of several jobs in one transaction: each job gets its own answer, and none waits for another one's."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import pytest
from sqlalchemy import update

from solidjq import Database
from solidjq.database.tables import jobs
from solidjq.errors import DatabaseUnreachableError
from solidjq.processes import pruning
from solidjq.queue import checkpoint_groups, checkpoints, endings
from solidjq.queue.checkpoint_groups import CheckpointGroups
from solidjq.queue.checkpoints import parted
from solidjq.queue.claim import Claim
from support.locks import sessions
from support.processes import add_process, silence
from support.queue import add_jobs, claim_all, plain_jobs, rows
from support.waiting import PATIENCE, until

HOSTILE = [
    '{"a":"é 😀 \U0010ffff"}',
    'quote " and \\ and \\" and \\u00e9',
    "line\ntab\t\r\x01\x1f\u2028",
    "",
    "null",
    "1.50",
    '"text"',
    "$.x '\"; -- /*job_ids*/ %s %(a)s :b ?",
    " around ",
    "x" * (checkpoints.MOST_CHARACTERS - 1000),
]
FOREVER = 3600.0  # seconds of patience: who waits for others by it would never return


@pytest.fixture
def process(database: Database) -> int:
    return add_process(database)


@pytest.fixture
def claims(database: Database, process: int) -> list[Claim]:
    add_jobs(database, *plain_jobs(len(HOSTILE) + 1))
    return claim_all(database, process)


@pytest.fixture
def groups(database: Database, process: int) -> CheckpointGroups:
    return CheckpointGroups(database, process)


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(len(HOSTILE)) as pool:
        yield pool


def texts(database: Database) -> list[str]:
    return [row["arguments"] for row in rows(database, jobs)]


def test_a_group_writes_each_job_its_own_arguments(database: Database, process: int, claims: list[Claim]) -> None:
    before = rows(database, jobs)
    given = dict(zip(claims, HOSTILE, strict=False))
    assert checkpoints.save_group(database, process, given) == {claim.job_id for claim in given}
    after = rows(database, jobs)
    assert after.pop() == before.pop()
    for now, then, text in zip(after, before, HOSTILE, strict=True):
        assert now.pop("updated_at") > then.pop("updated_at")
        assert now == then | {"arguments": text}
    assert checkpoints.save_group(database, process, given) == {claim.job_id for claim in given}


def test_what_is_no_claim_of_the_process_is_left_out(database: Database, process: int, claims: list[Claim]) -> None:
    before = rows(database, jobs)
    theirs = dict.fromkeys(claims, "x")
    assert checkpoints.save_group(database, add_process(database, "other"), theirs) == set()
    ended = {claim._replace(id=claim.id + 1000): "x" for claim in claims[1:]}
    assert checkpoints.save_group(database, process, ended) == set()
    taken = {claims[0]._replace(job_id=claims[1].job_id): "x"}  # a failover lost the claim, and its id is another's
    assert checkpoints.save_group(database, process, taken) == set()
    assert rows(database, jobs) == before
    assert checkpoints.save_group(database, process, {**ended, claims[0]: "x"}) == {claims[0].job_id}
    assert [row["arguments"] for row in before][1:] == texts(database)[1:]


@pytest.mark.only_on("postgresql", "mariadb")
def test_no_job_waits_for_another_ones_claim(
    database: Database, process: int, claims: list[Claim], groups: CheckpointGroups, threads: ThreadPoolExecutor
) -> None:
    with database.write() as connection:
        endings.release(connection, endings.claims_of(process, [claims[0].id]))
        late = threads.submit(groups.save, claims[0], "late", 0.0)
        until(lambda: sessions(database), "the checkpoint of the job that is being released waits")
        assert groups.save(claims[1], "written", 0.0)
    assert late.result(PATIENCE) is False
    assert texts(database)[:2] == [claims[0].arguments, "written"]


# -- who writes, and when ---------------------------------------------------------------------------------------------


class Gate:
    """Stands before each statement that writes a group, and keeps what it had to write."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.groups: list[list[str]] = []
        self.opened = threading.Event()
        self.error: Exception | None = None
        self._write: Any = checkpoints.save_group
        monkeypatch.setattr(checkpoints, "save_group", self._save_group)

    def _save_group(self, database: Database, process_id: int, arguments: dict[Claim, str]) -> set[int]:
        self.groups.append(list(arguments.values()))
        assert self.opened.wait(PATIENCE)
        if self.error is not None:
            raise self.error
        saved: set[int] = self._write(database, process_id, arguments)
        return saved


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Gate:
    return Gate(monkeypatch)


@pytest.fixture
def behind(
    gate: Gate, groups: CheckpointGroups, claims: list[Claim], threads: ThreadPoolExecutor
) -> Callable[..., list[Future[bool]]]:
    """Let the first job's checkpoint come to the gate, then the others to wait behind it; return their answers."""

    def begin(*given: str, patience: float = 0.0) -> list[Future[bool]]:
        answers = [threads.submit(groups.save, claims[0], "first", 0.0)]
        until(lambda: gate.groups, "the first checkpoint is being written")
        for claim, text in zip(claims[1:], given, strict=False):
            answers.append(threads.submit(groups.save, claim, text, patience))
            until(lambda: len(groups._waiting) == len(answers) - 1, "the checkpoint waits")
        return answers

    return begin


def results(answers: list[Future[bool]]) -> list[object]:
    return [answer.exception(PATIENCE) or answer.result() for answer in answers]


@pytest.mark.sqlite_only
def test_what_came_meanwhile_is_written_together(database: Database, gate: Gate, behind: Any) -> None:
    answers = behind("second", "third", "fourth")
    gate.opened.set()
    assert results(answers) == [True] * 4
    assert gate.groups == [["first"], ["second", "third", "fourth"]]
    assert texts(database)[:4] == ["first", "second", "third", "fourth"]


@pytest.mark.sqlite_only
def test_one_that_has_patience_waits_until_another_has_none(
    gate: Gate, behind: Any, groups: CheckpointGroups, claims: list[Claim], monkeypatch: pytest.MonkeyPatch
) -> None:
    waits: list[float] = []
    wait = checkpoint_groups._Waiting.wait

    def noted(self: Any, seconds: float) -> None:
        waits.append(seconds)
        wait(self, seconds)

    monkeypatch.setattr(checkpoint_groups._Waiting, "wait", noted)
    answers = behind("patient", "patient too", patience=FOREVER)
    gate.opened.set()
    assert answers[0].result(PATIENCE)
    until(lambda: len(waits) == 2, "the patient one waits")  # at first it was only told that it is its turn
    assert groups.save(claims[3], "at once", 0.0)
    assert results(answers) == [True] * 3
    assert len(waits) == 2  # nor does it look again and again
    assert gate.groups == [["first"], ["patient", "patient too", "at once"]]


@pytest.mark.sqlite_only
def test_a_checkpoint_that_is_alone_does_not_wait(
    gate: Gate, groups: CheckpointGroups, claims: list[Claim], monkeypatch: pytest.MonkeyPatch
) -> None:
    gate.opened.set()
    assert groups.save(claims[0], "first ever", FOREVER)
    later = checkpoint_groups.time.monotonic() + 2 * FOREVER
    monkeypatch.setattr("solidjq.queue.checkpoint_groups.time", SimpleNamespace(monotonic=lambda: later))
    assert groups.save(claims[0], "long after", FOREVER)


@pytest.mark.sqlite_only
def test_no_group_is_larger_than_one_statement_writes_quickly(
    gate: Gate, behind: Any, groups: CheckpointGroups, claims: list[Claim]
) -> None:
    half = "x" * (checkpoints.MOST_CHARACTERS // 2)
    answers = behind("small", half, half, half)
    gate.opened.set()
    assert results(answers) == [True] * 5
    assert [len(group) for group in gate.groups] == [1, 2, 2]
    assert groups.save(claims[0], 3 * half, 0.0)  # alone, past the gate
    assert len(gate.groups) == 3
    many = dict.fromkeys((claims[0]._replace(id=number) for number in range(250)), "")
    assert [len(part) for part in parted(many)] == [checkpoints.MOST, checkpoints.MOST, 50]


def test_a_value_that_is_refused_fails_its_own_job_alone(database: Database, gate: Gate, behind: Any) -> None:
    answers = behind("fine", "half a character: \ud800", "fine too")
    gate.opened.set()
    outcomes = results(answers)
    assert isinstance(outcomes.pop(2), UnicodeEncodeError)
    assert outcomes == [True] * 3
    assert (texts(database)[1], texts(database)[3]) == ("fine", "fine too")


def test_a_claim_that_was_lost_is_its_own_jobs_answer(
    database: Database, process: int, claims: list[Claim], gate: Gate, behind: Any
) -> None:
    answers = behind("second", "third")
    with database.write() as connection:
        endings.release(connection, endings.claims_of(process, [claims[1].id]))
    gate.opened.set()
    assert results(answers) == [True, False, True]
    assert texts(database)[:3] == ["first", claims[1].arguments, "third"]


@pytest.mark.sqlite_only
def test_without_the_database_each_gets_an_error_of_its_own(
    gate: Gate, behind: Any, groups: CheckpointGroups, claims: list[Claim]
) -> None:
    answers = behind("second", "third")
    gate.error = DatabaseUnreachableError("gone")
    gate.opened.set()
    errors = results(answers)
    assert [str(error) for error in errors] == ["gone"] * 3
    assert len({id(error) for error in errors}) == 3
    gate.error = None
    assert groups.save(claims[0], "back", 0.0)


def test_a_pruned_worker_saves_nothing(
    database: Database, process: int, claims: list[Claim], groups: CheckpointGroups
) -> None:
    silence(database, process, 600)
    assert list(pruning.prune(database, 300))
    with database.write() as connection:
        connection.execute(update(jobs).values(arguments="moved"))
    assert [groups.save(claim, "late", 0.0) for claim in claims] == [False] * len(claims)
    assert set(texts(database)) == {"moved"}
