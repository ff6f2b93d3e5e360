"""On databases that Rails left: who killed the processes, in one answer from every command."""

import json

import pytest

from solidjq import Database
from solidjq.database.setup import initialize
from support import rails
from support.program import Shell

EXITED = {6, 7, 9}  # status 3, SIGSEGV, status 0; job 8 killed itself with SIGKILL
COMPANY = {1, 3}  # of a worker that was killed from elsewhere


@pytest.mark.parametrize("ledger", ["with jq's tables", "without"])
def test_jobs_that_were_alone_when_they_ended_their_process_are_suspects(
    left: Database, jq: Shell, kind: str, ledger: str
) -> None:
    """Their class is one too, so the fourth of them, which may have been killed by anybody, is held as well."""
    rails.load(left.url, rails.read(kind, "1d"))
    if ledger != "without":
        initialize(left)
    ranking = json.loads(jq.run("suspects", "--since", "2026-11-01", "--all", "-o", "json").stdout)
    standing = {(each["kind"], each["name"]): each["standing"] for each in ranking}
    assert standing["class", "ExitJob"] == "suspect"
    by_job = {job_id: each["standing"] for each in ranking if each["kind"] == "job" for job_id in each["job_ids"]}
    assert {job for job, each in by_job.items() if each == "suspect"} == EXITED | {8}
    decided = jq.run("retry", "--safe", "--window", "500w", "--dry-run", "-o", "json")
    verdicts = {each["job_id"]: each["verdict"] for each in json.loads(decided.stdout)}
    assert {job for job, verdict in verdicts.items() if verdict == "suspect"} == EXITED | {8}
    assert {job for job, verdict in verdicts.items() if verdict == "retry"} >= COMPANY
