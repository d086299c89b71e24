"""Grids of cells that nest: a coarser one puts whole cells of a finer one together, so that counts stay exact."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Whole = NDArray[np.int64]
_BITS = (50, 10, 9, 8, 7, 6, 5, 4)  # grids to choose among: all cells alike, and ever fewer per power of two
_LOOKED_AT = 4_096  # values that a choice is made by
_LOWEST, _DEEPEST = -1_074, 1_000  # powers of two


@dataclass(frozen=True)
class Grid:
    """Cells by which numbers are counted, those below zero the mirror image of those above.

    A number of 2^e or more, below 2^(e+1), lies in a cell that is 2^max(step, e - bits) wide: alike near zero, and
    further out in proportion to the numbers. The cell around zero reaches to both sides.
    """

    step: int
    bits: int

    def index(self, x: Floats) -> Whole:
        """The cell of each finite number; cells are numbered in the order of their numbers."""
        y = x * 2.0**-self.step if abs(self.step) < 1_000 else np.ldexp(x, -self.step)
        limit = 2.0 ** (self.bits + 1)
        if not len(y):
            return y.astype(np.int64)
        low, high = y.min(), y.max()
        if -limit < low and high < limit:
            return y.astype(np.int64)
        size = np.abs(y) if low < 0 else y
        found = (size.view(np.int64) >> (52 - self.bits)) - ((1022 + self.bits) << self.bits)
        np.copyto(found, np.minimum(size, limit).astype(np.int64), where=size < limit)
        if low < 0:
            np.negative(found, out=found, where=y < 0)
        return found

    def bounds(self, index: Whole) -> tuple[Floats, Floats]:
        """The least and the greatest number of each cell."""
        size = np.abs(index)
        shift = np.maximum((size >> self.bits) - 1, 0)
        units = (size - (shift << self.bits)).astype(np.float64)
        power = (self.step + shift).astype(np.int32)
        with np.errstate(over="ignore"):
            near, beyond = np.ldexp(units, power), np.ldexp(units + 1, power)
        far = np.nextafter(beyond, 0.0)
        low = np.where(index > 0, near, -far)
        return low, np.where(index < 0, -near, far)

    def one(self, index: Whole) -> Floats:
        """A number of each cell: the one nearest to zero."""
        low, high = self.bounds(index)
        return np.where(index > 0, low, np.where(index < 0, high, 0.0))

    def joined(self, other: Grid) -> Grid:
        """The finest grid whose cells hold whole cells of both."""
        return Grid(max(self.step, other.step), min(self.bits, other.bits))

    def reaching(self, farthest: float) -> Grid:
        """This grid, or the finest one above it that tells numbers of that size from infinity."""
        return Grid(max(self.step, int(np.frexp(farthest)[1]) - _DEEPEST), self.bits)

    def coarser(self, index: Whole, counts: Whole, cells: int) -> Grid:
        """The next coarser grid: of the two there are, the one that hides less with few enough cells."""
        there = self.one(index)
        both = [Grid(self.step + 1, self.bits)]
        if self.bits > 0:
            both.append(Grid(self.step, self.bits - 1))

        def cost(grid: Grid) -> tuple[int, int]:
            starts = _starts(grid.index(there))
            return max(len(starts), cells * 9 // 10), int(np.add.reduceat(counts, starts).max())

        return min(both, key=cost)


def chosen(values: Floats, counts: Whole, cells: int) -> Grid:
    """A grid on which so many values, distinct and in order, lie in few enough cells, none of them with much in it."""
    every = max(1, -(-len(values) // _LOOKED_AT))
    values, counts = values[::every], counts[::every]
    farthest = int(np.frexp(np.abs(values).max())[1])
    deepest = max(_LOWEST, farthest - _DEEPEST)
    with np.errstate(all="ignore"):
        spread = float(np.sqrt(np.average((values - np.average(values, weights=counts)) ** 2, weights=counts)))
    found: list[tuple[float, Grid]] = []
    for bits in _BITS:
        low, high = deepest, farthest + 1
        while low < high:
            middle = (low + high) // 2
            if _cells(Grid(middle, bits), values) <= cells:
                high = middle
            else:
                low = middle + 1
        grid = Grid(low, bits)
        found.append((_blur(grid, values, counts, spread), grid))
    return min(found, key=lambda pair: pair[0])[1]


def _cells(grid: Grid, values: Floats) -> int:
    return 1 + int(np.count_nonzero(np.diff(grid.index(values))))


def _starts(index: Whole) -> Whole:
    """Where each cell begins among cells in order."""
    return np.flatnonzero(np.concatenate([[True], index[1:] != index[:-1]]))


def _blur(grid: Grid, values: Floats, counts: Whole, spread: float) -> float:
    """How much a grid hides: the share in the fullest cell, and the mean width of a value's cell in deviations."""
    index = grid.index(values)
    starts = _starts(index)
    shares = np.add.reduceat(counts, starts) / counts.sum()
    low, high = grid.bounds(index[starts])
    width = float(np.minimum((high - low), 1e300) @ shares)
    return float(shares.max()) + (width / spread if np.isfinite(spread) and spread > 0 else 0.0)
