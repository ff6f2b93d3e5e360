"""A retry that decides on many jobs at once comes to what it would decide on each, whatever they are mixed with."""

from pathlib import Path

import pytest
from sqlalchemy import delete, update

from solidjq import Database, NewJob
from solidjq.database.grouping import gathers
from solidjq.database.tables import crashes, failed, failures, jobs
from solidjq.database.times import ago, utcnow
from solidjq.ledger.stop_requests import EXCEPTION_CLASS
from solidjq.processes import heartbeat, pruning
from solidjq.queue import endings
from solidjq.queue.states import State
from solidjq.rails.error_text import error_json
from solidjq.recovery.details import Detail
from solidjq.recovery.retry import plan
from solidjq.recovery.terms import RetryTerms, Selection
from solidjq.recovery.verdicts import Decision, Verdict
from solidjq.settings.file import SettingsFile, parse_toml
from solidjq.settings.policy import load_policy
from support.deaths import die
from support.processes import add_process
from support.queue import add_jobs, claim_all, plain_jobs, rows, states
from support.recovery import retry_jobs

EVERYTHING = Selection()
POLICY_TEXT = (
    '[classes.Never]\nretry = "never"\n[classes.Auto]\nretry = "auto"\n[classes.Big]\nqueue_as = "big"\n'
    '[classes.Once]\nmax_crashes = 1\n[classes.Young]\nmax_age = "10m"'
)
POLICY = load_policy(SettingsFile(Path("jq.toml"), parse_toml(POLICY_TEXT, "jq.toml")))
HOURS_AGO = 7200
ARCHIVED = 2


@pytest.fixture
def mixed(database: Database) -> Database:
    """Provide failures of every kind, most of them more than once."""
    twice = add_jobs(database, *plain_jobs(2))
    die(database, silent=2000)
    retry_jobs(database, twice)
    kinds = ("Mail", "Mail", "mail", "Never", "Auto", "Big", "Once", "Young", "Young")
    died = add_jobs(database, *(NewJob(class_name=name) for name in kinds), *plain_jobs(4, queue_name="slow"))
    die(database)
    uncounted = add_jobs(database, *plain_jobs(5))
    die(database, silent=3000)
    raised = add_jobs(database, *plain_jobs(16), *plain_jobs(3, queue_name="slow"))
    worker = add_process(database)
    claim_all(database, worker)
    database.transact(endings.fail, endings.claims_of(worker), error_json("ArgumentError", "boom"))
    (waiting,) = add_jobs(database, *plain_jobs(1))
    with database.write() as connection:
        connection.execute(delete(crashes).where(crashes.c.job_id.in_(uncounted)))
        # Two of those that Rails counted nowhere are attempts of one job, as are one of them and one that waits.
        connection.execute(update(jobs).where(jobs.c.id.in_(uncounted[:2])).values(active_job_id="shared"))
        for job_id, values in (
            (died[0], {"concurrency_key": "Mail/1"}),
            (died[9], {"scheduled_at": ago(-3600)}),
            (raised[0], {"finished_at": utcnow()}),
            (raised[1], {"concurrency_key": "Mail/1"}),
            (raised[2], {"arguments": '{"arguments":[],"executions":2,"exception_executions":{"[E]":2}}'}),
            (raised[3], {"arguments": '{"arguments":[{"executions":0,"exception_executions":{}}],"executions":2}'}),
            (raised[4], {"active_job_id": None}),
            (raised[14], {"active_job_id": ""}),
            (raised[15], {"active_job_id": ""}),
        ):
            connection.execute(update(jobs).where(jobs.c.id == job_id).values(**values))
        errors = (error_json("KeyError", "one"), error_json("KeyError", 'two, "message":', ["a.rb:1"]))
        foreign = ('{"message":"no class"}', "boom", "", None, '{"exception_class":"SolidQueue::Processes::Other"}')
        # In another order than Rails', and after a field of its own.
        late = [f'{{"at":1,"message":"no","exception_class":"{name}"}}' for name in ("KeyError", EXCEPTION_CLASS)]
        spoken = error_json("KeyError", "it was SolidQueue::Processes::ProcessPrunedError that it met")
        for job_id, error in zip(raised[5:], (*errors, *foreign, spoken, *late), strict=False):
            connection.execute(update(failed).where(failed.c.job_id == job_id).values(error=error))
        old = [died[7], died[11], raised[17]]
        connection.execute(update(failed).where(failed.c.job_id.in_(old)).values(created_at=ago(HOURS_AGO)))
        again = died[10]
        connection.execute(update(jobs).where(jobs.c.id.in_([again, waiting])).values(active_job_id="waits"))
    return database


TERMS = {
    "plain": RetryTerms(),
    "forced": RetryTerms(force=True),
    "one crash": RetryTerms(max_crashes=1),
    "short window": RetryTerms(max_crashes=1, window=600.0),
    "not too old": RetryTerms(max_age=600.0),
    "counters kept": RetryTerms(keep_counters=True),
    "elsewhere": RetryTerms(queue_as="elsewhere"),
    "later": RetryTerms(delay=600.0),
    "safe": RetryTerms(safe=True),
    "safe, own errors too": RetryTerms(safe=True, include_errors=True),
    "safe, not too old": RetryTerms(safe=True, include_errors=True, max_age=600.0),
    "safe, apart": RetryTerms(safe=True, isolate="quarantine"),
    "recover": RetryTerms(safe=True, auto_only=True),
    "discard": RetryTerms(discard=True),
}


def planned(database: Database, terms: RetryTerms, detail: Detail) -> list[Decision]:
    return [each for batch in plan(database, EVERYTHING, terms, policy=POLICY, detail=detail) for each in batch]


def alone(database: Database, terms: RetryTerms) -> list[Decision]:
    return planned(database, terms, Detail.FACTS)


def together(database: Database, terms: RetryTerms) -> list[Decision]:
    return planned(database, terms, Detail.COUNTS)


def by_failure(decisions: list[Decision]) -> dict[int, tuple[Verdict, str | None, bool]]:
    told = {each: (d.verdict, d.queue_as, d.scheduled) for d in decisions for each in d.failure_ids}
    assert len(told) == sum(decision.jobs for decision in decisions), "a failure was decided on twice"
    return told


def as_printed(decision: Decision, *, whole: bool) -> tuple[object, ...]:
    candidate = decision.candidate
    ids = (candidate.failure_id, candidate.job_id)
    rest = (candidate.active_job_id, candidate.failed_at) if whole else ()
    of_group = (candidate.class_name, candidate.queue_name, candidate.death, len(candidate.crashes), candidate.stands)
    return (*ids, *rest, *of_group, *decision[1:])


def test_together_they_get_the_verdicts_that_each_gets_alone(mixed: Database) -> None:
    for name, terms in TERMS.items():
        assert by_failure(together(mixed, terms)) == by_failure(alone(mixed, terms)), name


def test_each_job_of_a_group_is_told_as_if_it_was_decided_on_alone(mixed: Database) -> None:
    for name, terms in TERMS.items():
        expected = alone(mixed, terms)
        for detail in (Detail.IDS, Detail.JOBS):
            whole = detail is Detail.JOBS
            each, all_alone = (
                [as_printed(one, whole=whole) for one in some if whole or one.verdict.moves]
                for some in (planned(mixed, terms, detail), expected)
            )
            assert each == all_alone, (name, detail)


def crash(database: Database, pid: int) -> None:
    """Let a worker claim all that is ready and end by SIGSEGV, as its supervisor records it."""
    worker = database.transact(heartbeat.register, kind="Worker", name=f"w{pid}", pid=pid, hostname="h", metadata={})
    claim_all(database, worker)
    database.transact(pruning.fail_exited, worker, pid=pid, returncode=-11)


def test_jobs_that_crashed_together_are_decided_on_as_each_alone_and_so_is_one_that_crashed_again(
    database: Database,
) -> None:
    first = add_jobs(database, *(NewJob(class_name=name) for name in ("Mail", "Mail", "Mail", "Other", "Other")))
    crash(database, 1)
    retry_jobs(database, first[:1])
    add_jobs(database, NewJob(class_name="Mail"), NewJob(class_name="Other"))
    crash(database, 2)
    for terms in (RetryTerms(safe=True), RetryTerms(safe=True, isolate="quarantine"), RetryTerms()):
        each, groups = alone(database, terms), together(database, terms)
        assert by_failure(groups) == by_failure(each)
        reasons = [{number: d.reason for d in some for number in d.failure_ids} for some in (each, groups)]
        assert reasons[0] == reasons[1]
    reasons_of = {decision.job_id: decision.reason for decision in alone(database, RetryTerms(safe=True))}
    assert reasons_of.pop(first[0]) == "it was in flight at 2 deaths; a crash, an exit or no memory left at 2 deaths"
    assert set(reasons_of.values()) == {None}, "the job that crashed twice explains both deaths"


def test_a_decision_is_on_many_where_the_database_can_gather_them(mixed: Database) -> None:
    with mixed.read() as connection:
        gathered = gathers(connection)
    for terms in (RetryTerms(), RetryTerms(discard=True)):
        decisions = together(mixed, terms)
        assert (max(decision.jobs for decision in decisions) > 1) is gathered


def test_a_decision_on_many_is_on_those_that_were_chosen_alone(database: Database) -> None:
    ids = add_jobs(database, *plain_jobs(5))
    die(database)
    chosen = [ids[0], ids[2], ids[4]]  # the others' failures have ids between theirs
    done = retry_jobs(database, chosen, by_job=False, safe=True)
    assert done.count == len(chosen)
    with database.read() as connection:
        moved = {job_id for job_id, held in states(connection).items() if held == {State.READY}}
    assert moved == set(chosen)


@pytest.mark.parametrize("terms", TERMS.values(), ids=TERMS)
def test_together_they_move_as_each_does_alone(mixed: Database, terms: RetryTerms) -> None:
    expected = alone(mixed, terms)
    moving = {d.job_id: d.scheduled for d in expected if d.verdict.moves}
    with mixed.read() as connection:
        before = states(connection)
    done = retry_jobs(mixed, policy=POLICY, selection=EVERYTHING, by_job=False, **terms.to_record())
    assert done.count == len(moving) == len(rows(mixed, failures)) - ARCHIVED
    kept = {job_id: state for job_id, state in before.items() if job_id not in moving}
    target = {True: {State.SCHEDULED}, False: {State.READY}}
    put_back = {} if terms.discard else {job_id: target[later] for job_id, later in moving.items()}
    with mixed.read() as connection:
        assert states(connection) == kept | put_back
