"""Metrics as text: OpenMetrics 1.0, or the older text format of Prometheus, which node_exporter reads from files.

They differ in little: in OpenMetrics a counter's name stands without ``_total`` in the lines that describe it, a unit
is declared, and ``# EOF`` ends the text, so that half a text is noticed.
"""

import math
from collections.abc import Iterable, Iterator
from enum import StrEnum

from solidjq.monitoring.families import Family, Labels

TYPES = {
    "openmetrics": "application/openmetrics-text; version=1.0.0; charset=utf-8",
    "prometheus": "text/plain; version=0.0.4; charset=utf-8",
}


class MetricsFormat(StrEnum):
    """The formats that Prometheus reads."""

    OPENMETRICS = "openmetrics"
    PROMETHEUS = "prometheus"


def write(families: Iterable[Family], form: MetricsFormat = MetricsFormat.OPENMETRICS) -> str:
    """Return the text; families without a sample are left out."""
    lines = [line for family in families if family.samples for line in _lines(family, form)]
    if form is MetricsFormat.OPENMETRICS:
        lines.append("# EOF")
    return "".join(f"{line}\n" for line in lines)


def _lines(family: Family, form: MetricsFormat) -> Iterator[str]:
    sample = f"{family.name}_total" if family.counter else family.name
    name = family.name if form is MetricsFormat.OPENMETRICS else sample
    yield f"# HELP {name} {_escape(family.help, quotes=form is MetricsFormat.OPENMETRICS)}"
    yield f"# TYPE {name} {'counter' if family.counter else 'gauge'}"
    if family.unit and form is MetricsFormat.OPENMETRICS:
        yield f"# UNIT {name} {family.unit}"
    for labels, value in sorted(family.samples.items()):
        yield f"{sample}{_labels(labels)} {_number(value)}"


def _labels(labels: Labels) -> str:
    return "{" + ",".join(f'{name}="{_escape(value, quotes=True)}"' for name, value in labels) + "}" if labels else ""


def _escape(text: str, *, quotes: bool) -> str:
    """Escape what ends a label or a line; replace control characters and lone surrogates, which no reader wants."""
    clean = "".join(char if char.isprintable() or char == "\n" else "\ufffd" for char in text)
    escaped = clean.replace("\\", "\\\\").replace("\n", "\\n")
    return escaped.replace('"', '\\"') if quotes else escaped


def _number(value: float) -> str:
    if not math.isfinite(value):
        return "NaN" if math.isnan(value) else "+Inf" if value > 0 else "-Inf"
    return str(int(value)) if value == int(value) else repr(round(value, 6))
