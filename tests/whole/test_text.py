"""Numbers before nouns, as every message writes them."""

import pytest

from solidjq.text import count_of


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
    ],
)
def test_a_number_before_a_noun(count: int, noun: str, words: str) -> None:
    assert count_of(count, noun) == words
