"""What a list says of each failure of a death: its incident, the host of its process, the crashes of its job."""

import pytest
from sqlalchemy import select

from solidjq import Database
from solidjq.database.tables import crashes
from solidjq.incidents import failure_deaths
from solidjq.incidents.failure_deaths import FailureDeath, find_failure_deaths
from solidjq.incidents.incidents import find_incidents
from solidjq.ledger.crashes import count_all
from solidjq.queue.failed import Failure, Filter, list_failures
from support.night import Night, make_night


@pytest.fixture
def night(database: Database) -> Night:
    return make_night(database, failures=110)


def looked_up(database: Database, failures: list[Failure]) -> dict[int, FailureDeath]:
    with database.read() as connection:
        return find_failure_deaths(connection, failures)


def test_every_failure_of_a_death_has_its_incident_and_no_other_failure_has_one(
    database: Database, night: Night
) -> None:
    failures = list(list_failures(database, Filter(), limit=None))
    found = looked_up(database, failures)
    with database.read() as connection:
        incidents = find_incidents(connection)
    expected = {job.failure_id: incident.name for incident in incidents for job in incident.jobs}
    died = {failure.failure_id for failure in failures if failure.error.death is not None}
    assert night.errors >= len(failures) - len(died) > 0
    assert {number: death.incident for number, death in found.items()} == {
        number: name for number, name in expected.items() if number in died
    }
    hosts = {job.failure_id: one.hostname for incident in incidents for one in incident.deaths for job in one.jobs}
    assert [n for n, death in found.items() if death.incident[:1] == "d" and death.hostname != hosts[n]] == []


def test_a_page_finds_the_same_names_as_the_whole(database: Database, night: Night) -> None:
    assert night.killers
    failures = list(list_failures(database, Filter(), limit=None))
    whole = looked_up(database, failures)
    for start in range(0, len(failures), 10):
        page = failures[start : start + 10]
        for number, death in looked_up(database, page).items():
            assert death.incident == whole[number].incident


def test_the_crashes_are_those_of_the_job_however_often_it_was_put_back(database: Database, night: Night) -> None:
    count_all(database)
    with database.read() as connection:
        counted = list(connection.scalars(select(crashes.c.subject)))
    failures = list(list_failures(database, Filter(), limit=None))
    found = looked_up(database, failures)
    by_subject = {failure.failure_id: failure.active_job_id for failure in failures}
    assert {len(death.crashes) for death in found.values()} == {1, 3}, "one job killed its process three times"
    assert [n for n, death in found.items() if len(death.crashes) != counted.count(str(by_subject[n]))] == []
    thrice = {failure.job_id for failure in failures if len(found.get(failure.failure_id, FailureDeath()).crashes) > 1}
    assert thrice <= night.killers


def test_among_very_many_deaths_the_incidents_of_a_few_are_not_looked_for(
    database: Database, night: Night, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert night.killers
    monkeypatch.setattr(failure_deaths, "MOST_AROUND", 3)
    failures = list(list_failures(database, Filter(), limit=None))
    found = looked_up(database, failures)
    assert {death.incident for death in found.values()} == {None}
    assert any(death.crashes for death in found.values())
    assert looked_up(database, []) == {}
