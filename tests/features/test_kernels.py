"""The compiled kernels against numpy, with few rows in a window and with many, few values and many."""

from __future__ import annotations

import numpy as np
import pytest

from engine.features.history import kernels


@pytest.mark.parametrize("rows", [0, 1, 40, 2_000])
@pytest.mark.parametrize("values", [3, 400])
@pytest.mark.parametrize("window", [1, 30, 10**9])
def test_windows_hold_what_numpy_finds(rows: int, values: int, window: int) -> None:
    rng = np.random.default_rng(rows + values + window)
    entities = 4  # the last has no rows
    ids, moments = rng.integers(0, 3, rows).astype(np.int32), rng.integers(0, 120, rows)
    numbers = rng.integers(0, values, rows) / 7
    ends = np.unique(rng.integers(-5, 130, 25))
    starts = ends - window if window < 10**9 else np.full(len(ends), np.iinfo(np.int64).min)
    offsets, order = kernels.order(ids, moments, entities)
    rank, distinct, counts = kernels.ranks(offsets, numbers[order])
    quantiles, there = kernels.quantiles(offsets, moments[order], numbers[order], starts, ends, 0.3)
    modes, found = kernels.modes(offsets, moments[order], rank, distinct, counts, starts, ends)
    held = kernels.distincts(offsets, moments[order], rank, counts, starts, ends)
    for i, (start, end) in enumerate(zip(starts, ends, strict=True)):
        for e in range(entities):
            window_of = np.sort(numbers[(ids == e) & (moments > start) & (moments <= end)])
            kinds, times = np.unique(window_of, return_counts=True)
            assert held[i, e] == len(kinds)
            assert bool(there[i, e]) == bool(found[i, e]) == bool(len(window_of))
            if len(window_of):
                assert quantiles[i, e] == pytest.approx(np.quantile(window_of, 0.3), rel=1e-12, abs=1e-12)
                assert modes[i, e] == kinds[np.argmax(times)]
