"""Aggregates that add up: the rows of one stretch of time after the other, with running state per entity."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from engine.features.definition import Aggregate
from engine.features.history.rows import Events, Records
from engine.features.history.saved import Begun
from engine.features.history.sketches import estimate, sketch_of
from engine.features.history.sliding import Sliding
from engine.features.history.spans import Span
from engine.features.history.states import KINDS, Kind, Seen, State, result
from engine.features.reach import state_of
from engine.features.ways import runs

Array = npt.NDArray[Any]
Result = tuple[Array, Array | None]  # values; where there is one: None, everywhere


class Walk:
    """The aggregates that add up, of some of the entities, at one as-of after the other.

    Args:
        stripes: the first, and the one after the last; entity ``id`` is number ``local(id)`` among theirs.
        begun: what those over the whole history begin with, and up to which moment that is.
    """

    def __init__(
        self, events: Events, as_ofs: Sequence[int], stripes: tuple[int, int], begun: tuple[Begun, int] | None = None
    ) -> None:
        self._events, self._as_ofs = events, as_ofs
        self._first, self._last = stripes
        self.aggregates = [a for a in events.carried.aggregates if runs(a)]
        self.ids = np.sort(
            np.concatenate([np.arange(s, events.entities, events.stripes) for s in range(self._first, self._last)])
        )
        states = begun[0].states(stripes, self.ids) if begun else {}
        self._begun = begun[1] if begun else None
        self._sliding = {}
        for aggregate in self.aggregates:
            before = states.get(state_of(aggregate)) if aggregate.window is None else None
            self._sliding[_subject(aggregate)] = Sliding(_kind(aggregate), Span.of(aggregate), as_ofs, before)
        self._states = {_state(a): a for a in self.aggregates}
        self._done = 0  # intervals

    def local(self, ids: Array) -> Array:
        """Where entities of these stripes stand among them."""
        if self._events.stripes == 1:
            return ids
        stripes, mine = self._events.stripes, self._last - self._first
        numbers: Array = ids // stripes * mine + ids % stripes - self._first
        return numbers

    def at(self, as_of: int) -> dict[str, Result]:
        """By name, the values of the aggregates at an as-of; as-ofs come in order."""
        for sliding in self._sliding.values():
            sliding.move(as_of)
        ends = self._events.intervals.ends
        until = int(np.searchsorted(ends, as_of, side="right"))
        for interval in range(self._done, until):
            self._take(interval, int(ends[interval]))
        self._done = max(self._done, until)
        found: dict[Any, Result] = {}
        values = {}
        for aggregate in self.aggregates:
            subject = _subject(aggregate)
            key = (aggregate.function, aggregate.q, subject)
            if key not in found:
                found[key] = self._result(aggregate, self._sliding[subject].value())
            values[aggregate.name] = found[key]
        return values

    def _result(self, aggregate: Aggregate, state: State | None) -> Result:
        if state is not None:
            return result(aggregate.function, state) if aggregate.error is None else estimate(aggregate, state)
        nothing = np.zeros(len(self.ids), self._dtype(aggregate))  # that of later values: some are kept beside them
        return (nothing, None) if aggregate.function.startswith("count") else (nothing, np.zeros(len(self.ids), bool))

    def _dtype(self, aggregate: Aggregate) -> npt.DTypeLike:
        if aggregate.function.startswith("count"):
            return np.int64
        is_fraction = aggregate.function in ("mean", "std", "var", "quantile")
        return np.float64 if is_fraction or self._events.channels[aggregate.value or ""].is_float else np.int64

    def _take(self, interval: int, end: int) -> None:
        states: dict[Any, State] = {}
        for records in self._events.parts((self._first, self._last), interval):
            for subject, aggregate in self._states.items():
                if (state := self._state_of(records, aggregate)) is not None:
                    known = states.get(subject)
                    states[subject] = state if known is None else subject[0].merge(known, state)
        for subject, sliding in self._sliding.items():
            is_known = self._begun is not None and end <= self._begun and subject[3].window is None
            if not is_known and (state := states.get(subject[:3])) is not None:
                sliding.push(end, state)

    def _state_of(self, records: Records, aggregate: Aggregate) -> State | None:
        chosen, columns = records.chosen(aggregate), records.columns
        ids, moments = self.local(columns["id"]), columns["ts"]
        values = records.values(aggregate)
        if chosen is not None and not chosen.all():
            if not chosen.any():
                return None
            ids, moments, values = ids[chosen], moments[chosen], values[chosen]
        return _kind(aggregate).of(Seen(ids, values, moments), len(self.ids))


def _kind(aggregate: Aggregate) -> Kind:
    return KINDS[aggregate.function] if aggregate.error is None else sketch_of(aggregate)


def _state(aggregate: Aggregate) -> tuple[Any, ...]:
    """Aggregates of which this is the same carry the same states."""
    return _kind(aggregate), aggregate.value, aggregate.where


def _subject(aggregate: Aggregate) -> tuple[Any, ...]:
    """Aggregates of which this is the same have the same state at an as-of."""
    return (*_state(aggregate), Span.of(aggregate))
