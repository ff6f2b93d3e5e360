"""Causes: why a process died. A table of rules over its evidence; each names a cause, a confidence and the facts used.

The rules are tried in the order of the table; the first whose facts are there decides. ``docs/causes.md`` is generated
from it. A death that only Rails recorded has no samples: its evidence can show a signal, an exit status, a lost host or
a stalled fleet, never memory.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from signal import Signals
from typing import NamedTuple

from solidjq.durations import spell_duration
from solidjq.incidents.death_cases import Blame
from solidjq.incidents.death_records import DeathRecord
from solidjq.ledger.deaths import DeathSource
from solidjq.processes.samples import instant
from solidjq.rails.error_text import Death
from solidjq.text import signal_name
from solidjq.untrusted import number, part

FULL = 0.9  # of the limit: memory so near to it may have reached it before the next sample
PRESSED = 10.0  # percent of 10 seconds in which every task waited for memory (PSI "full")
LONGEST_GRACE = timedelta(minutes=15)  # from SIGTERM to SIGKILL: few deployments wait longer
LONGEST_THRESHOLD = 86400.0  # seconds: a longer alive threshold in the evidence is not believed
FATAL = frozenset({Signals.SIGSEGV, Signals.SIGABRT, Signals.SIGBUS, Signals.SIGFPE, Signals.SIGILL, Signals.SIGSYS})
OUT_OF_MEMORY = ("MemoryError", "NoMemoryError", "out of memory", "bad_alloc", "failed to allocate memory")


class Confidence(StrEnum):
    """How sure a finding is."""

    CERTAIN = "certain"  # the facts leave nothing else
    LIKELY = "likely"  # the facts fit, and hardly fit anything else
    POSSIBLE = "possible"  # the facts fit, and fit other causes too
    UNKNOWN = "unknown"

    @property
    def rank(self) -> int:
        """The place in the order of confidence: 0 is the surest."""
        return list(Confidence).index(self)


class Cause(StrEnum):
    """What a death is put down to; the value is what ``jq`` prints."""

    MEMORY = "out of memory"
    SHUTDOWN = "killed at shutdown"
    SUSPENDED = "machine suspended"
    STALL = "fleet-wide stall"
    HUNG = "hung"
    HOST = "host lost"
    CRASH = "crashed"
    EXIT = "exited"
    KILLED = "killed"
    ROW = "process row deleted"
    UNKNOWN = "unknown"

    @property
    def outside(self) -> bool:
        """Whether the cause lies outside of the jobs."""
        return self in {Cause.SHUTDOWN, Cause.SUSPENDED, Cause.STALL, Cause.HOST, Cause.ROW}

    @property
    def meaning(self) -> str:
        """The cause in a sentence."""
        return _MEANINGS[self]

    @property
    def advice(self) -> str:
        """What an operator should do about the process; ``CauseFinding.advice`` adds what becomes of its jobs."""
        return _ADVICE[self]


_MEANINGS = {
    Cause.MEMORY: "The kernel killed the process for want of memory, or an allocation failed in it.",
    Cause.SHUTDOWN: "The process was told to stop and killed before its jobs had ended: a deployment, a scale-down.",
    Cause.SUSPENDED: "The machine slept; no process could send a heartbeat, and all may be alive again.",
    Cause.STALL: "Every process fell silent at once: the database was away, or its clock jumped. They may be alive.",
    Cause.HUNG: "The process exists, but sends no heartbeats: stopped, or stuck in a call that holds the GIL or GVL.",
    Cause.HOST: "The whole machine or container went: power, network, eviction, a pod deleted by force.",
    Cause.CRASH: "A fault in compiled code ended the process: segmentation fault, abort, bus error.",
    Cause.EXIT: "The process ended itself with a status, inside a job: exit!, os._exit, or a fatal error at its top.",
    Cause.KILLED: "A signal ended the process. Who sent it is not in the evidence.",
    Cause.ROW: "The process's row was deleted while it had claimed jobs: by hand, by a script, or by an old clean-up.",
    Cause.UNKNOWN: "The evidence fits no cause better than another.",
}
_ADVICE = {
    Cause.MEMORY: "See which job grew (jq suspects); give its queue a worker with more memory and fewer threads (jq "
    "retry --queue-as), or make the job read in smaller parts. Raise the memory limit only when you know the need.",
    Cause.SHUTDOWN: "Give workers longer between SIGTERM and SIGKILL: terminationGracePeriodSeconds, the supervisor's "
    "shutdown timeout below it; split jobs that run longer, or let them save checkpoints.",
    Cause.SUSPENDED: "Check that the jobs do not still run before you retry them.",
    Cause.STALL: "Look at the database's own log for that time. Check that the processes do not still run the jobs (jq "
    "processes list) before you retry them.",
    Cause.HUNG: "See that the pid is still this process (ps -o lstart,args -p PID): a pid is given out again. Look at "
    "it before you kill it (py-spy, rbspy, gdb). Kill it before you retry its jobs: if it wakes up, they run twice.",
    Cause.HOST: "Ask the orchestrator why the machine went (evictions, spot instances, node memory).",
    Cause.CRASH: "Read the stack in the evidence (jq incidents show) and suspect the native library at the top. Hold "
    "the suspects (jq suspects) until that library is updated.",
    Cause.EXIT: "Find the exit call in the job's code or in what it runs; raise an error instead, which fails one job "
    "and not all beside it.",
    Cause.KILLED: "Ask the host: dmesg -T | grep -i -E 'oom|killed', the orchestrator's events, who was logged in.",
    Cause.ROW: "Never delete rows of solid_queue_processes: prune (jq prune).",
    Cause.UNKNOWN: "Ask the host and the orchestrator for that time; jq work leaves more evidence than Rails' workers.",
}


@dataclass(frozen=True, slots=True)
class FleetCounts:
    """How many processes still beat, each time that a prune removed a process; in the order of time."""

    times: Sequence[datetime] = ()
    counts: Sequence[float] = ()

    @classmethod
    def of(cls, deaths: Iterable[DeathRecord], count: str) -> "FleetCounts":
        """Collect what the prunes of these deaths counted under this name."""
        counted = [(death.noticed_at, number(death.evidence, "fleet", count)) for death in deaths]
        pairs = sorted((at, found) for at, found in counted if found is not None)
        return cls([at for at, _ in pairs], [found for _, found in pairs])

    def least(self, start: datetime, end: datetime) -> float | None:
        """Return the least count between two times, both included; None if there is none."""
        return min(self.counts[bisect_left(self.times, start) : bisect_right(self.times, end)], default=None)


NO_COUNTS = FleetCounts()


@dataclass(frozen=True, slots=True)
class Company:
    """The evidence beyond one death: the other deaths of its moment, and the processes that live now."""

    hosts: frozenset[str] = frozenset()  # of all deaths of the moment
    deaths: int = 1  # at that moment
    survivors: int | None = None  # processes that ran when it fell silent and still beat later; None if unknown
    outages: Sequence[tuple[datetime, datetime | None]] = ()  # when other processes could not send heartbeats
    alive: FleetCounts = NO_COUNTS  # by the prunes of its moment: of all processes
    alive_here: Mapping[str | None, FleetCounts] = field(default_factory=dict)  # by host: of those of the host


NO_COMPANY = Company()


@dataclass(frozen=True, slots=True)
class CauseFinding:
    """A cause, with its confidence, the facts it rests on, and the evidence that was missing."""

    cause: Cause
    confidence: Confidence
    used: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()

    @property
    def outside(self) -> bool:
        """Whether it clears the jobs in flight: the cause lies outside of them, and is certain or likely."""
        return self.blame is Blame.OUTSIDE

    @property
    def blame(self) -> Blame:
        """Where the cause lies, as far as it is certain or likely."""
        if self.confidence not in {Confidence.CERTAIN, Confidence.LIKELY}:
            return Blame.UNKNOWN
        return Blame.OUTSIDE if self.cause.outside else _INSIDE.get(self.cause, Blame.UNKNOWN)

    @property
    def advice(self) -> str:
        """What an operator should do next; for a cause from outside also whether it clears the jobs."""
        if self.outside:
            return f"{self.cause.advice} The jobs are bystanders: jq retry --safe retries them."
        if self.cause.outside:
            return (
                f"{self.cause.advice} This is only {self.confidence}, so the jobs in flight stay charged (jq suspects)."
            )
        return self.cause.advice

    @property
    def words(self) -> str:
        """The cause with its confidence, as in ``out of memory (likely)``."""
        return str(self.cause) if self.cause is Cause.UNKNOWN else f"{self.cause} ({self.confidence})"


_INSIDE = {Cause.MEMORY: Blame.MEMORY, Cause.CRASH: Blame.CODE, Cause.EXIT: Blame.CODE}

CauseTest = Callable[[DeathRecord, Company], list[str] | None]  # returns the facts, None if they are not there


class CauseRule(NamedTuple):
    """One rule: if the test finds its facts, this is the cause. ``when``: the test in words, for ``docs/causes.md``."""

    cause: Cause
    confidence: Confidence
    when: str
    test: CauseTest


def find_cause(death: DeathRecord, company: Company) -> CauseFinding:
    """Return the cause of a death: that of the first rule in ``RULES`` whose facts are there, else UNKNOWN."""
    for rule in RULES:
        if (used := rule.test(death, company)) is not None:
            return CauseFinding(rule.cause, rule.confidence, tuple(used), tuple(_missing(death, rule)))
    return CauseFinding(Cause.UNKNOWN, Confidence.UNKNOWN, tuple(_last_heartbeat(death)), tuple(_missing(death, None)))


class WeighedCause(NamedTuple):
    """A cause beside the one that was found: the facts that speak for it too, and what was looked for in vain."""

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


# -- tests: the facts of each rule ------------------------------------------------------------------------------------


def _oom_counted(death: DeathRecord, _company: Company) -> list[str] | None:
    before, after = _oom_kills(death)
    if death.signal != Signals.SIGKILL or before is None or after is None or after <= before:
        return None
    return ["SIGKILL", f"the control group's oom_kill counter rose from {before} to {after}"]


def _killed_by_supervisor(death: DeathRecord, _company: Company) -> list[str] | None:
    if not death.evidence.get("killed_by_supervisor"):
        return None
    return ["its supervisor killed it, since it had not stopped within the shutdown timeout"]


def _slept(death: DeathRecord, _company: Company) -> list[str] | None:
    here = part(death.evidence, "here")
    same_boot = "boot_id" in death.sample and death.sample["boot_id"] == here.get("boot_id")
    before, now = (_suspended(clocks) for clocks in (death.sample, here))
    if death.how is not Death.PRUNED or not same_boot or before is None or now is None:
        return None
    slept, threshold = now - before, number(death.evidence, "threshold") or 0.0
    if slept < max(1.0, threshold / 2):
        return None
    return [f"the machine slept for {_spell(slept)} since the last sample, by its own two clocks"]


def _alive_after_an_outage(death: DeathRecord, company: Company) -> list[str] | None:
    alive, away = _still_there(death, company), _outage(death, company)
    return None if alive is None or away is None else [*alive, *away]


def _all_silent_and_running(death: DeathRecord, company: Company) -> list[str] | None:
    alive = _still_there(death, company)
    stopped = part(death.evidence, "here").get("process") == "stopped"
    if alive is None or stopped or company.deaths < 2 or _alive_beside(death, company) != 0:  # noqa: PLR2004
        return None
    return [*alive, f"{company.deaths} processes fell silent at once, and no other went on"]


def _still_there(death: DeathRecord, _company: Company) -> list[str] | None:
    here = part(death.evidence, "here")
    state, started = here.get("process"), instant(here.get("started_at"))
    if death.how is not Death.PRUNED or state in {None, "gone", "unknown"}:
        return None
    since = "" if started is None else f", which started at {started:%Y-%m-%d %H:%M:%S} UTC,"
    return [f"pid {death.pid}{since} was still there when it was pruned: {state}"]


def _surely_still_there(death: DeathRecord, company: Company) -> list[str] | None:
    """Return the facts if the pid surely was still its own: by its recorded start, or by Solid Queue's title."""
    certain = part(death.evidence, "here").get("certain", "pid_started" in death.sample)
    return _still_there(death, company) if certain else None


def _outage(death: DeathRecord, company: Company) -> list[str] | None:
    """Return the fact if other processes had an outage that covers half of the time from last heartbeat to prune."""
    if death.how is not Death.PRUNED:
        return None
    witness = part(death.evidence, "outage")
    start = instant(witness.get("from"))
    outages = [*company.outages, *([] if start is None else [(start, instant(witness.get("to")))])]
    silence = death.noticed_at - death.silent_at
    for began, ended in outages:
        end = min(ended or death.noticed_at, death.noticed_at)
        overlap = end - max(began, death.silent_at)
        if overlap >= silence / 2:
            return [f"other processes could not reach the database for {_spell(overlap.total_seconds())} then"]
    return None


def _restarted(death: DeathRecord, _company: Company) -> list[str] | None:
    here = part(death.evidence, "here")
    if "boot_id" not in death.sample or "boot_id" not in here or death.sample["boot_id"] == here["boot_id"]:
        return None
    silence = (death.noticed_at - death.silent_at).total_seconds()
    if (number(here, "boottime") or 0.0) > silence:
        return None  # this machine was up at the last heartbeat: it is another one of the same name
    return ["the machine was restarted after the last sample: its boot id has changed"]


def _told_to_stop(death: DeathRecord, _company: Company) -> list[str] | None:
    if death.signal == Signals.SIGTERM:
        return ["SIGTERM, which a running worker handles itself: it was starting, or stopping already"]
    term_at = instant(death.sample.get("term_at")) or instant(death.evidence.get("term_at"))
    ended = death.silent_at if death.how is Death.PRUNED else death.noticed_at
    if term_at is None or death.signal not in {None, Signals.SIGKILL} or death.exit_status is not None:
        return None
    if ended - term_at > LONGEST_GRACE:
        return None
    how = "then silence" if death.signal is None else "then SIGKILL"
    return [f"it was told to stop at {term_at:%H:%M:%S} UTC, {how}"]


def _no_memory_in_last_words(death: DeathRecord, _company: Company) -> list[str] | None:
    words = str(death.evidence.get("last_words", ""))
    phrase = next((phrase for phrase in OUT_OF_MEMORY if phrase in words), None)
    return None if phrase is None else [f"its last words contain {phrase!r}"]


def _fatal_signal(death: DeathRecord, _company: Company) -> list[str] | None:
    if death.signal not in FATAL:
        return None
    stack = ["its stack is in the evidence"] if death.evidence.get("last_words") else []
    return [_signal(death), *stack]


def _near_its_limit(death: DeathRecord, _company: Company) -> list[str] | None:
    if not _may_be_memory(death):
        return None
    limit = number(death.sample, "cgroup", "max")
    if not limit:
        return None
    used = number(death.sample, "cgroup", "current") or 0
    peak = number(death.evidence, "rusage", "peak") or 0
    if used >= FULL * limit:
        return [*_manner(death), f"its last sample: {_bytes(used)} of {_bytes(limit)} in use"]
    if peak >= FULL * limit:
        return [*_manner(death), f"it had used up to {_bytes(peak)}; the limit is {_bytes(limit)}"]
    return None


def _under_pressure(death: DeathRecord, _company: Company) -> list[str] | None:
    pressure = number(death.sample, "psi", "full") or 0.0
    if not _may_be_memory(death) or pressure < PRESSED:
        return None
    return [*_manner(death), f"its last sample: every task waited for memory {pressure:g} % of the time"]


def _status(death: DeathRecord, _company: Company) -> list[str] | None:
    return None if death.exit_status is None else [f"exit status {death.exit_status}{_meant(death.exit_status)}"]


def _shell_killed(death: DeathRecord, company: Company) -> list[str] | None:
    return _status(death, company) if death.exit_status in _KILLED_STATUSES else None


def _own_status(death: DeathRecord, company: Company) -> list[str] | None:
    return _status(death, company) if death.exit_status in _OWN_STATUSES else None


def _several_failed(death: DeathRecord, company: Company) -> list[str] | None:
    """Return the facts if it ended as Ruby and Python end after an error at their top, and others beside it too.

    A database that goes away may end every worker so, whatever they executed.
    """
    if death.exit_status != 1 or company.deaths == 1:
        return None
    return [*(_status(death, company) or ()), f"{company.deaths} processes ended so at once"]


def _sigkill_but_memory(death: DeathRecord, _company: Company) -> list[str] | None:
    before, after = _oom_kills(death)
    if death.signal != Signals.SIGKILL or before is None or before != after:
        return None
    return ["SIGKILL", "no process was killed for want of memory in its control group"]


def _any_signal(death: DeathRecord, _company: Company) -> list[str] | None:
    return None if death.signal is None else [_signal(death)]


def _gone_on_a_living_machine(death: DeathRecord, _company: Company) -> list[str] | None:
    here = part(death.evidence, "here")
    if death.how is not Death.PRUNED or here.get("process") != "gone" or "boot_id" not in death.sample:
        return None
    return ["the process is gone, its machine was not restarted, and no supervisor reaped it"]


def _every_host(death: DeathRecord, company: Company) -> list[str] | None:
    fleet = part(death.evidence, "fleet")
    hosts = max(len(company.hosts), int(number(fleet, "hosts_silent") or 0))
    if death.how is not Death.PRUNED or _alive_beside(death, company) != 0 or hosts < 2:  # noqa: PLR2004
        return None
    return [f"all processes fell silent at once, on {hosts} hosts"]


def _one_host(death: DeathRecord, company: Company) -> list[str] | None:
    alive, here = _least_alive(death, company, "alive"), _least_alive(death, company, "alive_here")
    if death.how is not Death.PRUNED or not alive or here != 0:
        return None
    return [f"no process of host {death.hostname} sends heartbeats any more; {alive:g} on other hosts do"]


def _nobody_left(death: DeathRecord, company: Company) -> list[str] | None:
    if death.how is not Death.PRUNED or _alive_beside(death, company) != 0:
        return None
    return ["no process that ran then is left: the host was lost, or every process was killed"]


def _row_gone(death: DeathRecord, _company: Company) -> list[str] | None:
    return ["jobs were claimed by a process that has no row"] if death.how is Death.MISSING else None


RULES: tuple[CauseRule, ...] = (
    CauseRule(
        Cause.MEMORY, Confidence.CERTAIN, "SIGKILL, and its control group's oom_kill counter rose with it", _oom_counted
    ),
    CauseRule(
        Cause.SHUTDOWN, Confidence.CERTAIN, "its own supervisor killed it after the timeout", _killed_by_supervisor
    ),
    CauseRule(
        Cause.SUSPENDED, Confidence.CERTAIN, "same boot, and the clock that stops during sleep lost time", _slept
    ),
    CauseRule(
        Cause.STALL,
        Confidence.CERTAIN,
        "it still ran when it was pruned, and other processes could not reach the database meanwhile",
        _alive_after_an_outage,
    ),
    CauseRule(
        Cause.STALL,
        Confidence.LIKELY,
        "it still ran when it was pruned; several processes fell silent at once and none went on",
        _all_silent_and_running,
    ),
    CauseRule(
        Cause.HUNG,
        Confidence.CERTAIN,
        "a prune on its own host found it running or stopped, and surely the same process",
        _surely_still_there,
    ),
    CauseRule(
        Cause.HUNG,
        Confidence.LIKELY,
        "a prune on its own host found its pid, of a process that is old enough",
        _still_there,
    ),
    CauseRule(
        Cause.STALL, Confidence.LIKELY, "other processes could not reach the database during its silence", _outage
    ),
    CauseRule(Cause.HOST, Confidence.CERTAIN, "its host has another boot id now", _restarted),
    CauseRule(Cause.SHUTDOWN, Confidence.LIKELY, "SIGTERM, then SIGKILL or silence within 15 minutes", _told_to_stop),
    CauseRule(Cause.MEMORY, Confidence.LIKELY, "its last words report a failed allocation", _no_memory_in_last_words),
    CauseRule(Cause.CRASH, Confidence.CERTAIN, "a signal that faults in compiled code raise", _fatal_signal),
    CauseRule(
        Cause.KILLED,
        Confidence.LIKELY,
        "exit status 137 or 143: a shell's for SIGKILL and SIGTERM",
        _shell_killed,
    ),
    CauseRule(Cause.EXIT, Confidence.POSSIBLE, "a status with which jq work ends by itself", _own_status),
    CauseRule(
        Cause.EXIT,
        Confidence.POSSIBLE,
        "status 1, as after an error outside of the jobs, of several processes at once",
        _several_failed,
    ),
    CauseRule(Cause.EXIT, Confidence.CERTAIN, "it ended with an exit status", _status),
    CauseRule(
        Cause.MEMORY, Confidence.LIKELY, "SIGKILL or silence at 90 % of its control group's limit", _near_its_limit
    ),
    CauseRule(
        Cause.MEMORY, Confidence.POSSIBLE, "SIGKILL or silence when all tasks waited for memory", _under_pressure
    ),
    CauseRule(Cause.KILLED, Confidence.CERTAIN, "SIGKILL, and the oom_kill counter did not rise", _sigkill_but_memory),
    CauseRule(Cause.KILLED, Confidence.LIKELY, "a signal, and no evidence of memory", _any_signal),
    CauseRule(Cause.KILLED, Confidence.LIKELY, "gone, on a host that was not restarted", _gone_on_a_living_machine),
    CauseRule(
        Cause.STALL, Confidence.LIKELY, "processes of several hosts fell silent at once and none went on", _every_host
    ),
    CauseRule(Cause.HOST, Confidence.LIKELY, "all of one host fell silent, those of other hosts did not", _one_host),
    CauseRule(Cause.HOST, Confidence.POSSIBLE, "no process that ran then is left, on one host", _nobody_left),
    CauseRule(Cause.ROW, Confidence.LIKELY, "jobs claimed by a process without a row", _row_gone),
)


# -- words ------------------------------------------------------------------------------------------------------------


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
    elif number(death.sample, "cgroup", "max") is None and _may_be_memory(death):
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


def _oom_kills(death: DeathRecord) -> tuple[int | None, int | None]:
    """Return the control group's oom_kill counter before and after the death."""
    counts = death.evidence.get("oom_kill")
    if not isinstance(counts, list) or len(counts) != 2 or not all(isinstance(n, int) for n in counts):  # noqa: PLR2004
        return None, None
    return counts[0], counts[1]


def _alive_beside(death: DeathRecord, company: Company) -> float | None:
    """Return how many processes that ran when it fell silent went on; None if unknown."""
    return _least_alive(death, company, "alive") if death.evidence.get("fleet") else company.survivors


def _least_alive(death: DeathRecord, company: Company, count: str) -> float | None:
    """Return the least that a prune counted of the processes that went on: all of them, or those of its host.

    Each process is pruned when its own silence is long enough, the first of a lost host while the last heartbeats of
    the others still look young. So the deaths of its moment that were pruned soon after count for it too.
    """
    own = number(death.evidence, "fleet", count)
    counts = company.alive if count == "alive" else company.alive_here.get(death.hostname, NO_COUNTS)
    soon = timedelta(seconds=min(max(0.0, number(death.evidence, "threshold") or 0.0), LONGEST_THRESHOLD))
    others = counts.least(death.noticed_at, death.noticed_at + soon)
    return min((counted for counted in (own, others) if counted is not None), default=None)


def _may_be_memory(death: DeathRecord) -> bool:
    return death.signal == Signals.SIGKILL or death.how is Death.PRUNED


def _suspended(clocks: object) -> float | None:
    """Return how many seconds the machine has slept since its start; None without both clocks."""
    if not isinstance(clocks, dict):
        return None
    boot, awake = number(clocks, "boottime"), number(clocks, "monotonic")
    return None if boot is None or awake is None else boot - awake


def _manner(death: DeathRecord) -> list[str]:
    return ["its heartbeat stopped"] if death.signal is None else [_signal(death)]


def _signal(death: DeathRecord) -> str:
    return signal_name(death.signal or 0)


_KILLED_STATUSES = frozenset({137, 143})
_OWN_STATUSES = frozenset({69, 74, 75, 78})  # see runtime/child.py
_STATUSES = {
    69: ": it was told to stop while the database was away",
    74: ": it had lost the database for longer than the alive threshold and stopped itself",
    75: ": it had been pruned and stopped itself",
    78: ": its jobs could not be imported",
    134: ": what a shell gives for SIGABRT",
    137: ": what a shell gives for SIGKILL",
    139: ": what a shell gives for SIGSEGV",
    143: ": what a shell gives for SIGTERM",
}


def _meant(status: int) -> str:
    return _STATUSES.get(status, "")


def _spell(seconds: float) -> str:
    return spell_duration(timedelta(seconds=round(seconds)))


def _bytes(count: float) -> str:
    for unit, size in (("GB", 2**30), ("MB", 2**20)):
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return f"{count / 1024:.0f} kB"
