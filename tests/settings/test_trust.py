"""A jq.toml that somebody left where the user stands: it opens nothing, names nothing, loosens nothing."""

import json
import os
import struct
import subprocess
import sys
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from solidjq import Database
from solidjq.errors import RefusedError, UsageError
from solidjq.ownership import _is_private, weakness
from solidjq.settings import sources, trust
from solidjq.settings.file import SettingsFile, parse_toml, read_file
from solidjq.settings.policy import ClassPolicy, Consent, is_at_least_as_strict, load_policy
from solidjq.settings.profiles import choose_profile
from solidjq.settings.sources import Settings, load_settings
from support.deaths import die
from support.program import PASSWORD, Bare, Shell
from support.queue import NewJob, add_jobs
from support.waiting import PATIENCE

NOBODY = 65_534
OTHERS_GROUP = 54_321  # no group has it
need_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
EVIL_POLICY = '[default]\nretry = "auto"\nmax_crashes = 1000000\nwindow = "1s"\nqueue_as = "attacker"\n'


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give the user a configuration folder, with no file in it, and the system none."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("JQ_CONFIG", raising=False)
    monkeypatch.setattr(sources, "SYSTEM_FILE", tmp_path / "etc" / "jq.toml")
    folder = tmp_path / "home" / "solidjq"
    folder.mkdir(parents=True, mode=0o700)
    return folder


@pytest.fixture
def here(tmp_path: Path) -> Path:
    """The folder where the user stands."""
    folder = tmp_path / "project"
    folder.mkdir()
    return folder


def bare_in(folder: Path) -> Bare:
    return Bare("sqlite:nowhere", folder, {"XDG_STATE_HOME": str(folder / "state")})


def policy_here(folder: Path, text: str, own: str = "") -> ClassPolicy:
    """Return the policy of class Mail, with a found file and one of the user's own."""
    own_file = SettingsFile(Path("own"), parse_toml(own, "own"))
    return load_policy(Settings((own_file,), SettingsFile(folder, parse_toml(text, "found")))).rule("Mail")


# -- databases --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", ["failed list", "queues list", "doctor", "prune", "profiles list", "policy show"])
@pytest.mark.parametrize("before", [[], ["--profile", "production"], ["--read-only", "--profile", "production"]])
def test_a_found_default_profile_opens_nothing(here: Path, command: str, before: list[str]) -> None:
    """A canary is what the driver would have made: a database file, a file of secrets."""
    database, log = here / "canary.sqlite3", here / "sslkeys"
    for url in (f"sqlite:{database}", f"postgres://u@127.0.0.1:1/q?sslmode=require&sslkeylogfile={log}"):
        (here / "jq.toml").write_text(
            f'default_profile = "production"\n[profiles.production]\ndatabase = "{url}"\ntable_prefix = "evil_"\n'
        )
        done = bare_in(here).run(*before, *command.split())
        assert "127.0.0.1" not in done.stderr + done.stdout
        assert "canary" not in done.stderr + done.stdout
        assert done.returncode in {0, 2}, done.stderr
        if before and command not in {"profiles list", "policy show"}:
            assert done.returncode == 2
            assert 'profile "production" is in ' in done.stderr
            assert f"jq config trust {here}/jq.toml" in done.stderr
        assert not database.exists()
        assert not log.exists()


def test_a_found_profile_shadows_none_of_the_users(here: Path, own_folder: Path) -> None:
    (own_folder / "jq.toml").write_text('[profiles.production]\ndatabase = "sqlite:own.sqlite3"\nread_only = true\n')
    (here / "jq.toml").write_text('[profiles.production]\ndatabase = "sqlite:evil.sqlite3"\n')
    listed = bare_in(here).run("profiles", "list", "-o", "json")
    assert [(row["database"], row["read_only"]) for row in json.loads(listed.stdout)] == [("sqlite:own.sqlite3", True)]
    refused = bare_in(here).run("--profile", "production", "prune")
    assert (refused.returncode, "opened read-only" in refused.stderr or "own.sqlite3" in refused.stderr) != (0, False)
    assert "evil" not in refused.stderr


def test_a_found_application_gets_no_variable(here: Path) -> None:
    (here / "config").mkdir()
    (here / "config" / "database.yml").write_text(
        "production: {adapter: postgresql, host: 127.0.0.1, port: 1, database: q, password: <%= ENV['AWS_SECRET'] %>}\n"
    )
    (here / "jq.toml").write_text('default_profile = "a"\n[profiles.a]\nrails = "."\n')
    bare = bare_in(here)
    bare.environment["AWS_SECRET"] = PASSWORD
    for before in ([], ["--profile", "a"]):
        done = bare.run(*before, "failed", "list")
        assert (done.returncode, "127.0.0.1" in done.stderr) == (2, False), done.stderr


def test_an_ignored_default_profile_is_said(here: Path) -> None:
    (here / "jq.toml").write_text('default_profile = "a"\n[profiles.a]\ndatabase = "sqlite:x"\n')
    done = bare_in(here).run("failed", "list")
    assert f"{here}/jq.toml is ignored for default_profile" in done.stderr
    assert "no database is named" in done.stderr


# -- the policy -------------------------------------------------------------------------------------------------------


def test_a_found_policy_cannot_loosen(here: Path) -> None:
    built_in = ClassPolicy()
    assert policy_here(here, EVIL_POLICY) == built_in
    assert policy_here(here, EVIL_POLICY.replace("default", "classes.Mail")) == built_in
    assert policy_here(here, EVIL_POLICY.replace("default", 'classes."*"')) == built_in
    strict = '[default]\nretry = "never"\nmax_crashes = 1\nwindow = "30d"\nmax_age = "1h"\nqueue_as = "slow"\n'
    rule = policy_here(here, EVIL_POLICY + 'max_age = "9999d"\n', strict)
    assert (rule.retry, rule.max_crashes, rule.window) == (Consent.NEVER, 1, timedelta(days=30))
    assert (rule.max_age, rule.queue_as) == (timedelta(hours=1), "slow")
    assert {source.partition(" ")[0] for source in rule.sources.values()} == {"own"}


def test_a_found_policy_tightens_unseen(here: Path) -> None:
    text = '[default]\nmax_crashes = 1\n[classes.Mail]\nretry = "never"\nwindow = "9d"\nmax_age = "1d"\n'
    rule = policy_here(here, text, '[default]\nretry = "auto"\nmax_age = "2d"\n')
    assert (rule.retry, rule.max_crashes, rule.window) == (Consent.NEVER, 1, timedelta(days=9))
    assert rule.max_age == timedelta(days=1)
    assert rule.sources == {
        "retry": f'{here} [classes."Mail"]',
        "max_crashes": f"{here} [default]",
        "window": f'{here} [classes."Mail"]',
        "max_age": f'{here} [classes."Mail"]',
    }


DURATIONS = st.sampled_from(["1s", "1h", "72h", "9d"])
TABLES = st.fixed_dictionaries(
    {},
    optional={
        "retry": st.sampled_from(list(Consent)),
        "max_crashes": st.integers(1, 5),
        "window": DURATIONS,
        "max_age": DURATIONS,
        "queue_as": st.sampled_from(["a", "b"]),
    },
)
DOCUMENTS = st.fixed_dictionaries(
    {}, optional={"default": TABLES, "classes": st.dictionaries(st.sampled_from(["Mail", "M*", "*"]), TABLES)}
)


@given(DOCUMENTS, DOCUMENTS, st.sampled_from(["Mail", "Match", "Other"]))
def test_no_found_policy_is_looser(own: dict[str, object], found: dict[str, object], name: str) -> None:
    given_file = SettingsFile(Path("own"), own)
    without = load_policy(given_file).rule(name)
    policy = load_policy(Settings((given_file,), SettingsFile(Path("found"), found)))
    rule = policy.rule(name)
    assert rule == without or policy.words().endswith("made stricter by found")
    for key in ("retry", "max_crashes", "window", "max_age", "queue_as"):
        assert is_at_least_as_strict(key, getattr(rule, key), getattr(without, key))


@pytest.mark.sqlite_only
def test_recover_in_cron_obeys_no_found_file(database: Database, shell: Shell) -> None:
    add_jobs(database, NewJob(class_name="Mail"))
    die(database)
    (shell.folder / "jq.toml").write_text(EVIL_POLICY + "[profiles.a]\ndatabase = 'x'\n")
    quiet = shell.run("recover", "--quiet")
    assert (quiet.returncode, quiet.stdout, quiet.stderr) == (0, "", "")
    done = shell.run("recover")
    assert "left to a person, or done: 1 ask" in done.stderr
    ignored = done.stderr.splitlines()[0]
    keys = "profiles, default.retry, default.max_crashes, default.window, default.queue_as"
    assert ignored.startswith(f"jq: {shell.folder}/jq.toml is ignored for {keys}: ")
    assert "made stricter" not in done.stderr, "nothing in it is"


@pytest.mark.parametrize(
    ("own", "found", "stricter"),
    [
        ("", "", False),
        ("", '[default]\nretry = "ask"\nmax_crashes = 3', False),
        ("", "[default]\nmax_crashes = 9", False),
        ("", "[default]\nmax_crashes = 2", True),
        ("[default]\nmax_crashes = 2", "[default]\nmax_crashes = 2", False),
        ('[classes.Mail]\nretry = "auto"', '[default]\nretry = "ask"', True),
        ('[classes.Mail]\nretry = "auto"', '[classes.Other]\nretry = "ask"', False),
        ('[classes.Mail]\nretry = "auto"', '[classes."M*"]\nretry = "ask"', True),
        ('[classes."*Job"]\nretry = "auto"', '[classes."Mail*"]\nretry = "ask"', True),
    ],
)
def test_a_found_policy_is_named_only_if_it_makes_something_stricter(own: str, found: str, *, stricter: bool) -> None:
    own_file, found_file = (
        SettingsFile(Path(name), parse_toml(text, name)) for name, text in (("a", own), ("b", found))
    )
    assert ("made stricter by b" in load_policy(Settings((own_file,), found_file)).words()) is stricter


@pytest.mark.sqlite_only
def test_an_honest_file_tightens_and_is_recorded(database: Database, shell: Shell) -> None:
    mail, other = add_jobs(database, NewJob(class_name="Mail"), NewJob(class_name="Other"))
    die(database)
    (shell.folder / "jq.toml").write_text('[classes.Mail]\nretry = "never"\n')
    done = shell.run("retry", "--safe", "--yes", "-o", "json")
    verdicts = {row["job_id"]: row["verdict"] for row in json.loads(done.stdout)}
    assert verdicts == {mail: "never", other: "retry"}
    words = f"built in, made stricter by {shell.folder}/jq.toml"
    number = shell.run("operations", "list", "-o", "ids").stdout.strip()
    assert done.stderr.splitlines()[0] == f"jq: policy: {words}"
    (record,) = json.loads(shell.run("operations", "list", "-o", "json").stdout)
    assert record["selection"]["policy"] == words
    assert words in " ".join(shell.run("operations", "show", number).stdout.split())


def test_a_typing_error_that_would_forbid_is_an_error(here: Path) -> None:
    (here / "jq.toml").write_text('[classes.Mail]\nretrie = "never"\n')
    done = bare_in(here).run("policy", "show")
    assert (done.returncode, "did you mean retry?" in done.stderr) == (2, True)


# -- who may write it -------------------------------------------------------------------------------------------------


def given_away(path: Path) -> None:
    os.chown(path, NOBODY, -1)


def for_a_group(path: Path) -> None:
    os.chown(path, -1, OTHERS_GROUP)
    path.chmod(0o775)


def for_all(path: Path) -> None:
    path.chmod(0o777)


def for_all_and_sticky(path: Path) -> None:
    path.chmod(0o1777)


@need_root
@pytest.mark.parametrize("deed", [given_away, for_a_group, for_all, for_all_and_sticky])
@pytest.mark.parametrize("where", ["file", "folder", "above"])
def test_what_others_may_write(here: Path, deed: Callable[[Path], None], where: str) -> None:
    folder = here / "app"
    folder.mkdir()
    file = folder / "jq.toml"
    file.write_text('[classes.Mail]\nretry = "never"\n')
    assert weakness(file) is None
    assert load_settings(start=folder).found is not None
    deed({"file": file, "folder": folder, "above": here}[where])
    settings = load_settings(start=folder)
    if (deed, where) == (for_all_and_sticky, "above"):  # as /tmp is: nobody may replace what is another's
        assert settings.distrust is None
        return
    assert (settings.files, settings.found) == ((), None)
    with pytest.raises(RefusedError, match=r"jq config trust .*nothing was changed"):
        settings.require_trust()
    # The user's own look at the text goes before who else may write it: an edit ends the trust.
    trust.trust(file, file.read_bytes())
    assert [each.path for each in load_settings(start=folder).files] == [file]


@need_root
def test_a_group_of_one_is_its_user(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = here / "jq.toml"
    file.touch()
    for_a_group(here)
    assert weakness(file) == f"group {OTHERS_GROUP} may write the folder {here}"
    monkeypatch.setattr("solidjq.ownership._is_private", lambda group, owner: (group, owner) == (OTHERS_GROUP, 0))
    assert weakness(file) is None


def test_a_group_with_one_member_that_is_listed_may_have_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """A directory service need not list its users; a group of the user's own is recognised by its name."""
    monkeypatch.setattr("grp.getgrgid", lambda group: SimpleNamespace(gr_name={1: "ann", 2: "users"}[group], gr_mem=[]))
    users = [SimpleNamespace(pw_name="ann", pw_uid=7, pw_gid=group) for group in (1, 2)]
    monkeypatch.setattr("pwd.getpwuid", lambda _: users[0])
    monkeypatch.setattr("pwd.getpwall", lambda: users)
    assert [_is_private.__wrapped__(group, 7) for group in (1, 2)] == [True, False]


@need_root
@pytest.mark.parametrize("target", ["of another", "in a folder for all", "behind a link of another"])
def test_a_link_is_as_weak_as_what_it_leads_to(here: Path, tmp_path: Path, target: str) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    real = elsewhere / "real.toml"
    real.write_text('[default]\nretry = "never"\n')
    link = here / "jq.toml"
    link.symlink_to(real)
    assert load_settings(start=here).distrust is None
    if target == "of another":
        given_away(real)
    elif target == "in a folder for all":
        for_all_and_sticky(elsewhere)
    else:
        second = tmp_path / "second"
        second.mkdir()
        (second / "hop").symlink_to(real)
        given_away(second)
        link.unlink()
        link.symlink_to(second / "hop")
    assert "is not trusted" in (load_settings(start=here).distrust or "")


def test_links_without_end(here: Path) -> None:
    (here / "a").symlink_to(here / "b")
    (here / "b").symlink_to(here / "a")
    assert "cannot be examined" in (weakness(here / "a") or "")
    assert "cannot be examined" in (weakness(here / "gone") or "")
    (here / "jq.toml").symlink_to("/dev/zero")
    assert load_settings(start=here) == Settings()


@need_root
def test_under_sudo_the_callers_files_are_anothers(
    here: Path, own_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the caller's HOME, neither the caller's configuration counts for root nor what the caller trusts."""
    monkeypatch.setenv("SUDO_UID", str(NOBODY))
    file = here / "jq.toml"
    file.write_text('[classes.Mail]\nretry = "auto"\n')
    trust.trust(file, file.read_bytes())
    for path in (file, here, own_folder, trust.record_path()):
        given_away(path)
    assert "belongs to" in (load_settings(start=here).distrust or "")
    with pytest.raises(RefusedError, match="sudo -H"):
        trust.trust(file, file.read_bytes())
    (own_folder / "jq.toml").write_text('[profiles.a]\ndatabase = "x"\n')
    given_away(own_folder / "jq.toml")
    with pytest.raises(RefusedError, match="name a file with --config"):
        load_settings(start=here)
    assert load_settings(own_folder / "jq.toml", start=here).files  # what is named by hand is


@need_root
@pytest.mark.sqlite_only
def test_what_acts_refuses_without_the_rules_of_a_file(database: Database, shell: Shell) -> None:
    """A file that forbids must not lose its force by a wrong right; who only reads is told."""
    add_jobs(database, NewJob(class_name="Mail"))
    die(database)
    (shell.folder / "jq.toml").write_text('[classes.Mail]\nretry = "never"\n')
    for_all(shell.folder)
    for command in ("retry --safe --yes", "recover", "recover --quiet", "apply plan.json", "bisect d1 --yes"):
        if command.startswith("apply"):
            assert shell.run("retry", "--safe", "--plan-out", "plan.json").returncode == 0
        done = shell.run(*command.split())
        assert (done.returncode, done.stdout) == (5, ""), done.stderr
        assert f"everybody may write the folder {shell.folder}" in done.stderr
        assert "nothing was changed" in done.stderr
    read = shell.run("retry", "--safe", "--dry-run")
    assert (read.returncode, "is not trusted" in read.stderr) == (0, True)
    own = shell.folder / "own.toml"
    own.touch()
    assert shell.run("retry", "--safe", "--yes", "--config", str(own)).returncode == 0


# -- trust ------------------------------------------------------------------------------------------------------------


@pytest.mark.sqlite_only
def test_trust_ends_with_an_edit(database: Database, shell: Shell, own_folder: Path) -> None:
    add_jobs(database, NewJob(class_name="Mail"))
    file = shell.folder / "jq.toml"
    file.write_text(f'default_profile = "a"\n[profiles.a]\ndatabase = "{shell.url}"\n[default]\nretry = "auto"\n')
    bare = Bare(shell.url, shell.folder, shell.environment)
    assert bare.run("queues", "list").returncode == 2
    trusted = bare.run("config", "trust", ".")
    assert (trusted.returncode, f"trusted {file} (SHA-256 " in trusted.stderr) == (0, True)
    record = own_folder / "trusted.json"
    assert record.stat().st_mode & 0o777 == 0o600
    assert bare.run("queues", "list").returncode == 0
    assert json.loads(bare.run("config", "list", "-o", "json").stdout) == [
        {"path": str(file), "standing": "found: trusted, counts"}
    ]
    assert bare.run("recover").stderr.splitlines()[0] == f"jq: policy: {file}"
    with file.open("a") as appended:
        appended.write("max_crashes = 9\n")
    assert bare.run("queues", "list").returncode == 2
    refused = shell.run("recover", "--quiet")
    assert (refused.returncode, "it was changed since you trusted it" in refused.stderr) == (5, True)
    assert bare.run("config", "trust", str(file)).returncode == 0
    assert bare.run("queues", "list").returncode == 0
    assert "trusted no longer" in bare.run("config", "untrust", str(shell.folder)).stderr
    assert "was not trusted" in bare.run("config", "untrust", str(file)).stderr
    assert bare.run("queues", "list").returncode == 2
    assert "may only tighten" in bare.run("config", "list").stdout


def test_trust_is_for_a_path(here: Path, tmp_path: Path) -> None:
    """The same text elsewhere, and a link to it, are not what was trusted."""
    file = here / "jq.toml"
    file.write_text('[default]\nretry = "auto"\n')
    trust.trust(file, file.read_bytes())
    other = tmp_path / "other"
    other.mkdir()
    (other / "jq.toml").symlink_to(file)
    settings = load_settings(start=other)
    assert (settings.files, settings.found) == ((), read_file(other / "jq.toml"))


def test_what_is_wrong_is_not_trusted(here: Path, own_folder: Path) -> None:
    (here / "jq.toml").write_text("[default]\nretry = 1\n")
    assert bare_in(here).run("config", "trust", str(here)).returncode == 2
    assert bare_in(here).run("config", "trust", str(here / "gone.toml")).returncode == 2
    assert list(own_folder.iterdir()) == []


@pytest.mark.parametrize("content", ["", "[", "[]", '{"a": 1}', "[" * 100_000, "\udcff"])
def test_a_broken_record_trusts_nothing(here: Path, own_folder: Path, content: str) -> None:
    (own_folder / "trusted.json").write_text(content, errors="surrogateescape")
    (here / "jq.toml").touch()
    assert trust.standing(here / "jq.toml", b"") is trust.Standing.UNKNOWN


# -- the system's file ------------------------------------------------------------------------------------------------


def test_the_systems_file_is_the_weakest(here: Path, own_folder: Path) -> None:
    sources.SYSTEM_FILE.parent.mkdir()
    sources.SYSTEM_FILE.write_text(
        'default_profile = "a"\n[profiles.a]\ndatabase = "sys"\n[profiles.b]\ndatabase = "b"\n'
        '[default]\nmax_crashes = 7\nretry = "never"\n'
    )
    (own_folder / "jq.toml").write_text('[profiles.a]\ndatabase = "own"\n[default]\nretry = "auto"\n')
    settings = load_settings(start=here)
    names = [
        (profile.name, profile.database)
        for profile in filter(None, (choose_profile(settings, name) for name in (None, "b")))
    ]
    assert names == [("a", "own"), ("b", "b")]
    rule = load_policy(settings).rule("Mail")
    assert (rule.retry, rule.max_crashes) == (Consent.AUTO, 7)
    with pytest.raises(UsageError, match='has no profile "c"; it has '):
        choose_profile(settings, "c")


def test_a_folder_that_was_removed(tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    code = (
        "import os; os.rmdir(os.getcwd()); from solidjq.settings.sources import load_settings; print(load_settings())"
    )
    done = subprocess.run(
        [sys.executable, "-P", "-c", code], cwd=gone, capture_output=True, text=True, timeout=PATIENCE, check=False
    )
    assert done.returncode == 0, done.stderr


# -- modules and databases --------------------------------------------------------------------------------------------


def test_a_module_that_lies_here_replaces_none_that_is_installed(here: Path) -> None:
    """--import searches the folder where the user stands: after all others, or a psutil.py there would run as root."""
    for name in ("psutil", "pymysql", "secrets"):
        (here / f"{name}.py").write_text("raise SystemExit('replaced')")
    (here / "shop_jobs.py").write_text("import psutil, pymysql, secrets, solidjq\n@solidjq.job\ndef a(): ...\n")
    done = subprocess.run(
        [Path(sys.executable).parent / "jq", "enqueue", "a", "--import", "shop_jobs", "--database", "sqlite:gone"],
        cwd=here,
        env=bare_in(here).env(),
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert (done.returncode, "no SQLite file" in done.stderr) == (3, True), done.stderr


@pytest.mark.sqlite_only
def test_the_schema_of_an_sqlite_file_is_not_trusted(database: Database) -> None:
    with database.read() as connection:
        assert connection.exec_driver_sql("PRAGMA trusted_schema").scalar() == 0


@pytest.mark.sqlite_only
def test_a_path_that_begins_with_two_slashes_names_no_host(database: Database, shell: Shell) -> None:
    path = str(database.url.database)
    assert shell.run("queues", "list", "-d", f"/{path}").returncode == 0


def test_an_access_control_list_counts(tmp_path: Path) -> None:
    """Its mask looks like the right of the group, which may be the user's own."""
    file = tmp_path / "jq.toml"
    file.write_text("")
    nobody, anyone = 65534, 0xFFFFFFFF
    entries = [(1, 6, anyone), (2, 6, nobody), (4, 4, anyone), (16, 6, anyone), (32, 4, anyone)]
    packed = struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in entries)
    assert weakness(file) is None
    try:
        os.setxattr(file, "system.posix_acl_access", packed)
    except OSError:
        pytest.skip("this file system has no access control lists")
    assert "access control list" in str(weakness(file))
