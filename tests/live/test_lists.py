"""Which command lines jq top runs, its filter, its keys and how it draws: all without a screen."""

from types import SimpleNamespace

import pytest

from solidjq_cli import options
from solidjq_cli.live import keys, lists
from solidjq_cli.live.app import Top
from solidjq_cli.live.lists import FAILED, JOBS, LISTS, QUEUES, Filter, Shown, parse_filter
from solidjq_cli.live.painting import content, fit, plain
from solidjq_cli.live.polling import LEAST, SHARE, Poller
from support.commands import run
from support.paths import ROOT


def test_a_filter_is_words_and_then_options() -> None:
    assert parse_filter("") == Filter()
    assert parse_filter("time out") == Filter(("time", "out"))
    assert parse_filter("boom --class 'A B' --died") == Filter(("boom",), ("--class", "A B", "--died"))
    assert str(parse_filter("boom --class 'A B'")) == "boom --class 'A B'"


@pytest.mark.parametrize(
    "text", ["-o json", "-ojson", "--output=json", "--watch", "x -", "--fields a", "-d x", "--help", "--limit 5"]
)
def test_a_filter_only_chooses_rows(text: str) -> None:
    with pytest.raises(ValueError, match="chooses no rows"):
        parse_filter(text)


def test_a_quotation_mark_without_its_second_one() -> None:
    with pytest.raises(ValueError, match="quotation mark"):
        parse_filter("--class 'A")


def test_words_are_looked_for_in_upper_and_lower_case_and_among_more_rows() -> None:
    chosen = parse_filter("sync TIME")
    assert chosen.takes("42 SyncJob timeout")
    assert not chosen.takes("42 SyncJob boom")
    assert Shown(FAILED, filter=chosen).words == ("failed", "list", f"--limit={lists.SEARCHED}")
    assert Shown(QUEUES, filter=chosen).words == ("queues", "list")


def test_the_command_line_of_a_list() -> None:
    shown = Shown(FAILED, ("d17",), parse_filter("--class A")).sorted_next()
    assert shown.words == ("failed", "list", "d17", "--class", "A", "--sort=class_name")
    assert shown.with_more().words[-1] == "--limit=200"
    for _ in range(20):
        shown = shown.with_more()
    assert shown.words[-1] == f"--limit={lists.MOST}"
    assert shown == shown.with_more()
    assert Shown(FAILED).words == ("failed", "list")  # as it is without the option: the limit of a terminal
    assert lists.STEP == options.LIST_LIMIT


def test_a_name_that_begins_with_a_minus_is_no_option() -> None:
    opened = QUEUES.opens("--yes")
    assert opened.words == ("jobs", "list", "--queue=--yes")
    assert lists.show_list(opened).words == ("jobs", "list", "--queue=--yes")
    action = lists.switch("pause", ["--create", "b"])
    assert action is not None
    assert action.words == ("queues", "pause", "--", "--create", "b")
    retry = lists.retry(QUEUES, ["--force"])
    assert retry is not None
    assert retry.words == ("retry", "--safe", "--queue=--force")


def test_what_has_no_failed_jobs_is_not_retried() -> None:
    assert lists.retry(JOBS, ["1"]) is None
    assert lists.retry(FAILED, []) is None
    assert Shown(FAILED).failed_jobs("1") is None
    assert Shown(LISTS[1]).failed_jobs("d1") == Shown(FAILED, ("d1",))


@pytest.mark.parametrize("of", [*LISTS, JOBS], ids=lambda of: of.name)
@pytest.mark.sqlite_only
def test_each_order_is_one_of_the_command(of: lists.List, queue_url: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JQ_DATABASE_URL", str(queue_url))
    for number in range(len(of.sorts)):
        assert run([*Shown(of, sort=number).words, "-o", "table"]) == 0


# -- keys


def test_every_key_does_something_and_is_written_once() -> None:
    for key in keys.KEYS:
        name = key.action.partition("(")[0]
        assert not name or callable(getattr(Top, f"action_{name}")), key
    shown = [key.shown for key in keys.KEYS]
    assert len(shown) == len(set(shown))


def test_the_page_has_every_key() -> None:
    page = (ROOT / "docs" / "top.md").read_text()
    for shown, meaning in keys.table(keys.KEYS):
        assert f"| `{shown}` | {meaning} |" in page


@pytest.mark.parametrize("width", [20, 40, 60, 80, 200])
@pytest.mark.parametrize("read_only", [False, True])
def test_the_line_of_keys_fits_and_always_names_help_and_the_way_out(width: int, read_only: bool) -> None:  # noqa: FBT001
    line = keys.line(keys.in_force(read_only=read_only), width)
    assert len(line) <= width
    assert line.endswith("? keys  q quit")
    assert ("r retry" in line) == (width >= 40 and not read_only)


# -- how lines are drawn


def test_colours_become_styles_and_nothing_else_is_an_escape() -> None:
    drawn = content("a \x1b[31mred\x1b[0m b \x1b[1mbold\x1b[0m")
    assert drawn.plain == "a red b bold"
    assert [(span.start, span.end, span.style) for span in drawn.spans] == [(2, 5, "ansi_red"), (8, 12, "bold")]
    assert plain("a \x1b[31mred\x1b[0m") == "a red"
    assert content("[red]no markup[/]").plain == "[red]no markup[/]"


def test_what_does_not_fit_is_counted() -> None:
    assert fit(["a", "b"], 2, "0") == ["a", "b"]
    assert fit(["a", "b", "c"], 2, "0 shows all") == ["a", "... 2 more lines; 0 shows all"]


# -- reading


def test_what_is_read_when_the_screens_are_gone_is_not_drawn() -> None:
    top = Top(SimpleNamespace(read_only=True), interval=2, alive_threshold=None)  # type: ignore[arg-type]
    assert top.screen_stack == []
    top.on_top_read(None)  # type: ignore[arg-type]  # nothing of it is looked at


def test_nobody_reads_more_often_than_every_two_seconds() -> None:
    assert LEAST == 2
    assert Poller(lambda: None, 0.1).pause(0.0) == LEAST
    assert Poller(lambda: None, 10).pause(0.5) == 10
    assert Poller(lambda: None, 2).pause(3.0) == 3 * SHARE
    held_up = Poller(lambda: None, 2)
    assert [held_up.pause(took) for took in (0.1, 15.0, 0.1)] == [2, 2, 2], "one read does not make a minute's silence"
    assert [held_up.pause(took) for took in (9.0, 9.0)] == [2, 9 * SHARE]
