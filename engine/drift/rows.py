"""Drift from the rows themselves, exact, in bounded memory.

Columns that fit are sorted in memory. Of others, the values go to files by ranges of about as many values each, which
are then sorted one after the other: the order of the whole without the whole in memory.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from engine.drift.categories import counted
from engine.drift.column import ColumnDrift, compared, of_numbers, without_values
from engine.drift.distance import Distance
from engine.drift.kernels import START, advance, advance_weighted
from engine.errors import SinkError
from engine.frames import batches, column, reading
from engine.profile import ColumnProfile, Moments, Numbers, Pieces, Profiler, kind_of, linear, measured
from engine.types import DEFAULT_MEMORY_LIMIT, size_of

_COMPARED = ("number", "whole", "date", "moment", "time", "duration")
_NEEDED = 40  # bytes for each value: decoded, without nulls, sorted
_FEWEST = 1_000  # values of a file
_SHOWN, _ENDS = 1_024, 64  # numbers that stand for a distribution where chance is estimated, and at either end


@dataclass(frozen=True)
class Sides:
    """Two tables and what may be used to compare them.

    Attributes:
        rows: of each, known beforehand.
        budget: bytes of memory.
    """

    baseline: pl.LazyFrame
    current: pl.LazyFrame
    rows: tuple[int, int]
    bins: int
    budget: int
    memory_limit: str
    spill: Path | None

    @property
    def frames(self) -> tuple[pl.LazyFrame, pl.LazyFrame]:
        return self.baseline, self.current


def compare_rows(
    baseline: pl.LazyFrame,
    current: pl.LazyFrame,
    names: Sequence[str],
    *,
    bins: int = 10,
    named: bool = True,
    memory_limit: str = DEFAULT_MEMORY_LIMIT,
    spill: Path | None = None,
) -> dict[str, ColumnDrift]:
    """Columns that both tables have, each beside its baseline.

    Args:
        named: whether somebody asked for these columns: then texts are counted however many different ones there are.
        memory_limit: for the values in hand, such as ``512MiB``.
        spill: the folder for what does not fit; None is one of the system's temporary folders.

    Raises:
        DataError: the tables cannot be read.
        SinkError: there is no room for what does not fit.
        MissingExtra: numba is not installed.
    """
    with reading():
        schemas = [f.collect_schema() for f in (baseline, current)]
    rows = rows_of(baseline), rows_of(current)
    sides = Sides(baseline, current, rows, bins, size_of(memory_limit), memory_limit, spill)
    kinds = {name: [kind_of(schema[name]) for schema in schemas] for name in names}
    numbers = [name for name in names if all(kind in _COMPARED for kind in kinds[name])]
    others = [name for name in names if name not in numbers]
    found = _others(sides, others, named) if others else {}
    need = sum(rows) * _NEEDED
    if need <= sides.budget:
        workers = max(1, min(os.cpu_count() or 1, sides.budget // max(1, need), len(numbers)))
        with ThreadPoolExecutor(workers) as pool:
            found |= dict(zip(numbers, pool.map(partial(_in_memory, sides), numbers), strict=True))
    else:
        found |= {name: _on_disk(sides, name) for name in numbers}
    return {name: found[name] for name in names}


def rows_of(frame: pl.LazyFrame) -> int:
    """How many rows there are."""
    with reading():
        return int(frame.select(pl.len()).collect(engine="streaming").item())


# --- in memory ----------------------------------------------------------------------------------------------------


def _in_memory(sides: Sides, name: str) -> ColumnDrift:
    samples = [_Sample.of(frame, name) for frame in sides.frames]
    b, c = samples
    if not (b.profile.count and c.profile.count):
        return compared(b.profile, c.profile)
    edges = _edges(b.at, b.profile.count, sides.bins)
    counts = [np.diff(np.concatenate([[0], s.below(edges), [s.profile.count]])) for s in samples]
    state = advance(b.finite, c.finite, b.profile.count, c.profile.count, *_begun(b.profile, c.profile))
    d, area = _distances(b.profile, c.profile, state)
    return of_numbers(b.profile, c.profile, d, area, edges, counts, by="rows", pieces=[b.pieces(), c.pieces()])


@dataclass(frozen=True)
class _Sample:
    """A column's finite values in order, and the rest of what is known of it."""

    profile: ColumnProfile
    finite: Any

    @classmethod
    def of(cls, frame: pl.LazyFrame, name: str) -> _Sample:
        with reading():
            series = frame.select(column(name)).collect(engine="in-memory").to_series()  # without a copy, if it can
        profile, values = _values(series, _fresh(series))
        return cls(profile, np.sort(values))

    def at(self, rank: int) -> float:
        numbers = _numbers(self.profile)
        rank -= numbers.below
        return -np.inf if rank < 0 else np.inf if rank >= len(self.finite) else float(self.finite[rank])

    def below(self, edges: Any) -> Any:
        numbers = _numbers(self.profile)
        found = np.searchsorted(self.finite, edges, side="left")
        return np.where(np.isneginf(edges), 0, found + numbers.below)

    def pieces(self) -> Pieces:
        """About the same distribution, by some of its values, the outermost ones among them."""
        count = len(self.finite)
        even = np.arange(0, count, max(1, count // _SHOWN))
        ranks = np.unique(np.concatenate([even, np.arange(min(count, _ENDS)), np.arange(max(0, count - _ENDS), count)]))
        return Pieces(self.finite[ranks], self.finite[ranks], np.diff(np.append(ranks, count)))


def _fresh(series: pl.Series) -> ColumnProfile:
    return ColumnProfile(series.name, str(series.dtype), kind_of(series.dtype), numbers=Numbers())


def _numbers(profile: ColumnProfile) -> Numbers:
    assert profile.numbers is not None  # noqa: S101 - made with them
    return profile.numbers


def _values(series: pl.Series, profile: ColumnProfile) -> tuple[ColumnProfile, Any]:
    """The finite values of a batch, and what is known of the column with them."""
    rows = len(series)
    kept = measured(series.drop_nulls() if series.null_count() else series).cast(pl.Float64)
    x = kept.to_numpy()
    low, high = (float(x.min()), float(x.max())) if len(x) else (0.0, 0.0)
    if low != low:  # a NaN
        x = x[~np.isnan(x)]
        low, high = (float(x.min()), float(x.max())) if len(x) else (0.0, 0.0)
    count, before = len(x), _numbers(profile)
    numbers = Numbers(moments=before.moments, below=before.below, above=before.above)
    if np.isinf(low) or np.isinf(high):
        numbers.below += int(np.count_nonzero(x == -np.inf))
        numbers.above += int(np.count_nonzero(x == np.inf))
        x = x[np.isfinite(x)]
    numbers.least, numbers.greatest = before.least, before.greatest
    if len(x):
        low, high = float(x.min()), float(x.max())
        numbers.least, numbers.greatest = min(before.least, low), max(before.greatest, high)
        numbers.moments = before.moments.merged(Moments.of(x, low, high))
    found = replace(profile, count=profile.count + count, nulls=profile.nulls + rows - count, numbers=numbers)
    return found, x


def _edges(at: Any, count: int, bins: int) -> Any:
    """The quantiles between bins, linear between two values; those that come out alike, once."""
    found = []
    for i in range(1, bins):
        place = (count - 1) * (i / bins)
        rank = int(place)
        found.append(linear(at(rank), at(min(rank + 1, count - 1)), place - rank))
    return np.unique(np.array([edge for edge in found if edge == edge])) + 0.0  # no -0.0


def _begun(b: ColumnProfile, c: ColumnProfile) -> tuple[Any, ...]:
    """The state of `advance` after the values that are -∞."""
    first, second = _numbers(b).below, _numbers(c).below
    return first, second, START[2], abs(first / b.count - second / c.count), START[4]


def _distances(b: ColumnProfile, c: ColumnProfile, state: tuple[Any, ...]) -> tuple[Distance, Distance]:
    d, area = float(state[3]), float(state[4])
    one, other = _numbers(b), _numbers(c)
    unlike = one.below * c.count != other.below * b.count or one.above * c.count != other.above * b.count
    return Distance(d, 0.0), Distance(np.inf if unlike else area, 0.0)


# --- on disk ------------------------------------------------------------------------------------------------------


def _on_disk(sides: Sides, name: str) -> ColumnDrift:
    profiles = [_profile(frame, name) for frame in sides.frames]
    b, c = profiles
    if not (b.count and c.count) or (_numbers(b).exact and _numbers(c).exact):
        return replace(compared(b, c, sides.bins), by="rows")
    per_file = max(_FEWEST, sides.budget // _NEEDED // 2)
    pieces = _numbers(b).merged(_numbers(c)).pieces()
    bounds = _bounds(pieces, per_file)
    if sides.spill is not None:
        sides.spill.mkdir(parents=True, exist_ok=True)
    try:
        with tempfile.TemporaryDirectory(prefix="maestro-drift-", dir=sides.spill) as folder:
            files = [
                _split(frame, name, bounds, Path(folder), side)
                for frame, side in zip(sides.frames, ("baseline", "current"), strict=True)
            ]
            edges = _edges(_Ranks(files[0], _numbers(b), per_file).at, b.count, sides.bins)
            below = [np.full(len(edges), _numbers(p).below) for p in profiles]
            state = _begun(b, c)
            for one, other in zip(*files, strict=True):
                parts = [_sorted(path, per_file) for path in (one, other)]
                state = _advanced(parts, b.count, c.count, state)
                for found, (values, weights) in zip(below, parts, strict=True):
                    found += _less(values, weights, edges)
    except OSError as error:
        raise SinkError(
            f"values that do not fit into memory could not be written: {error.strerror or error}",
            code="drift.spill",
            where=str(sides.spill or tempfile.gettempdir()),
            fix="make room there, or raise memory_limit",
        ) from None
    counts = [
        np.diff(np.concatenate([[0], np.where(np.isneginf(edges), 0, found), [p.count]]))
        for found, p in zip(below, profiles, strict=True)
    ]
    d, area = _distances(b, c, state)
    return of_numbers(b, c, d, area, edges, counts, by="rows")


def _profile(frame: pl.LazyFrame, name: str) -> ColumnProfile:
    with reading():
        profiler = Profiler({name: frame.collect_schema()[name]}, distinct=False)
    with closing(batches(frame, [name])) as found:
        for _, batch in found:
            profiler.add(batch)
    return profiler.profile()[name]


def _bounds(pieces: Pieces, per_file: int) -> Any:
    """Numbers between which there are about so many values, or fewer."""
    inside = np.isfinite(pieces.low)
    ends = np.cumsum(pieces.counts[inside])
    wanted = np.arange(per_file // 2, int(ends[-1]) if len(ends) else 0, max(1, per_file // 2))
    return np.unique(pieces.low[inside][np.searchsorted(ends, wanted)]) if len(wanted) else np.empty(0)


def _split(frame: pl.LazyFrame, name: str, bounds: Any, folder: Path, side: str) -> list[Path]:
    """The finite values of a column in files, by the range that each lies in."""
    files = [folder / f"{side}-{i}" for i in range(len(bounds) + 1)]
    with closing(batches(frame, [name])) as found:
        for _, batch in found:
            series = batch.to_series()
            _, x = _values(series, _fresh(series))
            part = np.searchsorted(bounds, x, side="right")
            order = np.argsort(part, kind="stable")
            starts = np.searchsorted(part[order], np.arange(len(files) + 1))
            for i in np.flatnonzero(np.diff(starts)):
                with files[i].open("ab") as file:
                    x[order[starts[i] : starts[i + 1]]].tofile(file)
    return files


Part = tuple[Any, Any]  # values in order, and how often each occurs (None: as often as it stands there)


def _sorted(path: Path, at_once: int) -> Part:
    """The values of a file in order; of more than fit, each once, with its count."""
    if not path.exists():
        return np.empty(0), None
    if path.stat().st_size <= 8 * at_once:
        return np.sort(np.fromfile(path)), None
    values, weights = np.empty(0), np.empty(0, np.int64)
    for chunk in _chunks(path, at_once):
        more, counts = np.unique(chunk, return_counts=True)
        every = np.concatenate([values, more])
        values, place = np.unique(every, return_inverse=True)
        sums = np.zeros(len(values), np.int64)
        np.add.at(sums, place, np.concatenate([weights, counts]))
        weights = sums
    return values, weights


def _chunks(path: Path, size: int) -> Iterator[Any]:
    with path.open("rb") as file:
        while len(chunk := np.fromfile(file, count=size)):
            yield chunk


def _advanced(parts: Sequence[Part], n: int, m: int, state: tuple[Any, ...]) -> tuple[Any, ...]:
    (a, wa), (b, wb) = parts
    if wa is None and wb is None:
        return tuple(advance(a, b, n, m, *state))
    ones = [np.ones(len(values), np.int64) if weights is None else weights for values, weights in parts]
    return tuple(advance_weighted(a, ones[0], b, ones[1], n, m, *state))


def _less(values: Any, weights: Any, edges: Any) -> Any:
    """How many values are less than each edge."""
    found = np.searchsorted(values, edges, side="left")
    return found if weights is None else np.concatenate([[0], np.cumsum(weights)])[found]


class _Ranks:
    """The value of any rank among the sorted parts of a sample; one part is in memory at a time."""

    def __init__(self, files: Sequence[Path], numbers: Numbers, at_once: int) -> None:
        sizes = [path.stat().st_size // 8 if path.exists() else 0 for path in files]
        self._ends = np.cumsum(sizes)
        self._files, self._numbers, self._at_once = files, numbers, at_once
        self._held: tuple[int, Part] | None = None

    def at(self, rank: int) -> float:
        rank -= self._numbers.below
        if rank < 0 or rank >= self._ends[-1]:
            return float(-np.inf if rank < 0 else np.inf)
        i = int(np.searchsorted(self._ends, rank, side="right"))
        if self._held is None or self._held[0] != i:
            self._held = i, _sorted(self._files[i], self._at_once)
        values, weights = self._held[1]
        inside = rank - (int(self._ends[i - 1]) if i else 0)
        if weights is not None:
            inside = int(np.searchsorted(np.cumsum(weights), inside, side="right"))
        return float(values[inside])


# --- texts, and what cannot be compared ---------------------------------------------------------------------------


def _others(sides: Sides, names: Sequence[str], named: bool) -> dict[str, ColumnDrift]:
    profiles = [_profiles(frame, names) for frame in sides.frames]
    found = {}
    for name in names:
        b, c = (side[name] for side in profiles)
        kinds = b.categories, c.categories
        if named and b.count and c.count and None not in kinds and not all(kind and kind.exact for kind in kinds):
            found[name] = counted(b, c, sides.baseline, sides.current, sides.memory_limit, sides.spill)
        else:
            drift = compared(b, c, sides.bins)
            found[name] = replace(drift, by="rows") if drift.note is None else without_values(b, c, drift.note)
    return found


def _profiles(frame: pl.LazyFrame, names: Sequence[str]) -> Mapping[str, ColumnProfile]:
    with reading():
        schema = frame.collect_schema()
        profiler = Profiler({name: schema[name] for name in names}, distinct=False)
    with closing(batches(frame, list(names))) as found:
        for _, batch in found:
            profiler.add(batch)
    return profiler.profile().columns
