"""Fixtures of the doctor's tests."""

from typing import Any

import pytest
from sqlalchemy.engine import URL

from solidjq import Database
from solidjq.database import tables


@pytest.fixture
def bare(empty_url: URL) -> Any:
    """A database with Solid Queue's tables, to be altered."""
    database = Database(empty_url)
    database.transact(tables.solid_queue.create_all)
    yield database
    database.close()
