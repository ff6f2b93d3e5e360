"""Which jobs and job classes may have killed their process: a ranking from deaths and from what usually runs. Pure."""

from collections.abc import Iterable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field

from solidjq.incidents.class_scores import ClassScore, score_classes
from solidjq.incidents.death_cases import DeathCase, Exposure, JobStanding, merge_cases
from solidjq.incidents.job_scores import JobScore, score_jobs


@dataclass(frozen=True, slots=True)
class Suspicion:
    """What a retry needs to decide whether a failed job is a suspect. Deaths are named by key.

    A death's key is its ``jq_deaths.id``, or the text of its jobs' error if only failures recorded it.
    """

    outside: AbstractSet[int | str] = frozenset()  # deaths that charge nobody
    ahead: AbstractSet[int | str] = frozenset()  # deaths that charge only jobs that had begun
    alone: AbstractSet[int | str] = frozenset()  # deaths at which one job only was in flight
    classes: Mapping[str, str] = field(default_factory=dict)  # the suspect classes, and the first reason of each


NO_SUSPICION = Suspicion()


@dataclass(frozen=True, slots=True)
class Ranking:
    """Every job and class that was in flight at a death, suspects first, then by score."""

    jobs: tuple[JobScore, ...]
    classes: tuple[ClassScore, ...]


def rank(cases: Iterable[DeathCase], exposure: Exposure | None) -> Ranking:
    """Score the jobs and classes in flight at these deaths. Without ``exposure``, deaths from outside are the controls.

    A class scores -log10(p). p is the one-sided p-value of Fisher's exact test: the chance that the class is in flight
    at so many deaths, if it is in flight at deaths as often as in the controls. It is taken at all deaths, and at those
    that no better suspect explains; the larger counts. Without controls it is 1. A class is a suspect if p times the
    number of classes tested is at most ``class_scores.FALSE_ALARMS``.

    A job scores 1 for each death, and its share of the blame: 1 / the number of accused, twice that if the death was
    fatal. The accused are the jobs of suspect classes; if there are none, those in flight at several deaths; if none,
    all. Two more terms x / (2 + 2x) add less than 1/2 each: x is its class's score, and the GB that its process grew.
    """
    merged = merge_cases(cases)
    classes = tuple(sorted(score_classes(merged, exposure), key=_class_order))
    jobs = tuple(sorted(score_jobs(merged, classes), key=_job_order))
    return Ranking(jobs, classes)


def _class_order(score: ClassScore) -> tuple[bool, float, int, int, str]:
    return score.standing is not JobStanding.SUSPECT, -score.score, -score.deaths, -score.alone, score.name


def _job_order(score: JobScore) -> tuple[bool, float, str]:
    return score.standing is not JobStanding.SUSPECT, -score.score, score.name
