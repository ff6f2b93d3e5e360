"""A database that Rails left, and the program on it."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy.engine import URL

from solidjq import Database
from support.program import Shell


@pytest.fixture
def left(empty_url: URL) -> Iterator[Database]:
    """The database of the test's kind, to be loaded with rows; without jq's own tables."""
    opened = Database(empty_url)
    yield opened
    opened.close()


@pytest.fixture
def jq(empty_url: URL, tmp_path: Path) -> Shell:
    """Run ``jq`` as a program on that database."""
    return Shell(empty_url.render_as_string(hide_password=False), tmp_path)
