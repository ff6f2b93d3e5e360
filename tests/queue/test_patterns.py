"""A pattern with a star fits what begins with it, in Python and in SQL alike."""

import pytest
from sqlalchemy import literal, select

from solidjq import Database, NewJob
from solidjq.database.tables import jobs
from solidjq.queue.patterns import PolledQueues, fits, fits_in_sql
from support.queue import add_jobs
from support.servers import execute


def test_python_and_sql_agree(database: Database) -> None:
    names = ("mail", "mailers", "ma_l", "ma%", "mail*", "other", "Mail", "MAILERS", "mail ", "mäil", "mail\\", "mai")
    with database.read() as connection:
        for pattern in (*names, "mail*", "*", "ma_l*", "ma%*", "mail**", "MAIL*", "mä*", "mail\\*"):
            in_sql = connection.execute(select(*(fits_in_sql(pattern, literal(name)) for name in names))).one()
            assert [*map(bool, in_sql)] == [fits(pattern, name) for name in names], pattern


@pytest.mark.only_on("mariadb")
def test_a_column_of_another_character_set_is_compared_by_its_text(own: Database) -> None:
    add_jobs(own, NewJob(class_name="Crème"))
    execute(own.url, "ALTER TABLE solid_queue_jobs MODIFY class_name VARCHAR(255) CHARACTER SET latin1 NOT NULL")
    with own.read() as connection:
        for pattern, count in {"Crème": 1, "Crè*": 1, "crème": 0, "Creme": 0, "Cre*": 0, "日*": 0}.items():
            found = connection.scalars(select(jobs.c.id).where(fits_in_sql(pattern, jobs.c.class_name))).all()
            assert len(found) == count, pattern


def test_a_star_fits_every_beginning() -> None:
    assert [fits("mail*", name) for name in ("mail", "mailers", "email")] == [True, True, False]
    assert [fits("mail", name) for name in ("mail", "mailers")] == [True, False]


def test_an_exception_is_stronger_than_a_pattern() -> None:
    polled = PolledQueues(("mail*", "low"), ("mailers", "l*"))
    assert [polled.takes(name) for name in ("mail", "mailers", "low", "other")] == [True, False, False, False]
    assert polled.describe() == "mail*,low except mailers,l*"
    assert PolledQueues().takes("anything")
    assert PolledQueues().describe() == "*"
