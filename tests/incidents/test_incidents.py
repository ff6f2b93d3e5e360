"""Incidents and suspects as the database tells them: what Rails left, what we wrote, and what a retry makes of it."""

import json
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
from solidjq.incidents.charges import find_suspects
from solidjq.incidents.death_cases import JobStanding
from solidjq.incidents.death_records import ClaimedJob, DeathRecord
from solidjq.incidents.incidents import Incident, find_incident, find_incidents, group
from solidjq.ledger.deaths import DeathSource
from solidjq.ledger.operations import Operation
from solidjq.processes import pruning
from solidjq.processes.heartbeat import register
from solidjq.rails.error_text import Death
from solidjq.recovery.verdicts import Verdict
from solidjq_cli.timeline import draw
from support import rails
from support.program import Shell
from support.queue import add_jobs, claim_all, plain_jobs, rows
from support.recovery import retry_jobs
from support.terminal import terminal

NOON = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)


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
    return [[each.name for each in together] for together in group(found)]


def test_silent_together() -> None:
    assert names(death(1), death(2, 30), death(3, 89)) == [["d1", "d2", "d3"]]
    assert names(death(1), death(2, 61)) == [["d1"], ["d2"]]
    assert names(death(1), death(2, hostname="b"), death(3, hostname=None)) == [["d1", "d2", "d3"]]


def test_ended_together() -> None:
    assert names(exited(1), exited(2, 10)) == [["d1", "d2"]]
    assert names(exited(1), exited(2, hostname="b")) == [["d1"], ["d2"]]
    assert names(exited(1), exited(2, signal=11)) == [["d1"], ["d2"]]
    assert names(exited(1), exited(2, signal=None, exit_status=9)) == [["d1"], ["d2"]]
    assert names(exited(1), death(2)) == [["d1"], ["d2"]]
    assert names(exited(1), exited(2, signal=11, seconds=5), exited(3, 20)) == [["d1", "d3"], ["d2"]]


def test_an_incident_is_named_after_its_first_death() -> None:
    unknown = CauseFinding(Cause.UNKNOWN, Confidence.UNKNOWN)
    likely = CauseFinding(Cause.HOST, LIKELY)
    found = Incident((death(12), death(9, 5), death(100, 7)), (unknown, likely, unknown))
    assert (found.name, found.finding, found.charged) == ("d9", likely, False)


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
    from solidjq.recovery.retry import Selection, retry
    from solidjq.recovery.verdicts import RetryTerms

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
        for name in ("d999", "f999", "x1", "d", "", "d-1", "d99999999999999999999"):
            assert find_incident(connection, name) is None


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
    assert held.reason(first[0]) == f"one of 3 jobs that cannot be told apart; jq bisect {incident.name} tells"

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
    assert [(score.standing, score.alone) for score in ranking.jobs] == [(JobStanding.SUSPECT, 1)]


# -- the commands -----------------------------------------------------------------------------------------------------


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
    assert "next: " in text
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
    alone = shell.run("failed", "diff", one)
    assert (alone.returncode, f"jq incidents show {one}" in alone.stderr) == (2, True)


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


# -- the picture ------------------------------------------------------------------------------------------------------


def picture(incident: Incident, width: int) -> list[str]:
    lines = list(draw(incident, width))
    assert all(len(line) <= width for line in lines), lines
    return lines


def test_a_picture_of_a_silence() -> None:
    job = ClaimedJob(7, "job 7", "Report", 1, NOON - timedelta(seconds=120))
    one = death(1, started_at=NOON - timedelta(days=3), kind="Worker", jobs=(job, ClaimedJob(8, "job 8", "Mail", 2)))
    lines = picture(Incident((one,), (CauseFinding(Cause.HOST, LIKELY),)), 80)
    assert "11:55:00" in lines[0]
    assert lines[0].endswith("12:05:00 UTC")
    assert lines[1].startswith("worker pid 1 at a")
    life, silence = lines[1].split("x")
    assert life.count("=") > 20
    assert silence == "." * len(silence[:-1]) + "!"
    assert 0 < lines[2].count("=") < life.count("=")
    assert "=" not in lines[3]
    assert lines[1].index("x") == lines[2].index("x", 12) == lines[3].index("x", 12)


@pytest.mark.parametrize("width", [20, 40, 79, 200])
def test_a_picture_fits(width: int) -> None:
    many = tuple(
        death(n, jobs=tuple(ClaimedJob(j, "s", "A" * 300) for j in range(40)), hostname="b" * 300) for n in range(1, 50)
    )
    lines = picture(Incident(many, (CauseFinding(Cause.UNKNOWN, Confidence.UNKNOWN),) * len(many)), max(width, 60))
    assert any("more jobs" in line for line in lines)
    assert any("more processes" in line for line in lines)
