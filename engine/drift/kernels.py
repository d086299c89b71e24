"""Compiled loops over sorted numbers; compiled once, then kept on disk.

Nothing but exact drift imports this: numba takes more than half a second to load.
"""

from __future__ import annotations

from typing import Any

from engine.errors import MissingExtra

try:
    from numba import njit
except ImportError:
    raise MissingExtra("numba", "drift", "exact drift") from None

# What `advance` goes on from: values done of both samples, the last value, D, the area.
START = (0, 0, 0.0, 0.0, 0.0)


@njit(cache=True, nogil=True)
def advance(a: Any, b: Any, n: int, m: int, i0: int, j0: int, last: float, d: float, area: float) -> Any:
    """Goes on with the greatest difference of two distribution functions and the area between them.

    Args:
        a, b: the next values of two samples, finite and in order; none is less than ``last``, unless these are the
            first.
        n, m: the sizes of the samples.
        i0, j0: how many values are done.
    """
    i, j = 0, 0
    difference = i0 / n - j0 / m
    while i < len(a) or j < len(b):
        x = a[i] if j >= len(b) or (i < len(a) and a[i] <= b[j]) else b[j]
        if difference != 0.0:
            area += abs(difference) * (x - last)
        while i < len(a) and a[i] == x:
            i += 1
        while j < len(b) and b[j] == x:
            j += 1
        difference = (i0 + i) / n - (j0 + j) / m
        if abs(difference) > d:
            d = abs(difference)
        last = x
    return i0 + i, j0 + j, last, d, area


@njit(cache=True, nogil=True)
def advance_weighted(
    a: Any, wa: Any, b: Any, wb: Any, n: int, m: int, i0: int, j0: int, last: float, d: float, area: float
) -> Any:
    """As `advance`, of values with their counts; a value may stand there more than once."""
    i, j = 0, 0
    difference = i0 / n - j0 / m
    while i < len(a) or j < len(b):
        x = a[i] if j >= len(b) or (i < len(a) and a[i] <= b[j]) else b[j]
        if difference != 0.0:
            area += abs(difference) * (x - last)
        while i < len(a) and a[i] == x:
            i0 += wa[i]
            i += 1
        while j < len(b) and b[j] == x:
            j0 += wb[j]
            j += 1
        difference = i0 / n - j0 / m
        if abs(difference) > d:
            d = abs(difference)
        last = x
    return i0, j0, last, d, area
