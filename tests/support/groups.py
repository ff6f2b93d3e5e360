"""Tests of one ``xdist_group`` run in one process.

pytest-xdist 3.8 writes the group of a test into ``_nodeid``, which pytest 9.2 does not read any more.
"""

import pytest


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "@" in (grouped := vars(item).get("_nodeid", "")) and item.nodeid != grouped:
            item._id = type(item._id).parse(grouped)  # type: ignore[attr-defined]
