"""Where the time of a run goes: seconds and CPU seconds of each stage, without gaps between them.

The stages of a run come one after another, so that all of them together are its critical path; threads that work on
beyond the end of a stage, and processes of its own that it has waited for, count for the stage that is on when they do.
Whatever makes the run's own thread stand still until others are done says so (`waiting`), and belongs to its stage.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from engine.progress import Progress

START = "start"  # before the first stage: the process begins, packages load, the plan is made
DRAWN = 200  # of a run's time, the parts that are told apart in what is drawn
_process_is_a_run = False
Span = tuple[float, float]


@dataclass(frozen=True)
class Lap:
    """What a run spent on one stage, all together.

    Attributes:
        stage: ``start``, then as `engine.progress.Progress.step` has them, then ``finish``.
        name: of the source or view; empty where it is about none.
        seconds: by the clock on the wall.
        cpu_seconds: user and system, of all threads and of the processes that were waited for.
        waited: of its seconds, those that the run stood still, by what it waited for.
        spans: when it was on, in seconds since the run began; what is close together is one.
    """

    stage: str
    name: str
    seconds: float
    cpu_seconds: float
    waited: Mapping[str, float] = field(default_factory=dict)
    spans: Sequence[Span] = ()

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
            "stage": self.stage,
            "name": self.name,
            "seconds": round(self.seconds, 3),
            "cpu_seconds": round(self.cpu_seconds, 3),
            "waited": {what: round(seconds, 3) for what, seconds in self.waited.items()},
            "spans": [[round(begun, 3), round(ended, 3)] for begun, ended in self.spans],
        }


def process_is_a_run() -> None:
    """Says that this process does nothing but one run, so that its stages begin with the process."""
    global _process_is_a_run
    _process_is_a_run = True


class Stopwatch:
    """Progress that is timed on its way to whoever watches it."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._spent: dict[tuple[str, str], tuple[float, float]] = {}
        self._waited: dict[tuple[str, str], dict[str, float]] = {}
        self._spans: dict[tuple[str, str], list[Span]] = {}
        self._stage = (START, "")
        self._since = _process_start() if _process_is_a_run else _now()
        self._begun = self._since[0]

    def step(self, stage: str, name: str) -> None:
        """As `Progress.step`."""
        self.enter(stage, name)
        self._progress.step(stage, name)

    def rows(self, count: int) -> None:
        """As `Progress.rows`."""
        self._progress.rows(count)

    def enter(self, stage: str, name: str = "") -> None:
        """Begins a stage, or goes on with it, without a word to whoever watches."""
        now = _now()
        seconds, cpu = self._spent.get(self._stage, (0.0, 0.0))
        self._spent[self._stage] = (seconds + now[0] - self._since[0], cpu + now[1] - self._since[1])
        self._spans.setdefault(self._stage, []).append((self._since[0] - self._begun, now[0] - self._begun))
        self._stage, self._since = (stage, name), now

    @contextmanager
    def within(self, stage: str, name: str = "") -> Iterator[None]:
        """A stage in the midst of another one, which goes on after it."""
        outer = self._stage
        self.enter(stage, name)
        try:
            yield
        finally:
            self.enter(*outer)

    @contextmanager
    def running(self) -> Iterator[None]:
        """Hears of what this thread waits for."""
        token = _current.set(self)
        try:
            yield
        finally:
            _current.reset(token)

    def waited(self, what: str, seconds: float) -> None:
        """So long the stage that is on stood still."""
        known = self._waited.setdefault(self._stage, {})
        known[what] = known.get(what, 0.0) + seconds

    def laps(self) -> list[Lap]:
        """What was spent until now, in the order in which the stages began."""
        self.enter(*self._stage)
        least = (self._since[0] - self._begun) / DRAWN
        return [
            Lap(*stage, *spent, self._waited.get(stage, {}), _together(self._spans[stage], least))
            for stage, spent in self._spent.items()
        ]


_current: ContextVar[Stopwatch | None] = ContextVar("current stopwatch", default=None)


@contextmanager
def waiting(what: str) -> Iterator[None]:
    """Says what this thread waits for, to the run whose thread it is, if it is one's."""
    watch, token, begun = _current.get(), _current.set(None), time.monotonic()
    try:
        yield
    finally:
        _current.reset(token)
        if watch is not None:
            watch.waited(what, time.monotonic() - begun)


def _together(spans: Sequence[Span], least: float) -> list[Span]:
    """These spans, without gaps shorter than ``least``."""
    found: list[Span] = []
    for begun, ended in spans:
        if found and begun - found[-1][1] < least:
            found[-1] = (found[-1][0], ended)
        else:
            found.append((begun, ended))
    return found


def _now() -> tuple[float, float]:
    times = os.times()
    return time.monotonic(), times.user + times.system + times.children_user + times.children_system


def _process_start() -> tuple[float, float]:
    """When this process began; where the system does not tell, as long ago as it has used the processor."""
    now, cpu = _now()
    try:
        ticks = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19])
        age = time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")
    except (OSError, AttributeError, ValueError, IndexError):
        age = cpu
    return now - max(age, 0.0), 0.0
