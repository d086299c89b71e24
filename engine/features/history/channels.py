"""What of each row an aggregate looks at, as numbers: a value per channel, and flags.

Values of any type that has an order travel as 64-bit numbers, texts as numbers of categories that are told apart
while they are read and put in order once all have been seen.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import polars as pl

from engine.features.definition import Aggregate

Array = npt.NDArray[Any]
# DuckDB's types, as the SQL that makes a number of a value, and the Polars type that its result has.
_INTEGERS = dict.fromkeys(
    ("TINYINT", "SMALLINT", "INTEGER", "BIGINT", "UTINYINT", "USMALLINT", "UINTEGER"), ("CAST({} AS BIGINT)", pl.Int64)
)
_FLOATS = dict.fromkeys(("FLOAT", "DOUBLE"), ("CAST({} AS DOUBLE)", pl.Float64))
_ORDERED: dict[str, tuple[str, Any]] = {
    **_INTEGERS,
    **_FLOATS,
    "BOOLEAN": ("CAST({} AS BIGINT)", pl.Boolean),
    "DATE": ("epoch_us(CAST({} AS TIMESTAMP))", pl.Date),
    "TIMESTAMP": ("epoch_us({})", pl.Datetime("us")),
    "TIMESTAMP WITH TIME ZONE": ("epoch_us({})", pl.Datetime("us", "UTC")),
    "VARCHAR": ("CAST({} AS VARCHAR)", pl.String),
}
_NUMERIC = {*_INTEGERS, *_FLOATS}
_ARITHMETIC = ("sum", "mean", "std", "var", "quantile")


def can_carry(aggregate: Aggregate, kind: str | None) -> bool:
    """Whether an aggregate over values of a DuckDB type (None: it counts rows) can be computed from numbers."""
    if aggregate.function == "count":
        return True
    return kind in (_NUMERIC if aggregate.function in _ARITHMETIC else _ORDERED)


@dataclass
class Channel:
    """One value of each row.

    Attributes:
        sql: what the value is.
        kind: its type, as DuckDB names it.
        is_read: whether values are needed, or only whether there is one.
    """

    sql: str
    kind: str
    is_read: bool = False

    @property
    def is_float(self) -> bool:
        return self.kind in _FLOATS

    @property
    def is_text(self) -> bool:
        return self.kind == "VARCHAR"

    @property
    def number(self) -> str:
        """SQL: the value as a number (or as text)."""
        return _ORDERED[self.kind][0].format(f"({self.sql})")

    @property
    def is_there(self) -> str:
        """SQL: whether there is a value; NaN is none."""
        there = f"({self.sql}) IS NOT NULL"
        return f"({there} AND NOT isnan({self.sql}))" if self.is_float else there

    @property
    def dtype(self) -> Any:
        """The Polars type of the values."""
        return _ORDERED[self.kind][1]


class Texts:
    """Texts as numbers: by when they were first seen, and later by their order."""

    def __init__(self) -> None:
        self._dtype = pl.Categorical(pl.Categories.random("maestro"))
        self._alive = pl.Series([""], dtype=self._dtype)  # Polars forgets categories that no series has
        self._seen = 1
        self._ranks: Array | None = None
        self._sorted = pl.Series([""])

    def codes(self, texts: pl.Series) -> Array:
        """A number for each; the same text has the same number. Nulls have any."""
        codes = texts.cast(self._dtype).to_physical()
        if codes.count():
            self._seen = max(self._seen, cast("int", codes.max()) + 1)
        return codes.fill_null(0).cast(pl.Int64).to_numpy()

    def ranks(self, codes: Array) -> Array:
        """By codes, once all have been made: the numbers of the texts in their order, that of their UTF-8 bytes."""
        if self._ranks is None:
            numbers = pl.select(pl.int_range(self._seen, dtype=pl.UInt32)).to_series()
            seen = numbers.to_frame("").select(pl.col("").cat.to(self._dtype).cast(pl.String)).to_series()
            order = seen.arg_sort()
            self._sorted = seen.gather(order)
            self._ranks = np.empty(len(order), np.int64)
            self._ranks[order.to_numpy()] = np.arange(len(order))
        return self._ranks[codes]

    def of(self, ranks: Array) -> pl.Series:
        """The texts of ranks."""
        return self._sorted.gather(np.clip(ranks, 0, len(self._sorted) - 1))


def to_series(name: str, values: Array, there: Array | None, dtype: Any, texts: Texts | None) -> pl.Series:
    """The values of an aggregate as a column, null where there is none."""
    if texts is not None:
        series = texts.of(values if there is None else np.where(there, values, 0))
    elif dtype == pl.Boolean:
        series = pl.Series(values > 0)
    elif dtype == pl.Date:
        series = pl.Series(values // 86_400_000_000).cast(pl.Int32, strict=False).cast(pl.Date)
    elif dtype in (pl.Int64, pl.Float64):
        series = pl.Series(values.astype(np.int64 if dtype == pl.Int64 else np.float64, copy=False))
    else:
        series = pl.Series(values).cast(dtype)
    if there is not None and not there.all():
        series = pl.select(pl.when(pl.Series(there)).then(series)).to_series()
    return series.alias(name)


def channels_of(aggregates: Sequence[Aggregate], kinds: Mapping[str, str]) -> dict[str, Channel]:
    """By their SQL, the channels that aggregates need; ``kinds``: the type of each."""
    found: dict[str, Channel] = {}
    for aggregate in aggregates:
        if aggregate.value is not None:
            channel = found.setdefault(aggregate.value, Channel(aggregate.value, kinds[aggregate.value]))
            channel.is_read |= aggregate.function != "count"
    return found
