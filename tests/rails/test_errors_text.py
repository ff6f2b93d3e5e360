"""Text from a database is made safe to print, and errors are read and written as Solid Queue does."""

import json
import string
import unicodedata
from datetime import UTC, datetime

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from solidjq.rails.error_text import (
    MAX_ERROR_BYTES,
    Death,
    ErrorInfo,
    error_json,
    exit_error,
    parse_error,
    parse_summary,
    pruned_error,
)
from solidjq.text import escape_json, mask_secrets, one_line, printable

UNPRINTABLE = {"Cc", "Cf", "Cs", "Zl", "Zp"}
NASTY = "\x00\x07\x1b[31m\x7f\x85\x9b2J\u200b\u202e\u2028\u2066\ud800\ufeff\U000e0001"
ANY_TEXT = st.text(st.characters(codec=None, exclude_categories=()) | st.sampled_from(NASTY))


def unprintable(text: str) -> set[str]:
    return {character for character in text if unicodedata.category(character) in UNPRINTABLE}


# -- control characters


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plain ž 日本 💥 \\x1b", "plain ž 日本 💥 \\x1b"),
        ("\x1b[2Jgone", "\\x1b[2Jgone"),
        ("\x9b31m", "\\x9b31m"),
        ("\x7f\x08", "\\x7f\\x08"),
        ("\u202egnp.exe", "\\u202egnp.exe"),
        ("a\nb\tc", "a\\nb\\tc"),
        ("\udcff", "\\udcff"),
        ("\U000e0041", "\\U000e0041"),
    ],
)
def test_what_a_terminal_would_act_on_is_escaped(text: str, expected: str) -> None:
    assert printable(text) == expected


@settings(deadline=None, max_examples=200)
@given(ANY_TEXT)
@example(NASTY)
def test_no_control_character_comes_through(text: str) -> None:
    assert unprintable(printable(text)) == set()
    assert unprintable(printable(text, keep="\n\t")) <= {"\n", "\t"}
    assert unprintable(one_line(text)) == set()


@settings(deadline=None, max_examples=100)
@given(ANY_TEXT)
def test_printable_text_stays_as_it_is(text: str) -> None:
    once = printable(text)
    assert printable(once) == once
    assert one_line(one_line(text)) == one_line(text)


def test_one_line_is_one_line() -> None:
    assert (
        one_line("  PG::Error: \n\tserver   closed\r\nthe connection\x0b ") == "PG::Error: server closed the connection"
    )


@settings(deadline=None, max_examples=200)
@given(st.recursive(ANY_TEXT, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(ANY_TEXT, inner, max_size=3)))
@example(NASTY)
def test_json_is_printable_ascii_or_letters_and_still_json(value: object) -> None:
    written = escape_json(json.dumps(value, ensure_ascii=False))
    assert unprintable(written) == set()
    assert json.loads(written) == json.loads(json.dumps(value))


# -- secrets


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("postgres://app:hunter2@db/app", "postgres://app:***@db/app"),
        ("postgres://app:hun@ter2@db/app", "postgres://app:***@db/app"),
        ("redis://:hunter2@cache:6379/0", "redis://:***@cache:6379/0"),
        (
            "cannot reach https://u:hunter2@h/x, nor amqps://v:hunter2@h",
            "cannot reach https://u:***@h/x, nor amqps://v:***@h",
        ),
        ("url='mysql2://app:hunter2@db/app'", "url='mysql2://app:***@db/app'"),
        ("host=db password=hunter2 user=app", "host=db password=*** user=app"),
        ("https://h/x?token=hunter2&page=2", "https://h/x?token=***&page=2"),
        ("PASSWORD=hunter2; api_key=hunter2; apikey=hunter2", "PASSWORD=***; api_key=***; apikey=***"),
        ("PGPASSWORD=hunter2 DB_PASSWORD=hunter2 psql", "PGPASSWORD=*** DB_PASSWORD=*** psql"),
        ("接続エラーpostgres://app:hunter2@db/app", "接続エラーpostgres://app:***@db/app"),
        ("DATABASE_URL_postgres://app:hunter2@db/app", "DATABASE_URL_postgres://app:***@db/app"),
        ("https://h:8080/a/b?c=d", "https://h:8080/a/b?c=d"),
        ("mail to a@b: see https://h/x", "mail to a@b: see https://h/x"),
        ("no secret here", "no secret here"),
    ],
)
def test_secrets_are_masked_and_nothing_else(text: str, expected: str) -> None:
    assert mask_secrets(text) == expected


# RFC 3986: what may stand in a password as it is.
_IN_A_PASSWORD = string.ascii_letters + string.digits + "-._~!$&'()*+,;=:%@"
_WORDS = st.text(st.characters(exclude_characters="@"))


@settings(deadline=None, max_examples=300)
@given(
    before=_WORDS,
    scheme=st.sampled_from(["postgres", "mysql2", "redis", "https", "amqp+ssl"]),
    user=st.text(string.ascii_letters + string.digits + "-._~%"),
    password=st.text(_IN_A_PASSWORD),
    after=_WORDS,
)
@example(before="URL_", scheme="postgres", user="app", password="", after="/app")
@example(before="", scheme="postgres", user="app", password="it's", after="/app")  # noqa: S106  (no real one)
def test_a_urls_password_never_comes_through(before: str, scheme: str, user: str, password: str, after: str) -> None:
    masked = mask_secrets(f"{before}{scheme}://{user}:Hunter{password}Two@db{after}")
    assert "Hunter" not in masked
    assert "Two" not in masked


@pytest.mark.parametrize("part", ["a", "a://b:", "a://b:c/", "token", "password="])
def test_masking_takes_no_longer_the_more_a_text_looks_like_a_url(part: str) -> None:
    """With a quadratic pattern this would run for minutes."""
    text = part * (400_000 // len(part))
    assert mask_secrets(text) == ("password=***" if part == "password=" else text)
    assert mask_secrets(f"{text} postgres://app:hunter2@db").endswith(" postgres://app:***@db")


@settings(deadline=None, max_examples=200)
@given(
    st.lists(
        st.sampled_from(
            ["postgres://app:hunter2@db/app", "redis://:h@c", "password=hunter2", "token=", "***", "@", ":"]
        )
        | st.text(max_size=5),
        max_size=6,
    )
)
def test_masking_twice_is_masking_once(words: list[str]) -> None:
    once = mask_secrets(" ".join(words))
    assert mask_secrets(once) == once


# -- errors as Solid Queue writes them

PRUNED = "SolidQueue::Processes::ProcessPrunedError"
EXITED = "SolidQueue::Processes::ProcessExitError"
MISSING = "SolidQueue::Processes::ProcessMissingError"
FOUND_DEAD = "Process was found dead and pruned (last heartbeat at: {})"
BEAT = datetime(2026, 11, 23, 4, 40, 22, tzinfo=UTC)


def solid_queue_json(name: str, message: str) -> str:
    return json.dumps({"exception_class": name, "message": message, "backtrace": None}, separators=(",", ":"))


@pytest.mark.parametrize(
    ("name", "message", "expected"),
    [
        (PRUNED, FOUND_DEAD.format("2026-11-23 04:40:22 UTC"), ErrorInfo(death=Death.PRUNED, last_heartbeat_at=BEAT)),
        (PRUNED, FOUND_DEAD.format("2026-11-23 06:40:22 +0200"), ErrorInfo(death=Death.PRUNED, last_heartbeat_at=BEAT)),
        (
            PRUNED,
            FOUND_DEAD.format("2026-11-22 23:10:22 -05:30"),
            ErrorInfo(death=Death.PRUNED, last_heartbeat_at=BEAT),
        ),
        (PRUNED, FOUND_DEAD.format("2026-99-99 99:99:99 UTC"), ErrorInfo(death=Death.PRUNED)),
        (PRUNED, FOUND_DEAD.format(""), ErrorInfo(death=Death.PRUNED)),
        (
            EXITED,
            "Process pid=26201 exited unexpectedly. Received unhandled signal 9.",
            ErrorInfo(death=Death.EXITED, pid=26201, signal=9),
        ),
        (
            EXITED,
            "Process pid=26201 exited unexpectedly. Exited with status 3.",
            ErrorInfo(death=Death.EXITED, pid=26201, exit_status=3),
        ),
        (MISSING, "The process that was running this job no longer exists", ErrorInfo(death=Death.MISSING)),
        ("ArgumentError", "pid=5, status 3, signal 9, last heartbeat at: 2026-11-23 04:40:22 UTC", ErrorInfo()),
    ],
)
def test_how_a_process_died_is_read_from_solid_queues_words(name: str, message: str, expected: ErrorInfo) -> None:
    info = parse_error(solid_queue_json(name, message))
    assert (info.exception_class, info.message, info.backtrace) == (name, message, ())
    assert (info.death, info.pid, info.exit_status, info.signal, info.last_heartbeat_at) == (
        expected.death,
        expected.pid,
        expected.exit_status,
        expected.signal,
        expected.last_heartbeat_at,
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (None, ErrorInfo()),
        ("", ErrorInfo()),
        ("boom", ErrorInfo(message="boom")),
        ("null", ErrorInfo(message="null")),
        ("[1]", ErrorInfo(message="[1]")),
        ('{"other": 1}', ErrorInfo(message='{"other": 1}')),
        ('{"message": null, "backtrace": "x"}', ErrorInfo()),
        ('{"exception_class": "E"}', ErrorInfo("E")),
        ('{"exception_class": 5, "message": [1], "backtrace": [1, null]}', ErrorInfo("5", "[1]", ("1", "None"))),
        (
            '{"exception_class":"E","message":"\\u003cb\\u003e","backtrace":["a:1","b:2"]}',
            ErrorInfo("E", "<b>", ("a:1", "b:2")),
        ),
        ('{"exception_class":"E","message":"cut \\"off\\", wi', ErrorInfo("E", 'cut "off", wi')),
        ('{"exception_class":"E","message":"in an escape \\u00', ErrorInfo("E", "in an escape \\u00")),
        ('{"exception_class":"E","message":"whole","backtrace":["a.rb:1', ErrorInfo("E", "whole")),
        ('{"exception_class":"E","mess', ErrorInfo("E")),
        ('{"exception_cl', ErrorInfo(message='{"exception_cl')),
    ],
)
def test_null_and_foreign_and_cut_off_errors_are_read_as_far_as_they_go(text: str | None, expected: ErrorInfo) -> None:
    assert parse_error(text) == expected


_WORDINGS = st.sampled_from(
    [
        solid_queue_json(PRUNED, FOUND_DEAD.format("2026-11-23 04:40:22 UTC")),
        solid_queue_json(EXITED, "Process pid=26201 exited unexpectedly. Received unhandled signal 9."),
        error_json("ValueError", 'quoted "text" \\ ž', ["a.rb:1:in `x'"]),
    ]
)


@settings(deadline=None, max_examples=300)
@given(ANY_TEXT | st.builds(lambda a, b, c, cut: (a + b + c)[:cut], ANY_TEXT, _WORDINGS, ANY_TEXT, st.integers(0, 300)))
@example('{"message":' + "[" * 100_000)
@example(solid_queue_json(PRUNED, FOUND_DEAD.format("0001-01-01 00:00:00 +2300")))
@example('{"exception_class": ' + "9" * 5000 + ', "message": 1e999}')
def test_no_error_text_is_too_odd_to_be_read(text: str) -> None:
    info = parse_error(text)
    assert info.message is None or isinstance(info.message, str)


@pytest.mark.parametrize("part", ["pid={}", "status {}", "signal {}"])
def test_a_number_of_any_length_is_read_or_left_out(part: str) -> None:
    info = parse_error(solid_queue_json(EXITED, part.format("9" * 5000)))
    assert (info.death, len(str(info.message))) == (Death.EXITED, len(part) - 2 + 5000)


# -- errors as we write them


def test_an_error_is_compact_json_with_solid_queues_keys() -> None:
    assert error_json("ValueError", "ž <b>", ["a.py:1", "b.py:2"]) == (
        '{"exception_class":"ValueError","message":"ž <b>","backtrace":["a.py:1","b.py:2"]}'
    )
    assert error_json("ValueError", "") == '{"exception_class":"ValueError","message":"","backtrace":null}'


def test_the_innermost_frames_are_kept_where_not_all_fit() -> None:
    frames = [f"/app/jobs/{number}.py:1:in `run'" for number in range(10_000)]
    kept = json.loads(error_json("RecursionError", "deep", frames))["backtrace"]
    assert kept == frames[: len(kept)]
    assert len(kept) > 500


def long(text: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.builds(lambda part, times: part * times, text, st.sampled_from([1, 1, 2, 5000, 20_000]))


@settings(deadline=None, max_examples=150)
@given(st.text(max_size=200), long(ANY_TEXT), st.none() | st.lists(long(ANY_TEXT), max_size=5))
@example("E", "\x00" * 20_000, ["\x1b" * 20_000] * 3)
@example("E", "💥" * 20_000, ["💥" * 20_000])
def test_whatever_went_wrong_fits_into_mysqls_column(name: str, message: str, frames: list[str] | None) -> None:
    written = error_json(name, message, frames)
    assert len(written.encode()) <= MAX_ERROR_BYTES
    assert json.loads(written).keys() == {"exception_class", "message", "backtrace"}


@pytest.mark.parametrize("name", ["E" * 70_000, "\x00" * 10_000, "💥" * 16_380], ids=["long", "escaped", "wide"])
def test_an_exception_class_of_any_length_fits_too(name: str) -> None:
    size = len(error_json(name, "boom").encode())
    assert size <= MAX_ERROR_BYTES


@settings(deadline=None, max_examples=100)
@given(st.text(max_size=50), st.text(max_size=200), st.lists(st.text(max_size=50), max_size=5))
def test_what_we_write_is_read_back(name: str, message: str, frames: list[str]) -> None:
    info = parse_error(error_json(name, message, frames))
    assert (info.exception_class, info.message, list(info.backtrace)) == (name, message, frames)


@pytest.mark.parametrize(
    "error",
    [
        None,
        "",
        "no JSON",
        "[]",
        error_json("E", "a message", ["a", "b"]),
        error_json("E", "a message", []),
        error_json("E", "a message"),
        error_json("E", 'with "quotes"\nand lines', ["a"]),
        error_json("E", "a message", ["a"])[:-5],
        exit_error(17, -9),
        pruned_error(datetime(2026, 11, 27, tzinfo=UTC)),
        error_json(Death.EXITED.exception_class, "Process pid=5 exited unexpectedly. Exited with status 3.", ["a"]),
        '{"exception_class":"E","message":"first","backtrace":["a"],"message":"last"}',
        '{"exception_class":"E","message":"first","backtrace":["a"],"exception_class":"F"}',
        r'{"exception_class":"E","message":"first","backtrace":["a"],"exception_\u0063lass":"F"}',
        r'{"exception_class":"E","message":"first","backtrace":["a"],"\u006dessage":"last"}',
        r'{"exception_class":"E","message":"a message","backtrace":["a:1:in \u003cmain\u003e"]}',
        '{"exception_class":"E","message":"a\tb","backtrace":["a"]}',
        '{"message":"m","exception_class":"E","backtrace":["a"]}',
    ],
)
def test_a_summary_is_the_whole_error_but_for_the_backtrace(error: str | None) -> None:
    assert parse_summary(error) == parse_error(error)._replace(backtrace=())
