"""The tests' own house: what they share is in tests/support, and no folder of theirs hides a module of Python."""

import ast
import importlib
import queue
import sys
from pathlib import Path

import pytest

from support.paths import ROOT

TESTS = ROOT / "tests"
FILES = sorted(TESTS.rglob("*.py"))


def imported(path: Path) -> set[str]:
    """Return the first names of the modules that a file imports."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            found.add(node.module.partition(".")[0])
    return found


def test_no_test_file_imports_another() -> None:
    assert len(FILES) > 60
    rooms = {path.name for path in TESTS.iterdir() if path.is_dir()} - {"support"} - set(sys.stdlib_module_names)
    theirs = rooms | {path.stem for path in FILES if path.name.startswith("test_")} | {"tests", "conftest"}
    assert {str(path.relative_to(TESTS)): imported(path) & theirs for path in FILES if imported(path) & theirs} == {}


def test_only_what_is_shared_is_a_package() -> None:
    """A folder with an __init__.py would hide Python's module of the same name, such as queue: tests/ comes first."""
    assert [path.parent.name for path in TESTS.rglob("__init__.py")] == ["support"]
    assert "support" not in sys.stdlib_module_names


@pytest.mark.parametrize("name", sorted({path.name for path in TESTS.iterdir()} & set(sys.stdlib_module_names)))
def test_pythons_own_module_is_the_one_that_is_imported(name: str) -> None:
    file = importlib.import_module(name).__file__
    assert file is not None
    assert not Path(file).is_relative_to(ROOT / "tests")
    assert queue.Queue
