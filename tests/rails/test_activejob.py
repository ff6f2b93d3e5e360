"""Active Job's JSON, both ways: what Rails writes is read, and what is written Rails reads."""

import json
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from solidjq.errors import ArgumentsError
from solidjq.rails.active_job import Call, call_of, dumps, payload, reset_counters, shown_arguments
from solidjq.rails.argument_values import deserialize
from solidjq.rails.ruby_values import GlobalID, Symbol

NOW = datetime(2026, 11, 23, 4, 40, 22, 22096, UTC)


def written(*args: Any, **kwargs: Any) -> str:
    return payload(
        class_name="ReportJob",
        active_job_id="0b8e9c1a-0f6a-4c0e-9d56-2f7c2f6d5a10",
        queue_name="mailers",
        priority=None,
        call=Call(list(args), kwargs),
        now=NOW,
        scheduled_at=NOW + timedelta(hours=1),
    )


def serialized(*args: Any, **kwargs: Any) -> list[Any]:
    """Return the list that stands under ``arguments``."""
    found: list[Any] = json.loads(written(*args, **kwargs))["arguments"]
    return found


def read(*arguments: Any) -> Call:
    """Read arguments as Rails would have stored them."""
    return call_of(json.dumps({"job_class": "ReportJob", "arguments": arguments}))


# -- what is written


def test_a_payload_is_compact_and_has_the_fields_of_rails_in_their_order() -> None:
    assert written(42, "ž 日本") == (
        '{"job_class":"ReportJob","job_id":"0b8e9c1a-0f6a-4c0e-9d56-2f7c2f6d5a10","provider_job_id":null,'
        '"queue_name":"mailers","priority":null,"arguments":[42,"ž 日本"],"executions":0,"exception_executions":{},'
        '"locale":"en","timezone":"UTC","enqueued_at":"2026-11-23T04:40:22.022096000Z",'
        '"scheduled_at":"2026-11-23T05:40:22.022096000Z"}'
    )


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, None),
        (True, True),
        (2**100, 2**100),
        (1.5, 1.5),
        ("\x00\u2028", "\x00\u2028"),
        ((1, [2, ()]), [1, [2, []]]),
        ({"a": {"b": 1}}, {"a": {"b": 1, "_aj_symbol_keys": []}, "_aj_symbol_keys": []}),
        (
            datetime(2026, 11, 23, 6, 40, 22, 5, timezone(timedelta(hours=2))),
            {"_aj_serialized": "ActiveJob::Serializers::TimeSerializer", "value": "2026-11-23T04:40:22.000005000Z"},
        ),
        (date(2026, 11, 23), {"_aj_serialized": "ActiveJob::Serializers::DateSerializer", "value": "2026-11-23"}),
        (Decimal("1.50"), {"_aj_serialized": "ActiveJob::Serializers::BigDecimalSerializer", "value": "1.50"}),
    ],
)
def test_each_kind_of_value_has_active_jobs_form(value: Any, expected: Any) -> None:
    assert serialized(value) == [expected]
    assert serialized(key=value) == [{"key": expected, "_aj_ruby2_keywords": ["key"]}]


def test_keywords_are_the_last_argument() -> None:
    assert serialized(1, {"a": 2}, b=3, c=4) == [
        1,
        {"a": 2, "_aj_symbol_keys": []},
        {"b": 3, "c": 4, "_aj_ruby2_keywords": ["b", "c"]},
    ]


@pytest.mark.parametrize(
    ("value", "complaint"),
    [
        (object(), "type object"),
        (b"bytes", "type bytes"),
        ({1, 2}, "type set"),
        (float("nan"), "no form in JSON"),
        (float("inf"), "no form in JSON"),
        (10**5000, "no form in JSON"),
        (datetime(2026, 1, 1), "time zone"),  # noqa: DTZ001  (that is the point)
        ({1: 2}, "1 cannot be a key"),
        ({"_aj_symbol_keys": []}, "reserved by Active Job"),
        ([{"deep": {"_aj_serialized": "x"}}], "reserved by Active Job"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_active_job_has_no_form_for_is_refused(value: Any, complaint: str) -> None:
    with pytest.raises(ArgumentsError, match=complaint):
        written(value)


def test_a_reserved_keyword_is_refused() -> None:
    with pytest.raises(ArgumentsError, match="reserved by Active Job"):
        written(_aj_globalid="gid://app/User/1")


@pytest.mark.parametrize("year", [1, 999, 1000, 9999])
def test_a_time_of_any_year_is_read_again(year: int) -> None:
    time = datetime(year, 2, 3, 4, 5, 6, 7, UTC)
    assert call_of(written(time)) == Call([time], {})


@pytest.mark.parametrize(
    "time",
    [
        datetime(1, 1, 1, tzinfo=timezone(timedelta(hours=1))),
        datetime(9999, 12, 31, 23, tzinfo=timezone(-timedelta(hours=1))),
    ],
    ids=str,
)
def test_a_time_that_utc_has_no_year_for_is_refused(time: datetime) -> None:
    with pytest.raises(ArgumentsError):
        written(time)


# -- there and back

KEYS = st.text().filter(lambda key: not key.startswith("_aj_"))
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(-(10**400), 10**400)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text()
    | st.decimals(allow_nan=False, allow_infinity=False)
    | st.dates()
    | st.datetimes(
        datetime(1000, 1, 2),  # noqa: DTZ001  (as this takes them)
        datetime(9999, 12, 30),  # noqa: DTZ001
        timezones=st.sampled_from([UTC, timezone(timedelta(hours=5, minutes=45)), timezone(-timedelta(hours=11))]),
    ).map(lambda time: time.replace(fold=0)),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=12,
)


@settings(deadline=None, max_examples=150)
@given(st.lists(VALUES, max_size=4), st.dictionaries(KEYS, VALUES, max_size=4))
@example([{"value": "x"}], {"arguments": []})
@example([10**4000, -0.0, 5e-324], {"": {"": []}})
def test_a_call_that_is_written_is_read_as_the_same(args: list[Any], kwargs: dict[str, Any]) -> None:
    document = written(*args, **kwargs)
    call = call_of(document)
    assert call == Call(args, kwargs)
    assert repr(call) == repr(Call(_in_utc(args), _in_utc(kwargs)))  # and of the same types
    assert document == dumps(json.loads(document))
    assert reset_counters(document) == document


def _in_utc(value: Any) -> Any:
    match value:
        case list():
            return [_in_utc(item) for item in value]
        case dict():
            return {key: _in_utc(item) for key, item in value.items()}
        case datetime():
            return value.astimezone(UTC)
        case _:
            return value


def test_a_lone_surrogate_does_not_stop_the_job_from_being_stored() -> None:
    assert call_of(written("a\ud800b")) == Call(["a?b"], {})


# -- what Rails writes

AJ = "ActiveJob::Serializers::"
MONTHS = {"_aj_serialized": f"{AJ}SymbolSerializer", "value": "months"}


@pytest.mark.parametrize(
    ("stored", "expected"),
    [
        ({"_aj_serialized": f"{AJ}SymbolSerializer", "value": "pdf"}, "pdf"),
        ({"a": 1, "b": {"c": [2]}, "_aj_symbol_keys": ["a"]}, {"a": 1, "b": {"c": [2]}}),
        ({"a": {"b": 1, "_aj_symbol_keys": []}, "_aj_hash_with_indifferent_access": True}, {"a": {"b": 1}}),
        ([{"_aj_serialized": f"{AJ}SymbolSerializer", "value": "x"}, [None]], ["x", [None]]),
        ({"_aj_serialized": f"{AJ}TimeSerializer", "value": "2026-11-23T05:40:22.022096123+01:00"}, NOW),
        (
            {
                "_aj_serialized": f"{AJ}TimeWithZoneSerializer",
                "value": "2026-11-23T04:40:22.022096000Z",
                "time_zone": "Europe/Prague",
            },
            NOW,
        ),
        ({"_aj_serialized": f"{AJ}DateTimeSerializer", "value": "2026-11-23T04:40:22.022096000+00:00"}, NOW),
        ({"_aj_serialized": f"{AJ}DateSerializer", "value": "2026-11-23"}, date(2026, 11, 23)),
        ({"_aj_serialized": f"{AJ}BigDecimalSerializer", "value": "0.15e1"}, Decimal("1.5")),
        ({"_aj_serialized": f"{AJ}RangeSerializer", "begin": 1, "end": 3, "exclude_end": False}, range(1, 4)),
        (
            {
                "_aj_serialized": f"{AJ}DurationSerializer",
                "value": 90061.5,
                "parts": [[{"_aj_serialized": f"{AJ}SymbolSerializer", "value": "days"}, 1]],
            },
            timedelta(days=1, seconds=3661.5),
        ),
    ],
)
def test_rubys_forms_are_read(stored: Any, expected: Any) -> None:
    assert read(stored) == Call([expected], {})
    assert read({"key": stored, "_aj_ruby2_keywords": ["key"]}) == Call([], {"key": expected})


@pytest.mark.parametrize(
    ("stored", "value"),
    [
        ({"_aj_serialized": f"{AJ}SymbolSerializer", "value": "pdf"}, Symbol("pdf")),
        ({"_aj_globalid": "gid://shop/Sales::Order/17"}, GlobalID("gid://shop/Sales::Order/17")),
        (
            {"a": 1, "b": {"c": None, "_aj_symbol_keys": []}, "_aj_symbol_keys": ["a"]},
            {Symbol("a"): 1, "b": {"c": None}},
        ),
        (
            {
                "_aj_serialized": f"{AJ}DurationSerializer",
                "value": 900,
                "parts": [[{"_aj_serialized": f"{AJ}SymbolSerializer", "value": "seconds"}, 900]],
            },
            timedelta(minutes=15),
        ),
        ({"_aj_serialized": f"{AJ}RangeSerializer", "begin": 1, "end": 9, "exclude_end": True}, range(1, 9)),
        ({"_aj_serialized": f"{AJ}TimeSerializer", "value": "2026-11-23T04:40:22.022096000Z"}, NOW),
        ({"_aj_serialized": f"{AJ}DateSerializer", "value": "2026-11-23"}, date(2026, 11, 23)),
        ({"_aj_serialized": f"{AJ}BigDecimalSerializer", "value": "1.50"}, Decimal("1.50")),
        ([None, True, -1, 2**70, 0.5, "text", []], [None, True, -1, 2**70, 0.5, "text", []]),
    ],
    ids=lambda given: type(given).__name__,
)
def test_rubys_values_go_there_and_back_to_the_letter(stored: Any, value: Any) -> None:
    assert serialized(value) == [stored]
    (back,), _ = read(stored)
    assert back == value
    assert repr(back) == repr(value)  # of the same type, the keys too
    assert deserialize(stored) == value
    assert serialized(deserialize([stored])) == [[stored]]


def test_a_record_has_a_model_and_an_id() -> None:
    record = GlobalID("gid://shop/Sales::Order/a/17?version=2")
    assert (record.model_name, record.model_id) == ("Sales::Order", "a/17")
    for text in ("", "gid://", "gid://shop/User", "gid://shop/User/", "http://shop/User/1", "gid:///User/1"):
        with pytest.raises(ValueError, match="not a global id"):
            GlobalID(text)


def test_only_a_hash_marked_as_keywords_is_keywords_and_only_in_the_last_place() -> None:
    marked = {"a": 1, "_aj_ruby2_keywords": ["a"]}
    assert read(1, marked) == Call([1], {"a": 1})
    assert read(marked, 1) == Call([{"a": 1}, 1], {})
    assert read({"a": 1, "_aj_symbol_keys": ["a"]}) == Call([{"a": 1}], {})
    assert read() == Call([], {})


@pytest.mark.parametrize(
    "stored",
    [
        {"_aj_globalid": "User 1"},
        {"_aj_globalid": None},
        {"_aj_serialized": f"{AJ}DurationSerializer", "value": 2629746, "parts": [[MONTHS, 1]]},
        {"_aj_serialized": f"{AJ}DurationSerializer", "value": 1e300, "parts": []},
        {"_aj_serialized": f"{AJ}DurationSerializer", "value": "60", "parts": []},
        {"_aj_serialized": f"{AJ}ModuleSerializer", "value": "User"},
        {"_aj_serialized": "MoneySerializer", "value": "5 EUR"},
        {"_aj_serialized": f"{AJ}RangeSerializer", "begin": 1, "end": 2},
        {"_aj_serialized": f"{AJ}RangeSerializer", "begin": 1.5, "end": 2, "exclude_end": False},
        {"_aj_serialized": f"{AJ}SymbolSerializer"},
        {"_aj_serialized": None, "value": "x"},
        {"_aj_serialized": f"{AJ}TimeSerializer", "value": "yesterday"},
        {"_aj_serialized": f"{AJ}DateSerializer", "value": "2026-99-99"},
        {"_aj_serialized": f"{AJ}BigDecimalSerializer", "value": "much"},
    ],
    ids=lambda stored: str(next(iter(stored.values()))),
)
def test_what_only_ruby_can_read_is_an_error_wherever_it_stands(stored: dict[str, Any]) -> None:
    for arguments in ([stored], [[stored]], [{"a": stored}], [{"a": stored, "_aj_ruby2_keywords": ["a"]}]):
        with pytest.raises(ArgumentsError):
            read(*arguments)


@pytest.mark.parametrize(
    "text",
    [None, "", "text", "null", "[]", '"x"', "{", "{}", '{"arguments": {}}', '{"arguments": null}', "[" * 100_000],
)
def test_what_is_no_payload_is_an_error(text: str | None) -> None:
    with pytest.raises(ArgumentsError):
        call_of(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{"arguments": [1, {"_aj_globalid": "gid://app/User/1"}]}', [1, {"_aj_globalid": "gid://app/User/1"}]),
        ('{"arguments": []}', []),
        ("{}", None),
        ("text", "text"),
        ("[1]", "[1]"),
        (None, None),
        ('{"arguments": [NaN]}', '{"arguments": [NaN]}'),
        ('{"arguments": [1e999]}', '{"arguments": [1e999]}'),
        ('{"arguments": [1], "other": [NaN, 1e999]}', [1]),
        (' {"arguments": [1]} ', [1]),
        ('{"arguments": [1]} 2', '{"arguments": [1]} 2'),
        ('{"arguments": ["' + "[" * 200 + '"]}', ["[" * 200]),
        ("[" * 100_000, "[" * 100_000),
    ],
)
def test_arguments_are_shown_as_stored(text: str | None, expected: Any) -> None:
    assert shown_arguments(text) == expected


# -- counters


def test_a_retry_counts_from_nothing_and_leaves_the_rest_to_the_letter() -> None:
    before = (
        '{"job_class":"A","arguments":[{"executions":7,"exception_executions":{"[E]":2}},1.10,1e2,"\\u017e ž \\/",'
        '12345678901234567890123],"executions":5,"exception_executions":{"[StandardError]":4},"locale":"en"}'
    )
    assert reset_counters(before) == (
        '{"job_class":"A","arguments":[{"executions":7,"exception_executions":{"[E]":2}},1.10,1e2,"\\u017e ž \\/",'
        '12345678901234567890123],"executions":0,"exception_executions":{},"locale":"en"}'
    )


SPACE = st.text(" \t\r\n", max_size=2)
JSON = st.recursive(
    st.none() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["executions", "exception_executions", "x"]), inner, max_size=3)
    ),
    max_leaves=6,
)


@st.composite
def documents(draw: st.DrawFn) -> tuple[str, str]:
    """Draw a payload with odd spacing, and what it is to become."""
    ours = st.sampled_from([("executions", "0"), ("exception_executions", "{}"), ("exec\\u0075tions", "0")])
    others = st.tuples(st.text().map(json.dumps).map(lambda key: key[1:-1]).filter(lambda key: "xec" not in key))
    members = draw(st.lists(ours | others, unique_by=lambda member: member[0].replace("\\u0075", "u"), max_size=5))
    before, after = [], []
    for key, *reset in members:
        value = json.dumps(draw(JSON), ensure_ascii=draw(st.booleans()), indent=draw(st.none() | st.just(1)))
        start, end = f'{draw(SPACE)}"{key}"{draw(SPACE)}:{draw(SPACE)}', draw(SPACE)
        before.append(f"{start}{value}{end}")
        after.append(f"{start}{reset[0] if reset else value}{end}")
    head, tail = f"{draw(SPACE)}{{", f"}}{draw(SPACE)}"
    return f"{head}{','.join(before)}{tail}", f"{head}{','.join(after)}{tail}"


@settings(deadline=None, max_examples=200)
@given(documents())
def test_only_the_payloads_own_counters_change_however_it_is_spaced(document: tuple[str, str]) -> None:
    before, after = document
    assert reset_counters(before) == after


@pytest.mark.parametrize(
    "text",
    [
        None,
        "",
        "text",
        "null",
        "5",
        '["executions",5]',
        '"executions"',
        "{",
        '{"executions"',
        '{"executions":',
        '{"executions":5',
        '{"executions":5,',
        '{"executions":5}}',
        '{"executions":5} {"executions":5}',
        '{"executions":5,}',
        '{"a":1 "executions":5}',
        '{1:2,"executions":5}',
        "{'executions':5}",
        "{executions:5}",
        '{"arguments":[{"executions":5}]}',
        '{"executions":' + "[" * 100_000,
    ],
)
def test_what_is_no_payload_stays_as_it_is(text: str | None) -> None:
    assert reset_counters(text) == text
