"""What a profile tells of one column."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from typing import Any, Literal

import numpy as np
import polars as pl

from engine.profile.categories import Categories
from engine.profile.distinct import ERROR, Distinct
from engine.profile.numbers import Numbers
from engine.types import FIRST_MOMENT, LAST_MOMENT

Kind = Literal["number", "whole", "date", "moment", "time", "duration", "text", "bool", "other"]
QUANTILES = (0.01, 0.05, 0.1, 0.2, 0.25, 0.3, 0.4, 0.5, 0.6, 0.7, 0.75, 0.8, 0.9, 0.95, 0.99)
_TOP = 10
_BARS = 20
_SHOWN = 200  # letters of a text


@dataclass
class ColumnProfile:
    """What is known of a column; NaN is null.

    Attributes:
        kind: what its values are; as numbers, dates are days since 1970, moments microseconds since then, durations
            microseconds, times of day nanoseconds.
        count: values that are not null.
        numbers: the distribution of numbers, moments and the like; None of other kinds.
        categories: of texts, and of true and false.
        hashes: for the number of distinct values; None while it is known exactly.
        counted: how many distinct values there are, where they were counted one by one.
        pii: whether nothing may be kept by which a value could be known.
        rounded: whether there were whole numbers that no 64-bit float holds.
    """

    name: str
    dtype: str
    kind: Kind
    count: int = 0
    nulls: int = 0
    numbers: Numbers | None = None
    categories: Categories | None = None
    hashes: Distinct | None = None
    counted: int | None = None
    pii: bool = False
    rounded: bool = False

    @property
    def rows(self) -> int:
        return self.count + self.nulls

    @property
    def null_fraction(self) -> float | None:
        return self.nulls / self.rows if self.rows else None

    @property
    def distinct(self) -> int | None:
        """How many distinct values there are; None where that is not known."""
        if self.counted is not None:
            return self.counted
        if self.hashes is not None:
            return min(self.hashes.estimate(), self.count)
        if self.numbers is not None and self.numbers.exact:
            return len(self.numbers.at) + (self.numbers.below > 0) + (self.numbers.above > 0)
        return len(self.categories.counts) if self.categories and self.categories.exact else None

    @property
    def distinct_error(self) -> float | None:
        """The standard error of `distinct` as a share of it; 0 where it is exact; None where it is just the least."""
        if self.counted is not None or (self.hashes is None and self.distinct is not None):
            return 0.0
        return ERROR if self.hashes and self.hashes.known else None

    @property
    def counted_distinct(self) -> int | None:
        """`distinct` where it is exact."""
        return self.distinct if self.distinct_error == 0.0 else None

    def value(self, number: float | None) -> Any:
        """A number as a value of this column, JSON-ready."""
        return shown(number, self.kind, aware="time_zone=None" not in self.dtype)

    def quantile(self, share: float) -> float | None:
        """The quantile, linear between two values, of which each is exact or off by its cell at most."""
        return quantiles(self.numbers, [share])[0] if self.numbers and self.count else None

    def merged(self, other: ColumnProfile) -> ColumnProfile:
        """Of the rows of both."""
        kinds = {c.kind for c in (self, other) if c.count} or {self.kind}
        found = ColumnProfile(
            self.name,
            self.dtype if self.count or not other.count else other.dtype,
            _common(kinds),
            self.count + other.count,
            self.nulls + other.nulls,
            pii=self.pii or other.pii,
            rounded=self.rounded or other.rounded,
        )
        if not (self.count and other.count):
            one = self if self.count else other
            return replace(one, nulls=found.nulls, pii=found.pii, name=self.name)
        if self.numbers is not None and other.numbers is not None and found.kind != "other":
            found.numbers = self.numbers.merged(other.numbers)
            if found.rounded or not found.numbers.exact:
                found.hashes = self._hashes_with(other)
        elif self.categories is not None and other.categories is not None:
            found.categories = self.categories.merged(other.categories)
            if not found.categories.exact:
                found.hashes = self._hashes_with(other)
        elif self.hashes is not None and other.hashes is not None:
            found.hashes = self._hashes_with(other)
        return found

    def _hashes_with(self, other: ColumnProfile) -> Distinct:
        found = self.hashed().merged(other.hashed())
        return found if self.kind == other.kind else replace(found, known=False)

    def hashed(self) -> Distinct:
        """The hashes of the values, also while they are all known."""
        if self.hashes is not None:
            return self.hashes
        known = (self.numbers or self.categories or Numbers()).exact
        found = Distinct(known=known)
        if self.numbers is not None:
            found.add(hashes_of(pl.Series(_numbers(self.numbers)), self.kind))
        elif self.categories is not None:
            found.add(hashes_of(pl.Series(list(self.categories.counts), dtype=pl.String), self.kind))
        return found

    def without_values(self) -> ColumnProfile:
        """What may be kept of a column tagged ``pii``: nothing by which a value could be known."""
        kept = replace(self, pii=True, numbers=None, categories=None)
        if self.kind != "other":
            kept.hashes, kept.counted = self.hashed(), self.counted or (self.distinct if not self.hashes else None)
        return kept

    def summary(self) -> dict[str, Any]:
        """What people read, JSON-ready."""
        found: dict[str, Any] = {
            "name": self.name,
            "dtype": self.dtype,
            "kind": self.kind,
            "count": self.count,
            "nulls": self.nulls,
            "null_fraction": self.null_fraction,
            "distinct": self.distinct,
            "distinct_error": self.distinct_error,
            "pii": self.pii,
        }
        if self.numbers is not None:
            found |= self._of_numbers(self.numbers)
        if self.categories is not None:
            ordered = self.categories.top(_TOP)
            found["top"] = [{"value": text[:_SHOWN], "count": n} for text, n in ordered]
            found["top_error"] = self.categories.missed
        return found

    def _of_numbers(self, numbers: Numbers) -> dict[str, Any]:
        ends = numbers.ends
        low, high = ends if ends else (None, None)
        points = quantiles(numbers, QUANTILES) if numbers.count else []
        plain = self.kind in ("number", "whole")
        second = {"duration": 1e6, "moment": 1e6, "time": 1e9}.get(self.kind, 1.0)
        found: dict[str, Any] = {
            "min": self.value(low),
            "max": self.value(high),
            "mean": _finite(numbers.mean) if plain else self.value(numbers.mean),
            "std": None if numbers.std is None else _finite(numbers.std / second),
            "quantiles": [[share, self.value(x)] for share, x in zip(QUANTILES, points, strict=False)],
            "quantile_error": rank_error(numbers),
        }
        pieces = numbers.pieces()
        single = np.flatnonzero(pieces.low == pieces.high)
        most = single[np.argsort(-pieces.counts[single], kind="stable")[:_TOP]]
        some = [(float(pieces.low[i]), int(pieces.counts[i])) for i in most if pieces.counts[i] > 1 or numbers.exact]
        found["top"] = [{"value": self.value(value), "count": n} for value, n in some]
        found["top_error"] = 0
        edges, counts = bars(numbers)
        found["histogram"] = {"edges": [self.value(edge) for edge in edges], "counts": counts}
        return found

    def to_dict(self) -> dict[str, Any]:
        """`summary`, and what a profile is made anew from."""
        state = {
            "numbers": self.numbers.to_dict() if self.numbers else None,
            "categories": self.categories.to_dict() if self.categories else None,
            "hashes": self.hashes.to_dict() if self.hashes else None,
            "counted": self.counted,
            "rounded": self.rounded,
        }
        return self.summary() | {"state": state}

    @classmethod
    def from_dict(cls, found: dict[str, Any]) -> ColumnProfile:
        state = found["state"]
        return cls(
            found["name"],
            found["dtype"],
            found["kind"],
            found["count"],
            found["nulls"],
            Numbers.from_dict(state["numbers"]) if state["numbers"] else None,
            Categories.from_dict(state["categories"]) if state["categories"] else None,
            Distinct.from_dict(state["hashes"]) if state["hashes"] else None,
            state["counted"],
            found["pii"],
            state["rounded"],
        )


def hashes_of(values: pl.Series, kind: str) -> Any:
    """Hashes by which equal values of a kind are equal, in whichever batch they come."""
    if kind not in ("number", "text", "bool", "other") and values.dtype.is_float():
        values = values.filter(values.is_finite()).cast(pl.Int64)
    return values.hash().to_numpy()


def _common(kinds: set[Kind]) -> Kind:
    if len(kinds) == 1:
        return next(iter(kinds))
    return "number" if kinds == {"number", "whole"} else "other"


def _numbers(numbers: Numbers) -> Any:
    ends = [math.inf] * (numbers.above > 0) + [-math.inf] * (numbers.below > 0)
    return np.concatenate([numbers.at, np.array(ends, np.float64)])


def _finite(number: float | None) -> float | str | None:
    return number if number is None or math.isfinite(number) else None if math.isnan(number) else str(number)


def shown(number: float | None, kind: str, *, aware: bool = True) -> Any:
    """A number as JSON has values of a kind."""
    if number is None or math.isnan(number):
        return None
    if math.isinf(number):
        return str(number)
    if kind == "whole" and number == int(number):
        return int(number)
    if kind == "duration":
        return number / 1e6
    if kind == "time":
        return str(timedelta(microseconds=int(number // 1000)))
    if kind in ("date", "moment"):
        micros = int(number) * 86_400_000_000 if kind == "date" else int(number)
        if not FIRST_MOMENT <= micros <= LAST_MOMENT:
            return f"{int(number)} {'days' if kind == 'date' else 'us'} since 1970-01-01"
        moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=micros)
        text = (date(moment.year, moment.month, moment.day) if kind == "date" else moment).isoformat()
        return text.replace("+00:00", "Z" if aware else "")
    return number


def quantiles(numbers: Numbers, shares: Sequence[float]) -> list[float]:
    """Linear quantiles; within a cell, values are taken to lie evenly."""
    low, high, counts = numbers.pieces()
    ends = np.cumsum(counts)
    total = int(ends[-1])

    def at(rank: int) -> float:
        i = int(np.searchsorted(ends, rank, side="right"))
        if low[i] == high[i]:
            return float(low[i])
        part = (rank - (ends[i] - counts[i]) + 0.5) / counts[i]
        return float(low[i] * (1 - part) + high[i] * part)

    found = []
    for share in shares:
        place = (total - 1) * share
        rank = min(int(place), total - 1)
        here, next_ = at(rank), at(min(rank + 1, total - 1))
        part = place - rank
        found.append(linear(here, next_, part))
    return found


def linear(low: float, high: float, part: float) -> float:
    """Between two numbers, and never beyond either."""
    if part == 0 or low == high:
        return low
    apart = high - low
    if math.isinf(apart):
        return float(low) * (1 - float(part)) + float(high) * float(part)  # NaN between the two infinities
    return low + apart * part if part < 0.5 else high - apart * (1 - part)


def rank_error(numbers: Numbers) -> float:
    """By how much of all values the rank of a quantile can be off: the fullest cell that holds several numbers."""
    low, high, counts = numbers.pieces()
    wide = counts[low < high]
    return float(wide.max() / counts.sum()) if len(wide) else 0.0


def bars(numbers: Numbers) -> tuple[list[float], list[int]]:
    """A histogram: edges and how many values lie from each up to the next, the last one included; all exact.

    Between the 1 % and the 99 % quantile the edges are about evenly spaced; the first and last bars take the rest.
    """
    if not numbers.moments.count:
        return [], []
    low, high, counts = numbers.pieces()
    inside = np.isfinite(low)
    low, high, counts = low[inside], high[inside], counts[inside]
    first, last = np.searchsorted(np.cumsum(counts), [0.01 * counts.sum(), 0.99 * counts.sum()])
    start, end = float(low[first]), float(high[min(int(last), len(high) - 1)])
    with np.errstate(over="ignore", invalid="ignore"):
        wanted = start + (end - start) * np.arange(1, _BARS) / _BARS
    wanted = np.concatenate([[start], wanted[np.isfinite(wanted)], [end]])
    cuts = np.unique(np.searchsorted(low, wanted))  # a bar begins where a piece does
    cuts = cuts[(cuts > 0) & (cuts < len(low))]
    # A number of its own that lies within a cell may be on either side of an edge: such edges are left out.
    cuts = np.array([cut for cut in cuts if high[:cut].max() < low[cut:].min()], np.int64)
    sums = np.add.reduceat(counts, np.concatenate([[0], cuts]))
    edges = [float(low[0]), *(float(low[cut]) for cut in cuts), float(high.max())]
    return edges, [int(n) for n in sums]
