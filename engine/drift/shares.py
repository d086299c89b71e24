"""How far two lists of shares lie apart: of bins, or of categories."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from engine.drift.chance import chi_square, chi_square_beyond

FLOOR = 1e-4  # of a share in the PSI
_RARELY = 3.090  # what a normal value exceeds once in a thousand times
_FEWEST = 5  # of either side in a group, on average: of fewer, nothing is told

Counts = NDArray[np.int64]


class ChiSquare(NamedTuple):
    statistic: float
    freedom: int
    p_value: float


def psi(baseline: Counts, current: Counts, n: int = 0, m: int = 0) -> float:
    """The population stability index; each share is `FLOOR` at least, and they are not made to add up to 1 again.

    Args:
        n, m: the sizes of the samples, where these are not all the counts there are.
    """
    p, q = (np.maximum(c / (total or c.sum()), FLOOR) for c, total in ((baseline, n), (current, m)))
    return float(((q - p) * np.log(q / p)).sum())


def divergence(baseline: Counts, current: Counts, n: int = 0, m: int = 0) -> float:
    """The Jensen-Shannon divergence, base 2; arguments as of `psi`."""
    p, q = baseline / (n or baseline.sum()), current / (m or current.sum())
    middle = (p + q) / 2

    def part(x: NDArray[np.float64]) -> float:
        there = x > 0
        return float((x[there] * np.log(x[there] / middle[there])).sum())

    return (part(p) + part(q)) / 2 / math.log(2)


def jensen_shannon(baseline: Counts, current: Counts) -> float:
    """The Jensen-Shannon distance, base 2: the root of the divergence, from 0 to 1."""
    return math.sqrt(max(0.0, divergence(baseline, current)))


def square(baseline: Counts, current: Counts, n: int = 0, m: int = 0) -> float:
    """Pearson's chi-square of a table of two rows, without correction; arguments as of `psi`."""
    n, m = n or int(baseline.sum()), m or int(current.sum())
    both = (baseline + current).astype(np.float64)
    seen = both > 0
    found = 0.0
    for counts, total in ((baseline, n), (current, m)):
        expected = both[seen] * (total / (n + m))
        found += float(((counts[seen] - expected) ** 2 / expected).sum())
    return found


def homogeneity(baseline: Counts, current: Counts) -> ChiSquare:
    """Whether two lists of counts are of one distribution (Pearson, 1900)."""
    freedom = int(((baseline > 0) | (current > 0)).sum()) - 1
    if freedom < 1:
        return ChiSquare(0.0, 0, 1.0)
    statistic = square(baseline, current)
    return ChiSquare(statistic, freedom, chi_square(statistic, freedom))


def chance(groups: int, baseline: int, current: int) -> tuple[float, float]:
    """The PSI and the Jensen-Shannon distance that two samples of one distribution exceed once in a thousand times.

    They are infinite where there are too few values for so many groups.

    For shares that are nearly the same, both follow chi-square: PSI ≈ χ² (1/n + 1/m), JS² ≈ PSI / (8 ln 2).
    """
    if groups < 2:
        return 0.0, 0.0
    if min(baseline, current) < _FEWEST * groups:
        return math.inf, math.inf
    index = chi_square_beyond(groups - 1, _RARELY) * (1 / baseline + 1 / current)
    return index, min(1.0, math.sqrt(index / (8 * math.log(2))))
