"""Parquet, row group by row group."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from engine.sources.formats import Job, Part, beyond, check_shape, gathered

BATCH_ROWS = 32_768
BATCH_BYTES = 32 * 2**20
PROBED_ROWS = 16
HARMLESS_BYTES = 2**14  # of a row group: as often as a text of it may stand in a batch, it takes little memory
FOOTER_ITEMS = 5_000_000  # of the lists in a footer
FOOTER_TEXT = 64 * 2**20


def parts(job: Job) -> Iterator[Part]:
    """The rows of the slice's row groups."""
    file = _opened(job)
    footer = file.metadata
    groups = range(footer.num_row_groups)
    counts = [footer.row_group(i).num_rows for i in groups]
    if min([footer.num_rows, *counts]) < 0 or sum(counts) != footer.num_rows:
        raise ValueError(f"its footer says {footer.num_rows} rows, its row groups {sum(counts)}")
    if footer.num_rows > job.limits.rows:
        raise beyond(job, f"it has {footer.num_rows:,} rows", "rows")
    schema = file.schema_arrow
    check_shape(job, schema)
    number, of = job.slice
    mine = [i for i in groups if i * of // len(groups) == number]
    before = sum(counts[: mine[0]]) if mine else 0
    rows = sum(counts[i] for i in mine)
    if _overflows(job, file, mine):
        file = _opened(job, coerce_int96_timestamp_unit="us")
        schema = file.schema_arrow
    for part in gathered(job, _batches(file, mine, rows), schema, rows):
        yield Part(part.frame, before + part.first)


def _opened(job: Job, **options: Any) -> pq.ParquetFile:
    source = pa.BufferReader(job.body) if isinstance(job.body, bytes) else pa.OSFile(str(job.body))
    return pq.ParquetFile(
        source,
        pre_buffer=False,
        thrift_string_size_limit=FOOTER_TEXT,
        thrift_container_size_limit=FOOTER_ITEMS,
        schema_depth_limit=job.limits.nesting * 3 + 3,  # a list is up to three levels of the schema
        arrow_extensions_enabled=False,
        page_checksum_verification=True,
        **options,
    )


def _batches(file: pq.ParquetFile, groups: list[int], rows: int) -> Iterator[Any]:
    if not groups:
        return
    if not len(file.schema_arrow):
        yield pa.table({"": pa.nulls(rows)}).select([])
        return
    for group in groups:
        yield from file.iter_batches(batch_size=_batch_rows(file, group), row_groups=[group])


def _batch_rows(file: pq.ParquetFile, group: int) -> int:
    """So many rows at a time that they take little memory, as far as can be known.

    A text that is written once may stand in every row, and the footer does not tell: the first rows do. (What the
    footer says of a single column is not asked: pyarrow aborts the process where that contradicts itself.)
    """
    footer = file.metadata.row_group(group)
    width = footer.total_byte_size / max(1, footer.num_rows)
    if footer.total_byte_size > HARMLESS_BYTES and footer.num_rows > PROBED_ROWS:
        columns = (file.schema.column(i) for i in range(len(file.schema)))
        roots = sorted({c.path.partition(".")[0] for c in columns if c.physical_type == "BYTE_ARRAY"})
        texts = file.iter_batches(batch_size=PROBED_ROWS, row_groups=[group], columns=roots) if roots else iter(())
        first = next(texts, None)
        if first is not None and len(first):
            width = max(width, first.nbytes / len(first))
    return int(min(BATCH_ROWS, max(1, BATCH_BYTES // max(1, width))))


def _overflows(job: Job, file: pq.ParquetFile, groups: list[int]) -> bool:
    """Whether a moment of the old kind (INT96) is beyond what nanoseconds can hold; Arrow would wrap it around."""
    columns = [file.schema.column(i) for i in range(len(file.schema))]
    old = [column.path for column in columns if column.physical_type == "INT96"]
    if not old or not groups:
        return False
    if any("." in path for path in old):  # inside a list or struct: not looked at one by one
        return True
    coarse = _opened(job, coerce_int96_timestamp_unit="us")
    both = (f.iter_batches(batch_size=32_768, row_groups=groups, columns=old) for f in (file, coarse))
    for fine, right in zip(*both, strict=True):
        for name in fine.schema.names:
            moments = pl.Series(fine.column(name).cast(pa.int64())) // 1000
            if not moments.equals(pl.Series(right.column(name).cast(pa.int64())), null_equal=True):
                return True
    return False
