"""States of the aggregates with a stated error; see `engine.features.approximate`.

Of each entity as many numbers as there are, one after the other in order, each with the entity's number above its 32
bits; the first array of a state says how many each entity has.
"""

from __future__ import annotations

from functools import cache

import numpy as np

from engine.features.approximate import FAR, HASHES, growth, k
from engine.features.definition import Aggregate
from engine.features.history.states import Array, Kind, Seen, State

_BITS = 32
_ZERO = 2**31  # what cell 0 is written as, so that none is below 0


class Hashes(Kind):
    """The smallest hashes of each entity."""

    def __init__(self, most: int) -> None:
        self._most = most

    def of(self, rows: Seen, entities: int) -> State:
        return self._cut(np.unique((rows.ids.astype(np.int64) << _BITS) | rows.values), entities)

    def merge(self, earlier: State, later: State) -> State:
        keys = np.concatenate([earlier[1], later[1]])
        keys.sort(kind="stable")  # of two that are in order, in linear time
        keys = keys[np.concatenate([np.ones(min(len(keys), 1), bool), keys[1:] != keys[:-1]])]
        return self._cut(keys, len(earlier[0]))

    def _cut(self, keys: Array, entities: int) -> State:
        sizes = np.bincount(keys >> _BITS, minlength=entities)
        if len(keys) and sizes.max() > self._most:
            keys = keys[np.arange(len(keys)) - np.repeat(_starts(sizes), sizes) < self._most]
            sizes = np.minimum(sizes, self._most)
        return sizes, keys

    def counts(self, state: State) -> Array:
        """How many distinct values each entity has, about."""
        sizes, keys = state
        found = sizes.astype(np.int64)
        full = np.flatnonzero(sizes == self._most)
        last = keys[_starts(sizes)[full] + self._most - 1] & (HASHES - 1)
        found[full] = np.floor((self._most - 1) / ((last + 1) / HASHES) + 0.5).astype(np.int64)
        return found


class Cells(Kind):
    """How many values of each entity lie in each cell of a grid: the cells, and the counts up to and with each."""

    def of(self, rows: Seen, entities: int) -> State:
        keys, counts = np.unique((rows.ids.astype(np.int64) << _BITS) | (rows.values + _ZERO), return_counts=True)
        return np.bincount(rows.ids, minlength=entities), keys, counts

    def merge(self, earlier: State, later: State) -> State:
        keys = np.concatenate([earlier[1], later[1]])
        order = np.argsort(keys, kind="stable")
        keys, counts = keys[order], np.concatenate([earlier[2], later[2]])[order]
        if len(keys):
            firsts = np.flatnonzero(np.concatenate([[True], keys[1:] != keys[:-1]]))
            keys, counts = keys[firsts], np.add.reduceat(counts, firsts)
        return earlier[0] + later[0], keys, counts

    @staticmethod
    def quantiles(state: State, q: float, error: float) -> tuple[Array, Array]:
        """A value about as large as the q-quantile of each entity, and whether it has any."""
        sizes, keys, counts = state
        there = sizes > 0
        found = np.zeros(len(sizes))
        rank = np.maximum(sizes - np.floor(sizes - q * sizes), 1).astype(np.int64)  # ceil(q n), as DuckDB computes it
        places = np.searchsorted(np.cumsum(counts), (_starts(sizes) + rank)[there])
        cells = (keys[places] & (HASHES - 1)) - _ZERO
        base = growth(error)
        value = base ** (np.abs(cells) - FAR).astype(np.float64) * (2 / (base + 1))
        value[np.abs(cells) == 2 * FAR] = np.inf
        found[there] = np.where(cells == 0, 0.0, np.sign(cells) * value)
        return found, there


def _starts(sizes: Array) -> Array:
    return np.cumsum(sizes) - sizes


@cache
def _hashes(most: int) -> Hashes:
    return Hashes(most)


_CELLS = Cells()


def sketch_of(aggregate: Aggregate) -> Kind:
    """The kind of state of an aggregate with an error; the same object where it is the same."""
    assert aggregate.error is not None  # noqa: S101 - says who is asked
    return _hashes(k(aggregate.error)) if aggregate.function == "count_distinct" else _CELLS


def estimate(aggregate: Aggregate, state: State) -> tuple[Array, Array | None]:
    """The values of such an aggregate, and where there is one; None: everywhere."""
    kind = sketch_of(aggregate)
    if isinstance(kind, Hashes):
        return kind.counts(state), None
    return Cells.quantiles(state, aggregate.q or 0.0, aggregate.error or 1.0)
