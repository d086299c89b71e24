"""Landing: a source's rows as Parquet chunks with one schema, mapped, complete in their keys, deduplicated.

Order per source: extract → mapping → required and critical columns → deduplication. Chunks are written under a
folder of their own per attempt; nothing refers to them until the ledger does. Memory is bounded by the engine's
streaming and by ``memory_limit`` for deduplication.
"""

from __future__ import annotations

import logging
import random
import shutil
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow.parquet as pq

from engine.duck import connect, identifier, literal
from engine.errors import SourceError, TransientSourceError, nearest
from engine.sources import Chunk, Source, reading
from engine.spec import Deduplicate, SourceSpec, secrets_of

log = logging.getLogger(__name__)

Wait = Callable[[float], object]
_EXACT_IN_FLOAT64 = 2**53


@dataclass
class Metrics:
    """What was read of one source, and what became of it.

    ``records_read = records_written + records_failed + duplicates_removed``, always.

    Attributes:
        records_failed: rows with a null in a critical column.
        failed_by_column: of those, per critical column (a row may count in several).
        bytes_processed: size of the landed columns, uncompressed, in bytes.
        duration_seconds: wall time of reading and landing.
        retries: attempts that failed and were begun anew.
    """

    records_read: int = 0
    records_written: int = 0
    records_failed: int = 0
    duplicates_removed: int = 0
    bytes_processed: int = 0
    duration_seconds: float = 0.0
    chunks: int = 0
    retries: int = 0
    failed_by_column: dict[str, int] = field(default_factory=dict)

    @property
    def error_rate(self) -> float:
        """records_failed / records_read; 0.0 when nothing was read."""
        return self.records_failed / self.records_read if self.records_read else 0.0

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready, in a stable order."""
        return {
            "records_read": self.records_read,
            "records_written": self.records_written,
            "records_failed": self.records_failed,
            "duplicates_removed": self.duplicates_removed,
            "bytes_processed": self.bytes_processed,
            "duration_seconds": round(self.duration_seconds, 6),
            "error_rate": self.error_rate,
            "chunks": self.chunks,
            "retries": self.retries,
            "failed_by_column": dict(self.failed_by_column),
        }


@dataclass(frozen=True)
class Landed:
    """A landed table: its chunk files in reading order (at least one, maybe without rows), and its metrics."""

    folder: Path
    files: tuple[Path, ...]
    metrics: Metrics

    def scan(self) -> pl.LazyFrame:
        """The whole table, lazily."""
        return pl.scan_parquet(list(self.files), hive_partitioning=False)


def land(
    source: Source,
    spec: SourceSpec,
    folder: Path,
    *,
    name: str,
    memory_limit: str,
    progress: Callable[[int], None] | None = None,
    wait: Wait | None = None,
) -> Landed:
    """Reads ``source`` into ``folder``; a transient failure begins it anew, up to ``spec.max_retries`` times.

    Args:
        progress: called with the number of rows landed so far.
        wait: sleeps between attempts; default: really.

    Raises:
        SourceError: the source cannot be read, or lacks a required column.
    """
    wait = wait or threading.Event().wait
    started = time.monotonic()
    for attempt in range(spec.max_retries + 1):
        target = folder / f"attempt-{attempt}"
        target.mkdir(parents=True)
        try:
            landed = _Attempt(source, spec, target, name, memory_limit, progress).run()
        except TransientSourceError as error:
            shutil.rmtree(target)
            if attempt == spec.max_retries:
                raise
            delay = random.uniform(0.5, 1.0) * min(30.0, 2.0**attempt)  # noqa: S311 - jitter, not a secret
            log.warning("%s: %s; trying again in %.1f s", error.where, error.message, delay)
            wait(delay)
            continue
        landed.metrics.retries = attempt
        landed.metrics.duration_seconds = time.monotonic() - started
        return landed
    raise AssertionError("unreachable")  # pragma: no cover


class _Attempt:
    """One reading of a source from beginning to end."""

    def __init__(
        self,
        source: Source,
        spec: SourceSpec,
        folder: Path,
        name: str,
        memory_limit: str,
        progress: Callable[[int], None] | None,
    ) -> None:
        self.source, self.spec, self.folder, self.name = source, spec, folder, name
        self.memory_limit, self.progress = memory_limit, progress
        self.secrets = secrets_of(spec)
        self.metrics = Metrics()

    def run(self) -> Landed:
        files: list[Path] = []
        for chunk in self.source.chunks():
            path = self.folder / f"chunk-{chunk.number:06d}.parquet"
            self._write(chunk, path)
            files.append(path)
            if self.progress:
                self.progress(self.metrics.records_written)
        if not files:
            raise SourceError(
                f"{self.source.location} gave no table at all",
                code="source.empty",
                where=f"sources.{self.name}",
                fix="check that the source is the right one",
            )
        self._unify(files)
        if self.spec.deduplicate:
            with reading("the landed chunks", self.name, self.secrets):
                self._deduplicate(files, self.spec.deduplicate)
        footers = [pq.read_metadata(path) for path in files]
        written = sum(footer.num_rows for footer in footers)
        metrics = self.metrics
        metrics.chunks = len(files)
        metrics.bytes_processed = sum(
            footer.row_group(i).total_byte_size for footer in footers for i in range(footer.num_row_groups)
        )
        metrics.duplicates_removed = metrics.records_written - written
        metrics.records_written = written
        return Landed(self.folder, tuple(files), metrics)

    def _write(self, chunk: Chunk, path: Path) -> None:
        """One pass over a chunk: renamed, rows with a null in a critical column left out, everything counted."""
        with reading(chunk.origin, self.name, self.secrets):
            frame = self._mapped(chunk)
            schema = frame.collect_schema()
            critical = list(self.spec.critical_columns)
            null = [_is_null(c, schema[c]) for c in critical]
            good = frame.filter(~pl.any_horizontal(null)) if critical else frame
            counts = frame.select(
                pl.len().alias("rows"),
                (pl.any_horizontal(null).sum() if critical else pl.lit(0)).alias("failed"),
                *(n.sum().alias(f"null {c}") for c, n in zip(critical, null, strict=True)),
            )
            sink = good.sink_parquet(path, compression="lz4", lazy=True)
            row = pl.collect_all([sink, counts], engine="streaming")[1].row(0, named=True)
        written = pq.read_metadata(path).num_rows
        expected = row["rows"] if chunk.rows is None else chunk.rows
        if row["rows"] != expected or written != expected - row["failed"]:
            raise SourceError(
                f"{chunk.origin}: {expected} rows are there, {row['rows']} were read, {row['failed']} of them "
                f"left out, and {written} written",
                code="source.count_mismatch",
                where=f"sources.{self.name}",
                fix="the source changed while it was read, or is damaged; run again",
            )
        self.metrics.records_read += row["rows"]
        self.metrics.records_failed += row["failed"]
        self.metrics.records_written += written
        for column in critical:
            count = self.metrics.failed_by_column.get(column, 0)
            self.metrics.failed_by_column[column] = count + row[f"null {column}"]

    def _mapped(self, chunk: Chunk) -> pl.LazyFrame:
        mapping = dict(self.spec.column_mapping)
        have = chunk.frame.collect_schema().names()
        for old in mapping:
            if old not in have:
                raise self._missing(old, have, chunk, "column_mapping")
        names = [mapping.get(c, c) for c in have]
        if clash := sorted({n for n in names if names.count(n) > 1}):
            raise SourceError(
                f"{chunk.origin}: column_mapping gives two columns the name {clash[0]!r}",
                code="source.mapping_collision",
                where=f"sources.{self.name}",
                fix=f"map the other {clash[0]!r} to a name of its own",
            )
        needed = [("required_columns", c) for c in self.spec.required_columns]
        needed += [("critical_columns", c) for c in self.spec.critical_columns]
        if self.spec.deduplicate:
            needed += [("deduplicate", c) for c in self.spec.deduplicate.keys]
            needed += [("deduplicate", c) for c in [self.spec.deduplicate.order_by] if c]
        for key, column in needed:
            if column not in names:
                raise self._missing(column, names, chunk, key)
        return chunk.frame.rename(mapping)

    def _missing(self, column: str, have: Sequence[str], chunk: Chunk, key: str) -> SourceError:
        near = nearest(column, have)
        return SourceError(
            f"{chunk.origin} has no column {column!r}, which {key} names",
            code="source.missing_column",
            where=f"sources.{self.name}",
            allowed=f"columns there are: {', '.join(have)}",
            fix=f"did you mean {near!r}?" if near else f"correct {key}, or the source",
        )

    def _unify(self, files: Sequence[Path]) -> None:
        """Gives every chunk the one schema that holds all of them; most often nothing is to do."""
        schemas = [pl.read_parquet_schema(path) for path in files]
        if all(list(s.items()) == list(schemas[0].items()) for s in schemas):
            return
        with reading("the landed chunks", self.name, self.secrets):
            empty = [pl.DataFrame(schema=s) for s in schemas]
            target = pl.concat(empty, how="diagonal_relaxed").schema
        for path, schema in zip(files, schemas, strict=True):
            if list(schema.items()) != list(target.items()):
                self._cast(path, schema, target)

    def _cast(self, path: Path, schema: dict[str, pl.DataType], target: pl.Schema) -> None:
        frame = pl.scan_parquet(path, hive_partitioning=False)
        widened = [c for c, t in target.items() if c in schema and schema[c].is_integer() and t.is_float()]
        for column in widened:
            largest = frame.select(pl.col(column).cast(pl.Int128).abs().max()).collect().item()
            if largest is not None and largest > _EXACT_IN_FLOAT64:
                raise SourceError(
                    f"column {column!r} holds whole numbers beyond 2^53 in one part and fractions in another; "
                    "no number type holds both exactly",
                    code="source.inexact",
                    where=f"sources.{self.name}",
                    fix=f"give {column!r} one type in the source, for example text",
                )
        columns = [pl.col(c).cast(t) if c in schema else pl.lit(None, t).alias(c) for c, t in target.items()]
        unified = path.with_suffix(".unified")
        with reading("the landed chunks", self.name, self.secrets):
            frame.select(columns).sink_parquet(unified, compression="lz4")
        unified.replace(path)

    def _deduplicate(self, files: Sequence[Path], rule: Deduplicate) -> None:
        """Keeps the last row per key: largest ``order_by`` (null is smallest), then the later chunk, the later row."""
        schema = pl.read_parquet_schema(files[0])
        losers = self.folder / "duplicates.parquet"
        keys = [_key(c, schema[c]) for c in rule.keys]
        paths = ", ".join(literal(str(path)) for path in files)
        position = "filename DESC, file_row_number DESC"
        with connect(self.memory_limit, self.folder / "spill") as connection:
            table = f"read_parquet([{paths}], filename = true, file_row_number = true)"
            order = ""
            if rule.order_by:
                order = f"{self._order(connection, table, rule.order_by, schema)} DESC NULLS LAST, "
            filled = " AND ".join(f"{k} IS NOT NULL" for k in keys)
            connection.execute(
                f"COPY (SELECT filename, file_row_number FROM {table} WHERE {filled} "
                f"QUALIFY row_number() OVER (PARTITION BY {', '.join(keys)} ORDER BY {order}{position}) > 1) "
                f"TO {literal(str(losers))} (FORMAT parquet)"
            )
        removed = pl.scan_parquet(losers)
        for path in removed.select("filename").unique().collect().to_series():
            self._remove(Path(path), removed.filter(pl.col("filename") == path))
        losers.unlink()

    def _order(self, connection: Any, table: str, column: str, schema: dict[str, pl.DataType]) -> str:
        """How rows are ordered: as moments where every text reads as one, else as they are."""
        name = identifier(column)
        if schema[column].is_float():
            return f"nullif({name}, 'NaN')"
        if schema[column] != pl.String:
            return name
        parsed = f"TRY_CAST({name} AS TIMESTAMPTZ)"
        odd = connection.execute(f"SELECT count({name}) - count({parsed}) FROM {table}").fetchone()
        return parsed if odd and odd[0] == 0 else name

    def _remove(self, path: Path, rows: pl.LazyFrame) -> None:
        kept = path.with_suffix(".kept")
        pl.scan_parquet(path, row_index_name="file_row_number", hive_partitioning=False).join(
            rows.select(pl.col("file_row_number").cast(pl.get_index_type())),
            on="file_row_number",
            how="anti",
            maintain_order="left",
        ).drop("file_row_number").sink_parquet(kept, compression="lz4")
        kept.replace(path)


def _is_null(column: str, dtype: pl.DataType) -> pl.Expr:
    expr = pl.col(column)
    return expr.is_null() | expr.is_nan().fill_null(value=False) if dtype.is_float() else expr.is_null()


def _key(column: str, dtype: pl.DataType) -> str:
    """A key column as SQL; NaN is null, and a row with a null in its key is nobody's duplicate."""
    return f"nullif({identifier(column)}, 'NaN')" if dtype.is_float() else identifier(column)
