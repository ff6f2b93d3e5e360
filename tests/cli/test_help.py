"""Help that fits a terminal, suggestions that help, and the name that the program was called by."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from solidjq_cli import layout, plain_text
from solidjq_cli.arguments import by_own_name
from solidjq_cli.command_list import COMMANDS
from solidjq_cli.command_tree import Command, tree
from solidjq_cli.exits import MEANINGS
from solidjq_cli.topics import TOPICS
from support.commands import run
from support.paths import ROOT
from support.waiting import PATIENCE


@pytest.fixture(autouse=True)
def _80_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")


# -- what it shows ----------------------------------------------------------------------------------------------------


def test_every_command_is_listed_once_on_one_line_of_80_columns(capsys: pytest.CaptureFixture[str]) -> None:
    run(["--help"])
    shown = capsys.readouterr().out.splitlines()
    for name, (_module, summary) in COMMANDS.items():
        if name.startswith("_"):  # for programs alone
            assert name not in "".join(shown)
            continue
        lines = [line for line in shown if re.match(rf"  {name}  +\S", line)]
        assert [line.split(maxsplit=1)[1] for line in lines] == [summary]
        assert len(lines[0]) <= 80
    headings = [line for line in shown if re.fullmatch(r"[A-Z][a-z ]+:", line)]
    assert headings[:7] == ["Options:", "Look:", "Understand:", "Recover:", "Monitor:", "Record:", "Run:"]


@pytest.mark.parametrize("command", [" ".join(each.path[1:]) for each in tree().all()])
def test_a_range_is_in_words_and_no_line_too_long(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    run([*command.split(), "--help"])
    shown = capsys.readouterr().out
    assert "<=x" not in shown
    assert "9223372036854775807" not in shown
    assert not re.search(r"\de[+]\d", shown)
    examples = [line for line in shown.splitlines() if line.startswith("    ")]
    assert all(len(line) <= 80 for line in shown.splitlines() if line not in examples)


@pytest.mark.parametrize(
    "command", [each for each in tree().all() if not each.commands], ids=lambda each: each.path[-1]
)
def test_every_option_stands_under_one_heading(command: Command, capsys: pytest.CaptureFixture[str]) -> None:
    run([*command.path[1:], "--help"])
    shown = capsys.readouterr().out
    headings = [
        line.removesuffix(":") for line in shown.splitlines() if line.removesuffix(":") in layout.OPTION_HEADINGS
    ]
    assert headings == [*layout.by_heading(option.names for option in command.options)]
    listed = shown[shown.index(f"\n{headings[0]}:\n") :]
    for option in command.options:
        assert len(re.findall(rf"^  (?:-\w, |--[\w-]+ / )?{option.names[-1]}(?![\w-])", listed, re.MULTILINE)) == 1


def test_the_options_of_the_headings_exist() -> None:
    known = {name for command in tree().all() for option in command.options for name in option.names}
    named = [name for names in layout.OPTION_HEADINGS.values() for name in names]
    assert len(named) == len(set(named))
    assert set(named) <= known


def test_a_group_shows_its_commands_in_whole_sentences(capsys: pytest.CaptureFixture[str]) -> None:
    run(["failed", "--help"])
    shown = " ".join(capsys.readouterr().out.split())
    for command in next(each for each in tree().commands if each.path[-1] == "failed").commands:
        assert f"{command.path[-1]} {command.summary}" in shown


# -- topics -----------------------------------------------------------------------------------------------------------


def test_help_lists_the_topics_and_shows_each(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["help"]) == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == [*TOPICS]
    for name in TOPICS:
        assert run(["help", name]) == 0
        assert len(capsys.readouterr().out) > 500


def test_help_of_a_command_is_that_of_its_option(capsys: pytest.CaptureFixture[str]) -> None:
    for words in (["retry"], ["failed", "list"], ["failed"]):
        assert run([*words, "--help"]) == 0
        expected = capsys.readouterr().out
        assert run(["help", *words]) == 0
        assert capsys.readouterr().out == expected


def test_exit_codes_are_those_of_the_program(capsys: pytest.CaptureFixture[str]) -> None:
    run(["help", "exit-codes"])
    shown = " ".join(capsys.readouterr().out.split())
    assert all(f"{code.value} {meaning}" in shown for code, meaning in MEANINGS.items())


def test_docs_become_plain_text() -> None:
    text = plain_text.render(
        "# Title of `it`\n\nA [link](x.md#y) and **bold** `--a_b`, \\* kept\nand `[default]`.\n\n"
        "- one\n  goes on\n- two\n\n"
        "    jq retry\n\n      further\n\n```toml\nkey = 1\n```\n\n| a | b |\n|---|---|\n| `x \\| y` | "
        + "word " * 30
        + "|\n"
    )
    assert text.startswith("TITLE OF IT\n\nA link and bold --a_b, * kept and [default].\n\n- one goes on\n- two\n")
    assert "\n    jq retry\n\n      further\n\n    key = 1\n" in text
    assert "x | y" in text
    assert max(map(len, text.splitlines())) <= 79


def test_a_section_ends_at_the_next_of_its_level() -> None:
    page = "# Page\n\ntop\n\n## One\n\n1\n\n### Below\n\n```\n# code\n```\n\n## Two\n\n2\n"
    assert plain_text.section(page, "Page") == "# Page\n\ntop\n"
    assert plain_text.section(page, "One") == "## One\n\n1\n\n### Below\n\n```\n# code\n```\n"
    assert plain_text.section(page, "Two") == "## Two\n\n2"
    with pytest.raises(LookupError):
        plain_text.section(page, "Three")


# -- manual pages -----------------------------------------------------------------------------------------------------


def test_every_command_has_a_manual_page_that_the_tools_accept() -> None:
    pages = sorted((ROOT / "man").glob("*.1"))
    assert {page.stem for page in pages} == {"-".join(each.path) for each in tree("solidjq").all()}
    checks = (["mandoc", "-T", "lint", "-W", "warning"], ["groff", "-man", "-Tutf8", "-ww", "-z"])
    for check in checks:
        if shutil.which(check[0]) is None:
            continue  # the pages are made by one writer; either tool alone would find what is wrong with it
        done = subprocess.run([*check, *pages], capture_output=True, text=True, timeout=PATIENCE, check=False)
        assert (done.stdout, done.stderr) == ("", "")


def test_a_manual_page_calls_the_program_by_its_own_name() -> None:
    for page in (ROOT / "man").glob("*.1"):
        text = page.read_text().replace("\\", "")
        assert re.search(r"(?<![\w./-])jq (--|init|policy|prune|retry|failed|queues)", text) is None, page


# -- what was meant ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "suggestion"),
    [
        ("list", "did you mean 'failed list'"),
        ("show 4711", "did you mean 'failed show'"),
        ("pause mail", "did you mean 'queues pause'?"),
        ("retyr --safe", "did you mean 'retry'?"),
        ("failed lst", "did you mean 'list'?"),
        ("ls", "did you mean 'failed list'"),
        ("rm 4711", "did you mean 'discard'?"),
        ("requeue 4711", "did you mean 'retry'?"),
        ("version", "did you mean '--version'?"),
        ("failed list --json", "did you mean -o json?"),
        ("queues list --csv", "did you mean -o csv?"),
        ("failed list --yaml", "did you mean -o table|wide|json|ndjson|csv|markdown|ids?"),
        ("incidents list --format json", "did you mean -o table|wide|json|ndjson|csv|markdown|ids?"),
        ("--json failed list", "did you mean -o FORMAT behind the command"),
        ("failed list -o yaml", "'table', 'wide', 'json', 'ndjson', 'csv', 'markdown', 'ids'"),
        ("failed list --sinse 2h", "did you mean --since?"),
        ("retry --dryrun", "did you mean --dry-run?"),
        ("failed list --read-only", "--read-only before the command, as in jq --read-only failed list?"),
        ("failed list --profil night", "did you mean --profile before the command?"),
        ("failed list --limit ten", "'ten' is not a whole number"),
        ("retry --limit 0", "0 is too small: 1 or more"),
        ("retry --batch 5000", "5000 is too large: 1,000 or less"),
        ("prune --alive-threshold -1", "too small: 0 or more"),
        ("watch --interval 0.05s", "0.05 is too small: 0.1 or more"),
        ("undo 1 2", "unexpected argument: 2"),
        ("jobs show", "missing argument 'JOB...'; see: jq jobs show --help"),
        ("failed list --since", "option '--since' requires an argument; see: jq failed list --help"),
        ("status --watch=3", "option '--watch' does not take a value; see: jq status --help"),
        ("completions", "missing argument 'SHELL'. Choose from: bash, zsh, fish; see: jq completions --help"),
        ("failed list --bogus", "no such option: --bogus; see: jq failed list --help"),
        ("nonsense", "no such command 'nonsense'; see: jq --help"),
        ("help polici", "did you mean policy"),
        ("help failed lost", "no such topic or command 'failed lost'"),
    ],
)
def test_an_error_names_what_was_meant(line: str, suggestion: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(line.split()) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.count("\n") == 1
    assert printed.err.startswith("jq: ")
    assert suggestion in printed.err


@pytest.mark.parametrize(
    ("variable", "value", "complaint"),
    [
        ("JQ_ALIVE_THRESHOLD", "soon", "invalid value for JQ_ALIVE_THRESHOLD: 'soon' is not a number"),
        ("JQ_READ_ONLY", "maybe", "invalid value for JQ_READ_ONLY: 'maybe' is neither 1 nor 0"),
    ],
)
def test_an_error_in_a_variable_names_the_variable(
    variable: str, value: str, complaint: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(variable, value)
    assert run(["processes", "list"]) == 2
    assert capsys.readouterr().err.startswith(f"jq: {complaint}; see: jq ")


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
