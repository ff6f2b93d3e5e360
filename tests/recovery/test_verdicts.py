"""Each question that a retry asks, for and against: pure decisions, no database."""

import itertools
from collections import defaultdict
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from solidjq.incidents.suspects import NO_SUSPICION, Suspicion
from solidjq.ledger.crashes import Crash
from solidjq.rails.error_text import Death, exit_error, missing_error, pruned_error
from solidjq.recovery.terms import RetryTerms
from solidjq.recovery.verdicts import Candidate, Verdict, decide, verdict_key
from solidjq.settings.policy import ClassPolicy, Consent

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)
SAFE = RetryTerms(safe=True)


def crash(number: int, error: str, *, hours: float = 1) -> Crash:
    return Crash(number, 1, NOW - timedelta(hours=hours), error)


def pruned(number: int, *, hours: float = 1) -> Crash:
    return crash(number, pruned_error(NOW - timedelta(hours=hours, seconds=number)), hours=hours)


DIED = Candidate(
    failure_id=1,
    job_id=1,
    active_job_id="a",
    class_name="Report",
    queue_name="default",
    failed_at=NOW - timedelta(hours=1),
    exception_class="SolidQueue::Processes::ProcessPrunedError",
    death=Death.PRUNED,
    counted_crashes=(pruned(1),),
)
RAISED = DIED._replace(exception_class="ArgumentError", death=None, counted_crashes=())


def verdict(candidate: Candidate, terms: RetryTerms = SAFE, rule: ClassPolicy = ClassPolicy()) -> Verdict:  # noqa: B008
    return decide(candidate, terms, rule, NOW).verdict


def test_a_job_that_died_once_goes_back() -> None:
    decision = decide(DIED, SAFE, ClassPolicy(), NOW)
    assert (decision.verdict, decision.reason, decision.queue_as, decision.scheduled) == (
        Verdict.RETRY,
        None,
        None,
        False,
    )


@pytest.mark.parametrize(
    ("candidate", "terms", "rule", "expected", "reason"),
    [
        (DIED._replace(finished=True), SAFE, ClassPolicy(), Verdict.FINISHED, "both finished and failed"),
        (RAISED, SAFE, ClassPolicy(), Verdict.OWN_ERROR, "it failed with ArgumentError"),
        (
            DIED._replace(counted_crashes=tuple(crash(n, missing_error()) for n in range(3))),
            SAFE,
            ClassPolicy(),
            Verdict.OVER_LIMIT,
            "3 crashes within 72h; the limit is 3",
        ),
        (DIED, SAFE, ClassPolicy(max_crashes=1), Verdict.OVER_LIMIT, "1 crash within 72h; the limit is 1"),
        (DIED, RetryTerms(safe=True, max_crashes=1), ClassPolicy(max_crashes=9), Verdict.OVER_LIMIT, "the limit is 1"),
        (DIED, SAFE, ClassPolicy(retry=Consent.NEVER), Verdict.NEVER, "policy says never, in built in"),
        (DIED, RetryTerms(safe=True, auto_only=True), ClassPolicy(), Verdict.ASK, 'policy says "ask"'),
        (
            DIED._replace(counted_crashes=(pruned(1), pruned(2))),
            SAFE,
            ClassPolicy(),
            Verdict.SUSPECT,
            "2 different processes died",
        ),
        (
            DIED._replace(counted_crashes=(pruned(1), crash(2, exit_error(42, -9)))),
            SAFE,
            ClassPolicy(),
            Verdict.SUSPECT,
            "2 different processes died",
        ),
        (DIED._replace(alive="it still runs"), SAFE, ClassPolicy(), Verdict.ALIVE, "it still runs"),
        (DIED._replace(twin="job 2 waits"), SAFE, ClassPolicy(), Verdict.DUPLICATE, "job 2 waits"),
        (DIED, RetryTerms(safe=True, max_age=60), ClassPolicy(), Verdict.TOO_OLD, "it failed 1h ago; the limit is 60s"),
        (DIED, SAFE, ClassPolicy(max_age=timedelta(minutes=10)), Verdict.TOO_OLD, "the limit is 10m"),
    ],
)
def test_what_holds_a_job_back_and_why(
    candidate: Candidate, terms: RetryTerms, rule: ClassPolicy, expected: Verdict, reason: str
) -> None:
    decision = decide(candidate, terms, rule, NOW)
    assert decision.verdict is expected
    assert reason in (decision.reason or "")


@pytest.mark.parametrize(
    ("candidate", "terms", "rule"),
    [
        (RAISED, RetryTerms(safe=True, include_errors=True), ClassPolicy()),
        (DIED._replace(counted_crashes=(crash(1, missing_error()), crash(2, missing_error()))), SAFE, ClassPolicy()),
        (DIED._replace(counted_crashes=(pruned(1), *(pruned(n, hours=100) for n in (2, 3)))), SAFE, ClassPolicy()),
        (
            DIED._replace(counted_crashes=(pruned(1), pruned(2, hours=30))),
            RetryTerms(safe=True, window=3600 * 24),
            ClassPolicy(),
        ),
        (DIED._replace(counted_crashes=(pruned(1), pruned(1)._replace(failure_id=2))), SAFE, ClassPolicy()),
        (DIED, SAFE, ClassPolicy(retry=Consent.AUTO)),
        (DIED, RetryTerms(safe=True, auto_only=True), ClassPolicy(retry=Consent.AUTO)),
        (DIED, RetryTerms(safe=True, max_age=7200), ClassPolicy(max_age=timedelta(minutes=1))),
        (DIED._replace(failed_at=None), RetryTerms(safe=True, max_age=60), ClassPolicy()),
    ],
)
def test_what_does_not(candidate: Candidate, terms: RetryTerms, rule: ClassPolicy) -> None:
    assert verdict(candidate, terms, rule) is Verdict.RETRY


def test_without_safe_only_crash_limit_and_never_hold_and_force_overrides_them() -> None:
    over = DIED._replace(counted_crashes=tuple(pruned(n) for n in range(3)), alive="runs", twin="waits")
    assert verdict(over, RetryTerms()) is Verdict.OVER_LIMIT
    assert verdict(DIED, RetryTerms(), ClassPolicy(retry=Consent.NEVER)) is Verdict.NEVER
    assert verdict(over._replace(counted_crashes=over.crashes[:2]), RetryTerms()) is Verdict.RETRY
    assert verdict(RAISED, RetryTerms()) is Verdict.RETRY
    assert verdict(over, RetryTerms(force=True), ClassPolicy(retry=Consent.NEVER)) is Verdict.RETRY


def test_the_first_question_that_says_no_is_named() -> None:
    everything = DIED._replace(counted_crashes=tuple(pruned(n) for n in range(3)), alive="runs", twin="waits")
    never = ClassPolicy(retry=Consent.NEVER, max_age=timedelta(minutes=1))
    assert verdict(everything, SAFE, never) is Verdict.OVER_LIMIT
    assert verdict(everything._replace(counted_crashes=everything.crashes[:2]), SAFE, never) is Verdict.NEVER
    assert verdict(everything._replace(counted_crashes=everything.crashes[:2])) is Verdict.SUSPECT
    assert verdict(everything._replace(counted_crashes=everything.crashes[:1])) is Verdict.ALIVE
    assert verdict(everything._replace(counted_crashes=(), alive=None)) is Verdict.DUPLICATE


def test_where_it_goes() -> None:
    assert decide(DIED, SAFE, ClassPolicy(queue_as="big"), NOW).queue_as == "big"
    assert decide(DIED, RetryTerms(queue_as="other"), ClassPolicy(queue_as="big"), NOW).queue_as == "other"
    assert decide(DIED, RetryTerms(queue_as="default"), ClassPolicy(queue_as="big"), NOW).queue_as is None
    for candidate, terms in (
        (DIED._replace(limited=True), SAFE),
        (DIED._replace(early=True), SAFE),
        (DIED, RetryTerms(delay=5)),
        (DIED, RetryTerms(interval=5)),
    ):
        assert decide(candidate, terms, ClassPolicy(), NOW).scheduled


def test_a_discard_asks_only_for_age() -> None:
    never = ClassPolicy(retry=Consent.NEVER, max_crashes=1)
    assert verdict(DIED._replace(twin="waits"), RetryTerms(discard=True), never) is Verdict.DISCARD
    assert verdict(DIED, RetryTerms(discard=True, max_age=60)) is Verdict.TOO_OLD


def test_terms_are_read_as_they_were_written() -> None:
    terms = RetryTerms(safe=True, max_crashes=5, queue_as="q", interval=0.6)
    assert terms.to_record() == {"safe": True, "max_crashes": 5, "queue_as": "q", "interval": 0.6}
    assert RetryTerms.from_record(terms.to_record()) == terms


def test_every_verdict_says_what_it_means() -> None:
    assert all(each.meaning for each in Verdict)
    assert [each for each in Verdict if each.moves] == [Verdict.RETRY, Verdict.DISCARD, Verdict.ISOLATE]


@pytest.mark.parametrize(
    "terms",
    [
        SAFE,
        RetryTerms(),
        RetryTerms(safe=True, max_crashes=1, window=7200),
        RetryTerms(safe=True, max_age=7200, include_errors=True),
        RetryTerms(safe=True, auto_only=True, delay=5),
        RetryTerms(discard=True),
    ],
)
def test_of_jobs_alike_all_move_or_none(terms: RetryTerms) -> None:
    rules = [ClassPolicy(), ClassPolicy(retry=Consent.AUTO, max_age=timedelta(hours=3), queue_as="big")]
    ages = [None, *(NOW - timedelta(hours=hours) for hours in (1, 1.5, 4, 80, 90))]
    plain = [
        died._replace(
            failed_at=at,
            class_name=name,
            queue_name=queue,
            finished=finished,
            limited=limited,
            early=early,
            failure_id=9,
        )
        for died in (DIED._replace(counted_crashes=()), RAISED)
        for at in ages
        for name, queue in (("Report", "default"), ("Other", "big"))
        for finished, limited, early in itertools.product((False, True), repeat=3)
    ]
    for rule in rules:
        found = defaultdict(set)
        for candidate in plain:
            decision = decide(candidate, terms, rule, NOW)
            given = (decision.queue_as, decision.scheduled) if decision.verdict.moves else None
            found[verdict_key(candidate, terms, rule, NOW, NO_SUSPICION)].add((decision.verdict.moves, given))
        assert None not in found
        assert 8 < len(found) < len(plain)
        assert {len(decisions) for decisions in found.values()} == {1}


def test_a_job_of_which_more_is_known_is_like_no_other() -> None:
    for candidate in (DIED, DIED._replace(counted_crashes=(), twin="t"), DIED._replace(counted_crashes=(), alive="a")):
        assert verdict_key(candidate, SAFE, ClassPolicy(), NOW, NO_SUSPICION) is None


def test_jobs_of_one_death_from_inside_are_alike_and_those_of_two_are_not() -> None:
    once = DIED._replace(counted_crashes=(), death_id=7)
    suspicion = Suspicion(inside={7: 0, 8: 1}, jobs={"b": None}, failures={3})

    def key(**changed: Any) -> tuple[object, ...] | None:
        return verdict_key(once._replace(**changed), SAFE, ClassPolicy(), NOW, suspicion)

    assert key() == key(job_id=2, failure_id=2, active_job_id="c") is not None
    assert key(death_id=8) != key() != key(death_id=9)
    assert key(active_job_id="b") is None, "a job that was at another death, too"
    assert key(failure_id=3) is None, "a failure of such a job"


def test_of_a_suspect_class_it_counts_whether_the_death_charges() -> None:
    once = DIED._replace(counted_crashes=(), death_id=7)
    suspicion = Suspicion(outside={7, 8}, classes={"Report": "it may kill"})
    keys = [verdict_key(once._replace(death_id=id_), SAFE, ClassPolicy(), NOW, suspicion) for id_ in (7, 8, 9, 10)]
    assert keys[0] == keys[1] != keys[2] == keys[3]
    verdicts = [decide(once._replace(death_id=id_), SAFE, ClassPolicy(), NOW, suspicion).verdict for id_ in (7, 9)]
    assert verdicts == [Verdict.RETRY, Verdict.SUSPECT]
