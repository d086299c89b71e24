"""Missing values and transforms, as one fit that can be pinned and applied again to other rows.

`handle_missing` runs first, transforms second. A `Fit` holds, per feature column, the value that fills a null and the
numbers and categories of its transforms; applied to later rows it never changes what it did to earlier ones.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, cast

import polars as pl

from engine.errors import DataError
from engine.features import transform
from engine.frames import column
from engine.spec.transforms import CATEGORICAL, Step

Missing = Literal["impute", "zero", "drop", "keep"]
Normalize = bool | Literal["standard", "robust"]
NOT_FEATURES = frozenset({"user_id", "task_id", "project_id", "team_id", "event_timestamp", "created_timestamp"})


@dataclass(frozen=True)
class ColumnFit:
    """What was learnt of one column.

    Attributes:
        fill: the median of a numeric column, the mode of a text (ties: the smallest); None where all was null, or
            where nothing is imputed.
        low, high: the smallest and largest finite value after missing values were handled, whole numbers for a
            column of whole numbers; None where there is none, or where nothing is scaled to [0, 1].
        definition: the definition that the column had when it was fitted; "" where it has none.
        steps: its transforms, where it has others than its view's min-max; see `engine.features.transform`.
    """

    fill: float | int | str | bool | None = None
    low: float | int | None = None
    high: float | int | None = None
    definition: str = ""
    steps: tuple[transform.Fitted, ...] | None = None

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        found = {"fill": self.fill, "low": self.low, "high": self.high, "definition": self.definition}
        return found if self.steps is None else {**found, "steps": [dict(step) for step in self.steps]}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> ColumnFit:
        steps = data.get("steps")
        return cls(**{**data, "steps": None if steps is None else tuple(steps)})

    @property
    def is_learnt(self) -> bool:
        """Whether anything was learnt of the column's values."""
        return self.fill is not None or self.low is not None or bool(self.steps)

    @property
    def is_categorical(self) -> bool:
        return bool(self.steps) and cast("Any", self.steps)[0]["step"] in CATEGORICAL


@dataclass(frozen=True)
class Fit:
    """A fit of a whole view: the two settings, and what was learnt per column.

    Attributes:
        normalize: what is done to numbers without transforms of their own: True is min-max.
    """

    handle_missing: Missing = "impute"
    normalize: Normalize = True
    columns: Mapping[str, ColumnFit] = field(default_factory=dict)

    def steps(self, name: str, dtype: pl.DataType) -> tuple[transform.Fitted, ...]:
        """All that is done to a column of this type, missing values aside."""
        known = self.columns.get(name)
        if known is not None and known.steps is not None:
            return known.steps
        if self.normalize is not True or known is None or not dtype.is_numeric():
            return ()
        return ({"step": "minmax", "low": known.low, "high": known.high},)

    def mark(self, name: str, dtype: pl.DataType) -> str | None:
        """A fingerprint of all that is done to the values of a column; None: nothing is."""
        known = self.columns.get(name)
        fill = {"impute": known.fill if known else None, "zero": 0}.get(self.handle_missing)
        steps = self.steps(name, dtype)
        if fill is None and not steps:
            return None
        return hashlib.sha256(json.dumps([fill, steps], sort_keys=True, default=str).encode()).hexdigest()[:12]

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready; `from_dict` gives an equal fit back."""
        return {
            "handle_missing": self.handle_missing,
            "normalize": self.normalize,
            "columns": {name: column.to_dict() for name, column in self.columns.items()},
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Fit:
        columns = {name: ColumnFit.from_dict(column) for name, column in data["columns"].items()}
        return cls(data["handle_missing"], data["normalize"], columns)

    @property
    def vague(self) -> set[str]:
        """The published columns that are fitted once they have values: there was none."""
        found = {name: known for name, known in self.columns.items() if self._is_vague(known)}
        return {column for name, known in found.items() for column in transform.names(name, known.steps or ())}

    def _is_vague(self, known: ColumnFit) -> bool:
        if self.handle_missing == "impute" and known.fill is None:
            return True
        if known.steps is not None:
            return not all(map(transform.is_whole, known.steps))
        return self.normalize is True and self.handle_missing == "keep" and known.low is None

    def unfitted(self, columns: Sequence[str], schema: pl.Schema, definitions: Mapping[str, str]) -> list[str]:
        """The columns that this fit says nothing of: new, defined anew, or without a value when it was made."""
        return [c for c in columns if not self._covers(c, schema[c], definitions.get(c, ""))]

    def _covers(self, name: str, dtype: pl.DataType, definition: str) -> bool:
        known = self.columns.get(name)
        if known is None or known.definition != definition:
            return False
        if self.handle_missing == "impute" and known.fill is None:
            return False
        return all(map(transform.is_whole, self.steps(name, dtype)))


@dataclass(frozen=True)
class Applied:
    """What applying a fit did: rows in and dropped, values filled and clipped per column, columns left all null; and
    values of no category that is pinned."""

    rows: int
    dropped: int
    filled: Mapping[str, int]
    clipped: Mapping[str, int]
    all_null: tuple[str, ...]
    unknown: Mapping[str, int] = field(default_factory=dict)


def feature_columns(schema: pl.Schema, keys: frozenset[str] = NOT_FEATURES) -> list[str]:
    """The columns that are features: all but keys and timestamps."""
    return [name for name in schema.names() if name not in keys]


def learn(
    frame: pl.LazyFrame,
    columns: Sequence[str],
    *,
    handle_missing: Missing,
    normalize: Normalize,
    transforms: Mapping[str, Sequence[Step]] | None = None,
    definitions: Mapping[str, str] | None = None,
    pinned: Fit | None = None,
) -> Fit:
    """The fit of ``columns`` on the rows of ``frame``.

    Args:
        transforms: of columns for which ``normalize`` does not count.
        definitions: per column, what its fit depends on; a pinned column with another definition is fitted anew.
        pinned: an earlier fit; what it covers is kept as it is.

    Raises:
        DataError: a column has too many categories, or they give it the name of another.
    """
    definitions, transforms = definitions or {}, transforms or {}
    schema = frame.collect_schema()
    kept = Fit(handle_missing, normalize, dict(pinned.columns) if pinned else {})
    if pinned and (pinned.handle_missing, pinned.normalize) != (handle_missing, normalize):
        kept = Fit(handle_missing, normalize)
    new = kept.unfitted(columns, schema, definitions)
    categorical = {c for c in new if transforms.get(c) and transforms[c][0].name in CATEGORICAL}
    fills: dict[str, Any] = {}
    if handle_missing == "impute":
        fills = _medians(frame, [c for c in new if schema[c].is_numeric() and c not in categorical])
        fills |= {c: _mode(frame, c) for c in new if _is_label(schema[c]) or c in categorical}
    declared = {c: steps for c in new if (steps := _declared(c, schema[c], normalize, transforms)) is not None}
    learnt = {
        c: ColumnFit(fills.get(c), definition=definitions.get(c, ""), steps=tuple(s.to_dict() for s in declared[c]))
        if c in declared
        else ColumnFit(fills.get(c), definition=definitions.get(c, ""))
        for c in new
    }
    if any(declared.values()):
        filled = fill(frame, Fit(handle_missing, normalize, {**kept.columns, **learnt}), columns)
        for name, fitted in transform.fitted(filled, filled.collect_schema(), declared).items():
            learnt[name] = replace(learnt[name], steps=fitted)
            if name not in transforms and normalize is True:
                low, high = fitted[0]["low"], fitted[0]["high"]
                learnt[name] = replace(learnt[name], low=low, high=high, steps=None)
    fit = Fit(handle_missing, normalize, {**kept.columns, **learnt})
    _check_names(fit, schema, columns)
    return fit


def _declared(
    name: str, dtype: pl.DataType, normalize: Normalize, transforms: Mapping[str, Sequence[Step]]
) -> Sequence[Step] | None:
    if name in transforms:
        return transforms[name]
    if not normalize or not dtype.is_numeric():
        return None
    return (Step("minmax" if normalize is True else normalize),)


def _check_names(fit: Fit, schema: pl.Schema, columns: Sequence[str]) -> None:
    given = Counter(n for c in columns for n in transform.names(c, fit.steps(c, schema[c])))
    given += Counter(name for name in schema if name not in columns)
    for name, count in given.items():
        if count > 1:
            raise DataError(
                f"two published columns would be named {name!r}",
                code="fit.names",
                where=name,
                fix="list other categories for one_hot, or use ordinal",
            )


def missing(frame: pl.DataFrame) -> dict[str, int]:
    """How many nulls each column has; NaN counts as null."""
    return frame.select(_null_for_nan(name, dtype).null_count() for name, dtype in frame.schema.items()).row(
        0, named=True
    )


def fill(frame: pl.LazyFrame, fit: Fit, columns: Sequence[str], nulls: Mapping[str, int] | None = None) -> pl.LazyFrame:
    """``frame`` with missing values handled as ``fit`` says; NaN counts as null. Other columns are untouched.

    A column of integers that had nulls becomes Float64 when they are imputed, since a median may be a fraction.

    Args:
        nulls: how many the columns have, where that is known; of all rows, if these are some of them.
    """
    schema = frame.collect_schema()
    frame = frame.with_columns(_null_for_nan(c, schema[c]) for c in columns)
    if fit.handle_missing == "drop":
        return frame.drop_nulls(list(columns))
    if fit.handle_missing == "zero":
        return frame.with_columns(
            column(c).fill_null(_zero(schema[c])) for c in columns if _zero(schema[c]) is not None
        )
    if fit.handle_missing == "impute":
        values = {c: f for c in columns if (f := _fill_value(fit, c)) is not None}
        exact = [
            c
            for c in values
            if schema[c].is_numeric() and not schema[c].is_float() and not fit.columns[c].is_categorical
        ]
        if nulls is None and exact:
            counts = frame.select(column(c).null_count() for c in exact)
            nulls = counts.collect(engine="streaming").row(0, named=True)
        known = {c: (nulls or {})[c] for c in exact}
        return frame.with_columns(
            (column(c).cast(pl.Float64) if c in known else column(c)).fill_null(_literal(value, schema[c]))
            for c, value in values.items()
            if known.get(c, 1)
        )
    return frame


_COUNTS = {"outside": transform.outside, "unknown": transform.unknown}


class Applying:
    """A fit at work on rows, all at once or slice by slice.

    Args:
        schema: of the rows.
        rows: how many there are in all.
        nulls: of them all, by column.

    Attributes:
        schema: of what is made of them.
    """

    def __init__(
        self, schema: pl.Schema, fit: Fit, columns: Sequence[str], *, rows: int, nulls: Mapping[str, int]
    ) -> None:
        self._fit, self._columns, self._rows, self._nulls = fit, list(columns), rows, nulls
        blank = self.filled(pl.LazyFrame(schema=schema))
        filled = blank.collect_schema()
        steps = {c: fit.steps(c, schema[c]) for c in columns}
        self._counted = {
            f"{what} {c}": expr
            for c in columns
            for what, count in _COUNTS.items()
            if (expr := count(c, filled[c], steps[c])) is not None
        }
        self._made: list[pl.Expr] | None = None
        if any(steps.values()):
            self._made = [e for c, dtype in filled.items() for e in transform.columns(c, dtype, steps.get(c, ()))]
        self.schema = self.made(blank).collect_schema()
        self._after: Counter[str] = Counter()

    def filled(self, frame: pl.LazyFrame) -> pl.LazyFrame:
        """Rows with missing values handled."""
        return fill(frame, self._fit, self._columns, self._nulls)

    def made(self, filled: pl.LazyFrame) -> pl.LazyFrame:
        """What becomes of them then; the columns that become of one stand in its place."""
        return filled if self._made is None else filled.select(self._made)

    def count(self, filled: pl.LazyFrame) -> None:
        """Takes note of what was done to filled rows."""
        counts = filled.select(
            pl.len(),
            *(column(c).count().alias(f"values {c}") for c in self._columns),
            *(expr.alias(name) for name, expr in self._counted.items()),
        )
        self._after.update(counts.collect(engine="streaming").row(0, named=True))

    def of(self, rows: pl.DataFrame) -> pl.DataFrame:
        """What becomes of some of the rows, which are counted."""
        filled = self.filled(rows.lazy()).collect(engine="in-memory")  # in their order
        self.count(filled.lazy())
        return self.made(filled.lazy()).collect(engine="in-memory")

    def applied(self) -> Applied:
        """What was done to all that were counted."""
        after, columns = self._after, self._columns
        left = {c: after["len"] - after[f"values {c}"] for c in columns}
        dropped = self._rows - after["len"]
        return Applied(
            rows=self._rows,
            dropped=dropped,
            filled={c: self._nulls[c] - left[c] for c in columns if self._nulls[c] > left[c]} if not dropped else {},
            clipped={c: n for c in columns if (n := after[f"outside {c}"])},
            all_null=tuple(c for c in columns if after["len"] and not after[f"values {c}"]),
            unknown={c: n for c in columns if (n := after[f"unknown {c}"])},
        )


def apply(frame: pl.LazyFrame, fit: Fit, columns: Sequence[str]) -> tuple[pl.LazyFrame, Applied]:
    """Both, with counts of what they did."""
    schema = frame.collect_schema()
    before = (
        frame.select(pl.len(), *(_null_for_nan(c, schema[c]).null_count() for c in columns))
        .collect(engine="streaming")
        .row(0)
    )
    nulls = dict(zip(columns, before[1:], strict=True))
    work = Applying(schema, fit, columns, rows=before[0], nulls=nulls)
    filled = work.filled(frame)
    work.count(filled)
    return work.made(filled), work.applied()


def marks(fit: Fit, schema: pl.Schema, columns: Sequence[str]) -> dict[str, str]:
    """The fingerprint of what is done to each column that becomes of these, by its name then.

    Args:
        schema: of the raw features.
    """
    found: dict[str, str] = {}
    filled = fill(pl.LazyFrame(schema=schema), fit, columns).collect_schema()
    for name in columns:
        if (mark := fit.mark(name, schema[name])) is not None:
            made = transform.columns(name, filled[name], fit.steps(name, schema[name]))
            found |= {expr.meta.output_name(): mark for expr in made}
    return found


def _medians(frame: pl.LazyFrame, columns: Sequence[str]) -> dict[str, float | None]:
    """Of one column after the other: the values of each are held whole."""
    schema, found = frame.collect_schema(), {}
    for c in columns:
        value = frame.select(transform.finite(column(c), schema[c]).cast(pl.Float64).median())
        found[c] = value.collect(engine="streaming").item()
    return {c: float(v) if v is not None else None for c, v in found.items()}


def _mode(frame: pl.LazyFrame, name: str) -> Any:
    counts = frame.select(column(name).alias("value")).drop_nulls().group_by("value").len()
    first = counts.sort(["len", "value"], descending=[True, False]).head(1).collect(engine="streaming")
    return first.item(0, 0) if first.height else None


def _literal(value: Any, dtype: pl.DataType) -> pl.Expr:
    # Of an Enum and a text Polars makes something that panics when it is grouped.
    return pl.lit(value) if dtype.is_numeric() else pl.lit(value).cast(dtype)


def _fill_value(fit: Fit, name: str) -> Any:
    known = fit.columns.get(name)
    return known.fill if known else None


def _null_for_nan(name: str, dtype: pl.DataType) -> pl.Expr:
    return column(name).fill_nan(None) if dtype.is_float() else column(name)


def _zero(dtype: pl.DataType) -> Any:
    if dtype.is_numeric():
        return 0
    return {pl.String: "", pl.Boolean: False}.get(cast("Any", dtype.base_type()))


def _is_label(dtype: pl.DataType) -> bool:
    return dtype in (pl.String, pl.Boolean, pl.Categorical) or isinstance(dtype, pl.Enum)
