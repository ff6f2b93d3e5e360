"""What the doctor says of the database itself: its settings, its engine, its file."""

from pathlib import Path
from typing import Any, cast

import pytest
from sqlalchemy import Connection, create_engine, text

from solidjq import Database
from solidjq.database import notices
from solidjq.database.setup import initialize
from solidjq.database.tables import jobs
from solidjq.database.urls import parse_url
from solidjq.doctor import checks as doctor_checks
from solidjq.doctor import examine as doctor
from solidjq.doctor import postgresql, sqlite, storage
from solidjq.doctor.checks import DoctorCheck, DoctorTerms, Severity
from support.doctor import findings
from support.queue import add_jobs, plain_jobs
from support.servers import execute


@pytest.mark.only_on("postgresql", "mariadb")
def test_the_settings_of_a_server_can_be_asked(database: Database) -> None:
    names = [check.name for check in storage.CHECKS]
    results = doctor.examine(database, doctor.choose(names), DoctorTerms(), wait=lambda _: None)
    assert not [result for result in results if result.skipped]


@pytest.mark.only_on("postgresql")
def test_fsync_off_is_an_error(database: Database) -> None:
    """The server of the tests runs without."""
    assert [(f.severity, "fsync is off" in f.what) for f in findings(database, "durability")] == [
        (Severity.ERROR, True)
    ]


@pytest.mark.only_on("postgresql")
def test_settings_of_the_role(database: Database) -> None:
    name = database.url.database
    execute(
        database.url,
        f"ALTER DATABASE {name} SET statement_timeout = '2s'",
        f"ALTER DATABASE {name} SET default_transaction_isolation = 'serializable'",
        f"ALTER DATABASE {name} SET synchronous_commit = off",
    )
    other = Database(database.url)
    (timeout,) = findings(other, "timeouts")
    assert "statement_timeout is 2000 ms" in timeout.what
    (isolation,) = findings(other, "isolation")
    assert "serializable" in isolation.what
    assert ["synchronous_commit" in finding.what for finding in findings(other, "durability")] == [False, True]
    other.close()


@pytest.mark.only_on("postgresql")
def test_what_takes_too_long_or_is_refused_is_skipped(database: Database) -> None:
    def sleep(connection: Any, _terms: DoctorTerms) -> Any:
        connection.execute(text("SELECT pg_sleep(30)"))
        yield from ()

    def forbidden(connection: Any, _terms: DoctorTerms) -> Any:
        connection.execute(text("SET LOCAL ROLE pg_read_all_stats"))
        connection.execute(jobs.select())
        yield from ()

    look = doctor.choose(["orphans"])[0]
    checks = [
        DoctorCheck(name="slow", asks="", why="", advice="", finds={"postgresql": sleep}),
        DoctorCheck(name="secret", asks="", why="", advice="", finds={"postgresql": forbidden}),
        look,
    ]
    slow, secret, orphans = doctor.examine(database, checks, DoctorTerms(patience=2))  # enough for the other two
    assert "longer than 2 s" in str(slow.skipped)
    assert "permission denied" in str(secret.skipped)
    assert orphans.healthy


@pytest.mark.sqlite_only
def test_a_slow_check_of_a_file_is_skipped(database: Database) -> None:
    def count(connection: Any, _terms: DoctorTerms) -> Any:
        connection.execute(text("WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT max(i) FROM n"))
        yield from ()

    check = DoctorCheck(name="slow", asks="", why="", advice="", finds={"sqlite": count})
    assert "longer" in str(doctor.examine(database, [check], DoctorTerms(patience=0.1))[0].skipped)
    assert findings(database, "orphans") == []


@pytest.mark.only_on("mariadb")
def test_a_slow_check_on_mariadb_is_skipped(database: Database) -> None:
    def count(connection: Any, _terms: DoctorTerms) -> Any:
        one = "information_schema.collations"
        connection.execute(text(f"SELECT count(*) FROM {one} a, {one} b, {one} c, {one} d"))  # noqa: S608
        yield from ()

    check = DoctorCheck(name="slow", asks="", why="", advice="", finds={"mysql": count})
    assert "longer" in str(doctor.examine(database, [check], DoctorTerms(patience=0.2))[0].skipped)
    assert findings(database, "orphans") == []


@pytest.mark.only_on("mariadb")
def test_another_engine(bare: Database) -> None:
    assert findings(bare, "engine") == []
    execute(bare.url, "ALTER TABLE solid_queue_pauses DROP INDEX index_solid_queue_pauses_on_queue_name, ENGINE=MyISAM")
    (found,) = findings(bare, "engine")
    assert "solid_queue_pauses" in found.what


@pytest.mark.sqlite_only
def test_a_journal_that_hurts(database: Database) -> None:
    assert findings(database, "journal", "integrity", "file-system", "bloat") == []
    database.close()
    execute(database.url, "PRAGMA journal_mode = DELETE")
    (found,) = findings(database, "journal")
    assert "delete" in found.what


@pytest.mark.sqlite_only
def test_a_damaged_file(database: Database) -> None:
    add_jobs(database, *plain_jobs(500))
    execute(database.url, "PRAGMA wal_checkpoint(TRUNCATE)")
    with create_engine(database.url).connect() as connection:
        page = connection.exec_driver_sql(
            "SELECT rootpage FROM sqlite_master WHERE name = 'index_solid_queue_jobs_on_class_name'"
        ).scalar_one()
    database.close()
    path = Path(str(database.url.database))
    with path.open("r+b") as file:
        file.seek((page - 1) * 4096 + 8)
        file.write(b"\xff" * 60)
    result = doctor.examine(database, doctor.choose(["integrity"]), DoctorTerms(), wait=lambda _: None)[0]
    assert "damaged" in result.findings[0].what


def test_a_file_that_everybody_may_reach(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "queue.sqlite3"
    database = Database(parse_url(f"sqlite:{path}"))
    initialize(database)
    assert findings(database, "file-access") == []
    path.chmod(0o644)
    assert findings(database, "file-access") == []  # nobody else may enter the folder of the tests
    modes = sqlite._mode
    monkeypatch.setattr(sqlite, "_mode", lambda place: modes(place) | (0o111 if place.is_dir() else 0))
    (read,) = findings(database, "file-access")
    assert (read.severity, read.advice) == (Severity.WARNING, f"chmod o-rwx {path}")
    path.chmod(0o666)
    (written,) = findings(database, "file-access")
    assert (written.severity, "may write" in written.what) == (Severity.ERROR, True)
    path.chmod(0o660)
    assert findings(database, "file-access") == []
    database.close()


def test_file_systems() -> None:
    mounts = [
        "/dev/sda1 / ext4 rw 0 0",
        "nas:/export /srv/with\\040space nfs4 rw 0 0",
        "/dev/sdb1 /srv/with\\040space/local xfs rw 0 0",
    ]
    kinds = [
        sqlite.file_system(Path(path), mounts)
        for path in ("/srv/with space/queue.sqlite3", "/srv/with space/local/queue.sqlite3", "/srv/queue.sqlite3")
    ]
    assert kinds == ["nfs4", "xfs", "ext4"]
    assert kinds[0] in sqlite.NETWORKED


def test_connections() -> None:
    assert list(doctor_checks.judge_connections(89, 100)) == []
    assert len(list(doctor_checks.judge_connections(90, 100))) == 1


def test_deadlocks() -> None:
    def judged(deadlocks: int, seconds: float | None) -> list[Severity]:
        return [finding.severity for finding in doctor_checks.judge_deadlocks(deadlocks, seconds)]

    day = 86_400.0
    assert [judged(23, day), judged(24, day), judged(240, day)] == [[], [Severity.NOTE], [Severity.WARNING]]
    assert judged(9, 60) == [Severity.NOTE]  # of the first hour
    assert [judged(999, None), judged(1000, None)] == [[], [Severity.NOTE]]


def test_commits_that_notify() -> None:
    assert list(doctor_checks.judge_notifying(199.9, 2, triggered=True)) == []
    (finding,) = doctor_checks.judge_notifying(1234.5, 0, triggered=True)
    assert (finding.severity, "about 1234 transactions a second" in finding.what) == (Severity.WARNING, True)
    (finding,) = doctor_checks.judge_notifying(40.0, 3, triggered=True)  # on a slow disk
    assert "3 wait to notify" in finding.what
    assert list(doctor_checks.judge_notifying(1234.5, 2, triggered=False)) == []
    (finding,) = doctor_checks.judge_notifying(0.0, 3, triggered=False)
    assert "3 transactions wait to notify" in finding.what
    assert "--no-notify" not in finding.advice


@pytest.mark.only_on("postgresql")
def test_who_waits_to_notify_without_the_trigger(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are looked at again only if there were three; whoever is gone by then does not count."""
    numbers: list[int] = []
    looked = postgresql._notifying
    monkeypatch.setattr(postgresql, "COUNTED", 0.0)

    def look(*given: Any) -> postgresql._Notifying:
        return looked(*given)._replace(waiting=numbers.pop(0), at=float(-len(numbers)))

    monkeypatch.setattr(postgresql, "_notifying", look)
    for waiting, found in (([2], 0), ([9, 2], 0), ([9, 3], 1)):
        numbers[:] = waiting
        assert len(findings(database, "notifications")) == found, waiting
        assert numbers == []


@pytest.mark.only_on("postgresql")
def test_the_trigger_where_many_enqueue(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """Any commit that inserts a ready row counts here; what is inserted comes between the two readings."""
    between: list[str] = []

    def wait(connection: Connection) -> None:
        execute(database.url, *between, "SELECT pg_stat_force_next_flush()")
        waited(connection)

    waited = postgresql._wait
    monkeypatch.setattr(postgresql, "_wait", wait)
    monkeypatch.setattr(postgresql, "COUNTED", 0.0)
    monkeypatch.setattr(doctor_checks, "MANY_NOTIFYING", 1e-6)
    add_jobs(database, *plain_jobs(2))
    execute(
        database.url,
        "CREATE TABLE saved AS SELECT * FROM solid_queue_ready_executions",
        "DELETE FROM solid_queue_ready_executions",
    )
    between.append("INSERT INTO solid_queue_ready_executions SELECT * FROM saved")
    assert findings(database, "notifications") == []  # no trigger
    execute(database.url, "DELETE FROM solid_queue_ready_executions")
    notices.install(database)
    (finding,) = findings(database, "notifications")
    assert "jq init --no-notify" in finding.advice
    between[:] = ["UPDATE solid_queue_jobs SET priority = 1"]  # a commit that notifies nobody
    assert findings(database, "notifications") == []
    execute(
        database.url,
        "ALTER TABLE solid_queue_ready_executions DISABLE TRIGGER USER",
        "DELETE FROM solid_queue_ready_executions",
    )
    between[:] = ["INSERT INTO solid_queue_ready_executions SELECT * FROM saved"]
    assert findings(database, "notifications") == []


def test_connections_of_others_in_clear_text(monkeypatch: pytest.MonkeyPatch) -> None:
    """PostgreSQL's query leaves out those of its own host; each role and host is a note."""
    rows = [("app", "10.0.0.5", 12), ("report\x1b[31m", "10.0.0.6", 1)]
    monkeypatch.setattr(postgresql, "fetch_rows", lambda *_: rows)
    several, one = postgresql.find_clear_text(cast("Any", None), DoctorTerms())
    assert several.what == "12 connections of app from 10.0.0.5 are not encrypted"
    assert one.what == "1 connection of report\\x1b[31m from 10.0.0.6 is not encrypted"
    assert {several.severity, one.severity} == {Severity.NOTE}
