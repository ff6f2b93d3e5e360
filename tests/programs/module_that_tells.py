"""Importing this leaves a trace; no worker ever should, unless it is told to."""

from pathlib import Path

Path("imported").touch()


def run() -> None:
    Path("ran").touch()
