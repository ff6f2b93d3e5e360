"""Each command, with arguments for which it finds something to do, and how it ends where it may change nothing."""

from solidjq_cli.exits import Exit

PLAN = "plan.json"
# Each command, so that it would do something, and what it ends with.
REFUSED, FOUND = Exit.REFUSED, Exit.DONE
WARNING, CRITICAL = Exit(1), Exit(2)  # jq check ends as monitoring plugins do
COMMANDS: dict[str, Exit] = {
    "init": REFUSED,
    "init --indexes": REFUSED,
    "grants somebody": FOUND,
    "status": FOUND,
    "top": Exit.USAGE,  # without a terminal; tests/live has it with one
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
    "incidents report {death}": FOUND,
    "suspects": FOUND,
    "bisect {death} --yes": REFUSED,
    "policy show": FOUND,
    "profiles list": FOUND,
    "jobs show {retried} {held}": FOUND,
    "jobs list": FOUND,
    "jobs times": FOUND,
    "jobs stop {held}": REFUSED,
    "jobs run-now {retried}": REFUSED,
    "jobs postpone {retried} --to 2h": REFUSED,
    "jobs move {retried} --to elsewhere": REFUSED,
    "jobs discard {retried}": REFUSED,
    "queues list": FOUND,
    "queues keys": FOUND,
    "queues pause default": REFUSED,
    "queues resume default": REFUSED,
    "processes list": FOUND,
    "doctor --patience 30": Exit.PARTLY,
    "doctor orphans --fix --yes": REFUSED,
    "check failures": WARNING,
    "check deaths": WARNING,
    "check latency": FOUND,
    "check processes": CRITICAL,
    "check dispatcher": WARNING,
    "check recurring": FOUND,
    "check slots": FOUND,
    "check all": CRITICAL,
    "check alive-file nowhere": CRITICAL,
    "watch --once --since 30d --position watched.json": FOUND,
    "wait --idle --timeout 0s": Exit.PARTLY,
    "metrics": FOUND,
    "metrics --file written.prom": FOUND,
    "enqueue PlainJob": REFUSED,
    "work --import sample_jobs": REFUSED,
    "completions bash": FOUND,
}
ON_TERMINALS = {"top"}  # it draws there alone
# These answer on standard output and end as monitoring plugins do, whatever goes wrong.
PLUGINS = {command for command in COMMANDS if command.startswith("check ")}
