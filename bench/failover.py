"""Recovery time: from the kill -9 of a worker to all of its jobs running again."""

import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import ours
import watch
from contenders import Plan, each_peer, jq, settings_of
from figures import Row
from rivals import Peer

HELD = 10  # jobs in the hands of the worker
DEADLINE = 900.0  # seconds; the defaults of some take five minutes and more
SHORT = "--heartbeat 1 --alive-threshold 5"
Kill = Callable[[int], None]


def rows(plan: Plan) -> Iterator[Row]:
    """Kill a worker while another is idle; then kill its whole host."""
    empty = partial(ours.empty, plan.stage)
    supervised = "worker killed, supervisor lives; jq recover every"
    lost = "host lost; jq recover every"
    contenders = [
        jq(f"{supervised} 1 s", 1, empty, partial(_ours, "--threads 10", 1.0, [], kill_process)),
        jq(
            f"{lost} 1 s, {SHORT}",
            1,
            empty,
            partial(_ours, f"--threads 10 {SHORT}", 1.0, ["--alive-threshold", "5"], kill_host),
        ),
    ]
    if plan.default_thresholds:
        contenders += [
            jq(f"{supervised} 60 s (cron)", 1, empty, partial(_ours, "--threads 10", 60.0, [], kill_process)),
            jq(
                f"{lost} 60 s (cron), default thresholds", 1, empty, partial(_ours, "--threads 10", 60.0, [], kill_host)
            ),
        ]
    contenders += each_peer(plan, "recovery-time", _theirs, settings=partial(_at_these_paces, plan))
    title = f"from kill -9 of a worker to its {HELD} jobs running elsewhere"
    yield Row("recovery-time", title, contenders, plan.runs, HELD, "s each")


def _at_these_paces(plan: Plan, peer: Peer, verb: str) -> list[Any]:
    found = settings_of(peer, verb)
    return [(setting, given) for setting, given, pace in found if pace == "short" or plan.default_thresholds]


def kill_process(pid: int) -> None:
    """Kill a worker alone."""
    os.kill(pid, signal.SIGKILL)


def kill_host(pid: int) -> None:
    """Kill a worker and the whole session that it was started in, its supervisor included."""
    for process in watch.session(os.getsid(pid)):
        process.kill()


def _ours(options: str, every: float, recover: list[str], kill: Kill, url: str) -> list[float]:
    environment = ours.environment(url)
    beside = _recovering(recover, environment, every)
    return recovery_times(ours.command(options), environment, partial(ours.hold, url, HELD), kill, beside)


def _theirs(peer: Peer, given: dict[str, Any], url: str) -> list[float]:
    hold = partial(peer.ask, "hold", url, count=HELD)
    return recovery_times(peer.command("work", **given), peer.environment(url), hold, kill_host, nullcontext())


@contextmanager
def _recovering(options: Sequence[str], environment: Mapping[str, str], every: float) -> Iterator[None]:
    """Run ``jq recover`` as cron does, every so many seconds, in another thread."""
    command = [sys.executable, "-m", "solidjq_cli", "recover", "--quiet", "--import", "noop_jobs", *options]
    surroundings = {**os.environ, "PYTHONPATH": str(watch.HERE), **environment}
    done = threading.Event()

    def run() -> None:
        while not done.wait(every):
            subprocess.run(command, env=surroundings, check=False, stdout=subprocess.DEVNULL)  # noqa: S603

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def recovery_times(
    command: Sequence[str],
    environment: Mapping[str, str],
    hold: Callable[[], object],
    kill: Kill,
    beside: AbstractContextManager[None],
) -> list[float]:
    """Kill the worker that holds the jobs while a second one is idle; return each job's seconds until its next run."""
    with tempfile.TemporaryDirectory() as folder:
        marks = Path(folder) / "runs"
        with watch.running(command, environment, marks) as alive:
            hold()
            (victim,) = {pid for pid, _, _ in _runs(marks, HELD, alive, watch.START)}
            with watch.running(command, environment, marks) as other_alive, beside:
                watch.pause(other_alive, time.monotonic() + watch.START, watch.WARM_UP)
                kill(int(victim))
                killed = time.time()
                runs = _runs(marks, 2 * HELD, other_alive, DEADLINE)
    return [float(began) - killed for _, _, began in runs[HELD:]]


def _runs(marks: Path, count: int, alive: Callable[[], None], patience: float) -> list[list[str]]:
    give_up = time.monotonic() + patience
    while len(lines := marks.read_text().splitlines() if marks.exists() else []) < count:
        watch.pause(alive, give_up)
    return [line.split() for line in lines]
