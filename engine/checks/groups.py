"""Exact counts of equal values in bounded memory.

Polars streams the columns, DuckDB groups them and spills. Most keys are unique, though, and 64-bit hashes prove it
several times faster: equal values have equal hashes, so only rows whose hash occurs twice need grouping. Where
the hashes do not fit into the memory limit, or do not narrow the rows down, all rows are grouped.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple, cast

import duckdb
import polars as pl
import pyarrow as pa

from engine import duck
from engine.errors import DataError, UsageError, is_interrupt

_BATCH_ROWS = 100_000
_HASHED_ROW_BYTES = 24  # a hash, its sorted copy, and what comparing neighbours takes
_WORTH_FILTERING = 0.1  # suspect hashes per row
_UNITS = {"KB": 10**3, "MB": 10**6, "GB": 10**9, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30}


class Group(NamedTuple):
    """Rows with an equal value: the positions of the first and the last, and how many there are."""

    first: int
    last: int
    rows: int


@dataclass(frozen=True)
class Repeated:
    """Values that occur twice or more: how many distinct ones, in how many rows, and those that begin first."""

    values: int
    rows: int
    earliest: tuple[Group, ...]


class Groups:
    """Counts groups of equal values through one DuckDB connection, opened when it is first needed.

    The frames it takes have a column ``position`` that numbers the rows; their other columns together are the
    value, made comparable by `comparable`. Rows with a null in the value are left out.
    """

    def __init__(self, position: str, memory_limit: str, spill: Path | None = None) -> None:
        self._position = position
        self._memory_limit = memory_limit
        self._spill = spill
        self._budget = _bytes(memory_limit)

    @cached_property
    def _connection(self) -> duckdb.DuckDBPyConnection:
        return duck.connect(self._memory_limit, self._spill)

    def close(self) -> None:
        """Give back the memory, and what was spilled."""
        if "_connection" in self.__dict__:
            self._connection.close()

    def repeated(self, rows: pl.LazyFrame, count: int, few: int) -> Repeated:
        """The values that stand in more than one row; of these, the ``few`` that begin first.

        Args:
            rows: the values.
            count: how many rows there are.
            few: how many groups to give back.
        """
        if count * _HASHED_ROW_BYTES <= self._budget:
            value = pl.struct(pl.exclude(self._position))
            rows = rows.filter(pl.all_horizontal(pl.exclude(self._position).is_not_null()))
            suspects = _repeated_hashes(rows.select(value.hash().alias("hash")))
            if not len(suspects):
                return Repeated(0, 0, ())
            if len(suspects) <= count * _WORTH_FILTERING:
                rows = rows.filter(value.hash().is_in(suspects.implode()))
        self._execute(f"CREATE OR REPLACE TEMP TABLE repeated AS {self._grouped(rows)} HAVING n > 1", rows)
        [(values, involved)] = self._execute("SELECT count(*), coalesce(sum(n), 0)::BIGINT FROM repeated")
        earliest = self._execute(f"SELECT first, last, n FROM repeated ORDER BY first LIMIT {few}")
        return Repeated(values, involved, tuple(Group(*group) for group in earliest))

    def most_frequent(self, rows: pl.LazyFrame, few: int) -> list[Group]:
        """The ``few`` values that stand in the most rows, most frequent first, ties by value."""
        values = ", ".join(self._values(rows))
        found = self._execute(f"{self._grouped(rows)} ORDER BY n DESC, {values} LIMIT {few}", rows)
        return [Group(*group) for group in found]

    def _values(self, rows: pl.LazyFrame) -> list[str]:
        return [duck.identifier(name) for name in rows.collect_schema().names() if name != self._position]

    def _grouped(self, rows: pl.LazyFrame) -> str:
        position, values = duck.identifier(self._position), self._values(rows)
        return (
            f"SELECT min({position}) AS first, max({position}) AS last, count(*) AS n FROM rows "
            f"WHERE {' AND '.join(f'{value} IS NOT NULL' for value in values)} GROUP BY {', '.join(values)}"
        )

    def _execute(self, sql: str, rows: pl.LazyFrame | None = None) -> list[tuple[Any, ...]]:
        """The answer to ``sql``, in which ``rows`` names the frame."""
        try:
            if rows is not None:
                self._connection.register("rows", _reader(rows))
            return self._connection.execute(sql).fetchall()
        except duckdb.Error as error:
            if is_interrupt(error):
                raise KeyboardInterrupt from None
            raise DataError(
                f"equal values could not be counted: {str(error).splitlines()[0]}",
                code="data.uncountable",
                fix="raise the memory limit, or make room where temporary files go",
            ) from error


def comparable(expr: pl.Expr, dtype: pl.DataType) -> pl.Expr:
    """``expr`` in a form in which equal values are equal everywhere, and whose type Arrow and DuckDB keep exactly.

    NaN becomes null and -0.0 becomes 0.0, also inside lists and structs; points in time become whole numbers,
    categories and very wide integers text.
    """
    if dtype.is_float():
        return expr.cast(pl.Float64).fill_nan(None) + 0.0
    if dtype.is_temporal():
        return expr.to_physical()
    if dtype in (pl.Categorical, pl.Enum, pl.Int128, pl.UInt128):
        return expr.cast(pl.String)
    if isinstance(dtype, pl.Array):
        return comparable(expr.arr.to_list(), pl.List(dtype.inner))
    if isinstance(dtype, pl.List):
        return expr.list.eval(comparable(pl.element(), _instance(dtype.inner)))
    if isinstance(dtype, pl.Struct):
        fields = [comparable(expr.struct.field(f.name), _instance(f.dtype)).alias(f.name) for f in dtype.fields]
        return pl.when(expr.is_not_null()).then(pl.struct(fields))
    return expr


def _repeated_hashes(hashes: pl.LazyFrame) -> pl.Series:
    """The hashes that occur more than once, each once."""
    ordered = hashes.collect(engine="streaming").to_series().sort()
    return ordered.filter(ordered == ordered.shift(1)).unique()


def _bytes(memory_limit: str) -> int:
    """``512MiB`` as a number of bytes."""
    match = re.fullmatch(rf"([1-9][0-9]*)({'|'.join(_UNITS)})", memory_limit)
    if match is None:
        raise UsageError(
            f"{memory_limit!r} is not an amount of memory",
            code="checks.memory_limit",
            allowed=f"a whole number and one of {', '.join(_UNITS)}",
            fix="write for example 512MiB",
        )
    return int(match[1]) * _UNITS[match[2]]


def _instance(dtype: Any) -> pl.DataType:
    return cast(pl.DataType, dtype() if isinstance(dtype, type) else dtype)


def _reader(rows: pl.LazyFrame) -> pa.RecordBatchReader:
    """The rows as Arrow batches, computed while they are read."""
    schema = pl.DataFrame(schema=rows.collect_schema()).to_arrow().schema

    def batches() -> Iterator[pa.RecordBatch]:
        for frame in rows.collect_batches(chunk_size=_BATCH_ROWS, maintain_order=False, engine="streaming"):
            yield from frame.to_arrow().to_batches()

    return pa.RecordBatchReader.from_batches(schema, batches())
