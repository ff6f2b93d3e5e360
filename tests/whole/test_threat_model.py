"""Each promise of the threat model names a test, and the tests are there."""

import ast
import re

from support.paths import ROOT

PAGE = (ROOT / "docs" / "threat-model.md").read_text()


def test_the_tests_of_the_promises_are_there() -> None:
    named = re.findall(r"`(tests/\S+\.py)::(\w+)`", PAGE)
    assert len(named) > 30
    missing = []
    for path, name in named:
        tree = ast.parse((ROOT / path).read_text(encoding="utf-8")) if (ROOT / path).exists() else ast.Module([], [])
        if name not in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}:
            missing.append(f"{path}::{name}")
    assert missing == []


def test_each_promise_names_its_test() -> None:
    promises = PAGE.partition("## Who can do what")[2].partition("## What an option")[0]
    assert [line for line in promises.splitlines() if line.startswith("- ") and ": `tests/" not in line] == []
