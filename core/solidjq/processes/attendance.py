"""Attendance: which workers live and which queues they poll, whether a dispatcher lives, which queues are paused."""

import shlex
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from sqlalchemy import Connection, select

from solidjq.database.standby import find_standby
from solidjq.database.tables import pauses
from solidjq.durations import spell_duration
from solidjq.processes.heartbeat import ALIVE_THRESHOLD, HEARTBEAT_INTERVAL, Process, list_processes
from solidjq.processes.pids import are_two
from solidjq.processes.samples import sample_of
from solidjq.queue.patterns import ALL_QUEUES, PolledQueues
from solidjq.text import count_of, first_of
from solidjq.untrusted import number, read_object

MOST_NAMED = 5  # workers or queues in a sentence
LATE = 5.0  # seconds: a heartbeat may be late by that
START = "bin/jobs, or jq work"


@dataclass(frozen=True, slots=True)
class Attendance:
    """The living workers, whether a dispatcher lives, and the paused queues."""

    workers: Sequence[Process] = ()
    dispatches: bool = False
    paused: frozenset[str] = frozenset()
    threshold: float = ALIVE_THRESHOLD  # seconds: the age of a heartbeat from which on a worker is dead

    def takers(self, queue: str) -> list[Process]:
        """Return the workers that poll the queue, whether it is paused or not."""
        return [worker for worker in self.workers if polled_by(worker).takes(queue)]

    def endangered(self, queue: str) -> list[Process]:
        """Return the workers of other queues that die if a job of this queue kills its process.

        These are the workers that poll the queue beside others, and those that run in the process of a worker that
        polls it: in Solid Queue's async mode all workers of a host are threads of one process.
        """
        takers: dict[tuple[str | None, int], list[Mapping[str, Any]]] = defaultdict(list)
        for taker in self.takers(queue):
            takers[_address(taker)].append(sample_of(taker.metadata))
        return [
            worker
            for worker in self.workers
            if not is_dedicated(worker, queue) and _is_one_of(worker, takers.get(_address(worker), ()))
        ]

    def warning(self, queue: str, jobs: int) -> str | None:
        """Return why it is dangerous to send so many suspected jobs to a queue; None if only its own workers die."""
        if not jobs or not (endangered := self.endangered(queue)):
            return None
        go = f"{count_of(jobs, 'job')} that may kill a process {'goes' if jobs == 1 else 'go'} to queue {queue}"
        of_others = f"{count_of(len(endangered), 'worker')} of other queues would die with it"
        return f"{go}, and {of_others}: {describe(endangered)}; {self.with_doubt(endangered, how_to_spare(queue))}"

    def with_doubt(self, workers: Sequence[Process], words: str) -> str:
        """Return ``words``, and until when those of the workers that may be dead count as living, if there are any.

        A worker that was killed with its supervisor keeps its row until it is pruned; only its heartbeat shows its
        death.
        """
        silent = [worker for worker in workers if is_overdue(worker)]
        beats = [worker.last_heartbeat_at for worker in silent if worker.last_heartbeat_at is not None]
        if not beats:
            return words
        threshold = timedelta(seconds=self.threshold)
        who = (
            f"{silent[0].name} may be dead: it missed a heartbeat, and counts as living"
            if len(silent) == 1
            else f"{len(silent)} of them may be dead: they missed a heartbeat, and count as living"
        )
        return f"{words}; {who} until {max(beats) + threshold:%H:%M:%S} UTC ({spell_duration(threshold)} of silence)"

    def obstacles(self, destinations: Mapping[str, int], scheduled: int) -> list[str]:
        """Return why jobs that go to these queues will wait, a sentence for each reason.

        ``destinations``: the number of jobs by queue. ``scheduled``: how many of them need a dispatcher first.
        """
        unpolled = {queue: jobs for queue, jobs in destinations.items() if jobs and not self.takers(queue)}
        return [
            *_unpolled(unpolled, any_worker=bool(self.workers)),
            *_paused({queue: jobs for queue, jobs in destinations.items() if jobs and queue in self.paused}),
            *([] if self.dispatches or not scheduled else [_undispatched(scheduled)]),
        ]


def read_attendance(connection: Connection, threshold: float) -> Attendance:
    """Read the attendance. A process whose heartbeat is ``threshold`` seconds old is dead, except on a standby."""
    standby = find_standby(connection)
    living = [process for process in list_processes(connection) if process.life(threshold, standby) is not False]
    return Attendance(
        workers=tuple(process for process in living if process.kind == "Worker"),
        dispatches=any(process.kind == "Dispatcher" for process in living),
        paused=frozenset(connection.scalars(select(pauses.c.queue_name))),
        threshold=threshold,
    )


def polled_by(worker: Process) -> PolledQueues:
    """Return the queues that a worker registered; all queues if it registered none."""
    return polled_in(worker.metadata)


def polled_in(metadata: str | None) -> PolledQueues:
    """Return the queues that a worker's metadata name; all queues if they name none.

    Solid Queue writes ``"queues": "mail*,low"``. ``jq work --except`` adds ``"except": "mailers"``.
    """
    settings = read_object(metadata)
    return PolledQueues(_names(settings.get("queues")) or ALL_QUEUES, _names(settings.get("except")))


def is_dedicated(worker: Process, queue: str) -> bool:
    """Whether the worker polls this queue and no other."""
    polled = polled_by(worker)
    return set(polled.patterns) == {queue} and polled.takes(queue)


def is_overdue(worker: Process) -> bool:
    """Whether a heartbeat of the worker is missing: it may be dead, though it counts as living."""
    recorded = number(sample_of(worker.metadata), "interval")
    interval = HEARTBEAT_INTERVAL if recorded is None else recorded
    return worker.heartbeat_age is not None and worker.heartbeat_age > interval + LATE


def describe(workers: Sequence[Process]) -> str:
    """Name workers, each with its host, pid and queues: ``worker-1 (host a, pid 7, polls *)``."""
    return first_of([f"{worker.name} ({', '.join(_facts(worker))})" for worker in workers], MOST_NAMED)


def _facts(worker: Process) -> Iterator[str]:
    yield from (f"host {worker.hostname}", f"pid {worker.pid}", f"polls {polled_by(worker).describe()}")
    if is_overdue(worker):
        yield f"silent for {spell_duration(timedelta(seconds=worker.heartbeat_age or 0.0))}"


def how_to_spare(queue: str) -> str:
    """Return what an operator can do to keep workers of other queues off this queue."""
    return (
        f"keep them off that queue: jq work --except {shlex.quote(queue)}, and in config/queue.yml a list of queues "
        f"instead of *"
    )


def _address(worker: Process) -> tuple[str | None, int]:
    return worker.hostname, worker.pid


def _is_one_of(worker: Process, samples: Iterable[Mapping[str, Any]]) -> bool:
    """Whether a worker's process may be one that these samples of its address are of."""
    return any(not are_two(sample_of(worker.metadata), sample) for sample in samples)


def _names(value: object) -> tuple[str, ...]:
    if isinstance(value, str):
        return tuple(name for part in value.split(",") if (name := part.strip()))
    return tuple(str(name) for name in value) if isinstance(value, list) else ()


def _unpolled(queues: Mapping[str, int], *, any_worker: bool) -> Iterator[str]:
    if not queues:
        return
    jobs = sum(queues.values())
    if not any_worker:
        yield f"no worker lives: {_wait(jobs)} until one starts ({START})"
        return
    start = f"{START} --queues {shlex.quote(','.join(sorted(queues)))}" if len(queues) <= MOST_NAMED else START
    yield f"no living worker polls {_queues(queues)}: {_wait(jobs)} until one starts ({start})"


def _paused(queues: Mapping[str, int]) -> Iterator[str]:
    if queues:
        is_ = "is" if len(queues) == 1 else "are"
        resume = " ".join(["jq queues resume", *map(shlex.quote, sorted(queues))])
        yield f"{_queues(queues)} {is_} paused: {_wait(sum(queues.values()))} until you resume it ({resume})"


def _undispatched(jobs: int) -> str:
    return f"no dispatcher lives: {_wait(jobs, 'scheduled job')} until one starts ({START})"


def _wait(jobs: int, noun: str = "job") -> str:
    return f"{count_of(jobs, noun)} {'waits' if jobs == 1 else 'wait'}"


def _queues(queues: Mapping[str, int]) -> str:
    if len(queues) == 1:
        return f"queue {next(iter(queues))}"
    named = [f"{name} ({count_of(jobs, 'job')})" for name, jobs in _most_first(queues)]
    return f"queues {first_of(named, MOST_NAMED)}"


def _most_first(queues: Mapping[str, int]) -> list[tuple[str, int]]:
    return sorted(queues.items(), key=lambda item: (-item[1], item[0]))
