"""Spans of time that aggregates look at, and the elementary intervals that all of them are made of."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from engine.features.definition import Aggregate
from engine.types import Duration

Moments = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Span:
    """What of the past an aggregate looks at: the same for all that share a window, an offset and their kind."""

    window: Duration | None = None
    offset: Duration | None = None
    tumbling: bool = False

    @classmethod
    def of(cls, aggregate: Aggregate) -> Span:
        return cls(aggregate.window, aggregate.offset, aggregate.tumbling)

    def bounds(self, as_of: int) -> tuple[int | None, int]:
        """As `Aggregate.bounds`."""
        like = Aggregate("", "count", "", window=self.window, offset=self.offset, tumbling=self.tumbling)
        return like.bounds(as_of)


class Intervals:
    """The stretches of time between all bounds of all spans at all as-ofs, each with its end and without its start.

    Interval 0 has no start; what lies after the last bound belongs to none.

    Attributes:
        ends: ascending, in microseconds.
        start: what lies at or before it is of no use to any span; None: everything counts.
    """

    def __init__(self, spans: Iterable[Span], as_ofs: Sequence[int], also: Iterable[int] = ()) -> None:
        """
        Args:
            also: further moments that end one.
        """
        ends: set[int] = set(also)
        starts: list[int | None] = []
        for span in spans:
            for as_of in as_ofs:
                start, end = span.bounds(as_of)
                starts.append(start)
                ends.update((end,) if start is None else (start, end))
        self.ends: Moments = np.array(sorted(ends), np.int64)
        known = [start for start in starts if start is not None]
        self.start = min(known) if known and len(known) == len(starts) else None
        steps = np.diff(self.ends)
        self._step = int(steps[0]) if len(steps) and (steps == steps[0]).all() else 0

    def __len__(self) -> int:
        return len(self.ends)

    def of(self, moments: Moments) -> Moments:
        """The number of the interval of each moment; none may lie after the last end."""
        if self._step:
            number: Moments = np.maximum(-((self.ends[0] - moments) // self._step), 0)
            return number
        return np.searchsorted(self.ends, moments, side="left")
