"""Whatever an operator gets wrong: the documented exit code, one line that helps, nothing done, no password told."""

import io
import os
import re
import shlex
import socket
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy import update
from sqlalchemy.engine import URL

from solidjq import Database
from solidjq.database import tables
from solidjq.database.setup import initialize
from solidjq.database.tables import operations
from solidjq.database.tables import processes as process_table
from solidjq.database.urls import EXAMPLES, url_text
from solidjq.errors import UsageError
from solidjq.queue.states import State
from solidjq.rails.error_text import missing_error
from solidjq_cli import standard_input
from support.processes import add_process, silence
from support.program import PASSWORD, Bare, Done, Shell, assert_refused
from support.queue import add_jobs, claim_all, fail, plain_jobs, rows, state_of_each
from support.rails import snapshot
from support.servers import execute

READING = ["failed list -o json", "failed show 1", "jobs show 1", "processes list", "queues list", "prune -n"]
WRITING = ["enqueue A", "prune", "retry 1", "queues pause --create mailers", "work --queues python"]
SOME = ["failed list -o json", "prune", "enqueue A"]  # once all of them are proven alike on one database
HUGE = "9" * 30


def assert_refused_by_us_or_the_database(done: Done, *words: str) -> None:
    assert done.returncode in {2, 3}, done.stderr
    assert_refused(done, done.returncode, *words)


def assert_misused(done: Done, *words: str) -> None:
    """Check that a command line was refused by its parser, in one line that names the help to read."""
    assert_refused(done, 2, *words)
    assert re.search(r"[;?] [Ss]ee: jq (.* )?--help\n$", done.stderr)


def run_each(shell: Shell, commands: list[str]) -> dict[str, Done]:
    return {command: shell.run(*command.split()) for command in commands}


# -- a database that is no queue


def test_a_database_without_tables_is_no_queue(kind: str, empty_url: URL, tmp_path: Path) -> None:
    shell = Shell(url_text(empty_url), tmp_path)
    for done in run_each(shell, [*READING, *WRITING] if kind == "sqlite" else SOME).values():
        assert_refused(done, 3, "no Solid Queue tables here", "jq init")
    assert snapshot(empty_url) == {}


@pytest.mark.sqlite_only
@pytest.mark.parametrize("output", ["table", "csv"])
def test_no_heading_is_printed_before_the_database_has_answered(empty_url: URL, tmp_path: Path, output: str) -> None:
    done = Shell(url_text(empty_url), tmp_path).run("failed", "list", "-o", output)
    assert_refused(done, 3, "no Solid Queue tables here")


def test_another_programs_table_of_that_name_is_no_queue(empty_url: URL, tmp_path: Path) -> None:
    execute(empty_url, "CREATE TABLE solid_queue_jobs (id integer)")
    assert_refused(Shell(url_text(empty_url), tmp_path).run("jobs", "show", "1"), 3, "is not a Solid Queue database")
    assert list(snapshot(empty_url)) == ["solid_queue_jobs"]


def test_without_our_own_tables_failures_are_read_and_a_retry_asks_for_them(database: Database, shell: Shell) -> None:
    (job_id,) = fail(database, *plain_jobs(1), error=missing_error())
    execute(database.url, *(f"DROP TABLE {table.name}" for table in tables.jq.sorted_tables))
    try:
        assert shell.run("failed", "list", "-o", "ids").stdout == f"{job_id}\n"
        assert_refused(shell.run("retry", str(job_id)), 3, "jq init")
        assert state_of_each(database) == {job_id: State.FAILED}
    finally:
        initialize(database)


MISSING = ["missing.sqlite3", "sqlite3:missing.sqlite3", "sqlite:no/such/folder/queue.sqlite3"]


@pytest.mark.parametrize("url", MISSING)
def test_a_missing_file_is_named_and_not_made(tmp_path: Path, url: str) -> None:
    done = Shell(url, tmp_path).run("failed", "list", "-o", "json")
    assert_refused(done, 3, f"there is no SQLite file at {url.rpartition(':')[2]}", "jq init")
    assert list(tmp_path.iterdir()) == []


def test_the_hint_to_init_is_for_the_database_that_was_named(tmp_path: Path) -> None:
    assert_refused(Shell("missing.sqlite3", tmp_path).run("enqueue", "A"), 3, "run: jq init")
    done = Shell("", tmp_path).run("enqueue", "A", "--database", "missing.sqlite3")
    assert_refused(done, 3, "jq init", "--database")  # a bare jq init would make another database a queue


def test_a_file_of_another_kind_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("These are notes, not a database.\n" * 100)
    for done in run_each(Shell("notes.txt", tmp_path), ["failed list -o json", "enqueue A", "init"]).values():
        assert_refused(done, 3, "notes.txt is not an SQLite database")
    assert path.read_text() == "These are notes, not a database.\n" * 100


@pytest.mark.parametrize("url", ["folder", "file/queue.sqlite3", "/proc/no/queue.sqlite3"])
def test_init_says_that_no_file_can_be_made_there(tmp_path: Path, url: str) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    done = Shell(url, tmp_path).run("init")
    assert_refused(done, 3, url)
    assert "run: jq init" not in done.stderr


# -- an id that no row can have


@pytest.mark.sqlite_only
@pytest.mark.parametrize("command", ["incidents show", "bisect --yes"])
@pytest.mark.parametrize("text", ["17", "x1", "d", "D17", "d-1", "d1.5", "d\N{ARABIC-INDIC DIGIT ONE}", "worker-1", ""])
def test_text_that_is_no_incident_name_is_wrong_usage(shell: Shell, command: str, text: str) -> None:
    done = shell.run(*command.split(), text)
    assert (done.returncode, "such as d17" in done.stderr) == (2, True), done.stderr


@pytest.mark.sqlite_only
@pytest.mark.parametrize("digits", [19, 20, 5000])
@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("history", "no job"),
        ("jobs show", "no job"),
        ("failed show", "no job"),
        ("failed diff", "no job"),
        ("retry", "no job"),
        ("discard", "no job"),
        ("operations show", "no operation"),
        ("undo", "no operation"),
        ("history d", "no incident"),
        ("incidents show d", "no incident"),
        ("bisect --yes d", "no incident"),
    ],
)
def test_an_id_that_no_row_can_have_is_not_there(shell: Shell, command: str, message: str, digits: int) -> None:
    *words, prefix = [*command.split(), ""] if not command.endswith(" d") else command.split()
    done = shell.run(*words, prefix + "9" * digits)
    assert (done.returncode, message in done.stderr, "unexpected" in done.stderr) == (4, True, False), done.stderr


@pytest.mark.sqlite_only
@pytest.mark.parametrize(
    "command", ["history", "jobs show", "failed show", "failed diff", "retry", "discard", "operations show", "undo"]
)
def test_what_is_no_id_is_wrong_usage(shell: Shell, command: str) -> None:
    assert_refused(shell.run(*command.split(), "4.2;"), 2, "'4.2;'")


# -- a server that does not answer, or not this user


@pytest.fixture
def closed_port() -> Iterator[int]:
    """A port of this host where nobody listens."""
    with closing(socket.socket()) as reserved:
        reserved.bind(("127.0.0.1", 0))
        yield reserved.getsockname()[1]


@pytest.mark.parametrize("scheme", ["postgres", "mysql2"])
def test_a_server_that_is_not_there(tmp_path: Path, scheme: str, closed_port: int) -> None:
    shell = Shell(f"{scheme}://app:{PASSWORD}@127.0.0.1:{closed_port}/app", tmp_path)
    for done in run_each(shell, ["init", "work --require-database"]).values():
        assert_refused(done, 3, "cannot reach", f"app:***@127.0.0.1:{closed_port}", "refused")


@pytest.mark.parametrize("scheme", ["postgres", "mysql2"])
def test_a_host_without_an_address(tmp_path: Path, scheme: str) -> None:
    done = Shell(f"{scheme}://app:{PASSWORD}@no-such-host.invalid/app", tmp_path).run("queues", "list")
    assert_refused(done, 3, "cannot reach", "app:***@no-such-host.invalid")


@pytest.mark.only_on("postgresql", "mariadb")
def test_a_database_that_does_not_exist_on_a_server_that_does(queue_url: URL, tmp_path: Path) -> None:
    shell = Shell(url_text(queue_url.set(database="no_such_database")), tmp_path)
    for done in run_each(shell, ["failed list -o json", "init"]).values():
        assert_refused(done, 3, "no_such_database", ": name one of these")  # the other tests' queues are there


@pytest.mark.only_on("postgresql")
def test_a_user_that_does_not_exist(queue_url: URL, tmp_path: Path) -> None:
    url = queue_url.set(username="no_such_user", password=PASSWORD)
    assert_refused(Shell(url_text(url), tmp_path).run("processes", "list"), 3, 'role "no_such_user" does not exist')


def _make_user(server: URL, name: str, grant: str) -> Iterator[str]:
    account = f"'{name}'@'%'"
    execute(server, f"DROP USER IF EXISTS {account}", f"CREATE USER {account} IDENTIFIED BY '{PASSWORD}'")
    execute(server, f"{grant} TO {account}")
    yield name
    execute(server, f"DROP USER {account}")


@pytest.fixture
def reader(kind: str, database: Database, request: pytest.FixtureRequest) -> Iterator[URL]:
    """A user who may read everything and write nothing."""
    url = database.url
    if kind == "mariadb":
        server = request.getfixturevalue("mariadb_server")
        for name in _make_user(server, f"{url.database}_r", f"GRANT SELECT ON {url.database}.*"):
            yield url.set(username=name, password=PASSWORD)
        return
    execute(url, "CREATE ROLE reader LOGIN", "GRANT SELECT ON ALL TABLES IN SCHEMA public TO reader")
    yield url.set(username="reader", password=PASSWORD)
    execute(url, "DROP OWNED BY reader", "DROP ROLE reader")


@pytest.mark.only_on("postgresql", "mariadb")
def test_a_user_without_the_right_to_write_can_read_and_changes_nothing(
    database: Database, reader: URL, tmp_path: Path
) -> None:
    (failed_id,) = fail(database, *plain_jobs(1), error=missing_error())
    dead = add_process(database)
    add_jobs(database, *plain_jobs(2))
    claim_all(database, dead, 1)
    silence(database, dead, 1000)
    before = snapshot(database.url)
    shell = Shell(url_text(reader), tmp_path)
    for command, done in run_each(shell, ["failed list", "processes list", "prune -n"]).items():
        assert (done.returncode, len(done.stdout.splitlines())) == (0, 2), command
        assert PASSWORD not in done.stderr
    for command in (*(command for command in WRITING if command != "retry 1"), f"retry {failed_id}"):
        assert_refused(shell.run(*command.split()), 3, "refused", "denied")
    assert snapshot(database.url) == before


@pytest.mark.only_on("mariadb")
def test_a_wrong_password(reader: URL, tmp_path: Path) -> None:
    for password in ("wrong-one", ""):
        done = Shell(url_text(reader.set(password=password)), tmp_path).run("processes", "list")
        assert_refused(done, 3, "refused", "Access denied for user")
        assert "wrong-one" not in done.stderr


NOT_AS_ROOT = pytest.mark.skipif(os.geteuid() == 0, reason="root may read and write any file")


@NOT_AS_ROOT
@pytest.mark.sqlite_only
def test_a_read_only_file_can_be_read_and_is_not_changed(database: Database, shell: Shell) -> None:
    fail(database, *plain_jobs(1), error=missing_error())
    silence(database, add_process(database), 1000)
    before = snapshot(database.url)
    database.close()
    Path(str(database.url.database)).chmod(0o444)
    assert shell.run("failed", "list", "-o", "ids").stdout == "1\n"
    for done in run_each(shell, WRITING).values():
        assert_refused(done, 3, "refused", "readonly")
    assert snapshot(database.url) == before


@NOT_AS_ROOT
@pytest.mark.sqlite_only
def test_a_file_that_may_not_be_read_is_not_called_missing(database: Database, shell: Shell) -> None:
    database.close()
    path = Path(str(database.url.database))
    path.chmod(0o000)
    for done in run_each(shell, ["processes list", "init"]).values():
        assert_refused(done, 3, str(path))
        assert "there is no SQLite file" not in done.stderr


@pytest.mark.parametrize(("driver", "scheme"), [("psycopg", "postgres"), ("pymysql", "mysql2")])
def test_a_missing_driver_is_named(tmp_path: Path, driver: str, scheme: str) -> None:
    (tmp_path / "sitecustomize.py").write_text(f"import sys\nsys.modules[{driver!r}] = None\n")
    shell = Shell(f"{scheme}://app:{PASSWORD}@127.0.0.1:1/app", tmp_path, {"PYTHONPATH": str(tmp_path)}, fresh=True)
    for done in run_each(shell, ["processes list", "work"]).values():
        assert_refused(done, 3, "driver", driver, "run: pip install")


# -- URLs (what exactly is one: test_urls.py)


@pytest.mark.parametrize(
    "url",
    [" ", "sqlite::memory:", "postgres:/app:hunter2@db/app", "redis://:hunter2@db/0", "mysql2://app:hunter2@db:x/app"],
)
def test_what_is_no_url_is_answered_with_examples(tmp_path: Path, url: str) -> None:
    assert_refused(Shell("", tmp_path).run("init", "--database", url), 2, f"write {EXAMPLES}")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "url",
    [
        "postgres//app:hunter2@127.0.0.1/app",
        "postgres ://app:hunter2@127.0.0.1/app",
        "//app:hunter2@127.0.0.1/app",
        "app:hunter2@127.0.0.1/app",
        "sqlite://app:hunter2@127.0.0.1/app",
        "host=127.0.0.1 user=app password=hunter2",
        "postgres://app:a@hunter2@127.0.0.1:1/app",
        "postgres://app:hunter2@127.0.0.1:1/app?no_such_option=1",
        "postgres://app:hunter2@127.0.0.1:1/app?sslmode=bogus",
        "postgres://app@127.0.0.1:1/app?password=hunter2",
        "postgres://app@127.0.0.1:1/app?sslpassword=hunter2",
        "mysql2://app:hunter2@127.0.0.1:1/app?connect_timeout=soon",
        "mysql2://app:hunter2@127.0.0.1:1/app?read_timeout=0",
        "mysql2://app:hunter2@127.0.0.1:1/app?charset=bogus",
        "mysql2://app:hunter2@127.0.0.1:1/app?sslca=/no/such/file.pem",
    ],
)
def test_a_misspelled_url_is_refused_and_its_password_not_repeated(tmp_path: Path, url: str) -> None:
    assert_refused_by_us_or_the_database(Shell(url, tmp_path).run("processes", "list"))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("url", ["mysql2://h/q?x=1", "mysql2://u@127.0.0.1:1/q?read_timeout=0"], ids=["read", "used"])
def test_an_error_about_a_url_names_where_it_was_written(tmp_path: Path, url: str) -> None:
    """Whether the option is refused by us at once, or by the driver when it connects."""
    file, config = tmp_path / "own.toml", tmp_path / "config"
    file.write_text(f'default_profile = "a"\n[profiles.a]\ndatabase = "{url}"\n')
    config.mkdir()
    (config / "database.yml").write_text(f"production: {{url: '{url}'}}\n")
    bare = Bare("", tmp_path)
    sources = {
        f'jq: {file}: profiles."a".database: ': bare.run("--config", str(file), "queues", "list"),
        f"jq: {config}/database.yml: ": bare.run("--rails", str(tmp_path), "queues", "list"),
        "jq: --database: ": bare.run("queues", "list", "--database", url),
        "jq: JQ_DATABASE_URL: ": Shell(url, tmp_path).run("queues", "list"),
    }
    for source, done in sources.items():
        assert_refused(done, 2, "option")
        assert done.stderr.startswith(source)


def test_an_empty_url_is_not_taken_for_the_embedded_queue(tmp_path: Path) -> None:
    """A script whose variable is empty must not prune some other queue and report success."""
    state = {"XDG_STATE_HOME": str(tmp_path)}
    assert_refused(Bare("", tmp_path, state).run("prune", "--database", ""), 2, "the database URL is empty")
    assert_refused(Bare("", tmp_path, state).run("--database", "", "prune"), 2, "the database URL is empty")
    for command in ("prune", "enqueue A", "queues list"):
        assert_refused(Shell("", tmp_path, state).run(*command.split()), 2, "JQ_DATABASE_URL is empty")
    assert list(tmp_path.iterdir()) == []


# -- passwords


@pytest.fixture
def with_password(kind: str, queue_url: URL, request: pytest.FixtureRequest) -> Iterator[URL]:
    """A URL with a password in it, of a user who may do everything."""
    if kind == "postgresql":  # the tests' server trusts everybody
        yield queue_url.set(password=PASSWORD)
        return
    name = f"{queue_url.database}_w"
    for user in _make_user(request.getfixturevalue("mariadb_server"), name, f"GRANT ALL ON {queue_url.database}.*"):
        yield queue_url.set(username=user, password=PASSWORD)


@pytest.mark.only_on("postgresql", "mariadb")
def test_no_command_that_works_tells_the_password(database: Database, with_password: URL, tmp_path: Path) -> None:
    (job_id,) = fail(database, *plain_jobs(1), error=missing_error())
    shell = Shell("sqlite:nowhere", tmp_path)
    commands = ["init", "queues pause --create mailers", f"retry {job_id}", "work --import no_such_module"]
    execute(database.url, "DROP TABLE jq_failures")
    try:
        told = [shell.run(*command.split(), "--database", url_text(with_password)) for command in commands]
    finally:
        initialize(database)
    assert [done.returncode for done in told] == [0, 0, 0, 2]
    assert "created table jq_failures" in told[0].stderr
    assert ["***@" in done.stderr for done in told] == [True, False, False, True]
    assert [done.args for done in told if PASSWORD in done.stdout + done.stderr] == []
    kept = [row["command"] for row in rows(database, operations)]
    assert [("***@" in command, PASSWORD in command) for command in kept] == [(True, False)] * 2


@pytest.mark.only_on("postgresql", "mariadb")
def test_a_command_gives_the_password(database: Database, with_password: URL, tmp_path: Path) -> None:
    file = tmp_path / "own.toml"
    bare = url_text(with_password._replace(password=None))
    shell = Shell("sqlite:nowhere", tmp_path)
    for password, code in ((PASSWORD, 0), *([("wrong", 3)] if database.url.get_backend_name() == "mysql" else [])):
        file.write_text(f"[profiles.a]\ndatabase = '{bare}'\npassword_command = \"echo '{password}'\"\n")
        done = shell.run("--config", str(file), "--profile", "a", "queues", "pause", "--create", f"queue{code}")
        assert done.returncode == code, done.stderr
        assert PASSWORD not in done.stderr
    assert [row["command"] for row in rows(database, operations) if PASSWORD in str(row)] == []


@pytest.mark.only_on("postgresql")
def test_the_ledger_keeps_no_password_however_it_was_spelled(database: Database, tmp_path: Path) -> None:
    shell = Shell("sqlite:nowhere", tmp_path)
    place = f"{database.url.database}?host={database.url.query['host']}"
    urls = [f"postgres://postgres:{word}@/{place}" for word in ("a/hunter2", "a'hunter2", "a hunter2", "a%40hunter2")]
    urls += [f"postgres://postgres@/{place}&{key}=hunter2" for key in ("password", "sslpassword")]
    for number, url in enumerate(urls):
        given = (f"--database={url}",) if number % 2 else ("-d", url)
        done = shell.run("queues", "pause", "--create", f"queue{number}", *given)
        assert (done.returncode, done.stderr) == (0, f"jq: queue queue{number} paused\n")
    commands = [row["command"] for row in rows(database, operations)]
    assert len(commands) == len(urls)
    assert [command for command in commands if "hunter2" in command] == []


# -- ids


def test_ids_that_no_job_has(kind: str, database: Database, shell: Shell) -> None:
    fail(database, *plain_jobs(1), error=missing_error())
    uuid = "0b8e9c1a-0f6a-4c0e-9d56-2f7c2f6d5a10"
    ids = ["0", "1000000000000", "9223372036854775807", "9223372036854775808", HUGE, "ž日本", uuid]
    before = snapshot(database.url)
    for command in ("retry", "failed show", "jobs show") if kind == "sqlite" else ("retry",):
        done = shell.run(*command.split(), "-o", "ids", *ids, "--", "-1")
        assert (done.returncode, done.stdout) == (4, "")
        assert done.stderr.splitlines() == [f"jq: no job {text}" for text in [*ids, "-1"]]
    assert snapshot(database.url) == before


@pytest.mark.sqlite_only
@pytest.mark.parametrize("text", ["", "1.5", "1 2", "1;DROP TABLE x", "1\x1b[31m"], ids=repr)
def test_what_cannot_be_an_id_is_refused(shell: Shell, text: str) -> None:
    assert_refused(shell.run("retry", text), 2, "is not a job id")


@pytest.mark.sqlite_only
def test_one_bad_id_on_standard_input_stops_all(database: Database, shell: Shell) -> None:
    fail(database, *plain_jobs(2), error=missing_error())
    assert_refused(shell.run("retry", "-", stdin="1\n2\n3,4\n"), 2, "'3,4' is not a job id")
    assert set(state_of_each(database).values()) == {State.FAILED}


@pytest.mark.sqlite_only
def test_no_ids_on_standard_input_are_nothing_to_do(database: Database, shell: Shell) -> None:
    fail(database, *plain_jobs(2), error=missing_error())
    for command, stdin in (("retry", ""), ("failed show", "\n \t\n"), ("jobs show", "")):
        done = shell.run(*command.split(), "-", "-o", "ids", stdin=stdin)
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert set(state_of_each(database).values()) == {State.FAILED}


@pytest.mark.only_on("postgresql")
def test_any_number_of_ids_may_come_on_standard_input(database: Database, shell: Shell) -> None:
    fail(database, *plain_jobs(2), error=missing_error())
    done = shell.run("retry", "-", "-o", "ids", stdin="\n".join(map(str, range(1, 40_000))))
    assert (done.returncode, done.stdout) == (6, "1\n2\n"), done.stderr[-200:]


# -- options


@pytest.mark.sqlite_only
@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("failed list --limit 0", ["--limit", "0"]),
        ("failed list --limit some", ["--limit", "some"]),
        ("failed list --page-after x", ["--page-after", "x"]),
        ("failed list -o xml", ["--output", "'xml'", "'json'", "'csv'"]),
        ("failed list --no-such-option", ["--no-such-option"]),
        ("processes list surplus", ["surplus"]),
        ("failed lst", ["'lst'"]),
        ("fail", ["'fail'"]),
        ("undo", ["OPERATION"]),
        ("prune --alive-threshold -1", ["--alive-threshold", "-1"]),
        ("work --threads 0", ["--threads", "0"]),
        ("work --heartbeat 0", ["--heartbeat", "0"]),
        ("work --shutdown-timeout -1", ["--shutdown-timeout", "-1"]),
        ("enqueue A --priority high", ["--priority", "high"]),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_impossible_options_are_named(shell: Shell, command: str, words: list[str]) -> None:
    assert_misused(shell.run(*command.split()), *words)


@pytest.mark.sqlite_only
@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("failed list --since nonsense", ["--since", "nonsense", "15m"]),
        ("failed list --since 99999999999999999999d", ["--since", "99999999999999999999d", "15m"]),
        ("failed list --until 2026-13-01", ["--until", "2026-13-01", "15m"]),
        ("failed list --since ''", ["--since", "15m"]),
        ("enqueue A --at yesterday", ["--at", "yesterday", "15m"]),
        (f"enqueue A --at {HUGE}d", ["--at", HUGE]),
        ("enqueue A --at 9999-12-31T23:59:59-12:00", ["--at", "9999-12-31"]),
        ("enqueue A -k novalue", ["--keyword", "novalue", "NAME=VALUE"]),
        ("enqueue A -k =5", ["--keyword", "=5", "NAME=VALUE"]),
        ("enqueue A -k _aj_globalid=5", ["_aj_globalid"]),
        ("enqueue A 1 --stdin", ["--stdin"]),
        ("enqueue A --import no_such_module", ["no_such_module"]),
        ("enqueue a_job --import bad_module", ["bad_module", "SyntaxError"]),
        ("enqueue a_job --import leaving_module", ["leaving_module", "SystemExit"]),
        ("enqueue no_such_job --import good_module", ["no_such_job", "a_job"]),
        ("work --queues ma*l", ["ma*l", "star"]),
        ("work --heartbeat 200", ["200", "300", "twice"]),
        ("work --heartbeat 1 --alive-threshold 1.5", ["1.5", "twice"]),
        ("work --heartbeat nan --import no_such_module", ["nan"]),
        ("prune --alive-threshold nan", ["nan"]),
        ("prune --alive-threshold inf", ["inf"]),
    ],
    ids=lambda value: value[:60] if isinstance(value, str) else "",
)
def test_impossible_values_are_named_with_what_is_possible(
    database: Database, shell: Shell, command: str, words: list[str]
) -> None:
    (shell.folder / "bad_module.py").write_text("def (")
    (shell.folder / "leaving_module.py").write_text("raise SystemExit(0)")
    (shell.folder / "good_module.py").write_text("from solidjq import job\n@job\ndef a_job():\n    pass\n")
    done = shell.run(*shlex.split(command))
    (assert_misused if done.stderr.endswith("--help\n") else _assert_refused_as_usage)(done, *words)
    assert rows(database, process_table) == []
    assert state_of_each(database) == {}


def _assert_refused_as_usage(done: Done, *words: str) -> None:
    assert_refused(done, 2, *words)


def test_numbers_beyond_the_databases_own_are_no_surprise(database: Database, shell: Shell) -> None:
    fail(database, *plain_jobs(1), error=missing_error())
    before = snapshot(database.url)
    for command in (f"enqueue A --priority {HUGE}", "prune --alive-threshold 1e30"):
        done = shell.run(*command.split())
        assert (done.returncode in {2, 3}, done.stdout) == (True, ""), done.stderr
        assert "unexpected error" not in done.stderr
    done = shell.run("failed", "list", "--page-after", HUGE, "--limit", HUGE, "-o", "ids")
    assert done.returncode in {0, 2, 3}, done.stderr
    assert (len(done.stdout.splitlines()), bool(done.stderr)) == ((1, False) if done.returncode == 0 else (0, True))
    assert snapshot(database.url) == before


@pytest.mark.only_on("mariadb")
def test_a_name_too_long_for_its_column_is_refused_and_never_cut(database: Database, shell: Shell) -> None:
    name = "q" * 300
    for command in (["queues", "pause", "--create", name], ["enqueue", name], ["enqueue", "A", "--queue", name]):
        assert_refused_by_us_or_the_database(shell.run(*command), "too long")
    assert shell.run("queues", "list", "-o", "json").stdout == "[]\n"


@pytest.mark.sqlite_only
def test_bytes_that_are_no_text_are_refused(database: Database, shell: Shell) -> None:
    for command in (["enqueue", "A\udcff"], ["retry", "\udcff"], ["failed", "list", "--queue", "\udcff"]):
        assert_refused(shell.run(*command), 2)
    assert state_of_each(database) == {}


@pytest.mark.sqlite_only
def test_bytes_that_are_no_text_in_a_row_stop_no_list(database: Database, shell: Shell) -> None:
    fail(database, *plain_jobs(2), error=missing_error())
    execute(database.url, "UPDATE solid_queue_failed_executions SET error = CAST(x'ff41' AS TEXT) WHERE job_id = 1")
    done = shell.run("failed", "list", "-o", "ids")
    assert (done.returncode, done.stdout) == (0, "2\n1\n"), done.stderr


# -- work


@pytest.mark.sqlite_only
def test_a_module_that_cannot_be_imported_ends_the_workers_and_leaves_no_process(
    database: Database, shell: Shell
) -> None:
    add_jobs(database, *plain_jobs(1))
    done = shell.run("work", "--import", "no_such_module", "--processes", "2")
    assert (done.returncode, done.stdout) == (2, "")
    assert "cannot import no_such_module: ModuleNotFoundError: No module named 'no_such_module'" in done.stderr
    assert "--import" in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
    assert rows(database, process_table) == []
    assert state_of_each(database) == {1: State.READY}


@pytest.mark.sqlite_only
def test_a_worker_for_all_queues_is_refused_beside_a_rails_worker_only(database: Database, shell: Shell) -> None:
    add_process(database, "worker-of-rails")
    before = snapshot(database.url)
    assert_refused(shell.run("work", "--import", "no_such_module"), 5, "worker-of-rails", "--queues NAME")
    assert snapshot(database.url) == before
    with database.write() as connection:
        connection.execute(update(process_table).values(metadata='{"runtime":"solidjq 0.1.0"}'))
    assert shell.run("work", "--import", "no_such_module").returncode == 2


# -- standard input without an end


@pytest.mark.sqlite_only
@pytest.mark.parametrize(
    ("command", "source", "words"),
    [
        ("retry -", "/dev/zero", "a word of more than 1,000 characters"),
        ("jobs show -", "yes 1", "more than 1,000,000 words"),
        ("enqueue A --stdin", "/dev/zero", "line 1 of standard input has more than"),
        ("retry -", "yes ''", "more than 100,000,000 characters"),
        ("retry -", "printf '\\377'", "not UTF-8"),
        ("enqueue A --stdin", "printf '\\377'", "not UTF-8"),
        ("retry -", "closed", "standard input is closed"),
    ],
)
def test_standard_input_without_an_end_is_refused(
    database: Database, shell: Shell, command: str, source: str, words: str
) -> None:
    redirected = "<&-" if source == "closed" else f"< {source}" if source.startswith("/") else f"< <({source})"
    done = shell.line(f"jq {command} {redirected}")
    assert_refused(done, 2, words)
    assert state_of_each(database) == {}


def test_words_are_whole_wherever_they_are_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(standard_input, "_CHUNK", 3)
    for text in ("ab cd|  efghi\n\n j", " a\tbcd ", "", "a|", "abc|d e"):
        monkeypatch.setattr(sys, "stdin", io.StringIO(text))
        assert list(standard_input.words()) == text.split()


def test_characters_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """So are those of lines: each may be long, and all are enqueued at once."""
    monkeypatch.setattr(standard_input, "MOST_CHARACTERS", 5)
    for read in (standard_input.words, standard_input.lines):
        for text in ("      ", "ab\ncd\n"):
            monkeypatch.setattr(sys, "stdin", io.StringIO(text))
            with pytest.raises(UsageError, match="more than 5 characters"):
                list(read())


def test_lines_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(standard_input, "MOST_LINES", 2)
    monkeypatch.setattr(sys, "stdin", io.StringIO("a\n\nb"))
    with pytest.raises(UsageError, match="more than 2 lines"):
        list(standard_input.lines())
