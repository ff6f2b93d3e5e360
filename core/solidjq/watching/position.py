"""The position of a watch: how far it has read, what it has reported, what it still has to deliver."""

import json
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from solidjq.watching.id_windows import IdWindow
from solidjq.watching.typed import LATER, built

FORMAT = 1
MOST_ANNOUNCED = 5_000  # deaths whose incident is remembered
MOST_GROUPS = 2_000  # failure groups that are remembered
MOST_REMEMBERED = 200  # deaths that Rails noticed, to which further jobs may belong


@dataclass(slots=True)
class Remembered:
    """A death that nobody recorded, put together from failures: further ones may belong to it."""

    failure_id: int
    error: str
    first_at: float  # seconds since 1970, when its first job failed
    last_at: float
    hostname: str | None = None
    pid: int | None = None


@dataclass(slots=True)
class Contact:
    """Since when the watch has seen each heartbeat soon after it was written, and until when; in seconds since 1970."""

    since: float
    until: float


@dataclass(slots=True)
class Silence:
    """A process that has been silent since one heartbeat. Times are the database's, in seconds since 1970."""

    beat: float | None  # the heartbeat; None if it is no time
    seen_at: float | None = None  # when it was found silent, if it was not reported at once
    told: bool = False  # reported; the name is that of the file
    message: str | None = None  # the id of the message that reported it; None if its death, or an earlier start, did
    gone_at: float | None = None  # since when it has beaten again, or its row is gone


@dataclass(slots=True)
class GroupSeen:
    """A failure group that has been reported, or was there before the watch began."""

    place: str  # in the code: groups of one place may be one problem
    last_at: float  # seconds since 1970


@dataclass(slots=True)
class Cooldown:
    """A time in which messages of one sort are counted instead of sent."""

    until: float  # seconds since 1970
    title: str
    messages: int = 0
    jobs: int = 0
    names: list[str] = field(default_factory=list)


@dataclass(slots=True)
class Waiting:
    """A message that is still to be delivered to a target."""

    message: dict[str, Any]
    attempts: int = 0

    def as_data(self) -> dict[str, Any]:
        """Return it as JSON has it; ``asdict`` would copy each message at each save."""
        return {"message": self.message, "attempts": self.attempts}


@dataclass(slots=True)
class Position:
    """The state of one watch."""

    database: str
    deaths: IdWindow = field(default_factory=IdWindow)
    failures: IdWindow = field(default_factory=IdWindow)
    remembered: list[Remembered] = field(default_factory=list)
    announced: dict[str, str] = field(default_factory=dict)  # by death, the incident that it was reported with
    groups: dict[str, GroupSeen] = field(default_factory=dict)  # by name, the one seen last at the end
    cooldowns: dict[str, Cooldown] = field(default_factory=dict)
    outbox: dict[str, list[Waiting]] = field(default_factory=dict)  # by target
    contact: Contact | None = field(default=None, metadata=LATER)  # None: it has not looked for silent processes yet
    silences: dict[str, Silence] = field(default_factory=dict, metadata=LATER)  # by process id

    def draft(self) -> "Position":
        """Return a copy to work on, without the messages to deliver; ``take`` takes it over, once all is read."""
        return Position(
            self.database,
            replace(self.deaths, gaps=list(self.deaths.gaps)),
            replace(self.failures, gaps=list(self.failures.gaps)),
            [replace(one) for one in self.remembered],
            dict(self.announced),
            dict(self.groups),
            {key: replace(cooldown, names=list(cooldown.names)) for key, cooldown in self.cooldowns.items()},
            contact=None if self.contact is None else replace(self.contact),
            silences={key: replace(silence) for key, silence in self.silences.items()},
        )

    def take(self, draft: "Position") -> None:
        """Take over what a draft has; the messages to deliver stay."""
        self.deaths, self.failures, self.remembered = draft.deaths, draft.failures, draft.remembered
        self.announced, self.groups, self.cooldowns = draft.announced, draft.groups, draft.cooldowns
        self.contact, self.silences = draft.contact, draft.silences

    def forget(self, which: str) -> None:
        """Forget what was remembered by the ids of ``deaths`` or ``failures``, which begin again."""
        letter = which[0]  # d17, f123
        self.announced = {name: incident for name, incident in self.announced.items() if name[0] != letter}
        if which == "failures":
            self.remembered = []

    def trim(self) -> None:
        """Drop the oldest of what is remembered beyond its limits."""
        del self.remembered[:-MOST_REMEMBERED]
        for mapping, most in ((self.announced, MOST_ANNOUNCED), (self.groups, MOST_GROUPS)):
            for name in list(mapping)[: max(0, len(mapping) - most)]:
                del mapping[name]

    def as_text(self) -> str:
        """Return it as the file has it."""
        data = {
            "format": FORMAT,
            "database": self.database,
            "deaths": self.deaths.as_data(),
            "failures": self.failures.as_data(),
            "remembered": [asdict(one) for one in self.remembered],
            "announced": self.announced,
            "groups": {name: asdict(group) for name, group in self.groups.items()},
            "cooldowns": {key: asdict(cooldown) for key, cooldown in self.cooldowns.items()},
            "contact": None if self.contact is None else asdict(self.contact),
            "silences": {key: asdict(silence) for key, silence in self.silences.items()},
            "outbox": {key: [one.as_data() for one in waiting] for key, waiting in self.outbox.items() if waiting},
        }
        return json.dumps(data, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace").decode()


def position_of(text: str) -> Position:
    """Return the position that a file holds. Raises ValueError if it holds none of this format."""
    try:
        data = json.loads(text)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    if not isinstance(data, dict) or data.get("format") != FORMAT:
        raise ValueError("no position of this format")
    position = built(Position, data)
    for key, waiting in position.outbox.items():
        for at, one in enumerate(waiting):
            _check_message(one.message, f"outbox[{key!r}][{at}].message")
    return position


def _check_message(message: dict[str, Any], place: str) -> None:
    """Raise ValueError if a message that waits cannot be delivered."""
    texts = ("id", "kind", "name", "title", "database")
    if missing := [name for name in texts if not isinstance(message.get(name), str)]:
        raise ValueError(f"{place}.{missing[0]} is no text")
    lists = {"jobs": dict, "next": str, "processes": dict}
    for name, kind in lists.items():
        value = message.get(name, [])
        if not isinstance(value, list) or not all(isinstance(one, kind) for one in value):
            raise ValueError(f"{place}.{name} is no list of such")
    if type(message.get("jobs_total")) is not int:
        raise ValueError(f"{place}.jobs_total is no whole number")
