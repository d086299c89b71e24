"""JSON records to a frame, exactly: no number is rounded, no value changes its type to fit its neighbours.

Within one frame a column, a field of an object, or the items of a list have one kind:

| JSON values (null and absent aside)  | becomes                                                                    |
|--------------------------------------|----------------------------------------------------------------------------|
| true, false                          | Boolean                                                                    |
| integers                             | Int64, or UInt64 when one needs it; beyond that an error                   |
| numbers with a fraction or exponent  | Float64, also when mixed with integers, if those are exact then             |
| texts                                | String; dates and times stay text                                          |
| lists                                | List of what the items are                                                 |
| objects                              | Struct with the fields of all of them, null where one lacks a field        |
| none                                 | Null                                                                       |

Where nested values are to be JSON text (`texts`), a column of lists or objects is String, with what the server sent.

Objects that never have a field cannot be stored: a column of them is null, a field of them is left out. Records that
have no field at all give a frame of their number without columns.

Kinds do not mix: a column with texts and numbers, or with lists and comma-separated texts, is an error that names it.
"""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Iterator, Sequence
from itertools import chain
from json.decoder import scanstring  # type: ignore[attr-defined]  # documented only by use
from typing import Any

import polars as pl
import pyarrow as pa

from engine.errors import SourceError

_SPACE = re.compile(r"[ \t\n\r]*")
_scan = json.JSONDecoder().scan_once  # type: ignore[attr-defined]


class JsonText(str):
    """A list or an object, as it was sent."""

    __slots__ = ()


NAMES = {
    bool: "true/false",
    int: "numbers",
    float: "numbers",
    str: "texts",
    list: "lists",
    dict: "objects",
    JsonText: "lists or objects",
}


def parse(body: bytes) -> Any:
    """The value of a JSON text; a byte order mark before it does not count.

    Raises:
        ValueError: it is not JSON (NaN and Infinity are not), with line and column.
    """
    from pydantic_core import from_json

    return from_json(body.removeprefix(codecs.BOM_UTF8), allow_inf_nan=False, cache_strings="keys")


def texts(body: bytes, key: Sequence[str]) -> list[dict[str, Any]]:
    """The records of a JSON text that `parse` takes, their lists and objects as they were sent.

    Args:
        key: the names that lead to the list of records.
    """
    text = body.removeprefix(codecs.BOM_UTF8).decode()
    at = _skipped(text, 0)
    for step in key:
        at = {name: start for name, start, _ in _members(text, at)}[step]  # of equal names the last one counts
    found = []
    for start in _items(text, at):
        record = {}
        for name, first, end in _members(text, start):
            record[name] = JsonText(text[first:end]) if text[first] in "[{" else _scan(text, first)[0]
        found.append(record)
    return found


def _items(text: str, at: int) -> Iterator[int]:
    """Where the items of a list begin."""
    at = _skipped(text, at + 1)
    while text[at] != "]":
        yield at
        at = _skipped(text, _scan(text, at)[1])
        if text[at] == ",":
            at = _skipped(text, at + 1)


def _members(text: str, at: int) -> Iterator[tuple[str, int, int]]:
    """Name, beginning and end of each member of an object."""
    at = _skipped(text, at + 1)
    while text[at] == '"':
        name, at = scanstring(text, at + 1)
        start = _skipped(text, _skipped(text, at) + 1)
        _, end = _scan(text, start)
        yield name, start, end
        at = _skipped(text, end)
        if text[at] == ",":
            at = _skipped(text, at + 1)


def _skipped(text: str, at: int) -> int:
    return _SPACE.match(text, at).end()  # type: ignore[union-attr]  # it matches anything


def frame(records: Sequence[dict[str, Any]], *, where: str, origin: str) -> pl.DataFrame:
    """``records`` as a frame, its columns in the order of their first appearance.

    Args:
        records: parsed JSON objects.
        where: for errors, such as ``sources.tasks``.
        origin: for errors: what the records were read from.

    Raises:
        SourceError: a column mixes kinds, or holds a number that cannot be held exactly.
    """
    names = dict.fromkeys(chain.from_iterable(records))
    columns = []
    for name in names:
        values = [record.get(name) for record in records]
        try:
            columns.append(_series(name, values, _dtype(name, values)))
        except _Unfit as error:
            raise SourceError(
                f"{error} ({origin})",
                code=error.code,
                where=where,
                allowed="one kind of value per column, integers from -2^63 to 2^64-1; null and absent are always fine",
                fix=error.fix,
            ) from None
    return pl.DataFrame(columns or None, height=len(records))


def _series(name: str, values: list[Any], dtype: pl.DataType | None) -> pl.Series:
    if dtype is None:
        return pl.Series(name, [None] * len(values), dtype=pl.Null())
    if not dtype.is_nested():
        return pl.Series(name, values, dtype=dtype, strict=True)
    kind = pl.Series([], dtype=dtype).to_arrow(compat_level=pl.CompatLevel.oldest()).type
    try:
        made = pa.array(values, type=kind)
    except pa.ArrowInvalid:  # it takes no integers beyond 2^53 for floats, though `_number` has found them exact
        made = pa.array([_floated(value, dtype) for value in values], type=kind)
    return pl.Series(name, made, dtype=dtype)  # twenty times as fast as from Python lists


def _floated(value: Any, dtype: Any) -> Any:
    """A value with floats where its type has them."""
    if isinstance(value, list):
        return [_floated(item, dtype.inner) for item in value]
    if isinstance(value, dict):
        kept = {field.name: field.dtype for field in dtype.fields}
        return {name: _floated(inner, kept[name]) for name, inner in value.items() if name in kept}
    return float(value) if type(value) is int and dtype == pl.Float64 else value


class _Unfit(Exception):  # noqa: N818 - never leaves this module
    """A column that has no exact type."""

    def __init__(self, message: str, code: str, fix: str) -> None:
        super().__init__(message)
        self.code = code
        self.fix = fix


def _dtype(path: str, values: list[Any]) -> pl.DataType | None:
    """The type that holds ``values``; None for nothing but objects without fields."""
    kinds = set(map(type, values)) - {type(None)}
    words = sorted({NAMES[kind] for kind in kinds})
    if len(words) > 1:
        raise _Unfit(
            f"column {path!r} mixes {' and '.join(words)}",
            "source.mixed_column",
            "have the source write one kind, for example every value as text",
        )
    if not kinds:
        return pl.Null()
    if kinds <= {int, float}:
        return _number(path, values, kinds)
    kind = kinds.pop()
    if kind is list:
        inner = _dtype(f"{path}[]", list(chain.from_iterable(v for v in values if v is not None)))
        return None if inner is None else pl.List(inner)
    if kind is dict:
        objects = [v for v in values if v is not None]
        names = dict.fromkeys(chain.from_iterable(objects))
        fields = {name: _dtype(f"{path}.{name}", [o.get(name) for o in objects]) for name in names}
        kept = {name: dtype for name, dtype in fields.items() if dtype is not None}
        return pl.Struct(kept) if kept else None
    return pl.Boolean() if kind is bool else pl.String()


def dtype(path: str, values: list[Any]) -> pl.DataType | None:
    """The type that holds ``values``; None for nothing but objects without fields, and where there is none."""
    try:
        return _dtype(path, values)
    except _Unfit:
        return None


def _is_float(number: int) -> bool:
    try:
        return int(float(number)) == number
    except OverflowError:
        return False


def _number(path: str, values: list[Any], kinds: set[type]) -> pl.DataType:
    numbers = [v for v in values if type(v) is int]
    low, high = min(numbers, default=0), max(numbers, default=0)
    if float in kinds:
        if not all(map(_is_float, numbers)):
            raise _Unfit(
                f"column {path!r} mixes fractions with integers beyond 2^53, which no float holds exactly",
                "source.inexact_number",
                "have the source write these numbers as text",
            )
        if any(v in (float("inf"), float("-inf")) for v in values):
            raise _Unfit(
                f"column {path!r} holds a number too large for a float",
                "source.inexact_number",
                "have the source write these numbers as text",
            )
        return pl.Float64()
    if low >= -(2**63) and high < 2**63:
        return pl.Int64()
    if low >= 0 and high < 2**64:
        return pl.UInt64()
    raise _Unfit(
        f"column {path!r} holds an integer beyond 64 bits",
        "source.inexact_number",
        "have the source write these numbers as text",
    )
