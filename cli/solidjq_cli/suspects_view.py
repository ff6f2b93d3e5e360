"""The suspects on a terminal: each class with its jobs, then jobs that are suspected for themselves, and why."""

from __future__ import annotations

from heapq import nsmallest
from itertools import chain, islice
from typing import TYPE_CHECKING

from solidjq_cli import flow
from solidjq_cli.arguments import by_own_name
from solidjq_cli.columns.suspects import suspects_apart, suspects_of
from solidjq_cli.render import heading, next_commands, paragraph

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from solidjq import Database
    from solidjq.incidents.death_cases import JobStanding
    from solidjq.incidents.suspects import Ranking
    from solidjq_cli.columns.suspects import Suspect

INDENT = "      "
MOST_DEATHS = 4  # incidents that are named in a line
MOST_JOBS = 12  # of a class


def draw(
    database: Database,
    ranking: Ranking,
    incident_of: Mapping[str, str],
    *,
    since: str,
    everybody: bool,
) -> None:
    """Print the suspects. ``incident_of``: by the name of a death. ``everybody``: bystanders are named too.

    Of jobs with equal scores, only those that are named are read from the database.
    """
    from solidjq.incidents.death_cases import JobStanding
    from solidjq.text import count_of

    classes: dict[str, tuple[Suspect, _Members]] = {}
    apart: list[Suspect] = []  # jobs of other classes
    tie: Suspect | None = None
    stuck: int | None = None
    for each in suspects_of(ranking, *(standing for standing in JobStanding if standing.held_back)):
        if each.kind == "class":
            classes[each.score.name] = each, _Members()
        elif (of_class := classes.get(_class_of(each))) is not None:
            of_class[1].add(each)
        else:
            apart.append(each)
        if tie is None and each.score.standing is JobStanding.TIED:
            tie = each
        stuck = stuck or _stuck(each)
    undecided = _count(ranking, JobStanding.UNDECIDED)
    heading(_headline(ranking, since=since, everybody=everybody))
    for each, members in classes.values():
        _print_class(database, each, members, incident_of)
    for alike in _alike(apart):
        _print(database, alike, incident_of)
    if undecided and not everybody:
        first = islice(suspects_apart(database, suspects_of(ranking, JobStanding.UNDECIDED)), MOST_JOBS)
        few = ", ".join(f"{_short(each)} ({count_of(each.score.deaths, 'death')})" for each in first)
        paragraph(f"{few}{flow.more(undecided - MOST_JOBS)}", "too few to tell  ")
    others = (suspects_of(ranking, standing) for standing in (JobStanding.UNDECIDED, JobStanding.BYSTANDER))
    for alike in _alike(chain.from_iterable(others)) if everybody else ():
        _print(database, alike, incident_of)
    next_commands(*_next(tie, stuck, incident_of, held=bool(classes or apart)))


class _Members:
    """The jobs of a class that are held back: how many they are, and those with the lowest ids."""

    def __init__(self) -> None:
        self.count = 0
        self._few: list[Suspect] = []

    def add(self, job: Suspect) -> None:
        self.count += len(job.job_ids) or job.size
        self._few.append(job)
        if len(self._few) > 10 * MOST_JOBS:
            self._few = self.lowest

    @property
    def lowest(self) -> list[Suspect]:
        return nsmallest(MOST_JOBS, self._few, key=lambda job: job.lowest)


def _headline(ranking: Ranking, *, since: str, everybody: bool) -> str:
    from solidjq.incidents.death_cases import JobStanding
    from solidjq.text import count_of, its

    held = [standing for standing in JobStanding if standing.held_back]
    classes = sum(score.standing in held for score in ranking.classes)
    jobs = ranking.jobs.count(*held)
    undecided, bystanders = (_count(ranking, one) for one in (JobStanding.UNDECIDED, JobStanding.BYSTANDER))
    parts = [count_of(count, noun) for count, noun in ((classes, "class"), (jobs, "job")) if count]
    others = [f"{undecided} cannot be judged yet"] if undecided else []
    if bystanders:
        others.append(f"{count_of(bystanders, 'bystander')}{'' if everybody else ' (--all)'}")
    rest = f"; {', '.join(others)}" if others else ""
    if not parts:
        return f"nobody is suspected of a death since {since}{rest}"
    return f"{' and '.join(parts)} may have killed {its(classes + jobs)} process{rest}"


def _print_class(database: Database, suspect: Suspect, members: _Members, incident_of: Mapping[str, str]) -> None:
    _print(database, [suspect], incident_of)
    # The lowest ids are among the crowds with the lowest ones: no others are read.
    ids = [job_id for job in suspects_apart(database, members.lowest) for job_id in job.job_ids]
    if ids:
        lowest = ", ".join(map(str, nsmallest(MOST_JOBS, ids)))
        paragraph(f"its jobs {lowest}{flow.more(members.count - MOST_JOBS)}", INDENT)


def _count(ranking: Ranking, standing: JobStanding) -> int:
    """Return how many classes and jobs have this standing."""
    return sum(score.standing is standing for score in ranking.classes) + ranking.jobs.count(standing)


def _alike(suspects: Iterable[Suspect]) -> Iterable[list[Suspect]]:
    """Group suspects with the same standing, reasons and deaths: as a rule, jobs that died together."""
    alike: dict[tuple[object, ...], list[Suspect]] = {}
    for each in suspects:
        alike.setdefault((each.kind, each.score.standing, each.score.reasons, each.score.at), []).append(each)
    return alike.values()


def _print(database: Database, alike: Sequence[Suspect], incident_of: Mapping[str, str]) -> None:
    """Print who they are, then why."""
    score = alike[0].score
    in_order = sorted(alike, key=lambda suspect: suspect.lowest)  # classes keep theirs
    first = islice(suspects_apart(database, in_order), MOST_JOBS)
    who = ", ".join(map(_short, sorted(first, key=lambda suspect: suspect.lowest)))
    size = sum(each.size for each in alike)
    more = flow.more(size - MOST_JOBS)
    label = "class " if alike[0].kind == "class" else "job   "
    style = "error" if score.standing.held_back else "faint"
    paragraph(f"{who}{more}: {score.standing.value}{_deaths(score.at, incident_of)}", label, style=style)
    paragraph(by_own_name("; ".join(score.reasons)), INDENT)


def _deaths(names: Iterable[str], incident_of: Mapping[str, str]) -> str:
    """Return which incidents they are, the latest first: `` (d9, d11 +3)``."""
    of = list(dict.fromkeys(incident_of.get(name, name) for name in reversed(list(names))))
    return f" ({', '.join(of[:MOST_DEATHS])}{flow.more(len(of) - MOST_DEATHS)})" if of else ""


def _short(suspect: Suspect) -> str:
    """Name a class by its name, a job by its id and class: operators know no job by its Active Job id."""
    if suspect.kind == "class":
        return suspect.score.name
    ids = ", ".join(map(str, suspect.job_ids)) or suspect.score.name
    return f"{ids} {_class_of(suspect)}"


def _class_of(suspect: Suspect) -> str:
    return str(getattr(suspect.score, "class_name", suspect.score.name))


def _stuck(suspect: Suspect) -> int | None:
    """Return a job that can go on without the record at which it dies; None if this suspect is no such job."""
    at = getattr(suspect.score, "position", None)
    return suspect.job_ids[0] if at is not None and at.skips and suspect.job_ids else None


def _next(tie: Suspect | None, stuck: int | None, incident_of: Mapping[str, str], *, held: bool) -> Iterator[str]:
    if tie is not None:
        yield f"bisect {incident_of.get(tie.score.at[-1], tie.score.at[-1])}"
    if stuck:
        yield f"retry {stuck} --skip-record"
    if held:
        yield from ("retry --safe --dry-run", "retry --safe --isolate --dry-run")
