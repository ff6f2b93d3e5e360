"""The file of a position: whole or refused in words, and a burst of deliveries in a line each."""

import json
import os
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import delete, insert, update

from solidjq import Database, NewJob
from solidjq.database.tables import deaths, failed
from solidjq.database.times import utcnow
from solidjq.errors import UsageError
from solidjq.files import remove_leftovers, replaced
from solidjq.rails.error_text import error_json
from solidjq.watching.deliveries import Deliveries
from solidjq.watching.outcomes import DELIVERED, Outcome
from solidjq.watching.position import Cooldown, Position, Remembered, Silence, Waiting
from solidjq.watching.position_file import PositionFile
from solidjq.watching.watch import Watch, WatchTerms
from support.deaths import die
from support.queue import add_jobs, plain_jobs

MESSAGE = {"id": "jq-1", "kind": "group", "name": "g1", "title": "g1: boom", "database": "shop", "jobs": []}


def message(number: int) -> dict[str, Any]:
    return {**MESSAGE, "id": f"jq-{number}", "jobs_total": 0, "next": ["jq failed list"]}


class Sink:
    """A target that takes everything, or answers as it is told."""

    key, attempts = "sink", 3

    def __init__(self, *answers: Outcome) -> None:
        self.taken: list[str] = []
        self.answers = list(answers)

    def deliver(self, message: dict[str, Any]) -> Outcome:
        self.taken.append(message["id"])
        return self.answers.pop(0) if self.answers else DELIVERED


def full() -> Position:
    position = Position("here")
    position.deaths.add([3, 7], 5.0)
    position.remembered.append(Remembered(1, "error", 1.0, 2.0))
    position.cooldowns["group:g1"] = Cooldown(3.0, "title", names=["g1"])
    position.silences["4"] = Silence(1.5, seen_at=2.0)
    position.outbox["sink"] = [Waiting(message(1))]
    return position


def test_what_is_written_is_read(tmp_path: Path) -> None:
    file = PositionFile(tmp_path / "position.json")
    file.save(full())
    assert PositionFile(file.path).load("here") == full()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda data: data["deaths"].update(high="9"), "deaths.high is no whole number"),
        (lambda data: data["deaths"].update(high=True), "deaths.high is no whole number"),
        (lambda data: data["deaths"].update(high=10**30), "deaths.high is no whole number"),
        (lambda data: data["deaths"]["gaps"].append([1, 2]), "deaths.gaps[2] is no list of 3"),
        (lambda data: data["deaths"].update(gaps=[[1, 2, "x"]]), "deaths.gaps[0].noticed_at is no number"),
        (lambda data: data.pop("deaths"), "deaths is missing"),
        (lambda data: data["remembered"][0].update(last_at="now"), "remembered[0].last_at is no number"),
        (lambda data: data["remembered"][0].update(pid=[]), "remembered[0].pid is no whole number"),
        (lambda data: data.update(announced={"d1": 1}), "announced['d1'] is no text"),
        (lambda data: data.update(announced=[]), "announced is no object"),
        (lambda data: data.update(groups={"g": "x"}), "groups['g'] is no object"),
        (lambda data: data["cooldowns"]["group:g1"].update(until=float("nan")), "until is no number"),
        (lambda data: data["cooldowns"]["group:g1"].update(names="g1"), "names is no list"),
        (lambda data: data["cooldowns"]["group:g1"].pop("until"), "until is missing"),
        (lambda data: data["silences"]["4"].update(beat="x"), "silences['4'].beat is no number"),
        (lambda data: data.update(contact=3), "contact is no object"),
        (lambda data: data["outbox"]["sink"][0].update(message=[]), "outbox['sink'][0].message is no object"),
        (lambda data: data["outbox"]["sink"][0]["message"].pop("id"), "outbox['sink'][0].message.id is no text"),
        (lambda data: data["outbox"]["sink"][0]["message"].update(jobs=[1]), "message.jobs is no list"),
    ],
)
def test_a_part_of_another_type_is_refused_in_words(
    tmp_path: Path, change: Callable[[dict[str, Any]], object], words: str
) -> None:
    file = PositionFile(tmp_path / "position.json")
    file.save(full())
    data = json.loads(file.path.read_text())
    change(data)
    file.path.write_text(json.dumps(data))
    with pytest.raises(UsageError) as refused:
        PositionFile(file.path).load("here")
    assert words in str(refused.value)
    assert "holds no position" in str(refused.value)


def test_a_burst_of_deliveries_writes_a_line_each(tmp_path: Path) -> None:
    """A crash after any of them repeats none; the next save takes the lines in."""
    file, sink, said = PositionFile(tmp_path / "position.json"), Sink(Outcome("down", again=True)), list[str]()
    position = Position("here")
    deliveries = Deliveries([sink], position, file, said.append)
    for number in range(300):
        deliveries.add(message(number), [sink])
    file.save(position)
    written = file.path.stat()
    notes = file.path.with_name("position.json.delivered")
    for tried in (1, 2, 200):
        while len(sink.taken) < tried:
            (first, *_) = position.outbox["sink"]
            deliveries._attempt(sink, first)
        read = PositionFile(file.path).load("here")
        assert read is not None
        left = [(waiting.message["id"], waiting.attempts) for waiting in read.outbox["sink"]]
        assert left == [(waiting.message["id"], waiting.attempts) for waiting in position.outbox["sink"]]
    assert (file.path.stat().st_ino, notes.stat().st_mode & 0o777) == (written.st_ino, 0o600)
    assert notes.stat().st_size < 200 * 100
    with notes.open("a") as cut_off:
        cut_off.write('{"target":"sink","id":"jq-2')
    again = PositionFile(file.path)
    read = again.load("here")
    assert read is not None
    assert len(read.outbox["sink"]) == len(position.outbox["sink"]) == 101
    again.note(read, "sink", read.outbox["sink"].pop(0), said.append, gone=True)
    assert not notes.exists()  # what was cut off is never written on
    assert len((PositionFile(file.path).load("here") or position).outbox["sink"]) == 100
    notes.write_text("[]\n")
    with pytest.raises(UsageError, match=r"position.json.delivered: it is no object"):
        PositionFile(file.path).load("here")


def test_what_is_replaced_is_on_the_disk_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The content before the name, and the folder after it."""
    path, synced = tmp_path / "file", list[tuple[str, bool]]()
    sync = os.fsync

    def noted(descriptor: int) -> None:
        synced.append((Path(f"/proc/self/fd/{descriptor}").resolve().suffix, path.exists()))
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", noted)
    with replaced(path) as file:
        file.write(b"content")
    assert synced == [(".tmp", False), ("", True)]


# -- ids that begin again ---------------------------------------------------------------------------------------------


def test_what_a_killed_watch_left_beside_the_position_is_removed(tmp_path: Path) -> None:
    own, other = tmp_path / "position.json", tmp_path / "other.json"
    for path in (own, other):
        if (child := os.fork()) == 0:
            with replaced(path) as file:
                file.write(b"half")
                os._exit(9)  # as SIGKILL
        os.waitpid(child, 0)
    left = {*tmp_path.iterdir()}
    assert len(left) == 2
    position_file = PositionFile(own)
    with position_file.locked():
        position_file.save(Position("here"))
    assert len(left & {*tmp_path.iterdir()}) == 1, "another file's may be written now"
    remove_leftovers(other)
    assert not left & {*tmp_path.iterdir()}


def test_ids_that_begin_again_are_followed(database: Database, tmp_path: Path) -> None:
    """The database was restored, or its tables were emptied: the position is above all ids that come."""
    file, said = PositionFile(tmp_path / "position.json"), list[str]()

    def look() -> list[tuple[str, str]]:
        told: list[dict[str, Any]] = []
        Watch(database, file, WatchTerms(), told.append, said.append).run_once()
        return [(one["kind"], one["name"]) for one in told]

    def fail(number: int, word: str, *, ahead: float = 0) -> None:
        (job_id,) = add_jobs(database, NewJob(class_name="PlainJob"))
        with database.write() as connection:
            error, now = error_json(f"{word.capitalize()}Error", "boom"), database.now()
            values = {"error": error, "created_at": now + timedelta(seconds=ahead)}
            connection.execute(insert(failed).values(id=number, job_id=job_id, **values))

    assert look() == []
    fail(4_000, "delta", ahead=2)  # the clock of an application
    fail(4_001, "epsilon")
    assert len(look()) == 2
    with database.write() as connection:
        connection.execute(delete(failed).where(failed.c.id == 4_001))
    assert (look(), said) == ([], [])
    fail(5_000, "alpha")
    add_jobs(database, *plain_jobs(1))
    die(database)
    with database.write() as connection:
        connection.execute(update(deaths).values(id=7_000))
    assert [kind for kind, _ in look()] == ["death", "incident", "group"]
    with database.write() as connection:
        connection.execute(delete(failed).where(failed.c.id >= 4_000))
    assert (look(), said) == ([], [])  # a retry deletes the newest rows, too
    fail(17, "beta", ahead=3)
    with database.write() as connection:
        values = {"kind": "Worker", "name": "w", "pid": 1, "hostname": "h", "process_id": 1, "noticed_by": "prune"}
        connection.execute(delete(deaths))
        connection.execute(insert(deaths).values(id=3, noticed_at=utcnow(), last_heartbeat_at=utcnow(), **values))
    assert [(kind, name) for kind, name in look() if kind != "group"] == [("death", "d3"), ("incident", "d3")]
    assert len(said) == 2
    assert "the ids of jq_deaths begin again: 3 is new, and 7000 was read before" in said[0]
    fail(18, "gamma", ahead=3)
    assert [kind for kind, _ in look()] == ["group"]
    assert len(said) == 2
    with database.write() as connection:
        connection.execute(delete(failed))
    for number, word in ((1, "zeta"), (2, "eta"), (18, "theta"), (30, "iota")):  # more than there were
        fail(number, word, ahead=4)
    assert len(look()) == 4
    assert "the ids of solid_queue_failed_executions begin again: 18 is new, and 18 was read before" in said[2]
    assert (look(), len(said)) == ([], 3)
