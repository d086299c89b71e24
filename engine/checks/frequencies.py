"""How often values occur, counted batch by batch in bounded memory."""

from __future__ import annotations

from typing import Any

import polars as pl

from engine.checks.groups import Groups, comparable, counting
from engine.frames import compacted, to_rows

_HELD = 200_000  # distinct values in memory; more go to DuckDB, which spills


class Frequencies:
    """Exact counts of the values of one column.

    Args:
        groups: whose DuckDB connection takes what does not fit.
        number: tells this from the others on that connection.
    """

    def __init__(self, groups: Groups, number: int, dtype: pl.DataType) -> None:
        self._groups = groups
        self._table = f"frequencies_{number}"
        self._dtype = dtype
        self._counts: pl.DataFrame | None = None
        self._spilled = False

    def add(self, values: pl.Series) -> None:
        """Counts values, none of them null."""
        counts = values.to_frame("value").select(value=comparable(pl.col("value"), self._dtype))
        counts = counts.group_by("value").agg(n=pl.len().cast(pl.Int64))
        if self._counts is not None:
            counts = pl.concat([self._counts, counts]).group_by("value").agg(pl.col("n").sum())
        self._counts = compacted(counts)
        if counts.height > _HELD:
            self._spill(counts)

    def top(self, few: int) -> tuple[tuple[Any, int], ...]:
        """The most frequent values with their counts, ties by value."""
        counts = self._counts
        if counts is not None and (self._spilled or self._dtype.is_nested()):  # DuckDB has an order of nested values
            self._spill(counts)
        if self._spilled:
            with counting():
                found = self._groups.connection.sql(
                    f"SELECT value, sum(n)::BIGINT AS n FROM {self._table} GROUP BY value "
                    f"ORDER BY n DESC, value LIMIT {few}"
                ).to_arrow_table()
            counts = pl.DataFrame(found)
        elif counts is None:
            return ()
        else:
            counts = counts.sort("n", "value", descending=[True, False]).head(few)
        rows = to_rows(counts.with_columns(pl.col("value").cast(self._dtype)))
        return tuple((row["value"], row["n"]) for row in rows)

    def _spill(self, counts: pl.DataFrame) -> None:
        with counting():
            connection = self._groups.connection
            connection.register("counts", counts.to_arrow())
            into = f"INSERT INTO {self._table}" if self._spilled else f"CREATE OR REPLACE TEMP TABLE {self._table} AS"
            connection.execute(f"{into} SELECT * FROM counts")
            connection.unregister("counts")
        self._spilled, self._counts = True, None
