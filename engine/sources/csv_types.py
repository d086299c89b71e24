"""The type of a CSV column from its fields, a block at a time: nothing but a type and a flag is kept between blocks.

The same as Polars infers from the whole file, except where a field would come out written otherwise: see `Column`.
"""

from __future__ import annotations

import re
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

INTEGER = r"^(?:0|-?[1-9][0-9]*)$"  # the one way to write an integer
FLOAT = r"^[-+]?(?:[0-9]*\.[0-9]+(?:[eE][-+]?[0-9]+)?|[0-9]+[eE][-+]?[0-9]+|[0-9]+\.|inf|NaN)$"  # Polars' own
BOOLEAN = r"^(?i-u:true|false)$"
_INTEGER, _FLOAT = re.compile(INTEGER[1:-1]), re.compile(FLOAT[1:-1])
_BOOLEAN = re.compile("true|false", re.IGNORECASE | re.ASCII)
_WRITTEN = ("true", "false")
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
        self._values: pl.Series | None = None

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

    def take(self, name: str, block: pa.Array) -> tuple[pl.Series, pl.Series | None]:
        """Takes in more fields, as `add` does.

        Returns:
            The fields, or their values where those came out at once; and their values, where these came out later.
        """
        values = self._numbers(block) if self.type in (None, pl.Int64, pl.Float64) else None
        if values is not None:
            return pl.Series(name, values), None
        fields = pl.Series(name, block)
        return fields, self.add(fields)

    def _numbers(self, block: pa.Array) -> pa.Array | None:
        """The values of numbers that are all written in the plainest way, as most are; None: look closer."""
        if block.null_count == len(block):
            return None
        start = _offset(block, 0)
        length = _offset(block, len(block)) - start
        if not length:
            return None
        text = block.buffers()[2].slice(start, length)
        digits = pa.Array.from_buffers(pa.uint8(), length, [None, text])
        least, most = pc.min_max(digits).as_py().values()
        if least < ord("-") or most > ord("9"):
            return None
        points = int((pl.Series(digits) == ord(".")).sum())
        fraction = points == len(block) - block.null_count  # in each, for a number has no second one
        if not fraction and (points or self.type is pl.Float64):
            return None
        if fraction and self.type is pl.Int64 and not self._exact:
            return None
        try:
            values = pc.cast(block, pa.float64() if fraction else pa.int64())
        except pa.ArrowInvalid:
            return None
        if not fraction and not self._are_canonical(pl.Series(values), length):
            return None
        self.type = pl.Float64 if fraction else pl.Int64
        return values

    def add(self, block: pl.Series) -> pl.Series | None:
        """Takes in more fields, as texts; an empty one is null.

        Returns:
            Their values, where these came out on the way; of the type so far.
        """
        if self.type is pl.String:
            return None
        self._values = None
        fields = block.drop_nulls() if block.null_count() else block
        if fields.len():
            self.type = self._with(fields, block)
        return self._values

    def _with(self, fields: pl.Series, block: pl.Series) -> type[pl.DataType]:
        kind = _kind(fields[0])
        if kind is pl.String or _kind(fields[-1]) is pl.String:  # most texts show at once
            return pl.String
        if self.type in (None, pl.Int64) and kind is pl.Int64 and self._are_integers(fields, block):
            return pl.Int64
        if self.type in (None, pl.Boolean) and kind is pl.Boolean:
            true, false = (fields == word for word in _WRITTEN)
            if int(true.sum()) + int(false.sum()) == fields.len():  # in the usual way
                self._values = true if fields.len() == block.len() else None
                return pl.Boolean
            return pl.String if _others(fields, BOOLEAN).len() else pl.Boolean
        if self.type is pl.Boolean:
            return pl.String
        integers = _others(fields, FLOAT)
        others = _others(integers, INTEGER)
        if others.len() or not self._fit(integers):
            return pl.String
        if self.type is pl.Float64 or integers.len() < fields.len():
            if not self._exact:
                return pl.String
            self._values = block.cast(pl.Float64)
            return pl.Float64
        return pl.Int64

    def _are_integers(self, fields: pl.Series, block: pl.Series) -> bool:
        """Whether all are integers of int64, written the one way that there is: any other takes more characters."""
        values = block.cast(pl.Int64, strict=False)
        if values.null_count() != block.null_count():
            return False
        if not self._are_canonical(values, int(fields.str.len_bytes().sum())):
            return False
        self._values = values
        return True

    def _are_canonical(self, values: pl.Series, length: int) -> bool:
        """Whether integers take as many characters as their fields do; else some are written in a longer way."""
        low, high = int(values.min() or 0), int(values.max() or 0)  # type: ignore[arg-type]
        numbers = values.drop_nulls().to_numpy()
        written = len(numbers)
        power = 10
        while power <= max(high, -low):
            written += int((numbers >= power).sum()) + (int((numbers <= -power).sum()) if low < 0 else 0)
            power *= 10
        if low < 0:
            written += int((numbers < 0).sum())
        if written != length:
            return False
        self._exact &= low >= -EXACT and high <= EXACT
        return True

    def _fit(self, integers: pl.Series) -> bool:
        """Whether int64 holds them all."""
        if not integers.len() or integers.str.len_bytes().max() <= EXACT_DIGITS:  # type: ignore[operator]
            return True
        values = integers.cast(pl.Int64, strict=False)
        self._exact &= bool(values.is_between(-EXACT, EXACT).all())
        return not values.null_count()


def _offset(block: pa.Array, at: int) -> int:
    """Where a field begins in the text of all; ``at`` may be one beyond the last."""
    offsets = memoryview(block.buffers()[1]).cast("q")
    return int(offsets[block.offset + at])


def _kind(field: str) -> type[pl.DataType]:
    """What one field alone would be."""
    patterns = {pl.Int64: _INTEGER, pl.Float64: _FLOAT, pl.Boolean: _BOOLEAN}
    return next((kind for kind, pattern in patterns.items() if pattern.fullmatch(field)), pl.String)


def common(kinds: set[str]) -> bool:
    """Whether one type other than text holds fields of all these kinds as they are written."""
    return (
        kinds - {"null"} <= {"integer", "float"} or len(kinds - {"null"}) <= 1 or kinds <= {"null", "integer", "wide"}
    )


def typed(fields: pl.Series, kind: type[pl.DataType]) -> pl.Series:
    """Fields as values of the type that was found for them."""
    if kind is pl.Boolean:
        return fields.str.to_lowercase() == "true"
    return fields if kind is pl.String else fields.cast(kind)


def _others(fields: pl.Series, pattern: str) -> pl.Series:
    """The fields that do not match."""
    found = fields.str.contains(pattern)
    return fields.clear() if found.all() else fields.filter(~found)
