"""Looking up more entity rows than memory holds: through files in time order, and back in their own order."""

from __future__ import annotations

import shutil
from collections.abc import Generator, Iterator
from pathlib import Path

import duckdb
import polars as pl

from engine.duck import connect, identifier, literal
from engine.errors import DataError
from engine.features.past import AT, CODE, ROW, TIME, Past, Sweep, values

_KEY_BYTES = 64  # that a key takes while rows are looked up, about
_LEAST_MB = 64  # for DuckDB
_STREAM = 100_000  # rows that are handed on at once


def looked_up_on_disk(
    rows: pl.LazyFrame, past: Past, schema: pl.Schema, *, size: int, memory: int, folder: Path
) -> Generator[pl.DataFrame]:
    """The features of the rows that `engine.features.past.narrow` gives, with their row numbers, ascending; rows for
    which nothing held are left out.

    Args:
        schema: of the entity rows that they come from.
        size: entity rows that are looked at together.
        memory: bytes to sort in; half as much for keys.
        folder: for files, which are gone in the end; new.
    """
    folder.mkdir(parents=True)
    try:
        source = folder / "rows.parquet"
        rows.with_row_index(ROW).drop_nulls().sink_parquet(source, compression="lz4")
        with connect(f"{max(memory // 10**6, _LEAST_MB)}MB", folder / "duckdb") as connection:
            _look_up(connection, source, past, schema, size, memory // 2)
            source.unlink()
            yield from _in_order(connection, folder, past)
    except duckdb.Error as error:
        raise DataError(
            f"the entity rows cannot be sorted: {str(error).splitlines()[0]}",
            code="training.unsorted",
            where=str(folder),
            fix="free disk space, or raise memory_limit",
        ) from None
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _look_up(
    connection: duckdb.DuckDBPyConnection, source: Path, past: Past, schema: pl.Schema, size: int, keys_bytes: int
) -> None:
    """Writes the features, by slices of the time; keys that are too many for memory in several passes."""
    keys = [str(i) for i in range(len(past.keys))]
    listed = ", ".join(map(identifier, keys))
    table = f"read_parquet({literal(str(source))})"
    counted = connection.execute(f"SELECT approx_count_distinct(({listed})) FROM {table}").fetchone()
    passes = 1 + (counted[0] if counted else 0) * _KEY_BYTES * len(keys) // keys_bytes
    ordered = source.with_name("ordered.parquet")
    for number in range(passes):
        mine = f"WHERE hash({listed}) % {passes} = {number}" if passes > 1 else ""
        query = f"SELECT * FROM {table} {mine} ORDER BY {TIME}"
        connection.execute(f"COPY ({query}) TO {literal(str(ordered))} (FORMAT parquet, COMPRESSION lz4)")
        frame = pl.scan_parquet(ordered, hive_partitioning=False, glob=False)
        codes = frame.select(keys).unique().collect(engine="streaming").with_row_index(CODE)
        sweep = Sweep(past, codes, schema)
        count = frame.select(pl.len()).collect().item()
        for i, start in enumerate(range(0, count, size)):
            rows = frame.slice(start, size).collect(engine="in-memory")
            coded = rows.join(codes, on=keys, maintain_order="left")
            at = sweep.places(coded[CODE], coded[TIME])
            hits = pl.DataFrame({ROW: coded[ROW], AT: at}).drop_nulls()
            found = values(past, hits[AT], pl.int_range(hits.height, dtype=pl.UInt32, eager=True), hits.height)
            path = source.with_name(f"found-{number}-{i}.parquet")
            found.insert_column(0, hits[ROW]).write_parquet(path, compression="lz4")


def _in_order(connection: duckdb.DuckDBPyConnection, folder: Path, past: Past) -> Iterator[pl.DataFrame]:
    found = literal(str(folder / "found-*.parquet"))
    if not list(folder.glob("found-*.parquet")):
        return
    reader = connection.sql(f"SELECT * FROM read_parquet({found}) ORDER BY {identifier(ROW)}").to_arrow_reader(_STREAM)
    for batch in reader:
        yield pl.DataFrame(batch, schema_overrides={ROW: pl.UInt32(), **past.features})
