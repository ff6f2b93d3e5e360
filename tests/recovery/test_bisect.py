"""jq bisect: the halving as pure decisions, and with jobs whose worker a test plays."""

import json
import random
from collections.abc import Collection
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import delete, update

from solidjq import Database
from solidjq.database import tables
from solidjq.errors import LedgerMissingError, RefusedError
from solidjq.incidents.causes import Cause
from solidjq.ledger.operations import Operation
from solidjq.processes import pruning
from solidjq.queue import claim as queue_claim
from solidjq.queue import endings, pauses
from solidjq.queue.states import State
from solidjq.recovery import bisect as recovery_bisect
from solidjq.recovery.bisect import Round, Stage, TrialStanding, bisect, judge_round, most_deaths
from solidjq.recovery.fates import Fate
from solidjq.recovery.manners import Manner, unlike
from solidjq.recovery.undo import undo
from solidjq.settings.policy import Consent, Policy, PolicyFile
from support.processes import add_process, add_worker_of, silence
from support.program import Shell
from support.queue import add_jobs, claim_all, plain_jobs, rows, state_of_each
from support.recovery import retry_jobs
from support.terminal import terminal

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
        process = add_worker_of(self.database, "quarantine", name, pid=9000 + len(self.ran))
        claims = self.database.transact(queue_claim.claim, process, ("quarantine",), self.threads)
        self.ran.append({claim.job_id for claim in claims})
        if self.killers & self.ran[-1]:
            self.database.transact(pruning.fail_exited, process, pid=9000 + len(self.ran), returncode=-9)
        else:
            self.database.transact(endings.finish, endings.claims_of(process))


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


@pytest.mark.parametrize("verb", ["retry", "discard"])
def test_a_killer_that_was_moved_since_stays_found(database: Database, verb: str) -> None:
    *_, killer = ids = die_together(database, 4)
    found = run(database, ids, Quarantine(database, {killer}))[-1]
    assert (found.stage, found.suspects) == (Stage.FOUND, (killer,))
    assert retry_jobs(database, [killer], Operation(verb), discard=verb == "discard").job_ids == [killer]
    claim_all(database, add_process(database, "later"))
    database.transact(endings.finish, tables.claimed.c.id > 0)
    assert run(database, ids, lambda _: None) == [found]


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
    never = Policy([PolicyFile("jq.toml", {}, {"PlainJob": {"retry": Consent.NEVER}})])
    with pytest.raises(RefusedError, match="policy says never"):
        run(database, ids, lambda _: None, policy=never)
    assert rows(database, tables.operations) == []


def clear_all_but_one(database: Database) -> int:
    """Let a bisect clear all jobs but the killer, which policy does not let it try; return that one."""
    killer, *_ = ids = die_together(database, 5)
    with database.write() as connection:
        connection.execute(update(tables.jobs).where(tables.jobs.c.id == killer).values(class_name="Precious"))
    never = Policy([PolicyFile("jq.toml", {}, {"Precious": {"retry": Consent.NEVER}})])
    last = run(database, ids, Quarantine(database, {killer}), policy=never)[-1]
    assert (last.stage, last.deaths, last.untried) == (Stage.CLEARED, 0, (killer,))
    return killer


def test_a_job_that_never_ran_is_not_cleared(database: Database) -> None:
    killer = clear_all_but_one(database)
    assert [job for job, state in state_of_each(database).items() if state is not State.FINISHED] == [killer]


@pytest.mark.sqlite_only
def test_a_job_that_never_ran_is_named(database: Database, shell: Shell) -> None:
    killer = clear_all_but_one(database)
    done = shell.run("bisect", "d1", "--yes", "-o", "json")
    assert (done.returncode, _json(done.stdout)[0]["untried"]) == (6, [killer])
    told = f"no process died, but 1 job did not run, and may be the killer; why: jq retry {killer} --dry-run"
    assert told in done.stderr


@pytest.mark.sqlite_only
def test_jobs_of_which_none_is_failed_any_more_did_not_all_run(database: Database, shell: Shell) -> None:
    ids = die_together(database, 2)
    retry_jobs(database, ids, Operation("discard"), discard=True)
    done = shell.run("bisect", "d1", "--yes")
    assert (done.returncode, done.stderr) == (0, "jq: none of its jobs is failed any more: there is nothing to try\n")


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
    add_worker_of(database, "quarantine", "worker-of-its-own", pid=7)
    started = shell.run("bisect", incident["incident"], "--yes", "--wait", "0s", "-o", "json")
    assert (started.returncode, _json(started.stdout)[0]["stage"]) == (6, "trying")
    assert _json(started.stdout)[0]["on_trial"] == ids
    Quarantine(database, ids)(0)
    done = shell.run("bisect", incident["incident"], "--yes", "-o", "ids")
    assert (done.returncode, done.stdout.split()) == (0, [str(ids[0])])
    assert "found: job" in done.stderr
    assert shell.run("bisect", "d999", "--yes").returncode == 4
    assert shell.run("bisect", "x", "--yes").returncode == 2


@pytest.mark.sqlite_only
def test_without_a_worker_of_the_quarantine_it_refuses(database: Database, shell: Shell) -> None:
    die_together(database, 8)
    command = ("bisect", "d1", "--yes", "--wait", "0s", "--quarantine", "my own")
    nobody = shell.run(*command)
    assert (nobody.returncode, rows(database, tables.operations)) == (5, [])
    assert "no living worker polls queue my own, so no job on trial would run; start one" in nobody.stderr
    assert "jq work --queues 'my own' --threads 1; nothing was put on trial" in nobody.stderr
    worker = add_worker_of(database, "my own", "worker-of-its-own", pid=7)
    database.transact(pauses.pause, "my own")
    paused = shell.run(*command)
    assert (paused.returncode, rows(database, tables.operations)) == (5, [])
    assert "first: jq queues resume 'my own'; nothing was put on trial" in paused.stderr
    database.transact(pauses.resume, "my own")
    assert shell.run(*command).returncode == 6
    silence(database, worker, 301)
    gone = shell.run(*command)
    assert (gone.returncode, "to take the round under way back: jq undo 1" in gone.stderr) == (5, True)


@pytest.mark.sqlite_only
def test_a_worker_that_may_be_dead_is_called_so(database: Database, shell: Shell) -> None:
    die_together(database, 1)
    ours, other = (add_worker_of(database, queues, name) for queues, name in (("quarantine", "w-ours"), ("*", "w-all")))
    silence(database, other, 200)
    refused = shell.run("bisect", "d1", "--yes", "--wait", "0s")
    assert (refused.returncode, rows(database, tables.operations)) == (5, [])
    assert "w-all (host h, pid 4242, polls *, silent for 3m)" in refused.stderr
    (beat,) = [row["last_heartbeat_at"] for row in rows(database, tables.processes) if row["id"] == other]
    until = beat + timedelta(seconds=300)
    doubt = f"may be dead: it missed a heartbeat, and counts as living until {until:%H:%M:%S} UTC (5m of silence)"
    assert f"w-all {doubt}" in refused.stderr
    silence(database, other, 400)
    silence(database, ours, 200)
    started = shell.run("bisect", "d1", "--yes", "--wait", "0s")
    assert (started.returncode, "w-ours may be dead" in started.stderr) == (6, True)


@pytest.mark.sqlite_only
def test_jobs_that_the_evidence_clears_are_left_out(database: Database, shell: Shell) -> None:
    ids = add_jobs(database, *plain_jobs(3))
    process = add_process(database)
    claims = {claim.job_id: claim.id for claim in claim_all(database, process)}
    database.transact(pruning.fail_exited, process, pid=4242, returncode=-11, faulting=claims[ids[1]])
    add_worker_of(database, "quarantine", "worker-of-its-own", pid=7)
    started = shell.run("bisect", "d1", "--yes", "--wait", "0s", "-o", "json")
    assert _json(started.stdout)[0]["on_trial"] == [ids[1]]
    why = f"the stack of the thread that crashed names job {ids[1]}"
    assert f"leaving out 2 of 3 jobs in flight at d1: {why}" in started.stderr


@pytest.mark.sqlite_only
def test_the_prompt_names_who_will_die(database: Database, shell: Shell) -> None:
    die_together(database, 8)
    add_worker_of(database, "quarantine", "worker-of-its-own", pid=7)
    shown = " ".join(terminal(shell, "bisect", "d1", typed="n\n", width=400).split())
    assert "at most 3 deaths will follow: of worker-of-its-own (host h, pid 7, polls quarantine)" in shown
    assert "run halves of 8 jobs in queue quarantine? [y/N]" in shown
    assert len(rows(database, tables.failed)) == 8


def test_a_worker_of_other_queues_is_not_killed(database: Database, shell: Shell) -> None:
    ids = die_together(database, 4)
    shared = add_worker_of(database, "*", "worker-all", pid=7)
    (incident,) = json.loads(shell.run("incidents", "list", "-o", "json").stdout)
    refused = shell.run("bisect", incident["incident"], "--yes")
    assert (refused.returncode, rows(database, tables.operations)) == (5, [])
    assert "worker-all (host h, pid 7, polls *)" in refused.stderr
    assert "jq work --except quarantine" in refused.stderr
    with pytest.raises(RefusedError, match="worker-all"):
        run(database, ids, lambda _: None)
    silence(database, shared, 301)
    worker = Quarantine(database, {ids[3]})

    def work(seconds: float) -> None:
        """Let a worker of all queues start after the first round."""
        worker(seconds)
        add_worker_of(database, "quar*", "worker-late", pid=8)

    with pytest.raises(RefusedError, match=r"worker-late.*nothing was put on trial"):
        run(database, ids, work)
    assert list(state_of_each(database).values()).count(State.FAILED) == 2
    assert len(rows(database, tables.operations)) == 1


@pytest.mark.sqlite_only
def test_a_round_under_way_that_others_would_run_can_be_taken_back(database: Database, shell: Shell) -> None:
    die_together(database, 4)
    add_worker_of(database, "quarantine", "worker-of-its-own", pid=9)
    assert shell.run("bisect", "d1", "--yes", "--wait", "0s").returncode == 6
    add_worker_of(database, "*", "worker-all", pid=7)
    refused = shell.run("bisect", "d1", "--yes", "--wait", "0s")
    assert (refused.returncode, "jq undo 1" in refused.stderr) == (5, True)


@pytest.mark.sqlite_only
@pytest.mark.parametrize(("status", "told"), [(-9, False), (-11, True), (3, True)])
def test_a_death_of_another_manner_is_said(database: Database, shell: Shell, status: int, *, told: bool) -> None:
    (job,) = die_together(database, 1)
    worker = add_worker_of(database, "quarantine", pid=9000)
    assert shell.run("bisect", "d1", "--yes", "--wait", "0s").returncode == 6
    database.transact(queue_claim.claim, worker, ("quarantine",), 1)
    database.transact(pruning.fail_exited, worker, pid=9000, returncode=status)
    done = shell.run("bisect", "d1", "--yes", "-o", "ids")
    assert (done.returncode, done.stdout.split()) == (0, [str(job)])
    assert ("died in another manner than at d1" in done.stderr) is told
    assert ("then: killed by SIGKILL" in done.stderr) is told


def test_what_is_not_known_may_be_the_same_manner() -> None:
    killed, memory = Manner(Cause.KILLED, 9), Manner(Cause.MEMORY, 9)
    crashed, left = Manner(Cause.CRASH, 11), Manner(Cause.EXIT, None, 3)
    assert unlike([killed], [memory, killed]) == []
    assert unlike([crashed], [memory, crashed, left, left]) == [memory, left]
    assert unlike([Manner(Cause.HUNG)], [Manner(Cause.UNKNOWN)]) == []
    assert [str(each) for each in (memory, left, Manner(Cause.HUNG), Manner(Cause.KILLED, 99))] == [
        "out of memory by SIGKILL",
        "exited with status 3",
        "hung",
        "killed by signal 99",
    ]


def _json(text: str) -> Any:
    import json

    return json.loads(text)
