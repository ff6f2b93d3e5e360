"""A whole night with killers among innocents: what a safe retry makes of it."""

import json
import subprocess
import sys

import pytest

from solidjq import Database
from solidjq.queue.failed import Filter
from solidjq.recovery.retry import plan
from solidjq.recovery.terms import RetryTerms, Selection, filter_for
from solidjq.recovery.verdicts import Verdict
from support.night import CRASHES, FILLS, VANISHES, make_night
from support.paths import ROOT
from support.program import Shell

SAFE = RetryTerms(safe=True)
WITHOUT_AGES = (
    *("suspects --all -o table", "retry --safe --isolate --dry-run -o table", "suspects --all -o json"),
    *("retry --safe --dry-run -o json", "failed diff -o json", "incidents list -o json", "incidents show d1 -o json"),
)


def test_no_killer_goes_back_and_innocents_do(database: Database, shell: Shell) -> None:
    night = make_night(database, failures=500)
    ranking = json.loads(shell.run("suspects", "--since", "2d", "-o", "json").stdout)
    accused = {each["name"] for each in ranking if each["kind"] == "class" and each["standing"] == "suspect"}
    assert accused == {CRASHES, FILLS, VANISHES}

    selection = Selection(chosen=filter_for(SAFE, Filter()))
    verdicts = {one.job_id: one for batch in plan(database, selection, SAFE) for one in batch}
    moved = {job_id for job_id, one in verdicts.items() if one.verdict is Verdict.RETRY}
    held = verdicts.keys() - moved
    assert not moved & night.killers
    assert night.killers <= held
    assert not held & night.outside, "a cause outside of the jobs charges none of them"
    assert len(held - night.killers) <= len(night.company) // 20, "what cannot be told apart, and no more"


@pytest.mark.sqlite_only
def test_the_order_of_a_set_is_in_no_output(database: Database, shell: Shell) -> None:
    """Python's hashes of texts differ from one start to the next: here are two starts."""
    make_night(database, failures=500)
    lines = [line.split() for line in WITHOUT_AGES]
    program = f"from support.commands import run\nfor line in {lines!r}: run(line)"
    outputs = [
        subprocess.run(
            [sys.executable, "-c", program],
            env={**shell.env(), "PYTHONHASHSEED": seed, "PYTHONPATH": str(ROOT / "tests")},
            cwd=shell.folder,
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    ]
    assert all(name in outputs[0] for name in (CRASHES, FILLS, VANISHES))
    assert outputs[0] == outputs[1]
