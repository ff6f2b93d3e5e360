"""Promises of latency and of workers, in jq.toml and in names of queues."""

from pathlib import Path

import pytest

from solidjq.errors import UsageError
from solidjq.settings.file import read_file
from solidjq.settings.policy import load_policy
from solidjq.settings.promises import Promises, latency_in_name, load_promises
from solidjq.settings.sources import Settings


@pytest.mark.parametrize(
    ("queue", "seconds"),
    [
        ("within_5_minutes", 300),
        ("within_1_minute", 60),
        ("within_30_seconds", 30),
        ("reports_within_2_hours", 7200),
        ("Within-1-day", 86400),
        ("within_5_minutes_eu", 300),
        ("within_5_minutesx", None),
        ("herewithin_5_minutes", None),
        ("within_0_seconds", None),
        ("mailers", None),
        ("", None),
    ],
)
def test_a_promise_in_a_name(queue: str, seconds: float | None) -> None:
    assert latency_in_name(queue) == seconds


def load(tmp_path: Path, *texts: str) -> Promises:
    """Load files, the strongest first."""
    files = []
    for number, text in enumerate(texts):
        path = tmp_path / f"{number}.toml"
        path.write_text(text)
        files.append(read_file(path))
    load_policy(Settings(tuple(files)))  # which checks the keys of the file, too
    return load_promises(Settings(tuple(files)))


def test_files(tmp_path: Path) -> None:
    strong = '[queues.mailers]\nlatency = "1m"\nexpect = 2\n[queues."within_*"]\nlatency = "10s"\n'
    weak = '[workers]\nexpect = 4\n[queues.mailers]\nlatency = "9m"\n[queues."*"]\nlatency = "1h"\n'
    promises = load(tmp_path, strong, weak)
    assert (promises.workers, promises.expected) == (4, {"mailers": 2})
    assert promises.latency("mailers") == 60
    assert promises.latency("within_5_minutes") == 10  # the file says more than the name
    assert promises.latency("other") == 3600
    assert load(tmp_path, "").latency("within_5_minutes") == 300
    assert load(tmp_path, "").latency("other") is None


def test_a_found_file_promises_nothing(tmp_path: Path) -> None:
    """It could hide that jobs wait."""
    path = tmp_path / "jq.toml"
    path.write_text('[queues.mailers]\nlatency = "1000d"\n')
    settings = Settings((), read_file(path))
    assert (load_promises(settings), settings.ignored_tables()) == (Promises(), ("queues",))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('queues = "x"', "queues"),
        ("[queues.a]\nlatency = 60", "latency is 60"),
        ('[queues.a]\nlatency = "0s"', "allowed: a text"),
        ('[queues.a]\nlatencies = "1m"', "did you mean latency?"),
        ("[queues.a]\nexpect = -1", "expect is -1"),
        ('[queues."a*"]\nexpect = 1', "only the table of one queue"),
        ("[workers]\nexpect = true", "expect is True"),
        ("[workers]\nexpected = 4", "did you mean expect?"),
    ],
)
def test_what_is_not_allowed(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(UsageError, match=r"0\.toml") as refused:
        load(tmp_path, text)
    assert words in str(refused.value)
