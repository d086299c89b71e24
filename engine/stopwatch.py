"""Where the time of a run goes: seconds and CPU seconds of each stage, without gaps between them.

The stages of a run come one after another, so that all of them together are its critical path; threads that work on
beyond the end of a stage, and processes of its own that it has waited for, count for the stage that is on when they do.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.progress import Progress

START = "start"  # before the first stage: the process begins, packages load, the plan is made
_process_is_a_run = False


@dataclass(frozen=True)
class Lap:
    """What a run spent on one stage, all together.

    Attributes:
        stage: ``start``, then as `engine.progress.Progress.step` has them, then ``finish``.
        name: of the source or view; empty where it is about none.
        seconds: by the clock on the wall.
        cpu_seconds: user and system, of all threads and of the processes that were waited for.
    """

    stage: str
    name: str
    seconds: float
    cpu_seconds: float

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
            "stage": self.stage,
            "name": self.name,
            "seconds": round(self.seconds, 3),
            "cpu_seconds": round(self.cpu_seconds, 3),
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
        self._stage = (START, "")
        self._since = _process_start() if _process_is_a_run else _now()

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

    def laps(self) -> list[Lap]:
        """What was spent until now, in the order in which the stages began."""
        self.enter(*self._stage)
        return [Lap(*stage, *spent) for stage, spent in self._spent.items()]


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
