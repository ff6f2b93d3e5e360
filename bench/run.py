"""Ours, other job queues and plain SQL side by side, on the same machine in the same run.

make bench                                      everything, medians of three runs
make bench ARGS="--only drain,retry --peers pgqueuer"
make bench ARGS="--peers none --jobs 2000 --runs 1"
"""

import argparse
import json
import os
import platform
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psutil
from rich.console import Console

import fleet
import idle
import ours
import plot
import rivals
import stage as stages
import stage_mariadb
from contenders import Plan
from figures import Row, show
from rows import ON_MARIADB, ON_SQLITE, ROWS

OTHERS = ("diff", "suspects")
ON = ("postgresql", "mariadb", "sqlite")
PREFETCH = "--threads 10 --prefetch 500"


def options() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = [*ROWS, *OTHERS]
    parser.add_argument("--only", default=",".join(names), metavar="ROWS", help=f"of {', '.join(names)}")
    parser.add_argument("--on", default=",".join(ON), metavar="DATABASES", help="of %(default)s")
    parser.add_argument("--peers", default=",".join(rivals.NAMES), help="none, or of %(default)s")
    parser.add_argument("--jobs", type=int, default=10_000, help="of an enqueue and of a drain (default %(default)s)")
    parser.add_argument("--sizes", default="10000,100000", help="of prune, retry and list (default %(default)s)")
    parser.add_argument("--runs", type=int, default=3, help="of which the median is shown (default %(default)s)")
    parser.add_argument("--long", type=int, default=50_000, help="jobs of the memory row (default %(default)s)")
    parser.add_argument("--latencies", type=int, default=100, help="jobs of the latency row (default %(default)s)")
    parser.add_argument("--rates", default="1000", help="enqueues a second of the load row (default %(default)s)")
    parser.add_argument(
        "--idle", default="50", help="workers of the idle row, of 10 threads each (default %(default)s)"
    )
    parser.add_argument(
        "--default-thresholds",
        action="store_true",
        help="measure recovery-time with everybody's default settings, too: some take more than five minutes",
    )
    parser.add_argument(
        "--worker",
        action="append",
        metavar="OPTIONS",
        help=f"options of jq work; may be repeated (default '--threads 10' and, if there is one, '{PREFETCH}')",
    )
    parser.add_argument("-o", "--output", choices=("table", "json"), default="table")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all raw figures there, too")
    parser.add_argument(
        "--plot",
        type=Path,
        metavar="FILE",
        help="draw how prune, retry and list grow, as SVG, and write the raw figures beside it",
    )
    chosen = parser.parse_args()
    chosen.only = _among(parser, "--only", chosen.only, names)
    chosen.on = _among(parser, "--on", chosen.on, list(ON))
    chosen.peers = [] if chosen.peers == "none" else _among(parser, "--peers", chosen.peers, list(rivals.NAMES))
    for name in ("sizes", "rates", "idle"):
        setattr(chosen, name, [int(number) for number in getattr(chosen, name).split(",")])
    return chosen


def _among(parser: argparse.ArgumentParser, option: str, given: str, known: list[str]) -> list[str]:
    names = [name.strip() for name in given.split(",")]
    if unknown := sorted(set(names) - set(known)):
        parser.error(f"{option}: no {', '.join(unknown)}; there are {', '.join(known)}")
    return names


def machine() -> str:
    """Name what it ran on."""
    model = platform.processor() or platform.machine()
    if (info := Path("/proc/cpuinfo")).exists():
        models = [line.partition(":")[2].strip() for line in info.read_text().splitlines() if "model name" in line]
        model = models[0] if models else model
    memory = psutil.virtual_memory().total / 2**30
    return f"{model}, {os.cpu_count()} cores, {memory:.0f} GB, {platform.system()} {platform.release()}"


class Bench:
    """One run of it: everything that is measured is shown and kept."""

    def __init__(self, chosen: argparse.Namespace) -> None:
        self.chosen = chosen
        self.console = Console(stderr=chosen.output == "json", width=None if sys.stdout.isatty() else 150)
        self.facts: list[dict[str, Any]] = []
        self.machine: dict[str, Any] = {}
        self.peers = rivals.peers(chosen.peers, self.tell)
        default = ["--threads 10", *([PREFETCH] if ours.prefetches() else [])]
        self.workers = chosen.worker or default

    def tell(self, what: str) -> None:
        """Say what goes on, on stderr."""
        if sys.stderr.isatty():
            print(f"\r\033[K{what[:100]}", end="", file=sys.stderr, flush=True)

    def run(self) -> None:
        """Measure whatever was asked for."""
        self.head()
        only, on = self.chosen.only, self.chosen.on
        if "postgresql" in on and set(only) & {*ROWS, "diff"}:
            with stages.postgresql(max(stages.CONNECTIONS, idle.CONNECTIONS * max(self.chosen.idle))) as stage:
                self.note("server", stage.settings())
                here = [peer for peer in self.peers if peer.name != "huey"]
                self.rows(self.plan(stage, here), [name for name in ROWS if name in only])
                self.diff(stage)
        if "mariadb" in on and set(only) & set(ON_MARIADB):
            self.mariadb()
        if "sqlite" in on and set(only) & set(ON_SQLITE):
            with stages.sqlite() as file:
                huey = [peer for peer in self.peers if peer.name == "huey"]
                self.rows(self.plan(file, huey), [name for name in ON_SQLITE if name in only])
        if "suspects" in only:
            self.suspects()

    def mariadb(self) -> None:
        """Measure on MariaDB, if it is installed."""
        if name := stage_mariadb.missing():
            self.note("MariaDB", f"not measured: {name} is not installed")
            return
        with stage_mariadb.mariadb() as stage:
            self.note("server", stage.settings())
            self.rows(self.plan(stage, []), [name for name in ON_MARIADB if name in self.chosen.only])

    def head(self) -> None:
        """Name the machine and all versions."""
        libraries = ", ".join(f"{name} {version(name)}" for name in ("solidjq", "SQLAlchemy", "psycopg", "PyMySQL"))
        self.note("date", datetime.now(UTC).date().isoformat())
        self.note("machine", machine())
        self.note("jq", f"Python {platform.python_version()}, {libraries}")
        for peer in self.peers:
            told = peer.about
            self.note(peer.name, told.get("error") or f"Python {told['python']}, {told['versions']}")
        self.note("runs", f"medians of {self.chosen.runs}; a ratio above 1 means that jq is faster")

    def note(self, name: str, text: str) -> None:
        """Print and keep a line about the run."""
        self.machine[name] = f"{self.machine[name]}; {text}" if name in self.machine else text
        self.console.print(f"{name}: {text}", highlight=False, soft_wrap=True)

    def plan(self, stage: stages.Stage, peers: list[rivals.Peer]) -> Plan:
        """Say how much."""
        given = self.chosen
        return Plan(
            stage,
            peers,
            self.workers,
            given.jobs,
            given.sizes,
            given.runs,
            given.latencies,
            given.long,
            given.rates,
            given.idle,
            given.default_thresholds,
        )

    def rows(self, plan: Plan, names: Sequence[str]) -> None:
        """Measure rows, each shown as soon as it is done."""
        for name in names:
            for row in ROWS[name](plan):
                row.measure(plan.stage.copy, self.tell)
                self.tell("")
                row.title = f"{plan.stage.name}: {row.title}"
                self.keep(row, plan.stage.name)

    def keep(self, row: Row, database: str) -> None:
        """Show a row and keep its figures."""
        show(self.console, row)
        self.facts += row.facts(database)
        if self.chosen.json:
            self.chosen.json.write_text(self.as_json())

    def as_json(self) -> str:
        """Write all raw figures."""
        return json.dumps({"run": self.machine, "figures": self.facts}, indent=1) + "\n"

    def diff(self, stage: stages.Stage) -> None:
        """Time ``jq failed diff`` as a program."""
        if "diff" not in self.chosen.only:
            return
        count = self.chosen.jobs
        for what, start in (("one error", ours.failed), ("all different", ours.failed_differently)):
            seconds, megabytes = ours.diff(stage.copy(start(stage, count)))
            self.note(f"failed diff, {count:,} failures, {what}", f"{seconds:.2f} s, {megabytes:.0f} MB")

    def suspects(self) -> None:
        """Tell suspects from bystanders on made-up fleets."""
        of = fleet.tests_fleet().figures()
        self.note("suspects", f"the planted class among the first three in {of.found} of 100 made-up fleets;")
        self.note("no suspects", f"nobody suspected in {of.clean} of 100 without a killer")


@contextmanager
def _written(bench: Bench) -> Iterator[None]:
    """Whatever ends the run, write what was measured until then."""
    try:
        yield
    finally:
        if bench.chosen.output == "json":
            print(bench.as_json(), end="")
        if bench.chosen.json:
            bench.chosen.json.write_text(bench.as_json())
        if bench.chosen.plot:
            about = [f"{name}: {text}" for name, text in bench.machine.items()]
            bench.chosen.plot.write_text(plot.growth(bench.facts, about))
            bench.chosen.plot.with_suffix(".json").write_text(bench.as_json())


def main() -> None:
    """Measure and print."""
    bench = Bench(options())
    with _written(bench):
        bench.run()


if __name__ == "__main__":
    main()
