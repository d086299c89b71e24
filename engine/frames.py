"""Frames in, the same kind of frame out: polars (eager or lazy), pyarrow and pandas."""

from __future__ import annotations

import glob
import io
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import polars as pl

from engine.errors import DataError, UsageError


@contextmanager
def opened(data: Any, spill: Path | None = None) -> Iterator[pl.LazyFrame]:
    """``data`` as a lazy frame that can be scanned repeatedly while the context lasts.

    Args:
        data: what `to_lazy` takes; the path of a Parquet file, of a folder of such or a glob (also ``s3://…``); or
            anything with an Arrow stream, which is written to disk as it comes, since it can be read only once.
        spill: the folder for that; None is one of the system's temporary folders.

    Raises:
        UsageError, DataError: as `to_lazy`.
    """
    if isinstance(data, str | Path):
        yield scan(data)
    elif hasattr(data, "__arrow_c_stream__") and not _is_frame(data):
        if spill is not None:
            spill.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix="maestro-stream-", dir=spill) as folder:
            yield _spooled(data, Path(folder) / "stream.parquet")
    else:
        yield to_lazy(data)


def scan(path: str | Path) -> pl.LazyFrame:
    """The rows of a Parquet file, or of all such files of a folder or a glob in the order of their names.

    Files that differ have all columns of any of them, each in a type that holds the values of all; absent ones are
    null.

    Raises:
        DataError: there is no such file, or types have no common one.
    """
    text = str(path)
    if "://" in text:
        return pl.scan_parquet(text, missing_columns="insert", extra_columns="ignore")
    folder = Path(text)
    found = sorted(folder.rglob("*.parquet")) if folder.is_dir() else [folder] if folder.exists() else []
    found = found or sorted(map(Path, glob.glob(text, recursive=True)))  # noqa: PTH207 - absolute patterns too
    if not found:
        raise DataError(
            f"there is no Parquet file {text}",
            code="data.no_file",
            allowed="a Parquet file, a folder of such, or a glob",
            fix="correct the path",
        )
    try:
        frames = [pl.scan_parquet(file, hive_partitioning=False, glob=False) for file in found]
        schemas = [frame.collect_schema() for frame in frames]
        if all(schema == schemas[0] for schema in schemas):
            return pl.scan_parquet(found, hive_partitioning=False, glob=False)
        whole = pl.concat(frames, how="diagonal_relaxed")
        whole.collect_schema()
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError) as error:
        raise DataError(
            f"{text} could not be read: {str(error).splitlines()[0]}",
            code="data.unreadable",
            fix="check the files, or cast them to common types",
        ) from None
    return whole


def _spooled(stream: Any, path: Path) -> pl.LazyFrame:
    import pyarrow as pa
    import pyarrow.parquet as pq

    reader = pa.RecordBatchReader.from_stream(stream)
    with pq.ParquetWriter(path, reader.schema, compression="lz4") as writer:
        for batch in reader:
            writer.write_batch(batch)
    return pl.scan_parquet(path, hive_partitioning=False, glob=False)


def _is_frame(data: Any) -> bool:
    """Whether data is held in memory, or lazy: it can be read repeatedly."""
    held = {"Table", "RecordBatch"} if _package(data) == "pyarrow" else set()
    return isinstance(data, pl.DataFrame | pl.LazyFrame) or type(data).__name__ in held or is_pandas(data)


def _package(data: Any) -> str:
    return type(data).__module__.partition(".")[0]


def to_lazy(data: Any) -> pl.LazyFrame:
    """``data`` as a lazy frame, without a copy where its kind allows.

    Args:
        data: polars DataFrame or LazyFrame, pyarrow Table, RecordBatch or RecordBatchReader, pandas DataFrame
            (its index is left out; NaN stays NaN and counts as null in all that follows).

    Raises:
        UsageError: it is none of these.
        DataError: a pandas column mixes types that have no common Arrow type.
    """
    if isinstance(data, pl.LazyFrame):
        return data
    if isinstance(data, pl.DataFrame):
        return data.lazy()
    if is_pandas(data):
        import pyarrow as pa

        if twice := sorted({str(c) for c in data.columns[data.columns.duplicated()]}):
            raise DataError(
                f"the pandas frame has the column {twice[0]!r} twice",
                code="data.repeated_column",
                fix="rename one of them",
            )
        try:
            frame = pl.from_pandas(data)
            empty = [str(c) for c in data.columns if data[c].dtype == object and not data[c].notna().any()]
            return frame.with_columns(column(name).cast(pl.Null) for name in empty).lazy()
        except (pa.ArrowException, TypeError, ValueError) as error:
            raise DataError(
                f"a pandas column cannot be read: {error}",
                code="data.mixed_column",
                fix="give every value of the column one type, for example with astype(str)",
            ) from None
    if hasattr(data, "__arrow_c_stream__") or _package(data) == "pyarrow":
        frame = pl.DataFrame(data)
        return frame.lazy()
    raise UsageError(
        f"cannot read a {type(data).__module__}.{type(data).__qualname__} as a table",
        code="data.unknown_frame",
        allowed="polars DataFrame or LazyFrame, pyarrow Table, pandas DataFrame",
        fix="convert it to one of these first",
    )


def like(frame: pl.DataFrame, original: Any) -> Any:
    """``frame`` as the kind of frame that ``original`` is."""
    if isinstance(original, pl.LazyFrame):
        return frame.lazy()
    if isinstance(original, pl.DataFrame):
        return frame
    if is_pandas(original):
        return frame.to_pandas()
    return frame.to_arrow()


def compacted(frame: pl.DataFrame) -> pl.DataFrame:
    """The same rows in memory of their own.

    What a filter leaves of texts still holds the memory of all the texts there were.
    """
    texts = frame.select(name for name, dtype in zip(frame.columns, frame.dtypes, strict=True) if _holds_text(dtype))
    if not texts.width:
        return frame
    copy = io.BytesIO()
    texts.write_ipc(copy, compat_level=pl.CompatLevel.oldest())
    copy.seek(0)
    return frame.with_columns(pl.read_ipc(copy).cast(texts.schema).get_columns())


def _holds_text(dtype: pl.DataType) -> bool:
    if isinstance(dtype, pl.List | pl.Array):
        return _holds_text(cast(pl.DataType, dtype.inner))
    if isinstance(dtype, pl.Struct):
        return any(_holds_text(cast(pl.DataType, field.dtype)) for field in dtype.fields)
    return dtype in (pl.String, pl.Binary)


def column(name: str) -> pl.Expr:
    """The column of exactly this name; Polars alone would read ``^a.*$`` as a pattern and ``*`` as all."""
    special = name == "*" or (name.startswith("^") and name.endswith("$"))
    return pl.col(f"^{re.escape(name)}$") if special else pl.col(name)


def is_pandas(data: Any) -> bool:
    """Whether ``data`` is a pandas frame; pandas itself is not imported to find out."""
    return _package(data) == "pandas" and hasattr(data, "columns")
