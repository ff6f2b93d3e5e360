"""What is slow to import is imported only where it is used: help must come at once."""

import subprocess
import sys
from pathlib import Path

import pytest

from solidjq_cli import commands, generate
from solidjq_cli.lazy import load
from support.program import Shell

# Runs the program, then tells which modules it has loaded.
PROGRAM = """
import sys
from solidjq_cli.__main__ import main
try:
    code = main()
except SystemExit as leaving:
    code = leaving.code
print(*sys.modules, sep="\\n", file=sys.stderr)
sys.exit(code)
"""
SLOW = {"sqlalchemy", "psycopg", "pymysql", "rich", "pydantic", "textual"}
# Of each kind of database: what no other needs.
PARTS = {
    "sqlite": {"sqlite3", "sqlalchemy.dialects.sqlite"},
    "postgresql": {"psycopg", "sqlalchemy.dialects.postgresql", "solidjq.database.quiet_postgresql"},
    "mysql": {"pymysql", "sqlalchemy.dialects.mysql", "solidjq.database.quiet_mysql"},
}

# How many modules a command may load, a fiftieth more than it did; a start takes half a millisecond of CPU for each.
MODULES = {
    "failed list": {"sqlite": 431, "postgresql": 531, "mysql": 465},
    "prune": {"sqlite": 459, "postgresql": 559, "mysql": 492},
}

# What a list of failures and a prune do not use: they find a queue, no option file and no Rails application is named,
# and nothing is compared. To parse YAML and Ruby takes 23 modules, a thirtieth of their CPU.
UNUSED = {
    "yaml",
    "solidjq.database.grants",
    "solidjq.database.option_files",
    "solidjq.database.other_queues",
    "solidjq.database.place",
    "solidjq.database.setup",
    "solidjq.database.standby",
    "solidjq.rails.database_yml",
    "solidjq.rails.settings",
    "solidjq_cli.columns.incidents",
    "solidjq_cli.columns.jobs",
    "solidjq_cli.columns.verdicts",
    "solidjq_cli.diff_view",
    "solidjq_cli.failed_diff",
    "solidjq_cli.failure_view",
}


def loaded(*arguments: str, shell: Shell) -> set[str]:
    """Return the modules that a command loads; it must succeed, and say nothing on stderr itself."""
    with shell.start(*arguments, program=("-c", PROGRAM)) as process:
        out, err = process.communicate()
    assert process.returncode == 0, err
    assert out
    return set(err.splitlines())


@pytest.fixture
def kind() -> str:
    return "sqlite"


@pytest.mark.parametrize(
    "arguments",
    [["--help"], ["--version"], ["failed", "list", "--help"], ["work", "--help"], ["retry", "-h"], ["top", "-h"]],
    ids=" ".join,
)
def test_help_loads_nothing_slow(arguments: list[str], tmp_path: Path) -> None:
    modules = loaded(*arguments, shell=Shell("", tmp_path))
    assert "solidjq_cli.app" in modules
    assert modules & SLOW == set()


def test_a_list_for_scripts_loads_neither_rich_nor_a_driver_that_it_does_not_need(shell: Shell) -> None:
    modules = loaded("failed", "list", "-o", "json", shell=shell)
    assert modules & SLOW == {"sqlalchemy"}
    unused = ("solidjq.runtime", "solidjq.incidents", "solidjq.diff")  # of the last two only if one is named
    assert not [name for name in modules if name.startswith(unused)]


def test_only_top_loads_the_live_screen(shell: Shell) -> None:
    for command in (["--help"], ["top", "--help"], ["status", "-o", "json"], ["failed", "list", "-o", "table"]):
        modules = loaded(*command, shell=shell)
        assert not [name for name in modules if name.startswith(("textual", "solidjq_cli.live"))]


# A worker's program imports the rest when the collector of garbage is off.
@pytest.mark.parametrize("package", ["solidjq", "solidjq_cli", "solidjq.runtime.__main__"])
def test_a_package_by_itself_loads_nothing_slow(package: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", f"import sys, {package}; print(*sys.modules, sep='\\n')"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        check=True,
    )
    assert set(done.stdout.splitlines()) & SLOW == set()


def test_a_command_loads_no_other(shell: Shell) -> None:
    modules = loaded("queues", "list", "-o", "json", shell=shell)
    assert {name for name in modules if name.startswith("solidjq_cli.commands.")} == {"solidjq_cli.commands.queues"}
    assert not [name for name in loaded("--help", shell=shell) if name.startswith("solidjq_cli.commands.")]


@pytest.mark.parametrize("kind", PARTS)
@pytest.mark.parametrize("command", MODULES)
def test_only_what_is_used_is_loaded(command: str, kind: str, shell: Shell) -> None:
    modules = loaded(*command.split(), "-o", "json", shell=shell)
    assert {name for name, parts in PARTS.items() if parts & modules} == {kind}
    assert "platformdirs" not in modules  # a database is named
    assert modules & UNUSED == ({"solidjq.database.standby"} if command == "prune" else set())  # it stops on one
    assert len(modules) <= MODULES[command][kind]


def test_help_gets_the_programs_name_when_it_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    """To write it into the help of each option took as long as to build the command, in every command that ran."""
    monkeypatch.setattr(sys, "argv", ["/usr/local/bin/solidjq"])
    command = load("prune")["prune"]
    assert "\n  jq prune -o json" in command.help
    assert " solidjq prune -o json" in command.make_context("prune", [], resilient_parsing=True).get_help()


# Tells how often garbage is collected.
COLLECTIONS = """
import gc, sys
from solidjq_cli.__main__ import main
collections = []
gc.callbacks.append(lambda phase, info: collections.append(phase))
try:
    main()
except SystemExit:
    pass
gc.callbacks.clear()
print(f"collections: {len(collections)}", file=sys.stderr)
"""


@pytest.mark.parametrize("kind", PARTS)
def test_a_short_command_collects_no_garbage(kind: str, shell: Shell) -> None:
    """It makes none, and to look through all that it has imported takes 30 ms of CPU."""
    for arguments in (["failed", "list", "-o", "table"], ["check", "all"]):
        with shell.start(*arguments, program=("-c", COLLECTIONS)) as process:
            _, err = process.communicate()
        assert "collections: 0\n" in err, arguments


# Leaves garbage in cycles behind a command, and tells how much of it there was at most.
CYCLES = """
import gc, sys
from solidjq_cli.__main__ import main
try:
    main()
except SystemExit:
    pass
counts = []
for _ in range(300_000):
    cycle = []
    cycle.append(cycle)
    counts.append(gc.get_count()[0])
print(f"most: {max(counts[-100_000:])}", file=sys.stderr)
"""


def test_a_long_command_collects_its_garbage_soon(shell: Shell) -> None:
    """Else a retry of a million jobs would need 20 MB more: each batch leaves objects that refer to one another."""
    with shell.start("--version", program=("-c", CYCLES)) as process:
        _, err = process.communicate()
    (most,) = (int(line.removeprefix("most: ")) for line in err.splitlines() if line.startswith("most: "))
    assert 0 < most <= 20_000 + 10


def test_every_command_is_listed() -> None:
    folder = Path(commands.__path__[0])
    with_commands = {path.stem for path in folder.glob("*.py") if "def add_to(" in path.read_text("utf-8")}
    assert set(generate.MODULES) == with_commands
