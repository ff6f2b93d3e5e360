"""One notion of selection: jobs, incidents, groups, hosts and filters mean the same failures in every command."""

import json

import pytest
from sqlalchemy import update

from solidjq import Database, NewJob
from solidjq.database import tables
from solidjq.database.setup import initialize
from solidjq.diff.signatures import signature_of
from solidjq.errors import LedgerMissingError, NoSuchJobError, UsageError
from solidjq.ledger.operations import Operation
from solidjq.queue.failed import BATCH, Filter, NamedFailures, count_failures, count_up_to, list_failures, parts
from solidjq.queue.states import State
from solidjq.rails.error_text import error_json, missing_error
from solidjq.recovery.terms import Selection
from solidjq.selection.lookups import name_jobs, resolve
from solidjq.selection.request import FailureRequest
from support.deaths import die
from support.program import Shell, assert_refused
from support.queue import add_jobs, fail, plain_jobs, rows, state_of_each
from support.recovery import retry_jobs, undo
from support.servers import execute

TIMEOUT = error_json("Net::ReadTimeout", "no answer")
GROUP = signature_of(TIMEOUT).name
OTHER = error_json("KeyError", "no such key")


class Scene:
    """Failed jobs of two hosts' deaths and of two errors of their own, one of them in two classes."""

    def __init__(self, database: Database) -> None:
        add_jobs(database, *(NewJob(class_name=name, queue_name="mail") for name in ("A", "A", "B")))
        self.here = die(database, hostname="worker-1.ams", silent=3000)
        add_jobs(database, *(NewJob(class_name=name, queue_name="reports") for name in ("A", "C")))
        self.there = die(database, hostname="worker-2.ams", silent=1000)
        self.timeouts = fail(database, NewJob(class_name="A"), NewJob(class_name="B"), error=TIMEOUT)
        (self.other,) = fail(database, NewJob(class_name="A"), error=OTHER)
        self.incidents = [f"d{row['id']}" for row in rows(database, tables.deaths)]
        self.everything = [*self.here, *self.there, *self.timeouts, self.other]


@pytest.fixture
def scene(database: Database) -> Scene:
    return Scene(database)


def selected(database: Database, asked: FailureRequest) -> list[int]:
    resolved = resolve(database, asked, include_jobs=True)
    return sorted(failure.job_id for failure in list_failures(database, resolved.chosen, limit=None))


def test_every_name_means_its_failures_and_every_term_must_match(database: Database, scene: Scene) -> None:
    one, other = scene.incidents
    of_class_a = Filter(classes=("A",))
    expected: list[tuple[FailureRequest, list[int]]] = [
        (FailureRequest(), scene.everything),
        (FailureRequest(names=[]), []),
        (FailureRequest(names=[one]), scene.here),
        (FailureRequest(names=[one, GROUP, str(scene.other)]), [*scene.here, *scene.timeouts, scene.other]),
        (FailureRequest(names=[str(scene.other), "4711"]), [scene.other]),
        (FailureRequest(incidents=[one, other]), [*scene.here, *scene.there]),
        (FailureRequest(incidents=[one], groups=[GROUP]), []),
        (FailureRequest(groups=[GROUP], chosen=of_class_a), scene.timeouts[:1]),
        (FailureRequest(names=[one, GROUP], chosen=of_class_a), [*scene.here[:2], scene.timeouts[0]]),
        (FailureRequest(chosen=Filter(hosts=("worker-1.ams",))), scene.here),
        (FailureRequest(chosen=Filter(hosts=("worker-*",), classes=("A",))), [*scene.here[:2], scene.there[0]]),
        (FailureRequest(chosen=Filter(hosts=("worker",))), []),
        (FailureRequest(incidents=[other], chosen=Filter(hosts=("worker-1.ams",))), []),
    ]
    for asked, job_ids in expected:
        assert selected(database, asked) == sorted(job_ids), asked


def test_a_host_that_only_a_crash_names(database: Database, scene: Scene) -> None:
    """As crashes were counted before deaths were recorded."""
    first = scene.here[0]
    crash = update(tables.crashes).where(tables.crashes.c.job_id == first)
    with database.write() as connection:
        connection.execute(crash.values(death_id=None, hostname="old-host"))
    assert selected(database, FailureRequest(chosen=Filter(hosts=("old*",)))) == [first]
    assert selected(database, FailureRequest(chosen=Filter(hosts=("worker-1.ams",)))) == scene.here[1:]


def test_a_failure_that_an_undo_restored_is_of_its_incident_and_a_new_one_is_not(
    database: Database, scene: Scene
) -> None:
    one, _ = scene.incidents
    operation = Operation("retry")
    retry_jobs(database, scene.here[:2], operation)
    assert selected(database, FailureRequest(names=[one])) == scene.here[2:]
    assert set(undo(database, operation).values()) == {None}
    assert selected(database, FailureRequest(names=[one])) == scene.here
    retry_jobs(database, scene.here[:1])
    die(database, hostname="worker-3.ams")
    assert selected(database, FailureRequest(names=[one])) == scene.here[1:]


def test_what_does_not_exist_is_named(database: Database, scene: Scene) -> None:
    misspelled = GROUP[:-1] + ("0" if GROUP[-1] != "0" else "1")
    for asked, message in (
        (FailureRequest(names=["d999"]), "no incident d999; to see them: jq incidents list"),
        (FailureRequest(incidents=["f999"]), "no incident f999; to see them: jq incidents list"),
        (FailureRequest(names=[misspelled]), f"no group {misspelled} among the failed jobs; did you mean {GROUP}?"),
        (FailureRequest(groups=["g0000000"]), "no group g0000000 among the failed jobs"),
    ):
        with pytest.raises(NoSuchJobError, match=message.replace("?", r"\?")):
            resolve(database, asked)
    for wrong in (
        FailureRequest(incidents=["42"]),
        FailureRequest(groups=["d1"]),
        FailureRequest(names=["4.2"]),
        FailureRequest(incidents=[""]),
    ):
        with pytest.raises(UsageError):
            resolve(database, wrong)


def test_without_the_ledger_no_host_is_known_and_incidents_are_those_of_failures(database: Database) -> None:
    add_jobs(database, *plain_jobs(2))
    job_ids = die(database)
    failure = rows(database, tables.failed)[0]["id"]
    execute(database.url, "DROP TABLE jq_deaths", "DROP TABLE jq_crashes")
    try:
        with pytest.raises(LedgerMissingError, match="run: jq init"):
            resolve(database, FailureRequest(chosen=Filter(hosts=("elsewhere",))))
        with pytest.raises(NoSuchJobError, match=r"no incident d1; the jq_ tables.*run: jq init"):
            resolve(database, FailureRequest(names=["d1"]))
        assert selected(database, FailureRequest(names=[f"f{failure}"])) == job_ids
    finally:
        initialize(database)


def test_the_jobs_of_a_name_in_any_state(database: Database, scene: Scene) -> None:
    one, _ = scene.incidents
    retry_jobs(database, scene.here[:1])
    assert name_jobs(database, [one, str(scene.other)]) == [*map(str, scene.here), str(scene.other)]
    assert name_jobs(database, [GROUP]) == [*map(str, scene.timeouts)]
    with pytest.raises(NoSuchJobError, match="no group"):
        name_jobs(database, ["g0000000"])


# -- many


def test_thousands_of_named_failures_are_read_in_parts(database: Database) -> None:
    fail(database, *plain_jobs(2 * BATCH + 5), error=missing_error())
    ids = [row["id"] for row in rows(database, tables.failed)]
    named = NamedFailures("groups", ("g1",), ids[2:])
    chosen = Filter(named=(named,))
    assert [len(part.failure_ids() or ()) for part in parts(chosen)] == [BATCH, BATCH, 3]
    listed = [failure.failure_id for failure in list_failures(database, chosen, limit=None)]
    assert listed == ids[2:][::-1]
    assert [f.failure_id for f in list_failures(database, chosen, limit=BATCH + 1)] == listed[: BATCH + 1]
    assert [f.failure_id for f in list_failures(database, chosen, limit=3, after=ids[5])] == [ids[4], ids[3], ids[2]]
    with database.read() as connection:
        assert count_failures(connection, chosen) == 2 * BATCH + 3
        assert count_failures(connection, chosen, after=ids[5]) == 3
        assert count_up_to(connection, chosen, BATCH + 7) == BATCH + 7
        assert count_up_to(connection, chosen, 10 * BATCH) == 2 * BATCH + 3
    retried = retry_jobs(database, selection=Selection(chosen=chosen, limit=BATCH + 2))
    assert retried.count == BATCH + 2
    left = [failure.failure_id for failure in list_failures(database, Filter(), limit=None)]
    assert left == [*ids[BATCH + 4 :][::-1], ids[1], ids[0]]


# -- commands


def ids_of(shell: Shell, *command: str) -> list[int]:
    done = shell.run(*command, "-o", "ids")
    assert done.returncode in {0, 1}, done.stderr
    return sorted({int(line) for line in done.stdout.splitlines()})


def test_an_incident_is_shown_and_listed_beside_other_names(shell: Shell, scene: Scene) -> None:
    one, _ = scene.incidents
    assert ids_of(shell, "failed", "show", one, str(scene.other)) == [*scene.here, scene.other]
    assert ids_of(shell, "jobs", "show", one) == scene.here
    assert ids_of(shell, "failed", "list", one, "--class", "B") == scene.here[2:]


@pytest.mark.sqlite_only
def test_a_list_names_the_jobs_that_have_not_failed_as_a_retry_does(
    database: Database, shell: Shell, scene: Scene
) -> None:
    ready, *more = add_jobs(database, *plain_jobs(12))
    for names, listed, left in (
        ([ready], [], [ready]),
        ([ready, scene.other], [scene.other], [ready]),
        ([ready, scene.here[0], "--class", "B"], [], [ready]),
    ):
        done = shell.run("failed", "list", *map(str, names), "-o", "ids")
        assert (done.returncode, [int(line) for line in done.stdout.splitlines()]) == (0, listed)
        assert done.stderr.splitlines() == [f"jq: job {job} is ready, not failed" for job in left]
    done = shell.run("failed", "list", str(ready), "4711", "-o", "ids")
    assert (done.returncode, done.stdout) == (4, "")
    assert done.stderr.splitlines() == [f"jq: job {ready} is ready, not failed", "jq: no job 4711"]
    many = shell.run("failed", "list", *map(str, more), str(ready), "-o", "ids").stderr.splitlines()
    assert (len(many), many[-1]) == (11, "jq: 2 more of the jobs that you named have not failed")


def test_a_retry_of_an_incident_asks_as_one_of_a_filter_does(database: Database, shell: Shell, scene: Scene) -> None:
    one, other = scene.incidents
    for options in ([one], [one, str(scene.other)], ["--group", GROUP], ["--host", "worker-1*"]):
        assert_refused(shell.run("retry", *options), 2, "needs --yes")
    done = shell.run("retry", one, "-o", "ids", "--yes")
    assert (done.returncode, sorted(map(int, done.stdout.split()))) == (0, scene.here)
    assert rows(database, tables.operations)[-1]["filter"].find(f'"names":["{one}"]') >= 0
    again = shell.run("retry", one, "--yes", "-o", "ids")
    assert (again.returncode, again.stdout) == (0, "")
    assert again.stderr == f"jq: no job of {one} is failed any more\n"
    mixed = shell.run("discard", other, "4711", str(scene.here[0]), "--yes", "-o", "ids")
    assert (mixed.returncode, sorted(map(int, mixed.stdout.split()))) == (6, scene.there)
    assert "jq: no job 4711\n" in mixed.stderr
    assert f"jq: job {scene.here[0]} is ready, not failed\n" in mixed.stderr
    states = state_of_each(database)
    assert {states.get(job_id) for job_id in scene.here} == {State.READY}
    assert {states.get(job_id) for job_id in scene.there} == {None}


def test_an_empty_standard_input_names_no_job(database: Database, shell: Shell, scene: Scene) -> None:
    for command in ("retry --safe --yes", "discard --died --yes", "failed list"):
        done = shell.run(*command.split(), "-o", "ids", "-", stdin="\n")
        assert (done.returncode, done.stdout) == (0, ""), command
    assert set(state_of_each(database).values()) == {State.FAILED}
    done = shell.run("failed", "list", "-o", "ids", "-", stdin=f"{scene.incidents[0]}\n{scene.other}\n")
    assert sorted(map(int, done.stdout.split())) == [*scene.here, scene.other]


def test_incidents_of_a_host(shell: Shell, scene: Scene) -> None:
    one, _ = scene.incidents
    here = json.loads(shell.run("incidents", "list", "--host", "worker-1*", "-o", "json").stdout)
    assert [incident["incident"] for incident in here] == [one]
    nobody = shell.run("incidents", "list", "--host", "worker-1.amsterdam", "-o", "ids")
    assert (nobody.returncode, nobody.stdout) == (0, "")
    assert nobody.stderr == (
        "jq: no process is known to have died on host worker-1.amsterdam since 7d; did you mean worker-1.ams?\n"
    )


def test_groups_of_an_incident_have_its_hosts_alone(shell: Shell, scene: Scene) -> None:
    one, other = scene.incidents
    hosts = {}
    for options in ([one], ["--incident", other], ["--host", "worker-2*"], []):
        (died,) = (
            group
            for group in json.loads(shell.run("failed", "diff", *options, "-o", "json").stdout)
            if group["death"] is not None
        )
        hosts[tuple(options)] = (died["jobs"], died["hosts"])
    assert list(hosts.values()) == [
        (3, {"worker-1.ams": 3}),
        (2, {"worker-2.ams": 2}),
        (2, {"worker-2.ams": 2}),
        (5, {"worker-1.ams": 3, "worker-2.ams": 2}),
    ]


def test_a_comparison_in_time_of_a_group_counts_what_was_retried_since(
    database: Database, shell: Shell, scene: Scene
) -> None:
    retry_jobs(database, scene.timeouts[:1])
    done = shell.run("failed", "diff", "--group", GROUP, "--since", "1h", "--against", "24h", "-o", "json")
    assert [(change["group"], change["now"]) for change in json.loads(done.stdout)] == [(GROUP, 2)]
    assert ids_of(shell, "failed", "list", "--group", GROUP) == scene.timeouts[1:]
