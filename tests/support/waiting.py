"""Wait for what another process must do, without sleeping for a fixed time."""

import time
from collections.abc import Callable
from typing import Any

PATIENCE = 120.0  # seconds before a test gives up waiting for something that must come


def until(condition: Callable[[], Any], what: str, instead: Callable[[], str] = str) -> Any:
    """Ask again and again until the condition holds; the test fails if it never does, and says what is so instead."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        if found := condition():
            return found
        time.sleep(0.02)
    raise AssertionError(f"never happened: {what}{instead()}")
