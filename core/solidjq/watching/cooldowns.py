"""Cooldowns: one message an incident's cause, a host or a failure group, and the later ones counted until it is over.

A process that dies each minute, or a thousand groups after a bad deployment, are a handful of messages.
"""

from collections.abc import Iterator
from typing import Any

from solidjq.watching.position import Held

MOST_KEYS = 20  # sorts of messages within one cooldown; all beyond share one
MOST_NAMES = 20  # names that are kept of what was held back
REST = "rest"


def admit(cooldowns: dict[str, Held], message: dict[str, Any], *, first: bool, seconds: float, now: float) -> bool:
    """Whether a message is to be sent now; else it is counted where its sort cools down.

    Messages of deaths always are: they name jobs that no other message names. ``first`` is False for what only adds to
    something reported before: it is counted, and never sent by itself.
    """
    if message["kind"] == "death" or seconds <= 0:
        return first
    key = _key(cooldowns, message)
    held = cooldowns.get(key)
    if held is None:
        if first:
            cooldowns[key] = Held(now + seconds, message["title"])
        return first
    held.messages += 1
    held.jobs += message["jobs_total"]
    if message["name"] not in held.names and len(held.names) < MOST_NAMES:
        held.names.append(message["name"])
    return False


def ended(cooldowns: dict[str, Held], *, seconds: float, now: float) -> Iterator[tuple[str, Held]]:
    """Yield the cooldowns that are over and have held something back, by key; those begin anew, the others end."""
    for key, held in list(cooldowns.items()):
        if now < held.until <= now + seconds:  # later, it was written before the clock was set back
            continue
        del cooldowns[key]
        if held.messages:
            yield key, held
            if not key.startswith("group"):  # one that goes on failing is known; processes that go on dying matter
                cooldowns[key] = Held(now + seconds, held.title)


def _key(cooldowns: dict[str, Held], message: dict[str, Any]) -> str:
    kind = message["kind"]
    key = f"{kind}:{_subject(message)}"
    alike = sum(1 for other in cooldowns if other.startswith(f"{kind}:"))
    return key if key in cooldowns or alike < MOST_KEYS else f"{kind}:{REST}"


def _subject(message: dict[str, Any]) -> str:
    """Return what two messages of a kind have in common if they are alike."""
    match message["kind"]:
        case "incident":
            return str(message["cause"])
        case "silent":  # its name is the number of hosts if there are several
            return ",".join(message["hosts"]) or str(message["name"])
        case _:
            return str(message["name"])
