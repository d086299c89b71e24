"""What a table looked like: a profile of each of its columns, made in one pass and put together exactly."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from functools import reduce
from typing import Any

import polars as pl

from engine.errors import DataError
from engine.frames import batches, opened, reading
from engine.profile.categories import Categories
from engine.profile.column import ColumnProfile, Kind, hashes_of
from engine.profile.distinct import Distinct
from engine.profile.numbers import Numbers

VERSION = 1  # of the JSON form
_MANY_ROWS = 50_000  # of a batch: worth two threads
_EXACT_WHOLE = 2.0**53


@dataclass
class Profile:
    """What a table looked like.

    Attributes:
        rows: how many it had.
        columns: by name, in the order of the table.
    """

    rows: int = 0
    columns: dict[str, ColumnProfile] = field(default_factory=dict)

    def __getitem__(self, name: str) -> ColumnProfile:
        return self.columns[name]

    def merged(self, other: Profile) -> Profile:
        """Of the rows of both; a column that one lacks is null there."""
        names = [*self.columns, *(name for name in other.columns if name not in self.columns)]
        return Profile(
            self.rows + other.rows,
            {name: self._of(name, other).merged(other._of(name, self)) for name in names},
        )

    def _of(self, name: str, other: Profile) -> ColumnProfile:
        if name in self.columns:
            return self.columns[name]
        there = other.columns[name]
        return ColumnProfile(name, there.dtype, there.kind, nulls=self.rows, pii=there.pii)

    def summary(self) -> dict[str, Any]:
        """What people read, JSON-ready."""
        return {"version": VERSION, "rows": self.rows, "columns": [c.summary() for c in self.columns.values()]}

    def to_dict(self) -> dict[str, Any]:
        """`summary`, and what a profile is made anew from; JSON-ready."""
        return self.summary() | {"columns": [c.to_dict() for c in self.columns.values()]}

    @classmethod
    def from_dict(cls, found: Mapping[str, Any]) -> Profile:
        """The profile that `to_dict` told of.

        Raises:
            DataError: it is of another version, or none at all.
        """
        try:
            if found["version"] != VERSION:
                raise ValueError(f"its version is {found['version']}, this engine knows {VERSION}")
            columns = [ColumnProfile.from_dict(c) for c in found["columns"]]
            return cls(int(found["rows"]), {c.name: c for c in columns})
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(
                f"the profile cannot be read: {error!r}" if isinstance(error, KeyError) else str(error),
                code="profile.unreadable",
                allowed="what maestro profile --json prints",
                fix="make the profile anew",
            ) from None

    def to_frame(self) -> pl.DataFrame:
        """A row for each column."""
        names = ("name", "dtype", "kind", "count", "nulls", "null_fraction", "distinct", "distinct_error")
        more = ("min", "max", "mean", "std")
        rows = []
        for told in (c.summary() for c in self.columns.values()):
            row = {name: told[name] for name in names}
            row |= {name: None if told.get(name) is None else str(told[name]) for name in more}
            row["median"] = next((str(x) for share, x in told.get("quantiles", ()) if share == 0.5), None)
            row["top"] = ", ".join(f"{t['value']} ({t['count']})" for t in told.get("top", ())[:3]) or None
            rows.append(row)
        texts = dict.fromkeys(("name", "dtype", "kind", *more, "median", "top"), pl.String)
        counts = dict.fromkeys(("count", "nulls", "distinct"), pl.Int64)
        shares = dict.fromkeys(("null_fraction", "distinct_error"), pl.Float64)
        order = (*names, *more, "median", "top")
        types = texts | counts | shares
        return pl.DataFrame(rows, schema={name: types[name] for name in order})


def together(profiles: Iterable[Profile]) -> Profile:
    """One profile of the rows of all."""
    return reduce(Profile.merged, profiles, Profile())


class Profiler:
    """Makes a profile of the batches of a table.

    Args:
        schema: the table's columns and their types.
        pii: the columns of which no values are kept.
        distinct: whether to estimate how many distinct values there are, where there are many.
    """

    def __init__(self, schema: Mapping[str, pl.DataType], pii: Iterable[str] = (), *, distinct: bool = True) -> None:
        self._types = dict(schema)
        self._pii = frozenset(pii)
        self._distinct = distinct
        self._workers: ThreadPoolExecutor | None = None
        self._rows = 0
        self._columns = {name: _empty(name, dtype) for name, dtype in self._types.items()}

    batch_rows = 65_536  # larger batches take more memory, and no less time

    @property
    def columns(self) -> list[str]:
        """Whose values are looked at."""
        return list(self._types)

    def add(self, batch: pl.DataFrame) -> None:
        """Takes note of rows; columns that are not the table's are left out."""
        self._rows += batch.height
        if self._workers is None and batch.height >= _MANY_ROWS and len(self._columns) > 1:
            self._workers = ThreadPoolExecutor(min(2, os.cpu_count() or 1))
        if self._workers is None:
            for name, found in self._columns.items():
                _add(found, batch[name], self._distinct)
        else:
            done = [self._workers.submit(_add, c, batch[n], self._distinct) for n, c in self._columns.items()]
            for one in done:
                one.result()

    def profile(self) -> Profile:
        """Of all batches."""
        if self._workers:
            self._workers.shutdown()
            self._workers = None
        kept = {n: c.without_values() if n in self._pii else c for n, c in self._columns.items()}
        return Profile(self._rows, kept)


def profile_of(data: Any, pii: Iterable[str] = (), *, exact: bool = False, distinct: bool = True) -> Profile:
    """The profile of a table: polars (eager or lazy), pyarrow, pandas, a Parquet path, or an Arrow stream.

    Args:
        pii: columns of which no values are kept.
        exact: whether distinct values are counted one by one where there are many: those columns are read twice.
        distinct: whether they are estimated there.

    Raises:
        UsageError: ``data`` is no table.
        DataError: it cannot be read.
    """
    from engine.profile.exact import counted

    with opened(data) as frame:
        with reading():
            made = Profiler(frame.collect_schema(), pii, distinct=distinct)
        with closing(batches(frame, made.columns, rows=made.batch_rows)) as found:
            for _, batch in found:
                made.add(batch)
        return counted(frame, made.profile()) if exact else made.profile()


def _empty(name: str, dtype: pl.DataType) -> ColumnProfile:
    kind = kind_of(dtype)
    found = ColumnProfile(name, str(dtype), kind)
    if kind in ("text", "bool"):
        found.categories = Categories()
    elif kind != "other":
        found.numbers = Numbers()
    return found


def kind_of(dtype: pl.DataType) -> Kind:
    """What values of a type are to a profile."""
    if dtype.is_integer():
        return "whole"
    if dtype.is_numeric():
        return "number"
    if dtype in (pl.String, pl.Categorical, pl.Enum):
        return "text"
    kinds: dict[Any, Kind] = {
        pl.Boolean: "bool",
        pl.Date: "date",
        pl.Datetime: "moment",
        pl.Time: "time",
        pl.Duration: "duration",
    }
    return kinds.get(dtype.base_type(), "other")


def _add(found: ColumnProfile, values: pl.Series, distinct: bool) -> None:
    if found.kind == "other":
        found.count += len(values) - values.null_count()
        found.nulls += values.null_count()
        return
    rows = len(values)
    if values.null_count():
        values = values.drop_nulls()
    if found.numbers is not None:
        count = _add_numbers(found, found.numbers, measured(values), distinct)
    else:
        count = len(values)
        if found.categories is not None and count:
            if found.kind == "bool":
                true = int(values.sum())
                found.categories.take((("true", true), ("false", count - true)))
            else:
                _add_texts(found, found.categories, values.cast(pl.String), distinct)
    found.count += count
    found.nulls += rows - count


def _add_numbers(found: ColumnProfile, numbers: Numbers, values: pl.Series, distinct: bool) -> int:
    floats = values if values.dtype == pl.Float64 else values.cast(pl.Float64)
    x = floats.to_numpy()
    if len(x) and x.min() != x.min():  # a NaN
        floats = floats.filter(floats.is_not_nan())
        x = floats.to_numpy()
    if not len(x):
        return 0
    if not distinct:
        numbers.add(x)
        return len(x)
    if found.kind != "number" and not found.rounded:
        found.rounded = bool(max(-x.min(), x.max()) > _EXACT_WHOLE)
    if found.hashes is None and (found.rounded or not numbers.exact):
        found.hashes = found.hashed()
    before = ColumnProfile(found.name, found.dtype, found.kind, numbers=_known(numbers)) if numbers.exact else None
    numbers.add(x)
    if found.hashes is None and not numbers.exact and before:
        found.hashes = before.hashed()
    if found.hashes is not None:
        found.hashes.add(hashes_of(floats if found.kind == "number" else values, found.kind))
    return len(x)


def _known(numbers: Numbers) -> Numbers:
    return Numbers(None, numbers.at, numbers.counts, below=numbers.below, above=numbers.above)


def _add_texts(found: ColumnProfile, categories: Categories, texts: pl.Series, distinct: bool) -> None:
    if categories.exact:
        known = list(categories.counts)
        categories.count(texts)
        if categories.exact or not distinct:
            return
        found.hashes = Distinct()
        found.hashes.add(hashes_of(pl.Series(known, dtype=pl.String), found.kind))
        found.hashes.add(hashes_of(texts, found.kind))
        return
    if not distinct:
        return  # there are too many: that is all that is asked
    hashes = hashes_of(texts, found.kind)
    categories.sift(texts, hashes)
    found.hashes = found.hashed()
    found.hashes.add(hashes)


def measured(values: pl.Series) -> pl.Series:
    """Values as numbers: whole ones as Int64 where they can be, others as Float64."""
    dtype = values.dtype
    if isinstance(dtype, pl.Datetime | pl.Duration):
        physical = values.to_physical()
        if dtype.time_unit == "ns":
            return physical // 1_000
        return physical * 1_000 if dtype.time_unit == "ms" else physical
    if dtype in (pl.Date, pl.Time):
        return values.to_physical().cast(pl.Int64)
    if dtype in (pl.Int128, pl.UInt128, pl.UInt64):  # equal hashes of equal values
        return values
    return values.cast(pl.Int64) if dtype.is_integer() else values.cast(pl.Float64)
