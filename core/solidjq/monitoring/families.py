"""What a metric is: a family of samples with one name, and labels whose number is bounded."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

OTHER = "other"  # the label of all values beyond the bound

Labels = tuple[tuple[str, str], ...]


@dataclass(slots=True)
class Family:
    """One metric. ``unit`` ends its name, as OpenMetrics wants it; a ``counter`` has the suffix ``_total`` besides."""

    name: str
    help: str
    counter: bool = False
    unit: str = ""
    samples: dict[Labels, float] = field(default_factory=dict)

    def add(self, value: float, **labels: str) -> None:
        """Add a value to the sample with these labels: several values beyond a bound make one sample."""
        key = tuple(labels.items())
        self.samples[key] = self.samples.get(key, 0) + value

    def keep_highest(self, value: float, **labels: str) -> None:
        """Keep the highest value of the sample with these labels."""
        key = tuple(labels.items())
        self.samples[key] = max(self.samples.get(key, value), value)


def bounded(weights: Mapping[str, float], most: int) -> Mapping[str, str]:
    """Return the label of each name: its own for the ``most`` heaviest, ``OTHER`` for the rest."""
    kept = sorted(weights, key=lambda name: (-weights[name], name))[:most]
    return dict(zip(kept, kept, strict=True))


def label_of(labels: Mapping[str, str], name: str) -> str:
    """Return the label of a name by what ``bounded`` returned."""
    return labels.get(name, OTHER)


def named(families: Iterable[Family], name: str) -> Family:
    """Return the family of this name."""
    return next(family for family in families if family.name == name)
