"""Incidents and suspects as the database tells them: what Rails left, what we wrote, and what a retry makes of it."""

import json
import socket
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import delete, select, update
from sqlalchemy.engine import URL

from solidjq import Database, NewJob
from solidjq.database import tables
from solidjq.database.times import ago
from solidjq.incidents.causes import Cause, CauseFinding, Confidence
from solidjq.incidents.charges import each_job, find_suspects
from solidjq.incidents.claimed_jobs import ClaimedJob, ClaimedJobs
from solidjq.incidents.death_cases import Blame, DeathCase, InFlight, JobStanding
from solidjq.incidents.death_records import DeathRecord
from solidjq.incidents.incidents import (
    Incident,
    each_incident,
    find_incident,
    find_incidents,
    group,
    split,
    with_jobs,
)
from solidjq.incidents.summaries import summarize
from solidjq.incidents.suspects import rank
from solidjq.incidents.waiting import count_waiting
from solidjq.ledger.deaths import DeathSource
from solidjq.ledger.operations import Operation
from solidjq.processes import pruning
from solidjq.processes.heartbeat import register
from solidjq.rails.error_text import Death, error_json, exit_error
from solidjq.recovery.verdicts import Verdict
from solidjq_cli.timeline import draw
from support import rails
from support.processes import add_process, fail_orphans, start_of, stopped_process
from support.program import Shell
from support.queue import add_jobs, claim_all, plain_jobs, rows
from support.recovery import retry_jobs
from support.scenes import change
from support.terminal import terminal

NOON = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
ARABIC_DIGITS = {ord("0") + digit: ord("\N{ARABIC-INDIC DIGIT ZERO}") + digit for digit in range(10)}


def all_incidents(database: Database) -> list[Incident]:
    with database.read() as connection:
        return find_incidents(connection)


# -- what Rails left --------------------------------------------------------------------------------------------------

CERTAIN, LIKELY, POSSIBLE = Confidence.CERTAIN, Confidence.LIKELY, Confidence.POSSIBLE
RAILS = {  # scenario -> (cause, how sure, processes) of each incident
    "1b": [(Cause.KILLED, LIKELY, 1)],
    "1d": [
        (Cause.KILLED, LIKELY, 2),
        (Cause.EXIT, CERTAIN, 1),
        (Cause.CRASH, CERTAIN, 1),
        (Cause.EXIT, CERTAIN, 1),
    ],
    "2b": [(Cause.HOST, POSSIBLE, 1)],
    "2d": [(Cause.HOST, POSSIBLE, 3)],
    "3b": [(Cause.ROW, LIKELY, 1)],
}
SCENARIOS = [
    (kind, scenario)
    for kind in ("sqlite", "postgresql", "mariadb")
    for scenario in RAILS
    if scenario != "2d" or kind == "postgresql"
]


@pytest.mark.parametrize("ledger", [False, True])
@pytest.mark.parametrize(("kind", "scenario"), SCENARIOS, indirect=["kind"])
def test_what_rails_recorded(kind: str, empty_url: URL, scenario: str, *, ledger: bool) -> None:
    rails.load(empty_url, rails.read(kind, scenario))
    database = Database(empty_url)
    if ledger:
        from solidjq.database.setup import initialize

        initialize(database)
    found = all_incidents(database)
    failed = {row["job_id"] for row in rows(database, tables.failed)}
    database.close()
    assert [(each.finding.cause, each.finding.confidence, len(each.deaths)) for each in found] == RAILS[scenario]
    assert {job.job_id for each in found for job in each.jobs} == failed


# -- grouping ---------------------------------------------------------------------------------------------------------


def death(number: int, seconds: float = 0, **changed: Any) -> DeathRecord:
    plain = DeathRecord(
        name=f"d{number}",
        source=DeathSource.PRUNE,
        how=Death.PRUNED,
        hostname="a",
        pid=number,
        last_heartbeat_at=NOON + timedelta(seconds=seconds),
        noticed_at=NOON + timedelta(seconds=seconds + 300),
    )
    return replace(plain, **changed)


def exited(number: int, seconds: float = 0, **changed: Any) -> DeathRecord:
    at = NOON + timedelta(seconds=seconds)
    given = {"how": Death.EXITED, "source": DeathSource.SUPERVISOR, "noticed_at": at, "signal": 9, **changed}
    return death(number, **given)


def names(*found: DeathRecord) -> list[list[str]]:
    return [[each.name for each in together] for together in group(sorted(found, key=lambda each: each.silent_at))]


def beating(seconds: float) -> dict[str, Any]:
    """Give a death the evidence of a process that sent a heartbeat every so many seconds."""
    return {"evidence": {"threshold": 300.0, "sample": {"interval": seconds}}}


def test_silent_together() -> None:
    """The last heartbeats of processes that died at one instant are up to one heartbeat apart, and may be late."""
    assert names(death(1), death(2, 30), death(3, 59)) == [["d1", "d2", "d3"]]
    assert names(death(1), death(2, 66)) == [["d1"], ["d2"]]
    assert names(death(1), death(2, hostname="b"), death(3, hostname=None)) == [["d1", "d2", "d3"]]


def test_a_moment_is_one_heartbeat_long_however_dense_the_deaths_follow() -> None:
    chain = [death(number, 50 * number) for number in range(1, 7)]
    assert names(*chain) == [["d1", "d2"], ["d3", "d4"], ["d5", "d6"]]
    reaped = [exited(number, 50 * number) for number in range(1, 5)]
    assert names(*reaped) == [["d1", "d2"], ["d3", "d4"]]


@pytest.mark.parametrize(
    ("interval", "together", "apart"),
    [
        (1, 5, 7),
        (10, 14, 16),
        (60, 64, 66),
        (300, 304, 306),
        *((garbage, 64, 66) for garbage in (-1, 0, "x", None, 1e300, float("nan"), True)),
    ],
)
def test_a_moment_is_as_long_as_the_heartbeats_are_apart(interval: Any, together: float, apart: float) -> None:
    assert names(death(1, **beating(interval)), death(2, together, **beating(interval))) == [["d1", "d2"]]
    assert names(death(1, **beating(interval)), death(2, apart, **beating(interval))) == [["d1"], ["d2"]]


def test_the_process_that_beats_most_often_says_how_long_a_moment_is() -> None:
    often, rarely = beating(2), beating(60)
    assert names(death(1, **rarely), death(2, 55, **often)) == [["d1", "d2"]]
    assert names(death(1, **often), death(2, 55, **rarely)) == [["d1"], ["d2"]]
    assert names(death(1, **rarely), death(2, 40, **often), death(3, 55, **rarely)) == [["d1", "d2"], ["d3"]]


def test_a_threshold_says_how_far_apart_heartbeats_are_at_most() -> None:
    """Rails' processes record no interval, but a threshold is at least two heartbeats."""
    short = {"evidence": {"threshold": 20.0}}
    assert names(death(1, **short), death(2, 14, **short)) == [["d1", "d2"]]
    assert names(death(1, **short), death(2, 16, **short)) == [["d1"], ["d2"]]
    noticed = {"source": DeathSource.FAILURES}
    one = death(1, noticed_at=NOON + timedelta(seconds=20), **noticed)
    assert names(one, death(2, 14, noticed_at=NOON + timedelta(seconds=40), **noticed)) == [["d1", "d2"]]
    assert names(one, death(2, 16, noticed_at=NOON + timedelta(seconds=40), **noticed)) == [["d1"], ["d2"]]
    for garbage in (-1, "x", 1e300, float("nan"), float("inf")):
        assert death(4, evidence={"threshold": garbage}).interval == timedelta(seconds=60)
    before = death(3, noticed_at=NOON - timedelta(seconds=9))  # two clocks that differ
    assert before.interval == timedelta()


def test_ended_together() -> None:
    assert names(exited(1), exited(2, 10)) == [["d1", "d2"]]
    assert names(exited(1), exited(2, 66)) == [["d1"], ["d2"]]
    assert names(exited(1), exited(2, hostname="b")) == [["d1"], ["d2"]]
    assert names(exited(1), exited(2, signal=11)) == [["d1"], ["d2"]]
    assert names(exited(1), exited(2, signal=None, exit_status=9)) == [["d1"], ["d2"]]
    assert names(exited(1), death(2)) == [["d1"], ["d2"]]
    assert names(exited(1), exited(2, signal=11, seconds=5), exited(3, 20)) == [["d1", "d3"], ["d2"]]


UNKNOWN = CauseFinding(Cause.UNKNOWN, Confidence.UNKNOWN)


def test_an_incident_is_named_after_its_first_death() -> None:
    found = Incident((death(12), death(9, 5), death(100, 7)), (UNKNOWN,) * 3)
    assert (found.name, found.finding, found.charged) == ("d9", UNKNOWN, True)


def test_each_cause_of_a_moment_is_an_incident_of_its_own() -> None:
    """One frozen process does not make those hung whose host was lost at the same moment."""
    hung, lost = CauseFinding(Cause.HUNG, CERTAIN, ("stopped",)), CauseFinding(Cause.HOST, LIKELY, ("silent",))
    first, second = split((death(1), death(2, 50), death(3, 50), death(4, 51)), (hung, lost, lost, lost))
    assert (first.name, first.finding, first.charged, len(first.deaths)) == ("d1", hung, True, 1)
    assert (second.name, second.finding, second.charged, len(second.deaths)) == ("d2", lost, False, 3)
    assert first.beside == (("d2", "host lost (likely)", 3),)
    assert second.beside == (("d1", "hung (certain)", 1),)
    assert split((death(1),), (hung,))[0].beside == ()


def test_an_incident_is_as_sure_as_the_least_sure_of_its_deaths() -> None:
    certain = CauseFinding(Cause.HOST, CERTAIN, ("another boot",))
    likely = CauseFinding(Cause.HOST, LIKELY, ("silent",), ("a sample",))
    (found,) = split((death(1), death(2)), (certain, likely))
    assert found.finding == CauseFinding(Cause.HOST, LIKELY, ("another boot", "silent"), ("a sample",))


def test_an_incident_charges_all_its_jobs_or_none() -> None:
    """A lost host that is only possible clears nobody, beside one that is likely."""
    likely, possible = CauseFinding(Cause.HOST, LIKELY), CauseFinding(Cause.HOST, POSSIBLE)
    cleared, charged = split((death(1), death(2), death(3)), (likely, possible, likely))
    assert ([each.name for each in cleared.deaths], cleared.charged) == (["d1", "d3"], False)
    assert ([each.name for each in charged.deaths], charged.charged) == (["d2"], True)


@pytest.mark.parametrize("cause", Cause)
@pytest.mark.parametrize("confidence", Confidence)
def test_advice_calls_jobs_bystanders_only_if_they_are_not_charged(cause: Cause, confidence: Confidence) -> None:
    (found,) = split((death(1),), (CauseFinding(cause, confidence),))
    assert ("bystanders" in found.finding.advice) == (not found.charged)
    assert "bystanders" not in cause.advice
    assert ("stay charged" in found.finding.advice) == (cause.outside and found.charged)


# -- what we wrote ----------------------------------------------------------------------------------------------------


def add_dead(
    database: Database, name: str, jobs: int, *, sample: Any = None, signal: int | None = None, silence: float = 400
) -> list[int]:
    """Let a process die with jobs in its hands: reaped with a signal, else pruned."""
    ids = add_jobs(database, *plain_jobs(jobs))
    metadata = {} if sample is None else {"sample": sample}
    process = database.transact(register, kind="Worker", name=name, pid=77, hostname=f"host-{name}", metadata=metadata)
    claim_all(database, process)
    if signal is not None:
        assert database.transact(pruning.fail_exited, process, pid=77, returncode=-signal) == ids
        return ids
    with database.write() as connection:
        connection.execute(
            update(tables.processes).where(tables.processes.c.id == process).values(last_heartbeat_at=ago(silence))
        )
    (pruned,) = pruning.prune(database, 300)
    assert pruned.job_ids == ids
    return ids


def test_deaths_survive_all_that_is_done_with_their_jobs(database: Database) -> None:
    retried, discarded = add_dead(database, "w1", 2, signal=11)
    before = all_incidents(database)
    retry_jobs(database, [retried])
    from solidjq.recovery.retry import retry
    from solidjq.recovery.terms import RetryTerms, Selection

    list(retry(database, Selection(job_ids=[discarded]), Operation("discard"), RetryTerms(discard=True)))
    assert rows(database, tables.failed) == []
    assert all_incidents(database) == before
    assert [job.job_id for job in before[0].jobs] == [retried, discarded]


def test_what_rails_recorded_survives_a_retry_by_jq_too(database: Database) -> None:
    ids = add_dead(database, "w1", 2, signal=9)
    with database.write() as connection:  # as if Rails had been there alone
        connection.execute(delete(tables.crashes))
        connection.execute(delete(tables.deaths))
    (before,) = all_incidents(database)
    assert before.name.startswith("f")
    retry_jobs(database, ids)
    (after,) = all_incidents(database)
    assert (after.name, after.finding, after.jobs) == (before.name, before.finding, before.jobs)


def test_the_sample_tells_when_jobs_began_and_what_they_took(database: Database) -> None:
    sample = {
        "rss": 500,
        "jobs": [{"id": 1, "since": "2026-11-23T11:00:00.000Z", "rss": 100}, {"id": "x"}, 7, {"id": 99}],
    }
    ids = add_jobs(database, *plain_jobs(2))
    sample["jobs"][0]["id"] = ids[0]  # type: ignore[index]
    process = database.transact(register, kind="Worker", name="w", pid=1, hostname="h", metadata={"sample": sample})
    claim_all(database, process)
    database.transact(pruning.fail_exited, process, pid=1, returncode=-9)
    (incident,) = all_incidents(database)
    began = datetime(2026, 11, 23, 11, 0, tzinfo=UTC)
    assert [(job.started_at, job.growth) for job in incident.jobs] == [(began, 400), (None, None)]


def test_a_prune_counts_who_is_left(database: Database) -> None:
    database.transact(register, kind="Worker", name="beside", pid=5, hostname="elsewhere", metadata={})
    with database.write() as connection:
        connection.execute(update(tables.processes).values(created_at=ago(9000)))
    ids = add_jobs(database, *plain_jobs(1))
    process = database.transact(register, kind="Worker", name="w", pid=1, hostname="lost", metadata={})
    claim_all(database, process)
    with database.write() as connection:
        mine = update(tables.processes).where(tables.processes.c.id == process)
        connection.execute(mine.values(last_heartbeat_at=ago(400), created_at=ago(9000)))
    list(pruning.prune(database, 300))
    (incident,) = all_incidents(database)
    fleet = incident.deaths[0].evidence["fleet"]
    assert (fleet["alive"], fleet["silent"], fleet["alive_here"], fleet["hosts_alive"]) == (1, 1, 0, 1)
    assert (incident.finding.cause, incident.finding.confidence) == (Cause.HOST, LIKELY)
    assert [job.job_id for job in incident.jobs] == ids


def test_an_incident_by_its_name(database: Database) -> None:
    add_dead(database, "w1", 3, signal=9)
    (incident,) = all_incidents(database)
    with database.read() as connection:
        assert find_incident(connection, incident.name) == incident
        for name in ("d999", "f999", "x1", "d", "", "d-1", "d99999999999999999999", "d\N{SUPERSCRIPT TWO}"):
            assert find_incident(connection, name) is None
        assert find_incident(connection, f"d{incident.name[1:].translate(ARABIC_DIGITS)}") is None


@pytest.mark.parametrize("counted", [True, False])
def test_an_incident_that_rails_left_by_the_name_of_any_of_its_failures(database: Database, *, counted: bool) -> None:
    """``jq failed show`` names a job's own failure, which need not be the first of its death."""
    add_dead(database, "w1", 3)
    failures = [row["id"] for row in rows(database, tables.failed)]
    with database.write() as connection:
        connection.execute(delete(tables.deaths))
        connection.execute(update(tables.crashes).values(death_id=None) if counted else delete(tables.crashes))
    (incident,) = all_incidents(database)
    assert incident.name == f"f{failures[0]}"
    with database.read() as connection:
        assert [find_incident(connection, f"f{failure}") for failure in failures] == [incident] * 3


def add_silent(
    database: Database, name: str, host: str, pid: int, beat: datetime, jobs: int = 1, **sample: Any
) -> list[int]:
    """Register a process that began an hour before its last heartbeat, with jobs in its hands."""
    ids = add_jobs(database, *plain_jobs(jobs))
    metadata = {"sample": sample} if sample else {}
    process = database.transact(register, kind="Worker", name=name, pid=pid, hostname=host, metadata=metadata)
    if jobs:
        claim_all(database, process)
    with database.write() as connection:
        mine = update(tables.processes).where(tables.processes.c.id == process)
        connection.execute(mine.values(last_heartbeat_at=beat, created_at=beat - timedelta(hours=1)))
    return ids


def test_a_frozen_process_is_not_the_cause_of_its_neighbours_deaths(database: Database, shell: Shell) -> None:
    """One is frozen on this host; three die with another host within the same minute."""
    now = database.now()
    with stopped_process() as frozen:
        host, started = socket.gethostname(), start_of(frozen.pid).isoformat()
        beat = now - timedelta(seconds=400)  # the process is younger, but its sample says that it is this one
        (hung,) = add_silent(database, "frozen", host, frozen.pid, beat, pid_started=started)
        add_silent(database, "beside", "third", 5, now, jobs=0)
        lost = [
            job
            for number in (1, 2, 3)
            for job in add_silent(database, f"lost-{number}", "lost", number, now - timedelta(seconds=345))
        ]
        assert len(list(pruning.prune(database, 300))) == 4
    listed = json.loads(shell.run("incidents", "list", "-o", "json").stdout)
    names = {row["name"]: f"d{row['id']}" for row in rows(database, tables.deaths)}
    told = ("incident", "cause", "processes", "jobs", "charged", "beside", "processes_exact")
    assert [[each[key] for key in told] for each in listed] == [
        [names["lost-1"], "host lost", 3, 3, False, [names["frozen"]], True],
        [names["frozen"], "hung", 1, 1, True, [names["lost-1"]], True],
    ]
    for name in ("lost-1", "lost-2", "lost-3"):  # the name of any death finds the incident
        (shown,) = json.loads(shell.run("incidents", "show", names[name], "-o", "json").stdout)
        assert (shown["incident"], shown["job_ids"], shown["charged"]) == (names["lost-1"], lost, False)
        assert "bystanders" in shown["next"]
        assert [each["charged"] for each in shown["deaths"]] == [False] * 3
    text = shell.run("incidents", "show", names["frozen"]).stdout
    assert f"beside    {names['lost-1']}: host lost (likely), 3 processes at the same moment" in text
    assert "bystanders" not in text
    assert shell.run("incidents", "show", names["frozen"], "-o", "ids").stdout.split() == [str(hung)]


def test_a_host_is_lost_for_all_its_processes_however_young_their_last_heartbeats_look(database: Database) -> None:
    """The first of a host is pruned while the last heartbeat of the second is younger than the threshold."""
    now = database.now()
    add_silent(database, "beside", "other", 5, now, jobs=0)
    add_silent(database, "first", "lost", 1, now - timedelta(seconds=320))
    add_silent(database, "second", "lost", 2, now - timedelta(seconds=280))
    assert [pruned.name for pruned in pruning.prune(database, 300)] == ["first"]
    (incident,) = all_incidents(database)
    assert incident.finding.cause is Cause.UNKNOWN
    with database.write() as connection:
        second = update(tables.processes).where(tables.processes.c.name == "second")
        connection.execute(second.values(last_heartbeat_at=now - timedelta(seconds=300)))
    assert [pruned.name for pruned in pruning.prune(database, 300)] == ["second"]
    (incident,) = all_incidents(database)
    assert ([finding.words for finding in incident.findings], incident.charged) == (["host lost (likely)"] * 2, False)


def test_an_incident_keeps_its_name_at_the_edge_of_the_times_asked_for(database: Database) -> None:
    add_dead(database, "w1", 1)
    add_dead(database, "w2", 1)
    now = database.now()
    with database.write() as connection:
        first = update(tables.deaths).where(tables.deaths.c.name == "w1")
        connection.execute(first.values(noticed_at=now - timedelta(minutes=30)))
    (whole,) = all_incidents(database)
    with database.read() as connection:
        for given in ({"since": now - timedelta(minutes=10)}, {"until": now - timedelta(minutes=10)}):
            assert find_incidents(connection, **given) == [whole]
        assert find_incidents(connection, since=now + timedelta(minutes=10)) == []
        assert find_incidents(connection, until=now - timedelta(minutes=31)) == []


# -- deaths that only failures record ---------------------------------------------------------------------------------


def forget(database: Database) -> None:
    """Leave of all deaths only the failures, as without the jq_ tables."""
    with database.write() as connection:
        connection.execute(delete(tables.crashes))
        connection.execute(delete(tables.deaths))


def failed_at(database: Database, times: dict[int, float]) -> None:
    """Set when jobs failed, in seconds after a moment of yesterday."""
    start = database.now() - timedelta(days=1)
    with database.write() as connection:
        for job_id, seconds in times.items():
            one = update(tables.failed).where(tables.failed.c.job_id == job_id)
            connection.execute(one.values(created_at=start + timedelta(seconds=seconds)))


def two_of_one_second(database: Database, *, jobs: int = 2) -> tuple[list[int], list[int]]:
    """Let two processes die whose last heartbeats fell into the same second."""
    beat = database.now().replace(microsecond=0) - timedelta(seconds=400)
    one = add_silent(database, "one", "a", 1, beat, jobs)
    other = add_silent(database, "other", "b", 2, beat + timedelta(milliseconds=400), jobs)
    assert len(list(pruning.prune(database, 300))) == 2
    forget(database)
    (error,) = {row["error"] for row in rows(database, tables.failed)}
    assert "last heartbeat at" in error
    return one, other


def test_processes_of_one_heartbeat_second_are_told_apart_by_the_instant_that_a_prune_wrote(database: Database) -> None:
    one, other = two_of_one_second(database)
    failed_at(database, {**dict.fromkeys(one, 1.0), **dict.fromkeys(other, 1.25)})
    (incident,) = all_incidents(database)
    assert [[job.job_id for job in death.jobs] for death in incident.deaths] == [one, other]
    assert not incident.several


def test_processes_of_one_heartbeat_second_that_rails_pruned_may_be_several(database: Database, shell: Shell) -> None:
    """Rails writes each failure by itself: nothing tells of which process it was."""
    one, other = two_of_one_second(database)
    failed_at(database, {job: number / 100 for number, job in enumerate((*one, *other))})
    (incident,) = all_incidents(database)
    assert ([job.job_id for job in incident.jobs], len(incident.deaths), incident.several) == ([*one, *other], 1, True)
    (listed,) = json.loads(shell.run("incidents", "list", "-o", "json").stdout)
    assert (listed["processes"], listed["processes_exact"]) == (1, False)
    shown = shell.run("incidents", "show", listed["incident"]).stdout
    assert "process, or several" in shown
    assert "1 or more processes with 4 jobs" in shown
    assert "unknown   how many processes died" in shown
    assert "1+ processes" in terminal(shell, "incidents", "list", width=200)
    for failure in (job.failure_id for job in incident.jobs):
        (found,) = json.loads(shell.run("incidents", "show", f"f{failure}", "-o", "json").stdout)
        assert found["incident"] == incident.name


def test_one_job_died_with_one_process(database: Database) -> None:
    ((job,), (other,)) = two_of_one_second(database, jobs=1)
    failed_at(database, {job: 0, other: 3600})
    assert [incident.several for incident in all_incidents(database)] == [False]
    assert [len(death.jobs) for incident in all_incidents(database) for death in incident.deaths] == [1, 1]


@pytest.mark.parametrize(("times", "deaths"), [([0, 9, 18], 1), ([0, 11, 22], 3), ([9.0 * n for n in range(12)], 2)])
def test_failures_without_end_are_not_one_death(database: Database, times: list[float], deaths: int) -> None:
    """A supervisor that starts again and again fails what it finds orphaned, always with the same error."""
    ids = add_jobs(database, *plain_jobs(len(times)))
    gone = add_process(database)
    claim_all(database, gone)
    with database.write() as connection:
        connection.execute(delete(tables.processes))
    assert fail_orphans(database) == ids
    forget(database)
    failed_at(database, dict(zip(ids, times, strict=True)))
    found = [death for incident in all_incidents(database) for death in incident.deaths]
    assert len(found) == deaths
    assert all(death.several == (len(death.jobs) > 1) for death in found)


# -- suspects ---------------------------------------------------------------------------------------------------------


def kill_again(database: Database, job_ids: list[int], name: str, *, sample: Any = None) -> None:
    """Let jobs that were retried die once more, pruned."""
    process = database.transact(
        register, kind="Worker", name=name, pid=78, hostname=f"host-{name}", metadata={"sample": sample or {}}
    )
    assert {claim.job_id for claim in claim_all(database, process)} == set(job_ids)
    with database.write() as connection:
        mine = update(tables.processes).where(tables.processes.c.id == process)
        connection.execute(mine.values(last_heartbeat_at=ago(1000)))
    assert list(pruning.prune(database, 300))


def test_deaths_from_outside_charge_nobody(database: Database) -> None:
    told = {"term_at": (database.now() - timedelta(seconds=500)).isoformat()}
    ids = add_dead(database, "w1", 1, sample=told)
    assert all_incidents(database)[0].finding.cause is Cause.SHUTDOWN
    assert retry_jobs(database, ids, safe=True).verdicts == {ids[0]: Verdict.RETRY}
    kill_again(database, ids, "w2", sample={"term_at": (database.now() - timedelta(seconds=1100)).isoformat()})
    assert retry_jobs(database, ids, safe=True).verdicts == {ids[0]: Verdict.RETRY}
    kill_again(database, ids, "w3")
    held = retry_jobs(database, ids, safe=True, max_crashes=9)
    assert held.verdicts == {ids[0]: Verdict.RETRY}, "only one of three deaths charges"


def test_two_deaths_that_charge_make_a_suspect(database: Database) -> None:
    ids = add_dead(database, "w1", 1)
    retry_jobs(database, ids, safe=True)
    kill_again(database, ids, "w2")
    assert retry_jobs(database, ids, safe=True).verdicts == {ids[0]: Verdict.SUSPECT}
    with database.read() as connection:
        ranking = find_suspects(connection, find_incidents(connection))
    assert [(score.standing, score.deaths) for score in ranking.jobs] == [(JobStanding.SUSPECT, 2)]


def test_twins_at_two_deaths_that_nobody_recorded_are_one_job(database: Database) -> None:
    """As of a job that was enqueued again under its Active Job id: both failures are Rails' own, and not counted."""
    twins = add_jobs(database, *plain_jobs(2))
    with database.write() as connection:
        connection.execute(tables.ready.delete())
        connection.execute(update(tables.jobs).values(active_job_id="the same"))
        for minute, job_id in enumerate(twins):
            died = {"job_id": job_id, "error": exit_error(100 + minute, -11), "created_at": ago(600 - 60 * minute)}
            connection.execute(tables.failed.insert().values(**died))
    with database.read() as connection:
        (score,) = find_suspects(connection, each_incident(connection)).jobs
    assert (score.name, score.deaths, list(score.job_ids)) == ("the same", 2, twins)


def test_jobs_of_one_death_and_class_are_scored_once_and_told_apart(database: Database) -> None:
    """A job that crashed before is scored by itself; the others of its death and class are a crowd."""
    ids = add_dead(database, "w1", 3)
    retry_jobs(database, ids[:1], safe=True)
    kill_again(database, ids[:1], "w2")
    with database.read() as connection:
        scores = find_suspects(connection, each_incident(connection)).jobs
    assert sorted((score.count, score.deaths, score.job_ids) for score in scores) == [(1, 2, (ids[0],)), (2, 1, ())]
    apart = list(each_job(database, scores))
    assert sorted(each.job_ids for each in apart) == [(job_id,) for job_id in ids]
    assert [each.count for each in apart] == [1, 1, 1]
    (crowd,) = [score for score in scores if score.crowd is not None]
    assert {(each.score, each.standing, each.reasons, each.at) for each in each_job(database, [crowd])} == {
        (crowd.score, crowd.standing, crowd.reasons, crowd.at)
    }
    named = rank(
        [
            DeathCase("d1", Blame.UNKNOWN, tuple(InFlight(each.name, each.class_name) for each in apart)),
            DeathCase("d2", Blame.UNKNOWN, (InFlight(apart[0].name, apart[0].class_name),)),
        ],
        None,
    )
    assert {each.name: (each.score, each.standing) for each in named.jobs} == {
        each.name: (each.score, each.standing) for each in apart
    }


def test_jobs_of_deaths_are_counted_by_the_database_and_read_when_somebody_looks(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Deaths that jq recorded, that a prune of an older jq wrote at once, and that Rails wrote job by job."""
    order = {"recorded": 1, "at once": 2, "job by job": 3}
    ids = {how: add_dead(database, how, 3, silence=1000 * number) for how, number in order.items()}
    failures = {row["job_id"]: row for row in rows(database, tables.failed)}
    deaths = {row["name"]: row["id"] for row in rows(database, tables.deaths)}
    crashes, failed = tables.crashes.c, tables.failed.c
    with database.write() as connection:
        for how in ("at once", "job by job"):
            connection.execute(delete(tables.deaths).where(tables.deaths.c.id == deaths[how]))
            connection.execute(update(tables.crashes).where(crashes.death_id == deaths[how]).values(death_id=None))
            connection.execute(delete(tables.crashes).where(crashes.job_id == ids[how][0]))  # not counted yet
        for number, job_id in enumerate(ids["job by job"]):
            at = failures[job_id]["created_at"] + timedelta(seconds=number)
            connection.execute(update(tables.failed).where(failed.job_id == job_id).values(created_at=at))
            connection.execute(update(tables.crashes).where(crashes.job_id == job_id).values(crashed_at=at))
    retry_jobs(database, ids["at once"][1:2])
    with database.read() as connection:
        whole = find_incidents(connection)
        ranking = find_suspects(connection, whole)
    assert {tuple(sorted(one.job_ids)): one.several for one in whole} == {
        tuple(ids["recorded"]): False,
        tuple(ids["at once"]): False,
        tuple(ids["job by job"]): True,
    }

    def no_job(*_: object) -> None:
        raise AssertionError("a job was read")

    monkeypatch.setattr(ClaimedJobs, "add", no_job)
    with database.read() as connection:
        counted = sorted(each_incident(connection, waiting=True), key=lambda incident: incident.at)
        suspected = find_suspects(connection, counted)
        summaries = summarize(counted)
        waiting = count_waiting(connection, summaries)
    monkeypatch.undo()
    with pytest.raises(RuntimeError, match="counted, not read"):
        _ = counted[0].jobs
    assert [(one.name, one.size, one.by_class) for one in counted] == [(one.name, 3, one.by_class) for one in whole]
    assert sorted(summary.waiting for summary in summaries) == [2, 3, 3]
    assert waiting == {name: 3 for name in (summary.name for summary in summaries) if name.startswith("d")}
    assert [(score.name, score.score, score.reasons) for score in suspected.jobs] == [
        (score.name, score.score, score.reasons) for score in ranking.jobs
    ]
    assert sorted(each.job_ids for each in each_job(database, suspected.jobs)) == sorted(
        (job_id,) for of_death in ids.values() for job_id in of_death
    )
    with database.read() as connection:
        assert with_jobs(connection, counted) == whole


def test_suspects_can_be_isolated(database: Database) -> None:
    suspect = add_dead(database, "w1", 1)
    retry_jobs(database, suspect, safe=True)
    kill_again(database, suspect, "w2")
    innocent = add_dead(database, "w3", 1, silence=2000)
    done = retry_jobs(database, [*suspect, *innocent], safe=True, isolate="quarantine")
    assert done.verdicts == {suspect[0]: Verdict.ISOLATE, innocent[0]: Verdict.RETRY}
    assert {row["id"]: row["queue_name"] for row in rows(database, tables.jobs)} == {
        suspect[0]: "quarantine",
        innocent[0]: "default",
    }
    assert len(rows(database, tables.ready)) == 2


def usual(looks: int, **seen: int) -> Any:
    return {"sample": {"looks": looks, "seen": seen}}


def test_a_class_that_kills_is_held(database: Database) -> None:
    """Three deaths of one class that hardly ever runs: its jobs are held though each died once only."""
    database.transact(
        register, kind="Worker", name="live", pid=1, hostname="h", metadata=usual(1000, PlainJob=3, Other=600)
    )
    ids = [job for number in range(3) for job in add_dead(database, f"w{number}", 1, signal=9)]
    (other,) = add_jobs(database, NewJob(class_name="Other"))
    process = database.transact(register, kind="Worker", name="o", pid=9, hostname="h", metadata={})
    claim_all(database, process)
    database.transact(pruning.fail_exited, process, pid=9, returncode=-9)
    held = retry_jobs(database, [*ids, other], safe=True)
    assert held.verdicts == {**dict.fromkeys(ids, Verdict.SUSPECT), other: Verdict.RETRY}
    assert "PlainJob may kill its process: in flight at 3 of 4 deaths" in (held.reason(ids[0]) or "")


def test_a_class_that_always_runs_is_not_charged_with_being_there(database: Database) -> None:
    database.transact(register, kind="Worker", name="live", pid=1, hostname="h", metadata=usual(1000, PlainJob=990))
    ids = [job for number in range(3) for job in add_dead(database, f"w{number}", 1, signal=9)]
    assert set(retry_jobs(database, ids, safe=True).verdicts.values()) == {Verdict.RETRY}


def test_all_jobs_of_a_class_that_kills_are_held_wherever_they_were_in_flight(database: Database) -> None:
    database.transact(register, kind="Worker", name="live", pid=1, hostname="h", metadata=usual(1000, PlainJob=3))
    ids = [job for number in range(3) for job in add_dead(database, f"w{number}", 2, signal=9)]
    held = retry_jobs(database, ids, safe=True, isolate="quarantine")
    assert set(held.verdicts.values()) == {Verdict.ISOLATE}


def test_a_job_that_was_alone_at_a_crash_is_held_at_once(database: Database) -> None:
    (killer,) = add_dead(database, "w1", 1, signal=11)
    bystanders = add_dead(database, "w2", 3, signal=9)
    held = retry_jobs(database, [killer, *bystanders], safe=True, isolate=None)
    assert held.verdicts == {killer: Verdict.SUSPECT, **dict.fromkeys(bystanders, Verdict.RETRY)}
    assert held.reason(killer) == "it was in flight at 1 death; alone at 1 death"
    with database.read() as connection:
        ranking = find_suspects(connection, find_incidents(connection))
    assert {score.standing for score in ranking.jobs if score.deaths == score.alone == 1} == {JobStanding.SUSPECT}


def test_of_several_jobs_at_a_crash_none_goes_back_until_one_is_accused(database: Database) -> None:
    """One of them did it: to put them all back is to put the killer back."""
    first = add_dead(database, "w1", 3, signal=11)
    (incident,) = all_incidents(database)
    held = retry_jobs(database, first, safe=True)
    assert set(held.verdicts.values()) == {Verdict.SUSPECT}
    assert (
        held.reason(first[0]) == f"one of 3 jobs that cannot be told apart; jq bisect {incident.name} finds the killer"
    )

    retry_jobs(database, first[:1])
    kill_again(database, first[:1], "w2")
    accused = retry_jobs(database, first, safe=True)
    assert accused.verdicts == {first[0]: Verdict.SUSPECT, first[1]: Verdict.RETRY, first[2]: Verdict.RETRY}


def test_the_job_whose_thread_crashed_is_accused_and_its_company_goes_back(database: Database) -> None:
    ids = add_jobs(database, *[NewJob(class_name="PlainJob") for _ in range(3)])
    process = database.transact(register, kind="Worker", name="w1", pid=9, hostname="h", metadata={})
    claims = {claim.job_id: claim.id for claim in claim_all(database, process)}
    database.transact(pruning.fail_exited, process, pid=9, returncode=-11, faulting=claims[ids[1]])
    held = retry_jobs(database, ids, safe=True)
    assert held.verdicts == {ids[0]: Verdict.RETRY, ids[1]: Verdict.SUSPECT, ids[2]: Verdict.RETRY}
    (incident,) = all_incidents(database)
    with database.read() as connection:
        ranking = find_suspects(connection, [incident])
    assert [(score.standing, score.alone) for score in ranking.jobs] == [(JobStanding.SUSPECT, 0)]
    by_the_stack = "named by the stack of the thread that crashed at 1 death"
    assert all(by_the_stack in score.reasons for score in ranking.jobs)
    assert held.reason(ids[1]) == f"it was in flight at 1 death; {by_the_stack}"
    assert incident.deaths[0].why_cleared == f"the stack of the thread that crashed names job {ids[1]}"


def test_jobs_whose_class_was_renamed_since_their_death_are_held_with_it(database: Database) -> None:
    ids = add_dead(database, "w1", 2, signal=11)
    accused = add_jobs(database, NewJob(class_name="PlainJob"))
    process = database.transact(register, kind="Worker", name="w2", pid=9, hostname="h", metadata={})
    (claim,) = claim_all(database, process)
    database.transact(pruning.fail_exited, process, pid=9, returncode=-6, faulting=claim.id)
    held = retry_jobs(database, [*ids, *accused], safe=True)
    change(database, update(tables.jobs).values(class_name="RenamedJob"))
    renamed = retry_jobs(database, [*ids, *accused], safe=True)
    assert set(renamed.verdicts.values()) == {Verdict.SUSPECT}
    assert renamed.verdicts == held.verdicts
    assert [renamed.reason(each) for each in ids] == [held.reason(each) for each in ids]


@pytest.mark.parametrize("room", [0, 200_000])
def test_classes_that_differ_in_case_only_are_two(
    database: Database, monkeypatch: pytest.MonkeyPatch, room: int
) -> None:
    monkeypatch.setattr("solidjq.incidents.charges.MOST_KEPT", room)  # jobs of other classes
    ids = add_jobs(database, *(NewJob(class_name=name) for name in ("HTTPJob", "HttpJob", "HttpJob")))
    process = database.transact(register, kind="Worker", name="w1", pid=9, hostname="h", metadata={})
    claim_all(database, process)
    database.transact(pruning.fail_exited, process, pid=9, returncode=-11)
    reason = "one of 3 jobs that cannot be told apart; jq bisect {} finds the killer"
    for death in ("d1", "f1"):
        (incident,) = all_incidents(database)
        name = incident.deaths[0].name
        assert name[:1] == death[:1]
        held = retry_jobs(database, ids, safe=True)
        assert {held.reason(each) for each in ids} == {reason.format(name)}
        with database.read() as connection:
            ranking = find_suspects(connection, [incident])
        apart = sorted((score.class_name, *score.job_ids) for score in each_job(database, ranking.jobs))
        assert apart == [("HTTPJob", ids[0]), ("HttpJob", ids[1]), ("HttpJob", ids[2])]
        change(database, delete(tables.deaths), delete(tables.crashes))


def test_a_death_whose_accused_job_was_never_counted_keeps_nobody_from_a_retry(database: Database) -> None:
    ids = add_jobs(database, NewJob(class_name="PlainJob"))
    process = database.transact(register, kind="Worker", name="w1", pid=9, hostname="h", metadata={})
    (claim,) = claim_all(database, process)
    database.transact(pruning.fail_exited, process, pid=9, returncode=-11, faulting=claim.id)
    change(database, delete(tables.crashes), update(tables.failed).values(error=error_json("ArgumentError", "boom")))
    assert retry_jobs(database, ids, safe=True, include_errors=True).verdicts == {ids[0]: Verdict.RETRY}


# -- the commands -----------------------------------------------------------------------------------------------------


def test_jobs_that_cannot_be_told_apart_are_in_order_and_counted_as_jobs(database: Database, shell: Shell) -> None:
    """Not in the order of their Active Job ids; and "6 PlainJob" of a group in a plan would be read as job 6."""
    ids = add_dead(database, "w1", 6, signal=11)
    named = ", ".join(f"{job_id} PlainJob" for job_id in ids)
    assert f"\njob   {named}: cannot be told apart" in shell.run("suspects", "-o", "table").stdout
    planned = shell.run("retry", "--safe", "--dry-run", "-o", "table").stdout
    reason = "one of 6 jobs that cannot be told apart"
    by_itself, grouped = f"{', '.join(map(str, ids))} PlainJob", "6 jobs of PlainJob"
    assert any(f"\nsuspect     {jobs}: {reason}" in planned for jobs in (by_itself, grouped))


def test_incidents_list_and_show(database: Database, shell: Shell) -> None:
    ids = add_dead(database, "w1", 3, signal=11)
    listed = shell.run("incidents", "list", "-o", "json")
    (found,) = json.loads(listed.stdout)
    assert {key: found[key] for key in ("cause", "confidence", "processes", "jobs", "hosts", "classes", "charged")} == {
        "cause": "crashed",
        "confidence": "certain",
        "processes": 1,
        "jobs": 3,
        "hosts": ["host-w1"],
        "classes": ["PlainJob"],
        "charged": True,
    }
    shown = shell.run("incidents", "show", found["incident"], "-o", "json")
    (detail,) = json.loads(shown.stdout)
    assert detail["job_ids"] == ids
    (one,) = detail["deaths"]
    assert (one["signal"], one["pid"], one["source"], len(one["jobs"])) == (11, 77, "supervisor", 3)
    assert shell.run("incidents", "show", found["incident"], "-o", "ids").stdout.split() == list(map(str, ids))
    text = shell.run("incidents", "show", found["incident"]).stdout
    assert "crashed (certain)" in text
    assert "SIGSEGV" in text
    assert f"job {ids[0]} PlainJob" in text
    assert "\ndo        " in text
    assert "retry     --safe: 0 jobs would go back, 3 would be held back" in text
    assert f"job {ids[0]} PlainJob: suspect: one of 3 jobs that cannot be told apart; jq bisect" in text
    assert [each["verdict"] for each in detail["retry_safe"]] == ["suspect"] * 3
    missing = shell.run("incidents", "show", "d999")
    assert (missing.returncode, missing.stdout) == (4, "")
    partly = shell.run("incidents", "show", found["incident"], "d999", "-o", "ids")
    assert (partly.returncode, len(partly.stdout.split())) == (6, 3)
    assert shell.run("incidents", "list", "--since", "nonsense").returncode == 2
    assert shell.run("incidents", "list", "--until", "1d").stderr.startswith("jq: no process died")


def test_suspects(database: Database, shell: Shell) -> None:
    (job_id,) = add_dead(database, "w1", 1)
    retry_jobs(database, [job_id], safe=True)
    kill_again(database, [job_id], "w2")
    add_dead(database, "w3", 2, silence=2000)
    listed = shell.run("suspects", "-o", "json")
    found = json.loads(listed.stdout)
    assert [(each["kind"], each["standing"], each["job_ids"]) for each in found if each["standing"] == "suspect"] == [
        ("job", "suspect", [job_id])
    ]
    assert shell.run("suspects", "-o", "ids").stdout.split() == [str(job_id)]
    everybody = json.loads(shell.run("suspects", "--all", "-o", "json").stdout)
    assert len(everybody) > len(found)
    assert "bystanders" in shell.run("suspects").stderr
    isolated = shell.run("retry", "--safe", "--isolate", "--quarantine", "apart", "--yes", "-o", "json")
    assert isolated.returncode == 0
    assert {each["verdict"] for each in json.loads(isolated.stdout)} == {"isolate", "retry"}
    assert "1 of them in quarantine" in isolated.stderr
    assert shell.run("retry", "--isolate", "1").returncode == 2


@pytest.mark.sqlite_only
def test_two_incidents_side_by_side(database: Database, shell: Shell) -> None:
    crashed = add_dead(database, "w1", 1, signal=11, sample={"release": "v1", "peak": 10})
    add_dead(database, "w2", 2, signal=9)
    one, other = (
        each["incident"] for each in reversed(json.loads(shell.run("incidents", "list", "-o", "json").stdout))
    )
    ran = shell.run("failed", "diff", one, other, "-o", "json")
    assert ran.returncode == 1
    fields = {row["field"]: (row["left"], row["right"], row["differs"]) for row in json.loads(ran.stdout)}
    assert fields["cause"] == ("crashed", "killed", True)
    assert fields["signals"] == ([11], [9], True)
    assert fields["releases"] == (["v1"], [], True)
    assert fields["class_name"] == (["PlainJob"], ["PlainJob"], False)
    assert fields["jobs"] == (1, 2, False)
    assert shell.run("failed", "diff", one, one).returncode == 0
    assert shell.run("failed", "diff", one, str(crashed[0])).returncode in {0, 1}
    assert shell.run("failed", "diff", one, "d999").returncode == 4
    alone = json.loads(shell.run("failed", "diff", one, "-o", "json").stdout)
    assert [group["jobs"] for group in alone] == [len(crashed)], "of one incident alone, the groups of its failures"


def test_groups_of_deaths_name_their_causes(database: Database, shell: Shell) -> None:
    add_dead(database, "w1", 2, signal=11)
    add_dead(database, "w2", 1, signal=9)
    with database.write() as connection:  # as Rails would have left it
        killed = select(tables.deaths.c.id).where(tables.deaths.c.signal == 9)
        connection.execute(delete(tables.crashes).where(tables.crashes.c.death_id.in_(killed)))
        connection.execute(delete(tables.deaths).where(tables.deaths.c.signal == 9))
    groups = json.loads(shell.run("failed", "diff", "-o", "json").stdout)
    assert [group["causes"] for group in groups] == [{"crashed (certain)": 2}, {"killed (likely)": 1}]
    assert [group["hosts"] for group in groups] == [{"host-w1": 2}, {}], "Rails keeps no host"


@pytest.mark.sqlite_only
def test_a_group_with_several_causes_says_so(database: Database, shell: Shell) -> None:
    add_dead(database, "w1", 2, sample={"cgroup": {"current": 99, "max": 100}}, silence=4000)
    add_dead(database, "w2", 1)
    (group,) = json.loads(shell.run("failed", "diff", "-o", "json").stdout)
    first, second = group["causes"]
    assert (group["causes"][first], group["causes"][second]) == (2, 1)
    assert f"died: its heartbeat stopped: {first} +1" in terminal(shell, "failed", "diff", width=200)


@pytest.mark.sqlite_only
def test_text_from_a_database_cannot_act_on_a_terminal(database: Database, shell: Shell) -> None:
    add_jobs(database, NewJob(class_name="Evil\x1b[2J"))
    process = database.transact(
        register, kind="W\x1b[31m", name="w\x07", pid=1, hostname="h\x1b]0;x\x07", metadata={"sample": {"jobs": "\x1b"}}
    )
    claim_all(database, process)
    database.transact(pruning.fail_exited, process, pid=1, returncode=-9, witness={"last_words": "\x1b[1mboo"})
    for arguments in (["incidents", "list"], ["incidents", "show", "d1"], ["suspects", "--all"]):
        name = all_incidents(database)[0].name
        ran = shell.run(*(name if each == "d1" else each for each in arguments))
        assert ran.returncode == 0
        assert "\x1b" not in ran.stdout + ran.stderr
        assert "\x07" not in ran.stdout + ran.stderr


@pytest.mark.sqlite_only
def test_what_is_shown_of_many_deaths_fits_a_terminal(database: Database, shell: Shell) -> None:
    """Each death has a fact of its own; lines are broken between words, and only on a terminal."""
    now = database.now()
    add_silent(database, "beside", "other", 99, now, jobs=0)
    for number in range(9):
        add_silent(database, f"w{number}", "lost", number + 1, now - timedelta(seconds=400 + 2 * number))
    assert len(list(pruning.prune(database, 300))) == 9
    forget(database)
    (incident,) = all_incidents(database)
    assert len(incident.finding.used) == 9
    piped = shell.run("incidents", "show", incident.name).stdout
    assert piped.count("\nbecause   ") == 6
    assert "because   4 more facts (-o json)" in piped
    drawn = terminal(shell, "incidents", "show", incident.name, width=60).splitlines()
    assert all(len(line) <= 60 for line in drawn)
    advice = drawn[next(at for at, line in enumerate(drawn) if line.startswith("do  ")) :]
    assert advice[1].startswith("          ")
    assert drawn[-1].startswith("next  jq ")


# -- the picture ------------------------------------------------------------------------------------------------------


def picture(incident: Incident, width: int) -> list[str]:
    lines = list(draw(incident, width))
    assert all(len(line) <= width for line in lines), lines
    return lines


def test_a_picture_of_a_silence() -> None:
    job = ClaimedJob(7, "job 7", "Report", 1, NOON - timedelta(seconds=120))
    one = death(
        1,
        started_at=NOON - timedelta(days=3),
        kind="Worker",
        jobs=ClaimedJobs([job, ClaimedJob(8, "job 8", "Mail", 2)]),
    )
    lines = picture(Incident((one,), (CauseFinding(Cause.HOST, LIKELY),)), 80)
    assert "11:55:00" in lines[0]
    assert lines[0].endswith("12:05:00 UTC")
    assert lines[1].startswith("worker pid 1 ")
    life, silence = lines[1].split("x")
    assert life.count("=") > 20
    assert silence == "." * len(silence[:-1]) + "!"
    assert 0 < lines[2].count("=") < life.count("=")
    assert "=" not in lines[3]
    assert lines[1].index("x") == lines[2].index("x", 12) == lines[3].index("x", 12)


@pytest.mark.parametrize("width", [20, 40, 79, 200])
def test_a_picture_fits(width: int) -> None:
    many = tuple(
        death(n, jobs=ClaimedJobs(ClaimedJob(j, "s", "A" * 300) for j in range(40)), hostname="b" * 300)
        for n in range(1, 50)
    )
    lines = picture(Incident(many, (CauseFinding(Cause.UNKNOWN, Confidence.UNKNOWN),) * len(many)), max(width, 60))
    assert any("more jobs" in line for line in lines)
    assert any("more processes" in line for line in lines)
