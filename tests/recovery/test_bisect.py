"""jq bisect: the halving as pure decisions, and with jobs whose worker a test plays."""

import random
from collections.abc import Collection
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import delete

from solidjq import Database
from solidjq.database import tables
from solidjq.errors import LedgerMissingError, RefusedError
from solidjq.ledger.operations import Operation
from solidjq.processes import pruning
from solidjq.processes.heartbeat import register
from solidjq.queue import claim as queue_claim
from solidjq.queue import endings
from solidjq.queue.states import State
from solidjq.recovery import bisect as recovery_bisect
from solidjq.recovery.bisect import Fate, Round, Stage, TrialStanding, bisect, judge_round, most_deaths
from solidjq.recovery.undo import undo
from solidjq.settings.policy import Consent, Policy
from support.processes import add_process
from support.program import Shell
from support.queue import add_jobs, claim_all, plain_jobs, rows, state_of_each

# -- pure -------------------------------------------------------------------------------------------------------------


def after(suspects: tuple[int, ...], limit: int = 9, deaths: int = 0, **fates: Fate) -> TrialStanding:
    return judge_round(Round(suspects, deaths, {int(key[1:]): fate for key, fate in fates.items()}), limit)


def test_a_death_leaves_those_that_died() -> None:
    found = after((1, 2, 3, 4, 5, 6), _1=Fate.DIED, _2=Fate.DIED, _3=Fate.ENDED)
    assert (found.stage, found.suspects, found.deaths) == (Stage.READY, (1, 2), 1)


def test_no_death_leaves_the_others() -> None:
    found = after((1, 2, 3, 4, 5), _1=Fate.ENDED, _2=Fate.ENDED)
    assert (found.stage, found.suspects, found.deaths) == (Stage.READY, (3, 4, 5), 0)


def test_one_that_died_is_found() -> None:
    assert after((1, 2, 3, 4), _1=Fate.ENDED, _2=Fate.DIED).stage is Stage.FOUND
    assert after((7,), _7=Fate.DIED).suspects == (7,)


def test_nothing_is_said_before_all_on_trial_have_ended() -> None:
    found = after((1, 2, 3, 4), _1=Fate.DIED, _2=Fate.WAITING)
    assert (found.stage, found.suspects, found.waiting) == (Stage.TRYING, (1, 2, 3, 4), (2,))


def test_the_last_one_is_tried_before_it_is_called_the_killer() -> None:
    assert after((1, 2), _1=Fate.ENDED) == TrialStanding(Stage.READY, (2,), (1,), (), (), 0, None)
    assert after((2,), _2=Fate.ENDED).stage is Stage.CLEARED


def test_deaths_are_capped() -> None:
    assert after((1, 2, 3, 4), 2, 1, _1=Fate.DIED, _2=Fate.DIED).stage is Stage.CAPPED
    assert after((1, 2, 3, 4), 3, 1, _1=Fate.DIED, _2=Fate.DIED).stage is Stage.READY
    assert after((1, 2, 3, 4), 2, 1, _1=Fate.DIED, _2=Fate.ENDED).stage is Stage.FOUND


def test_a_job_that_could_not_be_tried_is_suspected_no_longer() -> None:
    assert after((1, 2, 3, 4), _2=Fate.ENDED).suspects == (3, 4)


@given(st.integers(1, 300), st.integers(1, 8), st.integers())
def test_halving_finds_the_killer_within_its_deaths(count: int, threads: int, seed: int) -> None:
    """However many run beside it when it kills."""
    chosen = random.Random(seed)  # noqa: S311
    killer = chosen.randrange(count)
    now = TrialStanding(Stage.READY, tuple(range(count)))
    while now.stage is Stage.READY:
        half = now.suspects[: max(1, len(now.suspects) // 2)]
        beside = {killer, *chosen.sample(half, min(threads - 1, len(half)))} if killer in half else set()
        fates = {job: Fate.DIED if job in beside else Fate.ENDED for job in half}
        now = judge_round(Round(now.suspects, now.deaths, fates), most_deaths(count) + 1)
    assert (now.stage, now.suspects) == (Stage.FOUND, (killer,))
    assert now.deaths <= most_deaths(count)


# -- on databases -----------------------------------------------------------------------------------------------------


class Quarantine:
    """A worker of some threads that the test plays: it dies when the killer is among what it runs."""

    def __init__(self, database: Database, killers: Collection[int], threads: int = 3) -> None:
        self.database = database
        self.killers = set(killers)
        self.threads = threads
        self.ran: list[set[int]] = []

    def __call__(self, _seconds: float) -> None:
        name = f"worker-{len(self.ran)}"
        process = self.database.transact(
            register, kind="Worker", name=name, pid=9000 + len(self.ran), hostname="elsewhere", metadata={}
        )
        claims = self.database.transact(queue_claim.claim, process, ("quarantine",), self.threads)
        self.ran.append({claim.job_id for claim in claims})
        if self.killers & self.ran[-1]:
            self.database.transact(pruning.fail_exited, process, pid=9000 + len(self.ran), returncode=-9)
        else:
            self.database.transact(endings.finish, endings.held_by(process))


def die_together(database: Database, count: int) -> list[int]:
    ids = add_jobs(database, *plain_jobs(count))
    process = add_process(database)
    claim_all(database, process)
    database.transact(pruning.fail_exited, process, pid=4242, returncode=-9)
    return ids


def operation(told: Any) -> Operation:
    return Operation(recovery_bisect.VERB, chosen=told, plan="d1")


def run(database: Database, ids: list[int], worker: Any, **settings: Any) -> list[TrialStanding]:
    given = {"quarantine": "quarantine", "new_operation": operation, "sleep": worker, **settings}
    return list(bisect(database, "d1", ids, **given))


@pytest.mark.parametrize("threads", [1, 3])
def test_the_killer_is_found_and_nobody_else_is_touched(database: Database, threads: int) -> None:
    other = add_jobs(database, *plain_jobs(2))
    ids = die_together(database, 9)[:]
    killer = ids[5]
    worker = Quarantine(database, {killer}, threads)
    last = run(database, ids, worker)[-1]
    assert (last.stage, last.suspects) == (Stage.FOUND, (killer,))
    assert last.deaths <= most_deaths(9) == 4
    assert set().union(*worker.ran) <= set(ids)
    states = state_of_each(database)
    assert states[killer] is State.FAILED
    assert {states[job] for job in other} == {State.FAILED}  # they died with the rest, and are not of this bisect
    assert len(rows(database, tables.failed)) + list(states.values()).count(State.FINISHED) == 11


def test_innocents_are_cleared(database: Database) -> None:
    ids = die_together(database, 5)
    last = run(database, ids, Quarantine(database, set()))[-1]
    assert (last.stage, last.deaths) == (Stage.CLEARED, 0)
    assert set(state_of_each(database).values()) == {State.FINISHED}


def test_it_goes_on_where_it_was(database: Database) -> None:
    ids = die_together(database, 8)
    first = run(database, ids, lambda _: None, patience=0)
    assert [each.stage for each in first] == [Stage.TRYING, Stage.TRYING]
    assert len(rows(database, tables.operations)) == 1
    last = run(database, ids, Quarantine(database, {ids[1]}))[-1]
    assert (last.stage, last.suspects) == (Stage.FOUND, (ids[1],))
    assert run(database, ids, lambda _: None) == [last], "the outcome stands, and nothing runs again"


def test_a_round_that_was_taken_back_is_none(database: Database) -> None:
    ids = die_together(database, 4)
    (started, _) = run(database, ids, lambda _: None, patience=0)
    assert started.operation_id is not None
    for _ in undo(database, started.operation_id, Operation("undo")):
        pass
    last = run(database, ids, Quarantine(database, {ids[3]}))[-1]
    assert (last.stage, last.suspects) == (Stage.FOUND, (ids[3],))


def test_deaths_stop_at_the_cap(database: Database) -> None:
    ids = die_together(database, 8)
    last = run(database, ids, Quarantine(database, set(ids[:2]), threads=8), limit=1)[-1]
    assert (last.stage, last.deaths) == (Stage.CAPPED, 1)


def test_policy_holds_here_too(database: Database) -> None:
    ids = die_together(database, 2)
    never = Policy(classes={"PlainJob": {"retry": Consent.NEVER}})
    with pytest.raises(RefusedError, match="policy says never"):
        run(database, ids, lambda _: None, policy=never)
    assert rows(database, tables.operations) == []


def test_no_ledger(database: Database) -> None:
    ids = die_together(database, 2)
    with database.write() as connection:
        connection.execute(delete(tables.deaths))
        tables.deaths.drop(connection)
    try:
        with pytest.raises(LedgerMissingError):
            run(database, ids, lambda _: None)
    finally:
        with database.write() as connection:
            tables.deaths.create(connection)


@pytest.mark.sqlite_only
def test_the_command(database: Database, shell: Shell) -> None:
    ids = die_together(database, 1)
    (incident,) = _json(shell.run("incidents", "list", "-o", "json").stdout)
    refused = shell.run("bisect", incident["incident"])
    assert (refused.returncode, "needs --yes" in refused.stderr) == (2, True)
    started = shell.run("bisect", incident["incident"], "--yes", "--wait", "0s", "-o", "json")
    assert (started.returncode, _json(started.stdout)[0]["stage"]) == (6, "trying")
    assert _json(started.stdout)[0]["on_trial"] == ids
    Quarantine(database, ids)(0)
    done = shell.run("bisect", incident["incident"], "--yes", "-o", "ids")
    assert (done.returncode, done.stdout.split()) == (0, [str(ids[0])])
    assert "found: job" in done.stderr
    assert shell.run("bisect", "d999", "--yes").returncode == 4
    assert shell.run("bisect", "x", "--yes").returncode == 4


def _json(text: str) -> Any:
    import json

    return json.loads(text)
