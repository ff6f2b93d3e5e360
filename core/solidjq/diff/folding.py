"""Folding: signatures of one exception and one place in the code whose messages differ in one word are one problem.

That word is an id or a name that no shape gives away: a customer's, a file's, a host's. Pure functions.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache

from solidjq.diff.signatures import CACHED, Signature

FOLD_AT = 5  # different words in one place: fewer may be an enumeration whose members are problems of their own
ANY_WORD = "<word>"


def folds_of(signatures: Iterable[Signature]) -> dict[Signature, Signature]:
    """Return the signature that each of these is folded into; those that stay alone are left out.

    A folded signature has ``ANY_WORD`` for the word that differs, and so a name of its own, the same on every day.
    """
    alike: dict[tuple[str | None, tuple[str, ...], int], list[Signature]] = defaultdict(list)
    for signature in signatures:
        if (count := _foldable_words(signature)) > 0:
            alike[signature.exception_class, signature.frames, count].append(signature)
    return {
        signature: folded
        for (_, _, count), members in alike.items()
        if len(members) >= FOLD_AT
        for signature, folded in _folded(members, range(count))
    }


def _folded(signatures: Sequence[Signature], places: Iterable[int]) -> Iterator[tuple[Signature, Signature]]:
    """Yield each signature that is folded and what into; the place of the word that folds the most comes first."""

    def without_word(place: int, of: Iterable[Signature]) -> dict[Signature, Signature]:
        folded = {signature: _without_word(signature, place) for signature in of}
        counts = Counter(folded.values())
        return {signature: into for signature, into in folded.items() if counts[into] >= FOLD_AT}

    left = dict.fromkeys(signatures)
    for place in sorted(places, key=lambda place: -len(without_word(place, signatures))):
        for signature, into in without_word(place, left).items():
            del left[signature]
            yield signature, into


@lru_cache(CACHED)
def names_among(signature: Signature, names: frozenset[str]) -> tuple[str, ...]:
    """Return which of these names of groups a failure of this signature has: its own, or that of a fold of it.

    A fold is found by its name alone, however few of its failures are left.
    """
    possible = (signature, *_folds(signature))
    return tuple(dict.fromkeys(each.name for each in possible if each.name in names))


def fold_of(signature: Signature, name: str) -> Signature:
    """Return the fold of a signature that has this name; the signature itself if none has."""
    return next((fold for fold in _folds(signature) if fold.name == name), signature)


def _folds(signature: Signature) -> Iterator[Signature]:
    return (_without_word(signature, place) for place in range(_foldable_words(signature)))


def _foldable_words(signature: Signature) -> int:
    """Return how many words its message has; 0 if nothing that is left of it would tell it from another problem."""
    if signature.death is not None or not signature.message:
        return 0
    count = signature.message.count(" ") + 1
    return count if count > 1 or signature.frames else 0


def _without_word(signature: Signature, place: int) -> Signature:
    words = signature.message.split(" ")
    return signature._replace(message=" ".join((*words[:place], ANY_WORD, *words[place + 1 :])))
