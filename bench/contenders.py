"""Who takes part in a row, with which setting, and how much of it: what the files of rows share."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from types import ModuleType
from typing import Any

import ours
import plain
import plain_mysql
import watch
from figures import Contender
from rivals import Peer
from stage import Stage

ONE_BY_ONE = 10_000  # more jobs than this are not given to a peer that moves them one at a time
PLAIN = {"PostgreSQL": plain, "MariaDB": plain_mysql}


@dataclass(frozen=True)
class Plan:
    """How much of it: jobs of a drain, sizes of what recovery moves, runs, and who takes part."""

    stage: Stage
    peers: Sequence[Peer]
    workers: Sequence[str]  # options of jq work, each a contender of its own
    jobs: int
    sizes: Sequence[int]
    runs: int
    latencies: int
    long: int
    rates: Sequence[int]  # enqueues a second
    idle: Sequence[int]  # workers without a job
    default_thresholds: bool  # whether the slow settings of the row recovery-time are measured, too

    @property
    def recovered(self) -> Sequence[int]:
        """How many jobs prune and retry move; how that grows is shown on PostgreSQL."""
        return self.sizes if self.stage.name == "PostgreSQL" else self.sizes[:1]

    @property
    def sql(self) -> ModuleType | None:
        """The module of plain SQL for this database, if there is one."""
        return PLAIN.get(self.stage.name)


def jq(setting: str, jobs: int, start: Callable[[], str], work: Callable[[str], Any]) -> Contender:
    """Let jq take part."""
    return Contender("jq", setting, jobs, start, work)


def plain_sql(
    plan: Plan, setting: str, jobs: int, start: Callable[[], str], verb: str, **given: int
) -> list[Contender]:
    """Let plain SQL do a verb where it is written for the database."""
    if plan.sql is None:
        return []
    return [Contender("plain SQL", setting, jobs, start, partial(getattr(plan.sql, verb), **given))]


def theirs(plan: Plan, verb: str, jobs: int, state: str) -> Iterator[Contender]:
    """Let each peer do a verb with each setting that it names, from its tables or from so many jobs in a state."""
    for peer in plan.peers:
        count = int(jobs * peer.about.get("share", 1)) if verb == "drain" else jobs
        for setting, given in settings_of(peer, verb):
            work: Callable[[str], Any] = partial(ask, peer, verb, given)
            if verb == "drain":
                work = partial(peer_drain, plan.stage, peer, given, count)
            elif verb == "enqueue":
                work = partial(ask, peer, verb, given | {"count": count})
            each = Contender(peer.name, setting, count, partial(prepared, plan.stage, peer, state, count), work)
            if peer.about.get("one_by_one") and verb != "drain" and count > ONE_BY_ONE:
                each.error = "not run: one job at a time"
            yield each
        yield from absent(peer, verb)


def settings_of(peer: Peer, verb: str) -> list[Any]:
    """Return the settings, each with its label, under which a peer is measured, none if it takes no part."""
    found = peer.settings(verb)
    return [] if isinstance(found, str) else found


def absent(peer: Peer, verb: str) -> list[Contender]:
    """Say why a peer takes no part."""
    found = peer.settings(verb)
    return [Contender(peer.name, "", 1, str, float, error=found)] if isinstance(found, str) else []


def each_peer(
    plan: Plan,
    verb: str,
    work: Callable[[Peer, dict[str, Any], str], Any],
    state: str = "empty",
    count: int = 0,
    *,
    settings: Callable[[Peer, str], list[Any]] = settings_of,
) -> Iterator[Contender]:
    """Let each peer do this work with each of its settings, from its tables or from so many jobs in a state."""
    for peer in plan.peers:
        start = partial(prepared, plan.stage, peer, state, count)
        for setting, given in settings(peer, verb):
            yield Contender(peer.name, setting, 1, start, partial(work, peer, given))
        yield from absent(peer, verb)


def prepared(stage: Stage, peer: Peer, state: str, count: int = 0) -> str:
    """Return the name of a peer's database: its tables alone, or with so many jobs."""
    tables = stage.prepared(peer.name, partial(peer.ask, "install"))
    if state == "empty":
        return tables
    return stage.prepared(f"{peer.name}_{state}_{count}", partial(peer.ask, state, count=count), tables)


def ask(peer: Peer, verb: str, given: dict[str, Any], url: str) -> float:
    """Let a peer do a verb; return its seconds."""
    seconds: float = peer.ask(verb, url, **given)
    return seconds


def peer_drain(stage: Stage, peer: Peer, given: dict[str, Any], count: int, url: str) -> watch.Drain:
    """Drain a peer's queue with one worker."""
    settled = partial(stage.settled, url, peer.about["done"])
    return watch.drain(peer.command("work", **given), peer.environment(url), settled, count)


def our_drain(stage: Stage, options: str, count: int, url: str) -> watch.Drain:
    """Drain our queue with one ``jq work``."""
    return watch.drain(ours.command(options), ours.environment(url), partial(stage.settled, url, ours.DONE), count)
