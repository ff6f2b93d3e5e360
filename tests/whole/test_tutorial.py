"""The docs: each block of the tutorial is run as it stands, links lead somewhere, the reference leaves nothing out."""

import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import tempfile
import termios
import time
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import NamedTuple

import psutil
import pytest
from sqlalchemy import Table

import solidjq
from solidjq.database import tables
from solidjq.settings.policy import ClassPolicy
from solidjq.settings.profiles import Profile
from support.every_command import COMMANDS, REFUSED
from support.paths import ROOT
from support.servers import memory_folder

TUTORIAL = ROOT / "docs" / "tutorial.md"
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("bench/*.md"), *ROOT.glob("docs/**/*.md")])
PATIENCE = 600  # seconds for all of the tutorial, which takes less than half a minute on an idle machine
MARK = "\x1e"  # printed after each block, with its exit status

# -- the tutorial, run as it stands -----------------------------------------------------------------------------------


class Block(NamedTuple):
    """Commands to type, and the output that the page shows for them."""

    line: int
    commands: str
    shown: list[str]


def read_blocks(page: Path) -> list[Block]:
    blocks: list[Block] = []
    text = page.read_text()
    for fence in re.finditer(r"^```(\w*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
        kind, body = fence.groups()
        if kind == "sh":
            blocks.append(Block(text.count("\n", 0, fence.start()) + 2, body, []))
        else:
            assert kind == "text", f"the tutorial has a block of another kind: {kind!r}"
            assert blocks, "the first block shows an output"
            assert not blocks[-1].shown, f"line {blocks[-1].line}: two outputs for one block of commands"
            blocks[-1].shown.extend(body.splitlines())
    return blocks


# What may differ from the page, as the page says itself; everything else must be there to the letter.
VARIES = re.compile(
    r"""
      (?P<rest>\.\.\.)
    | (?P<who>me@laptop)
    | (?P<host>\blaptop\b)
    | (?P<uuid>\b[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\b)
    | (?P<name>(?<=-)[0-9a-f]{20}\b)
    | (?P<date>\b\d{4}-\d\d-\d\d[ T]\d\d:\d\d:\d\d(?:\.\d+)?)
    | (?P<age>\b\d+[smh](?:\sago)?\b)
    | (?P<memory>\b\d+\sMB\b)
    | (?P<version>\b\d+\.\d+\.\d+\b)
    | (?P<pid>\b\d{5}\b)
    | (?P<began>(?<=on[ ]laptop\))$)
    | (?P<space>\s+)
    """,
    re.VERBOSE,
)
PATTERNS = {
    "rest": r".*",
    "who": r"\S+@\S+",
    "host": r"\S+",
    "uuid": r"[0-9a-f-]{36}",
    "name": r"[0-9a-f]{20}",
    "date": r"\d{4}-\d\d-\d\d[ T]\d\d:\d\d:\d\d(?:\.\d+)?",
    "age": r"\d+[smh](?: ago)?",
    "memory": r"\d+ MB",
    "version": r"\d+\.\d+\.\d+",
    "pid": r"\d+",
    "began": r"(?:, \d+\.\d s after the job began)?",  # where the machine is slow
    "space": r"\s+",
}


def pattern(line: str) -> re.Pattern[str]:
    written, end = "", 0
    for varying in VARIES.finditer(line):
        written += re.escape(line[end : varying.start()]) + PATTERNS[str(varying.lastgroup)]
        end = varying.end()
    return re.compile(written + re.escape(line[end:]))


def missing_line(shown: list[str], output: str) -> str | None:
    """Return the first shown line that the output lacks; the shown lines must be there whole and in this order."""
    printed = iter([line.strip() for line in output.splitlines()])
    for line in shown:
        wanted = line.strip()
        if wanted == "...":
            continue
        # Which of several processes registered first is chance, and its id with it.
        words = re.compile(r"(?:\d+\s+)?" + pattern(wanted).pattern) if line.startswith("    ") else pattern(wanted)
        if not any(words.fullmatch(each) for each in printed):
            return line
    return None


def run_in_terminal(script: str, folder: Path) -> str:
    """Run a script of bash whose output is a terminal of 120 columns; return what it printed."""
    (folder / "tutorial.sh").write_text(script)
    settings = {name: value for name, value in os.environ.items() if not name.startswith(("JQ_", "COLUMNS", "LINES"))}
    settings |= {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "TERM": "xterm", "NO_COLOR": "1"}
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 50, 120, 0, 0))
    shell = subprocess.Popen(
        ["bash", "--noprofile", "--norc", folder / "tutorial.sh"],
        cwd=folder,
        env=settings,
        stdin=subprocess.DEVNULL,
        stdout=theirs,
        stderr=theirs,
    )
    os.close(theirs)
    try:
        printed = read_all(ours, shell)
        shell.wait(PATIENCE)
        return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", printed).replace("\r\n", "\n")
    finally:
        os.close(ours)
        stop_tree(shell)


def read_all(terminal: int, shell: subprocess.Popen[bytes]) -> str:
    os.set_blocking(terminal, False)
    printed, deadline = b"", time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        ended = shell.poll() is not None
        try:
            part = os.read(terminal, 65536)
        except BlockingIOError:
            part = b""
            time.sleep(0.02)
        except OSError:  # the last program that had it open has ended
            break
        printed += part
        if ended and not part:
            break
    else:
        raise AssertionError(f"the tutorial did not end within {PATIENCE} s; it printed:\n{printed.decode()}")
    return printed.decode()


def stop_tree(shell: subprocess.Popen[bytes]) -> None:
    for process in [*psutil.Process().children(recursive=True)]:
        if process.pid == shell.pid or shell.pid in {parent.pid for parent in process.parents()}:
            process.kill()
    shell.wait(PATIENCE)


@pytest.fixture
def short_folder() -> Iterator[Path]:
    """A folder whose path is short: lines that name a file of it break where those of the page do."""
    with tempfile.TemporaryDirectory(prefix="jq-", dir=memory_folder(), ignore_cleanup_errors=True) as folder:
        yield Path(folder)


def test_every_block_of_the_tutorial_prints_what_the_page_shows(short_folder: Path) -> None:
    blocks = read_blocks(TUTORIAL)
    # Each background job gets a process group of its own, as at a prompt.
    script = "set -m\n" + "".join(f"{block.commands}printf '{MARK}%d{MARK}' $?\n" for block in blocks)
    output = run_in_terminal(script, short_folder)
    parts = output.split(MARK)
    assert len(parts) == 2 * len(blocks) + 1, output
    for block, printed, status in zip(blocks, parts[::2], parts[1::2], strict=False):
        place = f"docs/tutorial.md, line {block.line}:\n{block.commands}"
        assert status == "0", f"{place}exit status {status}:\n{printed}"
        missing = missing_line(block.shown, printed)
        assert missing is None, f"{place}did not print\n{missing}\nbut\n{printed}"


SAME = [
    ("worker-59d1be2018578c38073d laptop 11708 0s ago 2", "worker-0123456789abcdef0123  vm  7  14s ago  2"),
    ("photos  no  4  0  -", "photos  no          4        0  -"),
    ("    Worker  2", "3  Worker  2"),
]
DIFFERENT = [
    ("worker-59d1be2018578c38073d laptop 11708 0s ago 2", "worker-0123456789abcdef0123  vm  7  14s ago  1"),
    ("jq: retried 2 jobs: 2 ready", "jq: retried 1 job: 1 ready"),
    ("Worker  2", "3  Worker  2"),
]


def test_only_what_varies_may_differ_from_the_page() -> None:
    assert all(missing_line([line], printed) is None for line, printed in SAME)
    assert all(missing_line([line], printed) == line for line, printed in DIFFERENT)


def test_shown_lines_must_come_in_their_order() -> None:
    assert missing_line(["one", "...", "two"], "one\nand\ntwo\n") is None
    assert missing_line(["two", "one"], "one\ntwo\n") == "one"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_zsh_takes_every_block_as_it_is_typed(page: Path) -> None:
    """At a prompt of zsh ``$!)`` ends in "event not found": what follows a ``!`` must end it."""
    for block in re.findall(r"^```sh\n(.*?)^```$", page.read_text(), re.MULTILINE | re.DOTALL):
        assert re.findall(r"!(?![ \n=(]).*", re.sub(r"'[^']*'", "", block)) == []


# -- the links between pages ------------------------------------------------------------------------------------------


def links(page: Path) -> Iterator[str]:
    prose = re.sub(r"^```.*?^```$|`[^`\n]*`", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    yield from re.findall(r"\]\(([^)\s]+)\)", prose)


def anchors(page: Path) -> set[str]:
    """Return the anchors that the headings of a page get where it is rendered."""
    text = re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    headings = re.findall(r"^#+ +(.*?) *$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_between_pages_leads_somewhere(page: Path) -> None:
    for link in links(page):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), f"{link}: there is no such file"
        assert target.is_relative_to(ROOT), f"{link} leads out of the repository"
        assert not anchor or anchor in anchors(target), f"{link}: no heading of that page has this anchor"


def test_the_first_page_is_read_in_a_minute() -> None:
    lines = (ROOT / "README.md").read_text().splitlines()
    assert len(lines) <= 60
    assert [line for line in lines if len(line) > 128] == []


def test_the_index_lists_every_page() -> None:
    index = ROOT / "docs" / "README.md"
    listed = {(index.parent / link.partition("#")[0]).resolve() for link in links(index)}
    missing = {page for page in PAGES if page.is_relative_to(index.parent) and page != index} - listed
    assert not missing, sorted(str(page.relative_to(ROOT)) for page in missing)


# -- the reference, beside the code -----------------------------------------------------------------------------------


def names_in_first_column(text: str) -> set[str]:
    cells = re.findall(r"^\| (`[^|]*) \|", text, re.MULTILINE)
    return {name for cell in cells for name in re.findall(r"`([^`]+)`", cell)}


def section(page: str, title: str) -> str:
    found = re.search(rf"^(#+) {re.escape(title)}\n(.*?)(?=^#|\Z)", page, re.MULTILINE | re.DOTALL)
    assert found is not None, f"there is no section {title!r}"
    return found[2]


@pytest.mark.parametrize("table", tables.jq.sorted_tables, ids=str)
def test_the_page_of_tables_has_every_column_and_no_other(table: Table) -> None:
    page = (ROOT / "docs" / "tables.md").read_text()
    assert names_in_first_column(section(page, table.name)) == {column.name for column in table.columns}


def test_the_page_of_settings_has_every_key_and_no_other() -> None:
    page = (ROOT / "docs" / "configuration.md").read_text()
    policy = names_in_first_column(section(page, "Retry policy: `[default]` and `[classes.NAME]`"))
    assert policy == {field.name for field in fields(ClassPolicy)} - {"sources"}
    profile = names_in_first_column(section(page, "Databases: `[profiles.NAME]`"))
    assert profile == {field.name for field in fields(Profile)} - {"name", "place"}


def test_the_page_of_settings_has_every_variable_and_no_other() -> None:
    page = (ROOT / "docs" / "configuration.md").read_text()
    sources = [path.read_text() for room in ("core", "cli") for path in (ROOT / room).rglob("*.py")]
    read = {name for text in sources for name in re.findall(r"\bJQ_[A-Z_]+\b", text)}
    internal = {"JQ_DEMO_JOURNAL"}  # the demo's own, to its jobs
    assert {name for name in names_in_first_column(page) if name.startswith("JQ_")} == read - internal


@pytest.mark.parametrize("page", ["permissions", "connecting", "how-to/read-only-on-call"])
def test_a_page_that_lists_what_changes_a_database_leaves_no_command_out(page: str) -> None:
    text = " ".join((ROOT / "docs" / f"{page}.md").read_text().split())
    listed = re.search(r"`prune`, `retry`.*?`doctor --fix`", text)
    assert listed is not None
    words = set(re.findall(r"[a-z-]+", listed[0]))
    elsewhere = {"init", "enqueue", "work", "doctor"}  # the pages have other sentences for these
    changing = {line for line, code in COMMANDS.items() if code is REFUSED and line.split()[0] not in elsewhere}
    assert len(changing) > 10
    for command in changing:
        named = re.findall(r"[a-z-]+", command.split(" {")[0].split(" --")[0])
        assert set(named[:2] if named[0] in {"jobs", "queues"} else named[:1]) <= words, command


def test_the_page_of_python_has_all_that_the_package_exports() -> None:
    page = (ROOT / "docs" / "python.md").read_text()
    assert names_in_first_column(re.sub(r"\[(`.*?)\]\(.*?\)", r"\1", page.split("## ")[0])) == set(solidjq.__all__)
