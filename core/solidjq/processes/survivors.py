"""Who survived a death: how many processes still beat, and how many fell silent too, counted from one read."""

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

from sqlalchemy import Connection, Row, select

from solidjq.database.tables import processes
from solidjq.database.times import ago

_NEVER = datetime.max.replace(tzinfo=UTC)


class _Registered(NamedTuple):
    """A registered process: where, since when, and whether it still beats."""

    hostname: str | None
    created_at: datetime | None
    alive: bool


class Survivors:
    """The processes that are registered at one moment, to be compared with any number of silent ones."""

    def __init__(self, registered: Iterable[_Registered]) -> None:
        # By host and by whether they beat: when these processes were registered, sorted.
        self._began: dict[tuple[str | None, bool], list[datetime]] = defaultdict(list)
        self._undated: dict[tuple[str | None, bool], int] = defaultdict(int)
        for hostname, created_at, alive in registered:
            if created_at is None:
                self._undated[hostname, alive] += 1
            else:
                self._began[hostname, alive].append(created_at)
        for times in self._began.values():
            times.sort()
        hosts = {hostname for hostname, _ in (*self._began, *self._undated)}
        self._all = {
            alive: sorted(t for host in hosts for t in self._began.get((host, alive), ())) for alive in (True, False)
        }
        first = {key: times[0] for key, times in self._began.items()}
        self._hosts_alive = sorted(first[host, True] for host in hosts if (host, True) in first)
        # A host without a process that beats counts as silent from its first silent process on, until one beats there.
        silent = [(first[host, False], first.get((host, True), _NEVER)) for host in hosts if (host, False) in first]
        self._hosts_silent = sorted(began for began, _ in silent)
        self._hosts_silent_no_more = sorted(max(began, beat) for began, beat in silent)
        self._hosts = hosts

    def of(self, process: Row[Any]) -> dict[str, int]:
        """Count the processes that ran when this one fell silent, itself included, and their hosts.

        A process that was registered after the silence began proves nothing about it.
        """
        beat = process.last_heartbeat_at
        if beat is None:
            return self._of_all(process.hostname)
        alive_here, silent_here = (
            _until(self._began.get((process.hostname, alive), ()), beat) for alive in (True, False)
        )
        return {
            "alive": _until(self._all[True], beat),
            "silent": _until(self._all[False], beat),
            "alive_here": alive_here,
            "silent_here": silent_here,
            "hosts_alive": _until(self._hosts_alive, beat),
            "hosts_silent": _until(self._hosts_silent, beat) - _until(self._hosts_silent_no_more, beat),
        }

    def _of_all(self, hostname: str | None) -> dict[str, int]:
        """Count all processes: when this one fell silent is unknown."""

        def count(host: str | None, *, alive: bool) -> int:
            return len(self._began.get((host, alive), ())) + self._undated.get((host, alive), 0)

        alive = {host: count(host, alive=True) for host in self._hosts}
        silent = {host: count(host, alive=False) for host in self._hosts}
        return {
            "alive": sum(alive.values()),
            "silent": sum(silent.values()),
            "alive_here": alive.get(hostname, 0),
            "silent_here": silent.get(hostname, 0),
            "hosts_alive": sum(1 for number in alive.values() if number),
            "hosts_silent": sum(1 for host, number in silent.items() if number and not alive[host]),
        }


def _until(times: Sequence[datetime], end: datetime) -> int:
    return bisect_right(times, end)


def find_survivors(connection: Connection, threshold: float) -> Survivors:
    """Read which processes are registered, and which of them have beaten within ``threshold`` seconds."""
    columns = processes.c
    query = select(columns.hostname, columns.created_at, (columns.last_heartbeat_at > ago(threshold)).label("alive"))
    return Survivors(_Registered(hostname, at, bool(alive)) for hostname, at, alive in connection.execute(query))
