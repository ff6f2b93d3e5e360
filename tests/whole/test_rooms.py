"""The house as docs/architecture.md draws it: every file has its place in a list that a reader finds."""

import re

import pytest

from support.paths import ROOT

CORE = ROOT / "core" / "solidjq"
COMMAND_LINE = ROOT / "cli" / "solidjq_cli"
ARCHITECTURE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
LADDER, FILES = (block.split("```")[0] for block in ARCHITECTURE.split("```text\n")[1:3])
ROOMS = sorted(path.parent.name for path in CORE.glob("*/__init__.py"))


def modules(folder: str) -> set[str]:
    """Return the modules in a folder of the core; its own folder for an empty name."""
    return {path.stem for path in (CORE / folder).glob("*.py")} - {"__init__"}


def ladder() -> dict[str, list[str]]:
    """Return the files that the ladder lists, by room."""
    rooms: dict[str, list[str]] = {}
    name = ""
    for line in LADDER.splitlines():
        name = line[2:13].strip() or name
        rooms.setdefault(name, []).extend(line[43:].split())
    return rooms


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_lists_its_files_in_reading_order(room: str) -> None:
    docstring = (CORE / room / "__init__.py").read_text(encoding="utf-8")
    bullets = [line.split(":")[0] for line in docstring.splitlines() if line.startswith("- ``")]
    listed = re.findall(r"``(\w+)``", " ".join(bullets))
    assert sorted(listed) == sorted(modules(room))
    assert ladder()[room] == listed


def test_the_ground_is_all_that_has_no_room() -> None:
    rooms = ladder()
    outside = {name.removesuffix(".py") for name in rooms if name.endswith(".py")}
    assert modules("") == outside | set(rooms["the ground"])


@pytest.mark.parametrize("folder", ["columns", "completion_scripts", "live"])
def test_a_folder_of_the_command_line_lists_its_files_in_its_docstring(folder: str) -> None:
    docstring = (COMMAND_LINE / folder / "__init__.py").read_text(encoding="utf-8")
    there = {path.stem for path in (COMMAND_LINE / folder).glob("*.py")} - {"__init__"}
    bullets = [bullet.split(":")[0] for bullet in docstring.split("\n- ")[1:]]
    assert set(re.findall(r"``(\w+)``", " ".join(bullets))) == there


def test_the_files_of_the_command_line_are_listed() -> None:
    there = {path.stem for path in COMMAND_LINE.glob("*.py")} - {"__init__"}
    listed = {word for line in FILES.splitlines()[2:] for word in line[2:45].split()}
    assert listed - {"commands/", "topic_texts/", "live/", "columns/", "completion_scripts/"} == there
