"""``jq config show``, and profiles that ask for their own name before a bulk change."""

import json
from pathlib import Path

import pytest

from solidjq import Database
from solidjq.queue.states import State
from support.program import PASSWORD, Bare, Shell
from support.queue import add_jobs, fail, plain_jobs, state_of_each
from support.terminal import terminal

NIGHT = f"""default_profile = "night"

[profiles.night]
database = "postgres://u:{PASSWORD}@127.0.0.1:1/q"
schema = "solid"
read_only = true
alive_threshold = "10m"

[profiles.day]
database = "day.sqlite3"
password_command = "touch asked"

[default]
max_crashes = 5
"""


def shown(shell: Shell, *arguments: str) -> dict[str, tuple[object, str]]:
    done = shell.run(*arguments, "config", "show", "-o", "json")
    assert done.returncode == 0, done.stderr
    assert PASSWORD not in done.stdout
    return {each["name"]: (each["value"], each["source"]) for each in json.loads(done.stdout)}


@pytest.fixture
def bare(tmp_path: Path) -> Bare:
    (tmp_path / "own.toml").write_text(NIGHT)
    return Bare("", tmp_path, {"HOME": str(tmp_path), "XDG_STATE_HOME": str(tmp_path / "state")})


def test_each_value_has_the_place_it_comes_from(bare: Bare) -> None:
    built_in = shown(bare)
    assert built_in["database"] == (
        f"sqlite:{bare.folder}/state/solidjq/queue.sqlite3",
        "built in: no database is named",
    )
    assert built_in["profile"] == (None, "built in")
    assert built_in["alive_threshold"] == (300.0, "built in")
    assert built_in["default.window"] == ("72h", "built in")

    file = shown(bare, "--config", "own.toml")
    assert file["config"] == ("own.toml", "--config")
    assert file["profile"] == ("night", "own.toml:1")
    assert file["database"] == ("postgresql://u:***@127.0.0.1:1/q", "own.toml:4")
    assert file["schema"] == ("solid", "own.toml:5")
    assert file["read_only"] == (True, "own.toml:6")
    assert file["alive_threshold"] == (600.0, "own.toml:7")
    assert file["default.max_crashes"] == ("5", "own.toml:14")

    bare.environment |= {"JQ_CONFIG": "own.toml", "JQ_SCHEMA": "other", "JQ_ALIVE_THRESHOLD": "60", "NO_COLOR": "1"}
    variables = shown(bare)
    assert variables["config"] == ("own.toml", "JQ_CONFIG")
    assert variables["schema"] == ("other", "JQ_SCHEMA")
    assert variables["alive_threshold"] == ("60", "JQ_ALIVE_THRESHOLD")
    assert variables["NO_COLOR"] == ("1", "environment")

    options = shown(bare, "--profile", "day", "--schema", "mine", "--read-only")
    assert options["profile"] == ("day", "--profile")
    assert options["database"][1] == "own.toml:10"
    assert options["schema"] == ("mine", "--schema")
    assert options["read_only"] == (True, "--read-only")
    assert options["password_command"] == ("touch asked", "own.toml:11")
    assert not (bare.folder / "asked").exists()

    named = shown(bare, "-d", f"postgres://u:{PASSWORD}@h/named")
    assert named["profile"] == (None, "built in")
    assert named["database"] == ("postgresql://u:***@h/named", "--database")
    assert named["read_only"] == (False, "built in")


def test_the_environment_names_the_database(bare: Bare) -> None:
    shell = Shell(f"mysql2://u:{PASSWORD}@h/q", bare.folder, {"JQ_CONFIG": "own.toml"})
    seen = shown(shell)
    assert seen["profile"] == (None, "built in")
    assert seen["database"] == ("mysql://u:***@h/q", "JQ_DATABASE_URL")


def test_an_application_has_its_own(bare: Bare) -> None:
    (bare.folder / "shop/config").mkdir(parents=True)
    (bare.folder / "shop/config/database.yml").write_text(
        "staging: &queue\n  adapter: sqlite3\n  database: x.sqlite3\nproduction: *queue\n"
    )
    assert shown(bare, "--rails", "shop")["env"] == ("production", "built in")
    bare.environment["RAILS_ENV"] = "staging"
    seen = shown(bare, "--rails", "shop")
    assert seen["rails"] == ("shop", "--rails")
    assert seen["env"] == ("staging", "RAILS_ENV")
    assert seen["database"][1] == "shop/config/database.yml"


# -- a profile that asks for its name ---------------------------------------------------------------------------------


@pytest.fixture
def guarded(shell: Shell) -> Shell:
    """The queue as a profile that asks for its name."""
    (shell.folder / "own.toml").write_text(f'[profiles.night]\ndatabase = "{shell.url}"\nconfirm = "name"\n')
    shell.environment |= {"JQ_CONFIG": "own.toml", "JQ_PROFILE": "night"}
    return shell


@pytest.mark.sqlite_only
@pytest.mark.parametrize(
    ("answer", "moved"), [("night\n", True), ("y\n", False), ("nigh\n", False), ("\n", False), ("\x04", False)]
)
@pytest.mark.parametrize("command", ["retry --class PlainJob", "discard 1 2 3"])
def test_a_bulk_change_needs_the_name(
    database: Database, guarded: Shell, *, answer: str, moved: bool, command: str
) -> None:
    fail(database, *plain_jobs(3), error="boom")
    seen = terminal(guarded, *command.split(), typed=answer)
    assert "Type the name of the profile, night" in seen
    assert ("nothing was changed" in seen) != moved
    assert ([*state_of_each(database).values()] == [State.FAILED] * 3) != moved


@pytest.mark.sqlite_only
def test_without_a_terminal_it_needs_yes(database: Database, guarded: Shell) -> None:
    fail(database, *plain_jobs(4), error="boom")
    assert guarded.run("retry", "1").returncode == 0  # one job is not many
    assert guarded.run("retry", "2", "3", "--plan-out", "plan.json").returncode == 0
    for command in ("retry 2 3", "retry --class PlainJob", "discard 2 3", "apply plan.json", "undo 1"):
        done = guarded.run(*command.split())
        assert (done.returncode, "--yes" in done.stderr) == (2, True), done.stderr
    assert [*state_of_each(database).values()] == [State.READY, *[State.FAILED] * 3]
    for command in ("apply plan.json --yes", "undo 1 --yes", "discard 4 2 --yes"):
        assert guarded.run(*command.split()).returncode in {0, 6}
    assert [*state_of_each(database).values()] == [State.FAILED, State.READY, State.READY]


@pytest.mark.sqlite_only
def test_so_do_jobs_that_wait(database: Database, guarded: Shell) -> None:
    add_jobs(database, *plain_jobs(2))
    done = guarded.run("jobs", "discard", "1", "2")
    assert (done.returncode, "--yes" in done.stderr, len(state_of_each(database))) == (2, True, 2), done.stderr
    assert "Type the name of the profile, night" in terminal(guarded, "jobs", "discard", "1", "2", typed="night\n")
    assert state_of_each(database) == {}


@pytest.mark.sqlite_only
def test_its_name_is_not_asked_for_another_database(database: Database, guarded: Shell) -> None:
    fail(database, *plain_jobs(2), error="boom")
    assert guarded.run("-d", guarded.url, "discard", "1", "2").returncode == 0
    assert state_of_each(database) == {}
