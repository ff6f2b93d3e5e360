"""No database named: every command that there is, without the embedded queue and with it."""

import os
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy.engine import URL

from solidjq import Database
from solidjq.database.place import DatabaseIdentity
from solidjq.database.setup import initialize
from solidjq.recovery import plans
from solidjq.recovery.retry import plan
from solidjq.recovery.terms import RetryTerms, Selection
from solidjq_cli.exits import Exit
from support.every_command import COMMANDS, ON_TERMINALS, PLAN, PLUGINS
from support.program import Bare, Shell, assert_refused
from support.queue import add_jobs, plain_jobs, state_of_each
from support.rails import snapshot
from support.scenes import something_for_every_command
from support.terminal import terminal

CREATE = {"init", "init --indexes", "enqueue PlainJob", "work --import sample_jobs"}
NEED_NONE = {"policy show", "profiles list", "completions bash"}
CHANGE = {command for command, code in COMMANDS.items() if code is Exit.REFUSED} - CREATE
READ = COMMANDS.keys() - CHANGE - CREATE - NEED_NONE - PLUGINS - ON_TERMINALS
NAMES = {"failed": 1, "retried": 1, "held": 1, "death": "d1", "operation": 1}


@pytest.fixture
def bare(tmp_path: Path) -> Bare:
    """A shell of a user who has named no database and has no queue yet."""
    folder = tmp_path / "here"
    folder.mkdir()
    home = str(tmp_path / "home")
    return Bare("", folder, {"HOME": home, "XDG_STATE_HOME": "", "XDG_CONFIG_HOME": ""})


def embedded_path(bare: Bare) -> Path:
    return Path(bare.environment["HOME"], ".local/state/solidjq/queue.sqlite3")


PLACE = DatabaseIdentity("sqlite", None, None, "nowhere", None, "solid_queue_")


@pytest.fixture
def embedded(bare: Bare) -> Database:
    embedded_path(bare).parent.mkdir(parents=True)
    database = Database(URL.create("sqlite", database=str(embedded_path(bare))))
    initialize(database)
    database.close()
    return database


@pytest.mark.parametrize("command", sorted(CHANGE | READ))
def test_without_a_queue_a_command_says_how_to_name_one_and_makes_no_file(bare: Bare, command: str) -> None:
    decisions: list[object] = []
    assert plans.write(bare.folder / PLAN, PLACE, RetryTerms(), iter(decisions)) == 0  # type: ignore[arg-type]
    ways = ("no database is named", "--database URL", "JQ_DATABASE_URL", "--rails", "--profile NAME")
    assert_refused(bare.run(*command.format(**NAMES).split()), Exit.USAGE, *ways)
    assert not Path(bare.environment["HOME"]).exists()


@pytest.mark.parametrize("command", sorted(NEED_NONE))
def test_what_needs_no_database_runs_without_one(bare: Bare, command: str) -> None:
    assert bare.run(*command.split()).returncode == 0
    assert not Path(bare.environment["HOME"]).exists()


@pytest.mark.parametrize("command", sorted(READ))
def test_a_reading_command_uses_the_embedded_queue_and_says_so(bare: Bare, embedded: Database, command: str) -> None:
    names = something_for_every_command(embedded)
    embedded.close()
    done = bare.run(*command.format(**names).split())
    assert done.returncode == COMMANDS[command], done.stderr
    assert done.stderr.count("jq: using the embedded queue ~/.local/state/solidjq/queue.sqlite3\n") == 1


@pytest.mark.parametrize("command", sorted(CHANGE))
def test_off_a_terminal_what_changes_something_needs_its_database_named(
    bare: Bare, embedded: Database, command: str
) -> None:
    names = something_for_every_command(embedded)
    decisions = (
        decision for batch in plan(embedded, Selection(job_ids=[int(str(names["failed"]))])) for decision in batch
    )
    assert plans.write(bare.folder / PLAN, embedded.identity(), RetryTerms(), decisions) == 1
    embedded.close()
    before = snapshot(embedded.url)
    done = bare.run(*command.format(**names).split())
    assert (done.returncode, done.stdout) == (Exit.USAGE, ""), done.stderr
    assert "no database is named; without a terminal it must be" in done.stderr
    assert snapshot(embedded.url) == before
    embedded.close()
    named = Shell(f"sqlite:{embedded.url.database}", bare.folder, bare.environment)
    assert named.run(*command.format(**names).split(), "--help").returncode == 0


@pytest.mark.parametrize("command", ["prune --quiet", "retry --safe --yes", "recover --quiet", "doctor --fix --yes"])
def test_a_line_in_cron_that_lost_its_variable_is_not_green_though_there_is_nothing_to_do(
    bare: Bare, embedded: Database, command: str
) -> None:
    assert bare.run(*command.split()).returncode == Exit.USAGE
    named = Shell(f"sqlite:{embedded.url.database}", bare.folder, bare.environment)
    done = named.run(*command.split())
    assert done.returncode == 0, done.stderr
    assert "embedded" not in done.stderr


def test_a_newcomer_finds_the_job_that_was_enqueued(bare: Bare) -> None:
    """From Python, where the queue is made, to a terminal, where the person reads which queue is used."""
    line = "jq: using the embedded queue ~/.local/state/solidjq/queue.sqlite3\n"
    done = bare.run("enqueue", "ReportJob", "-o", "ids")
    assert (done.returncode, done.stdout) == (0, "1\n"), done.stderr
    assert done.stderr.startswith(line)
    assert "ReportJob" in terminal(bare, "jobs", "show", "1")
    assert line in terminal(bare, "queues", "pause", "default")
    assert bare.run("init").returncode == 0  # it may make the queue, and so it may change it
    found = Database(URL.create("sqlite", database=str(embedded_path(bare))))
    assert len(state_of_each(found)) == 1
    found.close()


def test_a_default_profile_names_a_database(bare: Bare, tmp_path: Path) -> None:
    queue = Database(URL.create("sqlite", database=str(tmp_path / "queue.sqlite3")))
    initialize(queue)
    add_jobs(queue, *plain_jobs(1))
    queue.close()
    bare.environment["JQ_CONFIG"] = "own.toml"
    (bare.folder / "own.toml").write_text(f'default_profile = "a"\n[profiles.a]\ndatabase = "{queue.url.database}"\n')
    done = bare.run("queues", "pause", "default")
    assert (done.returncode, "embedded" in done.stderr) == (0, False), done.stderr


@pytest.mark.parametrize("command", ["failed list", "prune", "enqueue A", "doctor"])
def test_a_mistyped_path_makes_no_file(bare: Bare, command: str) -> None:
    assert_refused(bare.run(*command.split(), "-d", "sqlite:typo.sqlite3"), Exit.DATABASE, "no SQLite file at typo")
    assert list(bare.folder.iterdir()) == []


def test_nobody_else_may_read_a_queue_that_init_makes(bare: Bare) -> None:
    open_to_all = os.umask(0)
    try:
        assert bare.run("init").returncode == 0
        path = embedded_path(bare)
        with closing(sqlite3.connect(path)) as connection:
            connection.execute("CREATE TABLE another_one (id)")
            files = [path, *path.parent.glob(f"{path.name}-*")]
            assert [oct(file.stat().st_mode & 0o777) for file in files] == ["0o600"] * 3
        assert path.parent.stat().st_mode & 0o777 == 0o700
    finally:
        os.umask(open_to_all)


def test_a_file_that_exists_keeps_its_mode(bare: Bare) -> None:
    path = bare.folder / "shared.sqlite3"
    path.touch()
    path.chmod(0o660)
    assert bare.run("init", "-d", str(path)).returncode == 0
    assert oct(path.stat().st_mode & 0o777) == "0o660"


def test_a_link_to_a_missing_file_is_not_followed_by_init(bare: Bare) -> None:
    target = bare.folder / "target.sqlite3"
    link = bare.folder / "queue.sqlite3"
    link.symlink_to(target)
    assert bare.run("init", "-d", str(link)).returncode != 0
    assert not target.exists()
