"""Folding: messages of one place in the code that differ in one word are one problem, under one name."""

from datetime import timedelta

from sqlalchemy import insert

from solidjq import Database
from solidjq.database.tables import failed
from solidjq.diff import groups
from solidjq.diff.failure_groups import FailureGroup, fold
from solidjq.diff.folding import ANY_WORD, FOLD_AT, folds_of, names_among
from solidjq.diff.signatures import Signature, signature_of
from solidjq.diff.windows import Window, compare_windows
from solidjq.queue.failed import Filter
from solidjq.rails.error_text import error_json, exit_error
from support.queue import add_jobs, plain_jobs

FRAMES = ("app/models/charge.rb:pay",)
WORDS = ["alpha", "bravo", "charlie", "delta", "echo", "foxtrot"]


def card(word: str, frames: tuple[str, ...] = FRAMES) -> Signature:
    return Signature("Stripe::CardError", f"customer {word} has no card", frames)


def test_messages_that_differ_in_one_word_are_one_and_its_name_is_that_of_every_day() -> None:
    assert folds_of(map(card, WORDS)) == {card(word): card(ANY_WORD) for word in WORDS}
    assert folds_of(map(card, WORDS[:FOLD_AT]))[card("echo")].name == card(ANY_WORD).name


def test_what_may_be_problems_of_their_own_stays_alone() -> None:
    few = map(card, WORDS[: FOLD_AT - 1])
    elsewhere = (card(word, (f"app/{word}.rb:pay",)) for word in WORDS)
    two_words = (Signature("E", f"{word} is {word}", FRAMES) for word in WORDS)
    longer = (Signature("E", "no" + f" {word}" * at, FRAMES) for at, word in enumerate(WORDS, 1))
    anywhere = (Signature("Timeout", word) for word in WORDS)  # nothing is left to tell what they are
    deaths = (signature_of(exit_error(1, status)) for status in range(1, 9))
    for signatures in (few, elsewhere, two_words, longer, anywhere, deaths):
        assert folds_of(signatures) == {}


def test_the_word_that_folds_the_most_is_folded() -> None:
    crossed = [Signature("E", f"{one} of {two}", FRAMES) for one in WORDS for two in WORDS[:2]]
    assert {fold.message for fold in folds_of(crossed).values()} == {f"{ANY_WORD} of alpha", f"{ANY_WORD} of bravo"}


def test_a_failure_is_found_by_its_own_name_and_by_that_of_its_fold() -> None:
    one, all_of_them = card("alpha").name, card(ANY_WORD).name
    assert names_among(card("alpha"), frozenset([one, all_of_them, "g0000000"])) == (one, all_of_them)
    assert names_among(card("bravo"), frozenset([one])) == ()


def test_folded_groups_add_up() -> None:
    one, other = FailureGroup(card("alpha")), FailureGroup(card("bravo"))
    one.add("AJob", "default", 3, None, None, 7)
    other.add("BJob", "default", 2, None, None, 9)
    (folded,) = fold([one, other], {card("alpha"): card(ANY_WORD), card("bravo"): card(ANY_WORD)})
    assert (folded.count, folded.messages, folded.example) == (5, 2, 9)
    assert (dict(folded.classes), dict(folded.queues)) == ({"AJob": 3, "BJob": 2}, {"default": 5})


def fail(database: Database, errors: list[str]) -> list[int]:
    job_ids = add_jobs(database, *plain_jobs(len(errors)))
    at = database.now()
    rows = [{"job_id": job_id, "error": text, "created_at": at} for job_id, text in zip(job_ids, errors, strict=True)]
    with database.write() as connection:
        connection.execute(insert(failed), rows)
    return job_ids


def test_a_fold_is_listed_counted_and_found_by_its_name(database: Database) -> None:
    errors = [error_json("CardError", f"customer {word} has no card") for word in WORDS]
    job_ids = fail(database, [*errors, *[error_json("Timeout", "too slow")] * 2])
    cards, slow = groups.group_failures(database, Filter())
    assert (cards.count, cards.messages, cards.signature.message) == (6, 6, f"customer {ANY_WORD} has no card")
    assert (slow.count, slow.messages) == (2, 1)
    with database.read() as connection:
        assert groups.count_problems(connection, Filter(), seconds=60) == (2, False)
        assert groups.count_problems(connection, Filter(), seconds=-1)[1]
    assert list(groups.job_ids(database, Filter(), [cards.name])) == job_ids[:6]
    members, names = groups.find_members(database, [cards.name, "g0000000"])
    assert (len(members[cards.name]), len(members["g0000000"]), cards.name in names) == (6, 0, True)
    found = groups.find_group(database, cards.name)
    assert found is not None
    assert (found.name, found.count) == (cards.name, 6)
    single = groups.find_group(database, signature_of(errors[0]).name)
    assert single is not None
    assert (single.signature, single.count) == (signature_of(errors[0]), 1)


def test_what_is_folded_in_one_time_is_folded_in_the_other(database: Database) -> None:
    fail(database, [error_json("CardError", f"customer {word} has no card") for word in WORDS])
    with database.write() as connection:
        connection.execute(
            failed.update().where(failed.c.id <= 2).values(created_at=database.now() - timedelta(hours=2))
        )
    now = database.now() + timedelta(minutes=1)
    hour = timedelta(hours=1)
    found = compare_windows(database, Filter(), Window(now - hour, now), Window(now - 4 * hour, now - hour))
    assert [change.group.signature.message for change in found.changes] in ([], [f"customer {ANY_WORD} has no card"])
    assert len(found.changes) + found.same == 1
