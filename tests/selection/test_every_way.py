"""Every command that takes failed jobs, by every way to choose them: the same set of jobs on every database."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import select, update
from sqlalchemy.engine import URL

from solidjq import Database, NewJob
from solidjq.database import tables
from solidjq.database.tables import failed, jobs
from solidjq.database.urls import url_text
from solidjq.diff.signatures import signature_of
from solidjq.rails.error_text import error_json
from support.commands import run
from support.databases import DATABASES
from support.deaths import die
from support.program import Shell, assert_refused
from support.queue import add_jobs, fail, rows

TIMEOUT = error_json("Net::ReadTimeout", "no answer")
OTHER = error_json("KeyError", "no such key")
GROUP = signature_of(TIMEOUT).name
IDS = [f"{start}-4c0e-9d56-2f7c2f6d5a17" for start in ("0b8e9c1a-0f6a", "0b8e9c1a-77aa", "1b8e", "2b8e", "3b8e")]

# Beside these, jobs show takes names in any state, and apply, undo and recover take no jobs.
COMMANDS = (
    "failed list",
    "failed show",
    "failed diff",
    "history",
    "retry --dry-run",
    "retry --safe --include-errors --dry-run",
    "discard --dry-run",
)


class Scene:
    """Two jobs of a death, two of a timeout, of which one failed yesterday, and one of another error."""

    def __init__(self, database: Database) -> None:
        add_jobs(
            database,
            NewJob(class_name="Mail", queue_name="mail", args=["Ünïcode <b>", {"executions": 7}]),
            NewJob(class_name="Report", queue_name="reports", args=["gid://shop/Order/77"]),
        )
        self.died = die(database, hostname="worker-1.ams", silent=3000)
        self.timeouts = fail(
            database,
            NewJob(class_name="Mail", queue_name="mail", args=["gid://shop/Order/7"]),
            NewJob(class_name="Import", queue_name="imports", args=[12, "en"]),
            error=TIMEOUT,
        )
        self.other = fail(database, NewJob(class_name="Mail", queue_name="urgent_mail"), error=OTHER)
        self.all = [*self.died, *self.timeouts, *self.other]
        self.old = self.timeouts[:1]
        (self.incident,) = (f"d{row['id']}" for row in rows(database, tables.deaths))
        yesterday = datetime.now(UTC).replace(hour=12, minute=0, second=0, microsecond=0) - timedelta(days=1)
        with database.write() as connection:
            for job_id, active_job_id in zip(self.all, IDS, strict=True):
                connection.execute(update(jobs).where(jobs.c.id == job_id).values(active_job_id=active_job_id))
            connection.execute(update(failed).where(failed.c.job_id.in_(self.old)).values(created_at=yesterday))


Case = tuple[Callable[[Scene], list[str]], Callable[[Scene], list[int]]]
CASES: dict[str, Case] = {
    "job ids": (lambda s: list(map(str, s.all[1:4])), lambda s: s.all[1:4]),
    "an Active Job id": (lambda _: [IDS[0], IDS[2], IDS[3]], lambda s: [s.all[n] for n in (0, 2, 3)]),
    "the beginning of one": (lambda _: [IDS[0][:10], "2B8E-4c", "3b8e"], lambda s: [s.all[n] for n in (0, 3, 4)]),
    "an incident": (lambda s: [s.incident], lambda s: s.died),
    "a group": (lambda _: ["--group", GROUP], lambda s: s.timeouts),
    "an incident by option": (lambda s: ["--incident", s.incident], lambda s: s.died),
    "a host": (lambda _: ["--host", "worker-1*"], lambda s: s.died),
    "classes": (lambda _: ["--class", "Rep*", "--class", "Import"], lambda s: [s.died[1], s.timeouts[1]]),
    "not a class": (lambda _: ["--not-class", "Mail"], lambda s: [s.died[1], s.timeouts[1]]),
    "not classes": (lambda _: ["--not-class", "Rep*", "--not-class", "Import"], lambda s: s.all[::2]),
    "a queue": (lambda _: ["--queue", "mail"], lambda s: [s.died[0], s.timeouts[0]]),
    "an argument": (lambda _: ["--argument", "shop/order/7"], lambda s: [s.died[1], s.timeouts[0]]),
    "an argument in Unicode": (lambda _: ["--argument", "ïcode <b>"], lambda s: [s.died[0]]),
    "an argument that is a key": (lambda _: ["--argument", "executions"], lambda s: [s.died[0]]),
    "no argument, but a locale": (lambda _: ["--argument", '"en"'], lambda s: [s.timeouts[1]]),
    "since yesterday": (lambda _: ["--since", "yesterday"], lambda s: s.all),
    "of yesterday": (lambda _: ["--since", "yesterday", "--until", "today"], lambda s: s.old),
    "yesterday's noon": (lambda _: ["--since", "yesterday 12:00", "--until", "yesterday 12:01"], lambda s: s.old),
    "the last hours": (lambda _: ["--since", "1h30m"], lambda s: [id_ for id_ in s.all if id_ not in s.old]),
    "deaths": (lambda _: ["--died"], lambda s: s.died),
    "an error": (lambda _: ["--error", "no such KEY"], lambda s: s.other),
    "names and a filter": (lambda s: [s.incident, GROUP, str(s.other[0]), "--class", "Mail"], lambda s: s.all[::2]),
    "all terms": (
        lambda s: ["--incident", s.incident, "--argument", "77", "--queue", "rep*", "--since", "2h ago"],
        lambda s: [s.died[1]],
    ),
}


def test_the_same_choice_means_the_same_jobs_in_every_command(
    database: Database, queue_url: URL, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each command with each choice on SQLite; on the others each choice, with two of the commands in turn."""
    scene = Scene(database)
    here = ["--database", url_text(queue_url), "-o", "ids"]
    wrong = []
    for number, (case, (options_of, expected_of)) in enumerate(CASES.items()):
        options, expected = options_of(scene), sorted(expected_of(scene))
        turn = DATABASES.index(kind) + 2 * number
        for command in COMMANDS if kind == "sqlite" else (COMMANDS[at % len(COMMANDS)] for at in (turn, turn + 1)):
            code = run([*command.split(), *options, *here])
            printed = capsys.readouterr()
            chosen = sorted({int(line) for line in printed.out.split()})
            if (code, chosen) != (0, expected):
                wrong.append((case, command, expected, chosen, code, printed.err))
    assert wrong == []


def test_names_come_from_standard_input_too(database: Database, shell: Shell) -> None:
    scene = Scene(database)
    for command in COMMANDS:
        done = shell.run(*command.split(), "-", "-o", "ids", stdin=f"{scene.incident}\n{IDS[2]} {scene.all[4]}\n")
        assert sorted({int(line) for line in done.stdout.split()}) == sorted([*scene.died, *scene.all[2:5:2]]), command


@pytest.mark.sqlite_only
@pytest.mark.parametrize("command", COMMANDS)
def test_a_beginning_of_several_ids_and_an_end_before_the_beginning_are_refused(
    database: Database, shell: Shell, command: str
) -> None:
    Scene(database)
    assert_refused(shell.run(*command.split(), IDS[0][:8]), 2, IDS[0][:8], IDS[0], IDS[1], "several")
    assert_refused(shell.run(*command.split(), "--since", "1h", "--until", "2h"), 2, "--until", "--since")


def test_a_beginning_means_one_job_after_it_was_discarded_too(database: Database, shell: Shell) -> None:
    scene = Scene(database)
    with database.write() as connection:
        connection.execute(update(jobs).where(jobs.c.id == scene.all[0]).values(active_job_id="feed0000-0f6a"))
    assert shell.run("discard", "feed").returncode == 0
    with database.read() as connection:
        assert connection.scalar(select(jobs.c.id).where(jobs.c.id == scene.all[0])) is None
    done = shell.run("history", "FEED", "-o", "ids")
    assert (done.returncode, set(done.stdout.split())) == (0, {str(scene.all[0])})
    assert shell.run("retry", "feed", "-o", "ids").returncode == 4


def test_a_number_is_never_the_beginning_of_an_active_job_id(database: Database, shell: Shell) -> None:
    scene = Scene(database)
    with database.write() as connection:
        connection.execute(update(jobs).where(jobs.c.id == scene.all[0]).values(active_job_id="12345678-0f6a"))
    done = shell.run("retry", "12345678", "-o", "ids")
    assert (done.returncode, done.stdout, "jq: no job 12345678\n" in done.stderr) == (4, "", True)
    assert shell.run("retry", "12345678-", "-o", "ids").stdout.split() == [str(scene.all[0])]


def test_a_class_left_out_that_no_job_has_is_named_before_anything_moves(database: Database, shell: Shell) -> None:
    Scene(database)
    for command in ("failed list", "retry --dry-run", "discard --dry-run"):
        done = shell.run(*command.split(), "--not-class", "Repotr", "-o", "ids")
        assert len(done.stdout.split()) == 5
        assert "jq: no job of class Repotr; did you mean Report?\n" in done.stderr


def test_terms_that_match_nothing_are_explained(database: Database, shell: Shell) -> None:
    Scene(database)
    done = shell.run("failed", "list", "--argument", "no such text", "-o", "ids")
    assert done.stderr == "jq: --argument 'no such text' matches none of the 5 failed jobs\n"
    done = shell.run("failed", "list", "--argument", "order", "--not-class", "Mail", "--queue", "imports", "-o", "ids")
    assert "without --argument 'order': 1" in done.stderr
    assert "without --queue imports: 1" in done.stderr


@pytest.mark.parametrize(
    ("line", "by"),
    [
        ("failed list --after 5", "--page-after 5"),
        ("operations list --before 5", "--page-after 5"),
        ("operations verify --after 5", "--cleared-to 5"),
    ],
)
@pytest.mark.sqlite_only
def test_an_option_that_was_renamed_names_the_new_one(database: Database, shell: Shell, line: str, by: str) -> None:
    assert database
    assert_refused(shell.run(*line.split()), 2, by)
