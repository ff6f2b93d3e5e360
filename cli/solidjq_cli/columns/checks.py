"""Columns of what jq doctor and jq check found."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from solidjq_cli.arguments import by_own_name
from solidjq_cli.columns.column import Column, Fields

if TYPE_CHECKING:
    from solidjq.doctor.checks import CheckResult, DoctorCheck, DoctorFinding
    from solidjq.monitoring.levels import AlertRange, CheckReport, Measure


class CheckRow(NamedTuple):
    """A check and one of its findings; None if the check found nothing or was skipped."""

    result: CheckResult
    finding: DoctorFinding | None

    @property
    def status(self) -> str:
        """The check's status in one word."""
        if self.finding is not None:
            return self.finding.severity.value
        return "skipped" if self.result.skipped is not None else "healthy"


def _own(text: str | None) -> str | None:
    return None if text is None else by_own_name(text)


def finding_fields() -> Fields[CheckRow]:
    """Fields of a finding of ``jq doctor``, or of a check without findings."""
    return Fields(
        (
            Column("check", lambda e: e.result.check.name, "CHECK"),
            Column("status", lambda e: e.status, "STATUS"),
            Column("finding", lambda e: _own(e.finding.what if e.finding else e.result.skipped), "FINDING"),
            Column("fix", lambda e: _own(e.finding.advice if e.finding else None), "FIX"),
            Column("fixable", lambda e: bool(e.finding and e.result.check.fix)),
            Column("job_ids", lambda e: list(e.finding.job_ids) if e.finding else []),
            Column("asks", lambda e: e.result.check.asks),
            Column("why", lambda e: e.result.check.why),
        ),
        lambda e: list(e.finding.job_ids) if e.finding else [],
    )


def check_fields() -> Fields[DoctorCheck]:
    """Fields of a check that ``jq doctor`` can make."""
    return Fields(
        (
            Column("check", lambda c: c.name, "CHECK"),
            Column("databases", lambda c: list(c.finds), "DATABASES"),
            Column("asks", lambda c: c.asks, "ASKS", wide=True),
            Column("why", lambda c: c.why),
            Column("fix", lambda c: c.advice),
            Column("mends", lambda c: c.fixes or None),
        ),
        lambda _: [],
    )


class MeasureRow(NamedTuple):
    """One value of a check, or a check that measured nothing."""

    report: CheckReport
    measure: Measure | None


def measure_fields() -> Fields[MeasureRow]:
    """Fields of what jq check measured."""
    return Fields(
        (
            Column("check", lambda r: r.report.check, "CHECK"),
            Column("status", lambda r: r.report.level.value if r.measure is None else r.measure.level.value, "STATUS"),
            Column("subject", lambda r: None if r.measure is None else r.measure.label, "SUBJECT", wide=True),
            Column("value", lambda r: None if r.measure is None else r.measure.value, "VALUE"),
            Column("unit", lambda r: None if r.measure is None else r.measure.unit or None, "UNIT"),
            Column("warning", lambda r: _bound(None if r.measure is None else r.measure.warn), "WARNING"),
            Column("critical", lambda r: _bound(None if r.measure is None else r.measure.crit), "CRITICAL"),
            Column("text", lambda r: r.report.summary if r.measure is None else r.measure.text, "TEXT", flows=True),
            Column("summary", lambda r: r.report.text),
        ),
        lambda _: [],
    )


def _bound(bound: AlertRange | None) -> str | None:
    return None if bound is None else bound.text
