"""What stands under which heading in help, docs and manual pages: commands by purpose, options by what they decide."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from solidjq_cli.arguments import by_own_name
from solidjq_cli.command_list import COMMANDS
from solidjq_cli.topics import TOPICS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

# A command that is under none of them is listed last.
COMMAND_HEADINGS = {
    "Look": ("status", "top", "failed", "jobs", "queues", "processes"),
    "Understand": ("incidents", "suspects", "bisect", "doctor"),
    "Recover": ("prune", "retry", "discard", "apply", "recover", "undo"),
    "Monitor": ("check", "metrics", "watch", "wait"),
    "Record": ("operations", "history"),
    "Run": ("enqueue", "work", "demo"),
    "Set up": ("init", "grants", "policy", "profiles", "config", "completions", "link-jq", "help"),
}
COMMON = "Common options"
OTHER = "Options"
# The headings of the options, in their order. What is under none of them is under "Options".
OPTION_HEADINGS = {
    "Which jobs": (
        *("--pruned", "--exited", "--missing", "--died", "--error", "--queue", "--class", "--since", "--until"),
        *(
            "--state",
            "--key",
            "--process",
            "--host",
            "--incident",
            "--group",
            "--not-class",
            "--argument",
            "--max-age",
            "--limit",
            "--page-after",
        ),
    ),
    OTHER: (),
    "What may go back": ("--safe", "--include-errors", "--force", "--max-crashes", "--window"),
    "How they move": (
        "--rate",
        "--delay",
        "--batch",
        "--fast",
        "--queue-as",
        "--isolate",
        "--quarantine",
        "--keep-counters",
        "--with-arguments",
        "--restart",
        "--from",
        "--skip-record",
    ),
    "A few first": ("--canary", "--wait"),
    "Before anything moves": ("--dry-run", "--plan-out", "--sign-with", "--verify-with", "--yes", "--reason"),
    "Which jobs it runs, how many at once": (*("--queues", "--except", "--processes", "--threads", "--prefetch"),),
    "When a process counts as dead, and how it stops": (
        *(
            "--heartbeat",
            "--alive-threshold",
            "--shutdown-timeout",
            "--lost-timeout",
            "--leave-children",
            "--alive-file",
        ),
    ),
    "Watching": ("--watch",),
    "To whom": ("--exec", "--exec-timeout", "--webhook", "--format", "--webhook-secret-file", "--cooldown"),
    COMMON: (
        *("--output", "--fields", "--sort", "--local", "--no-pager", "--show-arguments"),
        *("--import", "--config", "--database", "--help"),
    ),
}
# With fewer options a command's help has only the common ones apart.
FEWEST_TO_GROUP = 12


def by_heading(names: Iterable[tuple[str, ...]]) -> dict[str, list[tuple[str, ...]]]:
    """Return the options of a command, each a tuple of its names, by heading; without headings that have none."""
    options = list(names)
    own = [option for option in options if not _is_under(COMMON, option)]
    grouped = len(own) >= FEWEST_TO_GROUP
    if len(options) == 1:  # --help
        return {OTHER: options}
    sections: dict[str, list[tuple[str, ...]]] = {heading: [] for heading in OPTION_HEADINGS}
    for option in options:
        heading = next((heading for heading in OPTION_HEADINGS if _is_under(heading, option)), OTHER)
        sections[heading if grouped or heading == COMMON else OTHER].append(option)
    return {heading: section for heading, section in sections.items() if section}


def _is_under(heading: str, names: tuple[str, ...]) -> bool:
    return any(name in OPTION_HEADINGS[heading] for name in names)


# -- how a command's help is written ----------------------------------------------------------------------------------


def lay_out(command: Any) -> None:
    """Let this command, and those below it, write their help under these headings."""
    command.format_options = _bound(_write_options, command)
    below = getattr(command, "commands", None)
    if below is not None:
        command.format_commands = _bound(_write_commands, command)
        for each in below.values():
            lay_out(each)


def _bound(write: Callable[[Any, Any, Any], None], command: Any) -> Callable[[Any, Any], None]:
    return lambda ctx, formatter: write(command, ctx, formatter)


def _write_options(command: Any, ctx: Any, formatter: Any) -> None:
    rows: dict[str, list[tuple[str, str]]] = {"argument": [], "option": []}
    names: dict[tuple[str, ...], tuple[str, str]] = {}
    for param in command.get_params(ctx):
        record = param.get_help_record(ctx)
        if record is None:
            continue
        if param.param_type_name == "argument":
            rows["argument"].append(record)
        else:
            names[(*param.opts, *param.secondary_opts)] = record
    if rows["argument"]:
        with formatter.section("Arguments"):
            formatter.write_dl(rows["argument"])
    for heading, options in by_heading(names).items():
        with formatter.section(heading):
            formatter.write_dl([names[option] for option in options])
    if hasattr(command, "commands"):
        command.format_commands(ctx, formatter)
    else:
        formatter.write_paragraph()
        with formatter.indentation():
            hint = "What stands before the command, as --profile and --read-only do: jq help options"
            formatter.write_text(by_own_name(hint))


def _write_commands(command: Any, _ctx: Any, formatter: Any) -> None:
    """Write the commands of a group with their whole first paragraph, on as many lines as it takes."""
    with formatter.section("Commands"):
        formatter.write_dl(
            [
                (name, " ".join((each.help or "").partition("\n\n")[0].split()))
                for name, each in command.commands.items()
                if not each.hidden
            ]
        )


def write_all_commands(formatter: Any) -> None:
    """Write every command with its summary, by what it is for, and the topics of ``jq help``."""
    listed = {name for names in COMMAND_HEADINGS.values() for name in names}
    rest = {"More": tuple(name for name in COMMANDS if name not in listed and not name.startswith("_"))}
    width = max(map(len, COMMANDS))
    for heading, names in {**COMMAND_HEADINGS, **rest}.items():
        rows = [(name.ljust(width), COMMANDS[name][1]) for name in names if name in COMMANDS]
        if rows:
            with formatter.section(heading):
                formatter.write_dl(rows)
    with formatter.section("Topics (jq help TOPIC)"):
        formatter.write_text(", ".join(TOPICS))
