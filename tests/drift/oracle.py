"""What SciPy and plain counting say of two samples."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from scipy.spatial.distance import jensenshannon
from scipy.stats import chi2_contingency, ks_2samp, wasserstein_distance


def psi(p: Any, q: Any) -> float:
    p, q = np.maximum(p, 1e-4), np.maximum(q, 1e-4)
    return float(((q - p) * np.log(q / p)).sum())


def js(p: Any, q: Any) -> float:
    return float(jensenshannon(p, q, base=2))


def d(a: Sequence[float], b: Sequence[float]) -> float:
    """Kolmogorov-Smirnov."""
    x, y = np.sort(np.array(a, np.float64)), np.sort(np.array(b, np.float64))
    every = np.concatenate([x, y])
    return float(max(abs(np.searchsorted(x, every, "right") / len(x) - np.searchsorted(y, every, "right") / len(y))))


def numbers(a: Sequence[float], b: Sequence[float], bins: int = 10) -> dict[str, float]:
    """Statistics of two samples of numbers, none of them NaN."""
    x, y = np.array(a, np.float64), np.array(b, np.float64)
    with np.errstate(all="ignore"):  # of one value and one, SciPy has no p-value
        test = ks_2samp(x, y, method="asymp")
    edges = np.unique(np.quantile(x, np.arange(1, bins) / bins))
    ends = [-np.inf, *edges, np.inf]
    counts = [[int(((s >= low) & (s < high)).sum()) for low, high in pairwise(ends)] for s in (x, y)]
    for row, sample in zip(counts, (x, y), strict=True):
        row[-1] += int((sample == np.inf).sum())
    p, q = (np.array(row) / sum(row) for row in counts)
    found = {"ks": float(test.statistic), "ks_p_value": float(test.pvalue), "psi": psi(p, q), "js": js(p, q)}
    found["wasserstein"] = float(wasserstein_distance(x, y)) if np.isfinite([*x, *y]).all() else float("nan")
    return found


def categories(a: Sequence[str], b: Sequence[str]) -> dict[str, float]:
    """Statistics of two samples of categories."""
    before, now = Counter(a), Counter(b)
    names = sorted({*before, *now})
    x, y = np.array([before[n] for n in names]), np.array([now[n] for n in names])
    p, q = x / x.sum(), y / y.sum()
    found = {"psi": psi(p, q), "js": js(p, q), "chi_square": 0.0, "chi_square_p_value": 1.0}
    if len(names) > 1:
        test = chi2_contingency(np.stack([x, y]), correction=False)
        found |= {"chi_square": float(test.statistic), "chi_square_p_value": float(test.pvalue)}
    found |= {
        "new_categories": sum(n not in before for n in now),
        "vanished_categories": sum(n not in now for n in before),
    }
    return found
