"""The watch: it looks for what is new, reports it, keeps the position, and delivers."""

import random
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial

from sqlalchemy import Connection

from solidjq.database import notices
from solidjq.database.times import clock
from solidjq.database.transactions import Database
from solidjq.errors import ConflictError, DatabaseError, DatabaseUnreachableError, TookTooLongError
from solidjq.processes.heartbeat import ALIVE_THRESHOLD
from solidjq.watching import cooldowns
from solidjq.watching.deliveries import Deliveries, Say, Target
from solidjq.watching.events import Choice, Event, SilenceNews, find_events, silence_events
from solidjq.watching.messages import Message, is_first, messages_of, summary_of
from solidjq.watching.news import Reader
from solidjq.watching.position import Position
from solidjq.watching.position_file import PositionFile
from solidjq.watching.recent_deaths import RecentDeaths
from solidjq.watching.silence import find_silences, mark

KINDS = ("silent", "death", "incident", "group")
DELIVERED_KINDS = ("silent", "incident", "group")  # by default: the message of an incident names the deaths
KEPT_EVERY = 0.25  # thresholds: how often the position is written for the contact alone
LONGEST_OUTAGE_PAUSE = 30.0  # seconds between two looks while the database is away
LISTEN_AGAIN = 30.0  # seconds until the next attempt to listen
_PASSING = (DatabaseUnreachableError, ConflictError, TookTooLongError)


@dataclass(frozen=True, slots=True, kw_only=True)
class WatchTerms:
    """What a watch reports, and to whom."""

    kinds: tuple[str, ...] = ()  # none: all are printed, and DELIVERED_KINDS delivered
    choice: Choice = field(default_factory=Choice)
    since: datetime | None = None  # where a first start begins; None is now
    threshold: float = ALIVE_THRESHOLD  # seconds of silence from which on a process is reported
    interval: float = 1.0  # seconds between two looks
    cooldown: float = 600.0  # seconds
    programs: Sequence[Target] = ()  # get every message
    webhooks: Sequence[Target] = ()  # get one message, and the later ones counted

    def prints(self, kind: str) -> bool:
        """Whether messages of this kind are printed."""
        return kind in (self.kinds or KINDS)

    def delivers(self, kind: str) -> bool:
        """Whether messages of this kind are delivered."""
        return kind in (self.kinds or DELIVERED_KINDS)


class Watch:
    """One watch on one database. ``report`` prints a message, and returns when it is out; ``say`` is for people."""

    def __init__(
        self, database: Database, file: PositionFile, terms: WatchTerms, report: Callable[[Message], None], say: Say
    ) -> None:
        self._database = database
        self._file = file
        self._terms = terms
        self._report = report
        self._say = say
        self._reader = Reader()
        self._recent = RecentDeaths()
        self._refused = False  # whether the line that no process can be called silent was printed
        self._wake = threading.Event()
        self._stopped = threading.Event()
        self._position = self._begin()
        self._contact_kept = self._position.contact
        self._name = database.place().name
        self._deliveries = Deliveries([*terms.programs, *terms.webhooks], self._position, file, say)

    def _begin(self) -> Position:
        """Return the position of the file, else that of a watch that begins; written at once: a restart goes on here.

        Raises UsageError if the file is of another database.
        """
        identity = str(self._database.identity())
        position = self._file.load(identity)
        if position is None:
            with self._database.read() as connection:
                position = self._reader.begin(connection, identity, self._terms.since)
            self._file.save(position)
        return position

    def run(self) -> None:
        """Watch until KeyboardInterrupt; a database that is away is waited for."""
        self._deliveries.start()
        if self._database.url.get_backend_name() == "postgresql" and not self._database.read_only:
            threading.Thread(target=self._listen, name="jq-listen", daemon=True).start()
        try:
            failures = 0
            while True:
                try:
                    more = self._look(self._save_if_possible)
                except _PASSING as error:
                    if not failures:
                        self._say(f"{error}; the watch goes on when the database is back")
                    failures += 1
                    longest = min(LONGEST_OUTAGE_PAUSE, self._terms.interval * 2.0 ** min(failures, 10))
                    self._wait(longest * random.uniform(0.5, 1))  # noqa: S311
                    continue
                if failures:
                    self._say("the database is back")
                    failures = 0
                if not more:
                    self._wait(self._terms.interval)
        finally:
            self._stopped.set()
            self._deliveries.stop()

    def run_once(self, finish: Callable[[], None] | None = None) -> tuple[int, int]:
        """Tell and deliver what is new since the position; return how many messages are left, and how many dropped.

        ``finish`` prints what was reported, where that is one list: the position is kept afterwards.
        """
        save = partial(self._file.save, self._position)
        while self._look(save if finish is None else None):
            pass
        if finish is not None:
            finish()
        save()
        left = self._deliveries.deliver_now()
        return left, self._deliveries.dropped

    def _wait(self, seconds: float) -> None:
        self._wake.wait(seconds)
        self._wake.clear()

    def _save_if_possible(self) -> None:
        self._file.save_if_possible(self._position, self._say)

    def _look(self, save: Callable[[], None] | None) -> bool:
        """Read what is new, report it, save the position before it is delivered; return whether there may be more."""
        draft = self._position.draft()
        with self._database.read() as connection:
            at = clock(connection)
            news = self._reader.read(connection, draft, at.timestamp())
            if news.restarts:
                self._recent.forget()
            events = find_events(connection, news, draft, self._terms.choice, self._recent, at.timestamp())
            silences = self._silences(connection, draft, at)  # last: a death that was reported is no silence any more
        for words in news.restarts:
            self._say(words)
        now = time.time()
        deliveries = [(message, self._terms.webhooks) for message in self._ended(draft, now)]
        for event in (*silences, *events):
            deliveries += self._messages(event, draft, now)
        with self._file.lock:
            changed = self._must_be_kept(draft)
            for message, targets in deliveries:
                self._deliveries.add(message, targets)
            self._position.take(draft)  # after them: a SIGTERM in between repeats messages, and loses none
            if save is not None and (events or deliveries or changed or self._file.unsaved):
                self._contact_kept = draft.contact
                save()
        return news.more

    def _silences(self, connection: Connection, draft: Position, now: datetime) -> list[SilenceNews]:
        """Return the silences to report; those of no job that is chosen count as reported."""
        if not self._terms.prints("silent"):
            return []
        threshold = self._terms.threshold
        silences = find_silences(connection, draft, threshold, now, self._terms.since)
        if silences.refusal is not None and not self._refused:
            self._say(f"no process can be called silent: {silences.refusal}")
        self._refused = silences.refusal is not None or (self._refused and not silences.groups)
        for group in silences.groups:
            mark(draft, group, None)
        return silence_events(connection, silences.groups, self._terms.choice, threshold)

    def _must_be_kept(self, draft: Position) -> bool:
        """Whether the position has changed so that it must be written, but for messages and what events remember."""
        written, contact = self._contact_kept, draft.contact
        if contact is not None and (
            written is None or not 0 <= contact.until - written.until < KEPT_EVERY * self._terms.threshold
        ):
            return True
        position = self._position
        return (position.deaths, position.failures, position.cooldowns, position.silences) != (
            *(draft.deaths, draft.failures, draft.cooldowns, draft.silences),
        )

    def _messages(self, event: Event, draft: Position, now: float) -> Iterator[tuple[Message, Sequence[Target]]]:
        """Print an event; yield each message that is to be delivered, with its targets."""
        first = is_first(event)
        for message in messages_of(event, self._name):
            kind = message["kind"]
            if isinstance(event, SilenceNews):
                mark(draft, event.group, message["id"])
            if first and self._terms.prints(kind):
                self._report(message)
            if not self._terms.delivers(kind):
                continue
            if first and self._terms.programs:
                yield message, self._terms.programs
            if self._terms.webhooks and cooldowns.admit(
                draft.cooldowns, message, first=first, seconds=self._terms.cooldown, now=now
            ):
                yield message, self._terms.webhooks

    def _ended(self, draft: Position, now: float) -> Iterator[Message]:
        for key, cooldown in cooldowns.ended(draft.cooldowns, seconds=self._terms.cooldown, now=now):
            yield summary_of(key, cooldown, self._name, now)

    def _listen(self) -> None:
        """Look at once when a death is recorded; without notices, polling finds it."""
        while True:
            try:
                for _ in notices.listen(self._database, notices.DEATHS):
                    self._wake.set()
            except _PASSING:
                if self._stopped.wait(LISTEN_AGAIN):
                    return
            except DatabaseError:  # a role that may not, a standby
                return
            else:
                return
