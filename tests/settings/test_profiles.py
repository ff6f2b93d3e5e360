"""Databases that jq.toml names."""

import subprocess
import sys
from pathlib import Path

import pytest

from solidjq import Database
from solidjq.errors import UsageError
from solidjq.settings import trust
from solidjq.settings.file import place_of, read_file
from solidjq.settings.profiles import Profile, choose_profile, load_profiles
from solidjq.settings.sources import Settings, load_settings
from support.program import Shell
from support.queue import add_jobs, plain_jobs
from support.waiting import PATIENCE


def written(folder: Path, text: str, name: str = "jq.toml") -> Settings:
    path = folder / name
    path.write_text(text)
    return Settings((read_file(path),))


def named(shell: Shell, text: str) -> None:
    """Write a settings file, and name it as a user would in a profile of his shell."""
    shell.environment["JQ_CONFIG"] = str(written(shell.folder, text, "own.toml").files[0].path)


def test_what_a_profile_may_say(tmp_path: Path) -> None:
    file = written(
        tmp_path,
        '[default]\nretry = "ask"\n[profiles.a]\ndatabase = "postgres://h/q"\nschema = "s"\nread_only = true\n'
        'confirm = "name"\n'
        '[profiles."b c"]\nrails = "shop"\nenv = "staging"\n',
    )
    place = f"{file.files[0].path}: profiles"
    assert load_profiles(file) == {
        "a": Profile("a", f'{place}."a"', database="postgres://h/q", schema="s", read_only=True, confirm="name"),
        "b c": Profile("b c", f'{place}."b c"', rails=tmp_path / "shop", env="staging"),
    }
    assert choose_profile(file, "a") == load_profiles(file)["a"]
    with pytest.raises(UsageError, match='has no profile "d"; it has "a", "b c"'):
        choose_profile(file, "d")
    with pytest.raises(UsageError, match=r'no settings file names databases, so there is no profile "d"'):
        choose_profile(Settings(), "d")
    assert choose_profile(file) is None
    assert choose_profile(Settings()) is None
    assert load_profiles(written(tmp_path, "")) == {}


def test_a_misspelt_key_is_an_error_wherever_the_file_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If ``default_profil`` were ignored, the command would say that no database is named."""
    for folder in ("mine", "here"):
        (tmp_path / folder / "solidjq").mkdir(parents=True)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "mine"))
    monkeypatch.delenv("JQ_CONFIG", raising=False)
    (file,) = written(tmp_path / "here", 'default_profil = "a"\n').files
    assert load_settings(start=tmp_path / "here").found is not None  # it ends no command that only reads
    with pytest.raises(UsageError, match="did you mean default_profile"):
        load_settings(file.path)
    trust.trust(file.path, file.text.encode())
    with pytest.raises(UsageError, match="did you mean default_profile"):
        load_settings(start=tmp_path / "here")
    written(tmp_path / "mine" / "solidjq", 'default_profil = "a"\n')
    with pytest.raises(UsageError, match="did you mean default_profile"):
        load_settings(start=tmp_path)


def test_the_place_of_a_key(tmp_path: Path) -> None:
    text = (
        'default_profile = "a" # database = 1\n\n[profiles."a"]\nnote = """\ndatabase = 2\n"""\n'
        'database = "x"\n[profiles]\nb = { database = "y" }\n[profiles.c]\npassword_command = "database"\n'
    )
    (file,) = written(tmp_path, text).files
    assert place_of(file, "default_profile") == f"{file.path}:1"
    assert place_of(file, "profiles", "a", "database") == f"{file.path}:7"
    assert place_of(file, "profiles", "a", "note") == f"{file.path}:4"
    assert place_of(file, "profiles", "b", "database") == f"{file.path}:9"
    assert place_of(file, "profiles", "c", "database") == str(file.path)


def test_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/ada")
    assert load_profiles(written(tmp_path, '[profiles.a]\nrails = "~/shop"\n'))["a"].rails == Path("/home/ada/shop")
    with pytest.raises(UsageError, match=r'rails is "~nobody-there/x"; allowed: a folder; no user has that home'):
        load_profiles(written(tmp_path, '[profiles.a]\nrails = "~nobody-there/x"\n'))


@pytest.mark.parametrize(
    ("name", "words"),
    [('"b"', 'default_profile is "b", and it has no profile "b"; it has "a"'), ("5", "default_profile is 5; allowed")],
)
def test_a_default_profile_that_is_none(tmp_path: Path, name: str, words: str) -> None:
    file = written(tmp_path, f'default_profile = {name}\n[profiles.a]\ndatabase = "x"\n')
    with pytest.raises(UsageError) as refused:
        choose_profile(file)
    assert words in str(refused.value)
    assert choose_profile(file, "a") is not None


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[profiles.a]\n", 'profiles."a" must have one of: database'),
        ('[profiles.a]\ndatabase = "x"\nrails = "y"\n', "must have one of"),
        ('[profiles.a]\ndatabse = "x"\n', 'unknown key "databse"; did you mean database? allowed: database, rails'),
        ("[profiles.a]\ndatabase = 5\n", 'profiles."a".database is 5; allowed: a text'),
        ('[profiles.a]\ndatabase = ""\n', "allowed: a text"),
        ('[profiles.a]\ndatabase = "x"\nread_only = "no"\n', 'read_only is "no"; allowed: true or false'),
        ('[profiles.a]\ndatabase = "x"\nconfirm = "no"\n', 'confirm is "no"; allowed: "yes" or "name"'),
        ('[profiles.a]\ndatabase = "x"\nenv = "staging"\n', 'profiles."a".env chooses an environment of a Rails'),
        ("[profiles]\na = 1\n", 'profiles."a" is 1; allowed: a table'),
        ("profiles = 1\n", "profiles is 1; allowed: a table"),
        ("[", "not TOML"),
    ],
)
def test_what_it_may_not(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(UsageError) as refused:
        load_profiles(written(tmp_path, text))
    assert words in str(refused.value)
    assert "jq.toml" in str(refused.value)


@pytest.mark.sqlite_only
def test_the_commands(database: Database, shell: Shell, tmp_path: Path) -> None:
    (job_id,) = add_jobs(database, *plain_jobs(1))
    named(
        shell,
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


@pytest.mark.sqlite_only
def test_the_default_profile_stands_back(database: Database, shell: Shell) -> None:
    """It counts only where nothing else names a database; then all that it says counts."""
    (job_id,) = add_jobs(database, *plain_jobs(1))
    here = f"sqlite:{database.url.database}"
    named(
        shell,
        f'default_profile = "here"\n[profiles.here]\ndatabase = "{here}"\nread_only = true\n'
        f'[profiles.nowhere]\ndatabase = "sqlite:/nowhere"\n',
    )
    shown = ["jobs", "show", str(job_id), "-o", "ids"]
    named_elsewhere = shell.run(*shown, url="sqlite:/nowhere")
    assert named_elsewhere.returncode == 3
    assert shell.run("enqueue", "PlainJob", "-d", here).returncode == 0  # not read-only: the profile does not count
    environment = {key: value for key, value in shell.env().items() if key != "JQ_DATABASE_URL"}

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "solidjq_cli", *arguments],
            env=environment,
            cwd=shell.folder,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )

    found = run(*shown)
    assert (found.returncode, found.stdout) == (0, f"{job_id}\n"), found.stderr
    refused = run("enqueue", "PlainJob")
    assert (refused.returncode, "read-only" in refused.stderr) == (5, True)
    assert run("--profile", "nowhere", *shown).returncode == 3


@pytest.mark.sqlite_only
def test_the_file_that_is_named_has_the_profiles(database: Database, shell: Shell) -> None:
    """Before the command and after it; the policy comes from the same file."""
    here = f"sqlite:{database.url.database}"
    other = str(written(shell.folder, f'[profiles.here]\ndatabase = "{here}"\n', "other.toml").files[0].path)
    assert shell.run("--profile", "here", "queues", "list").returncode == 2
    for arguments in (["--config", other, "queues", "list"], ["retry", "--safe", "--dry-run", "--config", other]):
        found = shell.run("--profile", "here", *arguments, url="sqlite:/nowhere")
        assert found.returncode == 0, found.stderr
    listed = shell.run("--config", other, "profiles", "list", "-o", "csv")
    assert "here" in listed.stdout
    shown = shell.run("--config", other, "policy", "show")
    assert "policy: built in" in shown.stderr


@pytest.mark.sqlite_only
def test_an_environment_needs_an_application(shell: Shell) -> None:
    named(shell, '[profiles.a]\ndatabase = "sqlite:x"\n')
    for before in ([], ["--profile", "a"]):
        refused = shell.run(*before, "--env", "staging", "queues", "list")
        assert (refused.returncode, "with --rails or a profile" in refused.stderr) == (2, True)
