"""Aggregates that need the rows themselves: the rows of one stripe of entities at a time, for all as-ofs at once."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from engine.features.definition import Aggregate
from engine.features.history.results import Results
from engine.features.history.rows import Events, Records
from engine.features.ways import runs

Array = npt.NDArray[Any]
_FIRST = np.iinfo(np.int64).min


def compute(events: Events, stripe: int, as_ofs: Sequence[int], results: Results) -> None:
    """The values of the aggregates that need rows, of one stripe, at all as-ofs."""
    records = events.read(stripe, 0, len(events.intervals))
    ids = np.arange(stripe, events.entities, events.stripes)
    subjects: dict[Any, _Rows] = {}
    for aggregate in itertools.filterfalse(runs, events.carried.aggregates):
        subject = aggregate.value, aggregate.where
        if subject not in subjects:
            subjects[subject] = _Rows(records, aggregate, len(ids), events.stripes)
        values, there = _of(aggregate, subjects[subject], as_ofs)
        width = values.shape[2] if values.ndim == 3 else 1
        part = results.part(aggregate.name, ids, values.dtype, width, is_total=there is None)
        results.put(part, 0, values, there)


class _Rows:
    """What aggregates with one value and one condition look at."""

    def __init__(self, records: Records, aggregate: Aggregate, entities: int, stripes: int) -> None:
        chosen, values = records.chosen(aggregate), records.values(aggregate)
        ids, moments = records.columns["id"] // stripes, records.columns["ts"]
        if chosen is not None and not chosen.all():
            ids, moments, values = ids[chosen], moments[chosen], values[chosen]
        self.ids, self.moments, self.values, self.entities = ids, moments, values, entities

    @cached_property
    def ordered(self) -> tuple[Array, Array, Array]:
        """The first row of each entity; moments and values by entity and time."""
        offsets, order = _kernels().order(self.ids, self.moments, self.entities)
        return offsets, self.moments[order], self.values[order]

    @cached_property
    def ranks(self) -> tuple[Array, Array, Array]:
        """As `kernels.ranks`."""
        offsets, _, values = self.ordered
        found: tuple[Array, Array, Array] = _kernels().ranks(offsets, values)
        return found


def load() -> None:
    """Imports what takes long to import."""
    _kernels()


def _kernels() -> Any:
    from engine.features.history import kernels

    return kernels


def _of(aggregate: Aggregate, rows: _Rows, as_ofs: Sequence[int]) -> tuple[Array, Array | None]:
    bounds = [aggregate.bounds(t) for t in as_ofs]
    starts = np.array([_FIRST if start is None else start for start, _ in bounds], np.int64)
    ends = np.array([end for _, end in bounds], np.int64)
    if aggregate.function == "last_n":
        order = np.lexsort((rows.values, rows.moments, rows.ids))
        ids, moments, values = rows.ids[order], rows.moments[order], rows.values[order]
        offsets = np.searchsorted(ids, np.arange(rows.entities + 1))
        return _last(aggregate.n or 1, offsets, ids, moments, values, starts, ends)
    kernels, (offsets, moments, values) = _kernels(), rows.ordered
    if aggregate.function == "quantile":
        values = values.astype(np.float64, copy=False)
        found: tuple[Array, Array] = kernels.quantiles(offsets, moments, values, starts, ends, aggregate.q or 0.0)
        return found
    rank, distinct, counts = rows.ranks
    if aggregate.function == "count_distinct":
        return kernels.distincts(offsets, moments, rank, counts, starts, ends), None
    modes: tuple[Array, Array] = kernels.modes(offsets, moments, rank, distinct, counts, starts, ends)
    return modes


def _last(
    n: int, offsets: Array, ids: Array, moments: Array, values: Array, starts: Array, ends: Array
) -> tuple[Array, Array]:
    """The last values of each window, the latest first, and how many there are."""
    entities = len(offsets) - 1
    found = np.zeros((len(ends), entities, n), values.dtype)
    counts = np.zeros((len(ends), entities), np.uint8)
    entered = _entered(ids, moments, ends, entities)
    left = _entered(ids, moments, starts, entities)
    back = np.arange(1, n + 1)
    for i in range(len(ends)):
        counts[i] = np.minimum(entered[i] - left[i], n)
        rows = (offsets[:-1] + entered[i])[:, None] - back
        if len(values):
            found[i] = values[np.maximum(rows, 0)]
    return found, counts


def _entered(ids: Array, moments: Array, until: Array, entities: int) -> Array:
    """By as-of and entity, how many rows lie at or before a moment."""
    first = np.searchsorted(until, moments, side="left")
    size = (len(until) + 1) * entities
    return np.cumsum(np.bincount(first * entities + ids, minlength=size).reshape(len(until) + 1, entities)[:-1], axis=0)
