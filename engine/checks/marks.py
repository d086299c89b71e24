"""Marked rows of a table, a bit each."""

from __future__ import annotations

import polars as pl

_BLOCK = 1 << 20


class Marks:
    """A set of row numbers, in memory in proportion to the table's rows, however many are marked."""

    def __init__(self) -> None:
        self._blocks: dict[int, pl.Series] = {}

    def add(self, rows: pl.Series) -> None:
        """Marks the rows with these numbers, in any order."""
        numbers = rows.cast(pl.Int64)
        blocks = numbers // _BLOCK
        for block in blocks.unique().to_list():
            marked = self._blocks.get(block)
            if marked is None:
                marked = pl.Series([False]).new_from_index(0, _BLOCK)
            self._blocks[block] = marked.scatter(numbers.filter(blocks == block) - block * _BLOCK, values=True)

    def slice(self, first: int, length: int) -> pl.Series:
        """Whether each of ``length`` rows from ``first`` on is marked: Boolean."""
        parts = []
        for block in range(first // _BLOCK, (first + max(length, 1) - 1) // _BLOCK + 1):
            start = max(first, block * _BLOCK)
            count = min(first + length, (block + 1) * _BLOCK) - start
            marked = self._blocks.get(block)
            none = pl.Series([False]).new_from_index(0, count)
            parts.append(none if marked is None else marked.slice(start - block * _BLOCK, count))
        return pl.concat(parts)

    def of(self, rows: pl.Series) -> pl.Series:
        """Whether each of the rows with these numbers, which follow each other, is marked: Boolean."""
        return self.slice(int(rows[0]), len(rows)) if len(rows) else pl.Series([], dtype=pl.Boolean)
