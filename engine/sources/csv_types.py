"""The type of a CSV column from its fields, a block at a time: nothing but a type and a flag is kept between blocks.

The same as Polars infers from the whole file, except where a field would come out written otherwise: see `Column`.
"""

from __future__ import annotations

from typing import Any

import polars as pl
import polars.exceptions

INTEGER = r"^(?:0|-?[1-9][0-9]*)$"  # the one way to write an integer
FLOAT = r"^[-+]?(?:[0-9]*\.[0-9]+(?:[eE][-+]?[0-9]+)?|[0-9]+[eE][-+]?[0-9]+|[0-9]+\.|inf|NaN)$"  # Polars' own
BOOLEAN = r"^(?i-u:true|false)$"
EXACT = 2**53  # the largest integer up to which Float64 holds every one
EXACT_DIGITS = len(str(EXACT)) - 1  # a field this long is no larger


class Column:
    """A column's type so far.

    Integers are Int64; with a fraction, an exponent, inf or NaN among them Float64. Text stays what Polars would not
    give back as it is written: integers beyond int64, or written otherwise than integers are (007, -0), and in a
    column of floats those beyond 2**53. Dates are text, and so is a column of nothing but nulls.

    Args:
        text: it is text, whatever its fields are.
    """

    def __init__(self, *, text: bool = False) -> None:
        self.type: type[pl.DataType] | None = pl.String if text else None  # None: nothing but nulls
        self._exact = True  # as Float64

    @property
    def kind(self) -> str:
        """``null``, ``text``, ``boolean``, ``float``, ``integer``, or ``wide``: integers that no float holds."""
        names: dict[Any, str] = {
            None: "null",
            pl.String: "text",
            pl.Boolean: "boolean",
            pl.Float64: "float",
            pl.Int64: "integer",
        }
        return "wide" if self.type is pl.Int64 and not self._exact else names[self.type]

    def add(self, block: pl.Series) -> None:
        """Take in more fields, as bytes; an empty one is null."""
        if self.type is pl.String:
            return
        fields = block.drop_nulls()
        if fields.len():
            try:
                self.type = self._with(fields.cast(pl.String))
            except polars.exceptions.ComputeError:  # not UTF-8: whoever reads the column says so
                self.type = pl.String

    def _with(self, fields: pl.Series) -> type[pl.DataType]:
        if self.type in (None, pl.Int64) and self._are_integers(fields):
            return pl.Int64
        if self.type in (None, pl.Boolean):
            if not _others(fields, BOOLEAN).len():
                return pl.Boolean
            if self.type is pl.Boolean:
                return pl.String
        integers = _others(fields, FLOAT)
        others = _others(integers, INTEGER)
        if others.len() or not self._fit(integers):
            return pl.String
        if self.type is pl.Float64 or integers.len() < fields.len():
            return pl.Float64 if self._exact else pl.String
        return pl.Int64

    def _are_integers(self, fields: pl.Series) -> bool:
        """Whether all are integers of int64, written the one way that there is."""
        if not fields[0][:2].lstrip("-").isdigit():  # most others show at once
            return False
        values = fields.cast(pl.Int64, strict=False)
        if values.null_count() or not (values.cast(pl.String) == fields).all():
            return False
        self._exact &= bool(values.is_between(-EXACT, EXACT).all())
        return True

    def _fit(self, integers: pl.Series) -> bool:
        """Whether int64 holds them all."""
        if not integers.len() or integers.str.len_bytes().max() <= EXACT_DIGITS:  # type: ignore[operator]
            return True
        values = integers.cast(pl.Int64, strict=False)
        self._exact &= bool(values.is_between(-EXACT, EXACT).all())
        return not values.null_count()


def common(kinds: set[str]) -> bool:
    """Whether one type other than text holds fields of all these kinds as they are written."""
    return (
        kinds - {"null"} <= {"integer", "float"} or len(kinds - {"null"}) <= 1 or kinds <= {"null", "integer", "wide"}
    )


def typed(fields: pl.Series, kind: type[pl.DataType]) -> pl.Series:
    """Fields, as bytes, as values of the type that was found for them."""
    if kind is pl.Boolean:
        return fields.cast(pl.String).str.to_lowercase() == "true"
    texts = fields.cast(pl.String)
    return texts if kind is pl.String else texts.cast(kind)


def _others(fields: pl.Series, pattern: str) -> pl.Series:
    """The fields that do not match."""
    found = fields.str.contains(pattern)
    return fields.clear() if found.all() else fields.filter(~found)
