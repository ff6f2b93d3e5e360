"""A whole night with killers among innocents: what a safe retry makes of it."""

import json

from solidjq import Database
from solidjq.queue.failed import Filter
from solidjq.recovery.retry import plan
from solidjq.recovery.terms import RetryTerms, Selection, filter_for
from solidjq.recovery.verdicts import Verdict
from support.night import CRASHES, FILLS, VANISHES, make_night
from support.program import Shell

SAFE = RetryTerms(safe=True)


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
