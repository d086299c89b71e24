"""Categories too many to be held, counted by DuckDB, which spills."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa

from engine.drift import shares
from engine.drift.chance import chi_square
from engine.drift.column import ColumnDrift, beside
from engine.duck import connect
from engine.frames import batches, reading
from engine.profile import ColumnProfile

_SIDE = "SELECT value, count(*) AS n FROM given GROUP BY value"
_BOTH = "SELECT coalesce(b.n, 0) AS b, coalesce(c.n, 0) AS c FROM b FULL JOIN c ON b.value = c.value"
_ONLY = "SELECT value, n FROM {one} WHERE value NOT IN (SELECT value FROM {other}) ORDER BY n DESC, value LIMIT 20"
_FIRST = (
    "SELECT b.value, b.n, coalesce(c.n, 0) FROM b LEFT JOIN c ON b.value = c.value ORDER BY b.n DESC, b.value LIMIT 20"
)


def counted(
    baseline: ColumnProfile,
    current: ColumnProfile,
    before: pl.LazyFrame,
    now: pl.LazyFrame,
    memory_limit: str,
    spill: Path | None,
) -> ColumnDrift:
    """A column of texts beside its baseline, every value counted.

    Raises:
        DataError: the tables cannot be read.
    """
    n, m = baseline.count, current.count
    index = divergence = square = 0.0
    values = new = gone = 0
    with reading(), closing(connect(memory_limit, spill)) as connection:
        for name, frame in (("b", before), ("c", now)):
            connection.register("given", _texts(frame, current.name))
            connection.execute(f"CREATE TEMP TABLE {name} AS {_SIDE}")
            connection.unregister("given")
        for batch in connection.sql(_BOTH).to_arrow_reader(500_000):
            old, young = (pl.Series(batch.column(i)).to_numpy() for i in range(2))
            index += shares.psi(old, young, n, m)
            divergence += shares.divergence(old, young, n, m)
            square += shares.square(old, young, n, m)
            values += len(old)
            new += int((old == 0).sum())
            gone += int((young == 0).sum())
        added = connection.execute(_ONLY.format(one="c", other="b")).fetchall()
        lost = connection.execute(_ONLY.format(one="b", other="c")).fetchall()
        first = connection.execute(_FIRST).fetchall()
    bins = [(str(value)[:80], old / n, young / m) for value, old, young in first]
    if values > len(first):
        rest = (1 - sum(b for _, b, _ in bins), 1 - sum(c for _, _, c in bins))
        bins.append((f"{values - len(first):,} others", *rest))
    statistics: dict[str, float | None] = {
        "psi": index,
        "js": math.sqrt(max(0.0, divergence)),
        "chi_square": square,
        "chi_square_p_value": chi_square(square, values - 1),
        "new_categories": float(new),
        "vanished_categories": float(gone),
    }
    psi, js = shares.chance(values, n, m)
    return beside(
        baseline, current, statistics, by="rows", chance={"psi": psi, "js": js}, bins=bins, new=added, vanished=lost
    )


def _texts(frame: pl.LazyFrame, name: str) -> Any:
    schema = pa.schema([("value", pa.large_string())])

    def values() -> Iterator[pa.RecordBatch]:
        with closing(batches(frame, [name])) as found:
            for _, batch in found:
                batch.columns = ["value"]
                texts = batch.select(pl.col("value").cast(pl.String)).drop_nulls()
                yield from texts.to_arrow(compat_level=pl.CompatLevel.oldest()).to_batches()

    return pa.RecordBatchReader.from_batches(schema, values())
