"""Which processes have fallen silent and are to be reported, before anybody prunes them.

A lost host is a supervisor and its children killed at once: nobody is left there that would say so, and their deaths
are recorded only when another host prunes. Their heartbeats show it an alive threshold after the last of them.

Silent is not dead. What a silence of this kind cannot be taken for is an outage of the watch or its database:

- On a standby nobody is called silent, nor where heartbeats are local time, nor before a threshold has passed since the
  database came up: as for a prune (``processes.prune_guard``).
- After a gap in the watch's own contact, such as an outage, a jump of the database's clock or a start, live processes
  have half a threshold to beat again. All times are the database's, so a jump of this host's clock is no gap.
- A process that was seen silent half a threshold ago needs no contact in between: so ``--once`` reports it where cron
  runs it seldom.
- A heartbeat that is already a threshold old when it comes ends no silence: its host's clock is behind, and each beat
  would be reported anew.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import Connection, select

from solidjq.database.standby import find_standby
from solidjq.database.tables import processes
from solidjq.database.times import clock, up_since
from solidjq.incidents.death_records import DeathRecord
from solidjq.processes.heartbeat import AHEAD, Process, list_processes, silent
from solidjq.processes.prune_guard import FLEET, PAUSE, ProcessRow, is_young, judge_zone
from solidjq.watching.position import Contact, Position, Silence

LATE = 5.0  # seconds: clocks that are set may go back by so much
LONGEST = 1e9  # seconds, of a process whose row has no time at all
REMEMBERED_FOR = 3600.0  # seconds, of processes that were silent: their deaths may be noticed so much later


@dataclass(frozen=True, slots=True)
class SilentGroup:
    """Processes that fell silent together, those of one host. ``fleet``: of several hosts, most of all processes."""

    processes: tuple[Process, ...]  # the one that has been silent for the longest first
    others: int  # processes of these hosts, or of the whole fleet, that are not in the group
    fleet: bool = False

    @property
    def hosts(self) -> list[str]:
        """The hosts, sorted; without processes whose row names none."""
        return sorted({process.hostname for process in self.processes if process.hostname})


@dataclass(frozen=True, slots=True)
class Silences:
    """What one look found. ``refusal``: why no process can be called silent here, in words."""

    groups: Sequence[SilentGroup] = ()
    refusal: str | None = None


def find_silences(
    connection: Connection, position: Position, threshold: float, now: datetime, since: datetime | None
) -> Silences:
    """Return the processes whose silence is to be reported, in groups; the position moves on, none counts as reported.

    ``since``: what a first start reports of the silences that are there already: those that reached the threshold then
    or later; None is none of them.
    """
    before, pause = position.contact, PAUSE * threshold
    position.contact = contact_after(before, now.timestamp(), pause)
    columns = processes.c.id, processes.c.last_heartbeat_at
    beats = {
        str(row.id): _seconds(row.last_heartbeat_at)
        for row in connection.execute(select(*columns).where(silent(threshold)))
    }
    if before is not None:
        _follow_late_beats(position.silences, beats, before.until - threshold)
    _forget(position.silences, beats, now.timestamp())
    if all(_is_reported(position.silences.get(key), beat) for key, beat in beats.items()):
        return Silences()
    fleet = list_processes(connection)
    dead = [process for process in fleet if _silence(process) >= threshold]
    if before is None:
        for process in dead:
            if since is None or now - timedelta(seconds=_silence(process) - threshold) < since:
                _mark(position, process, None)
    fresh = [process for process in dead if not _is_reported(position.silences.get(str(process.id)), beat_of(process))]
    if not fresh:
        return Silences()
    now = clock(connection)  # whatever was away during this look itself, or asleep, counts as a gap in the contact
    at = now.timestamp()
    position.contact = contact_after(position.contact, at, pause)
    if (refusal := _refusal(connection, fleet, threshold, now)) is not None:
        position.contact = Contact(at, at)
        return Silences(refusal=refusal)
    if is_young(up_since(connection), timedelta(seconds=threshold), now):
        return Silences()
    return Silences(groups=list(_groups_to_report(fleet, fresh, position, threshold, now)))


def contact_after(contact: Contact | None, now: float, pause: float) -> Contact:
    """Return the contact with a look at ``now`` that succeeded; it begins anew after a gap of over ``pause`` seconds.

    ``pause`` is half a threshold: a process that beats twice within a threshold, and as soon as an outage is over, is
    not silent for a threshold by a shorter one.
    """
    if contact is None or not -LATE <= now - contact.until <= pause:
        return Contact(now, now)
    return Contact(contact.since, now)


def mark(position: Position, group: SilentGroup, message: str | None) -> None:
    """Remember that a group's silence was reported, by the message of this id; None if there was none."""
    for process in group.processes:
        _mark(position, process, message)


def _mark(position: Position, process: Process, message: str | None) -> None:
    position.silences[str(process.id)] = Silence(beat_of(process), told=True, message=message)


def beat_of(process: Process) -> float | None:
    """Return a process's last heartbeat in seconds since 1970; None if it is no time."""
    return _seconds(process.last_heartbeat_at)


def reporting_message(position: Position, death: DeathRecord) -> str | None:
    """Return the id of the message that reported the silence which a death ended; None if none did.

    Of a death that nobody recorded only the second of its last heartbeat is known: it counts if one process had it.
    """
    beat = death.last_heartbeat_at
    if beat is None:
        return None
    second = int(beat.timestamp())
    silences = position.silences
    candidates = list(silences.values()) if death.process_id is None else [silences.get(str(death.process_id))]
    messages = {
        one.message for one in candidates if one is not None and one.beat is not None and int(one.beat) == second
    }
    return messages.pop() if len(messages) == 1 else None


def group_silent(
    fleet: Sequence[Process], fresh: Sequence[Process], silences: Mapping[str, Silence], threshold: float
) -> list[SilentGroup]:
    """Return the groups to report, of the processes that have just been silent for a threshold.

    Those of the same host are reported with them that have not beaten for half a threshold: a threshold is at least two
    heartbeats, so these fell silent together, and reach it within the next one.
    """
    late = [
        process
        for process in fleet
        if _silence(process) >= PAUSE * threshold and not _is_reported(silences.get(str(process.id)), beat_of(process))
    ]
    recent = [process for process in fleet if _silence(process) < 2 * threshold]
    together = [process for process in late if _silence(process) < 2 * threshold]
    if len({process.hostname for process in together}) >= FLEET and 2 * len(together) > len(recent):
        return [SilentGroup(_longest_first(late), len(fleet) - len(late), fleet=True)]
    by_place: dict[str, list[Process]] = defaultdict(list)
    for process in late:
        by_place[_place(process)].append(process)
    everywhere = [_place(process) for process in fleet]
    return [
        SilentGroup(_longest_first(members), everywhere.count(place) - len(members))
        for place, members in by_place.items()
        if any(process in fresh for process in members)
    ]


def _groups_to_report(
    fleet: Sequence[Process], fresh: Sequence[Process], position: Position, threshold: float, now: datetime
) -> Iterator[SilentGroup]:
    """Yield the groups to report now; remember what is not sure yet, and leave out what was reported as a death."""
    at, pause = now.timestamp(), PAUSE * threshold
    in_contact = position.contact is not None and at - position.contact.since >= pause
    sure = []
    for process in fresh:
        silence = position.silences.get(str(process.id))
        if silence is None or silence.beat != beat_of(process):
            silence = position.silences[str(process.id)] = Silence(beat_of(process), seen_at=at)
        if _died_before(process, position):
            _mark(position, process, None)
        elif at - (silence.seen_at or at) >= pause or (in_contact and _makes_sense(process, now)):
            sure.append(process)
    if sure:
        yield from group_silent(fleet, sure, position.silences, threshold)


def _died_before(process: Process, position: Position) -> bool:
    """Whether its death was reported: Rails keeps the row of a child that it saw exit, until a prune."""
    beat = beat_of(process)
    return process.claimed == 0 and any(
        one.pid == process.pid and one.hostname in {None, process.hostname} and (beat is None or one.first_at >= beat)
        for one in position.remembered
    )


def _refusal(connection: Connection, fleet: Sequence[Process], threshold: float, now: datetime) -> str | None:
    if (standby := find_standby(connection)) is not None:
        return standby.doubt
    rows = [ProcessRow(one.id, one.name, one.hostname, one.pid, one.last_heartbeat_at, one.created_at) for one in fleet]
    return judge_zone(rows, timedelta(seconds=threshold), now)


def _forget(silences: dict[str, Silence], beats: Mapping[str, float | None], now: float) -> None:
    """Note which processes are not silent, or not yet, and forget those that have not been for long."""
    for key, silence in list(silences.items()):
        if key in beats and beats[key] == silence.beat:
            silence.gone_at = None
        elif silence.gone_at is None:
            silence.gone_at = now
        elif now - silence.gone_at > REMEMBERED_FOR:
            del silences[key]


def _follow_late_beats(silences: Mapping[str, Silence], beats: Mapping[str, float | None], late: float) -> None:
    """Move reported silences on to heartbeats that have come since, of ``late`` or before: they were old on arrival."""
    for key, beat in beats.items():
        silence = silences.get(key)
        if silence is not None and silence.told and silence.gone_at is None and beat is not None and beat <= late:
            silence.beat = beat


def _is_reported(silence: Silence | None, beat: float | None) -> bool:
    return silence is not None and silence.told and silence.beat == beat


def _makes_sense(process: Process, now: datetime) -> bool:
    """Whether its heartbeat is a time that it can have written; if not, a living process overwrites it."""
    return process.last_heartbeat_at is not None and process.last_heartbeat_at <= now + AHEAD


def _silence(process: Process) -> float:
    return LONGEST if process.silence is None else process.silence


def _place(process: Process) -> str:
    return process.hostname or f"supervisor {process.supervisor_id or process.id}"


def _longest_first(processes: Sequence[Process]) -> tuple[Process, ...]:
    return tuple(sorted(processes, key=lambda process: (-_silence(process), process.id)))


def _seconds(time: datetime | None) -> float | None:
    return None if time is None else time.timestamp()
