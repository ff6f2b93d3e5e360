"""A test that is skipped fails where all that is needed must be there: JQ_TEST_ALLOW_SKIPS=0."""

import os
from collections.abc import Iterator

import pytest

from support.standbys import NO_SECOND_SERVER

NO_HISTORY = "this is no checkout with its history, from which an older version could be taken"
# What may be skipped even where JQ_TEST_ALLOW_SKIPS=0.
EXPECTED_SKIPS = {
    "no control group with a memory limit can be made here",
    "no small disk can be mounted here",
    NO_SECOND_SERVER,
    NO_HISTORY,
}
if os.geteuid() == 0:
    EXPECTED_SKIPS.add("root may read and write any file")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Iterator[None]:
    """Let a skipped test fail where all that is needed must be there."""
    report = yield
    if report.skipped and os.environ.get("JQ_TEST_ALLOW_SKIPS") == "0" and not hasattr(report, "wasxfail"):
        reason = report.longrepr[2].removeprefix("Skipped: ")
        if reason not in EXPECTED_SKIPS:
            report.outcome, report.longrepr = "failed", f"skipped although nothing may be: {reason}"
    return report
