"""Single transforms of a feature: fitted on a frame, then plain numbers that a document can hold and anyone can apply.

A fitted transform is a mapping: ``step``, and what it needs. Of `docs/transforms.md` each is one line.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import polars as pl

from engine.errors import DataError
from engine.frames import column
from engine.spec.transforms import CATEGORICAL, Step

Fitted = Mapping[str, Any]
MOST_CATEGORIES = 100
_FITTED = {"minmax": ("low", "high"), "standard": ("mean", "std"), "robust": ("median", "spread")}


def is_whole(step: Fitted) -> bool:
    """Whether it was fitted on any value."""
    if step["step"] in CATEGORICAL:
        return bool(step["categories"])
    return all(step[name] is not None for name in _FITTED.get(step["step"], ()))


def fitted(
    frame: pl.LazyFrame, schema: pl.Schema, declared: Mapping[str, Sequence[Step]]
) -> dict[str, tuple[Fitted, ...]]:
    """Transforms of columns, each fitted on what those before it make of the frame.

    Raises:
        DataError: there are too many categories, or those declared are no values of the column.
    """
    done: dict[str, tuple[Fitted, ...]] = dict.fromkeys(declared, ())
    for depth in range(max(map(len, declared.values()), default=0)):
        steps = {name: steps[depth] for name, steps in declared.items() if depth < len(steps)}
        learnt = _numbers(frame, schema, done, {n: s for n, s in steps.items() if s.name in _FITTED})
        for name, step in steps.items():
            found = step.to_dict() | learnt.get(name, {})
            if step.name in CATEGORICAL:
                found["categories"] = _categories(frame, name, schema[name], step)
            done[name] = (*done[name], found)
    return done


def _numbers(
    frame: pl.LazyFrame, schema: pl.Schema, done: Mapping[str, Sequence[Fitted]], steps: Mapping[str, Step]
) -> dict[str, dict[str, Any]]:
    asked: dict[str, pl.Expr] = {}
    for name, step in steps.items():
        value = finite(*chained(column(name), schema[name], done[name]))
        if step.name == "minmax":
            asked |= {f"low {name}": value.min(), f"high {name}": value.max()}
            continue
        value = value.cast(pl.Float64)
        if step.name == "standard":
            asked |= {f"mean {name}": value.mean(), f"std {name}": value.std(ddof=0)}
        else:
            low, high = (value.quantile(q, interpolation="linear") for q in (0.25, 0.75))
            asked |= {f"median {name}": value.median(), f"spread {name}": high - low}
    if not asked:
        return {}
    row = frame.select(expr.alias(name) for name, expr in asked.items()).collect(engine="streaming").row(0, named=True)
    found = {name: {what: row[f"{what} {name}"] for what in _FITTED[step.name]} for name, step in steps.items()}
    for numbers in found.values():
        if not all(v is None or isinstance(v, int) or math.isfinite(v) for v in numbers.values()):
            numbers.update(dict.fromkeys(numbers))  # sums that overflow
    return found


def _categories(frame: pl.LazyFrame, name: str, dtype: pl.DataType, step: Step) -> list[Any]:
    kind = bool if dtype == pl.Boolean else int if dtype.is_integer() else str
    if step.categories is not None:
        if type(step.categories[0]) is not kind or not is_label(dtype):
            raise DataError(
                f"{name!r} is {dtype}, and has no value {step.categories[0]!r}",
                code="fit.categories",
                where=name,
                fix="declare categories of the feature's own type",
            )
        return list(step.categories)
    if not is_label(dtype):
        raise DataError(
            f"{name!r} is {dtype}, and has no categories",
            code="fit.categories",
            where=name,
            allowed="texts, whole numbers, true/false",
            fix=f"leave {step.name} out",
        )
    values = frame.select(column(name).alias("value")).drop_nulls().unique().head(MOST_CATEGORIES + 1)
    found: list[Any] = values.collect(engine="streaming")["value"].to_list()
    if len(found) > MOST_CATEGORIES:
        raise DataError(
            f"{name!r} has more than {MOST_CATEGORIES} categories",
            code="fit.categories",
            where=name,
            fix=f"list those that matter: {{{step.name}: [CATEGORY, …]}}",
        )
    return sorted(found)


def is_label(dtype: pl.DataType) -> bool:
    """Whether values of this type may be categories."""
    return dtype in (pl.String, pl.Boolean, pl.Categorical) or isinstance(dtype, pl.Enum) or dtype.is_integer()


def _label(expr: pl.Expr, dtype: pl.DataType) -> pl.Expr:
    return expr.cast(pl.String) if dtype == pl.Categorical or isinstance(dtype, pl.Enum) else expr


def chained(expr: pl.Expr, dtype: pl.DataType, steps: Sequence[Fitted]) -> tuple[pl.Expr, pl.DataType]:
    """A column after fitted transforms, one_hot aside, and its type then."""
    for step in steps:
        expr, dtype = _applied(expr, dtype, step)
    return expr, dtype


def columns(name: str, dtype: pl.DataType, steps: Sequence[Fitted]) -> list[pl.Expr]:
    """What is published of a column: itself, or a column for each category."""
    if steps and steps[0]["step"] == "one_hot":
        value = _label(column(name), dtype)
        categories = steps[0]["categories"] or ()
        flags = [(value == pl.lit(c)).fill_null(value=False).cast(pl.Int64) for c in categories]
        return [flag.alias(n) for flag, n in zip(flags, names(name, steps), strict=True)]
    return [chained(column(name), dtype, steps)[0].alias(name)]


def names(name: str, steps: Sequence[Fitted]) -> list[str]:
    """Of the columns that are published of one: ``<feature>_<category>`` for one_hot."""
    if not steps or steps[0]["step"] != "one_hot":
        return [name]
    categories = steps[0]["categories"] or ()
    return [f"{name}_{str(c).lower() if isinstance(c, bool) else c}" for c in categories]


def unknown(name: str, dtype: pl.DataType, steps: Sequence[Fitted]) -> pl.Expr | None:
    """How many values are of no category that is pinned."""
    if not steps or steps[0]["step"] not in CATEGORICAL:
        return None
    value = _label(column(name), dtype)
    return (value.is_not_null() & value.is_in(steps[0]["categories"] or []).not_()).sum()


def outside(name: str, dtype: pl.DataType, steps: Sequence[Fitted]) -> pl.Expr | None:
    """How many values lie beyond the range that is pinned."""
    for i, step in enumerate(steps):
        if step["step"] == "minmax" and is_whole(step):
            value = finite(*chained(column(name), dtype, steps[:i]))
            return value.is_between(step["low"], step["high"]).not_().sum()
    return None


def finite(expr: pl.Expr, dtype: pl.DataType) -> pl.Expr:
    """A number for exact comparison: integers as they are, all else as Float64 without NaN and ±inf."""
    if dtype.is_integer():
        return expr.cast(pl.Int128)
    value = expr.cast(pl.Float64)
    return pl.when(value.is_finite()).then(value)


def _applied(expr: pl.Expr, dtype: pl.DataType, step: Fitted) -> tuple[pl.Expr, pl.DataType]:
    kind = step["step"]
    if kind == "ordinal":
        return _ordinal(_label(expr, dtype), step["categories"] or []), pl.Int64()
    if not is_whole(step):
        return _nothing(expr, pl.Float64()), pl.Float64()
    value = finite(expr, dtype)
    if kind == "minmax":
        return _minmax(value, step["low"], step["high"]), pl.Float64()
    value = value.cast(pl.Float64)
    if kind == "log1p":
        value = pl.when(value > -1).then(value.log1p())
    elif kind == "clip":
        value = value.clip(step["low"], step["high"])
    elif kind == "standard":
        value = _divided(value - step["mean"], step["std"] or 1.0)
    else:
        value = _divided(value - step["median"], step["spread"] or 1.0)
    return value, pl.Float64()


def _nothing(expr: pl.Expr, dtype: pl.DataType) -> pl.Expr:
    """Nulls, as many as there are values; of a literal there is one."""
    return pl.when(expr.is_null() & expr.is_not_null()).then(pl.lit(0, dtype))


def _ordinal(value: pl.Expr, categories: Sequence[Any]) -> pl.Expr:
    if not categories:
        return _nothing(value, pl.Int64())
    codes = value.replace_strict(list(categories), list(range(len(categories))), default=-1, return_dtype=pl.Int64)
    return pl.when(value.is_not_null()).then(codes)


def _minmax(value: pl.Expr, low: float, high: float) -> pl.Expr:
    if isinstance(low, float) or isinstance(high, float):
        value = value.cast(pl.Float64)
        if not math.isfinite(high - low):  # the span of two huge values overflows; half of each does not
            value, low, high = value / 2, low / 2, high / 2
    if low == high:
        return pl.when(value.is_not_null()).then(0.0)
    return _divided((value.clip(low, high) - low).cast(pl.Float64), float(high - low))


def _divided(value: pl.Expr, by: float) -> pl.Expr:
    # Polars divides by a constant by multiplying with its reciprocal, which is inexact and may overflow; by a column
    # it divides.
    return value / (value * 0.0 + by)
