"""Users without a name or a home, and a working directory that is gone: a container's random user, a cron job."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from solidjq import Database
from support.deaths import die
from support.program import Done, Shell
from support.queue import add_jobs, plain_jobs
from support.waiting import PATIENCE

# The system does not know the user. The tests' own Python may lie where only its owner may read.
UNKNOWN = """
import pwd, runpy, sys
def getpwuid(user):
    raise KeyError(user)
pwd.getpwuid = getpwuid
runpy.run_module("solidjq_cli", run_name="__main__", alter_sys=True)
"""


def run(shell: Shell, *arguments: str, folder: Path | None = None, database: bool = True) -> Done:
    environment = {"PATH": os.environ["PATH"], "JQ_PRUNE_FORCE": "1"}
    if database:
        environment["JQ_DATABASE_URL"] = shell.url
    return subprocess.run(
        [sys.executable, "-c", UNKNOWN, *arguments],
        capture_output=True,
        text=True,
        env=environment,
        cwd=folder or shell.folder,
        timeout=PATIENCE,
        check=False,
    )


@pytest.mark.sqlite_only
def test_a_user_without_home_and_name_recovers(database: Database, shell: Shell) -> None:
    ids = add_jobs(database, *plain_jobs(3))
    die(database)
    for arguments in (
        ("retry", "--safe", "--class", "Nobody", "--yes"),
        ("policy", "show"),
        ("config", "list"),
        ("discard", f"{ids[0]}", "--yes"),
        ("recover", "--quiet"),
        ("operations", "list"),
    ):
        done = run(shell, *arguments)
        assert done.returncode == 0, (arguments, done.stderr)
    assert f"{os.geteuid()}@" in done.stdout


@pytest.mark.sqlite_only
def test_what_needs_a_home_says_so(database: Database, shell: Shell, tmp_path: Path) -> None:
    """Nothing is looked for in a folder named ~ in the working directory."""
    planted = shell.folder / "~" / ".config" / "solidjq" / "jq.toml"
    planted.parent.mkdir(parents=True)
    planted.write_text("[profiles.x]\n")
    nowhere = run(shell, "queues", "list", database=False)
    assert nowhere.returncode == 2
    assert "this user has no home folder" in nowhere.stderr
    (tmp_path / "jq.toml").write_text("")
    trusted = run(shell, "config", "trust", str(tmp_path / "jq.toml"))
    assert trusted.returncode == 2
    assert "this user has no home folder" in trusted.stderr
    profile = run(shell, "--profile", "x", "queues", "list", database=False)
    assert "write /etc/solidjq/jq.toml" in profile.stderr


@pytest.mark.sqlite_only
def test_a_working_directory_that_is_gone(database: Database, shell: Shell, tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    script = f'cd {gone} && rmdir {gone} && "{sys.executable}" -m solidjq_cli "$@"'
    for arguments in (("recover", "--quiet"), ("retry", "--safe", "--import", "json", "--yes")):
        done = subprocess.run(
            ["bash", "-c", script, "bash", *arguments],
            capture_output=True,
            text=True,
            env=shell.env(),
            timeout=PATIENCE,
            check=False,
        )
        assert done.returncode == 0, (arguments, done.stderr)
        gone.mkdir()
