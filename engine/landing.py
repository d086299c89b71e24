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
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import duckdb
import polars as pl
import pyarrow.parquet as pq

from engine.duck import connect, literal
from engine.errors import SourceError, TransientSourceError, is_interrupt, nearest
from engine.frames import column as exactly
from engine.sources import Chunk, Source, reading
from engine.spec import Deduplicate, SourceSpec, secrets_of
from engine.types import ISO_MOMENT

log = logging.getLogger(__name__)

Wait = Callable[[float], object]
_EXACT_IN_FLOAT64 = 2**53
_BLANKS = r"^\s+|\s+$"


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
        return pl.scan_parquet(list(self.files), hive_partitioning=False, glob=False)


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
        else:
            landed.metrics.retries = attempt
            landed.metrics.duration_seconds = time.monotonic() - started
            return landed
        wait(delay)
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
        # Columns seen in records, as they come; None for sources whose every chunk must have them all.
        self.open_columns: dict[str, None] | None = None

    def run(self) -> Landed:
        files: list[Path] = []
        with closing(cast("Generator[Chunk, None, None]", self.source.chunks())) as chunks:
            self._write_all(chunks, files)
        if not files:
            files.append(self._nothing())
        elif self.open_columns is not None:
            self._check_columns(self.open_columns, self.source.location)
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

    def _write_all(self, chunks: Iterable[Chunk], files: list[Path]) -> None:
        for chunk in chunks:
            path = self.folder / f"chunk-{chunk.number:06d}.parquet"
            self._write(chunk, path)
            files.append(path)
            if self.progress:
                self.progress(self.metrics.records_written)

    def _nothing(self) -> Path:
        """An empty table of a source that gave no records, with the columns that its declaration names."""
        path = self.folder / "chunk-000000.parquet"
        names = dict.fromkeys(column for _, column in self._needed())
        pl.DataFrame(schema=dict.fromkeys(names or ["nothing"], pl.Null())).write_parquet(path)
        return path

    def _write(self, chunk: Chunk, path: Path) -> None:
        """Writes a chunk: renamed, rows with a null in a critical column left out, everything counted."""
        with reading(chunk.origin, self.name, self.secrets):
            frame = self._mapped(chunk)
            schema = frame.collect_schema()
            null = {c: _is_null(c, schema[c]) for c in self.spec.critical_columns}
            good = frame.filter(~pl.any_horizontal(*null.values())) if null else frame
            if chunk.rows is None:
                # Counting beside writing takes memory, so it is left to sources that know their rows.
                sink = good.sink_parquet(path, compression="lz4", lazy=True)
                read = int(pl.collect_all([sink, frame.select(pl.len())], engine="streaming")[1].item())
            else:
                good.sink_parquet(path, compression="lz4")
                read = chunk.rows
            written = pq.read_metadata(path).num_rows
            failed = self._failed(frame, null, read - written)
        if failed != read - written:
            raise SourceError(
                f"{chunk.origin}: {read} rows are there, {failed} of them are left out, but {written} were written",
                code="source.count_mismatch",
                where=f"sources.{self.name}",
                fix="the source changed while it was read, or is damaged; run again",
            )
        self.metrics.records_read += read
        self.metrics.records_failed += failed
        self.metrics.records_written += written

    def _failed(self, frame: pl.LazyFrame, null: Mapping[str, pl.Expr], missing: int) -> int:
        """How many rows have a null in a critical column; counted, also per column, only where rows are missing."""
        counted = self.metrics.failed_by_column
        counts = dict.fromkeys(null, 0)
        failed = 0
        if missing and null:
            failed, *each = (
                frame.select(pl.any_horizontal(*null.values()).sum().alias("failed"), *(n.sum() for n in null.values()))
                .collect(engine="streaming")
                .row(0)
            )
            counts = dict(zip(null, each, strict=True))
        for column, count in counts.items():
            counted[column] = counted.get(column, 0) + count
        return failed

    def _mapped(self, chunk: Chunk) -> pl.LazyFrame:
        """The chunk's frame with its columns renamed and those there that it must have."""
        have = chunk.frame.collect_schema().names()
        if chunk.open_schema:
            # No record of this chunk has some column: that is null here; whether any chunk has it is seen at the end.
            self.open_columns = {**(self.open_columns or {}), **dict.fromkeys(have)}
            mapping = {old: new for old, new in self.spec.column_mapping.items() if old in have}
        else:
            mapping = dict(self.spec.column_mapping)
            self._check_columns(have, chunk.origin)
        names = [mapping.get(c, c) for c in have]
        if clash := sorted({n for n in names if names.count(n) > 1}):
            raise SourceError(
                f"{chunk.origin}: column_mapping gives two columns the name {clash[0]!r}",
                code="source.mapping_collision",
                where=f"sources.{self.name}",
                fix=f"map the other {clash[0]!r} to a name of its own",
            )
        absent = dict.fromkeys(c for _, c in self._needed() if c not in names)
        return chunk.frame.rename(mapping).with_columns(pl.lit(None).alias(c) for c in absent)

    def _needed(self) -> list[tuple[str, str]]:
        """The columns that the declaration names, each with the key that does; as they are after mapping."""
        spec = self.spec
        needed = [("required_columns", c) for c in spec.required_columns]
        needed += [("critical_columns", c) for c in spec.critical_columns]
        if spec.deduplicate:
            needed += [("deduplicate", c) for c in spec.deduplicate.keys]
            needed += [("deduplicate", c) for c in [spec.deduplicate.order_by] if c]
        return needed

    def _check_columns(self, have: Iterable[str], origin: str) -> None:
        have = list(have)
        for old in self.spec.column_mapping:
            if old not in have:
                raise self._missing(old, have, origin, "column_mapping")
        names = [self.spec.column_mapping.get(c, c) for c in have]
        for key, column in self._needed():
            if column not in names:
                raise self._missing(column, names, origin, key)

    def _missing(self, column: str, have: Sequence[str], origin: str, key: str) -> SourceError:
        near = nearest(column, have)
        return SourceError(
            f"{origin} has no column {column!r}, which {key} names",
            code="source.missing_column",
            where=f"sources.{self.name}",
            allowed=f"columns there are: {', '.join(have)}",
            fix=f"did you mean {near!r}?" if near else f"correct {key}, or the source",
        )

    def _unify(self, files: Sequence[Path]) -> None:
        """Gives every chunk the one schema that holds all of them; most often nothing is to do."""
        schemas = [_schema(path) for path in files]
        if all(list(s.items()) == list(schemas[0].items()) for s in schemas):
            return
        target: dict[str, pl.DataType] = {}
        for column in dict.fromkeys(name for schema in schemas for name in schema):
            dtypes = list(dict.fromkeys(schema[column] for schema in schemas if column in schema))
            target[column] = self._common(column, dtypes)
        for path, schema in zip(files, schemas, strict=True):
            if list(schema.items()) != list(target.items()):
                self._cast(path, schema, target)

    def _common(self, column: str, dtypes: Sequence[pl.DataType]) -> pl.DataType:
        """The type that holds a column of several types; JSON keeps its kinds apart, as it does within a chunk."""
        known = [d for d in dtypes if d != pl.Null]
        mixed = self.open_columns is not None and len({_kind(d) for d in known}) > 1
        try:
            parts = [pl.DataFrame(schema={column: d}) for d in dtypes]
            common = pl.concat(parts, how="vertical_relaxed").schema[column]
        except (pl.exceptions.PolarsError, pl.exceptions.PanicException):
            mixed = True
        if mixed or not all(_holds(common, d) for d in dtypes):
            raise SourceError(
                f"column {column!r} is {' in one part and '.join(map(str, known))} in another",
                code="source.mixed_column",
                where=f"sources.{self.name}",
                allowed="types that one type holds exactly",
                fix=f"give {column!r} one type in the source",
            )
        return common

    def _cast(self, path: Path, schema: Mapping[str, pl.DataType], target: Mapping[str, pl.DataType]) -> None:
        frame = pl.scan_parquet(path, hive_partitioning=False, glob=False)
        widened = [c for c, t in target.items() if c in schema and schema[c].is_integer() and t.is_float()]
        for column in widened:
            largest = frame.select(exactly(column).cast(pl.Int128).abs().max()).collect().item()
            if largest is not None and largest > _EXACT_IN_FLOAT64:
                raise SourceError(
                    f"column {column!r} holds whole numbers beyond 2^53 in one part and fractions in another; "
                    "no number type holds both exactly",
                    code="source.inexact",
                    where=f"sources.{self.name}",
                    fix=f"give {column!r} one type in the source, for example text",
                )
        columns = {c: exactly(c).cast(t) if c in schema else pl.lit(None, t) for c, t in target.items()}
        unified = path.with_suffix(".unified")
        with reading("the landed chunks", self.name, self.secrets):
            # with_columns keeps the rows of a chunk that has none of these columns; select alone would make them one
            frame.with_columns(**columns).select(map(exactly, target)).sink_parquet(unified, compression="lz4")
        before, after = (pq.read_metadata(p).num_rows for p in (path, unified))
        if before != after:
            raise AssertionError(f"{path.name}: {before} rows became {after}")
        unified.replace(path)

    def _deduplicate(self, files: Sequence[Path], rule: Deduplicate) -> None:
        """Keeps the last row per key: largest ``order_by`` (null is smallest), then the later chunk, the later row."""
        schema = _schema(files[0])
        rows, losers = self.folder / "keys.parquet", self.folder / "duplicates.parquet"
        keys = {f"key{i}": _known(c, schema[c]) for i, c in enumerate(rule.keys)}
        order = {"rank": _known(rule.order_by, schema[rule.order_by])} if rule.order_by else {}
        index = _index_name(schema)
        pl.concat(
            pl.scan_parquet(path, row_index_name=index, hive_partitioning=False, glob=False).select(
                pl.lit(i).alias("chunk"), pl.col(index).alias("row"), **keys, **order
            )
            for i, path in enumerate(files)
        ).sink_parquet(rows)
        with connect(self.memory_limit, self.folder / "spill") as connection:
            self._find_losers(connection, rows, losers, list(keys), rule, schema)
        removed = pl.scan_parquet(losers, glob=False)
        for number in removed.select("chunk").unique().collect().to_series():
            self._remove(files[number], removed.filter(pl.col("chunk") == number))
        rows.unlink()
        losers.unlink()

    def _find_losers(
        self,
        connection: duckdb.DuckDBPyConnection,
        rows: Path,
        losers: Path,
        keys: Sequence[str],
        rule: Deduplicate,
        schema: Mapping[str, pl.DataType],
    ) -> None:
        """Writes chunk and row number of every row that another of its key outranks."""
        try:
            connection.execute(f"CREATE TEMP VIEW rows AS SELECT * FROM read_parquet({literal(str(rows))})")
            filled = " AND ".join(f"{key} IS NOT NULL" for key in keys)
            by = "chunk DESC, row DESC"
            if rule.order_by:
                by = f"{self._rank(connection, rule.order_by, schema[rule.order_by])} DESC NULLS LAST, {by}"
            connection.execute(
                f"COPY (SELECT chunk, row FROM rows WHERE {filled} "
                f"QUALIFY row_number() OVER (PARTITION BY {', '.join(keys)} ORDER BY {by}) > 1) "
                f"TO {literal(str(losers))} (FORMAT parquet)"
            )
        except duckdb.Error as error:
            if is_interrupt(error):
                raise KeyboardInterrupt from None
            raise SourceError(
                f"the rows could not be deduplicated: {str(error).splitlines()[0]}",
                code="source.deduplicate",
                where=f"sources.{self.name}",
                fix="raise memory_limit, or make room where workdir is",
            ) from None

    def _rank(self, connection: duckdb.DuckDBPyConnection, column: str, dtype: pl.DataType) -> str:
        """What rows are ordered by: moments where the texts are moments (blank is null), else the values themselves."""
        if dtype != pl.String:
            return "rank"
        text = f"nullif(regexp_replace(rank, {literal(_BLANKS)}, '', 'g'), '')"
        moment = f"TRY_CAST(CASE WHEN regexp_matches({text}, {literal(ISO_MOMENT)}) THEN {text} END AS TIMESTAMPTZ)"
        [(texts, moments, odd)] = connection.execute(
            f"SELECT count({text}), count({moment}), min({text}) FILTER (WHERE {moment} IS NULL) FROM rows"
        ).fetchall()
        if 0 < moments < texts:
            raise SourceError(
                f"order_by: {texts - moments} of the {texts} values of {column!r} are no dates or timestamps while the "
                f"others are, for example {odd!r}",
                code="source.unreadable_order",
                where=f"sources.{self.name}",
                allowed="ISO 8601 texts, or texts of which none is one",
                fix="mend them in the source, or order by another column",
            )
        return moment if moments else text

    def _remove(self, path: Path, rows: pl.LazyFrame) -> None:
        kept = path.with_suffix(".kept")
        index = _index_name(_schema(path))
        pl.scan_parquet(path, row_index_name=index, hive_partitioning=False, glob=False).join(
            rows.select(pl.col("row").cast(pl.get_index_type()).alias(index)),
            on=index,
            how="anti",
            maintain_order="left",
        ).drop(index).sink_parquet(kept, compression="lz4")
        kept.replace(path)


def _schema(path: Path) -> dict[str, pl.DataType]:
    with path.open("rb") as file:  # a path would be read as a glob
        return dict(pl.read_parquet_schema(file))


def _index_name(columns: Iterable[str]) -> str:
    """A name for the row number that no column has."""
    return max(columns, key=len, default="") + "#"


def _holds(wide: pl.DataType, dtype: pl.DataType) -> bool:
    """Whether every value of ``dtype`` is exact in ``wide``; whole numbers in Float64 are looked at one by one."""
    if dtype in (wide, pl.Null):
        return True
    if isinstance(wide, pl.List) and isinstance(dtype, pl.List):
        wide_inner, inner = pl.Series(dtype=wide.inner).dtype, pl.Series(dtype=dtype.inner).dtype
        return _holds(wide_inner, inner) and not (inner.is_integer() and wide_inner.is_float())
    if dtype.is_integer():
        return wide.is_integer() or wide == pl.Float64 or wide == pl.String
    if dtype.is_float():
        return wide in (pl.Float64, pl.String)
    if isinstance(dtype, pl.Datetime):
        return isinstance(wide, pl.Datetime) and wide.time_zone == dtype.time_zone
    return wide == pl.String and dtype in (pl.Categorical, pl.Enum)


def _kind(dtype: pl.DataType) -> str:
    return "number" if dtype.is_numeric() else str(dtype.base_type())


def _known(column: str, dtype: pl.DataType) -> pl.Expr:
    """A column in which NaN is null: a row with a null in its key is nobody's duplicate."""
    return exactly(column).fill_nan(None) if dtype.is_float() else exactly(column)


def _is_null(column: str, dtype: pl.DataType) -> pl.Expr:
    expr = exactly(column)
    return expr.is_null() | expr.is_nan().fill_null(value=False) if dtype.is_float() else expr.is_null()
