"""The topics of ``jq help``: what each is about, and the sections of the docs that its text is made from."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

FOLDER = Path(__file__).with_name("topic_texts")


class Topic(NamedTuple):
    """A topic. Each source is a page of docs/, alone or with the heading of one section: ``recovery.md#Policy``."""

    summary: str
    sources: tuple[str, ...]


TOPICS = {
    "connecting": Topic(
        "Which database: URLs, profiles, a Rails application, passwords, read-only.",
        (
            "connecting.md#Connecting: which database",
            "connecting.md#No database named",
            "connecting.md#A Rails application",
            "connecting.md#Several queues",
            "connecting.md#Passwords",
            "connecting.md#Read-only",
        ),
    ),
    "options": Topic("The options that all commands share, before and after the command.", ("cli.md#Common options",)),
    "selection": Topic("Which jobs are meant: ids, incidents, groups, filters.", ("recovery.md#Which jobs are meant",)),
    "times": Topic("How times and durations are written.", ("configuration.md#Times and durations",)),
    "safe": Topic(
        "Which jobs --safe retries, and why it holds the others back.", ("recovery.md#Which jobs are safe to retry",)
    ),
    "plans": Topic(
        "Dry runs, plans, canaries, and undo.",
        ("recovery.md#Dry runs, plans and canaries", "recovery.md#What became of the jobs", "recovery.md#Undo"),
    ),
    "policy": Topic(
        "Which job classes may be retried, how often: jq.toml.",
        ("recovery.md#Policy", "configuration.md#Retry policy: `[default]` and `[classes.NAME]`"),
    ),
    "configuration": Topic("The settings files, and what counts first.", ("configuration.md",)),
    "environment": Topic("Environment variables.", ("configuration.md#Environment variables",)),
    "incidents": Topic("Why processes died, and which jobs are suspects.", ("incidents.md",)),
    "causes": Topic("Every cause of a death: what it means and what to do next.", ("causes.md#The causes",)),
    "output": Topic("Formats for scripts.", ("scripts.md",)),
    "exit-codes": Topic("What each exit code means.", ("cli.md#Exit codes",)),
    "glossary": Topic("The words that this program uses in a sense of its own.", ("glossary.md",)),
}


def text_of(name: str) -> str:
    """Return the text of a topic."""
    return (FOLDER / f"{name}.txt").read_text(encoding="utf-8")
