"""The durable steps of a run, named: after each, what the run has done so far survives its end.

Tests stop a run at each of them and run it again; see tests/faults.
"""

from __future__ import annotations

from collections.abc import Callable

STEPS = (
    "run.begun",
    "read.begun",
    "piece.written",
    "piece.committed",
    "table.written",
    "table.landed",
    "rows.quarantined",
    "table.judged",
    "files.staged",
    "files.recorded",
    "file.published",
    "files.published",
    "rows.loaded",
    "store.loaded",
    "run.finished",
    "landing.collected",
)

KEPT = "file.kept"  # and this one, for each file, where landed files are kept in a store

listener: Callable[[str], object] | None = None  # hears of every step; for tests


def reached(step: str) -> None:
    """``step`` has just been made."""
    if listener is not None:
        listener(step)
