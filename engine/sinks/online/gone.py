"""Entities that an online store holds and the newest published file no longer does."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from engine.duck import connect, identifier, literal
from engine.frames import batches
from engine.sinks.feast import OfflineView
from engine.sinks.online import keys
from engine.sinks.online.arrays import to_binary
from engine.sinks.online.newest import reading
from engine.sinks.online.store import Removing
from engine.steps import reached

_ROWS = 100_000
_SCHEMA = pa.schema([("key", pa.large_binary())])


def remove_gone(
    store: Removing, view: OfflineView, newest: Path, before: Path | None, *, memory_limit: str, spill: Path
) -> int:
    """Removes them, batch by batch, each durable; doing it again is right. Gives how many there were.

    Args:
        before: the file whose entities the store holds; None: whatever the store itself says, which takes longer.

    Raises:
        SinkError: a file cannot be read, or the store not written.
    """
    count = 0
    with _folder(spill) as folder:
        if before is None:
            _write(store.stored(view), folder / "stored.parquet")
            _write(_encoded(store, view, newest), folder / "newest.parquet")
            there, now, names = folder / "stored.parquet", folder / "newest.parquet", ["key"]
        else:
            there, now, names = before, newest, list(view.key_names)
        for frame in missing(view, [there], now, names, memory_limit=memory_limit, spill=folder / "spill"):
            encoded = to_binary(frame["key"]) if before is None else keys.encode(frame, store.config.key_version)
            count += store.remove(view, encoded)
            reached("rows.removed")
    return count


def missing(
    view: OfflineView, there: Sequence[Path], now: Path, names: Sequence[str], *, memory_limit: str, spill: Path
) -> Iterator[pl.DataFrame]:
    """The keys of some files that another has not, each once, in batches.

    Args:
        names: the columns of the keys.

    Raises:
        SinkError: a file cannot be read.
    """
    columns = ", ".join(map(identifier, names))
    first, second = (
        f"SELECT {columns} FROM read_parquet([{', '.join(literal(str(p)) for p in paths)}], hive_partitioning = false)"
        for paths in (there, [now])
    )
    with closing(connect(memory_limit, spill)) as database, reading(view):
        for batch in database.sql(f"{first} EXCEPT {second}").to_arrow_reader(_ROWS):
            yield pl.DataFrame(pl.from_arrow(batch))


def _encoded(store: Removing, view: OfflineView, path: Path) -> Iterator[Any]:
    """The keys of a file as they are stored."""
    frame = pl.scan_parquet(path, hive_partitioning=False, glob=False)
    with closing(batches(frame, view.key_names, f"the published file {path}")) as read:
        for _, rows in read:
            yield keys.encode(rows, store.config.key_version)


def _write(arrays: Iterable[Any], target: Path) -> None:
    with pq.ParquetWriter(target, _SCHEMA) as writer:
        for array in arrays:
            writer.write_batch(pa.RecordBatch.from_arrays([array], schema=_SCHEMA))


@contextmanager
def _folder(spill: Path) -> Iterator[Path]:
    import shutil

    folder = spill / f"gone-{uuid.uuid4().hex[:8]}"
    folder.mkdir(parents=True)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
