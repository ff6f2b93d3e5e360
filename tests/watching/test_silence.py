"""Processes that fall silent are told before anybody prunes them: once, a host at a time, and never for an outage."""

import json
import re
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import insert
from sqlalchemy.engine import URL

from solidjq import Database, NewJob
from solidjq.database.tables import failed
from solidjq.database.times import utcnow
from solidjq.processes import heartbeat, pruning
from solidjq.rails.error_text import exit_error, pruned_error
from solidjq.watching import silence as silences
from solidjq.watching.events import Choice
from solidjq.watching.position import Contact
from solidjq.watching.position_file import PositionFile
from solidjq.watching.silence import contact_after
from solidjq.watching.watch import Watch, WatchTerms
from solidjq.watching.webhooks import Webhook
from support.processes import silence
from support.program import Shell
from support.queue import add_jobs, claim_all, plain_jobs
from support.receiver import Receiver
from support.standbys import follow

Message = dict[str, Any]


@dataclass
class Watcher:
    """A watch that is started anew for each look, with a threshold of 300 s; time passes in its file."""

    database: Database
    path: Path
    said: list[str] = field(default_factory=list)

    def look(self, **terms: Any) -> list[Message]:
        told: list[Message] = []
        Watch(self.database, PositionFile(self.path), WatchTerms(**terms), told.append, self.said.append).run_once()
        return told

    def edit(self, change: Callable[[dict[str, Any]], object]) -> None:
        data = json.loads(self.path.read_text())
        change(data)
        self.path.write_text(json.dumps(data))

    def been_in_contact(self, seconds: float = 1000, *, until: float = 0) -> None:
        now = self.database.now().timestamp()
        self.edit(lambda data: data.update(contact={"since": now - seconds, "until": now - until}))


@pytest.fixture(autouse=True)
def _long_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tests' servers have just started, of which ``test_a_server_that_has_just_started`` is."""
    monkeypatch.setattr(silences, "up_since", lambda _: None)


@pytest.fixture
def watcher(database: Database, tmp_path: Path) -> Watcher:
    found = Watcher(database, tmp_path / "position.json")
    assert found.look() == []
    found.been_in_contact()
    return found


def add(database: Database, hostname: str, *, kind: str = "Worker", silent: float = 0, pid: int = 4242) -> int:
    process = database.transact(
        heartbeat.register, kind=kind, name=f"{kind.lower()}-{uuid.uuid4()}", pid=pid, hostname=hostname, metadata={}
    )
    silence(database, process, silent)
    return process


def lose(database: Database, hostname: str) -> list[int]:
    """Add a host with a supervisor and two workers, one of which holds two jobs, all killed at once."""
    first = add(database, hostname, kind="Supervisor(fork)", silent=400)
    worker = add(database, hostname, pid=77)
    claim_all(database, worker)
    silence(database, worker, 200)  # its last heartbeat was later
    return [first, worker, add(database, hostname, silent=250)]


def test_a_lost_host_is_one_message_and_its_deaths_refer_to_it(database: Database, watcher: Watcher) -> None:
    add(database, "web-1")
    mail, report = add_jobs(
        database, NewJob(class_name="MailJob", args=["secret argument"]), NewJob(class_name="ReportJob")
    )
    lost = lose(database, "web-3")
    (message,) = watcher.look()
    assert (message["kind"], message["name"], message["hosts"]) == ("silent", "web-3", ["web-3"])
    assert [process["process_id"] for process in message["processes"]] == [lost[0], lost[2], lost[1]]
    title = re.sub(r"\d+ to \d+ s", "N s", message["title"])
    assert title == "web-3: all 3 processes have been silent for N s; claimed there: 2 jobs, MailJob 1, ReportJob 1"
    assert [job["job_id"] for job in message["jobs"]] == [mail, report]
    assert message["next"] == ["solidjq processes list", "solidjq prune --dry-run"]
    assert "secret argument" not in json.dumps(message)
    assert watcher.look() == []  # the others reach the threshold
    list(pruning.prune(database, 150))
    told = watcher.look()
    assert {one["kind"] for one in told} == {"death", "incident"}
    assert {one["follows"] for one in told} == {message["id"]}
    names = {process["process_name"] for process in message["processes"]}
    assert {death["process_name"] for one in told for death in one["deaths"]} == names
    assert watcher.look() == []


def test_one_that_beats_again_is_told_when_it_is_silent_again(database: Database, watcher: Watcher) -> None:
    hung = add(database, "web-1", silent=350, pid=71)
    add(database, "web-1")
    (first,) = watcher.look()
    assert first["title"].startswith("Worker pid 71 on web-1 has been silent for ")
    silence(database, hung, 1)
    assert watcher.look() == []
    silence(database, hung, 400)
    (second,) = watcher.look()
    assert (second["name"], first["id"] == second["id"]) == ("web-1", False)
    assert watcher.look() == []


def test_most_of_a_fleet_is_one_message(database: Database, watcher: Watcher) -> None:
    for number in range(4):
        add(database, f"web-{number}", silent=350 - 50 * number)
    add(database, "web-9")
    (message,) = watcher.look()
    assert message["hosts"] == ["web-0", "web-1", "web-2", "web-3"]
    assert message["title"].startswith("4 of 5 processes, on 4 hosts, have been silent for ")
    assert "rather cut off from the database than dead" in message["title"]
    assert watcher.look() == []


def test_two_hosts_of_many_are_two_messages(database: Database, watcher: Watcher) -> None:
    for number in range(6):
        add(database, f"web-{number}", silent=350 if number < 2 else 0)
    assert [message["name"] for message in watcher.look()] == ["web-0", "web-1"]


def test_an_outage_is_no_silence(database: Database, watcher: Watcher) -> None:
    """Live processes have half a threshold to beat again; those that do not are told then, though cron looks seldom."""
    watcher.been_in_contact(until=151)
    dead, cut_off = (add(database, host, silent=400) for host in ("web-1", "web-2"))
    for _ in range(3):
        add(database, "web-9")
    assert watcher.look() == []
    silence(database, cut_off, 1)
    assert watcher.look() == []
    watcher.edit(lambda data: data["silences"][str(dead)].update(seen_at=data["silences"][str(dead)]["seen_at"] - 150))
    assert [message["name"] for message in watcher.look()] == ["web-1"]
    late = add(database, "web-3", silent=400)
    watcher.been_in_contact(151)
    assert [one["process_id"] for message in watcher.look() for one in message["processes"]] == [late]


def test_an_outage_within_the_look_itself_is_no_silence(
    database: Database, watcher: Watcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The machine slept, or the network was away, after the look had begun and before it read the processes."""
    add(database, "web-1", silent=400)
    real = silences.clock
    with monkeypatch.context() as patch:
        patch.setattr(silences, "clock", lambda connection: real(connection) + timedelta(seconds=151))
        assert watcher.look() == []
    watcher.been_in_contact(90)
    assert watcher.look() == []
    watcher.been_in_contact(151)
    assert len(watcher.look()) == 1


def test_heartbeats_of_a_host_whose_clock_is_behind_are_told_once(database: Database, watcher: Watcher) -> None:
    """Each is a threshold old when it comes, so none of them ends the silence that was told."""
    behind = add(database, "web-1", silent=400)
    add(database, "web-9")
    (message,) = watcher.look()
    for seconds in (390, 380):
        silence(database, behind, seconds)
        assert watcher.look() == []
    list(pruning.prune(database, 150))
    assert {one["follows"] for one in watcher.look()} == {message["id"]}


def test_a_process_without_a_host_has_the_name_of_its_row(database: Database, watcher: Watcher) -> None:
    add(database, "", silent=400)
    (message,) = watcher.look()
    assert message["hosts"] == []
    assert message["name"].startswith("worker-")
    assert message["title"].startswith("Worker pid 4242 has been silent")


def test_contact() -> None:
    assert contact_after(None, 100, 150) == Contact(100, 100)
    assert contact_after(Contact(0, 100), 250, 150) == Contact(0, 250)
    assert contact_after(Contact(0, 100), 251, 150) == Contact(251, 251)  # an outage, or a clock set forward
    assert contact_after(Contact(0, 100), 96, 150) == Contact(0, 96)
    assert contact_after(Contact(0, 100), 40, 150) == Contact(40, 40)  # set back


def test_a_server_that_has_just_started(database: Database, watcher: Watcher, monkeypatch: pytest.MonkeyPatch) -> None:
    add(database, "web-1", silent=400)
    started = [database.now() - timedelta(seconds=200)]
    monkeypatch.setattr(silences, "up_since", lambda _: started[0])
    assert watcher.look() == []
    started[0] -= timedelta(seconds=200)
    assert len(watcher.look()) == 1


def test_what_a_first_start_finds_is_not_told(database: Database, tmp_path: Path) -> None:
    """As with deaths: it begins now, or with ``since``. So does the first start with a position of an older version."""
    add(database, "web-1", silent=1000)

    def begun(name: str, **terms: Any) -> Watcher:
        watcher = Watcher(database, tmp_path / name)
        assert watcher.look(**terms) == []  # it has to be in contact first
        watcher.been_in_contact()
        return watcher

    now = database.now()
    assert begun("now").look() == []
    assert begun("late", since=now - timedelta(seconds=600)).look() == []
    assert len(begun("early", since=now - timedelta(seconds=800)).look()) == 1
    old = begun("old")
    old.edit(lambda data: (data.pop("contact"), data.pop("silences"), [data[x].pop("high_at") for x in _WINDOWS]))
    assert old.look() == []
    old.been_in_contact()
    add(database, "web-2", silent=400)
    add(database, "web-9")
    assert [message["name"] for message in old.look()] == ["web-2"]


_WINDOWS = ("deaths", "failures")


def test_only_what_is_chosen(database: Database, watcher: Watcher) -> None:
    add_jobs(database, NewJob(class_name="MailJob"), NewJob(class_name="ReportJob"))
    lose(database, "web-3")
    for number in range(4):
        add(database, f"web-{number + 4}")
    add(database, "web-5", silent=400)
    (message,) = watcher.look(choice=Choice(classes=("Mail*",)))
    assert (message["name"], message["classes"]) == ("web-3", {"MailJob": 1})
    assert watcher.look() == []
    add(database, "web-6", silent=400)
    assert watcher.look(kinds=("death", "incident")) == []


def test_a_child_whose_death_rails_has_noticed(database: Database, watcher: Watcher) -> None:
    """Its jobs have failed, and that was told; Rails leaves its row until it is pruned."""
    (job,) = add_jobs(database, *plain_jobs(1))
    worker = add(database, "web-1", pid=71)
    add(database, "web-1", kind="Supervisor(fork)")
    with database.write() as connection:
        connection.execute(insert(failed).values(job_id=job, error=exit_error(71, -9), created_at=utcnow()))
    assert [message["kind"] for message in watcher.look()] == ["death", "incident"]
    silence(database, worker, 301)
    assert watcher.look() == []


def test_a_prune_by_rails_refers_to_it(database: Database, watcher: Watcher) -> None:
    """Rails deletes the row and leaves the second of the last heartbeat in the error."""
    (job,) = add_jobs(database, *plain_jobs(1))
    worker = add(database, "web-1", silent=400)
    (message,) = watcher.look()
    with database.write() as connection:
        (found,) = heartbeat.list_processes(connection)
        assert found.last_heartbeat_at is not None
        error = pruned_error(found.last_heartbeat_at)
        heartbeat.deregister(connection, worker)
        connection.execute(insert(failed).values(job_id=job, error=error, created_at=utcnow()))
    assert [(one["kind"], one["follows"]) for one in watcher.look()] == [
        ("death", message["id"]),
        ("incident", message["id"]),
    ]


def test_each_host_is_posted_once_within_a_cooldown(database: Database, watcher: Watcher, receiver: Receiver) -> None:
    hook = Webhook(receiver.url)
    hung = add(database, "web-1", silent=400)
    for number in range(6):
        add(database, f"web-{number + 4}")
    watcher.look(webhooks=[hook])
    silence(database, hung, 1)
    assert watcher.look(webhooks=[hook]) == []
    silence(database, hung, 400)
    add(database, "web-2", silent=400)
    assert [message["name"] for message in watcher.look(webhooks=[hook])] == ["web-1", "web-2"]
    assert [message["name"] for message in receiver.messages] == ["web-1", "web-2"]
    held = watcher.look(webhooks=[hook], cooldown=0.001)
    assert (held, receiver.messages[-1]["held_back"]) == ([], 1)


def test_as_many_other_hosts_within_a_cooldown_are_posted(
    database: Database, watcher: Watcher, receiver: Receiver
) -> None:
    """Both messages are named after the number of hosts; what is alike is the same hosts."""
    hook = Webhook(receiver.url)
    for host in ("web-1", "web-2"):
        add(database, host, silent=400)
    assert [message["name"] for message in watcher.look(webhooks=[hook])] == ["2 hosts"]
    list(pruning.prune(database, 150))
    for host in ("web-3", "web-4"):
        add(database, host, silent=400)
    watcher.look(webhooks=[hook], kinds=("silent",))
    assert [message["hosts"] for message in receiver.messages if message["kind"] == "silent"] == [
        ["web-1", "web-2"],
        ["web-3", "web-4"],
    ]


@pytest.mark.only_on("postgresql")
def test_on_a_standby_no_process_is_called_silent(
    database: Database, queue_url: URL, standby_url: URL, shell: Shell
) -> None:
    opened = Database(standby_url)
    standby = Watcher(opened, shell.folder / "position.json")
    assert standby.look() == []
    standby.been_in_contact()
    add(database, "web-1", silent=400)
    follow(queue_url, standby_url)
    assert standby.look() == []
    opened.close()
    (words,) = standby.said
    assert "no process can be called silent: this is a standby" in words
