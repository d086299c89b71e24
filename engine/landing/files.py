"""Landed files: written once under a name of their own, durable, with a checksum."""

from __future__ import annotations

import hashlib
import os
import uuid
from collections.abc import Container, Iterable, Mapping, Sequence
from itertools import chain
from pathlib import Path

import polars as pl
import pyarrow.parquet as pq

from engine.frames import column as exactly
from engine.landing import origin
from engine.landing.origin import Segment
from engine.ledger import File
from engine.widening import widened

# Of a table that grows run by run: smaller files are put together, up to so many rows, once there are so many of them.
SMALL_ROWS = 25_000
LARGE_ROWS = 200_000
MANY = 32
# What a piece counts beside nulls per critical column: rows that broke the contract in a column, values left out.
CONTRACT, CONTRACT_VALUES = "contract.", "contract.values."


def new_path(folder: Path, stem: str) -> Path:
    """A path that no other attempt, run or machine uses."""
    return folder / f"{stem}-{uuid.uuid4().hex[:12]}.parquet"


def write(frame: pl.LazyFrame, path: Path, segments: Sequence[Segment] = ()) -> None:
    """Writes a landed file, with where its rows came from; make it durable with `seal`."""
    known = origin.metadata(segments) if segments else None
    frame.sink_parquet(path, compression="zstd", compression_level=1, maintain_order=True, metadata=known)


def seal(path: Path, root: Path) -> File:
    """Makes a written file durable, and gives what the ledger records of it."""
    with path.open("rb") as handle:
        os.fsync(handle.fileno())
        digest = hashlib.file_digest(handle, "sha256").hexdigest()
    rows = pq.read_metadata(path).num_rows
    return File(path.relative_to(root).as_posix(), rows, path.stat().st_size, digest)


def schema(path: Path) -> dict[str, pl.DataType]:
    """Column: dtype of a landed file."""
    with path.open("rb") as file:  # a path would be read as a glob
        return dict(pl.read_parquet_schema(file))


def scan(path: Path, *, row_index: str | None = None) -> pl.LazyFrame:
    """One landed file, lazily."""
    return pl.scan_parquet(path, row_index_name=row_index, hive_partitioning=False, glob=False)


def index_name(columns: Iterable[str]) -> str:
    """A name for the row number that no column has."""
    return max(columns, key=len, default="") + "#"


def empty(schema: Mapping[str, pl.DataType], folder: Path) -> Path:
    """A file without rows."""
    path = new_path(folder, "empty")
    write(pl.LazyFrame(schema=schema), path)
    return path


def without(path: Path, rows: pl.Series, folder: Path) -> Path:
    """A copy of a landed file that lacks some of its rows, given by their numbers."""
    index = index_name(schema(path))
    gone = pl.LazyFrame({index: rows.cast(pl.get_index_type())})
    left = scan(path, row_index=index).join(gone, on=index, how="anti", maintain_order="left").drop(index)
    copy = new_path(folder, path.stem.rpartition("-")[0] or "chunk")
    write(left, copy, origin.without(origin.of(path), rows))
    return copy


def compact(paths: Sequence[Path], folder: Path) -> list[Path]:
    """The same rows in the same order; neighbours that are small become one file, once there are many such.

    A table that grows by a few rows a run would otherwise end as thousands of files.
    """
    rows = {path: pq.read_metadata(path).num_rows for path in paths}
    if sum(count < SMALL_ROWS for count in rows.values()) < MANY:
        return list(paths)
    kept: list[Path] = []
    group: list[Path] = []
    for path in [*paths, None]:
        if path is not None and rows[path] < SMALL_ROWS and sum(map(rows.__getitem__, group)) < LARGE_ROWS:
            group.append(path)
            continue
        if len(group) > 1:
            whole = new_path(folder, "compacted")
            segments = chain.from_iterable(map(origin.of, group))
            write(pl.concat(map(scan, group)), whole, origin.joined(segments))
            group = [whole]
        kept += group
        group = []
        if path is not None and rows[path] < SMALL_ROWS:
            group = [path]
        elif path is not None:
            kept.append(path)
    return kept


def cast(path: Path, target: dict[str, pl.DataType], folder: Path, blank: Container[str] = ()) -> Path:
    """A copy of a landed file with the columns and types of ``target``; those it lacks or are ``blank`` are null."""
    have = {column: dtype for column, dtype in schema(path).items() if column not in blank}
    columns = {
        c: (widened(exactly(c), have[c], t) if t.is_nested() else exactly(c).cast(t)) if c in have else pl.lit(None, t)
        for c, t in target.items()
    }
    copy = new_path(folder, "cast")
    # with_columns keeps the rows of a file that has none of these columns; select alone would make them one
    write(scan(path).with_columns(**columns).select(map(exactly, target)), copy, origin.of(path))
    before, after = (pq.read_metadata(p).num_rows for p in (path, copy))
    if before != after:
        raise AssertionError(f"{path.name}: {before} rows became {after}")
    return copy
