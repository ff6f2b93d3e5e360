"""The faults, as a table: what each does, on which databases, for how long, and what it may lead to.

A strike is a context manager: it breaks something, gives the pids that it concerns, and at its end mends it (or
concerns more).
"""

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from random import Random

from fleet import THRESHOLD, Fleet
from servers import Database

from support.proxies import Proxy
from support.runtime import is_running
from support.waiting import until

SHORT, LONG = (0.2, 1.5), (THRESHOLD + 1, THRESHOLD + 3)  # seconds: others take nobody for dead, or may
SERVERS = ("postgresql", "mariadb")
EVERY = ("sqlite", *SERVERS)
FAKETIME = next(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"), None)
SKEWED = Path(__file__).parent / "skewed"
HOUR = 3600


@dataclass
class World:
    """What a fault may break."""

    database: Database
    fleet: Fleet
    proxy: Proxy | None
    random: Random
    kills: int = 0  # processes of jq work that were killed
    ended: int = 0  # sessions that were terminated


Strike = Callable[[World], AbstractContextManager[list[int]]]


@dataclass(frozen=True)
class Fault:
    """A row of the table; ``kills`` if what a job did just before may be forgotten with its process."""

    name: str
    about: str
    databases: tuple[str, ...]
    seconds: tuple[float, float]
    strike: Strike
    kills: bool = False


TABLE: list[Fault] = []


def fault(
    name: str,
    about: str,
    databases: tuple[str, ...] = EVERY,
    seconds: tuple[float, float] = SHORT,
    *,
    kills: bool = False,
) -> Callable[[Callable[[World], Iterator[list[int]]]], None]:
    """Enter a strike into the table."""

    def enter(strike: Callable[[World], Iterator[list[int]]]) -> None:
        TABLE.append(Fault(name, about, databases, seconds, contextmanager(strike), kills))

    return enter


def _kill(world: World, pids: list[int]) -> None:
    world.fleet.send(signal.SIGKILL, pids)
    until(lambda: not any(is_running(pid) for pid in pids), "the killed processes are gone")
    world.kills += len(pids)


@fault("kill children", "SIGKILL of one to three workers or dispatchers at once", seconds=(0.1, 0.6), kills=True)
def _(world: World) -> Iterator[list[int]]:
    children = until(
        lambda: [pid for one in world.fleet.supervisors for pid in one.children()], "a supervisor has a child"
    )
    chosen = world.random.sample(children, min(world.random.randint(1, 3), len(children)))
    _kill(world, chosen)
    yield chosen


@fault("kill a supervisor", "SIGKILL of a supervisor alone; its children stop by themselves")
def _(world: World) -> Iterator[list[int]]:
    lost = world.random.choice(world.fleet.supervisors)
    _kill(world, [lost.process.pid])
    yield []
    world.fleet.replace(lost)


@fault("kill a tree", "SIGKILL of a supervisor and its children at once: the host is lost", kills=True)
def _(world: World) -> Iterator[list[int]]:
    lost = world.random.choice(world.fleet.supervisors)
    pids = lost.tree()
    _kill(world, pids)
    yield pids
    world.fleet.replace(lost)


@fault("freeze a child", "SIGSTOP, and SIGCONT before others take it for dead")
def _(world: World) -> Iterator[list[int]]:
    pids = world.random.choice(world.fleet.supervisors).children()[:1]
    world.fleet.send(signal.SIGSTOP, pids)
    yield pids
    world.fleet.send(signal.SIGCONT, pids)


@fault("freeze a tree", "SIGSTOP of a supervisor and its children until others take them for dead", seconds=LONG)
def _(world: World) -> Iterator[list[int]]:
    pids = world.random.choice(world.fleet.supervisors).tree()
    world.fleet.send(signal.SIGSTOP, pids)
    yield pids
    world.fleet.send(signal.SIGCONT, pids)


@fault("terminate sessions", "every session of the database is killed by its server, several times", SERVERS)
def _(world: World) -> Iterator[list[int]]:
    world.ended += world.database.terminate_sessions()
    yield []
    world.ended += world.database.terminate_sessions()


@fault("cut", "the proxy closes every connection, and refuses others", SERVERS)
def _(world: World) -> Iterator[list[int]]:
    assert world.proxy is not None
    world.proxy.cut()
    yield world.fleet.everybody(remote_only=True)
    world.proxy.heal()


@fault("cut for long", "the same until others take the workers behind it for dead", SERVERS, LONG)
def _(world: World) -> Iterator[list[int]]:
    assert world.proxy is not None
    world.proxy.cut()
    yield world.fleet.everybody(remote_only=True)
    world.proxy.heal()


@fault("blackhole", "the proxy forwards nothing without a word, then goes on", SERVERS)
def _(world: World) -> Iterator[list[int]]:
    assert world.proxy is not None
    world.proxy.silence()
    yield world.fleet.everybody(remote_only=True)
    world.proxy.heal(closing=world.random.random() < 0.5)


@fault("blackhole for long", "the same until others take the workers behind it for dead", SERVERS, LONG)
def _(world: World) -> Iterator[list[int]]:
    assert world.proxy is not None
    world.proxy.silence()
    yield world.fleet.everybody(remote_only=True)
    world.proxy.heal(closing=world.random.random() < 0.5)


@fault("delay", "the proxy forwards each packet 10 to 100 ms later", SERVERS)
def _(world: World) -> Iterator[list[int]]:
    assert world.proxy is not None
    world.proxy.delay = world.random.uniform(0.01, 0.1)
    yield world.fleet.everybody(remote_only=True)
    world.proxy.heal()


@fault("reset", "the proxy resets every connection, at any moment of a transaction", SERVERS, (0.0, 0.2))
def _(world: World) -> Iterator[list[int]]:
    assert world.proxy is not None
    world.proxy.reset()
    yield []
    world.proxy.reset()


@fault("restart the server", "it ends every session and starts again", SERVERS, (0.0, 0.5))
def _(world: World) -> Iterator[list[int]]:
    everybody = world.fleet.everybody()
    world.database.restart()
    yield everybody


@fault("crash the server", "it is killed and recovers from its log", SERVERS, (0.0, 0.5))
def _(world: World) -> Iterator[list[int]]:
    everybody = world.fleet.everybody()
    world.database.crash()
    yield everybody


@fault("read-only", "the database takes no writes, as after a failover", SERVERS)
def _(world: World) -> Iterator[list[int]]:
    with world.database.read_only():
        yield world.fleet.everybody()


@fault("full disk", "the file system of the tables has no space left (a small tmpfs)")
def _(world: World) -> Iterator[list[int]]:
    with world.database.full_disk():
        yield world.fleet.everybody()


@fault("lock", "another session locks the tables; waiting for it times out after a second", seconds=(1, 2.5))
def _(world: World) -> Iterator[list[int]]:
    with world.database.locked():
        yield world.fleet.everybody()


@fault(
    "clock skew",
    "a third supervisor has a clock that is an hour wrong (libfaketime); then its host is lost",
    SERVERS,  # the clock of SQLite is that of its one host
    (3, 6),
    kills=True,
)
def _(world: World) -> Iterator[list[int]]:
    skew = world.random.choice([-HOUR, HOUR])
    faking = {"LD_PRELOAD": str(FAKETIME), "FAKETIME": f"{skew:+d}", "DONT_FAKE_MONOTONIC": "1"}
    faking["PYTHONPATH"] = f"{SKEWED}:{world.fleet.environment(world.fleet.url)['PYTHONPATH']}"
    skewed = world.fleet.start(remote=False, environment=faking)
    pids: list[int] = []
    yield pids
    pids += skewed.tree()
    _kill(world, pids)
    skewed.process.wait()
    world.fleet.supervisors.remove(skewed)


def faults_of(world: World) -> list[Fault]:
    """Return the faults that can be made here."""
    impossible = set()
    if FAKETIME is None:
        impossible.add("clock skew")
    if not world.database.is_small or os.geteuid() != 0:
        impossible.add("full disk")
    return [one for one in TABLE if world.database.kind in one.databases and one.name not in impossible]
