"""Every hot statement is documented, is laid out without loss, and takes exactly its own values."""

import re
from typing import Any

import pytest
from sqlalchemy.engine import make_url

from solidjq import Database
from solidjq.database.hot import HotStatement, hot
from solidjq.database.statements import WriteStyle
from solidjq.queue import claim_statements, concurrency
from solidjq_cli.sql_page import URLS, hot_statements, layout

STATEMENTS = hot_statements()


@pytest.mark.parametrize("statement", STATEMENTS, ids=lambda statement: statement.name)
def test_each_says_what_it_does_and_what_guards_it(statement: HotStatement[Any]) -> None:
    does, *more = (statement.__doc__ or "").split("\n\n")
    assert does.endswith(".")
    assert re.match(r"\s*(Guard|No guard): \S", more[0])


@pytest.mark.parametrize("style", WriteStyle)
@pytest.mark.parametrize("statement", STATEMENTS, ids=lambda statement: statement.name)
def test_the_layout_loses_nothing(statement: HotStatement[Any], style: WriteStyle) -> None:
    if style not in statement.styles:
        return
    dialect: Any = make_url(URLS[style]).get_dialect()
    sql = statement.sql(dialect(paramstyle="named"))
    lines = layout(sql)
    assert "".join("".join(lines).split()) == "".join(sql.split())
    assert max(map(len, lines)) <= 120
    assert "/*" not in sql


def test_a_value_that_is_missing_or_unknown_is_refused(database: Database) -> None:
    with database.write() as connection:
        with pytest.raises(TypeError, match=r"count_slots takes \['job_ids'\], not \['jobs'\]"):
            concurrency.count_slots(connection, jobs=[1])
        with pytest.raises(TypeError, match="read_claims takes"):
            claim_statements.read_claims(connection)


def test_no_two_have_one_name() -> None:
    with pytest.raises(ValueError, match="two hot statements read_claims"):

        @hot
        def read_claims() -> Any: ...
