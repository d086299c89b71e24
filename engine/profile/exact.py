"""Distinct values counted one by one, in bounded memory: more than fit into it are spilled to disk."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import polars as pl
import pyarrow as pa

from engine.duck import connect
from engine.frames import batches, reading
from engine.profile.profile import Profile, kind_of
from engine.types import DEFAULT_MEMORY_LIMIT


def counted(
    frame: pl.LazyFrame,
    profile: Profile,
    names: Sequence[str] | None = None,
    *,
    memory_limit: str = DEFAULT_MEMORY_LIMIT,
    spill: Path | None = None,
) -> Profile:
    """The profile of a table with the exact number of distinct values of columns; ``names`` None: of all.

    Each column for which only an estimate is known is read once more.

    Raises:
        DataError: they cannot be read.
    """
    columns = dict(profile.columns)
    schema = frame.collect_schema()
    for name in columns if names is None else names:
        found = columns[name]
        if found.distinct_error == 0.0 or kind_of(schema[name]) == "other":
            continue
        columns[name] = replace(found, counted=_distinct(frame, name, schema[name], memory_limit, spill))
    return Profile(profile.rows, columns)


def _distinct(frame: pl.LazyFrame, name: str, dtype: pl.DataType, memory_limit: str, spill: Path | None) -> int:
    value = pl.col("value")
    if dtype.is_float():
        value = value.cast(pl.Float64).fill_nan(None) + 0.0  # -0.0 is 0.0
    elif dtype.is_decimal() or dtype in (pl.Int128, pl.UInt128, pl.Categorical, pl.Enum):
        value = value.cast(pl.String)
    elif dtype.is_temporal():
        value = value.to_physical().cast(pl.Int64)

    def values() -> Iterator[pa.RecordBatch]:
        with closing(batches(frame, [name])) as found:
            for _, batch in found:
                batch.columns = ["value"]
                yield from batch.select(value).drop_nulls().to_arrow(compat_level=pl.CompatLevel.oldest()).to_batches()

    empty = pl.DataFrame(schema={"value": dtype}).select(value).to_arrow(compat_level=pl.CompatLevel.oldest())
    with reading(), closing(connect(memory_limit, spill)) as connection:
        connection.register("given", pa.RecordBatchReader.from_batches(empty.schema, values()))
        row = connection.execute("SELECT count(*) FROM (SELECT DISTINCT value FROM given)").fetchone()
    return int(row[0]) if row else 0
