"""Objects of `common.config` out of JSON that anybody may have edited: every field is of its declared type."""

from __future__ import annotations

import dataclasses
import functools
import types
import typing
from collections.abc import Mapping
from typing import Any, TypeVar

T = TypeVar("T")
LARGEST = 2**53  # beyond it whole numbers and floats are no longer the same


def typed(kind: type[T], fields: Mapping[str, Any]) -> T:
    """`kind(**fields)`. TypeError where a field is unknown or missing or of another type than declared: lists may stand
    for tuples, whole numbers for other numbers. ValueError for NaN, infinity and what the class itself refuses.
    """
    hints = _hints(typing.cast(Any, kind))
    unknown = sorted(set(fields) - set(hints))
    if unknown:
        raise TypeError(f"{kind.__name__} has no field {unknown[0]!r}")
    return kind(**{name: _as(hints[name], value, name) for name, value in fields.items()})


@functools.cache
def _hints(kind: Any) -> dict[str, Any]:
    hints = typing.get_type_hints(kind)
    return {field.name: hints[field.name] for field in dataclasses.fields(kind)}


def _as(hint: Any, value: Any, name: str) -> Any:
    if typing.get_origin(hint) is tuple and isinstance(value, list | tuple):
        return tuple(_as(typing.get_args(hint)[0], one, name) for one in value)
    if typing.get_origin(hint) in (typing.Union, types.UnionType) and type(None) in typing.get_args(hint):
        if value is None:
            return None
        hint = next(one for one in typing.get_args(hint) if one is not type(None))
    if typing.get_origin(hint) is typing.Literal and value in typing.get_args(hint):
        return value
    if hint is float and isinstance(value, int | float) and not isinstance(value, bool):
        if not abs(value) <= LARGEST:  # NaN is not
            raise ValueError(f"{name} {_brief(value)} is no number that it can be")
        return value
    if hint is int and isinstance(value, int) and not isinstance(value, bool):
        if abs(value) > LARGEST:
            raise ValueError(f"{name} {_brief(value)} is no number that it can be")
        return value
    if hint in (str, bool) and type(value) is hint:
        return value
    if isinstance(hint, type) and dataclasses.is_dataclass(hint) and isinstance(value, hint):
        return value
    origin = typing.get_origin(hint)
    if isinstance(origin, type) and issubclass(origin, Mapping) and isinstance(value, Mapping):
        return value
    words = getattr(hint, "__name__", str(hint))
    raise TypeError(f"{name} is {_brief(value)}, not of type {words}")


def _brief(value: Any) -> str:
    text = repr(value) if not isinstance(value, int) or abs(value) < 10**20 else "a huge number"
    return text if len(text) <= 60 else f"{text[:57]}..."
