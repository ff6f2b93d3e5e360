"""``retry --safe`` on real databases: each reason to hold a job back is found."""

import json
import os
import socket
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import update

from solidjq import Database, NewJob
from solidjq.database.tables import claimed, deaths, failed, jobs, operations, processes, ready, scheduled
from solidjq.database.tables import crashes as crash_table
from solidjq.database.times import ago, utcnow
from solidjq.incidents.charges import find_suspects
from solidjq.incidents.incidents import find_incidents
from solidjq.ledger.operations import Operation
from solidjq.processes import heartbeat, pruning
from solidjq.queue import endings
from solidjq.queue.states import State
from solidjq.rails.error_text import error_json
from solidjq.recovery.candidates import find_candidates
from solidjq.recovery.terms import Selection
from solidjq.recovery.verdicts import Verdict
from solidjq.runtime.sampler import Sampler
from solidjq.settings.file import SettingsFile, parse_toml
from solidjq.settings.policy import Policy, load_policy
from support.deaths import ALL, DIED, crash_count, crash_subject, die, raise_all
from support.processes import add_process, silence
from support.queue import add_jobs, claim_all, plain_jobs, rows, state_of_each
from support.recovery import retry_jobs, safe


def test_a_job_that_died_once_goes_back_and_one_that_raised_does_not(database: Database) -> None:
    (raised,) = add_jobs(database, *plain_jobs(1))
    raise_all(database)
    (died,) = add_jobs(database, *plain_jobs(1))
    die(database)
    done = retry_jobs(database, [raised, died], safe=True)
    assert done.verdicts == {raised: Verdict.OWN_ERROR, died: Verdict.RETRY}
    assert state_of_each(database) == {raised: State.FAILED, died: State.READY}
    assert retry_jobs(database, [raised], safe=True, include_errors=True).verdicts == {raised: Verdict.RETRY}


def test_a_job_in_flight_at_two_deaths_is_suspected(database: Database) -> None:
    (job_id,) = add_jobs(database, *plain_jobs(1))
    die(database, silent=2000)
    assert safe(database) == {job_id: Verdict.RETRY}
    die(database, silent=1000)
    assert safe(database) == {job_id: Verdict.SUSPECT}
    assert state_of_each(database) == {job_id: State.FAILED}


def test_a_killer_that_was_proven_clears_its_company_at_all_its_deaths(database: Database) -> None:
    """As after a bisect, each round of which kills company too; of its own class others may kill as it does."""
    killer, twin, mail = add_jobs(database, *(NewJob(class_name=name) for name in ("Resize", "Resize", "Mail")))
    for pid in (71, 72):
        crash(database, pid, killer, twin, mail)
        assert set(safe(database).values()) == {Verdict.SUSPECT}
    crash(database, 73, killer)
    assert safe(database) == {killer: Verdict.OVER_LIMIT, twin: Verdict.SUSPECT, mail: Verdict.RETRY}
    with database.read() as connection:
        ranking = find_suspects(connection, find_incidents(connection))
        told = {score.name: score.standing.held_back for score in ranking.jobs}
    assert told == {crash_subject(database, job_id): job_id != mail for job_id in (killer, twin, mail)}


def crash(database: Database, pid: int, *job_ids: int) -> None:
    """Let a worker with these jobs crash."""
    retry_jobs(database, job_ids)
    worker = add_process(database, f"worker-{pid}", pid=pid)
    assert len(claim_all(database, worker)) == len(job_ids)
    database.transact(pruning.fail_exited, worker, pid=pid, returncode=-11)


def test_what_was_only_fetched_ahead_at_two_deaths_is_not_suspected(database: Database) -> None:
    """Its process told, with its last heartbeat, which jobs had begun; of the others nobody knows."""
    began, ahead = add_jobs(database, *plain_jobs(2))
    for silent in (2000, 1000):
        worker = add_process(database, f"worker-{silent}")
        claim_all(database, worker)
        sample = {"jobs": [{"id": began, "since": "2026-01-01T00:00:00Z"}]}
        database.transact(heartbeat.heartbeat, worker, {"prefetch": 10, "sample": sample})
        silence(database, worker, silent)
        list(pruning.prune(database, 300))
        verdicts = safe(database)
    assert verdicts == {began: Verdict.SUSPECT, ahead: Verdict.RETRY}
    with database.read() as connection:
        ranking = find_suspects(connection, find_incidents(connection))
    assert {score.name for score in ranking.jobs} == {crash_subject(database, began)}


def test_crashes_are_limited_without_safe_too_and_only_force_goes_on(database: Database) -> None:
    (job_id,) = add_jobs(database, *plain_jobs(1))
    for count in range(1, 4):
        die(database, silent=1000 * count)
        assert crash_count(database, job_id) == count
        held = retry_jobs(database, [job_id])
        assert held.verdicts == {job_id: Verdict.RETRY if count < 3 else Verdict.OVER_LIMIT}
    assert held.reason(job_id) == "3 crashes within 72h; the limit is 3"
    assert retry_jobs(database, [job_id], max_crashes=4).verdicts == {job_id: Verdict.RETRY}
    die(database, silent=5000)
    assert retry_jobs(database, [job_id], force=True).verdicts == {job_id: Verdict.RETRY}
    assert crash_count(database, job_id) == 4


@pytest.mark.parametrize("state", ["ready", "claimed", "finished since", "failed later"])
def test_one_job_of_an_active_job_id_at_a_time(database: Database, state: str) -> None:
    (old,) = add_jobs(database, *plain_jobs(1))
    die(database, silent=2000)
    (new,) = add_jobs(database, *plain_jobs(1))
    with database.write() as connection:
        connection.execute(update(jobs).values(active_job_id="the same"))
        connection.execute(update(crash_table).values(subject="the same"))
    if state != "ready":
        claim_all(database, add_process(database))
    if state == "finished since":
        database.transact(endings.finish, claimed.c.job_id == new)
    if state == "failed later":
        database.transact(endings.fail, claimed.c.job_id == new, error_json("E", "boom"))
    done = retry_jobs(database, [old], safe=True)
    assert done.verdicts == {old: Verdict.DUPLICATE}
    assert f"job {new}" in str(done.reason(old))
    assert state_of_each(database)[old] is State.FAILED


def test_an_attempt_that_finished_before_does_not_hold_a_job_back(database: Database) -> None:
    """What retry_on leaves behind: the earlier attempt is finished, the later one carries on."""
    (old,) = add_jobs(database, *plain_jobs(1))
    claim_all(database, add_process(database))
    database.transact(endings.finish, claimed.c.job_id == old)
    with database.write() as connection:
        connection.execute(update(jobs).values(finished_at=ago(3600)))
    (new,) = add_jobs(database, *plain_jobs(1))
    with database.write() as connection:
        connection.execute(update(jobs).values(active_job_id="the same"))
    die(database)
    assert safe(database) == {new: Verdict.RETRY}


def test_a_job_whose_old_process_runs_on_this_host_stays(database: Database) -> None:
    """Frozen past the threshold, pruned, and about to wake: its job would run twice."""
    (job_id,) = add_jobs(database, *plain_jobs(1))
    # Its last heartbeat was just now, as far as this host's start times of processes can tell.
    die(database, silent=301, hostname=socket.gethostname(), pid=os.getpid())
    with database.write() as connection:
        connection.execute(update(crash_table).values(last_heartbeat_at=utcnow()))
    done = retry_jobs(database, [job_id], safe=True)
    assert done.verdicts == {job_id: Verdict.ALIVE}
    assert f"pid {os.getpid()}" in str(done.reason(job_id))
    with database.write() as connection:  # the pid was given to a process that started later
        connection.execute(update(crash_table).values(last_heartbeat_at=ago(10 * 365 * 86400)))
    assert safe(database) == {job_id: Verdict.RETRY}


def test_a_job_whose_old_process_still_beats_under_another_row_stays(database: Database) -> None:
    """Solid Queue's async mode: all rows of a process have one pid, and that of a worker was pruned."""
    (job_id,) = add_jobs(database, *plain_jobs(1))
    other = database.transact(
        heartbeat.register, kind="Supervisor(async)", name="same-pid", pid=77, hostname="elsewhere", metadata={}
    )
    with database.write() as connection:
        connection.execute(update(processes).where(processes.c.id == other).values(created_at=ago(9000)))
    die(database, hostname="elsewhere", pid=77)
    done = retry_jobs(database, [job_id], safe=True)
    assert done.verdicts == {job_id: Verdict.ALIVE}
    assert "same-pid" in str(done.reason(job_id))
    silence(database, other, 2000)  # it has not beaten since, either
    assert safe(database) == {job_id: Verdict.RETRY}


@pytest.mark.parametrize(("started", "verdict"), [(None, Verdict.RETRY), (500, Verdict.RETRY), (2000, Verdict.ALIVE)])
def test_a_process_that_got_the_pid_later_is_another(database: Database, started: int | None, verdict: Verdict) -> None:
    """A container that is restarted in place keeps its host's name, and its processes get the same pids again."""
    (job_id,) = add_jobs(database, *plain_jobs(1))
    die(database, silent=1000, hostname="pod-0", pid=7)
    metadata = {}
    if started is not None:
        metadata = {"sample": {"pid_started": (database.now() - timedelta(seconds=started)).isoformat()}}
    database.transact(heartbeat.register, kind="Worker", name="new", pid=7, hostname="pod-0", metadata=metadata)
    assert safe(database) == {job_id: verdict}


def test_a_sample_tells_whether_a_pid_of_this_host_is_still_the_old_process(database: Database) -> None:
    """The pid of a jq worker is known by its start: a young process with it is not taken for the old one."""
    (job_id,) = add_jobs(database, *plain_jobs(1))
    die(database, hostname=socket.gethostname(), pid=os.getpid())
    with database.write() as connection:
        connection.execute(update(crash_table).values(last_heartbeat_at=utcnow()))
        sample = {**Sampler().take({}), "pid_started": "2026-01-01T00:00:00Z"}
        connection.execute(update(deaths).values(evidence=json.dumps({"sample": sample})))
    with database.read() as connection:
        (candidate,) = find_candidates(connection, [rows(database, failed)[0]["id"]], has_ledger=True)
    assert (candidate.job_id, candidate.alive) == (job_id, None)
    with database.write() as connection:
        connection.execute(update(deaths).values(evidence=json.dumps({"sample": Sampler().take({})})))
    with database.read() as connection:
        (candidate,) = find_candidates(connection, [rows(database, failed)[0]["id"]], has_ledger=True)
    assert candidate.alive == f"its old process, pid {os.getpid()}, still runs on this host"


def policy_of(text: str) -> Policy:
    return load_policy(SettingsFile(Path("jq.toml"), parse_toml(text, "jq.toml")))


def test_policy_by_class(database: Database) -> None:
    policy = policy_of(
        '[default]\nqueue_as = "quarantine"\n[classes."Never*"]\nretry = "never"\n[classes.Once]\nmax_crashes = 1'
    )
    ids = add_jobs(database, *(NewJob(class_name=name) for name in ("NeverEver", "Once", "Other")))
    die(database)
    done = retry_jobs(database, selection=ALL, policy=policy)
    assert done.verdicts == dict(zip(ids, [Verdict.NEVER, Verdict.OVER_LIMIT, Verdict.RETRY], strict=True))
    assert [(row["job_id"], row["queue_name"]) for row in rows(database, ready)] == [(ids[2], "quarantine")]
    assert rows(database, jobs)[2]["queue_name"] == "quarantine"


def test_a_limit_takes_the_oldest_and_skips_what_is_held(database: Database) -> None:
    ids = add_jobs(database, NewJob(class_name="Never"), *plain_jobs(5))
    die(database)
    policy = policy_of('[classes.Never]\nretry = "never"')
    chosen = Selection(chosen=DIED, limit=3, batch=2)
    done = retry_jobs(database, selection=chosen, policy=policy, safe=True)
    assert done.job_ids == ids[1:4]
    assert count_of(done.verdicts) == {Verdict.NEVER: 1, Verdict.RETRY: 3}
    (operation,) = rows(database, operations)
    assert (operation["jobs"], operation["verdicts"]) == (3, '{"never":1,"retry":3}')


def count_of(verdicts: dict[int, Verdict]) -> dict[Verdict, int]:
    return {verdict: list(verdicts.values()).count(verdict) for verdict in verdicts.values()}


def test_a_pace_is_kept_by_scheduled_times(database: Database) -> None:
    ids = add_jobs(database, *plain_jobs(5))
    die(database)
    began = database.now()
    chosen = Selection(chosen=DIED, batch=2)
    done = retry_jobs(database, selection=chosen, delay=60, interval=10)
    assert done.scheduled == ids
    due = [row["scheduled_at"] for row in rows(database, scheduled)]
    assert [(later - due[0]).total_seconds() for later in due] == [0, 10, 20, 30, 40]
    assert timedelta(seconds=60) <= due[0] - began < timedelta(seconds=120)


def test_with_an_interval_alone_the_first_job_is_due_at_once(database: Database) -> None:
    add_jobs(database, *plain_jobs(2))
    die(database)
    began = database.now()
    retry_jobs(database, selection=ALL, interval=3600)
    first, second = (row["scheduled_at"] for row in rows(database, scheduled))
    assert began <= first <= database.now()
    assert second - first == timedelta(seconds=3600)


def test_a_job_without_a_time_of_its_own_keeps_the_pace_like_others(database: Database) -> None:
    """Solid Queue writes scheduled_at into every job; the column may be NULL all the same."""
    untimed, later, _ = ids = add_jobs(database, *plain_jobs(3))
    die(database)
    with database.write() as connection:
        connection.execute(update(jobs).where(jobs.c.id == untimed).values(scheduled_at=None))
        connection.execute(update(jobs).where(jobs.c.id == later).values(scheduled_at=ago(-7200)))
    (own,) = (row["scheduled_at"] for row in rows(database, jobs) if row["id"] == later)
    assert retry_jobs(database, ids, interval=60).scheduled == ids
    due = {row["job_id"]: row["scheduled_at"] for row in rows(database, scheduled)}
    assert due[later] == own
    assert due[ids[2]] - due[untimed] == timedelta(seconds=120)


def test_attempt_counters_can_be_kept(database: Database) -> None:
    (job_id,) = add_jobs(database, *plain_jobs(1))
    die(database)
    with database.write() as connection:
        connection.execute(update(jobs).values(arguments='{"executions":4,"exception_executions":{"[E]":4}}'))
    retry_jobs(database, [job_id], keep_counters=True)
    assert rows(database, jobs)[0]["arguments"] == '{"executions":4,"exception_executions":{"[E]":4}}'


@pytest.mark.parametrize(
    "arguments",
    [
        '{"arguments":[{"executions":0,"exception_executions":{}}],"executions":4,"exception_executions":{}}',
        '{"arguments":["\\"executions\\":0,\\"exception_executions\\":{}"],"executions":4,"exception_executions":{}}',
        '{"executions":0,"exception_executions":{"[E]":1}}',
        '{"executions": 4, "exception_executions": {}}',
    ],
)
def test_counters_are_reset_whatever_the_jobs_own_arguments_hold(database: Database, arguments: str) -> None:
    (job_id,) = add_jobs(database, *plain_jobs(1))
    die(database)
    with database.write() as connection:
        connection.execute(update(jobs).values(arguments=arguments))
    retry_jobs(database, [job_id])
    (job,) = rows(database, jobs)
    fresh = arguments.replace('"executions":4', '"executions":0').replace('"executions": 4', '"executions": 0')
    assert job["arguments"] == fresh.replace('{"[E]":1}', "{}")


def test_jobs_that_fail_meanwhile_are_not_taken(database: Database) -> None:
    """Or a retry beside a worker that dies at once would never end."""
    first = add_jobs(database, *plain_jobs(4))
    die(database)
    taken: list[int] = []
    from solidjq.recovery.retry import retry

    for batch in retry(database, Selection(chosen=DIED, batch=2), Operation("retry")):
        taken += [decision.job_id for decision in batch]
        add_jobs(database, *plain_jobs(2))
        die(database, silent=5000)
    assert taken == first
    assert len(rows(database, failed)) >= 4
