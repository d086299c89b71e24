"""Frames in, the same kind of frame out: polars (eager or lazy), pyarrow and pandas."""

from __future__ import annotations

import glob
import io
import re
import tempfile
from collections import Counter
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import polars as pl

from engine.errors import DataError, MaestroError, UsageError, is_interrupt
from engine.types import FIRST_MOMENT, LAST_MOMENT

BATCH_ROWS = 200_000
_BATCH_CELLS = 4_000_000  # of wide tables, a batch holds fewer rows
_WIDE = 200  # columns
_PART_CELLS = 16_000_000  # of wide files, what is read at once
_FILES = "check the files, or cast them to common types"


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
    return scan_files(_remote_files(text) if "://" in text else parquet_files(path), text)


def _remote_files(url: str) -> list[str]:
    """As `parquet_files`, of an object store; Polars lists it, and its credentials are those of the environment."""
    static = url[: min((url.index(mark) for mark in "*?[" if mark in url), default=len(url))]
    if static == url and url.endswith(".parquet"):
        return [url]
    with reading(url, _FILES):
        found = pl.scan_parquet(
            url,
            include_file_paths="file",
            hive_partitioning=False,
            missing_columns="insert",
            extra_columns="ignore",
        )
        files = found.select(pl.col("file").unique(maintain_order=True)).collect(engine="streaming")["file"].to_list()
    folder = static if static == url else static[: static.rindex("/") + 1]
    seen = [file for file in files if not any(part.startswith(".") for part in file.removeprefix(folder).split("/"))]
    return seen or [url]


def parquet_files(path: str | Path) -> list[Path]:
    """A Parquet file, or all such files of a folder or a glob in the order of their names; hidden ones are left out.

    Raises:
        DataError: there is none.
    """
    folder = Path(path)
    if folder.is_dir():
        inside = ((file, file.relative_to(folder).parts) for file in folder.rglob("*.parquet") if file.is_file())
        found = sorted(file for file, parts in inside if not any(part.startswith(".") for part in parts))
    else:
        matches = glob.glob(str(path), recursive=True)  # noqa: PTH207 - absolute patterns too
        found = [folder] if folder.exists() else sorted(file for file in map(Path, matches) if file.is_file())
    if not found:
        raise DataError(
            f"there is no Parquet file {path}",
            code="data.no_file",
            allowed="a Parquet file, a folder of such, or a glob",
            fix="correct the path",
        )
    return found


def parquet_rows(file: Path) -> int:
    """How many rows a Parquet file has, as its footer says."""
    rows = pl.scan_parquet(file, hive_partitioning=False, glob=False).select(pl.len()).collect()
    return int(rows.item())


def scan_files(files: Sequence[str | Path], name: str) -> pl.LazyFrame:
    """The rows of Parquet files as one table, as in `scan`.

    Raises:
        DataError: a file is none, or types have no common one; ``name`` is what the message calls them all.
    """
    with reading(name, _FILES):
        frames = [pl.scan_parquet(file, hive_partitioning=False, glob=False) for file in files]
        schemas = [frame.collect_schema() for frame in frames]
        if all(schema == schemas[0] for schema in schemas):
            wide = len(schemas[0]) >= _WIDE and "://" not in str(files[0])
            return (
                _in_parts(files)
                if wide
                else pl.scan_parquet(list(map(str, files)), hive_partitioning=False, glob=False)
            )
        return together(frames)


def _in_parts(files: Sequence[str | Path]) -> pl.LazyFrame:
    """The rows of files as parts of a few row groups each, read one part after the other.

    Of one scan Polars holds some six row groups decoded, which are large where there are many columns.
    """
    import pyarrow.parquet as pq

    parts = []
    for file in files:
        scanned = pl.scan_parquet(file, hive_partitioning=False, glob=False)
        footer = pq.read_metadata(file)
        start = end = 0
        for i in range(footer.num_row_groups):
            end += footer.row_group(i).num_rows
            if i == footer.num_row_groups - 1 or (end - start) * footer.num_columns >= _PART_CELLS:
                parts.append(scanned.slice(start, end - start))
                start = end
        if not footer.num_row_groups:
            parts.append(scanned)
    return pl.concat(parts)


def together(frames: Sequence[pl.LazyFrame]) -> pl.LazyFrame:
    """Frames as one with all columns of any of them, each in a type that holds the values of all; absent ones are null.

    A value that the common type of its column does not hold exactly, such as 2^53 + 1 among floats, is an error once
    it is read.
    """
    whole = pl.concat(frames, how="diagonal_relaxed")
    common = whole.collect_schema()
    cast = []
    for frame in frames:
        other = {n: t for n, t in frame.collect_schema().items() if t not in (common[n], pl.Null)}
        cast.append(frame.with_columns(exactly(name, common[name]) for name in other))
    return pl.concat(cast, how="diagonal_relaxed")


def exactly(name: str, dtype: pl.DataType) -> pl.Expr:
    """The column in another type; a value that this does not hold exactly is an error once it is read."""

    def made(values: pl.Series) -> pl.Series:
        given = values.alias("")
        found = given.cast(dtype, strict=False)
        wrong = found.cast(given.dtype, strict=False).ne_missing(given)
        if wrong.any():
            raise ValueError(
                f"the column {name!r} is {given.dtype} in some files and {dtype} in others, and {dtype} does not hold "
                f"{given.filter(wrong)[0]} exactly"
            )
        return found

    return column(name).map_batches(made, return_dtype=dtype, is_elementwise=True)


def batches(
    frame: pl.LazyFrame, columns: Sequence[str], name: str = "the data", *, rows: int = BATCH_ROWS
) -> Generator[tuple[int, pl.DataFrame]]:
    """The rows in order, with the number of the first of each batch; of wide tables, fewer than ``rows`` at a time.

    Raises:
        DataError: they cannot be read.
    """
    size = min(rows, max(1_000, _BATCH_CELLS // max(1, len(columns))))
    offset = 0
    chosen = frame.select([column(name) for name in columns])
    with reading(name):
        for batch in chosen.collect_batches(chunk_size=size, maintain_order=True, engine="streaming"):
            if batch.height:
                yield offset, batch
                offset += batch.height


@contextmanager
def reading(name: str = "the data", fix: str = "read it without the checks to see the whole message") -> Iterator[None]:
    """Turns what Polars, Arrow, a stream or a user's function raises while data is read into the engine's error.

    Ctrl-C passes, also where Arrow or DuckDB has made an error of it.
    """
    try:
        yield
    except MaestroError:
        raise
    except (Exception, pl.exceptions.PanicException) as error:
        if is_interrupt(error):
            raise KeyboardInterrupt from None
        text = str(error).partition(". Detail: Python exception")[0].strip()
        raise DataError(
            f"{name} could not be read: {text.splitlines()[0] if text else type(error).__name__}",
            code="data.unreadable",
            fix=fix,
        ) from error


def _spooled(stream: Any, path: Path) -> pl.LazyFrame:
    import pyarrow as pa
    import pyarrow.parquet as pq

    with reading("the stream"):
        reader = stream if isinstance(stream, pa.RecordBatchReader) else pa.RecordBatchReader.from_stream(stream)
        _check_once(reader.schema.names)
        with pq.ParquetWriter(path, reader.schema, compression="lz4") as writer:
            for batch in reader:
                writer.write_batch(batch)
    return pl.scan_parquet(path, hive_partitioning=False, glob=False)


def _check_once(names: Iterable[str]) -> None:
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise DataError(
            f"the data has the column {twice[0]!r} twice", code="data.repeated_column", fix="rename one of them"
        )


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
        DataError: it cannot be read, has a column twice, or a pandas column mixes types that have no common Arrow type.
    """
    if isinstance(data, pl.LazyFrame):
        return data
    if isinstance(data, pl.DataFrame):
        return data.lazy()
    if is_pandas(data):
        import pyarrow as pa

        _check_once(map(str, data.columns))
        try:
            return _from_pandas(data).lazy()
        except (pa.ArrowException, TypeError, ValueError) as error:
            raise DataError(
                f"a pandas column cannot be read: {error}",
                code="data.mixed_column",
                fix="give every value of the column one type, for example with astype(str)",
            ) from None
    if hasattr(data, "__arrow_c_stream__") or _package(data) == "pyarrow":
        with reading():
            if _package(data) == "pyarrow":
                _check_once(data.schema.names)
            return pl.DataFrame(data).lazy()
    raise UsageError(
        f"cannot read a {type(data).__module__}.{type(data).__qualname__} as a table",
        code="data.unknown_frame",
        allowed="polars DataFrame or LazyFrame, pyarrow Table, pandas DataFrame",
        fix="convert it to one of these first",
    )


def _from_pandas(data: Any) -> pl.DataFrame:
    objects = [name for name in data.columns if data[name].dtype == object]
    texts = {name: found for name in objects if (found := _texts(data[name].to_numpy())) is not None}
    others = {name: data[name] for name in data.columns if name not in texts}
    frame = pl.from_pandas(type(data)(others, copy=False) if texts else data)
    if texts:
        frame = pl.DataFrame({str(n): texts[n] if n in texts else frame[str(n)] for n in data.columns})
    empty = [str(n) for n in objects if frame[str(n)].null_count() == frame.height and not data[n].notna().any()]
    return frame.with_columns(column(name).cast(pl.Null) for name in empty)


def _texts(values: Any) -> pl.Series | None:
    """Python's texts and None, in a third of the time that Arrow takes; None: there are other values."""
    if not isinstance(next((value for value in values if value is not None), None), str):
        return None
    try:
        return pl.Series(values.tolist(), dtype=pl.String, strict=True)
    except (TypeError, ValueError):
        return None


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


def to_rows(frame: pl.DataFrame) -> list[dict[str, Any]]:
    """The rows as Python values; moments that Python cannot hold, beyond the years 1 to 9999, as text."""
    odd = [name for name, dtype in frame.schema.items() if dtype in (pl.Date, pl.Datetime) and not _fits(frame[name])]
    return frame.with_columns(_counted(name, frame.schema[name]) for name in odd).to_dicts()


def _counted(name: str, dtype: pl.DataType) -> pl.Expr:
    """Moments as text: so many days or units of time since 1970, which is all that can be said of some."""
    unit = dtype.time_unit if isinstance(dtype, pl.Datetime) else "days"
    return pl.format(f"{{}} {unit} since 1970-01-01", column(name).to_physical()).alias(name)


def clipped(frame: pl.DataFrame) -> pl.DataFrame:
    """The same with moments that Python cannot hold as the first or the last that it can."""
    odd = [name for name, dtype in frame.schema.items() if dtype in (pl.Date, pl.Datetime) and not _fits(frame[name])]
    return frame.with_columns(
        column(name).to_physical().clip(*_limits(frame.schema[name])).cast(frame.schema[name]) for name in odd
    )


def _fits(moments: pl.Series) -> bool:
    low, high = _limits(moments.dtype)
    return bool(moments.to_physical().is_between(low, high).all())


def _limits(dtype: pl.DataType) -> tuple[int, int]:
    """Of the years 1 to 9999, in days or in the units of a timestamp."""
    if dtype == pl.Date:
        return FIRST_MOMENT // 86_400_000_000, LAST_MOMENT // 86_400_000_000
    assert isinstance(dtype, pl.Datetime)  # noqa: S101 - only moments are asked for
    if dtype.time_unit == "ns":
        return -(2**63), 2**63 - 1
    per_unit = 1_000 if dtype.time_unit == "ms" else 1
    return FIRST_MOMENT // per_unit, LAST_MOMENT // per_unit


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
