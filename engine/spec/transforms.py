"""How features are transformed before they are published: what a view does to all, and what to single ones."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import BeforeValidator, WithJsonSchema
from pydantic_core import PydanticCustomError, PydanticKnownError

from engine.errors import Problem, nearest
from engine.spec.rules import Place, unknown

SCALINGS = ("minmax", "standard", "robust")
PLAIN = ("log1p", *SCALINGS, "one_hot", "ordinal")
_OPTIONS = ("clip", "one_hot", "ordinal")
_ALLOWED = f"{', '.join(PLAIN)}, {{clip: [LOW, HIGH]}}, {{one_hot: [CATEGORY, …]}}, {{ordinal: [CATEGORY, …]}}"
CATEGORICAL = ("one_hot", "ordinal")


@dataclass(frozen=True)
class Step:
    """One transform, as it is declared.

    Attributes:
        low, high: of clip; None is an open end.
        categories: of one_hot and ordinal; None: those there are when it is fitted.
    """

    name: str
    low: float | None = None
    high: float | None = None
    categories: tuple[str | int | bool, ...] | None = None

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        found: dict[str, Any] = {"step": self.name}
        if self.name == "clip":
            found |= {"low": self.low, "high": self.high}
        if self.name in CATEGORICAL:
            found["categories"] = None if self.categories is None else list(self.categories)
        return found


def _wrong(text: str, allowed: str = _ALLOWED, near: str | None = None) -> PydanticCustomError:
    return PydanticCustomError("transform", "{text}", {"text": text, "allowed": allowed, "nearest": near})


def _step(value: Any) -> Step:
    if isinstance(value, Step):
        return value
    if isinstance(value, str):
        if value in PLAIN:
            return Step(value)
        raise _wrong(f"there is no transform {value!r}", near=nearest(value, [*PLAIN, "clip"]))
    if not isinstance(value, Mapping) or len(value) != 1:
        raise _wrong("a transform is a name, or a name with what it takes")
    ((name, given),) = value.items()
    if name not in _OPTIONS:
        raise _wrong(f"there is no transform {name!r} that takes anything", near=nearest(str(name), _OPTIONS))
    if not isinstance(given, list | tuple):
        raise _wrong(f"{name} takes a list")
    return _clip(given) if name == "clip" else Step(name, categories=_categories(given))


def _clip(given: list[Any] | tuple[Any, ...]) -> Step:
    allowed = "two numbers, the lower one first; null for an open end"
    numbers = [v for v in given if v is not None]
    if len(given) != 2 or not numbers or any(isinstance(v, bool) or not isinstance(v, int | float) for v in numbers):
        raise _wrong("clip takes two numbers", allowed)
    if not all(map(math.isfinite, numbers)) or numbers != sorted(numbers):
        raise _wrong("clip takes two finite numbers, the lower one first", allowed)
    low, high = (None if v is None else float(v) for v in given)
    return Step("clip", low, high)


def _categories(given: list[Any] | tuple[Any, ...]) -> tuple[str | int | bool, ...]:
    allowed = "texts, whole numbers or true/false, all of one kind, each once"
    if not given or len({type(v) for v in given}) > 1 or not isinstance(given[0], str | int):
        raise _wrong("categories are a list of values of one kind", allowed)
    if len(set(given)) < len(given):
        raise _wrong("a category is listed twice", allowed)
    return tuple(given)


def _steps(value: Any) -> tuple[Step, ...]:
    if not isinstance(value, list | tuple):
        value = [value]
    steps = tuple(map(_step, value))
    for i, step in enumerate(steps):
        if step.name == "one_hot" and len(steps) > 1:
            raise _wrong("one_hot stands alone")
        if step.name == "ordinal" and i:
            raise _wrong("ordinal comes first")
    return steps


def _normalize(value: Any) -> Any:
    if isinstance(value, bool):
        return value
    if isinstance(value, str) and value in SCALINGS:
        return True if value == "minmax" else value
    near = nearest(value, SCALINGS) if isinstance(value, str) else None
    if near:
        raise _wrong("not an allowed value", f"true, false, {', '.join(SCALINGS)}", near)
    raise PydanticKnownError("bool_type")


Normalize = Annotated[
    Any,
    BeforeValidator(_normalize),
    WithJsonSchema({"anyOf": [{"type": "boolean"}, {"enum": list(SCALINGS)}]}),
]
_PAIR = {"type": "array", "items": {"type": ["number", "null"]}, "minItems": 2, "maxItems": 2}
_LIST = {"type": "array", "items": {"type": ["string", "integer", "boolean"]}, "minItems": 1, "uniqueItems": True}
_ONE = {
    "anyOf": [
        {"enum": list(PLAIN)},
        *(
            {"type": "object", "properties": {n: s}, "required": [n], "additionalProperties": False}
            for n, s in (("clip", _PAIR), ("one_hot", _LIST), ("ordinal", _LIST))
        ),
    ]
}
Steps = Annotated[
    Any,
    BeforeValidator(_steps),
    WithJsonSchema({"anyOf": [_ONE, {"type": "array", "items": _ONE}]}),
]


def problems(
    path: Place, transforms: Mapping[str, tuple[Step, ...]], dtypes: Mapping[str, str | None]
) -> Iterator[Problem]:
    """Transforms of features that are not there, or of another kind.

    Args:
        dtypes: feature: its Polars dtype, of those that the view publishes; None where only its tables will tell.
    """
    for feature, steps in transforms.items():
        if feature not in dtypes:
            yield unknown((*path, feature), "feature", feature, dtypes, code="config.unknown_feature")
            continue
        dtype = dtypes[feature]
        if dtype is None:
            continue
        first = steps[0].name if steps else ""
        number = dtype.startswith(("Int", "UInt", "Float"))
        if (not number and first not in ("", *CATEGORICAL)) or (dtype.startswith("Float") and first in CATEGORICAL):
            kind = "no number" if not number else "a fraction, and has no categories"
            yield Problem(
                "config.transform",
                f"{first} does not apply: {feature!r} is {dtype}, {kind}",
                (*path, feature),
                allowed=", ".join(CATEGORICAL) if not number else f"log1p, clip, {', '.join(SCALINGS)}",
                fix="use one of these, or remove it",
            )
