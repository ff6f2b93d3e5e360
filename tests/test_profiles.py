"""Databases that jq.toml names."""

from pathlib import Path

import pytest

from solidjq import Database
from solidjq.errors import UsageError
from solidjq.profiles import Profile, choose, load
from support import Shell, add_jobs, plain_jobs
from test_runtime import ON_SQLITE


def written(folder: Path, text: str) -> Path:
    path = folder / "jq.toml"
    path.write_text(text)
    return path


def test_what_a_profile_may_say(tmp_path: Path) -> None:
    path = written(
        tmp_path,
        '[default]\nretry = "ask"\n[profiles.a]\ndatabase = "postgres://h/q"\nschema = "s"\nread_only = true\n'
        '[profiles."b c"]\nrails = "shop"\nenv = "staging"\n',
    )
    assert load(path) == {
        "a": Profile("a", database="postgres://h/q", schema="s", read_only=True),
        "b c": Profile("b c", rails=tmp_path / "shop", env="staging"),
    }
    assert choose(path, "a").read_only
    with pytest.raises(UsageError, match='has no profile "d"; it has "a", "b c"'):
        choose(path, "d")
    with pytest.raises(UsageError, match=r"no jq.toml with a profile"):
        choose(None, "d")
    assert load(written(tmp_path, "")) == {}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[profiles.a]\n", 'profiles."a" must have one of: database'),
        ('[profiles.a]\ndatabase = "x"\nrails = "y"\n', "must have one of"),
        ('[profiles.a]\ndatabse = "x"\n', 'unknown key "databse"; did you mean database? allowed: database, rails'),
        ("[profiles.a]\ndatabase = 5\n", 'profiles."a".database is 5; allowed: a text'),
        ('[profiles.a]\ndatabase = ""\n', "allowed: a text"),
        ('[profiles.a]\ndatabase = "x"\nread_only = "no"\n', 'read_only is "no"; allowed: true or false'),
        ("[profiles]\na = 1\n", 'profiles."a" is 1; allowed: a table'),
        ("profiles = 1\n", "profiles is 1; allowed: a table"),
        ("[", "not TOML"),
    ],
)
def test_what_it_may_not(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(UsageError) as refused:
        load(written(tmp_path, text))
    assert words in str(refused.value)
    assert "jq.toml" in str(refused.value)


@ON_SQLITE
def test_the_commands(database: Database, shell: Shell, tmp_path: Path) -> None:
    (job_id,) = add_jobs(database, *plain_jobs(1))
    written(
        shell.folder,
        f'[profiles.here]\ndatabase = "sqlite:{database.url.database}"\nread_only = true\n'
        '[profiles.there]\ndatabase = "postgres://u:hunter2@h/q"\n',
    )
    shown = ["jobs", "show", str(job_id), "-o", "ids"]
    shell.environment["JQ_DATABASE_URL"] = "sqlite:/nowhere"
    found = shell.run("--profile", "here", *shown)
    assert (found.returncode, found.stdout) == (0, f"{job_id}\n"), found.stderr
    shell.environment["JQ_PROFILE"] = "here"
    assert shell.run(*shown).returncode == 0
    refused = shell.run("enqueue", "PlainJob")
    assert (refused.returncode, "read-only" in refused.stderr) == (5, True)
    # another database, and still read-only
    refused = shell.run("enqueue", "PlainJob", "-d", f"sqlite:{database.url.database}")
    assert (refused.returncode, "read-only" in refused.stderr) == (5, True)
    listed = shell.run("profiles", "list", "-o", "csv")
    assert listed.returncode == 0
    assert "here" in listed.stdout
    assert "hunter2" not in listed.stdout
    assert shell.run("--profile", "nowhere", "queues", "list").returncode == 2
