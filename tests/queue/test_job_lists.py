"""The list of jobs in any state: its pages, and how much a page reads."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from sqlalchemy import Connection, insert, literal, select

from solidjq import Database
from solidjq.database import tables
from solidjq.database.times import utcnow
from solidjq.queue.listing import JobFilter, list_job_ids, list_jobs
from solidjq.queue.states import State
from solidjq.rails.error_text import error_json
from support.queue import add_jobs, fail, plain_jobs
from support.reads import rows_read
from support.servers import execute

BOOM = error_json("ValueError", "boom")
FAILED = (State.FAILED,)


@pytest.fixture
def ids(database: Database, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Failed jobs, most of a queue of mail, then ready and scheduled ones; in pages of two, looked for among three."""
    monkeypatch.setattr("solidjq.queue.listing.PAGE", 2)
    monkeypatch.setattr("solidjq.queue.listing.PAGE_OF_IDS", 2)
    monkeypatch.setattr("solidjq.queue.listing.WINDOW", 3)
    mails = fail(database, *plain_jobs(5, queue_name="mail"), error=BOOM)
    others = fail(database, *plain_jobs(9), error=BOOM)
    newest = fail(database, *plain_jobs(1, queue_name="mail"), error=BOOM)
    ready = add_jobs(database, *plain_jobs(4, queue_name="mail"), *plain_jobs(1))
    late = add_jobs(database, *plain_jobs(1, queue_name="mail", delay=86_400.0))
    return mails + others + newest + ready + late


def test_both_lists_find_the_same_jobs_however_far_apart_they_are(database: Database, ids: list[int]) -> None:
    mails = ids[:5]
    chosen = {
        "a queue": (JobFilter(queues=("mail",), states=FAILED), None, None, [*mails, ids[14]]),
        "a limit": (JobFilter(queues=("mail",), states=FAILED), 3, None, [*mails[3:], ids[14]]),
        "after": (JobFilter(queues=("mail",), states=FAILED), None, ids[14], mails),
        "the newest": (JobFilter(queues=("mail",), states=FAILED), 1, None, [ids[14]]),
        "all states": (JobFilter(queues=("mail",)), None, None, [*mails, *ids[14:19], ids[20]]),
        "an argument": (JobFilter(argument="8", states=FAILED), None, None, [ids[13]]),
        "arguments of two states": (JobFilter(argument="0"), None, None, [ids[0], ids[5], *ids[14:16], *ids[19:]]),
        "no such queue": (JobFilter(queues=("nowhere",)), None, None, []),
        "no such argument": (JobFilter(argument="nothing"), None, None, []),
        "none in that state": (JobFilter(queues=("mail",), states=(State.BLOCKED,)), None, None, []),
        "named": (JobFilter(queues=("mail",), job_ids=ids[3:16]), None, None, [*ids[3:5], *ids[14:16]]),
    }
    for name, (which, limit, after, expected) in chosen.items():
        for listing in (list_jobs, list_job_ids):
            found = [each.job_id for each in listing(database, which, limit=limit, after=after)]
            assert found == expected[::-1], name


@contextmanager
def reads(database: Database, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """Collect how many jobs each of the transactions within the block reads."""
    counts: list[int] = []
    read = database.read

    @contextmanager
    def counted() -> Iterator[Connection]:
        with read() as connection:
            before = rows_read(connection, tables.jobs)
            yield connection
            counts.append(rows_read(connection, tables.jobs) - before)

    monkeypatch.setattr(database, "read", counted)
    yield counts


@pytest.mark.only_on("postgresql", "mariadb")
def test_a_page_of_failed_jobs_does_not_read_those_that_finished_since(
    own: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("solidjq.queue.listing.WINDOW", 1_000)
    row = {"class_name": "PlainJob", "arguments": "{}", "priority": 0}
    four = [{**row, "queue_name": name} for name in ("default", "mail", "images", "reports")]
    times = {"created_at": utcnow(), "updated_at": utcnow()}
    with own.write() as connection:
        connection.execute(insert(tables.jobs).values(times), four * 2_000)
        failure = select(tables.jobs.c.id, literal(BOOM), tables.jobs.c.created_at)
        connection.execute(insert(tables.failed).from_select(["job_id", "error", "created_at"], failure))
        connection.execute(insert(tables.jobs).values({**times, "finished_at": utcnow()}), four * 5_000)
    verb = "ANALYZE TABLE" if own.url.get_backend_name() == "mysql" else "ANALYZE"
    execute(own.url, f"{verb} {tables.jobs.name}", f"{verb} {tables.failed.name}")
    with reads(own, monkeypatch) as counts:
        found = list(list_jobs(own, JobFilter(queues=("default",), states=FAILED), limit=20))
    assert len(found) == 20
    assert sum(counts) < 5_000
