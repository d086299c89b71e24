"""Missing values and normalisation, as one fit that can be pinned and applied again to other rows.

`handle_missing` runs first, scaling second. A `Fit` holds, per feature column, the value that fills a null and the
range that becomes [0, 1]; applied to later rows it never changes what it did to earlier ones.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, cast

import polars as pl

Missing = Literal["impute", "zero", "drop", "keep"]
NOT_FEATURES = frozenset({"user_id", "task_id", "project_id", "team_id", "event_timestamp", "created_timestamp"})


@dataclass(frozen=True)
class ColumnFit:
    """What was learnt of one column.

    Attributes:
        fill: the median of a numeric column, the mode of a text (ties: the smallest); None where all was null, or
            where nothing is imputed.
        low, high: the smallest and largest finite value after missing values were handled, whole numbers for a
            column of whole numbers; None where there is none, or where nothing is scaled.
        definition: the definition that the column had when it was fitted; "" where it has none.
    """

    fill: float | int | str | bool | None = None
    low: float | int | None = None
    high: float | int | None = None
    definition: str = ""


@dataclass(frozen=True)
class Fit:
    """A fit of a whole view: the two settings, and what was learnt per column."""

    handle_missing: Missing = "impute"
    normalize: bool = True
    columns: Mapping[str, ColumnFit] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready; `from_dict` gives an equal fit back."""
        return {
            "handle_missing": self.handle_missing,
            "normalize": self.normalize,
            "columns": {name: asdict(column) for name, column in self.columns.items()},
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Fit:
        columns = {name: ColumnFit(**column) for name, column in data["columns"].items()}
        return cls(data["handle_missing"], data["normalize"], columns)

    def unfitted(self, columns: Sequence[str], definitions: Mapping[str, str]) -> list[str]:
        """The columns that this fit says nothing of: new, defined anew, or without a value when it was made."""
        return [c for c in columns if not self._covers(c, definitions.get(c, ""))]

    def _covers(self, column: str, definition: str) -> bool:
        known = self.columns.get(column)
        if known is None or known.definition != definition:
            return False
        return not (self.handle_missing == "impute" and known.fill is None) and not (
            self.normalize and known.low is None
        )


@dataclass(frozen=True)
class Applied:
    """What applying a fit did: rows in and dropped, values filled and clipped per column, columns left all null."""

    rows: int
    dropped: int
    filled: Mapping[str, int]
    clipped: Mapping[str, int]
    all_null: tuple[str, ...]


def feature_columns(schema: pl.Schema, keys: frozenset[str] = NOT_FEATURES) -> list[str]:
    """The columns that are features: all but keys and timestamps."""
    return [name for name in schema.names() if name not in keys]


def learn(
    frame: pl.LazyFrame,
    columns: Sequence[str],
    *,
    handle_missing: Missing,
    normalize: bool,
    definitions: Mapping[str, str] | None = None,
    pinned: Fit | None = None,
) -> Fit:
    """The fit of ``columns`` on the rows of ``frame``.

    Args:
        definitions: per column, what its fit depends on; a pinned column with another definition is fitted anew.
        pinned: an earlier fit; what it covers is kept as it is.
    """
    definitions = definitions or {}
    schema = frame.collect_schema()
    kept = Fit(handle_missing, normalize, dict(pinned.columns) if pinned else {})
    if pinned and (pinned.handle_missing, pinned.normalize) != (handle_missing, normalize):
        kept = Fit(handle_missing, normalize)
    new = kept.unfitted(columns, definitions)
    fills: dict[str, Any] = {}
    if handle_missing == "impute":
        fills = _medians(frame, [c for c in new if schema[c].is_numeric()])
        fills |= {c: _mode(frame, c) for c in new if _is_label(schema[c])}
    learnt = {c: ColumnFit(fill=fills.get(c), definition=definitions.get(c, "")) for c in new}
    partial = Fit(handle_missing, normalize, {**kept.columns, **learnt})
    if normalize:
        ranges = _ranges(fill(frame, partial, columns), [c for c in new if schema[c].is_numeric()])
        for name, (low, high) in ranges.items():
            learnt[name] = ColumnFit(learnt[name].fill, low, high, learnt[name].definition)
    return Fit(handle_missing, normalize, {**kept.columns, **learnt})


def fill(frame: pl.LazyFrame, fit: Fit, columns: Sequence[str]) -> pl.LazyFrame:
    """``frame`` with missing values handled as ``fit`` says; NaN counts as null. Other columns are untouched.

    A column of integers that had nulls becomes Float64 when they are imputed, since a median may be a fraction.
    """
    schema = frame.collect_schema()
    frame = frame.with_columns(_null_for_nan(c, schema[c]) for c in columns)
    if fit.handle_missing == "drop":
        return frame.drop_nulls(list(columns))
    if fit.handle_missing == "zero":
        return frame.with_columns(
            pl.col(c).fill_null(_zero(schema[c])) for c in columns if _zero(schema[c]) is not None
        )
    if fit.handle_missing == "impute":
        values = {c: f for c in columns if (f := _fill_value(fit, c)) is not None}
        exact = [c for c in values if schema[c].is_numeric() and not schema[c].is_float()]
        nulls = frame.select(pl.col(exact).null_count()).collect(engine="streaming").row(0, named=True) if exact else {}
        return frame.with_columns(
            (pl.col(c).cast(pl.Float64) if c in nulls else pl.col(c)).fill_null(pl.lit(value))
            for c, value in values.items()
            if nulls.get(c, 1)
        )
    return frame


def scale(frame: pl.LazyFrame, fit: Fit, columns: Sequence[str]) -> pl.LazyFrame:
    """``frame`` with its numeric columns scaled to [0, 1] as Float64, clipped to the fitted range.

    A constant column becomes 0.0; NaN and ±inf become null; a column without a fitted range becomes null.
    """
    schema = frame.collect_schema()
    numeric = [c for c in columns if schema[c].is_numeric() and c in fit.columns]
    return frame.with_columns(_scaled(c, schema[c], fit.columns[c]) for c in numeric)


def apply(frame: pl.LazyFrame, fit: Fit, columns: Sequence[str]) -> tuple[pl.LazyFrame, Applied]:
    """Both steps, with counts of what they did."""
    schema = frame.collect_schema()
    filled = fill(frame, fit, columns)
    filled_schema = filled.collect_schema()
    outside = {c: fit.columns[c] for c in columns if fit.normalize and schema[c].is_numeric() and c in fit.columns}
    before = (
        frame.select(pl.len(), *(_null_for_nan(c, schema[c]).null_count() for c in columns))
        .collect(engine="streaming")
        .row(0)
    )
    after = (
        filled.select(
            pl.len(),
            *(pl.col(c).count().alias(f"values {c}") for c in columns),
            *(
                _finite(c, filled_schema[c]).is_between(f.low, f.high).not_().sum().alias(f"outside {c}")
                for c, f in outside.items()
                if f.low is not None and f.high is not None
            ),
        )
        .collect(engine="streaming")
        .row(0, named=True)
    )
    rows, nulls = before[0], dict(zip(columns, before[1:], strict=True))
    left = {c: after["len"] - after[f"values {c}"] for c in columns}
    dropped = rows - after["len"]
    applied = Applied(
        rows=rows,
        dropped=dropped,
        filled={c: nulls[c] - left[c] for c in columns if nulls[c] > left[c]} if not dropped else {},
        clipped={c: n for c in outside if (n := after.get(f"outside {c}", 0))},
        all_null=tuple(c for c in columns if after["len"] and not after[f"values {c}"]),
    )
    return (scale(filled, fit, columns) if fit.normalize else filled), applied


def _medians(frame: pl.LazyFrame, columns: Sequence[str]) -> dict[str, float | None]:
    if not columns:
        return {}
    schema = frame.collect_schema()
    row = (
        frame.select(_finite(c, schema[c]).cast(pl.Float64).median() for c in columns)
        .collect(engine="streaming")
        .row(0, named=True)
    )
    return {c: float(v) if v is not None else None for c, v in row.items()}


def _mode(frame: pl.LazyFrame, column: str) -> Any:
    counts = frame.select(pl.col(column)).drop_nulls().group_by(column).len()
    first = counts.sort(["len", column], descending=[True, False]).head(1).collect(engine="streaming")
    return first.item(0, 0) if first.height else None


def _ranges(frame: pl.LazyFrame, columns: Sequence[str]) -> dict[str, tuple[float | int | None, float | int | None]]:
    if not columns:
        return {}
    schema = frame.collect_schema()
    finite = [_finite(c, schema[c]) for c in columns]
    extremes = [f.min().name.prefix("low ") for f in finite] + [f.max().name.prefix("high ") for f in finite]
    row = frame.select(extremes).collect(engine="streaming").row(0, named=True)
    return {c: (row[f"low {c}"], row[f"high {c}"]) for c in columns}


def _finite(column: str, dtype: pl.DataType) -> pl.Expr:
    """A numeric column for exact comparison: integers as they are, all else as Float64 without NaN and ±inf."""
    if dtype.is_integer():
        return pl.col(column).cast(pl.Int128)
    value = pl.col(column).cast(pl.Float64)
    return pl.when(value.is_finite()).then(value).alias(column)


def _scaled(column: str, dtype: pl.DataType, fit: ColumnFit) -> pl.Expr:
    if fit.low is None or fit.high is None:
        return pl.lit(None, pl.Float64).alias(column)
    low, high = fit.low, fit.high
    value = _finite(column, dtype)
    if isinstance(low, float) or isinstance(high, float):
        value = value.cast(pl.Float64)
        if not math.isfinite(high - low):  # the span of two huge values overflows; half of each does not
            value, low, high = value / 2, low / 2, high / 2
    if low == high:
        return pl.when(value.is_not_null()).then(0.0).alias(column)
    above = (value.clip(low, high) - low).cast(pl.Float64)
    # Polars divides by a constant by multiplying with its reciprocal, which is inexact and may overflow; by a column
    # it divides.
    span = above * 0.0 + float(high - low)
    return (above / span).alias(column)


def _fill_value(fit: Fit, column: str) -> Any:
    known = fit.columns.get(column)
    return known.fill if known else None


def _null_for_nan(column: str, dtype: pl.DataType) -> pl.Expr:
    return pl.col(column).fill_nan(None) if dtype.is_float() else pl.col(column)


def _zero(dtype: pl.DataType) -> Any:
    if dtype.is_numeric():
        return 0
    return {pl.String: "", pl.Boolean: False}.get(cast("Any", dtype.base_type()))


def _is_label(dtype: pl.DataType) -> bool:
    return dtype in (pl.String, pl.Boolean, pl.Categorical) or isinstance(dtype, pl.Enum)
