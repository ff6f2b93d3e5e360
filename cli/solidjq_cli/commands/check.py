"""``jq check``: for Nagios, Icinga, and the probes of Kubernetes."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from solidjq_cli import options, plugin, session
from solidjq_cli.render import Output
from solidjq_cli.times import duration_option

if TYPE_CHECKING:
    from solidjq.monitoring.levels import AlertRange
    from solidjq.settings.promises import Promises

group = typer.Typer(
    rich_markup_mode=None,
    no_args_is_help=True,
    help="Answer a monitor (Nagios, Icinga): exit code 0, 1, 2 or 3.",
)


def add_to(app: typer.Typer) -> None:
    """Add the commands."""
    app.add_typer(group, name=plugin.GROUP)


WarnOption = Annotated[
    str | None,
    typer.Option("--warn", "-w", metavar="RANGE", help="A warning outside of it: 10, 10:20, @10:20; times as 5m."),
]
CritOption = Annotated[
    str | None, typer.Option("--crit", "-c", metavar="RANGE", help="Critical outside of it, written the same way.")
]
WindowOption = Annotated[
    str, typer.Option("--window", metavar="DURATION", help="How far back failures and deaths count: 15m, 1h, 7d.")
]
PatienceOption = Annotated[
    float, options.seconds("--patience", least=0.1, text="How long one statement may take; else it is unknown.")
]
ExpectOption = Annotated[
    int | None,
    typer.Option(
        "--expect",
        metavar="N",
        min=0,
        max=1_000_000,
        help="How many workers must live.  [default: expect of [workers] in jq.toml]",
    ),
]


@dataclass(frozen=True, slots=True, kw_only=True)
class RecentOptions(options.OptionGroup):
    """What counts as too many failures or deaths of late."""

    warn: WarnOption = None
    crit: CritOption = None
    window: WindowOption = "1h"
    patience: PatienceOption = 10


@group.command("failures")
@options.grouped
def failures(
    recent: RecentOptions,
    output: options.OutputOption = Output.TABLE,
    database: options.DatabaseOption = None,
) -> None:
    """Count the jobs that failed within the window and still are: a warning above 0, critical above 100.

    Jobs that died with their process are among them, and a value of their own. Only the newest 10,000 failures are
    looked at, so it takes no longer where a million have failed.

    \b
    Examples:
      jq check failures
      jq check failures --window 24h --warn 10 --crit 1000
    """
    _make("failures", output, database, **asdict(recent))


@group.command("deaths")
@options.grouped
def deaths(
    recent: RecentOptions,
    output: options.OutputOption = Output.TABLE,
    database: options.DatabaseOption = None,
) -> None:
    """Count the processes that died within the window, with their causes: a warning above 0, critical above 5.

    \b
    Examples:
      jq check deaths
      jq check deaths --window 10m --crit 0
    """
    _make("deaths", output, database, **asdict(recent))


@group.command("latency")
def latency(
    queues: Annotated[
        str | None, typer.Option("--queue", metavar="LIST", help="These queues only: mailers,report*  [default: *]")
    ] = None,
    warn: WarnOption = None,
    crit: CritOption = None,
    patience: PatienceOption = 10,
    config_file: options.ConfigOption = None,
    output: options.OutputOption = Output.TABLE,
    database: options.DatabaseOption = None,
) -> None:
    """Judge how long the oldest ready job of each queue has waited.

    Above what is promised is critical, above 80 % of that a warning. The promise is in jq.toml, as latency = "1m"
    under [queues.mailers], or in the queue's name: within_5_minutes. Queues without one are judged by --warn and
    --crit, 5 and 30 minutes. A queue of --queue that no job, worker, pause, recurring task or promise names is unknown.

    \b
    Examples:
      jq check latency
      jq check latency --queue 'mail*' --warn 30s --crit 2m
    """
    chosen = {"warn": warn, "crit": crit, "patience": patience, "queues": queues, "config_file": config_file}
    _make("latency", output, database, **chosen)


@group.command("processes")
def processes(
    expect: ExpectOption = None,
    warn: WarnOption = None,
    crit: CritOption = None,
    alive_threshold: options.AliveThresholdOption = None,
    patience: PatienceOption = 10,
    config_file: options.ConfigOption = None,
    output: options.OutputOption = Output.TABLE,
    database: options.DatabaseOption = None,
) -> None:
    """Judge the processes: silent ones are a warning, silent ones with jobs and missing workers are critical.

    A worker whose replacement hangs while it boots is missed only if it is expected: --expect, or in jq.toml expect = 4
    under [workers], or under [queues.mailers] for the workers that poll that queue. --warn and --crit are for the
    number of silent processes.

    \b
    Examples:
      jq check processes --expect 4
      jq check processes --alive-threshold 2m
    """
    chosen = {"warn": warn, "crit": crit, "patience": patience, "expect": expect, "config_file": config_file}
    _make("processes", output, database, alive_threshold=alive_threshold, **chosen)


@group.command("dispatcher")
def dispatcher(
    warn: WarnOption = None,
    crit: CritOption = None,
    alive_threshold: options.AliveThresholdOption = None,
    patience: PatienceOption = 10,
    output: options.OutputOption = Output.TABLE,
    database: options.DatabaseOption = None,
) -> None:
    """Judge how long due scheduled jobs wait for a dispatcher: a warning above 1 minute, critical above 5.

    No living dispatcher is a warning, and critical while a job needs one.

    \b
    Examples:
      jq check dispatcher
      jq check dispatcher --warn 10s --crit 1m
    """
    _make("dispatcher", output, database, warn=warn, crit=crit, patience=patience, alive_threshold=alive_threshold)


@group.command("recurring")
def recurring(
    warn: WarnOption = None,
    crit: CritOption = None,
    alive_threshold: options.AliveThresholdOption = None,
    patience: PatienceOption = 10,
    output: options.OutputOption = Output.TABLE,
    database: options.DatabaseOption = None,
) -> None:
    """Count the ticks that each recurring task missed, by its own schedule: a warning above 0, critical above 1.

    No living scheduler is critical while tasks are set up. A tick leaves a row only as long as its job is kept: where
    finished jobs are deleted at once, and for a schedule that jq cannot read, it says so and judges nothing.

    \b
    Examples:
      jq check recurring
      jq check recurring --crit 0
    """
    _make("recurring", output, database, warn=warn, crit=crit, patience=patience, alive_threshold=alive_threshold)


@group.command("slots")
def slots(
    warn: WarnOption = None,
    crit: CritOption = None,
    patience: PatienceOption = 10,
    output: options.OutputOption = Output.TABLE,
    database: options.DatabaseOption = None,
) -> None:
    """Judge how long blocked jobs wait beyond their limit's duration: a warning above 15 minutes, critical above 1 h.

    \b
    Examples:
      jq check slots
    """
    _make("slots", output, database, warn=warn, crit=crit, patience=patience)


@group.command("all")
def check_all(
    skip: Annotated[
        list[str] | None, typer.Option("--skip", metavar="CHECK", help="Leave this check out; may be repeated.")
    ] = None,
    window: WindowOption = "1h",
    expect: ExpectOption = None,
    alive_threshold: options.AliveThresholdOption = None,
    patience: PatienceOption = 10,
    config_file: options.ConfigOption = None,
    output: options.OutputOption = Output.TABLE,
    database: options.DatabaseOption = None,
) -> None:
    """Make every check of the queue, each with its own defaults; the worst decides the exit code.

    Critical counts more than a warning, a warning more than unknown.

    \b
    Examples:
      jq check all --expect 4
      jq check all --skip recurring -o json
    """
    chosen = {"window": window, "patience": patience, "expect": expect, "config_file": config_file, "skip": skip}
    _make("all", output, database, alive_threshold=alive_threshold, **chosen)


@group.command("alive-file")
def alive_file(
    path: Annotated[Path, typer.Argument(metavar="PATH", help="The file that jq work --alive-file touches.")],
    max_age: Annotated[
        float, options.seconds("--max-age", least=1, text="Since when it may not have been touched.")
    ] = 120,
    output: options.OutputOption = Output.TABLE,
) -> None:
    """Tell whether jq work lives, by the file that it touches; for a liveness probe.

    It asks no database, and loads nothing that could: if the database hiccups, a probe that asks it restarts every
    worker at once.

    \b
    Examples:
      jq check alive-file /run/jq/alive --max-age 2m
    """
    from solidjq.monitoring.alive_file import CHECK, check_alive_file

    with plugin.answering(CHECK, output):
        plugin.answer(CHECK, [check_alive_file(path, max_age)], output)


# -- what they share --------------------------------------------------------------------------------------------------


def _make(name: str, output: Output, database: str | None, **chosen: Any) -> None:
    """Make a check, or all, and answer."""
    with plugin.answering(name, output):
        from solidjq.errors import UsageError
        from solidjq.monitoring import checks

        skipped = chosen.get("skip") or []
        if unknown := [each for each in skipped if each not in checks.CHECKS]:
            raise UsageError(f"--skip {unknown[0]}: there is no such check; the checks are: {', '.join(checks.CHECKS)}")
        names = [each for each in checks.CHECKS if each not in skipped] if name == "all" else [name]
        command = session.current(database, chosen.get("config_file"))
        terms = _terms(command, chosen, of_time=name in checks.OF_TIME)
        opened = command.open(watch=False, answer_timeout=chosen["patience"] + ANSWERS)
        plugin.answer(name, checks.make_checks(opened, names, terms), output)


ANSWERS = 5.0  # seconds beyond --patience until a server that does not answer counts as unreachable


def _terms(command: session.Session, chosen: dict[str, Any], *, of_time: bool) -> Any:
    from datetime import timedelta

    from solidjq.errors import UsageError
    from solidjq.monitoring.checks import CheckTerms
    from solidjq.queue.patterns import parse_queues

    window = duration_option(chosen.get("window") or "1h", "--window")
    if not window:
        raise UsageError("--window must be longer than 0 s")
    return CheckTerms(
        warn=_range(chosen.get("warn"), "--warn", of_time=of_time),
        crit=_range(chosen.get("crit"), "--crit", of_time=of_time),
        threshold=command.alive_threshold(chosen.get("alive_threshold")),
        window=timedelta(seconds=window),
        queues=parse_queues(chosen.get("queues") or ""),
        promises=_promises(command, chosen.get("expect")),
        patience=chosen["patience"],
    )


def _range(text: str | None, option: str, *, of_time: bool) -> AlertRange | None:
    from solidjq.monitoring.levels import parse_range

    return None if text is None else parse_range(text, option, of_time=of_time)


def _promises(command: session.Session, expect: int | None) -> Promises:
    from dataclasses import replace

    from solidjq.settings.promises import load_promises

    promises = load_promises(command.settings)
    return promises if expect is None else replace(promises, workers=expect)
