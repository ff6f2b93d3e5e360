"""Columns of suspects, and of the trials of a bisect."""

from __future__ import annotations

import math
from itertools import groupby
from typing import TYPE_CHECKING, NamedTuple, cast

from solidjq_cli.columns.column import Column, Fields

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from solidjq import Database
    from solidjq.incidents.class_scores import ClassScore
    from solidjq.incidents.death_cases import JobStanding
    from solidjq.incidents.job_scores import JobScore
    from solidjq.incidents.suspects import Ranking
    from solidjq.recovery.bisect import TrialStanding


class Suspect(NamedTuple):
    """A class with its score, or a job, or several jobs with one score."""

    kind: str
    score: JobScore | ClassScore

    @property
    def size(self) -> int:
        """How many classes or jobs it stands for."""
        return int(getattr(self.score, "count", 1))

    @property
    def job_ids(self) -> list[int]:
        """The jobs of the subject; none of a class."""
        return list(getattr(self.score, "job_ids", ()))

    @property
    def lowest(self) -> float:
        """The lowest id of its jobs; infinite of a class."""
        crowd = getattr(self.score, "crowd", None)
        return min(self.job_ids, default=math.inf) if crowd is None else crowd.lowest


def suspects_of(ranking: Ranking, *standings: JobStanding) -> Iterator[Suspect]:
    """Yield the classes with these standings, then the jobs."""
    yield from (Suspect("class", score) for score in ranking.classes if score.standing in standings)
    yield from (Suspect("job", score) for score in ranking.jobs.standing(*standings))


def suspects_apart(database: Database, suspects: Iterable[Suspect]) -> Iterator[Suspect]:
    """Yield each of these classes, and each job by itself; jobs with equal scores are read in batches."""
    from solidjq.incidents.charges import each_job

    for kind, of_kind in groupby(suspects, key=lambda suspect: suspect.kind):
        if kind == "class":
            yield from of_kind
        else:
            scores = each_job(database, (cast("JobScore", suspect.score) for suspect in of_kind))
            yield from (Suspect(kind, score) for score in scores)


def _stuck_at(suspect: Suspect) -> dict[str, object] | None:
    position = getattr(suspect.score, "position", None)
    return None if position is None else position.to_record()


def suspect_fields() -> Fields[Suspect]:
    """Fields of a suspect."""
    return Fields(
        (
            Column("standing", lambda s: s.score.standing.value, "STANDING"),
            Column("kind", lambda s: s.kind, "KIND"),
            Column("name", lambda s: s.score.name, "NAME", wide=True),
            Column("class_name", lambda s: getattr(s.score, "class_name", s.score.name)),
            Column("deaths", lambda s: s.score.deaths, "DEATHS"),
            Column("alone", lambda s: s.score.alone, "ALONE"),
            Column("score", lambda s: round(s.score.score, 2), "SCORE"),
            Column("reasons", lambda s: s.score.reasons, "WHY", wide=True),
            Column("job_ids", lambda s: s.job_ids),
            Column("position", _stuck_at),
        ),
        lambda s: s.job_ids,
    )


def trial_fields() -> Fields[TrialStanding]:
    """Fields of a bisect's progress."""
    return Fields(
        (
            Column("stage", lambda b: b.stage.value, "STAGE"),
            Column("suspects", lambda b: list(b.suspects), "SUSPECTS", wide=True),
            Column("deaths", lambda b: b.deaths, "DEATHS"),
            Column("on_trial", lambda b: list(b.on_trial)),
            Column("waiting", lambda b: list(b.waiting)),
            Column("died", lambda b: list(b.died)),
            Column("operation_id", lambda b: b.operation_id, "OPERATION"),
            Column("untried", lambda b: list(b.untried)),
        ),
        lambda b: list(b.suspects),
    )
