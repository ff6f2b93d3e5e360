"""Which jobs and job classes may have killed their process: a ranking from deaths and from what usually runs. Pure."""

from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field

from solidjq.incidents.class_scores import ClassScore, score_classes
from solidjq.incidents.death_cases import DeathCase, Exposure, JobStanding, Proven, merge_cases
from solidjq.incidents.death_records import DeathRecord
from solidjq.incidents.job_scores import JobRanking, JobScore
from solidjq.incidents.packed_cases import PackedCases
from solidjq.ledger.crashes import Crash


@dataclass(frozen=True, slots=True)
class Suspicion:
    """What a retry needs to decide whether a failed job is held back as a suspect. Deaths are named by key.

    A death's key is its ``jq_deaths.id``, or the text of its jobs' error if only failures recorded it.
    """

    outside: AbstractSet[int | str] = frozenset()  # deaths that charge nobody
    partial: Mapping[int | str, DeathRecord] = field(default_factory=dict)  # deaths that charge some of their jobs only
    classes: Mapping[str, str] = field(default_factory=dict)  # classes that are held, each with the reason
    jobs: Mapping[str, str | None] = field(default_factory=dict)  # by subject, see ``held``: those known by name
    failures: AbstractSet[int] = frozenset()  # that these jobs left at deaths from inside
    inside: Mapping[int | str, int] = field(default_factory=dict)  # deaths from inside: their places in ``ranking``
    ranking: JobRanking | None = None  # of the jobs in flight at them
    proven: Mapping[int | str, Proven] = field(default_factory=dict)  # deaths that a proven killer explains

    def charges(self, crash: Crash) -> bool:
        """Whether a crash charges its job: not at a death from outside, nor if it cannot have been this job."""
        if crash.key in self.outside:
            return False
        death = self.partial.get(crash.key)
        return death is None or death.charges(crash.job_id, crash.started_at)

    def held(self, subject: str, class_name: str, crashes: Iterable[Crash]) -> str | None:
        """Return why a job is held that was in flight at a death from inside; None if it is not.

        A job that was in flight at other deaths, too, is known by name. Any other is as all of its class at its death.
        """
        if subject in self.jobs:
            return self.jobs[subject]
        for crash in crashes:
            place = self.inside.get(crash.key)
            if place is None or self.ranking is None or not self.charges(crash):
                continue
            # Its class may have been renamed since, in the code and in the jobs that wait.
            death = self.partial.get(crash.key)
            accused = None if death is None else death.faulting
            name_then = accused[1] if accused is not None else crash.class_name or class_name
            score = self.ranking.of_crowd(place, name_then)
            if score is not None and score.standing.held_back:
                return reason_of(score)
        return None

    def clears(self, crash: Crash, subject: str, class_name: str) -> bool:
        """Whether a proven killer, which was in flight beside the job, explains this crash of it."""
        return crash.key in self.proven and self.proven[crash.key].clears(subject, class_name)


NO_SUSPICION = Suspicion()


def reason_of(score: ClassScore | JobScore) -> str:
    """Return, in one sentence, why a safe retry holds such jobs."""
    return next((reason for reason in score.reasons if JobStanding.TIED in reason), "; ".join(score.reasons[:2]))


@dataclass(frozen=True, slots=True)
class Ranking:
    """Every job and class that was in flight at a death, suspects first, then by score."""

    jobs: JobRanking
    classes: tuple[ClassScore, ...]


def rank(cases: Iterable[DeathCase], exposure: Exposure | None) -> Ranking:
    """Score the jobs and classes in flight at these deaths. Without ``exposure``, deaths from outside are the controls.

    A class scores -log10(p). p is the one-sided p-value of Fisher's exact test: the chance that the class is in flight
    at so many deaths, if it is in flight at deaths as often as in the controls. It is taken at all deaths, and at those
    that no better suspect explains; the larger counts. Without controls it is 1. A class is a suspect if p times the
    number of classes tested is at most ``class_scores.FALSE_ALARMS``, or if several of its jobs were alone at a crash
    or an exit. Of classes that explain the same deaths about as well nobody is picked: they are tied.

    A job scores 1 for each death, and its share of the blame: 1 / the number of accused, twice that if the death came
    from inside. The accused are the jobs of suspect classes; if there are none, those of tied ones; if none, those in
    flight at several deaths; if none, all. Two more terms x / (2 + 2x) add less than 1/2 each: x is its class's score,
    and the GB that its process grew. A job is a suspect at two deaths, if its class is one, or if it alone is accused
    of a death from inside; several that are accused of one are tied. Deaths that a proven killer of another class
    explains, see ``find_proven``, make no job a suspect by their number.
    """
    return rank_packed(PackedCases(merge_cases(cases)), exposure)


def rank_packed(
    cases: PackedCases, exposure: Exposure | None, ids_of: Mapping[str, Sequence[int]] | None = None
) -> Ranking:
    """Rank as ``rank`` does; ``ids_of``: the ids of jobs that are known by name."""
    classes = tuple(sorted(score_classes(cases, exposure), key=_class_order))
    return Ranking(JobRanking(cases, classes, ids_of), classes)


def _class_order(score: ClassScore) -> tuple[int, float, int, int, str]:
    return score.standing.rank, -score.score, -score.deaths, -score.alone, score.name
