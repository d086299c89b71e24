"""Entities that the newest published file no longer has, in stores that Feast cannot remove them from: nulls."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from datetime import datetime
from pathlib import Path

import polars as pl

from engine.duck import connect, identifier, literal
from engine.sinks.feast import OfflineView
from engine.sinks.online.newest import reading
from engine.sinks.online.store import Store
from engine.steps import reached

_ROWS = 100_000


def write_nulls(
    store: Store,
    view: OfflineView,
    newest: Path,
    before: Sequence[Path],
    moment: datetime,
    *,
    memory_limit: str,
    spill: Path,
) -> int:
    """Stores a row of nulls for each, batch by batch; doing it again is right. Gives how many there were.

    Args:
        before: files whose entities the store may hold.
        moment: the newest file's as-of, which the nulls have too.

    Raises:
        SinkError: a file cannot be read, or the store not written.
    """
    with reading(view):
        schema = pl.read_parquet_schema(newest)
    nulls = [pl.lit(None, dtype=schema[name]).alias(name) for name, _ in view.features]
    stamps = [pl.lit(moment).cast(schema[name]).alias(name) for name in ("event_timestamp", "created_timestamp")]
    columns = ", ".join(map(identifier, view.key_names))
    there, now = (
        f"SELECT {columns} FROM read_parquet([{', '.join(literal(str(p)) for p in paths)}], hive_partitioning = false)"
        for paths in (before, [newest])
    )
    count = 0
    with closing(connect(memory_limit, spill)) as database, reading(view):
        for batch in database.sql(f"{there} EXCEPT {now}").to_arrow_reader(_ROWS):
            keys = pl.DataFrame(pl.from_arrow(batch))
            store.write(store.prepare(view, keys.with_columns(*nulls, *stamps)))
            count += keys.height
            reached("rows.removed")
    return count
