"""The distribution of a column of numbers, counted in one pass and in bounded memory."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from engine.profile.grid import Floats, Grid, Whole, chosen
from engine.profile.packing import differences, packed, summed, unpacked

CELLS = 2_048  # kept at most
_AIM = 1_024  # where cells are chosen by a part of the rows
_SLICE = 32_768  # numbers that the processor's caches hold, with what is made of them
_SPIKES = 16  # values with a cell of their own
_SPIKE = 1 / 200  # of the rows: what makes a value one
_NOTHING = np.empty(0, np.float64)


class Pieces(NamedTuple):
    """A distribution in pieces: ``counts`` values between ``low`` and ``high``, both included; in order of the middles.

    One of a single value has ``low == high``, and is exact.
    """

    low: Floats
    high: Floats
    counts: Whole


@dataclass
class Moments:
    """Count, mean and squared deviations of finite numbers; put together as by Chan, Golub and LeVeque (1979)."""

    count: int = 0
    mean: float = 0.0
    squares: float = 0.0

    @classmethod
    def of(cls, x: Floats, low: float, high: float) -> Moments:
        """Of numbers, at least one, whose least and greatest are known."""
        if low == high:
            return cls(len(x), low, 0.0)
        with np.errstate(over="ignore", invalid="ignore"):
            mean = float(x.mean())
            off = x - mean
            return cls(len(x), mean, float(np.einsum("i,i", off, off)))  # not BLAS, whose threads spin

    def merged(self, other: Moments) -> Moments:
        count = self.count + other.count
        if not (self.count and other.count):
            return self if self.count else other
        apart = other.mean - self.mean
        mean = self.mean + apart * (other.count / count)
        return Moments(count, mean, self.squares + other.squares + apart * apart * self.count / count * other.count)


@dataclass
class Numbers:
    """Every distinct number with its count while they are few; then counts by the cells of a grid.

    What is counted is exact, whatever was put together in which order: only how finely can differ.

    Attributes:
        grid: None while every number is known.
        at: the numbers, or the cells, in order.
        counts: of each, without the spikes of a cell.
        spikes: numbers that were frequent when the grid was chosen, one per cell at most, in order.
        spiked: how often each occurs.
        below, above: how many are -∞ and ∞.
    """

    grid: Grid | None = None
    at: Any = field(default_factory=_NOTHING.copy)
    counts: Whole = field(default_factory=lambda: np.empty(0, np.int64))
    spikes: Floats = field(default_factory=_NOTHING.copy)
    spiked: Whole = field(default_factory=lambda: np.empty(0, np.int64))
    moments: Moments = field(default_factory=Moments)
    below: int = 0
    above: int = 0
    least: float = math.inf
    greatest: float = -math.inf

    @property
    def exact(self) -> bool:
        """Whether every number is known with its count."""
        return self.grid is None

    @property
    def count(self) -> int:
        return self.moments.count + self.below + self.above

    @property
    def farthest(self) -> float:
        """The size of the finite number farthest from zero."""
        return max(-self.least, self.greatest, 0.0)

    def add(self, x: Floats) -> None:
        """Counts numbers, none of them NaN."""
        if not len(x):
            return
        if self.grid is not None and len(x) > _SLICE:
            for start in range(0, len(x), _SLICE):
                self.add(x[start : start + _SLICE])
            return
        low, high = float(x.min()), float(x.max())
        if math.isinf(low) or math.isinf(high):
            self.below += int(np.count_nonzero(x == -math.inf))
            self.above += int(np.count_nonzero(x == math.inf))
            x = x[np.isfinite(x)]
            if not len(x):
                return
            low, high = float(x.min()), float(x.max())
        with np.errstate(over="ignore", invalid="ignore"):
            self.moments = self.moments.merged(Moments.of(x, low, high))
        self.least, self.greatest = min(self.least, low), max(self.greatest, high)
        if self.grid is None:
            self._add_values(x, low, high)
        else:
            self._reach()
            self._add_cells(x)
        while len(self.at) > CELLS:
            self._coarsen()

    def _add_values(self, x: Floats, low: float, high: float) -> None:
        if high - low < len(x) and bool((np.floor(x) == x).all()):
            found = np.bincount((x - low).astype(np.int64))
            there = np.flatnonzero(found)
            values, counts = there + low, found[there]
        else:
            values, counts = np.unique(x + 0.0, return_counts=True)
        self.at, self.counts = _together(self.at, self.counts, values, counts)
        if len(self.at) > CELLS:
            frequent = np.argsort(-self.counts, kind="stable")[:_SPIKES]
            frequent = frequent[self.counts[frequent] >= _SPIKE * self.counts.sum()]
            grid = chosen(self.at, self.counts, _AIM)
            self._take(_on(self, grid, self.at[frequent]))

    def _reach(self) -> None:
        assert self.grid is not None  # noqa: S101 - asked for nowhere else
        wider = self.grid.reaching(self.farthest)
        if wider != self.grid:
            self._take(_on(self, wider, self.spikes))

    def _add_cells(self, x: Floats) -> None:
        assert self.grid is not None  # noqa: S101 - asked for nowhere else
        index = self.grid.index(x)
        low, high = int(index.min()), int(index.max())
        if high - low > 4 * len(x) + 65_536:
            cells, counts = np.unique(index, return_counts=True)
            spiked = np.array([np.count_nonzero(x == spike) for spike in self.spikes], np.int64)
        else:
            near = index - low
            every = np.bincount(near, minlength=high - low + 1)
            cells = np.flatnonzero(every)
            counts = every[cells]
            cells = cells + low
            spiked = self._spiked(x, near, low, high)
        if len(spiked):
            self.spiked = self.spiked + spiked
            hit = spiked > 0
            counts[np.searchsorted(cells, self.grid.index(self.spikes[hit]))] -= spiked[hit]
            cells, counts = cells[counts > 0], counts[counts > 0]
        self.at, self.counts = _together(self.at, self.counts, cells, counts)

    def _spiked(self, x: Floats, near: Whole, low: int, high: int) -> Whole:
        """How often each spike occurs among numbers in the cells from ``low`` to ``high``."""
        if self.grid is None or not len(self.spikes):
            return np.empty(0, np.int64)
        cells = self.grid.index(self.spikes) - low
        inside = (cells >= 0) & (cells <= high - low)
        wanted = np.full(high - low + 1, np.nan)
        wanted[cells[inside]] = self.spikes[inside]
        counts = np.bincount(near[wanted[near] == x], minlength=high - low + 1)
        return np.where(inside, counts[np.clip(cells, 0, high - low)], 0)

    def _coarsen(self) -> None:
        assert self.grid is not None  # noqa: S101 - asked for nowhere else
        self._take(_on(self, self.grid.coarser(self.at, self.counts, CELLS), self.spikes))

    def _take(self, other: Numbers) -> None:
        self.grid, self.at, self.counts = other.grid, other.at, other.counts
        self.spikes, self.spiked = other.spikes, other.spiked

    def merged(self, other: Numbers) -> Numbers:
        """Of the numbers of both."""
        grids = [n.grid for n in (self, other) if n.grid is not None]
        if grids:
            grid = grids[0].joined(grids[-1]).reaching(max(self.farthest, other.farthest))
            spikes = np.union1d(self.spikes, other.spikes)
            spikes = spikes[_knows(self, grid, spikes) & _knows(other, grid, spikes)]
            a, b = _on(self, grid, spikes), _on(other, grid, spikes)
            # Where several spikes come to share a cell, both sides keep the same one: the first.
            found = Numbers(grid, *_together(a.at, a.counts, b.at, b.counts), a.spikes, a.spiked + b.spiked)
        else:
            found = Numbers(None, *_together(self.at, self.counts, other.at, other.counts))
        with np.errstate(over="ignore", invalid="ignore"):
            found.moments = self.moments.merged(other.moments)
        found.below, found.above = self.below + other.below, self.above + other.above
        found.least, found.greatest = min(self.least, other.least), max(self.greatest, other.greatest)
        if found.grid is None and len(found.at) > CELLS:
            found._add_values(_NOTHING, 0.0, 0.0)
        while len(found.at) > CELLS:
            found._coarsen()
        return found

    def pieces(self) -> Pieces:
        """All of it, the infinities too."""
        if self.grid is None:
            low, high, counts = self.at, self.at, self.counts
        else:
            low, high = self.grid.bounds(self.at)
            low, high = np.maximum(low, self.least), np.minimum(high, self.greatest)
            low, high = np.concatenate([low, self.spikes]), np.concatenate([high, self.spikes])
            counts = np.concatenate([self.counts, self.spiked])
            there = counts > 0
            low, high, counts = low[there], high[there], counts[there]
            order = np.lexsort((high, low / 2 + high / 2))
            low, high, counts = low[order], high[order], counts[order]
        ends = np.array([-math.inf] * (self.below > 0) + [math.inf] * (self.above > 0))
        beyond = np.array([n for n in (self.below, self.above) if n], np.int64)
        if len(ends):
            low, high, counts = (np.concatenate(pair) for pair in ((low, ends), (high, ends), (counts, beyond)))
            order = np.argsort(low, kind="stable")
            low, high, counts = low[order], high[order], counts[order]
        return Pieces(low, high, counts)

    @property
    def mean(self) -> float | None:
        if self.below or self.above:
            return None if self.below and self.above else math.inf if self.above else -math.inf
        return self.moments.mean if self.moments.count else None

    @property
    def std(self) -> float | None:
        """With n - 1; None of fewer than two numbers, or where one is infinite."""
        if self.moments.count < 2 or self.below or self.above:
            return None
        return math.sqrt(self.moments.squares / (self.moments.count - 1))

    @property
    def ends(self) -> tuple[float, float] | None:
        """The least and the greatest; None of no number."""
        if not self.count:
            return None
        return (-math.inf if self.below else self.least if self.moments.count else math.inf), (
            math.inf if self.above else self.greatest if self.moments.count else -math.inf
        )

    def to_dict(self) -> dict[str, Any]:
        whole = self.grid is not None
        return {
            "step": self.grid.step if self.grid else None,
            "bits": self.grid.bits if self.grid else None,
            "at": differences(self.at) if whole else packed(self.at),
            "counts": packed(self.counts.astype(np.int64)),
            "spikes": packed(self.spikes),
            "spiked": packed(self.spiked.astype(np.int64)),
            "moments": [self.moments.count, self.moments.mean.hex(), self.moments.squares.hex()],
            "below": self.below,
            "above": self.above,
            "ends": [self.least.hex(), self.greatest.hex()],
        }

    @classmethod
    def from_dict(cls, found: dict[str, Any]) -> Numbers:
        grid = None if found["step"] is None else Grid(found["step"], found["bits"])
        count, mean, squares = found["moments"]
        return cls(
            grid,
            summed(found["at"]) if grid else unpacked(found["at"], np.float64),
            unpacked(found["counts"], np.int64),
            unpacked(found["spikes"], np.float64),
            unpacked(found["spiked"], np.int64),
            Moments(count, float.fromhex(mean), float.fromhex(squares)),
            found["below"],
            found["above"],
            *map(float.fromhex, found["ends"]),
        )


def _together(at: Any, counts: Whole, more_at: Any, more_counts: Whole) -> tuple[Any, Whole]:
    """Two lists of values, each in order, as one, none twice."""
    if not len(at):
        return more_at, more_counts
    return _summed(np.concatenate([at, more_at]), np.concatenate([counts, more_counts]))


def _summed(at: Any, counts: Whole) -> tuple[Any, Whole]:
    """Values in order, none twice, with their counts."""
    if not len(at):
        return at, counts
    order = np.argsort(at, kind="stable")
    at = at[order]
    starts = np.flatnonzero(np.concatenate([[True], at[1:] != at[:-1]]))
    return at[starts], np.add.reduceat(counts[order], starts)


def _knows(numbers: Numbers, grid: Grid, values: Floats) -> Any:
    """Whether it is known how often each value occurs; a cell of ``grid`` that holds nothing holds none of it."""
    if numbers.grid is None:
        return np.ones(len(values), np.bool_)
    held = np.union1d(grid.index(numbers.grid.one(numbers.at)), grid.index(numbers.spikes))
    return np.isin(values, numbers.spikes) | ~np.isin(grid.index(values), held)


def _on(numbers: Numbers, grid: Grid, spikes: Floats) -> Numbers:
    """The counts by the cells of a coarser grid; of the spikes, the first of each cell stays one."""
    spikes = np.sort(spikes)
    spikes = spikes[np.unique(grid.index(spikes), return_index=True)[1]]
    if numbers.grid is None:
        values, counts = numbers.at, numbers.counts
    else:
        values = np.concatenate([numbers.grid.one(numbers.at), numbers.spikes])
        counts = np.concatenate([numbers.counts, numbers.spiked])
    own = np.isin(values, spikes)
    if numbers.grid is not None:
        own[: len(numbers.at)] = False  # a cell may be named by a number that is a spike
    spiked = np.zeros(len(spikes), np.int64)
    np.add.at(spiked, np.searchsorted(spikes, values[own]), counts[own])
    return Numbers(grid, *_summed(grid.index(values[~own]), counts[~own]), spikes, spiked)
