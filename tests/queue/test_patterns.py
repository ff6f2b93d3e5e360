"""A pattern with a star fits what begins with it, in Python and in SQL alike."""

import pytest
from sqlalchemy import literal, select

from solidjq import Database
from solidjq.queue.patterns import PolledQueues, fits, fits_in_sql


@pytest.mark.parametrize("pattern", ["mail", "mail*", "*", "ma_l*", "ma%*", "mail**"])
@pytest.mark.parametrize("name", ["mail", "mailers", "ma_l", "ma%", "mail*", "other"])
def test_python_and_sql_agree(database: Database, pattern: str, name: str) -> None:
    with database.read() as connection:
        in_sql = connection.scalar(select(fits_in_sql(pattern, literal(name))))
    assert bool(in_sql) is fits(pattern, name)


def test_a_star_fits_every_beginning() -> None:
    assert [fits("mail*", name) for name in ("mail", "mailers", "email")] == [True, True, False]
    assert [fits("mail", name) for name in ("mail", "mailers")] == [True, False]


def test_an_exception_is_stronger_than_a_pattern() -> None:
    polled = PolledQueues(("mail*", "low"), ("mailers", "l*"))
    assert [polled.takes(name) for name in ("mail", "mailers", "low", "other")] == [True, False, False, False]
    assert polled.describe() == "mail*,low except mailers,l*"
    assert PolledQueues().takes("anything")
    assert PolledQueues().describe() == "*"
