"""Columns of processes, and of those that a prune removed."""

from __future__ import annotations

from itertools import zip_longest
from typing import TYPE_CHECKING, Any, NamedTuple

from solidjq_cli.ages import when
from solidjq_cli.columns.column import Column, Fields, json_or_text, with_fields

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from solidjq.database.standby import Standby
    from solidjq.processes.heartbeat import Process
    from solidjq.processes.pruning import PrunedProcess


def process_fields(threshold: float, standby: Standby | None) -> Fields[Process]:
    """Fields of a process. On a standby, it is unknown whether a silent process is alive."""
    return Fields(
        (
            Column("process_id", lambda p: p.id, "ID"),
            Column("kind", lambda p: p.kind, "KIND", wide=True),
            Column("name", lambda p: p.name, "NAME", wide=True),
            Column("hostname", lambda p: p.hostname, "HOST", wide=True),
            Column("pid", lambda p: p.pid, "PID"),
            Column("supervisor_id", lambda p: p.supervisor_id, "PARENT"),
            Column("alive", lambda p: p.life(threshold, standby), "ALIVE"),
            Column("last_heartbeat_at", lambda p: p.last_heartbeat_at, "BEAT"),
            Column("heartbeat_age", lambda p: p.heartbeat_age),
            Column("claimed", lambda p: p.claimed, "JOBS"),
            Column("queues", polled_queues, "QUEUES", wide=True),
            Column("created_at", lambda p: p.created_at),
            Column("metadata", lambda p: json_or_text(p.metadata)),
        ),
        lambda p: [p.id],
    )


def polled_queues(process: Process) -> str | None:
    """Return the queues that a worker polls, in words; None for other processes."""
    from solidjq.processes.attendance import polled_by

    return polled_by(process).describe() if process.kind == "Worker" else None


def pruned_process_fields() -> Fields[PrunedProcess]:
    """Fields of a process that a prune removed, or would remove."""
    return Fields(
        (
            Column("process_id", lambda p: p.process_id, "ID"),
            Column("kind", lambda p: p.kind, "KIND", wide=True),
            Column("name", lambda p: p.name, "NAME", wide=True),
            Column("hostname", lambda p: p.hostname, "HOST", wide=True),
            Column("pid", lambda p: p.pid, "PID"),
            Column("last_heartbeat_at", lambda p: p.last_heartbeat_at, "BEAT"),
            Column("failed", lambda p: len(p.job_ids), "FAILED JOBS", counts=True),
            Column("job_ids", lambda p: p.job_ids),
        ),
        lambda p: p.job_ids,
    )


MEGABYTE = 1024 * 1024


class ListedProcess(NamedTuple):
    """A process, and where it stands below its supervisor: nothing before it, or the branch of a tree."""

    process: Process
    branch: str


def in_trees(processes: Iterable[Process]) -> Iterator[ListedProcess]:
    """Yield processes, which are listed each supervisor before its children, with the branches between them."""
    listed = list(processes)
    for process, after in zip_longest(listed, listed[1:]):
        if process.supervisor_id is None or all(other.id != process.supervisor_id for other in listed):
            yield ListedProcess(process, "")
        else:
            more = after is not None and after.supervisor_id == process.supervisor_id
            yield ListedProcess(process, "├─ " if more else "└─ ")


def process_columns(threshold: float, standby: Standby | None) -> Fields[ListedProcess]:
    """Return the columns of processes. On a standby, it is unknown whether a silent process is alive."""

    def beat(item: ListedProcess) -> str:
        return {True: "", False: "dead ", None: "silent "}[item.process.life(threshold, standby)] + _beat(item.process)

    def style(item: ListedProcess) -> str | None:
        return {True: None, False: "error", None: "warning"}[item.process.life(threshold, standby)]

    return with_fields(
        (
            Column(
                "hostname",
                lambda p: p.process.hostname,
                "HOST",
                wide=True,
                hosts=True,
                words=lambda p: "" if p.branch else p.process.hostname,
            ),
            Column("kind", lambda p: p.branch + kind_in_words(p.process.kind), "PROCESS"),
            Column("pid", lambda p: p.process.pid, "PID"),
            Column("last_heartbeat_at", lambda p: p.process.last_heartbeat_at, "BEAT", words=beat, style=style),
            Column("claimed", lambda p: p.process.claimed, "JOBS", words=lambda p: _load(p.process)),
            Column("rss", _rss, "RSS", words=_megabytes, leaves=2, optional=True),
            Column("queues", lambda p: polled_queues(p.process), "QUEUES", wide=True, optional=True),
            Column("release", lambda p: _sample(p).get("release"), "RELEASE", leaves=1, optional=True),
            Column("process_id", lambda p: p.process.id, extra=True),
            Column("name", lambda p: p.process.name, extra=True),
        ),
        process_fields(threshold, standby),
        lambda item: item.process,
    )


def _sample(item: ListedProcess) -> Mapping[str, Any]:
    from solidjq.processes.samples import sample_of

    return sample_of(item.process.metadata)


def _rss(item: ListedProcess) -> float | None:
    from solidjq.untrusted import number

    return number(_sample(item), "rss")


def _megabytes(item: ListedProcess) -> str | None:
    size = _rss(item)
    return None if size is None else f"{size / MEGABYTE:,.0f} MB"


def kind_in_words(kind: str) -> str:
    """Return what a process is for people, such as ``supervisor``; ``kind`` is that of its row."""
    return kind.partition("(")[0].lower()  # Solid Queue 1.0 writes Supervisor(fork)


def _beat(process: Process) -> str:
    return "-" if process.last_heartbeat_at is None else when(process.last_heartbeat_at)


def _load(process: Process) -> str:
    """Return how many jobs a worker holds, and how many threads it has: ``3/5``."""
    from solidjq.untrusted import number, read_object

    threads = number(read_object(process.metadata), "thread_pool_size")
    if process.kind != "Worker":
        return f"{process.claimed}" if process.claimed else "-"
    return f"{process.claimed}" if threads is None else f"{process.claimed}/{threads:.0f}"
