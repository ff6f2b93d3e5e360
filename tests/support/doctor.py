"""The doctor's checks, and their fixes, in the test's own process."""

from typing import Any

from solidjq import Database
from solidjq.doctor import examine as doctor
from solidjq.doctor.checks import DoctorFinding, DoctorTerms
from solidjq.ledger.operations import Operation


def findings(database: Database, *names: str, **terms: Any) -> list[DoctorFinding]:
    """Make these checks; none may be skipped."""
    results = doctor.examine(database, doctor.choose(names), DoctorTerms(**terms), wait=lambda _: None)
    assert not [result for result in results if result.skipped]
    return [finding for result in results for finding in result.findings]


def fix(database: Database, *names: str) -> Operation:
    """Fix these; nothing may be left of them, and no other job may have changed its state."""
    checks = doctor.choose(names)
    results = doctor.examine(database, checks, DoctorTerms(), wait=lambda _: None)
    assert all(result.findings for result in results)
    operation = Operation("doctor", reason="INC-7")
    assert not [line for line in doctor.fix(database, results, DoctorTerms(), operation) if "not fixed" in line]
    assert not list(findings(database, *names))
    return operation
