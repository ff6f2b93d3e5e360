"""``jq work``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from solidjq_cli import options, session

if TYPE_CHECKING:
    from solidjq import Database


def add_to(app: typer.Typer) -> None:
    """Add the command."""
    app.command("work")(work)


def work(
    modules: Annotated[
        list[str] | None,
        typer.Option("--import", "-i", metavar="MODULE", help="A module with @job functions; may be repeated."),
    ] = None,
    queues: Annotated[
        str | None,
        typer.Option("--queues", metavar="LIST", help="Polled in this order: mailers,report*  [default: *]"),
    ] = None,
    excepted: Annotated[
        list[str] | None,
        typer.Option("--except", metavar="LIST", help="Leave out these queues: quarantine,slow*; may be repeated."),
    ] = None,
    threads: Annotated[
        int, typer.Option("--threads", metavar="N", min=1, max=1000, help="Jobs at once in each process.")
    ] = 3,
    processes: Annotated[int, typer.Option("--processes", metavar="N", min=1, max=1000, help="Worker processes.")] = 1,
    prefetch: Annotated[
        int,
        typer.Option(
            "--prefetch",
            metavar="N",
            min=0,
            max=10_000,
            help="Claim so many more than there are threads: for short jobs.",
        ),
    ] = 0,
    heartbeat: Annotated[
        float, options.seconds("--heartbeat", least=0.01, text="How often each process says it is alive.")
    ] = 60,
    alive_threshold: options.AliveThresholdOption = None,
    shutdown_timeout: Annotated[
        float,
        options.seconds("--shutdown-timeout", least=0, text="How long running jobs may take to end."),
    ] = 5,
    lost_timeout: Annotated[
        float | None,
        options.seconds(
            "--lost-timeout",
            least=0,
            text="How long running jobs may go on once heartbeats have failed for the alive threshold; then the worker "
            "ends itself with status 74.  [default: the shutdown timeout]",
        ),
    ] = None,
    leave_children: Annotated[
        bool,
        typer.Option(
            "--leave-children", help="When a worker has died, do not kill the programs that its jobs had started."
        ),
    ] = False,
    require_database: Annotated[
        bool,
        typer.Option("--require-database", help="Exit with 3 if the database is away at the start; else wait for it."),
    ] = False,
    alive_file: Annotated[
        Path | None,
        typer.Option(
            "--alive-file",
            metavar="PATH",
            help="Touch this file while the supervisor lives, for a liveness probe: see jq check alive-file.",
        ),
    ] = None,
    database: options.DatabaseOption = None,
) -> None:
    """Run jobs: workers and a dispatcher under a supervisor.

    SIGTERM, Ctrl-C or a closed terminal: stop claiming, let running jobs end within the shutdown timeout, put the
    others back into their queues. A second one, or SIGQUIT: put them back at once. A worker that dies is replaced, and
    the jobs it held fail with ProcessExitError, except those that had not begun: these go back to their queues. Only
    functions registered with @job ever run.

    Give whatever stops this program (systemd, Kubernetes) at least 10 seconds more than the shutdown timeout.

    \b
    Examples:
      jq work --import myapp.jobs
      jq work --import myapp.jobs --queues mailers,report* --processes 4 --threads 5 --shutdown-timeout 25
      jq work --import myapp.jobs --queues '*' --except quarantine
      jq work --import myapp.jobs --alive-file /run/jq/alive
    """
    from solidjq.database import tables
    from solidjq.database.answers import RUNTIME_TIMEOUT
    from solidjq.database.urls import url_text
    from solidjq.errors import UsageError
    from solidjq.queue.patterns import ALL_QUEUES, fits_any, parse_patterns, parse_queues
    from solidjq.runtime import logs
    from solidjq.runtime.config import Config
    from solidjq.runtime.supervisor import Supervisor

    command = session.current(database)
    threshold = command.alive_threshold(alive_threshold, acts=True)
    if heartbeat * 2 > threshold:
        raise UsageError(
            f"a heartbeat every {heartbeat:g} s does not fit an alive threshold of {threshold:g} s: "
            "one late beat and a healthy process would be pruned; make the threshold at least twice the heartbeat"
        )
    polled = ALL_QUEUES if queues is None else parse_queues(queues)
    without = parse_patterns(",".join(excepted or ()))
    if excepted and not without:
        raise UsageError("--except names no queue; write --except quarantine")
    if all(fits_any(without, pattern) for pattern in polled):
        raise UsageError(f"--except {','.join(without)} leaves no queue of --queues {','.join(polled)} to poll")
    opened = command.open(create=True, watch=False, answer_timeout=RUNTIME_TIMEOUT)
    opened.require_writable()
    logs.set_up()
    supervisor = Supervisor(
        Config(
            database_url=url_text(opened.url),
            table_prefix=tables.prefix(),
            imports=tuple(modules or ()),
            queues=polled,
            excepted_queues=without,
            threads=threads,
            prefetch=prefetch,
            processes=processes,
            heartbeat_interval=heartbeat,
            alive_threshold=threshold,
            shutdown_timeout=shutdown_timeout,
            lost_timeout=shutdown_timeout if lost_timeout is None else lost_timeout,
            leave_children=leave_children,
        ),
        opened,
        waits=not require_database,
        alive_file=alive_file,
        check=_refuse_beside_rails if queues is None else None,
    )
    raise typer.Exit(supervisor.run())


def _refuse_beside_rails(database: Database) -> None:
    """Keep a Python worker off the queues of a Rails application, whose every job it would fail as unknown."""
    from solidjq.errors import RefusedError
    from solidjq.processes.heartbeat import list_processes
    from solidjq.text import count_of

    with database.read() as connection:
        foreign = [p for p in list_processes(connection) if p.kind == "Worker" and not p.is_ours]
    if foreign:
        raise RefusedError(
            f"{count_of(len(foreign), 'worker')} of another runtime here, such as {foreign[0].name}; this one "
            "would claim their jobs and fail each as unknown. Name the queues that are for Python: --queues NAME"
        )
