"""Rows of a chunk that do not go on: found, counted, set aside; and the others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import polars as pl

from engine.frames import column as exactly
from engine.landing import files, origin, quarantine
from engine.landing.origin import Segment

_MOST_NUMBERS = 1_000_000  # of rows, held to tell where the others came from


class Marked:
    """The rows of a frame that do not go on, by what of them is marked.

    Attributes:
        rows: how many.
        by_column: of those, per column.
    """

    def __init__(self, frame: pl.LazyFrame, marks: Mapping[str, pl.Expr], prefix: str) -> None:
        """
        Args:
            marks: column: whether its value keeps the row from going on; never null.
            prefix: of the reasons, before the column.
        """
        self._frame, self._marks, self._prefix = frame, dict(marks), prefix
        self._index = files.index_name(frame.collect_schema())
        self._numbers: pl.Series | None = None  # of the rows, unless they are too many
        self.rows, self.by_column = 0, dict.fromkeys(marks, 0)
        if marks:
            self._find()

    def _find(self) -> None:
        flags = [mark.alias(str(i)) for i, mark in enumerate(self._marks.values())]
        found = self._numbered().select(self._index, *flags).head(_MOST_NUMBERS).collect(engine="streaming")
        if found.height < _MOST_NUMBERS:
            self._numbers, counts = found[self._index], found.drop(self._index).sum()
        else:
            counts = self._numbered().select(*flags).sum().collect(engine="streaming")
        self.rows = found.height if self._numbers is not None else count_rows(self._numbered())
        if self.rows:
            self.by_column = dict(zip(self._marks, counts.row(0), strict=True))

    def _numbered(self) -> pl.LazyFrame:
        """Those rows, with their number."""
        return self._frame.with_row_index(self._index).filter(pl.any_horizontal(*self._marks.values()))

    def without(self) -> pl.LazyFrame:
        """The frame without them."""
        return self._frame.filter(~pl.any_horizontal(*self._marks.values())) if self.rows else self._frame

    def left_of(self, segments: Sequence[Segment]) -> list[Segment]:
        """The segments of the rows that stay."""
        if self.rows == 0:
            return list(segments)
        if self._numbers is not None:
            return origin.without(segments, self._numbers)
        left = sum(segment.rows for segment in segments) - self.rows
        known = {(segment.read, segment.origin) for segment in segments}
        [(read, place)] = known if len(known) == 1 else [(segments[0].read, "")]
        return [Segment(left, read, place)] if left else []

    def write(self, path: Path, segments: Sequence[Segment], run: str) -> None:
        """Writes them as a quarantine file."""
        names = [pl.when(mark).then(pl.lit(f"{self._prefix}{column}")) for column, mark in self._marks.items()]
        checks = pl.concat_list(names).list.drop_nulls()
        quarantine.write(self._numbered(), path, self._index, checks, segments, run)


def nulls(frame: pl.LazyFrame, columns: Sequence[str]) -> dict[str, pl.Expr]:
    """Column: whether it is null, or NaN."""
    schema = frame.collect_schema()
    return {column: _is_null(column, schema[column]) for column in columns}


def counts(frame: pl.LazyFrame, marks: Mapping[str, pl.Expr]) -> dict[str, int]:
    """How many rows each mark has."""
    if not marks:
        return {}
    found = frame.select(mark.sum().alias(str(i)) for i, mark in enumerate(marks.values()))
    return dict(zip(marks, found.collect(engine="streaming").row(0), strict=True))


def count_rows(frame: pl.LazyFrame) -> int:
    rows: int = frame.select(pl.len()).collect(engine="streaming").item()
    return rows


def _is_null(column: str, dtype: pl.DataType) -> pl.Expr:
    expr = exactly(column)
    return expr.is_null() | expr.is_nan().fill_null(value=False) if dtype.is_float() else expr.is_null()
