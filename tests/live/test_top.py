"""jq top with somebody before it: what it shows is what the commands print, and what it does is what they do."""

import os
import re
import shlex
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from shutil import move
from typing import Any

import compatibility
import pytest
from sqlalchemy.engine import URL

from solidjq import Database, NewJob
from solidjq.database import tables
from solidjq.database.urls import url_text
from solidjq.queue.states import State
from solidjq.rails.error_text import error_json
from solidjq_cli.exits import Exit
from solidjq_cli.live.acting import ActionScreen
from solidjq_cli.live.inner import Printed, Runner
from solidjq_cli.live.lists import LISTS, OPERATIONS, Action
from solidjq_cli.live.screens import TextScreen
from support.commands import run
from support.deaths import die
from support.environments import NAMED, make
from support.paths import ROOT
from support.processes import add_attendants, add_process
from support.program import Shell
from support.queue import add_jobs, fail, plain_jobs, rows, state_of_each
from support.scenes import NASTY
from support.screen import Terminal
from support.terminal import Session, unprintable
from support.top import Live
from support.waiting import until

Sit = Callable[..., int]
BAR, MARK = 1, 2  # columns that top keeps beside a text, and beside a row


def acting(live: Live) -> ActionScreen:
    assert isinstance(live.top.screen, ActionScreen)
    return live.top.screen


@pytest.fixture
def night(database: Database) -> list[int]:
    """Jobs that died with their process, and one that failed by itself; return the ids of the dead."""
    add_attendants(database)
    add_jobs(database, *plain_jobs(3))
    dead = die(database)
    fail(database, NewJob(class_name="Other", queue_name="mailers"), error=error_json("ArgumentError", "boom"))
    return dead


def tabs(live: Live) -> int:
    """Return how many lines the names of the lists take."""
    return len([line for line in live.lines if "4 queues" in line or "6 operations" in line])


def comparable(text: str) -> list[str]:
    """Return a text without its ages and the place of the database, which one of two screens may have elsewhere."""
    varies = re.compile(r"\b\d+[smhd]\b|\S*(sqlite3|test_\w+|/\w+) on \S+|\S*queue.sqlite3")
    lines = (varies.sub("", line) for line in text.split("\n"))
    return [" ".join(line.split()) for line in lines if line.strip()]


# -- what it shows


@pytest.mark.usefixtures("night")
def test_a_list_has_the_rows_of_its_command(
    queue_url: URL, sit_before: Sit, screen: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JQ_DATABASE_URL", url_text(queue_url))
    printed = {of.name: comparable(screen.show(of.words, width=100 - BAR - MARK)) for of in LISTS}

    async def look(live: Live) -> None:
        for number, of in enumerate(LISTS, 1):
            body = [line for line in printed[of.name] if not line.startswith(("next ", "jq: "))][1:]
            assert body or of is OPERATIONS
            await live.press(str(number))

            def missing(body: list[str] = body) -> list[str]:
                seen = [line.removeprefix("+ ") for line in comparable(live.text)]
                return [line for line in body if line not in seen]

            await live.until(lambda: not missing(), f"{of.name} are shown: {body}")
            await live.shows(f"$ jq {' '.join(of.words)}")

    assert sit_before(look, queue_url, size=(100, 60)) == Exit.DONE


@pytest.mark.parametrize(("kind", "width"), [("sqlite", 60), ("postgresql", 80), ("mariadb", 200)], indirect=["kind"])
def test_enter_shows_the_text_of_the_command(
    night: list[int], queue_url: URL, sit_before: Sit, screen: Terminal, monkeypatch: pytest.MonkeyPatch, width: int
) -> None:
    seen: dict[str, list[str]] = {}

    async def look(live: Live) -> None:
        await live.reads()
        for number, words in ((1, "failed show"), (2, "incidents show")):
            await live.press(str(number))
            await live.reads()
            key = live.top.pane.keys[0]
            await live.press("enter")
            await live.shows("next  jq")
            seen[f"{words} {key}"] = comparable(live.text)
            await live.press("escape")
            assert not isinstance(live.top.screen, TextScreen)

    assert sit_before(look, queue_url, size=(width, 50)) == Exit.DONE
    monkeypatch.setenv("JQ_DATABASE_URL", url_text(queue_url))
    assert len(seen) == 2
    for command, lines in seen.items():
        assert lines[0] == f"$ jq {command}"
        printed = comparable(screen.show(command.split(), width=width - BAR))
        assert [line for line in printed if line not in lines] == []


@pytest.mark.usefixtures("night")
@pytest.mark.sqlite_only
def test_a_row_leads_to_other_rows_and_back(queue_url: URL, sit_before: Sit) -> None:
    async def look(live: Live) -> None:
        await live.reads()
        await live.press("4")
        await live.reads()
        await live.press("enter")
        await live.shows("$ jq jobs list --queue=")
        await live.reads()
        await live.press("enter")
        await live.shows("$ jq jobs show", "class_name:")
        await live.press("escape", "escape")
        await live.shows("$ jq queues list", "READY")
        await live.press("f")
        await live.shows("$ jq failed list --queue=")
        await live.press("escape", "2")
        await live.reads()
        await live.press("f")
        await live.shows("$ jq failed list d1", "PlainJob")

    assert sit_before(look, queue_url) == Exit.DONE


@pytest.mark.sqlite_only
@pytest.mark.parametrize("width", [60, 80, 200])
def test_nothing_is_wider_than_the_terminal_and_no_id_is_cut(
    database: Database, queue_url: URL, sit_before: Sit, width: int
) -> None:
    name = "請求書::" + "電子メール" * 6
    ids = fail(database, NewJob(class_name=name, queue_name="郵便" * 8), error=error_json("エラー", "失敗" * 60))
    add_process(database, "w" * 46)

    async def look(live: Live) -> None:
        await live.reads()
        for number in range(1, 7):
            await live.press(str(number))
            await live.until(lambda: live.top.pane.read_of is not None, "the list is read")
            assert len(live.lines) == 24
            await live.press("1")
        await live.shows(str(ids[0]), "JOB", "HOW", "? keys  q quit")
        strips = live.top.screen._compositor.render_strips()
        assert {strip.cell_length for strip in strips} == {width}

    assert sit_before(look, queue_url, size=(width, 24)) == Exit.DONE


@pytest.mark.sqlite_only
def test_hostile_text_stays_text(database: Database, queue_url: URL, sit_before: Sit) -> None:
    fail(
        database,
        NewJob(class_name=f"[red]{NASTY}", queue_name=f"--yes {NASTY}", args=[NASTY]),
        error=error_json(NASTY, f"[bold]{NASTY}"),
    )

    async def look(live: Live) -> None:
        await live.reads()
        await live.shows("[red]\\x1b[31m")
        await live.press("enter")
        await live.shows("next  jq", "[bold]")
        assert not unprintable(live.text)
        await live.press("escape", "4")
        await live.reads()
        await live.press("enter")
        await live.shows("1 job")
        assert not unprintable(live.text)

    assert sit_before(look, queue_url, size=(120, 40)) == Exit.DONE


@pytest.mark.usefixtures("night")
@pytest.mark.sqlite_only
def test_another_size_is_drawn_at_once(queue_url: URL, sit_before: Sit) -> None:
    async def look(live: Live) -> None:
        await live.reads()
        for width, height, lines in ((60, 20, 2), (120, 40, 1)):
            await live.pilot.resize_terminal(width, height)
            await live.shows_keys_for(width)
            await live.until(lambda lines=lines: tabs(live) == lines, f"the tabs take {lines} lines")
            assert len(live.lines) == height
            assert max(map(len, live.lines)) <= width

    assert sit_before(look, queue_url) == Exit.DONE


# -- choosing


@pytest.mark.usefixtures("night")
@pytest.mark.sqlite_only
def test_rows_are_chosen_sorted_and_counted(queue_url: URL, sit_before: Sit) -> None:
    async def look(live: Live) -> None:
        await live.reads()
        assert len(live.top.pane.keys) == 4
        await live.press("slash")
        await live.type("other")
        await live.press("enter")
        await live.shows("1 of the 4 rows that were read have: other", "/ other", "$ jq failed list --limit=500")
        await live.press("escape")
        await live.until(lambda: len(live.top.pane.keys) == 4, "the filter is gone")
        await live.press("slash")
        await live.type("--class Other")
        await live.press("enter")
        await live.shows("$ jq failed list --class Other", "1 of 4 failed jobs")
        await live.press("slash")
        assert live.top.pane.types
        await live.press("q", "escape")  # a letter, and then what ends it
        await live.press("escape", "s")
        await live.shows("$ jq failed list --sort=class_name", "the newest, sorted by class_name")
        assert live.top.is_running

    assert sit_before(look, queue_url) == Exit.DONE


@pytest.mark.usefixtures("night")
@pytest.mark.sqlite_only
def test_a_filter_that_means_nothing_is_said(queue_url: URL, sit_before: Sit) -> None:
    async def look(live: Live) -> None:
        await live.reads()
        await live.press("slash")
        await live.type("-o json")
        await live.press("enter")
        await live.shows("-o chooses no rows")
        await live.press("escape", "slash")
        await live.type("--clas X")
        await live.press("enter")
        await live.shows("no such option: --clas; did you mean --class?")
        await live.press("slash")
        live.top.pane.query_one("#filter").value = "--class Nobody"  # type: ignore[attr-defined]
        await live.press("enter")
        await live.shows("no class Nobody among the failed jobs")

    assert sit_before(look, queue_url) == Exit.DONE


# -- what it does


def test_a_retry_shows_its_plan_asks_and_is_taken_back(
    night: list[int], database: Database, queue_url: URL, sit_before: Sit
) -> None:
    async def act(live: Live) -> None:
        await live.reads()
        await live.press("end", "space", "up", "up", "space")  # the mark moves the cursor on
        assert len(live.top.pane.chosen) == 2
        await live.begin("r", "INC 7")
        await live.shows("2 of 2 jobs would go back to work", "retry 2 jobs?", "y yes  n no")
        await live.press("n")
        await live.shows("nothing was changed", "$ jq failed list")
        assert rows(database, tables.operations) == []
        await live.begin("r")
        await live.shows("retry 2 jobs?")
        await live.press("y")
        await live.shows("retried 2 jobs", "jq undo 1", "done")
        await live.press("escape")
        await live.until(lambda: len(live.top.pane.keys) == 2, "the jobs are gone from the list")
        states = [*state_of_each(database).values()]
        assert (states.count(State.READY), states.count(State.FAILED)) == (2, 2)
        await live.begin("u")
        await live.shows("take operation 1 back?")
        await live.press("y")
        await live.shows("took back 2 jobs of operation 1")
        await live.press("escape")
        await live.until(lambda: len(live.top.pane.keys) == 4, "the jobs are back in the list")

    assert sit_before(act, queue_url) == Exit.DONE
    retry, undo = rows(database, tables.operations)
    words = shlex.split(str(retry["command"]))
    assert words[0] == "jq"
    assert words[1] == "--database"
    assert words[3:5] == ["retry", "--safe"]
    assert {*words[5:7]} <= {str(job_id) for job_id in night}
    assert words[7:] == ["--reason=INC 7"]
    assert (retry["verb"], retry["reason"], retry["jobs"]) == ("retry", "INC 7", 2)
    assert shlex.split(str(undo["command"]))[3:] == ["undo", "1", "--reason=INC 7"]
    assert len(rows(database, tables.chain)) == 2  # both are sealed


@pytest.mark.sqlite_only
def test_queues_are_paused_and_resumed(night: list[int], database: Database, queue_url: URL, sit_before: Sit) -> None:
    def paused() -> list[Any]:
        return [row["queue_name"] for row in rows(database, tables.pauses)]

    async def act(live: Live) -> None:
        await live.reads()
        await live.press("x")
        await live.shows("queues are paused and resumed in their list")
        await live.press("4")
        await live.reads()
        (queue,) = live.top.pane.chosen
        await live.press("x")
        await live.shows(f"pause {queue}?", f"queues pause -- {queue}")
        await live.press("n")
        await live.shows("nothing was changed", "$ jq queues list")
        assert paused() == []
        await live.press("x")
        await live.shows(f"pause {queue}?")
        await live.press("y")
        await live.shows(f"queue {queue} paused", "done")
        assert paused() == [queue]
        await live.press("escape")
        await live.shows("paused")
        await live.press("X")
        await live.shows(f"resume {queue}?")
        await live.press("y")
        await live.shows(f"queue {queue} resumed")
        assert paused() == []

    assert sit_before(act, queue_url) == Exit.DONE
    assert [row["verb"] for row in rows(database, tables.operations)] == ["pause", "resume"]


@pytest.mark.parametrize(
    ("kind", "way"), [("sqlite", "option"), ("postgresql", "environment"), ("mariadb", "option")], indirect=["kind"]
)
def test_read_only_changes_nothing(
    night: list[int],
    database: Database,
    queue_url: URL,
    sit_before: Sit,
    monkeypatch: pytest.MonkeyPatch,
    way: str,
) -> None:
    if way == "environment":
        monkeypatch.setenv("JQ_READ_ONLY", "1")

    async def act(live: Live) -> None:
        await live.reads()
        assert "r retry" not in live.lines[-1]
        for key in ("r", "u", "x", "X"):
            await live.press(key)
            await live.shows("the database is opened read-only; nothing can be changed")
        # Whatever the keys do: the command refuses.
        live.top.push_screen(ActionScreen(live.top.runner, Action(("retry", str(night[0]), "--yes")), "", str))
        await live.shows("the reason, for the record:")
        await live.press("enter")
        await live.shows("opened read-only; nothing was changed", f"exit code {Exit.REFUSED.value}")

    assert sit_before(act, queue_url, before=("--read-only",) if way == "option" else ()) == Exit.DONE
    assert rows(database, tables.operations) == []
    assert {*state_of_each(database).values()} == {State.FAILED}


@pytest.mark.usefixtures("night")
@pytest.mark.sqlite_only
def test_a_profile_that_wants_its_name_typed(
    database: Database, queue_url: URL, sit_before: Sit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = tmp_path / "own.toml"
    own.write_text(f'[profiles.shop]\ndatabase = "{queue_url}"\nconfirm = "name"\n')
    monkeypatch.setenv("JQ_CONFIG", str(own))

    async def act(live: Live) -> None:
        await live.reads()
        await live.press("2")
        await live.reads()
        await live.begin("r")
        await live.shows("retry 3 jobs?", "type shop, and enter")
        await live.press("y", "enter")  # the letter is no yes here
        await live.shows("nothing was changed", "$ jq incidents list")
        await live.begin("r")
        await live.shows("type shop, and enter")
        await live.type("shop")
        await live.press("enter")
        await live.shows("retried 3 jobs")

    assert sit_before(act, None, before=("--profile", "shop")) == Exit.DONE
    (operation,) = rows(database, tables.operations)
    assert str(operation["command"]).startswith("jq --profile shop retry --safe d1")


@pytest.mark.usefixtures("night")
@pytest.mark.sqlite_only
def test_leaving_while_jobs_move_ends_after_the_batch(
    database: Database, queue_url: URL, sit_before: Sit, monkeypatch: pytest.MonkeyPatch
) -> None:
    goes_on = threading.Event()
    before = ActionScreen._note_moved

    def wait(screen: ActionScreen, moved: int, total: int | None) -> None:
        if screen.moves:
            goes_on.wait()
        before(screen, moved, total)

    monkeypatch.setattr(ActionScreen, "_note_moved", wait)

    async def act(live: Live) -> None:
        await live.reads()
        live.top.push_screen(ActionScreen(live.top.runner, Action(("retry", "--safe", "d1", "--batch=1")), "", str))
        await live.shows("the reason, for the record:")
        await live.press("enter")
        await live.shows("retry 3 jobs?")
        await live.press("y")
        await live.until(lambda: state_of_each(database)[1] is State.READY, "the first batch is committed")
        await live.press("escape")
        await live.shows("q ends it after this batch")
        await live.press("q")
        assert live.top.is_running
        goes_on.set()
        await live.shows("interrupted; retried 1 job under operation 1", "run the same command again")
        await live.press("q")

    assert sit_before(act, queue_url) == Exit.DONE
    assert [*state_of_each(database).values()].count(State.READY) == 1


# -- when the database is away, or slow


@pytest.mark.sqlite_only
def test_a_database_that_is_away_is_tried_until_it_answers(
    night: list[int], queue_url: URL, sit_before: Sit, tmp_path: Path
) -> None:
    path, away = str(queue_url.database), tmp_path / "away"

    async def look(live: Live) -> None:
        await live.reads()
        move(path, away)
        await live.press("g")
        await live.shows("no answer for", "tries again:")
        assert len(live.top.pane.keys) == len(night) + 1  # what was read last stays
        before = live.tries
        await live.press("g")
        await live.until(lambda: live.tries > before, "it is tried again")
        await live.press("enter")
        await live.until(lambda: isinstance(live.top.screen, TextScreen), "a text is opened")
        await live.press("escape")
        move(away, path)
        await live.press("g")
        await live.shows("the database answers again, after")

    assert sit_before(look, queue_url) == Exit.DONE


@pytest.mark.usefixtures("night")
@pytest.mark.sqlite_only
def test_a_slow_database_keeps_no_key_waiting(queue_url: URL, sit_before: Sit, monkeypatch: pytest.MonkeyPatch) -> None:
    answers, asked = threading.Event(), threading.Event()
    before = Runner._run

    def slow(*arguments: Any) -> Printed:
        asked.set()
        answers.wait()
        return before(*arguments)

    async def look(live: Live) -> None:
        await live.reads()
        monkeypatch.setattr(Runner, "_run", slow)
        await live.press("g")
        await live.until(asked.is_set, "a read is under way")
        await live.press("question_mark")
        await live.shows("ctrl+c")
        await live.press("escape", "down", "down")
        assert live.top.pane.query_one("#rows").highlighted == 2  # type: ignore[attr-defined]
        await live.press("p")
        await live.shows("frozen; p goes on")
        answers.set()
        await live.press("p")

    assert sit_before(look, queue_url) == Exit.DONE


@pytest.mark.sqlite_only
def test_rows_that_come_are_marked_and_the_cursor_stays(
    night: list[int], database: Database, queue_url: URL, sit_before: Sit
) -> None:
    async def look(live: Live) -> None:
        await live.reads()
        on = live.top.pane.current
        assert not [line for line in live.lines if line.startswith("+ ")]
        (job_id,) = fail(database, NewJob(class_name="Late"), error=error_json("E", "late"))
        await live.press("g")
        await live.until(lambda: live.top.pane.keys[0] == str(job_id), "the new failure is shown")
        assert live.top.pane.current == on
        await live.until(
            lambda: [line.split()[1] for line in live.lines if line.startswith("+ ")] == [str(job_id)], "it is marked"
        )

    assert sit_before(look, queue_url) == Exit.DONE


@pytest.mark.parametrize("generation", compatibility.GENERATIONS, ids=lambda generation: generation.name)
def test_every_generation_of_the_schema(generation: compatibility.Generation, empty_url: URL, sit_before: Sit) -> None:
    make(empty_url, generation)

    async def look(live: Live) -> None:
        if compatibility.TOP.is_refused(generation):
            await live.shows("no answer for", NAMED)
            return
        for number, of in enumerate(LISTS, 1):
            await live.press(str(number))
            await live.until(lambda: live.top.pane.read_of is not None, f"{of.name} are read")
            assert live.top.pane.keys
        assert "no answer" not in live.text

    assert sit_before(look, empty_url, size=(200, 40)) == compatibility.TOP.ends


# -- how it begins and ends


@pytest.mark.usefixtures("night")
@pytest.mark.sqlite_only
def test_only_q_and_ctrl_c_end_it(queue_url: URL, sit_before: Sit) -> None:
    async def press(live: Live, key: str) -> None:
        await live.reads()
        await live.press("escape", "ctrl+q", "backspace", "ctrl+d", "ctrl+x", "Q", "0")
        await live.shows("$ jq status")
        await live.press("escape", "question_mark")
        await live.shows("ctrl+c")
        assert live.top.is_running
        await live.press(key)

    codes = {}
    for key in ("q", "ctrl+c"):

        async def leave(live: Live, key: str = key) -> None:
            await press(live, key)

        codes[key] = sit_before(leave, queue_url)
    assert codes == {"q": Exit.DONE, "ctrl+c": Exit.INTERRUPTED}


@pytest.mark.usefixtures("night")
@pytest.mark.sqlite_only
@pytest.mark.parametrize("colours", [True, False])
def test_no_color(queue_url: URL, sit_before: Sit, monkeypatch: pytest.MonkeyPatch, colours: bool) -> None:  # noqa: FBT001
    monkeypatch.delenv("NO_COLOR", raising=False)
    if not colours:
        monkeypatch.setenv("NO_COLOR", "1")

    async def look(live: Live) -> None:
        await live.shows("3 died with their process", "PlainJob")

        def used() -> set[str]:
            return {
                colour.name
                for strip in live.top.screen._compositor.render_strips()
                for segment in strip
                if segment.style is not None
                for colour in (segment.style.color, segment.style.bgcolor)
                if colour is not None and not colour.is_default
            }

        await live.until(lambda: bool(used()) is colours, f"colours are used: {colours}")

    assert sit_before(look, queue_url) == Exit.DONE


@pytest.mark.sqlite_only
def test_without_the_extra_it_says_how_to_get_it(
    queue_url: URL, sit_before: Sit, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from solidjq_cli.commands import top

    monkeypatch.setitem(sys.modules, "textual", None)
    monkeypatch.setattr(top, "_is_terminal", lambda: True)
    assert run(["--database", str(queue_url), "top"]) == Exit.USAGE
    told = capsys.readouterr().err
    for way in ("pip install 'solidjq[top]'", "pipx install --force 'solidjq[top]'", "uv tool install --force"):
        assert way in told


@pytest.mark.sqlite_only
def test_without_a_terminal_it_names_what_scripts_use(shell: Shell) -> None:
    done = shell.run("top")
    assert (done.returncode, done.stdout) == (Exit.USAGE, "")
    assert "jq status -o json" in done.stderr


@pytest.mark.usefixtures("night")
@pytest.mark.sqlite_only
@pytest.mark.parametrize("way", ["q", "SIGTERM", "SIGHUP"])
def test_on_a_real_terminal_it_leaves_it_as_it_was(shell: Shell, way: str) -> None:
    with Session(shell, "top") as session:
        until(lambda: "$ jq failed list" in session.shown and "PlainJob" in session.shown, "it draws", session.describe)
        if way == "q":
            session.type("q")
        else:
            os.kill(session.pid, getattr(signal, way))
        assert session.end() == (Exit.DONE if way == "q" else Exit.INTERRUPTED)
        assert session.echoes
        until(lambda: "\x1b[?1049l" in session.shown, "the screen from before is back", session.describe)


def test_the_pictures_are_those_of_the_program() -> None:
    import top_screens

    for name, drawn in top_screens.pictures().items():
        path = ROOT / "docs" / name
        assert path.read_text() == drawn, "run: make docs"
        assert len(drawn) < 40_000
