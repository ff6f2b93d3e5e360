"""Cooldowns: after one message of a cause, a host or a failure group, similar ones are counted until its cooldown ends.

A process that dies each minute, or a thousand groups after a bad deployment, are a handful of messages.
"""

from collections.abc import Iterator
from typing import Any

from solidjq.watching.position import Cooldown

MOST_KEYS = 20  # sorts of messages within one cooldown; all beyond share one
MOST_NAMES = 20  # of the incidents, hosts or groups that the summary of a cooldown names
REST = "rest"


def admit(cooldowns: dict[str, Cooldown], message: dict[str, Any], *, first: bool, seconds: float, now: float) -> bool:
    """Whether a message is to be sent now; else it is counted where its sort cools down.

    Messages of deaths always are: they name jobs that no other message names. ``first`` is False for what only adds to
    something reported before: it is counted, and never sent by itself.
    """
    if message["kind"] == "death" or seconds <= 0:
        return first
    key = _key(cooldowns, message)
    cooldown = cooldowns.get(key)
    if cooldown is None:
        if first:
            cooldowns[key] = Cooldown(now + seconds, message["title"])
        return first
    cooldown.messages += 1
    cooldown.jobs += message["jobs_total"]
    if message["name"] not in cooldown.names and len(cooldown.names) < MOST_NAMES:
        cooldown.names.append(message["name"])
    return False


def ended(cooldowns: dict[str, Cooldown], *, seconds: float, now: float) -> Iterator[tuple[str, Cooldown]]:
    """Yield the cooldowns that are over and have counted a message, by key; these begin anew, the others end."""
    for key, cooldown in list(cooldowns.items()):
        if now < cooldown.until <= now + seconds:  # later, it was written before the clock was set back
            continue
        del cooldowns[key]
        if cooldown.messages:
            yield key, cooldown
            if not key.startswith("group"):  # one that goes on failing is known; processes that go on dying matter
                cooldowns[key] = Cooldown(now + seconds, cooldown.title)


def _key(cooldowns: dict[str, Cooldown], message: dict[str, Any]) -> str:
    kind = message["kind"]
    key = f"{kind}:{_subject(message)}"
    subjects = sum(1 for other in cooldowns if other.startswith(f"{kind}:"))
    return key if key in cooldowns or subjects < MOST_KEYS else f"{kind}:{REST}"


def _subject(message: dict[str, Any]) -> str:
    """Return what two messages of a kind have in common if they are alike."""
    match message["kind"]:
        case "incident":
            return str(message["cause"])
        case "silent":  # its name is the number of hosts if there are several
            return ",".join(message["hosts"]) or str(message["name"])
        case _:
            return str(message["name"])
