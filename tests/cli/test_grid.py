"""How tables share a width, and how text is broken and shortened: whatever the words, the numbers and the width."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from solidjq_cli import flow, grid
from solidjq_cli.grid import Head, Names, Words

WORD = st.text("abcXYZ:_", min_size=1, max_size=46) | st.text("請求書発行", min_size=1, max_size=23)
SENTENCE = st.lists(st.text("abcdef", min_size=1, max_size=12), min_size=1, max_size=20).map(" ".join)
ROWS = st.lists(st.tuples(st.integers(0, 10**12), WORD, st.lists(WORD, min_size=1, max_size=20), SENTENCE), min_size=1)
HEADS = (
    Head("ID", right=True),
    Head("CLASS", gives=True, leaves=2),
    Head("HOSTS", gives=True, leaves=1),
    Head("REASON", flows=True),
)


def plain(text: str, _style: str) -> str:
    return text


def drawn(rows: list[tuple[int, str, list[str], str]], width: int | None) -> tuple[grid.Plan, list[str]]:
    cells = [[str(number), word, Names(tuple(names)), Words(text, "error")] for number, word, names, text in rows]
    plan = grid.plan(HEADS, cells, width)
    return plan, list(plan.lines(cells, plain))


@given(ROWS, st.sampled_from([40, 60, 80, 120, 200]))
def test_a_table_fits_and_cuts_no_id_no_title_and_no_reason(
    rows: list[tuple[int, str, list[str], str]], width: int
) -> None:
    plan, lines = drawn(rows, width)
    assert max(map(cell_len, [plan.title(), *lines])) <= width
    assert plan.title().split() == [HEADS[at].title for at in plan.shown]
    said = " ".join(lines).split()
    assert {str(number) for number, *_ in rows} <= set(said)
    for *_, reason in rows:
        assert set(reason.split()) <= set(said)


@given(ROWS)
def test_without_a_width_everything_is_whole(rows: list[tuple[int, str, list[str], str]]) -> None:
    plan, lines = drawn(rows, None)
    assert plan.shown == (0, 1, 2, 3)
    for line, (number, word, names, reason) in zip(lines, rows, strict=True):
        assert line.split() == [str(number), *word.split(), *", ".join(names).split(), *reason.split()]


def test_the_widest_gives_first_and_evenly() -> None:
    heads = [Head("A", gives=True), Head("B", gives=True), Head("C", gives=True)]
    plan = grid.plan(heads, [["x" * 60, "y" * 50, "z" * 16]], 80)
    assert plan.widths == (30, 30, 16)
    assert grid.plan(heads, [["x" * 60, "y" * 20, "z" * 16]], 80).widths == (40, 20, 16)


def test_columns_leave_in_their_order_and_a_reason_goes_below() -> None:
    heads = [Head("ID"), Head("B", leaves=2), Head("C", leaves=1), Head("WHY", flows=True)]
    row = ["1" * 20, "b" * 20, "c" * 20, "because of that"]
    assert grid.plan(heads, [row], 81).shown == (0, 1, 2, 3)
    assert grid.plan(heads, [row], 80).shown == (0, 1, 3)
    assert grid.plan(heads, [row], 40).shown == (0, 3)
    below = grid.plan(heads, [row], 30)
    assert (below.shown, below.below) == ((0,), (3,))
    assert list(below.lines([row], plain)) == ["1" * 20, "    because of that"]


def test_rows_that_come_later_and_are_wider_keep_their_ids() -> None:
    plan = grid.plan([Head("ID", right=True), Head("CLASS", gives=True)], [["1", "A"]], 40)
    assert list(plan.lines([["1234567", "A" * 40]], plain)) == ["1234567  AAAA…"]


def test_words_stand_in_lines_of_a_width() -> None:
    assert flow.wrap("one two  three", 9, "> ") == ["> one two", "  three"]
    assert flow.wrap("a /very/long/path/without/blanks b", 10) == ["a", "/very/long/path/without/blanks", "b"]
    assert flow.wrap("請求書を作成する", 8) == ["請求書を", "作成する"]
    assert flow.wrap("one two", None, "> ") == ["> one two"]


@given(
    st.lists(st.text("abc", min_size=1, max_size=9) | st.text("請求書", min_size=1, max_size=40)), st.integers(10, 80)
)
def test_no_line_is_wider_and_no_word_is_lost(words: list[str], width: int) -> None:
    lines = flow.wrap(" ".join(words), width)
    assert max(map(cell_len, lines)) <= width
    assert "".join("".join(lines).split()) == "".join(words)


def test_commands_are_broken_between_only() -> None:
    commands = ["jq incidents list", "jq retry --safe --dry-run", "jq doctor"]
    first = "next  jq incidents list | jq retry --safe --dry-run"
    assert flow.fill(commands, len(first), "next  ", gap=" | ") == [first, "      jq doctor"]
    assert len(flow.fill(commands, len(first) - 1, "next  ", gap=" | ")) == 2


@pytest.mark.parametrize(
    ("width", "lines"),
    [
        (60, ["9 incidents in 7 days                  shop_queue on db.shop"]),
        (40, ["9 incidents in 7 days         shop_queue"]),
        (30, ["shop_queue", "9 incidents in 7 days"]),
        (12, ["shop_queue", "9 incidents", "in 7 days"]),
        (None, ["9 incidents in 7 days  shop_queue on db.shop"]),
    ],
)
def test_a_heading_names_the_database_at_the_right(width: int | None, lines: list[str]) -> None:
    assert flow.heading("9 incidents in 7 days", ["shop_queue on db.shop", "shop_queue"], width) == lines


def test_a_long_heading_has_the_database_beside_its_last_words() -> None:
    lines = flow.heading("d25: killed: 1 process with 3 jobs on app-2, at 13:24:16 UTC", ["shop_queue"], 36)
    assert lines == [
        "d25: killed: 1 process with 3 jobs",
        "on app-2, at 13:24:16",
        "UTC                       shop_queue",
    ]


def test_several_names_are_counted_where_they_do_not_fit() -> None:
    several = ["worker-1", "worker-2", "worker-3"]
    assert flow.names(several) == "worker-1, worker-2, worker-3"
    assert flow.names(several, 21) == "worker-1, worker-2 +1"
    assert flow.names(several, 11) == "worker-1 +2"
    assert flow.names(several, 8) == "work… +2"
    assert flow.names([], 8) == "-"


@pytest.mark.parametrize(
    ("hosts", "short"),
    [
        (["worker-1.ams2.internal", "worker-2.ams2.internal"], ["worker-1", "worker-2"]),
        (["worker-1.ams2.internal", "worker-1.fra1.internal"], ["worker-1.ams2", "worker-1.fra1"]),
        (["worker-1.internal", "worker-2"], ["worker-1.internal", "worker-2"]),
        (["10.0.0.1", "10.0.1.1"], ["10.0.0.1", "10.0.1.1"]),
        (["worker-1.internal"], ["worker-1"]),
        (["internal", "internal"], ["internal", "internal"]),
        (["", "a.b"], ["", "a"]),
    ],
)
def test_hosts_lose_what_all_of_them_share(hosts: list[str], short: list[str]) -> None:
    shown = flow.short_hosts(hosts)
    assert [shown[host] for host in hosts] == short
