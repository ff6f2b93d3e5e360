"""Each promise of the threat model and of the guarantees names a test, and the tests are there."""

import ast
import re

import pytest

from support.paths import ROOT

PAGES = {
    "threat-model": ("## Who can do what", "## What an option"),
    "guarantees": ("## What is promised", "## What cannot"),
}


def text_of(page: str) -> str:
    return (ROOT / "docs" / f"{page}.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("page", PAGES)
def test_the_tests_of_the_promises_are_there(page: str) -> None:
    named = re.findall(r"`(tests/\S+\.py)::(\w+)`", text_of(page))
    assert len(named) > 30
    missing = []
    for path, name in named:
        tree = ast.parse((ROOT / path).read_text(encoding="utf-8")) if (ROOT / path).exists() else ast.Module([], [])
        if name not in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}:
            missing.append(f"{path}::{name}")
    assert missing == []


@pytest.mark.parametrize("page", PAGES)
def test_each_promise_names_its_test(page: str) -> None:
    begin, end = PAGES[page]
    promises = text_of(page).partition(begin)[2].partition(end)[0]
    assert [line for line in promises.splitlines() if line.startswith("- ") and ": `tests/" not in line] == []
