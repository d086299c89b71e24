"""What is carried of a set of rows per entity: enough for an aggregate, and two of them make that of both sets.

A state is a tuple of arrays with one element per entity. Merging takes the earlier one first and changes neither.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from engine.errors import DataError

Array = npt.NDArray[Any]
State = tuple[Array, ...]
EXACT = 2**53


@dataclass(frozen=True)
class Seen:
    """Rows, as arrays of one length: whose they are, their values (numbers, in the values' order), their moments."""

    ids: Array
    values: Array
    moments: Array


class Kind(ABC):
    """A kind of state; one object for each that there is."""

    @abstractmethod
    def of(self, rows: Seen, entities: int) -> State:
        """The state of rows."""

    @abstractmethod
    def merge(self, earlier: State, later: State) -> State:
        """The state of both sets of rows."""


class Count(Kind):
    """How many rows."""

    def of(self, rows: Seen, entities: int) -> State:
        return (np.bincount(rows.ids, minlength=entities),)

    def merge(self, earlier: State, later: State) -> State:
        return (earlier[0] + later[0],)


class Sum(Kind):
    """How many rows, and the sum of their values; exact for whole numbers."""

    def of(self, rows: Seen, entities: int) -> State:
        ids, values = rows.ids, rows.values
        counts = np.bincount(ids, minlength=entities)
        if values.dtype.kind == "f":
            return counts, np.bincount(ids, weights=values, minlength=entities)
        largest = int(np.abs(values.astype(np.float64)).max(initial=0))
        if largest * len(values) < EXACT:
            return counts, np.bincount(ids, weights=values, minlength=entities).astype(np.int64)
        sums = np.zeros(entities, np.int64)
        np.add.at(sums, ids, values)
        _check_overflow(np.bincount(ids, weights=values, minlength=entities))
        return counts, sums

    def merge(self, earlier: State, later: State) -> State:
        sums = earlier[1] + later[1]
        # The sign tells: adding two numbers of one sign gives that sign, unless the sum does not fit.
        if sums.dtype.kind == "i" and (((earlier[1] ^ sums) & (later[1] ^ sums)) < 0).any():
            _overflow()
        return earlier[0] + later[0], sums


class Moments(Kind):
    """How many values, their mean, and the sum of their squared deviations from it.

    Merged as in Chan, Golub and LeVeque (1979), which loses no digits to large means. Infinite values are left out.
    """

    def of(self, rows: Seen, entities: int) -> State:
        ids, values = rows.ids, rows.values.astype(np.float64)
        if not (finite := np.isfinite(values)).all():
            ids, values = ids[finite], values[finite]
        counts = np.bincount(ids, minlength=entities)
        means = np.bincount(ids, weights=values, minlength=entities) / np.maximum(counts, 1)
        return counts, means, np.bincount(ids, weights=(values - means[ids]) ** 2, minlength=entities)

    def merge(self, earlier: State, later: State) -> State:
        counts = earlier[0] + later[0]
        share = later[0] / np.maximum(counts, 1)
        delta = np.where(earlier[0] == 0, 0.0, later[1] - earlier[1])
        means = np.where(earlier[0] == 0, later[1], earlier[1] + delta * share)
        return counts, means, earlier[2] + later[2] + delta * delta * earlier[0] * share


class Extreme(Kind):
    """Whether there is a value, and the smallest or the largest.

    Args:
        pick: ``np.minimum`` or ``np.maximum``.
    """

    def __init__(self, pick: np.ufunc) -> None:
        self._pick = pick

    def of(self, rows: Seen, entities: int) -> State:
        best = np.full(entities, _worst(self._pick, rows.values.dtype), rows.values.dtype)
        self._pick.at(best, rows.ids, rows.values)
        return np.bincount(rows.ids, minlength=entities) > 0, best

    def merge(self, earlier: State, later: State) -> State:
        return earlier[0] | later[0], self._pick(earlier[1], later[1])


class Edge(Kind):
    """The moment of the first row and its value, of several the smallest; or of the last, and the largest.

    Args:
        pick: ``np.minimum`` or ``np.maximum``, of moments and of values.
    """

    def __init__(self, pick: np.ufunc) -> None:
        self._pick = pick

    def of(self, rows: Seen, entities: int) -> State:
        when = np.full(entities, _worst(self._pick, rows.moments.dtype))
        self._pick.at(when, rows.ids, rows.moments)
        at = rows.moments == when[rows.ids]
        best = np.full(entities, _worst(self._pick, rows.values.dtype), rows.values.dtype)
        self._pick.at(best, rows.ids[at], rows.values[at])
        return when, best

    def merge(self, earlier: State, later: State) -> State:
        takes = later[0] < earlier[0] if self._pick is np.minimum else later[0] > earlier[0]
        return np.where(takes, later[0], earlier[0]), np.where(takes, later[1], earlier[1])


KINDS: dict[str, Kind] = {
    "count": Count(),
    **dict.fromkeys(("sum", "mean"), Sum()),
    **dict.fromkeys(("std", "var"), Moments()),
    "min": Extreme(np.minimum),
    "max": Extreme(np.maximum),
    "first": Edge(np.minimum),
    "last": Edge(np.maximum),
}


def nothing(kind: Kind, entities: int, dtype: npt.DTypeLike) -> State:
    """The state of no rows; ``dtype``: of their values."""
    return kind.of(Seen(np.zeros(0, np.int64), np.zeros(0, dtype), np.zeros(0, np.int64)), entities)


def result(function: str, state: State) -> tuple[Array, Array | None]:
    """The values of an aggregate, and where there is one; None: everywhere."""
    if function == "count":
        return state[0], None
    if function in ("sum", "min", "max"):
        return state[1], state[0] > 0
    if function == "mean":
        return state[1] / np.maximum(state[0], 1), state[0] > 0
    if function in ("std", "var"):
        variance = state[2] / np.maximum(state[0] - 1, 1)
        return (np.sqrt(variance) if function == "std" else variance), state[0] > 1
    none = _worst(np.minimum if function == "first" else np.maximum, state[0].dtype)
    return state[1], state[0] != none


def _worst(pick: np.ufunc, dtype: np.dtype[Any]) -> Any:
    """What any other value is picked before."""
    if dtype.kind == "f":
        return np.inf if pick is np.minimum else -np.inf
    return np.iinfo(dtype).max if pick is np.minimum else np.iinfo(dtype).min


def _check_overflow(sums: Array) -> None:
    if (np.abs(sums) >= 2.0**63).any():
        _overflow()


def _overflow() -> None:
    raise DataError(
        "a sum of whole numbers goes beyond 64 bits",
        code="features.overflow",
        fix="sum CAST(column AS DOUBLE) instead",
    )
