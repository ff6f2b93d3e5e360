"""Memory for very many deaths: what is held of each is counted, at two numbers of deaths, without a database."""

import tracemalloc
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

import pytest

from solidjq.incidents.claimed_jobs import UNREAD, ClassCount
from solidjq.incidents.death_queries import _silence
from solidjq.incidents.death_records import DeathRecord, FailureSpan
from solidjq.incidents.packed_deaths import IncidentDeaths, in_order, pack, unpack
from solidjq.incidents.reconstruction import death_from, reconstruct
from solidjq.incidents.stored_evidence import MOST_PARSED, StoredEvidence
from solidjq.ledger.deaths import DeathSource
from solidjq.rails.error_text import Death, exit_error, missing_error, pruned_error
from solidjq.watching import recent_deaths
from solidjq.watching.recent_deaths import RecentDeaths

NOON = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
FEW, MANY = 1_500, 3_000  # deaths; more than any cache holds
CLASSES = [f"{letter}Job" for letter in "ABCDE"]


class Row(NamedTuple):
    """A failure as the database groups it."""

    failure_id: int
    last_failure_id: int
    evidence: str
    class_name: str
    crashed_at: datetime
    job_id: int
    subject: str
    hostname: str | None = None
    pid: int | None = None
    failures: int = 1
    waiting: int = 1
    again: int = 1


def rows(deaths: int) -> Iterator[Row]:
    """Yield the failures of deaths a minute apart: five jobs of five classes each."""
    for number in range(deaths):
        error = exit_error(1000 + number, 11)
        for at, name in enumerate(CLASSES):
            id_ = number * len(CLASSES) + at + 1
            moment = NOON + timedelta(minutes=2 * number, milliseconds=at)
            yield Row(id_, id_, error, name, moment, id_, f"0b8e9c1a-0000-4000-8000-{id_:012}")


def growth(hold: Callable[[int], object]) -> float:
    """Return the bytes that ``hold`` takes at its peak for each death more."""
    peaks = []
    hold(FEW)  # caches are full
    for count in (FEW, MANY):
        tracemalloc.start()
        held = hold(count)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        del held
    return (peaks[1] - peaks[0]) / (MANY - FEW)


def test_deaths_are_put_together_one_after_the_other() -> None:
    def read(count: int) -> int:
        return sum(1 for _ in reconstruct(rows(count)))  # type: ignore[arg-type]  # rows by their names

    assert read(FEW) == FEW
    assert growth(read) < 100  # 2,300 if they were held


def test_of_a_death_that_nobody_recorded_few_bytes_are_held() -> None:
    def read(count: int) -> int:
        return sum(1 for _ in in_order(reconstruct(rows(count))))  # type: ignore[arg-type]

    assert read(FEW) == FEW
    assert growth(read) < 800  # 2,300 as records


def test_a_summary_holds_few_bytes_of_a_death_that_nobody_recorded() -> None:
    def read(count: int) -> object:
        return [IncidentDeaths([death.slim]) for death in reconstruct(rows(count))]  # type: ignore[arg-type]

    assert growth(read) < 600


def test_a_watch_holds_few_bytes_of_a_recent_death(monkeypatch: pytest.MonkeyPatch) -> None:
    evidence = '{"sample": {"interval": 60.0, "rss": 400000000, "seen": {"AJob": 1, "BJob": 2}}}'

    def recorded(number: int) -> DeathRecord:
        at = NOON + timedelta(seconds=number)
        return DeathRecord(
            name=f"d{number + 1}",
            source=DeathSource.SUPERVISOR,
            how=Death.EXITED,
            noticed_at=at,
            hostname=f"host-{number % 40}",
            signal=9,
            evidence=StoredEvidence(evidence),
        )

    def watch(count: int) -> object:
        monkeypatch.setattr(recent_deaths, "each_recorded", lambda *_, **__: map(recorded, range(count)))
        monkeypatch.setattr(recent_deaths, "list_recorded", lambda _, numbers: [recorded(n - 1) for n in numbers])
        recent, new = RecentDeaths(), recorded(count)
        beside = recent.beside(None, [new], [new.name], NOON)  # type: ignore[arg-type]  # no database is asked
        assert 1 <= len(beside) <= 3  # of its host, in the last minute
        return recent

    assert growth(watch) < 800


def test_evidence_is_parsed_when_somebody_looks() -> None:
    text = '{"threshold": 300, "sample": {"interval": 60}}'
    evidence = StoredEvidence(text)
    assert evidence == {"threshold": 300, "sample": {"interval": 60}}
    assert (list(evidence), len(evidence)) == (["threshold", "sample"], 2)
    assert dict(StoredEvidence(None)) == dict(StoredEvidence("[1]")) == dict(StoredEvidence("{")) == {}

    def read(count: int) -> object:
        texts = [StoredEvidence(f'{{"sample": {{"rss": {number}, "seen": {{}}}}}}') for number in range(count)]
        assert all(one["sample"]["seen"] == {} for one in texts)
        return texts

    assert MOST_PARSED < FEW
    assert growth(read) < 300  # 750 as objects


def reconstructed(number: int, error: str, at: datetime, **more: Any) -> DeathRecord:
    """Return a death as ``reconstruct`` makes it."""
    span = more.pop("span", FailureSpan(number, number + 3, at + timedelta(seconds=2)))
    counted = more.pop("counted", {"AJob": ClassCount(1, 0, 1, "a-1", 7), "BJob": ClassCount(3, 2, 0, "", None)})
    death = death_from(number, error, at, more.pop("hostname", None), more.pop("pid", None), counted=counted, span=span)
    assert death is not None
    return replace(death, **more)


DEATHS = [
    reconstructed(5, exit_error(123, 11), NOON),
    reconstructed(4, exit_error(123, 11), NOON, hostname="", pid=0, several=True),
    reconstructed(17, pruned_error(NOON), NOON + timedelta(minutes=9), hostname="wörker\udc80", counted={}),
    reconstructed(6, missing_error(), datetime(1969, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC), pid=2**40),
    reconstructed(
        2**40,
        pruned_error(NOON - timedelta(hours=1)),
        NOON,
        span=FailureSpan(2**40, 2**41, NOON, at_once=True, others_at=(NOON, NOON + timedelta(microseconds=1))),
        counted={"Jöb": ClassCount(2**31, 2**31, 2**31, "", 2**60)},
    ),
    reconstructed(9, exit_error(1, 1), NOON, span=FailureSpan(9, 9, once=True)),
]


def test_a_packed_death_is_read_as_it_was() -> None:
    for death in DEATHS:
        assert unpack(pack(death)) == death
        assert unpack(pack(death)).counted == death.counted
        assert unpack(pack(death)).jobs is UNREAD
    deaths = IncidentDeaths([*DEATHS, recorded := replace(DEATHS[0], name="d1", span=None)])
    assert (len(deaths), deaths[-1], deaths[1:3]) == (len(DEATHS) + 1, recorded, DEATHS[1:3])


def test_packed_deaths_sort_as_they_fell_silent() -> None:
    assert [death.name for death in in_order(DEATHS)] == [death.name for death in sorted(DEATHS, key=_silence)]


def test_only_deaths_that_were_put_together_are_packed() -> None:
    with pytest.raises(ValueError, match="d1 was recorded"):
        pack(replace(DEATHS[0], name="d1", span=None))
