"""The rules that put a death down to a cause: each names a cause, a confidence, and the test that finds its facts.

The rules are tried in the order of the table; the first whose facts are there decides. ``docs/causes.md`` is generated
from it. A death that only Rails recorded has no samples: its evidence can show a signal, an exit status, a lost host or
a stalled fleet, never memory.
"""

from collections.abc import Callable, Iterable
from typing import NamedTuple

from solidjq.incidents import cause_facts
from solidjq.incidents.causes import Cause, CauseFinding, Confidence
from solidjq.incidents.company import Company
from solidjq.incidents.death_records import DeathRecord
from solidjq.ledger.deaths import DeathSource
from solidjq.rails.error_text import Death
from solidjq.untrusted import number, part

CauseTest = Callable[[DeathRecord, Company], list[str] | None]  # returns the facts, None if they are not there


class CauseRule(NamedTuple):
    """One rule: if the test finds its facts, this is the cause. ``when``: the test in words, for ``docs/causes.md``."""

    cause: Cause
    confidence: Confidence
    when: str
    test: CauseTest


RULES: tuple[CauseRule, ...] = (
    CauseRule(
        Cause.MEMORY,
        Confidence.CERTAIN,
        "SIGKILL, and its control group's oom_kill counter rose with it",
        cause_facts.oom_counted,
    ),
    CauseRule(
        Cause.SHUTDOWN,
        Confidence.CERTAIN,
        "its own supervisor killed it after the timeout",
        cause_facts.killed_by_supervisor,
    ),
    CauseRule(
        Cause.SUSPENDED,
        Confidence.CERTAIN,
        "same boot, and the clock that stops during sleep lost time",
        cause_facts.machine_slept,
    ),
    CauseRule(
        Cause.STALL,
        Confidence.CERTAIN,
        "it still ran when it was pruned, and other processes could not reach the database meanwhile",
        cause_facts.alive_after_an_outage,
    ),
    CauseRule(
        Cause.STALL,
        Confidence.LIKELY,
        "it still ran when it was pruned; several processes fell silent at once and none went on",
        cause_facts.all_silent_and_running,
    ),
    CauseRule(
        Cause.HUNG,
        Confidence.CERTAIN,
        "a prune on its own host found it running or stopped, and surely the same process",
        cause_facts.surely_still_there,
    ),
    CauseRule(
        Cause.HUNG,
        Confidence.LIKELY,
        "a prune on its own host found its pid, of a process that is old enough",
        cause_facts.still_there,
    ),
    CauseRule(
        Cause.STALL,
        Confidence.LIKELY,
        "other processes could not reach the database during its silence",
        cause_facts.outage,
    ),
    CauseRule(Cause.HOST, Confidence.CERTAIN, "its host has another boot id now", cause_facts.host_restarted),
    CauseRule(
        Cause.SHUTDOWN,
        Confidence.LIKELY,
        "SIGTERM, then SIGKILL or silence within 15 minutes",
        cause_facts.told_to_stop,
    ),
    CauseRule(
        Cause.MEMORY,
        Confidence.LIKELY,
        "its last words report a failed allocation",
        cause_facts.no_memory_in_last_words,
    ),
    CauseRule(Cause.CRASH, Confidence.CERTAIN, "a signal that faults in compiled code raise", cause_facts.fatal_signal),
    CauseRule(
        Cause.KILLED,
        Confidence.LIKELY,
        "exit status 137 or 143: a shell's for SIGKILL and SIGTERM",
        cause_facts.shell_killed,
    ),
    CauseRule(Cause.EXIT, Confidence.POSSIBLE, "a status with which jq work ends by itself", cause_facts.own_status),
    CauseRule(
        Cause.EXIT,
        Confidence.POSSIBLE,
        "status 1, as after an error outside of the jobs, of several processes at once",
        cause_facts.several_failed,
    ),
    CauseRule(Cause.EXIT, Confidence.CERTAIN, "it ended with an exit status", cause_facts.exit_status),
    CauseRule(
        Cause.MEMORY,
        Confidence.LIKELY,
        "SIGKILL or silence at 90 % of its control group's limit",
        cause_facts.near_its_limit,
    ),
    CauseRule(
        Cause.MEMORY,
        Confidence.POSSIBLE,
        "SIGKILL or silence when all tasks waited for memory",
        cause_facts.under_pressure,
    ),
    CauseRule(
        Cause.KILLED,
        Confidence.CERTAIN,
        "SIGKILL, and the oom_kill counter did not rise",
        cause_facts.sigkill_but_memory,
    ),
    CauseRule(Cause.KILLED, Confidence.LIKELY, "a signal, and no evidence of memory", cause_facts.any_signal),
    CauseRule(
        Cause.KILLED, Confidence.LIKELY, "gone, on a host that was not restarted", cause_facts.gone_on_a_living_machine
    ),
    CauseRule(
        Cause.STALL,
        Confidence.LIKELY,
        "processes of several hosts fell silent at once and none went on",
        cause_facts.every_host,
    ),
    CauseRule(
        Cause.HOST, Confidence.LIKELY, "all of one host fell silent, those of other hosts did not", cause_facts.one_host
    ),
    CauseRule(
        Cause.HOST, Confidence.POSSIBLE, "no process that ran then is left, on one host", cause_facts.nobody_left
    ),
    CauseRule(Cause.ROW, Confidence.LIKELY, "jobs claimed by a process without a row", cause_facts.row_gone),
)


def find_cause(death: DeathRecord, company: Company) -> CauseFinding:
    """Return the cause of a death: that of the first rule in ``RULES`` whose facts are there, else UNKNOWN."""
    for rule in RULES:
        if (used := rule.test(death, company)) is not None:
            return CauseFinding(rule.cause, rule.confidence, tuple(used), tuple(_missing(death, rule)))
    return CauseFinding(Cause.UNKNOWN, Confidence.UNKNOWN, tuple(_last_heartbeat(death)), tuple(_missing(death, None)))


class WeighedCause(NamedTuple):
    """A cause beside the one that was found: the facts that speak for it too, and those that are missing."""

    cause: Cause
    facts: tuple[str, ...]
    absent: tuple[str, ...]  # in words, as in docs/causes.md


def weigh_others(deaths: Iterable[DeathRecord], company: Company, found: Cause) -> list[WeighedCause]:
    """Return what the evidence of these deaths says of each other cause, those with facts first."""
    facts: dict[Cause, dict[str, None]] = {cause: {} for cause in Cause if cause not in {found, Cause.UNKNOWN}}
    present: set[CauseRule] = set()
    for death in deaths:
        for rule in RULES:
            if rule.cause in facts and (used := rule.test(death, company)) is not None:
                facts[rule.cause] |= dict.fromkeys(used)
                present.add(rule)
    absent = {cause: [rule.when for rule in RULES if rule.cause is cause and rule not in present] for cause in facts}
    weighed = [WeighedCause(cause, tuple(facts[cause]), tuple(absent[cause])) for cause in facts]
    return sorted(weighed, key=lambda each: not each.facts)


def _missing(death: DeathRecord, rule: CauseRule | None) -> list[str]:
    """Return the evidence that could have made the finding surer, in words."""
    if rule is not None and rule.confidence is Confidence.CERTAIN:
        return []
    missing: list[str] = []
    if death.source is DeathSource.FAILURES:
        missing.append("samples and the exit of the process: only jq work records them")
        if death.several:
            missing.append("how many processes died: the failures of several may look the same")
    elif not death.sample:
        missing.append("a sample from the process")
    elif number(death.sample, "cgroup", "max") is None and cause_facts.may_be_memory(death):
        missing.append("a memory limit of its control group")
    here = part(death.evidence, "here")
    if death.how is Death.PRUNED and not here:
        missing.append("a check on its host: " + (death.hostname or "not recorded"))
    elif here.get("elsewhere"):
        missing.append(f"a check on its host: it ran in another boot or container named {death.hostname}")
    if rule is not None and rule.cause is Cause.HUNG:
        missing.append(f"whether pid {death.pid} was still its own: its row does not record when it started")
    return missing


def _last_heartbeat(death: DeathRecord) -> list[str]:
    if death.how is Death.PRUNED and death.last_heartbeat_at is not None:
        return [f"its last heartbeat was at {death.last_heartbeat_at:%Y-%m-%d %H:%M:%S} UTC"]
    return []
