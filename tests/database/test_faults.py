"""An error that the driver raises past SQLAlchemy means what it would mean if SQLAlchemy had raised it."""

import sqlite3

import psycopg
import pymysql
import pytest
from sqlalchemy.engine import make_url

from solidjq import Database
from solidjq.errors import ConflictError, DatabaseError, DatabaseUnreachableError, ValueRefusedError

POSTGRESQL, MYSQL, SQLITE = "postgresql+psycopg://nobody@/", "mysql+pymysql://nobody@localhost/", "sqlite:///nowhere"


@pytest.mark.parametrize(
    ("url", "error", "expected"),
    [
        (POSTGRESQL, psycopg.OperationalError("the connection is closed"), DatabaseUnreachableError),
        (POSTGRESQL, psycopg.errors.AdminShutdown("terminating connection"), DatabaseUnreachableError),
        (POSTGRESQL, psycopg.ProgrammingError("can't change 'autocommit' now"), DatabaseError),
        (POSTGRESQL, psycopg.errors.DeadlockDetected("deadlock detected"), ConflictError),
        (POSTGRESQL, psycopg.errors.UniqueViolation("duplicate key"), ValueRefusedError),
        (MYSQL, pymysql.err.InterfaceError(0, ""), DatabaseUnreachableError),
        (MYSQL, pymysql.err.OperationalError(2013, "Lost connection"), DatabaseUnreachableError),
        (MYSQL, pymysql.err.OperationalError(1213, "Deadlock found"), ConflictError),
        (MYSQL, pymysql.err.ProgrammingError(1064, "You have an error in your SQL syntax"), DatabaseError),
        (SQLITE, sqlite3.OperationalError("database is locked"), ConflictError),
        (SQLITE, sqlite3.OperationalError("near HELLO: syntax error"), DatabaseError),
    ],
)
def test_an_error_past_sqlalchemy(url: str, error: Exception, expected: type[DatabaseError]) -> None:
    with pytest.raises(DatabaseError) as caught, Database(make_url(url))._errors():
        raise error
    assert type(caught.value) is expected
