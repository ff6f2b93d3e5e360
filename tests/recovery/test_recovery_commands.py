"""retry, discard, apply, recover, undo, operations and policy as programs: what they print and return."""

import json
import re
import signal
from pathlib import Path

import pytest
from sqlalchemy import update

from solidjq import Database, NewJob
from solidjq.database import tables
from solidjq.database.tables import claimed, failures, jobs, operations, processes, scheduled
from solidjq.database.times import ago
from solidjq.processes import pruning
from solidjq.queue import claim as queue_claim
from solidjq.queue import endings
from solidjq.queue.states import State
from solidjq.rails.error_text import exit_error
from support.deaths import die, raise_all
from support.processes import add_attendants, add_process
from support.program import Shell
from support.queue import add_jobs, claim_all, fail, plain_jobs, rows, state_of_each
from support.recovery import last_line
from support.terminal import terminal
from support.waiting import until


@pytest.fixture
def night(database: Database) -> list[int]:
    """Six jobs whose worker died, two that failed on their own."""
    add_jobs(database, *(NewJob(class_name="Broken", queue_name="imports") for _ in range(2)))
    raise_all(database)
    new = [NewJob(class_name=name, queue_name=name.lower()) for name in ("Mail", "Report") for _ in range(3)]
    ids = add_jobs(database, *new)
    die(database)
    return ids


def test_a_night(database: Database, shell: Shell, night: list[int]) -> None:
    look = shell.run("retry", "--safe", "--dry-run", "-o", "json")
    assert (look.returncode, [row["verdict"] for row in json.loads(look.stdout)]) == (0, ["retry"] * 6)
    assert look.stderr == "jq: would retry 6 jobs and hold back 0; nothing was changed\n"
    assert rows(database, operations) == []

    done = shell.run("retry", "--safe", "--class", "Mail", "--yes", "--reason", "INC-7")
    assert done.returncode == 0
    assert done.stdout.splitlines()[1].split("\t")[:4] == ["retry", "3", "Mail", "mail"]
    assert done.stderr == f"jq: retried 3 jobs: 3 ready, 0 scheduled\n{last_line(1)}\n"

    listed = json.loads(shell.run("operations", "list", "-o", "json").stdout)
    assert [(row["operation_id"], row["verb"], row["jobs"], row["reason"]) for row in listed] == [
        (1, "retry", 3, "INC-7")
    ]
    assert listed[0]["selection"] == {"deaths": ["exited", "missing", "pruned"], "classes": ["Mail"], "safe": True}
    assert listed[0]["verdicts"] == {"retry": 3}
    shown = shell.run("operations", "show", "1", "99")
    assert (shown.returncode, shown.stderr) == (6, "jq: no operation 99\n")
    assert "jq retry --safe --class Mail --yes --reason INC-7" in shown.stdout

    claim_all(database, add_process(database), 1)
    back = shell.run("undo", "1", "-o", "json")
    assert back.returncode == 6
    assert [(row["job_id"], row["restored"], row["reason"]) for row in json.loads(back.stdout)] == [
        (night[0], False, "it runs now"),
        (night[1], True, None),
        (night[2], True, None),
    ]
    assert back.stderr.splitlines() == [
        "jq: took back 2 jobs of operation 1",
        "jq: left 1 job alone: it runs now",
    ]
    again = shell.run("undo", "1")
    assert (again.returncode, again.stdout) == (6, "")
    assert shell.run("undo", "77").returncode == 4

    gone = shell.run("discard", "--queue", "imports", "--yes")
    assert (gone.returncode, gone.stderr) == (0, "jq: discarded 2 jobs\njq: to take it back: jq undo 3\n")
    assert shell.run("undo", "3").returncode == 0
    assert list(state_of_each(database).values()).count(State.FAILED) == 7


def test_a_canary_that_dies_stops_the_rest(database: Database, shell: Shell, night: list[int]) -> None:
    run = shell.start("retry", "--safe", "--canary", "2", "--wait", "50s", "--yes")
    until(lambda: list(state_of_each(database).values()).count(State.READY) == 2, "the canary is retried")
    die(database, silent=5000)
    _, told = run.communicate()
    assert run.returncode == 6
    assert "jq: canary: 2 of 2 died again; nothing else was retried" in told.splitlines()
    assert told.splitlines()[-1] == "jq: to see what became of them: jq operations show 1"  # none of them waits
    assert list(state_of_each(database).values()).count(State.FAILED) == 8
    assert len(rows(database, failures)) == 2
    assert night


@pytest.mark.parametrize(
    ("size", "jobs", "they_have", "all_have"),
    [(1, "1 job", "it has", "it has"), (2, "2 jobs", "they have", "all 2 have")],
)
def test_a_canary_that_ends_well_lets_the_rest_follow(
    database: Database, shell: Shell, night: list[int], size: int, jobs: str, they_have: str, all_have: str
) -> None:
    run = shell.start("retry", "--safe", "--canary", str(size), "--wait", "50s", "--yes", "--limit", "5")
    until(lambda: list(state_of_each(database).values()).count(State.READY) == size, "the canary is retried")
    claim_all(database, add_process(database))
    database.transact(endings.finish, claimed.c.id > 0)
    _, told = run.communicate()
    assert run.returncode == 0, told
    assert told.splitlines() == [
        f"jq: canary: retried {jobs}; waiting until {they_have} ended",
        f"jq: canary: {all_have} ended, and none died; going on",
        "jq: retried 5 jobs: 5 ready, 0 scheduled",
        last_line(1),
    ]
    states = list(state_of_each(database).values())
    assert (states.count(State.FINISHED), states.count(State.READY)) == (size, 5 - size)
    assert [row["jobs"] for row in rows(database, operations)] == [5]
    assert night


@pytest.mark.sqlite_only
def test_a_canary_that_nobody_runs_stops_too(database: Database, shell: Shell, night: list[int]) -> None:
    done = shell.run("retry", "--safe", "--canary", "1", "--wait", "0.2s", "--yes")
    assert done.returncode == 6
    assert done.stderr.splitlines()[-2:] == [
        "jq: canary: 1 of 1 has not ended yet; nothing else was retried",
        "jq: to see what became of them: jq operations show 1; to take back what still waits: jq undo 1",
    ]
    assert list(state_of_each(database).values()).count(State.READY) == 1
    assert night


def test_recover_retries_what_policy_marks_auto(database: Database, shell: Shell) -> None:
    mail, report = add_jobs(database, NewJob(class_name="Mail"), NewJob(class_name="Report"))
    claim_all(database, add_process(database))
    with database.write() as connection:
        connection.execute(update(processes).values(last_heartbeat_at=ago(1000)))
    add_attendants(database)
    shell.environment["JQ_CONFIG"] = "own.toml"
    (shell.folder / "own.toml").write_text('[classes.Mail]\nretry = "auto"\n')
    trial = shell.run("recover", "--dry-run")
    assert (trial.returncode, set(state_of_each(database).values())) == (0, {State.CLAIMED})
    assert trial.stderr.splitlines()[-1].startswith("jq: before that, it would prune 1 process and fail 2 jobs")
    done = shell.run("recover", "--reason", "cron")
    assert done.returncode == 0, done.stderr
    assert done.stderr.splitlines() == [
        "jq: policy: own.toml",
        "jq: pruned 1 process and failed 2 jobs",
        "jq: retried 1 job: 1 ready, 0 scheduled",
        "jq: left to a person, or done: 1 ask; to see them: jq failed list --died",
        last_line(2),
    ]
    assert state_of_each(database) == {mail: State.READY, report: State.FAILED}
    assert shell.run("recover", "--quiet").stderr == ""
    die(database, silent=5000)
    held = shell.run("recover", "--quiet")
    assert (held.returncode, held.stdout, held.stderr) == (6, "", "")  # in flight at two deaths
    assert state_of_each(database) == {mail: State.FAILED, report: State.FAILED}


@pytest.mark.sqlite_only
def test_recover_is_red_only_for_what_it_is_for(database: Database, shell: Shell) -> None:
    """Three jobs are over their limit of crashes. Only those of "auto" classes are recover's business."""
    ids = add_jobs(database, *(NewJob(class_name=name) for name in ("Auto", "Ask", "Never")))
    die(database)
    assert shell.run("retry", *map(str, ids)).returncode == 0
    (aged,) = add_jobs(database, NewJob(class_name="Aged"))
    die(database)
    with database.write() as connection:
        old = update(tables.failed).where(tables.failed.c.job_id == aged)
        connection.execute(old.values(created_at=ago(2 * 86400)))
    policy = shell.folder / "own.toml"
    shell.environment["JQ_CONFIG"] = "own.toml"
    left = "jq: left to a person, or done: {}; to see them: jq failed list --died"
    policy.write_text('[default]\nmax_crashes = 1\n[classes.Never]\nretry = "never"\n')
    done = shell.run("recover")
    assert (done.returncode, done.stderr) == (0, "jq: policy: own.toml\n" + left.format("3 ask, 1 never") + "\n")

    policy.write_text(policy.read_text() + '[classes.Aged]\nretry = "auto"\nmax_crashes = 9\nmax_age = "1d"\n')
    terms = ("--dry-run", "-o", "json")
    verdicts = {row["class_name"]: row["verdict"] for row in json.loads(shell.run("recover", *terms).stdout)}
    assert verdicts == {"Auto": "ask", "Ask": "ask", "Never": "never", "Aged": "too-old"}

    policy.write_text(policy.read_text() + '[classes.Auto]\nretry = "auto"\n')
    red = shell.run("recover")
    assert red.returncode == 6
    assert red.stderr.splitlines() == [
        "jq: policy: own.toml",
        left.format("1 ask, 1 never, 1 too-old"),
        'jq: held back although policy says "auto": 1 over-limit; why: jq recover --dry-run -o json',
    ]
    assert (shell.run("recover", "--quiet").returncode, shell.run("recover", "--quiet").stderr) == (6, "")


def test_a_plan_is_carried_out_or_refused(database: Database, shell: Shell, night: list[int]) -> None:
    add_attendants(database)
    planned = shell.run("retry", "--safe", "--rate", "60/m", "--plan-out", "plan.json")
    assert (planned.returncode, planned.stdout) == (0, "")
    assert planned.stderr == "jq: wrote a plan of 6 jobs, 0 held back; to carry it out: jq apply plan.json\n"
    assert rows(database, operations) == []
    assert shell.run("retry", "--safe", "--rate", "60/m", "--plan-out", "stale.json").returncode == 0
    done = shell.run("apply", "plan.json", "--reason", "INC-7", "-o", "ids")
    assert (done.returncode, done.stdout.split()) == (0, list(map(str, night)))
    due = [row["scheduled_at"] for row in rows(database, scheduled)]
    assert [(each - due[0]).total_seconds() for each in due] == [0, 1, 2, 3, 4, 5]
    again = shell.run("apply", "plan.json")
    assert (again.returncode, again.stderr.count("nothing is left of this plan")) == (0, 1)
    refused = shell.run("apply", "stale.json")
    assert (refused.returncode, refused.stdout) == (5, "")
    assert re.fullmatch(
        r"jq: the plan is stale, and nothing was moved: .*; and 3 more; make a new one\n", refused.stderr
    )


def test_ctrl_c_stops_between_two_batches_and_the_next_run_goes_on(database: Database, shell: Shell) -> None:
    add_jobs(database, *plain_jobs(3000))
    die(database)
    run = shell.start("retry", "--safe", "--yes", "--batch", "5")
    until(lambda: rows(database, operations), "the first batch is committed")
    run.send_signal(signal.SIGINT)
    _, told = run.communicate()
    assert run.returncode == 130, told
    assert re.match(r"jq: interrupted; retried [\d,]+ jobs under operation 1; .* run the same command again\n$", told)
    moved = list(state_of_each(database).values()).count(State.READY)
    assert 0 < moved < 3000
    assert moved % 5 == 0
    assert len(rows(database, failures)) == moved
    assert shell.run("retry", "--safe", "--yes").returncode == 0
    assert set(state_of_each(database).values()) == {State.READY}
    assert [row["jobs"] for row in rows(database, operations)] == [moved, 3000 - moved]


# -- what is refused


@pytest.mark.sqlite_only
@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("retry", "which jobs?"),
        ("discard", "which jobs?"),
        ("discard --limit 5 --yes", "which jobs?"),
        ("retry --died", "needs --yes"),
        ("retry --safe", "needs --yes"),
        ("discard --queue x", "needs --yes"),
        ("retry --force --died --yes", "--force needs --reason"),
        ("retry --force --safe --reason x --yes", "--force needs --reason, and goes without --safe"),
        ("retry --safe --canary 2 --dry-run", "--canary"),
        ("retry --safe --rate fast", "--rate 'fast'"),
        ("retry --safe --rate 0/m", "--rate '0/m'"),
        ("retry --safe --delay soon", "--delay 'soon'"),
        ("retry --safe --window 3", "--window '3'"),
        ("retry --safe --max-age x", "--max-age 'x'"),
        ("retry --safe --wait x", "--wait 'x'"),
        ("retry --safe --since tomorrow", "--since 'tomorrow'"),
        ("retry --safe --config nowhere.toml", "nowhere.toml"),
        ("retry --safe --import no_such_module", "cannot import no_such_module"),
        ("apply nowhere.json", "nowhere.json"),
        ("retry --safe --plan-out /nowhere/plan", "/nowhere/plan"),
    ],
)
def test_what_cannot_be_meant_is_refused_in_one_line_and_changes_nothing(
    database: Database, shell: Shell, night: list[int], command: str, words: str
) -> None:
    done = shell.run(*command.split())
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1), done.stderr
    assert words in done.stderr
    assert list(state_of_each(database).values()).count(State.FAILED) == len(night) + 2
    assert rows(database, operations) == []


@pytest.mark.sqlite_only
def test_without_the_ledger_what_needs_it_says_so(database: Database, shell: Shell, night: list[int]) -> None:
    database.transact(tables.jq.drop_all)
    assert json.loads(shell.run("retry", "--safe", "-n", "-o", "json").stdout)
    assert json.loads(shell.run("history", str(night[0]), "-o", "json").stdout)
    for command in (["retry", "--safe", "--yes"], ["undo", "1"], ["operations", "list"], ["discard", str(night[0])]):
        done = shell.run(*command)
        assert (done.returncode, done.stdout) == (3, "")
        assert done.stderr.endswith("run: jq init\n")


# -- one question, on a terminal


@pytest.mark.sqlite_only
@pytest.mark.parametrize(("answer", "ready"), [("y\n", 6), ("n\n", 0), ("\n", 0), ("\x04", 0)])
def test_on_a_terminal_it_asks_once(
    database: Database, shell: Shell, night: list[int], answer: str, ready: int
) -> None:
    told = terminal(shell, "retry", "--safe", typed=answer)
    assert (told.count("retry 6 jobs?"), told.count("6 of 6 jobs would go back to work")) == (1, 1), told
    assert ("nothing was changed" in told) == (ready == 0)
    assert list(state_of_each(database).values()).count(State.READY) == ready
    assert night


@pytest.mark.sqlite_only
def test_the_plan_that_it_asks_about_is_not_in_the_output(database: Database, shell: Shell, night: list[int]) -> None:
    with (shell.folder / "out.json").open("w") as out:
        shown = terminal(shell, "retry", "--safe", "-o", "json", typed="y\n", stdout=out.fileno())
    assert "6 of 6 jobs would go back to work" in shown
    moved = json.loads((shell.folder / "out.json").read_text())
    assert len(moved) == 6 == list(state_of_each(database).values()).count(State.READY)
    nothing = terminal(shell, "retry", "--safe", "-o", "json")
    assert nothing.startswith("[]\n"), nothing
    assert night


@pytest.mark.sqlite_only
def test_ids_that_were_named_need_no_question(database: Database, shell: Shell, night: list[int]) -> None:
    done = shell.run("retry", "--safe", "-", stdin="\n".join(map(str, night)))
    assert done.returncode == 0
    assert list(state_of_each(database).values()).count(State.READY) == 6


@pytest.mark.sqlite_only
def test_a_suspect_that_a_person_chose_goes_and_is_named(database: Database, shell: Shell) -> None:
    killer, *others = add_jobs(database, *plain_jobs(3))
    for pid, count in ((1, 1), (2, 2)):
        process = add_process(database, f"w{pid}", pid=pid)
        claim_all(database, process, count)
        database.transact(pruning.fail_exited, process, pid=pid, returncode=-11)
    again, tied = (
        "jq: may kill a process again: job",
        "one of 2 jobs that cannot be told apart; jq bisect d finds the killer",
    )
    said = {
        f"{again} {killer}: it was in flight at 1 death; alone at 1 death",
        f"{again} {others[0]}, {others[1]}: {tied}",
    }
    for options in (["--dry-run"], ["--class", "*", "--dry-run"], []):
        chosen = [] if "--class" in options else [str(job) for job in (killer, *others)]
        ran = shell.run("retry", *options, *chosen)
        assert ran.returncode == 0
        assert said <= set(re.sub(r"\bd\d+", "d", ran.stderr).splitlines())


@pytest.mark.parametrize("options", [[], ["-o", "ids"]])
def test_of_many_jobs_of_a_suspect_class_the_first_are_named(
    database: Database, shell: Shell, options: list[str]
) -> None:
    for pid, count in ((1, 1), (2, 1), (3, 25)):  # as Rails' own supervisor writes them: nobody has counted a crash
        fail(database, *plain_jobs(count), error=exit_error(pid, -11))
    ran = shell.run("retry", "--class", "PlainJob", "--dry-run", *options)
    assert ran.returncode == 0, ran.stderr
    warned = [line for line in ran.stderr.splitlines() if "may kill a process again" in line]
    assert sum(_jobs_in(line) for line in warned) == 27, ran.stderr


def _jobs_in(warning: str) -> int:
    """Return how many jobs such a line is about: those that it names, and ``more``."""
    (named, more) = re.findall(r"job ([0-9, ]+)(?: and ([0-9,]+) more)?:", warning)[0]
    return len(named.split(", ")) + int(more.replace(",", "") or 0)


def test_ids_that_a_filter_or_limit_leaves_out_are_named(database: Database, shell: Shell, night: list[int]) -> None:
    done = shell.run("retry", *map(str, night[:3]), "--class", "Mail", "--limit", "2", "-o", "ids")
    assert (done.returncode, done.stdout.split()) == (6, [str(job_id) for job_id in night[:2]])
    assert f"jq: job {night[2]} was not taken: the filter or --limit" in done.stderr
    other = shell.run("retry", str(night[3]), "--class", "Mail")
    assert (other.returncode, f"job {night[3]} was not taken" in other.stderr) == (6, True)
    assert list(state_of_each(database).values()).count(State.READY) == 2


@pytest.mark.sqlite_only
def test_force_goes_past_the_limit_with_a_reason(database: Database, shell: Shell) -> None:
    (job_id,) = add_jobs(database, *plain_jobs(1))
    for silent in (4000, 3000, 2000):
        die(database, silent=silent)
        done = shell.run("retry", str(job_id), "-o", "json")
    assert done.returncode == 6
    (told,) = json.loads(done.stdout)
    assert (told["verdict"], told["reason"], told["crashes"]) == (
        "over-limit",
        "3 crashes within 72h; the limit is 3",
        3,
    )
    assert done.stderr == "jq: held back 1 job\n"
    assert shell.run("retry", str(job_id), "--force", "--reason", "memory was added").returncode == 0
    assert state_of_each(database) == {job_id: State.READY}


def test_queue_as_sends_jobs_elsewhere(database: Database, shell: Shell, night: list[int]) -> None:
    assert shell.run("retry", "--safe", "--yes", "--queue-as", "quarantine").returncode == 0
    assert {row["queue_name"] for row in rows(database, jobs) if row["id"] in night} == {"quarantine"}
    taken = database.transact(queue_claim.claim, add_process(database), ("quarantine",), 100)
    assert sorted(claim.job_id for claim in taken) == night
    assert Path(shell.folder).exists()
