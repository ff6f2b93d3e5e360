"""What a watch tells: each death, incident and group once, whenever its rows commit and however often it restarts."""

import json
import uuid
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, insert, update

from solidjq import Database, NewJob
from solidjq.database.tables import deaths, failed
from solidjq.database.tables import jq as ledger_tables
from solidjq.database.times import utcnow
from solidjq.errors import RefusedError, UsageError
from solidjq.processes import pruning
from solidjq.rails.error_text import error_json, exit_error
from solidjq.watching import news, recent_deaths
from solidjq.watching.deliveries import Deliveries
from solidjq.watching.events import Choice
from solidjq.watching.position_file import PositionFile, default_path
from solidjq.watching.programs import Program
from solidjq.watching.watch import Watch, WatchTerms
from support.deaths import die
from support.processes import add_process
from support.queue import add_jobs, claim_all, plain_jobs, rows

Look = Callable[..., list[dict[str, Any]]]


@pytest.fixture
def look(database: Database, tmp_path: Path) -> Look:
    """Give a function that starts a watch, lets it tell what is new, and ends it."""
    file = PositionFile(tmp_path / "position.json")

    def run(**terms: Any) -> list[dict[str, Any]]:
        told: list[dict[str, Any]] = []
        Watch(database, file, WatchTerms(**terms), told.append, print).run_once()
        return told

    assert run() == []  # it begins here
    return run


def titles(messages: list[dict[str, Any]]) -> list[tuple[str, str, int]]:
    return [(one["kind"], one["name"], one["jobs_total"]) for one in messages]


def names(database: Database) -> list[str]:
    return [f"d{row['id']}" for row in rows(database, deaths)]


def fail(database: Database, message: str, *, class_name: str = "PlainJob", queue_name: str = "default") -> int:
    (job_id,) = add_jobs(database, NewJob(class_name=class_name, queue_name=queue_name))
    with database.write() as connection:
        insert_failure(connection, job_id, error_json("ArgumentError", message))
    return job_id


def insert_failure(connection: Connection, job_id: int, error: str) -> None:
    connection.execute(insert(failed).values(job_id=job_id, error=error, created_at=utcnow()))


def test_deaths_incidents_and_groups_are_told_once(database: Database, look: Look) -> None:
    (mail, report) = add_jobs(
        database,
        NewJob(class_name="MailJob", args=["secret argument"], queue_name="mailers"),
        NewJob(class_name="ReportJob"),
    )
    die(database, hostname="web-1", pid=77)
    worker = add_process(database)
    claimed = add_jobs(database, *plain_jobs(2))
    claim_all(database, worker)
    database.transact(pruning.fail_exited, worker, pid=4242, returncode=-9)
    one = fail(database, "no such shop 17")
    fail(database, "no such shop 18")
    messages = look()
    pruned, reaped = names(database)
    assert titles(messages) == [
        ("death", pruned, 2),
        ("incident", pruned, 2),
        ("death", reaped, 2),
        ("incident", reaped, 2),
        ("group", messages[4]["name"], 2),
    ]
    first, second, group = messages[0], messages[3], messages[4]
    assert [(job["job_id"], job["class_name"], job["queue_name"]) for job in first["jobs"]] == [
        (mail, "MailJob", "mailers"),
        (report, "ReportJob", "default"),
    ]
    assert all(job["active_job_id"] and job["failure_id"] for job in first["jobs"])
    assert first["title"].startswith("Worker pid 77 on web-1 died: its heartbeat stopped, ")
    assert "SIGKILL" in messages[2]["title"]
    assert [job["job_id"] for job in second["jobs"]] == claimed
    assert second["next"] == [f"solidjq incidents show {reaped}", f"solidjq retry --safe {reaped} --dry-run"]
    assert group["error"] == "ArgumentError: no such shop <n>"
    assert group["next"][0] == f"solidjq failed show {one}"
    assert "secret argument" not in json.dumps(messages)
    assert len({message["id"] for message in messages}) == len(messages)
    assert look() == []
    fail(database, "no such shop 19")  # a known group
    assert look() == []
    fail(database, "another")
    assert [kind for kind, *_ in titles(look())] == ["group"]


def test_only_what_is_chosen(database: Database, look: Look) -> None:
    add_jobs(database, NewJob(class_name="MailJob", queue_name="mailers"), NewJob(class_name="ReportJob"))
    die(database)
    fail(database, "no", class_name="MailJob", queue_name="mailers")
    die(database)  # nobody's death: an idle worker
    chosen = look(choice=Choice(classes=("Mail*",)))
    assert [(kind, count) for kind, _, count in titles(chosen)] == [("death", 1), ("incident", 1), ("group", 1)]
    assert {job["class_name"] for message in chosen for job in message["jobs"]} == {"MailJob"}
    add_jobs(database, NewJob(class_name="MailJob", queue_name="mailers"))
    die(database)
    assert look(choice=Choice(queues=("default",))) == []
    die(database)
    assert [kind for kind, *_ in titles(look(kinds=("death",)))] == ["death"]


def test_deaths_that_rails_noticed(database: Database, look: Look) -> None:
    """Rails writes one failure after the other: those that a later look finds belong to the death that was told."""
    ids = add_jobs(database, *plain_jobs(3))
    error = exit_error(77, -9)

    def by_rails(*job_ids: int) -> None:
        with database.write() as connection:
            for job_id in job_ids:
                insert_failure(connection, job_id, error)

    by_rails(*ids[:2])
    death, incident = look()
    assert (death["kind"], death["name"][0], death["jobs_total"], incident["name"]) == ("death", "f", 2, death["name"])
    by_rails(ids[2])
    (more,) = look()  # no other incident
    assert (more["kind"], more["name"], more["incident"]) == ("death", death["name"], death["name"])
    assert [job["job_id"] for job in more["jobs"]] == ids[2:]
    assert more["id"] != death["id"]
    assert look() == []


def test_without_a_ledger(database: Database, look: Look) -> None:
    """The tables of ``jq`` may be missing, or made while it watches."""
    with database.write() as connection:
        ledger_tables.drop_all(connection)
    add_jobs(database, *plain_jobs(1))
    die(database)
    assert [kind for kind, *_ in titles(look())] == ["death", "incident"]
    with database.write() as connection:
        ledger_tables.create_all(connection)
    add_jobs(database, *plain_jobs(1))
    die(database, silent=5000)
    assert titles(look()) == [("death", "d1", 1), ("incident", "d1", 1)]


@pytest.mark.only_on("postgresql", "mariadb")
def test_rows_that_commit_out_of_order(database: Database, look: Look) -> None:
    ids = add_jobs(database, *plain_jobs(6))
    errors = [error_json("ArgumentError", word) for word in ("one", "two", "three", "four", "five", "six")]
    rows = list(zip(ids, errors, strict=True))

    def of_groups(messages: list[dict[str, Any]]) -> list[str]:
        return [message["error"].split()[-1] for message in messages]

    with database.write() as early, database.write() as later:
        insert_failure(early, *rows[0])
        insert_failure(later, *rows[1])
        with database.write() as connection:
            insert_failure(connection, *rows[2])
        assert of_groups(look()) == ["three"]
        insert_failure(early, *rows[3])
        with database.write() as connection:
            insert_failure(connection, *rows[4])
        assert of_groups(look()) == ["five"]
        later.commit()
        assert of_groups(look()) == ["two"]
    assert of_groups(look()) == ["one", "four"]
    assert look() == []


@pytest.mark.only_on("postgresql", "mariadb")
def test_a_death_that_commits_late(database: Database, look: Look) -> None:
    first, second = (add_process(database, f"worker-{uuid.uuid4()}") for _ in range(2))
    with database.write() as early:
        pruning.fail_exited(early, first, pid=1, returncode=-9)
        database.transact(pruning.fail_exited, second, pid=2, returncode=-9)
        (told,) = names(database)
        assert {name for _, name, _ in titles(look())} == {told}
    late, told = names(database)
    assert ("death", late, 0) in titles(look())
    assert look() == []


def test_a_look_that_breaks_loses_nothing(database: Database, look: Look, monkeypatch: pytest.MonkeyPatch) -> None:
    """The database goes away between reading rows and judging them; the reader of the output leaves."""
    add_jobs(database, *plain_jobs(1))
    die(database)
    for place in ("find_recorded", "signatures_of"):
        with monkeypatch.context() as patch:
            patch.setattr(news, place, lambda *_: (_ for _ in ()).throw(OSError("gone")))
            with pytest.raises(OSError, match="gone"):
                look()
    assert len(look()) == 2


def test_among_many_deaths_a_look_reads_the_new_ones_alone(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It tells the same as a watch that reads all of the last minutes."""
    reads: list[object] = []
    read = recent_deaths.each_recorded
    monkeypatch.setattr(recent_deaths, "each_recorded", lambda *args, **more: reads.append(more) or read(*args, **more))
    told: list[dict[str, Any]] = []
    begin = database.now()

    def watch(name: str) -> Watch:
        return Watch(database, PositionFile(tmp_path / name), WatchTerms(since=begin), told.append, print)

    one = watch("one")
    for silent in (1000, 1001, 5000, 1002):
        add_jobs(database, *plain_jobs(1))
        die(database, silent=silent)
        one._look(None)
    assert len(reads) == 1
    incidents = {message["name"]: message["incident"] for message in told if message["kind"] == "death"}
    first, second, third, fourth = names(database)
    assert incidents == {first: first, second: first, third: third, fourth: first}
    told.clear()
    watch("other")._look(None)
    assert {message["name"]: message["incident"] for message in told if message["kind"] == "death"} == incidents


def test_more_than_a_page(database: Database, look: Look, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(news, "PAGE", 3)
    for number in range(10):
        fail(database, f"{'abcdefghij'[number] * 5} is missing", class_name=f"Job{number}")
    die(database)
    found = look()
    groups = [message for message in found if message["kind"] == "group"]
    # From one place in the code, and different in a word: after a few it is one problem.
    assert len(groups) == 5
    assert look() == []


def test_where_a_first_start_begins(database: Database, tmp_path: Path) -> None:
    def first(since: timedelta | None) -> list[dict[str, Any]]:
        told: list[dict[str, Any]] = []
        begin = None if since is None else database.now() - since
        file = PositionFile(tmp_path / f"{uuid.uuid4()}.json")
        Watch(database, file, WatchTerms(since=begin), told.append, print).run_once()
        return told

    words = ("alpha", "beta", "gamma", "delta")
    ids = [fail(database, f"{word} is missing", class_name=f"Job{at}") for at, word in enumerate(words)]
    with database.write() as connection:
        for at, job_id in enumerate(ids):
            moment = database.now() - timedelta(hours=len(ids) - at)
            connection.execute(update(failed).where(failed.c.job_id == job_id).values(created_at=moment))
    assert first(None) == []
    assert [message["error"].split()[1] for message in first(timedelta(hours=2, minutes=30))] == ["gamma", "delta"]
    assert len(first(timedelta(days=1))) == 4
    assert first(timedelta(minutes=1)) == []


@pytest.mark.sqlite_only
def test_a_signal_while_messages_are_added_loses_none(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = PositionFile(tmp_path / "position.json")
    told: list[dict[str, Any]] = []

    def look() -> None:
        terms = WatchTerms(programs=[Program(f"sh -c 'cat >> {tmp_path}/delivered'")])
        Watch(database, file, terms, told.append, print).run_once()

    def interrupted(deliveries: Deliveries, *_: Any) -> None:
        file.save(deliveries._position)  # as a delivery does that ends meanwhile
        raise KeyboardInterrupt

    look()
    fail(database, "alpha is missing")
    with monkeypatch.context() as patched:
        patched.setattr(Deliveries, "add", interrupted)
        with pytest.raises(KeyboardInterrupt):
            look()
    look()
    assert len({message["id"] for message in told}) == 1
    assert [json.loads(line)["id"] for line in (tmp_path / "delivered").read_text().splitlines()] == [told[0]["id"]]


@pytest.mark.sqlite_only
def test_the_file_of_the_position(database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "folder" / "position.json"
    file = PositionFile(path)
    with file.locked():
        Watch(database, file, WatchTerms(), print, print).run_once()
        with pytest.raises(RefusedError, match="--name"), PositionFile(path).locked():
            pass
    assert path.stat().st_mode & 0o777 == 0o600
    for text in ("", "{}", "[" * 100_000, '{"format":1}', "[]", '{"format":1,"database":"x","deaths":{"high":"1"}}'):
        path.write_text(text)
        with pytest.raises(UsageError, match="holds no position"):
            Watch(database, PositionFile(path), WatchTerms(), print, print)
    path.unlink()
    Watch(database, PositionFile(path), WatchTerms(), print, print)
    path.write_text(path.read_text().replace(str(database.identity()), "mysql database other on db"))
    with pytest.raises(UsageError, match="mysql database other on db"):
        Watch(database, PositionFile(path), WatchTerms(), print, print)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    assert default_path("a", "n") != default_path("b", "n")
    with pytest.raises(UsageError, match="--name"):
        default_path("a", "../n")
