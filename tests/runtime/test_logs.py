"""The log of ``jq work``: what a row or an error brings along is escaped and masked."""

import io
import logging

import pytest

from solidjq.runtime import logs
from solidjq.runtime.logs import SafeFormatter


@pytest.fixture
def written() -> io.StringIO:
    return io.StringIO()


@pytest.fixture
def log(written: io.StringIO) -> logging.Logger:
    handler = logging.StreamHandler(written)
    handler.setFormatter(SafeFormatter("%(levelname)s %(message)s"))
    logger = logging.Logger("a log of its own")  # noqa: LOG001  (the program's own loggers go on as they are)
    logger.addHandler(handler)
    return logger


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("\x1b[2Jclear", "\\x1b[2Jclear"),
        ("exe.\u202efdp", "exe.\\u202efdp"),
        ("worker\n2026-01-01 INFO all is well", "worker\\n2026-01-01 INFO all is well"),
        ("postgresql://app:hunter2@db/app", "postgresql://app:***@db/app"),
        ("Grüße, 世界", "Grüße, 世界"),
    ],
)
def test_a_name_from_a_row_is_one_harmless_line(
    log: logging.Logger, written: io.StringIO, name: str, shown: str
) -> None:
    log.warning("%s: pruned", name)
    assert written.getvalue() == f"WARNING {shown}: pruned\n"


def test_a_traceback_keeps_its_lines_and_nothing_else(log: logging.Logger, written: io.StringIO) -> None:
    try:
        int("\x1b[31mpassword=hunter2")
    except ValueError:
        log.exception("it failed")
    lines = written.getvalue().splitlines()
    assert lines[0] == "ERROR it failed"
    assert lines[1] == "Traceback (most recent call last):"
    assert lines[-1].startswith("ValueError: invalid literal")
    assert "\x1b" not in written.getvalue()
    assert "hunter2" not in written.getvalue()


def test_a_warning_that_repeats_is_logged_ever_more_rarely() -> None:
    """Ten hours with an attempt every 5 seconds are 7,200 warnings; 15 of them are logged."""
    repeats = logs.Repeats()
    logged = [now for now in range(0, 36_000, 5) if repeats.is_due("read-only", now)]
    assert logged[:4] == [0, 60, 180, 420]
    assert len(logged) == 15
    assert repeats.is_due("unreachable", 36_001)
    assert repeats.is_due("read-only", 36_002)
    assert not repeats.is_due("read-only", 36_003)
    assert repeats.is_due("read-only", 36_103)  # another event, after a minute without one
    repeats.end()
    assert repeats.is_due("read-only", 36_104)
