"""How often the values of a column of texts occur, counted in one pass and in bounded memory."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

KEPT = 1_000  # distinct values; of more, the frequent ones
_LETTERS = 100_000  # of all values kept
_BUCKETS = 4_096


@dataclass
class Categories:
    """Every distinct value with its count while they are few; then the frequent ones, ``missed`` too low at most.

    A value that is not kept occurs ``missed`` times at most (as of Misra and Gries, 1982).
    """

    counts: dict[str, int] = field(default_factory=dict)
    exact: bool = True
    missed: int = 0

    def count(self, values: pl.Series) -> None:
        """Counts values, none of them null, while every one is known."""
        found = values.rename("value").value_counts(name="n")
        if found.height > 4 * KEPT:  # many more than are kept
            found = found.top_k(4 * KEPT, by="n")
            self.missed += int(found["n"].min())  # type: ignore[arg-type]
        self.take(found.iter_rows())

    def sift(self, values: pl.Series, hashes: NDArray[np.uint64]) -> None:
        """Counts those of the values, none of them null and given with their hashes, that may be frequent."""
        fewest = len(values) // KEPT
        buckets = ((hashes >> np.uint64(20)) & np.uint64(_BUCKETS - 1)).astype(np.int64)
        full = np.bincount(buckets, minlength=_BUCKETS) > fewest  # only a value in a full bucket can be
        self.missed += fewest
        if full.any():
            values = values if full.all() else values.filter(pl.Series(full[buckets]))
            self.take(values.rename("value").value_counts(name="n").filter(pl.col("n") > fewest).iter_rows())

    def take(self, found: Iterable[tuple[str, int]]) -> None:
        """Values and how often each occurs; none is counted that does not."""
        for value, n in found:
            if n:
                self.counts[value] = self.counts.get(value, 0) + n
        self._bound()

    def _bound(self) -> None:
        """Drops what is rare once there is too much."""
        if len(self.counts) <= KEPT and sum(map(len, self.counts)) <= _LETTERS:
            return
        ordered = sorted(self.counts.items(), key=lambda item: (-item[1], item[0]))
        letters, kept = 0, 0
        for value, _ in ordered[:KEPT]:
            letters += len(value)
            if letters > _LETTERS:
                break
            kept += 1
        self.missed += ordered[kept][1] if kept < len(ordered) else 0
        self.exact = False
        self.counts = dict(ordered[:kept])

    def merged(self, other: Categories) -> Categories:
        """Of the values of both."""
        counts = dict(self.counts)
        for value, n in other.counts.items():
            counts[value] = counts.get(value, 0) + n
        found = Categories(counts, self.exact and other.exact, self.missed + other.missed)
        found._bound()
        return found

    def top(self, few: int) -> list[tuple[str, int]]:
        """The most frequent values, ties in their order."""
        sure = ((value, n) for value, n in self.counts.items() if n > self.missed)
        return sorted(sure, key=lambda item: (-item[1], item[0]))[:few]

    def to_dict(self) -> dict[str, Any]:
        return {"counts": dict(self.top(KEPT)), "exact": self.exact, "missed": self.missed}

    @classmethod
    def from_dict(cls, found: dict[str, Any]) -> Categories:
        return cls(dict(found["counts"]), found["exact"], found["missed"])
