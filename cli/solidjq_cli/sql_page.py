"""The page docs/sql.md: every hot statement as each database gets it, with its guard."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import re
from itertools import groupby
from typing import TYPE_CHECKING, Any

from sqlalchemy.engine import make_url

import solidjq
from solidjq.database.hot import STATEMENTS, HotStatement
from solidjq.database.statements import WriteStyle

if TYPE_CHECKING:
    from collections.abc import Iterator

WIDTH = 110  # of a line of SQL
INDENT = "    "
WIDEST = WIDTH + len(INDENT)  # of an indented one

_INTRODUCTION = """
# Hot statements

These statements run every few milliseconds: workers claim and finish jobs with them, applications enqueue, and a retry
of many failures puts them back. Each is written once, as a function marked `@hot` beside the move that executes it, and
sent to every database in the form below. `:name` is a value that the call passes; a list of ids is one value.

A move between two tables takes one statement on PostgreSQL, where a CTE can delete rows and the next insert what was
deleted. On SQLite, a statement returns the rows that it changed to the program. On MySQL and MariaDB it does not, so
rows are locked and read first. A guard is what makes a statement safe while other programs do the same.
""".strip()

URLS = {
    WriteStyle.CHAINED: "postgresql+psycopg://",
    WriteStyle.SILENT: "mysql+pymysql://",
    WriteStyle.RETURNING: "sqlite://",
}


def page() -> Iterator[str]:
    """Yield the lines of the page."""
    statements = hot_statements()
    yield from (
        "",
        _INTRODUCTION,
        "",
        f"| statement | {' | '.join(style.value for style in URLS)} |",
        "|---|---|---|---|",
    )
    for statement in statements:
        marks = ("yes" if style in statement.styles else "" for style in URLS)
        yield f"| [{statement.name}](#{statement.name}) | {' | '.join(marks)} |"
    for module, group in groupby(statements, lambda statement: statement.module):
        yield from ("", f"## {module.replace('.', '/')}.py")
        for statement in group:
            yield from _section(statement)


def hot_statements() -> list[HotStatement[Any]]:
    """Return every hot statement of the core, by module, in the order of the file; loads all modules to find them."""
    for module in pkgutil.walk_packages(solidjq.__path__, "solidjq."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    return sorted(STATEMENTS.values(), key=lambda statement: statement.module)


def _section(statement: HotStatement[Any]) -> Iterator[str]:
    text = inspect.getdoc(statement) or ""
    yield from ("", f"### {statement.name}", "", re.sub(r"(?m)^(Guard:|No guard:)", r"**\1**", text))
    for style, url in URLS.items():
        if style in statement.styles:
            dialect: Any = make_url(url).get_dialect()
            sql = statement.sql(dialect(paramstyle="named"))
            yield from ("", f"{style.value}:", "", "```sql", *layout(sql), "```")


# -- SQL on lines of its own ------------------------------------------------------------------------------------------

_SUBQUERY = re.compile(r"\((?=(SELECT|INSERT|UPDATE|DELETE) )")
_CLAUSE = re.compile(
    r"\b(WITH|SELECT|INSERT INTO|DELETE FROM|USING|UPDATE|SET|VALUES|FROM|((LEFT( OUTER)?|INNER) |STRAIGHT_)?JOIN"
    r"|WHERE|GROUP BY|ORDER BY|LIMIT|FOR UPDATE|FOR KEY SHARE|LOCK IN SHARE MODE|RETURNING|UNION ALL)\b"
)


def layout(sql: str) -> list[str]:
    """Return SQL with each clause on a line of its own, and long clauses and subqueries on several, indented."""
    sql = re.sub(r"\s+", " ", sql).strip()
    # It begins at 0 in any case: with a parenthesis, if it is a UNION.
    starts = sorted({0, *(match.start() for match in _CLAUSE.finditer(_outside(sql)))})
    parts = (sql[start:end].strip() for start, end in zip(starts, [*starts[1:], len(sql)], strict=True))
    return [line for part in parts for line in _clause(part)]


def _outside(sql: str) -> str:
    """Return the text with all that is in quotes or parentheses blanked, so that it can be searched for keywords."""
    outside, depth, quoted = [], 0, False
    for character in sql:
        quoted ^= character == "'"
        depth -= character == ")" and not quoted
        outside.append("_" if depth or quoted else character)
        depth += character == "(" and not quoted
    return "".join(outside)


def _clause(text: str) -> list[str]:
    """Return a clause on one line if it fits; else its subqueries, conditions or items on lines of their own."""
    lines = _filled(text)
    if not text.startswith("WITH") and all(len(line) <= WIDEST for line in lines):
        return lines
    match = _SUBQUERY.search(text)
    if match is None:
        return lines
    start = match.end()
    end = start + _length_inside(text[start:])
    within = [f"{INDENT}{line}" for line in layout(text[start:end])]
    before, after = _filled(text[:start]), text[end + 1 :]
    if text.startswith("WITH") and after.startswith(","):
        following = _clause(f"WITH {after[1:].strip()}")
        return [*before, *within, "),", following[0].removeprefix("WITH "), *following[1:]]
    first, *others = _clause(after)
    return [*before, *within, f"){first}", *others]


def _length_inside(text: str) -> int:
    """Return how much of the text stands before the parenthesis that closes one opened before it."""
    outside = _outside(f"({text}")[1:]
    return len(outside) - len(outside.lstrip("_"))


def _filled(text: str) -> list[str]:
    """Return text on lines that are broken after a comma, before an AND or OR, or between two rows compared."""
    listed = re.fullmatch(r"((?:INSERT INTO \S+|VALUES) \()(.*)\)", text)
    outside = f"{'_' * len(listed[1])}{_outside(listed[2])}_" if listed else _outside(text)
    breaks = [match.end() for match in re.finditer(r", | (?=(?:AND|OR) |>= \()", outside)]
    lines, start, end = [], 0, 0
    for place in [*breaks, len(text)]:
        if end > start and place - start > WIDTH:
            lines.append(text[start:end].rstrip())
            start = end
        end = place
    lines.append(text[start:].rstrip())
    return [part for line in [lines[0], *(f"{INDENT}{line}" for line in lines[1:])] for part in _shortened(line)]


def _shortened(line: str) -> list[str]:
    """Return a line that is still too long, as a CASE may be, on several: broken before its last such word."""
    outside = re.sub(r"'[^']*'", lambda quoted: "_" * len(quoted[0]), line)
    places = [match.start() for match in re.finditer(r"(?<=\S) (?=(AND|THEN|ELSE|COLUMNS) )", outside[:WIDEST])]
    if len(line) <= WIDEST or not places:
        return [line]
    begin = INDENT * (1 + (line.startswith(INDENT)))
    return [line[: places[-1]], *_shortened(f"{begin}{line[places[-1] + 1 :]}")]
