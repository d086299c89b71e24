"""A window that slides over states in time: each is merged a constant number of times, none is ever subtracted.

The queue of two stacks (Tangwongsan, Hirzel, Schneider, Wu: General Incremental Sliding-Window Aggregation, VLDB 2015).
Subtracting what leaves would be cheaper, but floating-point sums would drift, and extremes cannot be subtracted.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import deque
from collections.abc import Sequence

from engine.features.history.spans import Span
from engine.features.history.states import Kind, State


class Sliding:
    """The state of what a span covers, at one as-of after the other.

    Args:
        as_ofs: all that will be asked for: only between their bounds are states kept apart.
        begun: of a span without a start, the state of what lies before the first interval that is pushed.
    """

    def __init__(self, kind: Kind, span: Span, as_ofs: Sequence[int], begun: State | None = None) -> None:
        self._kind, self._span = kind, span
        self._starts = sorted({start for t in as_ofs if (start := span.bounds(t)[0]) is not None})
        self._start, self._end = span.bounds(as_ofs[0])
        self._coming: deque[tuple[int, State]] = deque()
        self._back: list[tuple[int, State]] = []  # oldest first
        self._back_whole = begun
        self._front: list[tuple[int, State]] = []  # oldest last; each with all that is newer in here

    def move(self, as_of: int) -> None:
        """To the next as-of; what is pushed from now on may belong to it."""
        self._start, self._end = self._span.bounds(as_of)
        while self._coming and self._coming[0][0] <= self._end:
            self._enter(*self._coming.popleft())

    def push(self, end: int, state: State) -> None:
        """Takes the state of an elementary interval; they come in the order of time."""
        if end <= self._end:
            self._enter(end, state)
        else:
            self._coming.append((end, state))

    def value(self) -> State | None:
        """The state of the rows within the span; None: there are none."""
        if self._start is not None:
            self._leave(self._start)
        front = self._front[-1][1] if self._front else None
        if front is None or self._back_whole is None:
            return self._back_whole if front is None else front
        return self._kind.merge(front, self._back_whole)

    def _enter(self, end: int, state: State) -> None:
        if self._start is not None and end <= self._start:
            return  # no later window reaches so far back
        merge = self._kind.merge
        self._back_whole = state if self._back_whole is None else merge(self._back_whole, state)
        if self._span.window is None:
            return
        if self._back and not self._divides(self._back[-1][0], end):
            self._back[-1] = (end, merge(self._back[-1][1], state))
        else:
            self._back.append((end, state))

    def _divides(self, earlier: int, later: int) -> bool:
        """Whether a window begins between two of the ends that follow one another here."""
        i = bisect_left(self._starts, earlier)
        return i < len(self._starts) and self._starts[i] < later

    def _leave(self, start: int) -> None:
        while True:
            if self._front:
                if self._front[-1][0] > start:
                    return
                self._front.pop()
            elif self._back and self._back[0][0] <= start:
                whole: State | None = None
                for end, state in reversed(self._back):
                    whole = state if whole is None else self._kind.merge(state, whole)
                    self._front.append((end, whole))
                self._back, self._back_whole = [], None
            else:
                return
