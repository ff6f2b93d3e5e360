"""``jq bisect``: the killer among jobs that died together."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer

from solidjq_cli import attendance, moving, options, session
from solidjq_cli.columns.suspects import trial_fields
from solidjq_cli.exits import Exit
from solidjq_cli.ids import read_incident_name
from solidjq_cli.render import Output, note, records
from solidjq_cli.stopping import accounted
from solidjq_cli.times import duration_option

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from solidjq import Database
    from solidjq.incidents.incidents import Incident
    from solidjq.ledger.operations import Operation
    from solidjq.processes.attendance import Attendance
    from solidjq.recovery.bisect import TrialStanding

MOST_NAMED = 10  # suspects in a message


def add_to(app: typer.Typer) -> None:
    """Add the command."""
    app.command("bisect")(bisect)


def bisect(
    incident: Annotated[str, typer.Argument(metavar="INCIDENT", help="As jq incidents list names it.")],
    quarantine: options.QuarantineOption = options.QUARANTINE,
    max_deaths: Annotated[
        int | None,
        typer.Option(
            "--max-deaths",
            metavar="N",
            min=1,
            max=1000,
            help="Stop after so many further deaths.  [default: what halving takes, 3 for 8 jobs]",
        ),
    ] = None,
    wait: Annotated[
        str, typer.Option("--wait", metavar="AGE", help="How long a round may take to end.", show_default=True)
    ] = "10m",
    reason: options.ReasonOption = None,
    yes: options.YesOption = False,
    config_file: options.ConfigOption = None,
    import_modules: options.ImportOption = None,
    output: options.OutputOption = Output.TABLE,
    database: options.DatabaseOption = None,
) -> None:
    """Find the killer among jobs that died together.

    Halves of them run in quarantine, and the half that dies again is halved.

    It kills processes on purpose: those of the quarantine queue, and no other. Give that queue a worker of its own, on
    a host where nothing else suffers; with one thread, the first death shows the killer. While a worker of other
    queues, or of *, would take these jobs, it refuses (exit code 5): jq work --except quarantine leaves them alone. It
    refuses too while no worker polls the quarantine queue, or that queue is paused.

    Jobs that the evidence clears are left out: the stack of the thread that crashed names another, or they had not
    begun.

    A round in which no process dies clears its jobs: they have run. Ctrl-C or a round that takes too long (exit code 6)
    loses nothing: the same command goes on. What was never tried stays failed; jq retry --safe takes it, and holds the
    killer back.

    \b
    Examples:
      jq work --queues quarantine --threads 1 --import jobs     # in another terminal
      jq bisect d17
      jq bisect d17 --max-deaths 2 --yes --reason 'INC-7'
    """
    from solidjq.errors import NoSuchJobError
    from solidjq.incidents.incidents import find_incident
    from solidjq.recovery import bisect as recovery_bisect
    from solidjq.recovery.bisect import Stage
    from solidjq.text import count_of

    name = read_incident_name(incident)
    patience = duration_option(wait, "--wait") or 0
    command = session.current(database, config_file)
    policy = command.policy(import_modules, acts=True)
    opened = command.open()
    command.require_changeable("bisect")
    with opened.read() as connection:
        found = find_incident(connection, name)
    if found is None:
        raise NoSuchJobError(f"no incident {name}; to see them: jq incidents list")
    job_ids = sorted({job.job_id for job in found.charged_jobs})
    _note_cleared(found, len(job_ids))
    if not job_ids:
        note(f"no job was in flight at {found.name}: there is nothing to find")
        return
    queue = options.queue_name(quarantine)
    limit = max_deaths or recovery_bisect.most_deaths(len(job_ids))
    read_standing = partial(recovery_bisect.read_standing, opened, found.name, job_ids, limit=limit)
    before = read_standing()
    threshold = attendance.alive_threshold(command)
    if before.stage in {Stage.READY, Stage.TRYING}:
        _require_consent(yes=yes)
        there = attendance.read(command, opened, threshold)
        recovery_bisect.refuse_shared_workers(there, queue, before)
        recovery_bisect.refuse_if_vain(there, queue, before)
        _note_who_dies(there, queue, max(1, limit - before.deaths))
        if not yes:
            halves = "run" if len(before.suspects) == 1 else "run halves of"
            moving.confirm(f"{halves} {count_of(len(before.suspects), 'job')} in queue {queue}?")

    begun: list[Operation] = []

    def new_operation(selection: Mapping[str, object]) -> Operation:
        begun.append(command.operation(recovery_bisect.VERB, reason, chosen=selection, plan=found.name))
        return begun[-1]

    run = recovery_bisect.bisect(
        opened,
        found.name,
        job_ids,
        quarantine=queue,
        new_operation=new_operation,
        policy=policy,
        limit=limit,
        threshold=threshold,
        patience=patience,
    )
    with accounted(_account(opened, read_standing, begun, queue)):
        for now in run:
            _note_progress(now, queue)
            if now.died and now.stage is not Stage.TRYING:
                _note_other_manners(opened, found, now)
    records([now], trial_fields(), output)
    if now.stage not in {Stage.FOUND, Stage.CLEARED} or now.untried:
        raise typer.Exit(Exit.PARTLY)


def _account(
    database: Database, read_standing: Callable[[], TrialStanding], begun: Sequence[Operation], queue: str
) -> Callable[[], str | None]:
    """Return what says, if the bisect ends early, how far it has come; it is read from the database."""

    def words() -> str | None:
        from solidjq.errors import DatabaseError

        database.close()  # its connection may be broken
        try:
            return _how_far(read_standing(), queue)
        except DatabaseError:
            return f"may have put jobs on trial in queue {queue}" if begun else None

    return words


def _how_far(now: TrialStanding, quarantine: str) -> str | None:
    """Return in words how far a bisect has come; None if it has not begun."""
    from solidjq.recovery.bisect import Stage
    from solidjq.text import count_of

    if now.operation_id is None:
        return None
    on_trial = count_of(len(now.on_trial), "job")
    if now.stage is Stage.TRYING:
        waiting = f"{len(now.waiting)} of them wait or run there"
        return f"put {on_trial} on trial in queue {quarantine} under operation {now.operation_id}; {waiting}"
    return f"tried {on_trial} under operation {now.operation_id}; {count_of(len(now.suspects), 'suspect')} left"


def _note_cleared(incident: Incident, charged: int) -> None:
    """Say which jobs of the incident are not tried, and why; and if it charges none, since its cause is outside."""
    from solidjq.text import count_of

    all_jobs = len(set(incident.job_ids))
    if charged < all_jobs:
        why = " or ".join(dict.fromkeys(why for death in incident.deaths if (why := death.why_cleared)))
        note(f"leaving out {all_jobs - charged} of {count_of(all_jobs, 'job')} in flight at {incident.name}: {why}")
    if not incident.charged:
        note(
            f"{incident.name} is put down to {incident.finding.words}, which charges no job: jq retry --safe "
            f"{incident.name} puts them back to work"
        )


def _note_who_dies(there: Attendance, queue: str, deaths: int) -> None:
    from solidjq.processes.attendance import describe
    from solidjq.text import count_of

    workers = there.takers(queue)
    who = f"of {describe(workers)}, or of what replaces it"
    note(f"at most {count_of(deaths, 'death')} will follow: {there.with_doubt(workers, who)}")


def _require_consent(*, yes: bool) -> None:
    from solidjq.errors import UsageError

    if not yes and not moving.on_a_terminal():
        raise UsageError("without a terminal to ask on, bisect needs --yes: it kills workers on purpose")


def _note_other_manners(database: Database, incident: Incident, now: TrialStanding) -> None:
    from solidjq.recovery import manners

    with database.read() as connection:
        others = manners.other_manners(connection, incident, now)
    if others:
        then, here = (", ".join(map(str, each)) for each in (manners.manners_of(incident), others))
        note(f"died in another manner than at {incident.name}: {here}, and then: {then}; it may be another killer")


def _note_progress(now: TrialStanding, quarantine: str) -> None:
    from solidjq.recovery.bisect import Stage
    from solidjq.text import count_of, its

    suspects = ", ".join(map(str, now.suspects[:MOST_NAMED])) + (" ..." if len(now.suspects) > MOST_NAMED else "")
    deaths = count_of(now.deaths, "death")
    on_trial = count_of(len(now.on_trial), "job")
    died = f"{len(now.died)} of {on_trial} died with {its(len(now.died))} process" if now.died else "no process died"
    match now.stage:
        case Stage.TRYING:
            note(
                f"{len(now.waiting)} of {on_trial} on trial in queue {quarantine} not ended yet "
                f"(operation {now.operation_id}); {count_of(len(now.suspects), 'suspect')}"
            )
        case Stage.READY:
            left = "is" if len(now.suspects) == 1 else "are"
            note(f"{died}; {count_of(len(now.suspects), 'suspect')} {left} left: {suspects}")
        case Stage.FOUND:
            note(f"found: job {suspects}; its process died again when it ran, after {deaths} in all")
        case Stage.CLEARED if now.operation_id is None:
            note("none of its jobs is failed any more: there is nothing to try")
        case Stage.CLEARED if now.untried:
            note(
                f"no process died, but {count_of(len(now.untried), 'job')} did not run, and may be the killer; "
                f"why: jq retry {' '.join(map(str, now.untried[:MOST_NAMED]))} --dry-run"
            )
        case Stage.CLEARED:
            note("every job ran, and no process died: what killed the process was none of them, or not alone")
        case Stage.CAPPED:
            note(f"{died}; stopping after {deaths}; suspects: {suspects}; --max-deaths allows more")
