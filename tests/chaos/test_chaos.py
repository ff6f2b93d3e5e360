"""The short form of a run on each database, with fixed seeds; and the oracle itself, which must be able to say no."""

import shutil
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import driver
import pytest
import report
from faults import TABLE
from oracle import Evidence, judge
from servers import MARIADB

from support.servers import missing_program
from support.standbys import NO_SECOND_SERVER

SEEDS = {"sqlite": 1, "postgresql": 2, "mariadb": 3}
NOT_EVERYWHERE = {"clock skew", "full disk"}  # they need libfaketime, and the right to mount


def test_nothing_is_lost_or_doubled_whatever_breaks(kind: str, tmp_path: Path) -> None:
    if kind == "mariadb" and missing_program(MARIADB) is not None:
        pytest.skip(NO_SECOND_SERVER)
    folder = Path(tempfile.mkdtemp(prefix="solidjq-chaos-"))
    folder.chmod(0o755)  # the server of a test run by root is another user
    try:
        summary = driver.run(kind, SEEDS[kind], folder, workers=1, rate=10.0)
    finally:
        for kept in (*folder.glob("*.jsonl"), *folder.glob("*.log")):
            shutil.copy(kept, tmp_path)
        shutil.rmtree(folder, ignore_errors=True)
    assert summary["violations"] == [], f"seed {SEEDS[kind]}; the history is in {tmp_path}"
    assert summary["faults"].keys() | NOT_EVERYWHERE >= {fault.name for fault in TABLE if kind in fault.databases}
    assert summary["kills"]["processes of jq work"] >= 3  # a child, a supervisor, and of a tree that has only begun
    assert summary["jobs"] >= driver.LEAST_JOBS


def test_the_table_is_that_of_the_results() -> None:
    assert report.page() == report.PAGE.read_text(encoding="utf-8")


# -- the oracle -------------------------------------------------------------------------------------------------------


def event(kind: str, f: str, **values: Any) -> dict[str, Any]:
    return {"type": kind, "f": f, **values}


def ran(number: int, process: int = 7, **more: Any) -> list[dict[str, Any]]:
    return [event(kind, "run", job=number, process=process, **more) for kind in ("invoke", "ok")]


def moves(job_id: int, *what: str) -> list[tuple[str, int, None]]:
    return [(each, job_id, None) for each in what]


ONCE = ("job+", "ready+", "ready-", "claimed+", "claimed-", "finished+")
FAILED = (*ONCE[:-1], "failed+")
GOOD = Evidence(
    history=[event("ok", "enqueue", jobs=[1]), *ran(1)],
    audit=moves(10, *ONCE),
    numbers={10: 1},
    classes={10: "quick"},
    states={10: ["finished"]},
    semaphores={"limited/a": 2},
    archived={},
    operations={},
    archived_by={},
    threshold=4.0,
    limit=2,
)
RAN_TWICE = replace(
    GOOD,
    history=[*GOOD.history, *ran(1, 8)],
    audit=moves(10, *FAILED, "failed-", "ready+", "ready-", "claimed+", "claimed-", "finished+"),
    archived={10: 1},
)


def test_the_oracle_is_content_with_a_job_that_ran_once() -> None:
    assert judge(GOOD) == []


def test_the_oracle_excuses_what_a_killed_process_did_last() -> None:
    killed = event("ok", "fault", name="kill children", excused=[7])
    assert judge(replace(RAN_TWICE, history=[*RAN_TWICE.history, killed])) == []
    assert judge(replace(RAN_TWICE, audit=[*RAN_TWICE.audit, ("process-", 7, 4.5)])) == []
    assert judge(replace(RAN_TWICE, audit=[*RAN_TWICE.audit, ("process-", 7, 0.5)])) != []


def limited(*events: tuple[str, int]) -> list[dict[str, Any]]:
    return [event(kind, "run", job=number, process=7, key="a") for kind, number in events]


THREE = replace(
    GOOD,
    numbers={10: 1, 11: 2, 12: 3},
    classes=dict.fromkeys((10, 11, 12), "limited"),
    states={job_id: ["finished"] for job_id in (10, 11, 12)},
    audit=[one for job_id in (10, 11, 12) for one in moves(job_id, *ONCE)],
)


@pytest.mark.parametrize(
    ("evidence", "words"),
    [
        (replace(GOOD, history=[*GOOD.history, event("ok", "enqueue", jobs=[2])]), "acknowledged, and is not there"),
        (replace(GOOD, numbers={10: 1, 11: 1}), "was enqueued 2 times"),
        (replace(GOOD, states={10: []}), "in no state"),
        (replace(GOOD, states={10: ["ready", "finished"]}), "ready and finished"),
        (replace(GOOD, states={10: ["failed"]}), "is failed, not finished"),
        (replace(GOOD, audit=moves(10, *ONCE, "ready+")), "was left in the states ['finished', 'ready']"),
        (replace(GOOD, audit=moves(10, *ONCE, "finished again")), "changed after it had finished"),
        (replace(GOOD, audit=moves(10, "job+", "ready+", "ready-", "finished+")), "went from ready to finished"),
        (replace(GOOD, audit=moves(10, *ONCE[:-1], "failed+", "finished+")), "['failed', 'finished']"),
        (RAN_TWICE, "though it had ended well in process 7"),
        (replace(GOOD, history=[*ran(1), *ran(1)]), "ran 2 times, and was claimed 1 times"),
        (replace(GOOD, history=[]), "never ran to its end"),
        (
            replace(THREE, history=limited(*(("invoke", n) for n in (1, 2, 3)), *(("ok", n) for n in (1, 2, 3)))),
            "3 jobs of the key a ran at once",
        ),
        (replace(GOOD, semaphores={"limited/a": 1}), "has 1 free slots of 2"),
        (replace(RAN_TWICE, archived={}), "lost 1 failures; 0 are archived"),
        (replace(GOOD, operations={1: ("retry", 2)}, archived_by={1: 1}), "counts 2 jobs; the archive has 1"),
        (replace(GOOD, history=[*ran(1), event("fail", "command", command="prune", status=1)]), "ended with 1"),
        (replace(GOOD, history=[*ran(1), event("fail", "fault", words="10 s after 'cut'")]), "after 'cut'"),
    ],
)
def test_the_oracle_finds(evidence: Evidence, words: str) -> None:
    assert [one for one in judge(evidence) if words in one], judge(evidence)


def test_the_oracle_finds_a_job_that_kills_too_many_workers() -> None:
    begun = [event("invoke", "run", job=1, process=pid) for pid in range(4)]
    again = ("ready-", "claimed+", "claimed-", "failed+", "failed-", "ready+")
    audit = moves(10, "job+", "ready+", *again * 4)
    poisoned = replace(GOOD, classes={10: "poison"}, states={10: ["failed"]}, history=begun, audit=audit)
    assert [one for one in judge(poisoned) if "killed 4 workers; the limit is 3" in one]
