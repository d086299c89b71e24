"""What single values of a pipeline may be: names, columns, keys, bounds, categories, types, durations."""

from __future__ import annotations

import math
import re
from datetime import date, datetime
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints, WithJsonSchema
from pydantic_core import PydanticCustomError

from engine.errors import UsageError, nearest
from engine.types import DURATION_PATTERN, iso, parse_moment

NAMED_TYPES = ("int", "float", "string", "bool", "datetime", "date", "decimal", "list")
_EXACT_TYPES = frozenset(
    """
    Int8 Int16 Int32 Int64 Int128 UInt8 UInt16 UInt32 UInt64 UInt128 Float16 Float32 Float64 String Utf8 Boolean
    Binary Categorical Enum Date Time Datetime Duration Decimal List Array Struct Null
    int8 int16 int32 int64 uint8 uint16 uint32 uint64 halffloat double utf8 large_string large_utf8 string_view
    boolean binary large_binary date32 date64 time32 time64 timestamp duration decimal128 decimal256
    list large_list fixed_size_list struct dictionary null
    """.split()  # noqa: SIM905 - 50 quoted names would be harder to read
)
_SYNONYMS = {
    "str": "string", "text": "string", "varchar": "string", "object": "string", "integer": "int", "bigint": "int",
    "number": "float", "real": "float", "numeric": "decimal", "array": "list",
}  # fmt: skip
BOUND_TEXT = "a number, a date or a timestamp in quotes, or null for an open end"


class Spec(BaseModel):
    """Base of all parts of a pipeline: unknown keys and wrong types are errors, values never change."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, validate_default=False)


def _bound(value: Any) -> Any:
    if value is None or (isinstance(value, int) and not isinstance(value, bool)):
        return value
    if isinstance(value, float) and not math.isnan(value):
        return value
    if isinstance(value, date | datetime):
        return parse_moment(value) if isinstance(value, datetime) else value
    if isinstance(value, str):
        try:
            parse_moment(value)
        except UsageError:
            pass
        else:
            if value.strip().lower() != "now":
                return value
    raise PydanticCustomError("bound", "a bound is {allowed}", {"allowed": BOUND_TEXT})


def _moment(value: Any) -> Any:
    try:
        if not isinstance(value, str | date) or (isinstance(value, str) and value.strip().lower() == "now"):
            raise UsageError("", code="")
        return iso(parse_moment(value))
    except UsageError:
        allowed = "an ISO 8601 date or timestamp; UTC unless it carries an offset"
        raise PydanticCustomError("moment", "it is no moment in time", {"allowed": allowed}) from None


def _category(value: Any) -> Any:
    if isinstance(value, str | bool | int) or (isinstance(value, float) and math.isfinite(value)):
        return value
    raise PydanticCustomError("category", "a category is a text, a number or true/false, never null", {})


def _key(value: Any) -> str | tuple[str, ...]:
    """A column name, or a list of names for a compound key."""
    if isinstance(value, str) and value:
        return value
    if isinstance(value, list | tuple) and value and all(isinstance(v, str) and v for v in value):
        if len(set(value)) < len(value):
            raise PydanticCustomError("key", "a compound key names a column twice", {})
        return tuple(value)
    raise PydanticCustomError("key", "a unique key is a column name, or a list of column names for a compound key", {})


def _type_name(value: str) -> str:
    base = re.split(r"[(\[<]", value, maxsplit=1)[0].strip()
    if value in NAMED_TYPES or base in _EXACT_TYPES:
        return value
    raise PydanticCustomError(
        "type_name",
        "unknown type {name}",
        {
            "name": value,
            "allowed": ", ".join(NAMED_TYPES) + ", or an exact Polars or Arrow type such as Int64 or timestamp[us]",
            "nearest": _SYNONYMS.get(value.lower()) or nearest(value, [*NAMED_TYPES, *sorted(_EXACT_TYPES)]),
        },
    )


def unique(values: tuple[Any, ...]) -> tuple[Any, ...]:
    seen: set[Any] = set()
    for value in values:
        marked = (type(value), value)  # 1 and true are equal, and two values
        if marked in seen:
            raise PydanticCustomError("repeated", "{value} is listed twice", {"value": value})
        seen.add(marked)
    return values


Name = Annotated[
    str,
    StringConstraints(pattern=r"^[A-Za-z][A-Za-z0-9_]{0,62}$"),
    Field(description="letters, digits and underscores, beginning with a letter, at most 63"),
]
Column = Annotated[str, StringConstraints(min_length=1)]
Text = Annotated[str, StringConstraints(min_length=1)]
Columns = Annotated[tuple[Column, ...], Field(strict=False), AfterValidator(unique)]
Key = Annotated[
    Any,
    BeforeValidator(_key),
    WithJsonSchema(
        {
            "oneOf": [
                {"type": "string", "minLength": 1},
                {
                    "type": "array",
                    "items": {"type": "string", "minLength": 1},
                    "minItems": 1,
                    "uniqueItems": True,
                },
            ]
        }
    ),
]
Bound = Annotated[Any, BeforeValidator(_bound), WithJsonSchema({"type": ["number", "string", "null"]})]
Category = Annotated[Any, BeforeValidator(_category), WithJsonSchema({"type": ["string", "number", "boolean"]})]
TypeName = Annotated[Text, AfterValidator(_type_name)]
DurationText = Annotated[str, StringConstraints(pattern=DURATION_PATTERN)]
MomentText = Annotated[str, BeforeValidator(_moment), WithJsonSchema({"type": "string", "format": "date-time"})]
Finite = Annotated[float, Field(allow_inf_nan=False)]
