"""A first draft of a table's checks, from its profile, for a person to edit."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from typing import Any

from engine.profile import ColumnProfile, Profile

_TYPES = {"number": "float", "whole": "int", "date": "date", "moment": "datetime", "text": "string", "bool": "bool"}
_FEW = 20  # values of a category
_OFTEN = 10  # rows per value


def candidates(profile: Profile) -> list[str]:
    """Columns that may name a row: to be counted exactly before they are suggested."""
    kinds = ("text", "whole", "date", "moment")
    return [
        c.name
        for c in profile.columns.values()
        if c.kind in kinds and c.count > 1 and c.distinct is not None and c.distinct >= 0.9 * c.count
    ]


def suggest(profile: Profile) -> str:
    """The content of a ``validation`` entry as YAML with comments; the table it was made from passes.

    Nothing is suggested of the values of columns tagged ``pii``.
    """
    return "\n".join(_lines(profile)) + "\n"


def _lines(profile: Profile) -> Iterator[str]:
    columns = list(profile.columns.values())
    yield f"# Drafted from a profile of {profile.rows:,} rows: what was true of them, not what must be true. Edit it."
    yield "schema:"
    for column in columns:
        dtype = "decimal" if column.dtype.startswith("Decimal") else _TYPES.get(column.kind)
        if dtype:
            yield f"  {_text(column.name)}: {dtype}"
        else:
            yield f"  # {_text(column.name)}: {column.dtype}"
    full = [c.name for c in columns if c.nulls == 0 and c.count]
    if full:
        yield "required_columns:  # these had no null"
        yield from (f"  - {_text(name)}" for name in full)
        yield "max_null_percentage: 0.0"
    for column in columns:
        if column.nulls:
            yield f"# {_text(column.name)}: {100 * column.nulls / column.rows:.3g} % null"
    unique = [c.name for c in columns if c.name in candidates(profile) and c.counted_distinct == c.count]
    if unique:
        yield "unique_columns:  # no value twice"
        yield from (f"  - {_text(name)}" for name in unique)
    yield from _ranges(columns, set(unique))
    yield from _categories(columns)
    yield from _times(columns)
    yield f"row_count: {{min: {max(1, profile.rows // 2)}, max: {max(2, profile.rows * 2)}}}  # {profile.rows:,} now"


def _ranges(columns: list[ColumnProfile], unique: set[str]) -> Iterator[str]:
    lines = []
    for c in columns:
        if c.kind not in ("number", "whole") or c.numbers is None or c.name in unique or not c.count or c.rounded:
            continue
        low, high = c.numbers.ends or (0.0, 0.0)
        usual = f"# {_number(low)} to {_number(high)}, half of them {_part(c, 0.25)} to {_part(c, 0.75)}"
        bounds = _bound(low, -1), _bound(high, 1)
        if bounds != ("null", "null"):
            lines.append(f"  {_text(c.name)}: [{', '.join(bounds)}]  {usual}")
    if lines:
        yield "range_constraints:  # rounded outwards; null is an open end"
        yield from lines


def _categories(columns: list[ColumnProfile]) -> Iterator[str]:
    lines = []
    for c in columns:
        found = c.categories
        if c.kind != "text" or found is None or not found.exact or not 0 < len(found.counts) <= _FEW:
            continue
        if c.count >= _OFTEN * len(found.counts) and not any("${" in value for value in found.counts):
            lines.append(f"  {_text(c.name)}: [{', '.join(_text(value) for value, _ in found.top(_FEW))}]")
    if lines:
        yield "categorical_constraints:  # the most frequent first"
        yield from lines


def _times(columns: list[ColumnProfile]) -> Iterator[str]:
    for c in columns:
        if c.kind in ("moment", "date") and c.numbers and c.numbers.ends:
            yield f"# freshness: {{timestamp_column: {_text(c.name)}, max_age_hours: 24}}"
            yield f"#   {_text(c.name)}: {c.value(c.numbers.ends[0])} to {c.value(c.numbers.ends[1])}"


def _part(column: ColumnProfile, share: float) -> str:
    return _number(column.quantile(share) or 0.0)


def _number(number: float) -> str:
    return f"{number:.6g}"


def _bound(number: float, way: int) -> str:
    """A bound with two digits or so, at or beyond the number; null for an infinity."""
    if not math.isfinite(number):
        return "null"
    if number == 0:
        return "0"
    unit = 10.0 ** (math.floor(math.log10(abs(number))) - 1)
    if not 1e-300 < unit < 1e300:
        return "null"
    steps = math.floor(number / unit) if way < 0 else math.ceil(number / unit)
    bound = steps * unit if unit >= 1 else steps / round(1 / unit)
    if (bound > number) if way < 0 else (bound < number):
        bound += way * unit
    return json.dumps(int(bound) if abs(bound) < 2**53 and bound == int(bound) else bound)


def _text(value: Any) -> str:
    """A text as YAML has it, in quotes where it needs them."""
    plain = value.isidentifier() and value.isascii() and value.lower() not in _WORDS
    return value if plain else json.dumps(value, ensure_ascii=False)


_WORDS = {"y", "n", "yes", "no", "on", "off", "true", "false", "null", "nan", "inf"}
