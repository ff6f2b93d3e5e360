"""The short form of ``programs/kills.py``: workers that are killed at random moments, and two long jobs that go on."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import kills
import pytest
from sqlalchemy import update
from sqlalchemy.engine import URL

from solidjq.database.tables import jobs
from solidjq.database.urls import url_text
from support.continuations import continued
from support.paths import PROGRAMS

RECORDS = 600
KILLS = 6


def test_a_job_goes_on_whenever_its_worker_is_killed(empty_url: URL) -> None:
    arguments = ["--kills", KILLS, "--records", RECORDS, "--whole", 0, "--seed", 7]
    program = [sys.executable, PROGRAMS / "kills.py", url_text(empty_url), *map(str, arguments)]
    done = subprocess.run(program, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads(done.stdout)
    assert report["violations"] == []
    assert report["kills"] >= KILLS
    assert report["records"] == report["records exactly once"] == report["rounds"] * RECORDS


# -- what it would notice ---------------------------------------------------------------------------------------------


@pytest.fixture
def run(empty_url: URL, tmp_path: Path) -> kills.Run:
    prepared = kills.Run(url_text(empty_url), 1, 3, 1, tmp_path, 0.0)
    prepared.prepare()
    prepared.enqueue()
    return prepared


def visited(run: kills.Run, *numbers: int) -> None:
    run.file.write_text("".join(f"{number}\n" for number in numbers))


def wrote(run: kills.Run, *numbers: int) -> None:
    with run.database.write() as connection:
        connection.execute(kills.effects.insert(), [{"number": number} for number in numbers])


def saved(run: kills.Run, job_id: int, cursor: int) -> None:
    with run.database.write() as connection:
        arguments = continued({"completed": [], "current": ["step", cursor]})
        connection.execute(update(jobs).where(jobs.c.id == job_id).values(arguments=arguments))


def all_is_well(run: kills.Run) -> None:
    visited(run, 1, 2, 3)
    wrote(run, 1, 2, 3)
    saved(run, run.visit_id, 3)
    saved(run, run.write_id, 3)


def again(run: kills.Run) -> None:
    all_is_well(run)
    run.check()
    visited(run, 1, 2, 3, 3)


def backwards(run: kills.Run) -> None:
    again(run)
    visited(run, 1, 2, 3)
    saved(run, run.visit_id, 2)


def without_the_row(run: kills.Run) -> None:
    all_is_well(run)
    saved(run, run.write_id, 4)


def missing(run: kills.Run) -> None:
    all_is_well(run)
    visited(run, 1, 3)


def twice(run: kills.Run) -> None:
    all_is_well(run)
    wrote(run, 2)


@pytest.mark.sqlite_only
@pytest.mark.parametrize(
    ("happens", "words"),
    [
        (all_is_well, None),
        (again, "record 3 was processed again, although the cursor was 3"),
        (backwards, "the cursor went back from 3 to 2"),
        (without_the_row, "the cursor 4 and the last row 3 were not committed together"),
        (missing, "1 records were not processed"),
        (twice, "4 rows for 3 records of 3"),
    ],
)
def test_a_broken_promise_is_noticed(run: kills.Run, happens: Callable[[kills.Run], None], words: str | None) -> None:
    happens(run)
    run.check()
    run.check_result()
    run.database.close()
    if words is None:
        assert run.violations == []
    else:
        assert any(words in violation for violation in run.violations), run.violations
