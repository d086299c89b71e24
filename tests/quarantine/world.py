"""What a small pipeline's ledger and quarantine hold, for tests of rows set aside."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl

from engine import RunReport
from engine.ledger import Ledger, Quarantined
from engine.outcome import Balance

ASIDE = {
    "range_constraints": {"score": [0, 100]},
    "categorical_constraints": {"kind": ["a", "b"]},
    "on_violation": {"range": "quarantine", "categorical": "drop"},
}


def entries(folder: Path, pipeline: str = "p") -> list[Quarantined]:
    with Ledger(folder / ".maestro") as book:
        return book.quarantined(pipeline)


def held(folder: Path, source: str = "s", pipeline: str = "p") -> list[dict[str, Any]]:
    """The rows in quarantine, each with its reasons, in the order of their files."""
    kept = [entry.file for entry in entries(folder, pipeline) if (entry.state, entry.source) == ("held", source)]
    frames = [pl.read_parquet(folder / ".maestro" / file.path) for file in kept]
    assert [frame.height for frame in frames] == [file.rows for file in kept]
    return pl.concat(frames, how="diagonal_relaxed").to_dicts() if frames else []


def landed(folder: Path, source: str = "s", pipeline: str = "p") -> list[dict[str, Any]]:
    """The rows of a source's table, in order."""
    with Ledger(folder / ".maestro") as book:
        table = book.table(pipeline, source)
        assert table is not None
        frames = [pl.read_parquet(book.workdir / file.path) for file in table.files]
        assert [frame.height for frame in frames] == [file.rows for file in table.files]
        return pl.concat(frames).to_dicts()


def balance_of(report: RunReport, source: str = "s") -> Balance:
    [found] = [s for s in report.sources if s.name == source]
    metrics = found.metrics
    assert metrics.records_read == metrics.records_written + metrics.records_failed + metrics.duplicates_removed
    assert metrics.records_failed == found.balance.quarantined + found.balance.dropped
    assert found.to_dict()["balance"] == found.balance.to_dict()
    return found.balance


def balance(report: RunReport, source: str = "s") -> tuple[int, int, int, int, int]:
    """Read, passed, quarantined, dropped, duplicates."""
    found = balance_of(report, source)
    return found.read, found.passed, found.quarantined, found.dropped, found.duplicates_removed


def carried(report: RunReport, source: str = "s") -> tuple[int, int, int]:
    """Rows of blocked reads: judged again, quarantined, dropped."""
    found = balance_of(report, source).carried_over
    return found.judged, found.quarantined, found.dropped
