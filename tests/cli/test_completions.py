"""The completions, tried in the shells themselves: a line is typed, and read back when the shell has completed it."""

import re
import shutil
import sys
import tomllib
from collections.abc import Iterator
from contextlib import closing
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import pytest
import typer.main

from solidjq_cli import command_tree, generate
from solidjq_cli.command_list import COMMANDS
from solidjq_cli.command_tree import tree
from solidjq_cli.completion_scripts.parts import PROGRAMS
from solidjq_cli.completion_scripts.script import WRITERS
from solidjq_cli.view import Output
from support.paths import ROOT
from support.shells import COMPLETIONS, MADE_UP, SHELLS, Bash, Fish, Shell, Zsh, needs, run

FORMATS = {output.value for output in Output}
ROOT_COMMANDS = {name for name in COMMANDS if not name.startswith("_")}
FAILED_OPTIONS = {"--pruned", "--died", "--error", "--queue", "--output", "--database", "--help"}
FILES = {"queue.sqlite3", "storage", "two words.sqlite3"}
COLOURS = {"red", "light-blue"}
REST = None  # as what must not be offered: nothing else may be

# What is typed, what must be offered, and what must not be.
CASES = [
    # commands
    ("jq ", ROOT_COMMANDS, FILES | {"list", "show"}),
    ("jq f", {"failed"}, REST),
    ("jq failed ", {"diff", "list", "show"}, REST),
    ("jq queues ", {"keys", "list", "pause", "resume"}, REST),
    ("jq queues p", {"pause"}, REST),
    ("jq no-such-command ", set(), ROOT_COMMANDS | FILES),
    ("jq failed no-such-command ", set(), ROOT_COMMANDS | FILES | {"list", "show"}),
    # options before a command
    ("jq --d", {"--database"}, REST),
    ("jq -", {"--database", "--version", "--help"}, {"--output", "--pruned"}),
    ("jq --database postgres://u@h:5432/q failed ", {"diff", "list", "show"}, REST),
    ("jq --database=postgres://u@h:5432/q failed ", {"diff", "list", "show"}, REST),
    ("jq --database 'a b' failed ", {"diff", "list", "show"}, REST),
    ("jq -d failed queues ", {"keys", "list", "pause", "resume"}, REST),
    ("jq -dfailed queues ", {"keys", "list", "pause", "resume"}, REST),
    ("jq --version f", {"failed"}, REST),
    ("JQ_DEBUG=1 jq failed ", {"diff", "list", "show"}, REST),
    ("true | jq failed ", {"diff", "list", "show"}, REST),
    # options of a command
    ("jq failed list -", FAILED_OPTIONS, {"--version", "--dry-run", "list", "show"} | FILES),
    ("jq failed list --pr", {"--pruned"}, REST),
    ("jq failed list --pruned --di", {"--died"}, REST),
    ("jq failed list --queue mailers --er", {"--error"}, REST),
    ("jq failed list --queue --er --di", {"--died"}, REST),
    ("jq failed list --error list --di", {"--died"}, REST),
    ("jq retry 42 43 --rea", {"--reason"}, REST),
    ("jq prune -", {"--dry-run", "--quiet", "--alive-threshold"}, {"--pruned", "--version"}),
    ("jq failed -", {"--help"}, {"--database", "--pruned", "--version"}),
    # their values
    ("jq failed list -o ", FORMATS, REST),
    ("jq failed list -o js", {"json"}, REST),
    ("jq failed list --output ", FORMATS, REST),
    ("jq failed list --output=", FORMATS, REST),
    ("jq failed list --output=nd", {"ndjson"}, REST),
    ("jq failed list --queue=mailers --output=nd", {"ndjson"}, REST),
    ("jq prune -nq -o nd", {"ndjson"}, REST),
    ("jq prune -nqo nd", {"ndjson"}, REST),
    ("jq prune -o json --al", {"--alive-threshold"}, REST),
    ("jq completions ", {"bash", "zsh", "fish"}, FILES),
    ("jq completions z", {"zsh"}, REST),
    ("jq completions bash z", set(), REST),
    ("jq doctor orph", {"orphans"}, REST),
    ("jq doctor orphans ", {"journal", "vacuum"}, FILES),
    ("jq doctor --skip dead", {"dead-processes", "deadlocks"}, REST),
    ("jq help exit", {"exit-codes"}, REST),
    # paths
    ("jq --database ", FILES, FORMATS | ROOT_COMMANDS),
    ("jq --database qu", {"queue.sqlite3"}, REST),
    ("jq --database=qu", {"queue.sqlite3"}, REST),
    ("jq -d tw", {"two words.sqlite3"}, REST),
    ("jq failed list -d st", {"storage"}, REST),
    ("jq failed list -d storage/p", {"storage/production.sqlite3"}, REST),
    ("jq completions bash > qu", {"queue.sqlite3"}, REST),
    ("jq completions bash 2> /dev/null >qu", {"queue.sqlite3"}, REST),
    # free text
    ("jq failed list --error ", set(), REST),
    ("jq failed list --error=", set(), REST),
    ("jq failed list --queue qu", set(), REST),
    ("jq work --queues ", set(), REST),
    ("jq retry ", set(), FILES | FORMATS | ROOT_COMMANDS),
    ("jq retry qu", set(), REST),
    ("jq enqueue qu", set(), REST),
    ("jq enqueue ReportJob qu", set(), REST),
    # the end of options
    ("jq retry -- --rea", set(), REST),
    ("jq retry -- -", set(), {"--reason", "--output"}),
    ("jq completions -- z", {"zsh"}, REST),
    ("jq -- f", {"failed"}, REST),
    ("jq -- failed ", {"diff", "list", "show"}, REST),
    # the other name
    ("solidjq f", {"failed"}, REST),
    ("solidjq --database x failed list -o nd", {"ndjson"}, REST),
    # what our commands do not have, yet
    ("made-up ", {"paint-it", "look"}, REST),
    ("made-up p", {"paint-it"}, REST),
    ("made-up paint-it ", COLOURS, REST),
    ("made-up paint-it red ", FILES, COLOURS),
    ("made-up paint-it red --we", {"--wet"}, REST),
    ("made-up paint-it --wet red qu", {"queue.sqlite3"}, REST),
    ("made-up paint-it red queue.sqlite3 --no-w", {"--no-wet"}, REST),
    ("made-up paint-it red queue.sqlite3 ", COLOURS, FILES),
    ("made-up paint-it red queue.sqlite3 red red l", {"light-blue"}, REST),
    ("made-up paint-it --brush ", FILES, COLOURS),
    ("made-up paint-it --brush=qu", {"queue.sqlite3"}, REST),
    ("made-up paint-it --brush red ", COLOURS, REST),
    ("made-up paint-it --se", set(), REST),
]

made_up = typer.Typer()


class Colour(StrEnum):
    RED = "red"
    LIGHT_BLUE = "light-blue"


@made_up.command("paint-it")
def paint(
    base: Colour,
    thing: Path,
    colours: list[Colour],
    *,
    brush: Annotated[Path | None, typer.Option(help="It's a [brush]: 'thick' \\ \"thin\" $HOME `x`.")] = None,
    wet: Annotated[bool, typer.Option()] = True,
    secret: Annotated[str, typer.Option(hidden=True)] = "",
) -> None: ...


@made_up.command("look")
def look() -> None: ...


@made_up.command("hide", hidden=True)
def hide() -> None: ...


@pytest.fixture(scope="module", params=SHELLS)
def shell(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shell]:
    needs(request.param)
    folder = tmp_path_factory.mktemp(request.param)
    (folder / "storage").mkdir()
    for name in ("queue.sqlite3", "two words.sqlite3", "storage/production.sqlite3"):
        (folder / name).touch()
    (folder / "bin").mkdir()
    for program in (*PROGRAMS, "made-up"):  # fish completes only what it finds in PATH
        (folder / "bin" / program).write_text(f'#!/bin/sh\necho "$1" >> {folder}/called\n')
        (folder / "bin" / program).chmod(0o755)
    write = WRITERS[request.param]
    (folder / MADE_UP[request.param]).parent.mkdir(parents=True, exist_ok=True)
    (folder / MADE_UP[request.param]).write_text(write(command_tree._tree(typer.main.get_command(made_up), "made-up")))
    started = SHELLS[request.param](folder)
    yield started
    started.close()
    called = folder / "called"
    calls = {*called.read_text().split()} if called.exists() else set()
    assert calls <= {"__complete"}, "a script started the program for what the script itself has"


@pytest.mark.parametrize(("typed", "present", "absent"), CASES, ids=[case[0] for case in CASES])
def test_offers(shell: Shell, typed: str, present: set[str], absent: set[str] | None) -> None:
    offered = shell.candidates(typed)
    assert present <= offered
    assert not offered & (offered - present if absent is None else absent)


# -- one shell alone --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("setting", ["COMP_WORDBREAKS=' '", "COMP_WORDBREAKS=${COMP_WORDBREAKS//=}", "set -u", "IFS=,"])
def test_bash_with_other_settings(tmp_path: Path, setting: str) -> None:
    with closing(Bash(tmp_path, setting)) as bash:
        assert bash.candidates("jq --database postgres://u@h:5432/q failed ") == {"diff", "list", "show"}
        assert bash.candidates("jq failed list --output=nd") == {"ndjson"}
        assert bash.candidates("jq failed list -ond") == {"-ondjson"}
        assert bash.candidates("jq retry --rea") == {"--reason"}


def test_bash_completes_up_to_the_cursor(tmp_path: Path) -> None:
    with closing(Bash(tmp_path)) as bash:
        line = bash.type("jq failed list --di --limit 3" + "\x02" * len(" --limit 3"), bash.INSERT)
        assert line.rpartition("LINE<")[2].replace("  ", " ") == "jq failed list --died --limit 3"


def test_bash_without_compopt_names_files_itself(tmp_path: Path) -> None:
    (tmp_path / "two words").touch()
    script = """
        source "$1"
        COMP_LINE='jq --database=tw' COMP_POINT=16 COMP_WORDS=(jq --database = tw) COMP_CWORD=3
        _jq_complete
        printf '%s\n' "${COMPREPLY[@]}"
    """
    assert run(["bash", "-c", script, "bash", str(COMPLETIONS / "jq.bash")], tmp_path) == "two words\n"


@pytest.mark.parametrize("load", ['source "$JQ"', 'eval "$(<"$JQ")"'])
def test_zsh_loads_the_script_after_compinit(tmp_path: Path, load: str) -> None:
    needs("zsh")
    with closing(Zsh(tmp_path, before=f"JQ={COMPLETIONS}/_jq", more=load)) as zsh:
        assert zsh.candidates("jq failed ") == {"diff", "list", "show"}
        assert zsh.candidates("solidjq failed list -o nd") == {"ndjson"}


def test_zsh_shows_help(tmp_path: Path) -> None:
    needs("zsh")
    with closing(Zsh(tmp_path)) as zsh:
        assert "-- Only jobs whose process lost its heartbeat." in zsh.type("jq failed list -", zsh.LIST)
        assert "-- The queue's database: postgres://, mysql2://, sqlite3: or a path. [env: " in zsh.type(
            "jq -", zsh.LIST
        )
        assert "-- Failed jobs: list them, look at one." in zsh.type("jq ", zsh.LIST)


def test_fish_shows_help(tmp_path: Path) -> None:
    needs("fish")
    fish = Fish(tmp_path)
    assert "--pruned\tOnly jobs whose process lost its heartbeat." in fish.lines("jq failed list --")
    assert "-d\tThe queue's database: postgres://, mysql2://, sqlite3: or a path. [env: JQ_DATABASE_URL]" in fish.lines(
        "jq -"
    )
    assert "failed\tFailed jobs: list them, look at one." in fish.lines("jq ")


# -- the files --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def generated() -> dict[str, str]:
    return generate.files()


def test_generated_files_are_up_to_date(generated: dict[str, str]) -> None:
    for name, text in generated.items():
        assert (ROOT / name).read_text() == text, f"{name}: run make docs"
        if not name.endswith((".txt", ".json")):  # printed as it stands, or without comments
            assert "enerated by `make docs`" in "".join(text.splitlines()[:2])
        assert "\b" not in text


@pytest.mark.parametrize(("shell_name", "file"), [("bash", "jq.bash"), ("zsh", "_jq"), ("fish", "jq.fish")])
def test_the_command_prints_the_file(tmp_path: Path, shell_name: str, file: str) -> None:
    printed = run([sys.executable, "-m", "solidjq_cli", "completions", shell_name], tmp_path)
    assert printed == (COMPLETIONS / file).read_text()


def test_generate_writes_then_checks(
    generated: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(generate, "ROOT", tmp_path)
    assert generate.main([]) == 2
    assert capsys.readouterr().err.count("\n") == 1
    shutil.copy(ROOT / "CHANGELOG.md", tmp_path)
    shutil.copytree(ROOT / "docs", tmp_path / "docs")
    for name in generated:
        (tmp_path / name).unlink(missing_ok=True)
    before = {*tmp_path.rglob("*")}
    (tmp_path / "pyproject.toml").touch()
    assert generate.main(["--check"]) == 1
    assert capsys.readouterr().out.splitlines() == [f"{name} is not up to date; run: make docs" for name in generated]
    assert {*tmp_path.rglob("*")} - before == {tmp_path / "pyproject.toml"}
    assert generate.main([]) == 0
    assert generate.main(["--check"]) == 0
    (tmp_path / "docs/cli.md").write_text("old")
    capsys.readouterr()
    assert generate.main(["--check"]) == 1
    assert capsys.readouterr().out == "docs/cli.md is not up to date; run: make docs\n"


def test_the_reference_has_every_command(generated: dict[str, str]) -> None:
    headings = set(re.findall(r"^## (.*)$", generated["docs/cli.md"], re.MULTILINE))
    assert {" ".join(command.path) for command in tree().all()} | {"Common options", "Exit codes"} == headings


def test_the_wheel_puts_the_scripts_where_the_shells_look(generated: dict[str, str]) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    shared = project["tool"]["hatch"]["build"]["targets"]["wheel"]["shared-data"]
    assert shared == {
        "completions/solidjq.bash": "share/bash-completion/completions/solidjq",
        "completions/_jq": "share/zsh/site-functions/_solidjq",
        "completions/solidjq.fish": "share/fish/vendor_completions.d/solidjq.fish",
        "man": "share/man/man1",
    }
    assert all((ROOT / name).exists() for name in shared)
    assert {name for name in generated if name.startswith("completions/")} == {
        *(shared.keys() - {"man"}),
        "completions/jq.bash",  # installed, they would complete the JSON processor where jq is not linked
        "completions/jq.fish",
    }
