"""A group of failures with its counts, and groups that are folded into one."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime

from solidjq.diff.signatures import Signature


@dataclass(slots=True)
class FailureGroup:
    """Failures of one signature."""

    signature: Signature
    count: int = 0
    classes: Counter[str] = field(default_factory=Counter)
    queues: Counter[str] = field(default_factory=Counter)
    first_at: datetime | None = None
    last_at: datetime | None = None
    example: int = 0  # the id of the newest job
    messages: int = 1  # how many there are that differ in one word
    causes: Counter[str] = field(default_factory=Counter)  # of a group of deaths: the jobs in flight, by cause in words
    hosts: Counter[str] = field(default_factory=Counter)  # of a group of deaths: the jobs in flight, by host

    @property
    def name(self) -> str:
        """The name that operators use, such as ``g1a2b3c``."""
        return self.signature.name

    def add(
        self,
        class_name: str,
        queue_name: str,
        failures: int,
        first_at: datetime | None,
        last_at: datetime | None,
        job_id: int,
    ) -> None:
        """Add failures of one class and queue. ``job_id``: the newest job of them."""
        self.count += failures
        self.classes[class_name] += failures
        self.queues[queue_name] += failures
        if first_at is not None and (self.first_at is None or first_at < self.first_at):
            self.first_at = first_at
        if last_at is not None and (self.last_at is None or last_at > self.last_at):
            self.last_at = last_at
        self.example = max(self.example, job_id)


def fold(groups: Iterable[FailureGroup], folds: Mapping[Signature, Signature]) -> list[FailureGroup]:
    """Return these groups, those with one signature after folding as one group, the largest first.

    Classes and queues with as many failures come in the order of their names, in whichever order these were read.
    """
    folded: dict[Signature, FailureGroup] = {}
    for group in groups:
        signature = folds.get(group.signature, group.signature)
        before = folded.get(signature)
        folded[signature] = replace(group, signature=signature) if before is None else _merged(before, group)
    for group in folded.values():
        group.classes, group.queues = _by_name(group.classes), _by_name(group.queues)
    return sorted(folded.values(), key=lambda group: (-group.count, -group.example))


def _by_name(counts: Counter[str]) -> Counter[str]:
    return Counter(dict(sorted(counts.items())))


def _merged(one: FailureGroup, other: FailureGroup) -> FailureGroup:
    return FailureGroup(
        one.signature,
        one.count + other.count,
        one.classes + other.classes,
        one.queues + other.queues,
        min(_known(one.first_at, other.first_at), default=None),
        max(_known(one.last_at, other.last_at), default=None),
        max(one.example, other.example),
        one.messages + other.messages,
        one.causes + other.causes,
        one.hosts + other.hosts,
    )


def _known(*times: datetime | None) -> list[datetime]:
    return [time for time in times if time is not None]
