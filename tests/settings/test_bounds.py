"""Files that never end, or take for ever to read: refused in words, in linear time.

No time is measured. Each of these attacks took minutes, or as long as the universe, before there was a bound; one that
works again ends in the time limit of the whole run.
"""

import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from solidjq import files
from solidjq.errors import UsageError
from solidjq.names import fits
from solidjq.rails.database_yml import database_url
from solidjq.rails.settings import read_config, read_settings
from solidjq.recovery.plans import read as read_plan
from solidjq.recovery.plans import read_key
from solidjq.settings.file import SettingsFile, read_file
from solidjq.settings.policy import load_policy
from solidjq.settings.profiles import load_profiles
from solidjq.settings.sources import Settings, load_settings
from support.program import Bare, assert_refused


def application(folder: Path, text: str) -> Path:
    (folder / "config").mkdir(exist_ok=True)
    (folder / "config" / "database.yml").write_text(text)
    return folder


# -- what has no end --------------------------------------------------------------------------------------------------


def to_device(path: Path) -> None:
    path.symlink_to("/dev/zero")


def to_pipe(path: Path) -> None:
    os.mkfifo(path)


def to_folder(path: Path) -> None:
    path.mkdir()


def to_terminal(path: Path) -> None:
    path.symlink_to("/dev/ptmx")


READERS: dict[str, tuple[str, Callable[[Path], object]]] = {
    "settings": ("jq.toml", lambda folder: read_file(folder / "jq.toml")),
    "plan": ("plan.json", lambda folder: read_plan(folder / "plan.json")),
    "key": ("key", lambda folder: read_key(folder / "key")),
    "database.yml": ("config/database.yml", lambda folder: database_url(folder, variables={})),
}


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("make", [to_device, to_pipe, to_folder, to_terminal])
def test_what_is_no_file_is_not_read(
    tmp_path: Path, reader: str, make: Callable[[Path], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "PIPE_PATIENCE", 0.01)  # nobody ever writes into this pipe
    name, read = READERS[reader]
    (tmp_path / name).parent.mkdir(exist_ok=True)
    make(tmp_path / name)
    with pytest.raises(UsageError, match=r"regular file|Is a directory|nothing was written into the pipe"):
        read(tmp_path)


def test_files_of_an_application_that_are_no_files_are_skipped(tmp_path: Path) -> None:
    folder = application(tmp_path, "production: {adapter: postgresql, database: q}\n")
    (folder / "config" / "initializers").mkdir()
    (folder / "config" / "initializers" / "a.rb").symlink_to("/dev/zero")
    os.mkfifo(folder / "config" / "initializers" / "b.rb")
    (folder / "config" / "queue.yml").symlink_to("/dev/zero")
    assert read_settings(folder, variables={}) == {}
    assert "regular file" in (read_config(folder, variables={}).problem or "")


def test_a_pipe_that_is_named_by_hand_is_read(tmp_path: Path) -> None:
    """As the shell's <(command) makes it."""
    bare = Bare("", tmp_path, {"XDG_STATE_HOME": str(tmp_path)})
    done = bare.line("jq --config <(echo '[default]'; echo 'max_crashes = 7') policy show -o json")
    assert (done.returncode, '"max_crashes", "value": 7' in done.stdout) == (0, True), done.stderr


def test_a_pipe_without_an_end_is_too_big(tmp_path: Path) -> None:
    bare = Bare("", tmp_path, {"XDG_STATE_HOME": str(tmp_path)})
    for command in ("jq apply <(yes)", "jq --config <(cat /dev/zero) policy show"):
        assert_refused(bare.line(command), 2)


# -- jq.toml ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "a = " + "[" * 100_000,
        "a = " + "{a = " * 20_000,
        ".".join("a" * 60_000) + " = 1",
        "[" + ".".join("a" * 60_000) + "]",
        "[default]\nmax_crashes = " + "9" * 5_000,
        "[default]\nmax_crashes = 0x" + "f" * 5_000,
        "[default]\nwindow = 0x" + "f" * 5_000,
        '[default]\nwindow = "' + "9" * 5_000 + 'd"',
        "[profiles.a]\ndatabase = 0x" + "f" * 5_000,
        "[profiles.a]\nalive_threshold = '" + "9" * 5_000 + "h'",
        "[default]\nretry = " + "[" * 300 + "]" * 300,
        "#" * 128_001,
        "\ud800",
    ],
    ids=range(13),
)
def test_a_settings_file_that_makes_no_sense_is_refused_in_words(tmp_path: Path, text: str) -> None:
    (tmp_path / "jq.toml").write_text(text, errors="surrogatepass")
    with pytest.raises(UsageError):
        read_and_check(tmp_path / "jq.toml")


def read_and_check(path: Path) -> None:
    file = read_file(path)
    load_policy(file)
    load_profiles(Settings((file,)))


def test_a_comment_may_have_dots(tmp_path: Path) -> None:
    (tmp_path / "jq.toml").write_text(f"  # {'.' * 100}\n")
    assert read_file(tmp_path / "jq.toml").document == {}


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_what_others_left_unreadable_ends_no_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A huge jq.toml in a folder for all: what only reads goes on, what acts refuses."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.delenv("JQ_CONFIG", raising=False)
    (tmp_path / "jq.toml").write_text("#" * 200_000)
    with pytest.raises(UsageError, match="too big"):
        load_settings(start=tmp_path)
    tmp_path.chmod(0o777)
    assert "too big" in (load_settings(start=tmp_path).distrust or "")


# -- patterns ---------------------------------------------------------------------------------------------------------


def test_a_pattern_of_thirty_stars_is_linear() -> None:
    assert not fits("*a" * 30 + "b", "a" * 255)
    file = SettingsFile(Path("own"), {"classes": {"a*" * 100 + "b": {"retry": "never"}}})
    assert not load_policy(file).rule("a" * 255).sources


@given(st.text("ab*", max_size=8), st.text("ab", max_size=8))
def test_patterns_fit_as_in_regular_expressions(pattern: str, name: str) -> None:
    expected = re.fullmatch(".*".join(map(re.escape, pattern.split("*"))), name, re.DOTALL) is not None
    assert fits(pattern, name) == expected


# -- files of a Rails application -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "<%" * 30_000,
        "<%= " * 15_000,
        "<%= " + "x" * 50_000 + " %>",
        "production: {adapter: postgresql, port: " + "9" * 5_000 + "}",
        "production: {adapter: postgresql, port: '" + "9" * 5_000 + "'}",
        "production: {adapter: postgresql, port: " + "1:" * 9_000 + "1}",
        "production: {adapter: postgresql, port: 0b_}",
        "production: {adapter: postgresql, port: 0x" + "f" * 50_000 + "}",
        "production: {adapter: postgresql, port: !!bool maybe}",
        "production: {adapter: postgresql, port: 2001-99-99}",
        "{a: " * 20_000,
        "- " * 30_000,
        "? " * 30_000,
        "&a " * 301,
        "production: &a {<<: *a, adapter: postgresql, port: x}",
        "#" * 64_001,
        "".join(f"e{n}: {{a: b}}\n" for n in range(4_000)),
    ],
    ids=range(17),
)
def test_a_database_yml_that_makes_no_sense_is_refused_in_words(tmp_path: Path, text: str) -> None:
    with pytest.raises(UsageError) as refused:
        database_url(application(tmp_path, text), variables={})
    assert len(str(refused.value)) < 1_000


def test_tags_that_repeat_themselves_fill_no_memory(tmp_path: Path) -> None:
    tag = '<%= "' + "A" * 9_000 + '" %>'
    marks = "jq-tag-0-gat" * 4_000
    with pytest.raises(UsageError, match="too long"):
        database_url(
            application(tmp_path, f"a: {tag}\nproduction: {{adapter: postgresql, host: {marks}}}"), variables={}
        )


@pytest.mark.parametrize(
    "text",
    [
        "=begin\n" * 50_000,
        "config.solid_queue.use_skip_locked = true\n" * 9_000,
        " SolidQueue.use_skip_locked = false" + "\n" * 200_000 + "SolidQueue.use_skip_locked = true\n" * 9_000,
        "".join(f"{' ' * (n % 80)}SolidQueue.use_skip_locked = true\n" for n in range(12_000)),
        "SolidQueue.use_skip_locked = " + "if " * 200_000,
        "SolidQueue.process_alive_threshold = " + "9" * 500_000,
        "SolidQueue.process_alive_threshold = " + "9_" * 200_000 + "x",
    ],
    ids=range(7),
)
def test_a_ruby_file_is_searched_in_linear_time(tmp_path: Path, text: str) -> None:
    (tmp_path / "config").mkdir()
    (tmp_path / "config" / "application.rb").write_text(text)
    setting = read_settings(tmp_path, variables={}).get("process_alive_threshold")
    assert setting is None or setting.value is None
