"""Entities that the newest published file no longer has, in stores that Feast cannot remove them from: nulls."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

import polars as pl

from engine.sinks.feast import OfflineView
from engine.sinks.online.gone import missing
from engine.sinks.online.newest import reading
from engine.sinks.online.store import Store
from engine.steps import reached


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
    count = 0
    for keys in missing(view, before, newest, view.key_names, memory_limit=memory_limit, spill=spill):
        store.write(store.prepare(view, keys.with_columns(*nulls, *stamps)))
        count += keys.height
        reached("rows.removed")
    return count
