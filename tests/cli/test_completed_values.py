"""Values that the shells ask the program for: from the right database, quoted, and in silence where there are none."""

import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy.engine import URL

from solidjq import Database, NewJob
from solidjq.database.setup import initialize
from solidjq.database.urls import url_text
from solidjq_cli.command_tree import tree
from support.commands import leaves
from support.deaths import die
from support.program import Bare, Shell, zygote
from support.queue import add_jobs, fail
from support.shells import SHELLS, Bash, Fish, Zsh, environment, needs

# What shells give a meaning to, in names that anybody who may enqueue can choose.
HOSTILE = {
    "$(touch pwned)",
    "`touch pwned`",
    "a;touch pwned",
    "a&touch pwned|touch pwned>pwned",
    "it's",
    '"two words"',
    "two  words",
    "Mail::Deliver@home=1",
    "back\\slash",
    "$HOME",
    "~root",
    "*",
    "{a,b}",
    "!!",
    "#no comment",
    "=cat",
    "-rf",
    "%s%n",
    "日本",
}
UNPRINTABLE = {"new\nline; touch pwned", "tab\ttouch pwned", "\x1b]0;title\x07", "\x9b31m", "\u202eesrever"}


def make_queue(path: Path) -> Database:
    database = Database(URL.create("sqlite", database=str(path)))
    initialize(database)
    return database


@pytest.fixture(scope="module", params=SHELLS)
def shell(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bash | Zsh | Fish]:
    """A shell that completes for the real program, on a queue with hostile names."""
    needs(request.param)
    folder = tmp_path_factory.mktemp(request.param)
    (folder / "bin").mkdir()
    starts = {"jq": zygote().command(), "solidjq": f"{sys.executable} -P -m solidjq_cli"}  # by fork, and a fresh Python
    for program, start in starts.items():
        (folder / "bin" / program).write_text(
            f'#!/bin/sh\nexport JQ_COMPLETION_TIMEOUT=60 JQ_DATABASE_URL=queue.sqlite3\nexec {start} "$@"\n'
        )
        (folder / "bin" / program).chmod(0o755)
    with closing(make_queue(folder / "queue.sqlite3")) as database:
        add_jobs(database, *(NewJob(class_name=name, queue_name=name) for name in sorted(HOSTILE | UNPRINTABLE)))
        die(database, hostname="host-7")
    with closing(make_queue(folder / "other.sqlite3")) as database:
        fail(database, NewJob(class_name="Elsewhere", queue_name="elsewhere"), error="boom")
    (folder / ".config/solidjq").mkdir(parents=True)
    (folder / ".config/solidjq/jq.toml").write_text(
        f'[profiles.other]\ndatabase = "{folder}/other.sqlite3"\n'
        f'[profiles.night]\ndatabase = "{folder}/queue.sqlite3"\n'
    )
    started = SHELLS[request.param](folder)
    yield started
    started.close()


@pytest.mark.parametrize("option", ["--class", "--queue"])
def test_hostile_names_become_one_word_each(shell: Bash | Zsh | Fish, option: str) -> None:
    assert shell.candidates(f"jq failed list {option} ") == {name.rstrip("=/") for name in HOSTILE}
    assert not (shell.folder / "pwned").exists()


def test_a_line_with_hostile_names_can_be_run(shell: Bash | Zsh | Fish) -> None:
    """Whatever the shell inserted is run as it stands, by that shell: each name arrives whole."""
    if isinstance(shell, Fish):  # it is asked for its candidates, and quotes them when it inserts one
        return
    typed = "jq failed list --class "
    line = shell.type(typed, shell.INSERT).rpartition("LINE<")[2]
    name = type(shell).__name__.lower()
    done = subprocess.run(
        [name, "-c", f"printf '%s\\0' {line.removeprefix(typed)}"],
        cwd=shell.folder,
        env=environment(shell.folder),
        capture_output=True,
        check=True,
    )
    assert {*done.stdout.decode().split("\0")} - {""} == HOSTILE
    assert not (shell.folder / "pwned").exists()


def test_what_was_typed_of_a_hostile_name_is_completed(shell: Bash | Zsh | Fish) -> None:
    assert shell.candidates("jq failed list --class Mail::Del") == {"Mail::Deliver@home=1"}
    assert shell.candidates("jq failed list --class=Mail::Deliver@ho") == {"Mail::Deliver@home=1"}
    assert shell.candidates("jq failed list --class two") == {"two  words"}
    assert shell.candidates("jq failed list --class it\\'") == {"it's"}
    assert shell.candidates("jq failed list --class no-such") == set()


def test_ids_incidents_and_profiles(shell: Bash | Zsh | Fish) -> None:
    ids = {str(number) for number in range(1, len(HOSTILE | UNPRINTABLE) + 1)}
    assert shell.candidates("jq retry ") == {*ids, "d1"}
    assert shell.candidates("jq failed show 2") == {number for number in ids if number.startswith("2")}
    assert shell.candidates("jq failed list --host ho") == {"host-7"}
    assert shell.candidates("jq --profile o") == {"other"}
    (group,) = shell.candidates("jq failed list --group ")
    assert shell.candidates(f"jq retry {group[:3]}") == {group}


def test_the_line_says_which_database(shell: Bash | Zsh | Fish) -> None:
    assert shell.candidates("jq --database='other.sqlite3' failed list --queue ") == {"elsewhere"}
    assert shell.candidates("solidjq --read-only --profile=other retry 1 2 --queue ") == {"elsewhere"}


def test_nothing_is_made_or_left(shell: Bash | Zsh | Fish) -> None:
    before = {*shell.folder.rglob("*")}
    assert shell.candidates("jq -d missing.sqlite3 failed show ") == set()
    assert {*shell.folder.rglob("*")} == before


# -- the program alone ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "line",
    [
        "-d other.sqlite3 failed list",
        "failed list -dother.sqlite3 --died",
        "--database='other.sqlite3' failed list",
        "retry 4 5 --safe -nd other.sqlite3",
        "--config jq.toml --profile other failed list",
        "--read-only --config=jq.toml --profile=other queues pause",
    ],
)
def test_the_words_of_the_line_say_which_database(shell_of_the_queue: Shell, line: str) -> None:
    with closing(make_queue(shell_of_the_queue.folder / "other.sqlite3")) as database:
        add_jobs(database, NewJob(class_name="Elsewhere", queue_name="elsewhere"))
    (shell_of_the_queue.folder / "jq.toml").write_text('[profiles.other]\ndatabase = "other.sqlite3"\n')
    before = {*shell_of_the_queue.folder.rglob("*")}
    done = shell_of_the_queue.run("__complete", "bash", "queue", "", "--", *line.split())
    assert (done.returncode, done.stdout, done.stderr) == (0, "elsewhere\t\n", "")
    assert {*shell_of_the_queue.folder.rglob("*")} == before


def test_a_list_of_queues_is_completed_at_its_end(shell_of_the_queue: Shell) -> None:
    with closing(Database(URL.create("sqlite", database=shell_of_the_queue.url))) as database:
        add_jobs(database, NewJob(class_name="A", queue_name="mail"), NewJob(class_name="A", queue_name="slow"))
    for prefix, offered in (("", "mail\t\nslow\t\n"), ("mail,", "mail,mail\t\nmail,slow\t\n"), ("x,s", "x,slow\t\n")):
        assert shell_of_the_queue.run("__complete", "bash", "queues", prefix).stdout == offered


def test_no_database_is_made_where_none_is_named(tmp_path: Path) -> None:
    done = Bare("", tmp_path, {"HOME": str(tmp_path), "XDG_STATE_HOME": str(tmp_path)}).run(
        "__complete", "bash", "failed", ""
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert [*tmp_path.iterdir()] == []


@pytest.mark.parametrize(
    "words",
    [
        (),
        ("nonsense", "failed", ""),
        ("bash", "nonsense", ""),
        ("bash", "failed", "'"),
        ("bash", "failed", "", "--", "--nonsense", "-"),
        ("bash", "failed", "", "--", "--version"),
        ("bash", "failed", "", "--", "-d"),
        ("fish", "failed", "x" * 5000, "--", *["failed"] * 50),
    ],
)
def test_a_line_without_sense_is_no_error(shell_of_the_queue: Shell, words: tuple[str, ...]) -> None:
    done = shell_of_the_queue.run("__complete", *words)
    if words:
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.fixture
def shell_of_the_queue(tmp_path: Path) -> Shell:
    make_queue(tmp_path / "queue.sqlite3").close()
    # The usual limit is too short for a machine on which other tests run.
    return Shell(str(tmp_path / "queue.sqlite3"), tmp_path, {"JQ_COMPLETION_TIMEOUT": "60"})


def test_a_server_that_never_answers_is_not_waited_for(tmp_path: Path) -> None:
    # Without a limit of its own the program would wait for these 600 seconds, and the test would fail.
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"postgres://u@127.0.0.1:{server.getsockname()[1]}/q?connect_timeout=600"
        done = Shell(url, tmp_path).run("__complete", "bash", "failed", "")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.only_on("postgresql")  # elsewhere a reader does not wait for a writer
def test_a_locked_database_is_not_waited_for(database: Database, queue_url: URL, tmp_path: Path) -> None:
    fail(database, NewJob(class_name="Locked"), error="boom")
    with database.write() as connection:
        connection.exec_driver_sql("LOCK TABLE public.solid_queue_jobs IN ACCESS EXCLUSIVE MODE")
        done = Shell(url_text(queue_url), tmp_path).run("__complete", "bash", "class", "")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_no_password_command_is_run(tmp_path: Path) -> None:
    (tmp_path / "jq.toml").write_text(
        '[profiles.night]\ndatabase = "postgres://u@127.0.0.1:1/q"\npassword_command = "touch asked"\n'
    )
    done = Bare("", tmp_path).run(
        "__complete", "bash", "failed", "", "--", "--config", "jq.toml", "--profile", "night", "failed", "show"
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert not (tmp_path / "asked").exists()


def test_what_takes_an_id_or_a_name_offers_it() -> None:
    """Arguments and options that the database has values for; whatever else takes free text is none of its."""
    free = {"--error", "--reason", "--since", "--until", "--rate", "--max-age", "--window", "--wait", "--delay"}
    for command in tree().all():
        for argument in command.arguments:
            if argument.value.metavar.strip("[].") in {"JOB", "INCIDENT", "OPERATION", "QUEUE", "CLASS", "A", "B"}:
                assert argument.value.kind, command.path
        for option in command.options:
            if option.names[-1] in {"--queue", "--class", "--host", "--incident", "--group", "--profile"}:
                assert option.value
                assert option.value.kind, (command.path, option.names)
            if option.names[-1] in free and option.value:
                assert option.value.kind is None
    assert "__complete" not in leaves(tree())
