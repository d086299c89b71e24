"""Exact counts of equal values in bounded memory: DuckDB groups them and spills."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import polars as pl

from engine.errors import DataError, is_interrupt
from engine.frames import compacted

if TYPE_CHECKING:
    import duckdb
    import pyarrow as pa

POSITION = "position"
_AT_ONCE = 500_000  # rows that are grouped in memory


class Group(NamedTuple):
    """Rows with an equal value: the positions of the first and the last, and how many there are."""

    first: int
    last: int
    rows: int


@dataclass(frozen=True)
class Repeated:
    """Values that occur twice or more: how many distinct ones, in how many rows, and those that begin first, each with
    the last of its rows."""

    values: int
    rows: int
    earliest: tuple[tuple[Group, Mapping[str, Any]], ...]


class Groups:
    """Counts groups of equal values; one DuckDB connection, opened when it is first needed.

    The frames it takes have a column `POSITION` that numbers the rows; the columns of the value have been made
    comparable by `comparable`, and are never null.
    """

    def __init__(self, memory_limit: str, spill: Path | None = None) -> None:
        self._memory_limit = memory_limit
        self._spill = spill

    @cached_property
    def connection(self) -> duckdb.DuckDBPyConnection:
        from engine.duck import connect  # most keys are unique, and no table is grouped

        return connect(self._memory_limit, self._spill)

    def close(self) -> None:
        """Give back the memory, and what was spilled."""
        if "connection" in self.__dict__:
            self.connection.close()

    def repeated(
        self, batches: Iterator[pl.DataFrame], parts: Sequence[str], few: int
    ) -> tuple[int, int, list[Group], pl.DataFrame | None]:
        """The values that stand in more than one row: how many, in how many rows, and the ``few`` that begin first.

        Args:
            batches: rows with their `POSITION`, the ``parts`` of the value, and maybe other columns.

        Returns:
            Last, all rows, if they were few enough to be held.
        """
        held: list[pl.DataFrame] = []
        count = 0
        for batch in batches:
            held.append(compacted(batch))
            count += batch.height
            if count > _AT_ONCE:
                return *self._repeated_spilling(_chained(held, batches), parts, few), None
        if not held:
            return 0, 0, [], None
        rows = pl.concat(held)
        groups = (
            rows.lazy()
            .group_by(parts)
            .agg(first=pl.col(POSITION).min(), last=pl.col(POSITION).max(), n=pl.len())
            .filter(pl.col("n") > 1)
            .select("first", "last", "n")
            .collect(engine="in-memory")
        )
        earliest = groups.sort("first").head(few)
        return groups.height, int(groups["n"].sum()), [Group(*row) for row in earliest.rows()], rows

    def _repeated_spilling(
        self, batches: Iterator[pl.DataFrame], parts: Sequence[str], few: int
    ) -> tuple[int, int, list[Group]]:
        wanted = (batch.select(POSITION, *parts) for batch in batches)
        first = next(wanted)
        values = ", ".join(f'"{name}"' for name in parts)
        self._execute(
            f"CREATE OR REPLACE TEMP TABLE repeated AS SELECT min({POSITION}) AS first, max({POSITION}) AS last, "
            f"count(*) AS n FROM rows GROUP BY {values} HAVING n > 1",
            Stream(first, wanted),
        )
        [(count, involved)] = self._execute("SELECT count(*), coalesce(sum(n), 0)::BIGINT FROM repeated")
        earliest = self._execute(f"SELECT first, last, n FROM repeated ORDER BY first LIMIT {few}")
        return count, involved, [Group(*group) for group in earliest]

    def _execute(self, sql: str, rows: Stream | None = None) -> list[tuple[Any, ...]]:
        """The answer to ``sql``, in which ``rows`` names the frames."""
        with counting(*([rows] if rows else [])):
            if rows is not None:
                self.connection.register("rows", rows.batches)
            return self.connection.execute(sql).fetchall()


@contextmanager
def counting(*streams: Stream) -> Iterator[None]:
    """Turns DuckDB's errors into the engine's, or into what ended one of the streams that it reads."""
    import duckdb
    import pyarrow as pa

    try:
        yield
    except (duckdb.Error, pa.ArrowException, OSError) as error:
        for stream in streams:
            if stream.failure is not None:
                raise stream.failure from None
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
        return pl.when(expr.is_not_null()).then(pl.struct(fields) if fields else pl.lit(True))
    return expr


def _instance(dtype: Any) -> pl.DataType:
    return cast(pl.DataType, dtype() if isinstance(dtype, type) else dtype)


class Stream:
    """Frames of one schema as Arrow batches, computed while they are read.

    Attributes:
        batches: for DuckDB to read.
        failure: what ended it before its end; DuckDB makes an error of its own of that.
    """

    def __init__(self, first: pl.DataFrame, others: Iterable[pl.DataFrame]) -> None:
        import pyarrow as pa

        self.failure: BaseException | None = None
        schema = first.head(0).to_arrow().schema
        self.batches = pa.RecordBatchReader.from_batches(schema, self._made(first, others))

    def _made(self, first: pl.DataFrame, others: Iterable[pl.DataFrame]) -> Iterator[pa.RecordBatch]:
        try:
            yield from first.to_arrow().to_batches()
            for frame in others:
                yield from frame.to_arrow().to_batches()
        except GeneratorExit:
            raise
        except BaseException as error:
            self.failure = error
            raise


def _chained(held: list[pl.DataFrame], others: Iterator[pl.DataFrame]) -> Iterator[pl.DataFrame]:
    """Frames held so far, each given up as it is handed on, then the others."""
    while held:
        yield held.pop(0)
    yield from others
