"""Each command, with arguments for which it finds something to do, and how it ends where it may change nothing."""

from solidjq_cli.exits import Exit

PLAN = "plan.json"
# Each command, so that it would do something, and what it ends with.
REFUSED, FOUND = Exit.REFUSED, Exit.DONE
COMMANDS: dict[str, Exit] = {
    "init": REFUSED,
    "init --indexes": REFUSED,
    "grants somebody": FOUND,
    "failed list": FOUND,
    "failed show {failed}": FOUND,
    "failed diff": FOUND,
    "prune --force": REFUSED,
    "prune --dry-run --force": FOUND,
    "retry {failed}": REFUSED,
    "retry --safe --yes": REFUSED,
    "retry --safe --dry-run": FOUND,
    "discard {failed}": REFUSED,
    f"apply {PLAN}": REFUSED,
    "recover --force": REFUSED,
    "recover --dry-run": FOUND,
    "operations list": FOUND,
    "operations show {operation}": FOUND,
    "operations verify": FOUND,
    "undo {operation}": REFUSED,
    "history {retried}": FOUND,
    "incidents list": FOUND,
    "incidents show {death}": FOUND,
    "suspects": FOUND,
    "bisect {death} --yes": REFUSED,
    "policy show": FOUND,
    "profiles list": FOUND,
    "jobs show {retried} {held}": FOUND,
    "queues list": FOUND,
    "queues pause default": REFUSED,
    "queues resume default": REFUSED,
    "processes list": FOUND,
    "doctor --patience 30": Exit.PARTLY,
    "doctor orphans --fix --yes": REFUSED,
    "enqueue PlainJob": REFUSED,
    "work --import sample_jobs": REFUSED,
    "completions bash": FOUND,
}
