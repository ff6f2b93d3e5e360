"""Help that fits a terminal, suggestions that help, and the name that the program was called by."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from solidjq_cli.arguments import by_own_name
from solidjq_cli.command_list import COMMANDS
from solidjq_cli.command_tree import tree
from support.commands import run
from support.waiting import PATIENCE


@pytest.fixture(autouse=True)
def _80_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")


# -- what it shows ----------------------------------------------------------------------------------------------------


def test_every_command_is_listed_once_on_one_line_of_80_columns(capsys: pytest.CaptureFixture[str]) -> None:
    run(["--help"])
    shown = capsys.readouterr().out.splitlines()
    for name, (_module, summary) in COMMANDS.items():
        lines = [line for line in shown if re.match(rf"  {name}  +\S", line)]
        assert [line.split(maxsplit=1)[1] for line in lines] == [summary]
        assert len(lines[0]) <= 80
    headings = [line for line in shown if re.fullmatch(r"[A-Z][a-z ]+:", line)]
    assert headings[:6] == ["Options:", "Look:", "Understand:", "Recover:", "Record:", "Run:"]


@pytest.mark.parametrize("command", [" ".join(each.path[1:]) for each in tree().all()])
def test_a_range_is_in_words_and_no_line_too_long(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    run([*command.split(), "--help"])
    shown = capsys.readouterr().out
    assert "<=x" not in shown
    assert "9223372036854775807" not in shown
    examples = [line for line in shown.splitlines() if line.startswith("    ")]
    assert all(len(line) <= 80 for line in shown.splitlines() if line not in examples)


# -- what was meant ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "suggestion"),
    [
        ("list", "'failed list'"),
        ("show 4711", "'failed show'"),
        ("pause mail", "'queues pause'"),
        ("retyr --safe", "'retry'"),
        ("failed lst", "'list'"),
        ("failed list --json", "-o json)"),
        ("queues list --csv", "-o csv)"),
        ("failed list --yaml", "-o json|ndjson|csv|ids|table)"),
        ("incidents list --format json", "-o json|ndjson|csv|ids|table)"),
        ("failed list -o yaml", "'table', 'json', 'ndjson', 'csv', 'ids'"),
        ("failed list --sinse 2h", "--since"),
        ("retry --limit 0", "0 is too small: 1 or more"),
        ("retry --batch 5000", "5000 is too large: 1,000 or less"),
        ("prune --alive-threshold -1", "too small: 0 or more"),
    ],
)
def test_an_error_names_what_was_meant(line: str, suggestion: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(line.split()) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert suggestion in printed.err.replace("\n", " ")


# -- the name ---------------------------------------------------------------------------------------------------------


def test_command_lines_begin_with_the_name_that_it_was_called_by(monkeypatch: pytest.MonkeyPatch) -> None:
    text = "run: jq init; (jq prune), `jq --read-only` in jq.toml, jq_deaths, /usr/bin/jq init, solidjq init; jq is jq"
    monkeypatch.setattr(sys, "argv", ["/usr/local/bin/solidjq"])
    assert by_own_name(text) == (
        "run: solidjq init; (solidjq prune), `solidjq --read-only` in jq.toml, jq_deaths, /usr/bin/jq init, "
        "solidjq init; jq is jq"
    )
    monkeypatch.setattr(sys, "argv", ["/usr/local/bin/jq"])
    assert by_own_name(text) == text


def test_help_hints_and_errors_use_it(tmp_path: Path) -> None:
    def shown_by(*arguments: str) -> str:
        done = subprocess.run(
            [Path(sys.executable).parent / "solidjq", *arguments],
            env={"HOME": str(tmp_path), "PATH": "/usr/bin:/bin"},
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
        return done.stdout + done.stderr

    for shown in (
        shown_by("--help"),
        shown_by("retry", "--help"),
        shown_by("queues", "pause", "--help"),
        shown_by("failed", "list"),
    ):
        assert "solidjq" in shown
        assert re.search(r"(?<![\w./])jq (--|init|policy|prune|retry|failed|queues)", shown) is None, shown
