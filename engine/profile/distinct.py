"""How many distinct values there are, estimated in 4 KiB (HyperLogLog, with Ertl's estimator of 2017)."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from engine.profile.packing import packed, unpacked

_REGISTERS = 4_096
_RANKS = 53  # of the 52 bits of a hash that do not choose the register
ERROR = 1.04 / math.sqrt(_REGISTERS)  # standard error, as a share of the estimate
_PROBE = pl.Series(["maestro", "", "é"]), pl.Series([0, 1, -1]), pl.Series([0.5, math.inf])


def hashing() -> str:
    """Names the way in which this version of Polars makes hashes, which is not that of all versions."""
    return "-".join(format(int(series.hash().to_numpy()[0]) >> 40, "x") for series in _PROBE)


@dataclass
class Distinct:
    """The ranks of hashes that were seen.

    Attributes:
        way: that hashes were made in; ranks of different ways cannot be put together.
        known: False once such have been: the estimate is the least there can be.
    """

    ranks: NDArray[np.uint8] = field(default_factory=lambda: np.zeros(_REGISTERS, np.uint8))
    way: str = field(default_factory=hashing)
    known: bool = True

    def add(self, hashes: NDArray[np.uint64]) -> None:
        """Takes note of hashes."""
        if least := int(self.ranks.min()):
            hashes = hashes[hashes < np.uint64(1 << (64 - least))]  # no other changes a rank
        if not len(hashes):
            return
        _, exponents = np.frexp((hashes >> np.uint64(12)).astype(np.float64))
        ranks = (_RANKS - exponents).astype(np.uint8)
        np.maximum.at(self.ranks, (hashes & np.uint64(_REGISTERS - 1)).astype(np.int64), ranks)

    def merged(self, other: Distinct) -> Distinct:
        """Of the values of both."""
        if self.way == other.way and self.known and other.known:
            return Distinct(np.maximum(self.ranks, other.ranks), self.way)
        larger = max(self, other, key=Distinct.estimate)
        return Distinct(larger.ranks.copy(), larger.way, known=False)

    def estimate(self) -> int:
        """How many distinct values there were."""
        counts = np.bincount(self.ranks, minlength=_RANKS + 1).tolist()
        z = _REGISTERS * _tau(1 - counts[_RANKS] / _REGISTERS)
        for count in reversed(counts[1:_RANKS]):
            z = (z + count) / 2
        z += _REGISTERS * _sigma(counts[0] / _REGISTERS)
        return round(_REGISTERS**2 / (2 * math.log(2) * z)) if math.isfinite(z) else 0

    def to_dict(self) -> dict[str, Any]:
        return {"way": self.way, "known": self.known, "ranks": packed(self.ranks)}

    @classmethod
    def from_dict(cls, found: dict[str, Any]) -> Distinct:
        return cls(unpacked(found["ranks"], np.uint8), found["way"], found["known"])


def _sigma(x: float) -> float:
    if x == 1:
        return math.inf
    y, z, before = 1.0, x, -1.0
    while z != before:
        x *= x
        before = z
        z += x * y
        y += y
    return z


def _tau(x: float) -> float:
    if x in (0.0, 1.0):
        return 0.0
    y, z, before = 1.0, 1 - x, -1.0
    while z != before:
        x = math.sqrt(x)
        before = z
        y /= 2
        z -= (1 - x) ** 2 * y
    return z / 3
