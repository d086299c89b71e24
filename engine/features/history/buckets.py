"""Aggregates that need the rows themselves: the rows of one stripe of entities at a time, for all as-ofs at once."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from engine.errors import MissingExtra
from engine.features.definition import Aggregate
from engine.features.history.results import Results
from engine.features.history.rows import Events, Records
from engine.features.ways import adds_up

Array = npt.NDArray[Any]
_FIRST, _LAST = np.iinfo(np.int64).min, np.iinfo(np.int64).max


def compute(events: Events, stripe: int, as_ofs: Sequence[int], results: Results) -> None:
    """The values of the aggregates that need rows, of one stripe, at all as-ofs."""
    records = events.read(stripe, 0, len(events.intervals))
    ids = np.arange(stripe, events.entities, events.stripes)
    for aggregate in itertools.filterfalse(adds_up, events.carried.aggregates):
        values, there = _of(aggregate, records, len(ids), events.stripes, as_ofs)
        width = values.shape[2] if values.ndim == 3 else 1
        results.put(results.part(aggregate.name, ids, values.dtype, width), 0, values, there)


def _of(
    aggregate: Aggregate, records: Records, entities: int, stripes: int, as_ofs: Sequence[int]
) -> tuple[Array, Array | None]:
    chosen, values = records.chosen(aggregate), records.values(aggregate)
    ids, moments = records.columns["id"] // stripes, records.columns["ts"]
    if chosen is not None:
        ids, moments, values = ids[chosen], moments[chosen], values[chosen]
    bounds = [aggregate.bounds(t) for t in as_ofs]
    starts = np.array([_FIRST if start is None else start for start, _ in bounds], np.int64)
    ends = np.array([end for _, end in bounds], np.int64)
    if aggregate.function == "count_distinct":
        return _distinct(ids, moments, values, starts, ends, entities), None
    order = np.lexsort((values, moments, ids))
    ids, moments, values = ids[order], moments[order], values[order]
    offsets = np.searchsorted(ids, np.arange(entities + 1))
    if aggregate.function == "last_n":
        return _last(aggregate.n or 1, offsets, ids, moments, values, starts, ends)
    try:
        from engine.features.history import kernels
    except ImportError:
        raise MissingExtra("numba", "drift", "quantiles and modes at many as-ofs") from None

    if aggregate.function == "quantile":
        return kernels.quantiles(offsets, moments, values.astype(np.float64), starts, ends, aggregate.q or 0.0)
    return kernels.modes(offsets, moments, values, starts, ends)


def _distinct(ids: Array, moments: Array, values: Array, starts: Array, ends: Array, entities: int) -> Array:
    """How many distinct values each window holds.

    A row counts in the windows that hold it and not the one before it with the same value: those of a range of as-ofs.
    """
    order = np.lexsort((moments, values, ids))
    ids, moments, values = ids[order], moments[order], values[order]
    before = np.full(len(ids), _FIRST)
    again = (ids[1:] == ids[:-1]) & (values[1:] == values[:-1])
    before[1:][again] = moments[:-1][again]
    first = np.searchsorted(ends, moments, side="left")
    if starts[0] == _FIRST:
        first, last = np.where(before == _FIRST, first, len(ends)), np.full(len(ids), len(ends))
    else:
        first = np.maximum(first, np.searchsorted(starts, before, side="left"))
        last = np.searchsorted(starts, moments, side="left")
    counts = first < last
    size = (len(ends) + 1) * entities
    changes = np.bincount(first[counts] * entities + ids[counts], minlength=size)
    changes -= np.bincount(last[counts] * entities + ids[counts], minlength=size)
    return np.cumsum(changes.reshape(len(ends) + 1, entities)[:-1], axis=0)


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
