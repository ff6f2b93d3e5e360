"""Values that a shell offers, found on each database."""

import pytest

from solidjq import Database, NewJob
from solidjq.selection.completions import MOST, CompletedKind, find_completions
from support.deaths import die
from support.queue import add_jobs, fail, plain_jobs
from support.recovery import retry_jobs


def offered(database: Database, kind: CompletedKind, prefix: str = "") -> dict[str, str]:
    with database.read() as connection:
        return dict(find_completions(connection, kind, prefix))


@pytest.mark.parametrize("kind", CompletedKind)
def test_an_empty_queue_offers_nothing(database: Database, kind: CompletedKind) -> None:
    assert offered(database, kind) == {}
    assert offered(database, kind, "1") == {}


def test_ids_begin_as_typed_and_the_newest_come_first(database: Database) -> None:
    ids = list(map(str, fail(database, *plain_jobs(MOST + 60), error="boom")))
    waiting = str(add_jobs(database, NewJob(class_name="Waiting"))[0])
    assert [*offered(database, CompletedKind.FAILED)] == ids[::-1][:MOST]
    assert set(offered(database, CompletedKind.FAILED).values()) == {"PlainJob"}
    for prefix in (ids[3], ids[-1][:1], ids[-1][:2]):
        found = [*offered(database, CompletedKind.FAILED, prefix)]
        assert set(found) <= {number for number in ids if number.startswith(prefix)}
        assert len(found) == min(MOST, sum(number.startswith(prefix) for number in ids))
    assert offered(database, CompletedKind.FAILED, waiting) == {}
    assert offered(database, CompletedKind.JOB, waiting) == {waiting: "Waiting"}
    for prefix in ("0", "-1", "x", "9" * 30, "٣"):
        assert offered(database, CompletedKind.JOB, prefix) == {}


def test_incidents_groups_and_operations_say_what_they_are(database: Database) -> None:
    add_jobs(database, *plain_jobs(3))
    died = die(database, hostname="host-7")
    incidents = offered(database, CompletedKind.INCIDENT)
    assert [words.endswith(", 3 jobs") for words in incidents.values()] == [True]
    (name,) = incidents
    assert name.startswith("d")
    assert name in offered(database, CompletedKind.FAILED)
    assert offered(database, CompletedKind.FAILED, "d") == incidents
    assert offered(database, CompletedKind.INCIDENT, "f") == {}
    groups = offered(database, CompletedKind.GROUP)
    assert [words.startswith("3 jobs: ") for words in groups.values()] == [True]
    assert offered(database, CompletedKind.FAILED, "g") == groups
    assert not groups.keys() & offered(database, CompletedKind.FAILED).keys()
    assert offered(database, CompletedKind.HOST) == {"host-7": ""}

    retry_jobs(database, died)
    assert [words.split(",")[:2] for words in offered(database, CompletedKind.OPERATION).values()] == [
        ["retry", f" {len(died)} jobs"]
    ]


def test_names_are_those_of_any_job(database: Database) -> None:
    add_jobs(
        database, NewJob(class_name="Mail::Job", queue_name="mail"), NewJob(class_name="Report", queue_name="slow two")
    )
    assert offered(database, CompletedKind.CLASS) == {"Mail::Job": "", "Report": ""}
    assert offered(database, CompletedKind.CLASS, "Mail::") == {"Mail::Job": ""}
    assert offered(database, CompletedKind.QUEUE, "s") == {"slow two": ""}
