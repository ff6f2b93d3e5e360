"""The list of failed jobs: its pages, and what each kind of list reads."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from sqlalchemy import Engine, event, select

from solidjq import Database
from solidjq.database.tables import failed
from solidjq.queue.failed import Filter, NamedFailures, list_failure_ids, list_failures
from solidjq.rails.error_text import error_json
from support.queue import fail, plain_jobs

BOOM = error_json("ValueError", "boom")


@contextmanager
def statements() -> Iterator[list[str]]:
    """Collect what is sent to the database within the block."""
    sent: list[str] = []

    def note(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        sent.append(statement)

    event.listen(Engine, "before_cursor_execute", note)
    try:
        yield sent
    finally:
        event.remove(Engine, "before_cursor_execute", note)


@pytest.fixture
def ids(database: Database, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Seven failed jobs, in pages of two and of three ids."""
    monkeypatch.setattr("solidjq.queue.failed.PAGE", 2)
    monkeypatch.setattr("solidjq.queue.failed.PAGE_OF_IDS", 3)
    return fail(database, *plain_jobs(7), error=BOOM)


def test_both_lists_have_the_same_jobs_in_the_same_order(database: Database, ids: list[int]) -> None:
    with database.read() as connection:
        numbers = list(connection.scalars(select(failed.c.id).order_by(failed.c.id)))
    named = Filter(named=(NamedFailures("names", (), numbers[2:6]),))
    chosen = {
        "all": (Filter(), None, None, ids[::-1]),
        "a limit within a page": (Filter(), 4, None, ids[:2:-1]),
        "after": (Filter(), None, numbers[4], ids[3::-1]),
        "named": (named, None, None, ids[5:1:-1]),
        "a class": (Filter(classes=("Pl*",)), 3, None, ids[:3:-1]),
        "none": (Filter(queues=("nowhere",)), None, None, []),
    }
    for name, (which, limit, after, expected) in chosen.items():
        for listing in (list_failures, list_failure_ids):
            found = list(listing(database, which, limit=limit, after=after))
            assert [each.job_id for each in found] == expected, name
            assert [each.failure_id for each in found] == [numbers[ids.index(job_id)] for job_id in expected], name


def test_a_list_of_ids_reads_no_error_and_no_job(database: Database, ids: list[int]) -> None:
    with statements() as sent:
        assert len(list(list_failure_ids(database, Filter(), limit=None))) == len(ids)
    pages = [statement for statement in sent if "failed_executions" in statement]
    assert len(pages) == 3
    assert not [page for page in pages if "error" in page or "_jobs" in page]


def test_arguments_are_read_only_where_they_are_shown(database: Database, ids: list[int]) -> None:
    with statements() as sent:
        without = list(list_failures(database, Filter(), limit=None, arguments=False))
    assert not [statement for statement in sent if ".arguments" in statement]
    whole = list(list_failures(database, Filter(), limit=None))
    assert len(whole) == len(ids)
    assert [failure.arguments for failure in without] == [None] * len(ids)
    assert all(failure.arguments for failure in whole)
    assert [failure.error for failure in without] == [failure.error for failure in whole]
