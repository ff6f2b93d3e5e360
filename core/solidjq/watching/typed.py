"""Dataclasses from JSON that a person may have edited: each field of its type, or a ValueError in words."""

import math
from collections.abc import Mapping
from dataclasses import MISSING, Field, fields, is_dataclass
from types import NoneType, UnionType
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

from solidjq.untrusted import MOST_NUMBER

T = TypeVar("T")

LATER: Mapping[str, bool] = {"later": True}  # metadata of a field that files of older versions lack


def built(kind: type[T], data: object, place: str = "") -> T:
    """Return a dataclass or named tuple from what JSON had for it.

    Raises ValueError, with the place in the data, for a field that is missing or of another type. Fields that the class
    does not have are ignored: a newer version wrote them.
    """
    hints = get_type_hints(kind)
    if not is_dataclass(kind):  # a named tuple, as a list
        if not isinstance(data, list) or len(data) != len(hints):
            raise ValueError(f"{place or 'it'} is no list of {len(hints)}")
        items = zip(hints.items(), data, strict=True)
        return kind(*(_read(hint, value, f"{place}.{name}") for (name, hint), value in items))
    if not isinstance(data, dict):
        raise ValueError(f"{place or 'it'} is no object")  # noqa: TRY004  (of the file, not of an argument)
    values = {}
    for field in fields(kind):
        at = f"{place}.{field.name}".lstrip(".")
        if field.name in data:
            values[field.name] = _read(hints[field.name], data[field.name], at)
        elif not _may_lack(field):
            raise ValueError(f"{at} is missing")
    return kind(**values)


def _may_lack(field: "Field[Any]") -> bool:
    has_default = field.default is not MISSING or field.default_factory is not MISSING
    return has_default and bool(field.metadata.get("later"))


def _read(hint: Any, value: Any, place: str) -> Any:
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is UnionType:  # X | None is the only one
        (hint,) = (one for one in arguments if one is not NoneType)
        return None if value is None else _read(hint, value, place)
    if origin is list and isinstance(value, list):
        return [_read(arguments[0], one, f"{place}[{at}]") for at, one in enumerate(value)]
    if origin is dict and isinstance(value, dict):
        return {name: _read(arguments[1], one, f"{place}[{name[:100]!r}]") for name, one in value.items()}
    if is_dataclass(hint) or hasattr(hint, "_fields"):
        return built(hint, value, place)
    if hint is Any or _fits(hint, value):
        return value
    raise ValueError(f"{place} is no {_NAMES.get(origin or hint, 'value of its kind')}")


def _fits(hint: Any, value: object) -> bool:
    if hint is float:  # JSON writes 1.0 and 1 alike
        return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool) and abs(value) < MOST_NUMBER
    return isinstance(value, hint) if isinstance(hint, type) else False


_NAMES = {float: "number", int: "whole number", str: "text", bool: "true or false", list: "list", dict: "object"}
