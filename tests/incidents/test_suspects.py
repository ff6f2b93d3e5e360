"""Who may have killed a process: each rule for and against, then whole fleets with and without a killer."""

from dataclasses import replace
from math import comb

import pytest

from solidjq.chance import fisher
from solidjq.incidents import suspects
from solidjq.incidents.class_scores import ClassScore
from solidjq.incidents.death_cases import Blame, DeathCase, Exposure, InFlight, JobStanding
from solidjq.incidents.job_scores import JobScore
from solidjq.incidents.suspects import rank
from support.invented_fleet import figures

OUTSIDE, UNKNOWN, MEMORY, CODE = Blame.OUTSIDE, Blame.UNKNOWN, Blame.MEMORY, Blame.CODE
USUAL = Exposure(1000, {"Import": 10, "Mail": 12, "Sync": 300, "Listen": 1000})


def job(text: str, growth: int | None = None) -> InFlight:
    """Read a job: its class, and its subject where that matters: Import, Import#1."""
    class_name, _, subject = text.partition("#")
    return InFlight(subject or f"any {class_name} {next(NUMBERS)}", class_name, growth)


NUMBERS = iter(range(10**9))


def case(*jobs: str, key: str | None = None, blame: Blame = Blame.UNKNOWN) -> DeathCase:
    key = f"death {next(NUMBERS)}" if key is None else key
    return DeathCase(key, blame, tuple(job(each) for each in jobs))


def cases(*each: str, times: int = 1, blame: Blame = Blame.UNKNOWN) -> list[DeathCase]:
    """As many deaths with jobs of these classes."""
    return [case(*each, blame=blame) for _ in range(times)]


def class_of(found: list[DeathCase], name: str, exposure: Exposure | None = USUAL) -> ClassScore:
    (score,) = [each for each in rank(found, exposure).classes if each.name == name]
    return score


def job_of(found: list[DeathCase], name: str, exposure: Exposure | None = USUAL) -> JobScore:
    (score,) = [each for each in rank(found, exposure).jobs if each.name == name]
    return score


# -- classes ----------------------------------------------------------------------------------------------------------


def test_a_class_at_more_deaths_than_looks_explain_is_a_suspect() -> None:
    found = class_of([*cases("Import", times=3), *cases("Sync", "Mail"), *cases("Sync")], "Import")
    assert (found.standing, found.deaths, found.alone) == (JobStanding.SUSPECT, 3, 3)
    assert found.reasons == (
        "in flight at 3 of 5 deaths, in 10 of 1,000 samples of live processes; p = 6.7e-05 (4 classes tested)",
        "alone at 3 deaths",
    )


@pytest.mark.parametrize(
    ("name", "times", "others", "expected"),
    [
        ("Import", 2, 0, JobStanding.UNDECIDED),  # two deaths are too few, whatever p is
        ("Sync", 2, 8, JobStanding.UNDECIDED),
        ("Sync", 3, 7, JobStanding.BYSTANDER),  # as often as it runs
        ("Sync", 7, 3, JobStanding.UNDECIDED),  # oftener, but out of five classes one may be
        ("Listen", 10, 0, JobStanding.UNDECIDED),  # it runs always: deaths cannot tell
        ("Sync", 9, 1, JobStanding.SUSPECT),
    ],
)
def test_what_is_made_of_a_class(name: str, times: int, others: int, expected: JobStanding) -> None:
    assert class_of([*cases(name, times=times), *cases("Other", times=others)], name).standing is expected


def test_the_more_classes_are_tested_the_more_it_takes() -> None:
    found = [*cases("Sync", times=9), *cases("Other")]
    often = {**USUAL.running, **{f"Class{number}": 3 for number in range(200)}}
    seldom = {**USUAL.running, **{f"Class{number}": 2 for number in range(200)}}  # could not become suspects
    assert class_of(found, "Sync", replace(USUAL, running=often)).standing is JobStanding.UNDECIDED
    assert class_of(found, "Sync", replace(USUAL, running=seldom)).standing is JobStanding.SUSPECT


def test_company_is_explained_by_the_suspect() -> None:
    found = [*cases("Import", "Mail", times=4), *cases("Import", times=4), *cases("Sync", times=4)]
    assert class_of(found, "Import").standing is JobStanding.SUSPECT
    mail = class_of(found, "Mail")
    assert mail.standing is JobStanding.BYSTANDER
    assert "beside Import at 4 of these; p = 1 without them" in mail.reasons


def test_the_suspects_that_explain_company_are_named_in_the_order_of_their_names() -> None:
    """Not in that of their deaths, nor of a set, which differs from one start of Python to the next."""
    killings = [case(f"{name}#{number}", blame=CODE) for name in ("Zip", "Import") for number in range(3)]
    found = [*killings, *cases("Zip", "Mail", times=2), *cases("Import", "Mail", times=2), *cases("Sync", times=4)]
    assert any(reason.startswith("beside Import or Zip at 4 of these") for reason in class_of(found, "Mail").reasons)


def test_but_not_if_it_dies_without_the_suspect_too() -> None:
    found = [*cases("Import", "Mail", times=4), *cases("Import", times=4), *cases("Mail", times=4), *cases("Sync")]
    assert class_of(found, "Import").standing is class_of(found, "Mail").standing is JobStanding.SUSPECT


TOGETHER = [case("Import", "Mail", key=f"d{number}") for number in range(3, 10)]


@pytest.mark.parametrize(
    "looks", [USUAL, Exposure(1000, {"Import": 12, "Mail": 10, "Sync": 300}), Exposure(1000, {"Sync": 300})]
)
def test_of_two_classes_at_the_same_deaths_nobody_is_picked(looks: Exposure) -> None:
    """Not even by how often they run: a few samples more would pick the other."""
    first, second, *_ = rank([*TOGETHER, *cases("Sync", times=3)], looks).classes
    assert {first.name, second.name} == {"Import", "Mail"}
    assert first.standing is second.standing is JobStanding.TIED
    assert (
        first.reasons[1]
        == second.reasons[1]
        == first.tied
        == "cannot be told apart: Import or Mail; jq bisect d9 finds the killer"
    )


def test_jobs_of_classes_that_cannot_be_told_apart_are_tied_too() -> None:
    found = [*TOGETHER, case("Import#1"), case("Mail#2", "Sync#3")]
    assert [job_of(found, name).standing for name in "123"] == [
        JobStanding.TIED,
        JobStanding.TIED,
        JobStanding.BYSTANDER,
    ]


def test_one_death_more_than_its_company_is_not_enough_to_be_picked() -> None:
    common = Exposure(1000, {"Import": 100, "Mail": 100, "Sync": 300})
    found = [*TOGETHER, case("Import"), *cases("Sync", times=3)]
    assert class_of(found, "Import", common).standing is class_of(found, "Mail", common).standing is JobStanding.TIED
    found += cases("Import", times=2)
    assert class_of(found, "Import", common).standing is JobStanding.SUSPECT
    assert class_of(found, "Mail", common).standing is JobStanding.BYSTANDER


def test_a_job_that_the_stack_names_was_not_alone() -> None:
    found = [replace(case(name, blame=CODE), named=True) for name in ("Import#1", "Import#2")]
    imports, first = class_of(found, "Import"), job_of(found, "1")
    assert (imports.standing, imports.alone, first.alone) == (JobStanding.SUSPECT, 0, 0)
    assert "2 of its jobs were alone, or named by the stack, when their process crashed or exited" in imports.reasons
    assert "named by the stack of the thread that crashed at 1 death" in first.reasons
    assert not any("alone at" in reason for reason in (*imports.reasons, *first.reasons))


@pytest.mark.parametrize("looks", [None, USUAL, Exposure(1, {"Import": 1})])
def test_two_jobs_of_a_class_that_were_alone_at_a_crash_make_it_a_suspect(looks: Exposure | None) -> None:
    """Nothing else was there, so nothing need be compared."""
    found = [case("Import#1", blame=CODE), case("Import#2", blame=CODE), case("Import", "Mail")]
    imports = class_of(found, "Import", looks)
    assert imports.standing is JobStanding.SUSPECT
    assert "2 of its jobs were alone when their process crashed or exited" in imports.reasons
    assert class_of(found, "Mail", looks).standing is not JobStanding.SUSPECT


@pytest.mark.parametrize(
    "found",
    [
        [case("Import#1", blame=CODE), case("Import#1", blame=CODE)],  # it is this job
        [case("Import#1", blame=CODE), case("Import#2", "Sync", blame=CODE)],
        [case("Import#1", blame=MEMORY), case("Import#2", blame=MEMORY)],  # other jobs may have filled it
        [case("Import#1"), case("Import#2")],
    ],
)
def test_less_does_not_prove_a_class(found: list[DeathCase]) -> None:
    assert class_of(found, "Import", None).standing is JobStanding.UNDECIDED


def test_deaths_that_another_explains_do_not_make_the_rest_a_class_s_own() -> None:
    found = [*cases("Import", times=6), *cases("Sync", times=4)]
    assert class_of(found, "Import").standing is JobStanding.SUSPECT
    assert class_of(found, "Sync").standing is JobStanding.BYSTANDER  # though it is at all four that are left


def test_a_common_class_that_dies_alone_too_is_a_suspect_beside_a_rarer_one() -> None:
    exposure = Exposure(1000, {"Import": 1, "Mail": 150})
    found = [*cases("Import", "Mail", times=4), *cases("Mail", times=6), *cases("Sync", times=2)]
    first, second = rank(found, exposure).classes[:2]
    assert (first.name, second.name) == ("Import", "Mail")
    assert first.standing is second.standing is JobStanding.SUSPECT


def test_one_job_that_comes_back_again_and_again_is_named() -> None:
    found = [*cases("Import#poison", times=4), *cases("Import")]
    assert "at 4 of these with one and the same job, poison" in class_of(found, "Import").reasons
    assert not [each for each in class_of(cases("Import", times=4), "Import").reasons if "one and the same" in each]


# -- what usually runs ------------------------------------------------------------------------------------------------


def test_deaths_with_a_cause_outside_charge_nobody() -> None:
    ranking = rank(cases("Import#1", times=9, blame=OUTSIDE), USUAL)
    for found in (*ranking.jobs, *ranking.classes):
        assert (found.standing, found.score, found.deaths, found.alone) == (JobStanding.BYSTANDER, 0, 0, 0)
        assert found.reasons == ("in flight only at deaths with a cause outside",)
    assert class_of([*cases("Import", times=3), *cases("Import", times=9, blame=OUTSIDE)], "Import").deaths == 3


@pytest.mark.parametrize("unknown", [None, Exposure(0, {})])
def test_deaths_with_a_cause_outside_stand_in_for_looks(unknown: Exposure | None) -> None:
    died = [*cases("Import", times=4), *cases("Sync")]
    rare, common = cases("Sync", times=40, blame=OUTSIDE), cases("Import", times=40, blame=OUTSIDE)
    found = class_of([*died, *rare], "Import", unknown)
    assert found.standing is JobStanding.SUSPECT
    assert "in 0 of 40 processes that were ended from outside" in found.reasons[0]
    assert class_of([*died, *common], "Import", unknown).standing is not JobStanding.SUSPECT
    assert class_of([*died, *common], "Import").standing is JobStanding.SUSPECT  # looks are better where there are any


def test_counts_that_cannot_be_do_no_harm() -> None:
    found = class_of(cases("Sync", times=3), "Sync", Exposure(10, {"Sync": 20}))
    assert (found.standing, found.score) == (JobStanding.UNDECIDED, 0)


def test_with_nothing_to_compare_with_no_class_is_suspected() -> None:
    found = class_of(cases("Import", times=50), "Import", None)
    assert (found.standing, found.score) == (JobStanding.UNDECIDED, 0)
    assert found.reasons[0] == "in flight at 50 of 50 deaths, and how often it runs when nobody dies is unknown"
    assert [each.name for each in rank([*cases("A"), *cases("B", "C", times=2)], None).classes] == ["B", "C", "A"]


# -- jobs -------------------------------------------------------------------------------------------------------------

KILLINGS = cases("Import", times=5)  # they make Import a suspect
TWICE = cases("Sync#1", "Import#2", times=2, blame=CODE)  # as after a bisect, which then runs Import#2 alone


@pytest.mark.parametrize(
    ("found", "expected", "reason"),
    [
        ([case("Sync#1", "Sync"), case("Sync#1", "Sync")], JobStanding.SUSPECT, "in flight at 2 deaths"),
        ([case("Sync#1", key="a"), case("Sync#1", key="a")], JobStanding.UNDECIDED, "in flight at 1 death"),
        ([case("Sync#1", "Sync"), case("Sync#1", blame=OUTSIDE)], JobStanding.BYSTANDER, "in flight at 1 death"),
        ([case("Sync#1", "Sync")], JobStanding.BYSTANDER, "in flight at 1 death"),
        ([case("Sync#1")], JobStanding.UNDECIDED, "alone at 1 death"),
        ([case("Sync#1", blame=CODE)], JobStanding.SUSPECT, "a crash, an exit or no memory left at 1 death"),
        ([case("Sync#1", blame=MEMORY)], JobStanding.SUSPECT, "a crash, an exit or no memory left at 1 death"),
        (
            [case("Sync#1", "Sync", key="d7", blame=CODE)],
            JobStanding.TIED,
            "one of 2 jobs that cannot be told apart; jq bisect d7 finds the killer",
        ),
        ([*KILLINGS, case("Import#1")], JobStanding.SUSPECT, "Import is a suspect"),
        ([*KILLINGS, case("Import#1", "Sync")], JobStanding.SUSPECT, "Import is a suspect"),
        ([*KILLINGS, case("Import", "Sync#1")], JobStanding.BYSTANDER, "a suspect was in flight beside it"),
        ([*KILLINGS, case("Import", "Sync#1", blame=CODE)], JobStanding.BYSTANDER, "a suspect was in flight beside it"),
        (
            [case("Sync#2", "Sync"), case("Sync#2", "Sync#1", blame=CODE)],
            JobStanding.BYSTANDER,
            "a suspect was in flight beside it",
        ),
        ([*TWICE, case("Import#2", blame=CODE)], JobStanding.BYSTANDER, "a suspect was in flight beside it"),
        ([*TWICE, case("Import#2", blame=MEMORY)], JobStanding.SUSPECT, "in flight at 2 deaths"),
        ([*TWICE, case("Import#2")], JobStanding.SUSPECT, "in flight at 2 deaths"),
        ([*TWICE, case("Import#3", blame=CODE)], JobStanding.SUSPECT, "in flight at 2 deaths"),
        (
            [*cases("Sync#1", "Sync#2", times=2, blame=CODE), case("Sync#2", blame=CODE)],
            JobStanding.SUSPECT,  # jobs of one class may kill alike
            "in flight at 2 deaths",
        ),
        (
            [*TWICE, case("Import#2", blame=CODE), *cases("Sync#1", "Mail", times=2)],
            JobStanding.SUSPECT,  # of the deaths that nothing explains
            "in flight at 4 deaths",
        ),
    ],
)
def test_what_is_made_of_a_job(found: list[DeathCase], expected: JobStanding, reason: str) -> None:
    score = job_of(found, "1")
    assert score.standing is expected
    assert reason in score.reasons


def test_a_job_says_by_how_much_its_process_had_grown() -> None:
    grown = DeathCase("a", blame=UNKNOWN, jobs=(job("Sync#1", 900_000_000), job("Sync#2", -5), job("Sync#3")))
    assert "the process had grown by 900 MB since it started" in job_of([grown], "1").reasons
    assert not [each for name in "23" for each in job_of([grown], name).reasons if "grown" in each]


def test_one_death_told_in_two_cases_is_one_death() -> None:
    found = [case("Sync#1", key="a"), case("Sync#2", key="a"), case("Sync#1", key="a", blame=CODE)]
    score = job_of(found, "1")
    assert (score.deaths, score.alone) == (1, 0)
    assert "a crash, an exit or no memory left at 1 death" in score.reasons
    outside = case(key="a", blame=OUTSIDE)
    assert job_of([*found, outside], "1").deaths == job_of([outside, *found], "1").deaths == 0


# -- scores -----------------------------------------------------------------------------------------------------------


def test_the_score_of_a_class_grows_with_deaths_and_shrinks_with_looks() -> None:
    by_deaths = [class_of([*cases("A", times=n), *cases("B", times=10 - n)], "A").score for n in range(1, 10)]
    assert by_deaths == sorted(set(by_deaths))
    by_looks = [class_of(cases("A", times=3), "A", Exposure(100, {"A": n})).score for n in range(90, -1, -10)]
    assert by_looks == sorted(set(by_looks))


def test_the_score_of_a_job_grows_with_each_kind_of_evidence() -> None:
    grown = DeathCase("a", blame=UNKNOWN, jobs=(job("Sync#1", 10**9), job("Sync")))
    rising = [
        [case("Sync#1", blame=OUTSIDE)],
        [*KILLINGS, case("Sync#1", "Import")],
        [case("Sync#1", "Sync", "Sync")],
        [case("Sync#1", "Sync")],
        [grown],
        [case("Sync#1")],
        [case("Sync#1", blame=CODE)],
        [case("Sync#1", blame=CODE), case("Sync#1", "Sync")],
    ]
    scores = [job_of(found, "1").score for found in rising]
    assert scores == sorted(set(scores))


def test_suspects_come_first_then_the_higher_score() -> None:
    ranking = rank([*KILLINGS, case("Rare", blame=CODE), case("Rare", blame=CODE), *cases("Sync", times=3)], USUAL)
    for scores in (ranking.jobs, ranking.classes):
        places = [(each.standing is not JobStanding.SUSPECT, -each.score) for each in scores]
        assert places == sorted(places)
    assert [each.name for each in ranking.classes] == ["Import", "Rare", "Sync"]


def test_a_high_score_of_too_few_deaths_comes_after_the_suspects() -> None:
    found = [*cases("Sync", times=9), *cases("Rare", times=2), *cases("Other")]
    sync, rare = rank(found, Exposure(10**6, {"Sync": 300_000})).classes[:2]
    assert (sync.name, sync.standing, rare.name) == ("Sync", JobStanding.SUSPECT, "Rare")
    assert rare.score > sync.score


def test_no_deaths_no_suspects() -> None:
    assert rank([], None) == rank([], USUAL) == suspects.Ranking((), ())
    assert rank([case()], USUAL) == suspects.Ranking((), ())


@pytest.mark.parametrize("table", [(3, 5, 10, 100), (0, 5, 10, 100), (5, 5, 0, 1), (4, 9, 30, 40), (1, 1, 7, 7)])
def test_fisher_is_exact(table: tuple[int, int, int, int]) -> None:
    deaths_with, deaths, looks_with, looks = table
    marked = deaths_with + looks_with
    ways = sum(
        comb(marked, count) * comb(deaths + looks - marked, deaths - count)
        for count in range(deaths_with, min(marked, deaths) + 1)
    )
    assert fisher(*table) == pytest.approx(ways / comb(deaths + looks, deaths))


def test_probabilities_too_small_for_a_float_still_score() -> None:
    assert class_of(cases("A", times=400), "A", Exposure(2_000_000, {})).score == 300


# -- whole fleets -----------------------------------------------------------------------------------------------------


def test_a_killer_is_found_and_without_one_nobody_is_accused() -> None:
    of = figures()
    assert (of.found >= 95, of.clean >= 95, of.twins >= 95, of.swapped) == (True, True, True, 0), of
    assert of.outnumbered >= 70, "too easy: the killer should cause fewer deaths than what else is unexplained"
