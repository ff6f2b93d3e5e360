"""Who still beat when a process fell silent: counted by sorted times as one by one."""

from datetime import UTC, datetime, timedelta
from random import Random
from types import SimpleNamespace

import pytest

from solidjq import Database
from solidjq.processes.survivors import Survivors, _Registered, find_survivors
from support.processes import add_process, silence

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


def one_by_one(fleet: list[_Registered], hostname: str | None, beat: datetime | None) -> dict[str, int]:
    ran = [one for one in fleet if beat is None or (one.created_at is not None and one.created_at <= beat)]
    alive, silent = ([one for one in ran if one.alive is beats] for beats in (True, False))
    hosts = {one.hostname for one in alive}
    return {
        "alive": len(alive),
        "silent": len(silent),
        "alive_here": sum(one.hostname == hostname for one in alive),
        "silent_here": sum(one.hostname == hostname for one in silent),
        "hosts_alive": len(hosts),
        "hosts_silent": len({one.hostname for one in silent} - hosts),
    }


@pytest.mark.parametrize("seed", range(20))
def test_the_counts_are_those_of_counting_one_by_one(seed: int) -> None:
    dice = Random(seed)  # noqa: S311
    hosts = ["a", "b", "c", None]

    def some_time() -> datetime | None:
        return None if dice.random() < 0.1 else NOON + timedelta(minutes=dice.randrange(20))

    fleet = [_Registered(dice.choice(hosts), some_time(), dice.random() < 0.4) for _ in range(dice.randrange(1, 15))]
    survivors = Survivors(fleet)
    for _ in range(20):
        hostname, beat = dice.choice([*hosts, "elsewhere"]), some_time()
        silent = SimpleNamespace(hostname=hostname, last_heartbeat_at=beat)
        assert survivors.of(silent) == one_by_one(fleet, hostname, beat), (fleet, hostname, beat)  # type: ignore[arg-type]


def test_the_database_says_who_beats(database: Database) -> None:
    add_process(database, "lives")
    dead = add_process(database, "dead")
    silence(database, dead, 1000)
    with database.read() as connection:
        survivors = find_survivors(connection, 300)
    unknown = SimpleNamespace(hostname="testhost", last_heartbeat_at=None)
    assert survivors.of(unknown) == {  # type: ignore[arg-type]
        "alive": 1,
        "silent": 1,
        "alive_here": 1,
        "silent_here": 1,
        "hosts_alive": 1,
        "hosts_silent": 0,
    }
