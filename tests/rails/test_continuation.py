"""The progress in a job's payload: read and written as ``ActiveJob::Continuation`` does, byte by byte."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from solidjq.errors import StepError, UsageError
from solidjq.rails.active_job import call_of, reset_counters
from solidjq.rails.continuation import MOST_CURSOR, NO_PROGRESS, Progress, check_cursor, progress_of, with_progress
from solidjq.untrusted import MOST_DEPTH
from support.continuations import continued

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
cursors = st.recursive(
    st.none() | st.booleans() | st.integers() | texts, lambda inner: st.lists(inner, max_size=4), max_leaves=8
)
progresses = st.builds(
    Progress, st.lists(texts, max_size=3).map(tuple), st.none() | texts, cursors, st.integers(0, 2**40)
).map(lambda made: made if made.current is not None else made.complete())
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=10,
)


@given(progresses)
def test_what_is_written_is_read(progress: Progress) -> None:
    arguments = with_progress(continued({"completed": []}), progress)
    assert progress_of(arguments) == progress
    assert with_progress(arguments, progress) == arguments
    continuation: dict[str, Any] = {"completed": progress.completed}
    if progress.current is not None:
        continuation["current"] = [progress.current, progress.cursor]
    assert arguments == continued(continuation, progress.resumptions)


@given(progresses, st.dictionaries(texts, json_values, max_size=3), st.dictionaries(texts, json_values, max_size=3))
def test_every_other_key_stays_byte_by_byte(progress: Progress, in_payload: Any, in_continuation: Any) -> None:
    known = {"completed", "current", "continuation", "resumptions", "arguments"}
    kept, inner = ({k: v for k, v in data.items() if k not in known} for data in (in_payload, in_continuation))
    odd = json.dumps({"n": 1.50e300, "text": "<é \u2028>", **kept}, indent=1)
    before = f'{{"arguments":[{odd}],"continuation":{json.dumps({**inner, "completed": []})},"x" : 1E2}}'
    after = with_progress(before, progress)
    assert odd in after
    assert after.startswith(f'{{"arguments":[{odd}],"continuation":{{')
    assert '"x" : 1E2' in after
    read = json.loads(after)
    assert {k: v for k, v in read["continuation"].items() if k not in known} == inner
    assert progress_of(after) == progress


# What docs/rails-checkpoints.md wrote into the row of a running job, on Rails 8.1.3 with Solid Queue 1.5.0.
SAVED_BY_RAILS = (
    '{"job_class":"ImportJob","job_id":"de9409bb-c769-4310-95b8-2495ea4f90df","provider_job_id":null,'
    '"queue_name":"default","priority":null,"arguments":[300,0.1],"executions":0,"exception_executions":{},'
    '"locale":"en","timezone":"UTC","enqueued_at":"2026-11-26T15:07:34.140131045Z",'
    '"scheduled_at":"2026-11-26T15:07:34.070790606Z",'
    '"continuation":{"completed":["fetch"],"current":["import",100]},"resumptions":0}'
)


def test_what_rails_saved_while_the_job_ran_is_read_and_written_alike() -> None:
    progress = progress_of(SAVED_BY_RAILS)
    assert progress == Progress(("fetch",), "import", 100)
    assert with_progress(SAVED_BY_RAILS, progress) == SAVED_BY_RAILS
    assert reset_counters(SAVED_BY_RAILS) == SAVED_BY_RAILS
    further = with_progress(SAVED_BY_RAILS, progress.complete().begin("clean"))
    assert '"continuation":{"completed":["fetch","import"],"current":["clean",null]},"resumptions":0}' in further


@given(json_values | st.text(), json_values)
def test_damaged_rows_have_no_progress(continuation: Any, resumptions: Any) -> None:
    arguments = json.dumps({"arguments": [1], "continuation": continuation, "resumptions": resumptions})
    progress = progress_of(arguments)
    assert progress.words is not None
    assert progress_of(with_progress(arguments, Progress(("a",), "b", 1))) == Progress(("a",), "b", 1)
    assert call_of(with_progress(arguments, progress)).args == [1]


@pytest.mark.parametrize(
    "arguments",
    [
        None,
        "",
        "null",
        '"continuation"',
        '{"continuation"',
        '{"continuation":null}',
        '{"continuation":{}}',
        '{"continuation":{"completed":[1]}}',
        '{"continuation":{"completed":["a"],"current":["b"]}}',
        '{"continuation":{"completed":["a"],"current":["b",1,2]}}',
        '{"continuation":{"completed":["a"],"current":[1,2]}}',
        '{"continuation":{"completed":["a"],"current":null}}',
        '{"continuation":{"completed":["a"],"current":["b",NaN]}}',
        '{"continuation":{"completed":["a"],"current":["b",1e400]}}',
        r'{"continuation":{"completed":["\ud800"]}}',
        '{"continuation":{"completed":["a"],"current":["b",' + "9" * 5000 + "]}}",
        '{"continuation":{"completed":["a"],"current":["b",' + "[" * 200 + "]" * 200 + "]}}",
        '{"continuation":' + "[" * 100_000,
    ],
)
def test_damage_of_many_kinds(arguments: str | None) -> None:
    assert progress_of(arguments) is NO_PROGRESS


def test_rails_counters_are_reset_and_its_progress_stays() -> None:
    worn = continued({"completed": ["a"], "current": ["b", 7], "attributes": {"x": 1.0}}, 2, executions=3)
    fresh = reset_counters(worn)
    assert fresh == continued({"completed": ["a"], "current": ["b", 7], "attributes": {"x": 1.0}}, 2)
    assert progress_of(fresh) == Progress(("a",), "b", 7, 2)
    assert progress_of(fresh).words == "step b, cursor 7"


@pytest.mark.parametrize(
    ("cursor", "words"),
    [
        (1.5, "of type float"),
        ((1, 2), "of type tuple"),
        ([1, {"a": 1}], "of type dict"),
        ("\ud800", "half a character"),
        ("x" * MOST_CURSOR, "more than 16384 bytes"),
        pytest.param(10**5000, "more than 16384 bytes", id="endless"),
    ],
)
def test_a_cursor_is_a_position(cursor: Any, words: str) -> None:
    with pytest.raises(StepError, match=words):
        check_cursor("import", cursor)


def test_a_cursor_is_not_nested_without_end() -> None:
    nested: Any = []
    for _ in range(MOST_DEPTH + 1):
        nested = [nested]
    with pytest.raises(StepError, match="nested deeper"):
        check_cursor("import", nested)
    nested = []
    nested.append(nested)
    with pytest.raises(StepError, match="nested deeper"):
        check_cursor("import", nested)


def test_the_largest_cursor() -> None:
    check_cursor("import", "x" * (MOST_CURSOR - 2))


def test_words() -> None:
    assert NO_PROGRESS.words == ""
    assert Progress(("fetch",)).words == "after step fetch"
    assert Progress(("fetch",), "import").words == "step import, at its beginning"
    assert Progress((), "import", ["a", 1]).words == 'step import, cursor ["a",1]'
    assert len(Progress((), "import", "x" * 1000).words) < 120


def test_back_to_an_earlier_step() -> None:
    progress = Progress(("a", "b"), "c", 9, 1)
    assert progress.back_to("c", 4) == Progress(("a", "b"), "c", 4, 1)
    assert progress.back_to("a") == Progress((), "a", None, 1)
    with pytest.raises(UsageError, match=r"begun so far: a, b, c"):
        progress.back_to("d")
