"""Very many deaths: they are read as they fell silent, a batch at a time, and packed for a ranking."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, LargeBinary, cast, delete, event, insert, select, text, update

from solidjq import Database
from solidjq.database import tables
from solidjq.incidents import death_queries, incidents
from solidjq.incidents.charges import find_suspects, find_suspicion
from solidjq.incidents.death_cases import Blame, Crowd, DeathCase, Exposure, InFlight, JobStanding
from solidjq.incidents.death_records import DeathRecord, FailureSpan
from solidjq.incidents.incidents import Incident, each_incident, find_incident, group, with_jobs
from solidjq.incidents.packed_cases import PackedCases, PackedDeaths
from solidjq.incidents.reconstruction import reconstruct
from solidjq.incidents.summaries import summarize
from solidjq.incidents.suspects import Ranking, rank_packed
from solidjq.incidents.unrecorded import find_repeated, list_unrecorded
from solidjq.ledger.deaths import DeathSource
from solidjq.queue import failure_counts
from solidjq.rails.error_text import Death, exit_error, missing_error

NOON = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
EVERY = 40  # deaths


def fill(database: Database, count: int = EVERY) -> None:
    """Record deaths an hour apart with a job each, the later ones first; every fourth is without a record."""
    now = database.now()
    for number in range(count):
        at = now - timedelta(hours=number + 1)
        error = exit_error(1000 + number, 11)
        with database.write() as connection:
            job_id = connection.execute(
                insert(tables.jobs).values(
                    queue_name="default", class_name=f"Job{number % 3}", priority=0, created_at=at, updated_at=at
                )
            ).inserted_primary_key[0]
            failure_id = connection.execute(
                insert(tables.failed).values(job_id=job_id, error=error, created_at=at)
            ).inserted_primary_key[0]
            if number % 4 == 0:
                continue
            death_id = connection.execute(
                insert(tables.deaths).values(
                    kind="Worker", pid=1000 + number, hostname="h", noticed_at=at, noticed_by="supervisor", signal=11
                )
            ).inserted_primary_key[0]
            crash = {"failure_id": failure_id, "subject": f"job {job_id}", "job_id": job_id, "death_id": death_id}
            connection.execute(
                insert(tables.crashes).values(**crash, class_name=f"Job{number % 3}", evidence=error, crashed_at=at)
            )


def swept(database: Database) -> list[Incident]:
    with database.read() as connection:
        return list(each_incident(connection))


def test_deaths_come_as_they_fell_silent_whatever_the_size_of_a_batch(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(database)
    whole = swept(database)
    assert len(whole) == EVERY
    assert whole == sorted(whole, key=lambda incident: incident.at)
    assert {death.source for one in whole for death in one.deaths} == {DeathSource.SUPERVISOR, DeathSource.FAILURES}
    monkeypatch.setattr(death_queries, "AT_ONCE", 3)
    assert swept(database) == whole


def test_no_more_deaths_are_read_than_the_incident_needs(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(database)
    read: list[str] = []
    record_of = death_queries._record_of

    def noted(*given: Any) -> DeathRecord:
        read.append((record := record_of(*given)).name)
        return record

    monkeypatch.setattr(death_queries, "AT_ONCE", 3)
    monkeypatch.setattr(death_queries, "_record_of", noted)
    with database.read() as connection:
        incidents = each_incident(connection)
        for _ in range(4):
            next(incidents)
        assert 3 <= len(read) <= 9
        assert len(list(incidents)) == EVERY - 4
    assert len(read) == len(set(read)) == EVERY * 3 // 4


def failures_in_time(database: Database) -> list[int]:
    """Make failures whose ids rise with time: the one at place n was written EVERY - n hours before noon."""
    fill(database)
    with database.write() as connection:
        ids = list(connection.scalars(select(tables.failed.c.id).order_by(tables.failed.c.id)))
        for place, failure_id in enumerate(ids):
            give_time(connection, failure_id, NOON - timedelta(hours=EVERY - place))
    return ids


def give_time(connection: Connection, failure_id: int, at: datetime) -> None:
    connection.execute(update(tables.failed).values(created_at=at).where(tables.failed.c.id == failure_id))


def test_the_ids_of_a_time_are_found_along_the_primary_key(database: Database) -> None:
    ids = failures_in_time(database)
    with database.read() as connection:

        def between(since: datetime, until: datetime) -> tuple[int, int | None]:
            return failure_counts.ids_between(connection, since, until)

        # About as many more as say the time together.
        first, last = between(NOON - timedelta(hours=12.5), NOON - timedelta(hours=8.5))
        assert last is not None
        assert first <= ids[EVERY - 12] < ids[EVERY - 9] <= last + failure_counts.NEAR
        assert between(NOON - timedelta(days=9), NOON + timedelta(days=1)) == (1, None)
        assert failure_counts.last_before(connection, NOON - timedelta(hours=8.5)) == ids[EVERY - 9]
        assert failure_counts.last_before(connection, NOON - timedelta(days=9)) is None
    with database.write() as connection:
        connection.execute(delete(tables.failed))
    with database.read() as connection:
        assert failure_counts.ids_between(connection, NOON, NOON + timedelta(days=1)) == (1, None)


def test_a_failure_of_a_wrong_clock_does_not_mislead(database: Database) -> None:
    ids = failures_in_time(database)
    since, until = NOON - timedelta(hours=30.5), NOON - timedelta(hours=20.5)
    with database.write() as connection:
        for place in range(0, EVERY, 5):
            give_time(connection, ids[place], NOON + timedelta(days=30 if place % 2 else -30))
    with database.read() as connection:
        first, last = failure_counts.ids_between(connection, since, until)
    assert last is not None
    assert first <= ids[EVERY - 30] + failure_counts.NEAR
    assert last >= ids[EVERY - 21] - failure_counts.NEAR


def test_one_incident_does_not_read_the_whole_queue(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(database, 4)
    whole = {incident.name: incident for incident in swept(database)}
    with database.read() as connection:
        expected = {name: with_jobs(connection, [incident])[0] for name, incident in whole.items()}
    monkeypatch.setattr(incidents, "each_incident", None)
    with database.read() as connection:
        assert {name: find_incident(connection, name) for name in whole} == expected


def test_an_incident_of_a_wrong_clock_is_found_in_the_whole_queue(database: Database) -> None:
    """Failures that were copied from another database: their ids do not rise with their times."""
    fill(database, 80)  # the later ids have the earlier times
    names = [incident.name for incident in swept(database)]
    with database.read() as connection:
        found = [find_incident(connection, name) for name in names]
    assert [one and one.name for one in found] == names


def test_a_summary_finds_the_jobs_of_its_deaths(database: Database) -> None:
    from solidjq.incidents.summaries import with_jobs

    fill(database)
    with database.read() as connection:
        newest_first = list(connection.scalars(select(tables.failed.c.job_id).order_by(tables.failed.c.id.desc())))
        whole = list(each_incident(connection, waiting=True))
        short = summarize(whole)
        job_ids = [job_id for summary in short for job_id in with_jobs(connection, summary).job_ids]
    assert [(one.name, one.at, one.noticed_at, one.size, one.hosts, one.classes, one.several) for one in short] == [
        (one.name, one.at, one.noticed_at, one.size, one.hosts, one.classes, one.several) for one in whole
    ]
    assert [(one.finding.words, one.waiting) for one in short] == [(one.finding.words, 1) for one in whole]
    assert job_ids == newest_first


def test_a_moment_ends_when_no_more_deaths_can_be_of_it() -> None:
    taken: list[int] = []

    def deaths() -> Iterator[DeathRecord]:
        for number in range(100):
            taken.append(number)
            at = NOON + timedelta(seconds=20 * number)
            yield DeathRecord(
                name=f"d{number}", source=DeathSource.SUPERVISOR, how=Death.EXITED, noticed_at=at, signal=9
            )

    moments = group(deaths())
    assert [death.name for death in next(moments)] == ["d0", "d1", "d2", "d3"]
    assert taken == [0, 1, 2, 3, 4]
    assert sum(map(len, moments)) == 96


# -- packed -----------------------------------------------------------------------------------------------------------


def crowds(count: int = 300) -> list[tuple[DeathCase, DeathRecord]]:
    """Make up deaths with crowds of several classes; one in ten has a job that is known by name, too."""
    dice = Random(3)  # noqa: S311
    made = []
    for number in range(1, count + 1):
        death = DeathRecord(name=f"d{number}", source=DeathSource.PRUNE, how=Death.PRUNED, noticed_at=NOON)
        jobs = [
            InFlight(
                f"job {number}{name}" if size == 1 else f"d{number} {name}", name, crowd=Crowd(size, number, death)
            )
            for name in dice.sample(["Mail", "Sync", "Import", "Rare"], dice.choice([1, 2, 3]))
            if (size := dice.choice([1, 1, 2, 40]))
        ]
        if number % 10 == 0:
            jobs.insert(0, InFlight(f"named {number % 50}", "Mail", failure_id=number))
        blame = dice.choice([Blame.OUTSIDE, Blame.UNKNOWN, Blame.CODE, Blame.MEMORY])
        made.append((DeathCase(death.name, blame, tuple(jobs)), death))
    return made


def packed(made: list[tuple[DeathCase, DeathRecord]]) -> PackedCases:
    cases = PackedCases()
    for case, death in made:
        cases.add(case, death)
    return cases


def without_identity(case: DeathCase) -> Any:
    """Return what is stored of a case; crowds are equal only to themselves."""
    jobs = [
        (job.subject, job.class_name, job.failure_id, job.count, job.crowd and (job.crowd.lowest, job.crowd.death))
        for job in case.jobs
    ]
    return case.key, case.blame, case.named, jobs


def test_a_packed_case_is_read_as_it_was() -> None:
    made = crowds()
    cases = packed(made)
    assert len(cases) == len(made)
    assert [without_identity(case) for case in cases] == [without_identity(case) for case, _ in made]


def test_a_ranking_of_crowds_has_every_job_once_in_its_order() -> None:
    made = crowds()
    ranking: Ranking = rank_packed(packed(made), Exposure(1000, {"Mail": 900, "Sync": 500}))
    scores = list(ranking.jobs)
    assert {score.name for score in scores} == {job.subject for case, _ in made for job in case.jobs}
    assert len(scores) == len({score.name for score in scores})
    assert scores == sorted(scores, key=lambda score: (score.standing.rank, -score.score, score.name))
    assert {score.standing for score in scores} >= {JobStanding.SUSPECT, JobStanding.BYSTANDER}
    for standing in JobStanding:
        of_it = [score for score in scores if score.standing is standing]
        assert [score.name for score in ranking.jobs.standing(standing)] == [score.name for score in of_it]
        assert ranking.jobs.count(standing) == sum(score.count for score in of_it)


def test_a_crowd_has_the_score_of_its_only_job() -> None:
    """Whether a death's jobs come as crowds of one or by name changes no score."""
    made = [(case, death) for case, death in crowds() if all(job.count == 1 for job in case.jobs)]
    by_name = [
        DeathCase(case.key, case.blame, tuple(InFlight(job.subject, job.class_name) for job in case.jobs))
        for case, _ in made
    ]
    exposure = Exposure(1000, {"Mail": 900, "Sync": 500})
    one, other = rank_packed(packed(made), exposure), rank_packed(PackedCases(by_name), exposure)
    assert one.classes == other.classes
    assert [(score.name, score.score, score.standing, score.reasons, score.at) for score in one.jobs] == [
        (score.name, score.score, score.standing, score.reasons, score.at) for score in other.jobs
    ]


def test_packed_deaths_are_the_slim_records_that_were_added() -> None:
    at = datetime(2026, 11, 27, 12, 0, 0, 123456, tzinfo=UTC)
    plain = DeathRecord(name="d17", source=DeathSource.PRUNE, how=Death.PRUNED, noticed_at=at, hostname="h")
    reaped = replace(plain, name="d9223372036854775807", source=DeathSource.SUPERVISOR, how=Death.EXITED)
    partial = replace(plain, evidence={"ahead": True, "sample": {}})
    unrecorded = replace(plain, name="f3", source=DeathSource.FAILURES, evidence={"error": "e"}, span=FailureSpan(3, 4))
    records = [one.slim for one in (plain, partial, reaped, unrecorded, replace(plain, noticed_at=at.replace(year=1)))]
    packed = PackedDeaths()
    for record in records:
        packed.append(record)
    assert list(packed) == records
    assert (len(packed), packed[-1], packed[1:3]) == (5, records[-1], records[1:3])
    with pytest.raises(IndexError):
        packed[5]


def test_an_error_that_was_stored_as_bytes_is_the_same_death(database: Database) -> None:
    """SQLite keeps a value as it came, whatever the column's type, and tells bytes from the same text."""
    with database.write() as connection:
        ids = [
            connection.execute(
                insert(tables.jobs).values(
                    queue_name="default", class_name="Job", priority=0, created_at=NOON, updated_at=NOON
                )
            ).inserted_primary_key[0]
            for _ in range(4)
        ]
        rows = [{"job_id": job_id, "error": exit_error(7, 11), "created_at": NOON} for job_id in ids]
        connection.execute(insert(tables.failed), rows)
        if connection.dialect.name == "sqlite":
            stored = update(tables.failed).where(tables.failed.c.id % 2 == 0)
            connection.execute(stored.values(error=cast(tables.failed.c.error, LargeBinary)))
    with database.read() as connection:
        found = list(death_queries.each_by_class(connection, NOON - timedelta(days=1)))
    assert [dict(classes) for _, classes in found] == [{"Job": 4}]


# -- deaths that nobody recorded, a row an error ----------------------------------------------------------------------

SECOND = 1_000_000  # microseconds
ONE = exit_error(1, 11)


def fail(database: Database, *failures: tuple[int, str], error: str = ONE, counted: str = "") -> None:
    """Insert failures: when, in microseconds after a day ago, and of which class; those of one class may be counted."""
    began = (database.now() - timedelta(days=1)).replace(microsecond=0)
    for after, name in failures:
        at = began + timedelta(microseconds=after)
        with database.write() as connection:
            job_id = connection.execute(
                insert(tables.jobs).values(
                    queue_name="default", class_name=name, priority=0, created_at=at, updated_at=at
                )
            ).inserted_primary_key[0]
            failure_id = connection.execute(
                insert(tables.failed).values(job_id=job_id, error=error, created_at=at)
            ).inserted_primary_key[0]
            if name == counted:
                crash = {"failure_id": failure_id, "subject": f"job {job_id}", "job_id": job_id, "class_name": name}
                connection.execute(insert(tables.crashes).values(**crash, evidence=error, crashed_at=at))


def unrecorded(database: Database) -> list[DeathRecord]:
    with database.read() as connection:
        return sorted(list_unrecorded(connection, None, None, has_ledger=True, waiting=True), key=lambda one: one.name)


@pytest.mark.parametrize(
    ("failures", "deaths"),
    [
        ([(0, "AJob")], 1),
        ([(0, "BJob"), (20, "AJob"), (40, "BJob")], 1),
        ([(40, "BJob"), (20, "AJob"), (0, "BJob")], 1),  # ids against time: the first failure names the death
        ([(0, "BJob"), (0, "AJob"), (0, "BJob")], 1),  # at one instant
        ([(0, "BJob"), (10 * SECOND, "AJob")], 1),
        ([(0, "BJob"), (10 * SECOND + 1, "AJob")], 2),
        ([(9 * SECOND * at, "AJob") for at in range(9)], 2),  # each soon after the one before, but for too long
        ([(0, "AJob"), (5, "AJob"), (7, "AJob"), (7, "BJob"), (9, "AJob")], 2),  # one instant, and one by one around it
        ([(0, "AJob"), (0, "AJob"), (SECOND, "AJob"), (SECOND, "AJob")], 2),
    ],
)
@pytest.mark.parametrize("counted", ["", "AJob"])
def test_a_row_an_error_says_what_a_row_an_instant_does(
    database: Database, monkeypatch: pytest.MonkeyPatch, failures: list[tuple[int, str]], deaths: int, counted: str
) -> None:
    fail(database, *failures, counted=counted)
    fail(database, (0, "CJob"), error=exit_error(2, 11))
    found = unrecorded(database)
    assert len(found) == deaths + 1
    monkeypatch.setattr("solidjq.incidents.unrecorded.gathers", lambda _connection: False)
    by_instant = unrecorded(database)
    assert found == by_instant
    # Output lists the classes in this order.
    assert [list(death.counted or ()) for death in found] == [list(death.counted or ()) for death in by_instant]


def test_only_errors_of_several_deaths_are_read_by_their_instants(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    fail(database, (0, "AJob"), (20, "AJob"))
    fail(database, (0, "AJob"), (100 * SECOND, "AJob"), error=missing_error())
    errors: list[str] = []
    monkeypatch.setattr(
        "solidjq.incidents.unrecorded.reconstruct",
        lambda rows: reconstruct(row for row in rows if not errors.append(row.evidence)),
    )
    assert len(unrecorded(database)) == 3
    in_sqlite = database.url.get_backend_name() == "sqlite"
    assert set(errors) == ({ONE, missing_error()} if in_sqlite else {missing_error()})


def test_a_list_of_instants_that_was_cut_off_decides_nothing(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    fail(database, *((at, "AJob") for at in range(5)), (6, "BJob"))
    whole = unrecorded(database)
    monkeypatch.setattr("solidjq.database.grouping.LONGEST_LIST", 3)
    with database.read() as connection:
        if connection.dialect.name == "mysql":
            connection.execute(text("SET SESSION group_concat_max_len = 100"))
        assert list(list_unrecorded(connection, None, None, has_ledger=True, waiting=True)) == whole
        if connection.dialect.name == "mysql":
            connection.execute(text("SET SESSION group_concat_max_len = 1048576"))


def test_the_jobs_that_crashed_twice_are_found_counted_or_not(database: Database) -> None:
    def job(subject: str, *, counted: bool, before: timedelta = timedelta()) -> None:
        at = database.now() - before
        with database.write() as connection:
            job_id = connection.execute(
                insert(tables.jobs).values(
                    queue_name="default",
                    class_name="AJob",
                    priority=0,
                    active_job_id=subject,
                    created_at=at,
                    updated_at=at,
                )
            ).inserted_primary_key[0]
            failure_id = connection.execute(
                insert(tables.failed).values(job_id=job_id, error=ONE, created_at=at)
            ).inserted_primary_key[0]
            if counted:
                crash = {"failure_id": failure_id, "subject": subject, "job_id": job_id, "class_name": "AJob"}
                connection.execute(insert(tables.crashes).values(**crash, evidence=ONE, crashed_at=at))

    job("once", counted=False)
    job("counted once", counted=True)
    for counted in (False, True):
        job("mixed", counted=counted)
        job("uncounted", counted=False)
        job("counted", counted=True)
    old = timedelta(days=3)
    for subject in ("old and counted", "old and mixed"):
        job(subject, counted=True, before=old)
    job("old and counted", counted=True)
    job("old and mixed", counted=False)
    with database.read() as connection:
        found = find_repeated(connection, database.now() - timedelta(days=1), has_ledger=True, within=[(1, None)])
    assert found == {"mixed", "uncounted", "counted"}


# -- jobs that were in flight at one death only ------------------------------------------------------------------------


def rename(database: Database, *job_ids: int, subject: str = "shared") -> None:
    """Give these jobs one Active Job id."""
    with database.write() as connection:
        jobs = tables.jobs.c
        connection.execute(update(tables.jobs).where(jobs.id.in_(job_ids)).values(active_job_id=subject))


def job_ids(database: Database) -> list[int]:
    with database.read() as connection:
        return list(connection.scalars(select(tables.jobs.c.id).order_by(tables.jobs.c.id)))


def searches(database: Database, *, once: bool) -> tuple[list[Any], list[Any], int]:
    """Return the scores of jobs and classes, and how many statements read failures for them and for a retry."""
    sent: list[str] = []

    def note(*details: Any) -> None:
        sent.append(details[2])

    event.listen(Engine, "before_cursor_execute", note)
    with database.read() as connection:
        ranking = find_suspects(connection, each_incident(connection, once=once))
        scores = [(one.name, one.standing, one.at, one.reasons, one.count) for one in ranking.jobs]
        find_suspicion(connection, database.now() - timedelta(days=30))
    event.remove(Engine, "before_cursor_execute", note)
    reading = [statement for statement in sent if tables.failed.name in statement]
    return scores, list(ranking.classes), len(reading)


TWO = exit_error(2, 11)


def test_whether_jobs_were_at_one_death_only_is_read_with_the_deaths(database: Database) -> None:
    """Two scans of all failures, one for the ranking and one for a retry: no other looks for jobs at several deaths."""
    fail(database, (0, "AJob"), (1, "BJob"))
    fail(database, (9 * 60 * SECOND, "AJob"), error=TWO)
    with database.read() as connection:
        deaths = list(death_queries.each_death(connection, once=True))
        assert [death.span and death.span.once for death in deaths] == [True, True]
        deaths = list(death_queries.each_death(connection))
        assert [death.span and death.span.once for death in deaths] == [False, False]
    scores, classes, reading = searches(database, once=True)
    more_scores, more_classes, more_reading = searches(database, once=False)
    assert (scores, classes) == (more_scores, more_classes)
    assert len(scores) == 3
    assert reading == 2 < more_reading


@pytest.mark.parametrize("counted", ["", "AJob"])
def test_a_job_at_two_deaths_is_found_by_its_twin_or_its_counted_crash(database: Database, counted: str) -> None:
    fail(database, (0, "AJob"), (1, "BJob"), counted=counted)
    fail(database, (9 * 60 * SECOND, "AJob"), error=TWO)
    first, _, last = job_ids(database)
    rename(database, first, last)
    with database.write() as connection:
        connection.execute(update(tables.crashes).values(subject="shared"))
    with database.read() as connection:
        by_error = {death.error: death.span for death in death_queries.each_death(connection, once=True)}
        by_class = {
            d.error: d.span for d, _ in death_queries.each_by_class(connection, NOON.replace(year=1990), once=True)
        }
    for spans in (by_error, by_class):
        assert spans[TWO] is not None
        assert not spans[TWO].once
        assert spans[ONE] is not None
        assert spans[ONE].once is bool(counted)  # its jobs that are not counted
    scores, classes, _ = searches(database, once=True)
    assert (scores, classes) == searches(database, once=False)[:2]
    (shared,) = [score for score in scores if score[0] == "shared"]
    assert (shared[1], len(shared[2])) == (JobStanding.SUSPECT, 2)


def test_a_retry_knows_a_job_at_two_deaths(database: Database) -> None:
    """The failures of deaths whose uncounted jobs were at no other are not searched, but their counted crashes are."""
    fail(database, (0, "AJob"), (1, "BJob"), counted="AJob")
    fail(database, (9 * 60 * SECOND, "AJob"), error=TWO, counted="AJob")
    with database.write() as connection:
        connection.execute(update(tables.crashes).values(subject="shared"))
    with database.read() as connection:
        suspicion = find_suspicion(connection, database.now() - timedelta(days=30))
    assert suspicion.jobs["shared"] is not None
