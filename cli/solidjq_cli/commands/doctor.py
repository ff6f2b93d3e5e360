"""``jq doctor``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from solidjq_cli import moving, options, session
from solidjq_cli.arguments import by_own_name
from solidjq_cli.columns.checks import CheckRow, check_fields, finding_fields
from solidjq_cli.exits import Exit
from solidjq_cli.render import Output, drawn, heading, next_commands, note, page, paragraph, records
from solidjq_cli.times import duration_option

if TYPE_CHECKING:
    from collections.abc import Sequence

    from solidjq import Database
    from solidjq.doctor.checks import CheckResult, DoctorFinding, DoctorTerms

INDENT = " " * 9
STYLES = {"error": "error", "warning": "warning"}


def add_to(app: typer.Typer) -> None:
    """Add the command."""
    app.command("doctor")(doctor)


def doctor(
    only: Annotated[
        list[str] | None, typer.Argument(metavar="[CHECK]...", help="Make these checks only.", show_default=False)
    ] = None,
    skip: Annotated[
        list[str] | None, typer.Option("--skip", metavar="CHECK", help="Leave this check out; may be repeated.")
    ] = None,
    list_checks: Annotated[
        bool, typer.Option("--list", help="Only list the checks, with what each looks for.")
    ] = False,
    fix: Annotated[bool, typer.Option("--fix", help="Fix what can be fixed safely; asks once.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    reason: options.ReasonOption = None,
    long: Annotated[
        str,
        typer.Option(
            "--long", metavar="DURATION", help="How long a claim, or a wait in a paused queue, may take: 90m, 1d."
        ),
    ] = "1h",
    patience: Annotated[float, options.seconds("--patience", least=0.1, text="How long one check may take.")] = 10,
    alive_threshold: options.AliveThresholdOption = None,
    grace: Annotated[
        str | None,
        typer.Option(
            "--grace",
            metavar="DURATION",
            help="What a deployment gives a process between SIGTERM and SIGKILL, for the check shutdown: 30s.",
        ),
    ] = None,
    modules: options.ImportOption = None,
    output: options.OutputOption = Output.TABLE,
    database: options.DatabaseOption = None,
) -> None:
    """Examine the queue, and name the fix for each finding.

    Damaged jobs, leaked claims and slots, missing processes, indexes, the database's settings.

    Each finding comes with what to do about it. Nothing is changed without --fix, which fixes only what Solid Queue
    itself would, or what lets no job run: jq doctor --list -o json prints what --fix does for each check.

    Exit code 0: healthy (notes do not count); 6: errors or warnings were found, or with --fix are left. A check that
    this user has no right to make, or that takes too long, is skipped, with the reason. --import makes the limits of
    Python jobs known. On a standby, checks that compare times with the clock are skipped: heartbeats there are as old
    as its lag.

    \b
    Examples:
      jq doctor
      jq doctor --list
      jq doctor orphans no-state --fix --reason 'INC-7'
      jq doctor shutdown --grace 30s
      jq doctor --skip durability --long 6h -o json        # for a monitor
    """
    from solidjq.doctor import examine as core
    from solidjq.doctor.checks import DoctorTerms

    if list_checks:
        records(core.choose(only or (), skip or ()), check_fields(), output)
        return
    command = session.current(database)
    application = command.rails_config()
    chosen = core.choose(only or (), skip or (), with_application=application is not None, with_modules=bool(modules))
    terms = DoctorTerms(
        threshold=command.alive_threshold(alive_threshold, acts=fix),
        application=application,
        long=duration_option(long, "--long") or 0.0,
        patience=patience,
        grace=duration_option(grace, "--grace"),
        code=command.rails_code() if core.reads_code(chosen) else None,
        **_registered(modules),
    )
    opened = command.open()
    if fix:
        command.require_changeable("doctor --fix")
    results = core.examine(opened, chosen, terms)
    if fix:
        results = _fix(opened, results, terms, reason, yes=yes)
    _show(results, output)
    if results and all(result.skipped for result in results):
        note("no check could be made")
        raise typer.Exit(Exit.DATABASE)
    if not all(result.healthy for result in results):
        raise typer.Exit(Exit.PARTLY)


def _registered(modules: list[str] | None) -> dict[str, Any]:
    """Import modules; return the terms that follow from their jobs."""
    if not modules:
        return {}
    from solidjq import registry

    registry.import_modules(modules)
    return {"limits": registry.limits(), "registered": registry.names()}


def _fix(
    database: Database, results: list[CheckResult], terms: DoctorTerms, reason: str | None, *, yes: bool
) -> list[CheckResult]:
    """Ask, fix, and repeat the checks whose findings were fixed."""
    from solidjq.doctor import examine as core
    from solidjq.errors import UsageError
    from solidjq.text import count_of
    from solidjq_cli.stopping import Account, accounted

    fixable = [result for result in results if result.findings and result.check.fix]
    if not fixable:
        return results
    if not yes:
        if not moving.on_a_terminal():
            raise UsageError("without a terminal to ask on, --fix needs --yes; without --fix nothing is changed")
        for result in fixable:
            for finding in result.findings:
                note(f"{result.check.name}: {finding.what}; --fix {result.check.fixes}")
        moving.confirm(f"fix {len(fixable):,} of these?" if len(fixable) > 1 else "fix it?")
    operation = session.current().operation(
        "doctor", reason, chosen={"checks": [result.check.name for result in fixable]}
    )
    fixed: list[str] = []
    account = Account(database, operation, lambda jobs: f"changed {count_of(jobs, 'job')}", lambda: 0)

    def done() -> str | None:
        return account() or (f"made {count_of(len(fixed), 'fix')}" if fixed else None)

    with accounted(done):
        for line in core.fix(database, fixable, terms, operation):
            fixed.append(line)
            note(line)
    again = {result.check.name: result for result in core.examine(database, [r.check for r in fixable], terms)}
    return [again.get(result.check.name, result) for result in results]


# -- what it prints ---------------------------------------------------------------------------------------------------


def _show(results: Sequence[CheckResult], output: Output) -> None:
    nothing: list[DoctorFinding | None] = [None]
    rows = [CheckRow(result, finding) for result in results for finding in (result.findings or nothing)]
    if not drawn(output):
        records(rows, finding_fields(), output)
        note(_summary(rows))
        return
    with page():
        heading(_summary(rows))
        explained: set[str] = set()
        for row in sorted(rows, key=_rank):
            if row.finding is not None:
                _describe(row, row.finding, explained)
        for reason, names in _skipped(rows).items():
            paragraph(f"{', '.join(names)}: {reason}", f"{'skipped':<9}", INDENT, style="faint")
        fixable = dict.fromkeys(
            row.result.check.name for row in rows if row.finding is not None and row.result.check.fix
        )
        next_commands(*(f"doctor {name} --fix" for name in fixable))


def _rank(row: CheckRow) -> int:
    return ["error", "warning", "note", "skipped", "healthy"].index(row.status)


def _describe(row: CheckRow, finding: DoctorFinding, explained: set[str]) -> None:
    """Print a finding; why its check matters only if it is not among those ``explained`` before."""
    check = row.result.check
    style = STYLES.get(row.status, "faint")
    paragraph(f"{check.name}: {finding.what}", f"{row.status:<9}", INDENT, style=style)
    if check.name not in explained:
        paragraph(by_own_name(check.why), f"{INDENT}why: ")
        explained.add(check.name)
    paragraph(by_own_name(finding.advice), f"{INDENT}fix: ")


def _skipped(rows: Sequence[CheckRow]) -> dict[str, list[str]]:
    """Return the names of the checks that could not be made, by the reason: on a standby it is one for many."""
    names: dict[str, list[str]] = {}
    for row in rows:
        if row.result.skipped is not None:
            names.setdefault(row.result.skipped, []).append(row.result.check.name)
    return names


def _summary(rows: Sequence[CheckRow]) -> str:
    from solidjq.text import count_of

    counts = {status: sum(1 for row in rows if row.status == status) for status in ("error", "warning", "note")}
    findings = ", ".join(count_of(count, status) for status, count in counts.items() if count)
    healthy = sum(1 for row in rows if row.status == "healthy")
    skipped = sum(1 for row in rows if row.status == "skipped")
    left_out = f", {skipped} skipped" if skipped else ""
    return f"{findings or 'nothing found'}; {count_of(healthy, 'check')} healthy{left_out}"
