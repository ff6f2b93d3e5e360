"""Each rule of cause_rules.py, with facts that it holds on and facts that it must not."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from solidjq.incidents.cause_rules import RULES, find_cause
from solidjq.incidents.causes import Cause, CauseFinding, Confidence
from solidjq.incidents.claimed_jobs import ClaimedJob, ClaimedJobs
from solidjq.incidents.company import Company
from solidjq.incidents.death_cases import INSIDE, Blame
from solidjq.incidents.death_records import DeathRecord
from solidjq.ledger.deaths import DeathSource
from solidjq.rails.error_text import Death

BEAT = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
NOTICED = BEAT + timedelta(minutes=6)
GIGA = 2**30
NOBODY = Company()


def pruned(**evidence: Any) -> DeathRecord:
    return DeathRecord(
        name="d1",
        source=DeathSource.PRUNE,
        how=Death.PRUNED,
        hostname="web-1",
        pid=4242,
        last_heartbeat_at=BEAT,
        noticed_at=NOTICED,
        evidence={"threshold": 300.0, **evidence},
        jobs=ClaimedJobs([ClaimedJob(1, "job 1", "ReportJob")]),
    )


def reaped(signal: int | None = None, status: int | None = None, **evidence: Any) -> DeathRecord:
    return DeathRecord(
        name="d1",
        source=DeathSource.SUPERVISOR,
        how=Death.EXITED,
        hostname="web-1",
        pid=4242,
        last_heartbeat_at=BEAT,
        noticed_at=BEAT + timedelta(seconds=20),
        signal=signal,
        exit_status=status,
        evidence=evidence,
    )


def rails(how: Death = Death.EXITED, signal: int | None = None, status: int | None = None) -> DeathRecord:
    beat = BEAT if how is Death.PRUNED else None
    return DeathRecord(
        name="f1",
        source=DeathSource.FAILURES,
        how=how,
        noticed_at=NOTICED,
        last_heartbeat_at=beat,
        signal=signal,
        exit_status=status,
    )


def at(minutes: float) -> str:
    return (BEAT + timedelta(minutes=minutes)).isoformat()


def clocks(slept: float, boot: str = "a") -> dict[str, Any]:
    return {"boot_id": boot, "monotonic": 1000.0, "boottime": 1000.0 + slept}


HERE = {"boot_id": "a", "process": "gone"}
ALONE = {"alive": 0, "silent": 3, "alive_here": 0, "silent_here": 3, "hosts_alive": 0, "hosts_silent": 1}
ELSEWHERE = {**ALONE, "alive": 5, "hosts_alive": 2}
EVERYWHERE = {**ALONE, "hosts_silent": 3}
AWAY = Company(outages=[(BEAT + timedelta(minutes=1), BEAT + timedelta(minutes=5))])
BRIEFLY = Company(outages=[(BEAT + timedelta(minutes=1), BEAT + timedelta(minutes=2))])
LONG_AGO = Company(outages=[(BEAT - timedelta(minutes=60), BEAT - timedelta(minutes=50))])
NEAR = {"cgroup": {"current": 0.95 * GIGA, "max": GIGA}}

# (cause, how sure) -> facts that show it, and facts that come close and do not
CASES: dict[str, tuple[tuple[Cause, Confidence], list[Any], list[Any]]] = {
    "oom_kill rose": (
        (Cause.MEMORY, Confidence.CERTAIN),
        [reaped(9, oom_kill=[0, 1])],
        [reaped(9, oom_kill=[1, 1]), reaped(11, oom_kill=[0, 1]), reaped(9, oom_kill=[None, 1]), reaped(9)],
    ),
    "killed by its supervisor": (
        (Cause.SHUTDOWN, Confidence.CERTAIN),
        [reaped(9, killed_by_supervisor=True)],
        [reaped(9)],
    ),
    "the machine slept": (
        (Cause.SUSPENDED, Confidence.CERTAIN),
        [pruned(sample=clocks(0), here=clocks(900)), pruned(sample=clocks(50), here=clocks(210))],
        [
            pruned(sample=clocks(0), here=clocks(900, "b")),
            pruned(sample=clocks(900), here=clocks(910)),
            pruned(sample=clocks(0)),
            pruned(here=clocks(900)),
            reaped(9, sample=clocks(0), here=clocks(900)),
        ],
    ),
    "alive after an outage": (
        (Cause.STALL, Confidence.CERTAIN),
        [(pruned(here={"process": "sleeping"}), AWAY)],
        [(pruned(here={"process": "gone"}), AWAY), (pruned(here={"process": "sleeping"}), LONG_AGO)],
    ),
    "all silent, and running": (
        (Cause.STALL, Confidence.LIKELY),
        [(pruned(here={"process": "sleeping"}, fleet=ALONE), Company(deaths=3))],
        [
            (pruned(here={"process": "stopped"}, fleet=ALONE), Company(deaths=3)),
            (pruned(here={"process": "sleeping"}, fleet=ELSEWHERE), Company(deaths=3)),
            (pruned(here={"process": "sleeping"}, fleet=ALONE), Company(deaths=1)),
        ],
    ),
    "still there": (
        (Cause.HUNG, Confidence.CERTAIN),
        [
            pruned(here={"process": "stopped", "certain": True}),
            (pruned(here={"process": "running", "certain": True}), LONG_AGO),
            pruned(here={"process": "stopped"}, sample={"pid_started": at(-9)}),  # as jq recorded it before
        ],
        [
            pruned(here={"process": "gone", "certain": True}),
            pruned(here={"process": "stopped", "certain": False}, sample={"pid_started": at(-9)}),
            pruned(here={"process": "stopped"}),
        ],
    ),
    "its pid is still there": (
        (Cause.HUNG, Confidence.LIKELY),
        [pruned(here={"process": "stopped"}), (pruned(here={"process": "running", "certain": False}), LONG_AGO)],
        [
            pruned(here={"process": "gone"}),
            pruned(here={"process": "unknown"}),
            pruned(here={"elsewhere": True}),
            pruned(here={}),
            pruned(),
        ],
    ),
    "others could not reach the database": (
        (Cause.STALL, Confidence.LIKELY),
        [(pruned(), AWAY), pruned(outage={"from": at(0.5), "beats": 9}), (rails(Death.PRUNED), AWAY)],
        [(pruned(), BRIEFLY), (pruned(), LONG_AGO), (reaped(9), AWAY), pruned(outage={"from": at(-9), "to": at(-8)})],
    ),
    "started anew": (
        (Cause.HOST, Confidence.CERTAIN),
        [
            pruned(sample={"boot_id": "a"}, here={"boot_id": "b"}),
            pruned(sample={"boot_id": "a"}, here={"boot_id": "b", "boottime": 359.0}),
        ],
        [
            pruned(sample={"boot_id": "a"}, here={"boot_id": "b", "boottime": 361.0}),  # another machine of that name
            pruned(sample={"boot_id": "a"}, here={"boot_id": "a"}),
            pruned(sample={"boot_id": "a"}),
            pruned(),
        ],
    ),
    "told to stop": (
        (Cause.SHUTDOWN, Confidence.LIKELY),
        [pruned(sample={"term_at": at(0)}), reaped(9, term_at=at(0)), rails(signal=15), reaped(15)],
        [
            pruned(sample={"term_at": at(-20)}),
            reaped(11, term_at=at(0)),
            reaped(status=1, term_at=at(0)),
            reaped(9, term_at="garbage"),
            rails(signal=9),
        ],
    ),
    "last words of memory": (
        (Cause.MEMORY, Confidence.LIKELY),
        [reaped(6, last_words="terminate called: std::bad_alloc"), reaped(status=1, last_words="MemoryError")],
        [reaped(6, last_words="Fatal Python error: Aborted"), reaped(6)],
    ),
    "a fault": (
        (Cause.CRASH, Confidence.CERTAIN),
        [reaped(11), reaped(6), reaped(7), rails(signal=11), rails(signal=4)],
        [reaped(9), reaped(15), reaped(status=11), rails(signal=2)],
    ),
    "an exit status": (
        (Cause.EXIT, Confidence.CERTAIN),
        [reaped(status=3), rails(status=0), rails(status=1), (rails(status=3), Company(deaths=2))],
        [reaped(9), rails(Death.PRUNED), rails(Death.MISSING)],
    ),
    "a shell's status for a kill": (
        (Cause.KILLED, Confidence.LIKELY),
        [rails(status=137), reaped(status=143)],
        [rails(status=139), rails(status=9)],
    ),
    "a status of jq work itself": (
        (Cause.EXIT, Confidence.POSSIBLE),
        [reaped(status=69), reaped(status=75), reaped(status=78)],
        [reaped(status=70)],
    ),
    "several ended with status 1": (
        (Cause.EXIT, Confidence.POSSIBLE),
        [(rails(status=1), Company(deaths=2))],
        [rails(status=1), (rails(status=2), Company(deaths=2))],
    ),
    "near its limit": (
        (Cause.MEMORY, Confidence.LIKELY),
        [
            reaped(9, sample=NEAR),
            reaped(9, sample={"cgroup": {"current": 10, "max": GIGA}}, rusage={"peak": GIGA}),
            pruned(sample=NEAR),
        ],
        [
            reaped(9, sample={"cgroup": {"current": 0.5 * GIGA, "max": GIGA}}, rusage={"peak": 0.5 * GIGA}),
            reaped(9, sample={"cgroup": {"current": GIGA}}),
            reaped(9, sample={"cgroup": {"current": "lots", "max": "more"}}),
            reaped(status=1, sample=NEAR),
            rails(signal=9),
        ],
    ),
    "under pressure": (
        (Cause.MEMORY, Confidence.POSSIBLE),
        [reaped(9, sample={"psi": {"full": 40.0}}), pruned(sample={"psi": {"full": 10.0}})],
        [reaped(9, sample={"psi": {"full": 1.0, "some": 90.0}}), reaped(status=2, sample={"psi": {"full": 40.0}})],
    ),
    "no memory kill": (
        (Cause.KILLED, Confidence.CERTAIN),
        [reaped(9, oom_kill=[2, 2])],
        [reaped(9), reaped(2, oom_kill=[2, 2]), reaped(9, oom_kill=[2])],
    ),
    "a signal": (
        (Cause.KILLED, Confidence.LIKELY),
        [reaped(9), rails(signal=9), rails(signal=1), rails(signal=77)],
        [rails(status=9), rails(Death.MISSING)],
    ),
    "gone": (
        (Cause.KILLED, Confidence.LIKELY),
        [pruned(sample={"boot_id": "a"}, here=HERE, fleet=ALONE)],
        [pruned(here=HERE), pruned(sample={"boot_id": "a"}), pruned(sample={"boot_id": "a"}, here={"boot_id": "a"})],
    ),
    "every host": (
        (Cause.STALL, Confidence.LIKELY),
        [pruned(fleet=EVERYWHERE), (rails(Death.PRUNED), Company(frozenset({"a", "b"}), survivors=0))],
        [
            pruned(fleet=ELSEWHERE),
            pruned(fleet=ALONE),
            (rails(Death.PRUNED), Company(frozenset({"a", "b"}), survivors=3)),
            (rails(Death.PRUNED), Company(frozenset({"a"}), survivors=0)),
            (rails(signal=9), Company(frozenset({"a", "b"}), survivors=0)),
        ],
    ),
    "one host": (
        (Cause.HOST, Confidence.LIKELY),
        [pruned(fleet=ELSEWHERE)],
        [pruned(fleet={**ELSEWHERE, "alive_here": 1}), pruned(fleet=ALONE), pruned()],
    ),
    "nobody left": (
        (Cause.HOST, Confidence.POSSIBLE),
        [pruned(fleet=ALONE), (rails(Death.PRUNED), Company(survivors=0))],
        [pruned(fleet=ELSEWHERE), pruned(), (rails(Death.PRUNED), Company(survivors=2)), (rails(signal=9), NOBODY)],
    ),
    "no row": (
        (Cause.ROW, Confidence.LIKELY),
        [rails(Death.MISSING)],
        [rails(Death.PRUNED), rails(signal=9)],
    ),
}


def each(side: int) -> list[Any]:
    return [
        pytest.param(case[0], facts, id=f"{name}-{number}")
        for name, case in CASES.items()
        for number, facts in enumerate(case[side])
    ]


def cause_of(facts: Any) -> tuple[Cause, Confidence]:
    death, company = facts if isinstance(facts, tuple) else (facts, NOBODY)
    finding = find_cause(death, company)
    return finding.cause, finding.confidence


@pytest.mark.parametrize(("expected", "facts"), each(1))
def test_a_cause_is_found(expected: tuple[Cause, Confidence], facts: Any) -> None:
    assert cause_of(facts) == expected


@pytest.mark.parametrize(("expected", "facts"), each(2))
def test_a_cause_is_not_found_where_its_facts_are_missing(expected: tuple[Cause, Confidence], facts: Any) -> None:
    assert cause_of(facts) != expected


def test_every_rule_is_shown_to_hold_and_not_to_hold() -> None:
    """A rule that no case reaches would be dead; one that no case escapes would hold on everything."""

    def reached(test: Callable[..., Any], facts: Any) -> bool:
        death, company = facts if isinstance(facts, tuple) else (facts, NOBODY)
        return test(death, company) is not None

    everything = [facts for _, good, bad in CASES.values() for facts in (*good, *bad)]
    for rule in RULES:
        decided = [f for f in everything if cause_of(f) == (rule.cause, rule.confidence) and reached(rule.test, f)]
        assert decided, f"no case is decided by: {rule.when}"
        assert not all(reached(rule.test, facts) for facts in everything), f"it holds on everything: {rule.when}"


def test_what_rails_recorded_is_never_put_down_to_memory() -> None:
    """Its rows say nothing of memory."""
    for how in Death:
        for signal in (None, *range(1, 65)):
            for status in (None, 0, 1, 137):
                cause, _ = cause_of(rails(how, signal if how is Death.EXITED else None, status))
                assert cause is not Cause.MEMORY


def test_facts_that_were_used_and_that_are_missing_are_named() -> None:
    finding = find_cause(reaped(9, sample=NEAR), NOBODY)
    assert finding.used == ("SIGKILL", "its last sample: 972.8 MB of 1.0 GB in use")
    assert find_cause(rails(signal=9), NOBODY).missing == (
        "samples and the exit of the process: only jq work records them",
    )
    unknown = find_cause(pruned(fleet={**ELSEWHERE, "alive_here": 2}), NOBODY)
    assert (unknown.cause, unknown.confidence) == (Cause.UNKNOWN, Confidence.UNKNOWN)
    assert unknown.used == ("its last heartbeat was at 2026-11-23 12:00:00 UTC",)
    assert "a check on its host: web-1" in unknown.missing
    (elsewhere,) = set(find_cause(pruned(here={"elsewhere": True}), NOBODY).missing) - set(unknown.missing)
    assert elsewhere == "a check on its host: it ran in another boot or container named web-1"
    started = {"process": "stopped", "started_at": at(-60)}
    likely = find_cause(pruned(here={**started, "certain": False}), NOBODY)
    words = "pid 4242, which started at 2026-11-23 11:00:00 UTC, was still there when it was pruned: stopped"
    assert likely.used == (words,)
    assert "whether pid 4242 was still its own: its row does not record when it started" in likely.missing
    assert find_cause(pruned(here={**started, "certain": True}), NOBODY).missing == ()


def test_evidence_that_is_garbage_is_no_error() -> None:
    """The sample comes from a row that any program may have written."""
    for garbage in (None, [], "x", 7, {"max": []}, {"current": {}}):
        for key in ("cgroup", "psi", "jobs", "term_at", "boot_id", "boottime"):
            cause_of(pruned(sample={key: garbage}))
            cause_of(reaped(9, sample={key: garbage}))
        cause_of(pruned(sample=garbage))


@pytest.mark.parametrize("cause", Cause)
def test_every_cause_says_what_it_means_and_what_to_do(cause: Cause) -> None:
    assert cause.meaning.endswith(".")
    assert len(cause.advice) > 20
    blames = {CauseFinding(cause, confidence).blame for confidence in Confidence}
    assert not (Blame.OUTSIDE in blames and blames & INSIDE)
