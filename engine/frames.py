"""Frames in, the same kind of frame out: polars (eager or lazy), pyarrow and pandas."""

from __future__ import annotations

import re
from typing import Any

import polars as pl
import pyarrow as pa

from engine.errors import DataError, UsageError


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
    if isinstance(data, pa.RecordBatchReader):
        data = data.read_all()
    if isinstance(data, pa.Table | pa.RecordBatch):
        frame = pl.from_arrow(data)
        assert isinstance(frame, pl.DataFrame)  # noqa: S101 - a table never becomes a series
        return frame.lazy()
    if is_pandas(data):
        if twice := sorted({str(c) for c in data.columns[data.columns.duplicated()]}):
            raise DataError(
                f"the pandas frame has the column {twice[0]!r} twice",
                code="data.repeated_column",
                fix="rename one of them",
            )
        try:
            return pl.from_pandas(data).lazy()
        except (pa.ArrowException, TypeError, ValueError) as error:
            raise DataError(
                f"a pandas column cannot be read: {error}",
                code="data.mixed_column",
                fix="give every value of the column one type, for example with astype(str)",
            ) from None
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


def column(name: str) -> pl.Expr:
    """The column of exactly this name; Polars alone would read ``^a.*$`` as a pattern and ``*`` as all."""
    special = name == "*" or (name.startswith("^") and name.endswith("$"))
    return pl.col(f"^{re.escape(name)}$") if special else pl.col(name)


def is_pandas(data: Any) -> bool:
    """Whether ``data`` is a pandas frame; pandas itself is not imported to find out."""
    return type(data).__module__.partition(".")[0] == "pandas" and hasattr(data, "columns")
