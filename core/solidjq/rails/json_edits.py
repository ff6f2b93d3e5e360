"""Change a few values in the text of a JSON object. The rest is not rewritten.

A round trip through Python's numbers and escapes could change what another program wrote. The text must be that of a
valid JSON object.
"""

import json
from collections.abc import Mapping


def value_texts(document: str) -> dict[str, str]:
    """Return the text of each top-level value, by its key."""
    return {key: document[start:end] for key, (start, end) in _spans(document).items()}


def with_values(document: str, texts: Mapping[str, str]) -> str:
    """Return the object with these values, each given as JSON text; keys that it lacks are added at its end."""
    spans = _spans(document)
    for (start, end), key in sorted(((spans[key], key) for key in texts.keys() & spans.keys()), reverse=True):
        document = document[:start] + texts[key] + document[end:]
    added = [f"{json.dumps(key)}:{text}" for key, text in texts.items() if key not in spans]
    if added:
        end = document.rindex("}")
        document = document[:end] + ("," if spans else "") + ",".join(added) + document[end:]
    return document


def without_value(document: str, key: str) -> str:
    """Return the object without a key; unchanged if it lacks it."""
    span = _spans(document).get(key)
    if span is None:
        return document
    before = document[: document.rindex(json.dumps(key), 0, span[0])].rstrip()
    after = document[span[1] :].lstrip()
    return before.removesuffix(",") + after if after.startswith("}") else before + after.removeprefix(",").lstrip()


def _spans(document: str) -> dict[str, tuple[int, int]]:
    """Return the start and end of each top-level value; of keys that occur twice, the last one, as every parser."""
    decoder = json.JSONDecoder()
    spans: dict[str, tuple[int, int]] = {}
    at = _skip(document, 0, " \t\r\n{")
    while document[at] != "}":
        key, at = decoder.raw_decode(document, at)
        at = _skip(document, at, " \t\r\n:")
        _, end = decoder.raw_decode(document, at)
        spans[str(key)] = (at, end)
        at = _skip(document, end, " \t\r\n,")
    return spans


def _skip(document: str, at: int, characters: str) -> int:
    while document[at] in characters:
        at += 1
    return at
