"""jq.toml: who may be retried. Precedence, validation, where the file is looked for."""

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from solidjq.durations import parse_duration, spell_duration
from solidjq.errors import UsageError
from solidjq.registry import job
from solidjq.settings.file import SettingsFile, parse_toml, read_file
from solidjq.settings.policy import BUILT_IN, Consent, Policy, load_policy
from solidjq.settings.sources import load_settings
from support.program import Shell

KEYS = ("retry", "max_crashes", "window", "count", "max_age", "queue_as")


def policy(text: str, place: str = "jq.toml", **registered: dict[str, Any]) -> Policy:
    file = SettingsFile(Path(place), parse_toml(text, place))
    return load_policy(file, registered={name: ("shop.jobs", settings) for name, settings in registered.items()})


def test_what_is_built_in() -> None:
    rule = BUILT_IN.rule("Anything")
    assert (rule.retry, rule.max_crashes, rule.window) == (Consent.ASK, 3, timedelta(hours=72))
    assert (rule.max_age, rule.queue_as, rule.sources) == (None, None, {})


def test_each_key_comes_from_the_most_specific_place_that_gives_it() -> None:
    chosen = policy(
        """
        [default]
        retry = "never"
        max_crashes = 9
        window = "1h"
        queue_as = "default"
        [classes."*"]
        window = "2h"
        [classes."Report*"]
        retry = "ask"
        window = "3h"
        [classes."Report*Daily"]
        window = "4h"
        [classes.ReportDaily]
        max_age = "5d"
        """,
        ReportDaily={"max_crashes": 2, "window": timedelta(hours=99), "queue_as": "job"},
    )
    rule = chosen.rule("ReportDaily")
    assert (rule.retry, rule.max_crashes, rule.window) == (Consent.ASK, 2, timedelta(hours=4))
    assert (rule.max_age, rule.queue_as) == (timedelta(days=5), "job")
    assert rule.sources == {
        "retry": 'jq.toml [classes."Report*"]',
        "max_crashes": "@job of shop.jobs",
        "window": 'jq.toml [classes."Report*Daily"]',
        "max_age": 'jq.toml [classes."ReportDaily"]',
        "queue_as": "@job of shop.jobs",
    }
    other = chosen.rule("Mail")
    assert (other.retry, other.max_crashes, other.window) == (Consent.NEVER, 9, timedelta(hours=2))


@pytest.mark.parametrize(
    ("pattern", "name", "matches"),
    [
        ("Report*", "Report", True),
        ("Report*", "Reports::Daily", True),
        ("*Daily", "Reports::Daily", True),
        ("*::*", "Reports::Daily", True),
        ("Report*", "report", False),
        ("Report*", "MyReport", False),
        ("Re.ort*", "Report", False),
        ("[R]*", "Report", False),
        ("R?port*", "Report", False),
    ],
)
def test_only_a_star_is_special_in_a_pattern(pattern: str, name: str, matches: bool) -> None:  # noqa: FBT001
    rule = policy(f'[classes."{pattern}"]\nretry = "never"').rule(name)
    assert (rule.retry is Consent.NEVER) is matches


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ('[default]\nretry = "maybe"', 'f: default.retry is "maybe"; allowed: "auto", "ask", "never"'),
        ("[default]\nretry = true", 'f: default.retry is True; allowed: "auto", "ask", "never"'),
        ("[default]\nmax_crashes = 0", "f: default.max_crashes is 0; allowed: a whole number from 1 to 1000000"),
        ("[default]\nmax_crashes = true", "f: default.max_crashes is True; allowed: a whole number from 1 to 1000000"),
        ("[default]\nmax_crashes = 2.5", "f: default.max_crashes is 2.5; allowed: a whole number from 1 to 1000000"),
        ("[default]\nwindow = 72", 'f: default.window is 72; allowed: a text such as "90s", "15m", "72h", "7d"'),
        ('[default]\nwindow = "0s"', 'f: default.window is "0s"; allowed: a text such as "90s", "15m", "72h", "7d"'),
        ('[default]\ncount = "record"', 'f: default.count is "record"; allowed: "position", "job"'),
        ('[default]\nmax_age = "x"', 'f: default.max_age is "x"; allowed: a text such as "90s", "15m", "72h", "7d"'),
        ('[default]\nqueue_as = ""', 'f: default.queue_as is ""; allowed: a queue\'s name, of 1 to 255 characters'),
        (
            '[classes."A*"]\nretrie = "ask"',
            'f: classes."A*": unknown key "retrie"; did you mean retry? allowed: ' + ", ".join(KEYS),
        ),
        (
            "[class.A]",
            (
                'f: unknown key or table "class"; did you mean classes? allowed: default, '
                "classes, profiles, default_profile, mask, queues, workers"
            ),
        ),
        ("default = 1", "f: default is 1; allowed: a table"),
        ("[classes]\nA = 1", 'f: classes."A" is 1; allowed: a table'),
        ('[default]\nretry = "a\\u001b[31m"', 'f: default.retry is "a\\x1b[31m"; allowed: "auto", "ask", "never"'),
    ],
)
def test_what_is_wrong_is_named_with_what_is_allowed(text: str, complaint: str) -> None:
    with pytest.raises(UsageError) as raised:
        policy(text, "f")
    assert str(raised.value) == complaint


def test_a_syntax_error_names_the_line() -> None:
    with pytest.raises(UsageError, match=r"^f is not TOML: .*line 2"):
        policy("[default]\nretry = \n", "f")


def test_where_the_file_is_looked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.delenv("JQ_CONFIG", raising=False)
    monkeypatch.setattr("solidjq.settings.sources.SYSTEM_FILE", tmp_path / "etc" / "jq.toml")
    here = tmp_path / "a" / "b"

    def paths() -> tuple[list[Path], Path | None]:
        settings = load_settings(start=here)
        assert settings.distrust is None
        return [file.path for file in settings.files], settings.found and settings.found.path

    def touched(*parts: str) -> Path:
        path = tmp_path.joinpath(*parts)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        return path

    here.mkdir(parents=True)
    assert paths() == ([], None)
    system = touched("etc", "jq.toml")
    assert paths() == ([system], None)
    own = touched("config", "solidjq", "jq.toml")
    assert paths() == ([own, system], None)
    above = touched("jq.toml")
    assert paths() == ([own, system], above)
    nearest = touched("a", "b", "jq.toml")
    assert paths() == ([own, system], nearest)
    here = own.parent  # a user who stands in the configuration folder
    assert paths() == ([own, system], None)
    monkeypatch.setenv("JQ_CONFIG", str(above))
    assert paths() == ([above], None)
    monkeypatch.setenv("JQ_CONFIG", "/srv/other.toml")
    with pytest.raises(UsageError, match=r"cannot read the settings file /srv/other\.toml"):
        load_settings()
    monkeypatch.setenv("JQ_CONFIG", "")
    with pytest.raises(UsageError, match="JQ_CONFIG is empty"):
        load_settings()


def test_a_file_that_is_no_text_is_named(tmp_path: Path) -> None:
    (tmp_path / "jq.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(UsageError, match="not UTF-8 text"):
        read_file(tmp_path / "jq.toml")
    with pytest.raises(UsageError, match="cannot read"):
        read_file(tmp_path)
    (tmp_path / "jq.toml").write_bytes(b"#" * 1_000_001)
    with pytest.raises(UsageError, match="too big"):
        read_file(tmp_path / "jq.toml")


def test_a_job_says_it_of_itself() -> None:
    registered = job(name="policy_test", retry="auto", max_crashes=5, window="24h", max_age="1d", queue_as="big")
    assert registered(len).policy == {
        "retry": Consent.AUTO,
        "max_crashes": 5,
        "window": timedelta(hours=24),
        "max_age": timedelta(days=1),
        "queue_as": "big",
    }
    with pytest.raises(UsageError, match='@job: window is "soon"; allowed'):
        job(window="soon")


def test_policy_show_says_where_each_key_is_from(tmp_path: Path) -> None:
    (tmp_path / "jq.toml").write_text('[classes."Rep*"]\nretry = "never"\nwindow = "36h"\n')
    (tmp_path / "shop.py").write_text(
        "from solidjq import job\n\n@job(retry='auto', max_crashes=1)\ndef send_receipt(): ...\n"
    )
    shell = Shell("sqlite:nowhere", tmp_path, {"JQ_CONFIG": str(tmp_path / "jq.toml")})
    done = shell.run("policy", "show", "Report", "send_receipt", "--import", "shop", "-o", "json")
    told = {(row["class_name"], row["key"]): (row["value"], row["source"]) for row in json.loads(done.stdout)}
    assert done.stderr == f"jq: policy: {tmp_path / 'jq.toml'}\n"
    assert told["Report", "retry"] == ("never", f'{tmp_path / "jq.toml"} [classes."Rep*"]')
    assert told["Report", "window"][0] == "36h"
    assert told["Report", "max_crashes"] == (3, "built in")
    assert told["send_receipt", "retry"] == ("auto", "@job of shop.send_receipt")
    assert told["send_receipt", "max_crashes"] == (1, "@job of shop.send_receipt")
    everything = shell.run("policy", "show", "-o", "json").stdout
    assert {row["class_name"] for row in json.loads(everything)} == {"(default)", "Rep*"}
    (tmp_path / "jq.toml").write_text("[default]\nretry = 1\n")
    wrong = shell.run("policy", "show")
    assert (wrong.returncode, wrong.stdout, wrong.stderr.count("\n")) == (2, "", 1)


@pytest.mark.parametrize(
    ("text", "seconds"), [("90s", 90), ("15 m", 900), ("2H", 7200), ("3d", 259200), ("1w", 604800), ("1.5h", 5400)]
)
def test_durations_are_read(text: str, seconds: float) -> None:
    assert parse_duration(text) == timedelta(seconds=seconds)


@pytest.mark.parametrize("text", ["", "3", "h", "-3h", "3 years", "1h30", "99999999999d", "٣h"])
def test_what_is_no_duration(text: str) -> None:
    assert parse_duration(text) is None


@pytest.mark.parametrize("text", ["5s", "119s", "15m", "1h", "72h", "119h", "5d", "30d"])
def test_durations_are_written(text: str) -> None:
    duration = parse_duration(text)
    assert duration is not None
    assert spell_duration(duration) == text
