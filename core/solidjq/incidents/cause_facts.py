"""The facts that causes rest on: a pure function for each rule of ``cause_rules``.

Each takes a death and the evidence beyond it, and returns the facts in words, or None if they are not there.
"""

from datetime import timedelta
from signal import Signals

from solidjq.durations import spell_duration
from solidjq.incidents.company import NO_COUNTS, Company
from solidjq.incidents.death_records import DeathRecord
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


def oom_counted(death: DeathRecord, _company: Company) -> list[str] | None:
    """Return the facts if SIGKILL ended it and the oom_kill counter of its control group rose."""
    before, after = _oom_kills(death)
    if death.signal != Signals.SIGKILL or before is None or after is None or after <= before:
        return None
    return ["SIGKILL", f"the control group's oom_kill counter rose from {before} to {after}"]


def killed_by_supervisor(death: DeathRecord, _company: Company) -> list[str] | None:
    """Return the facts if its own supervisor killed it after the shutdown timeout."""
    if not death.evidence.get("killed_by_supervisor"):
        return None
    return ["its supervisor killed it, since it had not stopped within the shutdown timeout"]


def machine_slept(death: DeathRecord, _company: Company) -> list[str] | None:
    """Return the facts if its machine slept since its last sample for half of the alive threshold or more."""
    here = part(death.evidence, "here")
    same_boot = "boot_id" in death.sample and death.sample["boot_id"] == here.get("boot_id")
    before, now = (_suspended(clocks) for clocks in (death.sample, here))
    if death.how is not Death.PRUNED or not same_boot or before is None or now is None:
        return None
    slept, threshold = now - before, number(death.evidence, "threshold") or 0.0
    if slept < max(1.0, threshold / 2):
        return None
    return [f"the machine slept for {_spell(slept)} since the last sample, by its own two clocks"]


def alive_after_an_outage(death: DeathRecord, company: Company) -> list[str] | None:
    """Return the facts if it still ran when it was pruned, and others could not reach the database meanwhile."""
    alive, away = still_there(death, company), outage(death, company)
    return None if alive is None or away is None else [*alive, *away]


def all_silent_and_running(death: DeathRecord, company: Company) -> list[str] | None:
    """Return the facts if it still ran when it was pruned, and all others fell silent with it."""
    alive = still_there(death, company)
    stopped = part(death.evidence, "here").get("process") == "stopped"
    if alive is None or stopped or company.deaths < 2 or _alive_beside(death, company) != 0:  # noqa: PLR2004
        return None
    return [*alive, f"{company.deaths} processes fell silent at once, and no other went on"]


def still_there(death: DeathRecord, _company: Company) -> list[str] | None:
    """Return the facts if a prune on its own host found its pid in use, by a process that may be it."""
    here = part(death.evidence, "here")
    state, started = here.get("process"), instant(here.get("started_at"))
    if death.how is not Death.PRUNED or state in {None, "gone", "unknown"}:
        return None
    since = "" if started is None else f", which started at {started:%Y-%m-%d %H:%M:%S} UTC,"
    return [f"pid {death.pid}{since} was still there when it was pruned: {state}"]


def surely_still_there(death: DeathRecord, company: Company) -> list[str] | None:
    """Return the facts if the pid surely was still its own: by its recorded start, or by Solid Queue's title."""
    certain = part(death.evidence, "here").get("certain", "pid_started" in death.sample)
    return still_there(death, company) if certain else None


def outage(death: DeathRecord, company: Company) -> list[str] | None:
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


def host_restarted(death: DeathRecord, _company: Company) -> list[str] | None:
    """Return the facts if its host has booted since its last sample."""
    here = part(death.evidence, "here")
    if "boot_id" not in death.sample or "boot_id" not in here or death.sample["boot_id"] == here["boot_id"]:
        return None
    silence = (death.noticed_at - death.silent_at).total_seconds()
    if (number(here, "boottime") or 0.0) > silence:
        return None  # this machine was up at the last heartbeat: it is another one of the same name
    return ["the machine was restarted after the last sample: its boot id has changed"]


def told_to_stop(death: DeathRecord, _company: Company) -> list[str] | None:
    """Return the facts if SIGTERM ended it, or came no more than ``LONGEST_GRACE`` before its end."""
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


def no_memory_in_last_words(death: DeathRecord, _company: Company) -> list[str] | None:
    """Return the facts if its last words report a failed allocation."""
    words = str(death.evidence.get("last_words", ""))
    phrase = next((phrase for phrase in OUT_OF_MEMORY if phrase in words), None)
    return None if phrase is None else [f"its last words contain {phrase!r}"]


def fatal_signal(death: DeathRecord, _company: Company) -> list[str] | None:
    """Return the facts if a signal that faults in compiled code raise ended it."""
    if death.signal not in FATAL:
        return None
    stack = ["its stack is in the evidence"] if death.evidence.get("last_words") else []
    return [_signal(death), *stack]


def near_its_limit(death: DeathRecord, _company: Company) -> list[str] | None:
    """Return the facts if its control group had used nearly all of its memory limit."""
    if not may_be_memory(death):
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


def under_pressure(death: DeathRecord, _company: Company) -> list[str] | None:
    """Return the facts if all tasks waited for memory for ``PRESSED`` percent of the time at its last sample."""
    pressure = number(death.sample, "psi", "full") or 0.0
    if not may_be_memory(death) or pressure < PRESSED:
        return None
    return [*_manner(death), f"its last sample: every task waited for memory {pressure:g} % of the time"]


def exit_status(death: DeathRecord, _company: Company) -> list[str] | None:
    """Return the facts if it ended with an exit status."""
    return None if death.exit_status is None else [f"exit status {death.exit_status}{_meant(death.exit_status)}"]


def shell_killed(death: DeathRecord, company: Company) -> list[str] | None:
    """Return the facts if its exit status is a shell's for SIGKILL or SIGTERM."""
    return exit_status(death, company) if death.exit_status in _KILLED_STATUSES else None


def own_status(death: DeathRecord, company: Company) -> list[str] | None:
    """Return the facts if its exit status is one with which jq work ends by itself."""
    return exit_status(death, company) if death.exit_status in _OWN_STATUSES else None


def several_failed(death: DeathRecord, company: Company) -> list[str] | None:
    """Return the facts if it ended as Ruby and Python end after an error at their top, and others beside it too.

    A database that goes away may end every worker so, whatever they executed.
    """
    if death.exit_status != 1 or company.deaths == 1:
        return None
    return [*(exit_status(death, company) or ()), f"{company.deaths} processes ended so at once"]


def sigkill_but_memory(death: DeathRecord, _company: Company) -> list[str] | None:
    """Return the facts if SIGKILL ended it and the oom_kill counter of its control group did not rise."""
    before, after = _oom_kills(death)
    if death.signal != Signals.SIGKILL or before is None or before != after:
        return None
    return ["SIGKILL", "no process was killed for want of memory in its control group"]


def any_signal(death: DeathRecord, _company: Company) -> list[str] | None:
    """Return the facts if a signal ended it."""
    return None if death.signal is None else [_signal(death)]


def gone_on_a_living_machine(death: DeathRecord, _company: Company) -> list[str] | None:
    """Return the facts if it is gone from a host that has not booted since its last sample."""
    here = part(death.evidence, "here")
    if death.how is not Death.PRUNED or here.get("process") != "gone" or "boot_id" not in death.sample:
        return None
    return ["the process is gone, its machine was not restarted, and no supervisor reaped it"]


def every_host(death: DeathRecord, company: Company) -> list[str] | None:
    """Return the facts if the processes of several hosts fell silent with it, and none went on."""
    fleet = part(death.evidence, "fleet")
    hosts = max(len(company.hosts), int(number(fleet, "hosts_silent") or 0))
    if death.how is not Death.PRUNED or _alive_beside(death, company) != 0 or hosts < 2:  # noqa: PLR2004
        return None
    return [f"all processes fell silent at once, on {hosts} hosts"]


def one_host(death: DeathRecord, company: Company) -> list[str] | None:
    """Return the facts if no process of its host went on, while those of other hosts did."""
    alive, here = _least_alive(death, company, "alive"), _least_alive(death, company, "alive_here")
    if death.how is not Death.PRUNED or not alive or here != 0:
        return None
    return [f"no process of host {death.hostname} sends heartbeats any more; {alive:g} on other hosts do"]


def nobody_left(death: DeathRecord, company: Company) -> list[str] | None:
    """Return the facts if no process that ran when it fell silent went on."""
    if death.how is not Death.PRUNED or _alive_beside(death, company) != 0:
        return None
    return ["no process that ran then is left: the host was lost, or every process was killed"]


def row_gone(death: DeathRecord, _company: Company) -> list[str] | None:
    """Return the facts if its jobs were claimed by a process that has no row."""
    return ["jobs were claimed by a process that has no row"] if death.how is Death.MISSING else None


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


def may_be_memory(death: DeathRecord) -> bool:
    """Return whether it ended as a process does that the kernel kills for want of memory: by SIGKILL, or unseen."""
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
