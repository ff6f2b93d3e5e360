"""``-o markdown``: a table or a list of fields for a ticket, in which no text of the database is markup."""

import pytest

from solidjq import Database, NewJob
from solidjq.rails.error_text import error_json
from solidjq_cli.markdown import text, value
from support.program import Shell
from support.queue import fail


@pytest.mark.parametrize(
    ("words", "written"),
    [
        ("Mailers::Order_Job", "Mailers::Order_Job"),
        ("_a_ *b* `c`", r"\_a\_ \*b\* \`c\`"),
        ("[x](http://y) <img> &amp; a|b", r"\[x\](http:<!-- -->//y) \<img\> \&amp; a\|b"),
        ("see www.x.example #17 # a.b", r"see www.<!-- -->x.example \#<!-- -->17 \# a.b"),
        ("@all ping root@host", "@<!-- -->all ping root@<!-- -->host"),
        ("two\nlines \x1b[31m", r"two lines \\x1b\[31m"),
    ],
)
def test_a_text_stays_a_text(words: str, written: str) -> None:
    assert text(words) == written


def test_values_as_a_person_writes_them() -> None:
    assert [value(each) for each in (None, [], {}, 7, True, ["a", "b"], {"X": 3435, "Y": 1}, {"X": None})] == [
        *("", "", "", "7", "true", "a, b", "X (3,435), Y (1)"),
        '{"X": null}',
    ]


@pytest.mark.sqlite_only
def test_a_list_and_one_of_it(database: Database, shell: Shell) -> None:
    (job_id,) = fail(database, NewJob(class_name="A|B"), error=error_json("E", "[no](link) password=hunter2"))
    table = shell.run("failed", "list", "-o", "markdown").stdout.splitlines()
    assert table[0].startswith("| JOB | CLASS |")
    assert table[1].startswith("| --- | --- |")
    assert table[2].startswith(rf"| {job_id} | A\|B |")
    assert len(table) == 3
    shown = shell.run("failed", "show", str(job_id), "-o", "markdown").stdout
    assert r"- **class_name**: A\|B" in shown
    assert r"\[no\](link)" in shown
    assert "hunter2" not in table[2] + shown
    assert (
        shell.run("failed", "list", "-o", "markdown", "--fields", "job_id").stdout
        == f"| JOB |\n| --- |\n| {job_id} |\n"
    )
    assert shell.run("failed", "diff", "-o", "markdown").stdout.startswith("| GROUP | JOBS | ERROR |")
