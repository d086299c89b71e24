"""How far two distributions of numbers lie apart, and how well that is known where they are known in pieces only.

Between the ends of a piece its numbers may lie anywhere. With all of them at the upper ends a distribution function is
as low as it can be, with all at the lower ends as high; the true one is between the two everywhere. From that follow
the least and the greatest that a distance can be. The figure itself is that of numbers spread evenly over their pieces.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from engine.profile import Pieces

Floats = NDArray[np.float64]


class Distance(NamedTuple):
    """A figure, and by how much it can be off."""

    value: float
    error: float


class Function(NamedTuple):
    """A distribution function at some points: as it is there, and as it is just before."""

    here: Floats
    before: Floats


class Known:
    """What is known of a distribution function."""

    def __init__(self, pieces: Pieces) -> None:
        self.pieces = pieces
        self.total = int(pieces.counts.sum())
        self._low = _steps(pieces.high, pieces.counts)
        self._high = _steps(pieces.low, pieces.counts)

    def least(self, x: Floats) -> Function:
        return _at(x, *self._low, self.total)

    def most(self, x: Floats) -> Function:
        return _at(x, *self._high, self.total)

    def even(self, x: Floats) -> Function:
        """With the numbers of a piece spread evenly."""
        low, high, counts = self.pieces
        wide = low < high
        steps = _at(x, *_steps(low[~wide], counts[~wide]), self.total)
        if not wide.any():
            return steps
        ends = np.cumsum(counts[wide])
        places = np.stack([low[wide], high[wide]], axis=1).ravel()
        sums = np.stack([ends - counts[wide], ends], axis=1).ravel()
        slope = np.interp(x, places, sums / self.total)
        return Function(steps.here + slope, steps.before + slope)

    def below(self, x: Floats) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """How many numbers are less than each, at least; and whether that is exact."""
        least = np.concatenate([[0], self._low[1]])[np.searchsorted(self._low[0], x, side="left")]
        most = np.concatenate([[0], self._high[1]])[np.searchsorted(self._high[0], x, side="left")]
        return least, least == most


def _steps(places: Floats, counts: NDArray[np.int64]) -> tuple[Floats, NDArray[np.int64]]:
    order = np.argsort(places, kind="stable")
    return places[order], np.cumsum(counts[order])


def _at(x: Floats, places: Floats, sums: NDArray[np.int64], total: int) -> Function:
    shares = np.concatenate([[0.0], sums / total])
    here, before = (np.searchsorted(places, x, side=side) for side in ("right", "left"))
    return Function(shares[here], shares[before])


def points(*known: Known) -> Floats:
    """Where the functions of distributions begin or end to rise, in order."""
    return np.unique(np.concatenate([ends for k in known for ends in (k.pieces.low, k.pieces.high)]))


def kolmogorov_smirnov(first: Known, second: Known) -> Distance:
    """The greatest difference of the distribution functions."""
    x = points(first, second)
    low_1, low_2, high_1, high_2 = first.least(x), second.least(x), first.most(x), second.most(x)
    least = max(_farthest(low_1, high_2), _farthest(low_2, high_1))
    most = max(_farthest(high_1, low_2), _farthest(high_2, low_1))
    even_1, even_2 = first.even(x), second.even(x)
    even = max(_farthest(even_1, even_2), _farthest(even_2, even_1))
    return _within(max(0.0, least), most, even)


def _farthest(one: Function, other: Function) -> float:
    return max(float(np.max(one.here - other.here)), float(np.max(one.before - other.before)))


def wasserstein(first: Known, second: Known) -> Distance:
    """The area between the distribution functions; infinite where their shares of an infinity differ."""
    x = points(first, second)
    ends = np.array([-math.inf, np.finfo(np.float64).max])
    (below_1, above_1), (below_2, above_2) = first.least(ends).here, second.least(ends).here
    if abs(below_1 - below_2) > 1e-15 or abs(above_1 - above_2) > 1e-15:
        return Distance(math.inf, 0.0)
    x = x[np.isfinite(x)]
    if len(x) < 2:
        return Distance(0.0, 0.0)
    low_1, low_2, high_1, high_2 = (
        f.here[:-1] for f in (first.least(x), second.least(x), first.most(x), second.most(x))
    )
    with np.errstate(over="ignore"):
        width = np.diff(x)
        least = float(np.maximum(np.maximum(low_1 - high_2, low_2 - high_1), 0.0) @ width)
        most = float(np.maximum(high_1 - low_2, high_2 - low_1) @ width)
        one, other = first.even(x), second.even(x)
        start, end = (one.here - other.here)[:-1], (one.before - other.before)[1:]
        even = float(_mean_size(start, end) @ width)
    return _within(least, most, even)


def _mean_size(start: Floats, end: Floats) -> Floats:
    """The mean of |f| over intervals on which f is straight."""
    plain = np.abs(start + end) / 2
    crossing = (start < 0) != (end < 0)
    apart = np.where(crossing, np.abs(start) + np.abs(end), 1.0)
    return np.where(crossing & (apart > 0), (start * start + end * end) / (2 * np.where(apart > 0, apart, 1.0)), plain)


def _within(least: float, most: float, even: float) -> Distance:
    value = min(max(even, least), most)
    if most - least <= 1e-12 * abs(most):  # rounding
        return Distance(value, 0.0)
    return Distance(value, max(most - value, value - least))


def noise(pieces: Pieces) -> float:
    """The mean area between the distribution functions of two samples of one distribution, of sizes n and m, is this
    times √(1/n + 1/m): √(2/π) ∫√(F(1-F)) dx, as del Barrio, Giné and Matrán (1999) have it."""
    known = Known(pieces)
    x = points(known)
    x = x[np.isfinite(x)]
    if len(x) < 2 or not known.total:
        return 0.0
    share = known.even(x).here[:-1]
    with np.errstate(over="ignore", invalid="ignore"):
        return float(math.sqrt(2 / math.pi) * (np.sqrt(np.clip(share * (1 - share), 0, None)) @ np.diff(x)))


def cuts(baseline: Known, current: Known, shares: Floats, wanted: Floats) -> Floats:
    """Numbers near the wanted ones at which it is exactly known how many of both samples are less.

    Args:
        shares: of the baseline that should be less than each.
        wanted: the quantiles themselves; each is taken where it will do.
    """
    low_b, high_b, low_c, high_c = *baseline.pieces[:2], *current.pieces[:2]
    beyond = (np.nextafter(high[high > low], math.inf) for low, high in ((low_b, high_b), (low_c, high_c)))
    offered = np.unique(np.concatenate([low_b, low_c, *beyond]))
    below, sure_b = baseline.below(offered)
    _, sure_c = current.below(offered)
    offered, below = offered[sure_b & sure_c], below[sure_b & sure_c]
    sure = baseline.below(wanted)[1] & current.below(wanted)[1]
    nearest = [int(np.argmin(np.abs(below - share * baseline.total))) for share in shares]
    return np.unique(np.where(sure, wanted, offered[nearest]))
