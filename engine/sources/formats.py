"""File formats: one file as frames, bounded in memory, with what readers get wrong in silence refused.

All is decoded by Arrow and looked through before anything else sees it: Polars' own readers panic, abort or lose rows
on some files. A file whose rows are not as many as it says itself is an error.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa

from engine.errors import MaestroError, SourceError, is_interrupt
from engine.sources import is_panic
from engine.spec import Csv, Limits

PART_ROWS = 150_000  # of one part, at most
PART_BYTES = 24 * 2**20  # about so many, in memory
FREE_BYTES = 256 * 2**20  # so many decoded bytes are no matter of ratio


@dataclass(frozen=True)
class Job:
    """A file to read, or a slice of one.

    Attributes:
        body: its content, or where it lies.
        form: ``parquet``, ``csv``, ``ndjson``, ``json`` or ``arrow``.
        origin: what to call it.
        name: the source's, for errors.
        compression: ``none``, ``gzip``, ``zstd``, ``bzip2`` or ``xz``.
        batch: most records of a part of NDJSON or JSON.
        texts: columns of a CSV file that are text, whatever they hold.
        slice: which of how many slices of the file's row groups.
    """

    body: Path | bytes
    form: str
    origin: str
    name: str
    compression: str = "none"
    csv: Csv = field(default_factory=Csv)
    limits: Limits = field(default_factory=Limits)
    batch: int = 50_000
    texts: frozenset[str] = frozenset()
    slice: tuple[int, int] = (0, 1)

    @property
    def size(self) -> int:
        """Of the file as it lies there."""
        return len(self.body) if isinstance(self.body, bytes) else self.body.stat().st_size


@dataclass(frozen=True)
class Part:
    """Some rows of a file.

    Attributes:
        first: the number of the first of them in the file, from 0.
        place: where in the file, for people; blank: all of it.
        open_schema: see `engine.sources.Chunk`.
        kinds: of a CSV file's columns, what their fields are: see `engine.sources.csv_types`.
    """

    frame: pl.DataFrame
    first: int = 0
    place: str = ""
    open_schema: bool = False
    kinds: Mapping[str, str] | None = None


def read(job: Job) -> Iterator[Part]:
    """The rows of a file, in order; none for NDJSON or JSON without records, whose columns nobody knows.

    Raises:
        SourceError: the file is not of its format, is so in a way that would lose or change values, or is beyond a
            limit.
    """
    with failures(job):
        if job.form == "parquet":
            from engine.sources import parquet_file

            yield from parquet_file.parts(job)
        elif job.form == "arrow":
            from engine.sources import arrow_file

            yield from arrow_file.parts(job)
        elif job.form == "csv":
            from engine.sources import csv_file

            yield from csv_file.parts(job)
        else:
            from engine.sources import json_file

            yield from json_file.parts(job)


def fault(
    job: Job, message: str, *, code: str = "source.malformed", allowed: str | None = None, fix: str
) -> SourceError:
    """An error that names the file."""
    return SourceError(f"{job.origin}: {message}", code=code, where=f"sources.{job.name}", allowed=allowed, fix=fix)


def beyond(job: Job, message: str, limit: str) -> SourceError:
    """The file is more than a limit allows."""
    allowed = f"limits.{limit}: {getattr(job.limits, limit):,}"
    fix = f"raise limits.{limit} if this is right, or leave the file out"
    return fault(job, message, code=f"source.limit_{limit}", allowed=allowed, fix=fix)


@contextmanager
def failures(job: Job) -> Iterator[None]:
    """Words whatever a reader raises, panics of native code too."""
    try:
        yield
    except (MaestroError, GeneratorExit):
        raise
    except BaseException as error:
        if (
            type(error).__name__ == "ArrowCancelled"
            or is_interrupt(error)
            or not (isinstance(error, Exception) or is_panic(error))
        ):
            raise
        text = " ".join(str(error).split())
        raise SourceError(
            f"{job.origin} cannot be read: {text[:300] or type(error).__name__}",
            code="source.unreadable",
            where=f"sources.{job.name}",
            fix="check that it is complete and of the declared format",
        ) from None


class Meter:
    """Counts what a file comes to, against its limits."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self.rows = self.bytes = 0
        self._most = min(job.limits.bytes, max(FREE_BYTES, job.limits.ratio * job.size))

    def add(self, rows: int, size: int) -> None:
        """So many rows and bytes more."""
        self.rows += rows
        self.bytes += size
        if self.rows > self._job.limits.rows:
            raise beyond(self._job, f"it has more than {self._job.limits.rows:,} rows", "rows")
        if self.bytes > self._most:
            by_ratio = self._most < self._job.limits.bytes
            message = f"its {self._job.size:,} bytes decode to more than {self._most:,}"
            raise beyond(self._job, message, "ratio" if by_ratio else "bytes")


def gathered(
    job: Job, batches: Iterator[pa.RecordBatch | pa.Table], schema: pa.Schema, rows: int | None = None
) -> Iterator[Part]:
    """Arrow batches as parts: looked through, counted, neither many small nor any large.

    Args:
        rows: how many the file says there are; None: it does not.
    """
    meter, held, size, first = Meter(job), [], 0, 0
    plain = _plain(schema)
    for batch in batches:
        batch.validate(full=True)  # before anything else: its size alone is found by offsets that may lead anywhere
        meter.add(batch.num_rows, batch.nbytes)
        held.append(batch)
        size += batch.nbytes
        if size >= PART_BYTES or sum(map(len, held)) >= PART_ROWS:
            frame = _frame(held, plain)
            held, size = [], 0
            yield Part(frame, first)
            first += frame.height
    if rows is not None and meter.rows != rows:
        raise fault(
            job,
            f"{meter.rows:,} rows were read where it says that there are {rows:,}",
            code="source.lost_rows",
            fix="it is damaged: have it written again",
        )
    if held or not first:
        yield Part(_frame(held, plain) if held else _frame([schema.empty_table()], plain), first)


def _frame(batches: list[Any], plain: pa.Schema | None) -> pl.DataFrame:
    tables = [b if isinstance(b, pa.Table) else pa.Table.from_batches([b]) for b in batches]
    table = pa.concat_tables(tables)
    bare = pa.schema([pa.field(f.name, f.type, f.nullable) for f in table.schema])  # Polars panics on odd metadata
    table = pa.Table.from_arrays(table.columns, schema=bare) if table.num_columns else table
    frame = pl.DataFrame(table if plain is None else table.cast(plain))
    if frame.height != table.num_rows:
        frame = pl.DataFrame(height=table.num_rows)
    return frame


def _plain(schema: pa.Schema) -> pa.Schema | None:
    """The schema as it goes on; None where it is that already.

    Without dictionaries, which have no order and no meaning of their own; a map as a list of its entries, because
    Polars keeps only the last of those with the same key.
    """
    kinds = [_plain_type(kind) for kind in schema.types]
    if kinds == schema.types:
        return None
    return pa.schema([pa.field(f.name, kind, f.nullable) for f, kind in zip(schema, kinds, strict=True)])


def _plain_type(kind: pa.DataType) -> pa.DataType:
    if pa.types.is_dictionary(kind):
        return _plain_type(kind.value_type)
    if pa.types.is_map(kind):
        entry = [pa.field("key", _plain_type(kind.key_type)), pa.field("value", _plain_type(kind.item_type))]
        return pa.list_(pa.struct(entry))
    if pa.types.is_list(kind):
        return pa.list_(_plain_type(kind.value_type))
    if pa.types.is_large_list(kind):
        return pa.large_list(_plain_type(kind.value_type))
    if pa.types.is_struct(kind):
        return pa.struct([pa.field(f.name, _plain_type(f.type), f.nullable) for f in kind])
    return kind


def nesting(kind: pa.DataType) -> int:
    """The levels of lists and structs of a type; 0 for a plain one."""
    if kind.num_fields == 0:
        return 0
    return 1 + max(nesting(kind.field(i).type) for i in range(kind.num_fields))


def check_shape(job: Job, schema: pa.Schema) -> None:
    """No more columns, nor deeper ones, than the limits allow; no name twice."""
    if len(schema) > job.limits.columns:
        raise beyond(job, f"it has {len(schema):,} columns", "columns")
    for name, kind in zip(schema.names, schema.types, strict=True):
        if nesting(kind) > job.limits.nesting:
            raise beyond(job, f"the column {name!r} is nested {nesting(kind)} levels deep", "nesting")
    seen: set[str] = set()
    for name in schema.names:
        if name in seen:
            raise fault(
                job, f"the column {name!r} is there twice", code="source.repeated_column", fix="rename one of them"
            )
        seen.add(name)
