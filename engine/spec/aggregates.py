"""What a declared view is made of: aggregates over events, and attributes as of the same moment."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, GetJsonSchemaHandler, WithJsonSchema
from pydantic_core import PydanticCustomError

from engine.spec.scalars import Category, Column, DurationText, Key, Name, Spec, Text, unique

FUNCTIONS = (
    *("count", "count_distinct", "sum", "mean", "min", "max", "std", "var", "first", "last", "last_n", "quantile"),
    *("mode", "share", "ratio", "time_since", "rate"),
)
# The keys that only some functions take: with those functions, and whether they must have it.
ARGUMENTS: Mapping[str, tuple[tuple[str, ...], bool]] = {
    "n": (("last_n",), True),
    "q": (("quantile",), True),
    "divisor": (("ratio",), True),
    "per": (("rate",), False),
    "error": (("count_distinct", "quantile"), False),
}
WITHOUT_VALUE = ("time_since",)
NEEDS_VALUE = tuple(f for f in FUNCTIONS if f not in ("count", "rate", *WITHOUT_VALUE))
_SHORT = re.compile(
    r"\s*(?P<function>[a-z_]+)\s*(\((?P<value>.*)\))?(\s+over\s+(?P<window>[1-9][0-9]{0,8}[smhdw]))?\s*", re.DOTALL
)
SHORT_TEXT = "keys and values, or a text such as count, sum(amount) or mean(amount) over 30d"


def _expanded(value: Any) -> Any:
    """The short form ``sum(amount) over 30d`` as the keys it stands for."""
    if not isinstance(value, str):
        return value
    found = _SHORT.fullmatch(value)
    if found is None:
        raise PydanticCustomError("short_form", "not written as an aggregate is", {"allowed": SHORT_TEXT})
    return {key: text.strip() for key, text in found.groupdict().items() if text and text.strip()}


def _values(values: Any) -> Any:
    """A list of values, each of which names its feature, or names with their values."""
    if isinstance(values, Mapping):
        return dict(values)
    if not isinstance(values, list | tuple):
        raise PydanticCustomError("dict_type", "expected a list of values, or names and values", {})
    unique(tuple(values))
    return {str(value): value for value in values}


def _default(value: Any) -> Any:
    if isinstance(value, str | bool | int) or (isinstance(value, float) and math.isfinite(value)):
        return value
    raise PydanticCustomError("default", "a default is a text, a number or true/false", {})


Default = Annotated[Any, BeforeValidator(_default), WithJsonSchema({"type": ["string", "number", "boolean"]})]


class BySpec(Spec):
    """One feature per value of a column."""

    column: Annotated[Column, Field(description="of the source")]
    values: Annotated[
        dict[Name, Category],
        BeforeValidator(_values),
        Field(min_length=1, description="a list of values, or names and values: the features are <name>_<value>"),
        WithJsonSchema({"type": ["array", "object"]}),
    ]


class AggregateSpec(Spec):
    """A named aggregate over the events of an entity."""

    function: Literal[
        "count", "count_distinct", "sum", "mean", "min", "max", "std", "var", "first", "last", "last_n", "quantile",
        "mode", "share", "ratio", "time_since", "rate",
    ]  # fmt: skip
    value: Annotated[
        Text | None,
        Field(description="SQL over the source's columns; of share a condition; of count and rate: what is not null"),
    ] = None
    window: Annotated[
        DurationText | None, Field(description="such as 7d, up to the as-of; default: the whole history")
    ] = None
    offset: Annotated[DurationText | None, Field(description="moves the window's end so far back")] = None
    tumbling: Annotated[
        bool, Field(description="the last whole window of those that follow one another since 1970 (weeks: Mondays)")
    ] = False
    where: Annotated[Text | None, Field(description="SQL condition, true for the events that count")] = None
    divisor: Annotated[Text | None, Field(description="ratio: SQL; sum of value / sum of divisor")] = None
    n: Annotated[int | None, Field(ge=1, le=10_000, description="last_n: how many")] = None
    q: Annotated[float | None, Field(ge=0, le=1, description="quantile: 0 to 1")] = None
    per: Annotated[DurationText | None, Field(description="rate: events per this span; default: 1d")] = None
    error: Annotated[
        float | None,
        Field(
            ge=0.005,
            le=0.25,
            description="count_distinct, quantile: approximate; standard error, or how far from a value, as a share",
        ),
    ] = None
    by: Annotated[BySpec | None, Field(description="one feature per value of a column")] = None
    default: Annotated[Default | None, Field(description="in place of null")] = None


class AttributeSpec(Spec):
    """A column of another source, from the newest row that the entity has there as of the same moment."""

    source: Name
    timestamp: Annotated[Column, Field(description="since when a row holds")]
    value: Annotated[
        Text | None, Field(description="SQL over the source's columns; default: the column of this name")
    ] = None
    key: Annotated[Key | None, Field(description="default: the columns that the entity's key is published as")] = None
    where: Annotated[Text | None, Field(description="SQL condition, true for the rows that count")] = None
    default: Annotated[Default | None, Field(description="in place of null")] = None


class EntitiesSpec(Spec):
    """The source with one row per entity."""

    source: Name
    key: Annotated[Key | None, Field(description="default: the columns that the entity's key is published as")] = None


class OrText:
    """Says in the JSON Schema that a text will do too."""

    def __get_pydantic_json_schema__(self, core: Any, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        schema = handler(core)
        return {"anyOf": [*schema.get("anyOf", [schema]), {"type": "string"}]}


AnyAggregate = Annotated[AggregateSpec, BeforeValidator(_expanded), OrText()]
