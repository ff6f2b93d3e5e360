"""The same error in another spelling of JSON is the same error for lists, crash counts and verdicts."""

import json
from datetime import UTC, datetime

import pytest

from solidjq import Database
from solidjq.ledger import crashes
from solidjq.queue.failed import Filter, count_failures
from solidjq.rails.error_text import Death, pruned_error
from support.deaths import crash_count
from support.queue import fail, plain_jobs
from support.recovery import safe


@pytest.mark.parametrize(
    ("separators", "backwards", "indent"),
    [((",", ":"), False, None), ((", ", ": "), True, None), ((" , ", " : "), False, None), ((",", ": "), True, 2)],
)
def test_blanks_and_the_order_of_keys_make_no_difference(
    database: Database,
    separators: tuple[str, str],
    backwards: bool,  # noqa: FBT001
    indent: int | None,
) -> None:
    pairs = list(json.loads(pruned_error(datetime.now(UTC))).items())
    error = json.dumps(dict(pairs[::-1] if backwards else pairs), separators=separators, indent=indent)
    other = json.dumps({"exception_class": "E", "message": error}, separators=separators)
    ids = fail(database, *plain_jobs(2), error=[error, other])
    with database.read() as connection:
        assert count_failures(connection, Filter(deaths=frozenset([Death.PRUNED]))) == 1
    crashes.count_all(database)
    assert [crash_count(database, job) for job in ids] == [1, 0]
    assert safe(database).keys() == {ids[0]}
