"""Numbers before nouns, as every message writes them, and what is masked in them."""

from collections.abc import Sequence

import pytest

from solidjq.text import count_of, first_of, its, mask_secrets


@pytest.mark.parametrize(
    ("count", "noun", "words"),
    [
        (1, "job", "1 job"),
        (0, "job", "0 jobs"),
        (2, "crash", "2 crashes"),
        (3, "class", "3 classes"),
        (2, "process", "2 processes"),
        (2, "retry", "2 retries"),
        (2, "day", "2 days"),
        (1, "job class", "1 job class"),
        (2, "failed job", "2 failed jobs"),
        (12345, "job", "12,345 jobs"),
    ],
)
def test_a_number_before_a_noun(count: int, noun: str, words: str) -> None:
    assert count_of(count, noun) == words


def test_one_job_has_its_process_and_others_have_theirs() -> None:
    assert [its(count) for count in (0, 1, 2)] == ["their", "its", "their"]


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("password='two words' host=x", "password=*** host=x"),
        ('password="two words" host=x', "password=*** host=x"),
        (r"password = 'it\'s two' host=x", "password = *** host=x"),
        (r"password=two\ words host=x", "password=*** host=x"),
        ("password='never closed", "password=***"),
        ("postgres://h/d?p%61ssword=abc&x=1", "postgres://h/d?p%61ssword=***&x=1"),
        ("postgres://h/d?x=1&%73slpassword=abc", "postgres://h/d?x=1&%73slpassword=***"),
        ("--database=postgres://h/d?password=abc", "--database=postgres://h/d?password=***"),
        ("options='password=abc'", "options='password=***'"),
        (r'{"a": "password=\"two words\" x"}', '{"a": "password=*** x"}'),
        ("PGPASSWORD=abc psql", "PGPASSWORD=*** psql"),
        ("x-api-key=abc", "x-api-key=***"),
        ("passfile=/home/x/.pgpass user=a", "passfile=/home/x/.pgpass user=a"),
    ],
)
def test_the_value_of_a_secret_key_is_masked_however_it_is_quoted(text: str, masked: str) -> None:
    assert mask_secrets(text) == masked


@pytest.mark.parametrize(
    ("items", "separator", "words"),
    [
        ([], ", ", ""),
        ([1, 2], ", ", "1, 2"),
        (["a", "b", "c"], ", ", "a, b and 1 more"),
        (range(12345), ", ", "0, 1 and 12,343 more"),
        (["a", "b"], "; ", "a; b"),
        (["a", "b", "c", "d"], "; ", "a; b; and 2 more"),
    ],
)
def test_the_first_of_many_are_named_and_the_rest_counted(items: Sequence[object], separator: str, words: str) -> None:
    assert first_of(items, 2, separator=separator) == words
